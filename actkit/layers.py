"""Naming, listing, selecting and capturing the layers of a network.

A *layer* is one call of one module. Its name is the module's path; a module that runs several times
gives ``name@0``, ``name@1``, … Layers are listed in the order in which their outputs appear, found by
running the network, never from the order in which modules were registered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from actkit.errors import LayerError, nearest

Sink = Callable[[str, torch.Tensor], None]

_CALL = re.compile(r"^(?P<path>.*)@(?P<call>\d+)$")
_PROBE_ROWS = (3, 2)


@dataclass(frozen=True)
class LayerInfo:
    """One layer: one call of one module, as the dry run saw it.

    Attributes
    ----------
    name : str
        Unique name, the module path with ``@call`` where the module runs several times.
    type : str
        Class name of the module.
    call : int or None
        Which call of the module, from 0; None where it runs once.
    calls : int
        How often the module runs in one forward pass.
    shape : tuple of int
        Shape of one stimulus' output, batch axis removed, channel axis first.
    dtype : str
        Type of the tensor that the module returns (``"float32"``, ``"int64"`` …); recording casts to float32.
    batch_axis : int or None
        Axis that carries the stimuli in the module's own output; None where none does.
    output_note : str
        What had to be decided to make an array of the output; empty for the plain case.
    parameters : int
        Number of parameters that the module itself owns, children excluded.
    module : str
        Path of the module.
    bases : tuple of str
        Names of the module's classes, its own first, up to but without ``Module``.
    fold : int
        Rows of the batch axis that belong to one stimulus (windows, patches); 1 for the plain case.
    channels_last : bool
        Whether the module's output ends in its channel axis (moved to the front by `arrange`).
    problem : str
        Why the layer cannot be recorded; empty where it can.
    """

    name: str
    type: str
    call: int | None
    calls: int
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None
    output_note: str
    parameters: int
    module: str
    bases: tuple[str, ...] = ()
    fold: int = 1
    channels_last: bool = False
    problem: str = ""

    def arrange(self, tensor: torch.Tensor) -> torch.Tensor:
        """Bring a module's output into recorded form: stimuli first, then channels.

        Parameters
        ----------
        tensor : torch.Tensor
            The module's output, stimuli on ``batch_axis``.

        Returns
        -------
        torch.Tensor
            A view (or, for folded rows, sometimes a copy) of shape (stimuli, *shape).
        """
        axis = self.batch_axis or 0
        if self.fold > 1:
            tensor = tensor.unflatten(axis, (-1, self.fold))
        if axis:
            tensor = tensor.movedim(axis, 0)
        if self.channels_last:
            tensor = tensor.movedim(-1, 1)
        return tensor


class _Stop(BaseException):
    """Ends a forward pass after the last wanted layer.

    Not an ``Exception``: a network that guards a step with ``except Exception`` must not swallow it.
    """


def first_tensor(output: Any) -> tuple[torch.Tensor | None, str]:
    """Find the tensor that stands for a module's output.

    Parameters
    ----------
    output : object
        A tensor, or tuples, lists, mappings (``ModelOutput`` too) and dataclasses that hold one.

    Returns
    -------
    tensor : torch.Tensor or None
        The first tensor, depth first in the container's own order; None where there is none.
    note : str
        Where it was found; empty for a plain tensor.
    """
    if isinstance(output, torch.Tensor):
        return output, ""
    items: Iterable[tuple[str, Any]]
    if isinstance(output, Mapping):
        items = [(repr(key), value) for key, value in output.items()]
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", None)
        items = [(repr(names[i]) if names else str(i), value) for i, value in enumerate(output)]
    elif is_dataclass(output) and not isinstance(output, type):
        items = [(repr(field.name), getattr(output, field.name)) for field in fields(output)]
    else:
        return None, f"no tensor in a {type(output).__name__}"
    count = len(list(items))
    for key, value in items:
        tensor, _ = first_tensor(value)
        if tensor is not None:
            return tensor, f"first tensor (item {key}) of a {type(output).__name__} of {count}"
    return None, f"no tensor in a {type(output).__name__} of {count}"


def module_paths(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Name every module of a network; the network itself is called ``output``.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    dict of str to torch.nn.Module
        First path of each distinct module, in registration order.
    """
    root = _root_name(module)
    return {path or root: child for path, child in module.named_modules()}


