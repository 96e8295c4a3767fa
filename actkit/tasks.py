"""A task as a lesion sees it: prepared inputs, the output column that is right for each, and the task's own columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from actkit.compute import spans
from actkit.errors import InputError, nearest
from actkit.layers import evaluating, first_tensor
from actkit.resampling import Stream, generator
from actkit.results import fingerprint

if TYPE_CHECKING:
    from actkit.network import Network

__all__ = ["Task", "image_losses", "make_task", "split", "stratified", "task_losses"]

_CLASS_ORDER = 2**64 - 1  # a draw number that no class has


@dataclass(frozen=True, eq=False)
class Task:
    """Images of one task, ready for the module, with the right answers.

    Parameters
    ----------
    name : str
        What the task is called.
    inputs : torch.Tensor
        ``(image, …)``, preprocessed.
    targets : numpy.ndarray of int
        ``(image,)`` the output column that is right for each image.
    classes : numpy.ndarray of int, optional
        The task's own output columns. Masked losses compare these alone: calling a face an object is then no error
        that could be made. None: the task owns all columns.
    ids : numpy.ndarray of str, optional
        ``(image,)`` stimulus ids.

    Raises
    ------
    InputError
        If there are no images, all are of one class, a target is not a column (of the task), or inputs are not
        finite.
    """

    name: str
    inputs: torch.Tensor
    targets: np.ndarray
    classes: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, torch.Tensor):
            raise InputError(f"task {self.name!r}: inputs are a {type(self.inputs).__name__}; give a torch.Tensor")
        n = len(self.inputs) if self.inputs.ndim else 0
        if not n:
            raise InputError(f"task {self.name!r} has no images, so nothing can be lost in it; give at least two")
        targets = _columns(self.targets, f"targets of task {self.name!r}")
        if len(targets) != n:
            raise InputError(f"task {self.name!r} has {len(targets)} targets for {n} images; give one per image")
        if (targets == targets[0]).all():
            raise InputError(
                f"all {n} images of task {self.name!r} are of one class (column {targets[0]}), so a network that "
                "always says so is never wrong; give images of at least two classes"
            )
        object.__setattr__(self, "targets", targets)
        if self.classes is not None:
            classes = _columns(self.classes, f"classes of task {self.name!r}")
            if len(np.unique(classes)) < len(classes):
                raise InputError(f"task {self.name!r} names an output column twice among its classes; name each once")
            strange = np.setdiff1d(targets, classes)
            if strange.size:
                raise InputError(
                    f"target {strange[0]} of task {self.name!r} is not among its {len(classes)} classes "
                    f"({classes.min()} to {classes.max()}); add the column, or leave its images out"
                )
            object.__setattr__(self, "classes", classes)
        if self.ids is not None:
            ids = np.asarray(self.ids).astype(str)
            if ids.shape != (n,):
                raise InputError(f"task {self.name!r} has ids of shape {ids.shape} for {n} images; give one per image")
            object.__setattr__(self, "ids", ids)
        if self.inputs.is_floating_point():
            finite = torch.isfinite(self.inputs.flatten(1)).all(1) if self.inputs.ndim > 1 else self.inputs.isfinite()
            if not bool(finite.all()):
                bad = int(torch.nonzero(~finite)[0])
                raise InputError(
                    f"image {self._label(bad)} of task {self.name!r} holds NaN or infinity, so every loss over it "
                    "would be NaN; leave it out, or check the preprocessing"
                )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        own = "" if self.classes is None else f" of its {len(self.classes)} columns"
        return f"<Task {self.name!r}: {len(self)} images, {len(np.unique(self.targets))} classes{own}>"

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the task's own columns (among the classes that have images, where it owns all)."""
        return 1 / len(np.unique(self.targets) if self.classes is None else self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, inputs, targets and classes."""
        return fingerprint([self.name, self.inputs.detach().cpu().numpy(), self.targets, self.classes])

    def take(self, rows: np.ndarray | Sequence[int]) -> Task:
        """Some of the images.

        Parameters
        ----------
        rows : sequence of int or bool mask
            Which, in the order wanted.

        Returns
        -------
        Task
            With the same name and classes.

        Raises
        ------
        InputError
            If nothing, or only one class, is left.
        """
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        chosen = torch.from_numpy(index).to(self.inputs.device)
        ids = None if self.ids is None else self.ids[index]
        return Task(self.name, self.inputs[chosen], self.targets[index], self.classes, ids)

    def _label(self, row: int) -> str:
        return repr(str(self.ids[row])) if self.ids is not None else str(row)


def make_task(
    network: Network,
    name: str,
    stimuli: Any,
    label: str,
    classes: Mapping[Any, int] | Sequence[Any] | None = None,
) -> Task:
    """Prepare labelled stimuli as a task of a network.

    Parameters
    ----------
    network : Network
        Preprocesses the stimuli; run once, on one of them, to count its outputs.
    name : str
        What the task is called.
    stimuli : Stimuli or what `actkit.as_stimuli` takes
        The images.
    label : str
        Column of the stimuli that holds the class.
    classes : mapping or sequence, optional
        Output column of each label value, or the label values in the order of the columns from 0. By default the
        columns that the network's provenance gives as ``task:label`` under its ``classes`` (networks that
        `dual_task_cnn` trained); failing that, labels that are whole numbers are the columns themselves and the task
        owns all of them.

    Returns
    -------
    Task
        In the order of the stimuli, on the network's device, in its type.

    Raises
    ------
    InputError
        If there is no such label, a value has no column, a column is outside the network's output, or see `Task`.
    """
    from actkit.stimuli import as_stimuli

    stimuli = as_stimuli(stimuli)
    if not len(stimuli):
        raise InputError(f"task {name!r} has no stimuli ({stimuli.name!r} is empty); give at least two")
    if label not in stimuli.labels:
        raise InputError(f"{stimuli.name!r} has no label {label!r} for task {name!r}; {nearest(label, stimuli.labels)}")
    values = np.asarray(stimuli.labels[label])
    columns = _class_columns(network, name, values, classes)
    if columns is None:
        targets, own = _columns(values, f"label {label!r} of task {name!r}"), None
    else:
        strange = [value for value in dict.fromkeys(values.tolist()) if _key(value) not in columns]
        if strange:
            raise InputError(
                f"label {label!r} has the value {strange[0]!r}, which has no output column in task {name!r}; "
                f"{nearest(str(strange[0]), columns)}"
            )
        targets = np.array([columns[_key(value)] for value in values.tolist()], dtype=np.int64)
        own = np.array(sorted(set(columns.values())), dtype=np.int64)
    rows = [network.prepare(stimuli.raw(i)) for i in range(len(stimuli))]
    odd = next((i for i, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if odd is not None:
        raise InputError(
            f"stimulus {str(stimuli.ids[odd])!r} has shape {tuple(rows[odd].shape)} after preprocessing and the first "
            f"has {tuple(rows[0].shape)}; resize or crop in the preprocessing"
        )
    inputs = network.to_input(torch.stack(rows).detach())
    task = Task(name, inputs, targets, own, stimuli.ids)
    with evaluating(network.module), torch.inference_mode():
        output, note = first_tensor(network.module(inputs[:1].clone()))
    if output is None or output.ndim != 2:
        what = note if output is None else f"shape {tuple(output.shape)}"
        raise InputError(
            f"the output of {network.name!r} has no columns to be right or wrong ({what}); add a classifier"
        )
    _within_outputs(task.targets if own is None else own, output.shape[1], f"task {name!r}")
    return task


def stratified(task: Task, n: int, seed: int) -> Task:
    """Draw images in equal numbers from every class, as far as classes have them.

    Parameters
    ----------
    task : Task
        Where to draw.
    n : int
        How many images. With fewer images than classes, n classes give one each.
    seed : int
        Seed; a smaller draw of the same seed is part of a larger one.

    Returns
    -------
    Task
        In the order of the task.

    Raises
    ------
    InputError
        If there are fewer than n images, or n is below 2.
    """
    if not 2 <= n <= len(task):
        raise InputError(
            f"{n} images cannot be drawn from the {len(task)} of task {task.name!r}; ask for 2 or more, up to all"
        )
    kinds, of_class = np.unique(task.targets, return_inverse=True)
    turn = generator(seed, _CLASS_ORDER).permutation(len(kinds))
    within = np.empty(len(task), dtype=np.int64)
    for number in range(len(kinds)):
        rows = np.flatnonzero(of_class == number)
        within[rows] = generator(seed, number).permutation(len(rows))
    return task.take(np.sort(np.lexsort((turn[of_class], within))[:n]))


def split(task: Task, seed: int) -> tuple[Task, Task]:
    """Cut a task into two halves without common images, every class shared out evenly.

    Parameters
    ----------
    task : Task
        What to cut.
    seed : int
        Seed.

    Returns
    -------
    first, second : Task
        Sizes differ by one at the most; the odd image of a class goes to either half in turn.

    Raises
    ------
    InputError
        If a class has a single image, which can only be in one half.
    """
    kinds, of_class, counts = np.unique(task.targets, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise InputError(
            f"class {kinds[int(counts.argmin())]} of task {task.name!r} has a single image, which cannot be in both "
            "halves; give two or more per class, or leave the class out"
        )
    half = np.zeros(len(task), dtype=bool)
    turn = generator(seed, _CLASS_ORDER, Stream.PERMUTATIONS).permutation(len(kinds))
    extra = False  # which half the next odd image goes to
    for number in turn.tolist():
        rows = np.flatnonzero(of_class == number)
        order = rows[generator(seed, number, Stream.PERMUTATIONS).permutation(len(rows))]
        odd = len(rows) % 2
        half[order[: len(rows) // 2 + (odd and extra)]] = True
        extra = extra != bool(odd)
    return task.take(~half), task.take(half)


def image_losses(
    logits: torch.Tensor, targets: torch.Tensor | np.ndarray, classes: np.ndarray | Sequence[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and top-1 answer of every image.

    Parameters
    ----------
    logits : torch.Tensor
        ``(image, output)``; of any type, the log-softmax is taken in float64.
    targets : tensor or array of int
        ``(image,)`` the column that is right.
    classes : array of int, optional
        Columns to choose among; by default all.

    Returns
    -------
    loss : torch.Tensor of float64
        ``(image,)`` in nats; NaN where logits are.
    correct : torch.Tensor of float64
        ``(image,)`` 1 where the right column is the largest (the first one, of equals), else 0.

    Raises
    ------
    InputError
        If shapes disagree, or a target or class is not among the columns.

    Examples
    --------
    >>> import torch
    >>> loss, correct = image_losses(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([0]), classes=[0, 1])
    >>> round(float(loss), 6), float(correct)
    (0.693147, 1.0)
    """
    if logits.ndim != 2:
        raise InputError(f"logits have shape {tuple(logits.shape)}; losses need (image, output)")
    wanted = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if wanted.shape != logits.shape[:1]:
        raise InputError(f"{tuple(wanted.shape)} targets were given for {len(logits)} images; give one per image")
    if wanted.numel():
        _within_outputs(np.array([int(wanted.min()), int(wanted.max())]), logits.shape[1], "the targets")
    if classes is not None:
        own = _columns(classes, "classes")
        _within_outputs(own, logits.shape[1], "the classes")
        place = torch.full((logits.shape[1],), -1, dtype=torch.int64)
        place[torch.from_numpy(own)] = torch.arange(len(own))
        wanted = place.to(logits.device)[wanted]
        if bool((wanted < 0).any()):
            raise InputError("a target is not among the classes to choose from, so it could never be right; add it")
        logits = logits[:, torch.from_numpy(own).to(logits.device)]
    logits = logits.cpu() if logits.device.type == "mps" else logits  # Apple's GPUs have no float64
    wanted = wanted.to(logits.device)
    doubled = logits.to(torch.float64)
    loss = torch.nn.functional.cross_entropy(doubled, wanted, reduction="none")
    correct = (doubled.argmax(1) == wanted) & ~doubled.isnan().any(1)
    return loss, correct.to(torch.float64)


