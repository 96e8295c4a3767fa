"""One recording of neurons beside the layers of networks, in one table: single units, linear maps, controls, transfer.

What went into it stays in its own result; here stand the medians, with intervals, that the figures of a study draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from actkit.errors import InputError
from actkit.options import Options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

__all__ = ["DRAWS", "Evidence", "interval", "layer_table", "neuron_summary", "series"]

DRAWS = 2000
"""Bootstrap samples of neurons for an interval."""
COVERAGE = 0.95
NULLS = {"within_category": "stimuli permuted within categories", "free": "stimuli permuted freely"}
_TRANSFER = ("transfer", "units", "neurons")


@dataclass(frozen=True)
class Evidence:
    """Everything a study found out about one recording.

    Attributes
    ----------
    recording : str
        What it is called.
    matches : mapping of str to sequence of xarray.Dataset
        By network, what ``match_units`` returned: the match first, then the same with another null.
    encodings, transfers : mapping of str to xarray.Dataset
        By network, what ``encode`` and the matched-population ``transfer`` returned.
    controls : mapping of str to mapping of str to xarray.Dataset
        Network to control (rotation, pools, shuffle, location, untrained) to result.
    seed : int
        Seed of the bootstrap over neurons.
    """

    recording: str
    matches: Mapping[str, Sequence[xr.Dataset]] = field(default_factory=dict)
    encodings: Mapping[str, xr.Dataset] = field(default_factory=dict)
    transfers: Mapping[str, xr.Dataset] = field(default_factory=dict)
    controls: Mapping[str, Mapping[str, xr.Dataset]] = field(default_factory=dict)
    seed: int = 0

    @property
    def networks(self) -> list[str]:
        """Networks that anything is known of, those with controls first: they are what a study is about."""
        named = [*self.controls, *self.matches, *self.encodings, *self.transfers]
        return list(dict.fromkeys(named))


def interval(values: np.ndarray, seed: int, middle: str = "median") -> tuple[float, float, float]:
    """Middle of values over neurons, with a percentile interval of a bootstrap over neurons.

    Parameters
    ----------
    values : numpy.ndarray, shape (n_neurons,)
        Values that are not known (NaN) are left out.
    seed : int
        Seed of the draws.
    middle : {"median", "mean"}
        What is taken over neurons.

    Returns
    -------
    tuple of float
        Value, lower and upper end of 95 %; NaN ends for fewer than three neurons.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    take = np.median if middle == "median" else np.mean
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    if len(known) < 3:
        return float(take(known)), float("nan"), float("nan")
    drawn = known[generator(seed, 0, Stream.SUBJECTS).integers(0, len(known), size=(DRAWS, len(known)))]
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(take(drawn, axis=1), [tail, 1 - tail])
    return float(take(known)), float(low), float(high)


