"""Sets of pictures with a folder for each class: which classes to take, and how many pictures of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from actkit.errors import DataError
from actkit.options import Options, parse
from actkit.resampling import Stream, generator
from actkit.stimuli import Stimuli


class ClassOptions(Options):
    """Options of every data set whose folders are its classes (its spec has the key ``folder_label``)."""

    n_classes: int | None = Field(None, ge=1, description="how many classes, by default all that are left")
    first_class: int = Field(
        0, ge=0, description="classes to pass over first; sets of other classes than an earlier one start where it ends"
    )
    at_least: int = Field(1, ge=1, description="only classes of at least so many pictures; they are counted first")
    per_class: int | None = Field(None, ge=1, description="pictures of each class, by default all")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the order of the classes, and of the pictures in each")


def choose_classes(stimuli: Stimuli, label: str, values: dict[str, Any]) -> Stimuli:
    """Take some classes of a set, and some pictures of each.

    Parameters
    ----------
    stimuli : Stimuli
        The whole set.
    label : str
        The label that holds the class.
    values : dict
        Values of `ClassOptions`; without any the set is left as it is.

    Returns
    -------
    Stimuli
        The pictures that were chosen, in the order of the set. Classes are taken in a random order of their own that
        depends on ``seed`` and on which classes have ``at_least`` so many pictures: with both the same, two choices
        have no class in common where their ranges of ``first_class`` and ``n_classes`` do not meet.

    Raises
    ------
    InputError
        If there is no such option.
    DataError
        If there are fewer classes, or fewer pictures of a class, than asked for.
    """
    if not values:
        return stimuli
    options = parse(ClassOptions, values, stimuli.name)
    names, numbers, counts = np.unique(stimuli.labels[label].astype(str), return_inverse=True, return_counts=True)
    rows_of = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    enough = np.flatnonzero(counts >= options.at_least)
    # One stream a purpose: more classes, or more pictures of each, leave the choice of the others as it is.
    order = enough[generator(options.seed, 0, Stream.STIMULI).permutation(len(enough))]
    last = len(order) if options.n_classes is None else options.first_class + options.n_classes
    if last > len(order) or options.first_class >= len(order):
        wanted = "one class" if options.n_classes is None else f"{options.n_classes} classes"
        raise DataError(
            f"{stimuli.name}: {wanted} from number {options.first_class} on cannot be taken of the {len(order)} "
            f"classes with {options.at_least} pictures or more ({len(names)} classes in all); lower n_classes, "
            "first_class or at_least, or bring more pictures"
        )
    taken = np.zeros(len(stimuli), dtype=bool)
    for number in order[options.first_class : last].tolist():
        rows = rows_of[number]
        wanted_rows = len(rows) if options.per_class is None else options.per_class
        if wanted_rows > len(rows):
            raise DataError(
                f"{stimuli.name}: class {str(names[number])!r} has {len(rows)} pictures, and {wanted_rows} of each "
                f"class are asked for; lower per_class, or leave such classes out with at_least: {wanted_rows}"
            )
        taken[generator(options.seed, number + 1, Stream.STIMULI).permutation(rows)[:wanted_rows]] = True
    return stimuli[taken]
