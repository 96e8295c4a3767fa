"""Controls of unit matching: rotations, pools of one size, exchanged units, paired matches, each on planted truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from actkit.analyses.basis_comparison import channel_rotation, compare_bases, position_groups
from actkit.analyses.match_comparison import compare_matches
from actkit.analyses.match_shuffle import derangements, shuffle_match
from actkit.analyses.pool_comparison import draw_pools, equalise_pools
from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import array_layer
from actkit.analyses.unit_matching import match_units
from actkit.analyses.unit_matching_setting import bootstrap_interval
from actkit.errors import InputError, LayerError
from actkit.store import store_from_arrays

Array = np.ndarray[Any, Any]


def plain_r(x: Array, y: Array, fold: Array) -> Array:
    """Mean held-out correlation of every neuron's best unit, by loops over numpy's corrcoef."""
    out = np.empty((int(fold.max()) + 1, y.shape[1]))
    for f in range(len(out)):
        learn, test = fold != f, fold == f
        for j in range(y.shape[1]):
            best = int(np.argmax([np.corrcoef(c[learn], y[learn, j])[0, 1] for c in x.T]))
            out[f, j] = np.corrcoef(x[test, best], y[test, j])[0, 1]
    return out.mean(axis=0)


def maps(seed: int, n: int = 250, channels: int = 12, neurons: int = 30, single: bool = False) -> tuple[Array, Array]:
    """A layer of 3 × 3 maps, and noisy neurons: random mixtures of channels at one place, or single units."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, channels, 3, 3)).astype(np.float32)
    at = x.reshape(n, channels, 9)[:, :, rng.integers(0, 9, neurons)]  # (n, channels, neurons)
    mix = rng.standard_normal((channels, neurons))
    if single:
        mix = np.eye(channels)[:, rng.integers(0, channels, neurons)]
    mix /= np.linalg.norm(mix, axis=0)
    y = np.einsum("ncj,cj->nj", at, mix)
    return x, y + 0.5 * rng.standard_normal(y.shape)


# -- rotations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["maps", "tokens", "dense"])
def test_rotation_equals_a_plain_version(layout: str) -> None:
    x, y = maps(0, n=60, channels=4, neurons=5)
    tokens = x.reshape(60, 4, 9).transpose(0, 2, 1) + 5000 * np.arange(4, dtype=np.float32)  # loud means, kept apart
    shaped = {"maps": x, "tokens": tokens, "dense": x[:, :, 0, 0]}[layout]
    result = compare_bases({"layer": shaped}, y, n_rotations=2, folds=3, seed=4)
    fold = result["fold_of_stimulus"].values
    by_place = {"maps": x.reshape(60, 4, 9), "tokens": tokens.transpose(0, 2, 1), "dense": x[:, :, :1, 0]}[layout]
    by_place = by_place.astype(np.float64)
    np.testing.assert_allclose(result["native"].values[0], plain_r(by_place.reshape(60, -1), y, fold), atol=1e-5)
    for k in range(2):
        turned = np.einsum("ncp,cd->ndp", by_place, channel_rotation(4, k, 4)).reshape(60, -1)
        np.testing.assert_allclose(result["rotated"].values[0, k], plain_r(turned, y, fold), atol=3e-6)
    match = match_units({"layer": shaped}, y, folds=3, seed=4, n_permutations=0)
    np.testing.assert_array_equal(result["native"].values[0], match["r_mean"].values[:, 0])
    assert float(result["median_native"][0]) == np.median(result["native"].values[0])
    np.testing.assert_array_equal(result["median_rotated"].values[0], np.median(result["rotated"].values[0], axis=1))
    assert np.isnan(result["p_value"].values).all()  # two rotations cannot reach any level


