"""The plan: chunk rule, bytes, files, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.errors import DiskFullError, InputError
from actkit.store import StorePlan, create_store, plan_layer, plan_store, store_from_arrays
from actkit.store_plan import chunk_width, node_names


@given(
    n=st.integers(1, 3000),
    block=st.integers(1, 512),
    shape=st.one_of(
        st.tuples(st.integers(1, 200_000)), st.tuples(st.integers(1, 600), st.integers(1, 120), st.integers(1, 120))
    ),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_chunk_rule(n, block, shape, dtype):
    plan = plan_layer("layer", shape, None, n, block, dtype)
    rows, width = plan.chunks[:2]
    target = 4 * 2**20
    column = math.prod(shape[1:]) * plan.itemsize
    nbytes = rows * width * column
    assert plan.chunks[2:] == shape[1:]
    assert 1 <= rows <= min(block, n)
    assert 1 <= width <= shape[0]
    if n > block:
        assert block % rows == 0
    if min(block, n) * column <= target:
        assert rows == min(block, n)
    # Never much above the target, except where a single value column of one stimulus already is.
    assert nbytes <= max(1.5 * target, column)
    # No absurdly small chunks: under a third of the target only where rows are all there are, or will not divide.
    if rows == min(block, n):
        assert width == shape[0] or nbytes > target / 3 - column * rows
    # The last chunk wastes less than one column per chunk.
    parts = math.ceil(shape[0] / width)
    assert parts * width - shape[0] < parts


@given(total=st.integers(1, 100_000), target=st.integers(1, 5000))
def test_width_divides_where_a_near_divisor_exists(total, target):
    width = chunk_width(total, target)
    near = [w for w in range(math.ceil(target / 2), int(1.5 * target) + 1) if total % w == 0]
    if near:
        assert total % width == 0
        assert min(abs(math.log(w / target)) for w in near) == pytest.approx(abs(math.log(width / target)))
    elif total <= 1.5 * target:
        assert width == total
    else:
        assert target / 2 <= width <= target


def test_examples_of_the_rule():
    assert plan_layer("conv", (96, 56, 56), None, 1000, 32).chunks == (32, 12, 56, 56)
    assert plan_layer("fc", (25088,), None, 92, 32).chunks == (32, 25088)
    assert plan_layer("prime", (100_003,), None, 1000, 64).chunks[0] == 64
    assert plan_layer("tokens", (197, 768), None, 10, 4).attrs["original_shape"] == [197, 768]
    assert plan_layer("scalar", (), None, 10, 4).shape == (1,)
    # One channel of a block is above the target: the block is cut into whole parts.
    assert plan_layer("big", (3, 512, 512), None, 1000, 32).chunks == (4, 1, 512, 512)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 20),
    block=st.integers(1, 8),
    units=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_plan_states_files_and_bytes(tmp_path_factory, n, block, units, dtype):
    folder = tmp_path_factory.mktemp("plan") / "s.zarr"
    arrays = {f"layer{k}": np.ones((n, size), np.float32) for k, size in enumerate(units)}
    labels = {"category": np.array(["a"] * n)}
    store_from_arrays(folder, arrays, labels=labels, block=block, dtype=dtype, chunk_bytes=100)
    layers = {name: (array.shape[1:], None) for name, array in arrays.items()}
    plan = plan_store(folder, layers, [str(k) for k in range(n)], block, labels, dtype=dtype, chunk_bytes=100)
    files = [file for file in folder.rglob("*") if file.is_file()]
    chunks = [file for file in files if file.parent.name == "activation" and file.name != "zarr.json"]
    assert plan.files == len(files)
    assert plan.bytes_of_blocks(plan.n_blocks) == sum(file.stat().st_size for file in chunks)
    actual = sum(file.stat().st_size for file in files)
    assert 0.4 * actual < plan.bytes < 4 * actual


def test_describe_is_a_table(tmp_path):
    plan = plan_store(tmp_path / "s.zarr", {"conv1": ((8, 4, 4), None), "fc": ((10,), None)}, ["a", "b", "c"], 2)
    text = str(plan)
    assert "3 in 2 blocks of 2" in text
    assert "free on this disk" in text
    assert "conv1" in text
    assert "channel 8, y 4, x 4" in text
    assert not (tmp_path / "s.zarr").exists()
    assert plan.block_rows(1) == (2, 3)


def test_a_plan_beyond_the_disk_is_refused_before_anything_is_written(tmp_path):
    huge = plan_store(tmp_path / "s.zarr", {"conv": ((4096, 512, 512), None)}, map(str, range(1_000_000)), 1)
    with pytest.raises(DiskFullError, match=r"needs 4\.3 PB .* has .* free; nothing was written.*float16"):
        create_store(huge)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ("a", "b", "a")}, "'a' occurs more than once"),
        ({"ids": ()}, "no stimuli"),
        ({"layers": ()}, "no layers"),
        ({"labels": {"category": np.array(["x"])}}, "'category' has the shape"),
        ({"attrs": {"when": object()}}, "cannot be kept as JSON"),
        ({"attrs": {"value": float("nan")}}, "cannot be kept as JSON"),
        ({"block": 3}, "do not divide the block of 3|share a file"),
    ],
)
def test_refused_plans(tmp_path, change, message):
    ids = ("a", "b", "c", "d", "e")
    good = {
        "path": tmp_path / "s.zarr",
        "ids": ids,
        "labels": {},
        "layers": (plan_layer("fc", (4,), None, 5, 2),),
        "block": 2,
        "attrs": {},
        "identity": "",
    }
    StorePlan(**good)
    with pytest.raises(InputError, match=message):
        StorePlan(**{**good, **change})


@pytest.mark.parametrize(
    ("shape", "dims", "dtype", "message"),
    [
        ((3, 4), ("unit",), "float32", "do not name the shape"),
        ((3,), ("neuron",), "float32", "do not name the shape"),
        ((3, 0), None, "float32", "empty layer"),
        ((3,), None, "float64", "keeps 'float32' or 'float16'"),
    ],
)
def test_refused_layers(shape, dims, dtype, message):
    with pytest.raises(InputError, match=message):
        plan_layer("fc", shape, dims, 5, 2, dtype)


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=8))
def test_node_names_are_distinct_and_safe(names):
    nodes = node_names(names, taken=["stimulus"])
    assert len({node.casefold() for node in nodes.values()} | {"stimulus", "zarr.json"}) == len(names) + 2
    for node in nodes.values():
        assert "/" not in node
        assert node.isascii()
        assert node not in (".", "..")
        assert not node.startswith("__")
