"""Image files become 8-bit RGB pictures in one stated way, whatever their mode; what cannot be read names its file.

The treatments, in the order in which they are applied:

========================  =====================================================================================
the file                  becomes
========================  =====================================================================================
empty, unreadable, cut    `StimulusError` with the file's name; a truncated picture is never filled up in silence
short
over Pillow's pixel limit  `StimulusError` with name, size and cure (about 179 million pixels; no silent downscaling)
several frames            the first frame, with a warning (the second view of a stereo JPEG is dropped without one)
16-bit grey               8 bits by ``round(v * 255 / 65535)``; 16-bit colour: the upper byte, as Pillow reads it
32-bit integer or float   `StimulusError`: such files have no agreed white
EXIF orientation          turned upright
transparency              composited over mid-grey (128), with a warning; fully opaque alpha is just dropped
greyscale, bilevel        the same value in R, G and B
palette                   the palette's colours
CMYK, YCbCr, LAB, HSV     RGB as Pillow converts them; embedded colour profiles are not applied
========================  =====================================================================================
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actkit.errors import StimulusError

_FORMATS = "png apng jpg jpeg jpe jfif bmp gif tif tiff webp avif jp2 ppm pgm pbm pnm tga"
SUFFIXES = frozenset("." + suffix for suffix in _FORMATS.split())
"""File suffixes (lower case) that count as pictures when a folder or a zip file is searched."""

BACKGROUND = 128
"""The grey over which transparent pictures are composited."""

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

FIRST_FRAME = "only the first of several frames was taken"
ALPHA = "transparency was composited over mid-grey (128)"
WARNED = frozenset((FIRST_FRAME, ALPHA))
"""The treatments that warn, because they drop or invent something."""


class StimulusWarning(UserWarning):
    """A stimulus was read in a way that drops or invents something."""


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Whether a file name has the suffix of a picture.

    Parameters
    ----------
    name : str or path
        The file's name.

    Returns
    -------
    bool
        By suffix only; the file is not opened.
    """
    return Path(name).suffix.lower() in SUFFIXES


def read_image(source: bytes | str | os.PathLike[str], name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Read a picture as 8-bit RGB.

    Parameters
    ----------
    source : bytes or path
        The encoded picture, or where it lies.
    name : str
        What to call it in messages.

    Returns
    -------
    image : PIL.Image.Image
        Mode RGB, upright.
    treatments : tuple of str
        What was done to get there (see the module's table); empty for an 8-bit RGB file.

    Raises
    ------
    StimulusError
        If it is empty, unreadable, truncated, over Pillow's pixel limit, or has no agreed white.
    """
    data = source if isinstance(source, bytes) else _read_file(source, name)
    if not data:
        raise StimulusError(f"stimulus {name!r} is empty (0 bytes): replace the file or leave it out")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            frames = 1 if opened.format == "MPO" else int(getattr(opened, "n_frames", 1))
            opened.seek(0)
            opened.load()
            image, treatments = to_rgb(opened, name)
    except StimulusError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StimulusError(
            f"stimulus {name!r} is too large to decode: {error}. Shrink the file beforehand; if it is meant to be "
            "that large, raise PIL.Image.MAX_IMAGE_PIXELS in your script"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise StimulusError(
            f"stimulus {name!r} is not a picture that can be read ({len(data)} bytes, first bytes {data[:8]!r}): "
            "replace the file or leave it out"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more
        raise StimulusError(
            f"stimulus {name!r} cannot be decoded, it is damaged or cut short ({type(error).__name__}: {error}): "
            "replace the file or leave it out"
        ) from error
    return image, ((FIRST_FRAME,) if frames > 1 else ()) + treatments


def to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Turn an opened picture into 8-bit RGB by the module's table.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; not changed.
    name : str
        What to call it in messages.

    Returns
    -------
    image : PIL.Image.Image
        A new picture of mode RGB.
    treatments : tuple of str
        What was done.

    Raises
    ------
    StimulusError
        For 32-bit integer and float pictures, and pictures without pixels.
    """
    treatments: list[str] = []
    if image.width == 0 or image.height == 0:
        raise StimulusError(f"stimulus {name!r} has no pixels ({image.width} x {image.height}): leave it out")
    image.load()
    orientation = _orientation(image)
    white = _white(image, name)
    if white is not None:
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8))
        treatments.append("16-bit grey was scaled to 8 bits")
    elif image.mode in ("I", "F"):
        raise StimulusError(
            f"stimulus {name!r} has 32-bit {'integer' if image.mode == 'I' else 'float'} pixels, for which no white "
            "is agreed: convert it to 8 or 16 bits, or pass the values as an array"
        )
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        treatments.append("the EXIF orientation was applied")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image, composited = _over_grey(image)
        treatments += [ALPHA] if composited else []
    if image.mode != "RGB":
        treatments.append(
            "grey was copied to R, G and B" if image.mode in ("L", "1") else f"{image.mode} was converted to RGB"
        )
        image = image.convert("RGB")
    else:
        image = image.copy()
    image.info = {}
    return image, tuple(treatments)


def _read_file(path: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a file, or an error that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StimulusError(f"stimulus {name!r} cannot be read ({error.strerror or error}): {path}") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation (1 upright … 8); broken EXIF blocks count as upright."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block must not make a readable picture unreadable
        return 1


def _white(image: Image.Image, name: str) -> float | None:
    """The value that means white in a picture of more than 8 bits; None for 8-bit modes and unknown white."""
    if image.mode in _SIXTEEN_BITS:
        tags: Any = getattr(image, "tag_v2", {})
        bits = tags.get(258, (16,))  # BitsPerSample: 12-bit TIFF files open in the same mode
        depth = int(bits[0] if isinstance(bits, tuple) else bits)
        return float(2**depth - 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 65535.0
    return None


def _over_grey(image: Image.Image) -> tuple[Image.Image, bool]:
    """Composite over mid-grey; also says whether any pixel was not opaque."""
    rgba = image.convert("RGBA")
    lowest = rgba.getchannel("A").getextrema()[0]
    if lowest == 255:
        return rgba.convert("RGB"), False
    pixels = np.asarray(rgba).astype(np.float64)
    alpha = pixels[..., 3:] / 255.0
    blended = pixels[..., :3] * alpha + BACKGROUND * (1.0 - alpha)
    return Image.fromarray(np.rint(blended).astype(np.uint8)), True
