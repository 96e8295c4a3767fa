"""Running a plan: which step is done when and in which process, and the manifest of those that are finished."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from actkit import __version__
from actkit.compute import progress as progress_bar
from actkit.errors import ActkitError, InputError, StoreError
from actkit.results import atomic_write
from actkit.study_manifest import MANIFEST, output_hash, read_manifest
from actkit.study_plan import Plan, Step
from actkit.study_steps import Doing, do
from actkit.study_workshop import Workshop

LOCK = ".lock"

# A fresh interpreter rather than a fork: the threads of torch and zarrs would be missing in a copy, which then waits
# for them for ever. It does not import the caller's script either, so that `run` needs no guard there. Ctrl-C is the
# parent's to answer. -P below: the current folder is no place to import from unless the parent does.
_START = (
    "import os, pickle, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "orders = os.fdopen(os.dup(0), 'rb'); sys.path[:] = pickle.load(orders); "
    "from actkit.study_worker import serve; serve(orders)"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a second run out of a folder; the lock goes when the process goes, however it ends.

    Parameters
    ----------
    out : Path
        Folder of a study; it is made.

    Raises
    ------
    StoreError
        If another run holds the lock.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on Windows; stores still refuse a second writer
        yield
        return
    with open(out / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another run is at work in {out}, and two would overwrite each other's files; wait for it, or give "
                "this one another folder (--out)"
            ) from None
        yield


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes that nothing can be done with, before anything is opened.

    Parameters
    ----------
    jobs : int
        How many.

    Raises
    ------
    InputError
        If it is not a whole number of at least 1.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(f"jobs={jobs!r} leaves nobody to do the steps; give a whole number, 1 or more")


def run_plan(
    plan: Plan, workshop: Workshop, say: Callable[[str], None], command: str | None = None, jobs: int = 1
) -> tuple[str, ...]:
    """Do what is to be done of a plan, and note each step in the manifest the moment it is finished.

    Parameters
    ----------
    plan : Plan
        The steps and their state.
    workshop : Workshop
        What the plan opened.
    say : callable
        Receives one line for each step as it starts; with several jobs, another as it ends.
    command : str, optional
        The command that started it, for the report's provenance.
    jobs : int
        How many steps are done side by side, each in a process of its own.

    Returns
    -------
    tuple of str
        The steps that were computed.

    Raises
    ------
    InputError
        If `jobs` is less than 1.
    ActkitError
        Whatever a step raises, with its place in the study file; or if the process of a step was killed.
    """
    check_jobs(jobs)
    todo = [step for step in plan.steps if step.state != "done"]
    with locked(plan.out):
        atomic_write(plan.out / "study.yaml", plan.study.text)
        notes = Notes(plan)
        if min(jobs, len(todo)) > 1:
            _side_by_side(plan, workshop, say, command, min(jobs, len(todo)), notes)
        else:
            for number, step in enumerate(todo, 1):
                say(_line(number, len(todo), step))
                notes.begun(step)
                do(Doing(plan, workshop, command), step)
                notes.ended(step)
    return tuple(step.id for step in todo)


def _line(number: int, total: int, step: Step) -> str:
    """Say that a step starts."""
    return f"[{number}/{total}] {step.id}" + (" (goes on)" if step.state == "resume" else "")


class Notes:
    """The manifest: what is finished, by step, with the key and the outputs' hashes.

    Parameters
    ----------
    plan : Plan
        What earlier runs of it left is read; files that the plan no longer names are removed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._noted = _without_stale(plan, read_manifest(plan.out))
        self._write()

    def begun(self, step: Step) -> None:
        """Forget what was noted of a step, whose outputs are about to change."""
        self._noted.pop(step.id, None)

    def ended(self, step: Step) -> None:
        """Note that the outputs of a step are there."""
        outputs = {name: output_hash(self.plan.out / name) for name in step.outputs}
        self._noted[step.id] = {"key": step.key, "outputs": outputs}
        self._write()

    def _write(self) -> None:
        """Write what is finished, in the order of the plan."""
        order = {step.id: i for i, step in enumerate(self.plan.steps)}
        names = sorted(self._noted, key=lambda name: (order.get(name, len(order)), name))
        steps = {name: self._noted[name] for name in names}
        content = {"study": self.plan.study.name, "actkit_version": __version__, "steps": steps}
        atomic_write(self.plan.out / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _without_stale(plan: Plan, noted: dict[str, Any]) -> dict[str, Any]:
    """Remove what earlier runs made and this study no longer names; recordings are kept, since they are costly."""
    ids = {step.id for step in plan.steps}
    wanted = {name for step in plan.steps for name in step.outputs}
    for name in [name for name in noted if name not in ids and not name.startswith("record ")]:
        for output in noted.pop(name).get("outputs", {}):
            if output not in wanted and (plan.out / output).is_file():
                (plan.out / output).unlink()
    return noted


# ------------------------------------------------------------------ side by side


def _side_by_side(
    plan: Plan, workshop: Workshop, say: Callable[[str], None], command: str | None, jobs: int, notes: Notes
) -> None:
    """Do steps in `jobs` processes; the first error stops new ones, and is raised once those begun have ended."""
    waiting = [step for step in plan.steps if step.state != "done"]
    total = len(waiting)
    done = {step.id for step in plan.steps if step.state == "done"}
    handed = _handed(plan, workshop, command)
    environment = _environment(jobs)
    events: _Events = queue.SimpleQueue()
    workers: list[_Worker] = []
    failure: BaseException | None = None
    begun = 0
    bar = progress_bar(total=total, desc=plan.study.name, unit="step", enabled=workshop.progress)

    def tell(line: str) -> None:
        with bar.external_write_mode(file=sys.stderr):
            say(line)

    try:
        while True:
            while failure is None and sum(w.step is not None for w in workers) < jobs:
                step = next_step(plan, waiting, done, [w.step for w in workers if w.step is not None])
                if step is None:
                    break
                worker = next((w for w in workers if w.step is None), None)
                if worker is None:
                    workers.append(worker := _Worker(handed, environment, events))
                begun += 1
                tell(_line(begun, total, step))
                waiting.remove(step)
                notes.begun(step)
                worker.give(step, begun)
            if all(worker.step is None for worker in workers):
                break
            worker, error = _next_event(events)
            step, worker.step = worker.step, None
            assert step is not None  # only a worker with a step answers
            head = f"[{worker.number}/{total}] {step.id}"
            if error is None:
                notes.ended(step)
                done.add(step.id)
                bar.update()
                tell(f"{head}: done in {time.monotonic() - worker.began:.0f} s")
                continue
            failure = failure or error
            others = sum(worker.step is not None for worker in workers)
            tell(f"{head}: failed" + (f"; waiting for {others} others, Ctrl-C stops them" if others else ""))
        if failure is not None:
            raise failure
    finally:
        bar.close()
        for worker in workers:
            worker.stop()


def next_step(plan: Plan, waiting: list[Step], done: Collection[str], running: list[Step]) -> Step | None:
    """Choose the step to start: the first one that can be done, networks (which may be trained) before all others.

    Parameters
    ----------
    plan : Plan
        All the steps.
    waiting : list of Step
        Those not begun, in the order of the plan.
    done : collection of str
        Ids of those finished.
    running : list of Step
        Those being done.

    Returns
    -------
    Step or None
        None if all those left wait for one that runs.
    """

    def ready(step: Step) -> bool:
        # A report shows everything there is, whether it names it or not.
        inputs = [other.id for other in plan.steps if other is not step] if step.kind == "report" else step.inputs
        return all(name in done for name in inputs) and not any(_same_network(step, other) for other in running)

    found = [step for step in waiting if ready(step)]
    if not found and not running and waiting:  # the order of a plan is one that works
        return waiting[0]
    return min(found, key=lambda step: step.kind != "network", default=None)


def _same_network(step: Step, other: Step) -> bool:
    """Whether two steps open the same network under two names; the second then finds what the first learnt."""
    if step.kind != "network" or other.kind != "network":
        return False
    one, two = step.detail["network"], other.detail["network"]
    return bool(one.extractor == two.extractor and one.options == two.options)


def _handed(plan: Plan, workshop: Workshop, command: str | None) -> bytes:
    """Pickle what a worker starts from: stimuli that the plan read or drew need not be drawn again."""
    try:
        return pickle.dumps((plan, workshop, command), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # a third party's data set that cannot be handed over is opened again by each worker
        return pickle.dumps((plan, Workshop(plan.study, plan.out, False), command), protocol=pickle.HIGHEST_PROTOCOL)


def _environment(jobs: int) -> dict[str, str]:
    """Share the processors out among the workers; a smaller number of threads that was set stays."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, there // jobs)
    set_ = {name: os.environ.get(name, "") for name in _THREADS}
    return {
        **os.environ,
        **{name: str(min(share, int(value)) if value.isdigit() else share) for name, value in set_.items()},
    }


def _next_event(events: _Events) -> tuple[_Worker, BaseException | None]:
    """Wait for a worker's answer; in short waits, since Windows does not break off a long one at Ctrl-C."""
    while True:
        with contextlib.suppress(queue.Empty):
            return events.get(timeout=0.5)


class _Worker:
    """A process that does steps, and the thread of this process that talks with it."""

    def __init__(self, handed: bytes, environment: dict[str, str], events: _Events) -> None:
        self.step: Step | None = None
        self.number = 0
        self.began = 0.0
        self._events = events
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        threading.Thread(target=self._talk, args=(handed,), daemon=True).start()

    def give(self, step: Step, number: int) -> None:
        """Let it do a step; the answer comes as an event."""
        self.step, self.number, self.began = step, number, time.monotonic()
        self._orders.put(step.id)

    def stop(self) -> None:
        """End the process, whatever it is doing: a file is written whole or not at all, a recording block by block."""
        self._process.kill()
        self._process.wait()

    def _talk(self, handed: bytes) -> None:
        """Hand over what the process starts from, then one step after the other, until it is stopped."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        with orders, answers, contextlib.suppress(BrokenPipeError):
            # Of a process that is gone, the first step tells: that is when somebody waits for an answer.
            with contextlib.suppress(OSError):
                orders.write(pickle.dumps(sys.path) + handed)
                orders.flush()
            while True:
                id_ = self._orders.get()
                try:
                    orders.write(pickle.dumps(id_))
                    orders.flush()
                    error = pickle.load(answers)  # noqa: S301 (a pipe of our own)
                except (OSError, EOFError, pickle.UnpicklingError):
                    self._events.put((self, self._gone(id_)))
                    return
                self._events.put((self, error))

    def _gone(self, id_: str) -> ActkitError:
        """Say how the process ended in the middle of a step."""
        code = self._process.wait()
        how = f"ended with code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed ({signal.Signals(-code).name})"
        return ActkitError(
            f"the process that did the step {id_!r} {how}, perhaps because memory ran out; finished steps and recorded "
            "blocks are kept, so run the study again, with fewer jobs if memory is short"
        )


_Events: TypeAlias = "queue.SimpleQueue[tuple[_Worker, BaseException | None]]"
