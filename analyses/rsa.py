"""Representational similarity analysis: one entry point from model RDMs and subjects' RDMs to scores with inference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import Compare, permuted_scores, resampled_scores, scores
from actkit.analyses.noise_ceiling import ceiling_note, ceiling_variables, check_data, check_variation
from actkit.compute import progress as progress_bar
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, align_rdms, leading_dim, validate_rdms
from actkit.resampling import Stream, bootstrap_weights, permutations
from actkit.results import describe, fingerprint
from actkit.statistics import (
    MaximumStatistic,
    small_sample,
    standard_error,
    t_interval,
    two_factor_variance,
    variance_over_draws,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Generalise = Literal["auto", "stimulus", "subject", "both"]
Models = xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset]

# With fewer subjects, a standard error over subjects says little.
_FEW_SUBJECTS = 6
_PERMUTATION_BLOCK = 500
_LEVEL = 0.95
_FAMILY = {"layer": "layers", "model": "models", "control": "controls"}


class RsaOptions(Options):
    """Options of :func:`rsa`."""

    compare: Compare = Field("spearman", description="Measure that compares a model RDM with a subject's RDM.")
    generalise_to: Generalise = Field(
        "auto",
        description="What the error bars speak of: new stimuli, new subjects or both; "
        "'auto' takes stimuli with fewer than 6 subjects and subjects otherwise.",
    )
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws over stimuli (and subjects, for 'both').")
    n_permutations: int = Field(
        10_000, ge=0, description="Permutations of the stimulus labels, the observed labelling included; 0: no test."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of all draws and permutations.")


@dataclass(frozen=True)
class _Candidates:
    """All model RDMs of an analysis in one array, with what describes each."""

    vectors: np.ndarray  # (models, pairs)
    labels: list[str]
    network: list[str]
    layer: list[str]
    kind: list[str]
    position: list[int]

    @property
    def family(self) -> np.ndarray:
        return np.array([_FAMILY[kind] for kind in self.kind])


@with_options(RsaOptions)
def rsa(models: Models, data: xr.Dataset, progress: bool | None = None, *, options: RsaOptions) -> xr.Dataset:
    """Compare model RDMs with the RDMs of subjects: scores, noise ceilings, errors, intervals and a test.

    Scores compare each model with each subject. Stimuli are matched by id. A bootstrap over stimuli weighs pairs by the
    product of their multiplicities, so that copies of a stimulus never form a pair; the error over subjects is the
    standard error of the mean; for both, the two-factor correction combines them. The test permutes the stimulus labels
    (one-sided: the subject-mean score is larger than with shuffled labels) and is corrected by the maximum over each
    family: all layers of all networks are one family, category and other fixed models another, controls a third.

    Parameters
    ----------
    models : xarray.Dataset, list or mapping of them
        RDM datasets. Along ``layer`` they are the layers of a network, named by the mapping's key or the dataset's
        attribute ``network`` or ``name``; along any other dim they are fixed models. The attribute ``kind="control"``
        marks controls (pixels, Gabor filters).
    data : xarray.Dataset
        RDM dataset along ``subject``.
    progress : bool, optional
        Show a bar over the permutations; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims model, subject and draw, with the variables

        - ``score`` (model, subject), ``mean`` (model);
        - ``sem_subject``, ``sem_stimulus`` (model), and ``error`` (model), the one that ``generalise_to`` selects;
        - ``interval_low``, ``interval_high`` (model): 95 % t interval around the mean;
        - ``p_value`` (model) corrected within its family, ``p_uncorrected`` (model);
        - ``ceiling_lower``, ``ceiling_upper`` and both for each subject, from the full data;
        - ``draw_mean`` (draw, model): subject-mean scores on the draws behind the error;
        - ``draws_used`` (model): draws on which all scores are defined.

        Coordinates along model: ``network``, ``layer``, ``kind``, ``family``, ``position`` (depth within the network).

        A model RDM with missing pairs (a dead layer) or without variation has no score: it is NaN throughout and is
        named in the attribute ``undefined`` (JSON). A draw in which some score is undefined (fewer than three distinct
        stimuli, or drawn dissimilarities that are all equal) is left out for that model; ``n_draws_degenerate`` counts
        the draws that any model lost.

    Raises
    ------
    InputError
        If stimuli differ, names repeat, a subject has missing pairs or a constant RDM, or there are too few subjects to
        generalise to subjects.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008), Frontiers in Systems Neuroscience 2; Schütt, Kipnis, Diedrichsen &
    Kriegeskorte (2023), Statistical inference on representational geometries, eLife 12; Nichols & Holmes (2002),
    Nonparametric permutation tests for functional neuroimaging, Human Brain Mapping 15.
    """
    subjects = check_data(data)
    check_variation(subjects, options.compare)
    candidates, inputs = _gather(models, subjects)
    observed = subjects[VARIABLE].values.astype(np.float64)
    n_stimuli, n_subjects = subjects.sizes["stimulus"], subjects.sizes["subject"]
    target, reason = _generalisation(options, n_subjects)

    score = scores(candidates.vectors, observed, options.compare)
    mean = score.mean(axis=1)
    draws = _Draws.make(
        candidates.vectors,
        observed,
        score,
        bootstrap_weights(n_stimuli, options.n_draws, options.seed),
        bootstrap_weights(n_subjects, options.n_draws, options.seed, stream=Stream.SUBJECTS),
        options.compare,
    )
    sem_subject = standard_error(score)
    sem_stimulus = np.sqrt(small_sample(draws.variance("stimulus"), n_stimuli))
    if target == "subject":
        error, dof = sem_subject, n_subjects - 1
    elif target == "stimulus":
        error, dof = sem_stimulus, n_stimuli - 1
    else:
        error, dof = np.sqrt(draws.two_factor(n_subjects, n_stimuli)), min(n_subjects, n_stimuli) - 1
    low, high = t_interval(mean, error, dof, _LEVEL)
    p_value, p_uncorrected = _permutation_test(candidates, observed, mean, n_stimuli, options, progress)

    result = xr.Dataset(
        {
            "score": (("model", "subject"), score, _about(f"{options.compare} with each subject")),
            "mean": ("model", mean, _about(f"mean {options.compare} over subjects")),
            "sem_subject": ("model", sem_subject, _about("standard error over subjects")),
            "sem_stimulus": ("model", sem_stimulus, _about("standard error over stimuli (bootstrap)")),
            "error": ("model", error, _about(f"standard error, generalising to {_WORDS[target]}")),
            "interval_low": ("model", low, _about("95 % interval, lower limit")),
            "interval_high": ("model", high, _about("95 % interval, upper limit")),
            "p_value": ("model", p_value, _about("p, corrected within its family (one-sided)")),
            "p_uncorrected": ("model", p_uncorrected, _about("p, uncorrected (one-sided)")),
            "draws_used": ("model", draws.used(target), _about("bootstrap draws with defined scores")),
            "draw_mean": (("draw", "model"), draws.means[target], _about("subject-mean score on each draw")),
        },
        coords={
            "model": ("model", candidates.labels),
            "network": ("model", candidates.network),
            "layer": ("model", candidates.layer),
            "kind": ("model", candidates.kind),
            "family": ("model", candidates.family),
            "position": ("model", np.array(candidates.position, dtype=np.int64)),
            "subject": ("subject", subjects["subject"].values),
            "draw": ("draw", np.arange(options.n_draws)),
        },
    ).merge(ceiling_variables(subjects, options.compare))
    undefined = [label for label, value in zip(candidates.labels, mean, strict=True) if np.isnan(value)]
    return describe(
        result,
        "rsa",
        options,
        {**inputs, "data": fingerprint(data)},
        compare=options.compare,
        generalise_to=target,
        generalise_to_reason=reason,
        data=str(data.attrs.get("name", "unnamed")),
        simulated=bool(data.attrs.get("simulated", False)),
        n_subjects=n_subjects,
        n_stimuli=n_stimuli,
        n_draws=options.n_draws,
        n_draws_degenerate=draws.degenerate(target),
        n_permutations=options.n_permutations,
        seed=options.seed,
        dof=dof,
        interval=f"{_LEVEL:.0%} t interval with {dof} degrees of freedom",
        test=_test_words(options, candidates),
        families={str(name): int(size) for name, size in sorted(Counter(candidates.family.tolist()).items())},
        ceiling_note=ceiling_note(n_subjects),
        undefined=json.dumps(undefined),
        peak="the layer with the highest mean is descriptive: it was chosen on the data that score it",
    )


_WORDS = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _generalisation(options: RsaOptions, n_subjects: int) -> tuple[Literal["stimulus", "subject", "both"], str]:
    """Settle what to generalise to, and say why."""
    asked = options.generalise_to
    target: Literal["stimulus", "subject", "both"]
    if asked == "auto":
        few = n_subjects < _FEW_SUBJECTS
        target = "stimulus" if few else "subject"
        count = f"{n_subjects} subject" + ("s" if n_subjects != 1 else "")
        rule = f"fewer than {_FEW_SUBJECTS}" if few else f"{_FEW_SUBJECTS} or more"
        reason = f"chosen automatically: {count} ({rule}), so error bars speak of {_WORDS[target]}" + (
            " and the same subjects" if few else " and the same stimuli"
        )
    else:
        target, reason = asked, f"asked for: error bars speak of {_WORDS[asked]}"
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


def _gather(models: Models, data: xr.Dataset) -> tuple[_Candidates, dict[str, str]]:
    """Bring all model RDMs to the data's stimuli, in one array, with their labels and fingerprints."""
    parts: list[tuple[str | None, xr.Dataset]]
    if isinstance(models, xr.Dataset):  # which is a Mapping too
        parts = [(None, models)]
    elif isinstance(models, Mapping):
        parts = [(str(name), cast(xr.Dataset, rdms)) for name, rdms in models.items()]
    else:
        parts = [(None, rdms) for rdms in models]
    if not parts:
        raise InputError("no models were given; give RDMs of layers (actkit.rdm) or of categories (category_rdms)")
    vectors: list[np.ndarray] = []
    labels: list[str] = []
    networks: list[str] = []
    layers: list[str] = []
    kinds: list[str] = []
    positions: list[int] = []
    inputs: dict[str, str] = {}
    for key, rdms in parts:
        validate_rdms(rdms)
        dim = leading_dim(rdms)
        source = key or str(rdms.attrs.get("network") or rdms.attrs.get("name") or "models")
        usual = "layer" if dim == "layer" else "model"
        kind = str(rdms.attrs.get("kind", usual))
        if kind == "rdm":  # what a variable of a data set is, not what it is for
            kind = usual
        if kind not in _FAMILY:
            raise InputError(f"RDMs of {source!r} have the kind {kind!r}; it is one of {', '.join(_FAMILY)}")
        _, aligned = align_rdms(data, rdms)
        vectors.append(aligned[VARIABLE].values.astype(np.float64))
        names = [str(value) for value in rdms[dim].values]
        labels += [f"{source}/{name}" for name in names] if dim == "layer" else names
        networks += [source] * len(names)
        layers += names
        kinds += [kind] * len(names)
        positions += range(len(names))
        inputs[_free(f"models: {source}", inputs)] = fingerprint(rdms)
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise InputError(
            f"models share a name: {', '.join(map(repr, repeated[:5]))}; give RDM datasets as a mapping with different "
            "names, or rename the models"
        )
    return _Candidates(np.concatenate(vectors), labels, networks, layers, kinds, positions), inputs


