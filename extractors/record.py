"""Recording a network: stimuli in, activation store out.

One forward pass records all requested layers and stops after the last of them. The plan (layers, shapes,
chunks, bytes, identity) is made before the first full batch; see `actkit.extractors.pipeline` for the loop.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from actkit.compute import choose_device, format_bytes, parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, StimulusError, StoreError
from actkit.extractors.pipeline import Recipe, Recorder, prepare_batch, record_blocks, steady_heap
from actkit.extractors.preflight import Finding, network_selection, preflight, raise_fatal
from actkit.extractors.reducers import (
    ChannelSummary,
    PrincipalComponents,
    Reducer,
    SparseProjection,
    johnson_lindenstrauss,
)
from actkit.layers import LayerInfo, capture
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.stimuli import Stimuli, as_stimuli
from actkit.store import ActivationStore, StorePlan, create_store, open_store, plan_layer, resume_store

__all__ = ["Finding", "RecordOptions", "extract", "plan_extraction", "preflight"]

logger = logging.getLogger("actkit")

SCHEMA = 1
_BLOCK_ROWS = 1024
_GPU_BATCH = 64
_CPU_BATCH = 256
# On a CPU the fastest batch keeps a layer's output within the caches, and below the size from which the C library
# maps fresh memory for every output (32 MiB): page faults made batches of 32 two to four times slower per image.
_CPU_OUTPUT_BYTES = 26_000_000
_PCA_STIMULI = 512
_PCA_COMPONENTS = 100


class RecordOptions(Options):
    """Options of `extract` and `plan_extraction`."""

    layers: list[str] = Field(
        ["**"],
        description="Names and patterns of the layers to record: '*' stays within one dotted component, '**' crosses "
        "dots; a module that runs several times is 'name@0', 'name@1', … and 'name' means all of its calls.",
    )
    types: list[str] | None = Field(
        None, description="Keep only layers of these module classes (or of classes derived from them)."
    )
    reduce: Literal["none", "mean", "max", "l2", "projection", "pca"] = Field(
        "none",
        description="Make every layer smaller on the device: one value per channel (mean, max, l2), a sparse random "
        "projection, or principal components.",
    )
    components: int | None = Field(
        None,
        ge=1,
        description="Components of a projection or PCA. By default the Johnson-Lindenstrauss bound for eps, and "
        f"{_PCA_COMPONENTS} (fewer for few stimuli or units) for PCA.",
    )
    eps: float = Field(
        0.1, gt=0, lt=1, description="Relative error of squared distances for which a projection is dimensioned."
    )
    fit_stimuli: int | None = Field(
        None,
        ge=2,
        description="Number of stimuli, drawn with the seed, that a PCA is fitted on; "
        f"by default all up to {_PCA_STIMULI}.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="Stored type; float16 keeps the difference from the first block's mean."
    )
    batch: int | None = Field(
        None,
        ge=1,
        description=f"Stimuli in one forward pass. By default {_GPU_BATCH} on a GPU, and on a CPU as many as keep the "
        "largest layer within the caches.",
    )
    device: str = Field("auto", description="Where the network runs; 'auto' takes a GPU if there is one.")
    memory: str = Field("1GB", description="Memory for the two blocks that are being filled and written.")
    nan: Literal["raise", "keep"] = Field("raise", description="What to do with activations that are NaN or infinite.")
    channels_last: bool = Field(
        False, description="Run in the channels-last memory format: often faster, with other rounding errors."
    )
    overwrite: bool = Field(False, description="Replace a store that is there.")
    resume: bool = Field(True, description="Go on with an incomplete store of the same recording.")
    seed: int = Field(0, ge=0, description="Seed of random projections and of the stimuli that fit a PCA.")
    workers: int = Field(1, ge=1, description="Threads that decode and preprocess stimuli.")
    chunk: str = Field("4MiB", description="Size of the store's chunks.")

    @field_validator("layers", "types", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("memory", "chunk", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        parse_bytes(value)
        return str(value)


@dataclass(frozen=True)
class _Prepared:
    """Everything that is settled before the first full batch."""

    plan: StorePlan
    recipes: dict[str, Recipe]
    batch: int
    fit_rows: tuple[int, ...]


@with_options(RecordOptions)
def extract(
    network: Network | torch.nn.Module,
    stimuli: Any,
    store: str | Path,
    progress: bool | Callable[[int, int], None] | None = None,
    options: RecordOptions = None,  # type: ignore[assignment]
) -> ActivationStore:
    """Record a network's activations to stimuli in an activation store.

    Asking again for a recording that is complete returns it without running the network; one that was
    interrupted goes on where it stopped and ends in the same bytes. The network is tried on two stimuli
    first; see `preflight`. It runs in evaluation mode and is left as it was, exception or not.

    Parameters
    ----------
    network : Network or torch.nn.Module
        What to record.
    stimuli : Stimuli or what `actkit.as_stimuli` takes
        The stimuli; rows of the store have their order and ids.
    store : str or Path
        Folder of the store.
    progress : bool or callable, optional
        True or False shows or hides a progress bar (by default there is one on a terminal); a function is
        called with the stimuli done and their total.

    Returns
    -------
    ActivationStore
        The complete store.

    Raises
    ------
    LayerError
        If a layer does not exist, never runs, or gives activations that are not finite.
    StimulusError
        If a stimulus cannot be read or preprocessed.
    StoreError
        If the folder holds something else; the message says what differs.
    ActkitError
        If memory does not suffice for a single stimulus.

    Warns
    -----
    UserWarning
        If the trial on two stimuli found something doubtful.
    """
    network = _as_network(network)
    stimuli = as_stimuli(stimuli)
    path = Path(store)
    request = _request(network, stimuli, options)
    existing = _existing(path)
    answered = existing is not None and existing.complete and existing.attrs.get("request") == request
    if existing is not None and answered and not options.overwrite:
        return _same(existing, stimuli)
    with _on_device(network, options):
        prepared = _prepare(network, stimuli, path, options, request)
        plan = prepared.plan
        if existing is not None and not options.overwrite:
            _refuse_other(existing, plan)
            if existing.complete:
                return _same(existing, stimuli)
            if not options.resume:
                raise StoreError(
                    f"{path} holds an incomplete store of this recording; resume=True goes on with it, "
                    "overwrite=True starts again"
                )
        _report(preflight(network, stimuli, [*prepared.recipes], nan=options.nan))
        if prepared.fit_rows:
            plan = _fit(network, stimuli, prepared, options)
        if existing is not None and not options.overwrite:
            # What the first run wrote about itself stays: the version and command that began the store.
            writer = resume_store(replace(plan, attrs=existing.attrs))
        else:
            writer = create_store(plan, overwrite=options.overwrite)
        with writer:
            _run(network, stimuli, prepared, writer, options, progress)
            return writer.complete()


@with_options(RecordOptions)
def plan_extraction(
    network: Network | torch.nn.Module,
    stimuli: Any,
    store: str | Path,
    options: RecordOptions = None,  # type: ignore[assignment]
) -> StorePlan:
    """Plan a recording: layers, shapes, chunks, bytes, files and free disk, before the first full batch.

    Parameters
    ----------
    network : Network or torch.nn.Module
        What to record.
    stimuli : Stimuli or what `actkit.as_stimuli` takes
        The stimuli; three of them are run.
    store : str or Path
        Folder that the store would get.

    Returns
    -------
    StorePlan
        Print it, or its ``describe()``, for a table. Nothing is written.

    Raises
    ------
    LayerError
        If a layer does not exist or never runs.
    InputError
        If one stimulus does not fit the memory given.
    """
    network = _as_network(network)
    stimuli = as_stimuli(stimuli)
    with _on_device(network, options):
        return _prepare(network, stimuli, Path(store), options, _request(network, stimuli, options)).plan


# -- what is asked for, and what is there ------------------------------------------------------------------------------


def _as_network(network: Any) -> Network:
    """Wrap a bare module."""
    return network if isinstance(network, Network) else Network(network)


def _sha256(value: Any) -> str:
    """Hash of JSON-able data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _sources(network: Network, stimuli: Stimuli) -> dict[str, str]:
    """Hashes of what is recorded: weights, code, preprocessing, stimuli."""
    return {
        "weights": network.weights_sha256,
        "architecture": network.architecture_sha256,
        "preprocessing": network.preprocess_sha256,
        "stimuli": stimuli.fingerprint,
    }


