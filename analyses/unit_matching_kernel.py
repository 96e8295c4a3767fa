"""The pass over the units that unit matching needs: for every fold, each neuron's best unit on the other folds.

Rows are sorted by fold, so that one product of every fold's rows, ``P_f = Y_f' X_f``, serves all folds: the training
part of fold f is ``sum_g P_g - P_f``. The pass costs one product of all rows, whatever the number of folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from actkit.analyses.source import Layer
from actkit.analyses.threads import in_blocks, single_blas, worker_count
from actkit.analyses.unit_matching_blocks import LOST, Block, read_blocks
from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_loops import BARRED, search

__all__ = ["TIE", "Best", "Targets", "correlate_columns", "match_layer", "read_units"]

TIE = 2e-6  # correlations this close are tied: single precision does not tell them apart
_LEAST = 0.75 * BARRED  # between units that may not win and a correlation of -1, however it was rounded
_WIDTH = 2048  # units of a block at most: long runs of memory are read faster than short ones
_PRODUCT = 2**23  # bytes of the products of one block at most, so that they stay in the processor's cache
_GROUP = 8  # blocks for which permuted neurons are drawn up once


@dataclass(frozen=True)
class Targets:
    """Neurons to be matched, with what each fold needs of them; in permuted orders, every order counts them again.

    Attributes
    ----------
    values : numpy.ndarray of float64
        ``(recorded, n)``, rows sorted by fold, each neuron centred and of norm 1.
    orders : numpy.ndarray of int or None
        ``(k, n)`` positions whose responses are taken instead: ``neurons = k * recorded``, order by order. None: as
        they are.
    mean, norm : numpy.ndarray of float64
        ``(folds, neurons)`` mean and centred norm over the training stimuli.
    mean_out, norm_out : numpy.ndarray of float64
        The same over the held-out stimuli. A norm of 0 marks a neuron that is constant there.
    """

    values: np.ndarray
    orders: np.ndarray | None
    mean: np.ndarray
    norm: np.ndarray
    mean_out: np.ndarray
    norm_out: np.ndarray

    @classmethod
    def of(cls, responses: np.ndarray, folds: Folds) -> Targets:
        """Prepare responses.

        Parameters
        ----------
        responses : numpy.ndarray
            ``(n, neurons)`` in the order of the stimuli.
        folds : Folds
            Stimuli sorted by fold.

        Returns
        -------
        Targets
            One column a neuron.
        """
        y = np.asarray(responses, dtype=np.float64)[folds.order].T
        y = y - y.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(y, axis=1, keepdims=True)
        y = np.ascontiguousarray(np.divide(y, norm, out=np.zeros_like(y), where=norm > 0))
        return cls(y, None, *_tables(y, folds))

    def permuted(self, orders: np.ndarray, folds: Folds) -> Targets:
        """The same neurons with their responses in other orders, drawn up only while they are used.

        Parameters
        ----------
        orders : numpy.ndarray of int
            ``(k, n)`` positions, each row a permutation.
        folds : Folds
            Stimuli sorted by fold.

        Returns
        -------
        Targets
            Of k times as many neurons.
        """
        per_order = [_tables(self.values[:, order], folds) for order in orders]
        tables = [np.concatenate([table[k] for table in per_order], axis=1) for k in range(4)]
        return Targets(self.values, orders, *tables)

    def rows(self, base: np.ndarray) -> np.ndarray:
        """The neurons as rows of a product.

        Parameters
        ----------
        base : numpy.ndarray
            `values` in the precision wanted.

        Returns
        -------
        numpy.ndarray
            ``(neurons, n)``.
        """
        if self.orders is None:
            return base
        return np.concatenate([base.take(order, axis=1) for order in self.orders])


def _tables(y: np.ndarray, folds: Folds) -> list[np.ndarray]:
    """Mean and norm over training stimuli, mean and norm over held-out ones, each (folds, neurons)."""
    sides = [[_centre(y[:, rows]) for rows in (folds.train(f), part)] for f, part in enumerate(folds.parts)]
    return [np.stack([side[which][k] for side in sides]) for which in (0, 1) for k in (0, 1)]


def _centre(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and centred norm along the last axis; the norm of a constant is exactly 0."""
    mean = part.mean(axis=1)
    norm = np.linalg.norm(part - mean[:, None], axis=1)
    return mean, np.where(np.ptp(part, axis=1) > 0, norm, 0.0)


