"""Weight masks: where in a network the few weights lie that one sub-task needs.

Source: Béna & Goodman (2021), arXiv 2106.02626v1: a score for every weight is learnt while weights stay as they are,
and the network with the top q % of the scores kept must report one sub-task. The gradient passes straight through the
mask, as in Ramanujan et al. (2020), What's hidden in a randomly weighted neural network?, CVPR.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch.func import functional_call, grad, stack_module_state, vmap

from actkit.analyses.specialization_index import raw_difference, specialization_of
from actkit.analyses.threads import single_torch
from actkit.compute import progress as progress_bar
from actkit.errors import ActkitError, InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe

__all__ = ["WeightMaskOptions", "weight_masks"]

_FIXED = -1  # part number of weights that no mask removes


class WeightMaskOptions(Options):
    """Options of :func:`weight_masks`."""

    share: float = Field(0.05, gt=0, lt=1, description="Share q of the masked weights that is kept.")
    epochs: int = Field(1, ge=1, description="Passes over the training stimuli.")
    batch: int = Field(256, ge=1, description="Stimuli in a batch; what is left over is dropped.")
    learning_rate: float = Field(0.1, gt=0, description="Learning rate of gradient descent on the scores.")
    held_out: float = Field(0.2, gt=0, lt=1, description="Share of the stimuli that masked networks are tested on.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of first scores, order and held-out stimuli.")


@with_options(WeightMaskOptions)
def weight_masks(
    modules: Sequence[torch.nn.Module],
    inputs: torch.Tensor,
    labels: Mapping[str, np.ndarray],
    parts: Mapping[str, np.ndarray],
    names: Sequence[str],
    progress: bool | None = None,
    *,
    options: WeightMaskOptions,
) -> xr.Dataset:
    """Learn which weights each sub-task needs, for networks of one architecture together.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        Networks that differ in weights and buffers alone; they are not changed.
    inputs : torch.Tensor
        ``(stimulus, …)`` shown to all networks, or ``(network, stimulus, …)``; labels have the same leading dims.
    labels : mapping of sub-task to array of int
        ``(stimulus,)`` or ``(network, stimulus)``: the output column that is right, of those that are the first K.
    parts : mapping of parameter name to array of int
        For every parameter that is masked, of its shape: number of the part that each weight lies in, -1 for weights
        that are always kept. Parameters that are not named are always kept.
    names : sequence of str
        Names of the parts, by number.
    progress : bool, optional
        Show a bar over the sub-tasks; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims network, part and task: ``known``, the share of the kept weights that lie in a part; ``S``, its
        specialization; ``raw_difference``; ``accuracy`` (network, task) of the masked network on held-out stimuli, to
        be read beside every S. Between parts of unequal size, shares say more about the larger one.

    Raises
    ------
    InputError
        If there is no network, labels do not fit, a parameter or part does not exist, or nothing is masked.
    ActkitError
        If scores are no longer finite.
    """
    if not modules:
        raise InputError("there is no network; give at least one")
    columns = {name: np.asarray(values, dtype=np.int64) for name, values in labels.items()}
    own = next(iter(columns.values())).ndim == 2
    n = next(iter(columns.values())).shape[-1]
    lead = (len(modules), n) if own else (n,)
    if (
        len(columns) < 2
        or any(values.shape != lead for values in columns.values())
        or inputs.shape[: len(lead)] != lead
    ):
        raise InputError(
            f"inputs {tuple(inputs.shape)} and labels {[values.shape for values in columns.values()]} do not fit "
            f"{len(modules)} networks; give two sub-tasks or more, (stimulus,) or (network, stimulus) throughout"
        )
    shapes = {name: tuple(value.shape) for name, value in modules[0].named_parameters()}
    for name, index in parts.items():
        if shapes.get(name) != np.shape(index):
            raise InputError(
                f"parts of {name!r} have shape {np.shape(index)}, and the parameter "
                f"{shapes.get(name, 'does not exist')}; the parameters are {sorted(shapes)}"
            )
    part = np.concatenate([np.asarray(index).ravel() for index in parts.values()]) if parts else np.empty(0, dtype=int)
    if not (part >= 0).any() or part.max() >= len(names) or part.min() < _FIXED:
        raise InputError(
            f"parts are numbered {np.unique(part).tolist()} and there are {len(names)} names; number them from 0"
        )

    masked = _Masked(modules, parts, options.share)
    order = generator(options.seed, 0, Stream.PERMUTATIONS).permutation(n)
    test, train = np.sort(order[: max(1, round(n * options.held_out))]), order[max(1, round(n * options.held_out)) :]
    if len(train) < min(options.batch, n):
        options = options.model_copy(update={"batch": max(1, len(train))})
    known = np.empty((len(modules), len(names), len(columns)))
    accuracy = np.empty((len(modules), len(columns)))
    with single_torch():
        for k, (name, values) in enumerate(
            progress_bar(list(columns.items()), desc="weight masks", unit="task", enabled=progress)
        ):
            targets = torch.from_numpy(values)
            scores = masked.first_scores(options.seed)
            for epoch in range(options.epochs):
                shuffled = generator(options.seed, 1 + epoch, Stream.STIMULI).permutation(train)
                for start in range(0, len(train) - options.batch + 1, options.batch):
                    rows = torch.from_numpy(shuffled[start : start + options.batch])
                    x, y = (inputs[:, rows], targets[:, rows]) if own else (inputs[rows], targets[rows])
                    step = masked.gradient(scores, x, y, own)
                    scores = {key: value - options.learning_rate * step[key] for key, value in scores.items()}
            if not all(torch.isfinite(value).all() for value in scores.values()):
                raise ActkitError(f"scores of {name!r} are no longer finite; give a lower learning_rate")
            rows = torch.from_numpy(test)
            x, y = (inputs[:, rows], targets[:, rows]) if own else (inputs[rows], targets[rows])
            known[:, :, k] = masked.shares(scores, len(names))
            accuracy[:, k] = masked.accuracy(scores, x, y, own)
    result = xr.Dataset(
        {
            "known": (("network", "part", "task"), known, _about("share of the kept weights in a part")),
            "S": ("network", specialization_of(known), _about("specialization")),
            "raw_difference": ("network", raw_difference(known), _about("difference between parts, not divided")),
            "accuracy": (("network", "task"), accuracy, _about("share right, masked network")),
        },
        coords={"part": list(names), "task": list(columns)},
    )
    return describe(result, "weight_masks", options, {}, share=options.share, seed=options.seed)


class _Masked:
    """Networks of one architecture with a mask over some of their weights."""

    def __init__(self, modules: Sequence[torch.nn.Module], parts: Mapping[str, np.ndarray], share: float) -> None:
        self.parameters, self.buffers = stack_module_state(list(modules))
        self.parameters = {name: value.detach() for name, value in self.parameters.items()}
        self.base = copy.deepcopy(modules[0]).to("meta").eval()
        self.parts = {name: torch.from_numpy(np.array(index, dtype=np.int64)) for name, index in parts.items()}
        self.free = {name: index >= 0 for name, index in self.parts.items()}
        total = sum(int(free.sum()) for free in self.free.values())
        self.kept = max(1, math.floor(share * total))

    def first_scores(self, seed: int) -> dict[str, torch.Tensor]:
        """Uniform scores, the same for all networks (Kaiming's bound with a = √5: 1/√fan-in)."""
        random = generator(seed, 0, Stream.SUBJECTS)
        scores = {}
        for name in self.parts:
            shape = self.parameters[name].shape
            bound = 1 / math.sqrt(shape[-1])
            drawn = torch.from_numpy(random.uniform(-bound, bound, size=tuple(shape[1:])).astype(np.float32))
            scores[name] = drawn.expand(shape).clone()
        return scores

    def _masks(self, scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """1 for the weights that are kept; gradients pass to the scores unchanged."""
        flat = torch.cat([value[self.free[name]] for name, value in scores.items()])
        bound = flat.detach().topk(self.kept).values[-1]
        masks = {}
        for name, value in scores.items():
            hard = (value.detach() >= bound) | ~self.free[name]
            masks[name] = hard.to(value.dtype) + (value - value.detach()) * self.free[name]
        return masks

    def _answer(
        self,
        scores: Mapping[str, torch.Tensor],
        parameters: Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor],
        x: torch.Tensor,
    ) -> torch.Tensor:
        masks = self._masks(scores)
        weights = {name: value * masks[name] if name in masks else value for name, value in parameters.items()}
        return functional_call(self.base, (weights, dict(buffers)), (x,))  # type: ignore[no-any-return]

    def gradient(
        self, scores: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, own: bool
    ) -> dict[str, torch.Tensor]:
        """Gradient of each network's loss by its scores."""

        def loss(
            one: dict[str, torch.Tensor],
            parameters: dict[str, torch.Tensor],
            buffers: dict[str, torch.Tensor],
            images: torch.Tensor,
            right: torch.Tensor,
        ) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self._answer(one, parameters, buffers, images), right)

        data = 0 if own else None
        step = vmap(grad(loss), in_dims=(0, 0, 0, data, data))
        return step(scores, self.parameters, self.buffers, x, y)  # type: ignore[no-any-return]

    def accuracy(self, scores: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, own: bool) -> np.ndarray:
        """Share right of each masked network."""
        with torch.no_grad():
            logits = vmap(self._answer, in_dims=(0, 0, 0, 0 if own else None))(scores, self.parameters, self.buffers, x)
            return (logits.argmax(dim=-1) == y).double().mean(dim=-1).numpy()

    def shares(self, scores: dict[str, torch.Tensor], n_parts: int) -> np.ndarray:
        """``(network, part)`` share of the kept weights in each part."""
        out = np.empty((len(next(iter(scores.values()))), n_parts))
        for network in range(len(out)):
            one = {name: value[network] for name, value in scores.items()}
            masks = self._masks(one)
            counts = torch.zeros(n_parts)
            for name, mask in masks.items():
                inside = (mask > 0.5) & self.free[name]
                counts += torch.bincount(self.parts[name][inside], minlength=n_parts)
            out[network] = (counts / counts.sum()).numpy()
        return out


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}
