"""Cross-validation: folds, scores against plain code and rsatoolbox on the same folds, leakage, degenerate draws."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar, nnls
from scipy.spatial.distance import pdist, squareform

from actkit.analyses import crossvalidation
from actkit.analyses.crossvalidation import Group, cross_validate, default_folds, fold_plan
from actkit.analyses.fold_ranks import doubled_ranks
from actkit.errors import InputError
from actkit.resampling import Stream, bootstrap_weights

REAL = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "kriegeskorte2008_92images"
PLAIN = ("pearson", "cosine", "spearman", "rho-a", "tau-a", "tau-b")
THEIRS = {
    "pearson": "corr",
    "cosine": "cosine",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "tau-a": "tau-a",
    "whitened-pearson": "corr_cov",
    "whitened-cosine": "cosine_cov",
}
GROUPS = [
    Group("fixed", "fixed", [4]),
    Group("free", "weighted", [0, 1, 2, 3]),
    Group("positive", "weighted_nonnegative", [0, 1, 2, 3, 4]),
    Group("choice", "selection", range(4)),
    Group("between", "interpolation", [3, 0, 1]),
]


def planted(n=14, subjects=5, k=5, seed=0, noise=0.8, ties=False):
    """Components, subjects whose RDM is a sum of two of them with noise."""
    rng = np.random.default_rng(seed)
    components = np.array([pdist(rng.normal(size=(n, 3))) for _ in range(k)])
    if ties:
        components = np.round(components)
    shared = components[0] + 0.5 * components[1]
    data = np.abs(shared + noise * rng.normal(size=(subjects, components.shape[1])))
    return components, np.round(data, 1) if ties else data


def draws(n, subjects, count, seed=0):
    return bootstrap_weights(n, count, seed), bootstrap_weights(subjects, count, seed, stream=Stream.SUBJECTS)


# ------------------------------------------------------------------------------------------ the same, plainly


def plain_score(x, y, compare):
    """One score, by scipy or the definition."""
    if compare == "pearson":
        return stats.pearsonr(x, y)[0]
    if compare == "cosine":
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    if compare == "spearman":
        return stats.spearmanr(x, y)[0]
    if compare == "tau-b":
        return stats.kendalltau(x, y)[0]
    if compare == "rho-a":
        a, b = (stats.rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
        return 12 * (a @ b) / (len(x) ** 3 - len(x))
    signs = [np.sign(v[:, None] - v) for v in (x, y)]
    return (signs[0] * signs[1]).sum() / (len(x) * (len(x) - 1))


def expanded(vector, weights):
    """The drawn dissimilarities of one RDM, every copy written out, without pairs of copies."""
    drawn = np.repeat(np.arange(len(weights)), weights)
    i, j = np.array([(a, b) for a, b in itertools.combinations(drawn, 2) if a != b]).T
    return squareform(vector)[i, j]


def normal(x, compare):
    """An RDM vector as least squares need it."""
    x = x if compare == "cosine" else x - x.mean()
    return x / np.linalg.norm(x)


def pooled(vectors, compare):
    """The RDM that is best for several subjects."""
    if compare in ("pearson", "cosine"):
        return np.mean([normal(v, compare) for v in vectors], axis=0)
    return np.mean([stats.rankdata(v) for v in vectors], axis=0)


def plain_fit(kind, parts, subjects, compare):
    """Weights from training vectors written out."""
    metric = "cosine" if compare == "cosine" else "pearson"
    target = np.mean([normal(y, metric) for y in subjects], axis=0)
    centred = parts if metric == "cosine" else parts - parts.mean(axis=1, keepdims=True)
    if kind == "weighted":
        return np.linalg.lstsq(centred.T, target, rcond=None)[0]
    if kind == "weighted_nonnegative":
        return nnls(centred.T, target)[0]
    if kind == "selection":
        return np.eye(len(parts))[np.argmax([np.mean([plain_score(x, y, compare) for y in subjects]) for x in parts])]

    def mixed(k, w):
        return w * np.eye(len(parts))[k] + (1 - w) * np.eye(len(parts))[k + 1]

    def loss(w, k):
        return -normal(mixed(k, w) @ centred, metric) @ target

    found = []
    for k in range(len(parts) - 1):
        inner = minimize_scalar(loss, args=(k,), bounds=(0, 1), options={"xatol": 1e-10}).x
        # A bounded search stops just short of an end.
        found += [(loss(w, k) + (1e-9 if w == inner else 0), k, w) for w in (0.0, 1.0, inner)]
    return mixed(*min(found)[1:])


def plain_fold(components, data, groups, compare, w, u, inside, tested, k_stimuli, k_subjects):
    """Scores of all models and both ceilings in one fold: mean over its subjects, copies counted."""
    train = w if k_stimuli == 1 else np.where(inside, 0, w)
    test = np.where(inside, w, 0)
    people = np.repeat(np.arange(len(u)), u)
    teachers = people if k_subjects == 1 else [s for s in people if not tested[s]]
    pupils = [s for s in people if tested[s]]
    out = []
    for group in groups:
        parts = components[group.rows]
        theta = np.ones(1)
        if group.kind != "fixed":
            seen = np.array([expanded(x, train) for x in parts])
            theta = plain_fit(group.kind, seen, [expanded(data[s], train) for s in teachers], compare)
        prediction = expanded(sum(t * part for t, part in zip(theta, parts, strict=True)), test)  # ties stay ties
        out.append(np.mean([plain_score(prediction, expanded(data[s], test), compare) for s in pupils]))
    vectors = {s: expanded(data[s], test) for s in set(people)}
    lower = []
    for s in pupils:
        others = [vectors[t] for t in (people if k_subjects == 1 else teachers) if k_subjects > 1 or t != s]
        lower.append(plain_score(pooled(others, compare), vectors[s], compare) if others else np.nan)
    everyone = pooled([vectors[s] for s in people], compare)
    upper = [plain_score(everyone, vectors[s], compare) for s in pupils]
    return out, np.mean(lower), np.mean(upper), len(pupils)


def plain(components, data, groups, compare, plan, w, u, number):
    """One draw: (repeats, models), (repeats,), (repeats,)."""
    stimulus, subject = plan.deal(number, w, u, plan.repeats)
    results = []
    for r in range(plan.repeats):
        parts = [
            plain_fold(
                components,
                data,
                groups,
                compare,
                w,
                u,
                stimulus[r] == p,
                subject[r] == j,
                plan.stimulus_folds,
                plan.subject_folds,
            )
            for p in range(plan.stimulus_folds)
            for j in range(plan.subject_folds)
        ]
        share = [part[3] for part in parts]
        results.append([np.average([part[k] for part in parts], axis=0, weights=share) for k in range(3)])
    return [np.array([result[k] for result in results]) for k in range(3)]


@pytest.mark.parametrize("folds", [(2, 2), (2, 1), (1, 2)])
@pytest.mark.parametrize("compare", PLAIN)
def test_draws_are_those_of_plain_code(compare, folds):
    ties = compare not in ("pearson", "cosine")
    components, data = planted(ties=ties)
    w, u = draws(14, 5, 2)
    plan = fold_plan(14, 5, *folds, repeats=2, full_repeats=1, seed=3)
    got = cross_validate(components, GROUPS, data, plan, compare, w, u)
    for d in range(len(w)):
        score, lower, upper = plain(components, data, GROUPS, compare, plan, w[d], u[d], d)
        np.testing.assert_allclose(got.score[d][:, :4], score[:, :4], atol=1e-10)
        # The place on a line is searched to 1e-9 here, and ranks jump where it moves.
        np.testing.assert_allclose(got.score[d][:, 4], score[:, 4], atol=1e-7)
        np.testing.assert_allclose(got.lower[d], lower, atol=1e-10)
        np.testing.assert_allclose(got.upper[d], upper, atol=1e-10)


# --------------------------------------------------------------------------------------------- rsatoolbox


def their_sets(rdms, w, u, stimulus_fold, subject_fold):
    """rsatoolbox's training, test and ceiling sets for given folds of a draw."""
    sample = rdms.subsample("index", np.repeat(np.arange(len(u)), u))
    sample = sample.subsample_pattern("index", np.repeat(np.arange(len(w)), w))

    def drawn(fold):
        return [int(i) for i in np.repeat(np.arange(len(w)), w * fold)]

    train, test, ceiling = [], [], []
    for j in range(subject_fold.max() + 1):
        seen = sample.subsample("index", np.flatnonzero((subject_fold != j) & (u > 0)))
        held = sample.subsample("index", np.flatnonzero((subject_fold == j) & (u > 0)))
        for p in range(stimulus_fold.max() + 1):
            inside, outside = stimulus_fold == p, (stimulus_fold != p) & (w > 0)
            train.append([seen.subset_pattern("index", list(np.flatnonzero(outside))), drawn(outside)])
            test.append([held.subset_pattern("index", list(np.flatnonzero(inside))), drawn(inside)])
            ceiling.append([seen.subset_pattern("index", list(np.flatnonzero(inside))), list(np.flatnonzero(inside))])
    return sample, train, test, ceiling


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("compare", THEIRS)
def test_scores_on_given_folds_are_rsatoolboxs(compare, drawn):
    """crossval() on the same folds of all data and of a bootstrap sample; fixed, weighted and chosen models."""
    from rsatoolbox.inference import cv_noise_ceiling
    from rsatoolbox.inference.evaluate import crossval
    from rsatoolbox.model import ModelFixed, ModelInterpolate, ModelSelect, ModelWeighted
    from rsatoolbox.model.fitter import fit_interpolate, fit_mock, fit_regress, fit_select
    from rsatoolbox.rdm import RDMs

    components, data = planted(n=16, subjects=6, seed=2)
    rng = np.random.default_rng(1)
    w = np.bincount(rng.integers(0, 16, 16), minlength=16) if drawn else np.ones(16, dtype=int)
    u = np.array([2, 1, 2, 1, 0, 0]) if drawn else np.ones(6, dtype=int)  # two folds of three, copies counted
    labels = np.array([0, 0, 1, 1, 0, 1]) if drawn else np.array([0, 1, 0, 1, 0, 1])
    groups = [Group("fixed", "fixed", [4]), Group("choice", "selection", [0, 2, 3])]
    models = [ModelFixed("fixed", components[4]), ModelSelect("choice", components[[0, 2, 3]])]
    fitters = [fit_mock, fit_select]
    # Their fits for rank measures search by BFGS, which flat steps stop at once; ours are in the Pearson metric.
    if compare not in ("spearman", "rho-a", "tau-a"):
        groups += [Group("free", "weighted", [0, 1, 2]), Group("between", "interpolation", [0, 1, 2])]
        models += [ModelWeighted("free", components[:3]), ModelInterpolate("between", components[:3])]
        fitters += [fit_regress, fit_interpolate]
    plan = fold_plan(16, 6, 2, 2, 1, stimulus_groups=np.arange(16) % 2, subject_groups=labels, full_repeats=1)
    if drawn:
        got = cross_validate(components, groups, data, plan, compare, w[None], u[None])
        score, lower, number = got.score[0, 0], got.lower[0, 0], 0
    else:
        got = cross_validate(components, groups, data, plan, compare)
        score, lower, number = got.subject_score.mean(axis=1), got.subject_lower.mean(), None
    stimulus, subject = plan.deal(number, w, u, 1)
    sample, train, test, ceiling = their_sets(RDMs(data), w, u, stimulus[0], subject[0])
    theirs = (
        crossval(models, sample, train, test, method=THEIRS[compare], fitter=fitters, calc_noise_ceil=False)
        .evaluations[0]
        .mean(axis=1)
    )
    # Whitened fits of theirs stop at a residual of 1e-5; their places on a line are searched to 1e-5 too.
    tight = 1e-10 if len(groups) == 2 else np.array([1e-10, 1e-10, 1e-10 if "white" not in compare else 1e-5, 1e-5])
    if "white" in compare:
        tight = np.maximum(tight, 1e-7)  # conjugate gradients in their scores
    assert (np.abs(score - theirs) <= tight).all(), np.abs(score - theirs)
    if compare in ("pearson", "cosine", "spearman", "rho-a"):  # the whitened pool of theirs is normalised wrongly
        once = [[held, sorted(set(chosen))] for held, chosen in test]
        expected = cv_noise_ceiling(sample, ceiling, once, method=THEIRS[compare])[0]
        assert lower == pytest.approx(expected, abs=1e-10)


