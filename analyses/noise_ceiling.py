"""Noise ceilings of RDMs: how well any model could do, given how much subjects (or repetitions) agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.comparison import Compare, ceilings, prepared
from actkit.analyses.measures import KENDALL
from actkit.analyses.reliability import PlainMethod, ReliabilityOptions, reliability
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import VARIABLE, has_time, leading_dim, validate_rdms
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
    within: Literal["subject", "repetition"] = Field(
        "subject",
        description="What must agree: the subjects with one another, or, within each subject, repetitions or sessions "
        "(split-half reliability).",
    )
    method: PlainMethod = Field(
        "correlation", description="within='repetition' of recordings: dissimilarity between two patterns."
    )
    n_splits: int = Field(200, ge=1, description="within='repetition': most splits into halves.")
    seed: int = Field(0, ge=0, lt=2**64, description="within='repetition': seed of the splits.")


def check_data(data: xr.Dataset, *, time: bool = False) -> xr.Dataset:
    """Check RDMs of subjects before models are compared with them.

    Parameters
    ----------
    data : xarray.Dataset
        RDM dataset; its leading dim (usually ``subject``) counts as subjects.
    time : bool
        Whether an RDM for each time bin is welcome.

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
    dim = leading_dim(data, time=time)
    name = data.attrs.get("name", "unnamed")
    n = data.sizes["stimulus"]
    if n < 3:
        raise InputError(
            f"data {name!r} have {n} stimuli, that is one pair, and one pair cannot correlate; give 3 or more"
        )
    unknown = np.isnan(data[VARIABLE].values)
    missing = unknown.reshape(len(unknown), -1).sum(axis=1)
    if missing.any():
        named = ", ".join(f"{data[dim].values[s]!s} ({missing[s]})" for s in np.flatnonzero(missing)[:5])
        bins = ""
        if has_time(data):
            first = data["time"].values[unknown.any(axis=(0, 2))][0]
            bins = f" (first at time {first:g}; choose other bins or wider windows)"
        raise InputError(
            f"data {name!r}: RDMs with missing pairs cannot be compared fairly across subjects; missing in "
            f"{named}{bins}. Leave these subjects out with .sel(), or choose stimuli that everyone saw with "
            "select_stimuli()"
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
        RDM dataset of subjects, with or without time bins.
    compare : str
        The measure.

    Raises
    ------
    InputError
        Naming the subjects whose RDM is constant (zero, for the cosines), in any time bin.
    """
    values = data[VARIABLE].values
    flat = np.isnan(prepared(values.reshape(-1, values.shape[-1]), compare)).any(axis=1).reshape(values.shape[:-1])
    if flat.any():
        state = "zero" if compare in ("cosine", "whitened-cosine") else "constant"
        lost = flat if flat.ndim == 1 else flat.any(axis=1)
        named = ", ".join(repr(str(value)) for value in data["subject"].values[lost][:5])
        when, cure = "", "leave that subject out with .sel()"
        if flat.ndim == 2:
            when = f" at {flat.any(axis=0).sum()} time bins (first at {data['time'].values[flat.any(axis=0)][0]:g})"
            cure = "leave these bins or that subject out with .sel(), or widen the windows"
        raise InputError(
            f"data {data.attrs.get('name', 'unnamed')!r}: the RDM of {named} is {state}{when}, so nothing can be "
            f"compared with it; {cure}"
        )


def ceiling_variables(data: xr.Dataset, compare: Compare) -> xr.Dataset:
    """Compute ceilings as variables that a result can take over.

    Parameters
    ----------
    data : xarray.Dataset
        Checked RDM dataset of subjects, with or without time bins.
    compare : str
        The measure.

    Returns
    -------
    xarray.Dataset
        ``ceiling_lower`` and ``ceiling_upper`` (means over subjects), ``ceiling_lower_subject`` and
        ``ceiling_upper_subject`` (subject); each along ``time`` too where the data are.
    """
    values = data[VARIABLE].values
    moving = has_time(data)
    bounds = (
        [ceilings(values[:, t], compare) for t in range(values.shape[1])] if moving else [ceilings(values, compare)]
    )
    lower, upper = (np.stack([pair[k] for pair in bounds], axis=1) for k in (0, 1))
    if not moving:
        lower, upper = lower[:, 0], upper[:, 0]
    units = {"units": "1"}
    of_all = ("time",) if moving else ()
    each = ("subject", *of_all)
    return xr.Dataset(
        {
            "ceiling_lower": (
                of_all,
                lower.mean(axis=0),
                {"long_name": "lower noise ceiling (leave one subject out)", **units},
            ),
            "ceiling_upper": (of_all, upper.mean(axis=0), {"long_name": "upper noise ceiling (all subjects)", **units}),
            "ceiling_lower_subject": (each, lower, {"long_name": "lower noise ceiling of each subject", **units}),
            "ceiling_upper_subject": (each, upper, {"long_name": "upper noise ceiling of each subject", **units}),
        },
        coords={"subject": data["subject"].values} | ({"time": data["time"]} if moving else {}),
    )


@with_options(NoiseCeilingOptions)
def noise_ceiling(data: xr.Dataset | xr.DataArray, options: NoiseCeilingOptions) -> xr.Dataset:
    """Bound what a model can score, from the agreement between subjects or within one.

    Between subjects, the lower ceiling predicts each subject from the others, the upper from all subjects including
    itself. Both use the RDM that scores best for the measure: the mean of unit-norm RDMs (cosine), of z-scored RDMs
    (Pearson), both in the metric of the whitened measures, and the ranks of mean ranks (Spearman, rho-a). For
    Kendall's tau the best RDM is NP-hard to find; mean ranks are taken, so that its upper ceiling is approximate. A
    perfect model scores between the two.

    Within a subject (``within="repetition"``), the bound is the root of the split-half reliability of that subject's
    own RDM: see :func:`actkit.analyses.reliability.reliability`, whose result is returned. It says what a noise-free
    model could score with this subject; it holds variation between subjects for signal, so the two kinds of bounds
    must not be compared.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        RDM dataset with the leading dim ``subject``, with or without time bins. Within subjects: an RDM dataset of
        sessions (a coordinate ``subject`` says whose), or a recording with the dim ``repetition``.

    Returns
    -------
    xarray.Dataset
        ``ceiling_lower``, ``ceiling_upper`` and both for each subject; along ``time`` for RDMs in time bins. With a
        single subject they are NaN, and the attribute ``ceiling_note`` says why; with two, the lower ceiling is the
        similarity of the two.

    Raises
    ------
    InputError
        If a subject has missing pairs or a constant RDM, or there are fewer than three stimuli.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10.
    """
    if options.within == "repetition":
        chosen = ReliabilityOptions(
            compare=options.compare, method=options.method, n_splits=options.n_splits, seed=options.seed
        )
        found = reliability(data, options=chosen)
        return found.assign_attrs(options=options.model_dump_json())
    if not isinstance(data, xr.Dataset):
        raise InputError(
            f"a ceiling between subjects needs the RDMs of several subjects, not a {type(data).__name__}; make them "
            "with actkit.rdm() or time_rdms(), or ask for within='repetition'"
        )
    checked = check_data(data, time=True)
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
        ceiling_note=ceiling_note(checked.sizes["subject"], options.compare),
    )


def ceiling_note(n_subjects: int, compare: Compare | None = None) -> str:
    """Say what the ceilings are worth with this many subjects and this measure.

    Parameters
    ----------
    n_subjects : int
        Number of subjects.
    compare : str, optional
        The measure.

    Returns
    -------
    str
        One sentence.
    """
    if n_subjects == 1:
        return SINGLE_SUBJECT
    approximate = (
        "; approximate for Kendall's tau, whose best RDM is unknown (mean ranks stand in for it), so a model can score "
        "slightly above the upper one"
        if compare in KENDALL
        else ""
    )
    if n_subjects == 2:
        return "two subjects: the lower ceiling is their similarity to one another, a rough bound" + approximate
    lines = f"lower: each of {n_subjects} subjects predicted from the others; upper: from all, itself included"
    return lines + approximate


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
    from actkit.analyses import noise_ceiling_plot

    return noise_ceiling_plot.plot(result, **settings)
