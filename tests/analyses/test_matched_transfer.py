"""Transfer by matched populations: planted correspondence, both controls, and the plain loop."""

import numpy as np
import pytest
import xarray as xr
from sklearn.svm import SVC

from actkit import plotting
from actkit.analyses import matched_transfer_plot
from actkit.analyses.matched_transfer import transfer, without_category_means
from actkit.analyses.unit_matching import match_units
from actkit.errors import InputError


def planted(n=150, n_neurons=12, n_units=60, signal=1.5, noise=0.7, seed=0):
    """Units tuned to three categories, and neurons that copy one unit each."""
    rng = np.random.default_rng(seed)
    y = np.array(["cat", "car", "cup"])[np.arange(n) % 3]
    means = rng.normal(size=(3, n_units))
    units = signal * means[np.arange(n) % 3] + rng.normal(size=(n, n_units))
    chosen = rng.permutation(n_units)[:n_neurons]
    values = units[:, chosen] * rng.uniform(2, 9, n_neurons) + 30 + noise * 5 * rng.normal(size=(n, n_neurons))
    ids = [f"i{k}" for k in range(n)]
    neurons = xr.DataArray(
        values,
        dims=("stimulus", "neuron"),
        coords={"stimulus": ids, "neuron": [f"n{k}" for k in range(n_neurons)], "category": ("stimulus", y)},
    )
    source = {"fc": xr.DataArray(units, dims=("stimulus", "unit"), coords={"stimulus": ids})}
    return source, neurons, y


@pytest.fixture(scope="module")
def matched():
    source, neurons, y = planted()
    return source, neurons, y, match_units(source, neurons, n_permutations=0)


def test_planted_units_transfer_and_both_controls_fail(matched):
    source, neurons, _, match = matched
    result = transfer(match, source, neurons, "category", n_permutations=19)
    assert float(result["transfer"][0]) > 0.8
    assert float(result["units"][0]) > 0.8
    assert float(result["neurons"][0]) > 0.8
    assert float(result["null_labels"].mean()) == pytest.approx(1 / 3, abs=0.08)
    assert float(result["null_match"].mean()) < 0.6
    assert float(result["null_random"].mean()) < 0.6
    for name in ("p_labels", "p_match", "p_random"):
        assert float(result[name][0]) == pytest.approx(1 / 20)
    assert float(result["interval_low"].sel(tested="transfer")[0]) < float(result["transfer"][0])
    np.testing.assert_allclose(result["confusion"].sum("decoded"), 1)
    diagonal = np.trace(result["confusion"].values, axis1=-2, axis2=-1) / 3
    np.testing.assert_allclose(result["balanced"], diagonal)
    np.testing.assert_allclose(result["balanced"].sel(tested="transfer"), result["transfer"])  # classes of one size
    assert result.identical(transfer(match, source, neurons, "category", n_permutations=19))


def test_transfer_is_the_plain_loop_whatever_the_order_of_the_rows(matched):
    source, neurons, y, match = matched
    units, fold = source["fc"].values, match["fold_of_stimulus"].values
    z, hits = {}, np.zeros(3)
    for f in range(5):
        train = fold != f
        z["a"] = units[:, match["unit"].values[:, f, 0]]
        z["b"] = neurons.values
        a, b = ((v - v[train].mean(0)) / v[train].std(0) / np.sqrt(12) for v in z.values())
        on_units, on_neurons = (
            SVC(kernel="linear").fit(a[train], y[train]),
            SVC(kernel="linear").fit(b[train], y[train]),
        )
        for k, (model, tested) in enumerate(((on_units, b), (on_units, a), (on_neurons, b))):
            hits[k] += (model.predict(tested[~train]) == y[~train]).sum()
    back = {"fc": source["fc"].isel(stimulus=slice(None, None, -1))}
    result = transfer(match, back, neurons.isel(stimulus=np.roll(np.arange(150), 7)), "category", n_permutations=2)
    got = [float(result[name][0]) for name in ("transfer", "units", "neurons")]
    np.testing.assert_allclose(got, hits / 150)


def test_random_units_and_the_curve_are_the_plain_loop(matched):
    source, neurons, y, match = matched
    result = transfer(match, source, neurons, "category", n_permutations=3, sizes=[12, 3], n_draws=2, seed=5)
    units, fold, b = source["fc"].values, match["fold_of_stimulus"].values, neurons.values
    chosen = match["unit"].values[:, :, 0]
    from actkit.resampling import generator

    def z(values, train):
        return (values - values[train].mean(0)) / values[train].std(0) / np.sqrt(values.shape[1])

    pool = np.setdiff1d(np.arange(60), chosen)
    for draw in range(3):
        drawn, hits = generator(5, draw).choice(pool, 12, replace=False), 0
        for f in range(5):
            train = fold != f
            model = SVC(kernel="linear").fit(z(units[:, drawn], train)[train], y[train])
            hits += (model.predict(z(b, train)[~train]) == y[~train]).sum()
        assert float(result["null_random"][0, draw]) == pytest.approx(hits / 150)
        assert not set(drawn) & set(chosen.ravel())
    for draw in range(2):
        some, hits, own = generator(5, draw + 3).permutation(12)[:3], 0, 0
        for f in range(5):
            train = fold != f
            on_units = SVC(kernel="linear").fit(z(units[:, chosen[some, f]], train)[train], y[train])
            on_neurons = SVC(kernel="linear").fit(z(b[:, some], train)[train], y[train])
            hits += (on_units.predict(z(b[:, some], train)[~train]) == y[~train]).sum()
            own += (on_neurons.predict(z(b[:, some], train)[~train]) == y[~train]).sum()
        assert float(result["curve"].sel(size=3)[0, draw]) == pytest.approx(hits / 150)
        assert float(result["curve_neurons"].sel(size=3)[0, draw]) == pytest.approx(own / 150)
    np.testing.assert_allclose(result["curve"].sel(size=12)[0], float(result["transfer"][0]))


