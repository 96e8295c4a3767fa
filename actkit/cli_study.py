"""`actkit run` and `actkit demo`: a whole study from one file."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from actkit.study import StudyRun

_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of everything it makes [default: actkit-NAME, with --quick actkit-NAME-quick].",
)
_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress bars and no line for each step.")


@click.command()
@click.argument("study")
@_OUT
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan, compute nothing, write nothing.")
@click.option("--quick", is_flag=True, help="The quick form: smaller numbers, as the study says under `quick`.")
@click.option("--jobs", "-j", type=int, default=1, show_default=True, help="Steps done side by side, in processes.")
@_QUIET
def run(study: str, out: Path | None, dry_run: bool, quick: bool, jobs: int, quiet: bool) -> None:
    """Run a study: record, analyse, draw, report.

    STUDY is a YAML file, or the name of a study that ships with actkit (demo, kriegeskorte92). What is already in
    the folder and still right is kept: after a change, only what depends on it runs again, and after a stop the run
    goes on where it was.

    \b
    Examples:
      actkit run kriegeskorte92 --dry-run
      actkit run my_study.yaml --out results
      actkit run my_study.yaml --quick --jobs 2
    """
    _run(study, out, dry_run, quiet, quick=quick, jobs=jobs)


@click.command()
@_OUT
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan, compute nothing, write nothing.")
@_QUIET
def demo(out: Path | None, dry_run: bool, quiet: bool) -> None:
    """Try everything in about a minute, without a download.

    Trains a small network on two tasks at once (who is the face, which is the digit), records it on stimuli it has
    not seen, and compares every layer with simulated observers whose truth is known. An untrained copy of the
    network is the control. Ends with the path of a report.

    \b
    Example:
      actkit demo --out demo
    """
    _run("demo", out, dry_run, quiet)


def _run(study: str, out: Path | None, dry_run: bool, quiet: bool, quick: bool = False, jobs: int = 1) -> None:
    """Run a study, telling the user what is going on."""
    from actkit.study import run as run_study

    started = time.monotonic()

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    done = run_study(
        study,
        out,
        dry_run=dry_run,
        quick=quick,
        jobs=jobs,
        progress=False if quiet else None,
        say=say,
        command=shlex.join(["actkit", *sys.argv[1:]]),
    )
    if dry_run:
        click.echo(done.plan.describe())
        return
    _summary(done)
    seconds = time.monotonic() - started
    kept = len(done.plan.steps) - len(done.computed)
    click.echo(f"{len(done.computed)} steps computed, {kept} kept, {seconds:.0f} s")
    click.echo(f"Report: {done.report}" if done.report is not None else f"Results: {done.out}")


def _summary(done: StudyRun) -> None:
    """Print the key numbers of a study as a small table."""
    from actkit.study_numbers import key_numbers

    lines = key_numbers(done)
    if lines:
        click.echo("\n".join(lines) + "\n")
