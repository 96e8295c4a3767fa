"""`actkit selectivity`, `rank` and `lesion`: single units out, and back into the network to see what it loses."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli_analyses import FIGURE, QUIET, given_options, out_option, save_result
from actkit.cli_network import NETWORK_HELP, OPTION, find_stimuli, open_

if TYPE_CHECKING:
    import xarray as xr

    from actkit.network import Network
    from actkit.stimuli import Stimuli
    from actkit.store import ActivationStore
    from actkit.tasks import Task
    from actkit.units import UnitSet

_TASK = click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="NAME=STIMULI:LABEL",
    help="A task: its name, its stimuli and the label to name (repeat for several).",
)
_REFERENCE = click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Store that holds the intact network's layer, for the modes that take values from a recording.",
)
_TASK_HELP = """A task is NAME=STIMULI:LABEL. Its labels name the network's own output classes: those that
    dual_task_cnn learnt under that NAME, or numbers of output columns. STIMULI is a data set, folder, zip file or
    CSV table, or is written as in a study file: "faces={dataset: rendered_faces, n_identities: 8, select: {split:
    test}}:identity". Rank and measure on images that did not train the network, and measure on others than ranked."""


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
    @click.option(
        "--units", type=click.Path(path_type=Path), help="Write the selective units here, as YAML, for `actkit lesion`."
    )
    @click.option("--prefer", help="With --units: take the units that prefer this value of the label.")
    @click.option(
        "--top", type=float, help="With --units: this share of each layer, selective or not, highest scores first."
    )
    @FIGURE
    @QUIET
    def selectivity(
        store: Path,
        label: str,
        out: Path,
        units: Path | None,
        prefer: str | None,
        top: float | None,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        """Score every filter of every layer by its preference for a class of stimuli.

        The units that it writes are chosen by a correlation; `actkit lesion` tests whether the network needs them.
        The index needs responses that are not negative: name layers after a rectifier, or give --rectify.

        \b
        Examples:
          actkit selectivity acts.zarr --label face --measure d_prime --out selectivity.nc --figure selectivity
          actkit selectivity acts.zarr --label face --layers "**relu3" --out s.nc --units f.yaml --prefer yes --top 0.2
        """
        from actkit import plugins
        from actkit.store import open_store

        _only_with("--units", units, {"--prefer": prefer, "--top": top})
        extra = call_progress(selectivity_function, False if quiet else None)
        result = selectivity_function(open_store(store), label, **extra, **given_options(values))
        save_result(result, out, figure)
        if units is not None:
            room = plugins.load("actkit.analyses", "selectivity")
            write_units(room.units_of_selectivity(result, prefer, fraction=top), units)

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
    @click.option(
        "--units",
        type=click.Path(path_type=Path),
        help="Write the top units here too (share: --fraction), as YAML, for `actkit lesion`.",
    )
    @click.option("--of", "of", help="With --units: the task whose top units to take (the first by default).")
    @_REFERENCE
    @FIGURE
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
        reference: Path | None,
        figure: Path | None,
        quiet: bool,
        **values: Any,
    ) -> None:
        from actkit.errors import InputError, nearest
        from actkit.options import parse

        _only_with("--units", units, {"--of": of})
        chosen = given_options(values)
        fraction = parse(rank_units.options_model, chosen, "rank").fraction  # type: ignore[attr-defined]
        opened = open_(network, extractor_options)
        made = [read_task(opened, text) for text in tasks]
        names = [task.name for task in made]
        if of is not None and of not in names:  # said before hours of work, not after
            raise InputError(f"--of {of!r} is no task of this command; {nearest(of, names)}")
        store = _opened(reference)
        shown = False if quiet else None
        try:
            result = rank_units(opened, layer, made, reference=store, resume=resume, progress=shown, **chosen)
        except KeyboardInterrupt:
            if resume is not None:
                raise
            click.echo("\nStopped. Nothing is kept of a ranking without --resume FOLDER.", err=True)
            raise click.exceptions.Exit(130) from None
        save_result(result, out, figure)
        for name in names:
            click.echo(_ranked(result, name))
        if units is not None:
            write_units(units_of(result, of or names[0], fraction=fraction), units)

    rank.params += click_options(rank_units.options_model)
    return rank


