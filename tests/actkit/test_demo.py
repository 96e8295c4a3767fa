"""The demo in small: the shipped study with fewer pictures and one epoch runs to its report and finds the truth."""

from __future__ import annotations

from pathlib import Path

import yaml

from actkit.results import load
from actkit.study import run, shipped


def small() -> dict:
    """The shipped demo, cut in size but not in kind."""
    study = yaml.safe_load(shipped()["demo"].read_text())
    faces = {"dataset": "rendered_faces", "n_identities": 5, "n_exemplars": 8, "size": 16, "test": 0.5}
    for network in study["networks"]:
        if network["extractor"] == "dual_task_cnn":
            network |= {"tasks": {"faces": faces, "digits": "digits"}, "epochs": min(network.get("epochs", 1), 1)}
            network |= {"size": 16, "channels": [4, 8], "units": 16}
    study["stimuli"] = [
        {**faces, "select": {"split": "test"}},
        {"dataset": "digits", "select": {"split": "test"}, "each": 80},
    ]
    study["record"]["layers"] = ["fc1_relu", "head"]
    for step in study["analyses"]:
        for kind, options in step.items():
            options |= {
                "rsa": {"n_draws": 20, "n_permutations": 20},
                "decoding": {"folds": 2, "classifier": "nearest_centroid"},
            }.get(kind, {})
    return study


def test_the_demo_ends_in_a_report_that_says_simulated_and_finds_the_truth(tmp_path: Path) -> None:
    done = run(small(), tmp_path, progress=False)
    assert done.report is not None
    truths = {"identity observers": {"identity", "identity parameters"}, "light observers": {"light"}}
    for observers, truth in (truths | {"digit observers": {"digit"}}).items():
        result = done.results[f"rsa {observers}"]
        assert result.attrs["simulated"] == 1
        best = int(result["mean"].values.argmax())
        assert str(result["model"].values[best]) in truth
        assert float(result["mean"][best]) > float(result["ceiling_lower"]) - 0.05
    assert {"trained", "untrained"} <= set(result["network"].values.tolist())
    assert load(tmp_path / "results" / "decoding_trained_identity.nc").attrs["n_without_label"] == 80
    words = (tmp_path / "figures" / "rdm_trained_correlation.txt").read_text()
    assert "20 stimuli" in words  # the faces alone: digits have no identity
    assert "simulated" in (tmp_path / "figures" / "rdm_identity_observers.svg").read_text()
    html = done.report.read_text()
    assert "Simulated observers, not people" in html
    assert "shows that the method finds it, and nothing about brains" in html
    assert 'src="http' not in html
    assert run(small(), tmp_path, progress=False).computed == ()
