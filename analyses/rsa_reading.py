"""What figures of an RSA result read from it: scores, errors, tests, order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr

ALPHA = 0.05
SCOPES = ("subject", "stimulus", "both")


def attribute(result: xr.Dataset, *names: str, default: Any = None) -> Any:
    """Look a fact up in the attributes, then in the options that the result carries.

    Parameters
    ----------
    result : xarray.Dataset
        A result.
    *names : str
        Names to try, in this order.
    default : object
        What to return if none is there.

    Returns
    -------
    object
        The first value that is neither None nor empty.
    """
    options = json.loads(result.attrs.get("options", "{}"))
    for name in names:
        for where in (result.attrs, options):
            if where.get(name) is not None and str(where[name]) != "":
                return where[name]
    return default


def simulated(result: xr.Dataset) -> bool:
    """Tell whether the data are simulated.

    Parameters
    ----------
    result : xarray.Dataset
        A result.

    Returns
    -------
    bool
        As the result's attribute ``simulated`` says.
    """
    return str(result.attrs.get("simulated", 0)).lower() in ("1", "true", "yes")


def scope(result: xr.Dataset) -> str:
    """Tell what the errors generalise to.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        ``subject``, ``stimulus`` or ``both``.
    """
    target = str(attribute(result, "generalise_to", default="subject"))
    return target if target in SCOPES else "subject"


def check(result: xr.Dataset) -> None:
    """Refuse what is not an RSA result.

    Parameters
    ----------
    result : xarray.Dataset
        What should be an RSA result.

    Raises
    ------
    InputError
        If it is not.
    """
    missing = [name for name in ("mean", "kind") if name not in result.variables]
    if "time" in result.dims and missing == ["kind"]:  # a course of models that are all of one kind
        missing = []
    if missing or "model" not in result.dims:
        raise InputError(
            f"this is not an RSA result: it lacks {', '.join(missing) or 'the dim model'}; give what actkit.rsa() "
            "returned"
        )


def chosen(result: xr.Dataset, only: Sequence[str] | None) -> xr.Dataset:
    """Keep some models of a result, by name, network or layer; p-values stay those of the whole family.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    only : sequence of str, optional
        Names along ``model``, or of networks; None keeps everything.

    Returns
    -------
    xarray.Dataset
        The same result with fewer models, in its own order.

    Raises
    ------
    InputError
        If a name is neither a model nor a network.
    """
    if only is None:
        return result
    wanted = [only] if isinstance(only, str) else [str(name) for name in only]
    models = result["model"].values.astype(str)
    networks = result["network"].values.astype(str) if "network" in result.coords else models
    for name in wanted:
        if name not in models and name not in networks:
            raise InputError(
                f"only names {name!r}, which is no model; {nearest(name, [*models.tolist(), *networks.tolist()])}"
            )
    keep = np.flatnonzero(np.isin(models, wanted) | np.isin(networks, wanted))
    fewer = result.isel(model=keep).assign_attrs(selected_from=len(models))
    return fewer.isel(other_model=keep) if "other_model" in result.dims else fewer


def column(result: xr.Dataset, name: str) -> np.ndarray:
    """Read a variable along model as floats.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    name : str
        Name of the variable.

    Returns
    -------
    numpy.ndarray
        ``(model,)``, NaN where the result has no such variable.
    """
    if name not in result.variables:
        return np.full(result.sizes["model"], np.nan)
    return np.asarray(result[name].values, dtype=float)


def kinds(result: xr.Dataset) -> np.ndarray:
    """Read what each model is.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    numpy.ndarray of str
        ``layer``, ``model`` or ``control``, ``(model,)``.
    """
    if "kind" not in result.variables:
        return np.full(result.sizes["model"], "model")
    return result["kind"].values.astype(str)


def half_widths(result: xr.Dataset, bands: str) -> np.ndarray:
    """Measure from the mean down and up to the ends of the error band.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    bands : {"error", "interval"}
        One standard error, or the confidence interval.

    Returns
    -------
    numpy.ndarray
        ``(2, model)``, or ``(2, model, time)`` with time.

    Raises
    ------
    InputError
        If `bands` is something else.
    """
    means = column(result, "mean")
    if bands == "interval":
        low, high = column(result, "interval_low"), column(result, "interval_high")
        return np.stack([np.clip(means - low, 0, None), np.clip(high - means, 0, None)])
    if bands != "error":
        raise InputError(f"bands is {bands!r}; choose 'error' (one standard error) or 'interval'")
    name = "error" if "error" in result.variables else f"sem_{'subject' if scope(result) == 'subject' else 'stimulus'}"
    return np.stack([column(result, name)] * 2)


def ceiling(result: xr.Dataset) -> tuple[float, float] | None:
    """Read the noise ceiling.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA or noise ceiling result.

    Returns
    -------
    tuple of float or None
        Lower and upper ceiling, if the result has them.
    """
    if "ceiling_lower" not in result.variables or "ceiling_upper" not in result.variables:
        return None
    low, high = float(result["ceiling_lower"]), float(result["ceiling_upper"])
    return (low, high) if np.isfinite([low, high]).all() else None


def best_first(result: xr.Dataset, rows: np.ndarray) -> np.ndarray:
    """Order rows by their mean.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    rows : numpy.ndarray of int
        Places along model.

    Returns
    -------
    numpy.ndarray of int
        Best first; rows without a score last.
    """
    means = np.nan_to_num(column(result, "mean")[rows], nan=-np.inf)
    return rows[np.argsort(-means, kind="stable")]


def pair_tests(result: xr.Dataset) -> np.ndarray | None:
    """Read the corrected p-values of all pairs of models.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    numpy.ndarray or None
        ``(model, model)``, or None where no pair was tested.
    """
    if "p_difference_corrected" not in result.variables:
        return None
    p = np.asarray(result["p_difference_corrected"].transpose("model", "other_model").values, dtype=float)
    off = ~np.eye(len(p), dtype=bool)
    return p if np.isfinite(p[off]).any() else None
