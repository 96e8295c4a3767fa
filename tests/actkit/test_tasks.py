"""Tasks: refused where nothing could be learnt from them, drawn and cut by class, losses against plain arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from actkit.errors import InputError
from actkit.network import Network
from actkit.stimuli import Stimuli
from actkit.tasks import Task, image_losses, make_task, split, stratified, task_losses


def a_task(targets, classes=None):
    targets = np.asarray(targets)
    ids = np.array([f"s{i}" for i in range(len(targets))])
    return Task("faces", torch.arange(len(targets), dtype=torch.float32)[:, None], targets, classes, ids)


class_lists = st.lists(st.integers(0, 5), min_size=4, max_size=60).filter(lambda v: len(set(v)) > 1)


# -- tasks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "targets", "classes", "message"),
    [
        (torch.zeros(0, 2), [], None, "has no images"),
        (torch.zeros(3, 2), [1, 1, 1], None, r"all 3 images .* one class \(column 1\)"),
        (torch.zeros(3, 2), [0, 1], None, "2 targets for 3 images"),
        (torch.zeros(2, 2), [0, -1], None, "whole numbers from 0"),
        (torch.zeros(2, 2), [0.0, 1.0], None, "whole numbers from 0"),
        (torch.zeros(2, 2), [0, 3], [0, 1], "target 3 .* is not among its 2 classes"),
        (torch.zeros(2, 2), [0, 1], [0, 1, 1], "an output column twice"),
        (torch.tensor([[0.0], [float("nan")]]), [0, 1], None, "image 1 of task 'faces' holds NaN"),
        (np.zeros((2, 2)), [0, 1], None, "inputs are a ndarray"),
    ],
)
def test_tasks_that_nothing_can_be_learnt_from_are_refused(inputs, targets, classes, message):
    with pytest.raises(InputError, match=message):
        Task("faces", inputs, np.array(targets), None if classes is None else np.array(classes))


def test_chance_is_of_the_tasks_own_columns():
    assert a_task([0, 1, 1]).chance == 1 / 2
    assert a_task([0, 1, 1], np.array([0, 1, 4, 5])).chance == 1 / 4


def test_a_fingerprint_follows_the_pixels_and_targets():
    task = a_task([0, 1, 2])
    assert task.fingerprint == a_task([0, 1, 2]).fingerprint
    assert task.fingerprint != a_task([0, 2, 1]).fingerprint
    assert task.fingerprint != Task("faces", task.inputs + 1, task.targets).fingerprint


# -- drawing and cutting -----------------------------------------------------------------------------


@given(class_lists, st.data())
@settings(max_examples=60, deadline=None)
def test_draws_take_classes_evenly_and_nest(targets, data):
    task = a_task(targets)
    held = np.bincount(targets, minlength=6)
    n = data.draw(st.integers(2, len(targets)))
    seed = data.draw(st.integers(0, 99))
    drawn = stratified(task, n, seed)
    counts = np.bincount(drawn.targets, minlength=6)
    assert counts.sum() == n
    short = counts < held  # classes that had more to give are within one of the fullest
    assert not short.any() or counts[short].min() >= counts.max() - 1
    assert np.array_equal(drawn.inputs[:, 0].numpy(), np.sort(drawn.inputs[:, 0].numpy()))
    assert set(drawn.ids) <= set(stratified(task, len(targets), seed).ids)
    if n < len(targets):
        assert set(drawn.ids) < set(stratified(task, n + 1, seed).ids)


def test_another_seed_draws_other_images():
    task = a_task([0, 1] * 50)
    draws = {tuple(stratified(task, 10, seed).ids) for seed in range(10)}
    assert len(draws) == 10


def test_a_draw_of_too_many_is_refused():
    with pytest.raises(InputError, match="5 images cannot be drawn from the 4"):
        stratified(a_task([0, 0, 1, 1]), 5, 0)


@given(class_lists, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_halves_are_disjoint_and_even_in_every_class(targets, seed):
    task = a_task(targets)
    held = np.bincount(targets, minlength=6)
    if held[held > 0].min() < 2:
        with pytest.raises(InputError, match="has a single image"):
            split(task, seed)
        return
    first, second = split(task, seed)
    assert not set(first.ids) & set(second.ids)
    assert set(first.ids) | set(second.ids) == set(task.ids)
    a, b = (np.bincount(half.targets, minlength=6) for half in (first, second))
    assert np.abs(a - b).max() <= 1
    assert abs(len(first) - len(second)) <= 1


# -- losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, [0, 2, 3]])
def test_losses_equal_plain_arithmetic(classes):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(20, 5)) * 30, rng.choice([0, 2, 3], size=20)
    loss, correct = image_losses(torch.from_numpy(logits), targets, classes)
    kept = np.arange(5) if classes is None else np.array(classes)
    for i in range(20):
        row = logits[i, kept]
        expected = np.log(np.exp(row - row.max()).sum()) + row.max() - logits[i, targets[i]]
        assert abs(float(loss[i]) - expected) < 1e-12
        assert float(correct[i]) == float(kept[row.argmax()] == targets[i])
    assert loss.dtype == correct.dtype == torch.float64


def test_small_losses_keep_their_digits_in_float32_networks():
    loss, _ = image_losses(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    assert abs(float(loss) - np.log1p(np.exp(-20.0))) < 1e-15  # float32 would say 0


def test_nan_logits_are_never_right():
    loss, correct = image_losses(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))
    assert torch.isnan(loss).all()
    assert float(correct) == 0


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        ([0, 3], None, "output column 3 does not exist; the network has 3 outputs"),
        ([0], None, r"\(1,\) targets were given for 2 images"),
        ([0, 1], [0, 1, 3], "the classes: output column 3"),
        ([0, 2], [0, 1], "not among the classes"),
    ],
)
def test_what_losses_refuse(targets, classes, message):
    with pytest.raises(InputError, match=message):
        image_losses(torch.zeros(2, 3), np.array(targets), classes)


# -- from stimuli ------------------------------------------------------------------------------------


def stimuli(**labels):
    n = len(next(iter(labels.values())))
    arrays = np.random.default_rng(0).random((n, 3), dtype=np.float32)
    return Stimuli.from_array(arrays, ids=[f"s{i}" for i in range(n)], labels=labels)


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.5)).train()
    return Network(module, input_shape=(3,), provenance={"classes": ["faces:anna", "faces:bert", "cars:vw", "cars:x"]})


def test_labels_become_columns(network):
    people = stimuli(who=["bert", "anna", "bert"], number=[4, 0, 5])
    task = make_task(network, "faces", people, "who")
    assert task.targets.tolist() == [1, 0, 1]
    assert task.classes.tolist() == [0, 1]
    assert task.ids.tolist() == ["s0", "s1", "s2"]
    assert make_task(network, "x", people, "who", {"anna": 5, "bert": 2}).targets.tolist() == [2, 5, 2]
    assert make_task(network, "x", people, "who", ["bert", "cleo", "anna"]).classes.tolist() == [0, 1, 2]
    bare = Network(network.module, input_shape=(3,))
    plain = make_task(bare, "x", people, "number")
    assert plain.targets.tolist() == [4, 0, 5]
    assert plain.classes is None
    assert make_task(network, "x", people, "number", {4: 1, "0": 2, 5: 3}).targets.tolist() == [1, 2, 3]
    assert network.module.training  # only looked at


@pytest.mark.parametrize(
    ("name", "label", "classes", "message"),
    [
        ("faces", "whom", None, "no label 'whom'.*nearest: 'who'"),
        ("x", "who", None, "has learnt no task 'x'"),
        ("face", "number", None, "has learnt no task 'face'; nearest: 'faces'"),
        ("x", "who", {"anna": 0}, "value 'bert', which has no output column"),
        ("x", "who", {"anna": 0, "bert": 0}, "twice"),
        ("x", "who", {"anna": 0, "bert": 6}, "output column 6 does not exist; the network has 6"),
    ],
)
def test_labels_without_a_column_are_refused(network, name, label, classes, message):
    with pytest.raises(InputError, match=message):
        make_task(network, name, stimuli(who=["bert", "anna"], number=[1, 0]), label, classes)


def test_labels_of_a_network_without_classes_must_be_columns(network):
    with pytest.raises(InputError, match="does not say which column"):
        make_task(Network(network.module, input_shape=(3,)), "x", stimuli(who=["bert", "anna"]), "who")


def test_task_losses_run_in_evaluation_mode_whatever_the_batch(network):
    task = make_task(network, "faces", stimuli(who=["bert", "anna", "bert"]), "who")
    a, b = (task_losses(network.module, task, batch) for batch in (1, 3))
    expected, right = image_losses(network.module[0](task.inputs), task.targets)
    for values in (a, b):
        np.testing.assert_allclose(values["loss"], expected.detach().numpy(), rtol=1e-6)
        assert np.array_equal(values["correct"], right.numpy())
        assert (values["loss_own"] < values["loss"]).all()
    assert network.module[1].training


def test_nan_losses_name_the_image(network):
    task = make_task(network, "faces", stimuli(who=["bert", "anna", "bert"]), "who")
    with torch.no_grad():
        network.module[0].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="3 of 3 losses of task 'faces' are NaN or infinite, the first for image 's0'"):
        task_losses(network.module, task)
