"""The data sets that actkit knows: names, specs, where their files lie, loading, fetching and checking."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actkit.compute import format_bytes
from actkit.data_specs.class_folders import ClassOptions
from actkit.data_specs.data_set import DataSet, stimulus_function
from actkit.data_specs.fetch import FileFault, check_file, fetch_file
from actkit.data_specs.idx_files import idx_files
from actkit.data_specs.schema import Spec, read_spec
from actkit.errors import DataError, InputError, nearest
from actkit.options import parse

if TYPE_CHECKING:
    pass

ENVIRONMENT = "ACTKIT_DATA"
"""The environment variable that names the folder of data sets."""


def names() -> list[str]:
    """Name the data sets that come with actkit.

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def spec(name: str) -> Spec:
    """Read the spec of a data set.

    Parameters
    ----------
    name : str
        A name, or the path of a spec of your own (``*.yaml``).

    Returns
    -------
    Spec
        The checked spec.

    Raises
    ------
    DataError
        If there is none of that name, or it does not follow the schema.
    """
    if str(name).endswith((".yaml", ".yml")):
        return read_spec(name)
    if name not in names():
        raise DataError(f"no data set called {name!r}; {nearest(name, names())}")
    return _own_spec(name)


@functools.cache
def _own_spec(name: str) -> Spec:
    """A spec that ships with actkit; it does not change while Python runs."""
    return read_spec(Path(__file__).parent / f"{name}.yaml")


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> DataSet:
    """Open a data set.

    Parameters
    ----------
    name : str
        A name (see `names`), or the path of a spec of your own.
    root : path, optional
        The folder that holds the data set's folder, or that folder itself. By default the folder named by the
        environment variable ACTKIT_DATA, then the user's cache folder.
    **options
        Options of data sets that are drawn, such as ``n_identities=10`` for ``rendered_faces``; or, where folders are
        classes, which classes and how many pictures of each (`actkit.data_specs.class_folders.ClassOptions`).

    Returns
    -------
    DataSet
        Nothing is read yet beyond the sizes of the files.

    Raises
    ------
    DataError
        If there is none of that name, or its files are missing; it says how to fetch them.
    InputError
        If options were given to a data set that has none.
    """
    found = spec(name)
    if found.stimuli.function is not None:
        if options:
            _check_options(found, options)
        return DataSet(found, None, options)
    if options and found.stimuli.folder_label is None:
        raise InputError(f"{found.name} is read from files and has no options; leave out {', '.join(options)}")
    if options:
        parse(ClassOptions, options, f"load_data({found.name!r})")
    folder = locate(name, root)
    if folder is None:
        places = [place / (found.stimuli.folder or "") for place in _places(found, name, root)]
        cure = found.stimuli.by_hand or f"Get them with: actkit data fetch {found.name}"
        raise DataError(f"the files of {found.name!r} are not at {' or '.join(map(str, places))}. {cure}")
    for key, file in found.files.items():
        fault = check_file(key, file, folder, content=False)
        if fault is not None:
            raise DataError(f"{found.name}: {fault}. Get it with: actkit data fetch {found.name}")
    return DataSet(found, folder, options)


def locate(name: str, root: str | os.PathLike[str] | None = None) -> Path | None:
    """Find the folder of a data set's files.

    Parameters
    ----------
    name : str
        A name, or the path of a spec.
    root : path, optional
        As for `load`.

    Returns
    -------
    Path or None
        The first place where all files are; else the first with any of them; None if there is none.
    """
    found = spec(name)
    places = _places(found, name, root)
    folder = found.stimuli.folder or ""
    if found.stimuli.idx is not None:
        held = [
            sum(path.is_file() for path in idx_files(found.stimuli.idx, place / folder).values()) for place in places
        ]
        return places[held.index(max(held))] if max(held) else None
    if not found.files:  # a folder of pictures has no list of files
        return next((place for place in places if (place / folder).is_dir()), None)
    there = [sum((place / file.path).is_file() for file in found.files.values()) for place in places]
    for enough in (len(found.files), 1):
        for place, count in zip(places, there, strict=True):
            if count >= enough:
                return place
    return None


