"""Inference on scores: against scipy and rsatoolbox, against plain loops, and calibrated on simulated null data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from actkit.analyses.comparison import ceilings, resample, scores
from actkit.analyses.inference import LeaveOut, infer, leave_one_out
from actkit.errors import InputError
from actkit.resampling import Stream, bootstrap_weights

KINDS = ("stimulus", "subject", "both")


def simulated(n=14, n_subjects=7, n_models=4, seed=0, noise=1.0):
    """Models that follow the subjects less and less."""
    rng = np.random.default_rng(seed)
    shared = pdist(rng.normal(size=(n, 5)))
    data = shared + noise * rng.normal(size=(n_subjects, len(shared)))
    models = shared + (1 + np.arange(n_models)[:, None]) * rng.normal(size=(n_models, len(shared)))
    return models, data


def analysed(models, data, target, *, n_draws=300, jackknife=True, seed=0, compare="pearson", change=None, **settings):
    """What rsa() does: scores, ceilings, draws, and then the inference."""
    n = round((1 + np.sqrt(1 + 8 * data.shape[1])) / 2)
    stimuli = bootstrap_weights(n, n_draws, seed)
    subjects = bootstrap_weights(len(data), n_draws, seed, stream=Stream.SUBJECTS)
    drawn = resample(models, data, stimuli, subjects, compare, workers=1)
    means = {kind: drawn.mean(kind) for kind in KINDS}
    lowers, uppers = dict(drawn.lower), dict(drawn.upper)
    if change is not None:
        change(means, lowers, uppers)
    left = leave_one_out(models, data, compare, target, workers=1) if jackknife else None
    result = infer(
        scores(models, data, compare),
        *ceilings(data, compare),
        means,
        lowers,
        uppers,
        target=target,
        n_subjects=len(data),
        n_stimuli=n,
        leave_out=left,
        **settings,
    )
    return result, means, lowers, uppers


def plain_score(models, data):
    """Pearson correlations, ``(models, subjects)``."""
    return np.corrcoef(models, data)[: len(models), len(models) :]


def plain_lower(data):
    """Mean correlation of each subject with the mean of the others' z-scored RDMs."""
    z = stats.zscore(data, axis=1)
    return np.mean([np.corrcoef(z[s], np.delete(z, s, axis=0).mean(axis=0))[0, 1] for s in range(len(z))])


def without_stimulus(rdms, s):
    """Drop one stimulus from RDM vectors."""
    return np.stack(
        [squareform(np.delete(np.delete(squareform(v, checks=False), s, 0), s, 1), checks=False) for v in rdms]
    )


# ------------------------------------------------------------------------------------------ new subjects


@pytest.mark.parametrize("jackknife", [True, False])
def test_new_subjects_are_scipys_t_tests(jackknife):
    models, data = simulated(noise=4.0)
    result, *_ = analysed(models, data, "subject", jackknife=jackknife)
    score = plain_score(models, data)
    test = stats.ttest_1samp(score, 0, axis=1, alternative="greater")
    np.testing.assert_allclose(result.p_zero, test.pvalue, rtol=1e-10)
    low, high = stats.ttest_1samp(score, 0, axis=1).confidence_interval(0.95)
    np.testing.assert_allclose(result.interval_low, low, rtol=1e-10)
    np.testing.assert_allclose(result.interval_high, high, rtol=1e-10)
    np.testing.assert_allclose(result.error, stats.sem(score, axis=1), rtol=1e-10)
    assert (result.dof == 6).all()
    for i in range(4):
        for j in range(4):
            if i != j:
                pair = stats.ttest_rel(score[i], score[j])
                assert float(result.p_difference[i, j]) == pytest.approx(pair.pvalue, rel=1e-8)
                assert float(result.difference[i, j]) == pytest.approx(np.mean(score[i] - score[j]), abs=1e-12)
    assert np.isnan(np.diagonal(result.p_difference)).all()


