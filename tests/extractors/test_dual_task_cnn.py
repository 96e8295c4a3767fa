"""The dual-task CNN learns, repeats itself exactly, and its cache never returns another network."""

import json

import numpy as np
import pytest
import torch

from actkit import open_network
from actkit.errors import InputError
from actkit.extractors import dual_task_cnn
from actkit.extractors.dual_task_cnn import prepare_tasks, train
from actkit.stimuli import Stimuli

SMALL = {"size": 16, "channels": [6, 8], "units": 24, "batch": 32}


def stripes(n_per_class, seed, vertical):
    """Three classes of stripe width, random phase and noise; uint8 (n, 20, 20)."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for k, period in enumerate((3, 5, 9)):
        for _ in range(n_per_class):
            wave = np.sin(2 * np.pi * (np.arange(20) / period + rng.random()))
            image = np.broadcast_to(wave, (20, 20)) if vertical else np.broadcast_to(wave[:, None], (20, 20))
            images.append(127 + 80 * image + rng.normal(0, 15, (20, 20)))
            labels.append(f"period{k}")
    return np.clip(images, 0, 255).astype(np.uint8), np.array(labels)


@pytest.fixture(scope="module")
def tasks():
    return {"rows": stripes(40, 1, False), "columns": stripes(25, 2, True)}


@pytest.fixture(scope="module")
def trained(tasks):
    return train(tasks, seed=0, epochs=12, **SMALL)


def test_it_learns_both_tasks(trained):
    for name, n_train in (("rows", 96), ("columns", 60)):
        task = trained.provenance["tasks"][name]
        assert task["n_train"] == n_train
        assert task["n_held_out"] == n_train // 4
        assert task["chance"] == pytest.approx(1 / 3)
        assert task["train_accuracy"] > 0.9
        assert task["held_out_accuracy"] > 0.8


def test_one_softmax_over_the_union(trained, tasks):
    assert trained.provenance["classes"] == [f"{t}:period{k}" for t in ("rows", "columns") for k in range(3)]
    assert trained.module.head.out_features == 6
    prepared = prepare_tasks(tasks, 16, 0.2, 0)["columns"]
    with torch.inference_mode():
        guesses = trained.module(prepared.images).argmax(1).numpy()
    right = (guesses == prepared.labels + 3)[prepared.test].mean()
    assert right == trained.provenance["tasks"]["columns"]["held_out_accuracy"]


def test_untrained_is_at_chance(tasks, trained):
    network = train(tasks, epochs=0, **SMALL)
    assert network.provenance["weights"] == "untrained, seed 0"
    assert [layer.shape for layer in network.layers()] == [layer.shape for layer in trained.layers()]
    for name, task in network.provenance["tasks"].items():
        assert task["train_accuracy"] < 0.5, name
        assert task["n_train"] == trained.provenance["tasks"][name]["n_train"]


def test_same_seed_same_bits(trained, tasks):
    again = train(tasks, seed=0, epochs=12, **SMALL)
    assert again.weights_sha256 == trained.weights_sha256
    assert again.provenance == trained.provenance
    assert (
        train(tasks, seed=1, epochs=1, **SMALL).weights_sha256 != train(tasks, seed=2, epochs=1, **SMALL).weights_sha256
    )


def test_threads_do_not_matter(tasks):
    before = torch.get_num_threads()
    trained = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            trained.append(train(tasks, epochs=1, **SMALL).weights_sha256)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert trained[0] == trained[1]


def test_layers_read_well(trained):
    names = [layer.name for layer in trained.layers()]
    leaves = [
        "features.conv1",
        "features.relu1",
        "features.pool1",
        "features.conv2",
        "features.relu2",
        "features.pool2",
    ]
    assert [name for name in names if name in leaves] == leaves
    assert [name for name in names if "." not in name] == ["features", "fc1", "fc1_relu", "head", "output"]
    assert trained.input_shape == (1, 16, 16)


def test_no_layer_writes_in_place(trained):
    assert not any(getattr(module, "inplace", False) for module in trained.module.modules())


def test_stimuli_with_labels_and_split(tasks):
    images, labels = tasks["rows"]
    split = np.where(np.arange(len(labels)) % 4 == 0, "test", "train")
    stimuli = Stimuli.from_array(images, labels={"identity": labels, "split": split})
    network = train({"rows": stimuli, "columns": tasks["columns"]}, epochs=1, **SMALL)
    assert network.provenance["tasks"]["rows"]["n_held_out"] == 30
    by_tuple = train({"rows": (images, labels, split), "columns": tasks["columns"]}, epochs=1, **SMALL)
    assert by_tuple.weights_sha256 == network.weights_sha256


def test_cache(tasks, tmp_path, monkeypatch):
    settings = {"epochs": 2, "cache": str(tmp_path), **SMALL}
    first = open_network("dual_task_cnn", data=tasks, **settings)
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["network.json", "weights.safetensors"]
    note = json.loads((folder / "network.json").read_text())
    assert note["provenance"]["tasks"]["rows"]["n_train"] == 96

    calls = []
    fit = dual_task_cnn._fit
    monkeypatch.setattr(dual_task_cnn, "_fit", lambda *args: calls.append(1) or fit(*args))
    second = open_network("dual_task_cnn", data=tasks, name="other", **settings)
    assert calls == []
    assert second.weights_sha256 == first.weights_sha256
    assert second.provenance == first.provenance
    assert second.name == "other"

    open_network("dual_task_cnn", data=tasks, retrain=True, **settings)
    assert len(calls) == 1

    # Anything that would change what is learnt misses the cache.
    images, labels = tasks["rows"]
    changed = images.copy()
    changed[0, :4, :4] ^= 128
    changes = [
        ({**tasks, "rows": (changed, labels)}, {}),
        ({**tasks, "rows": (images, np.roll(labels, 1))}, {}),
        (dict(reversed(tasks.items())), {}),
        (tasks, {"seed": 5}),
        (tasks, {"learning_rate": 0.001}),
    ]
    for data, options in changes:
        before = len(calls)
        open_network("dual_task_cnn", data=data, **{**settings, **options})
        assert len(calls) == before + 1
    assert len(list(tmp_path.iterdir())) == 1 + len(changes)


@pytest.mark.parametrize("damage", ["weights", "note", "missing"])
def test_a_damaged_cache_is_trained_again(tasks, tmp_path, damage):
    settings = {"epochs": 1, "cache": str(tmp_path), **SMALL}
    first = open_network("dual_task_cnn", data=tasks, **settings)
    (folder,) = tmp_path.iterdir()
    if damage == "weights":
        file = folder / "weights.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "note":
        (folder / "network.json").write_text("{")
    else:
        (folder / "weights.safetensors").unlink()
    again = open_network("dual_task_cnn", data=tasks, **settings)
    assert again.weights_sha256 == first.weights_sha256
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert dual_task_cnn.read_cache(folder, json.loads((folder / "network.json").read_text())["key"]) is not None


def test_data_sets_by_name(tmp_path, monkeypatch, tasks):
    """Names and options go to the catalogue of data sets."""
    asked = []
    images, labels = tasks["rows"]

    class Catalogue:
        @staticmethod
        def load(name, **options):
            asked.append((name, options))
            return type("DataSet", (), {"stimuli": Stimuli.from_array(images, labels={"digit": labels})})

    monkeypatch.setattr(dual_task_cnn.plugins, "load", lambda group, name: Catalogue)
    settings = {"epochs": 1, "cache": str(tmp_path), **SMALL}
    dual_task_cnn.open_network(tasks={"a": "one", "b": {"dataset": "two", "n": 3}}, **settings)
    assert asked == [("one", {}), ("two", {"n": 3})]
    with pytest.raises(InputError, match="names no data set"):
        dual_task_cnn.open_network(tasks={"a": {"n": 3}}, **settings)


def test_training_touches_no_global_generator(tasks):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(tasks, epochs=1, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_bad_tasks_are_answered(tasks):
    images, labels = tasks["rows"]
    bad = [
        ({}, "no task"),
        ({"rows": (images.astype(float), labels)}, "uint8 images"),
        ({"rows": (images, labels[:-1])}, "119 labels"),
        ({"rows": (images, np.repeat("a", len(images)))}, "one class"),
        ({"rows": (images, labels, np.where(labels == "period1", "test", "train"))}, "'period1' has no training image"),
        ({"rows": (images, labels, labels)}, "must hold 'train' and 'test'"),
        ({"rows": 3}, "cannot train on a int"),
        ({"rows": Stimuli.from_array(images, labels={"colour": labels})}, "no label column.*there are: colour"),
    ]
    for data, words in bad:
        with pytest.raises(InputError, match=words):
            train(data, epochs=1, **SMALL)
    with pytest.raises(InputError, match="nearest: 'colour'"):
        train({"rows": Stimuli.from_array(images, labels={"colour": labels})}, labels={"rows": "color"}, **SMALL)
    with pytest.raises(InputError, match="halve images of 8 pixels"):
        train(tasks, size=8, channels=[2, 2, 2, 2])
