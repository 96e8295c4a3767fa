"""Lesions and Shapley values against cases worked out by hand, and against captum and msapy where they are installed.

The two small networks with weights 0 and 1 and the games are those of the test suites of captum (layer ablation,
Shapley values) and msapy (ground truth); the numbers are worked out here from the weights. Unit 0, player 0 and seed 0
are in all of them: a tool that takes a 0 for "none given" passes over them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from actkit.lesion import lesioned
from actkit.ranking import rank_units
from actkit.ranking_engine import Values
from actkit.ranking_shapley import errors, shapley
from actkit.replay import sweep
from actkit.tasks import Task
from actkit.units import UnitSet

WAYS = ("hooks", "replay", "low_rank")


class Dense(nn.Module):
    """Three inputs copied, four ReLUs of their sum s (s - 10, s + 1, s + 1, s + 1), and their sum, minus or plus 1."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.linear0, self.linear1, self.linear2 = nn.Linear(3, 3, bias=False), nn.Linear(3, 4), nn.Linear(4, 2)
        self.relu = nn.ReLU(inplace)
        with torch.no_grad():
            self.linear0.weight.copy_(torch.eye(3))
            self.linear1.weight.fill_(1)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1, 1, 1]))
            self.linear2.weight.fill_(1)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1]))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.relu(self.linear1(self.linear0(values))))


