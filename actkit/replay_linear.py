"""The low-rank step: carry only a candidate's own channels, and correct the next linear operation by their share.

A lesion of channel c changes one slice of a layer's output. Operations that treat channels apart (an activation,
pooling, batch norm in evaluation mode, a depthwise convolution, flattening, adding another value) change that slice
alone. A convolution or dense layer W is linear, so that its output is the intact output minus W[:, c] applied to
the difference between the intact slice and the lesioned one.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from actkit.replay_graph import Cut

_CACHE_LINE = 64
"""Bytes."""
_IN_PLACE_USES = 16
"""How often a dense layer's channels are used, each on average, before its weights are laid out by channel although
they can be read in place: a copy of 25,088 x 4,096 weights takes as long as about 20 uses of every channel save by it.
One sweep of all filters in one batch is one use."""


def channels_last(value: torch.Tensor) -> bool:
    """Whether maps lie in memory with the channels of a position side by side."""
    return value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)


def as_channels_last(value: torch.Tensor) -> torch.Tensor:
    """The same maps with the channels of a position side by side; anything but maps as it is."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


@dataclass(frozen=True)
class Sparse:
    """How a value that differs from the intact one in a candidate's channels alone holds its channels.

    Attributes
    ----------
    axis : int
        Axis of the channels.
    block : int
        Neighbouring positions on that axis that belong to one channel (above 1 after flattening).
    """

    axis: int
    block: int = 1

    def take(self, value: torch.Tensor, channels: torch.Tensor | None) -> torch.Tensor:
        """The slices of some channels; all for None."""
        if channels is None:
            return value
        if self.block == 1:
            if len(channels) == 1:  # a view costs less than a copy
                return value.narrow(self.axis, int(channels), 1)
            if self.axis == 1 and channels_last(value):
                return value.permute(0, 2, 3, 1).index_select(3, channels).permute(0, 3, 1, 2)
            return value.index_select(self.axis, channels)
        apart = value.unflatten(self.axis, (-1, self.block))
        if len(channels) == 1:
            return apart.select(self.axis, int(channels))
        return apart.index_select(self.axis, channels).flatten(self.axis, self.axis + 1)

    def put(self, value: torch.Tensor, channels: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
        """A copy of a whole value with the slices of some channels replaced."""
        made = value.clone(memory_format=torch.contiguous_format) if self.block > 1 else value.clone()
        if self.block == 1:
            return made.index_copy_(self.axis, channels, slices.expand(len(made), *slices.shape[1:]))
        apart = made.unflatten(self.axis, (-1, self.block))
        slices = slices.expand(len(made), *slices.shape[1:])
        apart.index_copy_(self.axis, channels, slices.unflatten(self.axis, (len(channels), self.block)))
        return made


Carry = Callable[[Mapping[fx.Node, Any], "torch.Tensor | None"], torch.Tensor]
"""Runs a channel-wise node on the slices of some channels (None: on whole values)."""

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.Mish,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LeakyReLU,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Identity,
)
_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.ZeroPad2d,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS: dict[type, Callable[..., torch.Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "relu_": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "sigmoid_": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "mish": F.mish,
    "contiguous": torch.Tensor.contiguous,
}
_BINARY: dict[Any, Callable[[Any, Any], torch.Tensor]] = {
    operator.add: operator.add,
    operator.iadd: operator.add,
    torch.add: operator.add,
    "add": operator.add,
    "add_": operator.add,
    operator.sub: operator.sub,
    operator.mul: operator.mul,
    operator.imul: operator.mul,
    torch.mul: operator.mul,
    "mul": operator.mul,
    "mul_": operator.mul,
    operator.truediv: operator.truediv,
}
FLATTENING = {"flatten", "view", "reshape"}


def unhooked(module: nn.Module) -> bool:
    """Whether a module has no forward hooks of its own: what it computes may be done in another way."""
    return not module._forward_hooks and not module._forward_pre_hooks


def linear_module(node: fx.Node, cut: Cut) -> nn.Module | None:
    """The module that a node runs on one input; for a bare ``conv2d`` or ``linear`` one that would do the same.

    Parameters
    ----------
    node : torch.fx.Node
        The node.
    cut : Cut
        The graph.

    Returns
    -------
    torch.nn.Module or None
        None where the node runs no module, several inputs, or one that has hooks.
    """
    if node.op == "call_module":
        module = cut.modules[str(node.target)]
        return module if len(node.args) == 1 and not node.kwargs and unhooked(module) else None
    if node.op != "call_function" or node.target not in (F.conv2d, F.linear) or node.kwargs or len(node.args) < 2:
        return None
    source, *sides = node.args[:3]
    tensors = []
    for side in sides:
        if isinstance(side, fx.Node) and side.op == "get_attr":
            tensors.append(cut.call(side, {}))
        elif side is None:
            tensors.append(None)
        else:
            return None
    weight, bias = tensors[0], tensors[1] if len(tensors) > 1 else None
    rest = node.args[3:]
    if source in sides or any(isinstance(item, fx.Node) for item in rest):
        return None
    if node.target is F.linear:
        made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    else:
        names = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=False))
        groups = names.get("groups", 1)
        made = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], weight.shape[2:], device="meta", **names)  # type: ignore[arg-type]
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)  # type: ignore[assignment]
    return made


