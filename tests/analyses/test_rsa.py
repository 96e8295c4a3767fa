"""RSA: scores and draws against rsatoolbox and plain code, calibration on simulated truth, labels and errors."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from actkit.analyses import rsa as module
from actkit.analyses.comparison import resample, scores
from actkit.analyses.models import selection, weighted
from actkit.analyses.rsa import families, rsa
from actkit.errors import InputError
from actkit.recordings import category_rdms, rdm_dataset, select_stimuli, to_rsatoolbox
from actkit.resampling import bootstrap_weights
from actkit.results import load, save, to_table

MEASURES = ("spearman", "pearson", "cosine")
THEIRS = {"spearman": "spearman", "pearson": "corr", "cosine": "cosine"}


def ids(n):
    return [f"i{k}" for k in range(n)]


def simulated(n=14, n_subjects=7, n_models=4, seed=0, ties=False, noise=1.0):
    """Subjects that share an RDM, models of which number k follows it less the larger k is."""
    rng = np.random.default_rng(seed)
    shared = pdist(rng.normal(size=(n, 5)))
    data = np.abs(shared + noise * rng.normal(size=(n_subjects, len(shared))))
    models = np.abs(shared + np.arange(n_models)[:, None] * rng.normal(size=(n_models, len(shared))))
    if ties:
        data, models = np.round(data), np.round(models)
    return (
        rdm_dataset(models, [f"conv{k}" for k in range(n_models)], "layer", ids(n), "euclidean", "net"),
        rdm_dataset(data, [f"s{k}" for k in range(n_subjects)], "subject", ids(n), "euclidean", "people"),
    )


def plain_score(x, y, compare):
    """One score from two vectors, by scipy."""
    if compare == "spearman":
        return stats.spearmanr(x, y)[0]
    if compare == "pearson":
        return stats.pearsonr(x, y)[0]
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


# --------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", MEASURES)
def test_scores_are_scipys(compare, ties):
    models, data = simulated(ties=ties)
    result = rsa(models, data, compare=compare, n_draws=5, n_permutations=5)
    for m, model in enumerate(models.dissimilarity.values):
        for s, subject in enumerate(data.dissimilarity.values):
            assert float(result.score[m, s]) == pytest.approx(plain_score(model, subject, compare), abs=1e-12)
    np.testing.assert_allclose(result["mean"], result.score.mean("subject"))
    np.testing.assert_allclose(result.sem_subject, stats.sem(result.score.values, axis=1))


def test_stimuli_are_matched_by_id():
    models, data = simulated()
    order = np.random.default_rng(1).permutation(14)
    shuffled = select_stimuli(models, models.stimulus.values[order])
    options = {"n_draws": 20, "n_permutations": 20}
    a, b = rsa(models, data, **options), rsa(shuffled, data, **options)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name], b[name])
    with pytest.raises(InputError, match="'i3'"):
        rsa(select_stimuli(models, [i for i in ids(14) if i != "i3"]), data)


# --------------------------------------------------------------------------------------------- bootstrap


def test_copies_of_a_stimulus_do_not_correlate_unrelated_rdms():
    """Left in, pairs of copies have distance 0 in both RDMs: r of about 0.8 between unrelated ones."""
    rng = np.random.default_rng(0)
    n = 30
    model, subject = (10 + rng.normal(size=(1, n * (n - 1) // 2)) for _ in range(2))
    weights = bootstrap_weights(n, 200, seed=0)
    full = np.corrcoef(model[0], subject[0])[0, 1]
    assert abs(full) < 0.1
    assert abs(resample(model, subject, weights, None, "pearson").score.mean() - full) < 0.03
    naive = []
    for w in weights:
        taken = np.repeat(np.arange(n), w)
        x, y = (squareform(squareform(v[0])[np.ix_(taken, taken)], checks=False) for v in (model, subject))
        naive.append(np.corrcoef(x, y)[0, 1])
    assert np.mean(naive) > 0.5


def test_degenerate_draws_are_left_out_and_counted():
    models = category_rdms({"pair": [1, 1, 0, 0]}, ids(4))
    _, data = simulated(n=4, n_subjects=2)
    result = rsa(models, data, compare="pearson", n_draws=200, n_permutations=0, generalise_to="stimulus")
    weights = bootstrap_weights(4, 200, 0)
    # The model is constant in a draw unless both categories are there with two stimuli of one of them.
    present = weights > 0
    fine = present.sum(axis=1) >= 3
    assert int(result.draws_used[0]) == fine.sum()
    assert result.attrs["n_draws_degenerate"] == 200 - fine.sum()
    assert np.isnan(result.draw_mean.values[~fine, 0]).all()
    assert np.isfinite(float(result.error[0]))


def test_three_stimuli_and_identical_draws():
    models, data = simulated(n=3, n_subjects=2)
    result = rsa(models, data, n_draws=60, n_permutations=6)
    assert result.attrs["n_draws_degenerate"] > 0
    assert np.isfinite(result["mean"]).all()
    with pytest.raises(InputError, match="2 stimuli"):
        rsa(*(select_stimuli(rdms, ids(2)) for rdms in (models, data)))


# --------------------------------------------------------------------------------------------- inference


def test_permutation_test_keeps_its_level_over_a_family():
    """Model RDMs independent of the subjects' RDM: the smallest corrected p of a family is below .05 in at most 5 %."""
    runs, hits, alone = 200, 0, 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        shared = pdist(rng.normal(size=(9, 3)))
        data = np.abs(shared + rng.normal(size=(4, 36)))
        models = np.array([pdist(rng.normal(size=(9, 3))) for _ in range(5)])
        result = rsa(
            rdm_dataset(models, list("abcde"), "layer", ids(9), "e", "null"),
            rdm_dataset(data, list("wxyz"), "subject", ids(9), "e", "people"),
            generalise_to="subject",
            n_draws=0,
            n_permutations=100,
            seed=run,
        )
        hits += bool((result.p_value <= 0.05).any())
        alone += int((result.p_uncorrected <= 0.05).sum())
    # The count of false positives is binomial: beyond the 99.9 % points the test would not keep its level.
    assert hits <= stats.binom.ppf(0.999, runs, 0.05)
    assert hits >= stats.binom.ppf(0.001, runs, 0.02)
    assert abs(alone / (5 * runs) - 0.05) < 0.03


