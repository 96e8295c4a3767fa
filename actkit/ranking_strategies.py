"""From what was measured to a ranking: numbers, standard errors, ranks and reliability, one function a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from actkit.ranking_engine import Engine, Values, agreement, balanced_order, halves, ranks
from actkit.ranking_greedy import Greedy, greedy, group_size
from actkit.ranking_racing import race
from actkit.ranking_shapley import errors, shapley
from actkit.ranking_taylor import taylor
from actkit.resampling import Stream, generator
from actkit.units import round_half_up

if TYPE_CHECKING:
    from actkit.ranking import RankingOptions

# Draws of races number their streams from here, away from orders and halves of images.
_RACES = 2**62 + 2**33


@dataclass(eq=False)
class Ranked:
    """One task, ranked.

    Attributes
    ----------
    units : dict of str to numpy.ndarray
        ``(units,)`` for each variable of the result.
    task : dict of str to float
        One number for each variable over tasks.
    note : str
        What was done, in words.
    ordered : int
        Length of the top that the strategy settled.
    per_image : numpy.ndarray or None
        ``(units, images)`` increase of the loss that ranks.
    method : set of str
        How the sweeps ran.
    """

    units: Values = field(default_factory=dict)
    task: dict[str, float] = field(default_factory=dict)
    note: str = ""
    ordered: int = 0
    per_image: np.ndarray | None = None
    method: set[str] = field(default_factory=set)


def suffixes(options: RankingOptions, values: Values) -> list[str]:
    """Endings of the measures that are wanted and there: ``""`` over all outputs, ``"_masked"`` over the task's own."""
    wanted = {"all": [""], "own": ["_masked"], "both": ["", "_masked"]}[options.masked]
    return [suffix for suffix in wanted if f"loss{suffix}" in values]


def guide_of(options: RankingOptions) -> str:
    """The measure that decides where only one can."""
    return "loss_masked" if options.masked == "own" else "loss"


