"""What a study of segregation expects, what it measured, and whether that held: one row for each claim.

Expectations come from Dobs, Martinez, Kell & Kanwisher (2022), Science Advances 8, eabl8913. Layers are named
beforehand and a claim is judged there; the highest of all layers stands beside it and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from actkit.analyses.segregation_seed_values import ALPHA, seeds_of, summary_of, welch
from actkit.errors import InputError
from actkit.plotting import short

Accuracies = Mapping[str, Sequence[Mapping[str, float]]]
Decoding = Mapping[str, Mapping[str, Sequence[float]]]
COLUMNS = (
    "finding", "group", "masking", "expected", "measured", "held", "paper", "estimate", "low", "high", "boundary",
    "side", "networks",
)  # fmt: skip
ONE_SEED = "one seed: no interval"
NOT_MEASURED = "not measured"
NO_CLAIM = "no claim"
_PAPER_RHO = {"face": "−.40", "object": "−.47"}


def verdict(low: float, high: float, boundary: float = 0.0, above: bool = True) -> str:
    """Judge a claim by an interval.

    Parameters
    ----------
    low, high : float
        Limits of the interval.
    boundary : float
        What the value is claimed to lie beyond.
    above : bool
        Whether the claim is that it lies above; otherwise below.

    Returns
    -------
    str
        ``"yes"`` if the interval lies wholly on the claimed side, ``"no"`` if wholly on the other, ``"undecided"`` if
        it includes the boundary or is not defined.

    Examples
    --------
    >>> verdict(0.1, 0.3), verdict(-0.3, -0.1), verdict(-0.1, 0.3), verdict(-0.3, -0.1, above=False)
    ('yes', 'no', 'undecided', 'yes')
    """
    if low > boundary:
        return "yes" if above else "no"
    if high < boundary:
        return "no" if above else "yes"
    return "undecided"


@dataclass
class _Rows:
    """Rows of the table while it is made."""

    level: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def judge(
        self,
        claim: Mapping[str, str],
        values: np.ndarray,
        other: np.ndarray | None = None,
        *,
        boundary: float = 0.0,
        above: bool = True,
        more: str = "",
        no_claim: bool = False,
    ) -> None:
        """Add a row from the values of networks, or from those of two groups of networks."""
        counts = [len(values)] if other is None else [len(values), len(other)]
        both = values if other is None else np.concatenate([values, other])
        missing = int(np.isnan(both).sum())
        if not len(both) or missing:
            words = f"{missing} of {len(both)} networks have no value" if len(both) else "no network has a value"
            self.lack(claim, words + (f"; {more}" if more else ""))
            return
        if other is None:
            mean, _, low, high = (float(value) for value in summary_of(values, self.level))
        else:
            mean, low, high = (float(value) for value in welch(values, other, self.level))
        one = min(counts) < 2
        held = ONE_SEED if one else verdict(low, high, boundary, above)
        words = short(mean) if one else f"{short(mean)} [{short(low)}, {short(high)}]"
        self.rows.append(
            {
                **claim,
                "measured": f"{words}; {more}" if more else words,
                "held": NO_CLAIM if no_claim else held,
                "estimate": mean,
                "low": low,
                "high": high,
                "boundary": boundary,
                "side": "above" if above else "below",
                "networks": " and ".join(map(str, counts)),
            }
        )

    def lack(self, claim: Mapping[str, str], words: str) -> None:
        """Add a row for a claim that nothing was measured for, so that it does not pass unnoticed."""
        self.rows.append(
            {**claim, "measured": words, "held": NOT_MEASURED, "estimate": np.nan, "low": np.nan, "high": np.nan,
             "boundary": np.nan, "side": "", "networks": ""}
        )  # fmt: skip


def findings(
    summary: xr.Dataset,
    accuracies: Accuracies | None = None,
    decoding: Decoding | None = None,
    *,
    margin: float = 0.05,
) -> pd.DataFrame:
    """Set each claim of the paper beside what was measured.

    Parameters
    ----------
    summary : xarray.Dataset
        What :func:`actkit.analyses.segregation_seeds.segregation_seeds` returned.
    accuracies : mapping of group to sequence of mapping of task to float, optional
        For each group of networks, and each network of it, its accuracy on each of its tasks (0 to 1).
    decoding : mapping of group to mapping of label to sequence of float, optional
        For each group of single-task networks and each set of held-out classes, named as the task, the decoding
        accuracy of every network.
    margin : float
        How much less accurate than single-task networks (as a difference of accuracies) still counts as nearly as
        accurate. The paper names none.

    Returns
    -------
    pandas.DataFrame
        A row for each claim: ``finding``, ``group``, ``masking``, ``expected``, ``measured`` (estimate and t interval
        over networks), ``held``, ``paper`` (its value, where known), ``estimate``, ``low``, ``high``, ``boundary``,
        ``side`` (of the boundary, on which the claim lies) and ``networks``. ``held`` is ``yes`` if the interval lies
        wholly on the expected side, ``no`` if wholly on the other, ``undecided`` if it includes the boundary; ``one
        seed: no interval``; ``not measured`` where a network or input lacks the value; ``no claim`` for the control's
        own excess.

    Raises
    ------
    InputError
        If it is not a summary over seeds, or the margin is negative.

    Notes
    -----
    Verdicts are not corrected for their number: of twenty claims that are false by nothing, one lies outside its 95 %
    interval. Changes from the early to the late layer, and the two kinds of lesion, are compared within networks;
    groups of networks by Welch's interval.
    """
    if summary.attrs.get("analysis") != "segregation_seeds" or "index_seeds" not in summary:
        raise InputError("this is not a summary over seeds (index_seeds); give what segregation_seeds() returned")
    if margin < 0:
        raise InputError(f"a margin of {margin} would ask for more than equal accuracy; give 0 or more, such as 0.05")
    control = summary.attrs.get("control")
    rows = _Rows(float(summary.attrs.get("level", 0.95)))
    mains = [str(name) for name in summary["group"].values if name != control]
    for group in mains:
        _segregation(rows, summary, group, None if control is None else str(control))
        _shared(rows, summary, group)
        _selectivity(rows, summary, group)
        _accuracy(rows, summary, group, accuracies or {}, margin)
    if control is not None:
        _control(rows, summary, str(control))
    _decoding(rows, summary, accuracies or {}, decoding or {})
    made = rows.rows
    keys = list(dict.fromkeys((row["group"], row["finding"]) for row in made))
    # Both maskings of a claim stand together.
    made.sort(key=lambda row: keys.index((row["group"], row["finding"])))
    return pd.DataFrame(made, columns=list(COLUMNS))


def _highest(summary: xr.Dataset, name: str, group: str, masking: str) -> str:
    """The highest mean of all layers, in words."""
    means = summary[name].sel(group=group, masking=masking).values
    if np.isnan(means).all():
        return ""
    at = int(np.nanargmax(means))
    return f"highest of all layers, seen afterwards: {short(float(means[at]))} at {summary['layer'].values[at]!s}"


def _too_few(summary: xr.Dataset) -> str:
    """Say so where shuffles are too few to reach p < .05."""
    n = int(summary.attrs.get("n_null", 1000))
    return f" ({n} shuffles cannot reach it)" if 1 / (1 + n) >= ALPHA else ""


def _segregation(rows: _Rows, summary: xr.Dataset, group: str, control: str | None) -> None:
    """The index: rising, above its null, above the control's."""
    early, late = str(summary.attrs["early"]), str(summary.attrs["late"])
    for masking in map(str, summary["masking"].values):
        at = {"masking": masking}
        values = {
            (name, layer): seeds_of(summary, name, group, layer=layer, **at)
            for name in ("index", "excess")
            for layer in (early, late)
        }
        claim = {"group": group, "masking": masking}
        if early != late:
            for name, what, paper in (
                ("index", "Segregation rises with depth", "small in early layers, up to .75 in late ones"),
                ("excess", "Segregation rises with depth, null subtracted", ""),
            ):
                low, high = values[name, early], values[name, late]
                ends = _ends(low, high, early, late)
                rows.judge(
                    {**claim, "finding": what, "expected": f"{name} at {late} above {early}", "paper": paper},
                    high - low, more=ends,
                )  # fmt: skip
        n = int(summary["n_networks"].sel(group=group))
        more = []
        if "n_significant" in summary:
            count = int(summary["n_significant"].sel({"group": group, "layer": late, **at}))
            more.append(f"p < .05 in {count} of {n} networks" + _too_few(summary))
        if "n_saturated" in summary and (
            lost := int(summary["n_saturated"].sel({"group": group, "layer": late, **at}))
        ):
            more.append(f"saturated in {lost} of {n}")
        more.append(_highest(summary, "excess", group, masking))
        rows.judge(
            {**claim, "finding": "Segregated beyond the class-shuffled null", "expected": f"excess above 0 at {late}",
             "paper": "not shown"},
            values["excess", late], more="; ".join(filter(None, more)),
        )  # fmt: skip
        if control is None:
            continue
        for name, what, paper in (
            ("index", "More segregated than the same-task control", ".75 against .21"),
            ("excess", "More segregated than the same-task control, null subtracted", ""),
        ):
            other = seeds_of(summary, name, control, layer=late, **at)
            ends = f"{short(float(values[name, late].mean()))} against {short(float(other.mean()))}"
            rows.judge(
                {**claim, "finding": what, "expected": f"{name} at {late} above {control}", "paper": paper},
                values[name, late], other, more=ends,
            )  # fmt: skip


