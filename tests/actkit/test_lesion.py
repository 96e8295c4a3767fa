"""Lesions: the right values in the right units of real modules, and a network that is afterwards as it was before."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import actkit
from actkit.errors import InputError, LayerError
from actkit.lesion import lesion_effect, lesioned
from actkit.network import Network
from actkit.stimuli import Stimuli
from actkit.store import store_from_arrays
from actkit.tasks import Task
from actkit.units import UnitSet

MODES = ("zero", "mean", "permute", "scale")


class Residual(nn.Module):
    """Convolution, batch norm, ``out += identity``, and an in-place ReLU that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.skip = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.never = nn.Linear(4, 2)
        self.fc = nn.Linear(4 * 25, 3)

    def forward(self, x, change=None):
        def at(name, value):  # what a lesion should do, written by hand
            return change[name](value) if change and name in change else value

        out = at("relu@0", F.relu(at("conv", self.conv(x)))) if change else self.relu(self.conv(x))
        out = at("bn", self.bn(out))
        if change:
            return self.fc(at("relu@1", F.relu(out + at("skip", self.skip(x)))).flatten(1))
        out += self.skip(x)
        return self.fc(self.drop(self.relu(out)).flatten(1))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@pytest.fixture
def net():
    module = Residual().eval()
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2)
    module.bn.bias.data.normal_()
    return module.double()


@pytest.fixture
def oracle(net):
    """The same network, which no lesion reaches."""
    return copy.deepcopy(net)


@pytest.fixture
def x():
    return torch.rand(6, 3, 5, 5, dtype=torch.float64)


def zeroed(*channels):
    def change(value):
        value = value.clone()
        value[:, list(channels)] = 0
        return value

    return change


def state_of(module):
    """Everything that a lesion might leave behind."""
    hooks = [
        (name, list(child._forward_hooks), list(child._forward_pre_hooks), dict(child._forward_hooks_with_kwargs))
        for name, child in module.named_modules()
    ]
    flags = [child.training for child in module.modules()]
    return hooks, flags, Network(module).fingerprint


# -- where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv", "bn", "skip", "relu@0", "relu@1"])
def test_a_lesion_is_what_the_layer_gives_in_any_place(net, oracle, x, layer):
    # Before and after batch norm, in front of an in-place ReLU, in the branch that is added in place, and in one call
    # of a module that runs twice.
    with torch.no_grad(), lesioned(net, UnitSet.of(layer, [0, 2])) as without:
        got = without(x.clone())
    expected = oracle(x.clone(), {layer: zeroed(0, 2)})
    assert torch.allclose(got, expected, rtol=0, atol=1e-14)
    assert not torch.allclose(got, net(x.clone()))


def test_zero_before_batch_norm_is_not_zero_after_it(net, x):
    with torch.no_grad():
        with lesioned(net, UnitSet.of("relu@0", range(4))):
            before = net(x.clone())
        with lesioned(net, UnitSet.of("bn", range(4))):
            after = net(x.clone())
    assert not torch.allclose(before, after)


def test_single_positions_whole_layers_and_several_sets(net, oracle, x):
    place = UnitSet.of("conv", [1, 1, 3], y=[0, 4, 2], x=[1, 3, 2], shape=(4, 5, 5))

    def change(value):
        value = value.clone()
        value[:, 1, 0, 1] = value[:, 1, 4, 3] = value[:, 3, 2, 2] = 0
        return value

    with torch.no_grad():
        with lesioned(net, [place, UnitSet.of("skip", [3])]):
            got = net(x.clone())
        assert torch.allclose(got, oracle(x.clone(), {"conv": change, "skip": zeroed(3)}), rtol=0, atol=1e-14)
        with lesioned(net, UnitSet.whole("relu@1")):
            assert torch.equal(net(x.clone()), net.fc.bias.expand(6, 3))
        with lesioned(net, UnitSet.of("output", [2])):
            assert torch.equal(net(x.clone()), zeroed(2)(oracle(x.clone())))


