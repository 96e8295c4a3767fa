"""A store from end to end: what is written is what is read, by actkit and by plain xarray and zarr."""

import json
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actkit.errors import CorruptStoreError, InputError, LayerError, StoreError
from actkit.store import open_store, store_from_arrays
from actkit.store_chunks import ChunkTable, decode_float16
from actkit.store_files import canonical_json
from actkit.store_layout import ZarrTable, consolidated, open_array
from actkit.store_read import ActivationStore


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "features.0@1": rng.standard_normal((13, 5, 4, 3), dtype=np.float32),
        "a/tokens": rng.standard_normal((13, 3, 7), dtype=np.float32),
        "fc": rng.standard_normal((13, 37), dtype=np.float32),
        "stimulus": rng.standard_normal((13, 2), dtype=np.float32),
    }


@pytest.fixture
def store(tmp_path, arrays):
    return store_from_arrays(
        tmp_path / "s.zarr",
        arrays,
        ids=[f"s1/bild_ä{k}" for k in range(13)],
        labels={
            "category": np.array(["face", "hand"] * 6 + ["face"]),
            "is face": np.arange(13) % 2 == 0,
            "pose": np.zeros(13),
        },
        attrs={"network": "toy", "weights": {"sha256": "00"}},
        block=4,
        chunk_bytes=300,
    )


def test_plain_xarray_opens_it_without_a_warning(store, arrays):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_datatree(store.path, engine="zarr") as tree:
            tree.load()
    assert [str(i) for i in tree["stimulus"].values] == store.ids.tolist()
    assert set(tree.coords) == {"stimulus", "category", "is_face", "pose"}
    assert not tree.data_vars
    assert [str(c) for c in tree["category"].values[:2]] == ["face", "hand"]
    assert tree.attrs["provenance"]["network"] == "toy"
    conv = tree["features.0@1"]["activation"]
    assert conv.dims == ("stimulus", "channel", "y", "x")
    assert np.array_equal(conv.sel(stimulus="s1/bild_ä7").values, arrays["features.0@1"][7])
    assert np.array_equal(tree["a%2Ftokens"]["activation"], arrays["a/tokens"].reshape(13, 21))
    assert tree["fc"]["unit"].values.tolist() == list(range(37))


def test_plain_zarr_lists_it_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = dict(zarr.open_group(store.path, mode="r").members(max_depth=None))
        unconsolidated = dict(zarr.open_group(store.path, mode="r", use_consolidated=False).members(max_depth=None))
    assert set(members) == set(unconsolidated)
    assert "fc/activation" in members


def test_consolidated_metadata_is_what_zarr_would_write(store):
    ours = json.loads((store.path / "zarr.json").read_bytes())
    with pytest.warns(match="Consolidated metadata is currently not part"):
        zarr.consolidate_metadata(store.path)
    theirs = json.loads((store.path / "zarr.json").read_bytes())
    assert theirs == ours
    nodes = ours["consolidated_metadata"]["metadata"]
    assert consolidated({"attributes": ours["attributes"]}, nodes) == ours
    assert canonical_json(ours).endswith(b"}\n")


def test_what_was_stored_is_read(store, arrays):
    assert store.layers == tuple(arrays)
    assert len(store) == 4
    assert "fc" in store
    assert "conv9" not in store
    assert store.n_stimuli == 13
    assert store.ids[2] == "s1/bild_ä2"
    assert store.labels["category"].tolist()[:2] == ["face", "hand"]
    assert store.labels["is face"].dtype == bool
    assert store.attrs["network"] == "toy"
    for name, array in arrays.items():
        flat = array.reshape(13, -1)
        assert np.array_equal(store.rows(name), flat)
        assert np.array_equal(store.rows(name, 3, 9), flat[3:9])
        assert np.array_equal(store.units(name, 1, 2), flat[:, 1:2])
        assert np.array_equal(store.units(name, rows=[7, 2, 2, -1]), flat[[7, 2, 2, -1]])
        assert np.array_equal(store.units(name, 0, 2, rows=flat[:, 0] > 0), flat[flat[:, 0] > 0, :2])
        assert store.n_units(name) == flat.shape[1]
        assert store.rows(name, 4, 4).shape == (0, flat.shape[1])
    assert store.shape("features.0@1") == (5, 4, 3)
    assert store.dims("features.0@1") == ("channel", "y", "x")