def test_memory_and_stores_do_not_change_the_answer(tmp_path: Path) -> None:
    x, y = maps(1, n=80, channels=6)
    whole = compare_bases({"conv": x}, y, n_rotations=3)
    for one in (x, np.asarray(x, dtype=np.float64)):
        cut = compare_bases({"conv": one}, y, n_rotations=3, memory="20kB" if one is x else "40kB")
        np.testing.assert_allclose(cut["rotated"].values, whole["rotated"].values, atol=1e-5)
    ids = [f"s{i}" for i in range(80)]
    store = store_from_arrays(tmp_path / "maps.zarr", {"conv": x}, ids=ids, block=13, chunk_bytes=2000)
    recording = xr.DataArray(
        y, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": [str(k) for k in range(30)]}
    )
    read = compare_bases(store, recording, n_rotations=3)
    np.testing.assert_allclose(read["rotated"].values, whole["rotated"].values, atol=1e-6)
    moved = compare_bases(store, recording.isel(stimulus=slice(70, 3, -1)), n_rotations=3)
    expected = compare_bases({"conv": x[70:3:-1]}, y[70:3:-1], n_rotations=3)
    np.testing.assert_allclose(moved["rotated"].values, expected["rotated"].values, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_groups_of_positions_hold_every_channel(last: bool) -> None:
    x = np.arange(2 * 3 * 10, dtype=np.float32).reshape((2, 10, 3) if last else (2, 3, 10))
    layout = Layout((10, 3) if last else (3, 10, 1), 3, 10, last=last)
    layer = array_layer("a", x)
    whole = x if last else x.transpose(0, 2, 1)
    for memory in (200, 400, 10**6):
        parts = list(position_groups(layer, layout, 2, memory))
        assert (len(parts) > 1) == (memory < 10**6)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_rotations_are_orthogonal_and_even() -> None:
    drawn = np.stack([channel_rotation(3, k, 7) for k in range(2000)])
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), drawn.shape), atol=1e-12)
    # Without the signs of R the diagonal of Q would lean to one side.
    assert np.abs(drawn.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 2000)
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / 3, atol=0.03)
    np.testing.assert_array_equal(channel_rotation(3, 5, 7), drawn[5])


def test_without_privileged_axes_there_is_no_drop() -> None:
    """Forty layers: the interval holds 0 at its rate, and the p-value is uniform."""
    covered, p = [], []
    for seed in range(40):
        x, y = maps(100 + seed, n=120, channels=8, neurons=25)
        result = compare_bases({"conv": x}, y, seed=seed)
        covered.append(float(result["drop_low"][0]) <= 0 <= float(result["drop_high"][0]))
        p.append(float(result["p_value"][0]))
    assert sum(covered) >= 34  # of 40; a binomial of .95 falls below that once in 300
    assert 0.3 < np.mean(p) < 0.7
    assert sum(value <= 0.05 for value in p) <= 6  # a binomial of 1/21 exceeds that once in 300


def test_planted_single_units_drop() -> None:
    for seed in range(3):
        x, y = maps(seed, single=True)
        result = compare_bases({"conv": x}, y, seed=seed)
        assert float(result["p_value"][0]) == pytest.approx(1 / 21)
        assert float(result["drop_low"][0]) > 0.3
        assert float(result["drop"][0]) == pytest.approx(
            float(result["median_native"][0]) - float(result["median_rotated"].mean())
        )


def test_a_full_rotation_destroys_position_and_always_wins() -> None:
    """Neurons that prefer no channel, but have a place: their match survives a rotation of channels alone."""
    x, y = maps(3)
    channels = compare_bases({"conv": x}, y, seed=1)
    full = compare_bases({"conv": x.reshape(len(x), -1)}, y, seed=1)  # every unit its own channel
    np.testing.assert_array_equal(channels["native"].values, full["native"].values)
    assert float(channels["drop_low"][0]) < 0 < float(channels["drop_high"][0])
    assert float(full["p_value"][0]) == pytest.approx(1 / 21)
    assert float(full["median_rotated"].max()) < float(channels["median_rotated"].min()) - 0.05