def test_element_0_alone_is_lesioned(net, x):
    # msapy ignores element 0 (peers.md, trap 39)
    with torch.no_grad(), lesioned(net, UnitSet.of("output", [0])):
        assert (net(x.clone())[:, 0] == 0).all()
    with torch.no_grad():
        assert (net(x.clone())[:, 0] != 0).all()


def test_captums_hand_computed_ablation():
    # captum tests/attr/layer/test_layer_ablation.py: BasicModel_MultiLayer on [[20, 50, 30], [10, 40, 20]]; linear0 is
    # the identity, linear1 four equal rows of ones, biases -10 and three ones, then ReLU and [[1, 1, 1, 1], [1] * 4].
    linear0, linear1, linear2 = nn.Linear(3, 3, bias=False), nn.Linear(3, 4), nn.Linear(4, 2)
    linear0.weight.data = torch.eye(3)
    linear1.weight.data, linear1.bias.data = torch.ones(4, 3), torch.tensor([-10.0, 1.0, 1.0, 1.0])
    linear2.weight.data, linear2.bias.data = torch.ones(2, 4), torch.tensor([-1.0, 1.0])
    net = nn.Sequential(OrderedDict(linear0=linear0, linear1=linear1, relu=nn.ReLU(), linear2=linear2)).eval()
    batch = torch.tensor([[20.0, 50.0, 30.0], [10.0, 40.0, 20.0]])
    with torch.no_grad():
        whole = net(batch)[:, 0]
        lost = []
        for channel in range(3):
            with lesioned(net, UnitSet.of("linear0", [channel])):
                lost.append((whole - net(batch)[:, 0]).tolist())
    assert np.array(lost).T.tolist() == [[80.0, 200.0, 120.0], [40.0, 160.0, 80.0]]


class Block(nn.Module):
    """A transformer block: attention returns a tuple, channels are the last axis."""

    def __init__(self, dim=8, batch_first=True):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(dim, 12), nn.GELU(), nn.Linear(12, dim))

    def forward(self, x):
        h = self.norm(x)
        attended, _ = self.attention(h, h, h)
        x = x + attended
        return x + self.mlp(x)


@pytest.mark.parametrize("batch_first", [True, False])
def test_token_sequences_have_their_channels_last(batch_first):
    block = Block(batch_first=batch_first).eval()
    kept = {}
    handle = block.mlp.register_forward_hook(lambda _m, _i, out: kept.update(mlp=out))
    tokens = torch.rand(5, 7, 8)
    for units, where in (
        (UnitSet.of("mlp.1", [0, 11], shape=(7, 12)), (..., [0, 11])),
        (UnitSet.of("mlp.1", [3], y=[2]), (slice(None), 2, 3)),
    ):
        with torch.no_grad(), lesioned(block, units):
            block(tokens)
            hidden = F.gelu(block.mlp[0](tokens + block.attention(*[block.norm(tokens)] * 3)[0]))
            hidden[where] = 0
            assert torch.allclose(kept["mlp"], block.mlp[2](hidden), atol=1e-6)
    handle.remove()


def test_a_batch_axis_in_second_place_is_found_by_the_dry_run():
    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x):
            return self.tokens(x.transpose(0, 1) * 1).transpose(0, 1)

    net = Swapped()
    x = torch.rand(4, 6, 3)
    with lesioned(Network(net, input_shape=(6, 3)), UnitSet.of("tokens", [1], y=[5])) as without:
        got = without.module(x)
    expected = x.clone()
    expected[:, 5, 1] = 0
    assert torch.equal(got, expected)


def test_the_first_tensor_of_a_tuple_is_lesioned():
    block = Block().eval()
    tokens = torch.rand(2, 7, 8)
    with torch.no_grad():
        with lesioned(block, UnitSet.whole("attention")):
            got = block(tokens)
        assert torch.allclose(got, tokens + block.mlp(tokens), atol=1e-6)


