from collections import OrderedDict

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from actkit import plotting, plugins
from actkit.analyses import segregation_seeds as module
from actkit.analyses import segregation_seeds_plot as figures
from actkit.analyses.segregation import segregation
from actkit.analyses.segregation_findings import findings, verdict
from actkit.analyses.segregation_seed_values import seeds_of, summary_of, welch
from actkit.analyses.segregation_seeds import layer_table, mixed_model, over_seeds, segregation_seeds
from actkit.errors import InputError
from actkit.results import load, save
from actkit.tasks import Task

LAYERS = [f"features.relu{i}" for i in range(1, 9)]


def simulated(seed, segregated=True, layers=LAYERS, selectivity=True, tasks=("face", "object"), n_null=99):
    """A segregation result of one network with a planted index: rising with depth, or flat in the control."""
    rng = np.random.default_rng(seed)
    n = len(layers)
    depth = np.linspace(0, 1, n)
    fractions = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    gain = np.array([1.0, 0.7])[None, :, None, None]  # masked drops are smaller
    harm = (0.35 + 0.45 * depth)[:, None, None, None] * np.ones((n, 2, 2, 1))
    apart = (0.05 + 0.6 / (1 + np.exp(-9 * (depth - 0.5))))[:, None, None, None] if segregated else 0.06
    own = harm * gain + 0.06 * rng.normal() + 0.03 * rng.normal(size=(n, 2, 2, 1))
    other = own - apart * gain + 0.03 * rng.normal(size=(n, 2, 2, 1))
    shape = (1 - np.exp(-fractions / 0.15)) / (1 - np.exp(-0.2 / 0.15))
    drop = np.empty((n, 2, 2, 2, 5))
    for r in range(2):
        drop[:, :, r, r] = np.clip(own[:, :, r] * shape, -0.1, 1)
        drop[:, :, r, 1 - r] = np.clip(other[:, :, r] * shape, -0.1, 1)
    at = drop[..., 1]
    index = (at[:, :, 0, 0] - at[:, :, 0, 1] + at[:, :, 1, 1] - at[:, :, 1, 0]) / 2
    centre = np.array([0.16, 0.04])
    null = centre[None, :, None] + 0.05 * rng.normal(size=(n, 2, n_null))
    p = (1 + (null >= index[..., None]).sum(-1)) / (1 + n_null)
    maximum = (null - null.mean(-1, keepdims=True)).max(0)
    p_corrected = (1 + (maximum[None] >= (index - null.mean(-1))[..., None]).sum(-1)) / (1 + n_null)
    chance = np.array([[0.02, 0.02], [0.04, 0.04]])
    intact = np.array([[0.78, 0.71], [0.82, 0.8]]) + 0.01 * rng.normal(size=(2, 2))
    accuracy = intact[None, :, None, :, None] - drop * (intact - chance)[None, :, None, :, None]
    share = np.clip((0.62 - 0.55 * depth if segregated else 0.62 - 0.1 * depth) + 0.04 * rng.normal(size=n), 0, 1)
    ceiling = 0.72 + 0.03 * rng.normal(size=n)
    between = 0.2 + (share - 0.2) * 0.8
    lmr = ("layer", "masking", "ranking")
    data = {
        "index": (("layer", "masking"), index),
        "index_plain": (("layer", "masking"), 0.97 * index),
        "excess": (("layer", "masking"), index - null.mean(-1)),
        "null_mean": (("layer", "masking"), null.mean(-1)),
        "null_low": (("layer", "masking"), np.quantile(null, 0.025, -1)),
        "null_high": (("layer", "masking"), np.quantile(null, 0.975, -1)),
        "p_value": (("layer", "masking"), p),
        "p_corrected": (("layer", "masking"), p_corrected),
        "drop": ((*lmr, "task", "fraction"), drop),
        "accuracy": ((*lmr, "task", "fraction"), accuracy),
        "intact": (("masking", "task"), intact),
        "chance": (("masking", "task"), chance),
        "saturated": (lmr, (at > 0.9).all(-1).astype(np.int8)),
        "random_drop": (("layer", "masking", "task", "random"), 0.12 + 0.04 * rng.normal(size=(n, 2, 2, 50))),
        "matched_drop": (("layer", "masking", "task", "random"), 0.2 + 0.05 * rng.normal(size=(n, 2, 2, 50))),
        "shared": ("layer", share),
        "shared_chance": ("layer", np.full(n, 0.2)),
        "shared_low": ("layer", np.full(n, 0.08)),
        "shared_high": ("layer", np.full(n, 0.34)),
        "shared_ceiling": ("layer", ceiling),
        "shared_between": ("layer", between),
        "shared_normalised": ("layer", (between - 0.2) / (ceiling - 0.2)),
    }
    if selectivity:
        chosen = 0.65 * at + 0.04 * rng.normal(size=at.shape)
        data["selective_drop"] = ((*lmr, "task"), chosen)
        rho = -0.45 * depth[:, None] + 0.08 * rng.normal(size=(n, 2))
        data["rank_selectivity"] = (("layer", "ranking"), rho)
    coords = {"layer": list(layers), "masking": ["unmasked", "masked"], "ranking": list(tasks), "task": list(tasks),
              "fraction": fractions}  # fmt: skip
    attrs = {"analysis": "segregation", "fraction": 0.2, "tasks": list(tasks), "network": f"net-seed{seed}",
             "n_null": n_null}  # fmt: skip
    return xr.Dataset(data, coords=coords, attrs=attrs)


