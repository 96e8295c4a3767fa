"""Decoding: how well a label of held-out stimuli can be read from each layer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.source import choose_layers, label_column, open_source
from actkit.compute import format_bytes, parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint
from actkit.statistics import MaximumStatistic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Classifier = Literal["logistic", "ridge", "svm", "nearest_centroid"]
_LEVEL = 0.95


class DecodingOptions(Options):
    """Options of :func:`decode`."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    classifier: Classifier = Field(
        "logistic",
        description="Linear classifier: multinomial logistic regression, ridge regression on class codes, "
        "a linear support vector machine, or the nearest class mean.",
    )
    penalty: float = Field(
        0.01,
        gt=0,
        description="L2 penalty: ridge's alpha, and 1/C of logistic regression and the support vector machine. "
        "Units are scaled so that one value suits layers of any width.",
    )
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split, classes in equal shares.")
    n_permutations: int = Field(
        0,
        ge=0,
        description="Permutations of the labels, the observed labelling included; 0: no test (each permutation "
        "fits every layer again).",
    )
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds and of the permutations.")


@dataclass(frozen=True)
class _Fold:
    """Rows to learn from and rows held out."""

    train: np.ndarray
    test: np.ndarray


@with_options(DecodingOptions)
def decode(
    source: Any,
    labels: Any,
    groups: Any = None,
    split: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: DecodingOptions,
) -> xr.Dataset:
    """Decode a label of held-out stimuli from every layer.

    Within each fold, units are standardised by the mean and the standard deviation of the training stimuli alone, and
    divided by the square root of the number of units, so that the same penalty suits layers of any width. Layers wider
    than the training set are replaced by their coordinates in the row space of the training stimuli: with
    K = ZZᵀ = U diag(λ) Uᵀ the Gram matrix of the standardised training patterns Z, those are U diag(√λ), and a held-out
    pattern z becomes diag(1/√λ) Uᵀ Z z. Rotating features changes none of these classifiers (their L2 penalties and
    Euclidean distances depend on inner products only), so predictions are those of the full layer at the cost of one
    n × n matrix.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``.
    labels : str, sequence or mapping
        What to decode: the name of a label column of the source, one label for each stimulus, or a mapping of id to
        label.
    groups : str, sequence or mapping, optional
        Stimuli of one group (the same identity, the same photograph) are never split between training and test.
    split : str, sequence or mapping, optional
        ``"train"`` or ``"test"`` for each stimulus: one fixed split instead of folds.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` (layer): share of held-out stimuli decoded correctly; ``error`` (layer): its binomial standard
        error (training sets overlap, so it is approximate); ``interval_low``, ``interval_high``: 95 % Wilson interval;
        ``correct`` (layer, stimulus): 1 or 0, NaN where a stimulus is never held out; ``fold`` (stimulus), −1 for
        training only; ``chance``: share of the most frequent class among the held-out stimuli, what guessing without
        looking reaches; ``p_value`` (layer): one-sided label-permutation test, corrected by the maximum over layers,
        and ``p_uncorrected`` (layer); NaN without permutations.

    Raises
    ------
    InputError
        If there is one class only, a class is too small for the folds or absent from a training set, labels do not fit
        the stimuli, or activations are NaN or infinite.
    LayerError
        If a layer does not exist.

    References
    ----------
    Hastie & Tibshirani (2004), Efficient quadratic regularization for expression arrays, Biostatistics 5 (row-space
    coordinates); Wilson (1927), JASA 22.
    """
    opened = open_source(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    stimuli = [str(i) for i in opened.ids]
    name, y = label_column(labels, "labels", stimuli, opened.labels)
    by_group = None if groups is None else label_column(groups, "groups", stimuli, opened.labels)[1]
    by_split = None if split is None else label_column(split, "split", stimuli, opened.labels)[1]
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"{name!r}: all {len(y)} stimuli are {str(classes[0])!r}, so there is nothing to decode; give "
            "labels with two classes or more"
        )
    folds = _split(y, by_group, by_split, options)
    where = np.full(len(y), -1, dtype=np.int64)
    for number, fold in enumerate(folds):
        where[fold.test] = number
    held_out = where >= 0
    shuffles = _shuffles(y, where, by_group, options)

    correct = np.full((len(chosen), len(y)), np.nan, dtype=np.float32)
    null = np.empty((len(chosen), len(shuffles)))
    for row, layer in enumerate(progress_bar(chosen, desc="decoding", unit="layer", enabled=progress)):
        hits = np.zeros((len(shuffles), len(y)))
        for fold, train, test in _coordinates(layer, folds, stimuli, options):
            for draw, shuffled in enumerate(shuffles):
                guesses = _guess(train, shuffled[fold.train], test, options)
                hits[draw, fold.test] = guesses == shuffled[fold.test]
        correct[row, held_out] = hits[0, held_out]
        null[row] = hits[:, held_out].mean(axis=1)
    accuracy = null[:, 0].copy()
    low, high = _wilson(accuracy, int(held_out.sum()))
    test_statistic = MaximumStatistic(accuracy, np.full(len(chosen), "layers"))
    if options.n_permutations:
        test_statistic.add(null)
    p_value, p_uncorrected = test_statistic.p_values()
    result = xr.Dataset(
        {
            "accuracy": ("layer", accuracy, _about("share of held-out stimuli decoded correctly")),
            "error": ("layer", np.sqrt(accuracy * (1 - accuracy) / held_out.sum()), _about("binomial standard error")),
            "interval_low": ("layer", low, _about("95 % Wilson interval, lower limit")),
            "interval_high": ("layer", high, _about("95 % Wilson interval, upper limit")),
            "p_value": ("layer", p_value, _about("p, corrected over layers (one-sided)")),
            "p_uncorrected": ("layer", p_uncorrected, _about("p, uncorrected (one-sided)")),
            "correct": (("layer", "stimulus"), correct, _about("1 where the held-out stimulus is decoded correctly")),
            "chance": ((), _chance(y[held_out]), _about("share of the most frequent class")),
        },
        coords={
            "layer": [layer.name for layer in chosen],
            "stimulus": np.array(stimuli),
            "label": ("stimulus", y),
            "fold": ("stimulus", where),
            "n_units": ("layer", np.array([layer.n_units for layer in chosen])),
        },
    )
    return describe(
        result,
        "decoding",
        options,
        {"source": opened.fingerprint(), "labels": fingerprint(y)},
        label=name,
        network=str(opened.attrs.get("network", opened.name)),
        classes=json.dumps(dict(zip(classes.tolist(), counts.tolist(), strict=True))),
        n_classes=len(classes),
        n_stimuli=len(y),
        n_held_out=int(held_out.sum()),
        classifier=options.classifier,
        splitting=_split_words(folds, by_group, by_split),
        n_permutations=options.n_permutations,
        seed=options.seed,
        test="none"
        if not options.n_permutations
        else (
            f"label permutation test within folds, one-sided, {options.n_permutations} permutations with the observed "
            f"labelling, maximum statistic over {len(chosen)} layers"
        ),
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _split(y: np.ndarray, groups: np.ndarray | None, split: np.ndarray | None, options: DecodingOptions) -> list[_Fold]:
    """The folds: given, stratified, or stratified with whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    n = len(y)
    if split is not None:
        unknown = sorted(set(split.tolist()) - {"train", "test"})
        if unknown:
            raise InputError(f"split holds {unknown[0]!r}; every stimulus is 'train' or 'test'")
        folds = [_Fold(np.flatnonzero(split == "train"), np.flatnonzero(split == "test"))]
        if not len(folds[0].train) or not len(folds[0].test):
            raise InputError("split: one of 'train' and 'test' has no stimuli; both are needed")
        if groups is not None and (torn := set(groups[folds[0].train].tolist()) & set(groups[folds[0].test].tolist())):
            raise InputError(f"the group {sorted(torn)[0]!r} is in both halves of the split; keep groups whole")
    else:
        classes, counts = np.unique(y, return_counts=True)
        if groups is None and counts.min() < options.folds:
            rare, fewest = str(classes[counts.argmin()]), int(counts.min())
            cure = f"use folds={fewest} or leave the class out" if fewest > 1 else "add stimuli or leave the class out"
            raise InputError(
                f"class {rare!r} has {fewest} stimuli, fewer than the {options.folds} folds, so "
                f"some folds would not test it; {cure}"
            )
        if groups is not None and len(np.unique(groups)) < options.folds:
            raise InputError(f"{len(np.unique(groups))} groups cannot fill {options.folds} folds; use fewer folds")
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        splitter = kind(n_splits=options.folds, shuffle=True, random_state=options.seed)
        folds = [_Fold(train, test) for train, test in splitter.split(np.zeros((n, 1)), y, groups)]
    for number, fold in enumerate(folds):
        absent = sorted(set(y[fold.test].tolist()) - set(y[fold.train].tolist()))
        if absent:
            raise InputError(
                f"class {absent[0]!r} is in the test part of fold {number} and not in its training part, so it could "
                "never be decoded; use more folds, other groups, or leave the class out"
            )
        if len(set(y[fold.train].tolist())) < 2:
            raise InputError(f"the training part of fold {number} holds one class only; use other groups or more folds")
    return folds


def _split_words(folds: list[_Fold], groups: np.ndarray | None, split: np.ndarray | None) -> str:
    """Say how stimuli were held out."""
    if split is not None:
        return f"fixed split, {len(folds[0].train)} to learn from and {len(folds[0].test)} held out"
    whole = f", {len(np.unique(groups))} groups kept whole" if groups is not None else ""
    return f"{len(folds)}-fold stratified crossvalidation{whole}"


def _shuffles(
    y: np.ndarray, where: np.ndarray, groups: np.ndarray | None, options: DecodingOptions
) -> list[np.ndarray]:
    """The labels as they are, then permuted.

    Labels move within folds only, so that every fold keeps its class counts: otherwise a class that is rare in training
    is frequent in test, and the null lies below chance. With groups that are of one class each, whole groups change
    class; with mixed groups labels move within groups.
    """
    count = max(1, options.n_permutations)
    homogeneous = groups is not None and all(len(np.unique(y[groups == group])) == 1 for group in np.unique(groups))
    shuffles = [y]
    for draw in range(1, count):
        random = generator(options.seed, draw, Stream.PERMUTATIONS)
        shuffled = y.copy()
        for part in np.unique(where):
            rows = np.flatnonzero(where == part)
            if groups is None:
                shuffled[rows] = y[random.permutation(rows)]
            elif homogeneous:
                names, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
                shuffled[rows] = y[rows[first]][random.permutation(len(names))][inverse]
            else:
                for group in np.unique(groups[rows]):
                    members = rows[groups[rows] == group]
                    shuffled[members] = y[random.permutation(members)]
        shuffles.append(shuffled)
    if count > 1 and all(np.array_equal(y, shuffled) for shuffled in shuffles):
        raise InputError(
            "permuting labels within folds and groups changes nothing, so there is no test; use n_permutations=0, "
            "fewer folds, or groups of mixed classes"
        )
    return shuffles


def _guess(train: np.ndarray, y: np.ndarray, test: np.ndarray, options: DecodingOptions) -> np.ndarray:
    """Fit the classifier and guess the held-out classes."""
    classifier: Any
    if options.classifier == "logistic":
        from sklearn.linear_model import LogisticRegression

        classifier = LogisticRegression(C=1 / options.penalty, max_iter=5000)
    elif options.classifier == "ridge":
        from sklearn.linear_model import RidgeClassifier

        classifier = RidgeClassifier(alpha=options.penalty)
    elif options.classifier == "svm":
        from sklearn.svm import SVC

        classifier = SVC(kernel="linear", C=1 / options.penalty)
    else:
        from sklearn.neighbors import NearestCentroid

        classifier = NearestCentroid()
    with warnings.catch_warnings():
        # Plain nearest means do not use the spreads that scikit-learn warns about.
        warnings.filterwarnings("ignore", message=".*within_class_std_dev_.*", category=UserWarning)
        return np.asarray(classifier.fit(train, y).predict(test))


def _coordinates(
    layer: Any, folds: list[_Fold], ids: list[str], options: DecodingOptions
) -> Iterator[tuple[_Fold, np.ndarray, np.ndarray]]:
    """Features of the training and of the held-out stimuli in each fold, at most as many as there are to learn from."""
    n, budget = len(ids), parse_bytes(options.memory)
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units to decode from; leave it out")
    if layer.n_units <= min(len(fold.train) for fold in folds):
        values = np.concatenate(list(_blocks(layer, max(budget // 4, 8 * n), ids)), axis=1)
        for fold in folds:
            scaled = _standardise(values, fold.train) / np.sqrt(layer.n_units)
            yield fold, scaled[fold.train], scaled[fold.test]
        return
    # Every fold has its own scaling, hence its own products; as many folds share one reading as fit in memory.
    one = 8 * n * max(len(fold.train) for fold in folds)
    least = 8 * n
    together = min(len(folds), int((budget - 6 * least) // (2 * one)))
    if together < 1:
        raise InputError(
            f"memory={options.memory!r} is too small for layer {layer.name!r} with {n} stimuli: products and one block "
            f"need {format_bytes(2 * one + 6 * least)}; give at least that much"
        )
    for start in range(0, len(folds), together):
        now = folds[start : start + together]
        products = [np.zeros((n, len(fold.train))) for fold in now]
        for block in _blocks(layer, max(least, (budget - 2 * one * together) // 6), ids):
            for fold, product in zip(now, products, strict=True):
                scaled = _standardise(block, fold.train)
                product += scaled @ scaled[fold.train].T
        for fold, product in zip(now, products, strict=True):
            yield fold, *_row_space(product / layer.n_units, fold)


def _blocks(layer: Any, most: int, ids: list[str]) -> Iterator[np.ndarray]:
    """Blocks of units in float64, checked."""
    for block in layer.blocks(most):
        host = block.detach().cpu().numpy() if hasattr(block, "detach") else block
        values = np.asarray(host, dtype=np.float64)
        if not np.isfinite(values).all():
            bad = ids[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            raise InputError(
                f"layer {layer.name!r} holds NaN or infinite activations (stimulus {bad!r}), which no classifier can "
                "use; record the layer again in float32, or leave these stimuli out"
            )
        yield values


def _standardise(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Units with mean 0 and variance 1 over the training stimuli; constant ones become 0 there."""
    mean = values[train].mean(axis=0)
    centred = values - mean
    scale = np.sqrt(np.mean(centred[train] ** 2, axis=0))
    # A spread of a few rounding steps is none: dividing by it would blow rounding errors up to signals.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean) * np.sqrt(len(train))
    centred /= np.where(constant, 1.0, scale)
    centred[:, constant] = 0.0
    return centred


def _row_space(product: np.ndarray, fold: _Fold) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from inner products with the training patterns ``(n, train)``; held-out rows are projected."""
    values, vectors = np.linalg.eigh(product[fold.train])
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps if values[-1] > 0 else values > np.inf
    if not kept.any():  # a layer that is constant over the training stimuli
        return np.zeros((len(fold.train), 1)), np.zeros((len(fold.test), 1))
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, product[fold.test] @ vectors[:, kept] / root


def _chance(y: np.ndarray) -> float:
    """Share of the most frequent class."""
    return float(np.unique(y, return_counts=True)[1].max() / len(y))


def _wilson(accuracy: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Wilson score interval of a proportion."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(np.rint(accuracy * n), n, alpha=1 - _LEVEL, method="wilson")
    return np.asarray(low), np.asarray(high)


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
