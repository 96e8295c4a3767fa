"""Lets torchvision be imported beside a CPU build of torch it was not compiled with."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

_declared = []


@pytest.fixture(scope="session")
def torchvision():
    """The torchvision package, or a skipped test that says why.

    Installed without its dependencies, torchvision lacks its compiled operators and stops at import, because it
    registers shape rules for two of them. Declared here (without an implementation), they let the rest import.
    """
    pytest.importorskip("torch")
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)  # the declaration lives as long as this object
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision warns that its image extension cannot be loaded
        try:
            import torchvision
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"torchvision does not import with torch {torch.__version__}: {error}")
    return torchvision


@pytest.fixture(scope="session")
def pictures():
    """RGB pictures of several sizes: wide, tall, square, odd, smaller than any network's input."""
    rng = np.random.default_rng(31)
    made = []
    for width, height in [(500, 375), (301, 433), (224, 224), (257, 256), (90, 120)]:
        coarse = rng.integers(0, 256, size=(height // 8, width // 8, 3), dtype=np.uint8)
        made.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return made
