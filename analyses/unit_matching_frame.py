"""Layout of the figures of unit matching and its controls: panels over one axis of layers, below a headline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actkit import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["WIDE", "aside", "headline", "layer_panels"]

WIDE = 6.5  # inches
_LEFT, _ACROSS, _HEAD, _GAP = 0.85, 5.4, 0.95, 0.32


def layer_panels(names: Sequence[str], heights: Sequence[float], title: str, line: str) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels above each other, all over the same layers.

    Parameters
    ----------
    names : sequence of str
        Names of the layers.
    heights : sequence of float
        Inches of each panel, from above.
    title, line : str
        Headline, and the line below it.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Empty, 6.5 inches wide.
    panels : list of matplotlib.axes.Axes
        From above; the lowest carries the names of the layers.
    """
    foot = plotting.label_depth(names, _ACROSS) + 0.35
    tall = _HEAD + sum(heights) + _GAP * (len(heights) - 1) + foot
    figure = plotting.new_figure(WIDE, tall)
    panels, top = [], tall - _HEAD
    for height in heights:
        panels.append(figure.add_axes((_LEFT / WIDE, (top - height) / tall, _ACROSS / WIDE, height / tall)))
        top -= height + _GAP
    for axes in panels:
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    for axes in panels[:-1]:
        axes.set_xticks(range(len(names)), [""] * len(names))
    front = plotting.label_layers(panels[-1], list(range(len(names))), names, _ACROSS)
    panels[-1].set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    headline(figure, tall, title, line)
    return figure, panels


def headline(figure: Figure, tall: float, title: str, line: str, left: float = _LEFT) -> None:
    """Put a headline and a line below it at the top left.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure, 6.5 inches wide.
    tall : float
        Its height in inches.
    title, line : str
        The words.
    left : float
        Inches from the left edge.
    """
    figure.text(left / WIDE, 1 - 0.1 / tall, title, va="top", fontsize=13, fontweight="bold")
    figure.text(left / WIDE, 1 - 0.36 / tall, line, va="top", fontsize=9.5, color=plotting.SOFT)


def aside(n: int, width: float = 0.5) -> np.ndarray:
    """Spread dots of a layer side by side in a fixed pattern, so that no two drawings of a result differ.

    Parameters
    ----------
    n : int
        Number of dots.
    width : float
        How far apart the outermost stand; layers stand 1 apart.

    Returns
    -------
    numpy.ndarray
        ``(n,)`` offsets.
    """
    return (np.arange(n) * 0.618) % 1 * width - width / 2
