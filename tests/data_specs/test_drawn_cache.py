"""Large drawn sets come back from the cache as they were drawn, and nothing else comes back in their place."""

import json

import numpy as np
import pytest

from actkit.data_specs import catalogue, drawn_cache, rendered_faces
from actkit.errors import InputError
from actkit.results import fingerprint

OPTIONS = {"n_identities": 2, "n_exemplars": 3, "size": 16}


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Keep sets however small, in a folder of the test's own, and count the faces that are drawn."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if tmp_path not in drawn_cache.folder().parents:
        monkeypatch.setattr(drawn_cache, "folder", lambda: tmp_path / "drawn")
    monkeypatch.setattr(drawn_cache, "SMALLEST", 1)
    count = []
    draw = rendered_faces.draw_face
    monkeypatch.setattr(rendered_faces, "draw_face", lambda *given: count.append(1) or draw(*given))
    return count


def content(stimuli):
    """Everything that a study hashes or shows of stimuli."""
    labels = {name: np.asarray(values) for name, values in stimuli.labels.items()}
    return stimuli.fingerprint, fingerprint(labels), list(labels), stimuli.ids.tolist(), stimuli.name, stimuli.order


def test_a_kept_set_is_the_drawn_one(drawings):
    drawn = catalogue.load("rendered_faces", **OPTIONS).stimuli
    assert len(drawings) == 6
    kept = catalogue.load("rendered_faces", **OPTIONS)
    assert content(kept.stimuli) == content(drawn)
    assert len(drawings) == 6
    np.testing.assert_array_equal(kept.stimuli.raw(4), drawn.raw(4))
    assert {str(v.dtype) for v in kept.stimuli.labels.values()} == {str(v.dtype) for v in drawn.labels.values()}
    # Options that are written out are those by default.
    catalogue.load("rendered_faces", **OPTIONS, nuisance=1.0).stimuli  # noqa: B018
    assert len(drawings) == 6
    # What is known of the pictures is drawn when it is asked for.
    assert kept["truth"]["stimulus"].values.tolist() == drawn.ids.tolist()


def test_other_options_code_or_version_draw_anew(drawings, monkeypatch):
    first = catalogue.load("rendered_faces", **OPTIONS).stimuli
    other = catalogue.load("rendered_faces", **OPTIONS, seed=1).stimuli
    assert len(drawings) == 12
    assert other.fingerprint != first.fingerprint
    assert catalogue.load("rendered_faces_film", **OPTIONS).stimuli.fingerprint != first.fingerprint
    for name, value in (("_code", lambda: "edited"), ("__version__", "99")):
        before = len(drawings)
        monkeypatch.setattr(drawn_cache, name, value)
        assert catalogue.load("rendered_faces", **OPTIONS).stimuli.fingerprint == first.fingerprint
        assert len(drawings) == before + 6


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "note", "foreign", "no note", "no npz"])
def test_a_damaged_or_foreign_file_is_drawn_anew_and_mended(drawings, harm):
    first = catalogue.load("rendered_faces", **OPTIONS).stimuli
    (path,) = drawn_cache.folder().glob("*.npz")
    note = path.with_suffix(".json")
    whole = path.read_bytes()
    if harm == "cut":
        path.write_bytes(whole[:-100])
    elif harm == "bit":
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "note":
        note.write_text("[1]")
    elif harm == "foreign":  # whole, but of another key
        note.write_text(json.dumps({**json.loads(note.read_text()), "key": "0" * 64}))
    else:
        (note if harm == "no note" else path).unlink()
    again = catalogue.load("rendered_faces", **OPTIONS).stimuli
    assert content(again) == content(first)
    assert len(drawings) == 12
    assert path.read_bytes() == whole
    assert content(catalogue.load("rendered_faces", **OPTIONS).stimuli) == content(first)
    assert len(drawings) == 12


def test_pickles_are_never_read(drawings):
    catalogue.load("rendered_faces", **OPTIONS).stimuli  # noqa: B018
    (path,) = drawn_cache.folder().glob("*.npz")
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    np.savez(path, **{**arrays, "ids": np.array([{"an": "object"}] * 6, dtype=object)})
    note = json.loads(path.with_suffix(".json").read_text())
    sha256 = drawn_cache.hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({**note, "sha256": sha256}))
    assert catalogue.load("rendered_faces", **OPTIONS).stimuli.ids[0] == "face_000_000"
    assert len(drawings) == 12


def test_small_sets_and_folders_that_cannot_be_written_are_no_trouble(drawings, tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_cache, "SMALLEST", 6 * 16 * 16 + 1)
    catalogue.load("rendered_faces", **OPTIONS).stimuli  # noqa: B018
    assert not drawn_cache.folder().exists()
    monkeypatch.setattr(drawn_cache, "SMALLEST", 1)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(drawn_cache, "folder", lambda: tmp_path / "file" / "drawn")
    assert len(catalogue.load("rendered_faces", **OPTIONS).stimuli) == 6
    with pytest.raises(InputError, match="n_identities"):
        catalogue.load("rendered_faces", n_identities=0)