_RANK_HELP = f"""Rank the channels of a layer by what each task loses without them.

    {NETWORK_HELP}

    {_TASK_HELP}

    Every channel is silenced at the layer's output, so name layers after their non-linearity; `actkit layers
    NETWORK` lists them.

    \b
    Examples:
      actkit rank dual_task_cnn features.relu3 --task faces=rendered_faces:identity --task digits=digits:digit \\
        --out ranking.nc --figure ranking --units faces.yaml --of faces
      actkit rank timm:resnet18 layer4 --task mine=labelled.csv:column --strategy racing --resume kept --out r.nc
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
        help="Units to silence: YAML that rank or selectivity wrote with --units, or a saved UnitSet (repeat for their "
        "union).",
    )
    @_TASK
    @OPTION
    @_REFERENCE
    @out_option("The result, a netCDF file.")
    @FIGURE
    def lesion(
        network: str,
        files: tuple[Path, ...],
        tasks: tuple[str, ...],
        extractor_options: tuple[str, ...],
        reference: Path | None,
        out: Path,
        figure: Path | None,
        **values: Any,
    ) -> None:
        from actkit.errors import InputError

        units = [read_units(path) for path in files]
        if not any(len(found) for found in units):
            raise InputError(f"{', '.join(map(str, files))}: no units, so nothing would be silenced; choose some")
        opened = open_(network, extractor_options)
        made = [read_task(opened, text) for text in tasks]
        result = lesion_effect(opened, units, made, _opened(reference), **given_options(values))
        save_result(result, out, figure)
        for task in made:
            for columns, words in (("all", "all outputs"), ("own", "own outputs")):
                row = result.sel(task=task.name, columns=columns)
                click.echo(
                    f"{task.name}, {words}: accuracy {float(row.intact_accuracy):.3f} -> "
                    f"{float(row.lesioned_accuracy):.3f} "
                    f"(drop {float(row.accuracy_drop):.3f} ± {float(row.accuracy_drop_se):.3f})"
                )

    lesion.params += click_options(lesion_effect.options_model)
    return lesion


_LESION_HELP = f"""Silence units of a network and measure what its tasks lose.

    {NETWORK_HELP}

    {_TASK_HELP}

    Accuracy is printed twice: among all outputs of the network, and among the task's own. ± is the standard error
    of the drop over images.

    \b
    Example:
      actkit lesion dual_task_cnn --units faces.yaml --out effect.nc --figure effect \\
        --task "faces={{dataset: rendered_faces, select: {{split: test}}}}:identity" \\
        --task "digits={{dataset: digits, select: {{split: test}}}}:digit"
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
        If the text has another form, the network learnt tasks of other names only, or see `actkit.tasks.make_task`.
    """
    from actkit.errors import InputError, nearest
    from actkit.tasks import make_task

    name, sign, rest = text.partition("=")
    stimuli, colon, label = rest.rpartition(":")
    mapping = rest.startswith("{")
    if not (sign and colon and name and stimuli and label) or mapping != stimuli.endswith("}"):
        raise InputError(f"--task {text!r} is not NAME=STIMULI:LABEL, such as faces=rendered_faces:identity")
    learnt = list(dict.fromkeys(str(entry).partition(":")[0] for entry in network.provenance.get("classes", ())))
    if learnt and name not in learnt:
        # Labels that are numbers would be taken for output columns, which are those of other tasks.
        raise InputError(
            f"{network.name!r} learnt no task called {name!r}, so its outputs mean others; {nearest(name, learnt)}"
        )
    found = _described(stimuli) if mapping else find_stimuli(stimuli)
    return make_task(network, name, found, label)


def _described(text: str) -> Stimuli:
    """Stimuli written as in a study file, ``{dataset: NAME, option: value, select: {label: value}}``."""
    import numpy as np
    import yaml

    from actkit.errors import InputError, nearest
    from actkit.stimuli import as_stimuli
    from actkit.study_words import label_word
    from actkit.study_workshop import load_dataset

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or ("dataset" in values) == ("path" in values):
        raise InputError(
            f"the stimuli {text} cannot be read; write a data set's name, a path, or a mapping with one of the two: "
            "{dataset: NAME, option: value, select: {label: value}}"
        )
    select = values.pop("select", {})
    if "path" in values:
        stimuli = as_stimuli(str(values.pop("path")))
        if values:
            raise InputError(f"unknown option {next(iter(values))!r} beside path in {text}; only select goes with it")
    else:
        stimuli = load_dataset(str(values.pop("dataset")), None, values).stimuli
    if not isinstance(select, dict):
        raise InputError(f"select is {select!r} in {text}; write {{label: value}}, or {{label: [value, value]}}")
    for label, wanted in select.items():
        if label not in stimuli.labels:
            raise InputError(f"select: the stimuli have no label {label!r}; {nearest(str(label), stimuli.labels)}")
        words = {label_word(value) for value in (wanted if isinstance(wanted, list) else [wanted])}
        stimuli = stimuli[np.array([label_word(value) in words for value in stimuli.labels[label].tolist()])]
        if not len(stimuli):
            raise InputError(f"select: no stimulus has {label} {wanted!r}, so nothing is left of {text}")
    return stimuli


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
        try:
            return UnitSet.from_dict(values)
        except InputError:
            raise
        except (TypeError, AttributeError, ValueError) as error:  # typed by hand: 3 for [3], a word for a number
            raise InputError(
                f"{path} cannot be read as units ({error}); write units: [{{layer: NAME, channel: [0, 3]}}]"
            ) from error
    result = load(path)
    if result.attrs.get("analysis") in ("ranking", "selectivity"):
        raise InputError(
            f"{path} is a result of {result.attrs['analysis']!r}, of which any number of units could be taken; write "
            "those you mean with the option --units of the same command"
        )
    return UnitSet.from_dataset(result)


def _opened(store: Path | None) -> ActivationStore | None:
    """The store of a reference, if one was given."""
    from actkit.store import open_store

    return None if store is None else open_store(store)


def _only_with(option: str, value: Any, others: dict[str, Any]) -> None:
    """Refuse options that would do nothing."""
    for name, given in others.items():
        if given is not None and value is None:
            raise click.UsageError(f"{name} says which units {option} writes; give {option} FILE too")


def _ranked(result: xr.Dataset, task: str) -> str:
    """One line about a task's ranking: its first units, and how far halves of the images agree."""
    import numpy as np

    suffix = "" if "rank" in result else "_masked"
    some = result.sel(task=task)
    ranks = some[f"rank{suffix}"].values
    if (ranks < 1).any():
        return f"{task}: no ranking among its own outputs, which it does not name"
    if not some[f"loss_increase{suffix}"].values.any():
        return (
            f"{task}: no channel matters: the network does not use this output (of a tuple, the first tensor is meant)"
        )
    first = some["unit"].values[np.argsort(ranks)[:5]]
    line = f"{task}: first channels {', '.join(map(str, first))}"
    if f"top_overlap{suffix}" in result:
        overlap, rho = (float(some[f"{name}{suffix}"]) for name in ("top_overlap", "rank_correlation"))
        chance = float(result.attrs["chance_overlap"])
        line += (
            f"; halves of the images share {overlap:.2f} of the top (chance {chance:.2f}), rank correlation {rho:.2f}"
        )
    return line


def write_units(units: UnitSet, path: Path) -> None:
    """Write units as YAML, and say how many.

    Parameters
    ----------
    units : UnitSet
        The units.
    path : Path
        The file.
    """
    import yaml

    from actkit.results import atomic_write

    atomic_write(path, yaml.safe_dump(units.to_dict(), sort_keys=False, allow_unicode=True))
    counts = ", ".join(f"{len(units.in_layer(layer))} of {layer}" for layer in units.layers)
    click.echo(f"{path}: {counts}" if counts else f"{path}: no units; a lesion of them changes nothing")
