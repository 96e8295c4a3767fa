"""Sweeps over networks of modules: the grid, states that are recorded, files, and one network by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import actkit
from actkit.errors import DataError, InputError
from actkit.extractors import modular_network
from actkit.extractors.digit_pairs import Glyphs
from actkit.extractors.modular_network import open_network, paired_stimuli
from actkit.extractors.modular_rnn import ModularOptions
from actkit.extractors.modular_samples import Samples, World, noise_source
from actkit.extractors.modular_states import _FIRST_DRAW, record_states
from actkit.extractors.modular_sweep import SweepOptions, cells_of, glyphs_of, load_sweep, save_sweep, train_sweep
from actkit.extractors.modular_training import train_networks
from actkit.units import UnitSet


def glyphs(n: int, seed: int, classes: int = 4, pixels: int = 9) -> Glyphs:
    """Noisy copies of one pattern a class."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(classes, pixels))
    labels = rng.integers(classes, size=n)
    images = patterns[labels] + 0.3 * rng.normal(size=(n, pixels))
    ids = tuple(f"{seed}_{k}" for k in range(n))
    return Glyphs(images.astype(np.float32), labels, tuple("abcdefghij"[:classes]), ids)


TRAIN, TEST = glyphs(160, 0), glyphs(50, 1)
HOW = {"epochs": 2, "batch": 32}


# ------------------------------------------------------------------ states

VARIANTS = [
    {},
    {"cell": "gru"},
    {"modules": 3},
    {"bottleneck": 2},
    {"readout": "shared"},
]


@pytest.mark.parametrize("more", VARIANTS, ids=str)
@pytest.mark.parametrize("random_onsets", [False, True])
def test_states_are_those_of_the_module_on_the_same_frames(more, random_onsets) -> None:
    task = "sum" if more.get("modules") == 3 else "parity_both"
    networks = train_networks(
        [(ModularOptions(units=4, p=p, seed=seed, **more), World(task=task)) for seed in (3, 1) for p in (0.2, 1.0)],
        TRAIN, TEST, **HOW,
    )  # fmt: skip
    found = record_states(networks, TEST, random_onsets=random_onsets, draw=2, batch=20)
    modules = more.get("modules", 2)
    assert found["state"].shape == (4, 50, 5, 4 * modules)
    assert found["module_of_unit"].values.tolist() == np.repeat(range(modules), 4).tolist()
    for k, one in enumerate(networks):
        samples = Samples.draw(TEST, one.world, (one.options.seed << 18) + (2 << 1) + 1, modules, test=True)
        random = noise_source(one.options.seed, _FIRST_DRAW + 2)
        onsets = found["onset"].values[k]
        np.testing.assert_array_equal(found["label"].values[k], samples.pairs.labels)
        module = one.module()
        for start in range(0, 50, 20):
            rows = np.arange(start, min(50, start + 20))
            frames = samples.show(rows, one.world, random, onsets[rows] if random_onsets else None)
            seen: list[list[torch.Tensor]] = [[] for _ in range(modules)]
            handles = [
                layer.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out.detach()))
                for layer, kept in zip(module.states, seen, strict=True)
            ]
            module(frames.transpose(0, 1))
            for handle in handles:
                handle.remove()
            expected = torch.cat([torch.stack(part, dim=1) for part in seen], dim=2)
            np.testing.assert_allclose(found["state"].values[k, rows], expected.numpy(), atol=3e-6)


def test_networks_of_one_seed_and_world_see_the_same_and_others_do_not() -> None:
    cells = [
        (ModularOptions(units=4, p=p, seed=seed), World(cov_ratio=c))
        for seed, p, c in ((0, 0.1, 1), (0, 1.0, 1), (1, 0.1, 1), (0, 0.1, 0.5))
    ]
    networks = train_networks(cells, TRAIN, TEST, epochs=0)
    found = record_states(networks, TEST, random_onsets=True)
    for name in ("label", "onset"):
        assert np.array_equal(found[name][0], found[name][1])
        assert not np.array_equal(found[name][0], found[name][2])
    assert not np.array_equal(found["label"][0], found["label"][3])
    same = record_states(networks, TEST, cov_ratio=1.0)
    assert np.array_equal(same["label"][0], same["label"][3])  # one covariance for all is one world for all
    equal = record_states(networks, TEST, cov_ratio=0.0)["label"].values
    assert (equal[:, :, 0] == equal[:, :, 1]).all()
    assert not np.array_equal(found["label"], record_states(networks, TEST, random_onsets=True, draw=1)["label"])