def carry(node: fx.Node, cut: Cut, sparse: Mapping[fx.Node, Sparse]) -> tuple[Sparse, Carry] | None:
    """How to run a node on slices, where it treats channels apart.

    Parameters
    ----------
    node : torch.fx.Node
        The node; some of its inputs are in ``sparse``.
    cut : Cut
        The graph.
    sparse : mapping
        The values known to differ in a candidate's channels alone.

    Returns
    -------
    tuple of Sparse and callable, or None
        The layout of the result and the function; None where channels may mix.
    """
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node):
        return None
    if node.op == "call_module":
        module = linear_module(node, cut)
        return None if module is None or first not in sparse else _carry_module(module, first, node, cut, sparse[first])
    key: Any = node.target
    if key in _BINARY and len(node.args) == 2 and not node.kwargs:
        return _carry_binary(_BINARY[key], node, cut, sparse)
    if first not in sparse:
        return None
    if key is F.conv2d:
        module = linear_module(node, cut)
        return None if module is None else _carry_module(module, first, node, cut, sparse[first])
    name = key if isinstance(key, str) else getattr(key, "__name__", "")
    if name in FLATTENING:
        return _carry_flatten(first, node, cut, sparse[first])
    if name in _FUNCTIONS and len(node.args) == 1 and set(node.kwargs) <= {"inplace"}:
        function = _FUNCTIONS[name]
        return sparse[first], lambda values, _: function(values[first])
    return None


def _carry_module(
    module: nn.Module, source: fx.Node, node: fx.Node, cut: Cut, layout: Sparse
) -> tuple[Sparse, Carry] | None:
    """Channel-wise modules; exact classes only, since a sub-class may do more."""
    kind = type(module)
    if kind in ACTIVATIONS:
        pure = copy.copy(module)
        if getattr(pure, "inplace", False):
            setattr(pure, "inplace", False)  # noqa: B010  (not every activation declares it)
        return layout, lambda values, _: pure(values[source])
    if kind is nn.Flatten:
        return _carry_flatten(source, node, cut, layout)
    rank = len(cut.shapes.get(source, ()))
    if layout.axis != 1 or layout.block != 1 or rank < 2:
        return None
    if kind in _POOLS and rank == (3 if kind.__name__.endswith("1d") else 4):
        return layout, lambda values, _: module(values[source])
    if kind in _NORMS and isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
        return layout, lambda values, channels: _batch_norm(module, values[source], channels)
    if kind not in _CONVOLUTIONS or not isinstance(module, nn.modules.conv._ConvNd):
        return None
    if module.groups == module.in_channels == module.out_channels > 1 and plain_convolution(module, cut.shapes[source]):
        return layout, lambda values, channels: _depthwise(module, values[source], channels)
    return None


