"""Rows of the table of findings on modular networks: how a check is judged, and where its values come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.segregation_findings import NO_CLAIM, ONE_SEED, verdict
from actkit.analyses.specialization_sweep import find_cell, over_seeds
from actkit.plotting import short

__all__ = ["COLUMNS", "HEADLINES", "NOT_TESTED", "ORDER", "Rows", "beside", "ends", "less", "title_of"]

COLUMNS = (
    "finding", "group", "masking", "expected", "measured", "held", "rule", "source", "estimate", "low", "high",
    "boundary", "side", "networks",
)  # fmt: skip
NOT_TESTED = "not tested"
HEADLINES = {
    1: "Modular structure alone does not give specialization",
    2: "Specialization appears only at extreme sparsity",
    3: "Specialization falls with p, by every measure",
    4: "The measures agree in order, not in level",
    5: "Smaller modules specialise more at equal p",
    6: "Without separable digits no specialization",
    7: "Specialization is transient",
    8: "A late module first represents the other digit",
    9: "Disconnected modules: S of 1, task at its bound",
    10: "Untrained networks score high, trained lower",
}
"""The headline results, by number."""
ORDER = ("expected", "rule", "source")
"""Columns that the words of a check fill."""


def title_of(number: int) -> str:
    """Write number and words of a headline.

    Parameters
    ----------
    number : int
        A key of `HEADLINES`.

    Returns
    -------
    str
        As in the column ``finding``.
    """
    return f"{number}. {HEADLINES[number]}"


@dataclass
class Rows:
    """Rows of the table while it is made, and the values they are made of.

    Attributes
    ----------
    summary : xarray.Dataset
        What summarise_sweep() returned.
    level : float
        Coverage of intervals.
    rows : list of dict
        Made so far.
    """

    summary: xr.Dataset
    level: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def seeds(self, name: str, units: int, p: float, measure: str | None = None, **cell: Any) -> np.ndarray | None:
        """Take the values of a cell by seed.

        Parameters
        ----------
        name : str
            Quantity of the summary, such as ``"S"``.
        units, p
            Size, and p as asked for; see :func:`actkit.analyses.specialization_sweep.find_cell`.
        measure : str, optional
            For quantities by measure.
        **cell
            ``cov_ratio`` and ``trained``.

        Returns
        -------
        numpy.ndarray or None
            ``(seed,)``; None where the sweep has no such networks or measure.
        """
        place = find_cell(self.summary, units, p, **cell)
        if place is None or (measure is not None and measure not in self.summary["measure"].values):
            return None
        found = self.summary[f"{name}_seeds"].isel(cell=place)
        return np.asarray((found if measure is None else found.sel(measure=measure)).values)

    def judge(
        self, number: int, group: str, part: str, words: Sequence[str], values: np.ndarray | None,
        *, boundary: float = 0.0, above: bool = True, more: str = "", claim: bool = True, within: float | None = None,
    ) -> None:  # fmt: skip
        """Add a check.

        Parameters
        ----------
        number : int
            Of the headline.
        group, part : str
            Networks, and the measure or part of the claim.
        words : sequence of str
            What is expected, the rule, and the source.
        values : numpy.ndarray or None
            ``(seed,)``; None where the sweep lacks the networks.
        boundary : float
            What the mean is expected to lie beyond.
        above : bool
            On which side.
        more : str
            What to say beside the numbers.
        claim : bool
            Whether anything is claimed.
        within : float, optional
            The mean is expected within this distance of 0 instead.
        """
        row: dict[str, Any] = {"finding": title_of(number), "group": group, "masking": part}
        row |= dict(zip(ORDER, words, strict=True))
        if values is None or not np.isfinite(values).any():
            lacking = "the sweep has no such networks" if values is None else "no seed has a value"
            nothing = dict.fromkeys(("estimate", "low", "high", "boundary"), np.nan)
            self.rows.append(row | nothing | {"measured": lacking, "held": NOT_TESTED, "side": "", "networks": ""})
            return
        mean, low, high, n = (float(one) for one in over_seeds(values, self.level))
        shown = short(mean) if n < 2 else f"{short(mean)} [{short(low)}, {short(high)}]"
        if n < len(values):
            more = "; ".join(filter(None, (more, f"{len(values) - int(n)} of {len(values)} seeds without a value")))
        held = NO_CLAIM if not claim else ONE_SEED if n < 2 else verdict(low, high, boundary, above)
        side = "above" if above else "below"
        if within is not None:
            side = ""
            if held not in (ONE_SEED, NO_CLAIM):
                inside, outside = abs(low) < within and abs(high) < within, low > within or high < -within
                held = "yes" if inside else "no" if outside else "undecided"
        self.rows.append(
            row
            | {"measured": f"{shown}; {more}" if more else shown, "held": held, "estimate": mean, "low": low,
               "high": high, "boundary": boundary, "side": side, "networks": str(int(n))}
        )  # fmt: skip


def less(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """Subtract by seed.

    Parameters
    ----------
    a, b : numpy.ndarray or None
        ``(seed,)``.

    Returns
    -------
    numpy.ndarray or None
        None where one was not measured.
    """
    return None if a is None or b is None else a - b


def ends(a: np.ndarray | None, b: np.ndarray | None) -> str:
    """Write both means, where there are any.

    Parameters
    ----------
    a, b : numpy.ndarray or None
        ``(seed,)``.

    Returns
    -------
    str
        Words, or nothing.
    """
    if a is None or b is None or not (np.isfinite(a).any() and np.isfinite(b).any()):
        return ""
    return f"{short(float(np.nanmean(a)))} against {short(float(np.nanmean(b)))}"


def beside(rows: Rows, units: int, p: float) -> str:
    """Write the task accuracy that stands beside every S.

    Parameters
    ----------
    rows : Rows
        Holds the summary.
    units, p
        Size, and p as asked for.

    Returns
    -------
    str
        Words, or nothing.
    """
    found = rows.seeds("task_accuracy", units, p)
    return "" if found is None else f"task accuracy {short(float(np.nanmean(found)))}"
