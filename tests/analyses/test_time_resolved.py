"""RDMs and RSA over time: right values, calibrated maximum-statistic tests, real spike trains."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text
from scipy import stats

from actkit.analyses.comparison import ceilings, permuted_scores, prepared, scores
from actkit.analyses.measures import MEASURES
from actkit.analyses.noise_ceiling import noise_ceiling
from actkit.analyses.rdm import rdm
from actkit.analyses.time_bins import alt_text, average_repetitions, bin_time, caption
from actkit.analyses.time_bins import plot as plot_movie
from actkit.analyses.time_resolved import rsa_over_time, stretches, time_rdms
from actkit.analyses.time_tests import _Permuted, flip_test, label_test, sign_flips
from actkit.errors import InputError
from actkit.recordings import category_rdms, n_pairs, rdm_dataset, select_stimuli
from actkit.resampling import permutations

REAL = Path(os.environ.get("ACTKIT_DATA", "nowhere")) / "zhang_desimone_it_7objects"


def recording(n=8, neurons=12, times=20, seed=0, **dims):
    rng = np.random.default_rng(seed)
    names = ["stimulus", *dims, "neuron", "time"]
    values = rng.normal(size=(n, *dims.values(), neurons, times))
    return xr.DataArray(
        values,
        dims=names,
        coords={"stimulus": [f"i{k}" for k in range(n)], "time": ("time", np.arange(times) * 10.0, {"units": "ms"})},
        name="cells",
    )


def movies(n=8, subjects=6, times=5, seed=0, signal=0.0):
    """Subjects' RDMs over time, and two model RDMs; the first one drives the bins 2 and 3."""
    rng = np.random.default_rng(seed)
    ids = [f"i{k}" for k in range(n)]
    models = rng.normal(size=(2, n_pairs(n)))
    values = rng.normal(size=(subjects, times, n_pairs(n)))
    values[:, 2:4] += signal * models[0]
    data = rdm_dataset(
        values, [f"s{k}" for k in range(subjects)], "subject", ids, "x", "data", time=np.arange(times), time_units="s"
    )
    return rdm_dataset(models, ["true", "other"], "model", ids, "x", "models"), data


# --------------------------------------------------------------------------------------------------------------------
# RDMs in time bins


@pytest.mark.parametrize("method", ["correlation", "cosine", "euclidean", "sqeuclidean"])
def test_every_bin_is_an_rdm_of_its_own(method):
    cells = recording(subject=3)
    result = time_rdms(cells, method=method)
    assert result.dissimilarity.dims == ("subject", "time", "pair")
    assert result.time.attrs["units"] == "ms"
    for s in range(3):
        for t in (0, 7, 19):
            plain = rdm(cells.isel(subject=s, time=t), method=method).dissimilarity.values[0]
            np.testing.assert_allclose(result.dissimilarity.values[s, t], plain, rtol=0, atol=1e-12)


def test_windows_average_whole_samples():
    cells = recording()
    binned = bin_time(cells, 50, 20)
    assert binned.time.values.tolist() == [20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0]
    np.testing.assert_allclose(binned.values[..., 1], cells.values[..., 2:7].mean(axis=-1), rtol=1e-12)
    np.testing.assert_array_equal(time_rdms(cells, window=50, step=20).time, binned.time)
    # 0.1 has no exact binary form: no sample may fall between two windows or into both.
    fine = cells.assign_coords(time=0.1 * np.arange(20))
    thirds = bin_time(fine, 0.3)
    np.testing.assert_allclose(thirds.values, cells.values[..., :18].reshape(8, 12, 6, 3).mean(axis=-1), rtol=1e-12)


def test_repetitions_are_averaged_without_the_missing_ones():
    cells = recording(repetition=3)
    cells.values[0, 2] = np.nan
    expected = cells.mean("repetition", skipna=True)
    np.testing.assert_allclose(average_repetitions(cells).values, expected.values, rtol=1e-12)
    np.testing.assert_allclose(time_rdms(cells).dissimilarity, time_rdms(expected).dissimilarity, atol=1e-12)