def test_before_the_onset_a_module_sees_noise_alone() -> None:
    # Noise of black images is black: a state that is not 0 has seen the image, or heard of it.
    (one,) = train_networks([(ModularOptions(units=4, p=0.0), World())], TRAIN, TEST, epochs=0)
    images = np.zeros((60, 9), dtype=np.float32)
    lone = Glyphs(images, np.arange(60) % 4, TEST.classes, tuple(map(str, range(60))))
    assert not record_states([one], lone, random_onsets=True)["state"].values.any()
    images = np.ones((60, 9), dtype=np.float32)
    with_image = Glyphs(images, lone.labels, TEST.classes, lone.ids)
    found = record_states([one], with_image, random_onsets=True)
    samples = Samples.draw(with_image, one.world, 1, 2, test=True)
    frames = samples.show(np.arange(60), one.world, noise_source(0, _FIRST_DRAW), found["onset"].values[0]).numpy()
    begun = np.arange(5)[:, None, None] >= found["onset"].values[0]  # (steps, samples, modules)
    assert frames[begun].min() >= 0.6 - 1e-6  # 1 - r of the image, and noise
    pure = frames[~begun]
    assert set(np.unique(np.rint(pure * 5))) <= set(range(6))  # k of five slots kept the pixel
    np.testing.assert_allclose(pure * 5, np.rint(pure * 5), atol=1e-5)
    assert pure.mean() == pytest.approx(0.2, abs=0.05)


def test_states_refuse_networks_that_do_not_go_together() -> None:
    cells = [
        (ModularOptions(units=4), World()),
        (ModularOptions(units=5), World()),
        (ModularOptions(units=4), World(steps=3)),
    ]
    networks = train_networks(cells, TRAIN, TEST, epochs=0)
    with pytest.raises(InputError, match=r"networks of 4 and of 5 \(units\)"):
        record_states(networks[:2], TEST)
    with pytest.raises(InputError, match="networks run 5 and 3 steps"):
        record_states(networks[::2], TEST)
    with pytest.raises(InputError, match="there is no network to record"):
        record_states([], TEST)


# ------------------------------------------------------------------ the grid

SMALL = {**HOW, "units": [4, 6], "p": [-1, 0.5], "seeds": 2}


def test_connections_that_come_to_the_same_are_trained_once() -> None:
    cells = cells_of(SweepOptions(units=[10, 25], p=[-1, 0.01, 0.1, -100, 1.0], seeds=3))
    kinds = [(network.size, network.p) for network, _ in cells[::3]]
    assert kinds == [(10, -1), (10, 0.1), (10, -100), (25, -1), (25, 0.01), (25, 0.1), (25, -100), (25, 1.0)]
    assert [network.seed for network, _ in cells[:3]] == [0, 1, 2]


def test_covariances_vary_where_they_are_asked_to() -> None:
    cells = cells_of(SweepOptions(units=[4, 6], p=[-1, 1.0], seeds=1, cov_ratios=[1.0, 0.1], cov_units=[6], cov_p=[1]))
    assert [(one.size, one.p, world.cov_ratio) for one, world in cells] == [
        (4, -1, 1.0), (4, 1.0, 1.0), (6, -1, 1.0), (6, 1.0, 1.0), (6, 1, 0.1),
    ]  # fmt: skip


def test_a_sweep_holds_trained_and_untrained_networks_and_their_table() -> None:
    sweep = train_sweep((TRAIN, TEST), **SMALL)
    table = sweep.table()
    assert table.sizes["network"] == 16
    assert len(set(table["network"].values)) == 16
    assert table["trained"].values.tolist() == [True] * 8 + [False] * 8
    assert table["connections"].values[:8].tolist() == [1, 1, 8, 8, 1, 1, 18, 18]
    np.testing.assert_allclose(table["p"][:2], 1 / 16)
    np.testing.assert_allclose(table["Q"].values, (1 - table["p"].values) / (2 * (1 + table["p"].values)), atol=1e-12)
    assert [(units, len(rows)) for units, rows in sweep.of_one_size()] == [(4, 8), (6, 8)]
    before = sweep.networks[8]
    assert before.epochs == 0
    assert not torch.equal(before.weights["input"], sweep.networks[0].weights["input"])
    other = train_sweep((TRAIN, TEST), **SMALL, checkpoint_every=1)
    assert other.key == sweep.key
    assert train_sweep((TRAIN, TEST), **{**SMALL, "epochs": 0}).key != sweep.key


def test_the_smallest_share_is_checked_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match=r"p=0.01 of 16 possible connections is less than one"):
        train_sweep((TRAIN, TEST), **{**SMALL, "p": [0.01]})


