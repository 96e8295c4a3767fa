"""Many networks of modules computed as one: their states, their answers and their gradients.

Networks of one shape that see the same batches are stacked along a leading axis, so that inputs are projected by one
wide product instead of many narrow ones. Gradients are written out by hand, which needs neither a graph nor copies;
networks do not touch each other, so each has the gradient that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actkit.extractors.digit_tasks import Decision, decide
from actkit.extractors.modular_rnn import ModularOptions, advance, mask_of, read_out

__all__ = ["Stack"]

# oneDNN multiplies matrices twice as fast as MKL where MKL does not use all that a processor can do.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_LARGE = 64  # side of the smallest matrices for which that holds against a product of several at once


@dataclass
class Stack:
    """Networks of one shape that see the same batches, along a leading axis.

    Attributes
    ----------
    options : ModularOptions
        What they have in common (modules, units, cell, read-outs).
    members : list of int
        Numbers of the networks.
    stream : int
        Number of the stream of batches that they see.
    weights : dict of str to torch.Tensor
        As in :func:`actkit.extractors.modular_rnn.initial_weights`, each with a leading axis of networks.
    mask : torch.Tensor
        ``(networks, gates * modules * n, modules * n)``, 1 where there is a connection.
    outputs : int
        Outputs of the task.
    """

    options: ModularOptions
    members: list[int]
    stream: int
    weights: dict[str, torch.Tensor]
    mask: torch.Tensor
    outputs: int

    @classmethod
    def of(
        cls,
        networks: Sequence[ModularOptions],
        members: Sequence[int],
        stream: int,
        weights: Sequence[dict[str, torch.Tensor]],
        outputs: int,
    ) -> Stack:
        """Put networks together.

        Parameters
        ----------
        networks : sequence of ModularOptions
            The networks, alike but for p and seed.
        members : sequence of int
            Their numbers.
        stream : int
            Number of the stream of batches that they see.
        weights : sequence of dict of str to torch.Tensor
            Weights of each.
        outputs : int
            Outputs of the task.

        Returns
        -------
        Stack
            With copies of the weights.
        """
        gates = 3 if networks[0].cell == "gru" else 1
        return cls(
            networks[0],
            list(members),
            stream,
            {name: torch.stack([one[name] for one in weights]) for name in weights[0]},
            torch.stack([mask_of(one).float().repeat(gates, 1) for one in networks]),
            outputs,
        )

    @property
    def gates(self) -> int:
        """Gates of the cell, 1 or 3."""
        return 3 if self.options.cell == "gru" else 1

    def take(self, kept: Sequence[int] | np.ndarray) -> Stack:
        """Some of the networks, by position, with copies of their weights."""
        at = torch.as_tensor([int(k) for k in kept], dtype=torch.int64)
        weights = {name: value.detach()[at] for name, value in self.weights.items()}
        return Stack(
            self.options, [self.members[int(k)] for k in kept], self.stream, weights, self.mask[at], self.outputs
        )

    @torch.no_grad()
    def states(self, frames: torch.Tensor) -> torch.Tensor:
        """Run all networks.

        Parameters
        ----------
        frames : torch.Tensor
            What is shown, ``(steps, samples, modules, pixels)``.

        Returns
        -------
        torch.Tensor
            State after each step, ``(networks, steps, samples, modules * n)``.
        """
        drive = self._drive(frames)
        recurrent = self.weights["recurrent"] * self.mask
        if self.options.cell == "tanh":
            return _tanh_course(drive, recurrent).mT
        states: list[torch.Tensor] = []
        for given in drive.mT.contiguous().unbind(1):
            states.append(advance(self.options, recurrent, given, states[-1] if states else None))
        return torch.stack(states, dim=1)

    @torch.no_grad()
    def answers(self, state: torch.Tensor, decision: Decision) -> torch.Tensor:
        """Decided logits ``(networks, samples, modules or 1, outputs, classes)`` of states ``(networks, samples,
        modules * n)``.
        """
        logits = read_out(self.options, self.weights, state.contiguous(), self.outputs)
        return logits if logits.shape[-3] == 1 else decide(logits, decision)

    @torch.no_grad()
    def gradients(self, frames: torch.Tensor, targets: torch.Tensor, decision: Decision) -> dict[str, torch.Tensor]:
        """Gradient of every network's own loss on a batch.

        The loss is the cross-entropy of the decided answers at the last step, mean over samples and outputs (and
        modules, where each answers for itself).

        Parameters
        ----------
        frames : torch.Tensor
            What is shown, ``(steps, samples, modules, pixels)``.
        targets : torch.Tensor of int
            Right answers ``(samples, modules, outputs)``.
        decision : {"max", "sum", "each"}
            How the modules' answers become one.

        Returns
        -------
        dict of str to torch.Tensor
            Gradient of every weight, in its shape.
        """
        drive = self._drive(frames)
        recurrent = self.weights["recurrent"] * self.mask
        if self.options.cell == "tanh":
            course = _tanh_course(drive, recurrent)
            back, found = self._read_gradients(course[:, -1], targets, decision)
            towards, found["recurrent"] = _tanh_gradients(course, back, recurrent)
        else:
            with torch.enable_grad():
                leaves = [drive.mT.contiguous().requires_grad_(), recurrent.requires_grad_()]
                state: torch.Tensor | None = None
                for given in leaves[0].unbind(1):
                    state = advance(self.options, recurrent, given, state)
                assert state is not None  # there is a step at least
            back, found = self._read_gradients(state.detach().mT, targets, decision)
            given, found["recurrent"] = torch.autograd.grad(state, leaves, back.mT)
            towards = given.mT
        found["recurrent"].mul_(self.mask)
        found["input"] = self._input_gradients(frames, towards)
        return found

    def _drive(self, frames: torch.Tensor) -> torch.Tensor:
        """Inputs times input weights, ``(networks, steps, gates * modules * n, samples)``.

        Samples come last here and below: the products then give what is needed next without a transpose, and what goes
        over classes and modules is done for many samples at once.
        """
        steps, samples, modules, pixels = frames.shape
        networks, gates, n = len(self.members), self.gates, self.options.size
        flat = _of_modules(frames)
        drive = frames.new_empty(networks, steps, gates, modules, n, samples)
        for m in range(modules):
            # One wide product for all networks.
            found = _product(self.weights["input"][:, m].reshape(-1, pixels), flat[m])
            drive[:, :, :, m] = found.view(networks, gates, n, steps, samples).permute(0, 3, 1, 2, 4)
        return drive.flatten(2, 4)

    def _input_gradients(self, frames: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
        """Gradient of the input weights from that of the drive."""
        steps, samples, modules, pixels = frames.shape
        networks, gates, n = len(self.members), self.gates, self.options.size
        flat = _of_modules(frames)
        parted = towards.unflatten(2, (gates, modules, n))
        out = torch.empty_like(self.weights["input"])
        for m in range(modules):
            own = parted[:, :, :, m].permute(0, 2, 3, 1, 4).reshape(-1, steps * samples)
            out[:, m] = _product(own, flat[m].T).view(networks, gates * n, pixels)
        return out

    def _read_gradients(
        self, state: torch.Tensor, targets: torch.Tensor, decision: Decision
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Gradients of the last states ``(networks, modules * n, samples)`` and of the read-outs."""
        networks, _, samples = state.shape
        weight = self.weights["read_weight"].detach()
        readers = weight.shape[1]
        seen = state.reshape(networks * readers, -1, samples)
        narrow = seen
        if "squeeze_weight" in self.weights:
            squeeze = self.weights["squeeze_weight"].detach().flatten(0, 1)
            narrow = torch.baddbmm(self.weights["squeeze_bias"].detach().view(len(squeeze), -1, 1), squeeze, seen)
        flat = weight.flatten(0, 1)
        logits = torch.baddbmm(self.weights["read_bias"].detach().view(len(flat), -1, 1), flat, narrow)
        parted = logits.view(networks, readers, self.outputs, -1, samples)
        back = _decided_gradients(parted, targets, decision).reshape(logits.shape)
        found = {
            "read_weight": torch.bmm(back, narrow.mT).view_as(weight),
            "read_bias": back.sum(dim=-1).view_as(self.weights["read_bias"]),
        }
        towards = torch.bmm(flat.mT, back)
        if "squeeze_weight" in self.weights:
            found["squeeze_weight"] = torch.bmm(towards, seen.mT).view_as(self.weights["squeeze_weight"])
            found["squeeze_bias"] = towards.sum(dim=-1).view_as(self.weights["squeeze_bias"])
            towards = torch.bmm(squeeze.mT, towards)
        return towards.view(state.shape), found