def task_losses(module: torch.nn.Module, task: Task, batch: int = 64) -> dict[str, np.ndarray]:
    """Run a task and keep the loss and the answer of every image.

    Parameters
    ----------
    module : torch.nn.Module
        The network; runs in evaluation mode and is left as it was.
    task : Task
        The task.
    batch : int
        Images in one forward pass.

    Returns
    -------
    dict of str to numpy.ndarray of float64
        ``loss`` and ``correct`` among all output columns, ``loss_own`` and ``correct_own`` among the task's own, each
        ``(image,)``.

    Raises
    ------
    InputError
        If the network gives no logits (image, output), or a loss is NaN or infinite.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("loss", "correct", "loss_own", "correct_own")}
    with evaluating(module), torch.inference_mode():
        for start, stop in spans(len(task), batch):
            logits, note = first_tensor(module(task.inputs[start:stop].clone()))
            if logits is None:
                raise InputError(f"the network gives no logits for task {task.name!r}: {note}")
            targets = task.targets[start:stop]
            for suffix, classes in (("", None), ("_own", task.classes)):
                loss, correct = image_losses(logits, targets, classes)
                parts[f"loss{suffix}"].append(loss.cpu().numpy())
                parts[f"correct{suffix}"].append(correct.cpu().numpy())
    values = {name: np.concatenate(blocks) for name, blocks in parts.items()}
    bad = np.flatnonzero(~np.isfinite(values["loss"]) | ~np.isfinite(values["loss_own"]))
    if bad.size:
        raise InputError(
            f"{bad.size} of {len(task)} losses of task {task.name!r} are NaN or infinite, the first for image "
            f"{task._label(int(bad[0]))}; check the weights, and the fill of a lesion"
        )
    return values


def _class_columns(network: Network, name: str, values: np.ndarray, classes: Any) -> dict[str, int] | None:
    """Output column by label value (as text); None where the labels are the columns."""
    if isinstance(classes, Mapping):
        given = [(value, int(column)) for value, column in classes.items()]
    elif classes is not None:
        given = [(value, column) for column, value in enumerate(classes)]
    else:
        known = [str(entry) for entry in network.provenance.get("classes", ())]
        mine = [(entry.partition(":")[2], i) for i, entry in enumerate(known) if entry.partition(":")[0] == name]
        if mine:
            given = mine
        elif known:
            # Labels that happen to be whole numbers would be read as columns, of another task.
            tasks = dict.fromkeys(entry.partition(":")[0] for entry in known)
            raise InputError(f"{network.name!r} has learnt no task {name!r}; {nearest(name, tasks)}, or give classes=")
        elif values.dtype.kind in "iu":
            return None
        else:
            raise InputError(
                f"the labels of task {name!r} ({_key(values.flat[0])!r}, …) are not output columns, and "
                f"{network.name!r} does not say which column stands for which; give classes="
            )
    columns = {_key(value): column for value, column in given}
    if len(columns) < len(given) or len(set(columns.values())) < len(columns):
        raise InputError(f"classes of task {name!r} name a label or an output column twice; each label needs its own")
    return columns


def _key(value: Any) -> str:
    """One text for a label however it was typed: 3, np.int64(3) and '3' are one class."""
    return str(value.item() if isinstance(value, np.generic) else value)


def _columns(values: Any, what: str) -> np.ndarray:
    """Output columns as int64, refused where they are not whole numbers from 0 on."""
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu" or array.min() < 0:
        raise InputError(
            f"{what}: {array.dtype} of shape {array.shape}; give output columns, whole numbers from 0, in one axis"
        )
    return array.astype(np.int64)


def _within_outputs(columns: np.ndarray, n: int, what: str) -> None:
    bad = columns[(columns < 0) | (columns >= n)]
    if bad.size:
        raise InputError(f"{what}: output column {bad[0]} does not exist; the network has {n} outputs, counted from 0")
