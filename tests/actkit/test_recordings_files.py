"""Recordings in MATLAB, HDF5, numpy, CSV, netCDF and raster files, and in a YAML that names one."""

import doctest
import io
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

import actkit.array_files
import actkit.recordings_files
import actkit.store_pool
from actkit.array_files import contents
from actkit.errors import DataError, InputError
from actkit.recordings_files import is_recording_file, kind_of, read_recording
from actkit.recordings_neurons import average, bin_spikes, n_repetitions, validate_responses

RNG = np.random.default_rng(0)
IDS = ["cat", "cup", "car", "dog"]
NAMES = ["n1", "n2", "n3"]
RESPONSES = RNG.poisson(4.0, (4, 2, 3)).astype(float)  # stimulus, repetition, neuron
RESPONSES[1, 1] = np.nan
RESPONSES[2, 0, 2] = np.nan
SHOWN = ["cup", "cat", "cup", "dog", "cat", "cat"]
TRIALS = RNG.poisson(4.0, (6, 3)).astype(float)


@pytest.mark.parametrize("module", [actkit.recordings_files, actkit.store_pool])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


# ------------------------------------------------------------------ arrays


def write_arrays(folder, kind):
    """The same arrays in each format, neurons first as many laboratories have them."""
    values = RESPONSES.transpose(2, 0, 1)
    path = folder / ("rates.h5" if kind == "hdf5" else f"rates.{kind}")
    cells = np.empty((1, 4), dtype=object)
    cells[0, :] = IDS
    if kind == "mat":
        scipy.io.savemat(path, {"rates": values, "ids": cells, "area": np.array([[1, 2, 2]]), "shown": TRIALS})
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["rates"], file["ids"], file["area"], file["shown"] = values, IDS, [1, 2, 2], TRIALS
    else:
        np.savez(path, rates=values, ids=np.array(IDS), area=np.array([1, 2, 2]), shown=TRIALS)
    return path


@pytest.mark.parametrize("kind", ["mat", "hdf5", "npz"])
def test_arrays_with_named_axes(tmp_path, kind):
    path = write_arrays(tmp_path, kind)
    array = read_recording(
        path, key="rates", dims=["neuron", "stimulus", "repetition"], stimulus="ids", neuron=NAMES,
        neuron_labels={"area": "area"}, labels={"alive": [True, False, False, True]},
    )  # fmt: skip
    assert array.dims == ("stimulus", "repetition", "neuron")
    np.testing.assert_array_equal(array.values, RESPONSES)
    assert array["stimulus"].values.tolist() == IDS
    assert array["neuron"].values.tolist() == NAMES
    assert array["area"].values.tolist() == [1, 2, 2]
    assert array["alive"].values.tolist() == [True, False, False, True]
    assert array.attrs["source"] == path.name


@pytest.mark.parametrize("kind", ["mat", "hdf5", "npz"])
def test_what_a_file_of_arrays_holds_is_said(tmp_path, kind):
    path = write_arrays(tmp_path, kind)
    assert contents(path, kind)["rates"] == "3 × 4 × 2"
    with pytest.raises(InputError, match=r"say key=.*The file holds:.*rates \(3 × 4 × 2\)"):
        read_recording(path)
    with pytest.raises(InputError, match=r"say dims=.*its 3 × 4 × 2 values"):
        read_recording(path, key="rates")
    with pytest.raises(InputError, match=r"say stimulus=.*numbers the 4 rows.*holds:.*ids"):
        read_recording(path, key="rates", dims=["neuron", "stimulus", "repetition"])
    with pytest.raises(DataError, match="'rate'; nearest: 'rates'"):
        read_recording(path, key="rate")


def test_trials_in_the_order_they_were_run(tmp_path):
    np.savez(tmp_path / "x.npz", counts=TRIALS, shown=np.array(SHOWN), kind=np.array([len(word) for word in SHOWN]))
    array = read_recording(
        tmp_path / "x.npz", key="counts", dims=["trial", "neuron"], stimulus="shown", labels={"kind": "kind"}
    )
    assert array["stimulus"].values.tolist() == ["cup", "cat", "dog"]
    for word in ("cup", "cat", "dog"):
        own = TRIALS[np.array(SHOWN) == word]
        np.testing.assert_array_equal(array.sel(stimulus=word).values[: len(own)], own)
    with pytest.raises(DataError, match="several values for the stimulus 'cup'"):
        read_recording(
            tmp_path / "x.npz", key="counts", dims=["trial", "neuron"], stimulus="shown", labels={"n": np.arange(6)}
        )


