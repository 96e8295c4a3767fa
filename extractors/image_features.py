"""Image controls without a trained weight: pixels, and the energy of a bank of Gabor filters.

They are networks like any other, recorded and compared the same way, and say how much of a comparison low-level
image properties explain.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field

from actkit.errors import InputError
from actkit.extractors.weights import NetworkOptions
from actkit.network import Network
from actkit.options import with_options
from actkit.preprocessing import Preprocessing


class PixelsOptions(NetworkOptions):
    """Options of :func:`open_pixels`."""

    size: int = Field(64, ge=1, description="Side in pixels that images are resized to (aspect ratio not kept).")
    colour: bool = Field(False, description="Keep the three colour channels; else luma (grey) alone.")


class GaborOptions(NetworkOptions):
    """Options of :func:`open_gabor`."""

    size: int = Field(224, ge=8, description="Side in pixels that images are resized to (aspect ratio not kept).")
    frequencies: list[float] = Field([7.0, 14.0, 28.0, 56.0], description="Spatial frequencies in cycles per image.")
    orientations: int = Field(6, ge=1, description="Orientations, evenly spread over 180 degrees from 0.")
    bandwidth: float = Field(1.0, gt=0, description="Width of each filter in octaves, at half its peak amplitude.")
    grid: int = Field(14, ge=1, description="Energy is averaged over a grid of this many cells a side.")


class Pixels(torch.nn.Module):
    """Image to vector: the pixels, unchanged."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Flatten images of shape ``(stimulus, channel, y, x)`` to ``(stimulus, unit)``."""
        return images.flatten(1)


