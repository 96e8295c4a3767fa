"""Training many networks of modules as one program: networks of one seed and world see the same batches.

Networks of one shape are stacked, so that a step of all of them is a few wide products instead of many small ones. The
optimiser works element by element and every network has the gradient of its own loss, so each learns as it would alone.

Source of the settings: Béna & Goodman (2025), Nature Communications 16:187, and the code that goes with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from actkit.compute import progress as progress_bar
from actkit.errors import ActkitError, InputError
from actkit.extractors.digit_pairs import Glyphs
from actkit.extractors.digit_tasks import decision_of
from actkit.extractors.modular_checkpoint import Course, Done, Progress, read_checkpoint, write_checkpoint
from actkit.extractors.modular_rnn import ModularOptions, ModularRNN, initial_weights
from actkit.extractors.modular_samples import Batches, Samples, World, noise_source
from actkit.extractors.modular_stack import Stack
from actkit.extractors.training import computing_threads
from actkit.options import Options, with_options
from actkit.results import fingerprint

__all__ = ["LearningOptions", "Trained", "World", "evaluate", "train_networks"]

_TEST_DRAW = 2**32  # draw numbers of test noise start here, those of training noise are numbers of epochs
_SILENT = {"checkpoint_every"}  # options that change no weight


class LearningOptions(Options):
    """How networks of modules are trained."""

    epochs: int = Field(30, ge=0, description="Passes over the training pairs; 0: untrained networks, a control.")
    batch: int = Field(256, ge=2, description="Pairs in a batch; what is left over is dropped.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(1e-5, ge=0, description="Weight decay of AdamW.")
    stop_at: float | None = Field(
        None, gt=0, le=1, description="A network stops when its test accuracy is at least this; none: after all epochs."
    )
    checkpoint_every: int = Field(5, ge=1, description="Epochs between checkpoints, where there is a place for them.")


@dataclass(frozen=True)
class Trained:
    """One trained network.

    Attributes
    ----------
    options : ModularOptions
        The network.
    world : World
        What it saw.
    weights : dict of str to torch.Tensor
        As in :func:`actkit.extractors.modular_rnn.initial_weights`.
    pixels, outputs, n_classes : int
        Inputs of a module, outputs of the task, classes of each.
    epochs : int
        Epochs that it was trained for.
    accuracy : float
        Share of right answers on test pairs, mean over outputs.
    """

    options: ModularOptions
    world: World
    weights: dict[str, torch.Tensor]
    pixels: int
    outputs: int
    n_classes: int
    epochs: int
    accuracy: float

    def module(self) -> ModularRNN:
        """Make a module of its own, in evaluation mode."""
        made = ModularRNN(
            self.options,
            self.pixels,
            self.outputs,
            self.n_classes,
            self.world.steps,
            decision_of(self.world.task, self.world.decision),
        )
        made.weights = torch.nn.ParameterDict({name: value.clone() for name, value in self.weights.items()})
        return made.eval()


@with_options(LearningOptions)
def train_networks(
    cells: Sequence[tuple[ModularOptions, World]],
    train: Glyphs,
    test: Glyphs,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    *,
    options: LearningOptions,
) -> list[Trained]:
    """Train networks together.

    Streams of batches (one for each seed and world) are computed side by side on as many threads as torch is set to,
    one thread each; their number changes no bit.

    Parameters
    ----------
    cells : sequence of (ModularOptions, World)
        Networks, and what each sees. Those of the same seed and world see the same pairs, order and noise.
    train, test : Glyphs
        Images to learn from and images to be tested on, disjoint.
    progress : bool, optional
        Show a bar over the epochs; by default only on a terminal.
    checkpoint : path, optional
        A safetensors file in which work is kept every ``checkpoint_every`` epochs, and from which a training that was
        cut off goes on, to the same bits; removed at the end.

    Returns
    -------
    list of Trained
        In the order of the cells, with their final weights.

    Raises
    ------
    InputError
        If there is no network, images of the two sets coincide, a batch is larger than the training set, modules that
        answer each for itself share their read-out, or the checkpoint is of another training.
    ActkitError
        If weights are no longer finite.

    Warns
    -----
    UserWarning
        If two outputs of a task have the same targets throughout, as at ``cov_ratio=0``.
    """
    streams, stacks = _prepare(cells, train, test)
    smallest = min(len(stream.learnt.pairs) for stream in streams)
    if options.epochs and smallest < options.batch:
        raise InputError(f"batch={options.batch} is more than the {smallest} training pairs; give a smaller batch")
    if options.epochs:
        _warn_of_coinciding(streams)
    place = None if checkpoint is None else Path(checkpoint)
    key = "" if place is None else _key(cells, train, test, options)
    if place is not None and place.exists():
        state = read_checkpoint(place, key, stacks, lambda stack: _begin(stack, options))
    else:
        state = Progress(0, [_begin(stack, options) for stack in stacks])
    with (
        _side_by_side() as each,
        progress_bar(total=options.epochs, desc="training", unit="epoch", enabled=progress) as bar,
    ):
        bar.update(state.epoch)
        while state.epoch < options.epochs and state.courses:
            number = state.epoch
            each(lambda own: _epoch(own, streams, number, options), _by_stream(state.courses))  # noqa: B023 - at once
            state.epoch += 1
            last = state.epoch == options.epochs
            if options.stop_at is not None and not last:
                state.courses = [
                    left for course in state.courses for left in _stopped(course, streams, state, cells, options)
                ]
            if place is not None and not last and state.epoch % options.checkpoint_every == 0:
                write_checkpoint(place, key, state)
            bar.update()
    for course in state.courses:
        _keep(course.stack, evaluate(course.stack, streams), cells, state)
    if place is not None:
        place.unlink(missing_ok=True)
    return [_trained(number, cell, streams, stacks, state) for number, cell in enumerate(cells)]


def evaluate(stack: Stack, streams: Sequence[Batches]) -> np.ndarray:
    """Test networks on the test pairs of their stream.

    Parameters
    ----------
    stack : Stack
        Networks.
    streams : sequence of Batches
        All streams.

    Returns
    -------
    numpy.ndarray of float
        ``(networks,)`` share of right answers at the last step, mean over outputs.
    """
    stream = streams[stack.stream]
    samples = stream.tested
    every = np.arange(len(samples.pairs))
    frames = samples.show(every, stream.world, noise_source(stream.seed, _TEST_DRAW))
    guess = stack.answers(stack.states(frames)[:, -1], samples.asked.decision).argmax(dim=-1)
    right = guess == samples.targets(every)[:, : guess.shape[2]]
    return right.to(torch.float64).mean(dim=(1, 2, 3)).numpy()


def _prepare(
    cells: Sequence[tuple[ModularOptions, World]], train: Glyphs, test: Glyphs
) -> tuple[list[Batches], list[Stack]]:
    """Sort networks into streams of batches and stacks of one shape, with their first weights."""
    if not cells:
        raise InputError("there is no network to train; give at least one")
    if twice := sorted(set(train.ids) & set(test.ids)):
        raise InputError(f"image {twice[0]!r} is both learnt and tested; give disjoint images")
    if train.classes != test.classes:
        raise InputError(
            f"training images have the classes {train.classes} and test images {test.classes}; give the same"
        )
    kinds = [(options.seed, options.modules, world) for options, world in cells]
    keys = list(dict.fromkeys((seed, modules, world.model_dump_json()) for seed, modules, world in kinds))
    streams, where = [], {}
    for number, (seed, modules, text) in enumerate(keys):
        world = World.model_validate_json(text)
        samples = [Samples.draw(glyphs, world, seed, modules, glyphs is test) for glyphs in (train, test)]
        streams.append(Batches(seed, world, *samples))
        where[seed, modules, text] = number
    at = [where[seed, modules, world.model_dump_json()] for seed, modules, world in kinds]
    # Networks of one shape, on one stream.
    shapes: dict[str, list[int]] = {}
    for number, (options, _) in enumerate(cells):
        asked = streams[at[number]].learnt.asked
        if asked.decision == "each" and options.readout == "shared":
            raise InputError(
                f"task {asked.name!r} is answered by each module for itself, and a shared read-out gives one answer; "
                "use readout='separate', or another task"
            )
        common = options.model_copy(update={"p": 0.0, "seed": 0}).model_dump_json()
        shapes.setdefault(f"{common} {at[number]}", []).append(number)
    pixels = train.images.shape[1]
    stacks = []
    for members in shapes.values():
        stream = at[members[0]]
        asked = streams[stream].learnt.asked
        outputs = asked.targets.shape[2]
        networks = [cells[number][0] for number in members]
        drawn = [initial_weights(options, pixels, outputs, asked.n_classes) for options in networks]
        stacks.append(Stack.of(networks, members, stream, drawn, outputs))
    return streams, stacks


def _warn_of_coinciding(streams: Sequence[Batches]) -> None:
    """Say where two outputs ask the same."""
    for stream in streams:
        targets = stream.learnt.asked.targets
        for b in range(targets.shape[2]):
            for a in range(b):
                if (targets[:, :, a] == targets[:, :, b]).all():
                    warnings.warn(
                        f"outputs {a} and {b} of task {stream.world.task!r} have the same targets throughout "
                        f"(cov_ratio={stream.world.cov_ratio:g}): what a module knows of one digit it knows of the "
                        "other, so read-outs of such pairs show no specialization by construction; raise cov_ratio, "
                        "unless this is what you want to show",
                        stacklevel=4,
                    )
                    return


def _key(cells: Sequence[tuple[ModularOptions, World]], train: Glyphs, test: Glyphs, options: LearningOptions) -> str:
    """Fingerprint of what determines the networks, apart from rounding."""
    described = [[network.model_dump(), world.model_dump()] for network, world in cells]
    images = [fingerprint(part.images) + fingerprint(part.labels) for part in (train, test)]
    return fingerprint([str(torch.__version__), described, options.model_dump(exclude=_SILENT), *images])


def _begin(stack: Stack, options: LearningOptions) -> Course:
    """AdamW over all networks: it works element by element, so stacking changes nothing."""
    stack.weights = {name: torch.nn.Parameter(value) for name, value in stack.weights.items()}
    optimiser = torch.optim.AdamW(
        list(stack.weights.values()), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    return Course(stack, optimiser)


_Each = Callable[[Callable[[list[Course]], None], list[list[Course]]], None]


@contextmanager
def _side_by_side() -> Iterator[_Each]:
    """Compute streams on several threads, each on one: they share nothing, and so need not wait for each other."""
    threads = torch.get_num_threads()
    with computing_threads(1), ThreadPoolExecutor(threads) as pool:

        def each(do: Callable[[list[Course]], None], parts: list[list[Course]]) -> None:
            if threads == 1:
                for part in parts:
                    do(part)
                return
            for work in [pool.submit(do, part) for part in parts]:
                work.result()

        yield each


def _by_stream(courses: Sequence[Course]) -> list[list[Course]]:
    """Courses that see the same batches together."""
    found: dict[int, list[Course]] = {}
    for course in courses:
        found.setdefault(course.stack.stream, []).append(course)
    return list(found.values())


def _epoch(courses: list[Course], streams: Sequence[Batches], number: int, options: LearningOptions) -> None:
    """One epoch of all networks of a stream."""
    stream = streams[courses[0].stack.stream]
    decision = stream.learnt.asked.decision
    for frames, targets in stream.epoch(number, options.batch):
        for course in courses:
            for name, value in course.stack.gradients(frames, targets, decision).items():
                course.stack.weights[name].grad = value
            course.optimiser.step()


def _stopped(
    course: Course,
    streams: Sequence[Batches],
    state: Progress,
    cells: Sequence[tuple[ModularOptions, World]],
    options: LearningOptions,
) -> list[Course]:
    """Keep networks that are good enough; give those that go on, with what the optimiser remembers of them."""
    reached = evaluate(course.stack, streams)
    assert options.stop_at is not None  # otherwise none stops
    rest = np.flatnonzero(~(reached >= options.stop_at))
    if len(rest) == len(reached):
        return [course]
    done = np.flatnonzero(reached >= options.stop_at)
    _keep(course.stack.take(done), reached[done], cells, state)
    if not len(rest):
        return []
    fewer = _begin(course.stack.take(rest), options)
    at = torch.from_numpy(rest)
    for name, value in course.stack.weights.items():
        fewer.optimiser.state[fewer.stack.weights[name]] = {
            key: kept[at] if kept.ndim else kept.clone() for key, kept in course.optimiser.state[value].items()
        }
    return [fewer]


def _keep(stack: Stack, accuracy: np.ndarray, cells: Sequence[tuple[ModularOptions, World]], state: Progress) -> None:
    """Note networks that are done."""
    for row, number in enumerate(stack.members):
        weights = {name: value.detach()[row].clone() for name, value in stack.weights.items()}
        if not all(torch.isfinite(value).all() for value in weights.values()):
            network = cells[number][0]
            raise ActkitError(
                f"network {number} ({network.size} units, p={network.p:g}, seed {network.seed}) has weights that are "
                "no longer finite; give a lower learning_rate"
            )
        state.done[number] = Done(weights, state.epoch, float(accuracy[row]))


def _trained(
    number: int,
    cell: tuple[ModularOptions, World],
    streams: Sequence[Batches],
    stacks: Sequence[Stack],
    state: Progress,
) -> Trained:
    one = state.done[number]
    stack = next(stack for stack in stacks if number in stack.members)
    asked = streams[stack.stream].learnt.asked
    pixels = one.weights["input"].shape[-1]
    return Trained(*cell, one.weights, pixels, stack.outputs, asked.n_classes, one.epochs, one.accuracy)
