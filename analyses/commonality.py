"""Commonality analysis: what sets of RDMs explain of the subjects' RDMs alone, and what they share.

The variance of a subject's RDM that several sets explain together (a network's layers, category models, pixels) is
divided into 2^k − 1 parts: one for every combination of sets, explained by all of these and by none of the others.
Everything follows from the R² of regressions on the unions of sets, and those from bilinear forms, on every draw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import ceilings, forms
from actkit.analyses.noise_ceiling import check_data, check_variation
from actkit.analyses.partial import explained
from actkit.analyses.unique_variance import unique_test
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, align_rdms, leading_dim, validate_rdms
from actkit.resampling import Stream, bootstrap_weights
from actkit.results import describe, fingerprint
from actkit.statistics import (
    corrected,
    small_sample,
    standard_error,
    t_interval,
    two_factor_variance,
    variance_over_draws,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["spearman", "pearson", "cosine", "whitened-pearson", "whitened-cosine"]

_MOST_SETS = 4
_FEW_SUBJECTS = 6
_DRAW_BLOCK = 250  # draws whose forms are kept at a time; fixed, so that results do not depend on the machine
_LEVEL = 0.95
_TARGETS = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}
_TEST = (
    "permutation test of the unique part of each set (what the other sets leave of its RDMs, shuffled over stimuli), "
    "one-sided, {n} permutations with the observed order, Holm's correction over {k} sets; it generalises to "
    "relabelled stimuli of these subjects"
)
_LIBERAL = (
    ". With ranks and sets that overlap it finds somewhat too much (.08 to .10 at .05 in simulations); Pearson does not"
)


class CommonalityOptions(Options):
    """Options of :func:`commonality`."""

    compare: Measure = Field(
        "spearman",
        description="What variance means: of ranks (spearman), of dissimilarities around their mean (pearson) or "
        "around zero (cosine), or the last two in the metric that corrects for the dependence of pairs (whitened).",
    )
    generalise_to: Literal["auto", "stimulus", "subject", "both"] = Field(
        "auto",
        description="What the intervals speak of: new stimuli, new subjects or both; 'auto' takes stimuli with fewer "
        "than 6 subjects and subjects otherwise.",
    )
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws over stimuli (and subjects, for 'both').")
    n_permutations: int = Field(
        1000,
        ge=0,
        description="Permutations of the stimuli that test the unique parts, the observed order included; 0: no test.",
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of all draws and permutations.")


@dataclass(frozen=True)
class _Sets:
    """Sets of predictors in one array, and all combinations of sets, small ones first."""

    names: list[str]
    vectors: np.ndarray  # (predictors, pairs)
    of: np.ndarray  # (predictors,) number of the set

    @property
    def combinations(self) -> list[tuple[int, ...]]:
        k = range(len(self.names))
        return [chosen for size in range(1, len(self.names) + 1) for chosen in combinations(k, size)]

    def rows(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Predictors of a union of sets."""
        return np.flatnonzero(np.isin(self.of, chosen))


