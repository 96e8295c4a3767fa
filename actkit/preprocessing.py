"""Preprocessing as a value: what happens to an image before a network sees it, declared once and written down.

The same network behind two preprocessings is two networks: with EfficientNet-Lite0, swapping one published
resize for another changes the order of its RDMs (Spearman down to .84) and four of ten top-1 answers. So actkit
never guesses. A :class:`Preprocessing` says every step in numbers, its ``repr`` goes into the provenance and the
identity of a store, and :class:`ForeignPreprocessing` does the same for another library's transform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator

from actkit.errors import InputError
from actkit.options import Options

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]

_PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
_TENSOR_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}


class Preprocessing(Options):
    """Turn an image into the tensor that a network expects.

    The steps, in this order: channels → resize → centre crop → clamp → ``(x / scale - mean) / std``.
    An image is a ``PIL.Image`` of any mode (converted to RGB, or to one grey channel), or, for array stimuli, a
    float array of shape ``(channel, y, x)`` in the same units as pixels (0–255), which is always resized as a
    tensor. Calling the object returns a float32 tensor of shape ``(channel, y, x)``.

    Examples
    --------
    >>> lite0 = Preprocessing(resize=(224, 224), resize_mode="squash", interpolation="bicubic", backend="tensor",
    ...                       clamp=(0.0, 255.0), scale=128.0, mean=(127 / 128,))
    >>> lite0(Image.new("RGB", (224, 224), (127, 255, 127)))[:, 0, 0]
    tensor([0., 1., 0.])
    """

    resize: int | tuple[int, int] | None = Field(
        None, description="Resize to this: the shorter side (short_side) or (height, width) (squash); none: keep."
    )
    resize_mode: Literal["short_side", "squash"] = Field(
        "short_side", description="Keep the aspect ratio (short_side), or stretch to the size (squash)."
    )
    crop: int | tuple[int, int] | None = Field(
        None, description="Centre crop after resizing: side or (height, width); black is added where it reaches out."
    )
    interpolation: Interpolation = Field("bilinear", description="Filter of the resize.")
    antialias: bool = Field(True, description="Widen the filter when shrinking. Pillow always does.")
    backend: Literal["pillow", "tensor"] = Field(
        "pillow", description="Resize 8-bit pixels with Pillow, rounded, or float pixels with torch, not rounded."
    )
    clamp: tuple[float, float] | None = Field(
        None, description="Limits of the pixel values after resizing (bicubic overshoots on float pixels)."
    )
    scale: float = Field(255.0, gt=0, description="Pixel values 0–255 are divided by this.")
    mean: tuple[float, ...] = Field((0.0,), description="Subtracted after scaling: one value, or one a channel.")
    std: tuple[float, ...] = Field((1.0,), description="Divides last: one value, or one a channel.")
    channel_order: Literal["RGB", "BGR", "grey"] = Field(
        "RGB", description="Order of the channels that the network gets; mean and std are in this order."
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Preprocessing:
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"{name} {value} has a side below one pixel")
        if self.resize_mode == "short_side" and isinstance(self.resize, tuple):
            raise ValueError(
                f"resize {self.resize} names two sides, but short_side sets only the shorter one: "
                "give one number, or resize_mode='squash'"
            )
        if self.backend == "pillow" and not self.antialias and self.interpolation != "nearest":
            raise ValueError("Pillow cannot resize without antialiasing: give backend='tensor' with antialias=False")
        if self.backend == "tensor" and self.interpolation not in _TENSOR_MODES:
            raise ValueError(f"torch cannot resize by {self.interpolation!r}: give backend='pillow'")
        channels = 1 if self.channel_order == "grey" else 3
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, channels):
                raise ValueError(f"{name} {getattr(self, name)} must hold one value or {channels}, one a channel")
        if min(np.abs(self.std)) == 0:
            raise ValueError(f"std {self.std} divides by zero")
        if self.clamp is not None and self.clamp[0] >= self.clamp[1]:
            raise ValueError(f"clamp {self.clamp} is empty: give (low, high)")
        return self

    @property
    def output_shape(self) -> tuple[int, int, int] | None:
        """Shape ``(channel, y, x)`` of every output, or None where it depends on the image."""
        channels = 1 if self.channel_order == "grey" else 3
        if self.crop is not None:
            return (channels, *_pair(self.crop))
        if self.resize is not None and self.resize_mode == "squash":
            return (channels, *_pair(self.resize))
        return None

    def describe(self) -> dict[str, Any]:
        """Return every step as plain JSON-able values."""
        return {"kind": "actkit.Preprocessing", **self.model_dump(mode="json")}

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """Preprocess one image.

        Parameters
        ----------
        image : PIL.Image.Image or numpy.ndarray
            An image, or an array stimulus of shape ``(channel, y, x)`` with values 0–255.

        Returns
        -------
        torch.Tensor
            float32, shape ``(channel, y, x)``.

        Raises
        ------
        InputError
            If an array has not three dimensions or another number of channels than the network expects.
        """
        pixels = self._resized_pixels(image)
        if self.crop is not None:
            pixels = centre_crop(pixels, *_pair(self.crop))
        if self.clamp is not None:
            pixels = pixels.clamp(*self.clamp)
        if self.channel_order == "BGR":
            pixels = pixels.flip(0)
        mean = torch.tensor(self.mean, dtype=torch.float32).reshape(-1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32).reshape(-1, 1, 1)
        return ((pixels / self.scale - mean) / std).contiguous()

    def _resized_pixels(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        if not isinstance(image, Image.Image):
            pixels = self._checked_array(image)
            return self._resize_tensor(pixels)
        mode = "L" if self.channel_order == "grey" else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if self.backend == "pillow":
            height, width = self._target(image.height, image.width)
            if (height, width) != (image.height, image.width):
                image = image.resize((width, height), _PIL_FILTERS[self.interpolation])
            return _to_tensor(image)
        return self._resize_tensor(_to_tensor(image))

    def _checked_array(self, array: np.ndarray) -> torch.Tensor:
        array = np.asarray(array)
        channels = 1 if self.channel_order == "grey" else 3
        if array.ndim != 3 or array.shape[0] not in (1, channels):
            raise InputError(
                f"an array stimulus of shape {array.shape} is not an image of shape ({channels}, height, width), so it "
                "cannot be resized and normalised like one. Give arrays as (stimulus, channel, y, x) with values "
                "0–255, or a network with preprocess=None to pass them on unchanged"
            )
        return torch.from_numpy(np.array(array, dtype=np.float32)).expand(channels, -1, -1)

    def _resize_tensor(self, pixels: torch.Tensor) -> torch.Tensor:
        target = self._target(*pixels.shape[-2:])
        if target == tuple(pixels.shape[-2:]):
            return pixels
        mode = _TENSOR_MODES.get(self.interpolation, "bicubic")
        smooth: dict[str, Any] = {}
        if self.interpolation != "nearest":
            smooth = {"antialias": self.antialias, "align_corners": False}
        return torch.nn.functional.interpolate(pixels[None], size=target, mode=mode, **smooth)[0]

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize; the longer side is cut to a whole pixel, as torchvision does."""
        if self.resize is None:
            return height, width
        if self.resize_mode == "squash":
            return _pair(self.resize)
        side = _pair(self.resize)[0]
        if height <= width:
            return side, int(side * width / height)
        return int(side * height / width), side


