"""Rank the channels of a layer by what a task loses without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError, nearest
from actkit.layers import evaluating, module_paths
from actkit.lesion_values import Reference, lesion_values, recorded_shape
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.ranking_engine import Engine, Journal
from actkit.ranking_greedy import group_size, pairs
from actkit.ranking_strategies import Ranked, greedy_ranking, one_shot, raced, shapley_ranking, taylor_ranking, top_of
from actkit.replay_lesion import channel_axis, find_site, intercepted, unwrapped
from actkit.results import describe, fingerprint
from actkit.tasks import Task, stratified
from actkit.units import UnitSet, round_half_up

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RankingOptions", "rank_units", "units_of"]

Strategy = Literal["one_shot", "greedy", "racing", "taylor", "shapley"]

_STRATEGIES: dict[str, Callable[..., Ranked]] = {
    "one_shot": one_shot,
    "greedy": greedy_ranking,
    "racing": raced,
    "taylor": taylor_ranking,
    "shapley": shapley_ranking,
}


class RankingOptions(Options):
    """Options of :func:`rank_units`."""

    strategy: Strategy = Field(
        "one_shot",
        description="one_shot: every channel alone, every image. greedy: each with the costlier ones gone. racing: the "
        "top of one_shot from fewer evaluations. taylor: first-order guess from gradients, approximate. shapley: "
        "average over random orders of losing the channels.",
    )
    n_images: int | None = Field(
        None, ge=2, description="Images a task, drawn in equal numbers from its classes; none: all."
    )
    fraction: float = Field(
        0.2, gt=0, le=1, description="Share of the layer that counts as its top: what racing finds, and reliability."
    )
    stop: float = Field(0.5, gt=0, le=1, description="Greedy: share of the layer to order.")
    group: int | float = Field(
        1, gt=0, description="Greedy: channels a step; below 1, a share of the layer (rounded down, at least one)."
    )
    masked: Literal["both", "own", "all"] = Field(
        "both",
        description="Loss over all outputs (all), over the task's own classes (own), or both reported and the ranking, "
        "where there can be one only, by the loss over all.",
    )
    mode: Literal["zero", "mean"] = Field("zero", description="What a silenced channel becomes; mean: of a reference.")
    error: float = Field(
        0.05, gt=0, lt=1, description="Racing: probability that too few of the top agree with the exhaustive ranking."
    )
    agreement: float = Field(0.95, gt=0, lt=1, description="Racing: share of the top that must agree.")
    n_permutations: int = Field(20, ge=1, description="Shapley: random orders.")
    truncation: float = Field(
        0.01, ge=0, lt=1, description="Shapley: an order ends once the loss stays this close to that without the layer."
    )
    n_splits: int = Field(
        20, ge=0, description="Splits of the images into halves, for the reliability (greedy: one at the most)."
    )
    per_image: bool = Field(False, description="Keep the loss increase of every image.")
    method: Literal["auto", "replay", "low_rank", "hooks"] = Field("auto", description="How sweeps run.")
    memory: str | int = Field("1GB", description="Budget of a sweep.")
    batch: int | None = Field(None, ge=1, description="Images of a sweep at a time; none: what the budget holds.")
    images: int = Field(256, ge=1, description="Images a block; a killed ranking loses at most one block.")
    block: int | None = Field(
        None,
        ge=1,
        description="Candidates a block; none: all. Each block runs the part before the layer again: small blocks lose "
        "less to a kill and cost more.",
    )
    seed: int = Field(0, ge=0, description="Seed of images, halves, orders and draws.")


@with_options(RankingOptions)
def rank_units(
    model: nn.Module | Network,
    layer: str,
    tasks: Task | Sequence[Task],
    channels: Sequence[int] | np.ndarray | None = None,
    reference: Reference | None = None,
    resume: str | Path | None = None,
    progress: bool | None = None,
    *,
    options: RankingOptions,
) -> xr.Dataset:
    """Rank the channels of a layer by what each task loses without them.

    All candidates see the same images, so that differences between them, and to the intact network, are paired. The
    network runs in evaluation mode and is left as it was.

    Parameters
    ----------
    model : torch.nn.Module or Network
        The network.
    layer : str
        Layer whose output is lesioned (``path`` or ``path@call``).
    tasks : Task or sequence of Task
        What is measured; each is ranked on its own.
    channels : sequence of int, optional
        Channels to rank; all by default.
    reference : ActivationStore or mapping of str to array, optional
        For ``mode="mean"``: a recording of the layer.
    resume : path, optional
        Folder of a journal. Give the same folder after a kill, and finished blocks are read, not computed; the
        numbers are those of an uninterrupted run.
    progress : bool, optional
        Show a progress bar with time left; by default on a terminal only.

    Returns
    -------
    xarray.Dataset
        Over ``(task, unit)``: ``loss_increase`` in nats and ``accuracy_drop`` (1 is all images) with ``_se``, the
        standard error of the mean paired difference over images; ``rank`` from 1, ties by index; ``n_seen`` images.
        Over ``task``: ``intact_loss``, ``intact_accuracy``, ``n_images``, and the split-half reliability over
        disjoint halves of every class, ``top_overlap`` (chance: `fraction`) and ``rank_correlation`` (Spearman).
        With ``_masked``, the same over the task's own classes; NaN where a task does not name them.

        greedy adds ``step`` (-1: not chosen) and measures each channel with those of the earlier steps gone;
        shapley adds ``loss_increase_se_sampling``; racing estimates (``n_seen`` images a unit) and puts the top that it
        found first; taylor has no accuracy. ``attrs["note"]`` says what was done, and ``attrs["approximate"]`` is 1
        where an exhaustive ranking could differ.

    Raises
    ------
    InputError
        If there is no task, two have one name, a channel does not exist, a loss is NaN, or the journal is of another
        question.
    LayerError
        If the layer does not exist or its output holds no channels.

    Notes
    -----
    One-shot and greedy rankings: Dobs et al. (2022, Sci Adv 8:eabl8913). Half as many images make a half less reliable
    than the whole: the reliability is a lower bound of that of the ranking returned. Racing's halves hold only what its
    units saw.
    """
    module = unwrapped(model.module if isinstance(model, Network) else model)
    network = model if isinstance(model, Network) else Network(module)
    listed = _tasks(tasks, options)
    with evaluating(module):
        shape, everything = _layer_shape(module, layer, listed[0])
        ranked = _channels(channels, everything, layer)
        settings: dict[str, Any] = {name: getattr(options, name) for name in ("mode", "method", "memory", "batch")}
        if options.mode == "mean":
            values = lesion_values(UnitSet.of(layer, np.arange(everything)), "mean", reference, 0.0)
            settings["fill"] = next(values.parts(layer, recorded_shape(shape))).fill
        inputs = {
            "weights": network.weights_sha256,
            "architecture": network.architecture_sha256,
            "layer": layer,
            "channels": fingerprint(ranked),
            "fill": fingerprint(settings.get("fill")),
            **{f"task {task.name}": task.fingerprint for task in listed},
        }
        # What only reports differently may change between a run and the one that goes on with it.
        reporting = {"per_image", "n_splits"} | (set() if options.strategy == "racing" else {"fraction"})
        kept_options = options.model_dump(exclude=reporting)
        journal = Journal(resume, {**inputs, "options": kept_options})
        total = sum(_planned(len(ranked), len(task.targets), options) for task in listed)
        parts, intact = [], []
        with progress_bar(total=total, desc=f"ranking {layer}", unit="image", enabled=progress) as bar:
            for number, task in enumerate(listed):
                engine = Engine(
                    module, layer, task, number, everything, ranked, journal, settings, options.images, options.block,
                    bar.update,
                )  # fmt: skip
                intact.append(engine.intact())
                parts.append(_STRATEGIES[options.strategy](engine, intact[-1], options))
    dataset = _assemble(listed, ranked, parts, intact, options)
    return describe(
        dataset,
        "ranking",
        options,
        inputs,
        layer=layer,
        layer_shape=list(shape),
        network=network.name,
        note="; ".join(dict.fromkeys(part.note for part in parts)),
        approximate=options.strategy in ("taylor", "racing", "shapley"),
        chance_overlap=top_of(options, len(ranked)) / len(ranked),
    )


def units_of(
    result: xr.Dataset, task: str, fraction: float | None = None, k: int | None = None, masked: bool | None = None
) -> UnitSet:
    """Take the top units of a ranking.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rank_units` returned.
    task : str
        Name of the task.
    fraction : float, optional
        Share of the ranked units, rounded half up.
    k : int, optional
        Number of units instead.
    masked : bool, optional
        Whether to take the ranking by the loss over the task's own classes; by default only where there is no other.

    Returns
    -------
    UnitSet
        In rank order, with the loss increase as score (greedy and racing: number of units minus rank, since an order
        found step by step is not that of its numbers).

    Raises
    ------
    InputError
        If the task is unknown, both or neither of fraction and k are given, the number is out of range, or goes
        beyond what the strategy ordered.

    Examples
    --------
    ``rank_units(network, "features.28", tasks).pipe(units_of, "face", fraction=0.2)``
    """
    names = [str(name) for name in result["task"].values]
    if task not in names:
        raise InputError(f"the ranking has no task {task!r}; {nearest(task, names)}")
    if (fraction is None) == (k is None):
        raise InputError("give either fraction= or k=, so that it is clear how many units are meant")
    n = result.sizes["unit"]
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction} is not a share of the layer; give one above 0, up to 1")
    count = int(k) if k is not None else round_half_up(float(fraction or 0) * n)
    if not 1 <= count <= n:
        raise InputError(f"the top {count} of {n} units cannot be taken; ask for 1 to {n}")
    if masked is None:
        masked = "rank" not in result
    suffix = "_masked" if masked else ""
    if f"rank{suffix}" not in result:
        raise InputError(
            f"the ranking has no 'rank{suffix}'; rank with masked={'own' if masked else 'both'!r}, and a strategy that "
            "ranks by it"
        )
    ranks = result[f"rank{suffix}"].sel(task=task).values
    if (ranks < 1).any():
        raise InputError(f"task {task!r} has no ranking over its own classes: it does not name them")
    ordered = int(result.attrs.get("ordered", n))
    if count > ordered:
        raise InputError(
            f"the top {count} are asked for, but this ranking settled the top {ordered} only; lesioning more would "
            "lesion something else than it says. Rank with a larger stop= (greedy) or fraction= (racing)"
        )
    order = np.argsort(ranks)[:count]
    stepwise = ordered < n or "step" in result
    scores = n - ranks[order] if stepwise else result[f"loss_increase{suffix}"].sel(task=task).values[order]
    layer = str(result.attrs["layer"])
    words = "its own classes" if masked else "all outputs"
    return UnitSet.of(
        layer,
        result["unit"].values[order],
        scores.astype(float),
        f"top {count} of {n} channels of {layer!r} by the loss of task {task!r} over {words} without them "
        f"({_strategy(result)})",
        shape=tuple(int(size) for size in np.atleast_1d(result.attrs["layer_shape"])),
    )


def _strategy(result: xr.Dataset) -> str:
    return RankingOptions.model_validate_json(result.attrs["options"]).strategy


def _tasks(tasks: Task | Sequence[Task], options: RankingOptions) -> list[Task]:
    """The tasks with the images that are used."""
    listed = [tasks] if isinstance(tasks, Task) else list(tasks)
    if not listed:
        raise InputError("no task was given, so no loss can be measured; give one, or several")
    names = [task.name for task in listed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two tasks are called {twice!r}, so results could not be told apart; rename one")
    if options.masked == "own":
        for task in listed:
            if task.classes is None:
                raise InputError(
                    f"masked='own' needs the output columns of task {task.name!r}, and it names none; give classes"
                )
    if options.n_images is not None:
        return [stratified(task, options.n_images, options.seed) for task in listed]
    return listed


def _layer_shape(module: torch.nn.Module, layer: str, task: Task) -> tuple[tuple[int, ...], int]:
    """Output shape for one stimulus as recordings have it, and the number of channels."""
    seen: list[torch.Tensor] = []

    def look(output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output

    site = find_site(module, layer)
    like = next((p for p in module.parameters() if p.is_floating_point()), task.inputs)
    first = task.inputs[:1]
    with intercepted(module, site, look) as forward:
        forward(first.to(like.device, like.dtype if first.is_floating_point() else first.dtype))
    if seen[0].ndim < 2:
        raise LayerError(f"layer {layer!r} gives shape {tuple(seen[0].shape)}: no channels to rank; name another layer")
    axis = channel_axis(module_paths(module)[site.path], seen[0])
    rest = [size for i, size in enumerate(seen[0].shape) if i not in (0, axis)]
    channels = int(seen[0].shape[axis])
    return recorded_shape((channels, *rest)), channels


def _channels(channels: Sequence[int] | np.ndarray | None, count: int, layer: str) -> np.ndarray:
    """The channels to rank, checked."""
    if channels is None:
        return np.arange(count)
    found = np.asarray(channels)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        raise InputError(f"channels are {channels!r}; give a list of one or more channel numbers")
    bad = found[(found < 0) | (found >= count)]
    if len(bad):
        raise InputError(f"channel {bad[0]} does not exist in layer {layer!r}, which has channels 0 to {count - 1}")
    if len(np.unique(found)) < len(found):
        raise InputError("a channel is listed twice; name each once")
    return np.sort(found).astype(np.int64)


def _planned(n_channels: int, n_images: int, options: RankingOptions) -> int:
    """Candidates times images, at the most."""
    if options.strategy == "greedy":
        steps = pairs(n_channels, round_half_up(options.stop * n_channels), group_size(options.group, n_channels))
        return steps * n_images * (2 if options.n_splits else 1)
    if options.strategy == "shapley":
        return (n_channels * options.n_permutations + 1) * n_images
    return n_images if options.strategy == "taylor" else n_channels * n_images


def _assemble(
    tasks: Sequence[Task],
    channels: np.ndarray,
    parts: Sequence[Ranked],
    intact: Sequence[dict[str, np.ndarray]],
    options: RankingOptions,
) -> xr.Dataset:
    """Lay the strategies' numbers out as one dataset."""
    names = dict.fromkeys(name for part in parts for name in part.units)
    variables: dict[str, Any] = {}
    for name in names:
        whole = name.startswith(("rank", "step", "n_seen"))
        empty = np.full(len(channels), -1 if whole else np.nan)
        variables[name] = (("task", "unit"), np.stack([part.units.get(name, empty) for part in parts]))
        if whole:
            variables[name] = (variables[name][0], variables[name][1].astype(np.int64))
    for name in dict.fromkeys(name for part in parts for name in part.task):
        variables[name] = ("task", np.array([part.task.get(name, np.nan) for part in parts]))
    wanted = {"all": ("",), "own": ("_masked",), "both": ("", "_masked")}[options.masked]
    for suffix in wanted:
        for measure, label in (("loss", "intact_loss"), ("correct", "intact_accuracy")):
            found = [values.get(measure + suffix) for values in intact]
            if any(value is not None for value in found):
                means = [np.nan if value is None else float(value.mean()) for value in found]
                variables[label + suffix] = ("task", np.array(means))
    variables["n_images"] = ("task", np.array([len(task.targets) for task in tasks]))
    if options.per_image and any(part.per_image is not None for part in parts):
        most = max(len(task.targets) for task in tasks)
        block = np.full((len(tasks), len(channels), most), np.nan)
        for number, part in enumerate(parts):
            if part.per_image is not None:
                block[number, :, : part.per_image.shape[1]] = part.per_image
        variables["image_loss_increase"] = (("task", "unit", "stimulus"), block)
        ids = np.full((len(tasks), most), "", dtype=object)
        for number, task in enumerate(tasks):
            ids[number, : len(task.targets)] = task.ids if task.ids is not None else np.arange(len(task.targets))
        variables["image"] = (("task", "stimulus"), ids.astype(str))
    coords = {"task": np.array([task.name for task in tasks]), "unit": channels}
    dataset = xr.Dataset(variables, coords)
    dataset.attrs["ordered"] = min(part.ordered for part in parts)
    dataset.attrs["sweeps"] = "; ".join(sorted(set().union(*(part.method for part in parts)))) or "none"
    return dataset
