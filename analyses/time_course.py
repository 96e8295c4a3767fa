"""What figures of RSA over time share: the course of each model, its test, and the parts of the time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_reading import ALPHA, attribute, kinds, scope
from actkit.analyses.rsa_words import Marks, names_of
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

TimeTest = Literal["auto", "flip", "permutation"]

MOST_CURVES = 7  # as many as there are colours that can be told apart


@dataclass(frozen=True)
class Course:
    """The rows that are drawn, in their order, with their courses ``(row, time)``."""

    rows: np.ndarray
    names: list[str]
    time: np.ndarray
    mean: np.ndarray
    significant: np.ndarray
    gaps: list[int]  # places before which another network or kind begins

    @property
    def curves(self) -> bool:
        """Whether there are few enough for curves."""
        return len(self.rows) <= MOST_CURVES

    def peak(self, place: int) -> int | None:
        """The time bin of a row's maximum."""
        values = self.mean[place]
        return None if np.isnan(values).all() else int(np.nanargmax(values))


def read_course(result: xr.Dataset, tests: Marks) -> Course:
    """Order the rows: networks along their depth, then models and controls by their maximum.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time, which is the last one, in order.
    tests : Marks
        The p-values that mark significance, ``(model, time)``.

    Returns
    -------
    Course
        What is drawn.
    """
    kind = kinds(result)
    mean = np.asarray(result["mean"].values, dtype=float)
    top = np.nan_to_num(np.nanmax(np.where(np.isnan(mean), -np.inf, mean), axis=1), neginf=-1e9)
    networks = result["network"].values.astype(str) if "network" in result.coords else kind
    position = (
        np.nan_to_num(np.asarray(result["position"].values, dtype=float)) if "position" in result.coords else -top
    )
    groups = []
    for network in dict.fromkeys(networks[kind == "layer"].tolist()):
        rows = np.flatnonzero((kind == "layer") & (networks == network))
        groups.append(rows[np.argsort(position[rows], kind="stable")])
    rows = np.flatnonzero(kind != "layer")
    groups.append(rows[np.argsort(-top[rows], kind="stable")])
    groups = [rows for rows in groups if len(rows)]
    order = np.concatenate(groups)
    return Course(
        order,
        names_of(result, order, 30),
        np.asarray(result["time"].values, dtype=float),
        mean[order],
        (tests.p < ALPHA)[order],
        np.cumsum([len(group) for group in groups])[:-1].tolist(),
    )


def tests_of(result: xr.Dataset, test: TimeTest) -> Marks:
    """Choose the p-values that mark significance, and their words.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    test : {"auto", "flip", "permutation"}
        Those that go with what the result generalises to, or those of one test.

    Returns
    -------
    Marks
        p-values ``(model, time)`` and what a caption says of them.

    Raises
    ------
    InputError
        If `test` is unknown or was not run.
    """
    names = {"auto": "p_value", "flip": "p_flip", "permutation": "p_permutation"}
    if test not in names:
        raise InputError(f"test is {test!r}; choose 'auto', 'flip' or 'permutation'")
    missing = np.full(result["mean"].shape, np.nan)
    p = np.asarray(result[names[test]].values, dtype=float) if names[test] in result.variables else missing
    if test != "auto" and not np.isfinite(p).any():
        raise InputError(f"the result has no p-values {names[test]!r}; that test was not run")
    by_target = {"subject": ["flip"], "stimulus": ["permutation"], "both": ["flip", "permutation"]}
    ran = by_target[scope(result)] if test == "auto" else [test]
    words = [str(attribute(result, f"test_{name}", default="")) for name in ran]
    if not all(words):
        return Marks(p, str(attribute(result, "test", default="corrected")))
    if len(words) > 1:
        return Marks(p, f"by both of two tests: (1) {words[0]}; (2) {words[1]}")
    return Marks(p, words[0])


def peak_words(result: xr.Dataset, course: Course, place: int) -> str:
    """Say a row's maximum and when it was.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    course : Course
        What is drawn.
    place : int
        The row.

    Returns
    -------
    str
        Text such as ``.31 at 173 ms``.
    """
    peak = course.peak(place)
    if peak is None:
        return "no score"
    unit = str(result["time"].attrs.get("units", ""))
    step = float(np.diff(course.time).min()) if len(course.time) > 1 else 1.0
    when = f"{course.time[peak]:.{max(0, int(np.ceil(-np.log10(step))))}f}".replace("-", "−")
    return f"{plotting.short(course.mean[place, peak])} at {when} {unit}".strip()


def time_label(result: xr.Dataset) -> str:
    """Write the label of the time axis, with its unit.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.

    Returns
    -------
    str
        Text such as ``Time (ms)``.
    """
    unit = str(result["time"].attrs.get("units", ""))
    return f"Time ({unit})" if unit else "Time"


def bin_edges(time: np.ndarray) -> np.ndarray:
    """Put borders between time bins, half way between their centres.

    Parameters
    ----------
    time : numpy.ndarray
        Centres, in order.

    Returns
    -------
    numpy.ndarray
        One more than there are bins.
    """
    if len(time) == 1:
        return np.array([time[0] - 0.5, time[0] + 0.5])
    middle = (time[1:] + time[:-1]) / 2
    return np.concatenate([[2 * time[0] - middle[0]], middle, [2 * time[-1] - middle[-1]]])


def draw_onset(axes: Axes, course: Course, label: bool, colour: str = plotting.SOFT) -> None:
    """Draw a line where the stimulus comes on, if time 0 lies within the course.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes with time along x.
    course : Course
        What is drawn.
    label : bool
        Write a word beside it.
    colour : str
        Of the line.
    """
    if not course.time[0] < 0 < course.time[-1]:
        return
    axes.axvline(0, color=colour, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    if label:
        axes.annotate(
            "onset",
            (0, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -1),
            textcoords="offset points",
            va="top",
            ha="left",
            fontsize=9,
            color=plotting.SOFT,
        )