def test_a_planted_layer_is_found_and_others_are_not():
    rng = np.random.default_rng(0)
    shared = pdist(rng.normal(size=(20, 4)))
    data = np.abs(shared + rng.normal(size=(5, 190)))
    models = np.array([pdist(rng.normal(size=(20, 4))) for _ in range(6)])
    models[3] = np.abs(shared + rng.normal(size=190))
    result = rsa(
        rdm_dataset(models, [f"l{k}" for k in range(6)], "layer", ids(20), "e", "net"),
        rdm_dataset(data, list("abcde"), "subject", ids(20), "e", "people"),
        n_draws=50,
        n_permutations=1000,
    )
    assert int(result["mean"].argmax("model")) == 3
    assert float(result.p_value[3]) == pytest.approx(0.001)
    assert (result.p_value[[0, 1, 2, 4, 5]] > 0.05).all()
    assert (result.p_value >= result.p_uncorrected).all()


def test_a_symmetric_model_counts_permutations_that_leave_it_alone():
    """A permutation within the categories gives the same score, up to rounding, and must count as reaching it."""
    models = category_rdms({"half": [0, 0, 0, 1, 1, 1]}, ids(6))
    data = rdm_dataset(models.dissimilarity.values + 0.01 * np.arange(15), ["s"], "subject", ids(6), "e", "one")
    result = rsa(models, data, n_draws=10, n_permutations=4000)
    # 3! 3! 2 of the 720 orders map the model onto itself: a tenth of the permutations reach the observed score.
    assert float(result.p_value[0]) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("compare", ["spearman", "pearson"])
def test_stimulus_intervals_cover_the_truth(compare):
    """Stimuli drawn from a population whose RDMs are known: 95 % intervals hold the population score."""
    rng = np.random.default_rng(7)
    population, n, runs = 300, 25, 120
    latent = rng.normal(size=(population, 4))
    seen = [latent + 0.8 * rng.normal(size=latent.shape) for _ in range(3)]
    model = latent + 1.2 * rng.normal(size=latent.shape)
    truth = scores(pdist(model)[None], np.array([pdist(x) for x in seen]), compare).mean()
    covered = 0
    for run in range(runs):
        take = rng.choice(population, n, replace=False)
        result = rsa(
            rdm_dataset([pdist(model[take])], ["m"], "model", ids(n), "e", "m"),
            rdm_dataset([pdist(x[take]) for x in seen], list("abc"), "subject", ids(n), "e", "people"),
            compare=compare,
            n_draws=150,
            n_permutations=0,
            seed=run,
        )
        covered += bool(result.interval_low[0] <= truth <= result.interval_high[0])
    assert covered >= stats.binom.ppf(0.001, runs, 0.95)


