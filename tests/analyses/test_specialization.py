"""Specialization: known forms, planted parts, exact similarity, read-outs trained together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actkit.analyses.specialization import specialization
from actkit.analyses.specialization_heads import HeadSettings, fit_heads
from actkit.analyses.specialization_index import (
    beats_chance,
    correct_for_chance,
    part_index,
    raw_difference,
    specialization_of,
)
from actkit.analyses.specialization_similarity import pair_similarity
from actkit.errors import InputError

FAST = {"epochs": 25, "learning_rate": 1e-2, "batch": 64}


def planted(mix: float, n: int = 600, classes: int = 4, seed: int = 0, units: int = 8):
    """Two parts of units; part k carries digit k, and a share of the other one."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(classes, size=(n, 2))
    codes = [np.random.default_rng(50 + k).normal(size=(classes, units)) for k in range(2)]
    own = [codes[k][digits[:, k]] for k in range(2)]
    parts = [(1 - mix) * own[k] + mix * own[1 - k] for k in range(2)]
    states = np.concatenate(parts, axis=1) + 0.05 * rng.normal(size=(n, 2 * units))
    labels = {"first": digits[:, 0], "second": digits[:, 1]}
    return states, labels, {"a": np.arange(units), "b": np.arange(units, 2 * units)}


# Known forms


def test_s_of_two_parts_is_the_published_form() -> None:
    rng = np.random.default_rng(0)
    known = rng.random((50, 2, 2))
    s = part_index(known)
    np.testing.assert_allclose(specialization_of(known), np.abs(s[:, 0] - s[:, 1]) / 2, atol=1e-15)
    assert specialization_of(np.array([[1.0, 0], [0, 1]])) == 1
    assert specialization_of(np.array([[0.4, 0.8], [0.2, 0.4]])) == pytest.approx(0)
    assert specialization_of(np.eye(3)) == 1
    # Correlations may be negative, and S is then not held to 1.
    assert specialization_of(np.array([[0.5, -0.1], [0.0, 0.5]])) > 1


@given(
    known=hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)),
    parts=st.permutations(range(3)),
    tasks=st.permutations(range(4)),
)
@settings(max_examples=50, deadline=None)
def test_names_of_parts_and_tasks_do_not_matter(known, parts, tasks) -> None:
    s = specialization_of(known)
    assert (np.isnan(s) and not known.any()) or 0 <= s <= 1 + 1e-12
    np.testing.assert_allclose(specialization_of(known[list(parts)][:, list(tasks)]), s, atol=1e-12)
    np.testing.assert_allclose(raw_difference(known[list(parts)][:, list(tasks)]), raw_difference(known), atol=1e-12)


def test_parts_that_know_nothing() -> None:
    assert np.isnan(specialization_of(np.zeros((2, 2))))
    assert specialization_of(np.array([[0.8, 0.0], [0.0, 0.0]])) == 0.5  # the silent part divides evenly
    assert np.isnan(part_index(np.array([[0.0, 0.0]]))[0])
    accuracy = np.array([[0.5, 0.3], [0.2, 0.4]])
    assert raw_difference(accuracy) == pytest.approx(abs((0.5 - 0.3) - (0.2 - 0.4)) / 2)
    with pytest.raises(InputError, match="two parts and two sub-tasks"):
        specialization_of(np.zeros((1, 2)))


def test_chance_is_zero_and_its_bound_is_exact() -> None:
    np.testing.assert_allclose(correct_for_chance(np.array([0.1, 0.55, 1, 0.02]), 0.1), [0, 0.5, 1, 0])
    rng = np.random.default_rng(0)
    guessed = rng.binomial(200, 0.1, size=20000) / 200
    wrong = beats_chance(guessed, 0.1, 200).mean()
    assert 0.002 < wrong <= 0.011
    assert beats_chance(np.array([0.165]), 0.1, 200).all()
    with pytest.raises(InputError, match="leaves nothing to know"):
        correct_for_chance(np.array([0.5]), 1.0)


# Planted parts


def test_fully_specialised_parts_have_s_of_one_in_every_measure() -> None:
    states, labels, parts = planted(0.0)
    result = specialization(states, labels, parts, **FAST)
    s = result["S"].isel(network=0, time=0)
    np.testing.assert_allclose(s.sel(measure=["retraining", "ablation"]), 1, atol=0.12)
    np.testing.assert_allclose(s.sel(measure="correlation"), 1, atol=0.05)
    assert (result["accuracy_all"] > 0.95).all()
    index = part_index(result["known"].isel(network=0, time=0).transpose("measure", "part", "task").values)
    assert (index[:, 0] > 0.75).all()
    assert (index[:, 1] < -0.75).all()