def test_ceiling_over_subjects_is_a_jackknife():
    models, data = simulated()
    result, *_ = analysed(models, data, "subject")
    left = []
    for s in range(7):
        others = np.delete(data, s, axis=0)
        left.append(plain_score(models, others).mean(axis=1) - plain_lower(others))
    difference = plain_score(models, data).mean(axis=1) - plain_lower(data)
    error = np.sqrt(6 / 7 * np.square(np.array(left) - np.mean(left, axis=0)).sum(axis=0))
    np.testing.assert_allclose(result.ceiling_difference, difference, atol=1e-12)
    np.testing.assert_allclose(result.ceiling_difference_error, error, rtol=1e-9)
    np.testing.assert_allclose(result.p_below_ceiling, stats.t.cdf(difference / error, 6), rtol=1e-8)


# ------------------------------------------------------------------------------------------- new stimuli


def test_new_stimuli_count_pairs_once():
    models, data = simulated(n=12, n_subjects=4)
    result, means, *_ = analysed(models, data, "stimulus")
    left = np.array(
        [plain_score(without_stimulus(models, s), without_stimulus(data, s)).mean(axis=1) for s in range(12)]
    )
    lower = np.array([plain_lower(without_stimulus(data, s)) for s in range(12)])

    def variance(values, draws=None):
        jackknife = 11 / 12 * np.square(values - values.mean(axis=0)).sum(axis=0)
        if draws is None:
            return jackknife
        return np.clip(2 * jackknife - 12 / 11 * draws.var(axis=0, ddof=1), jackknife / 2, jackknife)

    drawn = means["stimulus"]
    np.testing.assert_allclose(result.error**2, variance(left, drawn), rtol=1e-8)
    np.testing.assert_allclose(result.ceiling_difference_error**2, variance(left - lower[:, None]), rtol=1e-8)
    pair = variance(left[:, [2]] - left[:, [0]], drawn[:, [2]] - drawn[:, [0]])[0]
    assert float(result.difference_error[2, 0]) ** 2 == pytest.approx(pair, rel=1e-8)
    kurtosis = stats.kurtosis(left, axis=0, fisher=False, bias=False)
    np.testing.assert_allclose(result.dof, np.minimum(2 * 12 / (kurtosis - 1), 11), rtol=1e-6)


