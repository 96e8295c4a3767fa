"""Reliability of neurons: planted truth, published values, plain versions of every estimator, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from actkit.analyses import neuron_reliability_plot as figures
from actkit.analyses.neuron_halves import (
    correlations,
    from_splits,
    half_masks,
    left_out_masks,
    reliability_of_all,
    split_draws,
)
from actkit.analyses.neuron_reliability import neuron_reliability, noise_correct, population_split_half
from actkit.analyses.reliability import spearman_brown
from actkit.errors import DataError, InputError
from actkit.results import load, save

DATA = Path(os.environ.get("ACTKIT_DATA", "nowhere"))
V4 = DATA / "cowley2023_v4" / "responses_raw_210325.npy"
IT = DATA / "kar2019_it_neuron_hvm640" / "sample_neuron.h5"
needs_v4 = pytest.mark.skipif(not V4.is_file(), reason="needs ACTKIT_DATA with cowley2023_v4")
needs_it = pytest.mark.skipif(not IT.is_file(), reason="needs ACTKIT_DATA with kar2019_it_neuron_hvm640")

METHODS = [
    {"method": "variance_components"},
    {"method": "split_half"},
    {"method": "leave_one_out"},
]


def recording(values, counts=None, **coords):
    """Wrap ``(stimuli, repetitions, neurons)``; `counts` are the repetitions that each stimulus keeps."""
    values = np.array(values, dtype=float)
    if counts is not None:
        values[np.arange(values.shape[1]) >= np.asarray(counts)[:, None]] = np.nan
    return xr.DataArray(
        values,
        dims=("stimulus", "repetition", "neuron"),
        coords={
            "stimulus": [f"i{k}" for k in range(values.shape[0])],
            "neuron": [f"n{k}" for k in range(values.shape[2])],
            **coords,
        },
        name="cells",
    )


def planted(low, high, neurons=150, n=1500, ratio=2.0, seed=0):
    """Signal of variance 1 and noise of variance `ratio`: the recording, and the expected response."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, 1, neurons))
    values = signal + np.sqrt(ratio) * rng.normal(size=(n, high, neurons))
    counts = rng.integers(low, high + 1, n)
    return recording(values, counts), signal[:, 0], counts


def corr(a, b):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))


@pytest.fixture(scope="module")
def v4():
    values = np.load(V4)  # (neuron, stimulus, repetition)
    return xr.DataArray(
        values,
        dims=("neuron", "stimulus", "repetition"),
        coords={"stimulus": np.arange(640), "neuron": np.arange(50)},
        name="V4 210325",
    )


# --------------------------------------------------------------------------------------------------------------------
# planted truth


@pytest.mark.parametrize("options", METHODS)
def test_unequal_repetitions_are_unbiased(options):
    """6 to 10 repetitions: a perfect model scores √ρ, so that r/√ρ is 1 ± .02, and ρ is the planted one."""
    array, signal, counts = planted(6, 10)
    result = neuron_reliability(array, n_draws=0, **options)
    r = corr(signal, np.nanmean(array.values, axis=1))
    assert np.mean(noise_correct(r, result).values) == pytest.approx(1.0, abs=0.005)
    assert float(result.reliability.mean()) == pytest.approx(1 / (1 + 2 * np.mean(1 / counts)), abs=0.01)
    np.testing.assert_array_equal(result.inflation, 1.0)
    np.testing.assert_allclose(result.ceiling, np.sqrt(result.reliability))


@pytest.mark.parametrize(("low", "ratio", "excess"), [(2, 8.0, 0.07), (3, 4.0, 0.14)])
def test_even_halves_are_biased_at_two_or_three_repetitions_and_say_so(low, ratio, excess):
    """r/√ρ is then 7 to 14 % too large; the other estimators are right on the same data."""
    array, signal, counts = planted(low, 3, neurons=120, n=3000, ratio=ratio)
    r = corr(signal, np.nanmean(array.values, axis=1))
    for options in METHODS:
        right = neuron_reliability(array, n_draws=0, **options)
        # Means first: 1/√ of an estimate as noisy as these is itself half a per cent too large.
        assert r.mean() / np.sqrt(right.reliability.values.mean()) == pytest.approx(1.0, abs=0.02), options
    even = neuron_reliability(array, method="split_half", halves="even", n_draws=0)
    too_large = np.median(r / np.sqrt(even.reliability.values))
    assert too_large == pytest.approx(np.sqrt((1 + ratio / 2) / (1 + ratio * np.mean(1 / counts))), abs=0.02)
    assert too_large - 1 == pytest.approx(excess, abs=0.02)
    assert float(even.inflation.median()) == pytest.approx(too_large, abs=0.01)
    assert "left out" in even.attrs["estimator_note"]
    assert "factor 2" in even.attrs["estimator_note"]
    assert "too large by" in figures.caption(even)


