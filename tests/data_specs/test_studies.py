"""The studies of segregation that ship: their data fit together, before anything is drawn or trained."""

import pytest

from actkit.data_specs import catalogue
from actkit.data_specs.rendered_solids import CATEGORIES
from actkit.errors import DataError
from actkit.study_file import load_study

CLASSES = {"orl_faces": 40, "cifar10_test_1000": 10}


def tasks(study):
    """Every different task of a study with its sets, and how many classes and pictures a class its data hold."""
    for network in study.networks:
        for name, entry in network.options["tasks"].items():
            options = {key: value for key, value in entry.items() if key not in ("dataset", "sets")}
            yield network.group, name, entry["dataset"], options, entry["sets"]


@pytest.mark.parametrize("quick", [False, True])
def test_drawn_tasks_have_as_many_pictures_as_their_sets_need_and_no_more(quick):
    study = load_study("dobs2022_small", quick=quick)
    trained = {}
    for group, name, _, options, sets in tasks(study):
        each = options.get("n_members", 1) * options["n_exemplars"]
        assert each == sum(sets.values())
        n_classes = options.get("n_identities") or options["n_categories"]
        trained.setdefault(group, {})[name] = {which: count * n_classes for which, count in sets.items()}
    assert set(trained) == {"face", "object", "dual", "face_face"}
    # As many pictures for either task, in every set but for rounding (24 and 12 classes).
    assert trained["dual"]["faces"] == trained["dual"]["objects"] == trained["face_face"]["film"]
    assert trained["face"]["faces"] == trained["dual"]["faces"]
    assert {len(members) for members in study.groups.values()} == {2 if quick else 5}
    recorded = {network.group for network in study.networks if network.recorded}
    assert recorded == {"face", "object", "dual"}


def test_no_network_learns_a_class_that_is_decoded():
    study = load_study("dobs2022_small")
    faces, objects = study.stimuli
    assert faces.options["first_identity"] >= max(
        options["n_identities"] for _, _, dataset, options, _ in tasks(study) if dataset == "rendered_faces"
    )
    assert set(objects.options["categories"]) == set(CATEGORIES[12:])
    learnt = [options for _, _, dataset, options, _ in tasks(study) if "objects" in dataset]
    assert learnt
    assert all("categories" not in options and options["n_categories"] == 12 for options in learnt)
    whole = load_study("dobs2022")
    learnt = {(dataset, options["at_least"]): options["n_classes"] for group, _, dataset, options, _ in tasks(whole)
              if group == "dual"}  # fmt: skip
    for item in whole.stimuli:
        assert item.options["first_class"] == learnt[item.dataset, item.options["at_least"]]
        # Classes are chosen in an order that depends on the seed: the same on both sides.
        assert "seed" not in item.options


@pytest.mark.parametrize("name", ["dobs2022", "dobs2022_real"])
def test_classes_of_photographs_are_large_enough_for_their_sets(name):
    for _, _, dataset, options, sets in tasks(load_study(name)):
        needed = sum(sets.values())
        if dataset in CLASSES:
            assert needed <= (10 if dataset == "orl_faces" else 100)
            assert options.get("first_class", 0) + options.get("n_classes", 0) <= CLASSES[dataset]
        else:
            assert options.get("at_least", 1000) >= needed  # Food-101 has 1,000 of each
            assert catalogue.spec(dataset).stimuli.by_hand


def test_the_whole_study_says_which_folder_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTKIT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import actkit

    with pytest.raises(DataError, match=r"dobs2022\.yaml.*'vggface2' are not at .*train/PERSON/PICTURE\.jpg"):
        actkit.run("dobs2022", out=tmp_path / "out", dry_run=True)