def test_subjects_may_have_other_neurons_and_another_order():
    a, b = recording(seed=1), recording(neurons=5, seed=2)
    both = time_rdms({"a": a, "b": b.isel(stimulus=slice(None, None, -1))})
    assert both.n_units.values.tolist() == [12, 5]
    np.testing.assert_allclose(both.dissimilarity.values[1], time_rdms(b).dissimilarity.values[0], atol=1e-12)
    padded = xr.concat([a, b.pad(neuron=(0, 7))], "subject").transpose("stimulus", "subject", "neuron", "time")
    np.testing.assert_allclose(time_rdms(padded).dissimilarity.values, both.dissimilarity.values, atol=1e-12)


def test_a_movie_is_drawn_as_panels():
    movie = time_rdms(recording(subject=2))
    figure = plot_movie(movie, most=3)
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {"0 ms", "100 ms", "190 ms"} <= words
    assert "10 ms" not in words
    assert "Mean over 2 subjects; 3 of 20 time bins" in caption(movie, most=3)
    assert "from 0 to 190 ms" in alt_text(movie)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.isel(time=0), "lacks time"),
        (lambda r: r.drop_vars("time"), "no coordinate 'time'"),
        (lambda r: r.isel(time=slice(None, None, -1)), "increasing"),
        (lambda r: r * np.nan, "no values at all"),
        (lambda r: r.values, "ndarray is no recording"),
        (lambda r: {"a": r, "b": r.isel(time=slice(3))}, "other time bins"),
        (lambda r: {"a": r, "b": r.isel(stimulus=slice(3))}, "lack"),
    ],
)
def test_bad_recordings_are_named(change, message):
    with pytest.raises(InputError, match=message):
        time_rdms(change(recording()))


def test_a_silent_bin_has_no_rdm_and_is_named():
    cells = recording(subject=2)
    cells.values[:, 1, :, 3] = 0.0
    result = time_rdms(cells)
    assert np.isnan(result.dissimilarity.values[1, 3]).all()
    assert np.argwhere(result.constant_patterns.values).tolist() == [[1, 3]]
    models = rdm_dataset(np.random.default_rng(0).random((1, 28)), ["m"], "model", result.stimulus, "x", "models")
    with pytest.raises(InputError, match=r"missing in 1 \(28\) \(first at time 30; choose other bins or wider windows"):
        rsa_over_time(models, result)


def test_cross_validated_distances_in_every_bin():
    cells = recording(n=5, times=3, repetition=4)
    settings = {"method": "crossnobis", "folds": "repetition", "noise": "none"}
    cells = cells.assign_coords(repetition=np.arange(4))
    result = time_rdms(cells, **settings)
    for t in range(3):
        plain = rdm(cells.isel(time=t), **settings).dissimilarity.values[0]
        np.testing.assert_allclose(result.dissimilarity.values[0, t], plain, rtol=1e-12)
    assert (result.dissimilarity.values < 0).any()  # never clipped
    models = rdm_dataset(np.random.default_rng(0).random((1, 10)), ["m"], "model", result.stimulus, "x", "models")
    found = rsa_over_time(models, result, compare="cosine", generalise_to="stimulus", n_draws=20, n_permutations=20)
    assert np.isfinite(found.score).all()


def test_bad_windows_are_named():
    with pytest.raises(InputError, match="no window of 500"):
        time_rdms(recording(), window=500)
    with pytest.raises(InputError, match="needs a window"):
        time_rdms(recording(), step=5)
    with pytest.raises(InputError, match="window"):
        time_rdms(recording(), window=-5)


# --------------------------------------------------------------------------------------------------------------------
# scores


@pytest.mark.parametrize("compare", MEASURES)
def test_scores_and_ceilings_are_those_of_each_bin(compare):
    models, data = movies(n=6)
    result = rsa_over_time(models, data, compare=compare, n_permutations=20, n_flips=64)
    for t in range(5):
        observed = data.dissimilarity.values[:, t]
        expected = scores(models.dissimilarity.values, observed, compare)
        np.testing.assert_allclose(result.score.values[..., t], expected, rtol=0, atol=1e-12)
        lower, upper = ceilings(observed, compare)
        np.testing.assert_allclose(result.ceiling_lower.values[t], lower.mean(), atol=1e-12)
        np.testing.assert_allclose(result.ceiling_upper_subject.values[:, t], upper, atol=1e-12)
    np.testing.assert_allclose(noise_ceiling(data, compare=compare).ceiling_lower, result.ceiling_lower, atol=1e-12)
    np.testing.assert_allclose(result.error.values, stats.sem(result.score.values, axis=1), atol=1e-12)
    assert ("approximate" in result.attrs["ceiling_note"]) == compare.startswith("tau")


