"""`actkit ceiling`, `decode`, `match`, `encode` and `transfer`: recorded neurons, and a network's units beside them."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli_analyses import FIGURE, QUIET, given_options, out_option, save_result

if TYPE_CHECKING:
    import xarray as xr

    from actkit.options import Options

_RELIABILITY = click.option(
    "--reliability",
    type=click.Path(path_type=Path),
    help="What `actkit ceiling` wrote: correlations are then also divided by each neuron's ceiling.",
)
_GROUPS = click.option(
    "--groups", help="Label whose values are kept together in folds; by default copies of an image are, where known."
)


def find_data(text: str) -> Any:
    """Open what a command is about: a recording of neurons, or RDMs.

    Parameters
    ----------
    text : str
        ``DATASET:VARIABLE``; a netCDF file of RDMs; or a file of a recording in a format that
        :func:`actkit.recordings_files.read_recording` reads.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        The recording, or the RDM dataset.

    Raises
    ------
    InputError
        If it is neither, or a file holds several arrays.
    """
    import xarray as xr

    from actkit.errors import InputError, nearest
    from actkit.recordings_files import is_recording_file, read_recording
    from actkit.results import load
    from actkit.study_opening import load_dataset

    if text.endswith(".nc") and Path(text).is_file():
        with xr.open_dataset(text) as opened:
            if "dissimilarity" in opened.data_vars:
                return load(text)
    if is_recording_file(text):
        return read_recording(text)
    name, sign, variable = text.partition(":")
    if not sign:
        raise InputError(
            f"{text!r} names no recording; write DATASET:VARIABLE, or a file (.nc, .nwb, .csv, "
            ".mat, .h5, .npz, a .zip of rasters, or a .yaml that names one)"
        )
    dataset = load_dataset(name, None, {})
    if variable not in dataset.variables:
        raise InputError(f"{name} has no variable {variable!r}; {nearest(variable, dataset.variables)}")
    return dataset[variable]


def find_recording(text: str) -> xr.DataArray:
    """Open a recording of neurons.

    Parameters
    ----------
    text : str
        ``DATASET:VARIABLE``, or a file of a recording (see :func:`actkit.read_recording`).

    Returns
    -------
    xarray.DataArray
        The recording.

    Raises
    ------
    InputError
        If it is neither, or the file holds several arrays.
    """
    from actkit.errors import InputError

    found = find_data(text)
    if not _of_neurons(found):
        raise InputError(f"{text} has the dims {tuple(found.dims)}, and a recording of neurons has 'neuron' among them")
    return found


def _of_neurons(found: Any) -> bool:
    """Whether it is a recording of neurons, not RDMs."""
    import xarray as xr

    return isinstance(found, xr.DataArray) and "neuron" in found.dims


def _both(
    first: type[Options], second: type[Options], words: tuple[str, str], skip: Sequence[str] = ()
) -> list[click.Option]:
    """Options of a command that does one of two things: those they share once, with the words of both."""
    from actkit.options import click_options

    made = {str(option.name): option for option in click_options(first, tuple(skip))}
    ours = set(made)
    for option in click_options(second, tuple(skip)):
        twin = made.get(str(option.name))
        if twin is None:
            option.help = f"{words[1]}: {option.help}"
            made[str(option.name)] = option
            continue
        ours.discard(str(option.name))
        if isinstance(twin.type, click.Choice) and isinstance(option.type, click.Choice):
            twin.type = click.Choice(list(dict.fromkeys([*twin.type.choices, *option.type.choices])))
        (text, _, default), (other, _, theirs) = ((o.help or "").partition(" [default: ") for o in (twin, option))
        if text == other and default != theirs:
            twin.help = f"{text} [default: {default[:-1]} ({words[0].lower()}), {theirs[:-1]} ({words[1].lower()})]"
        elif twin.help != option.help:
            twin.help = f"{words[0]}: {twin.help} {words[1]}: {option.help}"
    for name in ours:
        made[name].help = f"{words[0]}: {made[name].help}"
    return list(made.values())


def _own(values: dict[str, Any], model: type[Options], what: str) -> dict[str, Any]:
    """Typed options of one of the two things; those of the other are refused, not dropped."""
    from actkit.errors import InputError

    typed = given_options(values)
    if foreign := [name for name in typed if name not in model.model_fields]:
        raise InputError(f"--{foreign[0].replace('_', '-')} does not belong to {what}; leave it out")
    return typed


def _reliability_of(path: Path | None) -> Any:
    from actkit.results import load

    return None if path is None else load(path)


def make_ceiling() -> click.Command:
    """Make the command ``ceiling``: `actkit.neuron_reliability` of neurons, `actkit.noise_ceiling` of RDMs."""
    from actkit.study_file import function, options_of

    of_neurons, of_rdms = function("neuron_reliability"), function("noise_ceiling")

    @click.command("ceiling")
    @click.argument("data")
    @out_option("The result, a netCDF file.")
    @FIGURE
    def ceiling(data: str, out: Path, figure: Path | None, **values: Any) -> None:
        """Bound what any model can reach: by the noise of neurons, or by how much subjects agree.

        DATA is DATASET:VARIABLE or a file (.nc, .nwb, .csv, .mat, .h5, .npz, a .zip of rasters, or a .yaml that names
        one and its options). Of a recording (stimulus, repetition, neuron), the reliability of
        each neuron's mean response, and its root, the correlation that a model without error reaches. Of RDMs of
        subjects, the similarity of each subject's RDM to those of all and to those of the others.

        \b
        Examples:
          actkit ceiling cowley2023_v4_210325:responses --out reliability.nc --figure reliability
          actkit ceiling kriegeskorte2008_92images:judgements --compare pearson --out ceiling.nc
        """
        found = find_data(data)
        if _of_neurons(found):
            result = of_neurons(found, **_own(values, options_of(of_neurons), "a recording of neurons"))
        else:
            result = of_rdms(found, **_own(values, options_of(of_rdms), "RDMs"))
        save_result(result, out, figure)

    ceiling.params += _both(options_of(of_neurons), options_of(of_rdms), ("Neurons", "RDMs"))
    return ceiling


def make_decode() -> click.Command:
    """Make the command ``decode``: `actkit.decode` of a store, `decode_neurons` of a recording."""
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    of_store, of_neurons = function("decoding"), _analysis("decoding_neurons", "decode_neurons")

    @click.command("decode")
    @click.argument("source")
    @click.option("--label", required=True, help="The stimulus label to decode.")
    @click.option("--groups", help="Label whose values are never split between training and test.")
    @click.option("--condition", help="Label such as the position: train in one value, test in each.")
    @out_option("The result, a netCDF file.")
    @FIGURE
    @QUIET
    def decode(
        source: str,
        label: str,
        groups: str | None,
        condition: str | None,
        out: Path,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Decode a label of held-out stimuli from every layer, or of held-out presentations from neurons.

        SOURCE is a store, or a recording of neurons: DATASET:VARIABLE, or a file of one (as in `actkit ceiling --help`)
        of dims stimulus, repetition, neuron (or stimulus, neuron, with --hold-out stimulus).

        \b
        Examples:
          actkit decode acts.zarr --label animal --out decoding.nc
          actkit decode acts.zarr --label animal --groups species --sizes 10 --sizes 100 --out species.nc
          actkit decode zhang_desimone_it_7objects:responses --label object --condition place --out objects.nc
        """
        from actkit.store import open_store

        extra: dict[str, Any] = {"groups": groups, "condition": condition}
        if not Path(source).is_dir() and (":" in source or source.endswith(".nc")):
            own = _own(values, options_of(of_neurons), "a recording of neurons")
            save_result(of_neurons(find_recording(source), label, **extra, **own), out, figure)
            return
        extra |= call_progress(of_store, False if quiet else None)
        own = _own(values, options_of(of_store), "a store")
        save_result(of_store(open_store(Path(source)), label, **extra, **own), out, figure)

    skip = ("label", "labels", "groups", "condition")
    decode.params += _both(options_of(of_store), options_of(of_neurons), ("Stores", "Neurons"), skip)
    return decode


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

        DATA is DATASET:VARIABLE, or a file of a recording (as in `actkit ceiling --help`). STORE holds the units: a
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


