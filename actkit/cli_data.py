"""`actkit data`: the data sets that actkit knows, where they lie, and how to get them."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from typing import Any

import click


def _catalogues() -> dict[str, Any]:
    """Every installed catalogue of data sets by the name of its entry point."""
    from actkit import plugins

    return {name: plugins.load("actkit.data_specs", name) for name in plugins.found("actkit.data_specs")}


def _holding(dataset: str) -> Any:
    """Find the catalogue that knows a data set."""
    from actkit.errors import DataError, nearest

    catalogues = _catalogues()
    for catalogue in catalogues.values():
        if dataset in catalogue.names():
            return catalogue
    known = [name for catalogue in catalogues.values() for name in catalogue.names()]
    raise DataError(f"no data set called {dataset!r}; {nearest(dataset, known)}")


@click.group(epilog="Data sets are looked for in the folder named by ACTKIT_DATA, then in the user's cache folder.")
def data() -> None:
    """List, show, check and fetch data sets.

    A data set is stimuli with labels and, where there are any, measurements of people, brains or models, described
    by a YAML spec: files with their checksums and address, units, licence and citation.

    \b
    Example:
      actkit data show kriegeskorte2008_92images
    """


@data.command("list")
def list_() -> None:
    """List the data sets: what is here, what can be fetched.

    \b
    Example:
      actkit data list
    """
    rows = []
    for catalogue in _catalogues().values():
        for name in catalogue.names():
            rows.append((name, *_state(catalogue, name)))
    width = max(len(row[0]) for row in rows)
    here = max(len(row[1]) for row in rows)
    for name, state, title in rows:
        click.echo(f"{name:<{width}}  {state:<{here}}  {title}")


def _state(catalogue: Any, name: str) -> tuple[str, str]:
    """Tell whether a data set is here, and its title."""
    spec = catalogue.spec(name)
    return catalogue.state(name), spec.title


@data.command()
@click.argument("dataset")
def show(dataset: str) -> None:
    """Show what a data set holds: variables, stimuli, files, licence, citation.

    \b
    Example:
      actkit data show kriegeskorte2008_92images
    """
    click.echo(_holding(dataset).describe(dataset))


@data.command()
@click.argument("dataset")
@click.pass_context
def check(context: click.Context, dataset: str) -> None:
    """Compare the files of a data set with the checksums of its spec; ends with 1 if one differs.

    \b
    Example:
      actkit data check kriegeskorte2008_92images
    """
    faults = list(_holding(dataset).check(dataset))
    for fault in faults:
        click.echo(str(fault))
    if faults:
        context.exit(1)
    click.echo(f"{dataset}: every file is there and matches its checksum")


@data.command()
@click.argument("dataset")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def fetch(dataset: str, quiet: bool) -> None:
    """Download a data set from the address in its spec; goes on where a broken download stopped.

    \b
    Example:
      actkit data fetch kriegeskorte2008_92images
    """
    path = _holding(dataset).fetch(dataset, progress=False if quiet else None)
    click.echo(
        f"{dataset}: fetched and checked, in {path}" if path else f"{dataset}: needs no files, it is ready to use"
    )