def test_identical_parts_have_s_of_zero_in_every_measure() -> None:
    states, labels, parts = planted(0.5)
    states[:, parts["b"]] = states[:, parts["a"]]
    result = specialization(states, labels, parts, **FAST)
    s = result["S"].isel(network=0, time=0)
    assert s.sel(measure="retraining").item() == pytest.approx(0, abs=0.06)
    # Read-outs of identical parts differ by their first weights alone.
    assert s.sel(measure="ablation").item() == pytest.approx(0, abs=0.12)
    assert s.sel(measure="correlation").item() == 0


def test_more_mixing_means_less_specialization() -> None:
    values = []
    for mix in (0.0, 0.2, 0.35, 0.5):
        states, labels, parts = planted(mix)
        values.append(specialization(states, labels, parts, **FAST)["S"].isel(network=0, time=0).values)
    assert (np.diff(np.array(values)[:, [0, 2]], axis=0) < 0.02).all()
    assert np.array(values)[0, 0] - np.array(values)[-1, 0] > 0.6


def test_noise_has_no_s_but_a_raw_difference() -> None:
    rng = np.random.default_rng(0)
    digits = rng.integers(10, size=(500, 2))
    result = specialization(
        rng.normal(size=(500, 8)),
        {"a": digits[:, 0], "b": digits[:, 1]},
        {"x": range(4), "y": range(4, 8)},
        measures=["retraining", "ablation"],
        epochs=5,
    )
    assert np.isnan(result["S"].values).all()
    assert np.isfinite(result["raw_difference"].values).all()
    assert float(result["raw_difference"].max()) < 0.15


def test_three_parts_the_third_shared() -> None:
    states, labels, parts = planted(0.0, n=800)
    shared = np.concatenate([states, states[:, :4] + states[:, 8:12]], axis=1)
    parts |= {"shared": np.arange(16, 20)}
    result = specialization(shared, labels, parts, measures=["retraining", "correlation"], **FAST)
    known = result["known"].sel(part="shared").isel(network=0, time=0)
    assert (known > 0.1).all()
    alone = specialization(states, labels, {k: parts[k] for k in "ab"}, measures=["retraining"], **FAST)
    assert float(result["S"][0, 0, 0]) < float(alone["S"][0, 0, 0])


def test_networks_and_times_are_measured_as_if_alone() -> None:
    first, labels, parts = planted(0.0, seed=0)
    second, others, _ = planted(0.4, seed=1)
    test = np.arange(600) % 4 == 0
    both = xr.DataArray(
        np.stack([np.stack([first, second], axis=1), np.stack([second, second], axis=1)]),
        dims=("network", "stimulus", "time", "unit"),
        coords={"network": ["p", "q"], "time": [10, 20]},
    )
    together = {name: np.stack([labels[name], others[name]]) for name in labels}
    result = specialization(both, together, parts, test=test, **FAST)
    assert result.sizes == {"network": 2, "measure": 3, "time": 2, "part": 2, "task": 2}
    assert result["time"].values.tolist() == [10, 20]
    alone = specialization(np.stack([second, second], axis=1), others, parts, test=test, **FAST)
    np.testing.assert_allclose(result["accuracy"].sel(network="q"), alone["accuracy"][0], atol=0.02)
    tight = specialization(both, together, parts, test=test, memory="1MB", **FAST)
    np.testing.assert_allclose(result["accuracy"], tight["accuracy"], atol=0.02)
    # What was recorded while the other digit was shown is not what is asked about.
    assert float(result["S"].sel(network="p", measure="retraining", time=10)) > 0.8


def test_equal_sub_tasks_warn_and_have_no_specialization() -> None:
    states, labels, parts = planted(0.0)
    with pytest.warns(UserWarning, match="'first' and 'again' have the same answers throughout"):
        result = specialization(
            states, {"first": labels["first"], "again": labels["first"]}, parts, measures=["retraining"], **FAST
        )
    assert float(result["S"].squeeze()) == pytest.approx(0, abs=0.08)


def test_an_answer_that_is_frequent_raises_chance() -> None:
    states, labels, parts = planted(0.0, classes=2)
    uneven = np.where(np.random.default_rng(1).random(600) < 0.8, 0, labels["second"])
    result = specialization(states, {"first": labels["first"], "uneven": uneven}, parts, measures=["retraining"])
    assert float(result["chance"][0]) == 0.5
    assert float(result["chance"][1]) == pytest.approx(0.9, abs=0.05)


