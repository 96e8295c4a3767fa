"""A small convolutional network trained on several tasks at once, with one softmax over all their classes.

The network learns, say, to name faces and to read digits with the same units, so that one can ask which units serve
which task (Dobs K., Martinez J., Kell A. J. E., Kanwisher N. Brain-like functional specialization emerges
spontaneously in deep neural networks. Sci Adv 8:eabl8913, 2022). It trains in well under a minute on a laptop, and a
trained network is kept in a cache under a key of everything that determined it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file

from actkit import plugins
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, nearest
from actkit.extractors.weights import SeededOptions, file_sha256, load_into, load_state_dict, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import Preprocessing
from actkit.results import atomic_write, fingerprint

if TYPE_CHECKING:
    from actkit.stimuli import Stimuli

# Raised whenever a change of this file changes what is learnt from the same options and data: old caches then miss.
RECIPE = 1

LABEL_COLUMNS = ("identity", "category", "digit", "class", "label")
SPLIT_COLUMN = "split"


class TrainingOptions(SeededOptions):
    """What determines the trained network, besides the data."""

    size: int = Field(32, ge=8, description="Side in pixels of the grey images that the network sees.")
    channels: list[int] = Field([16, 32, 64], min_length=1, description="Filters of each convolution.")
    units: int = Field(128, ge=1, description="Units of the shared dense layer.")
    epochs: int = Field(
        12,
        ge=0,
        description="Passes over the training images of the largest task; 0: the untrained network, a control.",
    )
    batch: int = Field(64, ge=2, description="Training images a step, in equal parts from every task.")
    learning_rate: float = Field(0.003, gt=0, description="Peak learning rate (Adam, one cycle).")
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of each class kept for testing where the data state no split."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Label column of each task; by default identity, category, digit, class or label.",
    )


class DualTaskOptions(TrainingOptions):
    """Options of :func:`open_network`."""

    tasks: dict[str, str | dict[str, Any]] = Field(
        # Sixty pictures of a face: twenty leave held-out accuracy at .58. The held-out pictures of any smaller set of
        # the same faces are held out here too.
        {"faces": {"dataset": "rendered_faces", "n_exemplars": 60}, "digits": "digits"},
        description="Task names and the data sets they learn: a name, or {dataset: NAME, option: value, …}.",
    )
    cache: str | None = Field(None, description="Folder that keeps trained networks; none: the user's cache.")
    retrain: bool = Field(False, description="Train even where the cache holds the network.")


@dataclass(frozen=True)
class TaskData:
    """One task's images and classes, ready to train on.

    Attributes
    ----------
    images : torch.Tensor
        float32, shape ``(stimulus, 1, size, size)``, preprocessed.
    labels : numpy.ndarray
        Class index within the task, int64, shape ``(stimulus,)``.
    classes : tuple of str
        The task's classes, in the order of their indices.
    test : numpy.ndarray
        True for held-out stimuli, shape ``(stimulus,)``.
    sha256 : str
        Hash of pixels, labels and split.
    """

    images: torch.Tensor
    labels: np.ndarray
    classes: tuple[str, ...]
    test: np.ndarray
    sha256: str


class DualTaskCNN(torch.nn.Module):
    """Convolutions with ReLU and pooling, one dense layer, and a linear head over the classes of all tasks.

    Layers in execution order: ``features.conv1, features.relu1, features.pool1, …, fc1, fc1_relu, head``. No layer
    writes in place, none is called twice, and there is no batch normalisation, so a unit's output can be recorded
    and lesioned as it is.

    Parameters
    ----------
    size : int
        Side of the grey input images.
    channels : list of int
        Filters of each 3 × 3 convolution; each is followed by 2 × 2 max pooling.
    units : int
        Units of the dense layer.
    n_classes : int
        Classes of all tasks together.
    """

    def __init__(self, size: int, channels: list[int], units: int, n_classes: int) -> None:
        super().__init__()
        side = size >> len(channels)
        if side < 1:
            raise InputError(
                f"{len(channels)} convolutions halve images of {size} pixels to nothing; "
                f"give size {2 ** len(channels)} or more, or fewer channels"
            )
        layers: OrderedDict[str, torch.nn.Module] = OrderedDict()
        for i, (before, after) in enumerate(zip([1, *channels], channels, strict=False), start=1):
            layers[f"conv{i}"] = torch.nn.Conv2d(before, after, kernel_size=3, padding=1)
            layers[f"relu{i}"] = torch.nn.ReLU()
            layers[f"pool{i}"] = torch.nn.MaxPool2d(2)
        self.features = torch.nn.Sequential(layers)
        self.fc1 = torch.nn.Linear(channels[-1] * side * side, units)
        self.fc1_relu = torch.nn.ReLU()
        self.head = torch.nn.Linear(units, n_classes)
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(stimulus, class)`` for images of shape ``(stimulus, 1, size, size)``."""
        hidden = self.fc1_relu(self.fc1(self.features(images).flatten(1)))
        return self.head(hidden)


