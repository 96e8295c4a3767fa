"""Calibration of RSA over time: how often do the maximum-statistic tests find anything where there is nothing?

    python tests/benchmarks/calibrate_time.py [--sets 1000] [--bins 20] [--models 3] [--measure pearson]
        [--sizes 3]

Each data set has subjects' RDM movies (correlation distance of 12 autocorrelated channels a subject) without relation
to the model RDMs, and asks for the smallest corrected p of all models and bins. Three kinds of data:

- noise: every bin of every subject is noise;
- own: every subject has a geometry of its own, the same in all bins;
- shared: all subjects share a geometry. Labels are still exchangeable, but the scores of new subjects are not 0 with
  these stimuli, so that only the label permutations have a null here.

A rate is marked when it exceeds .05 by more than a one-sided binomial bound that holds for all cells together (Holm).
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from actkit.analyses.comparison import scores
from actkit.analyses.time_tests import flip_test, label_test
from actkit.recordings import n_pairs

SIZES = ((5, 12), (12, 30), (20, 60))
KINDS = ("noise", "own", "shared")


def movie(rng: np.random.Generator, n_subjects: int, n_stimuli: int, n_bins: int, kind: str) -> np.ndarray:
    """RDMs ``(subjects, bins, pairs)``."""
    patterns = rng.normal(size=(n_subjects, n_bins, n_stimuli, 12))
    for t in range(1, n_bins):
        patterns[:, t] = 0.8 * patterns[:, t - 1] + 0.6 * patterns[:, t]
    if kind != "noise":
        own = rng.normal(size=(n_subjects if kind == "own" else 1, 1, n_stimuli, 12))
        patterns = patterns + 1.5 * own
    patterns -= patterns.mean(axis=-1, keepdims=True)
    patterns /= np.linalg.norm(patterns, axis=-1, keepdims=True)
    row, column = np.triu_indices(n_stimuli, 1)
    return 1 - np.matmul(patterns, np.swapaxes(patterns, -1, -2))[..., row, column]


def one_set(seed: int, cell: tuple[tuple[int, int], str], args: argparse.Namespace) -> list[float]:
    """Smallest p of a data set: flips corrected and not, permutations corrected and not, and of both tests."""
    (n_subjects, n_stimuli), kind = cell
    rng = np.random.default_rng([seed, n_subjects, KINDS.index(kind)])
    data = movie(rng, n_subjects, n_stimuli, args.bins, kind)
    models = rng.normal(size=(args.models, 1, n_pairs(n_stimuli)))
    flat = data.reshape(-1, data.shape[-1])
    score = scores(models[:, 0], flat, args.measure).reshape(args.models, n_subjects, args.bins)
    family = np.full(args.models, "models")
    flip = flip_test(score, family, args.flips, seed)
    label = label_test(models, data, score.mean(axis=1), family, args.permutations, seed, args.measure)
    both = np.maximum(flip[0], label[0])
    return [flip[0].min(), flip[1].min(), label[0].min(), label[1].min(), both.min()]


def main() -> None:
    """Run all cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--bins", type=int, default=20)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--measure", default="pearson")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sample sizes, smallest first")
    args = parser.parse_args()
    rows, tests = [], []
    for cell in product(SIZES[: args.sizes], KINDS):
        start = time.perf_counter()
        smallest = np.array([one_set(seed, cell, args) for seed in range(args.sets)])
        hits = (smallest <= 0.05).sum(axis=0)
        rows.append((cell, hits, time.perf_counter() - start))
        nulls = {"flip": hits[0], "label": hits[2], "both": hits[4]} if cell[1] != "shared" else {"label": hits[2]}
        tests += [(cell, name, int(hit)) for name, hit in nulls.items()]
    p = [stats.binom.sf(hit - 1, args.sets, 0.05) for *_, hit in tests]
    beyond = {
        (cell, name) for (cell, name, _), bad in zip(tests, multipletests(p, method="holm")[0], strict=True) if bad
    }
    print(
        f"{args.measure}, {args.sets} data sets a cell, {args.models} models x {args.bins} bins, rate of any p <= .05"
    )
    widths = (8, 8, 7, 7, 9, 7, 9, 7)
    head = ("subjects", "stimuli", "data", "flip", "(uncorr)", "label", "(uncorr)", "both")
    print(" ".join(f"{word:>{width}}" for word, width in zip(head, widths, strict=True)))
    for cell, hits, seconds in rows:
        (n_subjects, n_stimuli), kind = cell
        rates = [f"{hit / args.sets:.3f}" for hit in hits]
        if kind == "shared":
            rates[0], rates[1], rates[4] = "-", "-", "-"
        marks = [name for name in ("flip", "label", "both") if (cell, name) in beyond]
        words = (n_subjects, n_stimuli, kind, *rates)
        line = " ".join(f"{word:>{width}}" for word, width in zip(words, widths, strict=True))
        print(f"{line}   {seconds:.0f} s" + (f"  beyond the bound: {', '.join(marks)}" if marks else ""))


if __name__ == "__main__":
    main()
