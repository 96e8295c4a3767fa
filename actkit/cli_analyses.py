"""`actkit rdm`, `rsa`, `decode` and `report`: the steps of a study, each alone."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import xarray as xr

_STORE = click.argument("store", type=click.Path(path_type=Path))
_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress bar.")


def _out(text: str) -> Any:
    """The option ``--out`` of a command that writes one result."""
    return click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=text)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed, repeats as lists."""
    from actkit.options import given

    return {key: list(value) if isinstance(value, tuple) else value for key, value in given(values).items()}


def _save(result: xr.Dataset, out: Path, figure: Path | None = None) -> None:
    """Save a result, and its figure if one is wanted."""
    from actkit.results import save

    save(result, out)
    click.echo(str(out))
    if figure is not None:
        from actkit.plotting import plot, save_figure

        for path in save_figure(plot(result), figure.with_suffix("")):
            click.echo(str(path))


_FIGURE = click.option("--figure", type=click.Path(path_type=Path), help="Draw it too, as SVG and PNG of this name.")


def make_rdm() -> click.Command:
    """Make the command ``rdm``, whose options are those of `actkit.rdm`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    rdm_function = function("rdm")

    @click.command("rdm")
    @_STORE
    @_out("The RDMs, a netCDF file.")
    @_FIGURE
    @_QUIET
    def rdm(store: Path, out: Path, figure: Path | None, quiet: bool, **values: Any) -> None:
        """Turn a store into RDMs, one a layer.

        Reads the store in blocks, within --memory, whatever the width of a layer.

        \b
        Example:
          actkit rdm acts.zarr --method correlation --out rdms.nc
        """
        from actkit.store import open_store

        extra = call_progress(rdm_function, False if quiet else None)
        _save(rdm_function(open_store(store), **extra, **_given(values)), out, figure)

    rdm.params += click_options(options_of(rdm_function))
    return rdm


def make_rsa() -> click.Command:
    """Make the command ``rsa``, whose options are those of `actkit.rsa`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    rsa_function = function("rsa")

    @click.command("rsa")
    @click.argument("rdms", nargs=-1, required=True, type=click.Path(path_type=Path))
    @click.argument("data")
    @_out("The result, a netCDF file.")
    @click.option(
        "--model",
        "models",
        multiple=True,
        metavar="DATASET:VARIABLE|FILE",
        help="Model RDMs to compare beside the layers (repeat for several).",
    )
    @_FIGURE
    @_QUIET
    def rsa(
        rdms: tuple[Path, ...],
        data: str,
        out: Path,
        models: tuple[str, ...],
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Compare the RDMs of layers with those of people or brains.

        RDMS are files that `actkit rdm` wrote, one a network. DATA is DATASET:VARIABLE, or a netCDF file of RDMs of
        subjects. Gives a score for each layer and subject, noise ceilings, errors, and p-values.

        \b
        Example:
          actkit rsa rdms.nc kriegeskorte2008_92images:judgements --compare spearman --out rsa.nc
        """
        from actkit.results import load

        compared = [*(load(path) for path in rdms), *(_rdms(model) for model in models)]
        extra = call_progress(rsa_function, False if quiet else None)
        _save(rsa_function(compared, _rdms(data), **extra, **_given(values)), out, figure)

    rsa.params += click_options(options_of(rsa_function))
    return rsa


def _rdms(text: str) -> xr.Dataset:
    """Find RDMs: a file, or a variable of a data set."""
    from actkit.errors import InputError, nearest
    from actkit.results import load

    if Path(text).is_file():
        return load(text)
    name, sign, variable = text.partition(":")
    if not sign or not variable:
        raise InputError(
            f"{text!r} is neither a file nor DATASET:VARIABLE, such as kriegeskorte2008_92images:judgements"
        )
    from actkit.study_workshop import load_dataset

    dataset = load_dataset(name, None, {})
    if variable not in dataset.variables:
        raise InputError(f"{name} has no variable {variable!r}; {nearest(variable, dataset.variables)}")
    return dataset[variable]


def make_decode() -> click.Command:
    """Make the command ``decode``, whose options are those of `actkit.decode`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    decode_function = function("decoding")

    @click.command("decode")
    @_STORE
    @click.option("--label", required=True, help="The stimulus label to decode.")
    @_out("The result, a netCDF file.")
    @_FIGURE
    @_QUIET
    def decode(store: Path, label: str, out: Path, figure: Path | None, quiet: bool, **values: Any) -> None:
        """Decode a label of held-out stimuli from every layer.

        \b
        Example:
          actkit decode acts.zarr --label animal --out decoding.nc
        """
        from actkit.store import open_store

        extra = call_progress(decode_function, False if quiet else None)
        _save(decode_function(open_store(store), label, **extra, **_given(values)), out, figure)

    decode.params += click_options(options_of(decode_function), skip=("label", "labels"))
    return decode


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