def test_units_matched_without_category_means_still_transfer_where_they_are_planted(matched):
    source, neurons, y, match = matched
    left = without_category_means(neurons, "category")
    assert np.abs(left.groupby("category").mean().values).max() < 1e-9
    np.testing.assert_allclose(neurons.values - left.values, neurons.groupby("category").mean().sel(category=y).values)
    units = without_category_means(source["fc"].T, dict(zip(source["fc"]["stimulus"].values, y, strict=True)))
    assert units.dims == ("unit", "stimulus")
    beyond = match_units({"fc": units}, left, n_permutations=0)
    assert (beyond["unit"] == match["unit"]).mean() > 0.95
    result = transfer(beyond, source, neurons, "category", n_permutations=19)
    assert float(result["p_random"][0]) == pytest.approx(1 / 20)
    with pytest.raises(InputError, match="no 'stimulus'"):
        without_category_means(neurons.rename(stimulus="image"), "category")


def test_where_units_share_only_categories_random_units_do_as_well():
    """Neurons and units of one category signal without correspondence: the match is no better than chance units."""
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    ids = [f"i{k}" for k in range(120)]
    units = 3 * y[:, None] + rng.normal(size=(120, 40))
    values = 3 * y[:, None] + rng.normal(size=(120, 8))
    neurons = xr.DataArray(
        values, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": [f"n{k}" for k in range(8)]}
    )
    source = {"fc": xr.DataArray(units, dims=("stimulus", "unit"), coords={"stimulus": ids})}
    result = transfer(match_units(source, neurons, n_permutations=0), source, neurons, y, n_permutations=19)
    assert float(result["null_random"].mean()) > 0.9
    assert float(result["p_random"][0]) > 0.05


def test_a_shared_category_response_survives_a_permuted_match():
    """Where all neurons and units are alike, no correspondence is needed: the control tells."""
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    ids = [f"i{k}" for k in range(120)]
    units = 3 * y[:, None] + rng.normal(size=(120, 20))
    values = 3 * y[:, None] + rng.normal(size=(120, 8))
    neurons = xr.DataArray(
        values, dims=("stimulus", "neuron"), coords={"stimulus": ids, "neuron": [f"n{k}" for k in range(8)]}
    )
    source = {"fc": xr.DataArray(units, dims=("stimulus", "unit"), coords={"stimulus": ids})}
    match = match_units(source, neurons, n_permutations=0)
    result = transfer(match, source, neurons, y, n_permutations=19)
    assert float(result["transfer"][0]) > 0.9
    assert float(result["p_labels"][0]) == pytest.approx(1 / 20)
    assert float(result["p_match"][0]) > 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, n, m: transfer(m.drop_vars("unit"), s, n, "category"), "holds no units"),
        (lambda s, n, m: transfer(m, {"other": s["fc"]}, n, "category"), "not in the match"),
        (lambda s, n, m: transfer(m, s, n[:, ::-1], "category"), "in their order"),
        (lambda s, n, m: transfer(m, s, n[:100], "category"), "lack 50 stimuli"),
        (lambda s, n, m: transfer(m, s, n, ["x"] * 150), "nothing to decode"),
        (lambda s, n, m: transfer(m, s, n, "category", sizes=[13]), "sizes holds 13, and the match is of 12 neurons"),
        (lambda s, n, m: transfer(m, s, n, ["x"] + ["y"] * 149), "'x' is in fold"),
    ],
)
def test_bad_input_is_named(matched, call, words):
    source, neurons, _, match = matched
    with pytest.raises(InputError, match=words):
        call(source, neurons, match)


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_ylabel(), axes.get_xlabel(), axes.get_title(loc="left")]
        found += [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_figures_show_references_controls_confusions_and_the_curve(matched):
    source, neurons, _, match = matched
    result = transfer(match, source, neurons, "category", n_permutations=9, sizes=[2, 12], n_draws=3)
    figure = matched_transfer_plot.plot(result)
    shown = texts(figure)
    for words in ("trained on units, tested on neurons", "random units", "permuted match", "chance\n.333", "fc"):
        assert words in shown
    line = next(one for one in figure.axes[0].lines if one.get_label() == "trained on units, tested on neurons")
    np.testing.assert_allclose(line.get_ydata(), result["transfer"])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [float(result[f"null_{k}"].mean()) for k in ("random", "match", "labels")])
    assert {"Units to neurons", "cat", "Class decoded"} <= set(
        texts(matched_transfer_plot.plot(result, kind="confusion"))
    )
    assert {"units to neurons", "2", "12"} <= set(texts(matched_transfer_plot.plot(result, kind="curve")))
    for kind in ("accuracy", "confusion", "curve"):
        assert f"transfer {plotting.short(float(result['transfer'][0]))}" in matched_transfer_plot.caption(
            result, kind=kind
        )
        assert "category" in matched_transfer_plot.alt_text(result, kind=kind)
    with pytest.raises(InputError, match=r"run it with sizes"):
        matched_transfer_plot.plot(transfer(match, source, neurons, "category", n_permutations=1), kind="curve")
    with pytest.raises(InputError, match="no layer 'fd'"):
        matched_transfer_plot.plot(result, kind="confusion", layer="fd")
    with pytest.raises(InputError, match="no transfer"):
        matched_transfer_plot.plot(match)
