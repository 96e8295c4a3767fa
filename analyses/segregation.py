"""Segregation: whether silencing the units that one task needs spares the other, layer by layer.

Source: Dobs, Martinez, Kell & Kanwisher (2022), Brain-like functional specialization emerges spontaneously in deep
neural networks, Science Advances 8, eabl8913. Here the index stands beside its class-shuffled null, which the paper's
figures do not show and which is positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit import __version__
from actkit.analyses import segregation_measure as measure
from actkit.analyses.segregation_bootstrap import Levels, shared_weights
from actkit.analyses.segregation_layer import LayerResult, Plan, measure_layer
from actkit.analyses.segregation_measure import RankBy
from actkit.analyses.segregation_nulls import Scheme, pseudo_tasks, shuffle_classes
from actkit.analyses.segregation_pairs import Pair, channels_of
from actkit.analyses.segregation_result import assemble
from actkit.analyses.segregation_resume import finished
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.layers import evaluating
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.results import describe
from actkit.tasks import Task
from actkit.units import UnitSet, round_half_up

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Strategy = Literal["one_shot", "greedy", "racing", "taylor", "shapley"]


class SegregationOptions(Options):
    """Options of :func:`segregation`."""

    fraction: float = Field(0.2, gt=0, le=0.5, description="Share of a layer's units that the index silences.")
    fractions: list[float] = Field(
        [0.1, 0.2, 0.3, 0.4, 0.5], min_length=1, description="Shares of units of the cumulative lesion curves."
    )
    strategy: Strategy = Field(
        "one_shot",
        description="How units are ranked; anything but one_shot ranks every pseudo-task of the null anew, which "
        "costs as much as the ranking itself each time.",
    )
    rank_by: RankBy = Field(
        "unmasked", description="Whether the loss of the rankings compares all outputs or the task's own."
    )
    n_draws: int = Field(1000, ge=1, description="Bootstrap draws.")
    levels: Levels = Field("both", description="What a draw draws: classes and images, classes, or images.")
    n_null: int = Field(100, ge=1, description="Shuffles of the classes between the tasks.")
    null_scheme: Scheme = Field(
        "permute",
        description="Pseudo-tasks: as many of all classes as each task has (permute), half of each task's classes, or "
        "half of all; halves suit only tasks of equally many classes.",
    )
    n_random: int = Field(100, ge=1, description="Lesions of random units.")
    match: bool = Field(
        True, description="Also random lesions matched in mean activation, variance and position on the map."
    )
    n_splits: int = Field(10, ge=1, description="Halvings of the ranking images, for the reliability (one_shot only).")
    memory: str = Field("1GB", description="Most memory that a sweep uses.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything that is drawn.")


@with_options(SegregationOptions)
def segregation(
    network: Any,
    ranking: Sequence[Task],
    evaluation: Sequence[Task],
    layers: str | Sequence[str],
    progress: bool | None = None,
    selectivity: Sequence[Task] | None = None,
    resume: str | Path | None = None,
    *,
    options: SegregationOptions,
) -> xr.Dataset:
    """Rank the units of each layer for two tasks, silence the top ones, and see what each task loses.

    Per layer: every unit is silenced alone on the ranking images; the top share of either ranking is then silenced at
    once on other images, and both tasks are evaluated, with all outputs competing (unmasked: calling a face an object
    is an error) and with each task's own outputs only (masked: logit offsets between the tasks cannot matter). The same
    is done for pseudo-tasks of shuffled classes, which give the null, and for random lesions.

    Parameters
    ----------
    network : Network or torch.nn.Module
        A network of one output layer that holds the classes of both tasks.
    ranking : sequence of two Task
        The two tasks with the images that rank the units.
    evaluation : sequence of two Task
        The same tasks, in the same order and with the same names, with other images.
    layers : str or sequence of str
        Layers whose output is lesioned: names, or patterns for a `Network`. Choose outputs of non-linearities.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.
    selectivity : sequence of two Task, optional
        The same two tasks, in the same order and with the same names, with further images (their classes may be others,
        such as identities that the network never saw): tells which task each unit prefers.
    resume : path, optional
        Folder that keeps every finished layer; the same call goes on there after it was stopped, and gives the same
        numbers. Layers kept for another network, other images or other options are left alone.

    Returns
    -------
    xarray.Dataset
        ``index`` (layer, masking) with ``index_low``, ``index_high`` (95 % percentile interval) and ``index_draws``;
        ``index_plain`` from the paper's plain drops, with limits; ``null`` (layer, masking, null), its mean and central
        95 %; ``excess`` (index minus null mean), ``p_value`` (one-sided, from the null) and ``p_corrected``
        (family-wise over layers); ``index_half`` at equal harm, with limits and ``half_fraction``; ``index_curve``
        over fractions. ``intact`` and ``chance`` (masking, task); ``accuracy``, ``drop`` (with limits) and
        ``drop_plain`` (layer, masking, ranking, task, fraction); ``saturated`` (layer, masking, ranking).
        ``random_drop`` and ``matched_drop`` (layer, masking, task, random): own-task drops of random lesions, with
        ``random_p``, ``matched_p`` and ``imbalance``. ``shared`` (layer) among the top units with chance, exact
        interval, p, ``reliability`` (layer, ranking), ``shared_ceiling``, ``shared_between``, ``shared_normalised``.
        ``score`` and ``rank`` (layer, ranking, unit), NaN beyond a layer's units; ``correct`` (layer, masking, ranking,
        stimulus) and ``intact_correct`` at the fraction of the index.

        With `selectivity` also ``selectivity`` (layer, ranking, unit): ``(m - m') / (m + m')`` of the mean l2 norms of
        the unit's maps, positive where the unit prefers the ranking's task, NaN in layers with negative output
        (attribute ``negative_layers``) and for units that answer all images alike; ``rank_selectivity`` (layer,
        ranking): Spearman correlation of rank and selectivity over the top half of the units, with
        ``rank_selectivity_p`` and ``rank_selectivity_n``, negative where the most needed units are the most selective;
        ``selective_accuracy`` and ``selective_drop`` (layer, masking, ranking, task) with as many units silenced as for
        the index, the most selective ones.

    Raises
    ------
    InputError
        If tasks do not fit each other, share images or classes, the network is not above chance, or a loss is NaN.
    LayerError
        If a layer does not exist or cannot be lesioned.

    Notes
    -----
    Intervals hold the network and its rankings fixed; for other trainings give several seeds to
    :func:`actkit.analyses.segregation_seeds.segregation_seeds`. A random lesion has an index of 0 by symmetry, so
    it is compared on the drop of the own task.
    """
    module = network.module if isinstance(network, Network) else network
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"cannot lesion a {type(network).__name__}; give a Network or a torch.nn.Module")
    ranks, tests = Pair.make(ranking, "ranking"), Pair.make(evaluation, "evaluation")
    _check(ranking, evaluation, ranks, tests)
    if selectivity is not None:
        _check_selectivity(selectivity, ranking, evaluation)
    names = _layers(network, layers)
    fractions = sorted({*options.fractions, options.fraction})
    if not 0 < fractions[0] <= fractions[-1] <= 1:
        raise InputError(f"fractions {options.fractions} must lie above 0 and not above 1")
    shuffles = [
        shuffle_classes(*ranks.classes, seed=options.seed, number=number, scheme=options.null_scheme)
        for number in range(options.n_null)
    ]
    plan = Plan(
        fractions=tuple(fractions),
        at=fractions.index(options.fraction),
        shuffles=shuffles,
        n_outputs=_n_outputs(module, tests, ranks),
        n_random=options.n_random,
        match=options.match,
        n_draws=options.n_draws,
        levels=options.levels,
        seed=options.seed,
        memory=options.memory,
        weights=shared_weights([task.targets for task in evaluation], options.n_draws, options.seed, options.levels),
        selectivity=selectivity,
    )
    identity = network if isinstance(network, Network) else Network(module)
    inputs = {"network": identity.weights_sha256}
    sets = {"ranking": ranking, "evaluation": evaluation, "selectivity": selectivity or ()}
    inputs.update({f"{what} {task.name}": task.fingerprint for what, pair in sets.items() for task in pair})
    question = {
        **inputs,
        "architecture": identity.architecture_sha256,
        "options": options.model_dump_json(exclude={"memory"}),
        "actkit": __version__,
    }
    done: list[LayerResult] = []
    with evaluating(module):
        for layer in progress_bar(names, desc="segregation", unit="layer", enabled=progress):

            def measured(layer: str = layer) -> LayerResult:
                n_units = channels_of(module, layer, ranks.task.inputs)
                if round_half_up(fractions[0] * n_units) < 1:
                    raise InputError(
                        f"layer {layer!r}: {fractions[0]} of {n_units} units is none; give larger fractions"
                    )
                ranked = _rank(network, module, layer, ranking, ranks, n_units, shuffles, fractions[-1], options)
                return measure_layer(module, layer, ranks, tests, n_units, ranked, plan)

            done.append(finished(resume, {**question, "layer": layer}, measured))
    result = assemble(names, done, tests, plan)
    silent = [name for name, one in zip(names, done, strict=True) if np.isnan(one.selectivity).all()]
    return describe(
        result,
        "segregation",
        options,
        inputs,
        network=network.name if isinstance(network, Network) else type(module).__name__,
        tasks=list(tests.names),
        fraction=options.fraction,
        n_draws=options.n_draws,
        n_null=options.n_null,
        n_random=options.n_random,
        n_ranking=[len(task) for task in ranking],
        n_evaluation=[len(task) for task in evaluation],
        n_selectivity=None if selectivity is None else [len(task) for task in selectivity],
        negative_layers=silent if selectivity is not None and silent else None,
        sweeps=[one.method for one in done],
        test=f"class shuffles ({options.null_scheme}), one-sided, {options.n_null} of them and the real classes",
    )


def _check(ranking: Sequence[Task], evaluation: Sequence[Task], ranks: Pair, tests: Pair) -> None:
    """Refuse pairs of tasks that do not belong together, and images that serve twice."""
    if ranks.names != tests.names:
        raise InputError(
            f"ranking tasks are {ranks.names} and evaluation tasks {tests.names}; give the same two in the same order"
        )
    for number, name in enumerate(ranks.names):
        if not np.array_equal(ranks.classes[number], tests.classes[number]):
            raise InputError(
                f"task {name!r} has other classes for ranking than for evaluation; give both the same classes="
            )
        one, two = ranking[number], evaluation[number]
        if one.ids is not None and two.ids is not None and (common := np.intersect1d(one.ids, two.ids)).size:
            raise InputError(
                f"task {name!r}: the image {str(common[0])!r} ranks units and evaluates them ({common.size} such), "
                "which makes lesions look stronger than they are; use disjoint images"
            )


def _check_selectivity(selectivity: Sequence[Task], ranking: Sequence[Task], evaluation: Sequence[Task]) -> None:
    """Refuse selectivity images of other tasks, and images that serve twice."""
    if len(selectivity) != 2 or not all(isinstance(task, Task) for task in selectivity):
        raise InputError("selectivity: segregation compares two tasks (actkit.tasks.Task); give exactly two")
    names, wanted = [task.name for task in selectivity], [task.name for task in ranking]
    if names != wanted:
        raise InputError(f"selectivity tasks are {names}, ranking tasks {wanted}; give the same two in the same order")
    for task in selectivity:
        for what, pair in (("ranks units", ranking), ("evaluates lesions", evaluation)):
            for other in pair:
                if task.ids is None or other.ids is None:
                    continue
                common = np.intersect1d(task.ids, other.ids)
                if common.size:
                    raise InputError(
                        f"task {task.name!r}: the image {str(common[0])!r} tells selectivity and {what} "
                        f"({common.size} such), so that the two agree by chance; use disjoint images"
                    )


def _layers(network: Any, layers: str | Sequence[str]) -> list[str]:
    """Layer names, patterns resolved where the network can list its layers."""
    given = [layers] if isinstance(layers, str) else [str(name) for name in layers]
    if not given:
        raise InputError("there is no layer to lesion; give the names of one or more")
    return network.select(given) if isinstance(network, Network) else given


def _n_outputs(module: torch.nn.Module, *pairs: Pair) -> int:
    """Width of the network's output, checked against the classes."""
    like = next((p for p in module.parameters() if p.is_floating_point()), pairs[0].task.inputs)
    with evaluating(module), torch.no_grad():
        logits = module(pairs[0].task.inputs[:1].clone().to(like.device, like.dtype))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        words = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"the network returns {words}; segregation needs logits of shape (image, output)")
    highest = max(int(classes.max()) for pair in pairs for classes in pair.classes)
    if highest >= logits.shape[1]:
        raise InputError(f"a task has the class {highest}, but the network has {logits.shape[1]} outputs, from 0")
    return int(logits.shape[1])