def test_data_parallel_wrappers_are_seen_through(net, oracle, x):
    wrapped = nn.DataParallel(net)
    plain = oracle(x.clone(), {"bn": zeroed(1)})
    for name in ("bn", "module.bn"):  # as the inner network names it, and as a recording of the wrapper does
        with torch.no_grad(), lesioned(wrapped, UnitSet.of(name, [1])) as without:
            assert without is wrapped
            assert torch.allclose(without(x.clone()), plain, rtol=0, atol=1e-14)

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = net

        def forward(self, x):
            return self.module(x)

    with torch.no_grad(), lesioned(Wrapper(), UnitSet.of("bn", [1])) as without:
        assert torch.allclose(without(x.clone()), plain, rtol=0, atol=1e-14)


def test_views_and_inputs_are_not_written_to(x):
    net = nn.Sequential(OrderedDict(same=nn.Identity(), flat=nn.Flatten(), sum=nn.Identity()))
    before = x.clone()
    with lesioned(net, UnitSet.of("same", [1])):
        out = net(x)
    assert torch.equal(x, before)  # nn.Identity returns its own input
    assert (out[:, 25:50] == 0).all()


def test_gradients_pass_through_a_lesion(net, x):
    x.requires_grad_()
    with lesioned(net, UnitSet.of("conv", [0, 1, 2])):
        net(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0


# -- what takes the place ----------------------------------------------------------------------------


def outputs(net, x, layer):
    kept = {}
    with torch.no_grad():
        handle = dict(net.named_modules())[layer].register_forward_hook(
            lambda _m, _i, out: kept.update(out=out.clone())
        )
        net(x.clone())
        handle.remove()
    return kept["out"]


def test_scale_and_mean(net, oracle, x):
    other = torch.rand(9, 3, 5, 5, dtype=torch.float64)
    reference = outputs(net, other, "bn").numpy()

    def scaled(value):
        value = value.clone()
        value[:, [1, 3]] *= -0.5
        return value

    def filled(value):
        value = value.clone()
        value[:, 1] = reference[:, 1].mean()
        value[:, 3] = reference[:, 3].mean()
        return value

    with torch.no_grad():
        with lesioned(net, UnitSet.of("bn", [1, 3]), "scale", factor=-0.5):
            assert torch.allclose(net(x.clone()), oracle(x.clone(), {"bn": scaled}), rtol=0, atol=1e-14)
        for form in (reference, reference.mean((2, 3))):  # the whole recording, and one reduced to channel means
            with lesioned(net, UnitSet.of("bn", [1, 3]), "mean", reference={"bn": form}):
                assert torch.allclose(net(x.clone()), oracle(x.clone(), {"bn": filled}), rtol=0, atol=1e-13)


def test_the_mean_of_a_single_position_is_its_own(net, oracle, x):
    reference = outputs(net, torch.rand(9, 3, 5, 5, dtype=torch.float64), "skip").numpy()

    def filled(value):
        value = value.clone()
        value[:, 2, 1, 4] = reference[:, 2, 1, 4].mean()
        value[:, 0] = reference[:, 0].mean()
        return value

    units = UnitSet.of("skip", [2], y=[1], x=[4]) | UnitSet.of("skip", [0]) | UnitSet.of("skip", [0], y=[1], x=[1])
    with torch.no_grad(), lesioned(net, units, "mean", reference={"skip": reference}):
        assert torch.allclose(net(x.clone()), oracle(x.clone(), {"skip": filled}), rtol=0, atol=1e-13)


def test_permute_takes_another_stimulus_of_the_reference_for_all_layers(net, x):
    reference = {name: outputs(net, x, name) for name in ("conv", "skip")}
    arrays = {name: values.numpy() for name, values in reference.items()}
    units = UnitSet.of("conv", [0, 2]) | UnitSet.of("skip", [1])
    donors = {}
    for seed in range(12):
        with lesioned(net, units, "permute", reference=arrays, seed=seed):
            kept = {name: outputs(net, x, name) for name in arrays}
        found = [
            [j for j in range(6) if torch.equal(kept["conv"][i, [0, 2]], reference["conv"][j, [0, 2]])]
            for i in range(6)
        ]
        assert all(len(js) == 1 and js[0] != i for i, js in enumerate(found))  # never its own
        for i, (j,) in enumerate(found):
            assert torch.equal(kept["skip"][i, 1], reference["skip"][j, 1])  # the same donor in every layer
            assert torch.equal(kept["conv"][i, 1], reference["conv"][i, 1])  # other units are left
        donors[seed] = tuple(j for (j,) in found)
    assert len(set(donors.values())) > 8  # seed 0 is a seed like any other


def test_permute_is_the_same_in_any_batch_and_order(net, x):
    reference = {"conv": outputs(net, torch.rand(20, 3, 5, 5, dtype=torch.float64), "conv").numpy()}
    with torch.no_grad(), lesioned(net, UnitSet.of("conv", [1]), "permute", reference=reference):
        together = net(x.clone())
        again = net(x.clone())
        alone = torch.cat([net(x[i : i + 1].clone()) for i in range(6)])
        backwards = net(x.flip(0)).flip(0)
    assert torch.equal(together, again)
    assert torch.allclose(together, alone, rtol=0, atol=1e-13)
    assert torch.allclose(together, backwards, rtol=0, atol=1e-13)


def test_a_store_is_a_reference(tmp_path, net, x):
    values = {"conv": outputs(net, x, "conv").numpy(), "relu@0": np.zeros((6, 4, 5, 5))}
    store = store_from_arrays(tmp_path / "acts.zarr", values)
    for mode in ("mean", "permute"):
        with torch.no_grad():
            with lesioned(net, UnitSet.of("conv", [1]), mode, reference=store):
                a = net(x.clone())
            with lesioned(net, UnitSet.of("conv", [1]), mode, reference=values):
                b = net(x.clone())
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("reference", "mode", "message"),
    [
        (None, "mean", "takes its values from a recording, and none is given"),
        (None, "permute", "takes its values from a recording, and none is given"),
        ({"cnv": np.zeros((3, 4, 5, 5))}, "mean", "holds no layer 'conv'; nearest: 'cnv'"),
        ({"conv": np.zeros((3, 1, 5, 5))}, "mean", "channel 1 of 'conv' does not exist"),
        ({"conv": np.full((3, 4, 5, 5), np.nan)}, "mean", "holds NaN"),
        ({"conv": np.zeros((1, 4, 5, 5))}, "permute", "holds 1 stimuli"),
        ({"conv": np.zeros(4)}, "mean", "shape \\(4,\\)"),
    ],
)
def test_references_that_cannot_serve_are_refused_at_once(net, reference, mode, message):
    before = state_of(net)
    with pytest.raises(InputError, match=message), lesioned(net, UnitSet.of("conv", [1]), mode, reference=reference):
        pass
    assert state_of(net) == before


