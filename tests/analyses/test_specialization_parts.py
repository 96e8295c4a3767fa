"""Parts of live networks: lesions of modules and filters, and the weights that a sub-task needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actkit.analyses.specialization_lesions import lesion_parts
from actkit.analyses.specialization_masks import weight_masks
from actkit.errors import InputError
from actkit.tasks import Task
from actkit.units import UnitSet


class TwoRoads(torch.nn.Module):
    """Two inputs of four classes; hidden units 0-3 carry the first, 4-7 the second, 8-11 both."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.hidden = torch.nn.Identity()
        first, second = torch.eye(4), torch.eye(4)
        zero = torch.zeros(4, 4)
        both = torch.cat([first, second], dim=1)
        rows = [both, both, both] if mixed else [torch.cat([first, zero], 1), torch.cat([zero, second], 1), both]
        self.spread = torch.cat(rows)
        # Columns 0-3 answer the first task, 4-7 the second; the shared units count half.
        a, b, c = torch.cat([first, zero]), torch.cat([zero, second]), 0.4 * torch.cat([first, second])
        if mixed:
            a = b = c = torch.cat([first, second])
        self.read = torch.cat([a, b, c], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden(x @ self.spread.T)
        return hidden @ self.read.T


def tasks(n: int = 200, seed: int = 0) -> list[Task]:
    rng = np.random.default_rng(seed)
    digits = rng.integers(4, size=(n, 2))
    made = []
    for k, name in enumerate(("first", "second")):
        shown = torch.zeros(n, 8)
        shown[torch.arange(n), torch.from_numpy(digits[:, k] + 4 * k)] = 1.0
        made.append(Task(name, shown, digits[:, k] + 4 * k, np.arange(4 * k, 4 * k + 4)))
    return made


def units(rows: range) -> UnitSet:
    return UnitSet.of("hidden", list(rows), shape=(12,))


PARTS = {"a": units(range(4)), "b": units(range(4, 8)), "shared": units(range(8, 12))}


def test_lesions_tell_parts_of_a_task_from_shared_ones() -> None:
    result = lesion_parts(TwoRoads(mixed=False), tasks(), PARTS)
    known = result["known"].values
    np.testing.assert_allclose(known, [[1, 0], [0, 1], [1, 1]], atol=0.12)
    two = lesion_parts(TwoRoads(mixed=False), tasks(), {k: PARTS[k] for k in "ab"})
    # The shared units are in no part and stay, so either part alone answers both.
    np.testing.assert_allclose(two["known"], 1)
    assert float(two["S"]) == 0
    assert float(result["S"]) == pytest.approx(np.mean([1, 0.5, 0.5]), abs=0.08)
    assert (result["accuracy_all"] == 1).all()
    assert (result["accuracy_without"] == 1).all()


def test_identical_parts_are_not_specialised() -> None:
    result = lesion_parts(TwoRoads(mixed=True), tasks(), PARTS)
    assert float(result["S"]) == 0
    assert float(result["raw_difference"]) == 0


def test_where_no_part_beats_chance_there_is_no_s() -> None:
    net = TwoRoads(mixed=False)
    net.read = torch.zeros_like(net.read)
    result = lesion_parts(net, tasks(), PARTS)
    assert np.isnan(result["S"])
    assert np.isfinite(result["raw_difference"])


def test_chance_of_all_columns_is_lower() -> None:
    own = lesion_parts(TwoRoads(mixed=False), tasks(), PARTS)
    every = lesion_parts(TwoRoads(mixed=False), tasks(), PARTS, columns="all")
    np.testing.assert_allclose(own["chance"], 0.25)
    np.testing.assert_allclose(every["chance"], 0.125)


def test_overlapping_parts_are_refused() -> None:
    with pytest.raises(InputError, match="1 units are in both 'a' and 'b'"):
        lesion_parts(TwoRoads(mixed=False), tasks(), {"a": PARTS["a"], "b": units(range(3, 8))})
    with pytest.raises(InputError, match="1 parts and 2 tasks"):
        lesion_parts(TwoRoads(mixed=False), tasks(), {"a": PARTS["a"]})


class Modules(torch.nn.Module):
    """Two hidden modules of six units; each sees its own input, and both reach the answer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = torch.nn.Parameter(torch.zeros(12, 8))
        self.out = torch.nn.Parameter(torch.zeros(4, 12))
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for m in range(2):
                block = torch.randn(6, 4, generator=random)
                self.inner[6 * m : 6 * m + 6, 4 * m : 4 * m + 4] = block
                self.out[:, 6 * m : 6 * m + 6] = torch.linalg.pinv(block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * (x @ self.inner.T) @ self.out.T


def pairs(n: int = 800):
    digits = np.random.default_rng(3).integers(4, size=(n, 2))
    x = torch.zeros(n, 8)
    for k in range(2):
        x[torch.arange(n), torch.from_numpy(digits[:, k] + 4 * k)] = 1.0
    return x, {"first": digits[:, 0], "second": digits[:, 1]}


def where() -> dict[str, np.ndarray]:
    part = np.repeat([0, 1], 6)
    return {"inner": np.broadcast_to(part[:, None], (12, 8)), "out": np.broadcast_to(part[None], (4, 12))}


def test_masks_find_the_module_that_sees_the_digit() -> None:
    x, labels = pairs()
    nets = [Modules(0), Modules(1)]
    result = weight_masks(nets, x, labels, where(), ["m0", "m1"], share=0.35, epochs=30, batch=64, learning_rate=5.0)
    assert (result["accuracy"] > 0.8).all()
    assert (result["known"].sel(part="m0", task="first") > 0.6).all()
    assert (result["known"].sel(part="m1", task="second") > 0.6).all()
    np.testing.assert_allclose(result["known"].sum("part"), 1, atol=1e-6)
    assert (result["S"] > 0.3).all()
    # Together as alone, and the networks are as they were.
    alone = weight_masks(nets[1:], x, labels, where(), ["m0", "m1"], share=0.35, epochs=30, batch=64, learning_rate=5.0)
    np.testing.assert_allclose(result["known"][1], alone["known"][0], atol=0.03)
    assert torch.equal(nets[0].inner, Modules(0).inner)


def test_masks_of_one_network_equal_a_plain_loop() -> None:
    x, labels = pairs(60)
    net = Modules(2)
    result = weight_masks([net], x, labels, where(), ["m0", "m1"], share=0.3, epochs=2, batch=20, seed=5)
    from actkit.resampling import Stream, generator

    order = generator(5, 0, Stream.PERMUTATIONS).permutation(60)
    train = order[12:]
    random = generator(5, 0, Stream.SUBJECTS)
    scores = []
    for weight in (net.inner, net.out):
        bound = 1 / np.sqrt(weight.shape[1])
        drawn = random.uniform(-bound, bound, size=tuple(weight.shape)).astype(np.float32)
        scores.append(torch.from_numpy(drawn).requires_grad_())
    for epoch in range(2):
        shuffled = generator(5, 1 + epoch, Stream.STIMULI).permutation(train)
        for start in (0, 20):
            rows = torch.from_numpy(shuffled[start : start + 20])
            bound = torch.cat([s.detach().ravel() for s in scores]).topk(int(0.3 * (96 + 48))).values[-1]
            hard = [(s.detach() >= bound).float() for s in scores]
            soft = [h + s - s.detach() for h, s in zip(hard, scores, strict=True)]
            logits = 4 * (x[rows] @ (net.inner.detach() * soft[0]).T) @ (net.out.detach() * soft[1]).T
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels["first"])[rows])
            steps = torch.autograd.grad(loss, scores)
            scores = [(s - 0.1 * g).detach().requires_grad_() for s, g in zip(scores, steps, strict=True)]
    bound = torch.cat([s.detach().ravel() for s in scores]).topk(int(0.3 * 144)).values[-1]
    kept = [(s.detach() >= bound).numpy() for s in scores]
    first = (kept[0][:6].sum() + kept[1][:, :6].sum()) / (kept[0].sum() + kept[1].sum())
    assert float(result["known"].sel(part="m0", task="first")[0]) == pytest.approx(first, abs=1e-6)


def test_masks_refuse_what_they_cannot_do() -> None:
    x, labels = pairs(40)
    with pytest.raises(InputError, match="there is no network"):
        weight_masks([], x, labels, where(), ["m0", "m1"])
    with pytest.raises(InputError, match="parts of 'outer' have shape"):
        weight_masks([Modules(0)], x, labels, {"outer": np.zeros((2, 2), int)}, ["m0", "m1"])
    with pytest.raises(InputError, match="there are 1 names"):
        weight_masks([Modules(0)], x, labels, where(), ["m0"])
    with pytest.raises(InputError, match="do not fit 1 networks"):
        weight_masks([Modules(0)], x, {"first": labels["first"]}, where(), ["m0", "m1"])
