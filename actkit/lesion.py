"""The lesion bridge: a network without some of its units, for the length of a context.

A lesion acts on a layer's output, through forward hooks; weights are never written. To silence a filter after its
non-linearity, name the layer of the non-linearity: a zeroed convolution in front of batch norm becomes a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit.errors import InputError, LayerError, nearest
from actkit.layers import LayerInfo
from actkit.lesion_hooks import Lesion, lesion_site
from actkit.lesion_values import Reference, Values, lesion_values, reference_fingerprint
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.replay_lesion import unwrapped
from actkit.results import describe
from actkit.tasks import Task, task_losses
from actkit.units import UnitSet

__all__ = ["LesionEffectOptions", "LesionMode", "lesion_effect", "lesioned"]

Model = TypeVar("Model", bound=torch.nn.Module | Network)
LesionMode = Literal["zero", "mean", "permute", "scale"]

_MODES = ("zero", "mean", "permute", "scale")


class LesionEffectOptions(Options):
    """Options of :func:`lesion_effect`."""

    mode: LesionMode = Field("zero", description="What takes the place of the units' values.")
    factor: float = Field(0.0, description="For mode 'scale'.")
    seed: int = Field(0, ge=0, description="Seed of mode 'permute'.")
    batch: int = Field(64, ge=1, description="Images in one forward pass.")


@contextmanager
def lesioned(
    model: Model,
    units: UnitSet | Sequence[UnitSet],
    mode: LesionMode = "zero",
    *,
    reference: Reference | None = None,
    factor: float = 0.0,
    seed: int = 0,
    name: str | None = None,
) -> Iterator[Model]:
    """Lesion units of a network while a context lasts.

    The lesion is written into a copy of the layer's output, so operations in place, views and residual connections
    that hold the original are not touched. Contexts nest: the inner lesion is applied after the outer one. Leaving,
    by an exception or not, removes the hooks; training flags and weights are never changed. (A module that is run
    for its side effect, its return value ignored, cannot be lesioned this way.)

    Parameters
    ----------
    model : torch.nn.Module or Network
        The network; data-parallel wrappers are seen through.
    units : UnitSet or sequence of UnitSet
        What to lesion; of several sets, their union. Layers are named as `Network.layers` names them: ``name@k`` is
        one call of a module that runs several times.
    mode : {"zero", "mean", "permute", "scale"}
        What takes the place of a unit's value. ``zero``: 0. ``mean``: its mean over the reference; of a channel, over
        stimuli and positions, one value. ``permute``: its value for another stimulus of the reference, the same donor
        for all units in all layers; a stimulus has its donor by ``seed`` and its own pixels, so in any batch and order
        it is the same. A donor that equals the stimulus in the units of the first layer is passed over. ``scale``: its
        own value times ``factor``.
    reference : ActivationStore or mapping of str to array, optional
        Recording that ``mean`` and ``permute`` take values from, by layer name: ``(stimulus, …)`` in the form that
        `actkit.extract` records. Never the batch: a lesion must not depend on which images run together.
    factor : float
        For ``scale``.
    seed : int
        For ``permute``.
    name : str, optional
        Name of the lesioned Network; by default the network's with " (lesioned)".

    Yields
    ------
    torch.nn.Module or Network
        The same module; for a Network, one of the same module whose provenance holds the lesion under ``lesions``.
        The fingerprints of both Networks differ from the intact one's while the lesion lasts, so a recording never
        answers from the intact network's store. Afterwards they are the intact network's again.

    Raises
    ------
    LayerError
        If a layer does not exist, never ran in a context in which the network did, runs several times and no call is
        named, gives no real tensor, or has another number of channels than the set knows of.
    InputError
        If a unit is out of range, the mode is unknown, or the reference is missing, not finite or of another shape.

    References
    ----------
    Dobs K., Martinez J., Kell A. J. E., Kanwisher N. Brain-like functional specialization emerges spontaneously in deep
    neural networks. Sci Adv 8:eabl8913, 2022.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
    >>> with lesioned(net, UnitSet.of("0", [1])) as without:
    ...     without(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 0., 3.]])
    """
    chosen = _union(units)
    if mode not in _MODES:
        raise InputError(f"no lesion mode {mode!r}; {nearest(str(mode), _MODES)}")
    network = model if isinstance(model, Network) else None
    module = network.module if network is not None else model
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"a {type(model).__name__} cannot be lesioned; give a torch.nn.Module or an actkit.Network")
    if hasattr(module, "_orig_mod"):
        raise LayerError("compiled code does not call hooks, so nothing would be lesioned; give the model._orig_mod")
    values = lesion_values(chosen, mode, reference, factor)
    record = describe_lesion(chosen, values, seed)
    lesion = Lesion(module, chosen, values, record, seed, _infos(network, chosen))
    without: Any = model
    if network is not None:
        without = copy.copy(network)
        without.name = name or f"{network.name} (lesioned)"
        without.provenance = {**network.provenance, "lesions": [*network.provenance.get("lesions", []), record]}
    try:
        lesion.attach()
        yield without
        lesion.check_ran()
    finally:
        lesion.remove()
        if network is not None:  # the module is intact again, and must not be recorded as lesioned
            without.name, without.provenance = network.name, dict(network.provenance)


def describe_lesion(units: UnitSet, values: Values, seed: int) -> dict[str, Any]:
    """Write down a lesion, as the provenance of a lesioned network has it.

    Parameters
    ----------
    units : UnitSet
        What is lesioned.
    values : Values
        With what.
    seed : int
        Seed of ``permute``.

    Returns
    -------
    dict
        JSON-able: mode, number of units by layer, question, sha256 of the units, and what else the mode depends on.
    """
    record: dict[str, Any] = {
        "mode": values.mode,
        "units": {name: len(units.in_layer(name)) for name in units.layers},
        "question": units.question,
        "units_sha256": units.fingerprint,
    }
    if values.mode == "scale":
        record["factor"] = values.factor
    if values.reference:
        record["reference"] = values.reference
    if values.mode == "permute":
        record["seed"] = seed
    return record


def _union(units: UnitSet | Sequence[UnitSet]) -> UnitSet:
    """One set of what was given."""
    sets = [units] if isinstance(units, UnitSet) else list(units)
    for given in sets:
        if not isinstance(given, UnitSet):
            raise InputError(f"units hold a {type(given).__name__}; give a UnitSet: UnitSet.of('layer', [0, 3])")
    if not sets:
        raise InputError("no units were given; an empty UnitSet lesions nothing")
    joined = sets[0]
    for given in sets[1:]:
        joined = joined | given
    return joined


def _infos(network: Network | None, units: UnitSet) -> dict[str, LayerInfo]:
    """What a dry run says about the lesioned layers; nothing for bare modules and where no probe can be made."""
    if network is None or not len(units):
        return {}
    try:
        listed = {layer.name: layer for layer in network.layers()}
    except InputError:
        return {}
    found = {}
    for name in units.layers:
        site = lesion_site(network.module, unwrapped(network.module), name)
        paths = {site.path, f"module.{site.path}"}
        infos = [info for info in listed.values() if info.module in paths]
        if not infos:
            raise LayerError(f"layer {name!r} exists in {network.name!r} but never runs; {nearest(name, listed)}")
        info = next((info for info in infos if info.call == site.call), None)
        if info is None:
            calls = f"'{infos[0].module}@0' to '{infos[0].module}@{len(infos) - 1}'" if len(infos) > 1 else "its path"
            raise LayerError(f"layer {name!r} of {network.name!r} runs {len(infos)} time(s); name it by {calls}")
        if info.problem or info.fold > 1:
            why = info.problem or f"its output holds {info.fold} rows per stimulus"
            raise LayerError(f"layer {name!r} of {network.name!r} cannot be lesioned: {why}")
        units.in_layer(name).check({name: info.shape})
        found[name] = info
    return found


@with_options(LesionEffectOptions)
def lesion_effect(
    network: torch.nn.Module | Network,
    units: UnitSet | Sequence[UnitSet],
    tasks: Task | Sequence[Task],
    reference: Reference | None = None,
    options: LesionEffectOptions = None,  # type: ignore[assignment]
) -> xr.Dataset:
    """Measure what tasks lose without some units.

    Parameters
    ----------
    network : torch.nn.Module or Network
        The network; runs in evaluation mode and is left as it was.
    units : UnitSet or sequence of UnitSet
        What to lesion; see `lesioned`.
    tasks : Task or sequence of Task
        The tasks.
    reference : ActivationStore or mapping of str to array, optional
        For the modes ``mean`` and ``permute``.

    Returns
    -------
    xarray.Dataset
        Dims ``task`` and ``columns`` ("all": every output competes; "own": the task's own classes do).
        ``intact_loss`` and ``lesioned_loss`` (nats an image), ``loss_increase``, ``intact_accuracy``,
        ``lesioned_accuracy``, ``accuracy_drop``, each with its standard error over images as ``…_se`` (of increase and
        drop from the differences image by image, since both networks see the same images); ``proportional_drop`` =
        (intact - lesioned) / (intact - chance), NaN where the intact accuracy is not above chance; ``chance`` (among
        the task's own columns) and ``n_images`` by task.

    Raises
    ------
    InputError
        If two tasks have one name, there are none, or a loss is NaN; see also `lesioned`.
    LayerError
        See `lesioned`.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
    >>> task = Task("sign", 9 * torch.eye(2), np.array([0, 1]))
    >>> lost = lesion_effect(net, UnitSet.of("0", [1]), task)
    >>> lost.accuracy_drop.sel(task="sign", columns="all").item()
    0.5
    """
    listed = [tasks] if isinstance(tasks, Task) else list(tasks)
    names = [task.name for task in listed]
    if not listed or len(set(names)) < len(names):
        raise InputError(f"tasks named {names} were given; give one or more, each with a name of its own")
    opened = network if isinstance(network, Network) else Network(network)
    chosen = _union(units)
    intact = [task_losses(opened.module, task, options.batch) for task in listed]
    fingerprints = {"network": opened.fingerprint, "units": chosen.fingerprint}
    with lesioned(network, chosen, options.mode, reference=reference, factor=options.factor, seed=options.seed):
        without = [task_losses(opened.module, task, options.batch) for task in listed]
    data: dict[str, np.ndarray] = {}
    for kind, key, change in (("loss", "loss", "loss_increase"), ("accuracy", "correct", "accuracy_drop")):
        sign = 1 if kind == "loss" else -1
        before = [[values[key], values[f"{key}_own"]] for values in intact]
        after = [[values[key], values[f"{key}_own"]] for values in without]
        lost = [[sign * (b - a) for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
        for name, images in ((f"intact_{kind}", before), (f"lesioned_{kind}", after), (change, lost)):
            data[name] = np.array([[image.mean() for image in row] for row in images])
            data[f"{name}_se"] = np.array(
                [[image.std(ddof=1) / np.sqrt(len(image)) for image in row] for row in images]
            )
    chance = np.array([task.chance for task in listed])
    room = data["intact_accuracy"] - chance[:, None]
    data["proportional_drop"] = np.where(room > 0, data["accuracy_drop"] / np.where(room > 0, room, 1), np.nan)
    result = xr.Dataset(
        {name: (("task", "columns"), values) for name, values in data.items()}
        | {"chance": ("task", chance), "n_images": ("task", np.array([len(task) for task in listed]))},
        coords={"task": names, "columns": ["all", "own"]},
    )
    if options.mode in ("mean", "permute"):
        fingerprints["reference"] = reference_fingerprint(reference, chosen.layers)
    fingerprints |= {f"task {task.name}": task.fingerprint for task in listed}
    counts = {name: len(chosen.in_layer(name)) for name in chosen.layers}
    return describe(
        result,
        "lesion_effect",
        options,
        fingerprints,
        network=opened.name,
        lesioned_units=counts,
        question=chosen.question,
    )
