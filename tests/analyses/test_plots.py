import json

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from actkit import plotting
from actkit.analyses import rdm_plot, rsa_plot, time_resolved_plot
from actkit.analyses.embedding import embed
from actkit.errors import InputError
from actkit.recordings import rdm_dataset


def rsa_result(networks=(("net", 8),), references=True, n_subjects=5, simulated=False, **attrs):
    """A result that obeys the contract of actkit.rsa, with chosen numbers."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{name}/b.{i}", name, f"b.{i}", "layer", i, 0.1 + 0.2 * i / n - 0.01 * k)
        for k, (name, n) in enumerate(networks)
        for i in range(n)
    ]
    if references:
        rows += [
            ("animacy", "labels", "animacy", "model", 0, 0.378),
            ("faces", "labels", "faces", "model", 1, 0.1),
            ("pixels/rgb", "pixels", "rgb", "control", 0, 0.03),
        ]
    mean = np.array([row[5] for row in rows])
    noise = rng.normal(0, 0.05, (len(rows), n_subjects))
    return xr.Dataset(
        {
            "score": (("model", "subject"), mean[:, None] + noise - noise.mean(axis=1, keepdims=True)),
            "mean": ("model", mean),
            "sem_subject": ("model", np.full(len(rows), 0.01)),
            "sem_stimulus": ("model", np.full(len(rows), 0.02)),
            "error": ("model", np.full(len(rows), 0.02)),
            "interval_low": ("model", mean - 0.05),
            "interval_high": ("model", mean + 0.07),
            "p_value": ("model", np.where(mean > 0.16, 0.001, 0.5)),
            "ceiling_lower": 0.477,
            "ceiling_upper": 0.577,
        },
        coords={
            "model": [row[0] for row in rows],
            "network": ("model", [row[1] for row in rows]),
            "layer": ("model", [row[2] for row in rows]),
            "kind": ("model", [row[3] for row in rows]),
            "position": ("model", [row[4] for row in rows]),
            "subject": [f"s{i}" for i in range(n_subjects)],
        },
        attrs={
            "analysis": "rsa",
            "options": json.dumps({"n_draws": 1000}),
            "inputs": "{}",
            "compare": "spearman",
            "generalise_to": "stimulus",
            "data": "human_it",
            "n_stimuli": 92,
            "n_permutations": 10000,
            "test": "one-sided test, maximum statistic",
            "simulated": int(simulated),
            **attrs,
        },
    )


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts] + [axes.get_ylabel(), axes.get_xlabel(), axes.get_title()]
        found += [axes.get_title(loc="left"), axes.get_title(loc="right")]
        found += [label.get_text() for label in axes.get_xticklabels()]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return found


def test_rsa_figure_says_everything_it_must():
    words = " | ".join(texts(rsa_plot.plot(rsa_result())))
    assert "human IT" in words
    assert "± 1 standard error over stimuli" in words
    assert "noise ceiling  .48–.58" in words
    assert "Spearman ρ" in words
    assert "animacy  .378" in words
    assert "best layer  .275" in words
    assert "peak .275 at b.7" in words
    assert "descriptive" in words
    assert "p < .05" in words
    assert "5 subjects, 92 stimuli" in words
    assert "simulated" not in words


def test_rsa_panels_share_the_scale_and_show_numbers_where_they_are():
    result = rsa_result()
    figure = rsa_plot.plot(result)
    curves, side = figure.axes
    assert curves.get_ylim() == side.get_ylim()
    assert curves.get_ylim()[0] <= 0 < 0.577 < curves.get_ylim()[1]
    line = next(
        line
        for line in curves.lines
        if len(line.get_xdata()) == 8 and line.get_linestyle() == "-" and line.get_linewidth() == 2
    )
    np.testing.assert_allclose(line.get_ydata(), result["mean"].values[:8])
    filled = [line for line in curves.lines if line.get_marker() == "o" and line.get_markersize() == 5.5]
    by_face = {line.get_markerfacecolor(): list(line.get_ydata()) for line in filled}
    assert sorted(map(len, by_face.values())) == [3, 5]
    assert max(by_face["white"]) <= 0.16 < min(y for face, ys in by_face.items() if face != "white" for y in ys)
    bold = {text.get_text() for text in side.texts if text.get_fontweight() == "bold"}
    assert bold == {"animacy  .378", "best layer  .275"}


def test_rsa_bands_follow_the_request():
    result = rsa_result(references=False)
    band = rsa_plot.plot(result).axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(result["mean"].values.max() + 0.02)
    wider = rsa_plot.plot(result, bands="interval").axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert wider.max() == pytest.approx(result["mean"].values.max() + 0.07)
    assert "95 % confidence interval" in rsa_plot.caption(result, bands="interval")
    with pytest.raises(InputError, match="bands is 'sd'"):
        rsa_plot.plot(result, bands="sd")


@pytest.mark.parametrize("networks", [(("a", 8), ("b", 8)), (("a", 5), ("b", 11), ("c", 1)), (("deep", 200),)])
@pytest.mark.parametrize("narrow", [False, True])
def test_rsa_figure_takes_any_networks(networks, narrow):
    figure = rsa_plot.plot(rsa_result(networks), narrow=narrow)
    width, height = figure.get_size_inches()
    assert (width < 6) if narrow else (width > height)
    words = texts(figure)
    for name, _ in networks:
        assert any(word.startswith(f"{name}  (peak") for word in words)
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert len(labels) <= 40
    for axes in figure.axes:  # nothing that must be read lies outside the page
        box = axes.get_position()
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        for text in axes.texts:
            extent = text.get_window_extent(renderer)
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.x1 + 1


def test_rsa_without_layers_is_a_dot_chart():
    result = rsa_result()
    models = result.isel(model=np.flatnonzero(result["kind"].values != "layer"))
    figure = rsa_plot.plot(models)
    assert len(figure.axes) == 1
    assert "model by model" in " ".join(texts(figure))
    assert "above every layer" not in rsa_plot.caption(models)


def test_rsa_with_gaps_still_draws():
    result = rsa_result()
    result["mean"][2] = np.nan
    result["p_value"][:] = np.nan
    result["ceiling_lower"] = np.nan
    figure = rsa_plot.plot(result)
    assert "noise ceiling" not in " ".join(texts(figure))
    assert "p < .05" not in texts(figure)
    assert "Without a score" in rsa_plot.caption(result)
    assert "net/b.2" in rsa_plot.caption(result)
    assert "nan" not in rsa_plot.alt_text(result.isel(model=slice(2, 8)))
    assert "No significance was tested" in rsa_plot.caption(result)


def test_rsa_caption_says_why_a_model_can_pass_spearmans_ceiling():
    result = rsa_result()
    assert "Above it" not in rsa_plot.caption(result)
    result["mean"] = result["mean"].where(result["model"] != "animacy", float(result["ceiling_upper"]) + 0.02)
    assert "Above it: animacy. Spearman's upper ceiling holds for RDMs without ties" in rsa_plot.caption(result)
    assert "Above it" not in rsa_plot.caption(result.assign_attrs(compare="pearson"))


def test_rsa_caption_is_complete():
    words = rsa_plot.caption(rsa_result())
    for part in (
        "Spearman ρ",
        "human IT (5 subjects, 92 stimuli)",
        "standard error over stimuli",
        "1,000 draws",
        "one-sided test, maximum statistic",
        ".477 to .577",
        "b.7 of net (.275)",
        "descriptive",
        "1 of 3 reference models scores above every layer: animacy (.378)",
    ):
        assert part in words
    assert "animacy  .378" in rsa_plot.alt_text(rsa_result())


def test_simulated_data_say_so():
    result = rsa_result(simulated=True)
    assert any("simulated" in word for word in texts(rsa_plot.plot(result)))
    assert any("simulated" in word for word in texts(rsa_plot.plot(result, title="My title")))
    assert "simulated data" in rsa_plot.caption(result)


def test_single_subjects_are_drawn_where_they_are_few():
    def thin(figure):
        return sum(line.get_linewidth() == 0.8 and len(line.get_xdata()) == 8 for line in figure.axes[0].lines)

    assert thin(rsa_plot.plot(rsa_result(n_subjects=5))) == 5
    assert thin(rsa_plot.plot(rsa_result(n_subjects=16))) == 0
    assert thin(rsa_plot.plot(rsa_result(n_subjects=16), subjects=True)) == 16


def test_rsa_refuses_other_datasets():
    with pytest.raises(InputError, match="not an RSA result"):
        rsa_plot.plot(xr.Dataset({"mean": ("model", [1.0])}))


def with_tests(result, below=("faces",), differ=(("animacy", "faces"),), correction="holm"):
    """The result with tests under the names that actkit.rsa gives them; the named models and pairs are significant."""
    names = [str(name) for name in result["model"].values]
    mean = result["mean"].values
    different = [{a, b} for a, b in differ]
    p = np.array([[0.01 if {a, b} in different else 0.5 for a in names] for b in names])
    np.fill_diagonal(p, np.nan)
    return result.assign(
        p_zero_corrected=("model", np.where(mean > 0.05, 0.02, 0.4)),
        p_below_ceiling_corrected=("model", [0.001 if name in below else 0.9 for name in names]),
        difference=(("model", "other_model"), mean[:, None] - mean[None]),
        p_difference_corrected=(("model", "other_model"), p),
    ).assign_attrs(correction=correction)


def reference_result(**more):
    result = rsa_result()
    return with_tests(result.isel(model=np.flatnonzero(result["kind"].values != "layer")), **more)


def lines_of(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def outside(figure):
    """How far what is drawn, words included, passes the page's edges: inches, at most 0 if all of it is on the page."""
    with plotting.style():
        figure.canvas.draw()
        box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