def _batch_norm(
    module: nn.modules.batchnorm._BatchNorm, value: torch.Tensor, channels: torch.Tensor | None
) -> torch.Tensor:
    """Batch norm of some channels, by the running statistics."""

    def pick(parameter: torch.Tensor | None) -> torch.Tensor | None:
        return parameter if parameter is None or channels is None else parameter[channels]

    return F.batch_norm(
        value,
        pick(module.running_mean),
        pick(module.running_var),
        pick(module.weight),
        pick(module.bias),
        training=False,
        eps=module.eps,
    )


def _depthwise(module: nn.modules.conv._ConvNd, value: torch.Tensor, channels: torch.Tensor | None) -> torch.Tensor:
    """A depthwise convolution of some channels."""
    weight = module.weight if channels is None else module.weight[channels]
    bias = module.bias if channels is None or module.bias is None else module.bias[channels]
    function = _CONVOLUTIONS[type(module)]
    return function(value, weight, bias, module.stride, module.padding, module.dilation, len(weight))


def plain_convolution(module: nn.modules.conv._ConvNd, shape: tuple[int, ...]) -> bool:
    """Whether a convolution pads with zeros and its input has a batch axis."""
    return module.padding_mode == "zeros" and len(shape) == len(module.kernel_size) + 2


def _carry_flatten(source: fx.Node, node: fx.Node, cut: Cut, layout: Sparse) -> tuple[Sparse, Carry] | None:
    """Maps (images, channels, ...) laid out in one row per image: a channel keeps its positions together."""
    before, after = cut.shapes.get(source, ()), cut.shapes.get(node, ())
    if layout.axis != 1 or len(before) < 2 or after != (before[0], math.prod(before[1:])):
        return None
    positions = math.prod(before[2:])
    return Sparse(1, layout.block * positions), lambda values, _: values[source].flatten(1)


def _carry_binary(
    function: Callable[[Any, Any], torch.Tensor], node: fx.Node, cut: Cut, sparse: Mapping[fx.Node, Sparse]
) -> tuple[Sparse, Carry] | None:
    """Arithmetic of a sparse value with another, a number, or an intact value of the same shape."""
    layouts = {sparse[arg] for arg in node.args if isinstance(arg, fx.Node) and arg in sparse}
    if len(layouts) != 1:
        return None
    layout = layouts.pop()
    steady = {*cut.live}
    for arg in node.args:
        if isinstance(arg, int | float):
            continue
        if not isinstance(arg, fx.Node) or cut.shapes.get(arg) != cut.shapes.get(node) or not cut.shapes.get(node):
            return None
        if arg not in sparse and arg not in steady:
            return None

    def run(values: Mapping[fx.Node, Any], channels: torch.Tensor | None) -> torch.Tensor:
        sides = []
        for arg in node.args:
            value: Any = values[arg] if isinstance(arg, fx.Node) else arg
            sides.append(layout.take(value, channels) if arg in steady else value)
        return function(*sides)

    return layout, run


