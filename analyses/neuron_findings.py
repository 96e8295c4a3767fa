"""What a study of recorded neurons expects, what it measured, and whether that held: one row for each claim.

Expectations follow the abstract of Arend, Han, Schrimpf, Bashivan, Kar, Poggio, DiCarlo & Boix (2018), CBMM Memo 093,
and what later work says of privileged axes; the memo's numbers are not known here, so none is asserted. No layer is
chosen by its score: every claim is about the mean over all layers that were recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from actkit.analyses.neuron_summary import Evidence, interval
from actkit.analyses.segregation_findings import verdict
from actkit.plotting import short

__all__ = ["COLUMNS", "MANY", "findings"]

MANY = 0.1
"""Share of neurons beyond the 99 % point of their null that a study calls many: ten times what chance gives."""
COLUMNS = (
    "finding", "network", "expected", "measured", "held", "rule", "source", "recording", "estimate", "low", "high",
    "boundary",
)  # fmt: skip
_ABSTRACT, _AXES, _GENERAL = "claim of the abstract", "Khosla et al. (2024)", "expected in general"
_LEVEL = 0.05


class _Rows:
    """Rows of the table while it is made."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.rows: list[dict[str, Any]] = []

    def interval(
        self,
        finding: str,
        network: str,
        values: np.ndarray,
        expected: str,
        source: str,
        boundary: float = 0.0,
        middle: str = "median",
        more: str = "",
    ) -> None:
        """Judge values (neurons, layers) by the interval over neurons of their means over layers."""
        value, low, high = interval(_over_layers(values), self.evidence.seed, middle)
        words = f"{short(value)} [{short(low)}, {short(high)}]" if np.isfinite(low) else short(value)
        alone = np.array([interval(column, self.evidence.seed, middle)[0] for column in values.T])
        if len(alone) > 1:
            words += f"; above {short(boundary)} in {int((alone > boundary).sum())} of {len(alone)} layers"
        self._add(
            finding, network, expected, f"{words}{more}", verdict(low, high, boundary),
            f"{middle} over neurons, interval against {short(boundary)}", source, value, low, high, boundary,
        )  # fmt: skip

    def tested(
        self, finding: str, network: str, value: float, null: np.ndarray, expected: str, source: str, what: str,
        below: bool = False,
    ) -> None:  # fmt: skip
        """Judge a number against draws of its null, one-sided."""
        beyond = null <= value + 1e-12 if below else null >= value - 1e-12
        p = float((1 + beyond.sum()) / (1 + len(null)))
        centre = float(null.mean())
        wrong = value >= centre if below else value <= centre
        held = "yes" if p <= _LEVEL else "no" if wrong else "undecided"
        low, high = np.quantile(null, [0.025, 0.975])
        self._add(
            finding, network, expected,
            f"{short(value)}; {what} {short(centre)} [{short(float(low))}, {short(float(high))}], p = {short(p, 3)}",
            held,
            f"one-sided p over {len(null)} draws",
            source, value, float("nan"), float("nan"), centre,
        )  # fmt: skip

    def _add(self, *values: Any) -> None:
        """Add a row."""
        names = [name for name in COLUMNS if name != "recording"]
        self.rows.append(dict(zip(names, values, strict=True)) | {"recording": self.evidence.recording})


def findings(evidence: Evidence) -> pd.DataFrame:
    """Set what was expected beside what was found.

    Every claim is about the mean over all layers. Rules: an interval (95 %, bootstrap over neurons; of a difference of
    shares, normal and as of independent shares, which is wide for pairs) that lies wholly on the expected side of the
    boundary says yes, wholly on the other no, else the claim is undecided; a one-sided p of at most .05 says yes, a
    value on the other side of the null's mean no, else the claim is undecided.

    Parameters
    ----------
    evidence : Evidence
        What a study found out about one recording.

    Returns
    -------
    pandas.DataFrame
        One row for each claim that something was measured for, about the networks that were matched but for untrained
        twins: ``finding``, ``network``, ``expected``, ``measured``, ``held`` (yes, no or undecided), ``rule`` (by which
        it was judged), ``source`` (of the expectation), ``recording``, ``estimate``, ``low``, ``high``, ``boundary``.
    """
    rows = _Rows(evidence)
    twins = {
        str(controls["untrained"].attrs.get("twin", ""))
        for controls in evidence.controls.values()
        if "untrained" in controls
    }
    for network in evidence.networks:
        if network in twins:
            continue
        controls = evidence.controls.get(network, {})
        for match in evidence.matches.get(network, ()):
            _beyond(rows, network, match)
        _control_rows(rows, network, controls)
        if network in evidence.encodings and evidence.matches.get(network):
            _below_linear(rows, network, evidence.matches[network][0], evidence.encodings[network])
        if network in evidence.transfers:
            _transferred(rows, network, evidence.transfers[network])
    return pd.DataFrame(rows.rows, columns=list(COLUMNS))


