"""Networks of modules: pairs, tasks, wiring, dynamics, and training many as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.errors import InputError
from actkit.extractors.digit_pairs import Glyphs, draw_onsets, equal_share, noisy_steps, pair_up
from actkit.extractors.digit_tasks import TASKS, decide, question
from actkit.extractors.modular_rnn import ModularOptions, ModularRNN, mask_of
from actkit.extractors.modular_training import World, train_networks
from actkit.extractors.modular_wiring import connections, modularity, modularity_of_modules, wiring
from actkit.stimuli import Stimuli


def glyphs(n: int = 400, classes: int = 4, pixels: int = 9, seed: int = 0) -> Glyphs:
    """Noisy copies of one pattern a class."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(classes, pixels))
    labels = rng.integers(classes, size=n)
    images = patterns[labels] + 0.3 * rng.normal(size=(n, pixels))
    ids = tuple(f"{seed}_{k}" for k in range(n))
    return Glyphs(images.astype(np.float32), labels, tuple("abcdefghij"[:classes]), ids)


# Pairs


@pytest.mark.parametrize(("c", "share"), [(1, 0.1), (0.3, 0.27), (0.1, 0.526), (0.03, 0.787), (0, 1), (3, 0.036)])
def test_pairs_are_equal_as_often_as_the_covariance_says(c: float, share: float) -> None:
    labels = np.repeat(np.arange(10), 2000)
    pairs = pair_up(labels, 10, cov_ratio=c, seed=3)
    assert equal_share(10, c) == pytest.approx(share, abs=0.001)
    equal = (pairs.labels[:, 0] == pairs.labels[:, 1]).mean()
    assert equal == pytest.approx(equal_share(10, c), abs=4 * np.sqrt(0.25 / len(labels)))
    assert np.array_equal(labels[pairs.rows], pairs.labels)
    assert np.array_equal(pairs.rows[:, 0], np.arange(len(labels)))


def test_unequal_classes_are_drawn_by_weight_like_a_plain_version() -> None:
    labels = np.repeat([0, 1, 2], [1000, 2000, 5000])
    pairs = pair_up(labels, 3, cov_ratio=0.5, seed=1)
    for k in range(3):
        weight = np.where(labels == k, 1.0, 0.5)
        for other in range(3):
            expected = weight[labels == other].sum() / weight.sum()
            assert (pairs.labels[labels == k, 1] == other).mean() == pytest.approx(expected, abs=0.06)


def test_balanced_pairs_have_both_parities_alike_and_never_equal_digits() -> None:
    labels = np.repeat(np.arange(10), 1000)
    pairs = pair_up(labels, 10, balanced=True, seed=2)
    gap = (pairs.labels[:, 1] - pairs.labels[:, 0]) % 10
    assert set(gap) == set(range(2, 10))
    same_parity = (pairs.labels.sum(axis=1) % 2 == 0).mean()
    assert same_parity == pytest.approx(0.5, abs=0.03)


def test_pairs_repeat_by_seed_and_refuse_what_they_cannot_be() -> None:
    labels = np.arange(60) % 3
    assert np.array_equal(pair_up(labels, 3, seed=5).rows, pair_up(labels, 3, seed=5).rows)
    assert not np.array_equal(pair_up(labels, 3, seed=5).rows, pair_up(labels, 3, seed=6).rows)
    with pytest.raises(InputError, match="cov_ratio=-1 is negative"):
        pair_up(labels, 3, cov_ratio=-1, seed=0)
    with pytest.raises(InputError, match="no pair of 60 is left"):
        pair_up(labels, 3, cov_ratio=0, balanced=True, seed=0)
    with pytest.raises(InputError, match="not of 3"):
        pair_up(labels, 3, balanced=True, modules=3, seed=0)


def test_glyphs_are_normalised_and_shrunk() -> None:
    pictures = np.zeros((4, 4, 4), dtype=np.uint8)
    pictures[0, :2, :2] = 255
    stimuli = Stimuli.from_array(pictures, list("abcd"), {"digit": [3, 1, 3, 1]}, "four", "as made")
    made = Glyphs.of(stimuli, "digit", shrink=2, centre=0.5, scale=0.25)
    assert made.images.shape == (4, 4)
    np.testing.assert_allclose(made.images[0], [2, -2, -2, -2])
    assert made.classes == ("1", "3")
    assert made.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(InputError, match="no label 'letter'"):
        Glyphs.of(stimuli, "letter", centre=0, scale=1)
    with pytest.raises(InputError, match="shrink=3 does not divide"):
        Glyphs.of(stimuli, "digit", shrink=3, centre=0, scale=1)
    with pytest.raises(InputError, match="all 2 images are of class 3"):
        Glyphs.of(stimuli[[0, 2]], "digit", centre=0, scale=1)


