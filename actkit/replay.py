"""Lesion sweeps: what a network loses without each of many sets of channels, exactly and fast.

`sweep` silences one candidate (a set of channels of one layer) after another and scores the network's
output for every image. Three ways give the same numbers:

``hooks``
    one full forward pass per candidate, the lesion written by a forward hook: the plain loop;
``replay``
    the network is cut at the layer: the part before it runs once per batch, the part after it per candidate;
``low_rank``
    replay in which the candidate's own channels alone are carried through channel-wise operations, and the next
    convolution or dense layer is corrected by their share of its output instead of being computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch

from actkit.compute import parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError, nearest
from actkit.layers import evaluating, module_paths
from actkit.replay_engine import ReplayEngine
from actkit.replay_graph import CutError, cut
from actkit.replay_lesion import Lesion, Site, channel_axis, find_site, intercepted, unwrapped

Method = Literal["auto", "replay", "low_rank", "hooks"]
Score = Callable[[torch.Tensor, slice], Mapping[str, torch.Tensor]]
"""Turns the network's output (images, outputs) and the images' place in the inputs into one value per image."""

_HOOK_BATCH = 32
_REASONS = {
    "low_rank": "a linear operation follows the layer through channel-wise ones, so that candidates of at most half of "
    "the channels are corrections of its output",
    "replay": "replay was asked for",
}


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep measured.

    Attributes
    ----------
    values : dict of str to numpy.ndarray
        For each name that the score gave, float64 of shape (candidates, images).
    intact : dict of str to numpy.ndarray
        The same without any candidate (the channels in ``base`` silenced), shape (images,).
    method : str
        ``"hooks"``, ``"replay"`` or ``"low_rank"``: the way that was taken.
    reason : str
        Why that way, in one sentence.
    """

    values: dict[str, np.ndarray]
    method: str
    reason: str
    intact: dict[str, np.ndarray]


class Collector:
    """Calls the score and lays its values out by candidate and image.

    Parameters
    ----------
    score : callable
        As `sweep` takes it.
    twins : sequence of sequences of int
        For each candidate that is run, all the caller's candidates that silence the same channels.
    images : int
        Number of images.
    """

    def __init__(self, score: Score, twins: Sequence[Sequence[int]], images: int) -> None:
        self._score, self._twins = score, twins
        self._shape = (sum(map(len, twins)), images)
        self.values: dict[str, np.ndarray] = {}
        self.intact: dict[str, np.ndarray] = {}

    def intact_logits(self, logits: torch.Tensor, images: slice) -> None:
        """Score the network without a candidate."""
        for name, value in self._scored(logits, images).items():
            self.intact.setdefault(name, np.full(self._shape[1], np.nan))[images] = value

    def candidate_logits(self, candidate: int, logits: torch.Tensor, images: slice) -> None:
        """Score one candidate."""
        for name, value in self._scored(logits, images).items():
            if name not in self.values:
                self.values[name] = np.full(self._shape, np.nan)
            self.values[name][self._twins[candidate], images] = value

    def _scored(self, logits: torch.Tensor, images: slice) -> dict[str, np.ndarray]:
        count = images.stop - images.start
        found = {}
        for name, value in self._score(logits, images).items():
            array = torch.as_tensor(value).detach().to("cpu", torch.float64).numpy()
            if array.shape != (count,):
                raise InputError(
                    f"score {name!r} has shape {array.shape} for {count} images; a sweep needs one value per image, "
                    f"shape ({count},): leave the mean over images to the ranking"
                )
            found[name] = array
        if not found:
            raise InputError("the score function returned no values, so the sweep has nothing to report")
        return found