@pytest.mark.skipif(not REAL.is_dir(), reason="ACTKIT_DATA holds no kriegeskorte2008_92images")
@pytest.mark.parametrize("compare", ["pearson", "spearman", "tau-a"])
def test_real_judgements_score_as_in_rsatoolbox(compare):
    """13 fixed models, their weighted sum and the best of them, on one deal of 92 images and 16 judges."""
    from rsatoolbox.inference.evaluate import crossval
    from rsatoolbox.model import ModelFixed, ModelSelect, ModelWeighted
    from rsatoolbox.model.fitter import fit_mock, fit_regress, fit_select
    from rsatoolbox.rdm import RDMs

    import actkit

    source = actkit.load_data("kriegeskorte2008_92images")
    components = np.concatenate(
        [source[k].dissimilarity.values for k in ("model_rdms", "v1_hmax", "monkey_it", "human_it")]
    )
    components = components[:13].astype(float)
    data = source["judgements"].dissimilarity.values.astype(float)
    labels, people = np.arange(92) % 3, np.arange(16) % 2
    groups = [Group(f"m{k}", "fixed", [k]) for k in range(13)] + [Group("choice", "selection", range(13))]
    models = [ModelFixed(f"m{k}", components[k]) for k in range(13)] + [ModelSelect("choice", components)]
    fitters = [fit_mock] * 13 + [fit_select]
    if compare == "pearson":
        groups, fitters = [*groups, Group("free", "weighted", [3, 9, 11, 12])], [*fitters, fit_regress]
        models = [*models, ModelWeighted("free", components[[3, 9, 11, 12]])]  # theirs refuses dependent ones
    plan = fold_plan(92, 16, 3, 2, 1, full_repeats=1, stimulus_groups=labels, subject_groups=people)
    ours = cross_validate(components, groups, data, plan, compare).subject_score.mean(axis=1)
    ones = np.ones(92, dtype=int), np.ones(16, dtype=int)
    sample, train, test, _ = their_sets(RDMs(data), *ones, *(fold[0] for fold in plan.deal(None, *ones, 1)))
    theirs = crossval(models, sample, train, test, method=THEIRS[compare], fitter=fitters, calc_noise_ceil=False)
    np.testing.assert_allclose(ours, theirs.evaluations[0].mean(axis=1), atol=1e-10)


