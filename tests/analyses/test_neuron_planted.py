"""Planted truth from single presentations to corrected scores and p-values: what is there is found, what is not is not.

Each test runs the public functions one after the other, as a study does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom, kstest

from actkit.analyses.neuron_halves import reliability_of_all
from actkit.analyses.neuron_reliability import neuron_reliability
from actkit.analyses.unit_matching import match_units, units_of_matching
from actkit.recordings_neurons import average

Array = np.ndarray[Any, Any]


def recording(values: Array, prefix: str = "n") -> xr.DataArray:
    """Single presentations or averages."""
    dims = ("stimulus", "repetition", "neuron") if values.ndim == 3 else ("stimulus", "neuron")
    names = {
        "stimulus": [f"s{i}" for i in range(len(values))],
        "neuron": [f"{prefix}{j}" for j in range(values.shape[-1])],
    }
    return xr.DataArray(values, dims=dims, coords=names)


def presentations(x: Array, rho: Array, low: int, high: int, seed: int = 0) -> tuple[Array, Array]:
    """Noisy presentations of the first units, `low` to `high` of a stimulus, whose means have the reliability `rho`."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(low, high + 1, len(x))
    spread = np.sqrt((1 / rho - 1) / np.mean(1 / counts))
    values = x[:, None, : len(rho)] + spread * rng.standard_normal((len(x), high, len(rho)))
    values[np.arange(high) >= counts[:, None]] = np.nan
    return values, counts


# Noise correction


def test_perfect_units_are_corrected_to_one_at_six_to_ten_unequal_repetitions() -> None:
    """Reliabilities from .24 to .88 are estimated from the very presentations whose means are matched."""
    x = np.random.default_rng(1).standard_normal((2400, 150))
    rho = np.repeat([0.24, 0.55, 0.88], 40)
    trials = recording(presentations(x, rho, 6, 10)[0])
    reliable = neuron_reliability(trials, n_draws=0)
    found = match_units(
        x.astype(np.float32), trials, reliability=reliable, ids=trials["stimulus"].values, n_permutations=0, floor=0.1
    )
    assert (found["unit"].values[:, :, 0] == np.arange(120)[:, None]).all()
    corrected = found["r_corrected"].values[:, 0]
    for level in (0.24, 0.55, 0.88):
        assert reliable["reliability"].values[rho == level].mean() == pytest.approx(level, abs=0.01)
        assert corrected[rho == level].mean() == pytest.approx(1.0, abs=0.02), level


@pytest.mark.parametrize(("low", "excess"), [(2, 0.07), (3, 0.14)])
def test_even_halves_overcorrect_at_two_or_three_repetitions(low: int, excess: float) -> None:
    """Even halves drop the third presentation: r/√ρ is 7 to 14 % too large, and the default is not."""
    x = np.random.default_rng(2).standard_normal((2400, 80))
    ratio = {2: 8.0, 3: 4.0}[low]  # noise to signal in one presentation
    counts = np.random.default_rng(0).integers(low, 4, 2400)  # those that `presentations` draws
    rho = np.full(80, 1 / (1 + ratio * np.mean(1 / counts)))
    values, drawn = presentations(x, rho, low, 3)
    np.testing.assert_array_equal(drawn, counts)
    trials = recording(values)
    medians = {}
    for name, way in {"default": {}, "even": {"method": "split_half", "halves": "even"}}.items():
        reliable = neuron_reliability(trials, n_draws=0, **way)
        found = match_units(x, trials, reliability=reliable, ids=trials["stimulus"].values, n_permutations=0, floor=0.1)
        medians[name] = float(found["r_corrected"].median())
        if name == "even":
            assert float(reliable["inflation"].median()) - 1 == pytest.approx(excess, abs=0.02)
    assert medians["default"] == pytest.approx(1.0, abs=0.02)
    assert medians["even"] - 1 == pytest.approx(excess, abs=0.03)


# Nulls


def plain_held_out_only(x: Array, y: Array, unit: Array, fold: Array, count: int, seed: int) -> Array:
    """P-values of the null that is wrong: units stay as chosen, only the held-out stimuli change places."""
    rng = np.random.default_rng(seed)
    null = np.zeros((count + 1, y.shape[1]))
    for f in range(int(fold.max()) + 1):
        out = fold == f
        a, b = x[out][:, unit[:, f]], y[out]
        a, b = ((v - v.mean(axis=0)) / v.std(axis=0) / len(v) ** 0.5 for v in (a, b))
        for k in range(count + 1):
            order = rng.permutation(len(a)) if k else np.arange(len(a))
            null[k] += (a * b[order]).sum(axis=0)
    return (null >= null[0]).mean(axis=0)


def nominal(p: Array, alpha: float = 0.05) -> tuple[int, int]:
    """Rejections that a binomial of alpha leaves 999 times of 1000."""
    return tuple(int(k) for k in binom.ppf([0.0005, 0.9995], len(p), alpha))  # type: ignore[return-value]


