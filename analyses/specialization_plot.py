"""Figures of specialization: S with the task accuracy below it, time courses by lag, and what each part knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from actkit import plotting
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

Kind = Literal["p", "Q", "covariance", "findings", "dynamics", "matrix"]
_KINDS = {
    "specialization_sweep": ("p", "Q", "covariance", "findings"),
    "specialization_dynamics": ("dynamics",),
    "specialization": ("matrix",),
}


def plot(
    result: xr.Dataset,
    *,
    kind: Kind | None = None,
    network: str | int | None = None,
    units: int | None = None,
    table: pd.DataFrame | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw a summary of a sweep, time courses, or what the parts of one network know.

    Parameters
    ----------
    result : xarray.Dataset
        What ``summarise_sweep``, ``specialization_dynamics`` or ``specialization`` returned.
    kind : str, optional
        Of a sweep: ``"p"`` (S against the share of connections, by measure and size, task accuracy below; the default),
        ``"Q"`` (S against structural modularity), ``"covariance"`` (S against the covariance of the digits) or
        ``"findings"``. Of dynamics: ``"dynamics"``. Of one result: ``"matrix"``, parts by sub-tasks.
    network : str or int, optional
        For ``"matrix"``: name or number of the network, by default the first.
    units : int, optional
        For ``"dynamics"``: size of the networks, by default the middle one of those there are.
    table : pandas.DataFrame, optional
        For ``"findings"``: what :func:`actkit.analyses.specialization_findings.findings` returned; by default it is
        called without dynamics.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 to 12 inches wide.

    Raises
    ------
    InputError
        If the result or the kind is not known, or the sweep has no networks for this kind.
    """
    from actkit.analyses import specialization_panels as panels

    chosen = kind_of(result, kind)
    with plotting.style():
        if chosen == "matrix":
            return panels.matrix(one_network(result, network), title)
        if chosen == "dynamics":
            return panels.dynamics(result, title, units)
        if chosen == "findings":
            from actkit.analyses.segregation_seeds_panels import findings_figure
            from actkit.analyses.specialization_findings import findings

            shown = findings(result) if table is None else table
            level = float(result.attrs.get("level", 0.95))
            return findings_figure(shown, level, title or "Specialization: what was expected, and what held")
        return panels.against(result, chosen, title)


def kind_of(result: xr.Dataset, kind: str | None) -> str:
    """Check the kind of figure, or take the first that fits the result.

    Parameters
    ----------
    result : xarray.Dataset
        The result.
    kind : str or None
        As given to :func:`plot`.

    Returns
    -------
    str
        The kind.

    Raises
    ------
    InputError
        If nothing is drawn of such a result, or not of this kind.
    """
    analysis = str(result.attrs.get("analysis", ""))
    if analysis not in _KINDS:
        raise InputError(
            f"results of {analysis or 'no analysis'} are not drawn here; give what summarise_sweep(), "
            "specialization_dynamics() or specialization() returned"
        )
    if kind is None:
        return _KINDS[analysis][0]
    if kind not in get_args(Kind):
        raise InputError(f"unknown kind {kind!r}; {nearest(kind, list(get_args(Kind)))}")
    if kind not in _KINDS[analysis]:
        raise InputError(f"a result of {analysis} has no figure {kind!r}; it has {', '.join(_KINDS[analysis])}")
    if kind == "covariance" and not _covaries(result):
        raise InputError("the sweep has one covariance, so nothing stands along it; give several cov_ratios")
    return kind


def kinds_of(result: xr.Dataset) -> list[str]:
    """List the figures that a result has the numbers for.

    Parameters
    ----------
    result : xarray.Dataset
        As for :func:`plot`.

    Returns
    -------
    list of str
        Kinds.
    """
    kinds = _KINDS.get(str(result.attrs.get("analysis", "")), ())
    return [kind for kind in kinds if kind != "covariance" or _covaries(result)]


def _covaries(result: xr.Dataset) -> bool:
    return len(np.unique(result["cov_ratio"].values[result["trained"].values.astype(bool)])) > 1


def one_network(result: xr.Dataset, network: str | int | None) -> xr.Dataset:
    """Take one network of a result.

    Parameters
    ----------
    result : xarray.Dataset
        What specialization() returned.
    network : str, int or None
        Name or number.

    Returns
    -------
    xarray.Dataset
        Without the dim network.

    Raises
    ------
    InputError
        If there is no such network.
    """
    names = [str(name) for name in result["network"].values]
    if isinstance(network, str):
        if network not in names:
            raise InputError(f"there is no network {network!r}; {nearest(network, names)}")
        network = names.index(network)
    if not 0 <= (network or 0) < len(names):
        raise InputError(f"there is no network {network}; there are {len(names)}, counted from 0")
    return result.isel(network=network or 0)