def groups_of(seeds=5, **more):
    return {
        "dual": [simulated(s, **more) for s in range(seeds)],
        "face_face": [simulated(100 + s, segregated=False, tasks=("face_a", "face_b"), **more) for s in range(seeds)],
    }


def accuracies(seeds=5):
    rng = np.random.default_rng(0)

    def noise():
        return 0.012 * rng.normal()

    return {
        "face": [{"face": 0.80 + noise()} for _ in range(seeds)],
        "object": [{"object": 0.74 + noise()} for _ in range(seeds)],
        "dual": [{"face": 0.79 + noise(), "object": 0.72 + noise()} for _ in range(seeds)],
        "face_face": [{"face_a": 0.75 + noise(), "face_b": 0.7 + noise()} for _ in range(seeds)],
    }


def decoding(seeds=5):
    rng = np.random.default_rng(1)
    return {
        "face": {"face": 0.62 + 0.02 * rng.normal(size=seeds), "object": 0.31 + 0.02 * rng.normal(size=seeds)},
        "object": {"face": 0.35 + 0.02 * rng.normal(size=seeds), "object": 0.58 + 0.02 * rng.normal(size=seeds)},
    }


NAMED = {"control": "face_face", "early": LAYERS[0], "late": LAYERS[-1], "singles": ["face", "object"]}


@pytest.fixture(scope="module")
def summary():
    return segregation_seeds(groups_of(), **NAMED)


def test_means_and_intervals_are_those_of_scipy(summary):
    ones = groups_of()["dual"]
    for name in ("index", "excess", "shared", "rank_selectivity"):
        values = np.stack([one[name].values for one in ones])
        found = summary.sel(group="dual")
        np.testing.assert_allclose(found[name], values.mean(0))
        low, high = stats.t.interval(0.95, 4, values.mean(0), stats.sem(values))
        np.testing.assert_allclose(found[f"{name}_low"], low)
        np.testing.assert_allclose(found[f"{name}_high"], high)
        np.testing.assert_array_equal(np.moveaxis(found[f"{name}_seeds"].values, -1, 0), values)


def test_difference_to_the_control_is_welch_s(summary):
    groups = groups_of()
    a, b = (np.stack([one["excess"].values for one in groups[name]]) for name in ("dual", "face_face"))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = summary.sel(group="dual")
    np.testing.assert_allclose(found["excess_above_control"], a.mean(0) - b.mean(0))
    np.testing.assert_allclose(found["excess_above_control_low"], expected.low)
    np.testing.assert_allclose(found["excess_above_control_high"], expected.high)
    assert np.isnan(summary["index_above_control"].sel(group="face_face")).all()


def test_welch_of_unequal_groups_and_of_no_spread():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=7), 3 * rng.normal(size=4)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose(welch(a, b, 0.9)[1:], expected)
    assert [float(value) for value in welch(np.full(3, 0.5), np.full(3, 0.25))] == [0.25, 0.25, 0.25]
    assert np.isnan(welch(a, b[:1])[1:]).all()