def test_bases_refuse_layers_without_channels(tmp_path: Path) -> None:
    x, y = maps(4, n=40, channels=1)
    with pytest.raises(InputError, match="'conv' has 1 channel, whose basis has no other rotation"):
        compare_bases({"conv": x}, y)
    with pytest.raises(InputError, match="4 dims a stimulus, of which none is known"):
        compare_bases({"film": x.reshape(40, 1, 3, 3, 1)}, y)
    store_from_arrays(tmp_path / "film.zarr", {"film": x.reshape(40, 1, 3, 3, 1)}, ids=[str(k) for k in range(40)])
    with pytest.raises(InputError, match="4 dims a stimulus, of which none is known"):
        compare_bases(tmp_path / "film.zarr", y)
    x, y = maps(4, n=40, channels=30)
    with pytest.raises(InputError, match=r"30 channels of one position .* memory='1 kB'; give at least '28.8 kB'"):
        compare_bases({"conv": x}, y, memory="1kB")
    assert compare_bases({"conv": x}, y, memory="28.8kB", n_rotations=1).sizes["rotation"] == 1
    y[:, 3] = 1.0
    gap = compare_bases({"conv": x}, y, n_rotations=20, reliability=np.full(30, 0.64))
    assert np.isnan(gap["native"].values[0, 3])
    assert np.isnan(gap["rotated"].values[0, :, 3]).all()
    assert np.isfinite(gap["drop"].values).all()
    np.testing.assert_allclose(gap["native_corrected"].values, gap["native"].values / 0.8)


# -- pools ------------------------------------------------------------------------------------------------------------


def test_pools_equal_a_plain_version() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((60, 40)).astype(np.float32), rng.standard_normal((60, 4))
    x[:, 7] = 3.0  # never varies
    y[:, :2] = x[:, [8, 15]] + 0.2 * y[:, :2]
    x[11, [8, 15]] = 1e5  # a loud stimulus: read again in double precision, apart from those between them
    result = equalise_pools({"layer": x}, y, pool_size=9, n_draws=30, folds=3, seed=2, memory="20kB")
    fold = result["fold_of_stimulus"].values
    for k, pool in enumerate(draw_pools(40, 9, 30, 2)):
        used = x[:, [unit for unit in pool if unit != 7]].astype(np.float64)
        np.testing.assert_allclose(result["r"].values[0, k], plain_r(used, y, fold), atol=1e-9)
        assert float(result["median_r"][0, k]) == np.median(result["r"].values[0, k])
    match = match_units({"layer": x}, y, n_permutations=0, folds=3, seed=2)
    np.testing.assert_array_equal(result["r_all"].values[0], match["r_mean"].values[:, 0])
    assert {(8 in pool, 15 in pool) for pool in draw_pools(40, 9, 30, 2)} >= {(True, False), (False, True)}


def test_a_whole_layer_as_pool_is_the_match_itself() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((70, 30)), rng.standard_normal((70, 5))
    y[:, 2] = 0.25
    result = equalise_pools({"layer": x}, y, n_draws=2, reliability=np.full(5, 0.25))
    np.testing.assert_allclose(result["r"].values[0, 0], result["r_all"].values[0], atol=1e-9)
    assert np.isnan(result["r"].values[0, :, 2]).all()
    np.testing.assert_allclose(result["r_corrected"].values[0], result["r_all"].values[0] / 0.5)
    assert result.attrs["pool_size"] == 30


def test_a_layer_that_is_only_larger_no_longer_wins() -> None:
    """Units of one kind, ten times as many: each neuron's best of them is better, until pools are equal."""
    rng = np.random.default_rng(7)
    signal = rng.standard_normal((400, 6))
    y = signal @ rng.standard_normal((6, 60)) + rng.standard_normal((400, 60))
    large = (signal @ rng.standard_normal((6, 600)) + rng.standard_normal((400, 600))).astype(np.float32)
    # Nested: the small layer is part of the large one.
    result = equalise_pools({"small": large[:, :60], "large": large}, y, n_draws=60, seed=3)
    assert result.attrs["pool_size"] == 60
    assert result["n_units"].values.tolist() == [60, 600]
    small, all_units = result["median_all"].values
    assert all_units > small + 0.05
    pooled = result["median_pooled"].values
    assert abs(pooled[1] - pooled[0]) < 2 * float(result["median_r"].values[1].std())
    assert abs(pooled[1] - pooled[0]) < 0.03 < all_units - small
    assert (result["pooled_low"].values < pooled).all()
    assert (result["pooled_high"].values > pooled).all()
    # Noise alone: training correlations grow with the pool, held-out ones do not.
    noise = rng.standard_normal((400, 600)).astype(np.float32)
    both = {"small": noise[:, :60], "large": noise}
    train = match_units(both, y, n_permutations=0)["r_train"].mean(("neuron", "fold")).values
    assert train[1] > train[0] + 0.03
    assert np.abs(equalise_pools(both, y, n_draws=20)["median_pooled"].values).max() < 0.03


