"""The place of a lesion in a network and the plain way to write it: a forward hook on a clone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import torch

from actkit.errors import InputError, LayerError, nearest
from actkit.layers import _aliases, first_tensor, module_paths, split_name

_CHANNELS_FIRST = ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d", "AdaptiveAvgPool1d", "AdaptiveMaxPool1d")


@dataclass(frozen=True)
class Site:
    """One call of one module, whose output is lesioned.

    Attributes
    ----------
    name : str
        The layer as the caller named it.
    path : str
        Path of the module in the network that is run.
    call : int or None
        Which call of the module; None where the name states none and the module must run once.
    """

    name: str
    path: str
    call: int | None


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The network inside a data-parallel or compiled wrapper, or the network itself."""
    module = getattr(module, "_orig_mod", module)
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return module.module if isinstance(module, wrappers) else module


def find_site(module: torch.nn.Module, layer: str) -> Site:
    """Find a layer by name.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Module path, with ``@call`` for one call of a module that runs several times.

    Returns
    -------
    Site
        The module's first path and the call.

    Raises
    ------
    LayerError
        If there is no such module.
    """
    paths = module_paths(module)
    aliases = _aliases(module)
    path, call = split_name(layer, [*paths, *aliases])
    path = aliases.get(path, path)
    if path not in paths:
        raise LayerError(f"no layer {layer!r} in {type(module).__name__}; {nearest(path, paths)}")
    return Site(layer, path, call)


def channel_axis(module: torch.nn.Module, output: torch.Tensor) -> int:
    """The axis of a layer's output that holds its channels.

    Parameters
    ----------
    module : torch.nn.Module
        The layer's module.
    output : torch.Tensor
        Its output, stimuli on axis 0.

    Returns
    -------
    int
        1 for maps (stimuli, channels, …) and vectors (stimuli, channels); the last for token sequences
        (stimuli, tokens, channels) and for maps that keep channels last, (stimuli, height, width, channels) with
        height = width.
    """
    shape = output.shape
    if output.ndim == 3:
        return 1 if type(module).__name__ in _CHANNELS_FIRST else 2
    if output.ndim == 4 and shape[1] == shape[2] != shape[3]:
        return 3
    return 1


@dataclass(frozen=True)
class Lesion:
    """How channels are silenced.

    Attributes
    ----------
    axis : int
        Channel axis of the layer's output.
    channels : int
        Number of channels.
    fill : torch.Tensor or None
        What stands in for silenced values: None for zero, else (channels,) or the shape of one stimulus' output.
    """

    axis: int
    channels: int
    fill: torch.Tensor | None = None

    def values(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The values of silenced channels, to be broadcast over ``like``, a slice of the output at these channels.

        Parameters
        ----------
        channels : torch.Tensor
            Channel indices (k,), on the device of ``like``.
        like : torch.Tensor
            Gives rank, type and device.

        Returns
        -------
        torch.Tensor
            Broadcasts with the k channels of the output; a scalar for zero.
        """
        if self.fill is None:
            return like.new_zeros(())
        fill = self.fill.to(like.device, like.dtype)
        if fill.ndim == 1:
            shape = [1] * like.ndim
            shape[self.axis] = len(channels)
            return fill[channels].reshape(shape)
        return fill.unsqueeze(0).index_select(self.axis, channels)

    def write(self, tensor: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        """A copy of a layer's output with channels silenced.

        Parameters
        ----------
        tensor : torch.Tensor
            The output, stimuli on axis 0.
        channels : torch.Tensor
            Channel indices (k,).

        Returns
        -------
        torch.Tensor
            The copy; the original is untouched, so that what else holds it is.
        """
        made = tensor.clone()
        index = [slice(None)] * tensor.ndim
        index[self.axis] = channels.to(tensor.device)  # type: ignore[call-overload]
        made[tuple(index)] = self.values(channels.to(tensor.device), tensor)
        return made


def replace_tensor(output: Any, new: torch.Tensor) -> Any:
    """Put another tensor in the place of a module's output (of its first tensor, as `first_tensor` finds it).

    Parameters
    ----------
    output : object
        A tensor, or a tuple, list, mapping or dataclass that holds one.
    new : torch.Tensor
        What to put there.

    Returns
    -------
    object
        The same structure; containers are copied.

    Raises
    ------
    LayerError
        If the container's kind is not known.
    """
    if isinstance(output, torch.Tensor):
        return new
    if isinstance(output, Mapping):
        for key, value in output.items():
            if first_tensor(value)[0] is not None:
                copied = type(output)(output)  # type: ignore[call-arg]
                copied[key] = replace_tensor(value, new)  # type: ignore[index]
                return copied
    if isinstance(output, tuple | list):
        items = list(output)
        for i, value in enumerate(items):
            if first_tensor(value)[0] is not None:
                items[i] = replace_tensor(value, new)
                return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            value = getattr(output, field.name)
            if first_tensor(value)[0] is not None:
                twin: Any = copy.copy(cast(Any, output))  # not replace(), which takes no field that __init__ does not
                object.__setattr__(twin, field.name, replace_tensor(value, new))  # frozen ones too
                return twin
    raise LayerError(
        f"a {type(output).__name__} cannot be lesioned: no tensor in it can be replaced; name a layer that returns one"
    )


@contextmanager
def intercepted(
    module: torch.nn.Module, site: Site, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Run a network with the output of one layer replaced.

    Parameters
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    site : Site
        The layer.
    change : callable
        Gives the tensor that takes the place of the layer's output.

    Yields
    ------
    callable
        ``forward(batch)``: the network's output, its first tensor. The batch is copied, so that an in-place first
        layer does not overwrite it.

    Raises
    ------
    LayerError
        From ``forward``: if the layer did not run, ran several times without a call in its name, or gave no tensor.
    """
    calls = 0

    def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        call, calls = calls, calls + 1
        if site.call is None and call:
            raise LayerError(f"layer {site.name!r} runs more than once; name its calls: '{site.path}@0', …")
        if site.call is not None and call != site.call:
            return None
        tensor, note = first_tensor(output)
        if tensor is None:
            raise LayerError(f"layer {site.name!r} cannot be lesioned: {note}")
        return replace_tensor(output, change(tensor))

    def forward(batch: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls = 0
        with torch.no_grad():
            output, note = first_tensor(module(batch.clone()))
        if calls <= (site.call or 0):
            raise LayerError(
                f"layer {site.name!r} did not run in this forward pass (its module ran {calls} times), so there is "
                "nothing to lesion; name a layer that runs for every input"
            )
        if output is None:
            raise InputError(f"{type(module).__name__} gives no scores to lesion for: {note}")
        return output

    handle = module_paths(module)[site.path].register_forward_hook(hook)
    try:
        yield forward
    finally:
        handle.remove()
