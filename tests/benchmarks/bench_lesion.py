"""Lesion sweeps of every convolution of VGG16 against one full forward pass per filter, in one run.

    python tests/benchmarks/bench_lesion.py --images 16
    python tests/benchmarks/bench_lesion.py --images 8 --layers 5 8 12 13 --filters 64 --threads 1
    python tests/benchmarks/bench_lesion.py --captum --layers 12 13

The network has random weights, a 1000-way head and 224-pixel images; all images make one batch.

plain    one hooked forward pass of the whole batch per filter, timed on ``--plain`` filters of each layer, interleaved
         with the sweep, and scaled to the layer's filters
sweep    ``actkit.replay.sweep`` over all filters (or the ``--filters`` first)
limit    multiply-adds of the full pass over those of the suffix with the low-rank step, for the VGG16 given

Printed for each layer: seconds per filter of both, after the intact network has been scored, and their ratio, by wall
and by CPU time; the ratio with what is done once for the batch (tracing, checking, laying out weights, the part of the
network before the layer); the limit and the share of it that is reached; and the largest relative difference of the
loss on the sampled filters. ``--captum`` adds captum's
LayerFeatureAblation, timed on the same sampled filters.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
import torch

from actkit.extractors.vgg import VGG
from actkit.replay import sweep

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
POOLS = (2, 4, 7, 10, 13)
UNITS = (4096, 4096)
CLASSES = 1000
SIDE = 224


def cross_entropy(logits: torch.Tensor, _images: slice) -> Mapping[str, torch.Tensor]:
    """Loss and hit of each image; every image is of class 1."""
    logits = logits.double()
    return {"loss": logits.logsumexp(1) - logits[:, 1], "correct": (logits.argmax(1) == 1).double()}


def limits() -> list[float]:
    """For each convolution: multiply-adds of the full pass over those of its suffix with the low-rank step."""
    sizes, side, before = [], SIDE, 3
    for i, channels in enumerate(CHANNELS, start=1):
        sizes.append((before * channels * 9, side * side))
        before = channels
        side //= 2 if i in POOLS else 1
    positions = side * side
    dense = [positions * before * UNITS[0], UNITS[0] * UNITS[1], UNITS[1] * CLASSES]
    convolutions = [weights * area for weights, area in sizes]
    total = sum(convolutions) + sum(dense)
    found = []
    for i, channels in enumerate(CHANNELS):
        if i + 1 < len(CHANNELS):
            step = CHANNELS[i + 1] * 9 * sizes[i + 1][1]
            found.append(total / (step + sum(convolutions[i + 2 :]) + sum(dense)))
        else:
            found.append(total / (dense[0] / channels + sum(dense[1:])))
    return found


def captum_seconds(module: torch.nn.Module, layer: torch.nn.Module, images: torch.Tensor, filters: int) -> float:
    """Seconds per filter of captum's ablation of whole maps of some filters."""
    from captum.attr import LayerFeatureAblation

    with torch.no_grad():
        shape = _shape(module, layer, images[:1])
        groups = torch.zeros((1, *shape), dtype=torch.long)
        for i in range(filters):  # group 0 holds all others, and is ablated as well
            groups[:, i] = i + 1
        start = time.perf_counter()
        LayerFeatureAblation(module, layer).attribute(images, target=1, layer_mask=groups)
    return (time.perf_counter() - start) / (filters + 1)


def _shape(module: torch.nn.Module, layer: torch.nn.Module, image: torch.Tensor) -> tuple[int, ...]:
    """Shape of one image's output of a layer."""
    seen = []
    handle = layer.register_forward_hook(lambda _m, _i, output: seen.append(tuple(output.shape[1:])))
    module(image)
    handle.remove()
    return seen[0]


def main() -> None:
    """Time the layers asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--layers", type=int, nargs="*", default=list(range(1, 14)))
    parser.add_argument("--filters", type=int, default=512, help="time the first so many filters of each layer")
    parser.add_argument("--plain", type=int, default=2, help="filters of each layer to time a full forward pass for")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--captum", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module = VGG(SIDE, CHANNELS, POOLS, UNITS, CLASSES, inputs=3).eval().to(options.device)
    images = torch.randn(options.images, 3, SIDE, SIDE).to(options.device)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {options.images} images, one batch")

    def timed(name: str, candidates: list[np.ndarray], method: str) -> tuple[float, float, float, np.ndarray, str]:
        """Wall and CPU seconds per candidate, wall seconds of the whole call, losses, method."""
        intact: list[tuple[float, float]] = []

        def score(logits: torch.Tensor, place: slice) -> Mapping[str, torch.Tensor]:
            values = cross_entropy(logits, place)
            if not intact:  # the first call scores the intact network: what follows is the candidates
                intact.append((time.perf_counter(), time.process_time()))
            return values

        start = time.perf_counter()
        result = sweep(
            module,
            name,
            images,
            candidates,
            score,
            method=method,  # type: ignore[arg-type]
            batch=options.images,
            memory=options.memory,
            progress=False,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        count = len(candidates)
        per_wall, per_cpu = (wall - intact[0][0]) / count, (cpu - intact[0][1]) / count
        return per_wall, per_cpu, wall - start, result.values["loss"], result.method

    timed("features.relu13", [np.array([0])], "hooks")  # the first call of a process is slower
    for layer in options.layers:
        name, every = f"features.relu{layer}", CHANNELS[layer - 1]
        count = min(options.filters, every)
        candidates = [np.array([c]) for c in range(count)]
        sample = candidates[:: max(1, count // options.plain)][: options.plain]
        per_plain, cpu_plain, _, losses, _ = timed(name, sample, "hooks")
        per_fast, cpu_fast, seconds, swept, method = timed(name, candidates, options.method)
        picked = swept[[int(channel[0]) for channel in sample]]
        error = float(np.max(np.abs(picked - losses) / np.abs(losses)))
        ratio, limit = per_plain / per_fast, limits()[layer - 1]
        whole = per_plain * every / (seconds + per_fast * (every - count))
        line = (
            f"conv{layer:<3} {method:9} plain {per_plain:8.4f} s  sweep {per_fast:9.5f} s a filter  "
            f"ratio {ratio:7.1f} (cpu {cpu_plain / cpu_fast:7.1f})  with once {whole:6.1f}  limit {limit:6.1f}  "
            f"share {ratio / limit:5.2f} (cpu {cpu_plain / cpu_fast / limit:5.2f})  error {error:.1e}"
        )
        if options.captum:
            other = captum_seconds(module, module.get_submodule(name), images, len(sample))
            line += f"  captum {other:8.4f} s, ratio {other / per_fast:7.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
