"""Recordings and choices that ship as specs: each trap of each data set, and the words of specs that avoid them."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actkit.data_specs import catalogue
from actkit.data_specs.fetch import sha256_of
from actkit.errors import DataError, InputError
from actkit.recordings_neurons import (
    average,
    bin_spikes,
    from_trials,
    has_repetitions,
    n_repetitions,
    pool_stimuli,
    stimulus_groups,
    validate_responses,
)

DATA = os.environ.get("ACTKIT_DATA", "")
SESSIONS = {"210325": (50, 640), "210224": (67, 800), "190927": (31, 1200), "190925": (36, 1200)}


def needs(name):
    return pytest.mark.skipif(
        not DATA or not (Path(DATA) / name).is_dir(),
        reason=f"the environment variable ACTKIT_DATA names no folder with {name}",
    )


# ------------------------------------------------------------------ words of specs, on a small set


SPEC = """
name: small
title: a small recording
description: eight pictures in four kinds, two of them copies
licence: none
citation: nobody
folder: shared_folder
files:
  pictures: {path: pictures.zip, bytes: PICTURES_BYTES, sha256: PICTURES_SUM, by_hand: drawn}
  rates: {path: rates.npz, bytes: RATES_BYTES, sha256: RATES_SUM, by_hand: drawn}
  trials: {path: trials.csv, bytes: TRIALS_BYTES, sha256: TRIALS_SUM, by_hand: drawn}
stimuli:
  source: zip
  file: pictures
  pattern: "*.png"
  order: by number
  labels:
    kind: {pattern: '^([a-z]+)'}
    number: {pattern: '(\\d+)$', number: true}
    half: {values: [first, second], each: 4}
variables:
  responses:
    kind: responses
    description: single presentations
    dims: [stimulus, repetition, neuron]
    source: {file: rates, key: raw, dims: [neuron, stimulus, repetition]}
    coords:
      neuron: {dim: neuron, format: "n{:02d}"}
      region: {dim: neuron, key: area, map: {"1": V1, "2": V4}}
  one:
    kind: responses
    description: a single neuron
    dims: [stimulus, neuron]
    source: {file: rates, key: one, dims: [stimulus], transforms: [expand: {neuron: lonely}]}
  kinds:
    kind: responses
    description: a row for each kind
    dims: [stimulus, neuron]
    rows: kind
    source: {file: rates, key: kinds, stimulus_key: names}
    coords:
      neuron: {dim: neuron, format: "k{:d}"}
  choices:
    kind: choices
    description: choices, several a picture
    dims: [subject, stimulus, repetition]
    source:
      file: trials
      key: answer
      index: {subject: who, stimulus: file}
      number: repetition
      pattern: {stimulus: '^(.+)\\.png$'}
      columns: {subject: {population: group}}
