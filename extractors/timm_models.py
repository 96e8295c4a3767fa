"""The models of timm, with the preprocessing of their pretrained configuration."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from actkit.errors import InputError, nearest, require
from actkit.extractors.weights import SeededOptions, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import from_transforms


class TimmOptions(SeededOptions):
    """Options of :func:`open_network`."""

    model: str = Field(description="Name of a timm model, with or without a weights tag: 'resnet18.a1_in1k'.")
    pretrained: bool = Field(
        False, description="Load the weights of the model's (default) tag from the Hugging Face hub; else random ones."
    )


@with_options(TimmOptions)
def open_network(options: TimmOptions) -> Network:
    """Open a timm model by name.

    The preprocessing is what timm itself evaluates the model with: ``create_transform(**resolve_data_config(…))``
    of its pretrained configuration (input size, crop fraction and mode, interpolation, mean, std), also with random
    weights.

    Returns
    -------
    Network
        On the CPU, in evaluation mode.

    Raises
    ------
    MissingExtraError
        If timm is not installed.
    InputError
        If there is no such model or tag, or its weights lie where only unpickling would read them.
    """
    require("timm", extra="timm", purpose="A timm model")
    import timm
    from timm.data import create_transform, resolve_model_data_config

    family = options.model.split(".")[0]
    if not timm.is_model(family):
        raise InputError(f"timm has no model {family!r}; {nearest(family, timm.list_models())}")
    tags = timm.list_pretrained(family)
    if "." in options.model and options.model not in timm.list_models(f"{family}*", pretrained=True) + tags:
        raise InputError(f"timm has no weights {options.model!r}; {nearest(options.model, tags)}")
    config = timm.get_pretrained_cfg(options.model)
    if options.pretrained and not (config and config.hf_hub_id):
        raise InputError(
            f"the weights of {options.model!r} are not on the Hugging Face hub, and the other address "
            f"({getattr(config, 'url', None)!r}) would be unpickled. Download the file yourself and open it with the "
            "extractor 'checkpoint' (architecture='timm:…', file=…)"
        )
    try:
        with seeded(options.seed):
            module = timm.create_model(options.model, pretrained=options.pretrained)
    except OSError as error:
        raise InputError(
            f"the weights of {options.model!r} cannot be fetched from the hub: {str(error).splitlines()[0]}. "
            "Check the network, or open a file of your own with the extractor 'checkpoint'"
        ) from error
    data_config = resolve_model_data_config(module)
    preprocess = from_transforms(create_transform(**data_config, is_training=False), "timm.create_transform")
    channels, height, width = data_config["input_size"]
    if channels != 3:
        raise InputError(
            f"{options.model} takes {channels} channels, and stimuli have three; wrap it in actkit.Network"
        )
    provenance: dict[str, Any] = {
        "extractor": "timm",
        "architecture": f"timm: {family}",
        "weights": f"timm: {config.hf_hub_id}"
        if options.pretrained and config
        else f"random initialisation, seed {options.seed}",
        "preprocessing_of": f"timm: {family}{'.' + config.tag if config and config.tag else ''}",
        "licence": config.license if options.pretrained and config else None,
        "data_config": {name: list(v) if isinstance(v, tuple) else v for name, v in data_config.items()},
        "preprocessing": preprocess.describe(),
    }
    name = options.name or options.model + ("" if options.pretrained else f"-random{options.seed}")
    return Network(module.eval(), preprocess, name=name, input_shape=(channels, height, width), provenance=provenance)