@with_options(CommonalityOptions)
def commonality(sets: Mapping[str, xr.Dataset], data: xr.Dataset, *, options: CommonalityOptions) -> xr.Dataset:
    """Divide the explained variance of subjects' RDMs among sets of model RDMs.

    For each subject s and each union T of sets, R²_T is the share of variance that the best mixture of all RDMs in T
    explains (least squares, weights of either sign, fitted to that subject). The part that belongs to a combination A
    of sets, and to no other, is

        C_A = Σ over B ⊆ A of (−1)^(|B| + 1) R²(Aᶜ ∪ B)

    with Aᶜ the other sets. For a single set that is its unique variance, R²(all) − R²(all others); the parts add up to
    R²(all).

    A shared part can be negative (suppression): together the sets then explain more than the sum of what each explains
    alone, because one accounts for what disturbs the other. Negative parts are kept.

    R² is measured on the stimuli to which the weights were fitted. It cannot be negative, and grows with the number of
    RDMs in a set, for unrelated ones too. Hence no interval is a test against zero. Whether a set explains more than
    unrelated RDMs would is tested by permutation: what the other sets leave of its RDMs is shuffled over stimuli
    (double semi-partialling); ``unique_chance`` is what such RDMs explain. The test keeps its level for the Pearson
    measures; with ranks, whose relations are seldom linear, overlapping sets are found somewhat too often (in 8 to 10 %
    of simulated cases at .05): test with ``compare="pearson"`` or a whitened measure.

    Parameters
    ----------
    sets : mapping of name to xarray.Dataset
        One to four sets, each an RDM dataset of one RDM or more, such as ``{"network": actkit.rdm(store), "categories":
        category_rdms(…)}``.
    data : xarray.Dataset
        RDM dataset along ``subject``. Stimuli are matched by id.

    Returns
    -------
    xarray.Dataset
        Dims ``component`` (combinations of sets, in the order of their size), ``subset`` (unions of sets), ``set``,
        ``subject`` and ``draw``:

        - ``variance`` (component, subject): C_A; ``mean``, ``error``, ``interval_low``, ``interval_high`` (component);
        - ``r_squared`` (subset, subject), with ``r_squared_mean``, ``r_squared_error``, ``r_squared_low``,
          ``r_squared_high`` (subset), of which the last subset is the total;
        - ``ceiling_lower``, ``ceiling_upper``: means over subjects of the squared noise ceilings, between which a
          perfect model with the same weights for everyone would explain. Weights fitted to each subject can pass them;
        - ``p_unique`` (set): one-sided permutation test of the unique part (mean over subjects), corrected over sets by
          Holm's rule, ``p_unique_uncorrected`` and ``unique_chance`` (set), the mean over permutations. It generalises
          to relabelled stimuli of these subjects;
        - ``member`` (component, set), ``n_rdms`` (set);
        - ``draw_mean`` (draw, component): the mean over subjects on each draw of stimuli, of subjects or of both.

        The attribute ``negative`` (JSON) names components with a mean below zero.

    Raises
    ------
    InputError
        If there are no sets or more than four, stimuli differ, an RDM has missing pairs or does not vary (naming it),
        there are as many model RDMs as pairs of stimuli, or too few subjects or draws for the intervals.

    References
    ----------
    Newton & Spurrell (1967), A development of multiple regression for the analysis of routine data, Applied Statistics
    16; Nimon, Lewis, Kane & Haynes (2008), An R package to compute commonality coefficients in the multiple regression
    case, Behavior Research Methods 40; Dekker, Krackhardt & Snijders (2007), Sensitivity of MRQAP tests to collinearity
    and autocorrelation conditions, Psychometrika 72; Hebart, Bankson, Harel, Baker & Cichy (2018), The
    representational dynamics of task and object processing in humans, eLife 7 (of RDMs).
    """
    subjects = check_data(data)
    check_variation(subjects, options.compare)
    gathered, inputs = _gather(sets, subjects, options)
    n_stimuli, n_subjects = subjects.sizes["stimulus"], subjects.sizes["subject"]
    target, reason = _target(options, n_subjects)
    observed = subjects[VARIABLE].values.astype(np.float64)

    r_squared = _regressions(gathered, observed, None, options)[0]  # (subsets, subjects)
    parts = _matrix(gathered)  # (components, subsets)
    variance = parts @ r_squared
    draws = _draws(gathered, observed, r_squared, target, options, n_stimuli, n_subjects)
    columns = {"component": parts, "subset": np.eye(len(parts))}
    summary = {dim: _summary(by @ r_squared, by, draws, target, n_stimuli, n_subjects) for dim, by in columns.items()}

    lower, upper = ceilings(observed, options.compare)
    chosen = gathered.combinations
    units = {"units": "1"}
    result = xr.Dataset(
        {
            "variance": (("component", "subject"), variance, {"long_name": "share of variance", **units}),
            **_named("component", "", "share of variance", summary["component"]),
            "r_squared": (("subset", "subject"), r_squared, {"long_name": "explained variance R²", **units}),
            **_named("subset", "r_squared_", "explained variance R²", summary["subset"]),
            "ceiling_lower": ((), float(_square(lower)), {"long_name": "lower noise ceiling, squared", **units}),
            "ceiling_upper": ((), float(_square(upper)), {"long_name": "upper noise ceiling, squared", **units}),
            "member": (
                ("component", "set"),
                np.array([[number in one for number in range(len(gathered.names))] for one in chosen]),
            ),
            "n_rdms": ("set", np.bincount(gathered.of, minlength=len(gathered.names)), {"units": "1"}),
            "draw_mean": (
                ("draw", "component"),
                draws[target] @ parts.T,
                {"long_name": "share of variance on each draw", **units},
            ),
        },
        coords={
            "component": [_component(gathered.names, one) for one in chosen],
            "subset": [" + ".join(gathered.names[number] for number in one) for one in chosen],
            "set": gathered.names,
            "subject": subjects["subject"].values,
            "draw": np.arange(options.n_draws),
        },
    )
    result = result.assign(_tests(gathered, observed, options))
    negative = result["component"].values[result["mean"].values < 0].tolist()
    return describe(
        result,
        "commonality",
        options,
        {**inputs, "data": fingerprint(data)},
        compare=options.compare,
        data=str(data.attrs.get("name", "unnamed")),
        simulated=bool(data.attrs.get("simulated", False)),
        generalise_to=target,
        generalise_to_reason=reason,
        n_subjects=n_subjects,
        n_stimuli=n_stimuli,
        n_draws=options.n_draws,
        n_draws_degenerate=int(np.isnan(draws[target]).any(axis=1).sum()),
        seed=options.seed,
        interval=f"{_LEVEL:.0%} t interval with {_dof(target, n_stimuli, n_subjects)} degrees of freedom",
        negative=json.dumps(negative),
        test=_test_words(options, len(gathered.names)),
    )