def test_intervals_cover_what_they_say():
    rng = np.random.default_rng(4)
    truth, n = 0.3, 20_000
    _, _, low, high = summary_of(truth + rng.normal(size=(5, n)))
    assert np.mean((low < truth) & (truth < high)) == pytest.approx(0.95, abs=0.006)
    _, low, high = welch(truth + rng.normal(size=(5, n)), 3 * rng.normal(size=(5, n)))
    assert np.mean((low < truth) & (truth < high)) == pytest.approx(0.95, abs=0.012)


def test_drops_are_taken_at_the_fraction_of_the_index(summary):
    one = groups_of()["face_face"][2]
    at = one["drop"].sel(fraction=0.2)
    seed = summary.sel(group="face_face").isel(model=2)
    np.testing.assert_array_equal(seed["own_drop_seeds"].sel(ranking="second"), at.sel(ranking="face_b", task="face_b"))
    np.testing.assert_array_equal(
        seed["other_drop_seeds"].sel(ranking="second"), at.sel(ranking="face_b", task="face_a")
    )
    np.testing.assert_array_equal(
        seed["selective_other_seeds"].sel(ranking="first"), one["selective_drop"].sel(ranking="face_a", task="face_b")
    )
    np.testing.assert_allclose(
        seed["random_own_seeds"].sel(ranking="second"), one["random_drop"].sel(task="face_b").mean("random")
    )
    np.testing.assert_allclose(
        seed["performance_seeds"].sel(ranking="first", task="second"),
        one["accuracy"].sel(ranking="face_a", task="face_b") / one["intact"].sel(task="face_b"),
    )


def test_counts_and_nulls_over_networks(summary):
    ones = groups_of()["dual"]
    p = np.stack([one["p_corrected"].values for one in ones])
    found = summary.sel(group="dual")
    np.testing.assert_array_equal(found["n_significant"], (p < 0.05).sum(0))
    np.testing.assert_array_equal(found["p_corrected_seeds"].transpose("model", "layer", "masking"), p)
    assert 0 < int(found["n_significant"].sum()) < 5 * found["n_significant"].size
    for name in ("null_mean", "null_low", "null_high"):
        np.testing.assert_allclose(found[name], np.mean([one[name].values for one in ones], axis=0))
    assert str(summary["network"].sel(group="face_face").values[0]) == "net-seed100"


def test_planted_claims_hold_and_each_is_judged_once_in_each_masking(summary):
    table = findings(summary, accuracies(), decoding())
    assert not table.duplicated(["finding", "masking"]).any()
    control = table["finding"] == "The same-task control against its null"
    assert set(table.loc[~control, "held"]) == {"yes"}
    assert set(table.loc[control, "held"]) == {"no claim"}
    assert len(table) == 24
    row = table[(table["finding"] == "Segregation rises with depth") & (table["masking"] == "masked")].iloc[0]
    some = groups_of()["dual"]
    rise = [float(one["index"][-1, 1] - one["index"][0, 1]) for one in some]
    assert row["estimate"] == pytest.approx(np.mean(rise))
    np.testing.assert_allclose(
        (row["low"], row["high"]), stats.t.interval(0.95, 4, np.mean(rise), stats.sem(rise)), rtol=1e-10
    )
    assert table["measured"].str.contains("highest of all layers, seen afterwards").sum() == 2


def test_claims_that_are_false_do_not_hold():
    groups = groups_of()
    swapped = {"dual": groups["face_face"], "face_face": groups["dual"]}
    poor = accuracies() | {"dual": [{"face_a": 0.3 + 0.01 * i, "face_b": 0.3} for i in range(5)]}
    poor["face"] = [{"face_a": 0.8 + 0.01 * i} for i in range(5)]
    reverse = {"face": decoding()["object"], "object": decoding()["face"]}
    table = findings(segregation_seeds(swapped, **NAMED), poor, reverse).set_index("finding")
    assert set(table.loc["More segregated than the same-task control", "held"]) == {"no"}
    assert "yes" not in set(table.loc["Segregated beyond the class-shuffled null", "held"])
    assert table.loc["Nearly as accurate on face_a as networks of that task alone", "held"] == "no"
    assert table.loc["Nearly as accurate on face_b as networks of that task alone", "held"] == "not measured"
    assert table.loc["Held-out face classes are decoded better from face than object networks", "held"] == "no"


def test_the_margin_decides_what_is_nearly_as_accurate(summary):
    name = "Nearly as accurate on face as networks of that task alone"
    strict, mild = (findings(summary, accuracies(), margin=m).set_index("finding").loc[name] for m in (0.0, 0.05))
    assert strict["boundary"] == 0
    assert mild["boundary"] == -0.05
    assert mild["held"] == "yes"
    assert strict["held"] == "no"


