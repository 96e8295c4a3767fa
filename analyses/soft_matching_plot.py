"""Figure of soft matching: held-out score of the plans by layer, and the neurons that take part in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import aside, layer_panels
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"score", "median_score", "share_matched"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a soft matching (score, median_score, share_matched); give what soft_match() returned"
        )


def _sizes(result: xr.Dataset) -> str:
    """State plan, pools and mass: a score means nothing without them."""
    if result.attrs.get("plan") == "balanced":
        return f"balanced, {result.attrs.get('pool')}"
    low, high = float(result["mass"].min()), float(result["mass"].max())
    mass = f"{low:.2g}" if np.isclose(low, high) else f"{low:.2g} to {high:.2g}"
    return f"partial, {result.attrs.get('pool')}, mass {mass}"


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw the score of the plans by layer, neurons by their mass, and how many neurons take part.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.soft_matching.soft_match` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide. Above: the held-out score (with pools, the bar of 95 % of them), the training score dashed,
        neurons as dots whose area is their share of the mass. Below: the part of the neurons that take any mass.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    names = [str(name) for name in result["layer"].values]
    x, score = np.arange(len(names)), result["score"].values
    with plotting.style():
        words = title or f"Soft matching of {result.attrs.get('network', 'the network')} with neurons"
        line = f"{result.sizes['neuron']} neurons, held-out stimuli; {_sizes(result)}"
        figure, (above, below) = layer_panels(names, (2.5, 0.9), words, line)
        spread, r, share = aside(result.sizes["neuron"]), result["r"].values, result["share"].values
        for k in range(len(names)):
            part = np.isfinite(r[k]) & (share[k] > 0)
            area = 600 / result.sizes["neuron"] * share[k, part] * result.sizes["neuron"]
            label = "neurons, area: mass" if k == 0 else None
            above.scatter(
                k + spread[part],
                r[k, part],
                np.clip(area, 4, 150),
                color=plotting.FAINT,
                alpha=0.7,
                linewidth=0,
                zorder=2,
                label=label,
            )
        if score.shape[1] > 1:
            low, high = np.nanquantile(score, [0.025, 0.975], axis=1)
            above.vlines(x, low, high, color=plotting.COLOURS[0], linewidth=3, alpha=0.45, zorder=3)
        train = np.median(result["score_train"].values, axis=1)
        above.plot(x, train, "s--", color=plotting.COLOURS[1], markersize=4.5, label="training stimuli", zorder=3)
        above.plot(x, result["median_score"].values, "o-", color=plotting.COLOURS[0], label="held-out score", zorder=4)
        above.set_ylabel("Score (r weighted by mass)")
        above.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.5, columnspacing=1.2
        )
        below.bar(x, 100 * result["share_matched"].values, 0.5, color=plotting.COLOURS[0], zorder=2)
        below.set_ylabel("Neurons with\nmass (%)")
        below.set_ylim(0, 105)
    return figure


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: plan, sizes, folds.

    Parameters
    ----------
    result : xarray.Dataset
        What ``soft_match`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    attrs = result.attrs
    balanced = attrs.get("plan") == "balanced"
    sizes = ", ".join(
        f"{name}: {int(units):,}" + ("" if balanced else f", mass {float(mass):.2g}")
        for name, mass, units in zip(
            result["layer"].values, result["mass"].values, result["n_units"].values, strict=True
        )
    )
    pools = f" Bars hold 95 % of {result.sizes['draw']} pools." if result.sizes["draw"] > 1 else ""
    tested = "No significance was tested."
    return (
        f"Soft matching of {result.sizes['neuron']} neurons ({attrs.get('recording', 'recording')}) with units of "
        f"{attrs.get('network', 'the network')}: optimal transport at the cost 1 - r, fitted on training stimuli and "
        f"scored on held-out ones ({attrs.get('splitting', 'crossvalidated')}). Plans: {attrs.get('plan')}, "
        f"{attrs.get('pool')} (units of each layer, {sizes}). Scores are correlations weighted by mass. Dots "
        f"are neurons, their area the mass they take; below, the part of the neurons that take any.{pools} {tested}"
    )


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``soft_match`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    parts = [
        f"{name}: {plotting.short(float(score))} with {100 * float(share):.0f} % of the neurons"
        for name, score, share in zip(
            result["layer"].values, result["median_score"].values, result["share_matched"].values, strict=True
        )
    ]
    return f"Held-out soft matching scores by layer ({_sizes(result)}; {'; '.join(parts)})."
