"""Transfer by matched populations: planted correspondence, both controls, and the plain loop."""

import numpy as np
import pytest
import xarray as xr
from sklearn.svm import SVC

from actkit.analyses.matched_transfer import transfer
from actkit.analyses.unit_matching import match_units
from actkit.errors import InputError


def planted(n=150, n_neurons=12, n_units=60, signal=1.5, noise=0.7, seed=0):
    """Units tuned to three categories, and neurons that copy one unit each."""
    rng = np.random.default_rng(seed)
    y = np.array(["cat", "car", "cup"])[np.arange(n) % 3]
    means = rng.normal(size=(3, n_units))
    units = signal * means[np.arange(n) % 3] + rng.normal(size=(n, n_units))
    chosen = rng.permutation(n_units)[:n_neurons]
    values = units[:, chosen] * rng.uniform(2, 9, n_neurons) + 30 + noise * 5 * rng.normal(size=(n, n_neurons))
    ids = [f"i{k}" for k in range(n)]
    neurons = xr.DataArray(
        values,
        dims=("stimulus", "neuron"),
        coords={"stimulus": ids, "neuron": [f"n{k}" for k in range(n_neurons)], "category": ("stimulus", y)},
    )
    source = {"fc": xr.DataArray(units, dims=("stimulus", "unit"), coords={"stimulus": ids})}
    return source, neurons, y


@pytest.fixture(scope="module")
def matched():
    source, neurons, y = planted()
    return source, neurons, y, match_units(source, neurons, n_permutations=0)


def test_planted_units_transfer_and_both_controls_fail(matched):
    source, neurons, _, match = matched
    result = transfer(match, source, neurons, "category", n_permutations=19)
    assert float(result["transfer"][0]) > 0.8
    assert float(result["units"][0]) > 0.8
    assert float(result["neurons"][0]) > 0.8
    assert float(result["null_labels"].mean()) == pytest.approx(1 / 3, abs=0.08)
    assert float(result["null_match"].mean()) < 0.6
    assert float(result["p_labels"][0]) == float(result["p_match"][0]) == pytest.approx(1 / 20)
    assert result.identical(transfer(match, source, neurons, "category", n_permutations=19))


def test_transfer_is_the_plain_loop_whatever_the_order_of_the_rows(matched):
    source, neurons, y, match = matched
    units, fold = source["fc"].values, match["fold_of_stimulus"].values
    z, hits = {}, np.zeros(3)
    for f in range(5):
        train = fold != f
        z["a"] = units[:, match["unit"].values[:, f, 0]]
        z["b"] = neurons.values
        a, b = ((v - v[train].mean(0)) / v[train].std(0) / np.sqrt(12) for v in z.values())
        on_units, on_neurons = (
            SVC(kernel="linear").fit(a[train], y[train]),
            SVC(kernel="linear").fit(b[train], y[train]),
        )
        for k, (model, tested) in enumerate(((on_units, b), (on_units, a), (on_neurons, b))):
            hits[k] += (model.predict(tested[~train]) == y[~train]).sum()
    back = {"fc": source["fc"].isel(stimulus=slice(None, None, -1))}
    result = transfer(match, back, neurons.isel(stimulus=np.roll(np.arange(150), 7)), "category", n_permutations=2)
    got = [float(result[name][0]) for name in ("transfer", "units", "neurons")]
    np.testing.assert_allclose(got, hits / 150)


def test_a_shared_category_response_survives_a_permuted_match():
    """Where all neurons and units are alike, no correspondence is needed: the control tells."""
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    ids = [f"i{k}" for k in range(120)]
    units = 3 * y[:, None] + rng.normal(size=(120, 20))
    values = 3 * y[:, None] + rng.normal(size=(120, 8))
    neurons = xr.DataArray(
        values, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": [f"n{k}" for k in range(8)]}
    )
    source = {"fc": xr.DataArray(units, dims=("stimulus", "unit"), coords={"stimulus": ids})}
    match = match_units(source, neurons, n_permutations=0)
    result = transfer(match, source, neurons, y, n_permutations=19)
    assert float(result["transfer"][0]) > 0.9
    assert float(result["p_labels"][0]) == pytest.approx(1 / 20)
    assert float(result["p_match"][0]) > 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, n, m: transfer(m.drop_vars("unit"), s, n, "category"), "holds no units"),
        (lambda s, n, m: transfer(m, {"other": s["fc"]}, n, "category"), "not in the match"),
        (lambda s, n, m: transfer(m, s, n[:, ::-1], "category"), "in their order"),
        (lambda s, n, m: transfer(m, s, n[:100], "category"), "lack 50 stimuli"),
        (lambda s, n, m: transfer(m, s, n, ["x"] * 150), "nothing to decode"),
        (lambda s, n, m: transfer(m, s, n, ["x"] + ["y"] * 149), "'x' is in fold"),
    ],
)
def test_bad_input_is_named(matched, call, words):
    source, neurons, _, match = matched
    with pytest.raises(InputError, match=words):
        call(source, neurons, match)
