"""Bootstrap of RSA scores and noise ceilings against rsatoolbox, in one interleaved run.

    python tests/benchmarks/bench_rsa.py                                    # 13 models x 16 subjects x 92 stimuli
    python tests/benchmarks/bench_rsa.py --stimuli 1000 --models 5 --subjects 4 --measures pearson

Each round runs, for every measure, rsatoolbox's ``eval_dual_bootstrap`` on a few draws (``--theirs``) and then
``comparison.resample`` on ``--draws`` draws of stimuli and subjects, noise ceilings included on both sides, both scaled
to 1000 draws. rsatoolbox's own draws are noted and given to us too: the largest difference of evaluations and ceilings
on them is printed (whitened ceilings apart: rsatoolbox pools those in another metric).

Printed besides: the ratio of median wall clocks, the ratio of median processor times (what one core does: fair where
others use the machine too), and the peak memory that each adds to its input, in a process of its own. With ACTKIT_DATA
set and the sizes left alone, the RDMs are the 16 judges and 13 models of kriegeskorte2008_92images.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from actkit.analyses.comparison import Compare, resample
from actkit.compute import format_bytes
from actkit.recordings import rdm_dataset, to_rsatoolbox
from actkit.resampling import Stream, bootstrap_weights

THEIRS: dict[Compare, str] = {
    "pearson": "corr",
    "cosine": "cosine",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "tau-a": "tau-a",
    "whitened-pearson": "corr_cov",
    "whitened-cosine": "cosine_cov",
}


def rdms(stimuli: int, models: int, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """Real RDMs where the sizes are theirs and the files are there, else simulated ones."""
    if (stimuli, models, subjects) == (92, 13, 16) and os.environ.get("ACTKIT_DATA"):
        import actkit

        data = actkit.load_data("kriegeskorte2008_92images")
        names = ("model_rdms", "v1_hmax", "monkey_it", "human_it")
        ours = np.concatenate([data[name].dissimilarity.values for name in names])[:13]
        return ours.astype(np.float64), data["judgements"].dissimilarity.values.astype(np.float64)
    rng = np.random.default_rng(0)
    shared = pdist(rng.normal(size=(stimuli, 8)))
    return tuple(np.abs(shared + rng.normal(size=(k, len(shared)))) for k in (models, subjects))  # type: ignore[return-value]


class Rsatoolbox:
    """Their dual bootstrap, with its draws noted."""

    def __init__(self, models: np.ndarray, data: np.ndarray, n: int) -> None:
        from rsatoolbox.inference import evaluate
        from rsatoolbox.model import ModelFixed

        def toolbox(rows: np.ndarray) -> Any:
            names = [str(k) for k in range(len(rows))]
            return to_rsatoolbox(rdm_dataset(rows, names, "subject", list(range(n)), "euclidean", "benchmark"))

        self.evaluate, self.sample, self.n, self.subjects = evaluate, evaluate.bootstrap_sample, n, len(data)
        self.models = [ModelFixed(str(k), toolbox(row[None])) for k, row in enumerate(models)]
        self.data = toolbox(data)
        self.draws: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, compare: Compare, n_draws: int, seed: int) -> Any:
        """Evaluate, and keep the draws in ``draws``."""
        self.draws = []

        def noting(*args: Any, **settings: Any) -> Any:
            taken, people, stimuli = self.sample(*args, **settings)
            self.draws.append((np.bincount(stimuli, minlength=self.n), np.bincount(people, minlength=self.subjects)))
            return taken, people, stimuli

        self.evaluate.bootstrap_sample = noting
        np.random.seed(seed)  # noqa: NPY002 - rsatoolbox draws from the global generator
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return self.evaluate.eval_dual_bootstrap(self.models, self.data, method=THEIRS[compare], N=n_draws)


def clocked(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall clock and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - processor


def difference(result: Any, ours: Any, compare: Compare) -> float:
    """Largest difference of evaluations and, where the metric is the same, ceilings."""
    worst = 0.0
    for number, target in enumerate(("both", "subject", "stimulus")):
        worst = max(worst, float(np.abs(ours.mean(target) - result.evaluations[:, :, 0, 0, number]).max()))
        if not compare.startswith("whitened"):
            bounds = np.array([ours.lower[target], ours.upper[target]])
            worst = max(worst, float(np.nanmax(np.abs(bounds - result.noise_ceiling[:, :, 0, number]))))
    return worst


def resident(peak: bool = False) -> int:
    """Bytes of resident memory of this process, now or at its highest (Linux)."""
    word = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def memory_of(way: str, compare: Compare, given: argparse.Namespace) -> None:
    """Child: print the peak memory that one way adds to its input."""
    models, data = rdms(given.stimuli, given.models, given.subjects)
    stimuli, people = draws(given)
    theirs = Rsatoolbox(models, data, given.stimuli)
    few = [x[:8] for x in (stimuli, people)]
    resample(models, data, *few, compare, workers=given.workers)  # libraries load and compile before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident()
    if way == "ours":
        resample(models, data, stimuli, people, compare, workers=given.workers)
    else:
        theirs.run(compare, 2, 0)
    print(json.dumps({"bytes": max(0, resident(peak=True) - before)}))


def draws(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Our draws of stimuli and subjects."""
    return (
        bootstrap_weights(given.stimuli, given.draws, 0),
        bootstrap_weights(given.subjects, given.draws, 0, stream=Stream.SUBJECTS),
    )