# --------------------------------------------------------------------------------------------- the result


def test_result_follows_the_contract(tmp_path):
    models, data = simulated()
    fixed = category_rdms({"animate": np.arange(14) < 7, "four": np.arange(14) // 4}, ids(14))
    pixels = models.isel(layer=[0]).assign_coords(layer=["pixels"]).assign_attrs(kind="control")
    result = rsa({"vgg": models, "categories": fixed, "pixels": pixels}, data, n_draws=30, n_permutations=50, seed=4)
    assert result.model.values.tolist() == [
        "vgg/conv0",
        "vgg/conv1",
        "vgg/conv2",
        "vgg/conv3",
        "animate",
        "four",
        "pixels/pixels",
    ]
    assert result.layer.values.tolist() == ["conv0", "conv1", "conv2", "conv3", "animate", "four", "pixels"]
    assert result.kind.values.tolist() == ["layer"] * 4 + ["model"] * 2 + ["control"]
    assert result.position.values.tolist() == [0, 1, 2, 3, 0, 1, 0]
    assert result.network.values.tolist() == ["vgg"] * 4 + ["categories"] * 2 + ["pixels"]
    assert families(result) == {"layers": 4, "models": 2, "controls": 1}
    assert {
        "score",
        "mean",
        "sem_subject",
        "sem_stimulus",
        "error",
        "interval_low",
        "interval_high",
        "p_value",
        "ceiling_lower",
        "ceiling_upper",
        "ceiling_lower_subject",
        "draw_mean",
        "p_zero",
        "p_below_ceiling",
        "p_difference_corrected",
        "ceiling_gap",
    } <= set(result)
    assert dict(result.sizes) == {"model": 7, "other_model": 7, "subject": 7, "draw": 30}
    assert result.attrs["analysis"] == "rsa"
    assert result.attrs["generalise_to"] == "subject"
    assert "7 subjects" in result.attrs["generalise_to_reason"]
    assert result.attrs["data"] == "people"
    assert set(json.loads(result.attrs["inputs"])) == {"models: vgg", "models: categories", "models: pixels", "data"}
    np.testing.assert_allclose(result.error, result.sem_subject, rtol=1e-12)
    xr.testing.assert_identical(load(save(result, tmp_path / "rsa.nc")), result)
    table = to_table(result)
    assert len(table) == 7 * 7
    assert {"model", "subject", "score", "mean", "p_value", "ceiling_lower"} <= set(table.columns)


def test_few_subjects_generalise_to_stimuli():
    models, data = simulated(n_subjects=5)
    result = rsa(models, data, n_draws=30, n_permutations=0)
    assert result.attrs["generalise_to"] == "stimulus"
    assert "5 subjects (fewer than 6)" in result.attrs["generalise_to_reason"]
    plain = rsa(models, data, n_draws=30, n_permutations=0, variance="bootstrap")
    np.testing.assert_allclose(plain.error, plain.sem_stimulus, rtol=1e-12)
    assert (plain.dof == 13).all()
    assert np.isnan(result.p_value).all()
    settings = {"n_draws": 30, "n_permutations": 0, "generalise_to": "both", "variance": "bootstrap"}
    both = rsa(models, data, dof="conservative", **settings)
    assert (both.dof == 4).all()
    assert (both.error <= np.sqrt(np.var(both.draw_mean, axis=0, ddof=1)) + 1e-12).all()


def test_same_seed_same_result_and_data_are_left_alone():
    models, data = simulated()
    before = models.copy(deep=True), data.copy(deep=True)
    options = {"n_draws": 20, "n_permutations": 30, "generalise_to": "both"}
    a, b, c = (
        rsa(models, data, seed=1, **options),
        rsa(models, data, seed=1, **options),
        rsa(models, data, seed=2, **options),
    )
    xr.testing.assert_identical(a, b)
    assert not np.array_equal(a.draw_mean, c.draw_mean)
    xr.testing.assert_identical(models, before[0])
    xr.testing.assert_identical(data, before[1])


def test_dead_and_constant_models_are_undefined_and_harm_no_other():
    models, data = simulated()
    options = {"n_draws": 20, "n_permutations": 40}
    clean = rsa(models, data, **options)
    broken = models.copy(deep=True)
    broken["dissimilarity"].values[1, 3] = np.nan
    broken["dissimilarity"].values[2] = 0.5
    result = rsa(broken, data, **options)
    assert json.loads(result.attrs["undefined"]) == ["net/conv1", "net/conv2"]
    for name in ("mean", "error", "p_value"):
        assert np.isnan(result[name][[1, 2]]).all()
    np.testing.assert_array_equal(result["mean"][[0, 3]], clean["mean"][[0, 3]])
    np.testing.assert_allclose(result.sem_stimulus[[0, 3]], clean.sem_stimulus[[0, 3]], rtol=1e-12)
    assert result.attrs["n_draws_degenerate"] == 0


def test_a_single_subject():
    models, data = simulated(n_subjects=1)
    result = rsa(models, data, n_draws=30, n_permutations=30)
    assert result.attrs["generalise_to"] == "stimulus"
    assert np.isnan(result.sem_subject).all()
    assert np.isfinite(result.error).all()
    assert np.isnan(result.ceiling_lower)
    more = {"compare": "pearson", "n_draws": 30, "n_permutations": 30}
    for other in (rsa(models, data, partial=models.isel(layer=[3]), **more), rsa(models, data, folds=2, **more)):
        assert np.isfinite(other["mean"][:3]).all()
        assert np.isfinite(other.error[:3]).all()
        assert np.isnan(other.ceiling_lower)
        assert np.isnan(other.ceiling_upper)
    for target in ("subject", "both"):
        with pytest.raises(InputError, match="from 1 subject"):
            rsa(models, data, generalise_to=target)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: rsa([m, m], d), "'net/conv0'"),
        (lambda m, d: rsa([], d), "no models"),
        (lambda m, d: rsa(m.assign_attrs(kind="brain"), d), "'brain'"),
        (lambda m, d: rsa(m, d, n_draws=1, generalise_to="stimulus"), "n_draws=1"),
        (lambda m, d: rsa(m, d, n_draws=1, folds=2), "n_draws=1 gives cross-validated"),
        (lambda m, d: rsa(m, d, folds=5), "at most 4 folds"),
        (lambda m, d: rsa(m, d, subject_folds=8), "subject_folds=8"),
        (lambda m, d: rsa(m, d, partial=[]), "without RDMs"),
        (lambda m, d: rsa(m, d, compare="kendall"), "kendall"),
        (lambda m, d: rsa(m, d, seed=-1), "seed"),
        (lambda m, d: rsa(m, d.where(d.dissimilarity > 0.5)), "missing pairs"),
    ],
)
def test_bad_input_is_named(call, message):
    models, data = simulated()
    with pytest.raises(InputError, match=message):
        call(models, data)