def fetch(
    name: str,
    root: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    attempts: int = 5,
    wait: float = 1.0,
) -> Path | None:
    """Get the files of a data set: download what is missing or wrong, resume what broke off, check everything.

    Parameters
    ----------
    name : str
        A name, or the path of a spec.
    root : path, optional
        Where to put the data set's folder; by default ACTKIT_DATA if it is set, else the user's cache folder.
    progress : bool, optional
        Whether to show progress bars; by default only on a terminal.
    attempts : int
        Tries in a row without a new byte before giving up.
    wait : float
        Seconds before the second try; doubled before each further one.

    Returns
    -------
    Path or None
        The folder; None for data sets that need no files.

    Raises
    ------
    DataError
        If a file cannot be had or is not what the spec says; it says what to do by hand.
    """
    found = spec(name)
    if found.stimuli.function is not None:
        if found.stimuli.extra is not None:
            stimulus_function(found.stimuli)
        return None
    here = locate(name, root)
    if here is not None and not check(name, root):
        return here
    folder = _places(found, name, root)[0]
    if not found.files:
        cure = found.stimuli.by_hand or "its spec names no files, so put its pictures there"
        raise DataError(f"{found.name!r} cannot be downloaded to {folder / (found.stimuli.folder or '')}: {cure}")
    for file in found.files.values():
        path = fetch_file(file, folder, progress=progress, attempts=attempts, wait=wait)
        if file.unpack is not None and not (folder / file.unpack).is_dir():
            from actkit.data_specs.archives import unpack

            unpack(path, folder / file.unpack)
    return folder


def check(name: str, root: str | os.PathLike[str] | None = None) -> list[FileFault]:
    """Compare the files of a data set with its spec: presence, size and sha256.

    Parameters
    ----------
    name : str
        A name, or the path of a spec.
    root : path, optional
        As for `load`.

    Returns
    -------
    list of FileFault
        What is missing or wrong; empty if all is well.
    """
    found = spec(name)
    folder = locate(name, root) or _places(found, name, root)[0]
    faults = []
    pictures = folder / (found.stimuli.folder or "")
    if found.stimuli.source == "folder" and not found.files and not pictures.is_dir():
        faults.append(FileFault("pictures", pictures, found.stimuli.by_hand or "there is no such folder"))
    if found.stimuli.idx is not None:
        for key, path in idx_files(found.stimuli.idx, pictures).items():
            if not path.is_file():
                faults.append(FileFault(key, path, found.stimuli.by_hand or "there is no such file"))
    for key, file in found.files.items():
        fault = check_file(key, file, folder)
        if fault is None and file.unpack is not None and not (folder / file.unpack).is_dir():
            fault = FileFault(key, folder / file.path, f"not unpacked into {file.unpack}")
        faults += [fault] if fault is not None else []
    return faults


