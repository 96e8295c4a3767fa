"""Centred Gram matrices of layers: activations streamed once, n × n numbers kept of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from actkit.analyses.gram import WIDTH, GramSums, NonFiniteError, NumpyGram, OverflowInGramError, TorchGram
from actkit.analyses.gram_similarity import Shape, centred, decompose
from actkit.analyses.source import Layer, Source
from actkit.compute import format_bytes, parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError

Precision = Literal["float32", "float64"]

# A unit whose values differ by less than this many rounding steps of its mean does not vary.
_ROUNDING_STEPS = 4


@dataclass(frozen=True)
class Reading:
    """How layers are read.

    Attributes
    ----------
    dtype : {"auto", "float32", "float64"}
        Precision of products within a block; ``"auto"`` follows `single` and the data.
    single : bool
        Whether float32 will do for float32 data: square roots of small eigenvalues would show its rounding.
    device : str
        ``"auto"`` follows the data; any torch device name.
    memory : str
        Most memory to use, such as ``"2GB"``.
    """

    dtype: Literal["auto", "float32", "float64"]
    single: bool
    device: str
    memory: str

    def precision(self, layer: Layer) -> Precision:
        """Precision of the products of one layer."""
        if self.dtype != "auto":
            return self.dtype
        return "float32" if self.single and not layer.double else "float64"

    def block_bytes(self, layer: Layer, n: int, n_layers: int) -> int:
        """Share the memory: Gram matrices and their decompositions stay, blocks have the rest.

        Parameters
        ----------
        layer : Layer
            The layer to be read.
        n, n_layers : int
            Stimuli, and layers whose Gram matrices are kept.

        Returns
        -------
        int
            Bytes for blocks.

        Raises
        ------
        InputError
            If nothing is left for them.
        """
        fixed = 8 * n * (2 * n * n_layers + 4 * n + min(WIDTH, layer.n_units))
        room, smallest = parse_bytes(self.memory) - fixed, 2 * n * layer.itemsize
        if room < smallest:
            raise InputError(
                f"memory={self.memory!r} is too small for {n_layers} layers with {n} stimuli: Gram matrices and the "
                f"smallest block need {format_bytes(fixed + smallest)}; give more than that, or choose fewer layers"
            )
        return room


@dataclass(frozen=True)
class LayerGrams:
    """The layers of one source, as centred Gram matrices.

    Attributes
    ----------
    source : Source
        Where they are from.
    layers : list of Layer
        The layers.
    grams : numpy.ndarray
        ``(layers, n, n)``: products of the patterns minus the mean of every unit. NaN for a layer that does not vary.
    eps : numpy.ndarray
        ``(layers,)`` rounding step of the precision of the products.
    """

    source: Source
    layers: list[Layer]
    grams: np.ndarray
    eps: np.ndarray

    @property
    def names(self) -> list[str]:
        """Names of the layers."""
        return [layer.name for layer in self.layers]

    @property
    def flat(self) -> np.ndarray:
        """Which layers do not vary, ``(layers,)``."""
        return np.isnan(self.grams[:, 0, 0])

    def shapes(self, grams: np.ndarray | None = None) -> list[Shape | None]:
        """Decompose the Gram matrices, or others of the same layers; None for a layer that does not vary."""
        matrices = self.grams if grams is None else grams
        return [decompose(gram, eps) for gram, eps in zip(matrices, self.eps, strict=True)]

    def reordered(self, order: np.ndarray) -> LayerGrams:
        """Take the stimuli in another order."""
        return LayerGrams(self.source, self.layers, self.grams[:, order[:, None], order], self.eps)


def read_grams(
    source: Source, layers: Sequence[Layer], n_layers: int, reading: Reading, progress: bool | None = None
) -> LayerGrams:
    """Stream every layer into its centred Gram matrix.

    Parameters
    ----------
    source : Source
        Stimuli and layers.
    layers : sequence of Layer
        Which layers.
    n_layers : int
        Layers whose Gram matrices share the memory, those of other sources too.
    reading : Reading
        Precision, device and memory.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    LayerGrams
        One matrix for each layer.

    Raises
    ------
    InputError
        If a layer has no units, values are not finite (naming layer and stimuli) or the memory is too small.
    """
    n = len(source.ids)
    grams, eps = np.empty((len(layers), n, n)), np.empty(len(layers))
    for row, layer in enumerate(progress_bar(layers, desc="Gram matrices", unit="layer", enabled=progress)):
        if layer.n_units < 1:
            raise InputError(f"layer {layer.name!r} has no units, so it cannot be compared; leave it out")
        most, dtype = reading.block_bytes(layer, n, n_layers), reading.precision(layer)
        try:
            try:
                gram, size = _gram(layer, n, dtype, most, reading.device)
            except OverflowInGramError:  # finite float32 values above 1e19 have no float32 square
                dtype = "float64"
                gram, size = _gram(layer, n, dtype, most, reading.device)
        except NonFiniteError as error:
            raise _not_finite(layer, source.ids, error.rows) from None
        except OverflowInGramError:
            raise InputError(
                f"layer {layer.name!r} holds values whose squares exceed the range of float64; scale them down"
            ) from None
        eps[row] = np.finfo(dtype).eps
        grams[row] = centred(gram)
        if np.trace(grams[row]) <= (_ROUNDING_STEPS * eps[row]) ** 2 * size:
            grams[row] = np.nan
    return LayerGrams(source, list(layers), grams, eps)


def _not_finite(layer: Layer, ids: np.ndarray, rows: np.ndarray) -> InputError:
    """Name the stimuli with NaN or infinite activations."""
    named = ", ".join(repr(str(ids[row])) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return InputError(
        f"layer {layer.name!r} holds NaN or infinite activations for the stimuli {named}{more}: its similarity to "
        "every layer would be NaN. Record the layer again in float32, or leave these stimuli out"
    )


def _gram(layer: Layer, n: int, dtype: Precision, most: int, device: str) -> tuple[np.ndarray, float]:
    """Sums of products of one layer's patterns minus the units' means, and the sum of squares of those means."""
    where = layer.device if device == "auto" else device
    sums: GramSums
    if where is None:
        sums = NumpyGram(n, "unit", dtype)
    else:
        from actkit.compute import choose_device

        sums = TorchGram(n, "unit", dtype, choose_device(where))
    size = 0.0
    for block in unit_blocks(layer, most):
        sums.add(block)
        size += _mean_squares(block)
        del block
    return sums.result()[0], n * size


def unit_blocks(layer: Layer, most: int) -> Iterator[Any]:
    """Read blocks of units, none of which is held while the next one is read.

    Parameters
    ----------
    layer : Layer
        The layer.
    most : int
        Most bytes of blocks.

    Yields
    ------
    numpy.ndarray or torch.Tensor
        ``(n, width)``.
    """
    blocks = layer.blocks(most)
    while (block := next(blocks, None)) is not None:
        yield block
        del block


def _mean_squares(block: Any) -> float:
    """Sum over units of the squared mean."""
    if isinstance(block, np.ndarray):
        return float(np.square(block.mean(axis=0, dtype=np.float64)).sum())
    return float((block.float().mean(dim=0).double().cpu() ** 2).sum())
