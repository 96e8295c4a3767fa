"""The pass of unit matching: its compiled loops against plain numpy, threads, memory, and what sources may yield."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from actkit.analyses.source import Layer, array_layer
from actkit.analyses.unit_matching import match_units
from actkit.analyses.unit_matching_folds import Folds, deal_folds
from actkit.analyses.unit_matching_kernel import Best, Targets, match_layer
from actkit.analyses.unit_matching_loops import BARRED, gather, search, spread
from actkit.analyses.unit_matching_nulls import draw_orders, null_targets
from actkit.errors import InputError

Array = np.ndarray[Any, Any]


def correlations(x: Array, y: Array, rows: Array) -> Array:
    """Correlation of every neuron with every unit over some rows: (neurons, units)."""
    x, y = x[rows] - x[rows].mean(axis=0), y[rows] - y[rows].mean(axis=0)
    return (y / np.linalg.norm(y, axis=0)).T @ (x / np.linalg.norm(x, axis=0))


def awkward(n: int, units: int, seed: int) -> Array:
    """Units of all kinds: silent, constant, far from zero, active once, loud once, twice the same."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, units)).astype(np.float32)
    x[:, 1] = 0
    x[:, 2] = 3.7
    x[:, 3] = 4000 + 0.01 * x[:, 3]
    x[:, 4] = 0
    x[n // 2, 4] = 2
    x[3, 5] = 1e5
    x[:, 6] = x[:, 7]
    return x


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_are_gathered_and_added_up(kind: type) -> None:
    rng = np.random.default_rng(0)
    source = (5 + rng.standard_normal((91, 60))).astype(kind)
    rows, shift = rng.permutation(91)[:83], rng.standard_normal(33).astype(kind)
    edges = np.array([0, 3, 40, 76, 83])  # fewer rows than one step of the loop, and one, two steps and a rest
    x, tables = np.empty((83, 33), kind), np.empty((4, 4, 33))
    gather(source[:, 11:44], rows, shift, edges, x, tables[0], tables[1])
    spread(edges, *tables)
    expected = source[rows, 11:44] - shift
    np.testing.assert_array_equal(x, expected)
    for f in range(4):
        part = expected[edges[f] : edges[f + 1]].astype(np.float64)
        rest = np.delete(expected, np.arange(edges[f], edges[f + 1]), axis=0).astype(np.float64)
        wanted = (
            part.sum(axis=0),
            (part**2).sum(axis=0),
            rest.sum(axis=0),
            ((rest - rest.mean(axis=0)) ** 2).sum(axis=0),
        )
        error = np.abs(tables[:, f] - wanted) / (rest**2).sum(axis=0)
        assert error.max() < (5e-7 if kind is np.float32 else 1e-14)


def test_sums_of_silent_folds_leave_no_residue() -> None:
    sums = np.array([[1e7], [0.0], [0.1]])
    others, variance = np.empty((2, 3, 1))
    spread(np.array([0, 4, 8, 12]), sums, sums**2, others, variance)
    assert others[:, 0].tolist() == [0.1, 1e7 + 0.1, 1e7]
    spread(np.array([0, 4, 8, 12]), np.array([[1e7], [0.0], [0.0]]), sums * 0, others, variance)
    assert others[0, 0] == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_search_is_that_of_a_plain_loop(kind: type) -> None:
    rng = np.random.default_rng(1)
    folds, neurons, units = 3, 5, 37
    own = rng.standard_normal((folds, neurons, units)).astype(kind)
    mean = rng.standard_normal((folds, neurons)).astype(kind)
    others, inverse = rng.standard_normal((2, folds, units)).astype(kind)
    inverse = np.abs(inverse)
    barred = np.where(rng.random((folds, units)) < 0.3, BARRED * 1e3, 0).astype(kind)
    slack = np.full((folds, neurons), 0.05, kind)
    r = (own.sum(axis=0) - own - mean[:, :, None] * others[:, None]) * inverse[:, None] + barred[:, None]
    floor = np.where(rng.random((folds, neurons)) < 0.5, r.max(axis=2) - 0.5, r.max(axis=2) + 0.01).astype(kind)
    first, best = np.empty((folds, neurons), np.int64), np.full((folds, neurons), np.nan, kind)
    search(own, mean, others, inverse, barred, floor, slack, first, best)
    reached = r.max(axis=2) >= floor
    assert 0 < reached.sum() < reached.size
    expected = np.where(reached, (r >= r.max(axis=2, keepdims=True) - 0.05).argmax(axis=2), -1)
    np.testing.assert_array_equal(first, expected)
    at = np.nonzero(reached)
    np.testing.assert_allclose(best[at], r[(*at, expected[at])], rtol=1e-5)
    assert np.isnan(best[~reached]).all()


def match(layer: Layer, y: Array, folds: Folds, sets: list[Targets], memory: int, workers: int) -> list[Best]:
    """Match, the activations of the first set kept."""
    keep = [True] + [False] * (len(sets) - 1)
    return match_layer(layer, np.arange(len(y)), folds, sets, keep, memory, workers=workers)


def test_threads_leave_every_digit_and_memory_every_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actkit.analyses.unit_matching_kernel._WIDTH", 16)
    x = np.concatenate([awkward(70, 150, seed) for seed in range(3)], axis=1)
    y = np.random.default_rng(9).standard_normal((70, 11))
    y[:, 4] = x[:, 3] * 50 + y[:, 4] * 0.1
    folds = deal_folds(70, 5, None, None, 0)
    targets = Targets.of(y, folds)
    sets = [targets, *null_targets(targets, draw_orders(70, 60, None, None, 0), folds)]
    layer = array_layer("a", x)
    runs = [match(layer, y, folds, sets, 10**8, workers) for workers in (1, 2, 5)]
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one.unit, other.unit)
            np.testing.assert_array_equal(one.train, other.train)
            np.testing.assert_array_equal(one.held_out, other.held_out)
        np.testing.assert_array_equal(runs[0][0].columns, run[0].columns)
    # Without room for a second thread or block, the source cuts its units elsewhere, and products round otherwise.
    for one, other in zip(runs[0], match(layer, y, folds, sets, 10**4, 3), strict=True):
        np.testing.assert_array_equal(one.unit, other.unit)
        np.testing.assert_allclose(one.held_out, other.held_out, atol=2e-6)


