"""A convolutional network trained on several tasks at once, with one softmax over all their classes.

The network learns, say, to name faces and to read digits with the same units, so that one can ask which units serve
which task (Dobs K., Martinez J., Kell A. J. E., Kanwisher N. Brain-like functional specialization emerges
spontaneously in deep neural networks. Sci Adv 8:eabl8913, 2022). The small ones train in a minute on a laptop; VGG16 is
the network of the paper, for a GPU. A trained network is kept in a cache under a key of everything that determined it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from actkit import plugins
from actkit.errors import InputError
from actkit.extractors.network_cache import cache_folder, read_cache, write_cache
from actkit.extractors.task_images import (
    LABEL_COLUMNS,
    SETS,
    SPLIT_COLUMN,
    ImageSets,
    TaskData,
    image_sets,
    prepare_tasks,
    preprocessing,
)
from actkit.extractors.training import (
    SILENT_OPTIONS,
    TrainingOptions,
    class_offsets,
    computing_threads,
    evaluate,
    evaluate_task,
    fit,
    training_rows,
)
from actkit.extractors.vgg import VGG
from actkit.extractors.weights import load_into, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.results import fingerprint

__all__ = [
    "LABEL_COLUMNS",
    "SETS",
    "SPLIT_COLUMN",
    "DualTaskCNN",
    "DualTaskOptions",
    "ImageSets",
    "TaskData",
    "TrainingOptions",
    "evaluate",
    "image_sets",
    "open_network",
    "prepare_tasks",
    "preprocessing",
    "train",
]

# Raised whenever a change of this file changes what is learnt from the same options and data: old caches then miss.
RECIPE = 1


class DualTaskOptions(TrainingOptions):
    """Options of :func:`open_network`."""

    tasks: dict[str, str | dict[str, Any]] = Field(
        # Sixty pictures of a face: twenty leave held-out accuracy at .58. The held-out pictures of any smaller set of
        # the same faces are held out here too.
        {"faces": {"dataset": "rendered_faces", "n_exemplars": 60}, "digits": "digits"},
        description="Task names and the data sets they learn: a name, or {dataset: NAME, option: value, …}. With a key "
        "sets: {training: N, selectivity: N, ranking: N, evaluation: N} the network learns from N images a class of "
        "the first and is tested on the last of four disjoint sets (see image_sets).",
    )
    cache: str | None = Field(None, description="Folder that keeps trained networks; none: the user's cache.")
    retrain: bool = Field(False, description="Train even where the cache holds the network.")


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


@with_options(DualTaskOptions)
def open_network(
    data: Mapping[str, Any] | None = None, progress: bool | None = None, *, options: DualTaskOptions
) -> Network:
    """Train the dual-task CNN, or load it where it was trained before with the same options, data and torch.

    A training that was cut off goes on from the checkpoint that it left in the cache.

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
    tasks = _prepared(sources, options)
    settings = TrainingOptions(**{name: getattr(options, name) for name in TrainingOptions.model_fields})
    key = fingerprint(_configuration(tasks, settings))
    folder = cache_folder(options.cache) / key[:32]
    checkpoint = folder.with_name(f"{folder.name}.checkpoint.safetensors")
    if options.retrain:
        checkpoint.unlink(missing_ok=True)
    if not options.retrain and (kept := read_cache(folder, key)) is not None:
        state, provenance = kept
        module = build(options, len(provenance["classes"]))
        load_into(module, state)
        return _network(module, options, provenance)
    module, provenance = _fit(tasks, settings, progress, checkpoint)
    write_cache(folder, key, module, provenance)
    return _network(module, options, provenance)


@with_options(TrainingOptions)
def train(
    tasks: Mapping[str, Any],
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    *,
    options: TrainingOptions,
) -> Network:
    """Train a network on several tasks at once, one softmax over the union of their classes.

    Every step takes the same number of images from each task; by default Adam with a one-cycle learning rate minimises
    the cross-entropy. Training runs on one thread (more would gain little at this size, and round differently), so the
    same options, data and version of torch give the same weights, bit for bit, on one kind of processor. One task gives
    a single-task network; two sets of faces under two names, the same-task control.

    Parameters
    ----------
    tasks : mapping
        Name of each task, and its data: `Stimuli` with a label column (and, if it has one, a column ``split`` of
        ``train`` and ``test``); `ImageSets`; or a tuple ``(images, labels)`` or ``(images, labels, split)`` with uint8
        images of shape ``(stimulus, y, x)`` or ``(stimulus, y, x, 3)`` and labels of shape ``(stimulus,)``.
    progress : bool, optional
        Show a progress bar; by default on a terminal only.
    checkpoint : path, optional
        A safetensors file in which work is kept every ``checkpoint_every`` steps, and from which a training that was
        cut off goes on, to the same bits; removed at the end.

    Returns
    -------
    Network
        In evaluation mode, with classes and accuracies in its provenance.

    Raises
    ------
    InputError
        If a task has fewer than two classes, a class has no training image, or the checkpoint is of another training.
    ActkitError
        If the loss is no longer finite.
    """
    data = _prepared(tasks, options)
    module, provenance = _fit(data, options, progress, None if checkpoint is None else Path(checkpoint))
    return _network(module, options, provenance)