def test_a_reference_of_another_size_is_refused_when_it_is_needed(net, x):
    reference = {"conv": np.zeros((3, 4, 6, 6))}
    with (
        pytest.raises(InputError, match=r"holds layer 'conv' as \(4, 6, 6\) .* its output is \(4, 5, 5\)"),
        lesioned(net, UnitSet.of("conv", [1]), "permute", reference=reference),
    ):
        net(x)


# -- as before ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_everything_is_as_it_was(net, x, mode):
    net.conv.register_forward_hook(lambda *_: None)  # the user's own hook stays
    net.train()
    net.bn.eval()
    weights = copy.deepcopy(net.state_dict())
    before, reference = state_of(net), {"conv": np.random.default_rng(0).random((4, 4, 5, 5))}
    with lesioned(net, UnitSet.of("conv", [0]), mode, reference=reference) as without:
        assert without is net
        assert net.training
        assert not net.bn.training
        assert state_of(net) != before
        net(x.clone())
    assert state_of(net) == before
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_exceptions_leave_nothing_behind(net, x):
    before = state_of(net)
    with torch.no_grad():
        expected = net(x.clone())
    with pytest.raises(KeyError), lesioned(net, UnitSet.of("conv", [0])):
        raise KeyError("x")
    with pytest.raises(RuntimeError), lesioned(net, UnitSet.of("conv", [0])):
        net(torch.rand(1, 7, 5, 5, dtype=torch.float64))
    with pytest.raises(LayerError), lesioned(net, UnitSet.of("conv", [0]) | UnitSet.of("nothing", [0])):
        pass
    assert state_of(net) == before
    with torch.no_grad():
        assert torch.equal(net(x.clone()), expected)


