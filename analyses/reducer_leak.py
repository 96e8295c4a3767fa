"""A layer reduced by axes that were fitted to stimuli must not be tested on those stimuli.

Principal components of stimuli that are later held out have seen them: they point where these very stimuli vary. A
reducer that is fixed by its plan (a mean over positions, a random projection) has seen nothing, whatever the stimuli.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from actkit.errors import InputError

__all__ = ["check_reducer_leak", "fitted_on"]

_FITTED = ("pca",)  # values of the layer attribute `reduced` that mean axes found in data
_STIMULI = "pca_fit_stimuli"


def check_reducer_leak(source: Any, layers: Sequence[str], test: Sequence[Any], what: str = "held out") -> None:
    """Refuse layers whose axes were fitted to stimuli that are to be tested.

    Parameters
    ----------
    source : ActivationStore, path, xarray.Dataset, xarray.DataArray, mapping or array
        What the analysis reads, as it was given.
    layers : sequence of str
        Names of the layers in use.
    test : sequence of str
        Every stimulus that is in a test set at some time; in crossvalidation, all of them.
    what : str
        What happens to these stimuli, for the message.

    Raises
    ------
    InputError
        If a layer's reducer was fitted to a test stimulus, or to stimuli that nobody recorded.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    wanted = {str(name) for name in test}
    for layer in layers:
        seen = fitted_on(source, layer)
        if seen is None:
            continue
        if not seen:
            raise InputError(
                f"layer {layer!r} was reduced by fitted axes, and this array does not say to which stimuli, so they "
                f"may be the ones that are {what}; give the store itself, which does, or its list as the array's "
                f"attribute {_STIMULI!r}"
            )
        both = sorted(seen & wanted)
        if both:
            raise InputError(
                f"layer {layer!r} was reduced by principal components of {len(seen)} stimuli, {len(both)} of which are "
                f"{what} here (the first is {both[0]!r}), so scores would be too high; record it with reduce='none' or "
                "'projection', which learn nothing from stimuli, or leave the fitted stimuli out of the responses (the "
                f"store lists them in attrs[{_STIMULI!r}])"
            )


def fitted_on(source: Any, layer: str) -> frozenset[str] | None:
    """Find the stimuli to which a layer's reducer was fitted.

    Parameters
    ----------
    source : ActivationStore, xarray.Dataset, xarray.DataArray, mapping or array
        What holds the layer.
    layer : str
        Name of the layer.

    Returns
    -------
    frozenset of str or None
        Their ids; None where nothing was fitted, and an empty set where a fitted reducer does not say.
    """
    if hasattr(source, "layer_attrs"):
        attrs = {**source.attrs, **source.layer_attrs(layer)}
    elif isinstance(source, xr.DataArray):
        attrs = dict(source.attrs)
    elif isinstance(source, Mapping) and isinstance(source.get(layer), xr.DataArray):  # a Dataset is a mapping too
        attrs = dict(source[layer].attrs)
    else:
        return None
    if attrs.get("reduced") not in _FITTED:
        return None
    ids = attrs.get(_STIMULI, [])
    return frozenset(str(name) for name in ([ids] if isinstance(ids, str) else ids))
