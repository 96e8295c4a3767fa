"""A study that lesions matched units: planned, run, judged and reported, on drawn pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

import actkit
from actkit.errors import ActkitError, DataError, InputError
from actkit.study import StudyRun, run
from actkit.study_file import load_study
from actkit.study_lesion_matched import TaskSpec, made_task
from actkit.study_numbers import key_numbers
from actkit.study_plan import make_plan
from actkit.tasks import task_losses

FACES = {"n_identities": 2, "n_exemplars": 24, "size": 16, "nuisance": 0.3}
SEEN = {"dataset": "rendered_faces", "n_identities": 4, "n_exemplars": 8, "size": 16, "seed": 9}
TASK = {"dataset": "rendered_faces", "options": FACES, "label": "identity", "name": "face"}
STUDY = {
    "study": "loop",
    "networks": [
        {
            "extractor": "dual_task_cnn", "name": "net", "size": 16, "channels": [4, 8], "units": 8, "epochs": 8,
            "batch": 8,
            "tasks": {
                "face": {
                    "dataset": "rendered_faces", **FACES,
                    "sets": {"training": 12, "selectivity": 2, "ranking": 4, "evaluation": 6},
                }
            },
        }
    ],
    "stimuli": SEEN,
    "record": {"layers": ["features.relu1", "features.relu2"]},
    "recordings": {"A1": "neurons.nc"},
    "analyses": [
        {
            "lesion_matched": {
                "labels": "identity", "task": TASK, "n_random": 19, "n_bootstrap": 20, "folds": 2, "minimum": None,
            }
        }
    ],
}  # fmt: skip
STEP = "lesion_matched net A1 units"


def make(folder: Path, **changes: object) -> Path:
    """The study, and neurons that answer to pixels."""
    rng = np.random.default_rng(0)
    data = actkit.load_data(**{"name": "rendered_faces"} | {key: SEEN[key] for key in SEEN if key != "dataset"})
    stimuli = data.stimuli
    pixels = np.stack([np.asarray(stimuli.raw(i), dtype=float) for i in range(len(stimuli))])
    pixels = pixels.reshape(len(stimuli), -1)
    chosen = rng.choice(np.flatnonzero(pixels.std(0) > 20), 7, replace=False)
    values = pixels[:, chosen] + rng.normal(0, 5, (len(stimuli), 7))
    coords = {"stimulus": stimuli.ids, "neuron": [f"n{k}" for k in range(7)]}
    xr.DataArray(values, coords, ("stimulus", "neuron"), "responses").to_netcdf(folder / "neurons.nc")
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump({**json.loads(json.dumps(STUDY)), **changes}, sort_keys=False))
    return path


def step(**changes: object) -> list[dict]:
    """The one analysis, changed."""
    return [{"lesion_matched": {**STUDY["analyses"][0]["lesion_matched"], **changes}}]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """The study after a run."""
    folder = tmp_path_factory.mktemp("loop")
    return run(make(folder), folder / "out", progress=False)


def test_the_study_lesions_what_it_matched_and_measures_its_own_task(done: StudyRun) -> None:
    result = done.results[STEP]
    assert result.layer.values.tolist() == ["features.relu1", "features.relu2"]
    assert result.attrs["recording"] == "A1"
    assert result.attrs["network"] == "net"
    assert result.attrs["task"] == "face"
    plan, shop = make_plan(done.plan.study, done.out)
    spec = plan[STEP].detail["network"]
    task = made_task(shop, plan[STEP].detail["task"], spec, "here")
    losses = task_losses(shop.network(spec).module, task)["loss"]
    np.testing.assert_allclose(result.intact.sel(outcome="loss"), losses.mean(), rtol=1e-5)
    assert len(task) == 48
    assert all(one.state == "done" for one in plan.steps if one.kind != "report")


def test_tables_and_report_say_whether_the_excess_is_above_0(done: StudyRun) -> None:
    outputs = done.plan[STEP].outputs
    table = pd.read_csv(done.out / outputs[1])
    assert len(table) == 2 * 4
    assert {"layer", "outcome", "effect", "excess", "p_value"} <= set(table.columns)
    verdicts = pd.read_csv(done.out / outputs[2])
    assert set(verdicts.held) <= {"yes", "no", "undecided"}
    page = (done.out / "report.html").read_text()
    assert "Does the task need the matched units?" in page
    assert verdicts.finding[0].replace("'", "&#39;") in page or verdicts.finding[0] in page
    assert "Without matched units: net A1 units" in page
    assert "the network names" in page
    lines = key_numbers(done)
    assert sum("units that match A1" in line or "geometry further" in line for line in lines) == 2
    assert verdicts.held[0] in lines[0]
    assert "units that match A1" in lines[0]


def test_other_images_change_the_lesion_and_not_the_recording(tmp_path: Path, done: StudyRun) -> None:
    fewer = make(tmp_path, analyses=step(task={**TASK, "each": 10}))
    plan, shop = make_plan(load_study(fewer), done.out)
    assert plan[STEP].key != done.plan[STEP].key
    assert plan["record net"].key == done.plan["record net"].key
    spec = plan[STEP].detail["network"]
    assert len(made_task(shop, plan[STEP].detail["task"], spec, "here")) == 10


def test_sorted_labels_stand_for_outputs_where_there_are_as_many(done: StudyRun) -> None:
    plan, shop = make_plan(done.plan.study, done.out)
    detail = plan[STEP].detail
    named = made_task(shop, detail["task"], detail["network"], "here")
    shop.network(detail["network"]).provenance.pop("classes")
    sorted_ = made_task(shop, detail["task"], detail["network"], "here")
    np.testing.assert_array_equal(sorted_.targets, named.targets)
    more = TaskSpec(dataset="rendered_faces", options={**FACES, "n_identities": 3}, label="identity")
    with pytest.raises(InputError, match="has 3 values and 'net' 2 outputs"):
        made_task(shop, more, detail["network"], "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {**TASK, "label": "identiy"}}, "has no label 'identiy'"),
        ({"task": {key: TASK[key] for key in TASK if key != "dataset"}}, "give one of `dataset: NAME`"),
        ({"task": {**TASK, "lable": "identity"}}, "lable"),
        ({"data": "A2"}, "no recording 'A2'"),
        ({"labels": "identiy"}, "identiy"),
        ({"n_randoms": 3}, "unknown option 'n_randoms'"),
        ({"layers": ["features.relu9"]}, "features.relu9"),
        ({"readout": "features.relu9"}, "features.relu9"),
    ],
)
def test_mistakes_are_told_when_the_study_is_planned(tmp_path: Path, changes: dict, message: str) -> None:
    path = make(tmp_path, analyses=step(**changes))
    with pytest.raises(ActkitError, match=message):
        run(path, tmp_path / "out", dry_run=True)


@pytest.mark.skipif(not os.environ.get("ACTKIT_DATA"), reason="needs cowley2023_v4 and imagenet_sample_1000")
def test_the_shipped_study_plans_both_forms(tmp_path: Path) -> None:
    try:
        plan = run("lesion_matched", tmp_path, dry_run=True).plan
        quick = run("lesion_matched", tmp_path, dry_run=True, quick=True).plan
    except DataError as error:
        pytest.skip(f"the data are not in ACTKIT_DATA: {error}")
    steps = [one for one in plan.steps if one.kind == "lesion_matched"]
    assert [one.detail["options"].extent for one in steps] == ["channel", "unit"]
    assert all(one.detail["options"].n_random >= 100 for one in steps)
    assert [one.detail["options"].n_random for one in quick.steps if one.kind == "lesion_matched"] == [19, 19]