def _control(rows: _Rows, summary: xr.Dataset, control: str) -> None:
    """The control's own excess, of which nothing is claimed."""
    late = str(summary.attrs["late"])
    n = int(summary["n_networks"].sel(group=control))
    for masking in map(str, summary["masking"].values):
        index = seeds_of(summary, "index", control, layer=late, masking=masking)
        more = [f"index {short(float(index.mean()))}"]
        if "n_significant" in summary:
            count = int(summary["n_significant"].sel(group=control, layer=late, masking=masking))
            more.append(f"p < .05 in {count} of {n} networks" + _too_few(summary))
        rows.judge(
            {"finding": "The same-task control against its null", "group": control, "masking": masking,
             "expected": f"excess at {late}: nothing is claimed", "paper": "index .21, null not shown"},
            seeds_of(summary, "excess", control, layer=late, masking=masking),
            more="; ".join(more), no_claim=True,
        )  # fmt: skip


def _shared(rows: _Rows, summary: xr.Dataset, group: str) -> None:
    """Shared units fall with depth, also relative to what noisy rankings can share."""
    early, late = str(summary.attrs["early"]), str(summary.attrs["late"])
    if early == late:
        return
    for name, what, paper in (
        ("shared", "Tasks share fewer top units with depth", "high in early layers, falling sharply; chance .20"),
        ("shared_normalised", "Shared units fall with depth, relative to the rankings' reliability", ""),
    ):
        claim = {"finding": what, "group": group, "masking": "", "expected": f"{late} below {early}", "paper": paper}
        if f"{name}_seeds" not in summary:
            rows.lack(claim, "the results hold no shared units")
            continue
        low, high = (seeds_of(summary, name, group, layer=layer) for layer in (early, late))
        more = _ends(low, high, early, late)
        rows.judge(claim, high - low, above=False, more=more)