class ForeignPreprocessing:
    """Another library's transform, with a description that enters the provenance.

    Parameters
    ----------
    transform : callable
        Takes an RGB ``PIL.Image``, returns a tensor or array of shape ``(channel, y, x)``.
    source : str
        Where it comes from, e.g. ``"transformers.ViTImageProcessor"``.
    description : mapping
        JSON-able settings that determine what it does.
    output_shape : tuple of int, optional
        ``(channel, y, x)`` where it is the same for every image.
    """

    def __init__(
        self,
        transform: Callable[[Image.Image], Any],
        source: str,
        description: Mapping[str, Any],
        output_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.transform = transform
        self.source = source
        self.output_shape = output_shape
        # One pass through JSON: what is described is what is stored, and later changes to the mapping do not leak in.
        self._description = json.loads(json.dumps(dict(description), sort_keys=True, default=str))

    def describe(self) -> dict[str, Any]:
        """Return the source and settings as plain JSON-able values."""
        return {"kind": self.source, **self._description}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._description.items())
        return f"{self.source}({settings})"

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Preprocess one image to a float32 tensor of shape ``(channel, y, x)``.

        Raises
        ------
        InputError
            If the stimulus is an array: a transform made for images cannot be trusted with it.
        """
        if not isinstance(image, Image.Image):
            raise InputError(
                f"the preprocessing {self.source} takes images, not array stimuli ({type(image).__name__}). "
                "Give image stimuli, or wrap the model: actkit.Network(module, preprocess=None)"
            )
        return torch.as_tensor(self.transform(image.convert("RGB")), dtype=torch.float32).contiguous()


def from_transforms(transform: Any, source: str) -> Preprocessing | ForeignPreprocessing:
    """Write a torchvision-style composition down as a :class:`Preprocessing`.

    Understood are ``Resize``, ``CenterCrop``, ``ToTensor`` (and its namesakes in timm) and ``Normalize``, in this
    order, on Pillow images. Anything else is kept as it is, in a :class:`ForeignPreprocessing`.

    Parameters
    ----------
    transform : callable
        An object with ``.transforms``, such as ``torchvision.transforms.Compose``.
    source : str
        Name for the provenance of a transform that is kept.

    Returns
    -------
    Preprocessing or ForeignPreprocessing
        With the same output as the transform.
    """
    foreign = ForeignPreprocessing(transform, source, {"transform": repr(transform)})
    settings: dict[str, Any] = {}
    expected = ["Resize", "CenterCrop", "ToTensor", "Normalize"]
    for step in getattr(transform, "transforms", [transform]):
        kind = type(step).__name__.removeprefix("Maybe")
        if kind not in expected:
            return foreign
        expected = expected[expected.index(kind) + 1 :]
        if kind == "Resize":
            if getattr(step, "max_size", None) is not None:
                return foreign
            squash = not isinstance(step.size, int) and len(step.size) == 2
            settings |= {
                "resize": tuple(step.size) if squash else int(np.ravel(step.size)[0]),
                "resize_mode": "squash" if squash else "short_side",
                "interpolation": str(getattr(step.interpolation, "value", step.interpolation)),
            }
            if settings["interpolation"] not in _PIL_FILTERS:
                return foreign
        elif kind == "CenterCrop":
            settings["crop"] = tuple(int(side) for side in np.broadcast_to(step.size, 2))
        elif kind == "Normalize":
            settings |= {
                "mean": _written_floats(step.mean),
                "std": _written_floats(step.std),
            }
    if "ToTensor" in expected:
        return foreign
    return Preprocessing(**settings)


def centre_crop(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut the middle out of an image; where the crop is larger than the image, zeros surround it.

    Parameters
    ----------
    pixels : torch.Tensor
        Shape ``(channel, y, x)``.
    height, width : int
        Size of the crop in pixels.

    Returns
    -------
    torch.Tensor
        Shape ``(channel, height, width)``. An odd remainder is rounded half to even, as torchvision does.
    """
    missing_y, missing_x = max(height - pixels.shape[-2], 0), max(width - pixels.shape[-1], 0)
    if missing_y or missing_x:
        before_y, before_x = missing_y // 2, missing_x // 2
        padding = (before_x, missing_x - before_x, before_y, missing_y - before_y)
        pixels = torch.nn.functional.pad(pixels, padding)
    top = round((pixels.shape[-2] - height) / 2)
    left = round((pixels.shape[-1] - width) / 2)
    return pixels[..., top : top + height, left : left + width]


def _written_floats(values: Any) -> tuple[float, ...]:
    """The decimal numbers someone wrote (0.485), even where a float32 tensor now holds them (0.48500001…)."""
    return tuple(float(str(np.float32(value))) for value in np.ravel(np.asarray(values)))


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Pixels as float32 ``(channel, y, x)``, values 0–255."""
    array = np.array(image, dtype=np.float32)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
