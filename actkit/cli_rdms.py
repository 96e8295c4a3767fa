"""`actkit rdm`, `rsa`, `similarity` and `commonality`: representational geometry from the command line."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli_analyses import FIGURE, QUIET, given_options, out_option, save_result

if TYPE_CHECKING:
    import xarray as xr

_STORES = click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=click.Path(path_type=Path))


def make_rdm() -> click.Command:
    """Make the command ``rdm``, whose options are those of `actkit.rdm`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    rdm_function = function("rdm")

    @click.command("rdm")
    @_STORES
    @out_option("The RDMs, a netCDF file.")
    @FIGURE
    @QUIET
    def rdm(stores: tuple[Path, ...], out: Path, figure: Path | None, quiet: bool, **values: Any) -> None:
        """Turn a store into RDMs, one a layer.

        Reads the store in blocks, within --memory, whatever the width of a layer. Several stores are repetitions of the
        same stimuli (other seeds, augmentations, dropout masks), for the methods that need them.

        \b
        Examples:
          actkit rdm acts.zarr --method correlation --out rdms.nc
          actkit rdm seed1.zarr seed2.zarr seed3.zarr --method crossnobis \\
            --repetitions seeds --folds repetition --out crossnobis.nc
        """
        from actkit.store import open_store

        opened = [open_store(path) for path in stores]
        extra = call_progress(rdm_function, False if quiet else None)
        save_result(
            rdm_function(opened[0] if len(opened) == 1 else opened, **extra, **given_options(values)), out, figure
        )

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
    @out_option("The result, a netCDF file.")
    @click.option(
        "--model",
        "models",
        multiple=True,
        metavar="DATASET:VARIABLE|FILE",
        help="Model RDMs to compare beside the layers (repeat for several).",
    )
    @click.option(
        "--weighted",
        multiple=True,
        metavar="DATASET:VARIABLE|FILE",
        help="Fit a non-negative weighted sum of these RDMs, cross-validated (repeat for several models).",
    )
    @click.option(
        "--partial",
        multiple=True,
        metavar="DATASET:VARIABLE|FILE",
        help="Take the share of these RDMs out of models and subjects: partial RSA (repeat for several).",
    )
    @FIGURE
    @QUIET
    def rsa(
        rdms: tuple[Path, ...],
        data: str,
        out: Path,
        models: tuple[str, ...],
        weighted: tuple[str, ...],
        partial: tuple[str, ...],
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Compare the RDMs of layers with those of people or brains.

        RDMS are files that `actkit rdm` wrote, one a network. DATA is DATASET:VARIABLE, or a netCDF file of RDMs of
        subjects. Gives a score for each layer and subject, noise ceilings, errors and tests.

        \b
        Examples:
          actkit rsa rdms.nc kriegeskorte2008_92images:judgements --compare spearman --out rsa.nc
          actkit rsa rdms.nc kriegeskorte2008_92images:human_it --generalise-to both --choose-layer \\
            --weighted rdms.nc --out rsa.nc --figure rsa
        """
        from actkit import plugins
        from actkit.results import load

        flexible = plugins.load("actkit.analyses", "models")
        fitted = [flexible.weighted(find_rdms(name), f"{Path(name).stem}: weighted") for name in weighted]
        compared = [*(load(path) for path in rdms), *(find_rdms(model) for model in models), *fitted]
        extra = call_progress(rsa_function, False if quiet else None)
        if partial:
            extra["partial"] = [find_rdms(name) for name in partial]
        save_result(rsa_function(compared, find_rdms(data), **extra, **given_options(values)), out, figure)

    rsa.params += click_options(options_of(rsa_function))
    return rsa


def make_similarity() -> click.Command:
    """Make the command ``similarity``, whose options are those of `actkit.similarity`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    similarity_function = function("similarity")

    @click.command("similarity")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.argument("other", required=False, type=click.Path(path_type=Path))
    @out_option("The result, a netCDF file.")
    @FIGURE
    @QUIET
    def similarity(store: Path, other: Path | None, out: Path, figure: Path | None, quiet: bool, **values: Any) -> None:
        """Compare every layer of a store with every layer of another, or with its own: CKA, Procrustes, CCA.

        \b
        Examples:
          actkit similarity acts.zarr --out cka.nc --figure cka
          actkit similarity acts.zarr untrained.zarr --method procrustes --out shapes.nc
        """
        from actkit.store import open_store

        stores = [open_store(path) for path in (store, other) if path is not None]
        extra = call_progress(similarity_function, False if quiet else None)
        save_result(similarity_function(*stores, **extra, **given_options(values)), out, figure)

    similarity.params += click_options(options_of(similarity_function))
    return similarity


def make_commonality() -> click.Command:
    """Make the command ``commonality``, whose options are those of `actkit.commonality`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of

    commonality_function = function("commonality")

    @click.command("commonality")
    @click.argument("data")
    @click.option(
        "--set",
        "sets",
        multiple=True,
        required=True,
        metavar="NAME=DATASET:VARIABLE|FILE",
        help="A set of model RDMs and its name (repeat for two to four sets).",
    )
    @out_option("The result, a netCDF file.")
    @FIGURE
    def commonality(data: str, sets: tuple[str, ...], out: Path, figure: Path | None, **values: Any) -> None:
        """Divide what sets of model RDMs explain into unique and shared parts.

        DATA is DATASET:VARIABLE, or a netCDF file of RDMs of subjects.

        \b
        Example:
          actkit commonality kriegeskorte2008_92images:judgements --set network=rdms.nc \\
            --set categories=kriegeskorte2008_92images:model_rdms --out parts.nc --figure parts
        """
        from actkit.errors import InputError

        named: dict[str, xr.Dataset] = {}
        for text in sets:
            name, sign, where = text.partition("=")
            if not sign or not name or name in named:
                raise InputError(f"--set {text!r} is not NAME=DATASET:VARIABLE or NAME=FILE with a name of its own")
            named[name] = find_rdms(where)
        save_result(commonality_function(named, find_rdms(data), **given_options(values)), out, figure)

    commonality.params += click_options(options_of(commonality_function))
    return commonality


def find_rdms(text: str) -> xr.Dataset:
    """Find RDMs by what a command line says.

    Parameters
    ----------
    text : str
        A netCDF file, or ``DATASET:VARIABLE``.

    Returns
    -------
    xarray.Dataset
        The RDM dataset.

    Raises
    ------
    InputError
        If it is neither.
    """
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