def test_model_chart_has_a_row_for_each_model_best_first():
    result = reference_result()
    figure = rsa_plot.plot(result)
    rows = [text.get_text() for text in figure.axes[0].texts]
    assert [word for word in rows if word in ("animacy", "faces", "pixels/rgb")] == ["animacy", "faces", "pixels/rgb"]
    assert [word for word in rows if word.startswith(".")] == [".38", ".10", ".03"]
    places = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line.get_markerfacecolor()
        for line in figure.axes[0].lines
        if line.get_markersize() == 7
    }
    assert list(places) == [(0.378, 0), (0.1, 1), (0.03, 2)]
    assert [face == "white" for face in places.values()] == [False, True, True]  # the permutation test, which was run
    dots = [line for line in figure.axes[0].lines if line.get_markersize() == 3.2]
    np.testing.assert_allclose([line.get_xdata() for line in dots], result["score"].values)


def test_model_chart_marks_follow_the_chosen_test():
    result = reference_result()

    def hollow(figure):
        return [
            float(line.get_xdata()[0])
            for line in figure.axes[0].lines
            if line.get_markersize() == 7 and line.get_markerfacecolor() == "white"
        ]

    assert hollow(rsa_plot.plot(result, test="zero")) == [0.03]
    assert hollow(rsa_plot.plot(result, test="permutation")) == [0.1, 0.03]
    untested = result.assign(p_value=result["p_value"] * np.nan)
    assert hollow(rsa_plot.plot(untested)) == [0.03]
    assert "one-sided t test of the mean against 0, generalising to new stimuli (Holm, over 3 models)" in (
        rsa_plot.caption(untested)
    )
    with pytest.raises(InputError, match="no permutation test"):
        rsa_plot.plot(untested, test="permutation")
    with pytest.raises(InputError, match="no t test against 0"):
        rsa_plot.plot(result.drop_vars("p_zero_corrected"), test="zero")
    with pytest.raises(InputError, match="test is 'sign'"):
        rsa_plot.plot(result, test="sign")


