"""Features of other tools: every format gives the same store, and rows are never mixed up."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from actkit.errors import InputError, StoreError
from actkit.extractors.precomputed import import_features, read_id_file
from actkit.stimuli import Stimuli
from actkit.store import open_store

N = 11
FLAT = np.random.default_rng(0).normal(size=(N, 13)).astype(np.float32)
MAPS = np.random.default_rng(1).normal(size=(N, 5, 4, 3)).astype(np.float32)
IDS = [f"image_{i:02d}" for i in range(N)]


def write_v73(path, **arrays):
    """As MATLAB does: HDF5 with axes in reverse, a block of 512 bytes before."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array.T).attrs["MATLAB_class"] = b"double"
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


def test_every_format_gives_the_same_values(tmp_path):
    np.save(tmp_path / "a.npy", FLAT)
    np.savez(tmp_path / "a.npz", fc=FLAT, conv=MAPS)
    np.savez_compressed(tmp_path / "c.npz", fc=FLAT, conv=MAPS)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["fc"] = FLAT
        file.create_dataset("conv", data=MAPS, chunks=(2, 5, 4, 3), compression="gzip")
    savemat(tmp_path / "v5.mat", {"fc": FLAT, "conv": MAPS})
    write_v73(tmp_path / "v73.mat", fc=FLAT, conv=MAPS)
    for name in ("a.npz", "c.npz", "a.h5", "v5.mat", "v73.mat"):
        store = import_features(tmp_path / name, tmp_path / f"{name}.zarr", ids=IDS, block=4)
        assert sorted(store.layers) == ["conv", "fc"], name
        assert store["conv"].dims == ("stimulus", "channel", "y", "x")
        assert np.array_equal(store.rows("fc"), FLAT), name
        assert np.array_equal(store["conv"].values, MAPS), name
        assert store.ids.tolist() == IDS
        assert store.attrs["source"] == name
    store = import_features(tmp_path / "a.npy", tmp_path / "npy.zarr")
    assert store.layers == ("a",)
    assert np.array_equal(store.rows("a"), FLAT)
    assert store.ids.tolist() == [str(i) for i in range(N)]
    assert "row numbers" in store.attrs["ids_from"]


def test_arrays_in_memory(tmp_path):
    store = import_features({"fc": FLAT, "conv": MAPS}, tmp_path / "s.zarr", ids=IDS)
    assert store.layers == ("fc", "conv")
    assert np.array_equal(store["conv"].values, MAPS)
    alone = import_features(FLAT.astype(np.float64), tmp_path / "t.zarr")
    assert np.array_equal(alone.rows("features"), FLAT)


def test_keys_layers_and_axes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["net/fc"] = FLAT.T
        file["net/other"] = np.zeros((3, 2))
        file["names"] = np.array([f"dir/{i}.jpg" for i in IDS], dtype="S")
    store = import_features(
        tmp_path / "a.h5", tmp_path / "s.zarr", key=["net/fc"], layer=["fc"], stimulus_axis=1, ids_key="names"
    )
    assert store.layers == ("fc",)
    assert np.array_equal(store.rows("fc"), FLAT)
    assert store.ids.tolist() == IDS
    write_v73(tmp_path / "t.mat", X=FLAT.T)
    store = import_features(tmp_path / "t.mat", tmp_path / "t.zarr", stimulus_axis=-1)
    assert np.array_equal(store.rows("X"), FLAT)


def test_channels_last(tmp_path):
    store = import_features({"conv": np.moveaxis(MAPS, 1, -1)}, tmp_path / "s.zarr", channels_last=True)
    assert np.array_equal(store["conv"].values, MAPS)


def test_ids_from_files_beside(tmp_path):
    """What thingsvision leaves: features.npy and file_names.txt."""
    np.save(tmp_path / "features.npy", FLAT)
    names = tmp_path / "file_names.txt"
    names.write_text("".join(f"images/{name}.v1.jpg\n" for name in IDS))
    store = import_features(tmp_path / "features.npy", tmp_path / "s.zarr")
    assert store.ids.tolist() == [f"{name}.v1" for name in IDS]  # the whole stem
    assert "file_names.txt" in store.attrs["ids_from"]
    again = import_features(tmp_path / "features.npy", tmp_path / "t.zarr", ids=names)
    assert again.ids.tolist() == store.ids.tolist()
    names.write_text("a.jpg\nb.jpg\n")  # of other features: not used unasked, refused when asked for
    assert import_features(tmp_path / "features.npy", tmp_path / "u.zarr").ids[0] == "0"
    with pytest.raises(InputError, match=r"11 rows and there are 2 ids \(file_names.txt\)"):
        import_features(tmp_path / "features.npy", tmp_path / "v.zarr", ids=names)


def test_stems_that_repeat_keep_their_folders(tmp_path):
    (tmp_path / "names.txt").write_text("s1/1.png\ns1/2.png\ns2\\1.png\n")
    assert read_id_file(tmp_path / "names.txt") == ["s1/1", "s1/2", "s2/1"]
    (tmp_path / "plain.txt").write_text("\ufeffrow 1\nrow.2\n\n")
    assert read_id_file(tmp_path / "plain.txt") == ["row 1", "row.2"]


