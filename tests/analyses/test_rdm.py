"""RDMs against scipy and rsatoolbox, streamed, in both precisions, on both libraries, and with bad input."""

import json
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from actkit.analyses import gram
from actkit.analyses.rdm import rdm
from actkit.errors import InputError, LayerError
from actkit.recordings import validate_rdms
from actkit.results import load, save

METHODS = ("correlation", "cosine", "euclidean", "sqeuclidean")


def patterns(n=25, p=3000, seed=0):
    """Rectified activations with stimuli and units of very different means."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + 2 * rng.random((n, 1)) + 3 * rng.random(p)
    return np.maximum(x, 0)


class Blocks:
    """A store in the form that rdm() reads: blocks of units, made when they are asked for."""

    def __init__(self, make, n, n_units, width, layers=("fc",)):
        self.make, self.n, self.width, self.layers = make, n, width, layers
        self.units = n_units
        self.ids = np.array([f"i{k}" for k in range(n)])
        self.labels, self.attrs, self.path, self.fingerprint = {}, {"network": "net"}, "acts.zarr", "abc"
        self.asked = []

    def n_units(self, layer):
        return self.units

    def unit_blocks(self, layer, max_bytes):
        self.asked.append(max_bytes)
        for start in range(0, self.units, self.width):
            stop = min(start + self.width, self.units)
            yield start, stop, self.make(start, stop)


@pytest.mark.parametrize("method", METHODS)
def test_float64_is_scipys(method):
    x = patterns()
    np.testing.assert_allclose(rdm(x, method=method).dissimilarity.values[0], pdist(x, method), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_close(method):
    x = patterns().astype(np.float32)
    reference = pdist(x.astype(np.float64), method)
    ours = rdm(x, method=method).dissimilarity.values[0]
    scale = 1.0 if method in ("correlation", "cosine") else reference.max()
    np.testing.assert_allclose(ours / scale, reference / scale, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_correlation_is_rsatoolboxs():
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    x = patterns()
    theirs = calc_rdm(Dataset(x), method="correlation").dissimilarities
    np.testing.assert_allclose(rdm(x).dissimilarity.values, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rdm(x.astype(np.float32)).dissimilarity.values, theirs, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 60), inner=st.integers(1, 60), method=st.sampled_from(METHODS))
def test_blocks_do_not_change_the_answer(width, inner, method):
    x = patterns(n=8, p=60)
    source = Blocks(lambda a, b: x[:, a:b], 8, 60, width)
    before = gram.WIDTH
    gram.WIDTH = inner
    try:
        ours = rdm(source, method=method, dtype="float64").dissimilarity.values[0]
    finally:
        gram.WIDTH = before
    np.testing.assert_allclose(ours, pdist(x, method), rtol=1e-10, atol=1e-12)


def test_a_first_block_that_is_not_typical():
    """The first units are zero and the others far from zero: nothing may cancel."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros((10, 40)), 1e4 + rng.normal(size=(10, 400))], axis=1).astype(np.float32)
    source = Blocks(lambda a, b: x[:, a:b], 10, 440, 40)
    reference = pdist(x.astype(np.float64), "correlation")
    np.testing.assert_allclose(rdm(source).dissimilarity.values[0], reference, atol=1e-6)
    # Far from zero throughout: the plain one-pass formula loses every digit in float32.
    far = (1e4 + rng.normal(size=(10, 400))).astype(np.float32)
    np.testing.assert_allclose(
        rdm(far).dissimilarity.values[0], pdist(far.astype(np.float64), "correlation"), atol=1e-6
    )


def test_near_pairs_on_uncentred_float32():
    """Squared distances of near patterns on a large common pattern; the plain Gram formula gives negative ones."""
    rng = np.random.default_rng(0)
    common = 30 * rng.random(5000)
    x = np.maximum(common + 0.3 * rng.normal(size=(20, 5000)), 0)
    x[1] = x[0] + 2e-3 * rng.normal(size=5000)
    x = x.astype(np.float32)
    reference = pdist(x.astype(np.float64), "sqeuclidean")
    ours = rdm(x, method="sqeuclidean").dissimilarity.values[0]
    plain = (x * x).sum(axis=1)[:, None] + (x * x).sum(axis=1) - 2 * x @ x.T
    assert abs(plain[0, 1] - reference[0]) > reference[0]
    assert ours[0] == pytest.approx(reference[0], rel=0.02)
    np.testing.assert_allclose(ours[1:], reference[1:], rtol=1e-6)
    assert (rdm(np.repeat(x[:1], 3, axis=0), method="euclidean").dissimilarity.values >= 0).all()