"""


@pytest.fixture
def small(tmp_path):
    """The path of a spec with its files; the archive's order is not the ids', and face2 is a copy of cup1."""
    folder = tmp_path / "shared_folder"
    folder.mkdir()
    names = [f"{kind}{i}" for kind in ("car", "cat", "cup", "face") for i in (1, 2)]
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for name in ["face2", *names[:-1]][::-1]:
            picture = io.BytesIO()
            shade = names.index("cup1" if name == "face2" else name)
            Image.new("RGB", (4, 4), (20 * shade, 0, 0)).save(picture, "png")
            archive.writestr(f"{name}.png", picture.getvalue())
    rng = np.random.default_rng(0)
    np.savez(
        folder / "rates.npz",
        raw=rng.normal(size=(3, 8, 2)),
        area=np.array([1, 2, 2]),
        one=rng.normal(size=8),
        kinds=np.arange(8.0).reshape(4, 2),
        names=np.array(["face", "cup", "cat", "car"]),
        wrong=np.arange(5),
    )
    rows = ["who,group,file,answer"]
    rows += [f"{who},{'a' if who < 3 else 'b'},{name}.png,{who}" for who in (3, 1) for name in names * 2]
    rows[-1] = rows[-1].removesuffix("1")  # no answer
    (folder / "trials.csv").write_text("\n".join(rows) + "\n")
    text = SPEC
    for key, file in (("PICTURES", "pictures.zip"), ("RATES", "rates.npz"), ("TRIALS", "trials.csv")):
        text = text.replace(f"{key}_BYTES", str((folder / file).stat().st_size))
        text = text.replace(f"{key}_SUM", sha256_of(folder / file))
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


def test_labels_names_and_groups_come_with_responses(small):
    data = catalogue.load(str(small), small.parent)
    raw = np.load(small.parent / "shared_folder" / "rates.npz")
    responses = validate_responses(data["responses"])
    np.testing.assert_array_equal(responses.values, raw["raw"].transpose(1, 2, 0))
    assert responses["neuron"].values.tolist() == ["n00", "n01", "n02"]
    assert responses["region"].values.tolist() == ["V1", "V4", "V4"]
    assert data.ids.tolist() == ["car1", "car2", "cat1", "cat2", "cup1", "cup2", "face1", "face2"]
    assert responses["kind"].values.tolist() == ["car", "car", "cat", "cat", "cup", "cup", "face", "face"]
    assert responses["number"].values.tolist() == [1, 2] * 4
    assert responses["half"].values.tolist() == ["first"] * 4 + ["second"] * 4
    assert stimulus_groups(responses).tolist() == [0, 1, 2, 3, 4, 5, 6, 4]
    one = validate_responses(data["one"])
    np.testing.assert_array_equal(one.values[:, 0], raw["one"])
    assert one["neuron"].values.tolist() == ["lonely"]


def test_one_row_for_several_pictures(small):
    kinds = catalogue.load(str(small), small.parent)["kinds"]
    assert kinds["stimulus"].values.tolist() == ["car", "cat", "cup", "face"]
    assert kinds.sel(stimulus="face").values.tolist() == [0, 1]  # the file's rows run the other way
    assert kinds["n_images"].values.tolist() == [2] * 4
    assert "number" not in kinds.coords  # differs between the pictures of a row
    assert "group" not in kinds.coords


def test_trials_are_numbered_within_subject_and_picture(small):
    choices = catalogue.load(str(small), small.parent)["choices"]
    assert choices.sizes == {"subject": 2, "stimulus": 8, "repetition": 2}
    assert choices["population"].values.tolist() == ["b", "a"]
    assert (choices.sel(subject="3") == 3).all()
    assert np.isnan(choices.sel(subject="1", stimulus="face2").values).tolist() == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "variable", "words"),
    [
        ('map: {"1": V1, "2": V4}', 'map: {"1": V1}', "responses", "lacks '2'"),
        ("key: area, map", "key: wrong, map", "responses", "lacks '0'"),
        ('key: area, map: {"1": V1, "2": V4}', "key: wrong", "responses", "5 values for 3"),
        ("'^([a-z]+)'", "'^([A-Z]+)'", "responses", "does not fit the id 'car1'"),
        ("'(\\d+)$', number", "'([a-z])\\d$', number", "responses", "no whole number"),
        ("each: 4", "each: 3", "responses", "6 values for 8 stimuli"),
        ("rows: kind", "rows: kinds", "kinds", "go by 'kinds'; nearest: 'kind'"),
        ("{population: group}", "{population: file}", "choices", "several values for"),
        ("columns: {subject:", "columns: {stimulus:", "choices", "several values for 'car1'"),
        ("columns: {subject:", "columns: {time:", "choices", "along the dims of index"),
        ("      number: repetition\n", "", "choices", "repeat a combination"),
        ("expand: {neuron: lonely}", "expand: {stimulus: lonely}", "one", "already a dim"),
        ("key: area, map: {", "key: area, format: {", "responses", "format"),
    ],
)
def test_what_does_not_fit_is_named(small, old, new, variable, words):
    text = small.read_text()
    assert old in text
    small.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        catalogue.load(str(small), small.parent)[variable]


def test_a_label_that_contradicts_the_file_is_an_error(small):
    text = small.read_text().replace(
        "      region: {dim: neuron", "      half: {dim: stimulus, key: one}\n      region: {dim: neuron"
    )
    small.write_text(text)
    with pytest.raises(DataError, match="'half' and the stimuli's label"):
        catalogue.load(str(small), small.parent)["responses"]


@pytest.mark.parametrize(
    ("stimuli", "words"),
    [
        ("{source: conditions, order: any, ids: [a, a]}", "distinct ids"),
        ("{source: conditions, order: any, ids: 'c{}'}", "distinct ids"),
        ("{source: conditions, order: any}", "need the key 'ids'"),
        ("{source: conditions, order: any, ids: [a], labels: {k: {key: x, each: 2}}}", "goes with values"),
        ("{source: conditions, order: any, ids: [a], labels: {k: {pattern: x, of: y}}}", "exactly one of"),
    ],
)
def test_conditions_that_are_none_are_named(tmp_path, stimuli, words):
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\ntitle: t\ndescription: d\nlicence: l\ncitation: c\nstimuli: {stimuli}\n")
    with pytest.raises(DataError, match=words):
        catalogue.spec(str(path))


READ = """
name: mine
title: a session of my own
description: trials of four pictures
licence: none
citation: nobody
folder: shared_folder
files:
  session: {path: FILE, bytes: BYTES, sha256: SUM, by_hand: recorded}
