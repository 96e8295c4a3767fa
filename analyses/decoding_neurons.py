"""Decoding from neurons: labels read from trials or averages, across conditions, and by the number of neurons."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.source import label_column
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings_neurons import average, has_repetitions, validate_responses
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

NeuronClassifier = Literal["svm", "logistic", "ridge", "lda", "nearest_centroid"]


class NeuronDecodingOptions(Options):
    """Options of :func:`decode_neurons`."""

    classifier: NeuronClassifier = Field(
        "svm",
        description="Linear classifier: support vector machine (one against one), multinomial logistic regression, "
        "ridge regression on class codes, linear discriminant analysis with Ledoit-Wolf shrinkage, or nearest class "
        "mean.",
    )
    penalty: float = Field(
        1.0,
        gt=0,
        description="L2 penalty: ridge's alpha, and 1/C of logistic regression and the support vector machine; the "
        "others have none.",
    )
    hold_out: Literal["repetition", "stimulus"] = Field(
        "repetition",
        description="What training never sees: other presentations of the same stimuli (classes are the stimuli "
        "themselves), or other stimuli, averaged over their presentations (classes are categories).",
    )
    trials: Literal["pseudo", "simultaneous"] = Field(
        "pseudo",
        description="With hold_out='repetition': each neuron's presentations are shuffled by themselves (neurons "
        "recorded one after another), or presentations stay whole, and those that lack a neuron are left out.",
    )
    train_on: Literal["one", "others"] = Field(
        "one",
        description="With conditions: train in each one and test in each, or test in each and train in all others "
        "together (and, for comparison, in the same one).",
    )
    standardise: Literal["training", "condition"] = Field(
        "training",
        description="Whose mean and standard deviation scale the neurons: those of the samples trained on, or each "
        "condition's own, of its samples outside the held-out fold (no labels are used), which takes away shifts and "
        "gains between conditions.",
    )
    folds: int = Field(5, ge=2, description="Parts into which presentations or stimuli are split.")
    sizes: list[int] | None = Field(
        None, description="Numbers of neurons, for a curve: each draw takes random ones; all neurons by default."
    )
    n_draws: int = Field(10, ge=1, description="Draws of pseudo-trials, folds and neurons.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of the draws.")


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
        With held-out stimuli: stimuli of one group (the same photograph, the same identity) are never split.

    Returns
    -------
    xarray.Dataset
        Dims size, draw, train, test, truth, response: ``accuracy`` (size, draw, train, test) over the held-out samples;
        ``mean`` and ``spread`` (size, train, test), their mean and standard deviation over draws (how much draws
        differ, no standard error over neurons or stimuli); ``within`` and ``across`` (size), the mean where train and
        test are the same condition or different ones (NaN without conditions); ``confusion`` (train, test, truth,
        response), the share of the held-out samples of a class that were given each response, all neurons (the
        largest size); ``chance``, the share of the most frequent class. With ``train_on="others"``, train is
        ``same`` or ``others``.

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
    where = np.full(len(y), "all")
    if condition is not None:
        where = label_column(condition, "condition", stimuli, columns)[1]
    by_group = None if groups is None else label_column(groups, "groups", stimuli, columns)[1]
    classes, conditions = np.unique(y), np.unique(where)
    _check(y, where, by_group, options)
    n_neurons = recording.sizes["neuron"]
    sizes = sorted(set(options.sizes or [n_neurons]))
    if sizes[0] < 1 or sizes[-1] > n_neurons:
        bad = sizes[0] if sizes[0] < 1 else sizes[-1]
        raise InputError(f"sizes holds {bad}, and the recording has {n_neurons} neurons; give 1 to {n_neurons}")
    values = _values(recording, options)

    sources = ["same", "others"] if options.train_on == "others" else conditions.tolist()
    shape = (len(sources), len(conditions), len(classes), len(classes))
    counts = np.zeros((len(sizes), options.n_draws, *shape), dtype=np.int64)
    truth, place = np.searchsorted(classes, y), np.searchsorted(conditions, where)
    for draw in range(options.n_draws):
        random = generator(options.seed, draw, Stream.PERMUTATIONS)
        x, row, fold = _samples(values, y, where, by_group, random, options)
        order = random.permutation(n_neurons)  # nested: a larger population holds the smaller one
        for position, size in enumerate(sizes):
            chosen = np.sort(order[:size])
            counts[position, draw] = _counts(x[:, chosen], truth[row], place[row], fold, shape, options)
    total = counts.sum(axis=(-1, -2))
    accuracy = np.trace(counts, axis1=-2, axis2=-1) / total
    mean, confusion = accuracy.mean(axis=1), counts[-1].sum(axis=0)
    own = np.eye(len(conditions), dtype=bool) if options.train_on == "one" else np.array([[True], [False]])
    own = np.broadcast_to(own, mean.shape[1:])
    spread = accuracy.std(axis=1, ddof=1) if options.n_draws > 1 else np.full_like(mean, np.nan)
    pair = ("size", "train", "test")
    result = xr.Dataset(
        {
            "accuracy": (("size", "draw", "train", "test"), accuracy, _about("share decoded correctly")),
            "mean": (pair, mean, _about("mean share decoded correctly")),
            "spread": (pair, spread, _about("standard deviation over draws")),
            "within": ("size", mean[:, own].mean(axis=1), _about("accuracy within conditions")),
            "across": (
                "size",
                mean[:, ~own].mean(axis=1) if len(conditions) > 1 else np.full(len(sizes), np.nan),
                _about("accuracy across conditions"),
            ),
            "confusion": (
                ("train", "test", "truth", "response"),
                confusion / confusion.sum(axis=-1, keepdims=True),
                _about("share of the samples of a class"),
            ),
            "chance": ((), _most(truth, place), _about("share of the most frequent class")),
        },
        coords={"size": sizes, "train": sources, "test": conditions, "truth": classes, "response": classes},
    )
    return describe(
        result,
        "decoding_neurons",
        options,
        {"responses": fingerprint(recording), "labels": fingerprint(y), "condition": fingerprint(where)},
        label=name,
        recording=str(recording.attrs.get("name") or recording.name or "recording"),
        classifier=options.classifier,
        n_neurons=n_neurons,
        n_stimuli=len(y),
        n_samples=int(total[0, 0].sum() // len(sources)),
        seed=options.seed,
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _most(truth: np.ndarray, place: np.ndarray) -> float:
    """Share of the most frequent class, at most over conditions."""
    shares = [np.bincount(truth[place == c]).max() / (place == c).sum() for c in np.unique(place)]
    return float(max(shares))


def _check(y: np.ndarray, where: np.ndarray, groups: np.ndarray | None, options: NeuronDecodingOptions) -> None:
    """Refuse labels and conditions that leave nothing to decode."""
    classes, conditions = np.unique(y), np.unique(where)
    if len(classes) < 2:
        raise InputError(
            f"all {len(y)} stimuli are {str(classes[0])!r}, so there is nothing to decode; give two classes"
        )
    for one in conditions:
        if absent := sorted(set(classes.tolist()) - set(y[where == one].tolist())):
            raise InputError(
                f"class {absent[0]!r} does not occur in condition {str(one)!r}, so no accuracy there compares with the "
                "others; leave the class or the condition out"
            )
    if options.train_on == "others" and len(conditions) < 2:
        raise InputError("train_on='others' needs two conditions or more; give condition=…")
    if groups is not None and options.hold_out == "repetition":
        raise InputError("groups keep stimuli together, and presentations are held out; use hold_out='stimulus'")
    if options.hold_out == "stimulus":
        units = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        for one in classes:
            n = len(np.unique(units[y == one]))
            if n < options.folds:
                raise InputError(
                    f"class {str(one)!r} has {n} {'groups' if groups is not None else 'stimuli'}, fewer than the "
                    f"{options.folds} folds; use fewer folds, or leave the class out"
                )


def _values(recording: xr.DataArray, options: NeuronDecodingOptions) -> np.ndarray:
    """Responses as an array: (stimulus, repetition, neuron), or averages with one repetition."""
    if options.hold_out == "stimulus":
        mean = average(recording).values if has_repetitions(recording) else recording.values
        if np.isnan(mean).any():
            s, k = np.argwhere(np.isnan(mean))[0]
            raise InputError(
                f"neuron {str(recording['neuron'].values[k])!r} has no response to the stimulus "
                f"{str(recording['stimulus'].values[s])!r}; leave out one of them"
            )
        return np.asarray(mean[:, None])
    if not has_repetitions(recording):
        raise InputError(
            "this recording has averages alone, so no presentation can be held out; use hold_out='stimulus'"
        )
    values = recording.values
    known = ~np.isnan(values)
    if options.trials == "simultaneous":
        known = np.broadcast_to(known.all(axis=2, keepdims=True), values.shape)
        values = np.where(known, values, np.nan)
    fewest = known.sum(axis=1)
    if fewest.min() < options.folds:
        s, k = np.unravel_index(int(fewest.argmin()), fewest.shape)
        raise InputError(
            f"the stimulus {str(recording['stimulus'].values[s])!r} has {int(fewest.min())} usable presentations "
            f"(neuron {str(recording['neuron'].values[k])!r}), fewer than the {options.folds} folds; use "
            "fewer folds, or leave out the neuron or the stimulus"
        )
    return np.asarray(values)


def _samples(
    values: np.ndarray,
    y: np.ndarray,
    where: np.ndarray,
    groups: np.ndarray | None,
    random: np.random.Generator,
    options: NeuronDecodingOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of one draw ``(samples, neurons)``, the stimulus of each, and its fold."""
    n, _, p = values.shape
    if options.hold_out == "repetition":
        missing = np.isnan(values)
        m = int((~missing).sum(axis=1).min())
        width = 1 if options.trials == "simultaneous" else p
        keys = random.random((n, values.shape[1], width))
        keys = np.where(missing[:, :, :width], np.inf, keys)  # simultaneous: presentations are missing for all neurons
        order = np.argsort(keys, axis=1)[:, :m]
        taken = np.take_along_axis(values, np.broadcast_to(order, (n, m, p)), axis=1)
        return taken.reshape(n * m, p), np.repeat(np.arange(n), m), np.tile(np.arange(m) % options.folds, n)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    state = int(random.integers(2**31))
    fold = np.empty(n, dtype=np.int64)
    if groups is None:
        strata = np.unique(np.char.add(np.char.add(y, "\0"), where), return_inverse=True)[1]
        # Classes in equal shares in every condition, where stimuli are many enough.
        column = strata if np.bincount(strata).min() >= options.folds else y
        parts = StratifiedKFold(options.folds, shuffle=True, random_state=state).split(np.zeros((n, 1)), column)
    else:
        parts = StratifiedGroupKFold(options.folds, shuffle=True, random_state=state).split(np.zeros((n, 1)), y, groups)
    for number, (_, test) in enumerate(parts):
        fold[test] = number
    return values[:, 0], np.arange(n), fold


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


