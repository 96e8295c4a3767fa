"""RDM datasets: one schema for the dissimilarities of layers, subjects and models, checked, aligned by id, convertible.

An RDM dataset is a plain :class:`xarray.Dataset` with the variable ``dissimilarity`` of dims ``(<leading>, pair)``. The
leading dim is one of ``layer``, ``subject``, ``model`` or ``rdm`` and carries names. Pairs run over the upper triangle
row by row, the order of :func:`scipy.spatial.distance.squareform`, of the coordinate ``stimulus`` (ids). NaN marks a
pair without a value.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from actkit.errors import InputError, nearest, require

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

VARIABLE = "dissimilarity"
LEADING_DIMS = ("layer", "subject", "model", "rdm")

# A matrix stored in float32 is symmetric to its own rounding, not exactly.
_SYMMETRY_TOLERANCE = 1e-6


def n_pairs(n_stimuli: int) -> int:
    """Count the pairs of distinct stimuli.

    Parameters
    ----------
    n_stimuli : int
        Number of stimuli.

    Returns
    -------
    int
        ``n (n - 1) / 2``.
    """
    return n_stimuli * (n_stimuli - 1) // 2


def pair_positions(n_stimuli: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Find where pairs stand in a vector of squareform order.

    Parameters
    ----------
    n_stimuli : int
        Number of stimuli.
    i, j : numpy.ndarray of int
        Stimulus numbers of each pair, ``i != j``, in either order.

    Returns
    -------
    numpy.ndarray of int64
        Positions, of the shape of `i`.
    """
    low = np.minimum(i, j).astype(np.int64)
    high = np.maximum(i, j).astype(np.int64)
    return n_stimuli * low - low * (low + 1) // 2 + high - low - 1


def to_vectors(squares_or_vectors: ArrayLike, n_stimuli: int, what: str = "RDM") -> np.ndarray:
    """Bring matrices or vectors of dissimilarities to vectors in squareform order.

    Parameters
    ----------
    squares_or_vectors : array_like
        ``(n, n)``, ``(k, n, n)``, ``(pairs,)`` or ``(k, pairs)``.
    n_stimuli : int
        Number of stimuli ``n``.
    what : str
        What the values are called in messages.

    Returns
    -------
    numpy.ndarray
        ``(k, pairs)``, float32 where the input is float32 and float64 otherwise. Always a copy.

    Raises
    ------
    InputError
        If the shape does not fit, or a matrix is not symmetric or its diagonal is not zero.
    """
    values = np.asarray(squares_or_vectors)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise InputError(f"{what}: dissimilarities have dtype {values.dtype}, which is not numeric; give numbers")
    if np.iscomplexobj(values):
        raise InputError(f"{what}: dissimilarities are complex; give real numbers")
    values = np.array(values, dtype=np.float32 if values.dtype == np.float32 else np.float64)
    n = n_stimuli
    square = values.ndim >= 2 and values.shape[-2:] == (n, n) and values.ndim <= 3
    # A (k, pairs) array has the shape of one matrix only for k = pairs = n = 3: there symmetry decides.
    if square and values.ndim == 2 and n_pairs(n) == n and not _is_rdm(values):
        square = False
    if square:
        matrices = values.reshape(-1, n, n)
        for number, matrix in enumerate(matrices):
            _check_matrix(matrix, f"{what} {number}" if len(matrices) > 1 else what)
        row, column = np.triu_indices(n, 1)
        return matrices[:, row, column]
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] != n_pairs(n):
        raise InputError(
            f"{what}: shape {np.shape(squares_or_vectors)} fits neither ({n}, {n}) matrices nor vectors of "
            f"{n_pairs(n)} pairs, as {n} stimuli need; check the stimulus ids or the array"
        )
    return values


def _is_rdm(matrix: np.ndarray) -> bool:
    """Tell whether one matrix is symmetric with a zero diagonal."""
    try:
        _check_matrix(matrix, "")
    except InputError:
        return False
    return True


