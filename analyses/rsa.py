"""Representational similarity analysis: one entry point from model RDMs and subjects' RDMs to scores with inference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import permuted_scores
from actkit.analyses.measures import KENDALL, Compare
from actkit.analyses.noise_ceiling import ceiling_note, check_data, check_variation
from actkit.analyses.rsa_evaluate import (
    BLOCKS,
    Evaluation,
    Target,
    evaluate,
    evaluate_crossvalidated,
    evaluate_partial,
)
from actkit.analyses.rsa_inputs import Candidates, Models, gather
from actkit.compute import progress as progress_bar
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, align_rdms, leading_dim, rdm_dataset, validate_rdms
from actkit.resampling import Stream, bootstrap_weights, permutations
from actkit.results import describe, fingerprint
from actkit.statistics import MaximumStatistic, small_sample, standard_error, variance_over_draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actkit.analyses.crossvalidation import FoldPlan

Generalise = Literal["auto", "stimulus", "subject", "both"]

# With fewer subjects, a standard error over subjects says little.
_FEW_SUBJECTS = 6
_PERMUTATION_BLOCK = 500
_LEVEL = 0.95


class RsaOptions(Options):
    """Options of :func:`rsa`."""

    compare: Compare = Field("spearman", description="Measure that compares a model RDM with a subject's RDM.")
    generalise_to: Generalise = Field(
        "auto",
        description="What errors, intervals and tests speak of: new stimuli, new subjects or both; "
        "'auto' takes stimuli with fewer than 6 subjects and subjects otherwise.",
    )
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws over stimuli, subjects or both.")
    n_permutations: int = Field(
        10_000, ge=0, description="Permutations of the stimulus labels, the observed labelling included; 0: no test."
    )
    folds: int | None = Field(
        None,
        ge=1,
        description="Test folds of stimuli for cross-validation; by default none where all models are fixed, and as "
        "many as the number of stimuli allows (2 to 5) where a model is fitted.",
    )
    subject_folds: int | None = Field(
        None, ge=1, description="Test folds of subjects for cross-validation; chosen like the folds of stimuli."
    )
    repeats: int = Field(
        2,
        ge=1,
        description="Cross-validations of each draw with new folds; two or more let their own noise be removed.",
    )
    choose_layer: bool = Field(
        False,
        description="Add to each network a model that chooses its best layer on other stimuli than those it is "
        "tested on.",
    )
    semipartial: bool = Field(False, description="With partial RDMs: free the models of them, but not the subjects.")
    variance: Literal["pair-corrected", "bootstrap"] = Field(
        "pair-corrected",
        description="Variance over stimuli: of the bootstrap alone, as in rsatoolbox, or with the jackknife, which "
        "takes out the noise of single pairs that a bootstrap counts three times.",
    )
    dof: Literal["satterthwaite", "conservative"] = Field(
        "satterthwaite",
        description="Degrees of freedom where both factors are drawn: estimated from the parts of the variance, or the "
        "smaller sample less one.",
    )
    correction: Literal["fdr", "holm", "none"] = Field(
        "fdr", description="Correction of the t tests over models, and over pairs of models."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of all draws, folds and permutations.")
    workers: int | None = Field(
        None, ge=1, description="Threads; all cores by default. The numbers do not depend on it."
    )
    device: str | None = Field(
        None, description="Torch device for measures that are matrix products, such as 'cuda'; by default the CPU."
    )


@with_options(RsaOptions)
def rsa(
    models: Models,
    data: xr.Dataset,
    partial: xr.Dataset | Sequence[xr.Dataset] | None = None,
    progress: bool | None = None,
    *,
    options: RsaOptions,
) -> xr.Dataset:
    """Compare model RDMs with the RDMs of subjects: scores, noise ceilings, errors, intervals and tests.

    Scores compare each model with each subject. Stimuli are matched by id. A bootstrap over stimuli weighs pairs by the
    product of their multiplicities, so that copies of a stimulus never form a pair; a bootstrap over subjects counts
    subjects as often as they are drawn; for both, the two-factor correction combines them.

    Two kinds of test are reported, and each names its null:

    - **Permutation** of the stimulus labels (``p_value``): the model is unrelated to these subjects' RDMs. One-sided,
      corrected by the maximum over each family: all layers of all networks are one family, category and other fixed
      models another, controls a third.
    - **t and bootstrap tests** that generalise as ``generalise_to`` says: the score against 0 (one-sided, larger), the
      score against the lower noise ceiling (one-sided, below it), and every two models against each other (two-sided),
      each uncorrected and corrected (FDR or Holm). There is no test against the upper ceiling, which even the true
      model misses: the distance has an interval instead.

    Flexible models (weighted, selection, interpolation: :mod:`actkit.analyses.models`) are fitted and tested on
    different stimuli and subjects; then all models are scored on the same test folds.

    Parameters
    ----------
    models : xarray.Dataset, list or mapping of them
        RDM datasets. Along ``layer`` they are the layers of a network, named by the mapping's key or the dataset's
        attribute ``network`` or ``name``; along any other dim they are fixed models. The attribute ``kind="control"``
        marks controls (pixels, Gabor filters). A dataset made by ``weighted``, ``selection`` or ``interpolation`` is
        one flexible model.
    data : xarray.Dataset
        RDM dataset along ``subject``; with a dim ``time``, every time bin is analysed.
    partial : xarray.Dataset or list of them, optional
        RDMs whose share is taken out of models and subjects: partial RSA.
    progress : bool, optional
        Show a bar over the permutations; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims model, other_model, subject and draw, with the variables

        - ``score`` (model, subject), ``mean`` (model);
        - ``sem_subject``, ``sem_stimulus`` (model), and ``error`` (model), the one that ``generalise_to`` selects, with
          its degrees of freedom ``dof`` (model);
        - ``interval_low``, ``interval_high`` (model): 95 % t interval around the mean;
        - ``p_value`` (model) of the permutation test, corrected within its family, and ``p_uncorrected`` (model);
        - ``p_zero``, ``p_zero_bootstrap``, ``p_zero_corrected`` (model);
        - ``difference``, ``difference_error``, ``p_difference``, ``p_difference_bootstrap``,
          ``p_difference_corrected`` (model, other_model);
        - ``ceiling_lower``, ``ceiling_upper`` and both for each subject, from the full data;
        - ``ceiling_difference`` (mean less the lower ceiling), its error, ``p_below_ceiling`` and its corrected form;
          ``ceiling_gap`` (upper ceiling less the mean) with ``ceiling_gap_low`` and ``ceiling_gap_high`` (model);
        - ``draw_mean`` (draw, model): subject-mean scores on the draws behind the error;
        - ``draws_used`` (model): draws on which all scores are defined.

        Coordinates along model: ``network``, ``layer``, ``kind``, ``family``, ``position`` (depth within the network)
        and ``fit`` (fixed, selection, interpolation, weighted or weighted_nonnegative).

        A model RDM with missing pairs (a dead layer) or without variation has no score: it is NaN throughout and is
        named in the attribute ``undefined`` (JSON). A draw in which some score is undefined (fewer than three distinct
        stimuli, or drawn dissimilarities that are all equal) is left out for that model; ``n_draws_degenerate`` counts
        the draws that any model lost, and ``n_draws_single_subject`` those with one subject, which have no ceiling.

    Raises
    ------
    InputError
        If stimuli differ, names repeat, a subject has missing pairs or a constant RDM, there are too few subjects or
        stimuli for what is asked, or a model needs folds that the data do not allow.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008), Frontiers in Systems Neuroscience 2; Nili et al. (2014), A toolbox for
    representational similarity analysis, PLoS Computational Biology 10; Schütt, Kipnis, Diedrichsen & Kriegeskorte
    (2023), Statistical inference on representational geometries, eLife 12; Nichols & Holmes (2002), Nonparametric
    permutation tests for functional neuroimaging, Human Brain Mapping 15.
    """
    if "time" in data.dims:
        return _over_time(models, data, partial, options, progress)
    subjects = check_data(data)
    check_variation(subjects, options.compare)
    candidates, inputs = gather(models, subjects, options.choose_layer)
    observed = subjects[VARIABLE].values.astype(np.float64)
    n_stimuli, n_subjects = subjects.sizes["stimulus"], subjects.sizes["subject"]
    target, reason = _generalisation(options, n_subjects)
    plan = _folds(candidates, n_stimuli, n_subjects, options)
    stimuli = bootstrap_weights(n_stimuli, options.n_draws, options.seed)
    people = bootstrap_weights(n_subjects, options.n_draws, options.seed, stream=Stream.SUBJECTS)
    settings: dict[str, Any] = {"workers": options.workers, "progress": progress}
    if partial is not None:
        if plan is not None:
            raise InputError("partial RSA and cross-validation (folds, flexible models) do not go together; drop one")
        controls, more = _controls(partial, subjects, options.compare)
        inputs |= more
        result_of = evaluate_partial(
            candidates, observed, controls, stimuli, people, options.compare, options.semipartial, **settings
        )
    elif plan is not None:
        result_of = evaluate_crossvalidated(
            candidates, observed, plan, stimuli, people, options.compare, target, **settings
        )
    else:
        result_of = evaluate(candidates, observed, stimuli, people, options.compare, device=options.device, **settings)
    tested = plan is None and partial is None
    p_value, p_uncorrected = (
        _permutation_test(candidates, observed, result_of.score.mean(axis=1), n_stimuli, options, progress)
        if tested
        else np.full((2, len(candidates.groups)), np.nan)
    )
    result = _result(candidates, subjects, result_of, target, options)
    no_zero = _no_test_against_zero(observed, options.compare)
    if no_zero:
        for name in ("p_zero", "p_zero_bootstrap", "p_zero_corrected"):
            result[name] = result[name].where(False)
    result["p_value"] = ("model", p_value, _about("permutation p, corrected within its family (one-sided)"))
    result["p_uncorrected"] = ("model", p_uncorrected, _about("permutation p, uncorrected (one-sided)"))
    undefined = [
        label for label, value in zip(candidates.labels, result["mean"].values, strict=True) if np.isnan(value)
    ]
    drawn = result_of.draw_means(target)
    lost = np.isnan(drawn)
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
        n_draws_degenerate=int(lost[:, ~lost.all(axis=0)].any(axis=1).sum()) if len(lost) else 0,
        n_draws_single_subject=int((np.count_nonzero(people, axis=1) < 2).sum()) if target != "stimulus" else 0,
        n_permutations=options.n_permutations if tested else 0,
        seed=options.seed,
        interval=f"{_LEVEL:.0%} t interval",
        test=_test_words(options, candidates) if tested else _no_permutation(plan is not None),
        tests=_T_TESTS.format(null=_NULLS[target], correction=_CORRECTIONS[options.correction]) + no_zero,
        plan=f"{BLOCKS}; the same bits for any number of workers",
        cross_validation="" if plan is None else _fold_words(plan),
        weights=_weights(candidates, result_of),
        partial=_partial_words(partial, options),
        families={str(name): int(size) for name, size in sorted(Counter(candidates.family.tolist()).items())},
        ceiling_note=ceiling_note(n_subjects, options.compare),
        undefined=json.dumps(undefined),
        peak="the layer with the highest mean is descriptive: it was chosen on the data that score it",
    )


_WORDS = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}
_NULLS = {
    "stimulus": "these subjects, over stimuli drawn from their population",
    "subject": "these stimuli, over subjects drawn from their population",
    "both": "stimuli and subjects both drawn from their populations",
}
_CORRECTIONS = {
    "fdr": "the false discovery rate (Benjamini–Hochberg)",
    "holm": "the family-wise error rate (Holm)",
    "none": "nothing",
}
_T_TESTS = (
    "t and bootstrap tests of mean scores, for {null}: against 0 one-sided (larger), against the lower noise ceiling "
    "one-sided (below), between models two-sided; corrected for {correction}"
)


def _no_test_against_zero(data: np.ndarray, compare: Compare) -> str:
    """Say why scores are not tested against 0; empty where they are."""
    if compare in ("cosine", "whitened-cosine") and (data >= 0).all():
        return (
            "; none against 0, since cosines of non-negative RDMs are above 0 even for unrelated ones: see the "
            "permutation test, or compare cross-validated distances or by correlation"
        )
    return ""


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _result(
    candidates: Candidates, subjects: xr.Dataset, evaluation: Evaluation, target: Target, options: RsaOptions
) -> xr.Dataset:
    """Put scores, ceilings and inference into one dataset."""
    from actkit.analyses.inference import infer

    n_stimuli, n_subjects = subjects.sizes["stimulus"], subjects.sizes["subject"]
    score = evaluation.score
    mean = score.mean(axis=1)
    drawn = evaluation.draw_means(target)
    inferred = infer(
        score,
        evaluation.lower,
        evaluation.upper,
        evaluation.means,
        evaluation.lowers,
        evaluation.uppers,
        target=target,
        n_subjects=n_subjects,
        n_stimuli=n_stimuli,
        dof=options.dof,
        correction=options.correction,
        level=_LEVEL,
        leave_out=evaluation.leave_out if options.variance == "pair-corrected" else None,
        # Cross-validated scores of subjects are never independent: the folds tie them.
        fitted=np.full(len(score), evaluation.leave_out is None),
    )
    over_stimuli = (
        np.sqrt(small_sample(variance_over_draws(evaluation.draw_means("stimulus")), n_stimuli))
        if "stimulus" in evaluation.means
        else np.full(len(mean), np.nan)
    )
    coords = {
        "model": ("model", candidates.labels),
        "other_model": ("other_model", candidates.labels),
        **{key: ("model", values) for key, values in _model_coordinates(candidates).items()},
        "subject": ("subject", subjects["subject"].values),
        "draw": ("draw", np.arange(len(drawn))),
    }
    sides = {"lower": evaluation.lower, "upper": evaluation.upper}
    words = {"lower": "lower noise ceiling (leave one subject out)", "upper": "upper noise ceiling (all subjects)"}
    result = xr.Dataset(
        {
            "score": (("model", "subject"), score, _about(f"{options.compare} with each subject")),
            "mean": ("model", mean, _about(f"mean {options.compare} over subjects")),
            "sem_subject": ("model", standard_error(score), _about("standard error over subjects")),
            "sem_stimulus": ("model", over_stimuli, _about("standard error over stimuli (bootstrap)")),
            "draw_mean": (("draw", "model"), drawn, _about("subject-mean score on each draw")),
            **{f"ceiling_{side}": ((), value.mean(), _about(words[side])) for side, value in sides.items()},
            **{
                f"ceiling_{side}_subject": ("subject", value, _about(f"{words[side]} of each subject"))
                for side, value in sides.items()
            },
        },
        coords=coords,
    )
    return result.assign(inferred.data_vars).assign_attrs(inferred.attrs)


def _generalisation(options: RsaOptions, n_subjects: int) -> tuple[Target, str]:
    """Settle what to generalise to, and say why."""
    asked = options.generalise_to
    target: Target
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


def _folds(candidates: Candidates, n_stimuli: int, n_subjects: int, options: RsaOptions) -> FoldPlan | None:
    """Plan the cross-validation, if a model is fitted or folds are asked for."""
    from actkit.analyses.crossvalidation import fold_plan

    if not candidates.fitted.any() and options.folds is None and options.subject_folds is None:
        return None
    if options.n_draws < 2:
        raise InputError(
            f"n_draws={options.n_draws} gives cross-validated scores no error: the folds tie the subjects' scores "
            "together, so that only a bootstrap can; use 1000"
        )
    return fold_plan(n_stimuli, n_subjects, options.folds, options.subject_folds, options.repeats, options.seed)


def _fold_words(plan: FoldPlan) -> str:
    """Say how models were cross-validated."""
    return (
        f"{plan.stimulus_folds} folds of stimuli × {plan.subject_folds} of subjects; scores on all data are means over "
        f"{plan.full_repeats} random deals, each draw has {plan.repeats}"
    )


def _controls(
    partial: xr.Dataset | Sequence[xr.Dataset], data: xr.Dataset, compare: Compare
) -> tuple[np.ndarray, dict[str, str]]:
    """Bring the RDMs to be taken out to the data's stimuli."""
    if compare in (*KENDALL, "rho-a"):
        raise InputError(
            f"partial RSA needs a measure that is a normalised scalar product, and {compare!r} is not one; use "
            "'spearman' or 'pearson'"
        )
    parts = [partial] if isinstance(partial, xr.Dataset) else list(partial)
    vectors, prints = [], {}
    for number, rdms in enumerate(parts):
        validate_rdms(rdms)
        values = align_rdms(data, rdms)[1][VARIABLE].values.astype(np.float64)
        missing = np.isnan(values).any(axis=1)
        if missing.any():
            named = ", ".join(repr(str(name)) for name in rdms[leading_dim(rdms)].values[missing][:5])
            raise InputError(
                f"partial RDMs with missing pairs cannot be taken out: {named}; leave them out with .sel()"
            )
        vectors.append(values)
        prints[f"partial {number + 1}"] = fingerprint(rdms)
    if not vectors:
        raise InputError("partial= was given without RDMs; give an RDM dataset, or leave it out")
    return np.concatenate(vectors), prints


