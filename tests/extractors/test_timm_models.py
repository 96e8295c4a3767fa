"""timm models by name, with the preprocessing that timm evaluates them with."""

import pytest
import torch

from actkit import open_network
from actkit.errors import InputError
from actkit.preprocessing import ForeignPreprocessing, Preprocessing


@pytest.fixture(scope="module")
def timm(torchvision):
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.mark.parametrize(
    ("model", "side"),
    [
        ("resnet10t.c3_in1k", 176),  # bicubic, crop fraction .875
        ("mobilenetv3_small_050.lamb_in1k", 224),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224),  # bicubic, mean and std .5
    ],
)
def test_preprocessing_equals_timms_own(timm, pictures, model, side):
    network = open_network("timm", model=model)
    config = timm.data.resolve_model_data_config(network.module)
    theirs = timm.data.create_transform(**config, is_training=False)
    assert isinstance(network.preprocess, Preprocessing)
    assert network.input_shape == tuple(config["input_size"]) == (3, side, side)
    for picture in pictures:
        assert torch.allclose(network.prepare(picture), theirs(picture), rtol=0, atol=1e-6)
    assert network.provenance["preprocessing_of"] == f"timm: {model}"
    assert network.provenance["weights"] == "random initialisation, seed 0"


def test_numbers_are_those_that_someone_wrote(timm):
    network = open_network("timm", model="mobilenetv3_small_050")
    assert network.preprocess.mean == (0.485, 0.456, 0.406)


def test_other_crops_keep_timms_transform(timm, pictures):
    """Border mode pads, which no Preprocessing says: timm's own object is kept and described."""
    from actkit.preprocessing import from_transforms

    theirs = timm.data.create_transform(input_size=(3, 64, 64), crop_mode="border", is_training=False)
    kept = from_transforms(theirs, "timm.create_transform")
    assert isinstance(kept, ForeignPreprocessing)
    assert "CenterCropOrPad" in kept.describe()["transform"]
    assert torch.equal(kept(pictures[0]), theirs(pictures[0]))


def test_squash_mode_is_understood(timm, pictures):
    from actkit.preprocessing import from_transforms

    theirs = timm.data.create_transform(input_size=(3, 64, 64), crop_mode="squash", crop_pct=0.9, is_training=False)
    ours = from_transforms(theirs, "timm.create_transform")
    assert isinstance(ours, Preprocessing)
    for picture in pictures:
        assert torch.allclose(ours(picture), theirs(picture), rtol=0, atol=1e-6)


def test_random_weights_follow_the_seed(timm):
    opened = [open_network("timm", model="mobilenetv3_small_050", seed=seed) for seed in (0, 0, 1)]
    assert opened[0].weights_sha256 == opened[1].weights_sha256 != opened[2].weights_sha256
    assert opened[0].name == "mobilenetv3_small_050-random0"
    assert not opened[0].module.training
    assert len(opened[0].select("blocks.*")) > 3


def test_unknown_names_are_answered(timm):
    with pytest.raises(InputError, match=r"no model 'resnet81'; nearest: "):
        open_network("timm", model="resnet81")
    with pytest.raises(InputError, match=r"no weights 'resnet18\.a1_in2k'; nearest: 'resnet18\.a1_in1k'"):
        open_network("timm", model="resnet18.a1_in2k")


def test_weights_outside_the_hub_are_refused(timm, monkeypatch):
    """Those would be read by unpickling."""
    config = timm.get_pretrained_cfg("resnet18")
    monkeypatch.setattr(config, "hf_hub_id", None)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    with pytest.raises(InputError, match=r"would be unpickled.*checkpoint"):
        open_network("timm", model="resnet18", pretrained=True)


def test_no_network_is_answered(timm, monkeypatch):
    def offline(name, pretrained):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"cannot be fetched.*name resolution failed.*checkpoint"):
        open_network("timm", model="resnet18", pretrained=True)