def test_rows_are_numbered_from_where_it_is_said(tmp_path):
    np.save(tmp_path / "x.npy", RESPONSES[:, 0, :2].T)
    options = {"dims": ["neuron", "stimulus"], "stimulus": "image{:04d}"}
    assert read_recording(tmp_path / "x.npy", **options)["stimulus"].values.tolist()[0] == "image0000"
    from_one = read_recording(tmp_path / "x.npy", **options, first=1)
    assert from_one["stimulus"].values.tolist() == ["image0001", "image0002", "image0003", "image0004"]
    np.testing.assert_array_equal(from_one.values, RESPONSES[:, 0, :2])


def test_numbers_of_matlab_are_ids_without_a_point(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"r": RESPONSES[:, 0, :2], "id": np.array([3.0, 1.0, 2.0, 10.0])})
    array = read_recording(tmp_path / "x.mat", key="r", dims=["stimulus", "neuron"], stimulus="id")
    assert array["stimulus"].values.tolist() == ["3", "1", "2", "10"]


def test_one_neuron_needs_no_axis_and_sentinels_are_missing(tmp_path):
    counts = np.array([[3, -1], [2, 5], [-1, 4], [0, 0]], dtype=np.int16)
    np.save(tmp_path / "x.npy", counts)
    array = read_recording(tmp_path / "x.npy", dims=["stimulus", "repetition"], stimulus=IDS, missing=-1)
    assert array.sizes == {"stimulus": 4, "repetition": 2, "neuron": 1}
    assert n_repetitions(array).values.ravel().tolist() == [1, 2, 1, 2]
    assert float(average(array).sel(stimulus="car").item()) == 4


def test_times_of_bins_are_in_ms(tmp_path):
    values = RNG.random((2, 4, 5))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["spikes/psth"], file["spikes/t"] = values, [25.0, 75.0, 125.0, 175.0, 225.0]
    array = read_recording(
        tmp_path / "x.h5", key="spikes/psth", dims=["neuron", "stimulus", "time"], stimulus=IDS, time="spikes/t"
    )
    assert array.dims == ("stimulus", "neuron", "time")
    assert array["time"].values.tolist() == [25, 75, 125, 175, 225]
    assert array["time"].attrs["units"] == "ms"
    np.testing.assert_array_equal(array.values, values.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dims": ["stimulus", "repetition"]}, DataError, "does not fit the 2 dims"),
        ({"dims": ["stimulus", "repetition", "unit"]}, InputError, "distinct names of"),
        ({"dims": ["stimulus", "stimulus", "neuron"]}, InputError, "distinct names of"),
        ({"dims": ["stimulus", "trial", "neuron"]}, InputError, "either stimulus or trial"),
        ({"dims": ["neuron", "repetition", "time"]}, InputError, "either stimulus or trial"),
        ({"stimulus": IDS[:3]}, InputError, "3 values and there are 4 along 'stimulus'"),
        ({"stimulus": ["a", "a", "b", "c"]}, DataError, "the stimulus 'a' occurs 2 times"),
        ({"stimulus": "ids"}, InputError, "holds one array and no 'ids'"),
        ({"key": "rates"}, InputError, "holds one array, without a name"),
        ({"time": [1, 2]}, InputError, "has no 'time'"),
        ({"neuron": ["a"]}, InputError, "1 values and there are 3 along 'neuron'"),
        ({"keys": "rates"}, InputError, "read as npy, which has no option 'keys'; nearest: 'key'"),
        ({"kind": "spikes"}, InputError, "no format 'spikes'"),
    ],
)
def test_what_does_not_fit_an_array_is_named(tmp_path, options, error, words):
    np.save(tmp_path / "x.npy", RESPONSES)
    given = {"dims": ["stimulus", "repetition", "neuron"], "stimulus": IDS}
    with pytest.raises(error, match=words):
        read_recording(tmp_path / "x.npy", **(given | options))


def test_a_neuron_without_any_value_is_named(tmp_path):
    values = RESPONSES.copy()
    values[:, :, 1] = np.nan
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match="the neuron 'n2' has no value at all"):
        read_recording(tmp_path / "x.npy", dims=["stimulus", "repetition", "neuron"], stimulus=IDS, neuron=NAMES)


# ------------------------------------------------------------------ tables


