"""Nothing that is learnt for a fold depends on the stimuli it holds out, and copies of a stimulus stay in one fold.

Black boxes: all that an analysis knows of the held-out stimuli of one fold is replaced, and what it learnt for that
fold must stay as it was.
"""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import xarray as xr

from actkit import load_data
from actkit.analyses import decoding_neurons, matched_transfer
from actkit.analyses.decoding_neurons import decode_neurons
from actkit.analyses.encoding import encode
from actkit.analyses.encoding_banded import encode_banded
from actkit.analyses.matched_transfer import transfer
from actkit.analyses.soft_matching import soft_match
from actkit.analyses.unit_matching import match_units
from actkit.analyses.variance_partitioning import partition_variance

Array = np.ndarray[Any, Any]
DATA = Path(os.environ.get("ACTKIT_DATA", "nowhere"))


def named(n: int) -> list[str]:
    return [f"s{i}" for i in range(n)]


def recording(values: Array, **coords: Any) -> xr.DataArray:
    """Averages, or single presentations, of neurons n0, n1, …."""
    dims = ("stimulus", "neuron") if values.ndim == 2 else ("stimulus", "repetition", "neuron")
    names = {"stimulus": named(len(values)), "neuron": [f"n{j}" for j in range(values.shape[-1])]}
    return xr.DataArray(values, dims=dims, coords=names | {key: ("stimulus", v) for key, v in coords.items()})


def units(values: Array) -> xr.DataArray:
    return xr.DataArray(values, dims=("stimulus", "unit"), coords={"stimulus": named(len(values))})


