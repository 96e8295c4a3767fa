"""Sub-tasks on stimuli of their own, filters of a two-task network as parts, and everything in one table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import actkit
from actkit.analyses.specialization import specialization
from actkit.analyses.specialization_heads import HeadSettings, fit_heads
from actkit.analyses.specialization_index import beats_chance
from actkit.analyses.specialization_lesions import lesion_parts
from actkit.analyses.specialization_similarity import pair_similarity
from actkit.analyses.specialization_table import parts_of_sets, pool_tasks, recorded_units, specialization_table
from actkit.errors import InputError
from actkit.layers import capture
from actkit.ranking import units_of
from actkit.units import UnitSet

FAST = {"epochs": 25, "learning_rate": 1e-2, "batch": 64}


def own_stimuli(n=(400, 300), classes=(4, 3), leak=0.0, seed=0):
    """Stimuli of two tasks; units 0-7 carry the first task's class, 8-15 the second's; all carry which task it is."""
    rng = np.random.default_rng(seed)
    states, labels = {}, {}
    for k, name in enumerate(("faces", "objects")):
        y = rng.integers(classes[k], size=n[k])
        code = np.random.default_rng(70 + k).normal(size=(classes[k], 16))
        code[:, 8 * (1 - k) : 8 * (1 - k) + 8] *= leak
        offset = np.random.default_rng(80 + k).normal(size=16)  # being a face at all
        states[name] = code[y] + offset + 0.1 * rng.normal(size=(n[k], 16))
        labels[name] = y
    return states, labels, {"faces": np.arange(8), "objects": np.arange(8, 16)}


def test_stimuli_of_their_own_make_specialised_parts() -> None:
    states, labels, parts = own_stimuli()
    pooled, columns, owner = pool_tasks(states, labels)
    result = specialization(pooled, columns, parts, **FAST)
    s = result["S"].isel(network=0, time=0)
    np.testing.assert_allclose(s.sel(measure=["retraining", "correlation"]), 1, atol=0.12)
    assert float(s.sel(measure="ablation")) > 0.8
    np.testing.assert_allclose(result["chance"], [1 / 4, 1 / 3])
    assert int(result["n_test"].sum()) == int(result.attrs["n_test"])
    assert (owner == "faces").sum() == 400
    even = specialization(*pool_tasks(*own_stimuli(leak=1.0)[:2])[:2], parts, measures=["retraining"], **FAST)
    assert float(even["S"].squeeze()) < 0.12
    assert (even["accuracy"] > 0.9).all()


def test_being_of_a_task_is_not_knowing_its_classes() -> None:
    # States that say which task it is, and nothing of the class: no similarity beyond the task's own baseline.
    rng = np.random.default_rng(0)
    states, labels, parts = own_stimuli(leak=1.0)
    states = {name: values.mean(axis=0) + rng.normal(size=values.shape) for name, values in states.items()}
    result = specialization(*pool_tasks(states, labels)[:2], parts, **FAST)
    assert np.isnan(result["S"].sel(measure=["retraining", "ablation"])).all()
    assert abs(result["known"].sel(measure="correlation")).max() < 0.05


@pytest.mark.parametrize("nothing", [None, np.nan, ""])
def test_missing_labels_in_any_form(nothing) -> None:
    states, labels, parts = own_stimuli(n=(60, 50))
    pooled, columns, owner = pool_tasks(states, labels)
    test = np.arange(110) % 3 == 0
    settings = {"epochs": 3, "batch": 32, "test": test}
    expected = specialization(pooled, columns, parts, **settings)
    given = {
        name: [nothing if one is None else (str(one) if nothing == "" else one) for one in column]
        for name, column in columns.items()
    }
    result = specialization(pooled, given, parts, **settings)
    np.testing.assert_array_equal(result["accuracy"], expected["accuracy"])
    np.testing.assert_array_equal(
        result["n_test"][0], [(test & (owner == name)).sum() for name in ("faces", "objects")]
    )
    # Similarity: the task's own stimuli alone, against any two of them.
    here = test & (owner == "objects")
    own = pooled[here][:, parts["faces"]].astype(np.float32)
    classes = np.array([int(one) for one in columns["objects"][here]])
    same, base = pair_similarity(own, classes), pair_similarity(own, np.zeros(len(own), dtype=int))
    at = result.isel(network=0, time=0).sel(part="faces", task="objects")
    assert float(at["accuracy"].sel(measure="correlation")) == pytest.approx(same, abs=1e-6)
    assert float(at["baseline"]) == pytest.approx(base, abs=1e-6)


def test_a_head_ignores_stimuli_that_it_is_not_asked_of() -> None:
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(size=(1, 40, 2, 5)).astype(np.float32))
    labels = torch.from_numpy(np.stack([rng.integers(3, size=(1, 40)), rng.integers(2, size=(1, 40))], axis=2))
    labels[0, ::2, 1] = -1
    made = HeadSettings(hidden=4, epochs=4, batch=40, learning_rate=0.05)
    heads = fit_heads(states, labels, [3, 2], torch.ones(1, 5), made)
    # A full batch: the head of the second task has seen its twenty stimuli alone, and the mean of their losses.
    alone = fit_heads(states[:, 1::2], labels[:, 1::2], [3, 2], torch.ones(1, 5), made)
    logits = [one.logits(states[:, 1::2].reshape(1, -1, 5)) for one in (heads, alone)]
    torch.testing.assert_close(logits[0][:, :, 1], logits[1][:, :, 1], atol=1e-5, rtol=0)
    assert not torch.allclose(logits[0][:, :, 0], logits[1][:, :, 0], atol=1e-3)
    accuracy = heads.accuracy(states, labels)
    np.testing.assert_allclose(accuracy[:, :, 1], heads.accuracy(states[:, 1::2], labels[:, 1::2])[:, :, 1])
    labels[0, :, 1] = -1
    assert np.isnan(heads.accuracy(states, labels)[:, :, 1]).all()


def test_what_is_known_of_networks_stays_with_them() -> None:
    states, labels, parts = own_stimuli(n=(60, 50))
    pooled, columns, _ = pool_tasks(states, labels)
    both = xr.DataArray(
        np.stack([pooled, pooled]),
        dims=("network", "stimulus", "unit"),
        coords={"network": ["p", "q"], "seed": ("network", [3, 4])},
    )
    result = specialization(both, columns, parts, measures=["correlation"])
    assert result["seed"].values.tolist() == [3, 4]
    assert result["S"].dims[0] == "network"


def test_chance_bounds_take_a_number_of_stimuli_each() -> None:
    found = beats_chance(np.array([0.2, 0.2]), 0.1, np.array([20, 500]))
    assert found.tolist() == [False, True]


def test_tasks_without_stimuli_are_refused() -> None:
    states, labels, parts = own_stimuli(n=(60, 50))
    pooled, columns, _ = pool_tasks(states, labels)
    with pytest.raises(InputError, match="'objects' has no labelled stimulus to be tested on; give another"):
        specialization(pooled, columns, parts, np.arange(110) < 30)
    with pytest.raises(InputError, match="no stimulus has a label of sub-task 'objects'"):
        specialization(pooled, columns | {"objects": [None] * 110}, parts)
    with pytest.raises(InputError, match="states of 'objects' have shape"):
        pool_tasks(states, labels | {"objects": labels["objects"][1:]})
    with pytest.raises(InputError, match="labels of"):
        pool_tasks(states, {"faces": labels["faces"]})


def test_sets_that_overlap_become_parts() -> None:
    a, b, c = (UnitSet.of("relu", rows, shape=(8, 2, 2)) for rows in ([0, 1, 2], [2, 3], [4, 2]))
    parts = parts_of_sets({"a": a, "b": b, "c": c})
    assert {name: part.channel.tolist() for name, part in parts.items()} == {
        "a": [0, 1], "b": [3], "c": [4], "shared": [2],
    }  # fmt: skip
    assert list(parts_of_sets({"a": a, "b": UnitSet.of("relu", [5], shape=(8, 2, 2))})) == ["a", "b"]
    places = recorded_units(parts, "relu", (8, 2, 2))
    np.testing.assert_array_equal(places["b"], np.arange(12, 16))
    x = np.arange(32).reshape(8, 2, 2)
    np.testing.assert_array_equal(x.reshape(-1)[places["a"]], x[:2].ravel())
    with pytest.raises(InputError, match="all units are in 'shared'"):
        parts_of_sets({"a": a, "b": a})
    with pytest.raises(InputError, match="was recorded"):
        recorded_units(parts, "conv", (8, 2, 2))
    with pytest.raises(InputError, match="are marked over"):
        recorded_units(parts, "relu", (9, 2, 2))


@pytest.fixture(scope="module")
def two_tasks():
    """A small network that tells faces and digits apart, and the filters that each task needs."""
    pytest.importorskip("sklearn")
    from actkit.extractors.dual_task_cnn import image_sets, train

    faces = actkit.load_data("rendered_faces", n_identities=4, n_exemplars=30, size=16).stimuli
    digits = actkit.load_data("digits").stimuli
    share = {"training": 12, "selectivity": 2, "ranking": 6, "evaluation": 10}
    sets = {
        "face": image_sets(faces, "identity", share),
        "digit": image_sets(digits, "digit", share | {"training": 20}),
    }
    network = train(sets, size=16, channels=[8, 12], units=12, epochs=8)
    layer = "features.relu2"
    ranking = actkit.rank_units(network, layer, [one.task(network, name, "ranking") for name, one in sets.items()])
    return network, sets, layer, {name: units_of(ranking, name, fraction=0.5) for name in sets}


def test_filters_of_a_two_task_network_and_modules_meet_in_one_table(two_tasks) -> None:
    network, sets, layer, needed = two_tasks
    parts = parts_of_sets(needed)
    assert set(parts) >= {"face", "digit"}
    # What ranked the filters measures nothing: read-outs learn from training images, all tests use the evaluation.
    evaluation = [images.task(network, name, "evaluation") for name, images in sets.items()]
    lesions = lesion_parts(network, evaluation, parts)
    assert set(lesions["task"].values) == {"face", "digit"}
    values, labels, test, shape = {}, {}, [], ()
    for task in evaluation:
        learnt = sets[task.name].task(network, task.name, "training")
        kept = []
        with capture(network.module, [layer], lambda _, out, kept=kept: kept.append(out.clone())) as forward:
            forward(torch.cat([learnt.inputs, task.inputs]))
        shape = tuple(kept[0].shape[1:])
        values[task.name] = kept[0].numpy()
        labels[task.name] = np.concatenate([learnt.targets, task.targets])
        test += [np.arange(len(kept[0])) >= len(learnt.targets)]
    states, columns, _ = pool_tasks(values, labels)
    places = recorded_units(parts, layer, shape)
    found = specialization(
        states, columns, places, np.concatenate(test), measures=["retraining", "correlation"], **FAST
    )
    assert (found["accuracy_all"] > found["chance"] + 0.2).all()
    s = found["S"].sel(measure="retraining")
    assert 0 <= float(s.squeeze()) <= 1
    # The same network lesioned: the joint read-out knows what the network does, and each set's part is its own.
    modules = np.random.default_rng(0).integers(3, size=(200, 2))
    rows = np.concatenate([np.eye(3)[modules[:, 0]], np.eye(3)[modules[:, 1]]], axis=1)
    rows = rows + 0.2 * np.random.default_rng(1).normal(size=rows.shape)
    rnn = specialization(
        rows, {"digit 0": modules[:, 0], "digit 1": modules[:, 1]}, {"m0": range(3), "m1": range(3, 6)}, **FAST
    )
    table = specialization_table({"filters": found, "filters, lesioned": lesions, "modules": rnn})
    assert table["measure"].tolist() == [
        "retraining", "correlation", "lesion", "retraining", "ablation", "correlation",
    ]  # fmt: skip
    one = table.iloc[0]
    at = found.isel(network=0, time=-1).sel(measure="retraining")["accuracy"]
    own = [float(at.sel(part=name, task=name)) for name in ("face", "digit")]
    other = [float(at.sel(part="face", task="digit")), float(at.sel(part="digit", task="face"))]
    assert one["own"] == pytest.approx(np.mean(own))
    assert one["other"] == pytest.approx(np.mean(other))
    assert table.iloc[2]["S"] == pytest.approx(float(lesions["S"]), nan_ok=True)
    assert table.iloc[3]["S"] > 0.8
    assert table.iloc[3]["own"] > 0.8 > table.iloc[3]["other"]
    assert table.iloc[0]["parts"] == ", ".join(parts)
    with pytest.raises(InputError, match="'x' is a result of no analysis"):
        specialization_table({"x": found.drop_attrs()})
