"""Faces that actkit draws itself: an identity is a vector of numbers, everything else in the picture is nuisance.

A head is an ellipsoid with a jaw, seen in parallel projection and shaded by one light; eyes, brows, nose and mouth are
painted and embossed in head coordinates, so that they turn with it; hair is a second shell. No one's likeness is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from actkit.data_specs.data_set import Made
from actkit.data_specs.rendering import (
    blend,
    develop,
    item_stream,
    light_direction,
    nuisance_stream,
    pixel_grid,
    rotation,
    soft,
    truth_rdms,
)
from actkit.options import Options, with_options
from actkit.stimuli import Stimuli

PARAMETERS = (
    "face_width", "face_length", "jaw", "skin_tone", "skin_warmth", "hair_tone", "hair_warmth", "hairline",
    "hair_length", "hair_volume", "eye_spacing", "eye_size", "eye_height", "eye_tilt", "iris", "brow_height",
    "brow_thickness", "brow_slant", "nose_length", "nose_width", "mouth_width", "mouth_height", "lip_thickness",
)  # fmt: skip
"""What makes an identity; each number lies between -1 and 1."""

NUISANCES = (
    "yaw", "pitch", "roll", "light_azimuth", "light_elevation", "light_strength", "scale", "shift_x", "shift_y",
    "smile", "mouth_open", "gaze", "background", "noise",
)  # fmt: skip
"""What differs between pictures of one identity: degrees, relative size, shifts in half-widths of the picture."""

# Centre and half-range of every nuisance at strength 1.
_NUISANCE_RANGES = {
    "yaw": (0.0, 35.0), "pitch": (0.0, 12.0), "roll": (0.0, 8.0), "light_azimuth": (0.0, 65.0),
    "light_elevation": (25.0, 25.0), "light_strength": (0.75, 0.2), "scale": (0.95, 0.12), "shift_x": (0.0, 0.1),
    "shift_y": (0.0, 0.07), "smile": (0.2, 0.7), "mouth_open": (0.12, 0.12), "gaze": (0.0, 0.5),
    "background": (0.55, 0.25), "noise": (0.012, 0.012),
}  # fmt: skip

_SKINS = np.array([[0.98, 0.84, 0.74], [0.87, 0.67, 0.53], [0.62, 0.43, 0.31], [0.36, 0.23, 0.17]], dtype=np.float32)
_HAIRS = np.array([[0.07, 0.06, 0.06], [0.26, 0.16, 0.10], [0.50, 0.32, 0.17], [0.86, 0.70, 0.43]], dtype=np.float32)
_IRISES = np.array([[0.22, 0.13, 0.07], [0.36, 0.36, 0.16], [0.25, 0.45, 0.62]], dtype=np.float32)


Finish = Callable[[np.ndarray, float, np.random.Generator], tuple[np.ndarray, dict[str, float]]]


class RenderedFacesOptions(Options):
    """Options of the rendered faces."""

    n_identities: int = Field(20, ge=1, description="how many identities")
    first_identity: int = Field(
        0, ge=0, lt=1 << 19, description="number of the first; an identity is the same whatever others are drawn"
    )
    n_exemplars: int = Field(20, ge=1, description="pictures of each identity")
    size: int = Field(64, ge=16, le=512, description="width and height in pixels")
    nuisance: float = Field(1.0, ge=0, le=1.5, description="how much pose, light, place, expression and noise vary")
    test: float = Field(0.25, ge=0, lt=1, description="fraction of each identity's pictures held out as test")
    seed: int = Field(0, ge=0, description="seed; a picture depends on seed, identity and exemplar alone")


@dataclass(frozen=True)
class _Canvas:
    """Sample positions in the frame of the body: shifted and scaled, not turned."""

    u: np.ndarray
    v: np.ndarray
    pixel: float


@with_options(RenderedFacesOptions)
def rendered_faces(options: RenderedFacesOptions) -> Made:
    """Draw pictures of faces.

    Returns
    -------
    Made
        Pictures uint8 (n, size, size, 3), identity by identity, with the labels ``identity``, ``exemplar``, ``split``
        and every nuisance. Variables: ``parameters`` (stimulus, unit), the identity's numbers; ``truth``, RDMs known
        from the drawing (dim model: ``identity`` 0 or 1, ``identity parameters``, ``pose`` in degrees, ``light``).
    """
    return make_faces(options, "rendered_faces", "face")


def make_faces(
    options: RenderedFacesOptions, name: str, prefix: str, first: int = 0, finish: Finish | None = None
) -> Made:
    """Draw pictures of faces for one of the sets of drawn faces.

    Parameters
    ----------
    options : RenderedFacesOptions
        Number, size, nuisance, split and seed.
    name : str
        What the set is called.
    prefix : str
        First part of ids and identities.
    first : int
        Number of the first identity's random stream: sets that start far apart have no identity in common.
    finish : callable, optional
        ``finish(picture, strength, rng)`` changes a picture's samples (float32, shape (3, s, s)) after the face is
        drawn, and returns them with the numbers that it drew, by name; they become labels.

    Returns
    -------
    Made
        As `rendered_faces` says.
    """
    numbers = options.first_identity + np.arange(options.n_identities)
    items, places = (np.repeat(kind, options.n_exemplars) for kind in (numbers, np.arange(options.n_identities)))
    exemplars = np.tile(np.arange(options.n_exemplars), options.n_identities)
    streams = [item_stream(options.seed, first + item) for item in numbers.tolist()]
    parameters = np.array([stream.uniform(-1, 1, len(PARAMETERS)) for stream in streams])
    grid = pixel_grid(options.size)
    pictures = np.empty((len(items), options.size, options.size, 3), dtype=np.uint8)
    nuisances = np.empty((len(items), len(NUISANCES)))
    finishes: dict[str, list[float]] = {}
    own = parameters[places]
    for row, (item, exemplar) in enumerate(zip(items.tolist(), exemplars.tolist(), strict=True)):
        rng = nuisance_stream(options.seed, first + item, exemplar)
        nuisances[row] = _draw_nuisances(rng, options.nuisance)
        face = dict(zip(PARAMETERS, own[row].tolist(), strict=True))
        view = dict(zip(NUISANCES, nuisances[row].tolist(), strict=True))
        picture = draw_face(face, view, grid)
        if finish is not None:
            picture, drawn = finish(picture, options.nuisance, rng)
            for key, value in drawn.items():
                finishes.setdefault(key, []).append(value)
        pictures[row] = develop(picture, view["noise"], rng)
    ids = [f"{prefix}_{item:03d}_{exemplar:03d}" for item, exemplar in zip(items, exemplars, strict=True)]
    labels: dict[str, Any] = {
        "identity": [f"{prefix}_{item:03d}" for item in items],
        "exemplar": exemplars,
        "split": held_out(exemplars, options.test),
        **dict(zip(NUISANCES, nuisances.T, strict=True)),
        **finishes,
    }
    stimuli = Stimuli.from_array(pictures, ids, labels, name, "identity by identity, exemplars in order")
    return Made(stimuli, _variables(stimuli, own, nuisances, labels["identity"]))


def held_out(exemplars: np.ndarray, test: float) -> np.ndarray:
    """Hold exemplars of every item out, spread evenly over their numbers.

    Whether an exemplar is held out depends on its own number and not on how many are drawn, so that a network
    trained on a larger set of the same items has still not seen the held-out pictures of a smaller one.

    Parameters
    ----------
    exemplars : numpy.ndarray of int, shape (n,)
        Exemplar numbers.
    test : float
        Fraction held out. Of the first n exemplars, n · test are, rounded: exemplar k is held out where the rounded
        count for k + 1 exceeds that for k.

    Returns
    -------
    numpy.ndarray of str, shape (n,)
        ``"train"`` or ``"test"``.
    """
    counts = np.floor(np.stack([exemplars, exemplars + 1]) * test + 0.5 + 1e-9)  # .1 · 5 must round up
    return np.where(counts[1] > counts[0], "test", "train")


def _draw_nuisances(rng: np.random.Generator, strength: float) -> np.ndarray:
    """The nuisances of one picture, uniform within their ranges."""
    drawn = rng.uniform(-1, 1, len(NUISANCES))
    values = [centre + strength * half * x for (centre, half), x in zip(_NUISANCE_RANGES.values(), drawn, strict=True)]
    made = dict(zip(NUISANCES, values, strict=True))
    made["noise"] = max(made["noise"], 0.0) if strength > 0 else 0.0
    made["mouth_open"] = max(made["mouth_open"], 0.0)
    return np.array([made[name] for name in NUISANCES])


def _variables(stimuli: Stimuli, parameters: np.ndarray, nuisances: np.ndarray, identity: list[str]) -> dict[str, Any]:
    """What is known of the pictures because they were drawn; RDMs are computed when asked for."""
    import xarray as xr

    def column(*names: str) -> np.ndarray:
        return nuisances[:, [NUISANCES.index(name) for name in names]]

    def truth() -> xr.Dataset:
        light = np.array([light_direction(a, e) for a, e in column("light_azimuth", "light_elevation")])
        return truth_rdms(
            stimuli.ids,
            {"identity": np.array(identity)},
            {"identity parameters": parameters, "pose": column("yaw", "pitch", "roll"), "light": light},
            f"{stimuli.name} truth",
        )

    table = xr.DataArray(
        parameters,
        dims=("stimulus", "unit"),
        coords={"stimulus": stimuli.ids, "unit": list(PARAMETERS)},
        name="parameters",
        attrs={"long_name": "identity parameters", "units": "1", "kind": "features"},
    )
    return {"parameters": table, "truth": truth}


def draw_face(face: dict[str, float], view: dict[str, float], grid: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Draw one face.

    Parameters
    ----------
    face : dict of str to float
        The identity: a number between -1 and 1 for each of `PARAMETERS`.
    view : dict of str to float
        A number for each of `NUISANCES`.
    grid : tuple of numpy.ndarray, each of shape (s, s)
        Sample positions from `pixel_grid`.

    Returns
    -------
    numpy.ndarray of float32, shape (3, s, s)
        Samples, 0 to 1 (a little beyond where the light is strong).
    """
    scale = 1.0 / view["scale"]
    canvas = _Canvas(
        ((grid[0] - view["shift_x"]) * scale).astype(np.float32),
        ((grid[1] - view["shift_y"] + 0.06) * scale).astype(np.float32),
        4.0 * scale / grid[0].shape[0],
    )
    turn = rotation(view["yaw"], -view["pitch"], view["roll"])
    light = light_direction(view["light_azimuth"], view["light_elevation"])
    warmth = face["skin_warmth"]
    skin = _ramp(_SKINS, face["skin_tone"]) * np.array([1 + 0.05 * warmth, 1, 1 - 0.07 * warmth])
    hair = _ramp(_HAIRS, face["hair_tone"]) * np.array([1 + 0.25 * max(face["hair_warmth"], 0), 1, 1])
    skin, hair = skin.astype(np.float32), hair.astype(np.float32)
    grey = view["background"] * (1.0 + 0.12 * grid[1] + 0.08 * light[0] * grid[0])
    picture = np.broadcast_to(grey.astype(np.float32), (3, *grid[0].shape)).copy()
    _draw_body(picture, canvas, face, skin, hair, light, view, turn)
    _draw_head(picture, canvas, face, skin, hair, light, view, turn)
    return picture


