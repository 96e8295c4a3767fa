import warnings

import numpy as np
import pytest
import xarray as xr
from sklearn.cross_decomposition import PLSRegression

from actkit.analyses import encoding_plot
from actkit.analyses.encoding import encode
from actkit.analyses.encoding_folds import deal
from actkit.analyses.encoding_inference import median_interval, resampled_correlations
from actkit.analyses.encoding_pls import pls, pls_path
from actkit.analyses.unit_matching_nulls import draw_orders
from actkit.errors import InputError
from actkit.resampling import bootstrap_weights

WIDE = list(np.logspace(-8, 8, 17))


def recording(values, **coords):
    """Averages of neurons n0, n1, … to stimuli s0, s1, …."""
    names = {"stimulus": [f"s{i}" for i in range(len(values))], "neuron": [f"n{j}" for j in range(values.shape[-1])]}
    dims = ("stimulus", "neuron") if values.ndim == 2 else ("stimulus", "repetition", "neuron")
    return xr.DataArray(values, dims=dims, coords=names | {k: ("stimulus", v) for k, v in coords.items()})


def layer(values):
    """Units over stimuli s0, s1, …."""
    return xr.DataArray(values, dims=("stimulus", "unit"), coords={"stimulus": [f"s{i}" for i in range(len(values))]})


