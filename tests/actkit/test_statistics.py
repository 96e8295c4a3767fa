"""Closed forms against scipy and rsatoolbox, and the maximum statistic against counting by hand."""

import numpy as np
import pytest
from scipy import stats

from actkit.errors import InputError
from actkit.statistics import (
    MaximumStatistic,
    small_sample,
    standard_error,
    t_interval,
    two_factor_variance,
    variance_over_draws,
)


def test_standard_error_is_scipys():
    values = np.random.default_rng(0).normal(size=(3, 7))
    np.testing.assert_allclose(standard_error(values), stats.sem(values, axis=1), rtol=1e-14)
    assert np.isnan(standard_error(values[:, :1])).all()


def test_interval_is_scipys_t_interval():
    values = np.random.default_rng(1).normal(size=9)
    low, high = t_interval(values.mean(), standard_error(values), dof=8)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], reference, rtol=1e-12)
    assert np.isnan(t_interval(np.array(0.1), np.array(0.2), dof=0)).all()
    with pytest.raises(InputError, match="95"):
        t_interval(np.array(0.1), np.array(0.2), dof=3, level=95)


def test_variance_leaves_out_undefined_draws():
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, 4.0], [5.0, np.nan]])
    variance = variance_over_draws(draws)
    assert variance[0] == pytest.approx(np.var([1, 2, 5], ddof=1))
    assert np.isnan(variance[1])


@pytest.mark.filterwarnings("ignore")
def test_two_factor_variance_is_rsatoolboxs():
    from rsatoolbox.util.inference_util import _dual_bootstrap

    rng = np.random.default_rng(2)
    both, subject, stimulus = rng.uniform(0.01, 1, size=(3, 200))
    ours = two_factor_variance(both, subject, stimulus, 7, 23)
    np.testing.assert_allclose(ours, _dual_bootstrap(np.stack([both, subject, stimulus]), 7, 23), rtol=1e-13)
    assert (ours > both).sum() == 0


def test_two_factor_variance_recovers_the_variance_of_a_crossed_mean():
    """Scores = subject + stimulus + noise, whose mean has the variance a/S + b/P + c/(S P)."""
    rng = np.random.default_rng(3)
    n_subjects, n_stimuli, a, b, c = 15, 25, 0.5, 0.8, 2.0
    truth = a / n_subjects + b / n_stimuli + c / (n_subjects * n_stimuli)
    estimates, naive = [], []
    for _ in range(60):
        x = (
            rng.normal(0, a**0.5, (n_subjects, 1))
            + rng.normal(0, b**0.5, n_stimuli)
            + rng.normal(0, c**0.5, (n_subjects, n_stimuli))
        )
        u = rng.multinomial(n_subjects, np.ones(n_subjects) / n_subjects, 400) / n_subjects
        w = rng.multinomial(n_stimuli, np.ones(n_stimuli) / n_stimuli, 400) / n_stimuli
        both = np.einsum("ds,sp,dp->d", u, x, w).var(ddof=1)
        estimates.append(
            two_factor_variance(
                both, (u @ x.mean(axis=1)).var(ddof=1), (w @ x.mean(axis=0)).var(ddof=1), n_subjects, n_stimuli
            )
        )
        naive.append(both)
    assert np.mean(estimates) == pytest.approx(truth, rel=0.12)
    assert np.mean(naive) > np.mean(estimates)


def test_small_sample_of_one_is_undefined():
    assert np.isnan(small_sample(np.array([0.1]), 1)).all()
    assert small_sample(np.array([0.1]), 5)[0] == pytest.approx(0.125)


def test_maximum_statistic_counts_by_family_and_in_blocks():
    rng = np.random.default_rng(4)
    observed = np.array([1.0, 0.2, np.nan, 1.5])
    family = np.array(["layers", "layers", "layers", "models"])
    null = rng.normal(size=(4, 199))
    null[2] = np.nan
    scores = np.concatenate([observed[:, None], null], axis=1)
    test = MaximumStatistic(observed, family)
    test.add(scores[:, :70])
    test.add(scores[:, 70:])
    corrected, alone = test.p_values()
    top = np.fmax(scores[0], scores[1])
    np.testing.assert_allclose(corrected[:2], [(top >= value).mean() for value in (1.0, 0.2)])
    assert corrected[3] == alone[3] == pytest.approx((scores[3] >= 1.5).mean())
    assert np.isnan([corrected[2], alone[2]]).all()
    assert (corrected[[0, 1, 3]] >= 1 / 200).all()


def test_no_permutations_no_p_value():
    assert np.isnan(MaximumStatistic(np.array([0.3]), np.array(["layers"])).p_values()).all()