def linked(n: int = 90, p: int = 30, q: int = 8, noise: float = 1.2, seed: int = 0) -> tuple[Array, Array]:
    """Units away from zero, and neurons that are noisy copies of some."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) + 2
    return x, x[:, :q] + noise * rng.standard_normal((n, q)) + 5


def replaced(values: Array, rows: Array, seed: int = 0) -> Array:
    """The same with other, louder values in some rows."""
    out = values.copy()
    out[rows] = 30 * np.random.default_rng(100 + seed).standard_normal(out[rows].shape)
    return out


# Replacing what is held out


@pytest.mark.parametrize("assignment", ["best", "mutual", "one_to_one"])
def test_units_and_layers_are_chosen_without_the_held_out_stimuli(assignment: str) -> None:
    x, y = linked()
    late, more = linked(seed=1)
    y[:, 4:] = more[:, 4:]  # half of the neurons are linked with the other layer
    layers = {"early": x, "late": late}
    kind = np.arange(90) % 3
    kept = {"assignment": assignment, "n_permutations": 0, "labels": kind}
    first = match_units(layers, y, **kept)
    fold = first["fold_of_stimulus"].values
    assert len(np.unique(first["best_layer"])) == 2
    for f in range(5):
        out = fold == f
        again = match_units({name: replaced(v, out) for name, v in layers.items()}, replaced(y, out, 1), **kept)
        np.testing.assert_array_equal(again["fold_of_stimulus"].values, fold)
        for name in ("unit", "channel", "mutual", "best_layer"):
            np.testing.assert_array_equal(again[name].isel(fold=f), first[name].isel(fold=f), err_msg=name)
        np.testing.assert_allclose(again["r_train"].isel(fold=f), first["r_train"].isel(fold=f), atol=1e-10)
        held_out = np.abs(again["r"].isel(fold=f) - first["r"].isel(fold=f)).max()
        assert float(held_out) > 0.1  # what is replaced is what is scored
        assert not np.array_equal(again["r_train"].isel(fold=(f + 1) % 5), first["r_train"].isel(fold=(f + 1) % 5))


@pytest.mark.parametrize(
    "model",
    [
        {"model": "ridge", "penalties": list(np.logspace(-8, 8, 17))},
        {"model": "pls", "components": 3, "standardise_neurons": True},
    ],
    ids=lambda model: model["model"],
)
def test_maps_are_learnt_without_the_held_out_stimuli(model: dict[str, Any]) -> None:
    """One held-out stimulus keeps its activations: its prediction shows whether the map has changed."""
    x, y = linked(p=200, q=6)
    y *= 1 + np.arange(6)
    learnt = "penalty" if model["model"] == "ridge" else "n_components"
    first = encode(units(x), recording(y), keep_predictions=True, **model)
    fold = first["test_fold"].values
    for f in range(5):
        out = np.flatnonzero(fold == f)
        witness, others = out[0], out[1:]
        again = encode(units(replaced(x, others)), recording(replaced(y, out, 1)), keep_predictions=True, **model)
        np.testing.assert_array_equal(again["test_fold"].values, fold)
        np.testing.assert_array_equal(again[learnt].isel(fold=f), first[learnt].isel(fold=f))
        one, other = (result["predicted"].values[0, witness] for result in (first, again))
        np.testing.assert_allclose(other, one, atol=1e-7)
        elsewhere = np.flatnonzero(fold != f)
        assert np.abs((again["predicted"] - first["predicted"]).values[0, elsewhere]).max() > 0.1


def test_bands_are_scaled_and_weighted_without_the_held_out_stimuli() -> None:
    x, y = linked(p=60, q=6)
    bands = {"near": x[:, :30], "far": 100 * x[:, 30:]}
    settings: dict[str, Any] = {"penalties": list(np.logspace(-6, 6, 13)), "n_candidates": 6, "keep_predictions": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # folds that learn from what was replaced may want no map at all
        first = encode_banded({name: units(band) for name, band in bands.items()}, recording(y), **settings)
        fold = first["test_fold"].values
        for f in range(0, 5, 2):
            out = np.flatnonzero(fold == f)
            loud = {name: units(replaced(band, out[1:])) for name, band in bands.items()}
            again = encode_banded(loud, recording(replaced(y, out, 1)), **settings)
            for name in ("penalty", "band_weight"):
                np.testing.assert_array_equal(again[name].isel(fold=f), first[name].isel(fold=f), err_msg=name)
            one, other = (result["predicted"].values[out[0]] for result in (first, again))
            np.testing.assert_allclose(other, one, atol=1e-6)
            assert not np.array_equal(again["penalty"], first["penalty"])


def watched(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[tuple[Array, ...]]:
    """What every classifier is given, in the order of the calls."""
    seen: list[tuple[Array, ...]] = []

    def classify(train: Array, classes: Array, test: Array, *rest: Any) -> Array:
        seen.append((train.copy(), np.asarray(classes).copy(), test.copy()))
        return np.resize(classes, len(test))

    monkeypatch.setattr(module, "classify", classify)
    return seen


@pytest.mark.parametrize("standardise", ["training", "condition"])
@pytest.mark.parametrize("hold_out", ["stimulus", "repetition"])
def test_decoders_learn_and_scale_without_the_held_out_samples(
    monkeypatch: pytest.MonkeyPatch, hold_out: str, standardise: str
) -> None:
    """One sample is made loud: wherever it is not trained on, training sets and other samples stay bit for bit."""
    rng = np.random.default_rng(2)
    shape = (40, 6) if hold_out == "stimulus" else (40, 5, 6)
    values = rng.standard_normal(shape)
    loud = values.copy()
    loud[(7, *[2] * (len(shape) - 2))] += 1e4
    kind, place = np.array(list("ab") * 20), np.repeat(["left", "right"], 20)
    seen = watched(monkeypatch, decoding_neurons)
    settings = {"hold_out": hold_out, "standardise": standardise, "n_draws": 1, "trials": "pseudo"}
    if hold_out == "repetition":
        settings["trials"] = "simultaneous"  # the loud presentation is then one sample
    for array in (values, loud):
        decode_neurons(recording(array, kind=kind, place=place), "kind", "place", **settings)
    assert len(seen) == 20  # five folds in two places, twice
    clean = alone = 0
    for (train, classes, test), (train_too, classes_too, test_too) in zip(seen[:10], seen[10:], strict=True):
        np.testing.assert_array_equal(classes, classes_too)
        moved = int((test != test_too).any(axis=1).sum())
        if np.array_equal(train, train_too) and moved <= 1:
            clean, alone = clean + 1, alone + moved
    # It is held out once from either place's classifier, and nothing else moves there. The other place never trains on
    # it; scaled by itself, the loud place moves as a whole where the loud sample is one of those that scale it.
    assert alone == 2
    assert clean == {"training": 6, "condition": 2}[standardise]


def test_transfer_learns_and_scales_without_the_held_out_stimuli(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = linked()
    kind = np.arange(90) % 3
    seen = watched(monkeypatch, matched_transfer)
    found = []
    fold = match_units(units(x), recording(y), n_permutations=0)["fold_of_stimulus"].values
    out = np.flatnonzero(fold == 3)
    for a, b in ((x, y), (replaced(x, out), replaced(y, out, 1))):
        match = match_units(units(a), recording(b), n_permutations=0)
        before = len(seen)
        transfer(match, units(a), recording(b, kind=kind), "kind", n_permutations=1)
        found.append(seen[before:])
    same = 0
    for (train, classes, test), (train_too, classes_too, test_too) in zip(*found, strict=True):
        np.testing.assert_array_equal(classes, classes_too)
        if np.array_equal(train, train_too):
            same += 1
            assert (test != test_too).any(axis=1).all()  # all that is tested there was replaced
    # Every fold has as many classifiers. Units drawn at random as a control are others, since they are not the units
    # that were matched in any fold.
    assert same >= len(found[0]) // 5 - 1 >= 4


# Copies


def copies(n: int = 60, p: int = 400, q: int = 30, seed: int = 3) -> tuple[Array, Array, Array]:
    """Every stimulus twice, units and neurons without any relation, and the number of the stimulus."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.tile(np.arange(n), 2))
    x, y = rng.standard_normal((n, p))[order], rng.standard_normal((n, q))[order]
    return x, y + 0.01 * rng.standard_normal(y.shape), order


