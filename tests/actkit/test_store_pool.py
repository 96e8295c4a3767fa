"""Stores averaged over the images of a row: against a plain mean, from any order, with what the layer is kept."""

import numpy as np
import pytest
import xarray as xr

import actkit
from actkit.errors import InputError
from actkit.store import open_store, store_from_arrays, verify_store
from actkit.store_plan import StorePlan, plan_layer
from actkit.store_pool import pool_store
from actkit.store_write import create_store

RNG = np.random.default_rng(0)
ROWS = np.array(["sofa", "cup", "sofa", "car", "cup", "sofa", "car"])
FLAT, MAPS = RNG.normal(size=(7, 5)).astype(np.float32), RNG.normal(size=(7, 3, 2, 2)).astype(np.float32)


@pytest.fixture
def images(tmp_path):
    return store_from_arrays(
        tmp_path / "images.zarr",
        {"fc": FLAT, "conv": MAPS},
        ids=[f"image{i}" for i in range(7)],
        labels={"category": ROWS, "number": np.arange(7), "alive": ROWS == "cup"},
        attrs={"network": "small"},
        block=3,
        chunk_bytes=32,
    )


@pytest.mark.parametrize("rows", ["category", ROWS])
def test_rows_are_plain_means(images, tmp_path, rows):
    pooled = pool_store(images, rows, tmp_path / "rows.zarr")
    assert pooled.ids.tolist() == ["sofa", "cup", "car"]
    assert pooled.layers == ("fc", "conv")
    assert pooled.dims("conv") == ("channel", "y", "x")
    for layer, values in (("fc", FLAT), ("conv", MAPS)):
        expected = [values[row == ROWS].astype(np.float64).mean(axis=0) for row in ("sofa", "cup", "car")]
        np.testing.assert_allclose(pooled[layer].values, expected, rtol=1e-6, atol=1e-7)
    assert pooled.labels["n_images"].tolist() == [3, 2, 2]
    assert pooled.labels["alive"].tolist() == [False, True, False]
    assert "number" not in pooled.labels
    assert pooled.attrs["network"] == "small"
    assert pooled.attrs["pooled_from"] == images.fingerprint
    assert verify_store(tmp_path / "rows.zarr") == []


def test_rows_are_chosen_and_ordered(images, tmp_path):
    pooled = pool_store(tmp_path / "images.zarr", "category", tmp_path / "a.zarr", ids=["car", "sofa"], layers=["conv"])
    assert pooled.ids.tolist() == ["car", "sofa"]
    assert pooled.layers == ("conv",)
    expected = MAPS[ROWS == "car"].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(pooled["conv"].values[0], expected, rtol=1e-6, atol=1e-7)
    others = pool_store(images, "category", tmp_path / "b.zarr", ids=["sofa", "car"], layers=["conv"])
    assert others.fingerprint != pooled.fingerprint


def test_spans_of_units_are_put_together(images, tmp_path, monkeypatch):
    whole = pool_store(images, "category", tmp_path / "a.zarr")
    monkeypatch.setattr("actkit.store_pool._MOST_BYTES", 1)  # a chunk at a time
    monkeypatch.setattr("actkit.store_pool._BLOCK", 2)
    pieces = pool_store(images, "category", tmp_path / "b.zarr")
    for layer in ("fc", "conv"):
        np.testing.assert_array_equal(pieces[layer].values, whole[layer].values)


def test_a_reduced_layer_stays_one(tmp_path):
    layer = plan_layer("fc", (5,), ("unit",), 7, 7, attrs={"reduced": "pca", "fitted_on": ["a"]})
    plan = StorePlan(tmp_path / "x.zarr", tuple("abcdefg"), {}, (layer,), 7, {}, "0" * 64)
    with create_store(plan) as writer:
        writer.write_block(0, {"fc": FLAT})
        writer.complete()
    pooled = pool_store(open_store(tmp_path / "x.zarr"), ROWS, tmp_path / "rows.zarr")
    assert pooled.layer_attrs("fc")["reduced"] == "pca"
    assert pooled.layer_attrs("fc")["fitted_on"] == ["a"]
    ids = pooled.ids
    neurons = xr.DataArray(np.eye(3), dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": ["a", "b", "c"]})
    with pytest.raises(InputError, match="reduced by pca"):
        actkit.match_units(pooled, neurons, folds=3)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ("categry", {}, "no label 'categry' to pool by; nearest: 'category'"),
        (ROWS[:4], {}, "4 rows for 7 stimuli"),
        ("category", {"ids": ["sofa", "bed"]}, "no stimulus belongs to the row 'bed'"),
        ("category", {"layers": ["fcc"]}, "no layer 'fcc'; nearest: 'fc'"),
        ("category", {"layers": []}, "no layer"),
    ],
)
def test_what_does_not_fit_is_named(images, tmp_path, rows, options, words):
    with pytest.raises(InputError, match=words):
        pool_store(images, rows, tmp_path / "rows.zarr", **options)
    assert not (tmp_path / "rows.zarr").exists()