def long_table():
    """A row for each response, in no order, missing ones left out or empty."""
    rows = [
        {
            "image": IDS[i],
            "site": NAMES[k],
            "area": "V4" if k else "V1",
            "rate": RESPONSES[i, j, k],
            "trial": 10 * j + i,
        }
        for i in range(4)
        for j in range(2)
        for k in range(3)
        if not (i == 1 and j == 1)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_a_row_for_each_presentation(tmp_path):
    table = pd.DataFrame(TRIALS, columns=NAMES)
    table.insert(0, "stimulus", SHOWN)
    table["kind"] = [len(word) for word in SHOWN]
    table.iloc[3, 2] = np.nan
    table.to_csv(tmp_path / "x.csv", index=False)
    array = read_recording(tmp_path / "x.csv", labels=["kind"])
    assert array.dims == ("stimulus", "repetition", "neuron")
    assert array["neuron"].values.tolist() == NAMES
    assert array["kind"].values.tolist() == [3, 3, 3]
    for word in ("cup", "cat"):
        own = TRIALS[np.array(SHOWN) == word]
        np.testing.assert_array_equal(array.sel(stimulus=word).values[: len(own)], own)
    assert np.isnan(array.sel(stimulus="dog", neuron="n2").values).all()
    xr.testing.assert_identical(read_recording(tmp_path / "x.csv", labels="kind"), array)
    some = read_recording(tmp_path / "x.csv", neurons=["n3", "n1"])
    np.testing.assert_array_equal(some.values, array.sel(neuron=["n3", "n1"]).values)
    picked = read_recording(tmp_path / "x.csv", labels=["kind"], where={"stimulus": ["cat", "dog"]})
    np.testing.assert_array_equal(picked.values, array.sel(stimulus=["cat", "dog"]).values)


def test_a_row_for_each_response(tmp_path):
    long_table().to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    array = read_recording(
        tmp_path / "x.tsv", stimulus="image", neuron="site", value="rate", neuron_labels=["area"]
    ).sel(stimulus=IDS, neuron=NAMES)
    np.testing.assert_array_equal(array.values, RESPONSES)
    assert array["area"].values.tolist() == ["V1", "V4", "V4"]


def test_repetitions_are_shared_between_neurons(tmp_path):
    # n2 misses the first presentation of a: its response belongs to the second, beside that of n1
    rows = "stimulus,trial,neuron,value\na,1,n1,1\na,7,n1,2\na,7,n2,3\nb,2,n1,4\nb,2,n2,5\n"
    (tmp_path / "x.csv").write_text(rows)
    array = read_recording(tmp_path / "x.csv")
    np.testing.assert_array_equal(array.sel(stimulus="a").values, [[1, np.nan], [2, 3]])
    np.testing.assert_array_equal(array.sel(stimulus="b").values, [[4, 5], [np.nan, np.nan]])


def test_a_row_for_each_time_bin(tmp_path):
    rows = [f"{s},{n},{t},{i}" for i, (s, n, t) in enumerate(np.ndindex(2, 2, 3))]
    (tmp_path / "x.csv").write_text("\n".join(["stimulus,neuron,time,value", *rows[::-1]]) + "\n")
    array = read_recording(tmp_path / "x.csv")
    assert array.dims == ("stimulus", "neuron", "time")
    assert array["time"].attrs["units"] == "ms"
    np.testing.assert_array_equal(array.sel(stimulus=["0", "1"], neuron=["0", "1"]).values.ravel(), np.arange(12))


def test_ids_stay_the_text_they_are(tmp_path):
    (tmp_path / "x.csv").write_text("stimulus,n1\n007,1\nNA,2\n1e3,3\n")
    assert read_recording(tmp_path / "x.csv")["stimulus"].values.tolist() == ["007", "NA", "1e3"]


def test_averages_with_their_counts(tmp_path):
    (tmp_path / "x.csv").write_text("stimulus,n_repetitions,group,n1,n2\na,3,0,1.5,2\nb,2,0,1,0\n")
    array = read_recording(tmp_path / "x.csv")
    assert array.dims == ("stimulus", "neuron")
    assert array["neuron"].values.tolist() == ["n1", "n2"]
    assert n_repetitions(array).values.tolist() == [[3, 3], [2, 2]]
    assert array["group"].values.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("image,n1\na,1\n", {}, InputError, "no column 'stimulus'.*holds the columns image, n1"),
        ("stimulus,n1\na,x\n", {}, DataError, "'n1' holds 'x', which is no number"),
        ("stimulus,n1\n,1\n", {}, DataError, "'stimulus' is empty in row 1"),
        ("stimulus,n1\n", {}, DataError, "has no row"),
        ("stimulus,trial\na,1\n", {}, InputError, "no column is left for neurons"),
        (",stimulus,n1\n0,a,1\n", {}, InputError, "no name in the header.*some of n1"),
        ("stimulus,n1\na,1\n", {"neurons": ["n2"]}, InputError, "no column 'n2' of a neuron; there are"),
        ("stimulus,repetition,n1\na,1,1\na,1,2\n", {}, DataError, "2 rows for stimulus a, repetition 1"),
        ("stimulus,neuron,rate\na,n1,1\n", {}, InputError, "no column 'value'.*stimulus, neuron, rate"),
        ("stimulus,n1,k\na,1,x\na,2,y\n", {"labels": ["k"]}, DataError, "several values for the stimulus 'a'"),
        ("stimulus,n1\na,1\n", {"value": "n1"}, InputError, "a row for each presentation"),
        ("stimulus,neuron,value\na,x,1\n", {"neurons": ["x"]}, InputError, "where={'neuron'"),
        ("stimulus,n1\na,1\n", {"where": {"stimulus": ["b"]}}, InputError, "no 'stimulus' is b"),
        ("stimulus,n1,n2\na,1,\n", {}, DataError, "the neuron 'n2' has no value at all"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, text, options, error, words):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(error, match=words):
        read_recording(tmp_path / "x.csv", **options)


# ------------------------------------------------------------------ netCDF, rasters, YAML


def test_what_xarray_wrote_comes_back(tmp_path):
    array = xr.DataArray(
        RESPONSES, dims=("stimulus", "repetition", "neuron"), coords={"stimulus": IDS, "neuron": NAMES}, name="rates"
    ).assign_coords(object=("stimulus", list("aabb")))
    array.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    read = read_recording(tmp_path / "x.nc")
    np.testing.assert_array_equal(read.values, RESPONSES)
    assert read["object"].values.tolist() == list("aabb")
    array.to_dataset().assign(more=array * 2).to_netcdf(tmp_path / "two.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read_recording(tmp_path / "two.nc", key="more").values, 2 * RESPONSES)
    with pytest.raises(DataError, match="needs a key"):
        read_recording(tmp_path / "two.nc")


def test_averages_that_xarray_wrote_keep_their_counts(tmp_path):
    values = RNG.poisson(4.0, (4, 3, 2)).astype(float)
    values[1, 1:] = np.nan
    means = average(
        xr.DataArray(values, dims=("stimulus", "repetition", "neuron"), coords={"stimulus": IDS, "neuron": NAMES[:2]})
    )
    means.rename("rates").to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    read = read_recording(tmp_path / "x.nc")
    np.testing.assert_array_equal(read.values, means.values)
    np.testing.assert_array_equal(n_repetitions(read).values, [[3, 3], [1, 1], [3, 3], [3, 3]])


def raster_file(n_trials, seed, labels=None, **site):
    """One neuron's file of the Neural Decoding Toolbox, and what it holds."""
    rng = np.random.default_rng(seed)
    raster = (rng.random((n_trials, 200)) < 0.1).astype(np.uint8)
    shown = rng.permutation(np.resize(["face", "hand", "kiwi"], n_trials))
    cells = np.empty((1, n_trials), dtype=object)
    cells[0, :] = shown
    file = io.BytesIO()
    site = {"alignment_event_time": 101, **site}
    scipy.io.savemat(
        file, {"raster_data": raster, "raster_labels": labels or {"what": cells}, "raster_site_info": site}
    )
    return file.getvalue(), raster, shown


def test_rasters_of_neurons_recorded_one_after_the_other(tmp_path):
    made = {"b": raster_file(9, 1, unit="A", depth=3), "a": raster_file(7, 2, unit="B", depth=4)}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, (content, _, _) in made.items():
            archive.writestr(f"rasters/{name}_raster_data.mat", content)
    (tmp_path / "folder").mkdir()
    for name, (content, _, _) in made.items():
        (tmp_path / "folder" / f"{name}_raster_data.mat").write_bytes(content)
    array = read_recording(tmp_path / "x.zip", stimulus="what", window=(20, 60))
    xr.testing.assert_equal(array, read_recording(tmp_path / "folder", stimulus="what", window=(20, 60)))
    assert array["neuron"].values.tolist() == ["a", "b"]
    assert array["stimulus"].values.tolist() == ["face", "hand", "kiwi"]
    assert array["neuron_unit"].values.tolist() == ["B", "A"]
    assert array["depth"].values.tolist() == [4, 3]
    for j, name in enumerate(["a", "b"]):
        _, raster, shown = made[name]
        counts = bin_spikes(raster, [(20, 60)], onset=100)[:, 0]
        for stimulus in ("face", "hand", "kiwi"):
            own = counts[shown == stimulus]
            got = array.sel(stimulus=stimulus).values[:, j]
            np.testing.assert_array_equal(got[: len(own)], own)
            assert np.isnan(got[len(own) :]).all()
    course = read_recording(tmp_path / "x.zip", stimulus=["what"], bin_ms=20, labels=["what"])
    assert course["time"].values.tolist() == list(range(-90, 100, 20))
    assert course["time"].attrs["units"] == "ms"
    np.testing.assert_array_equal(course.sel(time=[30, 50]).sum("time", skipna=False).values, array.values)
    assert course["what"].values.tolist() == ["face", "hand", "kiwi"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (raster_file(6, 1)[0], {}, "say stimulus=.*6 trials of 200 samples, the labels what"),
        (raster_file(6, 1)[0], {"stimulus": "wat"}, "no label 'wat'; nearest: 'what'"),
        (raster_file(6, 1)[0], {"stimulus": "what", "window": (0, 300)}, "does not lie in the raster"),
        (raster_file(6, 1, {"what": ["a"]})[0], {"stimulus": "what"}, "6 trials and 1 values of 'what'"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), {"stimulus": "what"}, "cannot be read as a MATLAB file"),
        (None, {"stimulus": "what"}, "holds no MATLAB file"),
    ],
)
def test_what_is_wrong_with_rasters_is_named(tmp_path, content, options, words):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        if content is not None:
            archive.writestr("a_raster_data.mat", content)
    with pytest.raises((DataError, InputError), match=words):
        read_recording(tmp_path / "x.zip", **options)