def _free(name: str, taken: Mapping[str, str]) -> str:
    """Number a name that is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


@dataclass(frozen=True)
class _Draws:
    """Subject-mean scores on bootstrap draws of stimuli, of subjects and of both: ``(draws, models)`` each."""

    means: dict[str, np.ndarray]

    @classmethod
    def make(
        cls,
        models: np.ndarray,
        data: np.ndarray,
        score: np.ndarray,
        weights: np.ndarray,
        people: np.ndarray,
        compare: Compare,
    ) -> _Draws:
        """Score all draws.

        `weights` (draws, stimuli) and `people` (draws, subjects) are multiplicities. Within a draw every model is
        scored on the same stimuli and the same subjects, and subjects count as often as they were drawn.
        """
        drawn = resampled_scores(models, data, weights, compare)
        share = people / people.shape[1]
        return cls(
            {
                "stimulus": drawn.mean(axis=2),
                "subject": share @ score.T,
                "both": np.einsum("dks,ds->dk", drawn, share),
            }
        )

    def variance(self, target: str) -> np.ndarray:
        """Uncorrected variance over the defined draws, ``(models,)``."""
        return variance_over_draws(self.means[target])

    def two_factor(self, n_subjects: int, n_stimuli: int) -> np.ndarray:
        """Variance that generalises to both, ``(models,)``, from the same draws of each factor."""
        return two_factor_variance(
            self.variance("both"), self.variance("subject"), self.variance("stimulus"), n_subjects, n_stimuli
        )

    def used(self, target: str) -> np.ndarray:
        """Number of defined draws of each model."""
        return (~np.isnan(self.means[target])).sum(axis=0)

    def degenerate(self, target: str) -> int:
        """Number of draws that a model lost, of the models that have scores at all."""
        lost = np.isnan(self.means[target])
        return int(lost[:, ~lost.all(axis=0)].any(axis=1).sum()) if len(lost) else 0


def _permutation_test(
    candidates: _Candidates,
    data: np.ndarray,
    mean: np.ndarray,
    n_stimuli: int,
    options: RsaOptions,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided test of the subject-mean scores by permuting stimulus labels: corrected and uncorrected p."""
    test = MaximumStatistic(mean, candidates.family)
    blocks = list(spans(options.n_permutations, _PERMUTATION_BLOCK))
    for start, stop in progress_bar(blocks, desc="permutations", unit="block", enabled=progress):
        shuffles = permutations(n_stimuli, stop - start, options.seed, start)
        test.add(permuted_scores(candidates.vectors, data, shuffles, options.compare))
    return test.p_values()


def _test_words(options: RsaOptions, candidates: _Candidates) -> str:
    """Say what the p-values test and what they are corrected for."""
    if not options.n_permutations:
        return "none (n_permutations=0)"
    sizes = Counter(candidates.family.tolist())
    families = ", ".join(f"{size} {name if size > 1 else name[:-1]}" for name, size in sorted(sizes.items()))
    return (
        f"stimulus-label permutation test of the subject-mean score, one-sided (larger than shuffled), "
        f"{options.n_permutations} permutations with the observed labelling, maximum statistic within each family "
        f"({families}); it generalises to relabelled stimuli of these subjects"
    )


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw scores by layer with error bands, ceilings and significance marks.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rsa` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import rsa_plot

    return rsa_plot.plot(result, **settings)


def families(result: xr.Dataset) -> dict[str, int]:
    """Read the families within which p-values are corrected.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rsa` returned.

    Returns
    -------
    dict of str to int
        Name of each family and the number of its models.
    """
    return dict(json.loads(result.attrs["families"]))
