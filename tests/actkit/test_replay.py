"""Lesion sweeps: every way gives the plain loop's numbers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import actkit
from actkit import replay, replay_linear
from actkit.errors import InputError, LayerError
from actkit.extractors.vgg import VGG, VGG16_POOLS
from actkit.lesion import lesioned
from actkit.replay import SweepResult, sweep
from actkit.replay_dense import head_of, packed_linear
from actkit.replay_graph import cut
from actkit.replay_lesion import find_site, replace_tensor
from actkit.units import UnitSet


class Residual(nn.Module):
    """Two convolutions with batch norm, an in-place ReLU that runs twice, and an in-place sum with the input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Residual(8, 8, 1), Residual(8, 8, 1))
        self.layer2 = nn.Sequential(Residual(8, 12, 2), Residual(12, 12, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches, two blocks, a head on the first token; sizes are asked for at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.head = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h * w).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


@cache
def lite() -> nn.Module:
    """EfficientNet-Lite0, its batch norms fitted to noise: as first drawn it hardly depends on its input."""
    module = actkit.open_network("efficientnet_lite0", weights="random").module
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.momentum = 1.0
    with torch.no_grad():
        varied(module).train()(images(8, 64, torch.float32))
    return module.eval()


def small_vgg() -> nn.Module:
    return VGG(16, (6, 6, 8, 8), (2, 4), (20, 20), 6, inputs=3)


def deep_vgg() -> nn.Module:
    """The 13 convolutions and five pools of VGG16, narrow."""
    return VGG(32, (4, 4, 5, 5, 6, 6, 6, 8, 8, 8, 8, 8, 8), VGG16_POOLS, (12, 12), 6, inputs=3)


def plain_cnn() -> nn.Module:
    """VGG as torchvision writes it: in-place ReLUs in one Sequential."""
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(True)
            ),
            pool=nn.AdaptiveAvgPool2d(4),
            flat=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(128, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 6)),
        )
    )


