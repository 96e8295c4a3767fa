"""Preprocessing against Pillow, torch and arithmetic by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from actkit.errors import InputError
from actkit.preprocessing import ForeignPreprocessing, Preprocessing, centre_crop, from_transforms

LITE = {
    "resize": (224, 224),
    "resize_mode": "squash",
    "interpolation": "bicubic",
    "backend": "tensor",
    "clamp": (0.0, 255.0),
    "scale": 128.0,
    "mean": (127 / 128,),
}


def noise(width, height, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).convert(mode)


def test_pixels_pass_unchanged_apart_from_scale():
    image = noise(7, 5)
    out = Preprocessing()(image)
    assert out.dtype == torch.float32
    assert out.shape == (3, 5, 7)
    assert torch.equal(out, torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)


def test_lite_formula_is_exact():
    """Pixel / 128 - 127 / 128 has the same bits as (pixel - 127) / 128."""
    image = noise(224, 224)
    expected = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 127) / 128
    assert torch.equal(Preprocessing(**LITE)(image), expected)


def test_tensor_backend_equals_torch_and_clamps():
    image = noise(300, 180)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    raw = torch.nn.functional.interpolate(pixels[None], (224, 224), mode="bicubic", antialias=True)[0]
    assert raw.min() < 0
    assert raw.max() > 255  # the overshoot that the clamp is for
    assert torch.equal(Preprocessing(**LITE)(image), (raw.clamp(0, 255) - 127) / 128)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_pillow_backend_equals_pillow(name):
    image = noise(61, 47)
    out = Preprocessing(resize=(20, 30), resize_mode="squash", interpolation=name)(image)
    expected = np.array(image.resize((30, 20), Image.Resampling[name.upper()]))
    assert torch.equal(out * 255, torch.from_numpy(expected).permute(2, 0, 1).float() / 255 * 255)


def test_backends_agree_to_the_rounding_of_pixels():
    # Mid-range pixels: Pillow also clips between its two passes, which overshoot near black and white would show.
    image = noise(300, 180).point(lambda value: 64 + value // 2)
    settings = {"resize": 100, "interpolation": "bicubic", "clamp": (0.0, 255.0), "scale": 1.0}
    pillow = Preprocessing(**settings)(image)
    tensor = Preprocessing(**settings, backend="tensor")(image)
    # Pillow rounds after each of its two passes: half a grey level each, the first weighted by the second filter.
    assert (pillow - tensor).abs().max() <= 1.25
    assert not torch.equal(pillow, tensor)


def test_without_antialias_the_result_differs():
    image = noise(300, 180)
    settings = {"resize": 50, "backend": "tensor"}
    assert (Preprocessing(**settings)(image) - Preprocessing(**settings, antialias=False)(image)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (256, 341)), ((375, 500), (341, 256)), ((64, 64), (256, 256))]
)
def test_short_side_keeps_the_aspect_ratio(size, expected):
    assert Preprocessing(resize=256)(noise(*size)).shape[1:] == expected


def test_crop_takes_the_middle():
    pixels = torch.arange(35.0).reshape(1, 5, 7)
    assert torch.equal(centre_crop(pixels, 3, 3)[0], pixels[0, 1:4, 2:5])
    padded = centre_crop(pixels, 7, 3)[0]
    assert torch.equal(padded[1:6], pixels[0, :, 2:5])
    assert (padded[[0, 6]] == 0).all()


def test_channel_orders():
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    rgb = Preprocessing(scale=1.0, mean=(1.0, 2.0, 3.0))(image)
    bgr = Preprocessing(scale=1.0, mean=(1.0, 2.0, 3.0), channel_order="BGR")(image)
    grey = Preprocessing(scale=1.0, channel_order="grey")(image)
    assert rgb[:, 0, 0].tolist() == [9, 18, 27]
    assert bgr[:, 0, 0].tolist() == [29, 18, 7]
    assert grey.shape == (1, 4, 4)
    assert grey[0, 0, 0] == image.convert("L").getpixel((0, 0))


def test_other_modes_become_rgb():
    grey = noise(9, 9, "L")
    assert torch.equal(Preprocessing()(grey), Preprocessing()(grey.convert("RGB")))


def test_arrays_are_pixels_too():
    image = noise(40, 30)
    row = np.array(image).transpose(2, 0, 1).astype(np.float32)
    preprocess = Preprocessing(**LITE)
    assert torch.equal(preprocess(row), preprocess(image))
    kept = row.copy()
    preprocess(row).zero_()
    assert (row == kept).all()


def test_arrays_that_are_no_images_are_refused():
    with pytest.raises(InputError, match=r"shape \(128,\).*preprocess=None"):
        Preprocessing()(np.zeros(128))
    with pytest.raises(InputError, match="is not an image"):
        Preprocessing()(np.zeros((5, 8, 8)))


def test_output_shape_is_known_before_an_image():
    assert Preprocessing(resize=256, crop=224).output_shape == (3, 224, 224)
    assert Preprocessing(resize=(20, 30), resize_mode="squash", channel_order="grey").output_shape == (1, 20, 30)
    assert Preprocessing(resize=256).output_shape is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resize": (224, 224)}, "squash"),
        ({"antialias": False}, "Pillow cannot"),
        ({"backend": "tensor", "interpolation": "lanczos"}, "torch cannot"),
        ({"mean": (0.5, 0.5)}, "one value or 3"),
        ({"std": (0.0,)}, "divides by zero"),
        ({"clamp": (1.0, 0.0)}, "empty"),
        ({"crop": 0}, "below one pixel"),
        ({"channels": "RGB"}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Preprocessing(**settings)


def test_it_is_a_value():
    one, same, other = Preprocessing(**LITE), Preprocessing(**LITE), Preprocessing(**{**LITE, "scale": 127.0})
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one) == repr(same) != repr(other)
    with pytest.raises(ValidationError):
        one.scale = 1.0
    described = json.loads(json.dumps(one.describe()))
    kind = described.pop("kind")
    assert kind == "actkit.Preprocessing"
    assert Preprocessing(**described) == one


class Steps:
    """A composition as torchvision prints one, without torchvision."""

    def __init__(self, *transforms):
        self.transforms = transforms


def test_unknown_transforms_are_kept_as_they_are():
    class Invert:
        def __call__(self, image):
            return 255 - np.array(image).transpose(2, 0, 1)

        def __repr__(self):
            return "Invert()"

    step = Invert()
    kept = from_transforms(step, "mine.Invert")
    assert isinstance(kept, ForeignPreprocessing)
    assert kept.describe() == {"kind": "mine.Invert", "transform": "Invert()"}
    assert repr(kept) == "mine.Invert(transform='Invert()')"
    out = kept(Image.new("RGB", (2, 2), (255, 0, 5)))
    assert out.dtype == torch.float32
    assert out[:, 0, 0].tolist() == [0, 255, 250]
    with pytest.raises(InputError, match="not array stimuli"):
        kept(np.zeros((3, 2, 2)))
    # A composition that never becomes a tensor is not written down as one that does.
    assert isinstance(from_transforms(Steps(), "mine.Nothing"), ForeignPreprocessing)


def test_foreign_description_is_a_copy():
    settings = {"size": {"height": 3}}
    foreign = ForeignPreprocessing(np.array, "mine", settings)
    settings["size"]["height"] = 4
    assert foreign.describe()["size"] == {"height": 3}
