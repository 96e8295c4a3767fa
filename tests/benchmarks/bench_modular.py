"""Training many networks of modules as one, against training them one after the other, in one interleaved run.

    python tests/benchmarks/bench_modular.py                 # the sweep of Béna & Goodman: 140 networks, a few batches
    python tests/benchmarks/bench_modular.py --threads 2     # wall seconds are then the ones to look at
    python tests/benchmarks/bench_modular.py --small

stacked   all networks of the sweep (sizes 10, 25, 50; five connectivities, of which two coincide for size 10; ten
          seeds) by `train_networks`' own steps
alone     the same steps, one network at a time, on a sample of the networks
plain     what a user would write: a loop over `ModularRNN` with cross_entropy, backward and torch.optim.AdamW, and the
          same noise, one network at a time, on the same sample
limit     floating-point operations of a step (products with inputs and recurrent weights, forward and backward), at the
          rate that torch multiplies large matrices on this machine
heads     read-outs of three views and two sub-tasks (`fit_heads`): all networks of a size together; one network at a
          time; and one head after the other with torch.nn and torch.optim.AdamW
memory    what the process grows by while a sweep is trained (own process)

All per network and step, medians over rounds in which the kinds take turns. Pairs are drawn before the clock starts.
CPU seconds are of the whole process, all threads together: on a machine that others use, they are the ones to compare
(with one thread).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from actkit.analyses.specialization_heads import HeadSettings, fit_heads
from actkit.extractors.digit_pairs import Glyphs
from actkit.extractors.modular_rnn import ModularOptions, ModularRNN
from actkit.extractors.modular_samples import Batches, World, noise_source
from actkit.extractors.modular_training import (
    LearningOptions,
    _begin,
    _by_stream,
    _epoch,
    _prepare,
    _side_by_side,
    train_networks,
)
from actkit.resampling import Stream, generator

BATCH, PIXELS = 256, 196
Cells = list[tuple[ModularOptions, World]]


def clock() -> np.ndarray:
    """CPU and wall seconds."""
    return np.array([time.process_time(), time.perf_counter()])


def timed(work: Callable[[], object]) -> np.ndarray:
    """CPU and wall seconds of some work."""
    start = clock()
    work()
    return clock() - start


def glyphs(n: int, seed: int) -> Glyphs:
    """Images of ten classes, as large as digits of 14 × 14 pixels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 10
    images = np.random.default_rng(9).normal(size=(10, PIXELS))[labels] + rng.normal(size=(n, PIXELS))
    return Glyphs(images.astype(np.float32), labels, tuple("0123456789"), tuple(f"{seed}_{k}" for k in range(n)))


def sweep(sizes: Sequence[int], seeds: int) -> Cells:
    """The networks of the paper's grid."""
    return [
        (ModularOptions(units=n, p=p, seed=seed), World())
        for seed in range(seeds)
        for n in sizes
        for p in (-1, 0.01, 0.1, 0.5, 1.0)
        if p != 0.01 or n > 10
    ]


def ours(cells: Cells, train: Glyphs, test: Glyphs) -> np.ndarray:
    """Seconds of an epoch by the toolkit's steps."""
    options = LearningOptions(epochs=1, batch=BATCH)
    streams, stacks = _prepare(cells, train, test)
    courses = [_begin(stack, options) for stack in stacks]
    with _side_by_side() as each:
        return timed(lambda: each(lambda own: _epoch(own, streams, 0, options), _by_stream(courses)))


def plain(cells: Cells, train: Glyphs, test: Glyphs) -> np.ndarray:
    """Seconds of an epoch of a loop as anyone would write it."""
    total = np.zeros(2)
    for cell in cells:
        streams, _ = _prepare([cell], train, test)
        total += timed(lambda stream=streams[0], options=cell[0]: plain_epoch(stream, options))
    return total


