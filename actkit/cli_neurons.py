"""`actkit reliability`, `match` and `encode`: recorded neurons, and a network's units beside them."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli_analyses import FIGURE, QUIET, given_options, out_option, save_result

if TYPE_CHECKING:
    import xarray as xr

_RELIABILITY = click.option(
    "--reliability",
    type=click.Path(path_type=Path),
    help="What `actkit reliability` wrote: correlations are then also divided by each neuron's ceiling.",
)
_GROUPS = click.option(
    "--groups", help="Label whose values are kept together in folds; by default copies of an image are, where known."
)


def find_recording(text: str) -> xr.DataArray:
    """Open a recording of neurons.

    Parameters
    ----------
    text : str
        ``DATASET:VARIABLE``, or a netCDF file with one array of dims ``stimulus, neuron`` and perhaps ``repetition``.

    Returns
    -------
    xarray.DataArray
        The recording.

    Raises
    ------
    InputError
        If it is neither, or the file holds several arrays.
    """
    import xarray as xr

    from actkit.errors import InputError, nearest
    from actkit.study_opening import load_dataset

    if text.endswith(".nc"):
        if not Path(text).is_file():
            raise InputError(f"there is no file {text!r}; give DATASET:VARIABLE or a netCDF file of a recording")
        with xr.open_dataset(text) as opened:
            names = list(opened.data_vars)
            if len(names) != 1:
                raise InputError(f"{text} holds {len(names)} arrays ({', '.join(map(str, names))}); keep the recording")
            return opened[names[0]].load()
    name, sign, variable = text.partition(":")
    if not sign:
        raise InputError(f"{text!r} names no recording; write DATASET:VARIABLE, or a netCDF file (.nc)")
    dataset = load_dataset(name, None, {})
    if variable not in dataset.variables:
        raise InputError(f"{name} has no variable {variable!r}; {nearest(variable, dataset.variables)}")
    found = dataset[variable]
    if not isinstance(found, xr.DataArray) or "neuron" not in found.dims:
        raise InputError(f"{text} has the dims {tuple(found.dims)}, and a recording of neurons has 'neuron' among them")
    return found


def _reliability_of(path: Path | None) -> Any:
    from actkit.results import load

    return None if path is None else load(path)


def make_reliability() -> click.Command:
    """Make the command ``reliability``, whose options are those of `actkit.neuron_reliability`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of

    reliability_function = function("neuron_reliability")

    @click.command("reliability")
    @click.argument("data")
    @out_option("The result, a netCDF file.")
    @FIGURE
    def reliability(data: str, out: Path, figure: Path | None, **values: Any) -> None:
        """Measure how reliable each neuron's mean response is, and what that lets any model reach.

        DATA is DATASET:VARIABLE, or a netCDF file of dims stimulus, repetition, neuron.

        \b
        Example:
          actkit reliability cowley2023_v4_210325:responses --out reliability.nc --figure reliability
        """
        save_result(reliability_function(find_recording(data), **given_options(values)), out, figure)

    reliability.params += click_options(options_of(reliability_function))
    return reliability


def make_match() -> click.Command:
    """Make the command ``match``, whose options are those of `actkit.match_units`."""
    from actkit.options import click_options
    from actkit.study_file import options_of
    from actkit.study_workshop import call_progress

    match_function = _analysis("unit_matching", "match_units")

    @click.command("match")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.argument("data")
    @click.option("--labels", help="Stimulus label: folds hold its values in equal shares, the null moves within them.")
    @_GROUPS
    @_RELIABILITY
    @click.option("--units", type=click.Path(path_type=Path), help="Write the units here too, for `actkit lesion`.")
    @out_option("The result, a netCDF file.")
    @FIGURE
    @QUIET
    def match(
        store: Path,
        data: str,
        labels: str | None,
        groups: str | None,
        reliability: Path | None,
        units: Path | None,
        out: Path,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Match every recorded neuron with a single unit of each layer, scored on held-out stimuli.

        DATA is DATASET:VARIABLE, or a netCDF file of dims stimulus, neuron (and repetition). STORE holds the units: a
        recording of the same stimuli, without reducers that mix units.

        \b
        Example:
          actkit extract efficientnet_lite0 cowley2023_v4_210325 --layers "_blocks.14" --store v4.zarr
          actkit match v4.zarr cowley2023_v4_210325:responses --labels object --out match.nc --figure match
        """
        from actkit.cli_lesions import write_units
        from actkit.store import open_store

        extra = call_progress(match_function, False if quiet else None)
        extra |= {"groups": groups, "labels": labels, "reliability": _reliability_of(reliability)}
        result = match_function(open_store(store), find_recording(data), **extra, **given_options(values))
        save_result(result, out, figure)
        if units is not None:
            write_units(_analysis("unit_matching", "units_of_matching")(result), units)

    match.params += click_options(options_of(match_function))
    return match


def make_encode() -> click.Command:
    """Make the command ``encode``, whose options are those of `actkit.encode`."""
    from actkit.options import click_options
    from actkit.study_file import options_of
    from actkit.study_workshop import call_progress

    encode_function = _analysis("encoding", "encode")

    @click.command("encode")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.argument("data")
    @_GROUPS
    @_RELIABILITY
    @out_option("The result, a netCDF file.")
    @FIGURE
    @QUIET
    def encode(
        store: Path,
        data: str,
        groups: str | None,
        reliability: Path | None,
        out: Path,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Predict every recorded neuron from all units of a layer, on held-out stimuli.

        \b
        Example:
          actkit encode v4.zarr cowley2023_v4_210325:responses --model ridge --out encoding.nc --figure encoding
        """
        from actkit.store import open_store

        extra = call_progress(encode_function, False if quiet else None)
        extra |= {"groups": groups, "reliability": _reliability_of(reliability)}
        result = encode_function(open_store(store), find_recording(data), **extra, **given_options(values))
        save_result(result, out, figure)

    encode.params += click_options(options_of(encode_function))
    return encode


def _analysis(entry: str, name: str) -> Any:
    """A public function of an analysis whose entry point has another name."""
    from actkit import plugins

    return getattr(plugins.load("actkit.analyses", entry), name)
