"""Rankings of channels: against a plain loop, hand-computed cases, planted channels and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from actkit import ranking_engine
from actkit.errors import InputError, LayerError
from actkit.layers import evaluating
from actkit.ranking import rank_units, units_of
from actkit.ranking_engine import agreement, balanced_order, halves, ranks
from actkit.ranking_greedy import pairs
from actkit.results import load, save
from actkit.tasks import Task


class Small(torch.nn.Module):
    """Convolution, batch norm, an in-place ReLU and a head."""

    def __init__(self, channels=6, outputs=5, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = torch.nn.Conv2d(2, channels, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(channels)
        self.relu = torch.nn.ReLU(inplace=True)
        self.mix = torch.nn.Conv2d(channels, 4, 3)
        self.head = torch.nn.Linear(4 * 16, outputs)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, images):
        return self.head(torch.relu(self.mix(self.relu(self.norm(self.conv(images))))).flatten(1))


def small_task(name="a", n=40, seed=1, classes=(0, 1, 2), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn((n, 2, 6, 6), generator=generator, dtype=dtype)
    return Task(name, inputs, np.arange(n) % 3, None if classes is None else np.array(classes))


def plain_losses(module, layer, task, silenced, columns=None):
    """The plain way: one hook, one full forward pass; losses by numpy."""

    def hook(_module, _inputs, output):
        output = output.clone()
        output[:, list(silenced)] = 0
        return output

    handle = dict(module.named_modules())[layer].register_forward_hook(hook)
    with evaluating(module), torch.no_grad():
        logits = module(task.inputs.clone()).double().numpy()
    handle.remove()
    columns = np.arange(logits.shape[1]) if columns is None else np.asarray(columns)
    right = np.searchsorted(columns, task.targets)
    logits = logits[:, columns]
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return log_sum - logits[np.arange(len(right)), right], logits.argmax(1) == right


def test_one_shot_equals_the_plain_loop_with_and_without_masking():
    module, task = Small().double(), small_task(dtype=torch.float64)
    module.train()
    result = rank_units(module, "relu", task, per_image=True, images=16, n_splits=3)
    assert module.training
    assert module.relu.training
    for suffix, columns in (("", None), ("_masked", [0, 1, 2])):
        before, right = plain_losses(module, "relu", task, [], columns)
        for unit in range(6):
            loss, correct = plain_losses(module, "relu", task, [unit], columns)
            one = result.sel(task="a", unit=unit)
            difference = loss - before
            np.testing.assert_allclose(one[f"loss_increase{suffix}"], difference.mean(), atol=1e-12)
            se = difference.std(ddof=1) / np.sqrt(40)
            np.testing.assert_allclose(one[f"loss_increase_se{suffix}"], se, atol=1e-12)
            drop = right.astype(float) - correct
            np.testing.assert_allclose(one[f"accuracy_drop{suffix}"], drop.mean(), atol=1e-12)
            np.testing.assert_allclose(one[f"accuracy_drop_se{suffix}"], drop.std(ddof=1) / np.sqrt(40), atol=1e-12)
            if not suffix:
                np.testing.assert_allclose(one["image_loss_increase"], difference, atol=1e-12)
        np.testing.assert_allclose(result[f"intact_loss{suffix}"].sel(task="a"), before.mean(), atol=1e-12)
        np.testing.assert_allclose(result[f"intact_accuracy{suffix}"].sel(task="a"), right.mean(), atol=1e-12)
        order = np.argsort(-result[f"loss_increase{suffix}"].sel(task="a").values, kind="stable")
        assert np.array_equal(result[f"rank{suffix}"].sel(task="a").values[order], np.arange(1, 7))


def test_greedy_equals_the_plain_conditional_loop():
    module, task = Small().double(), small_task(dtype=torch.float64)
    result = rank_units(module, "relu", task, strategy="greedy", group=2, stop=5 / 6)
    gone, order, steps = [], [], {}
    for step in range(3):
        left = [u for u in range(6) if u not in gone]
        base, _ = plain_losses(module, "relu", task, gone)
        increase = {u: (plain_losses(module, "relu", task, [*gone, u])[0] - base).mean() for u in left}
        for u in left:
            steps[u] = (-1, increase[u])
        best = sorted(left, key=lambda u: (-increase[u], u))[: min(2, 5 - len(order))]
        for u in best:
            steps[u] = (step, increase[u])
        order += best
        gone += best
        if len(order) == 5:
            break
    found = units_of(result, "a", k=5)
    assert found.channel.tolist() == order
    one = result.sel(task="a")
    np.testing.assert_allclose(one["loss_increase"], [steps[u][1] for u in range(6)], atol=1e-12)
    assert one["step"].values.tolist() == [steps[u][0] for u in range(6)]
    assert one["rank"].values[steps_last(steps)] == 6
    assert found.top(k=2).channel.tolist() == order[:2]
    with pytest.raises(InputError, match="settled the top 5 only"):
        units_of(result, "a", k=6)


def steps_last(steps):
    return next(u for u, (step, _) in steps.items() if step == -1)


def test_the_number_of_greedy_candidates_is_that_of_the_papers_script():
    sizes = {64: 805, 128: 1610, 256: 3016, 512: 6032, 4096: 48178}
    # The script goes on until it has more than the target: 14, 28, 52, 104 and 845 filters.
    targets = {64: 14, 128: 28, 256: 52, 512: 104, 4096: 845}
    groups = {64: 1, 128: 2, 256: 4, 512: 8, 4096: 65}
    assert {n: pairs(n, targets[n], groups[n]) for n in sizes} == sizes


def test_hand_computed_ablation_with_channel_0_the_most_important():
    # Logits are x0 + x1 and x2 after ReLU; loss = log(1 + exp(other - own)).
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False)).double()
    module[1].weight.data = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    inputs = torch.tensor([[3.0, 1.0, 0.0], [0.0, -5.0, 2.0]], dtype=torch.float64)
    task = Task("hand", inputs, np.array([0, 1]))
    result = rank_units(module, "0", task, seed=0).sel(task="hand")

    def loss(first, second):
        return (np.log1p(np.exp(-first)) + np.log1p(np.exp(-second))) / 2

    np.testing.assert_allclose(result["intact_loss"], loss(4, 2), rtol=1e-12)
    expected = [loss(1, 2) - loss(4, 2), loss(3, 2) - loss(4, 2), loss(4, 0) - loss(4, 2)]
    np.testing.assert_allclose(result["loss_increase"], expected, rtol=1e-12)
    # Without channel 2 the second image's logits tie, and the first column wins: wrong.
    np.testing.assert_allclose(result["accuracy_drop"], [0, 0, 0.5])
    only = rank_units(module, "0", task, channels=[0]).sel(task="hand")
    np.testing.assert_allclose(only["loss_increase"], expected[:1], rtol=1e-12)
    # Single-term games: with three channels the exact Shapley values are averages over six orders.
    shares = rank_units(module, "0", task, strategy="shapley", n_permutations=150, truncation=0).sel(task="hand")
    whole = loss(0, 0) - loss(4, 2)
    np.testing.assert_allclose(shares["loss_increase"].sum(), whole, rtol=1e-12)
    value = {frozenset(s): loss(3 * (0 not in s) + (1 not in s), 2 * (2 not in s)) for s in subsets(3)}
    exact = [exact_shapley(value, unit, 3) for unit in range(3)]
    error = np.abs(shares["loss_increase"].values - exact) / np.maximum(shares["loss_increase_se_sampling"], 1e-12)
    assert float(error.max()) < 4
    np.testing.assert_allclose(shares["loss_increase"], exact, atol=0.05)


def subsets(n):
    return [[i for i in range(n) if code >> i & 1] for code in range(2**n)]


def exact_shapley(value, player, n):
    from math import factorial

    total = 0.0
    for members in subsets(n):
        if player not in members:
            weight = factorial(len(members)) * factorial(n - len(members) - 1) / factorial(n)
            total += weight * (value[frozenset([*members, player])] - value[frozenset(members)])
    return total


class TwoHalves(torch.nn.Module):
    """Channels 0-3 see the left half of an image and feed columns 0-2; channels 4-7 the right half and columns 3-5."""

    def __init__(self):
        super().__init__()
        self.left = torch.nn.Linear(8, 4)
        self.right = torch.nn.Linear(8, 4)
        self.hidden = torch.nn.ReLU()
        self.first = torch.nn.Linear(4, 3)
        self.second = torch.nn.Linear(4, 3)

    def forward(self, images):
        hidden = self.hidden(torch.cat([self.left(images[:, :8]), self.right(images[:, 8:])], 1))
        return torch.cat([self.first(hidden[:, :4]), self.second(hidden[:, 4:])], 1)


@pytest.fixture(scope="module")
def planted():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = TwoHalves()
        centres = torch.randn(6, 16) * 1.5
        targets = torch.arange(240) % 6
        images = centres[targets] + torch.randn(240, 16) * 0.7
        images[targets < 3, 8:] = 0
        images[targets >= 3, :8] = 0
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(80):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(images), targets).backward()
        optimiser.step()
    tasks = []
    for name, columns in (("left", [0, 1, 2]), ("right", [3, 4, 5])):
        rows = torch.isin(targets, torch.tensor(columns))
        tasks.append(Task(name, images[rows], targets[rows].numpy(), np.array(columns)))
    return module, tasks


@pytest.mark.parametrize("strategy", ["one_shot", "greedy", "racing", "taylor", "shapley"])
def test_planted_task_specific_channels_are_found(planted, strategy):
    module, tasks = planted
    result = rank_units(
        module, "hidden", tasks, strategy=strategy, masked="own", fraction=0.25, n_permutations=40, truncation=0
    )
    # Within its own columns a task cannot lose anything by the other half: increase 0 on every image.
    other = result["loss_increase_masked"].sel(task="left", unit=slice(4, 7)).values
    np.testing.assert_allclose(other, 0, atol=1e-6)
    for task, own in (("left", range(4)), ("right", range(4, 8))):
        top = units_of(result, task, fraction=0.25)
        assert set(top.channel.tolist()) <= set(own)
        assert top.question.endswith(f"({strategy})")
    assert not set(units_of(result, "left", k=2).channel) & set(units_of(result, "right", k=2).channel)


def test_taylor_is_exact_where_the_loss_is_nearly_linear_and_says_that_it_is_approximate(planted):
    module, tasks = planted
    task = tasks[0]
    small = TwoHalves()
    small.load_state_dict(module.state_dict())
    with torch.no_grad():
        for head in (small.first, small.second):  # tiny logits: the loss is linear in them to first order
            head.weight *= 1e-3
            head.bias *= 0
    guess = rank_units(small.double(), "hidden", Task("t", task.inputs.double(), task.targets), strategy="taylor")
    truth = rank_units(small.double(), "hidden", Task("t", task.inputs.double(), task.targets))
    np.testing.assert_allclose(guess["loss_increase"], truth["loss_increase"], atol=5e-5)
    assert np.abs(truth["loss_increase"]).max() > 5e-4
    assert guess.attrs["approximate"] == 1
    assert truth.attrs["approximate"] == 0
    assert "approximate" in guess.attrs["note"]
    assert "accuracy_drop" not in guess


def test_mean_mode_silences_to_the_mean_of_a_named_recording():
    module, task = Small().double(), small_task(dtype=torch.float64)
    recording = np.random.default_rng(0).normal(size=(7, 6, 6, 6))
    with pytest.raises(InputError, match="reference"):
        rank_units(module, "relu", task, mode="mean")
    result = rank_units(module, "relu", task, mode="mean", reference={"relu": recording})

    def hook(_module, _inputs, output):
        output = output.clone()
        output[:, 2] = recording[:, 2].mean()
        return output

    handle = module.relu.register_forward_hook(hook)
    loss, _ = plain_losses(module, "norm", task, [])
    handle.remove()
    before, _ = plain_losses(module, "norm", task, [])
    np.testing.assert_allclose(result["loss_increase"].sel(task="a", unit=2), (loss - before).mean(), atol=1e-12)


def test_ties_go_to_the_lower_index():
    assert ranks(np.array([1.0, 2.0, 2.0, 0.0])).tolist() == [3, 1, 2, 4]
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False)).double()
    module[1].weight.data = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    task = Task("ties", torch.ones((6, 4), dtype=torch.float64), np.array([0, 1] * 3))
    for strategy in ("one_shot", "greedy", "racing", "taylor"):
        found = rank_units(module, "0", task, strategy=strategy, stop=1.0, fraction=1.0)
        np.testing.assert_array_equal(found["rank"].sel(task="ties"), [1, 2, 3, 4], err_msg=strategy)


def test_images_are_drawn_from_the_classes_in_equal_numbers_and_the_same_for_all_candidates():
    task = small_task(n=60)
    result = rank_units(Small(), "relu", task, n_images=12, per_image=True, seed=0)
    rows = result["image"].sel(task="a").values.astype(int)
    again = rank_units(Small(), "relu", task, n_images=12, per_image=True, seed=0)
    xr_equal = [np.array_equal(result[name], again[name]) for name in result]
    assert all(xr_equal)
    assert result.sizes["stimulus"] == 12
    assert rows.max() < 12 or np.bincount(task.targets[rows]).tolist() == [4, 4, 4]
    assert int(result["n_images"].sel(task="a")) == 12


def test_standard_errors_agree_with_the_spread_over_samples_of_images():
    module = Small().double()
    population = small_task(n=3000, seed=5, dtype=torch.float64)
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(80):
        task = population.take(rng.choice(3000, 40, replace=False))
        result = rank_units(module, "relu", task, n_splits=0, masked="all").sel(task="a")
        means.append(np.stack([result["loss_increase"], result["accuracy_drop"]]))
        errors.append(np.stack([result["loss_increase_se"], result["accuracy_drop_se"]]))
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(means, axis=0, ddof=1)
    assert np.all((ratio > 0.75) & (ratio < 1.33)), ratio
    truth = rank_units(module, "relu", population, n_splits=0, masked="all").sel(task="a")["loss_increase"].values
    inside = np.abs(np.array(means)[:, 0] - truth) < 2 * np.array(errors)[:, 0]
    assert 0.9 < inside.mean() < 0.99


def test_reliability_is_over_disjoint_halves_of_every_class():
    targets = np.repeat([0, 1, 2], [5, 8, 3])
    first, second = halves(targets, seed=0)
    assert sorted([*first, *second]) == list(range(16))
    counts = [np.bincount(targets[rows], minlength=3) for rows in (first, second)]
    assert np.all(np.abs(counts[0] - counts[1]) <= 1)
    assert abs(len(first) - len(second)) <= 1
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    overlap, rho = agreement(a, b, 6)
    assert overlap == len(set(np.argsort(-a)[:6]) & set(np.argsort(-b)[:6])) / 6
    np.testing.assert_allclose(rho, spearmanr(a, b).statistic)
    # Pure noise agrees by chance, a strong effect fully.
    module, task = Small(), small_task(n=60)
    result = rank_units(module, "relu", task, fraction=0.5, per_image=True, n_splits=4, seed=2)
    difference = result["image_loss_increase"].sel(task="a").values
    expected = []
    for number in range(4):
        one, two = halves(task.targets, 2, number)
        expected.append(agreement(difference[:, one].mean(1), difference[:, two].mean(1), 3))
    np.testing.assert_allclose(
        [result["top_overlap"].item(), result["rank_correlation"].item()], np.mean(expected, axis=0), atol=1e-6
    )
    assert result.attrs["chance_overlap"] == 0.5


def test_every_beginning_of_a_balanced_order_holds_the_classes_in_near_equal_shares():
    targets = np.repeat([0, 1], [30, 90])
    order = balanced_order(targets, seed=0)
    assert sorted(order) == list(range(120))
    for n in (8, 20, 60):
        assert abs((targets[order[:n]] == 0).mean() - 0.25) < 1.01 / n
    assert not np.array_equal(order, balanced_order(targets, seed=1))


def test_results_survive_a_file(planted, tmp_path):
    module, tasks = planted
    for strategy in ("one_shot", "greedy", "racing", "taylor", "shapley"):
        result = rank_units(module, "hidden", tasks, strategy=strategy, n_permutations=2, per_image=True)
        again = load(save(result, tmp_path / f"{strategy}.nc"))
        assert result.drop_vars("image").equals(again.drop_vars("image"))
        assert units_of(again, "left", k=2) == units_of(result, "left", k=2)


class Logarithm(torch.nn.Module):
    """A silenced channel gives minus infinity, and two of them NaN."""

    def __init__(self):
        super().__init__()
        self.relu = torch.nn.ReLU()

    def forward(self, values):
        logs = torch.log(self.relu(values))
        return torch.stack([logs[:, 0] - logs[:, 0] + logs[:, 1] * 0.1, logs[:, 2] * 0 + 1], 1)


def test_what_cannot_be_ranked_is_refused_in_words():
    module, task = Small(), small_task()
    with pytest.raises(InputError, match="no task was given"):
        rank_units(module, "relu", [])
    with pytest.raises(InputError, match="two tasks are called 'a'"):
        rank_units(module, "relu", [task, task])
    with pytest.raises(LayerError, match=r"no layer 'relo'.*nearest: 'relu'"):
        rank_units(module, "relo", task)
    with pytest.raises(InputError, match=r"channel 6 does not exist.*0 to 5"):
        rank_units(module, "relu", task, channels=[0, 6])
    with pytest.raises(InputError, match="masked='own' needs the output columns"):
        rank_units(module, "relu", small_task(classes=None), masked="own")
    with pytest.raises(InputError, match="strategy"):
        rank_units(module, "relu", task, strategy="best")
    inputs = torch.rand((4, 3)) + 0.5
    with pytest.raises(InputError, match=r"loss of image 0 is nan with channels \[0\] of layer 'relu'"):
        rank_units(Logarithm(), "relu", Task("log", inputs, np.array([0, 1, 0, 1])))
    broken = Small()
    broken.head.bias.data[1] = float("nan")
    with pytest.raises(InputError, match="intact network's loss is nan"):
        rank_units(broken, "relu", task)
    result = rank_units(module, "relu", task)
    with pytest.raises(InputError, match="no task 'b'"):
        units_of(result, "b", k=1)
    with pytest.raises(InputError, match="either fraction= or k="):
        units_of(result, "a")
    with pytest.raises(InputError, match="ask for 1 to 6"):
        units_of(result, "a", k=7)


def test_a_network_without_gradient_is_refused_by_taylor_and_ranked_by_one_shot():
    module = torch.nn.Sequential(torch.nn.ReLU(), Detached(), torch.nn.Linear(3, 2))
    task = Task("cut", torch.rand((6, 3)), np.array([0, 1] * 3))
    with pytest.raises(LayerError, match="use strategy='one_shot'"):
        rank_units(module, "0", task, strategy="taylor")
    assert rank_units(module, "0", task)["rank"].shape == (1, 3)


class Detached(torch.nn.Module):
    """Cuts the gradient."""

    def forward(self, values):
        return values.detach() * 2


def test_a_task_without_classes_has_nan_beside_one_with_classes():
    tasks = [small_task("a"), small_task("b", classes=None, seed=9)]
    result = rank_units(Small(), "relu", tasks)
    assert np.isnan(result["loss_increase_masked"].sel(task="b")).all()
    assert np.isfinite(result["loss_increase_masked"].sel(task="a")).all()
    with pytest.raises(InputError, match="does not name them"):
        units_of(result, "b", k=2, masked=True)


def test_blocks_do_not_change_the_numbers(monkeypatch):
    module, task = Small().double(), small_task(dtype=torch.float64)
    whole = rank_units(module, "relu", task)
    calls = []
    real = ranking_engine.sweep
    monkeypatch.setattr(ranking_engine, "sweep", lambda *a, **k: calls.append(len(a[3])) or real(*a, **k))
    parts = rank_units(module, "relu", task, images=9, block=4)
    assert calls == [4, 2] * 5
    np.testing.assert_allclose(whole["loss_increase"], parts["loss_increase"], atol=1e-12)