def make_transfer() -> click.Command:
    """Make the command ``transfer``, whose options are those of `actkit.analyses.matched_transfer.transfer`."""
    from actkit.options import click_options
    from actkit.study_file import options_of

    transfer_function = _analysis("matched_transfer", "transfer")

    @click.command("transfer")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.argument("data")
    @click.option("--match", type=click.Path(path_type=Path), required=True, help="What `actkit match` wrote.")
    @click.option("--labels", required=True, help="The stimulus label to decode.")
    @out_option("The result, a netCDF file.")
    @FIGURE
    def transfer(
        store: Path, data: str, match: Path, labels: str, out: Path, figure: Path | None, **values: Any
    ) -> None:
        """Train a classifier on the units matched with neurons, and test it on the neurons.

        STORE and DATA are those that were matched. Beside the transfer: the same classifier trained and tested on
        units, and on neurons, and three controls (permuted labels, a permuted match, random units of the layer).

        \b
        Example:
          actkit match v4.zarr cowley2023_v4_210325:responses --labels object --out match.nc
          actkit transfer v4.zarr cowley2023_v4_210325:responses --match match.nc --labels object \\
            --out transfer.nc --figure transfer
        """
        from actkit.results import load
        from actkit.store import open_store

        recorded = find_recording(data)
        result = transfer_function(load(match), open_store(store), recorded, labels, **given_options(values))
        save_result(result, out, figure)

    transfer.params += click_options(options_of(transfer_function))
    return transfer


def _analysis(entry: str, name: str) -> Any:
    """A public function of an analysis whose entry point has another name."""
    from actkit import plugins

    return getattr(plugins.load("actkit.analyses", entry), name)
