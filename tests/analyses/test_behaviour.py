"""Behaviour: hand-worked tables, plain loops, planted observers, and the human choices of two published studies."""

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from actkit import plotting
from actkit.analyses import behaviour, behaviour_plot, behaviour_signatures
from actkit.analyses.behaviour_arrangements import arrangement_rdm
from actkit.analyses.behaviour_signatures import odd_one_out, pair_hit_rates, signature
from actkit.errors import DataError, InputError
from actkit.recordings import squares, validate_rdms

DATA = Path(os.environ.get("ACTKIT_DATA", "nowhere"))


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"ACTKIT_DATA names no folder with {name}")


def table(n_subjects=4, n_stimuli=60, accuracy=0.7, seed=0):
    """Independent observers of one accuracy, four classes, some trials unanswered."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(n_subjects):
        for stimulus in range(n_stimuli):
            right = "abcd"[stimulus % 4]
            wrong = rng.choice([c for c in "abcd" if c != right])
            response = right if rng.random() < accuracy else str(wrong)
            rows.append((f"s{subject}", f"i{stimulus:03d}", "na" if rng.random() < 0.05 else response, right))
    return pd.DataFrame(rows, columns=["subject", "stimulus", "response", "right"])


def test_confusion_by_hand():
    trials = pd.DataFrame(
        {"stimulus": list("wwxxyy"), "response": ["a", "b", "b", "na", "z", None], "right": list("aabbbb")}
    )
    result = behaviour.confusion(trials, "right")
    assert result["response"].values.tolist() == ["a", "b", "z"]
    np.testing.assert_array_equal(result["count"], [[1, 1, 0], [0, 1, 1]])
    np.testing.assert_allclose(result["rate"], [[0.5, 0.5, 0], [0, 0.5, 0.5]])
    assert result["n_unanswered"].values.tolist() == [0, 2]
    assert float(result["accuracy"]) == 0.5
    by_stimulus = behaviour.confusion(trials, {"w": "a", "x": "b", "y": "b"})
    np.testing.assert_array_equal(by_stimulus["count"], result["count"])
    rates = behaviour.choice_rates(trials)
    np.testing.assert_array_equal(rates["count"].sel(stimulus="w"), [1, 1, 0])
    np.testing.assert_allclose(rates["rate"].sel(stimulus="y"), [0, 0, 1])
    assert rates["n_unanswered"].values.tolist() == [0, 1, 1]
    assert json.loads(result.attrs["options"])["missing"] == ["", "na"]


def plain_kappa(a, b):
    p, q = a.mean(), b.mean()
    chance = p * q + (1 - p) * (1 - q)
    return ((a == b).mean() - chance) / (1 - chance)


def test_error_consistency_is_cohens_kappa_of_every_pair():
    trials = table().drop(index=[3, 77])  # unequal sets of stimuli
    result = behaviour.error_consistency(trials, "right", n_bootstrap=20)
    trials["ok"] = trials["response"] == trials["right"]
    wide = trials.pivot(index="stimulus", columns="subject", values="ok")
    for a in wide.columns:
        for b in wide.columns:
            if a == b:
                assert np.isnan(result["kappa"].sel(subject=a, other=b))
                continue
            both = wide[[a, b]].dropna().astype(bool)
            got = float(result["kappa"].sel(subject=a, other=b))
            assert got == pytest.approx(plain_kappa(both[a], both[b]), abs=1e-12)
            assert got == pytest.approx(cohen_kappa_score(both[a], both[b]), abs=1e-12)
            assert int(result["n_common"].sel(subject=a, other=b)) == len(both)
    k = result["kappa"].values[np.triu_indices(4, 1)]
    assert float(result["mean_kappa"]) == pytest.approx(k.mean())
    assert float(result["mean_low"]) < float(result["mean_kappa"]) < float(result["mean_high"])


def test_error_consistency_keeps_its_sign_and_knows_its_bounds():
    right = np.array([1, 1, 1, 0, 0, 0, 1, 0] * 5, dtype=bool)
    rows = [
        (name, f"i{k}", "a" if ok else "b")
        for name, sign in (("x", right), ("same", right), ("other", ~right))
        for k, ok in enumerate(sign)
    ]
    rows += [("perfect", f"i{k}", "a") for k in range(40)] + [("perfect2", f"i{k}", "a") for k in range(40)]
    trials = pd.DataFrame(rows, columns=["subject", "stimulus", "response"]).assign(right="a")
    kappa = behaviour.error_consistency(trials, "right", n_bootstrap=0)["kappa"]
    assert float(kappa.sel(subject="x", other="same")) == pytest.approx(1)
    assert float(kappa.sel(subject="x", other="other")) == pytest.approx(-1)
    assert float(kappa.sel(subject="x", other="perfect")) == pytest.approx(0)
    assert np.isnan(kappa.sel(subject="perfect", other="perfect2"))


def test_independent_observers_have_no_error_consistency_and_intervals_say_so():
    result = behaviour.error_consistency(table(8, 600, seed=1), "right", n_bootstrap=200)
    assert abs(float(result["mean_kappa"])) < 0.03
    assert float(result["mean_low"]) < 0 < float(result["mean_high"])
    again = behaviour.error_consistency(table(8, 600, seed=1), "right", n_bootstrap=200)
    assert again.identical(result)


def test_unanswered_trials_count_as_wrong_or_not_at_all():
    trials = table(2, 40, seed=2)
    wrong = behaviour.error_consistency(trials, "right", n_bootstrap=0)
    out = behaviour.error_consistency(trials, "right", n_bootstrap=0, unanswered="left_out")
    answered = trials[trials["response"] != "na"]
    share = (answered["response"] == answered["right"]).groupby(answered["subject"]).mean()
    assert len(answered) < len(trials)
    np.testing.assert_allclose(out["accuracy"], share)
    assert (wrong["accuracy"] < out["accuracy"]).any()
    assert int(out["n_common"][0, 1]) < int(wrong["n_common"][0, 1]) == 40


def test_shape_bias_by_hand():
    trials = pd.DataFrame(
        {
            "subject": ["p"] * 5 + ["q"] * 3,
            "stimulus": ["1", "2", "3", "4", "5", "1", "2", "5"],
            "shape": ["cat", "cat", "car", "car", "cat", "cat", "cat", "cat"],
            "texture": ["car", "car", "cat", "cat", "cat", "car", "car", "cat"],
            "response": ["cat", "cat", "cat", "na", "cat", "car", "dog", "cat"],
        }
    )
    result = behaviour.shape_bias(trials, "shape", "texture", n_bootstrap=100)
    assert float(result["shape_bias"]) == pytest.approx(2 / 4)
    np.testing.assert_allclose(result["by_subject"], [2 / 3, 0])
    assert float(result["mean_over_subjects"]) == pytest.approx(1 / 3)
    assert dict(zip(result["category"].values.tolist(), result["by_category"].values.tolist(), strict=True)) == {
        "car": 0.0,
        "cat": pytest.approx(2 / 3),
    }
    np.testing.assert_allclose(result["by_subject_and_category"], [[0, 1], [np.nan, 0]])
    counts = ["n_shape", "n_texture", "n_other", "n_unanswered", "n_without_conflict"]
    assert [int(result[name]) for name in counts] == [2, 2, 1, 1, 2]
    assert float(result["cue_accuracy"]) == pytest.approx(4 / 6)
    assert float(result["interval_low"]) < 0.5 < float(result["interval_high"])


@pytest.mark.parametrize("over", ["subject", "trial"])
def test_split_half_recovers_a_planted_reliability(over):
    rng = np.random.default_rng(0)
    n, subjects, repeats = 400, 9, 3  # odd numbers of both
    own = rng.normal(size=(n, 1, 1)) + rng.normal(size=(n, subjects, 1)) * 0.9 + rng.normal(size=(n, subjects, repeats))
    i, s, _ = np.indices(own.shape)
    trials = pd.DataFrame({"stimulus": i.ravel(), "subject": s.ravel(), "value": own.ravel()})
    trials = trials.drop(index=trials.sample(frac=0.02, random_state=0).index)  # unequal numbers of trials
    result = behaviour.split_half(trials, value="value", over=over, n_splits=30)
    if over == "subject":
        noise = (0.81 + 1 / repeats) / subjects
        expected = 1 / (1 + noise)
    else:  # halves of 13 out of 27 trials; two of any trial's 26 neighbours are of its own subject
        shared, half = 0.81 * 2 / 26, 13
        r = (1 + shared) / (1 + (0.81 + 1) / half + shared * (half - 1) / half)
        expected = 27 / half * r / (1 + (27 / half - 1) * r)
    assert float(result["reliability"]) == pytest.approx(expected, abs=0.01)
    assert float(result["bound"]) == pytest.approx(np.sqrt(float(result["reliability"])))
    assert int(result["n_left_out"].max()) == 0


def test_split_half_of_subjects_is_the_plain_loop():
    trials = table(6, 50, 0.6, seed=3)
    result = behaviour.split_half(trials, "right", n_splits=400)
    wide = trials.assign(ok=(trials["response"] == trials["right"]).astype(float)).pivot(
        index="stimulus", columns="subject", values="ok"
    )
    rng = np.random.default_rng(1)
    r = []
    for _ in range(400):
        order = rng.permutation(6)
        r.append(np.corrcoef(wide.values[:, order[:3]].mean(1), wide.values[:, order[3:]].mean(1))[0, 1])
    assert float(result["split_half"].mean()) == pytest.approx(np.mean(r), abs=0.02)  # ten distinct splits of six
    assert {round(v, 8) for v in r} == {round(v, 8) for v in result["split_half"].values.tolist()}


def test_pure_noise_has_no_reliability():
    rng = np.random.default_rng(4)
    trials = {"subject": np.tile(np.arange(20), 200), "stimulus": np.repeat(np.arange(200), 20), "v": rng.random(4000)}
    assert abs(float(behaviour.split_half(trials, value="v")["reliability"])) < 0.15
    assert np.isnan(float(behaviour.split_half(trials | {"v": np.ones(4000)}, value="v")["reliability"]))


# ------------------------------------------------------------------------------------------- signatures and triplets


def hits_and_labels(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], [4, 5, 6])
    return rng.uniform(0.3, 0.98, size=(15, 3)), labels, ["a", "b", "c"]


def test_signatures_are_the_plain_formulas():
    h, labels, classes = hits_and_labels()
    own = np.array([classes.index(c) for c in labels])
    i2, i1 = signature(h, labels, classes, "i2"), signature(h, labels, classes, "i1")
    o2, o1 = signature(h, labels, classes, "o2"), signature(h, labels, classes, "o1")
    z = norm.ppf
    for s in range(15):
        others = [k for k in range(3) if k != own[s]]
        for k in others:
            alarm = np.mean([1 - h[t, own[s]] for t in range(15) if own[t] == k])
            assert i2[s, k] == pytest.approx(z(h[s, k]) - z(alarm))
            mean_hit = np.mean([h[t, k] for t in range(15) if own[t] == own[s]])
            assert o2[own[s], k] == pytest.approx(z(mean_hit) - z(alarm))
        alarm = np.mean([1 - h[t, own[s]] for t in range(15) if own[t] != own[s]])
        assert i1[s] == pytest.approx(z(np.mean(h[s, others])) - z(alarm))
        mean_hit = np.mean([h[t, k] for t in range(15) if own[t] == own[s] for k in others])
        assert o1[own[s]] == pytest.approx(z(mean_hit) - z(alarm))
        assert np.isnan(i2[s, own[s]])
    for plain, normed in ((i1, signature(h, labels, classes, "i1n")), (i2, signature(h, labels, classes, "i2n"))):
        for k in range(3):
            rows = own == k
            np.testing.assert_allclose(normed[rows], plain[rows] - plain[rows].mean(axis=0), atol=1e-12)


def test_signatures_are_capped_and_defined_for_perfect_and_indifferent_observers():
    _, labels, classes = hits_and_labels()
    perfect, blind = np.ones((15, 3)), np.full((15, 3), 0.5)
    assert set(signature(perfect, labels, classes, "i1").tolist()) == {5.0}
    np.testing.assert_allclose(signature(blind, labels, classes, "i1"), 0, atol=1e-12)
    always_a = np.where(labels[:, None] == "a", 1.0, 0.5) * np.where(
        np.arange(3) == 0, np.where(labels == "a", 1.0, 0.0)[:, None], 1.0
    )
    i2 = signature(always_a, labels, classes, "i2")
    np.testing.assert_array_equal(i2[labels == "a"][:, 1:], 0)  # always saying a: hits and false alarms are both 1


def test_hit_rates_come_from_choices_among_all_classes():
    h = pair_hit_rates([[6, 2, 2], [1, 3, 0], [0, 0, 4]], ["a", "b", "c"], ["a", "b", "c"])
    np.testing.assert_allclose(h, [[np.nan, 0.75, 0.75], [0.75, np.nan, 1], [1, 1, np.nan]])


def test_odd_one_out_by_hand_and_from_a_known_geometry():
    rdm = odd_one_out([list("abc"), list("abd"), list("cba")], ["c", "a", "c"], ids=list("abcd"))
    validate_rdms(rdm)
    square = squares(rdm)[0]
    assert square[0, 1] == pytest.approx(1 - 2 / 3)  # ab together in two of three trials
    assert square[0, 2] == 1
    assert square[1, 3] == 0
    assert np.isnan(square[2, 3])
    assert rdm["n_trials"].values.tolist() == [3, 2, 1, 2, 1, 0]
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    triplets = np.array(list(combinations(range(12), 3)))
    odd = [t[np.argmin([distance[t[1], t[2]], distance[t[0], t[2]], distance[t[0], t[1]]])] for t in triplets]
    found = squares(odd_one_out(triplets, odd, ids=range(12)))[0]
    for i, j in combinations(range(12), 2):
        kept = [distance[i, j] < min(distance[i, k], distance[j, k]) for k in range(12) if k not in (i, j)]
        assert found[i, j] == pytest.approx(1 - np.mean(kept))


# ---------------------------------------------------------------------------------------------------- arrangements


def arrangements(points, subsets, scale=True, noise=0.0, seed=0):
    """A table of trials in which subsets of points are turned, moved and scaled to fill an arena."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, subset in enumerate(subsets):
        xy = points[list(subset)]
        turn = rng.uniform(0, 2 * np.pi)
        xy = (xy - xy.mean(0)) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        xy = xy / (np.abs(xy).max() if scale else 1) + noise * rng.normal(size=xy.shape)
        rows += [(f"t{number}", f"i{k:02d}", *at) for k, at in zip(subset, xy, strict=True)]
    return pd.DataFrame(rows, columns=["trial", "stimulus", "x", "y"])


