"""A study runs to the end, keeps what is right, computes again what is not, and goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from actkit.errors import ActkitError, DataError, InputError, StoreError
from actkit.recordings import category_rdms, rdm_dataset, select_stimuli
from actkit.results import load, save
from actkit.study import run
from actkit.study_file import function
from actkit.study_jobs import LOCK
from actkit.study_steps import mean_rank
from actkit.study_workshop import grouped

N = 10


def make(tmp_path: Path) -> Path:
    """Pictures in two categories, simulated subjects who see the categories, and a study of two networks."""
    rng = np.random.default_rng(0)
    for kind in ("animal", "tool"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for i in range(N // 2):
            pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8) + (100 if kind == "animal" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / kind / f"{kind}{i}.png")
    ids = [f"{kind}{i}" for kind in ("animal", "tool") for i in range(N // 2)]
    truth = np.array([[float(a[:3] != b[:3]) for b in ids] for a in ids])[np.triu_indices(N, 1)]
    vectors = truth + rng.normal(0, 0.5, (7, len(truth)))
    people = rdm_dataset(vectors, [f"s{i}" for i in range(7)], "subject", ids, "made up", "people", simulated=1)
    save(people, tmp_path / "people.nc")
    save(people.isel(subject=[0]).assign_attrs(name="one"), tmp_path / "one.nc")
    write(tmp_path, STUDY)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The study, not yet run."""
    return make(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study after a run, to be looked at and copied."""
    folder = make(tmp_path_factory.mktemp("finished"))
    run(folder / "study.yaml", folder / "out", progress=False)
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study: nothing in it hangs on where it lies."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


STUDY = {
    "study": "small",
    "record": {"batch": 1, "memory": "2kB"},
    "networks": [
        {"extractor": "gabor", "size": 16, "frequencies": [2.0, 4.0], "grid": 4},
        {"extractor": "pixels", "size": 8, "control": True},
    ],
    "stimuli": "pictures",
    "models": [{"label": "category", "name": "kinds"}],
    "analyses": [
        {"rsa": {"data": ["people.nc"], "n_draws": 20, "n_permutations": 50}},
        {"decoding": {"labels": ["category"], "folds": 2, "classifier": "nearest_centroid"}},
    ],
}


def write(folder: Path, study: dict) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def change(study: dict, **changes: object) -> dict:
    return {**json.loads(json.dumps(study)), **changes}


def digests(out: Path) -> dict[str, str]:
    """Every file of a study but the lock: name to sha256."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def comparable(files: dict[str, str]) -> dict[str, str]:
    """Leave out the notes of a store: when, how and in how many goes it was recorded. What was recorded stays."""
    return {name: digest for name, digest in files.items() if not name.endswith("zarr.json") and "journal" not in name}


def test_a_study_makes_stores_results_figures_tables_and_a_report(finished: Path) -> None:
    again = run(finished / "study.yaml", finished / "out", dry_run=True)
    for step in again.plan.steps:
        for name in step.outputs:
            assert (finished / "out" / name).exists(), name
    result = load(finished / "out" / "results" / "rsa_people.nc")
    assert list(result["model"].values) == ["gabor/output", "pixels", "kinds"]
    assert list(result["kind"].values) == ["layer", "control", "model"]
    assert float(result["mean"].sel(model="kinds")) > float(result["mean"].sel(model="pixels"))
    html = (finished / "out" / "report.html").read_text()
    assert "simulated" in html
    assert html.count("<img") == 2
    assert (finished / "out" / "study.yaml").read_text() == (finished / "study.yaml").read_text()
    assert set(again.stores()) == {"gabor", "pixels"}
    assert set(again.results) >= {"rsa people", "decoding gabor category"}


def test_another_run_computes_nothing_and_another_folder_gets_the_same_bytes(done: Path) -> None:
    before = digests(done / "out")
    assert run(done / "study.yaml", done / "out", progress=False).computed == ()
    assert digests(done / "out") == before
    run(done / "study.yaml", done / "other", progress=False)
    assert comparable(digests(done / "other")) == comparable(before)


def test_the_dry_run_writes_nothing_and_says_what_is_there(folder: Path, finished: Path) -> None:
    plan = run(folder / "study.yaml", folder / "out", dry_run=True).plan
    assert not (folder / "out").exists()
    assert plan["record gabor"].bytes is not None
    assert plan["record gabor"].bytes >= N * 12 * 4 * 4 * 4
    assert "to record" in plan.describe()
    words = run(finished / "study.yaml", finished / "out", dry_run=True).plan.describe()
    assert "all there" in words
    assert "to do" not in words


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"report": {"title": "Other"}}, {"report"}),
        (
            {
                "analyses": [
                    {"rsa": {"data": ["people.nc"], "n_draws": 20, "n_permutations": 50, "seed": 5}},
                    STUDY["analyses"][1],
                ]
            },
            {"rsa people", "figures rsa people", "report"},
        ),
        (
            {"networks": [STUDY["networks"][0], {**STUDY["networks"][1], "size": 4}]},
            {
                "network pixels",
                "record pixels",
                "rdm pixels correlation",
                "rsa people",
                "figures rsa people",
                "decoding pixels category",
                "figures decoding category",
                "report",
            },
        ),
        ({"models": [{"label": "category", "name": "other"}]}, {"rsa people", "figures rsa people", "report"}),
    ],
)
def test_a_change_runs_again_only_what_depends_on_it(done: Path, changes: dict, computed: set[str]) -> None:
    write(done, change(STUDY, **changes))
    assert set(run(done / "study.yaml", done / "out", progress=False).computed) == computed


