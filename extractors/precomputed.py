"""Features that another tool computed, brought into a store: npy, npz, HDF5 and MATLAB files, or arrays.

Rows are read block by block, from npy files by memory map and from HDF5 by slices, so that a file larger than the
memory can be imported. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from actkit.compute import progress as progress_bar
from actkit.errors import IncompleteStoreError, InputError, StoreError, nearest
from actkit.extractors.weights import file_sha256
from actkit.images import is_picture
from actkit.options import Options, with_options
from actkit.results import fingerprint
from actkit.stimulus_ids import stems
from actkit.store import StorePlan, create_store, open_store, plan_store, resume_store

if TYPE_CHECKING:
    from actkit.stimuli import Stimuli
    from actkit.store import ActivationStore

# Where thingsvision, Net2Brain's users and others write the order of their rows, beside the features.
ID_FILES = ("file_names.txt", "image_names.txt", "filenames.txt", "ids.txt")
_BLOCK_BYTES = 256 * 2**20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class ImportOptions(Options):
    """Options of :func:`import_features`."""

    key: list[str] | None = Field(
        None, description="Arrays to take from an npz, HDF5 or mat file; none: every numeric one with two or more axes."
    )
    layer: list[str] | None = Field(None, description="Names of the layers, in the order of key; none: the keys.")
    ids_key: str | None = Field(None, description="Entry of the same file that holds the stimulus ids.")
    stimulus_axis: int = Field(0, description="Axis of the arrays that runs over stimuli.")
    channels_last: bool = Field(False, description="Arrays are (stimulus, y, x, channel): bring channels to the front.")
    dtype: Literal["float32", "float16"] = Field("float32", description="How the store keeps values.")
    nan: Literal["raise", "keep"] = Field("raise", description="What to do with NaN and infinite values.")
    block: int = Field(64, ge=1, description="Stimuli per block, at most; fewer where rows are very long.")
    name: str | None = Field(None, description="Name of the network that the features are of; none: the file's stem.")
    overwrite: bool = Field(False, description="Replace a store that holds something else.")


@dataclass(frozen=True)
class _Features:
    """One array, readable by rows without holding it all: ``rows(start, stop)`` has stimuli first."""

    shape: tuple[int, ...]
    dtype: np.dtype
    rows: Callable[[int, int], np.ndarray]


@with_options(ImportOptions)
def import_features(
    source: str | Path | np.ndarray | Mapping[str, np.ndarray],
    store: str | Path,
    ids: Sequence[str] | str | Path | Stimuli | None = None,
    progress: bool | None = None,
    *,
    options: ImportOptions,
) -> ActivationStore:
    """Write features that are already computed into a store.

    Parameters
    ----------
    source : path, numpy.ndarray or mapping of str to numpy.ndarray
        A file (``.npy``, ``.npz``, HDF5, MATLAB v5 to v7.3), an array of shape ``(stimulus, …)``, or one for each
        layer. One row of three axes is kept as ``(channel, y, x)``, other ranks are flattened to units.
    store : path
        The store to write.
    ids : sequence of str, path or Stimuli, optional
        What the rows are: ids; or a text file with one id or file name a line (``file_names.txt`` of thingsvision),
        of which whole file stems become ids; or the stimuli, which must stand in the order of the rows. By default
        `ids_key`, or such a text file beside `source`, or row numbers.
    progress : bool, optional
        Show a progress bar; by default on a terminal only.

    Returns
    -------
    ActivationStore
        Complete. If the store exists and was made of the same features, ids and options, it is returned as it is,
        and an interrupted import is resumed.

    Raises
    ------
    InputError
        If the file cannot be read or holds no features, rows and ids differ in number, or values are not finite.
    StoreError
        If something else is at the path of the store.

    Notes
    -----
    A text file beside the features is used only if its number of lines is the number of rows; the store's
    attribute ``ids_from`` says where ids came from.
    """
    with _opened(source, options) as features:
        n_rows = _common_rows(features)
        names, labels, ids_from = _ids(source, ids, options, n_rows)
        plan = _plan(source, features, store, names, labels, ids_from, options)
        if Path(store).exists() and not options.overwrite:
            try:
                there = open_store(store)
            except IncompleteStoreError:
                return _write(resume_store(plan), plan, features, options, progress)
            if there.identity == plan.identity:
                return there
            raise StoreError(
                f"{store} holds another recording than these features, ids and options would make; "
                "give another path, or overwrite=True to replace it"
            )
        return _write(create_store(plan, overwrite=options.overwrite), plan, features, options, progress)


def read_id_file(path: str | Path) -> list[str]:
    """Read a text file with one stimulus a line.

    Parameters
    ----------
    path : path
        The file; empty lines at its end are ignored.

    Returns
    -------
    list of str
        Lines that are picture files or have folders become whole file stems (relative paths without the last suffix
        for all, where stems repeat); others are ids as they stand.

    Raises
    ------
    InputError
        If there is no such file.
    StimulusError
        If two lines have the same id.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} with the ids of the rows; give a text file with one a line")
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    files = [PurePosixPath(line.replace("\\", "/")) for line in lines]
    if not all(is_picture(file) for file in files):
        return lines
    return stems(files, lines)[0]


