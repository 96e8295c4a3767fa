"""What RSA does with input that is not as it should be: a stated result, or an error that names value and cure.

The cases are those of the project's list: mismatched stimuli, matrices that are no RDMs, one subject, few stimuli,
missing pairs, constant RDMs, negative distances, and what else a laboratory's files hold.
"""

import json

import numpy as np
import pytest
from scipy import stats

from actkit.analyses.comparison import scores
from actkit.analyses.measures import MEASURES
from actkit.analyses.noise_ceiling import noise_ceiling
from actkit.analyses.rsa import rsa
from actkit.analyses.time_resolved import rsa_over_time
from actkit.errors import InputError
from actkit.recordings import align_rdms, concatenate_rdms, n_pairs, rdm_dataset, select_stimuli, squares

N, SUBJECTS = 7, 5
IDS = [f"i{k}" for k in range(N)]
FAST = {"n_draws": 20, "n_permutations": 20}


def subjects(n=N, k=SUBJECTS, seed=0, values=None):
    values = np.random.default_rng(seed).random((k, n_pairs(n))) if values is None else values
    return rdm_dataset(
        values, [f"s{j}" for j in range(len(values))], "subject", [f"i{j}" for j in range(n)], "x", "brain"
    )


def models(n=N, k=2, seed=9, values=None):
    values = np.random.default_rng(seed).random((k, n_pairs(n))) if values is None else values
    return rdm_dataset(
        values, [f"m{j}" for j in range(len(values))], "model", [f"i{j}" for j in range(n)], "x", "theories"
    )


def changed(rdms, row, values):
    """The same RDMs with other values in one of them."""
    out = rdms.copy(deep=True)
    out["dissimilarity"].values[row] = values
    return out


# --------------------------------------------------------------------------------------------------------------------
# errors: what is named, and where

NO_RDM = np.ones((N, N)) - np.eye(N)
ASYMMETRIC = NO_RDM.copy()
ASYMMETRIC[2, 5] = 7.0
SIMILARITY = NO_RDM + np.eye(N)
HALF_MISSING = NO_RDM.copy()
HALF_MISSING[1, 4] = np.nan