def _ramp(colours: np.ndarray, value: float) -> np.ndarray:
    """A colour between the given ones, for a value from -1 to 1."""
    place = (min(max(value, -1.0), 1.0) + 1.0) * 0.5 * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return colours[low] + (colours[low + 1] - colours[low]) * np.float32(place - low)


def _radii(face: dict[str, float]) -> tuple[float, float, float]:
    """Half width, half height and half depth of the head."""
    return 0.485 * (1 + 0.11 * face["face_width"]), 0.66 * (1 + 0.09 * face["face_length"]), 0.56


def _lit(normal_light: np.ndarray | np.float32, view: dict[str, float]) -> np.ndarray:
    """How bright a matt surface is, from the cosine between its normal and the light."""
    return np.float32(1.06 - view["light_strength"]) + np.float32(view["light_strength"]) * np.maximum(normal_light, 0)


def _draw_body(
    picture: np.ndarray, canvas: _Canvas, face: dict[str, float], skin: np.ndarray, hair: np.ndarray,
    light: np.ndarray, view: dict[str, float], turn: np.ndarray,
) -> None:  # fmt: skip
    """Hair behind the head, shoulders, neck and ears, back to front."""
    u, v, pixel = canvas.u, canvas.v, canvas.pixel
    a, b, _ = _radii(face)
    length = 0.5 * (face["hair_length"] + 1)
    if length > 0.35:
        behind = turn @ np.array([0.0, -0.1, -0.25], dtype=np.float32)
        width, height = a * (1.14 + 0.16 * face["hair_volume"]), b * (0.75 + 0.75 * length)
        middle = behind[1] + b * 0.72 - height
        far = np.sqrt(((u - behind[0]) / width) ** 2 + np.abs((v - middle) / height) ** 3) - 1
        strands = 0.82 + 0.06 * np.sin(60 * u + 5 * v)
        blend(
            picture, hair[:, None, None] * strands * _lit(light[0] * u + 0.6 * light[2], view), soft(far * 0.5, pixel)
        )
    across = u / 0.95
    shoulder = np.sqrt(across**2 + ((v + 1.36) / 0.52) ** 2) - 1
    cloth = np.float32(0.33) * _lit(light[0] * across + light[1] * (v + 1.3) + 0.5 * light[2], view)
    blend(picture, np.stack([cloth * 0.85, cloth * 0.95, cloth * 1.1]), soft(shoulder * 0.5, pixel))
    half = 0.56 * a + 0.10 * np.clip(-v - 0.72, 0, 1) ** 2 * 4
    neck = np.maximum(np.abs(u) - half, np.maximum(v + 0.1, -v - 1.02 + 0.5 * u**2))
    tone = _lit(light[0] * u / half + light[2] * np.sqrt(np.clip(1 - (u / half) ** 2, 0, 1)), view) * 0.78
    blend(picture, skin[:, None, None] * tone, soft(neck, pixel))
    for side in (-1, 1):
        centre = turn @ np.array([side * a * 0.985, -0.03, -0.10], dtype=np.float32)
        ear = np.sqrt(((u - centre[0]) / 0.085) ** 2 + ((v - centre[1]) / 0.145) ** 2) - 1
        inner = np.exp(-(((u - centre[0]) / 0.04) ** 2) - ((v - centre[1]) / 0.08) ** 2)
        tone = _lit(np.float32(0.55 * light[2] + 0.5 * side * light[0]), view) * (0.92 - 0.3 * inner)
        blend(picture, skin[:, None, None] * tone, soft(ear * 0.09, pixel))


