"""Own architectures with weights from files, and nothing unpickled."""

import json
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

from actkit import open_network
from actkit.errors import InputError
from actkit.extractors.weights import file_sha256

PREPROCESSING = {"resize": 32, "crop": 28, "mean": [0.5], "std": [0.25]}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module of one's own that can be imported."""
    (tmp_path / "my_nets.py").write_text(
        textwrap.dedent("""
        import torch

        class Small(torch.nn.Module):
            def __init__(self, n_classes=4):
                super().__init__()
                self.conv = torch.nn.Conv2d(3, 6, 3)
                self.head = torch.nn.Linear(6, n_classes)

            def forward(self, x):
                return self.head(self.conv(x).relu().mean((2, 3)))

        class Zoo:
            @staticmethod
            def small():
                return Small(2)

        def not_a_module():
            return 3
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    import my_nets

    yield my_nets
    sys.modules.pop("my_nets", None)


def test_safetensors_and_state_dicts(package, tmp_path):
    state = package.Small(7).state_dict()
    save_file(state, tmp_path / "trained.safetensors")
    torch.save({"state_dict": {"module." + n: v for n, v in state.items()}, "epoch": 9}, tmp_path / "trained.pt")
    common = {"architecture": "my_nets:Small", "arguments": {"n_classes": 7}, "preprocessing": PREPROCESSING}
    one = open_network("checkpoint", file=str(tmp_path / "trained.safetensors"), **common)
    two = open_network("checkpoint", file=str(tmp_path / "trained.pt"), **common)
    assert one.weights_sha256 == two.weights_sha256
    assert all(torch.equal(value, state[name]) for name, value in one.module.state_dict().items())
    assert one.name == "trained"
    assert one.input_shape == (3, 28, 28)
    assert not one.module.training
    said = json.loads(json.dumps(one.provenance))
    assert said["weights_file_sha256"] == file_sha256(tmp_path / "trained.safetensors")
    assert said["architecture"] == "my_nets:Small"
    assert said["weights_missing"] == []
    assert said["preprocessing"]["crop"] == 28


def test_attributes_of_a_module(package, tmp_path):
    save_file(package.Small(2).state_dict(), tmp_path / "w.safetensors")
    network = open_network(
        "checkpoint",
        architecture="my_nets:Zoo.small",
        file=str(tmp_path / "w.safetensors"),
        preprocessing=PREPROCESSING,
    )
    assert network.module.head.out_features == 2


def test_a_malicious_checkpoint_is_not_run(package, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    torch.save({"state_dict": package.Small().state_dict(), "note": Bomb()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt.*refused"):
        open_network(
            "checkpoint", architecture="my_nets:Small", file=str(tmp_path / "bad.pt"), preprocessing=PREPROCESSING
        )
    assert not (tmp_path / "boom").exists()


def test_partial_weights_are_drawn_from_the_seed_and_said(package, tmp_path):
    state = package.Small().state_dict()
    save_file({name: value for name, value in state.items() if "head" not in name}, tmp_path / "part.safetensors")
    settings = {
        "architecture": "my_nets:Small",
        "file": str(tmp_path / "part.safetensors"),
        "preprocessing": PREPROCESSING,
    }
    with pytest.raises(InputError, match=r"missing from the file: 'head.weight', 'head.bias'.*strict=False"):
        open_network("checkpoint", **settings)
    opened = [open_network("checkpoint", strict=False, seed=seed, **settings) for seed in (0, 0, 1)]
    assert opened[0].weights_sha256 == opened[1].weights_sha256 != opened[2].weights_sha256
    assert opened[2].provenance["weights_missing"] == ["head.weight", "head.bias"]
    assert opened[2].provenance["missing_drawn_from_seed"] == 1


def test_preprocessing_is_never_guessed(package, tmp_path):
    save_file(package.Small().state_dict(), tmp_path / "w.safetensors")
    settings = {"architecture": "my_nets:Small", "file": str(tmp_path / "w.safetensors")}
    with pytest.raises(InputError, match="preprocessing of 'my_nets:Small' is not known"):
        open_network("checkpoint", **settings)
    with pytest.raises(InputError, match=r"'preprocessing'.*unknown option 'resise'; nearest: 'resize'"):
        open_network("checkpoint", preprocessing={"resise": 3}, **settings)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("resnet18", "names no callable"),
        ("no_such_package:Net", "cannot be imported"),
        ("my_nets:Smal", "nearest: 'Small'"),
        ("my_nets:not_a_module", "returned a int, not a torch.nn.Module"),
    ],
)
def test_architectures_that_cannot_be_built(package, tmp_path, architecture, words):
    save_file(package.Small().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=words):
        open_network("checkpoint", architecture=architecture, file=str(tmp_path / "w.safetensors"))


def test_torchvision_architecture(torchvision, tmp_path, pictures):
    model = torchvision.models.squeezenet1_1(weights=None, num_classes=5)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    file = str(tmp_path / "mine.safetensors")
    network = open_network(
        "checkpoint", architecture="torchvision:squeezenet1_1", file=file, arguments={"num_classes": 5}
    )
    assert network.input_shape == (3, 224, 224)
    assert torch.equal(network.module.classifier[1].weight, model.classifier[1].weight)
    theirs = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    assert torch.allclose(network.prepare(pictures[0]), theirs(pictures[0]), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"\(5, 512, 1, 1\), needed \(1000, 512, 1, 1\)"):
        open_network("checkpoint", architecture="torchvision:squeezenet1_1", file=file)
    with pytest.raises(InputError, match="nearest: 'squeezenet1_1'"):
        open_network("checkpoint", architecture="torchvision:squeezenet11", file=file)


def test_timm_architecture(torchvision, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = timm.create_model("mobilenetv3_small_050", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    network = open_network(
        "checkpoint",
        architecture="timm:mobilenetv3_small_050",
        file=str(tmp_path / "mine.pt"),
        arguments={"num_classes": 3},
        preprocessing={"resize": [64, 64], "resize_mode": "squash"},
    )
    assert network.input_shape == (3, 64, 64)
    assert torch.equal(network.module.classifier.weight, model.classifier.weight)