# -------------------------------------------------------------------------------------------------- truth


@pytest.mark.parametrize("compare", ["pearson", "spearman"])
def test_nothing_leaks_from_test_to_training(compare):
    """Thirty random components fit noise well and predict it not at all; nor does the best of many layers."""
    scores, fitted = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n = 24
        components = rng.normal(size=(30, n * (n - 1) // 2))
        data = rng.normal(size=(6, components.shape[1])) + rng.normal(size=components.shape[1])
        groups = [Group("many", "weighted", range(30)), Group("best", "selection", range(30))]
        plan = fold_plan(n, 6, 3, 2, seed=seed, full_repeats=4)
        result = cross_validate(components, groups, data, plan, compare)
        scores.append(result.subject_score.mean(axis=1))
        fitted.append(plain_score(result.theta["many"] @ components, data.mean(axis=0), compare))
    assert np.mean(fitted) > 0.25
    mean, error = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1) / np.sqrt(len(scores))
    assert (np.abs(mean) < 3 * error).all()
    assert (error < 0.02).all()


def test_planted_models_win_out_of_sample_and_reach_the_ceiling():
    components, data = planted(n=40, subjects=12, noise=0.6)
    groups = [*GROUPS, Group("truth", "fixed", [5])]
    with_truth = np.concatenate([components, (components[0] + 0.5 * components[1])[None]])
    result = cross_validate(with_truth, groups, data, fold_plan(40, 12), "pearson")
    fixed, free, positive, choice, between, truth = result.subject_score.mean(axis=1)
    assert min(free, positive, between) > choice > fixed + 0.3
    assert truth == pytest.approx(positive, abs=0.02)
    assert result.subject_lower.mean() < truth < result.subject_upper.mean()
    assert (result.theta_folds["choice"].argmax(axis=-1) == 0).all()
    np.testing.assert_allclose(result.theta["positive"][:2], np.array([2, 1]) / np.sqrt(5), atol=0.05)


def test_fixed_models_keep_their_score_with_one_fold_of_all():
    from actkit.analyses.comparison import ceilings, scores

    components, data = planted()
    for compare in ("pearson", "spearman", "whitened-pearson", "tau-a"):
        result = cross_validate(components, GROUPS[:1], data, fold_plan(14, 5, 1, 1, full_repeats=1), compare)
        np.testing.assert_allclose(result.subject_score, scores(components[[4]], data, compare), atol=1e-12)
        lower, upper = ceilings(data, compare)
        np.testing.assert_allclose(result.subject_lower, lower, atol=1e-12)
        np.testing.assert_allclose(result.subject_upper, upper, atol=1e-12)


def test_scales_and_origins_of_rdms_do_not_matter():
    components, data = planted()
    plan = fold_plan(14, 5, 2, 2, full_repeats=2)
    base = cross_validate(components, GROUPS[:4], data, plan, "pearson").subject_score
    scaled = components * np.array([1e-12, 1e9, 1.0, 3.0, 1e20])[:, None] + np.array([0, 0, 5, 0, 0])[:, None]
    same = cross_validate(scaled, GROUPS[:4], data * 1e-30, plan, "pearson").subject_score
    np.testing.assert_allclose(same, base, atol=1e-9)


# ---------------------------------------------------------------------------------------- folds and draws


def test_folds_hold_every_drawn_stimulus_once_and_keep_copies_together():
    plan = fold_plan(20, 7, 3, 2, seed=5)
    w, u = draws(20, 7, 30)
    for d in range(30):
        stimulus, subject = plan.deal(d, w[d], u[d], 4)
        for fold, counts, k in ((stimulus, w[d], 3), (subject, u[d], 2)):
            assert ((fold >= 0) == (counts > 0)).all()
            sizes = np.array([[np.sum(row == j) for j in range(k)] for row in fold])
            assert (sizes.max(axis=1) - sizes.min(axis=1) <= 1).all()
        assert len({row.tobytes() for row in stimulus}) == 4
        np.testing.assert_array_equal(stimulus[:2], plan.deal(d, w[d], u[d], 2)[0])
    assert not np.array_equal(plan.deal(0, w[0], u[0], 1)[0], fold_plan(20, 7, 3, 2, seed=6).deal(0, w[0], u[0], 1)[0])


def test_groups_are_never_cut():
    labels = np.repeat(list("abcdef"), 3)
    plan = fold_plan(18, 4, 3, 2, stimulus_groups=labels, subject_groups=["x", "x", "y", "z"])
    stimulus, subject = plan.deal(None, np.ones(18, int), np.ones(4, int), 5)
    for fold in stimulus:
        assert all(len(set(fold[labels == label])) == 1 for label in "abcdef")
    assert (subject[:, 0] == subject[:, 1]).all()


@pytest.mark.parametrize("compare", ["pearson", "spearman"])
def test_numbers_depend_neither_on_workers_nor_on_blocks(compare, monkeypatch):
    components, data = planted()
    w, u = draws(14, 5, 9)
    plan = fold_plan(14, 5, 2, 2)
    one = cross_validate(components, GROUPS, data, plan, compare, w, u, workers=1)
    for workers in (2, 8):
        many = cross_validate(components, GROUPS, data, plan, compare, w, u, workers=workers)
        np.testing.assert_array_equal(one.score, many.score)
        np.testing.assert_array_equal(one.lower, many.lower)
    tail = cross_validate(components, GROUPS, data, plan, compare, w[4:], u[4:], first=4)
    np.testing.assert_allclose(tail.score, one.score[4:], atol=1e-12)
    monkeypatch.setattr(crossvalidation, "_MOST_SETS", 8)
    np.testing.assert_allclose(
        cross_validate(components, GROUPS, data, plan, compare, w, u).score, one.score, atol=1e-12
    )


@pytest.mark.parametrize("compare", ["pearson", "whitened-cosine", "spearman"])
def test_a_torch_device_gives_the_same_numbers(compare):
    pytest.importorskip("torch")
    components, data = planted()
    w, u = draws(14, 5, 3)
    plan = fold_plan(14, 5, 2, 2, full_repeats=2)
    here = cross_validate(components, GROUPS, data, plan, compare, w, u)
    there = cross_validate(components, GROUPS, data, plan, compare, w, u, device="cpu")
    for name in ("score", "lower", "upper", "subject_score"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), atol=1e-10)


