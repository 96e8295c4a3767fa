"""The dense layers at a network's end, run once for the rows of many candidates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

from actkit.replay_graph import Cut
from actkit.replay_linear import _ACTIVATIONS, unhooked

_ROWWISE = (*_ACTIVATIONS, nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.Softmax, nn.LogSoftmax)
_PACK_ABOVE = 1 << 16
"""Fewer weights than this are not worth packing."""


def head_of(cut: Cut, changed: list[fx.Node]) -> list[fx.Node]:
    """The chain of row-wise operations, from a dense layer on, that ends a network.

    Parameters
    ----------
    cut : Cut
        The graph.
    changed : list of torch.fx.Node
        Nodes that run for every candidate on whole values, in order.

    Returns
    -------
    list of torch.fx.Node
        The chain, the first dense layer first; empty where the network ends otherwise. Its one input is a matrix with
        one row per image, so that rows of several candidates can be stacked.
    """
    chain: list[fx.Node] = []
    node = cut.result.args[0]
    runs = set(changed)
    while isinstance(node, fx.Node) and node in runs and _rowwise(node, cut):
        source = node.args[0]
        if not isinstance(source, fx.Node) or (chain and len(node.users) != 1):
            break
        chain.append(node)
        node = source
    chain.reverse()
    dense = [i for i, step in enumerate(chain) if isinstance(cut.modules[str(step.target)], nn.Linear)]
    return chain[dense[0] :] if dense else []


def _rowwise(node: fx.Node, cut: Cut) -> bool:
    """Whether a node is a module that treats the rows of one matrix apart."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = cut.modules[str(node.target)]
    shape = cut.shapes.get(node.args[0], ())  # type: ignore[arg-type]
    if type(module) not in _ROWWISE or not unhooked(module) or len(shape) != 2 or shape[0] != 1:
        return False
    return not isinstance(module, nn.Softmax | nn.LogSoftmax) or module.dim in (1, -1)


class Head:
    """Runs the chain on stacked rows, its dense layers with packed weights where torch offers them.

    Parameters
    ----------
    modules : list of torch.nn.Module
        The chain.
    pack_budget : int
        Bytes that packed copies of the weights may take.
    """

    def __init__(self, modules: list[nn.Module], pack_budget: int) -> None:
        self.packed_bytes = 0
        self._steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
        for module in modules:
            step: Callable[[torch.Tensor], torch.Tensor] = module
            if isinstance(module, nn.Linear):
                size = module.weight.numel() * module.weight.element_size()
                packed = packed_linear(module) if self.packed_bytes + size <= pack_budget else None
                if packed is not None:
                    self.packed_bytes += size
                    step = packed
            self._steps.append(step)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The network's output for rows (rows, features); the rows may be overwritten."""
        for step in self._steps:
            rows = step(rows)
        return rows


def packed_linear(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A dense layer with its weights laid out once for oneDNN.

    The plain call lays them out, or uses a slower library, every time. The sums are the same but for the order of
    additions.

    Parameters
    ----------
    module : torch.nn.Linear
        The layer.

    Returns
    -------
    callable or None
        Takes rows (rows, features); None where torch has no packed call for the layer's type and device.
    """
    weight, bias = module.weight.detach(), module.bias
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.numel() < _PACK_ABOVE:
        return None
    if not torch.backends.mkldnn.is_available():
        return None
    try:  # private to torch, so any change there falls back to the plain call
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        probe = torch.ones(2, weight.shape[1])
        run = torch.ops.mkldnn._linear_pointwise
        good = torch.allclose(run(probe, packed, bias, "none", [], ""), module(probe), rtol=1e-3, atol=1e-3)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    if not good:
        return None
    return lambda rows: run(rows, packed, bias, "none", [], "")
