"""Compiled loops of unit matching: what the matrix product leaves to do, in one sweep over memory each.

Arrays that they share: `edges` (folds + 1,) where each fold begins among rows sorted by fold, `sums` and `squares`
(folds, units). The functions release the interpreter lock: run them in threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

BARRED = -2.0  # below every covariance of a neuron of norm 1 with a unit of norm 1

_ROWS = 32  # added up in the precision of the units, before the sum goes on in double precision

# Sums may be taken in any order: that is what lets a loop use vector registers. The order is fixed when compiled.
_summing: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@_summing
def gather(source: Any, rows: Any, shift: Any, edges: Any, out: Any, sums: Any, squares: Any) -> None:
    """Bring rows into the order of the folds, less a shift of each unit, and add them and their squares up by fold."""
    width = out.shape[1]
    some = np.empty(width, out.dtype)
    energy = np.empty(width, out.dtype)
    for f in range(len(edges) - 1):
        for u in range(width):
            sums[f, u] = 0
            squares[f, u] = 0
        for first in range(edges[f], edges[f + 1], _ROWS):
            last = min(first + _ROWS, edges[f + 1])
            for u in range(width):
                some[u] = 0
                energy[u] = 0
            i = first
            while i + 8 <= last:  # eight rows at a time: memory answers slowly, and the sums are loaded less often
                a, b, c, d = source[rows[i]], source[rows[i + 1]], source[rows[i + 2]], source[rows[i + 3]]
                e, g, h, k = source[rows[i + 4]], source[rows[i + 5]], source[rows[i + 6]], source[rows[i + 7]]
                for u in range(width):
                    at = shift[u]
                    p, q, r, s = a[u] - at, b[u] - at, c[u] - at, d[u] - at
                    w, x, y, z = e[u] - at, g[u] - at, h[u] - at, k[u] - at
                    out[i, u], out[i + 1, u], out[i + 2, u], out[i + 3, u] = p, q, r, s
                    out[i + 4, u], out[i + 5, u], out[i + 6, u], out[i + 7, u] = w, x, y, z
                    some[u] += ((p + q) + (r + s)) + ((w + x) + (y + z))
                    energy[u] += ((p * p + q * q) + (r * r + s * s)) + ((w * w + x * x) + (y * y + z * z))
                i += 8
            while i < last:
                a = source[rows[i]]
                for u in range(width):
                    p = a[u] - shift[u]
                    out[i, u] = p
                    some[u] += p
                    energy[u] += p * p
                i += 1
            for u in range(width):
                sums[f, u] += some[u]
                squares[f, u] += energy[u]


@_summing
def spread(edges: Any, sums: Any, squares: Any, others: Any, variance: Any) -> None:
    """Sum and centred sum of squares over the training stimuli of every fold, both (folds, units).

    The other folds are added up: a difference to the total would leave a residue where they are all 0.
    """
    folds, width = sums.shape
    for f in range(folds):
        count = edges[folds] - (edges[f + 1] - edges[f])
        for u in range(width):
            others[f, u] = 0
            variance[f, u] = 0
        for g in range(folds):
            if g != f:
                for u in range(width):
                    others[f, u] += sums[g, u]
                    variance[f, u] += squares[g, u]
        for u in range(width):
            variance[f, u] -= others[f, u] ** 2 / count


@_summing
def search(
    own: Any, mean: Any, others: Any, inverse: Any, barred: Any, floor: Any, slack: Any, first: Any, best: Any
) -> None:
    """Find the first unit of each neuron and fold that ties with the best one, where the best reaches a floor.

    `own` (folds, neurons, units) holds the product of every fold's rows; `others` (folds, units) the sums over the
    training stimuli, `mean` (folds, neurons) the neuron's mean there, `inverse` (folds, units) the inverse norm of the
    unit, `barred` (folds, units) `BARRED` for units that may not win and 0 for the others. `floor` and `slack` (folds,
    neurons) are covariances with a unit of norm 1. Written: `first` (folds, neurons), -1 where no unit reaches the
    floor, and `best` (folds, neurons), the covariance of that unit, untouched elsewhere.
    """
    folds, neurons, width = own.shape
    total = np.empty(width, own.dtype)
    value = np.empty(width, own.dtype)
    for j in range(neurons):
        for u in range(width):
            total[u] = own[0, j, u]
        for f in range(1, folds):
            for u in range(width):
                total[u] += own[f, j, u]
        for f in range(folds):
            part, centre, bar = own[f, j], mean[f, j], floor[f, j]
            hits = np.int32(0)  # a count vectorises where a maximum does not; most neurons have none in most blocks
            for u in range(width):
                value[u] = (total[u] - part[u] - centre * others[f, u]) * inverse[f, u] + barred[f, u]
                hits += np.int32(value[u] >= bar)
            first[f, j] = -1
            if hits == 0:
                continue
            top = value[0]
            for u in range(1, width):
                top = max(top, value[u])
            for u in range(width):
                if value[u] >= top - slack[f, j]:
                    first[f, j], best[f, j] = u, value[u]
                    break
