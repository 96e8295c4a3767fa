"""Verification: every kind of damage to every file is found and located."""

import json

import numpy as np
import pytest

from actkit.errors import StoreError
from actkit.store import Fault, open_store, store_from_arrays, verify_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("verify") / "s.zarr"
    arrays = {"conv": rng.standard_normal((7, 3, 4, 4)), "fc": rng.standard_normal((7, 20))}
    labels = {"category": np.array(list("aabbccc")), "pose": np.arange(7)}
    return store_from_arrays(folder, arrays, labels=labels, block=3, dtype="float16", chunk_bytes=100)


def expected_rows(store, relative):
    parts = relative.split("/")
    if "activation" in parts and parts[-1] != "zarr.json":
        rows = store.chunks(parts[0])[0]
        first = int(parts[-1].split(".")[1]) * rows
        return (first, min(first + rows, 7))
    return (0, 7)


def test_a_sound_store(store):
    seen = []
    assert verify_store(store.path, progress=lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert verify_store(store) == []


def test_a_flipped_byte_in_any_file_is_found(store):
    """One byte of every file in turn: chunks, centres, coordinates, labels and metadata."""
    rng = np.random.default_rng(1)
    files = sorted(file for file in store.path.rglob("*") if file.is_file())
    assert len(files) > 30
    for file in files:
        content = file.read_bytes()
        for place in {0, len(content) - 1, int(rng.integers(len(content)))}:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            faults = verify_store(store.path)
            relative = file.relative_to(store.path).as_posix()
            assert relative in [fault.file for fault in faults], (relative, place)
            if relative != "zarr.json":
                layer = relative.split("/")[0] if relative.split("/")[0] in store.layers else ""
                own = next(fault for fault in faults if fault.file == relative)
                assert own.layer == layer
                assert own.rows == expected_rows(store, relative)
        file.write_bytes(content)
    assert verify_store(store.path) == []


def test_missing_and_cut_files_are_found(store):
    for file in sorted(file for file in store.path.rglob("*") if file.is_file() and file != store.path / "zarr.json"):
        content = file.read_bytes()
        relative = file.relative_to(store.path).as_posix()
        file.unlink()
        assert any(fault.file == relative and "missing" in fault.what for fault in verify_store(store.path)), relative
        for cut in (content[:-1], content + b"x", b""):
            file.write_bytes(cut)
            assert relative in [fault.file for fault in verify_store(store.path)], relative
        file.write_bytes(content)
    assert verify_store(store.path) == []


def test_edited_metadata_is_found(store):
    root = store.path / "zarr.json"
    content = root.read_bytes()
    document = json.loads(content)
    document["attributes"]["identity"] = "0" * 64
    root.write_text(json.dumps(document, indent=1))
    assert [fault.file for fault in verify_store(store.path)] == ["zarr.json"]
    root.write_bytes(content)
    assert verify_store(store.path) == []


def test_faults_read_well():
    assert str(Fault("fc", (3, 6), "fc/activation/c.1.0", "is missing")) == (
        "layer 'fc', stimuli 3 to 6: fc/activation/c.1.0 is missing"
    )
    assert str(Fault("", (0, 7), "zarr.json", "was changed")).startswith("the whole store: zarr.json")


def test_what_is_not_a_store(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        verify_store(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="not an activation store"):
        verify_store(tmp_path)


def test_damage_does_not_keep_the_rest_from_opening(store):
    file = store.path / "fc" / "activation" / "c.0.0"
    content = bytearray(file.read_bytes())
    content[0] ^= 255
    original = file.read_bytes()
    file.write_bytes(content)
    assert open_store(store.path).rows("conv").shape == (7, 48)
    file.write_bytes(original)
