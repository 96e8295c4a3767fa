"""Flexible models: fits against rsatoolbox's optimisers, plain searches and planted truth; tags, features, errors."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize, nnls
from scipy.spatial.distance import pdist

from actkit.analyses.comparison import forms
from actkit.analyses.model_fits import _pivoted, fit, one_hot
from actkit.analyses.models import (
    best_layer,
    feature_rdms,
    flexible_kind,
    interpolation,
    layer_weighted,
    selection,
    weighted,
)
from actkit.errors import InputError
from actkit.recordings import rdm_dataset

THEIRS = {"pearson": "corr", "cosine": "cosine", "whitened-pearson": "corr_cov", "whitened-cosine": "cosine_cov"}


def ids(n):
    return [f"i{k}" for k in range(n)]


def planted(n=12, k=4, subjects=5, seed=0, noise=0.5, weights=None):
    """Components, and subjects that are their weighted sum with noise."""
    rng = np.random.default_rng(seed)
    components = np.array([pdist(rng.normal(size=(n, 3))) ** 2 for _ in range(k)])
    true = np.array([1.0, 2.0, 0.0, 0.5, *[0.0] * k][:k] if weights is None else weights)
    shared = true @ components
    return components, shared + noise * shared.std() * rng.normal(size=(subjects, components.shape[1])), true


def moments(components, data, compare):
    """Q and b of all pairs, from the engine's forms."""
    k = len(components)
    form = forms(np.concatenate([components, data]), None, compare)[0]
    unit = form[:k, k:] / np.sqrt(np.diagonal(form)[k:])
    return form[None, :k, :k], unit.mean(axis=1)[None, None]


def value(theta, q, b):
    """Mean training score of weights."""
    return float(theta @ b[0, 0] / np.sqrt(theta @ q[0] @ theta))


def their_data(components, data):
    from rsatoolbox.rdm import RDMs

    return RDMs(components), RDMs(data)


def quiet_score(model, theta, people, method):
    from rsatoolbox.rdm import compare

    return float(np.mean(compare(model.predict_rdm(theta), people, method)))


# ------------------------------------------------------------------------------------------------------------- fits


@pytest.mark.parametrize("compare", THEIRS)
def test_weights_are_those_of_rsatoolboxs_regression(compare):
    from rsatoolbox.model import ModelWeighted
    from rsatoolbox.model.fitter import fit_regress

    components, data, _ = planted()
    rdms, people = their_data(components, data)
    q, b = moments(components, data, compare)
    ours = fit("weighted", q, b)[0, 0]
    theirs = fit_regress(ModelWeighted("w", rdms), people, method=THEIRS[compare])
    # Theirs inverts by conjugate gradients for the whitened measures, to 1e-5 of the residual.
    tight = 1e-9 if "whitened" not in compare else 1e-4
    np.testing.assert_allclose(ours / np.linalg.norm(ours), theirs, atol=tight)
    assert value(ours, q, b) == pytest.approx(
        quiet_score(ModelWeighted("w", rdms), ours, people, THEIRS[compare]), abs=1e-9
    )


@pytest.mark.parametrize("compare", ["pearson", "cosine"])
def test_weights_reach_the_optimum_of_rsatoolboxs_search(compare):
    from rsatoolbox.model import ModelWeighted
    from rsatoolbox.model.fitter import fit_optimize, fit_optimize_positive

    components, data, _ = planted(n=9, k=3, subjects=3)
    rdms, people = their_data(components, data)
    model, method = ModelWeighted("w", rdms), THEIRS[compare]
    q, b = moments(components, data, compare)
    np.random.seed(0)  # noqa: NPY002 - rsatoolbox draws from the global state
    for kind, search in (("weighted", fit_optimize), ("weighted_nonnegative", fit_optimize_positive)):
        ours = quiet_score(model, fit(kind, q, b)[0, 0], people, method)
        theirs = quiet_score(model, search(model, people, method=method), people, method)
        assert ours == pytest.approx(theirs, abs=1e-6)
        assert ours >= theirs - 1e-12


