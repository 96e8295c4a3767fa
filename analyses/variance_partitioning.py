"""Variance partitioning: what a feature space explains of neurons that no other does, and what several share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from actkit.analyses.encoding_bands import band_grams, candidate_weights, crossvalidate, open_bands
from actkit.analyses.encoding_gram import warn_copies
from actkit.analyses.encoding_inference import median_interval
from actkit.analyses.encoding_recording import recorded_problem
from actkit.analyses.encoding_ridge import PENALTIES, ascending, warn_edges
from actkit.analyses.encoding_scores import about, divided, explained_variance, mean_of_defined, median_of_defined
from actkit.analyses.neuron_reliability import FLOOR
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint

__all__ = ["PartitionOptions", "partition_variance", "parts_of"]

_MOST = 4  # bands: 15 models
Subset = tuple[int, ...]


class PartitionOptions(Options):
    """Options of :func:`partition_variance`."""

    layers: list[str] | None = Field(
        None,
        description="Where the bands are the layers of one source: names or patterns of those to take (* within a "
        "component, ** across dots); all by default.",
    )
    model: Literal["banded", "ridge"] = Field(
        "banded",
        description="How several bands predict together: each with a weight that the neuron chooses (banded ridge), or "
        "all scaled to one size, with one penalty (ridge).",
    )
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split; each is predicted from the rest.")
    inner_folds: int = Field(
        5, ge=2, description="Parts of the training stimuli, over which weights and penalties are chosen."
    )
    penalties: list[float] = Field(
        PENALTIES,
        min_length=1,
        description="Penalties to choose from, as multiples of the mean squared length of the centred training "
        "patterns, to which every band is scaled.",
    )
    n_candidates: int = Field(
        40, ge=1, description="Banded: weights to choose from for every subset of two or more bands."
    )
    reliability_floor: float = Field(
        FLOOR, gt=0, le=1, description="Neurons below this reliability are reported and not corrected for noise."
    )
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws of neurons for the intervals of medians.")
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds, candidates and draws.")

    @field_validator("penalties")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        return ascending(values)


@with_options(PartitionOptions)
def partition_variance(
    bands: Any,
    responses: xr.DataArray,
    reliability: Any = None,
    groups: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: PartitionOptions,
) -> xr.Dataset:
    """Divide the variance that two to four feature spaces explain of each neuron into unique and shared parts.

    Every subset of the bands predicts the neurons on held-out stimuli, in the same folds. With E(T) the held-out share
    of variance that the bands in T explain, and E of no band 0, the part that belongs to all bands of a subset A and to
    no other band is

        C_A = Σ over B ⊆ A of (−1)^(|B| + 1) E(Aᶜ ∪ B)

    with Aᶜ the other bands; for a single band, E(all) − E(all others), its unique part. The parts of a neuron add up to
    E(all).

    Parameters
    ----------
    bands : mapping, ActivationStore, path or xarray.Dataset
        As for :func:`actkit.analyses.encoding_banded.encode_banded`; two to four.
    responses : xarray.DataArray
        A recording with the dims (stimulus, repetition, neuron), or averages (stimulus, neuron).
    reliability : xarray.Dataset, xarray.DataArray, mapping of neuron to number, or sequence, optional
        Reliability ρ of each neuron's average; with it, shares are divided by ρ as well.
    groups : str, sequence or mapping, optional
        Stimuli of one group are never split; by default the coordinate ``group`` of the recording.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the subsets; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``explained_variance`` and ``r`` (subset, neuron): held-out scores of every subset of bands, single ones first;
        ``median_explained``, ``explained_low``, ``explained_high`` (subset): medians, with intervals as below.
        ``share`` (part, neuron): the parts C_A. ``median_share``, ``share_low``, ``share_high`` (part): medians over
        neurons with 95 % bootstrap intervals over neurons, which speak of new neurons and not of new stimuli;
        ``mean_share`` (part), means, which add up as the parts of a neuron do. With reliability: ``reliability``,
        ``share_corrected``, ``explained_variance_corrected`` and ``median_share_corrected``. The coordinates ``subset``
        and ``part`` name bands joined by " + "; ``member`` (part, band) is 1 for the bands of a part.

    Raises
    ------
    InputError
        If there are fewer than two or more than four bands, and as for
        :func:`actkit.analyses.encoding_banded.encode_banded`.
    DataError
        If the recording is not valid, or a neuron lacks the response to a stimulus.
    LayerError
        If a layer does not exist.

    Warns
    -----
    UserWarning
        If chosen penalties lie at the edge of the grid, or copies of a stimulus are in different folds.

    Notes
    -----
    Parts are differences of held-out scores and can be negative: a unique part where a band that adds nothing costs
    some prediction, a shared part also where bands suppress each other's irrelevant variance. They are kept as they
    are. A shared part says that either band serves to predict it, not that the bands hold the same features.

    References
    ----------
    Lescroart, Stansbury & Gallant (2015), Fourier power, subjective distance, and object categories all provide
    plausible models of BOLD responses in scene-selective visual areas, Front. Comput. Neurosci. 9; de Heer, Huth,
    Griffiths, Gallant & Theunissen (2017), J. Neurosci. 37; commonality analysis: Mood (1971), Am. Educ. Res. J. 8.
    """
    opened = open_bands(bands, ids, options.layers)
    if not 2 <= len(opened) <= _MOST:
        raise InputError(
            f"{len(opened)} bands: a partition has two to {_MOST}, since every subset is a model; "
            + ("give another" if len(opened) < 2 else "join some, such as (source, ['conv1', 'conv2'])")
        )
    choosing = len(options.penalties) > 1 or options.model == "banded"
    problem = recorded_problem(
        responses, reliability, groups, options.folds, options.inner_folds if choosing else 0, options.seed
    )
    grams, twins = band_grams(opened, problem.stimuli, options.memory)
    subsets = subsets_of(len(opened))
    explained, r, low, high, choices = {}, [], 0, 0, 0
    for chosen in progress_bar(subsets, desc="partitioning", unit="model", enabled=progress):
        candidates = candidate_weights(
            len(chosen), options.n_candidates if options.model == "banded" else 1, options.seed
        )
        scores = crossvalidate(
            [grams[number] for number in chosen],
            problem,
            candidates,
            np.array(options.penalties),
            options.folds,
            options.inner_folds,
            options.seed,
        )
        explained[chosen] = explained_variance(scores.error, scores.spread)
        r.append(mean_of_defined(scores.r, axis=0))
        low, high, choices = low + scores.low, high + scores.high, choices + scores.r.size
    warn_edges(low, high, choices, "subset, fold, neuron", options.penalties)
    warn_copies(twins, problem.test_fold, problem.stimuli)

    parts = parts_of(explained)
    names = [band.name for band in opened]
    share = np.stack([parts[chosen] for chosen in subsets])
    ends = median_interval(share, options.n_draws, options.seed)
    every = np.stack([explained[chosen] for chosen in subsets])
    around = median_interval(every, options.n_draws, options.seed)
    data: dict[str, Any] = {
        "explained_variance": (
            ("subset", "neuron"),
            every,
            about("held-out share of variance explained by the subset"),
        ),
        "median_explained": ("subset", median_of_defined(every, axis=1), about("median over neurons of it")),
        "explained_low": ("subset", around[0], about("lower end of the median's 95 % interval")),
        "explained_high": ("subset", around[1], about("upper end of the median's 95 % interval")),
        "r": (("subset", "neuron"), np.stack(r), about("held-out correlation, mean over folds")),
        "share": (("part", "neuron"), share, about("share of variance of the part")),
        "median_share": ("part", median_of_defined(share, axis=1), about("median share over neurons")),
        "mean_share": ("part", _mean(share), about("mean share over neurons")),
        "share_low": ("part", ends[0], about("lower end of the median's 95 % interval")),
        "share_high": ("part", ends[1], about("upper end of the median's 95 % interval")),
        "member": (
            ("part", "band"),
            np.array([[number in chosen for number in range(len(names))] for chosen in subsets]).astype(np.int8),
            about("1 for the bands of the part"),
        ),
    }
    if problem.rho is not None:
        floor = options.reliability_floor
        fixed = divided(share, problem.rho, floor)
        data |= {
            "reliability": ("neuron", problem.rho, about("reliability of the average over repetitions")),
            "share_corrected": (("part", "neuron"), fixed, about("share of the noise-free variance")),
            "explained_variance_corrected": (
                ("subset", "neuron"),
                divided(every, problem.rho, floor),
                about("held-out share of the noise-free variance explained"),
            ),
            "median_share_corrected": ("part", median_of_defined(fixed, axis=1), about("median over neurons")),
        }
    joined = [" + ".join(names[number] for number in chosen) for chosen in subsets]
    coords = {
        "subset": joined,
        "part": joined,
        "band": names,
        "neuron": problem.neurons,
        "stimulus": problem.stimuli,
        "test_fold": ("stimulus", problem.test_fold),
    }
    return describe(
        xr.Dataset(data, coords=coords),
        "variance_partitioning",
        options,
        {
            "responses": fingerprint(problem.averaged),
            **{f"band {band.name}": band.source.fingerprint() for band in opened},
        },
        bands=names,
        model=options.model,
        **problem.attrs(options.folds, options.reliability_floor),
        interval=f"95 % percentile bootstrap of the median, {options.n_draws} draws of neurons, which it generalises "
        "to (stimuli and fits as they are)"
        if options.n_draws
        else None,
        seed=options.seed,
    )


def subsets_of(n: int) -> list[Subset]:
    """List the subsets of n bands, single ones first, all of them last.

    Parameters
    ----------
    n : int
        Number of bands.

    Returns
    -------
    list of tuple of int
        ``2**n − 1`` subsets.
    """
    return [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]


def parts_of(explained: Mapping[Subset, np.ndarray]) -> dict[Subset, np.ndarray]:
    """Divide what the whole explains into the parts of all subsets, by inclusion and exclusion.

    Parameters
    ----------
    explained : mapping of tuple of int to numpy.ndarray
        For every subset of the bands ``(n_neurons,)`` what it explains.

    Returns
    -------
    dict of tuple of int to numpy.ndarray
        For every subset the part that all its bands explain and no other; they add up to what all bands explain.

    References
    ----------
    Mood (1971), Partitioning variance in multiple regression analyses as a tool for developing learning models, Am.
    Educ. Res. J. 8.
    """
    everything = max(explained, key=len)
    parts = {}
    for chosen in explained:
        others = [number for number in everything if number not in chosen]
        total = np.zeros_like(explained[everything])
        for size in range(len(chosen) + 1):
            for some in combinations(chosen, size):
                union = tuple(sorted([*others, *some]))
                if union:  # no band explains nothing
                    total = total + (-1) ** (size + 1) * explained[union]
        parts[chosen] = total
    return parts


def _mean(share: np.ndarray) -> np.ndarray:
    """Mean over the neurons that have a score."""
    known = np.isfinite(share).all(axis=0)
    return share[:, known].mean(axis=1) if known.any() else np.full(len(share), np.nan)
