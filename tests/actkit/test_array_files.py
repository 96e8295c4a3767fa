"""Loaders of files: MATLAB old and new, numpy, HDF5, netCDF, tables; what is damaged or missing is named."""

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

from actkit.array_files import contents, fit_dims, read_array, read_table
from actkit.errors import DataError
from actkit.recordings_assemblies import read_assembly
from actkit.recordings_files import read_recording

RNG = np.random.default_rng(1)
SQUARES = RNG.random((3, 4, 4))
NAMES = ["one", "two longer", "three"]


def write_old(path):
    subjects = np.array(
        [[(square, name) for square, name in zip(SQUARES, NAMES, strict=True)]], dtype=[("RDM", "O"), ("name", "O")]
    )
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = NAMES
    ragged = np.empty((1, 2), dtype=object)
    ragged[0, :] = [np.zeros(2), np.zeros(3)]
    scipy.io.savemat(
        path, {"subjects": subjects, "names": cells, "matrix": SQUARES[0], "ragged": ragged, "flag": np.array([[True]])}
    )


def write_new(path):
    """A file as MATLAB 7.3 writes it: a user block, arrays by column, structs as groups, arrays of references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def put(group, name, value):
            if isinstance(value, str):
                codes = np.array([[ord(char)] for char in value], dtype=np.uint16)
                made = group.create_dataset(name, data=codes)
                made.attrs["MATLAB_class"] = np.bytes_("char")
                return made
            made = group.create_dataset(name, data=np.asarray(value).T)
            made.attrs["MATLAB_class"] = np.bytes_("logical" if np.asarray(value).dtype == np.uint8 else "double")
            return made

        def put_cells(group, name, values):
            references = np.array(
                [[put(refs, f"{name}{i}", value).ref] for i, value in enumerate(values)], dtype=h5py.ref_dtype
            )
            made = group.create_dataset(name, data=references)
            made.attrs["MATLAB_class"] = np.bytes_("cell")

        put(file, "matrix", SQUARES[0])
        put(file, "flag", np.array([[1]], np.uint8))
        put_cells(file, "names", NAMES)
        put_cells(file, "ragged", [np.zeros(2), np.zeros(3)])
        subjects = file.create_group("subjects")
        put_cells(subjects, "RDM", SQUARES)
        put_cells(subjects, "name", NAMES)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124))


@pytest.fixture(params=["old", "new"])
def mat(request, tmp_path):
    path = tmp_path / f"{request.param}.mat"
    (write_old if request.param == "old" else write_new)(path)
    return path


def test_matlab_files_old_and_new_read_alike(mat):
    np.testing.assert_array_equal(read_array(mat, "mat", "matrix"), SQUARES[0])
    collected = read_array(mat, "mat", "subjects.RDM")
    assert collected.shape == (1, 3, 4, 4)
    np.testing.assert_array_equal(collected[0], SQUARES)
    assert read_array(mat, "mat", "subjects.name").ravel().tolist() == NAMES
    assert read_array(mat, "mat", "names").ravel().tolist() == NAMES
    assert read_array(mat, "mat", "flag").ravel().astype(bool).tolist() == [True]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("matrx", r"no variable 'matrx'; nearest: 'matrix'"),
        ("subjects.RMD", r"no field 'RMD'; nearest: 'RDM'"),
        ("subjects", r"is a struct; add the field"),
        ("matrix.x", r"of something that is no struct"),
        ("ragged", r"differ in shape"),
        (None, r"key must be given"),
    ],
)
def test_what_a_matlab_file_lacks_is_named(mat, key, message):
    with pytest.raises(DataError, match=message):
        read_array(mat, "mat", key)


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", SQUARES)
    np.savez(tmp_path / "b.npz", first=SQUARES, second=SQUARES[0])
    np.savez(tmp_path / "one.npz", only=SQUARES)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy", "npy"), SQUARES)
    np.testing.assert_array_equal(read_array(tmp_path / "b.npz", "npz", "second"), SQUARES[0])
    np.testing.assert_array_equal(read_array(tmp_path / "one.npz", "npz"), SQUARES)
    with pytest.raises(DataError, match="no array 'secnd'; nearest: 'second'"):
        read_array(tmp_path / "b.npz", "npz", "secnd")
    with pytest.raises(DataError, match="needs a key"):
        read_array(tmp_path / "b.npz", "npz")
    with pytest.raises(DataError, match="single array"):
        read_array(tmp_path / "a.npy", "npz")
    with pytest.raises(DataError, match="several arrays"):
        read_array(tmp_path / "b.npz", "npy")


@pytest.mark.parametrize("loader", ["npy", "npz"])
def test_pickled_objects_are_never_unpickled(tmp_path, loader):
    path = tmp_path / f"x.{loader}"
    objects = np.array([{"a": 1}], dtype=object)
    np.save(path, objects, allow_pickle=True) if loader == "npy" else np.savez(path, objects, allow_pickle=True)
    with pytest.raises(DataError, match="could run code"):
        read_array(path, loader)


def test_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/numbers"] = SQUARES
        file["words"] = ["a", "b"]
    np.testing.assert_array_equal(read_array(tmp_path / "a.h5", "hdf5", "group/numbers"), SQUARES)
    assert read_array(tmp_path / "a.h5", "hdf5", "words").tolist() == ["a", "b"]
    with pytest.raises(DataError, match="no dataset 'group/number'; nearest: 'group/numbers'"):
        read_array(tmp_path / "a.h5", "hdf5", "group/number")
    with pytest.raises(DataError, match="no dataset 'group'"):
        read_array(tmp_path / "a.h5", "hdf5", "group")


def test_csv(tmp_path):
    pd.DataFrame({"id": ["x", "y"], "a": [1.0, 2.0], "b": [3.0, np.nan]}).to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(read_array(tmp_path / "t.csv", "csv"), [[1, 3], [2, np.nan]])
    assert read_array(tmp_path / "t.csv", "csv", "id").tolist() == ["x", "y"]
    with pytest.raises(DataError, match="no column 'idd'; nearest: 'id'"):
        read_array(tmp_path / "t.csv", "csv", "idd")
    assert contents(tmp_path / "t.csv", "csv") == {"id": "text", "a": "numbers", "b": "numbers"}


def test_columns_of_text_stay_the_text_they_are(tmp_path):
    (tmp_path / "t.csv").write_text("id,a\n007,1\nNA,2\n,3\n")
    assert read_table(tmp_path / "t.csv", text=["id", "none"])["id"].tolist() == ["007", "NA", ""]
    assert read_table(tmp_path / "t.csv", text=["id"])["a"].tolist() == [1, 2, 3]


def test_contents_of_both_kinds_of_matlab_files(mat):
    held = contents(mat, "mat")
    assert held["matrix"] == "4 × 4"
    assert any(name.split(".")[0] == "subjects" for name in held)
    assert not any(name.startswith("#") for name in held)


@pytest.mark.parametrize("loader", ["mat", "npy", "npz", "hdf5", "netcdf"])
def test_damaged_and_missing_files_are_named(tmp_path, loader):
    path = tmp_path / "damaged.bin"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(DataError, match=r"damaged\.bin"):
        read_array(path, loader, "x")
    with pytest.raises(DataError, match="no file"):
        read_array(tmp_path / "none", loader, "x")


@pytest.mark.parametrize(
    ("shape", "n", "expected"), [((1, 5), 1, (5,)), ((1, 1, 3), 2, (1, 3)), ((2, 3), 2, (2, 3)), ((1, 3, 1), 1, (3,))]
)
def test_axes_of_length_one_go_from_the_front(shape, n, expected):
    assert fit_dims(np.zeros(shape), n, "x").shape == expected


@pytest.mark.parametrize(("shape", "n"), [((2, 3), 1), ((3,), 2)])
def test_other_axes_do_not_go(shape, n):
    with pytest.raises(DataError, match="does not fit"):
        fit_dims(np.zeros(shape), n, "x")


# ------------------------------------------------------------------ netCDF assemblies

IMAGES = ["im2", "im1", "im2", "im3", "im1"]
RESPONSES = np.arange(5 * 3, dtype=np.float64).reshape(5, 3)


def write_assembly(path, bins=1):
    """The layout of Brain-Score assemblies, written by hand: flattened MultiIndex levels along their dims."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("presentation", 5)
        file.createDimension("neuroid", 3)
        file.createDimension("time_bin", bins)
        values = file.createVariable("dicarlo.test", "f8", ("presentation", "neuroid", "time_bin"))
        values[:] = np.stack([RESPONSES + 100 * b for b in range(bins)], axis=-1)
        names = "image_id repetition object_name neuroid_id region time_bin_start time_bin_end"
        values.coordinates = names
        for name, dim, column in [
            ("image_id", "presentation", IMAGES),
            ("repetition", "presentation", [1, 0, 0, 0, 1]),
            ("object_name", "presentation", ["dog", "cat", "dog", "car", "cat"]),
            ("neuroid_id", "neuroid", ["n1", "n2", "n3"]),
            ("region", "neuroid", ["V4", "IT", "IT"]),
        ]:
            kind = str if isinstance(column[0], str) else "i8"
            variable = file.createVariable(name, kind, (dim,))
            variable[:] = np.array(column, dtype=object) if kind is str else column
        for name, offset in (("time_bin_start", 70), ("time_bin_end", 170)):
            variable = file.createVariable(name, "i8", ("time_bin",))
            variable[:] = offset + 10 * np.arange(bins)