# Noise and onsets


def test_noise_is_a_mean_over_other_images_and_pure_before_the_onset() -> None:
    images = torch.arange(24, dtype=torch.float32).reshape(4, 2, 3) + 1
    random = torch.Generator().manual_seed(1)
    onsets = torch.tensor([[1, 2], [1, 1], [2, 2], [2, 1]])
    shown = noisy_steps(images, 4, 0.4, random, onsets)
    again = torch.Generator().manual_seed(1)
    for step in range(4):
        noise = torch.zeros(4, 2, 3)
        for _ in range(5):
            order = torch.randperm(4, generator=again)
            noise += images[order] * (torch.rand(2, 3, generator=again) < 0.2) / 5
        for sample in range(4):
            for module in range(2):
                r = 0.4 if step >= onsets[sample, module] else 1.0
                expected = (1 - r) * images[sample, module] + r * noise[sample, module]
                torch.testing.assert_close(shown[step, sample, module], expected)


def test_noise_has_a_fifth_of_the_mean_image() -> None:
    images = torch.full((64, 1, 500), 3.0)
    shown = noisy_steps(images, 6, 1.0, torch.Generator().manual_seed(0))
    # Each of five slots keeps a pixel with probability 1/5: the mean over slots keeps a fifth on average.
    assert shown.mean().item() == pytest.approx(0.6, abs=0.02)
    assert torch.equal(noisy_steps(images, 3, 0.0, torch.Generator())[2], images)
    with pytest.raises(InputError, match=r"noise=1\.5 is not a share"):
        noisy_steps(images, 2, 1.5, torch.Generator())


def test_onsets_are_uniform_and_independent() -> None:
    onsets = draw_onsets(9000, 2, 5, 0)
    assert set(np.unique(onsets)) == {1, 2, 3}
    counts = np.histogram2d(onsets[:, 0], onsets[:, 1], bins=3)[0]
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    with pytest.raises(InputError, match="three steps or more"):
        draw_onsets(5, 2, 2, 0)


# Tasks


def test_the_swap_is_a_true_swap() -> None:
    digits = np.array([(a, b) for a in range(10) for b in range(10)])
    targets = question("parity_both", digits, 10).targets
    swapped = question("parity_both", digits[:, ::-1], 10).targets
    for (a, b), (first, second) in zip(digits, targets[:, 0], strict=True):
        assert first == (a if (a + b) % 2 else b)
        assert second == (b if (a + b) % 2 else a)
    assert np.array_equal(targets[:, 0, 1], swapped[:, 0, 0])  # the second output is the first of the swapped pair
    unequal = digits[:, 0] != digits[:, 1]
    assert (targets[unequal, 0, 0] != targets[unequal, 0, 1]).all()


def test_every_task_asks_what_it_says() -> None:
    digits = np.array([[3, 4], [2, 2], [9, 1]])
    expected = {
        "parity": [[3], [2], [1]],
        "parity_of_sum": [[1], [0], [0]],
        "sum": [[7], [4], [10]],
        "both": [[3, 4], [2, 2], [9, 1]],
    }
    for task, targets in expected.items():
        assert question(task, digits, 10).targets[:, 0].tolist() == targets
        assert question(task, digits, 10).targets[:, 1].tolist() == targets
    assert question("own", digits, 10).targets[:, :, 0].tolist() == [[3, 4], [2, 2], [9, 1]]
    assert question("other", digits, 10).targets[:, :, 0].tolist() == [[4, 3], [2, 2], [1, 9]]
    assert question("own", digits, 10).decision == "each"
    assert question("sum", digits, 10).n_classes == 19
    assert set(TASKS) == {*expected, "parity_both", "own", "other"}


