"""Two matches of the same neurons, compared neuron by neuron: a trained network and its untrained twin, say."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint
from actkit.statistics import corrected

__all__ = ["MatchComparisonOptions", "compare_matches"]

Score = Literal["r_mean", "r_corrected"]


class MatchComparisonOptions(Options):
    """Options of :func:`compare_matches`."""

    score: Score | None = Field(
        None,
        description="Held-out correlation, or the one divided by the square root of the reliability; the latter where "
        "both matches have it.",
    )
    n_draws: int = Field(9999, ge=99, description="Bootstrap samples of neurons, and random signs of the differences.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of both.")


@with_options(MatchComparisonOptions)
def compare_matches(first: xr.Dataset, second: xr.Dataset, *, options: MatchComparisonOptions) -> xr.Dataset:
    """Compare two matches of the same neurons over the same folds, layer by layer.

    Differences are the first match less the second. The test exchanges the two scores of a neuron at random, which
    flips the sign of its difference: two-sided, with the observed exchange among the draws. Interval and test take
    neurons as independent; neurons of one array share signals, so both are of this population, not of animals.

    Parameters
    ----------
    first, second : xarray.Dataset
        What ``match_units`` returned for two networks, with the same neurons, stimuli, folds (seed), layers and
        assignment.

    Returns
    -------
    xarray.Dataset
        ``first`` and ``second`` (layer, neuron), the scores; ``difference`` (layer, neuron). By layer: the medians
        over neurons ``median_first`` and ``median_second``; ``median_difference``, the difference of these medians,
        and ``mean_difference``, the mean over neurons of the differences, each with ``_low`` and ``_high``, its 95 %
        percentile bootstrap interval over neurons; ``p_median`` and ``p_mean``, their two-sided p-values, and
        ``p_median_corrected`` and ``p_mean_corrected``, false discovery rate over layers; ``n_used``, neurons that
        have both scores.

    Raises
    ------
    InputError
        If they are not matching results, or differ in neurons, stimuli, folds, layers, assignment or reliabilities;
        if the score is asked for and missing; if fewer than two neurons have both scores.
    """
    _check(first, second)
    score = options.score or ("r_corrected" if "r_corrected" in first and "r_corrected" in second else "r_mean")
    for number, one in (("first", first), ("second", second)):
        if score not in one:
            raise InputError(
                f"score={score!r}: the {number} match has no noise-corrected correlations; give reliability= to "
                "match_units(), or use score='r_mean'"
            )
    scores = [one[score].transpose("layer", "neuron").values.astype(float) for one in (first, second)]
    return describe(
        _result(scores[0], scores[1], first, options),
        "match_comparison",
        options,
        {"first": fingerprint(first[score]), "second": fingerprint(second[score])},
        score=score,
        first=_name(first, second, "first"),
        second=_name(second, first, "second"),
        **{
            key: first.attrs.get(key)
            for key in ("recording", "region", "subject", "assignment", "splitting", "n_stimuli")
        },
        n_neurons=first.sizes["neuron"],
        n_draws=options.n_draws,
        seed=options.seed,
    )


def _name(one: xr.Dataset, other: xr.Dataset, place: str) -> str:
    """Name a match by its network, if that tells it from the other."""
    name = str(one.attrs.get("network", place))
    return f"{name} ({place})" if name == str(other.attrs.get("network", "")) else name


def _check(first: xr.Dataset, second: xr.Dataset) -> None:
    """Refuse matches that have no pairs."""
    for number, one in (("first", first), ("second", second)):
        if "r_mean" not in one or "fold_of_stimulus" not in one.coords:
            raise InputError(f"the {number} is not a matching result (r_mean); give what match_units() returned")
    for what, cure in (
        ("neuron", "match the same recording, or select the neurons that both have"),
        ("stimulus", "match over the same stimuli"),
        ("layer", "choose the same layers, or rename them with .assign_coords(layer=...) where they correspond"),
        ("fold_of_stimulus", "match both with the same folds, groups, labels and seed"),
    ):
        if not np.array_equal(first[what].values, second[what].values):
            raise InputError(f"the two matches differ in {what}, so their scores are no pairs; {cure}")
    if first.attrs.get("assignment") != second.attrs.get("assignment"):
        raise InputError(
            f"one match has assignment={first.attrs.get('assignment')!r} and the other "
            f"{second.attrs.get('assignment')!r}, whose scores differ by themselves; match both alike"
        )
    if "reliability" in first and "reliability" in second:
        rho = [one["reliability"].values for one in (first, second)]
        if not np.allclose(rho[0], rho[1], equal_nan=True):
            raise InputError(
                "the two matches were given different reliabilities of the same neurons; give both the same"
            )


_WORDS = {
    "first": "score of the first match",
    "second": "score of the second match",
    "difference": "first less second, by neuron",
    "median_first": "median over neurons, first match",
    "median_second": "median over neurons, second match",
    "median_difference": "difference of the medians over neurons",
    "mean_difference": "mean over neurons of the differences",
    "p_median": "p of the difference of medians, two-sided, scores of a neuron exchanged",
    "p_mean": "p of the mean difference, two-sided, sign flips",
    "p_median_corrected": "p of the difference of medians, false discovery rate over layers",
    "p_mean_corrected": "p of the mean difference, false discovery rate over layers",
    "n_used": "neurons with both scores",
}


def _result(a: np.ndarray, b: np.ndarray, first: xr.Dataset, options: MatchComparisonOptions) -> xr.Dataset:
    """Differences, intervals and tests, layer by layer."""
    names = ("median_first", "median_second", "median_difference", "mean_difference", "p_median", "p_mean")
    bounds = ("median_difference_low", "median_difference_high", "mean_difference_low", "mean_difference_high")
    column: dict[str, np.ndarray] = {name: np.full(len(a), np.nan) for name in (*names, *bounds)}
    used = np.zeros(len(a), dtype=np.int64)
    for k in range(len(a)):
        known = np.isfinite(a[k]) & np.isfinite(b[k])
        used[k] = int(known.sum())
        if used[k] < 2:
            raise InputError(
                f"layer {first['layer'].values[k]!r}: {used[k]} neurons have both scores, and a comparison needs two; "
                "leave the layer out, or use score='r_mean'"
            )
        x, y = a[k, known], b[k, known]
        column["median_first"][k], column["median_second"][k] = np.median(x), np.median(y)
        column["median_difference"][k] = np.median(x) - np.median(y)
        column["mean_difference"][k] = (x - y).mean()

        drawn = generator(options.seed, 0, Stream.SUBJECTS).integers(0, len(x), size=(options.n_draws, len(x)))
        medians = np.median(x[drawn], axis=1) - np.median(y[drawn], axis=1)
        both = np.stack([medians, (x - y)[drawn].mean(axis=1)], axis=1)
        low, high = np.quantile(both, [0.025, 0.975], axis=0)
        column["median_difference_low"][k], column["mean_difference_low"][k] = low
        column["median_difference_high"][k], column["mean_difference_high"][k] = high
        column["p_median"][k], column["p_mean"][k] = _exchange_p(x, y, options.n_draws, options.seed)
    data: dict[str, tuple[tuple[str, ...], Any]] = {
        "first": (("layer", "neuron"), a),
        "second": (("layer", "neuron"), b),
        "difference": (("layer", "neuron"), a - b),
        **{name: (("layer",), values) for name, values in column.items()},
        "p_median_corrected": (("layer",), corrected(column["p_median"], "fdr")),
        "p_mean_corrected": (("layer",), corrected(column["p_mean"], "fdr")),
        "n_used": (("layer",), used),
    }
    ends = {"low": "2.5 % point of the bootstrap over neurons", "high": "97.5 % point of the bootstrap over neurons"}
    words = {**_WORDS, **{name: f"{name.rpartition('_')[0]}, {ends[name.rpartition('_')[2]]}" for name in bounds}}
    return xr.Dataset(
        {name: (dims, values, {"long_name": words[name], "units": "1"}) for name, (dims, values) in data.items()},
        coords={"layer": first["layer"].values, "neuron": first["neuron"].values},
    )


def _exchange_p(x: np.ndarray, y: np.ndarray, n_draws: int, seed: int) -> tuple[float, float]:
    """Two-sided p of the difference of medians and of the mean difference, scores exchanged within neurons."""
    swap = generator(seed, 0, Stream.PERMUTATIONS).integers(0, 2, size=(n_draws, len(x))).astype(bool)
    one, other = np.where(swap, y, x), np.where(swap, x, y)
    medians = np.median(one, axis=1) - np.median(other, axis=1)
    means = (one - other).mean(axis=1)
    tiny = 1e-12  # an exchange of equal scores is a tie, whatever the rounding
    median, mean = abs(np.median(x) - np.median(y)) - tiny, abs((x - y).mean()) - tiny
    beyond = (np.abs(medians) >= median).sum(), (np.abs(means) >= mean).sum()
    return float((1 + beyond[0]) / (1 + n_draws)), float((1 + beyond[1]) / (1 + n_draws))
