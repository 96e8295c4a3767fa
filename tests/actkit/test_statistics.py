"""Closed forms against scipy and rsatoolbox, and the maximum statistic against counting by hand."""

import numpy as np
import pytest
from scipy import stats

from actkit.errors import InputError
from actkit.statistics import (
    MaximumStatistic,
    bootstrap_p_value,
    corrected,
    crossed_variance,
    jackknife_dof,
    jackknife_variance,
    pair_corrected_variance,
    satterthwaite_dof,
    small_sample,
    standard_error,
    t_interval,
    t_p_value,
    two_factor_variance,
    variance_over_draws,
    variance_over_splits,
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


def test_variance_over_splits_takes_out_the_noise_of_the_split():
    rng = np.random.default_rng(5)
    draws = rng.normal(0, 1, (4000, 1)) + rng.normal(0, 2, (4000, 4))
    assert variance_over_splits(draws) == pytest.approx(1.0, rel=0.15)
    by_hand = (4 * draws.mean(axis=1).var(ddof=1) - draws.var(axis=0, ddof=1).mean()) / 3
    assert variance_over_splits(draws) == pytest.approx(by_hand, rel=1e-12)
    assert variance_over_splits(draws[:, :1]) == pytest.approx(draws[:, 0].var(ddof=1))
    # Nothing but the split, and a lost draw: the variance of the mean stands.
    noise = np.array([[1.1, -1.0], [-1.0, 1.0], [2.0, -2.0], [np.nan, 7.0]])
    assert variance_over_splits(noise) == pytest.approx(np.var([0.05, 0.0, 0.0], ddof=1))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(6).normal(size=(9, 3))
    left_out = np.array([np.delete(values, i, axis=0).mean(axis=0) for i in range(9)])
    np.testing.assert_allclose(jackknife_variance(left_out), stats.sem(values, axis=0) ** 2, rtol=1e-12)
    assert np.isnan(jackknife_variance(values[:1])).all()
    assert np.isnan(jackknife_variance(np.array([[1.0, np.nan], [2.0, 3.0]]))[1])


def test_jackknife_dof_falls_where_single_values_dominate():
    rng = np.random.default_rng(7)
    normal, heavy = rng.normal(size=(400, 50)), rng.standard_t(3, size=(400, 50))
    assert np.median(jackknife_dof(normal)) > 350
    assert np.median(jackknife_dof(heavy)) < 200
    outlier = np.zeros(10)
    outlier[3] = 1.0
    kurtosis = stats.kurtosis(outlier, fisher=False, bias=False)
    assert jackknife_dof(outlier) == pytest.approx(2 * 10 / (kurtosis - 1))
    assert jackknife_dof(np.array([1.0, -1.0, 1.0, -1.0])) == 3  # kurtosis 1: no more than n - 1
    assert jackknife_dof(np.array([1.0, 5.0, 2.0])) == 2  # no kurtosis of three values
    assert jackknife_dof(np.ones(6)) == 5
    assert np.isnan(jackknife_dof(np.array([1.0, np.nan, 2.0, 3.0])))


@pytest.mark.parametrize(("of_stimuli", "of_pairs", "three_times"), [(0.0, 1.0, 2.9), (0.5, 0.0, 1.0)])
def test_noise_of_pairs_is_counted_once(of_stimuli, of_pairs, three_times):
    """A mean over pairs of ``h_i + h_j + noise``: its variance over samples is known."""
    rng = np.random.default_rng(8)
    n = 40
    i, j = np.triu_indices(n, 1)
    truth = 4 * of_stimuli**2 / n + of_pairs**2 / len(i)
    estimates, bootstraps = [], []
    for _ in range(60):
        h = of_stimuli * rng.normal(size=n)
        k = h[i] + h[j] + of_pairs * rng.normal(size=len(i))
        w = rng.multinomial(n, np.ones(n) / n, 400)
        pairs = w[:, i] * w[:, j]
        bootstrap = ((pairs @ k) / pairs.sum(axis=1)).var(ddof=1)
        left = np.array([k[(i != s) & (j != s)].mean() for s in range(n)])
        estimates.append(pair_corrected_variance(bootstrap, jackknife_variance(left), n))
        bootstraps.append(small_sample(np.array(bootstrap), n))
    assert 0.9 * truth < np.mean(estimates) < 1.3 * truth  # errs to the safe side in small samples
    assert np.mean(bootstraps) == pytest.approx(three_times * truth, rel=0.15)


def test_satterthwaite_dof_is_welchs():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=7), rng.normal(0, 3, size=12)
    a, b = stats.sem(x) ** 2, stats.sem(y) ** 2
    welch = stats.ttest_ind(x, y, equal_var=False).df
    assert satterthwaite_dof(np.array(a + b), [(a, 6), (b, 11)], 1) == pytest.approx(welch)
    assert satterthwaite_dof(np.array(a + b), [(a, 6), (b, 11)], 40) == 40
    assert crossed_variance(np.array(0.3), np.array(0.5), np.array(0.1)) == pytest.approx(0.7)
    assert crossed_variance(np.array(0.3), np.array(0.5), np.array(0.6)) == 0.5