def test_a_changed_picture_reaches_every_result_though_its_name_is_the_same(done: Path) -> None:
    before = load(done / "out" / "results" / "rdm_pixels_correlation.nc")
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8) - np.arange(16, dtype=np.uint8)[:, None]).save(
        done / "pictures" / "tool" / "tool0.png"
    )
    ran = run(done / "study.yaml", done / "out", progress=False)
    assert not any(step.startswith("network") for step in ran.computed)
    assert {"record pixels", "rsa people", "report"} <= set(ran.computed)
    after = load(done / "out" / "results" / "rdm_pixels_correlation.nc")
    assert not np.array_equal(before["dissimilarity"], after["dissimilarity"])


def test_changed_data_reach_the_comparison(done: Path) -> None:
    people = load(done / "people.nc")
    save(people.assign(dissimilarity=people["dissimilarity"] * -1), done / "people.nc")
    assert set(run(done / "study.yaml", done / "out", progress=False).computed) == {
        "rsa people",
        "figures rsa people",
        "report",
    }


@pytest.mark.parametrize("harm", ["remove", "edit"])
def test_an_output_that_was_removed_or_edited_is_made_again(done: Path, harm: str) -> None:
    before = digests(done / "out")
    file = done / "out" / "tables" / "rsa_people.csv"
    file.unlink() if harm == "remove" else file.write_text("nonsense")
    ran = run(done / "study.yaml", done / "out", progress=False)
    assert "rsa people" in ran.computed
    assert "record gabor" not in ran.computed
    assert digests(done / "out") == before


def test_outputs_that_the_study_no_longer_names_go_but_recordings_stay(done: Path) -> None:
    write(done, change(STUDY, networks=STUDY["networks"][:1], analyses=STUDY["analyses"][:1]))
    run(done / "study.yaml", done / "out", progress=False)
    assert not list((done / "out" / "results").glob("decoding*"))
    assert (done / "out" / "stores" / "pixels.zarr").is_dir()
    write(done, STUDY)
    assert "record pixels" not in run(done / "study.yaml", done / "out", progress=False).computed


def test_one_subject_has_no_ceiling_and_the_report_says_so(folder: Path) -> None:
    write(folder, change(STUDY, analyses=[{"rsa": {"data": ["one.nc"], "n_draws": 20, "n_permutations": 50}}]))
    run(folder / "study.yaml", folder / "out", progress=False)
    assert np.isnan(float(load(folder / "out" / "results" / "rsa_one.nc")["ceiling_lower"]))
    assert "there is no noise ceiling" in (folder / "out" / "report.html").read_text()


