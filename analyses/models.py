"""Flexible models: RDMs that are weighted, chosen among or interpolated to fit the data.

A flexible model is an RDM dataset that says so in its attributes; its components run along the leading dim. It is
fitted on some subjects and stimuli and scored on others: see :mod:`~actkit.analyses.crossvalidation`.
"""

from __future__ import annotations

import json
from typing import Literal, cast, get_args

import numpy as np
import xarray as xr
from scipy.spatial.distance import pdist

from actkit.compute import format_bytes, parse_bytes
from actkit.errors import InputError, nearest
from actkit.recordings import VARIABLE, leading_dim, n_pairs, rdm_dataset, validate_rdms

Flexible = Literal["weighted", "weighted_nonnegative", "selection", "interpolation"]
FLEXIBLE: tuple[str, ...] = get_args(Flexible)


def weighted(rdms: xr.Dataset, name: str, *, nonnegative: bool = True, ridge: float = 0.0) -> xr.Dataset:
    """Make a model that is a weighted sum of RDMs; the weights are fitted to training data.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset; its leading dim runs over the components.
    name : str
        Name of the model in results.
    nonnegative : bool
        Keep weights at 0 or above, as a sum of squared distances over groups of features requires (Khaligh-Razavi &
        Kriegeskorte 2014). Otherwise weights may be negative.
    ridge : float
        Penalty on the squared weights of the components at unit norm: 0 none, 1 as large as a component's own norm.

    Returns
    -------
    xarray.Dataset
        The same RDMs with the attributes ``flexible`` (``"weighted_nonnegative"`` or ``"weighted"``), ``name`` and
        ``ridge``.

    Raises
    ------
    InputError
        If it is not an RDM dataset, a component has missing pairs, there are fewer than two of them or `ridge` is
        negative.

    Examples
    --------
    >>> from actkit.recordings import category_rdms
    >>> rdms = category_rdms({"animate": [1, 1, 0, 0], "face": [1, 0, 0, 0]}, ["girl", "cat", "cup", "car"])
    >>> weighted(rdms, "categories").attrs["flexible"]
    'weighted_nonnegative'
    """
    if not (np.isfinite(ridge) and ridge >= 0):
        raise InputError(f"ridge={ridge} would reward large weights; give 0 or a positive number")
    return _tagged(rdms, "weighted_nonnegative" if nonnegative else "weighted", name, ridge=float(ridge))


def selection(rdms: xr.Dataset, name: str) -> xr.Dataset:
    """Make a model that is one of several RDMs, chosen on training data.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset; its leading dim runs over the candidates.
    name : str
        Name of the model in results.

    Returns
    -------
    xarray.Dataset
        The same RDMs with the attributes ``flexible="selection"`` and ``name``.

    Raises
    ------
    InputError
        As in :func:`weighted`.
    """
    return _tagged(rdms, "selection", name)


def interpolation(rdms: xr.Dataset, name: str) -> xr.Dataset:
    """Make a model on the line from RDM to RDM in their order: ``w RDM_k + (1 - w) RDM_k+1`` with ``0 ≤ w ≤ 1``.

    The RDMs sample a parameter (a tuning width, a level of noise), and the fit finds the best place between two
    neighbours. Their scales matter: they are mixed as given.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset; its leading dim runs over the parameter, in order.
    name : str
        Name of the model in results.

    Returns
    -------
    xarray.Dataset
        The same RDMs with the attributes ``flexible="interpolation"`` and ``name``.

    Raises
    ------
    InputError
        As in :func:`weighted`.
    """
    return _tagged(rdms, "interpolation", name)


