import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from actkit import plotting
from actkit.errors import InputError, PluginError


def figure_of(n=30):
    with plotting.style():
        figure = plotting.new_figure(4, 3)
        axes = figure.add_axes((0.15, 0.15, 0.8, 0.8))
        axes.plot(np.arange(n), np.arange(n) ** 0.5, label="line")
        axes.fill_between(np.arange(n), 0, 1)
        figure.legend()
    return figure


def test_style_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    with plotting.style():
        assert mpl.rcParams["svg.fonttype"] == "path"
        assert not mpl.rcParams["axes.spines.top"]
    plotting.svg_bytes(figure_of())
    assert dict(mpl.rcParams) == before


def test_style_ignores_what_the_user_set():
    with mpl.rc_context({"axes.facecolor": "red", "lines.linewidth": 30.0}), plotting.style():
        assert mpl.rcParams["axes.facecolor"] == "white"
        assert mpl.rcParams["lines.linewidth"] == 2.0
        assert mpl.rcParams["xtick.direction"] == "out"


def test_figures_belong_to_no_window():
    import sys

    pyplot = sys.modules.get("matplotlib.pyplot")
    before = pyplot.get_fignums() if pyplot else []
    figure_of()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert (pyplot.get_fignums() if pyplot else []) == before


def test_saved_figures_repeat_byte_by_byte_and_keep_dots_in_names(tmp_path):
    first = plotting.save_figure(figure_of(), tmp_path / "new" / "layer.3")
    second = plotting.save_figure(figure_of(), tmp_path / "again.svg")
    assert [p.name for p in first] == ["layer.3.svg", "layer.3.png"]
    assert [p.name for p in second] == ["again.svg", "again.png"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert b"<dc:date>" not in first[0].read_bytes()
    with Image.open(first[1]) as picture:
        assert picture.size == (800, 600)


def test_dispatch_finds_the_analysis_and_says_why_not():
    rdms = xr.Dataset(
        {"dissimilarity": (("layer", "pair"), np.random.default_rng(0).random((2, 6)))},
        coords={"layer": ["a", "b"], "stimulus": list("wxyz")},
        attrs={"measure": "correlation", "name": "net"},
    )
    assert len(plotting.plot(rdms).axes) == 3  # RDMs of a data set have no analysis: two panels and a colour scale
    assert "4 stimuli" in plotting.caption(rdms)
    assert plotting.plot_narrow(rdms) is None
    with pytest.raises(InputError, match="no attrs"):
        plotting.plot(xr.Dataset())
    with pytest.raises(InputError, match="no attrs"):
        plotting.plot({})
    with pytest.raises(PluginError, match="rdm"):
        plotting.plot(xr.Dataset(attrs={"analysis": "rdn"}))


def test_numbers_are_short():
    assert [plotting.short(x) for x in (0.3, -0.3, 1, 0, -0.001, 12.345)] == [
        ".30",
        "−.30",
        "1.00",
        ".00",
        ".00",
        "12.35",
    ]


@pytest.mark.parametrize(
    ("names", "front", "rest"),
    [
        (["features.0", "features.3"], "features.", ["0", "3"]),
        (["a.b.c", "a.b.d.e"], "a.b.", ["c", "d.e"]),
        (["features.0", "classifier.1"], "", ["features.0", "classifier.1"]),
        (["block", "block.1"], "", ["block", "block.1"]),
        (["only.one"], "", ["only.one"]),
    ],
)
def test_common_stem_keeps_what_tells_layers_apart(names, front, rest):
    assert plotting.common_stem(names) == (front, rest)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 400])
@pytest.mark.parametrize("most", [2, 5, 12])
def test_thinned_labels_hold_ends_and_kept_ones(n, most):
    keep = [n // 2]
    chosen = plotting.thin(n, most, keep)
    assert {0, n - 1, n // 2} <= set(chosen) <= set(range(n))
    assert len(chosen) <= most + 3
    assert chosen == sorted(chosen)


def test_spread_labels_never_overlap_and_move_little():
    rng = np.random.default_rng(3)
    for n in (2, 5, 20):
        values = rng.random(n)
        placed = plotting.spread(values, 0.04, 0, 1)
        order = np.argsort(values)
        assert np.all(np.diff(placed[order]) >= 0.04 - 1e-9)
        assert placed.min() >= 0
        assert placed.max() <= 1 + 1e-9
    apart = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(plotting.spread(apart, 0.1, 0, 1), apart)
    np.testing.assert_allclose(plotting.spread([0.5, 0.5], 0.2, 0, 1), [0.4, 0.6])
    crowded = plotting.spread(np.full(30, 0.5), 0.1, 0, 1)  # no room: the gap shrinks
    np.testing.assert_allclose(np.diff(np.sort(crowded)), 1 / 29)


def test_labels_come_from_coordinates_columns_mappings_and_arrays():
    result = xr.Dataset(coords={"stimulus": ["b", "a"], "category": ("stimulus", ["cat", "dog"])})
    assert plotting.stimulus_labels(result).tolist() == ["cat", "dog"]
    assert plotting.stimulus_labels(result, "category").tolist() == ["cat", "dog"]
    assert plotting.stimulus_labels(result, {"a": 1, "b": 2}).tolist() == ["2", "1"]
    assert plotting.stimulus_labels(result, [True, False]).tolist() == ["True", "False"]

    class Fake:
        ids = np.array(["a", "b"])
        labels = {"colour": np.array(["red", "blue"])}

    assert plotting.stimulus_labels(result, "colour", Fake()).tolist() == ["blue", "red"]
    with pytest.raises(InputError, match="'category', 'colour'"):
        plotting.stimulus_labels(result, "kategory", Fake())
    with pytest.raises(InputError, match="missing for 1 stimuli, the first is 'b'"):
        plotting.stimulus_labels(result, {"a": 1})
    with pytest.raises(InputError, match=r"\(3,\)"):
        plotting.stimulus_labels(result, [1, 2, 3])


def test_thumbnails_are_square_and_take_pictures_or_arrays():
    wide = Image.new("RGB", (40, 20), (10, 20, 30))
    small = plotting.thumbnail(wide, 16)
    assert small.shape == (16, 16, 3)
    assert small[8, 8].tolist() == [10, 20, 30]
    assert small[0, 0].tolist() == [255, 255, 255]
    ramp = np.linspace(-2, 5, 64).reshape(1, 8, 8)  # a float tensor (channel, y, x)
    grey = plotting.thumbnail(ramp, 8)
    assert (grey.min(), grey.max()) == (0, 255)
    with pytest.raises(InputError, match="no picture"):
        plotting.thumbnail(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError, match="'b'"):
        plotting.thumbnails({"a": wide}, ["a", "b"])
    assert len(plotting.thumbnails({"a": wide, "b": wide}, ["b", "a"], 8)) == 2


def test_palette_is_told_apart():
    assert len(set(plotting.group_colours([f"g{i}" for i in range(7)]).values())) == 7
    many = plotting.group_colours([f"g{i}" for i in range(30)])
    assert len(set(many.values())) == 30


def test_stimuli_without_a_label_are_grey_and_cost_no_colour():
    colours = plotting.group_colours(["face", "", "object"])
    assert colours[""] == "#b0b0b0"
    assert [colours["face"], colours["object"]] == list(plotting.group_colours(["face", "object"]).values())