def preprocessing(size: int) -> Preprocessing:
    """Return what every image goes through, in training and afterwards: grey, size × size, about -2 to 2.

    Parameters
    ----------
    size : int
        Side in pixels.

    Returns
    -------
    Preprocessing
        The aspect ratio is not kept.
    """
    return Preprocessing(
        resize=(size, size),
        resize_mode="squash",
        interpolation="bilinear",
        channel_order="grey",
        mean=(0.5,),
        std=(0.25,),
    )


@with_options(DualTaskOptions)
def open_network(
    data: Mapping[str, Any] | None = None, progress: bool | None = None, *, options: DualTaskOptions
) -> Network:
    """Train the dual-task CNN, or load it where it was trained before with the same options, data and torch.

    Parameters
    ----------
    data : mapping, optional
        Training data by task instead of the data sets that `tasks` names: values as in :func:`train`.
    progress : bool, optional
        Show a progress bar while training; by default on a terminal only.

    Returns
    -------
    Network
        In evaluation mode. Its provenance states classes, number of images, training and held-out accuracy and
        chance for each task.

    Raises
    ------
    InputError
        If a task has fewer than two classes, or a class has no training image.
    DataError
        If a named data set is not there.
    """
    sources = dict(data) if data is not None else {task: _load(task, entry) for task, entry in options.tasks.items()}
    tasks = prepare_tasks(sources, options.size, options.held_out, options.seed, options.labels)
    settings = TrainingOptions(**{name: getattr(options, name) for name in TrainingOptions.model_fields})
    key = fingerprint(_configuration(tasks, settings))
    folder = _cache_folder(options.cache) / key[:32]
    if not options.retrain and (kept := _read_cache(folder, key)) is not None:
        state, provenance = kept
        n_classes = len(provenance["classes"])
        with seeded(options.seed):
            module = DualTaskCNN(options.size, options.channels, options.units, n_classes)
        load_into(module, state)
        return _network(module, options, provenance)
    module, provenance = _fit(tasks, settings, progress)
    _write_cache(folder, key, module, provenance)
    return _network(module, options, provenance)


@with_options(TrainingOptions)
def train(tasks: Mapping[str, Any], progress: bool | None = None, *, options: TrainingOptions) -> Network:
    """Train a network on several tasks at once, one softmax over the union of their classes.

    Every step takes the same number of images from each task; Adam with a one-cycle learning rate minimises the
    cross-entropy. Training runs on one thread (more would gain little at this size, and round differently), so the
    same options, data and version of torch give the same weights, bit for bit, on one kind of processor.

    Parameters
    ----------
    tasks : mapping
        Name of each task, and its data: `Stimuli` with a label column (and, if it has one, a column ``split`` of
        ``train`` and ``test``); or a tuple ``(images, labels)`` or ``(images, labels, split)`` with uint8 images of
        shape ``(stimulus, y, x)`` or ``(stimulus, y, x, 3)`` and labels of shape ``(stimulus,)``.
    progress : bool, optional
        Show a progress bar; by default on a terminal only.

    Returns
    -------
    Network
        In evaluation mode, with classes and accuracies in its provenance.

    Raises
    ------
    InputError
        If a task has fewer than two classes, or a class has no training image.
    """
    data = prepare_tasks(tasks, options.size, options.held_out, options.seed, options.labels)
    module, provenance = _fit(data, options, progress)
    return _network(module, options, provenance)


