"""Figures of rankings and of lesions: what they draw is what was measured, and captions say what it rests on."""

import numpy as np
import pytest
import torch

import actkit
from actkit import plotting
from actkit.analyses import lesion_plot, ranking_plot
from actkit.errors import InputError
from actkit.lesion import lesion_effect
from actkit.ranking import rank_units
from actkit.results import load, save
from actkit.tasks import Task
from actkit.units import UnitSet


def network():
    """Channels 0 to 4 speak for classes 0 to 4 with falling strength, channel 5 for no one."""
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].weight[:, :5] = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    return module


def task(name, classes, n=12, own=True):
    generator = torch.Generator().manual_seed(len(name))
    targets = np.resize(classes, n)
    inputs = torch.rand((n, 6), generator=generator) * 0.2
    inputs[torch.arange(n), torch.from_numpy(targets)] += 1.0
    return Task(name, inputs, targets, np.array(classes) if own else None)


@pytest.fixture
def two():
    return [task("letters", [0, 1]), task("signs", [2, 3, 4])]


def lines(axes, marker):
    """Marked points, by colour of the face."""
    return [(line.get_markerfacecolor(), *line.get_data()) for line in axes.lines if line.get_marker() == marker]


def test_a_ranking_is_drawn_in_its_order_with_its_errors(two, tmp_path):
    save(rank_units(network(), "0", two, fraction=1 / 3), tmp_path / "r.nc")
    result = load(tmp_path / "r.nc")
    figure = actkit.plot(result)
    by_rank, scatter = figure.axes
    for number, name in enumerate(("letters", "signs")):
        some = result.sel(task=name)
        order = np.argsort(some["rank"].values)
        (settled, *_), unsettled = (
            [line for line in lines(by_rank, plotting.MARKERS[number]) if (line[0] == "white") == hollow]
            for hollow in (False, True)
        )
        np.testing.assert_allclose(settled[2], some["loss_increase"].values[order])
        assert sum(len(line[1]) for line in unsettled) == 0
        bars = by_rank.collections[number].get_segments()
        halves = [abs(segment[1, 1] - segment[0, 1]) / 2 for segment in bars]
        np.testing.assert_allclose(halves, some["loss_increase_se"].values[order], atol=1e-12)
    x, y = (result["loss_increase"].sel(task=name).values for name in ("letters", "signs"))
    points = {tuple(point) for line in scatter.lines if len(line.get_xdata()) != 2 or line.get_linestyle() == "None"
              for point in zip(*line.get_data(), strict=True)}  # fmt: skip
    assert {(a, b) for a, b in zip(x, y, strict=True)} <= points
    named = {text.get_text() for text in scatter.texts}
    assert {"0", "1"} & named
    assert named <= {str(unit) for unit in range(6)}
    assert "intact" in [text.get_text() for text in by_rank.texts]
    assert plotting.png_bytes(figure, dpi=40)[:4] == b"\x89PNG"

    words = plotting.caption(result)
    assert "images: 12 of letters, 12 of signs" in words
    assert "Shaded: the top 2 of 6" in words
    assert "(chance .33)" in words
    for name in ("letters", "signs"):
        overlap, rho = (float(result[key].sel(task=name)) for key in ("top_overlap", "rank_correlation"))
        assert f"{name} {plotting.short(overlap)} and {plotting.short(rho)}" in words
    best = int(result["unit"].values[np.argmin(result["rank"].sel(task="letters").values)])
    assert f"channel {best} ranked first" in plotting.alt_text(result)


def test_masked_losses_and_tasks_are_chosen(two):
    three = [*two, task("all", [0, 4], own=False)]
    result = rank_units(network(), "0", three)
    (masked,) = ranking_plot.plot(result, masked=True, tasks=["signs"]).axes
    order = np.argsort(result["rank_masked"].sel(task="signs").values)
    drawn = next(line for line in lines(masked, "o") if line[0] != "white")
    np.testing.assert_allclose(drawn[2], result["loss_increase_masked"].sel(task="signs").values[order])
    assert "the task's own outputs" in ranking_plot.caption(result, masked=True)
    assert "of all" not in ranking_plot.caption(result, masked=True)  # it names no outputs of its own
    assert "12 of all" in ranking_plot.caption(result)
    own = rank_units(network(), "0", two, masked="own", n_splits=0)
    assert "reliability was not measured" in ranking_plot.caption(own)
    with pytest.raises(InputError, match="no 'rank'"):
        ranking_plot.plot(own, masked=False)
    with pytest.raises(InputError, match="nearest: 'signs'"):
        ranking_plot.plot(result, tasks="sign")
    with pytest.raises(InputError, match="not a ranking"):
        ranking_plot.plot(result.assign_attrs(analysis="rsa"))


