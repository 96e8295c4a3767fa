"""Cutting a network at a layer: its graph by torch.fx, what runs before and after the cut, what must be copied."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from actkit.errors import LayerError
from actkit.layers import first_tensor, module_paths
from actkit.replay_lesion import Site

_SIZES = {"size", "dim", "numel", "ndimension"}
_SIZE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda"}


class CutError(Exception):
    """The network cannot be cut here; the message says why, for the reader of a result."""


def _mark(output: Any) -> Any:
    """Stand for the lesion in the graph: the place where a layer's output is replaced."""
    return output


class _Tracer(fx.Tracer):
    """Traces a network down to torch's own modules, and marks the output of one call of one module.

    A module that fx cannot follow (control flow on values) becomes one node of the graph, unless the layer is in it.
    """

    def __init__(self, site: Site, target: torch.nn.Module) -> None:
        super().__init__()
        self._site, self._target = site, target
        self._calls = 0

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Torch's own modules but for containers are nodes, unless the layer is inside."""
        if m is not self._target and self._inside(m):
            return False
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace one call of a module."""
        last = next(reversed(self.graph.nodes), None)
        try:
            output = super().call_module(m, forward, args, kwargs)
        except LayerError:
            raise
        except Exception:
            if self._inside(m) and m is not self._target:
                raise
            for node in list(reversed(self.graph.nodes)):
                if node is last:
                    break
                self.graph.erase_node(node)
            output = self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        if m is not self._target:
            return output
        call, self._calls = self._calls, self._calls + 1
        if self._site.call is None and call:
            raise LayerError(f"layer {self._site.name!r} runs more than once; name its calls: '{self._site.path}@0', …")
        if self._site.call is not None and call != self._site.call:
            return output
        return self.create_proxy("call_function", _mark, (output,), {})

    def _inside(self, m: torch.nn.Module) -> bool:
        return any(child is self._target for child in m.modules())


@dataclass
class Cut:
    """A network's graph, split by what depends on a lesion of one layer.

    Attributes
    ----------
    modules : dict
        The modules that nodes call, by path.
    mark : torch.fx.Node
        The lesioned value.
    before : list of torch.fx.Node
        Nodes that no candidate changes, in order; sizes of later values (``x.size(0)``) are not among them.
    after : list of torch.fx.Node
        Nodes that depend on the lesion, in order, without ``mark`` and the graph's output.
    sizes : set of torch.fx.Node
        Nodes among ``after`` that ask for a size or type, the same for every candidate.
    result : torch.fx.Node
        The graph's output node.
    live : set of torch.fx.Node
        Values of ``before`` that ``after`` uses.
    copies : dict
        For nodes of ``after`` that overwrite a live value: which ones must be copied first.
    shapes : dict
        Shape of every tensor for one image.
    overwrites : set of torch.fx.Node
        Nodes of ``after`` that overwrite one of their inputs.
    channels_last : bool
        Whether the part before the layer has run with maps that hold the channels of a position side by side.
    first : dict or None
        What `prefix` would give for the image that the network was looked at with, in that layout; None where the
        graph's own order does not show it.
    """

    root: torch.nn.Module
    modules: dict[str, torch.nn.Module]
    mark: fx.Node
    before: list[fx.Node]
    after: list[fx.Node]
    sizes: set[fx.Node]
    result: fx.Node
    live: set[fx.Node]
    copies: dict[fx.Node, set[fx.Node]] = field(default_factory=dict)
    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    overwrites: set[fx.Node] = field(default_factory=set)
    channels_last: bool = False
    first: dict[fx.Node, Any] | None = None

    def call(self, node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
        """Run one node on the values of others."""
        if node.op == "get_attr":
            return _attribute(self.root, str(node.target))
        args = fx.node.map_arg(node.args, env.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, env.__getitem__)
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)

    def prefix(self, batch: torch.Tensor, channels_last: bool = False) -> dict[fx.Node, Any]:
        """Run what no candidate changes.

        Parameters
        ----------
        batch : torch.Tensor
            Images (images, ...); not written to.
        channels_last : bool
            Whether convolutions should hand their maps on with the channels of a position side by side.

        Returns
        -------
        dict
            The live values and, under ``mark``, the layer's output.
        """
        env: dict[fx.Node, Any] = {}
        keep = self.live | {self.mark}
        left = {node: sum(user not in self._later for user in node.users) for node in self.before}
        for node in [*self.before, self.mark]:
            env[node] = self._input(node, batch) if node.op == "placeholder" else self.call(node, env)
            if channels_last:
                env[node] = self.side_by_side(node, env[node])
            for source in node.all_input_nodes:
                left[source] -= 1
                if not left[source] and source not in keep:
                    del env[source]
        return {node: value for node, value in env.items() if node in keep}

    def side_by_side(self, node: fx.Node, value: Any) -> Any:
        """A convolution's maps with the channels of a position side by side; the value of another node as it is."""
        if node.op == "call_module" and type(self.modules[str(node.target)]) is torch.nn.Conv2d:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def __post_init__(self) -> None:
        self._later = {*self.after, self.result}

    @staticmethod
    def _input(node: fx.Node, batch: torch.Tensor) -> Any:
        return node.args[0] if node.args else batch.clone()  # further inputs take their defaults