def _ends(low: np.ndarray, high: np.ndarray, early: str, late: str) -> str:
    """Means at either end of the network; nothing where one was not measured in some network."""
    if not np.isfinite([low.mean(), high.mean()]).all():
        return ""
    return f"{short(float(low.mean()))} at {early}, {short(float(high.mean()))} at {late}"


def _selectivity(rows: _Rows, summary: xr.Dataset, group: str) -> None:
    """Causal lesions against lesions by selectivity, and the correlation of the two rankings."""
    late = str(summary.attrs["late"])
    names = [str(name) for name in summary["task_name"].sel(group=group).values]
    for place, task in zip(summary["ranking"].values, names, strict=True):
        for masking in map(str, summary["masking"].values):
            claim = {
                "finding": f"Causal lesions cost {task} more than lesions by selectivity", "group": group,
                "masking": masking, "expected": f"own-task drop larger at {late}", "paper": "larger (no number)",
            }  # fmt: skip
            where = {"layer": late, "masking": masking, "ranking": place}
            own, selective = (seeds_of(summary, name, group, **where) for name in ("own_drop", "selective_own"))
            if not len(own) or not len(selective):
                rows.lack(claim, "no lesions by selectivity: give segregation() selectivity images")
                continue
            rows.judge(
                claim, own - selective,
                more=f"{short(float(own.mean()))} against {short(float(selective.mean()))}",
            )  # fmt: skip
    for place, task in zip(summary["ranking"].values, names, strict=True):
        claim = {
            "finding": f"Units needed most for {task} are selective for it", "group": group, "masking": "",
            "expected": f"rank–selectivity correlation below 0 at {late}",
            "paper": next((value for word, value in _PAPER_RHO.items() if task.casefold().startswith(word)), ""),
        }  # fmt: skip
        rho = seeds_of(summary, "rank_selectivity", group, layer=late, ranking=place)
        if not len(rho):
            rows.lack(claim, "no selectivity: give segregation() selectivity images")
            continue
        rows.judge(claim, rho, above=False)


