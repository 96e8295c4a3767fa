"""Read-outs of parts: small heads trained on frozen states, those of all networks, parts and sub-tasks in one program.

Source: Béna & Goodman (2025), Nature Communications 16:187: state → 30 ReLU → classes, one head for all time steps, the
states of the other parts held at zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from actkit.resampling import Stream, generator

__all__ = ["HeadSettings", "Heads", "fit_heads"]

# oneDNN multiplies matrices twice as fast as MKL where MKL does not use all that a processor can do.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass(frozen=True)
class HeadSettings:
    """How heads are trained.

    Attributes
    ----------
    hidden : int
        Hidden ReLU units; 0: a linear head.
    epochs, batch : int
        Passes over the training stimuli, and stimuli of a batch; what is left over is dropped.
    learning_rate, weight_decay : float
        Of AdamW.
    seed : int
        Seed of first weights and order, the same for all networks.
    """

    hidden: int = 30
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    seed: int = 0


@dataclass(frozen=True)
class Heads:
    """Trained heads of networks R, views V (sets of units that they see) and sub-tasks Q, with C classes at most.

    Attributes
    ----------
    views : torch.Tensor
        ``(V, units)`` 1 where a view sees a unit.
    first, first_bias : torch.Tensor or None
        ``(R, V, Q, hidden, units)`` and ``(R, V, Q, 1, hidden)``; None for linear heads.
    last, last_bias : torch.Tensor
        ``(R, V, Q, C, width)`` and ``(R, V, Q, 1, C)``; classes that a sub-task does not have are at minus infinity.
    """

    views: torch.Tensor
    first: torch.Tensor | None
    first_bias: torch.Tensor | None
    last: torch.Tensor
    last_bias: torch.Tensor

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Answers to states ``(R, n, units)``: ``(R, V, Q, n, C)``."""
        networks, n = states.shape[:2]
        if self.first is None or self.first_bias is None:
            seen = (self.last * self.views[None, :, None, None]).flatten(1, 3)
            out = torch.bmm(states, seen.mT).view(networks, n, *self.last.shape[1:4]).permute(0, 2, 3, 1, 4)
            return out + self.last_bias
        # One product for all views and sub-tasks of a network.
        seen = (self.first * self.views[None, :, None, None]).flatten(1, 3)
        hidden = torch.bmm(states, seen.mT).view(networks, n, *self.first.shape[1:4]).permute(0, 2, 3, 1, 4)
        return torch.relu(hidden + self.first_bias) @ self.last.mT + self.last_bias

    def right(self, states: torch.Tensor, labels: torch.Tensor, batch: int = 4096) -> Iterator[torch.Tensor]:
        """Which answers are right, batch after batch of stimuli.

        Parameters
        ----------
        states, labels, batch
            As for :meth:`accuracy`.

        Yields
        ------
        torch.Tensor of bool
            ``(R, V, Q, stimuli of the batch, steps)``; false where a sub-task is not asked.
        """
        networks, n, steps, units = states.shape
        with torch.no_grad():
            for start in range(0, n, max(1, batch // steps)):
                part = states[:, start : start + max(1, batch // steps)]
                logits = self.logits(part.reshape(networks, -1, units))
                guess = logits.argmax(dim=-1).view(*logits.shape[:3], part.shape[1], steps)
                yield guess == labels[:, start : start + part.shape[1]].mT[:, None, :, :, None]

    def accuracy(self, states: torch.Tensor, labels: torch.Tensor, batch: int = 4096) -> np.ndarray:
        """Share of right answers, among stimuli that a sub-task is asked of.

        Parameters
        ----------
        states : torch.Tensor
            ``(R, n, steps, units)``.
        labels : torch.Tensor of int
            ``(R, n, Q)``; negative: not asked.
        batch : int
            Stimuli that are answered together.

        Returns
        -------
        numpy.ndarray of float64
            ``(R, V, Q, steps)``; NaN where nothing is asked.
        """
        asked = (labels >= 0).sum(dim=1).double()
        right = torch.stack([one.sum(dim=3) for one in self.right(states, labels, batch)]).sum(dim=0)
        return (right / asked[:, None, :, None]).numpy()


def fit_heads(
    states: torch.Tensor, labels: torch.Tensor, n_classes: list[int], views: torch.Tensor, settings: HeadSettings
) -> Heads:
    """Train a head for every network, view and sub-task, together.

    Parameters
    ----------
    states : torch.Tensor
        ``(R, n, steps, units)`` float32, not changed.
    labels : torch.Tensor of int
        ``(R, n, Q)`` class of each stimulus in each sub-task; negative: not asked, which neither adds to the loss nor
        counts among the stimuli that it is the mean of.
    n_classes : list of int
        Classes of each sub-task.
    views : torch.Tensor
        ``(V, units)`` 1 where a view sees a unit.
    settings : HeadSettings
        How they are trained.

    Returns
    -------
    Heads
        Losses are added up and AdamW works element by element, so each head is trained as it would be alone. All time
        steps of a stimulus are in one batch.
    """
    networks, n, _, units = states.shape
    tasks, most = len(n_classes), max(n_classes)
    random = generator(settings.seed, 0, Stream.SUBJECTS)

    def draw(fan_in: int, *shape: int) -> torch.nn.Parameter:
        bound = 1 / math.sqrt(fan_in)
        drawn = torch.from_numpy(random.uniform(-bound, bound, size=shape).astype(np.float32))
        return torch.nn.Parameter(drawn.expand(networks, *shape).clone())

    shape = (len(views), tasks)
    first = draw(units, *shape, settings.hidden, units) if settings.hidden else None
    first_bias = draw(units, *shape, 1, settings.hidden) if settings.hidden else None
    width = settings.hidden or units
    last, last_bias = draw(width, *shape, most, width), draw(width, *shape, 1, most)
    absent = torch.zeros(tasks, 1, most)
    for task, count in enumerate(n_classes):
        absent[task, 0, count:] = -math.inf
    heads = Heads(views.to(states.dtype), first, first_bias, last, last_bias)
    parameters = [value for value in (first, first_bias, last, last_bias) if value is not None]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    batch = min(settings.batch, n)
    labels = labels.clamp(min=-1)
    for epoch in range(settings.epochs):
        order = generator(settings.seed, epoch, Stream.STIMULI).permutation(n)
        for start in range(0, n - batch + 1, batch):
            rows = torch.from_numpy(order[start : start + batch])
            _set_gradients(heads, absent, states[:, rows], labels[:, rows])
            optimiser.step()

    def kept(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.detach()

    return Heads(heads.views, kept(first), kept(first_bias), last.detach(), last_bias.detach() + absent)


@torch.no_grad()
def _set_gradients(heads: Heads, absent: torch.Tensor, shown: torch.Tensor, labels: torch.Tensor) -> None:
    """Give every parameter the gradient of its own head's loss, the mean cross-entropy over stimuli and steps.

    It is written out, network by network: what a network needs then stays in the cache, and stimuli are the last axis
    of the logits, so that what goes over classes is done for many of them at once.
    """
    networks, n, steps, units = shown.shape
    views, tasks, most = len(heads.views), *heads.last.shape[2:4]
    asked = labels >= 0  # (R, n, Q)
    weight = asked / (asked.sum(dim=1, keepdim=True).clamp(min=1) * steps)
    hot = (labels.mT[:, :, None] == torch.arange(most)[:, None]).to(shown.dtype)  # (R, Q, C, n)
    last_grad, last_bias_grad = _gradient(heads.last), _gradient(heads.last_bias)
    seen_units = heads.views[:, None, None]  # (V, 1, 1, U)
    for r in range(networks):
        states = shown[r].reshape(-1, units)
        last = heads.last[r].flatten(0, 1)  # (V Q, C, width)
        bias = (heads.last_bias[r] + absent).flatten(0, 1).mT
        if heads.first is None or heads.first_bias is None:
            flat = (heads.last[r] * seen_units).flatten(0, 2)
            logits = _product(flat, states).view(views * tasks, most, -1) + bias
        else:
            flat = (heads.first[r] * seen_units).flatten(0, 2)
            hidden = _product(states, flat).add_(heads.first_bias[r].flatten()).relu_()
            parted = hidden.view(len(states), views * tasks, -1).transpose(0, 1)  # (V Q, stimuli and steps, width)
            logits = torch.baddbmm(bias, last, parted.mT)
        share = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
        share /= share.sum(dim=1, keepdim=True)
        # Probabilities become the gradient of the logits in place.
        share.view(views, tasks, most, n, steps).sub_(hot[r, ..., None]).mul_(weight[r].mT[:, None, :, None])
        back = share
        last_bias_grad[r] = back.sum(dim=2).view(heads.last_bias[r].shape)
        if heads.first is None or heads.first_bias is None:
            last_grad[r] = _product(back.flatten(0, 1), states.T).view(heads.last[r].shape) * seen_units
            continue
        last_grad[r] = torch.bmm(back, parted).view(heads.last[r].shape)
        towards = torch.bmm(back.mT, last).transpose(0, 1).reshape(hidden.shape)
        towards = torch.ops.aten.threshold_backward(towards, hidden, 0)
        _gradient(heads.first_bias)[r] = towards.sum(dim=0).view(heads.first_bias[r].shape)
        _gradient(heads.first)[r] = _product(towards.T, states.T).view(heads.first[r].shape) * seen_units


def _gradient(value: torch.Tensor) -> torch.Tensor:
    """The gradient of a parameter, made where there is none yet."""
    if value.grad is None:
        value.grad = torch.empty_like(value)
    return value.grad


def _product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x @ weight.T`` of large matrices."""
    if _ONEDNN and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.T
