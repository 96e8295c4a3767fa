"""The forward hooks that write a lesion into a layer's output."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from actkit.errors import InputError, LayerError
from actkit.layers import LayerInfo, first_tensor
from actkit.lesion_values import Values, recorded_shape
from actkit.replay_lesion import Site, channel_axis, find_site, replace_tensor, unwrapped
from actkit.resampling import generator
from actkit.units import UnitSet, channel_count

__all__ = ["Lesion", "lesion_site"]

# A stimulus of the reference is taken for the stimulus that runs where its units differ by no more than this share of
# their largest value: rounding differs between batch sizes and devices.
_SAME = 1e-4


def lesion_site(module: torch.nn.Module, root: torch.nn.Module, name: str) -> Site:
    """Find a layer, whether or not a wrapper's ``module.`` stands before its name.

    Parameters
    ----------
    module : torch.nn.Module
        The network as the caller has it.
    root : torch.nn.Module
        The network inside its wrapper.
    name : str
        The layer.

    Returns
    -------
    Site
        Path within ``root``, and call.

    Raises
    ------
    LayerError
        If there is no such layer.
    """
    for words in (name, f"module.{name}", name.removeprefix("module.")):
        try:
            return find_site(root, words)
        except LayerError:
            continue
    return find_site(module, name)  # raises, and names the nearest


class _Here(threading.local):
    """What one thread knows of its forward pass: replicas of a data-parallel network run in threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.keys: list[int] = []
        self.donors: torch.Tensor | None = None