def sweep(
    module: torch.nn.Module,
    layer: str,
    inputs: torch.Tensor,
    candidates: Sequence[np.ndarray],
    score: Score,
    *,
    base: np.ndarray | Sequence[int] | None = None,
    mode: Literal["zero", "mean"] = "zero",
    fill: np.ndarray | torch.Tensor | None = None,
    method: Method = "auto",
    memory: str | int = "1GB",
    batch: int | None = None,
    axis: int | None = None,
    progress: bool | None = None,
) -> SweepResult:
    """Score a network on every image without each of many sets of channels of one layer.

    The ways differ by rounding alone (losses by 1e-12 in float64, by 1e-5 of their size in float32). Where a lesion
    leaves outputs exactly tied, rounding may break the tie, so that a hit that hangs on it can differ. Candidates that
    silence the same channels are run once.

    Inside :func:`actkit.lesion.lesioned` the sweep runs on the network with that lesion, and takes the plain loop: the
    lesion keeps hooks on the network as a whole, which a part of it would not call. A full forward pass per candidate
    is slow; give channels of the swept layer itself as ``base`` instead.

    Parameters
    ----------
    module : torch.nn.Module
        The network (a `Network` is unwrapped). It runs in evaluation mode and is left as it was.
    layer : str
        Name of the layer (``path`` or ``path@call``); the lesion acts on its output.
    inputs : torch.Tensor
        Images ready for the module, shape (images, ...); batches are moved to the module's device and type.
    candidates : sequence of numpy.ndarray
        For each candidate the indices of the channels to silence; an empty one is the intact network.
    score : callable
        ``score(logits, images)``: the network's output, shape (rows, outputs), and the slice of ``inputs`` that it
        belongs to; returns for each name one value per image, shape (rows,).
    base : array of int, optional
        Channels that are silenced for every candidate, and in ``intact``.
    mode : {"zero", "mean"}
        Silenced channels become 0, or ``fill``.
    fill : numpy.ndarray or torch.Tensor, optional
        For ``mode="mean"``: the value of each channel, shape (channels,), or the mean output, of the shape of one
        image's output.
    method : {"auto", "replay", "low_rank", "hooks"}
        "auto" takes the fastest that works; a named one falls back to the next where it cannot be used, and the
        result's ``reason`` says why.
    memory : str or int
        Budget for what is kept between candidates, such as "1GB".
    batch : int, optional
        Images at a time; by default 32 to 512, the more the smaller the maps, and no more than the budget holds.
    axis : int, optional
        Channel axis of the layer's output, where `channel_axis` would guess wrong.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.

    Returns
    -------
    SweepResult
        Values per candidate and image, the intact values, the way taken and why.

    Raises
    ------
    InputError
        If there are no images, a channel is out of range, ``fill`` is missing, superfluous or of another shape, or
        the score does not give one value per image.
    LayerError
        If the layer does not exist, does not run, runs several times without a call in its name, or gives no tensor.
    """
    whole = module if isinstance(module, torch.nn.Module) else module.module  # a Network holds its module
    module = unwrapped(whole)
    if module is not whole and layer not in module_paths(module):
        layer = layer.removeprefix("module.")  # as a data-parallel wrapper names it
    site = find_site(module, layer)
    _check_options(inputs, mode, fill, method, batch)
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    groups = [np.unique(np.asarray(channels).reshape(-1)) for channels in candidates]
    fixed = np.unique(np.asarray([] if base is None else base).reshape(-1))
    twins: dict[bytes, list[int]] = {}
    for number, group in enumerate(groups):
        twins.setdefault(group.tobytes(), []).append(number)
    collector = Collector(score, list(twins.values()), len(inputs))
    with evaluating(module), torch.no_grad():
        look = _probe(module, site, _to(inputs[:1], like), axis, mode, fill)
        for number, channels in enumerate([fixed, *groups]):
            _check_channels(channels, look.lesion.channels, layer, "base" if number == 0 else f"candidate {number - 1}")
        once = [groups[numbers[0]] for numbers in twins.values()]
        indices = [torch.as_tensor(group.astype(np.int64), device=like.device) for group in once]
        fixed_index = torch.as_tensor(fixed.astype(np.int64), device=like.device)
        hooks = HookEngine(module, site, look.lesion, indices, fixed_index)
        budget = parse_bytes(memory)
        engine, name, reason = _choose(hooks, look, method, budget)
        rows = batch or engine.rows(budget)
        with progress_bar(
            total=len(once) * len(inputs), desc=f"lesions of {layer}", unit="image", enabled=progress
        ) as bar:
            for start, stop in spans(len(inputs), rows):
                images = slice(start, stop)
                for candidate, logits in engine.run(_to(inputs[images], like)):
                    if candidate is None:
                        collector.intact_logits(logits, images)
                    else:
                        collector.candidate_logits(candidate, logits, images)
                        bar.update(stop - start)
    return SweepResult(collector.values, name, reason, collector.intact)


