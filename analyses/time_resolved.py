"""RSA over time: how well each model matches the subjects' RDMs in every time bin, with errors, ceilings and tests."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import Compare, ceilings, resample, scores
from actkit.analyses.noise_ceiling import ceiling_note, check_data, check_variation
from actkit.analyses.time_bins import TimeRdmOptions, bin_time, time_rdms
from actkit.analyses.time_tests import flip_test, label_test
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, align_rdms, has_time, leading_dim, validate_rdms
from actkit.resampling import Stream, bootstrap_weights
from actkit.results import describe, fingerprint
from actkit.statistics import small_sample, standard_error, t_interval, two_factor_variance, variance_over_draws

__all__ = ["TimeRdmOptions", "TimeRsaOptions", "bin_time", "rsa_over_time", "stretches", "time_rdms"]

_LEVEL = 0.95
_DRAWN_VALUES = 8_000_000  # scores on draws that are held at a time, 64 MB
_WORDS = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}

# Cosines of non-negative RDMs are above 0 for unrelated RDMs too; 0 is the null of cross-validated distances only.
_UNCENTRED = ("cosine", "whitened-cosine")
_NOT_ZERO = (
    "none: the cosine of two RDMs without negative values is above 0 even if they are unrelated, so that 0 is no null; "
    "compare with Pearson or Spearman, or use cross-validated distances (crossnobis)"
)

Target = Literal["stimulus", "subject", "both"]


class TimeRsaOptions(Options):
    """Options of :func:`rsa_over_time`."""

    compare: Compare = Field("spearman", description="Measure that compares a model RDM with a subject's RDM.")
    generalise_to: Target = Field("subject", description="What the error bands speak of, and which p-value leads.")
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws over stimuli, for 'stimulus' and 'both'.")
    n_flips: int = Field(
        10_000,
        ge=0,
        description="Most sign combinations of the subjects, the observed one included (all of them where "
        "2**subjects is no more); 0: no test.",
    )
    n_permutations: int = Field(
        10_000, ge=0, description="Permutations of the stimulus labels, the observed labelling included; 0: no test."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of all draws, flips and permutations.")


@with_options(TimeRsaOptions)
def rsa_over_time(
    models: xr.Dataset, data: xr.Dataset, progress: bool | None = None, *, options: TimeRsaOptions
) -> xr.Dataset:
    """Compare models with the subjects' RDMs in every time bin.

    Parameters
    ----------
    models : xarray.Dataset
        RDM dataset of the models, along any leading dim; stimuli are matched by id. With time bins of their own, which
        must be those of the data, each bin is compared with its own model RDM. The coordinate ``family`` along the
        leading dim, if there is one, says within which models p-values are corrected; all are one family otherwise.
    data : xarray.Dataset
        RDM dataset of dims (subject, time, pair); see :func:`time_rdms`.
    progress : bool, optional
        Show a bar over the permutations; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims model, subject and time, with the variables

        - ``score`` (model, subject, time), ``mean`` (model, time);
        - ``error`` (model, time): the standard error that ``generalise_to`` selects, of ``sem_subject`` and
          ``sem_stimulus`` (which is there for stimulus and both);
        - ``interval_low``, ``interval_high`` (model, time): 95 % t interval of each bin by itself, not simultaneous;
        - ``ceiling_lower``, ``ceiling_upper`` (time) and both for each subject (subject, time);
        - ``p_flip``, ``p_flip_uncorrected`` (model, time): sign flips of the subjects, one-sided; NaN for cosines of
          data without negative values, which are above 0 for unrelated RDMs too;
        - ``p_permutation``, ``p_permutation_uncorrected`` (model, time): permutations of stimulus labels, one-sided;
        - ``p_value``, ``p_uncorrected`` (model, time): the first for subject, the second for stimulus, and the larger
          of the two for both;
        - ``peak_time`` (model): the bin with the highest mean, descriptive; ``draws_used`` (model, time).

        Corrected p-values are those of the maximum over all models of the family and all bins. A family's first
        significant bin is not an estimate of when an effect begins. Each test has its own null, in the attributes
        ``test_flip`` and ``test_permutation``.

    Raises
    ------
    InputError
        If data have no time bins, stimuli differ, a subject has missing pairs or a constant RDM in a bin, or there are
        too few subjects or draws for what is generalised to.

    References
    ----------
    Nichols & Holmes (2002), Nonparametric permutation tests for functional neuroimaging, Human Brain Mapping 15.
    """
    subjects = _subjects(data, options)
    vectors, labels, families, coords = _models(models, subjects)
    observed = subjects[VARIABLE].values.astype(np.float64)
    n_subjects, n_times, _ = observed.shape
    n_stimuli = subjects.sizes["stimulus"]

    score = np.stack(
        [scores(_at(vectors, t), observed[:, t], options.compare) for t in range(n_times)], axis=2
    )  # (model, subject, time)
    mean = score.mean(axis=1)
    sem_subject = standard_error(score, axis=1)
    sem_stimulus, error, dof, used = _errors(vectors, observed, score, sem_subject, options)
    low, high = t_interval(mean, error, dof, _LEVEL)
    centred = options.compare not in _UNCENTRED or bool((observed < 0).any())
    flip, flip_alone, n_flips = flip_test(score, families, options.n_flips if centred else 0, options.seed)
    label, label_alone = label_test(
        vectors, observed, mean, families, options.n_permutations, options.seed, options.compare, progress
    )
    leading, leading_alone = _leading(options.generalise_to, (flip, flip_alone), (label, label_alone))
    bounds = [ceilings(observed[:, t], options.compare) for t in range(n_times)]
    lower, upper = (np.stack([pair[k] for pair in bounds], axis=1) for k in (0, 1))
    curve = ("model", "time")
    words = _WORDS[options.generalise_to]
    variables = {
        "score": (("model", "subject", "time"), score, _about(f"{options.compare} with each subject")),
        "mean": (curve, mean, _about(f"mean {options.compare} over subjects")),
        "sem_subject": (curve, sem_subject, _about("standard error over subjects")),
        "error": (curve, error, _about(f"standard error, generalising to {words}")),
        "interval_low": (curve, low, _about("95 % interval of each bin, lower limit")),
        "interval_high": (curve, high, _about("95 % interval of each bin, upper limit")),
        "p_value": (curve, leading, _about("p, one-sided, corrected over bins and models of the family")),
        "p_uncorrected": (curve, leading_alone, _about("p, one-sided, uncorrected")),
        "p_flip": (curve, flip, _about("p by sign flips of subjects, one-sided, corrected")),
        "p_flip_uncorrected": (curve, flip_alone, _about("p by sign flips of subjects, one-sided, uncorrected")),
        "p_permutation": (curve, label, _about("p by permuted stimulus labels, one-sided, corrected")),
        "p_permutation_uncorrected": (
            curve,
            label_alone,
            _about("p by permuted stimulus labels, one-sided, uncorrected"),
        ),
        "ceiling_lower": ("time", lower.mean(axis=0), _about("lower noise ceiling (leave one subject out)")),
        "ceiling_upper": ("time", upper.mean(axis=0), _about("upper noise ceiling (all subjects)")),
        "ceiling_lower_subject": (("subject", "time"), lower, _about("lower noise ceiling of each subject")),
        "ceiling_upper_subject": (("subject", "time"), upper, _about("upper noise ceiling of each subject")),
        "peak_time": ("model", _peaks(mean, subjects["time"].values), {"long_name": "time of the highest mean"}),
    }
    if sem_stimulus is not None:
        variables["sem_stimulus"] = (curve, sem_stimulus, _about("standard error over stimuli (bootstrap)"))
        variables["draws_used"] = (curve, used, _about("bootstrap draws with defined scores"))
    result = xr.Dataset(
        variables,
        coords={
            "model": ("model", labels),
            "family": ("model", families),
            **coords,
            "subject": ("subject", subjects["subject"].values),
            "time": subjects["time"],
        },
    )
    result["peak_time"].attrs["units"] = str(subjects["time"].attrs.get("units", "1"))
    sizes = Counter(families.tolist())
    return describe(
        result,
        "rsa_over_time",
        options,
        {"models": fingerprint(models), "data": fingerprint(data)},
        compare=options.compare,
        generalise_to=options.generalise_to,
        data=str(data.attrs.get("name", "unnamed")),
        simulated=bool(data.attrs.get("simulated", False)),
        n_subjects=n_subjects,
        n_stimuli=n_stimuli,
        n_times=n_times,
        n_draws=0 if sem_stimulus is None else options.n_draws,
        n_flips=n_flips,
        n_permutations=options.n_permutations,
        seed=options.seed,
        dof=dof,
        interval=f"{_LEVEL:.0%} t interval of each bin with {dof} degrees of freedom, not corrected over bins",
        families={str(name): int(size) * n_times for name, size in sorted(sizes.items())},
        test=_test_words(options.generalise_to),
        test_flip=_flip_words(n_subjects, n_flips) if centred else _NOT_ZERO,
        test_permutation=_permutation_words(options.n_permutations),
        ceiling_note=ceiling_note(n_subjects, options.compare),
    )


def stretches(
    result: xr.Dataset, level: float = 0.05, variable: str = "p_value"
) -> dict[str, list[tuple[float, float]]]:
    """List the runs of consecutive bins in which each model is significant.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rsa_over_time` returned.
    level : float
        Bins with p up to this count.
    variable : str
        Which p-values, such as ``"p_flip"``.

    Returns
    -------
    dict of str to list of tuple of float
        Model to the times of the first and last bin of each run.
    """
    times = result["time"].values
    found: dict[str, list[tuple[float, float]]] = {}
    for model in result["model"].values:
        significant = (result[variable].sel(model=model).values <= level).astype(int)
        edges = np.diff(np.concatenate([[0], significant, [0]]))
        starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        found[str(model)] = [(float(times[a]), float(times[b])) for a, b in zip(starts, stops, strict=True)]
    return found


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _subjects(data: xr.Dataset, options: TimeRsaOptions) -> xr.Dataset:
    """Check the data and what is asked of them."""
    if not has_time(validate_rdms(data)):
        raise InputError(
            f"data {data.attrs.get('name', 'unnamed')!r} have no time bins, so there is no course over time; use "
            "actkit.rsa, or make RDMs in time bins with time_rdms()"
        )
    subjects = check_data(data, time=True)
    check_variation(subjects, options.compare)
    n_subjects = subjects.sizes["subject"]
    if options.generalise_to != "stimulus" and n_subjects < 2:
        raise InputError(
            f"cannot generalise to subjects from {n_subjects} subject: there is no variation between subjects; "
            "use generalise_to='stimulus'"
        )
    if options.generalise_to != "subject" and options.n_draws < 2:
        raise InputError(
            f"n_draws={options.n_draws} gives no variance over stimuli; use 1000, or generalise_to='subject'"
        )
    return subjects


def _models(
    models: xr.Dataset, data: xr.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """Model RDMs (models, 1 or times, pairs) over the data's stimuli, their names, families and coordinates."""
    validate_rdms(models)
    dim = leading_dim(models, time=True)
    aligned = align_rdms(data, models)[1]
    vectors = aligned[VARIABLE].values.astype(np.float64)
    if not has_time(models):
        vectors = vectors[:, None]
    elif not np.array_equal(models["time"].values, data["time"].values):
        raise InputError(
            f"models {models.attrs.get('name', 'unnamed')!r} have other time bins than the data; bring both to the "
            "same bins, or choose one model RDM with .sel(time=…)"
        )
    labels = models[dim].values.astype(str)
    families = models["family"].values.astype(str) if "family" in models.coords else np.full(len(labels), "models")
    kept = {
        str(key): ("model", coordinate.values)
        for key, coordinate in models.coords.items()
        if coordinate.dims == (dim,) and key not in (dim, "family", "subject", "time", "model")
    }
    return vectors, labels, families, kept


def _at(vectors: np.ndarray, t: int) -> np.ndarray:
    """The models of one bin."""
    return vectors[:, t if vectors.shape[1] > 1 else 0]


def _errors(
    models: np.ndarray, data: np.ndarray, score: np.ndarray, sem_subject: np.ndarray, options: TimeRsaOptions
) -> tuple[np.ndarray | None, np.ndarray, int, np.ndarray | None]:
    """Standard errors over stimuli (or None), of what is generalised to, its degrees of freedom, and draws used."""
    n_models, n_subjects, n_times = score.shape
    n_stimuli = round((1 + np.sqrt(1 + 8 * data.shape[2])) / 2)
    if options.generalise_to == "subject":
        return None, sem_subject, n_subjects - 1, None
    stimuli = bootstrap_weights(n_stimuli, options.n_draws, options.seed)
    people = bootstrap_weights(n_subjects, options.n_draws, options.seed, stream=Stream.SUBJECTS)
    share = people / n_subjects
    variance = {name: np.empty((n_models, n_times)) for name in ("stimulus", "subject", "both")}
    used = np.empty((n_models, n_times), dtype=np.int64)
    for bins in _groups(models, n_times, options.n_draws * n_models * n_subjects):
        rows = data[:, bins].reshape(n_subjects * len(bins), -1)
        drawn = resample(_at(models, bins[0]), rows, stimuli, None, options.compare, with_ceilings=False).score
        by_bin = drawn.reshape(options.n_draws, n_models, n_subjects, len(bins))
        one, two = by_bin.mean(axis=2), np.einsum("dkst,ds->dkt", by_bin, share)
        variance["stimulus"][:, bins] = variance_over_draws(one)
        variance["both"][:, bins] = variance_over_draws(two)
        used[:, bins] = (~np.isnan(one if options.generalise_to == "stimulus" else two)).sum(axis=0)
    sem_stimulus = np.sqrt(small_sample(variance["stimulus"], n_stimuli))
    if options.generalise_to == "stimulus":
        return sem_stimulus, sem_stimulus, n_stimuli - 1, used
    variance["subject"] = variance_over_draws(np.einsum("kst,ds->dkt", score, share))
    total = two_factor_variance(variance["both"], variance["subject"], variance["stimulus"], n_subjects, n_stimuli)
    return sem_stimulus, np.sqrt(total), min(n_subjects, n_stimuli) - 1, used


def _groups(models: np.ndarray, n_times: int, values_a_bin: int) -> list[list[int]]:
    """Bins that are resampled together: they share the draws, and models that do not change, their moments."""
    size = 1 if models.shape[1] > 1 else max(1, _DRAWN_VALUES // max(values_a_bin, 1))
    return [list(range(start, min(start + size, n_times))) for start in range(0, n_times, size)]


def _leading(
    target: Target, flip: tuple[np.ndarray, np.ndarray], label: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The p-values, corrected and not, of the test that goes with what is generalised to."""
    if target == "subject":
        return flip
    if target == "stimulus":
        return label
    return np.maximum(flip[0], label[0]), np.maximum(flip[1], label[1])


def _peaks(mean: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Time of the highest mean of each model; NaN for a model without scores."""
    defined = ~np.isnan(mean).all(axis=1)
    where = np.argmax(np.where(np.isnan(mean), -np.inf, mean), axis=1)
    return np.where(defined, times.astype(np.float64)[where], np.nan)


def _test_words(target: Target) -> str:
    """Say which test p_value is."""
    return {
        "subject": "p_value is p_flip: sign flips of subjects",
        "stimulus": "p_value is p_permutation: permuted stimulus labels",
        "both": "p_value is the larger of p_flip and p_permutation: significant only where both tests are",
    }[target]


def _flip_words(n_subjects: int, n_flips: int) -> str:
    """Say what the sign flips test."""
    if n_flips == 0:
        return "none" + (" (a single subject has nothing to flip against)" if n_subjects < 2 else " (n_flips=0)")
    every = f"all {n_flips}" if n_subjects < 63 and n_flips == 2**n_subjects else f"{n_flips} random"
    return (
        "sign-flip test of the subject mean, one-sided (larger than 0); null: in the population of subjects, for these "
        f"stimuli and models, scores are symmetric around 0; {every} sign combinations of {n_subjects} subjects, "
        f"maximum of t over time bins and the models of a family; no p is below {1 / n_flips:.3g}"
    )


def _permutation_words(n_permutations: int) -> str:
    """Say what the label permutations test."""
    if n_permutations == 0:
        return "none (n_permutations=0)"
    return (
        "stimulus-label permutation test of the subject mean, one-sided (larger than shuffled); null: which stimulus "
        "is which is exchangeable between model and data, in all time bins and these subjects; "
        f"{n_permutations} permutations with the observed labelling, maximum over time bins and the models of a family"
    )
