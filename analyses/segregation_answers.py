"""Which images a network names correctly without some units, whatever outputs compete.

A sweep scores the output for every lesion. So that one pass serves the real tasks, masked and not, and every
pseudo-task of the null, an image's result is kept as the set of outputs that beat the right one, in bits: the image is
right among any set of allowed outputs if none of them is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from actkit.compute import parse_bytes, spans
from actkit.errors import InputError
from actkit.replay import sweep
from actkit.tasks import Task

# Sums of powers of two up to 2**47 are exact in float64.
_BITS = 48


class Beaten:
    """Score that keeps, for each image, the outputs that beat the right one, as bits.

    A larger logit beats a smaller one, and of equal ones the first: the image is right if nothing beats its target,
    just as with argmax.

    Parameters
    ----------
    targets : numpy.ndarray of int
        ``(image,)`` the right output.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._targets = torch.from_numpy(targets)

    def __call__(self, logits: torch.Tensor, images: slice) -> dict[str, torch.Tensor]:
        """Score a batch: ``bits0``, ``bits1``, …, 48 outputs each; NaN where an output is not finite."""
        right = self._targets[images].to(logits.device)[:, None]
        own = logits.gather(1, right)
        places = torch.arange(logits.shape[1], device=logits.device)[None]
        beats = ((logits > own) | ((logits == own) & (places < right))).cpu()
        # NaN beats nothing and would pass for right.
        broken = ~torch.isfinite(logits).all(1).cpu()
        found = {}
        for block, (start, stop) in enumerate(spans(logits.shape[1], _BITS)):
            power = 2.0 ** torch.arange(stop - start, dtype=torch.float64)
            bits = beats[:, start:stop].to(torch.float64) @ power
            found[f"bits{block}"] = bits.masked_fill(broken, torch.nan)
        return found


def right_among(bits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Tell which images are right when only some outputs compete.

    Parameters
    ----------
    bits : numpy.ndarray of int64
        ``(block, image)``: outputs that beat the right one.
    allowed : numpy.ndarray of int
        Outputs that compete; the right ones are among them.

    Returns
    -------
    numpy.ndarray of bool
        ``(image,)``.
    """
    right = np.ones(bits.shape[1], dtype=bool)
    for block, values in enumerate(bits):
        inside = allowed[(allowed >= block * _BITS) & (allowed < (block + 1) * _BITS)] - block * _BITS
        mask = np.int64(np.sum(np.int64(1) << inside.astype(np.int64))) if inside.size else np.int64(0)
        right &= (values & mask) == 0
    return right


def evaluate(
    module: torch.nn.Module,
    layer: str,
    task: Task,
    lesions: Sequence[np.ndarray],
    n_outputs: int,
    use: Callable[[int, np.ndarray], None],
    memory: str = "1GB",
) -> str:
    """Silence one set of units after another and hand on what each image's result is.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    task : Task
        Images.
    lesions : sequence of numpy.ndarray
        Sets of channels.
    n_outputs : int
        Outputs of the network.
    use : callable
        ``use(number, bits)`` with the lesion's number, -1 for the intact network, and int64 ``(block, image)``.
    memory : str
        Budget; results of some lesions at a time fit in a quarter of it.

    Returns
    -------
    str
        The way the sweep took.

    Raises
    ------
    InputError
        If an output is NaN or infinite.
    """
    blocks = -(-n_outputs // _BITS)
    together = max(1, parse_bytes(memory) // 4 // (8 * blocks * len(task)))
    method = "none"
    for start, stop in spans(max(len(lesions), 1), together):
        swept = sweep(module, layer, task.inputs, list(lesions[start:stop]), Beaten(task.targets), memory=memory)
        method = swept.method
        names = [f"bits{block}" for block in range(blocks)]
        if start == 0:
            use(-1, _whole(np.stack([swept.intact[name] for name in names]), layer, "the intact network"))
        for row in range(len(lesions[start:stop])):
            bits = np.stack([swept.values[name][row] for name in names])
            use(start + row, _whole(bits, layer, f"lesion {start + row}"))
    return method


def _whole(bits: np.ndarray, layer: str, what: str) -> np.ndarray:
    """Bits as integers, refusing NaN."""
    bad = np.isnan(bits).any(axis=0)
    if bad.any():
        raise InputError(
            f"layer {layer!r}: {what} gives NaN or infinite outputs for image {int(bad.argmax())}, so no answer can be "
            "read; look for NaN weights or overflow"
        )
    return bits.astype(np.int64)