# -------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("rule", ["conservative", "satterthwaite"])
def test_new_subjects_and_stimuli_are_added_and_the_shared_part_counted_once(rule):
    n, n_subjects = 12, 6
    models, data = simulated(n=n, n_subjects=n_subjects)
    result, means, *_ = analysed(models, data, "both", dof=rule)
    by_subject = np.array([plain_score(without_stimulus(models, s), without_stimulus(data, s)) for s in range(n)])
    score = plain_score(models, data)
    subject = stats.sem(score, axis=1) ** 2

    def jackknife(values):
        return (n - 1) / n * np.square(values - values.mean(axis=0)).sum(axis=0)

    b = {kind: means[kind].var(axis=0, ddof=1) for kind in KINDS}
    alone = jackknife(by_subject.mean(axis=2))
    stimulus = np.clip(2 * alone - n / (n - 1) * b["stimulus"], alone / 2, alone)
    own = jackknife(by_subject - by_subject.mean(axis=2, keepdims=True)).sum(axis=1) / (n_subjects * (n_subjects - 1))
    corner = (b["both"] - b["subject"] - b["stimulus"]) * n / (n - 1) * n_subjects / (n_subjects - 1)
    shared = np.clip(2 * own - corner, own / 2, own)
    variance = np.maximum(subject + stimulus - shared, np.maximum(subject, stimulus))
    np.testing.assert_allclose(result.error**2, variance, rtol=1e-7)
    kurtosis = stats.kurtosis(by_subject.mean(axis=2), axis=0, fisher=False, bias=False)
    of_stimuli = np.minimum(2 * n / (kurtosis - 1), n - 1)
    dof = variance**2 / (subject**2 / 5 + stimulus**2 / of_stimuli + shared**2 / (5 * of_stimuli))
    expected = np.full(4, 5.0) if rule == "conservative" else np.maximum(dof, 5)
    np.testing.assert_allclose(result.dof, expected, rtol=1e-6)
    t = score.mean(axis=1) / np.sqrt(variance)
    np.testing.assert_allclose(result.p_zero, stats.t.sf(t, expected), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", ["stimulus", "both"])
def test_without_jackknife_errors_are_rsatoolboxs(target):
    from rsatoolbox.util.inference_util import extract_variances, t_test_0

    models, data = simulated(n_models=5)
    result, means, lowers, uppers = analysed(models, data, target, jackknife=False, dof="conservative")
    joint = {k: np.cov(np.column_stack([means[k], lowers[k], uppers[k]]), rowvar=False) for k in KINDS}
    assert not any(np.isnan(c).any() for c in joint.values())
    if target == "stimulus":
        model, difference, ceiling = extract_variances(joint["stimulus"], True, None, 14)
    else:
        stacked = np.stack([joint[kind] for kind in ("both", "subject", "stimulus")])
        model, difference, ceiling = extract_variances(stacked, True, 7, 14)
    np.testing.assert_allclose(result.error**2, model, rtol=1e-9)
    np.testing.assert_allclose(result.ceiling_difference_error**2, ceiling[:, 0], rtol=1e-9)
    row, column = np.triu_indices(5, 1)
    np.testing.assert_allclose(result.difference_error.values[row, column] ** 2, difference, rtol=1e-9)
    dof = 13 if target == "stimulus" else 6
    theirs = t_test_0(plain_score(models, data)[None], model, dof)
    np.testing.assert_allclose(result.p_zero, theirs, rtol=1e-6, atol=1e-14)


def test_repeated_splits_of_draws_are_corrected_and_fitted_models_keep_to_the_bootstrap():
    models, data = simulated(n=12, n_subjects=6)
    rng = np.random.default_rng(3)
    kept = {}

    def split(means, lowers, uppers):
        for kind in KINDS:
            means[kind] = means[kind][:, None] + 0.05 * rng.normal(size=(300, 3, 4)) * (np.arange(4) < 2)
            lowers[kind] = np.repeat(lowers[kind][:, None], 3, axis=1)
            uppers[kind] = np.repeat(uppers[kind][:, None], 3, axis=1)
            kept[kind] = means[kind]

    fitted = np.array([True, True, False, False])
    n_left = leave_one_out(models[~fitted], data, "pearson", workers=1)
    result, *_ = analysed(models, data, "stimulus", jackknife=False, change=split)
    draws = kept["stimulus"]
    expected = 12 / 11 * (3 * draws.mean(axis=1).var(axis=0, ddof=1) - draws.var(axis=0, ddof=1).mean(axis=0)) / 2
    np.testing.assert_allclose(result.error**2, expected, rtol=1e-9)

    def again(target, left, which):
        return infer(
            scores(models, data, "pearson"),
            *ceilings(data, "pearson"),
            kept,
            {},
            {},
            target=target,
            n_subjects=6,
            n_stimuli=12,
            leave_out=left,
            fitted=which,
        )

    mixed, fixed = again("stimulus", n_left, fitted), analysed(models, data, "stimulus")[0]
    np.testing.assert_allclose(mixed.error[:2], result.error[:2], rtol=1e-9)
    np.testing.assert_allclose(mixed.error[2:], fixed.error[2:], rtol=1e-9)
    subject = again("subject", None, None)  # several splits: all fitted, so no t test over their subjects
    one = kept["subject"]
    expected = 6 / 5 * (3 * one.mean(axis=1).var(axis=0, ddof=1) - one.var(axis=0, ddof=1).mean(axis=0)) / 2
    np.testing.assert_allclose(subject.error**2, expected, rtol=1e-9)
    assert np.isnan(mixed.p_below_ceiling[:2]).all()  # no ceilings were drawn


# -------------------------------------------------------------------------------- undefined, corrections


def test_undefined_draws_are_left_out_and_counted():
    def spoil(means, lowers, uppers):
        means["stimulus"][:40, 1] = np.nan
        lowers["stimulus"][:10] = np.nan

    models, data = simulated()
    result, means, *_ = analysed(models, data, "stimulus", jackknife=False, change=spoil)
    assert result.draws_used.values.tolist() == [300, 260, 300, 300]
    drawn = means["stimulus"]
    assert float(result.error[1]) ** 2 == pytest.approx(14 / 13 * drawn[40:, 1].var(ddof=1))
    both = drawn[40:, 1] - drawn[40:, 0]
    assert float(result.difference_error[0, 1]) ** 2 == pytest.approx(14 / 13 * both.var(ddof=1))
    assert np.isfinite(result.p_below_ceiling).all()


@pytest.mark.parametrize("target", KINDS)
def test_models_without_scores_and_copies_have_no_tests_and_do_not_count(target):
    models, data = simulated(n_models=3)
    full, *_ = analysed(models, data, target)
    more = np.concatenate([models, models[:1], np.ones((1, models.shape[1]))])  # a copy, and a constant RDM
    result, *_ = analysed(more, data, target)
    assert np.isnan(result.p_zero[4])
    assert np.isnan(result.p_difference[0, 3])  # identical: neither a difference nor an error
    assert float(result.difference[0, 3]) == 0
    np.testing.assert_allclose(result.p_zero[:3], full.p_zero, rtol=1e-9)
    four = np.delete(np.arange(5), 4)
    np.testing.assert_allclose(
        result.p_zero_corrected[four], stats.false_discovery_control(result.p_zero.values[four]), rtol=1e-9
    )


def test_corrections_count_every_pair_once():
    models, data = simulated(noise=4.0)
    for correction in ("fdr", "holm", "none"):
        result, *_ = analysed(models, data, "subject", correction=correction)
        row, column = np.triu_indices(4, 1)
        p = result.p_difference.values[row, column]
        if correction == "fdr":
            expected = stats.false_discovery_control(p)
        elif correction == "holm":
            order = np.argsort(p)
            expected = np.empty(6)
            expected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(6, 0, -1)), 1)
        else:
            expected = p
        np.testing.assert_allclose(result.p_difference_corrected.values[row, column], expected, rtol=1e-9)
        np.testing.assert_allclose(result.p_difference_corrected, result.p_difference_corrected.T)
        assert correction == result.attrs["correction"]


