"""Segregation over networks trained from several seeds: t intervals over the networks, and a mixed model.

An interval over images (:mod:`actkit.analyses.segregation_bootstrap`) speaks of one trained network. Whether training
segregates is a question about networks, so here the trained network is the unit of observation.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from actkit.analyses.segregation_seed_values import LEVEL, PLACES, Data, compare, put, quantities, summary_of, tasks
from actkit.errors import InputError, nearest
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_SEEDS = 20
SEED_VARIABLES = ("index", "index_plain", "excess", "index_half", "drop", "drop_plain", "shared", "shared_normalised")


class SegregationSeedsOptions(Options):
    """Options of :func:`segregation_seeds`."""

    control: str | None = Field(None, description="Group of the same-task control that the others are compared with.")
    early: str | None = Field(None, description="Layer named beforehand as early; by default the first.")
    late: str | None = Field(None, description="Layer named beforehand as late; by default the last.")
    singles: list[str] = Field(
        [], description="Groups of networks trained on one task, which findings() compares with the others."
    )
    level: float = Field(LEVEL, gt=0, lt=1, description="Coverage of the t intervals.")


@with_options(SegregationSeedsOptions)
def segregation_seeds(
    groups: Mapping[str, Sequence[xr.Dataset]],
    *,
    options: SegregationSeedsOptions,
) -> xr.Dataset:
    """Summarise segregation over networks trained from several seeds, and compare groups of networks.

    Each trained network gives one value; means and t intervals are over those. Groups are compared with the control by
    Welch's t interval, since their networks are trained apart.

    Parameters
    ----------
    groups : mapping of str to sequence of xarray.Dataset
        Name of each group of networks (such as ``"dual"``) and one result of
        :func:`actkit.analyses.segregation.segregation` for each of its networks, all with the same layers and fraction.

    Returns
    -------
    xarray.Dataset
        Dims ``group``, ``layer``, ``masking``, ``ranking``, ``task`` (both ``"first"``, ``"second"``; ``task_name``
        (group, task) tells which), ``fraction`` and ``model`` (the network within its group; ``network`` names it).
        For each NAME below: ``NAME`` (mean), ``NAME_error``, ``NAME_low``, ``NAME_high`` (t interval), and
        ``NAME_seeds`` with dim ``model``; NaN if any network of the group has no value (values are not missing at
        random), limits also for one network. ``index``, ``index_plain``, ``index_half``, ``excess``
        (group, layer, masking); ``own_drop``, ``other_drop``, ``random_own``, ``matched_own``, ``selective_own``,
        ``selective_other`` (…, ranking); ``performance`` (…, ranking, task, fraction); ``intact`` (group, masking,
        task); ``shared``, ``shared_between``, ``shared_ceiling``, ``shared_normalised`` (group, layer);
        ``rank_selectivity`` (group, layer, ranking). Those of which no result has the numbers are left out.

        Means over networks only: ``null_mean``, ``null_low``, ``null_high``, ``shared_chance``,
        ``shared_null_low``, ``shared_null_high``. Per network: ``p_corrected_seeds``. Counts: ``n_networks``
        (group), ``n_significant`` (networks with p_corrected < .05) and ``n_saturated`` (networks with a saturated
        ranking). With a control: ``index_above_control`` and ``excess_above_control`` with ``_low`` and ``_high``.

    Raises
    ------
    InputError
        If a group has no result, a dataset is not one of segregation(), layers or fractions differ, or a name of the
        options does not exist.

    Notes
    -----
    The same classes and images serve all seeds: the intervals generalise to other trainings, not to other classes.
    Intervals at the several layers are each of `level` alone; claims belong to the layers named beforehand.
    """
    named = {str(name): [ones] if isinstance(ones, xr.Dataset) else list(ones) for name, ones in dict(groups).items()}
    first = _check(named, options)
    layers = [str(name) for name in first["layer"].values]
    parts = {name: [quantities(one) for one in ones] for name, ones in named.items()}
    most = max(len(ones) for ones in named.values())
    dims_of = {key: dims for ones in parts.values() for one in ones for key, (dims, _) in one.items()}
    shape_of = {key: values.shape for ones in parts.values() for one in ones for key, (_, values) in one.items()}
    data: Data = {}
    for key, dims in dims_of.items():
        stacked = {
            name: np.stack([one[key][1] if key in one else np.full(shape_of[key], np.nan) for one in ones])
            for name, ones in parts.items()
        }
        put(data, key, dims, stacked, most, options.level)
    if options.control is not None:
        compare(data, list(named), [len(ones) for ones in named.values()], options.control, options.level)
    names = np.full((len(named), most), "", dtype=object)
    for i, ones in enumerate(named.values()):
        names[i, : len(ones)] = [str(one.attrs.get("network", f"network {n}")) for n, one in enumerate(ones)]
    coords: dict[str, Any] = {
        "group": list(named),
        "layer": layers,
        "masking": [str(name) for name in first["masking"].values],
        "ranking": PLACES,
        "task": PLACES,
        "task_name": (("group", "task"), np.array([tasks(ones[0]) for ones in named.values()])),
        "network": (("group", "model"), names.astype(str)),
    }
    if any("fraction" in dims for dims in dims_of.values()):
        coords["fraction"] = first["fraction"].values
    data["n_networks"] = (
        ("group",),
        np.array([len(ones) for ones in named.values()]),
        {"long_name": "trained networks", "units": "1"},
    )
    inputs = {f"{name} {n}": fingerprint(one) for name, ones in named.items() for n, one in enumerate(ones)}
    return describe(
        xr.Dataset(data, coords=coords),
        "segregation_seeds",
        options,
        inputs,
        control=options.control,
        early=options.early or layers[0],
        late=options.late or layers[-1],
        singles=options.singles or None,
        level=options.level,
        fraction=first.attrs.get("fraction"),
        n_null=first.attrs.get("n_null"),
        test="t intervals over trained networks; Welch between groups",
    )


def _check(named: Mapping[str, Sequence[xr.Dataset]], options: SegregationSeedsOptions) -> xr.Dataset:
    """Refuse groups that cannot be compared; the first result of all."""
    if not named:
        raise InputError("there are no groups of results to summarise; give {'dual': [one result for each seed]}")
    first: xr.Dataset | None = None
    for name, ones in named.items():
        if not ones:
            raise InputError(f"the group {name!r} has no results; give one for each trained network, or leave it out")
        for n, one in enumerate(ones):
            if not isinstance(one, xr.Dataset) or any(key not in one for key in ("index", "excess", "null_mean")):
                raise InputError(
                    f"{name!r}, number {n}, is not a segregation result (index, excess, null_mean); give what "
                    "segregation() returned"
                )
            first = one if first is None else first
            for what in ("layer", "masking"):
                if list(one[what].values) != list(first[what].values):
                    raise InputError(
                        f"{name!r}, number {n}, has other {what}s than the first result, so they cannot be "
                        "summarised together; use the same architecture and layers"
                    )
            if one.attrs.get("fraction") != first.attrs.get("fraction"):
                raise InputError(
                    f"{name!r}, number {n}, silences {one.attrs.get('fraction')} of the units and the first result "
                    f"{first.attrs.get('fraction')}, so their indices cannot be compared; use one fraction"
                )
            if tasks(one) != tasks(ones[0]):
                raise InputError(
                    f"{name!r} mixes networks of the tasks {tasks(ones[0])} and {tasks(one)}; make them two groups"
                )
    assert first is not None
    layers = [str(name) for name in first["layer"].values]
    for key in ("early", "late"):
        value = getattr(options, key)
        if value is not None and value not in layers:
            raise InputError(f"{key} is {value!r}, which no result has; {nearest(value, layers)}")
    if options.control is not None and options.control not in named:
        raise InputError(f"the control {options.control!r} is no group of results; {nearest(options.control, named)}")
    return first


def layer_table(summary: xr.Dataset) -> pd.DataFrame:
    """Lay the summary out as a table for a report: a row for each group, layer and masking.

    Parameters
    ----------
    summary : xarray.Dataset
        What segregation_seeds() returned.

    Returns
    -------
    pandas.DataFrame
        Group, layer, masking, number of networks; index and excess with t limits, null mean and limits, number of
        networks with p_corrected < .05, mean own- and other-task drops of both rankings, and shared units.
    """
    rows = []
    for group in map(str, summary["group"].values):
        names = [str(name) for name in summary["task_name"].sel(group=group).values]
        for layer in map(str, summary["layer"].values):
            for masking in map(str, summary["masking"].values):
                one = summary.sel(group=group, layer=layer, masking=masking)
                row: dict[str, Any] = {"group": group, "layer": layer, "masking": masking}
                row["networks"] = int(one["n_networks"])
                for name in ("index", "excess"):
                    row.update({f"{name}{end}": float(one[f"{name}{end}"]) for end in ("", "_low", "_high")})
                for name in ("null_mean", "null_low", "null_high", "n_significant", "n_saturated", "shared"):
                    if name in one:
                        row[name] = float(one[name]) if not name.startswith("n_") else int(one[name])
                for place, task in zip(summary["ranking"].values, names, strict=True):
                    for name in ("own_drop", "other_drop"):
                        if name in one:
                            row[f"{name}_{task}"] = float(one[name].sel(ranking=place))
                rows.append(row)
    return pd.DataFrame(rows)


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the summary over seeds; see :func:`actkit.analyses.segregation_seeds_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`segregation_seeds` returned.
    **settings
        Which figure (``kind``) and its settings.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import segregation_seeds_plot

    return segregation_seeds_plot.plot(result, **settings)


def over_seeds(results: Sequence[xr.Dataset], level: float = LEVEL) -> xr.Dataset:
    """Summarise one group of networks, variable by variable: mean and t interval over the values of single networks.

    :func:`segregation_seeds` compares groups, takes what a report needs and can be drawn; this keeps the dims as they
    are.

    Parameters
    ----------
    results : sequence of xarray.Dataset
        One result of :func:`actkit.analyses.segregation.segregation` for each trained network, with the same layers.
    level : float
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        For ``index``, ``excess`` and others: ``NAME`` (the mean), ``NAME_error``, ``NAME_low``, ``NAME_high``, and
        ``NAME_seeds`` with dim ``model`` (the values themselves). Intervals are NaN for one network.

    Raises
    ------
    InputError
        If there are no results, or their layers differ.
    """
    if not results:
        raise InputError("there are no results to summarise; give one for each trained network")
    layers = [list(one["layer"].values) for one in results]
    if any(names != layers[0] for names in layers):
        raise InputError("the results have different layers, so they are not of one architecture; summarise them apart")
    stacked = xr.concat(
        [one[[name for name in SEED_VARIABLES if name in one]].reset_coords(drop=True) for one in results],
        dim="model",
        join="exact",
    )
    made = {}
    for name, values in stacked.data_vars.items():
        like = values.isel(model=0, drop=True)
        found = summary_of(values.transpose("model", ...).values, level)
        for end, numbers in zip(("", "_error", "_low", "_high"), found, strict=True):
            made[f"{name}{end}"] = like.copy(data=numbers)
        made[f"{name}_seeds"] = values
    attrs = {"n_networks": len(results), "level": level}
    for name in ("tasks", "fraction", "network"):
        if name in results[0].attrs:
            attrs[name] = results[0].attrs[name]
    return xr.Dataset(made, attrs=attrs)


def mixed_model(
    results: Sequence[xr.Dataset] | Mapping[str, Sequence[xr.Dataset]],
    value: str = "excess",
    masking: str = "unmasked",
    level: float = LEVEL,
) -> xr.Dataset:
    """Fit a linear mixed model over trained networks: a mean for every layer (and condition), networks at random.

    ``value ~ 0 + condition:layer + (1 | network)``, by restricted maximum likelihood (statsmodels).

    Parameters
    ----------
    results : sequence of xarray.Dataset, or mapping of condition to such a sequence
        Results of :func:`actkit.analyses.segregation.segregation`, one for each trained network.
    value : str
        Which variable over (layer, masking).
    masking : {"unmasked", "masked"}
        Which outputs competed.
    level : float
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        Over (condition, layer): ``mean``, ``error``, ``interval_low``, ``interval_high``; ``network_variance`` and
        ``residual_variance``.

    Raises
    ------
    InputError
        If a condition has fewer than 20 networks: with fewer the model's normal intervals cover too little
        (:func:`over_seeds` gives t intervals instead).
    """
    conditions = dict(results) if isinstance(results, Mapping) else {"all": list(results)}
    for name, ones in conditions.items():
        if len(ones) < FEWEST_SEEDS:
            raise InputError(
                f"{len(ones)} trained networks ({name!r}) are too few for a mixed model, whose intervals would be too "
                f"narrow; train {FEWEST_SEEDS} or more, or use over_seeds() with its t intervals"
            )
    import statsmodels.formula.api as smf
    from scipy import stats
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    rows = []
    for name, ones in conditions.items():
        for number, one in enumerate(ones):
            values = one[value].sel(masking=masking).values
            rows += [(name, f"{name} {number}", i, v) for i, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["condition", "network", "place", "value"])
    names = list(conditions)
    layers = [str(layer) for layer in next(iter(conditions.values()))[0]["layer"].values]
    table["cell"] = [f"{names.index(c):03d}_{p:04d}" for c, p in zip(table["condition"], table["place"], strict=True)]
    with warnings.catch_warnings():
        # A variance of networks at 0 is a result, not a failure.
        warnings.filterwarnings("ignore", message=".*boundary of the parameter space", category=ConvergenceWarning)
        fitted = smf.mixedlm("value ~ 0 + C(cell)", table, groups=table["network"]).fit(reml=True)
    shape = (len(names), len(layers))
    mean = np.asarray(fitted.fe_params).reshape(shape)
    error = np.asarray(fitted.bse_fe).reshape(shape)
    reach = stats.norm.ppf((1 + level) / 2)
    dims = ("condition", "layer")
    return xr.Dataset(
        {
            "mean": (dims, mean),
            "error": (dims, error),
            "interval_low": (dims, mean - reach * error),
            "interval_high": (dims, mean + reach * error),
            "network_variance": float(np.asarray(fitted.cov_re)[0, 0]),
            "residual_variance": float(fitted.scale),
        },
        coords={"condition": names, "layer": layers},
        attrs={"analysis": "segregation_mixed_model", "value": value, "masking": masking, "level": level},
    )