@pytest.mark.parametrize("null", ["free", "within_category"])
def test_p_values_of_noise_are_uniform_and_those_of_the_short_cut_are_not(null: str) -> None:
    """400 neurons in 10 independent draws; permuting held-out rows alone rejects too often."""
    ours, short = [], []
    for seed in range(10):
        rng = np.random.default_rng(200 + seed)
        x, y = rng.standard_normal((100, 60)), rng.standard_normal((100, 40))
        found = match_units(x, y, labels=np.arange(100) % 4, null=null, n_permutations=99, seed=seed)
        ours.append(found["p_value"].values[:, 0])
        fold = found["fold_of_stimulus"].values
        short.append(plain_held_out_only(x, y, found["unit"].values[:, :, 0], fold, 99, seed))
    p, q = np.concatenate(ours), np.concatenate(short)
    low, high = nominal(p)
    assert low <= (p <= 0.05).sum() <= high
    assert kstest(p - np.random.default_rng(0).random(len(p)) / 100, "uniform").pvalue > 0.01  # p has steps of 1/100
    assert (q <= 0.05).sum() > high


@pytest.mark.parametrize("spikes", [2, 3, 5])
def test_neurons_with_a_few_spikes_are_not_rejected_more_often(spikes: int) -> None:
    """A neuron silent over the held-out stimuli of a fold has no score there, in the null as in what was observed."""
    p = []
    for seed in range(5):
        rng = np.random.default_rng(300 + seed)
        x, y = rng.standard_normal((100, 60)), np.zeros((100, 80))
        for neuron in y.T:
            neuron[rng.permutation(100)[:spikes]] = 1 + rng.poisson(2, spikes)
        p.append(match_units(x, y, n_permutations=39, seed=seed)["p_value"].values[:, 0])
    known = np.concatenate(p)
    known = known[np.isfinite(known)]
    assert len(known) > 250
    assert (known <= 0.05).sum() <= nominal(known)[1]


def test_links_through_category_means_alone_fail_the_null_within_categories() -> None:
    """Four draws of means: all neurons pass the free null, and within categories the rate is the nominal one."""
    free, within, more = [], [], []
    kind = np.repeat(np.arange(8), 25)
    for seed in range(4):
        rng = np.random.default_rng(400 + seed)
        means = rng.standard_normal((8, 60))
        x = means[kind] + 0.7 * rng.standard_normal((200, 60))
        y = means[kind][:, :40] + 0.7 * rng.standard_normal((200, 40))
        settings: dict[str, Any] = {"labels": kind, "n_permutations": 79, "seed": seed}
        free.append(match_units(x, y, null="free", **settings)["p_value"].values)
        within.append(match_units(x, y, **settings)["p_value"].values)
        # The same means and a true link within categories beside them.
        more.append(match_units(x, y + x[:, :40], **settings)["p_value"].values)
    assert (np.concatenate(free) <= 0.05).mean() > 0.97  # the means of some neurons hardly differ
    assert (np.concatenate(more) <= 0.05).all()
    p = np.concatenate(within).ravel()
    assert (p <= 0.05).sum() <= nominal(p)[1]


@pytest.mark.parametrize("assignment", ["best", "one_to_one"])
def test_the_best_of_many_units_is_no_score_on_the_stimuli_that_chose_it(assignment: str) -> None:
    """50 stimuli and 500 unrelated units: training correlations near .4, held-out ones of 0 within 2 s.e."""
    held_out, train = [], []
    for seed in range(12):
        rng = np.random.default_rng(500 + seed)
        x, y = rng.standard_normal((50, 500)), rng.standard_normal((50, 10))
        found = match_units(x, y, assignment=assignment, n_permutations=0, seed=seed)
        held_out.append(found["r_mean"].values[:, 0])
        train.append(float(found["r_train"].mean()))
    r = np.concatenate(held_out)
    assert abs(r.mean()) < 2 * r.std(ddof=1) / np.sqrt(len(r))
    assert np.mean(train) == pytest.approx(0.46, abs=0.03)  # of 40 training stimuli; .41 of all 50


def test_reliabilities_of_noise_do_not_explode() -> None:
    """Spearman-Brown takes r = -.9 to -18; here noise stays between -1 and 1 in either order, and averages to 0."""
    assert reliability_of_all(np.array([-0.9]), 1.0, 1.0, 0.5)[0] == pytest.approx(-0.9 * 2 / 1.9)
    found: dict[str, list[Array]] = {"correct_then_mean": [], "mean_then_correct": []}
    for seed in range(4):
        noise = recording(np.random.default_rng(600 + seed).standard_normal((6, 4, 100)))
        for order, values in found.items():
            result = neuron_reliability(noise, method="split_half", order=order, n_splits=20, n_draws=0)
            values.append(result["reliability"].values)
            assert (result["ceiling"].values[values[-1] < 0] == 0).all()
    for values in found.values():
        rho = np.concatenate(values)
        assert np.abs(rho).max() <= 1
        assert abs(rho.mean()) < 3 * rho.std(ddof=1) / np.sqrt(len(rho))


