"""Training networks of modules: gradients by hand, checkpoints, threads, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open

from actkit.errors import ActkitError, InputError
from actkit.extractors import modular_stack, modular_training
from actkit.extractors.digit_pairs import Glyphs, noisy_steps
from actkit.extractors.digit_tasks import decide
from actkit.extractors.modular_rnn import ModularOptions, advance, initial_weights, read_out
from actkit.extractors.modular_samples import World
from actkit.extractors.modular_stack import Stack
from actkit.extractors.modular_training import Trained, train_networks
from actkit.extractors.training import computing_threads


def glyphs(n: int, seed: int, classes: int = 4, pixels: int = 9) -> Glyphs:
    """Noisy copies of one pattern a class."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(classes, pixels))
    labels = rng.integers(classes, size=n)
    images = patterns[labels] + 0.3 * rng.normal(size=(n, pixels))
    ids = tuple(f"{seed}_{k}" for k in range(n))
    return Glyphs(images.astype(np.float32), labels, tuple("abcdefghij"[:classes]), ids)


def assert_same(one: Trained, other: Trained) -> None:
    """Equal to the bit."""
    assert (one.epochs, one.accuracy) == (other.epochs, other.accuracy)
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name


# ------------------------------------------------------------------ gradients

KINDS = [
    ("max", {}),
    ("max", {"cell": "gru"}),
    ("max", {"modules": 3, "bottleneck": 2}),
    ("sum", {"modules": 3, "cell": "gru", "bottleneck": 2}),
    ("each", {}),
    ("max", {"readout": "shared", "bottleneck": 2}),
    ("max", {"readout": "shared", "cell": "gru", "modules": 3}),
]


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("decision", "more"), KINDS)
def test_gradients_are_those_of_autograd(decision, more, onednn, monkeypatch) -> None:
    monkeypatch.setattr(modular_stack, "_ONEDNN", onednn and modular_stack._ONEDNN)
    monkeypatch.setattr(modular_stack, "_LARGE", 2)  # products one by one, as of large networks
    networks = [ModularOptions(units=4, p=p, seed=seed, **more) for p, seed in ((0.3, 0), (1.0, 1), (0.0, 2))]
    modules, outputs, classes = networks[0].modules, 2, 3
    drawn = [initial_weights(one, 6, outputs, classes) for one in networks]
    stack = Stack.of(networks, [0, 1, 2], 0, drawn, outputs)
    random = torch.Generator().manual_seed(0)
    frames = torch.randn(4, 7, modules, 6, generator=random)
    targets = torch.randint(classes, (7, modules, outputs), generator=random)
    if decision != "each":
        targets = targets[:, :1].expand(7, modules, outputs)
    found = stack.gradients(frames, targets, decision)
    for row, options in enumerate(networks):
        weights = {name: value.clone().requires_grad_() for name, value in drawn[row].items()}
        state = None
        for frame in frames:
            drive = torch.einsum("bmd,mkd->bmk", frame, weights["input"]).unflatten(2, (-1, 4)).transpose(1, 2)
            recurrent = (weights["recurrent"] * stack.mask[row])[None]
            state = advance(options, recurrent, drive.reshape(1, 7, -1), state)
        logits = read_out(options, {name: value[None] for name, value in weights.items()}, state, outputs)[0]
        decided = logits if logits.shape[1] == 1 else decide(logits, decision)
        right = targets[:, : decided.shape[1]]
        torch.nn.functional.cross_entropy(decided.flatten(0, 2), right.flatten()).backward()
        for name, value in weights.items():
            torch.testing.assert_close(found[name][row], value.grad, atol=2e-6, rtol=1e-5)


def test_a_tie_is_decided_alike_forward_and_backward() -> None:
    logits = torch.zeros(1, 3, 1, 2, 4)  # (networks, modules, outputs, classes, samples)
    back = modular_stack._decided_gradients(logits, torch.zeros(4, 3, 1, dtype=torch.int64), "max")
    plain = logits.permute(0, 4, 1, 2, 3).clone().requires_grad_()
    torch.nn.functional.cross_entropy(decide(plain, "max").flatten(0, 3), torch.zeros(4, dtype=torch.int64)).backward()
    torch.testing.assert_close(back.permute(0, 4, 1, 2, 3), plain.grad)


def test_noise_equals_a_plain_version() -> None:
    images = torch.randn(8, 2, 5, generator=torch.Generator().manual_seed(1))
    onsets = torch.tensor([[0, 2]] * 4 + [[1, 0]] * 4)
    for begin in (None, onsets):
        shown = noisy_steps(images, 3, 0.3, torch.Generator().manual_seed(5), begin)
        random = torch.Generator().manual_seed(5)
        for step in range(3):
            noise = torch.zeros_like(images)
            for _ in range(5):
                order = torch.randperm(8, generator=random)
                noise += images[order] * (torch.rand(2, 5, generator=random) < 0.2) / 5
            late = torch.zeros(8, 2, dtype=torch.bool) if begin is None else begin > step
            expected = torch.where(late[:, :, None], noise, 0.7 * images + 0.3 * noise)
            torch.testing.assert_close(shown[step], expected)


# ------------------------------------------------------------------ streams and threads

CELLS = [
    (ModularOptions(units=5, p=p, seed=seed, cell=cell), World(balanced=balanced))
    for seed, balanced in ((0, False), (0, True), (1, False))
    for p, cell in ((-1, "tanh"), (1.0, "tanh"), (0.5, "gru"))
]


