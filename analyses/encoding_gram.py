"""Inner products of stimuli, from which encoding models are fitted, and copies of stimuli that they betray."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from actkit.analyses.source import Layer
from actkit.compute import format_bytes, parse_bytes
from actkit.errors import InputError

_MATRICES = 6  # n × n matrices that are in memory together while a layer is fitted


def layer_gram(
    layer: Layer, rows: np.ndarray, n: int, stimuli: Sequence[str], memory: str, held: int = 0
) -> np.ndarray:
    """Inner products of the stimuli, units centred over all of them (for rounding; folds centre again).

    Parameters
    ----------
    layer : Layer
        What to read.
    rows : numpy.ndarray of int
        ``(n_stimuli,)`` its rows that are wanted.
    n : int
        Rows that it has.
    stimuli : sequence of str
        Ids of the wanted rows, for messages.
    memory : str
        Most memory to use.
    held : int
        Such matrices that are in memory beside.

    Returns
    -------
    numpy.ndarray of float64
        ``(n_stimuli, n_stimuli)``.

    Raises
    ------
    InputError
        If the layer has no units or values that are not finite, or the memory is too small.
    """
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units to predict from; leave it out")
    budget, square, least = parse_bytes(memory), 8 * len(rows) ** 2, 8 * n
    if budget < (_MATRICES + held) * square + 4 * least:
        raise InputError(
            f"memory={memory!r} is too small for {len(rows)} stimuli: products and one block need "
            f"{format_bytes((_MATRICES + held) * square + 4 * least)}; give at least that much"
        )
    gram = np.zeros((len(rows), len(rows)))
    for block in layer.blocks((budget - (2 + held) * square) // 4):
        host = block.detach().cpu().double().numpy() if hasattr(block, "detach") else np.asarray(block)
        values = host[rows].astype(np.float64, copy=False)
        if not np.isfinite(values).all():
            bad = stimuli[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            raise InputError(
                f"layer {layer.name!r} holds NaN or infinite activations (stimulus {bad!r}), from which nothing can be "
                "predicted; record the layer again in float32, or leave these stimuli out"
            )
        mean = values.mean(axis=0)
        values = values - mean
        # A spread of a few rounding steps is none.
        values[:, np.abs(values).max(axis=0) <= 10 * np.finfo(np.float64).eps * np.abs(mean)] = 0.0
        gram += values @ values.T
    return gram


def same_patterns(gram: np.ndarray) -> np.ndarray:
    """Find pairs of stimuli whose patterns are equal up to the rounding of single precision.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products.

    Returns
    -------
    numpy.ndarray of bool
        ``(n, n)``.
    """
    length = np.diag(gram)
    total = length[:, None] + length[None, :]
    return (total - 2 * gram <= 1e-10 * total) | (total <= 1e-14 * max(float(length.mean()), 1e-300))


def warn_copies(twins: np.ndarray, test_fold: np.ndarray, stimuli: Sequence[str], stacklevel: int = 4) -> None:
    """Say when copies of a stimulus are on both sides of a split.

    Parameters
    ----------
    twins : numpy.ndarray of bool
        ``(n, n)`` pairs of stimuli that are the same in every layer.
    test_fold : numpy.ndarray of int
        ``(n,)`` fold in which each stimulus is held out.
    stimuli : sequence of str
        Their ids.
    stacklevel : int
        Calls between the warning and the user's line.

    Warns
    -----
    UserWarning
        With the number of such pairs and the cure.
    """
    across = np.triu(twins & (test_fold[:, None] != test_fold[None, :]), 1)
    if across.any() and not twins.all():  # all equal: a constant layer, not copies
        i, j = np.argwhere(across)[0]
        warnings.warn(
            f"{int(across.sum())} pairs of stimuli in different folds have the same activations in every layer (the "
            f"first: {stimuli[i]!r} and {stimuli[j]!r}), so held-out scores are too high if they are copies of one "
            "image; give groups=, or the coordinate 'group' of the recording",
            stacklevel=stacklevel,
        )
