"""Distances of repeated observations: closed forms, rsatoolbox where it is right, and planted truth."""

import itertools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from actkit.analyses import products
from actkit.analyses.noise_precision import noise_covariance
from actkit.analyses.rdm import rdm
from actkit.errors import InputError
from actkit.results import load, save
from actkit.store import store_from_arrays

rsatoolbox_warns = pytest.mark.filterwarnings("ignore")
NOISES = ("none", "diagonal", "shrinkage_eye", "shrinkage_diag")


def ids(n):
    return [f"s{k:02d}" for k in range(n)]


def recording(n=6, folds=3, each=2, p=40, seed=0, rates=False):
    """Observations (stimulus, repetition, neuron) whose repetitions belong to sessions."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(p) + 0.4 * rng.normal(size=(p, p)) / np.sqrt(p)
    x = 2 * rng.normal(size=(n, 1, p)) + rng.normal(size=(n, folds * each, p)) @ mixing + 5
    if rates:
        x = rng.poisson(np.exp(0.5 * x - 1)).astype(float)
    session = np.repeat([f"day{f}" for f in range(folds)], each)
    coords = {"stimulus": ids(n), "session": ("repetition", session)}
    return xr.DataArray(x, dims=("stimulus", "repetition", "neuron"), coords=coords, name="IT")


def long_form(data, seed=1):
    """The same observations one below the other, shuffled."""
    rows = data.transpose("stimulus", "repetition", "neuron").values.reshape(-1, data.sizes["neuron"])
    stimulus = np.repeat(data.stimulus.values, data.sizes["repetition"])
    session = np.tile(data.session.values, data.sizes["stimulus"])
    order = np.random.default_rng(seed).permutation(len(rows))
    coords = {"image": ("observation", stimulus[order]), "session": ("observation", session[order])}
    return xr.DataArray(rows[order], dims=("observation", "neuron"), coords=coords)


def residuals(data):
    x = data.values
    return (x - x.mean(axis=1, keepdims=True)).reshape(-1, x.shape[2])


def precision(data, noise):
    """Inverse noise covariance, p × p."""
    p = data.sizes["neuron"]
    if noise == "none":
        return np.eye(p)
    n, repetitions = data.sizes["stimulus"], data.sizes["repetition"]
    return np.linalg.inv(noise_covariance(residuals(data), noise, n * (repetitions - 1)).matrix())


def plain_crossed(left, right, weight):
    """Mean over pairs of folds of (A_if − A_jf) W (B_ig − B_jg), pair by pair; left and right are (fold, n, p)."""
    n_folds, n = left.shape[:2]
    square = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        found = [
            (left[f, i] - left[f, j]) @ weight @ (right[g, i] - right[g, j])
            for f, g in itertools.permutations(range(n_folds), 2)
        ]
        square[i, j] = square[j, i] = np.mean(found)
    return squareform(square)


def by_session(data):
    return np.stack([data.values[:, data.session.values == s].mean(axis=1) for s in np.unique(data.session)])


def dataset(data):
    """The observations as rsatoolbox has them."""
    from rsatoolbox.data import Dataset

    rows = data.values.reshape(-1, data.sizes["neuron"])
    descriptors = {
        "stimulus": np.repeat(data.stimulus.values, data.sizes["repetition"]),
        "session": np.tile(data.session.values, data.sizes["stimulus"]),
    }
    return Dataset(rows, obs_descriptors=descriptors)


@pytest.mark.parametrize("p", [7, 200])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("each", [1, 2])
def test_crossnobis_is_its_definition_and_rsatoolboxs(noise, p, each):
    """rsatoolbox divides by the number of channels: the convention "mean"."""
    from rsatoolbox.rdm import calc_rdm

    data = recording(each=each, p=p)
    weight = precision(data, noise)
    ours = rdm(data, method="crossnobis", folds="session", noise=noise).dissimilarity.values[0]
    sessions = by_session(data)
    np.testing.assert_allclose(ours, plain_crossed(sessions, sessions, weight), rtol=1e-9)
    theirs = calc_rdm(
        dataset(data), method="crossnobis", descriptor="stimulus", noise=weight, cv_descriptor="session"
    ).dissimilarities[0]
    mean = rdm(data, method="crossnobis", folds="session", noise=noise, scale="mean").dissimilarity.values[0]
    np.testing.assert_allclose(mean, theirs, rtol=1e-9)
    np.testing.assert_allclose(ours, p * mean, rtol=1e-12)


@pytest.mark.parametrize("p", [7, 200])
@pytest.mark.parametrize("noise", NOISES[1:])
def test_mahalanobis_is_its_definition_and_rsatoolboxs(noise, p):
    from rsatoolbox.data.noise import prec_from_unbalanced
    from rsatoolbox.rdm import calc_rdm

    data = recording(p=p)
    weight = precision(data, noise)
    means = data.values.mean(axis=1)
    reference = pdist(means, lambda a, b: (a - b) @ weight @ (a - b))
    result = rdm(data, method="mahalanobis", noise=noise)
    np.testing.assert_allclose(result.dissimilarity.values[0], reference, rtol=1e-9)
    theirs_noise = prec_from_unbalanced(dataset(data), "stimulus", method={"diagonal": "diag"}.get(noise, noise))
    theirs = calc_rdm(dataset(data), method="mahalanobis", descriptor="stimulus", noise=theirs_noise)
    mean = rdm(data, method="mahalanobis", noise=noise, scale="mean").dissimilarity.values
    np.testing.assert_allclose(mean, theirs.dissimilarities, rtol=1e-9)
    assert result.attrs["repetition_source"] == "recorded"
    assert ("shrinkage" in result) == (noise != "diagonal")


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_poisson_is_the_divergence_and_rsatoolboxs(scale):
    from rsatoolbox.rdm import calc_rdm

    data = recording(rates=True)
    rates = (data.values.mean(axis=1) + 0.3 * 0.2) / 1.2
    reference = pdist(rates, lambda a, b: (a - b) @ (np.log(a) - np.log(b))) / (40 if scale == "mean" else 1)
    settings = {"prior_lambda": 0.3, "prior_weight": 0.2}
    ours = rdm(data, method="poisson", scale=scale, **settings)
    np.testing.assert_allclose(ours.dissimilarity.values[0], reference, rtol=1e-12)
    theirs = calc_rdm(dataset(data), method="poisson", descriptor="stimulus", **settings).dissimilarities[0]
    np.testing.assert_allclose(theirs * (1 if scale == "mean" else 40), reference, rtol=1e-12)


@rsatoolbox_warns
def test_poisson_cv_averages_the_folds_where_rsatoolbox_keeps_the_last():
    """calc_rdm overwrites its RDM fold by fold and returns the last; calc_rdm_unbalanced averages over all."""
    from rsatoolbox.rdm import calc_rdm, calc_rdm_unbalanced

    data = recording(folds=4, each=1, rates=True)
    sessions = (by_session(data) + 0.1) / 1.1
    folds = plain_crossed(sessions, np.log(sessions), np.eye(40))
    ours = rdm(data, method="poisson_cv", folds="session", scale="mean").dissimilarity.values[0]
    np.testing.assert_allclose(ours, folds / 40, rtol=1e-11)
    common = {"method": "poisson_cv", "descriptor": "stimulus", "cv_descriptor": "session"}
    np.testing.assert_allclose(ours, calc_rdm_unbalanced(dataset(data), **common).dissimilarities[0], rtol=1e-11)
    last = calc_rdm(dataset(data), **common).dissimilarities[0]
    train, test = sessions[:3].mean(axis=0), np.log(sessions[3])
    by_hand = pdist(np.hstack([train, test]), lambda a, b: (a[:40] - b[:40]) @ (a[40:] - b[40:]) / 40)
    np.testing.assert_allclose(last, by_hand, rtol=1e-11)
    assert np.corrcoef(last, ours)[0, 1] < 0.98


@pytest.mark.parametrize("method", ["correlation", "cosine", "euclidean", "sqeuclidean"])
def test_patterns_are_averaged_over_repetitions(method):
    data = recording()
    reference = pdist(data.values.mean(axis=1), method)
    np.testing.assert_allclose(rdm(data, method=method).dissimilarity.values[0], reference, rtol=1e-11)
    np.testing.assert_allclose(
        rdm(long_form(data), method=method, stimuli="image").sortby("stimulus").n_units.values, [40]
    )
    factor = {"euclidean": np.sqrt(40), "sqeuclidean": 40}.get(method, 1)
    mean = rdm(data, method=method, scale="mean").dissimilarity.values[0]
    np.testing.assert_allclose(mean * factor, reference, rtol=1e-11)


def test_squared_distance_is_rsatoolboxs_euclidean():
    from rsatoolbox.rdm import calc_rdm

    data = recording()
    theirs = calc_rdm(dataset(data), method="euclidean", descriptor="stimulus").dissimilarities
    np.testing.assert_allclose(rdm(data, method="sqeuclidean", scale="mean").dissimilarity, theirs, rtol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
def test_all_forms_of_input_give_the_same(tmp_path, noise):
    """A dim, long rows, rows of one store with labels, and a store for each repetition."""
    data = recording(n=5, folds=2, each=2, p=30)
    settings = {"method": "crossnobis", "folds": "session", "noise": noise}
    reference = rdm(data, **settings)
    long = long_form(data)
    shuffled = rdm(long, stimuli="image", **settings)
    assert sorted(shuffled.stimulus.values.tolist()) == ids(5)
    from actkit.recordings import select_stimuli

    np.testing.assert_allclose(
        select_stimuli(shuffled, ids(5)).dissimilarity, reference.dissimilarity, rtol=1e-9, atol=1e-9
    )
    renamed = long.rename(image="stimulus")
    np.testing.assert_allclose(rdm(renamed, **settings).dissimilarity, shuffled.dissimilarity, rtol=1e-12)
    along = xr.DataArray(
        long.values,
        dims=("stimulus", "neuron"),
        coords={"stimulus": long.image.values, "session": ("stimulus", long.session.values)},
    )
    np.testing.assert_allclose(rdm(along, **settings).dissimilarity, shuffled.dissimilarity, rtol=1e-12)
    one = store_from_arrays(
        tmp_path / "one.zarr",
        {"IT": long.values},
        ids=[f"row{k}" for k in range(len(long))],
        labels={"image": long.image.values, "session": long.session.values},
    )
    settings["repetitions"] = "augmentation"
    near = {"rtol": 1e-4, "atol": 1e-4}  # stores keep float32
    from_one = rdm(one, stimuli="image", **settings)
    np.testing.assert_allclose(from_one.dissimilarity, shuffled.dissimilarity, **near)
    stores = {}
    for r in range(4):
        order = np.random.default_rng(r).permutation(5)
        stores[f"take{r}"] = store_from_arrays(
            tmp_path / f"{r}.zarr",
            {"IT": data.values[order, r]},
            ids=np.array(ids(5))[order].tolist(),
            labels={"session": np.full(5, str(data.session.values[r]))},
            chunk_bytes=[400, 4096, 777, 120][r],
        )
    paths = {name: str(store.path) for name, store in stores.items()}
    for several in (stores, list(stores.values()), paths, list(paths.values())):
        made = rdm(several, memory="100kB", **settings)
        np.testing.assert_allclose(select_stimuli(made, ids(5)).dissimilarity, reference.dissimilarity, **near)
        assert made.attrs["n_observations"] == 20
        assert made.attrs["fold_names"] == ["day0", "day1"]
        assert made.attrs["repetition_source"] == "augmentation"
    settings["folds"] = "repetition"
    assert rdm(stores, **settings).attrs["fold_names"] == list(stores)


def test_blocks_and_memory_do_not_change_the_answer(monkeypatch):
    data = recording(p=150)
    for noise, method in itertools.product(NOISES, ("crossnobis", "mahalanobis")):
        if (noise, method) == ("none", "mahalanobis"):
            continue
        folds = {"folds": "session"} if method == "crossnobis" else {}
        whole = rdm(data, method=method, noise=noise, **folds)
        monkeypatch.setattr(products, "CACHE", 1)
        cut = rdm(data, method=method, noise=noise, memory="4MB", **folds)
        monkeypatch.undo()
        np.testing.assert_allclose(cut.dissimilarity, whole.dissimilarity, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("noise", NOISES)
def test_memory_is_bounded(noise):
    """72 MB of observations, never a units × units matrix (that of 300,000 units has 720 GB)."""

    class Blocks:
        layers, path, fingerprint, attrs = ("fc",), "x.zarr", "f", {"network": "net"}
        ids = np.array([f"r{k}" for k in range(60)])
        labels = {"image": np.tile(ids[:20], 3), "session": np.repeat(["a", "b", "c"], 20)}

        def n_units(self, layer):
            return 300_000

        def unit_blocks(self, layer, most):
            step = most // (2 * 4 * 60)
            for start in range(0, 300_000, step):
                rng = np.random.default_rng(start)
                size = (60, min(step, 300_000 - start))
                yield start, start + size[1], rng.standard_normal(size, dtype=np.float32)

    settings = {"stimuli": "image", "folds": "session", "repetitions": "noise", "noise": noise}
    tracemalloc.start()
    rdm(Blocks(), method="crossnobis", memory="15MB", **settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6
    with pytest.raises(InputError, match="layer 'fc': memory='100kB' is too small"):
        rdm(Blocks(), method="crossnobis", memory="100kB", **settings)


def test_crossnobis_is_unbiased_and_negative_values_stay():
    """Stimuli without true differences: about half of the estimates are negative, and their mean is 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4, 30))
    data = xr.DataArray(x, dims=("stimulus", "repetition", "neuron"))
    for noise in NOISES:
        null = rdm(data, method="crossnobis", folds="repetition", noise=noise).dissimilarity.values
        assert 0.4 < (null < 0).mean() < 0.6
        assert abs(null.mean()) < 3 * null.std() / np.sqrt(40)
    # With a true distance: its expectation is |difference|², where Mahalanobis without folds adds the noise.
    planted = data.copy()
    planted[:20] += 1.5
    between = squareform(rdm(planted, method="crossnobis", folds="repetition", noise="none").dissimilarity.values[0])
    assert between[:20, 20:].mean() == pytest.approx(30 * 1.5**2, rel=0.1)  # the noise adds 15 of 67 without folds
    assert (rdm(planted, method="sqeuclidean").dissimilarity.values[0] > 0).all()


