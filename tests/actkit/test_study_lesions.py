"""A study of lesions: networks from several seeds are trained, lesioned, summarised, drawn and reported for real."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from actkit import plugins
from actkit.errors import InputError
from actkit.study import StudyRun, run
from actkit.study_file import load_study
from actkit.study_numbers import key_numbers

SETS = {"training": 12, "selectivity": 2, "ranking": 4, "evaluation": 6}
FACES = {"dataset": "rendered_faces", "n_identities": 2, "n_exemplars": 24, "size": 16, "nuisance": 0.3, "sets": SETS}
OBJECTS = {
    "dataset": "rendered_objects",
    "categories": ["mug", "chair"],
    "n_members": 2,
    "n_exemplars": 12,
    "size": 16,
    "nuisance": 0.3,
    "sets": SETS,
}
NET = {
    "extractor": "dual_task_cnn",
    "size": 16,
    "channels": [6, 10],
    "units": 12,
    "epochs": 25,
    "batch": 8,
    "record": False,
}
STUDY = {
    "study": "tiny",
    "title": "A tiny study",
    "networks": [
        {**NET, "name": "dual", "seeds": 2, "tasks": {"face": FACES, "object": OBJECTS}},
        {**NET, "name": "twice", "seeds": [4], "tasks": {"face": FACES, "other": {**FACES, "seed": 5}}},
        {**NET, "name": "face", "record": True, "tasks": {"face": FACES}},
        {**NET, "name": "object", "record": True, "tasks": {"object": OBJECTS}},
    ],
    "stimuli": [
        {"dataset": "rendered_faces", "n_identities": 2, "n_exemplars": 4, "size": 16, "seed": 9},
        {"dataset": "rendered_objects", "categories": ["mug", "chair"], "n_members": 2, "n_exemplars": 2, "size": 16},
    ],
    "record": {"layers": ["fc1_relu"]},
    "analyses": [
        {
            "segregation": {
                "layers": ["features.relu*"],
                "control": "twice",
                "singles": ["face", "object"],
                "n_null": 3,
                "n_random": 3,
                "n_draws": 20,
                "n_splits": 2,
                "fractions": [0.2, 0.5],
            }
        },
        {"feature_visualization": {"layers": ["features.relu2"], "top": 2, "n_seeds": 1, "steps": 3}},
        {"decoding": {"labels": ["identity", "category"], "folds": 2, "classifier": "nearest_centroid"}},
    ],
    "quick": {"networks": [{"name": "dual", "seeds": 1}], "analyses": [{"segregation": {"n_null": 2}}]},
}


def study(**changes: object) -> dict:
    return {**json.loads(json.dumps(STUDY)), **changes}


def write(folder: Path, content: dict) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """The study after a run, to be looked at and copied."""
    folder = tmp_path_factory.mktemp("lesions")
    return run(write(folder, study()), folder / "out", progress=False)


@pytest.fixture(scope="module")
def results(done: StudyRun) -> dict[str, xr.Dataset]:
    """Its results, read once."""
    return done.results


def test_networks_are_lesioned_one_by_one_and_summarised_over_seeds(results: dict[str, xr.Dataset]) -> None:
    result = results["segregation over seeds"]
    assert result["group"].values.tolist() == ["dual", "twice"]
    assert result["network"].sel(group="dual").values.tolist() == ["dual-seed0", "dual-seed1"]
    single = [results[f"segregation dual-seed{seed}"] for seed in (0, 1)]
    assert single[0]["layer"].values.tolist() == ["features.relu1", "features.relu2"]
    assert single[0]["task"].values.tolist() == ["face", "object"]
    assert list(single[0].attrs["n_ranking"]) == [8, 8]
    assert list(single[0].attrs["n_evaluation"]) == [12, 12]
    assert single[0].attrs["n_null"] == 3
    mean = np.mean([one["index"].values for one in single], axis=0)
    np.testing.assert_allclose(result["index"].sel(group="dual"), mean, atol=1e-12)
    assert not np.array_equal(single[0]["score"], single[1]["score"])
    assert result.attrs["control"] == "twice"
    assert (result.attrs["early"], result.attrs["late"]) == ("features.relu1", "features.relu2")


def test_every_output_of_the_plan_is_there_and_nothing_is_done_twice(done: StudyRun) -> None:
    for step in done.plan.steps:
        for name in step.outputs:
            assert (done.out / name).exists(), name
    again = run(done.plan.study.folder / "tiny.yaml", done.out, progress=False)
    assert again.computed == ()
    ids = [step.id for step in done.plan.steps]
    assert len(set(ids)) == len(ids)
    assert "record dual-seed0" not in ids
    assert "record face" in ids
    for step in done.plan.steps:  # handed to other processes
        assert pickle.loads(pickle.dumps(step)).id == step.id


def test_the_findings_join_segregation_accuracies_and_decoding(done: StudyRun, results: dict[str, xr.Dataset]) -> None:
    table = pd.read_csv(done.out / "tables" / "segregation_findings.csv", keep_default_na=False)
    assert {"finding", "expected", "measured", "held", "paper"} <= set(table.columns)
    words = " ".join(table["finding"])
    assert "same-task control" in words
    assert "accurate on face" in words
    assert "accurate on object" in words
    decoded = table[table["finding"].str.contains("decoded better")]
    assert decoded["group"].tolist() == ["face", "object"]
    label = {"face": "identity", "object": "category"}
    for _, row in decoded.iterrows():
        mine, other = (
            float(results[f"decoding {name} {label[row['group']]}"]["accuracy"].values[-1])
            for name in (row["group"], "object" if row["group"] == "face" else "face")
        )
        assert float(row["estimate"]) == pytest.approx(mine - other)
    accuracies = pd.read_csv(done.out / "tables" / "accuracies.csv")
    assert accuracies["network"].tolist() == [
        "dual-seed0", "dual-seed0", "dual-seed1", "dual-seed1", "twice-seed4", "twice-seed4", "face", "object",
    ]  # fmt: skip
    note = json.loads((done.out / "networks" / "face.json").read_text())
    assert accuracies["held_out_accuracy"].iloc[6] == note["provenance"]["tasks"]["face"]["held_out_accuracy"]
    assert accuracies["n_held_out"].tolist() == [12] * 8


def test_top_units_are_visualised_for_each_task(done: StudyRun, results: dict[str, xr.Dataset]) -> None:
    segregation = results["segregation dual-seed0"].sel(layer="features.relu2")
    for task in ("face", "object"):
        result = results[f"feature_visualization dual-seed0 {task}"]
        rank = segregation["rank"].sel(ranking=task).values
        assert set(result["channel"].values.tolist()) == set(np.flatnonzero(rank <= 2).tolist())
        assert result.attrs["task"] == task
        assert (
            f"needed most for {task}"
            in (done.out / "figures" / f"feature_visualization_dual-seed0_{task}.txt").read_text()
        )


def test_report_and_terminal_begin_with_segregation(done: StudyRun, results: dict[str, xr.Dataset]) -> None:
    html = (done.out / "report.html").read_text()
    for words in ("Findings", "Held", "What the networks learnt", "Segregation over networks", "seed 1"):
        assert words in html
    assert "Segregation in dual-seed0" in html
    assert "Segregation in dual-seed1" not in html  # one network of a group is drawn on its own
    assert "quick form" not in html
    lines = key_numbers(done)
    assert lines[0].startswith("segregation at features.relu2, all outputs compete")
    text = "\n".join(lines)
    index = float(results["segregation over seeds"]["index"].sel(
        group="dual", layer="features.relu2", masking="unmasked"
    ))  # fmt: skip
    assert f"{abs(index):.2f}"[1:] in lines[0]
    assert "held-out accuracy" in text
    assert "null" in text


def test_a_change_of_the_lesions_trains_nothing_again(done: StudyRun, tmp_path: Path) -> None:
    out = Path(shutil.copytree(done.out, tmp_path / "out"))
    content = study()
    content["analyses"][0]["segregation"]["n_null"] = 4
    plan = run(write(tmp_path, content), out, dry_run=True).plan
    todo = {step.id for step in plan.steps if step.state != "done"}
    assert {"segregation dual-seed0", "segregation over seeds", "feature_visualization dual-seed0 face"} <= todo
    assert not any(name.startswith(("network", "record", "decoding")) for name in todo)
    content = study()
    content["networks"][0]["tasks"]["face"]["sets"]["ranking"] = 3
    todo = {step.id for step in run(write(tmp_path, content), out, dry_run=True).plan.steps if step.state != "done"}
    assert "segregation dual-seed0" in todo
    assert "segregation twice-seed4" not in todo


def test_the_plan_opens_each_data_set_once_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actkit import study_opening

    opened, fitted = [], []
    inner = study_opening.load_dataset

    def counted(name: str, root: Path | None, options: dict) -> object:
        opened.append((name, json.dumps(options, sort_keys=True)))
        return inner(name, root, options)

    monkeypatch.setattr(study_opening, "load_dataset", counted)
    trainer = importlib.import_module(plugins.load("actkit.extractors", "dual_task_cnn").__module__)
    fit = trainer.fit

    def noted(module: object, tasks: dict, rows: dict, options: object, *more: object) -> int:
        fitted.append((options.epochs, sum(len(one) for one in rows.values())))
        return fit(module, tasks, rows, options, *more)

    monkeypatch.setattr(trainer, "fit", noted)
    plan = run(write(tmp_path, study()), tmp_path / "out", dry_run=True).plan
    assert len(opened) == len(set(opened)) == 5
    assert len(fitted) == 4  # one copy a group, not one a seed
    assert all(epochs == 0 and images <= 8 for epochs, images in fitted)
    assert not (tmp_path / "out").exists()
    words = plan.describe()
    assert "segregation over seeds" in words
    assert "figures feature_visualization dual-seed0 object" in words


def test_the_quick_form_says_so_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = run(write(tmp_path, study()), dry_run=True, quick=True)
    assert quick.out == Path("actkit-tiny-quick")
    assert "A tiny study (quick form)" in quick.plan.describe()
    assert "network dual-seed1" not in [step.id for step in quick.plan.steps]
    assert quick.plan["segregation dual-seed0"].detail["options"].n_null == 2
    whole = run(tmp_path / "tiny.yaml", dry_run=True)
    assert whole.out == Path("actkit-tiny")
    assert whole.plan["report"].key != quick.plan["report"].key


def test_a_study_of_networks_that_are_only_lesioned_needs_no_stimuli(tmp_path: Path) -> None:
    content = study(
        networks=STUDY["networks"][:1], analyses=[{"segregation": {"layers": ["features.relu2"]}}], quick={}
    )
    del content["stimuli"], content["record"]
    ids = [step.id for step in run(write(tmp_path, content), tmp_path / "out", dry_run=True).plan.steps]
    assert ids == [
        "network dual-seed0", "network dual-seed1", "accuracies", "segregation dual-seed0", "segregation dual-seed1",
        "figures segregation dual-seed0", "segregation over seeds", "figures segregation over seeds", "report",
    ]  # fmt: skip


def lesions(**options: object) -> list[dict]:
    return [{"segregation": {**STUDY["analyses"][0]["segregation"], **options}}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analyses": lesions(layers=["features.rellu*"])}, r"step 1 \(segregation\), layers: .*features\.rellu\*"),
        (
            {"analyses": lesions(late="features.relu3")},
            r"step 1 \(segregation\), late: .features\.relu3. is not among .*features\.relu2",
        ),
        (
            {
                "analyses": [
                    *lesions(layers=["features.relu2"]),
                    {"feature_visualization": {"layers": ["features.relu1"]}},
                ]
            },
            r"step 2 \(feature_visualization\), layers: 'features\.relu1' is not lesioned",
        ),
        (
            {"analyses": [*lesions(), {"feature_visualization": {"top": 10, "n_seeds": 3}}]},
            r"step 2 \(feature_visualization\): .* 60 images, and a figure holds 48",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(tmp_path: Path, changes: dict, message: str) -> None:
    content = study(networks=STUDY["networks"], quick={}, **changes)
    with pytest.raises(InputError, match=r"tiny\.yaml, analyses, " + message):
        run(write(tmp_path, content), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({**SETS, "ranking": 99}, r"networks, item 1 \(dual-seed0\), tasks, face: class .* has 24 different pictures"),
        ({"training": 3}, r"tasks, face: per_class is"),
        ({**SETS, "ranking": "many"}, r"tasks, face: sets: .* is no mapping of set to number"),
    ],
)
def test_image_sets_that_cannot_be_cut_name_their_place(tmp_path: Path, sets: dict, message: str) -> None:
    content = study(quick={})
    content["networks"][0]["tasks"]["face"]["sets"] = sets
    with pytest.raises(InputError, match=message):
        run(write(tmp_path, content), tmp_path / "out", dry_run=True)


def test_a_network_that_learnt_nothing_is_named(tmp_path: Path) -> None:
    content = study(networks=[{**STUDY["networks"][0], "seeds": 1, "epochs": 0}], analyses=lesions(), quick={})
    del content["analyses"][0]["segregation"]["control"], content["analyses"][0]["segregation"]["singles"]
    del content["stimuli"], content["record"]
    with pytest.raises(InputError, match=r"step 1 \(segregation\), dual-seed0: .*not above chance"):
        run(write(tmp_path, content), tmp_path / "out", progress=False)


def test_load_study_is_what_the_run_uses() -> None:
    assert load_study(study()).members(["dual", "face"]) == ["dual-seed0", "dual-seed1", "face"]
