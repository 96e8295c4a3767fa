"""Units of a network, singled out by a question: what an analysis returns and the lesion bridge takes.

A unit is named by its layer, its channel and, where one position of a map is meant, that position. An analysis that
finds units (by selectivity, by matching, by ranking) returns a `UnitSet`; `actkit.lesioned` takes one. That is how a
correlation becomes a causal test.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actkit.errors import InputError, LayerError, nearest
from actkit.resampling import Stream, generator
from actkit.results import fingerprint

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Unit", "UnitSet", "channel_count", "round_half_up"]

_COLUMNS = ("channel", "y", "x")


class Unit(NamedTuple):
    """One unit.

    Attributes
    ----------
    layer : str
        Name of the layer.
    channel : int
        Its channel; -1: the whole layer.
    y, x : int
        Its position in the map (in a sequence of tokens only ``y``); -1: every position of the channel.
    """

    layer: str
    channel: int
    y: int = -1
    x: int = -1

    def __str__(self) -> str:
        words = [f"channel {self.channel}" if self.channel >= 0 else "the whole layer"]
        words += [f"{name} {value}" for name, value in (("y", self.y), ("x", self.x)) if value >= 0]
        return f"{', '.join(words)} of {self.layer!r}"


def channel_count(shape: Sequence[int]) -> int:
    """Number of channels of a layer.

    Parameters
    ----------
    shape : sequence of int
        Output for one stimulus, as recordings have it: (channel,), (position, channel) for a sequence of tokens,
        (channel, y, x), or (channel, …) for more axes.

    Returns
    -------
    int
        The size of the channel axis.
    """
    return int(shape[1] if len(shape) == 2 else shape[0])


def round_half_up(value: float) -> int:
    """Round to the nearest whole number, halves up (Python's own ``round`` takes halves to the even one).

    Parameters
    ----------
    value : float
        Not negative.

    Returns
    -------
    int
        ``floor(value + 1/2)``, with products such as 0.35 × 10 taken as what they mean.
    """
    return math.floor(round(value, 9) + 0.5)


@dataclass(frozen=True, eq=False)
class UnitSet:
    """Units of one or several layers, with a score each and the question that chose them.

    Two sets are equal where they hold the same units, whatever their order and scores. A channel and a position
    within it are different units. Iterating gives each `Unit` in order; ``("conv1", 3) in units`` asks for one.

    Parameters
    ----------
    layer : numpy.ndarray of str
        ``(k,)`` layer of each unit.
    channel : numpy.ndarray of int
        ``(k,)``; -1: the whole layer.
    y, x : numpy.ndarray of int
        ``(k,)``; -1: every position of the channel. For a sequence of tokens ``y`` is the token.
    score : numpy.ndarray of float
        ``(k,)``; NaN where there is none.
    question : str
        What chose the units, in one sentence.
    shapes : mapping of str to tuple of int
        Output of a layer for one stimulus, as recordings have it: (channel,), (channel, y, x), or (position,
        channel) for a sequence of tokens. Layers whose shape is not known are left out.

    Raises
    ------
    InputError
        If the columns disagree in length, a unit stands twice, or an index is outside a known shape.

    Examples
    --------
    >>> faces = UnitSet.of("conv5", [3, 7, 1], scores=[0.9, 0.4, 0.6], shape=(8, 4, 4))
    >>> faces.top(k=2).channel.tolist()
    [3, 1]
    >>> (faces - UnitSet.of("conv5", [7])).mask("conv5").tolist()
    [False, True, False, True, False, False, False, False]
    """

    layer: np.ndarray
    channel: np.ndarray
    y: np.ndarray
    x: np.ndarray
    score: np.ndarray
    question: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = np.asarray(self.layer)
        columns: dict[str, np.ndarray] = {"layer": layers.astype(str) if layers.size else np.empty(0, dtype="<U1")}
        columns |= {name: _whole(getattr(self, name), name) for name in _COLUMNS}
        columns["score"] = np.array(self.score, dtype=np.float64)
        for name, values in columns.items():
            if values.ndim != 1 or len(values) != layers.size:
                raise InputError(
                    f"{name} has shape {values.shape} for {layers.size} units; give one value per unit, in one axis"
                )
            values = values.copy()
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        shapes = {str(name): tuple(int(size) for size in shape) for name, shape in self.shapes.items()}
        object.__setattr__(self, "shapes", shapes)
        lone = ((self.channel < 0) & (self.y >= 0)) | ((self.y < 0) & (self.x >= 0))
        if lone.any():
            raise InputError(
                f"unit number {int(np.flatnonzero(lone)[0])} has a position without what it is a position of; "
                "give channel and y where x (or y) is given"
            )
        seen: set[Unit] = set()
        for unit in self:
            if unit in seen:
                raise InputError(f"{unit} stands twice in the set; name every unit once")
            seen.add(unit)
        self._check({name: shapes[name] for name in self.layers if name in shapes})

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        layer: str,
        channels: Iterable[int] | int,
        scores: Iterable[float] | None = None,
        question: str = "",
        shape: Sequence[int] | None = None,
        y: Iterable[int] | int | None = None,
        x: Iterable[int] | int | None = None,
    ) -> UnitSet:
        """Name units of one layer.

        Parameters
        ----------
        layer : str
            Name of the layer, as `Network.layers` has it.
        channels : int or iterable of int
            Their channels; a boolean mask over the channels will do.
        scores : iterable of float, optional
            One score per unit.
        question : str
            What chose them.
        shape : sequence of int, optional
            The layer's output for one stimulus; needed by `mask`, `random_like` and fractions.
        y, x : int or iterable of int, optional
            Positions, one per unit or one for all.

        Returns
        -------
        UnitSet
            In the order given.

        Raises
        ------
        InputError
            See `UnitSet`.
        """
        given = np.atleast_1d(np.asarray(channels if np.ndim(channels) or _scalar(channels) else list(channels)))  # type: ignore[arg-type]
        if given.dtype == bool:
            if shape is not None and len(given) != channel_count(shape):
                raise InputError(
                    f"the mask has {len(given)} values for the {channel_count(shape)} channels of {layer!r}; "
                    "give one per channel"
                )
            given = np.flatnonzero(given)
        k = len(given)
        values = np.full(k, np.nan) if scores is None else np.asarray(_listed(scores), dtype=np.float64)
        places = [np.full(k, -1) if at is None else np.asarray(_listed(at)) for at in (y, x)]
        places = [np.full(k, at) if at.ndim == 0 else at for at in places]
        return cls(
            layer=np.full(k, str(layer)),
            channel=given if k else np.empty(0, dtype=np.int64),
            y=places[0],
            x=places[1],
            score=values,
            question=question,
            shapes={} if shape is None else {str(layer): tuple(shape)},
        )

    @classmethod
    def whole(cls, layer: str, question: str = "", shape: Sequence[int] | None = None) -> UnitSet:
        """Name a whole layer as one unit.

        Parameters
        ----------
        layer : str
            Name of the layer.
        question : str
            What chose it.
        shape : sequence of int, optional
            The layer's output for one stimulus.

        Returns
        -------
        UnitSet
            Of length 1.
        """
        return cls.of(layer, [-1], question=question, shape=shape)

    # -- as a set ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.layer)

    def __iter__(self) -> Iterator[Unit]:
        rows = zip(self.layer.tolist(), *(getattr(self, name).tolist() for name in _COLUMNS), strict=True)
        return (Unit(*row) for row in rows)

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, tuple) and 2 <= len(unit) <= 4 and Unit(*unit) in self._units

    def __eq__(self, other: object) -> bool:
        return self._units == other._units if isinstance(other, UnitSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._units)

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(self.in_layer(name))} of {name!r}" for name in self.layers) or "no units"
        return f"<UnitSet: {parts}{f'; {self.question}' if self.question else ''}>"

    def __or__(self, other: UnitSet) -> UnitSet:
        """Units of either set; the scores of the left one where both have a unit."""
        return self._joined(other, np.ones(len(self), bool), ~other._within(self), "or")

    def __and__(self, other: UnitSet) -> UnitSet:
        """Units of both sets, with the scores of the left one."""
        return self._joined(other, self._within(other), np.zeros(len(other), bool), "and")

    def __sub__(self, other: UnitSet) -> UnitSet:
        """Units of the left set that the right one lacks."""
        return self._joined(other, ~self._within(other), np.zeros(len(other), bool), "and not")

    def __xor__(self, other: UnitSet) -> UnitSet:
        """Units of exactly one of the sets."""
        return self._joined(other, ~self._within(other), ~other._within(self), "or else")

    @cached_property
    def _units(self) -> frozenset[Unit]:
        return frozenset(self)

    def _within(self, other: UnitSet) -> np.ndarray:
        """Which of the units the other set holds too."""
        return np.array([unit in other._units for unit in self], dtype=bool)

    def _joined(self, other: UnitSet, mine: np.ndarray, theirs: np.ndarray, word: str) -> UnitSet:
        """The units marked in both sets, left ones first."""
        for name in set(self.shapes) & set(other.shapes):
            if self.shapes[name] != other.shapes[name]:
                raise InputError(
                    f"layer {name!r} has shape {self.shapes[name]} in one set and {other.shapes[name]} in the other; "
                    "the sets are of different networks"
                )
        questions = [f"({text})" for text in (self.question, other.question) if text]
        columns = {
            name: np.concatenate([getattr(self, name)[mine], getattr(other, name)[theirs]])
            for name in ("layer", *_COLUMNS, "score")
        }
        shapes = {**other.shapes, **self.shapes}
        return UnitSet(**columns, question=f" {word} ".join(questions), shapes=shapes)

    def _take(self, rows: np.ndarray, question: str | None = None) -> UnitSet:
        """Some of the units, in the order asked for."""
        columns = {name: getattr(self, name)[rows] for name in ("layer", *_COLUMNS, "score")}
        return replace(self, **columns, question=self.question if question is None else question)

    # -- choosing ----------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that have units here, in order of appearance."""
        return tuple(dict.fromkeys(self.layer.tolist()))

    def in_layer(self, name: str) -> UnitSet:
        """Units of one layer.

        Parameters
        ----------
        name : str
            Name of the layer.

        Returns
        -------
        UnitSet
            In the same order; empty where the layer has none.
        """
        return self._take(np.flatnonzero(self.layer == name))

    def top(self, k: int | None = None, *, fraction: float | None = None) -> UnitSet:
        """Units with the highest scores.

        Parameters
        ----------
        k : int, optional
            How many, over all layers together.
        fraction : float, optional
            Share of each layer's channels (of its units, where the set names positions), rounded half up, taken
            layer by layer.

        Returns
        -------
        UnitSet
            By descending score; ties by order of the layers, then channel, y, x.

        Raises
        ------
        InputError
            If neither or both are given, a score is NaN, a layer's shape is not known, or the set has fewer units
            than asked for.
        """
        if (k is None) == (fraction is None):
            raise InputError(f"top(k={k}, fraction={fraction}): give either k or fraction")
        missing = np.flatnonzero(np.isnan(self.score))
        if missing.size:
            raise InputError(
                f"{self._unit(int(missing[0]))} has no score (NaN), so {missing.size} of {len(self)} units have no "
                "place in the order; leave them out, or choose them by hand"
            )
        layers = {name: place for place, name in enumerate(self.layers)}
        places = np.array([layers[name] for name in self.layer.tolist()], dtype=np.int64)
        order = np.lexsort((self.x, self.y, self.channel, places, -self.score))
        if k is not None:
            if not 0 <= k <= len(self):
                raise InputError(f"the top {k} of {len(self)} units cannot be taken; k lies between 0 and {len(self)}")
            return self._take(order[:k], self._chosen(f"top {k}"))
        assert fraction is not None  # one of the two was given
        if not 0 <= fraction <= 1:
            raise InputError(f"fraction={fraction} is not a share; give a number from 0 to 1")
        kept = []
        for name in self.layers:
            rows = order[self.layer[order] == name]
            wanted = round_half_up(fraction * self._size(name))
            if wanted > len(rows):
                raise InputError(
                    f"{fraction:g} of layer {name!r} are {wanted} units, and only {len(rows)} are in the set; "
                    "ask for less, or rank more units"
                )
            kept.append(rows[:wanted])
        rows = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
        return self._take(rows, self._chosen(f"top {fraction:g} of each layer"))

    def random_like(
        self, seed: int, number: int = 0, exclude: UnitSet | None = None, among: UnitSet | None = None
    ) -> UnitSet:
        """Draw a random control: as many units of each layer, of the same kind (channels or positions).

        Parameters
        ----------
        seed : int
            Seed of the analysis.
        number : int
            Number of the draw; each has a random stream of its own.
        exclude : UnitSet, optional
            Units not to be drawn (give the set itself for controls without its own units).
        among : UnitSet, optional
            Units to draw from; by default all of the layer, whose shape must then be known.

        Returns
        -------
        UnitSet
            Without scores, in order of index within each layer.

        Raises
        ------
        InputError
            If a layer offers too few units, its shape is not known, or it is in the set as a whole.
        """
        rng = generator(seed, number, Stream.PERMUTATIONS)
        drawn = []
        for name in self.layers:
            mine = self.in_layer(name)
            for positions in (False, True):
                k = int(np.count_nonzero((mine.y >= 0) == positions))
                if not k:
                    continue
                pool = self._pool(name, positions, among)
                if exclude is not None:
                    hidden = exclude._units
                    pool = [unit for unit in pool if unit not in hidden]
                if len(pool) < k:
                    raise InputError(
                        f"layer {name!r} offers {len(pool)} units for a random control of {k}; exclude fewer, or "
                        "draw among more"
                    )
                drawn += [pool[row] for row in np.sort(rng.choice(len(pool), size=k, replace=False))]
        words = f"random units matched in number and layer, seed {seed}, draw {number}"
        return _from_units(drawn, f"{words}, for ({self.question})" if self.question else words, self.shapes)

    def _pool(self, name: str, positions: bool, among: UnitSet | None) -> list[Unit]:
        """What a random control of a layer is drawn from, in order of index."""
        if (self.channel[self.layer == name] < 0).any():
            raise InputError(f"layer {name!r} is in the set as a whole, which has no random control; name channels")
        if among is not None:
            return sorted(unit for unit in among.in_layer(name) if (unit.y >= 0) == positions and unit.channel >= 0)
        shape = self._shape(name)
        channels = range(channel_count(shape))
        if not positions:
            return [Unit(name, channel) for channel in channels]
        if len(shape) == 2:
            return [Unit(name, channel, y) for channel in channels for y in range(shape[0])]
        return [Unit(name, c, y, x) for c in channels for y in range(shape[1]) for x in range(shape[2])]

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Check every unit against the layers of a network.

        Parameters
        ----------
        shapes : mapping of str to sequence of int
            Output of each layer for one stimulus, as in `UnitSet.shapes`.

        Raises
        ------
        LayerError
            If a layer is not among them.
        InputError
            If an index is outside its layer.
        """
        for name in self.layers:
            if name not in shapes:
                raise LayerError(f"no layer {name!r}, of which the set holds units; {nearest(name, shapes)}")
        self._check({name: tuple(shapes[name]) for name in self.layers})

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if not shape:
                raise InputError(f"the shape of layer {name!r} is empty; give at least its number of channels")
            rows = np.flatnonzero(self.layer == name)
            at = (self.channel[rows], self.y[rows], self.x[rows])
            sizes = _sizes(shape)
            bad = np.zeros(len(rows), dtype=bool)
            for index, size in zip(at, sizes, strict=True):
                bad |= index >= size
            if len(shape) == 3:
                bad |= (at[1] >= 0) & (at[2] < 0)
            if bad.any():
                unit = self._unit(int(rows[np.flatnonzero(bad)[0]]))
                raise InputError(
                    f"{unit} does not exist: the layer's output has shape {shape} for one stimulus, {sizes[0]} channels"
                    f"{' on a map of ' + ' x '.join(map(str, sizes[1:])) if len(shape) == 3 else ''}; "
                    "indices start at 0" + (", and a position needs both y and x" if len(shape) == 3 else "")
                )

    def mask(self, layer: str) -> np.ndarray:
        """Mark the units of a layer.

        Parameters
        ----------
        layer : str
            Name of the layer, whose shape must be known.

        Returns
        -------
        numpy.ndarray of bool
            ``(channel,)``; where the set names positions in this layer, the layer's whole shape.

        Raises
        ------
        InputError
            If the layer's shape is not known.
        """
        shape = self._shape(layer)
        mine = self.in_layer(layer)
        first = np.moveaxis(np.zeros(shape, dtype=bool), 1, 0) if len(shape) == 2 else np.zeros(shape, dtype=bool)
        if not (mine.y >= 0).any():
            marked = np.zeros(channel_count(shape), dtype=bool)
            for unit in mine:
                marked[unit.channel if unit.channel >= 0 else slice(None)] = True
            return marked
        for unit in mine:
            place = tuple(slice(None) if i < 0 else i for i in (unit.channel, unit.y, unit.x))
            first[place[: min(first.ndim, 3)]] = True
        return np.moveaxis(first, 0, 1) if len(shape) == 2 else first

    # -- keeping -----------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """sha256 over the units, whatever their order, scores and question."""
        return fingerprint([tuple(unit) for unit in sorted(self)])

    def to_dataset(self) -> xr.Dataset:
        """Lay the set out as a result, to be saved with `actkit.save`.

        Returns
        -------
        xarray.Dataset
            ``layer``, ``channel``, ``y``, ``x`` and ``score`` over ``unit``; question and shapes in ``attrs``.
        """
        import xarray as xr

        from actkit import __version__

        data = {name: ("unit", np.array(getattr(self, name))) for name in ("layer", *_COLUMNS, "score")}
        attrs = {
            "analysis": "units",
            "question": self.question,
            "shapes": json.dumps({name: list(shape) for name, shape in self.shapes.items()}),
            "fingerprint": self.fingerprint,
            "actkit_version": __version__,
        }
        return xr.Dataset(data, attrs=attrs)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> UnitSet:
        """Read a set that `to_dataset` wrote.

        Parameters
        ----------
        dataset : xarray.Dataset
            The result.

        Returns
        -------
        UnitSet
            The set.

        Raises
        ------
        InputError
            If it is another kind of result.
        """
        if dataset.attrs.get("analysis") != "units":
            raise InputError(
                f"this is a result of {dataset.attrs.get('analysis')!r}, not a set of units; take its units"
            )
        columns = {name: np.asarray(dataset[name].values) for name in ("layer", *_COLUMNS, "score")}
        shapes = json.loads(dataset.attrs.get("shapes", "{}"))
        return cls(**columns, question=str(dataset.attrs.get("question", "")), shapes=shapes)

    def to_dict(self) -> dict[str, Any]:
        """Write the set as plain values, for study files.

        Returns
        -------
        dict
            ``question``, ``shapes`` and ``units``: one entry per run of units of one layer, with lists of their
            channels and, where there are any, positions and scores.
        """
        runs: list[dict[str, Any]] = []
        edges = np.flatnonzero(self.layer[1:] != self.layer[:-1]) + 1
        for rows in np.split(np.arange(len(self)), edges) if len(self) else []:
            run: dict[str, Any] = {"layer": str(self.layer[rows[0]]), "channel": self.channel[rows].tolist()}
            run |= {name: getattr(self, name)[rows].tolist() for name in "yx" if (getattr(self, name)[rows] >= 0).any()}
            if not np.isnan(self.score[rows]).all():
                run["score"] = [None if math.isnan(value) else value for value in self.score[rows].tolist()]
            runs.append(run)
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return {"question": self.question, "shapes": shapes, "units": runs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UnitSet:
        """Read a set that `to_dict` wrote, or that was typed in its form.

        Parameters
        ----------
        values : mapping
            ``units``, and ``question`` and ``shapes`` where they are known.

        Returns
        -------
        UnitSet
            The set.

        Raises
        ------
        InputError
            If a name is not known or a run names no layer or channel.
        """
        _known(values, ("question", "shapes", "units"), "a set of units")
        parts: dict[str, list[Any]] = {name: [] for name in ("layer", *_COLUMNS, "score")}
        for run in values.get("units", []):
            _known(run, ("layer", "channel", "y", "x", "score"), "a run of units")
            if "layer" not in run or "channel" not in run:
                raise InputError(f"the run of units {dict(run)} needs both 'layer' and 'channel'")
            for key in ("channel", "y", "x", "score"):
                if key in run and not isinstance(run[key], list | tuple):
                    raise InputError(f"{key!r} of {run['layer']!r} is {run[key]!r}; write {key}: [0, 3] for several")
            k = len(run["channel"])
            parts["layer"] += [str(run["layer"])] * k
            parts["channel"] += run["channel"]
            for name, nothing in (("y", -1), ("x", -1), ("score", None)):
                parts[name] += run.get(name, [nothing] * k)
        columns = {name: np.array(column) for name, column in parts.items() if name != "score"}
        score = np.array([np.nan if value is None else value for value in parts["score"]], dtype=np.float64)
        return cls(**columns, score=score, question=values.get("question", ""), shapes=values.get("shapes") or {})

    # -- inside ------------------------------------------------------------------------------------------------

    def _unit(self, row: int) -> Unit:
        return Unit(str(self.layer[row]), int(self.channel[row]), int(self.y[row]), int(self.x[row]))

    def _chosen(self, words: str) -> str:
        return f"{words}: {self.question}" if self.question else words

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise InputError(
                f"the shape of layer {name!r} is not known, so its units cannot be counted; give shape= when the set "
                "is made"
            )
        return self.shapes[name]

    def _size(self, name: str) -> int:
        """What a fraction of a layer is a fraction of."""
        positions = self.y[self.layer == name] >= 0
        shape = self._shape(name)
        if positions.any() and not positions.all():
            raise InputError(f"the set holds channels and single positions of {name!r}; take fractions of one kind")
        return math.prod(shape) if positions.all() else channel_count(shape)


def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, rows and columns; 0 rows or columns where the layer has no such positions."""
    if len(shape) == 2:
        return shape[1], shape[0], 0
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 0, 0)


