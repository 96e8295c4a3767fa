"""Decoding: how well a label of held-out stimuli can be read from each layer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.classifiers import ABOUT, PENALTY, Classifier, classify
from actkit.analyses.decoding_folds import (
    Fold,
    check_conditions,
    columns_of,
    coordinates,
    deal,
    renamed,
    shuffled_labels,
    split_by_column,
    wilson,
    within_across,
)
from actkit.analyses.reducer_leak import check_reducer_leak
from actkit.analyses.source import Layer, array_layer, choose_layers, label_column, open_source
from actkit.compute import parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint
from actkit.statistics import MaximumStatistic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DecodingOptions(Options):
    """Options of :func:`decode`."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    classifier: Classifier = Field("logistic", description=ABOUT)
    penalty: float = Field(0.01, gt=0, description=PENALTY)
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split, classes in equal shares.")
    n_permutations: int = Field(
        0,
        ge=0,
        description="Permutations of the labels, the observed labelling included; 0: no test (each permutation "
        "fits every layer again).",
    )
    sizes: list[int] | None = Field(
        None, description="Numbers of units, for a curve: each draw takes random ones of a layer; no curve by default."
    )
    n_draws: int = Field(10, ge=1, description="Draws of units for each point of the curve.")
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of folds, permutations and draws.")