class GaborEnergy(torch.nn.Module):
    """Energy of a bank of quadrature Gabor pairs, averaged on a grid.

    With frequency f (cycles per pixel), orientation t and u = x cos t + y sin t, a pair is ::

        even(x, y) = exp(-(x² + y²) / 2s²) (cos 2πfu - c),    odd(x, y) = exp(-(x² + y²) / 2s²) sin 2πfu

    where c takes the mean out of the even filter, and s f = sqrt(ln 2 / 2) / π · (2^b + 1) / (2^b - 1) for a
    bandwidth of b octaves (0.56 for one octave). Both are scaled to unit norm times f: natural images have an
    amplitude spectrum close to 1/f, so every frequency then carries about the same energy. The output is
    ``sqrt((image * even)² + (image * odd)²)``, with zeros around the image, averaged over the cells of the grid.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    frequencies : list of float
        Cycles per image, up to size / 2.
    orientations : int
        Number of orientations; angle k is 180° k / orientations.
    bandwidth : float
        Octaves.
    grid : int
        Cells a side, up to `size`.

    References
    ----------
    Adelson E. H., Bergen J. R. Spatiotemporal energy models for the perception of motion. J Opt Soc Am A 2:284
    (1985). Daugman J. G. Uncertainty relation for resolution in space, spatial frequency, and orientation. J Opt Soc
    Am A 2:1160 (1985).
    """

    def __init__(
        self, size: int, frequencies: list[float], orientations: int, bandwidth: float = 1.0, grid: int = 14
    ) -> None:
        super().__init__()
        if not frequencies or min(frequencies) <= 0 or max(frequencies) > size / 2:
            raise InputError(
                f"Gabor frequencies {frequencies} do not fit images of {size} pixels: each must lie above 0 and at "
                f"most at {size / 2:g} cycles per image, two pixels a cycle"
            )
        if grid > size:
            raise InputError(f"a grid of {grid} cells a side does not fit images of {size} pixels; give at most {size}")
        self.size, self.grid = size, grid
        ratio = math.sqrt(math.log(2) / 2) / math.pi * (2**bandwidth + 1) / (2**bandwidth - 1)
        self.filters = []
        for cycles in frequencies:
            for k in range(orientations):
                name = f"filter_{cycles:g}_{180 * k / orientations:g}".replace(".", "p")
                # Even and odd part are the real and imaginary part of one kernel, kept in the weights as two planes.
                self.register_buffer(name, _quadrature_pair(cycles / size, math.pi * k / orientations, ratio, size))
                self.filters.append(name)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return energies of shape ``(stimulus, filter, grid, grid)`` for grey images ``(stimulus, 1, y, x)``."""
        if images.shape[1:] != (1, self.size, self.size):
            raise InputError(
                f"the Gabor bank takes grey images (1, {self.size}, {self.size}), not {tuple(images.shape[1:])}"
            )
        maps = []
        spectra: dict[int, torch.Tensor] = {}
        for name in self.filters:
            pair = getattr(self, name)
            half = pair.shape[-1] // 2
            # The convolution is circular; with this margin only rows and columns that are cut off wrap around.
            side = _fast_length(self.size + half)
            if side not in spectra:
                spectra[side] = torch.fft.fft2(images[:, 0], s=(side, side))
            kernel = torch.fft.fft2(torch.complex(pair[0], pair[1]), s=(side, side))
            response = torch.fft.ifft2(spectra[side] * kernel)[:, half : half + self.size, half : half + self.size]
            maps.append(torch.nn.functional.adaptive_avg_pool2d(response.abs(), self.grid))
        return torch.stack(maps, dim=1)


@with_options(PixelsOptions)
def open_pixels(options: PixelsOptions) -> Network:
    """Open the pixel control: the image itself, resized by antialiased bicubic interpolation, as one layer ``output``.

    Returns
    -------
    Network
        Its layer has ``size² `` units, or three times as many in colour, with values 0–1.
    """
    preprocess = Preprocessing(
        resize=(options.size, options.size),
        resize_mode="squash",
        interpolation="bicubic",
        channel_order="RGB" if options.colour else "grey",
    )
    return Network(
        Pixels(),
        preprocess,
        name=options.name or "pixels",
        input_shape=preprocess.output_shape,
        provenance=_provenance("pixels", "flattened pixels", preprocess),
    )


@with_options(GaborOptions)
def open_gabor(options: GaborOptions) -> Network:
    """Open the Gabor control: local orientation energy of the grey image, as one layer ``output``.

    See :class:`GaborEnergy` for the formula. Mid-grey becomes zero before filtering, so the border outside the image
    counts as mid-grey.

    Returns
    -------
    Network
        Its layer has shape ``(frequency × orientation, grid, grid)``, frequencies outermost.

    Raises
    ------
    InputError
        If the frequencies or the grid do not fit the image size.
    """
    preprocess = Preprocessing(
        resize=(options.size, options.size),
        resize_mode="squash",
        interpolation="bicubic",
        channel_order="grey",
        mean=(0.5,),
    )
    module = GaborEnergy(options.size, options.frequencies, options.orientations, options.bandwidth, options.grid)
    settings = {name: value for name, value in options.model_dump().items() if name != "name"}
    return Network(
        module.eval(),
        preprocess,
        name=options.name or "gabor",
        input_shape=preprocess.output_shape,
        provenance=_provenance("gabor", "energy of quadrature Gabor pairs", preprocess) | {"settings": settings},
    )


def _provenance(extractor: str, architecture: str, preprocess: Preprocessing) -> dict[str, object]:
    return {
        "extractor": extractor,
        "architecture": architecture,
        "weights": "none: fixed by formula",
        "licence": "Apache-2.0",
        "preprocessing": preprocess.describe(),
    }


def _quadrature_pair(frequency: float, angle: float, ratio: float, limit: int) -> torch.Tensor:
    """Return one even and odd filter, float32, shape ``(2, y, x)``, odd sides, computed in float64."""
    spread = ratio / frequency
    half = min(math.ceil(3 * spread), limit)
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * spread**2))
    phase = 2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
    even = envelope * torch.cos(phase)
    even = even - envelope * (even.sum() / envelope.sum())
    odd = envelope * torch.sin(phase)
    # At two pixels a cycle the odd filter samples only the sine's zeros: it stays zero instead of 0 / 0.
    odd = odd / odd.norm() if odd.norm() > 1e-6 * even.norm() else torch.zeros_like(odd)
    return (torch.stack([even / even.norm(), odd]) * frequency).float()


def _fast_length(n: int) -> int:
    """The next number whose only prime factors are 2, 3 and 5, which Fourier transforms are quick for."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