def _draw_head(
    picture: np.ndarray, canvas: _Canvas, face: dict[str, float], skin: np.ndarray, hair: np.ndarray,
    light: np.ndarray, view: dict[str, float], turn: np.ndarray,
) -> None:  # fmt: skip
    """The hair behind, the head with its features, and the hair over it; only the part of the picture they cover."""
    a, b, c = _radii(face)
    volume = 1.07 + 0.06 * face["hair_volume"]
    radii, lift = (a * volume, b * (volume - 0.02), c * (volume + 0.03)), 0.05 * b
    near = (np.abs(canvas.u) < 1.06 * max(radii[0], radii[2])) & (np.abs(canvas.v) < 1.06 * radii[1] + lift)
    window = _window(near)
    u, v, pixel = canvas.u[window], canvas.v[window], canvas.pixel
    part = picture[:, *window]

    hx, hy, hz, hair_edge = _ellipsoid(u, v, turn, radii, (0.0, lift, -0.03), 0.10)
    shell = soft(-hair_edge, 1.5 * pixel)
    HX, HY = hx / radii[0], (hy + lift) / b
    side = 0.25 - 0.75 * 0.5 * (face["hair_length"] + 1)
    blend(part, hair * np.float32(0.45), soft(side - HY, 0.05) * shell)

    x, y, z, edge = _ellipsoid(u, v, turn, (a, b, c), (0.0, 0.0, 0.0), 0.20 + 0.14 * face["jaw"])
    albedo, bump = _features(x / a, y / b, z, a / b, face, skin, hair, view, pixel / b)
    n = _turned(turn, x / a**2, y / b**2, z / c**2)
    step = np.float32(u[0, 1] - u[0, 0])
    n[0] -= np.gradient(bump, step, axis=1)
    n[1] += np.gradient(bump, step, axis=0)
    n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2)
    cosine = light[0] * n[0] + light[1] * n[1] + light[2] * n[2]
    shine = _power(np.maximum(2 * cosine * n[2] - light[2], 0), 4) * np.float32(0.16 * view["light_strength"])
    blend(part, albedo * _lit(cosine, view) + shine, soft(-edge, 1.5 * pixel))

    top = 0.56 + 0.13 * face["hairline"] + 0.10 * (HX - 0.25) ** 2
    ramp = np.clip((np.abs(HX) - 0.66) / 0.26, 0, 1)
    line = top + (side - top) * ramp * ramp * (3 - 2 * ramp)
    line = np.where(hz < -0.02, np.minimum(line, side - 0.1), line)
    n = _turned(turn, hx / radii[0] ** 2, hy / radii[1] ** 2, hz / radii[2] ** 2)
    cosine = light[0] * n[0] + light[1] * n[1] + light[2] * n[2]
    strands = 0.94 + 0.07 * np.sin(34 * np.arctan2(HX - 0.2, hz + 0.9) + 4 * np.sin(6 * HY))
    shine = _power(np.maximum(2 * cosine * n[2] - light[2], 0), 3) * np.float32(0.18)
    blend(part, hair[:, None, None] * strands * _lit(cosine, view) + shine * strands, soft(line - HY, 0.05) * shell)


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest rows and columns that hold every true sample; one sample where there is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return slice(0, 1), slice(0, 1)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _turned(turn: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Directions in camera coordinates, of length one."""
    n = np.stack([turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z for k in range(3)])
    n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + np.float32(1e-6)
    return n


def _power(values: np.ndarray, doublings: int) -> np.ndarray:
    """Values to the power 2 ** doublings, by squaring: the same bits on every machine, and faster."""
    for _ in range(doublings):
        values = values * values
    return values


def _ellipsoid(
    u: np.ndarray, v: np.ndarray, turn: np.ndarray, radii: tuple[float, float, float],
    centre: tuple[float, float, float], jaw: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Where parallel rays meet an ellipsoid that narrows towards the chin; and how far inside its outline they are."""
    a, b, c = radii
    middle = turn @ np.array(centre, dtype=np.float32)
    du, dv = u - middle[0], v - middle[1]
    ox, oy, oz = (turn[0, k] * du + turn[1, k] * dv for k in range(3))
    dx, dy, dz = (float(turn[2, k]) for k in range(3))
    narrow = np.float32(1.0)
    for _ in range(3):
        w = 1.0 / (a * narrow) ** 2
        qa = w * dx**2 + dy**2 / b**2 + dz**2 / c**2
        qb = w * ox * dx + oy * (dy / b**2) + oz * (dz / c**2)
        qc = w * ox**2 + (oy / b) ** 2 + (oz / c) ** 2 - 1
        inside = qb * qb - qa * qc
        t = (-qb + np.sqrt(np.maximum(inside, 0))) / qa
        fall = np.clip(-(oy + t * dy) / b, 0, 1)
        narrow = 1 - jaw * fall * fall * (1.4 - 0.4 * fall)
    edge = inside / (qa * min(a, b))  # near the outline about the distance to it
    return ox + t * dx, oy + t * dy, oz + t * dz, edge


def _features(
    X: np.ndarray, Y: np.ndarray, z: np.ndarray, aspect: float, face: dict[str, float], skin: np.ndarray,
    hair: np.ndarray, view: dict[str, float], soften: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Colour of the head's surface, and the height of what stands out from it."""
    front = np.clip(z * 6, 0, 1)
    albedo = np.broadcast_to(skin[:, None, None], (3, *X.shape)).copy()
    tan_yaw = float(np.tan(np.deg2rad(view["yaw"])))
    eye_y = 0.10 + 0.04 * face["eye_height"]
    eye_x = 0.40 + 0.055 * face["eye_spacing"]
    wide = 0.185 * (1 + 0.20 * face["eye_size"])
    tall = 0.082 * (1 + 0.30 * face["eye_size"])
    tip = -0.24 - 0.055 * face["nose_length"]
    nose = 0.155 * (1 + 0.30 * face["nose_width"])
    mouth_y = -0.535 + 0.035 * face["mouth_height"] - 0.02 * face["nose_length"]
    mouth_w = 0.33 * (1 + 0.20 * face["mouth_width"]) * (1 + 0.10 * max(view["smile"], 0))
    lips = 0.052 * (1 + 0.45 * face["lip_thickness"])

    # What stands out shifts against the head as it turns.
    rise = np.clip((eye_y - Y) / (eye_y - tip), 0, 1)
    NX = X - 0.22 * tan_yaw * rise**1.5
    drop = np.clip((Y - (tip - 0.10)) / 0.10, 0, 1)
    ridge = np.exp(-((NX / (0.075 + 0.6 * nose * rise**2)) ** 2)) * rise**1.3 * drop * drop * (3 - 2 * drop)
    bump = 0.155 * ridge
    cheeks = np.exp(-(((np.abs(X) - 0.52) / 0.26) ** 2) - ((Y + 0.20) / 0.20) ** 2)
    sockets = np.exp(-(((np.abs(X) - eye_x) / 0.23) ** 2) - ((Y - eye_y - 0.03) / 0.125) ** 2)
    chin = np.exp(-((X / 0.24) ** 2) - ((Y + 0.83) / 0.13) ** 2)
    bump += 0.030 * cheeks - 0.050 * sockets + 0.030 * chin
    blend(albedo, skin * np.array([0.98, 0.78, 0.76], dtype=np.float32), 0.45 * cheeks)
    blend(albedo, skin * np.float32(0.72), 0.40 * sockets)
    blend(albedo, skin * np.float32(0.62), 0.5 * front * np.exp(-((NX / nose) ** 2) - ((Y - tip + 0.10) / 0.035) ** 2))
    near = _window((np.abs(NX) < 2.2 * nose) & (np.abs(Y - tip) < 0.2))
    tip_x, tip_y, under = NX[near], Y[near], front[near]
    for side in (-1, 1):
        hole = np.hypot((tip_x - side * 0.52 * nose) / 0.045, (tip_y - tip + 0.075) / 0.026) - 1
        blend(albedo[:, *near], skin * np.float32(0.30), under * soft(hole * 0.03, 2 * soften))
        bump[near] += 0.03 * np.exp(-(((tip_x - side * 0.8 * nose) / 0.06) ** 2) - ((tip_y - tip + 0.02) / 0.06) ** 2)
        near_eye = _window((np.abs(X * side - eye_x) < 1.6 * wide) & (np.abs(Y - eye_y - 0.12) < 0.35) & (z > 0))
        place = (albedo[:, *near_eye], X[near_eye] * side, Y[near_eye], eye_x, eye_y, front[near_eye], soften, face)
        _eye(*place, side, wide, tall, aspect, skin, view)
        _brow(*place, hair)
    near_mouth = _window((np.abs(X) < 1.3 * mouth_w) & (np.abs(Y - mouth_y) < 0.3) & (z > 0))
    place_mouth = (albedo[:, *near_mouth], bump[near_mouth], X[near_mouth], Y[near_mouth], front[near_mouth])
    _mouth(*place_mouth, mouth_y, mouth_w, lips, skin, view, soften)
    return albedo, bump


def _eye(
    albedo: np.ndarray, X: np.ndarray, Y: np.ndarray, eye_x: float, eye_y: float, front: np.ndarray, soften: float,
    face: dict[str, float], side: int, wide: float, tall: float, aspect: float, skin: np.ndarray,
    view: dict[str, float],
) -> None:  # fmt: skip
    """One eye; `X` grows from the nose outwards on either side."""
    across = (X - eye_x) / wide
    up = Y - eye_y - 0.03 * face["eye_tilt"] * across
    lid = tall * np.clip(1 - across * across, 0, 1)
    opening = np.maximum(np.abs(up) - lid, np.abs(X - eye_x) - wide)
    white = soft(opening, 2 * soften) * front
    blend(
        albedo,
        skin * np.float32(0.55),
        soft(np.maximum(np.abs(up - 1.7 * lid) - 0.008, np.abs(across) - 0.85), 2.5 * soften) * front * 0.45,
    )
    blend(albedo, (0.93, 0.92, 0.90), white)
    radius = 0.098 * (1 + 0.12 * face["eye_size"])
    gaze = 0.30 * wide * view["gaze"] * side
    r = np.hypot((X - eye_x - gaze) * aspect, up - 0.008)
    iris = _ramp(_IRISES, face["iris"])
    blend(albedo, iris * np.float32(0.5), white * soft(r - radius, 2 * soften))
    blend(albedo, iris, white * soft(r - 0.82 * radius, 2 * soften))
    blend(albedo, (0.03, 0.03, 0.03), white * soft(r - 0.45 * radius, 2 * soften))
    spark = np.hypot((X - eye_x - gaze - side * 0.03) * aspect, up - 0.045)
    blend(albedo, (1.0, 1.0, 1.0), white * soft(spark - 0.022, 2 * soften))
    upper = np.abs(up - lid) - 0.016 * np.clip(1.2 - across * across, 0, 1)
    blend(albedo, (0.10, 0.07, 0.06), soft(np.maximum(upper, np.abs(across) - 1.0), 2 * soften) * front * 0.9)
    lower = np.maximum(np.abs(up + lid) - 0.006, np.abs(across) - 0.9)
    blend(albedo, skin * np.float32(0.5), soft(lower, 2 * soften) * front * 0.6)


def _brow(
    albedo: np.ndarray, X: np.ndarray, Y: np.ndarray, eye_x: float, eye_y: float, front: np.ndarray, soften: float,
    face: dict[str, float], hair: np.ndarray,
) -> None:  # fmt: skip
    """One eyebrow."""
    across = (X - eye_x - 0.01) / 0.235
    height = eye_y + 0.205 + 0.04 * face["brow_height"] + 0.055 * face["brow_slant"] * across - 0.055 * across**2
    thick = 0.030 * (1 + 0.55 * face["brow_thickness"]) * np.clip(1.15 - 0.45 * across, 0.2, 1.5)
    shape = np.maximum(np.abs(Y - height) - thick, (np.abs(across) - 1) * 0.2)
    blend(albedo, hair * np.float32(0.75), soft(shape, 3 * soften) * front * 0.92)


def _mouth(
    albedo: np.ndarray, bump: np.ndarray, X: np.ndarray, Y: np.ndarray, front: np.ndarray, mouth_y: float, width: float,
    lips: float, skin: np.ndarray, view: dict[str, float], soften: float,
) -> None:  # fmt: skip
    """Lips, the line between them, and teeth where the mouth is open."""
    across = X / width
    body = np.clip(1 - across * across, 0, 1)
    middle = mouth_y + 0.065 * view["smile"] * (across * across - 0.35)
    gap = 0.42 * view["mouth_open"] * body
    bow = 1 - 0.30 * np.exp(-((across / 0.16) ** 2))
    upper, lower = lips * 0.95 * body * bow, lips * 1.25 * body
    up = Y - middle
    red = skin * np.array([0.86, 0.52, 0.52], dtype=np.float32)
    shape = np.maximum(np.maximum(up - gap - upper, -up - gap - lower), (np.abs(across) - 1) * 0.2)
    blend(albedo, red, soft(shape, 2.5 * soften) * front)
    inside = np.maximum(np.abs(up) - gap, (np.abs(across) - 1) * 0.2)
    blend(albedo, (0.16, 0.05, 0.05), soft(inside, 2 * soften) * front * min(1.0, 10 * view["mouth_open"]))
    teeth = np.maximum(np.abs(up - 0.55 * gap) - 0.40 * gap, (np.abs(across) - 0.75) * 0.2)
    blend(albedo, (0.90, 0.88, 0.84), soft(teeth, 2 * soften) * front * min(1.0, 8 * view["mouth_open"]))
    line = np.maximum(np.abs(np.abs(up) - gap) - 0.010, (np.abs(across) - 1.02) * 0.3)
    blend(albedo, skin * np.array([0.42, 0.22, 0.22], dtype=np.float32), soft(line, 2 * soften) * front * 0.8)
    bump += 0.026 * np.exp(-(((up + gap + 0.6 * lower) / 0.05) ** 2)) * body
    bump += 0.014 * np.exp(-(((up - gap - 0.6 * upper) / 0.04) ** 2)) * body
