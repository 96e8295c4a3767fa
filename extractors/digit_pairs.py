"""Pairs of digits (or letters) as a world for two modules: how alike the two are, how noisy, and when each appears.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025); arXiv 2106.02626. Details of pairing, noise and onsets follow the code that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from actkit.errors import InputError
from actkit.resampling import Stream, generator
from actkit.stimuli import Stimuli

__all__ = ["Glyphs", "Pairs", "draw_onsets", "equal_share", "noisy_steps", "pair_up"]

_SLOTS = 5  # other images that a noise image is made of; each pixel of each is kept with probability 1 / _SLOTS


@dataclass(frozen=True)
class Glyphs:
    """Single images of classes, flat and normalised.

    Attributes
    ----------
    images : numpy.ndarray of float32
        ``(n, pixels)``.
    labels : numpy.ndarray of int
        ``(n,)`` number of the class, from 0.
    classes : tuple of str
        Names of the classes, in the order of their numbers.
    ids : tuple of str
        Stimulus ids.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, stimuli: Stimuli, label: str, *, shrink: int = 1, centre: float = 0.0, scale: float = 1.0) -> Glyphs:
        """Read grey images.

        Parameters
        ----------
        stimuli : Stimuli
            Images of one size, with a label.
        label : str
            Label whose values are the classes; whole numbers keep their order.
        shrink : int
            Side of the squares of pixels that are averaged into one.
        centre, scale : float
            Mean and standard deviation of a pixel (from 0 to 1) that images are normalised by.

        Returns
        -------
        Glyphs
            In the order of the stimuli.

        Raises
        ------
        InputError
            If there is no such label, one class alone, or images have several colours or sides that `shrink` does not
            divide.
        """
        if label not in stimuli.labels:
            raise InputError(f"the stimuli have no label {label!r}; they have {sorted(stimuli.labels)}")
        if len(stimuli) < 2:
            raise InputError(f"{len(stimuli)} images make no pairs; give at least two")
        values = np.asarray(stimuli.labels[label])
        names, numbers = np.unique(values, return_inverse=True)
        if len(names) < 2:
            raise InputError(
                f"all {len(values)} images are of class {names[0]!s}, so a pair has nothing to tell apart; give images "
                "of at least two classes"
            )
        pictures = np.stack([_grey(stimuli[row]) for row in range(len(stimuli))])
        if shrink < 1 or pictures.shape[1] % shrink or pictures.shape[2] % shrink:
            raise InputError(
                f"shrink={shrink} does not divide images of {pictures.shape[1]} × {pictures.shape[2]} pixels; give a "
                "divisor of both sides, or 1"
            )
        n, height, width = pictures.shape
        squares = pictures.reshape(n, height // shrink, shrink, width // shrink, shrink).mean(axis=(2, 4))
        flat = ((squares.reshape(n, -1) / 255.0 - centre) / scale).astype(np.float32)
        return cls(flat, numbers.astype(np.int64), tuple(str(name) for name in names), tuple(map(str, stimuli.ids)))

    def take(self, rows: np.ndarray) -> Glyphs:
        """Select images; classes keep their numbers."""
        return Glyphs(self.images[rows], self.labels[rows], self.classes, tuple(self.ids[row] for row in rows))


def _grey(image: object) -> np.ndarray:
    """One image as an array (y, x), 0 to 255."""
    array = np.asarray(image, dtype=np.float64)
    if array.ndim == 3 and array.shape[2] in (3, 4) and not np.ptp(array[:, :, :3], axis=2).any():
        array = array[:, :, 0]  # grey, stored in colours
    if array.ndim != 2:
        raise InputError(
            f"an image has shape {array.shape}, and glyphs are grey, (y, x); convert the images to grey levels"
        )
    return array


@dataclass(frozen=True)
class Pairs:
    """Which image each module sees in each sample.

    Attributes
    ----------
    rows : numpy.ndarray of int
        ``(n, modules)`` row of the images.
    labels : numpy.ndarray of int
        ``(n, modules)`` class number.
    """

    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def equal_share(n_classes: int, cov_ratio: float) -> float:
    """Share of pairs whose two classes are equal, for balanced classes: ``1 / (1 + (K - 1) c)``.

    Parameters
    ----------
    n_classes : int
        K.
    cov_ratio : float
        c, the weight of another class relative to the same one: 1 makes the two independent, 0 always equal.

    Returns
    -------
    float
        From 0 to 1.
    """
    return 1 / (1 + (n_classes - 1) * cov_ratio)


def pair_up(
    labels: np.ndarray, n_classes: int, *, cov_ratio: float = 1.0, balanced: bool = False, modules: int = 2, seed: int
) -> Pairs:
    """Give every image partners, once and for all.

    Image i is the first of sample i; the others are drawn with replacement, an image of the same class with weight 1
    and one of another class with weight `cov_ratio`.

    Parameters
    ----------
    labels : numpy.ndarray of int
        ``(n,)`` class of each image.
    n_classes : int
        Number of classes K.
    cov_ratio : float
        From 0 (always the same class) over 1 (independent) to more (rarely the same).
    balanced : bool
        Drop pairs in which the second class minus the first, modulo K, is 0 or 1: with an even K, equal and unequal
        parities are then equally frequent, and no pair has two equal digits. Two modules only.
    modules : int
        Images in a sample.
    seed : int
        Seed of the draws.

    Returns
    -------
    Pairs
        As many as there are images, fewer if balanced.

    Raises
    ------
    InputError
        If the ratio is negative, or no pair remains.
    """
    if cov_ratio < 0:
        raise InputError(f"cov_ratio={cov_ratio} is negative; it is a weight, from 0 (same class) over 1 (independent)")
    if modules < 2:
        raise InputError(f"modules={modules}: a sample is of two images or more; give at least 2")
    if balanced and modules != 2:
        raise InputError(f"balanced pairs are of two images, not of {modules}; use balanced=False")
    n, random = len(labels), generator(seed, 0, Stream.STIMULI)
    by_class = [np.flatnonzero(labels == k) for k in range(n_classes)]
    rows = np.empty((n, modules), dtype=np.int64)
    rows[:, 0] = np.arange(n)
    for k, own in enumerate(by_class):
        if not len(own):
            continue
        others = np.flatnonzero(labels != k)
        same = len(own) / (len(own) + cov_ratio * len(others))
        shape = (len(own), modules - 1)
        rows[own, 1:] = own[random.integers(len(own), size=shape)]
        different = random.random(shape) >= same
        if len(others):
            rows[own, 1:] = np.where(different, others[random.integers(len(others), size=shape)], rows[own, 1:])
    if balanced:
        gap = (labels[rows[:, 1]] - labels[rows[:, 0]]) % n_classes
        rows = rows[gap > 1]
        if not len(rows):
            raise InputError(
                f"no pair of {n} is left when those whose classes are equal or follow each other are dropped "
                f"(cov_ratio={cov_ratio}, {n_classes} classes); use balanced=False or a higher cov_ratio"
            )
    return Pairs(rows, labels[rows])


def draw_onsets(n: int, modules: int, steps: int, seed: int) -> np.ndarray:
    """Draw when each module's image appears: uniform over 1 to ``steps - 2``, independent across modules.

    Parameters
    ----------
    n : int
        Samples.
    modules : int
        Modules.
    steps : int
        Time steps T.
    seed : int
        Seed of the draws.

    Returns
    -------
    numpy.ndarray of int
        ``(n, modules)`` step, counted from 0, at which the image replaces noise.

    Raises
    ------
    InputError
        If there are fewer than three steps.
    """
    if steps < 3:
        raise InputError(f"steps={steps}: random onsets lie from step 1 to step T - 2; use three steps or more")
    return generator(seed, 1, Stream.STIMULI).integers(1, steps - 1, size=(n, modules))


def noisy_steps(
    images: torch.Tensor, steps: int, ratio: float, random: torch.Generator, onsets: torch.Tensor | None = None
) -> torch.Tensor:
    """Show images for some steps, each step with fresh noise made of the other images of the batch.

    ``x' = (1 - r) x + r z``, where z is the mean over five images of the batch in random order, every pixel of each
    kept with probability 1/5 (one mask for each of the five, shared by the batch). Before its onset a module sees z
    alone (r = 1).

    Parameters
    ----------
    images : torch.Tensor
        ``(batch, modules, pixels)``.
    steps : int
        Time steps T.
    ratio : float
        r, from 0 (no noise) to 1.
    random : torch.Generator
        Source of the noise.
    onsets : torch.Tensor of int, optional
        ``(batch, modules)`` first step that shows the image.

    Returns
    -------
    torch.Tensor
        ``(steps, batch, modules, pixels)``.

    Raises
    ------
    InputError
        If the ratio is not from 0 to 1.
    """
    if not 0 <= ratio <= 1:
        raise InputError(f"noise={ratio} is not a share; give 0 (none) to 1 (nothing but noise)")
    if ratio == 0 and onsets is None:
        return images.expand(steps, *images.shape)
    batch, modules, pixels = images.shape
    # Each module's frames lie together, so that a product with its weights needs no copy.
    parted = images.transpose(0, 1).contiguous()
    out = torch.empty(modules, steps, batch, pixels, dtype=images.dtype)
    other = torch.empty_like(parted)
    weight = (ratio if onsets is None else 1.0) / _SLOTS
    for step in range(steps):
        shown = out[:, step]
        for slot in range(_SLOTS):
            order = torch.randperm(batch, generator=random)
            kept = (torch.rand(modules, 1, pixels, generator=random) < 1 / _SLOTS).to(images.dtype).mul_(weight)
            torch.index_select(parted, 1, order, out=other)
            if slot:
                shown.addcmul_(other, kept)
            else:
                torch.mul(other, kept, out=shown)
        if onsets is None:
            shown.add_(parted, alpha=1 - ratio)
        else:
            share = torch.where(onsets <= step, ratio, 1.0).T[:, :, None].to(images.dtype)
            shown.mul_(share).addcmul_(parted, 1 - share)
    return out.permute(1, 2, 0, 3)