def _request(network: Network, stimuli: Stimuli, options: RecordOptions) -> dict[str, Any]:
    """The question as it was asked. Equal questions have equal plans, so no network needs to run to tell."""
    silent = {"overwrite", "resume", "workers", "nan"}
    asked = options.model_dump(mode="json", exclude=silent)
    asked["device"] = _device_of(network, options).type
    return {**_sources(network, stimuli), "options": asked}


def _existing(path: Path) -> ActivationStore | None:
    """The store at a path, complete or not; None where there is nothing."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    return open_store(path, allow_incomplete=True)


def _same(existing: ActivationStore, stimuli: Stimuli) -> ActivationStore:
    """Return a complete store of the same recording; say so if the stimuli's labels have changed since."""
    kept = existing.labels
    changed = sorted(
        name
        for name in set(kept) | set(stimuli.labels)
        if name not in kept
        or name not in stimuli.labels
        or not np.array_equal(kept[name].astype(str), np.asarray(stimuli.labels[name]).astype(str))
    )
    if changed:
        warnings.warn(
            f"{existing.path} is complete and was returned as it is; the stimulus labels {', '.join(changed)} are not "
            "those it was recorded with. The store keeps the old ones: take new labels from the stimuli, or record "
            "again with overwrite=True",
            stacklevel=4,
        )
    return existing