def test_model_chart_shows_which_are_below_the_ceiling_and_which_beat_which():
    result = reference_result(
        below=("faces", "pixels/rgb"), differ=(("animacy", "pixels/rgb"), ("faces", "pixels/rgb"))
    )
    figure = rsa_plot.plot(result)
    main, wings = figure.axes
    triangles = [patch.get_xy() for patch in main.patches if len(patch.get_xy()) == 4]
    assert [corner[:, 1].mean().round() for corner in triangles] == [1, 2]
    assert {corner[:, 0].max() for corner in triangles} == {0.477}
    assert [line.get_ydata()[0] for line in lines_of(wings, "o")] == [0, 1]
    ticks = [line for line in wings.lines if line.get_linewidth() == 2 and len(line.get_xdata()) == 2]
    assert [list(line.get_ydata()) for line in ticks] == [[2, 2], [2, 2]]
    words = " ".join(texts(figure))
    assert "better than each model with a tick" in words
    assert "below the ceiling, p < .05" in words
    caption = rsa_plot.caption(result)
    assert "one-sided t test, Holm, over 3 models); 2 of 3 are" in caption
    assert "two-sided t test of the difference, generalising to new stimuli (Holm, over 3 pairs of models)" in caption
    assert "2 of 3 pairs differ" in caption


