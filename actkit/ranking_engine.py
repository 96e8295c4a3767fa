"""Evaluation of lesion candidates for the ranking strategies: sweeps in blocks, a journal, and what follows from it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actkit.errors import InputError
from actkit.layers import first_tensor
from actkit.replay import sweep
from actkit.resampling import Stream, generator
from actkit.results import atomic_write, fingerprint
from actkit.tasks import Task, image_losses

Values = dict[str, np.ndarray]

MEASURES = ("loss", "correct", "loss_masked", "correct_masked")

# Row orders and halves number their streams from here: permutations of labels start at 0 and never get here.
_ORDERS = 2**62
_HALVES = 2**62 + 2**32


class Journal:
    """Blocks of finished numbers on disk, so that a killed sweep goes on where it was.

    A block is one file, written beside its place and moved there once it is whole. ``journal.json`` keeps what the
    sweep was asked; another question on the same folder is refused.

    Parameters
    ----------
    folder : path or None
        Where to keep it; None keeps nothing.
    question : mapping
        Everything that decides the numbers, JSON-able.

    Raises
    ------
    InputError
        If the folder holds the journal of another sweep, or files that are no journal.
    """

    def __init__(self, folder: str | Path | None, question: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        asked = json.loads(json.dumps(dict(question), sort_keys=True, default=str))
        note = self.folder / "journal.json"
        if note.is_file():
            kept = json.loads(note.read_text(encoding="utf-8"))
            other = sorted(name for name in {*kept, *asked} if kept.get(name) != asked.get(name))
            if other:
                words = ", ".join(f"{name} {kept.get(name)!r} against {asked.get(name)!r}" for name in other)
                raise InputError(
                    f"{self.folder} holds the journal of another sweep ({words}); its numbers do not belong to this "
                    "one. Give the same question to go on, or another folder"
                )
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(f"{self.folder} is there already and is no journal of a sweep; give a new folder")
        atomic_write(note, json.dumps(asked, indent=1, sort_keys=True))

    def block(self, key: str, digest: str, compute: Callable[[], Values]) -> Values:
        """Return a block, from disk where an earlier run finished it.

        Parameters
        ----------
        key : str
            Name of the block, a file name.
        digest : str
            Hash of its candidates and images; a block kept for others is computed anew.
        compute : callable
            Gives the block.

        Returns
        -------
        dict of str to numpy.ndarray
            The block's numbers.
        """
        if self.folder is None:
            return compute()
        path = self.folder / f"{key}.npz"
        if path.is_file():
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                    if str(kept["_digest"]) == digest:
                        return {name: kept[name] for name in kept.files if name != "_digest"}
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                pass  # damaged by something else than a kill: it is computed again
        values = compute()
        buffer = io.BytesIO()
        np.savez(buffer, **values, _digest=np.array(digest))  # type: ignore[arg-type]
        atomic_write(path, buffer.getvalue())
        return values


@dataclass(eq=False)
class Engine:
    """What a strategy needs to try candidates on one task.

    Attributes
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    layer : str
        The layer that is lesioned.
    task : Task
        Images and targets.
    number : int
        Position of the task among the tasks, part of the names of its blocks.
    n_channels : int
        Channels of the layer.
    channels : numpy.ndarray of int64
        Channels that are ranked.
    journal : Journal
        Where finished blocks go.
    settings : dict
        Keywords of :func:`actkit.replay.sweep`: mode, fill, method, memory, batch.
    images : int
        Images a block.
    block : int or None
        Candidates a block; None puts all of them in one.
    advance : callable
        Called with the number of (candidate, image) pairs after each block.
    method : set of str
        Filled with the methods that the sweeps took and their reasons.
    """

    module: torch.nn.Module
    layer: str
    task: Task
    number: int
    n_channels: int
    channels: np.ndarray
    journal: Journal
    settings: dict[str, Any]
    images: int = 256
    block: int | None = None
    advance: Callable[[int], Any] = lambda pairs: None
    method: set[str] = field(default_factory=set)

    @property
    def n_images(self) -> int:
        """Images of the task."""
        return len(self.task.targets)

    def measure(self, rows: np.ndarray) -> Callable[[torch.Tensor, slice], dict[str, torch.Tensor]]:
        """Make the function that turns logits into losses and hits, for chosen images.

        Parameters
        ----------
        rows : numpy.ndarray of int
            ``(B,)`` rows of the task, in the order in which the sweep gets them.

        Returns
        -------
        callable
            ``score(logits (B', outputs), slice of rows)`` with a tensor ``(B',)`` for each measure.
        """
        targets = self.task.targets[rows]
        classes = self.task.classes

        def score(logits: torch.Tensor, images: slice) -> dict[str, torch.Tensor]:
            wanted = targets[images]
            loss, correct = image_losses(logits, wanted)
            found = {"loss": loss, "correct": correct}
            if classes is not None:
                loss, correct = image_losses(logits, wanted, classes)
                found |= {"loss_masked": loss, "correct_masked": correct}
            return found

        return score

    def evaluate(
        self,
        tag: str,
        candidates: Sequence[np.ndarray],
        base: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> Values:
        """Lesion every candidate, and measure every image.

        Parameters
        ----------
        tag : str
            What the evaluation is for, unique within the task; names its blocks.
        candidates : sequence of numpy.ndarray of int
            Channels that each candidate silences.
        base : numpy.ndarray of int, optional
            Channels that are silenced for every candidate.
        rows : numpy.ndarray of int, optional
            Rows of the task; all of them by default.

        Returns
        -------
        dict of str to numpy.ndarray of float64
            ``(candidates, images)`` for each measure; under ``base_`` and its name ``(1, images)``, without any
            candidate.

        Raises
        ------
        InputError
            If a loss is not finite.
        """
        wanted = np.arange(self.n_images) if rows is None else np.asarray(rows)
        out: Values = {}
        step = self.block or max(1, len(candidates))
        for first in range(0, len(wanted), self.images):
            part = wanted[first : first + self.images]
            for start in range(0, len(candidates), step):
                some = list(candidates[start : start + step])
                values = self._block(f"{self.number}-{tag}-{first:06d}-{start:05d}", some, base, part)
                for name, block in values.items():
                    here = slice(0, 1) if name.startswith("base_") else slice(start, start + len(some))
                    if name not in out:
                        out[name] = np.empty((1 if name.startswith("base_") else len(candidates), len(wanted)))
                    out[name][here, first : first + len(part)] = block
                self.advance(len(some) * len(part))
        return out

    def _block(self, key: str, candidates: list[np.ndarray], base: np.ndarray | None, rows: np.ndarray) -> Values:
        def compute() -> Values:
            result = sweep(
                self.module,
                self.layer,
                self.task.inputs[torch.from_numpy(rows)],
                candidates,
                self.measure(rows),
                base=base,
                progress=False,
                **self.settings,
            )
            self.method.add(f"{result.method}: {result.reason}" if result.reason else result.method)
            values = {name: np.asarray(result.values[name], dtype=np.float64) for name in result.values}
            self.check(values["loss"], candidates, rows)
            silenced = np.empty(0, dtype=np.int64) if base is None else base
            self.check(np.asarray(result.intact["loss"])[None], [silenced], rows)
            return values | {f"base_{name}": np.asarray(kept)[None] for name, kept in result.intact.items()}

        digest = fingerprint([[np.asarray(c) for c in candidates], base, rows]) if self.journal.folder else ""
        return self.journal.block(key, digest, compute)

    def check(self, losses: np.ndarray, candidates: Sequence[np.ndarray] | np.ndarray, rows: np.ndarray) -> None:
        """Refuse losses that are not finite, naming the first.

        Parameters
        ----------
        losses : numpy.ndarray
            ``(candidates, images)``.
        candidates : sequence of numpy.ndarray
            Channels of each.
        rows : numpy.ndarray
            Rows of the task.

        Raises
        ------
        InputError
            If one is NaN or infinite.
        """
        bad = np.argwhere(~np.isfinite(losses))
        if len(bad):
            candidate, image = bad[0]
            channels = np.asarray(candidates[candidate]).tolist()
            raise InputError(
                f"task {self.task.name!r}: the loss of image {name_of(self.task, int(rows[image]))} is "
                f"{losses[candidate, image]} with channels {channels[:8]} of layer {self.layer!r} silenced "
                f"({len(bad)} such losses); a ranking would put them anywhere. Look for NaN or overflow in the network"
            )

    def intact(self) -> Values:
        """Measure the network as it is.

        Returns
        -------
        dict of str to numpy.ndarray of float64
            ``(images,)`` for each measure.

        Raises
        ------
        InputError
            If a loss is not finite, or the journal was begun with a network or images that gave other losses.
        """
        found: dict[str, list[np.ndarray]] = {}
        step = int(self.settings.get("batch") or 64)
        rows = np.arange(self.n_images)
        score = self.measure(rows)
        like = next((p for p in self.module.parameters() if p.is_floating_point()), self.task.inputs)
        with torch.inference_mode():
            for start in range(0, self.n_images, step):
                images = slice(start, min(start + step, self.n_images))
                # A copy: an in-place first layer must not overwrite the task's images.
                batch = self.task.inputs[images].clone()
                logits, note = first_tensor(
                    self.module(batch.to(like.device, like.dtype if batch.is_floating_point() else batch.dtype))
                )
                if logits is None:
                    raise InputError(f"{type(self.module).__name__} gives no scores to rank by: {note}")
                for name, value in score(logits, images).items():
                    found.setdefault(name, []).append(value.cpu().numpy())
        values = {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}
        bad = np.flatnonzero(~np.isfinite(values["loss"]))
        if len(bad):
            raise InputError(
                f"task {self.task.name!r}: the intact network's loss is {values['loss'][bad[0]]} for image "
                f"{name_of(self.task, int(bad[0]))} ({len(bad)} such images); nothing can be ranked. Correct the "
                "network or leave these images out"
            )
        kept = self.journal.block(f"{self.number}-intact", "", lambda: values)
        if not np.allclose(kept["loss"], values["loss"], rtol=1e-4, atol=1e-5):
            raise InputError(
                f"{self.journal.folder}: the intact network gives task {self.task.name!r} other losses than when the "
                "journal was begun (a hook, a lesion or another device); give a new folder"
            )
        return kept


def name_of(task: Task, row: int) -> str:
    """Name an image of a task for a message."""
    return str(row) if task.ids is None else repr(str(task.ids[row]))


def descending(values: np.ndarray) -> np.ndarray:
    """Order from the largest value down, ties by index.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n,)`` without NaN.

    Returns
    -------
    numpy.ndarray of int64
        ``(n,)`` positions.

    Examples
    --------
    >>> descending(np.array([1.0, 3.0, 3.0, 2.0])).tolist()
    [1, 2, 3, 0]
    """
    return np.lexsort((np.arange(len(values)), -values))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank from the largest value (1) down, ties by index.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n,)`` without NaN.

    Returns
    -------
    numpy.ndarray of int64
        ``(n,)`` from 1 to n.
    """
    rank = np.empty(len(values), dtype=np.int64)
    rank[descending(values)] = np.arange(1, len(values) + 1)
    return rank


