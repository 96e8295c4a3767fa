"""Weighted models in a cross-validated bootstrap, against rsatoolbox on a few draws, in one interleaved run.

    python tests/benchmarks/bench_crossvalidation.py --draws 1000 --models 13 --components 5 --theirs 2
    python tests/benchmarks/bench_crossvalidation.py --measures pearson --kind weighted_nonnegative --theirs 0

Simulated subjects over ``--stimuli`` images, ``--models`` flexible models of ``--components`` RDMs each, draws of both
stimuli and subjects, two deals of each draw to the default folds. For each measure:

ours              ``cross_validate`` on all draws, ceilings included
fit_regress       rsatoolbox's ``bootstrap_crossval`` with its closed-form fit, on ``--theirs`` draws
fit_optimize      the same with its default fit (BFGS, restarted), on one draw of one model, times the models

Printed: seconds for 1000 draws, the ratio, and the memory that ours adds at its peak (a process of its own).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from scipy.spatial.distance import pdist

from actkit.analyses.crossvalidation import FoldPlan, Group, cross_validate, fold_plan
from actkit.resampling import Stream, bootstrap_weights

THEIRS = {"pearson": "corr", "cosine": "cosine", "whitened-pearson": "corr_cov", "whitened-cosine": "cosine_cov"}


def material(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, list[Group], FoldPlan]:
    """Components, subjects, models and folds."""
    rng = np.random.default_rng(0)
    components = np.array([pdist(rng.normal(size=(given.stimuli, 6))) for _ in range(given.models * given.components)])
    data = components[:3].sum(axis=0) + rng.normal(size=(given.subjects, components.shape[1]))
    groups = [
        Group(f"model {k}", given.kind, range(k * given.components, (k + 1) * given.components))
        for k in range(given.models)
    ]
    return components, data, groups, fold_plan(given.stimuli, given.subjects)


def ours(given: argparse.Namespace, measure: str) -> float:
    """Seconds for 1000 draws of ours."""
    components, data, groups, plan = material(given)
    stimuli = bootstrap_weights(given.stimuli, given.draws, 0)
    subjects = bootstrap_weights(given.subjects, given.draws, 0, stream=Stream.SUBJECTS)
    cross_validate(components, groups, data, plan, measure, stimuli[:2], subjects[:2])  # type: ignore[arg-type]
    start = time.perf_counter()
    cross_validate(components, groups, data, plan, measure, stimuli, subjects)  # type: ignore[arg-type]
    return (time.perf_counter() - start) * 1000 / given.draws


def theirs(given: argparse.Namespace, measure: str, fitter: str, draws: int, models: int) -> float:
    """Seconds for 1000 draws of rsatoolbox and all models, from a few."""
    from rsatoolbox.inference import bootstrap_crossval
    from rsatoolbox.model import ModelWeighted
    from rsatoolbox.model import fitter as fits
    from rsatoolbox.rdm import RDMs

    components, data, groups, plan = material(given)
    rivals = [ModelWeighted(group.name, components[group.rows]) for group in groups[:models]]
    np.random.seed(0)  # noqa: NPY002 - rsatoolbox draws from the global state
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        bootstrap_crossval(
            rivals,
            RDMs(data),
            method=THEIRS.get(measure, measure),
            fitter=[getattr(fits, fitter)] * models,
            k_pattern=plan.stimulus_folds,
            k_rdm=plan.subject_folds,
            N=draws,
            n_cv=plan.repeats,
            use_correction=False,
        )
    return (time.perf_counter() - start) * 1000 / draws * given.models / models


def peak(given: argparse.Namespace, measure: str) -> float:
    """Megabytes that ours adds to its input at the peak, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", measure]
    for name in ("draws", "models", "components", "stimuli", "subjects", "kind"):
        command += [f"--{name}", str(getattr(given, name))]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def memory(given: argparse.Namespace) -> None:
    """Child of :func:`peak`."""
    components, data, groups, plan = material(given)
    stimuli = bootstrap_weights(given.stimuli, given.draws, 0)
    subjects = bootstrap_weights(given.subjects, given.draws, 0, stream=Stream.SUBJECTS)
    cross_validate(components[:2], [Group("a", "fixed", [0])], data, plan, given.memory_of, stimuli[:1], subjects[:1])
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize() / 1024
    cross_validate(components, groups, data, plan, given.memory_of, stimuli, subjects)
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--models", type=int, default=13)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--stimuli", type=int, default=92)
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--kind", default="weighted")
    parser.add_argument("--measures", default="pearson,cosine,spearman,whitened-pearson")
    parser.add_argument("--theirs", type=int, default=2, help="draws of rsatoolbox; 0: ours alone")
    parser.add_argument("--optimize", action="store_true", help="rsatoolbox's default fit too (minutes for one draw)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory_of:
        memory(given)
        return
    size = f"{given.subjects} subjects, {given.stimuli} stimuli, 1000 draws"
    print(f"{given.models} models x {given.components} RDMs, {size}")
    for measure in given.measures.split(","):
        seconds = ours(given, measure)
        words = [f"{measure:17s} ours {seconds:7.1f} s, {peak(given, measure):5.0f} MB"]
        # Their closed form knows no rank measure.
        if given.theirs and measure in THEIRS:
            other = theirs(given, measure, "fit_regress", given.theirs, given.models)
            words.append(f"fit_regress {other:8.0f} s ({other / seconds:.0f} times)")
        if given.optimize and given.theirs:
            other = theirs(given, measure, "fit_optimize", 1, 1)
            words.append(f"fit_optimize {other:8.0f} s ({other / seconds:.0f} times)")
        print("   ".join(words), flush=True)


if __name__ == "__main__":
    main()
