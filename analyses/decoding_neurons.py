"""Decoding from neurons: labels read from trials or averages, across conditions, and by the number of neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from actkit.analyses.classifiers import classify, standardised
from actkit.analyses.decoding_folds import renamed, shuffled_labels, wilson
from actkit.analyses.decoding_samples import (
    NeuronDecodingOptions,
    check_labels,
    draw_samples,
    presentations,
    shuffled_presentations,
)
from actkit.analyses.source import label_column
from actkit.errors import InputError
from actkit.options import with_options
from actkit.recordings_neurons import validate_responses
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NeuronDecodingOptions", "decode_neurons", "plot"]

_GROUPS = 10  # of neurons, each left out once by the jackknife; more of them count more noise of single samples
_NORMAL = 1.959963984540054  # 97.5 % point


@with_options(NeuronDecodingOptions)
def decode_neurons(
    responses: xr.DataArray,
    labels: Any,
    condition: Any = None,
    groups: Any = None,
    *,
    options: NeuronDecodingOptions,
) -> xr.Dataset:
    """Decode a label of held-out presentations or stimuli from neurons, within and across conditions.

    Neurons are standardised within each fold, never by what it holds out (a constant one becomes 0), and divided by the
    square root of their number, so that one penalty suits populations of any size. Within and across conditions,
    training sets are the same and so are test sets: the classifier trained on condition a without fold f is tested on
    fold f of every condition, so that the difference between conditions is not one of sample size. With
    ``train_on="others"``, the classifier for condition b is trained on all other conditions without fold f, which are
    more data.

    With held-out presentations, every draw takes as many of each stimulus as the scarcest stimulus (of any neuron) has,
    at random, so that classes stay in balance. Pseudo-trials join presentations that were not simultaneous, which
    removes noise correlations between neurons.

    Two permutation tests. Within conditions the null is that neurons tell nothing: presentations change places within
    their condition (those of neurons with the same gaps together), or, with held-out stimuli, labels do, groups whole;
    the whole analysis is then done anew. Across conditions it is that classes have no shared code: their names are
    permuted in each condition, which leaves what each condition tells by itself. With k classes and c conditions there
    are k!^(c − 1) ways to do so, and p is not below one in so many.

    Intervals over neurons err on the wide side: in simulations (40 to 100 neurons) they are 1.3 to 1.6 times as wide as
    accuracies of other populations spread.

    Parameters
    ----------
    responses : xarray.DataArray
        A recording (stimulus, repetition, neuron), NaN where a presentation is missing, or averages (stimulus, neuron)
        with ``hold_out="stimulus"``; time bins must be averaged or selected first.
    labels : str, sequence or mapping
        What to decode: a coord along stimulus, one label for each stimulus, or a mapping of id to label.
    condition : str, sequence or mapping, optional
        The condition of each stimulus, such as its position. Every class must occur in every condition.
    groups : str, sequence or mapping, optional
        With held-out stimuli: stimuli of one group (the same photograph, the same identity) are never split. By default
        the coordinate ``group`` of the responses (copies of an image), if there is one.

    Returns
    -------
    xarray.Dataset
        Dims size, draw, train, test, shown, decoded: ``accuracy`` (size, draw, train, test) over the held-out samples;
        ``mean`` and ``spread`` (size, train, test), their mean and standard deviation over draws (how much draws
        differ, no standard error over neurons or stimuli), with ``interval_low`` and ``interval_high``; ``within`` and
        ``across`` (size), the mean where train and test are the same condition or different ones (NaN without
        conditions), with ``within_low``, ``within_high``, ``across_low``, ``across_high``; ``confusion`` (train, test,
        shown, decoded), the share of the held-out samples of a class that were taken for each class, all neurons (the
        largest size); ``chance``, the share of the most frequent class; ``p_within``, ``p_across`` (size), one-sided
        permutation tests, and ``null_within``, ``null_across`` (permutation, size), the first the observed value. With
        ``train_on="others"``, train is ``same`` or ``others``.

    Raises
    ------
    InputError
        If labels, conditions or groups do not fit, a class is missing in a condition or a training fold, a stimulus has
        fewer presentations than folds, a size exceeds the number of neurons, or the recording has time bins, or no
        presentations where they are to be held out.

    References
    ----------
    Meyers (2013), The neural decoding toolbox, Frontiers in Neuroinformatics 7 (pseudo-populations, cross-decoding);
    Hung, Kreiman, Poggio & DiCarlo (2005), Science 310; Ledoit & Wolf (2004), Journal of Multivariate Analysis 88.
    """
    recording = validate_responses(responses)
    if "time" in recording.dims:
        raise InputError("the recording has time bins; select one or average them, and decode each by itself")
    stimuli = [str(value) for value in recording["stimulus"].values]
    columns = {str(k): c.values for k, c in recording.coords.items() if c.dims == ("stimulus",) and k != "stimulus"}
    name, y = label_column(labels, "labels", stimuli, columns)
    place, where = "", np.full(len(y), "all")
    if condition is not None:
        place, where = label_column(condition, "condition", stimuli, columns)
    known = columns.get("group")
    if groups is None and options.hold_out == "stimulus" and known is not None and len(np.unique(known)) < len(y):
        groups = "group"
    by_group = None if groups is None else label_column(groups, "groups", stimuli, columns)[1]
    check_labels(y, where, by_group, options)
    n_neurons = recording.sizes["neuron"]
    sizes = sorted(set(options.sizes or [n_neurons]))
    if sizes[0] < 1 or sizes[-1] > n_neurons:
        bad = sizes[0] if sizes[0] < 1 else sizes[-1]
        raise InputError(f"sizes holds {bad}, and the recording has {n_neurons} neurons; give 1 to {n_neurons}")
    values = presentations(recording, options)

    task = _Task(y, where, by_group, sizes, options)
    counts = task.counts(values, y)
    total = counts.sum(axis=(-1, -2))
    accuracy = np.trace(counts, axis1=-2, axis2=-1) / total
    mean, confusion = accuracy.mean(axis=1), counts[-1].sum(axis=0)
    spread = accuracy.std(axis=1, ddof=1) if options.n_draws > 1 else np.full_like(mean, np.nan)
    n_samples = int(total[0, 0].sum() // len(task.sources))
    limits = _limits(task, values, mean, total[:, 0], n_samples)
    null_within, null_across = _nulls(task, values, counts.sum(axis=1))
    within, across = task.summary(mean)
    pair = ("size", "train", "test")
    data: dict[str, Any] = {
        "accuracy": (("size", "draw", "train", "test"), accuracy, _about("share decoded correctly")),
        "mean": (pair, mean, _about("mean share decoded correctly")),
        "spread": (pair, spread, _about("standard deviation over draws")),
        "within": ("size", within, _about("accuracy within conditions")),
        "across": ("size", across, _about("accuracy across conditions")),
        "confusion": (
            ("train", "test", "shown", "decoded"),
            confusion / confusion.sum(axis=-1, keepdims=True),
            _about("share of the samples of a class"),
        ),
        "chance": ((), _most(y, where), _about("share of the most frequent class")),
        "null_within": (("permutation", "size"), null_within, _about("accuracy within conditions, permuted")),
        "null_across": (("permutation", "size"), null_across, _about("accuracy across conditions, names permuted")),
        "p_within": ("size", _p(null_within), _about("p within conditions (one-sided)")),
        "p_across": ("size", _p(null_across), _about("p across conditions (one-sided)")),
    }
    for side, (pairs, own, other) in limits.items():
        words = _about(f"95 % interval over {options.interval}, {'lower' if side == 'low' else 'upper'} limit")
        data |= {
            f"interval_{side}": (pair, pairs, words),
            f"within_{side}": ("size", own, words),
            f"across_{side}": ("size", other, words),
        }
    classes = task.classes
    result = xr.Dataset(
        data,
        coords={"size": sizes, "train": task.sources, "test": task.conditions, "shown": classes, "decoded": classes},
    )
    return describe(
        result,
        "decoding_neurons",
        options,
        {"responses": fingerprint(recording), "labels": fingerprint(y), "condition": fingerprint(where)},
        label=name,
        condition=place or None,
        recording=str(recording.attrs.get("name") or recording.name or "recording"),
        classifier=options.classifier,
        n_neurons=n_neurons,
        n_stimuli=len(y),
        n_samples=n_samples,
        train_on=options.train_on,
        hold_out=options.hold_out,
        interval=options.interval,
        n_permutations=options.n_permutations,
        seed=options.seed,
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _most(y: np.ndarray, where: np.ndarray) -> float:
    """Share of the most frequent class, at most over conditions."""
    return max(float(np.unique(y[where == c], return_counts=True)[1].max() / (where == c).sum()) for c in set(where))


def _p(null: np.ndarray) -> np.ndarray:
    """One-sided p from a null whose first row is the observed value; NaN without one."""
    if not len(null):
        return np.full(null.shape[1], np.nan)
    p = (null >= null[0] - 1e-10).mean(axis=0)
    return np.where(np.isnan(null[0]), np.nan, p)


class _Task:
    """What is decoded, and the counts of every draw."""

    def __init__(
        self,
        y: np.ndarray,
        where: np.ndarray,
        groups: np.ndarray | None,
        sizes: list[int],
        options: NeuronDecodingOptions,
    ) -> None:
        self.y, self.where, self.groups, self.sizes, self.options = y, where, groups, sizes, options
        self.classes, self.conditions = np.unique(y), np.unique(where)
        self.place = np.searchsorted(self.conditions, where)
        self.sources = ["same", "others"] if options.train_on == "others" else self.conditions.tolist()
        own = np.eye(len(self.conditions), dtype=bool) if options.train_on == "one" else np.array([[True], [False]])
        self.own = np.broadcast_to(own, (len(self.sources), len(self.conditions)))

    def counts(self, values: np.ndarray, y: np.ndarray, left_out: int | None = None) -> np.ndarray:
        """Held-out samples ``(size, draw, train, test, shown, decoded)``, perhaps without one group of neurons."""
        options, n_neurons = self.options, values.shape[2]
        truth = np.searchsorted(self.classes, y)
        shape = (*self.own.shape, len(self.classes), len(self.classes))
        counts = np.zeros((len(self.sizes), options.n_draws, *shape), dtype=np.int64)
        for draw in range(options.n_draws):
            random = generator(options.seed, draw, Stream.PERMUTATIONS)
            x, row, fold = draw_samples(values, y, self.where, self.groups, random, options)
            order = random.permutation(n_neurons)  # nested: a larger population holds the smaller one
            for position, size in enumerate(self.sizes):
                chosen = order[:size]
                if left_out is not None:
                    chosen = chosen[np.arange(size) % min(_GROUPS, size) != left_out]
                counts[position, draw] = _counts(
                    x[:, np.sort(chosen)], truth[row], self.place[row], fold, shape, options
                )
        return counts

    def summary(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy within and across conditions, from that of each pair ``(…, train, test)``."""
        within = mean[..., self.own].mean(axis=-1)
        return within, mean[..., ~self.own].mean(axis=-1) if not self.own.all() else np.full_like(within, np.nan)


