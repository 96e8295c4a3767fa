"""The images that a network of several tasks learns from, and the disjoint sets that a study of its lesions needs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image

from actkit.compute import format_bytes, parse_bytes
from actkit.errors import InputError, nearest
from actkit.preprocessing import Preprocessing
from actkit.resampling import Stream, generator
from actkit.results import fingerprint

if TYPE_CHECKING:
    from actkit.network import Network
    from actkit.stimuli import Stimuli
    from actkit.tasks import Task

LABEL_COLUMNS = ("identity", "category", "digit", "class", "label")
SPLIT_COLUMN = "split"
SETS = ("training", "selectivity", "ranking", "evaluation")
"""What each set of images is for: to learn from, to choose units by their responses, to rank units by what their
lesion costs, and to measure what a lesion does. Units chosen and measured on the same images look too good."""

_DECODERS = 4


class Images(Protocol):
    """Preprocessed images by row number: a tensor, or `DecodedWhenAsked`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor: ...


class DecodedWhenAsked:
    """Images that are too many for memory: read and preprocessed each time they are asked for.

    Parameters
    ----------
    stimuli : Stimuli
        The images.
    transform : Preprocessing
        What they go through.
    """

    def __init__(self, stimuli: Stimuli, transform: Preprocessing) -> None:
        self.stimuli, self.transform = stimuli, transform

    def __len__(self) -> int:
        return len(self.stimuli)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Images at row numbers (or under a mask), float32, shape ``(row, channel, y, x)``."""
        wanted = (rows.nonzero().flatten() if rows.dtype == torch.bool else rows).tolist()
        if not wanted:
            return torch.empty(0)
        with ThreadPoolExecutor(_DECODERS, thread_name_prefix="actkit-decode") as pool:
            return torch.stack(list(pool.map(lambda row: self.transform(self.stimuli[row]), wanted)))


@dataclass(frozen=True)
class TaskData:
    """One task's images and classes, ready to train on.

    Attributes
    ----------
    images : Images
        float32, shape ``(stimulus, channel, size, size)``, preprocessed: a tensor where they fit in memory.
    labels : numpy.ndarray
        Class index within the task, int64, shape ``(stimulus,)``.
    classes : tuple of str
        The task's classes, in the order of their indices.
    test : numpy.ndarray
        True for held-out stimuli, shape ``(stimulus,)``.
    sha256 : str
        Hash of pixels, labels and split.
    """

    images: Images
    labels: np.ndarray
    classes: tuple[str, ...]
    test: np.ndarray
    sha256: str


def preprocessing(size: int, colour: bool = False) -> Preprocessing:
    """Return what every image goes through, in training and afterwards: size × size, about -2 to 2.

    Parameters
    ----------
    size : int
        Side in pixels.
    colour : bool
        Keep red, green and blue; otherwise grey.

    Returns
    -------
    Preprocessing
        The aspect ratio is not kept.
    """
    return Preprocessing(
        resize=(size, size),
        resize_mode="squash",
        interpolation="bilinear",
        channel_order="RGB" if colour else "grey",
        mean=(0.5,),
        std=(0.25,),
    )


def prepare_tasks(
    tasks: Mapping[str, Any],
    size: int,
    held_out: float,
    seed: int,
    labels: Mapping[str, str] | None = None,
    colour: bool = False,
    memory: str = "4GB",
) -> dict[str, TaskData]:
    """Preprocess the images of each task and settle its classes and split.

    Parameters
    ----------
    tasks : mapping
        As in `actkit.extractors.dual_task_cnn.train`.
    size : int
        Side of the images that the network sees.
    held_out : float
        Share of each class to hold out where the data state no split.
    seed : int
        Seed of that choice.
    labels : mapping of str to str, optional
        Label column of each task.
    colour : bool
        Keep colours.
    memory : str
        What the preprocessed images of one task may take. `Stimuli` that would take more are decoded each time.

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
    transform = preprocessing(size, colour)
    prepared = {}
    for number, (task, source) in enumerate(tasks.items()):
        pictures, names, split = _unpack(task, source, (labels or {}).get(task))
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
        images, content = _images(task, pictures, transform, 4 * size * size * (3 if colour else 1), memory)
        digest = fingerprint([content, classes[indices].tolist(), test])
        prepared[task] = TaskData(images, indices.astype(np.int64), tuple(classes.tolist()), test, digest)
    return prepared