def plain_epoch(stream: Batches, options: ModularOptions) -> None:
    """One network, one epoch."""
    module = ModularRNN(options, PIXELS, 2, 10)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-5)
    order = generator(stream.seed, 0, Stream.STIMULI).permutation(len(stream.learnt.pairs))
    random = noise_source(stream.seed, 0)
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        frames = stream.learnt.show(rows, stream.world, random)
        logits = module(frames.transpose(0, 1)).view(-1, 10)
        loss = torch.nn.functional.cross_entropy(logits, stream.learnt.targets(rows)[:, 0].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def limit(cells: Cells) -> float:
    """CPU milliseconds of a network's step if it were nothing but products at the best rate."""
    x, weight = torch.randn(5 * BATCH, PIXELS), torch.randn(250, PIXELS)
    product = torch.ops.mkldnn._linear_pointwise if hasattr(torch.ops.mkldnn, "_linear_pointwise") else None
    work = (lambda: x @ weight.T) if product is None else (lambda: product(x, weight, None, "none", [], ""))
    seconds = min(timed(lambda: [work() for _ in range(10)])[0] / 10 for _ in range(8))
    rate = 2 * x.numel() * len(weight) / seconds
    sizes = np.array([one.size for one, _ in cells], dtype=float)
    inputs = 2 * 2 * (5 * BATCH) * PIXELS * 2 * sizes  # forward and gradient of the weights
    recurrent = 3 * 2 * 4 * BATCH * (2 * sizes) ** 2
    print(f"best rate {rate / 1e9:.0f} GFLOP/s, {np.mean(inputs + recurrent) / 1e6:.0f} MFLOP a network and step")
    return float(np.mean(inputs + recurrent)) / rate * 1e3


def heads(networks: int, units: int, n: int, steps: int, rounds: int) -> None:
    """Read-outs together, by network, and by head."""
    random = torch.Generator().manual_seed(0)
    states = torch.rand(networks, n, 5, 2 * units, generator=random) * 2 - 1
    labels = torch.randint(10, (networks, n, 2), generator=random)
    views = torch.ones(3, 2 * units)
    views[0, units:] = 0
    views[1, :units] = 0
    settings = HeadSettings(epochs=1, batch=n // steps)
    sample = range(0, networks, max(1, networks // 3))

    def by_head() -> None:
        for r in sample:
            for view in views:
                for q in range(2):
                    head = torch.nn.Sequential(torch.nn.Linear(2 * units, 30), torch.nn.ReLU(), torch.nn.Linear(30, 10))
                    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-5)
                    for rows in torch.randperm(n, generator=random).split(settings.batch):
                        logits = head(states[r, rows] * view)
                        loss = torch.nn.functional.cross_entropy(
                            logits.flatten(0, 1), labels[r, rows, q].repeat_interleave(5)
                        )
                        optimiser.zero_grad()
                        loss.backward()
                        optimiser.step()

    def some(rows: slice) -> None:
        fit_heads(states[rows], labels[rows], [10, 10], views, settings)

    def by_network() -> None:
        for r in sample:
            some(slice(r, r + 1))

    kinds = {
        "together": (lambda: some(slice(None)), networks),
        "by network": (by_network, len(sample)),
        "by head": (by_head, len(sample)),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        for name, (work, count) in kinds.items():
            found[name].append(timed(work) / (count * steps) * 1e3)
    show(f"heads, {networks} networks of 2 × {units} units, 3 views × 2 sub-tasks", found, "together")


def show(title: str, found: dict[str, list[np.ndarray]], base: str) -> None:
    """Medians, and ratios to one kind; the first round warms up."""
    print(title)
    middle = {name: np.median(np.array(rounds[1:]), axis=0) for name, rounds in found.items()}
    for name, (cpu, wall) in middle.items():
        times = np.median([a / b for a, b in zip(found[name][1:], found[base][1:], strict=True)], axis=0)
        print(f"  {name:11} {cpu:7.3f} ms CPU  {wall:7.3f} ms wall   × {times[0]:.2f} CPU  × {times[1]:.2f} wall")


def memory(seeds: int) -> None:
    """What training a sweep adds to the process."""
    train, test = glyphs(3750, 0), glyphs(1250, 1)
    before = peak()
    train_networks(sweep((10, 25, 50), seeds), train, test, False, epochs=1)
    print(f"  grows by {peak() - before:.0f} MB")


def peak() -> float:
    """Largest memory of the process until now, in MB; Linux counts it from the start of the program."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="batches a round")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--small", action="store_true", help="two seeds, two rounds")
    parser.add_argument("--only", choices=("training", "heads", "memory"), help="one part, memory in this process")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds, rounds = (2, 2) if given.small else (given.seeds, given.rounds)
    if given.only == "memory":
        memory(seeds)
        return
    cells = sweep((10, 25, 50), seeds)
    sample = [cells[k] for k in (1, 6, 11)]  # one of each size
    # The sample is of equal parts, the sweep is not quite: each kind is weighed by the sizes of the sweep.
    train, test = glyphs(given.steps * BATCH, 0), glyphs(200, 1)
    print(f"torch {torch.__version__}, {given.threads} thread(s), {len(cells)} networks, {given.steps} batches a round")
    shares = [sum(one.size == n for one, _ in cells) / len(cells) for n in (10, 25, 50)]
    if given.only != "heads":
        found: dict[str, list[np.ndarray]] = {"stacked": [], "alone": [], "plain": []}
        for _ in range(rounds + 1):
            found["stacked"].append(ours(cells, train, test) / (len(cells) * given.steps) * 1e3)
            for name, kind in (("alone", ours), ("plain", plain)):
                each = [kind([cell], train, test) / given.steps * 1e3 for cell in sample]
                found[name].append(np.average(each, axis=0, weights=shares))
        show("training, per network and step", found, "stacked")
        bound = limit(cells)
        reached = float(np.median([one[0] for one in found["stacked"][1:]]))
        print(f"  limit       {bound:7.3f} ms CPU, of which training takes × {reached / bound:.2f}")
        whole = np.median([one[1] for one in found["stacked"][1:]]) * 140 * 30 * (3750 // BATCH) / 1e3
        print(f"  the sweep (140 networks, 30 epochs of 3,750 pairs): {whole:.0f} s wall")
    if given.only == "training":
        return
    for units in (10, 25, 50):
        heads(5 * seeds, units, given.steps * BATCH, given.steps, rounds)
    if given.only == "heads":
        return
    print("memory of a sweep")
    sys.stdout.flush()
    command = [sys.executable, __file__, "--only", "memory", "--threads", str(given.threads), "--seeds", str(seeds)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