def test_arrangements_of_subsets_give_the_distances_back_up_to_scale():
    points = np.random.default_rng(0).normal(size=(8, 2))
    subsets = [range(6), (0, 1, 2), (4, 5, 6, 7), (2, 3, 6)]
    rdm = arrangement_rdm(arrangements(points, subsets))
    validate_rdms(rdm)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    together = np.zeros((8, 8))
    for subset in subsets:
        together[np.ix_(subset, subset)] += 1
    square = squares(rdm)[0]
    known = np.triu(together > 0, 1)
    ratio = square[known] / distance[known]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert np.isnan(square[np.triu(together == 0, 1)]).all()
    assert np.sqrt(np.mean(square[known] ** 2)) == pytest.approx(1)
    assert rdm["n_trials"].values[0].tolist() == together[np.triu_indices(8, 1)].tolist()


def test_arrangements_are_the_plain_iteration_and_that_of_rsatoolbox():
    points = np.random.default_rng(1).normal(size=(7, 2))
    table = arrangements(points, [range(7), (0, 1, 2, 3), (3, 4, 5, 6), (1, 3, 5)], noise=0.15)
    got = arrangement_rdm(table)["dissimilarity"].values[0]
    names = sorted(table["stimulus"].unique())
    trials = []
    for _, part in table.groupby("trial"):
        square = np.full((7, 7), np.nan)
        for (_, a), (_, b) in combinations(part.iterrows(), 2):
            i, j = names.index(a["stimulus"]), names.index(b["stimulus"])
            square[i, j] = square[j, i] = np.hypot(a["x"] - b["x"], a["y"] - b["y"])
        trials.append(square[np.triu_indices(7, 1)])
    d = np.array(trials)
    w = d**2
    estimate = d[0] / np.sqrt((d[0] ** 2).mean())
    for _ in range(500):
        aligned = [row / np.sqrt(np.nansum(row**2)) * np.sqrt(np.sum(estimate[~np.isnan(row)] ** 2)) for row in d]
        estimate = np.nansum(np.array(aligned) * w, axis=0) / np.nansum(w, axis=0)
        estimate /= np.sqrt((estimate**2).mean())
    np.testing.assert_allclose(got, estimate, atol=1e-8)
    rsatoolbox = pytest.importorskip("rsatoolbox")
    far = arrangements(10 * points, [range(7), (0, 1, 2, 3), (3, 4, 5, 6), (1, 3, 5)], scale=False, noise=1.0)
    mine = arrangement_rdm(far)["dissimilarity"].values[0]
    vectors = []
    for _, part in far.groupby("trial"):
        square = np.full((7, 7), np.nan)
        for (_, a), (_, b) in combinations(part.iterrows(), 2):
            i, j = names.index(a["stimulus"]), names.index(b["stimulus"])
            square[i, j] = square[j, i] = np.hypot(a["x"] - b["x"], a["y"] - b["y"])
        vectors.append(square[np.triu_indices(7, 1)])
    assert np.nanmin(vectors) > 0.2  # below, its weights have a floor, which the paper's do not
    rdms = rsatoolbox.rdm.RDMs(np.array(vectors))
    aligned = rsatoolbox.rdm.combine.rescale(rdms, "evidence", threshold=1e-14)
    weights = aligned.rdm_descriptors["rescalingWeights"]
    theirs = np.nansum(aligned.dissimilarities * weights, axis=0) / np.nansum(weights, axis=0)
    np.testing.assert_allclose(mine, theirs / np.sqrt(np.mean(theirs**2)), rtol=1e-5)


