"""A study of recorded neurons: planted units are matched, controlled, encoded, transferred, summed up and reported."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from PIL import Image

import actkit
from actkit.errors import ActkitError, DataError, InputError
from actkit.stimuli import as_stimuli
from actkit.study import StudyRun, run
from actkit.study_file import function, load_study
from actkit.study_numbers import key_numbers
from actkit.study_opening import Opener

KINDS, EACH, SECOND, NEURONS = ("animal", "tool"), 16, 24, 6
GABOR = {"extractor": "gabor", "size": 16, "frequencies": [2.0, 4.0], "grid": 4}
FEW = {"folds": 2, "n_permutations": 19}
STUDY = {
    "study": "planted",
    "networks": [{**GABOR, "name": "trained"}, {**GABOR, "name": "twin", "frequencies": [1.0, 6.0]}],
    "stimuli": [{"path": "one", "prefix": "one-"}, {"path": "two", "prefix": "two-"}],
    "recordings": {"A1": "trials.nc", "A2": "averages.nc"},
    "analyses": [
        {"ceiling": {"n_draws": 20}},
        {"match": {"networks": "twin", "data": "A1", "labels": "category", **FEW}},
        {
            "match": {
                "networks": "trained",
                "data": "A1",
                "labels": "category",
                **FEW,
                "controls": {
                    "rotation": {"n_rotations": 20},
                    "pools": {"n_draws": 4, "pool_size": 8},
                    "shuffle": {"n_draws": 19},
                    "location": {"n_draws": 19},
                    "untrained": {"network": "twin", "score": "r_mean"},
                },
            }
        },
        {"match": {"networks": "trained", "data": "A2", **FEW}},
        {"encode": {"folds": 2, "penalties": [0.1], "networks": "trained"}},
        {"transfer": {"networks": "trained", "data": "A1", "labels": "category", "n_permutations": 19}},
    ],
}


def make(folder: Path) -> Path:
    """Pictures of two sessions with like names; neurons that are units of a Gabor bank with noise."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (folder / "one" / kind).mkdir(parents=True)
        for i in range(EACH):
            _picture(rng, folder / "one" / kind / f"p{KINDS.index(kind) * EACH + i:02d}.png", kind)
    (folder / "two").mkdir()
    for i in range(SECOND):
        _picture(rng, folder / "two" / f"p{i:02d}.png", KINDS[i % 2])
    network = actkit.open_network("gabor", **{key: value for key, value in GABOR.items() if key != "extractor"})
    for name, file in (("one", "trials.nc"), ("two", "averages.nc")):
        stimuli = as_stimuli(folder / name)
        function("record")(network, stimuli, folder / f"{name}.zarr", progress=False)
        store = actkit.open_store(folder / f"{name}.zarr")
        units = np.asarray(store[store.layers[0]].values, dtype=np.float64).reshape(len(stimuli), -1)
        units = (units - units.mean(0)) / units.std(0)
        chosen = np.linspace(3, units.shape[1] - 3, NEURONS).astype(int)
        ids = [f"{name}-{one}" for one in stimuli.ids]
        neurons = [f"{name}_{k}" for k in range(NEURONS)]
        means = units[:, chosen]
        if file == "trials.nc":
            values = means[:, None] + rng.normal(0, 0.7, (len(ids), 5, NEURONS))
            values[::3, 4] = np.nan  # fewer presentations of every third picture
            dims = ("stimulus", "repetition", "neuron")
        else:
            values, dims = means + rng.normal(0, 0.3, means.shape), ("stimulus", "neuron")
        found = xr.DataArray(values, {"stimulus": ids, "neuron": neurons}, dims, "responses", {"region": "V4"})
        found.to_netcdf(folder / file)
        shutil.rmtree(folder / f"{name}.zarr")
    write(folder, STUDY)
    return folder


