"""Lesion sweeps of every convolution of VGG16 against one full forward pass per filter, in one run.

    python tests/benchmarks/bench_lesion.py                       all 13 layers, about six minutes on two cores
    python tests/benchmarks/bench_lesion.py --captum --layers 12 13
    python tests/benchmarks/bench_lesion.py --passes 0 --rounds 1  every filter swept: about half an hour

The network has random weights, a 1000-way head and 224-pixel images. All images make one batch: ``--images`` of them,
``--late-images`` for the last two convolutions, whose suffix is so short that what is done once per batch shows.

What is timed, each round, layer by layer; the table holds medians over the rounds
    plain   a hooked forward pass of the whole batch for one filter, another each round (``method="hooks"``), from the
            intact network's score to the filter's
    filter  ``actkit.replay.sweep`` over as many filters, evenly spaced, as should take ``--passes`` plain passes (0:
            all): seconds per filter, from the intact network's score to the last filter's
    once    everything else in that call: looking at the layer's output, tracing, checking one image against the plain
            loop, laying out weights, and the part of the network before the layer, with the intact network's score
Both are scaled to all filters of the layer: plain passes are the same for every filter, and sweeps step through filters
alike.

The columns
    ratio   plain over filter
    limit   multiply-adds of the full pass over those of the suffix with the low-rank step
    share   ratio over limit; above 1 where the early layers of the full pass run at a lower rate than the suffix
    cpu     the same by CPU time, which other processes disturb less
    whole   plain passes for all filters, over the whole call for all filters: once, and filter times their number. The
            part of the network before the layer alone costs up to one plain pass, so this cannot pass
            filters / (1 + filters / ratio)
    memory  peak resident memory of the call above what the process held before it, sampled (on a GPU: allocated)
    error   largest relative difference of a loss on the filters that both did

``--captum`` adds captum's LayerFeatureAblation of whole maps, timed per ablation from the first of them to the end, so
that its own passes over the intact network do not count, and the ratio of that to filter; and the ratio of all its
ablations, these passes included, to our whole call.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import psutil
import torch

from actkit.extractors.vgg import VGG, VGG16_CHANNELS, VGG16_POOLS
from actkit.replay import sweep

UNITS = (4096, 4096)
CLASSES = 1000
SIDE = 224
LATE = (12, 13)


def cross_entropy(logits: torch.Tensor, _images: slice) -> Mapping[str, torch.Tensor]:
    """Loss of each image; every image is of class 1."""
    logits = logits.double()
    return {"loss": logits.logsumexp(1) - logits[:, 1]}


def limits() -> list[float]:
    """For each convolution: multiply-adds of the full pass over those of its suffix with the low-rank step."""
    sizes, side, before = [], SIDE, 3
    for i, channels in enumerate(VGG16_CHANNELS, start=1):
        sizes.append((before * channels * 9, side * side))
        before = channels
        side //= 2 if i in VGG16_POOLS else 1
    positions = side * side
    dense = [positions * before * UNITS[0], UNITS[0] * UNITS[1], UNITS[1] * CLASSES]
    convolutions = [weights * area for weights, area in sizes]
    total = sum(convolutions) + sum(dense)
    found = []
    for i, channels in enumerate(VGG16_CHANNELS):
        if i + 1 < len(VGG16_CHANNELS):
            step = VGG16_CHANNELS[i + 1] * 9 * sizes[i + 1][1]
            found.append(total / (step + sum(convolutions[i + 2 :]) + sum(dense)))
        else:
            found.append(total / (dense[0] / channels + sum(dense[1:])))
    return found


@dataclass
class Call:
    """One call of a sweep."""

    wall: float  # seconds per candidate
    cpu: float
    once: float  # seconds of the call that are not the candidates'
    losses: np.ndarray
    method: str
    memory: float  # bytes


@dataclass
class Row:
    """What the rounds of one layer gave."""

    plain: list[Call] = field(default_factory=list)
    swept: list[Call] = field(default_factory=list)
    captum: list[tuple[float, float]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


@contextmanager
def peak(device: str) -> Iterator[list[float]]:
    """Bytes at the peak above those at the start, in the one item of the list once the context has ended."""
    found = [0.0]
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        yield found
        found[0] = torch.cuda.max_memory_allocated() - start
        return
    process, ended = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.01):
            found[0] = max(found[0], process.memory_info().rss - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def call(
    module: torch.nn.Module,
    layer: str,
    images: torch.Tensor,
    filters: np.ndarray,
    method: str,
    options: argparse.Namespace,
) -> Call:
    """Sweep some filters of a layer, all images in one batch."""
    stamps: list[tuple[float, float]] = []

    def score(logits: torch.Tensor, place: slice) -> Mapping[str, torch.Tensor]:
        values = {name: value.cpu() for name, value in cross_entropy(logits, place).items()}
        if not stamps:  # the first call scores the intact network
            stamps.append((time.perf_counter(), time.process_time()))
        return values

    start = time.perf_counter()
    with peak(options.device) as memory:
        result = sweep(
            module,
            layer,
            images,
            [np.array([channel]) for channel in filters],
            score,
            method=method,  # type: ignore[arg-type]
            batch=len(images),
            memory=options.memory,
            progress=False,
        )
        stamps.append((time.perf_counter(), time.process_time()))
    wall, cpu = ((stamps[1][i] - stamps[0][i]) / len(filters) for i in (0, 1))
    return Call(wall, cpu, stamps[0][0] - start, result.values["loss"], result.method, memory[0])


def captum_seconds(module: torch.nn.Module, layer: str, images: torch.Tensor, filters: int) -> tuple[float, float]:
    """Seconds per ablation of captum, of the whole maps of some filters, and its seconds before the first ablation."""
    from captum.attr import LayerFeatureAblation

    shapes: list[torch.Size] = []
    target = module.get_submodule(layer)
    with torch.no_grad():
        handle = target.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[1:]))
        module(images[:1])
        handle.remove()
        groups = torch.zeros((1, *shapes[0]), dtype=torch.long, device=images.device)
        groups[:, :filters] = torch.arange(1, filters + 1, device=images.device)[:, None, None]
        passes: list[float] = []
        handle = module.register_forward_pre_hook(lambda _m, _i: passes.append(time.perf_counter()))
        start = time.perf_counter()
        LayerFeatureAblation(module, target).attribute(images, target=1, layer_mask=groups)
        end = time.perf_counter()
        handle.remove()
    first = passes[-(filters + 1)]  # group 0, all other filters, is ablated as well
    return (end - first) / (filters + 1), first - start


def chosen(every: int, count: int, offset: int) -> np.ndarray:
    """Evenly spaced filters, others each round; the first round holds filter 0."""
    return np.unique((np.arange(count) * every // count + offset) % every)


def main() -> None:
    """Time the layers asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--late-images", type=int, default=32)
    parser.add_argument("--layers", type=int, nargs="*", default=list(range(1, 14)))
    parser.add_argument("--passes", type=float, default=2.0, help="time filters worth so many plain passes; 0: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--captum", action="store_true", help="captum too, where it is installed")
    parser.add_argument("--captum-filters", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    begin = time.perf_counter()
    module = VGG(SIDE, VGG16_CHANNELS, VGG16_POOLS, UNITS, CLASSES, inputs=3).eval().to(options.device)
    count = max(options.images, options.late_images)
    pictures = torch.randn(count, 3, SIDE, SIDE).to(options.device)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {options.rounds} rounds")
    call(module, "features.relu13", pictures[: options.images], np.array([0]), "auto", options)  # first calls are slow
    rows = {layer: Row() for layer in options.layers}
    for round_ in range(options.rounds):
        for layer, row in rows.items():
            name, every = f"features.relu{layer}", VGG16_CHANNELS[layer - 1]
            images = pictures[: options.late_images if layer in LATE else options.images]
            wanted = every if not options.passes else min(every, max(3, round(options.passes * limits()[layer - 1])))
            filters = chosen(every, wanted, round_)
            sample = filters[[round_ * 7 % len(filters)]]
            plain = call(module, name, images, sample, "hooks", options)
            swept = call(module, name, images, filters, options.method, options)
            both = swept.losses[np.searchsorted(filters, sample)]
            row.errors.append(float(np.max(np.abs(both - plain.losses) / np.abs(plain.losses))))
            row.plain.append(plain)
            row.swept.append(swept)
            if options.captum:
                row.captum.append(captum_seconds(module, name, images, options.captum_filters))
            if round_ == options.rounds - 1:
                report(layer, row, len(images), len(filters))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"all in {time.perf_counter() - begin:.0f} s, peak memory of the process {held:.1f} GiB")