CHILD = """
import sys, time
import actkit.network
opened = actkit.network.open_network

def slow(*args, **options):
    network = opened(*args, **options)
    inner = network.preprocess
    def prepare(image):
        time.sleep(float(sys.argv[3]))
        return inner(image)
    prepare.describe = inner.describe
    network.preprocess = prepare
    return network

actkit.network.open_network = slow
from actkit.study import run
run(sys.argv[1], sys.argv[2], progress=False, say=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("moment", ["record gabor", "rsa people"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(folder: Path, finished: Path, moment: str) -> None:
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, str(folder / "child.py"), str(folder / "study.yaml"), str(folder / "out")]
    command.append("0.1" if moment == "record gabor" else "0")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert child.stdout is not None
    for line in child.stdout:
        if line.rstrip().endswith(moment):
            break
    if moment == "record gabor":  # let a block or two be written
        journal = folder / "out" / "stores" / "gabor.zarr" / "journal.jsonl"
        while child.poll() is None and not (journal.exists() and len(journal.read_text().splitlines()) > 2):
            time.sleep(0.01)
    child.kill()
    child.communicate()
    assert child.returncode == -9
    plan = run(folder / "study.yaml", folder / "out", dry_run=True).plan
    assert plan["stimuli"].state == "done"
    assert plan["record gabor"].state == ("resume" if moment == "record gabor" else "done")
    run(folder / "study.yaml", folder / "out", progress=False)
    assert comparable(digests(folder / "out")) == comparable(digests(finished / "out"))


def test_two_runs_in_one_folder_are_refused(folder: Path) -> None:
    from actkit.study_jobs import locked

    with locked(folder / "out"), pytest.raises(StoreError, match="another run is at work in"):
        run(folder / "study.yaml", folder / "out", progress=False)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"models": [{"label": "categry"}]},
            InputError,
            r"study\.yaml, analyses, step 1 \(rsa\), models: .*no label 'categry'; nearest: 'category'",
        ),
        (
            {"models": [{"label": "category", "groups": {"a": ["animal"]}}]},
            InputError,
            r"groups: 'tool' belongs to no group",
        ),
        (
            {"analyses": [{"rsa": {"data": ["judgements"]}}]},
            DataError,
            r"study\.yaml, analyses, step 1 \(rsa\), data: 'judgements' is no variable",
        ),
        (
            {"analyses": [{"decoding": {"labels": ["categry"]}}]},
            InputError,
            r"study\.yaml, analyses, step 1 \(decoding\), labels: .*'categry'; nearest",
        ),
        ({"record": {"layers": ["convv"]}}, InputError, r"study\.yaml, networks, item 1 \(gabor\), record: .*convv"),
        ({"networks": [{"extractor": "gabor", "size": 4}]}, InputError, r"study\.yaml, networks, item 1"),
        (
            {"analyses": [{"rsa": {"data": ["people.nc"], "select": {"categry": "tool"}}}]},
            InputError,
            r"study\.yaml, analyses, step 1 \(rsa\): select: the stimuli have no label 'categry'; nearest: 'category'",
        ),
        (
            {"analyses": [{"decoding": {"labels": ["category"], "select": {"category": ["tool", "tol"]}}}]},
            InputError,
            r"study\.yaml, analyses, step 1 \(decoding\): select: no stimulus has category 'tol'; nearest: 'tool'",
        ),
        (
            {"stimuli": {"path": "pictures", "select": {"category": "plant"}}},
            InputError,
            r"study\.yaml, stimuli: select: no stimulus has category 'plant'",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    folder: Path, changes: dict, kind: type, message: str
) -> None:
    write(folder, change(STUDY, **changes))
    with pytest.raises(kind, match=message):
        run(folder / "study.yaml", folder / "out", progress=False)
    assert not (folder / "out").exists()


def test_the_same_step_twice_with_other_options_keeps_both(folder: Path) -> None:
    rdm = [{"rdm": {"labels": "category"}}, {"rdm": {}}, {"rdm": {"method": "euclidean", "networks": ["pixels"]}}]
    twice = [{"rsa": {"data": ["people.nc"], "compare": compare}} for compare in ("pearson", "cosine")]
    write(folder, change(STUDY, analyses=[*twice, *rdm]))
    plan = run(folder / "study.yaml", folder / "out", dry_run=True).plan
    ids = [step.id for step in plan.steps]
    assert {"rsa people", "rsa people 2", "rdm pixels euclidean", "figures rdm gabor correlation 2"} <= set(ids)
    assert sum(name.startswith("rdm") for name in ids) == 3  # one for each network and set of options
    outputs = [name for step in plan.steps for name in step.outputs]
    assert len(outputs) == len(set(outputs))


def test_a_step_about_some_of_the_stimuli_takes_those_and_says_which(folder: Path) -> None:
    rows = [f"pictures/{kind}/{kind}{i}.png,{kind},{i % 2}" for kind in ("animal", "tool") for i in range(N // 2)]
    (folder / "table.csv").write_text("\n".join(["path,category,odd", *rows]) + "\n")
    few = {"n_draws": 20, "n_permutations": 50, "data": "people.nc"}
    analyses = [
        {"rsa": few | {"select": {"category": "animal"}}},
        {"decoding": {"labels": "category", "folds": 2, "classifier": "nearest_centroid", "select": {"odd": 0}}},
    ]
    more = [
        {"rsa": few | {"select": {"category": ["animal", "tool"], "odd": 1}, "name": "odd ones"}},
        {"rsa": few},
        {"decoding": {"labels": "category"}},
    ]
    study = change(STUDY, stimuli={"path": "table.csv"}, models=["odd", "category"], networks=STUDY["networks"][:1])
    plan = run(write(folder, {**study, "analyses": [*analyses, *more]}), folder / "out", dry_run=True).plan
    assert {step.id for step in plan.steps if step.kind in ("rsa", "decoding")} == {
        "rsa people category animal", "decoding gabor category odd 0", "rsa people odd ones", "rsa people",
        "decoding gabor category",
    }  # fmt: skip
    assert plan["rsa people odd ones"].detail["left_out"] == ["odd"]
    done = run(write(folder, {**study, "analyses": analyses}), folder / "out", progress=False)
    animals = done.results["rsa people category animal"]
    assert animals.attrs["data"] == "people (category animal)"
    # The label that all of them share says nothing of them.
    assert animals["model"].values.tolist() == ["gabor/output", "odd"]
    # As if nothing else had been recorded and measured.
    keep = [f"animal{i}" for i in range(N // 2)]
    rdms = select_stimuli(load(folder / "out" / "results" / "rdm_gabor_correlation.nc"), keep)
    odd = category_rdms({"odd": [i % 2 for i in range(N // 2)]}, keep)
    alone = function("rsa")(
        [rdms, odd], select_stimuli(load(folder / "people.nc"), keep), n_draws=20, n_permutations=50
    )
    np.testing.assert_array_equal(animals["mean"], alone["mean"])
    html = (folder / "out" / "report.html").read_text()
    assert "Compared with people (category animal)" in html
    assert "Compared over 5 of the 10 stimuli: category animal. category: the same for every pair" in html
    assert "Decoding category (odd 0)" in html
    assert "Of the 10 stimuli, 6: odd 0." in html
    assert "people (category animal)" in (folder / "out" / "figures" / "rsa_people_category_animal.txt").read_text()


def test_an_error_of_a_step_keeps_its_place_in_the_study(folder: Path) -> None:
    write(folder, change(STUDY, analyses=[{"decoding": {"labels": ["category"], "folds": 9}}]))
    with pytest.raises(ActkitError, match=r"^study\.yaml, analyses, step 1 \(decoding\): "):
        run(folder / "study.yaml", folder / "out", progress=False)


def test_groups_merge_values_and_refuse_what_is_twice_or_nowhere() -> None:
    values = np.array(["cat", "dog", "cup"])
    assert grouped(values, {"animal": ["cat", "dog"], "thing": ["cup"]}).tolist() == ["animal", "animal", "thing"]
    with pytest.raises(InputError, match="'cat' stands in 'a' and in 'b'"):
        grouped(values, {"a": ["cat", "dog"], "b": ["cat", "cup"]})
    with pytest.raises(InputError, match="no stimulus has the value 'cow'"):
        grouped(values, {"a": ["cow"]})


def test_subjects_are_averaged_by_rank() -> None:
    assert mean_rank(np.array([[1.0, 2.0, 300.0], [5.0, 4.0, 6.0]])).tolist() == [0.5, 0.5, 1.0]
