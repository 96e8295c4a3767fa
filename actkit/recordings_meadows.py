"""Multi-arrangement judgements from files of Meadows Research, read by rsatoolbox's own reader."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from actkit.errors import InputError, require
from actkit.recordings_exchange import from_rsatoolbox


def load_meadows(path: str | Path, name: str | None = None) -> xr.Dataset:
    """Load the RDMs of a multi-arrangement experiment from a file of Meadows Research, with rsatoolbox's reader.

    Parameters
    ----------
    path : path
        A ``.mat`` file (one participant, or all participants of a task) or a ``.json`` tree of one participant, under
        the name that Meadows gave it: experiment, participant and task are read from the name.
    name : str, optional
        Name of the dataset; the experiment's by default.

    Returns
    -------
    xarray.Dataset
        RDM dataset along ``subject`` where each participant has one RDM, and along ``rdm`` (tasks of one participant)
        otherwise; stimuli in alphabetical order, ids without file extensions. Tasks over other stimuli than the first
        are left out by the reader, which the attribute ``note`` then says.

    Raises
    ------
    InputError
        If there is no such file, its name is not of Meadows' pattern, it holds no RDMs, participants saw different
        stimuli, or file names that differ only after their first dot would share an id.
    MissingExtraError
        If rsatoolbox is not installed.
    """
    require("rsatoolbox", "rsatoolbox", "reading Meadows files")
    from rsatoolbox.io.meadows import load_rdms

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no Meadows file at {path}")
    if path.suffix == ".mat":
        _check_meadows_stimuli(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            theirs = load_rdms(str(path))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} cannot be read as a Meadows file ({error}); keep the name under which it was downloaded, "
            "such as Meadows_myExp_v_v1_cuddly-bunny_3_1D.mat, and download the 1D .mat or the tree .json"
        ) from error
    conditions = [str(value).strip() for value in theirs.pattern_descriptors["conds"]]
    theirs.pattern_descriptors["conds"] = conditions
    if len(set(conditions)) < len(conditions):
        repeated = next(value for value in conditions if conditions.count(value) > 1)
        raise InputError(
            f"{path.name}: several stimulus files are called {repeated!r} up to their first dot, where rsatoolbox's "
            "reader cuts names; their rows cannot be told apart"
        )
    participants = [str(value) for value in theirs.rdm_descriptors["participant"]]
    subjects = len(set(participants)) == len(participants)
    if not subjects:
        tasks = [str(value) for value in theirs.rdm_descriptors["task"]]
        theirs.rdm_descriptors["name"] = [f"{who}/{task}" for who, task in zip(participants, tasks, strict=True)]
    result = from_rsatoolbox(
        theirs,
        dim="subject" if subjects else "rdm",
        names="participant" if subjects else "name",
        stimulus="conds",
        name=name or str(theirs.descriptors.get("experiment_name", path.stem)),
    )
    if any("stimuli" in str(warning.message).lower() for warning in caught):
        result.attrs["note"] = "tasks over other stimuli than the first task's were left out by the reader"
    return result


def _check_meadows_stimuli(path: Path) -> None:
    """Refuse participants with other stimuli, or another order: the reader gives all of them the first one's labels."""
    from scipy.io import loadmat

    content = loadmat(str(path))
    lists = {key: [str(v).strip() for v in np.ravel(content[key])] for key in content if key.startswith("stimuli")}
    if not lists:
        return
    first = next(iter(lists.values()))
    other = [key.removeprefix("stimuli_") for key, values in lists.items() if values != first]
    if other:
        raise InputError(
            f"{path.name}: the stimuli of {', '.join(map(repr, other[:5]))} are not those of the first participant in "
            "the same order, so rows would be mislabelled; download the participants one by one and join them with "
            "concatenate_rdms()"
        )