stimuli:
  source: conditions
  order: by name
  ids: [car, cat, cup]
  labels:
    name: {values: [car, cat, cup]}
variables:
  spikes:
    kind: responses
    description: spikes in each trial
    dims: DIMS
    units: spikes
    source:
      file: session
      read: OPTIONS
    attrs: {region: V4}
"""


def described(folder, file, dims, options):
    """A data set of one recording, and its path."""
    path = folder / "shared_folder" / file
    text = READ.replace("FILE", file).replace("BYTES", str(path.stat().st_size)).replace("SUM", sha256_of(path))
    (folder / "mine.yaml").write_text(text.replace("DIMS", dims).replace("OPTIONS", options))
    return catalogue.load(str(folder / "mine.yaml"), folder)


def test_a_spec_reads_a_table_of_trials(tmp_path):
    (tmp_path / "shared_folder").mkdir()
    rows = "picture,trial,v1,v2\ncup,1,3,0\ncat,2,1,1\ncup,3,5,2\ncar,4,0,0\n"
    (tmp_path / "shared_folder" / "trials.csv").write_text(rows)
    data = described(tmp_path, "trials.csv", "[stimulus, repetition, neuron]", "{stimulus: picture}")
    spikes = validate_responses(data["spikes"])
    assert spikes["stimulus"].values.tolist() == ["car", "cat", "cup"]  # the order of the ids, not of the table
    assert spikes["name"].values.tolist() == ["car", "cat", "cup"]
    np.testing.assert_array_equal(spikes.sel(stimulus="cup").values, [[3, 0], [5, 2]])
    assert spikes.attrs["source"] == "trials.csv"
    assert spikes.attrs["region"] == "V4"
    with pytest.raises(DataError, match=r"variable 'spikes'.*no column 'pictures'; nearest: 'picture'"):
        described(tmp_path, "trials.csv", "[stimulus, repetition, neuron]", "{stimulus: pictures}")["spikes"]
    with pytest.raises(DataError, match="the spec says"):
        described(tmp_path, "trials.csv", "[stimulus, neuron]", "{stimulus: picture}")["spikes"]
    with pytest.raises(DataError, match="read says all of how a recording is read, so key goes inside"):
        described(tmp_path, "trials.csv", "[stimulus, repetition, neuron]", "{stimulus: picture}\n      key: v1")


def test_a_spec_reads_time_bins_of_spikes(tmp_path):
    pytest.importorskip("pynwb", reason="pynwb is not installed: pip install 'actkit[nwb]'")
    import datetime
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(hdmf|pynwb)(\.|$)")
        from pynwb import NWBHDF5IO, NWBFile

        began = datetime.datetime(2021, 3, 25, tzinfo=datetime.UTC)
        nwb = NWBFile(session_description="a", identifier="b", session_start_time=began)
        nwb.add_trial_column(name="picture", description="what was shown")
        nwb.add_unit(spike_times=[1.01, 1.06, 1.061, 3.02])
        for i, picture in enumerate(["cup", "cat", "car"]):
            nwb.add_trial(start_time=1.0 + i, stop_time=1.5 + i, picture=picture)
        (tmp_path / "shared_folder").mkdir()
        with NWBHDF5IO(str(tmp_path / "shared_folder" / "x.nwb"), "w") as file:
            file.write(nwb)
    options = "{stimulus: picture, window: [0, 100], bin_ms: 50}"
    spikes = described(tmp_path, "x.nwb", "[stimulus, repetition, neuron, time]", options)["spikes"]
    assert spikes["time"].values.tolist() == [25, 75]
    assert spikes["time"].attrs["units"] == "ms"
    assert spikes.sel(stimulus="cup").values.ravel().tolist() == [1, 2]
    assert spikes.sel(stimulus="car").values.ravel().tolist() == [1, 0]
    assert spikes.attrs["window_stop_ms"] == 100


# ------------------------------------------------------------------ data sets on disk


@needs("cowley2023_v4")
@pytest.mark.parametrize("session", SESSIONS)
def test_v4_sessions(session):
    neurons, pictures = SESSIONS[session]
    data = catalogue.load(f"cowley2023_v4_{session}")
    assert catalogue.check(data.name) == []
    means = validate_responses(data["averages"])
    assert means.sizes == {"stimulus": pictures, "neuron": neurons}
    assert means["stimulus"].values.tolist() == [f"image{i + 1:04d}" for i in range(pictures)]
    raw = np.load(Path(DATA, "cowley2023_v4", f"responses_avg_{session}.npy"))
    np.testing.assert_array_equal(means.values, raw.T)
    # picture k of the archive is row k - 1, whatever the order in which the archive lists them
    with zipfile.ZipFile(Path(DATA, "cowley2023_v4", f"images_{session}.zip")) as archive:
        for row in (0, 9, pictures - 1):
            with archive.open(f"image{row + 1:04d}.jpg") as file:
                expected = np.asarray(Image.open(file).convert("RGB"))
            np.testing.assert_array_equal(np.asarray(data.stimuli.image(row)), expected)
    groups = stimulus_groups(means)
    assert len(np.unique(groups)) == (900 if session == "190925" else pictures)
    if session != "210325":
        with pytest.raises(DataError, match="averages alone"):
            n_repetitions(means)


@needs("cowley2023_v4")
def test_v4_copies_are_the_300_pictures_stored_twice():
    data = catalogue.load("cowley2023_v4_190925")
    groups = data["averages"]["group"].values
    _, sizes = np.unique(groups, return_counts=True)
    assert np.bincount(sizes).tolist() == [0, 600, 300]
    for group in np.flatnonzero(sizes == 2)[:5]:
        one, other = np.flatnonzero(groups == np.unique(groups)[group])
        np.testing.assert_array_equal(np.asarray(data.stimuli.image(one)), np.asarray(data.stimuli.image(other)))


@needs("cowley2023_v4")
@pytest.mark.parametrize("session", SESSIONS)
def test_v4_groups_are_pictures_of_the_same_bytes(session):
    import hashlib

    data = catalogue.load(f"cowley2023_v4_{session}")
    with zipfile.ZipFile(Path(DATA, "cowley2023_v4", f"images_{session}.zip")) as archive:
        sums = [hashlib.sha256(archive.read(f"{identifier}.jpg")).hexdigest() for identifier in data.ids]
    groups = stimulus_groups(data["averages"])
    # each group has one sum and each sum one group
    assert len(set(zip(groups.tolist(), sums, strict=True))) == len(set(sums)) == len(set(groups.tolist()))


@needs("cowley2023_v4")
def test_v4_presentations():
    data = catalogue.load("cowley2023_v4_210325")
    responses = validate_responses(data["responses"])
    counts = n_repetitions(responses)
    assert (counts.values.min(), counts.values.max(), counts.values.mean()) == (6, 10, 7.5625)
    assert (counts == counts.isel(neuron=0)).all()  # all neurons lack the same presentations
    np.testing.assert_allclose(average(responses).values, data["averages"].values, rtol=1e-12)
    labels = Path(DATA, "cowley2023_v4", "hvm640_labels.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in labels]
    assert [f"{name}.jpg" for name in responses["stimulus"].values] == [name for _, name, _ in rows]
    assert responses["object"].values.tolist() == [label for _, _, label in rows]


@needs("kar2019_it_neuron_hvm640")
def test_it_site():
    import h5py

    data = catalogue.load("kar2019_it_neuron_hvm640")
    assert catalogue.check(data.name) == []
    responses = validate_responses(data["responses"])
    assert responses.sizes == {"stimulus": 640, "repetition": 63, "neuron": 1}
    with h5py.File(Path(DATA, data.name, "sample_neuron.h5")) as file:
        np.testing.assert_array_equal(responses.values[:, :, 0], file["rates"][()])
    assert has_repetitions(responses)
    assert set(np.flatnonzero(responses["object"] == "face")) == set(range(160, 240))
    assert "inferred" in responses.attrs["note"]


@needs("zhang_desimone_it_7objects")
def test_seven_objects_have_no_pictures():
    data = catalogue.load("zhang_desimone_it_7objects")
    assert catalogue.check(data.name) == []
    with pytest.raises(DataError, match="no pictures: its 21 stimuli are conditions"):
        _ = data.stimuli
    responses = validate_responses(data["responses"])
    assert responses.sizes == {"stimulus": 21, "repetition": 20, "neuron": 132}
    for stimulus, thing, place in zip(
        responses["stimulus"].values, responses["object"].values, responses["place"].values, strict=True
    ):
        assert stimulus == f"{thing} {place}"
    assert (data.labels["object"] == responses["object"]).all()
    missing = responses.isnull().sum(("stimulus", "repetition"))
    assert missing.values.sum() == 7
    assert set(responses["session"].values[missing.values > 0]) == {"1006"}
    with np.load(Path(DATA, data.name, "counts.npz")) as file:
        expected = file["counts_100_300ms"][5, 2, 1]  # face, middle
    np.testing.assert_array_equal(
        responses.values[responses["stimulus"].values.tolist().index("face middle"), :, 5], expected
    )


@needs("zhang_desimone_it_7objects")
def test_seven_objects_counted_anew_from_the_rasters():
    import scipy.io

    responses = catalogue.load("zhang_desimone_it_7objects")["responses"]
    lacking = responses.isnull().any(("stimulus", "repetition")).values
    with zipfile.ZipFile(Path(DATA, "zhang_desimone_it_7objects", "rasters_132_units.zip")) as archive:
        for neuron in (0, 77, int(lacking.argmax())):
            name = str(responses["neuron"].values[neuron])
            unit = scipy.io.loadmat(io.BytesIO(archive.read(f"{name}_raster_data.mat")), simplify_cells=True)
            labels = unit["raster_labels"]
            shown = [f"{a} {b}" for a, b in zip(labels["stimulus_ID"], labels["stimulus_position"], strict=True)]
            onset = unit["raster_site_info"]["alignment_event_time"] - 1  # MATLAB counts from 1
            counts = bin_spikes(unit["raster_data"], [(100, 300)], onset=onset)
            anew = from_trials(counts, shown, stimuli=responses["stimulus"].values.tolist(), neurons=[name])
            np.testing.assert_array_equal(anew.values[:, :, 0], responses.values[:, :, neuron])


@needs("zhang_desimone_it_7objects")
def test_seven_objects_over_time():
    """Bins of the rasters add up to the counts that the package's users know, for all neurons."""
    data = catalogue.load("zhang_desimone_it_7objects")
    course, counts = validate_responses(data["time_course"]), data["responses"]
    assert course.sizes == {"stimulus": 21, "repetition": 20, "neuron": 132, "time": 50}
    assert course["neuron"].values.tolist() == counts["neuron"].values.tolist()
    assert course["session"].values.tolist() == course["session_ID"].values.astype(str).tolist()
    assert (course["object"] == counts["object"]).all()
    assert course["time"].values[[0, -1]].tolist() == [-490, 490]
    assert course["time"].attrs["units"] == "ms"
    within = course.sel(time=slice(100, 300)).sum("time", skipna=False)
    np.testing.assert_array_equal(within.values, counts.values)

    def tuning(start, stop):
        """Variance between conditions beyond that of noise, in spikes², mean over neurons."""
        trials = course.sel(time=slice(start, stop)).sum("time", skipna=False)
        noise = (trials.var("repetition", ddof=1) / trials.notnull().sum("repetition")).mean("stimulus")
        return float((trials.mean("repetition").var("stimulus", ddof=1) - noise).mean())

    # nobody is tuned to a picture that has not come on: a shift of the onset would show
    assert abs(tuning(-300, -100)) < 0.05
    assert abs(tuning(-200, 0)) < 0.05
    assert tuning(100, 300) == pytest.approx(1.21, abs=0.01)


