"""Layers: order, names, selection, and captures that nothing that follows can overwrite (trap 31)."""

import dataclasses
import gc
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from actkit.errors import LayerError
from actkit.layers import (
    capture,
    check_replay,
    evaluating,
    first_tensor,
    list_layers,
    pattern_regex,
    select_layers,
    split_name,
)


class OneReLU(nn.Module):
    """Eight convolutions, one in-place ReLU called after each of them."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(8))

    def forward(self, x):
        for conv in self.convs:
            x = self.relu(conv(x))
        return x


class Residual(nn.Module):
    """Batch norm, then ``out += identity`` and a functional in-place ReLU."""

    def __init__(self):
        super().__init__()
        self.late = nn.Linear(4, 2)  # registered first, runs last
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.skip = nn.Conv2d(3, 4, 1)
        self.never = nn.Linear(4, 2)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += self.skip(x)
        out = F.relu_(out)
        return self.late(out.mean((2, 3)))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def recorded(module, names, batch, stop=True):
    kept = {}
    with capture(module, names, lambda name, tensor: kept.update({name: tensor.clone()}), stop) as forward:
        forward(batch)
    return kept


def names_of(module, *shape):
    return [layer.name for layer in list_layers(module, torch.rand(3, *shape))]


# -- listing -----------------------------------------------------------------------------------------


def test_execution_order_not_registration_order():
    assert names_of(Residual(), 3, 8, 8) == ["conv", "bn", "skip", "late", "output"]


def test_every_call_of_a_shared_module_has_a_name():
    layers = list_layers(OneReLU(), torch.rand(3, 3, 8, 8))
    assert [x.name for x in layers][:4] == ["convs.0", "relu@0", "convs.1", "relu@1"]
    calls = [x for x in layers if x.module == "relu"]
    assert [x.call for x in calls] == list(range(8))
    assert {x.calls for x in calls} == {8}
    assert next(x for x in layers if x.name == "convs.3").call is None


def test_shape_type_and_own_parameters():
    layers = {x.name: x for x in list_layers(Residual(), torch.rand(3, 3, 8, 8))}
    assert layers["conv"].shape == (4, 8, 8)
    assert layers["conv"].parameters == 4 * 3 * 9 + 4
    assert layers["output"].parameters == 0
    assert layers["bn"].bases[0] == "BatchNorm2d"
    assert layers["late"].shape == (2,)


def test_a_child_called_output_does_not_hide_the_network():
    net = nn.Sequential(OrderedDict(first=nn.Linear(4, 3), output=nn.Linear(3, 2)))
    assert names_of(net, 4) == ["first", "output", "__output__"]


class Kinds(nn.Module):
    """A stage for each kind of output."""

    class Pair(nn.Module):
        def forward(self, x):
            return None, (x * 2, x)

    class Dict(nn.Module):
        def forward(self, x):
            return OrderedDict(loss=0.5, hidden=x + 1, other=x)

    @dataclasses.dataclass
    class Result:
        n: int
        state: torch.Tensor

    class Data(nn.Module):
        def forward(self, x):
            return Kinds.Result(3, x - 1)

    class Index(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    class Mask(nn.Module):
        def forward(self, x):
            return x > 0

    class Brain(nn.Module):
        def forward(self, x):
            return x.to(torch.bfloat16)

    class Text(nn.Module):
        def forward(self, x):
            return "no tensor"

    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(5)

    class Similarity(nn.Module):
        def forward(self, x):
            return x @ x.T

    def __init__(self):
        super().__init__()
        for name in ("Pair", "Dict", "Data", "Index", "Mask", "Brain", "Text", "Constant", "Similarity"):
            self.add_module(name.lower(), getattr(Kinds, name)())

    def forward(self, x):
        for child in self.children():
            child(x)
        return x


def test_which_tensor_of_an_output_is_recorded_is_said():
    layers = {x.name: x for x in list_layers(Kinds(), torch.rand(3, 6))}
    assert layers["pair"].output_note == "first tensor (item 1) of a tuple of 2"
    assert layers["dict"].output_note == "first tensor (item 'hidden') of a OrderedDict of 3"
    assert layers["data"].output_note == "first tensor (item 'state') of a Result of 2"
    assert (layers["index"].shape, layers["index"].output_note) == ((), "int64 recorded as float32")
    assert layers["mask"].output_note == "bool recorded as float32"
    assert layers["brain"].output_note == "bfloat16 recorded as float32"
    assert layers["output"].output_note == ""


def test_what_cannot_be_recorded_says_why():
    layers = {x.name: x for x in list_layers(Kinds(), torch.rand(3, 6))}
    assert "no tensor in a str" in layers["text"].problem
    assert "no batch axis" in layers["constant"].problem
    assert "several axes" in layers["similarity"].problem


def test_first_tensor_values():
    x = torch.rand(2, 3)
    assert torch.equal(first_tensor([None, {"a": (x,)}])[0], x)
    assert first_tensor([])[0] is None


class Axes(nn.Module):
    """Batch axis second (as in OpenCLIP's transformer), and rows folded into the batch axis."""

    class Folded(nn.Module):
        def forward(self, x):
            return x.reshape(-1, 5)

    class Interleaved(nn.Module):
        def forward(self, x):
            return x.transpose(0, 1).reshape(-1, 5)

    class ChannelsLast(nn.Module):
        def forward(self, x):
            return x[:, :4].reshape(len(x), 2, 2, 5)

    def __init__(self):
        super().__init__()
        self.tokens, self.norm = nn.Identity(), nn.LayerNorm(5)
        self.folded, self.interleaved, self.last = Axes.Folded(), Axes.Interleaved(), Axes.ChannelsLast()

    def forward(self, x):
        self.folded(x)
        self.interleaved(x)
        self.last(x)
        return self.norm(self.tokens(x.permute(1, 0, 2))).permute(1, 0, 2)


def test_batch_axis_is_found_and_moved_to_the_front():
    net, batch = Axes().eval(), torch.rand(3, 7, 5)
    layers = {x.name: x for x in list_layers(net, batch)}
    assert (layers["tokens"].batch_axis, layers["tokens"].shape) == (1, (7, 5))
    assert layers["tokens"].output_note == "batch axis 1 moved to the front"
    assert torch.equal(layers["tokens"].arrange(recorded(net, ["tokens"], batch)["tokens"]), batch)
    assert layers["output"].batch_axis == 0


def test_rows_of_one_stimulus_on_the_batch_axis():
    net, batch = Axes().eval(), torch.rand(3, 7, 5)
    layers = {x.name: x for x in list_layers(net, batch)}
    assert (layers["folded"].shape, layers["folded"].fold) == ((7, 5), 7)
    assert torch.equal(layers["folded"].arrange(recorded(net, ["folded"], batch)["folded"]), batch)
    assert "do not stand together" in layers["interleaved"].problem


def test_channels_at_the_end_come_to_the_front():
    net, batch = Axes().eval(), torch.rand(3, 7, 5)
    layer = next(x for x in list_layers(net, batch) if x.name == "last")
    assert layer.shape == (5, 2, 2)
    moved = layer.arrange(recorded(net, ["last"], batch)["last"])
    assert torch.equal(moved, batch[:, :4].reshape(3, 2, 2, 5).permute(0, 3, 1, 2))


def test_a_network_that_runs_other_modules_for_other_batches():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.a(x) if len(x) == 2 else self.b(x)

    with pytest.raises(LayerError, match="other modules for two stimuli than for three"):
        list_layers(Odd(), torch.rand(3, 2))


# -- selecting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*blocks.*", "_blocks.3", True),
        ("*blocks.*", "_blocks.3._bn1", False),
        ("**", "_blocks.3._bn1", True),
        ("*blocks.**", "_blocks.3._bn1", True),
        ("conv?", "conv1", True),
        ("conv?", "conv10", False),
        ("layer[12].*", "layer2.0", True),
        ("layer[!12].*", "layer2.0", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern, name, matches):
    assert bool(pattern_regex(pattern).fullmatch(name)) is matches


def test_split_name_respects_paths():
    assert split_name("relu@2") == ("relu", 2)
    assert split_name("odd@2", ["odd@2"]) == ("odd@2", None)


@pytest.fixture
def shared():
    net = OneReLU()
    return net, list_layers(net, torch.rand(3, 3, 8, 8))


def test_selection_is_in_execution_order_whatever_was_asked_first(shared):
    net, layers = shared
    assert select_layers(layers, ["convs.2", "relu@0", "convs.0"], module=net) == ["convs.0", "relu@0", "convs.2"]


def test_a_path_selects_all_its_calls(shared):
    net, layers = shared
    assert select_layers(layers, "relu", module=net) == [f"relu@{i}" for i in range(8)]
    assert select_layers(layers, "rel*", module=net) == [f"relu@{i}" for i in range(8)]
    assert select_layers(layers, "relu@3", module=net) == ["relu@3"]


def test_types_take_sub_classes_and_meet_patterns(shared):
    net, layers = shared

    class MyConv(nn.Conv2d):
        pass

    assert select_layers(layers, "**", "Conv2d", net) == [f"convs.{i}" for i in range(8)]
    assert select_layers(layers, "convs.[01]", ["Conv2d"], net) == ["convs.0", "convs.1"]
    mine = nn.Sequential(MyConv(3, 2, 1))
    assert select_layers(list_layers(mine, torch.rand(3, 3, 4, 4)), "**", ["Conv2d"], mine) == ["0"]
    with pytest.raises(LayerError, match="matches both the patterns"):
        select_layers(layers, "relu", "Conv2d", net)
    with pytest.raises(LayerError, match=r"no module of type 'Conv3d' runs in OneReLU; nearest: 'Conv2d'"):
        select_layers(layers, "**", "Conv3d", net)


def test_a_mistyped_name_gets_the_nearest(shared):
    net, layers = shared
    with pytest.raises(LayerError, match=r"no layer 'convs.9' in OneReLU; nearest: 'convs\.\d'"):
        select_layers(layers, "convs.9", module=net)
    with pytest.raises(LayerError, match=r"matches no layer of OneReLU"):
        select_layers(layers, "blocks.*", module=net)
    with pytest.raises(LayerError, match=r"runs 8 time\(s\); use 'relu@0' to 'relu@7'"):
        select_layers(layers, "relu@8", module=net)
    with pytest.raises(LayerError, match="no layers are asked for"):
        select_layers(layers, [], module=net)


def test_a_layer_that_never_runs_is_told_from_a_mistyped_one():
    net = Residual()
    layers = list_layers(net, torch.rand(3, 3, 8, 8))
    with pytest.raises(LayerError, match=r"layer 'never' exists in Residual but never runs"):
        select_layers(layers, "never", module=net)
    with pytest.raises(LayerError, match=r"matches only modules of Residual that never run \('never'\)"):
        select_layers(layers, "nev*", module=net)


def test_unrecordable_layers_are_left_out_of_patterns_and_refused_by_name():
    net = Kinds()
    layers = list_layers(net, torch.rand(3, 6))
    assert not {"text", "constant", "similarity"} & set(select_layers(layers, "**", module=net))
    with pytest.raises(LayerError, match=r"'constant' of Kinds cannot be recorded: .*no batch axis"):
        select_layers(layers, "constant", module=net)


def test_a_module_registered_twice_answers_to_both_paths():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a

        def forward(self, x):
            return self.b(x)

    net = Twice()
    layers = list_layers(net, torch.rand(3, 3))
    assert select_layers(layers, "b", module=net) == ["a"]


# -- capturing: trap 31 ------------------------------------------------------------------------------


def test_conv_followed_by_in_place_relu():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    x = torch.randn(2, 3, 8, 8)
    expected = F.conv2d(x, net[0].weight, net[0].bias).detach()
    got = recorded(net, ["0", "1"], x)
    assert float(expected.min()) < 0
    assert torch.equal(got["0"], expected)
    assert torch.equal(got["1"], expected.clamp(min=0))


def test_a_reference_instead_of_a_copy_would_be_wrong():
    """The test above can fail: keeping the tensor, as peers did, gives the rectified values."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    kept = {}
    with capture(net, ["0", "1"], lambda name, tensor: kept.update({name: tensor})) as forward:
        forward(torch.randn(2, 3, 8, 8))
    assert float(kept["0"].min()) == 0


def test_out_plus_equals_identity_and_functional_relu():
    net = Residual().eval()
    net.bn.running_mean.uniform_(-1, 1)
    x = torch.randn(2, 3, 8, 8)
    got = recorded(net, ["conv", "bn", "skip", "output"], x)
    conv = F.conv2d(x, net.conv.weight, net.conv.bias, padding=1)
    normed = F.batch_norm(conv, net.bn.running_mean, net.bn.running_var, net.bn.weight, net.bn.bias)
    skip = F.conv2d(x, net.skip.weight, net.skip.bias)
    assert torch.allclose(got["conv"], conv, atol=1e-6)
    assert torch.allclose(got["bn"], normed, atol=1e-6)
    assert torch.allclose(got["skip"], skip, atol=1e-6)
    final = F.linear(F.relu(normed + skip).mean((2, 3)), net.late.weight, net.late.bias)
    assert torch.allclose(got["output"], final, atol=1e-6)


def test_an_in_place_first_layer_leaves_the_callers_batch_alone():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(5, 4)
    before = x.clone()
    got = recorded(net, ["0"], x)
    assert torch.equal(x, before)
    assert torch.equal(got["0"], before.clamp(min=0))
    list_layers(net, x)
    check_replay(net, x, ["0", "1"])
    assert torch.equal(x, before)


def test_one_relu_called_eight_times():
    net = OneReLU()
    x = torch.randn(2, 3, 8, 8)
    got = recorded(net, [f"relu@{i}" for i in range(8)] + [f"convs.{i}" for i in range(8)], x)
    for i, conv in enumerate(net.convs):
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        assert torch.equal(got[f"convs.{i}"], x), i
        x = F.relu(x)
        assert torch.equal(got[f"relu@{i}"], x), i


@pytest.mark.parametrize("net", [OneReLU(), Residual()], ids=["shared", "residual"])
def test_replay_agrees_where_capture_is_right(net):
    x = torch.randn(2, 3, 8, 8)
    names = names_of(net, 3, 8, 8)
    differences = check_replay(net, x, names)
    assert set(differences) == set(names)
    assert max(differences.values()) < 1e-5


def test_replay_finds_a_module_that_keeps_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 0

        def forward(self, x):
            self.n += 1
            return x * self.n

    net = nn.Sequential(nn.Linear(3, 3), Counter())
    differences = check_replay(net, torch.randn(2, 3), ["0", "1"])
    assert differences["0"] < 1e-6 < 0.1 < differences["1"]


# -- capturing: leaving no trace ---------------------------------------------------------------------


class Guarded(nn.Module):
    """Catches exceptions around a step, as some networks do, and counts what still ran."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.ran = nn.Linear(3, 3), nn.Linear(3, 3), 0

    def forward(self, x):
        try:
            x = self.a(x)
        except Exception:
            x = -x
        self.ran += 1
        return self.b(x)


def hook_count(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_the_pass_ends_after_the_last_layer_and_except_exception_cannot_hold_it():
    net = Guarded()
    recorded(net, ["a"], torch.rand(2, 3))
    assert net.ran == 0
    recorded(net, ["a"], torch.rand(2, 3), stop=False)
    assert net.ran == 1


def test_an_unstopped_pass_returns_the_output():
    net = nn.Linear(3, 2)
    x = torch.rand(4, 3)
    with capture(net, ["output"], lambda name, tensor: None, stop=False) as forward:
        assert torch.equal(forward(x), F.linear(x, net.weight, net.bias))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, RuntimeError])
