"""Reliability of neurons and encoding models against the plain way, in one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_neurons.py
    python tests/benchmarks/bench_neurons.py --small

ceiling   `neuron_reliability` by 100 split halves of 168 neurons, against a loop over neurons and splits that is
          already vectorised over stimuli; the loop is timed on two neurons and ten splits and scaled
pls       the fit behind `encode(model="pls")` with 25 components from a layer of 25,088 units to 168 neurons, 1000
          stimuli: one fit with its Gram matrix, and a further split of the same stimuli, against scikit-learn's
          PLSRegression with its default tolerance (a converged fit takes longer still)

Rounds are interleaved and the medians printed, with the ratios, and the memory of the process at its peak. Seconds are
CPU seconds of all threads, and wall seconds in brackets: on a machine that others use, the first are the ones to
compare. The speed of unit matching is in bench_matching.py.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import xarray as xr

from actkit.analyses.encoding_pls import pls
from actkit.analyses.neuron_reliability import neuron_reliability


def recording(n: int, neurons: int) -> xr.DataArray:
    """Six to ten repetitions of each stimulus, noise twice the signal."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, 1, neurons)) + np.sqrt(2) * rng.normal(size=(n, 10, neurons))
    values[np.arange(10)[None, :] >= rng.integers(6, 11, n)[:, None]] = np.nan
    return xr.DataArray(
        values, {"stimulus": np.arange(n), "neuron": np.arange(neurons)}, ("stimulus", "repetition", "neuron")
    )


def halves_in_a_loop(values: np.ndarray, n_splits: int) -> None:
    """Split halves of one neuron after the other."""
    rng = np.random.default_rng(0)
    for k in range(values.shape[2]):
        x = values[:, :, k]
        present = ~np.isnan(x)
        half = (present.sum(axis=1) // 2)[:, None]
        for _ in range(n_splits):
            place = np.argsort(np.argsort(np.where(present, rng.random(x.shape), np.inf), axis=1), axis=1)
            one = np.nanmean(np.where(place < half, x, np.nan), axis=1)
            other = np.nanmean(np.where((place >= half) & present, x, np.nan), axis=1)
            np.corrcoef(one, other)


def timed(work: Callable[[], object]) -> np.ndarray:
    """CPU and wall seconds."""
    start = np.array([time.process_time(), time.perf_counter()])
    work()
    return np.array([time.process_time(), time.perf_counter()]) - start


def seconds(values: list[np.ndarray]) -> np.ndarray:
    """Medians of the rounds."""
    return np.asarray(np.median(values, axis=0))


def both(values: np.ndarray, digits: str = ".3g") -> str:
    """CPU, and wall in brackets."""
    return f"{values[0]:{digits}} ({values[1]:{digits}})"


def ceilings(n: int, rounds: int) -> None:
    """Print the comparison of split halves."""
    array = recording(n, 168)
    few = array.values[:, :, :2]
    ours, loop = [], []
    for _ in range(rounds):
        ours.append(timed(lambda: neuron_reliability(array, method="split_half", n_draws=0)))
        loop.append(timed(lambda: halves_in_a_loop(few, 10)) * 168 / 2 * 100 / 10)
    a, b = seconds(ours), seconds(loop)
    print(
        f"ceiling  {n} stimuli, 168 neurons, 100 splits: ours {both(a)} s, loop {both(b)} s (scaled), "
        f"{both(b / a, '.0f')} times",
        flush=True,
    )


def encoding(n: int, units: int, neurons: int, components: int, rounds: int) -> None:
    """Print the comparison of partial least squares."""
    from sklearn.cross_decomposition import PLSRegression

    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 50)) @ rng.normal(size=(50, units)) + rng.normal(size=(n, units))
    y = x[:, :50] @ rng.normal(size=(50, neurons)) / 7 + rng.normal(size=(n, neurons))
    order = rng.permutation(n)
    test, train = np.sort(order[: n // 5]), np.sort(order[n // 5 :])
    gram, split, theirs = [], [], []
    for _ in range(rounds):
        gram.append(timed(lambda: x @ x.T))
        kernel = x @ x.T
        split.append(timed(lambda kernel=kernel: pls(kernel, y, train, test, components)))
        model = PLSRegression(components, scale=False)
        theirs.append(timed(lambda model=model: model.fit(x[train], y[train]).predict(x[test])))
    k, a, b = seconds(gram), seconds(split), seconds(theirs)
    converged = PLSRegression(min(components, 5), scale=False, tol=1e-22, max_iter=100_000)
    exact = converged.fit(x[train], y[train]).predict(x[test])
    ours = pls(x @ x.T, y, train, test, min(components, 5)).predicted
    print(
        f"pls      {n} x {units:,} units x {neurons} neurons, {components} components: Gram {both(k)} s, "
        f"split {both(a)} s, scikit-learn {both(b)} s; "
        f"one fit {both(b / (k + a), '.0f')} times, each further split {both(b / a, '.0f')} times; "
        f"difference to a converged fit of {min(components, 5)} components {np.abs(ours - exact).max():.1e}"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ceilings(200 if options.small else 640, options.rounds)
    if options.small:
        encoding(100, 2000, 20, 10, options.rounds)
    else:
        encoding(1000, 25_088, 168, 25, options.rounds)
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
