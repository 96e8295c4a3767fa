"""Folders of classes that the user brings: which classes and pictures are taken, and what is said where none are."""

import shutil

import numpy as np
import pytest
from PIL import Image

from actkit.data_specs import catalogue
from actkit.errors import DataError, InputError

COUNTS = {"ann": 6, "ben": 4, "cid": 6, "dan": 5, "eve": 6, "fay": 2}
SPEC = """\
name: people
title: people
description: made for the tests
licence: free
citation: nobody
stimuli: {source: folder, folder: train, folder_label: identity, order: natural, by_hand: Put train/PERSON there}
splits:
  split: {test: 0.5, within: identity, seed: 0}
"""


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
                tmp_path / "train" / name / f"{i}.png"
            )
    (tmp_path / "people.yaml").write_text(SPEC)
    return str(tmp_path / "people.yaml")


def classes(stimuli):
    return dict(zip(*np.unique(stimuli.labels["identity"], return_counts=True), strict=True))


def test_folders_are_classes_and_all_are_taken_unless_some_are_asked_for(people):
    whole = catalogue.load(people).stimuli
    assert classes(whole) == COUNTS
    assert whole.ids[:2].tolist() == ["ann/0", "ann/1"]
    assert catalogue.state(people) == "here"
    assert catalogue.check(people) == []
    assert "option     first_class" in catalogue.describe(people)


def test_classes_with_enough_pictures_are_shared_out_without_overlap(people):
    first = catalogue.load(people, at_least=5, n_classes=2, per_class=5).stimuli
    rest = catalogue.load(people, at_least=5, n_classes=2, first_class=2, per_class=3).stimuli
    taken, others = classes(first), classes(rest)
    assert set(taken.values()) == {5}
    assert set(others.values()) == {3}
    assert set(taken) | set(others) == {"ann", "cid", "dan", "eve"}
    assert classes(catalogue.load(people, at_least=5, first_class=2).stimuli) == {name: COUNTS[name] for name in others}
    # More classes, or another number of pictures, leave the rest of the choice as it is.
    more = catalogue.load(people, at_least=5, n_classes=3, per_class=5).stimuli
    assert set(first.ids) < set(more.ids)
    orders = {tuple(classes(catalogue.load(people, n_classes=2, seed=seed).stimuli)) for seed in range(8)}
    assert len(orders) > 3


def test_whether_a_picture_is_held_out_does_not_depend_on_the_classes_beside_it(people):
    whole = catalogue.load(people).stimuli
    some = catalogue.load(people, n_classes=3, first_class=1, seed=4).stimuli
    split = dict(zip(whole.ids.tolist(), whole.labels["split"].tolist(), strict=True))
    assert some.labels["split"].tolist() == [split[name] for name in some.ids.tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 7}, r"7 classes from number 0 on cannot be taken of the 6 classes"),
        ({"n_classes": 2, "at_least": 6, "first_class": 2}, r"of the 3 classes with 6 pictures or more \(6 classes"),
        ({"first_class": 6}, r"one class from number 6 on cannot be taken"),
        ({"per_class": 3}, r"class 'fay' has 2 pictures, and 3 of each class .* at_least: 3"),
    ],
)
def test_too_few_classes_or_pictures_are_refused(people, options, message):
    with pytest.raises(DataError, match=message):
        len(catalogue.load(people, **options).stimuli)


def test_unknown_options_are_refused_when_the_set_is_opened(people):
    with pytest.raises(InputError, match="unknown option 'n_class'; nearest: 'n_classes'"):
        catalogue.load(people, n_class=2)
    with pytest.raises(InputError, match="n_classes"):
        catalogue.load(people, n_classes=0)


def test_a_folder_that_is_not_there_or_holds_no_classes_says_how_to_arrange_it(people, tmp_path):
    train = tmp_path / "train"
    stray = train / "stray.png"
    shutil.copy(train / "ann" / "0.png", stray)
    with pytest.raises(DataError, match=r"not every picture under .*train lies in a folder.* Put train/PERSON there"):
        len(catalogue.load(people).stimuli)
    stray.unlink()
    (tmp_path / "elsewhere").mkdir()
    train.rename(tmp_path / "elsewhere" / "pictures")
    with pytest.raises(DataError, match=r"'people' are not at .*train or .*\. Put train/PERSON there"):
        catalogue.load(people)
    with pytest.raises(DataError, match=r"cannot be downloaded to .*train: Put train/PERSON there"):
        catalogue.fetch(people)
    assert [fault.what for fault in catalogue.check(people)] == ["Put train/PERSON there"]
    assert catalogue.state(people) == "to get by hand"
    # Links to class folders that lie elsewhere serve as well as the folders.
    train.mkdir()
    for name in ("ann", "ben"):
        (train / name).symlink_to(tmp_path / "elsewhere" / "pictures" / name, target_is_directory=True)
    assert classes(catalogue.load(people).stimuli) == {"ann": 6, "ben": 4}
    for path in train.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"there are no stimuli to take.* Put train/PERSON there"):
        len(catalogue.load(people).stimuli)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: folder, folder: train", "source: drawn, function: digits", "by_hand under stimuli goes with"),
        (
            "source: folder, folder: train, folder_label: identity, order: natural, by_hand: Put train/PERSON there",
            "source: drawn, function: digits, folder_label: digit, order: natural",
            "have no folders to become a label",
        ),
    ],
)
def test_keys_of_folders_are_refused_elsewhere(people, old, new, message):
    text = SPEC.replace(old, new)
    assert text != SPEC
    with open(people, "w") as file:
        file.write(text)
    with pytest.raises(DataError, match=message):
        catalogue.spec(people)


@pytest.mark.parametrize("name", ["vggface2", "casia_webface", "imagenet_objects", "food101", "stanford_cars"])
def test_folders_that_the_user_brings_are_described_and_read(name, tmp_path):
    spec = catalogue.spec(name)
    with pytest.raises(DataError, match=rf"(?s)the files of '{name}' are not at .*ACTKIT_DATA.*does not distribute"):
        catalogue.load(name, root=tmp_path)
    for label in ("one", "two"):
        folder = tmp_path / name / str(spec.stimuli.folder) / label
        folder.mkdir(parents=True)
        Image.new("RGB", (12, 9), (len(label), 0, 9)).save(folder / f"{label}_1.JPEG", "JPEG")
    stimuli = catalogue.load(name, root=tmp_path, n_classes=1).stimuli
    assert len(stimuli) == 1
    assert stimuli.labels[str(spec.stimuli.folder_label)][0] in ("one", "two")
    assert stimuli.image(0).size == (12, 9)