class OneConvolution(nn.Module):
    """Two maps, the sum of a 3 x 3 window minus 50 and minus 75, and a rectified dense layer: the second map's last
    three positions count against the rest."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 2, 3), nn.ReLU(inplace)
        self.fc1, self.relu2 = nn.Linear(8, 4, bias=False), nn.ReLU(inplace)
        with torch.no_grad():
            self.conv1.weight.fill_(1)
            self.conv1.bias.copy_(torch.tensor([-50.0, -75]))
            self.fc1.weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.relu2(self.fc1(self.relu1(self.conv1(images)).flatten(1)))


def first_output(logits: torch.Tensor, _images: slice) -> dict[str, torch.Tensor]:
    return {"output": logits[:, 0]}


def lost(module: nn.Module, layer: str, x: torch.Tensor, groups: Sequence[Sequence[int]], **options: Any) -> np.ndarray:
    """(groups, images): intact minus lesioned first output."""
    result = sweep(module, layer, x, [np.array(g) for g in groups], first_output, progress=False, **options)
    if options.get("method") is not None:
        assert result.method == options["method"], result.reason
    return result.intact["output"] - result.values["output"]


# ------------------------------------------------------------------ ablation by hand


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("inplace", [False, True])
def test_ablation_of_a_dense_layer_by_hand(method: str, inplace: bool) -> None:
    """The output is 4 s - 8 above s = 10, so a unit of value v costs 4 v, and a group the sum of its units."""
    module, x = Dense(inplace).double(), torch.tensor([[20.0, 50, 30]], dtype=torch.float64)
    found = lost(module, "linear0", x, [[0], [1], [2], [0, 1], [0, 1, 2]], method=method)
    # All three: s = 0, the first ReLU is off, and 3 - 1 = 2 is left of 392.
    np.testing.assert_array_equal(found[:, 0], [80, 200, 120, 280, 390])
    # Of the ReLUs (90, 101, 101, 101) each loses its own value.
    np.testing.assert_array_equal(
        lost(module, "relu", x, [[0], [1], [2], [3], [0, 3]], method=method)[:, 0], [90, 101, 101, 101, 191]
    )


@pytest.mark.parametrize("method", WAYS)
def test_ablation_to_a_value_by_hand(method: str) -> None:
    """Units become (1, 2, 3), not 0: each costs 4 times the distance."""
    x = torch.tensor([[43.0, 250, 40], [22, 160, 33]], dtype=torch.float64)
    options = {"mode": "mean", "fill": np.array([1.0, 2.0, 3.0]), "method": method}
    found = lost(Dense().double(), "linear0", x, [[0], [1], [2], [0, 2]], **options)
    np.testing.assert_array_equal(found.T, [[168, 992, 148, 316], [84, 632, 120, 204]])


@pytest.mark.parametrize("inplace", [False, True])
def test_ablation_of_single_positions_of_a_map_by_hand(inplace: bool) -> None:
    """Windows of 1 ... 16 sum to 54, 63, 90, 99: the maps are (4, 13, 40, 49) and (0, 0, 15, 24), the output 67."""
    module, x = OneConvolution(inplace).double(), torch.arange(1.0, 17, dtype=torch.float64).view(1, 1, 4, 4)
    intact = module(x.clone())
    assert intact[0, 0] == 67
    found = np.empty((2, 2, 2))
    for channel, y, column in np.ndindex(found.shape):
        with lesioned(module, UnitSet.of("relu1", channel, y=y, x=column)), torch.no_grad():
            found[channel, y, column] = float((intact - module(x.clone()))[0, 0])
    np.testing.assert_array_equal(found, [[[4, 13], [40, 49]], [[0, 0], [-15, -24]]])
    # Rows of the first map: without the second (89) the output would be -22, and is rectified.
    rows = [([0, 0], [0, 0], [0, 1], 17), ([0, 0], [1, 1], [0, 1], 67), ([1, 1], [1, 1], [0, 1], -39)]
    for channels, y, columns, cost in rows:
        with lesioned(module, UnitSet.of("relu1", channels, y=y, x=columns)), torch.no_grad():
            assert float((intact - module(x.clone()))[0, 0]) == cost
    assert torch.equal(module(x.clone()), intact)


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("inplace", [False, True])
def test_ablation_of_whole_maps_by_hand(method: str, inplace: bool) -> None:
    module, x = OneConvolution(inplace).double(), torch.arange(1.0, 17, dtype=torch.float64).view(1, 1, 4, 4)
    # Without the first map -39 is rectified to 0; without the second 106 stays; without both 0.
    np.testing.assert_array_equal(lost(module, "relu1", x, [[0], [1], [0, 1]], method=method)[:, 0], [67, -39, 67])


# ------------------------------------------------------------------ Shapley values by hand


def swept(module: nn.Module, layer: str, x: torch.Tensor) -> Callable[[str, np.ndarray, np.ndarray], Values]:
    """A game played with sweeps; its value is minus the first output, so that what is lost counts up."""

    def game(_tag: str, base: np.ndarray, players: np.ndarray) -> Values:
        nested = [players[: i + 1] for i in range(len(players))]
        result = sweep(module, layer, x, nested, first_output, base=base, progress=False)
        return {"loss": -result.values["output"]}

    return game


def table(value: Callable[[frozenset[int]], float]) -> Callable[[str, np.ndarray, np.ndarray], Values]:
    """A game whose value is a function of the players that are left out."""

    def game(_tag: str, base: np.ndarray, players: np.ndarray) -> Values:
        out = [{*base.tolist(), *players[: i + 1].tolist()} for i in range(len(players))]
        return {"loss": np.array([[value(frozenset(some))] for some in out])}

    return game


@pytest.mark.parametrize("seed", [0, 1])
def test_shapley_values_of_a_network_by_hand(seed: int) -> None:
    """Each unit costs 4 v, the last to go 10 less, for its ReLU is off by then: 4 v - 10 / 3 over all orders."""
    module, x = Dense().double(), torch.tensor([[20.0, 50, 30], [2, 10, 3]], dtype=torch.float64)
    found = shapley(swept(module, "linear0", x), 3, {"loss": -module(x).detach().numpy()[:, 0]}, 120, seed, 0.0)
    by_order = found.by_permutation["loss"]
    # In the first image the last unit to go takes s below 10; in the second, where s is 15, an earlier one may.
    for row in by_order:
        assert any(np.allclose(row, mean) for mean in _orders_by_hand(x.numpy())), row
    np.testing.assert_allclose(found.values["loss"].sum(axis=0), [390, 50], atol=1e-9)
    exact = np.mean(_orders_by_hand(x.numpy()), axis=0)
    np.testing.assert_allclose(exact, np.mean([[76 + 2 / 3, 196 + 2 / 3, 116 + 2 / 3], [7, 32.5, 10.5]], axis=0))
    sampling, _ = errors(found, "loss")
    assert np.all(np.abs(by_order.mean(axis=0) - exact) < 4 * sampling)
    assert sampling.max() < 0.6


def _orders_by_hand(x: np.ndarray) -> list[np.ndarray]:
    """What each unit costs in each of the six orders, mean over images."""
    found = []
    for order in permutations(range(3)):
        cost = np.zeros(x.shape)
        left = x.sum(axis=1)
        for unit in order:
            after = left - x[:, unit]
            cost[:, unit] = 3 * (left - after) + np.maximum(left - 10, 0) - np.maximum(after - 10, 0)
            left = after
        found.append(cost.mean(axis=0))
    return found


def test_rank_units_gives_the_shapley_values_of_two_units_by_hand() -> None:
    """Two units of one logit: the loss of class 0 is log(1 + e^-(a + b)), so all four coalitions are known."""
    module = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False)).double()
    module[1].weight.data.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    x = torch.tensor([[2.0, 1.0], [-1.0, -3.0]], dtype=torch.float64)
    task = Task("two", x, np.array([0, 1]))

    def loss(logit: float) -> float:
        return math.log1p(math.exp(-logit))

    alone = np.array([loss(1) + loss(3), loss(2) + loss(1)]) / 2  # without the first, without the second
    none, both = (loss(3) + loss(4)) / 2, math.log(2)
    early, late = alone - none, both - alone[::-1]  # what each costs if it goes first, if it goes second
    result = rank_units(
        module, "0", task, strategy="shapley", n_permutations=40, truncation=0.0, n_splits=0, seed=0, progress=False
    ).sel(task="two")
    found = result["loss_increase"].values
    first = (found[0] - late[0]) / (early[0] - late[0])  # share of orders in which unit 0 goes first
    assert first * 40 == pytest.approx(round(first * 40), abs=1e-6)
    assert 0.25 < first < 0.75
    np.testing.assert_allclose(found[1], first * late[1] + (1 - first) * early[1], atol=1e-12)
    assert found.sum() == pytest.approx(both - none)
    exact = (early + late) / 2
    assert np.all(np.abs(found - exact) < 4 * result["loss_increase_se_sampling"].values)
    assert result["rank"].values.tolist() == [2, 1]  # .31 nats against .35


WORTH = {"A": 10.0, "B": 9.0, "C": 57.0, "D": -8.0, "E": 42.0}
BONUS = 87.0


def with_interaction(missing: frozenset[int]) -> float:
    """Minus the value of what is left: the players' worth, and a bonus while the first two are both there."""
    worth = list(WORTH.values())
    bonus = BONUS * (not missing & {0, 1})
    return -(sum(worth) - sum(worth[i] for i in missing) + bonus)