def test_tasks_refuse_what_has_no_answer() -> None:
    digits = np.array([[3, 4], [2, 2]])
    with pytest.raises(InputError, match=r"no task 'parity_bth'.*parity_both"):
        question("parity_bth", digits, 10)
    with pytest.raises(InputError, match="1 class leaves nothing"):
        question("both", np.zeros((3, 2), dtype=int), 1)
    with pytest.raises(InputError, match="every sample has the target 0 in output 0"):
        question("parity_of_sum", np.array([[2, 2], [1, 1]]), 10)
    with pytest.raises(InputError, match="for 2 modules and there are 3"):
        question("parity", np.array([[1, 2, 3]]), 10)
    with pytest.raises(InputError, match="beyond 0 to 2"):
        question("both", digits, 3)


def test_the_module_with_the_largest_logit_decides_and_alone_learns() -> None:
    logits = torch.tensor([[[[1.0, 5.0]], [[4.0, 2.0]]], [[[0.0, 1.0]], [[3.0, 0.0]]]], requires_grad=True)
    decided = decide(logits, "max")
    assert decided.flatten().tolist() == [1, 5, 3, 0]
    decided.sum().backward()
    assert logits.grad is not None
    assert logits.grad[:, :, 0, 0].tolist() == [[1, 0], [0, 1]]
    assert decide(logits, "sum").flatten().tolist() == [5, 7, 3, 1]


# Wiring


