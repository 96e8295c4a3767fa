"""One layer of a segregation study: its lesions, their outcomes, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actkit.analyses.segregation_answers import evaluate, right_among
from actkit.analyses.segregation_bootstrap import Levels, bootstrap, percentile_interval
from actkit.analyses.segregation_indices import (
    Outcomes,
    drops,
    index_at_half,
    saturated,
    segregation_index,
)
from actkit.analyses.segregation_measure import Ranked
from actkit.analyses.segregation_nulls import matched_sets, random_sets
from actkit.analyses.segregation_pairs import Pair, unit_features
from actkit.analyses.segregation_units import (
    SharedUnits,
    map_selectivity,
    most_selective,
    rank_selectivity,
    shared_units,
    top_order,
)
from actkit.errors import InputError
from actkit.tasks import Task
from actkit.units import round_half_up

MASKING = ("unmasked", "masked")
FEATURES = ("mean", "variance", "y", "x")


@dataclass(frozen=True, eq=False)
class Plan:
    """What is done in every layer.

    Attributes
    ----------
    fractions : tuple of float
        Shares of units, increasing.
    at : int
        Place of the index's fraction among them.
    shuffles : sequence of two arrays
        Classes of every pseudo-task.
    n_outputs : int
        Outputs of the network.
    n_random : int
        Random lesions.
    match : bool
        Whether there are matched ones too.
    n_draws : int
        Bootstrap draws.
    levels : {"both", "classes", "images"}
        What they draw.
    seed : int
        Seed.
    memory : str
        Budget of a sweep.
    weights : list of two numpy.ndarray or None
        Bootstrap draws, where they fit in memory.
    selectivity : sequence of two Task or None
        Images that tell which task each unit prefers.
    """

    fractions: tuple[float, ...]
    at: int
    shuffles: Sequence[tuple[np.ndarray, np.ndarray]]
    n_outputs: int
    n_random: int
    match: bool
    n_draws: int
    levels: Levels
    seed: int
    memory: str
    weights: list[np.ndarray] | None = None
    selectivity: Sequence[Task] | None = None


@dataclass(frozen=True, eq=False)
class LayerResult:
    """What was measured in one layer; axes as :func:`actkit.analyses.segregation_result.assemble` names them.

    ``score``, ``rank`` and ``selectivity`` are (ranking, unit); without selectivity images, or where the layer's output
    is negative, all selectivities are NaN.
    """

    n_units: int
    method: str
    score: np.ndarray
    rank: np.ndarray
    selectivity: np.ndarray
    shared: SharedUnits
    intact_right: np.ndarray
    right: np.ndarray
    null: np.ndarray
    random_drop: np.ndarray
    matched_drop: np.ndarray
    imbalance: np.ndarray
    values: dict[str, np.ndarray]


def measure_layer(
    module: torch.nn.Module, layer: str, ranks: Pair, tests: Pair, n_units: int, ranked: Ranked, plan: Plan
) -> LayerResult:
    """Silence top, random and shuffled units of a layer, and take all numbers from the results.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    ranks, tests : Pair
        Ranking and evaluation images.
    n_units : int
        Channels of the layer.
    ranked : Ranked
        How much each task needs each.
    plan : Plan
        What to do.

    Returns
    -------
    LayerResult
        Of this layer.

    Raises
    ------
    InputError
        If the intact network is not above chance in a task, or an output is NaN.
    """
    sizes = [round_half_up(fraction * n_units) for fraction in plan.fractions]
    k = sizes[plan.at]
    lesions = [ranked.order[ranking][:size] for ranking in range(2) for size in sizes]
    starts = {"random": len(lesions)}
    lesions += random_sets(n_units, k, plan.n_random, plan.seed)
    starts["matched"] = len(lesions)
    imbalance = np.full((2, len(FEATURES)), np.nan)
    if plan.match:
        features, names = unit_features(module, layer, ranks.task.inputs)
        for t in range(2):
            sets, gap = matched_sets(features, ranked.order[t][:k], plan.n_random, plan.seed)
            imbalance[t, [FEATURES.index(name) for name in names]] = gap
            lesions += sets
    starts["null"] = len(lesions)
    lesions += [order[:k] for both in ranked.null_order for order in both]
    starts["selective"] = len(lesions)
    prefers = _preferences(module, layer, n_units, plan)
    if not np.isnan(prefers).all():
        lesions += [most_selective(one, k) for one in prefers]

    n, rows = len(tests.of), [tests.rows(t) for t in range(2)]
    competing = [[np.arange(plan.n_outputs)] * 2, list(tests.classes)]
    chance = np.array([[1 / len(classes) for classes in both] for both in competing])
    intact_right = np.zeros((2, n), dtype=bool)
    intact_bits = np.zeros((0, n), dtype=np.int64)
    right = np.zeros((2, 2, len(sizes), n), dtype=bool)
    random_drop = np.full((2, 2, plan.n_random), np.nan)
    matched_drop = np.full((2, 2, plan.n_random), np.nan)
    null_drop = np.full((len(plan.shuffles), 2, 2, 2), np.nan)
    selective = {name: np.full((2, 2, 2), np.nan) for name in ("accuracy", "drop")}

    def answers(bits: np.ndarray) -> np.ndarray:
        found = np.zeros((2, n), dtype=bool)
        for m, both in enumerate(competing):
            for t in range(2):
                found[m, rows[t]] = right_among(bits[:, rows[t]], both[t])
        return found

    def shares(found: np.ndarray) -> np.ndarray:
        """Accuracies (masking, task)."""
        return np.stack([found[:, some].mean(axis=1) for some in rows], axis=1)

    def lost(found: np.ndarray) -> np.ndarray:
        """Drops (masking, task) of one lesion."""
        return drops(shares(intact_right), shares(found), chance)

    def use(number: int, bits: np.ndarray) -> None:
        nonlocal intact_bits
        if number < 0:
            intact_bits = bits
            intact_right[...] = answers(bits)
            _above_chance(intact_right, rows, chance, tests.names)
        elif number < starts["random"]:
            right[:, number // len(sizes), number % len(sizes)] = answers(bits)
        elif number < starts["matched"]:
            random_drop[:, :, number - starts["random"]] = lost(answers(bits))
        elif number < starts["null"]:
            t, place = divmod(number - starts["matched"], plan.n_random)
            matched_drop[:, t, place] = lost(answers(bits))[:, t]
        elif number >= starts["selective"]:
            found = answers(bits)
            selective["accuracy"][:, number - starts["selective"]] = shares(found)
            selective["drop"][:, number - starts["selective"]] = lost(found)
        else:
            shuffle, ranking = divmod(number - starts["null"], 2)
            null_drop[shuffle, :, ranking] = _pseudo_drops(intact_bits, bits, tests, plan, shuffle)

    method = evaluate(module, layer, tests.task, lesions, plan.n_outputs, use, plan.memory)
    null = segregation_index(null_drop)
    values = _numbers(intact_right, right, rows, chance, tests, plan)
    for name, some in (("random", random_drop), ("matched", matched_drop)):
        own = np.stack([values["drop"][:, t, t, plan.at] for t in range(2)], axis=1)
        reach = (some >= own[..., None] - 1e-12).sum(axis=-1)
        values[f"{name}_p"] = np.where(np.isnan(some).any(axis=-1), np.nan, (1 + reach) / (1 + plan.n_random))
    if plan.selectivity is not None:
        values.update({f"selective_{name}": some for name, some in selective.items()})
        values.update(_correlations(ranked, prefers))
    shared = shared_units(ranked.scores[0], ranked.scores[1], plan.fractions[plan.at], ranked.halves)
    rank = np.full((2, n_units), np.nan)
    for row, order in zip(rank, ranked.order, strict=True):
        row[order] = np.arange(1, len(order) + 1)
    return LayerResult(
        n_units, method, ranked.scores, rank, prefers, shared, intact_right, right[:, :, plan.at], null, random_drop,
        matched_drop, imbalance, values,
    )  # fmt: skip


def _preferences(module: torch.nn.Module, layer: str, n_units: int, plan: Plan) -> np.ndarray:
    """Selectivity (ranking, unit) of each unit for either task."""
    index = None if plan.selectivity is None else map_selectivity(module, layer, plan.selectivity)
    return np.full((2, n_units), np.nan) if index is None else np.stack([index, -index])


def _correlations(ranked: Ranked, prefers: np.ndarray) -> dict[str, np.ndarray]:
    """Correlation of causal rank and selectivity of either task; NaN where fewer than three units are known."""
    found = np.full((3, 2), np.nan)
    for t, (order, scores) in enumerate(zip(ranked.order, ranked.scores, strict=True)):
        # A greedy ranking ends before half of the units; those beyond have no rank.
        known = np.full(len(scores), np.nan)
        known[order] = prefers[t, order]
        found[2, t] = np.isfinite(known[top_order(scores)[: round_half_up(0.5 * len(scores))]]).sum()
        if found[2, t] >= 3:
            found[:, t] = rank_selectivity(scores, known)
    return dict(zip(("rank_selectivity", "rank_selectivity_p", "rank_selectivity_n"), found, strict=True))


def _above_chance(right: np.ndarray, rows: Sequence[np.ndarray], chance: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a network that has nothing to lose."""
    for m, masking in enumerate(MASKING):
        for t, some in enumerate(rows):
            accuracy = right[m, some].mean()
            if accuracy <= chance[m, t]:
                raise InputError(
                    f"the intact network names {accuracy:.3f} of the {names[t]!r} images ({masking}), not above chance "
                    f"({chance[m, t]:.3f}), so a lesion cannot take anything away; train it, or check the targets"
                )