def incomplete():
    """Sessions with an own shift, not all of which showed every stimulus."""
    data = recording(n=7, folds=4, each=2, p=25)
    data = data + xr.DataArray([0.0, 0, 30, 30, -40, -40, 5, 5], dims="repetition")
    data[0, 2:4] = np.nan
    data[3, 0] = np.nan
    data[5, 6:] = np.nan
    return data


@pytest.mark.parametrize("noise", NOISES)
def test_unbalanced_designs_use_the_folds_that_hold_both_stimuli(noise):
    data = incomplete()
    there = ~np.isnan(data.values).all(axis=2)
    flat = data.values[there]
    stimulus = np.nonzero(there)[0]
    left = flat - np.stack([flat[stimulus == s].mean(axis=0) for s in range(7)])[stimulus]
    weight = np.eye(25) if noise == "none" else np.linalg.inv(noise_covariance(left, noise, len(flat) - 7).matrix())
    with np.errstate(invalid="ignore"):
        sums = np.nansum(data.values.reshape(7, 4, 2, 25), axis=2)
        means = (sums / there.reshape(7, 4, 2).sum(axis=2)[..., None]).transpose(1, 0, 2)
    reference = []
    for i, j in itertools.combinations(range(7), 2):
        both = [f for f in range(4) if np.isfinite(means[f, [i, j]]).all()]
        one = [
            (means[f, i] - means[f, j]) @ weight @ (means[g, i] - means[g, j])
            for f, g in itertools.permutations(both, 2)
        ]
        reference.append(np.mean(one))
    result = rdm(data, method="crossnobis", folds="session", noise=noise)
    np.testing.assert_allclose(result.dissimilarity.values[0], reference, rtol=1e-9)
    assert result.attrs["n_observations"] == there.sum()
    assert int(result.undefined_pairs[0]) == 0


