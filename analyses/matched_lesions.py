"""Lesions of matched units: does a network need the units that resemble recorded neurons?

Units are matched with neurons on one half of the stimuli and taken away; what a task loses, and how far the network's
geometry on the other half moves from the neurons', is held against random sets of units that resemble the matched ones
in all but the match.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.matched_lesions_measure import Compare, Dissimilarity, neural_rdm
from actkit.analyses.matched_lesions_result import adjust, assemble
from actkit.analyses.matched_lesions_split import Measured, Split, deal_halves, measure, same_pictures
from actkit.analyses.neuron_inputs import read_responses, recorded_rows
from actkit.analyses.selectivity_responses import open_responses
from actkit.analyses.source import choose_layers, label_column
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError, nearest
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint
from actkit.units import UnitSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actkit.network import Network
    from actkit.tasks import Task

__all__ = ["MatchedLesionOptions", "adjust", "alt_text", "caption", "lesion_matched", "plot", "units_of_lesion"]


class MatchedLesionOptions(Options):
    """Options of :func:`lesion_matched`."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    extent: Literal["unit", "channel"] = Field(
        "unit",
        description="Lesion the matched units at their positions, or every position of their channels (a few "
        "positions of a large map hardly move a loss).",
    )
    mode: Literal["zero", "mean"] = Field(
        "zero", description="What takes the units' place: 0, or their mean over the stimuli they were matched on."
    )
    readout: str | None = Field(
        None, description="Layer whose geometry is compared with the neurons'; the network's output by default."
    )
    n_splits: int = Field(
        1, ge=1, description="Matches: 1 matches on one half of the stimuli, 2 on either half in turn, 4 of two deals."
    )
    n_random: int = Field(100, ge=1, description="Random sets of units in each layer and split.")
    neighbours: int | None = Field(
        None,
        ge=1,
        description="A random set replaces each matched unit by one of so many units that resemble it most, or by "
        "itself; by default a twentieth of the layer, 5 at least and 10 at most.",
    )
    folds: int = Field(5, ge=2, description="Folds of the match, within the half that it is made on.")
    assignment: Literal["best", "mutual", "one_to_one"] = Field("best", description="As for match_units.")
    minimum: float | None = Field(
        0.0, description="Take units of neurons with at least this held-out correlation, within the matching half."
    )
    alpha: float | None = Field(
        None, gt=0, le=1, description="Take units of neurons with at most this corrected p-value, likewise."
    )
    n_permutations: int = Field(199, ge=1, description="Permutations of the match, where alpha is given.")
    n_units: int | None = Field(
        None, ge=1, description="At most so many units (or channels) a layer, the best matched ones; all by default."
    )
    dissimilarity: Dissimilarity = Field("correlation", description="Between patterns of units, and of neurons.")
    compare: Compare = Field("spearman", description="Between the network's dissimilarities and the neurons'.")
    n_evaluation: int | None = Field(
        None, ge=5, description="At most so many stimuli of the other half for the geometry; all by default."
    )
    n_bootstrap: int = Field(1000, ge=1, description="Bootstrap draws of images and of stimuli.")
    memory: str = Field("500MB", description="Most memory to use for activations and read-outs, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the halves, the match, the random sets and the draws.")