def test_model_chart_without_differences_or_tests_says_so():
    figure = rsa_plot.plot(reference_result(differ=(), below=()))
    assert len(figure.axes) == 1
    assert "no two models differ significantly" in " ".join(texts(figure))
    assert "below the ceiling" not in " ".join(texts(figure))
    plain = rsa_result().isel(model=slice(8, 11))
    assert "pairs" not in rsa_plot.caption(plain)
    uncorrected = reference_result(correction="none")
    assert "not corrected for the number of tests" in rsa_plot.caption(uncorrected)


def test_chosen_models_keep_the_correction_over_all():
    result = reference_result()
    some = rsa_plot.caption(result, only=["animacy", "faces"])
    assert "over all pairs of the 3 compared" in some
    assert "1 of 1 pair differ" in some
    figure = rsa_plot.plot(result, only=["labels"])  # a network's name takes all of it
    assert "pixels/rgb" not in texts(figure)
    with pytest.raises(InputError, match=r"only names 'animals', which is no model; nearest: 'animacy'"):
        rsa_plot.plot(result, only=["animals"])


def test_captions_say_what_was_fitted_and_taken_out():
    result = reference_result().assign_coords(fit=("model", ["weighted", "fixed", "fixed"]))
    result.attrs |= {
        "partial": "freed of pixels: models and subjects",
        "cross_validation": "4 folds of stimuli",
        "null": "scores are 0 in the population",
    }
    for kind in ("models", "differences"):
        caption = rsa_plot.caption(result, kind=kind)
        assert "partial Spearman ρ" in caption
        assert "RDMs are freed of pixels: models and subjects." in caption
        assert "All scores are cross-validated: 4 folds of stimuli. Fitted to the training folds: animacy." in caption
        assert "Null hypothesis of the t tests: scores are 0 in the population." in caption
    assert any("partial Spearman ρ" in word for word in texts(rsa_plot.plot(result)))
    assert "semi-partial" in rsa_plot.caption(result.assign_attrs(options=json.dumps({"semipartial": True})))


def test_model_chart_takes_bars_and_layers():
    bars = rsa_plot.plot(reference_result(), style="bars").axes[0]
    assert [round(bar.get_width(), 3) for bar in bars.patches if hasattr(bar, "get_width")][-3:] == [0.378, 0.1, 0.03]
    layers = with_tests(rsa_result())
    words = texts(rsa_plot.plot(layers, kind="models"))
    assert {"b.7", "layers of net", "control", "model"} <= set(words)
    many = with_tests(rsa_result((("deep", 65),)))
    figure = rsa_plot.plot(many, kind="models")
    assert "the best 40 of 68 models" in " ".join(texts(figure))
    assert "Shown are the best 40 of 68." in rsa_plot.caption(many, kind="models")
    with pytest.raises(InputError, match="style is 'violins'"):
        rsa_plot.plot(layers, kind="models", style="violins")


def test_figures_that_do_not_fit_are_refused():
    models = reference_result()
    with pytest.raises(InputError, match="no layers"):
        rsa_plot.plot(models, kind="layers")
    with pytest.raises(InputError, match="kind is 'bars'"):
        rsa_plot.plot(models, kind="bars")
    with pytest.raises(InputError, match="no dim time"):
        rsa_plot.plot(models, kind="time")
    with pytest.raises(InputError, match="one score for each time"):
        rsa_plot.plot(timed_result(2), kind="models")
    with pytest.raises(InputError, match="no differences between models"):
        rsa_plot.plot(rsa_result(), kind="differences")


def cells(figure):
    """Place, size and colour of the matrix's cells."""
    (collection,) = figure.axes[0].collections
    corners = np.stack([path.vertices[:4] for path in collection.get_paths()])
    return corners.mean(axis=1), np.ptp(corners[:, :, 0], axis=1), collection.get_facecolors()


def test_matrix_cells_are_row_minus_column_and_full_where_significant():
    result = reference_result(differ=(("animacy", "pixels/rgb"),))
    figure = rsa_plot.plot(result, kind="differences")
    centres, sizes, colours = cells(figure)
    np.testing.assert_allclose(centres, [[0, 1], [0, 2], [1, 2]], atol=1e-9)  # pixels, faces, animacy: best last
    assert sizes.argmax() == 1
    np.testing.assert_allclose(sorted(sizes)[:2], 0.7)
    assert (colours[:, 1] > colours[:, 0]).all()  # green: the better model's row minus the worse one's column
    numbers = [text.get_text() for text in figure.axes[0].texts[:3]]
    assert numbers == [".07", ".35", ".28"]
    names = [text.get_text() for text in figure.axes[0].texts[3:]]
    assert names == ["pixels/rgb  .03", "faces  .10", "animacy  .38"]
    caption = rsa_plot.caption(result, kind="differences")
    assert "two-sided t test of the difference, generalising to new stimuli (Holm, over 3 pairs of models)" in caption
    assert "1 of 3 pairs differ" in caption
    assert "animacy minus pixels/rgb" in rsa_plot.alt_text(result, kind="differences")


