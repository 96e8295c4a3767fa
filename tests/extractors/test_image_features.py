"""Pixels and Gabor energy against formulas written out again."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import fftconvolve

from actkit import open_network
from actkit.errors import InputError
from actkit.extractors.image_features import GaborEnergy


def grating(size, cycles, angle, phase=0.0):
    y, x = np.mgrid[:size, :size] / size
    u = x * np.cos(angle) + y * np.sin(angle)
    return torch.from_numpy(0.5 * np.cos(2 * np.pi * cycles * u + phase)).float()[None, None]


def test_pixels_are_the_pixels(pictures):
    network = open_network("pixels", size=20)
    out = network.module(network.prepare(pictures[0])[None])
    expected = np.array(pictures[0].convert("L").resize((20, 20), Image.Resampling.BICUBIC)).ravel() / 255
    assert out.shape == (1, 400)
    assert np.allclose(out[0], expected, atol=1e-6)
    assert [layer.name for layer in network.layers()] == ["output"]


def test_colour_pixels(pictures):
    network = open_network("pixels", size=16, colour=True, name="rgb")
    assert network.name == "rgb"
    assert network.module(network.prepare(pictures[0])[None]).shape == (1, 3 * 256)


def test_gabor_equals_the_formula_in_float64():
    """The same energy by scipy's convolution, filters written out from the docstring."""
    size, grid = 48, 6
    image = np.random.default_rng(5).normal(size=(size, size))
    ours = GaborEnergy(size, [4.0, 9.0], 3, bandwidth=1.5, grid=grid)(torch.from_numpy(image).float()[None, None])[0]
    ratio = np.sqrt(np.log(2) / 2) / np.pi * (2**1.5 + 1) / (2**1.5 - 1)
    k = 0
    for cycles in (4.0, 9.0):
        for angle in (0, np.pi / 3, 2 * np.pi / 3):
            f = cycles / size
            s = ratio / f
            half = int(np.ceil(3 * s))
            y, x = np.mgrid[-half : half + 1, -half : half + 1]
            envelope = np.exp(-(x**2 + y**2) / (2 * s**2))
            u = x * np.cos(angle) + y * np.sin(angle)
            even, odd = envelope * np.cos(2 * np.pi * f * u), envelope * np.sin(2 * np.pi * f * u)
            even -= envelope * even.sum() / envelope.sum()
            even, odd = f * even / np.sqrt((even**2).sum()), f * odd / np.sqrt((odd**2).sum())
            a = fftconvolve(image, even, mode="full")[half : half + size, half : half + size]
            b = fftconvolve(image, odd, mode="full")[half : half + size, half : half + size]
            energy = np.sqrt(a**2 + b**2).reshape(grid, size // grid, grid, size // grid).mean((1, 3))
            assert np.allclose(ours[k], energy, rtol=1e-4, atol=1e-6)
            k += 1
    assert k == len(ours)


def test_energy_ignores_phase_and_knows_frequency_and_orientation():
    bank = GaborEnergy(64, [4.0, 8.0, 16.0], 4, grid=1)
    for f, cycles in enumerate((4.0, 8.0, 16.0)):
        for o in range(4):
            responses = [
                bank(grating(64, cycles, np.pi * o / 4, phase))[0, :, 0, 0]
                / torch.tensor([4.0, 8, 16]).repeat_interleave(4)
                for phase in (0.0, 1.0, 2.0)
            ]
            assert all(int(r.argmax()) == 4 * f + o for r in responses)
            energy = torch.stack(responses)[:, 4 * f + o]
            assert (energy.max() - energy.min()) / energy.mean() < 0.05


def test_uniform_images_have_no_energy_inside():
    bank = GaborEnergy(64, [8.0], 2, grid=8)
    inside = bank(torch.full((1, 1, 64, 64), 0.5))[0, :, 3:5, 3:5]
    edge = bank(torch.full((1, 1, 64, 64), 0.5))[0, :, 0, 0]
    assert inside.max() < 1e-4 * edge.max()


def test_gabor_network(pictures):
    network = open_network("gabor", size=64, frequencies=[4.0, 8.0], orientations=2, grid=4)
    batch = torch.stack([network.prepare(picture) for picture in pictures])
    together = network.module(batch)
    assert together.shape == (5, 4, 4, 4)
    for i in range(5):
        assert torch.allclose(network.module(batch[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-7)
    assert network.provenance["settings"]["orientations"] == 2
    (layer,) = network.layers()
    assert (layer.name, layer.shape) == ("output", (4, 4, 4))
    other = open_network("gabor", size=64, frequencies=[4.0, 8.0], orientations=2, grid=4, bandwidth=2.0)
    assert other.weights_sha256 != network.weights_sha256


def test_impossible_banks_are_refused():
    with pytest.raises(InputError, match="most at 16 cycles"):
        open_network("gabor", size=32, frequencies=[17.0])
    with pytest.raises(InputError, match="above 0"):
        open_network("gabor", size=32, frequencies=[], grid=4)
    with pytest.raises(InputError, match="grid of 33"):
        open_network("gabor", size=32, frequencies=[4.0], grid=33)
    with pytest.raises(InputError, match=r"grey images \(1, 224, 224\)"):
        open_network("gabor").module(torch.zeros(1, 3, 224, 224))


def test_highest_frequency_stays_finite():
    """At two pixels a cycle the odd filter is zero everywhere along the axes."""
    out = GaborEnergy(32, [16.0], 4, grid=4)(torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(out).all()
    assert (out > 0).all()