# --------------------------------------------------------------------------------------------- rsatoolbox


@pytest.mark.filterwarnings("ignore")
def test_two_factor_variance_is_rsatoolboxs_on_its_own_draws(monkeypatch):
    from rsatoolbox.inference import evaluate
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.util.inference_util import _dual_bootstrap

    models, data = simulated(n=10, n_subjects=5, n_models=2)
    theirs = [ModelFixed(str(k), to_rsatoolbox(models.isel(layer=[k]))) for k in range(2)]
    people, stimuli = [], []
    sample = evaluate.bootstrap_sample

    def noting(*args, **settings):
        taken, subjects, drawn = sample(*args, **settings)
        people.append(np.bincount(subjects, minlength=5))
        stimuli.append(np.bincount(drawn, minlength=10))
        return taken, subjects, drawn

    monkeypatch.setattr(evaluate, "bootstrap_sample", noting)
    reference = evaluate.eval_dual_bootstrap(theirs, to_rsatoolbox(data), method="corr", N=12)
    ours = {"STIMULI": np.array(stimuli), "SUBJECTS": np.array(people)}
    monkeypatch.setattr(module, "bootstrap_weights", lambda n, *_, stream=module.Stream.STIMULI: ours[stream.name])
    result = rsa(
        models, data, compare="pearson", n_draws=12, n_permutations=0, generalise_to="both", variance="bootstrap"
    )
    np.testing.assert_allclose(result.draw_mean, reference.evaluations[:, :, 0, 0, 0], atol=1e-12)
    variances = np.stack([np.diagonal(v)[:2] for v in reference.variances])
    np.testing.assert_allclose(result.error**2, _dual_bootstrap(variances, 5, 10), rtol=1e-9)