def cut(module: torch.nn.Module, site: Site, probe: torch.Tensor, channels_last: bool = False) -> Cut:
    """Cut a network at a layer.

    Parameters
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    site : Site
        The layer.
    probe : torch.Tensor
        One image, shape (1, ...): run once to see shapes and which nodes overwrite which values.
    channels_last : bool
        Whether to try maps that hold the channels of a position side by side first.

    Returns
    -------
    Cut
        The graph and its parts.

    Raises
    ------
    CutError
        If the network cannot be traced or the cut would not give the network's own numbers.
    """
    target = module_paths(module)[site.path]
    if target is module:
        raise CutError("the layer is the whole network")
    if module._forward_hooks or module._forward_pre_hooks:
        raise CutError("the whole network carries forward hooks, which a part of it would not call")
    tracer = _Tracer(site, target)
    try:
        graph = tracer.trace(module)
    except LayerError:
        raise
    except Exception as error:
        raise CutError(f"torch.fx cannot trace it ({_first_line(error)})") from error
    mark = next((node for node in graph.nodes if node.op == "call_function" and node.target is _mark), None)
    if mark is None:
        raise CutError("the layer does not show in the traced graph")
    inputs = [node for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != 1:
        raise CutError(f"the network takes {len(inputs)} inputs")
    for side_by_side in (True, False) if channels_last else (False,):
        made = _split(module, graph, mark)
        made.channels_last = side_by_side
        try:
            _watch(made, list(graph.nodes), probe)
        except (CutError, LayerError):
            raise
        except Exception as error:
            if side_by_side:  # a network that asks for views of its maps runs with the channels apart only
                continue
            # the graph of an output that fx rebuilds in another way than the network does
            raise CutError(f"its traced graph does not run ({_first_line(error)})") from error
        break
    return made


def _split(module: torch.nn.Module, graph: fx.Graph, mark: fx.Node) -> Cut:
    """Sort nodes by whether they depend on the lesion; nodes that nothing uses are left out."""
    result = next(node for node in graph.nodes if node.op == "output")
    used = {result}
    for node in reversed(graph.nodes):
        if node in used or _writes(node):
            used.update(node.all_input_nodes)
            used.add(node)
    changed = {mark}
    before, after = [], []
    sizes: set[fx.Node] = set()
    for node in graph.nodes:
        if node in (mark, result) or node not in used:
            continue
        if any(source in changed or source in sizes for source in node.all_input_nodes):
            after.append(node)
            if not any(source in changed for source in node.all_input_nodes) or _is_size(node):
                sizes.add(node)
            else:
                changed.add(node)
        else:
            before.append(node)
    known = set(before)
    live = {source for node in [*after, result] for source in node.all_input_nodes if source in known}
    return Cut(module, dict(module.named_modules(remove_duplicate=False)), mark, before, after, sizes, result, live)


def _is_size(node: fx.Node) -> bool:
    """Whether a node asks for a size or type, which a lesion does not change."""
    if node.op == "call_method":
        return node.target in _SIZES
    return node.op == "call_function" and node.target is getattr and node.args[1] in _SIZE_ATTRIBUTES


def _writes(node: fx.Node) -> bool:
    """Whether a call may matter although nothing uses its value: an in-place method or function."""
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return node.op == "call_function" and getattr(node.target, "__name__", "").startswith(("i", "setitem"))


def _watch(made: Cut, order: list[fx.Node], probe: torch.Tensor) -> None:
    """Run one image in the graph's own order; note shapes, and which nodes overwrite which values.

    torch counts the writes to a tensor's memory, views included, so that an overwritten value shows.
    """
    place = {node: i for i, node in enumerate(order)}
    steady, changing = {*made.before}, {*made.after}
    last = [node for node in order if node in steady or node is made.mark][-1]
    env: dict[fx.Node, Any] = {}
    for node in order:
        if node not in steady and node not in changing and node is not made.mark:
            continue
        if node.op == "placeholder":
            value = made._input(node, probe)
        else:
            held = [(n, t, t._version) for n, v in env.items() for t in _tensors(v)]
            value = made.call(node, env)
            written = {n for n, t, version in held if t._version != version}
            if written:
                _note_writes(made, node, written, place, steady)
            if node is made.mark:  # the lesion is written to a copy
                tensor, note = first_tensor(value)
                if tensor is None:
                    raise LayerError(f"the layer cannot be lesioned: {note}")
                value = _copied(value)
            elif made.channels_last and node in steady:
                value = made.side_by_side(node, value)
        env[node] = value
        if isinstance(value, torch.Tensor):
            made.shapes[node] = tuple(value.shape)
        if node is last and not made.overwrites:  # else a value may differ from what the part before alone leaves
            made.first = _first(made, env)


def _first(made: Cut, env: Mapping[fx.Node, Any]) -> dict[fx.Node, Any] | None:
    """A copy of what the part before the layer gives; values that share memory share it in the copy."""
    kept = {node: env[node] for node in made.live}
    kept[made.mark] = fx.node.map_arg(made.mark.args[0], env.__getitem__)
    nodes = [node for node in kept if node.op != "get_attr"]  # parameters are not copied
    try:
        return kept | dict(zip(nodes, copy.deepcopy([kept[node] for node in nodes]), strict=True))
    except Exception:  # a value that cannot be copied: the part before the layer runs once more
        return None


def _note_writes(
    made: Cut, node: fx.Node, written: set[fx.Node], place: dict[fx.Node, int], steady: set[fx.Node]
) -> None:
    """Decide what an overwriting node means for the cut."""
    if node in steady:
        if any(place[node] > place[made.mark] and user not in steady for n in written for user in n.users):
            raise CutError(f"{node.name} overwrites a value that the part after the layer uses")
        return
    made.overwrites.add(node)
    cached = written & steady
    for value in cached:
        if any(place[user] > place[node] for user in value.users):
            raise CutError(f"{node.name} overwrites a value of the part before the layer that is used again")
    if cached:
        made.copies[node] = cached & set(node.all_input_nodes)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _copied(value: Any) -> Any:
    """Copy the tensors in a value."""
    return fx.node.map_aggregate(value, lambda item: item.clone() if isinstance(item, torch.Tensor) else item)


def _attribute(root: torch.nn.Module, path: str) -> Any:
    """A parameter, buffer or constant of a network."""
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