@pytest.mark.parametrize("seed", [0, 111])
def test_an_interaction_of_87_with_player_0_is_recovered(seed: int) -> None:
    """The interaction of i and j: the pair as one player, less each of them in the game without the other."""
    nothing = {"loss": np.array([with_interaction(frozenset())])}
    found = shapley(table(with_interaction), 5, nothing, 200, seed, 0.0).values["loss"][:, 0]
    np.testing.assert_allclose(found[2:], [57, -8, 42], atol=1e-12)
    assert found[0] + found[1] == pytest.approx(10 + 9 + BONUS)
    assert abs(found[0] - 10 - BONUS / 2) < 12  # four standard errors of 200 fair coins between 0 and 87

    def value_of(players: Sequence[tuple[int, ...]], gone: tuple[int, ...] = ()) -> np.ndarray:
        """Shapley values of players that may stand for several, in the game without some."""

        def value(missing: frozenset[int]) -> float:
            return with_interaction(frozenset(gone) | {i for player in missing for i in players[player]})

        start = {"loss": np.array([value(frozenset())])}
        return shapley(table(value), len(players), start, 50, seed, 0.0).values["loss"][:, 0]

    interactions = np.zeros((5, 5))
    for i in range(5):
        for j in range(i):
            others = [(p,) for p in range(5) if p not in (i, j)]
            pair = value_of([(i, j), *others])[0]
            interactions[i, j] = pair - value_of([(i,), *others], (j,))[0] - value_of([(j,), *others], (i,))[0]
    expected = np.zeros((5, 5))
    expected[1, 0] = BONUS
    np.testing.assert_allclose(interactions, expected, atol=1e-10)