def _images(task: str, pictures: Any, transform: Preprocessing, each: int, memory: str) -> tuple[Images, Any]:
    """Preprocessed images, and what tells them from others: their pixels, or the hash of their files."""
    if each * len(pictures) <= parse_bytes(memory):
        images = torch.stack([transform(pictures[i]) for i in range(len(pictures))])
        return images, images.numpy()
    if isinstance(pictures, list):
        raise InputError(
            f"task {task!r}: {len(pictures)} preprocessed images take {format_bytes(each * len(pictures))}, more than "
            f"memory={memory!r}; raise it, or give the images as Stimuli, which can be decoded as they are needed"
        )
    return DecodedWhenAsked(pictures, transform), [pictures.fingerprint, transform.describe()]


def _unpack(task: str, source: Any, column: str | None) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Pictures (a list, or Stimuli), label of each, and split of each (or None)."""
    if isinstance(source, ImageSets):
        source, column = source.learning, column or source.label
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
    return source, columns[found[0]], columns.get(SPLIT_COLUMN)


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


@dataclass(frozen=True)
class ImageSets:
    """The stimuli of one task, cut into sets without a common picture; see `image_sets`.

    Attributes
    ----------
    label : str
        Label column that holds the class.
    training, selectivity, ranking, evaluation : Stimuli
        The sets, each with the label ``image_set``.
    """

    label: str
    training: Stimuli
    selectivity: Stimuli
    ranking: Stimuli
    evaluation: Stimuli

    @property
    def learning(self) -> Stimuli:
        """Training and evaluation set, their ``split`` being train and test: what `train` learns from and reports."""
        from actkit.stimuli import concatenate

        parts = (("train", self.training), ("test", self.evaluation))
        return concatenate([part.with_labels(split=np.full(len(part), word)) for word, part in parts])

    def task(self, network: Network, name: str, which: str = "ranking") -> Task:
        """Make a set ready for lesions of a network.

        Parameters
        ----------
        network : Network
            The network, trained on a task of this name.
        name : str
            The task's name.
        which : str
            One of `SETS`.

        Returns
        -------
        Task
            Inputs, right output columns, and the task's own columns.

        Raises
        ------
        InputError
            If there is no such set, or the network has no such classes.
        """
        from actkit.tasks import make_task

        if which not in SETS:
            raise InputError(f"there is no image set {which!r}; {nearest(which, SETS)}")
        return make_task(network, name, getattr(self, which), self.label)


def image_sets(stimuli: Stimuli, label: str, per_class: Mapping[str, int], seed: int = 0) -> ImageSets:
    """Cut labelled stimuli into four disjoint sets, in each the same number of images of every class.

    Parameters
    ----------
    stimuli : Stimuli
        The images.
    label : str
        Column that holds the class.
    per_class : mapping of str to int
        Images of each class in ``training``, ``selectivity``, ``ranking`` and ``evaluation``.
    seed : int
        Seed of the choice. Sets do not change when those after them (in the order above) get other numbers.

    Returns
    -------
    ImageSets
        Stimuli in their order. Of pictures that are equal byte for byte only the first is used, so that none can be
        in two sets.

    Raises
    ------
    InputError
        If a set has no number, or a class has too few different pictures.
    """
    if label not in stimuli.labels:
        raise InputError(f"{stimuli.name!r} has no label {label!r}; {nearest(label, stimuli.labels)}")
    if set(per_class) != set(SETS) or min(per_class.values()) < 1:
        raise InputError(
            f"per_class is {dict(per_class)!r}; give a number from 1 on for each of {', '.join(SETS)}, as lesions "
            "chosen and measured on the same images look stronger than they are"
        )
    _, first = np.unique(stimuli.content_groups(), return_index=True)
    values = stimuli.labels[label].astype(str)
    needed = sum(per_class.values())
    chosen: dict[str, list[int]] = {name: [] for name in SETS}
    for number, value in enumerate(np.unique(values)):
        rows = np.sort(first[values[first] == value])
        if len(rows) < needed:
            raise InputError(
                f"class {str(value)!r} of {stimuli.name!r} has {len(rows)} different pictures, and the sets need "
                f"{needed} of each class; lower per_class, or give more pictures"
            )
        order, done = generator(seed, number, Stream.STIMULI).permutation(rows), 0
        for name in SETS:
            chosen[name] += order[done : done + per_class[name]].tolist()
            done += per_class[name]
    parts = {name: stimuli[sorted(rows)] for name, rows in chosen.items()}
    marked = {name: part.with_labels(image_set=np.full(len(part), name)) for name, part in parts.items()}
    return ImageSets(label, **marked)