@given(units=st.integers(2, 12), modules=st.integers(2, 4), share=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_wiring_has_the_connections_asked_for_and_their_modularity(units, modules, share, seed) -> None:
    count = int(share * units**2)
    mask = wiring(modules, units, count, seed)
    part = np.repeat(np.arange(modules), units)
    assert not mask.diagonal().any()
    for a in range(modules):
        for b in range(modules):
            block = mask[part == a][:, part == b]
            assert block.sum() == (units * (units - 1) if a == b else count)
    exact = modularity(mask, part)
    assert exact == pytest.approx(modularity_of_modules(-count if count else 0.0, modules, units), abs=1e-12)
    # The published form counts a unit's connection to itself as there.
    whole = mask | np.eye(len(mask), dtype=bool)
    assert modularity(whole, part) == pytest.approx(modularity_of_modules(count / units**2, modules), abs=1e-12)


@pytest.mark.parametrize(("p", "q"), [(1, 0), (0.5, 1 / 6), (0.1, 0.4090909090909091), (0.01, 0.49009900990099015)])
def test_modularity_of_two_modules_is_the_published_form(p: float, q: float) -> None:
    assert modularity_of_modules(p) == pytest.approx((1 - p) / (2 * (1 + p)), abs=1e-15)
    assert modularity_of_modules(p) == pytest.approx(q, abs=1e-15)
    assert modularity_of_modules(p, 5) <= 1 - 1 / 5


def test_modularity_equals_networkx_like_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    a, part = rng.random((9, 9)) < 0.4, rng.integers(3, size=9)
    total, k_out, k_in = a.sum(), a.sum(axis=0), a.sum(axis=1)
    plain = sum(a[i, j] - k_in[i] * k_out[j] / total for i in range(9) for j in range(9) if part[i] == part[j])
    assert modularity(a, part) == pytest.approx(plain / total, abs=1e-14)


def test_connections_round_down_and_refuse_less_than_one() -> None:
    assert connections(0.07, 10) == 7
    assert connections(0.999, 10) == 99
    assert connections(-3, 10) == 3
    assert connections(0, 10) == 0
    with pytest.raises(InputError, match=r"p=0.001 of 100 possible connections is less than one.*p=-1"):
        connections(0.001, 10)
    with pytest.raises(InputError, match="asks for 101 connections"):
        connections(-101, 10)
    for p in (1.5, -0.5, float("nan")):
        with pytest.raises(InputError, match="neither a share"):
            connections(p, 10)
    few, many = wiring(2, 6, 4, 7), wiring(2, 6, 20, 7)
    assert (many | ~few).all()  # fewer connections are a subset of more
    with pytest.raises(ValueError, match=r"modules of \[10, 12\] units are not equally large"):
        ModularOptions(units=[10, 12])


# Dynamics


def plain(module: ModularRNN, images: np.ndarray) -> list[np.ndarray]:
    """States after every step, one sample and one unit at a time in spirit: the equations as written."""
    w = {name: value.detach().double().numpy() for name, value in module.weights.items()}
    n, m = module.options.size, module.options.modules
    gates = len(w["recurrent"]) // (m * n)
    mask = np.tile(module.mask.numpy(), (gates, 1))
    h = np.zeros((len(images), m * n))
    out = []
    for step in range(images.shape[1]):
        drive = np.zeros((gates, len(images), m * n))
        for k in range(m):
            for g in range(gates):
                own = w["input"][k, g * n : (g + 1) * n]
                drive[g, :, k * n : (k + 1) * n] = images[:, step, k] @ own.T
        sent = np.stack([h @ (w["recurrent"] * mask)[g * m * n : (g + 1) * m * n].T for g in range(gates)])
        if gates == 1:
            h = np.tanh(drive[0] + sent[0])
        else:
            sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
            r, z = sigmoid(drive[0] + sent[0]), sigmoid(drive[1] + sent[1])
            h = (1 - z) * np.tanh(drive[2] + r * sent[2]) + z * h
        out.append(h)
    return out


@pytest.mark.parametrize("cell", ["tanh", "gru"])
@pytest.mark.parametrize("modules", [2, 3])
def test_dynamics_are_those_of_the_equations(cell, modules) -> None:
    options = ModularOptions(units=5, modules=modules, p=0.2, cell=cell, seed=3)
    module = ModularRNN(options, 4, 2, 3)
    states: list[torch.Tensor] = []
    module.states[1].register_forward_hook(lambda _m, _i, out: states.append(out))
    images = torch.randn(6, 4, modules, 4, generator=torch.Generator().manual_seed(0))
    logits = module(images)
    expected = plain(module, images.double().numpy())
    for state, h in zip(states, expected, strict=True):
        np.testing.assert_allclose(state.detach().numpy(), h[:, 5:10], atol=2e-6)
    assert logits.shape == (6, 2 * 3)
    assert not torch.equal(mask_of(options), mask_of(options.model_copy(update={"seed": 4})))


def test_a_gru_without_a_mask_is_torchs_own() -> None:
    options = ModularOptions(units=3, p=1, cell="gru", seed=1)
    module = ModularRNN(options, 4, 1, 2)
    module.mask[:] = True
    theirs = torch.nn.GRU(8, 6, bias=False, batch_first=True)
    own = module.weights["input"].detach().reshape(2, 3, 3, 4)
    joined = torch.zeros(3, 2, 3, 8)
    for k in range(2):
        joined[:, k, :, 4 * k : 4 * k + 4] = own[k]
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(joined.reshape(18, 8))
        theirs.weight_hh_l0.copy_(module.weights["recurrent"])
    states: list[torch.Tensor] = []
    module.states[0].register_forward_hook(lambda _m, _i, out: states.append(out))
    images = torch.randn(5, 4, 2, 4, generator=torch.Generator().manual_seed(2))
    module(images)
    expected = theirs(images.flatten(2))[0][:, :, :3]
    torch.testing.assert_close(torch.stack(states, 1), expected, atol=1e-6, rtol=0)


def test_messages_arrive_one_step_later_and_only_through_connections() -> None:
    images = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[:, :, 1] += 1  # the other module sees something else
    for p, steps_alike in ((0.0, 4), (1.0, 1)):
        module = ModularRNN(ModularOptions(units=4, p=p), 5, 1, 3)
        seen: list[torch.Tensor] = []
        module.states[0].register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out.detach()))
        module(images)
        module(changed)
        alike = [torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True)]
        assert sum(alike) == steps_alike
        assert alike[0]


def test_a_network_can_be_recorded_and_read_lesions_leave_the_dynamics_alone() -> None:
    module = ModularRNN(ModularOptions(units=4, p=1.0), 5, 2, 3).eval()
    images = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    assert module(images).shape == (3, 6)
    torch.testing.assert_close(module(images), module(images[:, None].expand(3, 5, 2, 5)))
    with pytest.raises(InputError, match="does not fit 2 modules of 5 pixels"):
        module(images[:, :, :4])
    kept: list[torch.Tensor] = []
    module.states[1].register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    module(images)
    handle = module.read[0].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    module(images)
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(kept[:5], kept[5:], strict=True))


# Training