def test_lazy_array(store, arrays):
    lazy = store["features.0@1"]
    full = arrays["features.0@1"]
    assert lazy.dims == ("stimulus", "channel", "y", "x")
    assert lazy.dtype == np.float32
    assert lazy.name == "features.0@1"
    assert set(lazy.coords) == {"stimulus", "category", "is face", "pose", "channel"}
    assert np.array_equal(lazy.values, full)
    assert np.array_equal(lazy.sel(stimulus="s1/bild_ä4", channel=[3, 1]).values, full[4][[3, 1]])
    assert np.array_equal(lazy[::-2, 1:4, :, 0].values, full[::-2, 1:4, :, 0])
    assert np.array_equal(lazy[[5, 1], :, [2, 0], 1:].values, full[np.ix_([5, 1], range(5), [2, 0], [1, 2])])
    assert np.array_equal(lazy[2, 1, 3, 2].values, full[2, 1, 3, 2])
    assert lazy[3:3].values.shape == (0, 5, 4, 3)
    points = lazy.isel(stimulus=xr.DataArray([0, 3], dims="draw"), channel=xr.DataArray([1, 2], dims="draw"))
    assert np.array_equal(points.values, full[[0, 3], [1, 2]])
    changed = store["fc"]
    changed.values[0, 0] = 99
    assert store.rows("fc")[0, 0] == arrays["fc"][0, 0]


def test_opening_loads_nothing(store, monkeypatch):
    def refuse(*args):
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(ChunkTable, "read", refuse)
    monkeypatch.setattr(ChunkTable, "read_into", refuse)
    opened = open_store(store.path)
    lazy = opened["features.0@1"].isel(channel=slice(2)).rename("x")
    assert "13" in repr(lazy)
    opened.info()
    opened.tree()
    with pytest.raises(AssertionError, match="a chunk was read"):
        lazy.load()


def test_only_the_chunks_needed_are_read(tmp_path, monkeypatch):
    store = store_from_arrays(tmp_path / "s.zarr", {"fc": np.zeros((12, 40))}, block=4, chunk_bytes=4 * 4 * 10)
    assert store.chunks("fc") == (4, 10)
    seen = []
    original = ChunkTable._read_pieces

    def watch(self, i, j, pieces):
        seen.append((i, j))
        return original(self, i, j, pieces)

    monkeypatch.setattr(ChunkTable, "_read_pieces", watch)
    store.units("fc", 12, 19)
    assert sorted(seen) == [(0, 1), (1, 1), (2, 1)]
    seen.clear()
    store.rows("fc", 5, 7)
    assert sorted(seen) == [(1, j) for j in range(4)]
    seen.clear()
    store.units("fc", 0, 5, rows=[0, 11])
    assert sorted(seen) == [(0, 0), (2, 0)]
    seen.clear()
    store["fc"][2:3, 35:].load()
    assert seen == [(0, 3)]
    for blocks in (store.unit_blocks("fc", 1800), store.row_blocks("fc", 1800)):
        seen.clear()
        assert len(list(blocks)) > 1
        assert sorted(seen) == [(i, j) for i in range(3) for j in range(4)]


shapes = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 60)),
    st.tuples(st.integers(1, 12), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4)),
)
finite = st.floats(-1000, 1000, width=32)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=shapes, block=st.integers(1, 6), chunk=st.integers(4, 400), half=st.booleans())
def test_round_trip_of_any_shape_and_chunk(tmp_path_factory, data, shape, block, chunk, half):
    array = data.draw(hnp.arrays(np.float32, shape, elements=finite))
    folder = tmp_path_factory.mktemp("round") / "s.zarr"
    dtype = "float16" if half else "float32"
    store = store_from_arrays(folder, {"layer": array}, block=block, chunk_bytes=chunk, dtype=dtype)
    flat = array.reshape(len(array), -1)
    # What any Zarr reader sees, and the sum that a float16 store stands for.
    through_zarr = open_array(folder / "layer" / "activation")[...].reshape(len(array), -1)
    if half:
        centre = open_array(folder / "layer" / "centre")[...].reshape(-1)
        expected = through_zarr.astype(np.float32) + centre
        assert np.all(np.abs(expected - flat) <= 2**-10 * np.abs(flat - centre) + 2.0**-13)
    else:
        expected = through_zarr
        assert np.array_equal(expected, flat)
    n, units = flat.shape
    assert np.array_equal(store.rows("layer"), expected)
    assert np.array_equal(store.units("layer"), expected)
    assert np.array_equal(store["layer"].values.reshape(n, -1), expected)
    a, b = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    c, d = sorted(data.draw(st.tuples(st.integers(0, units), st.integers(0, units))))
    assert np.array_equal(store.rows("layer", a, b), expected[a:b])
    assert np.array_equal(store.units("layer", c, d), expected[:, c:d])
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=5))
    assert np.array_equal(store.units("layer", c, d, rows=rows), expected[rows, c:d])
    room = data.draw(st.integers(2000, 20_000))
    for blocks, axis in ((store.row_blocks("layer", room), 0), (store.unit_blocks("layer", room), 1)):
        got = list(blocks)
        assert np.array_equal(np.concatenate([block for _, _, block in got], axis=axis), expected)
        assert [stop for _, stop, _ in got[:-1]] == [start for start, _, _ in got[1:]]
        assert all(block.nbytes <= room for _, _, block in got)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    hnp.arrays(np.float32, 9, elements=finite),
)
def test_widening_float16_is_exact(bits, centre):
    stored, centre = bits.view(np.float16), centre[: bits.shape[1]]
    out = np.full(bits.shape, 7, np.float32)
    decode_float16(stored, centre, out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, stored.astype(np.float32) + centre)


