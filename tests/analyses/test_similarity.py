"""Layer similarity against plain unit-space formulas, rsatoolbox and published identities; invariances; bad input."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy.linalg import subspace_angles

from actkit import plotting
from actkit.analyses import gram_similarity, similarity_plot
from actkit.analyses.rdm import rdm
from actkit.analyses.similarity import similarity
from actkit.errors import InputError, LayerError
from actkit.results import load, save, to_table

METHODS = ("cka", "cka_unbiased", "procrustes", "cca_mean", "svcca", "pwcca")


def network(n=60, widths=(7, 12, 9), seed=0, shared=3.0):
    """Layers that share some structure, with offsets and scales of their own."""
    rng = np.random.default_rng(seed)
    latent = np.random.default_rng(99).normal(size=(n, 4))
    layers = {}
    for number, p in enumerate(widths):
        x = shared * latent @ rng.normal(size=(4, p)) + rng.normal(size=(n, p))
        layers[f"layer{number}"] = (x + rng.normal(size=p)) * 10.0 ** rng.integers(-2, 3)
    return layers


def plain(x, y, method, variance=None):
    """Every measure in unit space, as its paper writes it."""
    units = x = x - x.mean(axis=0)
    y = y - y.mean(axis=0)
    if method == "cka":
        return np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    if method == "cka_unbiased":
        k, m = ((a @ a.T) * (1 - np.eye(len(a))) for a in (x, y))
        return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    if method == "procrustes":
        return np.linalg.svd(x.T @ y)[1].sum() / np.linalg.norm(x) / np.linalg.norm(y)
    if method == "svcca" or variance is not None:
        x, y = (principal(a, variance or 0.99) for a in (x, y))
    qx, qy = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    u, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    weights = np.abs((qx @ u).T @ units).sum(axis=1) if method == "pwcca" else None
    return np.average(rho, weights=weights)


def hsic(k, m):
    """The unbiased estimator as Song et al. (2012) write it, but for its constant factor."""
    n, one = len(k), np.ones(len(k))
    return np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one


def principal(a, variance):
    """Principal components that hold a share of the variance."""
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    count = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance)) + 1
    return u[:, :count] * s[:count]


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_plain_formula_in_unit_space(method):
    layers = network()
    ours = similarity(layers, method=method).similarity.values
    reference = [[plain(x, y, method) for y in layers.values()] for x in layers.values()]
    np.testing.assert_allclose(ours, reference, rtol=0, atol=2e-10)
    assert 0.05 < ours.min() < ours.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_two_networks_by_stimulus_id(method):
    first, second = network(), network(widths=(5, 20), seed=1)
    ids = [f"s{k}" for k in range(60)]
    order = np.random.default_rng(5).permutation(60)
    a = {name: xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": ids}) for name, x in first.items()}
    b = {name: xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": ids}) for name, x in second.items()}
    shuffled = {name: x.isel(stimulus=order) for name, x in b.items()}
    ours = similarity(a, shuffled, method=method)
    assert ours.similarity.shape == (3, 2)
    reference = [[plain(x, y, method) for y in second.values()] for x in first.values()]
    np.testing.assert_allclose(ours.similarity.values, reference, rtol=0, atol=2e-10)


@pytest.mark.parametrize("method", ["cka", "cka_unbiased", "procrustes"])
def test_a_width_of_100_000_units_is_no_matter(method):
    n, p = 30, 100_000
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, p)) + 3 * rng.normal(size=p)
    y = np.maximum(x + 2 * rng.normal(size=(n, p)), 0)
    ours = similarity({"x": x}, {"y": y}, method=method).similarity.item()
    # A rotation of the units brings X and Y into n dimensions each, where the plain singular value decomposition fits.
    small = [np.linalg.qr((a - a.mean(axis=0)).T)[1].T for a in (x, y)]
    nuclear = np.linalg.svd(small[0].T @ small[1])[1].sum()
    expected = nuclear / np.linalg.norm(small[0]) / np.linalg.norm(small[1])
    if method != "procrustes":
        expected = plain(small[0], small[1], method)
    assert ours == pytest.approx(expected, abs=1e-10)


def test_rsatoolboxs_bures_and_whitened_cosine_are_procrustes_and_cka():
    from rsatoolbox.rdm import RDMs, compare

    layers = network(n=20)
    vectors = rdm(layers, method="sqeuclidean").dissimilarity.values
    rdms = RDMs(vectors)
    bures, whitened = (compare(rdms, rdms, method=name) for name in ("bures", "cosine_cov"))
    np.testing.assert_allclose(similarity(layers, method="procrustes").similarity, bures, atol=1e-6)
    np.testing.assert_allclose(similarity(layers, method="cka").similarity, whitened, atol=1e-10)
    # What rsatoolbox calls a metric is its square.
    squared = compare(rdms, rdms, method="bures_metric")
    ours = similarity(layers, method="procrustes", express="size_and_shape").distance.values
    np.testing.assert_allclose(ours[0, 1:] ** 2, squared[0, 1:], rtol=1e-6)


def test_whitened_pearson_of_unbiased_parts_is_not_what_cka_is():
    """Unbiased CKA is the bias-corrected distance correlation of squared distances, here from its own definition."""
    x, y = list(network(n=15).values())[:2]
    a, b = (np.square(v[:, None] - v[None]).sum(axis=2) for v in (x, y))

    def u_centred(d):
        n = len(d)
        out = d - d.sum(0) / (n - 2) - d.sum(1)[:, None] / (n - 2) + d.sum() / ((n - 1) * (n - 2))
        return out * (1 - np.eye(n))

    a, b = u_centred(a), u_centred(b)
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    ours = similarity({"x": x, "y": y}, method="cka_unbiased").similarity.values[0, 1]
    assert ours == pytest.approx(expected, abs=1e-12)


def transformed(x, kind, rng):
    p = x.shape[1]
    rotation = np.linalg.qr(rng.normal(size=(p, p)))[0]
    return {
        "rotation": x @ rotation,
        "permutation": x[:, rng.permutation(p)],
        "scale": x * 1e-3,
        "offset": x + 100 * rng.normal(size=p),
        "invertible": x @ rng.normal(size=(p, p)),
    }[kind]


INVARIANT = {
    "cka": ("rotation", "permutation", "scale", "offset"),
    "cka_unbiased": ("rotation", "permutation", "scale", "offset"),
    "procrustes": ("rotation", "permutation", "scale", "offset"),
    "cca_mean": ("rotation", "permutation", "scale", "offset", "invertible"),
    "svcca": ("rotation", "permutation", "scale", "offset"),
    "pwcca": ("permutation", "scale", "offset"),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_each_measure_ignores_and_what_it_does_not(method):
    rng = np.random.default_rng(8)
    x, y = list(network().values())[:2]
    before = similarity({"x": x}, {"y": y}, method=method).similarity.item()
    for kind in ("rotation", "permutation", "scale", "offset", "invertible"):
        after = similarity({"x": transformed(x, kind, rng)}, {"y": y}, method=method).similarity.item()
        if kind in INVARIANT[method]:
            assert after == pytest.approx(before, abs=1e-9), kind
        else:
            assert abs(after - before) > 1e-4, kind


def test_whitened_procrustes_is_the_canonical_correlation_metric():
    layers = network()
    x, y = list(layers.values())[:2]
    cosines = np.cos(subspace_angles(x - x.mean(0), y - y.mean(0)))
    full = similarity(layers, method="procrustes", alpha=0.0).similarity.values
    assert full[0, 1] == pytest.approx(cosines.sum() / np.sqrt(7 * 12), abs=1e-10)
    # In part: the unit-space form of Williams et al. (2021), after division by the root mean square singular value.
    half = similarity(layers, method="procrustes", alpha=0.5).similarity.values

    def partly(a):
        u, s, v = np.linalg.svd(a - a.mean(0), full_matrices=False)
        return (u * (0.5 * s / np.sqrt(np.mean(s**2)) + 0.5)) @ v

    assert half[0, 1] == pytest.approx(plain(partly(x), partly(y), "procrustes"), abs=1e-10)
    turned = {"x": transformed(x, "invertible", np.random.default_rng(0)), "y": y}
    again = similarity(turned, method="procrustes", alpha=0.0).similarity.values[0, 1]
    assert again == pytest.approx(full[0, 1], abs=1e-9)


METRICS = [
    ("cka", "angle", 1.0),
    ("cka", "distance", 1.0),
    ("cka_unbiased", "angle", 1.0),
    ("procrustes", "angle", 1.0),
    ("procrustes", "distance", 1.0),
    ("procrustes", "angle", 0.5),
    ("procrustes", "angle", 0.0),
    ("procrustes", "size_and_shape", 1.0),
]


@pytest.mark.parametrize(("method", "express", "alpha"), METRICS)
def test_distances_are_metrics(method, express, alpha):
    rng = np.random.default_rng(11)
    base = rng.normal(size=(24, 3))
    layers = {
        f"l{k}": base @ rng.normal(size=(3, p)) * (k % 3) + rng.normal(size=(24, p))
        for k, p in enumerate([2, 3, 4, 5, 6, 8, 9, 10, 3, 7, 11, 5])
    }
    layers["again"] = layers["l0"] @ np.linalg.qr(rng.normal(size=(2, 2)))[0] + 1
    d = next(iter(similarity(layers, method=method, express=express, alpha=alpha).data_vars.values())).values
    assert np.array_equal(d, d.T)
    assert not np.diagonal(d).any()
    assert d[0, -1] < 3e-7 * max(1, d.max())
    detour = (d[:, :, None] + d[None]).min(axis=1)  # over the layer between
    assert (d <= detour + 1e-7).all()
    assert d[0, 4] > 0.1


def test_the_mean_canonical_correlation_is_no_metric_and_says_so():
    # A line, a plane that holds it, and another line in that plane: min(d, e) sees no distance to the plane.
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.normal(size=(12, 2)) - 0)[0]
    q -= q.mean(axis=0)
    q = np.linalg.qr(q)[0]
    s = similarity({"line": q[:, :1], "plane": q, "other": q[:, 1:]}, method="cca_mean").similarity.values
    angle = np.arccos(np.round(s, 9))
    assert angle[0, 2] > angle[0, 1] + angle[1, 2] + 1
    for method in ("cca_mean", "svcca", "pwcca"):
        with pytest.raises(InputError, match="violate the triangle inequality; use method='procrustes', alpha=0"):
            similarity(network(), method=method, express="angle")


@pytest.mark.parametrize("options", [{"method": "cca_mean"}, {"method": "procrustes", "alpha": 0.0}])
def test_canonical_correlations_that_must_be_1_are_refused(options):
    rng = np.random.default_rng(4)
    wide = {"a": rng.normal(size=(50, 200)), "b": rng.normal(size=(50, 200))}  # netrep: distance 0.0
    with pytest.raises(InputError, match=r"49 of their canonical correlations are 1 .*components=12"):
        similarity(wide, **options)
    with pytest.raises(InputError, match="'a' \\(30 dimensions\\) and 'a' \\(30\\)"):
        similarity({"a": wide["a"][:, :30]}, **options)
    assert similarity({"a": wide["a"][:, :24]}, {"b": wide["b"][:, :25]}, **options).similarity.item() < 0.95
    partial = similarity(wide, method="procrustes", alpha=0.3).similarity.values[0, 1]
    assert partial < 0.999


def test_reduction_to_components():
    layers = network(n=40, widths=(100, 200))
    kept = similarity(layers, method="svcca", components=5)
    assert kept.dimensions.values.tolist() == [5, 5]
    x, y = layers.values()
    u, v = (np.linalg.svd(a - a.mean(0), full_matrices=False)[0][:, :5] for a in (x, y))
    expected = np.linalg.svd(u.T @ v)[1].mean()
    assert kept.similarity.values[0, 1] == pytest.approx(expected, abs=1e-10)
    share = similarity(layers, method="pwcca", variance=0.8).similarity.values
    reference = [[plain(a, b, "pwcca", 0.8) for b in layers.values()] for a in layers.values()]
    np.testing.assert_allclose(share, reference, atol=1e-9)
    exact = gram_similarity.leading(gram_similarity.Shape(np.eye(3), np.ones(3)), 2 / 3, None)
    assert len(exact.values) == 2


def test_chance_is_what_shuffled_stimuli_score():
    rng = np.random.default_rng(6)
    layers = {"few": rng.normal(size=(25, 3)), "many": rng.normal(size=(25, 300))}
    result = similarity(layers)
    shuffled = [
        similarity(layers, {name: x[rng.permutation(25)] for name, x in layers.items()}).similarity.values
        for _ in range(120)
    ]
    np.testing.assert_allclose(result.chance, np.mean(shuffled, axis=0), atol=0.015)
    assert result.chance.values[1, 1] > 0.9  # 300 units, 25 stimuli: unrelated layers look alike
    fair = [
        similarity(layers, {name: x[rng.permutation(25)] for name, x in layers.items()}, method="cka_unbiased")
        for _ in range(120)
    ]
    np.testing.assert_allclose(np.mean([f.similarity.values for f in fair], axis=0), 0, atol=0.05)
    assert not fair[0].chance.values.any()
    narrow = {"a": rng.normal(size=(25, 3)), "b": rng.normal(size=(25, 8))}
    canonical = [
        similarity(narrow, {k: rng.normal(size=v.shape) for k, v in narrow.items()}, method="cca_mean")
        for _ in range(100)
    ]
    mean = np.mean([c.similarity.values for c in canonical], axis=0)
    bound = canonical[0].chance.values
    assert (mean <= bound + 0.015).all()
    assert (mean >= 0.8 * bound).all()


def test_jackknife_against_refitting_and_against_truth():
    layers = network(n=14, widths=(4, 5))
    for method in ("cka", "cka_unbiased", "procrustes", "svcca"):
        ours = similarity(layers, method=method, error="jackknife", **({"components": 3} if method == "svcca" else {}))
        kept = []
        for left_out in range(14):
            rest = {name: np.delete(x, left_out, axis=0) for name, x in layers.items()}
            options = {"components": 3} if method == "svcca" else {}
            kept.append(similarity(rest, method=method, **options).similarity.values)
        expected = np.sqrt(13 / 14 * np.square(kept - np.mean(kept, axis=0)).sum(axis=0))
        np.testing.assert_allclose(ours.error, expected, atol=1e-10)
        np.testing.assert_allclose(np.diagonal(ours.error), 0, atol=1e-10)
    # Over fresh samples of 40 stimuli, the jackknife is right about how much unbiased CKA varies.
    values, errors = [], []
    maps = np.random.default_rng(0).normal(size=(2, 3, 6))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(40, 3))
        pair = {f"l{k}": z @ maps[k] + 0.8 * rng.normal(size=(40, 6)) for k in (0, 1)}
        result = similarity(pair, method="cka_unbiased", error="jackknife")
        values.append(result.similarity.values[0, 1])
        errors.append(result.error.values[0, 1])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_a_layer_that_does_not_vary_is_nan_and_named():
    layers = network() | {"dead": np.zeros((60, 5)), "flat": np.full((60, 4), 0.1), "single": 0.1 * np.ones((60, 1))}
    layers["flat32"] = np.full((60, 400), 3.3, dtype=np.float32)
    for method in METHODS:
        result = similarity(layers, method=method)
        missing = np.isnan(result.similarity.values)
        assert missing[3:].all()
        assert missing[:, 3:].all()
        assert not missing[:3, :3].any()
        assert json.loads(result.attrs["undefined"])["layer"] == ["dead", "flat", "single", "flat32"]
    one = np.zeros((10, 3))
    one[4] = [1.0, 2.0, 3.0]
    moved = similarity({"one": one, "all": np.random.default_rng(0).normal(size=(10, 3))}, error="jackknife")
    assert moved.similarity.values[0, 0] == pytest.approx(1)
    assert np.isnan(moved.error.values[0]).all()  # without stimulus 4 nothing is left that varies
    assert not np.isnan(moved.error.values[1, 1])


def test_streamed_blocks_tensors_and_precision_agree():
    import torch

    layers = {name: x.astype(np.float32) for name, x in network(n=20, widths=(300, 500)).items()}
    for method in ("cka", "procrustes", "svcca"):
        options = {"components": 4} if method == "svcca" else {}
        whole = similarity(layers, method=method, **options).similarity.values
        small = similarity(layers, method=method, memory="120kB", **options).similarity.values
        tensors = similarity({k: torch.from_numpy(x) for k, x in layers.items()}, method=method, **options)
        double = similarity({k: x.astype(np.float64) for k, x in layers.items()}, method=method, **options)
        np.testing.assert_allclose(small, whole, atol=1e-6)
        np.testing.assert_allclose(tensors.similarity, whole, atol=1e-6)
        np.testing.assert_allclose(double.similarity, whole, atol=1e-6 if method == "cka" else 1e-10)
    with pytest.raises(InputError, match="memory='10kB' is too small for 2 layers with 20 stimuli"):
        similarity(layers, memory="10kB")


def test_a_store_is_read_in_blocks_and_twice_for_pwcca():
    class Store:
        layers, labels, attrs, path, fingerprint = ("fc",), {}, {"network": "net"}, "acts.zarr", "abc"

        def __init__(self, x, name="net"):
            self.x, self.reads, self.attrs = x, 0, {"network": name}
            self.ids = np.array([str(k) for k in range(len(x))])

        def n_units(self, _layer):
            return self.x.shape[1]

        def unit_blocks(self, _layer, _max_bytes):
            self.reads += 1
            for start in range(0, self.x.shape[1], 3):
                yield start, start + 3, self.x[:, start : start + 3]

    x, y = (v.astype(np.float32) for v in list(network().values())[:2])
    first, second = Store(x), Store(y, "other")
    result = similarity(first, second, method="pwcca")
    assert (first.reads, second.reads) == (2, 1)
    assert result.similarity.item() == pytest.approx(plain(x.astype(float), y.astype(float), "pwcca"), abs=1e-6)
    assert (result.attrs["first"], result.attrs["second"]) == ("net", "other")
    with pytest.raises(InputError, match="a store carries its own stimulus ids"):
        similarity(first, second, [str(k) for k in range(60)])
    mixed = similarity(first, {"y": y}, [str(k) for k in range(60)])
    assert mixed.similarity.shape == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (({"a": np.eye(5)}, {"b": np.eye(6)}), {}, "lacks the stimul"),
        (({"a": np.eye(2)},), {}, "2 stimuli, too few for linear CKA; give 3 or more"),
        (({"a": np.eye(3)},), {"method": "cka_unbiased"}, "give 4 or more"),
        (({"a": np.eye(4)},), {"method": "cka_unbiased", "error": "jackknife"}, "left out; give 5 or more"),
        (({"a": np.eye(5)},), {"alpha": 0.5}, "alpha=0.5 whitens for method='procrustes'"),
        (({"a": np.eye(5)},), {"components": 2}, "variance and components reduce layers for cca_mean"),
        (({"a": np.eye(5)},), {"method": "svcca", "components": 2, "variance": 0.9}, "give one of them"),
        (({"a": np.eye(5)},), {"express": "size_and_shape"}, "use it with method='procrustes' and alpha=1"),
        (({"a": np.eye(5)},), {"method": "pwcca", "error": "jackknife"}, "once a stimulus for pwcca"),
        (({"a": np.eye(5)},), {"method": "ckka"}, "option 'method' is 'ckka'"),
        (({"a": np.diag([1.0, np.nan, 1, 1])},), {}, "layer 'a' holds NaN or infinite activations for the stimuli '1'"),
        (({"a": np.eye(5) * 1e200},), {}, "exceed the range of float64"),
        (({"a": np.zeros((5, 0))},), {}, "has no units"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(InputError, match=message):
        similarity(*arguments, **options)


def test_choosing_layers():
    with pytest.raises(LayerError, match="nearest"):
        similarity(network(), layers=["layer7"])
    result = similarity(network(), layers=["layer0"], other_layers=["layer1", "layer2"])
    assert result.similarity.shape == (1, 2)
    assert (result.attrs["first"], result.attrs["second"]) == ("arrays", "arrays")
    assert similarity(network(), network(seed=1)).attrs["second"] == "arrays (2)"
    full = similarity(network()).similarity
    np.testing.assert_allclose(result.similarity.values[0], full.values[0, 1:], rtol=1e-13)


def test_save_table_and_figure(tmp_path):
    result = similarity(network(widths=(4, 5, 6)), network(widths=(7, 8), seed=1), error="jackknife")
    again = load(save(result, tmp_path / "s.nc"))
    xr.testing.assert_identical(again.similarity, result.similarity)
    assert list(to_table(result, over="other_layer").columns[:2]) == ["layer", "other_layer"]
    figure = similarity_plot.plot(result)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["layer0", "layer1", "layer2"]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(np.ma.getdata(shown), result.similarity.values)
    written = {text.get_text() for text in axes.texts}
    assert written == {plotting.short(value) for value in result.similarity.values.flat}
    words = similarity_plot.caption(result)
    assert "Linear CKA" in words
    assert "60 stimuli" in words
    assert "not symmetric" in similarity_plot.caption(similarity(network(), method="pwcca"))
    assert similarity_plot.alt_text(result).startswith("Heat map")
    for odd in (
        similarity({"one": np.eye(6)}, error="jackknife"),
        similarity({"dead": np.zeros((6, 2))}),
        similarity(network(), method="procrustes", express="size_and_shape"),
    ):
        assert similarity_plot.plot(odd).axes
        assert similarity_plot.plot_narrow(odd).get_figwidth() < 3.7
        assert similarity_plot.caption(odd)
        assert similarity_plot.alt_text(odd)
    with pytest.raises(InputError, match="not a similarity result"):
        similarity_plot.plot(xr.Dataset())
