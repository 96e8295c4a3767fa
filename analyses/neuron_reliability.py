"""Reliability of each neuron's mean response, the noise ceiling that it gives, and scores corrected for noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import Compare, scores
from actkit.analyses.neuron_halves import (
    Halves,
    Order,
    components,
    correlations,
    from_splits,
    half_masks,
    left_out_masks,
    mean,
    means,
    patterns,
    split_draws,
)
from actkit.analyses.rdm import rdm
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE
from actkit.recordings_neurons import stimulus_groups, validate_responses
from actkit.resampling import bootstrap_weights
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["variance_components", "split_half", "leave_one_out"]
Correction = Literal["r/sqrt(rho)", "r2/rho", "(r/rho)2"]

FLOOR = 0.2
"""Reliability below which a neuron is reported and its scores are not divided."""

_BOOTSTRAPPED = 10  # splits that every bootstrap draw averages over: more of them cost time and add little
_COLUMNS = 128  # neurons that are bootstrapped at a time


class NeuronReliabilityOptions(Options):
    """Options of :func:`neuron_reliability`."""

    method: Method = Field("variance_components", description="Estimator.")
    halves: Halves = Field(
        "all",
        description="Of split_half: use all repetitions, or even halves that leave an odd one out, with the factor 2.",
    )
    order: Order = Field(
        "correct_then_mean",
        description="Whether each split is taken to all repetitions before the mean over splits, or their mean is.",
    )
    n_splits: int = Field(100, ge=1, description="Random splits of split_half.")
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws of stimuli for intervals; 0 for none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the percentile intervals.")
    floor: float = Field(FLOOR, ge=0, lt=1, description="Least reliability that scores are divided by.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of splits and draws.")


@with_options(NeuronReliabilityOptions)
def neuron_reliability(responses: xr.DataArray, *, options: NeuronReliabilityOptions) -> xr.Dataset:
    """Estimate how reliable the mean over repetitions is, neuron by neuron.

    The reliability ρ is the share of the variance over stimuli of the mean response that is not noise. A model that
    predicts the expected response without error correlates with the mean response by √ρ, the ``ceiling``.

    - ``variance_components``: one minus the mean noise variance over the variance of the means; the noise variance of
      a stimulus's mean is its variance over repetitions divided by its own number of them. A stimulus shown once
      takes the variance pooled over the others.
    - ``split_half``: Pearson's r over stimuli between the means of two random halves. With ``halves="all"`` no
      repetition is left out, and unequal numbers enter the step to all repetitions by their own noise (see
      :func:`actkit.analyses.neuron_halves.reliability_of_all`). ``halves="even"`` is what is often published: halves of
      equal length, a repetition left out where the number is odd, Spearman-Brown with the factor 2. It gives
      the reliability of the repetitions kept; ``inflation`` says by how much r/√ρ of the full mean is then too large.
    - ``leave_one_out``: r between one repetition and the mean of the others, each in turn.

    The order of averaging matters, and is ``order``: by default every split is corrected and then averaged.

    Parameters
    ----------
    responses : xarray.DataArray
        Dims stimulus, repetition, neuron and perhaps time, NaN for what was not presented (see
        :func:`actkit.recordings_neurons.validate_responses`). Stimuli with one value of a coordinate ``group`` are
        drawn together in the bootstrap.

    Returns
    -------
    xarray.Dataset
        Dims neuron and, where the responses have it, time:

        - ``reliability`` (may be negative), ``interval_low``, ``interval_high`` (percentiles of a bootstrap over
          stimuli, each draw over 10 splits for ``split_half``; NaN without draws and for fewer than three groups);
        - ``ceiling``: √ρ, 0 where ρ is negative;
        - ``usable``: whether ρ reaches the floor; :func:`noise_correct` divides by no other;
        - ``inflation``: factor on r/√ρ by repetitions left out, 1 where all are used, NaN where ρ is not positive;
        - ``half_r``: mean r of the splits before any correction (not for variance components);
        - ``n_stimuli``, ``n_repeated`` (stimuli with 2 or more repetitions), ``mean_repetitions`` (neuron).

        A neuron without a repeated stimulus, with fewer than three stimuli or without variance has the reliability
        NaN and is not usable.

    Raises
    ------
    InputError
        If there are averages alone, no neuron has any stimulus twice, or there are fewer than three stimuli.
    DataError
        If the responses are not valid.

    References
    ----------
    Spearman (1910) and Brown (1910), British Journal of Psychology 3; Sahani & Linden (2003), How linear are auditory
    cortical responses?, NIPS 15 (signal and noise power); Schoppe et al. (2016), Measuring the performance of neural
    models, Frontiers in Computational Neuroscience 10.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> random = np.random.default_rng(0)
    >>> values = random.normal(size=(500, 1, 1)) + random.normal(size=(500, 4, 1))
    >>> cells = xr.DataArray(values, dims=("stimulus", "repetition", "neuron"),
    ...                      coords={"stimulus": np.arange(500), "neuron": ["a"]})
    >>> neuron_reliability(cells).reliability.values.round(1).tolist()  # 1 / (1 + 1/4)
    [0.8]
    """
    array, values = _checked(responses)
    n_times = array.sizes.get("time", 1)
    present = ~np.isnan(values)
    estimates = {
        name: np.full(values.shape[2], np.nan) for name in ("reliability", "low", "high", "inflation", "half_r")
    }
    # Time bins of one presentation are there or missing together, so one bin tells the pattern of all.
    for shared, neurons in patterns(present[:, :, ::n_times]):
        columns = (neurons[:, None] * n_times + np.arange(n_times)).ravel()
        kept = np.asarray(shared.any(axis=1))
        if kept.sum() < 3 or shared.sum(axis=1).max() < 2:
            continue
        own = values[np.ix_(kept, np.ones(values.shape[1], dtype=bool), columns)]
        found = _estimate(own, shared[kept], _weights(array, kept, options), options)
        for name, value in found.items():
            estimates[name][columns] = value
    return _result(array, present[:, :, ::n_times].sum(axis=1), estimates, options)


def _checked(responses: xr.DataArray) -> tuple[xr.DataArray, np.ndarray]:
    """The recording, and its values as ``(stimuli, repetitions, neurons × times)``."""
    array = validate_responses(responses)
    name = str(array.name or array.attrs.get("name", "recording"))
    if "repetition" not in array.dims:
        raise InputError(
            f"recording {name!r} holds averages alone (dims {', '.join(map(str, array.dims))}): noise cannot be told "
            "from signal in a mean, so it has no ceiling; give the single presentations along 'repetition'"
        )
    if array.sizes["stimulus"] < 3:
        raise InputError(
            f"recording {name!r} has {array.sizes['stimulus']} stimuli, and a correlation over fewer than three says "
            "nothing; give 3 or more"
        )
    if (array.notnull().sum("repetition") < 2).all():
        raise InputError(
            f"recording {name!r} shows every stimulus once to every neuron, so noise cannot be told from signal; give "
            "at least two repetitions of some stimuli"
        )
    return array, array.values.reshape(array.sizes["stimulus"], array.sizes["repetition"], -1)


def _weights(array: xr.DataArray, kept: np.ndarray, options: NeuronReliabilityOptions) -> np.ndarray:
    """Bootstrap multiplicities of the stimuli that a neuron has, those of one group drawn together: ``(draws, n)``."""
    groups = np.unique(stimulus_groups(array)[kept], return_inverse=True)[1]
    n = int(groups.max()) + 1
    if n < 3:  # draws of one or two groups hardly differ, which would look like certainty
        return np.empty((0, len(groups)))
    return bootstrap_weights(n, options.n_draws, options.seed)[:, groups].astype(np.float64)


def _estimate(
    values: np.ndarray, present: np.ndarray, weights: np.ndarray, options: NeuronReliabilityOptions
) -> dict[str, np.ndarray]:
    """Estimates of neurons that miss the same repetitions; values are ``(stimuli, repetitions, neurons)``."""
    count = present.sum(axis=1)
    centre = np.nanmean(values, axis=(0, 1))
    filled = np.where(present[:, :, None], values - centre, 0.0)
    if options.method == "variance_components":
        found, draws = components(filled, present, weights)
        return {"reliability": found, "inflation": np.ones_like(found), **_interval(draws, options)}
    if options.method == "split_half":
        a, b = half_masks(present, options.n_splits, options.halves, options.seed)
    else:
        a, b = left_out_masks(present)
    repeated = count > 1
    if repeated.sum() < 3:
        return {}
    filled, a, b = filled[repeated], a[:, repeated], b[:, repeated]
    r = correlations(filled, a, b)
    shorter = options.method == "split_half" and options.halves == "even"
    noise_a, noise_b, noise = 1 / a.sum(axis=2), 1 / b.sum(axis=2), 1 / count
    # Even halves are taken to twice their length, which is not the number of repetitions where one was left out.
    whole = noise_a.mean(axis=1) / 2 if shorter else np.full(len(a), noise.mean())
    found = from_splits(r, noise_a.mean(axis=1), noise_b.mean(axis=1), whole, options.order)
    inflation = np.ones_like(found)
    if shorter:
        positive = np.where(found > 0, found, np.nan)
        ratio = (1 / positive - 1) / whole.mean()  # noise to signal in a single trial
        inflation = np.sqrt(1 / (1 + ratio * noise.mean()) / positive)
    chosen = slice(0, _BOOTSTRAPPED if options.method == "split_half" else None)
    of_chosen = from_splits(
        r[chosen], noise_a.mean(axis=1)[chosen], noise_b.mean(axis=1)[chosen], whole[chosen], options.order
    )
    draws = np.empty((len(weights), values.shape[2]))
    for start, stop in spans(draws.shape[1] if len(draws) else 0, _COLUMNS):
        draws[:, start:stop] = split_draws(
            filled[:, :, start:stop], a[chosen], b[chosen], noise, repeated, weights, shorter, options.order
        )
    # Draws of a few splits spread around the estimate of these few, and are moved to that of all.
    draws += found - of_chosen
    return {"reliability": found, "inflation": inflation, "half_r": mean(r), **_interval(draws, options)}


def _interval(draws: np.ndarray, options: NeuronReliabilityOptions) -> dict[str, np.ndarray]:
    """Percentiles of the draws, the undefined ones left out."""
    tail = (1 - options.confidence) / 2
    ends = np.full((2, draws.shape[1]), np.nan)
    defined = (~np.isnan(draws)).sum(axis=0) > 1
    if defined.any():
        ends[:, defined] = np.nanquantile(draws[:, defined], [tail, 1 - tail], axis=0)
    return {"low": ends[0], "high": ends[1]}


def _result(
    array: xr.DataArray, count: np.ndarray, estimates: dict[str, np.ndarray], options: NeuronReliabilityOptions
) -> xr.Dataset:
    """Lay the estimates out; `count` is ``(stimuli, neurons)``."""
    timed = "time" in array.dims
    dims = ("neuron", "time") if timed else ("neuron",)
    shape = tuple(array.sizes[dim] for dim in dims)
    rho = estimates["reliability"]
    usable = np.where(np.isnan(rho), -np.inf, rho) >= options.floor

    def variable(values: np.ndarray, name: str) -> tuple[Any, ...]:
        return (dims, values.reshape(shape), {"long_name": name, "units": "1"})

    def of_neuron(values: np.ndarray, name: str) -> tuple[Any, ...]:
        return ("neuron", values, {"long_name": name, "units": "1"})

    variables = {
        "reliability": variable(rho, "reliability of the mean over repetitions"),
        "interval_low": variable(estimates["low"], "lower end of the interval of the reliability"),
        "interval_high": variable(estimates["high"], "upper end of the interval of the reliability"),
        "ceiling": variable(np.sqrt(np.maximum(rho, 0.0)), "noise ceiling on r (√ reliability)"),
        "usable": variable(usable, "reliability reaches the floor"),
        "inflation": variable(estimates["inflation"], "factor on r/√ρ by repetitions left out"),
        "n_stimuli": of_neuron((count > 0).sum(axis=0), "stimuli"),
        "n_repeated": of_neuron((count > 1).sum(axis=0), "stimuli with two or more repetitions"),
        "mean_repetitions": of_neuron(count.sum(axis=0) / (count > 0).sum(axis=0), "repetitions of a stimulus, mean"),
    }
    if options.method != "variance_components":
        variables["half_r"] = variable(estimates["half_r"], "mean r of the splits, not corrected")
    coords = {name: value for name, value in array.coords.items() if set(value.dims) <= {*dims} and value.dims}
    return describe(
        xr.Dataset(variables, coords=coords),
        "neuron_reliability",
        options,
        {"responses": fingerprint(array)},
        recording=str(array.name or array.attrs.get("name", "recording")),
        method=options.method,
        floor=options.floor,
        seed=options.seed,
        n_below_floor=int((~usable).sum()),
        estimator_note=_note(options),
    )


def _note(options: NeuronReliabilityOptions) -> str:
    """The estimator in words, with its order of averaging."""
    if options.method == "variance_components":
        return "variance components, each stimulus with its own number of repetitions"
    order = {
        "correct_then_mean": "every split corrected, then the mean over splits",
        "mean_then_correct": "the mean r over splits, then corrected",
    }[options.order]
    if options.method == "leave_one_out":
        return f"one repetition against the mean of the others, taken to all repetitions; {order}"
    if options.halves == "even":
        return (
            f"{options.n_splits} random splits into even halves, odd repetitions left out, Spearman-Brown with the "
            f"factor 2; {order}"
        )
    return f"{options.n_splits} random splits with all repetitions, unequal halves by their own noise; {order}"


def noise_correct(
    r: xr.DataArray | np.ndarray | float,
    reliability: xr.Dataset | xr.DataArray | np.ndarray | float,
    *,
    by: Correction = "r/sqrt(rho)",
    floor: float = FLOOR,
) -> Any:
    """Correct scores of models for the noise of the neurons.

    Parameters
    ----------
    r : xarray.DataArray, numpy.ndarray or float
        Correlations of predictions with mean responses, −1 to 1.
    reliability : xarray.Dataset, xarray.DataArray, numpy.ndarray or float
        The reliability ρ of these mean responses, or the result of :func:`neuron_reliability`; broadcast against r. A
        DataArray with neurons must have those of r, in any order.
    by : {"r/sqrt(rho)", "r2/rho", "(r/rho)2"}
        ``"r/sqrt(rho)"`` is the correlation with the noise-free response, ``"r2/rho"`` the share of its variance that
        is explained. ``"(r/rho)2"`` was in use in benchmarks until 2026 and is too large by 1/ρ; it serves to compare
        with published numbers. The squared forms keep the sign of r: a negative correlation explains nothing.
    floor : float
        Least reliability that is divided by.

    Returns
    -------
    xarray.DataArray, numpy.ndarray or float
        As r; NaN where the reliability is below the floor or undefined. Values above 1 are left as they are: noise in
        r and ρ makes some.

    Raises
    ------
    InputError
        If r is outside −1 … 1, the neurons differ, or the name of the correction is unknown.

    References
    ----------
    Spearman (1904), The proof and measurement of association between two things, American Journal of Psychology 15.

    Examples
    --------
    >>> [round(float(noise_correct(0.1, 0.083, by=by, floor=0.05)), 2) for by in ("r/sqrt(rho)", "r2/rho", "(r/rho)2")]
    [0.35, 0.12, 1.45]
    """
    rho = reliability["reliability"] if isinstance(reliability, xr.Dataset) else reliability
    given: list[Any] = [x if isinstance(x, xr.DataArray) else np.asarray(x, dtype=np.float64) for x in (r, rho)]
    if by not in ("r/sqrt(rho)", "r2/rho", "(r/rho)2"):
        raise InputError(f"there is no noise correction {by!r}; there are 'r/sqrt(rho)', 'r2/rho' and '(r/rho)2'")
    if not floor >= 0:
        raise InputError(f"the floor is {floor}, below which nothing can be divided; give 0 or more")
    size = np.abs(np.asarray(r, dtype=np.float64))
    if (size > 1 + 1e-9).any():
        raise InputError(f"r holds {np.nanmax(size):.3g}, which is no correlation; give r itself, not r² or percent")
    if all(isinstance(x, xr.DataArray) and "neuron" in x.indexes for x in given):
        given = [x.assign_coords(neuron=x["neuron"].values.astype(str)) for x in given]
        alone = sorted(set(given[0]["neuron"].values) ^ set(given[1]["neuron"].values))
        if alone:
            raise InputError(
                f"scores and reliabilities are of different neurons ({str(alone[0])!r} is in one of them only, "
                f"{len(alone)} such in all); select the same"
            )
    r, rho = given
    known = rho >= max(floor, np.finfo(float).tiny)
    safe = xr.where(known, rho, 1.0) if isinstance(rho, xr.DataArray) else np.where(known, rho, 1.0)
    if by == "r/sqrt(rho)":
        value = r / safe**0.5
    else:
        value = np.sign(r) * (r**2 / safe if by == "r2/rho" else (r / safe) ** 2)
    if isinstance(value, xr.DataArray):
        return value.where(known)
    result = np.where(known, value, np.nan)
    return result if result.ndim else float(result)


def population_split_half(
    responses: xr.DataArray,
    *,
    compare: Compare = "spearman",
    method: Literal["correlation", "cosine", "euclidean", "sqeuclidean"] = "correlation",
    halves: Halves = "all",
    standardise: bool = False,
    n_splits: int = 20,
    seed: int = 0,
) -> xr.DataArray:
    """Compare the population's RDMs of two halves of the repetitions.

    Parameters
    ----------
    responses : xarray.DataArray
        Dims stimulus, repetition, neuron; each stimulus twice or more.
    compare : str
        Measure that compares the two RDMs.
    method : {"correlation", "cosine", "euclidean", "sqeuclidean"}
        Dissimilarity between two population patterns.
    halves : {"all", "even"}
        All repetitions, or even halves that leave an odd one out.
    standardise : bool
        Whether each half's neurons are z-scored over stimuli first; neurons with high rates then count no more than
        others, and RDMs of noisy neurons become less reliable.
    n_splits : int
        Random splits.
    seed : int
        Seed of the splits.

    Returns
    -------
    xarray.DataArray
        ``(split,)`` scores of one half's RDM with the other's, not corrected for length.

    Raises
    ------
    InputError
        If there are averages alone or time bins, or a half leaves a neuron without a value.
    """
    array, values = _checked(responses)
    if "time" in array.dims:
        raise InputError("the recording has time bins, of which each has RDMs of its own; select one time")
    present = ~np.isnan(values)
    shared = present.any(axis=2)
    if (shared.sum(axis=1) < 2).any() or (present != shared[:, :, None]).any():
        raise InputError(
            "some stimulus has fewer than two repetitions, or neurons miss different ones, so that its pattern has no "
            "two halves; leave these stimuli or neurons out"
        )
    filled = np.where(present, values, 0.0)
    found = np.empty(n_splits)
    for split, masks in enumerate(zip(*half_masks(shared, n_splits, halves, seed), strict=True)):
        sides = [means(filled, mask) for mask in masks]
        if standardise:
            sides = [(x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0) for x in sides]
        vectors = rdm({str(k): x for k, x in enumerate(sides)}, method=method, progress=False)[VARIABLE].values
        found[split] = scores(vectors[:1], vectors[1:], compare)[0, 0]
    return xr.DataArray(
        found, dims="split", name="split_half", attrs={"long_name": "score between halves' RDMs", "units": "1"}
    )


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the reliability of every neuron; see :func:`actkit.analyses.neuron_reliability_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`neuron_reliability` returned.
    **settings
        Settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import neuron_reliability_plot

    return neuron_reliability_plot.plot(result, **settings)