def test_pools_are_drawn_once_and_refused_when_too_large() -> None:
    drawn = draw_pools(20, 6, 50, 0)
    assert all(len(set(pool)) == 6 for pool in drawn.tolist())
    assert set(drawn.ravel().tolist()) == set(range(20))
    np.testing.assert_array_equal(draw_pools(20, 6, 3, 0), drawn[:3])
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((30, 12)), rng.standard_normal((30, 3))
    with pytest.raises(InputError, match=r"pool_size=13: layer 'b' has 12 units.*use pool_size=12"):
        equalise_pools({"a": np.tile(x, 2), "b": x}, y, pool_size=13)


# -- exchanged units --------------------------------------------------------------------------------------------------


def test_own_units_beat_exchanged_ones_and_a_shared_signal_does_not() -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((200, 100)).astype(np.float32)
    y = x[:, :25] + rng.standard_normal((200, 25))
    match = match_units({"layer": x}, y, n_permutations=0)
    own = shuffle_match(match, {"layer": x}, y, seed=1)
    assert float(own["p_median"][0]) == pytest.approx(1 / 1001)
    np.testing.assert_allclose(own["p_value"].values, 1 / 25)
    assert (own["p_corrected"].values <= 0.05).all()
    np.testing.assert_allclose(own["observed"].values[0], match["r_mean"].values[:, 0], atol=1e-9)
    assert abs(float(own["null_median"].mean())) < 0.02
    shared = rng.standard_normal((200, 1))
    same = np.repeat(shared, 30, axis=1).astype(np.float32)  # all units equal
    answers = shared + rng.standard_normal((200, 25))
    match = match_units({"layer": same}, answers, n_permutations=19)
    assert (match["p_corrected"].values <= 0.05).all()  # a match, though of no neuron in particular
    all_equal = shuffle_match(match, {"layer": same}, answers)
    assert (all_equal["p_value"].values == 1).all()
    assert float(all_equal["p_median"][0]) == 1
    # Units that follow the signal with noise of their own have no owner either.
    noisy = (shared + rng.standard_normal((200, 100))).astype(np.float32)
    match = match_units({"layer": noisy}, answers, n_permutations=0)
    loose = shuffle_match(match, {"layer": noisy}, answers)
    assert float(loose["p_median"][0]) > 0.01
    assert (loose["p_corrected"].values > 0.05).all()


