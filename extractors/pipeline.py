"""The recording loop: decode ahead, run the network, write behind.

Three things happen at once. A few threads decode and preprocess the next batches. The calling thread runs
the network; hooks copy each layer's output into a buffer that holds one block of the store. One writer
thread puts a full buffer on disk while the next one fills. Each hand-over is bounded, so memory does not
depend on the number of stimuli, and an error on either side reaches the caller at the next batch.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from actkit.compute import format_bytes, spans
from actkit.errors import ActkitError, LayerError, StimulusError
from actkit.extractors.reducers import Reducer
from actkit.layers import LayerInfo, capture
from actkit.network import Network, is_out_of_memory
from actkit.stimuli import Stimuli

logger = logging.getLogger("actkit")

_SHOWN_IDS = 5
# mallopt() of the GNU C library: parameters, and the largest size it lets the heap serve.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HEAP_MOST = 32 * 2**20
_TRIM_WHILE_RUNNING = 2**30


class Writer(Protocol):
    """The part of a store writer that the loop uses; see `actkit.store.StoreWriter`."""

    def write_block(self, index: int, arrays: Mapping[str, np.ndarray], note: dict[str, Any] | None = None) -> None:
        """Write one block of every layer."""

    def centre(self, layer: str) -> np.ndarray | None:
        """What is subtracted from a float16 layer; None while it is not fixed."""

    def set_centre(self, layer: str, array: np.ndarray) -> None:
        """Fix what is subtracted from a float16 layer."""


@dataclass(frozen=True)
class Recipe:
    """How one layer gets from a module's output into the store.

    Attributes
    ----------
    info : LayerInfo
        The layer.
    reducer : Reducer or None
        What is applied on the device.
    stored_shape : tuple of int
        Shape of one stimulus in the store.
    centred : bool
        Whether the store keeps the layer as float16 around its mean.
    """

    info: LayerInfo
    reducer: Reducer | None
    stored_shape: tuple[int, ...]
    centred: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one stimulus in the buffer."""
        return self.info.shape if self.reducer is None else self.reducer.shape

    def apply(self, output: torch.Tensor) -> torch.Tensor:
        """Arrange and reduce a module's output; without a reducer a view, nothing is copied."""
        rows = self.info.arrange(output)
        return rows if self.reducer is None else self.reducer(rows.to(torch.float32))


def prepare_batch(network: Network, stimuli: Stimuli, rows: Sequence[int]) -> torch.Tensor:
    """Decode and preprocess some stimuli into one batch.

    Parameters
    ----------
    network : Network
        Gives the preprocessing.
    stimuli : Stimuli
        The stimuli.
    rows : sequence of int
        Positions of the wanted stimuli.

    Returns
    -------
    torch.Tensor
        Shape (len(rows), *shape of one), on the CPU, memory of its own.

    Raises
    ------
    StimulusError
        If a stimulus cannot be read or preprocessed, or has another shape than the one before it.
    """
    tensors: list[torch.Tensor] = []
    for row in rows:
        try:
            tensor = network.prepare(stimuli.raw(row))
        except StimulusError:
            raise
        except Exception as error:
            raise StimulusError(
                f"stimulus {str(stimuli.ids[row])!r} cannot be preprocessed for {network.name!r}: {error}"
            ) from error
        if tensors and tensor.shape != tensors[0].shape:
            raise StimulusError(
                f"stimulus {str(stimuli.ids[row])!r} has shape {tuple(tensor.shape)} after preprocessing and "
                f"{str(stimuli.ids[rows[0]])!r} has {tuple(tensors[0].shape)}; a recording needs one shape. "
                "Resize or crop in the preprocessing"
            )
        tensors.append(tensor)
    return torch.stack(tensors).detach()


