"""Figure of a noise ceiling: each subject against the others, between the two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actkit import plotting
from actkit.analyses import rsa_plot

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def plot(result: xr.Dataset, **options: Any) -> Figure:
    """Draw a noise ceiling; see :func:`actkit.analyses.rsa_plot.plot_ceiling`.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned.
    **options
        Settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return rsa_plot.plot_ceiling(result, **options)


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned.

    Returns
    -------
    str
        Plain text.
    """
    measure = plotting.measure_words(str(result.attrs.get("compare", "similarity")))
    low, high = (plotting.short(float(result[name]), 3) for name in ("ceiling_lower", "ceiling_upper"))
    note = str(result.attrs.get("ceiling_note", ""))
    return (
        f"Noise ceiling of {rsa_plot.data_words(result)} ({rsa_plot.count_words(result)}), {measure}: {low} to {high}, "
        "the range in which the best possible model would score. Dots: each subject against the mean of the others."
        + (f" {note[:1].upper()}{note[1:]}." if note else "")
    )


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned.

    Returns
    -------
    str
        One sentence.
    """
    low, high = (plotting.short(float(result[name])) for name in ("ceiling_lower", "ceiling_upper"))
    return f"Dot chart of the subjects of {rsa_plot.data_words(result)} with a noise ceiling from {low} to {high}."
