"""A second set of drawn faces: other identities than `rendered_faces`, and pictures that were processed otherwise.

It serves controls that need the same task from two sources (two sets of photographs of different people). The heads are
drawn as in `rendered_faces`; then the picture is seen through the shadow of a blind, darkened towards its corners,
printed with a steeper tone curve, blurred, and grained.
"""

from __future__ import annotations

import numpy as np

from actkit.data_specs.data_set import Made
from actkit.data_specs.rendered_faces import RenderedFacesOptions, make_faces
from actkit.data_specs.rendering import OVERSAMPLING, pixel_grid
from actkit.options import with_options

FILM = ("gamma", "blind_depth", "blind_angle", "blind_phase", "blind_width")
"""What differs between pictures besides the nuisances of `rendered_faces`: exponent of the tone curve, darkness of the
blind's shadow (0 to 1), its angle in degrees, its phase in turns, and its period in half-widths of the picture."""

_RANGES = np.array([(1.3, 0.2), (0.22, 0.12), (20.0, 35.0), (0.5, 0.5), (0.55, 0.15)])
_FIRST = 1 << 20  # identities have streams far from those of rendered_faces
_GAIN, _VIGNETTE, _GRAIN = 1.25, 0.3, 0.02


@with_options(RenderedFacesOptions)
def rendered_faces_film(options: RenderedFacesOptions) -> Made:
    """Draw pictures of faces that share no identity with `rendered_faces`, in another rendering.

    Returns
    -------
    Made
        As `rendered_faces`, identities called ``film_III``, with a label more for each of `FILM`.
    """
    return make_faces(options, "rendered_faces_film", "film", _FIRST, print_film)


def print_film(picture: np.ndarray, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    """Process one picture.

    Parameters
    ----------
    picture : numpy.ndarray of float32, shape (3, s, s)
        Samples, 0 to 1.
    strength : float
        How much the numbers of `FILM` vary about their centres; without any, there is no grain either.
    rng : numpy.random.Generator
        Where they come from.

    Returns
    -------
    picture : numpy.ndarray of float32, shape (3, s, s)
        Samples, 0 to 1.
    drawn : dict of str to float
        The numbers of `FILM`.
    """
    drawn = _RANGES[:, 0] + strength * _RANGES[:, 1] * rng.uniform(-1, 1, len(FILM))
    gamma, depth, angle, phase, width = drawn.tolist()
    u, v = pixel_grid(picture.shape[1] // OVERSAMPLING)
    turn = np.deg2rad(angle)
    wave = np.sin(2 * np.pi * ((np.sin(turn) * u + np.cos(turn) * v) / width + phase))
    shadow = 1 - min(max(depth, 0.0), 1.0) * np.clip(0.5 + 2.0 * wave, 0, 1)
    made = _GAIN * np.clip(picture, 0, 1) ** np.float32(gamma) * (shadow * (1 - _VIGNETTE * (u * u + v * v) / 2))
    for axis in (1, 2):  # samples and their neighbours by 1:2:1, twice as wide as a pixel
        made = 0.5 * made + 0.25 * (np.roll(made, 1, axis) + np.roll(made, -1, axis))
    if strength > 0:
        made = made + _GRAIN * rng.standard_normal(made.shape[1:])
    return made.astype(np.float32), dict(zip(FILM, drawn.tolist(), strict=True))
