"""All layers of a segregation study as one Dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from actkit.analyses.segregation_layer import FEATURES, MASKING, LayerResult, Plan
from actkit.analyses.segregation_nulls import null_test
from actkit.analyses.segregation_pairs import Pair

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

_SELECTIVE: dict[str, tuple[tuple[str, ...], str]] = {
    "rank_selectivity": (("ranking",), "Spearman correlation of rank and selectivity over the top half, by rank"),
    "rank_selectivity_p": (("ranking",), "p, two-sided, of that correlation"),
    "rank_selectivity_n": (("ranking",), "units that took part in it"),
    "selective_accuracy": (("masking", "ranking", "task"), "accuracy with the most selective units silenced"),
    "selective_drop": (("masking", "ranking", "task"), "drop of accuracy with the most selective units silenced"),
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

    def by_unit(name: str) -> np.ndarray:
        values = np.full((len(done), 2, widest), np.nan)
        for i, one in enumerate(done):
            values[i, :, : one.n_units] = getattr(one, name)
        return values

    put("score", ("layer", "ranking", "unit"), by_unit("score"), "loss increase without the unit, in nats")
    put("rank", ("layer", "ranking", "unit"), by_unit("rank"), "rank of the unit, 1 the most needed")
    if plan.selectivity is not None:
        words = "selectivity index of the unit's map norms, positive for the task"
        put("selectivity", ("layer", "ranking", "unit"), by_unit("selectivity"), words)
        for name, (dims, words) in _SELECTIVE.items():
            put(name, ("layer", *dims), stacked(name), words)
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
