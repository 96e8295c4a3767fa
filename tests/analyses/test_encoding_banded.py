import json
import warnings

import numpy as np
import pytest
import xarray as xr

from actkit.analyses import encoding_banded_plot
from actkit.analyses.encoding import encode
from actkit.analyses.encoding_banded import encode_banded
from actkit.analyses.encoding_bands import banded_ridge, candidate_weights, split_errors
from actkit.errors import InputError, LayerError

GRID = [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]
WIDE = list(np.logspace(-8, 8, 17))


def recording(values, **coords):
    """Averages of neurons n0, n1, … to stimuli s0, s1, …."""
    names = {"stimulus": [f"s{i}" for i in range(len(values))], "neuron": [f"n{j}" for j in range(values.shape[-1])]}
    dims = ("stimulus", "neuron") if values.ndim == 2 else ("stimulus", "repetition", "neuron")
    return xr.DataArray(values, dims=dims, coords=names | {k: ("stimulus", v) for k, v in coords.items()})


def layer(values):
    """Units over stimuli s0, s1, …."""
    return xr.DataArray(values, dims=("stimulus", "unit"), coords={"stimulus": [f"s{i}" for i in range(len(values))]})


def planted(n=150, q=8, noise=0.7, seed=0):
    """Two bands of unlike width and loudness; the first half of the neurons reads the first, the rest the second."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 30)) + 2, 50 * rng.normal(size=(n, 400))
    y = np.empty((n, q))
    y[:, : q // 2] = a[:, :6] @ rng.normal(size=(6, q // 2)) / np.sqrt(6)
    y[:, q // 2 :] = b[:, :3] @ rng.normal(size=(3, q - q // 2)) / 50 / np.sqrt(3)
    return a, b, y + noise * rng.normal(size=y.shape) + 3


def products(x):
    centred = x - x.mean(axis=0)
    return centred @ centred.T


def scaled(x, train):
    """Units with the mean 0 and patterns with the mean squared length 1 over the training stimuli."""
    centred = x - x[train].mean(axis=0)
    return centred / np.sqrt((centred[train] ** 2).sum(axis=1).mean())


def plain_fit(x, y, rows, alpha):
    """Ridge regression with an intercept, the primal way."""
    mx, my = x[rows].mean(axis=0), y[rows].mean(axis=0)
    c = x[rows] - mx
    return lambda new: my + (new - mx) @ np.linalg.solve(c.T @ c + alpha * np.eye(x.shape[1]), c.T @ (y[rows] - my))


def test_it_is_what_a_plain_search_over_weighted_units_finds():
    a, b, y = planted(n=60, q=4)
    b = b[:, :40]
    order = np.random.default_rng(1).permutation(60)
    train, test = order[12:], order[:12]
    inner = np.array_split(train, [10, 25, 40])  # unequal parts
    candidates = candidate_weights(2, 9, seed=3)
    fit = banded_ridge([products(a), products(b)], y, train, test, candidates, np.array(GRID), inner)
    for neuron in range(4):
        best, chosen = np.inf, None
        for gamma in candidates:
            x = np.hstack([np.sqrt(g) * scaled(one, train) for g, one in zip(gamma, (a, b), strict=True)])
            for alpha in GRID:
                error = 0.0
                for part in inner:
                    rest = np.setdiff1d(train, part)
                    error += ((plain_fit(x, y[:, [neuron]], rest, alpha)(x[part]) - y[part][:, [neuron]]) ** 2).sum()
                if error < best:
                    best, chosen = error, (gamma, plain_fit(x, y[:, [neuron]], train, alpha)(x[test])[:, 0], alpha)
        np.testing.assert_array_equal(fit.weights[:, neuron], chosen[0])
        assert GRID[fit.chosen[neuron]] == chosen[2]
        np.testing.assert_allclose(fit.predicted[:, neuron], chosen[1], atol=1e-8)
        np.testing.assert_allclose(fit.errors[fit.chosen[neuron], neuron], best / len(train), rtol=1e-8)
    assert len({tuple(row) for row in fit.weights.T}) > 1  # neurons differ, so that choosing for each means something


def test_it_is_what_himalaya_finds_with_the_same_candidates():
    kernel_ridge = pytest.importorskip("himalaya.kernel_ridge", reason="needs himalaya")
    scoring = pytest.importorskip("himalaya.scoring", reason="needs himalaya")
    from sklearn.model_selection import PredefinedSplit

    a, b, y = planted(n=125, q=10)
    c = np.random.default_rng(5).normal(size=(125, 20))
    train, test = np.arange(100), np.arange(100, 125)
    part = np.arange(100) % 5
    candidates = candidate_weights(3, 20, seed=0)
    grams = [products(x) for x in (a, b, c)]
    ours = banded_ridge(grams, y, train, test, candidates, np.array(GRID), [train[part == k] for k in range(5)])
    units = [scaled(x, train) for x in (a, b, c)]
    theirs = kernel_ridge.MultipleKernelRidgeCV(
        kernels="precomputed",
        solver="random_search",
        solver_params={"n_iter": candidates, "alphas": np.array(GRID), "progress_bar": False},
        fit_intercept=True,
        cv=PredefinedSplit(part),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # himalaya's own: it prefers centred kernels, which these are
        theirs.fit(np.stack([x[train] @ x[train].T for x in units]), y[train])
        left_out = np.stack([x[test] @ x[train].T for x in units])
        np.testing.assert_allclose(ours.predicted, theirs.predict(left_out), atol=1e-6)
        by_band = np.exp(theirs.deltas_)[:, None, :] * (left_out @ theirs.dual_coef_)
        np.testing.assert_allclose(ours.by_band, by_band, atol=1e-6)
        deviation = y[test] - ours.mean
        split = scoring.r2_score_split(deviation, ours.by_band)
    np.testing.assert_allclose(split_errors(ours.by_band, deviation) / (deviation**2).sum(axis=0), split, atol=1e-10)
    gamma = np.exp(theirs.deltas_) * np.array(GRID)[ours.chosen]
    np.testing.assert_allclose(ours.weights, gamma, atol=1e-9)


def test_a_neuron_gets_the_band_that_drives_it():
    a, b, y = planted()
    result = encode_banded({"a": layer(a), "b": layer(b)}, recording(y), penalties=WIDE, n_candidates=30)
    weight = result["band_weight"].mean("fold")
    own = np.r_[weight.sel(band="a").values[:4], weight.sel(band="b").values[4:]]
    assert (own > 0.5).all()
    assert own.mean() > 0.8
    split = result["split"]
    assert (split.sel(band="a").values[:4] > 0.25).all()
    assert (np.abs(split.sel(band="b").values[:4]) < 0.1).all()
    alone = encode({"b": layer(np.hstack([a, b]))}, recording(y), penalties=WIDE)
    assert (result["r"].values[:4] > alone["r"].values[0, :4] + 0.1).all()  # one penalty for both: the loud one drowns


def test_one_band_is_ridge_regression():
    _, b, y = planted()
    one = encode({"b": layer(b)}, recording(y), penalties=WIDE, keep_predictions=True)
    banded = encode_banded({"b": layer(b)}, recording(y), penalties=WIDE, keep_predictions=True)
    np.testing.assert_allclose(banded["predicted"].values, one["predicted"].values[0], atol=1e-9)
    np.testing.assert_array_equal(banded["penalty"].values, one["penalty"].values[0])
    np.testing.assert_allclose(banded["r"].values, one["r"].values[0], atol=1e-9)
    np.testing.assert_allclose(banded["explained_variance"].values, one["explained_variance"].values[0], atol=1e-9)
    np.testing.assert_allclose(banded["split"].values[0], banded["explained_variance"].values, atol=1e-12)


def test_shares_add_up_and_are_divided_by_the_reliability():
    a, b, y = planted()
    rho = np.linspace(0.2, 0.9, 8)
    result = encode_banded(
        {"a": layer(a), "b": layer(b)},
        recording(y),
        rho,
        penalties=WIDE,
        n_candidates=6,
        reliability_floor=0.25,
        keep_predictions=True,
    )
    share = result["explained_variance"].values
    np.testing.assert_allclose(result["split"].sum("band").values, share, atol=1e-12)
    fold, predicted = result["test_fold"].values, result["predicted"].values
    spread = sum(((y[fold == k] - y[fold != k].mean(axis=0)) ** 2).sum(axis=0) for k in range(5))
    np.testing.assert_allclose(share, 1 - ((y - predicted) ** 2).sum(axis=0) / spread, atol=1e-12)
    means = np.stack([y[fold != k].mean(axis=0) for k in fold])
    np.testing.assert_allclose(means + result["predicted_by_band"].sum("band").values, predicted, atol=1e-10)
    np.testing.assert_allclose(result["explained_variance_corrected"].values[1:], share[1:] / rho[1:], rtol=1e-12)
    np.testing.assert_allclose(result["split_corrected"].values[:, 1:], result["split"].values[:, 1:] / rho[1:])
    np.testing.assert_allclose(result["r_corrected"].values[1:], result["r"].values[1:] / np.sqrt(rho[1:]))
    assert np.isnan(result["split_corrected"].values[:, 0]).all()
    assert result.attrs["n_below_floor"] == 1


def test_nothing_of_a_held_out_response_is_used():
    a, b, y = planted()
    settings = {"penalties": WIDE, "n_candidates": 8, "keep_predictions": True}
    first = encode_banded({"a": layer(a), "b": layer(b)}, recording(y), **settings)
    test = first["test_fold"].values == 2
    changed = y.copy()
    changed[test] = 1e3 * np.random.default_rng(8).normal(size=changed[test].shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other folds now learn from nonsense
        again = encode_banded({"a": layer(a), "b": layer(b)}, recording(changed), **settings)
    np.testing.assert_array_equal(first["band_weight"].values[:, 2], again["band_weight"].values[:, 2])
    np.testing.assert_array_equal(first["predicted"].values[test], again["predicted"].values[test])


def test_candidates_are_on_the_simplex_and_do_not_depend_on_their_number():
    many = candidate_weights(3, 200, seed=1)
    np.testing.assert_allclose(many.sum(axis=1), 1)
    assert (many >= 0).all()
    np.testing.assert_array_equal(many[0], np.full(3, 1 / 3))
    np.testing.assert_array_equal(many[1:4], np.eye(3))
    np.testing.assert_array_equal(candidate_weights(3, 50, seed=1), many[:50])
    np.testing.assert_array_equal(candidate_weights(3, 2, seed=1), many[:2])
    assert not np.array_equal(candidate_weights(3, 50, seed=2), many[:50])
    assert (many[4::2].max(axis=1) > 0.9).mean() > 0.4 > (many[5::2].max(axis=1) > 0.9).mean()  # corners in turn


def test_bands_can_be_layers_of_a_source_parts_of_one_or_arrays_of_several():
    a, b, y = planted(n=60)
    source = {"one": layer(a), "two": layer(b), "three": layer(b[:, :5])}
    settings = {"penalties": [1.0], "n_candidates": 3}
    data = xr.Dataset({k: v.rename(unit=f"unit_{k}") for k, v in source.items()})
    by_layers = encode_banded(data, recording(y), layers=["one", "two"], **settings)
    by_name = encode_banded({"one": (source, "one"), "two": (source, "two")}, recording(y), **settings)
    np.testing.assert_array_equal(by_layers["r"].values, by_name["r"].values)
    assert by_name["n_units"].values.tolist() == [30, 400]
    joined = encode_banded({"one": (source, "one"), "rest": (source, ["two", "three"])}, recording(y), **settings)
    beside = encode_banded({"one": layer(a), "rest": layer(np.hstack([b, b[:, :5]]))}, recording(y), **settings)
    np.testing.assert_allclose(joined["r"].values, beside["r"].values, atol=1e-9)
    shuffled = layer(b).isel(stimulus=np.random.default_rng(0).permutation(60))
    again = encode_banded({"one": layer(a), "two": shuffled}, recording(y), **settings)
    np.testing.assert_allclose(again["r"].values, by_name["r"].values, atol=1e-9)


def test_a_constant_band_gets_nothing_and_harms_nothing():
    a, _, y = planted()
    flat = layer(np.full((150, 9), 0.1))
    result = encode_banded({"a": layer(a), "flat": flat}, recording(y), penalties=WIDE, n_candidates=10)
    np.testing.assert_array_equal(result["split"].sel(band="flat").values, 0)
    assert (result["r"].values[:4] > 0.5).all()


def test_bad_input_is_refused_with_its_cure():
    a, b, y = planted(n=40)
    good = recording(y)
    with pytest.raises(InputError, match=r"band 'x' is a source of 2 layers.*name those"):
        encode_banded({"x": {"one": layer(a), "two": layer(b)}}, good)
    with pytest.raises(InputError, match="no bands were given"):
        encode_banded({}, good)
    with pytest.raises(InputError, match=r"tuple of 3; give \(source, layer\)"):
        encode_banded({"x": (a, "one", "two")}, good)
    with pytest.raises(InputError, match="layers= chooses among"):
        encode_banded({"x": layer(a)}, good, layers=["x"])
    with pytest.raises(LayerError, match="'nothing'"):
        encode_banded({"x": ({"one": layer(a)}, "nothing")}, good)
    with pytest.raises(InputError, match="1 of 40 recorded stimuli"):
        encode_banded({"x": layer(a), "y": layer(b[:39])}, good)
    with pytest.raises(InputError, match="too small for 40 stimuli"):
        encode_banded({"x": layer(a), "y": layer(b)}, good, memory="100kB")
    with pytest.raises(InputError, match="penalties go up"):
        encode_banded({"x": layer(a)}, good, penalties=[2.0, 1.0])
    with pytest.raises(InputError, match="inner_folds=30"):
        encode_banded({"x": layer(a)}, recording(y, group=np.arange(40) * 3 // 4), inner_folds=30)
    with pytest.warns(UserWarning, match=r"choices of a penalty \(fold, neuron\)"):
        encode_banded({"x": layer(a)}, recording(y), penalties=[1e6, 1e7])


def test_a_result_survives_a_file_and_draws(tmp_path):
    a, b, y = planted()
    result = encode_banded(
        {"low": layer(a), "high": layer(b)},
        recording(y).assign_attrs(region="V4"),
        np.linspace(0.5, 0.8, 8),
        penalties=WIDE,
        n_candidates=5,
    )
    result.to_netcdf(tmp_path / "banded.nc")
    with xr.open_dataset(tmp_path / "banded.nc") as back:
        xr.testing.assert_identical(back.load(), result)
    assert result.attrs["analysis"] == "encoding_banded"
    assert json.loads(result.attrs["options"])["n_candidates"] == 5
    median = result["split"].median("neuron").values
    np.testing.assert_allclose(result["median_split"].values, median)
    assert (result["split_low"].values <= median).all()
    assert (median <= result["split_high"].values).all()
    figure = encoding_banded_plot.plot(result)
    widths = [bar.get_width() for bar in figure.axes[0].patches if hasattr(bar, "get_width")]
    for value in [*median, float(result["explained_variance"].median())]:
        assert np.isclose(widths, value).any()
    words = encoding_banded_plot.caption(result)
    assert "product measure" in words
    assert "No significance was tested" in words
    assert "V4" in encoding_banded_plot.alt_text(result)
    with pytest.raises(InputError, match="not a banded encoding result"):
        encoding_banded_plot.plot(xr.Dataset({"accuracy": ("layer", [0.5])}))