def test_training_flags_hooks_and_grad_mode_come_back_whatever_happens(error):
    net = Residual()
    net.train()
    net.bn.eval()  # a frozen batch norm inside a network in train mode

    def fail(name, tensor):
        assert not net.training
        assert not net.conv.training
        assert torch.is_inference_mode_enabled()
        raise error("in the middle")

    with pytest.raises(error, match="in the middle"), capture(net, ["bn"], fail) as forward:
        forward(torch.rand(2, 3, 8, 8))
    assert net.training
    assert net.conv.training
    assert not net.bn.training
    assert hook_count(net) == 0
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_evaluation_mode_is_not_forced_on_what_is_in_it():
    class Merging(nn.Linear):
        """Counts changes of mode, as modules do that merge weights then."""

        changes = 0

        def train(self, mode=True):
            self.changes += 1
            return super().train(mode)

    net = Merging(2, 2)
    nn.Module.train(net, False)
    with evaluating(net):
        pass
    assert net.changes == 0


def test_batch_norm_statistics_are_not_touched():
    net = Residual().train()
    before = net.bn.running_mean.clone()
    recorded(net, ["output"], torch.rand(4, 3, 8, 8))
    assert torch.equal(net.bn.running_mean, before)
    assert int(net.bn.num_batches_tracked) == 0