def prepare_tasks(
    tasks: Mapping[str, Any], size: int, held_out: float, seed: int, labels: Mapping[str, str] | None = None
) -> dict[str, TaskData]:
    """Preprocess the images of each task and settle its classes and split.

    Parameters
    ----------
    tasks : mapping
        As in :func:`train`.
    size : int
        Side of the images that the network sees.
    held_out : float
        Share of each class to hold out where the data state no split.
    seed : int
        Seed of that choice.
    labels : mapping of str to str, optional
        Label column of each task.

    Returns
    -------
    dict of str to TaskData
        In the order of `tasks`.

    Raises
    ------
    InputError
        If a task has no label column, fewer than two classes, or a class without a training image.
    """
    if not tasks:
        raise InputError("there is no task to train on; give a mapping such as {'faces': stimuli, 'digits': stimuli}")
    transform = preprocessing(size)
    prepared = {}
    for number, (task, source) in enumerate(tasks.items()):
        pictures, names, split = _unpack(task, source, (labels or {}).get(task))
        images = torch.stack([transform(picture) for picture in pictures])
        classes, indices = np.unique(np.asarray(names).astype(str), return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"task {task!r} has one class ({str(classes[0])!r}), so there is nothing to learn; give two or more"
            )
        test = _split(task, split, indices, held_out, seed, number)
        untrained = set(range(len(classes))) - set(indices[~test].tolist())
        if untrained:
            raise InputError(
                f"task {task!r}: class {str(classes[min(untrained)])!r} has no training image; correct the split"
            )
        digest = fingerprint([images.numpy(), classes[indices].tolist(), test])
        prepared[task] = TaskData(images, indices.astype(np.int64), tuple(classes.tolist()), test, digest)
    return prepared


def evaluate(module: torch.nn.Module, images: torch.Tensor, targets: np.ndarray) -> float | None:
    """Return the share of images whose largest logit, over the classes of all tasks, is the right one.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    images : torch.Tensor
        Preprocessed, shape ``(stimulus, 1, y, x)``.
    targets : numpy.ndarray
        Right class over the union of tasks, shape ``(stimulus,)``.

    Returns
    -------
    float or None
        From 0 to 1; None without images.
    """
    if len(images) == 0:
        return None
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            guesses = torch.cat([module(part).argmax(1) for part in images.split(512)])
    finally:
        module.train(training)
    return float((guesses.numpy() == targets).mean())