def test_noise_that_grows_with_the_response_is_unbiased():
    """Poisson counts: stimuli differ in noise, and each one counts with its own."""
    rng = np.random.default_rng(1)
    rate = rng.gamma(2.0, 2.0, size=(3000, 1, 60))
    counts = rng.integers(2, 9, 3000)
    array = recording(rng.poisson(np.broadcast_to(rate, (3000, 8, 60))), counts)
    truth = corr(rate[:, 0], np.nanmean(array.values, axis=1))
    found = neuron_reliability(array, n_draws=0)
    assert np.mean(found.ceiling.values / truth) == pytest.approx(1.0, abs=0.005)


def test_pure_noise_averages_to_nothing_and_is_never_divided():
    rng = np.random.default_rng(2)
    array = recording(rng.normal(size=(2000, 6, 80)))
    for options in METHODS:
        result = neuron_reliability(array, n_draws=0, **options)
        values = result.reliability.values
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(80), options
        assert not result.usable.any()
        assert result.attrs["n_below_floor"] == 80
        assert np.isnan(noise_correct(xr.full_like(result.reliability, 0.1), result)).all()
        assert (result.ceiling.values[values < 0] == 0).all()
        assert (values < 0).any()


@pytest.mark.parametrize("options", METHODS)
def test_intervals_cover_the_truth(options):
    array, _, counts = planted(3, 6, neurons=100, n=250, ratio=3.0, seed=5)
    result = neuron_reliability(array, n_draws=300, **options)
    truth = 1 / (1 + 3 * np.mean(1 / counts))
    inside = (result.interval_low < truth) & (truth < result.interval_high)
    assert 0.87 <= float(inside.mean()) <= 0.995
    assert ((result.interval_low < result.reliability) & (result.reliability < result.interval_high)).all()


def test_copies_of_a_stimulus_are_drawn_together():
    """Each stimulus stored four times: without groups the interval pretends to four times the stimuli."""
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=(60, 1, 20)), 4, axis=0) + rng.normal(size=(240, 5, 20))
    plain = neuron_reliability(recording(values))
    grouped = neuron_reliability(recording(values, group=("stimulus", np.repeat(np.arange(60), 4))))
    wide = (grouped.interval_high - grouped.interval_low) / (plain.interval_high - plain.interval_low)
    assert 1.4 < float(wide.median()) < 2.2
    np.testing.assert_array_equal(grouped.reliability, plain.reliability)
    two = neuron_reliability(recording(values, group=("stimulus", np.repeat([0, 1], 120))))
    assert np.isnan(two.interval_low).all()
    assert np.isfinite(two.reliability).all()


# --------------------------------------------------------------------------------------------------------------------
# plain versions


def test_variance_components_by_hand():
    array, _, _ = planted(2, 5, neurons=3, n=40)
    found = neuron_reliability(array, n_draws=0).reliability.values
    for k in range(3):
        trials = [row[~np.isnan(row)] for row in array.values[:, :, k]]
        noise = np.mean([np.var(t, ddof=1) / len(t) for t in trials])
        assert found[k] == pytest.approx(1 - noise / np.var([t.mean() for t in trials], ddof=1), abs=1e-12)