def test_matrix_keeps_layers_in_depth_order_and_leaves_out_what_has_no_score():
    result = rsa_result((("a", 8), ("b", 30)))
    result["mean"][3] = np.nan
    result = with_tests(result)
    figure = rsa_plot.plot(result, kind="differences")
    assert len(cells(figure)[0]) == 40 * 39 / 2
    names = [text.get_text().split("  ")[0] for text in figure.axes[0].texts]
    assert names[:2] == ["a/b.0", "a/b.1"]
    assert "a/b.3" not in names
    assert "a/b.3" in rsa_plot.caption(result, kind="differences")
    assert "small cell: n.s." in texts(figure)
    only_one = result.isel(model=[0, 3], other_model=[0, 3])
    with pytest.raises(InputError, match="only 1 of 2 models have a score"):
        rsa_plot.plot(only_one, kind="differences")


def timed_result(n_models=3, n_layers=0, n_subjects=6, times=None, ceiling=True, **attrs):
    """A result over time: each model is up for a while after time 0, one after the other."""
    times = np.arange(-100, 500, 10.0) if times is None else np.asarray(times, dtype=float)
    n = n_models + n_layers
    mean = np.stack([0.3 / (i + 1) * np.exp(-(((times - 100 - 20 * i) / 60) ** 2)) for i in range(n)])
    noise = np.random.default_rng(0).normal(0, 0.01, (n, n_subjects, len(times)))
    names = [f"net/b.{i}" for i in range(n_layers)] + [f"m{i}" for i in range(n_models)]
    curve = ("model", "time")
    result = xr.Dataset(
        {
            "score": (("model", "subject", "time"), mean[:, None] + noise),
            "mean": (curve, mean),
            "error": (curve, np.full(mean.shape, 0.01)),
            "interval_low": (curve, mean - 0.03),
            "interval_high": (curve, mean + 0.03),
            "p_value": (curve, np.where(mean > 0.05, 0.001, 0.7)),
            "p_flip": (curve, np.where(mean > 0.05, 0.001, 0.7)),
            "p_permutation": (curve, np.where(mean > 0.1, 0.001, 0.7)),
        },
        coords={
            "model": names,
            "kind": ("model", ["layer"] * n_layers + ["model"] * n_models),
            "network": ("model", ["net"] * n_layers + ["labels"] * n_models),
            "layer": ("model", [name.split("/")[-1] for name in names]),
            "subject": [f"s{i}" for i in range(n_subjects)],
            "time": ("time", times, {"units": "ms"}),
        },
        attrs={
            "analysis": "rsa",
            "compare": "spearman",
            "generalise_to": "subject",
            "data": "meg",
            "n_stimuli": 24,
            "test_flip": "sign flips, one-sided, maximum over bins and models",
            "test_permutation": "permuted labels",
            **attrs,
        },
    )
    if ceiling:
        result["ceiling_lower"], result["ceiling_upper"] = ("time", 0.2 + 0 * times), ("time", 0.4 + 0 * times)
    return result


def test_curves_over_time_show_stretches_maxima_and_onset():
    result = timed_result()
    figure = plotting.plot(result)
    curves, strip, names = figure.axes
    drawn = [line.get_ydata() for line in curves.lines if len(line.get_xdata()) == 60]
    np.testing.assert_allclose(drawn, result["mean"].values)
    times = result["time"].values
    for place, bars in enumerate(strip.collections):
        x = bars.get_paths()[0].vertices[:, 0]
        significant = times[result["mean"].values[place] > 0.05]
        assert (x.min(), x.max()) == (significant[0] - 5, significant[-1] + 5)
    assert [list(line.get_xdata()) for line in curves.lines if line.get_linestyle() == "--"] == [[0, 0]]
    words = texts(figure)
    assert {"onset", "noise ceiling", "Time (ms)", ".30 at 100 ms"} <= set(words)
    assert len(names.lines) == 3
    caption = plotting.caption(result)
    assert "p < .05; sign flips, one-sided, maximum over bins and models" in caption
    assert "m0 .30 at 100 ms" in caption
    assert "descriptive" in caption
    assert "Curves" in plotting.alt_text(result)


