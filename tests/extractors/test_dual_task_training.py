"""Training of the small VGG: it learns, resumes to the same bits after a kill, and its image sets share no picture."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

from actkit import open_network
from actkit.errors import ActkitError, InputError
from actkit.extractors import training
from actkit.extractors.dual_task_cnn import SETS, image_sets, prepare_tasks, train
from actkit.extractors.task_images import DecodedWhenAsked
from actkit.extractors.training import TrainingOptions, training_rows
from actkit.extractors.vgg import SMALL_CHANNELS, VGG, VGG16_CHANNELS, VGG16_POOLS
from actkit.stimuli import Stimuli

TINY = {
    "architecture": "vgg_small", "size": 16, "channels": [8, 8, 12], "pools": [1, 3], "units": 16, "batch": 16,
    "epochs": 12, "dropout": 0.2, "learning_rate": 0.003,
}  # fmt: skip
SHORT = {**TINY, "epochs": 2}  # 24 steps: where nothing need be learnt


def stripes(n_per_class, seed, vertical, periods=(3, 5, 9)):
    """Classes of stripe width, random phase and noise; uint8 (n, 20, 20)."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for period in periods:
        for _ in range(n_per_class):
            wave = np.sin(2 * np.pi * (np.arange(20) / period + rng.random()))
            image = np.broadcast_to(wave, (20, 20)) if vertical else np.broadcast_to(wave[:, None], (20, 20))
            images.append(127 + 80 * image + rng.normal(0, 15, (20, 20)))
            labels.append(f"period{period}")
    return np.clip(images, 0, 255).astype(np.uint8), np.array(labels)


@pytest.fixture(scope="module")
def tasks():
    return {"rows": stripes(40, 1, False), "columns": stripes(25, 2, True)}


@pytest.fixture(scope="module")
def trained(tasks):
    return train(tasks, **TINY)


@pytest.fixture(scope="module")
def short(tasks):
    return train(tasks, **SHORT)


@pytest.fixture(scope="module")
def stimuli():
    images, labels = stripes(20, 4, False)
    images[7] = images[3]  # equal pictures
    return Stimuli.from_array(images, labels={"class": labels})


# ------------------------------------------------------------------ architecture


def test_vgg16_is_the_papers(monkeypatch):
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "zeros_"):  # numbers alone are counted
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    net = VGG(224, VGG16_CHANNELS, VGG16_POOLS, [4096, 4096], 2137, inputs=3, dropout=0.5)
    convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convs) == 13
    assert net.fc1.in_features == 512 * 7 * 7
    # Simonyan & Zisserman: 138,357,544 parameters with 1000 classes.
    assert sum(p.numel() for p in net.parameters()) == 138_357_544 + (2137 - 1000) * 4097
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())


def test_it_computes_what_a_plain_chain_of_functions_does():
    net = VGG(16, (3, 4, 5), (1, 3), [7, 6], 4, inputs=3, dropout=0.5).eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    hidden, weights = images, dict(net.named_parameters())
    for i in (1, 2, 3):
        where = f"features.conv{i}"
        hidden = torch.conv2d(hidden, weights[f"{where}.weight"], weights[f"{where}.bias"], padding=1).relu()
        hidden = torch.max_pool2d(hidden, 2) if i in (1, 3) else hidden
    hidden = hidden.flatten(1)
    for name in ("fc1", "fc2"):
        hidden = (hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).relu()
    torch.testing.assert_close(net(images), hidden @ weights["head.weight"].T + weights["head.bias"])


def test_presets_fill_what_was_not_given():
    small = TrainingOptions(architecture="vgg_small")
    assert small.channels == list(SMALL_CHANNELS)
    assert small.dropout == 0.3
    assert TrainingOptions(architecture="vgg_small", dropout=0.0, channels=[4, 4], pools=[2]).channels == [4, 4]
    large = TrainingOptions(architecture="vgg16")
    assert (large.size, large.optimiser, large.units, large.dense_layers) == (224, "sgd", 4096, 2)
    plain = TrainingOptions()
    assert (plain.channels, plain.units, plain.epochs) == ([16, 32, 64], 128, 12)


def test_layers_read_well_and_trace(trained):
    names = [layer.name for layer in trained.layers() if layer.name.count(".") or layer.name.startswith(("fc", "head"))]
    assert names == [
        "features.conv1", "features.relu1", "features.pool1", "features.conv2", "features.relu2", "features.conv3",
        "features.relu3", "features.pool3", "fc1", "fc1_relu", "fc1_dropout", "head",
    ]  # fmt: skip
    assert not any(getattr(module, "inplace", False) for module in trained.module.modules())
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    traced = torch.fx.symbolic_trace(trained.module)
    torch.testing.assert_close(traced(images), trained.module(images), rtol=0, atol=0)
    assert not trained.module.training