def test_draws_of_one_factor_keep_all_of_the_other():
    components, data = planted()
    w, u = draws(14, 5, 4)
    plan = fold_plan(14, 5, 2, 2)
    everything = np.ones((4, 14), dtype=int), np.ones((4, 5), dtype=int)
    for given, full in (((w, None), (w, everything[1])), ((None, u), (everything[0], u))):
        a = cross_validate(components, GROUPS, data, plan, "pearson", *given)
        b = cross_validate(components, GROUPS, data, plan, "pearson", *full)
        np.testing.assert_array_equal(a.score, b.score)
        assert a.score.shape == (4, 2, 5)


def test_degenerate_draws_are_nan_and_counted():
    components, data = planted()
    w, u = draws(14, 5, 4)
    w[1] = 0
    w[1, :5] = [4, 4, 2, 2, 2]  # five distinct stimuli cannot fill two folds of three
    u[2] = [5, 0, 0, 0, 0]
    result = cross_validate(components, GROUPS, data, fold_plan(14, 5, 2, 2), "spearman", w, u)
    assert result.degenerate == 2
    for values in (result.score, result.lower, result.upper):
        assert np.isnan(values[[1, 2]]).all()
        assert np.isfinite(values[[0, 3]]).all()


@pytest.mark.parametrize("compare", ["pearson", "spearman", "whitened-pearson", "tau-b"])
def test_a_model_that_is_constant_in_a_fold_is_undefined_there_and_counted(compare):
    components, data = planted()
    lone = np.zeros((14, 14))
    lone[0, 1:] = lone[1:, 0] = 1  # one stimulus differs from all others: constant in each fold without it
    with_it = np.concatenate([components, squareform(lone)[None]])
    groups = [Group("fixed", "fixed", [4]), Group("lone", "fixed", [5]), Group("with", "weighted", [0, 1, 5])]
    result = cross_validate(with_it, groups, data, fold_plan(14, 5, 2, 2, full_repeats=3), compare)
    assert result.undefined.tolist() == [0, 3, 0]
    assert np.isnan(result.subject_score[1]).all()
    assert np.isfinite(result.subject_score[[0, 2]]).all()


