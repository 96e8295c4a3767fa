"""The command ``actkit``: light to start, each subcommand loaded only when it is called for."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

# Name, where the command lives ("module:attribute"), and its one line in `actkit --help`. The line stands here so
# that the overview needs no import: torch, xarray and pydantic together take seconds to load.
_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("demo", "actkit.cli_study:demo", "Try everything in about a minute: train, record, analyse, report."),
    ("run", "actkit.cli_study:run", "Run a study file, or a study that ships with actkit."),
    ("layers", "actkit.cli_network:layers", "List the layers of a network in execution order."),
    ("extract", "actkit.cli_network:make_extract", "Record a network's response to stimuli into a store."),
    ("rdm", "actkit.cli_rdms:make_rdm", "Turn a store into RDMs, one a layer."),
    ("rsa", "actkit.cli_rdms:make_rsa", "Compare RDMs with people or brains: scores, noise ceilings, tests."),
    ("ceiling", "actkit.cli_neurons:make_ceiling", "Bound what any model can reach: reliability of neurons, of RDMs."),
    ("similarity", "actkit.cli_rdms:make_similarity", "Compare layers with layers: CKA, Procrustes, CCA."),
    ("commonality", "actkit.cli_rdms:make_commonality", "Divide explained variance into unique and shared parts."),
    ("decode", "actkit.cli_neurons:make_decode", "Decode a label of held-out stimuli from layers or from neurons."),
    ("match", "actkit.cli_neurons:make_match", "Match every recorded neuron with a single unit, on held-out stimuli."),
    ("encode", "actkit.cli_neurons:make_encode", "Predict every recorded neuron from a layer, on held-out stimuli."),
    (
        "transfer",
        "actkit.cli_neurons:make_transfer",
        "Train a classifier on matched units, and test it on the neurons.",
    ),
    ("selectivity", "actkit.cli_lesions:make_selectivity", "Score every filter by its preference for a class."),
    ("rank", "actkit.cli_lesions:make_rank", "Rank the channels of a layer by what each task loses without them."),
    ("lesion", "actkit.cli_lesions:make_lesion", "Silence units and measure what the network's tasks lose."),
    ("report", "actkit.cli_analyses:report", "Put results into one self-contained HTML report."),
    ("data", "actkit.cli_data:data", "List, show, check and fetch data sets."),
    ("store", "actkit.cli_store:store", "Look into a store, or check every byte of it."),
)

_TRACEBACK_VARIABLE = "ACTKIT_TRACEBACK"


def load_command(target: str) -> click.Command:
    """Import a command.

    Parameters
    ----------
    target : str
        ``"module:attribute"``; the attribute is a command, or a function without arguments that makes one (for
        commands whose options come from a pydantic model, which only their own call should import).

    Returns
    -------
    click.Command
        The command.
    """
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    return found if isinstance(found, click.Command) else found()


class _ReaderLeftError(Exception):
    """The reader of a pipe (`| head`) has left; not an OSError, which click would turn into exit code 1."""


class ActkitGroup(click.Group):
    """The top command: lists its subcommands without importing them, and turns errors into one clean message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands, in the order of a piece of work rather than of the alphabet."""
        return [name for name, _, _ in _COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand that was called for."""
        for name, target, _ in _COMMANDS:
            if name == cmd_name:
                return load_command(target)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand, or name the nearest ones."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            from actkit.errors import nearest

            ctx.fail(f"no command {args[0]!r}; {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, _, line in _COMMANDS])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeftError from error

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, and end with an exit code.

        0, 1 (the work failed), 2 (the call was wrong), 130 (Ctrl-C) or 141 (the reader of a pipe left).

        ``--traceback`` is taken anywhere on the line.
        """
        from actkit.errors import ActkitError

        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        traceback = "--traceback" in options or os.environ.get(_TRACEBACK_VARIABLE, "") not in ("", "0")
        if "--traceback" in options:
            given.remove("--traceback")
        extra["standalone_mode"] = False
        extra.setdefault("prog_name", "actkit")
        try:
            code = super().main(given, *rest, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo(
                "\nStopped. Finished steps and recorded blocks are kept: the same command goes on from there.", err=True
            )
            code = 130
        except (BrokenPipeError, _ReaderLeftError):
            # Point stdout at nothing, so that Python's own flush at exit stays quiet.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 141
        except ActkitError as error:
            if traceback:
                raise
            click.echo(f"Error: {error}", err=True)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


@click.command(
    cls=ActkitGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command explains itself, with an example: actkit COMMAND --help. "
    "Errors show one message; add --traceback to see where they come from.",
)
@click.version_option(package_name="actkit", prog_name="actkit")
def cli() -> None:
    """Record a trained network the way a laboratory records a brain, and analyse the recording.

    A network shown stimuli becomes a store (extract), its layers become RDMs (rdm), the RDMs are compared with
    people and brains (rsa), and a person gets figures and a report. `run` does all of it from one study file.

    \b
    Start here:
      actkit demo                              the whole chain on a small network, no download
      actkit run kriegeskorte92 --dry-run      the plan of a real study, before anything is computed
    """


def main() -> None:
    """Run the command line (the console script ``actkit``)."""
    cli.main()