def test_time_figure_follows_what_the_result_generalises_to():
    both = timed_result(generalise_to="both")
    assert "by both of two tests: (1) sign flips, one-sided, maximum over bins and models; (2) permuted labels" in (
        time_resolved_plot.caption(both)
    )
    assert "; permuted labels." in time_resolved_plot.caption(both, test="permutation")
    with pytest.raises(InputError, match="test is 'zero'"):
        time_resolved_plot.plot(both, test="zero")
    with pytest.raises(InputError, match="'p_flip'; that test was not run"):
        time_resolved_plot.plot(both.drop_vars("p_flip"), test="flip")
    with pytest.raises(InputError, match="no dim time"):
        time_resolved_plot.plot(rsa_result())


def test_many_layers_over_time_are_a_map_outlined_where_significant():
    result = timed_result(n_models=2, n_layers=10)
    figure = rsa_plot.plot(result)
    mesh, outline = figure.axes[0].collections
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(12, -1)[:10], result["mean"].values[:10])
    significant = np.pad(result["p_value"].values < 0.05, 1).astype(int)
    borders = np.abs(np.diff(significant, axis=0)).sum() + np.abs(np.diff(significant, axis=1)).sum()
    assert len(outline.get_segments()) == borders > 0
    rings = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(rings) == int((result["p_value"] < 0.05).any("time").sum())
    assert "Outlined: p < .05" in rsa_plot.caption(result)
    assert "Map" in rsa_plot.alt_text(result)
    few = rsa_plot.plot(result, only=["m0", "m1"]).axes[0]  # few enough for curves
    assert sum(len(line.get_xdata()) == 60 for line in few.lines) == 2


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (reference_result(), "models"),
        (reference_result().isel(model=[0], other_model=[0]), "models"),
        (reference_result().isel(model=[0, 1], other_model=[0, 1]), "differences"),
        (with_tests(rsa_result((("net", 10),))), "models"),
        (with_tests(rsa_result((("net", 10),))), "differences"),
        (with_tests(rsa_result((("net", 65),))), "models"),
        (with_tests(rsa_result((("net", 65),))), "differences"),
        (with_tests(rsa_result(n_subjects=1)).assign(ceiling_lower=np.nan), "models"),
        (timed_result(1, ceiling=False), "time"),
        (timed_result(7), "time"),
        (timed_result(2, n_layers=65), "time"),
        (timed_result(2, times=[0.0]), "time"),
    ],
    ids=[
        "rows",
        "row",
        "2-cells",
        "13-rows",
        "13-cells",
        "65-rows",
        "65-cells",
        "alone",
        "curve",
        "curves",
        "map",
        "bin",
    ],
)
def test_no_word_leaves_the_page(result, kind, narrow):
    figure = rsa_plot.plot(result, kind=kind, narrow=narrow)
    assert outside(figure) <= 0.01
    assert (figure.get_size_inches()[0] < 5.5) or not narrow
    assert "nan" not in rsa_plot.caption(result, kind=kind) + rsa_plot.alt_text(result, kind=kind)


@pytest.mark.parametrize("kind", ["models", "differences", "layers"])
def test_long_names_stay_apart_and_on_the_page(kind):
    result = with_tests(rsa_result((("net", 3),)))
    names = [f"A published network of many words, version {i} of the supplement (Author 2019)" for i in range(6)]
    result = result.assign_coords(model=names, layer=("model", names))
    figure = rsa_plot.plot(result, kind=kind)
    if kind != "layers":
        shown = {word.replace("\n", " ") for word in texts(figure) if "version" in word}
        assert len(shown) == 6
        assert all(f"version {i}" in " ".join(shown) for i in range(6))
        assert outside(figure) <= 0.01


def test_models_without_scores_or_below_zero_are_drawn():
    result = reference_result(differ=(("animacy", "faces"),))
    for name in ("mean", "score", "error", "p_value", "p_zero_corrected"):
        result[name] = result[name].where(result["model"] != "animacy")
    result["mean"] = -result["mean"]
    result["score"] = -result["score"]
    figure = rsa_plot.plot(result)
    assert "no score" in texts(figure)
    assert figure.axes[0].get_xlim()[0] < -0.1
    assert "Without a score, since their RDM is constant or incomplete: animacy" in rsa_plot.caption(result)
    assert "nan" not in rsa_plot.alt_text(result)


