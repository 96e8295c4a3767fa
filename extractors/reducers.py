"""Making a layer smaller before anything leaves the device: per-channel summaries, random projections, PCA.

Every reducer is fixed by the plan (and, for PCA, by a stated set of stimuli): what it gives for one
stimulus does not depend on the batch that the stimulus came in.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from actkit.errors import InputError

Summary = Literal["mean", "max", "l2"]

_ENTRIES_AT_ONCE = 2**22


class Reducer(Protocol):
    """What turns a batch of one layer's activations into what is stored.

    Attributes
    ----------
    shape : tuple of int
        Shape of one reduced stimulus.
    attrs : dict
        What was done, for the layer's attributes.
    """

    shape: tuple[int, ...]
    attrs: dict[str, Any]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Reduce a float32 batch of shape (stimuli, *layer shape) to (stimuli, *shape)."""


@dataclass
class ChannelSummary:
    """One value per channel: mean, maximum or Euclidean norm over all positions.

    Maps (C, H, W), and anything with more axes, keep their first axis and are summarised over the rest.
    Tokens (T, D) keep their features D and are summarised over the tokens T. Vectors stay as they are.

    Attributes
    ----------
    kind : {"mean", "max", "l2"}
        The summary; ``l2`` is the square root of the sum of squares over positions.
    layer_shape : tuple of int
        Shape of one stimulus in the layer.
    """

    kind: Summary
    layer_shape: tuple[int, ...]
    shape: tuple[int, ...] = field(init=False)
    attrs: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rank = len(self.layer_shape)
        self.shape = self.layer_shape if rank <= 1 else (self.layer_shape[-1 if rank == 2 else 0],)
        over = {0: "none", 1: "none", 2: "tokens"}.get(rank, "positions")
        self.attrs = {"reduced": self.kind if rank > 1 else "none", "original_shape": list(self.layer_shape)}
        if rank > 1:
            self.attrs["reduced_over"] = over

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Summarise a batch of shape (stimuli, *layer_shape) to (stimuli, channels)."""
        if batch.ndim <= 2:
            return batch
        positions = batch.transpose(1, 2) if batch.ndim == 3 else batch.flatten(2)
        if self.kind == "mean":
            return positions.mean(2)
        if self.kind == "max":
            return positions.amax(2)
        return torch.linalg.vector_norm(positions, dim=2)


def johnson_lindenstrauss(n: int, eps: float) -> int:
    """Components that keep all squared distances between n points within a factor 1 ± eps.

    Parameters
    ----------
    n : int
        Number of points.
    eps : float
        Largest relative error of a squared distance, between 0 and 1.

    Returns
    -------
    int
        The smallest k with ``k >= 4 ln(n) / (eps²/2 - eps³/3)``.

    Raises
    ------
    InputError
        If eps is not between 0 and 1.

    References
    ----------
    Dasgupta & Gupta (2003), An elementary proof of a theorem of Johnson and Lindenstrauss, theorem 2.1.

    Examples
    --------
    >>> johnson_lindenstrauss(1000, 0.1)
    5921
    """
    if not 0 < eps < 1:
        raise InputError(f"eps is {eps}; a relative error of squared distances lies between 0 and 1")
    return max(1, math.ceil(4 * math.log(max(n, 2)) / (eps**2 / 2 - eps**3 / 3)))


class SparseProjection:
    """A very sparse random projection: entries ±sqrt(s/k) with probability 1/(2s) each, otherwise 0.

    ``s = sqrt(p)`` for p units (Li), at least 3 (Achlioptas). Squared distances are kept in expectation;
    for all pairs of n stimuli within 1 ± eps with ``k`` from `johnson_lindenstrauss`. The matrix is drawn
    from (seed, layer name) alone, row by row of k, and kept sparse: about 8·k·sqrt(p) bytes, so that a
    layer of a million units needs no dense matrix. A layer with no more than k units is kept as it is.

    Parameters
    ----------
    layer : str
        Name of the layer.
    layer_shape : tuple of int
        Shape of one stimulus in the layer.
    components : int
        Number of components k.
    seed : int
        Seed.
    n_stimuli : int
        Number of stimuli, for the bound stated in the attributes.

    References
    ----------
    Achlioptas (2003), Database-friendly random projections. Li, Hastie & Church (2006), Very sparse random
    projections, section 2.
    """

    def __init__(self, layer: str, layer_shape: tuple[int, ...], components: int, seed: int, n_stimuli: int) -> None:
        self.units = math.prod(layer_shape)
        self.layer = layer
        self.seed = seed
        self.components = components
        self.kept = self.units <= components
        self.shape: tuple[int, ...] = (self.units,) if self.kept else (components,)
        self._matrix: torch.Tensor | None = None
        self.attrs: dict[str, Any] = {"reduced": "none" if self.kept else "projection"}
        self.attrs["original_shape"] = list(layer_shape)
        if not self.kept:
            self.sparsity = max(3.0, math.sqrt(self.units))
            self.attrs |= {
                "projection": "very sparse random signs, density 1/sqrt(units)",
                "projection_seed": seed,
                "projection_density": 1 / self.sparsity,
                "projection_eps": _eps_of(components, n_stimuli),
                "projection_bound": "Johnson-Lindenstrauss: squared distances of all pairs within 1 ± projection_eps",
            }

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Project a batch of shape (stimuli, *layer_shape) to (stimuli, components)."""
        flat = batch.flatten(1)
        if self.kept:
            return flat
        if self._matrix is None or self._matrix.device != flat.device:
            self._matrix = self.matrix().to(flat.device)
        return torch.mm(self._matrix, flat.T.contiguous()).T

    def matrix(self) -> torch.Tensor:
        """Draw the projection.

        Returns
        -------
        torch.Tensor
            Sparse CSR, float32, shape (components, units): the transpose of the projection matrix.
        """
        import warnings

        key = int.from_bytes(hashlib.sha256(f"{self.seed}\0{self.layer}".encode()).digest()[:16], "little")
        rng = np.random.Generator(np.random.Philox(key=key))
        density = 1 / self.sparsity
        total = self.components * self.units
        # Gaps between non-zero entries of the flattened matrix are geometric: exactly the independent draws
        # of the definition, without visiting the zeros.
        places, last = [], -1
        while last < total:
            gaps = rng.geometric(density, size=min(_ENTRIES_AT_ONCE, int((total - last) * density * 1.1) + 64))
            found = last + np.cumsum(gaps, dtype=np.int64)
            last = int(found[-1])
            places.append(found[found < total])
        flat = np.concatenate(places)
        rows, columns = np.divmod(flat, self.units)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.components))])
        size = np.float32(math.sqrt(self.sparsity / self.components))
        values = np.where(rng.integers(0, 2, size=len(flat), dtype=np.int8) == 1, size, -size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                torch.from_numpy(starts.astype(np.int32)),
                torch.from_numpy(columns.astype(np.int32)),
                torch.from_numpy(values),
                size=(self.components, self.units),
                check_invariants=False,
            )