def test_lesions_nest_in_order_and_leave_one_by_one(net, oracle, x):
    def half_then_fill(value):
        value = value.clone()
        value[:, 0] *= 0.5
        value[:, 1] = 0
        return value

    a, b = UnitSet.of("conv", [0, 1]), UnitSet.of("conv", [1])
    with torch.no_grad():
        with lesioned(net, a, "scale", factor=0.5):
            outer = net(x.clone())
            with lesioned(net, b):
                inner = net(x.clone())
            assert torch.equal(net(x.clone()), outer)
        assert torch.allclose(inner, oracle(x.clone(), {"conv": half_then_fill}), rtol=0, atol=1e-14)
        with lesioned(net, UnitSet.of("conv", [0])), lesioned(net, UnitSet.of("skip", [2])):
            assert torch.allclose(
                net(x.clone()), oracle(x.clone(), {"conv": zeroed(0), "skip": zeroed(2)}), rtol=0, atol=1e-14
            )


def test_a_copy_made_meanwhile_is_intact_afterwards(net, x):
    with lesioned(net, UnitSet.of("conv", [0, 1, 2, 3])):
        twin = copy.deepcopy(net)
        inside = net(x.clone())
    assert torch.allclose(twin(x.clone()), net(x.clone()))
    assert not torch.allclose(inside, net(x.clone()))


# -- refusals ----------------------------------------------------------------------------------------


class Pair(nn.Module):
    def forward(self, x):
        return 3, {"n": len(x)}


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (UnitSet.of("cnv", [0]), "no layer 'cnv' in Residual; nearest: 'conv'"),
        (UnitSet.of("conv", [4]), r"channel 4 of 'conv' does not exist: .* \(4, 5, 5\)"),
        (UnitSet.of("conv", [0], y=[5], x=[0]), "channel 0, y 5, x 0 of 'conv' does not exist"),
        (UnitSet.of("conv", [0], shape=(9, 5, 5)), "4 channels here, and the units were chosen among 9"),
        (UnitSet.of("relu", [0]), "'relu' runs 2 times in one forward pass; name the calls to lesion: 'relu@0'"),
        (UnitSet.of("relu@2", [0]), "'relu@2' never ran in the 1 forward passes"),
        (UnitSet.of("never", [0]), "'never' never ran in the 1 forward passes"),
    ],
)
def test_lesions_of_nothing_are_refused(net, x, units, message):
    before = state_of(net)
    with pytest.raises(InputError, match=message), lesioned(net, units):
        net(x)
    assert state_of(net) == before


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (UnitSet.of("conv", [4]), "channel 4 of 'conv' does not exist"),
        (UnitSet.of("relu", [0]), r"'relu' of 'Residual' runs 2 time\(s\); name it by 'relu@0' to 'relu@1'"),
        (UnitSet.of("relu@2", [0]), r"runs 2 time\(s\)"),
        (UnitSet.of("never", [0]), "'never' exists in 'Residual' but never runs"),
    ],
)
def test_a_network_that_can_be_probed_refuses_at_once(net, units, message):
    network = Network(net, input_shape=(3, 5, 5))
    before = state_of(net)
    with pytest.raises(InputError, match=message), lesioned(network, units):
        pytest.fail("the context was entered")
    assert state_of(net) == before


def test_outputs_without_a_real_tensor_are_refused(x):
    net = nn.Sequential(OrderedDict(pair=Pair()))
    with (
        pytest.raises(LayerError, match="'pair' cannot be lesioned: no tensor"),
        lesioned(net, UnitSet.of("pair", [0])),
    ):
        net(x)

    class Index(nn.Module):
        def forward(self, x):
            return x.flatten(1).argmax(1, keepdim=True)

    net = nn.Sequential(OrderedDict(index=Index()))
    with pytest.raises(LayerError, match=r"torch\.int64"), lesioned(net, UnitSet.of("index", [0])):
        net(x)


