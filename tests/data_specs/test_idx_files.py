"""IDX files that the user brings: what is read, what is refused, and the data sets made of them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from actkit.data_specs import catalogue
from actkit.data_specs.idx_files import read_idx
from actkit.data_specs.schema import parse_spec
from actkit.errors import DataError
from actkit.extractors.modular_sweep import SweepOptions, glyphs_of

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file by hand."""
    head = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_set(folder: Path, prefix: str, classes: np.ndarray, packed: bool, parts=("train", "test"), extra="") -> dict:
    """Files of images and labels of two parts; returns the images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, images = np.random.default_rng(0), {}
    for part in parts:
        images[part] = rng.integers(256, size=(len(classes), 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", classes.astype(np.uint8))):
            data = idx_bytes(array)
            name = f"{prefix}{part}-{kind}-ubyte{extra}"
            (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return images


@pytest.mark.parametrize("kind", list(CODES))
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_and_shape_is_read(kind, packed, tmp_path) -> None:
    for shape in ((5,), (2, 3, 4), (0, 2)):
        array = (np.arange(np.prod(shape)).reshape(shape) * 3).astype(kind)
        data = idx_bytes(array)
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(data) if packed else data)
        found = read_idx(path)
        assert found.dtype == np.dtype(kind)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_refused(packed, tmp_path) -> None:
    whole = idx_bytes(np.zeros((3, 2, 2), dtype=np.uint8))
    path = tmp_path / "file"
    cases = [
        (whole[:-5], r"3 × 2 × 2 values, 12 bytes, and there are only 7.*get it anew"),
        (whole + b"1", "there are more"),
        (whole[:9], "ends within its header"),
        (b"", r"is no IDX file: it starts with the bytes \(none\)"),
        (b"\x89PNG" + whole, "is no IDX file: it starts with the bytes 89 50 4e 47"),
        (b"\0\0\x07\x01" + whole[4:], "is no IDX file"),
    ]
    for data, message in cases:
        path.write_bytes(gzip.compress(data) if packed else data)
        with pytest.raises(DataError, match=message):
            read_idx(path)
    packed_file = gzip.compress(whole)
    for broken in (packed_file[:-12], packed_file[:12] + b"\xff\xff" + packed_file[14:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "nothing")


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_the_files_that_the_user_brings(packed, tmp_path) -> None:
    folder = tmp_path / "mnist"
    classes = np.arange(20) % 10
    train = write_set(folder, "", classes, packed, parts=("train",))["train"]
    test = write_set(folder, "", classes[:10], packed, parts=("t10k",))["t10k"]
    stimuli = catalogue.load("mnist", root=tmp_path).stimuli
    assert catalogue.state("mnist", root=tmp_path) == "here"
    assert catalogue.check("mnist", root=tmp_path) == []
    assert stimuli.labels["digit"].tolist() == [*classes, *classes[:10]]
    assert stimuli.labels["split"].tolist() == ["train"] * 20 + ["test"] * 10
    np.testing.assert_array_equal(np.asarray(stimuli.image(3))[..., 0], train[3])
    np.testing.assert_array_equal(np.asarray(stimuli.image(21))[..., 0], test[1])


def test_letters_are_turned_upright_and_some_left_out(tmp_path) -> None:
    cases = [
        ("emnist_letters", "emnist-letters-", np.arange(1, 27), 23, ["a", "b", "z"], (0, 1, -1)),
        ("emnist_balanced", "emnist-balanced-", np.arange(47), 34, ["A", "Z", "a", "t"], (0, 22, 23, -1)),
    ]
    for name, prefix, numbers, left, names, at in cases:
        images = write_set(tmp_path / name, prefix, numbers, packed=True)
        stimuli = catalogue.load(name, root=tmp_path).stimuli
        letters = stimuli.labels["letter"]
        assert len(stimuli) == 2 * left
        assert [letters[:left][k] for k in at] == names
        assert not {"i", "j", "l"} & set(letters) if name == "emnist_letters" else not {"I", "J", "L"} & set(letters)
        first = 0 if name == "emnist_letters" else 10
        np.testing.assert_array_equal(np.asarray(stimuli.image(0))[..., 0], images["train"][first].T)


def test_a_sweep_takes_its_images_from_the_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path))
    write_set(tmp_path / "emnist_letters", "emnist-letters-", np.tile(np.arange(1, 27), 3), packed=False)
    train, test = glyphs_of(SweepOptions(data="emnist_letters", label="letter", shrink=4))
    assert train.images.shape == test.images.shape == (69, 49)
    assert len(train.classes) == 23


def test_what_is_missing_or_does_not_fit_is_said(tmp_path) -> None:
    with pytest.raises(DataError, match=r"the files of 'mnist' are not at .*mnist.*ACTKIT_DATA"):
        catalogue.load("mnist", root=tmp_path)
    assert catalogue.state("mnist", root=tmp_path) == "to get by hand"
    folder = tmp_path / "mnist"
    write_set(folder, "", np.arange(10), False, parts=("train",))
    assert catalogue.state("mnist", root=tmp_path) == "incomplete"
    assert len(catalogue.check("mnist", root=tmp_path)) == 2
    with pytest.raises(DataError, match=r"there is no .*t10k-images-idx3-ubyte, and none with .gz.*Put train-images"):
        catalogue.load("mnist", root=tmp_path).stimuli  # noqa: B018 - read when asked for
    write_set(folder, "", np.arange(10), False, parts=("t10k",))
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.arange(9, dtype=np.uint8)))
    with pytest.raises(DataError, match=r"there are 10 images and labels of shape \(9,\) for 'train'"):
        catalogue.load("mnist", root=tmp_path).stimuli  # noqa: B018
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match="are the files of images and of labels swapped"):
        catalogue.load("mnist", root=tmp_path).stimuli  # noqa: B018
    write_set(tmp_path / "emnist_letters", "emnist-letters-", np.array([0, 1, 2]), True)
    with pytest.raises(DataError, match=r"label 0 is the number of no class; they go from 1 to 26"):
        catalogue.load("emnist_letters", root=tmp_path).stimuli  # noqa: B018


def test_a_spec_of_idx_files_is_checked() -> None:
    text = """
name: own
title: mine
description: mine
licence: mine
citation: me
stimuli: {{source: idx, order: as in the file, idx: {{images: {{train: a}}, labels: {{{part}: b}}, {more}}}}}
"""
    assert parse_spec(text.format(part="train", more="transposed: true")).stimuli.idx.transposed
    with pytest.raises(DataError, match="images are of the parts"):
        parse_spec(text.format(part="test", more="transposed: true"))
    with pytest.raises(DataError, match="leave_out names 'c', which is not among the classes"):
        parse_spec(text.format(part="train", more="classes: [a, b], leave_out: [c]"))
    with pytest.raises(DataError, match="need the key 'idx'"):
        parse_spec("name: own\ntitle: t\ndescription: d\nlicence: l\ncitation: c\nstimuli: {source: idx, order: o}")
