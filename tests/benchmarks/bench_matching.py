"""Unit matching against the rate of a plain matrix product, and against what other tools do, in one run.

    python tests/benchmarks/bench_matching.py                      # 1,000,000 units x 168 neurons x 3200 stimuli
    python tests/benchmarks/bench_matching.py --threads 2
    python tests/benchmarks/bench_matching.py --store scratch.zarr --store-units 100000
    python tests/benchmarks/bench_matching.py --small

match         `match_layer`, five folds from one pass over units that are made block by block, against numpy's product
              of the same neurons with the same block, timed in the moment before the pass is given the block
memory        what the process grows by during the pass, beyond the buffer that the units are made in (own process)
permutations  999 permutations on a layer of 640 stimuli and 50 neurons, against one product of each set's shape
peers         a loop of scipy.stats.pearsonr over pairs of unit and neuron; Brain-Score's SingleRegression (2.4.2),
              whose steps are followed here since it asks for numpy < 2 and xarray < 2022.6: for every neuron the units
              are centred, scaled and correlated anew; both on a few neurons and units of one fold, and scaled
scores        correlation of 168 predicted with 168 observed neurons, against scipy.stats.pearsonr in a loop over
              columns, and over columns of a DataArray, as Brain-Score's XarrayCorrelation goes
store         the pass over a store on disk, against reading its blocks alone

CPU seconds are of the whole process, all threads together: on a machine that others use, they are the ones to compare.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from scipy import stats
from threadpoolctl import threadpool_limits

from actkit.analyses.encoding_scores import correlation
from actkit.analyses.source import Layer, open_source
from actkit.analyses.unit_matching_folds import Folds, deal_folds
from actkit.analyses.unit_matching_kernel import Best, Targets, match_layer
from actkit.analyses.unit_matching_nulls import draw_orders, null_targets
from actkit.store import store_from_arrays

FOLDS, MEMORY = 5, 500 * 10**6
BUFFER = 128 * 10**6  # bytes of the units that are made at a time


def clock() -> np.ndarray:
    """CPU and wall seconds."""
    return np.array([time.process_time(), time.perf_counter()])


def timed(work: Callable[[], object]) -> np.ndarray:
    """CPU and wall seconds of some work."""
    start = clock()
    work()
    return clock() - start


@dataclass
class Made:
    """A layer whose units are made while it is read, with the seconds of making and of plain products apart."""

    n: int
    units: int
    neurons: np.ndarray | None = None  # (neurons, n): the plain product is timed too
    threads: int = 1
    aside: np.ndarray = field(default_factory=lambda: np.zeros(2))
    product: np.ndarray = field(default_factory=lambda: np.zeros(2))
    buffer: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Touch the memory once, so that it belongs to the source."""
        self.buffer = np.ones((self.n, min(self.units, BUFFER // (4 * self.n))), dtype=np.float32)

    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """Uniform numbers; another thousand units in each block would do, but these are all different."""
        rng = np.random.default_rng(0)
        width = self.buffer.shape[1]
        out = None if self.neurons is None else np.zeros((len(self.neurons), width), dtype=np.float32)
        for start in range(0, self.units, width):
            begin = clock()
            rng.random(out=self.buffer, dtype=np.float32)
            if self.neurons is not None:
                with threadpool_limits(self.threads, user_api="blas"):
                    self.product += timed(lambda: np.matmul(self.neurons, self.buffer, out=out))
            self.aside += clock() - begin
            yield self.buffer[:, : min(width, self.units - start)]

    def layer(self) -> Layer:
        """As matching reads it."""
        return Layer("made", self.units, False, 4, self.blocks)


def material(n: int, neurons: int) -> tuple[Folds, Targets]:
    """Folds, and neurons of noise."""
    folds = deal_folds(n, FOLDS, None, None, 0)
    return folds, Targets.of(np.random.default_rng(1).standard_normal((n, neurons)), folds)


def passed(layer: Layer, folds: Folds, sets: list[Targets], threads: int) -> list[Best]:
    """One pass."""
    keep = [True] + [False] * (len(sets) - 1)
    return match_layer(layer, np.arange(len(folds.order)), folds, sets, keep, MEMORY, workers=threads)


def warm(n: int, neurons: int, threads: int) -> tuple[Folds, Targets]:
    """Material, with the loops compiled."""
    folds, targets = material(n, neurons)
    passed(Made(n, 2000).layer(), folds, [targets], threads)
    return folds, targets


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matching(n: int, neurons: int, units: int, threads: int, rounds: int) -> float:
    """Print the rate of the pass; return its CPU seconds."""
    folds, targets = warm(n, neurons, threads)
    ours, plain = [], []
    for _ in range(rounds):
        made = Made(n, units, targets.values.astype(np.float32), threads)
        total = timed(lambda made=made: passed(made.layer(), folds, [targets], threads))
        width = made.buffer.shape[1]
        ours.append(total - made.aside)
        plain.append(made.product * units / (-(-units // width) * width))  # the last block is cut for ours alone
    a, b = np.median(ours, axis=0), np.median(plain, axis=0)
    share = np.median(np.array(plain) / np.array(ours), axis=0)
    rate = 2 * n * neurons * units / 1e9
    print(
        f"match         {units:,} units x {neurons} neurons x {n} stimuli, {FOLDS} folds, {threads} thread(s), median "
        f"of {rounds}: ours {a[0]:.2f} s CPU, {a[1]:.2f} s wall ({rate / a[0]:.0f} GFLOP/s of CPU); numpy's product "
        f"{b[0]:.2f} s, {b[1]:.2f} s ({rate / b[0]:.0f}); {share[0]:.1%} of its rate by CPU, {share[1]:.1%} by wall "
        f"(by round {', '.join(f'{x[0] / y[0]:.3f}' for x, y in zip(plain, ours, strict=True))})",
        flush=True,
    )
    return float(a[0])


def grown(n: int, neurons: int, units: int, threads: int) -> None:
    """Print what the process grows by during one pass."""
    folds, targets = warm(n, neurons, threads)
    made = Made(n, units)
    before = resident()
    passed(made.layer(), folds, [targets], threads)
    print(
        f"memory        {units:,} units, {threads} thread(s): {(peak() - before) / 1e6:.0f} MB more at the peak than "
        f"before the pass, beside the {made.buffer.nbytes / 1e6:.0f} MB in which the units are made",
        flush=True,
    )


def permuted(units: int, threads: int, full: int) -> None:
    """Print the cost of 999 permutations."""
    n, neurons = 640, 50
    folds, targets = warm(n, neurons, threads)
    made = timed(lambda: list(null_targets(targets, draw_orders(n, 999, None, None, 0), folds)))
    sets = [targets, *null_targets(targets, draw_orders(n, 999, None, None, 0), folds)]
    ours = timed(lambda: passed(Made(n, units).layer(), folds, sets, threads))
    y = sets[1].rows(targets.values.astype(np.float32))
    x, out = np.random.default_rng(0).random((n, 10_000), dtype=np.float32), np.zeros((len(y), 10_000), np.float32)
    with threadpool_limits(threads, user_api="blas"):
        plain = np.median([timed(lambda: np.matmul(y, x, out=out)) for _ in range(5)], axis=0)
    plain *= 1000 * neurons / len(y) * units / 10_000
    print(
        f"permutations  {units:,} units x {neurons} neurons x {n} stimuli x 1000 orders: {ours[0]:.1f} s CPU, "
        f"{ours[1]:.1f} s wall, {ours[0] * full / units:.0f} s for {full:,} units, and {made[0]:.2f} s to draw up; "
        f"{plain[0] / ours[0]:.1%} of the rate of numpy's product by CPU",
        flush=True,
    )


def brain_score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The steps of Brain-Score's SingleRegression.fit."""
    r = np.zeros((y.shape[1], x.shape[1]))
    for neuron in range(y.shape[1]):
        xm, ym = x - x.mean(axis=0, keepdims=True), y[:, [neuron]] - y[:, [neuron]].mean(axis=0, keepdims=True)
        xm = xm / np.linalg.norm(xm, axis=0, keepdims=True)
        r[neuron] = (xm * (ym / np.linalg.norm(ym, axis=0, keepdims=True))).sum(axis=0)
    return np.asarray(np.nanargmax(r, axis=1))


def peers(n: int, neurons: int, units: int, ours: float, rounds: int) -> None:
    """Print what others would take, from a sample."""
    rng = np.random.default_rng(2)
    x, y = rng.random((n * (FOLDS - 1) // FOLDS, 2000), dtype=np.float32), rng.standard_normal((n * 4 // 5, 4))
    pairs = [(x[:, k], y[:, 0]) for k in range(300)]
    loop = np.median([timed(lambda: [stats.pearsonr(*pair) for pair in pairs])[0] for _ in range(rounds)])
    score = np.median([timed(lambda: brain_score(x, y))[0] for _ in range(rounds)])
    every = FOLDS * neurons * units
    print(
        f"peers         scaled to the same work, training correlations alone, CPU: scipy loop over pairs "
        f"{loop / len(pairs) * every / 3600:,.0f} h, {loop / len(pairs) * every / ours:,.0f} times ours; Brain-Score's "
        f"steps {score / (4 * 2000) * every / 60:,.0f} min, {score / (4 * 2000) * every / ours:,.0f} times",
        flush=True,
    )


def scores(n: int, neurons: int, rounds: int) -> None:
    """Print the comparison of correlations neuron by neuron."""
    rng = np.random.default_rng(3)
    observed = rng.standard_normal((n, neurons))
    predicted = observed + rng.standard_normal((n, neurons))
    one, other = (xr.DataArray(v, dims=("presentation", "neuroid")) for v in (predicted, observed))
    ours, plain, theirs = [], [], []
    for _ in range(max(rounds, 5)):
        ours.append(timed(lambda: [correlation(predicted, observed) for _ in range(20)])[0] / 20)
        plain.append(timed(lambda: [stats.pearsonr(predicted[:, k], observed[:, k]) for k in range(neurons)])[0])
        theirs.append(
            timed(lambda: [stats.pearsonr(one.isel(neuroid=k), other.isel(neuroid=k)) for k in range(neurons)])[0]
        )
    expected = [stats.pearsonr(predicted[:, k], observed[:, k]).statistic for k in range(neurons)]
    np.testing.assert_allclose(correlation(predicted, observed), expected, atol=1e-12)
    a, b, c = np.median(ours), np.median(plain), np.median(theirs)
    print(
        f"scores        {n} stimuli x {neurons} neurons, CPU: ours {a * 1e3:.2f} ms, scipy loop {b * 1e3:.0f} ms, "
        f"{b / a:.0f} times; loop over a DataArray {c * 1e3:.0f} ms, {c / a:.0f} times",
        flush=True,
    )


def from_store(path: Path, n: int, neurons: int, threads: int) -> None:
    """Print the pass over a store on disk."""
    folds, targets = warm(n, neurons, threads)
    layer = open_source(path).layers[0]
    y, out = targets.values.astype(np.float32), np.zeros((neurons, layer.n_units), dtype=np.float32)

    def read(multiply: bool) -> np.ndarray:
        seconds, start = np.zeros(2), 0
        for block in layer.blocks(MEMORY // 2):
            if multiply:
                into = out[:, start : start + block.shape[1]]
                seconds += timed(lambda block=block, into=into: np.matmul(y, np.asarray(block), out=into))
                start += block.shape[1]
        return seconds

    before = resident()
    read(False)
    source = peak() - before
    passed(layer, folds, [targets], threads)  # also compiles the loops for blocks as the store gives them
    more = peak() - before - source
    with threadpool_limits(threads, user_api="blas"):
        alone, product = timed(lambda: read(False)), read(True)
    ours = timed(lambda: passed(layer, folds, [targets], threads))
    print(
        f"store         {layer.n_units:,} units on disk: pass {ours[0]:.2f} s CPU, {ours[1]:.2f} s wall; reading alone "
        f"{alone[0]:.2f} s, {alone[1]:.2f} s, numpy's product {product[0]:.2f} s, {product[1]:.2f} s: reading and "
        f"product are {(alone[0] + product[0]) / ours[0]:.1%} of the pass; memory {more / 1e6:.0f} MB more than the "
        f"{source / 1e6:.0f} MB "
        "of reading",
        flush=True,
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--permuted-units", type=int, default=20_000)
    parser.add_argument("--store", type=Path, help="a store to match from; made where there is none")
    parser.add_argument("--store-units", type=int, default=100_000)
    parser.add_argument("--only", choices=("memory", "store"), help="one part, in a process of its own")
    given = parser.parse_args()
    n, neurons = (200, 20) if given.small else (3200, 168)
    units = min(given.units, 20_000) if given.small else given.units
    if given.only == "memory":
        grown(n, neurons, units, given.threads)
        return
    if given.only == "store":
        from_store(given.store, n, neurons, given.threads)
        return
    ours = matching(n, neurons, units, given.threads, given.rounds)
    alone = [sys.executable, __file__, *sys.argv[1:], "--only"]
    subprocess.run([*alone, "memory"], check=True)
    permuted(2000 if given.small else given.permuted_units, given.threads, 100_000)
    peers(n, neurons, units, ours, given.rounds)
    for stimuli in (n // FOLDS, n):
        scores(stimuli, neurons, given.rounds)
    if given.store is not None:
        if not given.store.exists():
            values = np.random.default_rng(0).random((n, given.store_units), dtype=np.float32)
            store_from_arrays(given.store, {"layer": values})
        subprocess.run([*alone, "store"], check=True)
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