def test_copies_stay_together_by_default_in_matching_and_encoding() -> None:
    x, y, image = copies()
    recorded = recording(y, group=image)
    matched = match_units(units(x), recorded, n_permutations=0)
    encoded = encode(units(x), recorded, penalties=[0.1])
    for fold in (matched["fold_of_stimulus"].values, encoded["test_fold"].values):
        assert all(len(set(fold[image == one])) == 1 for one in range(60))
    assert abs(float(matched["median_r"][0])) < 0.06
    assert abs(float(encoded["r"].median())) < 0.1
    # Where only the stimuli of the source say which are copies, that is enough.
    source = units(x).assign_coords(group=("stimulus", image))
    told = match_units(source, recording(y), n_permutations=0)
    np.testing.assert_array_equal(told["fold_of_stimulus"], matched["fold_of_stimulus"])
    # Without the groups both would find what is not there.
    bare = recording(y)
    assert float(match_units(units(x), bare, n_permutations=0)["median_r"][0]) > 0.2
    with pytest.warns(UserWarning, match="same activations"):
        assert float(encode(units(x), bare, penalties=[0.1])["r"].median()) > 0.4


@pytest.mark.parametrize("name", ["match", "soft", "banded", "partition"])
def test_every_analysis_keeps_copies_together_unasked(name: str) -> None:
    if name == "soft":
        pytest.importorskip("ot", reason="soft matching needs POT")
    x, y, image = copies(n=30, p=20, q=4)
    recorded, bands = recording(y, group=image), {"a": units(x[:, :10]), "b": units(x[:, 10:])}
    ridge: dict[str, Any] = {"penalties": [1.0], "n_candidates": 3}
    result = {
        "match": lambda: match_units(units(x), recorded, n_permutations=0),
        "soft": lambda: soft_match(units(x), recorded, n_draws=1),
        "banded": lambda: encode_banded(bands, recorded, **ridge),
        "partition": lambda: partition_variance(bands, recorded, n_draws=0, **ridge),
    }[name]()
    assert "30 groups kept whole" in result.attrs["splitting"]
    coordinate = next((key for key in ("fold_of_stimulus", "test_fold") if key in result.coords), None)
    if coordinate:
        fold = result[coordinate].values
        assert all(len(set(fold[image == one])) == 1 for one in range(30))


