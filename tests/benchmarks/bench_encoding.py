"""Ridge and banded ridge encoding against himalaya and scikit-learn, in one run.

    python tests/benchmarks/bench_encoding.py
    python tests/benchmarks/bench_encoding.py --small

ridge     `encode`'s ridge: a penalty for each neuron out of 19, five outer and five inner folds, from one Gram matrix;
          against himalaya's KernelRidgeCV (numpy backend, the same Gram matrix, penalties and folds) and a loop of
          scikit-learn's RidgeCV over the outer folds, on units (with a penalty for each neuron it can only choose by
          leaving one stimulus out, so its predictions are others)
banded    `encode_banded`'s three bands with the same candidate weights and penalties as himalaya's
          MultipleKernelRidgeCV (random search, numpy backend)

Rounds are interleaved; medians, ratios, the largest difference of predictions from himalaya's, and the memory of the
process at its peak are printed.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit

from actkit.analyses.encoding_bands import banded_ridge, candidate_weights
from actkit.analyses.encoding_folds import deal
from actkit.analyses.encoding_ridge import PENALTIES, centre, ridge, scale_of

Split = tuple[np.ndarray, np.ndarray, np.ndarray]
GRID = np.array(PENALTIES)


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of wall time, and what was worked out."""
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def planted(n: int, units: int, neurons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Units of low rank and noise, and neurons that read them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 30)) @ rng.normal(size=(30, units)) + rng.normal(size=(n, units))
    return x, x[:, :40] @ rng.normal(size=(40, neurons)) / 30 + rng.normal(size=(n, neurons))


def splits(n: int) -> list[Split]:
    """Five outer folds: training stimuli, held-out ones, and the inner fold of each training stimulus."""
    fold, found = deal(np.arange(n), 5, 0, 0), []
    for number in range(5):
        train = np.flatnonzero(fold != number)
        found.append((train, np.flatnonzero(fold == number), deal(train, 5, 0, number + 1)))
    return found


def ours(gram: np.ndarray, y: np.ndarray, folds: list[Split]) -> np.ndarray:
    """Held-out predictions of `encode`."""
    predicted = np.empty_like(y)
    for train, test, part in folds:
        inner = [train[part == k] for k in range(5)]
        predicted[test] = ridge(gram, y, train, test, GRID * scale_of(gram, train), inner).predicted
    return predicted


def himalaya_ridge(gram: np.ndarray, y: np.ndarray, folds: list[Split]) -> np.ndarray:
    """The same by himalaya."""
    from himalaya.kernel_ridge import KernelRidgeCV

    predicted = np.empty_like(y)
    for train, test, part in folds:
        model = KernelRidgeCV(
            alphas=GRID * scale_of(gram, train),
            kernel="precomputed",
            fit_intercept=True,
            cv=PredefinedSplit(part),
            warn=False,
        )
        model.fit(centre(gram, train, train), y[train])
        predicted[test] = model.predict(centre(gram, train, test))
    return predicted


def scikit_learn(x: np.ndarray, gram: np.ndarray, y: np.ndarray, folds: list[Split]) -> np.ndarray:
    """The same by scikit-learn, which chooses by leaving one out."""
    predicted = np.empty_like(y)
    for train, test, _ in folds:
        model = RidgeCV(GRID * scale_of(gram, train), alpha_per_target=True)
        predicted[test] = model.fit(x[train], y[train]).predict(x[test])
    return predicted


def banded(grams: list[np.ndarray], y: np.ndarray, fold: Split, candidates: np.ndarray) -> np.ndarray:
    """Held-out predictions of one fold by `encode_banded`."""
    train, test, part = fold
    inner = [train[part == k] for k in range(5)]
    return banded_ridge(grams, y, train, test, candidates, GRID, inner).predicted


def himalaya_banded(grams: list[np.ndarray], y: np.ndarray, fold: Split, candidates: np.ndarray) -> np.ndarray:
    """The same by himalaya."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    train, test, part = fold
    model = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver="random_search",
        solver_params={"n_iter": candidates, "alphas": GRID, "progress_bar": False},
        fit_intercept=True,
        cv=PredefinedSplit(part),
    )
    scales = [scale_of(gram, train) for gram in grams]
    model.fit(np.stack([centre(g, train, train) / s for g, s in zip(grams, scales, strict=True)]), y[train])
    left_out = np.stack([centre(g, train, test) / s for g, s in zip(grams, scales, strict=True)])
    return np.asarray(model.predict(left_out))


def products(x: np.ndarray) -> np.ndarray:
    """Inner products of centred units."""
    centred = x - x.mean(axis=0)
    return np.asarray(centred @ centred.T)


def compare_ridge(n: int, units: int, neurons: int, rounds: int) -> None:
    """Print the comparison of ridge regression."""
    x, y = planted(n, units, neurons, 0)
    folds = splits(n)
    took: dict[str, list[float]] = {"gram": [], "ours": [], "himalaya": [], "scikit-learn": []}
    answers = {}
    for _ in range(rounds):
        seconds, gram = timed(lambda: products(x))
        took["gram"].append(seconds)
        for name, work in (
            ("ours", lambda gram=gram: ours(gram, y, folds)),
            ("himalaya", lambda gram=gram: himalaya_ridge(gram, y, folds)),
            ("scikit-learn", lambda gram=gram: scikit_learn(x, gram, y, folds)),
        ):
            seconds, answers[name] = timed(work)
            took[name].append(seconds)
    g, a, h, s = (float(np.median(took[name])) for name in took)
    apart = np.abs(answers["ours"] - answers["himalaya"]).max()
    print(
        f"ridge    {n} x {units:,} units x {neurons} neurons, 5 x 5 folds, {len(GRID)} penalties: Gram {g:.2f} s, "
        f"ours {a:.2f} s, himalaya {h:.2f} s, scikit-learn {s:.2f} s; {h / a:.1f} times, with the Gram matrix "
        f"{s / (g + a):.1f} times; predictions differ by {apart:.1e}"
    )


def compare_banded(n: int, units: int, neurons: int, count: int, rounds: int) -> None:
    """Print the comparison of banded ridge regression."""
    x, y = planted(n, 3 * units, neurons, 1)
    grams = [products(part) for part in np.split(x, 3, axis=1)]
    fold, candidates = splits(n)[0], candidate_weights(3, count, 0)
    took: dict[str, list[float]] = {"ours": [], "himalaya": []}
    answers = {}
    for _ in range(rounds):
        for name, work in (("ours", banded), ("himalaya", himalaya_banded)):
            seconds, answers[name] = timed(lambda work=work: work(grams, y, fold, candidates))
            took[name].append(seconds)
    a, h = (float(np.median(took[name])) for name in took)
    print(
        f"banded   {n} stimuli, 3 bands, {neurons} neurons, {count} candidates x {len(GRID)} penalties, one outer and "
        f"5 inner folds: ours {a:.2f} s, himalaya {h:.2f} s, {h / a:.1f} times; predictions differ by "
        f"{np.abs(answers['ours'] - answers['himalaya']).max():.1e}"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="himalaya")
    # Multiples of 25: folds of one size, over which himalaya averages errors, and not over stimuli.
    if options.small:
        compare_ridge(200, 1000, 20, options.rounds)
        compare_banded(200, 500, 20, 10, options.rounds)
    else:
        compare_ridge(625, 9408, 50, options.rounds)
        compare_banded(625, 5000, 50, 20, options.rounds)
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