CELLS = [
    (ModularOptions(units=units, p=p, seed=seed, **more), World(task=task, cov_ratio=c))
    for units, p, seed, task, c, more in [
        (6, -1, 0, "parity_both", 1.0, {}),
        (6, 1.0, 0, "parity_both", 1.0, {}),
        (6, 0.5, 1, "parity_both", 1.0, {}),
        (4, 0.5, 1, "parity_both", 0.3, {}),
        (6, 0.5, 0, "own", 1.0, {}),
        (6, 0.5, 0, "sum", 1.0, {"readout": "shared"}),
        (6, 0.5, 0, "both", 1.0, {"bottleneck": 3, "cell": "gru"}),
    ]
]


def test_networks_learn_together_as_they_do_alone() -> None:
    train, test = glyphs(300, seed=0), glyphs(100, seed=1)
    together = train_networks(CELLS, train, test, epochs=2, batch=64)
    for cell, one in zip(CELLS, together, strict=True):
        alone = train_networks([cell], train, test, epochs=2, batch=64)[0]
        assert one.accuracy == pytest.approx(alone.accuracy, abs=0.011)
        for name, weight in one.weights.items():
            torch.testing.assert_close(weight, alone.weights[name], atol=2e-5, rtol=0)


def test_training_equals_a_plain_loop_over_the_module() -> None:
    train, test = glyphs(200, seed=0), glyphs(50, seed=1)
    options, world = ModularOptions(units=5, p=0.4, seed=2), World(noise=0.0, decision="max")
    trained = train_networks([(options, world)], train, test, epochs=2, batch=50)[0]
    module = ModularRNN(options, 9, 2, 4, world.steps, "max")
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-5)
    from actkit.resampling import Stream, generator

    pairs = pair_up(train.labels, 4, seed=4)
    targets = torch.from_numpy(question("parity_both", pairs.labels, 4).targets[:, 0])
    for epoch in range(2):
        order = generator(2, epoch, Stream.STIMULI).permutation(200)
        for start in range(0, 200, 50):
            rows = order[start : start + 50]
            logits = module(torch.from_numpy(train.images[pairs.rows[rows]])).view(50, 2, 4)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[rows].flatten())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for name, weight in trained.weights.items():
        torch.testing.assert_close(weight, module.weights[name].detach(), atol=1e-5, rtol=0)
    # The module that comes out of the stack answers as the stack does.
    made = trained.module()
    torch.testing.assert_close(
        made(torch.from_numpy(test.images[:6].reshape(3, 2, 9))),
        module.eval()(torch.from_numpy(test.images[:6].reshape(3, 2, 9))),
        atol=1e-4,
        rtol=0,
    )


def test_networks_learn_and_stop_when_they_are_good_enough() -> None:
    train, test = glyphs(600, seed=0), glyphs(200, seed=1)
    cells = [(ModularOptions(units=12, p=1.0, seed=0), World(task=task, noise=0.1)) for task in ("own", "parity_both")]
    options = {"epochs": 40, "batch": 50, "learning_rate": 5e-3}
    good, other = train_networks(cells, train, test, stop_at=0.9, **options)
    assert good.accuracy >= 0.9
    assert good.epochs < 40
    assert good.epochs < other.epochs or other.accuracy >= 0.9
    # What went on was not touched by what stopped.
    alone = train_networks(cells[1:], train, test, stop_at=0.9, **options)[0]
    assert alone.epochs == other.epochs
    for name, weight in other.weights.items():
        torch.testing.assert_close(weight, alone.weights[name], atol=2e-3, rtol=0)
    untrained = train_networks(cells[:1], train, test, epochs=0)[0]
    assert untrained.accuracy < 0.6


def test_training_refuses_what_cannot_be_learnt() -> None:
    train, test = glyphs(100, seed=0), glyphs(50, seed=1)
    cell = (ModularOptions(units=4), World())
    with pytest.raises(InputError, match="is both learnt and tested"):
        train_networks([cell], train, train.take(np.arange(10)))
    with pytest.raises(InputError, match="batch=256 is more than the 100"):
        train_networks([cell], train, test, epochs=1)
    with pytest.raises(InputError, match="there is no network"):
        train_networks([], train, test)
    with pytest.raises(InputError, match="a shared read-out gives one answer"):
        train_networks([(ModularOptions(units=4, readout="shared"), World(task="own"))], train, test)