def test_variables_say_sidedness_and_reference():
    models, data = simulated()
    result, *_ = analysed(models, data, "both")
    assert all(result[name].attrs["long_name"] for name in result.data_vars)
    assert "above 0 (one-sided" in result.p_zero.attrs["long_name"]
    assert "below the lower noise ceiling (one-sided" in result.p_below_ceiling.attrs["long_name"]
    assert "differ (two-sided" in result.p_difference.attrs["long_name"]
    assert "not tested" in result.ceiling_gap.attrs["long_name"]
    assert "populations of subjects and stimuli" in result.attrs["null"]
    middle = (result.ceiling_gap_low + result.ceiling_gap_high) / 2
    np.testing.assert_allclose(middle, result.ceiling_gap, atol=1e-12)
    upper = ceilings(data, "pearson")[1].mean()
    np.testing.assert_allclose(result.ceiling_gap, upper - plain_score(models, data).mean(axis=1), atol=1e-12)


@pytest.mark.parametrize("target", KINDS)
def test_smallest_samples(target):
    models, data = simulated(n=4, n_subjects=2)
    result, *_ = analysed(models, data, target)
    assert np.isfinite(result.error).all()
    models, data = simulated(n=3, n_subjects=3)  # leaving one out leaves a single pair: the bootstrap has to do
    result, *_ = analysed(models, data, target)
    assert result.sizes["model"] == 4
    assert ((result.p_zero >= 0) | np.isnan(result.p_zero)).all()


def test_one_subject_has_stimuli_but_no_ceiling():
    models, data = simulated(n_subjects=1)
    result, *_ = analysed(models, data, "stimulus")
    assert np.isfinite(result.p_zero).all()
    assert np.isnan(result.p_below_ceiling).all()
    assert np.isnan(result.ceiling_gap).all()
    for target in ("subject", "both"):
        with pytest.raises(InputError, match="1 subject"):
            analysed(models, data, target)


def test_unknown_rules_are_refused():
    models, data = simulated()
    with pytest.raises(InputError, match="everyone"):
        infer(
            scores(models, data, "pearson"),
            *ceilings(data, "pearson"),
            {},
            {},
            {},
            target="everyone",
            n_subjects=7,
            n_stimuli=14,
        )
    with pytest.raises(InputError, match="welch"):
        analysed(models, data, "both", dof="welch")