def balanced_order(targets: np.ndarray, seed: int, number: int = 0) -> np.ndarray:
    """Shuffle images so that every beginning of the order holds the classes in near equal shares.

    Parameters
    ----------
    targets : numpy.ndarray of int
        ``(images,)`` class of each.
    seed, number : int
        The random stream.

    Returns
    -------
    numpy.ndarray of int64
        ``(images,)`` a permutation.
    """
    rng = generator(seed, _ORDERS + number, Stream.PERMUTATIONS)
    place = np.empty(len(targets))
    for label in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == label))
        place[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")


def halves(targets: np.ndarray, seed: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images into two disjoint halves with the same number of each class, give or take one.

    Parameters
    ----------
    targets : numpy.ndarray of int
        ``(images,)`` class of each.
    seed, number : int
        The random stream.

    Returns
    -------
    tuple of numpy.ndarray of int64
        Rows of each half, rising.
    """
    rng = generator(seed, _HALVES + number, Stream.PERMUTATIONS)
    first = np.zeros(len(targets), dtype=bool)
    odd = 0  # the odd images of the classes go to the two halves in turn
    for label in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == label))
        first[rows[: (len(rows) + odd) // 2]] = True
        odd ^= len(rows) % 2
    return np.flatnonzero(first), np.flatnonzero(~first)


def agreement(a: np.ndarray, b: np.ndarray, k: int) -> tuple[float, float]:
    """Compare two rankings of the same units.

    Parameters
    ----------
    a, b : numpy.ndarray
        ``(units,)`` values, the larger the more important.
    k : int
        Length of the top.

    Returns
    -------
    overlap : float
        Share of the top k of one that is in the top k of the other.
    rho : float
        Spearman's correlation; NaN where one of them is constant.
    """
    from scipy.stats import rankdata  # a quarter of the time that this module would take to import

    overlap = len(np.intersect1d(descending(a)[:k], descending(b)[:k])) / k
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return overlap, float(x @ y / scale) if scale > 0 else float("nan")
