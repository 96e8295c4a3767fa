"""Reliability within a subject: the right formula in the stated order, and a bound that a noise-free model meets."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from actkit.analyses.measures import MEASURES
from actkit.analyses.noise_ceiling import noise_ceiling
from actkit.analyses.noise_ceiling_plot import alt_text, caption, plot
from actkit.analyses.rdm import rdm
from actkit.analyses.reliability import reliability, spearman_brown
from actkit.errors import InputError
from actkit.recordings import n_pairs, rdm_dataset, to_vectors
from actkit.results import load, save

REAL = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "kriegeskorte2008_92images"


def sessions(m=4, n=12, noise=1.0, seed=0, subjects=1):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(subjects, 1, n_pairs(n)))
    values = truth + noise * rng.normal(size=(subjects, m, n_pairs(n)))
    names = [f"s{s}/{k}" for s in range(subjects) for k in range(m)]
    owner = [f"s{s}" for s in range(subjects) for _ in range(m)]
    ids = [f"i{k}" for k in range(n)]
    data = rdm_dataset(
        values.reshape(-1, n_pairs(n)), names, "rdm", ids, "x", "sessions", coords={"subject": ("rdm", owner)}
    )
    return data, truth[:, 0]


def recording(n=20, m=6, neurons=30, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 1, neurons))
    values = truth + noise * rng.normal(size=(n, m, neurons))
    array = xr.DataArray(
        values,
        dims=("stimulus", "repetition", "neuron"),
        coords={"stimulus": [f"i{k}" for k in range(n)]},
        name="cells",
    )
    return array, truth[:, 0]


def test_spearman_brown():
    assert spearman_brown(np.array(0.5), 2) == pytest.approx(2 / 3)
    assert spearman_brown(np.array(0.3), 3) == pytest.approx(0.9 / 1.6)
    # The plain formula has a pole at -1: -0.9 would become -18.
    assert spearman_brown(np.array(-0.9), 2) == pytest.approx(-1.8 / 1.9)
    r = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(spearman_brown(-r, 2.5), -spearman_brown(r, 2.5))
    assert np.abs(spearman_brown(r, 2)).max() == 1.0


def test_all_splits_of_four_sessions_by_hand():
    """Ten lines: z-score, average two against two, correlate, Spearman-Brown per split, mean."""
    data, _ = sessions()
    z = stats.zscore(data.dissimilarity.values, axis=1)
    r = []
    for a, b in (([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])):
        r.append(np.corrcoef(z[a].mean(axis=0), z[b].mean(axis=0))[0, 1])
    r = np.array(r)
    result = reliability(data, compare="pearson")
    np.testing.assert_allclose(result.split_half.values[0], r, rtol=0, atol=1e-12)
    assert float(result.split_half_mean[0]) == pytest.approx(r.mean(), abs=1e-12)
    assert float(result.reliability[0]) == pytest.approx(np.mean(2 * r / (1 + r)), abs=1e-12)
    assert float(result.bound[0]) == pytest.approx(np.sqrt(np.mean(2 * r / (1 + r))), abs=1e-12)
    assert "every split, then the mean" in result.attrs["ceiling_note"]


def test_the_order_matters_and_is_the_stated_one():
    data, _ = sessions(noise=4.0, m=6)
    result = reliability(data, compare="pearson")
    r = result.split_half.values[0]
    mean_first = spearman_brown(r.mean(), 2)
    assert float(result.reliability[0]) == pytest.approx(spearman_brown(r, 2).mean(), abs=1e-14)
    assert abs(float(result.reliability[0]) - mean_first) > 1e-3


@pytest.mark.parametrize(
    ("m", "n_splits", "expected"), [(2, 200, 1), (3, 200, 3), (5, 200, 15), (6, 200, 10), (6, 7, 7)]
)
def test_all_halves_or_as_many_as_asked(m, n_splits, expected):
    result = reliability(sessions(m=m)[0], compare="pearson", n_splits=n_splits)
    assert int(result.n_splits[0]) == expected
    assert len(set(result.split_half.values[0].round(12).tolist())) == expected


@pytest.mark.parametrize("compare", MEASURES)
def test_every_measure(compare):
    data, _ = sessions(m=2, n=7, noise=0.5)
    result = reliability(data, compare=compare)
    assert 0.3 < float(result.split_half[0, 0]) < float(result.reliability[0]) < float(result.bound[0]) < 1


def test_the_bound_is_what_a_noise_free_model_scores():
    """Simulated truth: over many sessions' worth of noise, √ρ is the true model's score with the mean RDM."""
    bounds, models = [], []
    for seed in range(100):
        data, truth = sessions(m=5, n=12, noise=1.5, seed=seed)
        bounds.append(float(reliability(data, compare="pearson", n_splits=15).bound[0]))
        z = stats.zscore(data.dissimilarity.values, axis=1).mean(axis=0)
        models.append(np.corrcoef(z, truth[0])[0, 1])
    assert np.mean(models) == pytest.approx(1 / np.sqrt(1 + 1.5**2 / 5), abs=0.01)
    assert np.mean(bounds) == pytest.approx(np.mean(models), abs=0.02)


def test_noise_has_no_reliability_and_no_bound():
    rho = [
        float(reliability(sessions(noise=1e6, m=2, n=6, seed=s)[0], compare="pearson").reliability[0])
        for s in range(120)
    ]
    assert abs(np.mean(rho)) < 4 * np.std(rho) / np.sqrt(120)  # plain Spearman-Brown would fall far below 0
    worst = int(np.argmin(rho))
    result = reliability(sessions(noise=1e6, m=2, n=6, seed=worst)[0], compare="pearson")
    assert float(result.bound[0]) == 0.0
    assert int(result.n_negative[0]) == 1
    assert float(result.reliability[0]) < 0


def test_subjects_are_estimated_by_themselves():
    data, _ = sessions(subjects=3)
    together = reliability(data)
    for s in range(3):
        alone = reliability(data.isel(rdm=slice(4 * s, 4 * s + 4)))
        np.testing.assert_array_equal(together.split_half.values[s], alone.split_half.values[0])
    assert together.subject.values.tolist() == ["s0", "s1", "s2"]
    uneven = reliability(data.isel(rdm=[0, 1, 4, 5, 6, 7]))
    assert uneven.n_splits.values.tolist() == [1, 3]
    assert np.isnan(uneven.split_half.values[0, 1:]).all()


def test_recordings_by_hand():
    """Two repetitions have one pair of halves, whatever the seed."""
    cells, _ = recording(m=2)
    result = reliability(cells, compare="spearman", n_splits=5, method="correlation")
    halves = [to_vectors(1 - np.corrcoef(cells.values[:, k]), 20)[0] for k in range(2)]
    np.testing.assert_allclose(result.split_half.values[0], stats.spearmanr(*halves)[0], rtol=0, atol=1e-12)
    assert result.n_repetitions.values.tolist() == [2]


def test_recordings_bound_a_noise_free_model():
    """Not above what the true RDM scores by more than a little, and near it: see the docstring for why it is below."""
    bounds, models = [], []
    for seed in range(20):
        cells, truth = recording(seed=seed, noise=1.5)
        bounds.append(float(reliability(cells, method="sqeuclidean", compare="pearson", n_splits=20).bound[0]))
        true, seen = (rdm(x, method="sqeuclidean").dissimilarity.values[0] for x in (truth, cells.values.mean(axis=1)))
        models.append(np.corrcoef(true, seen)[0, 1])
    assert np.mean(models) - 0.06 < np.mean(bounds) < np.mean(models) + 0.01


def test_missing_repetitions_and_odd_numbers():
    cells, _ = recording(m=7)
    cells.values[3, 5:] = np.nan
    cells.values[8, 2, :] = np.nan
    result = reliability(cells, n_splits=10)
    assert int(result.n_repetitions[0]) == 5
    assert np.isfinite(result.split_half).all()
    full, _ = recording(m=7)
    odd = reliability(full, n_splits=10)
    np.testing.assert_allclose(odd.reliability[0], spearman_brown(odd.split_half.values[0], 7 / 3).mean(), rtol=1e-12)


def test_time_and_subjects():
    cells, _ = recording(m=4)
    moving = xr.concat([cells, cells * np.nan_to_num(1.0)], "time").assign_coords(time=[0.0, 1.0])
    by_bin = reliability(moving.transpose("time", ...), n_splits=8)
    alone = reliability(cells, n_splits=8)
    assert by_bin.reliability.dims == ("subject", "time")
    np.testing.assert_allclose(by_bin.reliability.values[0], alone.reliability.values[0], rtol=1e-12)
    two = reliability({"a": cells, "b": recording(neurons=9, seed=1)[0]}, n_splits=8)
    assert two.subject.values.tolist() == ["a", "b"]
    np.testing.assert_allclose(two.split_half.values[0, :3], alone.split_half.values[0], rtol=1e-12)


def test_the_same_seed_gives_the_same_splits():
    padded, _ = recording(m=9)
    padded.values[0, 8] = np.nan
    for cells in (recording(m=9)[0], recording(m=20)[0], padded):
        a, b = (reliability(cells, n_splits=k, seed=4) for k in (5, 40))
        np.testing.assert_allclose(a.split_half.values[0], b.split_half.values[0, :5], rtol=0, atol=1e-13)
        other = reliability(cells, n_splits=5, seed=5)
        assert (a.split_half.values != other.split_half.values).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sessions(m=1)[0], "single RDM"),
        (lambda: sessions(n=2)[0], "2 stimuli"),
        (lambda: sessions()[0].drop_vars("subject").rename(rdm="subject"), "run along subject"),
        (lambda: sessions()[0].where(sessions()[0].rdm != "s0/1"), "missing in 's0/1'"),
        (lambda: recording(m=1)[0], "fewer than two repetitions of 'i0'"),
        (lambda: recording()[0].isel(repetition=0), "lacks repetition"),
        (lambda: recording(n=2)[0], "2 stimuli"),
        (lambda: np.ones((3, 4)), "ndarray"),
        (lambda: {"a": recording()[0], "b": recording()[0].expand_dims("time")}, "another time axis"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        reliability(make())


def test_a_ceiling_within_subjects(tmp_path):
    data, _ = sessions(subjects=2)
    result = noise_ceiling(data, within="repetition", compare="pearson")
    np.testing.assert_array_equal(result.bound, reliability(data, compare="pearson").bound)
    assert result.attrs["analysis"] == "noise_ceiling"
    assert '"within":"repetition"' in result.attrs["options"]
    xr.testing.assert_identical(load(save(result, tmp_path / "r.nc")), result)
    with pytest.raises(InputError, match="between subjects"):
        noise_ceiling(recording()[0])


@pytest.mark.parametrize("time", [False, True])
def test_figures_and_captions(time):
    cells, _ = recording(m=4)
    moving = xr.concat([cells] * 3, "time").assign_coords(time=("time", [-50, 0, 50], {"units": "ms"}))
    result = reliability(moving if time else cells, n_splits=12)
    figure = plot(result)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "Spearman ρ"
    if time:
        assert axes.get_xlabel() == "Time (ms)"
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), result.bound.values[0])
    else:
        assert len(axes.lines[0].get_ydata()) == 3  # all there are of four
    assert "√ρ" in caption(result)
    assert "at most 3 splits" in caption(result)
    assert "split-half" in alt_text(result)


@pytest.mark.skipif(not REAL.is_dir(), reason="ACTKIT_DATA holds no kriegeskorte2008_92images")
def test_human_it_sessions():
    """Spearman between the two sessions of each subject, as the data set's README has them."""
    from scipy.io import loadmat

    cells = loadmat(REAL / "92_brainRDMs.mat")["RDMs"][0]
    rdms = np.stack([one["RDM"] for row in cells for one in row]).astype(np.float64)
    owner = np.repeat(["BE", "KO", "SN", "TI"], 2)
    data = rdm_dataset(
        rdms, np.arange(8), "rdm", np.arange(92), "correlation", "IT", coords={"subject": ("rdm", owner)}
    )
    result = noise_ceiling(data, within="repetition")
    np.testing.assert_allclose(result.split_half_mean, [0.28, 0.10, 0.38, 0.12], atol=0.005)
    r = result.split_half.values[:, 0]
    np.testing.assert_allclose(result.bound, np.sqrt(2 * r / (1 + r)), rtol=1e-12)
