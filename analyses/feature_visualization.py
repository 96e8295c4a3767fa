"""Feature visualisation: images that drive a unit as strongly as gradient ascent can make them.

From noise, an image is changed step by step along the gradient of a unit's activation. Jitter, blur and a penalty on
the image's norm keep it from becoming the high-frequency noise that networks answer to as well (Dobs et al. 2022, Fig.
3; Erhan et al. 2009; Mordvintsev et al. 2015). What comes out is one stimulus that a unit prefers, not the proof that
it means anything: several seeds show how much of it is chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe
from actkit.units import Unit, UnitSet

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from actkit.layers import LayerInfo
    from actkit.network import Network

_RECTIFIERS = {"ReLU", "ReLU6", "Threshold", "Hardtanh"}
_PROBES = (0, 51, 255)  # grey levels that show what the preprocessing makes of pixel values


class FeatureVisualizationOptions(Options):
    """Options of :func:`visualize`."""

    objective: Literal["l2", "mean", "centre"] = Field(
        "l2",
        description="What is driven up: the l2 norm of the positive part of the filter's map, its mean, or the unit at "
        "its centre. A unit with a position, or without a map, is driven itself.",
    )
    n_seeds: int = Field(3, ge=1, description="Images of each unit, from different noise.")
    steps: int = Field(256, ge=1, description="Steps of gradient ascent.")
    step_size: float = Field(
        0.02, gt=0, description="Root mean square change of a pixel in one step, as a share of the pixel range."
    )
    jitter: int = Field(16, ge=0, description="Before each step the image is rolled by 0 to this many pixels.")
    blur: float = Field(1.0, ge=0, description="Standard deviation of the Gaussian blur, in pixels; 0: none.")
    blur_every: int = Field(4, ge=1, description="Steps between two blurs.")
    penalty: float = Field(
        1e-3,
        ge=0,
        description="Weight of the penalty on the l2 norm of the image, mid-grey being 0, black -1, white 1.",
    )
    contrast: float = Field(
        0.1, gt=0, description="Standard deviation of the noise to start from, as a share of the pixel range."
    )
    valid_range: list[float] | None = Field(
        None,
        description="Lowest and highest value that the network takes; by default what its preprocessing makes of black "
        "and white.",
    )
    batch: int = Field(8, ge=1, description="Units at a time.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the noise and of the jitter.")

    @field_validator("valid_range")
    @classmethod
    def _low_high(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (len(value) != 2 or not value[0] < value[1]):
            raise ValueError("give two numbers, the lower first")
        return value


@with_options(FeatureVisualizationOptions)
def visualize(
    network: Network,
    units: UnitSet | Mapping[str, Sequence[int]],
    progress: bool | None = None,
    *,
    options: FeatureVisualizationOptions,
) -> xr.Dataset:
    """Make images that drive units of a network.

    Each step rolls the image by a random number of pixels, takes the gradient of the objective minus the penalty,
    scales it to a fixed size, adds it, rolls back, and cuts the result to the range of pixels that exist; every few
    steps the image is blurred. The scripts of Dobs et al. (2022) take 500 steps of 0.032 (25 gradient norms in images
    from -1 to 1, 224 x 224 pixels) from noise of contrast 0.5 and blur by 0.5 pixels every 10 steps. The defaults here
    blur more and start from fainter noise, chosen by eye on EfficientNet-Lite0. A rectifier that is silent for the
    noise has no gradient; its highest input is driven until it answers. The network runs in evaluation mode and only
    as far as the layer; weights, gradients and training flags are left as they are. All units share the noise and the
    jitter of a seed.

    Parameters
    ----------
    network : Network
        The network; a lesioned one is visualised as it is.
    units : UnitSet or mapping of layer to channels
        Which units: channels, or single positions.
    progress : bool, optional
        Show a bar over the steps; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``image`` (unit, draw, row, column, colour): pixels from 0 (black) to 1 (white); ``activation`` (unit, draw,
        step): the objective before each step, on the jittered image; ``start`` and ``final`` (unit, draw): the
        objective of the noise and of the image; ``stuck`` (unit, draw): 1 where the last gradient was 0, so that the
        image is still noise. Coordinates ``unit_layer``, ``channel``, ``y``, ``x`` and ``score`` name the units.

    Raises
    ------
    InputError
        If there are no units, one does not exist, or the range of pixels cannot be told from the preprocessing.
    LayerError
        If a layer does not exist or cannot be recorded.

    References
    ----------
    Dobs et al. (2022), Science Advances 8, eabl8913; Erhan et al. (2009), Visualizing higher-layer features of a deep
    network, University of Montreal 1341; Mordvintsev et al. (2015), Inceptionism.
    """
    import torch

    from actkit.layers import evaluating

    chosen = _units(units)
    layers = {layer.name: layer for layer in network.layers()}
    for name in chosen.layers:
        if name in layers and layers[name].problem:
            raise LayerError(f"layer {name!r} cannot be visualised: {layers[name].problem}")
    chosen.check({name: layer.shape for name, layer in layers.items() if layer.shape})
    low, high = _range(network, options)
    shape = (len(low), *_size(network))
    parts = [
        (name, rows[start : start + options.batch])
        for name in chosen.layers
        for rows in [np.flatnonzero(chosen.layer == name)]
        for start in range(0, len(rows), options.batch)
    ]
    n, draws = len(chosen), options.n_seeds
    images = np.empty((n, draws, *shape), dtype=np.float32)
    traces = np.empty((n, draws, options.steps))
    ends = np.empty((2, n, draws))
    stuck = np.zeros((n, draws), dtype=np.int8)
    everything = list(chosen)
    bar = progress_bar(total=len(parts) * draws * options.steps, desc="visualising", unit="step", enabled=progress)
    with bar, evaluating(network.module):
        for name, rows in parts:
            with _until(network, layers[name]) as activations:
                place = (network.device, network.dtype)
                climb = _Climb(activations, [everything[row] for row in rows], layers[name], low, high, place, options)
                for draw in range(draws):
                    noise = generator(options.seed, draw).normal(size=shape)
                    start = np.clip(0.5 + options.contrast * noise, 0, 1)
                    jitter = generator(options.seed, draw, Stream.PERMUTATIONS)
                    shifts = jitter.integers(0, options.jitter + 1, size=(options.steps, 2))
                    pixels = torch.from_numpy(np.repeat(start[None], len(rows), axis=0))
                    found, trace, first, last, idle = climb(pixels.to(*place), shifts, bar)
                    images[rows, draw] = found.float().cpu().numpy()
                    traces[rows, draw] = trace
                    ends[0, rows, draw], ends[1, rows, draw] = first, last
                    stuck[rows, draw] = idle
    result = xr.Dataset(
        {
            "image": (("unit", "draw", "row", "column", "colour"), np.moveaxis(images, 2, -1), _about("pixel value")),
            "activation": (("unit", "draw", "step"), traces, _about("objective before each step")),
            "start": (("unit", "draw"), ends[0], _about("objective of the noise")),
            "final": (("unit", "draw"), ends[1], _about("objective of the image")),
            "stuck": (("unit", "draw"), stuck, _about("1 where the last gradient was 0")),
        },
        coords={
            "draw": np.arange(draws),
            "unit_layer": ("unit", chosen.layer),
            "channel": ("unit", chosen.channel),
            "y": ("unit", chosen.y),
            "x": ("unit", chosen.x),
            "score": ("unit", chosen.score),
        },
    )
    return describe(
        result,
        "feature_visualization",
        options,
        {"network": network.fingerprint, "units": chosen.fingerprint},
        network=network.name,
        question=chosen.question,
        objective=options.objective,
        seed=options.seed,
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _units(units: UnitSet | Mapping[str, Sequence[int]]) -> UnitSet:
    """Units as a set."""
    if isinstance(units, Mapping):
        sets = [UnitSet.of(str(name), channels) for name, channels in units.items()]
        units = sets[0] if sets else UnitSet.of("", [])
        for more in sets[1:]:
            units = units | more
    if not isinstance(units, UnitSet):
        raise InputError(f"units is a {type(units).__name__}; give a UnitSet, or a mapping of layer to channels")
    if not len(units):
        raise InputError("there are no units to visualise; give at least one")
    return units


def _size(network: Network) -> tuple[int, int]:
    """Height and width of what the network takes."""
    shape = network.input_shape
    if shape is None:
        from PIL import Image

        shape = tuple(network.prepare(Image.new("RGB", (224, 224))).shape)
    if len(shape) != 3:
        raise InputError(
            f"{network.name!r} takes input of shape {shape}; images (channel, y, x) can be visualised, nothing else"
        )
    return int(shape[1]), int(shape[2])


def _range(network: Network, options: FeatureVisualizationOptions) -> tuple[np.ndarray, np.ndarray]:
    """What black and white are for the network, channel by channel."""
    from PIL import Image

    height, width = _size(network)
    if options.valid_range is not None:
        shape = network.input_shape or tuple(network.prepare(Image.new("RGB", (width, height))).shape)
        return np.full(shape[0], options.valid_range[0]), np.full(shape[0], options.valid_range[1])
    cure = "give valid_range=[low, high] in the values that the network takes"
    try:
        prepared = [network.prepare(Image.new("RGB", (width, height), (grey,) * 3)).double() for grey in _PROBES]
    except (InputError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the preprocessing of {network.name!r} takes no pictures ({error}); {cure}") from error
    levels = np.array([image.mean(dim=(1, 2)).numpy() for image in prepared])
    flat = max(float((image - image.mean(dim=(1, 2), keepdim=True)).abs().max()) for image in prepared)
    extent = levels[2] - levels[0]
    straight = np.abs(levels[1] - levels[0] - extent * _PROBES[1] / 255)
    if not (extent > 0).all() or flat > 1e-3 * extent.max() or (straight > 1e-3 * extent).any():
        raise InputError(f"the preprocessing of {network.name!r} is no linear map of pixel values; {cure}")
    return levels[0], levels[2]


class _Reached(BaseException):
    """Ends a forward pass at the layer; not an Exception, so that no network swallows it."""


@contextmanager
def _until(network: Network, layer: LayerInfo) -> Iterator[Any]:
    """Give a function that runs the network up to a layer: its output with gradients, its input where it rectifies.

    A rectifier that is silent passes no gradient; its input still says where to go.
    """
    from actkit.layers import first_tensor, module_paths

    held: list[torch.Tensor] = []
    before: list[torch.Tensor] = []
    calls = [0]

    def note_input(_module: torch.nn.Module, inputs: Any) -> None:
        if calls[0] == (layer.call or 0) and inputs:
            before.append(inputs[0].clone())  # which an in-place rectifier would overwrite

    def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        calls[0] += 1
        if calls[0] - 1 != (layer.call or 0):
            return
        tensor, note = first_tensor(output)
        if tensor is None:
            raise LayerError(f"layer {layer.name!r} cannot be visualised: {note}")
        held.append(tensor)
        raise _Reached

    def activations(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        held.clear()
        before.clear()
        calls[0] = 0
        with suppress(_Reached):
            network.module(images)
        if not held:
            raise LayerError(f"layer {layer.name!r} did not run in this forward pass; choose one that runs always")
        return layer.arrange(held.pop()), layer.arrange(before.pop()) if before else None

    module = module_paths(network.module)[layer.module]
    handles = [module.register_forward_hook(hook)]
    if _RECTIFIERS & set(layer.bases):
        handles.append(module.register_forward_pre_hook(note_input))
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()


class _Climb:
    """Gradient ascent for some units of one layer at once, one image each."""

    def __init__(
        self,
        activations: Any,
        units: Sequence[Unit],
        layer: LayerInfo,
        low: np.ndarray,
        high: np.ndarray,
        place: tuple[Any, Any],
        options: FeatureVisualizationOptions,
    ) -> None:
        import torch

        self.activations, self.units, self.layer, self.options = activations, units, layer, options
        self.low = torch.from_numpy(low).to(*place)[:, None, None]
        self.extent = torch.from_numpy(high - low).to(*place)[:, None, None]
        reach = max(1, int(np.ceil(3 * options.blur)))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(options.blur, 1e-6)) ** 2)
        self.kernel = torch.from_numpy(kernel / kernel.sum()).to(*place)

    def objective(self, pixels: torch.Tensor) -> torch.Tensor:
        """The activation of each image's own unit, ``(units,)``."""
        import torch

        output, before = self.activations(self.low + pixels * self.extent)
        found = []
        for row, unit in enumerate(self.units):
            values = self._own(output[row], unit)
            drive = None if before is None else self._own(before[row], unit)
            if values.numel() == 1:
                value = values.reshape(())
            elif self.options.objective == "mean":
                value = values.mean()
            else:
                norm = torch.linalg.vector_norm(values.clamp(min=0))
                # A map without any positive value has a flat norm: climb its mean until it has one.
                value = norm if drive is not None else torch.where(norm > 0, norm, values.mean())
            if drive is not None:
                # The highest input of a silent rectifier is the first that can wake it. The value stays 0.
                value = torch.where(value == 0, drive.max() - drive.max().detach(), value)
            found.append(value)
        return torch.stack(found)

    def _own(self, output: torch.Tensor, unit: Unit) -> torch.Tensor:
        """What a unit gives for its image: its map, one position of it, or the whole layer."""
        values = output
        if unit.channel >= 0:
            values = values[..., unit.channel] if len(self.layer.shape) == 2 else values[unit.channel]
            for place in (unit.y, unit.x):
                values = values[place] if place >= 0 else values
            if values.ndim and self.options.objective == "centre":
                values = values[tuple(size // 2 for size in values.shape)]
        return values

    def __call__(
        self, pixels: torch.Tensor, shifts: np.ndarray, bar: Any
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Climb; gives the images, the objective at every step, before and after, and where the gradient was 0."""
        import torch

        trace = np.empty((len(pixels), len(shifts)))
        dims = (1, 2, 3)
        idle = torch.zeros(len(pixels), dtype=torch.bool)
        with torch.no_grad():
            first = self.objective(pixels).double().cpu().numpy()
        for step, (down, along) in enumerate(shifts.tolist()):
            moved = torch.roll(pixels, (down, along), dims=(2, 3)).requires_grad_(True)
            with torch.enable_grad():
                value = self.objective(moved)
                (gradient,) = torch.autograd.grad(value.sum(), moved)
            with torch.no_grad():
                trace[:, step] = value.detach().double().cpu().numpy()
                idle = (gradient == 0).flatten(1).all(dim=1)
                grey = 2 * moved - 1
                norm = torch.linalg.vector_norm(grey, dim=dims, keepdim=True).clamp(min=1e-12)
                gradient = gradient - self.options.penalty * 2 * grey / norm
                size = gradient.square().mean(dim=dims, keepdim=True).sqrt()
                change = gradient / size.clamp(min=1e-30) * self.options.step_size
                # Where only the penalty is left, a full step along it would fade the image to grey.
                change[idle] = 0
                pixels = torch.roll(moved + change, (-down, -along), dims=(2, 3)).clamp(0, 1)
                if self.options.blur and (step + 1) % self.options.blur_every == 0:
                    pixels = self._blurred(pixels)
            bar.update()
        with torch.no_grad():
            last = self.objective(pixels).double().cpu().numpy()
        return pixels, trace, first, last, idle.cpu().numpy()

    def _blurred(self, pixels: torch.Tensor) -> torch.Tensor:
        """Blur rows, then columns; edges repeat."""
        from torch.nn import functional

        reach, channels = len(self.kernel) // 2, pixels.shape[1]
        padded = functional.pad(pixels, (reach,) * 4, mode="replicate")
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            padded = functional.conv2d(padded, self.kernel.view(shape).repeat(channels, 1, 1, 1), groups=channels)
        return padded


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the images; see :func:`actkit.analyses.feature_visualization_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`visualize` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import feature_visualization_plot

    return feature_visualization_plot.plot(result, **settings)