def test_without_draws_subjects_still_have_their_t_test():
    models, data = simulated()
    result = infer(
        scores(models, data, "pearson"),
        *ceilings(data, "pearson"),
        {},
        {},
        {},
        target="subject",
        n_subjects=7,
        n_stimuli=14,
        leave_out=leave_one_out(models, data, "pearson", "subject"),
    )
    assert np.isfinite(result.p_zero).all()
    assert np.isfinite(result.p_below_ceiling).all()
    assert np.isnan(result.p_zero_bootstrap).all()
    assert (result.draws_used == 0).all()


def test_leave_out_leaves_out_what_is_asked():
    models, data = simulated(n=9, n_subjects=5)
    left = leave_one_out(models, data, "spearman", "both", workers=1)
    assert isinstance(left, LeaveOut)
    assert left.score.shape == (9, 4, 5)
    assert left.lower["stimulus"].shape == (9,)
    assert left.upper["subject"].shape == (5,)
    for s in (0, 4):
        expected = scores(without_stimulus(models, s), without_stimulus(data, s), "spearman")
        np.testing.assert_allclose(left.score[s], expected, atol=1e-12)
        lower, upper = ceilings(np.delete(data, s, axis=0), "spearman")
        assert left.lower["subject"][s] == pytest.approx(lower.mean(), abs=1e-12)
        assert left.upper["subject"][s] == pytest.approx(upper.mean(), abs=1e-12)
    assert leave_one_out(models, data, "spearman", "subject", workers=1).score is None
    assert "subject" not in leave_one_out(models, data, "spearman", "stimulus", workers=1).lower


# ------------------------------------------------------------------------------------------- calibration


@pytest.fixture(scope="module")
def calibrate():
    """The benchmark that simulates null data."""
    path = Path(__file__).parents[1] / "benchmarks" / "calibrate_rsa.py"
    spec = importlib.util.spec_from_file_location("calibrate_rsa", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibrate_rsa"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["calibrate_rsa"]


@pytest.mark.parametrize("target", KINDS)
def test_simulated_nulls_hold(calibrate, target):
    """Over data sets, scores and differences that should be 0 average to 0; others do not."""
    cell = calibrate.Cell(target, 5, 12)
    mean = np.array([plain_score(*calibrate.simulate(cell, number)).mean(axis=1) for number in range(600)])
    z = np.abs(mean.mean(axis=0) / stats.sem(mean))
    assert (z[list(calibrate.NULL_SCORES)] < 3.5).all()
    assert (z[3:] > 10).all()
    for i, j in calibrate.NULL_PAIRS:
        assert abs(mean[:, i] - mean[:, j]).mean() > 0
        assert abs((mean[:, i] - mean[:, j]).mean()) < 3.5 * stats.sem(mean[:, i] - mean[:, j])


@pytest.mark.parametrize("target", KINDS)
def test_tests_and_intervals_are_calibrated(calibrate, target):
    """A short form of the benchmark: no rate is above .05 beyond chance."""
    cell = calibrate.Cell(target, 12, 30)
    form = "ours, Satterthwaite"
    rows = [calibrate.analyse(cell, number, 200, [form]) for number in range(80)]
    got = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    table = calibrate.rates(cell, got, form)
    calibrate.mark(table)
    assert not [f"{rate.group} {rate.name} {rate.rate}" for rate in table if rate.flag == "!"]
    power = {rate.name: rate.rate for rate in table if rate.group == "power, t"}
    assert power["A above 0"] > 0.8
    assert power["A below ceiling"] > 0.3


def test_bootstrap_alone_is_too_careful_where_pairs_dominate(calibrate):
    """Random categories: the bootstrap's error is √3 times too large, ours is not."""
    cell = calibrate.Cell("stimulus", 5, 40)
    names = ("ours, Satterthwaite", "bootstrap, min(n) - 1")
    rows = [calibrate.analyse(cell, number, 200, names) for number in range(60)]
    spread = np.std([row["mean"][2] for row in rows])
    ours, bootstrap = (np.sqrt(np.mean([row[f"{name}/error"][2] ** 2 for row in rows])) / spread for name in names)
    assert 1.4 < bootstrap < 2.2
    assert 0.85 < ours < 1.4
