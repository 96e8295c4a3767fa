"""Commonality analysis against statsmodels, planted truth, explicit bootstrap samples, and bad input."""

import json

import numpy as np
import pytest
import statsmodels.api as sm
import xarray as xr
from scipy.stats import rankdata

from actkit import plotting
from actkit.analyses import commonality as module
from actkit.analyses import commonality_plot
from actkit.analyses.comparison import ceilings
from actkit.analyses.unique_variance import unique_test
from actkit.errors import InputError
from actkit.recordings import VARIABLE, rdm_dataset, select_stimuli
from actkit.resampling import Stream, bootstrap_weights, permutations
from actkit.results import load, save, to_table

N = 14
UNTESTED = {"n_permutations": 0}


def commonality(*arguments, **options):
    """The analysis, without its permutation test where a case does not ask for it."""
    return module.commonality(*arguments, **UNTESTED | options)


IDS = [f"s{k}" for k in range(N)]
PAIRS = N * (N - 1) // 2


def dataset(vectors, dim, name, prefix="m"):
    return rdm_dataset(vectors, [f"{prefix}{k}" for k in range(len(vectors))], dim, IDS, "correlation", name)


def example(seed=0, n_subjects=7):
    """Two shared sources: A holds the first, B both, C none."""
    rng = np.random.default_rng(seed)
    one, two = rng.random((2, PAIRS))
    sets = {
        "A": dataset([one + 0.3 * rng.random(PAIRS), rng.random(PAIRS)], "layer", "a"),
        "B": dataset([one + two], "model", "b"),
        "C": dataset([rng.random(PAIRS)], "model", "c"),
    }
    data = dataset(one + two + 0.7 * rng.random((n_subjects, PAIRS)), "subject", "brains", "p")
    return sets, data


def r_squared(y, predictors, compare):
    """R² by statsmodels."""
    x = np.concatenate(predictors)
    if compare == "spearman":
        x, y = rankdata(x, axis=1), rankdata(y)
    design = x.T if compare == "cosine" else sm.add_constant(x.T)
    return sm.OLS(y, design).fit().rsquared


@pytest.mark.parametrize("compare", ["spearman", "pearson", "cosine"])
def test_two_sets_are_the_textbook_parts(compare):
    sets, data = example()
    a, b = sets["A"][VARIABLE].values, sets["B"][VARIABLE].values
    ours = commonality({"A": sets["A"], "B": sets["B"]}, data, compare=compare)
    assert ours.component.values.tolist() == ["A only", "B only", "A & B"]
    assert ours.subset.values.tolist() == ["A", "B", "A + B"]
    for s, y in enumerate(data[VARIABLE].values):
        ra, rb, rab = (r_squared(y, x, compare) for x in ([a], [b], [a, b]))
        np.testing.assert_allclose(ours.r_squared.values[:, s], [ra, rb, rab], atol=1e-12)
        np.testing.assert_allclose(ours.variance.values[:, s], [rab - rb, rab - ra, ra + rb - rab], atol=1e-12)
    np.testing.assert_allclose(ours["mean"], ours.variance.mean("subject"), atol=1e-14)


def test_three_and_four_sets_add_up_and_to_their_own_totals():
    sets, data = example()
    four = sets | {"D": dataset([np.random.default_rng(9).random(PAIRS)], "model", "d")}
    for chosen in (sets, four):
        result = commonality(chosen, data)
        k = len(chosen)
        assert result.sizes["component"] == 2**k - 1
        np.testing.assert_allclose(result.variance.sum("component"), result.r_squared[-1], atol=1e-12)
        # What a set explains alone is the sum of all parts in which it takes part, and so for every union.
        member = result.member.values
        for row in range(2**k - 1):
            union = member[row]
            touched = (member & union).any(axis=1)
            np.testing.assert_allclose(
                result.variance.values[touched].sum(axis=0), result.r_squared.values[row], atol=1e-12
            )
    three = commonality(sets, data)
    y, (a, b, c) = data[VARIABLE].values[2], (s[VARIABLE].values for s in sets.values())
    r = {name: r_squared(y, x, "spearman") for name, x in (("ab", [a, b]), ("ac", [a, c]), ("bc", [b, c]), ("c", [c]))}
    total = r_squared(y, [a, b, c], "spearman")
    by_name = dict(zip(three.component.values.tolist(), three.variance.values[:, 2], strict=True))
    assert by_name["C only"] == pytest.approx(total - r["ab"], abs=1e-12)
    assert by_name["A & B"] == pytest.approx(-r["c"] + r["ac"] + r["bc"] - total, abs=1e-12)


