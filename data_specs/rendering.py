"""What the drawn stimuli share: random streams, pixel grids, rotations, light, averaging down to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

OVERSAMPLING = 2
"""Samples a pixel along each axis; their mean is the pixel."""

_ITEM, _NUISANCE = 0, 1


def item_stream(seed: int, item: int) -> np.random.Generator:
    """Open the random stream of what an item is (an identity, a category's member).

    Parameters
    ----------
    seed : int
        Seed of the set.
    item : int
        Number of the item.

    Returns
    -------
    numpy.random.Generator
        Philox; it depends on seed and item alone, so a larger set begins with the same items.
    """
    return np.random.Generator(np.random.Philox(key=[seed, _ITEM], counter=[0, 0, 0, item]))


def nuisance_stream(seed: int, item: int, exemplar: int) -> np.random.Generator:
    """Open the random stream of one picture's pose, light, place and noise.

    Parameters
    ----------
    seed : int
        Seed of the set.
    item, exemplar : int
        Numbers of the item and of its picture.

    Returns
    -------
    numpy.random.Generator
        Philox; independent of `item_stream` and of every other picture.
    """
    return np.random.Generator(np.random.Philox(key=[seed, _NUISANCE], counter=[0, 0, exemplar, item]))


def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the sample positions of a square picture.

    Parameters
    ----------
    size : int
        Width and height in pixels.

    Returns
    -------
    u, v : numpy.ndarray of float32, shape (s, s)
        Right and up, from -1 to 1, with s = size times the oversampling.
    """
    samples = size * OVERSAMPLING
    line = ((np.arange(samples, dtype=np.float32) + 0.5) * (2.0 / samples) - 1.0).astype(np.float32)
    u, v = np.meshgrid(line, -line)
    return u, v


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn object coordinates into camera coordinates: about y, then x, then z.

    Parameters
    ----------
    yaw, pitch, roll : float
        Angles in degrees.

    Returns
    -------
    numpy.ndarray of float32, shape (3, 3)
        The matrix that maps object to camera.
    """
    cy, cp, cr = np.cos(np.deg2rad([yaw, pitch, roll]))
    sy, sp, sr = np.sin(np.deg2rad([yaw, pitch, roll]))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def light_direction(azimuth: float, elevation: float) -> np.ndarray:
    """Point from the object to the light.

    Parameters
    ----------
    azimuth : float
        Degrees to the right of the camera.
    elevation : float
        Degrees above it.

    Returns
    -------
    numpy.ndarray of float32, shape (3,)
        Unit vector in camera coordinates (right, up, towards the camera).
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], dtype=np.float32)


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Give the cover of a shape from a signed distance: 1 inside, 0 outside, a ramp between.

    Parameters
    ----------
    distance : numpy.ndarray
        Negative inside.
    width : float
        Width of the ramp.

    Returns
    -------
    numpy.ndarray
        0 to 1.
    """
    return np.clip(0.5 - distance * (1.0 / width), 0.0, 1.0)


def blend(under: np.ndarray, over: np.ndarray | Sequence[float], cover: np.ndarray) -> np.ndarray:
    """Paint a colour over a picture.

    Parameters
    ----------
    under : numpy.ndarray, shape (3, s, s)
        The picture, changed in place.
    over : array-like, shape (3,) or (3, s, s)
        The colour.
    cover : numpy.ndarray, shape (s, s)
        How much of it, 0 to 1.

    Returns
    -------
    numpy.ndarray
        `under`.
    """
    colour = np.asarray(over, dtype=np.float32)
    colour = colour.reshape(3, 1, 1) if colour.ndim == 1 else colour
    under += (colour - under) * cover
    return under


def develop(picture: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Average the samples of a picture, add noise, and round to 8 bits.

    Parameters
    ----------
    picture : numpy.ndarray of float32, shape (3, s, s)
        Samples, 0 to 1.
    noise : float
        Standard deviation of the pixel noise (grey, the same in R, G and B), on the scale 0 to 1.
    rng : numpy.random.Generator
        Where the noise comes from.

    Returns
    -------
    numpy.ndarray of uint8, shape (size, size, 3)
        The picture.
    """
    size = picture.shape[1] // OVERSAMPLING
    small = picture.reshape(3, size, OVERSAMPLING, size, OVERSAMPLING).mean(axis=(2, 4))
    if noise > 0:
        small = small + noise * rng.standard_normal((size, size), dtype=np.float32)
    return np.rint(np.clip(small, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0)


def truth_rdms(
    ids: np.ndarray, same: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray], name: str
) -> xr.Dataset:
    """Compute the RDMs that are known because the stimuli were drawn.

    Parameters
    ----------
    ids : numpy.ndarray of str, shape (n,)
        Stimulus ids.
    same : mapping of str to numpy.ndarray, shape (n,)
        Labels: 0 for the same value and 1 for different ones.
    measured : mapping of str to numpy.ndarray, shape (n, p)
        Parameters: Euclidean distance.
    name : str
        What the RDMs are called.

    Returns
    -------
    xarray.Dataset
        An RDM dataset of dim ``model``.
    """
    from scipy.spatial.distance import pdist

    from actkit.recordings import rdm_dataset

    i, j = np.triu_indices(len(ids), 1)
    vectors = [(np.asarray(labels)[i] != np.asarray(labels)[j]).astype(np.float64) for labels in same.values()]
    vectors += [pdist(np.asarray(values, dtype=np.float64)) for values in measured.values()]
    return rdm_dataset(np.array(vectors), [*same, *measured], "model", ids, "known from the drawing", name)