def test_widening_float16_meets_every_value():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)][None]
    out = np.empty(every.shape, np.float32)
    decode_float16(every, np.zeros(every.shape[1], np.float32), out)
    assert np.array_equal(out, every.astype(np.float32))


def test_centred_float16_is_far_closer_than_raw_float16(tmp_path):
    rng = np.random.default_rng(1)
    array = (100 + rng.standard_normal((50, 30))).astype(np.float32)
    store = store_from_arrays(tmp_path / "s.zarr", {"fc": array}, dtype="float16", block=7)
    assert store.dtype("fc") == np.float16
    assert store.rows("fc").dtype == np.float32
    ours = np.abs(store.rows("fc") - array).mean()
    raw = np.abs(array.astype(np.float16).astype(np.float32) - array).mean()
    assert ours < raw / 30


def test_float16_overflow_is_an_error_and_infinity_is_kept(tmp_path):
    array = np.zeros((4, 3), np.float32)
    array[1, 1] = 3e5
    with pytest.raises(StoreError, match=r"'fc' has values up to 225000 away .* Record this layer as float32"):
        store_from_arrays(tmp_path / "s.zarr", {"fc": array}, dtype="float16")
    array[1, 1] = np.inf
    array[2, 2] = np.nan
    store = store_from_arrays(tmp_path / "t.zarr", {"fc": array}, dtype="float16")
    assert np.array_equal(store.rows("fc"), array, equal_nan=True)


def test_layers_of_nan_keep_their_files(tmp_path):
    array = np.full((5, 6), np.nan, np.float32)
    store = store_from_arrays(tmp_path / "s.zarr", {"fc": array}, block=2)
    assert len(list((store.path / "fc" / "activation").glob("c.*"))) == 3
    assert np.isnan(store.rows("fc")).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_streaming_keeps_to_its_memory(tmp_path, dtype):
    array = np.random.default_rng(0).standard_normal((256, 8192), dtype=np.float32)  # 8 MB
    store = store_from_arrays(tmp_path / "s.zarr", {"fc": array}, block=32, chunk_bytes=1 << 15, dtype=dtype)
    store.units("fc", 0, 1)  # what is read once stays: the centre
    allowed = 1 << 20

    def peak(work):
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def drain(blocks):
        for _, _, block in blocks:
            block += 1
            del block

    slack = 100_000  # threads, lists, spans
    assert peak(lambda: drain(store.unit_blocks("fc", allowed))) < allowed + slack
    assert peak(lambda: drain(store.row_blocks("fc", allowed))) < allowed + slack
    assert peak(lambda: store.rows("fc")) > allowed + slack  # the measure does see what is read


def test_a_store_rewritten_by_another_tool_is_still_read(store, arrays):
    old = open_array(store.path / "fc" / "activation")
    values = old[...]
    zarr.create_array(
        store.path / "fc" / "activation",
        data=values,
        chunks=(5, 6),
        dimension_names=["stimulus", "unit"],
        overwrite=True,
    )
    document = json.loads((store.path / "zarr.json").read_bytes())
    document.pop("consolidated_metadata")
    (store.path / "zarr.json").write_bytes(canonical_json(document))
    again = open_store(store.path)
    assert isinstance(again._layer("fc").table, ZarrTable)
    assert np.array_equal(again.rows("fc"), arrays["fc"])
    assert np.array_equal(again.units("fc", 3, 20, rows=[1, 12]), arrays["fc"][[1, 12], 3:20])
    assert np.array_equal(np.hstack([b for *_, b in again.unit_blocks("fc", 1000)]), arrays["fc"])