def accuracies_by_task(accuracies: Accuracies) -> dict[str, dict[str, np.ndarray]]:
    """Turn accuracies of networks around.

    Parameters
    ----------
    accuracies : mapping of group to sequence of mapping of task to float
        As for :func:`findings`.

    Returns
    -------
    dict
        Task to group to ``(network,)`` accuracies, in the order of first mention.

    Raises
    ------
    InputError
        If the networks of a group do not all have the same tasks, or an accuracy is not between 0 and 1.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for group, ones in accuracies.items():
        for task in ones[0] if ones else ():
            if any(set(one) != set(ones[0]) for one in ones):
                raise InputError(f"networks of {group!r} have accuracies of different tasks; give all of them the same")
            values = np.array([float(one[task]) for one in ones])
            if ((values < 0) | (values > 1)).any():
                raise InputError(f"{group!r} has an accuracy of {values.max():g} in {task!r}; give shares from 0 to 1")
            found.setdefault(str(task), {})[str(group)] = values
    return found


def _singles(summary: xr.Dataset, accuracies: Accuracies) -> list[str]:
    """Groups of networks trained on one task."""
    given = summary.attrs.get("singles")
    if given is not None and len(given):
        return [str(name) for name in np.atleast_1d(given)]
    return [str(group) for group, ones in accuracies.items() if ones and len(ones[0]) == 1]


def _accuracy(rows: _Rows, summary: xr.Dataset, group: str, accuracies: Accuracies, margin: float) -> None:
    """The network of both tasks against those of one."""
    by_task = accuracies_by_task(accuracies)
    singles = _singles(summary, accuracies)
    for task in map(str, summary["task_name"].sel(group=group).values):
        claim = {
            "finding": f"Nearly as accurate on {task} as networks of that task alone", "group": group, "masking": "",
            "expected": f"difference above −{short(margin)}", "paper": "nearly equal (no number)",
        }  # fmt: skip
        of = by_task.get(task, {})
        single = next((name for name in singles if name in of and name != group), None)
        if group not in of or single is None:
            rows.lack(claim, "no accuracies of both kinds of network were given")
            continue
        more = f"{short(float(of[group].mean()))} against {short(float(of[single].mean()))}"
        rows.judge(claim, of[group], of[single], boundary=-margin, more=more)


def _decoding(rows: _Rows, summary: xr.Dataset, accuracies: Accuracies, decoding: Decoding) -> None:
    """Held-out classes: each single-task network against the other on its own kind."""
    singles = [name for name in _singles(summary, accuracies) if name in decoding] or list(decoding)
    if len(singles) < 2:
        rows.lack(
            {"finding": "Held-out classes are decoded best from networks of their kind", "group": "", "masking": "",
             "expected": "own kind above other kind", "paper": "clearly, on both (no number); chance .01"},
            "no decoding of two groups of single-task networks was given",
        )  # fmt: skip
        return
    for mine in singles:
        for other in singles:
            if other == mine:
                continue
            label = _own_label(mine, decoding[mine], accuracies)
            claim = {
                "finding": f"Held-out {label or mine} classes are decoded better from {mine} than {other} networks",
                "group": mine, "masking": "", "expected": f"{mine} above {other}",
                "paper": "clearly, on both (no number); chance .01",
            }  # fmt: skip
            if label is None or label not in decoding[other]:
                rows.lack(claim, f"no held-out classes are named as the task of {mine}")
                continue
            a, b = (np.asarray(decoding[name][label], dtype=np.float64) for name in (mine, other))
            rows.judge(claim, a, b, more=f"{short(float(a.mean()))} against {short(float(b.mean()))}")


def _own_label(group: str, labels: Mapping[str, Sequence[float]], accuracies: Accuracies) -> str | None:
    """Which held-out classes are of a group's kind: those named as its task or as itself, plurals alike."""
    ones = accuracies.get(group) or [{}]
    wanted = {word.casefold().removesuffix("s") for word in (group, *map(str, ones[0]))}
    return next((str(label) for label in labels if str(label).casefold().removesuffix("s") in wanted), None)