def _rank(
    network: Any,
    module: torch.nn.Module,
    layer: str,
    tasks: Sequence[Task],
    pair: Pair,
    n_units: int,
    shuffles: Sequence[tuple[np.ndarray, np.ndarray]],
    most: float,
    options: SegregationOptions,
) -> measure.Ranked:
    """Rank for the real tasks and for every shuffle."""
    if options.strategy == "one_shot":
        return measure.rank_one_shot(
            module,
            layer,
            pair,
            n_units,
            shuffles,
            by=options.rank_by,
            n_splits=options.n_splits,
            seed=options.seed,
            memory=options.memory,
        )
    pseudo = [
        pseudo_tasks(tasks[0], tasks[1], options.seed, number, options.null_scheme) for number in range(len(shuffles))
    ]
    return measure.rank_by_strategy(
        network,
        layer,
        tasks,
        n_units,
        pseudo,
        strategy=options.strategy,
        by=options.rank_by,
        most=most,
        seed=options.seed,
        memory=options.memory,
    )


def units_of_segregation(result: xr.Dataset, layer: str, task: str, fraction: float | None = None) -> UnitSet:
    """Take the units that the index silenced for one task in one layer.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`segregation` returned.
    layer : str
        Layer name.
    task : str
        Name of the task whose ranking is meant.
    fraction : float, optional
        Share of the layer's units; by default that of the index.

    Returns
    -------
    UnitSet
        In rank order, with the loss increase of each as its score.

    Raises
    ------
    InputError
        If the layer or task is not in the result, or the fraction is not above 0 and up to 1.
    """
    for name, value in (("layer", layer), ("ranking", task)):
        if value not in result[name].values:
            words = ", ".join(map(str, result[name].values))
            raise InputError(f"the result has no {name} {value!r}; it has {words}")
    share = float(result.attrs["fraction"]) if fraction is None else fraction
    if not 0 < share <= 1:
        raise InputError(f"fraction {share} is not a share of the layer; give one above 0, up to 1")
    one = result.sel(layer=layer, ranking=task)
    k = round_half_up(share * int(one["n_units"]))
    rank = one["rank"].values
    chosen = np.flatnonzero(rank <= k)
    chosen = chosen[np.argsort(rank[chosen], kind="stable")]
    return UnitSet.of(layer, chosen, one["score"].values[chosen], f"top {share:g} of {layer} needed for {task}")


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], **settings: Any) -> Figure:
    """Draw a segregation result; see :func:`actkit.analyses.segregation_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What :func:`segregation` returned.
    **settings
        Which figure (``kind``) and its settings.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import segregation_plot

    return segregation_plot.plot(result, **settings)