@with_options(DecodingOptions)
def decode(
    source: Any,
    labels: Any,
    groups: Any = None,
    split: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    condition: Any = None,
    *,
    options: DecodingOptions,
) -> xr.Dataset:
    """Decode a label of held-out stimuli from every layer.

    Within each fold, units are standardised by the mean and the standard deviation of the training stimuli alone, and
    divided by the square root of the number of units, so that the same penalty suits layers of any width. Layers wider
    than the training set are replaced by their coordinates in the row space of the training stimuli: with
    K = ZZᵀ = U diag(λ) Uᵀ the Gram matrix of the standardised training patterns Z, those are U diag(√λ), and a held-out
    pattern z becomes diag(1/√λ) Uᵀ Z z. Rotating features changes none of these classifiers (their L2 penalties and
    Euclidean distances depend on inner products only, the discriminant analysis shrinks to a multiple of identity), so
    predictions are those of the full layer at the cost of one n × n matrix.

    With conditions (positions, sizes, contexts), the classifier is trained in each one and tested on the same held-out
    fold of each: accuracy within and across conditions then differ by the condition alone, not by the size of a sample.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``.
    labels : str, sequence or mapping
        What to decode: the name of a label column of the source, one label for each stimulus, or a mapping of id to
        label.
    groups : str, sequence or mapping, optional
        Stimuli of one group (the same identity, the same photograph) are never split between training and test. Where
        groups are finer classes (dogs, cats, cars; decoded: animal or not), whole classes are held out.
    split : str, sequence or mapping, optional
        ``"train"`` or ``"test"`` for each stimulus: one fixed split instead of folds.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.
    condition : str, sequence or mapping, optional
        The condition of each stimulus, such as its position, to train in one and test in another. Every class must
        occur in every condition.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` (layer): share of held-out stimuli decoded correctly, by a classifier of their own condition where
        there are conditions; ``error`` (layer): its binomial standard error (training sets overlap, so it is
        approximate); ``interval_low``, ``interval_high``: 95 % Wilson interval; ``correct`` (layer, stimulus): 1 or 0,
        NaN where a stimulus is never held out; ``fold`` (stimulus), −1 for training only; ``confusion`` (layer, shown,
        decoded): share of the held-out stimuli of a class that were taken for each class; ``chance``: share of the
        most frequent class among the held-out stimuli, what guessing without looking reaches; ``p_value`` (layer):
        one-sided label-permutation test, corrected by the maximum over layers, and ``p_uncorrected`` (layer); NaN
        without permutations. With conditions: ``cross`` (layer, train, test), accuracy by condition trained on and
        tested; ``across`` (layer), its mean over different conditions; ``p_across`` (layer), one-sided against classes
        whose names are permuted in each condition, corrected over layers; ``confusion`` (layer, train, test, shown,
        decoded). With sizes: ``curve`` (layer, size, draw), accuracy from that many random units, and with conditions
        ``curve_across``.

    Raises
    ------
    InputError
        If there is one class only, a class is too small for the folds or absent from a training set, labels do not fit
        the stimuli, a size exceeds a layer's units, activations are NaN or infinite, or a layer was reduced by axes
        that were fitted to stimuli that are held out here.
    LayerError
        If a layer does not exist.

    References
    ----------
    Hastie & Tibshirani (2004), Efficient quadratic regularization for expression arrays, Biostatistics 5 (row-space
    coordinates); Wilson (1927), JASA 22; Meyers (2013), Frontiers in Neuroinformatics 7 (cross-decoding).
    """
    opened = open_source(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    stimuli = [str(i) for i in opened.ids]
    name, y = label_column(labels, "labels", stimuli, opened.labels)
    by_group = None if groups is None else label_column(groups, "groups", stimuli, opened.labels)[1]
    by_split = None if split is None else label_column(split, "split", stimuli, opened.labels)[1]
    place_name, place = ("", np.full(len(y), "all"))
    if condition is not None:
        place_name, place = label_column(condition, "condition", stimuli, opened.labels)
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"{name!r}: all {len(y)} stimuli are {str(classes[0])!r}, so there is nothing to decode; give "
            "labels with two classes or more"
        )
    check_conditions(y, place)
    if by_split is not None:
        where = split_by_column(by_split, by_group)
    else:
        where = deal(y, place if condition is not None else None, by_group, options.folds, options.seed)
    task = _Task(y, place, where, options)
    held_out = where >= 0
    tested = [name for name, held in zip(stimuli, held_out, strict=True) if held]
    check_reducer_leak(source, [layer.name for layer in chosen], tested)
    shuffles = _shuffles(y, where, place, by_group, options)

    correct = np.full((len(chosen), len(y)), np.nan, dtype=np.float32)
    null = np.empty((len(chosen), len(shuffles)))
    found, curves = [], []
    for row, layer in enumerate(progress_bar(chosen, desc="decoding", unit="layer", enabled=progress)):
        hits, confused = task.run(layer, stimuli, shuffles)
        correct[row, held_out] = hits[0, held_out]
        null[row] = hits[:, held_out].mean(axis=1)
        found.append(confused)
        if options.sizes:
            curves.append(task.curve(layer, stimuli))
    confusions = np.stack(found)
    accuracy = null[:, 0].copy()
    low, high = wilson(accuracy, int(held_out.sum()))
    p_value, p_uncorrected = _p_values(null if options.n_permutations else None, accuracy)
    data: dict[str, Any] = {
        "accuracy": ("layer", accuracy, _about("share of held-out stimuli decoded correctly")),
        "error": ("layer", np.sqrt(accuracy * (1 - accuracy) / held_out.sum()), _about("binomial standard error")),
        "interval_low": ("layer", low, _about("95 % Wilson interval, lower limit")),
        "interval_high": ("layer", high, _about("95 % Wilson interval, upper limit")),
        "p_value": ("layer", p_value, _about("p, corrected over layers (one-sided)")),
        "p_uncorrected": ("layer", p_uncorrected, _about("p, uncorrected (one-sided)")),
        "correct": (("layer", "stimulus"), correct, _about("1 where the held-out stimulus is decoded correctly")),
        "chance": ((), float(np.unique(y[held_out], return_counts=True)[1].max() / held_out.sum()), _about(_CHANCE)),
    }
    coords: dict[str, Any] = {
        "layer": [layer.name for layer in chosen],
        "stimulus": np.array(stimuli),
        "label": ("stimulus", y),
        "fold": ("stimulus", where),
        "n_units": ("layer", np.array([layer.n_units for layer in chosen])),
        "shown": classes,
        "decoded": classes,
    }
    total = confusions.sum(axis=-1, keepdims=True)
    shares = np.divide(confusions, total, out=np.full(confusions.shape, np.nan), where=total > 0)
    pair: tuple[str, ...] = ("train", "test")
    if condition is None:
        shares, pair = shares[:, 0, 0], ()
    else:
        data |= _crossed(confusions, task.conditions, options)
        coords |= {"train": task.conditions, "test": task.conditions, "condition": ("stimulus", place)}
    data["confusion"] = (("layer", *pair, "shown", "decoded"), shares, _about("share of the stimuli of a class"))
    if options.sizes:
        coords["size"] = task.sizes
        stacked = np.stack(curves)  # (layer, 2, size, draw)
        data["curve"] = (("layer", "size", "draw"), stacked[:, 0], _about("share decoded from so many random units"))
        if condition is not None:
            data["curve_across"] = (("layer", "size", "draw"), stacked[:, 1], _about("the same, across conditions"))
    return describe(
        xr.Dataset(data, coords),
        "decoding",
        options,
        {"source": opened.fingerprint(), "labels": fingerprint(y)}
        | ({} if condition is None else {"condition": fingerprint(place)}),
        label=name,
        condition=place_name or None,
        network=str(opened.attrs.get("network", opened.name)),
        classes=json.dumps(dict(zip(classes.tolist(), counts.tolist(), strict=True))),
        n_classes=len(classes),
        n_stimuli=len(y),
        n_held_out=int(held_out.sum()),
        classifier=options.classifier,
        splitting=_split_words(where, by_group, by_split),
        n_permutations=options.n_permutations,
        seed=options.seed,
        test="none"
        if not options.n_permutations
        else (
            f"label permutation test within folds, one-sided, {options.n_permutations} permutations with the observed "
            f"labelling, maximum statistic over {len(chosen)} layers"
        ),
    )


