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

TRAINED = {"extractor": "dual_task_cnn"}
SETS = {"training": 4, "selectivity": 1, "ranking": 2, "evaluation": 2}
LESIONED = TRAINED | {
    "name": "dual",
    "record": False,
    "tasks": {name: {"dataset": f"rendered_{name}s", "sets": SETS} for name in ("face", "object")},
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
        ({"networks": []}, "mine.yaml: `networks` is missing; name one network"),
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
        (
            {"analyses": [{"rsa": {"data": ["a"], "name": "tools"}}]},
            "mine.yaml, analyses, step 1 (rsa), name: 'tools' names the stimuli that `select` chooses, and all take",
        ),
        (
            {"analyses": [{"rsa": {"data": ["a"], "select": ["tools"]}}]},
            "mine.yaml, analyses, step 1 (rsa): option 'select' is ['tools']",
        ),
        ({"models": [{"labels": "animal"}]}, "mine.yaml, models, item 1: unknown option 'labels'; nearest: 'label'"),
        ({"models": [{"label": "a", "data": "b"}]}, "mine.yaml, models, item 1: give one of"),
        ({"networks": [TRAINED | {"seeds": 0}]}, "mine.yaml, networks, item 1, seeds: 0 leaves no network"),
        ({"networks": [TRAINED | {"seeds": [1, 1]}]}, "mine.yaml, networks, item 1, seeds: [1, 1] must hold"),
        ({"networks": [TRAINED | {"seeds": "two"}]}, "mine.yaml, networks, item 1, seeds: 'two' is neither"),
        ({"networks": [TRAINED | {"seeds": True}]}, "mine.yaml, networks, item 1, seeds: True is neither"),
        ({"networks": [TRAINED | {"seeds": 2, "seed": 1}]}, "item 1: seed and seeds are both given"),
        ({"networks": [{"extractor": "pixels", "seeds": 2}]}, "the extractor 'pixels' takes no seed"),
        (
            {"networks": [TRAINED | {"seeds": 2, "name": "a"}, {"extractor": "pixels", "name": "a"}]},
            "mine.yaml, networks, item 2: the name 'a' is taken",
        ),
        (
            {"networks": [TRAINED | {"seeds": 2, "name": "a"}, {"extractor": "pixels", "name": "a-seed1"}]},
            "mine.yaml, networks, item 2: the name 'a-seed1' is taken",
        ),
        (
            {
                "networks": ["pixels", {"extractor": "gabor", "record": False}],
                "analyses": [{"rdm": {"networks": ["gabor"]}}],
            },
            "mine.yaml, analyses, step 1 (rdm), networks: 'gabor' is not recorded",
        ),
        (
            {"networks": [{"extractor": "pixels", "record": False}], "analyses": [{"rdm": {}}]},
            "mine.yaml, analyses, step 1 (rdm): no network of the study is recorded",
        ),
        ({"stimuli": None}, "mine.yaml: `stimuli` is missing"),
        (
            {"analyses": [{"segregation": {"layers": ["a"], "networks": ["pixels"]}}]},
            "mine.yaml, analyses, step 1 (segregation), networks: 'pixels' cannot be lesioned here",
        ),
        (
            {"networks": [TRAINED], "analyses": [{"segregation": {"layers": ["a"]}}]},
            "mine.yaml, analyses, step 1 (segregation): no network of the study has two tasks with image sets",
        ),
        (
            {"networks": [LESIONED], "analyses": [{"segregation": {"layers": ["a"], "networks": ["duall"]}}]},
            "mine.yaml, analyses, step 1 (segregation), networks: there is no network 'duall'; nearest: 'dual'",
        ),
        (
            {"networks": [LESIONED], "analyses": [{"segregation": {"layers": ["a"], "singles": ["fase"]}}]},
            "mine.yaml, analyses, step 1 (segregation), singles: there is no network 'fase'",
        ),
        (
            {"networks": [LESIONED, "pixels"], "analyses": [{"segregation": {"layers": ["a"], "control": "pixels"}}]},
            "mine.yaml, analyses, step 1 (segregation), control: 'pixels' is not among the step's networks",
        ),
        (
            {"networks": [LESIONED], "analyses": [{"segregation": {}}]},
            "mine.yaml, analyses, step 1 (segregation): option 'layers' is needed",
        ),
        (
            {"networks": [LESIONED], "analyses": [{"segregation": {"layers": ["a"], "n_nul": 3}}]},
            "mine.yaml, analyses, step 1 (segregation): unknown option 'n_nul'; nearest: 'n_null'",
        ),
        (
            {"networks": [LESIONED], "analyses": [{"feature_visualization": {}}]},
            "mine.yaml, analyses, step 1 (feature_visualization): no segregation step comes before",
        ),
        (
            {
                "networks": [LESIONED, TRAINED],
                "analyses": [
                    {"segregation": {"layers": ["a"]}},
                    {"feature_visualization": {"networks": ["dual_task_cnn"]}},
                ],
            },
            "step 2 (feature_visualization), networks: no segregation step before this one lesions 'dual_task_cnn'",
        ),
        ({"quick": {"sead": 1}}, "mine.yaml, quick form: unknown option 'sead'; nearest: 'seed'"),
        ({"quick": {"study": "b"}}, "mine.yaml, quick: 'study' cannot be other in the quick form"),
        (
            {"quick": {"networks": [{"name": "pixel", "size": 4}]}},
            "mine.yaml, quick, networks, item 1: the study has no network 'pixel' to change; nearest: 'pixels'",
        ),
        ({"quick": {"networks": [{"size": 4}]}}, "mine.yaml, quick, networks, item 1: `name: …` is missing"),
        (
            {"quick": {"analyses": [{"rsa": {}}, {"rsa": {}}]}},
            "mine.yaml, quick, analyses, item 2: the study has 1 'rsa', and this one would change a further one",
        ),
        (
            {"quick": {"analyses": [{"rsa": {"n_draws": "many"}}]}},
            "mine.yaml, quick form, analyses, step 1 (rsa): option 'n_draws' is 'many'",
        ),
        ({"report": "yes"}, "mine.yaml, report: 'yes' is neither"),
        ({"study": "a/b"}, "mine.yaml, study: 'a/b' names a folder"),
    ],
)
def test_what_is_wrong_is_said_with_file_step_and_key(folder: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_study(write(folder, GOOD | change))


def test_seeds_make_a_group_that_steps_can_name(folder: Path) -> None:
    networks = [LESIONED | {"seeds": 2}, LESIONED | {"name": "other", "seeds": [7, 3]}, "pixels"]
    steps = [
        {"segregation": {"layers": ["a"], "networks": names}} for names in (["other"], ["other-seed3", "dual"], [])
    ]
    study = load_study(write(folder, GOOD | {"seed": 4, "networks": networks, "analyses": [*steps, {"rdm": {}}]}))
    assert study.groups == {
        "dual": ("dual-seed4", "dual-seed5"),
        "other": ("other-seed7", "other-seed3"),
        "pixels": ("pixels",),
    }
    assert [spec.options.get("seed") for spec in study.networks] == [4, 5, 7, 3, None]
    assert [step.own.networks for step in study.analyses] == [
        ["other-seed7", "other-seed3"],
        ["dual-seed4", "dual-seed5", "other-seed3"],
        ["dual-seed4", "dual-seed5", "other-seed7", "other-seed3"],
        ["pixels"],
    ]
    assert list(study.record) == ["pixels"]
    assert "layers" not in study.networks[0].options


def test_the_quick_form_replaces_what_it_names_and_nothing_else(folder: Path) -> None:
    content = GOOD | {
        "networks": [LESIONED | {"seeds": 3}, {"extractor": "pixels", "size": 8}],
        "analyses": [
            {"rsa": {"data": ["a"], "n_draws": 500}},
            {"rsa": {"data": ["b"]}},
            {"segregation": {"layers": ["a"]}},
        ],
        "quick": {
            "seed": 3,
            "record": {"batch": 2},
            "networks": [{"name": "dual", "seeds": 1, "tasks": {"face": {"sets": {"training": 2}}}}],
            "analyses": [{"segregation": {"n_null": 4}}, {"rsa": {}}, {"rsa": {"n_draws": 7}}],
        },
    }
    path = write(folder, content)
    whole, quick = load_study(path), load_study(path, quick=True)
    assert [len(study.groups["dual"]) for study in (whole, quick)] == [3, 1]
    assert whole.networks[0].options["tasks"]["face"]["sets"] == SETS
    assert quick.networks[0].options["tasks"]["face"]["sets"] == SETS | {"training": 2}
    assert quick.networks[0].options["tasks"]["object"] == whole.networks[0].options["tasks"]["object"]
    assert quick.networks[-1].options == {"size": 8}
    assert [step.kind for step in quick.analyses] == ["rsa", "rsa", "segregation"]
    assert [step.options["rsa"].n_draws for step in quick.analyses[:2]] == [500, 7]
    assert quick.analyses[2].options["segregation"].n_null == 4
    assert quick.record["pixels"].model_dump()["layers"] == ["**"]
    assert quick.record["pixels"].model_dump()["batch"] == 2
    assert (whole.default_folder, quick.default_folder) == ("actkit-small", "actkit-small-quick")
    assert (whole.title, quick.title) == ("small", "small (quick form)")
    assert whole.text == quick.text


@pytest.mark.parametrize("extra", [{}, {"quick": {}}])
def test_a_study_without_a_quick_form_says_so(folder: Path, extra: dict) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: this study has no quick form"):
        load_study(write(folder, GOOD | extra), quick=True)


def test_a_network_may_be_written_as_another_one_with_changes(folder: Path) -> None:
    text = """
study: merged
networks:
  - &one {extractor: pixels, name: one, size: 8}
  - {<<: *one, name: two}
stimuli: {path: pictures}
"""
    specs = load_study(write(folder, text)).networks
    assert [(spec.name, spec.options) for spec in specs] == [("one", {"size": 8}), ("two", {"size": 8})]


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
