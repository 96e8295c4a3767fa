"""Units of a layer in narrow blocks, rows sorted by fold, with the sums over training stimuli that matching needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from actkit.analyses.source import Layer
from actkit.analyses.threads import in_blocks
from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_loops import BARRED, gather, spread
from actkit.compute import spans
from actkit.errors import InputError

__all__ = ["LOST", "Block", "Moments", "read_blocks"]

LOST = 1e-3  # what has a smaller share of its energy as variance is computed in double precision
_ROWS = 16  # stimuli whose mean is taken off every unit first, so that single precision keeps its digits


@dataclass(frozen=True)
class Moments:
    """Sums of units, each (folds, w) in double precision.

    Attributes
    ----------
    sums, squares : numpy.ndarray
        Over each fold.
    others, variance : numpy.ndarray
        Sum and centred sum of squares over the training stimuli, the other folds.
    """

    sums: np.ndarray
    squares: np.ndarray
    others: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Block:
    """Units of one product.

    Attributes
    ----------
    index : numpy.ndarray of int
        ``(w,)`` their numbers.
    values : numpy.ndarray
        ``(n, w)`` activations less a constant of each unit, rows sorted by fold.
    sums, squares : numpy.ndarray of float64
        ``(folds, w)`` sums and sums of squares over each fold.
    others, inverse, barred : numpy.ndarray
        ``(folds, w)`` in the precision of the values: sum over the training stimuli, inverse of the centred norm there,
        and `BARRED` for units that may not win, 0 for the others.
    """

    index: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    others: np.ndarray
    inverse: np.ndarray
    barred: np.ndarray

    @classmethod
    def of(cls, index: np.ndarray, values: np.ndarray, moments: Moments, out: np.ndarray) -> Block:
        """Derive what the search needs.

        Parameters
        ----------
        index, values : numpy.ndarray
            As the attributes.
        moments : Moments
            Of the units.
        out : numpy.ndarray of bool
            ``(w,)`` or ``(folds, w)`` units that may not win.

        Returns
        -------
        Block
            Complete.
        """
        usable = (moments.variance > 0) & ~out
        inverse = usable / np.sqrt(np.where(usable, moments.variance, 1))
        made = [table.astype(values.dtype) for table in (moments.others, inverse, np.where(usable, 0, BARRED))]
        return cls(index, values, moments.sums, moments.squares, *made)


def read_blocks(
    layer: Layer, rows: np.ndarray, folds: Folds, most: int, held: list[np.ndarray], width: int, threads: int
) -> Iterator[list[Block]]:
    """Read the units of a layer in groups of blocks.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : numpy.ndarray of int
        ``(n,)`` row of the layer for each position of the folds.
    folds : Folds
        Stimuli sorted by fold.
    most : int
        Bytes that the source's own blocks may take.
    held : list of numpy.ndarray
        Memory of ``n * width`` values for each block of a group; the next group overwrites it.
    width : int
        Units of a block.
    threads : int
        Threads that prepare blocks.

    Yields
    ------
    list of Block
        Consecutive units. Those that would lose their digits are barred from their block and follow in one of their
        own, in double precision.

    Raises
    ------
    InputError
        If activations are NaN or infinite.
    """
    unit = 0
    for block in layer.blocks(most):
        host = block.detach().cpu() if hasattr(block, "detach") else block
        host = (host.float() if "bfloat16" in str(host.dtype) else host).numpy() if hasattr(host, "detach") else host
        cuts = list(spans(host.shape[1], width))
        for first, last in spans(len(cuts), len(held)):
            made = _prepare(layer.name, host, unit, cuts[first:last], rows, folds, held, threads)
            yield [one for pair in made for one in pair]
        unit += host.shape[1]
        del block, host


def _prepare(
    name: str,
    host: np.ndarray,
    unit: int,
    cuts: list[tuple[int, int]],
    rows: np.ndarray,
    folds: Folds,
    held: list[np.ndarray],
    threads: int,
) -> list[list[Block]]:
    """Make the blocks of one group; `unit` is the number of the first unit of `host`."""
    made: list[list[Block]] = [[] for _ in cuts]

    def prepare(begin: int, end: int) -> None:
        for k in range(begin, end):
            start, stop = cuts[k]
            index = np.arange(unit + start, unit + stop)
            made[k] = _cut(name, host[:, start:stop], index, rows, folds, held[k])

    in_blocks(prepare, len(cuts), 1, threads)
    return made


def _cut(
    name: str, host: np.ndarray, index: np.ndarray, rows: np.ndarray, folds: Folds, memory: np.ndarray
) -> list[Block]:
    """One block, and one in double precision of the units that need it."""
    n, width = len(rows), len(index)
    x = memory[: n * width].reshape(n, width)
    # The compiled loop reads single and double precision of this machine; all else is rare and brought there first.
    given = host if host.dtype in (np.float32, np.float64) else host.astype(x.dtype)
    anchors = rows[np.linspace(0, n - 1, min(n, _ROWS)).astype(np.int64)]
    moments = _gathered(given, rows, given[anchors].mean(axis=0, dtype=x.dtype), x, folds)
    energy = moments.squares.sum(axis=0)
    if not np.isfinite(energy).all():
        raise InputError(
            f"layer {name!r}: unit {int(index[np.flatnonzero(~np.isfinite(energy))[0]])} holds NaN or infinite "
            "activations, which no correlation is defined for; record the layer again in float32, or leave these "
            "stimuli out"
        )
    silent = energy == 0
    doubtful = (moments.variance <= LOST * energy).any(axis=0) & ~silent
    blocks = [Block.of(index, x, moments, silent | doubtful)]
    if doubtful.any():
        blocks.append(_careful(index[doubtful], host[:, doubtful][rows], folds))
    return blocks


def _gathered(source: np.ndarray, rows: np.ndarray, shift: np.ndarray, out: np.ndarray, folds: Folds) -> Moments:
    """Bring rows into the order of the folds, less a shift of each unit, and add them up."""
    edges = np.array([0] + [part.stop for part in folds.parts])
    sums, squares, others, variance = np.empty((4, len(folds.parts), out.shape[1]))
    gather(source, rows, shift, edges, out, sums, squares)
    spread(edges, sums, squares, others, variance)
    return Moments(sums, squares, others, variance)


def _careful(index: np.ndarray, values: np.ndarray, folds: Folds) -> Block:
    """The same units in double precision, with constant ones told exactly."""
    constant = np.stack([np.ptp(values[folds.train(f)], axis=0) == 0 for f in range(len(folds.parts))])
    x = np.ascontiguousarray(values, dtype=np.float64)
    # The median is untouched by one loud stimulus, which would leave the other folds with a common offset.
    moments = _gathered(x, np.arange(len(x)), np.median(x, axis=0), x, folds)
    return Block.of(index, x, moments, constant)
