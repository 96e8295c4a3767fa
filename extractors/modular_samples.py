"""What networks of modules see in training and testing: a world, its pairs, and the stream of batches of one seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from actkit.extractors.digit_pairs import Glyphs, Pairs, noisy_steps, pair_up
from actkit.extractors.digit_tasks import Question, question
from actkit.options import Options
from actkit.resampling import Stream, generator

__all__ = ["Batches", "Samples", "World", "noise_source"]


class World(Options):
    """What networks of modules see, and what they are asked."""

    task: str = Field("parity_both", description="Task; see actkit.extractors.digit_tasks.TASKS.")
    decision: Literal["max", "sum", "each"] = Field("max", description="How the modules' answers become one.")
    cov_ratio: float = Field(
        1.0, ge=0, description="Weight of another class as partner: 1 independent digits, 0 always equal ones."
    )
    balanced: bool = Field(False, description="Leave out pairs whose second class minus the first is 0 or 1.")
    shuffle_classes: bool = Field(False, description="Renumber the classes of each module at random.")
    steps: int = Field(5, ge=1, description="Time steps for which an image is shown.")
    noise: float = Field(0.4, ge=0, le=1, description="Share of noise made of other images, fresh at each step.")


@dataclass
class Samples:
    """Pairs of images and what is asked about them.

    Attributes
    ----------
    images : torch.Tensor
        ``(n_images, pixels)``.
    pairs : Pairs
        Which image each module sees.
    asked : Question
        The targets.
    """

    images: torch.Tensor
    pairs: Pairs
    asked: Question

    @classmethod
    def draw(cls, glyphs: Glyphs, world: World, seed: int, modules: int, test: bool) -> Samples:
        """Pair the images up as a world does."""
        pairs = pair_up(
            glyphs.labels,
            len(glyphs.classes),
            cov_ratio=world.cov_ratio,
            balanced=world.balanced,
            modules=modules,
            seed=2 * seed + int(test),
        )
        renumber = seed if world.shuffle_classes else None
        asked = question(world.task, pairs.labels, len(glyphs.classes), world.decision, renumber)
        return cls(torch.from_numpy(glyphs.images), pairs, asked)

    def show(
        self, rows: np.ndarray, world: World, random: torch.Generator, onsets: np.ndarray | None = None
    ) -> torch.Tensor:
        """Frames ``(steps, samples, modules, pixels)`` of some pairs."""
        images = self.images[torch.from_numpy(self.pairs.rows[rows])]
        return noisy_steps(
            images, world.steps, world.noise, random, None if onsets is None else torch.from_numpy(onsets)
        )

    def targets(self, rows: np.ndarray) -> torch.Tensor:
        """Right answers ``(samples, modules, outputs)``."""
        return torch.from_numpy(self.asked.targets[rows])


@dataclass(frozen=True)
class Batches:
    """One stream of batches: what networks of one seed and world see.

    Attributes
    ----------
    seed : int
        Seed of the pairs, their order and the noise.
    world : World
        What is shown and asked.
    learnt, tested : Samples
        Training and test pairs.
    """

    seed: int
    world: World
    learnt: Samples
    tested: Samples

    def epoch(self, number: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Frames and targets of the batches of one epoch; what is left over is dropped."""
        n, random = len(self.learnt.pairs), noise_source(self.seed, number)
        order = generator(self.seed, number, Stream.STIMULI).permutation(n)
        for start in range(0, n - batch + 1, batch):
            rows = order[start : start + batch]
            yield self.learnt.show(rows, self.world, random), self.learnt.targets(rows)


def noise_source(seed: int, number: int) -> torch.Generator:
    """Noise of one epoch (or of one pass over test pairs, from number 2**32), of its own for each seed."""
    return torch.Generator().manual_seed(int(generator(seed, number, Stream.PERMUTATIONS).integers(2**62)))