class Engine(Protocol):
    """One way to run the candidates on a batch."""

    def rows(self, memory: int) -> int:
        """Images at a time within a budget in bytes."""

    def run(self, batch: torch.Tensor) -> Iterator[tuple[int | None, torch.Tensor]]:
        """The outputs (images, outputs) of the intact network (None) and of each candidate, in any order."""


class HookEngine:
    """One full forward pass per candidate, the lesion written by a hook: the plain loop."""

    def __init__(
        self,
        module: torch.nn.Module,
        site: Site,
        lesion: Lesion,
        candidates: Sequence[torch.Tensor],
        base: torch.Tensor,
    ) -> None:
        self.module, self.site, self.lesion = module, site, lesion
        self.candidates, self.base = list(candidates), base

    def rows(self, memory: int) -> int:
        """Images at a time: nothing is kept between candidates."""
        return _HOOK_BATCH

    def run(
        self, batch: torch.Tensor, numbers: Iterable[int | None] | None = None
    ) -> Iterator[tuple[int | None, torch.Tensor]]:
        """The outputs of the intact network (None) and of each candidate; of some, where ``numbers`` names them."""
        channels = self.base

        def change(output: torch.Tensor) -> torch.Tensor:
            return self.lesion.write(output, channels) if len(channels) else output

        with intercepted(self.module, self.site, change) as forward:
            for number in (None, *range(len(self.candidates))) if numbers is None else numbers:
                channels = self.base if number is None else torch.cat([self.base, self.candidates[number]])
                yield number, forward(batch)


def _choose(hooks: HookEngine, look: _Look, method: Method, memory: int) -> tuple[Engine, str, str]:
    """The engine for a method, its name and why it was taken.

    A replay is used only if it gives the plain loop's numbers for one image: the first and the last candidate.
    """
    if method == "hooks":
        return hooks, "hooks", "hooks were asked for"
    try:
        made = cut(hooks.module, hooks.site, look.image, _side_by_side(look.image))
    except CutError as error:
        return hooks, "hooks", f"the network cannot be cut at {hooks.site.name!r}: {error}"
    wanted = ("low_rank", "replay") if method in ("auto", "low_rank") else ("replay",)
    reasons: list[str] = []
    for name in wanted:
        # A network that asks for views of its maps runs with the channels apart only.
        for side_by_side in (True, False) if made.channels_last else (False,):
            try:
                engine = ReplayEngine(
                    made, look.lesion, hooks.candidates, hooks.base, name == "low_rank", memory, side_by_side
                )
                live = None
                if side_by_side == made.channels_last:  # given away, since an engine that fails may have changed them
                    live, made.first = made.first, None
                _verify(hooks, engine, look, live)
            except (CutError, RuntimeError, TypeError, ValueError, IndexError) as error:
                failed = str(error)
                continue
            return engine, name, "; ".join(reasons) or _REASONS[name]
        reasons.append(f"{name} does not apply: {failed}")
    return hooks, "hooks", "; ".join(reasons)


def _side_by_side(image: torch.Tensor) -> bool:
    """Whether maps should lie in memory with the channels of a position side by side.

    oneDNN's convolutions and torch's pooling are 15 to 40 % faster so, in VGG16 and in EfficientNet-Lite at 224 pixels;
    torch's own convolutions, which float64 takes, lay such maps out anew each time.
    """
    fast = image.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()
    return image.device.type == "cpu" and fast