def test_the_users_own_hooks_stay_and_are_seen():
    """A lesion is a hook set before: what it leaves is what is recorded."""
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    handle = net[0].register_forward_hook(lambda module, args, output: output * 0)
    got = recorded(net, ["0"], torch.rand(2, 3))
    assert not got["0"].any()
    assert hook_count(net) == 1
    handle.remove()


def test_many_batches_leave_nothing_behind():
    net = OneReLU()
    x = torch.rand(2, 3, 8, 8)
    tensors = []
    for _ in range(3):
        for _ in range(15):
            recorded(net, ["relu@7"], x)
        gc.collect()
        tensors.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
    assert tensors[0] == tensors[1] == tensors[2]
    assert hook_count(net) == 0


def test_a_plain_name_of_a_module_that_runs_twice_is_refused():
    net = OneReLU()
    with pytest.raises(LayerError, match="runs more than once; name its calls"):
        recorded(net, ["relu", "convs.7"], torch.rand(2, 3, 8, 8))


def test_a_layer_that_does_not_run_this_time():
    net = Residual()
    with pytest.raises(LayerError, match=r"layer 'never' did not run in this forward pass \(1 of 2"):
        recorded(net, ["conv", "never"], torch.rand(2, 3, 8, 8))
    with pytest.raises(LayerError, match="no layer 'cony'"):
        recorded(net, ["cony"], torch.rand(2, 3, 8, 8))
    assert hook_count(net) == 0
