import itertools

import numpy as np
import pytest
import xarray as xr

from actkit.analyses import variance_partitioning_plot
from actkit.analyses.encoding import encode
from actkit.analyses.encoding_banded import encode_banded
from actkit.analyses.variance_partitioning import partition_variance, parts_of, subsets_of
from actkit.errors import InputError

WIDE = list(np.logspace(-8, 8, 17))
FAST = {"penalties": WIDE, "n_candidates": 8}


def recording(values):
    """Averages of neurons n0, n1, … to stimuli s0, s1, …."""
    names = {"stimulus": [f"s{i}" for i in range(len(values))], "neuron": [f"n{j}" for j in range(values.shape[-1])]}
    return xr.DataArray(values, dims=("stimulus", "neuron"), coords=names)


def sources(n=300, q=12, noise=0.6, seed=0):
    """Three independent sources of 5 dims, and neurons that read one of them, another, or both."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.normal(size=(n, 5)) for _ in range(3))
    mix = lambda x: x @ rng.normal(size=(5, q)) / np.sqrt(5)  # noqa: E731
    return a, b, c, mix(a), mix(b), noise * rng.normal(size=(n, q))


def test_parts_are_those_of_the_three_circles():
    rng = np.random.default_rng(1)
    planted = {chosen: rng.random(4) for chosen in subsets_of(3)}
    explained = {
        chosen: sum(value for part, value in planted.items() if set(part) & set(chosen)) for chosen in subsets_of(3)
    }
    found = parts_of(explained)
    for chosen, value in planted.items():
        np.testing.assert_allclose(found[chosen], value, atol=1e-12)
    e = explained
    np.testing.assert_allclose(found[(0,)], e[(0, 1, 2)] - e[(1, 2)], atol=1e-12)  # as written in textbooks
    np.testing.assert_allclose(found[(0, 1)], e[(0, 2)] + e[(1, 2)] - e[(2,)] - e[(0, 1, 2)], atol=1e-12)


@pytest.mark.parametrize(("n_bands", "model"), [(2, "banded"), (3, "ridge"), (4, "ridge")])
def test_parts_add_up_to_the_whole(n_bands, model):
    a, b, c, from_a, from_b, noise = sources(n=80, q=5)
    bands = dict(zip("wxyz", (a, b, c, a + b), strict=True))
    chosen = {name: bands[name] for name in list(bands)[:n_bands]}
    result = partition_variance(chosen, recording(from_a + from_b + noise), ids=_ids(80), model=model, **FAST)
    whole = result["explained_variance"].values[-1]
    np.testing.assert_allclose(result["share"].sum("part").values, whole, atol=1e-12)
    assert result.sizes["part"] == 2**n_bands - 1
    np.testing.assert_allclose(result["mean_share"].sum().values, whole.mean(), atol=1e-12)


def test_subsets_are_the_models_of_their_bands():
    a, b, c, from_a, from_b, noise = sources(n=90, q=4)
    bands, data = {"a": a, "b": b, "c": c}, recording(from_a + from_b + noise)
    ids = [f"s{i}" for i in range(90)]
    result = partition_variance(bands, data, ids=ids, **FAST)
    for names in itertools.chain(*(itertools.combinations("abc", k) for k in (1, 2, 3))):
        one = encode_banded({name: bands[name] for name in names}, data, ids=ids, **FAST)
        found = result.sel(subset=" + ".join(names))
        np.testing.assert_allclose(found["explained_variance"].values, one["explained_variance"].values, atol=1e-12)
        np.testing.assert_allclose(found["r"].values, one["r"].values, atol=1e-12)
    ridge = partition_variance(bands, data, ids=ids, model="ridge", penalties=WIDE)
    alone = encode({"a": a}, data, ids=ids, penalties=WIDE)
    np.testing.assert_allclose(ridge["explained_variance"].values[0], alone["explained_variance"].values[0], atol=1e-9)


def test_independent_bands_share_nothing_and_explain_their_own():
    a, b, _, from_a, from_b, noise = sources(q=30)
    result = partition_variance({"a": a, "b": b}, recording(from_a + from_b + noise), ids=_ids(300), **FAST)
    expected = np.stack([from_a.var(axis=0), from_b.var(axis=0)]) / (from_a + from_b + noise).var(axis=0)
    np.testing.assert_allclose(result["share"].values[:2], expected, atol=0.2)
    np.testing.assert_allclose(result["median_share"].values, [*np.median(expected, axis=1), 0], atol=0.04)
    assert abs(float(result["median_share"][2])) < 0.04


@pytest.mark.parametrize("model", ["banded", "ridge"])
def test_identical_bands_have_nothing_of_their_own(model):
    a, _, _, from_a, _, noise = sources()
    result = partition_variance({"a": a, "b": 7 * a}, recording(from_a + noise), ids=_ids(300), model=model, **FAST)
    np.testing.assert_allclose(result["share"].values[:2], 0, atol=1e-7)
    np.testing.assert_allclose(result["share"].values[2], result["explained_variance"].values[0], atol=1e-7)
    assert (result["share"].values[2] > 0.2).all()


def test_a_source_in_two_bands_is_their_shared_part():
    a, b, c, from_a, from_b, noise = sources(q=30)
    bands = {"x": np.hstack([a, b]), "y": np.hstack([a, c])}
    result = partition_variance(bands, recording(from_a + from_b + noise), ids=_ids(300), **FAST)
    total = (from_a + from_b + noise).var(axis=0)
    expected = [np.median(from_b.var(axis=0) / total), 0, np.median(from_a.var(axis=0) / total)]
    np.testing.assert_allclose(result["median_share"].values, expected, atol=0.07)


def test_noise_lowers_the_parts_and_division_by_the_reliability_restores_them():
    a, b, _, from_a, from_b, _ = sources(n=600, q=30, seed=3)
    signal = from_a + from_b
    signal /= signal.std(axis=0)
    rho = np.linspace(0.3, 0.9, 30)
    noise = np.random.default_rng(4).normal(size=signal.shape) * np.sqrt((1 - rho) / rho)
    clean = partition_variance({"a": a, "b": b}, recording(signal), ids=_ids(600), penalties=[1e-4], model="ridge")
    noisy = partition_variance(
        {"a": a, "b": b}, recording(signal + noise), rho, ids=_ids(600), penalties=[1e-3], model="ridge"
    )
    np.testing.assert_allclose(noisy["median_share_corrected"].values, clean["median_share"].values, atol=0.04)
    assert float(noisy["median_share"][0]) < float(clean["median_share"][0]) - 0.1
    np.testing.assert_allclose(noisy["share_corrected"].values, noisy["share"].values / rho, rtol=1e-12)


def test_intervals_are_percentiles_of_medians_of_resampled_neurons():
    a, b, _, from_a, from_b, noise = sources(n=60, q=20)
    result = partition_variance(
        {"a": a, "b": b}, recording(from_a + from_b + noise), ids=_ids(60), n_draws=4000, **FAST
    )
    rng = np.random.default_rng(0)
    for part in range(3):
        share = result["share"].values[part]
        medians = np.median(rng.choice(share, size=(4000, 20)), axis=1)
        spread = float(result["share_high"][part] - result["share_low"][part])
        np.testing.assert_allclose(result["share_low"][part], np.quantile(medians, 0.025), atol=0.15 * spread)
        np.testing.assert_allclose(result["share_high"][part], np.quantile(medians, 0.975), atol=0.15 * spread)
    assert "draws of neurons" in result.attrs["interval"]


def test_bad_input_is_refused():
    a, *_, noise = sources(n=60)
    with pytest.raises(InputError, match=r"1 bands: a partition has two to 4.*give another"):
        partition_variance({"a": a}, recording(noise), ids=_ids(60))
    with pytest.raises(InputError, match=r"5 bands: .*join some"):
        partition_variance({str(k): a for k in range(5)}, recording(noise), ids=_ids(60))


def test_a_result_survives_a_file_and_draws(tmp_path):
    a, b, c, from_a, from_b, noise = sources(n=90)
    data = recording(from_a + from_b + noise).assign_attrs(region="V4")
    result = partition_variance({"a": a, "b": b, "c": c}, data, np.full(12, 0.8), ids=_ids(90), **FAST)
    result.to_netcdf(tmp_path / "parts.nc")
    with xr.open_dataset(tmp_path / "parts.nc") as back:
        xr.testing.assert_identical(back.load(), result)
    figure = variance_partitioning_plot.plot(result)
    widths = [bar.get_width() for bar in figure.axes[0].patches if hasattr(bar, "get_width")]
    for value in result["share"].median("neuron").values:
        assert np.isclose(widths, value).any()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == "all bands together"
    assert {"a alone", "shared: a + b", "shared by all"} <= set(labels)
    words = variance_partitioning_plot.caption(result)
    assert "commonality" in words
    assert "No significance was tested" in words
    assert "V4" in variance_partitioning_plot.alt_text(result)
    with pytest.raises(InputError, match="not a partition of variance"):
        variance_partitioning_plot.plot(xr.Dataset({"accuracy": ("layer", [0.5])}))


def _ids(n):
    return [f"s{i}" for i in range(n)]
