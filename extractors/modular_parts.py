"""Where the parts of a network of modules are: their units, their weights, and the images that each of them sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from actkit.extractors.digit_pairs import Glyphs
from actkit.extractors.modular_rnn import ModularOptions
from actkit.extractors.modular_samples import Samples
from actkit.extractors.modular_training import Trained

__all__ = ["module_names", "parts_of_units", "parts_of_weights", "shown_images"]

_PAIRS_DRAW = 7  # apart from the draws of record_states


def module_names(modules: int) -> list[str]:
    """Names of the modules, ``module 0`` first."""
    return [f"module {m}" for m in range(modules)]


def parts_of_units(options: ModularOptions) -> dict[str, np.ndarray]:
    """Units of each module in recorded states.

    Parameters
    ----------
    options : ModularOptions
        The network.

    Returns
    -------
    dict of str to numpy.ndarray of int
        ``(n,)`` indices by name of the module.
    """
    n = options.size
    return {name: np.arange(m * n, (m + 1) * n) for m, name in enumerate(module_names(options.modules))}


def parts_of_weights(options: ModularOptions, outputs: int, n_classes: int) -> dict[str, np.ndarray]:
    """Part of every weight that a weight mask may remove.

    Recurrent weights belong to the module that they are in, read-outs to the module that they read. Connections between
    modules, input weights and biases are in no part: a mask always keeps them.

    Parameters
    ----------
    options : ModularOptions
        The network.
    outputs, n_classes : int
        Outputs of the task, and classes of each.

    Returns
    -------
    dict of str to numpy.ndarray of int
        By name of the parameter of :class:`ModularRNN`: number of the module, or -1.
    """
    n, modules = options.size, options.modules
    gates = 3 if options.cell == "gru" else 1
    module = np.repeat(np.arange(modules), n)
    block = np.where(module[:, None] == module[None, :], module[:, None], -1)
    np.fill_diagonal(block, -1)  # no unit sends to itself
    parts = {"weights.recurrent": np.tile(block, (gates, 1))}
    if options.readout == "separate":
        width = options.bottleneck or n
        own = np.arange(modules)[:, None, None]
        parts["weights.read_weight"] = np.broadcast_to(own, (modules, outputs * n_classes, width)).copy()
        if options.bottleneck is not None:
            parts["weights.squeeze_weight"] = np.broadcast_to(own, (modules, options.bottleneck, n)).copy()
    return parts


def shown_images(networks: Sequence[Trained], glyphs: Glyphs) -> tuple[torch.Tensor, np.ndarray]:
    """Pairs of images without noise, each network's own.

    Parameters
    ----------
    networks : sequence of Trained
        Networks with the same number of modules.
    glyphs : Glyphs
        The images.

    Returns
    -------
    images : torch.Tensor
        ``(network, stimulus, module, pixels)``.
    labels : numpy.ndarray of int
        ``(network, stimulus, module)``. Networks of the same seed and world see the same pairs; with unequal numbers of
        balanced pairs, as many as the fewest.
    """
    drawn: dict[tuple[int, str], Samples] = {}
    keys = []
    for one in networks:
        key = (one.options.seed, one.world.model_dump_json())
        keys.append(key)
        if key not in drawn:
            seed = (one.options.seed << 18) + (_PAIRS_DRAW << 1) + 1
            drawn[key] = Samples.draw(glyphs, one.world, seed, one.options.modules, test=True)
    n = min(len(samples.pairs) for samples in drawn.values())
    images = torch.stack([drawn[key].images[torch.from_numpy(drawn[key].pairs.rows[:n])] for key in keys])
    return images, np.stack([drawn[key].pairs.labels[:n] for key in keys])
