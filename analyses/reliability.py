"""Split-half reliability of RDMs within a subject, and the bound that it puts on a noise-free model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field
from scipy import stats

from actkit.analyses.comparison import Compare, prepared, scores
from actkit.analyses.measures import KENDALL, RANKED
from actkit.analyses.rdm import rdm
from actkit.compute import progress as progress_bar
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, has_time, leading_dim, validate_rdms
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PlainMethod = Literal["correlation", "cosine", "euclidean", "sqeuclidean"]

# Permutations of stimulus labels number their streams from 0 and never get here.
_SPLITS = 2**63
_BLOCK = 32  # splits whose halves are held at a time
_LISTED = 5000  # up to so many possible splits, they are listed, and none is drawn twice

Halves = list[tuple[np.ndarray, np.ndarray]]
_NOTE = (
    "split-half reliability within a subject: r between the RDMs of two halves; Spearman-Brown for the full number of "
    "repetitions applied to every split, then the mean over splits; bound = its square root, the score of a noise-free "
    "model with this subject's RDM (0 where the reliability is negative); no ceiling between subjects"
)


class ReliabilityOptions(Options):
    """Options of :func:`reliability`."""

    compare: Compare = Field("spearman", description="Measure that compares the RDMs of two halves.")
    method: PlainMethod = Field("correlation", description="Of recordings: dissimilarity between two patterns.")
    n_splits: int = Field(
        200, ge=1, description="Most splits into halves; all of them where sessions are few enough, else random ones."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of random splits.")


def spearman_brown(r: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """Predict the reliability of a longer measurement from that of a shorter one.

    Parameters
    ----------
    r : numpy.ndarray
        Correlation between two halves.
    factor : float or numpy.ndarray
        How many times longer the whole is than a half: 2, or m / (m // 2) for m repetitions of which an odd one was
        left out of the halves.

    Returns
    -------
    numpy.ndarray
        ``factor r / (1 + (factor − 1) r)``. For negative r, where that has a pole at −1 / (factor − 1), its mirror
        image ``factor r / (1 + (factor − 1) |r|)``: halves of pure noise then average to 0, where the plain formula
        gives numbers like −18 for r = −0.9.

    References
    ----------
    Spearman (1910) and Brown (1910), British Journal of Psychology 3; Krus & Helmstadter (1993), The problem of
    negative reliabilities, Educational and Psychological Measurement 53 (the form for negative values).

    Examples
    --------
    >>> spearman_brown(np.array([0.5, -0.9]), 2).round(3).tolist()
    [0.667, -0.947]
    """
    r = np.asarray(r, dtype=np.float64)
    return factor * r / (1 + (factor - 1) * np.abs(r))


@with_options(ReliabilityOptions)
def reliability(
    data: xr.Dataset | xr.DataArray | Mapping[str, xr.DataArray],
    progress: bool | None = None,
    *,
    options: ReliabilityOptions,
) -> xr.Dataset:
    """Estimate how reliable one subject's RDM is, by comparing the RDMs of random halves of its repetitions.

    Each split gives r, the score of one half's RDM with the other's. Spearman-Brown takes every r to the reliability ρ
    of all repetitions together, and ρ is the mean over splits (in this order: the mean first gives another number).
    With classical test theory a noise-free model scores √ρ with the subject's full RDM, which is the ``bound``.

    For RDMs of sessions, a half is the mean of its RDMs, each scaled as the measure scales them (ranks, z-scores, unit
    norm). For recordings, a half is the mean response over its repetitions, of which the RDM is taken; noise in
    distances then shrinks faster than with the number of repetitions where it exceeds the signal, so that ρ is
    somewhat too low. An odd number of repetitions leaves a random one out of each split. For rank measures and
    Kendall's tau, Spearman-Brown is an approximation.

    Parameters
    ----------
    data : xarray.Dataset, xarray.DataArray or mapping of str to xarray.DataArray
        An RDM dataset of repetitions (sessions, runs) along its leading dim; a coordinate ``subject`` along it says
        whose they are, and each subject is estimated by itself. Or a recording with the dims ``stimulus``,
        ``repetition`` (NaN where a stimulus has fewer), ``neuron`` and perhaps ``subject``; or one for each subject.
        Either with or without ``time``.
    progress : bool, optional
        Show a bar; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims subject, split and, where the data have it, time:

        - ``split_half`` (subject, split[, time]): r of each split; NaN beyond a subject's number of splits and where a
          half's RDM is undefined or constant;
        - ``split_half_mean``, ``reliability`` (ρ), ``bound`` (√ρ, 0 where ρ is negative) (subject[, time]);
        - ``n_splits``, ``n_negative`` (splits with negative r) (subject[, time]) and ``n_repetitions`` (subject).

    Raises
    ------
    InputError
        If a subject has fewer than two repetitions (of any stimulus), there are fewer than three stimuli, an RDM has
        missing pairs, or the data have no repetitions.

    References
    ----------
    Lage-Castellanos et al. (2019), Methods for computing the maximum performance of computational models of fMRI
    responses, PLoS Computational Biology 15 (the bound).
    """
    if isinstance(data, xr.Dataset):
        parts, time, kind = _from_rdms(data, options), _time_of(data), "sessions"
    else:
        arrays = _recordings(data)
        time, kind = _time_of(next(iter(arrays.values()))), "repetitions"
        bar = progress_bar(list(arrays.items()), desc="reliability", unit="subject", enabled=progress)
        parts = {name: _from_recording(name, array, options) for name, array in bar}
    content = data if not isinstance(data, Mapping) or isinstance(data, xr.Dataset) else dict(data)
    attrs = data.attrs if isinstance(data, xr.Dataset | xr.DataArray) else {}
    name = str(attrs.get("name") or getattr(data, "name", None) or "recording")
    return describe(
        _result(parts, time),
        "noise_ceiling",
        options,
        {"data": fingerprint(content)},
        compare=options.compare,
        data=name,
        within="repetition",
        n_subjects=len(parts),
        seed=options.seed,
        simulated=bool(attrs.get("simulated", False)),
        repetitions=kind,
        ceiling_note=_NOTE,
    )


def _result(parts: Mapping[str, tuple[np.ndarray, float, int]], time: xr.DataArray | None) -> xr.Dataset:
    """Gather subjects: r (splits, times), the factor of Spearman-Brown, and the number of repetitions of each."""
    most = max(len(r) for r, _, _ in parts.values())
    split = np.stack([np.pad(r, ((0, most - len(r)), (0, 0)), constant_values=np.nan) for r, _, _ in parts.values()])
    factor = np.array([f for _, f, _ in parts.values()])
    whole = spearman_brown(split, factor[:, None, None])
    defined = ~np.isnan(split)
    count = defined.sum(axis=1)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.where(defined, values, 0.0).sum(axis=1)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    rho = mean(whole)
    along = ("subject", "time") if time is not None else ("subject",)

    def variable(values: np.ndarray, name: str) -> tuple[Any, ...]:
        return (along, values if time is not None else values[:, 0], {"long_name": name, "units": "1"})

    return xr.Dataset(
        {
            "split_half": (
                ("subject", "split", "time")[: 2 + (time is not None)],
                split if time is not None else split[..., 0],
                {"long_name": "score of one half's RDM with the other's", "units": "1"},
            ),
            "split_half_mean": variable(mean(split), "mean score of the halves"),
            "reliability": variable(rho, "reliability of all repetitions (Spearman-Brown)"),
            "bound": variable(np.sqrt(np.maximum(rho, 0.0)), "bound on a noise-free model, within a subject"),
            "n_splits": variable(count, "splits with a defined score"),
            "n_negative": variable((split < 0).sum(axis=1), "splits with a negative score"),
            "n_repetitions": ("subject", [n for _, _, n in parts.values()], {"long_name": "repetitions", "units": "1"}),
        },
        coords={"subject": list(parts)} | ({} if time is None else {"time": time}),
    )


def _time_of(data: xr.Dataset | xr.DataArray) -> xr.DataArray | None:
    """The time coordinate of data with time bins."""
    dims = data[VARIABLE].dims if isinstance(data, xr.Dataset) and VARIABLE in data else data.dims
    if "time" not in dims:
        return None
    return data["time"] if "time" in data.coords else xr.DataArray(np.arange(data.sizes["time"]), dims="time")


# --------------------------------------------------------------------------------------------------------------------
# RDMs of sessions


def _from_rdms(rdms: xr.Dataset, options: ReliabilityOptions) -> dict[str, tuple[np.ndarray, float, int]]:
    """Split the sessions of each subject."""
    validate_rdms(rdms)
    dim = leading_dim(rdms, time=True)
    title = f"RDMs of {rdms.attrs.get('name', 'unnamed')!r}"
    values = rdms[VARIABLE].values.astype(np.float64)
    values = values if has_time(rdms) else values[:, None]
    if rdms.sizes["stimulus"] < 3:
        raise InputError(
            f"{title} are over {rdms.sizes['stimulus']} stimuli; one pair cannot correlate; give 3 or more"
        )
    missing = np.isnan(values).any(axis=(1, 2))
    if missing.any():
        named = ", ".join(repr(str(value)) for value in rdms[dim].values[missing][:5])
        raise InputError(
            f"{title}: pairs are missing in {named}, so halves would not be over the same pairs; leave it out"
        )
    owner = np.full(rdms.sizes[dim], str(rdms.attrs.get("name", "data")))
    if "subject" in rdms.coords and dim != "subject" and rdms["subject"].dims == (dim,):
        owner = rdms["subject"].values.astype(str)
    elif dim == "subject":
        raise InputError(
            f"{title} run along subject, one RDM each, and reliability within a subject needs several; give sessions "
            "along 'rdm' with the coordinate 'subject', or ask for the ceiling between subjects"
        )
    found: dict[str, tuple[np.ndarray, float, int]] = {}
    for subject in dict.fromkeys(owner.tolist()):
        own = values[owner == subject]
        if len(own) < 2:
            raise InputError(
                f"{title}: {subject!r} has a single RDM, which cannot be split; give 2 or more, or leave it out"
            )
        halves = _halves(len(own), options)
        r = np.stack([_split_scores(own[:, t], halves, options.compare) for t in range(values.shape[1])], axis=1)
        found[subject] = (r, len(own) / (len(own) // 2), len(own))
    return found


def _halves(m: int, options: ReliabilityOptions) -> Halves:
    """Splits of m repetitions into two halves of m // 2: all of them if they are few enough, else random ones."""
    h = m // 2
    # Even: each split is met twice, once from each half, so the first repetition is fixed on one side.
    every = comb(m, h) // 2 if m % 2 == 0 else m * comb(m - 1, h) // 2
    if every > max(options.n_splits, _LISTED):
        orders = (
            generator(options.seed, _SPLITS + k, Stream.PERMUTATIONS).permutation(m) for k in range(options.n_splits)
        )
        return [(order[:h], order[h : 2 * h]) for order in orders]
    found: Halves = []
    for left_out in [None] if m % 2 == 0 else range(m):
        first, *rest = [k for k in range(m) if k != left_out]
        for others in combinations(rest, h - 1):
            found.append((np.array([first, *others]), np.array([k for k in rest if k not in others])))
    if every <= options.n_splits:
        return found
    chosen = generator(options.seed, _SPLITS, Stream.PERMUTATIONS).permutation(every)[: options.n_splits]
    return [found[k] for k in chosen]


def _split_scores(rdms: np.ndarray, halves: Halves, compare: Compare) -> np.ndarray:
    """Scores between the mean RDMs of two halves, of RDMs brought to one scale first: ``(splits,)``."""
    if compare in RANKED or compare in KENDALL:
        scaled = stats.rankdata(rdms, axis=1)
    else:
        scaled = prepared(rdms, compare)
    return np.array(
        [scores(scaled[a].mean(axis=0)[None], scaled[b].mean(axis=0)[None], compare)[0, 0] for a, b in halves]
    )


# --------------------------------------------------------------------------------------------------------------------
# recordings


def _recordings(data: Any) -> dict[str, xr.DataArray]:
    """One recording for each subject."""
    if isinstance(data, xr.DataArray):
        if "subject" in data.dims:
            labels = data["subject"].values if "subject" in data.coords else np.arange(data.sizes["subject"])
            return {str(label): data.isel(subject=k, drop=True) for k, label in enumerate(labels)}
        return {str(data.name or "recording"): data}
    if isinstance(data, Mapping) and data and all(isinstance(array, xr.DataArray) for array in data.values()):
        arrays = {str(key): array for key, array in data.items()}
        times = [_time_of(array) for array in arrays.values()]
        first = times[0]
        for name, time in zip(arrays, times, strict=True):
            same = time is None if first is None else time is not None and np.array_equal(time.values, first.values)
            if not same:
                raise InputError(f"recording {name!r} has another time axis than the first; bring all to one")
        return arrays
    raise InputError(
        f"reliability needs RDMs of sessions or a recording with repetitions, not a {type(data).__name__}; give an RDM "
        "dataset, a DataArray, or a mapping of subjects to DataArrays"
    )


def _from_recording(name: str, array: xr.DataArray, options: ReliabilityOptions) -> tuple[np.ndarray, float, int]:
    """Scores between the RDMs of two halves of the repetitions: ``(splits, times)``, the factor, the repetitions."""
    lacking = [dim for dim in ("stimulus", "repetition") if dim not in array.dims]
    if lacking:
        raise InputError(
            f"recording {name!r} has the dims {array.dims} and lacks {' and '.join(lacking)}; rename the right"
        )
    if array.sizes["stimulus"] < 3:
        raise InputError(f"recording {name!r} has {array.sizes['stimulus']} stimuli; one pair cannot correlate; give 3")
    time = ("time",) if "time" in array.dims else ()
    values = array.transpose("stimulus", "repetition", ..., *time).values.astype(np.float64)
    n, m = values.shape[:2]
    n_times = values.shape[-1] if time else 1
    values = values.reshape(n, m, -1, n_times)  # stimulus, repetition, neuron, time
    values = values[:, :, ~np.isnan(values).all(axis=(0, 1, 3))]
    present = np.asarray(~np.isnan(values).all(axis=(2, 3)))
    count = present.sum(axis=1)
    if (count < 2).any():
        ids = array["stimulus"].values if "stimulus" in array.coords else np.arange(n)
        named = ", ".join(repr(str(ids[k])) for k in np.flatnonzero(count < 2)[:5])
        raise InputError(
            f"recording {name!r}: fewer than two repetitions of {named}, so it has no two halves; leave these stimuli "
            "out"
        )
    shared = _halves(m, options) if present.all() else None
    n_splits = options.n_splits if shared is None else len(shared)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    out = np.full((n_splits, n_times), np.nan)
    for start, stop in spans(n_splits, max(1, _BLOCK // n_times)):
        halves: dict[str, np.ndarray] = {}
        for split in range(start, stop):
            sides = _taken(present, split, options.seed) if shared is None else _taken_together(shared[split], n, m)
            for side, taken in zip("ab", sides, strict=True):
                patterns = _mean_over(taken, filled, known)
                if np.isnan(patterns).any():
                    raise InputError(
                        f"recording {name!r}: a half of the repetitions leaves a neuron without any value for a "
                        "stimulus; leave out neurons with fewer than a few repetitions of every stimulus"
                    )
                halves |= {f"{split}{side}{t}": patterns[..., t] for t in range(n_times)}
        found = rdm(halves, method=options.method, progress=False)
        vectors = dict(zip(found["layer"].values.tolist(), found[VARIABLE].values, strict=True))
        for split in range(start, stop):
            for t in range(n_times):
                a, b = vectors[f"{split}a{t}"], vectors[f"{split}b{t}"]
                out[split, t] = scores(a[None], b[None], options.compare)[0, 0]
    # With unequal numbers of repetitions, the whole is on average this much longer than a half.
    factor = float(count.mean() / (count // 2).mean())
    return out, factor, int(count.min())


def _taken_together(halves: tuple[np.ndarray, np.ndarray], n: int, m: int) -> list[np.ndarray]:
    """Which repetitions the halves take: the same for all stimuli, so that what those of one run share stays in one."""
    sides = np.zeros((2, n, m))
    for side, half in zip(sides, halves, strict=True):
        side[:, half] = 1.0
    return list(sides)


def _taken(present: np.ndarray, split: int, seed: int) -> list[np.ndarray]:
    """Which repetitions the halves take where stimuli have different ones: each stimulus is split by itself."""
    keys = generator(seed, _SPLITS + split, Stream.PERMUTATIONS).random(present.shape)
    places = np.argsort(np.argsort(np.where(present, keys, np.inf), axis=1), axis=1)
    half = (present.sum(axis=1) // 2)[:, None]
    return [(places < half).astype(np.float64), ((places >= half) & (places < 2 * half)).astype(np.float64)]


def _mean_over(taken: np.ndarray, filled: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean response over the taken repetitions, ``(stimuli, neurons, times)``; NaN where none is known."""
    total = np.einsum("nm,nmpt->npt", taken, filled)
    number = np.einsum("nm,nmpt->npt", taken, known.astype(np.float64))
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the splits, the reliability and the bound of every subject.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`reliability` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import noise_ceiling_plot

    return noise_ceiling_plot.plot(result, **settings)