def test_a_shift_of_all_data_changes_nothing_here_and_rsatoolboxs_unbalanced_distances():
    """Its trial pairs weigh |x_i|², |x_j|² and x_i·x_j by other fold counts, so a common shift does not cancel."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm_unbalanced

    def theirs(data):
        long = long_form(data).dropna("observation").sortby("image")
        found = Dataset(long.values, obs_descriptors={"stimulus": long.image.values, "session": long.session.values})
        common = {"method": "crossnobis", "descriptor": "stimulus", "cv_descriptor": "session"}
        return calc_rdm_unbalanced(found, **common).dissimilarities[0]

    def ours(data):
        return rdm(data, method="crossnobis", folds="session", noise="none").dissimilarity.values[0]

    data = incomplete()
    np.testing.assert_allclose(ours(data + 100), ours(data), rtol=1e-10, atol=1e-10)
    assert np.abs(theirs(data + 100) - theirs(data)).max() > 10
    whole = recording()
    np.testing.assert_allclose(theirs(whole), ours(whole) / 40, rtol=1e-9)  # balanced: the same estimator


def test_pairs_without_two_common_folds_are_nan_and_counted():
    data = recording(n=4, folds=2, each=1)
    data[1, 0] = np.nan
    result = rdm(data, method="crossnobis", folds="session", noise="none")
    assert np.isnan(squareform(result.dissimilarity.values[0])[1]).sum() == 3
    assert int(result.undefined_pairs[0]) == 3


def test_poisson_cv_of_an_incomplete_design():
    data = recording(n=5, folds=3, each=1, rates=True)
    data[2, 1] = np.nan
    rates = (data.values.transpose(1, 0, 2) + 0.1) / 1.1
    reference = []
    for i, j in itertools.combinations(range(5), 2):
        both = [f for f in range(3) if np.isfinite(rates[f, [i, j]]).all()]
        reference.append(
            np.mean(
                [
                    (rates[f, i] - rates[f, j]) @ (np.log(rates[g, i]) - np.log(rates[g, j]))
                    for f, g in itertools.permutations(both, 2)
                ]
            )
        )
    ours = rdm(data, method="poisson_cv", folds="session").dissimilarity.values[0]
    np.testing.assert_allclose(ours, reference, rtol=1e-11)


def test_silent_units_add_nothing_and_units_without_noise_are_an_error():
    data = recording(p=12)
    for noise in NOISES:
        plain = rdm(data[:, :, 1:], method="crossnobis", folds="session", noise=noise)
        silent = data.copy()
        silent[:, :, 0] = 3.25
        result = rdm(silent, method="crossnobis", folds="session", noise=noise)
        if noise != "shrinkage_eye":  # there a silent unit counts in the mean variance
            np.testing.assert_allclose(result.dissimilarity, plain.dissimilarity, rtol=1e-10)
        if noise in ("diagonal", "shrinkage_diag"):
            assert int(result.silent_units[0]) == 1
            noiseless = data.copy()
            noiseless[:, :, 0] = np.arange(6)[:, None]
            with pytest.raises(InputError, match=r"layer 'IT': 1 units differ between stimuli and not at all"):
                rdm(noiseless, method="crossnobis", folds="session", noise=noise)
    same = data * 0 + data[:, 0]
    with pytest.raises(InputError, match="repetitions are identical"):
        rdm(same, method="mahalanobis", noise="shrinkage_eye")


def test_results_keep_their_question(tmp_path):
    data = recording()
    result = rdm(data, method="crossnobis", folds="session")
    assert 0 < float(result.shrinkage[0]) < 1
    assert result.attrs["measure"] == "crossnobis"
    xr.testing.assert_identical(load(save(result, tmp_path / "rdms.nc")), result)
    assert rdm(data + 1, method="crossnobis", folds="session").attrs["inputs"] != result.attrs["inputs"]
    two = {"V1": data, "IT": data[:, :, :9]}
    assert rdm(two, method="crossnobis", folds="session").n_units.values.tolist() == [40, 9]


def test_store_labels_that_belong_to_stimuli_are_kept():
    data = recording(n=4).assign_coords(category=("stimulus", list("aabb")))
    result = rdm(data, method="mahalanobis")
    assert result.category.values.tolist() == list("aabb")
    assert "session" not in result.coords


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda d: d.values[:, 0], {"method": "crossnobis"}, "needs repeated observations"),
        (lambda d: d.values[:, 0], {"method": "poisson_cv"}, "declare repetitions="),
        (lambda d: d.values[:, 0], {"method": "mahalanobis", "repetitions": "noise"}, "needs repeated observations"),
        (lambda d: d.rename(neuron="unit"), {"method": "mahalanobis"}, "which is not declared"),
        (lambda d: d.rename(neuron="unit"), {"method": "crossnobis", "folds": "session"}, "which is not declared"),
        (lambda d: d, {"method": "crossnobis"}, r"folds=… \(there are: 'repetition', 'session'\)"),
        (lambda d: d, {"method": "crossnobis", "folds": "sesion"}, "nearest: 'session'"),
        (lambda d: d, {"method": "correlation", "folds": "session"}, "not cross-validated"),
        (
            lambda d: d.assign_coords(session=("repetition", ["a"] * 6)),
            {"method": "crossnobis", "folds": "session"},
            "one",
        ),
        (
            lambda d: d.assign_coords(session=("repetition", [0, 0, 1, 1, np.nan, 1])),
            {"method": "crossnobis", "folds": "session"},
            "is NaN for",
        ),
        (lambda d: d, {"method": "mahalanobis", "noise": "none"}, "use method='sqeuclidean'"),
        (lambda d: d, {"method": "mahalanobis", "stimuli": "imge"}, "not a coordinate of the observations"),
        (lambda d: d - 100, {"method": "poisson"}, r"layer 'IT' holds negative values for the stimuli 's00'"),
        (lambda d: d - 100, {"method": "poisson_cv", "folds": "session"}, "negative values"),
        (lambda d: d * np.nan, {"method": "mahalanobis"}, "every value is NaN"),
        (lambda d: d, {"method": "poisson", "prior_weight": 0}, "prior_weight"),
        (lambda d: {"a": d, "b": d[:, :3]}, {"method": "mahalanobis"}, "6 stimuli × 3 repetitions"),
        (lambda d: {"a": d, "b": d[::-1]}, {"method": "mahalanobis"}, "'stimulus', or another order"),
        (lambda d: {"a": d, "b": d[:, 0]}, {"method": "mahalanobis"}, "all layers need stimulus and repetition"),
        (lambda d: d[:, :, 0], {"method": "mahalanobis"}, "needs units beside them"),
        (lambda d: long_form(d).rename(image="picture"), {"method": "mahalanobis"}, "nearest|there are"),
        (lambda d: long_form(d).rename(observation="stimulus", image="picture"), {"method": "mahalanobis"}, "once"),
        (lambda d: [d[:, 0], d[1:, 1]], {"repetitions": "seeds"}, "other stimuli than the first"),
        (lambda d: [d[:, 0], d[:, 1, :9]], {"repetitions": "seeds"}, "has 9 units in layer 'IT', the first has 40"),
    ],
)
def test_bad_input_is_named(make, settings, message):
    with pytest.raises(InputError, match=message):
        rdm(make(recording()), **settings)


def test_recordings_of_different_networks_are_no_repetitions(tmp_path):
    x = recording().values
    stores = [
        store_from_arrays(tmp_path / f"{k}.zarr", {"fc": x[:, k]}, ids=ids(6), attrs={"weights_sha256": str(k)})
        for k in range(2)
    ]
    with pytest.raises(InputError, match="networks with different weights"):
        rdm(stores, method="crossnobis", folds="repetition", repetitions="seeds")


def test_repeated_ids_are_averaged_only_when_declared():
    x = np.random.default_rng(0).normal(size=(6, 20))
    names = ["a", "b", "c", "a", "b", "c"]
    with pytest.raises(InputError, match=r"more than once \('a', 'b', 'c'\)"):
        rdm(x, ids=names)
    result = rdm(x, ids=names, repetitions="dropout")
    np.testing.assert_allclose(result.dissimilarity[0], pdist((x[:3] + x[3:]) / 2, "correlation"), rtol=1e-12)


def test_torch_and_bfloat16_repetitions():
    import torch

    data = recording(n=5, folds=2, each=1)
    x = torch.from_numpy(data.values.transpose(1, 0, 2).reshape(10, 40).copy())
    names = ids(5) * 2
    source = xr.DataArray(x.numpy(), dims=("stimulus", "unit"), coords={"stimulus": names})
    ours = rdm(x, ids=names, method="mahalanobis", repetitions="noise")
    np.testing.assert_allclose(
        ours.dissimilarity, rdm(source, method="mahalanobis", repetitions="noise").dissimilarity, rtol=1e-12
    )
    half = rdm(x.to(torch.bfloat16), ids=names, method="mahalanobis", repetitions="noise", noise="diagonal")
    np.testing.assert_allclose(
        half.dissimilarity,
        rdm(
            x.to(torch.bfloat16).double(), ids=names, method="mahalanobis", repetitions="noise", noise="diagonal"
        ).dissimilarity,
        rtol=1e-12,
    )
    with pytest.raises(InputError, match="abacus"):
        rdm(x, ids=names, method="mahalanobis", repetitions="noise", device="abacus")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=8, max_size=24),
    offset=st.sampled_from([0.0, 1e4]),
    width=st.integers(1, 9),
)
def test_any_design_is_its_definition(rows, offset, width):
    """Rows in any order, any number of them in each stimulus and fold, and folds that lack stimuli."""
    rows = [*rows, (0, 0), (1, 1)]
    stimulus, fold = np.array(rows).T
    x = np.random.default_rng(len(rows)).normal(size=(len(rows), width)) + offset
    coords = {"stimulus": stimulus.astype(str), "part": ("stimulus", fold)}
    data = xr.DataArray(x, dims=("stimulus", "neuron"), coords=coords)
    result = rdm(data, method="crossnobis", folds="part", noise="none")
    names = list(dict.fromkeys(stimulus.tolist()))
    assert result.stimulus.values.tolist() == [str(name) for name in names]
    reference = []
    for i, j in itertools.combinations(names, 2):
        parts = []
        for f in range(3):
            one, two = x[(stimulus == i) & (fold == f)], x[(stimulus == j) & (fold == f)]
            if len(one) and len(two):
                parts.append(one.mean(axis=0) - two.mean(axis=0))
        pairs = [a @ b for a, b in itertools.permutations(parts, 2)]
        reference.append(np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(result.dissimilarity.values[0], reference, rtol=1e-9, atol=1e-9 + 1e-10 * offset)


def test_folds_never_follow_the_order_as_rsatoolboxs_do():
    """Without a descriptor it numbers the occurrences of each stimulus: another order, another RDM."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    long = long_form(recording(each=2)).sortby("image")
    other = long.isel(observation=np.random.default_rng(5).permutation(36)).sortby("image")
    theirs = [
        calc_rdm(Dataset(d.values, obs_descriptors={"i": d.image.values}), method="crossnobis", descriptor="i")
        for d in (long, other)
    ]
    assert np.abs(theirs[0].dissimilarities - theirs[1].dissimilarities).max() > 1e-3
    ours = [rdm(d, method="crossnobis", stimuli="image", folds="session").dissimilarity for d in (long, other)]
    np.testing.assert_allclose(ours[0], ours[1], rtol=1e-10)
    with pytest.raises(InputError, match="which the order of the data cannot tell"):
        rdm(long, method="crossnobis", stimuli="image")


