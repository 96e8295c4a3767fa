"""The solids that `rendered_objects` draws: sixteen categories, each a signed distance function with four proportions.

A solid is put together from boxes, cylinders, cones, tori and capsules. Their formulas are the Euclidean distances to
those bodies, exact or a lower bound, so that a ray may walk as far as the distance says without passing through one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WOOD = np.array([0.55, 0.37, 0.22], dtype=np.float32)
METAL = np.array([0.62, 0.64, 0.67], dtype=np.float32)
DARK = np.array([0.20, 0.21, 0.23], dtype=np.float32)
CLAY = np.array([0.64, 0.31, 0.20], dtype=np.float32)
CANVAS = np.array([0.92, 0.90, 0.84], dtype=np.float32)

Point = tuple[np.ndarray, np.ndarray, np.ndarray]
Shape = Callable[[Point], list[np.ndarray]]
Solid = tuple[Shape, float]
"""Distances to a solid's two parts, and the level of the floor that it stands on."""


# ------------------------------------------------------------------ solids


def _box(p: Point, half: tuple[float, float, float], round_: float = 0.02) -> np.ndarray:
    """Distance to a box with rounded edges."""
    q = [np.abs(axis) - (h - round_) for axis, h in zip(p, half, strict=True)]
    outside = np.sqrt(sum(np.maximum(axis, 0) ** 2 for axis in q))
    return outside + np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0) - round_


def _cylinder(p: Point, radius: float, half: float, round_: float = 0.02) -> np.ndarray:
    """Distance to an upright cylinder."""
    r = np.sqrt(p[0] ** 2 + p[2] ** 2) - (radius - round_)
    h = np.abs(p[1]) - (half - round_)
    return np.minimum(np.maximum(r, h), 0) + np.sqrt(np.maximum(r, 0) ** 2 + np.maximum(h, 0) ** 2) - round_


def _cone(p: Point, low: float, high: float, half: float) -> np.ndarray:
    """A lower bound of the distance to an upright cone frustum of radius `low` below and `high` above."""
    slope = (high - low) / (2 * half)
    r = np.sqrt(p[0] ** 2 + p[2] ** 2)
    side = (r - (low + slope * (p[1] + half))) / np.sqrt(1 + slope * slope)
    return np.maximum(side, np.abs(p[1]) - half)


def _ellipsoid(p: Point, radii: tuple[float, float, float]) -> np.ndarray:
    """About the distance to an ellipsoid (first order)."""
    k = np.sqrt(sum((axis / r) ** 2 for axis, r in zip(p, radii, strict=True)))
    g = np.sqrt(sum((axis / (r * r)) ** 2 for axis, r in zip(p, radii, strict=True)))
    return k * (k - 1) / np.maximum(g, 1e-4)


def _torus(p: Point, ring: float, tube: float) -> np.ndarray:
    """Distance to a torus that stands upright, facing the z axis."""
    return np.sqrt((np.sqrt(p[0] ** 2 + p[1] ** 2) - ring) ** 2 + p[2] ** 2) - tube


def _capsule(p: Point, a: tuple[float, float, float], b: tuple[float, float, float], radius: float) -> np.ndarray:
    """Distance to a rod with round ends from `a` to `b`."""
    along = [end - start for start, end in zip(a, b, strict=True)]
    off = [axis - start for axis, start in zip(p, a, strict=True)]
    length = sum(part * part for part in along)
    t = np.clip(sum(x * part for x, part in zip(off, along, strict=True)) * (1.0 / length), 0, 1)
    return np.sqrt(sum((x - t * part) ** 2 for x, part in zip(off, along, strict=True))) - radius