# Signs, constants, identity


def test_a_negated_copy_loses_to_a_weak_likeness() -> None:
    rng = np.random.default_rng(5)
    y = rng.standard_normal((300, 4))
    x = np.concatenate([-y, 0.5 * y + rng.standard_normal((300, 4))], axis=1)
    found = match_units(x, y, n_permutations=19)
    assert (found["unit"].values[:, :, 0] == np.arange(4, 8)[:, None]).all()
    alone = match_units(-y, y, n_permutations=19)
    assert (alone["unit"].values[:, :, 0] != np.arange(4)[:, None]).all()
    assert (alone["p_value"].values > 0.05).any()


def test_identical_recordings_match_as_identity_in_every_assignment() -> None:
    y = np.random.default_rng(6).poisson(3, (80, 12)).astype(float)
    for assignment in ("best", "mutual", "one_to_one"):
        found = match_units(y, y, assignment=assignment, n_permutations=0)
        assert (found["unit"].values[:, :, 0] == np.arange(12)[:, None]).all()
        np.testing.assert_allclose(found["r"].values, 1, atol=1e-9)
        assert found["mutual"].values.all()


def test_constant_units_neither_win_nor_crash() -> None:
    rng = np.random.default_rng(7)
    y = rng.standard_normal((60, 5))
    x = np.concatenate([np.zeros((60, 3)), np.full((60, 3), 0.1), rng.standard_normal((60, 4))], axis=1)
    for values in (x, x.astype(np.float32)):
        assert (match_units(values, y, n_permutations=9)["unit"].values >= 6).all()
    silent = match_units({"flat": x[:, :6], "live": x[:, 6:]}, y, n_permutations=9)
    assert (silent["unit"].sel(layer="flat").values == -1).all()
    assert np.isnan(silent["r_mean"].sel(layer="flat").values).all()
    assert np.isnan(silent["p_value"].sel(layer="flat").values).all()
    assert np.isfinite(silent["r_mean"].sel(layer="live").values).all()
    assert (silent["best_layer"].values == 1).all()


# From animal to animal


def test_neurons_of_two_animals_are_matched_with_the_same_call() -> None:
    """Shared signals in another order, and other noise; the second animal's averages take the place of a layer."""
    rng = np.random.default_rng(8)
    signal = rng.standard_normal((400, 12))
    order = rng.permutation(12)
    first, _ = presentations(signal, np.full(12, 0.7), 3, 6, seed=1)
    second, _ = presentations(signal[:, order], np.full(12, 0.8), 3, 6, seed=2)
    a, b = recording(first, "a"), recording(second, "b")
    found = match_units(average(b), a, reliability=neuron_reliability(a, n_draws=0), n_permutations=39)
    assert (order[found["unit"].values[:, :, 0]] == np.arange(12)[:, None]).all()
    assert found["mutual"].values.all()
    assert (found["p_value"].values <= 0.05).all()
    # Corrected for the noise of one animal it is the root of the other one's reliability, corrected for both it is 1.
    one = float(found["r_corrected"].median())
    assert one == pytest.approx(np.sqrt(0.8), abs=0.03)
    other = neuron_reliability(b, n_draws=0)["reliability"].values[found["unit"].values[:, 0, 0]]
    assert float(np.median(found["r_corrected"].values[:, 0] / np.sqrt(other))) == pytest.approx(1.0, abs=0.03)
    # Presentations are averaged on both sides, whatever the order of dims.
    for source in (b, b.transpose("neuron", "repetition", "stimulus"), {"activation": b}):
        np.testing.assert_allclose(match_units(source, a, n_permutations=0)["r"], found["r"], atol=1e-9)
    assert [tuple(unit)[1] for unit in units_of_matching(found, neurons="a3")] == [int(np.flatnonzero(order == 3)[0])]


# Seeds and zeros


def test_seed_zero_and_number_zero_are_seeds_and_numbers_like_others() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((50, 20)), rng.standard_normal((50, 6))
    y[:, 0] = x[:, 0] + 0.1 * rng.standard_normal(50)
    zero, again, one = (match_units(x, y, n_permutations=19, seed=seed) for seed in (0, 0, 1))
    assert zero.identical(again)
    assert not np.array_equal(zero["fold_of_stimulus"], one["fold_of_stimulus"])
    assert (zero["unit"].values[0] == 0).all()
    assert [tuple(unit)[1] for unit in units_of_matching(zero, neurons="0", fold=0)] == [0]
