"""Correlation RDMs against rsatoolbox and against the bare matrix product, in one interleaved run.

    python tests/benchmarks/bench_rdm.py --stimuli 1000 --units 50000 --rounds 5
    python tests/benchmarks/bench_rdm.py --big 20GB --folder /somewhere/with/space

Contenders, one after the other in each round, on the same patterns in memory:

ours        ``actkit.rdm`` in float32 and in float64
rsatoolbox  ``calc_rdm(method="correlation")`` on float32 and on float64
syrk, gemm  the bare products ``A @ A.T`` (one buffer: half the work) and ``A @ B`` of the same size: no way to compute
            all dot products of the patterns is faster than the first

Printed: median seconds, the ratio to each way, the largest difference between the answers, and the peak memory that
each way adds to its input, in a process of its own. ``--big`` writes one layer of that size to a store, computes its
RDM in a fresh process, and prints that process's peak resident memory, the throughput, and the difference to plain
float64 correlations of some pairs of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actkit.analyses.rdm import rdm
from actkit.compute import format_bytes, parse_bytes

BLOCK = 32  # stimuli a block of the store


def patterns(stimuli: int, units: int, dtype: str) -> np.ndarray:
    """Rectified activations: the same values in both precisions."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((stimuli, units), dtype=np.float32)
    np.maximum(x + rng.random((stimuli, 1), dtype=np.float32), 0, out=x)
    return x.astype(dtype, copy=False)


def contenders(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is timed on one array."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    dataset, other = Dataset(x), np.ascontiguousarray(x.T)
    name = str(x.dtype)
    return {
        f"ours {name}": lambda: rdm(x).dissimilarity.values[0],
        f"rsatoolbox {name}": lambda: calc_rdm(dataset, method="correlation").dissimilarities[0],
        f"syrk {name}": lambda: x @ x.T,
        f"gemm {name}": lambda: x @ other,
    }


def resident(peak: bool = False) -> int:
    """Bytes of resident memory of this process, now or at its highest."""
    word = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: the highest only
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a fresh process and read the JSON it prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_memory(name: str, stimuli: int, units: int) -> None:
    """Child: print the peak memory that one way adds to its input."""
    x = patterns(stimuli, units, name.split()[-1])
    ways = contenders(x)
    if name.split()[0] != "gemm":  # only gemm needs the transposed copy
        ways = {name: ways[name]}
    rdm(x[:4, :64])  # libraries load before the clock starts
    with contextlib.suppress(OSError, AttributeError):  # Linux with glibc
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed is not to be had for nothing
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident()
    ways[name]()
    print(json.dumps({"bytes": max(0, resident(peak=True) - before)}))


def compare(stimuli: int, units: int, rounds: int, memory: bool) -> None:
    """Time all ways in turn, and print a table."""
    ways: dict[str, Callable[[], Any]] = {}
    for dtype in ("float32", "float64"):
        ways |= contenders(patterns(stimuli, units, dtype))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{stimuli} stimuli x {units} units, median of {rounds} interleaved rounds")
    print(f"{'way':22s} {'seconds':>9s} {'x rsatoolbox':>13s} {'of syrk':>8s} {'added memory':>13s}")
    for name in ways:
        dtype = name.split()[-1]
        faster = median[f"rsatoolbox {dtype}"] / median[name]
        limit = median[f"syrk {dtype}"] / median[name]
        added = "" if not memory else format_bytes(child("--memory-of", name, *sizes(stimuli, units))["bytes"])
        print(f"{name:22s} {median[name]:9.3f} {faster:13.2f} {limit:8.2f} {added:>13s}")
    reference = answers["rsatoolbox float64"]
    for dtype in ("float32", "float64"):
        print(
            f"largest difference, ours {dtype} to rsatoolbox float64: "
            f"{np.abs(answers[f'ours {dtype}'] - reference).max():.2e}"
        )
    best = min(median["rsatoolbox float32"], median["rsatoolbox float64"])
    print(f"ours float32 is {best / median['ours float32']:.1f} times rsatoolbox's faster precision")


def sizes(stimuli: int, units: int) -> list[str]:
    """The size options, for a child."""
    return ["--stimuli", str(stimuli), "--units", str(units)]


def big(size: str, stimuli: int, folder: Path | None, memory: str) -> None:
    """Write a large layer to a store, and compute its RDM in a process of its own."""
    from actkit.store import open_store, plan_store
    from actkit.store_write import create_store

    units = parse_bytes(size) // (4 * stimuli)
    root = Path(tempfile.mkdtemp(prefix="actkit-bench-", dir=folder))
    try:
        plan = plan_store(
            root / "big.zarr", {"layer": ((units,), ("unit",))}, map(str, range(stimuli)), BLOCK, identity="benchmark"
        )
        print(f"{stimuli} stimuli x {units} units = {format_bytes(4 * stimuli * units)} on disk")
        start = time.perf_counter()
        with create_store(plan) as writer:
            for block in range(plan.n_blocks):
                first, stop = plan.block_rows(block)
                rng = np.random.default_rng(block)
                values = rng.random((stop - first, units), dtype=np.float32)
                values += rng.random((stop - first, 1), dtype=np.float32)
                writer.write_block(block, {"layer": values})
            writer.complete()
        print(f"written in {time.perf_counter() - start:.0f} s (values drawn meanwhile)")
        told = child("--rdm-of", str(plan.path), "--memory", memory, "--out", str(root / "rdm.npy"))
        gone = 4 * stimuli * units / told["seconds"] / 1e9
        print(
            f"memory={memory}: RDM in {told['seconds']:.1f} s ({gone:.2f} GB/s), peak resident memory "
            f"{format_bytes(told['peak'])}, of which {format_bytes(told['start'])} before it began"
        )
        store, vector = open_store(plan.path), np.load(root / "rdm.npy")
        taken = [0, 1, stimuli // 2, stimuli - 1]
        rows = [store.rows("layer", row, row + 1)[0].astype(np.float64) for row in taken]
        worst = 0.0
        for a in range(len(taken)):
            for b in range(a + 1, len(taken)):
                i, j = taken[a], taken[b]
                where = stimuli * i - i * (i + 1) // 2 + j - i - 1
                worst = max(worst, abs(1 - np.corrcoef(rows[a], rows[b])[0, 1] - vector[where]))
        print(f"largest difference to float64 correlations of {len(taken)} rows: {worst:.1e}")
    finally:
        shutil.rmtree(root)


def rdm_of(path: str, memory: str, out: str) -> None:
    """Child: the RDM of a store, its time and this process's peak memory."""
    before = resident()
    start = time.perf_counter()
    vector = rdm(path, memory=memory).dissimilarity.values[0]
    seconds = time.perf_counter() - start
    np.save(out, vector)
    print(json.dumps({"seconds": seconds, "peak": resident(peak=True), "start": before}))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=1000)
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--big", metavar="SIZE", help="the RDM of a layer of this size on disk, such as 20GB")
    parser.add_argument("--folder", type=Path, help="where --big writes; the system's temporary folder by default")
    parser.add_argument("--memory", default="1GB", help="memory option of actkit.rdm for --big")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--rdm-of", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory_of:
        measure_memory(given.memory_of, given.stimuli, given.units)
    elif given.rdm_of:
        rdm_of(given.rdm_of, given.memory, given.out)
    elif given.big:
        big(given.big, given.stimuli, given.folder, given.memory)
    else:
        compare(given.stimuli, given.units, given.rounds, not given.no_memory)


if __name__ == "__main__":
    main()