def test_a_constant_pattern_has_no_correlation_in_any_form_of_the_data():
    """rsatoolbox gives NaN for a dead layer, and 0 in its form for unbalanced data; here it is NaN and counted."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm_unbalanced

    data = recording(n=4)
    data[2] = 0.0
    result = rdm(data)
    assert np.isnan(squareform(result.dissimilarity.values[0], checks=False)[2]).sum() == 3
    assert (int(result.constant_patterns[0]), int(result.undefined_pairs[0])) == (1, 3)
    dead = Dataset(data.values.mean(axis=1), obs_descriptors={"s": np.arange(4)})
    theirs = calc_rdm_unbalanced(dead, method="correlation", descriptor="s").dissimilarities[0]
    assert theirs[1] == pytest.approx(0)  # of 0 and 2


def test_near_stimuli_on_a_large_common_pattern_in_float32():
    """Differences of 1e-2 on values of 1e3: products of raw patterns would lose them in float32."""
    rng = np.random.default_rng(0)
    x = 1e3 * rng.random(500) + 1e-2 * rng.normal(size=(6, 3, 500))
    x = x.astype(np.float32)
    data = xr.DataArray(x, dims=("stimulus", "repetition", "neuron"))
    exact = rdm(data.astype(np.float64), method="crossnobis", folds="repetition", noise="none").dissimilarity.values[0]
    sessions = x.transpose(1, 0, 2).astype(np.float64)
    np.testing.assert_allclose(exact, plain_crossed(sessions, sessions, np.eye(500)), rtol=1e-9, atol=1e-12)
    ours = rdm(data, method="crossnobis", folds="repetition", noise="none").dissimilarity.values[0]
    np.testing.assert_array_equal(ours, exact)


def it_neurons():
    """132 IT neurons, 7 objects at 3 places, 20 trials of each, 7 values missing (Zhang et al. 2011)."""
    path = Path(os.environ.get("ACTKIT_DATA", "")) / "zhang_desimone_it_7objects" / "counts.npz"
    if not path.is_file():
        pytest.skip("needs the data folder zhang_desimone_it_7objects in ACTKIT_DATA")
    with np.load(path) as file:
        counts, objects, places = (file[key] for key in ("counts_100_300ms", "objects", "positions"))
    names = [f"{thing} {place}" for thing in objects for place in places]
    return xr.DataArray(
        counts.transpose(1, 2, 3, 0).reshape(21, 20, 132),
        dims=("stimulus", "repetition", "neuron"),
        coords={"stimulus": names, "part": ("repetition", np.repeat(np.arange(4), 5))},
        name="IT",
    )


def test_recorded_neurons_lose_the_bias_and_keep_the_geometry():
    data = it_neurons()
    # With every trial its own fold, what crossnobis takes off is the variance of the mean difference, neuron by neuron.
    whole = data.dropna("neuron")
    left = rdm(whole, method="sqeuclidean").dissimilarity.values[0]
    crossed = rdm(whole, method="crossnobis", folds="repetition", noise="none").dissimilarity.values[0]
    x = whole.values.astype(float)
    bias = [(x[i] - x[j]).var(axis=0, ddof=1).sum() / 20 for i, j in itertools.combinations(range(21), 2)]
    np.testing.assert_allclose(left - crossed, bias, rtol=1e-4)  # in float32, as the counts are
    thing = np.repeat(np.arange(7), 3)
    i, j = np.triu_indices(21, 1)
    same = thing[i] == thing[j]
    for noise in NOISES:
        result = rdm(data, method="crossnobis", folds="part", noise=noise)
        values = result.dissimilarity.values[0]
        assert values[same].mean() < 0.5 * values[~same].mean()
        assert result.missing_values.values.tolist() == [7]
    counts = rdm(data, method="poisson_cv", folds="part").dissimilarity.values[0]
    assert np.corrcoef(counts, rdm(data, method="crossnobis", folds="part").dissimilarity.values[0])[0, 1] > 0.9