@dataclass
class Best:
    """The best unit of every neuron in every fold, so far.

    Attributes
    ----------
    train : numpy.ndarray of float64
        ``(folds, neurons)`` correlation over the training stimuli; -inf before any unit.
    unit : numpy.ndarray of int64
        Index of the unit; -1 before any.
    held_out : numpy.ndarray of float64
        Its correlation over the held-out stimuli.
    columns : numpy.ndarray or None
        ``(folds, neurons, n)`` its activations, rows sorted by fold, where they are kept.
    """

    train: np.ndarray
    unit: np.ndarray
    held_out: np.ndarray
    columns: np.ndarray | None

    @classmethod
    def start(cls, targets: Targets, keep: bool) -> Best:
        """Begin without units.

        Parameters
        ----------
        targets : Targets
            The neurons.
        keep : bool
            Whether to keep the activations of the best units, for results in double precision.

        Returns
        -------
        Best
            Empty.
        """
        shape = targets.norm.shape
        columns = np.zeros((*shape, targets.values.shape[1])) if keep else None
        return cls(np.full(shape, -np.inf), np.full(shape, -1), np.zeros(shape), columns)


Visit = Callable[[int, np.ndarray, np.ndarray], None]


def match_layer(
    layer: Layer,
    rows: np.ndarray,
    folds: Folds,
    targets: Sequence[Targets],
    keep: Sequence[bool],
    memory: int,
    visit: Visit | None = None,
    workers: int | None = None,
) -> list[Best]:
    """Find every neuron's best unit in every fold, in one pass over the units of a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : numpy.ndarray of int
        ``(n,)`` row of the layer for each stimulus.
    folds : Folds
        Stimuli sorted by fold.
    targets : sequence of Targets
        Sets of neurons: the recorded ones, then permutations of them.
    keep : sequence of bool
        For each set, whether activations of the best units are kept.
    memory : int
        Bytes that blocks may take: half for the source's own, half for what the pass makes of them.
    visit : callable, optional
        Called with fold, unit indices and the training correlations ``(neurons, units)`` of the first set, -inf for
        units that may not win; block after block.
    workers : int, optional
        Threads, as far as the memory goes; by default one for each processor. The result does not depend on it.

    Returns
    -------
    list of Best
        One for each set of neurons. Correlations closer than `TIE` are tied, and the lowest index wins. A unit that is
        constant over the training stimuli never wins; one that is constant over the held-out ones has a held-out
        correlation of 0, since it predicts nothing there.

    Raises
    ------
    InputError
        If activations are NaN or infinite.
    """
    found = [Best.start(one, kept) for one, kept in zip(targets, keep, strict=True)]
    base = {kind: targets[0].values.astype(kind) for kind in (np.float32, np.float64)}
    room = _Room.of(len(rows), targets, np.float64 if layer.double else np.float32, memory, workers)
    # Products on one thread each: their rounding, and so the match, does not follow the machine.
    with single_blas():
        for blocks in read_blocks(
            layer, rows[folds.order], folds, max(memory // 2, 1), room.values, room.width, len(room.products)
        ):
            for number, (one, best) in enumerate(zip(targets, found, strict=True)):
                y = {kind: one.rows(base[kind]) for kind in {block.values.dtype.type for block in blocks}}
                _compete(blocks, y, one, best, folds, room, visit if number == 0 else None)
    return found


@dataclass(frozen=True)
class _Room:
    """Memory that a pass uses again and again: fresh pages would cost it a tenth of its time.

    Attributes
    ----------
    values : list of numpy.ndarray
        ``(n * width,)`` for every block of a group.
    products : list of numpy.ndarray
        ``(folds * neurons * width,)`` for every thread, neurons of the largest set.
    width : int
        Units of a block.
    """

    values: list[np.ndarray]
    products: list[np.ndarray]
    width: int

    @classmethod
    def of(cls, n: int, targets: Sequence[Targets], kind: type, memory: int, workers: int | None) -> _Room:
        """As many threads, and blocks in a group, as half of the memory holds; at least one."""
        size = np.dtype(kind).itemsize
        largest = max(one.norm.size for one in targets)
        width = max(1, min(_WIDTH, _PRODUCT // (largest * size)))
        value, product, budget = n * width * size, largest * width * size, memory // 2
        threads = max(1, min(worker_count(workers), budget // (value + product)))
        # Permuted neurons are drawn up once a group; a group of one set is better off in the processor's cache.
        blocks = threads if len(targets) == 1 else max(threads, min(_GROUP, (budget - threads * product) // value))
        return cls(
            [np.empty(n * width, kind) for _ in range(blocks)],
            [np.empty(largest * width, kind) for _ in range(threads)],
            width,
        )


@dataclass(frozen=True)
class _Found:
    """Units of one block that may be better than the best so far, one entry for each fold and neuron concerned.

    Attributes
    ----------
    fold, neuron, unit : numpy.ndarray of int
        ``(k,)``; the unit as its position in the block.
    value : numpy.ndarray of float64
        ``(k,)`` training correlation.
    product : numpy.ndarray of float64
        ``(k,)`` product of neuron and unit over the held-out stimuli.
    """

    fold: np.ndarray
    neuron: np.ndarray
    unit: np.ndarray
    value: np.ndarray
    product: np.ndarray


def _compete(
    blocks: Sequence[Block],
    y: dict[type, np.ndarray],
    targets: Targets,
    best: Best,
    folds: Folds,
    room: _Room,
    visit: Visit | None,
) -> None:
    """Let the units of a group of blocks compete with the best ones so far."""
    found: list[_Found | None] = [None] * len(blocks)
    threads = 1 if visit is not None else len(room.products)
    share = -(-len(blocks) // threads)

    def compare(start: int, stop: int) -> None:
        ahead = best.train.copy()  # what the blocks of this thread have found counts at once
        for k in range(start, stop):
            own = _products(blocks[k], y[blocks[k].values.dtype.type], folds, room.products[start // share])
            found[k] = _search(blocks[k], own, targets, ahead)
            if visit is not None:
                _show(blocks[k], own, targets, visit)

    in_blocks(compare, len(blocks), share, threads)
    for block, entry in zip(blocks, found, strict=True):
        if entry is not None:
            _settle(block, entry, y[block.values.dtype.type], targets, best, folds)


def _products(block: Block, y: np.ndarray, folds: Folds, memory: np.ndarray) -> np.ndarray:
    """Products of the neurons with the units over the rows of every fold: (folds, neurons, w)."""
    shape = (len(folds.parts), len(y), len(block.index))
    size = int(np.prod(shape))
    fits = memory.dtype == block.values.dtype and size <= memory.size
    own = memory[:size].reshape(shape) if fits else np.empty(shape, block.values.dtype)
    for f, part in enumerate(folds.parts):
        np.matmul(y[:, part], block.values[part], out=own[f])
    return own


def _search(block: Block, own: np.ndarray, targets: Targets, ahead: np.ndarray) -> _Found | None:
    """The best unit of the block for every fold and neuron in which it may be `ahead`, which is brought up to date."""
    kind = own.dtype
    first, top = np.empty(ahead.shape, np.int64), np.empty(ahead.shape, kind)
    floor = np.maximum(ahead - 4 * TIE, _LEAST) * np.where(targets.norm > 0, targets.norm, -np.inf)
    mean, floor, slack = (table.astype(kind) for table in (targets.mean, floor, TIE * targets.norm))
    search(own, mean, block.others, block.inverse, block.barred, floor, slack, first, top)
    fold, neuron = np.nonzero(first >= 0)
    if not len(fold):
        return None
    unit = first[fold, neuron]
    value = top[fold, neuron].astype(np.float64) / targets.norm[fold, neuron]
    ahead[fold, neuron] = np.maximum(ahead[fold, neuron], value)
    return _Found(fold, neuron, unit, value, own[fold, neuron, unit].astype(np.float64))


def _show(block: Block, own: np.ndarray, targets: Targets, visit: Visit) -> None:
    """Give all training correlations of the block away."""
    total = own.sum(axis=0)
    for f in range(len(own)):
        usable = block.barred[f] == 0
        if usable.any():
            r = (total - own[f] - targets.mean[f].astype(own.dtype)[:, None] * block.others[f]) * block.inverse[f]
            r = r / np.where(targets.norm[f] > 0, targets.norm[f], np.inf)[:, None]  # 0 for a constant neuron
            r[:, ~usable] = -np.inf
            visit(f, block.index, r)


def _settle(block: Block, found: _Found, y: np.ndarray, targets: Targets, best: Best, folds: Folds) -> None:
    """Put down those that are better, with their held-out correlations."""
    ahead = found.value - best.train[found.fold, found.neuron]
    index = block.index[found.unit]
    better = (ahead > TIE) | ((np.abs(ahead) <= TIE) & (index < best.unit[found.fold, found.neuron]))
    if not better.any():
        return
    f, j, u = found.fold[better], found.neuron[better], found.unit[better]
    best.train[f, j], best.unit[f, j] = found.value[better], index[better]
    counts = np.array([part.stop - part.start for part in folds.parts])
    energy, total = block.squares[f, u], block.sums[f, u]
    spread = energy - total**2 / counts[f]
    covariance = found.product[better] - targets.mean_out[f, j] * total
    for k in np.flatnonzero(spread <= LOST * energy):  # near silence: the difference has lost its digits
        part = folds.parts[f[k]]
        x = block.values[part, u[k]].astype(np.float64)
        x = x - x.mean() if np.ptp(x) > 0 else np.zeros(len(x))
        spread[k], covariance[k] = x @ x, y[j[k], part] @ x
    scale = np.sqrt(spread) * targets.norm_out[f, j]
    best.held_out[f, j] = np.divide(covariance, scale, out=np.zeros(len(f)), where=scale > 0)
    if best.columns is not None:
        best.columns[f, j] = block.values[:, u].T


def correlate_columns(columns: np.ndarray, targets: Targets, folds: Folds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlate each neuron with its unit in double precision, and tell whether the match is mutual.

    Parameters
    ----------
    columns : numpy.ndarray
        ``(folds, neurons, n)`` activations of the matched units, rows sorted by fold.
    targets : Targets
        The neurons.
    folds : Folds
        Stimuli sorted by fold.

    Returns
    -------
    train, held_out : numpy.ndarray of float64
        ``(folds, neurons)``; NaN where the neuron (in training also the unit) is constant, 0 where only the unit is
        constant over the held-out stimuli.
    mutual : numpy.ndarray of bool
        ``(folds, neurons)`` whether no other neuron correlates more with the unit over the training stimuli.
    """
    shape = columns.shape[:2]
    train, held_out = np.full(shape, np.nan), np.full(shape, np.nan)
    mutual = np.zeros(shape, dtype=bool)
    for f, part in enumerate(folds.parts):
        for rows, out, empty in ((folds.train(f), train, np.nan), (part, held_out, 0.0)):
            x, y = columns[f][:, rows].astype(np.float64), targets.values[:, rows]
            (mean, norm), (y_mean, y_norm) = _centre(x), _centre(y)
            unit = np.divide(x - mean[:, None], norm[:, None], out=np.zeros_like(x), where=norm[:, None] > 0)
            neuron = np.divide(y - y_mean[:, None], y_norm[:, None], out=np.zeros_like(y), where=y_norm[:, None] > 0)
            r = unit @ neuron.T
            own = np.einsum("ij,ij->i", unit, neuron)
            out[f] = np.where(y_norm > 0, np.where(norm > 0, own, empty), np.nan)
            if out is train:
                mutual[f] = (norm > 0) & (y_norm > 0) & (own >= r.max(axis=1) - TIE)
    return train, held_out, mutual


def read_units(layer: Layer, rows: np.ndarray, units: np.ndarray, memory: int) -> np.ndarray:
    """Read the activations of some units.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : numpy.ndarray of int
        ``(n,)`` rows wanted.
    units : numpy.ndarray of int
        Indices of any shape; -1 gives zeros.
    memory : int
        Bytes that blocks may take.

    Returns
    -------
    numpy.ndarray of float64
        Shape of `units`, then ``n``.
    """
    out = np.zeros((units.size, len(rows)))
    wanted, unit = units.ravel(), 0
    for block in layer.blocks(max(memory // 2, 1)):
        host = np.asarray(block.detach().cpu().double() if hasattr(block, "detach") else block)
        here = np.flatnonzero((wanted >= unit) & (wanted < unit + host.shape[1]))
        out[here] = host[:, wanted[here] - unit][rows].T
        unit += host.shape[1]
        del block, host
    return out.reshape(*units.shape, len(rows))