@pytest.mark.parametrize("halves", ["all", "even"])
@pytest.mark.parametrize("complete", [False, True])
def test_split_half_by_hand(halves, complete):
    """The same masks, and everything else in a loop."""
    array, _, counts = planted(5, 5 if complete else 7, neurons=4, n=30)
    present = ~np.isnan(array.values[:, :, 0])
    a, b = half_masks(present, 6, halves, 11)
    expected = np.zeros((6, 4))
    for s in range(6):
        x = np.array([array.values[i, a[s, i]].mean(axis=0) for i in range(30)])
        y = np.array([array.values[i, b[s, i]].mean(axis=0) for i in range(30)])
        ma, mb = np.mean(1 / a[s].sum(axis=1)), np.mean(1 / b[s].sum(axis=1))
        for k in range(4):
            r = np.corrcoef(x[:, k], y[:, k])[0, 1]
            # λ by bisection instead of the closed form
            low, high = 0.0, 1e6
            for _ in range(200):
                middle = (low + high) / 2
                low, high = (
                    (middle, high) if ((1 + middle * ma) * (1 + middle * mb)) ** -0.5 > abs(r) else (low, middle)
                )
            whole = ma / 2 if halves == "even" else np.mean(1 / counts)
            expected[s, k] = np.sign(r) / (1 + low * whole)
            if halves == "even":
                assert expected[s, k] == pytest.approx(spearman_brown(np.array(r), 2), abs=1e-9)
    options = {"method": "split_half", "halves": halves, "n_splits": 6, "seed": 11, "n_draws": 0}
    found = neuron_reliability(array, **options)
    np.testing.assert_allclose(found.reliability, expected.mean(axis=0), atol=1e-9)
    other = neuron_reliability(array, order="mean_then_correct", **options)
    assert not np.allclose(other.reliability, found.reliability, atol=1e-7)
    assert "then the mean" in found.attrs["estimator_note"]
    assert "then corrected" in other.attrs["estimator_note"]


def test_leave_one_out_by_hand():
    array, _, counts = planted(2, 4, neurons=3, n=25)
    values, r = array.values, []
    one, rest = left_out_masks(~np.isnan(values[:, :, 0]))
    assert one.shape[0] == counts.max()
    for fold in range(len(one)):
        left = np.array([values[i, fold % counts[i]] for i in range(25)])
        others = np.array([np.delete(values[i, : counts[i]], fold % counts[i], axis=0).mean(axis=0) for i in range(25)])
        r.append(corr(left, others))
    found = neuron_reliability(array, method="leave_one_out", n_draws=0)
    np.testing.assert_allclose(found.half_r, np.mean(r, axis=0), atol=1e-12)
    expected = reliability_of_all(np.array(r), 1.0, np.mean(1 / (counts - 1)), np.mean(1 / counts)).mean(axis=0)
    np.testing.assert_allclose(found.reliability, expected, atol=1e-12)
    assert rest.sum(axis=2).tolist() == [(counts - 1).tolist()] * len(one)


def test_halves_take_what_they_should():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 8, 60)
    present = rng.permuted(np.arange(7) < counts[:, None], axis=1)
    for halves in ("all", "even"):
        a, b = half_masks(present, 40, halves, 3)
        assert not (a & b).any()
        assert not ((a | b) & ~present).any()
        used = (a | b).sum(axis=2)
        odd = counts % 2 if halves == "even" else counts == 1
        np.testing.assert_array_equal(used, np.broadcast_to(counts - odd, used.shape))
        assert np.abs(a.sum(axis=2) - b.sum(axis=2)).max() == (1 if halves == "all" else 0)
        # Every repetition gets everywhere, and the longer half is now one and now the other.
        assert (a.any(axis=0) == present)[counts > 1].all()
    complete = half_masks(np.ones((10, 6), dtype=bool), 4, "all", 0)[0]
    assert (complete == complete[:, :1]).all()
    assert (complete.sum(axis=2) == 3).all()
    # More splits, the same first ones.
    np.testing.assert_array_equal(half_masks(present, 3, "all", 3)[0], half_masks(present, 5, "all", 3)[0][:3])