def _write(
    writer: Any, plan: StorePlan, features: Mapping[str, _Features], options: ImportOptions, progress: bool | None
) -> ActivationStore:
    with writer:
        if options.dtype == "float16":
            for name, feature in features.items():
                if writer.centre(name) is None:
                    writer.set_centre(name, _mean(feature, plan))
        pending = [index for index in range(plan.n_blocks) if index not in writer.done]
        for index in progress_bar(pending, desc="importing", unit="block", enabled=progress):
            start, stop = plan.block_rows(index)
            rows = {}
            for layer in plan.layers:
                values = features[layer.name].rows(start, stop).astype(np.float32)
                if options.nan == "raise" and not np.isfinite(values).all():
                    bad = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
                    raise InputError(
                        f"the features of layer {layer.name!r} are not finite for stimulus {plan.ids[start + bad]!r}; "
                        "correct them, or keep them with nan='keep'"
                    )
                rows[layer.name] = values.reshape(len(values), *layer.shape)
            writer.write_block(index, rows)
        return writer.complete()


def _plan(
    source: Any,
    features: Mapping[str, _Features],
    store: str | Path,
    names: list[str],
    labels: Mapping[str, np.ndarray],
    ids_from: str,
    options: ImportOptions,
) -> StorePlan:
    is_file = isinstance(source, str | Path)
    content = file_sha256(source) if is_file else fingerprint(_as_mapping(source))
    provenance = {
        "extractor": "features",
        "network": options.name or (Path(source).stem if is_file else "features"),
        "source": Path(source).name if is_file else "arrays in memory",
        "source_sha256": content,
        "ids_from": ids_from,
        "options": options.model_dump(exclude={"overwrite", "name"}),
    }
    row_bytes = sum(4 * int(np.prod(feature.shape[1:])) for feature in features.values())
    block = max(1, min(options.block, len(names), _BLOCK_BYTES // max(1, row_bytes)))
    identity = fingerprint([provenance, names, {key: np.asarray(column) for key, column in labels.items()}, block])
    shapes = {name: (feature.shape[1:] or (1,), None) for name, feature in features.items()}
    return plan_store(store, shapes, names, block, dict(labels), provenance, identity, options.dtype)


def _ids(source: Any, ids: Any, options: ImportOptions, n_rows: int) -> tuple[list[str], Mapping[str, np.ndarray], str]:
    labels: Mapping[str, np.ndarray] = {}
    if ids is not None and options.ids_key is not None:
        raise InputError("ids= and ids_key= both say what the rows are; give one of them")
    if options.ids_key is not None:
        names, origin = _ids_inside(Path(source), options.ids_key), f"entry {options.ids_key!r} of the file"
    elif ids is None:
        beside = _id_file_beside(source, n_rows)
        if beside is None:
            return [str(row) for row in range(n_rows)], labels, "row numbers, since no ids were given"
        names, origin = read_id_file(beside), f"{beside.name}, found beside the features"
    elif isinstance(ids, str | Path):
        names, origin = read_id_file(ids), Path(ids).name
    elif hasattr(ids, "ids") and hasattr(ids, "labels"):
        names, labels, origin = (
            [str(name) for name in ids.ids],
            ids.labels,
            f"stimuli {ids.name!r}, same order as the rows",
        )
    else:
        names, origin = [str(name) for name in ids], "given by the caller"
    if len(names) != n_rows:
        raise InputError(
            f"the features have {n_rows} rows and there are {len(names)} ids ({origin}), so rows could not be told "
            "apart. Give one id a row, in the order of the rows"
            + ("; or set stimulus_axis if stimuli are not the first axis" if options.stimulus_axis == 0 else "")
        )
    return names, labels, origin


def _id_file_beside(source: Any, n_rows: int) -> Path | None:
    if not isinstance(source, str | Path):
        return None
    for name in ID_FILES:
        file = Path(source).parent / name
        if file.is_file() and len(read_id_file(file)) == n_rows:
            return file
    return None


def _common_rows(features: Mapping[str, _Features]) -> int:
    counts = {name: feature.shape[0] for name, feature in features.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
        raise InputError(
            f"the arrays differ in their number of rows ({shown}); choose those of one recording with key="
        )
    n_rows = next(iter(counts.values()))
    if n_rows == 0:
        raise InputError("the features have no rows, so there is nothing to import")
    return n_rows


def _mean(feature: _Features, plan: StorePlan) -> np.ndarray:
    """Mean over stimuli of each unit, in float64, block by block; values that are not finite do not count."""
    total, count = np.zeros(feature.shape[1:]), np.zeros(feature.shape[1:])
    for index in range(plan.n_blocks):
        values = feature.rows(*plan.block_rows(index)).astype(np.float64)
        finite = np.isfinite(values)
        total += np.where(finite, values, 0).sum(axis=0)
        count += finite.sum(axis=0)
    return (total / np.maximum(count, 1)).astype(np.float32).reshape(-1)


# -- sources ---------------------------------------------------------------------------------------------


@contextmanager
def _opened(source: Any, options: ImportOptions) -> Iterator[dict[str, _Features]]:
    """Open a source, choose the arrays, name them, and give them stimuli-first."""
    with _arrays(source) as (arrays, flip):
        chosen = _chosen(arrays, source, options)
        yield {name: _features(name, array, flip, options) for name, array in chosen.items()}


@contextmanager
def _arrays(source: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """Named arrays of a source, and whether their axes stand in reverse (MATLAB v7.3)."""
    if not isinstance(source, str | Path):
        yield _as_mapping(source), False
        return
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no features file {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(520)
    if _HDF5_SIGNATURE in (head[:8], head[512:520]):
        import h5py

        with h5py.File(path, "r") as opened:
            found: dict[str, Any] = {}
            opened.visititems(lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None)
            kept = {name: node for name, node in found.items() if not name.startswith("#")}
            yield kept, any("MATLAB_class" in node.attrs for node in kept.values())
    elif head[:6] == b"\x93NUMPY":
        yield {path.stem: _read(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))}, False
    elif head[:2] == b"PK":
        with _read(path, lambda: np.load(path, allow_pickle=False)) as members:
            yield {name: _Member(members, name) for name in members.files}, False
    else:
        from scipy.io import loadmat

        if not head.startswith(b"MATLAB"):
            raise InputError(
                f"{str(path)!r} is no npy, npz, HDF5 or MATLAB file by its content; "
                "save the features with numpy.save as an array of shape (stimulus, …)"
            )
        content = _read(path, lambda: loadmat(path))
        yield {name: value for name, value in content.items() if not name.startswith("__")}, False


class _Member:
    """One array of an npz file, read when first asked for; its header is not read alone, since it is compressed."""

    def __init__(self, members: Any, name: str) -> None:
        self._members, self._name, self._array = members, name, None

    def load(self) -> np.ndarray:
        if self._array is None:
            self._array = _read(self._name, lambda: self._members[self._name])
        return self._array  # type: ignore[return-value]


def _read(path: Any, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # each reader raises whatever damaged bytes or refused pickles lead it to
        raise InputError(
            f"{str(path)!r} cannot be read: {error}. Pickled objects are refused; save numbers as plain arrays"
        ) from error


def _as_mapping(source: Any) -> dict[str, np.ndarray]:
    if isinstance(source, Mapping):
        return {str(name): np.asarray(array) for name, array in source.items()}
    return {"features": np.asarray(source)}


def _chosen(arrays: dict[str, Any], source: Any, options: ImportOptions) -> dict[str, Any]:
    where = f"{str(source)!r}" if isinstance(source, str | Path) else "the mapping"
    keys = options.key
    loaded: dict[str, Any] = {}
    for name in arrays if keys is None else keys:
        if name not in arrays:
            raise InputError(f"{where} has no array {name!r}; {nearest(name, arrays)}")
        array = arrays[name].load() if isinstance(arrays[name], _Member) else arrays[name]
        numeric = getattr(array, "dtype", np.dtype(object)).kind in "fiub"
        if keys is not None and not (numeric and array.ndim):
            raise InputError(f"{name!r} of {where} holds no numbers by row, so it cannot be a layer")
        if numeric and (keys is not None or array.ndim >= 2):
            loaded[name] = array
    if not loaded:
        raise InputError(
            f"{where} holds no numeric array with two or more axes (it has: {', '.join(arrays) or 'nothing'})"
        )
    names = options.layer or list(loaded)
    if len(names) != len(loaded) or len(set(names)) != len(names):
        raise InputError(f"layer= names {names} for the arrays {list(loaded)}; give one different name an array")
    return dict(zip(names, loaded.values(), strict=True))


def _features(name: str, array: Any, flip: bool, options: ImportOptions) -> _Features:
    """Wrap an array: MATLAB's axes put right, stimuli first, channels before y and x."""
    ndim = len(array.shape)
    if not -ndim <= options.stimulus_axis < ndim:
        raise InputError(f"{name!r} has {ndim} axes, so stimulus_axis={options.stimulus_axis} does not exist in it")
    shape = tuple(array.shape)[::-1] if flip else tuple(array.shape)
    axis = options.stimulus_axis % ndim
    stored_axis = ndim - 1 - axis if flip else axis
    last = options.channels_last and ndim == 4
    rest = shape[:axis] + shape[axis + 1 :]
    final = (shape[axis], rest[-1], *rest[:-1]) if last else (shape[axis], *rest)

    def rows(start: int, stop: int) -> np.ndarray:
        index = tuple(slice(start, stop) if i == stored_axis else slice(None) for i in range(ndim))
        values = np.asarray(array[index])
        values = np.moveaxis(values.T if flip else values, axis, 0)
        return np.moveaxis(values, -1, 1) if last else values

    return _Features(final, array.dtype, rows)


def _ids_inside(path: Path, key: str) -> list[str]:
    with _arrays(path) as (arrays, _):
        if key not in arrays:
            raise InputError(f"{str(path)!r} has no entry {key!r} with the ids of the rows; {nearest(key, arrays)}")
        node = arrays[key].load() if isinstance(arrays[key], _Member) else arrays[key]
        values = np.asarray(node[()]).ravel()
    texts = [item.decode() if isinstance(item, bytes) else item for item in values.tolist()]
    # MATLAB keeps text of different lengths as one array an entry.
    texts = [str(np.asarray(text).ravel()[0]) if isinstance(text, np.ndarray) else str(text).rstrip() for text in texts]
    files = [PurePosixPath(text.replace("\\", "/")) for text in texts]
    return stems(files, texts)[0] if files and all(is_picture(file) for file in files) else texts