@contextmanager
def decoded(
    network: Network, stimuli: Stimuli, batches: Sequence[Sequence[int]], workers: int, pin: bool = False
) -> Iterator[Iterator[torch.Tensor]]:
    """Decode batches ahead of the network, in order, in threads.

    Parameters
    ----------
    network : Network
        Gives the preprocessing.
    stimuli : Stimuli
        The stimuli.
    batches : sequence of sequence of int
        Positions of each batch.
    workers : int
        Threads; at most ``workers + 1`` batches are ready or being made at any time.
    pin : bool
        Whether to put the batches in page-locked memory, for asynchronous copies to a GPU.

    Yields
    ------
    iterator of torch.Tensor
        The batches; asking for one raises what its decoding raised.
    """

    def make(rows: Sequence[int]) -> torch.Tensor:
        batch = prepare_batch(network, stimuli, rows)
        return batch.pin_memory() if pin else batch

    pool = ThreadPoolExecutor(workers, thread_name_prefix="actkit-decode")

    def ordered() -> Iterator[torch.Tensor]:
        ahead: deque[Future[torch.Tensor]] = deque()
        waiting = iter(batches)
        while True:
            while len(ahead) <= workers:
                rows = next(waiting, None)
                if rows is None:
                    break
                ahead.append(pool.submit(make, rows))
            if not ahead:
                return
            yield ahead.popleft().result()

    try:
        yield ordered()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The GNU C library, where it allocates and nobody has tuned it; None elsewhere."""
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    return ctypes.CDLL(None)


@contextmanager
def steady_heap() -> Iterator[None]:
    """Let the C library keep freed memory while a network runs over and over on a CPU.

    Every pass allocates and frees the same few outputs. By default the library gives the top of its heap
    back to the system each time, and the next pass faults the same pages in again: 10 to 20 MB of page
    faults an image with EfficientNet-Lite0, a tenth to a third of its forward pass. Afterwards the
    thresholds are those that the library itself settles on for blocks of 32 MiB, and spare memory goes back.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _HEAP_MOST)
    library.mallopt(_M_TRIM_THRESHOLD, _TRIM_WHILE_RUNNING)
    try:
        yield
    finally:
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _HEAP_MOST)
        library.malloc_trim(0)


class Buffer:
    """Host memory for one block of every layer.

    Parameters
    ----------
    recipes : mapping of str to Recipe
        The layers.
    rows : int
        Stimuli in a block.
    pin : bool
        Whether to lock the pages, which makes copies from a GPU asynchronous.
    """

    def __init__(self, recipes: Mapping[str, Recipe], rows: int, pin: bool) -> None:
        try:
            self.tensors = {
                name: torch.empty((rows, *recipe.shape), dtype=torch.float32, pin_memory=pin)
                for name, recipe in recipes.items()
            }
        except RuntimeError as error:
            size = sum(4 * rows * int(np.prod(recipe.shape)) for recipe in recipes.values())
            raise ActkitError(
                f"a buffer of {format_bytes(size)} for one block of {rows} stimuli does not fit in memory; "
                "lower memory=, record fewer layers or use a reducer"
            ) from error
        self.checks: list[tuple[str, int, int, torch.Tensor]] = []
        self.event: torch.cuda.Event | None = None

    def settle(self) -> None:
        """Wait until what was copied from a GPU has arrived."""
        if self.event is not None:
            self.event.synchronize()
            self.event = None


