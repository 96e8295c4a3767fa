"""Category selectivity: which units of a network answer more to one class of stimuli than to others.

The response of a filter is one number a stimulus (by default the l2 norm over its map, as in Dobs et al. 2022), and its
selectivity compares the responses to two sets of stimuli. What is found is a correlation; :func:`units_of_selectivity`
gives the units to :func:`actkit.lesioned`, which tests whether they matter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field, field_validator
from scipy import stats

from actkit.analyses.selectivity_contrasts import Contrast, contrasts_of, resample
from actkit.analyses.selectivity_responses import Layout, Reduce, open_responses, response_blocks
from actkit.analyses.selectivity_scores import LEAST, THRESHOLDS, ManyLabellings, Measure, score
from actkit.analyses.source import Layer, choose_layers, label_column
from actkit.compute import format_bytes, parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError, nearest
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint
from actkit.statistics import Correction, corrected
from actkit.units import UnitSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 1e-9
_TOP = 0.2  # share of a layer's units whose overlap between halves is reported


class SelectivityOptions(Options):
    """Options of :func:`selectivity`."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    contrast: list[str] | None = Field(
        None,
        description="Two labels, the first against the second; or one, against all others; every label against all "
        "others by default. Several labels are joined by '+': ['face', 'tool+fruit'].",
    )
    measure: Measure = Field(
        "index",
        description="The index (a - b) / (a + b) of the mean responses, d' (in pooled standard deviations), Welch's t, "
        "or Cliff's delta (2 AUC - 1 of the ROC curve).",
    )
    reduce: Reduce = Field(
        "l2", description="What a filter's map becomes: its l2 norm, mean or maximum; none: every unit by itself."
    )
    rectify: bool = Field(False, description="Set negative activations to 0 first, as a ReLU would.")
    threshold: float | None = Field(
        None,
        description="Score from which a unit counts as selective; by default 1/3 for the index (twice the response), "
        "1 for d', 3 for t and 0.5 for Cliff's delta.",
    )
    n_splits: int = Field(20, ge=0, description="Random halves of the stimuli for the reliability; 0: none.")
    n_permutations: int = Field(
        0, ge=0, description="Permutations of the labels, the observed labelling included; 0: no test."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Level from which a tested unit counts as significant.")
    correction: Correction = Field(
        "fdr", description="Correction of the p-values over the units of a layer: fdr, holm or none."
    )
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the halves and of the permutations.")

    @field_validator("contrast", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list | tuple) and len(value) not in (1, 2):
            raise ValueError("give one label, or two")
        return None if value is None else [str(part) for part in value]


@with_options(SelectivityOptions)
def selectivity(
    source: Any,
    labels: Any,
    groups: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: SelectivityOptions,
) -> xr.Dataset:
    """Score every filter (or unit) of every layer by its preference for a class of stimuli.

    Responses are read once, in blocks of units, and nothing grows with the width of a layer but the result (and, for
    the reliability, two numbers a unit and split).

    The p-value of a unit is the share of permutations of the labels, the observed labelling among them, in which its
    score is at least as far from 0: two-sided, exact where the stimuli are exchangeable under the null hypothesis
    (the responses have the same distribution on both sides, or, with `groups`, those of whole groups have). Under
    unequal variances and numbers only Welch's t stays close to its level.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``: ``(stimulus, unit)``, ``(stimulus, channel, y, x)`` or
        ``(stimulus, token, feature)``.
    labels : str, sequence or mapping
        The name of a label column of the source, one label for each stimulus, or a mapping of id to label. Stimuli
        whose label is the empty text are left out.
    groups : str, sequence or mapping, optional
        Stimuli of one group (photographs of one person) are not independent: halves keep groups whole, and
        permutations move whole groups (within groups, where these are of mixed labels).
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Over ``contrast`` and ``unit``: ``score``, positive for the preferred side, NaN for units that answer alike to
        all stimuli; ``mean_preferred`` and ``mean_other``, the mean responses; ``p_value`` and ``p_corrected`` (NaN
        without permutations); ``selective``: 1 where the unit prefers the first side, -1 where the second, 0 where
        neither (by the corrected p where tested, by the threshold otherwise).
        Over ``contrast`` and ``layer``: ``share`` and ``share_opposite``, of the units with ``selective`` 1 and -1;
        ``share_beyond``: of units with a score of the threshold or more, and ``share_chance``, the same under permuted
        labels (NaN without permutations); ``split_half``: Spearman correlation of the units' scores between halves of
        the stimuli, mean over splits; ``reliability``: the same stepped up by Spearman and Brown where it is positive;
        ``overlap``: share of the highest fifth of the units that two halves have in common (chance: about 0.2);
        ``n_undefined``: units without a score.
        Coordinates ``unit_layer``, ``channel``, ``y`` and ``x`` name the units (-1: every position); ``preferred`` and
        ``other`` the sides of a contrast, with ``n_preferred`` and ``n_other`` stimuli; ``n_units`` those of a layer.

    Raises
    ------
    InputError
        If a label does not exist, a side has too few stimuli, activations are NaN or infinite, or negative and the
        measure is the index.
    LayerError
        If a layer does not exist.

    References
    ----------
    Dobs et al. (2022), Science Advances 8, eabl8913, supplement 1 (index and l2 norm); Green & Swets (1966), Signal
    detection theory and psychophysics (d'); Welch (1947), Biometrika 34; Cliff (1993), Psychological Bulletin 114;
    Benjamini & Hochberg (1995), JRSS B 57; Janssen (1997), Statistics & Probability Letters 36 (permuting Welch's t).
    """
    opened, layouts = open_responses(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    stimuli = [str(i) for i in opened.ids]
    name, label_of = label_column(labels, "labels", stimuli, opened.labels)
    by_group = None if groups is None else label_column(groups, "groups", stimuli, opened.labels)[1]
    contrasts = contrasts_of(label_of, name, options.contrast, options.measure)
    for contrast in contrasts:
        resample(contrast, label_of, by_group, options.n_splits, options.n_permutations, options.seed)
    threshold = THRESHOLDS[options.measure] if options.threshold is None else options.threshold

    parts = []
    for layer in progress_bar(chosen, desc="selectivity", unit="layer", enabled=progress):
        parts.append(_of_layer(layer, layouts[layer.name], stimuli, contrasts, threshold, options))
    per_unit = {key: np.concatenate([part[0][key] for part in parts], axis=1) for key in parts[0][0]}
    per_layer = {key: np.stack([part[1][key] for part in parts], axis=1) for key in parts[0][1]}
    single = options.reduce == "none"
    places = [layouts[layer.name].places(single) for layer in chosen]
    sizes = [len(channel) for channel, _, _ in places]
    result = xr.Dataset(
        {key: (("contrast", "unit"), values, _about(_LONG[key])) for key, values in per_unit.items()}
        | {key: (("contrast", "layer"), values, _about(_LONG[key])) for key, values in per_layer.items()},
        coords={
            "contrast": [contrast.name for contrast in contrasts],
            "preferred": ("contrast", [contrast.preferred for contrast in contrasts]),
            "other": ("contrast", [contrast.other for contrast in contrasts]),
            "n_preferred": ("contrast", [len(contrast.a) for contrast in contrasts]),
            "n_other": ("contrast", [len(contrast.b) for contrast in contrasts]),
            "layer": [layer.name for layer in chosen],
            "n_units": ("layer", sizes),
            "unit_layer": ("unit", np.repeat([layer.name for layer in chosen], sizes)),
            **{
                axis: ("unit", np.concatenate([place[k] for place in places]))
                for k, axis in enumerate(["channel", "y", "x"])
            },
        },
    )
    return describe(
        result,
        "selectivity",
        options,
        {"source": opened.fingerprint(), "labels": fingerprint(label_of)},
        label=name,
        network=str(opened.attrs.get("network", opened.name)),
        measure=options.measure,
        response=_response_words(options, layouts, chosen),
        threshold=threshold,
        shapes={layer.name: list(layouts[layer.name].shape) for layer in chosen},
        n_stimuli=int(np.unique(np.concatenate([contrast.rows for contrast in contrasts])).size),
        n_groups=None if by_group is None else len(np.unique(by_group)),
        n_splits=options.n_splits,
        n_permutations=options.n_permutations,
        alpha=options.alpha,
        correction=options.correction,
        seed=options.seed,
        test="none"
        if not options.n_permutations
        else f"two-sided label permutation test of every unit, {options.n_permutations} permutations with the observed "
        f"labelling; {_CORRECTIONS[options.correction]}",
    )


_CORRECTIONS = {
    "fdr": "false discovery rate over the units of a layer (Benjamini and Hochberg)",
    "holm": "family-wise error over the units of a layer (Holm)",
    "none": "not corrected for the number of units",
}
_LONG = {
    "score": "selectivity",
    "mean_preferred": "mean response to the preferred stimuli",
    "mean_other": "mean response to the other stimuli",
    "p_value": "p of the permutation test, two-sided",
    "p_corrected": "p, corrected over the units of the layer",
    "selective": "1: prefers the first side, -1: the second, 0: neither",
    "share": "share of units selective for the preferred side",
    "share_opposite": "share of units selective for the other side",
    "share_beyond": "share of units with a score of the threshold or more",
    "share_chance": "share of units beyond the threshold under permuted labels",
    "split_half": "Spearman correlation of scores between halves of the stimuli",
    "reliability": "reliability of scores over units (Spearman-Brown)",
    "overlap": "share of the highest fifth that halves have in common",
    "n_undefined": "units without a score",
}


def units_of_selectivity(
    result: xr.Dataset,
    prefer: str | None = None,
    *,
    k: int | None = None,
    fraction: float | None = None,
    threshold: float | None = None,
    layers: Sequence[str] | str | None = None,
) -> UnitSet:
    """Take the units that prefer a class, to lesion or to look at.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`selectivity` returned.
    prefer : str, optional
        The preferred label; either side of a contrast of two (the sign is turned for the second). May be left out
        where the result has one contrast: its first side.
    k : int, optional
        The `k` units with the highest scores, over all layers together.
    fraction : float, optional
        This share of the units of each layer, those with the highest scores (rounded half up), selective or not.
    threshold : float, optional
        All units with at least this score. Without `k`, `fraction` and `threshold`: those that the result calls
        selective.
    layers : str or sequence of str, optional
        Layer names; all by default.

    Returns
    -------
    UnitSet
        By descending score, ties by layer and index. Units without a score are never taken.

    Raises
    ------
    InputError
        If it is not a selectivity result, the label has no contrast, more than one of the three ways is given, or fewer
        units have a score than are asked for.
    LayerError
        If a layer is not in the result.
    """
    if result.attrs.get("analysis") != "selectivity" or "score" not in result:
        raise InputError("this is not a selectivity result; give what actkit.selectivity() returned")
    if sum(way is not None for way in (k, fraction, threshold)) > 1:
        raise InputError(f"k={k}, fraction={fraction}, threshold={threshold}: give one of them")
    row, sign = _row(result, prefer)
    scores = sign * result["score"].values[row]
    owner = result["unit_layer"].values.astype(str)
    names = [str(layer) for layer in result["layer"].values]
    wanted = [layers] if isinstance(layers, str) else names if layers is None else [str(layer) for layer in layers]
    for layer in wanted:
        if layer not in names:
            raise LayerError(f"the result has no layer {layer!r}; {nearest(layer, names)}")
    kept = np.isin(owner, wanted) & ~np.isnan(scores)
    if threshold is not None:
        kept &= scores >= threshold
    elif k is None and fraction is None:
        kept &= sign * result["selective"].values[row] > 0
    chosen = np.flatnonzero(kept)
    side, against = str(result["preferred"].values[row]), str(result["other"].values[row])
    if sign < 0:
        side, against = against, side
    question = (
        f"{_MEASURE_WORDS[str(result.attrs['measure'])]} for {side} against {against} "
        f"({result.attrs['response']}) in {result.attrs['network']}"
    )
    shapes = {name: shape for name, shape in json.loads(result.attrs["shapes"]).items() if name in wanted}
    units = UnitSet(
        layer=owner[chosen],
        channel=result["channel"].values[chosen],
        y=result["y"].values[chosen],
        x=result["x"].values[chosen],
        score=scores[chosen],
        question=question,
        shapes=shapes,
    )
    if fraction is not None:
        return units.top(fraction=fraction)
    return units.top(len(units) if k is None else k)


_MEASURE_WORDS = {
    "index": "selectivity index",
    "d_prime": "selectivity d'",
    "t": "selectivity by Welch's t",
    "cliff_delta": "selectivity by Cliff's delta",
}


def _row(result: xr.Dataset, prefer: str | None) -> tuple[int, int]:
    """The contrast that a label is a side of, and its sign."""
    first = [str(label) for label in result["preferred"].values]
    second = [str(label) for label in result["other"].values]
    if prefer is None:
        if len(first) > 1:
            raise InputError(f"the result has {len(first)} contrasts; say which label to prefer: {', '.join(first)}")
        return 0, 1
    if prefer in first:
        return first.index(prefer), 1
    if prefer in second and len(second) == 1:
        return 0, -1
    known = first + (second if len(second) == 1 else [])
    raise InputError(f"the result has no contrast that prefers {prefer!r}; {nearest(prefer, known)}")


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _response_words(options: SelectivityOptions, layouts: dict[str, Layout], chosen: Sequence[Layer]) -> str:
    """What the response of a unit is."""
    rectified = "rectified " if options.rectify else ""
    if options.reduce == "none" or all(layouts[layer.name].positions == 1 for layer in chosen):
        return f"{rectified}activation of each unit"
    way = {"l2": "l2 norm", "mean": "mean", "max": "maximum"}[options.reduce]
    return f"{way} of the {rectified}activation over each filter's map"


def _of_layer(
    layer: Layer,
    layout: Layout,
    ids: list[str],
    contrasts: Sequence[Contrast],
    threshold: float,
    options: SelectivityOptions,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Everything about the units of one layer: per unit, and for the layer."""
    n_units = layout.channels * (layout.positions if options.reduce == "none" else 1)
    count = len(contrasts)
    budget = parse_bytes(options.memory)
    kept = 8 * count * n_units * options.n_splits  # two float32 a unit and split
    if kept > budget // 2:
        raise InputError(
            f"memory={options.memory!r} is too small for the reliability of the {n_units} units of layer "
            f"{layer.name!r}: {options.n_splits} splits need {format_bytes(2 * kept)}; give that much, fewer n_splits, "
            "or reduce='l2'"
        )
    found = {key: np.full((count, n_units), np.nan) for key in ("score", "mean_preferred", "mean_other", "p_value")}
    halves = np.full((count, options.n_splits, 2, n_units), np.nan, dtype=np.float32)
    beyond = np.zeros(count)
    index = options.measure == "index"
    memory = (budget - kept) // 2
    for start, responses in response_blocks(layer, layout, ids, options.reduce, options.rectify, index, memory):
        columns = slice(start, start + responses.shape[1])
        for c, contrast in enumerate(contrasts):
            a, b = responses[contrast.a], responses[contrast.b]
            scores = score(a, b, options.measure)
            found["score"][c, columns] = scores
            found["mean_preferred"][c, columns] = a.mean(axis=0)
            found["mean_other"][c, columns] = b.mean(axis=0)
            for s, (a1, b1, a2, b2) in enumerate(contrast.halves):
                halves[c, s, 0, columns] = _half(responses, a1, b1, options.measure)
                halves[c, s, 1, columns] = _half(responses, a2, b2, options.measure)
            if contrast.members is not None:
                both = np.concatenate([a, b])
                p, number = _test(both, contrast.members, ~np.isnan(scores), threshold, memory, options.measure)
                found["p_value"][c, columns] = p
                beyond[c] += number
        del responses
    scores, p = found["score"], found["p_value"]
    found["p_corrected"] = np.stack([corrected(row, options.correction) for row in p])
    tested = options.n_permutations > 0
    strong = found["p_corrected"] < options.alpha if tested else np.abs(scores) >= threshold
    found["selective"] = np.where(strong, np.sign(scores), 0).astype(np.int8)
    defined = ~np.isnan(scores)
    reliability = [_reliability(halves[c]) for c in range(count)]
    split_half = np.array([row[0] for row in reliability])
    return found, {
        "share": (found["selective"] > 0).mean(axis=1),
        "share_opposite": (found["selective"] < 0).mean(axis=1),
        "share_beyond": (scores >= threshold).mean(axis=1),
        "share_chance": beyond / n_units if tested else np.full(count, np.nan),
        "split_half": split_half,
        "reliability": np.where(split_half > 0, 2 * split_half / (1 + np.abs(split_half)), split_half),
        "overlap": np.array([row[1] for row in reliability]),
        "n_undefined": (~defined).sum(axis=1),
    }


def _half(responses: np.ndarray, a: np.ndarray, b: np.ndarray, measure: Measure) -> np.ndarray:
    """Scores from some of the stimuli; NaN where a side has too few."""
    if min(len(a), len(b)) < LEAST[measure]:
        return np.full(responses.shape[1], np.nan)
    return score(responses[a], responses[b], measure)


def _test(
    responses: np.ndarray, members: np.ndarray, defined: np.ndarray, threshold: float, memory: int, measure: Measure
) -> tuple[np.ndarray, float]:
    """Two-sided p of each unit, and how many units exceed the threshold under a permutation on average."""
    many = ManyLabellings(responses, measure)
    observed = many(members[:1])[0]
    bar = np.abs(observed) * (1 - _ROUNDING) - 1e-12  # relabellings that change nothing differ by rounding
    reached = np.zeros(responses.shape[1])
    beyond = 0.0
    step = max(1, memory // (8 * 8 * max(responses.shape)))
    for start in range(0, len(members), step):
        scores = many(members[start : start + step])
        # A labelling that leaves too few stimuli on a side has no score, and must not speak for the observed one.
        reached += (~(np.abs(scores) < bar)).sum(axis=0)
        beyond += float((scores[:, defined] >= threshold).sum())
    return np.where(defined, reached / len(members), np.nan), beyond / len(members)


def _reliability(halves: np.ndarray) -> tuple[float, float]:
    """Rank correlation and overlap of the highest fifth between two halves, means over splits."""
    correlations, overlaps = [], []
    for first, second in halves:
        both = ~np.isnan(first) & ~np.isnan(second)
        n = int(both.sum())
        if n < 3:
            continue
        ranks = stats.rankdata(np.stack([first[both], second[both]]), axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        norm = np.sqrt((ranks**2).sum(axis=1).prod())
        if norm > 0:
            correlations.append(float(ranks[0] @ ranks[1] / norm))
        top = max(1, int(_TOP * n + 0.5))
        best = [set(np.argsort(-row, kind="stable")[:top].tolist()) for row in ranks]
        overlaps.append(len(best[0] & best[1]) / top)
    return (
        float(np.mean(correlations)) if correlations else np.nan,
        float(np.mean(overlaps)) if overlaps else np.nan,
    )


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw scores and shares by layer; see :func:`actkit.analyses.selectivity_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`selectivity` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import selectivity_plot

    return selectivity_plot.plot(result, **settings)