def _refuse_other(existing: ActivationStore, plan: StorePlan) -> None:
    """Raise if the store is of another recording, naming what differs."""
    if existing.identity == plan.identity:
        return
    old, new = existing.attrs.get("identity_parts"), plan.attrs["identity_parts"]
    if not isinstance(old, Mapping):
        raise StoreError(
            f"{plan.path} holds a store that was not recorded by actkit.extract; give another path, or overwrite=True "
            "to replace it"
        )
    changed = [name for name in ("weights", "architecture", "preprocessing", "stimuli") if old.get(name) != new[name]]
    if old.get("layers") != new["layers"]:
        before = [name for name, *_ in old.get("layers", [])]
        after = [name for name, *_ in new["layers"]]
        gone = [name for name in before if name not in after]
        added = [name for name in after if name not in before]
        words = [f"{len(added)} more" * bool(added), f"{len(gone)} fewer" * bool(gone)]
        changed.append(f"layers ({', '.join(word for word in words if word) or 'other shapes'})")
    theirs = old.get("options", {})
    changed += [
        f"option {name} ({theirs.get(name)!r}, now {value!r})"
        for name, value in new["options"].items()
        if theirs.get(name) != value
    ]
    raise StoreError(
        f"{plan.path} holds another recording: it differs in {'; '.join(changed) or 'its identity'}. "
        "Give another path to keep both, or overwrite=True to replace it"
    )


# -- the plan ----------------------------------------------------------------------------------------------------------


def _device_of(network: Network, options: RecordOptions) -> torch.device:
    """Where the network will run: 'auto' follows a network that is on a GPU already."""
    if options.device == "auto" and network.device.type != "cpu":
        return network.device
    return torch.device(choose_device(options.device))


@contextmanager
def _on_device(network: Network, options: RecordOptions) -> Iterator[None]:
    """Move the network for the length of a context, with float32 arithmetic that is exact and repeatable."""
    before, device = network.device, _device_of(network, options)
    spread = len({tensor.device for tensor in network._tensors()}) > 1
    move = device != before and not spread and not (device.index is None and device.type == before.type)
    precision = torch.get_float32_matmul_precision()
    plain = all(tensor.is_contiguous() for tensor in network.module.parameters())
    try:
        if move:
            network.module.to(device)
        if options.channels_last:
            network.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device.type == "cuda":
            torch.set_float32_matmul_precision("highest")
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                yield
        else:
            with steady_heap():
                yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if options.channels_last and plain:
            network.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if move:
            network.module.to(before)


