"""What modules are asked about the digits they see, and how their answers become one.

A task has one or more outputs, each with a target for every sample; a target may differ from module to module (each
reports its own digit, say). Source: Béna & Goodman (2025), Nature Communications 16:187.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from actkit.errors import InputError, nearest
from actkit.resampling import Stream, generator

__all__ = ["DECISIONS", "TASKS", "Decision", "Question", "decide", "decision_of", "question"]

Decision = Literal["max", "sum", "each"]
DECISIONS: dict[str, str] = {
    "max": "the module with the largest logit decides, for each sample and output",
    "sum": "logits of the modules are added up",
    "each": "every module answers for itself",
}


@dataclass(frozen=True)
class Question:
    """A task for given samples.

    Attributes
    ----------
    name : str
        What it is called.
    targets : numpy.ndarray of int
        ``(n, modules, outputs)`` the right class of each output; the same for all modules where they decide together.
    n_classes : int
        Classes of each output.
    decision : {"max", "sum", "each"}
        How the modules' answers become one.
    """

    name: str
    targets: np.ndarray
    n_classes: int
    decision: Decision


def _parity_routed(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    """The first digit where parities differ, the second where they agree; and, with the digits swapped, the other."""
    odd = digits.sum(axis=1) % 2
    first = np.where(odd == 1, digits[:, 0], digits[:, 1])
    swapped = np.where(odd == 1, digits[:, 1], digits[:, 0])
    return np.stack([first, swapped], axis=1), n_classes


def _parity_routed_once(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    targets, classes = _parity_routed(digits, n_classes)
    return targets[:, :1], classes


def _parity_of_sum(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    return digits.sum(axis=1, keepdims=True) % 2, 2


def _sum(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    return digits.sum(axis=1, keepdims=True), digits.shape[1] * (n_classes - 1) + 1


def _all(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    return digits, n_classes


def _own(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    return digits[:, :, None], n_classes


def _other(digits: np.ndarray, n_classes: int) -> tuple[np.ndarray, int]:
    return np.roll(digits, -1, axis=1)[:, :, None], n_classes


_Rule = Callable[[np.ndarray, int], tuple[np.ndarray, int]]
_RULES: dict[str, tuple[_Rule, str, int | None]] = {
    "parity_both": (
        _parity_routed,
        "two outputs: the digit that parity routes (the first where parities differ, else the second), and its swap",
        2,
    ),
    "parity": (_parity_routed_once, "one output: the digit that parity routes", 2),
    "parity_of_sum": (_parity_of_sum, "whether the sum of the digits is odd", None),
    "sum": (_sum, "the sum of the digits", None),
    "both": (_all, "an output for each digit", None),
    "own": (_own, "every module reports the digit that it sees", None),
    "other": (_other, "every module reports the digit that the next module sees", None),
}
_OWN_TARGETS = ("own", "other")  # tasks whose target differs between modules
TASKS: dict[str, str] = {name: words for name, (_, words, _) in _RULES.items()}
"""Tasks by name, in words."""


def decision_of(task: str, decision: Decision) -> Decision:
    """Rule of decision of a task: where every module is asked something else, each answers for itself.

    Parameters
    ----------
    task : str
        Name of a task.
    decision : {"max", "sum", "each"}
        The rule that was chosen for tasks with one answer.

    Returns
    -------
    {"max", "sum", "each"}
        The rule that applies.
    """
    return "each" if task in _OWN_TARGETS else decision


def question(
    task: str, digits: np.ndarray, n_classes: int, decision: Decision = "max", shuffle_classes: int | None = None
) -> Question:
    """Ask a task of samples.

    Parameters
    ----------
    task : str
        Name of a task, one of `TASKS`.
    digits : numpy.ndarray of int
        ``(n, modules)`` class of each image, which stands for its digit.
    n_classes : int
        Number of classes K.
    decision : {"max", "sum", "each"}
        How answers become one; tasks whose target differs between modules are always answered by each.
    shuffle_classes : int, optional
        A seed: every module's classes are renumbered at random first, which also changes their parities.

    Returns
    -------
    Question
        Targets of every module and output.

    Raises
    ------
    InputError
        If there is no such task, it is for another number of modules, a class number is out of range, there is one
        class only, or all its targets coincide.
    """
    if task not in _RULES:
        raise InputError(f"there is no task {task!r}; {nearest(task, list(_RULES))}")
    if decision not in DECISIONS:
        raise InputError(f"there is no decision {decision!r}; {nearest(decision, list(DECISIONS))}")
    rule, _, modules = _RULES[task]
    digits = np.asarray(digits, dtype=np.int64)
    if digits.ndim != 2 or not len(digits):
        raise InputError(f"digits have shape {digits.shape}; give (samples, modules)")
    if modules is not None and digits.shape[1] != modules:
        raise InputError(f"task {task!r} is for {modules} modules and there are {digits.shape[1]}; choose another task")
    if n_classes < 2:
        raise InputError(f"{n_classes} class leaves nothing to tell apart; give at least two")
    if digits.min() < 0 or digits.max() >= n_classes:
        raise InputError(f"classes go from {digits.min()} to {digits.max()}, beyond 0 to {n_classes - 1}")
    if shuffle_classes is not None:
        new = [
            generator(shuffle_classes, m, Stream.PERMUTATIONS).permutation(n_classes) for m in range(digits.shape[1])
        ]
        digits = np.stack([order[digits[:, m]] for m, order in enumerate(new)], axis=1)
    targets, classes = rule(digits, n_classes)
    if targets.ndim == 2:
        targets = np.broadcast_to(targets[:, None, :], (len(targets), digits.shape[1], targets.shape[1]))
    for output in range(targets.shape[2]):
        if (targets[:, :, output] == targets[0, 0, output]).all():
            raise InputError(
                f"every sample has the target {int(targets[0, 0, output])} in output {output} of task {task!r}, so a "
                "network that always says so is never wrong; give digits of more classes, or another task"
            )
    return Question(task, np.ascontiguousarray(targets), classes, decision_of(task, decision))


def decide(logits: torch.Tensor, decision: Decision) -> torch.Tensor:
    """Turn the modules' answers into one.

    Parameters
    ----------
    logits : torch.Tensor
        ``(…, modules, outputs, classes)``.
    decision : {"max", "sum", "each"}
        The rule. Under "max" gradients reach the deciding module alone.

    Returns
    -------
    torch.Tensor
        The same shape with one module, or with all of them under "each".
    """
    if decision == "each":
        return logits
    if decision == "sum":
        return logits.sum(dim=-3, keepdim=True)
    leader = logits.amax(dim=-1, keepdim=True).argmax(dim=-3, keepdim=True)
    return logits.gather(-3, leader.expand(*logits.shape[:-3], 1, *logits.shape[-2:]))