def test_other_bad_input(net):
    units = UnitSet.of("conv", [0])
    for arguments, message in (
        ((net, units, "zeros"), "no lesion mode 'zeros'; nearest: 'zero'"),
        ((net, [0, 1]), "units hold a int"),
        ((net, []), "no units were given"),
        (("vgg16", units), "a str cannot be lesioned"),
    ):
        with pytest.raises(InputError, match=message), lesioned(*arguments):
            pass
    with pytest.raises(InputError, match="factor=nan"), lesioned(net, units, "scale", factor=float("nan")):
        pass


# -- networks, identity, recordings ------------------------------------------------------------------


def a_network():
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(inplace=True), flat=nn.Flatten()))
    return Network(module.eval(), input_shape=(3, 6, 6), name="small", provenance={"weights": "random"})


def pictures(n=5):
    return Stimuli.from_array(np.random.default_rng(0).random((n, 3, 6, 6), dtype=np.float32))


@pytest.mark.parametrize("mode", MODES)
def test_a_recording_of_a_lesioned_network_says_so(tmp_path, mode):
    network, stimuli = a_network(), pictures()
    units = UnitSet.of("relu", [0, 3], question="the two that respond to faces")
    whole = actkit.extract(network, stimuli, store=tmp_path / "intact.zarr")
    reference = whole if mode in ("mean", "permute") else None
    with lesioned(network, units, mode, reference=reference, factor=2.0) as without:
        assert without.module is network.module
        assert without.name == "small (lesioned)"
        assert without.fingerprint != whole.identity
        cut = actkit.extract(without, stimuli, store=tmp_path / "lesioned.zarr")
        with pytest.raises(actkit.errors.StoreError, match="differs in architecture"):
            actkit.extract(without, stimuli, store=tmp_path / "intact.zarr")  # never the intact network's store
        with pytest.raises(actkit.errors.StoreError, match="differs in architecture"):
            actkit.extract(network, stimuli, store=tmp_path / "intact.zarr")  # nor by its old name
    assert cut.identity != whole.identity
    (lesion,) = cut.attrs["network_source"]["lesions"]
    assert (lesion["mode"], lesion["units"], lesion["question"]) == (mode, {"relu": 2}, "the two that respond to faces")
    assert lesion["units_sha256"] == units.fingerprint
    assert lesion.get("reference") == (whole.identity if reference is not None else None)
    a, b = (store["relu"].values for store in (whole, cut))
    assert np.array_equal(a[:, [1, 2]], b[:, [1, 2]])
    expected = {
        "zero": np.zeros_like(a[:, [0, 3]]),
        "scale": 2 * a[:, [0, 3]],
        "mean": np.broadcast_to(a[:, [0, 3]].mean((0, 2, 3), keepdims=True), a[:, [0, 3]].shape),
    }
    if mode in expected:
        assert np.allclose(b[:, [0, 3]], expected[mode], rtol=1e-6)
    else:
        assert all(any(np.array_equal(b[i, 0], a[j, 0]) for j in range(5) if j != i) for i in range(5))
    again = actkit.extract(network, stimuli, store=tmp_path / "intact.zarr")  # the intact network is itself again
    assert again.identity == whole.identity
    assert (without.name, without.provenance) == ("small", {"weights": "random"})