def _partial_words(partial: xr.Dataset | Sequence[xr.Dataset] | None, options: RsaOptions) -> str:
    """Say what was taken out of what."""
    if partial is None:
        return ""
    parts = [partial] if isinstance(partial, xr.Dataset) else list(partial)
    names = [str(name) for rdms in parts for name in rdms[leading_dim(rdms)].values]
    sides = "the models" if options.semipartial else "models and subjects"
    return f"freed of {', '.join(names)}: {sides}"


def _over_time(
    models: Models,
    data: xr.Dataset,
    partial: xr.Dataset | Sequence[xr.Dataset] | None,
    options: RsaOptions,
    progress: bool | None,
) -> xr.Dataset:
    """Analyse every time bin of time-resolved RDMs."""
    from actkit.analyses.time_resolved import rsa_over_time

    if partial is not None or options.folds is not None or options.subject_folds is not None or options.choose_layer:
        raise InputError(
            "RSA over time scores fixed models; partial RDMs and cross-validation work on one time bin at a time: "
            "select it with data.isel(time=…)"
        )
    settings: dict[str, Any] = {
        "compare": options.compare,
        "generalise_to": _generalisation(options, data.sizes[leading_dim(data, time=True)])[0],
        "n_draws": options.n_draws,
        "n_flips": options.n_permutations,
        "n_permutations": options.n_permutations,
        "seed": options.seed,
    }
    if isinstance(models, xr.Dataset) and "time" in models.dims:  # each bin against the model of that bin
        return rsa_over_time(models, data, progress, **settings)
    candidates, _ = gather(models, data.isel(time=0, drop=True))
    if candidates.fitted.any():
        named = ", ".join(repr(group.name) for group in candidates.groups if group.kind != "fixed")
        raise InputError(f"RSA over time scores fixed models, and {named} has to be fitted; select one time bin first")
    together = rdm_dataset(
        candidates.fixed_vectors(),
        candidates.labels,
        "model",
        data["stimulus"].values,
        "mixed",
        "models",
        coords={key: ("model", values) for key, values in _model_coordinates(candidates).items()},
    )
    return rsa_over_time(together, data, progress, **settings)