@pytest.mark.parametrize("n", [10, 92])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_nonnegative_weights_solve_the_problem_on_which_rsatoolbox_hangs(n, k):
    """fit_regress_nn never ends for positive RDMs of 92 stimuli; the problem is NNLS on all pairs."""
    rng = np.random.default_rng(k)
    components = rng.uniform(size=(k, n * (n - 1) // 2))
    data = rng.uniform(size=(4, components.shape[1])) + 0.3 * components[:2].sum(axis=0)
    q, b = moments(components, data, "pearson")
    ours = fit("weighted_nonnegative", q, b)[0, 0]
    design = components - components.mean(axis=1, keepdims=True)
    unit = data - data.mean(axis=1, keepdims=True)
    target = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).mean(axis=0)
    plain = nnls(design.T, target)[0]
    assert (ours >= 0).all()
    np.testing.assert_allclose(ours / np.linalg.norm(ours), plain / np.linalg.norm(plain), atol=1e-8)


def test_nonnegative_weights_take_the_best_single_component_where_all_correlate_negatively():
    components, data, _ = planted(k=3, weights=[-1.0, -2.0, -1.0], noise=0.1)
    q, b = moments(components, data, "pearson")
    assert (b < 0).all()
    ours = fit("weighted_nonnegative", q, b)[0, 0]
    rng = np.random.default_rng(0)
    anything = max(value(theta, q, b) for theta in rng.exponential(size=(5000, 3)))
    assert value(ours, q, b) >= anything
    assert np.count_nonzero(ours) == 1


def test_nonnegative_weights_beat_any_other_nonnegative_direction():
    components, data, _ = planted(k=5, weights=[1.0, -1.0, 2.0, 0.0, -0.5], noise=0.2)
    q, b = moments(components, data, "cosine")
    ours = value(fit("weighted_nonnegative", q, b)[0, 0], q, b)
    searched = minimize(
        lambda root: -value(root**2, q, b), np.ones(5), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14}
    )
    assert ours == pytest.approx(-searched.fun, abs=1e-8)


def test_batched_pivoting_is_nnls():
    rng = np.random.default_rng(0)
    for k in (1, 2, 6, 15):
        design = rng.normal(size=(200, 3 * k + 2, k)) + rng.normal(size=(200, 3 * k + 2, 1))
        target = rng.normal(size=(200, 3 * k + 2))
        q, b = design.swapaxes(1, 2) @ design, (target[:, None] @ design)[:, 0]
        theta, solved = _pivoted(q, b)
        assert solved.mean() > 0.95
        expected = np.array([nnls(a, c)[0] for a, c in zip(design, target, strict=True)])
        np.testing.assert_allclose(theta[solved], expected[solved], atol=1e-9)


def test_planted_weights_are_recovered():
    components, data, true = planted(n=40, subjects=20, noise=0.05)
    q, b = moments(components, data, "pearson")
    for kind in ("weighted", "weighted_nonnegative"):
        theta = fit(kind, q, b)[0, 0]
        np.testing.assert_allclose(theta / np.linalg.norm(theta), true / np.linalg.norm(true), atol=0.01)


def test_interpolation_finds_the_place_that_rsatoolbox_searches():
    from rsatoolbox.model import ModelInterpolate
    from rsatoolbox.model.fitter import fit_interpolate

    for seed in range(4):
        rng = np.random.default_rng(seed)
        components = np.array([pdist(rng.normal(size=(11, 3))) * scale for scale in (1.0, 4.0, 0.5, 2.0)])
        data = (
            0.3 * components[seed % 3] + 0.7 * components[seed % 3 + 1] + 0.3 * rng.normal(size=(4, len(components.T)))
        )
        rdms, people = their_data(components, data)
        q, b = moments(components, data, "pearson")
        ours = fit("interpolation", q, b)[0, 0]
        theirs = fit_interpolate(ModelInterpolate("i", rdms), people, method="corr")
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        grid = [w * np.eye(4)[k] + (1 - w) * np.eye(4)[k + 1] for k in range(3) for w in np.linspace(0, 1, 1001)]
        assert value(ours, q, b) >= max(value(theta, q, b) for theta in grid) - 1e-14
        assert ours.sum() == pytest.approx(1.0, abs=1e-12)


