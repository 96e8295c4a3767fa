"""Transfer by matched populations: a classifier that has seen model units alone reads a label from the neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.classifiers import ABOUT, PENALTY, Classifier, classify, scaled
from actkit.analyses.decoding_folds import wilson
from actkit.analyses.neuron_inputs import read_responses, recorded_rows
from actkit.analyses.source import Layer, choose_layers, label_column, open_source
from actkit.analyses.unit_matching_kernel import read_units
from actkit.compute import parse_bytes
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TransferOptions", "plot", "transfer", "without_category_means"]

_TESTED = ("transfer", "units", "neurons")
_CONTROLS = ("labels", "match", "random")


class TransferOptions(Options):
    """Options of :func:`transfer`."""

    layers: list[str] | None = Field(None, description="Layers of the match to use; all by default.")
    classifier: Classifier = Field("svm", description=ABOUT)
    penalty: float = Field(1.0, gt=0, description=PENALTY)
    n_permutations: int = Field(99, ge=1, description="Draws of each of the three controls, beside the observed value.")
    sizes: list[int] | None = Field(
        None, description="Numbers of neurons, for a curve: each draw takes random ones; no curve by default."
    )
    n_draws: int = Field(10, ge=1, description="Draws of neurons for each point of the curve.")
    memory: str = Field("1GB", description="Most memory to use for blocks of units, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of controls and draws.")


@with_options(TransferOptions)
def transfer(
    match: xr.Dataset,
    source: Any,
    responses: Any,
    labels: Any,
    ids: Sequence[Any] | np.ndarray | None = None,
    *,
    options: TransferOptions,
) -> xr.Dataset:
    """Train a classifier on the matched units of a layer, and test it on the neurons they were matched with.

    The folds are those of the match: in each, units were chosen and the classifier is trained on the training stimuli,
    and the neurons' responses to the held-out stimuli take the places of their units. Units and neurons are each scaled
    by their own mean and standard deviation over the training stimuli. Neurons without a unit in a fold are left out
    there.

    Three controls: with the training labels permuted, accuracy is at chance unless labels leak; with the match permuted
    (neurons take the places of one another's units), it is what remains without a correspondence of single units,
    such as categories that all units distinguish alike; with as many units drawn at random from the rest of the layer,
    it is what remains without a match.

    Parameters
    ----------
    match : xarray.Dataset
        What :func:`actkit.analyses.unit_matching.match_units` returned.
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        The units that were matched.
    responses : xarray.DataArray or numpy.ndarray
        The neurons that were matched.
    labels : str, sequence or mapping
        What to decode: a coord of the responses, one label for each of the match's stimuli, or a mapping of id to
        label.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.

    Returns
    -------
    xarray.Dataset
        ``transfer`` (layer), share of held-out stimuli decoded from the neurons by the units' classifier; ``units``,
        ``neurons``: the same when trained and tested on units, or on neurons (the same in every layer but for neurons
        left out). For each of these three (dim tested): ``interval_low``, ``interval_high``, 95 % Wilson intervals over
        the held-out stimuli; ``balanced``, the mean over classes of the share decoded; ``confusion`` (layer, tested,
        shown, decoded), shares of the stimuli of a class. ``null_labels``, ``null_match``, ``null_random`` (layer,
        permutation): transfer under the controls; ``p_labels``, ``p_match``, ``p_random`` (layer): one-sided, the
        observed value included, uncorrected; ``chance``. With sizes: ``curve`` and ``curve_neurons`` (layer, size,
        draw), transfer and decoding by neurons with so many of them.

    Raises
    ------
    InputError
        If the match is none, was of other neurons, stimuli or layers, or a class is missing in a training fold.

    References
    ----------
    Arend et al. (2018), Single units in a deep neural network functionally correspond with neurons in the brain.
    """
    if not {"unit", "fold_of_stimulus"} <= set(match.variables):
        raise InputError("match holds no units and folds; give what match_units() returned")
    stimuli = [str(value) for value in match["stimulus"].values]
    opened = open_source(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    matched = [str(value) for value in match["layer"].values]
    if options.layers is None:
        chosen = [layer for layer in chosen if layer.name in matched]
    if unknown := [layer.name for layer in chosen if layer.name not in matched] or ([] if chosen else ["(all)"]):
        raise InputError(
            f"layer {unknown[0]!r} of the source is not in the match, which is of {matched}; match it first"
        )
    recorded = read_responses(responses, [str(value) for value in opened.ids])
    neurons = [str(value) for value in match["neuron"].values]
    if recorded.neurons != neurons:
        raise InputError(
            f"the match is of {len(neurons)} neurons ({neurons[0]!r} …), and the responses are of "
            f"{len(recorded.neurons)} ({recorded.neurons[0]!r} …); give the neurons that were matched, in their order"
        )
    if lacking := sorted(set(stimuli) - set(recorded.ids)):
        raise InputError(
            f"the responses lack {len(lacking)} stimuli of the match, the first is {lacking[0]!r}; give all"
        )
    place = {value: k for k, value in enumerate(recorded.ids)}
    own = np.array([place[value] for value in stimuli])
    y_neurons = recorded.values[own]
    name, y = label_column(labels, "labels", stimuli, {key: column[own] for key, column in recorded.columns.items()})
    fold = match["fold_of_stimulus"].values
    for number in np.unique(fold):
        if absent := sorted(set(y[fold == number].tolist()) - set(y[fold != number].tolist())):
            raise InputError(
                f"class {absent[0]!r} is in fold {int(number)} alone, so it cannot be learnt; leave it out"
            )
    if len(np.unique(y)) < 2:
        raise InputError(f"all {len(y)} stimuli are {str(y[0])!r}, so there is nothing to decode; give two classes")

    rows = recorded_rows(opened.ids, stimuli)
    sizes = sorted(set(options.sizes or []))
    if sizes and (sizes[0] < 1 or sizes[-1] > len(neurons)):
        bad = sizes[0] if sizes[0] < 1 else sizes[-1]
        raise InputError(f"sizes holds {bad}, and the match is of {len(neurons)} neurons; give 1 to {len(neurons)}")
    classes, truth = np.unique(y, return_inverse=True)
    counts, null, curves = [], [], []
    for layer in chosen:
        units = match["unit"].sel(layer=layer.name).transpose("neuron", "fold").values
        one = _LayerTransfer(layer, rows, units, y_neurons, truth, fold, options)
        counts.append(one.confusions())
        null.append(one.controls())
        curves.append(one.curve(sizes))
    confusion = np.stack(counts).astype(np.float64)  # (layer, tested, shown, decoded)
    scores = np.trace(confusion, axis1=-2, axis2=-1) / len(y)
    shares = confusion / confusion.sum(axis=-1, keepdims=True)
    low, high = wilson(scores, len(y))
    nulls = np.stack(null) / len(y)  # (layer, control, draw)
    p = (1 + (nulls >= scores[:, :1, None] - 1e-12).sum(axis=2)) / (1 + options.n_permutations)
    control = ("permuted training labels", "a permuted match", "random units of the layer")
    each = ("layer", "tested")
    data: dict[str, Any] = {
        "transfer": ("layer", scores[:, 0], _about("share decoded, trained on units and tested on neurons")),
        "units": ("layer", scores[:, 1], _about("share decoded, trained and tested on units")),
        "neurons": ("layer", scores[:, 2], _about("share decoded, trained and tested on neurons")),
        "interval_low": (each, low, _about("95 % Wilson interval, lower limit")),
        "interval_high": (each, high, _about("95 % Wilson interval, upper limit")),
        "balanced": (each, np.trace(shares, axis1=-2, axis2=-1) / len(classes), _about("mean share over classes")),
        "confusion": ((*each, "shown", "decoded"), shares, _about("share of the stimuli of a class")),
        "chance": ((), float(np.bincount(truth).max() / len(y)), _about("most frequent class")),
    }
    for k, name_of in enumerate(_CONTROLS):
        words = f"transfer with {control[k]}"
        data[f"null_{name_of}"] = (("layer", "permutation"), nulls[:, k], _about(words))
        data[f"p_{name_of}"] = ("layer", p[:, k], _about(f"p against {control[k]} (one-sided)"))
    coords: dict[str, Any] = {
        "layer": [layer.name for layer in chosen],
        "tested": list(_TESTED),
        "shown": classes,
        "decoded": classes,
    }
    if sizes:
        drawn = np.stack(curves) / len(y)
        coords["size"] = sizes
        data["curve"] = (("layer", "size", "draw"), drawn[:, 0], _about("transfer to so many neurons"))
        data["curve_neurons"] = (("layer", "size", "draw"), drawn[:, 1], _about("decoding by so many neurons"))
    result = xr.Dataset(data, coords)
    return describe(
        result,
        "matched_transfer",
        options,
        {"source": opened.fingerprint(), "responses": fingerprint(y_neurons), "labels": fingerprint(y)},
        label=name,
        classifier=options.classifier,
        network=str(opened.attrs.get("network", opened.name)),
        n_classes=len(classes),
        n_folds=len(np.unique(fold)),
        n_permutations=options.n_permutations,
        recording=recorded.name,
        n_neurons=len(neurons),
        n_stimuli=len(y),
        seed=options.seed,
    )


class _LayerTransfer:
    """One layer: matched units and neurons, fold by fold, and what is trained and tested on them."""

    def __init__(
        self,
        layer: Layer,
        rows: np.ndarray,
        units: np.ndarray,
        neurons: np.ndarray,
        truth: np.ndarray,
        fold: np.ndarray,
        options: TransferOptions,
    ) -> None:
        self.layer, self.rows, self.units, self.truth = layer, rows, units, truth
        self.fold, self.options, self.numbers = fold, options, np.unique(fold)
        self.parts = []
        activations = read_units(layer, rows, units, parse_bytes(options.memory))  # (neuron, fold, stimulus)
        for number in self.numbers:
            train, kept = fold != number, np.flatnonzero(units[:, number] >= 0)
            if not len(kept):
                raise InputError(f"no neuron has a unit of layer {layer.name!r} in fold {int(number)}; leave it out")
            a, b = scaled(activations[kept, number].T, train), scaled(neurons[:, kept], train)
            self.parts.append((train, kept, a, b))

    def guess(self, learnt: np.ndarray, train: np.ndarray, y: np.ndarray, tested: np.ndarray) -> np.ndarray:
        """Classes of patterns, learnt from the training rows of others."""
        width, options = np.sqrt(learnt.shape[1]), self.options
        return classify(learnt[train] / width, y, tested / width, options.classifier, options.penalty)

    def confusions(self) -> np.ndarray:
        """Held-out stimuli by class and response, for transfer, units and neurons ``(3, classes, classes)``."""
        n = self.truth.max() + 1
        counts = np.zeros((3, n, n), dtype=np.int64)
        for train, _, a, b in self.parts:
            y, held = self.truth[train], self.truth[~train]
            both = self.guess(a, train, y, np.concatenate([b[~train], a[~train]])).reshape(2, -1)
            own = self.guess(b, train, y, b[~train])
            for k, given in enumerate((*both, own)):
                np.add.at(counts[k], (held, given), 1)
        return counts

    def controls(self) -> np.ndarray:
        """Right guesses of the transfer under each control ``(3, draws)``."""
        options, count = self.options, self.options.n_permutations
        others = self._random_units()  # (draw, neuron, stimulus)
        right = np.zeros((3, count))
        for number, (train, kept, a, b) in zip(self.numbers, self.parts, strict=True):
            y, held, stacks = self.truth[train], self.truth[~train], []
            for draw in range(count):
                # One permutation of the match for all folds (that have the same neurons); labels are of each training
                # set.
                moved = generator(options.seed, draw, Stream.SUBJECTS).permutation(b.shape[1])
                stacks.append(b[~train][:, moved])
                random = generator(options.seed, draw + count * (1 + int(number)), Stream.PERMUTATIONS)
                right[0, draw] += (self.guess(a, train, random.permutation(y), b[~train]) == held).sum()
                instead = scaled(others[draw, kept].T, train)
                right[2, draw] += (self.guess(instead, train, y, b[~train]) == held).sum()
            # The classifier is the same for every permuted match: only the places of the neurons change.
            given = self.guess(a, train, y, np.concatenate(stacks)).reshape(count, -1)
            right[1] += (given == held).sum(axis=1)
        return right

    def _random_units(self) -> np.ndarray:
        """As many units as there are neurons, of those that no neuron is matched with, for each draw."""
        pool = np.setdiff1d(np.arange(self.layer.n_units), self.units)
        if not len(pool):
            pool = np.arange(self.layer.n_units)
        n = len(self.units)
        drawn = [
            generator(self.options.seed, draw, Stream.STIMULI).choice(pool, n, replace=len(pool) < n)
            for draw in range(self.options.n_permutations)
        ]
        return read_units(self.layer, self.rows, np.stack(drawn), parse_bytes(self.options.memory))

    def curve(self, sizes: list[int]) -> np.ndarray:
        """Right guesses of transfer and of neurons by neurons, with so many neurons ``(2, sizes, draws)``; nested."""
        options = self.options
        right = np.zeros((2, len(sizes), options.n_draws if sizes else 0))
        for draw in range(right.shape[2]):
            order = generator(options.seed, draw + options.n_permutations, Stream.STIMULI).permutation(len(self.units))
            for row, size in enumerate(sizes):
                for train, kept, a, b in self.parts:
                    own = np.isin(kept, order[:size])
                    if not own.any():  # all of the few neurons lack a unit in this fold: nothing is guessed
                        continue
                    y, held, test = self.truth[train], self.truth[~train], b[~train][:, own]
                    right[0, row, draw] += (self.guess(a[:, own], train, y, test) == held).sum()
                    right[1, row, draw] += (self.guess(b[:, own], train, y, test) == held).sum()
        return right


def without_category_means(values: xr.DataArray, labels: Any) -> xr.DataArray:
    """Take every category's mean over its stimuli off units or neurons.

    Units that are matched with neurons on what is left correspond beyond the categories' means, so that a transfer of
    categories by such a match is not circular: match ``{"layer": without_category_means(store["layer"], …)}`` with the
    averages without theirs, and give that match to :func:`transfer` with the plain units and responses. The means are
    over all stimuli, so that held-out ones take part in them with their share.

    Parameters
    ----------
    values : xarray.DataArray
        Dims stimulus and others.
    labels : str, sequence or mapping
        The category of each stimulus: a coord, one label for each, or a mapping of id to label.

    Returns
    -------
    xarray.DataArray
        The same with mean 0 in every category.

    Raises
    ------
    InputError
        If there is no dim stimulus, or labels do not fit.
    """
    if "stimulus" not in values.dims:
        raise InputError(f"the array has the dims {values.dims} and no 'stimulus'; rename the right one")
    ids = [str(value) for value in values["stimulus"].values]
    columns = {str(k): c.values for k, c in values.coords.items() if c.dims == ("stimulus",) and k != "stimulus"}
    y = label_column(labels, "labels", ids, columns)[1]
    left = values.transpose("stimulus", ...).astype(np.float64, copy=True)
    for category in np.unique(y):
        rows = y == category
        left.values[rows] -= left.values[rows].mean(axis=0)
    return left.transpose(*values.dims)


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the transfer beside its controls; see :func:`actkit.analyses.matched_transfer_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`transfer` returned.
    **settings
        Settings of the figure, such as ``kind``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import matched_transfer_plot

    return matched_transfer_plot.plot(result, **settings)
