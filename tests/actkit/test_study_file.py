"""A study file is checked whole, and messages name file, step and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from actkit.errors import InputError
from actkit.study_file import load_study, network_settings, shipped

GOOD = {
    "study": "small",
    "networks": [{"extractor": "pixels", "control": True}],
    "stimuli": {"path": "pictures"},
    "record": {"layers": ["**"]},
    "analyses": [{"rsa": {"data": ["judgements"], "compare": "pearson"}}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path


def write(folder: Path, content: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_good_study_is_read_with_the_defaults_of_each_function(folder: Path) -> None:
    study = load_study(write(folder, GOOD | {"seed": 7}))
    (step,) = study.analyses
    assert study.title == study.name == "small"
    assert [network.name for network in study.networks] == ["pixels"]
    assert step.own.data == ["judgements"]
    assert step.options["rsa"].compare == "pearson"
    assert step.options["rdm"].method == "correlation"
    assert step.options["rsa"].seed == 7  # the study's, where the step sets none
    assert study.record["pixels"].model_dump()["layers"] == ["**"]


def test_a_seed_of_a_step_wins_over_the_study_s(folder: Path) -> None:
    content = GOOD | {"seed": 7, "analyses": [{"rsa": {"data": "judgements", "seed": 3}}]}
    assert load_study(write(folder, content)).analyses[0].options["rsa"].seed == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"analysis": []}, "mine.yaml: unknown option 'analysis'; nearest: 'analyses'"),
        ({"networks": []}, "mine.yaml: option 'networks' is []"),
        (
            {"networks": ["pixel"]},
            "mine.yaml, networks, item 1, extractor: there is no extractor 'pixel'; nearest: 'pixels'",
        ),
        ({"networks": [{"name": "a"}]}, "mine.yaml, networks, item 1: `extractor: NAME` is missing"),
        ({"networks": ["pixels", "pixels"]}, "mine.yaml, networks, item 2: the name 'pixels' is taken"),
        (
            {"networks": [{"extractor": "pixels", "name": "a b"}]},
            "mine.yaml, networks, item 1, name: 'a b' also names files",
        ),
        ({"stimuli": {"path": "picture"}}, "mine.yaml, stimuli, path: there is nothing at"),
        ({"stimuli": {"folder": "pictures"}}, "mine.yaml, stimuli: unknown option 'folder'"),
        ({"stimuli": []}, "mine.yaml, stimuli: the list is empty"),
        ({"record": {"layer": ["**"]}}, "mine.yaml, record: unknown option 'layer'; nearest: 'layers'"),
        ({"record": {"overwrite": True}}, "mine.yaml, record: 'overwrite' is decided by the study itself"),
        (
            {"analyses": [{"rsa": {"data": ["a"]}}, {"rsaa": {}}]},
            "mine.yaml, analyses, step 2: there is no analysis 'rsaa'; nearest: 'rsa'",
        ),
        (
            {"analyses": [{"rsa": {"data": ["a"], "compair": "cosine"}}]},
            "mine.yaml, analyses, step 1 (rsa): unknown option 'compair'; nearest: 'compare'",
        ),
        (
            {"analyses": [{"rsa": {"data": ["a"], "n_draws": "many"}}]},
            "mine.yaml, analyses, step 1 (rsa): option 'n_draws' is 'many'",
        ),
        ({"analyses": [{"rsa": {}}]}, "mine.yaml, analyses, step 1 (rsa): option 'data' is needed"),
        ({"analyses": [{"rsa": {"data": ["a"]}, "rdm": {}}]}, "mine.yaml, analyses, step 1: "),
        ({"models": [{"labels": "animal"}]}, "mine.yaml, models, item 1: unknown option 'labels'; nearest: 'label'"),
        ({"models": [{"label": "a", "data": "b"}]}, "mine.yaml, models, item 1: give one of"),
        ({"report": "yes"}, "mine.yaml, report: 'yes' is neither"),
        ({"study": "a/b"}, "mine.yaml, study: 'a/b' names a folder"),
    ],
)
def test_what_is_wrong_is_said_with_file_step_and_key(folder: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_study(write(folder, GOOD | change))


def test_text_that_is_no_yaml_names_the_line(folder: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml is not YAML that can be read: line \d"):
        load_study(write(folder, "study: a\nnetworks: [b\nstimuli: }"))


def test_a_key_given_twice_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="the key 'seed' stands twice, on lines 2 and 3"):
        load_study(write(folder, "study: a\nseed: 1\nseed: 2\n"))


def test_yaml_tags_that_would_run_code_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="not YAML that can be read"):
        load_study(write(folder, "study: !!python/object/apply:os.getcwd []\n"))


def test_a_study_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no study file 'kriegeskorte'.*nearest: 'kriegeskorte92'"):
        load_study("kriegeskorte")


@pytest.mark.parametrize("name", ["demo", "kriegeskorte92"])
def test_shipped_studies_are_good(name: str) -> None:
    assert name in shipped()
    assert load_study(name).name == name


def test_the_model_after_a_colon_goes_to_the_extractor() -> None:
    assert network_settings("timm:resnet18", {"pretrained": True}) == (
        "timm",
        {"model": "resnet18", "pretrained": True},
    )
    assert network_settings("checkpoint:w.safetensors", {})[1] == {"file": "w.safetensors"}
    with pytest.raises(InputError, match="takes no model after a colon"):
        network_settings("pixels:resnet18", {})
    with pytest.raises(InputError, match="model is also given as an option"):
        network_settings("timm:resnet18", {"model": "vgg16"})
