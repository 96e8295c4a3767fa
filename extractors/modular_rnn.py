"""A recurrent network of modules: dense within, few connections between, each module with an input of its own.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025); arXiv 2106.02626.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, field_validator

from actkit.errors import InputError
from actkit.extractors.digit_tasks import Decision, decide
from actkit.extractors.modular_wiring import connections, wiring
from actkit.options import Options
from actkit.resampling import Stream, generator

__all__ = ["ModularOptions", "ModularRNN", "advance", "initial_weights", "mask_of", "read_out"]


class ModularOptions(Options):
    """What a network of modules looks like."""

    modules: int = Field(2, ge=2, description="Number of modules.")
    units: int | list[int] = Field(25, description="Recurrent units of each module; modules are equally large.")
    p: float = Field(
        0.1,
        le=1,
        description="Share of the possible connections between two modules that there are; -k for exactly k, 0 for "
        "none.",
    )
    cell: Literal["tanh", "gru"] = Field("tanh", description="Recurrent cell.")
    readout: Literal["separate", "shared"] = Field(
        "separate", description="Each module answers through a read-out of its own, or one reads all modules."
    )
    bottleneck: int | None = Field(None, ge=1, description="Linear units between the state and the read-out; none: 0.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of weights, wiring and training.")

    @field_validator("units")
    @classmethod
    def _equal(cls, value: int | list[int]) -> int:
        sizes = [value] if isinstance(value, int) else value
        if not sizes or min(sizes) < 1:
            raise ValueError(f"{value} are not numbers of units; a module has one at least")
        if len(set(sizes)) > 1:
            raise ValueError(
                f"modules of {sizes} units are not equally large, and a difference between them could be one of size; "
                "give one number"
            )
        return sizes[0]

    @property
    def size(self) -> int:
        """Units of one module."""
        assert isinstance(self.units, int)  # the validator leaves a number
        return self.units


Weights = Mapping[str, torch.Tensor]


def mask_of(options: ModularOptions) -> torch.Tensor:
    """Draw which recurrent connections a network has.

    Parameters
    ----------
    options : ModularOptions
        The network.

    Returns
    -------
    torch.Tensor of bool
        ``(modules * n, modules * n)``, row: receiver, column: sender.
    """
    count = connections(options.p, options.size)
    return torch.from_numpy(wiring(options.modules, options.size, count, options.seed))


def initial_weights(options: ModularOptions, pixels: int, outputs: int, n_classes: int) -> dict[str, torch.Tensor]:
    """Draw the weights that a network starts from.

    Recurrent and input weights are uniform over ±1/√(modules · n), read-outs over ±1/√(their inputs), as torch draws
    them. For one seed they do not depend on p.

    Parameters
    ----------
    options : ModularOptions
        The network.
    pixels : int
        Inputs of a module.
    outputs, n_classes : int
        Outputs of the task, and classes of each.

    Returns
    -------
    dict of str to torch.Tensor
        ``input`` (modules, gates · n, pixels), ``recurrent`` (gates · modules · n, modules · n), ``read_weight``
        (readers, outputs · classes, width) and ``read_bias``; with a bottleneck ``squeeze_weight`` (readers,
        bottleneck, width) and ``squeeze_bias``. Gates: 1 for tanh, 3 for gru (reset, update, new).
    """
    gates, n, m = (3 if options.cell == "gru" else 1), options.size, options.modules
    random = generator(options.seed, 0, Stream.SUBJECTS)

    def draw(fan_in: int, *shape: int) -> torch.Tensor:
        bound = 1 / math.sqrt(fan_in)
        return torch.from_numpy(random.uniform(-bound, bound, size=shape).astype("float32"))

    readers, width = (1, m * n) if options.readout == "shared" else (m, n)
    weights = {"input": draw(m * n, m, gates * n, pixels), "recurrent": draw(m * n, gates * m * n, m * n)}
    if options.bottleneck is not None:
        weights["squeeze_weight"] = draw(width, readers, options.bottleneck, width)
        weights["squeeze_bias"] = draw(width, readers, options.bottleneck)
        width = options.bottleneck
    weights["read_weight"] = draw(width, readers, outputs * n_classes, width)
    weights["read_bias"] = draw(width, readers, outputs * n_classes)
    return weights


def advance(
    options: ModularOptions, recurrent: torch.Tensor, drive: torch.Tensor, state: torch.Tensor | None
) -> torch.Tensor:
    """Advance several networks by one step; a message arrives one step after it is sent.

    Parameters
    ----------
    options : ModularOptions
        What the networks have in common: modules, units and cell.
    recurrent : torch.Tensor
        ``(networks, gates * modules * n, modules * n)``, zero where there is no connection.
    drive : torch.Tensor
        ``(networks, samples, gates * modules * n)`` input times input weights.
    state : torch.Tensor or None
        ``(networks, samples, modules * n)``; None before the first step, where it is 0.

    Returns
    -------
    torch.Tensor
        The next state.
    """
    if options.cell == "tanh":
        return torch.tanh(drive if state is None else torch.baddbmm(drive, state, recurrent.mT))
    if state is None:
        _, update, new = drive.chunk(3, dim=-1)
        return (1 - torch.sigmoid(update)) * torch.tanh(new)
    sent_reset, sent_update, sent_new = torch.bmm(state, recurrent.mT).chunk(3, dim=-1)
    reset, update, new = drive.chunk(3, dim=-1)
    reset, update = torch.sigmoid(reset + sent_reset), torch.sigmoid(update + sent_update)
    new = torch.tanh(new + reset * sent_new)
    return (1 - update) * new + update * state


def read_out(options: ModularOptions, weights: Weights, state: torch.Tensor, outputs: int) -> torch.Tensor:
    """Read the answers of several networks from their states.

    Parameters
    ----------
    options : ModularOptions
        What the networks have in common.
    weights : mapping of str to torch.Tensor
        Read-outs as in :func:`initial_weights`, with a leading axis of networks.
    state : torch.Tensor
        ``(networks, samples, modules * n)``.
    outputs : int
        Outputs of the task.

    Returns
    -------
    torch.Tensor
        Logits ``(networks, samples, readers, outputs, classes)``.
    """
    networks, samples = state.shape[:2]
    readers = weights["read_weight"].shape[1]
    seen = state.view(networks, samples, readers, -1).transpose(1, 2)
    if "squeeze_weight" in weights:
        seen = seen @ weights["squeeze_weight"].mT + weights["squeeze_bias"][:, :, None]
    logits = seen @ weights["read_weight"].mT + weights["read_bias"][:, :, None]
    return logits.transpose(1, 2).reshape(networks, samples, readers, outputs, -1)


class ModularRNN(torch.nn.Module):
    """One network of modules, ready to be recorded and lesioned.

    Layers: ``states.m`` (the state of module m, one call a step, so recorded as ``states.m@0`` to ``states.m@T-1``; a
    lesion of it silences the module for the others too) and ``read.m`` (the last state as the read-out sees it; a
    lesion of it leaves the dynamics alone).

    Parameters
    ----------
    options : ModularOptions
        The network.
    pixels : int
        Inputs of a module.
    outputs, n_classes : int
        Outputs of the task, and classes of each.
    steps : int
        Steps for which an image is shown where the input has no time axis.
    decision : {"max", "sum", "each"}
        How the modules' answers become one.
    """

    mask: torch.Tensor

    def __init__(
        self,
        options: ModularOptions,
        pixels: int,
        outputs: int,
        n_classes: int,
        steps: int = 5,
        decision: Decision = "max",
    ) -> None:
        super().__init__()
        self.options, self.outputs, self.steps, self.decision = options, outputs, steps, decision
        self._gates = 3 if options.cell == "gru" else 1
        self.weights = torch.nn.ParameterDict(initial_weights(options, pixels, outputs, n_classes))
        self.register_buffer("mask", mask_of(options))
        self.states = torch.nn.ModuleList(torch.nn.Identity() for _ in range(options.modules))
        self.read = torch.nn.ModuleList(torch.nn.Identity() for _ in range(options.modules))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Answer for images.

        Parameters
        ----------
        images : torch.Tensor
            ``(samples, modules, pixels)``, shown for all steps, or ``(samples, steps, modules, pixels)``.

        Returns
        -------
        torch.Tensor
            Logits of the decided answers ``(samples, outputs * classes)``; under "each", of all modules one after the
            other.

        Raises
        ------
        InputError
            If the shape does not fit.
        """
        modules, pixels = self.weights["input"].shape[0], self.weights["input"].shape[2]
        if images.ndim not in (3, 4) or images.shape[-2:] != (modules, pixels):
            raise InputError(
                f"input of shape {tuple(images.shape)} does not fit {modules} modules of {pixels} pixels; give "
                "(samples, modules, pixels), or (samples, steps, modules, pixels)"
            )
        # A constant input is projected once; a changing one, step by step.
        frames = [images] if images.ndim == 3 else list(images.unbind(1))
        drives = [self._drive(frame) for frame in frames]
        size = self.options.size
        weight = (self.weights["recurrent"] * self.mask.repeat(len(self.weights["recurrent"]) // len(self.mask), 1))[
            None
        ]
        state: torch.Tensor | None = None
        for step in range(self.steps if images.ndim == 3 else len(frames)):
            state = advance(self.options, weight, drives[min(step, len(drives) - 1)], state)
            parts = [layer(part) for layer, part in zip(self.states, state[0].split(size, dim=-1), strict=True)]
            state = torch.cat(parts, dim=-1)[None]
        assert state is not None  # there is a step at least
        seen = [layer(part) for layer, part in zip(self.read, state[0].split(size, dim=-1), strict=True)]
        stacked = {name: weight[None] for name, weight in self.weights.items()}
        logits = read_out(self.options, stacked, torch.cat(seen, dim=-1)[None], self.outputs)[0]
        decided = logits if logits.shape[-3] == 1 else decide(logits, self.decision)
        return decided.flatten(1)

    def _drive(self, frame: torch.Tensor) -> torch.Tensor:
        """Input times input weights: ``(1, samples, gates * modules * n)``, gates outermost."""
        projected = torch.einsum("bmd,mkd->bmk", frame, self.weights["input"])
        parted = projected.view(len(frame), self.options.modules, self._gates, self.options.size)
        return parted.transpose(1, 2).reshape(1, len(frame), -1)