def _of_modules(frames: torch.Tensor) -> torch.Tensor:
    """What each module is shown at all steps, ``(modules, steps * samples, pixels)``; a view of what noise makes."""
    return frames.permute(2, 0, 1, 3).flatten(1, 2).contiguous()


def _product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x @ weight.T`` of large matrices."""
    if _ONEDNN and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.T


def _add_products(to: torch.Tensor, x: torch.Tensor, y: torch.Tensor, fresh: bool = False) -> None:
    """Add ``x @ y`` of several matrices to what is there, or put it there; one by one where they are large enough."""
    if min(*x.shape[1:], y.shape[2]) < _LARGE or not _ONEDNN:
        if fresh:
            torch.bmm(x, y, out=to)
        else:
            torch.baddbmm(to, x, y, out=to)
        return
    for place, one, other in zip(to, x, y, strict=True):
        if fresh:
            place.copy_(_product(one, other.T))
        else:
            place.add_(_product(one, other.T))


def _tanh_course(drive: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    """States after every step, in the place of the drive ``(networks, steps, modules * n, samples)``."""
    for step in range(drive.shape[1]):
        now = drive[:, step]
        if step:
            _add_products(now, recurrent, drive[:, step - 1])
        # tanh x = 2 σ(2x) − 1, and σ is several times faster than torch's tanh.
        now.mul_(2).sigmoid_().mul_(2).sub_(1)
    return drive


def _tanh_gradients(
    states: torch.Tensor, back: torch.Tensor, recurrent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the drive and of the recurrent weights, from that of the last state, which is overwritten."""
    towards, weights = torch.empty_like(states), torch.zeros_like(recurrent)
    for step in reversed(range(states.shape[1])):
        now = towards[:, step]
        torch.ops.aten.tanh_backward.grad_input(back, states[:, step], grad_input=now)
        if step:
            _add_products(weights, now, states[:, step - 1].mT)
            _add_products(back, recurrent.mT, now, fresh=True)
    return towards, weights