def test_the_one_cause_is_player_0_and_gets_all() -> None:
    found = shapley(table(lambda missing: -float(0 not in missing)), 3, {"loss": np.array([-1.0])}, 30, 0, 0.0)
    np.testing.assert_array_equal(found.values["loss"][:, 0], [1, 0, 0])


# ------------------------------------------------------------------ the peers themselves


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Import a peer; its own warnings are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip(request.param, reason=f"{request.param} is not installed: nothing to compare with")


class Small(nn.Module):
    """Two convolutions with in-place ReLU and pooling, and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True)
        self.fc1, self.fc1_relu, self.head = nn.Linear(128, 12), nn.ReLU(inplace=True), nn.Linear(12, 4)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.relu2(self.conv2(self.pool(self.relu1(self.conv1(images)))))
        return self.head(self.fc1_relu(self.fc1(hidden.flatten(1))))


@pytest.mark.parametrize("peer", ["captum.attr"], indirect=True)
@pytest.mark.parametrize(("layer", "shape"), [("relu1", (6, 8, 8)), ("relu2", (8, 4, 4)), ("fc1_relu", (12,))])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_captum_ablates_to_the_same_outputs(peer: Any, layer: str, shape: tuple[int, ...], baseline: float) -> None:
    module = Small().eval()
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    groups = torch.arange(shape[0]).view(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)
    with torch.no_grad():
        theirs = peer.LayerFeatureAblation(module, module.get_submodule(layer)).attribute(
            x, target=0, layer_mask=groups, layer_baselines=baseline
        )
    theirs = theirs.flatten(2)[..., 0] if theirs.ndim > 2 else theirs  # a group's positions share its value
    options: dict[str, Any] = {"mode": "mean", "fill": np.full(shape[0], baseline)} if baseline else {}
    for method in WAYS:
        ours = lost(module, layer, x, [[c] for c in range(shape[0])], method=method, **options)
        np.testing.assert_allclose(ours.T, theirs.numpy(), atol=1e-12)
    assert np.abs(ours[0]).max() > 1e-3  # unit 0 does something


@pytest.mark.parametrize("peer", ["captum.attr"], indirect=True)
def test_captum_gives_the_same_shapley_values(peer: Any) -> None:
    module, x = Dense().double(), torch.tensor([[20.0, 50, 30], [2, 10, 3]], dtype=torch.float64)
    theirs = peer.ShapleyValues(module).attribute(x, target=0).numpy()
    np.testing.assert_allclose(theirs, [[76 + 2 / 3, 196 + 2 / 3, 116 + 2 / 3], [7, 32.5, 10.5]], atol=1e-5)
    found = shapley(swept(module, "linear0", x), 3, {"loss": -module(x).detach().numpy()[:, 0]}, 200, 0, 0.0)
    sampling, _ = errors(found, "loss")
    assert np.all(np.abs(found.by_permutation["loss"].mean(axis=0) - theirs.mean(axis=0)) < 4 * sampling)


@pytest.mark.parametrize("peer", ["msapy.msa"], indirect=True)
def test_msapy_gives_the_same_shapley_values(peer: Any) -> None:
    """Names and a seed that are not 0: msapy (1.7) draws anew for seed 0, and lesions no element 0."""
    names = list(WORTH)

    def objective(complements: tuple[str, ...]) -> float:
        return -with_interaction(frozenset(names.index(name) for name in complements))

    theirs = peer.interface(
        elements=names,
        n_permutations=300,
        objective_function=objective,
        n_parallel_games=1,
        random_seed=111,
        lazy=False,
    )
    theirs = theirs.mean(axis=0)[names].to_numpy()
    nothing = {"loss": np.array([with_interaction(frozenset())])}
    found = shapley(table(with_interaction), 5, nothing, 300, 0, 0.0)
    ours, sampling = found.values["loss"][:, 0], errors(found, "loss")[0]
    np.testing.assert_allclose(ours[2:], theirs[2:], atol=1e-9)
    assert ours[:2].sum() == pytest.approx(theirs[:2].sum())
    assert np.all(np.abs(ours - theirs)[:2] < 5 * sampling[:2])