def _at(p: Point, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Point:
    """The points as seen from a part's own centre."""
    return p[0] - x, p[1] - y, p[2] - z


def _merge(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Union with a fillet of size `k`."""
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * (k * 0.25)


# -------------------------------------------------------------- categories


def _mug(m: dict[str, float]) -> Solid:
    r, h = 0.42 * (1 + 0.22 * m["width"]), 0.52 * (1 + 0.22 * m["height"])
    wall, ring = 0.05 * (1 + 0.3 * m["thickness"]), 0.26 * (1 + 0.25 * m["detail"])
    tube = 0.055 * (1 + 0.3 * m["thickness"])

    def shape(p: Point) -> list[np.ndarray]:
        body = np.maximum(_cylinder(p, r, h), -_cylinder(_at(p, y=2 * wall), r - wall, h + wall))
        handle = _torus(_at(p, x=r + 0.02), ring, tube)
        handle = np.maximum(handle, r - 0.03 - np.sqrt(p[0] ** 2 + p[2] ** 2))  # none of it inside
        return [np.minimum(body, handle)]

    return shape, -h


def _bottle(m: dict[str, float]) -> Solid:
    r, h = 0.27 * (1 + 0.25 * m["width"]), 0.46 * (1 + 0.15 * m["height"])
    neck, long = 0.085 * (1 + 0.3 * m["thickness"]), 0.34 * (1 + 0.3 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        upper = _cylinder(_at(p, y=-0.30 + h + 0.5 * long), neck, long, 0.02)
        body = _merge(_cylinder(_at(p, y=-0.30), r, h, 0.08), upper, 0.30)
        return [body, _cylinder(_at(p, y=-0.30 + h + 1.5 * long), neck + 0.025, 0.06)]

    return shape, -0.30 - h


def _chair(m: dict[str, float]) -> Solid:
    w, seat = 0.40 * (1 + 0.18 * m["width"]), -0.10 + 0.06 * m["height"]
    leg, back = 0.042 * (1 + 0.4 * m["thickness"]), 0.42 * (1 + 0.25 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        flat = _box(_at(p, y=seat), (w, 0.05, w))
        rest = _box(_at(p, y=seat + back, z=-w + 0.05), (w, back, 0.045))
        corner = (np.abs(p[0]) - (w - leg), p[1] - 0.5 * (seat - 0.82), np.abs(p[2]) - (w - leg))
        return [np.minimum(flat, rest), _box(corner, (leg, 0.5 * (seat + 0.82), leg), 0.01)]

    return shape, -0.82


def _table(m: dict[str, float]) -> Solid:
    w, d, top = 0.80 * (1 + 0.12 * m["width"]), 0.50 * (1 + 0.2 * m["detail"]), 0.12 + 0.12 * m["height"]
    leg = 0.05 * (1 + 0.4 * m["thickness"])

    def shape(p: Point) -> list[np.ndarray]:
        flat = _box(_at(p, y=top), (w, 0.05, d))
        corner = (np.abs(p[0]) - (w - 0.08), p[1] - 0.5 * (top - 0.66), np.abs(p[2]) - (d - 0.08))
        return [flat, _box(corner, (leg, 0.5 * (top + 0.66), leg), 0.01)]

    return shape, -0.66


def _lamp(m: dict[str, float]) -> Solid:
    h, wide = 0.10 * m["height"], 0.46 * (1 + 0.2 * m["width"])
    narrow, stem = wide * (0.55 + 0.2 * m["detail"]), 0.035 * (1 + 0.4 * m["thickness"])

    def shape(p: Point) -> list[np.ndarray]:
        shade = _cone(_at(p, y=0.48 + h), wide, narrow, 0.30)
        stand = np.minimum(_cylinder(_at(p, y=-0.25), stem, 0.55 + h), _cylinder(_at(p, y=-0.80), 0.30, 0.05))
        return [shade, stand]

    return shape, -0.85


def _tree(m: dict[str, float]) -> Solid:
    w, h = 0.46 * (1 + 0.18 * m["width"]), 0.46 * (1 + 0.18 * m["height"])
    trunk, spread = 0.085 * (1 + 0.35 * m["thickness"]), 0.22 * (1 + 0.5 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        crown = _ellipsoid(_at(p, y=0.36), (w, h, w))
        for x, y, z in ((-1.0, 0.12, 0.3), (0.9, 0.20, 0.4), (0.1, 0.05, -1.0), (0.2, 0.62, 0.2)):
            blob = _ellipsoid(_at(p, x=spread * x, y=y, z=spread * z), (0.62 * w, 0.62 * h, 0.62 * w))
            crown = _merge(crown, blob, 0.08)
        return [crown, _cone(_at(p, y=-0.52), 1.4 * trunk, trunk, 0.42)]

    return shape, -0.94


def _aeroplane(m: dict[str, float]) -> Solid:
    body, span = 0.145 * (1 + 0.3 * m["thickness"]), 0.86 * (1 + 0.14 * m["width"])
    chord, sweep, long = 0.17 * (1 + 0.25 * m["height"]), 0.28 + 0.22 * m["detail"], 0.88

    def shape(p: Point) -> list[np.ndarray]:
        hull = _ellipsoid(p, (long, body, body))
        back = p[0] + sweep * np.abs(p[2])
        wings = _box((back - 0.10, p[1] + 0.03, p[2]), (chord, 0.030, span), 0.02) * 0.85
        tail = _box((back + 0.62, p[1] - 0.06, p[2]), (0.10, 0.024, 0.34), 0.02) * 0.85
        fin = _box((p[0] + 0.66 + 0.5 * (p[1] - 0.2), p[1] - 0.20, p[2]), (0.11, 0.22, 0.024), 0.02) * 0.85
        return [hull, np.minimum(np.minimum(wings, tail), fin)]

    return shape, -0.62


def _hammer(m: dict[str, float]) -> Solid:
    grip, long = 0.062 * (1 + 0.35 * m["thickness"]), 0.62 * (1 + 0.10 * m["height"])
    head, half = 0.125 * (1 + 0.25 * m["detail"]), 0.40 * (1 + 0.20 * m["width"])

    def shape(p: Point) -> list[np.ndarray]:
        lying = (p[1] - 0.58, p[0], p[2])
        block = _cylinder(_at(lying, y=0.35 * half), head, 0.55 * half)
        peen = _cone(_at(lying, y=-0.62 * half), 0.035, 0.8 * head, 0.48 * half)
        return [_cylinder(_at(p, y=-0.22), grip, long, 0.03), np.minimum(block, peen)]

    return shape, -0.22 - long


def _car(m: dict[str, float]) -> Solid:
    long, cabin = 0.84 * (1 + 0.12 * m["width"]), 0.21 * (1 + 0.35 * m["height"])
    wheel, back = 0.20 * (1 + 0.25 * m["thickness"]), 0.10 + 0.16 * m["detail"]

    def shape(p: Point) -> list[np.ndarray]:
        body = _box(_at(p, y=-0.32), (long, 0.19, 0.38), 0.08)
        upper = _at(p, x=-back, y=-0.13 + cabin)
        # The cabin leans in at both ends; the planes are scaled to be distances.
        lean = (np.abs(upper[0]) + 0.7 * upper[1] - 0.42) * 0.82
        roof = np.maximum(_box(upper, (0.62, cabin, 0.33), 0.05), lean)
        glass = np.maximum(_box(_at(upper, y=-0.02), (0.64, 0.62 * cabin, 0.345), 0.02), lean - 0.015)
        pane = np.maximum(glass, 0.035 - np.abs(upper[0]))  # parted by a pillar
        round_ = (np.abs(p[0]) - 0.60 * long, np.abs(p[2]) - 0.34, p[1] + 0.48)
        return [np.minimum(body, roof), np.minimum(pane, _cylinder(round_, wheel, 0.07))]

    return shape, -0.48 - wheel


def _house(m: dict[str, float]) -> Solid:
    w, h, d = 0.56 * (1 + 0.18 * m["width"]), 0.40 * (1 + 0.22 * m["height"]), 0.46
    rise, chimney = 0.95 * (1 + 0.30 * m["detail"]), 0.085 * (1 + 0.45 * m["thickness"])
    steep = 1.0 / float(np.sqrt(1 + rise * rise))
    top = -0.80 + 2 * h

    def shape(p: Point) -> list[np.ndarray]:
        slope = (p[1] - top - rise * (w + 0.08 - np.abs(p[0]))) * steep
        walls = np.maximum(_box(_at(p, y=-0.30 + h), (w, h + 0.50, d), 0.01), slope + 0.05)
        tiles = np.maximum(np.maximum(slope, -slope - 0.09), np.maximum(np.abs(p[2]) - d - 0.07, top - 0.06 - p[1]))
        pipe = _box(_at(p, x=0.5 * w, y=top + 0.55 * rise * w + 0.16, z=-0.1), (chimney, 0.30, chimney), 0.01)
        door = _box(_at(p, x=-0.25 * w, y=-0.80 + 0.55 * h, z=d), (0.13, 0.55 * h, 0.02), 0.01)
        window = _box(_at(p, x=0.42 * w, y=-0.80 + 1.1 * h, z=d), (0.13, 0.13, 0.02), 0.01)
        return [walls, np.minimum(np.minimum(tiles, pipe), np.minimum(door, window))]

    return shape, -0.80


def _boat(m: dict[str, float]) -> Solid:
    long, deep = 0.82 * (1 + 0.12 * m["width"]), 0.36 * (1 + 0.25 * m["thickness"])
    mast, boom = 1.20 * (1 + 0.16 * m["height"]), 0.62 * (1 + 0.22 * m["detail"])

    def sail(p: Point, foot: float, head: float) -> np.ndarray:
        tilt = (p[0] * head + (p[1] + 0.36) * foot - foot * head) / float(np.hypot(foot, head))
        sheet = np.maximum(np.abs(p[2]) - 0.02, np.maximum(-p[0] + 0.03, -p[1] - 0.36))
        return np.maximum(sheet, tilt)

    def shape(p: Point) -> list[np.ndarray]:
        hull = np.maximum(_ellipsoid(_at(p, y=-0.45), (long, deep, 0.30)), p[1] + 0.45) * 0.9
        hollow = _ellipsoid(_at(p, y=-0.42), (0.85 * long, 0.6 * deep, 0.22)) * 0.9
        pole = _capsule(p, (0.0, -0.5, 0.0), (0.0, mast - 0.34, 0.0), 0.03)
        angle = np.float32(0.28)  # the sails stand at an angle to the keel, and are seen from everywhere
        x, z = p[0] + angle * p[2], p[2] - angle * p[0]
        scale = np.float32(1.0 / np.sqrt(1 + angle * angle))
        main = sail((-x * scale, p[1], z * scale), boom, mast)
        jib = sail((x * scale, p[1], z * scale), 0.72 * boom, 0.78 * mast)
        return [np.maximum(hull, -hollow), np.minimum(pole, np.minimum(main, jib))]

    return shape, -0.45 - 0.8 * deep


def _umbrella(m: dict[str, float]) -> Solid:
    wide, arch = 0.80 * (1 + 0.15 * m["width"]), 0.52 * (1 + 0.30 * m["detail"])
    stick, low = 0.035 * (1 + 0.4 * m["thickness"]), -0.55 - 0.14 * m["height"]

    def shape(p: Point) -> list[np.ndarray]:
        up = _at(p, y=0.18)
        dome = np.maximum(_ellipsoid(up, (wide, arch, wide)), -_ellipsoid(up, (wide - 0.06, arch - 0.06, wide - 0.06)))
        rim = 0.05 * np.cos(8 * np.arctan2(p[2], p[0]))  # eight panels
        dome = np.maximum(dome * 0.8, (rim * np.minimum(p[0] ** 2 + p[2] ** 2, 1) - up[1]) * 0.85)
        pole = _capsule(p, (0.0, low, 0.0), (0.0, 0.26 + arch, 0.0), stick)
        hook = np.maximum(_torus(_at(p, x=0.13, y=low), 0.13, 1.4 * stick), p[1] - low)
        return [dome, np.minimum(pole, hook)]

    return shape, low - 0.13 - 1.4 * stick


def _teapot(m: dict[str, float]) -> Solid:
    r, h = 0.46 * (1 + 0.15 * m["width"]), 0.38 * (1 + 0.20 * m["height"])
    tube, reach = 0.065 * (1 + 0.35 * m["thickness"]), 0.38 * (1 + 0.30 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        body = _ellipsoid(_at(p, y=-0.15), (r, h, r)) * 0.9
        spout = _capsule(p, (0.8 * r, -0.28, 0.0), (r + 0.5 * reach, -0.08, 0.0), 1.35 * tube)
        tip = _capsule(p, (r + 0.5 * reach, -0.08, 0.0), (r + reach, 0.26, 0.0), 0.95 * tube)
        handle = _torus(_at(p, x=-r - 0.06, y=-0.12), 0.25, 0.8 * tube)
        handle = np.maximum(handle, 0.85 * r - np.sqrt(p[0] ** 2 + p[2] ** 2))
        pot = np.minimum(_merge(body, np.minimum(spout, tip), 0.08), handle)
        lid = _cylinder(_at(p, y=-0.15 + 0.93 * h), 0.48 * r, 0.045)
        knob = np.sqrt(p[0] ** 2 + (p[1] + 0.05 - h) ** 2 + p[2] ** 2) - 0.095
        return [pot, np.minimum(lid, knob)]

    return shape, -0.15 - h


def _cactus(m: dict[str, float]) -> Solid:
    stem, high = 0.165 * (1 + 0.25 * m["thickness"]), 0.66 + 0.14 * m["height"]
    out, arm = 0.46 * (1 + 0.16 * m["width"]), 0.36 * (1 + 0.40 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        trunk = _capsule(p, (0.0, -0.6, 0.0), (0.0, high, 0.0), stem)
        thin = 0.66 * stem
        right = _capsule(p, (0.0, -0.12, 0.0), (out, -0.12, 0.0), thin)
        right = np.minimum(right, _capsule(p, (out, -0.12, 0.0), (out, -0.12 + arm, 0.0), thin))
        left = _capsule(p, (0.0, 0.12, 0.0), (-out, 0.12, 0.12), thin)
        left = np.minimum(left, _capsule(p, (-out, 0.12, 0.12), (-out, 0.12 + 0.8 * arm, 0.12), thin))
        return [np.minimum(trunk, np.minimum(right, left)), _cone(_at(p, y=-0.68), 0.24, 0.34, 0.20)]

    return shape, -0.88


def _ladder(m: dict[str, float]) -> Solid:
    w, top = 0.34 * (1 + 0.25 * m["width"]), 0.86 * (1 + 0.12 * m["height"])
    rail, lean = 0.055 * (1 + 0.40 * m["thickness"]), 0.26 * (1 + 0.35 * m["detail"])
    upright = 1.0 / float(np.sqrt(1 + lean * lean))

    def shape(p: Point) -> list[np.ndarray]:
        off = (np.abs(p[2]) - lean * (top - p[1])) * upright  # from the plane of either half
        width = w * (1 + 0.28 * (top - p[1]))  # wider below
        rails = _box((np.abs(p[0]) - width, p[1] - 0.5 * (top - 0.86), off), (rail, 0.5 * (top + 0.86), rail), 0.01)
        step = p[1] - 0.34 * np.clip(np.round((p[1] + 0.10) / 0.34), -1, 1) + 0.10
        rungs = np.maximum(_box((p[0] * 0, step, off), (1.0, 0.040, 0.8 * rail), 0.01), np.abs(p[0]) - width)
        board = _box(_at(p, y=top), (w + rail, 0.05, 0.13), 0.01)
        return [np.minimum(rails, board) * 0.9, rungs * 0.9]

    return shape, -0.86


def _dumbbell(m: dict[str, float]) -> Solid:
    plate, half = 0.42 * (1 + 0.25 * m["height"]), 0.62 * (1 + 0.18 * m["width"])
    bar, thick = 0.065 * (1 + 0.35 * m["thickness"]), 0.095 * (1 + 0.35 * m["detail"])

    def shape(p: Point) -> list[np.ndarray]:
        along = (p[1] + 0.2, np.abs(p[0]) - half, p[2])
        inner = _cylinder(along, plate, thick, 0.04)
        outer = _cylinder(_at(along, y=2.1 * thick), 0.72 * plate, thick, 0.04)
        return [np.minimum(inner, outer), _capsule(p, (-half - 0.34, -0.2, 0.0), (half + 0.34, -0.2, 0.0), bar)]

    return shape, -0.2 - plate


SOLIDS: dict[str, tuple[Callable[[dict[str, float]], Solid], np.ndarray | None]] = {
    # The colour of the second part; the first has the member's own. The number of a category is part of its members'
    # random streams: a new one goes to the end.
    "mug": (_mug, None),
    "bottle": (_bottle, DARK),
    "chair": (_chair, WOOD),
    "table": (_table, DARK),
    "lamp": (_lamp, METAL),
    "tree": (_tree, WOOD),
    "aeroplane": (_aeroplane, METAL),
    "hammer": (_hammer, METAL),
    "car": (_car, DARK),
    "house": (_house, CLAY),
    "boat": (_boat, CANVAS),
    "umbrella": (_umbrella, WOOD),
    "teapot": (_teapot, None),
    "cactus": (_cactus, CLAY),
    "ladder": (_ladder, METAL),
    "dumbbell": (_dumbbell, METAL),
}
"""How to make a member of each category from its proportions, and the colour of its second part."""

CATEGORIES = tuple(SOLIDS)
"""The categories, in their order."""
