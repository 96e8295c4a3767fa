"""A study file (YAML): networks, stimuli and analyses in; stores, results, figures and a report out.

A study is read and checked whole (`actkit.study_file`), laid out as steps with what they need and make
(`actkit.study_plan`), and run (`actkit.study_jobs`), each step kept by the content of everything it depends on.
What is already there and still right is not computed again; what depends on a change is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actkit.study_file import Study, load_study, shipped

if TYPE_CHECKING:
    import xarray as xr

    from actkit.study_plan import Plan

__all__ = ["Study", "StudyRun", "load_study", "run", "shipped"]


@dataclass(frozen=True)
class StudyRun:
    """What a run leaves behind.

    Attributes
    ----------
    out : Path
        The folder of everything.
    plan : Plan
        The steps as they were planned, with what was already there.
    computed : tuple of str
        The steps that this run computed; empty if everything was there.
    report : Path or None
        The HTML report.
    """

    out: Path
    plan: Plan
    computed: tuple[str, ...]
    report: Path | None

    @property
    def results(self) -> dict[str, xr.Dataset]:
        """The results, loaded: step name to Dataset."""
        from actkit.results import load

        return {
            step.id: load(self.out / name) for step in self.plan.steps for name in step.outputs if name.endswith(".nc")
        }

    def stores(self) -> dict[str, Path]:
        """The recordings: network name to the path of its store."""
        return {
            step.id.split(" ", 1)[1]: self.out / step.outputs[0] for step in self.plan.steps if step.kind == "record"
        }


def run(
    study: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str] | None = None,
    *,
    dry_run: bool = False,
    quick: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
    command: str | None = None,
    jobs: int = 1,
) -> StudyRun:
    """Run a study: record its networks, analyse the recordings, draw the figures, write the report.

    Every step is kept with a key over the content it depends on: weights, preprocessing, stimuli and labels,
    measured data, options, seeds and the code of actkit. A step whose key and outputs are as they were is not run
    again. A run that was stopped goes on at its step, and a recording at its block.

    Parameters
    ----------
    study : str, path or mapping
        A study file, the name of a study that ships with actkit, or its content.
    out : path, optional
        Folder of everything the study makes; by default ``actkit-NAME`` in the working folder, and
        ``actkit-NAME-quick`` for the quick form.
    dry_run : bool
        Plan only: nothing is computed or written.
    quick : bool
        The quick form: with what the study says under ``quick`` in place of the same keys elsewhere.
    progress : bool, optional
        Show progress bars; by default where standard error is a terminal.
    say : callable, optional
        Receives one line for each step as it starts; with several jobs, another as it ends.
    command : str, optional
        The command that started it, for the report's provenance.
    jobs : int
        How many steps that do not need each other are done side by side, each in a process of its own which shares the
        processors' threads with the others and needs memory of its own. Results do not depend on it beyond the
        rounding of sums over another number of threads; a training uses one thread, and its weights are the same bit
        for bit. After an error, steps that have begun are done to their end and no other is started.

    Returns
    -------
    StudyRun
        The folder, the plan, and the path of the report.

    Raises
    ------
    InputError
        If the study file is wrong (the message names file, step and key), or `jobs` is less than 1.
    StoreError
        If another run is at work in the same folder.
    ActkitError
        Whatever a step raises, with its place in the study file in front; or if the process of a step was killed.

    Examples
    --------
    >>> run("kriegeskorte92", out="results", dry_run=True).plan.steps[0].id  # doctest: +SKIP
    'stimuli'
    """
    from actkit.study_jobs import check_jobs, run_plan
    from actkit.study_plan import make_plan

    check_jobs(jobs)
    checked = load_study(study, quick=quick)
    folder = Path(out) if out is not None else Path(checked.default_folder)
    plan, workshop = make_plan(checked, folder, progress=progress)
    report = folder / "report.html" if checked.report is not None else None
    if dry_run:
        return StudyRun(folder, plan, (), report)
    computed = run_plan(plan, workshop, say=say or (lambda line: None), command=command, jobs=jobs)
    return StudyRun(folder, plan, computed, report)
