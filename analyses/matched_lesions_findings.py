"""What lesions of matched units were expected to do, what they did, and whether that held: one row for each outcome.

No layer is chosen by its score: every claim is about the mean over all layers that were lesioned, each in units of the
spread of its own random sets.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from actkit.analyses.matched_lesions import adjust
from actkit.errors import InputError
from actkit.plotting import short

__all__ = ["COLUMNS", "findings"]

COLUMNS = (
    "finding", "network", "expected", "measured", "held", "rule", "source", "recording", "estimate", "p", "p_adjusted",
)  # fmt: skip
_CLAIMS = {
    "loss": "Losing matched units raises the task's loss more than losing units like them",
    "accuracy": "Losing matched units lowers the accuracy more than losing units like them",
    "rsa_layer": "The lesioned layer loses more of its resemblance to the neurons' geometry",
    "rsa_readout": "The read-out loses more of its resemblance to the neurons' geometry",
}
_LEVEL = 0.05


def findings(result: xr.Dataset) -> pd.DataFrame:
    """Judge every outcome over all layers.

    Effects of every layer are standardised by the mean and standard deviation of its random sets, and averaged over
    layers, for the matched units and for each random set; p is the share of sets whose average is at least as large
    (of several splits, twice the median). The adjusted p does so with the residuals of a linear fit on the sets' mean
    activation, variance and position. Yes: both are at most .05; no: the average is not above that of the random sets;
    undecided otherwise.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.matched_lesions.lesion_matched` returned.

    Returns
    -------
    pandas.DataFrame
        One row for each outcome: ``finding``, ``network``, ``expected``, ``measured``, ``held`` (yes, no or undecided),
        ``rule``, ``source``, ``recording``, ``estimate`` (mean excess in standard deviations of the random sets),
        ``p``, ``p_adjusted`` (NaN where random sets are too few for the fit: then p alone decides).

    Raises
    ------
    InputError
        If it is no such result.
    """
    if result.attrs.get("analysis") != "lesion_matched":
        raise InputError("this is no lesion of matched units; give what lesion_matched() returned")
    rows = []
    for outcome in result["outcome"].values.astype(str).tolist():
        one = result.sel(outcome=outcome)
        every = np.concatenate([one["effect"].values[..., None], one["random_effect"].values], axis=-1)
        estimate, p = _test(every)
        adjusted = _test(_residuals(result, outcome))[1]
        held = "no" if not estimate > 0 else "undecided"
        if estimate > 0 and p <= _LEVEL and not adjusted > _LEVEL:
            held = "yes"
        excess = one["excess_mean"].values
        layers = ", ".join(
            f"{name} {short(float(value), 3)}" for name, value in zip(one["layer"].values, excess, strict=True)
        )
        also = f", adjusted p = {short(adjusted, 3)}" if np.isfinite(adjusted) else ""
        measured = f"{short(estimate)} s.d. of random sets, p = {short(p, 3)}{also}; excess by layer: {layers}"
        rows.append(
            {
                "finding": _CLAIMS.get(outcome, outcome),
                "network": str(result.attrs["network"]),
                "expected": "above 0",
                "measured": measured,
                "held": held,
                "rule": f"one-sided p over {result.sizes['random']} random sets"
                + (", as it is and adjusted" if np.isfinite(adjusted) else ""),
                "source": "question of this study",
                "recording": str(result.attrs["recording"]),
                "estimate": estimate,
                "p": p,
                "p_adjusted": adjusted,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _residuals(result: xr.Dataset, outcome: str) -> np.ndarray:
    """``(split, layer, 1 + random)`` what the sets' features do not explain."""
    one = result.sel(outcome=[outcome])
    features = np.concatenate([one["matched_features"].values[:, :, None], one["random_features"].values], axis=2)
    return np.array(
        [
            [adjust(*of)[1][0] for of in zip(*split, strict=True)]
            for split in zip(one["effect"].values, one["random_effect"].values, features, strict=True)
        ]
    )


def _test(every: np.ndarray) -> tuple[float, float]:
    """Mean standardised effect over layers and splits, and p; values (split, layer, 1 + random), the matched first."""
    random = every[..., 1:]
    spread = random.std(axis=-1, keepdims=True)
    off = every - random.mean(axis=-1, keepdims=True)
    scaled = np.divide(off, spread, out=np.zeros_like(off), where=spread > 0).mean(axis=1)
    if np.isnan(every).any():
        return float("nan"), float("nan")
    p = (scaled >= scaled[:, :1] - 1e-12).mean(axis=1)
    return float(scaled[:, 0].mean()), float(p[0] if len(p) == 1 else min(1.0, 2 * np.median(p)))
