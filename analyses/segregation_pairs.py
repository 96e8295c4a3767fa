"""The two tasks of a segregation study, their images together, and what a layer answers to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actkit.analyses.segregation_nulls import columns, pooled
from actkit.compute import spans
from actkit.errors import InputError
from actkit.layers import capture, module_paths
from actkit.replay_lesion import channel_axis, find_site
from actkit.tasks import Task

_FEATURE_BATCH = 32


@dataclass(frozen=True, eq=False)
class Pair:
    """Two tasks, their images one after the other.

    Attributes
    ----------
    task : Task
        All images.
    of : numpy.ndarray of int
        ``(image,)``: 0 or 1, the task of each image.
    classes : tuple of two numpy.ndarray
        Output columns of each task.
    names : tuple of two str
        Names of the tasks.
    """

    task: Task
    of: np.ndarray
    classes: tuple[np.ndarray, np.ndarray]
    names: tuple[str, str]

    @classmethod
    def make(cls, tasks: Sequence[Task], what: str) -> Pair:
        """Pool two tasks.

        Parameters
        ----------
        tasks : sequence of two Task
            Tasks without a common class.
        what : str
            What they are for, for messages.

        Returns
        -------
        Pair
            Both.

        Raises
        ------
        InputError
            If there are not two, or they share a class.
        """
        if len(tasks) != 2 or not all(isinstance(task, Task) for task in tasks):
            raise InputError(f"{what}: segregation compares two tasks (actkit.tasks.Task); give exactly two")
        a, b = tasks
        if a.name == b.name:
            raise InputError(f"{what}: both tasks are called {a.name!r}, so results would mix; rename one")
        common = np.intersect1d(columns(a), columns(b))
        if common.size:
            raise InputError(
                f"{what}: output column {common[0]} belongs to {a.name!r} and to {b.name!r}, so their classes "
                "cannot be masked or shuffled; state the classes of each task"
            )
        of = np.repeat([0, 1], [len(a), len(b)])
        return cls(pooled(a, b), of, (columns(a), columns(b)), (a.name, b.name))

    def rows(self, number: int) -> np.ndarray:
        """Images of one task."""
        return np.flatnonzero(self.of == number)


def channels_of(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> int:
    """Count the channels of a layer's output.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    inputs : torch.Tensor
        Images; one is run.

    Returns
    -------
    int
        Channels that a sweep can silence.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    return maps_of(module, layer, inputs[:1]).shape[1]


def unit_features(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> tuple[np.ndarray, list[str]]:
    """Describe every channel by its activity on images.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    inputs : torch.Tensor
        Images ready for the module.

    Returns
    -------
    features : numpy.ndarray of float64
        ``(unit, feature)``: mean and variance over images and positions; in layers with maps also the centre of mass
        (y, x, in positions) of the mean absolute map.
    names : list of str
        Names of the features.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    count = 0
    total = square = map_sum = np.zeros(1)
    shape: tuple[int, ...] = ()
    for start, stop in spans(len(inputs), _FEATURE_BATCH):
        maps = maps_of(module, layer, inputs[start:stop]).to(torch.float64)
        shape = tuple(maps.shape[2:])
        flat = maps.reshape(*maps.shape[:2], -1)
        count += flat.shape[0] * flat.shape[2]
        total = total + flat.sum((0, 2)).numpy()
        square = square + (flat**2).sum((0, 2)).numpy()
        map_sum = map_sum + flat.abs().sum(0).numpy()
    mean = total / count
    found = [mean, np.maximum(square / count - mean**2, 0)]
    names = ["mean", "variance"]
    if len(shape) == 2:
        weight = map_sum.reshape(-1, *shape)
        mass = weight.sum(axis=(1, 2))
        for name, axis in (("y", 1), ("x", 2)):
            places = np.arange(weight.shape[axis], dtype=np.float64)
            along = weight.sum(axis=3 - axis) @ places
            # A silent unit has no place; the middle resembles no corner.
            found.append(np.divide(along, mass, out=np.full(len(mass), places.mean()), where=mass > 0))
            names.append(name)
    return np.stack(found, axis=1), names


def maps_of(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> torch.Tensor:
    """Run images up to a layer.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    inputs : torch.Tensor
        Images ready for the module.

    Returns
    -------
    torch.Tensor
        The layer's output on the CPU, channels moved to axis 1: ``(image, channel, …)``.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    kept: list[torch.Tensor] = []
    with capture(module, [layer], lambda _, tensor: kept.append(tensor.detach().clone())) as forward:
        forward(inputs.to(like.device, like.dtype))
    return kept[0].movedim(channel_axis(module_paths(module)[find_site(module, layer).path], kept[0]), 1).cpu()