def test_glyphs_are_normalised_by_the_training_images() -> None:
    train, test = glyphs_of(SweepOptions(data="digits"))
    assert (train.images.mean(), train.images.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert len(train.labels) + len(test.labels) == 1797
    assert not set(train.ids) & set(test.ids)
    assert abs(test.images.mean()) < 0.05


# ------------------------------------------------------------------ files


def test_a_sweep_is_kept_and_read_again(tmp_path) -> None:
    sweep = train_sweep((TRAIN, TEST), **SMALL, bottleneck=2, cell="gru")
    path = tmp_path / "sweep.safetensors"
    save_sweep(sweep, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sweep.safetensors", "sweep.safetensors.json"]
    found = load_sweep(path, TRAIN, TEST)
    assert found.key == sweep.key
    assert found.table().identical(sweep.table())
    for one, other in zip(found.networks, sweep.networks, strict=True):
        assert (one.options, one.world, one.accuracy) == (other.options, other.world, other.accuracy)
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in other.weights)


def test_damaged_files_are_refused(tmp_path) -> None:
    sweep = train_sweep((TRAIN, TEST), **{**SMALL, "epochs": 0, "seeds": 1})
    path = tmp_path / "sweep.safetensors"
    note = tmp_path / "sweep.safetensors.json"
    with pytest.raises(DataError, match="holds no networks of a sweep"):
        load_sweep(path, TRAIN, TEST)
    save_sweep(sweep, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="is not the file that its note describes"):
        load_sweep(path, TRAIN, TEST)
    path.write_bytes(whole)
    text = json.loads(note.read_text())
    del text["networks"][0]["world"]
    note.write_text(json.dumps(text))
    with pytest.raises(DataError, match="holds no networks of a sweep"):
        load_sweep(path, TRAIN, TEST)
    note.write_text("{")
    with pytest.raises(DataError, match="train it again"):
        load_sweep(path, TRAIN, TEST)


# ------------------------------------------------------------------ one network by name

ONE = {**HOW, "units": 4, "p": 0.5, "seed": 2}


def test_one_network_is_that_of_a_sweep_and_is_cached(tmp_path, monkeypatch) -> None:
    network = open_network((TRAIN, TEST), cache=str(tmp_path), **ONE)
    (alone,) = train_networks([(ModularOptions(units=4, p=0.5, seed=2), World())], TRAIN, TEST, **HOW)
    for name, value in alone.weights.items():
        assert torch.equal(network.module.weights[name], value)
    known = network.provenance
    assert known["connections"] == 8
    assert known["Q"] == pytest.approx(1 / 6, abs=1e-12)
    assert known["chance"] == 0.25
    assert known["test_accuracy"] == alone.accuracy
    assert known["licence"] == "Apache-2.0"
    json.dumps(known)
    monkeypatch.setattr(modular_network, "train_networks", lambda *a, **k: pytest.fail("trained again"))
    again = open_network((TRAIN, TEST), cache=str(tmp_path), checkpoint_every=1, **ONE)
    assert again.weights_sha256 == network.weights_sha256
    assert again.provenance == known
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["network.json", "weights.safetensors"]
    with pytest.raises(pytest.fail.Exception):
        open_network((TRAIN, TEST), cache=str(tmp_path), retrain=True, **ONE)


def test_a_network_is_recorded_and_lesioned(tmp_path) -> None:
    network = open_network((TRAIN, TEST), cache=str(tmp_path / "nets"), **ONE)
    stimuli = paired_stimuli(TEST, seed=5)
    assert stimuli.labels["digit_0"].tolist() == [TEST.classes[k] for k in TEST.labels]
    partners = [TEST.ids.index(name.split("+")[1]) for name in stimuli.ids]
    assert stimuli.labels["digit_1"].tolist() == [TEST.classes[TEST.labels[k]] for k in partners]
    layers = [layer.name for layer in network.layers()]
    assert {f"states.{m}@{t}" for m in (0, 1) for t in range(5)} | {"read.0", "read.1"} <= set(layers)
    wanted = ["states.0@0", "states.0@4", "states.1@1", "read.0", "read.1", "output"]
    recorded = actkit.extract(network, stimuli, tmp_path / "intact.zarr", layers=wanted, progress=False)
    images = torch.stack([torch.from_numpy(np.array(stimuli[k])) for k in range(len(stimuli))])
    np.testing.assert_allclose(recorded["output"].values, network.module(images).detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(recorded["states.0@4"].values, recorded["read.0"].values)

    whole = {layer: UnitSet.of(layer, [0, 1, 2, 3]) for layer in ("read.0", "states.0@0")}
    with actkit.lesioned(network, whole["read.0"]) as damaged:
        found = actkit.extract(damaged, stimuli, tmp_path / "read.zarr", layers=wanted, progress=False)
    assert not found["read.0"].values.any()
    for layer in ("states.0@0", "states.1@1", "states.0@4", "read.1"):  # the dynamics are as they were
        np.testing.assert_array_equal(found[layer].values, recorded[layer].values)
    assert not np.allclose(found["output"].values, recorded["output"].values)
    with actkit.lesioned(network, whole["states.0@0"]) as damaged:
        found = actkit.extract(damaged, stimuli, tmp_path / "states.zarr", layers=wanted, progress=False)
    assert not found["states.0@0"].values.any()
    assert not np.allclose(found["states.1@1"].values, recorded["states.1@1"].values)  # the other module hears of it