def _verify(hooks: HookEngine, engine: ReplayEngine, look: _Look, live: dict[Any, Any] | None) -> None:
    """Compare one image's output with the plain loop's: intact, the smallest lesion and the largest."""
    sizes = {number: len(channels) for number, channels in enumerate(hooks.candidates) if len(channels)}
    numbers = sorted({min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)}) if sizes else []
    if not look.plain:
        if not len(hooks.base):
            look.plain[None] = look.output
        wanted = [None, *numbers] if len(hooks.base) else numbers
        look.plain.update(hooks.run(look.image, wanted))
    for number, output in engine.run(look.image, numbers, live):
        exact = look.plain[number].to(torch.float64)
        if output.shape != exact.shape:
            raise CutError(f"it gives shape {tuple(output.shape)} where the network gives {tuple(exact.shape)}")
        bound = 1e-8 if output.dtype == torch.float64 else 1e-3
        scale = float(exact.abs().max())
        difference = float((output.to(torch.float64) - exact).abs().max())
        if math.isfinite(scale) and not difference <= bound * scale:
            raise CutError(f"its output differs by {difference:.2g} (of {scale:.2g}) from the network's own")


def _to(batch: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Move a batch to the module's device, and floats to its type."""
    return batch.to(like.device, like.dtype if batch.is_floating_point() else batch.dtype)


def _check_options(inputs: torch.Tensor, mode: str, fill: Any, method: str, batch: int | None) -> None:
    """Refuse options that cannot be right."""
    if len(inputs) == 0:
        raise InputError("the sweep was given no images, so no candidate can be scored")
    if batch is not None and batch < 1:
        raise InputError(f"batch is {batch}; a sweep needs at least one image at a time")
    for name, value, known in (("mode", mode, ("zero", "mean")), ("method", method, get_args(Method))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; {nearest(str(value), known)}")
    if mode == "mean" and fill is None:
        raise InputError("mode='mean' needs fill=, the mean of each channel over a reference recording")
    if mode == "zero" and fill is not None:
        raise InputError("fill= is given but mode='zero' does not use it; give mode='mean' or leave fill out")


def _check_channels(channels: np.ndarray, count: int, layer: str, owner: str) -> None:
    """Refuse channels that do not exist."""
    if not len(channels):
        return
    if not np.issubdtype(channels.dtype, np.integer):
        raise InputError(f"{owner} of layer {layer!r} holds {channels.dtype} values; channels are integer indices")
    bad = channels[(channels < 0) | (channels >= count)]
    if len(bad):
        raise InputError(f"{owner} names channel {bad[0]} of layer {layer!r}, which has channels 0 to {count - 1}")


@dataclass(frozen=True, eq=False)
class _Look:
    """One image, how its layer's output is lesioned, the network's output for it, and that of the plain loop."""

    image: torch.Tensor
    lesion: Lesion
    output: torch.Tensor
    plain: dict[int | None, torch.Tensor] = field(default_factory=dict)


def _probe(module: torch.nn.Module, site: Site, batch: torch.Tensor, axis: int | None, mode: str, fill: Any) -> _Look:
    """Run one image to learn what the layer's output looks like."""
    seen: list[torch.Tensor] = []

    def look(output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output

    with intercepted(module, site, look) as forward:
        logits = forward(batch)
    output = seen[0]
    if output.ndim < 2 or len(output) != len(batch):
        raise LayerError(
            f"layer {site.name!r} gives shape {tuple(output.shape)} for {len(batch)} image(s); a sweep needs the "
            "images on axis 0 and channels on another"
        )
    found = channel_axis(module_paths(module)[site.path], output)
    axis = found if axis is None else axis % output.ndim
    if axis == 0:
        raise InputError("axis=0 holds the images, not the channels; name another axis")
    channels = output.shape[axis]
    if mode == "zero":
        return _Look(batch, Lesion(axis, channels), logits)
    filling = torch.as_tensor(fill).to(output.device, output.dtype)
    if filling.shape not in ((channels,), output.shape[1:]):
        raise InputError(
            f"fill has shape {tuple(filling.shape)}; layer {site.name!r} needs one value per channel, ({channels},), "
            f"or one image's output, {tuple(output.shape[1:])}"
        )
    return _Look(batch, Lesion(axis, channels, filling), logits)