def test_the_best_unit_may_correlate_negatively() -> None:
    y = np.random.default_rng(2).standard_normal((40, 3))
    x = np.stack([-y[:, 0], np.ones(40)], axis=1)
    folds = deal_folds(40, 4, None, None, 0)
    for kind in (np.float32, np.float64):
        best = match(array_layer("a", x.astype(kind)), y, folds, [Targets.of(y, folds)], 10**6, 1)[0]
        assert (best.unit == 0).all()
        np.testing.assert_allclose(best.train[:, 0], -1, atol=1e-6)
        np.testing.assert_allclose(best.held_out[:, 0], -1, atol=1e-6)


def test_sources_of_any_kind_of_number() -> None:
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(3).standard_normal((50, 30)) * 8).round()  # exact in all of them
    y = x[:, :4] + np.random.default_rng(4).standard_normal((50, 4)) * 9
    folds = deal_folds(50, 5, None, None, 0)
    targets = Targets.of(y, folds)
    plain = match(array_layer("a", x), y, folds, [targets], 10**6, 1)[0]
    locked = x.astype(np.float32)
    locked.flags.writeable = False
    for given in (
        locked,
        np.asfortranarray(x),
        x.astype(">f4"),
        x.astype(np.float16),
        x.astype(np.int16),
        torch.tensor(x).half(),
        torch.tensor(x).bfloat16(),
        torch.tensor(x).int(),
    ):
        found = match(array_layer("a", given), y, folds, [targets], 10**6, 2)[0]
        np.testing.assert_array_equal(found.unit, plain.unit)
        np.testing.assert_allclose(found.held_out, plain.held_out, atol=3e-6)


