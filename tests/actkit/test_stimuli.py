"""Stimuli: ids, order, selection, fingerprints; and every treatment of pictures that the docs state."""

import io
import pickle
import struct
import threading
import warnings
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from actkit.errors import InputError, StimulusError
from actkit.images import StimulusWarning, read_image
from actkit.stimuli import Stimuli, as_stimuli, concatenate
from actkit.stimulus_ids import natural_order

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)


def encoded(image, file_format="PNG", **options):
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def png(pixels=PIXELS):
    return encoded(Image.fromarray(pixels))


def fill(folder, names, start=0):
    for i, name in enumerate(names, start):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((4, 4, 3), i, np.uint8)))
    return folder


# ------------------------------------------------------------------ order and ids


def test_folder_is_sorted_naturally_and_ids_are_whole_stems(tmp_path):
    fill(tmp_path, ["b10.png", "b9.png", "a.1.png", "a.2.png"])
    stimuli = Stimuli.from_folder(tmp_path)
    assert stimuli.ids.tolist() == ["a.1", "a.2", "b9", "b10"]
    assert "natural order" in stimuli.order
    assert stimuli[2].getpixel((0, 0)) == (1, 1, 1)


def test_colliding_stems_make_every_id_a_relative_path(tmp_path):
    fill(tmp_path, ["s10/1.png", "s2/1.png", "s2/other.png"])
    stimuli = Stimuli.from_folder(tmp_path, labels_from_folders="identity")
    assert stimuli.ids.tolist() == ["s2/1", "s2/other", "s10/1"]
    assert stimuli.labels["identity"].tolist() == ["s2", "s2", "s10"]
    assert "relative paths" in stimuli.order


def test_two_files_of_one_id_are_named(tmp_path):
    fill(tmp_path, ["x/a.png", "y/a.png", "y/b.png"])
    (tmp_path / "x" / "a.bmp").write_bytes(encoded(Image.fromarray(PIXELS), "BMP"))
    with pytest.raises(StimulusError, match=r"'x/a'.*a\.bmp.*a\.png.*unique"):
        Stimuli.from_folder(tmp_path)


def test_other_files_are_left_out_and_counted_hidden_ones_ignored(tmp_path):
    fill(tmp_path, ["a.png", ".hidden.png"])
    (tmp_path / "README.md").write_text("words")
    stimuli = Stimuli.from_folder(tmp_path)
    assert stimuli.ids.tolist() == ["a"]
    assert "1 files that are no pictures were left out" in stimuli.order


def test_a_pattern_takes_what_it_matches(tmp_path):
    fill(tmp_path, ["a.png", "sub/b.png", "sub/deep/c.png"])
    assert Stimuli.from_folder(tmp_path, "*.png").ids.tolist() == ["a"]
    assert Stimuli.from_folder(tmp_path, "sub/**/*.png").ids.tolist() == ["b", "c"]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "there is no folder"), ("", "no file that matches")])
def test_missing_and_empty_folders(tmp_path, name, message):
    with pytest.raises(StimulusError, match=message):
        Stimuli.from_folder(tmp_path / name)


@given(st.lists(st.from_regex(r"[a-z]{0,2}[0-9]{1,4}", fullmatch=True), unique=True, max_size=20))
@settings(max_examples=50, deadline=None)
def test_natural_order_is_a_permutation_that_sorts_numbers_by_value(names):
    order = natural_order(names)
    assert sorted(order) == list(range(len(names)))
    numbers = [int(names[i]) for i in order if names[i].isdigit()]
    assert numbers == sorted(numbers)
    assert [names[i] for i in order] == [sorted(names)[i] for i in natural_order(sorted(names))]


# ------------------------------------------------------------------ other sources


def test_zip_equals_folder_and_is_not_unpacked(tmp_path):
    folder = fill(tmp_path / "pictures", ["s1/1.png", "s1/2.png", "s2/1.png"])
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            out.write(path, path.relative_to(folder))
        out.writestr("__MACOSX/s1/._1.png", b"x")
        out.writestr("notes.txt", b"x")
    before = set(tmp_path.rglob("*"))
    a, b = Stimuli.from_folder(folder), Stimuli.from_zip(archive)
    assert a.ids.tolist() == b.ids.tolist() == ["s1/1", "s1/2", "s2/1"]
    assert a.fingerprint == b.fingerprint
    assert a.labels["category"].tolist() == b.labels["category"].tolist()
    assert Stimuli.from_zip(archive, "s1/*").ids.tolist() == ["1", "2"]
    assert set(tmp_path.rglob("*")) == before


