"""`actkit report`, and what every command that writes a result shares."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import xarray as xr

QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress bar.")


def out_option(text: str) -> Any:
    """Make the option ``--out`` of a command that writes one result.

    Parameters
    ----------
    text : str
        Its help.

    Returns
    -------
    callable
        The decorator.
    """
    return click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=text)


def given_options(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that were typed, repeats as lists.

    Parameters
    ----------
    values : dict
        What click parsed.

    Returns
    -------
    dict
        Options for the function behind the command.
    """
    from actkit.options import given

    return {key: list(value) if isinstance(value, tuple) else value for key, value in given(values).items()}


def save_result(result: xr.Dataset, out: Path, figure: Path | None = None) -> None:
    """Save a result, and its figure if one is wanted, and print where.

    Parameters
    ----------
    result : xarray.Dataset
        What an analysis returned.
    out : Path
        The netCDF file.
    figure : Path, optional
        Name of the figure, whatever its suffix.
    """
    from actkit.results import save

    save(result, out)
    click.echo(str(out))
    if figure is not None:
        from actkit.plotting import plot, save_figure

        for path in save_figure(plot(result), figure.with_suffix("")):
            click.echo(str(path))


FIGURE = click.option("--figure", type=click.Path(path_type=Path), help="Draw it too, as SVG and PNG of this name.")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", show_default=True)
@click.option("--title", default="actkit report", show_default=True, help="Title of the report.")
def report(results: tuple[Path, ...], out: Path, title: str) -> None:
    """Put results into one self-contained HTML report: figures, tables, provenance.

    RESULTS are the netCDF files that rdm, rsa and decode write. The report is one file that asks nothing of the
    network, so it can be mailed and archived.

    \b
    Example:
      actkit report rsa.nc decoding.nc --out report.html
    """
    from actkit.study_report import report_results

    click.echo(str(report_results(list(results), out, title)))