def _check_matrix(matrix: np.ndarray, what: str) -> None:
    """Refuse a matrix that is not symmetric or has values on its diagonal."""
    scale = float(np.nanmax(np.abs(matrix), initial=0.0)) if not np.isnan(matrix).all() else 0.0
    missing = np.isnan(matrix)
    gap = np.abs(matrix - matrix.T)
    worst = float(np.nanmax(gap, initial=0.0)) if not np.isnan(gap).all() else 0.0
    if worst > _SYMMETRY_TOLERANCE * scale or (missing != missing.T).any():
        raise InputError(
            f"{what} is not symmetric: values differ by up to {worst:.3g} across the diagonal, so half of them would "
            "be dropped silently; average it with its transpose first if that is meant"
        )
    diagonal = np.nan_to_num(np.diagonal(matrix), nan=0.0)
    if np.abs(diagonal).max(initial=0.0) > _SYMMETRY_TOLERANCE * scale:
        raise InputError(
            f"{what} has values up to {np.abs(diagonal).max():.3g} on its diagonal, where a dissimilarity is 0; "
            "if these are similarities, subtract them from 1"
        )


def rdm_dataset(
    vectors_or_squares: ArrayLike,
    names: Sequence[Hashable] | np.ndarray,
    dim: str,
    stimulus_ids: Sequence[Hashable] | np.ndarray,
    measure: str,
    name: str,
    coords: Mapping[str, Any] | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Make an RDM dataset.

    Parameters
    ----------
    vectors_or_squares : array_like
        ``(k, pairs)``, ``(k, n, n)``, ``(pairs,)`` or ``(n, n)``.
    names : sequence
        The k names along the leading dim: layers, subjects, models. Unique.
    dim : {"layer", "subject", "model", "rdm"}
        The leading dim.
    stimulus_ids : sequence
        The n ids, in the order of the rows. Unique.
    measure : str
        The dissimilarity, such as ``"correlation"``.
    name : str
        What the RDMs are called in figures and tables.
    coords : mapping, optional
        Further coordinates: name to values along the leading dim (length k) or along ``stimulus`` (length n), or an
        xarray-style ``(dim, values)`` pair, which is needed when k equals n.
    **attrs
        Further attributes of the dataset, such as ``inputs`` or ``citation``.

    Returns
    -------
    xarray.Dataset
        A valid RDM dataset.

    Raises
    ------
    InputError
        If shapes, names or ids do not fit.

    Examples
    --------
    >>> rdms = rdm_dataset([[0.1, 0.9, 0.8]], ["V1"], "rdm", ["cat", "dog", "car"], "correlation", "example")
    >>> squares(rdms)[0, 0]
    array([0. , 0.1, 0.9])
    """
    if dim not in LEADING_DIMS:
        raise InputError(f"RDMs cannot run along {dim!r}; {nearest(dim, LEADING_DIMS)}")
    ids = _words(stimulus_ids)
    vectors = to_vectors(vectors_or_squares, len(ids), what=f"RDMs of {name!r}")
    labels = _words(names)
    if len(labels) != len(vectors):
        raise InputError(
            f"RDMs of {name!r}: {len(vectors)} RDMs and {len(labels)} names; give one name for each RDM along {dim!r}"
        )
    dataset = xr.Dataset(
        {VARIABLE: ((dim, "pair"), vectors, {"long_name": f"{measure} dissimilarity", "units": "1"})},
        coords={dim: labels, "stimulus": ids},
        attrs={"measure": str(measure), "name": str(name), **attrs},
    )
    for key, values in (coords or {}).items():
        if isinstance(values, tuple) and len(values) == 2 and values[0] in (dim, "stimulus"):
            along, column = values[0], np.asarray(values[1])
        else:
            column = np.asarray(values)
            fits = [d for d, size in ((dim, len(labels)), ("stimulus", len(ids))) if column.shape[:1] == (size,)]
            if len(fits) != 1:
                raise InputError(
                    f"RDMs of {name!r}: coordinate {key!r} has length {column.shape[0] if column.ndim else 0}, which "
                    f"names no single dim ({dim}: {len(labels)}, stimulus: {len(ids)}); give it as (dim, values)"
                )
            along = fits[0]
        dataset = dataset.assign_coords({key: (along, column)})
    return validate_rdms(dataset)


def _words(values: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Bring names or ids to one array of str."""
    return np.array([str(value) for value in np.asarray(values).ravel().tolist()], dtype=str)


def leading_dim(rdms: xr.Dataset) -> str:
    """Name the dim along which a dataset holds its RDMs.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset.

    Returns
    -------
    str
        ``"layer"``, ``"subject"``, ``"model"`` or ``"rdm"``.

    Raises
    ------
    InputError
        If it is not an RDM dataset.
    """
    if not isinstance(rdms, xr.Dataset) or VARIABLE not in rdms:
        kind = f"a Dataset with the variables {list(map(str, rdms))}" if isinstance(rdms, xr.Dataset) else type(rdms)
        raise InputError(
            f"expected an RDM dataset (variable {VARIABLE!r}), got {kind}; make one with actkit.rdm() or rdm_dataset()"
        )
    dims = rdms[VARIABLE].dims
    if len(dims) != 2 or dims[1] != "pair" or dims[0] not in LEADING_DIMS:
        raise InputError(
            f"{VARIABLE!r} has the dims {dims}; an RDM dataset has (one of {', '.join(LEADING_DIMS)}, then pair)"
        )
    return str(dims[0])


def validate_rdms(rdms: xr.Dataset) -> xr.Dataset:
    """Check a dataset against the RDM schema.

    Parameters
    ----------
    rdms : xarray.Dataset
        What should be an RDM dataset.

    Returns
    -------
    xarray.Dataset
        The same dataset.

    Raises
    ------
    InputError
        Naming what does not fit: a missing variable or coordinate, repeated ids or names, a pair count that does not
        belong to the stimuli, infinite values.
    """
    dim = leading_dim(rdms)
    title = f"RDMs of {rdms.attrs.get('name', 'unnamed')!r}"
    for coordinate in (dim, "stimulus"):
        if coordinate not in rdms.coords:
            raise InputError(f"{title}: the coordinate {coordinate!r} is missing, so rows cannot be matched by id")
        values = rdms[coordinate].values
        unique, counts = np.unique(values, return_counts=True)
        if (counts > 1).any():
            repeated = ", ".join(repr(str(value)) for value in unique[counts > 1][:5])
            raise InputError(
                f"{title}: {coordinate} names occur more than once ({repeated}), so RDMs could not be aligned by id; "
                "make them unique"
            )
    n, pairs = rdms.sizes["stimulus"], rdms.sizes["pair"]
    if n < 2:
        raise InputError(f"{title}: {n} stimulus; a dissimilarity needs at least 2")
    if pairs != n_pairs(n):
        raise InputError(f"{title}: {pairs} pairs do not belong to {n} stimuli, which have {n_pairs(n)}")
    values = rdms[VARIABLE].values
    if values.dtype.kind != "f":
        raise InputError(f"{title}: dissimilarities have dtype {values.dtype}; give float32 or float64")
    infinite = np.isinf(values).any(axis=1)
    if infinite.any():
        named = ", ".join(repr(str(value)) for value in rdms[dim].values[infinite][:5])
        raise InputError(f"{title}: infinite dissimilarities in {named}; mark pairs without a value by NaN")
    return rdms


def squares(rdms: xr.Dataset) -> np.ndarray:
    """Unfold an RDM dataset to matrices.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset of k RDMs over n stimuli.

    Returns
    -------
    numpy.ndarray
        ``(k, n, n)``, symmetric with a zero diagonal, in the dtype of the dataset.
    """
    leading_dim(rdms)
    n = rdms.sizes["stimulus"]
    vectors = rdms[VARIABLE].values
    matrices = np.zeros((len(vectors), n, n), dtype=vectors.dtype)
    row, column = np.triu_indices(n, 1)
    matrices[:, row, column] = vectors
    matrices[:, column, row] = vectors
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
    dim = leading_dim(rdms)
    wanted = _words(ids)
    own = _words(rdms["stimulus"].values)
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
    smaller[VARIABLE] = ((dim, "pair"), variable.values[:, positions], variable.attrs)
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
    leading_dim(first)
    leading_dim(second)
    a, b = _words(first["stimulus"].values), _words(second["stimulus"].values)
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
        If there is no part, stimuli differ or names repeat.
    """
    if not parts:
        raise InputError("no RDM dataset was given; give at least one")
    aligned = [align_rdms(parts[0], part)[1] for part in parts]
    vectors = np.concatenate([part[VARIABLE].values for part in aligned])
    names = np.concatenate([_words(part[leading_dim(part)].values) for part in aligned])
    measures = {str(part.attrs.get("measure", "unknown")) for part in aligned}
    measure = measures.pop() if len(measures) == 1 else "mixed"
    return rdm_dataset(vectors, names, dim, aligned[0]["stimulus"].values, measure, name)


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
    own = _words(ids)
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


# --------------------------------------------------------------------------------------------------------------------
# rsatoolbox


def to_rsatoolbox(rdms: xr.Dataset) -> RDMs:
    """Convert to ``rsatoolbox.rdm.RDMs`` without loss.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset.

    Returns
    -------
    rsatoolbox.rdm.RDMs
        Names and coordinates along the leading dim become ``rdm_descriptors``, ids and coordinates along ``stimulus``
        become ``pattern_descriptors``, attributes become ``descriptors``; NaNs stay.

    Raises
    ------
    MissingExtraError
        If rsatoolbox is not installed.
    """
    require("rsatoolbox", "rsatoolbox", "conversion to rsatoolbox.rdm.RDMs")
    from rsatoolbox.rdm import RDMs

    dim = leading_dim(rdms)
    attrs = dict(rdms.attrs)
    measure = attrs.pop("measure", None)
    origin = json.loads(attrs.pop("rsatoolbox", "{}"))
    made_up = set(origin.get("made", []))
    # 'dim' lets the way back restore the leading dim; RDMs that came from rsatoolbox never had it.
    descriptors = {key: _decoded(value) for key, value in origin.get("descriptors", {}).items()}
    if not origin:
        descriptors = {**attrs, "dim": dim}
    along_rdm: dict[str, Any] = {}
    along_stimulus: dict[str, Any] = {}
    for key, coordinate in rdms.coords.items():
        if key in made_up:
            continue
        target = along_rdm if coordinate.dims == (dim,) else along_stimulus if coordinate.dims == ("stimulus",) else {}
        target[_restored(str(key), origin)] = coordinate.values.copy()
    return RDMs(
        rdms[VARIABLE].values.copy(),
        dissimilarity_measure=None if origin.get("measure_none") else measure,
        descriptors=descriptors,
        rdm_descriptors=along_rdm,
        pattern_descriptors=along_stimulus,
    )


def from_rsatoolbox(
    rdms: RDMs, dim: str | None = None, stimulus: str | None = None, names: str | None = None, name: str | None = None
) -> xr.Dataset:
    """Convert from ``rsatoolbox.rdm.RDMs`` without loss.

    Parameters
    ----------
    rdms : rsatoolbox.rdm.RDMs
        RDMs with descriptors.
    dim : {"layer", "subject", "model", "rdm"}, optional
        Leading dim. By default the one that :func:`to_rsatoolbox` noted, else ``"rdm"``.
    stimulus : str, optional
        Pattern descriptor that holds the ids. By default ``stimulus``, ``conds``, ``conditions`` or ``index``, the
        first that exists.
    names : str, optional
        RDM descriptor that holds the names. By default the one called like `dim`, else ``name``, where they are unique,
        else ``index``.
    name : str, optional
        Name of the dataset. By default the descriptor ``name``, else ``"rsatoolbox RDMs"``.

    Returns
    -------
    xarray.Dataset
        An RDM dataset. Every descriptor is kept, so that :func:`to_rsatoolbox` gives back what came in.

    Raises
    ------
    InputError
        If a descriptor is named that does not exist, or ids repeat (as in a bootstrap sample).
    """
    descriptors = dict(rdms.descriptors or {})
    ours = "dim" in descriptors and descriptors["dim"] in LEADING_DIMS
    dim = dim or (str(descriptors["dim"]) if ours else "rdm")
    stimulus = _descriptor(rdms.pattern_descriptors, stimulus, ("stimulus", "conds", "conditions", "index"))
    unique = [key for key, column in rdms.rdm_descriptors.items() if len(set(map(str, column))) == len(column)]
    usual = [key for key in (dim, "name") if key in unique]
    names = _descriptor(rdms.rdm_descriptors, names, (*usual, "index"))
    name = name or str(descriptors.get("name", "rsatoolbox RDMs"))
    reserved = {dim, "stimulus", "pair", VARIABLE}
    renamed: dict[str, str] = {}
    coords: dict[str, tuple[str, np.ndarray]] = {}
    for along, columns, key_used in (
        (dim, rdms.rdm_descriptors, names),
        ("stimulus", rdms.pattern_descriptors, stimulus),
    ):
        for key, values in columns.items():
            column = np.asarray(values)
            counted = key == "index" and np.array_equal(column, np.arange(len(column)))
            if counted or (key == key_used and key == along and column.dtype.kind == "U"):
                continue  # rsatoolbox adds a counting index to everything by itself
            label = key
            while label in reserved or label in coords:
                label += "_descriptor" if along == "stimulus" else f"_{along}"
            if label != key:
                renamed[label] = key
            coords[label] = (along, column)
    made = [
        along
        for along, key_used, column in (
            (dim, names, rdms.rdm_descriptors[names]),
            ("stimulus", stimulus, rdms.pattern_descriptors[stimulus]),
        )
        if key_used != along or np.asarray(column).dtype.kind != "U"
    ]
    attrs: dict[str, Any]
    if ours:
        attrs = {key: value for key, value in descriptors.items() if key not in ("dim", "name")}
    else:
        attrs = {
            "rsatoolbox": json.dumps(
                {
                    "descriptors": {str(key): _encoded(value) for key, value in descriptors.items()},
                    "made": made,
                    "renamed": renamed,
                    "measure_none": rdms.dissimilarity_measure is None,
                }
            )
        }
    return rdm_dataset(
        rdms.dissimilarities,
        rdms.rdm_descriptors[names],
        dim,
        rdms.pattern_descriptors[stimulus],
        rdms.dissimilarity_measure or "unknown",
        name,
        coords=coords,
        **attrs,
    )


def _descriptor(columns: Mapping[str, Any], asked: str | None, usual: Sequence[str]) -> str:
    """Choose the descriptor that holds names or ids."""
    if asked is not None and asked not in columns:
        raise InputError(f"no descriptor called {asked!r}; {nearest(asked, map(str, columns))}")
    return asked if asked is not None else next(key for key in usual if key in columns)


def _restored(key: str, origin: Mapping[str, Any]) -> str:
    """Give a descriptor its rsatoolbox name back."""
    return str(origin.get("renamed", {}).get(key, key))


def _encoded(value: Any) -> Any:
    """Write a descriptor so that JSON keeps its kind."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": str(value.dtype)}
    try:
        json.dumps(value)
    except TypeError:
        raise InputError(
            f"descriptor {value!r} is of type {type(value).__name__}, which cannot be kept in a file; "
            "replace it by numbers, text or arrays"
        ) from None
    return {"plain": value}


def _decoded(coded: Mapping[str, Any]) -> Any:
    """Read what :func:`_encoded` wrote."""
    if "array" in coded:
        return np.array(coded["array"], dtype=coded["dtype"])
    if "scalar" in coded:
        return np.dtype(coded["dtype"]).type(coded["scalar"])
    return coded["plain"]