def test_memory_is_bounded():
    n, units, width = 60, 1_000_000, 8000

    def make(start, stop):
        return np.random.default_rng(start).standard_normal((n, stop - start), dtype=np.float32)

    source = Blocks(make, n, units, width)
    tracemalloc.start()
    rdm(source, memory="20MB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the layer has 240 MB
    assert source.asked == [20_000_000 - 32 * n * n - 4 * n * gram.WIDTH]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_is_read_in_blocks(tmp_path, dtype):
    from actkit.store import store_from_arrays

    maps, flat = patterns(n=9, p=6 * 8 * 8).reshape(9, 6, 8, 8).astype(np.float32), patterns(n=9, p=500, seed=1)
    store = store_from_arrays(
        tmp_path / "acts.zarr",
        {"conv1": maps, "fc": flat},
        ids=[f"i{k}" for k in range(9)],
        labels={"category": np.array(list("aaabbbccc"))},
        attrs={"network": "small"},
        dtype=dtype,
        chunk_bytes=2048,
    )
    tolerance = 1e-6 if dtype == "float32" else 1e-4
    for source in (store, tmp_path / "acts.zarr", str(tmp_path / "acts.zarr")):
        result = rdm(source, memory="100kB")
        assert result.layer.values.tolist() == ["conv1", "fc"]
        assert (result.attrs["name"], result.attrs["network"]) == ("small", "small")
        assert result.category.values.tolist() == list("aaabbbccc")
        for row, x in zip(result.dissimilarity.values, (maps.reshape(9, -1), flat), strict=True):
            np.testing.assert_allclose(row, pdist(x.astype(np.float64), "correlation"), atol=tolerance)
    with pytest.raises(InputError, match="its own stimulus ids"):
        rdm(store, ids=list("abcdefghi"))
    assert rdm(store, layers=["fc"]).attrs["inputs"] == result.attrs["inputs"]


def test_too_little_memory_says_how_much():
    with pytest.raises(InputError, match="give more than"):
        rdm(patterns(), memory="1kB")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_is_numpy(method, dtype):
    import torch

    x = patterns(n=12, p=500).astype(dtype)
    x[3] = 0
    ours = rdm(x, method=method)
    for other in (rdm(x, method=method, device="cpu"), rdm(torch.from_numpy(x), method=method)):
        scale = 1.0 if method in ("correlation", "cosine") else np.nanmax(ours.dissimilarity.values)
        np.testing.assert_allclose(
            other.dissimilarity.values / scale,
            ours.dissimilarity.values / scale,
            rtol=0,
            atol=1e-6 if dtype == "float32" else 1e-13,
        )
        np.testing.assert_array_equal(other.constant_patterns, ours.constant_patterns)


def test_bfloat16_tensors():
    import torch

    x = torch.from_numpy(patterns(n=6, p=400)).to(torch.bfloat16)
    np.testing.assert_allclose(rdm(x).dissimilarity[0], pdist(x.double().numpy(), "correlation"), atol=1e-6)


def test_torch_settings_are_put_back():
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rdm(patterns().astype(np.float32), device="cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_patterns_are_nan_and_counted(dtype, device):
    x = patterns(n=7, p=9000).astype(dtype)
    x[2], x[5] = 0, 0.1
    result = rdm({"relu": x, "fc": x[:, :50]}, device=device)
    square = np.isnan(result.dissimilarity.values[0]).sum()
    assert square == 6 + 5
    assert result.constant_patterns.values.tolist() == [2, 2]
    assert json.loads(result.attrs["constant_stimuli"])["relu"] == ["2", "5"]
    cosine = rdm(x, method="cosine", device=device)
    assert cosine.constant_patterns.values.tolist() == [1]
    assert np.isnan(cosine.dissimilarity.values).sum() == 6
    euclidean = rdm(x, method="euclidean", device=device)
    assert not np.isnan(euclidean.dissimilarity).any()
    assert json.loads(euclidean.attrs["constant_stimuli"]) == {}


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value, method, device):
    x = patterns(n=6, p=100).astype(np.float32)
    x[4, 77] = value
    data = xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": list("abcdef")}, name="features.3")
    with pytest.raises(InputError, match=r"'features\.3' holds NaN or infinite activations for the stimuli 'e'"):
        rdm(data, method=method, device=device)


@pytest.mark.parametrize("method", METHODS)
def test_large_float32_values_do_not_overflow(method):
    x = patterns(n=5, p=80).astype(np.float32) * np.float32(1e25)
    reference = pdist(x.astype(np.float64), method)
    np.testing.assert_allclose(rdm(x, method=method).dissimilarity.values[0], reference, rtol=1e-5)
    with pytest.raises(InputError, match="float64"):
        rdm(x.astype(np.float64) * 1e250, method=method)


def test_sources_give_the_same_rdm(tmp_path):
    x = patterns(n=6, p=4 * 3 * 5).reshape(6, 4, 3, 5)
    names = [f"i{k}" for k in range(6)]
    data = xr.DataArray(x, dims=("stimulus", "channel", "y", "x"), coords={"stimulus": names}, name="conv")
    reference = pdist(x.reshape(6, -1), "correlation")
    moved = data.transpose("channel", "stimulus", "y", "x")
    shuffled = {"conv": data, "again": data.isel(stimulus=[3, 1, 5, 0, 2, 4])}
    for source in (data, moved, {"conv": data}, shuffled, xr.Dataset({"conv": data})):
        result = rdm(source)
        assert result.stimulus.values.tolist() == names
        for row in result.dissimilarity.values:
            np.testing.assert_allclose(row, reference, rtol=1e-12)
    assert rdm(x, ids=names).stimulus.values.tolist() == names
    np.testing.assert_allclose(rdm(x.tolist()).dissimilarity[0], reference, rtol=1e-12)
    assert len({rdm(s).attrs["inputs"] for s in (data, moved, {"conv": data})}) == 1
    assert rdm(data + 1).attrs["inputs"] != rdm(data).attrs["inputs"]
    lazily = save(data.to_dataset(), tmp_path / "acts.nc")
    with xr.open_dataset(lazily, engine="h5netcdf") as opened:
        np.testing.assert_allclose(rdm(opened, memory="10kB").dissimilarity[0], reference, rtol=1e-12)


def test_integers_and_halves():
    x = np.random.default_rng(0).integers(0, 255, size=(5, 300)).astype(np.uint8)
    np.testing.assert_allclose(rdm(x).dissimilarity[0], pdist(x.astype(float), "correlation"), rtol=1e-12)
    half = patterns(n=5).astype(np.float16)
    np.testing.assert_allclose(rdm(half).dissimilarity[0], pdist(half.astype(float), "correlation"), atol=1e-6)


def test_result_is_an_rdm_dataset(tmp_path):
    x = patterns(n=6, p=50)
    data = xr.DataArray(
        x, dims=("stimulus", "unit"), coords={"stimulus": list("abcdef"), "category": ("stimulus", list("xxyyzz"))}
    )
    result = validate_rdms(rdm({"conv": data, "fc": data[:, :9]}, method="cosine"))
    assert result.layer.values.tolist() == ["conv", "fc"]
    assert result.category.values.tolist() == list("xxyyzz")
    assert result.n_units.values.tolist() == [50, 9]
    assert (result.attrs["analysis"], result.attrs["measure"]) == ("rdm", "cosine")
    assert json.loads(result.attrs["options"])["method"] == "cosine"
    xr.testing.assert_identical(load(save(result, tmp_path / "rdms.nc")), result)
    np.testing.assert_array_equal(data, x)


def test_layers_are_chosen_by_name_and_pattern():
    x = patterns(n=4, p=20)
    source = dict.fromkeys(("features.0", "features.0.relu@0", "features.0.relu@1", "fc"), x)

    def chosen(*layers):
        return rdm(source, layers=list(layers)).layer.values.tolist()

    assert chosen("features.*") == ["features.0"]
    assert chosen("fc", "features.0") == ["features.0", "fc"]
    assert chosen("features.0.relu") == ["features.0.relu@0", "features.0.relu@1"]
    assert chosen("**") == list(source)
    with pytest.raises(LayerError, match="nearest: 'fc'"):
        chosen("fcc")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.ones((1, 5)), {}, "1 stimulus"),
        (np.ones(5), {}, "stimuli × units"),
        (np.ones((5, 1)), {}, "1 unit"),
        (np.ones((5, 0)), {"method": "cosine"}, "no units"),
        (np.array([["a", "b"], ["c", "d"]]), {}, "dtype"),
        ({}, {}, "no arrays"),
        ({"a": np.ones((4, 3)), "b": np.ones((5, 3))}, {}, "5 rows"),
        (3, {}, "int"),
        (np.ones((4, 3)), {"ids": ["a", "b"]}, "2 stimuli"),
        (np.ones((4, 3)), {"ids": ["a", "b", "b", "c"]}, "'b'"),
        (xr.DataArray(np.ones((4, 3)), dims=("image", "unit")), {}, "stimulus"),
        (np.ones((4, 3)), {"method": "mahalanobis"}, "mahalanobis"),
        (np.ones((4, 3)), {"device": "abacus"}, "abacus"),
    ],
)
def test_bad_input_is_named(source, options, message):
    with pytest.raises(InputError, match=message):
        rdm(source, **options)


def test_arrays_with_other_stimuli():
    a = xr.DataArray(np.ones((3, 4)), dims=("stimulus", "unit"), coords={"stimulus": list("abc")})
    with pytest.raises(InputError, match="'d'"):
        rdm({"one": a, "two": a.assign_coords(stimulus=list("abd"))})