def test_arrangements_by_subject_and_stimuli_on_one_spot():
    points = np.random.default_rng(2).normal(size=(5, 2))
    points[1] = points[0]
    table = arrangements(points, [range(5), (0, 1, 2)])
    both = pd.concat([table.assign(subject="p"), table.assign(subject="q", x=3 * table["x"], y=3 * table["y"])])
    rdms = arrangement_rdm(both, ids=[f"i{k:02d}" for k in (4, 3, 2, 1, 0, 9)], subject="subject")
    assert rdms["subject"].values.tolist() == ["p", "q"]
    np.testing.assert_allclose(rdms["dissimilarity"][0], rdms["dissimilarity"][1])
    np.testing.assert_allclose(9 * rdms["evidence"][0], rdms["evidence"][1])
    square = squares(rdms)[0]
    assert square[3, 4] == 0
    assert np.isnan(square[5, :5]).all()
    distance = np.linalg.norm(points[2] - points[0]) / np.linalg.norm(points[3] - points[0])
    assert square[2, 4] / square[1, 4] == pytest.approx(distance)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.assign(stimulus=t["stimulus"].replace("i01", "i00")), InputError, "'i00' twice"),
        (lambda t: t.assign(x=t["x"].where(t["stimulus"] != "i02")), InputError, "'x' holds 'nan' in row 2"),
        (lambda t: t.assign(x=0.0, y=1.0), DataError, "one spot in every trial"),
        (lambda t: t[:4], InputError, "shows 1 stimulus"),
        (lambda t: t.drop(columns="y"), InputError, "no column 'y'"),
    ],
)
def test_bad_arrangements_are_named(change, error, words):
    table = arrangements(np.random.default_rng(0).normal(size=(3, 2)), [range(3), range(2)])
    with pytest.raises(error, match=words):
        arrangement_rdm(change(table))