def test_copies_change_places_together_in_the_null() -> None:
    """Were copies separated, the null would be of twice as many stimuli, and too narrow for unrelated neurons."""
    rate = []
    for seed in range(3):
        x, y, image = copies(n=30, p=30, q=60, seed=seed)
        rate.append(match_units(units(x), recording(y, group=image), n_permutations=39, seed=seed)["p_value"].values)
    false = int((np.concatenate(rate) <= 0.05).sum())
    assert false <= 20  # of 180: a binomial of .05 exceeds that once in 1000


def test_copies_do_not_help_a_decoder_or_a_transfer() -> None:
    _, y, image = copies(q=200)
    kind = (np.random.default_rng(4).permutation(60) % 2).astype(str)[image]
    recorded = recording(y, group=image, kind=kind)
    held = decode_neurons(recorded, "kind", groups="group", hold_out="stimulus", n_draws=3)
    assert float(held["within"][0]) < 0.65
    default = decode_neurons(recorded, "kind", hold_out="stimulus", n_draws=3)
    assert default["within"].identical(held["within"])  # the coordinate group is respected unasked
    leaky = decode_neurons(recording(y, kind=kind), "kind", hold_out="stimulus", n_draws=1)
    assert float(leaky["within"][0]) > 0.8
    # A transfer has the folds of its match, and these keep copies together.
    source = units(y @ np.random.default_rng(5).standard_normal((200, 300)))
    scores = {}
    for name, array in (("grouped", recorded), ("bare", recorded.drop_vars("group"))):
        match = match_units(source, array, n_permutations=0)
        scores[name] = transfer(match, source, array, "kind", n_permutations=1)
    assert float(scores["grouped"]["neurons"][0]) < 0.65 < float(scores["bare"]["neurons"][0])
    assert float(scores["grouped"]["transfer"][0]) < 0.65


@pytest.mark.skipif(not (DATA / "cowley2023_v4").is_dir(), reason="ACTKIT_DATA names no folder with cowley2023_v4")
def test_no_picture_of_v4_190925_is_on_both_sides_of_a_split() -> None:
    """300 of its 900 pictures are stored twice; groups are those of the data set, pictures are compared anew here."""
    recorded = load_data("cowley2023_v4_190925")["averages"]
    with ZipFile(DATA / "cowley2023_v4" / "images_190925.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        files = [archive.read(name) for name in names]
    _, picture = np.unique(np.array([hash(file) for file in files]), return_inverse=True)
    assert np.bincount(picture).tolist().count(2) == 300
    from PIL import Image

    pixels = np.stack([np.asarray(Image.open(BytesIO(file)).convert("L").resize((8, 8))).ravel() for file in files])
    source = xr.DataArray(
        pixels.astype(np.float32), dims=("stimulus", "unit"), coords={"stimulus": recorded["stimulus"].values}
    )
    matched = match_units(source, recorded, n_permutations=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # copies in different folds would warn
        encoded = encode(source, recorded, penalties=[10.0])
    for fold in (matched["fold_of_stimulus"].values, encoded["test_fold"].values):
        parts = {(int(p), int(f)) for p, f in zip(picture, fold, strict=True)}
        assert len(parts) == 900
