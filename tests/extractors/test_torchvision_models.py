"""torchvision models by name, with the preprocessing that belongs to their weights."""

import warnings

import numpy as np
import pytest
import torch

from actkit import open_network
from actkit.errors import InputError
from actkit.extractors.torchvision_models import builder_arguments, preprocessing_of
from actkit.preprocessing import Preprocessing, from_transforms


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        ("resnet18", "IMAGENET1K_V1"),  # bilinear, 256 -> 224
        ("resnet50", "IMAGENET1K_V2"),  # 232 -> 224
        ("efficientnet_b1", "IMAGENET1K_V1"),  # bicubic, 256 -> 240
        ("inception_v3", "IMAGENET1K_V1"),  # 342 -> 299
        ("vit_h_14", "IMAGENET1K_SWAG_E2E_V1"),  # 518 -> 518
    ],
)
def test_preprocessing_equals_the_weights_transforms(torchvision, pictures, model, entry):
    weights = torchvision.models.get_model_weights(model)[entry]
    ours = preprocessing_of(weights)
    assert isinstance(ours, Preprocessing)
    theirs = weights.transforms()
    for picture in pictures:
        assert torch.allclose(ours(picture), theirs(picture), rtol=0, atol=1e-6)


def test_random_weights(torchvision):
    network = open_network("torchvision", model="squeezenet1_1", seed=2)
    again = open_network("torchvision", model="squeezenet1_1", seed=2)
    other = open_network("torchvision", model="squeezenet1_1", seed=3)
    assert network.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert network.name == "squeezenet1_1-random2"
    assert network.input_shape == (3, 224, 224)
    assert network.provenance["weights"] == "random initialisation, seed 2"
    assert network.provenance["preprocessing_of"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert network.select("features.*")[:2] == ["features.0", "features.1"]


def test_input_size_follows_the_weights_entry(torchvision):
    network = open_network("torchvision", model="efficientnet_b1")
    assert network.input_shape == (3, 240, 240)


def test_trained_weights_come_without_unpickling(torchvision, tmp_path, monkeypatch):
    """What the download would leave in torch's cache, put there by hand."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    source = torchvision.models.squeezenet1_1(weights=None)
    file = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(source.state_dict(), file)
    network = open_network("torchvision", model="squeezenet1_1", weights="DEFAULT")
    assert network.name == "squeezenet1_1"
    assert network.provenance["weights"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.module.state_dict().items())

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    torch.save({"features.0.weight": Bomb()}, file)
    with pytest.raises(InputError, match="cannot be loaded"):
        open_network("torchvision", model="squeezenet1_1", weights="DEFAULT")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("model", ["resnet18", "inception_v3", "googlenet", "vit_b_16"])
def test_architecture_is_what_the_builder_makes_for_its_weights(torchvision, monkeypatch, model):
    models = torchvision.models
    entry = models.get_model_weights(model).DEFAULT
    if model == "vit_b_16":
        entry = models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1  # images of 384 pixels
    monkeypatch.setattr(type(entry), "get_state_dict", lambda self, *a, **k: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, *a, **k: None)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GoogLeNet's side heads are not trained
        theirs = models.get_model(model, weights=entry, **({"aux_logits": True} if model == "googlenet" else {}))
        ours = models.get_model(model, weights=None, **builder_arguments(model, entry))
    assert str(ours) == str(theirs)
    assert getattr(ours, "transform_input", None) == getattr(theirs, "transform_input", None)
    assert getattr(ours, "image_size", None) == getattr(theirs, "image_size", None)


def test_unknown_names_are_answered(torchvision):
    with pytest.raises(InputError, match=r"nearest: .*'resnet18'"):
        open_network("torchvision", model="resnet81")
    with pytest.raises(InputError, match="no classification model 'fasterrcnn_resnet50_fpn'"):
        open_network("torchvision", model="fasterrcnn_resnet50_fpn")
    with pytest.raises(InputError, match="no weights entry 'IMAGENET1K_V7'; nearest: 'IMAGENET1K_V1'"):
        open_network("torchvision", model="resnet18", weights="IMAGENET1K_V7")


def test_compositions_are_written_down(torchvision, pictures):
    transforms = torchvision.transforms
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [
        [transforms.Resize(200), transforms.CenterCrop(180), transforms.ToTensor(), normalise],
        [transforms.Resize((90, 130), interpolation=bicubic), transforms.ToTensor()],
        [transforms.CenterCrop((301, 200)), transforms.ToTensor(), normalise],
        [transforms.ToTensor()],
    ]
    for chosen in steps:
        theirs = transforms.Compose(chosen)
        ours = from_transforms(theirs, "torchvision.Compose")
        assert isinstance(ours, Preprocessing)
        for picture in pictures:
            assert torch.allclose(ours(picture), theirs(picture), rtol=0, atol=1e-6)
    assert from_transforms(transforms.Compose(steps[0]), "x").mean == (0.485, 0.456, 0.406)


def test_compositions_in_another_order_are_kept(torchvision, pictures):
    transforms = torchvision.transforms
    theirs = transforms.Compose([transforms.CenterCrop(64), transforms.Resize(32), transforms.ToTensor()])
    kept = from_transforms(theirs, "torchvision.Compose")
    assert not isinstance(kept, Preprocessing)
    assert "CenterCrop" in repr(kept)
    assert np.allclose(kept(pictures[0]), theirs(pictures[0]))