def test_zip_reads_from_many_threads_and_survives_pickling(tmp_path):
    archive = tmp_path / "many.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for i in range(40):
            out.writestr(f"{i}.png", png(np.full((16, 16, 3), i, np.uint8)))
    stimuli = pickle.loads(pickle.dumps(Stimuli.from_zip(archive)))
    wrong = []

    def read(offset):
        for i in range(40):
            k = (i * 7 + offset) % 40
            if stimuli.image(k).getpixel((0, 0)) != (k, k, k):
                wrong.append(k)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_damaged_zip_member_is_named(tmp_path):
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a.png", png())
    data = bytearray(archive.read_bytes())
    data[60] ^= 255
    archive.write_bytes(bytes(data))
    with pytest.raises(StimulusError, match=r"bad\.zip/a\.png.*damaged"):
        Stimuli.from_zip(archive).image(0)
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(StimulusError, match="zip file"):
        Stimuli.from_zip(tmp_path / "no.zip")


def test_table_keeps_its_order_and_makes_labels(tmp_path):
    fill(tmp_path, ["b.png", "a.png"])
    pd.DataFrame({"file": ["b.png", "a.png"], "name": ["x", None], "size": [1.5, 2]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    stimuli = as_stimuli(tmp_path / "t.csv")
    assert stimuli.ids.tolist() == ["b", "a"]
    assert stimuli.labels["name"].tolist() == ["x", ""]
    assert stimuli.labels["size"].tolist() == [1.5, 2.0]
    assert Stimuli.from_table(tmp_path / "t.csv", id_column="size").ids.tolist() == ["1.5", "2.0"]


def test_table_from_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as out:
        out.writestr("d/b.png", png())
    table = pd.DataFrame({"path": ["d/b.png"]})
    assert Stimuli.from_table(table, root=tmp_path / "p.zip").image(0).size == (7, 9)
    with pytest.raises(StimulusError, match=r"do not exist: 'd/c\.png'"):
        Stimuli.from_table(pd.DataFrame({"path": ["d/c.png"]}), root=tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("frame", "arguments", "message"),
    [
        ({"picture_of": ["a.png"]}, {}, "no column is called path"),
        ({"path": ["a.png"]}, {"path_column": "pth"}, "no column 'pth'; nearest: 'path'"),
        ({"path": ["a.png"]}, {}, "do not exist: 'a.png'"),
        ({"path": [None]}, {}, "row 1 has no file name"),
    ],
)
def test_bad_tables(frame, arguments, message):
    with pytest.raises(StimulusError, match=message):
        Stimuli.from_table(pd.DataFrame(frame), **arguments)


def test_arrays_are_pictures_or_plain_arrays():
    assert not Stimuli.from_array(np.zeros((2, 8, 8), np.uint8)).is_array
    assert not Stimuli.from_array(np.zeros((2, 8, 8, 3), np.uint8)).is_array
    assert not Stimuli.from_array(np.zeros((2, 8, 8, 1), np.uint8)).is_array
    floats = Stimuli.from_array(np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
    assert floats.is_array
    np.testing.assert_array_equal(floats.raw(1), np.arange(12, 24).reshape(3, 2, 2))
    assert floats.ids.tolist() == ["0000", "0001"]
    with pytest.raises(StimulusError, match=r"arrays of shape \(3, 2, 2\), not pictures"):
        floats.image(0)
    with pytest.raises(ValueError, match="read-only"):
        floats.raw(0)[0] = 1


@pytest.mark.parametrize("bad", [np.zeros(4), np.array([["a"]]), np.zeros((2, 2), complex)])
def test_arrays_that_are_no_stimuli(bad):
    with pytest.raises(InputError, match="numbers of shape"):
        Stimuli.from_array(bad)


def test_as_stimuli_takes_what_people_have(tmp_path):
    fill(tmp_path, ["b.png", "a.png"])
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4), np.uint8))
    assert as_stimuli([tmp_path / "b.png", str(tmp_path / "a.png")]).ids.tolist() == ["b", "a"]
    assert len(as_stimuli(tmp_path / "x.npy")) == 3
    assert len(as_stimuli(tmp_path / "a.png")) == 1
    assert len(as_stimuli([Image.new("L", (3, 3)), Image.new("RGB", (4, 4))])) == 2
    stimuli = as_stimuli(np.zeros((2, 4, 4), np.uint8))
    assert as_stimuli(stimuli) is stimuli
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StimulusError, match="cannot be read as an array"):
        as_stimuli(tmp_path / "objects.npy")
    with pytest.raises(StimulusError, match="nothing at"):
        as_stimuli(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be made of int"):
        as_stimuli(3)


# ------------------------------------------------------------------ selection and content


def test_selection_by_position_mask_and_id():
    stimuli = Stimuli.from_array(
        np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8),
        ids=list("abcde"),
        labels={"odd": [0, 1, 0, 1, 0]},
    )
    assert stimuli[1:3].ids.tolist() == ["b", "c"]
    assert stimuli[stimuli.labels["odd"] == 1].ids.tolist() == ["b", "d"]
    assert stimuli[[4, 0]].labels["odd"].tolist() == [0, 0]
    chosen = stimuli.select(["e", "a"])
    assert chosen.ids.tolist() == ["e", "a"]
    assert chosen.image(0).getpixel((0, 0)) == (4, 4, 4)
    assert chosen[1:].order == f"selected by position from: {stimuli.order}"
    assert len(stimuli[[]]) == 0
    assert stimuli[-1].getpixel((0, 0)) == (4, 4, 4)
    assert [picture.getpixel((0, 0))[0] for picture in stimuli] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError, match="no position 5"):
        stimuli[5]
    with pytest.raises(StimulusError, match="no stimulus 'ee'; nearest: 'e'"):
        stimuli.select(["a", "ee"])
    with pytest.raises(StimulusError, match="two stimuli have the id 'a'"):
        stimuli.select(["a", "a"])
    with pytest.raises(InputError, match="4 entries for 5"):
        stimuli[np.ones(4, bool)]
    with pytest.raises(InputError, match="use select"):
        stimuli["a"]