def _limits(
    task: _Task, values: np.ndarray, mean: np.ndarray, total: np.ndarray, n_samples: int
) -> dict[str, tuple[np.ndarray, ...]]:
    """Limits of 95 % intervals: of each pair of conditions, within and across conditions."""
    within, across = task.summary(mean)
    if task.options.interval == "samples":
        # Each sample is tested once within conditions, and by several classifiers across them: one sample all the same.
        n = np.full(within.shape, n_samples)
        each = [wilson(mean, total), wilson(within, n), wilson(across, n)]
        return {side: tuple(found[k] for found in each) for k, side in enumerate(("low", "high"))}
    low = [np.full_like(part, np.nan) for part in (mean, within, across)]
    high = [part.copy() for part in low]
    for position, size in enumerate(task.sizes):
        if size < 2:
            continue
        groups = min(_GROUPS, size)
        alone = _Task(task.y, task.where, task.groups, [size], task.options)
        without = []
        for group in range(groups):
            counts = alone.counts(values, task.y, group)[0].sum(axis=0)
            without.append(np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-1, -2)))
        parts = np.stack(without)
        for k, (part, whole) in enumerate(zip((parts, *task.summary(parts)), (mean, within, across), strict=True)):
            error = np.sqrt((groups - 1) / groups * ((part - part.mean(axis=0)) ** 2).sum(axis=0))
            low[k][position] = np.clip(whole[position] - _NORMAL * error, 0, 1)
            high[k][position] = np.clip(whole[position] + _NORMAL * error, 0, 1)
    return {"low": tuple(low), "high": tuple(high)}