CASES = {
    "stimuli missing in the model": (
        lambda: rsa(models(n=6), subjects(), **FAST),
        r"'theories' lacks the stimulus 'i6'.*select_stimuli",
    ),
    "stimuli missing in the data": (
        lambda: rsa(models(), subjects(n=5), **FAST),
        r"'brain' lacks 2 stimuli: 'i5', 'i6'",
    ),
    "no stimulus in common": (
        lambda: align_rdms(subjects(), subjects().assign_coords(stimulus=list("abcdefg"))),
        r"lacks 7 stimuli: 'i0', 'i1', 'i2', 'i3', 'i4' and 2 more",
    ),
    "a repeated stimulus": (
        lambda: rsa(models(), subjects().assign_coords(stimulus=["i0"] * 2 + IDS[2:]), **FAST),
        r"stimulus names occur more than once \('i0'\)",
    ),
    "a repeated subject": (
        lambda: noise_ceiling(subjects().assign_coords(subject=["s0"] * SUBJECTS)),
        r"subject names occur more than once \('s0'\)",
    ),
    "a repeated model": (
        lambda: rsa([models(), models()], subjects(), **FAST),
        r"models share a name: 'm0', 'm1'",
    ),
    "an asymmetric matrix": (
        lambda: subjects(values=ASYMMETRIC[None]),
        r"not symmetric: values differ by up to 6 .*average it with its transpose",
    ),
    "a similarity matrix": (
        lambda: subjects(values=SIMILARITY[None]),
        r"values up to 1 on its diagonal.*subtract them from 1",
    ),
    "missing on one side of the diagonal": (
        lambda: subjects(values=HALF_MISSING[None]),
        r"not symmetric",
    ),
    "a wrong number of pairs": (lambda: subjects(values=np.ones((2, 20))), r"21 pairs, as 7 stimuli need"),
    "an infinite distance": (lambda: changed(subjects(), 1, np.inf).pipe(noise_ceiling), r"infinite.*'s1'.*NaN"),
    "two stimuli": (lambda: noise_ceiling(subjects(n=2)), r"2 stimuli, that is one pair"),
    "two stimuli for models": (lambda: rsa(models(n=2), subjects(n=2), **FAST), r"2 stimuli, that is one pair"),
    "pairs missing in a subject": (
        lambda: rsa(models(), changed(subjects(), (2, slice(3, 6)), np.nan), **FAST),
        r"missing in s2 \(3\)\. Leave these subjects out",
    ),
    "all pairs missing in a subject": (
        lambda: noise_ceiling(changed(subjects(), 4, np.nan)),
        r"missing in s4 \(21\)",
    ),
    "a pair missing in all subjects": (
        lambda: noise_ceiling(changed(subjects(), (slice(None), 0), np.nan)),
        r"missing in s0 \(1\), s1 \(1\).*select_stimuli",
    ),
    "a constant subject": (lambda: rsa(models(), changed(subjects(), 1, 0.3), **FAST), r"RDM of 's1' is constant"),
    "a subject of zeros": (
        lambda: noise_ceiling(changed(subjects(), 3, 0.0), compare="cosine"),
        r"RDM of 's3' is zero",
    ),
    "one subject generalising to subjects": (
        lambda: rsa(models(), subjects(k=1), generalise_to="subject", **FAST),
        r"from 1 subject.*generalise_to='stimulus'",
    ),
    "no models": (lambda: rsa([], subjects(), **FAST), r"no models were given"),
    "an array instead of RDMs": (
        lambda: rsa(models(), subjects()["dissimilarity"], **FAST),
        r"expected an RDM dataset",
    ),
    "the result of something else": (
        lambda: noise_ceiling(noise_ceiling(subjects())),
        r"expected an RDM dataset.*'ceiling_lower'",
    ),
    "words for distances": (lambda: subjects(values=np.full((2, 21), "far")), r"dtype <U3, which is not numeric"),
    "complex distances": (lambda: subjects(values=np.ones((2, 21)) * 1j), r"complex; give real numbers"),
    "integers in the dataset": (lambda: noise_ceiling(subjects().astype(int)), r"dtype int64"),
    "a measure that does not exist": (lambda: noise_ceiling(subjects(), compare="kendall"), r"'kendall'"),
    "the same names in two datasets": (
        lambda: concatenate_rdms([subjects(), subjects()], "rdm", "both"),
        r"names occur more than once",
    ),
    "no time where time is needed": (lambda: rsa_over_time(models(), subjects()), r"no time bins.*actkit\.rsa"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_name_the_value_and_the_cure(case):
    make, message = CASES[case]
    with pytest.raises(InputError, match=message):
        make()


# --------------------------------------------------------------------------------------------------------------------
# results


@pytest.mark.parametrize("compare", MEASURES)
def test_another_order_of_stimuli_changes_nothing(compare):
    """Rows are matched by id: shuffled models and data give the same scores as sorted ones."""
    rng = np.random.default_rng(4)
    shuffled = select_stimuli(models(), rng.permutation(IDS))
    mixed = select_stimuli(subjects(), rng.permutation(IDS))
    expected = scores(models().dissimilarity.values, subjects().dissimilarity.values, compare)
    found = rsa(shuffled, mixed, compare=compare, **FAST)
    np.testing.assert_allclose(found.score.values, expected, rtol=0, atol=1e-12)
    ceiling, again = (noise_ceiling(rdms, compare=compare) for rdms in (subjects(), mixed))
    np.testing.assert_allclose(ceiling.ceiling_lower, again.ceiling_lower, rtol=0, atol=1e-12)


def test_extra_stimuli_can_be_left_out_by_name():
    large = subjects(n=10)
    few = select_stimuli(large, IDS)
    np.testing.assert_array_equal(squares(few), squares(large)[:, :N, :N])
    assert np.isfinite(rsa(models(), few, **FAST).score).all()


def test_rounding_asymmetry_is_no_error():
    noisy = NO_RDM * (1 + 1e-9 * np.random.default_rng(0).normal(size=(N, N)))
    assert subjects(values=noisy[None]).sizes["subject"] == 1


@pytest.mark.parametrize("compare", MEASURES)
def test_one_subject_has_scores_and_no_ceiling(compare):
    result = rsa(models(), subjects(k=1), compare=compare, **FAST)
    assert result.attrs["generalise_to"] == "stimulus"
    assert np.isfinite(result["mean"]).all()
    assert np.isfinite(result["error"]).all()
    assert np.isnan(result.ceiling_lower)
    assert "single subject" in result.attrs["ceiling_note"]


@pytest.mark.parametrize("compare", MEASURES)
def test_three_stimuli_are_scored_and_their_lost_draws_counted(compare):
    """Three pairs: scores exist; a draw of fewer than three distinct stimuli (7 of 9) is left out and counted."""
    result = rsa(models(n=3), subjects(n=3), compare=compare, generalise_to="stimulus", n_draws=90, n_permutations=6)
    assert np.isfinite(result.score).all()
    lost = int(result.attrs["n_draws_degenerate"])
    assert stats.binom.ppf(1e-6, 90, 7 / 9) <= lost <= stats.binom.ppf(1 - 1e-6, 90, 7 / 9)
    assert (result.draws_used <= 90 - lost).all()


@pytest.mark.parametrize("values", [np.nan, 0.4], ids=["missing", "constant"])
def test_a_model_without_a_score_is_nan_and_named(values):
    """One dead layer must neither stop the analysis nor enter the tests of the others."""
    three = models(k=3)
    result = rsa(changed(three, 1, values), subjects(), compare="pearson", **FAST)
    assert json.loads(result.attrs["undefined"]) == ["m1"]
    for name in ("score", "mean", "error", "p_value", "interval_low"):
        assert np.isnan(result[name].isel(model=1)).all(), name
        assert np.isfinite(result[name].isel(model=[0, 2])).all(), name
    alone = rsa(three.isel(model=[0, 2]), subjects(), compare="pearson", **FAST)
    np.testing.assert_allclose(result.p_value.values[[0, 2]], alone.p_value.values, rtol=1e-12)
    moving = subjects().expand_dims(time=[0.0, 1.0]).transpose("subject", "time", "pair", "stimulus")
    over = rsa_over_time(changed(three, 1, values), moving, n_permutations=20, n_flips=32)
    assert np.isnan(over.p_value.isel(model=1)).all()
    assert np.isnan(over.peak_time[1])
    assert np.isfinite(over.p_value.isel(model=[0, 2])).all()


@pytest.mark.parametrize("compare", MEASURES)
def test_negative_distances_are_distances(compare):
    """Crossnobis estimates may be negative: they are used as they are, and adding a constant is no cure for cosine."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=n_pairs(N))
    data = subjects(values=truth + 0.5 * rng.normal(size=(SUBJECTS, n_pairs(N))))
    theory = models(values=np.stack([truth, rng.normal(size=n_pairs(N))]))
    assert (data.dissimilarity < 0).any()
    result = rsa(theory, data, compare=compare, **FAST)
    expected = scores(theory.dissimilarity.values, data.dissimilarity.values, compare)
    np.testing.assert_allclose(result.score.values, expected, rtol=0, atol=1e-12)
    assert float(result["mean"][0]) > 0.4
    shifted = rsa(theory, subjects(values=data.dissimilarity.values + 10.0), compare=compare, **FAST)
    same = np.allclose(shifted.score, result.score, rtol=0, atol=1e-9)
    assert same == (compare not in ("cosine", "whitened-cosine"))
    bounds = noise_ceiling(data, compare=compare)
    assert 0 < float(bounds.ceiling_lower) < float(bounds.ceiling_upper) <= 1


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("compare", MEASURES)
def test_tiny_and_huge_distances_score_as_others(compare, scale):
    usual = rsa(models(), subjects(), compare=compare, **FAST)
    far = subjects(values=subjects().dissimilarity.values * scale)
    np.testing.assert_allclose(rsa(models(), far, compare=compare, **FAST).score, usual.score, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        noise_ceiling(far, compare=compare).ceiling_upper, noise_ceiling(subjects(), compare=compare).ceiling_upper
    )


def test_single_precision_data_are_scored_in_double():
    single = subjects().astype(np.float32)
    np.testing.assert_allclose(rsa(models(), single, **FAST).score, rsa(models(), subjects(), **FAST).score, atol=1e-6)
    assert rsa(models(), single, **FAST).score.dtype == np.float64