_CHANCE = "share of the most frequent class"


class _Task:
    """What is decoded: labels, conditions and folds; every fold is one job for each condition trained on."""

    def __init__(self, y: np.ndarray, place: np.ndarray, where: np.ndarray, options: DecodingOptions) -> None:
        self.y, self.place, self.options = y, place, options
        self.classes, self.conditions = np.unique(y), np.unique(place)
        self.sizes = sorted(set(options.sizes or []))
        self.jobs: list[tuple[int, Fold]] = []
        for number in range(where.max() + 1):
            test = np.flatnonzero(where == number)
            for c, one in enumerate(self.conditions):
                train = np.flatnonzero((where != number) & (place == one))
                self._check(train, test, number)
                self.jobs.append((c, Fold(train, test)))

    def _check(self, train: np.ndarray, test: np.ndarray, number: int) -> None:
        learnt = set(self.y[train].tolist())
        if absent := sorted(set(self.y[test].tolist()) - learnt):
            raise InputError(
                f"class {absent[0]!r} is in the test part of fold {number} and not in its training part, so it could "
                "never be decoded; use more folds, other groups, or leave the class out"
            )
        if len(learnt) < 2:
            raise InputError(f"the training part of fold {number} holds one class only; use other groups or more folds")

    def run(self, layer: Layer, ids: list[str], labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Right guesses within conditions ``(labellings, n)``, and the first labelling's confusion counts."""
        options = self.options
        hits = np.zeros((len(labels), len(self.y)))
        n, k = len(self.conditions), len(self.classes)
        counts = np.zeros((n, n, k, k), dtype=np.int64)
        tested = np.searchsorted(self.conditions, self.place)
        folds = [fold for _, fold in self.jobs]
        for number, train, test in coordinates(layer, folds, ids, parse_bytes(options.memory)):
            c, fold = self.jobs[number]
            own = tested[fold.test] == c
            for draw, y in enumerate(labels):
                rows = slice(None) if draw == 0 else own
                guess = classify(train, y[fold.train], test[rows], options.classifier, options.penalty, layer.n_units)
                right = guess == y[fold.test][rows]
                hits[draw, fold.test[own]] = right[own] if draw == 0 else right
                if draw == 0:
                    truth, given = (np.searchsorted(self.classes, v) for v in (y[fold.test], guess))
                    np.add.at(counts[c], (tested[fold.test], truth, given), 1)
        return hits, counts

    def curve(self, layer: Layer, ids: list[str]) -> np.ndarray:
        """Accuracy within and across conditions from random units ``(2, sizes, draws)``; sizes are nested."""
        options, largest = self.options, self.sizes[-1]
        if self.sizes[0] < 1 or largest > layer.n_units:
            bad = self.sizes[0] if self.sizes[0] < 1 else largest
            raise InputError(
                f"sizes holds {bad}, and layer {layer.name!r} has {layer.n_units} units; give 1 to {layer.n_units}, or "
                "leave the layer out"
            )
        drawn = np.stack(
            [
                generator(options.seed, draw, Stream.STIMULI).choice(layer.n_units, largest, replace=False)
                for draw in range(options.n_draws)
            ]
        )
        values = columns_of(layer, drawn.ravel(), parse_bytes(options.memory) // 2, ids).reshape(
            len(ids), options.n_draws, largest
        )
        answer = np.empty((2, len(self.sizes), options.n_draws))
        for draw in range(options.n_draws):
            for row, size in enumerate(self.sizes):
                _, counts = self.run(array_layer(layer.name, values[:, draw, :size]), ids, [self.y])
                answer[:, row, draw] = within_across(counts)
        return answer


def _crossed(counts: np.ndarray, conditions: np.ndarray, options: DecodingOptions) -> dict[str, Any]:
    """Accuracy across conditions and its test."""
    n = counts.shape[1]
    if n < 2:
        raise InputError("condition holds one value only, so there is nothing to cross; leave it out")
    if empty := [name for name, total in zip(conditions, counts.sum(axis=(0, 1, 3, 4)), strict=True) if not total]:
        raise InputError(f"no stimulus of condition {str(empty[0])!r} is held out; leave it out, or use another split")
    other = ~np.eye(n, dtype=bool)
    draws = renamed(counts, max(1, options.n_permutations), options.seed)  # (draws, layers, train, test)
    across = draws[:, :, other].mean(axis=2)
    p, _ = _p_values(across.T if options.n_permutations else None, across[0])
    return {
        "cross": (("layer", "train", "test"), draws[0], _about("share of held-out stimuli decoded correctly")),
        "across": ("layer", across[0], _about("accuracy across conditions")),
        "p_across": ("layer", p, _about("p across conditions, corrected over layers (one-sided)")),
    }


def _p_values(null: np.ndarray | None, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corrected and uncorrected p by the maximum over layers; NaN without a null ``(layers, draws)``."""
    test = MaximumStatistic(observed, np.full(len(observed), "layers"))
    if null is not None:
        test.add(null)
    return test.p_values()


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _split_words(where: np.ndarray, groups: np.ndarray | None, split: np.ndarray | None) -> str:
    """Say how stimuli were held out."""
    if split is not None:
        return f"fixed split, {int((where < 0).sum())} to learn from and {int((where >= 0).sum())} held out"
    whole = f", {len(np.unique(groups))} groups kept whole" if groups is not None else ""
    return f"{where.max() + 1}-fold stratified crossvalidation{whole}"


def _shuffles(
    y: np.ndarray, where: np.ndarray, place: np.ndarray, groups: np.ndarray | None, options: DecodingOptions
) -> list[np.ndarray]:
    """The labels as they are, then permuted.

    Labels move within folds and conditions only, so that every fold keeps its class counts: otherwise a class that is
    rare in training is frequent in test, and the null lies below chance.
    """
    count = max(1, options.n_permutations)
    parts = np.unique(np.char.add(np.char.add(where.astype(str), "\0"), place), return_inverse=True)[1]
    shuffles = [y]
    for draw in range(1, count):
        shuffles.append(shuffled_labels(y, parts, groups, generator(options.seed, draw, Stream.PERMUTATIONS)))
    if count > 1 and all(np.array_equal(y, shuffled) for shuffled in shuffles):
        raise InputError(
            "permuting labels within folds and groups changes nothing, so there is no test; use n_permutations=0, "
            "fewer folds, or groups of mixed classes"
        )
    return shuffles


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], **settings: Any) -> Figure:
    """Draw accuracy by layer; see :func:`actkit.analyses.decoding_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What :func:`decode` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import decoding_plot

    return decoding_plot.plot(result, **settings)
