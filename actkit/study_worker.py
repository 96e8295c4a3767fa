"""The other end of a study's jobs: a process that does the steps it is told to do, one after the other.

`actkit.study_jobs` starts it. It shares no memory with its parent: orders come in on standard input and answers go
out on standard output, pickled.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
import traceback
from typing import BinaryIO

from actkit.errors import ActkitError
from actkit.study_steps import Doing, do


def serve(orders: BinaryIO) -> None:
    """Do steps until the parent has no more, or is gone; never returns.

    Parameters
    ----------
    orders : binary file
        First the pickled plan, workshop and command, then the id of one step after the other. An answer is the error
        that a step raised, or None.
    """
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a library prints goes to standard error, not between the answers
    doing = Doing(*pickle.load(orders))  # noqa: S301 (a pipe of our own)
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, told), daemon=True).start()
    while True:
        answers.write(attempt(doing, told.get()))
        answers.flush()


def _listen(orders: BinaryIO, told: queue.SimpleQueue[str]) -> None:
    """Pass orders on; they end with the parent, and a process left over would write beside the next run."""
    try:
        while True:
            told.put(pickle.load(orders))  # noqa: S301 (a pipe of our own)
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(0)


def attempt(doing: Doing, id_: str) -> bytes:
    """Do one step.

    Parameters
    ----------
    doing : Doing
        The plan and the opened things.
    id_ : str
        The step.

    Returns
    -------
    bytes
        The pickled error, or None pickled. Where the step failed stands in the error's notes.
    """
    try:
        do(doing, doing.plan[id_])
    except Exception as error:
        error.add_note(f"The step {id_!r} ran in another process:\n{traceback.format_exc()}")
        with contextlib.suppress(Exception):  # errors of other packages may not survive the way
            sent = pickle.dumps(error)
            arrived = pickle.loads(sent)  # noqa: S301 (a pipe of our own)
            if type(arrived) is type(error) and str(arrived) == str(error):
                return sent
        told = ActkitError(f"{id_}: {type(error).__name__}: {error}")
        told.add_note(error.__notes__[-1])
        return pickle.dumps(told)
    return pickle.dumps(None)
