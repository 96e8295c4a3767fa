"""Measures that are weighted scalar products, on many draws at once: one matrix product over pairs and draws.

With pair weights p = w_i w_j, the rows of one matrix are products of two standardised RDM vectors and the vectors
themselves, the columns of the other the pair weights of the draws; their product holds every second and first moment.
Whitened forms need besides the weighted row sums of each RDM (see :meth:`.measures.Draw.form` for the definition):

    H_ab = G_ab / 2 - [ Σ_i w_i r_ai r_bi / d_i - q_a q_b / (2 + c) ] / 4,
    d_i = n/2 + 1 - w_i,  q_a = Σ_i w_i r_ai / d_i,  c = Σ_i w_i / d_i,

with G the weighted products, r the weighted row sums and n the stimuli of the draw, copies counted: normal equations
that are diagonal plus rank one. Draws in which a moment loses digits (an RDM nearly constant on the drawn stimuli,
or d_i = 0) are computed again by the plain definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actkit.analyses.measures import CONSTANT, WHITENED, Compare, Draw
from actkit.analyses.threads import in_blocks, single_blas
from actkit.compute import spans
from actkit.errors import InputError

# Fixed block sizes: results must not depend on the machine.
DRAW_BLOCK = 256
PAIR_BLOCK = 1024
_KEPT = 8_000_000  # values; products of RDMs are computed once where they take less (64 MB), else in every block

# Below this share of the second moment a variance has lost three digits, and is computed again in two passes.
_CANCELLED = 1e-3
_FEWEST = 3


def weighted_forms(
    vectors: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    drawn: np.ndarray,
    compare: Compare,
    workers: int | None = None,
    device: str | None = None,
) -> np.ndarray:
    """Bilinear forms of pairs of RDMs on every draw.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)`` without missing values.
    first, second : numpy.ndarray of int
        ``(products,)`` the two RDMs of each product. For the centred measures every RDM must occur with itself.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    compare : {"pearson", "cosine", "whitened-pearson", "whitened-cosine"}
        The measure.
    workers : int, optional
        Threads.
    device : str, optional
        Torch device; numpy by default.

    Returns
    -------
    numpy.ndarray of float64
        ``(products, draws)`` in the squared units of the RDMs; NaN for draws with fewer than three distinct stimuli.
        Forms of an RDM that is constant on the drawn stimuli are 0 for centred measures.

    Raises
    ------
    InputError
        If the device cannot compute in float64.
    """
    if device and device.startswith("mps"):
        raise InputError("device 'mps' has no float64, which these forms need; leave device out")
    centred = compare in ("pearson", "whitened-pearson")
    x, scale = standardised(vectors, centred)
    out = np.empty((len(first), len(drawn)))
    again = np.zeros(len(drawn), dtype=bool)
    plan = _Torch(x, first, second, compare, device) if device else _Numpy(x, first, second, compare)

    def block(start: int, stop: int) -> None:
        out[:, start:stop], again[start:stop] = plan.block(drawn[start:stop])

    with single_blas():
        in_blocks(block, len(drawn), DRAW_BLOCK, 1 if device else workers)

    few = np.count_nonzero(drawn, axis=1) < _FEWEST
    suspicious = np.flatnonzero(again & ~few)
    if len(suspicious):
        original, size = rescaled(vectors)  # an outlier's mean, subtracted, would cost the other values digits
        factor = (size / scale)[first] * (size / scale)[second]

        def repeat(start: int, stop: int) -> None:
            for d in suspicious[start:stop]:
                out[:, d] = Draw(drawn[d]).form(original, compare)[first, second] * factor

        with single_blas():
            in_blocks(repeat, len(suspicious), 8, workers)
    out *= (scale[first] * scale[second])[:, None]
    out[:, few] = np.nan
    return out


def standardised(vectors: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scale RDMs to a mean square of 1 (centred first if asked for): moments of numbers near 1 round least.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)``.
    centred : bool
        Subtract each RDM's mean.

    Returns
    -------
    tuple of numpy.ndarray
        The vectors (zeros for a constant one, if centred) and the scale of each.
    """
    top = np.abs(vectors).max(axis=1, initial=0.0)
    x = vectors / np.where(top > 0, top, 1.0)[:, None]
    raw = np.square(x).mean(axis=1)
    if centred:
        x = x - x.mean(axis=1, keepdims=True)
    square = np.square(x).mean(axis=1)
    flat = square <= CONSTANT * raw
    size = np.sqrt(np.where(flat, 1.0, square))
    x = np.where(flat[:, None], 0.0, x / size[:, None])
    return x, np.where(top > 0, top * size, 1.0)


