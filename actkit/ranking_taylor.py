"""First-order guesses at what every channel's lesion does to every image's loss, from one gradient an image."""

from __future__ import annotations

import numpy as np
import torch

from actkit.errors import LayerError
from actkit.layers import evaluating, module_paths
from actkit.ranking_engine import Engine
from actkit.replay_lesion import Lesion, channel_axis, find_site, intercepted
from actkit.tasks import image_losses

_BATCH = 32


def taylor(engine: Engine, masked: bool = False, rows: np.ndarray | None = None) -> np.ndarray:
    """Guess the loss increase of every channel's lesion to first order.

    The guess is the sum over the channel's positions of (silenced value - activation) × gradient of the image's loss
    (Molchanov et al. 2017, Pruning convolutional neural networks for resource efficient inference, ICLR, equation 8
    without the absolute value and the mean). It is exact where the loss is linear in the layer's output, and misses
    what saturates or bends: a confident image has a gradient near 0 whatever it would lose.

    Parameters
    ----------
    engine : Engine
        Network, layer, task, and how channels are silenced.
    masked : bool
        Whether the loss is taken over the task's own classes alone.
    rows : numpy.ndarray of int, optional
        Rows of the task; all by default.

    Returns
    -------
    numpy.ndarray of float64
        ``(channels, images)``, the channels of ``engine.channels``.

    Raises
    ------
    LayerError
        If the output does not depend on the layer through differentiable operations.
    InputError
        If a guess is not finite.
    """
    task = engine.task
    wanted = np.arange(engine.n_images) if rows is None else np.asarray(rows)
    site = find_site(engine.module, engine.layer)
    owner = module_paths(engine.module)[site.path]
    like = next((p for p in engine.module.parameters() if p.is_floating_point()), task.inputs)
    channels = torch.tensor(engine.channels)  # a copy: arrays from xarray can be read-only
    fill = engine.settings.get("fill")
    leaf: list[torch.Tensor] = []

    def cut(output: torch.Tensor) -> torch.Tensor:
        # The pass runs without gradients up to here, and builds a graph from here on only.
        torch.set_grad_enabled(True)
        leaf[:] = [output.detach().clone().requires_grad_()]
        return leaf[0].clone()  # an in-place operation that follows writes into this copy

    out = np.empty((len(channels), len(wanted)))
    with evaluating(engine.module), intercepted(engine.module, site, cut) as forward:
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            batch = task.inputs[torch.from_numpy(part)]
            logits = forward(batch.to(like.device, like.dtype if batch.is_floating_point() else batch.dtype))
            gradient = None
            if logits.requires_grad:
                with torch.enable_grad():
                    losses, _ = image_losses(logits, task.targets[part], task.classes if masked else None)
                    (gradient,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)
            if gradient is None:
                raise LayerError(
                    f"the output of {type(engine.module).__name__} has no gradient with respect to layer "
                    f"{engine.layer!r}, so strategies taylor and racing have no guess to go by; use "
                    "strategy='one_shot', which needs none"
                )
            activation = leaf[0].detach()
            axis = channel_axis(owner, activation)
            lesion = Lesion(axis, activation.shape[axis], None if fill is None else torch.as_tensor(fill))
            everything = torch.arange(activation.shape[axis], device=activation.device)
            change = (lesion.values(everything, activation) - activation) * gradient
            effect = change.double().movedim(axis, 1).flatten(2).sum(2) if change.ndim > 2 else change.double()
            out[:, start : start + len(part)] = effect[:, channels.to(effect.device)].T.cpu().numpy()
    engine.check(out, engine.channels[:, None], wanted)
    return out
