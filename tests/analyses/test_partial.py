"""Partial scores and explained variance against statsmodels and explicit residuals, on the data and on draws."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from actkit.analyses.comparison import forms
from actkit.analyses.partial import explained, partial_scores
from actkit.errors import InputError
from actkit.resampling import bootstrap_weights


def vectors(n=12, v=8, seed=0):
    """RDM vectors with something in common, of very different scales."""
    rng = np.random.default_rng(seed)
    pairs = n * (n - 1) // 2
    x = rng.random((v, pairs)) + 2 * rng.random(pairs) * rng.random((v, 1))
    return np.round(x, 2) * 10.0 ** rng.integers(-3, 4, size=(v, 1))


MODELS, CONTROLS, SUBJECTS = [0, 1, 2], [3, 4], [5, 6, 7]


def residual(y, controls, intercept=True):
    design = sm.add_constant(controls.T) if intercept else controls.T
    return sm.OLS(y, design).fit().resid


def by_residuals(x, semi, intercept=True):
    """What partial correlation means: correlate what regressions on the controls leave."""
    out = np.empty((3, 3))
    controls = x[CONTROLS] / np.abs(x[CONTROLS]).max(axis=1, keepdims=True)
    for i, m in enumerate(MODELS):
        for j, s in enumerate(SUBJECTS):
            a = residual(x[m], controls, intercept)
            b = residual(x[s], controls, intercept)
            if semi:
                b = x[s] - x[s].mean() * intercept
            out[i, j] = a @ b / np.sqrt((a @ a) * (b @ b))
    return out


@pytest.mark.parametrize("semi", [False, True])
@pytest.mark.parametrize("compare", ["pearson", "spearman", "cosine"])
def test_equals_regression_residuals(compare, semi):
    x = vectors()
    transformed = rankdata(x, axis=1) if compare == "spearman" else x
    ours = partial_scores(forms(x, None, compare)[0], MODELS, CONTROLS, SUBJECTS, semi)
    np.testing.assert_allclose(ours, by_residuals(transformed, semi, compare != "cosine"), atol=1e-12)


@pytest.mark.parametrize("compare", ["pearson", "spearman"])
def test_every_draw_equals_residuals_of_the_drawn_pairs(compare):
    x = vectors()
    weights = bootstrap_weights(12, 6, seed=3)
    ours = partial_scores(forms(x, weights, compare), MODELS, CONTROLS, SUBJECTS)
    row, column = np.triu_indices(12, 1)
    for got, w in zip(ours, weights, strict=True):
        repeated = np.repeat(x, w[row] * w[column], axis=1)
        drawn = rankdata(repeated, axis=1) if compare == "spearman" else repeated
        np.testing.assert_allclose(got, by_residuals(drawn, False), atol=1e-11)


def test_one_control_is_the_textbook_formula():
    r = np.corrcoef(vectors(v=3))
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert partial_scores(r, [0], [2], [1])[0, 0] == pytest.approx(expected, abs=1e-14)
    assert partial_scores(r, [0], [2], [1], semi=True)[0, 0] == pytest.approx(
        expected * np.sqrt(1 - r[1, 2] ** 2), abs=1e-14
    )


def test_squared_semi_partial_is_what_the_model_adds():
    form = forms(vectors(), None, "pearson")[0]
    semi = partial_scores(form, [0], CONTROLS, SUBJECTS, semi=True)[0]
    added = explained(form, [0, *CONTROLS], SUBJECTS) - explained(form, CONTROLS, SUBJECTS)
    np.testing.assert_allclose(semi**2, added, atol=1e-13)


def test_no_controls_are_plain_scores():
    x = vectors()
    ours = partial_scores(forms(x, None, "pearson")[0], MODELS, [], SUBJECTS)
    np.testing.assert_allclose(ours, np.corrcoef(x)[np.ix_(MODELS, SUBJECTS)], atol=1e-13)


def test_whitened_partial_is_that_of_whitened_vectors():
    """The metric as an explicit matrix: the inverse covariance of squared distances under white noise."""
    n, x = 7, vectors(n=7)
    row, column = np.triu_indices(n, 1)
    contrasts = np.eye(n)[row] - np.eye(n)[column]
    root = np.linalg.cholesky(np.linalg.inv((contrasts @ contrasts.T) ** 2))
    expected = by_residuals((root.T @ x.T).T, False, intercept=False)
    ours = partial_scores(forms(x, None, "whitened-cosine")[0], MODELS, CONTROLS, SUBJECTS)
    np.testing.assert_allclose(ours, expected, atol=1e-11)


def test_models_made_of_controls_have_no_partial_score():
    x = vectors()
    x[1] = 2 * x[3] - x[4] * (np.ptp(x[3]) / np.ptp(x[4]))
    x[6] = 5 * x[3]
    form = forms(x, None, "pearson")[0]
    ours = partial_scores(form, MODELS, CONTROLS, SUBJECTS)
    assert np.isnan(ours[1]).all()
    assert np.isnan(ours[:, 1]).all()
    assert np.isfinite(np.delete(np.delete(ours, 1, 0), 1, 1)).all()
    semi = partial_scores(form, MODELS, CONTROLS, SUBJECTS, semi=True)
    np.testing.assert_allclose(semi[[0, 2], 1], 0, atol=1e-7)  # nothing of that subject is left to explain


def test_repeated_controls_count_once():
    x = vectors()
    form = forms(np.vstack([x, x[3:5] * 3, x[3:4] + x[4:5]]), None, "pearson")[0]
    once = partial_scores(form, MODELS, CONTROLS, SUBJECTS)
    again = partial_scores(form, MODELS, [3, 4, 8, 9, 10], SUBJECTS)
    np.testing.assert_allclose(again, once, atol=1e-9)
    constant = form.copy()
    constant[10], constant[:, 10] = 0, 0  # a control that does not vary takes nothing out
    np.testing.assert_allclose(partial_scores(constant, MODELS, [*CONTROLS, 10], SUBJECTS), once, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(-8, 8), st.integers(1, 4))
def test_scale_and_mixing_of_controls_change_nothing(seed, exponent, n_controls):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 + n_controls, 30))
    index = list(range(2, 2 + n_controls))
    before = partial_scores(np.cov(x), [0], index, [1])
    mixed = x.copy()
    mixed[2:] = (rng.normal(size=(n_controls, n_controls)) + 4 * np.eye(n_controls)) @ x[2:]
    mixed[0] *= 10.0**exponent
    np.testing.assert_allclose(partial_scores(np.cov(mixed), [0], index, [1]), before, atol=1e-9)
    assert np.abs(before).max() <= 1


def test_undefined_draws_stay_undefined():
    x = vectors()
    weights = bootstrap_weights(12, 4, seed=1)
    weights[2] = 0
    weights[2, :2] = 6
    form = forms(x, weights, "pearson")
    for values in (partial_scores(form, MODELS, CONTROLS, SUBJECTS), explained(form, CONTROLS, SUBJECTS)):
        assert np.isnan(values[2]).all()
        assert np.isfinite(values[[0, 1, 3]]).all()


def test_explained_is_r_squared():
    x = vectors()
    ours = explained(forms(x, None, "pearson")[0], [0, 1, 2, 3, 4], SUBJECTS)
    scaled = x[:5] / x[:5].max(axis=1, keepdims=True)
    expected = [sm.OLS(x[s], sm.add_constant(scaled.T)).fit().rsquared for s in SUBJECTS]
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    raw = explained(forms(x, None, "cosine")[0], [0, 1], SUBJECTS)
    np.testing.assert_allclose(raw, [sm.OLS(x[s], scaled[:2].T).fit().rsquared for s in SUBJECTS], atol=1e-12)
    assert not explained(forms(x, None, "pearson")[0], [], SUBJECTS).any()


def test_bad_input():
    with pytest.raises(InputError, match=r"forms have shape \(2, 3\)"):
        partial_scores(np.zeros((2, 3)), [0], [], [1])
    with pytest.raises(InputError, match="vector 5 does not exist: the forms hold 3"):
        partial_scores(np.eye(3), [0], [5], [1])
    with pytest.raises(InputError, match="vector -1 does not exist"):
        explained(np.eye(3), [-1], [1])
