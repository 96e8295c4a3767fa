"""Outputs without sets of single units or channels, against the network with forward hooks."""

import numpy as np
import pytest
import torch
from torch import nn

from actkit.errors import InputError, LayerError
from actkit.lesion import lesioned
from actkit.replay_outputs import open_at, outputs_without
from actkit.units import UnitSet


class Residual(nn.Module):
    """Maps, a residual block, a module that runs twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.twice = nn.ReLU()
        self.mix = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.twice(x + self.block(x))
        x = self.twice(self.mix(x))
        return self.fc(x.mean((2, 3)))


class Branching(Residual):
    """The same with control flow on values, which fx cannot trace."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if float(x.sum()) > -1e9 else -x)


def drawn(kind: type[nn.Module] = Residual) -> nn.Module:
    torch.manual_seed(0)
    module = kind().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.6)
    return module


IMAGES = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 3, 6, 5)))
SHAPE = (4, 6, 5)


def plain(module: nn.Module, units: UnitSet, readout: str | None) -> np.ndarray:
    """The lesion bridge, and a hook at the read-out."""
    seen = []
    with lesioned(module, units), torch.no_grad():
        handle = None
        if readout:
            handle = module.get_submodule(readout).register_forward_hook(lambda m, i, o: seen.append(o.clone()))
        seen_or_out = module(IMAGES.clone())
        if handle:
            handle.remove()
            seen_or_out = seen[-1]
    return seen_or_out.flatten(1).numpy()


def gathered(opened, candidates, **settings):
    found = {}
    for candidate, images, outputs in outputs_without(opened, IMAGES, candidates, batch=4, **settings):
        found.setdefault(candidate, {})[images.start] = outputs.numpy().copy()
    return {key: np.concatenate([parts[start] for start in sorted(parts)]) for key, parts in found.items()}


@pytest.mark.parametrize("kind", [Residual, Branching])
@pytest.mark.parametrize("layer", ["stem", "block.2", "block", "twice@0"])
@pytest.mark.parametrize("readout", [None, "mix"])
def test_outputs_are_those_of_the_lesioned_network(kind, layer, readout):
    module = drawn(kind)
    flat = [np.array([3, 17, 64]), np.array([0]), np.array([], dtype=int)]
    opened = open_at(module, layer, IMAGES, readout=readout)
    assert bool(opened.reason) == (kind is Branching)
    assert opened.shape == SHAPE
    found = gathered(opened, flat)
    for number, indices in enumerate(flat):
        c, y, x = np.unravel_index(indices, SHAPE)
        units = UnitSet.of(layer, c, y=y, x=x, shape=SHAPE) if len(indices) else UnitSet.of(layer, [])
        np.testing.assert_allclose(found[number], plain(module, units, readout), atol=1e-10)
    np.testing.assert_allclose(found[None], found[2], atol=1e-10)
    assert np.abs(found[0] - found[None]).max() > 1e-6


def test_channels_and_fills():
    module = drawn()
    opened = open_at(module, "block", IMAGES, readout="mix", single=False)
    found = gathered(opened, [np.array([1, 3])])
    np.testing.assert_allclose(found[0], plain(module, UnitSet.of("block", [1, 3]), "mix"), atol=1e-10)
    # A unit that is given its own value, the same for all images, leaves an image that has that value alone.
    opened = open_at(module, "block", IMAGES)
    with torch.no_grad():
        values = module.block(module.stem(IMAGES.clone())).flatten(1)
    found = gathered(opened, [np.arange(120)], mode="mean", fill=values[2].numpy())
    np.testing.assert_allclose(found[0][2], found[None][2], atol=1e-10)


def test_the_network_is_left_as_it_was():
    module = drawn()
    before = module(IMAGES.clone()).detach()
    list(outputs_without(open_at(module, "block", IMAGES, readout="mix"), IMAGES, [np.array([0])]))
    torch.testing.assert_close(module(IMAGES.clone()).detach(), before)
    assert not any(m._forward_hooks for m in module.modules())
    assert [name for name, _ in module.named_children()] == ["stem", "block", "twice", "mix", "fc"]


def test_errors():
    module = drawn()
    with pytest.raises(LayerError, match="does not depend on"):
        open_at(module, "mix", IMAGES, readout="stem")
    with pytest.raises(LayerError, match="no layer 'blocks'"):
        open_at(module, "blocks", IMAGES)
    with pytest.raises(LayerError, match="runs more than once"):
        open_at(module, "twice", IMAGES)
    opened = open_at(module, "block", IMAGES)
    with pytest.raises(InputError, match="channel 120"):
        list(outputs_without(opened, IMAGES, [np.array([120])]))
    with pytest.raises(InputError, match="needs fill="):
        list(outputs_without(opened, IMAGES, [np.array([1])], mode="mean"))
