import pytest

from actkit import errors


def test_nearest_offers_the_closest_names_first():
    assert errors.nearest("layer5", ["fc", "layer1", "layer4"]).startswith("nearest: 'layer4'")


def test_nearest_lists_what_exists_when_nothing_is_close():
    names = [f"block{i}" for i in range(20)]
    text = errors.nearest("zzz", names)
    assert text.startswith("there are: 'block0'")
    assert text.endswith("… (20 in all)")


def test_require_names_the_extra_to_install():
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'actkit\[timm\]'"):
        errors.require("no_such_module_here", extra="timm", purpose="the timm extractor")
    errors.require("json", extra="timm", purpose="nothing")


def test_a_full_disk_is_an_oserror_too():
    assert issubclass(errors.DiskFullError, OSError)
    assert issubclass(errors.LayerError, ValueError)
