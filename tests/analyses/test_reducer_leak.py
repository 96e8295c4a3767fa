import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from actkit.analyses.encoding import encode
from actkit.analyses.encoding_banded import encode_banded
from actkit.analyses.reducer_leak import check_reducer_leak, fitted_on
from actkit.errors import InputError
from actkit.extractors.record import extract
from actkit.network import Network
from actkit.stimuli import Stimuli

N = 60
IDS = [f"img{i:02d}" for i in range(N)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Stores of one small network: untouched, projected, and reduced by components of half of the stimuli."""
    images = np.random.default_rng(0).random((N, 3, 8, 8), dtype=np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), name="small", input_shape=(3, 8, 8))
    stimuli, folder = Stimuli.from_array(images, ids=IDS), tmp_path_factory.mktemp("stores")
    return {
        how: extract(network, stimuli, folder / f"{how}.zarr", layers="0", reduce=how, batch=8, progress=False, **more)
        for how, more in {
            "none": {},
            "projection": {"components": 20},
            "pca": {"components": 5, "fit_stimuli": 30, "seed": 1},
        }.items()
    }


def responses(ids):
    values = np.random.default_rng(1).normal(size=(len(ids), 3))
    return xr.DataArray(values, dims=("stimulus", "neuron"), coords={"stimulus": list(ids), "neuron": ["a", "b", "c"]})


@pytest.mark.parametrize("how", ["store", "path", "mapping", "array"])
@pytest.mark.parametrize("analysis", [encode, encode_banded])
def test_components_of_held_out_stimuli_are_refused_and_others_are_not(recorded, how, analysis):
    store = recorded["pca"]
    fitted = store.attrs["pca_fit_stimuli"]
    assert fitted_on(store, "0") == frozenset(fitted)
    others = [name for name in IDS if name not in fitted]
    array = store["0"].assign_attrs(pca_fit_stimuli=fitted)
    given = {"store": store, "path": store.path, "mapping": {"0": array}, "array": array}[how]
    settings = {"penalties": [1.0], "folds": 3}
    banded = analysis is encode_banded and how != "mapping"
    with pytest.raises(InputError, match=r"principal components of 30 stimuli, 30 of which are held out.*'none' or"):
        analysis({"0": given} if banded else given, responses(IDS), **settings)
    with pytest.raises(InputError, match=r"1 of which are held out in some fold here \(the first is 'img"):
        analysis({"0": given} if banded else given, responses([*others, fitted[3]]), **settings)
    result = analysis({"0": given} if banded else given, responses(others), **settings)
    assert result.attrs["n_stimuli"] == 30


@pytest.mark.parametrize("how", ["none", "projection"])
def test_what_is_fixed_without_stimuli_passes(recorded, how):
    assert fitted_on(recorded[how], "0") is None
    assert encode(recorded[how], responses(IDS), penalties=[1.0], folds=3).attrs["n_stimuli"] == N


def test_an_array_that_does_not_say_what_its_axes_saw_is_refused(recorded):
    array = recorded["pca"]["0"]
    assert array.attrs["reduced"] == "pca"
    with pytest.raises(InputError, match=r"does not say to which stimuli.*give the store itself"):
        encode(array, responses(IDS), penalties=[1.0])
    encode(array.values, responses(IDS), penalties=[1.0], ids=IDS)  # bare numbers say nothing


def test_only_layers_in_use_and_stimuli_that_are_tested_count(recorded):
    store = recorded["pca"]
    fitted = store.attrs["pca_fit_stimuli"]
    check_reducer_leak(store, [], IDS)
    check_reducer_leak(store, ["0"], [name for name in IDS if name not in fitted])
    with pytest.raises(InputError, match="which are in the test set here"):
        check_reducer_leak(store, ["0"], fitted[:2], "in the test set")


def test_components_of_held_out_stimuli_do_raise_scores():
    # Why it is refused: few stimuli, many units, and the part of the noise that responses share with units.
    rng = np.random.default_rng(2)
    gain = []
    for _ in range(6):
        x = rng.normal(size=(40, 2000))
        u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        y = xr.DataArray(
            u[:, :1] @ np.ones((1, 5)) + 0.05 * rng.normal(size=(40, 5)),
            dims=("stimulus", "neuron"),
            coords={"stimulus": IDS[:40], "neuron": list("abcde")},
        )
        inside = encode(u[:, :3] * s[:3], y, ids=IDS[:40], penalties=[1e-3])["explained_variance"].median()
        outside = encode(x, y, ids=IDS[:40], penalties=[1e-3])["explained_variance"].median()
        gain.append(float(inside - outside))
    assert np.median(gain) > 0.3