def paired(lesioned: np.ndarray, intact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference over common images and its standard error.

    Parameters
    ----------
    lesioned : numpy.ndarray
        ``(units, images)``.
    intact : numpy.ndarray
        ``(images,)`` or ``(units, images)``.

    Returns
    -------
    mean, se : numpy.ndarray
        ``(units,)``: sd of the differences over the root of their number; NaN for one image.
    """
    difference = lesioned - intact
    n = difference.shape[1]
    mean = difference.mean(axis=1)
    return mean, difference.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(mean), np.nan)


def top_of(options: RankingOptions, n_units: int) -> int:
    """How many units are the top."""
    return max(1, round_half_up(options.fraction * n_units))


def reliability(
    estimate: Callable[[np.ndarray], np.ndarray], targets: np.ndarray, k: int, n_splits: int, seed: int
) -> dict[str, float]:
    """Split-half reliability of a ranking.

    Parameters
    ----------
    estimate : callable
        Gives the value of every unit, ``(units,)``, from some rows of the task.
    targets : numpy.ndarray of int
        ``(images,)`` class of each.
    k : int
        Length of the top.
    n_splits : int
        How many random splits are averaged.
    seed : int
        Seed.

    Returns
    -------
    dict of str to float
        ``top_overlap`` and ``rank_correlation``; empty without splits.
    """
    if not n_splits:
        return {}
    found = []
    for number in range(n_splits):
        first, second = halves(targets, seed, number)
        found.append(agreement(estimate(first), estimate(second), k))
    overlap, rho = np.mean(found, axis=0)
    return {"top_overlap": float(overlap), "rank_correlation": float(rho)}


def _measured(
    lesioned: Values, base: Values, options: RankingOptions, targets: np.ndarray, split: bool = True
) -> Ranked:
    """What every exhaustive strategy reports of ``(units, images)`` with and without each unit."""
    ranked = Ranked()
    for suffix in suffixes(options, lesioned):
        for measure, label, sign in (("loss", "loss_increase", 1), ("correct", "accuracy_drop", -1)):
            mean, se = paired(sign * lesioned[measure + suffix], sign * base[measure + suffix])
            ranked.units[label + suffix], ranked.units[f"{label}_se{suffix}"] = mean, se
        ranked.units[f"rank{suffix}"] = ranks(ranked.units[f"loss_increase{suffix}"])
        if split:
            difference = lesioned[f"loss{suffix}"] - base[f"loss{suffix}"]
            k = top_of(options, len(difference))
            scores = reliability(_means_of(difference), targets, k, options.n_splits, options.seed)
            ranked.task |= {name + suffix: value for name, value in scores.items()}
    units, images = lesioned["loss"].shape
    ranked.units["n_seen"] = np.full(units, images)
    ranked.per_image = lesioned[guide_of(options)] - base[guide_of(options)]
    ranked.ordered = units
    return ranked


def _means_of(difference: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: difference[:, rows].mean(axis=1)


def one_shot(engine: Engine, intact: Values, options: RankingOptions) -> Ranked:
    """Rank by silencing every channel alone.

    Parameters
    ----------
    engine : Engine
        Network, layer and task.
    intact : dict of str to numpy.ndarray
        ``(images,)`` for each measure.
    options : RankingOptions
        What is asked.

    Returns
    -------
    Ranked
        Numbers and ranks.
    """
    values = engine.evaluate("one", [engine.channels[[u]] for u in range(len(engine.channels))])
    # The sweep's own intact pass rounds as its candidates do: a channel without effect then differs by 0.
    base = {name: values[f"base_{name}"] for name in intact}
    ranked = _measured(values, base, options, engine.task.targets)
    ranked.note = "each channel silenced alone, all images"
    ranked.method = engine.method
    return ranked


def greedy_ranking(engine: Engine, intact: Values, options: RankingOptions) -> Ranked:
    """Rank by silencing one group after another; parameters as in :func:`one_shot`."""
    n = len(engine.channels)
    count, group = max(1, round_half_up(options.stop * n)), group_size(options.group, n)
    guide = guide_of(options)
    found = greedy(engine, count, group, guide)
    ranked = _measured(found.lesioned, found.base, options, engine.task.targets, split=False)
    for name in [name for name in ranked.units if name.startswith("rank")]:
        del ranked.units[name]
    ranked.units[f"rank{guide.removeprefix('loss')}"] = ranks(_stepwise(found, ranked.per_image))
    ranked.units["step"] = found.step
    if options.n_splits:
        scores = []
        for name, rows in zip("ab", halves(engine.task.targets, options.seed), strict=True):
            half = greedy(engine, count, group, guide, rows, tag=f"half-{name}")
            scores.append(_stepwise(half, half.lesioned[guide] - half.base[guide]))
        overlap, rho = agreement(scores[0], scores[1], top_of(options, n))
        suffix = guide.removeprefix("loss")
        ranked.task |= {f"top_overlap{suffix}": overlap, f"rank_correlation{suffix}": rho}
    ranked.ordered = len(found.order)
    ranked.note = (
        f"each channel silenced together with those of the earlier steps, {group} a step; channels never chosen are "
        "measured, and ranked behind, at the last step"
    )
    ranked.method = engine.method
    return ranked


def _stepwise(found: Greedy, increase: np.ndarray | None) -> np.ndarray:
    """One value a unit that falls in the order of a greedy search: chosen ones by their place, the rest by effect."""
    n = len(found.step)
    mean = np.zeros(n) if increase is None else increase.mean(axis=1)
    value = -ranks(mean).astype(float)
    value[found.order] = n - np.arange(len(found.order))
    return value


def raced(engine: Engine, intact: Values, options: RankingOptions) -> Ranked:
    """Find the top of the one-shot ranking from fewer evaluations; parameters as in :func:`one_shot`."""
    targets, n = engine.task.targets, len(engine.channels)
    guide, suffix = guide_of(options), guide_of(options).removeprefix("loss")
    k = top_of(options, n)
    order = balanced_order(targets, options.seed, engine.number)
    guess = taylor(engine, masked=bool(suffix))
    seen: Values = {name: np.full((n, len(targets)), np.nan) for name in intact}

    def evaluate(number: int, units: np.ndarray, images: np.ndarray) -> np.ndarray:
        rows = np.sort(images)
        values = engine.evaluate(f"race{number:02d}", [engine.channels[[u]] for u in units], rows=rows)
        for name, kept in seen.items():
            kept[np.ix_(units, rows)] = values[name] - values[f"base_{name}"]
        return seen[guide][np.ix_(units, images)]

    rng = generator(options.seed, _RACES + engine.number, Stream.PERMUTATIONS)
    found = race(evaluate, order, k, rng, guess, options.error, options.agreement)
    ranked = Ranked(method=engine.method, ordered=k, per_image=seen[guide])
    weights = found.weights[found.left]
    for ending in suffixes(options, intact):
        for measure, label, sign in (("loss", "loss_increase", 1.0), ("correct", "accuracy_drop", -1.0)):
            if measure + ending == guide:
                mean, se = found.mean, found.se
            else:
                mean, se = _stratified(sign * seen[measure + ending], weights, found.strata)
            ranked.units[label + ending], ranked.units[f"{label}_se{ending}"] = mean, se
    # What the race chose stands first, in the order of its estimates, and the rest behind.
    value = -ranks(found.mean).astype(float)
    value[found.chosen] += n
    ranked.units[f"rank{suffix}"] = ranks(value)
    ranked.units["n_seen"] = found.images

    def estimate(rows: np.ndarray) -> np.ndarray:
        part = weights[:, rows] * ~np.isnan(seen[guide][:, rows])
        rest = np.nan_to_num(seen[guide][:, rows] - guess[:, rows])
        # The guesses too are those of these images alone: halves that shared them would agree by that.
        return guess[:, rows].mean(axis=1) + (part * rest).sum(axis=1) / np.maximum(part.sum(axis=1), 1e-12)

    scores = reliability(estimate, targets, k, options.n_splits, options.seed)
    ranked.task = {name + suffix: value for name, value in scores.items()}
    ranked.task["error_spent"] = found.spent
    ranked.task["evaluated"] = float(found.images.sum() / (n * len(targets)))
    ranked.note = (
        f"top {k} by racing: with probability {1 - options.error:g} at least {options.agreement:g} of it agree with "
        "the exhaustive ranking on the same images (checked by simulation, not proved); standard errors are of the "
        "mean over all of them, 0 where the unit saw all"
    )
    return ranked


def _stratified(values: np.ndarray, weights: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimated pool means and their standard errors, from the images that each unit saw (others are NaN)."""
    mean, variance = np.zeros(len(values)), np.zeros(len(values))
    for stratum in range(int(strata.max()) + 1):
        here = strata == stratum
        part, total = values[:, here], int(here.sum())
        n = np.sum(~np.isnan(part), axis=1)
        share = weights[:, here].sum(axis=1)
        middle = np.nansum(part, axis=1) / np.maximum(n, 1)
        spread = np.nansum((part - middle[:, None]) ** 2, axis=1) / np.maximum(n - 1, 1)
        mean += share * middle
        variance += share**2 * (1 - n / total) * spread / np.maximum(n, 1)
    return mean, np.sqrt(variance)


def taylor_ranking(engine: Engine, intact: Values, options: RankingOptions) -> Ranked:
    """Rank by first-order guesses; parameters as in :func:`one_shot`."""
    ranked = Ranked(note="first-order guess from gradients, no channel was silenced: approximate")
    for suffix in suffixes(options, intact):
        effect = taylor(engine, masked=bool(suffix))
        mean, se = paired(effect, np.zeros(effect.shape[1]))
        ranked.units |= {f"loss_increase{suffix}": mean, f"loss_increase_se{suffix}": se, f"rank{suffix}": ranks(mean)}
        k = top_of(options, len(mean))
        scores = reliability(_means_of(effect), engine.task.targets, k, options.n_splits, options.seed)
        ranked.task |= {name + suffix: value for name, value in scores.items()}
        if ranked.per_image is None or f"loss{suffix}" == guide_of(options):
            ranked.per_image = effect
    engine.advance(engine.n_images)
    ranked.units["n_seen"] = np.full(len(engine.channels), engine.n_images)
    ranked.ordered = len(engine.channels)
    return ranked


def shapley_ranking(engine: Engine, intact: Values, options: RankingOptions) -> Ranked:
    """Rank by Shapley values; parameters as in :func:`one_shot`."""

    def game(tag: str, base: np.ndarray, players: np.ndarray) -> Values:
        silenced = np.sort(engine.channels[base])
        nested = [engine.channels[players[: i + 1]] for i in range(len(players))]
        return engine.evaluate(f"shapley-{tag}", nested, silenced)

    n = len(engine.channels)
    found = shapley(game, n, intact, options.n_permutations, options.seed, options.truncation, guide_of(options))
    ranked = Ranked(method=engine.method, ordered=n, per_image=found.values[guide_of(options)])
    for suffix in suffixes(options, intact):
        for measure, label, sign in (("loss", "loss_increase", 1), ("correct", "accuracy_drop", -1)):
            name = measure + suffix
            ranked.units[label + suffix] = sign * found.values[name].mean(axis=1)
            sampling, both = errors(found, name)
            ranked.units[f"{label}_se{suffix}"] = both
            ranked.units[f"{label}_se_sampling{suffix}"] = sampling
        ranked.units[f"rank{suffix}"] = ranks(ranked.units[f"loss_increase{suffix}"])
        k = top_of(options, n)
        means = _means_of(found.values[f"loss{suffix}"])
        scores = reliability(means, engine.task.targets, k, options.n_splits, options.seed)
        ranked.task |= {name + suffix: value for name, value in scores.items()}
    ranked.units["n_seen"] = np.full(n, engine.n_images)
    ranked.task["mean_players"] = float(found.reached.mean())
    ranked.note = (
        f"Shapley values from {options.n_permutations} random orders, on average {found.reached.mean():.1f} of {n} "
        "channels measured an order; both halves of the reliability share the orders"
    )
    return ranked
