"""Transfer by matched populations: a classifier that has seen model units alone reads a label from the neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.decoding_neurons import NeuronClassifier, classify, standardised
from actkit.analyses.neuron_inputs import read_responses, recorded_rows
from actkit.analyses.source import choose_layers, label_column, open_source
from actkit.analyses.unit_matching_kernel import read_units
from actkit.compute import parse_bytes
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint


class TransferOptions(Options):
    """Options of :func:`transfer`."""

    layers: list[str] | None = Field(None, description="Layers of the match to use; all by default.")
    classifier: NeuronClassifier = Field("svm", description="Linear classifier, as in decode_neurons.")
    penalty: float = Field(1.0, gt=0, description="Its L2 penalty, as in decode_neurons.")
    n_permutations: int = Field(99, ge=1, description="Draws of each of the two controls.")
    memory: str = Field("1GB", description="Most memory to use for blocks of units, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of the controls.")


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

    Two controls: with the training labels permuted, accuracy is at chance unless labels leak; with the match permuted
    (neurons take the places of one another's units), it is what remains without a correspondence of single units,
    such as categories that all units distinguish alike.

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
        Dims layer and permutation: ``transfer`` (layer), share of held-out stimuli decoded from the neurons by the
        units' classifier; ``units``, ``neurons``: the same when trained and tested on units, or on neurons (the same in
        every layer but for neurons left out); ``null_labels``, ``null_match`` (layer, permutation): the controls;
        ``p_labels``, ``p_match`` (layer): one-sided, the observed value included, uncorrected; ``chance``.

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
    count = options.n_permutations
    scores = np.zeros((len(chosen), 3))
    null = np.zeros((2, len(chosen), count))
    for k, layer in enumerate(chosen):
        units = match["unit"].sel(layer=layer.name).transpose("neuron", "fold").values
        activations = read_units(layer, rows, units, parse_bytes(options.memory))  # (neuron, fold, stimulus)
        for number in np.unique(fold):
            train, test = fold != number, fold == number
            kept = units[:, number] >= 0
            if not kept.any():
                raise InputError(f"no neuron has a unit of layer {layer.name!r} in fold {int(number)}; leave it out")
            a = standardised(activations[kept, number].T, train)
            b = standardised(y_neurons[:, kept], train)
            part = _Fold(a, b, y, train, test, options, int(number))
            scores[k] += part.scores()
            null[:, k] += part.controls(count)
    scores, null = scores / len(y), null / len(y)
    p = (1 + (null >= scores[None, :, :1] - 1e-12).sum(axis=2)) / (1 + count)
    result = xr.Dataset(
        {
            "transfer": ("layer", scores[:, 0], _about("share decoded, trained on units and tested on neurons")),
            "units": ("layer", scores[:, 1], _about("share decoded, trained and tested on units")),
            "neurons": ("layer", scores[:, 2], _about("share decoded, trained and tested on neurons")),
            "null_labels": (("layer", "permutation"), null[0], _about("transfer with permuted training labels")),
            "null_match": (("layer", "permutation"), null[1], _about("transfer with a permuted match")),
            "p_labels": ("layer", p[0], _about("p against permuted labels (one-sided)")),
            "p_match": ("layer", p[1], _about("p against permuted matches (one-sided)")),
            "chance": ((), float(np.unique(y, return_counts=True)[1].max() / len(y)), _about("most frequent class")),
        },
        coords={"layer": [layer.name for layer in chosen]},
    )
    return describe(
        result,
        "matched_transfer",
        options,
        {"source": opened.fingerprint(), "responses": fingerprint(y_neurons), "labels": fingerprint(y)},
        label=name,
        recording=recorded.name,
        n_neurons=len(neurons),
        n_stimuli=len(y),
        seed=options.seed,
    )


class _Fold:
    """One fold: scaled units a and neurons b (stimulus, neuron), and what is trained and tested on them."""

    def __init__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        y: np.ndarray,
        train: np.ndarray,
        test: np.ndarray,
        options: TransferOptions,
        number: int,
    ) -> None:
        self.a, self.b, self.y, self.train, self.test = a, b, y, train, test
        self.options, self.number = options, number

    def hits(self, learnt: np.ndarray, y: np.ndarray, tested: np.ndarray) -> np.ndarray:
        """Right guesses in each stack of held-out patterns ``(stacks · n_test, neurons)``."""
        guess = classify(learnt[self.train], y, tested, self.options.classifier, self.options.penalty)
        right = guess.reshape(-1, int(self.test.sum())) == self.y[self.test]
        return np.asarray(right.sum(axis=1))

    def scores(self) -> np.ndarray:
        """Right guesses of the transfer, of units by units, and of neurons by neurons."""
        a, b, y = self.a, self.b, self.y[self.train]
        both = self.hits(a, y, np.concatenate([b[self.test], a[self.test]]))
        return np.concatenate([both, self.hits(b, y, b[self.test])]).astype(np.float64)

    def controls(self, count: int) -> np.ndarray:
        """Right guesses with permuted training labels, and with a permuted match: ``(2, count)``."""
        y, test = self.y[self.train], self.b[self.test]
        out, stacks = np.zeros((2, count)), []
        for draw in range(count):
            # One permutation of the match for all folds (that have the same neurons); labels are of each training set.
            stacks.append(test[:, generator(self.options.seed, draw, Stream.SUBJECTS).permutation(test.shape[1])])
            random = generator(self.options.seed, draw + count * (1 + self.number), Stream.PERMUTATIONS)
            out[0, draw] = self.hits(self.a, random.permutation(y), test)[0]
        # The classifier is the same for every permuted match: only the places of the neurons change.
        out[1] = self.hits(self.a, y, np.concatenate(stacks))
        return out


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}
