"""The door through which actkit and third parties add extractors, analyses and data sets: entry points."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from actkit.errors import PluginError, nearest

Group = Literal["actkit.extractors", "actkit.analyses", "actkit.data_specs", "actkit.engines"]


@functools.cache
def found(group: Group) -> dict[str, EntryPoint]:
    """Every entry point of a group by name; actkit's own win over a third party's of the same name.

    Parameters
    ----------
    group : str
        The entry point group.

    Returns
    -------
    dict of str to EntryPoint
        Sorted by name.
    """
    points = sorted(entry_points(group=group), key=lambda p: (p.name, p.dist is None or p.dist.name != "actkit"))
    by_name: dict[str, EntryPoint] = {}
    for point in points:
        by_name.setdefault(point.name, point)
    return by_name


def load(group: Group, name: str) -> Any:
    """Load one entry point.

    Parameters
    ----------
    group : str
        The entry point group.
    name : str
        The entry point's name.

    Returns
    -------
    object
        What the entry point names: a function, a module or a catalogue.

    Raises
    ------
    PluginError
        If there is none of that name, or importing it fails.
    """
    points = found(group)
    kind = group.removeprefix("actkit.")
    if not points:
        raise PluginError(
            f"no entry points of the group {group!r} are installed: actkit runs from a source folder that is not "
            "installed. Install it with `pip install -e .` in the repository, and run tests with the `pytest` script"
        )
    if name not in points:
        raise PluginError(f"no {kind} called {name!r}; {nearest(name, points)}")
    try:
        return points[name].load()
    except ImportError as error:
        if (error.name or "") in ("actkit.analyses", "actkit.data_specs", "actkit.extractors"):
            raise PluginError(
                f"{error.name} is not beside the actkit that Python imported: the current folder is actkit's source "
                "repository, whose folder actkit/ hides the installed package. Run from another folder, or run tests "
                "with the `pytest` script rather than `python -m pytest`"
            ) from error
        owner = points[name].dist
        raise PluginError(
            f"{kind} {name!r} (from {owner.name if owner else 'an unknown package'}) cannot be imported: {error}"
        ) from error