def _gather(
    sets: Mapping[str, xr.Dataset], data: xr.Dataset, options: CommonalityOptions
) -> tuple[_Sets, dict[str, str]]:
    """Bring all sets to the data's stimuli, in one array, with their fingerprints."""
    if isinstance(sets, xr.Dataset) or not isinstance(sets, Mapping):
        raise InputError(
            "sets must have names, which label what is shared; give a mapping such as {'network': rdms, 'categories': "
            "models}"
        )
    if not 1 <= len(sets) <= _MOST_SETS:
        raise InputError(
            f"{len(sets)} sets of RDMs make {2 ** len(sets) - 1} parts, which nobody can read; give 1 to {_MOST_SETS} "
            "sets, and put RDMs that belong together into one (recordings.concatenate_rdms)"
        )
    vectors, of, inputs = [], [], {}
    for number, (name, rdms) in enumerate(sets.items()):
        validate_rdms(rdms)
        aligned = align_rdms(data, rdms)[1]
        values = aligned[VARIABLE].values.astype(np.float64)
        dim = leading_dim(rdms)
        for label, vector in zip(rdms[dim].values, values, strict=True):
            if np.isnan(vector).any():
                raise InputError(
                    f"set {str(name)!r}: the RDM {str(label)!r} lacks {int(np.isnan(vector).sum())} pairs, so no "
                    "regression can use it; leave it out with .sel(), or choose other stimuli with select_stimuli()"
                )
            flat = not vector.any() if options.compare.endswith("cosine") else vector.min() == vector.max()
            if flat:
                raise InputError(
                    f"set {str(name)!r}: the RDM {str(label)!r} is the same for all pairs, so it explains nothing; "
                    "leave it out with .sel()"
                )
        vectors.append(values)
        of += [number] * len(values)
        inputs[f"set: {name}"] = fingerprint(rdms)
    gathered = _Sets([str(name) for name in sets], np.concatenate(vectors), np.array(of))
    if len(gathered.of) + 1 >= gathered.vectors.shape[1]:
        raise InputError(
            f"{len(gathered.of)} model RDMs explain {gathered.vectors.shape[1]} pairs perfectly, whatever they are; "
            "give fewer RDMs (one for each idea) or more stimuli"
        )
    return gathered, inputs


