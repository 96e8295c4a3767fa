import json

import numpy as np
import pytest
import xarray as xr
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from actkit import plotting
from actkit.analyses import decoding, decoding_folds, decoding_plot
from actkit.analyses.classifiers import classify, scaled
from actkit.analyses.decoding import decode
from actkit.errors import InputError, LayerError


def planted(n=90, p=300, classes=3, signal=1.0, seed=0):
    """Patterns with a class mean of known size in unit noise, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    means = rng.normal(size=(classes, p))
    return rng.normal(size=(n, p)) + signal * means[y], np.array(["abcdef"[c] for c in y])


PLAIN = {
    "logistic": lambda: LogisticRegression(C=100, max_iter=20000, tol=1e-8),
    "ridge": lambda: RidgeClassifier(alpha=0.01),
    "svm": lambda: SVC(kernel="linear", C=100),
    "nearest_centroid": NearestCentroid,
}


@pytest.mark.parametrize("classifier", list(PLAIN))
@pytest.mark.parametrize("p", [20, 400])
def test_guesses_are_those_of_a_plain_pipeline(classifier, p):
    x, y = planted(p=p, signal=0.25 if p == 400 else 0.6)
    x = x * np.exp(np.random.default_rng(1).normal(size=p)) + 7  # units of unlike size, away from zero
    result = decode(x, y, classifier=classifier, folds=4, seed=3)
    expected = np.empty(len(y))
    splits = StratifiedKFold(4, shuffle=True, random_state=3).split(x, y)
    for number, (train, test) in enumerate(splits):
        scale = FunctionTransformer(lambda z: z / np.sqrt(p))
        pipeline = make_pipeline(StandardScaler(), scale, PLAIN[classifier]())
        expected[test] = pipeline.fit(x[train], y[train]).predict(x[test]) == y[test]
        assert (result["fold"].values[test] == number).all()
    np.testing.assert_array_equal(result["correct"].values[0], expected)
    assert 0.4 < expected.mean() < 0.99  # neither trivial nor hopeless, so that agreement means something
    assert float(result["accuracy"][0]) == pytest.approx(expected.mean())


def test_row_space_coordinates_keep_all_inner_products():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 50))
    fold = decoding_folds.Fold(np.arange(8), np.arange(8, 12))
    z = scaled(x, fold.train)
    train, test = decoding_folds.row_space(z @ z[fold.train].T, fold)
    assert train.shape == (8, 7)  # centring takes one direction away
    np.testing.assert_allclose(train @ train.T, z[:8] @ z[:8].T, atol=1e-10)
    np.testing.assert_allclose(test @ train.T, z[8:] @ z[:8].T, atol=1e-10)


def test_planted_signal_is_found_and_its_absence_too():
    x, y = planted(signal=0.5)
    noise = np.random.default_rng(5).normal(size=x.shape)
    result = decode({"early": noise, "late": x}, y, n_permutations=40, classifier="nearest_centroid")
    accuracy, p = result["accuracy"].values, result["p_value"].values
    assert accuracy[1] > 0.9
    assert p[1] == 1 / 40
    assert abs(accuracy[0] - 1 / 3) < 3 * np.sqrt(1 / 3 * 2 / 3 / 90)
    assert p[0] > 0.05
    assert (p >= result["p_uncorrected"].values).all()
    assert float(result["chance"]) == pytest.approx(1 / 3)


def test_shuffled_labels_are_at_chance_on_average_also_with_unequal_classes():
    rng = np.random.default_rng(0)
    x, _ = planted(n=60, p=100, signal=2.0)
    found = []
    for seed in range(12):
        y = rng.permutation(np.repeat(["a", "b"], [20, 40]))
        found.append(float(decode(x, y, classifier="ridge", seed=seed)["accuracy"][0]))
    # Guessing by frequency gets 5/9, always saying "b" 2/3: nothing learnt lies about there, and never far above.
    assert 0.45 < np.mean(found) < 0.68


def test_the_null_is_uniform_under_the_null():
    p_values = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        result = decode(
            rng.normal(size=(30, 40)),
            np.arange(30) % 2,
            classifier="nearest_centroid",
            folds=3,
            n_permutations=12,
            seed=seed,
        )
        p_values.append(float(result["p_value"][0]))
    assert np.mean(np.array(p_values) <= 0.25) < 0.5
    assert 0.35 < np.mean(p_values) < 0.7


def test_nothing_of_the_held_out_stimuli_leaks_into_training():
    x, y = planted(n=40, p=200, signal=0.3)
    split = np.where(np.arange(40) < 30, "train", "test")
    before = decode(x, y, split=split)
    spoiled = x.copy()
    spoiled[35] *= 1e6  # one held-out stimulus out of scale must change its own guess only
    after = decode(spoiled, y, split=split)
    same = np.arange(40) != 35
    np.testing.assert_array_equal(before["correct"].values[0, same], after["correct"].values[0, same])
    assert np.isnan(before["correct"].values[0, :30]).all()
    assert before.attrs["n_held_out"] == 10
    assert (before["fold"].values == np.where(split == "train", -1, 0)).all()


def test_axes_fitted_to_held_out_stimuli_are_refused():
    x, y = planted(n=30, p=10)
    ids = [f"s{i}" for i in range(30)]
    array = xr.DataArray(x, dims=("stimulus", "unit"), coords={"stimulus": ids})
    array.attrs = {"reduced": "pca", "pca_fit_stimuli": ids[:20]}
    with pytest.raises(InputError, match="20 of which are held out here"):
        decode({"fc": array}, y)
    halves = np.where(np.arange(30) < 20, "train", "test")
    assert decode({"fc": array}, y, split=halves).attrs["n_held_out"] == 10


def test_selecting_units_on_all_stimuli_would_be_caught():
    # The classic mistake, to show that the material can reveal it: noise, units chosen with the test set in view.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5000)), np.arange(40) % 2
    chosen = np.argsort(-np.abs(x[y == 0].mean(axis=0) - x[y == 1].mean(axis=0)))[:20]
    assert float(decode(x[:, chosen], y)["accuracy"][0]) > 0.85
    assert float(decode(x, y)["accuracy"][0]) < 0.75


def test_the_discriminant_analysis_of_a_wide_layer_is_that_of_all_its_units():
    x, y = planted(p=400, signal=0.25)
    x = x * np.exp(np.random.default_rng(1).normal(size=400)) + 7
    result = decode(x, y, classifier="lda", folds=4, seed=3)
    expected = np.empty(len(y))
    for train, test in StratifiedKFold(4, shuffle=True, random_state=3).split(x, y):
        z = StandardScaler().fit(x[train]).transform(x)
        means = np.stack([z[train][y[train] == c].mean(0) for c in "abc"])
        residual = z[train] - means[np.searchsorted(list("abc"), y[train])]
        covariance = ledoit_wolf(residual, assume_centered=True)[0]
        w = np.linalg.solve(covariance, means.T)
        prior = np.log([np.mean(y[train] == c) for c in "abc"])
        score = z[test] @ w - 0.5 * np.diag(means @ w) + prior
        expected[test] = np.array(list("abc"))[score.argmax(1)] == y[test]
    np.testing.assert_array_equal(result["correct"].values[0], expected)
    assert 0.4 < expected.mean() < 0.99
    np.testing.assert_array_equal(
        classify(np.eye(3)[[0, 0, 1]], np.array(list("aab")), np.eye(3)[:2], "lda"), ["a", "b"]
    )


def crossed(n=120, p=300, invariant=1.0, signal=0.5, seed=0):
    """Three classes at two places; class means shared over places in the share `invariant`."""
    rng = np.random.default_rng(seed)
    y, place = np.arange(n) % 3, np.arange(n) // 3 % 2
    means = np.sqrt(invariant) * rng.normal(size=(3, 1, p)) + np.sqrt(1 - invariant) * rng.normal(size=(3, 2, p))
    x = rng.normal(size=(n, p)) + signal * means[y, place] + 2 * rng.normal(size=(2, p))[place]
    return x, np.array(list("abc"))[y], np.array(["left", "right"])[place]


def test_cross_decoding_is_the_plain_loop_over_conditions():
    x, y, place = crossed(signal=0.2)
    result = decode(x, y, condition=place, folds=4, classifier="ridge")
    strata = np.char.add(y, place)
    right = np.zeros((2, 2))
    confusion = np.zeros((2, 2, 3, 3))
    names = ["left", "right"]
    for train, test in StratifiedKFold(4, shuffle=True, random_state=0).split(x, strata):
        for i, a in enumerate(names):
            rows = train[place[train] == a]
            scale = FunctionTransformer(lambda z: z / np.sqrt(300))
            model = make_pipeline(StandardScaler(), scale, RidgeClassifier(alpha=0.01)).fit(x[rows], y[rows])
            for j, b in enumerate(names):
                held = test[place[test] == b]
                guess = model.predict(x[held])
                right[i, j] += (guess == y[held]).sum()
                for t, g in zip(y[held], guess, strict=True):
                    confusion[i, j, "abc".index(t), "abc".index(g)] += 1
    np.testing.assert_allclose(result["cross"].values[0], right / 60)
    np.testing.assert_allclose(result["confusion"].values[0], confusion / 20)
    assert float(result["accuracy"][0]) == pytest.approx(np.trace(right) / 120)
    assert float(result["across"][0]) == pytest.approx((right[0, 1] + right[1, 0]) / 120)
    assert 0.4 < float(result["across"][0]) < 0.99
    assert result["cross"].dims == ("layer", "train", "test")
    assert json.loads(result.attrs["inputs"]).keys() == {"source", "labels", "condition"}


def test_a_shared_code_crosses_conditions_and_a_code_of_each_does_not():
    shared, y, place = crossed(signal=0.6)
    own = crossed(signal=0.6, invariant=0.0)[0]
    result = decode(
        {"own": own, "shared": shared}, y, condition=place, classifier="nearest_centroid", n_permutations=40, folds=3
    )
    assert (result["accuracy"] > 0.9).all()
    assert (result["p_value"] == 1 / 40).all()
    assert float(result["across"][1]) > 0.9
    assert float(result["across"][0]) < 0.6
    assert float(result["p_across"][1]) < 0.5  # six ways to rename three classes, over two layers
    assert float(result["p_across"][0]) >= float(result["p_across"][1])
    assert plotting.caption(result)
    with pytest.raises(InputError, match="'c' does not occur in condition 'left'"):
        decode(shared, y, condition=np.where(y == "c", "right", "left"))
    with pytest.raises(InputError, match="nothing to cross"):
        decode(shared, y, condition=["x"] * 120)
    held = (place == "left") & (np.arange(120) > 60)
    with pytest.raises(InputError, match="no stimulus of condition 'right' is held out"):
        decode(shared, y, condition=place, split=np.where(held, "test", "train"))


def test_the_curve_by_number_of_units_is_the_plain_loop_and_rises():
    x, y = planted(n=60, p=150, signal=0.5)
    result = decode({"l": x}, y, sizes=[100, 5, 20], n_draws=3, classifier="nearest_centroid", memory="300kB")
    from actkit.resampling import generator

    for draw in range(3):
        units = generator(0, draw).choice(150, 100, replace=False)
        for size in (5, 20, 100):
            plain = decode({"l": x[:, units[:size]]}, y, classifier="nearest_centroid")
            got = float(result["curve"].sel(size=size)[0, draw])
            assert got == pytest.approx(float(plain["accuracy"][0]))
    curve = result["curve"][0].mean("draw").values
    assert curve[0] < curve[1] < curve[2]
    with pytest.raises(InputError, match="holds 151, and layer 'l' has 150 units"):
        decode({"l": x}, y, sizes=[151])
    xc, yc, place = crossed(signal=1.0)
    both = decode(xc, yc, condition=place, sizes=[10, 200], n_draws=2, classifier="nearest_centroid")
    assert (both["curve_across"][0, 1] > both["curve_across"][0, 0]).all()


def test_confusions_are_shares_of_each_class():
    x, y = planted(n=90, p=40, signal=0.4)
    result = decode(x, y)
    np.testing.assert_allclose(result["confusion"].sum("decoded"), 1)
    diagonal = np.diag(result["confusion"].values[0])
    correct = result["correct"].values[0]
    np.testing.assert_allclose(diagonal, [correct[y == c].mean() for c in "abc"])


def test_groups_stay_whole():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 4)  # 20 photographs, 4 crops each; the photograph gives the class away by heart
    y = np.where(np.arange(20) % 2, "x", "y")[group]
    x = rng.normal(size=(20, 60))[group] + 0.1 * rng.normal(size=(80, 60))
    leaky, honest = decode(x, y), decode(x, y, groups=group)
    assert float(leaky["accuracy"][0]) > 0.95
    assert float(honest["accuracy"][0]) < 0.75
    for name in np.unique(group):
        assert len(set(honest["fold"].values[group == name])) == 1
    tested = decode(x, y, groups=group, n_permutations=50, classifier="ridge", folds=4)
    assert 0 < float(tested["p_value"][0]) <= 1
    assert "20 groups kept whole" in honest.attrs["splitting"]


def test_permutations_respect_folds_and_groups():
    options, everywhere = decoding.DecodingOptions(n_permutations=30), np.full(8, "all")
    y, where = np.array(list("aabbaabb")), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    for shuffled in decoding._shuffles(y, where, everywhere, None, options):
        assert sorted(shuffled[:4]) == list("aabb")
    group = np.array(list("ppqqrrss"))
    for shuffled in decoding._shuffles(y, where, everywhere, group, options):
        assert all(len(set(shuffled[group == name])) == 1 for name in "pqrs")
    mixed = np.array(list("pqpqrsrs"))
    for shuffled in decoding._shuffles(y, where, everywhere, mixed, options):
        assert all(sorted(shuffled[mixed == name]) == ["a", "b"] for name in "pqrs")
    with pytest.raises(InputError, match="changes nothing"):
        decoding._shuffles(np.array(list("aabb")), np.array([0, 0, 1, 1]), np.full(4, "all"), None, options)


def test_wide_layers_are_read_in_blocks_with_the_same_result():
    x, y = planted(n=60, p=2000, signal=0.2)
    whole = decode({"l": x}, y)
    cut = decode({"l": x}, y, memory="400kB")
    np.testing.assert_array_equal(whole["correct"].values, cut["correct"].values)
    with pytest.raises(InputError, match="too small for layer 'l'"):
        decode({"l": x}, y, memory="20kB")


def test_labels_by_name_by_id_and_by_array():
    x, y = planted(n=30, p=10)
    array = xr.DataArray(
        x,
        dims=("stimulus", "unit"),
        coords={"stimulus": [f"s{i}" for i in range(30)], "animal": ("stimulus", y)},
        name="fc",
    )
    by_name = decode(array, "animal")
    by_id = decode(array, {f"s{i}": y[i] for i in reversed(range(30))})
    turned = xr.DataArray(
        y[::-1], dims="stimulus", coords={"stimulus": [f"s{i}" for i in reversed(range(30))]}, name="animal"
    )
    for other in (by_id, decode(array, turned), decode(array, y)):
        np.testing.assert_array_equal(by_name["correct"].values, other["correct"].values)
    assert by_name.attrs["label"] == "animal"
    assert decode(array, turned).attrs["label"] == "animal"
    assert json.loads(by_name.attrs["classes"]) == {"a": 10, "b": 10, "c": 10}
    with pytest.raises(InputError, match="nearest: 'animal'"):
        decode(array, "animals")


def test_refusals():
    x, y = planted(n=30, p=10)
    with pytest.raises(InputError, match="all 30 stimuli are 'k'"):
        decode(x, ["k"] * 30)
    with pytest.raises(InputError, match=r"\(29,\) does not fit 30"):
        decode(x, y[:29])
    with pytest.raises(InputError, match=r"'rare' has 2 stimuli, fewer than the 5 folds.*folds=2"):
        decode(x, ["rare"] * 2 + ["common"] * 28)
    with pytest.raises(InputError, match="has NaN"):
        decode(x, np.r_[np.nan, np.ones(29)])
    with pytest.raises(InputError, match="'valid'; every stimulus"):
        decode(x, y, split=["train"] * 20 + ["valid"] * 10)
    with pytest.raises(InputError, match="could never be decoded"):
        decode(x, y, split=["train" if label != "c" else "test" for label in y])
    with pytest.raises(InputError, match="both halves"):
        decode(x, y, split=["train"] * 15 + ["test"] * 15, groups=["g"] * 30)
    with pytest.raises(InputError, match="4 groups cannot fill 5 folds"):
        decode(x, y, groups=np.arange(30) % 4)
    bad = x.copy()
    bad[7, 3] = np.nan
    with pytest.raises(InputError, match=r"'fc' holds NaN.*stimulus '7'"):
        decode({"fc": bad}, y)
    with pytest.raises(LayerError, match="'fc'"):
        decode({"fc": x}, y, layers=["fd"])


def test_dead_and_constant_units_do_no_harm():
    x, y = planted(n=30, p=40, signal=1.0)
    dead = np.c_[x, np.full((30, 5), 0.1), np.zeros((30, 5))]
    np.testing.assert_array_equal(
        decode({"l": x}, y, classifier="nearest_centroid")["correct"],
        decode({"l": dead}, y, classifier="nearest_centroid")["correct"],
    )
    flat = decode({"small": np.ones((30, 3)), "wide": np.full((30, 300), 0.1)}, y)
    assert (np.abs(flat["accuracy"].values - 1 / 3) < 0.2).all()


def test_errors_are_binomial_and_intervals_wilson():
    x, y = planted(n=50, p=10, classes=2, signal=0.4)
    result = decode(x, y)
    a = float(result["accuracy"][0])
    assert float(result["error"][0]) == pytest.approx(np.sqrt(a * (1 - a) / 50))
    z = 1.959963984540054
    centre, half = (a + z**2 / 100) / (1 + z**2 / 50), z / (1 + z**2 / 50) * np.sqrt(a * (1 - a) / 50 + z**2 / 10000)
    np.testing.assert_allclose([result["interval_low"][0], result["interval_high"][0]], [centre - half, centre + half])


def test_results_repeat_and_keep_their_question():
    x, y = planted(n=30, p=60)
    first, again = (decode({"a": x}, y, n_permutations=10, seed=4) for _ in range(2))
    xr.testing.assert_identical(first, again)
    assert json.loads(first.attrs["options"])["seed"] == 4
    assert set(json.loads(first.attrs["inputs"])) == {"source", "labels"}
    assert np.isnan(decode({"a": x}, y)["p_value"].values).all()


def test_the_figure_says_what_it_shows():
    x, y = planted(signal=0.5)
    noise = np.random.default_rng(5).normal(size=x.shape)
    result = decode({"b.0": noise, "b.1": x}, y, n_permutations=40, classifier="nearest_centroid")
    figure = plotting.plot(result)
    words = [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]
    words += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "chance .33" in words
    assert "n.s." in words
    assert any("90 held-out stimuli; bands: 95 % interval" in word for word in words)
    caption = plotting.caption(result)
    for part in (
        "3 classes",
        "nearest class mean",
        "5-fold",
        "training stimuli alone",
        "maximum statistic over 2 layers",
        "descriptive",
    ):
        assert part in caption
    untested = decode({"x": noise}, y)
    both = decoding.plot({"net": result, "other": untested})
    legend = [text.get_text() for found in both.legends for text in found.get_texts()]
    assert legend[0].startswith("net  (highest")
    assert legend[1].startswith("other  (highest")
    assert "No significance" in decoding_plot.caption(untested)
    assert "chance is .33" in decoding_plot.alt_text(untested)
    with pytest.raises(InputError, match="not a decoding result"):
        decoding.plot({"net": xr.Dataset()})


def test_figures_of_one_layer_show_confusions_conditions_and_the_curve():
    x, y, place = crossed(signal=0.4)
    result = decode(
        {"b.0": np.roll(x, 1, axis=0), "b.1": x}, y, condition=place, sizes=[10, 100], n_draws=2, n_permutations=3,
        classifier="nearest_centroid",
    )  # fmt: skip
    best = int(result["accuracy"].values.argmax())
    shown = {kind: decoding.plot(result, kind=kind) for kind in ("confusion", "cross", "curve")}
    words = {kind: [t.get_text() for axes in figure.axes for t in axes.texts] for kind, figure in shown.items()}
    assert plotting.short(float(result["cross"][best, 0, 1])) in words["cross"]
    assert len(words["confusion"]) == 2 * 9
    assert "chance .333" in words["curve"]
    labels = [line.get_label() for line in shown["curve"].axes[0].lines]
    assert {"within conditions", "across conditions"} <= set(labels)
    for kind, part in (("confusion", "Commonest across conditions"), ("cross", "renamed"), ("curve", "10 to 100")):
        assert part in plotting.caption(result, kind=kind)
        assert "b." in plotting.alt_text(result, kind=kind, layer="b.0")
    plain = decode(x, y, classifier="nearest_centroid")
    assert "taken for" in plotting.caption(plain, kind="confusion")
    for kind, cure in (("cross", "condition="), ("curve", "sizes=")):
        with pytest.raises(InputError, match=cure):
            decoding.plot(plain, kind=kind)
    with pytest.raises(InputError, match="'bars'"):
        decoding.plot(plain, kind="bars")
    with pytest.raises(InputError, match=r"no layer 'b\.2'"):
        decoding.plot(result, kind="cross", layer="b.2")