def _fit(
    tasks: Mapping[str, TaskData], options: TrainingOptions, progress: bool | None
) -> tuple[DualTaskCNN, dict[str, Any]]:
    """Train, and measure what was learnt."""
    with _one_thread():
        return _fit_alone(tasks, options, progress)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch's operators on the calling thread, and give the threads back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit_alone(
    tasks: Mapping[str, TaskData], options: TrainingOptions, progress: bool | None
) -> tuple[DualTaskCNN, dict[str, Any]]:
    offsets = dict(zip(tasks, np.cumsum([0] + [len(task.classes) for task in tasks.values()]).tolist(), strict=False))
    n_classes = sum(len(task.classes) for task in tasks.values())
    with seeded(options.seed):
        module = DualTaskCNN(options.size, options.channels, options.units, n_classes).train()
    share = max(1, options.batch // len(tasks))
    train_rows = {name: np.flatnonzero(~task.test) for name, task in tasks.items()}
    steps = max(1, round(max(len(rows) for rows in train_rows.values()) / share))
    total = steps * options.epochs
    optimiser = torch.optim.Adam(module.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.learning_rate, total_steps=max(total, 2))
    orders = {
        name: _order(len(train_rows[name]), share * total, np.random.Generator(np.random.Philox(key=[options.seed, k])))
        for k, name in enumerate(tasks)
    }
    targets = {name: torch.from_numpy(task.labels + offsets[name]) for name, task in tasks.items()}
    with progress_bar(total=total, desc="training", unit="step", enabled=progress) as bar:
        for step in range(total):
            chosen = {
                name: torch.from_numpy(train_rows[name][orders[name][step * share : (step + 1) * share]])
                for name in tasks
            }
            images = torch.cat([task.images[chosen[name]] for name, task in tasks.items()])
            wanted = torch.cat([targets[name][chosen[name]] for name in tasks])
            optimiser.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(module(images), wanted).backward()
            optimiser.step()
            schedule.step()
            bar.update()
    module.eval()
    measured = {}
    for name, task in tasks.items():
        right = task.labels + offsets[name]
        measured[name] = {
            "n_classes": len(task.classes),
            "n_train": int((~task.test).sum()),
            "n_held_out": int(task.test.sum()),
            "train_accuracy": evaluate(module, task.images[torch.from_numpy(~task.test)], right[~task.test]),
            "held_out_accuracy": evaluate(module, task.images[torch.from_numpy(task.test)], right[task.test]),
            "chance": 1 / len(task.classes),
            "data_sha256": task.sha256,
        }
    provenance = {
        "extractor": "dual_task_cnn",
        "architecture": f"convolutions {options.channels}, dense {options.units}, head {n_classes}",
        "weights": f"{'trained here' if options.epochs else 'untrained'}, seed {options.seed}",
        "licence": "Apache-2.0",
        "tasks": measured,
        "classes": [f"{name}:{label}" for name, task in tasks.items() for label in task.classes],
        "training": {
            **{name: value for name, value in options.model_dump().items() if name != "name"},
            "optimiser": "Adam, one cycle",
            "steps": total,
            "torch": str(torch.__version__),
        },
        "preprocessing": preprocessing(options.size).describe(),
    }
    return module, provenance


def _network(module: DualTaskCNN, options: TrainingOptions, provenance: Mapping[str, Any]) -> Network:
    return Network(
        module.eval(),
        preprocessing(options.size),
        name=options.name or "dual_task_cnn",
        input_shape=(1, options.size, options.size),
        provenance=provenance,
    )


def _order(n: int, needed: int, rng: np.random.Generator) -> np.ndarray:
    """Positions 0 to n-1 in a new random order each round, until there are enough."""
    rounds = max(1, -(-needed // n))
    return np.concatenate([rng.permutation(n) for _ in range(max(1, rounds))])[:needed]


def _unpack(task: str, source: Any, column: str | None) -> tuple[list[Image.Image], np.ndarray, np.ndarray | None]:
    """Pictures, label of each, and split of each (or None)."""
    if isinstance(source, tuple):
        if len(source) not in (2, 3):
            raise InputError(
                f"task {task!r}: give (images, labels) or (images, labels, split), not {len(source)} items"
            )
        array, names = np.asarray(source[0]), np.asarray(source[1])
        split = np.asarray(source[2]) if len(source) == 3 else None
        if array.dtype != np.uint8 or array.ndim not in (3, 4):
            raise InputError(
                f"task {task!r}: images of type {array.dtype} and shape {array.shape} cannot be used; give uint8 "
                "images of shape (stimulus, y, x) or (stimulus, y, x, 3) with values 0–255"
            )
        if len(names) != len(array) or (split is not None and len(split) != len(array)):
            raise InputError(f"task {task!r}: {len(array)} images, but {len(names)} labels; give one label an image")
        return [Image.fromarray(image) for image in array], names, split
    columns = getattr(source, "labels", None)
    if columns is None:
        raise InputError(f"task {task!r}: cannot train on a {type(source).__name__}; give Stimuli or (images, labels)")
    wanted = [column] if column is not None else [task, *LABEL_COLUMNS]
    found = [name for name in wanted if name in columns]
    if not found:
        hint = nearest(column, columns) if column is not None else f"there are: {', '.join(columns) or 'none'}"
        raise InputError(
            f"task {task!r}: the stimuli {source.name!r} have no label column {column or ' or '.join(LABEL_COLUMNS)!r}"
            f"; {hint}. Name it with labels={{{task!r}: …}}"
        )
    return [source[i] for i in range(len(source))], columns[found[0]], columns.get(SPLIT_COLUMN)


def _split(
    task: str, split: np.ndarray | None, indices: np.ndarray, held_out: float, seed: int, number: int
) -> np.ndarray:
    """Which stimuli are held out: as the data say, or a seeded share of every class."""
    if split is not None:
        words = set(np.unique(split.astype(str)).tolist())
        if not words <= {"train", "test"} or "train" not in words:
            raise InputError(f"task {task!r}: the split column holds {sorted(words)}; it must hold 'train' and 'test'")
        return split.astype(str) == "test"
    # A stream of its own, apart from those that order the training images.
    rng = np.random.Generator(np.random.Philox(key=[seed, 2**32 + number]))
    test = np.zeros(len(indices), dtype=bool)
    for label in np.unique(indices):
        rows = rng.permutation(np.flatnonzero(indices == label))
        test[rows[: int(len(rows) * held_out)]] = True
    return test


def _load(task: str, entry: str | dict[str, Any]) -> Stimuli:
    settings = {"dataset": entry} if isinstance(entry, str) else dict(entry)
    name = settings.pop("dataset", None)
    if not isinstance(name, str):
        raise InputError(f"task {task!r} is {entry!r}, which names no data set; write NAME or {{dataset: NAME, …}}")
    return plugins.load("actkit.data_specs", "actkit").load(name, **settings).stimuli


def _configuration(tasks: Mapping[str, TaskData], options: TrainingOptions) -> dict[str, Any]:
    """Everything that determines the trained weights, apart from rounding."""
    settings = {
        name: value for name, value in options.model_dump().items() if name not in ("name", "labels", "held_out")
    }
    return {
        "recipe": RECIPE,
        "torch": str(torch.__version__),
        "options": settings,
        "preprocessing": preprocessing(options.size).describe(),
        "tasks": [[name, task.sha256, list(task.classes)] for name, task in tasks.items()],
    }


def _cache_folder(cache: str | None) -> Path:
    if cache is not None:
        return Path(cache).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("actkit") / "networks"


def _read_cache(folder: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return weights and provenance, or None where the cache has none or its files do not belong together."""
    try:
        note = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        weights = folder / "weights.safetensors"
        if note["key"] != key or file_sha256(weights) != note["weights_file_sha256"]:
            return None
        return load_state_dict(weights), note["provenance"]
    except (OSError, ValueError, KeyError):
        return None


def _write_cache(folder: Path, key: str, module: torch.nn.Module, provenance: Mapping[str, Any]) -> None:
    """Write weights and note into a folder beside, then put it in place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        weights = partial / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, weights)
        note = {"key": key, "weights_file_sha256": file_sha256(weights), "provenance": dict(provenance)}
        atomic_write(partial / "network.json", json.dumps(note, indent=1, sort_keys=True))
        try:
            os.replace(partial, folder)
        except OSError:  # a folder is there: of an earlier run, damaged, or just written by another process
            replaced = partial.with_suffix(".replaced")
            os.replace(folder, replaced)
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