def test_streams_of_unequal_length_each_go_through_all_their_batches() -> None:
    train, test = glyphs(300, 0), glyphs(60, 1)
    together = train_networks(CELLS, train, test, epochs=2, batch=32)
    for number in (0, 3, 6):  # the balanced world has fewer pairs, so fewer batches
        (alone,) = train_networks(CELLS[number : number + 1], train, test, epochs=2, batch=32)
        for name, weight in together[number].weights.items():
            torch.testing.assert_close(weight, alone.weights[name], atol=2e-5, rtol=0)


def test_threads_change_no_bit() -> None:
    train, test = glyphs(200, 0), glyphs(60, 1)
    found = []
    for threads in (1, 2):
        with computing_threads(threads):
            found.append(train_networks(CELLS, train, test, epochs=2, batch=32))
            assert torch.get_num_threads() == threads
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


# ------------------------------------------------------------------ interruption

HOW = {"epochs": 8, "batch": 32, "stop_at": 0.55, "learning_rate": 5e-3, "checkpoint_every": 2}
EASY = [(ModularOptions(units=6, p=p, seed=seed), World(noise=0.1)) for seed in (0, 1) for p in (0.1, 1.0)]
KILLED = """
import sys, time
sys.path.insert(0, {folder!r})
import test_modular_training as t
from actkit.extractors import modular_training
write = modular_training.write_checkpoint
def write_and_wait(path, key, progress):
    write(path, key, progress)
    if progress.epoch == 6:
        print("written", flush=True)
        time.sleep(300)
modular_training.write_checkpoint = write_and_wait
modular_training.train_networks(t.EASY, t.glyphs(200, 0), t.glyphs(60, 1), False, {path!r}, **t.HOW)
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, request) -> None:
    train, test = glyphs(200, 0), glyphs(60, 1)
    whole = train_networks(EASY, train, test, **HOW)
    # The case is worth testing only if some networks had stopped before the kill and others had not.
    assert min(one.epochs for one in whole) <= 5 < 6 < max(one.epochs for one in whole)
    place = tmp_path / "kept" / "sweep.safetensors"
    code = KILLED.format(folder=str(request.path.parent), path=str(place))
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    with safe_open(place, "pt") as file:
        assert '"epoch": 6' in file.metadata()["actkit"]
    with pytest.raises(InputError, match="checkpoint of another training"):
        train_networks(EASY, train, test, False, place, **{**HOW, "learning_rate": 1e-3})
    resumed = train_networks(EASY, train, test, False, place, **{**HOW, "checkpoint_every": 3})
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)
    assert list(place.parent.iterdir()) == []


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    place = tmp_path / "kept.safetensors"
    place.write_bytes(b"not tensors")
    with pytest.raises(InputError, match=r"is no checkpoint of a training.*delete it"):
        train_networks(EASY, glyphs(200, 0), glyphs(60, 1), False, place, **HOW)


# ------------------------------------------------------------------ what is refused, and what is warned of


def test_bad_input_is_refused() -> None:
    train, test = glyphs(100, 0), glyphs(50, 1)
    how = {"epochs": 1, "batch": 32}
    with pytest.raises(InputError, match=r"p=0.01 of 25 possible connections is less than one"):
        train_networks([(ModularOptions(units=5, p=0.01), World())], train, test, **how)
    with pytest.raises(ValueError, match=r"modules of \[4, 5\] units are not equally large"):
        ModularOptions(units=[4, 5])
    one_class = Glyphs(train.images, np.zeros(100, dtype=np.int64), ("a",), train.ids)
    other = Glyphs(test.images, np.zeros(50, dtype=np.int64), ("a",), test.ids)
    with pytest.raises(InputError, match="1 class leaves nothing to tell apart"):
        train_networks([(ModularOptions(units=5), World())], one_class, other, **how)
    with pytest.raises(InputError, match="every sample has the target 0 in output 0"):
        train_networks([(ModularOptions(units=5), World(task="parity_of_sum", cov_ratio=0))], train, test, **how)
    renamed = Glyphs(test.images, test.labels, tuple("wxyz"), test.ids)
    with pytest.raises(InputError, match="give the same"):
        train_networks([(ModularOptions(units=5), World())], train, renamed, **how)


def test_outputs_that_ask_the_same_are_warned_of_and_learnt() -> None:
    train, test = glyphs(100, 0), glyphs(50, 1)
    cells = [(ModularOptions(units=5, seed=seed), World(cov_ratio=0)) for seed in (0, 1)]
    with pytest.warns(UserWarning, match=r"outputs 0 and 1 of task 'parity_both'.*cov_ratio=0") as caught:
        found = train_networks(cells, train, test, epochs=1, batch=32)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert len(found) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_networks([(ModularOptions(units=5), World(cov_ratio=0.5))], train, test, epochs=1, batch=32)


def test_weights_that_are_no_longer_finite_are_refused(monkeypatch) -> None:
    def broken(self, *_args):
        return {name: torch.full_like(value, torch.nan) for name, value in self.weights.items()}

    monkeypatch.setattr(modular_training.Stack, "gradients", broken)
    with pytest.raises(
        ActkitError, match=r"network 0 \(5 units, p=0.1, seed 0\) has weights that are no longer finite"
    ):
        train_networks([(ModularOptions(units=5), World())], glyphs(100, 0), glyphs(50, 1), epochs=1, batch=32)


def test_a_module_of_a_task_for_each_answers_for_each() -> None:
    cells = [(ModularOptions(units=5), World(task="own", noise=0.0))]
    (trained,) = train_networks(cells, glyphs(100, 0), glyphs(50, 1), epochs=1, batch=32)
    images = torch.randn(3, 2, 9, generator=torch.Generator().manual_seed(0))
    assert trained.module()(images).shape == (3, 2 * 1 * 4)