def report(layer: int, row: Row, images: int, filters: int) -> None:
    """Print a layer's line."""
    every, limit = VGG16_CHANNELS[layer - 1], limits()[layer - 1]
    plain, cpu_plain = (float(np.median([getattr(call, what) for call in row.plain])) for what in ("wall", "cpu"))
    each, cpu, once, memory = (
        float(np.median([getattr(call, what) for call in row.swept])) for what in ("wall", "cpu", "once", "memory")
    )
    whole = once + each * every
    line = (
        f"conv{layer:<2} {row.swept[0].method:8} {images:3} images, {filters:3} of {every:3} filters  "
        f"plain {plain:7.3f} s  filter {each:8.5f} s  once {once:6.2f} s ({once / plain:4.2f} passes)  "
        f"ratio {plain / each:7.1f}  limit {limit:5.1f}  share {plain / each / limit:4.2f} "
        f"(cpu {cpu_plain / cpu / limit:4.2f})  whole {plain * every / whole:6.1f}  "
        f"memory {memory / 2**30:4.2f} GiB  error {max(row.errors):.0e}"
    )
    if row.captum:
        other, before = np.median(np.array(row.captum), axis=0)
        line += f"  captum {other:7.3f} s, ratio {other / each:7.1f}, whole {(before + other * every) / whole:6.1f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