@needs("bonner2021_object2vec")
def test_fmri_rows_are_categories_of_ten_pictures():
    import scipy.io

    data = catalogue.load("bonner2021_object2vec")
    assert catalogue.check(data.name) == []
    assert len(data.stimuli) == 810
    folder = Path(DATA, data.name)
    for name, file, voxels in [
        ("subject_1_ten_regions", "subj001_10rois_roistack.mat", 1870),
        ("subject_1", "subj001_LOC_PPA_roistack.mat", 200),
        ("subject_2", "subj002_LOC_PPA_roistack.mat", 200),
    ]:
        stack = scipy.io.loadmat(folder / file, simplify_cells=True)["roistack"]
        responses = validate_responses(data[name])
        assert responses.sizes == {"stimulus": 81, "neuron": voxels}
        assert responses["stimulus"].values.tolist() == sorted(stack["conds"])
        np.testing.assert_array_equal(responses.sel(stimulus=list(stack["conds"])).values, stack["betas"])
        assert responses["region"].values.tolist() == [stack["rois"][i - 1] for i in stack["indices"]]
        assert (responses["n_images"] == 10).all()
        assert not has_repetitions(responses)
        if voxels == 200:
            np.testing.assert_array_equal(responses["split_half"].values, stack["split"])
    small = {tuple(column) for column in data["subject_1"].values.T.tolist()}
    assert small <= {tuple(column) for column in data["subject_1_ten_regions"].values.T.tolist()}
    folds = data["subject_1"]["fold"]
    for i, names in enumerate(scipy.io.loadmat(folder / "sets.mat", simplify_cells=True)["sets"]):
        assert set(names) == set(folds["stimulus"].values[folds.values == i])
    medians = data["subject_1"].coords["split_half"].groupby("region").median()
    assert medians.sel(region=["PPA", "LOC"]).values.round(2).tolist() == pytest.approx([0.79, 0.90], abs=0.006)