def test_a_single_subject_has_scores_on_other_stimuli_and_no_ceiling():
    components, data = planted(subjects=1)
    plan = fold_plan(14, 1, 2, full_repeats=2)
    assert plan.subject_folds == 1
    result = cross_validate(components, GROUPS, data, plan, "spearman")
    assert np.isfinite(result.subject_score).all()
    assert np.isnan(result.subject_lower).all()
    assert np.isnan(result.subject_upper).all()


def test_missing_pairs_of_a_fixed_model_leave_it_without_scores():
    components, data = planted()
    components[4, 3] = np.nan
    for compare in ("cosine", "rho-a"):
        result = cross_validate(components, [GROUPS[0], GROUPS[1]], data, fold_plan(14, 5, 2, 2), compare)
        assert np.isnan(result.subject_score[0]).all()
        assert np.isfinite(result.subject_score[1]).all()


def test_default_folds_are_rsatoolboxs():
    from rsatoolbox.util.inference_util import default_k_pattern, default_k_rdm

    share = 1 - 1 / np.e
    for n in range(6, 120):
        for subjects in (2, 5, 9, 10, 16, 19, 31, 60):
            assert default_folds(n, subjects) == (default_k_pattern(share * n), default_k_rdm(share * subjects))
    assert default_folds(92, 1) == (5, 1)
    assert default_folds(12, 6, bootstrap=False) == (3, 3)