def test_other_matlab_files_are_no_rasters(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"rates": RESPONSES})
    with pytest.raises(DataError, match=r"a\.mat has no raster_data.*it holds: rates"):
        read_recording(tmp_path, stimulus="what")
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        read_recording(tmp_path / "x.zip", stimulus="what")


def test_a_yaml_stands_for_the_file_it_names(tmp_path):
    np.savez(tmp_path / "x.npz", counts=TRIALS, shown=np.array(SHOWN))
    (tmp_path / "mine.yaml").write_text("file: x.npz\nkey: counts\ndims: [trial, neuron]\nstimulus: shown\n")
    array = read_recording(tmp_path / "mine.yaml")
    plain = read_recording(tmp_path / "x.npz", key="counts", dims=["trial", "neuron"], stimulus="shown")
    xr.testing.assert_identical(array, plain)
    assert array.attrs["source"] == "x.npz"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key: counts\n", "needs the line `file: NAME`"),
        ("- 1\n", "needs the line"),
        ("file: [\n", "cannot be read as YAML"),
        ("file: none.npz\n", "there is no file"),
        ("file: mine.yaml\n", "only describes another file"),
        ("file: x.dat\n", "names no format of recordings"),
        ("file: x.npz\nkeys: counts\n", "no option 'keys'"),
        ("name: a\nstimuli: {source: folder}\n", "describes a whole data set.*mine.yaml:VARIABLE"),
    ],
)
def test_what_is_wrong_with_a_yaml_is_named(tmp_path, text, words):
    np.savez(tmp_path / "x.npz", counts=TRIALS)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises((DataError, InputError), match=words):
        read_recording(tmp_path / "mine.yaml")


def test_options_go_into_the_yaml_or_the_call(tmp_path):
    (tmp_path / "mine.yaml").write_text("file: x.npz\n")
    with pytest.raises(InputError, match="says itself how its file is read; write key there"):
        read_recording(tmp_path / "mine.yaml", key="counts")


def test_names_of_files_and_of_data_sets():
    assert is_recording_file("a/b.NWB")
    assert not is_recording_file("cowley2023_v4_210325:responses")
    assert not is_recording_file("my_set.yaml:responses")
    assert kind_of("a.H5") == "hdf5"
    with pytest.raises(InputError, match="names no format of recordings"):
        kind_of("a.dat")


def test_what_is_read_is_a_recording(tmp_path):
    long_table().to_csv(tmp_path / "x.csv", index=False)
    array = read_recording(tmp_path / "x.csv", stimulus="image", neuron="site", value="rate", labels=[])
    xr.testing.assert_identical(validate_responses(array), array)