def layer_weighted(network_rdms: xr.Dataset, name: str | None = None, *, ridge: float = 0.0) -> xr.Dataset:
    """Combine all layers of a network with non-negative weights.

    Parameters
    ----------
    network_rdms : xarray.Dataset
        RDM dataset along ``layer``. Layers with missing pairs (dead on some image) are left out and named in the
        attribute ``left_out`` (JSON).
    name : str, optional
        Name of the model; by default that of the network and ``"layers weighted"``.
    ridge : float
        As in :func:`weighted`.

    Returns
    -------
    xarray.Dataset
        A flexible model; see :func:`weighted`.

    Raises
    ------
    InputError
        If the RDMs do not run along ``layer``, or fewer than two layers are whole.
    """
    layers = _whole_layers(network_rdms)
    return weighted(layers, name or f"{_network(network_rdms)}: layers weighted", ridge=ridge)


def best_layer(network_rdms: xr.Dataset, name: str | None = None) -> xr.Dataset:
    """Take the best layer of a network, chosen on other stimuli and subjects than those that score it.

    The largest of many layer scores is too large: pure noise reaches r = .36 with 13 layers. Choosing inside the
    training folds gives the score that the chosen layer has on new data.

    Parameters
    ----------
    network_rdms : xarray.Dataset
        RDM dataset along ``layer``. Layers with missing pairs are left out, as in :func:`layer_weighted`.
    name : str, optional
        Name of the model; by default that of the network and ``"best layer"``.

    Returns
    -------
    xarray.Dataset
        A flexible model; see :func:`selection`.

    Raises
    ------
    InputError
        As in :func:`layer_weighted`.
    """
    return selection(_whole_layers(network_rdms), name or f"{_network(network_rdms)}: best layer")


def flexible_kind(rdms: xr.Dataset) -> Flexible | None:
    """Tell how a model is flexible.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset.

    Returns
    -------
    str or None
        ``"weighted"``, ``"weighted_nonnegative"``, ``"selection"``, ``"interpolation"``, or None for fixed RDMs.

    Raises
    ------
    InputError
        If the attribute holds another word.
    """
    kind = rdms.attrs.get("flexible")
    if kind is not None and kind not in FLEXIBLE:
        raise InputError(f"a model is flexible={kind!r}, which cannot be fitted; {nearest(str(kind), FLEXIBLE)}")
    return cast("Flexible | None", kind)


def _tagged(rdms: xr.Dataset, kind: Flexible, name: str, **attrs: float) -> xr.Dataset:
    """Mark an RDM dataset as a flexible model, after checking its components."""
    validate_rdms(rdms)
    dim = leading_dim(rdms)
    if rdms.sizes[dim] < 2:
        raise InputError(
            f"the flexible model {name!r} has {rdms.sizes[dim]} component, so there is nothing to fit; give two or "
            "more RDMs, or use the RDM as a fixed model"
        )
    missing = np.isnan(rdms[VARIABLE].values).any(axis=1)
    if missing.any():
        named = ", ".join(repr(str(value)) for value in rdms[dim].values[missing][:5])
        raise InputError(
            f"components of the flexible model {name!r} have missing pairs ({named}), so their sum would have them "
            f"too; leave them out with rdms.drop_sel({dim}=[…])"
        )
    return rdms.assign_attrs(flexible=kind, name=str(name), **attrs)


def _whole_layers(rdms: xr.Dataset) -> xr.Dataset:
    """Leave out the layers with missing pairs, and say which."""
    if leading_dim(rdms) != "layer":
        raise InputError(
            f"the RDMs run along {leading_dim(rdms)!r}, not 'layer'; use weighted() or selection() for other models"
        )
    missing = np.isnan(rdms[VARIABLE].values).any(axis=1)
    left_out = [str(value) for value in rdms["layer"].values[missing]]
    return rdms.isel(layer=np.flatnonzero(~missing)).assign_attrs(left_out=json.dumps(left_out))


def _network(rdms: xr.Dataset) -> str:
    """Name a network as results do."""
    return str(rdms.attrs.get("network") or rdms.attrs.get("name") or "network")


# --------------------------------------------------------------------------------------------------------------------
# One RDM for each feature