def test_planted_parts_are_found():
    """Independent sources in known amounts: shared .4, only A .2, only B .1, noise .3 of the variance."""
    rng = np.random.default_rng(1)
    n = 150
    pairs = n * (n - 1) // 2
    shared, a, b = np.linalg.qr(rng.normal(size=(pairs, 3)) - 0)[0].T * np.sqrt(pairs)
    noise = rng.normal(size=(5, pairs))
    y = np.sqrt(0.4) * shared + np.sqrt(0.2) * a + np.sqrt(0.1) * b + np.sqrt(0.3) * noise
    ids = [f"s{k}" for k in range(n)]
    sets = {
        "A": rdm_dataset([shared, a], ["x", "y"], "model", ids, "m", "A"),
        "B": rdm_dataset([shared, b], ["x", "y"], "model", ids, "m", "B"),
    }
    data = rdm_dataset(y, list("12345"), "subject", ids, "m", "data")
    result = commonality(sets, data, compare="pearson", generalise_to="subject")
    np.testing.assert_allclose(result["mean"], [0.2, 0.1, 0.4], atol=0.02)
    assert result.r_squared_mean.values[-1] == pytest.approx(0.7, abs=0.02)


def test_suppression_is_negative_and_named():
    rng = np.random.default_rng(2)
    signal, disturbance = rng.normal(size=(2, PAIRS))
    y = signal + 0.1 * rng.normal(size=(6, PAIRS))
    sets = {
        "mixed": dataset([signal + disturbance], "model", "x"),
        "disturbance": dataset([disturbance], "model", "y"),
    }
    result = commonality(sets, dataset(y, "subject", "d"), compare="pearson")
    assert result["mean"].values[2] < -0.2
    assert result["mean"].values[1] > 0.2  # explains nothing alone, much beside the other
    assert json.loads(result.attrs["negative"]) == ["mixed & disturbance"]
    assert "suppress" in commonality_plot.caption(result)


@pytest.mark.parametrize("target", ["stimulus", "subject", "both"])
def test_draws_and_errors_against_explicit_samples(target):
    sets, data = example(n_subjects=6)
    few = {"A": sets["A"], "B": sets["B"]}
    result = commonality(few, data, compare="spearman", generalise_to=target, n_draws=12, seed=4)
    w = bootstrap_weights(N, 12, 4)
    u = bootstrap_weights(6, 12, 4, stream=Stream.SUBJECTS) / 6
    row, column = np.triu_indices(N, 1)
    a, b, y = sets["A"][VARIABLE].values, sets["B"][VARIABLE].values, data[VARIABLE].values

    def parts(take):
        out = []
        for one in y:
            ra, rb, rab = (
                r_squared(np.repeat(one, take), [np.repeat(x, take, axis=1) for x in xs], "spearman")
                for xs in ([a], [b], [a, b])
            )
            out.append([rab - rb, rab - ra, ra + rb - rab])
        return np.array(out)

    full = parts(np.ones(PAIRS, dtype=int))
    drawn = np.array([parts(one[row] * one[column]) for one in w])  # (draw, subject, part)
    means = {
        "subject": u @ full,
        "stimulus": drawn.mean(axis=1),
        "both": np.einsum("dsp,ds->dp", drawn, u),
    }
    np.testing.assert_allclose(result.draw_mean, means[target], atol=1e-11)
    sd = {name: m.var(axis=0, ddof=1) for name, m in means.items()}
    if target == "subject":
        expected = full.std(axis=0, ddof=1) / np.sqrt(6)
    elif target == "stimulus":
        expected = np.sqrt(sd["stimulus"] * N / (N - 1))
    else:
        s, p = sd["subject"] * 6 / 5, sd["stimulus"] * N / (N - 1)
        both = (sd["both"] - sd["subject"] - sd["stimulus"]) * 6 / 5 * N / (N - 1)
        expected = np.sqrt(np.minimum(np.maximum(np.maximum(s + p - both, s), p), sd["both"]))
    np.testing.assert_allclose(result.error, expected, rtol=1e-9)
    assert (result.interval_low < result["mean"]).all()
    assert (result.interval_high > result["mean"]).all()


