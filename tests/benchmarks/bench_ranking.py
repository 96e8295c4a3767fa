"""Does racing hold its stated error probability on a trained network, and what does it save?

    python tests/benchmarks/bench_ranking.py
    python tests/benchmarks/bench_ranking.py --pools 1000 --shuffles 1000 --fraction 0.5

A small network learns drawn faces and drawn objects under one softmax, and every channel of two of its layers is
silenced for every image of a large pool that it never saw (``rank_units``, one_shot, per_image). The races are then run
on that matrix of losses, over ``--shuffles`` orders of the same pool, with the settings that ``rank_units`` uses; the
guess that steers them is the network's own gradient. Pools smaller than the largest are cut from it, balanced by class.

wrong   races in which fewer than 95 % of the top k agree with the exhaustive ranking of the same pool; the stated
        probability is ``--error``, and the bound is the upper end of the exact one-sided 95 % interval for the share
agree   mean share of the top k that agrees
saving  (unit, image) evaluations of the exhaustive ranking over those of the race, mean over shuffles (the tenth and
        the ninetieth percentile behind it)
guess   the same with the gradient counted as three evaluations an image, as for a plain loop of full forward passes
plain   mean share of the top k that agrees if the same number of evaluations is spent on the first images of the order,
        all units alike; in brackets, how often it is wrong

Last, ``rank_units`` itself by the clock, one_shot against racing, on the largest pool: a race has work of its own, and
its evaluations come in several sweeps, so it pays where an evaluation is dear.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: the processes share the cores

import numpy as np
from scipy.stats import beta

from actkit import plugins
from actkit.extractors.dual_task_cnn import ImageSets, image_sets, train
from actkit.ranking import rank_units
from actkit.ranking_engine import Engine, Journal, balanced_order, descending
from actkit.ranking_racing import race
from actkit.ranking_taylor import taylor
from actkit.resampling import Stream, generator
from actkit.tasks import Task
from actkit.units import round_half_up

SOURCES = {"faces": ("rendered_faces", "identity", 20, 1), "objects": ("rendered_objects", "category", 8, 5)}
LAYERS = ("features.relu3", "fc1_relu")
TRAINING = 800  # images a task
_POOLS = 2**60  # streams of the smaller pools, away from those of the shuffles


@dataclass(frozen=True)
class Case:
    """One matrix of losses: what is raced over."""

    name: str
    values: np.ndarray  # (units, images)
    guess: np.ndarray
    targets: np.ndarray
    k: int
    error: float


def shuffled(case: Case, seed: int) -> tuple[float, float, float]:
    """One race: share of the top k that agrees, share of the evaluations, agreement of as many images for all units."""
    order = balanced_order(case.targets, seed)
    rng = generator(seed, 0, Stream.PERMUTATIONS)
    found = race(
        lambda _round, units, images: case.values[np.ix_(units, images)], order, case.k, rng, case.guess, case.error
    )
    top = descending(case.values.mean(axis=1))[: case.k]
    cost = found.images.mean() / len(case.targets)
    part = descending(case.values[:, order[: max(1, round(cost * len(order)))]].mean(axis=1))[: case.k]
    return float(found.chosen[top].mean()), float(cost), len(np.intersect1d(part, top)) / case.k


def some_races(case: Case, seeds: range) -> list[tuple[float, float, float]]:
    """Races in a process of their own."""
    return [shuffled(case, seed) for seed in seeds]


def draw(name: str, pool: int, seed: int) -> ImageSets:
    """Images of a task: some to learn from, a pool to rank by."""
    dataset, label, classes, members = SOURCES[name]
    options = {"n_identities": classes} if members == 1 else {"n_categories": classes, "n_members": members}
    numbers = {"training": TRAINING // classes, "selectivity": 1, "ranking": -(-pool // classes), "evaluation": 10}
    # Two more of each than are needed: pictures can be equal, and each is used once.
    options["n_exemplars"] = -(-sum(numbers.values()) // members) + 2
    data = plugins.load("actkit.data_specs", "actkit")
    return image_sets(data.load(dataset, **options, size=32, seed=seed).stimuli, label, numbers, seed)


def cut(task: Task, size: int) -> np.ndarray:
    """Rows of a pool in which the classes have near equal numbers; a larger pool holds the smaller."""
    return np.sort(balanced_order(task.targets, 0, _POOLS)[:size])


def main() -> None:
    """Train, measure, race, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, nargs="+", default=[1000, 6400], help="images of each pool")
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument("--fraction", type=float, default=0.2, help="share of the units that is the top")
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    begin = time.perf_counter()
    workers = ProcessPoolExecutor(options.jobs, get_context("spawn"))
    pool = max(options.pools)
    drawn = {name: workers.submit(draw, name, pool, options.seed) for name in SOURCES}
    sources = {name: future.result() for name, future in drawn.items()}
    network = train(sources, epochs=options.epochs, seed=options.seed, progress=False)
    tasks = [sets.task(network, name) for name, sets in sources.items()]
    tasks = [task.take(cut(task, pool)) for task in tasks]
    for name, task in network.provenance["tasks"].items():
        print(
            f"{name:8} {task['n_classes']} classes, {task['n_train']} training images, held-out accuracy "
            f"{task['held_out_accuracy']:.2f} (chance {task['chance']:.3f})"
        )
    print(f"drawn and trained in {time.perf_counter() - begin:.0f} s")
    cases, clock = [], []
    for task in tasks:
        for layer in LAYERS:
            start = time.perf_counter()
            whole = rank_units(network, layer, task, per_image=True, n_splits=0, progress=False)
            one_shot = time.perf_counter() - start
            start = time.perf_counter()
            raced = rank_units(
                network, layer, task, strategy="racing", fraction=options.fraction, n_splits=0, progress=False
            )
            clock.append((task.name, layer, one_shot, time.perf_counter() - start, float(raced["evaluated"][0])))
            values = whole["image_loss_increase"].values[0]
            engine = Engine(
                network.module, layer, task, 0, len(values), whole["unit"].values, Journal(None, {}), {"mode": "zero"}
            )
            guess = taylor(engine)
            for size in sorted(options.pools):
                rows = cut(task, size)
                k = round_half_up(options.fraction * len(values))
                name = f"{task.name:8} {layer:15} {len(values):4} {k:4} {size:7}"
                cases.append(Case(name, values[:, rows], guess[:, rows], task.targets[rows], k, options.error))
    print(f"losses of {sum(case.values.size for case in cases):,} pairs after {time.perf_counter() - begin:.0f} s\n")
    head = f"{'task':8} {'layer':15} {'unit':>4} {'k':>4} {'images':>7}"
    print(f"{head}  wrong (bound)  agree  saving           guess  plain")
    totals: dict[int, list[np.ndarray]] = {}
    seeds = [range(i, options.shuffles, options.jobs) for i in range(options.jobs)]
    with workers:
        waiting = [[workers.submit(some_races, case, part) for part in seeds] for case in cases]
        for case, futures in zip(cases, waiting, strict=True):
            runs = np.array([run for future in futures for run in future.result()])
            totals.setdefault(len(case.targets), []).append(runs)
            wrong, plainly = (int((runs[:, column] < 0.95 - 1e-9).sum()) for column in (0, 2))
            cost = runs[:, 1]
            low, high = 1 / np.quantile(cost, [0.9, 0.1])
            print(
                f"{case.name}  {wrong:3}/{len(runs)} ({bound(wrong, len(runs)):.3f})  {runs[:, 0].mean():.3f}  "
                f"{1 / cost.mean():4.1f} ({low:4.1f}-{high:4.1f})  {1 / (cost.mean() + 3 / len(case.values)):5.1f}  "
                f"{runs[:, 2].mean():.3f} ({plainly})",
                flush=True,
            )
    print()
    for size, found in totals.items():
        runs = np.concatenate(found)
        wrong = int((runs[:, 0] < 0.95 - 1e-9).sum())
        worst = max(float((some[:, 0] < 0.95 - 1e-9).mean()) for some in found)
        print(
            f"{size} images: {wrong} of {len(runs)} races wrong ({bound(wrong, len(runs)):.4f} at the most), "
            f"worst case {worst:.3f}, stated {options.error:g}: {'held' if worst <= options.error else 'NOT HELD'}; "
            f"{1 / np.mean([some[:, 1].mean() for some in found]):.1f} times fewer evaluations"
        )
    print()
    for name, layer, one_shot, raced, evaluated in clock:
        print(
            f"{name:8} {layer:15} {pool} images by the clock: one_shot {one_shot:5.1f} s, racing "
            f"{raced:5.1f} s ({evaluated:.3f} of the evaluations)"
        )
    print(f"all in {time.perf_counter() - begin:.0f} s, {options.jobs} processes")


def bound(wrong: int, runs: int) -> float:
    """Upper end of the exact one-sided 95 % interval for a share."""
    return 1.0 if wrong == runs else float(beta.ppf(0.95, wrong + 1, runs - wrong))


if __name__ == "__main__":
    main()