def _prepare(
    network: Network, stimuli: Stimuli, path: Path, options: RecordOptions, request: dict[str, Any]
) -> _Prepared:
    """Settle layers, reducers, block and batch, and everything that the store says about itself."""
    n = len(stimuli)
    if n == 0:
        raise StimulusError(f"the stimulus set {stimuli.name!r} is empty, so there is nothing to record")
    probe = prepare_batch(network, stimuli, [i % n for i in range(3)])
    if options.channels_last and probe.ndim == 4:
        probe = probe.contiguous(memory_format=torch.channels_last)
    listed = network.layers(probe)
    names = network_selection(network, listed, options.layers, options.types)
    infos = {layer.name: layer for layer in listed if layer.name in set(names)}
    fit_rows = _fit_rows(n, options) if options.reduce == "pca" else ()
    reducers = {name: _reducer(infos[name], n, options, len(fit_rows)) for name in names}
    shapes = {name: infos[name].shape if (r := reducers[name]) is None else r.shape for name in names}
    batch, block = _sizes(shapes, listed, n, options, _device_of(network, options).type)
    planned = [_plan(infos[name], reducers[name], shapes[name], n, block, options) for name in names]
    recipes = {
        layer.name: Recipe(infos[layer.name], reducers[layer.name], layer.shape, layer.dtype == "float16")
        for layer in planned
    }
    used: dict[str, Any] = {"reduce": options.reduce, "dtype": options.dtype, "batch": batch, "block": block}
    used |= {"chunk": parse_bytes(options.chunk), "channels_last": options.channels_last}
    used["device"] = request["options"]["device"]
    if options.reduce in ("projection", "pca"):
        used |= {"components": options.components, "seed": options.seed}
        used |= {"fit_stimuli": len(fit_rows)} if options.reduce == "pca" else {"eps": options.eps}
    parts = {
        **{name: request[name] for name in ("weights", "architecture", "preprocessing", "stimuli")},
        "layers": [[layer.name, list(layer.shape), list(layer.dims)] for layer in planned],
        "options": used,
    }
    attrs = _provenance(network, stimuli, options, request, batch, block)
    attrs |= {"identity_parts": parts, "request": request}
    if fit_rows:
        attrs["pca_fit_stimuli"] = [str(stimuli.ids[row]) for row in fit_rows]
    plan = StorePlan(
        path=path,
        ids=tuple(str(i) for i in stimuli.ids),
        labels={name: np.asarray(values) for name, values in stimuli.labels.items()},
        layers=tuple(planned),
        block=block,
        attrs=json.loads(json.dumps(attrs, default=str)),
        identity=_sha256(parts),
    )
    return _Prepared(plan, recipes, batch, fit_rows)


def _reducer(info: LayerInfo, n: int, options: RecordOptions, n_fit: int) -> Reducer | None:
    """The reducer that the options ask for, for one layer."""
    if options.reduce == "none":
        return None
    if options.reduce == "projection":
        components = options.components or johnson_lindenstrauss(n, options.eps)
        return SparseProjection(info.name, info.shape, components, options.seed, n)
    if options.reduce == "pca":
        most = n_fit - 1
        if options.components is not None and options.components > most:
            raise InputError(
                f"components={options.components} principal components cannot be found from {n_fit} stimuli; at most "
                f"{most} can. Fit on more stimuli (fit_stimuli), or ask for fewer"
            )
        return PrincipalComponents(info.name, info.shape, options.components or min(_PCA_COMPONENTS, most))
    return ChannelSummary(options.reduce, info.shape)


def _fit_rows(n: int, options: RecordOptions) -> tuple[int, ...]:
    """The stimuli that fit a PCA: all, or a seeded draw in row order."""
    wanted = min(options.fit_stimuli or _PCA_STIMULI, n)
    if wanted < 2:
        raise InputError(f"a PCA needs at least two stimuli, not {n}; use another reducer")
    rng = np.random.default_rng(options.seed)
    return tuple(sorted(rng.choice(n, size=wanted, replace=False).tolist()))