def _decided_gradients(logits: torch.Tensor, targets: torch.Tensor, decision: Decision) -> torch.Tensor:
    """Gradient of the cross-entropy of the decision, for logits ``(networks, readers, outputs, classes, samples)``."""
    readers, outputs, classes, samples = logits.shape[1:]
    deciding: torch.Tensor | None = None
    decided = logits
    if readers > 1 and decision == "sum":
        decided = logits.sum(dim=1, keepdim=True)
    elif readers > 1 and decision == "max":
        # The first module of those with the largest logit, as argmax says, which is slow along a short axis.
        top = logits.amax(dim=3)
        leader, most = torch.zeros_like(top[:, 0], dtype=torch.int8), top[:, 0]
        for m in range(1, readers):
            leader.masked_fill_(top[:, m] > most, m)
            most = torch.maximum(most, top[:, m])
        deciding = (leader[:, None, :, None] == torch.arange(readers).view(-1, 1, 1, 1)).to(logits.dtype)
        decided = (logits * deciding).sum(dim=1, keepdim=True)
    right = targets[:, : decided.shape[1]].permute(1, 2, 0)[:, :, None]  # (readers, outputs, 1, samples)
    hit = (right == torch.arange(classes)[:, None]).to(logits.dtype)
    share = (decided - decided.amax(dim=3, keepdim=True)).exp_()
    share /= share.sum(dim=3, keepdim=True)
    back = share.sub_(hit).mul_(1 / (samples * decided.shape[1] * outputs))
    return back.expand_as(logits) if deciding is None else back * deciding