def build(options: TrainingOptions, n_classes: int) -> torch.nn.Module:
    """Make the module that options describe, with the initial weights of their seed.

    Parameters
    ----------
    options : TrainingOptions
        Architecture, numbers of filters and units, seed.
    n_classes : int
        Classes of all tasks together.

    Returns
    -------
    torch.nn.Module
        `DualTaskCNN` or `VGG`, on the CPU.
    """
    with seeded(options.seed):
        if options.architecture == "cnn":
            return DualTaskCNN(options.size, options.channels, options.units, n_classes)
        pools = range(1, len(options.channels) + 1) if options.pools is None else options.pools
        return VGG(
            options.size,
            options.channels,
            list(pools),
            [options.units] * options.dense_layers,
            n_classes,
            inputs=3 if options.colour else 1,
            dropout=options.dropout,
            small_dense=options.small_dense,
        )


def _prepared(sources: Mapping[str, Any], options: TrainingOptions) -> dict[str, TaskData]:
    return prepare_tasks(
        sources, options.size, options.held_out, options.seed, options.labels, options.colour, options.memory
    )


def _fit(
    tasks: Mapping[str, TaskData], options: TrainingOptions, progress: bool | None, checkpoint: Path | None = None
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Train, and measure what was learnt."""
    with computing_threads(options.threads):
        offsets = class_offsets(tasks)
        n_classes = sum(len(task.classes) for task in tasks.values())
        module = build(options, n_classes)
        rows = training_rows(tasks, options.n_train, options.seed)
        key = fingerprint(_configuration(tasks, options)) if checkpoint is not None else ""
        steps = fit(module, tasks, rows, options, key, checkpoint, progress)
        measured = {
            name: {
                "n_classes": len(task.classes),
                "n_train": len(rows[name]),
                "n_held_out": int(task.test.sum()),
                "train_accuracy": evaluate_task(module, task, rows[name], offsets[name]),
                "held_out_accuracy": evaluate_task(module, task, task.test.nonzero()[0], offsets[name]),
                "chance": 1 / len(task.classes),
                "data_sha256": task.sha256,
            }
            for name, task in tasks.items()
        }
    how = "Adam" if options.optimiser == "adam" else "gradient descent with momentum 0.9"
    course = "one cycle" if options.schedule == "one_cycle" else "constant learning rate"
    dense = str(options.units) if options.dense_layers == 1 else f"{options.dense_layers} × {options.units}"
    provenance = {
        "extractor": "dual_task_cnn",
        "architecture": f"convolutions {options.channels}, dense {dense}, head {n_classes}",
        "weights": f"{'trained here' if options.epochs else 'untrained'}, seed {options.seed}",
        "licence": "Apache-2.0",
        "tasks": measured,
        "classes": [f"{name}:{label}" for name, task in tasks.items() for label in task.classes],
        "training": {
            **{name: value for name, value in options.model_dump().items() if name != "name"},
            "optimiser": f"{how}, {course}",
            "steps": steps,
            "torch": str(torch.__version__),
        },
        "preprocessing": preprocessing(options.size, options.colour).describe(),
    }
    return module, provenance


def _network(module: torch.nn.Module, options: TrainingOptions, provenance: Mapping[str, Any]) -> Network:
    return Network(
        module.eval(),
        preprocessing(options.size, options.colour),
        name=options.name or ("dual_task_cnn" if options.architecture == "cnn" else options.architecture),
        input_shape=(3 if options.colour else 1, options.size, options.size),
        provenance=provenance,
    )


def _load(task: str, entry: str | dict[str, Any]) -> Any:
    """The stimuli of a task, or the image sets that they are cut into."""
    settings = {"dataset": entry} if isinstance(entry, str) else dict(entry)
    name = settings.pop("dataset", None)
    if not isinstance(name, str):
        raise InputError(f"task {task!r} is {entry!r}, which names no data set; write NAME or {{dataset: NAME, …}}")
    sets = settings.pop("sets", None)
    stimuli = plugins.load("actkit.data_specs", "actkit").load(name, **settings).stimuli
    if sets is None:
        return stimuli
    label = next((column for column in (task, *LABEL_COLUMNS) if column in stimuli.labels), LABEL_COLUMNS[0])
    return image_sets(stimuli, label, sets, seed=int(settings.get("seed", 0)))  # type: ignore[arg-type]


def _configuration(tasks: Mapping[str, TaskData], options: TrainingOptions) -> dict[str, Any]:
    """Everything that determines the trained weights, apart from rounding."""
    settings = {name: getattr(options, name) for name in TrainingOptions.model_fields if name not in SILENT_OPTIONS}
    return {
        "recipe": RECIPE,
        "torch": str(torch.__version__),
        "options": settings,
        "preprocessing": preprocessing(options.size, options.colour).describe(),
        "tasks": [[name, task.sha256, list(task.classes)] for name, task in tasks.items()],
    }
