"""Missing units: every method against loops over pairs and their common units, and where rsatoolbox errs."""

import itertools
import json

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import squareform
from scipy.stats import pearsonr

from actkit.analyses import products
from actkit.analyses.noise_precision import noise_covariance
from actkit.analyses.rdm import rdm
from actkit.errors import InputError

PAIRS = list(itertools.combinations(range(6), 2))


def holes(n=6, repetitions=4, p=30, seed=0, share=0.15):
    """Recorded rates whose neurons are missing from some stimuli, and from single repetitions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1, p)) + 0.5 * rng.normal(size=(n, repetitions, p)) + 6
    missing = rng.random((n, p)) < share
    x[np.broadcast_to(missing[:, None], x.shape) & (np.arange(n)[:, None, None] != 1)] = np.nan
    x[2, 0, 5] = np.nan  # one repetition of one neuron
    names = [f"s{k}" for k in range(n)]
    return xr.DataArray(x, dims=("stimulus", "repetition", "neuron"), coords={"stimulus": names}, name="V4")


def means_of(data):
    with np.errstate(invalid="ignore"):
        there = np.isfinite(data.values).sum(axis=1)
        return np.where(there > 0, np.nansum(data.values, axis=1) / np.maximum(there, 1), np.nan)


def common(x, i, j):
    both = np.isfinite(x[i]) & np.isfinite(x[j])
    return x[i, both], x[j, both], both


PLAIN = {
    "correlation": lambda a, b: 1 - pearsonr(a, b)[0],
    "cosine": lambda a, b: 1 - a @ b / np.sqrt(a @ a * (b @ b)),
    "sqeuclidean": lambda a, b: 30 * np.mean((a - b) ** 2),
    "euclidean": lambda a, b: np.sqrt(30 * np.mean((a - b) ** 2)),
}


@pytest.mark.parametrize("method", PLAIN)
def test_patterns_are_compared_over_common_units(method):
    data = holes()
    x = means_of(data)
    reference = [PLAIN[method](*common(x, i, j)[:2]) for i, j in PAIRS]
    result = rdm(data, method=method)
    np.testing.assert_allclose(result.dissimilarity.values[0], reference, rtol=1e-11)
    assert result.missing_values.values.tolist() == [np.isnan(data.values).sum()]
    assert int(result.undefined_pairs[0]) == 0


@pytest.mark.filterwarnings("ignore")
def test_correlation_counts_the_valid_units_where_rsatoolbox_counts_all():
    """Its products are centred as Σxy − ΣxΣy / p with all p units, though the sums run over the common ones."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm_unbalanced

    x = means_of(holes())
    theirs = calc_rdm_unbalanced(
        Dataset(x, obs_descriptors={"s": np.arange(6)}), method="correlation", descriptor="s"
    ).dissimilarities[0]
    ours = rdm(holes()).dissimilarity.values[0]

    def wrong(a, b):
        sums = a @ b - a.sum() * b.sum() / 30
        return sums / np.sqrt((a @ a - a.sum() ** 2 / 30) * (b @ b - b.sum() ** 2 / 30))

    i, j = PAIRS[3]
    a, b, _ = common(x, i, j)
    assert ours[3] == pytest.approx(1 - pearsonr(a, b)[0], rel=1e-11)
    assert abs(ours[3] - theirs[3]) > 0.1
    # Their cross term, and a self term of 30/2 that counts as that of p units in as many as there are.
    cross, own = wrong(a, b) * 15 / len(a), [15 / np.isfinite(x[k]).sum() for k in (i, j)]
    assert theirs[3] == pytest.approx(sum(own) - 2 * cross, rel=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_distances_do_not_depend_on_the_origin_as_rsatoolboxs_do():
    """Its squared norms run over all units of a stimulus and the products over the common ones."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm_unbalanced

    def theirs(data):
        found = Dataset(means_of(data), obs_descriptors={"s": np.arange(6)})
        return calc_rdm_unbalanced(found, method="euclidean", descriptor="s").dissimilarities[0]

    data = holes()
    ours = [rdm(d, method="sqeuclidean").dissimilarity.values[0] for d in (data, data + 50)]
    np.testing.assert_allclose(ours[0], ours[1], rtol=1e-10)
    assert np.abs(theirs(data + 50) - theirs(data)).max() > 1
    whole = holes(share=0)[:, 1:]
    np.testing.assert_allclose(
        theirs(whole), rdm(whole, method="sqeuclidean", scale="mean").dissimilarity[0], rtol=1e-9
    )


def covariance_of(data, noise):
    """p × p covariance: variances of what each neuron has, or a shrunk covariance of complete observations."""
    x = data.values
    left = (x - means_of(data)[:, None]).reshape(-1, x.shape[2])
    if noise == "none":
        return np.eye(30)
    if noise == "diagonal":
        dof = np.isfinite(left).sum(axis=0) - np.isfinite(x).any(axis=1).sum(axis=0)
        return np.diag(np.nansum(left**2, axis=0) / dof)
    rows, stimulus = x.reshape(-1, x.shape[2]), np.repeat(np.arange(len(x)), x.shape[1])
    whole = np.isfinite(rows).all(axis=1)
    rows, stimulus = rows[whole], stimulus[whole]
    left = np.stack([row - rows[stimulus == s].mean(axis=0) for row, s in zip(rows, stimulus, strict=True)])
    return noise_covariance(left, noise, len(rows) - len(np.unique(stimulus))).matrix()


@pytest.mark.parametrize("noise", ["diagonal", "shrinkage_eye", "shrinkage_diag"])
def test_mahalanobis_restricts_the_covariance_not_its_inverse(noise):
    """Also where rsatoolbox cuts a block out of the precision, and divides by all units."""
    data = holes(repetitions=9)
    x, sigma = means_of(data), covariance_of(holes(repetitions=9), noise)

    def distance(i, j):
        a, b, both = common(x, i, j)
        return 30 * (a - b) @ np.linalg.solve(sigma[np.ix_(both, both)], a - b) / both.sum()

    def conditional(i, j):
        a, b, both = common(x, i, j)
        return 30 * (a - b) @ np.linalg.inv(sigma)[np.ix_(both, both)] @ (a - b) / both.sum()

    ours = rdm(data, method="mahalanobis", noise=noise).dissimilarity.values[0]
    np.testing.assert_allclose(ours, [distance(i, j) for i, j in PAIRS], rtol=1e-10)
    if noise != "diagonal":
        wrong = np.array([conditional(i, j) for i, j in PAIRS])
        assert (wrong > ours * 1.001).sum() > 10  # given other units there is less variance, so distances look larger


def test_rsatoolboxs_mahalanobis_takes_a_block_of_the_precision():
    from rsatoolbox.cengine.similarity import calc_one

    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(5, 5))
    precision = np.linalg.inv(mixing @ mixing.T)
    a, b = rng.normal(size=(2, 1, 5))
    b[0, 4] = np.nan
    value, _ = calc_one(a, b, np.array([0]), np.array([1]), 1, 1, 3, noise=precision)
    assert value == pytest.approx(a[0, :4] @ precision[:4, :4] @ b[0, :4] / 5)  # 4 units, divided by 5
    marginal = np.linalg.inv(np.linalg.inv(precision)[:4, :4])
    assert value != pytest.approx(a[0, :4] @ marginal @ b[0, :4] / 4, rel=0.05)


@pytest.mark.parametrize("noise", ["none", "diagonal", "shrinkage_eye", "shrinkage_diag"])
def test_crossnobis_over_the_units_of_both_stimuli_in_both_folds(noise):
    data = holes(repetitions=6)
    data[4, :2, 7] = np.nan
    data = data.assign_coords(session=("repetition", [0, 0, 1, 1, 2, 2]))
    sigma = covariance_of(data, noise)
    folds = [means_of(data[:, 2 * f : 2 * f + 2]) for f in range(3)]
    reference = []
    for i, j in PAIRS:
        total, count = 0.0, 0
        for f, g in itertools.combinations(range(3), 2):
            both = np.isfinite([folds[f][i], folds[f][j], folds[g][i], folds[g][j]]).all(axis=0)
            one, two = (folds[k][i, both] - folds[k][j, both] for k in (f, g))
            total += one @ np.linalg.solve(sigma[np.ix_(both, both)], two)
            count += both.sum()
        reference.append(30 * total / count)
    result = rdm(data, method="crossnobis", folds="session", noise=noise)
    np.testing.assert_allclose(result.dissimilarity.values[0], reference, rtol=1e-9)


def test_poisson_over_the_common_units():
    data = holes()
    rates = (means_of(data) + 0.1) / 1.1
    reference = []
    for i, j in PAIRS:
        a, b, _ = common(rates, i, j)
        reference.append(30 * np.mean((a - b) * (np.log(a) - np.log(b))))
    np.testing.assert_allclose(rdm(data, method="poisson").dissimilarity.values[0], reference, rtol=1e-11)
    with pytest.raises(InputError, match="negative values for the stimuli 's0', 's1'"):
        rdm(data - 6, method="poisson")


@pytest.mark.parametrize(
    ("method", "noise"),
    [(m, "none") for m in ("correlation", "cosine", "euclidean", "sqeuclidean", "crossnobis", "poisson", "poisson_cv")]
    + [(m, s) for m in ("crossnobis", "mahalanobis") for s in ("diagonal", "shrinkage_eye", "shrinkage_diag")],
)
def test_one_missing_value_leaves_the_pairs_of_other_stimuli(method, noise, monkeypatch):
    """The code for missing values gives what the code for complete data gives; block by block, too."""
    data = holes(share=0, repetitions=6)[:, 1:]
    folds = {"folds": "repetition"} if method in ("crossnobis", "poisson_cv") else {}
    whole = squareform(rdm(data, method=method, noise=noise, **folds).dissimilarity.values[0], checks=False)
    pierced = data.copy()
    pierced[3, 0, 2] = np.nan
    if noise.startswith("shrinkage"):  # the covariance is that of complete observations
        pierced = data.copy()
        extra = data[3:4].assign_coords(stimulus=["extra"]) * np.nan
        extra[0, 0, :5] = 1.0
        pierced = xr.concat([data, extra], "stimulus")
    monkeypatch.setattr(products, "CACHE", 8 * 30 * 16)
    found = squareform(rdm(pierced, method=method, noise=noise, **folds).dissimilarity.values[0], checks=False)
    kept = [0, 1, 2, 4, 5]
    tolerance = 1e-2 if noise == "diagonal" else 1e-10  # one variance has a degree of freedom less
    np.testing.assert_allclose(found[np.ix_(kept, kept)], whole[np.ix_(kept, kept)], rtol=tolerance, atol=1e-12)


def test_no_common_units_and_constant_patterns_are_nan_and_counted():
    x = np.random.default_rng(0).normal(size=(4, 10))
    x[0, :5], x[1, 5:] = np.nan, np.nan
    x[2, 1:] = 3.1
    data = xr.DataArray(x, dims=("stimulus", "neuron"), coords={"stimulus": list("abcd")}, name="IT")
    square = squareform(rdm(data).dissimilarity.values[0], checks=False)
    assert np.isnan(square[0, 1])
    assert np.isnan(square[0, 2])  # over the neurons that both have, c is constant
    assert np.isfinite(square[1, 2])
    result = rdm(data, method="sqeuclidean")
    assert int(result.undefined_pairs[0]) == 1
    x[3] = np.where(np.isnan(x[3]), np.nan, 0.1)
    result = rdm(data.copy(data=x))
    assert int(result.constant_patterns[0]) == 2  # a has no pair left, either
    assert json.loads(result.attrs["constant_stimuli"]) == {"IT": ["a", "d"]}


def test_networks_refuse_nan_unless_told():
    data = holes()[:, 0].rename(neuron="unit")
    with pytest.raises(InputError, match=r"layer 'V4' holds NaN .* stimuli 's0', 's2', .*missing='mask'"):
        rdm(data)
    masked = rdm(data, missing="mask")
    np.testing.assert_array_equal(masked.dissimilarity, rdm(data.rename(unit="neuron")).dissimilarity)
    with pytest.raises(InputError, match="missing='mask'"):
        rdm(data.rename(unit="neuron"), missing="refuse")
    infinite = holes()
    infinite[4, 1, 1] = np.inf
    for method in ("correlation", "sqeuclidean", "mahalanobis", "poisson"):
        with pytest.raises(InputError, match="infinite values for the stimuli 's4'"):
            rdm(infinite, method=method)


def test_too_few_complete_observations_for_a_covariance():
    data = holes(share=0, repetitions=2)
    for s in range(6):
        data[s, :, s] = np.nan
    with pytest.raises(InputError, match="0 of 12 observations have a value in every unit"):
        rdm(data, method="mahalanobis", noise="shrinkage_eye")
    assert np.isfinite(rdm(data, method="mahalanobis", noise="diagonal").dissimilarity).all()