def _sizes(
    shapes: Mapping[str, tuple[int, ...]], listed: Sequence[LayerInfo], n: int, options: RecordOptions, device: str
) -> tuple[int, int]:
    """Batch and block: two blocks of float32 activations fit the memory, and the batch divides the block."""
    each = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    budget = parse_bytes(options.memory)
    fits = budget // (2 * each)
    if fits < 1:
        raise InputError(
            f"one stimulus gives {format_bytes(each)} in {len(shapes)} layers, so two blocks do not fit "
            f"memory={options.memory!r}; raise memory to at least {format_bytes(2 * each)}, record fewer layers, or "
            "use a reducer (reduce='mean')"
        )
    batch = options.batch
    if batch is None:
        largest = max(4 * int(np.prod(layer.shape or (1,))) for layer in listed)
        batch = _GPU_BATCH if device != "cpu" else min(_CPU_BATCH, max(1, _CPU_OUTPUT_BYTES // largest))
        batch = 1 << (batch.bit_length() - 1)  # a power of two
    batch = max(1, min(batch, n, fits))
    block = min(fits, max(_BLOCK_ROWS, batch), -(-n // batch) * batch)
    return batch, block - block % batch


def _plan(
    info: LayerInfo, reducer: Reducer | None, shape: tuple[int, ...], n: int, block: int, options: RecordOptions
) -> Any:
    """One layer of the store."""
    attrs: dict[str, Any] = {"module": info.module, "type": info.type, "parameters": info.parameters}
    if info.calls > 1:
        attrs |= {"call": info.call, "calls": info.calls}
    if info.output_note:
        attrs["output_note"] = info.output_note
    attrs |= {"reduced": "none"} if reducer is None else reducer.attrs
    dims: tuple[str, ...] | None = None
    if not shape:
        dims, shape = ("unit",), (1,)
    elif len(shape) == 1:
        dims = ("unit",)
    return plan_layer(
        info.name,
        shape,
        dims,
        n_stimuli=n,
        block=block,
        dtype=options.dtype,
        chunk_bytes=parse_bytes(options.chunk),
        attrs=attrs,
    )


def _provenance(
    network: Network, stimuli: Stimuli, options: RecordOptions, request: Mapping[str, Any], batch: int, block: int
) -> dict[str, Any]:
    """What the store says about where it comes from; no times and no places, so that bytes can be compared."""
    device = _device_of(network, options)
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "network": network.name,
        "network_source": network.provenance,
        "weights_sha256": request["weights"],
        "architecture_sha256": request["architecture"],
        "preprocessing": network.preprocess_description,
        "preprocessing_sha256": request["preprocessing"],
        "input_shape": None if network.input_shape is None else list(network.input_shape),
        "stimuli": stimuli.name,
        "stimuli_fingerprint": request["stimuli"],
        "stimuli_order": stimuli.order,
        "n_stimuli": len(stimuli),
        "layers_asked": options.layers,
        "types_asked": options.types,
        "reduce": options.reduce,
        "dtype": options.dtype,
        "seed": options.seed,
        "batch": batch,
        "block": block,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "channels_last": options.channels_last,
        "nan": options.nan,
        "versions": {
            **{name: _version(name) for name in ("actkit", "torch", "numpy", "zarr")},
            "python": platform.python_version(),
        },
        "command": _command(),
    }
    return described


def _version(package: str) -> str:
    """Installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _command() -> str:
    """The command line, absolute paths cut to their last part: a store must not say whose machine made it."""
    words = [os.path.basename(word) if os.path.isabs(word) else word for word in sys.argv]
    return " ".join([os.path.basename(words[0]), *words[1:]]) if words else ""


# -- the run -----------------------------------------------------------------------------------------------------------


def _report(findings: Sequence[Finding]) -> None:
    """Log what is worth knowing, warn of what is doubtful, stop at what is fatal."""
    raise_fatal(findings)
    for finding in findings:
        if finding.level == "warning":
            warnings.warn(finding.message, stacklevel=4)
        else:
            logger.info(finding.message)


def _run(
    network: Network,
    stimuli: Stimuli,
    prepared: _Prepared,
    writer: Any,
    options: RecordOptions,
    progress: bool | Callable[[int, int], None] | None,
) -> None:
    """Record the blocks that the store does not have yet."""
    plan = prepared.plan
    done = writer.done
    blocks = [(i, a, b) for i, (a, b) in enumerate(spans(plan.n_stimuli, plan.block)) if i not in done]
    if not blocks:
        return
    finished = plan.n_stimuli - sum(b - a for _, a, b in blocks)
    recorder = Recorder(network, prepared.recipes, plan.ids, options.nan == "keep", options.channels_last)
    reported = progress if callable(progress) else None
    enabled = False if callable(progress) else progress
    with progress_bar(total=plan.n_stimuli, desc=network.name, unit="stimuli", enabled=enabled) as bar:
        bar.update(finished)
        bar.unpause()

        def advance(n: int) -> None:
            nonlocal finished
            finished += n
            bar.update(n)
            if reported is not None:
                reported(finished, plan.n_stimuli)

        rows = max(b - a for _, a, b in blocks)
        record_blocks(recorder, stimuli, writer, blocks, prepared.batch, rows, options.workers, advance)


def _fit(network: Network, stimuli: Stimuli, prepared: _Prepared, options: RecordOptions) -> StorePlan:
    """Fit the PCA of every layer, as many layers in one pass over the fit stimuli as memory allows."""
    budget = parse_bytes(options.memory)
    rows = prepared.fit_rows
    size = {name: 4 * int(np.prod(recipe.info.shape or (1,))) for name, recipe in prepared.recipes.items()}
    kept = sum(size[name] * recipe.shape[0] for name, recipe in prepared.recipes.items())
    if kept > budget:
        raise InputError(
            f"the principal axes of {len(size)} layers take {format_bytes(kept)}, more than memory={options.memory!r}; "
            "ask for fewer components or layers, raise memory, or use reduce='projection'"
        )
    groups: list[list[str]] = [[]]
    room = budget
    for name, each in size.items():
        needed = each * len(rows)
        if needed > budget:
            raise InputError(
                f"layer {name!r} takes {format_bytes(needed)} for the {len(rows)} stimuli that fit its PCA, more than "
                f"memory={options.memory!r}; fit on fewer stimuli (fit_stimuli), raise memory, or use "
                "reduce='projection'"
            )
        if needed > room:
            groups.append([])
            room = budget
        groups[-1].append(name)
        room -= needed
    for group in groups:
        _fit_group(network, stimuli, prepared, group, options)
    fitted = [
        replace(layer, attrs={**layer.attrs, **(recipe.reducer.attrs if recipe.reducer else {})})
        for layer, recipe in zip(prepared.plan.layers, prepared.recipes.values(), strict=True)
    ]
    return replace(prepared.plan, layers=tuple(fitted))


def _fit_group(
    network: Network, stimuli: Stimuli, prepared: _Prepared, names: Sequence[str], options: RecordOptions
) -> None:
    """Record some layers for the fit stimuli, on the device, and fit their axes."""
    rows, device = prepared.fit_rows, network.device
    held = {
        name: torch.empty((len(rows), int(np.prod(prepared.recipes[name].info.shape or (1,)))), device=device)
        for name in names
    }
    place = 0

    def keep(name: str, output: torch.Tensor) -> None:
        values = prepared.recipes[name].info.arrange(output)
        held[name][place : place + len(values)].copy_(values.flatten(1))

    with capture(network.module, list(names), keep) as forward:
        for start, stop in spans(len(rows), prepared.batch):
            place = start
            batch = prepare_batch(network, stimuli, rows[start:stop])
            if options.channels_last and batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            forward(network.to_input(batch))
    for name in names:
        reducer = prepared.recipes[name].reducer
        assert isinstance(reducer, PrincipalComponents)  # _fit is only called for reduce="pca"
        with torch.inference_mode():
            reducer.fit(held.pop(name))
