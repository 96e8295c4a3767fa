"""The comparison engine against plain code: every measure, draws, ceilings, forms, paired and permuted scores."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from actkit.analyses import comparison, moments, rank_draws
from actkit.analyses.comparison import ceilings, forms, paired_scores, permuted_scores, resample, scores
from actkit.analyses.measures import MEASURES, Draw
from actkit.errors import InputError
from actkit.resampling import Stream, bootstrap_weights, permutations

LINEAR = ("pearson", "cosine", "whitened-pearson", "whitened-cosine")
RANKED = ("spearman", "rho-a")
KENDALL = ("tau-a", "tau-b")
TOLERANCE = 1e-12


def simulated(n=9, n_subjects=4, n_models=3, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    shared = pdist(rng.normal(size=(n, 5)))
    data = shared + rng.normal(size=(n_subjects, len(shared)))
    models = shared + np.arange(n_models)[:, None] * rng.normal(size=(n_models, len(shared)))
    return (np.round(models), np.round(data)) if ties else (models, data)


def drawn(vectors, w):
    """The RDMs of a drawn sample, stimuli repeated, NaN between copies."""
    taken = np.repeat(np.arange(len(w)), w)
    copies = taken[:, None] == taken
    return np.array([np.where(copies, np.nan, squareform(v)[np.ix_(taken, taken)]) for v in vectors])


def plain(x, y, compare):
    """Ten lines: one score from two square matrices with NaN between copies."""
    upper = np.triu(~np.isnan(x), 1)
    a, b = x[upper], y[upper]
    m = len(a)
    if compare in ("spearman", "pearson", "tau-b"):
        return {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "tau-b": stats.kendalltau}[compare](a, b)[0]
    if compare == "cosine":
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    if compare == "rho-a":
        return 12 * np.sum((stats.rankdata(a) - (m + 1) / 2) * (stats.rankdata(b) - (m + 1) / 2)) / (m**3 - m)
    if compare == "tau-a":
        return np.sum(np.triu(np.sign(a[:, None] - a) * np.sign(b[:, None] - b))) * 2 / (m * (m - 1))
    form = plain_whitened(np.array([x, y]), compare)
    return form[0, 1] / np.sqrt(form[0, 0] * form[1, 1])


def plain_whitened(matrices, compare):
    """Residuals of a least-squares fit of row and column effects to the existing pairs and the zero diagonal."""
    n = matrices.shape[1]
    i, j = np.nonzero(np.triu(~np.isnan(matrices[0]), 1))
    values = matrices[:, i, j]
    if compare == "whitened-pearson":
        values = values - values.mean(axis=1, keepdims=True)
    values = np.concatenate([values, np.zeros((len(values), n))], axis=1)
    design = np.concatenate([(np.eye(n)[i] + np.eye(n)[j]) / 2, np.eye(n)])
    root = np.sqrt(np.concatenate([np.full(len(i), 0.5), np.full(n, 0.25)]))
    effects = np.linalg.lstsq(design * np.sqrt(2) * root[:, None], values.T * np.sqrt(2) * root[:, None], rcond=None)[0]
    left = (values - (design @ effects).T) * root
    return left @ left.T


def pool(matrices, u, compare):
    """The RDM that scores best with subjects of multiplicities u, NaN between copies kept."""
    known = ~np.isnan(matrices[0])
    upper = np.triu(known, 1)
    total = 0
    for x, count in zip(matrices, u, strict=True):
        v = x[upper]
        if compare in ("pearson", "cosine"):
            v = v - v.mean() if compare == "pearson" else v
            v = v / np.linalg.norm(v)
        elif compare in ("whitened-pearson", "whitened-cosine"):
            v = v - v.mean() if compare == "whitened-pearson" else v
            v = v / np.sqrt(plain_whitened(x[None], compare)[0, 0])
        else:
            v = stats.rankdata(v)
        total = total + count * v
    out = np.full(known.shape, np.nan)
    out[upper] = total
    out.T[upper] = total
    return out


def plain_ceilings(matrices, u, compare):
    people = np.flatnonzero(u)
    others = [np.where(np.arange(len(u)) == s, 0, u) for s in people]
    lower = [plain(pool(matrices, o, compare), matrices[s], compare) for s, o in zip(people, others, strict=True)]
    upper = [plain(pool(matrices, u, compare), matrices[s], compare) for s in people]
    return np.array(lower), np.array(upper)


# --------------------------------------------------------------------------------------------- by definition


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", MEASURES)
def test_scores_and_ceilings_of_draws_by_the_plain_definition(compare, ties):
    models, data = simulated(ties=ties)
    stimuli, people = bootstrap_weights(9, 6, seed=2), bootstrap_weights(4, 6, seed=3)
    once = np.ones(4, dtype=int)
    result = resample(models, data, stimuli, people, compare)
    whole = drawn(data, np.ones(9, dtype=int))
    for d, (w, u) in enumerate(zip(stimuli, people, strict=True)):
        m, s = drawn(models, w), drawn(data, w)
        reference = np.array([[plain(x, y, compare) for y in s] for x in m])
        np.testing.assert_allclose(result.score[d], reference, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(result.mean("both")[d], reference @ u / 4, rtol=0, atol=TOLERANCE)
        for target, matrices, counts in (("stimulus", s, once), ("subject", whole, u), ("both", s, u)):
            bounds = [x.mean() for x in plain_ceilings(matrices, counts, compare)]
            ours = [result.lower[target][d], result.upper[target][d]]
            np.testing.assert_allclose(ours, bounds, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores(models, data, compare), result.full, rtol=0, atol=0)
    reference = plain_ceilings(whole, once, compare)
    np.testing.assert_allclose(ceilings(data, compare), reference, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("compare", [*LINEAR, *RANKED])
def test_forms_give_the_scores_and_keep_their_units(compare):
    models, data = simulated(ties=True)
    both = np.concatenate([models, data])
    w = bootstrap_weights(9, 5, seed=4)
    form = forms(both, w, compare)
    score = resample(models, data, w, None, compare).score
    length = np.sqrt(np.diagonal(form, axis1=1, axis2=2))
    ours = form[:, :3, 3:] / (length[:, :3, None] * length[:, None, 3:])
    if compare == "rho-a":
        pairs = (81 - np.square(w).sum(axis=1))[:, None, None] / 2
        ours = form[:, :3, 3:] * 12 / (pairs**3 - pairs)
    np.testing.assert_allclose(ours, score, rtol=0, atol=TOLERANCE)
    for d, multiplicity in enumerate(w):
        draw = Draw(multiplicity)
        np.testing.assert_allclose(form[d], draw.form(both, compare), rtol=0, atol=1e-10 * np.abs(form[d]).max())
    if compare in LINEAR:  # forms of sums are sums of forms, which fits of weighted models rest on
        theta = np.array([2.0, 1.0, -3.0])
        combined = forms(np.concatenate([(theta @ models)[None], data]), w, compare)
        np.testing.assert_allclose(combined[:, 0, 1:], np.einsum("k,dks->ds", theta, form[:, :3, 3:]), atol=1e-9)
        np.testing.assert_allclose(combined[:, 0, 0], np.einsum("k,dkl,l->d", theta, form[:, :3, :3], theta), atol=1e-9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", MEASURES)
def test_paired_scores_are_those_of_each_prediction(compare, ties):
    models, data = simulated(n_models=5, ties=ties)
    w = bootstrap_weights(9, 5, seed=6)
    w[1, 4:] = 0  # the stimuli of a fold: fewer than were drawn
    ours = paired_scores(models, data, w, compare)
    reference = resample(models, data, w, None, compare).score
    np.testing.assert_allclose(ours, reference[np.arange(5), np.arange(5)], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", MEASURES)
def test_permuted_scores_by_the_plain_definition(compare, ties):
    models, data = simulated(n=8, n_subjects=3, ties=ties)
    shuffles = permutations(8, 6, seed=3)
    ours = permuted_scores(models, data, shuffles, compare)
    for k, shuffle in enumerate(shuffles):
        moved = np.array([squareform(squareform(v)[np.ix_(shuffle, shuffle)]) for v in data])
        reference = scores(models, moved, compare).mean(axis=1)
        np.testing.assert_allclose(ours[:, k], reference, rtol=0, atol=TOLERANCE)


def test_the_whitened_metric_is_the_inverse_covariance_of_distances():
    """Cosine in the metric of V⁻¹, where V_pq is the squared overlap of the contrasts of two pairs of stimuli."""
    models, data = simulated(n=7)
    i, j = np.triu_indices(7, 1)
    contrasts = np.eye(7)[i] - np.eye(7)[j]
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    x, y = models, data
    metric = np.array([[a @ inverse @ b for b in y] for a in x])
    own = [np.sqrt([a @ inverse @ a for a in v]) for v in (x, y)]
    np.testing.assert_allclose(scores(x, y, "whitened-cosine"), metric / np.outer(*own), rtol=0, atol=TOLERANCE)


# --------------------------------------------------------------------------------------------- same answer anywhere


@pytest.mark.parametrize("compare", MEASURES)
def test_same_bits_for_any_number_of_workers(compare, monkeypatch):
    models, data = simulated(n=12, ties=True)
    monkeypatch.setattr(moments, "DRAW_BLOCK", 16)
    stimuli, people = bootstrap_weights(12, 70, 0), bootstrap_weights(4, 70, 0, stream=Stream.SUBJECTS)
    one, two, many = (resample(models, data, stimuli, people, compare, workers=k) for k in (1, 2, 8))
    for other in (two, many):
        np.testing.assert_array_equal(one.score, other.score)
        for target in ("stimulus", "subject", "both"):
            np.testing.assert_array_equal(one.lower[target], other.lower[target])
            np.testing.assert_array_equal(one.upper[target], other.upper[target])
    np.testing.assert_array_equal(
        *(paired_scores(np.resize(models, (70, 66)), data, stimuli, compare, workers=k) for k in (1, 8))
    )
    np.testing.assert_array_equal(
        *(permuted_scores(models, data, permutations(12, 70, 0), compare, workers=k) for k in (1, 8))
    )


@pytest.mark.parametrize("compare", MEASURES)
def test_blocks_do_not_change_draws(compare, monkeypatch):
    models, data = simulated(n=12, ties=True)
    stimuli, people = bootstrap_weights(12, 40, 0), bootstrap_weights(4, 40, 0, stream=Stream.SUBJECTS)
    whole = resample(models, data, stimuli, people, compare)
    for name, value in (("DRAW_BLOCK", 7), ("PAIR_BLOCK", 13), ("_KEPT", 0)):
        monkeypatch.setattr(moments, name, value)
    monkeypatch.setattr(rank_draws, "_DRAWS", 3)
    monkeypatch.setattr(rank_draws, "_SETS", 7)
    blocks = resample(models, data, stimuli, people, compare)
    np.testing.assert_allclose(blocks.score, whole.score, rtol=0, atol=1e-12)
    for target in ("stimulus", "subject", "both"):
        np.testing.assert_allclose(blocks.lower[target], whole.lower[target], rtol=0, atol=1e-12)
        np.testing.assert_allclose(blocks.upper[target], whole.upper[target], rtol=0, atol=1e-12)


@pytest.mark.parametrize("compare", LINEAR)
def test_torch_gives_the_same(compare):
    torch = pytest.importorskip("torch")
    models, data = simulated(n=12)
    w = bootstrap_weights(12, 30, 0)
    reference = resample(models, data, w, None, compare)
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        ours = resample(models, data, w, None, compare, device=device)
        np.testing.assert_allclose(ours.score, reference.score, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.lower["stimulus"], reference.lower["stimulus"], rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------- difficult values


@pytest.mark.parametrize("compare", MEASURES)
@pytest.mark.parametrize("scale", [1e-150, 1e-9, 1e9, 1e150])
def test_scores_do_not_depend_on_scale(compare, scale):
    models, data = simulated()
    w, u = bootstrap_weights(9, 5, 0), bootstrap_weights(4, 5, 1)
    plain_scale, scaled = resample(models, data, w, u, compare), resample(models * scale, data / scale, w, u, compare)
    np.testing.assert_allclose(scaled.score, plain_scale.score, rtol=0, atol=TOLERANCE)
    for target in ("stimulus", "subject", "both"):
        np.testing.assert_allclose(scaled.upper[target], plain_scale.upper[target], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("compare", ["pearson", "whitened-pearson"])
def test_an_outlier_that_is_not_drawn_costs_no_digits(compare):
    """Moments about the mean of all pairs lose ten digits in draws without the outlier; they are computed again."""
    models, data = simulated(n=8)
    models[0, 0], data[1, 5] = 1e6, -1e7
    w = bootstrap_weights(8, 40, 3)
    w = w[(w > 0).sum(axis=1) > 3]
    ours = resample(models, data, w, None, compare).score
    for d, multiplicity in enumerate(w):
        m, s = drawn(models, multiplicity), drawn(data, multiplicity)
        reference = np.array([[plain(x, y, compare) for y in s] for x in m])
        np.testing.assert_allclose(ours[d], reference, rtol=0, atol=1e-11)


@pytest.mark.parametrize("compare", ["whitened-pearson", "whitened-cosine"])
def test_a_draw_of_many_copies_of_one_stimulus(compare):
    """With n/2 + 1 copies of one stimulus a diagonal element of the normal equations is zero: still defined."""
    models, data = simulated(n=6)
    w = np.array([[4, 1, 1, 0, 0, 0], [0, 1, 0, 0, 4, 1], [3, 1, 1, 1, 0, 0]])
    ours = resample(models, data, w, None, compare).score
    for d, multiplicity in enumerate(w):
        m, s = drawn(models, multiplicity), drawn(data, multiplicity)
        reference = np.array([[plain(x, y, compare) for y in s] for x in m])
        np.testing.assert_allclose(ours[d], reference, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("compare", MEASURES)
def test_degenerate_draws_are_nan_and_harm_no_other(compare):
    models, data = simulated(n=6, n_models=2)
    models[1] = squareform(np.array([0, 0, 0, 1, 1, 1])[:, None] != np.array([0, 0, 0, 1, 1, 1])).astype(float)
    w = np.array([[6, 0, 0, 0, 0, 0], [3, 3, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 2, 0, 1, 2, 1]])
    u = np.array([[4, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [4, 0, 0, 0], [0, 2, 2, 0]])
    result = resample(models, data, w, u, compare)
    assert np.isnan(result.score[:2]).all()
    assert np.isnan(result.score[2, 1]).all()  # within one category the model is zero everywhere
    assert np.isfinite(result.score[[2, 3, 4], 0]).all()
    assert np.isfinite(result.score[[3, 4]]).all()
    for bound in (result.lower, result.upper):
        np.testing.assert_array_equal(np.isnan(bound["stimulus"]), [True, True, False, False, False])
        np.testing.assert_array_equal(np.isnan(bound["subject"]), [True, False, False, True, False])
        np.testing.assert_array_equal(np.isnan(bound["both"]), [True, True, False, True, False])
    np.testing.assert_allclose(result.score[3], scores(models, data, compare), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("compare", MEASURES)
def test_missing_and_constant_rdms_are_nan_and_harm_no_other(compare):
    models, data = simulated(n_models=4)
    w, u = bootstrap_weights(9, 6, 0), np.array([[1, 1, 1, 1], [2, 2, 0, 0], [0, 1, 1, 2], [1, 0, 3, 0]] * 2)[:6]
    clean = resample(models, data, w, u, compare)
    broken, ill = models.copy(), data.copy()
    broken[1, 3], broken[2], ill[2, 7] = np.nan, 0.0, np.nan
    result = resample(broken, ill, w, u, compare)
    assert np.isnan(result.score[:, [1, 2]]).all()
    assert np.isnan(result.score[:, :, 2]).all()
    kept = np.ix_(range(6), [0, 3], [0, 1, 3])
    np.testing.assert_allclose(result.score[kept], clean.score[kept], rtol=0, atol=1e-14)
    lost = u[:, 2] > 0
    for target in ("subject", "both"):
        np.testing.assert_array_equal(np.isnan(result.lower[target]), lost)
        np.testing.assert_allclose(result.lower[target][~lost], clean.lower[target][~lost], rtol=0, atol=1e-13)
        np.testing.assert_array_equal(np.isnan(result.mean(target)[:, 0]), lost)
    assert np.isnan(result.lower["stimulus"]).all()
    assert np.isnan(scores(broken, ill, compare)[[1, 2]]).all()
    assert np.isnan(permuted_scores(broken, data, permutations(9, 3, 0), compare)[[1, 2]]).all()


@pytest.mark.parametrize("compare", ["pearson", "cosine", "whitened-pearson", "whitened-cosine", "spearman"])
def test_no_model_beats_the_upper_ceiling(compare):
    """Any other combination of the subjects scores lower. Ranks are no vector space: near the optimum, 1e-3 is left."""
    _, data = simulated(n=10, n_subjects=6, seed=5)
    data[0] *= 50
    best = ceilings(data, compare)[1].mean()
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(6), size=500) @ (data / data.std(axis=1, keepdims=True))
    assert scores(others, data, compare).mean(axis=1).max() <= best + (1e-3 if compare == "spearman" else 1e-12)


def test_draws_of_one_kind():
    models, data = simulated()
    w, u = bootstrap_weights(9, 5, 0), bootstrap_weights(4, 5, 1)
    both = resample(models, data, w, u, "spearman")
    stimuli, people = (resample(models, data, *draws, "spearman") for draws in ((w, None), (None, u)))
    np.testing.assert_array_equal(stimuli.score, both.score)
    np.testing.assert_array_equal(stimuli.lower["stimulus"], both.lower["stimulus"])
    np.testing.assert_array_equal(people.upper["subject"], both.upper["subject"])
    np.testing.assert_array_equal(people.mean("subject"), both.mean("subject"))
    assert (set(stimuli.lower), set(people.lower)) == ({"stimulus"}, {"subject"})
    assert people.score.shape == (5, 3, 4)
    assert not resample(models, data, w, u, "pearson", with_ceilings=False).lower
    with pytest.raises(InputError, match="no draws of subjects"):
        stimuli.mean("both")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d, w: resample(m, d, None, None, "pearson"), "neither"),
        (lambda m, d, w: resample(m, d, w[:, :8], None, "pearson"), r"give \(draws, 9\)"),
        (lambda m, d, w: resample(m, d, w, np.ones((3, 4)), "pearson"), "3 of subjects"),
        (lambda m, d, w: resample(m, d, w / 2, None, "pearson"), "no counts"),
        (lambda m, d, w: resample(m, d, -w, None, "pearson"), "no counts"),
        (lambda m, d, w: resample(m, d, w, None, "kendall"), "'kendall'"),
        (lambda m, d, w: resample(m[:, :28], d, w, None, "pearson"), "28 and of 36 pairs"),
        (lambda m, d, w: resample(m, d, w, None, "pearson", workers=0), "workers=0"),
        (lambda m, d, w: resample(m, d, w, None, "pearson", device="mps"), "no float64"),
        (lambda m, d, w: scores(m[:, :30], d, "pearson"), "30 pairs"),
        (lambda m, d, w: forms(m, w, "tau-a"), "no bilinear form"),
        (lambda m, d, w: paired_scores(m, d, w, "pearson"), "3 predictions for 5 draws"),
    ],
)
def test_bad_input_is_named(call, message):
    models, data = simulated()
    with pytest.raises(InputError, match=message):
        call(models, data, bootstrap_weights(9, 5, 0))


def test_compiled_code_is_not_imported_before_it_is_needed():
    import subprocess
    import sys

    code = f"import sys; import {comparison.__name__}; assert not {{'numba', 'torch', 'rsatoolbox'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
