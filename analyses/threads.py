"""Run fixed blocks of work in threads: the same numbers for any number of workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

from actkit.compute import spans
from actkit.errors import InputError


def worker_count(workers: int | None) -> int:
    """Settle how many threads to use.

    Parameters
    ----------
    workers : int or None
        Threads; None: one for each processor that this process may use.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InputError
        If fewer than one is asked for.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise InputError(f"workers={workers} leaves nobody to work; give 1 or more, or None for all processors")
    return workers


@cache
def _blas() -> Any:
    """The matrix libraries of this process; finding them takes milliseconds, so that it is done once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def single_blas() -> Iterator[None]:
    """Hold matrix products to the thread that calls them: their rounding then does not follow the machine."""
    with _blas().limit(limits=1):
        yield


@contextmanager
def single_torch() -> Iterator[int]:
    """Hold torch's operators to the thread that calls them: threads that wait for each other in thousands of small
    operators collapse as soon as anything else runs on the machine.

    Yields
    ------
    int
        How many threads torch was set to, which independent work may use side by side.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def in_blocks(function: Callable[[int, int], None], n: int, block: int, workers: int | None) -> None:
    """Call ``function(start, stop)`` for consecutive blocks of ``range(n)``, in threads.

    Blocks do not depend on the number of workers, and each is computed by one thread from start to end.

    Parameters
    ----------
    function : callable
        Writes its own part of the result; it must release the interpreter lock to gain from threads.
    n : int
        Length.
    block : int
        Size of the blocks.
    workers : int or None
        Threads, as in :func:`worker_count`.
    """
    blocks = list(spans(n, block))
    threads = min(worker_count(workers), len(blocks))
    if threads <= 1:
        for start, stop in blocks:
            function(start, stop)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(function, start, stop) for start, stop in blocks]:
            done.result()