@given(st.lists(st.integers(0, 9), unique=True, max_size=10))
@settings(max_examples=40, deadline=None)
def test_selecting_by_id_or_position_is_the_same(positions):
    pixels = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    stimuli = Stimuli.from_array(pixels, ids=[f"id{i}" for i in range(10)], labels={"n": np.arange(10)})
    by_id, by_position = stimuli.select([f"id{i}" for i in positions]), stimuli[positions]
    assert by_id.ids.tolist() == by_position.ids.tolist()
    assert by_id.fingerprint == by_position.fingerprint
    assert by_id.labels["n"].tolist() == positions
    assert [by_id.image(i).getpixel((0, 0))[0] for i in range(len(positions))] == positions


def test_ids_and_labels_are_checked_and_read_only():
    pixels = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(StimulusError, match="1 ids were given for 2"):
        Stimuli.from_array(pixels, ids=["a"])
    with pytest.raises(StimulusError, match="empty id"):
        Stimuli.from_array(pixels, ids=["a", ""])
    with pytest.raises(StimulusError, match=r"label 'x' has shape \(3,\) for 2"):
        Stimuli.from_array(pixels, labels={"x": [1, 2, 3]})
    stimuli = Stimuli.from_array(pixels, labels={"x": ["a", "b"]})
    with pytest.raises(ValueError, match="read-only"):
        stimuli.ids[0] = "z"
    with pytest.raises(ValueError, match="read-only"):
        stimuli.labels["x"][0] = "z"