def test_verdict_needs_the_whole_interval():
    assert [verdict(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1), (np.nan, np.nan))] == [
        "yes", "no", "undecided", "undecided", "undecided",
    ]  # fmt: skip
    assert verdict(-0.2, -0.1, boundary=-0.05, above=False) == "yes"


def test_a_layer_without_a_value_in_one_network_has_no_mean():
    groups = groups_of()
    groups["dual"][3] = groups["dual"][3].copy(deep=True)
    for name in ("index", "excess"):
        groups["dual"][3][name][7] = np.nan
    found = segregation_seeds(groups, **NAMED)
    assert np.isnan(found["index"].sel(group="dual")[7]).all()
    assert np.isfinite(found["index"].sel(group="dual")[:7]).all()
    assert np.isfinite(seeds_of(found, "index", "dual", layer=LAYERS[7], masking="masked")).sum() == 4
    table = findings(found).set_index("finding")
    row = table.loc["Segregated beyond the class-shuffled null"].iloc[0]
    assert row["held"] == "not measured"
    assert row["measured"].startswith("1 of 5 networks have no value")
    assert "undefined at features.relu8" in figures.caption(found)
    figures.plot(found, kind="index").canvas.draw()


def test_one_seed_has_values_and_no_verdict():
    found = segregation_seeds(groups_of(1), **NAMED)
    assert np.isfinite(found["index"]).all()
    assert np.isnan(found["index_low"]).all()
    assert np.isnan(found["excess_above_control_low"].sel(group="dual")).all()
    table = findings(found, accuracies(1), decoding(1))
    assert set(table["held"]) == {"one seed: no interval", "no claim"}
    assert "no interval" in figures.caption(found)
    for kind in ("index", "findings"):
        figures.plot(found, kind=kind).canvas.draw()


def test_groups_of_different_size_and_without_control_or_selectivity():
    groups = {"dual": groups_of(3, selectivity=False)["dual"], "other": groups_of(5)["dual"]}
    found = segregation_seeds(groups)
    assert "index_above_control" not in found
    assert found.attrs["late"] == LAYERS[-1]
    assert np.isnan(found["index_seeds"].sel(group="dual")[..., 3:]).all()
    assert seeds_of(found, "index", "dual").shape[0] == 3
    np.testing.assert_allclose(found["index"].sel(group="dual"), np.mean([o["index"] for o in groups["dual"]], axis=0))
    assert np.isnan(found["rank_selectivity"].sel(group="dual")).all()
    table = findings(found)
    assert not table["finding"].str.contains("control").any()
    mine = table[table["group"] == "dual"].set_index("finding")
    assert mine.loc["Units needed most for face are selective for it", "held"] == "not measured"
    for kind in ("lesions", "selectivity"):
        figures.plot(found, kind=kind).canvas.draw()
    with pytest.raises(InputError, match="no result holds selectivity"):
        figures.plot(segregation_seeds({"dual": groups["dual"]}), kind="selectivity")


def test_too_few_shuffles_are_named():
    table = findings(segregation_seeds(groups_of(2, n_null=19)))
    assert table["measured"].str.contains("19 shuffles cannot reach it").sum() == 4


@pytest.mark.parametrize("kind", figures.Kind.__args__)
def test_every_figure_draws_dots_for_networks_and_has_words(summary, kind):
    given = {"kind": kind, "accuracies": accuracies(), "decoding": decoding(), "chance": 0.02}
    figure = figures.plot(summary, **given)
    figure.canvas.draw()
    assert len(figures.caption(summary, **given)) > 60
    assert len(figures.alt_text(summary, **given)) > 40
    width = figure.get_figwidth()
    renderer = figure.canvas.get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted())
        assert -0.01 <= box.x0 <= box.x1 <= width + 0.01, text.get_text()
    if kind in ("index", "excess"):
        shown = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and line.get_alpha()]
        drawn = np.concatenate([line.get_ydata() for line in shown])
        values = summary[f"{kind}_seeds"].sel(masking="unmasked").values
        np.testing.assert_allclose(np.sort(drawn), np.sort(values.ravel()))


