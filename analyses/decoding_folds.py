"""Parts of decoding: folds, permuted labels, renamed classes, and a layer's coordinates in each fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actkit.analyses.classifiers import scaled
from actkit.analyses.source import Layer
from actkit.compute import format_bytes
from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = [
    "Fold",
    "check_conditions",
    "columns_of",
    "coordinates",
    "deal",
    "renamed",
    "row_space",
    "shuffled_labels",
    "split_by_column",
    "wilson",
    "within_across",
]

_LEVEL = 0.95


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows held out.

    Attributes
    ----------
    train, test : numpy.ndarray of int
        Row numbers.
    """

    train: np.ndarray
    test: np.ndarray


def split_by_column(split: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Turn a column of ``"train"`` and ``"test"`` into fold numbers.

    Parameters
    ----------
    split : numpy.ndarray of str
        One word a stimulus.
    groups : numpy.ndarray of str, optional
        Groups that must not be torn.

    Returns
    -------
    numpy.ndarray of int
        0 for the held-out stimuli, −1 for those to learn from.

    Raises
    ------
    InputError
        If another word stands there, one of the two is missing, or a group is in both.
    """
    if unknown := sorted(set(split.tolist()) - {"train", "test"}):
        raise InputError(f"split holds {unknown[0]!r}; every stimulus is 'train' or 'test'")
    test = split == "test"
    if test.all() or not test.any():
        raise InputError("split: one of 'train' and 'test' has no stimuli; both are needed")
    if groups is not None and (torn := set(groups[test].tolist()) & set(groups[~test].tolist())):
        raise InputError(f"the group {sorted(torn)[0]!r} is in both halves of the split; keep groups whole")
    return np.where(test, 0, -1)


def deal(y: np.ndarray, where: np.ndarray | None, groups: np.ndarray | None, folds: int, state: int) -> np.ndarray:
    """Deal stimuli to folds, classes (in every condition, where there are enough) in equal shares, groups whole.

    Parameters
    ----------
    y : numpy.ndarray of str
        The class of each stimulus.
    where : numpy.ndarray of str, optional
        Its condition.
    groups : numpy.ndarray of str, optional
        Its group.
    folds : int
        How many.
    state : int
        Seed of scikit-learn's shuffle.

    Returns
    -------
    numpy.ndarray of int
        The fold of each stimulus.

    Raises
    ------
    InputError
        If a class has fewer stimuli, or there are fewer groups, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    n = len(y)
    fold = np.empty(n, dtype=np.int64)
    if groups is not None:
        if len(np.unique(groups)) < folds:
            raise InputError(f"{len(np.unique(groups))} groups cannot fill {folds} folds; use fewer folds")
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(np.zeros((n, 1)), y, groups)
    else:
        classes, counts = np.unique(y, return_counts=True)
        if counts.min() < folds:
            rare, fewest = str(classes[counts.argmin()]), int(counts.min())
            cure = f"use folds={fewest} or leave the class out" if fewest > 1 else "add stimuli or leave the class out"
            raise InputError(
                f"class {rare!r} has {fewest} stimuli, fewer than the {folds} folds, so some folds would not test it; "
                f"{cure}"
            )
        column = y
        if where is not None:
            strata = np.unique(np.char.add(np.char.add(y, "\0"), where), return_inverse=True)[1]
            column = strata if np.bincount(strata).min() >= folds else y
        parts = StratifiedKFold(folds, shuffle=True, random_state=state).split(np.zeros((n, 1)), column)
    for number, (_, test) in enumerate(parts):
        fold[test] = number
    return fold


def shuffled_labels(
    y: np.ndarray, parts: np.ndarray, groups: np.ndarray | None, random: np.random.Generator
) -> np.ndarray:
    """Permute labels within parts, so that each keeps its class counts.

    With groups that are of one class each, whole groups change class; with mixed groups labels move within groups.

    Parameters
    ----------
    y : numpy.ndarray
        The class of each stimulus.
    parts : numpy.ndarray
        The part of each stimulus.
    groups : numpy.ndarray, optional
        Its group.
    random : numpy.random.Generator
        Where the permutation comes from.

    Returns
    -------
    numpy.ndarray
        The classes, permuted.
    """
    homogeneous = groups is not None and all(len(np.unique(y[groups == group])) == 1 for group in np.unique(groups))
    shuffled = y.copy()
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        if groups is None:
            shuffled[rows] = y[random.permutation(rows)]
        elif homogeneous:
            names, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
            shuffled[rows] = y[rows[first]][random.permutation(len(names))][inverse]
        else:
            for group in np.unique(groups[rows]):
                members = rows[groups[rows] == group]
                shuffled[members] = y[random.permutation(members)]
    return shuffled


def renamed(counts: np.ndarray, n_draws: int, seed: int, pooled: bool = False) -> np.ndarray:
    """Accuracy across conditions with the classes' names permuted in each condition, from confusion counts alone.

    Renaming a condition's classes leaves all that can be decoded within it, and takes away that classes correspond
    between conditions: the null of "no shared code". Classifiers do not care what classes are called, so that nothing
    is fitted again.

    Parameters
    ----------
    counts : numpy.ndarray, shape (…, train, test, n_classes, n_classes)
        Held-out samples by condition trained on, condition tested, class and response.
    n_draws : int
        Drawings of names; the first keeps them all.
    seed : int
        Seed of the drawings.
    pooled : bool
        Whether conditions are trained on together, so that only the tested one is renamed.

    Returns
    -------
    numpy.ndarray, shape (n_draws, …, train, test)
        Share decoded correctly by the names of each draw.
    """
    *_, n_train, n_test, n_classes, _ = counts.shape
    total = counts.sum(axis=(-1, -2))
    accuracy = np.empty((n_draws, *counts.shape[:-2]))
    own = np.arange(n_classes)
    for draw in range(n_draws):
        random = generator(seed, draw, Stream.SUBJECTS)
        names = [random.permutation(n_classes) if draw else own for _ in range(n_test)]
        for a in range(n_train):
            given = own if pooled else names[a]
            for b in range(n_test):
                hits = counts[..., a, b, np.argsort(names[b]), np.argsort(given)].sum(axis=-1)
                accuracy[draw, ..., a, b] = hits / total[..., a, b]
    return accuracy


def within_across(counts: np.ndarray) -> np.ndarray:
    """Accuracy within conditions (over all samples) and across them (mean over pairs; NaN for one condition).

    Parameters
    ----------
    counts : numpy.ndarray, shape (n_conditions, n_conditions, n_classes, n_classes)
        Held-out samples by condition trained on, condition tested, class and response.

    Returns
    -------
    numpy.ndarray, shape (2,)
        Both accuracies.
    """
    right, total = np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-1, -2))
    own = np.eye(len(counts), dtype=bool)
    across = float((right[~own] / total[~own]).mean()) if len(counts) > 1 else np.nan
    return np.array([right[own].sum() / total[own].sum(), across])


