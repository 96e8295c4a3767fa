"""Crossnobis distances and noise covariances against rsatoolbox, in one interleaved run, with memory.

    python tests/benchmarks/bench_rdm_repeated.py
    python tests/benchmarks/bench_rdm_repeated.py --stimuli 92 --folds 8 --units 8192 --rounds 3

Cases, each on the same float64 observations (stimuli × folds rows):

crossnobis       without noise normalisation: ``actkit.rdm`` and ``calc_rdm(method="crossnobis")``, folds named
kernel           the same, the sums alone: no dataset, no fingerprint of the input
shrunk           with a shrunk noise covariance: ``actkit.rdm`` estimates it; rsatoolbox is given its own precision
                 matrix, and the time of ``prec_from_unbalanced`` is part of the answer
ledoit_wolf      the covariance alone from 200 residuals of 2000 units, ``cov_from_residuals("shrinkage_eye")``
schaefer         the same with ``"shrinkage_diag"``

Printed: median seconds of both, the ratio of medians, the ratio of processor seconds (which other work on the machine
disturbs less), the largest relative difference of the answers, and the peak memory that each way adds to its input,
measured in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.design import Design
from actkit.analyses.noise_precision import noise_covariance
from actkit.analyses.products import ProductSums, stream_into, working_units
from actkit.analyses.rdm import rdm
from actkit.compute import format_bytes

# Sizes at which rsatoolbox's p × p matrices still fit.
UNITS = {"crossnobis": 16_384, "kernel": 16_384, "shrunk": 2000}


def observations(stimuli: int, folds: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with the stimuli in order within each fold."""
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=(stimuli, units)), (folds, 1)) + rng.normal(size=(folds * stimuli, units))
    return x, np.tile(np.arange(stimuli), folds), np.repeat(np.arange(folds), stimuli)


Way = Callable[[], np.ndarray]


def distances(case: str, stimuli: int, folds: int, units: int) -> dict[str, Way]:
    """Both ways of a case of distances."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.data.noise import prec_from_unbalanced
    from rsatoolbox.rdm import calc_rdm

    x, stimulus, fold = observations(stimuli, folds, units)
    names = [f"s{k:04d}" for k in stimulus]
    data = xr.DataArray(
        x, dims=("stimulus", "neuron"), coords={"stimulus": names, "session": ("stimulus", fold)}, name="IT"
    )
    dataset = Dataset(x, obs_descriptors={"stimulus": names, "session": fold})
    noise = "shrinkage_diag" if case == "shrunk" else "none"

    def ours() -> np.ndarray:
        found = rdm(data, method="crossnobis", folds="session", noise=noise, scale="mean")
        return np.asarray(found.dissimilarity.values[0])

    def kernel() -> np.ndarray:
        design = Design(stimulus, stimuli, fold, tuple(map(str, range(folds))))
        sums = ProductSums(design)
        stream_into(sums, iter([x]), np.asarray, working_units(len(x)))
        return sums.distances()[np.triu_indices(stimuli, 1)] / units

    def theirs() -> np.ndarray:
        precision = prec_from_unbalanced(dataset, "stimulus") if case == "shrunk" else None
        found = calc_rdm(dataset, "crossnobis", descriptor="stimulus", noise=precision, cv_descriptor="session")
        return np.asarray(found.dissimilarities[0])

    return {"ours": kernel if case == "kernel" else ours, "rsatoolbox": theirs}


def covariances(case: str) -> dict[str, Way]:
    """Both ways of a covariance; the products with its inverse are what it is for."""
    from rsatoolbox.data.noise import cov_from_residuals

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2000)) @ (np.eye(2000) + rng.normal(size=(2000, 2000)) / 100)
    method = {"ledoit_wolf": "shrinkage_eye", "schaefer": "shrinkage_diag"}[case]

    def ours() -> np.ndarray:
        found = noise_covariance(x, method)  # type: ignore[arg-type]
        return found.diagonal + found.factor * np.einsum("ij,ij->j", found.residuals, found.residuals)

    return {"ours": ours, "rsatoolbox": lambda: np.diagonal(cov_from_residuals(x, method=method)).copy()}


def ways(case: str, stimuli: int, folds: int, units: int | None) -> dict[str, Way]:
    """The two contenders of a case."""
    return distances(case, stimuli, folds, units or UNITS[case]) if case in UNITS else covariances(case)


def resident(word: str) -> int:
    """Bytes of resident memory of this process, now (VmRSS) or at its highest (VmHWM); 0 where it cannot be known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def measure_memory(way: str, both: dict[str, Way]) -> None:
    """Child: print the peak memory that one way adds to its input."""
    rdm(np.random.default_rng(0).normal(size=(4, 64)))  # libraries load before the clock starts
    with contextlib.suppress(OSError, AttributeError):  # Linux with glibc
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS:")
    both[way]()
    print(json.dumps(max(0, resident("VmHWM:") - before)))


def child(arguments: list[str]) -> int:
    """Peak bytes, measured in a fresh process."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(json.loads(done.stdout.splitlines()[-1]))


def compare(case: str, given: argparse.Namespace) -> None:
    """Time both ways in turn, and print a line."""
    both = ways(case, given.stimuli, given.folds, given.units)
    seconds: dict[str, list[float]] = {name: [] for name in both}
    used: dict[str, list[float]] = {name: [] for name in both}
    answers: dict[str, np.ndarray] = {}
    both["ours"]()
    for _ in range(given.rounds):
        for name, way in both.items():
            start, cpu = time.perf_counter(), time.process_time()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - start)
            used[name].append(time.process_time() - cpu)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    worked = statistics.median(used["rsatoolbox"]) / statistics.median(used["ours"])
    apart = np.abs(answers["ours"] - answers["rsatoolbox"]).max() / np.abs(answers["rsatoolbox"]).max()
    memory = ["", ""]
    if not given.no_memory:
        sizes: list[Any] = ["--stimuli", given.stimuli, "--folds", given.folds]
        sizes += ["--units", given.units] if given.units else []
        memory = [format_bytes(child(["--memory-of", case, name, *map(str, sizes)])) for name in both]
    print(
        f"{case:12s} {middle['ours']:10.4f} {middle['rsatoolbox']:10.3f} "
        f"{middle['rsatoolbox'] / middle['ours']:8.1f} {worked:8.1f} {apart:10.1e} {memory[0]:>9s} {memory[1]:>9s}"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[*UNITS, "ledoit_wolf", "schaefer"])
    parser.add_argument("--stimuli", type=int, default=60)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--units", type=int, help="16384 for crossnobis and 2000 for shrunk by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory_of:
        case, way = given.memory_of
        measure_memory(way, ways(case, given.stimuli, given.folds, given.units))
        return
    print(f"{given.stimuli} stimuli x {given.folds} folds, {given.rounds} interleaved rounds")
    print("case          ours (s)  rsatb (s)    ratio      cpu  different     added     added")
    for case in given.cases:
        compare(case, given)


if __name__ == "__main__":
    main()