def test_damage_is_named_when_it_is_read(store):
    file = store.path / "fc" / "activation" / "c.2.0"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    store.rows("fc", 0, 8)
    with pytest.raises(CorruptStoreError, match=r"layer 'fc', stimuli 8 to 12: .*c\.2\.0 does not match its checksum"):
        store.rows("fc")
    file.write_bytes(content[:-1])
    with pytest.raises(CorruptStoreError, match=r"has \d+ bytes instead of"):
        list(store.unit_blocks("fc", 10_000))
    file.unlink()
    with pytest.raises(CorruptStoreError, match="is missing"):
        store["fc"].load()


def test_mistakes_are_answered(store, tmp_path):
    with pytest.raises(LayerError, match=r"'fc1' is not in the store .*nearest: 'fc'"):
        store.rows("fc1")
    with pytest.raises(InputError, match="stimuli 3 to 99 are not within 0 to 13"):
        store.rows("fc", 3, 99)
    with pytest.raises(InputError, match="units 2 to 1"):
        store.units("fc", 2, 1)
    with pytest.raises(InputError, match="mask of stimuli"):
        store.units("fc", rows=np.ones(3, bool))
    with pytest.raises(InputError, match="positions"):
        store.units("fc", rows=[13])
    with pytest.raises(InputError, match="max_bytes=10 does not hold"):
        store.unit_blocks("fc", 10)
    with pytest.raises(StoreError, match="there is no store"):
        open_store(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match="not an activation store"):
        open_store(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="Zarr group but not an activation store"):
        open_store(tmp_path / "other.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(CorruptStoreError, match="not readable"):
        open_store(tmp_path / "bad.zarr")


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({}, {}, "no arrays"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}, {}, "'b' has 3 stimuli and 'a' has 2"),
        ({"a": np.array(["x"])}, {}, "give numbers"),
        ({"a": np.zeros((2, 3))}, {"ids": ["x"]}, "1 ids were given for 2 rows"),
        ({"a": np.zeros((2, 3))}, {"labels": {"unit": [0, 1]}}, "cannot be called 'unit'"),
        ({"a": np.zeros((2, 3))}, {"labels": {"a b": [0, 1], "a_b": [0, 1]}}, "would both be kept as 'a_b'"),
        ({"a": np.zeros((2, 3))}, {"labels": {"when": np.array([1, 2], "datetime64[s]")}}, "dtype datetime64"),
    ],
)
def test_arrays_that_make_no_store(tmp_path, arrays, settings, message):
    with pytest.raises(InputError, match=message):
        store_from_arrays(tmp_path / "s.zarr", arrays, **settings)
    assert not (tmp_path / "s.zarr").exists()


def test_identity_covers_content(tmp_path):
    array = np.arange(12.0).reshape(4, 3)

    def identity(name, values, **settings):
        return store_from_arrays(tmp_path / name, {"fc": values}, **settings).identity

    first = identity("a.zarr", array)
    assert identity("b.zarr", array.copy()) == first
    changed = array.copy()
    changed[3, 2] += 1
    assert identity("c.zarr", changed) != first
    assert identity("d.zarr", array, ids="wxyz") != first
    assert identity("e.zarr", array, dtype="float16") != first


def test_texts_for_people(store):
    info = store.info()
    assert "13, s1/bild_ä0" in info
    assert "channel 5, y 4, x 3" in info
    assert "network" in info
    assert "'category': 2 values" in info
    tree = store.tree()
    assert "├── fc" in tree
    assert "activation (stimulus 13, unit 37) float32" in tree
    assert "13 stimuli, 4 layers" in repr(store)


def test_a_store_survives_pickling(store, arrays):
    store.rows("fc")
    again = pickle.loads(pickle.dumps(store))
    assert isinstance(again, ActivationStore)
    assert np.array_equal(again.rows("fc"), arrays["fc"])
    assert open_store(again) is again
    assert np.array_equal(pickle.loads(pickle.dumps(store["fc"])).values, arrays["fc"])