@with_options(MatchedLesionOptions)
def lesion_matched(
    network: Network,
    source: Any,
    responses: Any,
    task: Task,
    stimuli: Any,
    groups: Any = None,
    labels: Any = None,
    progress: bool | None = None,
    *,
    options: MatchedLesionOptions,
) -> xr.Dataset:
    """Lesion the units that match recorded neurons, and compare the loss with that of random sets like them.

    The stimuli are dealt into halves, groups whole. On the first half every neuron is given its best unit of a layer
    (:func:`actkit.analyses.unit_matching.match_units`). Without these units the network runs the task, on images of its
    own, and the second half of the stimuli, whose dissimilarities at the lesioned layer and at the read-out are
    correlated with the neurons'. The same is measured without each of `n_random` sets of as many units of the layer,
    which resemble the matched ones in mean activation, variance and map position on the first half. The excess is the
    effect of the matched units less the mean effect of the random sets.

    Parameters
    ----------
    network : Network
        The network; left as it was.
    source : ActivationStore, path or mapping of name to array
        The network's activations for the stimuli, single units, as `actkit.extract` records them.
    responses : xarray.DataArray or numpy.ndarray
        Neurons: (stimulus, neuron), or (stimulus, repetition, neuron), averaged over repetitions.
    task : Task
        What the network is good for: images that are none of the stimuli, and the right output of each.
    stimuli : Stimuli or what `actkit.as_stimuli` takes
        The pictures that the neurons saw, with their ids; in the order of the source where they have other ids.
    groups : str, sequence or mapping, optional
        Stimuli of one group (copies of a picture) stay on one side. By default the responses' coordinate ``group``.
    labels : str, sequence or mapping, optional
        Category of each stimulus: halves and folds hold them in equal shares.
    progress : bool, optional
        Show a bar; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        By split, layer and outcome: ``intact``, ``lesioned``; ``effect``, positive for harm (rise in loss, fall in
        accuracy or in correlation with the neurons); ``random_effect`` (…, random) with ``random_mean`` and
        ``random_sd``; ``excess``, with a 95 % percentile interval ``excess_low``, ``excess_high`` over the task's
        images or over stimuli (groups drawn whole), sets held fixed; ``p_value``, ``(1 + random sets with as large an
        effect) / (1 + n_random)``, and ``p_less``, with as small a one; ``excess_adjusted`` and ``p_adjusted``, with
        what a linear fit on the sets' mean features explains taken out (NaN with few random sets; see
        :func:`adjust`). Outcomes: ``loss`` (nats an image), ``accuracy``, ``rsa_layer`` and ``rsa_readout``.
        By layer and outcome: ``excess_mean`` over splits; ``p_combined`` and ``p_less_combined``, twice the median p
        over splits (1 split: its p); ``p_corrected`` and ``p_less_corrected``, their false discovery rate over layers.
        ``matched_features`` (…, feature) and ``random_features`` (…, random, feature) are the sets' mean features from
        the layer's mean, in standard deviations over the layer.
        By split and layer: ``n_units`` lesioned, ``n_neurons`` they match, ``match_r``, the median held-out correlation
        of these matches within the first half, ``overlap``, the mean share of matched units in a random set, and
        ``imbalance`` (…, feature), the matched units' features less the random sets' mean. ``channel``, ``y`` and ``x``
        (…, slot) name the units, -1 beyond the last (and for every position);
        ``matched_on`` and ``evaluated_on`` (split, stimulus) tell the halves.

    Raises
    ------
    InputError
        If the source holds other activations than the network's, a stimulus is an image of the task, no neuron meets
        the conditions, or more than half of a layer would be lesioned, so that too few units are left to draw from.
    LayerError
        If a layer does not exist, or the read-out does not depend on it.

    Notes
    -----
    A random set draws each matched unit's replacement from its nearest units and itself. Were matched units no
    different from units like them, their set would be one more draw, and ``p_value`` is the test of that. The overlap
    draws the excess towards 0 by about its share. Matches on overlapping stimuli are not independent: twice the median
    of their p-values is a p-value whatever their dependence (Rüger 1978; Meinshausen, Meier & Bühlmann 2009).

    References
    ----------
    Arend et al. (2018), CBMM Memo 093, for single-unit matching; the lesion is this package's own step.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    from actkit.stimuli import as_stimuli

    pictures = as_stimuli(stimuli)
    own_ids = None if hasattr(source, "unit_blocks") or _carries_ids(source) else [str(i) for i in pictures.ids]
    opened, layouts = open_responses(source, own_ids)
    chosen = choose_layers(opened.layers, options.layers)
    recorded = read_responses(responses, [str(i) for i in opened.ids])
    rows = recorded_rows([str(i) for i in opened.ids], recorded.ids)
    columns = {**{key: column[rows] for key, column in opened.labels.items()}, **recorded.columns}
    if groups is None and "group" in columns:
        groups = "group"
    by_group = None if groups is None else label_column(groups, "groups", recorded.ids, columns)[1]
    by_label = None if labels is None else label_column(labels, "labels", recorded.ids, columns)[1]
    inputs = _inputs(network, pictures, recorded.ids)
    same_pictures(inputs, task, recorded.ids)
    neural_rdm(recorded.values, options.dissimilarity)  # refuses what has no geometry before anything runs

    n_groups = len(rows) if by_group is None else len(np.unique(by_group))
    halves = deal_halves(len(rows), options.n_splits, by_group, by_label, options.n_evaluation, options.seed)
    neurons = xr.DataArray(
        recorded.values,
        dims=("stimulus", "neuron"),
        coords={"stimulus": recorded.ids, "neuron": recorded.neurons},
        name=recorded.name,
    )
    found: list[list[Measured]] = []
    work = [(number, layer) for number in range(len(halves)) for layer in chosen]
    for number, layer in progress_bar(work, desc="lesions of matched units", unit="layer", enabled=progress):
        matching, evaluation = halves[number]
        split = Split(source, own_ids, rows, neurons, by_group, by_label, matching, evaluation, options.seed + number)
        try:
            one = measure(network, layer, layouts[layer.name], split, task, inputs, options)
        except InputError as error:
            if repr(layer.name) in str(error):
                raise
            raise type(error)(f"layer {layer.name!r}: {error}") from error
        if layer is chosen[0]:
            found.append([])
        found[-1].append(one)
    result = assemble(found, [layer.name for layer in chosen], halves, recorded.ids)
    return describe(
        result,
        "lesion_matched",
        options,
        {
            "network": network.fingerprint,
            "source": opened.fingerprint(),
            "responses": fingerprint(recorded.values),
            "task": task.fingerprint,
            "groups": fingerprint(by_group),
            "labels": fingerprint(by_label),
        },
        network=network.name,
        recording=recorded.name,
        region=recorded.attrs.get("region"),
        task=task.name,
        readout=options.readout or "output",
        extent=options.extent,
        n_neurons=len(recorded.neurons),
        n_stimuli=len(rows),
        n_matching=[len(first) for first, _ in halves],
        n_evaluation=[len(second) for _, second in halves],
        n_images=len(task),
        n_random=options.n_random,
        splitting="halves of the stimuli"
        + (f", {n_groups} groups of copies kept whole" if n_groups < len(rows) else "")
        + (f", stratified by {len(np.unique(by_label))} categories" if by_label is not None else ""),
        sweeps=[one.method for one in found[0]],
        shapes=json.dumps({layer.name: list(layouts[layer.name].shape) for layer in chosen}),
        seed=options.seed,
    )


def _carries_ids(source: Any) -> bool:
    """Whether arrays name their stimuli."""
    values = [source] if isinstance(source, xr.DataArray) else []
    values = list(source.values()) if hasattr(source, "values") and not values else values
    return any(isinstance(one, xr.DataArray) and "stimulus" in one.coords for one in values)


def _inputs(network: Network, pictures: Any, ids: Sequence[str]) -> Any:
    """Prepare the recorded stimuli, in the order of the recording."""
    import torch

    chosen = pictures.select(ids)
    ready = [network.prepare(chosen.raw(i)) for i in range(len(chosen))]
    return network.to_input(torch.stack(ready).detach())


def units_of_lesion(result: xr.Dataset, layer: str, split: int = 0) -> UnitSet:
    """Take the units that were lesioned.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`lesion_matched` returned.
    layer : str
        Layer name.
    split : int
        Number of the split.

    Returns
    -------
    UnitSet
        The best matched first, without scores.

    Raises
    ------
    InputError
        If it is no such result, or the split is not in it.
    LayerError
        If the layer is not in it.
    """
    if result.attrs.get("analysis") != "lesion_matched":
        raise InputError("this is no lesion of matched units; give what lesion_matched() returned")
    names = [str(name) for name in result["layer"].values]
    if layer not in names:
        raise LayerError(f"the result has no layer {layer!r}; {nearest(layer, names)}")
    if not 0 <= split < result.sizes["split"]:
        raise InputError(f"split {split} is not in the result, whose splits are 0 to {result.sizes['split'] - 1}")
    one = result.isel(split=split).sel(layer=layer)
    k = int(one["n_units"])
    places = {name: one[name].values[:k] for name in ("channel", "y", "x")}
    question = f"matched with neurons of {result.attrs['recording']} on half of the stimuli (split {split})"
    shape = json.loads(result.attrs["shapes"])[layer]
    return UnitSet.of(layer, places["channel"], question=question, shape=shape, y=places["y"], x=places["x"])


def plot(result: xr.Dataset, *, title: str | None = None, **options: Any) -> Figure:
    """Draw the effect of the matched units against the random sets'.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`lesion_matched` returned.
    title : str, optional
        Headline.
    **options
        Not used.

    Returns
    -------
    matplotlib.figure.Figure
        See :func:`actkit.analyses.matched_lesions_plot.plot`.
    """
    from actkit.analyses.matched_lesions_plot import plot as draw

    return draw(result, title=title)


def caption(result: xr.Dataset, **options: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`lesion_matched` returned.
    **options
        Not used.

    Returns
    -------
    str
        Plain text.
    """
    from actkit.analyses.matched_lesions_plot import caption as words

    return words(result)


def alt_text(result: xr.Dataset, **options: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`lesion_matched` returned.
    **options
        Not used.

    Returns
    -------
    str
        One or two sentences.
    """
    from actkit.analyses.matched_lesions_plot import alt_text as words

    return words(result)
