"""The dense layers at a network's end, run once for the rows of many candidates.

A convolution whose kernel is as large as its maps is a dense layer in disguise, and a cheaper one: of the 3 × 3 taps on
a 2 × 2 map, five of nine fall on padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional as F

from actkit.replay_graph import Cut
from actkit.replay_linear import (
    ACTIVATIONS,
    FLATTENING,
    Contraction,
    Sparse,
    linear_module,
    plain_convolution,
    unhooked,
)

_ROWWISE = (*ACTIVATIONS, nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.Softmax, nn.LogSoftmax)
_ELEMENTWISE = tuple(kind for kind in ACTIVATIONS if kind not in (nn.Dropout1d, nn.Dropout2d))
_PACK_ABOVE = 1 << 16
"""Fewer weights than this are not worth packing."""
_DENSE_BELOW = 1 << 22
"""A convolution is not laid out as a dense layer of more weights than this."""


def dense_form(node: fx.Node, cut: Cut) -> nn.Linear | None:
    """The dense layer that a convolution of small maps amounts to.

    Parameters
    ----------
    node : torch.fx.Node
        The node.
    cut : Cut
        The graph.

    Returns
    -------
    torch.nn.Linear or None
        Takes and gives flattened maps (images, channels * positions); None where the convolution has fewer weights
        than multiply-adds to save, or the node is none.
    """
    source = node.args[0] if node.args else None
    before, after = cut.shapes.get(source, ()), cut.shapes.get(node, ())  # type: ignore[arg-type]
    if len(before) != 4 or before[0] != 1 or len(after) != 4:
        return None
    module = linear_module(node, cut)
    if type(module) is not nn.Conv2d or module.groups != 1 or not plain_convolution(module, before):
        return None
    width, out = math.prod(before[1:]), math.prod(after[1:])
    if math.prod(before[2:]) > math.prod(module.kernel_size) or width * out > _DENSE_BELOW:
        return None
    weight = module.weight.detach()
    one_each = torch.eye(width, dtype=weight.dtype, device=weight.device).view(width, *before[1:])
    matrix = F.conv2d(one_each, weight, None, module.stride, module.padding, module.dilation).flatten(1)
    made = nn.Linear(width, out, module.bias is not None, device="meta")
    made.weight = nn.Parameter(matrix.t().contiguous(), requires_grad=False)
    if module.bias is not None:
        made.bias = nn.Parameter(module.bias.detach().repeat_interleave(out // after[1]), requires_grad=False)
    return made


def corrected(node: fx.Node, module: nn.Module, layout: Sparse, cut: Cut, keep_weights: bool) -> Contraction:
    """How to correct the output of a linear node, by its dense form where it has one.

    Parameters
    ----------
    node : torch.fx.Node
        The node.
    module : torch.nn.Module
        What it runs.
    layout : Sparse
        Where its input holds the channels.
    cut : Cut
        The graph.
    keep_weights : bool
        As for `Contraction`.

    Returns
    -------
    Contraction
        For the node's output.
    """
    dense = dense_form(node, cut) if keep_weights else None
    if dense is None:
        return Contraction(module, layout, keep_weights)
    shape: tuple[int, ...] = cut.shapes[node.all_input_nodes[0]]
    positions = math.prod(shape[2:])
    return Contraction(dense, Sparse(1, positions), True, flat=True)


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
        The chain, the first dense layer first; empty where the network ends otherwise. Its one input, flattened, is a
        matrix with one row per image, so that rows of several candidates can be stacked.
    """
    chain: list[fx.Node] = []
    node = cut.result.args[0]
    runs = set(changed)
    while isinstance(node, fx.Node) and node in runs and _rowwise(node, cut):
        source = node.args[0]
        if not isinstance(source, fx.Node) or (chain and not _alone(node, cut)):
            break
        chain.append(node)
        node = source
    chain.reverse()
    dense = [i for i, step in enumerate(chain) if _is_dense(step, cut)]
    return chain[dense[0] :] if dense else []


def _alone(node: fx.Node, cut: Cut) -> bool:
    """Whether one node alone uses a value, sizes apart."""
    return len([user for user in node.users if user not in cut.sizes]) == 1


def _is_dense(node: fx.Node, cut: Cut) -> bool:
    """Whether a node of the chain is a dense layer, or a convolution that amounts to one."""
    return node.op == "call_module" and isinstance(cut.modules[str(node.target)], nn.Linear | nn.Conv2d)


def _rowwise(node: fx.Node, cut: Cut) -> bool:
    """Whether a node treats images apart, whatever the layout of each."""
    if not node.args:
        return False
    before, after = cut.shapes.get(node.args[0], ()), cut.shapes.get(node, ())  # type: ignore[arg-type]
    if len(before) < 2 or before[0] != 1 or len(after) < 2 or after[0] != 1:
        return False
    if _flattens(node, cut):
        return after == (1, math.prod(before[1:]))
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = cut.modules[str(node.target)]
    if not unhooked(module):
        return False
    if len(before) > 2:
        return type(module) in _ELEMENTWISE or (type(module) is nn.Conv2d and dense_form(node, cut) is not None)
    if type(module) not in _ROWWISE:
        return False
    return not isinstance(module, nn.Softmax | nn.LogSoftmax) or module.dim in (1, -1)


def _flattens(node: fx.Node, cut: Cut) -> bool:
    """Whether a node lays maps out in rows."""
    if node.op == "call_module":
        return type(cut.modules[str(node.target)]) is nn.Flatten and unhooked(cut.modules[str(node.target)])
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in FLATTENING


class Head:
    """Runs the chain on stacked rows, its dense layers with packed weights where torch offers them.

    Parameters
    ----------
    chain : list of torch.fx.Node
        What :func:`head_of` found.
    cut : Cut
        The graph.
    pack_budget : int
        Bytes that packed copies of the weights may take.
    """

    def __init__(self, chain: list[fx.Node], cut: Cut, pack_budget: int) -> None:
        self.packed_bytes = 0
        self._steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
        for node in chain:
            if _flattens(node, cut):  # rows are flat already
                continue
            module: nn.Module = dense_form(node, cut) or cut.modules[str(node.target)]
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
