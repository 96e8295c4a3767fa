"""Unit matching: against a plain version, planted units, pure noise, leakage, bad input, sets of units, figures."""

from __future__ import annotations

import json
from itertools import permutations as orderings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from actkit import plotting
from actkit.analyses import unit_matching
from actkit.analyses.source import array_layer
from actkit.analyses.unit_matching import match_units, units_of_matching
from actkit.analyses.unit_matching_assignment import one_to_one
from actkit.analyses.unit_matching_folds import Folds, deal_folds
from actkit.analyses.unit_matching_kernel import Targets, match_layer, read_units
from actkit.analyses.unit_matching_nulls import draw_orders, null_targets, null_values
from actkit.errors import DataError, InputError, LayerError, StimulusError
from actkit.store import store_from_arrays

Array = np.ndarray[Any, Any]


def plain_match(x: Array, y: Array, fold: Array) -> tuple[Array, Array, Array]:
    """Best unit, training and held-out correlation of every neuron and fold, by loops over numpy's corrcoef."""
    shape = (y.shape[1], int(fold.max()) + 1)
    unit, train, out = np.full(shape, -1), np.full(shape, np.nan), np.full(shape, np.nan)
    for j in range(shape[0]):
        for f in range(shape[1]):
            learn, test = fold != f, fold == f
            r = [np.corrcoef(c[learn], y[learn, j])[0, 1] if np.ptp(c[learn]) else -np.inf for c in x.T]
            unit[j, f], train[j, f] = int(np.argmax(r)), np.max(r)
            best = x[test, unit[j, f]]
            out[j, f] = np.corrcoef(best, y[test, j])[0, 1] if np.ptp(best) else 0.0
    return unit, train, out