def rescaled(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale RDMs by powers of two, so that squares stay in the number range and no digit changes.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)``.

    Returns
    -------
    tuple of numpy.ndarray
        The vectors with largest values in 0.5 … 1, and the scale of each.
    """
    _, exponent = np.frexp(np.abs(vectors).max(axis=1, initial=0.0))
    return np.ldexp(vectors, -exponent[:, None]), np.ldexp(1.0, exponent)


class _Numpy:
    """The same plan for every block of draws: what does not depend on the draws, computed once.

    Parameters
    ----------
    x : numpy.ndarray
        ``(rdms, pairs)`` standardised.
    first, second : numpy.ndarray of int
        ``(products,)``.
    compare : str
        The measure.
    """

    def __init__(self, x: np.ndarray, first: np.ndarray, second: np.ndarray, compare: str) -> None:
        self.x: Any = x
        self.first: Any = first
        self.second: Any = second
        self.n = round((1 + np.sqrt(1 + 8 * x.shape[1])) / 2)
        self.centred, self.whitened = compare in ("pearson", "whitened-pearson"), compare in WHITENED
        self.spans = list(_row_spans(self.n))
        rows = len(first) + (len(x) if self.centred else 0)
        self.rows = [self._rows(span) for span in self.spans] if rows * x.shape[1] <= _KEPT else None
        self.squares: Any = self._squares() if self.whitened else None

    def _rows(self, span: tuple[int, int, int, int]) -> np.ndarray:
        """Products of RDMs, and for centred measures the RDMs themselves, on some rows of the squareform."""
        part = self.x[:, span[2] : span[3]]
        out = np.empty((len(self.first) + (len(part) if self.centred else 0), part.shape[1]))
        np.multiply(part[self.first], part[self.second], out=out[: len(self.first)])
        if self.centred:
            out[len(self.first) :] = part
        return out

    def _squares(self) -> np.ndarray:
        """The RDMs as square matrices, ``(rdms, n, n)``."""
        i, j = np.triu_indices(self.n, 1)
        out = np.zeros((len(self.x), self.n, self.n))
        out[:, i, j] = out[:, j, i] = self.x
        return out

    def block(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forms on some draws, ``(products, draws)``, and which draws need the plain definition."""
        w = np.ascontiguousarray(drawn.T, dtype=np.float64)
        moments = np.zeros((len(self.first) + (len(self.x) if self.centred else 0), w.shape[1]))
        for number, span in enumerate(self.spans):
            rows = self._rows(span) if self.rows is None else self.rows[number]
            moments += rows @ _pair_weights(w, span)
        sums = (self.squares @ w) if self.squares is not None else None
        with np.errstate(invalid="ignore", divide="ignore"):
            return finish(np, moments, sums, w, self)


class _Torch(_Numpy):
    """The plan on a torch device."""

    def __init__(self, x: np.ndarray, first: np.ndarray, second: np.ndarray, compare: str, device: str) -> None:
        import torch

        self.torch, self.device = torch, torch.device(device)
        super().__init__(x, first, second, compare)
        self.x, self.first, self.second = (torch.as_tensor(v, device=self.device) for v in (x, first, second))
        if self.squares is not None:
            self.squares = torch.as_tensor(self.squares, device=self.device)
        self.rows = None

    def block(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        torch = self.torch
        w = torch.as_tensor(np.ascontiguousarray(drawn.T, dtype=np.float64), device=self.device)
        i, j = (torch.as_tensor(v, device=self.device) for v in np.triu_indices(self.n, 1))
        moments = torch.zeros(
            (len(self.first) + (len(self.x) if self.centred else 0), w.shape[1]), dtype=w.dtype, device=self.device
        )
        for start, stop in spans(self.x.shape[1], 64 * PAIR_BLOCK):
            part = self.x[:, start:stop]
            rows = part[self.first] * part[self.second]
            rows = torch.cat([rows, part]) if self.centred else rows
            moments += rows @ (w[i[start:stop]] * w[j[start:stop]])
        sums = (self.squares @ w) if self.squares is not None else None
        values, again = finish(torch, moments, sums, w, self)
        return values.cpu().numpy(), again.cpu().numpy()


def _row_spans(n: int) -> list[tuple[int, int, int, int]]:
    """Cut the rows of an n × n squareform into blocks: first and last row, first and last pair."""
    out = []
    row, pair = 0, 0
    while row < n - 1:
        stop, end = row, pair
        while stop < n - 1 and (stop == row or end + n - 1 - stop - pair <= PAIR_BLOCK):
            end += n - 1 - stop
            stop += 1
        out.append((row, stop, pair, end))
        row, pair = stop, end
    return out


def _pair_weights(w: np.ndarray, span: tuple[int, int, int, int]) -> np.ndarray:
    """``(pairs, draws)`` weights of the pairs of some rows of the squareform."""
    first, last, start, stop = span
    out = np.empty((stop - start, w.shape[1]))
    at = 0
    for i in range(first, last):
        count = len(w) - 1 - i
        np.multiply(w[i + 1 :], w[i], out=out[at : at + count])
        at += count
    return out


def finish(library: Any, moments: Any, sums: Any, w: Any, plan: _Numpy) -> tuple[Any, Any]:
    """Turn moments into centred and whitened forms; `library` is numpy or torch.

    Parameters
    ----------
    library : module
        numpy or torch.
    moments : array
        ``(products [+ rdms], draws)`` weighted sums of products and, for centred measures, of the RDMs.
    sums : array or None
        ``(rdms, stimuli, draws)`` weighted row sums, for whitened measures.
    w : array
        ``(stimuli, draws)`` multiplicities.
    plan : _Numpy
        Which RDMs each product is of.

    Returns
    -------
    tuple of array
        Forms ``(products, draws)``, and ``(draws,)`` whether the plain definition must be used.
    """
    n = w.sum(0)
    total = (n * n - (w * w).sum(0)) / 2
    first, second = plan.first, plan.second
    products = moments[: len(first)]
    again = total != total
    if plan.centred:
        mean = moments[len(first) :] / total
        raw, products = products, products - mean[first] * mean[second] * total
        own = first == second
        again = (products[own] <= _CANCELLED * raw[own]).any(0)
        if sums is not None:
            sums = sums - mean[:, None, :] * (n - w)
    if sums is None:
        return products, again
    d = n / 2 + 1 - w
    again = again | ((d == 0) & (w > 0)).any(0)
    share = library.where(w > 0, w / d, library.zeros_like(w))
    along = (sums * share).sum(1)
    left, right = library.moveaxis(sums * share, 2, 0), library.moveaxis(sums, 2, 0)
    crossed = left @ library.swapaxes(right, 1, 2)
    removed = crossed[:, first, second].T - along[first] * along[second] / (2 + share.sum(0))
    return products / 2 - removed / 4, again