def test_ids_and_labels_from_stimuli(tmp_path):
    images = np.zeros((N, 4, 4), dtype=np.uint8)
    stimuli = Stimuli.from_array(images, ids=IDS, labels={"category": list("ababababaab")})
    store = import_features(FLAT, tmp_path / "s.zarr", ids=stimuli)
    assert store.ids.tolist() == IDS
    assert store.labels["category"].tolist() == list("ababababaab")


def test_row_counts_must_agree(tmp_path):
    with pytest.raises(InputError, match="11 rows and there are 10 ids"):
        import_features(FLAT, tmp_path / "s.zarr", ids=IDS[:-1])
    with pytest.raises(InputError, match="differ in their number of rows"):
        import_features({"a": FLAT, "b": FLAT[:5]}, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_a_store_is_reused_resumed_or_refused(tmp_path):
    np.save(tmp_path / "a.npy", FLAT)
    first = import_features(tmp_path / "a.npy", tmp_path / "s.zarr", ids=IDS, block=4)
    when = (tmp_path / "s.zarr" / "zarr.json").stat().st_mtime_ns
    again = import_features(tmp_path / "a.npy", tmp_path / "s.zarr", ids=IDS, block=4)
    assert again.identity == first.identity
    assert (tmp_path / "s.zarr" / "zarr.json").stat().st_mtime_ns == when
    for change in ({"ids": IDS[::-1]}, {"ids": IDS, "layer": ["b"]}, {"ids": IDS, "dtype": "float16"}):
        with pytest.raises(StoreError, match="overwrite=True"):
            import_features(tmp_path / "a.npy", tmp_path / "s.zarr", block=4, **change)
    replaced = import_features(tmp_path / "a.npy", tmp_path / "s.zarr", ids=IDS[::-1], overwrite=True)
    assert replaced.ids.tolist() == IDS[::-1]


def test_an_interrupted_import_resumes(tmp_path):
    spoilt = FLAT.copy()
    np.save(tmp_path / "a.npy", spoilt)
    whole = import_features(tmp_path / "a.npy", tmp_path / "whole.zarr", ids=IDS, block=4)

    def stop_after(n):
        def rows(self, index, arrays, note=None):
            if index >= n:
                raise KeyboardInterrupt
            return write(self, index, arrays, note)

        return rows

    from actkit.store import StoreWriter

    write = StoreWriter.write_block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreWriter, "write_block", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            import_features(tmp_path / "a.npy", tmp_path / "s.zarr", ids=IDS, block=4)
    store = import_features(tmp_path / "a.npy", tmp_path / "s.zarr", ids=IDS, block=4)
    assert np.array_equal(store.rows("a"), FLAT)
    assert store.identity == whole.identity


def test_not_finite_values(tmp_path):
    bad = FLAT.copy()
    bad[6, 2] = np.nan
    with pytest.raises(InputError, match=r"layer 'features' are not finite for stimulus 'image_06'"):
        import_features(bad, tmp_path / "s.zarr", ids=IDS, block=4)
    store = import_features(bad, tmp_path / "t.zarr", ids=IDS, nan="keep")
    assert np.array_equal(store.rows("features"), bad, equal_nan=True)


def test_float16_keeps_the_mean_beside(tmp_path):
    far = FLAT + 1000
    store = import_features(far, tmp_path / "s.zarr", dtype="float16", block=4)
    assert np.abs(store.rows("features") - far).max() < 0.01  # plain float16 would be off by up to 0.5


def test_large_npy_is_not_read_whole(tmp_path, monkeypatch):
    """Rows come by memory map: no block of the file is larger than asked for."""
    np.save(tmp_path / "a.npy", FLAT)
    seen = []
    load = np.load

    def watched(path, **settings):
        seen.append(settings)
        return load(path, **settings)

    monkeypatch.setattr(np, "load", watched)
    import_features(tmp_path / "a.npy", tmp_path / "s.zarr", block=4)
    assert seen == [{"mmap_mode": "r", "allow_pickle": False}]
    assert open_store(tmp_path / "s.zarr").n_stimuli == N


def test_files_that_hold_no_features(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "words.npz", words=np.array(["a", "b"]))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.savez(tmp_path / "two.npz", a=FLAT, b=FLAT)
    cases = [
        ("missing.npy", {}, "no features file"),
        ("objects.npy", {}, "Pickled objects are refused"),
        ("words.npz", {}, "no numeric array"),
        ("words.npz", {"key": ["words"]}, "holds no numbers by row"),
        ("text.npy", {}, "by its content"),
        ("torn.npy", {}, "cannot be read"),
        ("two.npz", {"key": ["c"]}, "no array 'c'"),
        ("two.npz", {"layer": ["x"]}, "one different name an array"),
        ("two.npz", {"stimulus_axis": 2}, "stimulus_axis=2"),
        ("two.npz", {"ids_key": "names"}, "no entry 'names'"),
    ]
    for name, options, words in cases:
        with pytest.raises(InputError, match=words):
            import_features(tmp_path / name, tmp_path / "s.zarr", **options)
    with pytest.raises(InputError, match="give one of them"):
        import_features(tmp_path / "two.npz", tmp_path / "s.zarr", ids=IDS, ids_key="a")