@pytest.mark.parametrize("side", ["greater", "less", "two-sided"])
def test_t_p_value_is_scipys(side):
    x = np.random.default_rng(10).normal(0.3, 1, size=(3, 8))
    ours = t_p_value(x.mean(axis=1), standard_error(x), 7, side)
    np.testing.assert_allclose(ours, stats.ttest_1samp(x, 0, axis=1, alternative=side).pvalue, rtol=1e-12)
    assert np.isnan(t_p_value(np.array([1.0, 1.0]), np.array([0.0, np.nan]), 7, side)).all()


def test_bootstrap_p_value_counts_scaled_draws():
    draws = np.array([[-1.0], [0.0], [1.0], [2.0], [3.0], [np.nan]])  # mean 1, sd 1.58
    estimate, error = np.array([1.0]), np.array([np.std([-1, 0, 1, 2, 3], ddof=1)])
    # scaled draws are the draws; 2 of 5 are 0 or less, 4 are 0 or more
    below, above = (1 + 2) / 6, (1 + 4) / 6
    normal = np.inf  # degrees of freedom: the error is known
    assert bootstrap_p_value(draws, estimate, error, normal, "greater") == pytest.approx(below)
    assert bootstrap_p_value(draws, estimate, error, normal, "less") == pytest.approx(above)
    assert bootstrap_p_value(draws, estimate, error, normal, "two-sided") == pytest.approx(min(2 * below, 1))
    wider = bootstrap_p_value(draws, estimate, error * 3, normal, "greater")  # draws -5, -2, 1, 4, 7
    assert wider == pytest.approx((1 + 2) / 6)
    narrow = bootstrap_p_value(draws, estimate, error / 3, normal, "greater")  # .33, .67, 1, 1.33, 1.67
    assert narrow == pytest.approx(1 / 6)
    # An error that is estimated widens the tail at the same deviate.
    assert bootstrap_p_value(draws, estimate, error / 3, 4, "greater") == pytest.approx(
        stats.t.sf(stats.norm.isf(1 / 6), 4)
    )
    assert np.isnan(bootstrap_p_value(draws, estimate, np.array([0.0]), 4, "greater")).all()
    assert np.isnan(bootstrap_p_value(draws[:0], estimate, error, 4, "greater")).all()


def test_bootstrap_p_value_of_normal_draws_is_the_t_tests():
    draws = np.random.default_rng(11).normal(5, 2, size=(20000, 1))
    estimate, error = np.array([1.0]), np.array([0.6])
    for side in ("greater", "less", "two-sided"):
        ours = bootstrap_p_value(draws, estimate, error, 9, side)
        np.testing.assert_allclose(ours, t_p_value(estimate, error, 9, side), rtol=0.1)


def test_corrections_are_the_textbooks():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    known = ~np.isnan(p)
    fdr, holm = corrected(p, "fdr"), corrected(p, "holm")
    np.testing.assert_allclose(fdr[known], stats.false_discovery_control(p[known]), rtol=1e-12)
    np.testing.assert_allclose(holm[known], [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    assert np.isnan(fdr[1])
    assert np.isnan(holm[1])
    np.testing.assert_array_equal(corrected(p, "none"), p)
    assert np.isnan(corrected(np.array([np.nan]), "fdr")).all()
    with pytest.raises(InputError, match="bonferroni"):
        corrected(p, "bonferroni")
