"""Drawn stimuli and simulated observers: deterministic, independent of the size of the set, and true to their truth."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from actkit.data_specs import catalogue
from actkit.data_specs.rendered_faces import PARAMETERS, held_out, rendered_faces
from actkit.data_specs.rendered_objects import rendered_objects
from actkit.data_specs.rendered_solids import CATEGORIES
from actkit.data_specs.simulated import simulated_observers
from actkit.errors import InputError
from actkit.recordings import category_rdms, squares, validate_rdms

# Mean grey levels of the first member of each category.
MEANS = [174.69, 150.55, 112.55, 167.82, 149.82, 128.66, 138.14, 120.98]


def pixels(stimuli):
    return np.array([np.asarray(stimuli.image(i)) for i in range(len(stimuli))])


@pytest.fixture(scope="module")
def faces():
    return rendered_faces(n_identities=4, n_exemplars=4, size=32, seed=3)


@pytest.fixture(scope="module")
def objects():
    return rendered_objects(n_members=2, n_exemplars=3, size=32, seed=3)


def test_faces_are_deterministic_and_do_not_depend_on_the_number_drawn(faces):
    again = rendered_faces(n_identities=2, n_exemplars=3, size=32, seed=3)
    shared = faces.stimuli.select(again.stimuli.ids)
    np.testing.assert_array_equal(pixels(shared), pixels(again.stimuli))
    assert shared.fingerprint == again.stimuli.fingerprint
    other = rendered_faces(n_identities=2, n_exemplars=3, size=32, seed=4)
    assert other.stimuli.fingerprint != again.stimuli.fingerprint


def test_objects_are_deterministic_and_do_not_depend_on_the_number_drawn(objects):
    again = rendered_objects(n_categories=3, n_members=1, n_exemplars=2, size=32, seed=3)
    shared = objects.stimuli.select(again.stimuli.ids)
    assert shared.fingerprint == again.stimuli.fingerprint


def test_an_identity_is_the_same_whatever_the_first_one_is(faces):
    later = rendered_faces(n_identities=2, first_identity=2, n_exemplars=4, size=32, seed=3)
    assert list(dict.fromkeys(later.stimuli.labels["identity"].tolist())) == ["face_002", "face_003"]
    same = faces.stimuli.select(later.stimuli.ids)
    assert same.fingerprint == later.stimuli.fingerprint
    np.testing.assert_array_equal(later.variables["parameters"].values, faces.variables["parameters"].values[8:])
    film = catalogue.load("rendered_faces_film", n_identities=1, first_identity=1, n_exemplars=1, size=16).stimuli
    pair = catalogue.load("rendered_faces_film", n_identities=2, n_exemplars=1, size=16).stimuli
    assert film.ids.tolist() == ["film_001_000"]
    np.testing.assert_array_equal(pixels(film)[0], pixels(pair)[1])


def test_categories_are_the_same_whichever_are_drawn():
    named = rendered_objects(categories=["ladder", "mug", "car"], n_members=2, n_exemplars=2, size=16, seed=3)
    assert list(dict.fromkeys(named.stimuli.labels["category"].tolist())) == ["ladder", "mug", "car"]
    whole = rendered_objects(n_categories=16, n_members=2, n_exemplars=2, size=16, seed=3)
    assert list(dict.fromkeys(whole.stimuli.labels["category"].tolist())) == list(CATEGORIES)
    assert whole.stimuli.select(named.stimuli.ids).fingerprint == named.stimuli.fingerprint
    assert len(whole.stimuli.duplicates()) == 0


def test_the_first_eight_categories_and_their_pictures_stay_as_they_are():
    # The demo and what users recorded stand on these numbers: a change here makes old stores unlike new ones.
    kept = ("mug", "bottle", "chair", "table", "lamp", "tree", "aeroplane", "hammer")
    drawn = rendered_objects(n_members=1, n_exemplars=2, size=16)
    assert tuple(dict.fromkeys(drawn.stimuli.labels["category"].tolist())) == kept
    means = pixels(drawn.stimuli).reshape(8, 2, -1).mean(axis=(1, 2))
    np.testing.assert_allclose(means, MEANS, atol=0.05)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"categories": ["mugg"]}, "no category 'mugg'; nearest: 'mug'"),
        ({"categories": ["mug", "car", "mug"]}, "'mug' is named twice"),
        ({"categories": ["mug"], "n_categories": 2}, "give one of the two"),
        ({"n_categories": 17}, "n_categories"),
    ],
)
def test_categories_that_cannot_be_drawn_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        catalogue.load("rendered_objects", **bad)


def test_labels_and_splits_of_faces(faces):
    labels = faces.stimuli.labels
    assert faces.stimuli.ids[:5].tolist() == [
        "face_000_000",
        "face_000_001",
        "face_000_002",
        "face_000_003",
        "face_001_000",
    ]
    assert np.unique(labels["identity"], return_counts=True)[1].tolist() == [4] * 4
    for identity in np.unique(labels["identity"]):
        assert labels["split"][labels["identity"] == identity].tolist() == ["train", "test", "train", "train"]
    assert np.abs(labels["yaw"]).max() <= 35
    assert len(np.unique(labels["yaw"])) == 16


def test_labels_of_objects(objects):
    labels = objects.stimuli.labels
    assert list(dict.fromkeys(labels["category"].tolist())) == list(CATEGORIES[:8])
    assert len(np.unique(labels["member"])) == 2 * 8
    assert (labels["split"] == "test").sum() == 16


def test_without_nuisance_all_pictures_of_an_identity_are_equal():
    still = rendered_faces(n_identities=3, n_exemplars=3, size=24, nuisance=0).stimuli
    assert [len(group) for group in still.duplicates()] == [3, 3, 3]
    still = rendered_objects(n_categories=16, n_members=1, n_exemplars=2, size=24, nuisance=0).stimuli
    assert [len(group) for group in still.duplicates()] == [2] * len(CATEGORIES)


def test_every_face_parameter_shows_in_the_picture():
    from actkit.data_specs.rendered_faces import _NUISANCE_RANGES, draw_face
    from actkit.data_specs.rendering import pixel_grid

    grid = pixel_grid(48)
    view = {name: centre for name, (centre, _) in _NUISANCE_RANGES.items()}
    plain = dict.fromkeys(PARAMETERS, 0.2)
    base = draw_face(plain, view, grid)
    for name in PARAMETERS:
        moved = draw_face(plain | {name: 0.9}, view, grid)
        assert np.abs(moved - base).max() > 0.02, name
    for name, (centre, half) in _NUISANCE_RANGES.items():
        if name != "noise":
            moved = draw_face(plain, view | {name: centre + 0.8 * half}, grid)
            assert np.abs(moved - base).max() > 0.02, name


def test_every_object_parameter_shows_in_the_picture():
    from actkit.data_specs.rendered_objects import _NUISANCE_RANGES, draw_object
    from actkit.data_specs.rendered_objects import PARAMETERS as NUMBERS
    from actkit.data_specs.rendering import pixel_grid

    grid = pixel_grid(48)
    view = {name: centre for name, (centre, _) in _NUISANCE_RANGES.items()}
    plain = dict.fromkeys(NUMBERS, 0.1)
    for category in CATEGORIES:
        base = draw_object(category, plain, view, grid)
        assert base.dtype == np.float32
        for name in NUMBERS:
            assert np.abs(draw_object(category, plain | {name: 0.9}, view, grid) - base).max() > 0.02, (category, name)


def test_marching_blocks_first_misses_nothing():
    """The fast way (blocks of rays together) against the plain ones (every ray alone, and in small steps)."""
    from actkit.data_specs.rendered_objects import _distance, _march, _walk
    from actkit.data_specs.rendered_solids import SOLIDS
    from actkit.data_specs.rendering import pixel_grid, rotation

    samples, zoom = 48, 1.1
    u, v = (axis.ravel() * np.float32(zoom) for axis in pixel_grid(samples // 2))
    for k, category in enumerate(CATEGORIES):
        shape, _ = SOLIDS[category][0](dict.fromkeys(("height", "width", "thickness", "detail"), 0.0))
        turn = rotation(20.0 + 25 * (k % 8), 25.0, 5.0)
        start = tuple(turn[0, j] * u + turn[1, j] * v + np.float32(1.6) * turn[2, j] for j in range(3))
        hit, _ = _march(shape, start, turn[2], samples, 2 * zoom / samples)
        plain = np.zeros(len(u), dtype=bool)
        for t in np.arange(0, 3.4, 0.02, dtype=np.float32):
            plain |= _distance(shape, tuple(start[j] - t * turn[2][j] for j in range(3))) < -0.004
        alone, patient = np.zeros(len(u), dtype=bool), np.zeros(len(u), dtype=bool)
        for found, steps in ((alone, 32), (patient, 200)):
            state = np.zeros(len(u), dtype=np.float32), found, np.zeros(len(u), dtype=bool)
            _walk(shape, start, turn[2], *state, 0.006, steps)
        # The distance is a lower bound: no ray passes through the solid. A few that graze it need more steps than are
        # made, and no more of them because rays set out in blocks.
        assert (plain & ~patient).sum() == 0, category
        assert (plain & ~hit & alone).sum() == 0, category
        assert (plain & ~hit).sum() <= 2, category
        assert 0.02 < hit.mean() < 0.6, category
        assert (hit & ~plain).mean() < 0.05, category


@pytest.mark.parametrize(("name", "same"), [("rendered_faces", "identity"), ("rendered_objects", "category")])
def test_truth_is_the_truth_of_the_drawing(name, same):
    options = {"n_exemplars": 2, "size": 16}
    data = catalogue.load(name, **options)
    truth = validate_rdms(data["truth"])
    labels = data.stimuli.labels
    np.testing.assert_array_equal(squares(truth.sel(model=[same]))[0], labels[same][:, None] != labels[same][None, :])
    parameters = data["parameters"]
    assert parameters.dims == ("stimulus", "unit")
    assert parameters["stimulus"].values.tolist() == data.stimuli.ids.tolist()
    own = [model for model in truth["model"].values if "parameters" in model]
    np.testing.assert_allclose(squares(truth.sel(model=own))[0], squareform(pdist(parameters.values)))


def test_identity_can_be_seen_and_nuisance_moves_the_picture(faces):
    images = pixels(faces.stimuli).reshape(4, 4, -1).astype(float)
    within = np.mean([pdist(group).mean() for group in images])
    between = pdist(images.mean(axis=1)).mean()
    assert within > 0
    assert between > 0.25 * within


@pytest.mark.parametrize("bad", [{"n_identities": 0}, {"size": 4}, {"sise": 32}, {"nuisance": -1}])
def test_bad_options_are_refused_when_the_set_is_opened(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        catalogue.load("rendered_faces", **bad)


# ------------------------------------------------------------------ simulated observers


@pytest.fixture(scope="module")
def truth():
    ids = [f"s{i:02d}" for i in range(60)]
    return category_rdms({"kind": [i % 4 for i in range(60)], "half": [i // 30 for i in range(60)]}, ids)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_observers_correlate_with_the_truth_as_stated(truth, noise):
    observers = validate_rdms(simulated_observers(truth, n_subjects=8, noise=noise, seed=1))
    kinds = truth["dissimilarity"].values
    expected = ((kinds - kinds.mean(axis=1, keepdims=True)) / kinds.std(axis=1, keepdims=True)).sum(axis=0)
    shown = observers["dissimilarity"].values
    r = np.corrcoef(np.vstack([expected, shown]))
    stated = observers.attrs["expected_correlation"]
    assert stated == pytest.approx(1 / np.sqrt(1 + noise**2))
    np.testing.assert_allclose(r[0, 1:], stated, atol=0.06)
    np.testing.assert_allclose(r[1:, 1:][~np.eye(8, dtype=bool)], stated**2, atol=0.09)
    assert shown.min() == 0
    assert observers.attrs["simulated"] == 1
    assert observers.attrs["truth"] == "1 x kind + 1 x half"


def test_observers_do_not_depend_on_how_many_there_are(truth):
    few = simulated_observers(truth, n_subjects=3, seed=5)
    many = simulated_observers(truth, n_subjects=6, seed=5)
    np.testing.assert_array_equal(few["dissimilarity"], many["dissimilarity"][:3])
    assert (simulated_observers(truth, 3, seed=6)["dissimilarity"].values != few["dissimilarity"].values).any()


def test_components_are_matched_by_id_and_weighted(truth):
    first, second = truth.isel(model=[0]), truth.isel(model=[1])
    from actkit.recordings import select_stimuli

    turned = select_stimuli(second, second["stimulus"].values[::-1])
    np.testing.assert_allclose(
        simulated_observers([first, turned], 2, noise=0)["dissimilarity"],
        simulated_observers(truth, 2, noise=0)["dissimilarity"],
    )
    only = simulated_observers(truth, 1, noise=0, weights=[0, 2])["dissimilarity"].values[0]
    assert np.corrcoef(only, second["dissimilarity"].values[0])[0, 1] == pytest.approx(1)


def test_what_observers_cannot_be_made_of_is_said(truth):
    with pytest.raises(InputError, match="n_subjects >= 1"):
        simulated_observers(truth, 0)
    with pytest.raises(InputError, match="3 weights were given for 2 components"):
        simulated_observers(truth, weights=[1, 2, 3])
    with pytest.raises(InputError, match="at least one true RDM"):
        simulated_observers([])
    with pytest.raises(InputError, match="constant or has missing values"):
        simulated_observers(truth.assign(dissimilarity=truth["dissimilarity"] * 0), 2)


def test_what_a_small_set_holds_out_no_larger_set_trains_on():
    numbers = np.arange(60)
    for test in (0.1, 0.2, 0.25, 0.5):
        small, large = held_out(numbers[:20], test), held_out(numbers, test)
        assert (large[:20] == small).all()
        assert (large == "test").sum() == round(60 * test)


# ------------------------------------------------------------------ a second set of faces


def test_the_second_set_of_faces_has_other_identities_and_another_rendering(faces):
    film = catalogue.load("rendered_faces_film", n_identities=4, n_exemplars=4, size=32, seed=3)
    stimuli = film.stimuli
    assert stimuli.ids[0] == "film_000_000"
    assert stimuli.labels["split"].tolist() == faces.stimuli.labels["split"].tolist()
    # No identity of one is an identity of the other, and each keeps its own.
    own = np.unique(film["parameters"].values, axis=0)
    assert len(own) == 4
    distances = np.abs(own[:, None] - np.unique(faces.variables["parameters"].values, axis=0)[None]).max(axis=2)
    assert distances.min() > 0.1
    assert 0.02 < np.ptp(stimuli.labels["blind_depth"]) < 0.3
    again = catalogue.load("rendered_faces_film", n_identities=2, n_exemplars=2, size=32, seed=3).stimuli
    assert stimuli.select(again.ids).fingerprint == again.fingerprint
    assert film["truth"].sizes["model"] == 4


def test_the_film_changes_a_picture_as_it_says():
    from actkit.data_specs.rendered_faces_film import FILM, print_film

    flat = np.full((3, 64, 64), 0.8, dtype=np.float32)
    made, drawn = print_film(flat, 0.0, np.random.Generator(np.random.Philox(0)))
    assert list(drawn) == list(FILM)
    assert made.dtype == np.float32
    middle = made[:, 24:40, 24:40]
    assert middle.max() > 1.2 * middle.min()  # the blind
    assert made[:, ::63, ::63].mean() < middle.mean()  # dark corners
    grained, _ = print_film(flat, 1e-9, np.random.Generator(np.random.Philox(0)))
    assert 0.01 < (grained - made).std() < 0.03