def test_what_is_visited_are_the_training_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actkit.analyses.unit_matching_kernel._WIDTH", 8)
    x, rng = awkward(60, 30, 5), np.random.default_rng(6)
    y = rng.standard_normal((60, 4))
    folds = deal_folds(60, 3, None, None, 0)
    shown = np.full((3, 4, 30), -np.inf)

    def visit(fold: int, index: Array, r: Array) -> None:
        shown[fold][:, index] = np.maximum(shown[fold][:, index], r)

    match_layer(array_layer("a", x), np.arange(60), folds, [Targets.of(y, folds)], [False], 10**6, visit)
    varying = [k for k in range(30) if k not in (1, 2, 4)]
    assert np.isneginf(shown[:, :, [1, 2]]).all()
    for f in range(3):
        r = correlations(x.astype(np.float64)[:, varying], y, folds.number != f)
        np.testing.assert_allclose(shown[f][:, varying], r, atol=2e-6)
        if folds.number[30] == f:  # where the unit's only activation is held out, it is constant in training
            assert np.isneginf(shown[f][:, 4]).all()
        else:
            assert np.isfinite(shown[f][:, 4]).all()


def test_memory_stays_within_its_half() -> None:
    n, units, width = 300, 60_000, 2000
    rng = np.random.default_rng(7)
    block = rng.standard_normal((n, width)).astype(np.float32)

    def blocks(most: int) -> Iterator[Array]:
        for start in range(0, units, width):
            yield np.roll(block, start // width, axis=0)

    y = rng.standard_normal((n, 60))
    folds = deal_folds(n, 5, None, None, 0)
    sets = [Targets.of(y, folds)]
    rows = np.arange(n)
    layer = Layer("a", units, False, 4, blocks)
    match_layer(Layer("a", width, False, 4, lambda most: iter([block])), rows, folds, sets, [True], 10**7)  # compiled
    tracemalloc.start()
    try:
        match_layer(layer, rows, folds, sets, [True], 20 * 10**6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two blocks of the source's own (2.4 MB each) and half of 20 MB; correlations of all units would take 72 MB.
    assert peak < 2 * block.nbytes + 12e6


def test_a_value_that_is_no_number_is_named_whoever_meets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actkit.analyses.unit_matching_kernel._WIDTH", 4)
    x, y = awkward(40, 50, 8), np.random.default_rng(0).standard_normal((40, 2))
    x[7, 33] = np.inf
    x[9, 41] = np.nan
    folds = deal_folds(40, 4, None, None, 0)
    for workers in (1, 4):
        with pytest.raises(InputError, match="layer 'a': unit 33 holds NaN or infinite"):
            match(array_layer("a", x), y, folds, [Targets.of(y, folds)], 10**6, workers)
    # Stimuli that are not asked for may hold anything.
    rows = np.setdiff1d(np.arange(40), [7, 9])
    some = deal_folds(38, 4, None, None, 0)
    best = match_layer(array_layer("a", x), rows, some, [Targets.of(y[rows], some)], [False], 10**6)[0]
    assert (best.unit >= 0).all()


def test_a_constant_neuron_and_a_unit_that_cannot_be_matched_meet_in_one_block() -> None:
    x, y = np.random.default_rng(4).normal(size=(60, 6)), np.random.default_rng(5).normal(size=(60, 3))
    x[:, 3], y[:, 2] = 1, 0
    result = match_units(x, y, assignment="one_to_one", folds=3)
    assert (result["unit"].values[2] == -1).all() or np.isnan(result["r"].values[2]).all()
    assert not (result["unit"].values[:2] == 3).any()