class Lesion:
    """The hooks of one context.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    units : UnitSet
        What to lesion.
    values : Values
        What to write.
    record : mapping
        The lesion as provenance has it; the hooks carry it, so that a lesioned network has a fingerprint of its own.
    seed : int
        For ``permute``.
    infos : mapping of str to LayerInfo
        What a dry run said about the layers, where there was one.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        units: UnitSet,
        values: Values,
        record: Mapping[str, Any],
        seed: int,
        infos: Mapping[str, LayerInfo],
    ) -> None:
        self.root = unwrapped(module)
        self.units = {name: units.in_layer(name) for name in units.layers}
        self.sites = {name: lesion_site(module, self.root, name) for name in units.layers}
        self.values, self.infos, self.seed = values, infos, seed
        self.open = False
        self.passes = 0
        self.ran: set[str] = set()
        self._here = _Here()
        self._handles: list[Any] = []
        self._checked: set[tuple[str, tuple[int, ...]]] = set()
        known = {key: value for key, value in record.items() if key != "question"}
        self._fingerprint = f"actkit lesion {json.dumps(known, sort_keys=True)}"
        for name, site in self.sites.items():
            if _scripted(self.root, site.path):
                raise LayerError(f"layer {name!r} is inside a scripted module, which calls no hooks; give the original")

    def attach(self) -> None:
        """Set the hooks."""
        self.open = True
        if not self.sites:
            return
        start, finish = self._start(), self._finish()
        for hook in (start, finish):
            hook.fingerprint = self._fingerprint  # type: ignore[attr-defined]
        self._handles.append(self.root.register_forward_pre_hook(start, with_kwargs=True))
        paths = dict(self.root.named_modules())
        for name, site in self.sites.items():
            hook = self._hook(name, site)
            hook.fingerprint = f"{self._fingerprint} {name}"  # type: ignore[attr-defined]
            target = paths.get(site.path, self.root)
            self._handles.append(target.register_forward_hook(hook))
        self._handles.append(self.root.register_forward_hook(finish))

    def remove(self) -> None:
        """Take the hooks away; copies of the network made meanwhile are intact too."""
        self.open = False
        for handle in self._handles:
            handle.remove()

    def check_ran(self) -> None:
        """Refuse a lesion that nothing came of although the network ran."""
        idle = [name for name in self.sites if name not in self.ran]
        if self.passes and idle:
            raise LayerError(
                f"layer {idle[0]!r} never ran in the {self.passes} forward passes of this context, so its lesion had "
                "no effect; name a layer whose module is called"
            )

    # Hooks are plain functions, not bound methods: a copy of the network must not copy what they know.

    def _start(self) -> Callable[..., None]:
        def start(_module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            here = self._here
            here.counts.clear()
            here.donors = None
            if self.open and self.values.mode == "permute":
                inputs, note = first_tensor([args, kwargs])
                if inputs is None or not inputs.ndim:
                    raise InputError(f"a permuting lesion needs the network's input as a tensor: {note}")
                here.keys = [_key(row) for row in inputs]

        return start

    def _finish(self) -> Callable[..., None]:
        def finish(_module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
            if not self.open:
                return
            self.passes += 1
            for name, site in self.sites.items():
                if site.call is None and self._here.counts[name] > 1:
                    raise LayerError(
                        f"layer {name!r} runs {self._here.counts[name]} times in one forward pass; name the calls to "
                        f"lesion: '{name}@0', '{name}@1', …"
                    )

        return finish

    def _hook(self, name: str, site: Site) -> Callable[..., Any]:
        def hook(module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
            if not self.open:
                return None
            call = self._here.counts[name]
            self._here.counts[name] = call + 1
            if site.call is not None and call != site.call:
                return None
            tensor, note = first_tensor(output)
            if tensor is None:
                raise LayerError(f"layer {name!r} cannot be lesioned: {note}; name a layer that returns a tensor")
            if not tensor.is_floating_point() or tensor.layout != torch.strided:
                raise LayerError(
                    f"layer {name!r} cannot be lesioned: its output is a {tensor.layout} tensor of {tensor.dtype}; "
                    "name a layer of real numbers"
                )
            self.ran.add(name)
            changed = tensor.clone()
            self._write(name, self._channels_second(name, module, changed))
            return replace_tensor(output, changed)

        return hook

    def _channels_second(self, name: str, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        """A view (stimuli, channels, …positions) of a layer's output."""
        info, shape = self.infos.get(name), self.units[name].shapes.get(name)
        if info is not None:
            view = info.arrange(output)
            return view.movedim(-1, 1) if view.ndim == 3 else view
        if output.ndim < 2:
            raise LayerError(
                f"layer {name!r} cannot be lesioned: its output has shape {tuple(output.shape)}, without a channel axis"
            )
        axis = channel_axis(module, output)
        if shape is not None and output.ndim in (3, 4) and len(shape) == output.ndim - 1:
            n = channel_count(shape)
            fits = [i for i in (1, output.ndim - 1) if output.shape[i] == n]
            axis = fits[0] if len(fits) == 1 else axis
        return output.movedim(axis, 1)

    def _write(self, name: str, view: torch.Tensor) -> None:
        """Write the lesion into a view (stimuli, channels, …positions)."""
        units = self.units[name]
        shape = recorded_shape(tuple(view.shape[1:]))
        if (name, shape) not in self._checked:
            known = units.shapes.get(name)
            if known is not None and channel_count(known) != view.shape[1]:
                raise LayerError(
                    f"layer {name!r} has {view.shape[1]} channels here, and the units were chosen among "
                    f"{channel_count(known)}; they are of another network"
                )
            units.check({name: shape})
            self._checked.add((name, shape))
        for part in self.values.parts(name, tuple(view.shape[1:])):
            where: tuple[Any, ...] = (slice(None), *(torch.from_numpy(index).to(view.device) for index in part.index))
            if part.fill is not None:
                fill = torch.from_numpy(part.fill).to(view.device, view.dtype)
                view[where] = fill.reshape(-1, *[1] * (view.ndim - 1 - len(part.index)))
            elif part.rows is not None:
                rows = part.rows[self._donors(name, view, part.rows, where)]
                view[where] = rows.to(view.device, view.dtype)
            elif self.values.mode == "scale":
                view[where] = view[where] * self.values.factor
            else:
                view[where] = 0

    def _donors(self, name: str, view: torch.Tensor, reference: torch.Tensor, where: Any) -> torch.Tensor:
        """The stimulus of the reference that each stimulus of the batch takes its values from."""
        here = self._here
        if len(here.keys) != len(view):
            raise LayerError(
                f"layer {name!r} gives {len(view)} rows for {len(here.keys)} stimuli, so a permuting lesion cannot "
                "tell which row is whose; use another mode, or run the whole network"
            )
        if here.donors is None:
            own = view[where].detach().cpu().to(reference.dtype).flatten(1)
            rows = reference.flatten(1)
            donors = []
            for key, mine in zip(here.keys, own, strict=True):
                order = generator(self.seed, key).permutation(len(rows)).tolist()
                margin = _SAME * float(mine.abs().max())
                other = (row for row in order if float((rows[row] - mine).abs().max()) > margin)
                donors.append(next(other, order[0]))  # where all are equal, any will do
            here.donors = torch.tensor(donors)
        return here.donors


def _key(stimulus: torch.Tensor) -> int:
    """A number for a stimulus by its content, the same in any batch, on any device and in any float type."""
    plain = stimulus.detach().cpu()
    plain = plain.to(torch.float32) if plain.is_floating_point() else plain
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    return int.from_bytes(hashlib.blake2b(data.data, digest_size=8).digest(), "little")


def _scripted(root: torch.nn.Module, path: str) -> bool:
    """Whether a module, or one that holds it, runs as TorchScript."""
    parts = [] if path in ("output", "__output__") else path.split(".")
    holders = [root, *(root.get_submodule(".".join(parts[: i + 1])) for i in range(len(parts)))]
    return any(isinstance(holder, torch.jit.ScriptModule) for holder in holders)
