"""What an interrupted training of networks of modules goes on from: weights, optimiser and epoch, in one file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from actkit.errors import InputError
from actkit.extractors.modular_stack import Stack

__all__ = ["Course", "Done", "Progress", "read_checkpoint", "write_checkpoint"]


@dataclass
class Course:
    """Networks in training.

    Attributes
    ----------
    stack : Stack
        The networks; their weights are parameters.
    optimiser : torch.optim.Optimizer
        What moves them, and what it remembers.
    """

    stack: Stack
    optimiser: torch.optim.Optimizer


@dataclass(frozen=True)
class Done:
    """One network that is trained.

    Attributes
    ----------
    weights : dict of str to torch.Tensor
        Its weights.
    epochs : int
        Epochs that it was trained for.
    accuracy : float
        On test pairs.
    """

    weights: dict[str, torch.Tensor]
    epochs: int
    accuracy: float


@dataclass
class Progress:
    """How far a training has come.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    courses : list of Course
        Networks that go on.
    done : dict of int to Done
        Networks that are trained, by number.
    """

    epoch: int
    courses: list[Course]
    done: dict[int, Done] = field(default_factory=dict)


def write_checkpoint(path: Path, key: str, progress: Progress) -> None:
    """Keep a training, beside the old checkpoint first, then in its place.

    Parameters
    ----------
    path : Path
        The safetensors file.
    key : str
        What tells this training from any other.
    progress : Progress
        How far it has come.
    """
    tensors: dict[str, torch.Tensor] = {}
    for course in progress.courses:
        for name, parameter in course.stack.weights.items():
            for row, number in enumerate(course.stack.members):
                tensors[f"{number}.weight.{name}"] = parameter.detach()[row]
                for part, value in course.optimiser.state[parameter].items():
                    tensors[f"{number}.{part}.{name}"] = value[row] if value.ndim else value
    for number, one in progress.done.items():
        tensors.update({f"{number}.weight.{name}": value for name, value in one.weights.items()})
    note = {
        "key": key,
        "epoch": progress.epoch,
        "done": {str(number): [one.epochs, one.accuracy] for number, one in progress.done.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    try:
        save_file({name: value.clone() for name, value in tensors.items()}, partial, {"actkit": json.dumps(note)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: Path, key: str, stacks: Sequence[Stack], begin: Callable[[Stack], Course]) -> Progress:
    """Take a training up where :func:`write_checkpoint` kept it.

    Parameters
    ----------
    path : Path
        The safetensors file.
    key : str
        What tells this training from any other.
    stacks : sequence of Stack
        All its networks, before training.
    begin : callable
        Makes a course of a stack.

    Returns
    -------
    Progress
        With weights and what the optimisers remember.

    Raises
    ------
    InputError
        If the file is of another training, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {})["actkit"])
            if note["key"] != key:
                raise InputError(
                    f"{str(path)!r} is the checkpoint of another training (other options, data or torch), which going "
                    "on would mix with this one; give another path, or delete it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        done = {int(number): (int(entry[0]), float(entry[1])) for number, entry in note["done"].items()}
        courses = []
        for stack in stacks:
            left = stack.take([row for row, number in enumerate(stack.members) if number not in done])
            if not left.members:
                continue
            left.weights = {name: _stacked(tensors, left, "weight", name) for name in left.weights}
            course = begin(left)
            for name, parameter in course.stack.weights.items():
                course.optimiser.state[parameter] = {
                    "step": tensors[f"{left.members[0]}.step.{name}"],
                    **{part: _stacked(tensors, left, part, name) for part in ("exp_avg", "exp_avg_sq")},
                }
            courses.append(course)
        names = {number: list(stack.weights) for stack in stacks for number in stack.members}
        finished = {
            number: Done({name: tensors[f"{number}.weight.{name}"] for name in names[number]}, *how)
            for number, how in done.items()
        }
        return Progress(int(note["epoch"]), courses, finished)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(path)!r} is no checkpoint of a training ({type(error).__name__}: {error}); delete it to train from "
            "the start, or give another path"
        ) from None


def _stacked(tensors: dict[str, torch.Tensor], stack: Stack, part: str, name: str) -> torch.Tensor:
    return torch.stack([tensors[f"{number}.{part}.{name}"] for number in stack.members])
