"""Similarity of layers in sample space against the forms in unit space that other tools use, in one interleaved run.

    python tests/benchmarks/bench_similarity.py --stimuli 200 --units 3000 --layers 4 --rounds 3
    python tests/benchmarks/bench_similarity.py --wide 100000 --stimuli 500

Contenders, one after the other in each round, on the same float64 activations in memory, all pairs of layers:

procrustes  ours, and the singular values of the units × units product XᵀY (the form of netrep)
cka         ours, and trace(H K H L) with full matrix products (the form of Net2Brain)
svcca       ours with 20 components, and singular value decompositions of the activations, made again for each pair

Printed: median seconds, the ratio, the largest difference between the answers, and the peak memory that each adds to
its input, in a process of its own. ``--wide`` times ours alone on two layers of that many units, where the other forms
would need a units × units matrix, and prints the bytes of such a matrix beside the peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from actkit.analyses.similarity import similarity
from actkit.compute import format_bytes

COMPONENTS = 20


def network(stimuli: int, units: int, layers: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Rectified activations that share some structure."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((stimuli, 12))
    return {
        f"layer{k}": np.maximum(
            shared @ rng.standard_normal((12, units)) + 2 * rng.standard_normal((stimuli, units)), 0
        ).astype(dtype)
        for k in range(layers)
    }


def pairwise(layers: dict[str, np.ndarray], function: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Every pair once."""
    x = list(layers.values())
    out = np.empty((len(x), len(x)))
    for i, one in enumerate(x):
        for j in range(i, len(x)):
            out[i, j] = out[j, i] = function(one, x[j])
    return out


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """In unit space: a units × units matrix and its singular values."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return np.linalg.svd(x.T @ y, compute_uv=False).sum() / np.linalg.norm(x) / np.linalg.norm(y)


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """With full matrix products of centring matrices."""
    h = np.eye(len(x)) - 1 / len(x)
    k, m = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def svcca(x: np.ndarray, y: np.ndarray) -> float:
    """By decomposing the activations of both layers for each pair."""
    u, v = (np.linalg.svd(a - a.mean(axis=0), full_matrices=False)[0][:, :COMPONENTS] for a in (x, y))
    return np.linalg.svd(u.T @ v, compute_uv=False).mean()


PLAIN: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"procrustes": procrustes, "cka": cka, "svcca": svcca}


def ours(layers: dict[str, np.ndarray], method: str) -> np.ndarray:
    """The package's own."""
    options = {"components": COMPONENTS} if method == "svcca" else {}
    return similarity(layers, method=method, **options).similarity.values


def resident(peak: bool = False) -> int:
    """Bytes of resident memory of this process, now or at the highest since the peak was set back (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    word = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def one(arguments: argparse.Namespace) -> None:
    """Run one contender in this process, and print the memory that it added and its seconds as JSON."""
    layers = network(arguments.stimuli, arguments.units, arguments.layers, arguments.dtype)
    ours(network(5, 30, 2), "procrustes")  # what is imported on first use is no memory of the method
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before, start = resident(), time.perf_counter()
    method, _, side = arguments.only.partition(":")
    if side == "ours":
        ours(layers, method)
    else:
        pairwise(layers, PLAIN[method])
    print(json.dumps({"added": resident(peak=True) - before, "seconds": time.perf_counter() - start}))


def added(arguments: argparse.Namespace, only: str, **changes: int | str) -> dict[str, float]:
    """The same in a fresh process."""
    values = {"stimuli": arguments.stimuli, "units": arguments.units, "layers": arguments.layers, **changes}
    command = [sys.executable, __file__, "--only", only, *(f"--{key}={value}" for key, value in values.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=200)
    parser.add_argument("--units", type=int, default=3000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wide", type=int, default=0, help="units of two wide float32 layers; ours alone")
    parser.add_argument("--dtype", default="float64", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        one(arguments)
        return
    if arguments.wide:
        square = format_bytes(8 * arguments.wide**2)
        for method in PLAIN:
            found = added(arguments, f"{method}:ours", units=arguments.wide, layers=2, dtype="float32")
            print(
                f"{method:10s} 2 layers x {arguments.wide} units x {arguments.stimuli} stimuli: "
                f"{found['seconds']:.2f} s, +{format_bytes(found['added'])}; units x units would be {square}"
            )
        return
    layers = network(arguments.stimuli, arguments.units, arguments.layers)
    seconds: dict[str, list[float]] = {}
    gap: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for method, plain in PLAIN.items():
            start = time.perf_counter()
            mine = ours(layers, method)
            middle = time.perf_counter()
            theirs = pairwise(layers, plain)
            seconds.setdefault(f"{method}:ours", []).append(middle - start)
            seconds.setdefault(f"{method}:plain", []).append(time.perf_counter() - middle)
            gap[method] = max(gap.get(method, 0.0), float(np.abs(mine - theirs).max()))
    print(f"{arguments.layers} layers x {arguments.units} units x {arguments.stimuli} stimuli, float64, all pairs")
    for method in PLAIN:
        a, b = (statistics.median(seconds[f"{method}:{side}"]) for side in ("ours", "plain"))
        memory = [format_bytes(added(arguments, f"{method}:{side}")["added"]) for side in ("ours", "plain")]
        print(
            f"{method:10s} ours {a:.3f} s (+{memory[0]}), plain {b:.3f} s (+{memory[1]}), {b / a:.0f} times, "
            f"largest difference {gap[method]:.1e}"
        )


if __name__ == "__main__":
    main()
