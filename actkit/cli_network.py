"""`actkit layers` and `actkit extract`: look at a network, and record it."""

# ruff: noqa: D301 (click reads \b in a docstring: the paragraph keeps its lines)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from actkit.network import Network

NETWORK_HELP = """NETWORK is an extractor (efficientnet_lite0, dual_task_cnn, pixels, gabor), or an extractor and its
    model (timm:resnet18, torchvision:vgg16, huggingface:facebook/dinov2-small, checkpoint:weights.safetensors).
    Options of the extractor go in with -o key=value."""

OPTION = click.option(
    "-o", "extractor_options", multiple=True, metavar="KEY=VALUE", help="Option of the extractor (repeat for several)."
)


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are YAML, so that ``epochs=3`` is a number and ``layers=[a, b]`` a list.

    Parameters
    ----------
    pairs : tuple of str
        As the user typed them.

    Returns
    -------
    dict
        Keys and values.

    Raises
    ------
    click.BadParameter
        If there is no ``=``, or the value is not YAML.
    """
    import yaml

    made: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="-o")
        try:
            made[key.strip().replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise click.BadParameter(
                f"the value of {pair!r} cannot be read; put it in quotes", param_hint="-o"
            ) from None
    return made


def open_(network: str, pairs: tuple[str, ...]) -> Network:
    """Open the network of a command."""
    from actkit.network import open_network
    from actkit.study_file import network_settings

    extractor, settings = network_settings(network, parse_pairs(pairs))
    return open_network(extractor, **settings)


@click.command()
@click.argument("network")
@OPTION
@click.option("--select", "patterns", multiple=True, help="Only layers that match this pattern (repeat for several).")
@click.option("--type", "types", multiple=True, help="Only layers of this module type, such as Conv2d.")
def layers(network: str, extractor_options: tuple[str, ...], patterns: tuple[str, ...], types: tuple[str, ...]) -> None:
    """List the layers of a network in the order they run.

    {NETWORK}

    Shapes are for one stimulus, from a trial run. A module that runs several times is listed once a call (name@0,
    name@1). With --select, try the patterns that `extract` will take: * stays between dots, ** crosses them.

    \b
    Examples:
      actkit layers efficientnet_lite0 --select "*blocks.*"
      actkit layers torchvision:vgg16 -o weights=null --type Conv2d
    """
    opened = open_(network, extractor_options)
    infos = opened.layers()
    if patterns or types:
        chosen = set(opened.select(list(patterns) or ["**"], types=list(types) or None))
        infos = [info for info in infos if full_name(info) in chosen]
    rows = [("layer", "type", "shape", "parameters", "")]
    for info in infos:
        shape = " x ".join(str(side) for side in info.shape or ())
        rows.append(
            (
                full_name(info),
                info.type,
                shape,
                f"{info.parameters:,}" if info.parameters else "",
                info.output_note or "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, kind, shape, count, note in rows:
        line = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}  {note}"
        click.echo(line.rstrip())
    click.echo(f"{len(infos)} layers", err=True)


def full_name(info: Any) -> str:
    """Name a layer as `extract` takes it."""
    return str(info.name)


layers.help = (layers.help or "").replace("{NETWORK}", NETWORK_HELP)


def make_extract() -> click.Command:
    """Make the command ``extract``, whose options are those of the recording engine."""
    from actkit import plugins
    from actkit.options import click_options, given

    engine = plugins.load("actkit.engines", "record")
    model = engine.extract.options_model

    @click.command("extract", help=EXTRACT_HELP)
    @click.argument("network")
    @click.argument("stimuli")
    @click.option("--store", "store", type=click.Path(path_type=Path), required=True, help="The store to write.")
    @OPTION
    @click.option("--dry-run", "-n", is_flag=True, help="Show what would be recorded and how large it is.")
    @click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
    def extract(
        network: str,
        stimuli: str,
        store: Path,
        extractor_options: tuple[str, ...],
        dry_run: bool,
        quiet: bool,
        **values: Any,
    ) -> None:
        opened = open_(network, extractor_options)
        shown = find_stimuli(stimuli)
        chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in given(values).items()}
        if dry_run:
            click.echo(engine.plan_extraction(opened, shown, store, **chosen).describe())
            return
        written = engine.extract(opened, shown, store, progress=False if quiet else None, **chosen)
        click.echo(f"{store}: {written.n_stimuli} stimuli, {len(written.layers)} layers")

    extract.params += click_options(model)
    return extract


EXTRACT_HELP = f"""Record a network's response to stimuli into a store.

    {NETWORK_HELP}

    STIMULI is a data set by name, or a folder, zip file or CSV table of pictures. One pass records all the layers
    and stops after the last of them. A recording that was stopped goes on at its block when the same command runs
    again.

    \b
    Example:
      actkit extract efficientnet_lite0 kriegeskorte2008_92images --store acts.zarr --layers "*blocks.*"
    """


def find_stimuli(text: str) -> Any:
    """Find the stimuli of a command: a path that exists, or else a data set by name.

    Parameters
    ----------
    text : str
        As the user typed it.

    Returns
    -------
    Stimuli
        The stimuli.
    """
    from actkit.stimuli import as_stimuli

    if Path(text).exists():
        return as_stimuli(text)
    if "/" in text or "\\" in text:
        from actkit.errors import InputError

        raise InputError(
            f"there is nothing at {text!r}; give a folder, zip file or table that exists, or a data set's name"
        )
    from actkit.study_workshop import load_dataset

    return load_dataset(text, None, {}).stimuli
