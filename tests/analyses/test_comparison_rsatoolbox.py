"""The comparison engine against rsatoolbox on rsatoolbox's own draws: evaluations and both ceilings."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from actkit.analyses.comparison import ceilings, forms, resample, scores
from actkit.recordings import rdm_dataset, to_rsatoolbox

rsatoolbox = pytest.importorskip("rsatoolbox")

from rsatoolbox.inference import evaluate, noise_ceiling  # noqa: E402
from rsatoolbox.model import ModelFixed  # noqa: E402
from rsatoolbox.util import pooling  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
REAL = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "kriegeskorte2008_92images"
THEIRS = {
    "cosine": "cosine",
    "pearson": "corr",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "tau-a": "tau-a",
    "tau-b": "kendall",
    "whitened-pearson": "corr_cov",
    "whitened-cosine": "cosine_cov",
}
# rsatoolbox inverts a matrix in every whitened comparison; the others differ by the order of sums alone.
TOLERANCE = 1e-12


def simulated(n=9, n_subjects=4, n_models=3, seed=0, ties=False, negative=False):
    """Subjects that share an RDM; models that follow it less and less."""
    rng = np.random.default_rng(seed)
    shared = pdist(rng.normal(size=(n, 5)))
    data = shared + rng.normal(size=(n_subjects, len(shared)))
    models = shared + np.arange(n_models)[:, None] * rng.normal(size=(n_models, len(shared)))
    if negative:  # as crossnobis values are
        data, models = data - data.mean(), models - models.mean()
    return (np.round(models), np.round(data)) if ties else (models, data)


def toolbox(vectors, n):
    return to_rsatoolbox(
        rdm_dataset(vectors, [f"r{k}" for k in range(len(vectors))], "subject", list(range(n)), "d", "x")
    )


def both_sides(models, data):
    n = round((1 + np.sqrt(1 + 8 * data.shape[1])) / 2)
    return [ModelFixed(f"m{k}", toolbox(row[None], n)) for k, row in enumerate(models)], toolbox(data, n), n


def counts(indices, n):
    return np.bincount(indices, minlength=n)


def dual_draws(monkeypatch, fixed, theirs, compare, n_draws, seed, n, n_subjects):
    """Run rsatoolbox's dual bootstrap, noting its draws (it shuffles folds between them)."""
    sample, noted = evaluate.bootstrap_sample, []

    def noting(*args, **settings):
        taken, subjects, stimuli = sample(*args, **settings)
        noted.append((counts(subjects, n_subjects), counts(stimuli, n)))
        return taken, subjects, stimuli

    monkeypatch.setattr(evaluate, "bootstrap_sample", noting)
    np.random.seed(seed)  # noqa: NPY002 - rsatoolbox draws from the global generator
    result = evaluate.eval_dual_bootstrap(fixed, theirs, method=THEIRS[compare], N=n_draws)
    people, stimuli = (np.array(x) for x in zip(*noted, strict=True))
    return result, stimuli, people


def check_dual(monkeypatch, models, data, compare, n_draws, seed=3):
    fixed, theirs, n = both_sides(models, data)
    result, stimuli, people = dual_draws(monkeypatch, fixed, theirs, compare, n_draws, seed, n, len(data))
    ours = resample(models, data, stimuli, people, compare)
    alone = (people > 0).sum(axis=1) == 1  # their ceilings of a single subject are its similarity with itself
    for number, target in enumerate(("both", "subject", "stimulus")):
        np.testing.assert_allclose(ours.mean(target), result.evaluations[:, :, 0, 0, number], rtol=0, atol=TOLERANCE)
        if compare == "whitened-pearson" or compare == "whitened-cosine":
            continue
        for name, bound in zip((ours.lower, ours.upper), result.noise_ceiling[:, :, 0, number], strict=True):
            left = alone if target != "stimulus" else np.zeros_like(alone)
            assert np.isnan(name[target][left]).all()
            np.testing.assert_allclose(name[target][~left], bound[~left], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["continuous", "ties", "negative"])