def _picture(rng: np.random.Generator, path: Path, kind: str) -> None:
    pixels = rng.integers(0, 256, (16, 16, 3))
    pixels[: 8 if kind == "animal" else 16 : 2] //= 4
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write(folder: Path, study: dict) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def study(**changes: object) -> dict:
    return {**json.loads(json.dumps(STUDY)), **changes}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, recordings and the study, not run."""
    return make(tmp_path_factory.mktemp("neurons"))


@pytest.fixture(scope="module")
def done(made: Path) -> StudyRun:
    """The study after a run."""
    return run(made / "study.yaml", made / "out", progress=False)


@pytest.fixture(scope="module")
def results(done: StudyRun) -> dict[str, xr.Dataset]:
    """Its results, read once."""
    return done.results


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The study to change, without what was computed."""
    for name in ("one", "two"):
        shutil.copytree(made / name, tmp_path / name)
    for name in ("trials.nc", "averages.nc", "study.yaml"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path


def test_everything_planned_is_there_and_nothing_is_done_twice(done: StudyRun) -> None:
    for step in done.plan.steps:
        assert pickle.loads(pickle.dumps(step)).id == step.id  # handed to other processes
        for name in step.outputs:
            assert (done.out / name).exists(), name
    ids = [step.id for step in done.plan.steps]
    assert "ceiling A1" in ids
    assert "ceiling A2" not in ids
    assert {f"control {name} trained A1" for name in ("rotation", "pools", "shuffle", "location", "untrained")} <= set(
        ids
    )
    assert done.plan.study.source == "study.yaml"
    assert run(done.plan.study.folder / "study.yaml", done.out, progress=False).computed == ()


def test_steps_give_what_their_functions_give(done: StudyRun, results: dict[str, xr.Dataset], made: Path) -> None:
    with xr.open_dataset(made / "trials.nc") as opened:
        responses = opened["responses"].load()
    rho = actkit.neuron_reliability(responses, n_draws=20)
    np.testing.assert_allclose(results["ceiling A1"]["reliability"], rho["reliability"])
    store = actkit.open_store(done.stores()["trained"])
    assert len(store.ids) == 2 * EACH + SECOND
    labels = {one: KINDS[int(one[5:]) // EACH] for one in responses["stimulus"].values.tolist()}
    match = actkit.match_units(store, responses, labels=labels, reliability=rho, **FEW)
    found = results["match trained A1"]
    for name in ("r_mean", "r_corrected", "unit", "null_99", "p_value"):
        np.testing.assert_allclose(found[name], match[name])
    assert found.attrs["network"] == "trained"
    assert found.attrs["null"] == "within_category"
    assert results["match trained A2"].attrs["null"] == "free"
    assert "r_corrected" not in results["match trained A2"]
    chosen = np.linspace(3, found.attrs.get("n_units", 12 * 16) - 3, NEURONS).astype(int)
    assert (np.sort(found["unit"].values[:, 0, 0])[[0, -1]] >= 0).all()
    assert float(found["r_mean"].min()) > 0.3, chosen  # the units are planted
    encoded = actkit.encode(store, responses, rho, folds=2, penalties=[0.1])
    np.testing.assert_allclose(results["encode trained A1"]["r"], encoded["r"])


def test_the_summary_holds_the_medians_of_each_result(done: StudyRun, results: dict[str, xr.Dataset]) -> None:
    table = pd.read_csv(done.out / "tables" / "neurons_A1.csv")
    assert table["network"].tolist() == ["trained", "twin"]
    match = results["match trained A1"]
    assert table["r"][0] == pytest.approx(float(match["median_r"][0]))
    assert table["r/√ρ"][0] == pytest.approx(float(np.nanmedian(match["r_corrected"])))
    assert table["beyond 99 % within category"][0] == pytest.approx(float(match["share_beyond"][0]))
    assert table["rotated"][0] == pytest.approx(float(results["control rotation trained A1"]["median_rotated"].mean()))
    assert table["linear r"][0] == pytest.approx(float(np.median(results["encode trained A1"]["r"])))
    assert table["transfer"][0] == pytest.approx(float(results["transfer trained A1 category"]["transfer"][0]))
    assert np.isnan(table["rotated"][1])
    assert (table["r low"] <= table["r"]).all()
    assert (table["r"] <= table["r high"]).all()
    other = pd.read_csv(done.out / "tables" / "neurons_A2.csv")
    assert "r/√ρ" not in other
    assert "transfer" not in other


def test_findings_are_judged_by_their_rule(done: StudyRun) -> None:
    table = pd.read_csv(done.out / "tables" / "findings_A1.csv")
    assert table["network"].unique().tolist() == ["trained"]  # the twin is a control
    text = " ".join(table["finding"])
    for words in (
        "shared category",
        "untrained twin",
        "mixtures",
        "its own",
        "in the map",
        "linear map",
        "above chance",
    ):
        assert words in text
    judged = table[table["low"].notna()]
    assert len(judged) >= 5
    for _, row in judged.iterrows():
        above = "yes" if row["low"] > row["boundary"] else "no" if row["high"] < row["boundary"] else "undecided"
        assert row["held"] == above, row["finding"]
    for _, row in table[table["low"].isna()].iterrows():
        p = float(row["measured"].rpartition("p = ")[2])
        assert (row["held"] == "yes") == (p <= 0.05), row["finding"]
    # Units were planted in the first network alone, so it is beyond its twin.
    assert table.loc[table["finding"].str.contains("untrained twin"), "held"].tolist() == ["yes"]
    assert table.loc[table["finding"].str.contains("its own"), "held"].tolist() == ["yes"]


def test_the_report_says_what_a_recording_lacks(done: StudyRun) -> None:
    html = (done.out / "report.html").read_text()
    for words in (
        "Findings in the neurons",
        "Neurons of A1",
        "Neurons of A2",
        "holds averages alone",
        "4 to 5 present",
    ):
        assert words in html, words
    assert html.count("no reliability was estimated") == 1
    text = "\n".join(key_numbers(done))
    assert "neurons of A1" in text
    assert "beyond the null: " in text
    assert "% within category" in text
    for name in (
        "neurons_A1",
        "neurons_A1_profile",
        "neurons_A1_match",
        "neurons_A1_controls",
        "neurons_A1_map",
        "neurons_A1_transfer",
    ):
        words, _, alt = (done.out / "figures" / f"{name}.txt").read_text().strip().rpartition("\n\n")
        assert len(words) > 80, name
        assert len(alt) > 40, name


def test_a_change_computes_again_only_what_depends_on_it(made: Path, done: StudyRun, tmp_path: Path) -> None:
    out = Path(shutil.copytree(done.out, tmp_path / "out"))

    def todo(content: dict) -> set[str]:
        path = made / "changed.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return {step.id for step in run(path, out, dry_run=True).plan.steps if step.state != "done"}

    content = study()
    content["analyses"][2]["match"]["controls"]["shuffle"]["n_draws"] = 29
    after = {"neurons A1", "figures neurons A1", "report"}
    assert todo(content) == {"control shuffle trained A1", *after}
    content = study()
    content["analyses"][0]["ceiling"]["n_draws"] = 30
    changed = todo(content)
    assert {"ceiling A1", "match trained A1", "transfer trained A1 category", *after} <= changed
    assert not any("A2" in name or name.startswith(("record", "network")) for name in changed)
    (out / "results" / "pools_trained_A1.nc").unlink()  # as after a kill
    assert todo(study()) == {"control pools trained A1", "report"}


def test_a_changed_recording_reaches_its_match_and_no_other(folder: Path) -> None:
    first = run(folder / "study.yaml", folder / "out", dry_run=True).plan
    with xr.open_dataset(folder / "averages.nc") as opened:
        responses = opened["responses"].load()
    (responses + 1.0 * (responses["neuron"] == responses["neuron"][0])).rename("responses").to_netcdf(
        folder / "averages.nc"
    )
    second = run(folder / "study.yaml", folder / "out", dry_run=True).plan
    changed = {step.id for step in second.steps if step.key != first[step.id].key}
    assert {"match trained A2", "encode trained A2", "neurons A2"} <= changed
    assert not any("A1" in name for name in changed)


def test_a_step_may_be_about_some_of_the_stimuli(folder: Path) -> None:
    content = study(report=False)
    content["analyses"] = [
        {"match": {"data": "A1", "select": {"category": "tool"}, "name": "tools", "networks": "trained", **FEW}},
        {"match": {"data": "A1", "networks": "trained", **FEW}},
    ]
    done = run(write(folder, content), folder / "out", progress=False)
    assert done.results["match trained A1 tools"].sizes["stimulus"] == EACH
    assert done.results["match trained A1"].sizes["stimulus"] == 2 * EACH
    assert {"neurons A1 tools", "neurons A1"} <= {step.id for step in done.plan.steps}


def replaced(number: int, **values: object) -> list[dict]:
    content = study()["analyses"]
    kind = next(iter(content[number]))
    content[number][kind] = {**content[number][kind], **values}
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analyses": replaced(0, data="A2")}, r"step 1 \(ceiling\), data: A2 holds averages alone"),
        (
            {"analyses": [{"ceiling": {}}], "recordings": {"A2": "averages.nc"}},
            r"step 1 \(ceiling\): A2 holds averages alone",
        ),
        ({"analyses": replaced(0, networks="trained")}, r"step 1 \(ceiling\), networks: reliability is of the neurons"),
        ({"analyses": replaced(2, labels="categry")}, r"step 3 \(match\), labels: .*no label 'categry'; nearest"),
        (
            {"analyses": replaced(2, data=["A1", "A2"])},
            r"step 3 \(match\), labels: 24 of the 24 stimuli of 'A2' have no category, the first is 'two-p00'",
        ),
        ({"analyses": replaced(3, data="A3")}, r"step 4 \(match\), data: there is no recording 'A3'"),
        ({"recordings": {}}, r"step 1 \(ceiling\): the study names no recordings of neurons"),
        ({"recordings": {"A1": "trials.nc", "A2": 3}}, r"recordings, A2: 3 names no recording"),
        (
            {"recordings": {"A1": "trials.nc", "A 1": "x.nc", "A-1": "y.nc", "A_1": "z.nc"}},
            r"would have the same names",
        ),
        (
            {"analyses": replaced(2, controls=["rotatoin"])},
            r"step 3 \(match\).*no control 'rotatoin'; nearest: 'rotation'",
        ),
        ({"analyses": replaced(2, controls={"untrained": {}})}, r"untrained: which network is not said"),
        (
            {"analyses": replaced(2, controls={"untrained": "twinn"})},
            r"step 3 \(match\), controls, untrained: there is no network 'twinn'; nearest: 'twin'",
        ),
        (
            {"analyses": replaced(3, controls={"untrained": "twin"})},
            r"step 4 \(match\), controls, untrained: 'twin' is not matched with 'A2' here or before",
        ),
        (
            {"analyses": replaced(2, controls={"rotation": {"n_rotation": 3}})},
            r"step 3 \(match\), controls, rotation: unknown option 'n_rotation'; nearest: 'n_rotations'",
        ),
        ({"analyses": replaced(5, data="A2")}, r"step 6 \(transfer\), labels: 24 of the 24 stimuli of 'A2' have no"),
        (
            {"analyses": replaced(5, networks=["trained", "twin"])[5:]},
            r"step 1 \(transfer\): 'trained' is not matched with 'A1' before this step",
        ),
        (
            {"analyses": replaced(3, select={"category": "tool"})},
            r"step 4 \(match\), select: 0 of the 16 stimuli \(category tool\) are in the recording 'A2'",
        ),
    ],
)
def test_what_does_not_fit_names_its_place_before_anything_is_written(
    folder: Path, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=r"study\.yaml.*" + message):
        run(write(folder, study(**changes)), folder / "out", progress=False)
    assert not (folder / "out").exists()


def test_a_recording_without_the_stimuli_says_which_ids_it_has(folder: Path) -> None:
    content = study()
    content["stimuli"][0]["prefix"] = "first-"
    message = (
        r"study\.yaml, recordings, A1: 'trials\.nc' and the study's stimuli share 0 ids.*like 'one-p00'.*'first-p00'"
    )
    with pytest.raises(DataError, match=message):
        run(write(folder, content), folder / "out", progress=False)
    content["recordings"]["A1"] = "nothing.nc"
    with pytest.raises(DataError, match=r"recordings, A1: there is no file"):
        run(write(folder, content), folder / "out", progress=False)


def test_sets_with_like_ids_need_a_prefix(folder: Path) -> None:
    content = study()
    for item in content["stimuli"]:
        del item["prefix"]
    with pytest.raises(ActkitError, match=r"study\.yaml, stimuli: two stimuli have the id 'p00'"):
        run(write(folder, content), folder / "out", dry_run=True)


def test_measured_data_of_a_set_follow_its_prefix(tmp_path: Path) -> None:
    faces = {"dataset": "rendered_faces", "n_identities": 3, "n_exemplars": 3, "size": 16, "prefix": "drawn-"}
    content = {"study": "prefixed", "networks": ["pixels"], "stimuli": [faces], "analyses": []}
    from actkit.study_workshop import Workshop

    shop = Workshop(load_study(content), tmp_path, False)
    assert all(one.startswith("drawn-") for one in shop.stimuli.ids.tolist())
    truth = shop.data("truth", "")
    assert truth["stimulus"].values.tolist() == shop.stimuli.ids.tolist()
    assert isinstance(shop, Opener)


@pytest.mark.skipif(not os.environ.get("ACTKIT_DATA"), reason="needs the data set cowley2023_v4 in ACTKIT_DATA")
def test_the_shipped_study_plans_both_forms(tmp_path: Path) -> None:
    try:
        quick = run("arend2018_v4", tmp_path / "quick", dry_run=True, quick=True).plan
    except DataError as error:
        pytest.skip(f"cowley2023_v4 is not in ACTKIT_DATA: {error}")
    assert quick["match EfficientNet-Lite0 V4 210325"].detail["options"].n_permutations == 99
    assert "ceiling V4 210224" not in [step.id for step in quick.steps]
    units = 40 * 28 * 28 + 192 * 7 * 7
    assert quick["record untrained"].bytes == pytest.approx(320 * 4 * units, rel=0.01)
    whole = load_study("arend2018_v4")
    assert whole.record["untrained"].model_dump()["layers"] == [f"_blocks.{k}" for k in (2, 4, 7, 10, 14)]
    assert [spec.prefix for spec in whole.stimuli] == ["210325-", "210224-"]
