"""Steps side by side in processes: the results of one, clear errors, nothing lost and nobody left over."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from actkit.errors import ActkitError, InputError
from actkit.study import run
from actkit.study_file import load_study
from actkit.study_jobs import LOCK, _environment, _handed, next_step
from actkit.study_manifest import read_manifest
from actkit.study_plan import Plan, Step, make_plan
from actkit.study_steps import Doing
from actkit.study_worker import attempt

CHILDREN = Path(f"/proc/{os.getpid()}/task")
needs_proc = pytest.mark.skipif(not CHILDREN.is_dir(), reason="finding the processes takes Linux's /proc")

TINY = {"tasks": {"digits": "digits"}, "size": 8, "channels": [4], "units": 6, "n_train": 40, "batch": 10}
STUDY = {
    "study": "jobs",
    "networks": [
        {"extractor": "pixels", "size": 8, "control": True},
        {"extractor": "dual_task_cnn", "name": "one", **TINY, "epochs": 20, "checkpoint_every": 1},
        {"extractor": "dual_task_cnn", "name": "two", **TINY, "epochs": 1, "seed": 1},
    ],
    "stimuli": "pictures",
    "record": {"layers": ["*"]},
    "analyses": [],
    "report": False,
}


def write(folder: Path, study: dict) -> Path:
    """Random pictures of two kinds, and a study of them."""
    rng = np.random.default_rng(0)
    for name in ("light", "dark"):
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            pixels = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + (100 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / name / f"{name}{i}.png")
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a study by name; of a store not the notes on when and in how many goes it was recorded."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in (LOCK, "zarr.json")]
    # What a killed process was writing stays behind under a hidden name that nothing reads.
    kept = [path for path in files if "journal" not in path.name and ".partial" not in str(path.relative_to(out))]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def children() -> set[int]:
    """Processes that this one started and that are still there."""
    return {int(word) for file in CHILDREN.glob("*/children") for word in file.read_text().split()}


@needs_proc
def test_a_killed_worker_says_so_and_the_next_run_ends_in_the_bytes_of_one_process(tmp_path: Path) -> None:
    study, out = write(tmp_path, STUDY), tmp_path / "out"
    before = children()

    def kill_in_training() -> None:
        while not list((out / "networks").glob("*.checkpoint.safetensors")):
            time.sleep(0.005)
        for process in children() - before:
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill_in_training)
    killer.start()
    with pytest.raises(ActkitError, match=r"the step '\w+ \w+' was killed \(SIGKILL\).*run the study again"):
        run(study, out, progress=False, jobs=2)
    killer.join()
    assert children() == before
    assert "network one" not in read_manifest(out)
    assert list((out / "networks").glob("*.checkpoint.safetensors"))

    lines: list[str] = []
    done = run(study, out, progress=False, jobs=2, say=lines.append)
    assert children() == before
    assert "network one" in done.computed
    assert len(lines) == 2 * len(done.computed)
    assert sum(line.endswith(" s") and ": done in " in line for line in lines) == len(done.computed)
    run(study, tmp_path / "alone", progress=False)
    assert contents(out) == contents(tmp_path / "alone")
    assert run(study, out, progress=False, jobs=2).computed == ()


@needs_proc
def test_an_error_in_a_step_is_that_of_one_process_and_what_is_finished_is_noted(tmp_path: Path) -> None:
    wrong = {
        **STUDY,
        "networks": STUDY["networks"][:1],
        "analyses": [{"decoding": {"labels": ["category"], "folds": 9}}],
    }
    before = children()
    said = []
    for jobs in (1, 2):
        with pytest.raises(ActkitError) as raised:
            run(write(tmp_path, wrong), tmp_path / f"out{jobs}", progress=False, jobs=jobs)
        said.append((type(raised.value), str(raised.value)))
        noted = read_manifest(tmp_path / f"out{jobs}")
        assert set(noted) == {"stimuli", "network pixels", "record pixels"}
    assert said[0] == said[1]
    assert "study.yaml, analyses, step 1 (decoding)" in said[1][1]
    assert "folds" in said[1][1]
    assert any("ran in another process" in note for note in raised.value.__notes__)
    assert children() == before


@needs_proc
def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    lines = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            assert len(children() - before) == 2
            raise KeyboardInterrupt

    study = write(tmp_path, {**STUDY, "networks": STUDY["networks"][:1]})
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "out", progress=False, jobs=2, say=stop)
    assert lines == ["[1/3] network pixels", "[2/3] stimuli"]
    assert children() == before
    assert read_manifest(tmp_path / "out") == {}


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_a_number_of_jobs_that_makes_no_sense_is_refused_before_anything_is_opened(jobs: object) -> None:
    with pytest.raises(InputError, match="jobs="):
        run("no such study", jobs=jobs)  # type: ignore[arg-type]


def step(id_: str, *inputs: str, **detail: object) -> Step:
    return Step(id_, id_.split()[0], inputs, (), "", detail=detail)


def test_networks_start_first_and_a_report_waits_for_everything(tmp_path: Path) -> None:
    class Spec:
        extractor = "cnn"

        def __init__(self, **options: object) -> None:
            self.options = options

    steps = [
        step("stimuli"),
        step("network a", network=Spec(seed=0)),
        step("record a", "stimuli", "network a"),
        step("network b", network=Spec(seed=1)),
        step("network c", network=Spec(seed=0)),
        step("report"),
    ]
    plan = Plan(None, tmp_path, tuple(steps))  # type: ignore[arg-type]
    stimuli, a, record, b, c, report = steps

    def started(done: set[str], running: list[Step]) -> Step | None:
        waiting = [one for one in steps if one.id not in done and one not in running]
        return next_step(plan, waiting, done, running)

    assert started(set(), []) is a
    assert started(set(), [a]) is b  # c is a under another name: it would train the same network beside it
    assert started(set(), [a, b]) is stimuli
    assert started({"network a", "stimuli"}, [b]) is c
    assert started({"network a", "stimuli"}, [b, c]) is record
    everything = {one.id for one in steps[:-1]}
    assert started(everything - {"network c"}, [c]) is None
    assert started(everything, []) is report
    assert started(everything | {"report"}, []) is None


class OddError(Exception):
    """An error that pickle cannot bring back: two arguments to make it, one to keep."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def test_an_error_that_cannot_be_sent_arrives_by_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(doing: Doing, step: Step) -> None:
        raise OddError("bread", "burnt")

    monkeypatch.setattr("actkit.study_worker.do", fail)
    plan = Plan(None, tmp_path, (step("rdm a"),))  # type: ignore[arg-type]
    error = pickle.loads(attempt(Doing(plan, None, None), "rdm a"))  # type: ignore[arg-type]
    assert type(error) is ActkitError
    assert str(error) == "rdm a: OddError: bread: burnt"
    assert 'raise OddError("bread", "burnt")' in error.__notes__[0]


def test_workers_take_over_the_drawn_stimuli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = {"dataset": "rendered_faces", "n_identities": 2, "n_exemplars": 3, "size": 16}
    study = {
        "study": "drawn",
        "networks": [{"extractor": "dual_task_cnn", "name": "n", "tasks": {"faces": faces}, "size": 16, "epochs": 1}],
        "stimuli": [faces],
    }
    plan, shop = make_plan(load_study(study), tmp_path, progress=False)
    fingerprint = shop.stimuli.fingerprint
    monkeypatch.setattr("actkit.data_specs.data_set.stimulus_function", None)  # drawing again fails
    _, arrived, command = pickle.loads(_handed(plan, shop, "actkit run"))
    assert command == "actkit run"
    assert arrived.stimuli.fingerprint == fingerprint
    assert arrived.network(plan["network n"].detail["network"]).name == "n"
    assert arrived.progress is False


def test_the_processors_are_shared_out_and_a_smaller_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "64")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    made = _environment(3)
    assert [made[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")] == ["1", "2", "2"]
    assert _environment(99)["MKL_NUM_THREADS"] == "1"