def _root_name(module: torch.nn.Module) -> str:
    """``output``, unless a child already has that name."""
    return "__output__" if any(path == "output" for path, _ in module.named_children()) else "output"


def _aliases(module: torch.nn.Module) -> dict[str, str]:
    """Map the further paths of modules that are registered more than once to their first path."""
    first = {id(child): path for path, child in module_paths(module).items()}
    found = {}
    for path, child in module.named_modules(remove_duplicate=False):
        if path and first[id(child)] != path:
            found[path] = first[id(child)]
    return found


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and put every module's own training flag back afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Where no module is in train mode nothing is called: some modules rewrite their
        weights when their mode changes.
    """
    flags = [(child, child.training) for child in module.modules()]
    if not any(flag for _, flag in flags):
        yield
        return
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        if was_training:
            module.train()
        for child, flag in flags:
            child.training = flag


@contextmanager
def capture(
    module: torch.nn.Module, names: Sequence[str], sink: Sink, stop: bool = True
) -> Iterator[Callable[[torch.Tensor], Any]]:
    """Hand the outputs of chosen layers to a function while the network runs.

    Inside the context the network is in evaluation mode. Leaving it, by an exception or not, removes
    the hooks and restores every module's training flag.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    names : sequence of str
        Layer names (``path`` or ``path@call``).
    sink : callable
        Called as ``sink(name, tensor)`` the moment the layer has run, with the first tensor of its
        output, its batch axis where the module put it. It must copy what it keeps: an in-place
        operation that follows overwrites the tensor.
    stop : bool
        Whether to end each forward pass after the last of the layers.

    Yields
    ------
    callable
        ``forward(batch)``: runs the network on a copy of the batch (an in-place first layer must not
        overwrite the caller's) under ``torch.inference_mode()``. Returns the network's output, or None
        where the pass was stopped.

    Raises
    ------
    LayerError
        If a name does not exist; or, from ``forward``, if a layer did not run, a name without a call
        number ran twice, or an output holds no tensor.
    """
    paths = module_paths(module)
    wanted: dict[str, dict[int | None, str]] = {}
    for name in names:
        path, call = split_name(name, paths)
        if path not in paths:
            raise LayerError(f"no layer {name!r} in {type(module).__name__}; {nearest(path, paths)}")
        wanted.setdefault(path, {})[call] = name
    counts: Counter[str] = Counter()
    missing: set[str] = set()

    def make_hook(path: str, calls: dict[int | None, str]) -> Callable[..., None]:
        single = None in calls

        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            call = counts[path]
            counts[path] = call + 1
            if stop and not missing:
                return  # the stop was swallowed somewhere; what still runs is not wanted
            name = calls.get(None) if single else calls.get(call)
            if name is None:
                return
            if single and call:
                raise LayerError(f"layer {path!r} runs more than once; name its calls: '{path}@0', '{path}@1', …")
            tensor, note = first_tensor(output)
            if tensor is None:
                raise LayerError(f"layer {name!r} cannot be recorded: {note}")
            sink(name, tensor)
            missing.discard(name)
            if stop and not missing:
                raise _Stop

        return hook

    def forward(batch: torch.Tensor) -> Any:
        counts.clear()
        missing.clear()
        missing.update(names)
        output = None
        with torch.inference_mode(), suppress(_Stop):
            output = module(batch.clone())
        if missing:
            first = next(name for name in names if name in missing)
            raise LayerError(
                f"layer {first!r} did not run in this forward pass ({len(missing)} of {len(names)} layers missing); "
                "record layers that run for every input"
            )
        return output

    handles = []
    try:
        with evaluating(module):
            for path, calls in wanted.items():
                handles.append(paths[path].register_forward_hook(make_hook(path, calls)))
            yield forward
    finally:
        for handle in handles:
            handle.remove()


def split_name(name: str, paths: Iterable[str] = ()) -> tuple[str, int | None]:
    """Take a layer name apart.

    Parameters
    ----------
    name : str
        ``path`` or ``path@call``.
    paths : iterable of str
        Known module paths: a name among them is a path even if it looks like ``path@call``.

    Returns
    -------
    path : str
        Path of the module.
    call : int or None
        The call, where the name states one.

    Examples
    --------
    >>> split_name("layer1.0.relu@1")
    ('layer1.0.relu', 1)
    >>> split_name("fc")
    ('fc', None)
    """
    match = None if name in set(paths) else _CALL.match(name)
    return (match["path"], int(match["call"])) if match else (name, None)


@dataclass(frozen=True)
class _Seen:
    """What one call of one module gave in a dry run."""

    path: str
    call: int
    shape: tuple[int, ...] | None
    dtype: str
    note: str
    strided: bool


def list_layers(module: torch.nn.Module, probe: torch.Tensor) -> list[LayerInfo]:
    """List the layers of a network in execution order.

    The network runs twice, on two and on three stimuli: the axis whose size follows the number of
    stimuli is the batch axis, wherever a module puts it. Where that axis holds k rows per stimulus
    (windows, patches) a further pair of runs checks that rows of one stimulus stand together.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    probe : torch.Tensor
        Input batch of at least three stimuli, shape (stimuli, …), on the network's device.

    Returns
    -------
    list of LayerInfo
        Every call of every module that ran, also those that cannot be recorded (see ``problem``).

    Raises
    ------
    LayerError
        If the network runs different modules for two and for three stimuli.
    """
    if len(probe) < max(_PROBE_ROWS):
        raise ValueError(f"the probe holds {len(probe)} stimuli; listing layers needs {max(_PROBE_ROWS)}")
    three, two = (_dry_run(module, probe[:rows]) for rows in _PROBE_ROWS)
    if [(s.path, s.call) for s in three] != [(s.path, s.call) for s in two]:
        raise LayerError(
            f"{type(module).__name__} runs other modules for two stimuli than for three; "
            "its layers cannot be named for a recording"
        )
    paths = module_paths(module)
    calls = Counter(seen.path for seen in three)
    layers = [_describe(paths[a.path], a, b, calls[a.path]) for a, b in zip(three, two, strict=True)]
    folded = [layer.name for layer in layers if layer.fold > 1 and not layer.problem]
    if folded:
        mixed = _mixed_rows(module, probe, {layer.name: layer for layer in layers if layer.name in folded})
        layers = [
            replace(layer, problem="the rows of one stimulus do not stand together on its batch axis")
            if layer.name in mixed
            else layer
            for layer in layers
        ]
    return layers


def _dry_run(module: torch.nn.Module, batch: torch.Tensor) -> list[_Seen]:
    """Run a batch through the network and note every module's output."""
    seen: list[_Seen] = []
    counts: Counter[str] = Counter()

    def make_hook(path: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            tensor, note = first_tensor(output)
            shape = None if tensor is None else tuple(tensor.shape)
            dtype = "" if tensor is None else str(tensor.dtype).removeprefix("torch.")
            strided = tensor is not None and tensor.layout == torch.strided and not tensor.is_quantized
            seen.append(_Seen(path, counts[path], shape, dtype, note, strided))
            counts[path] += 1

        return hook

    handles = []
    try:
        with evaluating(module):
            for path, child in module_paths(module).items():
                handles.append(child.register_forward_hook(make_hook(path)))
            with torch.inference_mode():
                module(batch.clone())
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _describe(module: torch.nn.Module, three: _Seen, two: _Seen, calls: int) -> LayerInfo:
    """Make a LayerInfo of what two dry runs, on three and on two stimuli, saw of a layer."""
    notes = [three.note] if three.note else []
    problem, axis, fold, channels_last = "", None, 1, False
    shape: tuple[int, ...] = ()
    if three.shape is None or two.shape is None:
        problem = three.note or "no tensor in its output"
    elif not three.strided:
        problem = "its output is a sparse, nested or quantised tensor"
    elif three.dtype.startswith("complex"):
        problem = f"its output is {three.dtype}; recordings hold real numbers"
    elif len(three.shape) != len(two.shape):
        problem = "its output has another rank for two stimuli than for three"
    else:
        axis, fold, problem = _batch_axis(three.shape, two.shape)
    if not problem and three.shape is not None and axis is not None:
        shape = tuple(size for i, size in enumerate(three.shape) if i != axis)
        if fold > 1:
            shape = (fold, *shape)
            notes.append(f"{fold} rows of axis {axis} belong to one stimulus")
        if axis:
            notes.append(f"batch axis {axis} moved to the front")
        if fold == 1 and axis == 0 and len(shape) == 3 and shape[0] == shape[1] != shape[2]:
            # (H, W, C) of networks that keep channels last; a square (C, H, W) map cannot look like this
            channels_last, shape = True, (shape[2], shape[0], shape[1])
            notes.append("last axis taken as channels and moved to the front")
        if not all(shape):
            problem = f"its output is empty (shape {shape} per stimulus)"
        if three.dtype != "float32":
            notes.append(f"{three.dtype} recorded as float32")
    classes = [cls.__name__ for cls in type(module).__mro__ if issubclass(cls, torch.nn.Module)]
    return LayerInfo(
        name=three.path if calls == 1 else f"{three.path}@{three.call}",
        type=type(module).__name__,
        call=None if calls == 1 else three.call,
        calls=calls,
        shape=shape,
        dtype=three.dtype,
        batch_axis=axis,
        output_note="; ".join(notes),
        parameters=sum(p.numel() for p in module.parameters(recurse=False)),
        module=three.path,
        bases=tuple(name for name in classes if name != "Module") or (type(module).__name__,),
        fold=fold,
        channels_last=channels_last,
        problem=problem,
    )


def _batch_axis(three: tuple[int, ...], two: tuple[int, ...]) -> tuple[int | None, int, str]:
    """The axis that follows the number of stimuli, its rows per stimulus, and what is wrong if anything."""
    changed = [i for i, (a, b) in enumerate(zip(three, two, strict=True)) if a != b]
    plain = [i for i in changed if (three[i], two[i]) == _PROBE_ROWS]
    folded = [i for i in changed if three[i] * 2 == two[i] * 3 and i not in plain]
    if not changed:
        return None, 1, "its output does not change with the number of stimuli (no batch axis)"
    if len(changed) > 1:
        return None, 1, f"several axes of its output ({changed}) follow the number of stimuli or the input"
    if plain:
        return plain[0], 1, ""
    if folded:
        return folded[0], three[folded[0]] // 3, ""
    return None, 1, "the shape of its output depends on the stimuli"


def _mixed_rows(module: torch.nn.Module, probe: torch.Tensor, layers: Mapping[str, LayerInfo]) -> set[str]:
    """Folded layers whose first stimuli give other values when a third stimulus joins the batch."""
    kept: dict[str, torch.Tensor] = {}
    mixed: set[str] = set()

    def keep(name: str, tensor: torch.Tensor) -> None:
        kept[name] = layers[name].arrange(tensor)[:2].clone()

    def compare(name: str, tensor: torch.Tensor) -> None:
        rows = layers[name].arrange(tensor)
        if not torch.allclose(rows.float(), kept[name].float(), rtol=1e-3, atol=1e-4, equal_nan=True):
            mixed.add(name)

    for rows, sink in zip(_PROBE_ROWS, (keep, compare), strict=True):
        with capture(module, list(layers), sink) as forward:
            forward(probe[:rows])
    return mixed


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Translate a layer pattern: ``*`` and ``?`` stay within one dotted component, ``**`` crosses dots.

    Parameters
    ----------
    pattern : str
        The pattern; ``[abc]`` and ``[!abc]`` are sets of characters.

    Returns
    -------
    re.Pattern
        To be used with ``fullmatch``.

    Examples
    --------
    >>> bool(pattern_regex("*blocks.*").fullmatch("_blocks.3"))
    True
    >>> bool(pattern_regex("*blocks.*").fullmatch("_blocks.3._bn1"))
    False
    >>> bool(pattern_regex("*blocks.**").fullmatch("_blocks.3._bn1"))
    True
    """
    parts = re.split(r"(\*\*|\*|\?|\[!?[^\]]+\])", pattern)
    special = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    made = []
    for i, part in enumerate(parts):
        if i % 2 == 0:
            made.append(re.escape(part))
        elif part in special:
            made.append(special[part])
        else:
            made.append("[^" + part[2:] if part.startswith("[!") else part)
    return re.compile("".join(made))


def is_pattern(name: str) -> bool:
    """Whether a layer selection is a pattern rather than a name."""
    return any(mark in name for mark in "*?[")


def select_layers(
    layers: Sequence[LayerInfo],
    patterns: str | Iterable[str],
    types: str | Iterable[str] | None = None,
    module: torch.nn.Module | None = None,
) -> list[str]:
    """Choose layers by name, pattern and module type.

    Parameters
    ----------
    layers : sequence of LayerInfo
        The network's layers, as `list_layers` gives them.
    patterns : str or iterable of str
        Names and patterns; a layer is chosen where one of them matches its name or its module's path
        (so ``relu`` and ``*.relu`` choose every call). See `pattern_regex`.
    types : str or iterable of str, optional
        Class names; of the layers matched, keep those whose class or one of its bases is named here
        (``Conv2d`` keeps its sub-classes too).
    module : torch.nn.Module, optional
        The network; with it, a module that exists and never runs is told from a mistyped name, and any
        path of a module that is registered twice will do.

    Returns
    -------
    list of str
        Names in execution order, without layers that cannot be recorded.

    Raises
    ------
    LayerError
        If a pattern or type matches nothing, a named layer never runs, or it cannot be recorded.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    known_types = [types] if isinstance(types, str) else list(types or ())
    if not patterns:
        raise LayerError("no layers are asked for, so nothing would be recorded; '**' asks for all")
    owner = type(module).__name__ if module is not None else "the network"
    paths = list(module_paths(module)) if module is not None else [layer.module for layer in layers]
    aliases = _aliases(module) if module is not None else {}
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _match(layers, aliases.get(pattern, pattern))
        if not matched:
            raise _no_match(pattern, layers, paths, owner)
        good = [layer for layer in matched if not layer.problem]
        if not good or (len(good) < len(matched) and not is_pattern(pattern)):
            bad = next(layer for layer in matched if layer.problem)
            raise LayerError(f"layer {bad.name!r} of {owner} cannot be recorded: {bad.problem}")
        chosen.update(layer.name for layer in good)
    present = {base for layer in layers for base in layer.bases}
    for kind in known_types:
        if kind not in present:
            raise LayerError(f"no module of type {kind!r} runs in {owner}; {nearest(kind, sorted(present))}")
    names = [
        layer.name
        for layer in layers
        if layer.name in chosen and (not known_types or set(known_types) & set(layer.bases))
    ]
    if not names:
        raise LayerError(
            f"no layer of {owner} matches both the patterns {patterns} and the types {known_types}; "
            "leave one of them out"
        )
    return names


def _match(layers: Sequence[LayerInfo], pattern: str) -> list[LayerInfo]:
    """Layers whose name or module path is the pattern, or matches it."""
    exact = [layer for layer in layers if pattern in (layer.name, layer.module)]
    if exact or not is_pattern(pattern):
        return exact
    regex = pattern_regex(pattern)
    return [layer for layer in layers if regex.fullmatch(layer.name) or regex.fullmatch(layer.module)]


def _no_match(pattern: str, layers: Sequence[LayerInfo], paths: Sequence[str], owner: str) -> LayerError:
    """Say why a selection found nothing."""
    names = [layer.name for layer in layers]
    if is_pattern(pattern):
        regex = pattern_regex(pattern)
        idle = [path for path in paths if regex.fullmatch(path)]
        if idle:
            return LayerError(
                f"pattern {pattern!r} matches only modules of {owner} that never run "
                f"({', '.join(map(repr, idle[:3]))}{', …' if len(idle) > 3 else ''}), so there is nothing to record"
            )
        return LayerError(
            f"pattern {pattern!r} matches no layer of {owner} ('*' stays between dots, '**' crosses them); "
            f"{nearest(pattern, names)}"
        )
    path, call = split_name(pattern, paths)
    calls = sum(layer.module == path for layer in layers)
    if call is not None and calls:
        valid = f"'{path}'" if calls == 1 else f"'{path}@0' to '{path}@{calls - 1}'"
        return LayerError(f"no layer {pattern!r} in {owner}: the module runs {calls} time(s); use {valid}")
    if path in paths:
        return LayerError(
            f"layer {pattern!r} exists in {owner} but never runs, so there is nothing to record; "
            f"choose one that does: {nearest(pattern, names)}"
        )
    return LayerError(f"no layer {pattern!r} in {owner}; {nearest(pattern, names)}")


def check_replay(module: torch.nn.Module, batch: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """Re-run each captured layer alone on its captured input and compare: a check of the capture itself.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    batch : torch.Tensor
        A small input batch.
    names : sequence of str
        Layers to check.

    Returns
    -------
    dict of str to float
        For each layer, the largest absolute difference between what was captured in the pass and what
        the module gives for the same input afterwards, over the largest captured magnitude. Above
        rounding it means that the output was overwritten before it was copied, or that the module is
        random or keeps state.
    """
    paths = module_paths(module)
    wanted: dict[str, dict[int | None, str]] = {}
    for name in names:
        path, call = split_name(name, paths)
        wanted.setdefault(path, {})[call] = name
    inputs: dict[str, tuple[Any, Any]] = {}
    outputs: dict[str, torch.Tensor] = {}
    counts: Counter[str] = Counter()

    def make_hook(path: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            name = wanted[path].get(counts[path], wanted[path].get(None))
            counts[path] += 1
            if name is not None:
                inputs[name] = (_copied(args), _copied(kwargs))

        return hook

    def keep(name: str, tensor: torch.Tensor) -> None:
        outputs[name] = tensor.clone()

    handles = []
    try:
        for path in wanted:
            handles.append(paths[path].register_forward_pre_hook(make_hook(path), with_kwargs=True))
        with capture(module, names, keep) as forward:
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    differences = {}
    with evaluating(module), torch.inference_mode():
        for name in names:
            args, kwargs = inputs.pop(name)
            again, _ = first_tensor(paths[split_name(name, paths)[0]](*args, **kwargs))
            assert again is not None  # the same call gave a tensor before
            first = outputs.pop(name)
            if torch.equal(again, first):  # the usual answer, in one pass over memory
                differences[name] = 0.0
                continue
            first = first.to(torch.float64)
            scale = float(first.abs().max()) or 1.0
            differences[name] = float((again.to(torch.float64) - first).abs().max()) / scale
    return differences


def _copied(value: Any) -> Any:
    """Copy the tensors in a module's arguments."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(item) for item in value)
    return value
