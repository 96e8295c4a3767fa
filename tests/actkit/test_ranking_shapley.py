"""Shapley values: games whose values are known, the first player and seed 0 included, and simulated errors."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from actkit.ranking_shapley import errors, shapley


class TableGame:
    """A game given by a function of the set of silenced players, with a value for each image."""

    def __init__(self, value, n_players):
        self.value, self.n, self.asked = value, n_players, 0

    def __call__(self, tag, base, players):
        self.asked += len(players)
        return {"loss": np.stack([self.value({*base, *players[: i + 1]}) for i in range(len(players))])}

    def solve(self, n_permutations, seed=0, truncation=0.0):
        return shapley(self, self.n, {"loss": self.value(set())}, n_permutations, seed, truncation)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_an_additive_game_is_solved_exactly_the_first_player_and_seed_0_included(seed):
    weights = np.random.default_rng(4).normal(size=(9, 5))
    weights[0] = 100.0
    game = TableGame(lambda s: 3.0 + weights[sorted(s)].sum(axis=0), 9)
    result = game.solve(3, seed)
    np.testing.assert_allclose(result.values["loss"], weights, atol=1e-12)
    sampling, both = errors(result, "loss")
    np.testing.assert_allclose(sampling, 0, atol=1e-10)
    np.testing.assert_allclose(both, weights.std(axis=1, ddof=1) / np.sqrt(5), atol=1e-7)


def test_permutations_follow_the_seed_and_differ_between_seeds():
    def value(silenced):
        return np.array([float(len(silenced)) ** 2 + 5 * (0 in silenced) * (1 in silenced)])

    runs = [TableGame(value, 6).solve(4, seed).by_permutation["loss"] for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    longer = TableGame(value, 6).solve(9, 0).by_permutation["loss"]
    assert np.array_equal(longer[:4], runs[0])


def test_an_interaction_is_shared_by_its_two_players():
    game = TableGame(lambda s: np.array([87.0 * ({0, 3} <= s) + 2.0 * (1 in s)]), 5)
    result = game.solve(400)
    values = result.values["loss"][:, 0]
    sampling, _ = errors(result, "loss")
    np.testing.assert_allclose(values[[1, 2, 4]], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(values[0] + values[3], 87)
    assert abs(values[0] - 43.5) < 3 * sampling[0]
    # An even coin between 0 and 87 in every order.
    np.testing.assert_allclose(sampling[0], 43.5 / 20, rtol=0.02)


def test_more_players_than_a_chunk_sum_to_the_whole_game():
    weights = np.random.default_rng(1).normal(size=(40, 3))
    game = TableGame(lambda s: np.tanh(weights[sorted(s)].sum(axis=0)), 40)
    result = game.solve(5)
    np.testing.assert_allclose(result.values["loss"].sum(axis=0), game.value(set(range(40))), atol=1e-12)
    assert (result.reached == 40).all()


def test_truncation_saves_and_keeps_the_sum():
    # Everything is lost with the first four players of any order that hold player 0 or not: a fast-saturating game.
    game = TableGame(lambda s: np.array([1 - 0.5 ** len(s), 1 - 0.4 ** len(s)]), 60)
    full = game.solve(10)
    asked, game.asked = game.asked, 0
    cut = game.solve(10, truncation=0.05)
    assert game.asked < 0.6 * asked
    assert (cut.reached < 60).all()
    np.testing.assert_allclose(cut.values["loss"].sum(axis=0), full.values["loss"].sum(axis=0), atol=1e-12)
    assert np.abs(cut.values["loss"] - full.values["loss"]).max() < 0.05


def test_a_loss_that_only_crosses_its_end_is_not_cut_short():
    def value(silenced):  # far above its end, but passing through it at one coalition size
        size = len(silenced)
        return np.array([0.0 if size == 0 else 1.0 if size in (16, 50) else 5.0])

    assert (TableGame(value, 50).solve(3, truncation=0.01).reached == 50).all()


def test_standard_errors_agree_with_the_spread_over_orders_and_images():
    rng = np.random.default_rng(0)
    n = 5
    truth = rng.normal(size=n)
    estimates, of_both, of_sampling = [], [], []
    for run in range(300):
        single = truth[:, None] + 4 * rng.normal(size=(n, 12))
        double = {pair: 2 + rng.normal(size=12) for pair in combinations(range(n), 2)}

        def value(silenced, single=single, double=double):
            part = single[sorted(silenced)].sum(axis=0)
            return part + sum((double[pair] for pair in combinations(sorted(silenced), 2)), np.zeros(12))

        result = TableGame(value, n).solve(8, seed=run)
        sampling, both = errors(result, "loss")
        estimates.append(result.values["loss"].mean(axis=1))
        of_both.append(both)
        of_sampling.append(sampling)
    spread = np.std(estimates, axis=0, ddof=1)
    ratio = np.sqrt(np.mean(np.square(of_both), axis=0)) / spread
    assert np.all((ratio > 0.85) & (ratio < 1.2)), ratio
    # Leaving the images out understates what another sample of both would give.
    assert np.all(np.sqrt(np.mean(np.square(of_sampling), axis=0)) < 0.9 * spread)