def varied(module: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, so that a channel's place matters, and biases that prevent ties."""
    generator = torch.Generator().manual_seed(3)
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv2d) and child.bias is not None:
            child.bias.data.copy_(torch.randn(child.bias.shape, generator=generator) * 0.1)
        if isinstance(child, nn.BatchNorm2d):
            for tensor in (child.running_var, child.weight.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (child.running_mean, child.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return module


def score(logits: torch.Tensor, images: slice) -> Mapping[str, torch.Tensor]:
    targets = torch.arange(images.start, images.stop) % logits.shape[1]
    loss = logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]
    return {"loss": loss, "correct": logits.argmax(1) == targets}


def images(n: int = 5, side: int = 16, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def candidates(channels: int) -> list[np.ndarray]:
    """The first channel, the last, two, half of them, all, none."""
    return [
        np.array([0]),
        np.array([channels - 1]),
        np.array([1, channels // 2 + 1]),
        np.arange(channels // 2),
        np.arange(channels),
        np.array([], dtype=int),
    ]


def difference(a: SweepResult, b: SweepResult, relative: bool = False) -> float:
    """Largest difference of losses and of intact losses; hits must be the same."""
    np.testing.assert_array_equal(a.values["correct"], b.values["correct"])
    pairs = ((a.values["loss"], b.values["loss"]), (a.intact["loss"], b.intact["loss"]))
    return max(float(np.max(np.abs(x - y) / (np.abs(y) if relative else 1.0))) for x, y in pairs)


CASES = [
    (small_vgg, "features.relu1", 6, "low_rank"),
    (small_vgg, "features.conv2", 6, "low_rank"),
    (small_vgg, "features.relu4", 8, "low_rank"),
    (small_vgg, "fc1_relu", 20, "low_rank"),
    (small_vgg, "fc2_dropout", 20, "low_rank"),
    (small_vgg, "head", 6, "replay"),
    (plain_cnn, "features.0", 6, "low_rank"),
    (plain_cnn, "features.1", 6, "low_rank"),
    (plain_cnn, "features.4", 8, "low_rank"),
    (plain_cnn, "classifier.0", 16, "low_rank"),
    (ResNet, "relu", 8, "low_rank"),
    (ResNet, "layer1.0.relu@0", 8, "low_rank"),
    (ResNet, "layer1.0.relu@1", 8, "low_rank"),
    (ResNet, "layer1.1", 8, "low_rank"),
    (ResNet, "layer1.0.bn2", 8, "low_rank"),
    (ResNet, "layer2.0.downsample.1", 12, "low_rank"),
    (ResNet, "layer2.1", 12, "low_rank"),
    (ResNet, "avgpool", 12, "low_rank"),
    (Transformer, "patches", 8, "replay"),
    (Transformer, "blocks.0", 8, "replay"),
    (Transformer, "blocks.0.attention", 8, "replay"),
    (Transformer, "blocks.1.mlp.1", 32, "low_rank"),
    (Transformer, "blocks.0.mlp", 8, "replay"),
]
EVERY_OPTION: tuple[dict, ...] = ({}, {"base": [2, 3]}, {"mode": "mean"})


@pytest.mark.parametrize(("build", "layer", "channels", "best"), CASES, ids=[f"{c[0].__name__}-{c[1]}" for c in CASES])
def test_every_way_gives_the_numbers_of_the_plain_loop(
    build: Callable[[], nn.Module], layer: str, channels: int, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module, x = varied(build()).double(), images()
    choices = candidates(channels)
    for options in ({}, {"base": [2, 3]}, {"mode": "mean", "fill": np.linspace(-1, 1, channels)}):
        plain = sweep(module, layer, x, choices, score, method="hooks", **options)
        assert plain.method == "hooks"
        changed = np.abs(plain.values["loss"] - plain.intact["loss"]).max(axis=1)
        assert changed[4] > 1e-4  # all channels together matter
        assert changed[5] == 0
        for method, taken, side_by_side in (("auto", best, True), ("auto", best, False), ("replay", "replay", True)):
            monkeypatch.setattr(replay, "_side_by_side", lambda _image, wanted=side_by_side: wanted)
            fast = sweep(module, layer, x, choices, score, method=method, batch=3, **options)
            assert fast.method == taken, fast.reason
            assert difference(fast, plain) < 1e-12


@pytest.mark.parametrize(("build", "layer", "channels"), [(c[0], c[1], c[2]) for c in CASES[2::3]])
def test_float32_losses_are_right_to_five_digits(build: Callable[[], nn.Module], layer: str, channels: int) -> None:
    torch.manual_seed(0)
    module, x = varied(build()), images(dtype=torch.float32)
    plain = sweep(module, layer, x, candidates(channels), score, method="hooks")
    assert difference(sweep(module, layer, x, candidates(channels), score), plain, relative=True) < 1e-5


@pytest.mark.parametrize(
    ("layer", "channels", "option"),
    [("_blocks.1._bn0", 96, {"base": [2, 3]}), ("_blocks.2._depthwise_conv", 144, {"mode": "mean"})],
)
def test_efficientnet_lite(layer: str, channels: int, option: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_side_by_side", lambda _image: True)  # in float64 too
    module, x = copy.deepcopy(lite()).double(), images(2, 32)
    chosen = [np.array([channels - 1, 3])]
    for options in ({}, option):
        given = options | ({"fill": np.linspace(-1, 1, channels)} if "mode" in options else {})
        plain = sweep(module, layer, x, chosen, score, method="hooks", **given)
        fast = sweep(module, layer, x, chosen, score, **given)
        assert fast.method == "low_rank", fast.reason
        assert difference(fast, plain) < 1e-12
        assert np.abs(plain.values["loss"] - plain.intact["loss"]).max() > 1e-6
    module, x = module.float(), x.float()
    plain = sweep(module, layer, x, chosen, score, method="hooks")
    assert difference(sweep(module, layer, x, chosen, score), plain, relative=True) < 1e-5


@pytest.mark.parametrize("number", range(1, 14))
def test_each_convolution_of_vgg16(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_side_by_side", lambda _image: True)  # in float64 too
    torch.manual_seed(0)
    module, x, layer = varied(deep_vgg()).double(), images(3, 32), f"features.relu{number}"
    channels = module.get_submodule(f"features.conv{number}").out_channels
    for options in EVERY_OPTION:
        given = options | ({"fill": np.linspace(-1, 1, channels)} if "mode" in options else {})
        plain = sweep(module, layer, x, candidates(channels), score, method="hooks", **given)
        fast = sweep(module, layer, x, candidates(channels), score, batch=2, **given)
        assert fast.method == "low_rank", fast.reason
        assert difference(fast, plain) < 1e-12
        assert np.abs(plain.values["loss"][4] - plain.intact["loss"]).max() > 1e-6
    module, x = module.float(), x.float()
    plain = sweep(module, layer, x, candidates(channels), score, method="hooks")
    assert difference(sweep(module, layer, x, candidates(channels), score), plain, relative=True) < 1e-5


class Gated(nn.Module):
    """A view of a layer's output that the layer's lesion does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1)[:, :4])
        y = x.view(-1, 6)
        return self.head(self.second(x) * y)


@pytest.mark.parametrize(
    ("build", "layer"),
    [(small_vgg, "features.relu2"), (ResNet, "layer1.0.bn2"), (Transformer, "blocks.0.attention"), (Gated, "second")],
)
@pytest.mark.parametrize("side_by_side", [False, True])
def test_what_the_first_image_left_is_what_the_part_before_the_layer_gives(
    build: Callable[[], nn.Module], layer: str, side_by_side: bool
) -> None:
    torch.manual_seed(0)
    module, x = varied(build()).eval(), images(1, dtype=torch.float32)
    with torch.no_grad():
        made = cut(module, find_site(module, layer), x, side_by_side)
        assert made.channels_last is side_by_side
        found, again = made.first, made.prefix(x, side_by_side)
    assert found is not None
    assert found.keys() == again.keys()
    tensors = [node for node in again if isinstance(again[node], torch.Tensor)]
    assert all(torch.equal(found[n], again[n]) and found[n].stride() == again[n].stride() for n in tensors)
    for a, b in combinations(tensors, 2):  # who shares memory with whom
        assert (found[a].data_ptr() == found[b].data_ptr()) == (again[a].data_ptr() == again[b].data_ptr())


@pytest.mark.parametrize("uses", [0, 2, 10**6])
def test_dense_weights_in_place_and_laid_out_by_channel(uses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen positions of a channel lie together; the layout changes before, during and never in the sweep."""
    monkeypatch.setattr(replay_linear, "_IN_PLACE_USES", uses)
    torch.manual_seed(0)
    module, x = varied(small_vgg()).double(), images(3)
    chosen = [np.array(group) for size in (1, 2, 3, 4) for group in combinations(range(8), size)][::4]
    plain = sweep(module, "features.relu4", x, chosen, score, method="hooks")
    fast = sweep(module, "features.relu4", x, chosen, score)
    assert fast.method == "low_rank"
    assert difference(fast, plain) < 1e-12


def test_one_image_passes_three_times_before_the_sweep() -> None:
    """To look at the layer, to see the graph run, and once with a candidate; a base takes one more, intact."""
    torch.manual_seed(0)
    module, x, rows = small_vgg().double(), images(), []
    module.features.conv1.register_forward_pre_hook(lambda _m, inputs: rows.append(len(inputs[0])))
    found = sweep(module, "features.relu2", x, [np.array([1]), np.array([4])], score)
    assert found.method == "low_rank"
    assert rows == [1, 1, 1, 5]
    rows.clear()
    sweep(module, "features.relu2", x, [np.array([1]), np.array([4])], score, base=[2])
    assert rows == [1, 1, 1, 1, 5]


class Viewing(nn.Module):
    """Asks for a view of its maps, which channels side by side in memory cannot give."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.relu, self.fc = nn.ReLU(), nn.Linear(8 * 64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv2(torch.tanh(self.conv1(x))))
        return self.fc(x.view(x.size(0), -1))


def tiny_maps() -> nn.Module:
    """Convolutions of 2 x 2 and 1 x 1 maps, with strides and without padding: dense layers in disguise."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 4, 4),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(8, 10, 3, 1, 1),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(10, 12, 3, 2, 1, bias=False),
            elu3=nn.ELU(inplace=True),
            conv4=nn.Conv2d(12, 7, 1),
            drop4=nn.Dropout2d(),
            flat=nn.Flatten(),
            head=nn.Linear(7, 6),
        )
    )


@pytest.mark.parametrize(
    ("build", "layer", "channels"),
    [(tiny_maps, name, n) for name, n in (("relu1", 8), ("relu2", 10), ("elu3", 12), ("conv4", 7))]
    + [(Viewing, "conv1", 6), (Viewing, "relu", 8)],
)
def test_small_maps_and_views_of_maps(
    build: Callable[[], nn.Module], layer: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_side_by_side", lambda _image: True)  # in float64 too
    torch.manual_seed(0)
    module, x = varied(build()).double(), images()
    plain = sweep(module, layer, x, candidates(channels), score, method="hooks")
    for method in ("low_rank", "replay"):
        fast = sweep(module, layer, x, candidates(channels), score, method=method, batch=2)
        assert fast.method == method, fast.reason
        assert difference(fast, plain) < 1e-12
    module, x = module.float(), x.float()
    plain = sweep(module, layer, x, candidates(channels), score, method="hooks")
    assert difference(sweep(module, layer, x, candidates(channels), score), plain, relative=True) < 1e-5


def test_small_convolutions_are_stacked_with_the_dense_layers() -> None:
    """Of 2 x 2 maps on, everything runs on rows of several candidates; a 3 x 3 kernel on larger maps does not."""
    torch.manual_seed(0)
    module = tiny_maps()
    del module.drop4
    x = images(dtype=torch.float32)
    made = cut(module.eval(), find_site(module, "relu1"), x[:1])
    assert [str(node.target) for node in head_of(made, made.after)] == [
        "conv2", "relu2", "conv3", "elu3", "conv4", "flat", "head",
    ]  # fmt: skip
    wide = small_vgg().eval()
    made = cut(wide, find_site(wide, "features.relu1"), x[:1])
    assert str(head_of(made, made.after)[0].target) == "fc1"


def test_candidates_with_the_same_channels_are_run_once() -> None:
    torch.manual_seed(0)
    module, x, calls = small_vgg().double(), images(3), []

    def counted(logits: torch.Tensor, place: slice) -> Mapping[str, torch.Tensor]:
        calls.append(place)
        return score(logits, place)

    chosen = [np.array([1, 2]), np.array([4]), np.array([2, 1, 2]), np.array([], dtype=int), np.array([4])]
    found = sweep(module, "features.relu1", x, chosen, counted)
    assert len(calls) == 4  # the intact network, and three sets
    assert difference(found, sweep(module, "features.relu1", x, chosen, score, method="hooks")) < 1e-12
    np.testing.assert_array_equal(found.values["loss"][[0, 1]], found.values["loss"][[2, 4]])


@dataclass(frozen=True)
class Answer:
    """An output as a frozen dataclass with a field that its constructor does not take."""

    name: str
    value: torch.Tensor
    again: object = field(init=False, default="kept")


class Answering(nn.Module):
    """Gives a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> Answer:
        return Answer("a", self.first(x))


class Reading(nn.Module):
    """Reads the field of a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Answering(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).value)


def test_a_layer_that_gives_a_dataclass() -> None:
    torch.manual_seed(0)
    old = Answer("a", torch.ones(2))
    new = replace_tensor(old, torch.zeros(2))
    assert (new.name, new.again, float(new.value.sum()), float(old.value.sum())) == ("a", "kept", 0, 2)
    module, x = Reading().double(), torch.randn(4, 4, dtype=torch.float64)
    plain = sweep(module, "body", x, candidates(6), score, method="hooks")
    inner = sweep(module, "body.first", x, candidates(6), score, method="hooks")
    found = sweep(module, "body", x, candidates(6), score)
    assert difference(plain, inner) == 0
    assert difference(found, plain) < 1e-12
    assert np.abs(plain.values["loss"][4] - plain.intact["loss"]).max() > 1e-4


def test_hand_computed_case_with_element_zero() -> None:
    """y = relu(x) W: without channel 0 the output loses its column alone."""
    module = nn.Sequential(nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    module[1].weight.data.copy_(torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]]))
    x = torch.tensor([[1.0, 2.0, -3.0], [4.0, 0.0, 5.0]], dtype=torch.float64)
    for method in ("hooks", "replay", "low_rank"):
        found = sweep(
            module, "0", x, [np.array([0]), np.array([2])], lambda logits, _: {"first": logits[:, 0]}, method=method
        )
        assert found.method == method
        np.testing.assert_array_equal(found.intact["first"], [21, 504])
        np.testing.assert_array_equal(found.values["first"], [[20, 500], [21, 4]])


def test_mean_of_each_position() -> None:
    torch.manual_seed(0)
    module, x = small_vgg().double(), images()
    fill = np.random.default_rng(0).random((6, 16, 16))
    options = {"mode": "mean", "fill": fill}
    plain = sweep(module, "features.relu1", x, candidates(6), score, method="hooks", **options)
    fast = sweep(module, "features.relu1", x, candidates(6), score, **options)
    assert fast.method == "low_rank"
    assert difference(fast, plain) < 1e-12


class Judging(nn.Module):
    """Looks at values, which no tracer follows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x if float(x.sum()) > 1e9 else x * 2)


class Shared(nn.Module):
    """Overwrites a value in place that it uses again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = torch.relu_(x)
        return self.second(y) + x


def test_a_network_that_cannot_be_traced_falls_back_to_hooks_and_says_so() -> None:
    torch.manual_seed(0)
    module, x = Judging().double(), torch.randn(4, 4, dtype=torch.float64)
    plain = sweep(module, "first", x, candidates(6), score, method="hooks")
    found = sweep(module, "first", x, candidates(6), score)
    assert found.method == "hooks"
    assert "cannot trace" in found.reason
    assert difference(found, plain) == 0


def test_a_part_that_cannot_be_traced_runs_as_one_step() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Judging()).double()
    x = torch.randn(4, 4, dtype=torch.float64)
    plain = sweep(module, "1", x, candidates(4), score, method="hooks")
    found = sweep(module, "1", x, candidates(4), score)
    assert found.method == "replay", found.reason
    assert difference(found, plain) < 1e-12


def test_values_overwritten_in_place_are_not_shared() -> None:
    torch.manual_seed(0)
    module, x = Shared().double(), torch.randn(4, 4, dtype=torch.float64)
    plain = sweep(module, "first", x, candidates(3), score, method="hooks")
    found = sweep(module, "first", x, candidates(3), score)
    assert found.method == "replay"
    assert "overwrites" in found.reason
    assert difference(found, plain) < 1e-12


def test_a_hook_on_a_later_layer_is_kept() -> None:
    """Sweeps inside another lesion: its hook changes what the low-rank step would assume."""
    torch.manual_seed(0)
    module, x = small_vgg().double(), images()
    handle = module.features.conv3.register_forward_hook(lambda _m, _i, output: output.clamp(max=0.1))
    try:
        plain = sweep(module, "features.relu2", x, candidates(6), score, method="hooks")
        found = sweep(module, "features.relu2", x, candidates(6), score)
    finally:
        handle.remove()
    bare = sweep(module, "features.relu2", x, candidates(6), score)
    assert difference(found, plain) < 1e-12
    assert np.abs(bare.intact["loss"] - plain.intact["loss"]).max() > 1e-6


def test_a_sweep_inside_a_lesion_has_it_and_says_why_it_is_slow() -> None:
    torch.manual_seed(0)
    module, x = small_vgg().double(), images()
    with lesioned(module, UnitSet.of("features.relu3", np.array([1, 4]))):
        found = sweep(module, "features.relu3", x, candidates(8), score)
    assert found.method == "hooks"
    assert "the whole network carries forward hooks" in found.reason
    assert difference(found, sweep(module, "features.relu3", x, candidates(8), score, base=[1, 4])) < 1e-12


def test_hooks_of_the_whole_network_are_kept() -> None:
    """Their calls would be missing from a part of the network."""
    torch.manual_seed(0)
    module, x = small_vgg().double(), images()
    handle = module.register_forward_pre_hook(lambda _m, inputs: (inputs[0].abs(),))
    try:
        found = sweep(module, "features.relu2", x, candidates(6), score)
    finally:
        handle.remove()
    assert found.method == "hooks"
    assert "forward hooks" in found.reason
    assert difference(found, sweep(module, "features.relu2", x.abs(), candidates(6), score)) < 1e-12


def test_the_network_and_the_inputs_are_left_as_they_were() -> None:
    torch.manual_seed(0)
    module, x = varied(ResNet()).double().train(), images()
    module.bn1.eval()
    before, state = x.clone(), {k: v.clone() for k, v in module.state_dict().items()}
    sweep(module, "layer1.0", x, candidates(8), score)

    def stop(logits: torch.Tensor, _images: slice) -> Mapping[str, torch.Tensor]:
        raise RuntimeError("stopped by the score")

    for method in ("hooks", "auto"):
        with pytest.raises(RuntimeError, match="stopped by the score"):
            sweep(module, "layer1.0", x, candidates(8), stop, method=method)
    assert module.training
    assert module.layer1.training
    assert not module.bn1.training
    assert torch.equal(x, before)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(child._forward_hooks for child in module.modules())


def test_data_parallel_wrapper() -> None:
    torch.manual_seed(0)
    module, x = small_vgg().double(), images()
    inner = sweep(module, "features.relu1", x, candidates(6), score)
    wrapped = sweep(nn.DataParallel(module), "module.features.relu1", x, candidates(6), score)
    assert difference(inner, wrapped) == 0
    assert difference(inner, sweep(nn.DataParallel(module), "features.relu1", x, candidates(6), score)) == 0


def test_a_small_budget_gives_the_same_numbers_in_smaller_batches() -> None:
    torch.manual_seed(0)
    module, x, rows = small_vgg().double(), images(9), []

    def watched(logits: torch.Tensor, place: slice) -> Mapping[str, torch.Tensor]:
        rows.append(len(logits))
        return score(logits, place)

    wide = sweep(module, "features.relu1", x, candidates(6), watched)
    assert max(rows) == 9
    rows.clear()
    narrow = sweep(module, "features.relu1", x, candidates(6), watched, memory="600kB")
    assert max(rows) < 9
    assert difference(wide, narrow) < 1e-12


def test_packed_weights_give_the_plain_layer() -> None:
    torch.manual_seed(0)
    module = nn.Linear(300, 400)
    packed = packed_linear(module)
    if packed is None:
        pytest.skip("this torch has no packed dense layers")
    with torch.no_grad():
        rows = torch.randn(70, 300)
        torch.testing.assert_close(packed(rows), module(rows), rtol=1e-5, atol=1e-5)
    assert packed_linear(module.double()) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": [np.array([6])]}, "candidate 0 names channel 6 of layer 'features.relu1'.*0 to 5"),
        ({"candidates": [np.array([-1])]}, "names channel -1"),
        ({"candidates": [np.array([0.5])]}, "integer indices"),
        ({"base": [9]}, "base names channel 9"),
        ({"inputs": images(0)}, "no images"),
        ({"mode": "mean"}, "needs fill="),
        ({"fill": np.zeros(6)}, "mode='zero' does not use it"),
        ({"mode": "mean", "fill": np.zeros(5)}, r"fill has shape \(5,\)"),
        ({"mode": "men"}, "nearest: 'mean'"),
        ({"method": "hook"}, "nearest: 'hooks'"),
        ({"batch": 0}, "batch is 0"),
        ({"score": lambda logits, _: {"loss": logits.mean()}}, "one value per image"),
        ({"score": lambda logits, _: {}}, "no values"),
    ],
)
def test_bad_input_is_refused(options: dict, message: str) -> None:
    torch.manual_seed(0)
    given = {"inputs": images(2), "candidates": [np.array([0])], "score": score} | options
    with pytest.raises(InputError, match=message):
        sweep(small_vgg().double(), "features.relu1", **given)


def test_bad_layers_are_refused() -> None:
    module, x = ResNet().double(), images(2)
    with pytest.raises(LayerError, match=r"no layer 'layer1\.9'.*'layer1\.0'"):
        sweep(module, "layer1.9", x, [np.array([0])], score)
    with pytest.raises(LayerError, match="runs more than once; name its calls"):
        sweep(module, "layer1.0.relu", x, [np.array([0])], score)
    with pytest.raises(LayerError, match="did not run"):
        sweep(module, "layer1.0.relu@7", x, [np.array([0])], score)