@pytest.mark.parametrize("compare", MEASURES)
def test_permuted_scores_are_those_of_each_bin(compare):
    """The side with fewer RDMs is permuted; whichever it is, and for models that change with time, scores are equal."""
    rng = np.random.default_rng(0)
    models, data = rng.random((3, 1, 36)), np.round(rng.random((4, 5, 36)), 1)  # ties
    orders = np.array([rng.permutation(9) for _ in range(6)])
    plain = np.stack([permuted_scores(models[:, 0], data[:, t], orders, compare) for t in range(5)], axis=1)
    for stacked in (models, np.repeat(models, 5, axis=1), np.concatenate([models] * 3)):
        found = _Permuted(stacked, data, compare).scores(orders)[:3]
        np.testing.assert_allclose(found, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["stimulus", "both"])
def test_errors_are_those_of_rsa_in_each_bin(target):
    from actkit.analyses.comparison import resampled_scores
    from actkit.resampling import Stream, bootstrap_weights
    from actkit.statistics import two_factor_variance

    models, data = movies(signal=1.0)
    settings = {"n_draws": 60, "n_permutations": 0, "n_flips": 0, "compare": "pearson", "seed": 3}
    result = rsa_over_time(models, data, generalise_to=target, **settings)
    stimuli, people = bootstrap_weights(8, 60, 3), bootstrap_weights(6, 60, 3, stream=Stream.SUBJECTS)
    for t in range(5):
        observed = data.dissimilarity.values[:, t]
        drawn = resampled_scores(models.dissimilarity.values, observed, stimuli, "pearson")
        one, two = drawn.mean(axis=2), np.einsum("dks,ds->dk", drawn, people / 6)
        three = np.einsum("ks,ds->dk", scores(models.dissimilarity.values, observed, "pearson"), people / 6)
        by_stimulus, both, by_subject = (np.nanvar(x, axis=0, ddof=1) for x in (one, two, three))
        expected = by_stimulus * 8 / 7
        if target == "both":
            expected = two_factor_variance(both, by_subject, by_stimulus, 6, 8)
        np.testing.assert_allclose(result.error.values[:, t], np.sqrt(expected), rtol=1e-9)


def test_models_may_change_with_time():
    _, data = movies()
    rng = np.random.default_rng(5)
    values = rng.random((2, 5, n_pairs(8)))
    moving = rdm_dataset(values, ["a", "b"], "layer", data.stimulus, "x", "net", time=data.time)
    result = rsa_over_time(moving, data, n_permutations=50, generalise_to="both", n_draws=20, compare="pearson")
    for t in range(5):
        here = rdm_dataset(values[:, t], ["a", "b"], "layer", data.stimulus, "x", "net")
        bin_ = data.isel(time=[t])
        one = rsa_over_time(here, bin_, n_permutations=50, generalise_to="both", n_draws=20, compare="pearson")
        for name in ("score", "error", "p_flip_uncorrected", "p_permutation_uncorrected"):
            np.testing.assert_allclose(result[name].isel(time=t), one[name].isel(time=0), rtol=1e-10, atol=1e-12)
    with pytest.raises(InputError, match="other time bins"):
        rsa_over_time(moving.isel(time=slice(3)), data)


def test_stimuli_are_matched_by_id_and_families_kept():
    models, data = movies(signal=2.0)
    order = np.random.default_rng(1).permutation(8)
    families = models.assign_coords(family=("model", ["one", "two"]), network=("model", ["net", "net"]))
    settings = {"n_permutations": 200, "n_flips": 64}
    a = rsa_over_time(families, data, **settings)
    b = rsa_over_time(select_stimuli(families, families.stimulus.values[order]), data, **settings)
    xr.testing.assert_allclose(a.drop_attrs(), b.drop_attrs(), rtol=1e-10)
    assert a.network.values.tolist() == ["net", "net"]
    alone = rsa_over_time(models.sel(model=["true"]), data, **settings)
    np.testing.assert_array_equal(a.p_flip.values[0], alone.p_flip.values[0])  # the other model is another family
    together = rsa_over_time(models, data, **settings)
    assert (together.p_flip.values >= a.p_flip.values).all()


