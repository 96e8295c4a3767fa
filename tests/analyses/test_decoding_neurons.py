"""Decoding from neurons: plain pipelines, planted populations, leakage, and the seven objects of IT cortex."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from actkit.analyses.decoding_neurons import NeuronDecodingOptions, _samples, decode_neurons
from actkit.errors import InputError

DATA = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "zhang_desimone_it_7objects"


def population(n_neurons=20, n_repetitions=10, invariant=1.0, signal=1.0, noise=1.0, seed=0):
    """Four objects at two places; tuning shared over places in the share `invariant`."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(4, 1, n_neurons)), rng.normal(size=(4, 2, n_neurons))
    tuning = signal * (np.sqrt(invariant) * shared + np.sqrt(1 - invariant) * own)
    x = tuning[:, :, None] + noise * rng.normal(size=(4, 2, n_repetitions, n_neurons))
    names = [f"{o}{p}" for o, p in product("abcd", "12")]
    return xr.DataArray(
        x.reshape(8, n_repetitions, n_neurons),
        dims=("stimulus", "repetition", "neuron"),
        coords={
            "stimulus": names,
            "neuron": [f"n{k}" for k in range(n_neurons)],
            "object": ("stimulus", [name[0] for name in names]),
            "place": ("stimulus", [name[1] for name in names]),
        },
    )


PLAIN = {
    "svm": lambda: SVC(kernel="linear", C=2),
    "logistic": lambda: LogisticRegression(C=2, max_iter=5000),
    "ridge": lambda: RidgeClassifier(alpha=0.5),
    "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "nearest_centroid": NearestCentroid,
}


@pytest.mark.parametrize("classifier", list(PLAIN))
def test_counts_are_those_of_a_plain_pipeline(classifier):
    recording = population(signal=0.4, invariant=0.7, noise=1.5) * 3 + 50
    result = decode_neurons(recording, "object", "place", classifier=classifier, penalty=0.5, n_draws=1, seed=4)
    options = NeuronDecodingOptions(seed=4)
    from actkit.resampling import Stream, generator

    y, place = recording["object"].values, recording["place"].values
    x, row, fold = _samples(recording.values, y, place, None, generator(4, 0, Stream.PERMUTATIONS), options)
    scale = FunctionTransformer(lambda z: z / np.sqrt(20))
    for a, b in product("12", "12"):
        guessed = []
        for f in range(5):
            train, test = (place[row] == a) & (fold != f), (place[row] == b) & (fold == f)
            model = make_pipeline(StandardScaler(), scale, PLAIN[classifier]()).fit(x[train], y[row][train])
            guessed.append(model.predict(x[test]) == y[row][test])
        got = float(result["mean"].sel(train=a, test=b)[0])
        assert got == pytest.approx(np.concatenate(guessed).mean())
        assert 0.25 < got < 1
    np.testing.assert_allclose(result["confusion"].sum("response"), 1)
    diagonal = np.trace(result["confusion"].values, axis1=-2, axis2=-1) / 4
    np.testing.assert_allclose(diagonal, result["mean"][0])