def test_fingerprint_is_ids_in_order_and_content_only(tmp_path):
    one = fill(tmp_path / "one", ["a.png", "b.png"])
    two = fill(tmp_path / "two", ["a.png", "b.png"])
    base = Stimuli.from_folder(one)
    assert len(base.fingerprint) == 64
    assert Stimuli.from_folder(two, name="other").with_labels(x=[1, 2]).fingerprint == base.fingerprint
    assert base[[1, 0]].fingerprint != base.fingerprint
    assert base[[1, 0]][[1, 0]].fingerprint == base.fingerprint
    (two / "b.png").write_bytes(png())
    assert Stimuli.from_folder(two).fingerprint != base.fingerprint
    pixels = np.zeros((2, 4, 4), np.uint8)
    assert Stimuli.from_array(pixels, ["a", "b"]).fingerprint != Stimuli.from_array(pixels, ["a", "c"]).fingerprint
    # Ids must not run into one another.
    assert Stimuli.from_array(pixels, ["a", "bc"]).fingerprint != Stimuli.from_array(pixels, ["ab", "c"]).fingerprint


def test_fingerprint_tells_types_and_shapes_apart():
    zeros = [np.zeros((1, 2, 8), np.float32), np.zeros((1, 4, 4), np.float32), np.zeros((1, 2, 8), np.int32)]
    assert len({Stimuli.from_array(array).fingerprint for array in zeros}) == 3
    swapped = Stimuli.from_array(np.arange(4.0).reshape(1, 4).astype(">f8"))
    assert swapped.fingerprint == Stimuli.from_array(np.arange(4.0).reshape(1, 4)).fingerprint


def test_duplicates_are_grouped_by_content():
    pixels = np.array([0, 1, 0, 2, 1, 0], np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    stimuli = Stimuli.from_array(pixels, ids=list("abcdef"))
    assert stimuli.duplicates() == [("a", "c", "f"), ("b", "e")]
    assert stimuli.content_groups().tolist() == [0, 1, 0, 2, 1, 0]
    assert stimuli.select(["a", "b"]).duplicates() == []


def test_concatenate_keeps_labels_and_sources():
    a = Stimuli.from_array(np.zeros((2, 4, 4), np.uint8), ["a", "b"], {"kind": ["x", "y"], "n": [1, 2]}, name="one")
    b = Stimuli.from_array(np.ones((1, 6, 5, 3), np.uint8), ["c"], {"m": [3.0]}, name="two")
    both = concatenate([a[1:], b])
    assert both.ids.tolist() == ["b", "c"]
    assert both.labels["kind"].tolist() == ["y", ""]
    assert np.isnan(both.labels["n"][1])
    assert both.labels["source"].tolist() == ["one", "two"]
    assert both.image(1).size == (5, 6)
    assert both[1:].fingerprint == b.fingerprint
    with pytest.raises(StimulusError, match="two stimuli have the id 'b'"):
        concatenate([a, a[1:]])
    with pytest.raises(InputError, match="cannot be one set"):
        concatenate([a, Stimuli.from_array(np.zeros((1, 4)))])


def test_thumbnails_keep_proportions():
    wide = Stimuli.from_array(np.zeros((1, 10, 40), np.uint8))
    drawn = wide.thumbnails(20)
    assert drawn.shape == (1, 20, 20, 3)
    assert (drawn[0, :7] == 255).all()
    assert (drawn[0, 8:12] == 0).all()
    arrays = Stimuli.from_array(np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4))
    assert arrays.thumbnails(8).max() > 200
    with pytest.raises(StimulusError, match="no thumbnail"):
        Stimuli.from_array(np.zeros((1, 5))).thumbnails()


# ------------------------------------------------------------------ treatments


def test_rgb_comes_through_untouched():
    image, treatments = read_image(png(), "a.png")
    assert treatments == ()
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"'bad\.png' is empty"),
        (b"not a picture at all", r"'bad\.png' is not a picture"),
        (png()[:-60], r"'bad\.png' cannot be decoded.*cut short"),
        (encoded(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), "JPEG")[:3000], r"'bad\.png' cannot be decoded"),
        (encoded(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), "TIFF")[:3000], r"'bad\.png'"),
        (encoded(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), "GIF")[:900], r"'bad\.png' cannot be decoded"),
    ],
    ids=["empty", "text", "png", "jpeg", "tiff", "gif"],
)
def test_what_cannot_be_read_names_its_file(data, message):
    with pytest.raises(StimulusError, match=message):
        read_image(data, "bad.png")


