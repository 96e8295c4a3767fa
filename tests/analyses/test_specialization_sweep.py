"""Sweeps over seeds: means, intervals, falls and differences by hand; findings that hold and that do not; figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr, t

import actkit
from actkit.analyses import specialization_plot as figures
from actkit.analyses.specialization_findings import COLUMNS, HEADLINES, findings, headlines
from actkit.analyses.specialization_sweep import (
    connections_asked,
    find_cell,
    over_seeds,
    rank_correlation,
    summarise_sweep,
)
from actkit.analyses.specialization_sweep import table as table_of
from actkit.analyses.specialization_table import specialization_table
from actkit.errors import InputError

MEASURES = ["retraining", "ablation", "correlation"]
ASKED = (-1.0, 0.01, 0.1, 1.0, 0.0)
# Retraining S as in the digest's table of the published figure; others above it.
PAPER = {
    10: {-1.0: 0.81, 0.1: 0.36, 1.0: 0.13, 0.0: 0.99},
    25: {-1.0: 0.68, 0.01: 0.22, 0.1: 0.08, 1.0: 0.04, 0.0: 0.99},
    50: {-1.0: 0.48, 0.01: 0.08, 0.1: 0.05, 1.0: 0.02, 0.0: 0.99},
}


def networks(seeds=6, flat=False, covariance=True, untrained=True):
    """What each network of a sweep is, and its S by measure."""
    rows = []
    for units, by_p in PAPER.items():
        for asked, s in by_p.items():
            for seed in range(seeds):
                high = 0.9 if flat else s
                rows.append((units, asked, 1.0, seed, True, (high, min(high + 0.2, 1), min(high + 0.35, 1)), 0.5))
                if untrained:
                    rows.append((units, asked, 1.0, seed, False, (0.95, 0.97, 0.96), 0.1))
    if covariance:
        for c, s in ((0.1, 0.33), (0.0, 0.01)):
            rows += [(10, -1.0, c, seed, True, (s, s + 0.02, 0.95), 0.7) for seed in range(seeds)]
    return rows


def result(scatter=0.004, seed=0, **kind):
    """A specialization result of a planted sweep."""
    rng = np.random.default_rng(seed)
    rows = networks(**kind)
    s = np.array([row[5] for row in rows]) + scatter * rng.normal(size=(len(rows), 3))
    steps = np.ones((len(rows), 3, 5)) * s[:, :, None]
    steps[:, :, 0] = 1.0
    own = np.full((len(rows), 3, 2, 2, 5), 0.3)
    own[:, :, [0, 1], [0, 1]] = 0.8
    links = np.array([connections_asked(asked, units) for units, asked, *_ in rows])
    units = np.array([row[0] for row in rows])
    along = {
        "units": units,
        "connections": links,
        "p": links / units**2,
        "asked_p": [row[1] for row in rows],
        "Q": (1 - links / units**2) / (2 * (1 + links / units**2)),
        "cov_ratio": [row[2] for row in rows],
        "seed": [row[3] for row in rows],
        "trained": [row[4] for row in rows],
        "task_accuracy": [row[6] + scatter * rng.normal() for row in rows],
    }
    five = ("network", "measure", "part", "task", "time")
    return xr.Dataset(
        {
            "S": (("network", "measure", "time"), steps),
            "raw_difference": (("network", "measure", "time"), steps / 2),
            "accuracy": (five, own),
            "known": (five, own),
            "accuracy_all": (("network", "task", "time"), np.full((len(rows), 2, 5), 0.85)),
            "chance": ("task", [0.1, 0.1]),
        },
        coords={
            "network": [f"net {k}" for k in range(len(rows))],
            "measure": MEASURES,
            "part": ["m0", "m1"],
            "task": ["d0", "d1"],
            "time": np.arange(5),
            **{name: ("network", values) for name, values in along.items()},
        },
        attrs={"analysis": "specialization", "pairing": "independent answers", "n_train": 100, "n_test": 90},
    )


def courses(one, transient=True):
    """Time courses for the trained networks of a sweep: dense ones decay and turn to the other digit."""
    keep = one["trained"].values & (one["cov_ratio"].values == 1) & (one["connections"].values > 0)
    some = one.isel(network=np.flatnonzero(keep))
    lags, since = np.arange(-2, 3), np.arange(-3, 4)
    index = np.full((some.sizes["network"], 2, 5, 7), np.nan)
    rng = np.random.default_rng(0)
    for k, p in enumerate(some["p"].values):
        dense = (np.log10(p) + 4) / 4 if transient else 0.0
        for i, lag in enumerate(lags):
            for j, step in enumerate(since):
                if step < -3 or step > 3 - max(lag, 0):
                    continue
                after = min(step, step + lag)
                value = 0.78 - 0.7 * dense * (after > 0) if step >= 0 else -0.7 * dense if step + lag >= 1 else 0.0
                index[k, :, i, j] = value + 0.01 * rng.normal(size=2)
    four = ("network", "part", "lag", "since")
    return xr.Dataset(
        {
            "index": (four, index),
            "own": (four, np.abs(index)),
            "other": (four, np.abs(index) / 2),
            "n": (four, np.where(np.isfinite(index), 80, 0)),
            "joint": (("network", "part", "lag"), index[..., 0] * 0),
            "chance": ("sub_task", [0.1, 0.1]),
        },
        coords={"lag": lags, "since": since, "part": ["m0", "m1"]}
        | {name: ("network", some[name].values) for name in ("network", "units", "p", "asked_p")}
        | {name: ("network", some[name].values) for name in ("cov_ratio", "seed", "trained")},
        attrs={"analysis": "specialization_dynamics", "n_train": 100, "n_test": 90},
    )  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    one = result()
    return one, summarise_sweep(one), courses(one)


def test_cells_hold_the_mean_and_t_interval_of_their_seeds(planted) -> None:
    one, summary, _ = planted
    assert summary.sizes["seed"] == 6
    place = find_cell(summary, 25, 0.1)
    here = (one["units"] == 25) & (one["asked_p"] == 0.1) & one["trained"] & (one["cov_ratio"] == 1)
    values = one["S"].sel(measure="ablation", time=4).values[here.values]
    got = summary.isel(cell=place).sel(measure="ablation")
    assert float(got["S"]) == pytest.approx(values.mean())
    reach = t.ppf(0.975, 5) * values.std(ddof=1) / np.sqrt(6)
    assert float(got["S_low"]) == pytest.approx(values.mean() - reach)
    assert float(got["S_high"]) == pytest.approx(values.mean() + reach)
    np.testing.assert_allclose(got["S_seeds"], values)
    assert (float(got["own"]), float(got["other"])) == pytest.approx((0.8, 0.3))
    assert float(got["S_time"].isel(time=0)) == 1
    assert (int(got["connections"]), float(got["task_accuracy"])) == (62, pytest.approx(0.5, abs=0.01))
    assert summary.attrs["plain_cov_ratio"] == 1
    # One connection of ten units is p = .01; of 25, .01 is six.
    assert find_cell(summary, 10, 0.01) == find_cell(summary, 10, -1)
    assert find_cell(summary, 25, 0.01) != find_cell(summary, 25, -1)
    assert find_cell(summary, 25, 0.1, cov_ratio=0.3) is None


def test_falls_and_differences_of_sizes_are_within_seeds(planted) -> None:
    one, summary, _ = planted
    trained = one["trained"].values & (one["cov_ratio"].values == 1) & (one["connections"].values > 0)
    here = trained & (one["units"].values == 50) & (one["seed"].values == 3)
    rho = spearmanr(one["p"].values[here], one["S"].sel(measure="retraining", time=4).values[here]).statistic
    got = summary["spearman_seeds"].sel(units=50, measure="retraining", seed=3)
    assert float(got) == pytest.approx(rho)
    a, b = (summary["S_seeds"].isel(cell=find_cell(summary, n, 0.1)).sel(measure="retraining") for n in (10, 50))
    gap = summary["size_difference_seeds"].sel(level=0.1, pair="10 - 50", measure="retraining")
    np.testing.assert_allclose(gap, a - b)
    assert float(summary["size_difference_low"].sel(level=0.1, pair="10 - 50", measure="retraining")) > 0.25
    assert np.isnan(summary["S"]).sum() == 0


def test_rank_correlation_is_spearmans_and_leaves_out_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(6.0), rng.normal(size=(6, 2)).round(1)
    y[2, 1] = np.nan
    got = rank_correlation(x, y)
    assert got[0] == pytest.approx(spearmanr(x, y[:, 0]).statistic)
    kept = np.arange(6) != 2
    assert got[1] == pytest.approx(spearmanr(x[kept], y[kept, 1]).statistic)
    assert np.isnan(rank_correlation(x[:2], y[:2])).all()


def test_seeds_without_s_are_left_out_and_counted() -> None:
    one = result()
    lost = (one["units"] == 50) & (one["asked_p"] == 1) & one["trained"] & (one["seed"] < 2)
    one["S"] = one["S"].where(~lost)
    summary = summarise_sweep(one)
    got = summary.isel(cell=find_cell(summary, 50, 1.0)).sel(measure="retraining")
    assert int(got["n_defined"]) == 4
    np.testing.assert_allclose(got["S"], np.nanmean(got["S_seeds"]))
    assert np.isfinite(got["S_low"])
    assert "S is not defined for every seed" in figures.caption(summary)
    table = findings(summary)
    row = table[(table["group"] == "n = 50") & (table["masking"] == "correlation above retraining")].iloc[0]
    assert "2 of 6 seeds without a value" in row["measured"]


@pytest.mark.parametrize(("a", "b", "least"), [(20, 20, 0.94), (2, 18, 0.915), (18, 2, 0.915), (30, 0.5, 0.85)])
def test_intervals_over_ten_seeds_cover_as_stated(a: float, b: float, least: float) -> None:
    values = np.random.default_rng(0).beta(a, b, size=(8000, 10))
    _, low, high, n = over_seeds(values)
    covered = ((low <= a / (a + b)) & (a / (a + b) <= high)).mean()
    assert least < covered < 0.96
    assert (n == 10).all()


def test_one_seed_has_no_interval() -> None:
    mean, low, _, n = over_seeds(np.array([[0.3], [np.nan]]))
    assert mean[0] == 0.3
    assert np.isnan([low[0], low[1], mean[1]]).all()
    assert n.tolist() == [1, 0]
    table = findings(summarise_sweep(result(seeds=1)))
    assert "one seed: no interval" in set(table["held"])
    assert "yes" not in set(table["held"])


def test_a_sweep_like_the_papers_meets_every_headline(planted) -> None:
    _, summary, dynamics = planted
    table = findings(summary, dynamics)
    assert tuple(table.columns) == COLUMNS
    assert table["rule"].str.len().min() > 20
    ten = headlines(table)
    assert len(ten) == len(HEADLINES) == 10
    # Retraining S of the planted sweep is at most .15 at p = .1; task accuracy is .5 beside .6 × .8.
    assert dict(zip(ten["finding"].str.split(".").str[0].astype(int), ten["held"], strict=True)) == dict.fromkeys(
        range(1, 11), "yes"
    )
    row = table[(table["finding"].str.startswith("1.")) & (table["group"] == "n = 25")].iloc[0]
    assert row["estimate"] == pytest.approx(0.08, abs=0.01)
    assert "Q .41, 82 % of its maximum; task accuracy .50" in row["measured"]
    assert (table["held"] == "no claim").sum() == 1
    inferred = table[table["finding"].str.startswith("9.") & table["masking"].str.contains("own digit|task accuracy")]
    assert inferred["rule"].str.contains("inferred").all()
    assert "Inferred" not in ten["rule"].iloc[0]


def test_a_flat_sweep_meets_few() -> None:
    one = result(flat=True)
    ten = headlines(findings(summarise_sweep(one), courses(one, transient=False))).set_index("finding")["held"]
    held = {int(name.split(".")[0]): value for name, value in ten.items()}
    assert held[1] == "no"
    assert held[3] != "yes"
    assert held[5] != "yes"
    assert held[7] in ("no", "undecided")
    assert held[8] in ("no", "undecided")


def test_what_the_sweep_lacks_is_not_tested() -> None:
    one = result(covariance=False, untrained=False)
    one = one.isel(network=np.flatnonzero((one["units"] == 10).values & (one["connections"] > 0).values))
    table = findings(summarise_sweep(one))
    held = dict(
        zip(headlines(table)["finding"].str.split(".").str[0].astype(int), headlines(table)["held"], strict=True)
    )
    assert {number for number, word in held.items() if word == "not tested"} == {1, 2, 5, 6, 7, 8, 9, 10}
    assert held[3] == "yes"


def test_balanced_pairs_have_lower_bounds(planted) -> None:
    table = findings(planted[1], balanced=True)
    bounds = table[table["masking"] == "task accuracy, p = 0"]["boundary"]
    assert (bounds == 0.75).all()


def test_bad_sweeps_are_refused(planted) -> None:
    one, summary, dynamics = planted
    with pytest.raises(InputError, match=r"does not say \['Q'\]"):
        summarise_sweep(one.drop_vars("Q"))
    with pytest.raises(InputError, match="'net 0' and 'net 2' are of one cell and seed"):
        summarise_sweep(one.assign_coords(seed=("network", np.zeros(one.sizes["network"], dtype=int))))
    with pytest.raises(InputError, match="no specialization of networks"):
        summarise_sweep(summary)
    with pytest.raises(InputError, match="no summary of a sweep"):
        findings(dynamics)
    with pytest.raises(InputError, match=r"dynamics lack \['seed'\]"):
        findings(summary, dynamics.drop_vars("seed"))


# Figures


def test_s_is_drawn_with_its_controls_and_accuracy(planted) -> None:
    _, summary, _ = planted
    figure = figures.plot(summary, kind="p")
    assert len(figure.axes) == 6
    top, low = figure.axes[0], figure.axes[3]  # row by row
    assert low.get_xscale() == "log"
    drawn = [line for line in top.lines if line.get_marker() == "s"]  # n = 25
    filled = next(line for line in drawn if line.get_markerfacecolor() != "white")
    hollow = next(line for line in drawn if line.get_markerfacecolor() == "white")
    want = [float(summary["S"].isel(cell=find_cell(summary, 25, p)).sel(measure="retraining")) for p in ASKED[:4]]
    np.testing.assert_allclose(filled.get_ydata(), want)
    np.testing.assert_allclose(filled.get_xdata(), [1 / 625, 6 / 625, 62 / 625, 1], rtol=0.2)
    np.testing.assert_allclose(hollow.get_ydata(), 0.95, atol=0.01)
    accuracy = [line for line in low.lines if line.get_marker() == "s" and line.get_markerfacecolor() != "white"]
    np.testing.assert_allclose(accuracy[0].get_ydata(), 0.5, atol=0.01)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["n = 10", "n = 25", "n = 50", "untrained"]


@pytest.mark.parametrize("kind", ["p", "Q", "covariance", "findings", "dynamics", "matrix"])
def test_every_figure_has_caption_and_alt_text(kind, planted) -> None:
    one, summary, dynamics = planted
    shown = {"dynamics": dynamics, "matrix": one}.get(kind, summary)
    figure = figures.plot(shown, kind=kind, title="Title")
    figure.canvas.draw()
    assert "Title" in [text.get_text() for text in figure.texts]
    caption, alt = figures.caption(shown, kind=kind), figures.alt_text(shown, kind=kind)
    assert len(caption) > 80
    assert len(alt) > 40
    assert "nan" not in (caption + alt).casefold()
    if kind in ("p", "Q"):
        assert "untrained" not in caption
        assert "before training" in caption
        assert "accuracy" in alt


def test_courses_are_drawn_by_lag(planted) -> None:
    dynamics = planted[2]
    with pytest.raises(InputError, match=r"no networks of 7 units; there are some of \[10, 25, 50\]"):
        figures.plot(dynamics, units=7)
    figure = figures.plot(dynamics)  # the middle size
    small = dynamics.isel(network=np.flatnonzero(dynamics["units"].values == 25))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [one for one in titles if one] == ["Lag −2", "Lag −1", "Lag 0", "Lag +1", "Lag +2"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:4] == ["n = 25, one connection", "n = 25, p = 0.01", "n = 25, p = 0.1", "n = 25, p = 1"]
    # Column of lag 2, trace of p = 1, one step before the own onset.
    axes = figure.axes[4]
    traces = [line for line in axes.lines if len(line.get_xdata()) == 7]
    want = small["index"].sel(lag=2).isel(network=np.flatnonzero(small["p"].values == 1)).mean(("network", "part"))
    np.testing.assert_allclose(traces[3].get_ydata(), want)
    assert "n = 25, p = 1: 6" in figures.caption(dynamics)
    assert "n = 50, p = 1: 6" in figures.caption(dynamics, units=50)
    assert "n = 25, p = 1: -3: " in figures.alt_text(dynamics)
    # Of seven values of p, five: the ends among them.
    many = dynamics.assign_coords(units=("network", np.full(dynamics.sizes["network"], 25))).drop_vars("asked_p")
    words = [text.get_text() for text in figures.plot(many).legends[0].get_texts()]
    assert len(words) == 5
    assert (words[0], words[-1]) == ("n = 25, p = 0.0004", "n = 25, p = 1")


def test_the_matrix_names_a_network(planted) -> None:
    one = planted[0]
    figure = figures.plot(one, network="net 7")
    assert "What each part knows: net 7" in [text.get_text() for text in figure.texts]
    assert [text.get_text() for text in figure.axes[0].texts] == [".80", ".30", ".30", ".80"]
    with pytest.raises(InputError, match="no network 'nit 7'"):
        figures.plot(one, network="nit 7")
    with pytest.raises(InputError, match="has no figure 'p'"):
        figures.plot(one, kind="p")
    with pytest.raises(InputError, match="one covariance"):
        figures.plot(summarise_sweep(result(covariance=False)), kind="covariance")
    assert figures.kinds_of(summarise_sweep(result(covariance=False))) == ["p", "Q", "findings"]


def test_a_summary_survives_a_file(planted, tmp_path) -> None:
    actkit.save(planted[1], tmp_path / "s.nc")
    back = actkit.load(tmp_path / "s.nc")
    pd.testing.assert_frame_equal(findings(back), findings(planted[1]))
    figures.plot(back, kind="Q").canvas.draw()


def test_cells_of_a_sweep_stand_in_the_table(planted) -> None:
    summary = planted[1]
    table = specialization_table({"modules": summary})
    assert len(table) == summary.sizes["cell"] * 3
    row = table[(table["network"] == "modules, n = 25, p = 0.099, c = 1") & (table["measure"] == "ablation")].iloc[0]
    at = summary.isel(cell=find_cell(summary, 25, 0.1)).sel(measure="ablation")
    for name, other in (("S", "S"), ("low", "S_low"), ("own", "own"), ("all_parts", "joint_accuracy")):
        assert row[name] == pytest.approx(float(at[other]))
    assert (row["networks"], row["chance"]) == (6, pytest.approx(0.1))
    assert table["network"].str.endswith(", untrained").sum() == 3 * int((~summary["trained"]).sum())


def test_the_table_of_a_summary_holds_its_numbers(planted) -> None:
    one, summary, dynamics = planted
    table = table_of(summary)
    row = table[(table["units"] == 25) & (table["p"] == 1) & table["trained"] & (table["measure"] == "correlation")]
    at = summary.isel(cell=find_cell(summary, 25, 1.0)).sel(measure="correlation")
    assert len(row) == 1
    for name in ("S", "S_low", "own", "task_accuracy", "task_accuracy_high", "Q", "n_defined"):
        assert row.iloc[0][name] == pytest.approx(float(at[name]))
    assert (table["seeds"] == 6).all()
    # Findings take the networks themselves as well.
    pd.testing.assert_frame_equal(findings(one, dynamics), findings(summary, dynamics))


def test_weight_masks_are_one_more_measure_that_falls(planted) -> None:
    one, summary, _ = planted
    where = ("units", "p", "seed", "trained", "cov_ratio")
    masks = xr.Dataset(
        {"S": ("network", 1 / (1 + 10 * one["p"].values))},
        coords={name: ("network", one[name].values) for name in where},
        attrs={"analysis": "weight_masks"},
    )
    table = findings(summary, None, masks)
    rows = table[table["masking"] == "weight mask"]
    assert rows["group"].tolist() == ["n = 10", "n = 25", "n = 50"]
    np.testing.assert_allclose(rows["estimate"].astype(float), -1)
    assert (rows["held"] == "yes").all()
    with pytest.raises(InputError, match=r"masks lack \['seed'\]"):
        findings(summary, None, masks.drop_vars("seed"))
