"""Objects that actkit draws itself: sixteen categories of solid shapes, their members as vectors of numbers.

A shape is a signed distance function (see `rendered_solids`). Rays in parallel projection walk along it ("sphere
tracing", J. C. Hart, The Visual Computer 12, 527, 1996), and one light shades it, with a soft shadow on the floor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from actkit.data_specs.data_set import Made
from actkit.data_specs.rendered_faces import held_out
from actkit.data_specs.rendered_solids import CATEGORIES, SOLIDS, WOOD, Point, Shape
from actkit.data_specs.rendering import (
    develop,
    item_stream,
    light_direction,
    nuisance_stream,
    pixel_grid,
    rotation,
    truth_rdms,
)
from actkit.errors import nearest
from actkit.options import Options, with_options
from actkit.stimuli import Stimuli

PARAMETERS = ("height", "width", "thickness", "detail", "tone", "hue")
"""What makes a member of a category; each number lies between -1 and 1."""

NUISANCES = (
    "yaw", "pitch", "roll", "light_azimuth", "light_elevation", "light_strength", "scale", "shift_x", "shift_y",
    "background", "noise",
)  # fmt: skip
"""What differs between pictures of one member: degrees, relative size, shifts in half-widths of the picture."""

# Centre and half-range of every nuisance at strength 1.
_NUISANCE_RANGES = {
    "yaw": (30.0, 60.0), "pitch": (20.0, 14.0), "roll": (0.0, 7.0), "light_azimuth": (-10.0, 60.0),
    "light_elevation": (42.0, 22.0), "light_strength": (0.72, 0.15), "scale": (0.92, 0.14), "shift_x": (0.0, 0.12),
    "shift_y": (0.0, 0.08), "background": (0.62, 0.22), "noise": (0.012, 0.012),
}  # fmt: skip

_PALETTE = np.array(
    [
        [0.80, 0.24, 0.20],
        [0.87, 0.57, 0.18],
        [0.38, 0.60, 0.26],
        [0.19, 0.52, 0.58],
        [0.25, 0.36, 0.70],
        [0.57, 0.32, 0.60],
    ],
    dtype=np.float32,
)


class RenderedObjectsOptions(Options):
    """Options of the rendered objects."""

    n_categories: int = Field(8, ge=1, le=16, description="how many categories, in the order of CATEGORIES")
    categories: list[str] = Field([], description="these categories by name, in this order, instead of the first ones")
    n_members: int = Field(5, ge=1, description="members of each category, with proportions and colours of their own")
    n_exemplars: int = Field(10, ge=1, description="pictures of each member")
    size: int = Field(64, ge=16, le=512, description="width and height in pixels")
    nuisance: float = Field(1.0, ge=0, le=1.5, description="how much pose, light, place and noise vary")
    test: float = Field(0.25, ge=0, lt=1, description="fraction of each member's pictures held out as test")
    seed: int = Field(0, ge=0, description="seed; a picture depends on seed, category, member and exemplar alone")

    @model_validator(mode="after")
    def _known_categories(self) -> RenderedObjectsOptions:
        for name in self.categories:
            if name not in CATEGORIES:
                raise ValueError(f"categories: there is no category {name!r}; {nearest(name, CATEGORIES)}")
            if self.categories.count(name) > 1:
                raise ValueError(f"categories: {name!r} is named twice; name each category once")
        if self.categories and "n_categories" in self.model_fields_set:
            raise ValueError("categories are named and counted (n_categories) at once; give one of the two")
        return self

    @property
    def chosen(self) -> list[int]:
        """Numbers of the categories that are drawn, in their order."""
        return [CATEGORIES.index(name) for name in self.categories] or list(range(self.n_categories))


_MEMBERS_APART = 1 << 20  # members of a category have streams of their own, however many there are


@with_options(RenderedObjectsOptions)
def rendered_objects(options: RenderedObjectsOptions) -> Made:
    """Draw pictures of objects.

    Returns
    -------
    Made
        Pictures uint8 (n, size, size, 3), category by category and member by member, with the labels ``category``,
        ``member``, ``exemplar``, ``split`` and every nuisance. A member of a category is the same whichever categories
        are drawn beside it. Variables: ``parameters`` (stimulus, unit), the member's
        numbers; ``truth``, RDMs known from the drawing (dim model: ``category`` and ``member`` 0 or 1,
        ``member parameters``, ``pose`` in degrees, ``light``).
    """
    shape = (len(options.chosen), options.n_members, options.n_exemplars)
    places, members, exemplars = (axis.ravel() for axis in np.indices(shape))
    categories = np.array(options.chosen)[places]
    grid = pixel_grid(options.size)
    pictures = np.empty((len(categories), options.size, options.size, 3), dtype=np.uint8)
    parameters = np.empty((len(categories), len(PARAMETERS)))
    nuisances = np.empty((len(categories), len(NUISANCES)))
    for row, (category, member, exemplar) in enumerate(zip(categories, members, exemplars, strict=True)):
        item = int(category) * _MEMBERS_APART + int(member)
        parameters[row] = item_stream(options.seed, item).uniform(-1, 1, len(PARAMETERS))
        rng = nuisance_stream(options.seed, item, int(exemplar))
        nuisances[row] = [
            centre + options.nuisance * half * x
            for (centre, half), x in zip(_NUISANCE_RANGES.values(), rng.uniform(-1, 1, len(NUISANCES)), strict=True)
        ]
        nuisances[row, -1] = max(nuisances[row, -1], 0.0) if options.nuisance > 0 else 0.0
        numbers = dict(zip(PARAMETERS, parameters[row].tolist(), strict=True))
        view = dict(zip(NUISANCES, nuisances[row].tolist(), strict=True))
        pictures[row] = develop(draw_object(CATEGORIES[category], numbers, view, grid), view["noise"], rng)
    names = np.array(CATEGORIES)[categories]
    member_names = np.array([f"{name}_{member:02d}" for name, member in zip(names, members, strict=True)])
    ids = [f"{name}_{exemplar:03d}" for name, exemplar in zip(member_names, exemplars, strict=True)]
    labels: dict[str, Any] = {
        "category": names,
        "member": member_names,
        "exemplar": exemplars,
        "split": held_out(exemplars, options.test),
        **dict(zip(NUISANCES, nuisances.T, strict=True)),
    }
    order = "category by category, member by member, exemplars in order"
    stimuli = Stimuli.from_array(pictures, ids, labels, "rendered_objects", order)
    return Made(stimuli, _variables(stimuli, parameters, nuisances))


def _variables(stimuli: Stimuli, parameters: np.ndarray, nuisances: np.ndarray) -> dict[str, Any]:
    """What is known of the pictures because they were drawn; RDMs are computed when asked for."""
    import xarray as xr

    def truth() -> xr.Dataset:
        light = [light_direction(a, e) for a, e in nuisances[:, [3, 4]]]
        same = {key: stimuli.labels[key] for key in ("category", "member")}
        measured = {"member parameters": parameters, "pose": nuisances[:, :3], "light": np.array(light)}
        return truth_rdms(stimuli.ids, same, measured, "rendered_objects truth")

    table = xr.DataArray(
        parameters,
        dims=("stimulus", "unit"),
        coords={"stimulus": stimuli.ids, "unit": list(PARAMETERS)},
        name="parameters",
        attrs={"long_name": "member parameters", "units": "1", "kind": "features"},
    )
    return {"parameters": table, "truth": truth}


def draw_object(
    category: str, member: dict[str, float], view: dict[str, float], grid: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Draw one object.

    Parameters
    ----------
    category : str
        One of `CATEGORIES`.
    member : dict of str to float
        A number between -1 and 1 for each of `PARAMETERS`.
    view : dict of str to float
        A number for each of `NUISANCES`.
    grid : tuple of numpy.ndarray, each of shape (s, s)
        Sample positions from `pixel_grid`.

    Returns
    -------
    numpy.ndarray of float32, shape (3, s, s)
        Samples, 0 to 1 (a little beyond where the light is strong).
    """
    make, second = SOLIDS[category]
    shape, floor = make(member)
    own = _own_colour(category, member)
    zoom = np.float32(1.10 / view["scale"])
    u = ((grid[0] - np.float32(view["shift_x"])) * zoom).ravel()
    v = ((grid[1] - np.float32(view["shift_y"])) * zoom).ravel()
    turn = rotation(view["yaw"], view["pitch"], view["roll"])
    light = light_direction(view["light_azimuth"], view["light_elevation"])
    towards = turn[2]  # the camera's direction in object coordinates
    start = tuple(turn[0, k] * u + turn[1, k] * v + np.float32(1.6) * towards[k] for k in range(3))
    hit, depth = _march(shape, start, towards, grid[0].shape[0], 2 * float(zoom) / grid[0].shape[0])

    grey = np.float32(view["background"])
    picture = np.broadcast_to(grey * (1 + np.float32(0.10) * grid[1].ravel()), (3, len(u))).copy()
    picture *= 1 - _shadow(shape, floor, start, towards, turn.T @ light, view)
    points = tuple((start[k] - depth * towards[k])[hit] for k in range(3))
    parts = np.array(shape(points))  # type: ignore[arg-type]
    albedo = np.where(parts.argmin(axis=0) == 0, own[:, None], (own if second is None else second)[:, None])
    normal = _turn_back(turn, _normals(shape, points))  # type: ignore[arg-type]
    cosine = light @ normal
    strength = np.float32(view["light_strength"])
    shine = np.maximum(2 * cosine * normal[2] - light[2], 0)
    for _ in range(4):
        shine = shine * shine
    ambient = (1.04 - strength) * (0.85 + 0.25 * normal[1])
    picture[:, hit] = albedo * (ambient + strength * np.maximum(cosine, 0)) + np.float32(0.18) * shine
    return picture.reshape(3, *grid[0].shape)