def _target(options: CommonalityOptions, n_subjects: int) -> tuple[Literal["stimulus", "subject", "both"], str]:
    """Settle what to generalise to, and say why."""
    asked = options.generalise_to
    if asked == "auto":
        target: Literal["stimulus", "subject", "both"] = "stimulus" if n_subjects < _FEW_SUBJECTS else "subject"
        reason = f"chosen automatically for {n_subjects} subject{'s' if n_subjects != 1 else ''}: {_TARGETS[target]}"
    else:
        target, reason = asked, f"asked for: {_TARGETS[asked]}"
    if target != "stimulus" and n_subjects < 2:
        raise InputError(
            f"cannot generalise to subjects from {n_subjects} subject: there is no variation between subjects; "
            "use generalise_to='stimulus'"
        )
    if target != "subject" and options.n_draws < 2:
        raise InputError(
            f"n_draws={options.n_draws} gives no variance over stimuli; use 1000, or generalise_to='subject'"
        )
    return target, reason


def _dof(target: str, n_stimuli: int, n_subjects: int) -> int:
    """Degrees of freedom of the interval."""
    return {"stimulus": n_stimuli, "subject": n_subjects, "both": min(n_stimuli, n_subjects)}[target] - 1


def _regressions(
    gathered: _Sets, observed: np.ndarray, weights: np.ndarray | None, options: CommonalityOptions
) -> np.ndarray:
    """R² of every union of sets, ``(draws, subsets, subjects)``; one draw without weights."""
    n_models, n_subjects = len(gathered.vectors), len(observed)
    made = forms(np.concatenate([gathered.vectors, observed]), weights, options.compare)
    people = np.arange(n_models, n_models + n_subjects)
    found = np.stack([explained(made, gathered.rows(one), people) for one in gathered.combinations], axis=1)
    if weights is not None:
        # As many predictors as pairs explain everything: such a draw says nothing.
        distinct = np.count_nonzero(weights, axis=1)
        found[distinct * (distinct - 1) // 2 <= n_models + 1] = np.nan
    return found


def _tests(gathered: _Sets, observed: np.ndarray, options: CommonalityOptions) -> dict[str, Any]:
    """Variables of the permutation tests of all unique parts."""
    if not options.n_permutations:
        return {}
    found = [
        unique_test(
            gathered.vectors[gathered.of != number],
            gathered.vectors[gathered.of == number],
            observed,
            options.compare,
            options.n_permutations,
            options.seed,
        )
        for number in range(len(gathered.names))
    ]
    p_values = np.array([p for _, _, p in found])
    about = {"units": "1"}
    return {
        "p_unique": ("set", corrected(p_values, "holm"), {"long_name": "p of the unique part (Holm)", **about}),
        "p_unique_uncorrected": ("set", p_values, {"long_name": "p of the unique part, uncorrected", **about}),
        "unique_chance": (
            "set",
            np.array([chance for _, chance, _ in found]),
            {"long_name": "unique part of shuffled RDMs", **about},
        ),
    }


def _test_words(options: CommonalityOptions, n_sets: int) -> str:
    """Say what the p-values test."""
    if not options.n_permutations:
        return "none (n_permutations=0)"
    words = _TEST.format(n=options.n_permutations, k=n_sets)
    return words + (_LIBERAL if options.compare == "spearman" and n_sets > 1 else "")


def _matrix(gathered: _Sets) -> np.ndarray:
    """The signs with which R² of unions make up the parts, ``(components, subsets)``."""
    chosen = gathered.combinations
    where = {one: number for number, one in enumerate(chosen)}
    matrix = np.zeros((len(chosen), len(chosen)))
    for row, part in enumerate(chosen):
        others = tuple(number for number in range(len(gathered.names)) if number not in part)
        for size in range(len(part) + 1):
            for inside in combinations(part, size):
                union = tuple(sorted(others + inside))
                if union:  # no set at all explains nothing
                    matrix[row, where[union]] += (-1) ** (size + 1)
    return matrix


def _draws(
    gathered: _Sets,
    observed: np.ndarray,
    r_squared: np.ndarray,
    target: str,
    options: CommonalityOptions,
    n_stimuli: int,
    n_subjects: int,
) -> dict[str, np.ndarray]:
    """Subject-mean R² of every union on the draws that the target needs, ``(draws, subsets)`` each."""
    share = bootstrap_weights(n_subjects, options.n_draws, options.seed, stream=Stream.SUBJECTS) / n_subjects
    means = {"subject": share @ r_squared.T}
    if target == "subject":
        return means
    drawn = np.empty((options.n_draws, *r_squared.shape))
    for start, stop in spans(options.n_draws, _DRAW_BLOCK):
        weights = bootstrap_weights(n_stimuli, stop - start, options.seed, start)
        drawn[start:stop] = _regressions(gathered, observed, weights, options)
    return means | {"stimulus": drawn.mean(axis=2), "both": np.einsum("dts,ds->dt", drawn, share)}


def _summary(
    values: np.ndarray, by: np.ndarray, draws: dict[str, np.ndarray], target: str, n_stimuli: int, n_subjects: int
) -> tuple[np.ndarray, ...]:
    """Mean over subjects, standard error and interval of rows that are the combinations `by` of R²."""
    mean = values.mean(axis=1)
    spread = {name: variance_over_draws(means @ by.T) for name, means in draws.items() if len(means)}
    if target == "subject":
        error = standard_error(values)
    elif target == "stimulus":
        error = np.sqrt(small_sample(spread["stimulus"], n_stimuli))
    else:
        error = np.sqrt(
            two_factor_variance(spread["both"], spread["subject"], spread["stimulus"], n_subjects, n_stimuli)
        )
    return mean, error, *t_interval(mean, error, _dof(target, n_stimuli, n_subjects), _LEVEL)


def _named(dim: str, prefix: str, words: str, summary: tuple[np.ndarray, ...]) -> dict[str, Any]:
    """Variables of a summary."""
    bounds = ("low", "high") if prefix else ("interval_low", "interval_high")
    long_names = (
        f"mean {words} over subjects",
        "standard error",
        f"{_LEVEL:.0%} interval, lower limit",
        f"{_LEVEL:.0%} interval, upper limit",
    )
    names = (f"{prefix}mean", f"{prefix}error", *(f"{prefix}{bound}" for bound in bounds))
    return {
        name: (dim, values, {"long_name": text, "units": "1"})
        for name, values, text in zip(names, summary, long_names, strict=True)
    }


def _square(ceiling: np.ndarray) -> np.ndarray:
    """Mean square of a ceiling, negative where the ceiling is: disagreement is no agreement."""
    return np.mean(ceiling * np.abs(ceiling))


def _component(names: list[str], chosen: tuple[int, ...]) -> str:
    """Name a part."""
    if len(names) == 1:
        return names[0]
    return f"{names[chosen[0]]} only" if len(chosen) == 1 else " & ".join(names[number] for number in chosen)


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw unique and shared parts; see :func:`actkit.analyses.commonality_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`commonality` returned.
    **settings
        Settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import commonality_plot

    return commonality_plot.plot(result, **settings)