def noisy(n: int, units: int, neurons: int, noise: float, seed: int) -> tuple[Array, Array]:
    """Units, and neurons that are noisy copies of the first ones."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, units))
    return x, x[:, :neurons] + noise * rng.standard_normal((n, neurons))


def test_equals_a_plain_version_with_awkward_units() -> None:
    rng = np.random.default_rng(1)
    x = np.maximum(rng.standard_normal((60, 40)), 0)
    x[:, 3] = 0
    x[:, 4] = 7.3
    x[:, 5] = 0
    x[11, 5] = 4.0  # varies in one fold only
    x[:, 6] = 5000 + 0.01 * rng.standard_normal(60)  # an offset that single precision would lose
    x[:, 7] = rng.standard_normal(60)
    x[20, 7] = 1e5  # one loud stimulus
    y = rng.standard_normal((60, 7)) + 2 * x[:, 8:15]
    y[:, 0] = x[:, 6] * 100 + 0.3 * rng.standard_normal(60)
    y[:, 1] = np.where(np.arange(60) == 20, 0, x[:, 7]) + 0.1 * rng.standard_normal(60)
    for values in (x, x.astype(np.float32)):
        result = match_units({"layer": values}, y, folds=4, n_permutations=0)
        fold = result["fold_of_stimulus"].values
        unit, train, out = plain_match(values.astype(np.float64), y, fold)
        np.testing.assert_array_equal(result["unit"].values[:, :, 0], unit)
        np.testing.assert_allclose(result["r_train"].values[:, :, 0], train, atol=2e-6)
        np.testing.assert_allclose(result["r"].values[:, :, 0], out, atol=2e-5)
        np.testing.assert_allclose(result["r_mean"].values[:, 0], out.mean(axis=1), atol=2e-5)
    assert (unit[0] == 6).all()
    assert 7 in unit[1]


def test_correlations_of_the_pass_equal_those_in_double_precision() -> None:
    """The null takes its held-out values from the pass itself, the observed match from kept columns."""
    x, y = noisy(150, 3000, 6, 1.0, 2)
    folds = deal_folds(150, 5, None, None, 0)
    targets = Targets.of(y, folds)
    best = match_layer(array_layer("a", x.astype(np.float32)), np.arange(150), folds, [targets], [True], 10**7)[0]
    for j in range(6):
        for f in range(5):
            for part, value in ((folds.number != f, best.train[f, j]), (folds.number == f, best.held_out[f, j])):
                assert value == pytest.approx(np.corrcoef(x[part, best.unit[f, j]], y[part, j])[0, 1], abs=3e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_unit_silent_over_held_out_stimuli_predicts_nothing(kind: type) -> None:
    rng = np.random.default_rng(22)
    x = np.full((400, 300), 0.3, dtype=kind)
    x[:200] += rng.random((200, 300)).astype(kind)
    folds = Folds.of(np.arange(400) // 200)
    targets = Targets.of(rng.standard_normal((400, 5)), folds)
    found = match_layer(array_layer("a", x), np.arange(400), folds, [targets], [False], 10**6)[0]
    assert (found.unit[0] == -1).all()  # fold 0 learns from the second half, where all units are silent
    assert (found.unit[1] >= 0).all()
    assert (found.held_out[1] == 0).all()
    # Nearly silent is not silent.
    x[200:] += (1e-3 * rng.standard_normal((200, 300))).astype(kind)
    found = match_layer(array_layer("a", x), np.arange(400), folds, [targets], [False], 10**6)[0]
    out, y = x[200:, found.unit[1]].astype(np.float64), targets.values[:, 200:].T
    expected = [np.corrcoef(out[:, j], y[:, j])[0, 1] for j in range(5)]
    np.testing.assert_allclose(found.held_out[1], expected, atol=1e-5)


def test_blocks_and_ties_do_not_change_the_match(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 50)).astype(np.float32)
    x = np.concatenate([x, x[:, ::-1], x], axis=1)  # every unit three times
    y = rng.standard_normal((80, 9))
    whole = match_units(x, y, n_permutations=3)
    assert (whole["unit"].values < 50).all()
    monkeypatch.setattr("actkit.analyses.unit_matching_kernel._WIDTH", 7)
    cut = match_units(x, y, n_permutations=3, memory="20KB")
    np.testing.assert_array_equal(cut["unit"].values, whole["unit"].values)
    np.testing.assert_allclose(cut["r"].values, whole["r"].values, atol=1e-6)
    np.testing.assert_allclose(cut["null_mean"].values, whole["null_mean"].values, atol=1e-5)


@pytest.mark.parametrize("reliability", [0.24, 0.55, 0.88])
def test_planted_units_are_recovered(reliability: float) -> None:
    x, y = noisy(2880, 500, 60, np.sqrt(1 / reliability - 1), 4)
    result = match_units(x.astype(np.float32), y, n_permutations=0, reliability=np.full(60, reliability))
    assert (result["unit"].values[:, :, 0] == np.arange(60)[:, None]).all()
    assert (result["stability"].values == 1).all()
    assert result["mutual"].values.all()
    assert float(result["r_corrected"].median()) == pytest.approx(1, abs=0.02)


def test_pure_noise_scores_zero() -> None:
    """Eight draws of the units: neurons matched with the same units are alike in their luck."""
    draws, train = [], []
    for seed in range(8):
        rng = np.random.default_rng(50 + seed)
        x, y = rng.standard_normal((200, 400)).astype(np.float32), rng.standard_normal((200, 60))
        result = match_units(x, y, n_permutations=0)
        draws.append(result["r_mean"].values[:, 0])
        train.append(float(result["r_train"].mean()))
    r = np.concatenate(draws)
    assert abs(r.mean()) < 2 * r.std(ddof=1) / np.sqrt(len(r))
    assert min(train) > 0.2  # sqrt(2 ln 400 / 160) is .27: what a match without held-out stimuli would report


@pytest.mark.parametrize("null", ["free", "within_category"])
def test_pure_noise_has_uniform_p_values(null: str) -> None:
    from scipy.stats import kstest

    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((200, 300)).astype(np.float32), rng.standard_normal((200, 80))
    result = match_units(x, y, labels=np.repeat(np.arange(8), 25), null=null, n_permutations=99)
    p = result["p_value"].values[:, 0]
    assert kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).sum() <= 9  # of 80; a binomial of .05 exceeds that once in 100
    assert abs(float(result["null_mean"].mean())) < 0.01


def test_identical_data_match_themselves_and_negated_ones_do_not() -> None:
    x, _ = noisy(100, 30, 1, 0, 6)
    same = match_units(x, x, n_permutations=0)
    assert (same["unit"].values[:, :, 0] == np.arange(30)[:, None]).all()
    np.testing.assert_allclose(same["r"].values, 1, atol=1e-9)
    against = match_units(-x, x, n_permutations=0)
    assert not (against["unit"].values[:, :, 0] == np.arange(30)[:, None]).any()
    assert float(against["median_r"].item()) < 0.3


def test_each_permutation_makes_the_match_anew() -> None:
    x, y = noisy(90, 60, 4, 1.5, 7)
    folds = deal_folds(90, 3, None, None, 0)
    targets, orders = Targets.of(y, folds), draw_orders(90, 6, None, None, 0)
    shuffled = list(null_targets(targets, orders, folds))
    found = match_layer(array_layer("a", x), np.arange(90), folds, [targets, *shuffled], [True, False], 10**7)
    null = null_values(found[1:], 4)
    expected = [plain_match(x, y[order], folds.number)[2].mean(axis=1) for order in orders]
    np.testing.assert_allclose(null, expected, atol=1e-9)
    result = match_units(x, y, folds=3, n_permutations=6)
    np.testing.assert_allclose(result["null_mean"].values[:, 0], null.mean(axis=0), atol=1e-9)
    beyond = (null >= result["r_mean"].values[:, 0]).sum(axis=0)
    np.testing.assert_allclose(result["p_value"].values[:, 0], (1 + beyond) / 7)
    assert float(result["p_median"][0]) == pytest.approx(1 / 7)


def test_category_tuning_alone_passes_the_free_null_and_not_the_one_within_categories() -> None:
    rng = np.random.default_rng(8)
    kind = np.repeat(np.arange(8), 25)
    means = rng.standard_normal((8, 20))
    x = means[kind] + 0.7 * rng.standard_normal((200, 20))
    y = means[kind][:, :16] + 0.7 * rng.standard_normal((200, 16))
    free = match_units(x, y, labels=kind, null="free", n_permutations=99)
    within = match_units(x, y, labels=kind, n_permutations=99)
    assert within.attrs["null"] == "within_category"
    assert (free["p_value"].values <= 0.05).all()
    assert (within["p_value"].values > 0.05).mean() > 0.7
    np.testing.assert_array_equal(free["unit"].values, within["unit"].values)


def test_orders_keep_categories_and_groups() -> None:
    kind = np.array(list("aaabbbbaabb"))
    orders = draw_orders(11, 40, kind, None, 3)
    assert (kind[orders] == kind).all()
    assert (np.sort(orders, axis=1) == np.arange(11)).all()
    assert len(np.unique(orders, axis=0)) > 30
    groups = np.array(list("pqpqrrsstuv"))
    moved = draw_orders(11, 40, None, groups, 3)
    assert (np.sort(moved, axis=1) == np.arange(11)).all()
    for order in moved:
        for group in np.unique(groups):
            assert len(set(groups[order][groups == group])) == 1
    np.testing.assert_array_equal(draw_orders(11, 5, kind, None, 3), orders[:5])


def test_groups_never_straddle_folds_and_categories_are_level() -> None:
    rng = np.random.default_rng(9)
    groups = rng.permutation(np.repeat(np.arange(60), 2))
    folds = deal_folds(120, 5, groups, None, 1)
    assert all(len(set(folds.number[groups == group])) == 1 for group in range(60))
    assert np.bincount(folds.number).tolist() == [24] * 5
    kind = np.repeat([0, 1, 2], [50, 30, 20])
    level = deal_folds(100, 5, None, kind, 1)
    assert all(np.bincount(level.number[kind == k]).tolist() == [c] * 5 for k, c in enumerate((10, 6, 4)))
    # Copies of an image leak unless they are kept together.
    image = rng.standard_normal((50, 3000)).astype(np.float32)
    neuron = rng.standard_normal((50, 60))
    x, y, copies = np.tile(image, (2, 1)), np.tile(neuron, (2, 1)), np.tile(np.arange(50), 2)
    leaky, held = (float(match_units(x, y, groups=g, n_permutations=0)["median_r"][0]) for g in (None, copies))
    assert leaky > 0.2
    assert abs(held) < 0.06


def test_the_group_coordinate_of_a_recording_is_respected() -> None:
    x, y = noisy(40, 12, 3, 0.5, 10)
    group = np.repeat(np.arange(20), 2)
    recording = xr.DataArray(
        y,
        dims=("stimulus", "neuron"),
        coords={"stimulus": [f"s{i}" for i in range(40)], "neuron": list("abc"), "group": ("stimulus", group)},
    )
    source = xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": [f"s{i}" for i in range(40)]})
    result = match_units(source, recording, n_permutations=0)
    fold = result["fold_of_stimulus"].values
    assert (fold[::2] == fold[1::2]).all()
    assert "20 groups kept whole" in result.attrs["splitting"]


def test_rows_are_aligned_by_id_and_repetitions_averaged() -> None:
    x, y = noisy(40, 12, 3, 0.2, 11)
    ids = np.array([f"s{i}" for i in range(40)])
    trials = np.repeat(y[:, None], 3, axis=1)
    trials[:, 0] += 0.5
    trials[:, 1] -= 0.5
    trials[::2, :2] = np.nan
    recording = xr.DataArray(
        trials, dims=("stimulus", "repetition", "neuron"), coords={"stimulus": ids, "neuron": ["a", "b", "c"]}
    )
    shuffled = recording.isel(stimulus=np.random.default_rng(0).permutation(40)[:35])
    source = xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": ids}, name="fc")
    result = match_units(source, shuffled.transpose("neuron", "stimulus", "repetition"), n_permutations=0)
    assert (result["unit"].values[:, :, 0] == np.arange(3)[:, None]).all()
    assert float(result["median_r"].item()) > 0.9
    assert result.attrs["n_stimuli"] == 35


def test_one_to_one_equals_trying_every_assignment() -> None:
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((50, 6)), rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4))
    y[:, 3] = y[:, 2] + 0.1 * rng.standard_normal(50)  # both want the same unit
    result = match_units(x, y, assignment="one_to_one")
    fold = result["fold_of_stimulus"].values
    for f in range(5):
        r = np.corrcoef(x[fold != f].T, y[fold != f].T)[:6, 6:]
        best = max(orderings(range(6), 4), key=lambda units: sum(r[u, j] for j, u in enumerate(units)))
        assert result["unit"].values[:, f, 0].tolist() == list(best)
        assert len(set(best)) == 4
    assert np.isnan(result["p_value"].values).all()


def test_one_to_one_keeps_few_candidates_and_reads_units_back() -> None:
    x, y = noisy(70, 2500, 8, 1.0, 13)
    folds = deal_folds(70, 5, None, None, 0)
    layer, targets = array_layer("a", x), Targets.of(y, folds)
    unit, columns = one_to_one(layer, np.arange(70), folds, targets, 10**5)
    from scipy.optimize import linear_sum_assignment

    for f in range(5):
        learn = folds.number != f
        r = np.corrcoef(x[learn].T, y[learn].T)[:2500, 2500:]
        at, chosen = linear_sum_assignment(-r.T)
        assert unit[f, at].tolist() == chosen.tolist()
        np.testing.assert_array_equal(columns[f], x[folds.order][:, unit[f]].T)
    assert (read_units(layer, np.arange(5), np.array([-1]), 10**6) == 0).all()


def test_mutual_matches_are_a_subset() -> None:
    x, y = noisy(120, 10, 6, 0.3, 14)
    y[:, 5] = y[:, 0] + 2 * np.random.default_rng(0).standard_normal(120)  # a lesser copy of neuron 0
    best, mutual = (match_units(x, y, assignment=way, n_permutations=9) for way in ("best", "mutual"))
    marked = best["mutual"].values.astype(bool)
    assert marked[:5].all()
    assert not marked[5].any()
    np.testing.assert_array_equal(np.isfinite(mutual["r"].values), marked)
    np.testing.assert_array_equal(mutual["p_value"].values, best["p_value"].values)
    assert np.isnan(mutual["r_mean"].values[5, 0])
    assert float(mutual["share_beyond"][0]) == 1  # of the neurons that have a mutual match


def test_layers_are_chosen_on_training_stimuli() -> None:
    x, y = noisy(100, 20, 4, 0.5, 15)
    noise = np.random.default_rng(1).standard_normal((100, 2000))
    result = match_units({"noise": noise, "signal": x}, y, n_permutations=0)
    assert (result["best_layer"].values == 1).all()
    np.testing.assert_array_equal(result["r_best_layer"].values, result["r"].sel(layer="signal").values)


def test_matched_units_become_a_set() -> None:
    rng = np.random.default_rng(16)
    maps = rng.standard_normal((90, 4, 3, 5)).astype(np.float32)
    y = np.stack([maps[:, 2, 1, 4], maps[:, 0, 2, 0], maps[:, 2, 1, 4], rng.standard_normal(90)], axis=1)
    y[:, :3] += np.array([0.1, 0.5, 0.3]) * rng.standard_normal((90, 3))
    result = match_units({"conv": maps}, y, n_permutations=39)
    units = units_of_matching(result, alpha=0.05)
    assert [tuple(unit) for unit in units] == [("conv", 2, 1, 4), ("conv", 0, 2, 0)]
    assert units.score[0] == pytest.approx(float(result["r_mean"].values[0, 0]))
    assert units.shapes == {"conv": (4, 3, 5)}
    assert [tuple(unit) for unit in units_of_matching(result, neurons="1", fold=3)] == [("conv", 0, 2, 0)]
    assert len(units_of_matching(result, "conv", minimum=0.9)) <= 2
    with pytest.raises(LayerError, match="no layer 'con'"):
        units_of_matching(result, "con")
    with pytest.raises(InputError, match="no neuron '9'"):
        units_of_matching(result, neurons=["9"])
    with pytest.raises(InputError, match="fold 5"):
        units_of_matching(result, fold=5)
    with pytest.raises(InputError, match="no neuron meets"):
        units_of_matching(result, minimum=1.0)
    with pytest.raises(InputError, match="no p-values"):
        units_of_matching(match_units({"conv": maps}, y, n_permutations=0), alpha=0.05)
    with pytest.raises(InputError, match="not a matching result"):
        units_of_matching(xr.Dataset())


def test_a_constant_neuron_has_no_match_and_leaves_the_others_alone() -> None:
    x, y = noisy(60, 20, 3, 0.5, 17)
    y[:, 1] = 2.0
    result = match_units(x, y, n_permutations=9)
    assert (result["unit"].values[1] == -1).all()
    assert np.isnan(result["r_mean"].values[1, 0])
    assert np.isnan(result["p_value"].values[1, 0])
    assert (result["unit"].values[0] == 0).all()
    assert np.isfinite(result["median_r"].item())


def test_bad_input_is_refused_with_its_cure() -> None:
    x, y = noisy(30, 8, 2, 1, 18)
    with pytest.raises(InputError, match="3 stimuli cannot fill 5 folds; use folds=3"):
        match_units(x[:3], y[:3])
    with pytest.raises(InputError, match="needs three"):
        match_units(x[:8], y[:8])
    with pytest.raises(InputError, match="shape \\(29, 2\\) does not fit 30 stimuli"):
        match_units(x, y[:29])
    with pytest.raises(InputError, match="needs the category"):
        match_units(x, y, null="within_category")
    with pytest.raises(InputError, match="no stimulus has another one"):
        match_units(x, y, labels=np.arange(30))
    with pytest.raises(InputError, match="n_permutations=9: one-to-one"):
        match_units(x, y, assignment="one_to_one", n_permutations=9)
    with pytest.raises(InputError, match="has 1 units that vary"):
        match_units(x[:, :1], y, assignment="one_to_one")
    loud = x.copy()
    loud[4, 5] = np.nan
    with pytest.raises(InputError, match="unit 5 holds NaN or infinite"):
        match_units(loud, y, n_permutations=0)
    with pytest.raises(InputError, match=r"neuron '1' is 1\.2"):
        match_units(x, y, reliability=[0.5, 1.2])
    with pytest.raises(InputError, match="shape \\(3,\\), and there are 2 neurons"):
        match_units(x, y, reliability=[0.5, 0.2, 0.3])
    recording = xr.DataArray(
        y, dims=("stimulus", "neuron"), coords={"stimulus": [f"s{i}" for i in range(30)], "neuron": ["a", "b"]}
    )
    with pytest.raises(StimulusError, match="30 of 30 recorded stimuli are not in the source"):
        match_units(x, recording)
    holed = recording.copy()
    holed[3, 1] = np.nan
    with pytest.raises(DataError, match="neuron 'b' has no response to stimulus 's3'"):
        match_units(x, holed, ids=recording["stimulus"].values)
    with pytest.raises(InputError, match="2 time points"):
        match_units(x, recording.expand_dims(time=2))


def test_a_reliability_below_the_floor_is_reported_and_not_divided() -> None:
    x, y = noisy(60, 8, 2, 1, 19)
    rho = xr.Dataset({"reliability": ("neuron", [0.04, 0.49])}, coords={"neuron": ["1", "0"]})
    result = match_units(x, y, reliability=rho, n_permutations=0)
    assert result["reliability"].values.tolist() == [0.49, 0.04]
    assert result["r_corrected"].values[0, 0] == pytest.approx(result["r_mean"].values[0, 0] / 0.7)
    assert np.isnan(result["r_corrected"].values[1, 0])


def test_stores_are_read_and_reduced_ones_refused(tmp_path: Path) -> None:
    x, y = noisy(50, 4 * 9, 3, 0.3, 20)
    ids = [f"s{i}" for i in range(50)]
    maps = x.reshape(50, 4, 3, 3).astype(np.float32)
    store = store_from_arrays(tmp_path / "maps.zarr", {"conv": maps}, ids=ids, block=13, chunk_bytes=2000)
    recording = xr.DataArray(y, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": ["a", "b", "c"]})
    result = match_units(store, recording, n_permutations=0)
    assert (result["unit"].values[:, :, 0] == np.arange(3)[:, None]).all()
    assert result["x"].values[:, 0, 0].tolist() == [0, 1, 2]
    assert match_units(tmp_path / "maps.zarr", recording, n_permutations=0)["r"].equals(result["r"])

    class Reduced:
        """A store whose layer is a mixture of units."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def layer_attrs(self, layer: str) -> dict[str, Any]:
            return {**store.layer_attrs(layer), "reduced": "pca"}

    with pytest.raises(InputError, match="reduced by pca, so it has no single units"):
        match_units(Reduced(), recording, n_permutations=0)