def test_kinds_are_those_that_can_be_drawn(summary):
    assert figures.kinds_of(summary, accuracies(), decoding()) == list(figures.Kind.__args__)
    bare = segregation_seeds({"dual": groups_of(2, selectivity=False)["dual"]})
    assert figures.kinds_of(bare, {"dual": [{}, {}]}) == ["index", "excess", "lesions", "curves", "shared", "findings"]


def test_saturated_layers_are_crossed_and_counted():
    groups = {"dual": groups_of(3)["dual"]}
    groups["dual"][1]["saturated"][6, 0, 1] = 1
    found = segregation_seeds(groups, late=LAYERS[6])
    assert int(found["n_saturated"].sel(group="dual", layer=LAYERS[6], masking="unmasked")) == 1
    figure = figures.plot(found)
    crosses = [[text.get_text() for text in axes.texts].count("×") for axes in figure.axes]
    expected = [int((found["n_saturated"].sel(masking=name) > 0).sum()) for name in ("unmasked", "masked")]
    assert crosses == expected
    assert findings(found)["measured"].str.contains("saturated in 1 of 3").sum() == 1


def test_figures_are_found_by_the_analysis_that_made_the_result(summary, monkeypatch, tmp_path):
    monkeypatch.setattr(plugins, "load", lambda group, name: {"segregation_seeds": module}[name])
    again = load(save(summary, tmp_path / "seeds.nc"))
    xr.testing.assert_identical(again.drop_attrs(), summary.drop_attrs())
    both = plotting.plot(again, kind="excess"), module.plot(summary, kind="excess")
    drawn, expected = (figure.axes[1].lines for figure in both)
    assert len(drawn) == len(expected) > 10
    for one, other in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
    assert plotting.caption(again) == figures.caption(summary)
    assert "face face goes from" in plotting.alt_text(again)
    xr.testing.assert_identical(
        findings(again, accuracies(), decoding()).to_xarray(), findings(summary, accuracies(), decoding()).to_xarray()
    )


def test_table_has_a_row_for_each_group_layer_and_masking(summary):
    table = layer_table(summary)
    assert len(table) == 2 * 8 * 2
    row = table[(table["group"] == "dual") & (table["layer"] == LAYERS[3]) & (table["masking"] == "masked")].iloc[0]
    some = summary.sel(group="dual", layer=LAYERS[3], masking="masked")
    assert row["excess_low"] == float(some["excess_low"])
    assert row["own_drop_object"] == float(some["own_drop"].sel(ranking="second"))
    assert row["networks"] == 5


def test_bad_input(summary):
    groups = groups_of(2)
    with pytest.raises(InputError, match="no groups"):
        segregation_seeds({})
    with pytest.raises(InputError, match="'dual' has no results"):
        segregation_seeds({"dual": []})
    with pytest.raises(InputError, match="'dual', number 0, is not a segregation result"):
        segregation_seeds({"dual": [xr.Dataset()]})
    with pytest.raises(InputError, match="other layers"):
        segregation_seeds({"dual": [simulated(0), simulated(1, layers=LAYERS[:3])]})
    with pytest.raises(InputError, match=r"0\.3 of the units"):
        segregation_seeds({"dual": [simulated(0), simulated(1).assign_attrs(fraction=0.3)]})
    with pytest.raises(InputError, match="mixes networks"):
        segregation_seeds({"dual": [simulated(0), simulated(1, tasks=("car", "food"))]})
    with pytest.raises(InputError, match=r"late is 'relu8'.*features\.relu8"):
        segregation_seeds(groups, late="relu8")
    with pytest.raises(InputError, match="control 'faces' is no group"):
        segregation_seeds(groups, control="faces")
    with pytest.raises(InputError, match="not a summary over seeds"):
        findings(groups["dual"][0])
    with pytest.raises(InputError, match=r"margin of -0\.1"):
        findings(summary, margin=-0.1)
    with pytest.raises(InputError, match="accuracy of 80"):
        findings(summary, {"dual": [{"face": 80.0}]})
    with pytest.raises(InputError, match="different tasks"):
        findings(summary, {"dual": [{"face": 0.8}, {"object": 0.8}]})
    with pytest.raises(InputError, match=r"no figure 'indx'.*'index'"):
        figures.plot(summary, kind="indx")
    with pytest.raises(InputError, match="no layer 'relu8'"):
        figures.plot(summary, kind="lesions", layer="relu8")
    with pytest.raises(InputError, match="give accuracies="):
        figures.plot(summary, kind="accuracy")