def added_memory(way: str, compare: Compare, given: argparse.Namespace) -> str:
    """Peak memory of one way in a fresh process."""
    sizes = [f"--{name}={getattr(given, name)}" for name in ("stimuli", "models", "subjects", "draws")]
    workers = [f"--workers={given.workers}"] if given.workers else []
    command = [sys.executable, __file__, "--memory-of", way, "--measures", compare, *sizes, *workers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return format_bytes(json.loads(done.stdout.splitlines()[-1])["bytes"])


def compare_all(given: argparse.Namespace) -> None:
    """Time both in turn, and print a table."""
    models, data = rdms(given.stimuli, given.models, given.subjects)
    stimuli, people = draws(given)
    theirs = Rsatoolbox(models, data, given.stimuli)
    for compare in given.measures:  # compiled and imported before the clock starts
        resample(models, data, stimuli[:2], people[:2], compare, workers=given.workers)
    times: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in given.measures}
    worst = dict.fromkeys(given.measures, 0.0)
    for number in range(given.rounds):
        for compare in given.measures:
            result, wall, processor = clocked(lambda: theirs.run(compare, given.theirs, number))  # noqa: B023
            w, u = (np.array(x) for x in zip(*theirs.draws, strict=True))
            same = resample(models, data, w, u, compare, workers=given.workers)
            worst[compare] = max(worst[compare], difference(result, same, compare))
            _, our_wall, our_processor = clocked(
                lambda: resample(models, data, stimuli, people, compare, workers=given.workers)  # noqa: B023
            )
            their, our = 1000 / given.theirs, 1000 / given.draws
            times[compare].append((their * wall, our * our_wall, their * processor, our * our_processor))
    print(
        f"dual bootstrap with ceilings, {given.models} models x {given.subjects} subjects x {given.stimuli} stimuli; "
        f"seconds per 1000 draws, median of {given.rounds} interleaved rounds "
        f"({given.theirs} draws of rsatoolbox, {given.draws} of ours)"
    )
    head = f"{'measure':17s} {'rsatoolbox':>10s} {'ours':>8s} {'ratio':>7s} {'of cpu':>7s} {'difference':>11s}"
    print(head + ("" if given.no_memory else f" {'memory':>9s} {'theirs':>9s}"))
    for compare, rows in times.items():
        their_wall, our_wall, their_cpu, our_cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        line = (
            f"{compare:17s} {their_wall:10.1f} {our_wall:8.3f} {their_wall / our_wall:7.0f} "
            f"{their_cpu / our_cpu:7.0f} {worst[compare]:11.1e}"
        )
        if not given.no_memory:
            ours, other = (added_memory(way, compare, given) for way in ("ours", "theirs"))
            line += f" {ours:>9s} {other:>9s}"
        print(line, flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=92)
    parser.add_argument("--models", type=int, default=13)
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--draws", type=int, default=1000, help="our draws in a round")
    parser.add_argument("--theirs", type=int, default=3, help="rsatoolbox's draws in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="threads; all processors by default")
    parser.add_argument("--measures", nargs="+", choices=list(THEIRS), default=list(THEIRS))
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory-of", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory_of:
        memory_of(given.memory_of, given.measures[0], given)
    else:
        compare_all(given)


if __name__ == "__main__":
    main()