def test_identities_follow_units_mode_and_nesting():
    network = a_network()
    reference = {"conv": np.random.default_rng(0).random((4, 4, 4, 4))}
    seen = {network.fingerprint}
    for units, mode, more in (
        (UnitSet.of("conv", [0]), "zero", {}),
        (UnitSet.of("conv", [1]), "zero", {}),
        (UnitSet.of("relu", [0]), "zero", {}),
        (UnitSet.of("conv", [0]), "scale", {"factor": 0.5}),
        (UnitSet.of("conv", [0]), "scale", {"factor": 2.0}),
        (UnitSet.of("conv", [0]), "mean", {"reference": reference}),
        (UnitSet.of("conv", [0]), "mean", {"reference": {"conv": 2 * reference["conv"]}}),
        (UnitSet.of("conv", [0]), "permute", {"reference": reference, "seed": 0}),
        (UnitSet.of("conv", [0]), "permute", {"reference": reference, "seed": 1}),
    ):
        with lesioned(network, units, mode, **more) as without:
            assert without.fingerprint == network.fingerprint
            seen.add(without.fingerprint)
            with lesioned(without, UnitSet.of("relu", [2])) as twice:
                seen.add(twice.fingerprint)
                assert len(twice.provenance["lesions"]) == 2
    assert len(seen) == 1 + 9 * 2
    with lesioned(network, UnitSet.of("conv", [1, 0])) as a:
        first = a.fingerprint
    with lesioned(network, UnitSet.of("conv", [0, 1], question="why")) as a:
        assert a.fingerprint == first  # the same lesion, whatever it was made for


def test_early_layers_of_a_network_lesioned_later_can_be_recorded(tmp_path):
    network, stimuli = a_network(), pictures()
    with lesioned(network, UnitSet.of("flat", [0])) as without:
        store = actkit.extract(without, stimuli, store=tmp_path / "a.zarr", layers="conv")  # stops before the lesion
    assert store.complete


# -- effects -----------------------------------------------------------------------------------------


def test_effects_equal_a_plain_loop(net, oracle, x):
    targets = np.array([0, 1, 2, 0, 1, 1])
    tasks = [Task("all", x, targets), Task("pair", x, np.array([0, 1, 0, 1, 1, 0]), np.array([0, 1]))]
    net.train()
    units = UnitSet.of("relu@1", [0, 1])
    result = lesion_effect(net, units, tasks, batch=4)
    assert net.training
    assert result.sizes == {"task": 2, "columns": 2}
    net.eval()
    with torch.no_grad():
        logits = {"intact": net(x.clone()), "lesioned": oracle(x.clone(), {"relu@1": zeroed(0, 1)})}
    for task in tasks:
        for columns, kept in (("all", [0, 1, 2]), ("own", [0, 1] if task.name == "pair" else [0, 1, 2])):
            found = result.sel(task=task.name, columns=columns)
            rows = {
                state: F.cross_entropy(values[:, kept], torch.from_numpy(task.targets), reduction="none").numpy()
                for state, values in logits.items()
            }
            right = {state: v[:, kept].argmax(1).numpy() == task.targets for state, v in logits.items()}
            for state in rows:
                assert abs(found[f"{state}_loss"].item() - rows[state].mean()) < 1e-12
                assert abs(found[f"{state}_accuracy"].item() - right[state].mean()) < 1e-12
            change = rows["lesioned"] - rows["intact"]
            assert abs(found.loss_increase.item() - change.mean()) < 1e-12
            assert abs(found.loss_increase_se.item() - change.std(ddof=1) / 6**0.5) < 1e-12
            drop = right["intact"].mean() - right["lesioned"].mean()
            room = right["intact"].mean() - found.chance.item()
            expected = drop / room if room > 0 else np.nan
            assert np.isclose(found.proportional_drop.item(), expected, equal_nan=True)
    assert result.attrs["analysis"] == "lesion_effect"
    assert units.fingerprint in result.attrs["inputs"]


def test_an_effect_of_no_units_is_0_and_names_must_differ(net, x, tmp_path):
    task = Task("a", x, np.array([0, 1, 2, 0, 1, 1]))
    result = lesion_effect(net, UnitSet.of("conv", []), task)
    assert float(abs(result.loss_increase).max()) == 0
    assert actkit.load(actkit.save(result, tmp_path / "effect.nc")).identical(result)
    with pytest.raises(InputError, match="each with a name of its own"):
        lesion_effect(net, UnitSet.of("conv", [0]), [task, task])
