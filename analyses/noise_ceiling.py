"""Noise ceilings of RDMs: how well any model could do, given how much the subjects agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import Compare, ceilings, prepared
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, leading_dim, validate_rdms
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLE_SUBJECT = (
    "undefined: with a single subject there is no other to predict it from (lower), and it predicts itself perfectly "
    "(upper)"
)


class NoiseCeilingOptions(Options):
    """Options of :func:`noise_ceiling`."""

    compare: Compare = Field("spearman", description="Measure that compares two RDMs.")


def check_data(data: xr.Dataset) -> xr.Dataset:
    """Check RDMs of subjects before models are compared with them.

    Parameters
    ----------
    data : xarray.Dataset
        RDM dataset; its leading dim (usually ``subject``) counts as subjects.

    Returns
    -------
    xarray.Dataset
        The same RDMs with the leading dim called ``subject``.

    Raises
    ------
    InputError
        If there are fewer than three stimuli, or a subject has missing pairs (each named).
    """
    validate_rdms(data)
    dim = leading_dim(data)
    name = data.attrs.get("name", "unnamed")
    n = data.sizes["stimulus"]
    if n < 3:
        raise InputError(
            f"data {name!r} have {n} stimuli, that is one pair, and one pair cannot correlate; give 3 or more"
        )
    missing = np.isnan(data[VARIABLE].values).sum(axis=1)
    if missing.any():
        named = ", ".join(f"{data[dim].values[s]!s} ({missing[s]})" for s in np.flatnonzero(missing)[:5])
        raise InputError(
            f"data {name!r}: RDMs with missing pairs cannot be compared fairly across subjects; missing in {named}. "
            "Leave these subjects out with .sel(), or choose stimuli that everyone saw with select_stimuli()"
        )
    if dim == "subject":
        return data
    # A descriptor of that name (sessions of one subject, say) must not stand in the way of the dim.
    return data.drop_vars("subject", errors="ignore").rename({dim: "subject"})


def check_variation(data: xr.Dataset, compare: Compare) -> None:
    """Refuse a subject that no model can be compared with.

    Parameters
    ----------
    data : xarray.Dataset
        RDM dataset of subjects.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Raises
    ------
    InputError
        Naming the subjects whose RDM is constant (zero, for cosine).
    """
    flat = np.isnan(prepared(data[VARIABLE].values, compare)).any(axis=1)
    if flat.any():
        named = ", ".join(repr(str(value)) for value in data["subject"].values[flat][:5])
        state = "zero" if compare == "cosine" else "constant"
        raise InputError(
            f"data {data.attrs.get('name', 'unnamed')!r}: the RDM of {named} is {state}, so nothing can be compared "
            "with it; leave that subject out with .sel()"
        )


def ceiling_variables(data: xr.Dataset, compare: Compare) -> xr.Dataset:
    """Compute ceilings as variables that a result can take over.

    Parameters
    ----------
    data : xarray.Dataset
        Checked RDM dataset of subjects.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    xarray.Dataset
        ``ceiling_lower`` and ``ceiling_upper`` (means over subjects), ``ceiling_lower_subject`` and
        ``ceiling_upper_subject`` (subject).
    """
    lower, upper = ceilings(data[VARIABLE].values, compare)
    units = {"units": "1"}
    return xr.Dataset(
        {
            "ceiling_lower": ((), lower.mean(), {"long_name": "lower noise ceiling (leave one subject out)", **units}),
            "ceiling_upper": ((), upper.mean(), {"long_name": "upper noise ceiling (all subjects)", **units}),
            "ceiling_lower_subject": ("subject", lower, {"long_name": "lower noise ceiling of each subject", **units}),
            "ceiling_upper_subject": ("subject", upper, {"long_name": "upper noise ceiling of each subject", **units}),
        },
        coords={"subject": data["subject"].values},
    )


@with_options(NoiseCeilingOptions)
def noise_ceiling(data: xr.Dataset, options: NoiseCeilingOptions) -> xr.Dataset:
    """Bound what a model can score, from the agreement between subjects.

    The lower ceiling predicts each subject from the others, the upper from all subjects including itself. Both use the
    RDM that scores best for the measure: the mean of unit-norm RDMs (cosine), of z-scored RDMs (Pearson), the ranks of
    mean ranks (Spearman). A perfect model scores between them.

    Parameters
    ----------
    data : xarray.Dataset
        RDM dataset with the leading dim ``subject``.

    Returns
    -------
    xarray.Dataset
        ``ceiling_lower``, ``ceiling_upper`` and both for each subject. With a single subject they are NaN, and the
        attribute ``ceiling_note`` says why; with two, the lower ceiling is the similarity of the two.

    Raises
    ------
    InputError
        If a subject has missing pairs or a constant RDM, or there are fewer than three stimuli.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10.
    """
    checked = check_data(data)
    check_variation(checked, options.compare)
    result = ceiling_variables(checked, options.compare)
    return describe(
        result,
        "noise_ceiling",
        options,
        {"data": fingerprint(data)},
        compare=options.compare,
        data=str(data.attrs.get("name", "unnamed")),
        n_subjects=checked.sizes["subject"],
        n_stimuli=checked.sizes["stimulus"],
        simulated=bool(data.attrs.get("simulated", False)),
        ceiling_note=ceiling_note(checked.sizes["subject"]),
    )


def ceiling_note(n_subjects: int) -> str:
    """Say what the ceilings are worth with this many subjects.

    Parameters
    ----------
    n_subjects : int
        Number of subjects.

    Returns
    -------
    str
        One sentence.
    """
    if n_subjects == 1:
        return SINGLE_SUBJECT
    if n_subjects == 2:
        return "two subjects: the lower ceiling is their similarity to one another, a rough bound"
    return f"lower: each of {n_subjects} subjects predicted from the others; upper: from all, itself included"


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the ceilings with each subject's similarity to the others.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`noise_ceiling` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import rsa_plot

    return rsa_plot.plot_ceiling(result, **settings)
