"""Racing: its stated error probability over shuffles of real per-image losses, and what it saves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actkit import ranking_racing
from actkit.errors import InputError
from actkit.ranking import rank_units, units_of
from actkit.ranking_engine import Engine, Journal, balanced_order, descending
from actkit.ranking_racing import _next_images, _weights, race, rounds_of, strata_of
from actkit.ranking_taylor import taylor
from actkit.tasks import Task


class Digits(torch.nn.Module):
    """Two convolutions and two dense layers for 8 x 8 digits."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 32, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.pool = torch.nn.MaxPool2d(2)
        self.dense = torch.nn.Linear(32 * 16, 64)
        self.dense_relu = torch.nn.ReLU()
        self.head = torch.nn.Linear(64, 10)

    def forward(self, images):
        return self.head(self.dense_relu(self.dense(self.pool(self.relu(self.conv(images))).flatten(1))))


@pytest.fixture(scope="module")
def digits():
    """A network trained on some digits, and the others as a task: most losses are almost 0, a few are large."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images.astype(np.float32))[:, None] / 8 - 1
    targets = torch.from_numpy(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Digits()
        parameters = list(module.parameters())
        speed = [torch.zeros_like(parameter) for parameter in parameters]
        for _ in range(8):
            for rows in torch.randperm(1797).split(128):
                loss = torch.nn.functional.cross_entropy(module(images[rows]), targets[rows])
                # By hand: the optimisers of torch take seconds to import.
                for parameter, v, slope in zip(parameters, speed, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.data -= v.mul_(0.9).add_(slope, alpha=0.02)
    return module.eval(), Task("digits", images[:600], data.target[:600])


@pytest.fixture(scope="module")
def losses(digits):
    """Loss increase of every unit for every image of the pool, and the first-order guess."""
    module, task = digits
    found = {}
    for layer in ("relu", "dense_relu"):
        result = rank_units(module, layer, task, per_image=True, n_splits=0)
        engine = Engine(module, layer, task, 0, 64, result["unit"].values, Journal(None, {}), {"mode": "zero"})
        found[layer] = (result["image_loss_increase"].values[0], taylor(engine))
    return found


def shuffled(values, guess, targets, k, seed):
    """One race over a shuffle of the pool: share of the exhaustive top k that it missed, share evaluated."""
    order = balanced_order(targets, seed)
    rng = np.random.default_rng(seed)
    found = race(lambda number, units, images: values[np.ix_(units, images)], order, k, rng, guess)
    truth = descending(values.mean(axis=1))[:k]
    assert found.chosen.sum() == k
    return 1 - found.chosen[truth].mean(), found.images.mean() / len(targets)


def test_the_stated_error_probability_holds_over_200_shuffles_of_real_losses(digits, losses, monkeypatch):
    monkeypatch.setattr(ranking_racing, "_DRAWS", 400)
    targets = digits[1].targets
    missed, costs = [], []
    for values, guess in losses.values():
        for fraction in (0.2, 0.5):
            k = round(fraction * len(values))
            runs = [shuffled(values, guess, targets, k, seed) for seed in range(50)]
            missed += [miss for miss, _ in runs]
            costs.append(np.mean([cost for _, cost in runs]))
    assert len(missed) == 200
    assert np.mean(np.array(missed) > 0.05 + 1e-9) <= 0.05
    assert max(costs) < 0.9


def test_without_its_safeguards_the_race_would_miss_the_stated_probability(digits, losses, monkeypatch):
    for name in ("_SURPRISE", "_PRIOR"):
        monkeypatch.setattr(ranking_racing, name, 0.0)
    monkeypatch.setattr(ranking_racing, "_INFLATION", 0.25)
    monkeypatch.setattr(ranking_racing, "_DRAWS", 300)
    values, guess = losses["relu"]
    runs = [shuffled(values, guess * 0, digits[1].targets, 16, seed) for seed in range(20)]
    assert sum(missed > 0.05 for missed, _ in runs) > 5


def test_rank_units_races_to_the_exhaustive_top(digits):
    module, task = digits
    whole = rank_units(module, "dense_relu", task, n_splits=5)
    raced = rank_units(module, "dense_relu", task, strategy="racing", fraction=0.25, n_splits=5, seed=0)
    truth = set(units_of(whole, "digits", k=16).channel.tolist())
    found = units_of(raced, "digits", fraction=0.25)
    assert len(truth & set(found.channel.tolist())) >= 0.95 * 16 - 1e-9
    with pytest.raises(InputError, match="settled the top 16 only"):
        units_of(raced, "digits", k=17)
    one = raced.sel(task="digits")
    assert float(one["evaluated"]) == pytest.approx(float(one["n_seen"].mean()) / 600)
    assert float(one["evaluated"]) < 0.9
    # Estimates are of the same pool's means, within their own errors; units that saw everything are exact.
    for name in ("loss_increase", "accuracy_drop"):
        error = np.abs(one[name] - whole[name].sel(task="digits"))
        everything = (one["n_seen"] == 600).values
        np.testing.assert_allclose(error[everything], 0, atol=1e-6)
    score = np.abs(one["loss_increase"] - whole["loss_increase"].sel(task="digits")) / (one["loss_increase_se"] + 1e-9)
    assert float((score[~everything] < 3).mean()) > 0.9
    assert 0 < float(one["top_overlap"]) <= 1


def test_a_clear_top_needs_few_images():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 6400))
    values[:20] += 1.0
    guess = np.zeros_like(values)
    found = race(lambda r, u, i: values[np.ix_(u, i)], rng.permutation(6400), 20, rng, guess)
    assert set(np.flatnonzero(found.chosen)) == set(range(20))
    assert found.images.mean() < 6400 / 10
    # Where all are equal, there is nothing to be sure of: the race runs to the end and is exhaustive.
    values = rng.normal(size=(40, 200))
    found = race(lambda r, u, i: values[np.ix_(u, i)], rng.permutation(200), 8, rng, guess[:40, :200], error=1e-6)
    assert set(np.flatnonzero(found.chosen)) == set(descending(values.mean(axis=1))[:8])


def test_a_good_guess_saves_and_a_bad_one_does_not_mislead():
    rng = np.random.default_rng(1)
    values = rng.standard_t(3, size=(60, 1500)) + rng.normal(size=(60, 1)) * 0.3
    truth = set(descending(values.mean(axis=1))[:30])
    costs = {}
    for name, guess in (
        ("good", values + 0.1 * rng.normal(size=values.shape)),
        ("none", values * 0),
        ("wrong", rng.normal(size=values.shape)),
    ):
        found = race(lambda r, u, i: values[np.ix_(u, i)], rng.permutation(1500), 30, rng, guess)
        assert len(truth & set(np.flatnonzero(found.chosen))) >= 29
        costs[name] = found.images.mean()
    assert costs["good"] < 0.5 * costs["none"]


def test_estimates_of_the_pool_mean_are_unbiased_and_their_errors_right():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=(5, 400)) * (rng.random(400) < 0.3)
    guess = values * rng.uniform(0.5, 1.5, size=values.shape)
    misses, errors = [], []
    for seed in range(150):
        draw = np.random.default_rng(seed)

        def evaluate(number, units, images):
            return values[np.ix_(units, images)]

        # Every unit is sure of its seat (k = all), so that all leave after the first round.
        found = race(evaluate, draw.permutation(400), 5, draw, guess)
        assert (found.images == found.images[0]).all()
        misses.append(found.mean - values.mean(axis=1))
        errors.append(found.se)
    spread = np.std(misses, axis=0)
    assert np.all(np.abs(np.mean(misses, axis=0)) < 4 * spread / np.sqrt(150))
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / spread
    assert np.all((ratio > 0.8) & (ratio < 1.25)), ratio


def test_strata_and_allocation():
    rng = np.random.default_rng(0)
    guess = rng.exponential(size=(3, 300)) ** 3
    strata = strata_of(guess)
    assert np.bincount(strata).min() >= 8
    risk = np.sqrt((guess**2).mean(axis=0))
    for stratum in range(strata.max()):
        assert risk[strata == stratum].min() >= risk[strata == stratum + 1].max()
    seen = np.zeros(300, dtype=bool)
    order, spread = rng.permutation(300), np.full(strata.max() + 1, 1.0)
    for size in (64, 100, 300):
        new = _next_images(seen, strata, order, spread, size)
        assert not seen[new].any()
        seen[new] = True
        assert seen.sum() == size
        np.testing.assert_allclose(_weights(seen, strata).sum(), 1)
    assert rounds_of(1000, growth=2) == [64, 128, 256, 512, 1000]
    assert rounds_of(50) == [50]
    for bad, words in ((0, "top 0 of 3"), (4, "top 4 of 3")):
        with pytest.raises(InputError, match=words):
            race(lambda r, u, i: guess[np.ix_(u, i)], order, bad, rng, guess)
    with pytest.raises(InputError, match="error 0 is not a probability"):
        race(lambda r, u, i: guess[np.ix_(u, i)], order, 1, rng, guess, error=0)
