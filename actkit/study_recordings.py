"""Recordings of neurons in a study: found by name, brought to the study's stimuli by id, with the study's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import DataError, InputError, nearest
from actkit.study_opening import load_dataset
from actkit.study_spec import said_where
from actkit.study_words import has_value, label_word, selected_words

if TYPE_CHECKING:
    import xarray as xr

    from actkit.study_workshop import Workshop

LEAST = 3
"""Stimuli that a correlation needs at least."""


def prefixed(found: Any, prefix: str | None) -> Any:
    """Put the prefix of a set of stimuli in front of the ids of what was measured with it.

    Parameters
    ----------
    found : xarray.Dataset or xarray.DataArray
        With the coordinate ``stimulus``.
    prefix : str or None
        What to put in front; None for nothing.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        With the ids that the study's stimuli have.
    """
    if not prefix:
        return found
    return found.assign_coords(stimulus=[f"{prefix}{one}" for one in found["stimulus"].values.astype(str).tolist()])


def find_variable(shop: Workshop, text: str) -> Any:
    """Find a variable of a data set, with the ids that the study gives its stimuli.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    text : str
        ``DATASET:VARIABLE``, or a variable of a data set that the study's stimuli come from.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The variable; its ids carry the prefix of the study's item of that data set.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    specs = [spec for spec in shop.study.stimuli if spec.dataset is not None]
    name, sign, variable = text.partition(":")
    if sign:
        mine = [spec for spec in specs if spec.dataset == name]
        dataset = shop.dataset(mine[0]) if mine else load_dataset(name, None, {})
        if variable not in dataset.variables:
            raise DataError(f"{name} has no variable {variable!r}; {nearest(variable, dataset.variables)}")
        return prefixed(dataset[variable], mine[0].prefix if mine else None)
    sets = [(shop.dataset(spec), spec) for spec in specs]
    for dataset, spec in sets:
        if text in dataset.variables:
            return prefixed(dataset[text], spec.prefix)
    known = [*shop.study.observers, *(one for dataset, _ in sets for one in dataset.variables)]
    names = ", ".join(dataset.name for dataset, _ in sets) or "the stimuli (which are a plain folder)"
    raise DataError(f"{text!r} is no variable of {names}" + (f"; {nearest(text, known)}" if known else ""))


def find_recording(shop: Workshop, name: str) -> xr.DataArray:
    """Find a recording of neurons, over those of the study's stimuli that were recorded.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    name : str
        One of the names under ``recordings``.

    Returns
    -------
    xarray.DataArray
        Dims stimulus, neuron and perhaps repetition, in the study's order; called by the study's name.

    Raises
    ------
    DataError
        If there is no such recording, it is not valid, or it shares fewer than three stimuli with the study.
    """
    from actkit.recordings_neurons import validate_responses

    text = shop.study.recordings[name]
    with said_where(f"{shop.study.source}, recordings, {name}"):
        found = _from_file(shop, text) if text.endswith(".nc") else find_variable(shop, text)
        dims = tuple(map(str, found.dims))
        if not {"stimulus", "neuron"} <= set(dims) or hasattr(found, "data_vars"):
            raise DataError(
                f"{text!r} has the dims {', '.join(dims)}, and a recording of neurons is one array over 'stimulus' and "
                "'neuron'; name such a variable"
            )
        found = validate_responses(found)
        place = {one: row for row, one in enumerate(found["stimulus"].values.astype(str).tolist())}
        rows = [place[one] for one in shop.stimuli.ids.tolist() if one in place]
        if len(rows) < LEAST:
            raise DataError(
                f"{text!r} and the study's stimuli share {len(rows)} ids, and a correlation needs at least {LEAST}; "
                f"its ids are like {next(iter(place), '')!r}, the study's like {shop.stimuli.ids[0]!r} (`prefix` of "
                "the stimuli goes in front of both)"
            )
        return found.isel(stimulus=rows).rename(name)


def _from_file(shop: Workshop, text: str) -> Any:
    """Read a recording from a netCDF file with one array."""
    import xarray as xr

    path = shop.study.folder / text
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}; paths count from the study file's folder")
    with xr.open_dataset(path) as opened:
        names = list(opened.data_vars)
        if len(names) != 1:
            raise DataError(f"{text} holds {len(names)} arrays ({', '.join(map(str, names))}); keep the recording")
        return opened[names[0]].load()


def selected_recording(shop: Workshop, name: str, select: Mapping[str, Any], where: str) -> xr.DataArray:
    """Cut a recording to the stimuli that a step is about.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    name : str
        One of the names under ``recordings``.
    select : mapping of str to value or list
        Values of labels; all stimuli if it is empty.
    where : str
        Place in the study file, for the message.

    Returns
    -------
    xarray.DataArray
        As `find_recording` returns it.

    Raises
    ------
    InputError
        If fewer than three of the stimuli were recorded.
    """
    found = shop.recording_of(name)
    if not select:
        return found
    wanted = shop.stimuli.ids[shop.selected(select, where)]
    use = np.isin(found["stimulus"].values.astype(str), wanted)
    if use.sum() < LEAST:
        raise InputError(
            f"{where}, select: {int(use.sum())} of the {len(wanted)} stimuli ({selected_words(select)}) are in the "
            f"recording {name!r}, and a correlation needs at least {LEAST}; select more, or name other recordings "
            "under data"
        )
    return found.isel(stimulus=np.flatnonzero(use))


def recorded_labels(shop: Workshop, label: str, recording: xr.DataArray, where: str) -> dict[str, str]:
    """Find the label of each recorded stimulus.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    label : str
        A label of the study's stimuli.
    recording : xarray.DataArray
        The recording.
    where : str
        Place in the study file, for the message.

    Returns
    -------
    dict of str to str
        Stimulus to the label's value as a word.

    Raises
    ------
    InputError
        If there is no such label, or a recorded stimulus has none.
    """
    values = dict(zip(shop.stimuli.ids.tolist(), shop.label(label, where).tolist(), strict=True))
    ids = recording["stimulus"].values.astype(str).tolist()
    without = [one for one in ids if not has_value(values[one])]
    if without:
        raise InputError(
            f"{where}: {len(without)} of the {len(ids)} stimuli of {recording.name!r} have no {label}, the first is "
            f"{without[0]!r}; name the recordings that have it under data, or select the stimuli that have it"
        )
    return {one: label_word(values[one]) for one in ids}
