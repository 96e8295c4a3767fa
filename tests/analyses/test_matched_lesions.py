"""Lesions of matched units: planted truth, chance, controls, leaks and refusals."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import rankdata, spearmanr
from torch import nn

from actkit.analyses import matched_lesions_measure as geometry
from actkit.analyses.matched_lesions import adjust, alt_text, caption, lesion_matched, plot, units_of_lesion
from actkit.analyses.matched_lesions_findings import findings
from actkit.analyses.matched_lesions_split import deal_halves
from actkit.analyses.matched_sets import matched_sets
from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import array_layer
from actkit.errors import InputError, LayerError
from actkit.lesion import lesion_effect, lesioned
from actkit.network import Network
from actkit.stimuli import Stimuli
from actkit.tasks import Task

N_STIMULI, N_IMAGES, PLANTED = 80, 60, 6
SHAPE = (6, 5, 5)
UNITS = int(np.prod(SHAPE))


class Small(nn.Module):
    """One rectified map, read by a dense layer that gives each unit a weight."""

    def __init__(self, readers: np.ndarray, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.relu, self.flat = nn.Conv2d(2, SHAPE[0], 3, padding=1), nn.ReLU(), nn.Flatten()
        self.hidden, self.fc = nn.Linear(UNITS, 12), nn.Linear(12, 4)
        weight = torch.zeros(12, UNITS)
        weight[:, readers] = torch.randn(12, len(readers))
        weight += 0.05 * torch.randn(12, UNITS)
        self.hidden.weight.data = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.tanh(self.hidden(self.flat(self.relu(self.conv(x))))))


class World:
    """A network, stimuli, its activations for them, neurons that copy some of its units, and a task of its own."""

    def __init__(self, seed: int = 0, needed: str = "copied") -> None:
        rng = np.random.default_rng(seed)
        self.copied = np.sort(rng.choice(UNITS, PLANTED, replace=False))
        readers = self.copied if needed == "copied" else np.arange(UNITS)
        self.network = Network(Small(readers, seed).eval(), input_shape=(2, 5, 5), name="small")
        images = rng.normal(size=(N_STIMULI + N_IMAGES, 2, 5, 5)).astype(np.float32)
        self.ids = [f"s{i:02d}" for i in range(N_STIMULI)]
        self.stimuli = Stimuli.from_array(images[:N_STIMULI], ids=self.ids)
        with torch.no_grad():
            self.maps = self.network.module.relu(self.network.module.conv(torch.from_numpy(images))).numpy()
            logits = self.network.module(torch.from_numpy(images[N_STIMULI:]))
        own = self.maps[:N_STIMULI].reshape(N_STIMULI, -1)[:, self.copied]
        noise = rng.normal(size=own.shape) * own.std(0) * 0.3
        self.neurons = xr.DataArray(
            own + noise,
            dims=("stimulus", "neuron"),
            coords={"stimulus": self.ids, "neuron": [f"n{k}" for k in range(PLANTED)]},
            name="planted",
        )
        self.source = {"relu": xr.DataArray(self.maps[:N_STIMULI], dims=("stimulus", "channel", "y", "x"))}
        self.source["relu"] = self.source["relu"].assign_coords(stimulus=self.ids)
        self.task = Task("own", torch.from_numpy(images[N_STIMULI:]), logits.argmax(1).numpy())

    def run(self, **options):
        settings = {"n_random": 19, "n_bootstrap": 50, "folds": 3} | options
        data = {key: settings.pop(key) for key in ("groups", "labels") if key in settings}
        return lesion_matched(self.network, self.source, self.neurons, self.task, self.stimuli, **data, **settings)


@pytest.fixture(scope="module")
def planted() -> tuple[World, xr.Dataset]:
    world = World()
    return world, world.run(n_splits=2, readout="hidden")


def test_units_that_the_task_needs_and_neurons_copy_cost_more_than_units_like_them(planted):
    world, result = planted
    for split in range(2):
        units = units_of_lesion(result, "relu", split)
        found = np.ravel_multi_index((units.channel, units.y, units.x), SHAPE)
        assert sorted(found) == world.copied.tolist()
    np.testing.assert_allclose(result.p_value, 1 / 20)
    assert (result.excess > 0).all()
    assert (result.excess_low.sel(outcome=["loss", "rsa_readout"]) > 0).all()
    assert (result.excess_low < result.excess).all()
    assert (result.excess < result.excess_high).all()
    np.testing.assert_allclose(result.p_combined, 0.1)  # twice the median of two
    np.testing.assert_allclose(result.n_units, PLANTED)
    np.testing.assert_allclose(result.n_neurons, PLANTED)


def test_effects_are_those_of_the_lesion_bridge(planted):
    world, result = planted
    units = units_of_lesion(result, "relu", 1)
    plain = lesion_effect(world.network, units, world.task).sel(task="own", columns="all")
    one = result.isel(split=1).sel(layer="relu")
    np.testing.assert_allclose(one.effect.sel(outcome="loss"), plain.loss_increase, rtol=1e-5)
    np.testing.assert_allclose(one.effect.sel(outcome="accuracy"), plain.accuracy_drop)
    # The geometry: network without the units, patterns correlated stimulus by stimulus.
    half = np.flatnonzero(result.evaluated_on.values[1])
    pairs = np.triu_indices(len(half), 1)
    neural = (1 - np.corrcoef(world.neurons.values[half]))[pairs]
    inputs = torch.from_numpy(np.stack([world.stimuli.raw(int(i)) for i in half]))
    for outcome, layer in (("rsa_layer", "relu"), ("rsa_readout", "hidden")):
        seen = []
        handle = world.network.module.get_submodule(layer).register_forward_hook(lambda m, i, o, s=seen: s.append(o))
        with torch.no_grad():
            world.network.module(inputs)
            with lesioned(world.network, units):
                world.network.module(inputs)
        handle.remove()
        patterns = [seen[0].flatten(1).double().numpy(), seen[1].flatten(1).double().numpy()]
        if layer == "relu":  # that hook runs before the lesion's
            patterns[1] = patterns[0].copy()
            patterns[1][:, np.ravel_multi_index((units.channel, units.y, units.x), SHAPE)] = 0
        scores = [spearmanr((1 - np.corrcoef(x))[pairs], neural).statistic for x in patterns]
        np.testing.assert_allclose(one.intact.sel(outcome=outcome), scores[0], atol=1e-5)
        np.testing.assert_allclose(one.lesioned.sel(outcome=outcome), scores[1], atol=1e-5)


def test_halves_are_disjoint_and_groups_whole(planted):
    _, result = planted
    assert not (result.matched_on.values & result.evaluated_on.values).any()
    np.testing.assert_array_equal(result.matched_on[0], result.evaluated_on[1])
    groups = np.repeat(np.arange(20), 4)
    for first, second in deal_halves(80, 3, groups, None, 30, seed=1):
        assert (len(first), len(second)) == (40, 30)
        assert not set(groups[first]) & set(groups[second])


def test_groups_keep_copies_on_one_side_and_out_of_the_geometry():
    world = World(3)
    world.neurons = world.neurons.assign_coords(group=("stimulus", np.arange(N_STIMULI) // 2))
    result = world.run()
    sides = result.matched_on.values[0].reshape(-1, 2)
    assert (sides[:, 0] == sides[:, 1]).all()
    half = np.flatnonzero(result.evaluated_on.values[0])
    i, j = np.triu_indices(len(half), 1)
    far = half[i] // 2 != half[j] // 2
    rdms = [
        1 - np.corrcoef(x.reshape(N_STIMULI, -1)[half])[i, j] for x in (world.maps[:N_STIMULI], world.neurons.values)
    ]
    np.testing.assert_allclose(
        result.intact.sel(outcome="rsa_layer").item(), spearmanr(rdms[0][far], rdms[1][far]).statistic, atol=1e-5
    )


def test_a_task_that_needs_other_units_gives_no_more_than_chance():
    p = np.array([World(seed, "all").run(seed=seed).p_value.sel(outcome="loss").item() for seed in range(12)])
    assert 0.25 < p.mean() < 0.75
    assert (p <= 0.05).sum() <= 2


def test_matched_sets_with_the_units_own_keep_the_level_and_without_them_do_not():
    rates = {}
    for own in (True, False):
        p = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            features, effects = rng.normal(size=(300, 3)), rng.normal(size=300)
            units = rng.choice(300, 15, replace=False)
            sets, _ = matched_sets(features, units, 39, seed, own=own)
            null = np.array([effects[one].sum() for one in sets])
            p.append((1 + (null >= effects[units].sum() - 1e-12).sum()) / 40)
        rates[own] = np.mean(np.array(p) <= 0.05)
    assert rates[True] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert rates[False] > rates[True]


def test_matched_sets_are_balanced_where_random_ones_are_not():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 4)) ** 2
    units = rng.choice(2000, 40, replace=False, p=features[:, 0] ** 2 / (features[:, 0] ** 2).sum())
    sets, gap = matched_sets(features, units, 50, 0, own=True, normal=True)
    spread = features.std(0)
    plain = (features[units].mean(0) - features.mean(0)) / spread
    assert plain[0] > 1
    assert abs(gap[0]) < 0.2 * plain[0]
    assert abs(gap[0]) < 0.5 * abs(matched_sets(features, units, 50, 0, own=True)[1][0])
    assert np.abs(gap[1:]).max() < 0.15
    assert all(len(np.unique(one)) == 40 for one in sets)


def test_imbalance_and_overlap_are_stated(planted):
    world, result = planted
    assert 0 < float(result.overlap.mean()) < 0.5
    flat = world.maps[:N_STIMULI].reshape(N_STIMULI, -1)
    _, y, x = np.unravel_index(np.arange(UNITS), SHAPE)
    for split in range(2):
        half = flat[result.matched_on.values[split] == 1].astype(float)
        features = np.stack([half.mean(0), half.var(0), y, x], axis=1)
        _, gap = matched_sets(features, world.copied, 19, split, 7, own=True, normal=True)
        np.testing.assert_allclose(result.imbalance.values[split, 0], gap, atol=1e-6)


def test_whole_channels_and_the_mean():
    world = World(1)
    result = world.run(extent="channel", mode="mean", n_units=2, layers=["relu"])
    units = units_of_lesion(result, "relu")
    assert len(units) == 2
    assert (units.y == -1).all()
    half = {"relu": world.maps[:N_STIMULI][result.matched_on.values[0] == 1]}
    plain = lesion_effect(world.network, units, world.task, half, mode="mean").sel(task="own", columns="all")
    np.testing.assert_allclose(result.effect.sel(outcome="loss").item(), plain.loss_increase, rtol=1e-4)


def test_geometry_without_units_is_that_of_the_patterns_without_them():
    rng = np.random.default_rng(2)
    patterns, fill = rng.normal(3, 1, size=(9, 50)), rng.normal(size=50)
    sets = [np.array([0, 7, 49]), np.arange(20)]
    for kind in ("correlation", "sqeuclidean"):
        found = geometry.layer_rdms(array_layer("x", patterns), np.arange(9), sets, fill, kind, 4000)
        for row, units in zip(found, [np.array([], int), *sets], strict=True):
            left = patterns.copy()
            left[:, units] = fill[units]
            i, j = np.triu_indices(9, 1)
            plain = ((left[i] - left[j]) ** 2).mean(1) if kind == "sqeuclidean" else (1 - np.corrcoef(left))[i, j]
            np.testing.assert_allclose(row, plain, atol=1e-12)


@pytest.mark.parametrize("compare", ["spearman", "pearson"])
def test_draws_of_the_geometry_are_weighted_correlations(compare):
    rng = np.random.default_rng(3)
    rdms, neural, weights = rng.random((2, 45)), rng.random(45), rng.integers(0, 3, (4, 10))
    found = geometry.rsa_draws(rdms, neural, weights, np.ones(45, bool), compare)
    np.testing.assert_allclose(
        geometry.rsa_draws(rdms, neural, np.ones((1, 10), int), np.ones(45, bool), compare)[0],
        geometry.rsa(rdms, neural, compare),
    )
    i, j = np.triu_indices(10, 1)
    values = rankdata(rdms, axis=1) if compare == "spearman" else rdms
    y = rankdata(neural) if compare == "spearman" else neural
    for draw, row in zip(weights, found, strict=True):
        copies = np.repeat(np.arange(45), draw[i] * draw[j])
        np.testing.assert_allclose(row, [np.corrcoef(x[copies], y[copies])[0, 1] for x in values])


def test_activity_of_channels_and_tokens():
    rng = np.random.default_rng(4)
    maps = rng.normal(size=(6, 3, 4, 5))
    rows = np.array([1, 4, 5])
    found = geometry.activity(array_layer("x", maps), Layout.of(maps.shape[1:]), rows, True, 4000)
    assert found.names == ["mean", "variance", "y", "x"]
    some = maps[rows]
    mass = np.abs(some).mean(0)
    centre = (mass.sum(2) * np.arange(4)).sum(1) / mass.sum((1, 2))
    np.testing.assert_allclose(found.features[:, 0], some.mean((0, 2, 3)))
    np.testing.assert_allclose(found.features[:, 1], some.var((0, 2, 3)))
    np.testing.assert_allclose(found.features[:, 2], centre)
    tokens = rng.normal(size=(6, 4, 3))  # tokens, features
    layout = Layout.of(tokens.shape[1:])
    found = geometry.activity(array_layer("x", tokens), layout, rows, False, 4000)
    assert found.names == ["mean", "variance", "y"]
    np.testing.assert_allclose(found.features[:, 2], np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(geometry.single_units(np.array([1]), layout), [1, 4, 7, 10])


def test_refusals():
    world = World(5)
    with pytest.raises(InputError, match="no random sets of others are left"):
        world.run(extent="channel", minimum=None, n_units=None)
    with pytest.raises(InputError, match="no neuron meets the conditions"):
        world.run(minimum=1.0)
    with pytest.raises(LayerError, match="does not depend on 'relu'"):
        world.run(readout="conv")
    with pytest.raises(LayerError, match="no recorded layer"):
        world.run(layers=["relus"])
    honest = world.source["relu"]
    world.source = {"relu": honest.copy(data=np.roll(honest.values, 1, axis=0))}
    with pytest.raises(InputError, match="differ from the network's own"):
        world.run()
    world.source = {"relu": honest}
    mixed = world.task.inputs.clone()
    mixed[7] = torch.from_numpy(np.array(world.stimuli.raw(11)))
    world.task = Task("own", mixed, world.task.targets)
    with pytest.raises(InputError, match="stimulus 's11' is an image of task 'own' too"):
        world.run()


def test_adjusting_takes_out_what_features_explain_and_leaves_what_they_do_not():
    rng = np.random.default_rng(7)
    features = rng.normal(size=(101, 4))
    features[0, 1] = 1.5  # the matched set has more variance than most
    features = np.column_stack([features[:, :3], np.full(101, np.nan)])
    effects = 2 * features[:, 1] + 0.1 * rng.normal(size=101)
    excess, residual = adjust(effects[:1], effects[None, 1:], features)
    assert effects[0] - effects[1:].mean() > 2
    assert abs(excess[0]) < 0.4
    assert (residual[0] >= residual[0, 0]).mean() > 0.05
    effects[0] += 2
    excess, residual = adjust(effects[:1], effects[None, 1:], features)
    assert abs(excess[0] - 2) < 0.4
    assert (residual[0] >= residual[0, 0]).mean() == 1 / 101
    few, none = adjust(effects[:1], effects[None, 1:20], features[:20])
    assert np.isnan(few).all()
    assert np.isnan(none).all()


def test_findings_say_what_held():
    planted = findings(World().run(n_random=59))
    assert planted.held.tolist() == ["yes"] * 4
    assert planted.p.tolist()[:3] == [1 / 60] * 3
    chance = findings(World(4, "all").run(n_random=59))
    assert chance.held.iloc[0] != "yes"
    assert planted.measured[0].startswith(f"{planted.estimate[0]:.2f}".removeprefix("0"))


def test_figure_caption_and_alternative_text(planted):
    _, result = planted
    figure = plot(result)
    assert len(figure.axes) == 3
    lines = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert sorted(line.get_xdata()[0] for line in lines) == sorted(result.effect.sel(outcome="loss").values.ravel())
    words = caption(result)
    for part in ("19 random sets", "40 stimuli", "60 images of own", "read-out: hidden", "set to 0"):
        assert part in words
    assert "task loss" in alt_text(result)
    with pytest.raises(InputError, match="no lesion of matched units"):
        plot(result.assign_attrs(analysis="rdm"))