def _beyond(rows: _Rows, network: str, match: xr.Dataset) -> None:
    """Many neurons above the 99 % point of their null."""
    r, limit = (match[name].transpose("neuron", "layer").values for name in ("r_mean", "null_99"))
    known = np.isfinite(r) & np.isfinite(limit)
    if not known.any():
        return
    beyond = np.where(known, r > limit, np.nan)
    within = match.attrs.get("null") == "within_category"
    finding = (
        "Many neurons have a unit that resembles them by more than a shared category"
        if within
        else "Many neurons have a unit that resembles them more than chance would have it"
    )
    null = "stimuli permuted within categories" if within else "stimuli permuted freely"
    count = int(match.attrs.get("n_permutations", 0))
    rows.interval(
        finding, network, beyond,
        f"more than {short(MANY)} of the neurons beyond the 99 % point of their null ({null}; chance .01)",
        _ABSTRACT, MANY, "mean", f"; {count} permutations",
    )  # fmt: skip


def _over_layers(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _control_rows(rows: _Rows, network: str, controls: Any) -> None:
    """Findings of the controls of a match."""
    if "untrained" in controls:
        result = controls["untrained"]
        twin = result.attrs.get("twin", "the untrained network")
        rows.interval(
            "Units of the trained network match better than those of its untrained twin", network,
            result["difference"].transpose("neuron", "layer").values,
            f"r above that of {twin}", _AXES,
            more="; of r/√ρ" if result.attrs.get("score") == "r_corrected" else "",
        )  # fmt: skip
    if "rotation" in controls:
        result = controls["rotation"]
        native = result["native"].transpose("neuron", "layer").values
        rotated = result["rotated"].mean("rotation").transpose("neuron", "layer").values
        rows.interval(
            "Single units match better than their mixtures: the channels are privileged axes", network,
            native - rotated, "r above that of randomly rotated channels", _AXES,
            more=f"; {result.sizes['rotation']} rotations",
        )  # fmt: skip
    if "shuffle" in controls:
        result = controls["shuffle"]
        observed = result["observed"].transpose("neuron", "layer").values
        null = result["null_mean"].transpose("neuron", "layer").values
        rows.interval(
            "A neuron's unit is its own: the units of other neurons match it less", network,
            observed - null, "r above that with other neurons' units", _GENERAL,
        )  # fmt: skip
    if "location" in controls:
        result = controls["location"]
        null = result["null_spread"].transpose("layer", "draw").values
        rows.tested(
            "Matched units lie together in the map", network, float(result["ratio_mean"]),
            (null / null.mean(axis=1, keepdims=True)).mean(axis=0),
            "distances between matched units, over those of permuted stimuli, below 1", _GENERAL, "permuted",
            below=True,
        )  # fmt: skip


def _below_linear(rows: _Rows, network: str, match: xr.Dataset, encoding: xr.Dataset) -> None:
    """One unit predicts less than all of them."""
    layers = [str(one) for one in match["layer"].values if str(one) in set(encoding["layer"].values.astype(str))]
    neurons = [str(one) for one in match["neuron"].values if str(one) in set(encoding["neuron"].values.astype(str))]
    if not layers or not neurons:
        return
    unit = match["r_mean"].sel(neuron=neurons, layer=layers).transpose("neuron", "layer").values
    linear = encoding["r"].sel(neuron=neurons, layer=layers).transpose("neuron", "layer").values
    model = str(encoding.attrs.get("model", "linear"))
    rows.interval(
        f"A single unit predicts less than a linear map of all units ({model})", network, linear - unit,
        f"r of {model} above that of the unit", _GENERAL,
    )  # fmt: skip


def _transferred(rows: _Rows, network: str, result: xr.Dataset) -> None:
    """A classifier that has seen matched units alone works on the neurons, in part."""
    label = str(result.attrs.get("label", "label"))
    value = float(result["transfer"].values.mean())
    controls = (
        ("null_labels", "above chance", "labels permuted"),
        ("null_match", "above a permuted match", "match permuted"),
        ("null_random", "above random units", "random units"),
    )
    for name, claim, what in controls:
        if name in result:
            rows.tested(
                f"A classifier of {label} trained on matched units alone reads the neurons {claim}", network, value,
                result[name].transpose("layer", "permutation").values.mean(axis=0), f"share read {claim}",
                _ABSTRACT if name == "null_labels" else _GENERAL, what,
            )  # fmt: skip
    n, own = int(result.attrs["n_stimuli"]), float(result["neurons"].values.mean())
    difference = own - value
    half = 1.959964 * float(np.sqrt((value * (1 - value) + own * (1 - own)) / n))
    rows._add(
        f"… and less well than a classifier of {label} trained on the neurons", network,
        "share read below that of the neurons' own classifier",
        f"{short(difference)} [{short(difference - half)}, {short(difference + half)}] less ({short(value)} against "
        f"{short(own)})",
        verdict(difference - half, difference + half),
        f"interval of the difference of two shares of {n} stimuli against 0",
        _ABSTRACT, difference, difference - half, difference + half, 0.0,
    )  # fmt: skip