def test_batched_ranks_are_scipys_of_the_copies():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, size=(3, 2, 12)).astype(float)
    weights = rng.integers(0, 4, size=(3, 1, 12))
    got = doubled_ranks(values, weights)
    for a, b in np.ndindex(3, 2):
        copies = np.repeat(np.arange(12), weights[a, 0])
        ranks = stats.rankdata(values[a, b][copies])
        np.testing.assert_array_equal(got[a, b][copies], 2 * ranks - len(copies) - 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stimulus_folds": 5}, "14 stimuli in 5 folds"),
        ({"subject_folds": 6}, "subject_folds=6 with 5"),
        ({"stimulus_folds": 0}, "stimulus_folds=0"),
        ({"repeats": 0}, "repeats=0"),
        ({"stimulus_groups": ["a"] * 3}, "stimulus_groups has shape"),
        ({"stimulus_groups": ["a"] * 14, "stimulus_folds": 2}, "stimulus_folds=2 with 1"),
    ],
)
def test_plans_refuse_what_cannot_be_dealt(settings, message):
    with pytest.raises(InputError, match=message):
        fold_plan(14, 5, **{"stimulus_folds": 2, "subject_folds": 2, **settings})


def test_errors_name_what_does_not_fit():
    components, data = planted()
    plan = fold_plan(14, 5, 2, 2)
    with pytest.raises(InputError, match="'free' would be tested on the data that fitted it"):
        cross_validate(components, GROUPS, data, fold_plan(14, 5, 1, 1), "pearson")
    with pytest.raises(InputError, match="the plan deals 15 stimuli"):
        cross_validate(components, GROUPS, data, fold_plan(15, 5, 2, 2), "pearson")
    with pytest.raises(InputError, match="'x' is of the kind 'weigthed'"):
        cross_validate(components, [Group("x", "weigthed", [0, 1])], data, plan, "pearson")
    with pytest.raises(InputError, match="'x' names rows"):
        cross_validate(components, [Group("x", "fixed", [9])], data, plan, "pearson")
    with pytest.raises(InputError, match="'x' has 2 RDMs"):
        cross_validate(components, [Group("x", "fixed", [0, 1])], data, plan, "pearson")
    with pytest.raises(InputError, match="no models"):
        cross_validate(components, [], data, plan, "pearson")
    with pytest.raises(InputError, match="draws of stimuli are counts"):
        cross_validate(components, GROUPS, data, plan, "pearson", np.ones((2, 13), int))
    with pytest.raises(InputError, match="2 draws of stimuli and 3 of subjects"):
        cross_validate(components, GROUPS, data, plan, "pearson", np.ones((2, 14), int), np.ones((3, 5), int))
    holes = components.copy()
    holes[1, 0] = np.nan
    with pytest.raises(InputError, match="'free' have missing pairs"):
        cross_validate(holes, GROUPS, data, plan, "pearson")
    with pytest.raises(InputError, match="without missing pairs"):
        cross_validate(components, GROUPS, np.where(data > 4, np.nan, data), plan, "pearson")