def state(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """Say in a word or two whether a data set is at hand.

    Parameters
    ----------
    name : str
        A name, or the path of a spec.
    root : path, optional
        As for `load`.

    Returns
    -------
    str
        ``"here"``, ``"drawn"``, ``"in a package"``, ``"needs actkit[EXTRA]"``, ``"incomplete"``,
        ``"to fetch (SIZE)"`` or ``"to get by hand"``. Sizes are looked at, contents are not.
    """
    found = spec(name)
    if found.stimuli.source == "drawn":
        return "drawn"
    if found.stimuli.source == "package":
        try:
            stimulus_function(found.stimuli)
        except ImportError:
            return f"needs actkit[{found.stimuli.extra}]"
        return "in a package"
    folder = locate(name, root)
    if folder is not None:
        wrong = [check_file(key, file, folder, content=False) for key, file in found.files.items()]
        if found.stimuli.idx is not None:
            wrong += check(name, root)
        return "incomplete" if any(wrong) else "here"
    if all(file.address is None for file in found.files.values()):  # also of a folder, which has no list of files
        return "to get by hand"
    return f"to fetch ({format_bytes(sum(file.bytes for file in found.files.values()))})"


def listing(root: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """List the data sets as plain data.

    Parameters
    ----------
    root : path, optional
        As for `load`.

    Returns
    -------
    list of dict
        Keys ``name``, ``title``, ``state``, ``bytes``, ``variables``, ``licence``.
    """
    rows = []
    for name in names():
        found = spec(name)
        rows.append(
            {
                "name": name,
                "title": found.title,
                "state": state(name, root),
                "bytes": sum(file.bytes for file in found.files.values()),
                "variables": list(found.variables),
                "licence": found.licence,
            }
        )
    return rows


def describe(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """Describe a data set for people: stimuli, variables, files, licence, citation.

    Parameters
    ----------
    name : str
        A name, or the path of a spec.
    root : path, optional
        As for `load`.

    Returns
    -------
    str
        Several lines.
    """
    import textwrap

    found = spec(name)
    lines = [f"{found.name}: {found.title}", ""]
    lines += textwrap.wrap(found.description, 96)
    lines += ["", f"stimuli    {found.stimuli.order}"]
    labels = [*found.stimuli.labels, *found.splits]
    if found.stimuli.folder_label:
        labels.insert(0, found.stimuli.folder_label)
    lines += [f"labels     {', '.join(labels)}"] if labels else []
    if found.stimuli.function is not None:
        model = getattr(stimulus_function(found.stimuli), "options_model", None)
        lines += [
            f"option     {key} = {option.get_default(call_default_factory=True)!r}: {option.description}"
            for key, option in (model.model_fields if model is not None else {}).items()
        ]
    elif found.stimuli.folder_label:
        lines += [f"option     {key}: {option.description}" for key, option in ClassOptions.model_fields.items()]
    for key, variable in found.variables.items():
        lines.append(f"variable   {key} ({', '.join(variable.dims)}): {variable.description} [{variable.units}]")
        lines += [f"           note: {variable.note}"] if variable.note else []
    for file in found.files.values():
        lines.append(f"file       {file.path} ({format_bytes(file.bytes)}): {file.address or file.by_hand}")
    lines += [f"by hand    {found.stimuli.by_hand}"] if found.stimuli.by_hand else []
    lines += [f"state      {state(name, root)}" + (f", in {locate(name, root)}" if found.files else "")]
    lines += [f"licence    {found.licence}"]
    lines += [f"cite       {paper}" for paper in found.citation]
    lines += [f"homepage   {found.homepage}"] if found.homepage else []
    return "\n".join(lines)


def _places(found: Spec, name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders where a data set may lie, best first."""
    if root is not None:
        inner = Path(root) / (found.folder or found.name)
        return [inner] if inner.is_dir() or not _holds_files(found, Path(root)) else [Path(root)]
    places = []
    if os.environ.get(ENVIRONMENT):
        places.append(Path(os.environ[ENVIRONMENT]).expanduser() / (found.folder or found.name))
    if str(name).endswith((".yaml", ".yml")):
        places.append(Path(name).absolute().parent)
    import platformdirs

    places.append(Path(platformdirs.user_cache_dir("actkit", appauthor=False)) / "data" / (found.folder or found.name))
    return places


def _holds_files(found: Spec, folder: Path) -> bool:
    """Whether a folder holds files of a data set itself."""
    if found.stimuli.idx is not None:
        return any(path.is_file() for path in idx_files(found.stimuli.idx, folder).values())
    wanted = [file.path for file in found.files.values()] or [found.stimuli.folder or ""]
    return any((folder / path).exists() for path in wanted)


def _check_options(found: Spec, options: Mapping[str, Any]) -> None:
    """Refuse unknown options when the data set is opened, not when it is drawn."""
    model = getattr(stimulus_function(found.stimuli), "options_model", None)
    if model is None:
        raise InputError(f"{found.name} has no options; leave out {', '.join(options)}")
    parse(model, options, f"load_data({found.name!r})")
