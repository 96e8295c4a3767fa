"""Soft matching: plans against the Hungarian solution, POT and plain versions; copies, negations, sizes, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

from actkit.analyses.soft_matching import soft_match, transport_plan
from actkit.errors import InputError, MissingExtraError
from actkit.store import store_from_arrays

ot = pytest.importorskip("ot", reason="POT is not installed (the extra 'matching')")
Array = np.ndarray[Any, Any]


def correlations(x: Array, y: Array) -> Array:
    """Units by neurons."""
    return np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]


def copies(n: int = 800, seed: int = 0) -> tuple[Array, Array]:
    """Four hundred units, the last twenty of them exact copies of twenty neurons."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, 20))
    return np.concatenate([rng.standard_normal((n, 380)), y], axis=1), y


def test_exact_copies_among_many_units_score_one_with_partial_mass_and_little_when_balanced() -> None:
    x, y = copies()
    r = correlations(x, y)
    whole = ot.emd(np.full(400, 1 / 400), np.full(20, 1 / 20), 1 - r)
    assert float((whole * r).sum()) == pytest.approx(0.11, abs=0.01)  # the score that nobody should report
    result = soft_match(x, y)
    assert float(result["score"][0, 0]) == pytest.approx(1, abs=1e-9)
    assert float(result["mass"][0]) == pytest.approx(20 / 400)
    assert float(result["share_matched"][0]) == 1
    np.testing.assert_allclose(result["share"].values, 1 / 20, atol=1e-9)
    np.testing.assert_allclose(result["r"].values, 1, atol=1e-9)
    assert result.attrs["plan"] == "partial"
    assert result.attrs["pool"] == "all units"
    balanced = soft_match(x, y, balanced=True, seed=1)
    assert balanced.sizes["draw"] == 100
    assert balanced.attrs["pool"] == "100 pools of 20 units"
    assert 0 < float(balanced["median_score"][0]) < 0.12  # of twenty units drawn, one is a copy, on average
    with pytest.raises(
        InputError, match=r"mass=1.0: layer 'activation' has 400 units for 20 neurons.* mass=None for 0.05"
    ):
        soft_match(x, y, mass=1.0)


def test_identical_data_are_paired_with_themselves() -> None:
    _, y = copies(100)
    for result in (soft_match(y, y), soft_match(y, y, balanced=True)):
        np.testing.assert_allclose(result["score"].values, 1, atol=1e-12)
        np.testing.assert_allclose(result["r"].values, 1, atol=1e-12)
        np.testing.assert_allclose(result["share"].values, 1 / 20)
        assert float(result["mass"][0]) == 1


def test_a_negated_copy_is_not_matched() -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_normal((300, 6))
    plan = transport_plan(correlations(np.concatenate([-y, rng.standard_normal((300, 54))], axis=1), y), 0.1)
    assert np.diag(plan[:6]).max() == 0
    assert float(soft_match(np.concatenate([-y, rng.standard_normal((300, 54))], axis=1), y)["score"][0, 0]) < 0.1
    assert float(soft_match(-y, y, balanced=True)["score"][0, 0]) < 0.1


@pytest.mark.parametrize("balanced", [False, True])
def test_equal_sizes_give_the_hungarian_solution(balanced: bool) -> None:
    rng = np.random.default_rng(2)
    y = rng.standard_normal((90, 12))
    x = y @ rng.standard_normal((12, 12)) + rng.standard_normal((90, 12))
    result = soft_match(x, y, balanced=balanced, folds=3, seed=5)
    fold = _folds(result)
    expected, train = [], []
    for f in range(3):
        learned = correlations(x[fold != f], y[fold != f])
        unit, neuron = linear_sum_assignment(learned, maximize=True)
        expected.append(correlations(x[fold == f], y[fold == f])[unit, neuron].mean())
        train.append(learned[unit, neuron].mean())
        emd = ot.emd(np.full(12, 1 / 12), np.full(12, 1 / 12), 1 - learned)
        assert float((emd * learned).sum()) == pytest.approx(train[-1], abs=1e-12)
    np.testing.assert_allclose(result["score"].values[0], np.mean(expected), atol=1e-12)
    np.testing.assert_allclose(result["score_train"].values[0], np.mean(train), atol=1e-12)


def _folds(result: xr.Dataset) -> Array:
    """Fold of every stimulus."""
    return np.asarray(result["fold_of_stimulus"].values)