def feature_rdms(
    layer: np.ndarray | xr.DataArray,
    by: Literal["channel", "unit"] = "unit",
    *,
    stimulus_ids: np.ndarray | None = None,
    name: str = "features",
    memory: str | int = "2GB",
) -> xr.Dataset:
    """Make one squared-Euclidean RDM for each feature of a layer, for feature-reweighted RSA.

    The squared Euclidean distance of the whole layer is the sum of these RDMs; :func:`weighted` gives each feature its
    own weight (Kaniuth & Hebart 2022, Feature-reweighted representational similarity analysis, NeuroImage 257). With
    many features a `ridge` is needed there.

    Parameters
    ----------
    layer : numpy.ndarray or xarray.DataArray
        ``(stimulus, unit)`` or ``(stimulus, channel, y, x)``, such as ``store["conv1"]``.
    by : {"unit", "channel"}
        A feature is one unit, or one channel with all its positions (their squared differences are added).
    stimulus_ids : array of str, optional
        Ids of the rows; by default the coordinate ``stimulus``.
    name : str
        Name of the RDMs.
    memory : str or int
        Refuse to make more than this.

    Returns
    -------
    xarray.Dataset
        RDM dataset along ``rdm``, unscaled squared distances. Features that are the same for all stimuli have no
        shape to add; they are left out and counted in the attribute ``n_constant``.

    Raises
    ------
    InputError
        If the array has no channels, ids are missing, a value is not finite, no feature varies, or the RDMs would not
        fit in `memory`.
    """
    values, names, ids = _features(layer, by, stimulus_ids)
    n, pairs = len(values), n_pairs(len(values))
    size = 8 * len(names) * pairs
    if size > parse_bytes(memory):
        raise InputError(
            f"{len(names)} RDMs of {n} stimuli take {format_bytes(size)}, more than memory={memory!r}; choose "
            "by='channel', fewer units, or a larger budget"
        )
    if not np.isfinite(values).all():
        raise InputError(f"the activations of {name!r} hold NaN or infinite values; leave these stimuli or units out")
    vectors = np.empty((len(names), pairs))
    for feature in range(len(names)):
        vectors[feature] = pdist(values[:, feature], "sqeuclidean")
    varies = vectors.any(axis=1)
    if not varies.any():
        raise InputError(f"no feature of {name!r} varies over the stimuli, so there is no RDM to weigh")
    return rdm_dataset(
        vectors[varies], names[varies], "rdm", ids, "sqeuclidean", name, feature=by, n_constant=int((~varies).sum())
    )


def _features(
    layer: np.ndarray | xr.DataArray, by: str, stimulus_ids: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring a layer to (stimulus, feature, position) with feature names and stimulus ids."""
    if by not in ("unit", "channel"):
        raise InputError(f"by={by!r} is not a kind of feature; {nearest(by, ('unit', 'channel'))}")
    values = np.asarray(layer, dtype=np.float64)
    shaped = " × ".join(map(str, values.shape))
    if values.ndim < 2:
        raise InputError(f"a layer has the shape (stimulus, unit) or (stimulus, channel, y, x), not ({shaped})")
    if by == "channel" and values.ndim == 2:
        raise InputError(f"the layer ({shaped}) has no positions beside its channels; use by='unit'")
    coords = dict(layer.coords) if isinstance(layer, xr.DataArray) else {}
    dims = [str(dim) for dim in layer.dims] if isinstance(layer, xr.DataArray) else []
    if stimulus_ids is None:
        if "stimulus" not in coords or dims[0] != "stimulus":
            raise InputError("the layer has no coordinate 'stimulus' along its first dim; give stimulus_ids")
        stimulus_ids = coords["stimulus"].values
    ids = np.asarray(stimulus_ids)
    if ids.shape != (len(values),):
        raise InputError(f"{ids.size} stimulus ids do not fit {len(values)} rows; give one id for each stimulus")
    whole = by == "unit" and values.ndim > 2  # units of a map have no names of their own
    features = values.reshape(len(values), -1, 1) if by == "unit" else values.reshape(*values.shape[:2], -1)
    known = dims and not whole and dims[1] in coords
    names = coords[dims[1]].values if known else np.array([f"{by}{k}" for k in range(features.shape[1])])
    return features, np.asarray(names).astype(str), ids