def test_draws_with_weights_of_one_give_the_estimate():
    array, _, counts = planted(1, 5, neurons=5, n=50)
    values, repeated = array.values, counts > 1
    filled = np.where(np.isnan(values), 0.0, values - np.nanmean(values, axis=(0, 1)))[repeated]
    a, b = (x[:, repeated] for x in half_masks(~np.isnan(values[:, :, 0]), 8, "all", 0))
    draws = split_draws(filled, a, b, 1 / counts, repeated, np.ones((2, 50)), False, "correct_then_mean")
    noise = [np.mean(1 / x.sum(axis=2), axis=1) for x in (a, b)]
    expected = from_splits(correlations(filled, a, b), *noise, np.full(8, np.mean(1 / counts)), "correct_then_mean")
    np.testing.assert_allclose(draws, np.stack([expected, expected]), atol=1e-12)
    # A stimulus drawn twice is one that stands there twice.
    weights = np.ones((1, 50))
    weights[0, 3], weights[0, 7] = 2, 0
    rows = np.r_[np.delete(np.arange(50), 7), 3]
    twice = recording(values[rows])
    r_a, r_b = (x[:, np.searchsorted(np.flatnonzero(repeated), rows[repeated[rows]])] for x in (a, b))
    picked = filled[np.searchsorted(np.flatnonzero(repeated), rows[repeated[rows]])]
    noise = [np.mean(1 / x.sum(axis=2), axis=1) for x in (r_a, r_b)]
    whole = np.full(8, np.mean(1 / np.isfinite(twice.values[:, :, 0]).sum(axis=1)))
    expected = from_splits(correlations(picked, r_a, r_b), *noise, whole, "correct_then_mean")
    found = split_draws(filled, a, b, 1 / counts, repeated, weights, False, "correct_then_mean")
    np.testing.assert_allclose(found[0], expected, atol=1e-12)


def test_neurons_with_their_own_missing_repetitions():
    """Together they give what each gives by itself."""
    array, _, _ = planted(4, 6, neurons=6, n=40)
    array.values[:10, 0, 2] = np.nan
    array.values[5:9, :, 4] = np.nan  # this neuron misses four stimuli
    for options in METHODS:
        together = neuron_reliability(array, n_draws=50, **options)
        for k in range(6):
            alone = neuron_reliability(array[:, :, [k]].dropna("stimulus", how="all"), n_draws=50, **options)
            for name in ("reliability", "interval_low", "interval_high"):
                np.testing.assert_allclose(together[name].values[k], alone[name].values[0], atol=1e-12, err_msg=name)
    assert together.n_stimuli.values.tolist() == [40, 40, 40, 40, 36, 40]


def test_time_bins_are_estimated_one_by_one():
    first, second = (planted(3, 3, neurons=4, n=30, seed=s)[0] for s in (1, 2))
    both = xr.concat([first, second], dim=xr.IndexVariable("time", [0.1, 0.2], {"units": "s"}))
    for options in METHODS:
        found = neuron_reliability(both, n_draws=20, **options)
        assert found.reliability.dims == ("neuron", "time")
        for k, one in enumerate((first, second)):
            alone = neuron_reliability(one, n_draws=20, **options)
            np.testing.assert_allclose(found.reliability[:, k], alone.reliability, atol=1e-12)
            np.testing.assert_allclose(found.interval_high[:, k], alone.interval_high, atol=1e-12)
    assert "Time (s)" in [axes.get_xlabel() for axes in figures.plot(found).axes]


