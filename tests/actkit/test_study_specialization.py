"""Studies of modules: a sweep, its measures, findings and report, from a study file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from actkit.errors import DataError, InputError
from actkit.results import load
from actkit.study import run
from actkit.study_file import load_study

SWEEP = {
    "data": "digits", "units": [6, 8], "p": [-1, 0.5, 0], "seeds": 2, "cov_ratios": [1, 0], "epochs": 2,
    "learning_rate": 0.005,
}  # fmt: skip
STUDY = {
    "study": "tiny",
    "analyses": [{"specialization": {"sweep": SWEEP, "epochs": 2, "masks": {"seeds": 1, "epochs": 1}}}],
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("modules")
    return run(written(folder), folder / "out", progress=False)


def test_a_sweep_is_trained_measured_and_judged(done) -> None:
    out = done.plan.out
    kinds = [step.kind for step in done.plan.steps]
    assert kinds == ["sweep", "specialization", "dynamics", "masks", "modules", "figures", "report"]
    table = pd.read_csv(out / "tables/modules.csv")
    # Two sizes, three p, two covariances for the first size and p: seven kinds, two seeds, trained and not.
    assert len(table) == 28
    assert set(table["connections"]) == {0, 1, 18, 32}
    measured = load(out / "results/specialization_modules.nc")
    assert measured.sizes["network"] == 28
    listed = table.set_index("network")["task_accuracy"][measured["network"].values.tolist()]
    assert measured["task_accuracy"].values.tolist() == pytest.approx(listed.tolist())
    assert set(measured["measure"].values) == {"retraining", "ablation", "correlation"}
    # Networks of both sizes keep their rows: a disconnected module cannot know the other digit.
    apart = measured.sel(measure="correlation").isel(time=-1).where(measured["p"] == 0, drop=True)
    assert apart.sizes["network"] == 8
    assert (apart["known"].sel(part="module 0", task="digit 1") < 0.1).all()
    dynamics = load(out / "results/dynamics_modules.nc")
    assert set(dynamics["cov_ratio"].values) == {1.0}
    assert dynamics.sizes["network"] == 24
    masks = load(out / "results/masks_modules.nc")
    assert set(masks["seed"].values) == {0}
    findings = pd.read_csv(out / "tables/findings_modules.csv", keep_default_na=False)
    assert findings["finding"].nunique() == 10
    assert {"6.", "9."} <= {name[:2] for name in findings.loc[findings["held"] != "not tested", "finding"]}


def test_the_report_says_what_held_and_draws_every_figure(done) -> None:
    page = (done.plan.out / "report.html").read_text(encoding="utf-8")
    for words in ("Which findings held?", "What each module knows", "S by retraining", "Béna", "before training"):
        assert words in page
    assert page.count("<figure") >= 4
    for kind in ("p", "q", "covariance", "dynamics"):
        assert any(kind in path.stem.lower() for path in (done.plan.out / "figures").glob("*.svg")), kind


def test_a_second_run_keeps_everything_and_a_changed_measure_keeps_the_networks(done, tmp_path) -> None:
    out = done.plan.out
    again = run(written(out.parent), out, progress=False)
    assert again.computed == ()
    changed = {**STUDY["analyses"][0]["specialization"], "epochs": 3}
    with_more = load_study({**STUDY, "analyses": [{"specialization": changed}]})
    from actkit.study_plan import make_plan

    states = {step.kind: step.state for step in make_plan(with_more, out)[0].steps}
    assert states["sweep"] == "done"
    assert states["specialization"] == "run"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": ["pixels"]}, "the sweep trains its own networks"),
        ({"sweep": {**SWEEP, "unit": [3]}}, "sweep.*unit"),
        ({"sweep": {**SWEEP, "p": [0.001]}}, "sweep.*is less than one"),
        ({"sweep": {**SWEEP, "units": []}}, "sweep.*units"),
        ({"figures": ["P"]}, "there is no figure 'P'"),
        ({"masks": {"seeds": 0}}, "masks, seeds: 0 is no number"),
        ({"mesures": []}, "unknown option 'mesures'"),
    ],
)
def test_mistakes_in_the_file_are_told_before_anything_is_trained(tmp_path, change, words) -> None:
    analyses = [{"specialization": {**STUDY["analyses"][0]["specialization"], **change}}]
    networks = change.pop("networks", None)
    extra = {"networks": networks, "stimuli": "digits"} if networks else {}
    if networks:
        analyses[0]["specialization"]["networks"] = networks
    with pytest.raises(InputError, match=words):
        run(written(tmp_path, analyses=analyses, **extra), tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").rglob("*.safetensors")) if (tmp_path / "out").exists() else True


def test_the_shipped_studies_are_whole() -> None:
    for name in ("bena_goodman_small", "bena_goodman"):
        for quick in (False, True):
            study = load_study(name, quick=quick)
            assert [step.kind for step in study.analyses] == ["specialization"]


def test_the_full_study_asks_for_its_data_before_anything_else(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="mnist"):
        run("bena_goodman", tmp_path / "out", progress=False)