def test_which_test_leads():
    models, data = movies(signal=1.0)
    settings = {"n_draws": 20, "n_permutations": 100, "n_flips": 64}
    by = {
        target: rsa_over_time(models, data, generalise_to=target, **settings)
        for target in ("subject", "stimulus", "both")
    }
    np.testing.assert_array_equal(by["subject"].p_value, by["subject"].p_flip)
    np.testing.assert_array_equal(by["stimulus"].p_value, by["stimulus"].p_permutation)
    np.testing.assert_array_equal(by["both"].p_value, np.maximum(by["both"].p_flip, by["both"].p_permutation))
    assert "population of subjects" in by["subject"].attrs["test_flip"]
    assert "exchangeable" in by["subject"].attrs["test_permutation"]
    assert "all 64 sign combinations" in by["subject"].attrs["test_flip"]
    alone = rsa_over_time(models, data.isel(subject=[0]), generalise_to="stimulus", **settings)
    assert np.isnan(alone.p_flip).all()
    assert np.isfinite(alone.p_permutation).all()
    assert "single subject" in alone.attrs["test_flip"]


@pytest.mark.parametrize("compare", ["cosine", "whitened-cosine"])
def test_cosines_are_tested_against_zero_only_where_zero_is_the_null(compare):
    """The cosine of unrelated non-negative RDMs is far above 0 in every subject: flips would always be significant."""
    models, data = movies()
    positive = data.assign(dissimilarity=abs(data.dissimilarity))
    result = rsa_over_time(abs(models), positive, compare=compare, n_flips=64, n_permutations=50)
    if compare == "cosine":
        assert result.score.min() > 0.3
    assert np.isnan(result.p_flip).all()
    assert "crossnobis" in result.attrs["test_flip"]
    assert np.isfinite(result.p_permutation).all()
    signed = rsa_over_time(models, data, compare=compare, n_flips=64, n_permutations=50)
    assert np.isfinite(signed.p_flip).all()


def test_bad_data_are_named():
    models, data = movies()
    with pytest.raises(InputError, match="no time bins"):
        rsa_over_time(models, data.isel(time=0))
    gone = data.copy(deep=True)
    gone["dissimilarity"].values[2, 3, :4] = np.nan
    with pytest.raises(InputError, match=r"s2 \(4\).*time 3"):
        rsa_over_time(models, gone)
    flat = data.copy(deep=True)
    flat["dissimilarity"].values[1, :2] = 0.5
    with pytest.raises(InputError, match=r"'s1' is constant at 2 time bins \(first at 0\)"):
        rsa_over_time(models, flat)
    with pytest.raises(InputError, match="from 1 subject"):
        rsa_over_time(models, data.isel(subject=[0]))
    with pytest.raises(InputError, match="n_draws=1"):
        rsa_over_time(models, data, generalise_to="both", n_draws=1)


# --------------------------------------------------------------------------------------------------------------------
# tests: exact, calibrated, with power


def test_sign_flips_are_all_or_seeded():
    signs, exact = sign_flips(4, 16, 0)
    assert exact
    assert len({tuple(row) for row in signs}) == 16
    assert signs[0].tolist() == [1, 1, 1, 1]
    signs, exact = sign_flips(12, 300, 7)
    assert not exact
    assert signs[0].tolist() == [1] * 12
    assert abs(signs[1:].mean()) < 4 / np.sqrt(299 * 12)
    np.testing.assert_array_equal(signs[:50], sign_flips(12, 50, 7)[0])


