"""Products of patterns, streamed over blocks of units: what every dissimilarity of this kind is made of.

Blocks of units are reduced one after the other to n × n products in the patterns' precision, which are added up in
float64. What could cancel or swamp the rest is subtracted first: the mean of every pattern within the block, whose
share is added back in float64 (between blocks for correlation, whole for cosine, so nothing depends on one block being
typical), or the mean of every unit (euclidean). numpy and torch do the same arithmetic, where the values are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from actkit.compute import spans

if TYPE_CHECKING:
    import torch

Centring = Literal["pattern", "unit", "none"]

# Wide enough for full BLAS speed, narrow enough that float32 sums stay short and the working copy small.
WIDTH = 8192


class NonFiniteError(ValueError):
    """A block holds NaN or infinite values; `rows` says in which patterns."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(f"{len(rows)} patterns hold values that are not finite")
        self.rows = rows


class OverflowInGramError(ArithmeticError):
    """Finite values whose squares leave the number range of their precision."""


class GramSums(Protocol):
    """Running products of n patterns: add blocks of units, then ask for the sums."""

    def add(self, block: Any) -> None:
        """Take in a block of units, ``(n, width)``."""

    def result(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Give the products ``(n, n)`` in float64, the patterns' means ``(n,)`` and the number of units."""


class NumpyGram:
    """Products of patterns with numpy.

    Parameters
    ----------
    n : int
        Number of patterns.
    centring : {"pattern", "unit", "none"}
        What the products are free of: the mean of each pattern, of each unit, or nothing.
    dtype : {"float32", "float64"}
        Precision of the products within a block.
    """

    def __init__(self, n: int, centring: Centring, dtype: Literal["float32", "float64"]) -> None:
        self.n, self.centring, self.dtype = n, centring, np.dtype(dtype)
        self.gram = np.zeros((n, n))
        self.means: list[np.ndarray] = []
        self.rests: list[np.ndarray] = []
        self.widths: list[int] = []
        self._buffer = np.empty(0, dtype=self.dtype)

    def add(self, block: np.ndarray) -> None:
        """Take in a block of units.

        Parameters
        ----------
        block : numpy.ndarray
            ``(n, width)`` values.

        Raises
        ------
        NonFiniteError
            If a value is NaN or infinite.
        OverflowInGramError
            If squares of finite values overflow.
        """
        for start, stop in spans(block.shape[1], WIDTH):
            self._add(block[:, start:stop])

    def _add(self, values: np.ndarray) -> None:
        width = values.shape[1]
        if self._buffer.size < self.n * width:
            self._buffer = np.empty(self.n * width, dtype=self.dtype)
        # One contiguous buffer: numpy then multiplies it with its own transpose at half the cost (syrk).
        patterns = self._buffer[: self.n * width].reshape(self.n, width)
        rough = rest = np.zeros(self.n)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.centring == "unit":
                centre = values.mean(axis=0, dtype=np.float64).astype(self.dtype)
                np.subtract(values, centre, out=patterns, casting="same_kind")
            else:
                # Any value near the mean will do, and the fast mean is near; what it leaves is accounted for.
                rough = values.mean(axis=1, dtype=self.dtype)
                np.subtract(values, rough[:, None], out=patterns, casting="same_kind")
                rest = (patterns @ np.ones(width, dtype=self.dtype)).astype(np.float64) / width
            products = patterns @ patterns.T
        if not np.isfinite(np.diagonal(products)).all():
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                raise NonFiniteError(bad)
            raise OverflowInGramError
        self.gram += products
        self.means.append(rough + rest)
        self.rests.append(rest)
        self.widths.append(width)

    def result(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Give the sums over all blocks.

        Returns
        -------
        products : numpy.ndarray
            ``(n, n)`` float64 sums of products of the centred patterns.
        means : numpy.ndarray
            ``(n,)`` mean of each pattern (zeros where units are centred).
        n_units : int
            Number of units.
        """
        return _with_means(self.gram, self.means, self.rests, self.widths, self.centring)


class TorchGram:
    """Products of patterns with torch, on any device.

    Parameters
    ----------
    n : int
        Number of patterns.
    centring : {"pattern", "unit", "none"}
        What the products are free of: the mean of each pattern, of each unit, or nothing.
    dtype : {"float32", "float64"}
        Precision of the products within a block.
    device : str
        Device that computes; blocks are moved there.
    """

    def __init__(self, n: int, centring: Centring, dtype: Literal["float32", "float64"], device: str) -> None:
        import torch

        self.n, self.centring, self.device = n, centring, torch.device(device)
        # MPS has no float64: sums are kept on the host there, and float64 input cannot be used.
        self.has_double = self.device.type != "mps"
        self.dtype = torch.float64 if dtype == "float64" and self.has_double else torch.float32
        self.wide = torch.float64 if self.has_double else torch.float32
        self.gram = torch.zeros((n, n), dtype=torch.float64, device=self.device if self.has_double else "cpu")
        self.means: list[np.ndarray] = []
        self.rests: list[np.ndarray] = []
        self.widths: list[int] = []

    def add(self, block: np.ndarray | torch.Tensor) -> None:
        """Take in a block of units.

        Parameters
        ----------
        block : numpy.ndarray or torch.Tensor
            ``(n, width)`` values.

        Raises
        ------
        NonFiniteError
            If a value is NaN or infinite.
        OverflowInGramError
            If squares of finite values overflow.
        """
        import torch

        with torch.no_grad(), _full_precision():
            for start, stop in spans(block.shape[1], WIDTH):
                part = block[:, start:stop]
                if isinstance(part, np.ndarray):
                    part = torch.from_numpy(np.ascontiguousarray(part))
                self._add(part.to(self.device))

    def _add(self, values: torch.Tensor) -> None:
        import torch

        width = values.shape[1]
        patterns = values.to(self.dtype)
        rough = rest = torch.zeros(self.n, dtype=self.wide, device=self.device)
        if self.centring == "unit":
            patterns = patterns - values.to(self.wide).mean(dim=0).to(self.dtype)
        else:
            rough = patterns.mean(dim=1)
            patterns = patterns - rough[:, None]
            rest = patterns.sum(dim=1, dtype=self.wide) / width
        products = patterns @ patterns.T
        if not bool(torch.isfinite(products.diagonal()).all()):
            bad = torch.nonzero(~torch.isfinite(values).all(dim=1)).ravel().cpu().numpy()
            if len(bad):
                raise NonFiniteError(bad)
            raise OverflowInGramError
        self.gram += products.to(self.gram.device).to(torch.float64)
        self.rests.append(rest.cpu().numpy().astype(np.float64))
        self.means.append(rough.cpu().numpy().astype(np.float64) + self.rests[-1])
        self.widths.append(width)

    def result(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Give the sums over all blocks.

        Returns
        -------
        products : numpy.ndarray
            ``(n, n)`` float64 sums of products of the centred patterns.
        means : numpy.ndarray
            ``(n,)`` mean of each pattern (zeros where units are centred).
        n_units : int
            Number of units.
        """
        return _with_means(self.gram.cpu().numpy(), self.means, self.rests, self.widths, self.centring)


def _with_means(
    gram: np.ndarray, means: list[np.ndarray], rests: list[np.ndarray], widths: list[int], centring: Centring
) -> tuple[np.ndarray, np.ndarray, int]:
    """Complete the sums of products within blocks by what the patterns' means contribute.

    Within block b of width w_b the patterns were centred to a rest r_b ≈ 0 of their mean m_b, so the products hold
    w_b r_b r_bᵀ too much; between blocks Σ w_b (m_b − m)(m_b − m)ᵀ is missing (Chan, Golub & LeVeque 1983), where the
    mean m over all blocks counts as zero if patterns are not to be centred.
    """
    total = sum(widths)
    share = np.sqrt(np.array(widths, dtype=np.float64))
    by_block = np.stack(means, axis=1)
    mean = by_block @ share**2 / total
    if centring != "unit":
        between = (by_block - mean[:, None] if centring == "pattern" else by_block) * share
        rest = np.stack(rests, axis=1) * share
        gram = gram + between @ between.T - rest @ rest.T
    return gram, mean, total


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep TF32 out of float32 products on CUDA, whatever the user's setting, and put that setting back."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