def neuron_summary(evidence: Evidence) -> xr.Dataset:
    """Gather the numbers of one recording: one row for each network, layer and quantity.

    Parameters
    ----------
    evidence : Evidence
        What was found out.

    Returns
    -------
    xarray.Dataset
        Along ``row``, with the coordinates ``network``, ``layer``, ``depth`` (number of the layer in its network, from
        0) and ``quantity``: ``value``, ``low``, ``high`` and ``p_value`` (NaN where there is none). Quantities:

        - ``unit``, ``unit_corrected``: median over neurons of the held-out r of the matched unit, and of r/√ρ, with
          bootstrap intervals over neurons; p of the median against its null;
        - ``null``: mean and central 95 % of the permuted medians;
        - ``beyond free``, ``beyond within_category``: share of neurons above the 99th percentile of their null, with
          the interval over neurons; ``significant``: share with p ≤ .05, false discovery rate;
        - ``stability``: mean share of pairs of folds that chose the same unit;
        - ``linear``, ``linear_corrected``: median r of the linear map;
        - ``rotated``: mean and range over rotations of the median in rotated bases; ``pools``: mean and central 95 %
          over pools of one size; ``shuffle``: neurons with each other's units, median;
        - ``transfer``, ``units``, ``neurons``: share of stimuli whose label is read, with a Wilson interval over
          stimuli; ``null_labels``, ``null_match``, ``null_random``: mean and central 95 % of its controls.

    Raises
    ------
    InputError
        If there is nothing to sum up.
    """
    rows = [row for network in evidence.networks for row in _network_rows(evidence, network)]
    if not rows:
        raise InputError(f"nothing is known of {evidence.recording!r}: no match, encoding or transfer was given")
    table = pd.DataFrame(rows, columns=["network", "layer", "depth", "quantity", "value", "low", "high", "p_value"])
    words = {
        "value": "value", "low": "lower end of its interval", "high": "upper end of its interval", "p_value": "p",
    }  # fmt: skip
    result = xr.Dataset(
        {
            name: ("row", table[name].to_numpy(dtype=np.float64), {"long_name": long, "units": "1"})
            for name, long in words.items()
        },
        coords={
            **{name: ("row", table[name].to_numpy().astype(str)) for name in ("network", "layer", "quantity")},
            "depth": ("row", table["depth"].to_numpy(dtype=np.int64)),
        },
    )
    first = next((ones[0] for ones in evidence.matches.values() if ones), None)
    known = next(iter([*([first] if first is not None else []), *evidence.encodings.values()]), None)
    return describe(
        result,
        "neuron_summary",
        Options(),
        {"rows": fingerprint(table["value"].to_numpy(dtype=np.float64))},
        recording=evidence.recording,
        n_neurons=None if known is None else known.attrs.get("n_neurons"),
        n_stimuli=None if known is None else known.attrs.get("n_stimuli"),
        splitting=None if known is None else known.attrs.get("splitting"),
        null=None if first is None else first.attrs.get("null"),
        n_permutations=None if first is None else int(first.attrs.get("n_permutations", 0)),
        linear=next((str(one.attrs.get("model")) for one in evidence.encodings.values()), None),
        label=next((str(one.attrs.get("label")) for one in evidence.transfers.values()), None),
        pool_size=next(
            (_number(one["pools"], "pool_size") for one in evidence.controls.values() if "pools" in one), None
        ),
        chance=next((float(one["chance"]) for one in evidence.transfers.values()), None),
        untrained=sorted(
            {str(one["untrained"].attrs["twin"]) for one in evidence.controls.values() if "untrained" in one
             and "twin" in one["untrained"].attrs}
        ),
        n_draws=DRAWS,
        coverage=COVERAGE,
        seed=evidence.seed,
    )  # fmt: skip


def _number(result: xr.Dataset, name: str) -> int | None:
    """A whole number among the attributes."""
    return int(result.attrs[name]) if name in result.attrs else None


def _network_rows(evidence: Evidence, network: str) -> Iterator[tuple[Any, ...]]:
    """Rows of one network."""
    matches = evidence.matches.get(network, ())
    for number, match in enumerate(matches):
        for k, layer in enumerate(match["layer"].values.astype(str).tolist()):
            yield from _match_rows(evidence, network, match, k, layer, number == 0)
    if network in evidence.encodings:
        result = evidence.encodings[network]
        for k, layer in enumerate(result["layer"].values.astype(str).tolist()):
            for name, variable in (("linear", "r"), ("linear_corrected", "r_corrected")):
                if variable in result:
                    values = result[variable].transpose("layer", "neuron").values[k]
                    yield (network, layer, k, name, *interval(values, evidence.seed), np.nan)
    for name, result in evidence.controls.get(network, {}).items():
        for k, layer in enumerate(result["layer"].values.astype(str).tolist() if "layer" in result.dims else []):
            yield from _control_rows(network, name, result, k, layer)
    if network in evidence.transfers:
        yield from _transfer_rows(network, evidence.transfers[network])


def _match_rows(
    evidence: Evidence, network: str, match: xr.Dataset, k: int, layer: str, first: bool
) -> Iterator[tuple[Any, ...]]:
    """Rows of one layer of a match; of a further one, those about its null alone."""
    r = match["r_mean"].transpose("layer", "neuron").values[k]
    limit = match["null_99"].transpose("layer", "neuron").values[k]
    if first:
        yield (network, layer, k, "unit", *interval(r, evidence.seed), float(match["p_median"].values[k]))
        if "r_corrected" in match:
            values = match["r_corrected"].transpose("layer", "neuron").values[k]
            yield (network, layer, k, "unit_corrected", *interval(values, evidence.seed), np.nan)
        null = match["null_median"].transpose("layer", "permutation").values[k]
        if len(null):
            yield (network, layer, k, "null", float(null.mean()), *_central(null), np.nan)
            known = match["p_corrected"].transpose("layer", "neuron").values[k]
            yield (network, layer, k, "significant", float((known <= 0.05).mean()), np.nan, np.nan, np.nan)
        same = match["stability"].transpose("layer", "neuron").values[k]
        same = same[np.isfinite(same)]
        yield (network, layer, k, "stability", float(same.mean()) if len(same) else np.nan, np.nan, np.nan, np.nan)
    if np.isfinite(limit).any():
        beyond = np.where(np.isfinite(r) & np.isfinite(limit), r > limit, np.nan)
        kind = f"beyond {match.attrs.get('null', 'free')}"
        yield (network, layer, k, kind, *interval(beyond, evidence.seed, "mean"), np.nan)