@pytest.mark.parametrize("compare", THEIRS)
def test_dual_bootstrap(compare, kind, monkeypatch):
    models, data = simulated(ties=kind == "ties", negative=kind == "negative")
    check_dual(monkeypatch, models, data, compare, 6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", THEIRS)
def test_fixed_stimuli_and_subjects(compare, ties):
    """Their other three evaluations, on draws reproduced from the seed of numpy's global generator."""
    models, data = simulated(seed=1, ties=ties)
    fixed, theirs, n = both_sides(models, data)
    method, k, n_draws = THEIRS[compare], len(data), 5
    with_ceilings = not compare.startswith("whitened")

    reference = evaluate.eval_fixed(fixed, theirs, method=method)
    np.testing.assert_allclose(scores(models, data, compare), reference.evaluations[0], rtol=0, atol=TOLERANCE)
    if with_ceilings:
        ours = [bound.mean() for bound in ceilings(data, compare)]
        np.testing.assert_allclose(ours, reference.noise_ceiling, rtol=0, atol=TOLERANCE)

    np.random.seed(5)  # noqa: NPY002
    reference = evaluate.eval_bootstrap_pattern(fixed, theirs, method=method, N=n_draws)
    np.random.seed(5)  # noqa: NPY002
    stimuli = np.array([counts(np.random.randint(0, n, size=n), n) for _ in range(n_draws)])  # noqa: NPY002
    drawn = resample(models, data, stimuli, None, compare)
    np.testing.assert_allclose(drawn.mean("stimulus"), reference.evaluations, rtol=0, atol=TOLERANCE)
    if with_ceilings:
        ours = [drawn.lower["stimulus"], drawn.upper["stimulus"]]
        np.testing.assert_allclose(ours, reference.noise_ceiling, rtol=0, atol=TOLERANCE)

    np.random.seed(6)  # noqa: NPY002
    reference = evaluate.eval_bootstrap_rdm(fixed, theirs, method=method, N=n_draws)
    np.random.seed(6)  # noqa: NPY002
    people = np.array([counts(np.random.randint(0, k, size=k), k) for _ in range(n_draws)])  # noqa: NPY002
    drawn = resample(models, data, None, people, compare)
    np.testing.assert_allclose(drawn.mean("subject"), reference.evaluations, rtol=0, atol=TOLERANCE)
    if with_ceilings:
        ours = [drawn.lower["subject"], drawn.upper["subject"]]
        np.testing.assert_allclose(ours, reference.noise_ceiling, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("compare", ["whitened-pearson", "whitened-cosine"])
def test_whitened_ceilings_pool_in_the_whitened_metric(compare):
    """Theirs average RDMs of unit plain length, ours of unit whitened length: only so is the upper bound one.

    Their own `pooling.pool_rdm` does as we do; `inference_util.pool_rdm`, which the noise ceiling calls, does not. With
    their lengths in our forms, their numbers come out.
    """
    _, data = simulated(n=8, n_subjects=5, seed=4)
    data[0] *= 9
    theirs, n = toolbox(data, 8), len(data)
    reference = noise_ceiling.boot_noise_ceiling(theirs, method=THEIRS[compare])
    metric = forms(data, None, compare)[0]
    plain = np.sqrt(np.diagonal(forms(data, None, compare.removeprefix("whitened-"))[0]))
    length = np.sqrt(np.diagonal(metric))

    def bounds(scale):
        lower, upper = [], []
        for s in range(n):
            others = (np.arange(n) != s) / scale
            for pool, bound in ((others, lower), (1 / scale, upper)):
                bound.append(pool @ metric[s] / length[s] / np.sqrt(pool @ metric @ pool))
        return np.array([lower, upper])

    np.testing.assert_allclose(bounds(plain).mean(axis=1), reference, rtol=0, atol=TOLERANCE)
    ours = np.array(ceilings(data, compare))
    np.testing.assert_allclose(ours, bounds(length), rtol=0, atol=TOLERANCE)
    assert ours[1].mean() > reference[1] + 1e-6
    pooled = pooling.pool_rdm(theirs, method=THEIRS[compare]).get_vectors()
    best = scores(pooled, data, compare).mean()
    # conjugate gradients leave them 1e-7 or so
    assert best == pytest.approx(ours[1].mean(), abs=1e-5)
    rng = np.random.default_rng(0)
    near = pooled + 0.05 * pooled.std() * rng.normal(size=(400, data.shape[1]))
    assert scores(near, data, compare).mean(axis=1).max() < ours[1].mean() + 1e-12


@pytest.fixture(scope="module")
def real():
    """13 models and 16 judges of 92 images."""
    if not REAL.is_dir():
        pytest.skip("ACTKIT_DATA holds no kriegeskorte2008_92images")
    import actkit

    data = actkit.load_data("kriegeskorte2008_92images")
    names = ("model_rdms", "v1_hmax", "monkey_it", "human_it")
    models = np.concatenate([data[name].dissimilarity.values for name in names])[:13]
    return models.astype(np.float64), data["judgements"].dissimilarity.values.astype(np.float64)


@pytest.mark.parametrize("compare", [name for name in THEIRS if name != "tau-b"])
def test_real_data(compare, real, monkeypatch):
    check_dual(monkeypatch, *real, compare, 2)
