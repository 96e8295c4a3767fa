import json

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from actkit import plotting
from actkit.analyses import rdm_plot, rsa_plot
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
