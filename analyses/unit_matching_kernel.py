"""The pass over the units that unit matching needs: for every fold, each neuron's best unit on the other folds.

Rows are sorted by fold, so that one product of every fold's rows, ``P_f = Y_f' X_f``, serves all folds: the training
part of fold f is ``sum_g P_g - P_f``. The pass costs one product of all rows, whatever the number of folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_folds import Folds
from actkit.compute import spans
from actkit.errors import InputError

__all__ = ["TIE", "Best", "Targets", "correlate_columns", "match_layer", "read_units"]

TIE = 2e-6  # correlations this close are tied: single precision does not tell them apart
_WIDTH = 1024  # units of a product; with the products of all folds they stay in the processor's cache
_ROWS = 16  # stimuli whose mean is taken off every unit first, so that single precision keeps its digits
_LOST = 1e-3  # units whose training variance is a smaller share of their energy are computed in double precision


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


@dataclass(frozen=True)
class _Block:
    """Units of one product: values (n, w), and sums and squares by fold (folds, w)."""

    index: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    constant: np.ndarray  # over the training stimuli


Visit = Callable[[int, np.ndarray, np.ndarray], None]


def match_layer(
    layer: Layer,
    rows: np.ndarray,
    folds: Folds,
    targets: Sequence[Targets],
    keep: Sequence[bool],
    memory: int,
    visit: Visit | None = None,
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
        Bytes that blocks may take.
    visit : callable, optional
        Called with fold, unit indices and the training correlations ``(neurons, units)`` of the first set.

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
    dtype = np.float64 if layer.double else np.float32
    found = [Best.start(one, kept) for one, kept in zip(targets, keep, strict=True)]
    base = {kind: targets[0].values.astype(kind) for kind in (np.float32, np.float64)}
    for block in _blocks(layer, rows[folds.order], folds, dtype, memory):
        for number, (one, best) in enumerate(zip(targets, found, strict=True)):
            y = one.rows(base[block.values.dtype.type])
            _update(block, y, one, best, folds, visit if number == 0 else None)
    return found


def _blocks(layer: Layer, rows: np.ndarray, folds: Folds, dtype: type, memory: int) -> Iterator[_Block]:
    """Units in blocks that stay in cache; those that would lose their digits follow in double precision."""
    n, unit = len(rows), 0
    anchors = np.linspace(0, n - 1, min(n, _ROWS)).astype(np.int64)
    scratch: np.ndarray = np.empty((n, _WIDTH), dtype=dtype)
    for block in layer.blocks(max(memory // 2, 1)):
        host = block.detach().cpu() if hasattr(block, "detach") else block
        host = (host.float() if "bfloat16" in str(host.dtype) else host).numpy() if hasattr(host, "detach") else host
        for start, stop in spans(host.shape[1], _WIDTH):
            x = scratch[:, : stop - start]
            index = np.arange(unit + start, unit + stop)
            picked = host[rows, start:stop]
            np.subtract(picked, picked[anchors].mean(axis=0, dtype=dtype), out=x)
            sums, squares = _moments(x, folds)
            energy = squares.sum(axis=0)
            if not np.isfinite(energy).all():
                raise InputError(
                    f"layer {layer.name!r}: unit {int(index[np.flatnonzero(~np.isfinite(energy))[0]])} holds NaN or "
                    "infinite activations, which no correlation is defined for; record the layer again in float32, "
                    "or leave these stimuli out"
                )
            silent = energy == 0
            doubtful = (_train_variance(sums, squares, folds) <= _LOST * energy).any(axis=0) & ~silent
            constant = np.broadcast_to(silent | doubtful, sums.shape)
            yield _Block(index, x, sums, squares, constant)
            if doubtful.any():
                yield _careful(index[doubtful], host[rows][:, start:stop][:, doubtful], folds)
        unit += host.shape[1]
        del block, host


def _moments(x: np.ndarray, folds: Folds) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares of every fold; a product adds up faster than a sum down the rows."""
    ones = np.ones(len(x), dtype=x.dtype)
    sums = np.stack([ones[part] @ x[part] for part in folds.parts]).astype(np.float64)
    squares = np.stack([np.einsum("ij,ij->j", x[part], x[part]) for part in folds.parts])
    return sums, squares.astype(np.float64)


