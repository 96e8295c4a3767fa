"""RDM datasets: one schema for the dissimilarities of layers, subjects and models, checked, aligned by id, convertible.

An RDM dataset is a plain :class:`xarray.Dataset` with the variable ``dissimilarity`` of dims ``(<leading>, pair)``, or
``(<leading>, time, pair)`` for an RDM in each time bin. The leading dim is one of ``layer``, ``subject``, ``model`` or
``rdm`` and carries names; ``time`` carries the centres of the bins. Pairs run over the upper triangle row by row, the
order of :func:`scipy.spatial.distance.squareform`, of the coordinate ``stimulus`` (ids). NaN marks a pair without a
value.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from actkit.errors import InputError, nearest
from actkit.recordings_exchange import from_rsatoolbox, to_rsatoolbox
from actkit.recordings_meadows import load_meadows
from actkit.recordings_schema import (
    LEADING_DIMS,
    VARIABLE,
    has_time,
    leading_dim,
    n_pairs,
    pair_positions,
    rdm_dataset,
    time_coordinate,
    to_vectors,
    validate_rdms,
    words,
)

__all__ = [
    "LEADING_DIMS",
    "VARIABLE",
    "align_rdms",
    "category_rdms",
    "concatenate_rdms",
    "from_rsatoolbox",
    "has_time",
    "leading_dim",
    "load_meadows",
    "n_pairs",
    "pair_positions",
    "rdm_dataset",
    "select_stimuli",
    "squares",
    "time_coordinate",
    "to_rsatoolbox",
    "to_vectors",
    "validate_rdms",
]


def squares(rdms: xr.Dataset) -> np.ndarray:
    """Unfold an RDM dataset to matrices.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset of k RDMs over n stimuli.

    Returns
    -------
    numpy.ndarray
        ``(k, n, n)``, or ``(k, times, n, n)`` where there is an RDM for each time bin; symmetric with a zero diagonal,
        in the dtype of the dataset.
    """
    leading_dim(rdms, time=True)
    n = rdms.sizes["stimulus"]
    vectors = rdms[VARIABLE].values
    matrices = np.zeros((*vectors.shape[:-1], n, n), dtype=vectors.dtype)
    row, column = np.triu_indices(n, 1)
    matrices[..., row, column] = vectors
    matrices[..., column, row] = vectors
    return matrices


def select_stimuli(rdms: xr.Dataset, ids: Sequence[Hashable] | np.ndarray) -> xr.Dataset:
    """Take a subset of the stimuli, or another order of them, by id.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset.
    ids : sequence of str
        The ids to keep, in the wanted order; each at most once.

    Returns
    -------
    xarray.Dataset
        An RDM dataset over `ids`.

    Raises
    ------
    InputError
        Naming ids that the dataset does not have, or that are asked for twice.
    """
    leading_dim(rdms, time=True)
    wanted = words(ids)
    own = words(rdms["stimulus"].values)
    title = f"RDMs of {rdms.attrs.get('name', 'unnamed')!r}"
    where = {value: number for number, value in enumerate(own.tolist())}
    missing = [value for value in wanted.tolist() if value not in where]
    if missing:
        raise InputError(f"{title} lack {_shown(missing)}; {nearest(missing[0], own.tolist())}")
    if len(set(wanted.tolist())) != len(wanted):
        raise InputError(f"{title}: a stimulus is selected twice; pairs of copies have no dissimilarity, name it once")
    take = np.array([where[value] for value in wanted.tolist()], dtype=np.int64)
    if np.array_equal(take, np.arange(len(own))):
        return rdms
    row, column = np.triu_indices(len(take), 1)
    positions = pair_positions(len(own), take[row], take[column])
    smaller = rdms.drop_vars(VARIABLE).isel(stimulus=take)
    if "pair" in smaller.dims:
        smaller = smaller.isel(pair=positions)
    variable = rdms[VARIABLE]
    smaller[VARIABLE] = (variable.dims, variable.values[..., positions], variable.attrs)
    return smaller


def _shown(words: Sequence[str], limit: int = 5) -> str:
    """List a few words and count the rest."""
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    noun = "the stimulus " if len(words) == 1 else f"{len(words)} stimuli: "
    return noun + ", ".join(repr(str(word)) for word in words[:limit]) + more


def align_rdms(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Bring two RDM datasets to the same stimuli in the same order: by id, never by position.

    Parameters
    ----------
    first, second : xarray.Dataset
        RDM datasets over the same set of stimulus ids.

    Returns
    -------
    tuple of xarray.Dataset
        `first` unchanged, `second` in the order of `first`.

    Raises
    ------
    InputError
        Naming the ids that one of the two lacks.
    """
    leading_dim(first, time=True)
    leading_dim(second, time=True)
    a, b = words(first["stimulus"].values), words(second["stimulus"].values)
    names = [repr(str(rdms.attrs.get("name", "unnamed"))) for rdms in (first, second)]
    in_a, in_b = set(a.tolist()), set(b.tolist())
    problems = []
    for name, lacking in (
        (names[1], [v for v in a.tolist() if v not in in_b]),
        (names[0], [v for v in b.tolist() if v not in in_a]),
    ):
        if lacking:
            problems.append(f"{name} lacks {_shown(lacking)}")
    if problems:
        raise InputError(
            f"{names[0]} ({len(a)} stimuli) and {names[1]} ({len(b)} stimuli) are not over the same stimuli: "
            f"{'; '.join(problems)}. Rows are matched by id; rename the ids, or choose the common ones with "
            "select_stimuli()"
        )
    return first, select_stimuli(second, a)


