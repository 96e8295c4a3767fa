"""Networks of the VGG kind: 3 × 3 convolutions with ReLU, pooling after some of them, dense layers, one linear head.

Source: configuration D of Simonyan K., Zisserman A. Very deep convolutional networks for large-scale image recognition
(ICLR 2015), without batch normalisation, as in Dobs et al. (Sci Adv 8:eabl8913, 2022); smaller ones by their numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from actkit.errors import InputError

VGG16_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG16_POOLS = (2, 4, 7, 10, 13)
"""VGG16: filters of each convolution, and the convolutions (from 1) that pooling follows."""

SMALL_CHANNELS = (32, 32, 64, 64, 128, 128, 128, 128)
SMALL_POOLS = (1, 2, 4, 6)
"""A net for 32-pixel images that two CPU cores train in a minute; a fifth of a layer is 6 to 26 filters."""

_DENSE_SPREAD = 0.01


class VGG(torch.nn.Module):
    """Convolutions with ReLU, max pooling after some, dense layers with ReLU and dropout, a linear head.

    Layers in execution order: ``features.conv1, features.relu1, (features.pool1,) features.conv2, …, fc1, fc1_relu,
    fc1_dropout, …, head``. No layer writes in place, none is called twice, and there is no batch normalisation: to
    silence a filter after its ReLU is to set its weights and bias to zero.

    Parameters
    ----------
    size : int
        Side of the square input images, in pixels.
    channels : sequence of int
        Filters of each 3 × 3 convolution.
    pools : sequence of int
        Convolutions, counted from 1, that are followed by 2 × 2 max pooling.
    units : sequence of int
        Units of each dense layer.
    n_classes : int
        Classes of all tasks together.
    inputs : int
        1 for grey images, 3 for colour.
    dropout : float
        Share of dense units that training leaves out in each step.
    small_dense : bool
        Start dense layers from normal numbers of standard deviation .01 and convolutions by their outputs (Kaiming,
        fan out), as the released training code of Dobs et al. does; otherwise all by their inputs (Kaiming, fan in),
        which learns from the first step on without that code's long training.

    Raises
    ------
    InputError
        If pooling halves the images to nothing, or follows a convolution that is not there.

    Examples
    --------
    >>> net = VGG(8, [4, 6], [2], [5], n_classes=3)
    >>> [name for name, child in net.named_modules() if not list(child.children())][:5]
    ['features.conv1', 'features.relu1', 'features.conv2', 'features.relu2', 'features.pool2']
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        size: int,
        channels: Sequence[int],
        pools: Sequence[int],
        units: Sequence[int],
        n_classes: int,
        inputs: int = 1,
        dropout: float = 0.0,
        small_dense: bool = False,
    ) -> None:
        super().__init__()
        strange = sorted(set(pools) - set(range(1, len(channels) + 1)))
        if strange:
            raise InputError(
                f"pooling cannot follow convolution {strange[0]}: there are {len(channels)}, counted from 1; correct "
                "pools"
            )
        side = size >> len(set(pools))
        if side < 1:
            raise InputError(
                f"{len(set(pools))} poolings halve images of {size} pixels to nothing; give size "
                f"{2 ** len(set(pools))} or more, or fewer pools"
            )
        layers: OrderedDict[str, torch.nn.Module] = OrderedDict()
        for i, (before, after) in enumerate(zip([inputs, *channels], channels, strict=False), start=1):
            layers[f"conv{i}"] = torch.nn.Conv2d(before, after, kernel_size=3, padding=1)
            layers[f"relu{i}"] = torch.nn.ReLU()
            if i in pools:
                layers[f"pool{i}"] = torch.nn.MaxPool2d(2)
        self.features = torch.nn.Sequential(layers)
        before = channels[-1] * side * side
        for i, after in enumerate(units, start=1):
            self.add_module(f"fc{i}", torch.nn.Linear(before, after))
            self.add_module(f"fc{i}_relu", torch.nn.ReLU())
            self.add_module(f"fc{i}_dropout", torch.nn.Dropout(dropout))
            before = after
        self.head = torch.nn.Linear(before, n_classes)
        self.n_dense = len(units)
        self._initialise(small_dense)

    def _initialise(self, small_dense: bool) -> None:
        """Random weights from torch's generator (see `actkit.extractors.weights.seeded`); biases are zero."""
        for module in self.modules():
            if not isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                continue
            if not small_dense:
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                torch.nn.init.normal_(module.weight, 0.0, _DENSE_SPREAD)
            torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(stimulus, class)`` for images of shape ``(stimulus, inputs, size, size)``."""
        hidden = self.features(images).flatten(1)
        for i in range(1, self.n_dense + 1):
            for name in (f"fc{i}", f"fc{i}_relu", f"fc{i}_dropout"):
                hidden = self.get_submodule(name)(hidden)
        return self.head(hidden)