def test_a_missing_file_is_named(tmp_path):
    fill(tmp_path, ["a.png"])
    stimuli = Stimuli.from_folder(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(StimulusError, match=r"a\.png.*cannot be read"):
        stimuli.image(0)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(mode):
    source = Image.fromarray(PIXELS).convert(mode)
    image, treatments = read_image(encoded(source), "a.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(source.convert("RGB")))
    assert len(treatments) == 1


def test_cmyk_becomes_rgb():
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    image, treatments = read_image(encoded(flat.convert("CMYK"), "JPEG", quality=100), "a.jpg")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 4
    assert treatments == ("CMYK was converted to RGB",)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_linearly(file_format):
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65407, 65535]], np.uint16)
    image, treatments = read_image(encoded(Image.fromarray(values), file_format), "deep")
    expected = np.rint(values * (255 / 65535)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(image), np.repeat(expected[..., None], 3, axis=2))
    assert treatments[0] == "16-bit grey was scaled to 8 bits"


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_an_agreed_white_are_refused(dtype):
    with pytest.raises(StimulusError, match=r"'t\.tif' has 32-bit .* convert it"):
        read_image(encoded(Image.fromarray(np.zeros((3, 3), dtype)), "TIFF"), "t.tif")


def test_alpha_is_composited_over_mid_grey():
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 64, np.uint8)])
    image, treatments = read_image(encoded(Image.fromarray(rgba)), "a.png")
    alpha = 64 / 255
    np.testing.assert_array_equal(np.asarray(image), np.rint(PIXELS * alpha + 128 * (1 - alpha)).astype(np.uint8))
    assert treatments == ("transparency was composited over mid-grey (128)",)
    rgba[..., 3] = 255
    opaque, treatments = read_image(encoded(Image.fromarray(rgba)), "a.png")
    np.testing.assert_array_equal(np.asarray(opaque), PIXELS)
    assert treatments == ()


def test_palette_with_transparency_and_grey_with_alpha():
    source = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode=None).convert("P")
    source.putpalette([10, 20, 30, 200, 210, 220])
    image, _ = read_image(encoded(source, transparency=0), "a.png")
    assert image.getpixel((0, 0)) == (128, 128, 128)
    assert image.getpixel((1, 0)) == (200, 210, 220)
    grey, _ = read_image(encoded(Image.new("LA", (2, 2), (255, 0))), "a.png")
    assert grey.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpositions that a camera would have made
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, treatments = read_image(encoded(stored, exif=exif), "photo.png")
    np.testing.assert_array_equal(np.asarray(image)[..., 0], np.asarray(upright))
    assert ("the EXIF orientation was applied" in treatments) == (orientation > 1)


def huge_png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_huge_pictures_are_refused_by_their_header(tmp_path):
    (tmp_path / "huge.png").write_bytes(huge_png(60_000, 60_000))
    with pytest.raises(StimulusError, match=r"huge\.png' is too large.*3600000000 pixels.*Shrink.*MAX_IMAGE_PIXELS"):
        Stimuli.from_folder(tmp_path).image(0)


def test_animations_give_their_first_frame_and_warn_once(tmp_path):
    frames = [Image.new("RGB", (5, 5), (c, 0, 0)) for c in (255, 128, 0)]
    for name in ("a.gif", "b.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    stimuli = Stimuli.from_folder(tmp_path)
    with pytest.warns(StimulusWarning, match=r"a\.gif'.*first of several frames") as caught:
        images = [stimuli.image(i) for i in range(2)]
    assert len(caught) == 1
    assert images[0].getpixel((2, 2)) == (255, 0, 0)
    assert stimuli.treatments["only the first of several frames was taken"] == 2


def test_transparency_warns_once_and_is_counted(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.new("RGBA", (3, 3), (9, 9, 9, 100))))
    stimuli = Stimuli.from_folder(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(3):
            stimuli.image(i)
        stimuli[1:].image(0)
    assert [str(w.message).split(":")[1].strip() for w in caught] == [
        "transparency was composited over mid-grey (128). Said once; `stimuli.treatments` counts them all"
    ]
    assert stimuli.treatments == {"transparency was composited over mid-grey (128)": 3}
    assert stimuli[:1].treatments == {"transparency was composited over mid-grey (128)": 1}
