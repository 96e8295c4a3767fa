"""One network of modules by name, trained here, to be recorded, lesioned and compared as any other network.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025); arXiv 2106.02626.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from actkit.extractors.digit_pairs import Glyphs, pair_up
from actkit.extractors.modular_rnn import ModularOptions, ModularRNN
from actkit.extractors.modular_samples import World
from actkit.extractors.modular_sweep import RECIPE, GlyphOptions, glyphs_of
from actkit.extractors.modular_training import LearningOptions, train_networks
from actkit.extractors.modular_wiring import connections, modularity_of_modules
from actkit.extractors.network_cache import cache_folder, read_cache, write_cache
from actkit.extractors.weights import NetworkOptions, load_into
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.results import fingerprint
from actkit.stimuli import Stimuli

__all__ = ["ModularNetworkOptions", "PairOptions", "open_network", "paired_stimuli"]


class ModularNetworkOptions(NetworkOptions, ModularOptions, World, LearningOptions, GlyphOptions):
    """Options of :func:`open_network`."""

    cache: str | None = Field(None, description="Folder that keeps trained networks; none: the user's cache.")
    retrain: bool = Field(False, description="Train even where the cache holds the network.")


class PairOptions(Options):
    """Options of :func:`paired_stimuli`."""

    modules: int = Field(2, ge=2, description="Images in a stimulus, one for each module.")
    cov_ratio: float = Field(
        1.0, ge=0, description="Weight of another class as partner: 1 independent digits, 0 always equal ones."
    )
    balanced: bool = Field(False, description="Leave out pairs whose second class minus the first is 0 or 1.")
    seed: int = Field(0, ge=0, lt=2**62, description="Seed of the pairs.")


@with_options(ModularNetworkOptions)
def open_network(
    glyphs: tuple[Glyphs, Glyphs] | None = None, progress: bool | None = None, *, options: ModularNetworkOptions
) -> Network:
    """Train a network of modules, or load it where it was trained before with the same options, data and torch.

    A training that was cut off goes on from the checkpoint that it left in the cache. Layers: ``states.m@t``, the state
    of module m after step t, and ``read.m``, its last state as the read-out alone sees it.

    Parameters
    ----------
    glyphs : tuple of Glyphs, optional
        Training and test images instead of those of `data`.
    progress : bool, optional
        Show a progress bar while training; by default on a terminal only.

    Returns
    -------
    Network
        In evaluation mode; takes arrays ``(modules, pixels)`` as :func:`paired_stimuli` makes them, shown without noise
        at every step. Its provenance states connections, modularity, accuracy and chance.

    Raises
    ------
    InputError
        If a share of connections is less than one connection, or the images or options do not go together.
    DataError
        If a named data set is not there.
    """
    train, test = glyphs_of(options) if glyphs is None else glyphs
    given = options.model_dump()
    network = ModularOptions(**{name: given[name] for name in ModularOptions.model_fields})
    world = World(**{name: given[name] for name in World.model_fields})
    learning = LearningOptions(**{name: given[name] for name in LearningOptions.model_fields})
    count = connections(network.p, network.size)
    key = fingerprint(
        [
            RECIPE,
            str(torch.__version__),
            network.model_dump(),
            world.model_dump(),
            learning.model_dump(exclude={"checkpoint_every"}),
            *(fingerprint(part.images) + fingerprint(part.labels) for part in (train, test)),
        ]
    )
    folder = cache_folder(options.cache) / key[:32]
    checkpoint = folder.with_name(f"{folder.name}.checkpoint.safetensors")
    if options.retrain:
        checkpoint.unlink(missing_ok=True)
    if not options.retrain and (kept := read_cache(folder, key)) is not None:
        state, provenance = kept
        pixels, outputs, classes = (int(provenance[name]) for name in ("pixels", "outputs", "n_classes"))
        module = ModularRNN(network, pixels, outputs, classes, world.steps, provenance["decision"])
        load_into(module, state)
        return _network(module, options, provenance)
    (trained,) = train_networks([(network, world)], train, test, progress, checkpoint, options=learning)
    module = trained.module()
    q = modularity_of_modules(count / network.size**2, network.modules)
    provenance = {
        "extractor": "modular_rnn",
        "architecture": f"{network.modules} modules of {network.size} {network.cell} units, {count} connections from "
        f"each to each other, {network.readout} read-outs",
        "weights": f"{'trained here' if trained.epochs else 'untrained'}, seed {network.seed}",
        "licence": "Apache-2.0",
        "connections": count,
        "Q": q,
        "test_accuracy": trained.accuracy,
        "chance": 1 / trained.n_classes,
        "epochs": trained.epochs,
        "classes": list(train.classes),
        "pixels": trained.pixels,
        "outputs": trained.outputs,
        "n_classes": trained.n_classes,
        "decision": module.decision,
        "n_train": len(train.labels),
        "n_test": len(test.labels),
        "world": world.model_dump(),
        "training": {**learning.model_dump(), "optimiser": "AdamW", "torch": str(torch.__version__)},
        "preprocessing": "none: arrays of normalised pixels, one image for each module",
    }
    write_cache(folder, key, module, provenance)
    return _network(module, options, provenance)


def _network(module: ModularRNN, options: ModularNetworkOptions, provenance: dict[str, Any]) -> Network:
    return Network(
        module.eval(),
        name=options.name or "modular_rnn",
        input_shape=(options.modules, module.weights["input"].shape[-1]),
        provenance=provenance,
    )


@with_options(PairOptions)
def paired_stimuli(glyphs: Glyphs, *, options: PairOptions) -> Stimuli:
    """Make stimuli of one image for each module.

    Parameters
    ----------
    glyphs : Glyphs
        The images; each is the first of one stimulus.

    Returns
    -------
    Stimuli
        Arrays ``(modules, pixels)``, float32, with labels ``digit_0``, ``digit_1``, … that hold the class of each
        module's image. Ids are those of the images, joined by ``+``.

    Raises
    ------
    InputError
        If no pair remains.
    """
    pairs = pair_up(
        glyphs.labels,
        len(glyphs.classes),
        cov_ratio=options.cov_ratio,
        balanced=options.balanced,
        modules=options.modules,
        seed=options.seed,
    )
    names = np.array(glyphs.classes)
    return Stimuli.from_array(
        glyphs.images[pairs.rows],
        ["+".join(glyphs.ids[row] for row in rows) for rows in pairs.rows],
        {f"digit_{m}": names[pairs.labels[:, m]] for m in range(options.modules)},
        name="pairs",
        order="as the first images, with partners drawn at random",
    )