def test_each_neuron_keeps_its_presentations_apart_and_none_is_used_twice():
    recording = population(n_neurons=3)
    recording.values[:] = np.arange(240).reshape(8, 10, 3)  # every value tells where it comes from
    recording.values[2, 4, 1] = np.nan
    args = (recording.values, recording["object"].values, recording["place"].values, None)
    x, row, fold = _samples(*args, np.random.default_rng(0), NeuronDecodingOptions())
    assert x.shape == (8 * 9, 3)  # the scarcest stimulus sets the number
    assert not np.isnan(x).any()
    for neuron in range(3):
        assert len(set(x[:, neuron].tolist())) == len(x)
        np.testing.assert_array_equal(x[:, neuron] // 30, row)
        np.testing.assert_array_equal(x[:, neuron] % 3, neuron)
    assert (x[:, 0] // 3 != x[:, 1] // 3).any()  # neurons are shuffled by themselves
    assert np.bincount(fold).tolist() == [16, 16, 16, 16, 8]
    whole, row, _ = _samples(
        np.where(np.isnan(recording.values).any(axis=2, keepdims=True), np.nan, recording.values),
        *args[1:],
        np.random.default_rng(0),
        NeuronDecodingOptions(trials="simultaneous"),
    )
    np.testing.assert_array_equal(whole[:, 0] + 1, whole[:, 1])
    assert not np.isnan(whole).any()


def test_invariant_tuning_generalises_and_tuning_of_each_place_does_not():
    same = decode_neurons(population(invariant=1.0), "object", "place", n_draws=3)
    other = decode_neurons(population(invariant=0.0, n_neurons=60), "object", "place", n_draws=3)
    assert float(same["within"][0]) > 0.95
    assert float(same["across"][0]) > 0.95
    assert float(other["within"][0]) > 0.95
    assert float(other["across"][0]) < 0.6
    assert float(same["chance"]) == 0.25


def test_standardising_by_condition_undoes_shifts_and_gains_without_looking_at_the_held_out_fold():
    recording = population(signal=0.8, seed=2)
    shifted = recording.copy()
    there = recording["place"].values == "2"
    rng = np.random.default_rng(0)
    shifted.values[there] = shifted.values[there] * rng.uniform(0.2, 5, size=20) + 40 * rng.normal(size=20)
    plain = decode_neurons(shifted, "object", "place", n_draws=2)
    own = decode_neurons(shifted, "object", "place", n_draws=2, standardise="condition")
    before = decode_neurons(recording, "object", "place", n_draws=2, standardise="condition")
    assert float(plain["across"][0]) < 0.6
    np.testing.assert_allclose(own["accuracy"], before["accuracy"])  # exactly undone
    assert float(own["across"][0]) > 0.8
    # With one condition both ways are the same.
    one = {how: decode_neurons(recording, "object", n_draws=2, standardise=how) for how in ("training", "condition")}
    np.testing.assert_array_equal(one["training"]["accuracy"], one["condition"]["accuracy"])


def test_train_on_others_uses_all_other_conditions():
    recording = population(signal=0.7, noise=1.5, seed=1)
    one = decode_neurons(recording, "object", "place", n_draws=4)
    others = decode_neurons(recording, "object", "place", train_on="others", n_draws=4)
    # With two conditions, the others are the other one.
    np.testing.assert_allclose(others["mean"][0].sel(train="others", test="1"), one["mean"][0].sel(train="2", test="1"))
    np.testing.assert_allclose(others["mean"][0].sel(train="same", test="1"), one["mean"][0].sel(train="1", test="1"))
    assert float(others["across"][0]) == pytest.approx(float(one["across"][0]))


def test_pure_noise_is_at_chance_and_draws_repeat():
    recording = population(signal=0.0, n_repetitions=20)
    result = decode_neurons(recording, "object", "place", n_draws=10)
    n = 10 * 80  # not independent, hence the wide limit
    assert abs(float(result["within"][0]) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / (n / 5))
    assert result.identical(decode_neurons(recording, "object", "place", n_draws=10))


def test_more_neurons_decode_better_and_sizes_are_nested():
    recording = population(signal=0.6, n_neurons=40)
    result = decode_neurons(recording, "object", sizes=[40, 2, 10], n_draws=6)
    assert result["size"].values.tolist() == [2, 10, 40]
    curve = result["within"].values
    assert curve[0] < curve[1] < curve[2]
    assert np.isnan(result["across"]).all()
    alone = decode_neurons(recording, "object", n_draws=6)
    np.testing.assert_array_equal(alone["accuracy"][0], result["accuracy"].sel(size=40))


def images(n=120, n_neurons=80, seed=0):
    """Averages to images of three categories without signal, every image present twice."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(n // 2, n_neurons)), 2, axis=0) + 0.05 * rng.normal(size=(n, n_neurons))
    coords = {
        "stimulus": [f"i{k}" for k in range(n)],
        "neuron": [f"n{k}" for k in range(n_neurons)],
        "category": ("stimulus", np.repeat(rng.permutation(np.arange(n // 2) % 3).astype(str), 2)),
        "photograph": ("stimulus", np.arange(n) // 2),
    }
    return xr.DataArray(x, dims=("stimulus", "neuron"), coords=coords)


def test_duplicates_leak_unless_grouped():
    leaky = decode_neurons(images(), "category", hold_out="stimulus", n_draws=4)
    whole = decode_neurons(images(), "category", groups="photograph", hold_out="stimulus", n_draws=4)
    assert float(leaky["within"][0]) > 0.75  # the copy is recognised
    assert float(whole["within"][0]) < 0.5
    values, y = images().values[:, None], images()["category"].values
    groups = images()["photograph"].values.astype(str)
    options = NeuronDecodingOptions(hold_out="stimulus")
    _, row, fold = _samples(values, y, np.full(120, "all"), groups, np.random.default_rng(0), options)
    assert all(len(set(fold[groups[row] == g].tolist())) == 1 for g in np.unique(groups))


def test_presentations_are_averaged_where_stimuli_are_held_out():
    averages = images(seed=3)
    recording = xr.concat([averages + 1, averages - 1], "repetition").transpose("neuron", "repetition", "stimulus")
    a = decode_neurons(averages, "category", hold_out="stimulus", groups="photograph", n_draws=2)
    b = decode_neurons(recording, "category", hold_out="stimulus", groups="photograph", n_draws=2)
    np.testing.assert_allclose(a["accuracy"], b["accuracy"], atol=0.02)


def test_a_constant_neuron_changes_nothing():
    recording = population(signal=0.5)
    with_constant = recording.copy()
    with_constant.values[:, :, 3] = 0.1
    result = decode_neurons(with_constant, "object", classifier="lda", n_draws=2)
    assert np.isfinite(result["mean"]).all()


def with_nan(count):
    recording = population()
    recording.values[1, :count, 2] = np.nan
    return recording


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decode_neurons(population(), "objekt"), "nearest: 'object'"),
        (lambda: decode_neurons(population(), ["x"] * 8), "nothing to decode"),
        (lambda: decode_neurons(population(), list("aabbccdd"), list("12121211")), "'d' does not occur"),
        (lambda: decode_neurons(population(), "object", train_on="others"), "two conditions"),
        (lambda: decode_neurons(population(), "object", groups="place"), "hold_out='stimulus'"),
        (lambda: decode_neurons(population(), "object", sizes=[21]), "21, and the recording has 20"),
        (lambda: decode_neurons(with_nan(6), "object"), "'a2' has 4 usable .*'n2'"),
        (lambda: decode_neurons(images(), "category"), "averages alone"),
        (lambda: decode_neurons(population(), "object", hold_out="stimulus"), "'a' has 2 stimuli"),
        (lambda: decode_neurons(population().expand_dims(time=[1, 2]), "object"), "time bins"),
        (lambda: decode_neurons(population(), "object", classifier="tree"), "classifier"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


# ----------------------------------------------------------------------------------------------------- known values


@pytest.fixture(scope="module")
def seven_objects():
    with np.load(DATA / "counts.npz") as file:
        counts, objects, positions = file["counts_100_300ms"], file["objects"], file["positions"]
        units = file["unit_files"]
    names = [f"{o}/{p}" for o, p in product(objects, positions)]
    return xr.DataArray(
        counts.astype(np.float64).reshape(len(units), len(names), -1),
        dims=("neuron", "stimulus", "repetition"),
        coords={
            "stimulus": names,
            "neuron": units,
            "object": ("stimulus", [n.split("/")[0] for n in names]),
            "position": ("stimulus", [n.split("/")[1] for n in names]),
        },
    )


@pytest.mark.skipif(not DATA.is_dir(), reason="ACTKIT_DATA names no folder with zhang_desimone_it_7objects")
@pytest.mark.parametrize("classifier", list(PLAIN))
def test_seven_objects_are_decoded_within_and_across_positions(seven_objects, classifier):
    both = ("object", "position")
    one = decode_neurons(seven_objects, *both, classifier=classifier, n_draws=1)
    others = decode_neurons(seven_objects, *both, classifier=classifier, n_draws=1, train_on="others")
    own = decode_neurons(seven_objects, *both, classifier=classifier, n_draws=1, standardise="condition")
    assert float(one["chance"]) == pytest.approx(1 / 7)
    within, across, rest, aligned = (
        float(v[0]) for v in (one["within"], one["across"], others["across"], own["across"])
    )
    # Known, scaling and training set unstated: .91-.96 within and .77-.85 across, both ± .02. Across, that is
    # what two positions teach about the third; a single one teaches less, unless positions are scaled by themselves.
    assert 0.89 <= within <= 0.98
    assert 0.75 <= rest <= 0.87
    assert 0.75 <= aligned <= 0.87
    assert 0.71 <= across <= 0.80
    assert across < min(rest, aligned)