def test_interpolation_stops_at_an_end_where_that_is_best():
    components, data, _ = planted(k=3, weights=[1.0, 0.0, 0.0], noise=0.01)
    theta = fit("interpolation", *moments(components - 0.5 * components[0], data, "pearson"))[0, 0]
    assert theta[0] == 1.0
    assert not theta[1:].any()


def test_selection_takes_the_largest_score_not_the_largest_product():
    components, data, _ = planted(k=3, weights=[0.0, 1.0, 0.0])
    components[0] = 1000 * components[0]
    theta = fit("selection", *moments(components, data, "pearson"))[0, 0]
    assert np.flatnonzero(theta).tolist() == [1]


def test_ridge_is_that_of_unit_norm_components():
    from rsatoolbox.model import ModelWeighted
    from rsatoolbox.model.fitter import fit_regress

    components, data, _ = planted()
    unit = components - components.mean(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rdms, people = their_data(unit, data)
    theirs = fit_regress(ModelWeighted("w", rdms), people, method="corr", ridge_weight=0.7)
    ours = fit("weighted", *moments(unit * [[1], [10], [0.1], [3]], data, "pearson"), ridge=0.7)[0, 0] * [1, 10, 0.1, 3]
    np.testing.assert_allclose(ours / np.linalg.norm(ours), theirs, atol=1e-9)


def test_dependent_components_share_their_weight():
    components, data, _ = planted(k=2)
    twice = np.concatenate([components, components[:1]])
    q, b = moments(components, data, "pearson")
    q2, b2 = moments(twice, data, "pearson")
    for kind in ("weighted", "weighted_nonnegative"):
        assert value(fit(kind, q2, b2)[0, 0], q2, b2) == pytest.approx(value(fit(kind, q, b)[0, 0], q, b), abs=1e-10)
    assert fit("weighted", q2, b2)[0, 0, 0] == pytest.approx(fit("weighted", q2, b2)[0, 0, 2], rel=1e-6)


@pytest.mark.parametrize("kind", ["weighted", "weighted_nonnegative", "selection", "interpolation"])
def test_a_constant_component_has_no_weight_of_its_own_and_nothing_fitted_is_nan(kind):
    components, data, _ = planted(k=3)
    q, b = moments(components, data, "pearson")
    alive = np.array([[True, False, True]])
    theta = fit(kind, q, b, alive)[0, 0]
    if kind != "interpolation":  # there a constant neighbour shrinks the other, which no correlation sees
        assert theta[1] == 0
        assert value(theta, q, b) <= value(fit(kind, q, b)[0, 0], q, b) + 1e-12
    assert np.isnan(fit(kind, q, b, np.zeros((1, 3), dtype=bool))).all()
    assert np.isnan(fit(kind, q, np.full_like(b, np.nan))).all()


def test_one_hot_skips_what_is_not_defined():
    np.testing.assert_array_equal(one_hot(np.array([[np.nan, -1.0, -2.0], [np.nan] * 3])), [[0, 1, 0], [np.nan] * 3])


# ------------------------------------------------------------------------------------------------------------- tags


def layers(n=6, k=3, dead=()):
    rng = np.random.default_rng(0)
    vectors = rng.uniform(size=(k, n * (n - 1) // 2))
    for row in dead:
        vectors[row, 0] = np.nan
    return rdm_dataset(vectors, [f"conv{j}" for j in range(k)], "layer", ids(n), "correlation", "net")


def test_tags_name_the_kind_and_leave_the_rdms_alone():
    rdms = layers()
    for made, kind in (
        (weighted(rdms, "a"), "weighted_nonnegative"),
        (weighted(rdms, "a", nonnegative=False, ridge=0.1), "weighted"),
        (selection(rdms, "a"), "selection"),
        (interpolation(rdms, "a"), "interpolation"),
    ):
        assert flexible_kind(made) == kind
        assert made.attrs["name"] == "a"
        xr.testing.assert_equal(made, rdms)
    assert flexible_kind(rdms) is None
    assert "flexible" not in rdms.attrs
    with pytest.raises(InputError, match=r"flexible='wieghted'.*weighted"):
        flexible_kind(rdms.assign_attrs(flexible="wieghted"))


def test_layer_models_leave_out_and_name_dead_layers():
    made = layer_weighted(layers(dead=[1]))
    assert made.attrs["name"] == "net: layers weighted"
    assert json.loads(made.attrs["left_out"]) == ["conv1"]
    assert made.layer.values.tolist() == ["conv0", "conv2"]
    assert best_layer(layers(), "best").attrs["flexible"] == "selection"
    with pytest.raises(InputError, match="has 1 component"):
        best_layer(layers(dead=[0, 2]))
    with pytest.raises(InputError, match="not 'layer'"):
        best_layer(layers().rename(layer="model"))


def test_tags_refuse_what_cannot_be_fitted():
    with pytest.raises(InputError, match=r"'conv1'.*drop_sel"):
        weighted(layers(dead=[1]), "a")
    with pytest.raises(InputError, match="ridge=-1"):
        weighted(layers(), "a", ridge=-1)
    with pytest.raises(InputError, match="use the RDM as a fixed model"):
        selection(layers(k=1), "a")


# --------------------------------------------------------------------------------------------------------- features


def test_feature_rdms_add_up_to_the_squared_distance_of_the_layer():
    rng = np.random.default_rng(0)
    maps = xr.DataArray(
        rng.normal(size=(7, 4, 3, 2)), dims=("stimulus", "channel", "y", "x"), coords={"stimulus": ids(7)}
    )
    whole = pdist(maps.values.reshape(7, -1), "sqeuclidean")
    channels = feature_rdms(maps, by="channel")
    assert channels["rdm"].values.tolist() == ["channel0", "channel1", "channel2", "channel3"]
    np.testing.assert_allclose(channels.dissimilarity.sum("rdm"), whole, rtol=1e-12)
    np.testing.assert_allclose(channels.dissimilarity[2], pdist(maps.values[:, 2].reshape(7, -1)) ** 2, rtol=1e-12)
    units = feature_rdms(maps, by="unit")
    assert units.sizes["rdm"] == 24
    np.testing.assert_allclose(units.dissimilarity.sum("rdm"), whole, rtol=1e-12)
    assert flexible_kind(weighted(units, "reweighted", ridge=0.1)) == "weighted_nonnegative"


def test_feature_rdms_count_constant_features_and_refuse_bad_input():
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[:, 1] = 2.0
    made = feature_rdms(values, stimulus_ids=np.array(ids(5)))
    assert made["rdm"].values.tolist() == ["unit0", "unit2"]
    assert made.attrs["n_constant"] == 1
    with pytest.raises(InputError, match="give stimulus_ids"):
        feature_rdms(values)
    with pytest.raises(InputError, match="use by='unit'"):
        feature_rdms(values, by="channel", stimulus_ids=np.array(ids(5)))
    with pytest.raises(InputError, match="more than memory='100B'"):
        feature_rdms(values, stimulus_ids=np.array(ids(5)), memory="100B")
    with pytest.raises(InputError, match="NaN"):
        feature_rdms(np.where(values > 1, np.nan, values), stimulus_ids=np.array(ids(5)))
    with pytest.raises(InputError, match="no feature"):
        feature_rdms(np.ones((5, 3)), stimulus_ids=np.array(ids(5)))
    with pytest.raises(InputError, match="4 stimulus ids"):
        feature_rdms(values, stimulus_ids=np.array(ids(4)))
