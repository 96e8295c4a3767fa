"""Vision models of the Hugging Face hub, or of a local folder, with their own image processor."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from actkit.errors import InputError, require
from actkit.extractors.weights import SeededOptions, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import ForeignPreprocessing


class HuggingFaceOptions(SeededOptions):
    """Options of :func:`open_network`."""

    model: str = Field(description="Id on the hub ('google/vit-base-patch16-224') or a local folder.")
    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description="The stored weights (safetensors only), or a random initialisation of the config."
    )
    head: Literal["none", "classification"] = Field(
        "none", description="Open the bare encoder (AutoModel), or with its classifier."
    )
    revision: str | None = Field(None, description="Commit, tag or branch on the hub; none: the main branch.")
    local_files_only: bool = Field(False, description="Never ask the hub; use the folder or the local cache.")


@with_options(HuggingFaceOptions)
def open_network(options: HuggingFaceOptions) -> Network:
    """Open a vision model of the transformers library.

    Weights load from safetensors only, and code that comes with a model is never run (no ``trust_remote_code``).

    Returns
    -------
    Network
        On the CPU, in evaluation mode.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    InputError
        If the model cannot be found, has no safetensors weights or no image processor, or takes no images.
    """
    require("transformers", extra="huggingface", purpose="A Hugging Face model")
    import transformers

    where: dict[str, Any] = {
        "revision": options.revision,
        "local_files_only": options.local_files_only or Path(options.model).is_dir(),
        "trust_remote_code": False,
    }
    auto = transformers.AutoModel if options.head == "none" else transformers.AutoModelForImageClassification
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(options.model, **where)
        if options.weights == "random":
            config = transformers.AutoConfig.from_pretrained(options.model, **where)
            with seeded(options.seed):
                model = auto.from_config(config, trust_remote_code=False)
        else:
            # Weights that a checkpoint lacks (a pooler, a new head) are drawn at random: from the seed, too.
            with seeded(options.seed):
                model = auto.from_pretrained(options.model, use_safetensors=True, **where)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the Hugging Face model {options.model!r} cannot be opened: {str(error).splitlines()[0]} Give a hub id "
            "or a folder with config.json, preprocessor_config.json and model.safetensors"
        ) from error
    revision = getattr(model.config, "_commit_hash", None) or options.revision
    weights = "stored weights" if options.weights == "pretrained" else f"random initialisation, seed {options.seed}"
    name = options.name or Path(options.model).name + (
        "" if options.weights == "pretrained" else f"-random{options.seed}"
    )
    return wrap(model, processor, name=name, weights=weights, source=options.model, revision=revision)


def wrap(
    model: Any,
    processor: Any,
    *,
    name: str | None = None,
    weights: str = "as given",
    source: str | None = None,
    revision: str | None = None,
) -> Network:
    """Make a network of a transformers model and an image processor that are already in memory.

    Of a model of images and text (CLIP, SigLIP) the image encoder is taken.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    processor : transformers image processor
        Turns images into ``pixel_values``.
    name : str, optional
        Name of the network; by default the class name.
    weights, source, revision : str, optional
        Where the weights come from, for the provenance.

    Returns
    -------
    Network
        In evaluation mode.

    Raises
    ------
    InputError
        If the model takes no ``pixel_values``.
    """
    tower: Any = model
    if not _takes_images_first(model):
        tower = getattr(model, "vision_model", None)
        if tower is None or not _takes_images_first(tower):
            raise InputError(
                f"{type(model).__name__} does not take images as its first input, so it cannot be recorded from images "
                "alone. Pick its image part and wrap it: actkit.Network(model.<part>, preprocess=…)"
            )
    # One image through the processor tells the input size; config files name it in too many ways.
    probe = _first(processor, _blank())
    preprocess = ForeignPreprocessing(
        lambda image: _first(processor, image),
        f"transformers.{type(processor).__name__}",
        processor.to_dict(),
        output_shape=tuple(probe.shape),  # type: ignore[arg-type]
    )
    provenance = {
        "extractor": "huggingface",
        "architecture": f"transformers: {type(model).__name__}"
        + ("" if tower is model else f", image encoder {type(tower).__name__}"),
        "config": model.config.to_diff_dict(),
        "source": source,
        "revision": revision,
        "weights": weights,
        "licence": None,  # stated on the model's card, not in its files
        "preprocessing": preprocess.describe(),
    }
    return Network(
        tower.eval(),
        preprocess,
        name=name or type(model).__name__,
        input_shape=tuple(probe.shape),
        provenance=provenance,
    )


def _takes_images_first(module: torch.nn.Module) -> bool:
    return next(iter(inspect.signature(module.forward).parameters), None) == "pixel_values"


def _first(processor: Any, image: Any) -> torch.Tensor:
    return processor(images=image, return_tensors="pt")["pixel_values"][0]


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", (320, 240), (128, 128, 128))
