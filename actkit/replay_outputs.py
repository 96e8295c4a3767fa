"""A network opened at a layer and ended at a read-out: its outputs without each of many sets of units.

`actkit.replay.sweep` silences whole channels and keeps one number an image. Here the layer can be opened as a vector of
all its single units (channel by position), the network may end at an inner layer, and the outputs themselves are handed
on, so that geometry can be measured. The graph is torch.fx's where it can be had, with the part before the layer run
once a batch; networks that fx cannot trace run in full, through hooks, and give the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import fx

from actkit.compute import parse_bytes, spans
from actkit.errors import InputError, LayerError
from actkit.layers import evaluating, first_tensor, module_paths
from actkit.replay import HookEngine, Method, _check_channels, _check_options, _choose, _probe, _to
from actkit.replay_graph import CutError, _mark, _Tracer
from actkit.replay_lesion import Site, channel_axis, find_site, intercepted, unwrapped

__all__ = ["Opened", "open_at", "outputs_without"]

_UNITS = "actkit_units"  # the module that a lesion acts on, in an opened network


@dataclass(frozen=True, eq=False)
class Opened:
    """A network whose layer passes through a module of its own, which a lesion can act on.

    Attributes
    ----------
    module : torch.nn.Module
        Gives what the network gives, or the output of the read-out, flattened to (images, features).
    layer : str
        Name of the module that the layer's output passes through.
    axis : int
        Axis of that output that a lesion's indices are of: 1 for single units; for channels the layer's channel axis.
    shape : tuple of int
        The layer's output for one image.
    reason : str
        Why the network runs in full through hooks; empty where it was traced.
    """

    module: torch.nn.Module
    layer: str
    axis: int
    shape: tuple[int, ...]
    reason: str = ""


class _Hooked(torch.nn.Module):
    """The plain way: the network as it is, opened by hooks for the length of each pass."""

    def __init__(self, network: torch.nn.Module, site: Site, readout: Site | None, flat: bool) -> None:
        super().__init__()
        self.network, self._site, self._readout, self._flat = network, site, readout, flat
        self.add_module(_UNITS, torch.nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network; its output, or the read-out's."""
        units, seen = getattr(self, _UNITS), []

        def through(output: torch.Tensor) -> torch.Tensor:
            return units(output.flatten(1)).reshape(output.shape) if self._flat else units(output)

        def look(output: torch.Tensor) -> torch.Tensor:
            seen.append(output)
            return output

        with intercepted(self.network, self._site, through) as forward:
            if self._readout is None:
                return forward(images)
            with intercepted(self.network, self._readout, look) as ended:
                ended(images)
        return seen[-1].flatten(1)


def _end(output: Any) -> Any:
    """Stand for the read-out in the graph."""
    return output