def test_ceiling_figure_orders_subjects():
    result = xr.Dataset(
        {"ceiling_lower": 0.4, "ceiling_upper": 0.6, "ceiling_lower_subject": ("subject", [0.3, 0.5, 0.4])},
        coords={"subject": ["a", "b", "c"]},
        attrs={"analysis": "noise_ceiling", "compare": "cosine", "data": "d"},
    )
    figure = rsa_plot.plot_ceiling(result)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["b", "c", "a"]
    assert ".400 to .600" in plotting.caption(result)
    assert plotting.plot(result).axes
    assert ".40 to .60" in plotting.alt_text(result)
    with pytest.raises(InputError, match="no noise ceiling"):
        rsa_plot.plot_ceiling(result.assign(ceiling_lower=np.nan))


def rdms(n=12, k=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(["cat", "dog", "car"])[np.arange(n) % 3]
    centre = {name: rng.normal(size=6) for name in ("cat", "dog", "car")}
    vectors = [pdist(rng.normal(size=(n, 6)) + i * np.stack([centre[name] for name in labels])) for i in range(k)]
    ids = [f"s{i:02d}" for i in range(n)]
    data = rdm_dataset(vectors, [f"l{i}" for i in range(k)], "layer", ids, "euclidean", "net")
    return data, dict(zip(ids, labels.tolist(), strict=True))


def pictures(labels):
    return {name: Image.new("RGB", (20, 10), (hash_of(name) % 255, 80, 80)) for name in labels}


def hash_of(name):
    return sum(map(ord, name)) * 37


def matrices(figure):
    return [
        image.get_array()
        for axes in figure.axes
        for image in axes.images
        if np.ndim(image.get_array()) == 2
        and image.get_array().shape[0] == image.get_array().shape[1]
        and image.get_array().shape[0] < 100
    ]


def test_rdm_panels_order_by_category_and_rank():
    data, labels = rdms()
    figure = rdm_plot.plot(data, labels=labels)
    shown = matrices(figure)
    assert len(shown) == 3
    order = np.argsort([["cat", "dog", "car"].index(label) for label in labels.values()], kind="stable")
    expected = squareform(rdm_plot.percentiles(data["dissimilarity"].values[1]))[np.ix_(order, order)]
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(np.asarray(shown[1])[off], expected[off])
    assert np.ma.getmaskarray(np.ma.masked_invalid(shown[1])).diagonal().all()
    words = texts(figure)
    assert "percentile in each RDM" in words
    assert {"cat", "dog", "car"} <= set(words)


def test_rdm_shared_scale_keeps_values():
    data, _ = rdms()
    figure = rdm_plot.plot(data, scale="shared")
    limits = {image.get_clim() for axes in figure.axes for image in axes.images if np.ndim(image.get_array()) == 2}
    values = data["dissimilarity"].values
    assert (values.min(), values.max()) in limits
    assert "euclidean dissimilarity" in texts(figure)


def test_percentiles_are_ranks_with_gaps_kept():
    np.testing.assert_allclose(rdm_plot.percentiles(np.array([3.0, 1.0, np.nan, 2.0, 2.0])), [100, 0, np.nan, 50, 50])
    np.testing.assert_allclose(rdm_plot.percentiles(np.array([5.0, np.nan])), [50, np.nan])


@pytest.mark.parametrize("n", [12, 60])
def test_rdm_thumbnails_stand_beside_their_rows(n):
    data, labels = rdms(n)
    figure = rdm_plot.plot(data, labels=labels, stimuli=pictures(labels))
    colours = [
        (image.get_extent(), image.get_array()) for image in figure.axes[0].images if np.ndim(image.get_array()) == 3
    ]
    assert len(colours) == n if n == 12 else 3 <= len(colours) < 24
    order = sorted(labels, key=lambda i: ["cat", "dog", "car"].index(labels[i]))
    for (left, right, bottom, top), picture in colours:
        assert right <= -0.5
        assert left < right
        red = int(picture[32, 32, 0])
        row = (bottom + top) / 2
        near = [hash_of(order[i]) % 255 for i in range(n) if abs(i - row) <= (0.1 if n == 12 else 4)]
        assert red in near
    assert figure.axes[0].get_xlim() == (-0.5, n - 0.5)


def test_rdm_choice_of_panels_is_stated():
    data, _ = rdms(k=30)
    figure = rdm_plot.plot(data, most=4)
    assert len(matrices(figure)) == 4
    assert any("4 of 30 layers" in word for word in texts(figure))
    assert "4 of 30 layers" in rdm_plot.caption(data, most=4)
    assert len(matrices(rdm_plot.plot(data.isel(layer=[3])))) == 1
    with pytest.raises(InputError, match="most is 0"):
        rdm_plot.plot(data, most=0)
    with pytest.raises(InputError, match="view is 'mds'"):
        rdm_plot.plot(data, view="mds")


def test_rdm_gaps_are_white_and_told():
    data, labels = rdms()
    data["dissimilarity"][0, 3] = np.nan
    rdm_plot.plot(data, labels=labels)
    assert "no value (1 of 3 layers" in rdm_plot.caption(data, labels=labels)
    data["dissimilarity"][:] = np.nan
    rdm_plot.plot(data, scale="shared")


def test_maps_recover_a_plane():
    points = np.random.default_rng(1).normal(size=(15, 2))
    data = rdm_dataset(
        [pdist(points), pdist(points[:, ::-1])], ["a", "b"], "layer", [str(i) for i in range(15)], "euclidean", "plane"
    )
    maps = embed(data)
    found = np.stack([maps["x"].values, maps["y"].values], axis=2)
    for i in range(2):
        np.testing.assert_allclose(pdist(found[i]), pdist(points), rtol=0.02, atol=0.02)
    assert maps["stress"].values.max() < 0.01
    np.testing.assert_allclose(found[0], found[1], atol=0.05)  # turned onto each other
    xr.testing.assert_identical(maps, embed(data))


def test_stress_is_that_of_the_map():
    data, _ = rdms(k=1)
    maps = embed(data)
    d = pdist(np.stack([maps["x"].values[0], maps["y"].values[0]], axis=1))
    delta = data["dissimilarity"].values[0]
    assert float(maps["stress"][0]) == pytest.approx(np.sqrt(((d - delta) ** 2).sum() / (d**2).sum()), rel=1e-6)
    assert 0.01 < float(maps["stress"][0]) < 0.5


def test_more_starts_never_fit_worse():
    data, _ = rdms(n=20, k=2)
    few, many = embed(data, n_starts=1)["stress"].values, embed(data, n_starts=5)["stress"].values
    assert (many <= few + 1e-12).all()


def test_maps_leave_out_stimuli_without_values():
    data, _ = rdms(n=10, k=1)
    square = squareform(data["dissimilarity"].values[0])
    square[4] = square[:, 4] = np.nan
    row, column = np.triu_indices(10, 1)
    data["dissimilarity"][0] = square[row, column]
    maps = embed(data)
    assert np.flatnonzero(np.isnan(maps["x"].values[0])).tolist() == [4]
    assert int(maps["n_left_out"][0]) == 1
    assert any("1 left out" in word for word in texts(rdm_plot.plot_maps(maps)))
    data["dissimilarity"][:] = np.nan
    with pytest.raises(InputError, match="only 1 of 10"):
        embed(data)


def test_maps_of_identical_stimuli_do_not_fail():
    data = rdm_dataset(np.zeros((1, 6)), ["l"], "layer", list("abcd"), "euclidean", "flat")
    maps = embed(data)
    assert float(maps["stress"][0]) == 0
    rdm_plot.plot_maps(maps)


def test_map_figure_has_dots_or_pictures():
    data, labels = rdms(k=2)
    dots = rdm_plot.plot(data, view="map", labels=labels)
    assert sum(line.get_marker() == "o" for line in dots.axes[0].lines) == 12
    assert sum(word.startswith("stress ") for word in texts(dots)) == 2
    shown = rdm_plot.plot(data, view="map", labels=labels, stimuli=pictures(labels))
    assert len(shown.axes[0].images) == 12
    assert "stress-1" in rdm_plot.caption(data, view="map", labels=labels)
    with pytest.raises(InputError, match="no maps"):
        rdm_plot.plot_maps(data)


def test_figures_of_analyses_repeat_byte_by_byte():
    data, labels = rdms()
    for draw in (lambda: rsa_plot.plot(rsa_result()), lambda: rdm_plot.plot(data, labels=labels, view="map")):
        assert plotting.svg_bytes(draw()) == plotting.svg_bytes(draw())