@dataclass
class Recorder:
    """Runs batches through the network and keeps what its layers give.

    Attributes
    ----------
    network : Network
        The network, on the device where it runs.
    recipes : mapping of str to Recipe
        The layers, in execution order.
    ids : sequence of str
        Ids of all stimuli, for messages.
    keep_nan : bool
        Whether activations that are not finite are kept; otherwise they are an error.
    channels_last : bool
        Whether batches of images go in in the channels-last memory format.
    limit : int or None
        Largest batch that fitted in memory after one did not; None while all fit.
    """

    network: Network
    recipes: Mapping[str, Recipe]
    ids: Sequence[str]
    keep_nan: bool = False
    channels_last: bool = False
    limit: int | None = None
    halvings: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._buffer: Buffer | None = None
        self._row = 0
        self._first = 0
        self._count = 0
        self._cuda = self.network.device.type == "cuda"

    @contextmanager
    def running(self) -> Iterator[Callable[[torch.Tensor, Buffer, int, int], None]]:
        """Attach the hooks for the length of a context.

        Yields
        ------
        callable
            ``record(batch, buffer, row, first)``: runs a batch (on the CPU, pinned or not) and puts its
            activations into the buffer from ``row`` on; ``first`` is the position of its first stimulus.
        """
        with capture(self.network.module, list(self.recipes), self._keep) as forward:

            def record(batch: torch.Tensor, buffer: Buffer, row: int, first: int) -> None:
                done = 0
                while done < len(batch):
                    size = min(self.limit or len(batch), len(batch) - done)
                    self._buffer, self._row, self._first, self._count = buffer, row + done, first + done, size
                    failed = None
                    try:
                        part = self.network.to_input(batch[done : done + size])
                        if self.channels_last and part.ndim == 4:
                            part = part.contiguous(memory_format=torch.channels_last)
                        forward(part)
                        done += size
                    except (RuntimeError, MemoryError) as error:
                        if not is_out_of_memory(error):
                            raise
                        failed = str(error)
                    if failed is not None:  # outside the handler: the traceback holds on to the memory
                        self._halve(size, first + done, failed)
                if self._cuda:
                    buffer.event = torch.cuda.Event()
                    buffer.event.record()

            yield record

    def _keep(self, name: str, output: torch.Tensor) -> None:
        """Copy a layer's output at once; what follows in the network may overwrite it."""
        buffer = self._buffer
        assert buffer is not None  # set by record before the forward pass
        recipe = self.recipes[name]
        rows = recipe.apply(output)
        target = buffer.tensors[name][self._row : self._row + self._count]
        if rows.shape != target.shape:
            raise LayerError(
                f"layer {name!r} gives shape {tuple(rows.shape)} for a batch of {self._count}, and the plan says "
                f"{tuple(target.shape)}; its output depends on the stimuli, so it cannot be recorded as one array"
            )
        if not self._cuda:
            target.copy_(rows)
            if not self.keep_nan and not np.isfinite(float(target.sum())):
                self._refuse_nan(name, target, self._first)
            return
        rows = rows.to(torch.float32).contiguous()
        target.copy_(rows, non_blocking=True)
        if not self.keep_nan:
            buffer.checks.append((name, self._row, self._first, torch.isfinite(rows).all()))

    def check(self, buffer: Buffer) -> None:
        """Refuse activations that a GPU gave and that are not finite, once the block has arrived.

        Parameters
        ----------
        buffer : Buffer
            A settled buffer.

        Raises
        ------
        LayerError
            Naming the layer and the stimuli.
        """
        checks, buffer.checks = buffer.checks, []
        if checks and not bool(torch.stack([flag for *_, flag in checks]).all()):
            for name, row, first, flag in checks:
                if not bool(flag):
                    self._refuse_nan(name, buffer.tensors[name][row:], first)

    def _refuse_nan(self, name: str, rows: torch.Tensor, first: int) -> None:
        """Raise if the rows hold NaN or infinity (a sum can overflow where every value is finite)."""
        bad = (~torch.isfinite(rows.flatten(1)).all(1)).nonzero().flatten().tolist()
        if not bad:
            return
        values = rows[bad[0]]
        kind = "NaN" if bool(values.isnan().any()) else "infinite"
        shown = ", ".join(repr(str(self.ids[first + i])) for i in bad[:_SHOWN_IDS])
        more = f" and {len(bad) - _SHOWN_IDS} more" if len(bad) > _SHOWN_IDS else ""
        count = int((~torch.isfinite(values)).sum())
        raise LayerError(
            f"layer {name!r} of {self.network.name!r} gives {kind} activations for the stimuli {shown}{more} "
            f"({count} of {values.numel()} units in the first); an analysis of them would be NaN throughout. "
            "Check the weights and the preprocessing, leave the layer out, or record them as they are with nan='keep'"
        )

    def _halve(self, size: int, first: int, reason: str) -> None:
        """Go on with half the batch after one that did not fit in memory."""
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()
        if size == 1:
            raise ActkitError(
                f"network {self.network.name!r} runs out of memory on a single stimulus ({str(self.ids[first])!r}): "
                f"{reason.splitlines()[0]}. Record fewer layers, use a reducer, smaller images or another device"
            )
        self.limit = size // 2
        self.halvings.append({"from_row": first, "batch": self.limit})
        logger.warning(
            "out of memory with a batch of %d at stimulus %d; going on with %d (%s)",
            size,
            first,
            self.limit,
            reason.splitlines()[0],
        )