def test_an_assembly_becomes_stimuli_repetitions_and_neurons(tmp_path):
    write_assembly(tmp_path / "a.nc")
    array = read_assembly(tmp_path / "a.nc")
    assert array.dims == ("stimulus", "repetition", "neuron")
    assert array["stimulus"].values.tolist() == ["im2", "im1", "im3"]
    assert array["neuron"].values.tolist() == ["n1", "n2", "n3"]
    assert array["region"].values.tolist() == ["V4", "IT", "IT"]
    assert array["object_name"].values.tolist() == ["dog", "cat", "car"]
    assert int(array["time_bin_start"]) == 70
    assert "time" not in array.coords
    # im2 was shown as repetition 0 in row 2 and as repetition 1 in row 0; im3 only once.
    np.testing.assert_array_equal(array.sel(stimulus="im2").values, RESPONSES[[2, 0]])
    np.testing.assert_array_equal(array.sel(stimulus="im1").values, RESPONSES[[1, 4]])
    np.testing.assert_array_equal(array.sel(stimulus="im3", repetition=0).values, RESPONSES[3])
    assert np.isnan(array.sel(stimulus="im3", repetition=1)).all()
    recording = read_recording(tmp_path / "a.nc", where={"region": ["IT"]})
    np.testing.assert_array_equal(recording.values, array.values[:, :, 1:])