def _nulls(task: _Task, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy within conditions without any tuning, and across them without a shared code ``(permutations, size)``."""
    options = task.options
    n = options.n_permutations
    within = np.empty((n, len(task.sizes)))
    for number in range(n):
        random = generator(options.seed, number, Stream.SUBJECTS)
        y, moved = task.y, values
        if number and options.hold_out == "repetition":
            moved = shuffled_presentations(values, task.place, random)
        elif number:
            y = shuffled_labels(task.y, task.place, task.groups, random)
        found = task.counts(moved, y).sum(axis=1) if number else counts
        within[number] = task.summary(np.trace(found, axis1=-2, axis2=-1) / found.sum(axis=(-1, -2)))[0]
    names = renamed(counts, n, options.seed, pooled=options.train_on == "others") if n else np.empty((0, *counts.shape))
    return within, task.summary(names)[1] if n else np.empty((0, len(task.sizes)))


def _counts(
    x: np.ndarray,
    truth: np.ndarray,
    place: np.ndarray,
    fold: np.ndarray,
    shape: tuple[int, ...],
    options: NeuronDecodingOptions,
) -> np.ndarray:
    """Held-out samples by training source, test condition, class and response."""
    counts = np.zeros(shape, dtype=np.int64)
    for number in range(options.folds):
        held = fold == number
        by_condition = np.empty_like(x)
        if options.standardise == "condition":
            for c in range(shape[1]):
                own = place == c
                by_condition[own] = standardised(x[own], ~held[own])
        for c in range(shape[1]):
            jobs = [(c, place == c, held)]  # source's row, training condition, samples tested
            if options.train_on == "others":
                jobs = [(0, place == c, held & (place == c)), (1, place != c, held & (place == c))]
            for source, rows, test in jobs:
                if not test.any():
                    continue
                train = rows & ~held
                absent = set(truth[test].tolist()) - set(truth[train].tolist())
                if absent or len(np.unique(truth[train])) < 2:
                    raise InputError(
                        f"a class is tested in fold {number} and not in its training part; use fewer folds, other "
                        "groups or more stimuli"
                    )
                scaled = by_condition if options.standardise == "condition" else standardised(x, train)
                guess = classify(scaled[train], truth[train], scaled[test], options.classifier, options.penalty)
                np.add.at(counts[source], (place[test], truth[test], guess), 1)
    return counts


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw accuracies, confusions or the curve; see :func:`actkit.analyses.decoding_neurons_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`decode_neurons` returned.
    **settings
        Settings of the figure, such as ``kind``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import decoding_neurons_plot

    return decoding_neurons_plot.plot(result, **settings)