def test_the_flip_test_is_scipys_one_sample_permutation_test():
    """Uncorrected: scipy with t and all 2**7 sign flips. Corrected: the maximum of t, counted by hand."""
    x = np.random.default_rng(0).normal(0.3, 1, size=(2, 7, 3))
    corrected, alone, count = flip_test(x, np.array(["a", "a"]), 128, 0)
    assert count == 128

    def t(values, axis):
        return stats.ttest_1samp(values, 0, axis=axis).statistic

    for k in range(2):
        theirs = stats.permutation_test(
            (x[k],), t, permutation_type="samples", alternative="greater", n_resamples=np.inf, axis=0
        )
        np.testing.assert_allclose(alone[k], theirs.pvalue, rtol=0, atol=1e-12)
    signs, _ = sign_flips(7, 128, 0)
    largest = np.array([t(x * row[None, :, None], 1).max() for row in signs])
    np.testing.assert_allclose(corrected, (largest[:, None, None] >= t(x, 1) - 1e-9).mean(axis=0), atol=1e-12)


def test_label_permutations_by_the_plain_definition():
    models, data = movies(n=7, subjects=3, times=4, signal=0.4)
    m, d = models.dissimilarity.values, data.dissimilarity.values
    mean = np.stack([scores(m, d[:, t], "spearman").mean(axis=1) for t in range(4)], axis=1)
    corrected, alone = label_test(m[:, None], d, mean, np.array(["a", "a"]), 60, 5, "spearman")
    row, column = np.triu_indices(7, 1)
    null = []
    for order in permutations(7, 60, 5):
        square = np.zeros((3, 4, 7, 7))
        square[..., row, column] = square[..., column, row] = d
        shuffled = square[..., order[row], order[column]]
        null.append(
            [[np.mean([stats.spearmanr(m[k], s)[0] for s in shuffled[:, t]]) for t in range(4)] for k in (0, 1)]
        )
    null = np.array(null)
    np.testing.assert_allclose(alone, (null >= mean - 1e-10).mean(axis=0))
    np.testing.assert_allclose(corrected, (null.max(axis=(1, 2))[:, None, None] >= mean - 1e-10).mean(axis=0))


def null_movies(rng, n, subjects, times, shared):
    """RDM movies without any relation to the models: patterns drift over time; subjects may share a geometry."""
    noise = rng.normal(size=(subjects, times, n, 12))
    for t in range(1, times):
        noise[:, t] = 0.8 * noise[:, t - 1] + 0.6 * noise[:, t]
    noise = noise + shared * rng.normal(size=(1, 1, n, 12))
    noise -= noise.mean(axis=-1, keepdims=True)
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    row, column = np.triu_indices(n, 1)
    return 1 - np.einsum("stip,stjp->stij", noise, noise)[..., row, column]


def bound(n_sets, level=0.05):
    """Most false positives that a test of that level gives with a chance of 99.9 %."""
    return stats.binom.ppf(0.999, n_sets, level)


def test_sign_flips_keep_the_family_wise_rate():
    """Null: subjects' score is 0 in the population, for fixed models and stimuli.

    1000 data sets of 10 subjects × 10 stimuli × 8 correlated bins, 3 models. With random data every correction must
    hold; without it the chance of any false positive is several times the level.
    """
    rng = np.random.default_rng(1)
    models = rng.random((3, n_pairs(10)))
    data = null_movies(rng, 10, 10 * 1000, 8, 0.0)
    flat = prepared(models, "pearson") @ prepared(data.reshape(-1, n_pairs(10)), "pearson").T
    flat = flat.reshape(3, 1000, 10, 8)
    family = np.array(["models"] * 3)
    smallest = np.array([[p.min() for p in flip_test(flat[:, d], family, 200, d)[:2]] for d in range(1000)])
    corrected, alone = (smallest <= 0.05).sum(axis=0)
    assert corrected <= bound(1000)
    assert corrected >= 1000 * 0.025  # it is no empty promise
    assert alone > 250


def test_label_permutations_keep_the_family_wise_rate():
    """Null: exchangeable stimuli, although the subjects agree on a geometry, the models not being it."""
    rng = np.random.default_rng(2)
    n_sets = 400
    smallest, flips = np.empty((n_sets, 2)), np.empty(n_sets)
    family = np.array(["models"] * 3)
    for k in range(n_sets):
        models, data = rng.random((3, 1, n_pairs(10))), null_movies(rng, 10, 6, 6, 1.5)
        score = np.stack([scores(models[:, 0], data[:, t], "pearson") for t in range(6)], axis=2)
        found = label_test(models, data, score.mean(axis=1), family, 100, k, "pearson")
        smallest[k] = [p.min() for p in found]
        flips[k] = flip_test(score, family, 64, k)[0].min()
    corrected, alone = (smallest <= 0.05).sum(axis=0)
    assert corrected <= bound(n_sets)
    assert corrected >= n_sets * 0.02
    assert alone > 0.1 * n_sets
    # The same data are not null for new subjects: for these stimuli, models and shared geometry do correlate by chance.
    assert (flips <= 0.05).mean() > 0.3


