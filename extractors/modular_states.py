"""States of trained networks of modules, recorded over pairs of images: what read-outs and correlations start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.errors import InputError
from actkit.extractors.digit_pairs import Glyphs, draw_onsets
from actkit.extractors.modular_samples import Samples, noise_source
from actkit.extractors.modular_stack import Stack
from actkit.extractors.modular_training import Trained
from actkit.options import Options, with_options

__all__ = ["StatesOptions", "record_states"]

_FIRST_DRAW = 2**33  # draw numbers of recorded noise start here, beyond those of training and testing


class StatesOptions(Options):
    """Options of :func:`record_states`."""

    cov_ratio: float | None = Field(
        None, ge=0, description="Covariance of the recorded pairs; none: that of each network's own world."
    )
    random_onsets: bool = Field(
        False, description="Each image appears at a random step, noise alone before it; otherwise from the first step."
    )
    draw: int = Field(0, ge=0, lt=2**16, description="Number of the draw of pairs, noise and onsets.")
    batch: int = Field(1000, ge=1, description="Pairs that are run together.")


@with_options(StatesOptions)
def record_states(networks: Sequence[Trained], glyphs: Glyphs, *, options: StatesOptions) -> xr.Dataset:
    """Run networks of one size over pairs of images and keep every state.

    Networks of the same seed and world see the same pairs and noise. Every image is the first of one pair.

    Parameters
    ----------
    networks : sequence of Trained
        Networks with the same number of modules and units, the same cell and the same steps.
    glyphs : Glyphs
        The images.

    Returns
    -------
    xarray.Dataset
        ``state`` (network, stimulus, time, unit), float32, module after module; ``label`` (network, stimulus, module),
        class number of the image that each module sees; ``onset`` (network, stimulus, module), the step at which it
        appears; coord ``module_of_unit`` (unit). The noise is each network's own share.

    Raises
    ------
    InputError
        If there is no network, or they differ in what must be the same.
    """
    if not networks:
        raise InputError("there is no network to record; give at least one")
    first = networks[0]
    for one in networks:
        for name in ("modules", "units", "cell"):
            if getattr(one.options, name) != getattr(first.options, name):
                raise InputError(
                    f"networks of {getattr(first.options, name)} and of {getattr(one.options, name)} ({name}) cannot "
                    "be recorded side by side; record them apart"
                )
        if one.world.steps != first.world.steps:
            raise InputError(f"networks run {first.world.steps} and {one.world.steps} steps; record them apart")
    worlds = [
        one.world if options.cov_ratio is None else one.world.model_copy(update={"cov_ratio": options.cov_ratio})
        for one in networks
    ]
    keys = [(one.options.seed, world.model_dump_json()) for one, world in zip(networks, worlds, strict=True)]
    streams = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    samples, frames_of = {}, {}
    for key, number in streams.items():
        world = worlds[keys.index(key)]
        # A draw of its own: neither the pairs nor the noise of training and testing come back.
        pairs_seed = (key[0] << 18) + (options.draw << 1) + 1
        samples[number] = Samples.draw(glyphs, world, pairs_seed, first.options.modules, test=True)
        frames_of[number] = (world, noise_source(key[0], _FIRST_DRAW + options.draw))
    n = min(len(one.pairs) for one in samples.values())
    modules, size, steps = first.options.modules, first.options.size, first.world.steps
    onsets = {
        key: draw_onsets(n, modules, steps, (key[0] << 18) + options.draw)
        if options.random_onsets
        else np.zeros((n, modules), dtype=np.int64)
        for key in streams
    }
    state = np.empty((len(networks), n, steps, modules * size), dtype=np.float32)
    for key, number in streams.items():
        members = [k for k in range(len(networks)) if keys[k] == key]
        weights = [{name: networks[k].weights[name] for name in ("input", "recurrent")} for k in members]
        stack = Stack.of([networks[k].options for k in members], members, number, weights, first.outputs)
        world, random = frames_of[number]
        for start in range(0, n, options.batch):
            rows = np.arange(start, min(n, start + options.batch))
            begin = onsets[key][rows] if options.random_onsets else None
            found = stack.states(samples[number].show(rows, world, random, begin))
            state[members, start : start + len(rows)] = found.transpose(1, 2).numpy()
    labels = np.stack([samples[streams[key]].pairs.labels[:n] for key in keys])
    begins = np.stack([onsets[key] for key in keys])
    return xr.Dataset(
        {
            "state": (("network", "stimulus", "time", "unit"), state),
            "label": (("network", "stimulus", "module"), labels),
            "onset": (("network", "stimulus", "module"), begins),
        },
        coords={
            "time": np.arange(steps),
            "module": np.arange(modules),
            "module_of_unit": ("unit", np.repeat(np.arange(modules), size)),
        },
    )