def standardised(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scale neurons to mean 0 and variance 1 over the training samples, and divide by √(number of neurons).

    Parameters
    ----------
    x : numpy.ndarray, shape (n_samples, n_neurons)
        Responses.
    train : numpy.ndarray of bool, shape (n_samples,)
        Which samples the mean and the standard deviation are taken from.

    Returns
    -------
    numpy.ndarray, shape (n_samples, n_neurons)
        All samples, scaled; neurons that are constant over the training samples are 0.
    """
    mean = x[train].mean(axis=0)
    centred = x - mean
    scale = np.sqrt(np.mean(centred[train] ** 2, axis=0))
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean) * np.sqrt(train.sum())
    centred /= np.where(constant, 1.0, scale) * np.sqrt(x.shape[1])
    centred[:, constant] = 0.0
    return centred


def classify(
    train: np.ndarray, classes: np.ndarray, test: np.ndarray, classifier: NeuronClassifier, penalty: float = 1.0
) -> np.ndarray:
    """Fit a linear classifier and guess the classes of other samples.

    Parameters
    ----------
    train : numpy.ndarray, shape (n_train, n_neurons)
        Samples to learn from.
    classes : numpy.ndarray, shape (n_train,)
        Their classes.
    test : numpy.ndarray, shape (n_test, n_neurons)
        Samples to guess.
    classifier : {"svm", "logistic", "ridge", "lda", "nearest_centroid"}
        The classifier.
    penalty : float
        L2 penalty, as in :class:`NeuronDecodingOptions`.

    Returns
    -------
    numpy.ndarray, shape (n_test,)
        The classes guessed.
    """
    model: Any
    if classifier == "svm":
        from sklearn.svm import SVC

        model = SVC(kernel="linear", C=1 / penalty)
    elif classifier == "logistic":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / penalty, max_iter=5000)
    elif classifier == "ridge":
        from sklearn.linear_model import RidgeClassifier

        model = RidgeClassifier(alpha=penalty)
    elif classifier == "lda":
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    else:
        from sklearn.neighbors import NearestCentroid

        model = NearestCentroid()
    with warnings.catch_warnings():
        # Plain nearest means do not use the spreads that scikit-learn warns about.
        warnings.filterwarnings("ignore", message=".*within_class_std_dev_.*", category=UserWarning)
        return np.asarray(model.fit(train, classes).predict(test))
