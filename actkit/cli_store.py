"""`actkit store`: look into a store without loading it, or check every byte of it."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.argument("path", type=click.Path(path_type=Path))


@click.group(epilog="A store is a plain Zarr group: xarray.open_datatree(PATH, engine='zarr') opens it without actkit.")
def store() -> None:
    """Look into a store, or check every byte of it.

    A store is the recording of one network: a Zarr group with a node for each layer, the stimulus ids, the labels,
    and where it all came from.

    \b
    Example:
      actkit store info acts.zarr
    """


@store.command()
@_PATH
def info(path: Path) -> None:
    """Say what was recorded: network, weights, preprocessing, stimuli, layers, sizes.

    \b
    Example:
      actkit store info acts.zarr
    """
    from actkit.store import open_store

    click.echo(open_store(path, allow_incomplete=True).info())


@store.command()
@_PATH
def tree(path: Path) -> None:
    """List the layers in the order they ran, with dims, shapes and chunks.

    \b
    Example:
      actkit store tree acts.zarr
    """
    from actkit.store import open_store

    click.echo(open_store(path, allow_incomplete=True).tree())


@store.command()
@_PATH
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.pass_context
def verify(context: click.Context, path: Path, quiet: bool) -> None:
    """Read every chunk, and name the layer and rows of each that is missing or damaged.

    Ends with 1 if anything is wrong, so that a script can rely on it. The cure is to record again: `actkit extract`
    with the same arguments and --overwrite.

    \b
    Example:
      actkit store verify acts.zarr && echo sound
    """
    from actkit.compute import progress
    from actkit.store import verify_store

    with progress(total=1, desc="verify", unit="file", enabled=False if quiet else None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        faults = verify_store(path, progress=show)
    if not faults:
        click.echo(f"{path}: sound, every chunk is there and matches its checksum")
        return
    for fault in faults:
        click.echo(str(fault))
    click.echo(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}", err=True)
    context.exit(1)
