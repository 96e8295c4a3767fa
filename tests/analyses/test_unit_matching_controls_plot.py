"""Figures of unit matching and its controls: what is drawn is what the results hold, and captions say it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import xarray as xr

from actkit import plotting
from actkit.analyses import (
    basis_comparison_plot,
    match_comparison_plot,
    match_shuffle_plot,
    pool_comparison_plot,
    soft_matching_plot,
    unit_matching_map_plot,
    unit_matching_plot,
)
from actkit.analyses.basis_comparison import compare_bases
from actkit.analyses.match_comparison import compare_matches
from actkit.analyses.match_shuffle import shuffle_match
from actkit.analyses.pool_comparison import equalise_pools
from actkit.analyses.soft_matching import soft_match
from actkit.analyses.unit_matching import match_units
from actkit.errors import InputError

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, Array], Array]:
    """Two layers with maps, one without, and neurons that copy units of the first, all in one corner."""
    rng = np.random.default_rng(0)
    early = rng.standard_normal((90, 6, 4, 5)).astype(np.float32)
    layers = {
        "block.early": early,
        "block.late": rng.standard_normal((90, 6, 2, 2)).astype(np.float32),
        "block.fc": rng.standard_normal((90, 30)).astype(np.float32),
    }
    return layers, early[:, [0, 1, 2, 3, 0, 1, 2, 3], 1, 3] + 0.7 * rng.standard_normal((90, 8))


@pytest.fixture(scope="module")
def match(data: tuple[dict[str, Array], Array]) -> xr.Dataset:
    """A match with a null."""
    found: xr.Dataset = match_units(*data, n_permutations=39)
    return found


def line(axes: Any, label: str) -> Array:
    """Heights of the line of a name."""
    return np.asarray(next(one for one in axes.get_lines() if one.get_label() == label).get_ydata())


def drawn(module: Any, result: xr.Dataset, **options: Any) -> tuple[Any, str, str]:
    """Figure (rendered), caption and alternative text."""
    figure = module.plot(result, **options)
    assert plotting.svg_bytes(figure).startswith(b"<?xml")
    return figure, module.caption(result, **options), module.alt_text(result, **options)


def test_bases_are_drawn(data: tuple[dict[str, Array], Array]) -> None:
    result = compare_bases(*data)
    figure, words, alternative = drawn(basis_comparison_plot, result)
    above, below = figure.axes
    np.testing.assert_allclose(line(above, "native units"), result["median_native"].values)
    np.testing.assert_allclose(line(above, "channels rotated, each rotation"), result["median_rotated"].values[0])
    assert next(text.get_text() for text in below.texts) == "p = .048"
    np.testing.assert_allclose(below.get_lines()[1].get_ydata(), result["drop"].values)
    assert "20 random rotations of the channel basis, the same matrix at every position" in words
    assert ".048 is the smallest possible" in words
    assert "of 3 layers" in alternative
    few = compare_bases({"fc": data[0]["block.fc"]}, data[1], n_rotations=2)
    assert "Too few rotations" in basis_comparison_plot.caption(few)
    assert not basis_comparison_plot.plot(few).axes[1].texts


def test_pools_are_drawn(data: tuple[dict[str, Array], Array]) -> None:
    result = equalise_pools(*data, n_draws=10)
    figure, words, alternative = drawn(pool_comparison_plot, result)
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "pools of 24"), result["median_pooled"].values)
    np.testing.assert_allclose(line(axes, "all units"), result["median_all"].values)
    assert [text.get_text() for text in axes.texts] == ["120 units", "24", "30"]
    assert "pools of 24 units" in words
    assert "mean over 10 pools" in words
    assert "with all 120 units" in alternative


def test_an_exchange_is_drawn(data: tuple[dict[str, Array], Array], match: xr.Dataset) -> None:
    result = shuffle_match(match, *data, n_draws=99)
    figure, words, alternative = drawn(match_shuffle_plot, result)
    above, table, _, scatter = figure.axes
    np.testing.assert_allclose(line(above, "own unit, median"), result["median_r"].values)
    own = result["observed"].values[0]
    np.testing.assert_allclose(np.diag(table.images[0].get_array()), np.sort(own)[::-1])
    shown = np.concatenate([one.get_ydata() for one in scatter.get_lines()[1:]])
    np.testing.assert_allclose(np.sort(shown), np.sort(own))
    assert "p = .010 in block.early" in words
    assert "block.early" in alternative
    other, words, _ = drawn(match_shuffle_plot, result, layer="block.fc")
    np.testing.assert_allclose(np.diag(other.axes[1].images[0].get_array()).max(), result["observed"].values[2].max())
    assert "in block.fc" in words
    with pytest.raises(InputError, match=r"no layer 'block.x'"):
        match_shuffle_plot.plot(result, layer="block.x")


def test_a_comparison_of_matches_is_drawn(data: tuple[dict[str, Array], Array], match: xr.Dataset) -> None:
    noise = {
        name: values + 2 * np.random.default_rng(1).standard_normal(values.shape) for name, values in data[0].items()
    }
    twin = match_units(noise, data[1], n_permutations=0).assign_attrs(network="untrained")
    result = compare_matches(match, twin, n_draws=499)
    figure, words, alternative = drawn(match_comparison_plot, result)
    above, below = figure.axes
    np.testing.assert_allclose(line(above, "arrays"), result["median_first"].values)
    np.testing.assert_allclose(line(above, "untrained"), result["median_second"].values)
    shown = np.concatenate([one.get_ydata() for one in below.get_lines()[1:]])
    np.testing.assert_allclose(np.sort(shown), np.sort(result["median_difference"].values))
    assert "exchanged within neurons 499 times" in words
    assert "of arrays and untrained" in alternative
    same = compare_matches(match, match, n_draws=99)
    assert (same.attrs["first"], same.attrs["second"]) == ("arrays (first)", "arrays (second)")


@pytest.mark.parametrize("balanced", [False, True])
def test_soft_matching_states_its_sizes(data: tuple[dict[str, Array], Array], balanced: bool) -> None:
    pytest.importorskip("ot", reason="POT is not installed (the extra 'matching')")
    result = soft_match(*data, balanced=balanced)
    figure, words, alternative = drawn(soft_matching_plot, result)
    above, below = figure.axes
    np.testing.assert_allclose(line(above, "held-out score"), result["median_score"].values)
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], 100 * result["share_matched"].values)
    size = "balanced, 100 pools of 8 units" if balanced else "partial, all units"
    assert size in words
    assert size in alternative
    assert size in figure.texts[1].get_text()
    assert "block.early: 120" in words
    assert ("mass 0.067" in words) != balanced


def test_a_layer_is_drawn_against_its_null(match: xr.Dataset) -> None:
    figure, words, alternative = drawn(unit_matching_plot, match, kind="null")
    neurons, medians = figure.axes
    counts = [patch.get_height() for patch in neurons.patches[:48]]
    assert sum(counts[:24]) == 8
    assert sum(counts[24:48]) == 8  # the means of their nulls, negative ones too
    assert sum(patch.get_height() for patch in medians.patches) == 39
    assert medians.get_lines()[0].get_xdata()[0] == float(match["median_r"][0])
    assert "p = .025" in words
    assert "permuted freely 39 times" in words
    assert words.count("bands") == 0
    assert "Two histograms for block.early" in alternative
    late, words, _ = drawn(unit_matching_plot, match, kind="null", layer="block.late")
    assert late.axes[1].get_lines()[0].get_xdata()[0] == float(match["median_r"][1])
    assert "in block.late" in words
    without = match.isel(permutation=slice(0))
    for draw in (unit_matching_plot.plot, unit_matching_plot.caption, unit_matching_plot.alt_text):
        with pytest.raises(InputError, match="no null; use match_units"):
            draw(without, kind="null")
        with pytest.raises(InputError, match="kind='nul' is not a figure of a match; nearest: 'null'"):
            draw(match, kind="nul")
        with pytest.raises(InputError, match=r"no layer 'block.lat'"):
            draw(match, layer="block.lat")


def test_matched_positions_are_those_of_the_units(match: xr.Dataset) -> None:
    found = unit_matching_map_plot.matched_positions(match)
    assert list(found) == ["block.early", "block.late"]  # a layer without maps has no positions
    counts, chosen = found["block.early"]
    assert counts.shape == (4, 5)
    assert counts[1, 3] == pytest.approx(1)
    assert chosen.tolist() == [[k % 4, 1, 3] for k in range(8)]
    late = match.sel(layer="block.late")
    expected = np.zeros((2, 2))
    for y, x in zip(late["y"].values.ravel(), late["x"].values.ravel(), strict=True):
        expected[y, x] += 1 / 40
    np.testing.assert_allclose(found["block.late"][0], expected)
    for j, row in enumerate(found["block.late"][1].tolist()):
        units, counted = np.unique(late["unit"].values[j], return_counts=True)
        assert counted[list(units).index(np.ravel_multi_index(row, (6, 2, 2)))] == counted.max()


def test_a_map_is_drawn(match: xr.Dataset) -> None:
    figure, words, alternative = drawn(unit_matching_plot, match, kind="map")
    late = unit_matching_map_plot.matched_positions(match)["block.late"][1]
    titles = ["block.early\n4 of 6 channels", f"block.late\n{len(np.unique(late[:, 0]))} of 6 channels"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    assert plotting.svg_bytes(figure) == plotting.svg_bytes(unit_matching_plot.plot(match, kind="map"))
    dots = figure.axes[0].get_lines()[0]
    assert np.abs(dots.get_xdata() - 3).max() < 0.5  # each within its cell
    assert np.abs(dots.get_ydata() - 1).max() < 0.5
    assert len(set(dots.get_xdata().tolist())) == 8
    assert "block.early: 4 channels, centred 38 % down and 70 % across the map" in words
    assert "block.early: 4 channels" in alternative
    assert len(drawn(unit_matching_plot, match, kind="map", layer="block.late")[0].axes) == 1
    with pytest.raises(InputError, match=r"layer 'block.fc' has no map of positions"):
        unit_matching_plot.plot(match, kind="map", layer="block.fc")
    with pytest.raises(InputError, match="no layer of this match has a map"):
        unit_matching_plot.plot(match.sel(layer=["block.fc"]), kind="map")
    with pytest.raises(InputError, match=r"no layer 'block.x'"):
        unit_matching_plot.caption(match, kind="map", layer="block.x")


@pytest.mark.parametrize(
    "name", ["basis_comparison", "pool_comparison", "match_shuffle", "match_comparison", "soft_matching"]
)
def test_other_results_are_refused(name: str, match: xr.Dataset) -> None:
    module = importlib.import_module(f"actkit.analyses.{name}_plot")
    for draw in (module.plot, module.caption, module.alt_text):
        with pytest.raises(InputError, match="this is not a"):
            draw(match)