# ------------------------------------------------------------------ learning


def test_it_learns_both_tasks(trained):
    for name, task in trained.provenance["tasks"].items():
        assert task["held_out_accuracy"] > 0.8, name


def test_it_repeats_itself_and_leaves_the_global_generator_alone(short, tasks):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = train(tasks, **SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.weights_sha256 == short.weights_sha256
    assert again.provenance == short.provenance


@pytest.mark.parametrize("other", [{"seed": 1}, {"dropout": 0.0}])
def test_seed_and_dropout_count(short, tasks, other):
    assert train(tasks, **{**SHORT, **other}).weights_sha256 != short.weights_sha256


def test_one_task_and_two_sets_of_one_task(tasks):
    single = train({"rows": tasks["rows"]}, **{**TINY, "epochs": 1})
    assert single.module.head.out_features == 3
    twice = train({"rows": tasks["rows"], "other": stripes(40, 9, False)}, **{**TINY, "epochs": 1})
    assert twice.provenance["classes"][3] == "other:period3"
    assert twice.module.head.out_features == 6


def test_equal_numbers_of_training_images(tasks):
    prepared = prepare_tasks(tasks, 16, 0.2, 0)
    rows = training_rows(prepared, 50, seed=0)
    for name, task in prepared.items():
        assert len(set(rows[name].tolist())) == 50
        assert not task.test[rows[name]].any()
        assert sorted(np.bincount(task.labels[rows[name]]).tolist()) == [16, 17, 17]
    network = train(tasks, **{**TINY, "epochs": 1, "n_train": 50})
    assert [task["n_train"] for task in network.provenance["tasks"].values()] == [50, 50]
    with pytest.raises(InputError, match=r"'columns' cannot give 96 training images.*has 20"):
        training_rows(prepared, 96, seed=0)


def test_a_course_without_a_bound_is_noticed(tasks):
    with pytest.raises(ActkitError, match="lower learning_rate"):
        train(tasks, **{**TINY, "optimiser": "sgd", "schedule": "constant", "learning_rate": 1e6})


def test_what_the_plain_cnn_would_ignore_is_refused(tasks):
    with pytest.raises(InputError, match="would be ignored"):
        train(tasks, dropout=0.5)
    with pytest.raises(InputError, match="follow convolution 9"):
        train(tasks, **{**TINY, "pools": [9]})
    with pytest.raises(InputError, match="to nothing"):
        train(tasks, **{**TINY, "size": 8, "channels": [2] * 4, "pools": [1, 2, 3, 4]})


def test_images_that_do_not_fit_are_decoded_and_teach_the_same(stimuli):
    kept = train({"a": stimuli}, **{**TINY, "epochs": 1})
    decoded = train({"a": stimuli}, memory="10KB", **{**TINY, "epochs": 1})
    assert isinstance(prepare_tasks({"a": stimuli}, 16, 0.2, 0, memory="10KB")["a"].images, DecodedWhenAsked)
    assert decoded.weights_sha256 == kept.weights_sha256
    with pytest.raises(InputError, match="give the images as Stimuli"):
        train({"a": stripes(20, 4, False)}, memory="10KB", **TINY)


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("course", [{}, {"optimiser": "sgd", "schedule": "constant", "learning_rate": 0.01}])
def test_interrupted_training_resumes_to_the_same_bits(tasks, tmp_path, monkeypatch, course):
    settings = {**SHORT, **course}
    whole = train(tasks, **settings)
    path = tmp_path / "training.safetensors"
    write = training._write_checkpoint

    def stop(*args):
        write(*args)
        if args[2] == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tasks, checkpoint=path, checkpoint_every=10, **settings)
    monkeypatch.undo()
    with safe_open(path, "pt") as file:
        assert "weights.head.weight" in file.keys()  # noqa: SIM118
    with pytest.raises(InputError, match="another training"):
        train(tasks, checkpoint=path, **{**settings, "seed": 3})
    resumed = train(tasks, checkpoint=path, checkpoint_every=10, **settings)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert not path.exists()


def test_it_does_resume_and_not_begin_again(tasks, tmp_path, monkeypatch):
    path = tmp_path / "training.safetensors"
    monkeypatch.setattr(training.Path, "unlink", lambda *args, **kw: None)
    train(tasks, checkpoint=path, checkpoint_every=11, **SHORT)
    monkeypatch.undo()
    seen = []
    forward = VGG.forward
    monkeypatch.setattr(VGG, "forward", lambda self, x: seen.append(self.training) or forward(self, x))
    network = train(tasks, checkpoint=path, checkpoint_every=11, **SHORT)
    assert sum(seen) == network.provenance["training"]["steps"] % 11 == 2


