"""One layer of a segregation study: its lesions, their outcomes, and the numbers that follow; then all as a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from actkit.analyses.segregation_bootstrap import Levels, bootstrap, percentile_interval
from actkit.analyses.segregation_indices import (
    Outcomes,
    SharedUnits,
    drops,
    index_at_half,
    saturated,
    segregation_index,
    shared_units,
)
from actkit.analyses.segregation_measure import Pair, Ranked, evaluate, right_among, unit_features
from actkit.analyses.segregation_nulls import matched_sets, null_test, random_sets
from actkit.errors import InputError
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


@dataclass(frozen=True, eq=False)
class LayerResult:
    """What was measured in one layer; the axes are named in :func:`assemble`."""

    n_units: int
    method: str
    ranked: Ranked
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

    n, rows = len(tests.of), [tests.rows(t) for t in range(2)]
    competing = [[np.arange(plan.n_outputs)] * 2, list(tests.classes)]
    chance = np.array([[1 / len(classes) for classes in both] for both in competing])
    intact_right = np.zeros((2, n), dtype=bool)
    intact_bits = np.zeros((0, n), dtype=np.int64)
    right = np.zeros((2, 2, len(sizes), n), dtype=bool)
    random_drop = np.full((2, 2, plan.n_random), np.nan)
    matched_drop = np.full((2, 2, plan.n_random), np.nan)
    null_drop = np.full((len(plan.shuffles), 2, 2, 2), np.nan)

    def answers(bits: np.ndarray) -> np.ndarray:
        found = np.zeros((2, n), dtype=bool)
        for m, both in enumerate(competing):
            for t in range(2):
                found[m, rows[t]] = right_among(bits[:, rows[t]], both[t])
        return found

    def lost(found: np.ndarray) -> np.ndarray:
        """Drops (masking, task) of one lesion."""
        now = np.stack([found[:, some].mean(axis=1) for some in rows], axis=1)
        before = np.stack([intact_right[:, some].mean(axis=1) for some in rows], axis=1)
        return drops(before, now, chance)

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
    shared = shared_units(ranked.scores[0], ranked.scores[1], plan.fractions[plan.at], ranked.halves)
    return LayerResult(
        n_units, method, ranked, shared, intact_right, right[:, :, plan.at], null, random_drop, matched_drop, imbalance,
        values,
    )  # fmt: skip


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


_FOUR = ("masking", "ranking", "task", "fraction")
_DIMS: dict[str, tuple[str, ...]] = {
    "accuracy": _FOUR,
    "drop": _FOUR,
    "drop_plain": _FOUR,
    "saturated": ("masking", "ranking"),
    "index": ("masking",),
    "index_draws": ("masking", "draw"),
    "index_plain": ("masking",),
    "index_curve": ("masking", "fraction"),
    "index_half": ("masking",),
    "half_fraction": ("masking", "ranking"),
    "random_p": ("masking", "task"),
    "matched_p": ("masking", "task"),
}
_WORDS = {
    "accuracy": "share of images named correctly with units silenced",
    "drop": "drop of accuracy as a share of what the intact network has above chance",
    "drop_plain": "drop of accuracy as a share of the intact accuracy",
    "saturated": "1 where a lesion costs both tasks more than 90 %",
    "index": "segregation index",
    "index_plain": "segregation index of plain drops",
    "index_curve": "segregation index by share of units silenced",
    "index_half": "segregation index where each ranking costs its own task half",
    "half_fraction": "share of units at which a ranking costs its own task half",
    "random_p": "p, one-sided: random lesions that cost the task as much",
    "matched_p": "p, one-sided: matched random lesions that cost the task as much",
}


def assemble(names: Sequence[str], done: Sequence[LayerResult], tests: Pair, plan: Plan) -> xr.Dataset:
    """Lay the results of all layers out as one Dataset.

    Parameters
    ----------
    names : sequence of str
        Layer names.
    done : sequence of LayerResult
        One for each.
    tests : Pair
        Evaluation images.
    plan : Plan
        What was done.

    Returns
    -------
    xarray.Dataset
        As :func:`actkit.analyses.segregation.segregation` describes it.
    """
    data: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}

    def put(name: str, dims: tuple[str, ...], values: np.ndarray, words: str) -> None:
        data[name] = (dims, values, {"long_name": words, "units": "1"})

    def stacked(name: str) -> np.ndarray:
        return np.stack([one.values[name] for one in done])

    for name, dims in _DIMS.items():
        values = stacked(name)
        put(name, ("layer", *dims), values.astype(np.int8) if values.dtype == bool else values, _WORDS.get(name, name))
        for end in ("low", "high"):
            if f"{name}_{end}" in done[0].values:
                words = f"{_WORDS[name]}, {'lower' if end == 'low' else 'upper'} 95 % limit"
                put(f"{name}_{end}", ("layer", *dims), stacked(f"{name}_{end}"), words)
    for name, words in (
        ("intact", "share of images that the intact network names correctly"),
        ("intact_low", "lower 95 % limit of the intact accuracy"),
        ("intact_high", "upper 95 % limit of the intact accuracy"),
    ):
        put(name, ("masking", "task"), done[0].values[name], words)
    sizes = [len(classes) for classes in tests.classes]
    chance = np.array([[1 / plan.n_outputs] * 2, [1 / size for size in sizes]])
    put("chance", ("masking", "task"), chance, "accuracy of a guess among the competing outputs")

    null = np.stack([one.null for one in done], axis=1)  # null, layer, masking
    put("null", ("layer", "masking", "null"), np.moveaxis(null, 0, -1), "segregation index of shuffled classes")
    tested = [null_test(stacked("index")[:, m], null[:, :, m]) for m in range(2)]
    for name, words in (
        ("mean", "mean of the null"),
        ("low", "2.5 % quantile of the null"),
        ("high", "97.5 % quantile of the null"),
        ("mean_error", "standard error of the mean of the null"),
    ):
        values = np.stack([getattr(one, name) for one in tested], axis=1)
        put(f"null_{name}", ("layer", "masking"), values, words)
    for name, words in (
        ("excess", "segregation index minus the mean of the null"),
        ("p_value", "p, one-sided, against shuffled classes"),
        ("p_corrected", "p, one-sided, family-wise over layers"),
    ):
        put(name, ("layer", "masking"), np.stack([getattr(one, name) for one in tested], axis=1), words)

    drop_words = "drop of a task under lesions of random units"
    dims4 = ("layer", "masking", "task", "random")
    put("random_drop", dims4, np.stack([one.random_drop for one in done]), drop_words)
    put("matched_drop", dims4, np.stack([one.matched_drop for one in done]), f"{drop_words} like the task's own")
    put(
        "imbalance",
        ("layer", "task", "feature"),
        np.stack([one.imbalance for one in done]),
        "lesioned minus matched units, in standard deviations of the layer",
    )

    def shared(name: str) -> np.ndarray:
        return np.array([getattr(one.shared, name) for one in done], dtype=np.float64)

    for name, attribute, words in (
        ("shared", "share", "share of top units that both tasks have in common"),
        ("shared_chance", "chance", "share that independent choices have in common"),
        ("shared_low", "low", "2.5 % quantile of independent choices"),
        ("shared_high", "high", "97.5 % quantile of independent choices"),
        ("shared_p_more", "p_more", "p that independent choices share as many"),
        ("shared_p_fewer", "p_fewer", "p that independent choices share as few"),
        ("shared_ceiling", "ceiling", "share in common between halves for tasks with the same units"),
        ("shared_between", "between", "share in common between the tasks, each on half of its images"),
        ("shared_normalised", "normalised", "shared units from chance (0) to the ceiling (1)"),
    ):
        put(name, ("layer",), shared(attribute), words)
    put("reliability", ("layer", "ranking"), shared("reliability"), "share of top units in common between halves")

    widest = max(one.n_units for one in done)
    score = np.full((len(done), 2, widest), np.nan)
    rank = np.full((len(done), 2, widest), np.nan)
    for i, one in enumerate(done):
        score[i, :, : one.n_units] = one.ranked.scores
        for t, order in enumerate(one.ranked.order):
            rank[i, t, order] = np.arange(1, len(order) + 1)
    put("score", ("layer", "ranking", "unit"), score, "loss increase without the unit, in nats")
    put("rank", ("layer", "ranking", "unit"), rank, "rank of the unit, 1 the most needed")
    right = np.stack([one.right for one in done]).astype(np.int8)
    put("correct", ("layer", "masking", "ranking", "stimulus"), right, "1 where the image is named correctly")
    put("intact_correct", ("masking", "stimulus"), done[0].intact_right.astype(np.int8), "1 where right when intact")

    ids = tests.task.ids if tests.task.ids is not None else np.arange(len(tests.of)).astype(str)
    return xr.Dataset(
        data,
        coords={
            "layer": list(names),
            "n_units": ("layer", np.array([one.n_units for one in done])),
            "masking": list(MASKING),
            "ranking": list(tests.names),
            "task": list(tests.names),
            "fraction": list(plan.fractions),
            "feature": list(FEATURES),
            "stimulus": ids,
            "stimulus_task": ("stimulus", np.array(tests.names)[tests.of]),
            "stimulus_class": ("stimulus", tests.task.targets),
        },
    )