def caption(
    result: xr.Dataset,
    *,
    kind: Kind | None = None,
    network: str | int | None = None,
    units: int | None = None,
    **_unused: Any,
) -> str:
    """Write the caption: what is shown, intervals, controls, numbers of networks and stimuli.

    Parameters
    ----------
    result, kind, network, units
        As for :func:`plot`.

    Returns
    -------
    str
        Plain sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    chosen = kind_of(result, kind)
    if chosen == "matrix":
        one = one_network(result, network)
        s = ", ".join(f"{name} {plotting.short(float(v))}" for name, v in _last(one))
        return (
            f"What each part knows of each sub-task at the last step, in {one['network'].item()!s}, by measure. "
            "Retraining: a fresh read-out of the part; ablation: a read-out of all parts with the others at zero; both "
            "as shares right, with 1/K or the most frequent answer as chance. Correlation: the mean correlation of "
            "states of one answer beyond that of any two, from 0 (no more alike) to 1. Specialization S: "
            f"{s}. {_tested(result)}"
        )
    if chosen == "dynamics":
        from actkit.analyses.specialization_panels import shown_networks

        groups = shown_networks(result, units)
        n = result["n"].isel(network=np.concatenate(list(groups.values()))).values
        shown = ", ".join(f"{words}: {len(rows)}" for words, rows in groups.items())
        return (
            "Time courses of what modules know when the two images appear at different steps, each trace the mean over "
            f"modules and networks of one kind ({shown}), bands: 95 % t intervals over networks. Lag: own "
            "onset minus the other's, in steps; positive where the own image is late. Above: index, own minus other "
            "accuracy over their sum, without correction for chance, so that full specialization stays below 1; below: "
            "the accuracies themselves, own solid and other dashed; dotted: chance. Crosses at the right: the "
            "read-out of both modules at the last step. Read-outs learnt from "
            f"{int(result.attrs.get('n_train', 0))} stimuli with simultaneous onsets and were not changed; "
            f"{int(n[n > 0].min())} stimuli or more of each network stand behind every point."
        )
    level = 100 * float(result.attrs.get("level", 0.95))
    if chosen == "findings":
        return (
            f"Checks of the ten headline results: mean over seeds and {level:g} % t interval; shaded: the expected "
            "side of the boundary."
        )
    what = {
        "p": "share of the possible connections between modules (log axis; one connection stands at 1/n²)",
        "Q": "structural modularity Q",
        "covariance": "covariance ratio of the two digits (0: always equal, 1: independent)",
    }[chosen]
    there = np.isfinite(result["task_accuracy_seeds"].transpose("cell", "seed").values).sum(axis=1)
    undefined = int((result["n_defined"].values < there[:, None]).sum())
    plain = (
        f"Covariance ratio of the digits: {float(result.attrs['plain_cov_ratio']):g}. "
        if chosen != "covariance"
        else ""
    )
    lost = f" In {undefined} cells S is not defined for every seed; means are over the others." if undefined else ""
    return (
        f"Specialization S at the last step against the {what}, by measure; below, the networks' accuracy in their own "
        f"task, which every S is to be read with. Filled marks: trained networks, mean over {result.sizes['seed']} "
        f"seeds; hollow marks, dashed: the same networks before training; bars: {level:g} % t intervals over seeds. "
        f"{plain}"
        f"Answers while correlations were measured: {result.attrs.get('pairing', '')}.{lost}"
    )


def alt_text(
    result: xr.Dataset,
    *,
    kind: Kind | None = None,
    network: str | int | None = None,
    units: int | None = None,
    **_unused: Any,
) -> str:
    """Describe the figure for readers who cannot see it.

    Parameters
    ----------
    result, kind, network, units
        As for :func:`plot`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    chosen = kind_of(result, kind)
    if chosen == "matrix":
        one = one_network(result, network)
        s = ", ".join(f"{name} {plotting.short(float(v))}" for name, v in _last(one))
        return f"Grids of {one.sizes['part']} parts by {one.sizes['task']} sub-tasks, one for each measure. S: {s}."
    if chosen == "dynamics":
        from actkit.analyses.specialization_panels import shown_networks

        late = result["lag"].values[-1]
        told = []
        for words, rows in shown_networks(result, units).items():
            course = result["index"].sel(lag=late).isel(network=rows).mean(("network", "part")).dropna("since")
            steps = zip(course["since"].values, course.values, strict=True)
            told.append(f"{words}: {', '.join(f'{int(k)}: {plotting.short(float(v))}' for k, v in steps)}")
        return (
            f"Time courses of the module index and of accuracies by lag from {int(result['lag'].values[0])} to "
            f"{int(late)}. Mean index at the largest lag by steps since the own onset. {'; '.join(told)}."
        )
    if chosen == "findings":
        return "A list of checks, each with an interval, its boundary and whether it held."
    plain = result["trained"].values.astype(bool).copy()
    if chosen == "p":
        plain &= result["p"].values > 0
    if chosen != "covariance":
        plain &= result["cov_ratio"].values == float(result.attrs["plain_cov_ratio"])
    along = {"p": "p", "Q": "Q", "covariance": "cov_ratio"}[chosen]
    x = result[along].values[plain]
    parts = []
    for measure in map(str, result["measure"].values):
        s = result["S"].sel(measure=measure).values[plain]
        first, last = (_mean(s[x == end]) for end in (x.min(), x.max()))
        parts.append(f"{measure} {plotting.short(first)} to {plotting.short(last)}")
    return (
        f"Lines of S against {along} from {x.min():g} to {x.max():g}, a panel for each measure, task accuracy below. "
        f"Mean S of trained networks from the lowest to the highest {along}: {', '.join(parts)}."
    )


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined; NaN where nothing is (no part beats chance)."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def _last(one: xr.Dataset) -> list[tuple[str, float]]:
    """S of each measure at the last step."""
    return [(str(name), float(one["S"].sel(measure=name).values[-1])) for name in one["measure"].values]


def _tested(result: xr.Dataset) -> str:
    """Numbers of stimuli."""
    return f"{int(result.attrs.get('n_train', 0))} stimuli to learn from, {int(result.attrs.get('n_test', 0))} to test."