def test_an_assembly_is_selected_by_its_coordinates(tmp_path):
    write_assembly(tmp_path / "a.nc", bins=2)
    array = read_assembly(tmp_path / "a.nc", where={"region": ["IT"], "repetition": ["0"]})
    assert array.dims == ("stimulus", "neuron", "time")
    assert array["neuron"].values.tolist() == ["n2", "n3"]
    np.testing.assert_array_equal(array.sel(stimulus="im1").values[:, 1], RESPONSES[1, 1:] + 100)
    assert array["time"].values.tolist() == [120, 130]  # centres of 70-170 and 80-180
    assert array["time"].attrs["units"] == "ms"
    with pytest.raises(DataError, match="no 'region' is V1"):
        read_assembly(tmp_path / "a.nc", where={"region": ["V1"]})
    with pytest.raises(DataError, match="no coordinate 'regoin' to select by; nearest: 'region'"):
        read_assembly(tmp_path / "a.nc", where={"regoin": ["IT"]})
    with pytest.raises(DataError, match="no coordinate stimulus_path"):
        read_assembly(tmp_path / "a.nc", stimulus="stimulus_path")


def test_plain_netcdf_of_both_versions(tmp_path):
    array = xr.DataArray(RESPONSES, dims=("stimulus", "neuron"), coords={"stimulus": list("abcde")}, name="rates")
    array.to_netcdf(tmp_path / "four.nc", engine="h5netcdf")
    array.to_netcdf(tmp_path / "three.nc", engine="scipy")
    for name in ("four.nc", "three.nc"):
        read = read_assembly(tmp_path / name)
        np.testing.assert_array_equal(read.values, RESPONSES)
        assert read["stimulus"].values.tolist() == list("abcde")
        assert read["neuron"].values.tolist() == ["0", "1", "2"]
        assert read_array(tmp_path / name, "netcdf", "stimulus").tolist() == list("abcde")
        with pytest.raises(DataError, match="no variable 'rate'; nearest: 'rates'"):
            read_array(tmp_path / name, "netcdf", "rate")