def _finite_mean(rows: np.ndarray) -> np.ndarray:
    """Mean over stimuli in float64, of finite values only (0 where there are none), as float32."""
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    total = np.where(finite, rows, 0).sum(axis=0, dtype=np.float64)
    return (total / np.maximum(count, 1)).astype(np.float32)


def record_blocks(
    recorder: Recorder,
    stimuli: Stimuli,
    writer: Writer,
    blocks: Sequence[tuple[int, int, int]],
    batch: int,
    block_rows: int,
    workers: int = 1,
    advance: Callable[[int], Any] = lambda n: None,
) -> None:
    """Record blocks of stimuli into a store.

    Parameters
    ----------
    recorder : Recorder
        Network and layers.
    stimuli : Stimuli
        All stimuli of the store.
    writer : Writer
        The store being written.
    blocks : sequence of (index, start, stop)
        The blocks to record, in order, with their rows.
    batch : int
        Stimuli in one forward pass.
    block_rows : int
        Rows of the largest block.
    workers : int
        Threads that decode.
    advance : callable
        Told the number of stimuli done, after each batch.

    Raises
    ------
    ActkitError
        Whatever went wrong in decoding, in the network or in writing. Blocks written before stay written.
    """
    gpu = recorder.network.device.type == "cuda"
    rows_of = [range(a + start, a + stop) for _, a, b in blocks for start, stop in spans(b - a, batch)]
    free: deque[Buffer] = deque()
    writing: deque[tuple[Future[None], Buffer]] = deque()
    made = 0

    def put(index: int, rows: int, buffer: Buffer, note: dict[str, Any] | None) -> None:
        buffer.settle()
        recorder.check(buffer)
        arrays = {
            name: buffer.tensors[name][:rows].numpy().reshape(rows, *recipe.stored_shape)
            for name, recipe in recorder.recipes.items()
        }
        if index == 0:
            for name, recipe in recorder.recipes.items():
                # The first block's mean. A recording that was cut off after fixing it has the same one already.
                if recipe.centred and writer.centre(name) is None:
                    writer.set_centre(name, _finite_mean(arrays[name]))
        writer.write_block(index, arrays, note)

    def collect(wait: bool) -> None:
        """Take back buffers whose block is on disk; raise what their writing raised."""
        while writing and (wait or writing[0][0].done()):
            future, buffer = writing.popleft()
            future.result()
            free.append(buffer)
            wait = False

    with ExitStack() as stack:
        pool = ThreadPoolExecutor(1, thread_name_prefix="actkit-write")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        batches = stack.enter_context(decoded(recorder.network, stimuli, rows_of, workers, pin=gpu))
        record = stack.enter_context(recorder.running())
        for index, start, stop in blocks:
            if not free and made < min(2, len(blocks)):
                free.append(Buffer(recorder.recipes, block_rows, pin=gpu))
                made += 1
            if not free:
                collect(wait=True)
            buffer = free.popleft()
            for a, b in spans(stop - start, batch):
                record(next(batches), buffer, a, start + a)
                collect(wait=False)
                advance(b - a)
            note = {"batch": recorder.limit, "out_of_memory": list(recorder.halvings)} if recorder.limit else None
            writing.append((pool.submit(put, index, stop - start, buffer, note), buffer))
        while writing:
            collect(wait=True)