@pytest.mark.parametrize(
    ("units", "neurons", "mass"), [(150, 7, None), (150, 7, 0.3), (150, 7, 0.1), (5, 9, None), (40, 9, 0.9)]
)
def test_partial_plans_equal_those_over_all_units(units: int, neurons: int, mass: float | None) -> None:
    """Only each neuron's best units are kept; POT on every pair gives the same cost and the same held-out score."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, units))
    y = x[:, :neurons] + rng.standard_normal((80, neurons)) if units > neurons else rng.standard_normal((80, neurons))
    y[:, 1] += 3 * y[:, 0]  # neurons that want the same units
    if mass == 0.1:  # all of them do, the first one most
        shared = rng.standard_normal((80, 1))
        x = shared + 0.5 * rng.standard_normal((80, units))
        y = shared + np.linspace(0.3, 1, neurons) * rng.standard_normal((80, neurons))
    result = soft_match(x, y, mass=mass, folds=4, memory="1MB")
    fold = _folds(result)
    moved = min(units, neurons) / max(units, neurons) if mass is None else mass
    score, train, shares = [], [], []
    for f in range(4):
        r, out = (correlations(x[rows], y[rows]) for rows in (fold != f, fold == f))
        plan = ot.partial.partial_wasserstein(np.full(units, 1 / units), np.full(neurons, 1 / neurons), 1 - r, m=moved)
        score.append((plan * out).sum() / plan.sum())
        train.append((plan * r).sum() / plan.sum())
        shares.append(plan.sum(axis=0) / plan.sum())
    assert float(result["score_train"][0, 0]) == pytest.approx(np.mean(train), abs=1e-9)
    assert float(result["score"][0, 0]) == pytest.approx(np.mean(score), abs=1e-9)
    np.testing.assert_allclose(result["share"].values[0], np.mean(shares, axis=0), atol=1e-9)
    assert float(result["mass"][0]) == pytest.approx(moved)


def test_a_plan_keeps_its_margins() -> None:
    rng = np.random.default_rng(4)
    r = rng.uniform(-1, 1, (30, 4))
    plan = transport_plan(r, 0.7)
    assert plan.sum() == pytest.approx(0.7)
    assert plan.min() > -1e-12
    assert plan.sum(axis=1).max() <= 1 / 30 + 1e-9
    assert plan.sum(axis=0).max() <= 1 / 4 + 1e-9
    # Rows that are part of a larger layer: a unit's mass is that of the layer.
    part = transport_plan(r, 4 / 100, units=100)
    assert part.sum() == pytest.approx(0.04)
    assert part.max() <= 1 / 100 + 1e-12
    best = np.sort(r.max(axis=1))[::-1][:4]  # no neuron is full: the units with the best neuron go
    assert float((part * r).sum()) == pytest.approx(best.sum() / 100)


def test_noise_scores_zero_held_out() -> None:
    scores = []
    for seed in range(12):
        rng = np.random.default_rng(20 + seed)
        result = soft_match(rng.standard_normal((150, 300)), rng.standard_normal((150, 10)))
        assert float(result["score_train"][0, 0]) > 0.2
        scores.append(float(result["score"][0, 0]))
    assert abs(np.mean(scores)) < 2.5 * np.std(scores, ddof=1) / np.sqrt(12)


def test_pools_stores_and_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((60, 50)).astype(np.float32)
    y = x[:, :4] + rng.standard_normal((60, 4))
    x[:, 7] = 2.5  # never varies, so no pool holds it
    ids = [f"s{i}" for i in range(60)]
    recording = xr.DataArray(y, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": list("abcd")})
    store = store_from_arrays(tmp_path / "x.zarr", {"fc": x}, ids=ids)
    settings: dict[str, Any] = {"reliability": np.array([0.64, 0.64, 0.64, 0.04]), "folds": 3}
    whole = soft_match({"fc": x}, y, pool_size=20, n_draws=7, **settings)
    assert whole.sizes["draw"] == 7
    assert whole.attrs["pool_size"] == 20
    assert float(whole["mass"][0]) == pytest.approx(4 / 20)
    for source, memory in (({"fc": x}, "7kB"), (store, "60kB")):
        cut = soft_match(
            source, y if memory == "7kB" else recording, pool_size=20, n_draws=7, memory=memory, **settings
        )
        np.testing.assert_allclose(cut["score"].values, whole["score"].values, atol=1e-6)
        np.testing.assert_allclose(cut["r"].values, whole["r"].values, atol=1e-6)
    np.testing.assert_allclose(whole["r_corrected"].values[0, :3], whole["r"].values[0, :3] / 0.8)
    assert np.isnan(whole["r_corrected"].values[0, 3])
    every = soft_match({"fc": x}, y, pool_size=49, n_draws=2, **settings)
    together = soft_match({"fc": x}, y, **settings)
    np.testing.assert_allclose(every["score"].values, float(together["score"][0, 0]), atol=1e-9)
    with pytest.raises(InputError, match=r"has 49 units that vary over the training stimuli of every fold"):
        soft_match({"fc": x}, y, pool_size=50, **settings)
    y[:, 2] = 1.0
    silent = soft_match({"fc": x}, y)
    assert np.isnan(silent["share"].values[0, 2])
    assert float(silent["share"].sum()) == pytest.approx(1)
    assert float(silent["mass"][0]) == pytest.approx(3 / 49)


def test_bad_options_are_refused_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = copies(60)
    with pytest.raises(InputError, match=r"n_draws=20: .* use n_draws=100 or more"):
        soft_match(x, y, balanced=True, n_draws=20)
    with pytest.raises(InputError, match=r"mass=0.5: a balanced plan moves all mass"):
        soft_match(x, y, balanced=True, mass=0.5)
    with pytest.raises(InputError, match=r"pool_size=9: a balanced plan"):
        soft_match(x, y, balanced=True, pool_size=9)
    with pytest.raises(InputError, match=r"has 400 units that vary .* pools of 401 .* use pool_size=400"):
        soft_match(x, y, pool_size=401)
    with pytest.raises(InputError, match=r"has 10 units that vary .* use balanced=False"):
        soft_match(x[:, :10], y, balanced=True)
    with pytest.raises(InputError, match=r"between 401 units and 20 neurons|draw pools with pool_size="):
        soft_match(x, y, mass=0.99, memory="500kB")
    assert soft_match(x, y, mass=0.99, memory="5MB").sizes["layer"] == 1
    with pytest.raises(InputError, match="no unit that varies"):
        soft_match(np.ones((60, 30)), y)
    with pytest.raises(InputError, match="every neuron is constant"):
        soft_match(x, np.ones((60, 3)))

    def absent(module: str, extra: str, purpose: str) -> None:
        raise MissingExtraError(f"{purpose} needs {module}: actkit[{extra}]")

    monkeypatch.setattr("actkit.analyses.soft_matching.require", absent)
    with pytest.raises(MissingExtraError, match=r"soft matching needs ot: actkit\[matching\]"):
        soft_match(x, y)