def test_scale_and_offset_do_not_matter():
    array, _, _ = planted(3, 5, neurons=4, n=60)
    for options in METHODS:
        one, other = (neuron_reliability(x, n_draws=10, **options) for x in (array, 1e6 + 1e-3 * array))
        np.testing.assert_allclose(other.reliability, one.reliability, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# corrections


def test_corrections_by_name():
    assert noise_correct(0.1, 0.083, floor=0.05) == pytest.approx(0.1 / np.sqrt(0.083))
    assert noise_correct(0.1, 0.083, by="r2/rho", floor=0.05) == pytest.approx(0.01 / 0.083)
    assert noise_correct(0.1, 0.083, by="(r/rho)2", floor=0.05) == pytest.approx((0.1 / 0.083) ** 2)
    # A negative correlation explains nothing, whatever its square.
    assert noise_correct(-0.6, 0.9, by="r2/rho") == pytest.approx(-0.4)
    assert np.isnan(noise_correct(0.1, 0.19))
    assert not np.isnan(noise_correct(0.1, 0.2))
    found = noise_correct([0.3, 0.3, 0.3, np.nan], [0.36, -0.5, np.nan, 0.5])
    np.testing.assert_allclose(found, [0.5, np.nan, np.nan, np.nan])
    assert np.isnan(noise_correct(0.0, 0.0, floor=0.0))


def test_corrections_match_neurons_by_name():
    rho = xr.DataArray([0.25, 0.81, 0.04], dims="neuron", coords={"neuron": ["1", "2", "3"]})
    r = xr.DataArray([[0.3, 0.9], [0.2, 0.1]], dims=("layer", "neuron"), coords={"neuron": [3, 2]})
    with pytest.raises(InputError, match=r"different neurons.*'1'.*select the same"):
        noise_correct(r, rho)
    found = noise_correct(r, rho.sel(neuron=["2", "3"]), floor=0.01)
    assert found.dims == ("layer", "neuron")
    assert found.neuron.values.tolist() == ["3", "2"]
    np.testing.assert_allclose(found, [[1.5, 1.0], [1.0, 1 / 9]])


def test_corrections_refuse():
    with pytest.raises(InputError, match="no noise correction 'r/rho'"):
        noise_correct(0.5, 0.5, by="r/rho")
    with pytest.raises(InputError, match="r holds 35, which is no correlation"):
        noise_correct(np.array([35.0, 0.1]), 0.5)
    with pytest.raises(InputError, match=r"floor is -0\.1"):
        noise_correct(0.5, 0.5, floor=-0.1)


# --------------------------------------------------------------------------------------------------------------------
# bad input


def test_averages_alone_have_no_ceiling():
    array, _, _ = planted(3, 3, neurons=2, n=10)
    with pytest.raises(InputError, match=r"averages alone \(dims stimulus, neuron\).*give the single presentations"):
        neuron_reliability(array.mean("repetition"))
    with pytest.raises(InputError, match="averages alone"):
        population_split_half(array.mean("repetition"))
    with pytest.raises(InputError, match="every stimulus once"):
        neuron_reliability(array[:, :1])
    with pytest.raises(InputError, match="has 2 stimuli"):
        neuron_reliability(array[:2])
    with pytest.raises(DataError, match="'n1' has no value at all"):
        neuron_reliability(array.where(array.neuron != "n1"))
    with pytest.raises(InputError, match="unknown option 'splits'"):
        neuron_reliability(array, splits=3)


@pytest.mark.parametrize("options", METHODS)
def test_neurons_that_cannot_be_estimated_are_reported(options):
    array, _, _ = planted(4, 4, neurons=5, n=30)
    array.values[:, 1:, 1] = np.nan  # one repetition
    array.values[:, :, 2] = 0.1  # constant
    array.values[2:, :, 3] = np.nan  # two stimuli
    result = neuron_reliability(array, n_draws=50, **options)
    assert np.isnan(result.reliability.values).tolist() == [False, True, True, True, False]
    assert result.usable.values.tolist() == [True, False, False, False, True]
    assert np.isnan(result.interval_low.values[1:4]).all()
    assert np.isfinite(result.interval_low.values[[0, 4]]).all()
    assert result.n_repeated.values.tolist() == [30, 0, 30, 2, 30]
    assert result.attrs["n_below_floor"] == 3
    figures.plot(result)


def test_stimuli_shown_once_still_count_in_the_mean():
    """A third of the stimuli once, the others four times: the means of the single ones are noisier."""
    array, signal, counts = planted(1, 1, neurons=60, n=3000, ratio=1.0)
    rng = np.random.default_rng(8)
    values = signal[:, None] + rng.normal(size=(3000, 4, signal.shape[1]))
    counts = np.where(np.arange(3000) % 3 == 0, 1, 4)
    array = recording(values, counts)
    truth = 1 / (1 + np.mean(1 / counts))
    for options in METHODS:
        result = neuron_reliability(array, n_draws=0, **options)
        assert float(result.reliability.mean()) == pytest.approx(truth, abs=0.01), options
        assert (result.n_repeated == 2000).all()
        assert (result.mean_repetitions == 3).all()


# --------------------------------------------------------------------------------------------------------------------
# speed, files, figures


def test_results_are_saved_and_drawn(tmp_path):
    array, _, _ = planted(3, 6, neurons=12, n=80, ratio=6.0)
    array.values[:, :, 5] = np.random.default_rng(0).normal(size=array.shape[:2])
    result = neuron_reliability(array.assign_attrs(name="cells"), n_draws=100)
    again = load(save(result, tmp_path / "result.nc"))
    xr.testing.assert_equal(again.astype(float), result.astype(float))
    assert again.attrs["analysis"] == "neuron_reliability"
    assert "own number" in again.attrs["estimator_note"]
    for one in (result, again):
        figure = figures.plot(one)
        (axes,) = figure.axes
        solid, hollow = axes.lines[:2]
        assert len(solid.get_ydata()) == int(result.usable.sum())
        assert len(hollow.get_ydata()) >= 1
        np.testing.assert_allclose(
            np.sort(np.r_[solid.get_ydata(), hollow.get_ydata()]), np.sort(result.reliability.values)
        )
        assert axes.get_ylim()[0] <= float(result.interval_low.min())
    assert "95 % percentile intervals of 100 bootstrap draws" in figures.caption(again)
    assert "12 neurons" in figures.alt_text(again)
    assert "\n" not in figures.caption(again)
    with pytest.raises(InputError, match="not a reliability of neurons"):
        figures.plot(xr.Dataset({"accuracy": 1.0}))


# --------------------------------------------------------------------------------------------------------------------
# known values


@needs_v4
def test_v4_reliability(v4):
    """Session 210325, 50 neurons, 640 images, 6 to 10 repetitions: medians over neurons."""
    components = neuron_reliability(v4)
    assert float(components.reliability.median()) == pytest.approx(0.764, abs=0.002)
    even = neuron_reliability(v4, method="split_half", halves="even", n_draws=0)
    assert float(even.reliability.median()) == pytest.approx(0.75, abs=0.003)
    assert [float(f(even.reliability)) for f in (np.min, np.max)] == pytest.approx([0.513, 0.927], abs=0.01)
    every = neuron_reliability(v4, method="split_half", n_draws=0)
    assert float(every.reliability.median()) == pytest.approx(0.765, abs=0.003)
    left = neuron_reliability(v4, method="leave_one_out", n_draws=0)
    assert float(left.reliability.median()) == pytest.approx(0.768, abs=0.003)
    # With the factor 2 instead of 2.02, as it is often published.
    counts = np.isfinite(v4.values[0]).sum(axis=1)
    present = np.isfinite(v4.values[0])
    a, b = half_masks(present, 50, "all", 0)
    filled = np.nan_to_num(v4.transpose("stimulus", "repetition", "neuron").values)
    doubled = spearman_brown(correlations(filled, a, b), 2).mean(axis=0)
    assert np.median(doubled) == pytest.approx(0.763, abs=0.003)
    assert (counts.min(), counts.max()) == (6, 10)
    assert components.usable.all()
    assert float(components.mean_repetitions[0]) == pytest.approx(7.56, abs=0.01)


@needs_v4
def test_v4_population_rdm(v4):
    part = {"n_splits": 8}
    assert float(population_split_half(v4, **part).mean()) == pytest.approx(0.66, abs=0.01)
    assert float(population_split_half(v4, standardise=True, **part).mean()) == pytest.approx(0.56, abs=0.01)
    assert float(population_split_half(v4, halves="even", n_splits=4).mean()) == pytest.approx(0.645, abs=0.01)


@needs_v4
def test_v4_averages_alone_are_refused():
    averages = np.load(V4.with_name("responses_avg_210224.npy"))
    array = xr.DataArray(averages.T, dims=("stimulus", "neuron")).assign_coords(
        stimulus=np.arange(averages.shape[1]), neuron=np.arange(len(averages))
    )
    with pytest.raises(InputError, match="averages alone"):
        neuron_reliability(array)


@needs_it
def test_it_site_reliability():
    h5py = pytest.importorskip("h5py")
    with h5py.File(IT) as file:
        array = recording(file["rates"][:][:, :, None])
    assert float(neuron_reliability(array).reliability[0]) == pytest.approx(0.846, abs=0.01)
    split = neuron_reliability(array, method="split_half", halves="even", n_draws=0)
    assert float(split.reliability[0]) == pytest.approx(0.846, abs=0.005)


def test_population_split_half_by_hand_and_refusals():
    array, _, _ = planted(4, 6, neurons=12, n=20)
    found = population_split_half(array, n_splits=2, seed=4)
    from scipy import stats

    a, b = half_masks(~np.isnan(array.values[:, :, 0]), 2, "all", 4)
    upper = np.triu_indices(20, 1)
    for s in range(2):
        sides = [np.array([array.values[i, mask[s, i]].mean(axis=0) for i in range(20)]) for mask in (a, b)]
        vectors = [1 - np.corrcoef(x)[upper] for x in sides]
        assert float(found[s]) == pytest.approx(stats.spearmanr(*vectors)[0], abs=1e-9)
    array.values[3, 0, 5] = np.nan
    with pytest.raises(InputError, match="neurons miss different ones"):
        population_split_half(array)