@pytest.mark.parametrize("strategy", ["greedy", "racing", "taylor", "shapley"])
def test_every_strategy_has_its_figure(two, strategy):
    result = rank_units(network(), "0", two, strategy=strategy, fraction=0.5, n_permutations=3)
    figure = ranking_plot.plot(result)
    # Tasks lose units on top of different ones in a greedy search, so these are not set against each other.
    assert len(figure.axes) == (1 if strategy == "greedy" else 2)
    words = ranking_plot.caption(result)
    assert ("approximate" in words) == (strategy != "greedy")
    hollow = sum(len(line[1]) for line in lines(figure.axes[0], "o") if line[0] == "white")
    assert hollow == 6 - int(result.attrs["ordered"])
    assert ("are settled" in words) == (hollow > 0)


def test_wide_layers_are_a_line_with_a_band(two):
    result = rank_units(network(), "0", two)
    wide = result.isel(unit=np.arange(120) % 6).assign_coords(unit=np.arange(120))
    wide["rank"] = (("task", "unit"), np.stack([np.arange(1, 121)] * 2))
    axes = ranking_plot.plot(wide).axes[0]
    assert not lines(axes, "o")
    assert [len(line.get_xdata()) for line in axes.lines].count(120) == 2


def test_the_effect_of_a_lesion_is_drawn_as_it_was_measured(two, tmp_path):
    units = UnitSet.of("0", [0, 4], question="strong and weak")
    save(lesion_effect(network(), units, two), tmp_path / "l.nc")
    result = load(tmp_path / "l.nc")
    figure = actkit.plot(result)
    for axes, kind in zip(figure.axes, ("accuracy", "loss"), strict=True):
        for number in range(2):
            marks = lines(axes, plotting.MARKERS[number])
            values = result.isel(task=number)
            for which, hollow in (("intact", True), ("lesioned", False)):
                drawn = [float(y[0]) for face, _, y in marks if (face == "white") == hollow]
                np.testing.assert_allclose(drawn, values[f"{which}_{kind}"].values)
    first = figure.axes[0]
    errors = [float(segment[1, 1] - segment[0, 1]) / 2 for bar in first.collections for segment in bar.get_segments()]
    expected = np.r_[result.intact_accuracy_se, result.lesioned_accuracy_se].ravel()
    np.testing.assert_allclose(sorted(errors), sorted(expected), atol=1e-12)
    assert plotting.png_bytes(figure, dpi=40)[:4] == b"\x89PNG"
    words = plotting.caption(result)
    drop, error = (
        float(result[key].sel(task="letters", columns="all")) for key in ("accuracy_drop", "accuracy_drop_se")
    )
    assert f"letters: {plotting.short(drop, 3)} ± {plotting.short(error, 3)}" in words
    assert "strong and weak" in words
    assert "2 of 0 of Sequential, set to 0" in words
    share = float(result["proportional_drop"].sel(task="letters", columns="all"))
    assert f"{100 * share:.0f} % of what was above chance" in words
    assert "12 of letters" in words
    assert plotting.short(float(result["lesioned_accuracy"].sel(task="signs", columns="all"))) in plotting.alt_text(
        result
    )
    scaled = lesion_effect(network(), units, two, mode="scale", factor=0.5)
    assert "multiplied by 0.5" in lesion_plot.caption(scaled)
    assert "no unit" in lesion_plot.caption(lesion_effect(network(), UnitSet.of("0", []), two))
    with pytest.raises(InputError, match="not the effect of a lesion"):
        lesion_plot.plot(result.drop_vars("lesioned_accuracy"))
