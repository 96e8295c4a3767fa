"""The quick form of a study: the same file with smaller numbers, to see the whole chain before the long run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actkit.errors import InputError, nearest
from actkit.study_spec import as_mapping


def quick_form(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Put what a study says under `quick` over the rest of it.

    Mappings are merged key by key. The items of `networks` are found by their names, and those of `analyses` by their
    kinds: the first `decoding` under `quick` changes the first `decoding` of the study. Every other value replaces.

    Parameters
    ----------
    raw : mapping
        The content of a study file.
    source : str
        Its name, for messages.

    Returns
    -------
    dict
        The content of the quick form, without the key `quick`; the study itself is not changed.

    Raises
    ------
    InputError
        If there is no `quick`, or an item of it belongs to nothing in the study.
    """
    if not raw.get("quick"):
        raise InputError(
            f"{source}: this study has no quick form, as it has no `quick:` with the options that are other in it; run "
            "it without --quick, or write one"
        )
    where = f"{source}, quick"
    changes = as_mapping(raw["quick"], where, "write {option: value, …}")
    whole = {key: value for key, value in raw.items() if key != "quick"}
    for key in ("quick", "study"):
        if key in changes:
            raise InputError(f"{where}: {key!r} cannot be other in the quick form")
    for key, value in changes.items():
        if key in ("networks", "analyses"):
            whole[key] = _merged_list(whole.get(key), value, f"{where}, {key}", by_name=key == "networks")
        else:
            whole[key] = _merged(whole.get(key), value)
    return whole


def _merged(there: Any, change: Any) -> Any:
    """Merge mappings key by key; anything else replaces."""
    if not isinstance(there, Mapping) or not isinstance(change, Mapping):
        return change
    return {**there, **{key: _merged(there.get(key), value) for key, value in change.items()}}


def _merged_list(there: Any, changes: Any, where: str, by_name: bool) -> list[Any]:
    """Merge each change into the item of its name, or into the next one of its kind."""
    items = list(there) if isinstance(there, list) else []
    if not isinstance(changes, list):
        raise InputError(f"{where}: {changes!r} is not a list; write one item for each that is other")
    used: dict[str, int] = {}
    for number, change in enumerate(changes, 1):
        here = f"{where}, item {number}"
        change = as_mapping(
            change, here, "write {name: …, option: value}" if by_name else "write KIND: {option: value}"
        )
        if by_name and "name" not in change:
            raise InputError(f"{here}: `name: …` is missing, so nothing says which network it changes")
        if not by_name and len(change) != 1:
            raise InputError(f"{here}: {change!r} is not one analysis with its options")
        name = str(change["name"]) if by_name else next(iter(change))
        names = [_name(item) if by_name else _kind(item) for item in items]
        places = [place for place, one in enumerate(names) if one == name]
        if not places:
            what = "network" if by_name else "analysis"
            raise InputError(f"{here}: the study has no {what} {name!r} to change; {nearest(name, names)}")
        turn = 0 if by_name else used.get(name, 0)
        if turn >= len(places):
            raise InputError(f"{here}: the study has {len(places)} {name!r}, and this one would change a further one")
        used[name] = turn + 1
        place = places[turn]
        items[place] = _merged(_written_out(items[place], by_name), change)
    return items


def _name(item: Any) -> str:
    """Name of a network, which is its extractor unless it says otherwise."""
    return str(item.get("name", item.get("extractor", ""))) if isinstance(item, Mapping) else str(item)


def _kind(item: Any) -> str:
    """Kind of an analysis."""
    return str(next(iter(item), "")) if isinstance(item, Mapping) else str(item)


def _written_out(item: Any, by_name: bool) -> Any:
    """An item that is a bare word, as a mapping."""
    if isinstance(item, Mapping):
        return item
    return {"extractor": item} if by_name else {item: {}}
