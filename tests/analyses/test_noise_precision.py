"""Noise covariance from the Gram matrix: the papers' formulas with p × p loops, rsatoolbox, scikit-learn."""

import numpy as np
import pytest

from actkit.analyses.noise_precision import noise_covariance
from actkit.errors import InputError

METHODS = ("diagonal", "shrinkage_eye", "shrinkage_diag")
SHAPES = [(30, 80), (200, 20), (9, 9), (40, 3)]


def noise(n, p, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) @ (np.eye(p) + rng.normal(size=(p, p)) / np.sqrt(p)) + rng.normal(size=p)


def plain(x, method, dof):
    """Covariance with p × p matrices, as the papers write it."""
    x = x - x.mean(axis=0)
    n, p = x.shape
    products = np.einsum("ki,kj->kij", x, x)
    if method == "diagonal":
        return np.diag(np.diagonal(products.sum(axis=0))) / dof, 1.0
    if method == "shrinkage_eye":
        s = products.mean(axis=0)
        target = np.trace(s) / p * np.eye(p)
        far = ((s - target) ** 2).sum()
        share = min(((products - s) ** 2).sum() / n**2, far) / far
        return (share * target + (1 - share) * s) * n / dof, share
    s = products.sum(axis=0) / dof
    scaled = products / np.sqrt(np.outer(np.diagonal(s), np.diagonal(s)))
    r = scaled.sum(axis=0) / (n - 1)
    variance = n / dof**2 * ((scaled**2).sum(axis=0) / (n - 1) - r**2)
    off = ~np.eye(p, dtype=bool)
    share = np.clip(variance[off].sum() / (r[off] ** 2).sum(), 0, 1)
    return np.where(off, (1 - share) * s, s), share


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_covariance_is_the_papers_and_rsatoolboxs(shape, method):
    from rsatoolbox.data.noise import cov_from_residuals, prec_from_residuals

    x = noise(*shape)
    theirs_name = {"diagonal": "diag"}.get(method, method)
    for dof in (None, shape[0] - 4):
        ours = noise_covariance(x, method, dof)
        reference, share = plain(x, method, dof or shape[0] - 1)
        assert ours.shrinkage == pytest.approx(share, rel=1e-10)
        np.testing.assert_allclose(ours.matrix(), reference, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours.matrix(), cov_from_residuals(x, dof, theirs_name), rtol=1e-10, atol=1e-12)
        a, b = noise(4, shape[1], seed=1), noise(3, shape[1], seed=2)
        weight = prec_from_residuals(x, dof, theirs_name)
        np.testing.assert_allclose(ours.products(a), a @ weight @ a.T, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(ours.products(a, b), a @ weight @ b.T, rtol=1e-8, atol=1e-8)


def test_ledoit_wolf_is_scikit_learns():
    from sklearn.covariance import ledoit_wolf

    x = noise(60, 25)
    reference, share = ledoit_wolf(x)
    ours = noise_covariance(x, "shrinkage_eye", dof=60)
    assert ours.shrinkage == pytest.approx(share, rel=1e-10)
    np.testing.assert_allclose(ours.matrix(), reference, rtol=1e-10)


def test_the_papers_variance_of_a_correlation_differs_by_a_known_share():
    """Schäfer & Strimmer take Σ (w − mean w)²; with rsatoolbox's N − 1 in both moments λ is smaller by 1 / (N − 1)²."""
    x = noise(25, 12)
    x = x - x.mean(axis=0)
    z = x / x.std(axis=0, ddof=1)
    w = np.einsum("ki,kj->kij", z, z)
    variance = 25 / 24**3 * ((w - w.mean(axis=0)) ** 2).sum(axis=0)
    off = ~np.eye(12, dtype=bool)
    paper = variance[off].sum() / ((w.sum(axis=0) / 24)[off] ** 2).sum()
    assert noise_covariance(x).shrinkage == pytest.approx(paper - 1 / 24**2, rel=1e-10)


def test_one_covariance_for_each_degrees_of_freedom_where_rsatoolbox_nests_lists():
    """cov_from_residuals(list, dof=list) calls itself with the whole list: a list of lists of covariances."""
    from rsatoolbox.data.noise import cov_from_residuals

    several, degrees = [noise(20, 4, seed=s) for s in range(2)], [19, 12]
    theirs = cov_from_residuals(several, dof=degrees, method="shrinkage_eye")
    assert [len(one) for one in theirs] == [2, 2]
    assert isinstance(theirs[0], list)
    for x, dof in zip(several, degrees, strict=True):
        ours = noise_covariance(x, "shrinkage_eye", dof).matrix()
        np.testing.assert_allclose(ours, cov_from_residuals(x, dof, "shrinkage_eye"), rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_marginal_is_the_covariance_of_a_part(method):
    covariance = noise_covariance(noise(12, 30), method)
    units = np.random.default_rng(0).random(30) < 0.6
    part = covariance.marginal(units)
    np.testing.assert_allclose(part.matrix(), covariance.matrix()[np.ix_(units, units)], rtol=1e-12, atol=1e-14)
    a = noise(3, int(units.sum()), seed=1)
    np.testing.assert_allclose(part.products(a), a @ np.linalg.solve(part.matrix(), a.T), rtol=1e-9)


def test_shrinkage_recovers_a_known_covariance_better_than_the_sample():
    rng = np.random.default_rng(0)
    truth = np.diag(rng.uniform(0.5, 2, 50))
    x = rng.normal(size=(40, 50)) * np.sqrt(np.diagonal(truth))
    sample = np.cov(x.T)
    for method in ("shrinkage_eye", "shrinkage_diag"):
        assert np.linalg.norm(noise_covariance(x, method).matrix() - truth) < 0.5 * np.linalg.norm(sample - truth)


def test_wide_layers_need_no_square_of_units():
    """300,000 units: a units × units matrix would have 720 GB."""
    x = np.random.default_rng(0).normal(size=(10, 300_000))
    covariance = noise_covariance(x, "shrinkage_diag")
    a, b = x[:2], x[1:4]
    times = b * covariance.diagonal + covariance.factor * (b @ covariance.residuals.T) @ covariance.residuals
    np.testing.assert_allclose(covariance.products(a, times), a @ b.T, rtol=1e-9, atol=1e-6)


def test_extremes():
    same = np.tile(noise(1, 5), (4, 1))
    spheric = np.concatenate([np.eye(3), -np.eye(3)])
    assert noise_covariance(spheric, "shrinkage_eye").shrinkage == 1.0
    assert noise_covariance(noise(9, 1)).shrinkage == 1.0
    for method in ("diagonal", "shrinkage_diag"):
        with pytest.raises(InputError, match="5 of 5 units have no noise"):
            noise_covariance(same, method)
    one = noise(8, 4)
    one[:, 2] = 1.0
    with pytest.raises(InputError, match="singular"):
        noise_covariance(np.repeat(noise(2, 2), 4, axis=1)[:, :2] * [1, 0], "shrinkage_eye").marginal(
            np.array([False, True])
        ).products(np.ones((1, 1)))
    assert np.isfinite(noise_covariance(one, "shrinkage_eye").products(np.ones((1, 4)))).all()


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (np.ones(4), {}, "residuals × units"),
        (np.ones((1, 4)), {}, "at least 2 residuals"),
        (np.full((4, 4), np.nan), {}, "NaN"),
        (noise(5, 3), {"dof": 0}, "dof=0"),
        (noise(5, 3), {"method": "full"}, "'full'"),
    ],
)
def test_bad_input_is_named(x, settings, message):
    with pytest.raises(InputError, match=message):
        noise_covariance(x, **settings)
