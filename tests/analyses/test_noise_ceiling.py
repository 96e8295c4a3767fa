"""Noise ceilings: as defined for each measure, equal to rsatoolbox, and right on real data."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from actkit.analyses.comparison import ceilings, prepared, scores
from actkit.analyses.measures import MEASURES as MEASURES_OF_ALL
from actkit.analyses.noise_ceiling import noise_ceiling
from actkit.analyses.noise_ceiling_plot import alt_text, caption, plot
from actkit.errors import InputError
from actkit.recordings import rdm_dataset, to_rsatoolbox

MEASURES = ("spearman", "pearson", "cosine")  # those with a plain definition of two lines
REAL = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "kriegeskorte2008_92images"


def judges(n=10, k=6, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    pairs = n * (n - 1) // 2
    values = np.abs(rng.normal(size=pairs) + rng.normal(size=(k, pairs))) * rng.uniform(0.1, 9, size=(k, 1))
    values = np.round(values) if ties else values
    return rdm_dataset(
        values, [f"s{i}" for i in range(k)], "subject", [f"i{i}" for i in range(n)], "euclidean", "judges"
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("compare", MEASURES)
def test_ceilings_are_rsatoolboxs(compare, ties):
    from rsatoolbox.inference import boot_noise_ceiling

    data = judges(ties=ties)
    result = noise_ceiling(data, compare=compare)
    theirs = boot_noise_ceiling(to_rsatoolbox(data), method="corr" if compare == "pearson" else compare)
    np.testing.assert_allclose([result.ceiling_lower, result.ceiling_upper], theirs, rtol=0, atol=1e-10)
    assert float(result.ceiling_lower_subject.mean()) == pytest.approx(float(result.ceiling_lower))


@pytest.mark.parametrize("compare", MEASURES)
def test_ceilings_by_the_plain_definition(compare):
    """Ten lines: normalise, average, compare."""
    data = judges(seed=1).dissimilarity.values
    normalise = {
        "spearman": lambda x: stats.rankdata(x),
        "pearson": stats.zscore,
        "cosine": lambda x: x / np.linalg.norm(x),
    }[compare]
    similarity = {
        "spearman": lambda x, y: stats.spearmanr(x, y)[0],
        "pearson": lambda x, y: stats.pearsonr(x, y)[0],
        "cosine": lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y),
    }[compare]
    unit = np.array([normalise(x) for x in data])
    lower, upper = ceilings(data, compare)
    for s, x in enumerate(data):
        assert upper[s] == pytest.approx(similarity(unit.mean(axis=0), x), abs=1e-12)
        assert lower[s] == pytest.approx(similarity(np.delete(unit, s, axis=0).mean(axis=0), x), abs=1e-12)


@pytest.mark.parametrize("compare", MEASURES_OF_ALL)
def test_every_measure_has_ceilings(compare):
    """Lower below upper; the attribute says which are approximate."""
    result = noise_ceiling(judges(ties=True), compare=compare)
    assert (result.ceiling_lower_subject < result.ceiling_upper_subject).all()
    assert ("approximate" in result.attrs["ceiling_note"]) == compare.startswith("tau")
    assert ("approximate" in noise_ceiling(judges(k=2), compare=compare).attrs["ceiling_note"]) == compare.startswith(
        "tau"
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compare", ["rho-a", "tau-a"])
def test_ceilings_of_ranks_are_rsatoolboxs(compare):
    from rsatoolbox.inference import boot_noise_ceiling

    data = judges(ties=True, n=8)
    result = noise_ceiling(data, compare=compare)
    theirs = boot_noise_ceiling(to_rsatoolbox(data), method=compare)
    np.testing.assert_allclose([result.ceiling_lower, result.ceiling_upper], theirs, rtol=0, atol=1e-12)


def test_ceilings_over_time_are_those_of_each_bin(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=45) + rng.normal(size=(5, 3, 45))
    ids = [f"i{k}" for k in range(10)]
    data = rdm_dataset(
        values, [f"s{k}" for k in range(5)], "subject", ids, "x", "judges", time=[-50.0, 0.0, 50.0], time_units="ms"
    )
    result = noise_ceiling(data)
    assert result.ceiling_lower_subject.dims == ("subject", "time")
    for t in range(3):
        one = noise_ceiling(data.isel(time=t, drop=True))
        for name in ("ceiling_lower", "ceiling_upper", "ceiling_upper_subject"):
            np.testing.assert_allclose(result[name].isel(time=t), one[name], rtol=0, atol=1e-13)
    figure = plot(result)
    band = figure.axes[0]
    assert band.get_xlabel() == "Time (ms)"
    np.testing.assert_array_equal(band.lines[5].get_ydata(), result.ceiling_lower.values)
    assert "over time" in caption(result)
    assert "over time" in alt_text(result)
    with pytest.raises(InputError, match="single subject"):
        plot(noise_ceiling(data.isel(subject=[0])))


@pytest.mark.parametrize("compare", ["pearson", "cosine"])
def test_no_model_beats_the_upper_ceiling(compare):
    data = judges(seed=2).dissimilarity.values
    _, upper = ceilings(data, compare)
    rng = np.random.default_rng(0)
    near = prepared(data, compare).mean(axis=0) + rng.normal(0, 0.02, size=(300, data.shape[1]))
    raw_mean = data.mean(axis=0, keepdims=True)
    assert scores(np.concatenate([near, raw_mean, data]), data, compare).mean(axis=1).max() <= upper.mean() + 1e-12


def test_subjects_of_different_scale_count_alike():
    """The raw mean RDM follows the subject with the largest dissimilarities (it scores above a naive ceiling)."""
    data = judges(seed=3)
    scaled = data.copy(deep=True)
    scaled["dissimilarity"].values[0] *= 1000
    for compare in MEASURES:
        a, b = noise_ceiling(data, compare=compare), noise_ceiling(scaled, compare=compare)
        np.testing.assert_allclose([a.ceiling_lower, a.ceiling_upper], [b.ceiling_lower, b.ceiling_upper], rtol=1e-12)


def test_one_subject_has_no_ceiling():
    result = noise_ceiling(judges(k=1))
    assert np.isnan([result.ceiling_lower, result.ceiling_upper]).all()
    assert "single subject" in result.attrs["ceiling_note"]


def test_two_subjects_are_each_others_ceiling():
    data = judges(k=2)
    result = noise_ceiling(data, compare="pearson")
    assert float(result.ceiling_lower) == pytest.approx(np.corrcoef(data.dissimilarity.values)[0, 1])
    assert "two subjects" in result.attrs["ceiling_note"]


def test_rdms_along_another_dim_count_as_subjects():
    data = judges()
    sessions = data.rename(subject="rdm").assign_coords(subject=("rdm", list("aabbcc")))
    result = noise_ceiling(sessions)
    assert result.subject.values.tolist() == data.subject.values.tolist()
    assert float(result.ceiling_lower) == float(noise_ceiling(data).ceiling_lower)


def test_bad_data_are_named():
    data = judges()
    missing = data.copy(deep=True)
    missing["dissimilarity"].values[2, :4] = np.nan
    with pytest.raises(InputError, match=r"s2 \(4\)"):
        noise_ceiling(missing)
    flat = data.copy(deep=True)
    flat["dissimilarity"].values[3] = 0.1
    with pytest.raises(InputError, match="'s3' is constant"):
        noise_ceiling(flat)
    with pytest.raises(InputError, match="2 stimuli"):
        noise_ceiling(judges(n=2))
    with pytest.raises(InputError, match="kendall"):
        noise_ceiling(data, compare="kendall")


@pytest.mark.skipif(not REAL.is_dir(), reason="ACTKIT_DATA holds no kriegeskorte2008_92images")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("which", "lower", "upper"), [("judgements", 0.477, 0.577), ("human IT", 0.372, 0.666)])
def test_real_data(which, lower, upper):
    from rsatoolbox.inference import boot_noise_ceiling
    from scipy.io import loadmat

    if which == "judgements":
        rdms = np.stack([one["RDM"] for one in loadmat(REAL / "92_behavRDMs.mat")["rdms_behav_92"][0]])
    else:
        cells = loadmat(REAL / "92_brainRDMs.mat")["RDMs"][0]
        rdms = np.stack([[one["RDM"] for one in row] for row in cells]).astype(np.float64).mean(axis=1)
    data = rdm_dataset(rdms, np.arange(len(rdms)), "subject", np.arange(92), "unknown", which)
    result = noise_ceiling(data, compare="spearman")
    np.testing.assert_allclose([result.ceiling_lower, result.ceiling_upper], [lower, upper], atol=5e-4)
    np.testing.assert_allclose(
        [result.ceiling_lower, result.ceiling_upper],
        boot_noise_ceiling(to_rsatoolbox(data), method="spearman"),
        atol=1e-10,
    )
