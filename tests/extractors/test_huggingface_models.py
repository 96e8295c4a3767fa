"""Hugging Face vision models from local folders and from objects, with their own image processor."""

import json

import numpy as np
import pytest
import torch

from actkit import open_network
from actkit.errors import InputError
from actkit.extractors.huggingface_models import wrap


@pytest.fixture(scope="module")
def transformers(torchvision):
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def small_vit(transformers):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=48, patch_size=16
    )
    torch.manual_seed(0)
    return transformers.ViTModel(config)


@pytest.fixture(scope="module")
def processor(transformers):
    return transformers.ViTImageProcessor(size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.25] * 3)


@pytest.fixture(scope="module")
def folder(small_vit, processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "small-vit"
    small_vit.save_pretrained(path, safe_serialization=True)
    processor.save_pretrained(path)
    return path


def test_local_folder(folder, small_vit, processor, pictures):
    network = open_network("huggingface", model=str(folder))
    assert network.name == "small-vit"
    assert network.input_shape == (3, 48, 48)
    ours = network.module.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in small_vit.state_dict().items())
    expected = processor(images=pictures[0], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(network.prepare(pictures[0]), expected)
    batch = torch.stack([network.prepare(picture) for picture in pictures[:2]])
    with torch.inference_mode():
        assert torch.equal(network.module(batch).last_hidden_state, small_vit.eval()(batch).last_hidden_state)


def test_what_it_says_about_itself(folder):
    network = open_network("huggingface", model=str(folder))
    said = json.loads(json.dumps(network.provenance))
    assert said["extractor"] == "huggingface"
    assert said["architecture"] == "transformers: ViTModel"
    assert said["preprocessing"]["kind"].startswith("transformers.ViTImageProcessor")
    assert said["preprocessing"]["image_std"] == [0.25, 0.25, 0.25]
    assert json.loads(network.preprocess_description)["size"] == {"height": 48, "width": 48}


def test_layers_run_and_can_be_selected(folder):
    network = open_network("huggingface", model=str(folder))
    names = network.select("**", types=["ViTLayer"])
    assert len(names) == 2
    assert names == sorted(names)


def test_random_weights_of_a_config(folder, small_vit):
    opened = [open_network("huggingface", model=str(folder), weights="random", seed=seed) for seed in (0, 0, 1)]
    assert opened[0].weights_sha256 == opened[1].weights_sha256 != opened[2].weights_sha256
    assert opened[0].name == "small-vit-random0"
    assert opened[0].provenance["weights"] == "random initialisation, seed 0"


def test_a_new_head_is_drawn_from_the_seed(folder):
    opened = [open_network("huggingface", model=str(folder), head="classification", seed=seed) for seed in (0, 0, 1)]
    assert opened[0].weights_sha256 == opened[1].weights_sha256 != opened[2].weights_sha256


def test_pickled_weights_are_refused(folder, small_vit, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    for file in folder.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({"embeddings.cls_token": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        open_network("huggingface", model=str(tmp_path))
    assert not (tmp_path / "boom").exists()


def test_missing_folder_is_answered(transformers, tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        open_network("huggingface", model=str(tmp_path / "nothing"), local_files_only=True)


def test_objects_in_memory(transformers, small_vit, processor, pictures):
    network = wrap(small_vit, processor, name="mine")
    assert network.name == "mine"
    assert network.prepare(pictures[1]).shape == (3, 48, 48)


def test_image_part_of_a_two_part_model(transformers, processor, pictures):
    part = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.CLIPConfig(
        text_config={**part, "vocab_size": 64, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**part, "image_size": 48, "patch_size": 16},
        projection_dim=16,
    )
    network = wrap(transformers.CLIPModel(config), processor)
    assert "image encoder" in network.provenance["architecture"]
    with torch.inference_mode():
        out = network.module(network.prepare(pictures[0])[None])
    assert out.last_hidden_state.shape[-1] == 32
    assert network.layers()


def test_text_models_are_refused(transformers, processor):
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32
    )
    with pytest.raises(InputError, match="does not take images as its first input"):
        wrap(transformers.BertModel(config), processor)


def test_arrays_are_not_images(folder):
    network = open_network("huggingface", model=str(folder))
    with pytest.raises(InputError, match="not array stimuli"):
        network.prepare(np.zeros((3, 48, 48), dtype=np.float32))
