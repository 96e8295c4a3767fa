"""Networks of one's own: an architecture by name, and its weights from a file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from actkit.errors import InputError, nearest
from actkit.extractors.weights import SeededOptions, file_sha256, load_into, load_state_dict, seeded
from actkit.network import Network
from actkit.options import parse, with_options
from actkit.preprocessing import ForeignPreprocessing, Preprocessing


class CheckpointOptions(SeededOptions):
    """Options of :func:`open_network`."""

    architecture: str = Field(
        description="What builds the module: 'package.module:callable', 'torchvision:NAME' or 'timm:NAME'."
    )
    file: str = Field(description="Weights: a safetensors file, or a state dict saved by torch.save.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the architecture.")
    key: str | None = Field(None, description="Entry of the checkpoint that holds the state dict ('model_state_dict').")
    prefix: str | None = Field(None, description="Start to cut from the weights' names; 'module.' is cut unasked.")
    strict: bool = Field(True, description="Refuse when weights are missing or left over.")
    preprocessing: dict[str, Any] | None = Field(
        None, description="Fields of actkit.preprocessing.Preprocessing; none: that of the torchvision or timm model."
    )


@with_options(CheckpointOptions)
def open_network(options: CheckpointOptions) -> Network:
    """Open a network from an architecture and a weights file, without unpickling.

    ``package.module:callable`` is imported and called with `arguments`, so it is code that you choose to run; the
    weights file is only read.

    Returns
    -------
    Network
        On the CPU, in evaluation mode. The provenance lists weights that were missing or left over.

    Raises
    ------
    InputError
        If the architecture cannot be built, the file is no state dict, or its weights do not fit.
    """
    given = (
        None
        if options.preprocessing is None
        else parse(Preprocessing, options.preprocessing, "checkpoint, option 'preprocessing'")
    )
    state = load_state_dict(options.file, options.key)
    with seeded(options.seed):
        module, own_preprocessing, input_shape = _build(options.architecture, dict(options.arguments))
    left = load_into(module, state, strict=options.strict, prefix=options.prefix)
    preprocess = given or own_preprocessing
    if preprocess is None:
        raise InputError(
            f"the preprocessing of {options.architecture!r} is not known, and guessing it would change the results. "
            "Give preprocessing={'resize': 256, 'crop': 224, 'mean': […], 'std': […]} "
            "(fields of actkit.preprocessing.Preprocessing)"
        )
    provenance: dict[str, Any] = {
        "extractor": "checkpoint",
        "architecture": options.architecture,
        "arguments": {name: repr(value) for name, value in options.arguments.items()},
        "weights": Path(options.file).name,
        "weights_file_sha256": file_sha256(options.file),
        "weights_missing": left["missing"],
        "weights_unused": left["unexpected"],
        "licence": None,
        "preprocessing": preprocess.describe(),
    }
    if left["missing"]:
        provenance["missing_drawn_from_seed"] = options.seed
    return Network(
        module.eval(),
        preprocess,
        name=options.name or Path(options.file).stem,
        input_shape=preprocess.output_shape or input_shape,
        provenance=provenance,
    )


def _build(
    architecture: str, arguments: dict[str, Any]
) -> tuple[torch.nn.Module, Preprocessing | ForeignPreprocessing | None, tuple[int, int, int] | None]:
    """Build a module with random weights, and what is known of its preprocessing and input shape."""
    place, _, name = architecture.partition(":")
    if not name:
        raise InputError(
            f"the architecture {architecture!r} names no callable; write 'package.module:callable', "
            "'torchvision:resnet18' or 'timm:resnet18'"
        )
    if place == "torchvision":
        return _torchvision(name, arguments)
    if place == "timm":
        return _timm(name, arguments)
    try:
        target: Any = importlib.import_module(place)
    except ImportError as error:
        raise InputError(
            f"the architecture {architecture!r} cannot be imported: {error}. Install its package, or put its folder on "
            "PYTHONPATH"
        ) from error
    for part in name.split("."):
        if not hasattr(target, part):
            raise InputError(f"{place!r} has no {name!r}; {nearest(part, [n for n in dir(target) if n[0] != '_'])}")
        target = getattr(target, part)
    module = target(**arguments) if callable(target) else target
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{architecture!r} returned a {type(module).__name__}, not a torch.nn.Module")
    return module, None, None


def _torchvision(name: str, arguments: dict[str, Any]) -> tuple[torch.nn.Module, Any, Any]:
    from actkit.extractors import torchvision_models

    models = torchvision_models._models()
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classification model {name!r}; {nearest(name, models.list_models())}")
    preprocess = torchvision_models.preprocessing_of(models.get_model_weights(name).DEFAULT)
    return models.get_model(name, weights=None, **arguments), preprocess, preprocess.output_shape


def _timm(name: str, arguments: dict[str, Any]) -> tuple[torch.nn.Module, Any, Any]:
    from actkit.errors import require

    require("timm", extra="timm", purpose=f"The architecture timm:{name}")
    import timm
    from timm.data import create_transform, resolve_model_data_config

    from actkit.preprocessing import from_transforms

    if not timm.is_model(name.split(".")[0]):
        raise InputError(f"timm has no model {name!r}; {nearest(name, timm.list_models())}")
    module = timm.create_model(name, pretrained=False, **arguments)
    config = resolve_model_data_config(module)
    return (
        module,
        from_transforms(create_transform(**config, is_training=False), "timm.create_transform"),
        tuple(config["input_size"]),
    )