def test_the_ceiling_is_the_squared_one_and_draws_are_reproducible():
    sets, data = example()
    result = commonality(sets, data, compare="pearson", generalise_to="stimulus", n_draws=20)
    lower, upper = ceilings(data[VARIABLE].values, "pearson")
    assert result.ceiling_lower.item() == pytest.approx(np.mean(lower**2))
    assert result.ceiling_upper.item() == pytest.approx(np.mean(upper**2))
    shuffled = {name: select_stimuli(s, IDS[::-1]) for name, s in sets.items()}
    again = commonality(shuffled, data, compare="pearson", generalise_to="stimulus", n_draws=20)
    np.testing.assert_allclose(again.draw_mean, result.draw_mean, atol=1e-12)
    longer = commonality(sets, data, compare="pearson", generalise_to="stimulus", n_draws=30)
    np.testing.assert_array_equal(longer.draw_mean[:20], result.draw_mean)
    other = commonality(sets, data, compare="pearson", generalise_to="stimulus", n_draws=20, seed=1)
    assert not np.allclose(other.draw_mean, result.draw_mean)


def test_whitened_parts_add_up():
    sets, data = example()
    result = commonality(sets, data, compare="whitened-pearson", n_draws=3)
    np.testing.assert_allclose(result.variance.sum("component"), result.r_squared[-1], atol=1e-12)
    plain = commonality(sets, data, compare="pearson", n_draws=3)
    assert np.abs(result.r_squared - plain.r_squared).max() > 1e-3


def test_tiny_samples_and_single_sets():
    sets, data = example(n_subjects=1)
    result = commonality({"only": sets["B"]}, data, n_draws=5)
    assert result.attrs["generalise_to"] == "stimulus"
    assert result.component.values.tolist() == ["only"]
    assert np.isnan(result.ceiling_lower)
    small = {name: select_stimuli(s, IDS[:5]) for name, s in sets.items()}
    many = commonality(small, select_stimuli(data, IDS[:5]), n_draws=40)
    lost = np.isnan(many.draw_mean).any("component")
    assert 0 < lost.sum() == many.attrs["n_draws_degenerate"] < 40
    assert np.isfinite(many.error).all()


@pytest.mark.parametrize("compare", ["spearman", "pearson", "cosine", "whitened-pearson", "whitened-cosine"])
def test_permutations_against_the_plain_procedure(compare):
    sets, data = example(n_subjects=3)
    others = np.concatenate([sets["B"][VARIABLE].values, sets["C"][VARIABLE].values])
    own, y = sets["A"][VARIABLE].values, data[VARIABLE].values
    observed, chance, p = unique_test(others, own, y, compare, 20, seed=2)
    if compare == "spearman":
        others, own, y = (rankdata(v, axis=1) for v in (others, own, y))
    root = np.eye(PAIRS)
    row, column = np.triu_indices(N, 1)
    if compare.startswith("whitened"):
        contrasts = np.eye(N)[row] - np.eye(N)[column]
        root = np.linalg.cholesky(np.linalg.inv((contrasts @ contrasts.T) ** 2)).T
    if not compare.endswith("cosine"):
        others, own, y = (v - v.mean(axis=1, keepdims=True) for v in (others, own, y))

    def explain(target, design):
        if not len(design):
            return 0.0
        return sm.OLS(root @ target, (root @ design.T)).fit().rsquared

    left = np.array([one - np.linalg.lstsq(root @ others.T, root @ one, rcond=None)[0] @ others for one in own])
    increases = []
    for order in permutations(N, 20, 2):
        square = np.zeros((len(own), N, N))
        square[:, row, column] = square[:, column, row] = left
        moved = square[:, order][:, :, order][:, row, column]
        both = np.concatenate([others, moved])
        increases.append(np.mean([explain(one, both) - explain(one, others) for one in y]))
    assert observed == pytest.approx(increases[0], abs=1e-11)
    assert chance == pytest.approx(np.mean(increases[1:]), abs=1e-11)
    assert p == np.mean(np.array(increases) >= increases[0] - 1e-10)