def test_arrangements_that_nothing_links_are_refused():
    table = arrangements(np.random.default_rng(0).normal(size=(6, 2)), [(0, 1, 2), (2, 3, 4, 5)])
    with pytest.raises(DataError, match=r"'t[01]' of 'arrangements' shares no pair"):
        arrangement_rdm(table)
    with pytest.raises(InputError, match="'i05' was shown"):
        arrangement_rdm(table, ids=[f"i0{k}" for k in range(5)])


# --------------------------------------------------------------------------------------------------------- figures


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_ylabel(), axes.get_xlabel(), axes.get_title(loc="left")]
        found += [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_figures_say_what_was_measured():
    trials = table(3, 40)
    confused = behaviour.confusion(trials, "right")
    figure = behaviour_plot.plot(confused)
    assert {"Class shown", "Answer", "a", "d"} <= set(texts(figure))
    assert "trials unanswered" in behaviour_plot.caption(confused)
    assert "Confusion matrix of 4 classes" in behaviour_plot.alt_text({"people": confused})
    both = behaviour_plot.plot({"people": confused, "network": confused})
    assert {"people", "network"} <= set(texts(both))
    consistent = behaviour.error_consistency(trials, "right", n_bootstrap=20)
    shown = texts(behaviour_plot.plot(consistent))
    assert {"s0", "s2", "Error consistency κ"} <= set(shown)
    assert plotting.short(float(consistent["kappa"][0, 1])) in shown
    assert "95 % bootstrap over stimuli" in behaviour_plot.caption(consistent)
    assert "mean" in behaviour_plot.alt_text(consistent)


def test_the_figure_of_the_shape_bias_has_a_row_a_category_and_a_mark_an_observer():
    trials = table(3, 80)
    texture = {f"i{k:03d}": "abcd"[(k // 4) % 4] for k in range(80)}
    bias = behaviour.shape_bias(trials, "right", texture, n_bootstrap=50)
    network = behaviour.shape_bias(trials[trials["subject"] == "s0"], "right", texture, n_bootstrap=0)
    figure = behaviour_plot.plot({"people": bias, "network": network})
    assert {"people", "network", "a", "b", "c", "d", "← all by texture"} <= set(texts(figure))
    (axes,) = figure.axes
    marks = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(marks["people"].get_xdata(), bias["by_category"])
    assert len([line for line in axes.lines if line.get_marker() == "."]) == 3  # subjects, of people alone
    assert "people: " in behaviour_plot.caption({"people": bias, "network": network})
    assert "from" in behaviour_plot.alt_text(bias)
    assert plotting.short(float(bias["shape_bias"]), 3) in behaviour_plot.caption(bias)


def test_what_has_no_figure_is_refused():
    trials = table(3, 40)
    with pytest.raises(InputError, match="no figure of split_half"):
        behaviour_plot.plot(behaviour.split_half(trials, "right", n_splits=2))
    with pytest.raises(InputError, match="no figure of confusion, error_consistency"):
        behaviour_plot.plot(
            {
                "a": behaviour.confusion(trials, "right"),
                "b": behaviour.error_consistency(trials, "right", n_bootstrap=0),
            }
        )
    other = behaviour.confusion(trials[trials["right"] != "d"], "right")
    with pytest.raises(InputError, match="'b' has other classes than 'a'"):
        behaviour_plot.plot({"a": behaviour.confusion(trials, "right"), "b": other})


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: behaviour.confusion(t, "rihgt"), "no column 'rihgt'; nearest: 'right'"),
        (lambda t: behaviour.confusion(t, {"i000": "a"}), "59 stimuli have no label"),
        (lambda t: behaviour.confusion(5, "right"), "type int"),
        (lambda t: behaviour.confusion({"a": [1], "b": [1, 2]}, "a"), "lengths"),
        (lambda t: behaviour.error_consistency(t[t["subject"] == "s0"], "right"), "has 1; give two"),
        (lambda t: behaviour.error_consistency(pd.concat([t, t[:1]]), "right"), "'i000' 2 times"),
        (lambda t: behaviour.shape_bias(t, "right", "right"), "tells them apart"),
        (lambda t: behaviour.split_half(t), "give one"),
        (lambda t: behaviour.split_half(t, value="right"), "no finite number"),
        (lambda t: behaviour.split_half(t[t["subject"] == "s0"], "right"), "one subject"),
        (lambda t: behaviour.split_half(t[t["subject"] == "s0"], "right", over="trial"), "no stimulus has two trials"),
        (lambda t: behaviour.split_half(t[t["stimulus"] < "i002"], "right"), "2 stimuli"),
        (lambda t: odd_one_out([["a", "b", "b"]], ["a"]), "twice"),
        (lambda t: odd_one_out([["a", "b", "c"]], ["d"]), "not among"),
        (lambda t: odd_one_out([["a", "b", "c"]], ["a"], ids=["a", "b"]), "'c' was shown"),
        (lambda t: signature([[0.5, 2]], ["a"], ["a", "b"]), "'b' has no stimuli"),
        (lambda t: signature([[0.5, 2], [1, 1]], ["a", "b"], ["a", "b"]), r"0\.5 to 2"),
        (lambda t: signature([[0.5, 1], [1, 1]], ["a", "q"], ["a", "b"]), "'q' is not among"),
        (lambda t: signature([[0.5, 1], [1, 1]], ["a", "b"], ["a", "b"], "i3"), "no signature"),
        (lambda t: pair_hit_rates([[0.5, -1], [1, 1]], ["a", "b"], ["a", "b"]), "negative"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call(table())


def test_whole_numbers_and_missing_ones_read_as_words():
    trials = {"stimulus": [1, 1, 2], "response": [1.0, np.nan, 0.0]}
    assert behaviour.choice_rates(trials)["response"].values.tolist() == ["0", "1"]


# ----------------------------------------------------------------------------------------------------- known values


@pytest.fixture(scope="module")
def cue_conflict():
    return pd.read_csv(DATA / "geirhos2019_cue_conflict" / "human_trials.csv", keep_default_na=False)


@needs("geirhos2019_cue_conflict")
def test_cue_conflict_shape_bias_and_reliability_are_the_published_ones(cue_conflict):
    bias = behaviour.shape_bias(cue_conflict, "shape_category", "texture_category", stimulus="image", n_bootstrap=200)
    assert float(bias["shape_bias"]) == pytest.approx(0.959, abs=0.001)
    assert int(bias["n_without_conflict"]) == 800  # 80 images, 10 subjects
    assert int(bias["n_shape"]) == 9236
    assert float(bias["interval_low"]) < 0.959 < float(bias["interval_high"])
    # All 1280 images, unanswered trials wrong, halves of five subjects.
    half = behaviour.split_half(cue_conflict, "shape_category", stimulus="image")
    assert float(half["reliability"]) == pytest.approx(0.837, abs=0.01)
    counted = behaviour.confusion(cue_conflict, "shape_category", stimulus="image")
    assert int(counted["n_unanswered"].sum()) == 131
    assert counted["count"].shape == (16, 16)


@needs("geirhos2019_cue_conflict")
def test_people_err_on_the_same_cue_conflict_images(cue_conflict):
    result = behaviour.error_consistency(cue_conflict, "shape_category", stimulus="image", n_bootstrap=100)
    wide = cue_conflict.assign(ok=cue_conflict["response"] == cue_conflict["shape_category"]).pivot(
        index="image", columns="subject", values="ok"
    )
    pairs = [cohen_kappa_score(wide[a], wide[b]) for k, a in enumerate(wide) for b in list(wide)[:k]]
    assert float(result["mean_kappa"]) == pytest.approx(np.mean(pairs), abs=1e-10)
    assert 0.25 < float(result["mean_low"]) < float(result["mean_high"]) < 0.5


@needs("kar2021_face_emotion")
def test_emotion_judgements_are_as_reliable_as_published():
    trials = pd.read_csv(DATA / "kar2021_face_emotion" / "trials.csv")
    control = trials[trials["group"] == "ASD_Ctrl"]
    for over, known in (("subject", 0.987), ("trial", 0.996)):
        result = behaviour.split_half(control, value="response_happy", stimulus="image", over=over)
        assert float(result["reliability"]) == pytest.approx(known, abs=0.01 if over == "subject" else 0.003)


def test_modules_document_their_sources():
    assert "Rajalingham" in behaviour_signatures.signature.__doc__
    assert "Geirhos" in behaviour.error_consistency.__doc__