def small_result(seed):
    """A real segregation result of a tiny readout whose units see one task each."""
    rng = np.random.default_rng(seed)
    task, units = np.repeat([0, 1], 6), np.repeat([0, 1], 12)
    prototypes = rng.normal(size=(12, 16))
    prototypes[task == 0, 8:] = prototypes[task == 1, :8] = 0
    weights = rng.normal(size=(24, 16)) / 4
    weights[units == 0, 8:] = weights[units == 1, :8] = 0

    def draw(n):
        y = np.repeat(np.arange(12), n)
        return prototypes[y] + 0.5 * rng.normal(size=(len(y), 16)), y

    x, y = draw(30)
    hidden = np.maximum(x @ weights.T, 0)
    head = np.linalg.solve(hidden.T @ hidden + np.eye(24), hidden.T @ np.eye(12)[y]) * 8
    network = torch.nn.Sequential(
        OrderedDict(fc=torch.nn.Linear(16, 24), relu=torch.nn.ReLU(), head=torch.nn.Linear(24, 12))
    )
    with torch.no_grad():
        for layer, w in ((network.fc, weights), (network.head, head.T)):
            layer.weight.copy_(torch.from_numpy(w))
            layer.bias.zero_()
    pairs = []
    for letter in "re":
        x, y = draw(8)
        pairs.append(
            [
                Task(name, torch.from_numpy(x[task[y] == t]).float(), y[task[y] == t], np.flatnonzero(task == t),
                     np.array([f"{letter}{name}{i}" for i in range((task[y] == t).sum())]))
                for t, name in enumerate(("face", "object"))
            ]
        )  # fmt: skip
    few = {"n_null": 9, "n_random": 5, "n_draws": 20, "n_splits": 2}
    return segregation(network.eval(), *pairs, ["relu"], **few)


def test_real_results_are_summarised():
    ones = [small_result(seed) for seed in range(2)]
    found = segregation_seeds({"dual": ones})
    np.testing.assert_allclose(found["index"][0], (ones[0]["index"].values + ones[1]["index"].values) / 2)
    np.testing.assert_allclose(
        found["own_drop_seeds"][0, 0, 0, 1], [one["drop"][0, 0, 1, 1].sel(fraction=0.2) for one in ones]
    )
    assert (found["excess"] > 0).all()
    figures.plot(found, kind="curves").canvas.draw()
    table = findings(found)
    assert not table["finding"].str.contains("with depth").any()  # early and late are the same layer


def study(rng, layers=3, effect=0.0):
    shift = rng.normal(0, 0.05)
    values = 0.2 + 0.1 * np.arange(layers)[:, None] + shift + effect + rng.normal(0, 0.02, (layers, 2))
    return xr.Dataset(
        {"index": (("layer", "masking"), values), "excess": (("layer", "masking"), values - 0.1)},
        coords={"layer": [f"l{i}" for i in range(layers)], "masking": ["unmasked", "masked"]},
    )


def test_intervals_over_seeds_are_t_intervals():
    rng = np.random.default_rng(7)
    ones = [study(rng) for _ in range(5)]
    found = over_seeds(ones)
    values = np.stack([one["index"].values for one in ones])
    np.testing.assert_allclose(found["index"], values.mean(0))
    reach = 2.776445 * values.std(0, ddof=1) / 5**0.5
    np.testing.assert_allclose(found["index_high"] - found["index"], reach, rtol=1e-5)
    assert found["index_seeds"].sizes["model"] == 5
    assert np.isnan(over_seeds(ones[:1])["index_low"]).all()


def test_mixed_model_needs_twenty_networks_and_recovers_the_means():
    rng = np.random.default_rng(8)
    ones = [study(rng) for _ in range(24)]
    with pytest.raises(InputError, match="19 trained networks"):
        mixed_model(ones[:19])
    found = mixed_model({"a": ones, "b": [study(rng, effect=0.3) for _ in range(24)]}, value="index")
    np.testing.assert_allclose(found["mean"].sel(condition="a"), [0.2, 0.3, 0.4], atol=0.04)
    np.testing.assert_allclose(found["mean"].sel(condition="b"), [0.5, 0.6, 0.7], atol=0.04)
    assert float(found["network_variance"]) == pytest.approx(0.0025, abs=0.0015)