def planted(n=120, p=300, q=12, noise=2.0, seed=0):
    """Units of unlike sizes away from zero, and neurons that are noisy sums of the first of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * np.exp(0.7 * rng.normal(size=p)) + 5
    y = x[:, : 2 * q] @ rng.normal(size=(2 * q, q)) * 0.3 + noise * rng.normal(size=(n, q)) + 4
    return x, y


def products(x):
    centred = x - x.mean(axis=0)
    return centred @ centred.T


def halves(n, n_test, seed=1):
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


# Components chosen, intervals, permutations


def test_one_extraction_serves_every_number_of_components():
    x, y = planted(q=6)
    train, test = halves(120, 30)
    counts = [1, 4, 9, 200]
    path = pls_path(products(x[:, :20]), y, train, test, counts)
    for number, count in enumerate(counts):
        one = pls(products(x[:, :20]), y, train, test, count)
        assert path.n_components[number] == one.n_components
        np.testing.assert_allclose(path.predicted[number], one.predicted, atol=1e-8)
    assert path.n_components[-1] == 20


def test_the_number_of_components_is_the_one_that_a_plain_nested_loop_chooses():
    x, y = planted(n=80, p=60, q=5, noise=1.0)
    counts = [1, 2, 4, 8, 30]
    result = encode(layer(x), recording(y), model="pls", components=counts, folds=4, keep_predictions=True, seed=3)
    test_fold, chosen = result["test_fold"].values, []
    for fold in range(4):
        train = np.flatnonzero(test_fold != fold)
        part = deal(np.arange(80)[train], 5, 3, fold + 1)
        errors, baseline = np.zeros((5, 5)), np.zeros(5)
        for k in range(5):
            rest, out = train[part != k], train[part == k]
            baseline += ((y[out] - y[rest].mean(axis=0)) ** 2).sum(axis=0)
            for number, count in enumerate(counts):
                plain = PLSRegression(count, scale=False, tol=1e-22, max_iter=100_000).fit(x[rest], y[rest])
                errors[number] += ((plain.predict(x[out]) - y[out]) ** 2).sum(axis=0)
        chosen.append(counts[int((1 - errors / baseline).mean(axis=1).argmax())])
        plain = PLSRegression(chosen[-1], scale=False, tol=1e-22, max_iter=100_000).fit(x[train], y[train])
        np.testing.assert_allclose(
            result["predicted"].values[0, test_fold == fold], plain.predict(x[test_fold == fold]), atol=1e-7
        )
    assert result["n_components"].values[0].tolist() == chosen
    assert 1 < min(chosen) <= max(chosen) < 30
    assert "one of 1, 2, 4, 8, 30 components" in encoding_plot.caption(result)


def test_a_list_of_one_is_a_number_and_the_largest_choice_warns():
    x, y = planted(n=60, q=4)
    one = encode(layer(x), recording(y), model="pls", components=[6])
    xr.testing.assert_identical(one, encode(layer(x), recording(y), model="pls", components=6))
    with pytest.warns(UserWarning, match=r"of 5 choices \(layer, fold\) took the largest number of components, 2"):
        encode(layer(x), recording(y), model="pls", components=[1, 2])
    clean = x[:, :5] @ np.random.default_rng(18).normal(size=(5, 4))
    every = encode(layer(x[:, :5]), recording(clean), model="pls", components=[1, 2, 99])  # no more than 5: no warning
    assert (every["n_components"] == 5).all()
    with pytest.raises(InputError, match="at least one component"):
        encode(layer(x), recording(y), model="pls", components=[0, 3])


def test_intervals_over_neurons_hold_the_median_of_the_population():
    rng = np.random.default_rng(14)
    hits = 0
    for draw in range(120):  # medians of 40 draws of a population with the median 0.3
        values = 0.3 + 0.1 * rng.normal(size=40)
        low, high = median_interval(values, 200, seed=draw)
        hits += low <= 0.3 <= high
    assert 0.87 < hits / 120 < 0.995
    x, y = planted(q=40)
    y[:, 7] = 2.0  # a neuron without a score is left out
    result = encode(layer(x), recording(y), penalties=[1.0], n_draws=500)
    r = np.delete(result["r"].values[0], 7)
    assert float(result["median_r"][0]) == np.median(r)
    medians = np.median(rng.choice(r, size=(4000, 39)), axis=1)
    ends = [float(result[name][0]) for name in ("median_low", "median_high")]
    np.testing.assert_allclose(ends, np.quantile(medians, [0.025, 0.975]), atol=0.02)
    assert "draws of neurons" in result.attrs["interval"]
    assert np.isnan(encode(layer(x), recording(y), penalties=[1.0], n_draws=0)["median_low"]).all()


def test_resampled_correlations_are_those_of_resampled_rows():
    rng = np.random.default_rng(15)
    observed = rng.normal(size=(60, 4)) + 5
    predicted = observed + rng.normal(size=(60, 4))
    groups, fold = np.arange(60) // 2, np.arange(60) // 2 % 3
    draws = resampled_correlations(predicted, observed, fold, groups, 20, seed=4)
    weights = bootstrap_weights(30, 20, 4, start=2**62)
    for draw in range(20):
        rows = np.repeat(np.arange(60), weights[draw][groups])
        parts = [rows[fold[rows] == k] for k in range(3)]
        for j in range(4):
            r = np.mean([np.corrcoef(predicted[part, j], observed[part, j])[0, 1] for part in parts])
            np.testing.assert_allclose(draws[draw, j], r, atol=1e-10)


def test_intervals_over_stimuli_are_as_wide_as_new_stimuli_make_them():
    rng = np.random.default_rng(16)
    weights = rng.normal(size=(12, 200)) / np.sqrt(12)

    def fitted(seed, over):
        random = np.random.default_rng(seed)
        new = random.normal(size=(100, 12))
        # Noise that all neurons share: neurons do not tell how much the median would change, stimuli do.
        y = new @ weights + 1.5 * random.normal(size=(100, 1)) + 0.2 * random.normal(size=(100, 200))
        return encode(layer(new), recording(y), penalties=[1e-2], interval_over=over, n_draws=300)

    medians = [float(fitted(seed, "neuron")["median_r"][0]) for seed in range(12)]
    widths = {
        over: float((one := fitted(0, over))["median_high"][0] - one["median_low"][0])
        for over in ("neuron", "stimulus", "both")
    }
    assert widths["neuron"] < 0.5 * widths["stimulus"]
    assert 0.5 < widths["stimulus"] / (4 * np.std(medians)) < 2
    assert widths["both"] > 0.9 * widths["stimulus"]


@pytest.mark.parametrize("model", ["ridge", "pls"])
def test_a_permutation_is_the_analysis_of_permuted_responses(model):
    x, y = planted(n=50, p=40, q=3)
    settings = {"model": model, "components": [1, 3, 40], "penalties": WIDE, "folds": 3, "inner_folds": 3}
    result = encode(layer(x), recording(y, group=np.arange(50) // 2), n_permutations=9, **settings)
    orders = draw_orders(50, 9, None, np.arange(50) // 2, 0)
    null = []
    for order in orders:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # edges, with responses that nothing predicts
            null.append(encode(layer(x), recording(y[order], group=np.arange(50) // 2), **settings)["r"].values[0])
    null = np.array(null)
    expected = (1 + (null >= result["r"].values[0]).sum(axis=0)) / 10
    np.testing.assert_allclose(result["p_value"].values[0], expected)
    median = (1 + (np.median(null, axis=1) >= float(result["median_r"][0])).sum()) / 10
    assert float(result["p_median"][0]) == pytest.approx(median)
    assert "9 permutations" in result.attrs["test"]
    assert (result["p_corrected"] >= result["p_value"]).all()


def test_noise_is_found_in_a_twentieth_of_neurons_and_a_weak_signal_in_most():
    rng = np.random.default_rng(17)
    found, weak = [], []
    for seed in range(4):
        x = rng.normal(size=(60, 30))
        noise = rng.normal(size=(60, 150))
        signal = x[:, :10] @ rng.normal(size=(10, 40)) / np.sqrt(10) + 0.8 * rng.normal(size=(60, 40))
        both = recording(np.hstack([noise, signal]))
        result = encode(
            layer(x),
            both,
            penalties=[1e-2, 1e-1, 1.0, 10.0, 1e3, 1e5],
            folds=3,
            n_permutations=39,
            n_draws=0,
            seed=seed,
        )
        found.append(result["p_value"].values[0, :150] <= 0.05)
        weak.append(result["p_value"].values[0, 150:] <= 0.05)
    # Of 600 independent tests at .05, 95 % of runs find .033 to .068.
    assert 0.03 < np.mean(found) < 0.07
    assert np.mean(weak) > 0.7


def test_permutations_move_groups_whole_and_constant_neurons_have_no_p():
    x, y = planted(n=60, q=4)
    y[:, 2] = 1.0
    result = encode(
        {"flat": layer(np.full((60, 3), 0.1)), "live": layer(x)}, recording(y), penalties=[1.0], n_permutations=9
    )
    assert np.isnan(result["p_value"].sel(layer="flat")).all()
    p = result["p_value"].sel(layer="live").values
    assert np.isnan(p[2])
    assert (np.delete(p, 2) >= 0.1).all()
    words = encoding_plot.caption(result)
    assert "9 permutations" in words
    assert "No significance" not in words