def _pseudo_drops(intact: np.ndarray, bits: np.ndarray, tests: Pair, plan: Plan, shuffle: int) -> np.ndarray:
    """Drops (masking, pseudo-task) of one lesion."""
    found = np.empty((2, 2))
    targets = tests.task.targets
    for t, classes in enumerate(plan.shuffles[shuffle]):
        some = np.flatnonzero(np.isin(targets, classes))
        for m, allowed in enumerate((np.arange(plan.n_outputs), classes)):
            before = right_among(intact[:, some], allowed).mean() if some.size else np.nan
            after = right_among(bits[:, some], allowed).mean() if some.size else np.nan
            found[m, t] = drops(before, after, 1 / len(allowed))
    return found


def _numbers(
    intact: np.ndarray, right: np.ndarray, rows: Sequence[np.ndarray], chance: np.ndarray, tests: Pair, plan: Plan
) -> dict[str, np.ndarray]:
    """Accuracies, drops and indices with intervals, for both kinds of masking, stacked on axis 0."""
    parts: list[dict[str, np.ndarray]] = []
    targets = tests.task.targets
    for m in range(2):
        outcomes = Outcomes(
            (intact[m, rows[0]], intact[m, rows[1]]),
            # (ranking, fraction, image) becomes (fraction, ranking, image).
            (right[m][..., rows[0]].swapaxes(0, 1), right[m][..., rows[1]].swapaxes(0, 1)),
            (targets[rows[0]], targets[rows[1]]),
            (float(chance[m, 0]), float(chance[m, 1])),
        )
        before, after = outcomes.accuracies()
        drop, plain = outcomes.drops(), outcomes.drops(plain=True)
        drawn = bootstrap(outcomes, plan.n_draws, plan.seed, plan.levels, plan.weights)
        half, half_at = index_at_half(np.moveaxis(drop, 0, -1), plan.fractions)
        curve, curve_draws = segregation_index(drop), drawn.index
        found = {
            "intact": before,
            "accuracy": np.moveaxis(after, 0, -1),
            "drop": np.moveaxis(drop, 0, -1),
            "drop_plain": np.moveaxis(plain, 0, -1),
            "saturated": saturated(drop[plan.at]),
            "index": curve[plan.at],
            "index_draws": curve_draws[:, plan.at],
            "index_plain": segregation_index(plain)[plan.at],
            "index_curve": curve,
            "index_half": half,
            "half_fraction": half_at,
        }
        for name, draws in (
            ("intact", drawn.intact),
            ("drop", np.moveaxis(drawn.drop, 1, -1)),
            ("index", curve_draws[:, plan.at]),
            ("index_plain", drawn.index_plain[:, plan.at]),
            ("index_curve", curve_draws),
            ("index_half", drawn.index_at_half(plan.fractions)),
        ):
            found[f"{name}_low"], found[f"{name}_high"] = percentile_interval(draws)
        parts.append(found)
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