# --------------------------------------------------------------------------------------------- fitted models


def test_a_fitted_model_is_scored_out_of_sample_beside_fixed_ones():
    """A weighted sum of unrelated RDMs predicts nothing; of the true parts, more than each of them."""
    rng = np.random.default_rng(3)
    n = 30
    parts = np.array([pdist(rng.normal(size=(n, 3))) for _ in range(2)])
    noise = np.array([pdist(rng.normal(size=(n, 3))) for _ in range(12)])
    data = rdm_dataset(
        parts.sum(axis=0) + 0.5 * rng.normal(size=(8, n * (n - 1) // 2)), list("abcdefgh"), "subject", ids(n), "e", "d"
    )
    true = rdm_dataset(parts, ["p", "q"], "model", ids(n), "e", "parts")
    unrelated = rdm_dataset(noise, [f"n{k}" for k in range(12)], "model", ids(n), "e", "noise")
    result = rsa(
        [true, weighted(true, "sum"), weighted(unrelated, "overfit", nonnegative=False), selection(true, "choice")],
        data,
        compare="pearson",
        n_draws=300,
        generalise_to="both",
    )
    mean = dict(zip(result.model.values.tolist(), result["mean"].values.tolist(), strict=True))
    assert result.fit.values.tolist() == ["fixed", "fixed", "weighted_nonnegative", "weighted", "selection"]
    assert mean["sum"] > max(mean["p"], mean["q"]) + 0.1
    assert abs(mean["overfit"]) < 0.1
    assert mean["choice"] <= max(mean["p"], mean["q"]) + 0.02
    assert np.isfinite(result.error).all()
    assert np.isnan(result.p_value).all()
    assert "folds of stimuli" in result.attrs["cross_validation"]
    share = json.loads(result.attrs["weights"])["sum"]
    assert share["p"]["weight"] == pytest.approx(share["q"]["weight"], rel=0.2)
    assert float(result.p_difference.sel(model="sum", other_model="p")) < 0.05


def test_the_best_layer_is_chosen_on_other_stimuli():
    """The best of many unrelated layers scores well on the data that chose it, and nothing on others."""
    rng = np.random.default_rng(5)
    n = 24
    layers = rdm_dataset(
        [pdist(rng.normal(size=(n, 4))) for _ in range(25)], [f"l{k}" for k in range(25)], "layer", ids(n), "e", "net"
    )
    data = rdm_dataset(
        pdist(rng.normal(size=(n, 4))) + 0.1 * rng.normal(size=(6, n * (n - 1) // 2)),
        list("abcdef"),
        "subject",
        ids(n),
        "e",
        "d",
    )
    options = {"compare": "pearson", "n_draws": 20, "n_permutations": 0}
    circular = float(rsa(layers, data, **options)["mean"].max())
    result = rsa(layers, data, choose_layer=True, **options)
    honest = float(result["mean"].sel(model="net/chosen layer"))
    assert circular > 0.1
    assert honest < circular / 2
    with pytest.raises(InputError, match="no network has two layers"):
        rsa(layers.isel(layer=[0]), data, choose_layer=True)


def test_partial_scores_are_those_of_residuals():
    models, data = simulated(n=12, n_subjects=5, n_models=3)
    taken_out, rest = models.isel(layer=[2]), models.isel(layer=[0, 1])
    control = taken_out.dissimilarity.values[0]

    def residual(v):
        design = np.stack([np.ones_like(control), control], axis=1)
        return v - design @ np.linalg.lstsq(design, v, rcond=None)[0]

    subjects = data.dissimilarity.values
    options = {"compare": "pearson", "n_draws": 40, "n_permutations": 100, "generalise_to": "both"}
    freed = np.array([residual(v) for v in subjects])
    for semi, people in ((False, freed), (True, subjects)):
        result = rsa(rest, data, partial=taken_out, semipartial=semi, **options)
        for m, model in enumerate(rest.dissimilarity.values):
            expected = [stats.pearsonr(residual(model), person)[0] for person in people]
            np.testing.assert_allclose(result.score[m], expected, atol=1e-12)
        assert np.isnan(result.p_value).all()
        assert "conv2" in result.attrs["partial"]
    whole = rsa(rest, data, partial=taken_out, **options)
    unit = freed / np.linalg.norm(freed, axis=1, keepdims=True)
    pool = unit.sum(axis=0)
    assert float(whole.ceiling_upper) == pytest.approx(np.mean([stats.pearsonr(pool, v)[0] for v in freed]), abs=1e-12)
    lower = np.mean([stats.pearsonr(pool - unit[s], freed[s])[0] for s in range(5)])
    assert float(whole.ceiling_lower) == pytest.approx(lower, abs=1e-12)
    # The pool of what subjects keep is the best of all models that are free of the control.
    best = rdm_dataset(pool[None], ["pool"], "model", ids(12), "e", "best")
    score = rsa(best, data, partial=taken_out, **options)
    assert float(score["mean"][0]) == pytest.approx(float(whole.ceiling_upper), abs=1e-12)
    everyone = unit @ subjects.T / np.linalg.norm(subjects, axis=1)
    assert everyone.shape == (5, 5)
    pool = sum(v / np.linalg.norm(u - u.mean()) for v, u in zip(freed, subjects, strict=True))
    semi = rsa(
        rdm_dataset(pool[None], ["pool"], "model", ids(12), "e", "b"),
        data,
        partial=taken_out,
        semipartial=True,
        **options,
    )
    assert float(semi["mean"][0]) == pytest.approx(float(semi.ceiling_upper), abs=1e-12)


def test_a_model_in_the_span_of_the_controls_has_no_partial_score():
    models, data = simulated(n=12)
    result = rsa(models, data, partial=models.isel(layer=[1]), compare="pearson", n_draws=20)
    assert np.isnan(result["mean"][1])
    assert np.isfinite(result["mean"][[0, 2, 3]]).all()
    for compare in ("tau-a", "rho-a"):
        with pytest.raises(InputError, match=compare):
            rsa(models, data, partial=models.isel(layer=[1]), compare=compare)
    with pytest.raises(InputError, match="do not go together"):
        rsa(models, data, partial=models.isel(layer=[1]), folds=2)


# --------------------------------------------------------------------------------------------- anywhere the same


@pytest.mark.parametrize("compare", ["pearson", "spearman", "tau-a", "whitened-pearson"])
def test_any_number_of_workers_gives_the_same_bits(compare):
    models, data = simulated(n=16, ties=True)
    fitted = weighted(models, "sum")
    options = {"compare": compare, "generalise_to": "both", "n_draws": 30, "n_permutations": 30}
    for given in (models, [models, fitted]):
        results = [rsa(given, data, workers=workers, **options) for workers in (1, 2, 8)]
        for other in results[1:]:
            for name in results[0].data_vars:
                np.testing.assert_array_equal(results[0][name], other[name], err_msg=name)


def test_time_bins_are_analysed_one_by_one():
    models, data = simulated(n=12, n_subjects=8)
    moving = xr.concat([data, data.isel(subject=slice(None, None, -1)).assign_coords(subject=data.subject)], "time")
    moving = moving.assign_coords(time=[0.1, 0.2]).transpose("subject", "time", "pair", "stimulus")
    moving.attrs = data.attrs
    result = rsa(models, moving, compare="pearson", n_draws=20, n_permutations=50)
    assert result.attrs["analysis"] == "rsa_over_time"
    still = rsa(models, data, compare="pearson", n_draws=20, n_permutations=50)
    np.testing.assert_allclose(result["mean"].isel(time=0), still["mean"], atol=1e-12)
    np.testing.assert_allclose(result["mean"].isel(time=1), still["mean"], atol=1e-12)
    assert result.family.values.tolist() == ["layers"] * 4
    with pytest.raises(InputError, match="has to be fitted"):
        rsa(weighted(models, "sum"), moving)


def test_cosines_of_distances_are_not_tested_against_zero():
    """Unrelated non-negative RDMs have a large cosine: a t test against 0 would find every model significant."""
    models, data = simulated()
    options = {"n_draws": 30, "n_permutations": 50, "generalise_to": "both"}
    for compare in ("cosine", "whitened-cosine"):
        result = rsa(models, data, compare=compare, **options)
        assert np.isnan(result.p_zero).all()
        assert np.isnan(result.p_zero_corrected).all()
        assert np.isfinite(result.p_below_ceiling).all()
        assert "none against 0" in result.attrs["tests"]
    centred = data.assign(dissimilarity=data.dissimilarity - data.dissimilarity.mean())
    crossvalidated = rsa(models, centred, compare="cosine", **options)
    assert np.isfinite(crossvalidated.p_zero).all()
    assert "none against 0" not in crossvalidated.attrs["tests"]