def _others(parts: np.ndarray) -> np.ndarray:
    """For every fold the sum over the other ones; adding them up leaves no residue where they are all 0."""
    return np.stack([np.delete(parts, f, axis=0).sum(axis=0) for f in range(len(parts))])


def _train_variance(sums: np.ndarray, squares: np.ndarray, folds: Folds) -> np.ndarray:
    """Centred sum of squares over the training stimuli of every fold."""
    count = len(folds.order) - np.array([[part.stop - part.start] for part in folds.parts])
    return np.asarray(_others(squares) - _others(sums) ** 2 / count)


def _careful(index: np.ndarray, values: np.ndarray, folds: Folds) -> _Block:
    """The same block in double precision, with constant units told exactly."""
    constant = np.stack([np.ptp(values[folds.train(f)], axis=0) == 0 for f in range(len(folds.parts))])
    x = values.astype(np.float64)
    # The median is untouched by one loud stimulus, which would leave the other folds with a common offset.
    x -= np.median(x, axis=0)
    sums, squares = _moments(x, folds)
    return _Block(index, x, sums, squares, constant)


def _update(block: _Block, y: np.ndarray, targets: Targets, best: Best, folds: Folds, visit: Visit | None) -> None:
    """Let the units of a block compete with the best ones so far."""
    own = [y[:, part] @ block.values[part] for part in folds.parts]
    total = own[0] + own[1]
    for part_of_total in own[2:]:
        total += part_of_total
    r, correction = np.empty_like(total), np.empty_like(total)
    variance = _train_variance(block.sums, block.squares, folds)
    sums = _others(block.sums)
    kind = block.values.dtype
    for f, part in enumerate(folds.parts):
        usable = (variance[f] > 0) & ~block.constant[f]
        if not usable.any():
            continue
        inverse = np.divide(1, np.sqrt(variance[f]), out=np.zeros_like(variance[f]), where=usable)
        np.subtract(total, own[f], out=r)
        np.multiply(targets.mean[f].astype(kind)[:, None], sums[f].astype(kind), out=correction)
        r -= correction
        r *= inverse.astype(kind)
        if not usable.all():
            r[:, ~usable] = -np.inf
        norm = np.where(targets.norm[f] > 0, targets.norm[f], np.inf)
        if visit is not None:
            visit(f, block.index, r / norm[:, None])
        # Most neurons keep their unit in most blocks; only the others are searched.
        top = r.max(axis=1)
        near = np.flatnonzero((targets.norm[f] > 0) & (top / norm >= best.train[f] - 2 * TIE))
        if not len(near):
            continue
        tied = (top - TIE * targets.norm[f].astype(kind))[near]
        first = (r[near] >= tied[:, None]).argmax(axis=1)
        value = r[near, first].astype(np.float64) / norm[near]
        ahead = value - best.train[f, near]
        better = (ahead > TIE) | ((np.abs(ahead) <= TIE) & (block.index[first] < best.unit[f, near]))
        won, first, value, index = near[better], first[better], value[better], block.index[first[better]]
        if not len(won):
            continue
        best.train[f, won], best.unit[f, won] = value, index
        energy, total_out = block.squares[f, first], block.sums[f, first]
        spread = energy - total_out**2 / (part.stop - part.start)
        covariance = own[f][won, first] - targets.mean_out[f, won] * total_out
        doubtful = np.flatnonzero(spread <= _LOST * energy)  # near silence: the difference has lost its digits
        if len(doubtful):
            x = block.values[part, first[doubtful]].astype(np.float64)
            x = np.where(np.ptp(x, axis=0) > 0, x - x.mean(axis=0), 0.0)
            spread[doubtful] = np.einsum("ij,ij->j", x, x)
            covariance[doubtful] = np.einsum("ji,ij->j", y[won[doubtful], part], x)
        scale = np.sqrt(spread) * targets.norm_out[f, won]
        best.held_out[f, won] = np.divide(covariance, scale, out=np.zeros(len(won)), where=scale > 0)
        if best.columns is not None:
            best.columns[f, won] = block.values[:, first].T


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
