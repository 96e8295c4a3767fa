"""Words of a study: labels as they are compared, variables as they are named, groups of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actkit.errors import InputError, nearest


def has_value(value: Any) -> bool:
    """Tell whether a label is given; joined sets of stimuli lack each other's labels.

    Parameters
    ----------
    value : str, number or None
        One stimulus's label.

    Returns
    -------
    bool
        False for an empty text, None and NaN.
    """
    return value is not None and value != "" and value == value


_CAPITALS = {"it": "IT", "v1": "V1", "v2": "V2", "v4": "V4", "mt": "MT", "fmri": "fMRI", "meg": "MEG", "eeg": "EEG"}


def readable(name: str) -> str:
    """Write the name of a variable as people do.

    Parameters
    ----------
    name : str
        Such as ``"human_it"``.

    Returns
    -------
    str
        Such as ``"human IT"``.
    """
    return " ".join(_CAPITALS.get(word, word) for word in name.replace("_", " ").split())


def variable_name(variable: str) -> str:
    """Name a variable in steps and files, without the data set or folder it is in.

    Parameters
    ----------
    variable : str
        As a study gives it: a name, ``DATASET:VARIABLE`` or a file.

    Returns
    -------
    str
        The name alone.
    """
    return Path(variable).stem if variable.endswith(".nc") else variable.rpartition(":")[2]


def grouped(values: np.ndarray, groups: Mapping[str, list[Any]]) -> np.ndarray:
    """Merge the values of a label into named groups.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        The label of each stimulus.
    groups : mapping of str to list
        Name of a group to the values it takes in.

    Returns
    -------
    numpy.ndarray of str, shape (n,)
        The group of each stimulus.

    Raises
    ------
    InputError
        If a value belongs to no group or to two, or a group names a value that no stimulus has.
    """
    home: dict[str, str] = {}
    present = {label_word(value) for value in values.tolist()}
    for name, members in groups.items():
        for member in members:
            word = label_word(member)
            if word in home:
                raise InputError(f"groups: {word!r} stands in {home[word]!r} and in {name!r}; keep it in one")
            if word not in present:
                raise InputError(
                    f"groups, {name}: no stimulus has the value {word!r}; {nearest(word, sorted(present))}"
                )
            home[word] = name
    homeless = present - set(home)
    if homeless:
        raise InputError(f"groups: {min(homeless)!r} belongs to no group; give every value of the label a group")
    return np.array([home[label_word(value)] for value in values.tolist()], dtype=str)


def label_word(value: Any) -> str:
    """Write a label value so that YAML's true and 1, CSV's '1', and the 1.0 of joined sets are the same.

    Parameters
    ----------
    value : str, number or bool
        A label.

    Returns
    -------
    str
        The word.
    """
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def slug(text: str) -> str:
    """Make a file name of a step's name.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Letters, digits, dots, dashes and underscores.
    """
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
