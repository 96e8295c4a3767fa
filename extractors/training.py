"""Training a network on several tasks at once: equal parts of every batch, the same bits from the same seed.

A training that was cut off goes on from its checkpoint and ends in the same weights, bit for bit.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from actkit.compute import choose_device, parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import ActkitError, InputError
from actkit.extractors.task_images import TaskData
from actkit.extractors.vgg import SMALL_CHANNELS, SMALL_POOLS, VGG16_CHANNELS, VGG16_POOLS
from actkit.extractors.weights import SeededOptions, load_into, seeded

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "cnn": {},
    "vgg_small": {
        "channels": list(SMALL_CHANNELS),
        "pools": list(SMALL_POOLS),
        "dropout": 0.3,
        "epochs": 6,
        "learning_rate": 0.002,
    },
    "vgg16": {
        "size": 224,
        "colour": True,
        "channels": list(VGG16_CHANNELS),
        "pools": list(VGG16_POOLS),
        "units": 4096,
        "dense_layers": 2,
        "dropout": 0.5,
        "small_dense": True,
        "epochs": 200,
        "batch": 128,
        "optimiser": "sgd",
        "schedule": "constant",
        "learning_rate": 0.001,
        "weight_decay": 1e-4,
        "checkpoint_every": 5000,
        "device": "auto",
    },
}
"""What each architecture sets where nothing else is asked for. The numbers of vgg16 are those of the training code that
Dobs et al. (2022) released."""

_DROPOUT_STREAM = 1  # the word that sets these seeds apart from any other of the same training
_CHECKED_EVERY = 50
# What changes no weight: where and how often work is kept, and what is measured afterwards.
SILENT_OPTIONS = ("name", "labels", "held_out", "memory", "checkpoint_every")


class TrainingOptions(SeededOptions):
    """What determines the trained network, besides the data."""

    architecture: Literal["cnn", "vgg_small", "vgg16"] = Field(
        "cnn",
        description="cnn: a pooling after each convolution; vgg_small: eight convolutions for 32-pixel images; vgg16: "
        "as in Dobs et al. 2022, for a GPU. It sets the defaults of the options that follow.",
    )
    size: int = Field(32, ge=8, description="Side in pixels of the images that the network sees.")
    colour: bool = Field(False, description="Keep the colours of the images; otherwise grey.")
    channels: list[int] = Field([16, 32, 64], min_length=1, description="Filters of each convolution.")
    pools: list[int] | None = Field(
        None, description="Convolutions, counted from 1, that pooling follows; none: every one."
    )
    units: int = Field(128, ge=1, description="Units of the shared dense layer.")
    dense_layers: int = Field(1, ge=1, description="Dense layers of that many units.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of dense units left out in each step of training.")
    small_dense: bool = Field(False, description="Start dense layers from small weights (.01), as Dobs et al. did.")
    epochs: int = Field(
        12,
        ge=0,
        description="Passes over the training images of the largest task; 0: the untrained network, a control.",
    )
    batch: int = Field(64, ge=2, description="Training images a step, in equal parts from every task.")
    n_train: int | None = Field(
        None,
        ge=2,
        description="Training images of every task, in equal numbers from its classes; none: all that there are.",
    )
    optimiser: Literal["adam", "sgd"] = Field("adam", description="Adam, or gradient descent with momentum .9.")
    schedule: Literal["one_cycle", "constant"] = Field("one_cycle", description="Course of the learning rate.")
    learning_rate: float = Field(0.003, gt=0, description="Learning rate (the peak of one cycle).")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of each class kept for testing where the data state no split."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Label column of each task; by default identity, category, digit, class or label.",
    )
    checkpoint_every: int = Field(250, ge=1, description="Steps between checkpoints, where there is a place for them.")
    memory: str = Field("4GB", description="Memory for one task's images; more are decoded each time.")
    threads: int = Field(1, ge=1, description="Threads that compute; another number rounds differently.")
    device: str = Field("cpu", description="Where to train; on a GPU, seeds may not give the same bits again.")

    @model_validator(mode="before")
    @classmethod
    def _of_the_architecture(cls, values: Any) -> Any:
        name = values.get("architecture", "cnn") if isinstance(values, dict) else None
        preset = ARCHITECTURES.get(name, {}) if isinstance(name, str) else {}
        return {**preset, **values} if preset else values

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> TrainingOptions:
        parse_bytes(self.memory)
        if self.architecture == "cnn":
            given = {"pools": None, "dense_layers": 1, "dropout": 0.0, "small_dense": False, "colour": False}
            for name, only in given.items():
                if getattr(self, name) != only:
                    raise ValueError(
                        f"the architecture cnn has {name} {only}, so {name}={getattr(self, name)} would be ignored; "
                        "choose architecture='vgg_small'"
                    )
        return self


def evaluate(module: torch.nn.Module, images: torch.Tensor, targets: np.ndarray) -> float | None:
    """Return the share of images whose largest logit, over the classes of all tasks, is the right one.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    images : torch.Tensor
        Preprocessed, shape ``(stimulus, channel, y, x)``.
    targets : numpy.ndarray
        Right class over the union of tasks, shape ``(stimulus,)``.

    Returns
    -------
    float or None
        From 0 to 1; None without images.
    """
    if len(images) == 0:
        return None
    return _share_right(module, images.split(512), targets)


def evaluate_task(module: torch.nn.Module, task: TaskData, rows: np.ndarray, offset: int) -> float | None:
    """Return the share of a task's images at some rows that the network names rightly.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    task : TaskData
        Images and classes.
    rows : numpy.ndarray of int
        Which images.
    offset : int
        Output column of the task's first class.

    Returns
    -------
    float or None
        From 0 to 1; None without images.
    """
    if len(rows) == 0:
        return None
    batches = (task.images[torch.from_numpy(rows[i : i + 512])] for i in range(0, len(rows), 512))
    return _share_right(module, batches, task.labels[rows] + offset)


def _share_right(module: torch.nn.Module, batches: Any, targets: np.ndarray) -> float:
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            guesses = torch.cat([module(part.to(device)).argmax(1).cpu() for part in batches])
    finally:
        module.train(training)
    return float((guesses.numpy() == targets).mean())


@contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """Keep torch's operators on so many threads, and give the old number back afterwards.

    Parameters
    ----------
    threads : int
        How many.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_rows(tasks: Mapping[str, TaskData], n_train: int | None, seed: int) -> dict[str, np.ndarray]:
    """Choose the images that each task learns from.

    Parameters
    ----------
    tasks : mapping of str to TaskData
        The tasks.
    n_train : int or None
        Images of each task, in equal numbers from its classes (to within one); None: all that are not held out.
    seed : int
        Seed of the choice.

    Returns
    -------
    dict of str to numpy.ndarray of int
        Rows of each task, ascending.

    Raises
    ------
    InputError
        If a task has too few images, or too few of one class.
    """
    chosen = {}
    for number, (name, task) in enumerate(tasks.items()):
        rows = np.flatnonzero(~task.test)
        if n_train is not None:
            rng = np.random.Generator(np.random.Philox(key=[seed, 2**33 + number]))
            shares = np.full(len(task.classes), n_train // len(task.classes))
            shares[rng.permutation(len(shares))[: n_train % len(shares)]] += 1
            counts = np.bincount(task.labels[rows], minlength=len(shares))
            if n_train < len(shares) or (counts < shares).any():
                worst = int(np.argmin(counts - shares))
                raise InputError(
                    f"task {name!r} cannot give {n_train} training images in equal numbers from its {len(shares)} "
                    f"classes: {task.classes[worst]!r} has {counts[worst]}; lower n_train (or raise it to one a class)"
                )
            rows = np.sort(
                np.concatenate(
                    [rng.permutation(rows[task.labels[rows] == k])[:share] for k, share in enumerate(shares)]
                )
            )
        chosen[name] = rows
    return chosen


def fit(
    module: torch.nn.Module,
    tasks: Mapping[str, TaskData],
    rows: Mapping[str, np.ndarray],
    options: TrainingOptions,
    key: str = "",
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> int:
    """Train a module in place, from its initial weights or from a checkpoint of the same training.

    Parameters
    ----------
    module : torch.nn.Module
        The network, with its initial weights.
    tasks : mapping of str to TaskData
        The tasks, in the order of their classes in the output.
    rows : mapping of str to numpy.ndarray
        Training images of each task.
    options : TrainingOptions
        How to train.
    key : str
        What tells this training from any other.
    checkpoint : Path, optional
        A safetensors file for weights and state of the optimiser: read where it is there, written every
        ``checkpoint_every`` steps, and removed at the end.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    int
        Steps of the whole training.

    Raises
    ------
    InputError
        If the checkpoint is of another training, or damaged.
    ActkitError
        If the loss is no longer finite.
    """
    if not options.epochs:
        module.eval()
        return 0
    device = torch.device(choose_device(options.device))
    module.to(device).train()
    share = max(1, options.batch // len(tasks))
    total = max(1, round(max(len(chosen) for chosen in rows.values()) / share)) * options.epochs
    optimiser = _optimiser(module, options)
    schedule = None
    if options.schedule == "one_cycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=options.learning_rate, total_steps=max(total, 2)
        )
    orders = {
        name: _order(rows[name], share * total, np.random.Generator(np.random.Philox(key=[options.seed, k])))
        for k, name in enumerate(tasks)
    }
    offsets = class_offsets(tasks)
    first = 0
    if checkpoint is not None and checkpoint.exists():
        first = _read_checkpoint(checkpoint, key, module, optimiser, schedule)
    with progress_bar(total=total, desc="training", unit="step", enabled=progress) as bar:
        bar.update(first)
        for step in range(first, total):
            batch = {name: orders[name][step * share : (step + 1) * share] for name in tasks}
            images = torch.cat([task.images[torch.from_numpy(batch[name])] for name, task in tasks.items()])
            wanted = np.concatenate([task.labels[batch[name]] + offsets[name] for name, task in tasks.items()])
            optimiser.zero_grad(set_to_none=True)
            with _dropout_seed(options, step):
                logits = module(images.to(device))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(wanted).to(device))
            loss.backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()
            done = step + 1
            if (done % _CHECKED_EVERY == 0 or done == total) and not bool(torch.isfinite(loss)):
                raise ActkitError(
                    f"the loss is {float(loss.detach())} after {done} of {total} steps, and nothing can be learnt from "
                    f"there; lower learning_rate ({options.learning_rate})"
                )
            if checkpoint is not None and done % options.checkpoint_every == 0 and done < total:
                _write_checkpoint(checkpoint, key, done, module, optimiser, schedule)
            bar.update()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    module.to("cpu").eval()
    return total


def class_offsets(tasks: Mapping[str, TaskData]) -> dict[str, int]:
    """Output column of each task's first class: tasks lie one after the other in one softmax.

    Parameters
    ----------
    tasks : mapping of str to TaskData
        The tasks, in order.

    Returns
    -------
    dict of str to int
        From 0.
    """
    sizes = [len(task.classes) for task in tasks.values()]
    return dict(zip(tasks, np.cumsum([0, *sizes]).tolist(), strict=False))


def _optimiser(module: torch.nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    if options.optimiser == "adam":
        return torch.optim.Adam(module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        module.parameters(), lr=options.learning_rate, momentum=0.9, weight_decay=options.weight_decay
    )


@contextmanager
def _dropout_seed(options: TrainingOptions, step: int) -> Iterator[None]:
    """Let dropout draw from a stream of the step's own, so that a resumed training draws the same."""
    if options.dropout == 0:
        yield
        return
    words = np.random.SeedSequence([options.seed, step, _DROPOUT_STREAM]).generate_state(2, np.uint32)
    number = int(words[0]) << 32 | int(words[1])
    if options.device == "cpu":
        with seeded(number >> 1):
            yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(number >> 1)  # of the GPU too
        yield


def _order(rows: np.ndarray, needed: int, rng: np.random.Generator) -> np.ndarray:
    """The rows in a new random order each round, until there are enough."""
    rounds = max(1, -(-needed // len(rows)))
    return rows[np.concatenate([rng.permutation(len(rows)) for _ in range(rounds)])[:needed]]


def _write_checkpoint(
    path: Path, key: str, step: int, module: torch.nn.Module, optimiser: torch.optim.Optimizer, schedule: Any
) -> None:
    """Write weights and the optimiser's state beside the old checkpoint, then put them in its place."""
    tensors = {f"weights.{name}": value for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for part, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{part}.{name}"] = value
    group = {name: value for name, value in optimiser.param_groups[0].items() if name in ("lr", "betas", "momentum")}
    clock = None if schedule is None else {name: getattr(schedule, name) for name in ("last_epoch", "_step_count")}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    note = {"key": key, "step": step, "group": group, "schedule": clock}
    try:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            partial,
            metadata={"actkit": json.dumps(note)},
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_checkpoint(
    path: Path, key: str, module: torch.nn.Module, optimiser: torch.optim.Optimizer, schedule: Any
) -> int:
    """Take up weights, optimiser and learning rate; return the steps that were done."""
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {})["actkit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{str(path)!r} is no checkpoint of a training ({type(error).__name__}: {error}); delete it to train from "
            "the start, or give another path"
        ) from None
    if note["key"] != key:
        raise InputError(
            f"{str(path)!r} is the checkpoint of another training (other options, data or torch), which going on would "
            "mix with this one; give another path, or delete it"
        )
    load_into(module, {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")})
    for name, parameter in module.named_parameters():
        for full, value in tensors.items():
            start, _, rest = full.partition(".")
            part, _, owner = rest.partition(".")
            if start == "optimiser" and owner == name:
                # Adam counts its steps in a tensor that stays on the CPU.
                optimiser.state[parameter][part] = value.clone() if part == "step" else value.to(parameter.device)
    optimiser.param_groups[0].update(note["group"])
    if schedule is not None:
        schedule.load_state_dict(note["schedule"])
    return int(note["step"])
