"""The ten headline results on specialization in modular networks: what was expected, the rule, and whether it held.

Expectations come from Béna & Goodman (2025), Nature Communications 16:187, its first version (arXiv 2106.02626v1), the
figures that go with the code, and, where it says so, from runs of that code or from counting pairs. Sizes, p and steps
are named beforehand; no cell is chosen by its value.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import xarray as xr

from actkit.analyses.segregation_findings import NO_CLAIM
from actkit.analyses.specialization_checks import COLUMNS, HEADLINES, NOT_TESTED, Rows, beside, ends, less, title_of
from actkit.analyses.specialization_sweep import connections_asked, find_cell, rank_correlation, summarise_sweep
from actkit.errors import InputError
from actkit.plotting import short

__all__ = ["COLUMNS", "HEADLINES", "NOT_TESTED", "findings", "headlines"]

LOW_S = 0.15
NO_S = 0.10
FULL_S = 0.9
UNTRAINED_S = 0.7
MARGIN = 0.1
LARGE = 25
ONE, SPARSE, DENSE, FULL = -1.0, 0.01, 0.1, 1.0
_LATER = 2
_ALONG = ("units", "p", "seed", "trained", "cov_ratio")
_MEASURES = ("retraining", "correlation", "ablation")


def findings(
    result: xr.Dataset,
    dynamics: xr.Dataset | None = None,
    masks: xr.Dataset | None = None,
    *,
    balanced: bool = False,
) -> pd.DataFrame:
    """Test the headline results, one row for each check.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.specialization_sweep.summarise_sweep` returned, or what that function takes.
    dynamics : xarray.Dataset, optional
        What :func:`actkit.analyses.specialization_dynamics.specialization_dynamics` returned for networks of the same
        sweep, with its coordinates along ``network``; without it, numbers 7 and 8 are not tested.
    masks : xarray.Dataset, optional
        What :func:`actkit.analyses.specialization_masks.weight_masks` returned for networks of the sweep, with the same
        coordinates: a further measure for number 3.
    balanced : bool
        Whether pairs were balanced, which lowers what modules reach without communication.

    Returns
    -------
    pandas.DataFrame
        ``finding`` (number and words), ``group`` (networks), ``masking`` (measure or part of the claim), ``expected``,
        ``measured`` (mean over seeds and its t interval), ``held``: yes if the interval lies wholly on the expected
        side of ``boundary``, no if wholly on the other, undecided otherwise; ``one seed: no interval``; ``not tested``
        where the sweep lacks the networks; ``no claim``. Further ``rule``, by which it was judged, ``source`` of the
        expectation, with its value where known, ``estimate``, ``low``, ``high``, ``boundary``, ``side`` and
        ``networks`` (seeds).

    Raises
    ------
    InputError
        If it is no sweep, or dynamics or masks do not say which networks they are of.

    Notes
    -----
    Comparisons are paired by seed. Where all seeds agree the interval is a point, and decides. Verdicts are not
    corrected for their number. The bounds of number 9 are inferred (by counting pairs of ten classes), not taken from
    the paper.
    """
    analysis = result.attrs.get("analysis")
    if analysis not in ("specialization_sweep", "specialization"):
        raise InputError("this is no summary of a sweep; give what summarise_sweep() returned")
    summary = result if analysis == "specialization_sweep" else summarise_sweep(result)
    rows = Rows(summary, float(summary.attrs["level"]))
    sizes = [int(size) for size in summary["units"].values]
    large = [size for size in sizes if size >= LARGE]
    measures = [name for name in _MEASURES if name in summary["measure"].values]
    _structure(rows, large)
    _falls(rows, sizes, measures)
    _masks(rows, masks)
    _order(rows, sizes, measures)
    _sizes(rows, sizes)
    _covariance(rows, measures)
    _dynamics(rows, sizes, dynamics)
    _disconnected(rows, sizes, measures, balanced)
    _untrained(rows, sizes, measures)
    numbers = {title_of(number): number for number in HEADLINES}
    rows.rows.sort(key=lambda row: numbers[row["finding"]])
    return pd.DataFrame(rows.rows, columns=list(COLUMNS))


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Put the checks of each headline result together.

    Parameters
    ----------
    table : pandas.DataFrame
        What :func:`findings` returned.

    Returns
    -------
    pandas.DataFrame
        Ten rows: ``finding``; ``held``: ``yes`` if every check that was tested says yes, ``no`` if any says no,
        ``not tested`` if none was tested, ``undecided`` otherwise; ``checks``, how many said what; ``measured``, the
        numbers of each; ``rule``, all rules in words.
    """
    made = []
    for number, words in HEADLINES.items():
        own = table[table["finding"] == title_of(number)]
        judged = own[own["held"] != NO_CLAIM]
        held = judged["held"].tolist()
        tested = [one for one in held if one != NOT_TESTED]
        combined = (
            NOT_TESTED if not tested
            else "no" if "no" in tested
            else "yes" if all(one == "yes" for one in tested)
            else "undecided"
        )  # fmt: skip
        counts = ", ".join(f"{word}: {n}" for word, n in judged["held"].value_counts(sort=False).items())
        shown = "; ".join(
            f"{', '.join(filter(None, (row['group'], row['masking'])))}: {row['measured']}"
            for _, row in own[own["held"] != NOT_TESTED].iterrows()
        )
        rules = " ".join(dict.fromkeys(f"{rule[:1].upper()}{rule[1:]}." for rule in judged["rule"]))
        made.append(
            {"finding": f"{number}. {words}", "held": combined, "checks": counts, "measured": shown, "rule": rules}
        )
    return pd.DataFrame(made, columns=["finding", "held", "checks", "measured", "rule"])


def _structure(rows: Rows, sizes: list[int]) -> None:
    """Numbers 1 and 2: S against Q."""
    lacking = [] if sizes else [None]
    for size in [*sizes, *lacking]:
        group = f"n = {size}" if size else f"n of {LARGE} or more"
        s = {p: rows.seeds("S", size, p, "retraining") if size else None for p in (ONE, SPARSE, DENSE, FULL)}
        more = ""
        if size and (place := find_cell(rows.summary, size, DENSE)) is not None:
            q = float(rows.summary["Q"].values[place])
            more = f"Q {short(q)}, {short(100 * q / 0.5, 0)} % of its maximum; {beside(rows, size, DENSE)}"
        rows.judge(
            1, group, "retraining",
            (f"S at p = .1 at most {short(LOW_S)}", f"the interval of retraining S at p = .1 lies below {short(LOW_S)}",
             "v1; figure of the code: .11 (n = 25), .04 (n = 50)"),
            s[DENSE], boundary=LOW_S, above=False, more=more,
        )  # fmt: skip
        jump, rest = less(s[ONE], s[SPARSE]), less(s[SPARSE], s[FULL])
        if size and connections_asked(SPARSE, size) <= 1:
            jump = None
        rows.judge(
            2, group, "jump", ("S falls from one connection to p = .01",
            "the interval of retraining S at one connection minus S at p = .01 (same seed) lies above 0",
            "v1: Q > .49; figure of the code: .68 to .22 (n = 25), .48 to .04 (n = 50)"), jump,
            more=ends(s[ONE], s[SPARSE]) + (f"; {beside(rows, size, ONE)} at one connection" if size else ""),
        )  # fmt: skip
        rows.judge(
            2, group, "beyond all other falls", ("and by more than from p = .01 to 1",
            "the interval of that fall minus the fall from p = .01 to p = 1 (same seed) lies above 0",
            "put into numbers here"), less(jump, rest), more=ends(jump, rest),
        )  # fmt: skip


def _falls(rows: Rows, sizes: list[int], measures: list[str]) -> None:
    """Number 3."""
    for size in sizes:
        for measure in measures:
            rho = np.asarray(rows.summary["spearman_seeds"].sel(units=size, measure=measure).values)
            rows.judge(
                3, f"n = {size}", measure, ("Spearman correlation of p and S below 0",
                "the interval of the correlation within seeds, over trained networks with p above 0, lies below 0",
                "v1; figure of the code"), rho, above=False,
            )  # fmt: skip


def _masks(rows: Rows, masks: xr.Dataset | None) -> None:
    """Number 3 for the weight masks, where they were learnt."""
    if masks is None:
        return
    missing = [name for name in _ALONG if name not in masks.coords]
    if masks.attrs.get("analysis") != "weight_masks" or missing:
        raise InputError(
            f"the masks lack {missing or 'an analysis of that name'}; give what weight_masks() returned, with the "
            "coordinates of the sweep along network"
        )
    here = masks["trained"].values.astype(bool) & (masks["p"].values > 0)
    here &= masks["cov_ratio"].values == float(rows.summary.attrs["plain_cov_ratio"])
    for size in np.unique(masks["units"].values[here]):
        own = here & (masks["units"].values == size)
        seeds = np.unique(masks["seed"].values[own])
        rho = []
        for seed in seeds:
            of_seed = own & (masks["seed"].values == seed)
            rho.append(float(rank_correlation(masks["p"].values[of_seed], masks["S"].values[of_seed])))
        rows.judge(
            3, f"n = {size}", "weight mask", ("Spearman correlation of p and S below 0",
            "the interval of the correlation within seeds, over trained networks with p above 0, lies below 0", "v1"),
            np.array(rho), above=False,
        )  # fmt: skip


def _order(rows: Rows, sizes: list[int], measures: list[str]) -> None:
    """Number 4: all networks in one order, levels apart at p = 1."""
    summary = rows.summary
    plain = summary["cov_ratio"].values == float(summary.attrs["plain_cov_ratio"])
    here = np.flatnonzero(summary["trained"].values & plain & (summary["connections"].values > 0))
    s = summary["S_seeds"].isel(cell=here)
    for a, b in combinations(measures, 2):
        first, second = (s.sel(measure=name).values for name in (a, b))
        rho = np.array(
            [
                float(rank_correlation(x[np.isfinite(x)], y[np.isfinite(x)]))
                for x, y in zip(first.T, second.T, strict=True)
            ]
        )
        rows.judge(
            4, "all sizes and p", f"{a}, {b}", ("S of both in one order",
            "the interval of the rank correlation of both measures over all sizes and p, within seeds, lies above 0",
            "figure of the code"), rho,
        )  # fmt: skip
    for size in sizes:
        base = rows.seeds("S", size, FULL, "retraining")
        for measure, value in (("correlation", ".44–.49 against .02–.13"), ("ablation", ".29–.52 against .02–.13")):
            other = rows.seeds("S", size, FULL, measure)
            rows.judge(
                4, f"n = {size}", f"{measure} above retraining", ("S at p = 1 above that of retraining",
                "the interval of the difference at p = 1 (same seed) lies above 0", f"figure of the code: {value}"),
                less(other, base), more=ends(other, base),
            )  # fmt: skip


def _sizes(rows: Rows, sizes: list[int]) -> None:
    """Number 5."""
    paper = "abstract; figure of the code: .36, .11, .04 (n = 10, 25, 50)"
    # A size of 0 stands for none, so that what is lacking is said.
    for small, large in list(pairwise(sizes)) or [(0, 0)]:
        a, b = (rows.seeds("S", one, DENSE, "retraining") for one in (small, large))
        rows.judge(
            5, f"n = {small} and {large}" if small else "two sizes", "retraining",
            ("S of the smaller above that of the larger, p = .1",
             "the interval of the difference of retraining S at p = .1 (same seed) lies above 0", paper),
            less(a, b), more=ends(a, b),
        )  # fmt: skip


def _covariance(rows: Rows, measures: list[str]) -> None:
    """Number 6, in the size and p of which the covariance varies."""
    summary = rows.summary
    varied: dict[tuple[int, int], list[float]] = {}
    for units, links, c, trained in zip(
        *(summary[name].values for name in ("cell_units", "connections", "cov_ratio", "trained")), strict=True
    ):
        if trained and c <= 1:
            varied.setdefault((int(units), int(links)), []).append(float(c))
    varied = {key: values for key, values in varied.items() if len(values) > 1}
    for (size, links), ratios in sorted(varied.items()) or [((0, 0), [])]:
        group = f"n = {size}, {links} connection{'s' * (links != 1)}" if size else "networks of several covariances"
        for measure in [one for one in ("retraining", "ablation", "correlation") if one in measures]:
            at = {c: rows.seeds("S", size, -float(links), measure, cov_ratio=c) if size else None for c in ratios}
            claim = measure != "correlation"
            rho = None
            if len(ratios) > 2:
                rho = rank_correlation(np.array(ratios), np.stack([some for some in at.values() if some is not None]))
            elif len(ratios) == 2:
                rho = less(at[max(ratios)], at[min(ratios)])
            shown = ", ".join(
                f"{short(float(np.nanmean(some)))} at c = {c:g}"
                for c, some in sorted(at.items(), reverse=True)
                if some is not None
            )
            what = "rank correlation of c and S" if len(ratios) > 2 else "S at the higher c minus S at the lower"
            source = "run of the authors' code: .99, .33, .00 at c = 1, .1, 0" if measure == "retraining" else (
                "run of the authors' code" if claim else "run of the authors' code: no fall is expected"
            )  # fmt: skip
            rows.judge(
                6, group, measure, (f"{what} above 0" if claim else f"{what}: nothing is claimed",
                f"the interval of the {what} within seeds lies above 0", source), rho, more=shown, claim=claim,
            )  # fmt: skip
            if claim:
                rows.judge(
                    6, group, f"{measure}, c = 0", (f"S at c = 0 below {short(NO_S)}",
                    f"the interval of S at c = 0 lies below {short(NO_S)} (0 but for the read-outs' scatter)", source),
                    at.get(0.0), boundary=NO_S, above=False,
                )  # fmt: skip


def _dynamics(rows: Rows, sizes: list[int], dynamics: xr.Dataset | None) -> None:
    """Numbers 7 and 8."""
    missing = [] if dynamics is None else [name for name in _ALONG if name not in dynamics.coords]
    if dynamics is not None and (dynamics.attrs.get("analysis") != "specialization_dynamics" or missing):
        raise InputError(
            f"the dynamics lack {missing or 'an analysis of that name'}; give what specialization_dynamics() returned "
            "for states with the coordinates of the sweep along network"
        )

    def at(size: int, p: float, lag: int, since: int) -> np.ndarray | None:
        return None if dynamics is None else _of_dynamics(rows.summary, dynamics, size, p, lag, since)

    for size in sizes:
        group = f"n = {size}"
        sparse = at(size, ONE, 0, _LATER)
        for p in (DENSE, FULL):
            start, later = at(size, p, 0, 0), at(size, p, 0, _LATER)
            rows.judge(
                7, group, f"p = {p:g}", ("the index falls within two steps of the onset",
                "the interval of the module's index at its onset minus that two steps later, both images appearing "
                "together, lies above 0", "figure of the code: .78, then about .1"), less(start, later),
                more=ends(start, later),
            )  # fmt: skip
        dense = at(size, FULL, 0, _LATER)
        rows.judge(
            7, group, "one connection", ("the index stays higher than at p = 1",
            "the interval of the index two steps after the onset at one connection minus that at p = 1 (same seed) "
            "lies above 0", "figure of the code"), less(sparse, dense), more=ends(sparse, dense),
        )  # fmt: skip
        for p in (DENSE, FULL):
            rows.judge(
                8, group, f"p = {p:g}", ("the index is negative one step before a late own onset",
                "the interval of the index of a module whose own image appears two steps after the other, one step "
                "before, lies below 0", "figure of the code: about −.7"), at(size, p, _LATER, -1), above=False,
            )  # fmt: skip
        one, full = at(size, ONE, _LATER, -1), at(size, FULL, _LATER, -1)
        rows.judge(
            8, group, "one connection", ("less negative than at p = 1",
            "the interval of that index at one connection minus that at p = 1 (same seed) lies above 0",
            "figure of the code: −.35 to −.45 against −.7"), less(one, full), more=ends(one, full),
        )  # fmt: skip


def _of_dynamics(
    summary: xr.Dataset, dynamics: xr.Dataset, size: int, p: float, lag: int, since: int
) -> np.ndarray | None:
    """``(seed,)`` index of the trained networks of a size and p, mean over parts; None where there is none."""
    if lag not in dynamics["lag"].values or since not in dynamics["since"].values or connections_asked(p, size) < 1:
        return None
    links = np.rint(dynamics["p"].values * dynamics["units"].values ** 2)
    here = np.flatnonzero(
        (dynamics["units"].values == size)
        & (links == connections_asked(p, size))
        & (dynamics["cov_ratio"].values == float(summary.attrs["plain_cov_ratio"]))
        & dynamics["trained"].values.astype(bool)
    )
    if not len(here):
        return None
    value = dynamics["index"].sel(lag=lag, since=since).isel(network=here).mean("part", skipna=False).values
    out = np.full(summary.sizes["seed"], np.nan)
    places = {int(seed): k for k, seed in enumerate(summary["seed"].values)}
    for seed, one in zip(dynamics["seed"].values[here], value, strict=True):
        if int(seed) in places:
            out[places[int(seed)]] = one
    return out


def _disconnected(rows: Rows, sizes: list[int], measures: list[str], balanced: bool) -> None:
    """Number 9; its bounds are inferred."""
    share, bound = (0.50, 0.75) if balanced else (0.60, 0.80)
    for size in sizes:
        group = f"n = {size}"
        for measure in measures:
            rows.judge(
                9, group, f"{measure}, p = 0", (f"S about 1: above {short(FULL_S)}",
                f"the interval of S lies above {short(FULL_S)}",
                "inferred; near-disconnected networks in a run of the authors' code"),
                rows.seeds("S", size, 0.0, measure), boundary=FULL_S,
            )  # fmt: skip
        accuracy, digit = rows.seeds("task_accuracy", size, 0.0), rows.seeds("own", size, 0.0, "retraining")
        plateau = None if accuracy is None or digit is None else accuracy - share * digit
        rows.judge(
            9, group, "own digit alone, p = 0", (f"task accuracy about {short(share)} × digit accuracy",
            f"the interval of task accuracy minus {short(share)} × the accuracy of the own digit's read-out lies "
            f"within ±{short(MARGIN)} (bound inferred)", "inferred by counting pairs of ten classes"), plateau,
            within=MARGIN, more=ends(accuracy, None if digit is None else share * digit),
        )  # fmt: skip
        rows.judge(
            9, group, "task accuracy, p = 0", (f"task accuracy never above {short(bound)}",
            f"the interval of task accuracy lies below {short(bound)} (bound inferred)",
            "inferred by counting pairs of ten classes"), accuracy, boundary=bound, above=False,
        )  # fmt: skip


def _untrained(rows: Rows, sizes: list[int], measures: list[str]) -> None:
    """Number 10."""
    for size in sizes:
        for p, words in ((ONE, "one connection"), (FULL, "p = 1")):
            own = rows.seeds("own", size, p, "retraining", trained=False)
            more = "" if own is None else f"own digit read with {short(float(np.nanmean(own)))}"
            rows.judge(
                10, f"n = {size}", f"untrained, {words}", (f"S about .8 to 1: above {short(UNTRAINED_S)}",
                f"the interval of S of untrained networks lies above {short(UNTRAINED_S)}",
                "run of the authors' code: 1.00 at one connection, .82–.95 at p = 1"),
                rows.seeds("S", size, p, "retraining", trained=False), boundary=UNTRAINED_S, more=more,
            )  # fmt: skip
        for p in (DENSE, FULL):
            for measure in measures:
                after, before = (rows.seeds("S", size, p, measure, trained=state) for state in (True, False))
                rows.judge(
                    10, f"n = {size}", f"{measure}, p = {p:g}", ("S of trained below that of untrained networks",
                    "the interval of S trained minus S untrained (same seed and wiring) lies below 0",
                    "run of the authors' code"), less(after, before), above=False, more=ends(after, before),
                )  # fmt: skip