def test_a_result_says_what_it_is_and_is_drawn() -> None:
    x, y = noisy(60, 30, 12, 1.0, 21)
    layers = {"early": x, "late": x[:, ::-1] + np.random.default_rng(0).standard_normal(x.shape)}
    result = match_units(layers, y, n_permutations=19, reliability=np.full(12, 0.5))
    assert json.loads(result.attrs["options"])["n_permutations"] == 19
    assert result.attrs["cost"].startswith("1.73e+06 floating-point operations, 8.64e+04")
    for variable in result.data_vars.values():
        assert variable.attrs["long_name"]
    figure = unit_matching.plot(result)
    profile, histogram = figure.axes
    line = next(one for one in profile.get_lines() if one.get_label() == "median over neurons")
    np.testing.assert_allclose(line.get_ydata(), result["median_r"].values)
    assert sum(patch.get_height() for patch in histogram.patches[:24]) == 12
    assert plotting.svg_bytes(figure).startswith(b"<?xml")
    words = unit_matching.caption(result)
    assert "12 neurons" in words
    assert "permuted freely 19 times" in words
    assert "Highest at early" in words
    assert "highest in early" in unit_matching.alt_text(result)
    assert "No significance" in unit_matching.caption(match_units(x, y, n_permutations=0))
    with pytest.raises(InputError, match="not a matching result"):
        unit_matching.plot(result.drop_vars("r_mean"))
