"""The trial on two stimuli: each finding on a network that has the fault, silence on one that has none."""

import numpy as np
import pytest
import torch
from torch import nn

from actkit.errors import LayerError
from actkit.extractors.preflight import preflight
from actkit.extractors.record import extract
from actkit.lesion import lesioned
from actkit.network import Network
from actkit.units import UnitSet

X = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)


def network(*modules, **more):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), *(make() for make in modules))
    return Network(net.eval(), name="net", input_shape=(3, 8, 8), **more)


def found(net, **options):
    return {finding.check: finding for finding in preflight(net, X, **options)}


class Batchy(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand(x.shape)


class Nan(nn.Module):
    def forward(self, x):
        return x / (x * 0)


class Twice(nn.Module):
    def forward(self, x):
        return x, x.mean()


class Outside(nn.Module):
    """Adds what another call left behind: right in the network, something else alone."""

    left = 0.0

    def forward(self, x):
        y = x + self.left
        self.left = float(x.mean()) if self.left == 0 else 0.0
        return y


class Constant(nn.Module):
    def forward(self, x):
        return x.new_ones(x.shape)


def test_a_plain_network_has_no_findings():
    assert found(network()) == {}


def test_train_mode_is_worth_knowing_and_left_alone():
    net = network()
    net.module.train()
    assert found(net)["train_mode"].level == "info"
    assert net.module.training


def test_half_precision_and_mixed_weights():
    net = network()
    net.module.double()
    assert found(net)["dtype"].level == "info"
    assert "are float64" in found(net)["dtype"].message
    mixed = network()
    mixed.module.register_buffer("other", torch.ones(2, dtype=torch.float64))
    assert found(mixed)["dtype"].level == "warning"


def test_weights_without_values():
    net = network()
    net.module.register_buffer("empty", torch.empty(2, device="meta"))
    assert found(net)["device"].level == "fatal"
    with pytest.raises(LayerError, match="on the meta device"):
        extract(net, X, "never.zarr")


def test_random_preprocessing_is_fatal():
    net = network(preprocess=lambda row: torch.from_numpy(row) + torch.rand(1))
    assert found(net)["preprocessing"].level == "fatal"


def test_shared_modules_and_outputs_that_are_not_tensors():
    relu = nn.ReLU()
    net = network(lambda: relu, lambda: relu, Twice)
    net.module.append(nn.Identity())
    found_all = found(net)
    assert found_all["shared_modules"].layers == ("2@0", "2@1")
    assert "'4: first tensor (item 0) of a tuple of 2'" in found_all["output_type"].message


def test_what_depends_on_the_batch_is_a_warning_naming_the_layers():
    finding = found(network(Batchy, nn.ReLU))["batch_dependence"]
    assert finding.level == "warning"
    assert finding.layers == ("2", "3", "output")
    assert "batch=1" in finding.message


def test_random_activations_are_a_warning():
    assert found(network(Noisy))["repeatability"].layers == ("2", "output")


def test_nan_is_fatal_unless_kept():
    assert found(network(Nan))["nan"].level == "fatal"
    assert found(network(Nan), nan="keep")["nan"].level == "warning"
    assert "nan" not in found(network(Nan), layers="1")


def test_state_from_outside_shows_in_replay_or_repetition():
    checks = found(network(Outside))
    assert {"replay", "repeatability", "batch_dependence"} & set(checks)


def test_a_lesion_of_one_call_is_no_state_from_outside():
    class TwoCalls(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.relu(x) + 1)

    net = network(TwoCalls)
    with lesioned(net, UnitSet.of("2.relu@1", [0, 2])) as without:
        whole = found(without)
    assert "2.relu@1" in {layer.name for layer in net.layers()}
    assert "replay" not in whole
    with lesioned(net, UnitSet.of("2.relu@1", [0, 2])) as without:
        without.provenance["lesions"] = []  # of an unknown lesion the trial would warn
        assert found(without)["replay"].layers == ("2.relu@1", "2")


def test_constant_activations():
    assert found(network(Constant))["constant"].level == "info"
    assert found(network(Constant), layers="2")["constant"].level == "warning"


def test_unrecordable_layers_are_mentioned():
    class Table(nn.Module):
        def forward(self, x):
            return torch.ones(3)

    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = Table()

        def forward(self, x):
            return x + self.table(x).sum()

    assert found(network(Uses))["unrecordable"].layers == ("2.table",)


def test_the_most_serious_comes_first():
    net = network(Nan)
    net.module.train()
    assert [finding.level for finding in preflight(net, X)] == ["fatal", "info"]


def test_extract_warns_of_what_is_doubtful(tmp_path):
    with pytest.warns(UserWarning, match="depends on the others in its batch"):
        extract(network(Batchy), X, tmp_path / "a.zarr")


def test_one_stimulus_is_enough():
    assert preflight(network(), X[:1]) == []
