"""Wiring of a network of modules: dense within, a fixed number of connections from each module to each other one."""

from __future__ import annotations

import numpy as np

from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = ["connections", "modularity", "modularity_of_modules", "wiring"]


def connections(p: float, units: int) -> int:
    """Number of connections from one module to another: ``floor(p n²)``, or k for ``p = -k``.

    Parameters
    ----------
    p : float
        Share of the n² possible connections, from 0 (none) to 1; a negative whole number asks for exactly that many.
    units : int
        Units n of a module.

    Returns
    -------
    int
        From 0 to n².

    Raises
    ------
    InputError
        If p is neither, asks for more connections than there are, or is too small for one.
    """
    most = units * units
    if not np.isfinite(p) or p > 1 or (p < 0 and p != int(p)):
        raise InputError(
            f"p={p} is neither a share from 0 to 1 nor a negative whole number (-k: exactly k connections); give one"
        )
    if -p > most:
        raise InputError(f"p={p:g} asks for {-p:g} connections, and {units} × {units} units have {most}; give fewer")
    if p < 0:
        return int(-p)
    # A share of .07 of 100 connections is 7, though the product is 7.000000000000001 and others fall just short.
    count = int(np.floor(p * most + 1e-9))
    if p > 0 and count < 1:
        raise InputError(
            f"p={p:g} of {most} possible connections is less than one ({p * most:.3g}), so modules would not be "
            f"connected at all; give p={1 / most:.3g} or more, p=-1 for exactly one, or p=0 for none on purpose"
        )
    return count


def wiring(modules: int, units: int, count: int, seed: int) -> np.ndarray:
    """Draw which connections there are.

    Parameters
    ----------
    modules, units : int
        Number of modules, and units n of each.
    count : int
        Connections from each module to each other one.
    seed : int
        Seed. For one seed, fewer connections are a subset of more.

    Returns
    -------
    numpy.ndarray of bool
        ``(modules * n, modules * n)``, row: receiving unit, column: sending unit. Modules are dense within but for
        the diagonal: no unit sends to itself.
    """
    size = modules * units
    mask = np.zeros((size, size), dtype=bool)
    for m in range(modules):
        for other in range(modules):
            block = mask[m * units : (m + 1) * units, other * units : (other + 1) * units]
            if m == other:
                block[:] = ~np.eye(units, dtype=bool)
            else:
                order = generator(seed, m * modules + other, Stream.PERMUTATIONS).permutation(units * units)
                block.flat[order[:count]] = True
    return mask


def modularity(adjacency: np.ndarray, parts: np.ndarray) -> float:
    """Modularity Q of a directed graph and a partition.

    ``Q = (1/M) Σ_ij (A_ij − k_i^out k_j^in / M) δ(g_i, g_j)`` over the M connections (Leicht & Newman, Phys. Rev. Lett.
    100:118703, 2008).

    Parameters
    ----------
    adjacency : numpy.ndarray
        ``(units, units)``, row: receiver, column: sender; weights are taken as they are.
    parts : numpy.ndarray
        ``(units,)`` part of each unit.

    Returns
    -------
    float
        At most ``1 − 1/g`` for g parts.

    Raises
    ------
    InputError
        If there is no connection, or shapes do not fit.
    """
    a, parts = np.asarray(adjacency, dtype=np.float64), np.asarray(parts)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or parts.shape != (len(a),):
        raise InputError(f"adjacency {a.shape} and parts {parts.shape} do not fit; give (units, units) and (units,)")
    total = a.sum()
    if total <= 0:
        raise InputError("the graph has no connections, so it has no modularity; give at least one")
    _, part = np.unique(parts, return_inverse=True)
    member = np.eye(part.max() + 1)[part]
    within = np.einsum("ig,ij,jg->", member, a, member) / total
    received, sent = member.T @ a.sum(axis=1) / total, member.T @ a.sum(axis=0) / total
    return float(within - received @ sent)


def modularity_of_modules(p: float, modules: int = 2, units: int | None = None) -> float:
    """Modularity of equal dense modules in closed form: ``1 / (1 + (g − 1) p) − 1/g``.

    For two modules ``(1 − p) / (2 (1 + p))``, as in Béna & Goodman (2021, arXiv 2106.02626v1).

    Parameters
    ----------
    p : float
        Share of the possible connections between two modules, those from a unit to itself counted as there; a
        negative number of connections with `units`.
    modules : int
        Number of modules g.
    units : int, optional
        Units n of a module. With it, connections are counted as they are: ``floor(p n²)`` between modules, and
        ``n² − n`` within, without those from a unit to itself.

    Returns
    -------
    float
        From 0 to ``1 − 1/g``.

    Raises
    ------
    InputError
        If p is not possible, or negative without `units`.
    """
    if units is None:
        if not 0 <= p <= 1:
            raise InputError(f"p={p} is not a share from 0 to 1; give one, or units= for a number of connections")
        return 1 / (1 + (modules - 1) * p) - 1 / modules
    within = units * units - units
    if within + connections(p, units) == 0:
        raise InputError("one unit a module and no connections leave no graph; give more units")
    return within / (within + (modules - 1) * connections(p, units)) - 1 / modules