def _from_units(units: Sequence[Unit], question: str, shapes: Mapping[str, tuple[int, ...]]) -> UnitSet:
    columns = {name: np.array([getattr(u, name) for u in units], dtype=np.int64) for name in _COLUMNS}
    layer = np.array([unit.layer for unit in units], dtype=str)
    return UnitSet(layer=layer, **columns, score=np.full(len(units), np.nan), question=question, shapes=shapes)


def _scalar(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _listed(values: Any) -> Any:
    """Arrays, lists and numbers as they are; other iterables as lists."""
    return values if np.ndim(values) or isinstance(values, int | float | np.number) else list(values)


def _whole(values: Any, name: str) -> np.ndarray:
    """Indices as int64; anything that is not a whole number from -1 on is refused."""
    array = np.asarray(values)
    if not array.size:
        return np.empty(array.shape, dtype=np.int64)
    if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and (array == np.floor(array)).all()):
        raise InputError(f"{name} holds {array.dtype} values such as {array.flat[0]!r}; indices are whole numbers")
    if (array < -1).any():
        raise InputError(f"{name} holds {int(array.min())}; indices start at 0, and -1 stands for all")
    return array.astype(np.int64)


def _known(values: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    for name in values:
        if name not in names:
            raise InputError(f"{what} has no entry {name!r}; {nearest(str(name), names)}")