def test_exchanged_scores_equal_a_plain_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    x, y = rng.standard_normal((50, 9)), rng.standard_normal((50, 4))
    ids = [f"s{i}" for i in range(50)]
    recording = xr.DataArray(y, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": list("abcd")})
    match = match_units(x, recording, ids=ids, n_permutations=0, folds=3)
    result = shuffle_match(match, x, recording.isel(stimulus=slice(None, None, -1)), ids=ids, n_draws=5)
    fold, unit = match["fold_of_stimulus"].values, match["unit"].values[:, :, 0]
    for k in range(4):
        for j in range(4):
            r = [np.corrcoef(x[fold == f, unit[k, f]], y[fold == f, j])[0, 1] for f in range(3)]
            assert float(result["r_exchanged"][0, k, j]) == pytest.approx(np.mean(r), abs=1e-9)
    table = result["r_exchanged"].values[0]
    for draw, order in enumerate(derangements(4, 5, 0)):
        assert float(result["null_median"][0, draw]) == pytest.approx(np.median(table[order, np.arange(4)]))
    store = store_from_arrays(tmp_path / "x.zarr", {"activation": x.astype(np.float32)}, ids=ids)
    again = shuffle_match(match, store, recording, n_draws=5)
    np.testing.assert_allclose(again["r_exchanged"].values, result["r_exchanged"].values, atol=1e-6)


def test_derangements_move_everything_and_are_even() -> None:
    drawn = derangements(4, 3000, 1)
    assert (drawn != np.arange(4)).all()
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 9
    assert counts.min() > 333 - 4 * 18  # 3000 / 9, four standard deviations
    with pytest.raises(InputError, match=r"1 neuron\(s\) with a unit"):
        derangements(1, 2, 0)


def test_an_exchange_is_refused_for_other_data() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.standard_normal((40, 10)), rng.standard_normal((40, 4))
    match = match_units({"a": x}, y, n_permutations=0)
    with pytest.raises(InputError, match="not a matching result"):
        shuffle_match(xr.Dataset(), {"a": x}, y)
    with pytest.raises(LayerError, match="no layer 'a'"):
        shuffle_match(match, {"b": x}, y)
    with pytest.raises(InputError, match="scored again, do not give its correlations"):
        shuffle_match(match, {"a": x[:, ::-1]}, y)
    with pytest.raises(InputError, match=r"has 2 units, and unit \d was matched"):
        shuffle_match(match, {"a": x[:, :2]}, y)
    with pytest.raises(InputError, match="other neurons"):
        shuffle_match(match, {"a": x}, y[:, :3])
    with pytest.raises(InputError, match="not the same"):
        shuffle_match(match, {"a": x[:30]}, y[:30])
    with pytest.raises(InputError, match="mutual matches leave neurons without"):
        shuffle_match(match_units({"a": x}, y, assignment="mutual", n_permutations=0), {"a": x}, y)
    y[:, :2] = 0
    with pytest.raises(InputError, match="2 neurons have a unit"):
        shuffle_match(match_units({"a": x}, y, n_permutations=0), {"a": x}, y)
    y[:, 1] = x[:, 0]
    silent = match_units({"a": x}, y, n_permutations=0)
    result = shuffle_match(silent, {"a": x}, y)
    assert np.isnan(result["p_value"].values[0, 0])
    assert np.isfinite(result["p_median"].values).all()


# -- paired matches ---------------------------------------------------------------------------------------------------


def twins(seed: int, trained: float, untrained: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Matches of twenty neurons with two networks whose units copy them with so much noise."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((120, 20))
    return tuple(  # type: ignore[return-value]
        match_units({"layer": y + noise * rng.standard_normal((120, 20))}, y, n_permutations=0, reliability=[0.5] * 20)
        for noise in (trained, untrained)
    )


def test_a_better_network_wins_and_its_equal_does_not() -> None:
    better = compare_matches(*twins(12, 0.5, 2.0))
    assert better.attrs["score"] == "r_corrected"
    assert float(better["p_mean"][0]) == pytest.approx(1e-4)
    assert float(better["p_median"][0]) <= 0.001
    assert float(better["median_difference_low"][0]) > 0.2
    p, covered = [], []
    for seed in range(30):
        equal = compare_matches(*twins(100 + seed, 1.0, 1.0), n_draws=499, score="r_mean")
        p.append(float(equal["p_mean"][0]))
        covered.append(float(equal["mean_difference_low"][0]) <= 0 <= float(equal["mean_difference_high"][0]))
    assert sum(value <= 0.05 for value in p) <= 5
    assert 0.3 < np.mean(p) < 0.7
    assert sum(covered) >= 24


def test_differences_are_paired_and_signed() -> None:
    first, second = twins(13, 1.0, 2.0)
    there, back = compare_matches(first, second, score="r_mean"), compare_matches(second, first, score="r_mean")
    a, b = first["r_mean"].values[:, 0], second["r_mean"].values[:, 0]
    np.testing.assert_allclose(there["difference"].values[0], a - b)
    assert float(there["median_difference"][0]) == pytest.approx(np.median(a) - np.median(b))
    assert float(there["mean_difference"][0]) == pytest.approx((a - b).mean())
    np.testing.assert_allclose(there["mean_difference_low"].values, -back["mean_difference_high"].values, atol=1e-12)
    np.testing.assert_array_equal(there["p_mean"].values, back["p_mean"].values)
    assert float(compare_matches(first, first)["p_mean"][0]) == 1
    corrected = compare_matches(first, second)
    np.testing.assert_allclose(corrected["difference"].values, there["difference"].values / np.sqrt(0.5))
    assert int(corrected["n_used"][0]) == 20


def test_matches_that_are_no_pairs_are_refused() -> None:
    first, second = twins(14, 1.0, 1.0)
    with pytest.raises(InputError, match="differ in neuron"):
        compare_matches(first, second.isel(neuron=slice(1, None)))
    with pytest.raises(InputError, match="differ in stimulus"):
        compare_matches(first, second.isel(stimulus=slice(1, None)))
    with pytest.raises(InputError, match="differ in layer"):
        compare_matches(first, second.assign_coords(layer=["other"]))
    moved = second.assign_coords(fold_of_stimulus=("stimulus", second["fold_of_stimulus"].values[::-1]))
    with pytest.raises(InputError, match=r"differ in fold_of_stimulus.*same folds, groups, labels and seed"):
        compare_matches(first, moved)
    with pytest.raises(InputError, match="assignment='best' and the other 'mutual'"):
        compare_matches(first, second.assign_attrs(assignment="mutual"))
    with pytest.raises(InputError, match="different reliabilities"):
        compare_matches(first, second.assign(reliability=second["reliability"] * 0.9))
    with pytest.raises(InputError, match="the second match has no noise-corrected"):
        compare_matches(first, second.drop_vars("r_corrected"), score="r_corrected")
    with pytest.raises(InputError, match="the first is not a matching result"):
        compare_matches(xr.Dataset(), second)
    empty = second.assign(r_corrected=second["r_corrected"] * np.nan)
    with pytest.raises(InputError, match="0 neurons have both scores"):
        compare_matches(first, empty)
    assert compare_matches(first, second.drop_vars("r_corrected")).attrs["score"] == "r_mean"


# -- what all of them share -------------------------------------------------------------------------------------------


def test_groups_and_categories_deal_the_folds_of_a_match() -> None:
    rng = np.random.default_rng(15)
    x, y = rng.standard_normal((60, 8, 2, 2)), rng.standard_normal((60, 4))
    recording = xr.DataArray(
        y,
        dims=("stimulus", "neuron"),
        coords={
            "stimulus": [f"s{i}" for i in range(60)],
            "neuron": list("abcd"),
            "group": ("stimulus", np.repeat(np.arange(30), 2)),
            "kind": ("stimulus", np.repeat(["p", "q", "r"], 20)),
        },
    )
    given: dict[str, Any] = {"labels": "kind", "ids": recording["stimulus"].values, "seed": 6}
    match = match_units({"a": x}, recording, n_permutations=0, **given)
    for result in (
        compare_bases({"a": x}, recording, n_rotations=1, **given),
        equalise_pools({"a": x}, recording, n_draws=1, **given),
    ):
        fold = result["fold_of_stimulus"].values
        assert (fold[::2] == fold[1::2]).all()
        np.testing.assert_array_equal(fold, match["fold_of_stimulus"].values)
        assert result.attrs["splitting"] == match.attrs["splitting"]
        assert "30 groups kept whole, stratified by 3 categories" in result.attrs["splitting"]


def test_reduced_stores_have_no_units_to_control(tmp_path: Path) -> None:
    rng = np.random.default_rng(16)
    x, y = rng.standard_normal((40, 10)).astype(np.float32), rng.standard_normal((40, 4))
    store = store_from_arrays(tmp_path / "x.zarr", {"fc": x}, ids=[str(k) for k in range(40)])

    class Reduced:
        """A store whose layer is a mixture of units."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def layer_attrs(self, layer: str) -> dict[str, Any]:
            return {**store.layer_attrs(layer), "reduced": "projection"}

    match = match_units(store, y, n_permutations=0)
    for call in (compare_bases, equalise_pools, lambda *given: shuffle_match(match, *given)):
        with pytest.raises(InputError, match="reduced by projection, so it has no single units"):
            call(Reduced(), y)
        call(store, y)


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(17).standard_normal(60)
    low, high = bootstrap_interval(lambda neurons: values[neurons].mean(axis=1), 60, 2000, 3)
    error = values.std() / np.sqrt(60)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