@needs("bonner2021_object2vec")
def test_fmri_ceilings_of_another_length_are_not_indexed():
    data = catalogue.load("bonner2021_object2vec")
    assert "split_half" not in data["subject_1_ten_regions"].coords
    source = Path(catalogue.__file__).parent / "bonner2021_object2vec.yaml"
    text = source.read_text(encoding="utf-8")
    wrong = text.replace('"s1_voxel{:04d}"}', '"s1_voxel{:04d}"}\n      split_half: {dim: neuron, key: roistack.split}')
    assert wrong != text
    from actkit.data_specs.data_set import DataSet
    from actkit.data_specs.schema import parse_spec

    with pytest.raises(DataError, match="1875 values for 1870"):
        DataSet(parse_spec(wrong), data.folder, {})["subject_1_ten_regions"]


@needs("bonner2021_object2vec")
def test_fmri_features_are_pooled_to_rows():
    import xarray as xr

    data = catalogue.load("bonner2021_object2vec")
    responses = data["subject_2"]
    order = xr.DataArray(np.arange(810.0), dims="stimulus", coords={"stimulus": data.ids})
    pooled = pool_stimuli(order, data.labels["category"], responses["stimulus"].values)
    for row in ("airplane", "vase"):
        own = np.flatnonzero([identifier.startswith(row) for identifier in data.ids])
        assert float(pooled.sel(stimulus=row)) == own.mean()
    with pytest.raises(InputError):
        pool_stimuli(order, responses["stimulus"].values)