def _own_colour(category: str, member: dict[str, float]) -> np.ndarray:
    """The colour of a member's first part."""
    place = 0.5 * (member["hue"] + 1) * (len(_PALETTE) - 1)
    low = min(int(place), len(_PALETTE) - 2)
    colour = _PALETTE[low] + (_PALETTE[low + 1] - _PALETTE[low]) * (place - low)
    if category in ("tree", "cactus"):
        colour = 0.35 * colour + 0.65 * np.array([0.22, 0.48, 0.18])
    elif category in ("hammer", "ladder"):
        colour = 0.4 * colour + 0.6 * WOOD
    return np.clip(colour * (1 + 0.25 * member["tone"]), 0, 1).astype(np.float32)


def _distance(shape: Shape, p: Point) -> np.ndarray:
    """Distance to the nearest part."""
    parts = shape(p)
    nearest = parts[0]
    for part in parts[1:]:
        nearest = np.minimum(nearest, part)
    return nearest


def _march(shape: Shape, start: Any, towards: np.ndarray, samples: int, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Walk all rays until they touch the shape or leave its neighbourhood.

    Blocks of rays walk together first, as far as no ray of the block can touch anything.
    """
    side = next(width for width in (8, 4, 2) if samples % width == 0)
    middle = np.arange(side // 2, samples, side)
    rows, columns = np.meshgrid(middle, middle, indexing="ij")
    centres = (rows * samples + columns).ravel()
    reach = np.float32(0.75 * side * pixel)  # more than half the diagonal of a block
    block_depth, block_hit = np.zeros(len(centres), dtype=np.float32), np.zeros(len(centres), dtype=bool)
    gone = np.zeros(len(centres), dtype=bool)
    _walk(shape, tuple(axis[centres] for axis in start), towards, block_depth, block_hit, gone, float(reach), 10)
    blocks = len(middle)
    spread = np.repeat(np.repeat(np.arange(blocks**2).reshape(blocks, blocks), side, axis=0), side, axis=1).ravel()
    depth, hit = block_depth[spread], np.zeros(len(spread), dtype=bool)
    gone = gone[spread]
    _walk(shape, start, towards, depth, hit, gone, 0.006, 32)
    return hit, depth


def _walk(
    shape: Shape, start: Any, towards: np.ndarray, depth: np.ndarray, hit: np.ndarray, gone: np.ndarray, near: float,
    steps: int,
) -> None:  # fmt: skip
    """Walk rays, in place, until the shape is nearer than `near` or they are past it."""
    alive = np.flatnonzero(~gone)
    for _ in range(steps):
        if len(alive) == 0:
            return
        walked = depth[alive]
        p = tuple(start[k][alive] - walked * towards[k] for k in range(3))
        d = _distance(shape, p)  # type: ignore[arg-type]
        touched = d < near
        hit[alive[touched]] = True
        # A block stays `near` away from the shape, so that none of its rays can pass through it.
        walked += np.where(touched, 0, d if near < 0.01 else d - 0.9 * near)
        depth[alive] = walked
        past = walked > 3.4
        gone[alive[past]] = True
        alive = alive[~touched & ~past]


def _normals(shape: Shape, p: Point) -> np.ndarray:
    """Gradient of the distance, from its differences along four diagonals."""
    total = np.zeros((3, len(p[0])), dtype=np.float32)
    for signs in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        moved = tuple(axis + np.float32(0.004 * sign) for axis, sign in zip(p, signs, strict=True))
        d = _distance(shape, moved)  # type: ignore[arg-type]
        total += np.array(signs, dtype=np.float32)[:, None] * d
    return total / (np.sqrt((total * total).sum(axis=0)) + np.float32(1e-9))


def _turn_back(turn: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Directions in camera coordinates."""
    x, y, z = directions
    return np.stack([turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z for k in range(3)])


def _shadow(
    shape: Shape, floor: float, start: Any, towards: np.ndarray, to_light: np.ndarray, view: dict[str, float]
) -> np.ndarray:
    """A soft shadow on the floor below the object, darkest where the two touch."""
    down = float(towards[1])
    if down < 0.05:  # seen from the side the floor is a line
        return np.zeros(len(start[0]), dtype=np.float32)
    t = (start[1] - floor) / down
    x, z = start[0] - t * towards[0], start[2] - t * towards[2]
    near = np.flatnonzero((x * x + z * z < 4.0) & (t > 0))
    shade = np.zeros(len(t), dtype=np.float32)
    open_sky = np.ones(len(near), dtype=np.float32)
    for step in (0.06, 0.25, 0.5, 0.8):
        height = np.full(len(near), floor + step * float(to_light[1]), dtype=np.float32)
        p = (x[near] + step * to_light[0], height, z[near] + step * to_light[2])
        open_sky = np.minimum(open_sky, np.clip(_distance(shape, p) / np.float32(0.05 + 0.35 * step), 0, 1))
    shade[near] = np.float32(0.55 * view["light_strength"]) * (1 - open_sky)
    return shade