def _model_coordinates(candidates: Candidates) -> dict[str, np.ndarray]:
    """What describes each model."""
    return {
        "network": np.array(candidates.network),
        "layer": np.array(candidates.layer),
        "kind": np.array(candidates.kind),
        "family": candidates.family,
        "fit": np.array([group.kind for group in candidates.groups]),
        "position": np.array(candidates.position, dtype=np.int64),
    }


def _weights(candidates: Candidates, evaluation: Evaluation) -> str:
    """Weights of the components of each flexible model, fitted to all data, with their spread over training sets."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for group in candidates.groups:
        if group.name not in evaluation.weights:
            continue
        all_data, folds = evaluation.weights[group.name]
        folds = folds.reshape(-1, folds.shape[-1])
        out[group.name] = {
            candidates.components[row]: {
                "weight": round(float(all_data[k]), 6),
                "mean": round(float(np.nanmean(folds[:, k])), 6),
                "sd": round(float(np.nanstd(folds[:, k])), 6),
            }
            for k, row in enumerate(group.rows)
        }
    return json.dumps(out)


def _permutation_test(
    candidates: Candidates,
    data: np.ndarray,
    mean: np.ndarray,
    n_stimuli: int,
    options: RsaOptions,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided test of the subject-mean scores by permuting stimulus labels: corrected and uncorrected p."""
    test = MaximumStatistic(mean, candidates.family)
    vectors = candidates.fixed_vectors()
    blocks = list(spans(options.n_permutations, _PERMUTATION_BLOCK))
    for start, stop in progress_bar(blocks, desc="permutations", unit="block", enabled=progress):
        shuffles = permutations(n_stimuli, stop - start, options.seed, start)
        test.add(permuted_scores(vectors, data, shuffles, options.compare, workers=options.workers))
    return test.p_values()


def _test_words(options: RsaOptions, candidates: Candidates) -> str:
    """Say what the permutation p-values test and what they are corrected for."""
    if not options.n_permutations:
        return "none (n_permutations=0)"
    sizes = Counter(candidates.family.tolist())
    listed = ", ".join(f"{size} {name if size > 1 else name[:-1]}" for name, size in sorted(sizes.items()))
    return (
        f"stimulus-label permutation test of the subject-mean score, one-sided (larger than shuffled), "
        f"{options.n_permutations} permutations with the observed labelling, maximum statistic within each family "
        f"({listed}); it generalises to relabelled stimuli of these subjects"
    )


def _no_permutation(crossvalidated: bool) -> str:
    """Say why there is no permutation test."""
    why = "every permutation would fit the models again" if crossvalidated else "shuffled labels would undo the control"
    return f"none: {why}; see the t and bootstrap tests"


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