class _Opener(_Tracer):
    """Marks the read-out beside the layer."""

    def __init__(
        self, site: Site, target: torch.nn.Module, readout: Site | None, ended: torch.nn.Module | None
    ) -> None:
        super().__init__(site, target)
        self._readout, self._ended, self._passes = readout, ended, 0

    def call_module(self, m: torch.nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace one call of a module."""
        output = super().call_module(m, forward, args, kwargs)
        if m is not self._ended or self._readout is None:
            return output
        number, self._passes = self._passes, self._passes + 1
        if self._readout.call is not None and number != self._readout.call:
            return output
        return self.create_proxy("call_function", _end, (output,), {})


def open_at(
    network: Any, layer: str, image: torch.Tensor, *, readout: str | None = None, single: bool = True
) -> Opened:
    """Open a network at a layer.

    Parameters
    ----------
    network : Network or torch.nn.Module
        The network, which is not changed; the opened one shares its weights.
    layer : str
        Name of the layer (``path`` or ``path@call``), whose output a lesion will act on.
    image : torch.Tensor
        One image ready for the network, shape (1, …): run to see shapes, and to compare both ways.
    readout : str, optional
        Layer at which the network ends; by default its output.
    single : bool
        Whether lesions name single units (indices into the flattened output) or channels.

    Returns
    -------
    Opened
        To be handed to :func:`outputs_without` or, by ``module``, ``layer`` and ``axis``, to
        :func:`actkit.replay.sweep`.

    Raises
    ------
    LayerError
        If a layer does not exist, does not run, runs several times without a call in its name, gives no tensor, or the
        read-out does not depend on the layer.
    """
    module = unwrapped(network if isinstance(network, torch.nn.Module) else network.module)
    site, ended = find_site(module, layer), None if readout is None else find_site(module, readout)
    hooked = _Hooked(module, site, ended, single)
    like = next((p for p in module.parameters() if p.is_floating_point()), image)
    image = _to(image[:1], like)
    outputs: list[torch.Tensor] = []

    def look(output: torch.Tensor) -> torch.Tensor:
        outputs.append(output)
        return output

    with evaluating(module), torch.no_grad():
        with intercepted(module, site, look) as forward:
            forward(image)
        axis = 1 if single else channel_axis(module_paths(module)[site.path], outputs[0])
        shape = tuple(outputs[0].shape[1:])
        plain = hooked(image)
        _check_downstream(hooked, image, plain, layer, readout)
        try:
            traced = _traced(module, site, ended, shape if single else None)
            found, _ = first_tensor(traced(image.clone()))
            if found is None or found.shape != plain.shape or not torch.allclose(found, plain, rtol=1e-4, atol=1e-5):
                raise CutError("the traced graph gives other numbers than the network")
        except LayerError:
            raise
        except Exception as error:  # whatever fx cannot follow runs as it is, only more slowly
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            return Opened(hooked, _UNITS, axis, shape, words)
    return Opened(traced, _UNITS, axis, shape)


def _check_downstream(
    hooked: _Hooked, image: torch.Tensor, plain: torch.Tensor, layer: str, readout: str | None
) -> None:
    """Refuse a read-out that the layer does not reach: with other values in the whole layer, it must change."""
    if readout is None:
        return
    for scale, shift in ((0.0, 0.0), (2.0, 1.0)):
        handle = getattr(hooked, _UNITS).register_forward_hook(lambda _m, _i, out, a=scale, b=shift: a * out + b)
        try:
            if not torch.equal(hooked(image), plain):
                return
        finally:
            handle.remove()
    raise LayerError(f"layer {readout!r} does not depend on {layer!r}, so no lesion shows there; name a later layer")


def _traced(
    module: torch.nn.Module, site: Site, readout: Site | None, shape: tuple[int, ...] | None
) -> torch.nn.Module:
    """The network as a graph in which the layer's output passes through a module; `shape` where it is flattened."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise CutError("the whole network carries forward hooks, which a traced one would not call")
    paths = module_paths(module)
    ended = None if readout is None else paths[readout.path]
    graph = _Opener(site, paths[site.path], readout, ended).trace(module)
    mark = next(node for node in graph.nodes if node.op == "call_function" and node.target is _mark)
    users = list(mark.users)
    with graph.inserting_after(mark):
        first = graph.call_function(torch.flatten, (mark, 1)) if shape is not None else mark
    with graph.inserting_after(first):
        last = graph.call_module(_UNITS, (first,))
    if shape is not None:
        with graph.inserting_after(last):
            last = graph.call_method("unflatten", (last, 1, shape))
    for user in users:
        user.replace_input_with(mark, last)
    if readout is not None:
        ends = [node for node in graph.nodes if node.op == "call_function" and node.target is _end]
        if len(ends) != 1:
            raise CutError(f"the read-out shows {len(ends)} times in the traced graph")
        out = next(node for node in graph.nodes if node.op == "output")
        with graph.inserting_before(out):
            flat = graph.call_function(torch.flatten, (ends[0], 1))
        out.args = (flat,)
    root = copy.copy(module)  # its modules are the network's own; only the list of them is a copy
    root._modules = {**module._modules, _UNITS: torch.nn.Identity()}
    made = fx.GraphModule(root, graph)
    made.train(module.training)
    return made


def outputs_without(
    opened: Opened,
    inputs: torch.Tensor,
    candidates: Sequence[np.ndarray],
    *,
    mode: Literal["zero", "mean"] = "zero",
    fill: np.ndarray | None = None,
    method: Method = "auto",
    memory: str | int = "1GB",
    batch: int | None = None,
) -> Iterator[tuple[int | None, slice, torch.Tensor]]:
    """Run an opened network without each of many sets of units.

    Parameters
    ----------
    opened : Opened
        What :func:`open_at` gave.
    inputs : torch.Tensor
        Images ready for the network, shape (images, …).
    candidates : sequence of numpy.ndarray
        For each candidate the indices of the units (or channels) to silence, sorted and without repetition.
    mode : {"zero", "mean"}
        Silenced units become 0, or ``fill``.
    fill : numpy.ndarray, optional
        For ``mode="mean"``: the value of each unit (or channel).
    method : {"auto", "replay", "low_rank", "hooks"}
        As for :func:`actkit.replay.sweep`.
    memory : str or int
        Budget for what is kept between candidates.
    batch : int, optional
        Images at a time.

    Yields
    ------
    candidate : int or None
        Its number; None for the intact network, which comes first in every batch.
    images : slice
        Which images.
    outputs : torch.Tensor
        ``(images, features)``.

    Raises
    ------
    InputError
        If there are no images, an index is out of range, or ``fill`` is missing or superfluous.
    """
    _check_options(inputs, mode, fill, method, batch)
    module, site = opened.module, Site(opened.layer, opened.layer, None)
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    groups = [np.asarray(group) for group in candidates]
    with evaluating(module), torch.no_grad():
        look = _probe(module, site, _to(inputs[:1], like), opened.axis, mode, fill)
        for number, group in enumerate(groups):
            _check_channels(group, look.lesion.channels, opened.layer, f"candidate {number}")
        indices = [torch.as_tensor(group.astype(np.int64), device=like.device) for group in groups]
        none = torch.empty(0, dtype=torch.int64, device=like.device)
        hooks = HookEngine(module, site, look.lesion, indices, none)
        budget = parse_bytes(memory)
        engine = hooks if opened.reason else _choose(hooks, look, method, budget)[0]
        for start, stop in spans(len(inputs), batch or engine.rows(budget)):
            for candidate, outputs in engine.run(_to(inputs[start:stop], like)):
                if outputs.ndim < 2 or len(outputs) != stop - start:
                    raise InputError(
                        f"the network gives shape {tuple(outputs.shape)} for {stop - start} images; a read-out needs "
                        "one row for each"
                    )
                yield candidate, slice(start, stop), outputs.flatten(1)