def test_no_checkpoint(tasks, tmp_path):
    path = tmp_path / "training.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="no checkpoint of a training"):
        train(tasks, checkpoint=path, **TINY)
    assert path.read_bytes() == b"something else"


KILLED = """
import sys, time
sys.path.insert(0, {folder!r})
import test_dual_task_training as t
from actkit import open_network
from actkit.extractors import training
tasks = {{"rows": t.stripes(40, 1, False), "columns": t.stripes(25, 2, True)}}
write = training._write_checkpoint
def write_and_wait(*args):
    write(*args)
    if args[2] == 10:
        print("written", flush=True)
        time.sleep(300)
training._write_checkpoint = write_and_wait
open_network("dual_task_cnn", data=tasks, cache={cache!r}, checkpoint_every=10, **t.SHORT)
"""


def test_a_killed_process_leaves_a_checkpoint_that_open_network_goes_on_from(tasks, short, tmp_path, request):
    cache = tmp_path / "cache"
    code = KILLED.format(folder=str(request.path.parent), cache=str(cache))
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.kill()
    (found,) = cache.iterdir()
    with safe_open(found, "pt") as file:
        assert '"step": 10,' in file.metadata()["actkit"]
    resumed = open_network("dual_task_cnn", data=tasks, cache=str(cache), checkpoint_every=10, **SHORT)
    assert resumed.weights_sha256 == short.weights_sha256
    (folder,) = cache.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["network.json", "weights.safetensors"]


# ------------------------------------------------------------------ image sets


NUMBERS = {"training": 8, "selectivity": 2, "ranking": 4, "evaluation": 5}


def test_sets_share_no_picture_and_are_balanced(stimuli):
    sets = image_sets(stimuli, "class", NUMBERS, seed=1)
    ids = [getattr(sets, name).ids.tolist() for name in SETS]
    assert len({name for part in ids for name in part}) == sum(map(len, ids)) == 3 * sum(NUMBERS.values())
    hashes = [{getattr(sets, name).content_hash(i) for i in range(len(getattr(sets, name)))} for name in SETS]
    assert len(set.union(*hashes)) == sum(map(len, hashes)) == 3 * sum(NUMBERS.values())
    for name in SETS:
        part = getattr(sets, name)
        assert np.unique(part.labels["class"], return_counts=True)[1].tolist() == [NUMBERS[name]] * 3
        assert set(part.labels["image_set"]) == {name}
    other = image_sets(stimuli, "class", {**NUMBERS, "evaluation": 2}, seed=1)
    assert other.ranking.ids.tolist() == sets.ranking.ids.tolist()
    assert image_sets(stimuli, "class", NUMBERS, seed=2).ranking.ids.tolist() != sets.ranking.ids.tolist()


def test_a_network_learns_from_sets_and_makes_tasks_of_them(stimuli, tasks):
    sets = image_sets(stimuli, "class", NUMBERS)
    network = train({"rows": sets, "columns": tasks["columns"]}, **{**TINY, "epochs": 6})
    measured = network.provenance["tasks"]["rows"]
    assert (measured["n_train"], measured["n_held_out"]) == (24, 15)
    task = sets.task(network, "rows", "evaluation")
    assert task.classes.tolist() == [0, 1, 2]
    with torch.inference_mode():
        right = (network.module(task.inputs).argmax(1).numpy() == task.targets).mean()
    assert right == measured["held_out_accuracy"]
    assert sets.task(network, "rows").ids.tolist() == sets.ranking.ids.tolist()
    with pytest.raises(InputError, match="nearest: 'ranking'"):
        sets.task(network, "rows", "rankin")


def test_what_cannot_be_cut_is_said(stimuli):
    with pytest.raises(InputError, match=r"'period3' of .* has 19 different pictures, and the sets need 20"):
        image_sets(stimuli, "class", {**NUMBERS, "evaluation": 6})
    with pytest.raises(InputError, match="give a number from 1 on"):
        image_sets(stimuli, "class", {"training": 5})
    with pytest.raises(InputError, match="no label 'clas'"):
        image_sets(stimuli, "clas", NUMBERS)


def test_sets_by_name(tmp_path):
    faces = {"dataset": "rendered_faces", "n_identities": 3, "n_exemplars": 8, "size": 16}
    numbers = {"training": 4, "selectivity": 1, "ranking": 1, "evaluation": 2}
    settings = {**TINY, "epochs": 1, "cache": str(tmp_path)}
    network = open_network("dual_task_cnn", tasks={"faces": {**faces, "sets": numbers}}, **settings)
    assert network.provenance["tasks"]["faces"]["n_train"] == 12
    assert network.provenance["tasks"]["faces"]["n_held_out"] == 6
    assert network.name == "vgg_small"