def test_a_planted_effect_is_found_where_it_is():
    """Power, and strong control: bins and models without an effect stay at the level although others have one."""
    hits, false = [], []
    for seed in range(60):
        models, data = movies(n=10, subjects=12, times=6, seed=seed, signal=0.35)
        result = rsa_over_time(models, data, compare="pearson", n_flips=300, n_permutations=300, seed=seed)
        for name in ("p_flip", "p_permutation"):
            significant = result[name].values <= 0.05
            hits.append(significant[0, 2:4].all())
            false.append(significant[0, [0, 1, 4, 5]].any() or (name == "p_permutation" and significant[1].any()))
    assert np.mean(hits) > 0.9
    assert np.sum(false) <= bound(120)


def test_stretches():
    models, data = movies(n=12, subjects=10, signal=2.0)
    result = rsa_over_time(models, data, generalise_to="stimulus", n_draws=10, n_permutations=200)
    assert stretches(result) == {"true": [(2.0, 3.0)], "other": []}
    assert float(result.peak_time.sel(model="true")) in (2.0, 3.0)
    result["p_value"].values[1] = [0.01, 0.9, 0.01, 0.01, np.nan]
    assert stretches(result)["other"] == [(0.0, 0.0), (2.0, 3.0)]


# --------------------------------------------------------------------------------------------------------------------
# real spike trains


@pytest.fixture(scope="module")
def spikes():
    """21 stimuli (7 objects × 3 positions) × 20 repetitions × 132 neurons × 1000 ms, averaged in bins of 100 ms."""
    from scipy.io import loadmat

    if not REAL.is_dir():
        pytest.skip("ACTKIT_DATA holds no zhang_desimone_it_7objects")
    parts = []
    with zipfile.ZipFile(REAL / "rasters_132_units.zip") as archive:
        for name in sorted(entry for entry in archive.namelist() if entry.endswith(".mat")):
            content = loadmat(io.BytesIO(archive.read(name)))
            labels = content["raster_labels"][0, 0]
            words = [[str(np.ravel(v)[0]) for v in np.ravel(labels[k])] for k in ("stimulus_ID", "stimulus_position")]
            keys = np.array(["/".join(pair) for pair in zip(*words, strict=True)])
            binned = content["raster_data"].reshape(-1, 10, 100).mean(axis=2)
            part = np.full((21, 20, 10), np.nan)
            for k, key in enumerate(ids := np.unique(keys)):
                rows = binned[keys == key]
                part[k, : len(rows)] = rows
            parts.append(part)
    return xr.DataArray(
        np.stack(parts, axis=2),
        dims=("stimulus", "repetition", "neuron", "time"),
        coords={"stimulus": ids, "time": ("time", np.arange(-450.0, 550, 100), {"units": "ms"})},
        name="IT",
    )


def test_objects_appear_in_it_after_the_stimulus(spikes):
    ids = spikes.stimulus.values
    parts = [key.split("/") for key in ids]
    models = category_rdms({"object": [a for a, _ in parts], "position": [b for _, b in parts]}, ids)
    result = rsa_over_time(
        models, time_rdms(spikes), generalise_to="stimulus", n_draws=100, n_permutations=2000, compare="spearman"
    )
    (first, last), *others = stretches(result)["object"]
    assert not others
    assert (first, last) == (150.0, 450.0)
    assert stretches(result)["position"] == []
    assert float(result["mean"].sel(model="object").max()) > 0.4


def test_it_is_reliable_after_the_stimulus(spikes):
    result = noise_ceiling(spikes, within="repetition", n_splits=20)
    after, before = result.reliability.sel(time=slice(150, None)), result.reliability.sel(time=slice(None, 50))
    assert after.min() > 0.7
    assert before.max() < 0.4