def contraction(node: fx.Node, cut: Cut, sparse: Mapping[fx.Node, Sparse]) -> nn.Module | None:
    """The plain convolution or dense layer that a node runs over the channels of a sparse value, if it does."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in sparse:
        return None
    module, layout, shape = linear_module(node, cut), sparse[source], cut.shapes[source]
    if type(module) is nn.Linear:
        return module if layout.axis == len(shape) - 1 else None
    if type(module) not in _CONVOLUTIONS or not isinstance(module, nn.modules.conv._ConvNd):
        return None
    return module if layout == Sparse(1) and module.groups == 1 and plain_convolution(module, shape) else None


class Contraction:
    """A convolution or dense layer whose output is corrected by the share of some input channels.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.
    layout : Sparse
        Where its input holds the channels.
    keep_weights : bool
        Whether a dense layer's weights may be laid out by channel, which takes a copy as large as the weights. Where
        they lie well as they are, that waits until so many candidates have run that it pays.
    flat : bool
        Whether ``module`` is the dense form of a convolution, for flattened maps.
    """

    def __init__(self, module: nn.Module, layout: Sparse, keep_weights: bool, flat: bool = False) -> None:
        self.module, self.layout, self.flat = module, layout, flat
        self._by_channel: torch.Tensor | None = None
        self._may_keep = keep_weights
        self._uses = 0

    def apply(
        self, intact: torch.Tensor, delta: torch.Tensor, channels: torch.Tensor, out: torch.Tensor | None
    ) -> torch.Tensor:
        """The layer's output without what ``delta`` contributed to it.

        Parameters
        ----------
        intact : torch.Tensor
            The layer's intact output.
        delta : torch.Tensor
            Intact minus lesioned input, the slices of the candidate's channels.
        channels : torch.Tensor
            The channels (k,).
        out : torch.Tensor or None
            A contiguous buffer of the shape of ``intact`` to write to.

        Returns
        -------
        torch.Tensor
            The corrected output; ``out`` where it could be used.
        """
        if self.flat:
            return self._dense(intact.flatten(1), delta.flatten(1), channels).view(intact.shape)
        if isinstance(self.module, nn.Linear):
            return self._dense(intact, delta, channels)
        module = self.module
        assert isinstance(module, nn.modules.conv._ConvNd)
        weight = module.weight[:, channels]
        if type(module) is nn.Conv2d and channels_last(intact):
            share = F.conv2d(as_channels_last(delta), weight, None, module.stride, module.padding, module.dilation)
            return torch.sub(intact, share, out=out) if out is not None else intact - share
        if type(module) is not nn.Conv2d or isinstance(module.padding, str) or not intact.is_contiguous():
            function = _CONVOLUTIONS[type(module)]
            return intact - function(delta, weight, None, module.stride, module.padding, module.dilation)
        if module.kernel_size == (1, 1) and module.stride == (1, 1) and module.padding == (0, 0):
            columns = delta.flatten(2)
        else:
            columns = F.unfold(delta, module.kernel_size, module.dilation, module.padding, module.stride)
        matrix = weight.flatten(1).expand(len(columns), -1, -1)
        flat = None if out is None else out.flatten(2)
        return torch.baddbmm(intact.flatten(2), matrix, columns, alpha=-1, out=flat).view(intact.shape)

    def _dense(self, intact: torch.Tensor, delta: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        rows = delta.flatten(0, -2) if delta.ndim != 2 else delta
        flat = intact.flatten(0, -2) if intact.ndim != 2 else intact
        apart = self.module.weight.detach().unflatten(1, (-1, self.layout.block))  # type: ignore[operator, union-attr]
        # A channel's weights are read in place where each output holds at least a cache line of them side by side.
        in_place = apart.device.type == "cpu" and self.layout.block * apart.element_size() >= _CACHE_LINE
        self._uses += len(channels)
        if self._may_keep and self._by_channel is None and self._uses > in_place * _IN_PLACE_USES * apart.shape[1]:
            self._by_channel = apart.permute(1, 2, 0).contiguous()
        if self._by_channel is not None:
            one = len(channels) == 1
            weight = self._by_channel[int(channels)] if one else self._by_channel[channels].flatten(0, 1)
        elif not in_place:
            weight = apart[:, channels].flatten(1).t()
        else:
            parts = rows.unflatten(1, (len(channels), -1)).unbind(1)
            for channel, part in zip(channels.tolist(), parts, strict=True):
                flat = torch.addmm(flat, part, apart[:, channel].t(), alpha=-1)
            return flat.view(intact.shape)
        return torch.addmm(flat, rows, weight, alpha=-1).view(intact.shape)