def _eps_of(components: int, n_stimuli: int) -> float:
    """The distortion that the bound promises for this many components; 1 (nothing) where they are too few."""
    low, high = 1e-6, 1 - 1e-6
    if johnson_lindenstrauss(n_stimuli, high) > components:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if johnson_lindenstrauss(n_stimuli, middle) > components else (low, middle)
    return round(high, 6)


class PrincipalComponents:
    """Scores on the principal components of a stated set of stimuli.

    The components come from the n × n Gram matrix of the centred activations of n fit stimuli, never from
    the p × p covariance of p units: with ``K = Xc Xcᵀ = U diag(λ) Uᵀ`` the axes are
    ``V = Xcᵀ U diag(λ)^(-1/2)``. The sign of each axis is fixed so that the fit stimulus with the largest
    absolute score has a positive one.

    Parameters
    ----------
    layer : str
        Name of the layer.
    layer_shape : tuple of int
        Shape of one stimulus in the layer.
    components : int
        Number of components, at most the number of fit stimuli minus one and the number of units.
    """

    def __init__(self, layer: str, layer_shape: tuple[int, ...], components: int) -> None:
        self.layer = layer
        self.units = math.prod(layer_shape)
        self.components = min(components, self.units)
        self.shape: tuple[int, ...] = (self.components,)
        self.attrs: dict[str, Any] = {"reduced": "pca", "original_shape": list(layer_shape)}
        self._axes: torch.Tensor | None = None
        self._mean: torch.Tensor | None = None

    def fit(self, activations: torch.Tensor) -> None:
        """Find mean and axes.

        Parameters
        ----------
        activations : torch.Tensor
            float32, shape (fit stimuli, units). Overwritten (centred) to save memory.

        Raises
        ------
        InputError
            If the activations are not finite.
        """
        mean = activations.mean(0, dtype=torch.float64).to(torch.float32)
        centred = activations.sub_(mean)
        gram = torch.zeros((len(centred), len(centred)), dtype=torch.float64, device=centred.device)
        step = max(1, 2**24 // len(centred))
        for start in range(0, self.units, step):  # float64 in column blocks: the layer is never doubled in memory
            part = centred[:, start : start + step].to(torch.float64)
            gram += part @ part.T
        if not bool(torch.isfinite(gram).all()):
            raise InputError(f"layer {self.layer!r} has NaN or infinite activations on the stimuli that fit its PCA")
        values, vectors = torch.linalg.eigh(gram.cpu())
        values, vectors = values.flip(0), vectors.flip(1)
        # Axes along which the fit stimuli do not vary beyond float32 rounding get the score 0, not noise.
        rank = int((values > values[0].clamp(min=0) * len(values) * 1e-7).sum()) if values[0] > 0 else 0
        values, vectors = values[: self.components], vectors[:, : self.components]
        largest = vectors.abs().argmax(0)
        vectors = vectors * torch.sign(vectors.gather(0, largest[None]))
        inverse = torch.where(torch.arange(self.components) < rank, values.clamp(min=1e-300).rsqrt(), 0.0)
        weights = (vectors * inverse).to(device=centred.device, dtype=torch.float32)
        self._axes = weights.T @ centred
        self._mean = mean
        share = values.clamp(min=0) / torch.trace(gram).cpu().clamp(min=1e-300)
        self.attrs["pca_rank"] = rank
        self.attrs["explained_variance_ratio"] = [round(float(value), 6) for value in share]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Give the scores of a batch of shape (stimuli, *layer_shape) as (stimuli, components)."""
        if self._axes is None or self._mean is None:
            raise RuntimeError(f"the PCA of layer {self.layer!r} was not fitted")
        return (batch.flatten(1) - self._mean) @ self._axes.T
