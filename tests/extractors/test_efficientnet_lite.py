"""EfficientNet-Lite0: the published weights, their preprocessing, and the numbers that they are known for."""

import numpy as np
import pytest
import torch
from PIL import Image

from actkit import open_network
from actkit.errors import InputError, MissingExtraError
from actkit.extractors import efficientnet_lite

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'efficientnet' is not installed")


@pytest.fixture(scope="module")
def lite():
    return open_network("efficientnet_lite0")


def test_what_it_says_about_itself(lite):
    assert lite.name == "efficientnet_lite0"
    assert lite.input_shape == (3, 224, 224)
    assert lite.provenance["extractor"] == "efficientnet_lite0"
    assert lite.provenance["preprocessing"]["clamp"] == [0.0, 255.0]
    assert len(lite.provenance["weights_file_sha256"]) == 64
    assert not lite.module.training


def test_blocks_are_layers_in_order(lite):
    assert lite.select("*blocks.*") == [f"_blocks.{i}" for i in range(16)]


def test_weights_are_trained(lite):
    """A trained network prefers few classes on a picture: a random one spreads evenly."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((175, 175))
    random = open_network("efficientnet_lite0", weights="random", seed=1)
    batch = lite.prepare(picture)[None]
    with torch.inference_mode():
        trained, untrained = (net.module(batch).softmax(1).max().item() for net in (lite, random))
    assert trained > 0.05
    assert untrained < 0.01


def test_random_weights_follow_the_seed():
    opened = [open_network("efficientnet_lite0", weights="random", seed=seed) for seed in (3, 3, 4)]
    assert opened[0].weights_sha256 == opened[1].weights_sha256 != opened[2].weights_sha256
    assert opened[0].name == "efficientnet_lite0-random3"
    assert opened[0].provenance["weights"] == "random initialisation, seed 3"


def test_unknown_weights_are_refused():
    with pytest.raises(InputError, match="weights"):
        open_network("efficientnet_lite0", weights="imagenet21k")


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"actkit\[efficientnet\]"):
        efficientnet_lite.open_network()


def test_preprocessing_is_the_published_one(lite):
    """Antialiased bicubic on float pixels, clamp, (x - 127) / 128: written out again."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (175, 175, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(lite.prepare(picture), (resized.clamp(0, 255)[0] - 127) / 128)