def _control_rows(network: str, name: str, result: xr.Dataset, k: int, layer: str) -> Iterator[tuple[Any, ...]]:
    """Rows of one layer of a control."""
    if name == "rotation":
        values = result["median_rotated"].transpose("layer", "rotation").values[k]
        p = float(result["p_value"].values[k])
        yield (network, layer, k, "rotated", float(values.mean()), float(values.min()), float(values.max()), p)
    elif name == "pools":
        values = result["median_r"].transpose("layer", "draw").values[k]
        yield (network, layer, k, "pools", float(values.mean()), *_central(values), np.nan)
    elif name == "shuffle":
        null = result["null_median"].transpose("layer", "draw").values[k]
        yield (network, layer, k, "shuffle", float(null.mean()), *_central(null), float(result["p_median"].values[k]))
    elif name == "location":
        value, p = float(result["ratio"].values[k]), float(result["p_value"].values[k])
        null = result["null_spread"].transpose("layer", "draw").values[k]
        yield (network, layer, k, "location", value, *_central(null / null.mean()), p)


def _transfer_rows(network: str, result: xr.Dataset) -> Iterator[tuple[Any, ...]]:
    """Rows of a transfer."""
    n = int(result.attrs["n_stimuli"])
    for k, layer in enumerate(result["layer"].values.astype(str).tolist()):
        for name in _TRANSFER:
            share = float(result[name].values[k])
            p = float(result["p_labels"].values[k]) if name == "transfer" else np.nan
            yield (network, layer, k, name, share, *_wilson(share, n), p)
        for name in ("null_labels", "null_match", "null_random"):
            if name in result:
                null = result[name].transpose("layer", "permutation").values[k]
                yield (network, layer, k, name, float(null.mean()), *_central(null), np.nan)


def _central(values: np.ndarray) -> tuple[float, float]:
    """Ends of the central 95 %."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson interval of a share of n stimuli."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(round(share * n), n, alpha=1 - COVERAGE, method="wilson")
    return float(low), float(high)


def series(summary: xr.Dataset, network: str, quantity: str) -> pd.DataFrame:
    """Take one quantity of one network, layer by layer.

    Parameters
    ----------
    summary : xarray.Dataset
        What `neuron_summary` returned.
    network, quantity : str
        Which.

    Returns
    -------
    pandas.DataFrame
        Columns layer, depth, value, low, high, p_value; empty if there is none.
    """
    use = (summary["network"].values == network) & (summary["quantity"].values == quantity)
    part = summary.isel(row=np.flatnonzero(use))
    names = ("layer", "depth", "value", "low", "high", "p_value")
    return pd.DataFrame({name: part[name].values for name in names})


_COLUMNS = {
    "unit": "r", "unit_corrected": "r/√ρ", "beyond within_category": "beyond 99 % within category",
    "beyond free": "beyond 99 %", "stability": "same unit", "rotated": "rotated", "pools": "equal pools",
    "shuffle": "others' units", "location": "spread ratio", "linear": "linear r", "linear_corrected": "linear r/√ρ",
    "transfer": "transfer", "units": "units", "neurons": "neurons",
}  # fmt: skip


def layer_table(summary: xr.Dataset) -> pd.DataFrame:
    """Lay a summary out for reading: a row for each network and layer, a column for each quantity.

    Parameters
    ----------
    summary : xarray.Dataset
        What `neuron_summary` returned.

    Returns
    -------
    pandas.DataFrame
        Columns ``network`` and ``layer``, then each quantity there is, followed by ``… low`` and ``… high``.
    """
    rows = pd.DataFrame({name: summary[name].values for name in ("network", "layer", "depth", "quantity")})
    rows = rows.assign(**{name: summary[name].values for name in ("value", "low", "high")})
    found = []
    for (network, _, layer), part in rows.groupby(["network", "depth", "layer"], sort=False):
        line: dict[str, Any] = {"network": network, "layer": layer}
        for quantity, name in _COLUMNS.items():
            mine = part[part["quantity"] == quantity]
            if len(mine):
                line[name] = float(mine["value"].iloc[0])
                line[f"{name} low"], line[f"{name} high"] = float(mine["low"].iloc[0]), float(mine["high"].iloc[0])
        found.append(line)
    table = pd.DataFrame(found)
    empty = [name for name in table.columns if name.endswith((" low", " high")) and table[name].isna().all()]
    return table.drop(columns=empty)