def test_tests_of_unique_parts():
    sets, data = example()
    result = commonality(sets, data, n_draws=2, n_permutations=199)
    by_set = dict(zip(result.set.values.tolist(), result.p_unique.values, strict=True))
    assert by_set["B"] <= 3 / 199
    assert by_set["C"] > 0.05
    assert (result.p_unique >= result.p_unique_uncorrected).all()
    assert (result.unique_chance > 0).all()
    assert "With ranks and sets that overlap" in result.attrs["test"]
    assert "ranks" not in commonality(sets, data, compare="pearson", n_draws=2, n_permutations=9).attrs["test"]
    untested = commonality(sets, data, n_draws=2)
    assert "p_unique" not in untested
    assert commonality_plot.caption(untested).count("Not tested") == 1


def test_the_test_keeps_its_level_when_sets_overlap():
    """A set that is related to the data only through another set must not be found more often than in 5 % of cases."""
    n, found = 12, []
    row, column = np.triu_indices(n, 1)
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def rdm_of(points):
            return np.linalg.norm(points[row] - points[column], axis=1)

        cause = rng.normal(size=(n, 3))
        other = rdm_of(cause)
        own = rdm_of(np.hstack([cause, rng.normal(size=(n, 2))]))
        y = other + 0.5 * np.array([rdm_of(rng.normal(size=(n, 3))) for _ in range(3)])
        found.append(unique_test(other[None], own[None], y, "pearson", 100, seed)[2] <= 0.05)
    assert np.mean(found) < 0.09  # 99.4 % limit of 200 draws at .05


def test_bad_input():
    sets, data = example()
    broken = sets["A"].copy(deep=True)
    broken[VARIABLE][0, 3] = np.nan
    flat = sets["C"].copy(deep=True)
    flat[VARIABLE][:] = 2.0
    many = dataset(np.random.default_rng(0).random((PAIRS, PAIRS)), "model", "many")
    cases = [
        ((sets["A"], data), {}, "sets must have names"),
        (([sets["A"]], data), {}, "sets must have names"),
        (({}, data), {}, "give 1 to 4 sets"),
        (({str(k): sets["A"] for k in range(5)}, data), {}, "make 31 parts"),
        ((sets | {"A": broken}, data), {}, "set 'A': the RDM 'm0' lacks 1 pairs"),
        ((sets | {"C": flat}, data), {}, "set 'C': the RDM 'm0' is the same for all pairs"),
        (({"many": many}, data), {}, "91 model RDMs explain 91 pairs perfectly"),
        ((sets, data.isel(subject=[0])), {"generalise_to": "both"}, "there is no variation between subjects"),
        ((sets, data), {"generalise_to": "stimulus", "n_draws": 1}, "no variance over stimuli"),
        ((sets, data), {"compare": "tau-a"}, "option 'compare' is 'tau-a'"),
        ((sets, select_stimuli(data, IDS[:9])), {}, "lacks"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(InputError, match=message):
            commonality(*arguments, **options)


def test_save_table_and_figure(tmp_path):
    sets, data = example()
    result = commonality(sets, data, n_draws=20, n_permutations=200)
    again = load(save(result, tmp_path / "c.nc"))
    xr.testing.assert_identical(again["variance"], result["variance"])
    assert len(to_table(result)) > 0
    figure = commonality_plot.plot(result)
    bars = figure.axes[0].patches
    heights = sorted(bar.get_height() for bar in bars if round(bar.get_width(), 6) == 0.62)
    shown = np.append(result["mean"].values, result.r_squared_mean.values[-1])
    np.testing.assert_allclose(heights, np.sort(shown), atol=1e-12)
    text = commonality_plot.caption(result)
    assert "7 subjects" in text
    assert "95" in text
    assert "Asterisks: p < .05, permutation test" in text
    labels = [t.get_text() for t in figure.axes[0].texts]
    assert sum(label.endswith("*") for label in labels) == int((result.p_unique < 0.05).sum()) > 0
    assert "A & B" in commonality_plot.alt_text(result) or "only" in commonality_plot.alt_text(result)
    assert plotting.png_bytes(figure)[:4] == b"\x89PNG"
