"""`actkit selectivity`, `rank` and `lesion`: single units out, and back into the network to see what it loses."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli_analyses import FIGURE, QUIET, given_options, out_option, save_result
from actkit.cli_network import NETWORK_HELP, OPTION, find_stimuli, open_

if TYPE_CHECKING:
    from actkit.network import Network
    from actkit.tasks import Task
    from actkit.units import UnitSet

_TASK = click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="NAME=STIMULI:LABEL",
    help="A task: its name, its stimuli (a data set, folder, zip or table) and the label to name (repeat for several).",
)
_UNITS = click.option(
    "--units", type=click.Path(path_type=Path), help="Write the chosen units here too, as YAML, for `actkit lesion`."
)
_TASK_HELP = """A task names the network's own output classes: the labels of a network that dual_task_cnn trained, or
    labels that are the numbers of output columns."""


def make_selectivity() -> click.Command:
    """Make the command ``selectivity``, whose options are those of `actkit.selectivity`."""
    from actkit.options import click_options
    from actkit.study_file import function, options_of
    from actkit.study_workshop import call_progress

    selectivity_function = function("selectivity")

    @click.command("selectivity")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.option("--label", required=True, help="The stimulus label whose values are contrasted.")
    @out_option("The result, a netCDF file.")
    @_UNITS
    @click.option("--prefer", help="With --units: take the units that prefer this value of the label.")
    @FIGURE
    @QUIET
    def selectivity(
        store: Path,
        label: str,
        out: Path,
        units: Path | None,
        prefer: str | None,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Score every filter of every layer by its preference for a class of stimuli.

        \b
        Example:
          actkit selectivity acts.zarr --label face --measure d_prime --out selectivity.nc --figure selectivity
        """
        from actkit import plugins
        from actkit.store import open_store

        extra = call_progress(selectivity_function, False if quiet else None)
        result = selectivity_function(open_store(store), label, **extra, **given_options(values))
        save_result(result, out, figure)
        if units is not None:
            room = plugins.load("actkit.analyses", "selectivity")
            _write_units(room.units_of_selectivity(result, prefer), units)

    selectivity.params += click_options(options_of(selectivity_function))
    return selectivity


def make_rank() -> click.Command:
    """Make the command ``rank``, whose options are those of `actkit.rank_units`."""
    from actkit.options import click_options
    from actkit.ranking import rank_units, units_of

    @click.command("rank", help=_RANK_HELP)
    @click.argument("network")
    @click.argument("layer")
    @_TASK
    @OPTION
    @out_option("The result, a netCDF file.")
    @click.option(
        "--resume", type=click.Path(path_type=Path), help="Keep finished blocks here; the same command goes on there."
    )
    @_UNITS
    @click.option("--of", "of", help="With --units: take the top units of this task (the first by default).")
    @QUIET
    def rank(
        network: str,
        layer: str,
        tasks: tuple[str, ...],
        extractor_options: tuple[str, ...],
        out: Path,
        resume: Path | None,
        units: Path | None,
        of: str | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        opened = open_(network, extractor_options)
        made = [read_task(opened, text) for text in tasks]
        chosen = given_options(values)
        result = rank_units(opened, layer, made, resume=resume, progress=False if quiet else None, **chosen)
        save_result(result, out)
        if units is not None:
            _write_units(units_of(result, of or made[0].name, fraction=chosen.get("fraction", 0.2)), units)

    rank.params += click_options(rank_units.options_model)
    return rank


_RANK_HELP = f"""Rank the channels of a layer by what each task loses without them.

    {NETWORK_HELP}

    {_TASK_HELP}

    \b
    Example:
      actkit rank dual_task_cnn features.5 --task face=rendered_faces:identity --out ranking.nc --units face.yaml
    """


def make_lesion() -> click.Command:
    """Make the command ``lesion``, whose options are those of `actkit.lesion.lesion_effect`."""
    from actkit.lesion import lesion_effect
    from actkit.options import click_options

    @click.command("lesion", help=_LESION_HELP)
    @click.argument("network")
    @click.option(
        "--units",
        "files",
        multiple=True,
        required=True,
        type=click.Path(path_type=Path),
        help="Units to silence: YAML or netCDF that rank or selectivity wrote (repeat for their union).",
    )
    @_TASK
    @OPTION
    @click.option(
        "--reference", type=click.Path(path_type=Path), help="Store of the intact network, for mean and permute."
    )
    @out_option("The result, a netCDF file.")
    def lesion(
        network: str,
        files: tuple[Path, ...],
        tasks: tuple[str, ...],
        extractor_options: tuple[str, ...],
        reference: Path | None,
        out: Path,
        **values: Any,
    ) -> None:
        from actkit.store import open_store

        opened = open_(network, extractor_options)
        units = [read_units(path) for path in files]
        made = [read_task(opened, text) for text in tasks]
        store = None if reference is None else open_store(reference)
        result = lesion_effect(opened, units, made, store, **given_options(values))
        save_result(result, out)
        for task in made:
            row = result.sel(task=task.name, columns="all")
            click.echo(
                f"{task.name}: accuracy {float(row.intact_accuracy):.3f} -> {float(row.lesioned_accuracy):.3f} "
                f"(drop {float(row.accuracy_drop):.3f} ± {float(row.accuracy_drop_se):.3f})"
            )

    lesion.params += click_options(lesion_effect.options_model)
    return lesion


_LESION_HELP = f"""Silence units of a network and measure what its tasks lose.

    {NETWORK_HELP}

    {_TASK_HELP}

    \b
    Example:
      actkit lesion dual_task_cnn --units face.yaml --task face=rendered_faces:identity --out effect.nc
    """


def read_task(network: Network, text: str) -> Task:
    """Make the task that a command line names.

    Parameters
    ----------
    network : Network
        The network that does the task.
    text : str
        ``NAME=STIMULI:LABEL``.

    Returns
    -------
    Task
        The task.

    Raises
    ------
    InputError
        If the text has another form, or see `actkit.tasks.make_task`.
    """
    from actkit.errors import InputError
    from actkit.tasks import make_task

    name, sign, rest = text.partition("=")
    stimuli, colon, label = rest.rpartition(":")
    if not (sign and colon and name and stimuli and label):
        raise InputError(f"--task {text!r} is not NAME=STIMULI:LABEL, such as face=rendered_faces:identity")
    return make_task(network, name, find_stimuli(stimuli), label)


def read_units(path: Path) -> UnitSet:
    """Read units from a file.

    Parameters
    ----------
    path : Path
        YAML, or netCDF.

    Returns
    -------
    UnitSet
        The units.

    Raises
    ------
    InputError
        If there is no such file, or it holds no units.
    """
    import yaml

    from actkit.errors import InputError
    from actkit.results import load
    from actkit.units import UnitSet

    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; write one with `actkit rank … --units {path}`")
    if path.suffix in (".yaml", ".yml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise InputError(
                f"{path} holds no units; write it with `actkit rank` or `actkit selectivity`, option --units"
            )
        return UnitSet.from_dict(values)
    return UnitSet.from_dataset(load(path))


def _write_units(units: UnitSet, path: Path) -> None:
    """Write units as YAML, and say how many."""
    import yaml

    from actkit.results import atomic_write

    atomic_write(path, yaml.safe_dump(units.to_dict(), sort_keys=False, allow_unicode=True))
    click.echo(f"{path}: {len(units)} units")