# Similarity and read-outs against plain versions


def test_similarity_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(30, 7)) + 1, rng.integers(3, size=30)
    r = np.corrcoef(x)
    total, weight = 0.0, 0
    for g in range(3):
        own = np.flatnonzero(groups == g)
        pairs = [r[i, j] for i in own for j in own if i != j]
        total, weight = total + len(own) * np.mean(pairs), weight + len(own)
    assert pair_similarity(x, groups) == pytest.approx(total / weight, abs=1e-13)
    x[3] = 2.0  # without variance: left out
    kept = np.arange(30) != 3
    assert pair_similarity(x, groups) == pytest.approx(pair_similarity(x[kept], groups[kept]), abs=1e-13)
    assert np.isnan(pair_similarity(x[:2], np.array([0, 1])))


@pytest.mark.parametrize("hidden", [0, 6])
def test_heads_trained_together_are_a_plain_head_each(hidden) -> None:
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(size=(2, 40, 3, 5)).astype(np.float32))
    labels = torch.from_numpy(np.stack([rng.integers(3, size=(2, 40)), rng.integers(2, size=(2, 40))], axis=2))
    views = torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    made = HeadSettings(hidden=hidden, epochs=3, batch=16, learning_rate=0.01, seed=4)
    heads = fit_heads(states, labels, [3, 2], views, made)
    start = fit_heads(states, labels, [3, 2], views, HeadSettings(hidden=hidden, epochs=0, seed=4))
    from actkit.resampling import Stream, generator

    network, view, task, classes = 1, 0, 1, 2
    last = torch.nn.Linear(hidden or 5, 3)
    layers = [torch.nn.Linear(5, hidden), torch.nn.ReLU(), last] if hidden else [last]
    plain = torch.nn.Sequential(*layers)
    with torch.no_grad():
        if hidden:
            layers[0].weight.copy_(start.first[network, view, task])
            layers[0].bias.copy_(start.first_bias[network, view, task, 0])
        last.weight.copy_(start.last[network, view, task])
        last.bias.copy_(torch.nan_to_num(start.last_bias[network, view, task, 0], neginf=0.0))
        last.bias[classes:] = -1e9  # a class that the sub-task does not have
    optimiser = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=1e-5)
    for epoch in range(3):
        order = generator(4, epoch, Stream.STIMULI).permutation(40)
        for begin in (0, 16):
            rows = order[begin : begin + 16]
            seen = (states[network, rows] * views[view]).reshape(-1, 5)
            truth = labels[network, rows, task].repeat_interleave(3)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(plain(seen), truth).backward()
            optimiser.step()
    logits = heads.logits((states[network] * views[view]).reshape(1, -1, 5).expand(2, -1, -1))[network, view, task]
    expected = plain((states[network] * views[view]).reshape(-1, 5))
    torch.testing.assert_close(logits[:, :classes], expected[:, :classes], atol=2e-4, rtol=0)
    assert torch.isneginf(logits[:, classes:]).all()
    guess = expected[:, :classes].argmax(dim=1).view(40, 3)
    right = (guess == labels[network, :, task][:, None]).double().mean(dim=0)
    np.testing.assert_allclose(heads.accuracy(states, labels, batch=30)[network, view, task], right, atol=1e-12)


def test_bad_input_is_refused_with_its_cure() -> None:
    states, labels, parts = planted(0.0, n=40)
    with pytest.raises(InputError, match="1 sub-task divides nothing"):
        specialization(states, {"first": labels["first"]}, parts)
    with pytest.raises(InputError, match="1 part has no other"):
        specialization(states, labels, {"a": [0, 1]})
    with pytest.raises(InputError, match="part 'b' has no unit"):
        specialization(states, labels, {"a": [0], "b": []})
    with pytest.raises(InputError, match=r"part 'b' has unit \[3, 99\]"):
        specialization(states, labels, {"a": [0], "b": [3, 99]})
    with pytest.raises(InputError, match="all answers of sub-task 'second' are '1'"):
        specialization(states, {"first": labels["first"], "second": np.ones(40, dtype=int)}, parts)
    with pytest.raises(InputError, match=r"labels of 'second' have shape \(39,\)"):
        specialization(states, {"first": labels["first"], "second": labels["second"][1:]}, parts)
    with pytest.raises(InputError, match="0 of 40 stimuli are for the test"):
        specialization(states, labels, parts, test=np.zeros(40, dtype=bool))
    states[3, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        specialization(states, labels, parts)