@needs("kar2021_face_emotion")
def test_emotion_choices():
    import pandas as pd

    data = catalogue.load("kar2021_face_emotion")
    assert catalogue.check(data.name) == []
    choices = data["choices"]
    assert choices.sizes == {"subject": 33, "stimulus": 28, "repetition": 9}
    assert int(choices.isnull().sum()) == 150
    assert sorted(np.unique(choices["population"], return_counts=True)[1].tolist()) == [15, 18]
    table = pd.read_csv(Path(DATA, data.name, "trials.csv"))
    shown = table.groupby("image")[["identity", "happy_percent"]].first()
    for identifier, identity, happy in zip(
        data.ids, data.labels["identity"], data.labels["happy_percent"], strict=True
    ):
        assert tuple(shown.loc[f"{identifier}.png"]) == (identity, happy)
    means = table.groupby(["subject", "image"]).response_happy.mean()
    for subject, identifier in [("26", "SM3-fe50-ha50"), (str(table.subject.iloc[-1]), data.ids[7])]:
        got = float(choices.sel(subject=subject, stimulus=identifier).mean())
        assert got == pytest.approx(means[int(subject), f"{identifier}.png"], rel=1e-12)


@needs("geirhos2019_cue_conflict")
def test_cue_conflict_choices():
    import pandas as pd

    data = catalogue.load("geirhos2019_cue_conflict")
    assert catalogue.check(data.name) == []
    choices = data["choices"]
    shape, texture = data.labels["shape"], data.labels["texture"]
    assert choices.sizes == {"subject": 10, "stimulus": 1280}
    assert int((choices == "na").sum()) == 131
    assert int((choices == "").sum()) == 0
    assert (shape == texture).sum() == 80
    table = pd.read_csv(Path(DATA, data.name, "human_trials.csv"))
    shown = table.groupby("image")[["shape_category", "texture_category"]].first()
    for identifier, one, other in zip(data.ids, shape, texture, strict=True):
        assert tuple(shown.loc[f"{identifier}.jpg"]) == (one, other)
    answers = choices.values[:, shape != texture]
    by_shape = (answers == shape[shape != texture]).sum()
    by_texture = (answers == texture[shape != texture]).sum()
    assert by_shape / (by_shape + by_texture) == pytest.approx(0.959, abs=0.0005)
    times = data["reaction_times"]
    row = table.iloc[4321]
    assert float(times.sel(subject=row.subject, stimulus=row.image.removesuffix(".jpg"))) == row.rt_s
