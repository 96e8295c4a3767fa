"""A sweep over networks of modules: sizes, connections, environments and seeds, trained as one program and kept.

Source of the grid: Béna & Goodman (2025), Nature Communications 16:187.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from safetensors.torch import load_file, save_file

from actkit import plugins
from actkit.errors import DataError, InputError, MissingExtraError
from actkit.extractors.digit_pairs import Glyphs
from actkit.extractors.modular_rnn import ModularOptions
from actkit.extractors.modular_samples import World
from actkit.extractors.modular_training import LearningOptions, Trained, train_networks
from actkit.extractors.modular_wiring import connections, modularity_of_modules
from actkit.extractors.weights import file_sha256
from actkit.options import Options, with_options
from actkit.results import atomic_write, fingerprint

__all__ = ["GlyphOptions", "Sweep", "SweepOptions", "glyphs_of", "load_sweep", "save_sweep", "train_sweep"]

# Raised whenever a change of what is learnt from the same options and data makes earlier files differ.
RECIPE = 1


class GlyphOptions(Options):
    """Which images networks of modules see."""

    data: str | None = Field(
        None,
        description="Data set of single glyphs; none: mnist_5k, which the extra `mnist` brings, or else scikit-learn's "
        "8 × 8 digits.",
    )
    data_options: dict[str, Any] = Field({}, description="Options of the data set.")
    label: str = Field("digit", description="Label whose values are the classes.")
    shrink: int = Field(1, ge=1, description="Side of the squares of pixels that are averaged into one.")


class SweepOptions(GlyphOptions):
    """Options of :func:`train_sweep`."""

    modules: int = Field(2, ge=2, description="Number of modules.")
    units: list[int] = Field([10, 25, 50], min_length=1, description="Units of each module, one network size each.")
    p: list[float] = Field(
        [-1, 0.01, 0.1, 0.5, 1.0],
        min_length=1,
        description="Shares of the possible connections between modules; -k: exactly k, 0: none. Those that come to "
        "the same number of connections in a size are trained once.",
    )
    seeds: int = Field(10, ge=1, description="Networks of every kind.")
    first_seed: int = Field(0, ge=0, lt=2**31, description="Seed of the first of them.")
    cov_ratios: list[float] = Field(
        [1.0], min_length=1, description="Covariances of the digits for the networks of `cov_units` and `cov_p`."
    )
    cov_units: list[int] | None = Field(None, description="Sizes for which covariances vary; none: the first size.")
    cov_p: list[float] | None = Field(None, description="Connections for which covariances vary; none: the first.")
    untrained: bool = Field(True, description="Also the networks before training, as a control.")
    cell: Literal["tanh", "gru"] = Field("tanh", description="Recurrent cell.")
    readout: Literal["separate", "shared"] = Field("separate", description="Read-outs of the modules.")
    bottleneck: int | None = Field(None, ge=1, description="Linear units before each read-out; none: 0.")
    task: str = Field("parity_both", description="Task; see actkit.extractors.digit_tasks.TASKS.")
    decision: Literal["max", "sum", "each"] = Field("max", description="How the modules' answers become one.")
    balanced: bool = Field(False, description="Leave out pairs whose second class minus the first is 0 or 1.")
    steps: int = Field(5, ge=1, description="Time steps for which an image is shown.")
    noise: float = Field(0.4, ge=0, le=1, description="Share of noise made of other images, fresh at each step.")
    epochs: int = Field(30, ge=0, description="Passes over the training pairs.")
    batch: int = Field(256, ge=2, description="Pairs in a batch.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(1e-5, ge=0, description="Weight decay of AdamW.")
    stop_at: float | None = Field(None, gt=0, le=1, description="Test accuracy at which a network stops; none: never.")
    checkpoint_every: int = Field(5, ge=1, description="Epochs between checkpoints, where there is a place for them.")


@dataclass(frozen=True)
class Sweep:
    """Trained networks, and the images that they learnt from and were tested on.

    Attributes
    ----------
    networks : list of Trained
        All networks; those with 0 epochs are the untrained controls.
    train, test : Glyphs
        Images.
    key : str
        Fingerprint of everything that determined the networks.
    """

    networks: list[Trained]
    train: Glyphs
    test: Glyphs
    key: str

    def table(self) -> xr.Dataset:
        """One row a network: units, connections, p, Q, covariance, seed, epochs and accuracy."""
        count = [connections(one.options.p, one.options.size) for one in self.networks]
        columns = {
            "units": [one.options.size for one in self.networks],
            "connections": count,
            # One connection is drawn at 1/n², as any other number.
            "p": [k / one.options.size**2 for k, one in zip(count, self.networks, strict=True)],
            "asked_p": [one.options.p for one in self.networks],
            "Q": [
                modularity_of_modules(k / one.options.size**2, one.options.modules)
                for k, one in zip(count, self.networks, strict=True)
            ],
            "cov_ratio": [one.world.cov_ratio for one in self.networks],
            "seed": [one.options.seed for one in self.networks],
            "trained": [one.epochs > 0 for one in self.networks],
            "epochs": [one.epochs for one in self.networks],
            "task_accuracy": [one.accuracy for one in self.networks],
        }
        names = [name_of(one) for one in self.networks]
        return xr.Dataset(coords={"network": names, **{key: ("network", values) for key, values in columns.items()}})

    def of_one_size(self) -> Iterator[tuple[int, list[int]]]:
        """Sizes, and the numbers of their networks."""
        for units in dict.fromkeys(one.options.size for one in self.networks):
            yield units, [k for k, one in enumerate(self.networks) if one.options.size == units]


def name_of(one: Trained) -> str:
    """Name of a network in tables."""
    state = "" if one.epochs else ", untrained"
    return f"n {one.options.size}, p {one.options.p:g}, c {one.world.cov_ratio:g}, seed {one.options.seed}{state}"


def glyphs_of(options: GlyphOptions) -> tuple[Glyphs, Glyphs]:
    """Load the images, normalised by the mean and standard deviation of the training ones.

    Parameters
    ----------
    options : GlyphOptions
        Data set, label and shrinking.

    Returns
    -------
    train, test : Glyphs
        As the data set's label ``split`` says.

    Raises
    ------
    InputError
        If the data set has no such label or no split.
    """
    load = plugins.load("actkit.data_specs", "actkit").load
    if options.data is None:
        try:
            stimuli = load("mnist_5k").stimuli
        except MissingExtraError:
            stimuli = load("digits").stimuli
    else:
        stimuli = load(options.data, **options.data_options).stimuli
    if "split" not in stimuli.labels:
        raise InputError(
            f"{options.data} does not say which images are for training and which for the test; give it a label `split`"
        )
    part = np.asarray(stimuli.labels["split"]).astype(str)
    every = Glyphs.of(stimuli, options.label, shrink=options.shrink)
    if not {"train", "test"} <= set(part):
        raise DataError(f"split has the values {sorted(set(part))}; 'train' and 'test' are needed")
    train = every.images[part == "train"]
    centre, scale = float(train.mean()), float(train.std())
    every = Glyphs((every.images - centre) / scale, every.labels, every.classes, every.ids)
    return every.take(np.flatnonzero(part == "train")), every.take(np.flatnonzero(part == "test"))


def cells_of(options: SweepOptions) -> list[tuple[ModularOptions, World]]:
    """List the networks of a sweep, without those that come to the same number of connections.

    Parameters
    ----------
    options : SweepOptions
        The grid.

    Returns
    -------
    list of (ModularOptions, World)
        By size, connections, covariance and seed.
    """
    plain = options.cov_ratios[0]
    cov_units = options.units[:1] if options.cov_units is None else options.cov_units
    cov_p = options.p[:1] if options.cov_p is None else options.cov_p
    grid = [(units, p, plain) for units in options.units for p in options.p]
    grid += [(units, p, c) for units in cov_units for p in cov_p for c in options.cov_ratios]
    seen, cells = set(), []
    for units, p, c in grid:
        if (key := (units, connections(p, units), c)) in seen:
            continue
        seen.add(key)
        for k in range(options.seeds):
            network = ModularOptions(
                modules=options.modules,
                units=units,
                p=p,
                cell=options.cell,
                readout=options.readout,
                bottleneck=options.bottleneck,
                seed=options.first_seed + k,
            )
            world = World(
                task=options.task,
                decision=options.decision,
                cov_ratio=c,
                balanced=options.balanced,
                steps=options.steps,
                noise=options.noise,
            )
            cells.append((network, world))
    return cells


@with_options(SweepOptions)
def train_sweep(
    glyphs: tuple[Glyphs, Glyphs] | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    *,
    options: SweepOptions,
) -> Sweep:
    """Train every network of a grid together.

    Parameters
    ----------
    glyphs : tuple of Glyphs, optional
        Training and test images instead of those of `data`.
    progress : bool, optional
        Show a bar over the epochs; by default only on a terminal.
    checkpoint : path, optional
        A safetensors file in which work is kept every ``checkpoint_every`` epochs, and from which a training that was
        cut off goes on, to the same bits; removed at the end.

    Returns
    -------
    Sweep
        Networks, untrained ones last.

    Raises
    ------
    InputError
        If a share of connections is less than one connection, the checkpoint is of another training, or see
        :func:`train_networks`.
    """
    train, test = glyphs_of(options) if glyphs is None else glyphs
    cells = cells_of(options)
    names = ("epochs", "batch", "learning_rate", "weight_decay", "stop_at", "checkpoint_every")
    learning = LearningOptions(**{name: getattr(options, name) for name in names})
    networks = train_networks(cells, train, test, progress, checkpoint, options=learning)
    if options.untrained and options.epochs:
        networks += train_networks(cells, train, test, False, options=learning.model_copy(update={"epochs": 0}))
    return Sweep(networks, train, test, sweep_key(options, train, test))


def sweep_key(options: SweepOptions, train: Glyphs, test: Glyphs) -> str:
    """Fingerprint of everything that determines the networks of a sweep, apart from rounding."""
    settings = options.model_dump(exclude={"data", "data_options", "checkpoint_every"})
    images = [fingerprint(part.images) + fingerprint(part.labels) for part in (train, test)]
    return fingerprint([RECIPE, str(torch.__version__), settings, *images])


def save_sweep(sweep: Sweep, path: str | Path) -> None:
    """Keep the networks of a sweep in one safetensors file, written whole or not at all.

    Parameters
    ----------
    sweep : Sweep
        The networks.
    path : path
        Where; a note with options and accuracies lies beside it, with ``.json`` added.
    """
    path = Path(path)
    tensors = {f"{k}.{name}": value for k, one in enumerate(sweep.networks) for name, value in one.weights.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
        note = {
            "key": sweep.key,
            "sha256": file_sha256(partial),
            "networks": [
                {
                    "options": one.options.model_dump(),
                    "world": one.world.model_dump(),
                    "pixels": one.pixels,
                    "outputs": one.outputs,
                    "n_classes": one.n_classes,
                    "epochs": one.epochs,
                    "accuracy": one.accuracy,
                }
                for one in sweep.networks
            ],
        }
        os.replace(partial, path)
        atomic_write(path.with_name(path.name + ".json"), json.dumps(note, indent=1, sort_keys=True) + "\n")
    finally:
        partial.unlink(missing_ok=True)


def load_sweep(path: str | Path, train: Glyphs, test: Glyphs) -> Sweep:
    """Read what :func:`save_sweep` kept.

    Parameters
    ----------
    path : path
        The safetensors file.
    train, test : Glyphs
        The images that the networks saw.

    Returns
    -------
    Sweep
        The same networks.

    Raises
    ------
    DataError
        If the file or its note is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    try:
        note = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        if file_sha256(path) != note["sha256"]:
            raise DataError(f"{path} is not the file that its note describes; train the sweep again")
        tensors = load_file(path)
        networks = [
            Trained(
                ModularOptions(**entry["options"]),
                World(**entry["world"]),
                {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(k)},
                *(entry[name] for name in ("pixels", "outputs", "n_classes", "epochs", "accuracy")),
            )
            for k, entry in enumerate(note["networks"])
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no networks of a sweep ({error}); train it again") from error
    return Sweep(networks, train, test, note["key"])