def concatenate_rdms(parts: Sequence[xr.Dataset], dim: str, name: str) -> xr.Dataset:
    """Put several RDM datasets over the same stimuli into one.

    Parameters
    ----------
    parts : sequence of xarray.Dataset
        RDM datasets; stimuli are aligned by id to the first.
    dim : {"layer", "subject", "model", "rdm"}
        The leading dim of the result, whatever it is called in the parts.
    name : str
        Name of the result.

    Returns
    -------
    xarray.Dataset
        One RDM dataset. The measure is kept where all parts share it, and ``"mixed"`` otherwise.

    Raises
    ------
    InputError
        If there is no part, stimuli or time bins differ, or names repeat.
    """
    if not parts:
        raise InputError("no RDM dataset was given; give at least one")
    aligned = [align_rdms(parts[0], part)[1] for part in parts]
    time = aligned[0]["time"] if has_time(aligned[0]) else None
    if not all(_same_bins(part, time) for part in aligned):
        named = ", ".join(f"{part.attrs.get('name', 'unnamed')!s} ({_bins(part)})" for part in aligned[:5])
        raise InputError(
            f"RDM datasets without common time bins cannot be joined: {named}; choose the common bins with .sel(time=…)"
        )
    vectors = np.concatenate([part[VARIABLE].values for part in aligned])
    names = np.concatenate([words(part[leading_dim(part, time=True)].values) for part in aligned])
    measures = {str(part.attrs.get("measure", "unknown")) for part in aligned}
    measure = measures.pop() if len(measures) == 1 else "mixed"
    return rdm_dataset(vectors, names, dim, aligned[0]["stimulus"].values, measure, name, time=time)


def _same_bins(rdms: xr.Dataset, time: xr.DataArray | None) -> bool:
    """Tell whether a dataset has these time bins, or none where there are none."""
    if time is None or not has_time(rdms):
        return time is None and not has_time(rdms)
    return np.array_equal(rdms["time"].values, time.values)


def _bins(rdms: xr.Dataset) -> str:
    """Describe the time bins of a dataset."""
    if not has_time(rdms):
        return "no time bins"
    times = rdms["time"].values
    return f"{len(times)} bins, {times[0]:g} to {times[-1]:g}" if len(times) else "0 bins"


def category_rdms(labels: Mapping[str, ArrayLike], ids: Sequence[Hashable] | np.ndarray) -> xr.Dataset:
    """Make model RDMs from stimulus labels: 0 within a category, 1 between categories.

    Parameters
    ----------
    labels : mapping of str to array_like
        Name of the model to one label for each stimulus: flags (animate or not), words or numbers.
    ids : sequence of str
        Stimulus ids, in the order of the labels.

    Returns
    -------
    xarray.Dataset
        RDM dataset with the leading dim ``model``.

    Raises
    ------
    InputError
        If a label column has the wrong length, a missing value, one class only (its RDM would be constant), or a class
        of its own for every stimulus (constant again).

    Examples
    --------
    >>> rdms = category_rdms({"animate": [True, True, False]}, ["cat", "dog", "car"])
    >>> rdms["dissimilarity"].values
    array([[0., 1., 1.]])
    """
    if not labels:
        raise InputError("no labels were given; give at least one column, such as {'animate': [...]}")
    own = words(ids)
    row, column = np.triu_indices(len(own), 1)
    vectors = []
    for name, column_values in labels.items():
        values = np.asarray(column_values)
        if values.shape != (len(own),):
            raise InputError(f"label {name!r} has shape {values.shape}, and there are {len(own)} stimuli")
        as_list = values.tolist()
        lost = [str(own[k]) for k, value in enumerate(as_list) if value is None or value != value or value == ""]
        if lost:
            raise InputError(f"label {name!r} has no value for {_shown(lost)}; label every stimulus or drop these")
        codes = np.unique(np.array([str(value) for value in as_list]), return_inverse=True)[1]
        n_classes = int(codes.max()) + 1
        if n_classes == 1 or n_classes == len(own):
            state = "one class only" if n_classes == 1 else "another class for every stimulus"
            raise InputError(
                f"label {name!r} has {state}, so its RDM is constant and correlates with nothing; leave it out"
            )
        vectors.append((codes[row] != codes[column]).astype(np.float64))
    return rdm_dataset(np.array(vectors), list(labels), "model", own, "category", "category models")
