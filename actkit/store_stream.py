"""Streaming a layer in bounded memory: how large a step, how many threads, one block ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from actkit.errors import InputError
from actkit.store_chunks import ChunkTable
from actkit.store_layout import ZarrTable
from actkit.store_plan import size_text

_FLOAT32 = np.dtype("float32")


@dataclass(frozen=True)
class Steps:
    """How a layer is streamed: step along the axis, reading threads, and whether one block is read ahead."""

    step: int
    threads: int
    prefetch: bool


def choose_steps(
    table: ChunkTable | ZarrTable, total: int, across: int, chunk: int, max_bytes: int, prefetch: bool, word: str
) -> Steps:
    """Choose the largest step, in whole chunks where one fits, that keeps to the memory allowed."""
    line = across * _FLOAT32.itemsize
    # What one thread holds beside the block: a chunk, and what widening float16 needs on top.
    buffer = table.chunk_nbytes * (4 if table.dtype.itemsize == 2 else 1)
    threads = reading_threads()
    while threads > 1 and threads * buffer > max_bytes // 4:
        threads -= 1
    budget = max_bytes - threads * buffer
    if budget < line:
        raise InputError(
            f"layer {table.layer!r}: max_bytes={max_bytes} does not hold one {word} of {across} values and one chunk "
            f"({size_text(line + buffer)}); allow at least that much memory"
        )
    if budget >= total * line:
        return Steps(total, threads, False)
    if prefetch and budget // 2 >= chunk * line:
        return Steps(budget // 2 // line // chunk * chunk, threads, True)
    step = budget // line
    return Steps(step // chunk * chunk if step >= chunk else step, threads, False)


def stream(
    read: Callable[[tuple[int, int]], np.ndarray], total: int, steps: Steps
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield blocks in order; with prefetch, the next one is read while the caller uses this one."""
    spans = [(start, min(start + steps.step, total)) for start in range(0, total, steps.step)]
    if not steps.prefetch:
        for start, stop in spans:
            yield start, stop, read((start, stop))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="actkit-prefetch") as ahead:
        future = ahead.submit(read, spans[0])
        for k, (start, stop) in enumerate(spans):
            block = future.result()
            if k + 1 < len(spans):
                future = ahead.submit(read, spans[k + 1])
            else:
                del future
            yield start, stop, block
            del block


def reading_threads() -> int:
    """How many threads read at once: more than a few only crowd the memory bus."""
    return max(1, min(4, os.cpu_count() or 1))


def each_chunk(
    work: Callable[[int, int], None],
    rows: Sequence[int],
    columns: Sequence[int],
    threads: int | None,
    chunk_nbytes: int,
) -> None:
    """Do something for every chunk, in a few threads when there is enough of it to be worth them."""
    # A task is a whole chunk row where there are enough of them: threads then fill memory far from each other.
    if len(rows) >= 2 * reading_threads():
        tasks = [[(i, j) for j in columns] for i in rows]
    else:
        tasks = [[(i, j)] for i in rows for j in columns]
    threads = min(threads or reading_threads(), len(tasks))

    def one(task: list[tuple[int, int]]) -> None:
        for i, j in task:
            work(i, j)

    if threads <= 1 or len(rows) * len(columns) * chunk_nbytes < 1 << 20:
        for task in tasks:
            one(task)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="actkit-read") as pool:
        for _ in pool.map(one, tasks):
            pass