def check_conditions(y: np.ndarray, place: np.ndarray) -> None:
    """Refuse a class that a condition lacks.

    Parameters
    ----------
    y, place : numpy.ndarray of str
        Class and condition of each stimulus.

    Raises
    ------
    InputError
        If there is one.
    """
    classes = set(y.tolist())
    for one in np.unique(place):
        if absent := sorted(classes - set(y[place == one].tolist())):
            raise InputError(
                f"class {absent[0]!r} does not occur in condition {str(one)!r}, so no accuracy there compares with the "
                "others; leave the class or the condition out"
            )


def wilson(share: np.ndarray, n: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson score interval of proportions.

    Parameters
    ----------
    share : numpy.ndarray
        Shares of right guesses.
    n : int or numpy.ndarray
        Of how many.

    Returns
    -------
    low, high : numpy.ndarray
        The limits.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(np.rint(share * n), n, alpha=1 - _LEVEL, method="wilson")
    return np.asarray(low), np.asarray(high)


def columns_of(layer: Layer, units: np.ndarray, memory: int, ids: list[str]) -> np.ndarray:
    """Read some units of a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    units : numpy.ndarray of int
        Which, in any order.
    memory : int
        Bytes that blocks may take.
    ids : list of str
        The stimuli, for messages.

    Returns
    -------
    numpy.ndarray of float64, shape (n_stimuli, len(units))
        Their activations.

    Raises
    ------
    InputError
        If activations are NaN or infinite.
    """
    values, start = np.empty((len(ids), len(units))), 0
    for block in _blocks(layer, max(memory, 8 * len(ids)), ids):
        inside = np.flatnonzero((units >= start) & (units < start + block.shape[1]))
        values[:, inside] = block[:, units[inside] - start]
        start += block.shape[1]
    return values


def coordinates(
    layer: Layer, folds: Sequence[Fold], ids: list[str], memory: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Features of the training and of the held-out stimuli in each fold, at most as many as there are to learn from.

    Parameters
    ----------
    layer : Layer
        The layer.
    folds : sequence of Fold
        Rows to learn from and rows held out.
    ids : list of str
        The stimuli, for messages.
    memory : int
        Bytes that blocks and products may take.

    Yields
    ------
    tuple
        The fold's number, training features and held-out features, standardised by the training stimuli.

    Raises
    ------
    InputError
        If the layer has no units, activations are NaN or infinite, or memory is too small.
    """
    n = len(ids)
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units to decode from; leave it out")
    if layer.n_units <= min(len(fold.train) for fold in folds):
        values = np.concatenate(list(_blocks(layer, max(memory // 4, 8 * n), ids)), axis=1)
        for number, fold in enumerate(folds):
            z = scaled(values, fold.train) / np.sqrt(layer.n_units)
            yield number, z[fold.train], z[fold.test]
        return
    # Every fold has its own scaling, hence its own products; as many folds share one reading as fit in memory.
    one = 8 * n * max(len(fold.train) for fold in folds)
    least = 8 * n
    together = min(len(folds), int((memory - 6 * least) // (2 * one)))
    if together < 1:
        raise InputError(
            f"memory={format_bytes(memory)} is too small for layer {layer.name!r} with {n} stimuli: products and one "
            f"block need {format_bytes(2 * one + 6 * least)}; give at least that much"
        )
    for start in range(0, len(folds), together):
        now = folds[start : start + together]
        products = [np.zeros((n, len(fold.train))) for fold in now]
        for block in _blocks(layer, max(least, (memory - 2 * one * together) // 6), ids):
            for fold, product in zip(now, products, strict=True):
                z = scaled(block, fold.train)
                product += z @ z[fold.train].T
        for number, (fold, product) in enumerate(zip(now, products, strict=True), start):
            yield number, *row_space(product / layer.n_units, fold)


def _blocks(layer: Layer, most: int, ids: list[str]) -> Iterator[np.ndarray]:
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


def row_space(product: np.ndarray, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Turn inner products with the training patterns into coordinates.

    Parameters
    ----------
    product : numpy.ndarray, shape (n_stimuli, n_train)
        Inner products of all patterns with the training patterns.
    fold : Fold
        Which rows are learnt from and which are held out.

    Returns
    -------
    train, test : numpy.ndarray, shape (n_train, rank) and (n_test, rank)
        Coordinates in the row space of the training patterns; held-out patterns are projected on it.
    """
    values, vectors = np.linalg.eigh(product[fold.train])
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps if values[-1] > 0 else values > np.inf
    if not kept.any():  # a layer that is constant over the training stimuli
        return np.zeros((len(fold.train), 1)), np.zeros((len(fold.test), 1))
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, product[fold.test] @ vectors[:, kept] / root
