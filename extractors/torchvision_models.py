"""The classification models of torchvision, with the preprocessing that belongs to their weights."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from pydantic import Field

from actkit.errors import InputError, MissingExtraError, nearest, require
from actkit.extractors.weights import SeededOptions, load_into, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import ForeignPreprocessing, Preprocessing


class TorchvisionOptions(SeededOptions):
    """Options of :func:`open_network`."""

    model: str = Field(description="Name of a classification model, such as 'resnet18' or 'vit_b_16'.")
    weights: str | None = Field(
        None, description="Entry of the model's weights ('DEFAULT', 'IMAGENET1K_V1', …), downloaded once; none: random."
    )
    transforms: str = Field(
        "DEFAULT", description="With random weights: the weights entry whose preprocessing (and input size) is used."
    )


@with_options(TorchvisionOptions)
def open_network(options: TorchvisionOptions) -> Network:
    """Open a torchvision classification model by name.

    The preprocessing is that of the weights entry (``weights.transforms()``): resize of the shorter side and centre
    crop by Pillow, scale to 0–1, normalise. Random weights take it from the entry `transforms`, which needs no
    download.

    Returns
    -------
    Network
        On the CPU, in evaluation mode.

    Raises
    ------
    MissingExtraError
        If torchvision is not installed, or does not fit the installed torch.
    InputError
        If there is no such model or weights entry.
    """
    models = _models()
    known = models.list_models(module=models)
    if options.model not in known:
        raise InputError(
            f"torchvision has no classification model {options.model!r}; {nearest(options.model, known)}. Detection, "
            "segmentation and video models have no single preprocessing: open them yourself and wrap them in "
            "actkit.Network(module, preprocess=…)"
        )
    entries = models.get_model_weights(options.model)
    entry = _entry(entries, options.weights or options.transforms, options.model)
    trained = options.weights is not None
    with seeded(options.seed):
        module = models.get_model(options.model, weights=None, **builder_arguments(options.model, entry))
    if trained:
        load_into(module, _download(entry))
    preprocess = preprocessing_of(entry)
    provenance = {
        "extractor": "torchvision",
        "architecture": f"torchvision: {options.model}",
        "weights": str(entry) if trained else f"random initialisation, seed {options.seed}",
        "weights_address": entry.url if trained else None,
        "preprocessing_of": str(entry),
        "licence": None,  # torchvision's code is BSD-3-Clause; its weights state none
        "preprocessing": preprocess.describe(),
    }
    name = options.name or options.model + ("" if trained else f"-random{options.seed}")
    return Network(module.eval(), preprocess, name=name, input_shape=preprocess.output_shape, provenance=provenance)


def preprocessing_of(entry: Any) -> Preprocessing | ForeignPreprocessing:
    """Write down the preprocessing of a torchvision weights entry.

    Parameters
    ----------
    entry : torchvision.models.Weights
        An entry such as ``ResNet18_Weights.DEFAULT``.

    Returns
    -------
    Preprocessing or ForeignPreprocessing
        With the same output as ``entry.transforms()``.
    """
    preset = entry.transforms()
    if type(preset).__name__ != "ImageClassification":
        return ForeignPreprocessing(preset, f"torchvision.{type(preset).__name__}", {"transform": repr(preset)})
    resize, crop = _side(preset.resize_size), _side(preset.crop_size)
    return Preprocessing(
        resize=resize,
        resize_mode="squash" if isinstance(resize, tuple) else "short_side",
        crop=crop,
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def builder_arguments(model: str, entry: Any) -> dict[str, Any]:
    """Return what a builder sets by itself when it is given trained weights.

    Weights are loaded here and not by the builder, so the architecture that belongs to them is asked for here.

    Parameters
    ----------
    model : str
        Name of the model.
    entry : torchvision.models.Weights
        The weights entry.

    Returns
    -------
    dict
        Keyword arguments for ``torchvision.models.get_model``.
    """
    arguments: dict[str, Any] = {"num_classes": len(entry.meta["categories"])}
    if model in ("inception_v3", "googlenet"):
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": True}
    if model.startswith("vit_"):
        arguments["image_size"] = entry.meta["min_size"][0]
    return arguments


def _download(entry: Any) -> dict[str, torch.Tensor]:
    """Fetch trained weights into torch's cache, or read them there; not through the builder, which would unpickle."""
    try:
        return entry.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"the weights {entry} from {entry.url} cannot be loaded: {str(error).splitlines()[0]}. Check the network, "
            "remove a damaged file from torch's cache (TORCH_HOME), or open a file of your own with the extractor "
            "'checkpoint'"
        ) from error


def _models() -> Any:
    require("torchvision", extra="torchvision", purpose="A torchvision model")
    try:
        from torchvision import models
    except RuntimeError as error:
        raise MissingExtraError(
            f"torchvision is installed but does not fit torch {torch.__version__}: {error}. "
            "Install both from the same source: pip install --force-reinstall torch torchvision"
        ) from error
    return models


def _entry(entries: Any, name: str, model: str) -> Any:
    short = name.split(".")[-1]
    known = [entry.name for entry in entries] + ["DEFAULT"]
    if short not in known:
        raise InputError(f"{model} has no weights entry {name!r}; {nearest(short, known)}")
    return entries[short]


def _side(size: list[int]) -> int | tuple[int, int]:
    return size[0] if len(size) == 1 else (size[0], size[1])
