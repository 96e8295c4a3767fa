"""The summary of a recording, its figures, and the verdicts of its findings, from evidence whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from actkit.analyses.neuron_findings import findings
from actkit.analyses.neuron_summary import Evidence, interval, layer_table, neuron_summary, series
from actkit.analyses.neuron_summary_plot import alt_text, caption, plot, plot_narrow
from actkit.errors import InputError

N, LAYERS = 40, ["early", "late"]


def match(r: float, limit: float = 0.1, null: str = "free", corrected: bool = False, seed: int = 0) -> xr.Dataset:
    """What a match gives, with given levels."""
    rng = np.random.default_rng(seed)
    values = r + 0.05 * rng.normal(size=(N, 2))
    result = xr.Dataset(
        {
            "r_mean": (("neuron", "layer"), values),
            "null_99": (("neuron", "layer"), np.full((N, 2), limit)),
            "null_median": (("permutation", "layer"), 0.01 * rng.normal(size=(19, 2))),
            "p_corrected": (("neuron", "layer"), np.where(values > limit, 0.01, 0.5)),
            "p_median": ("layer", [0.05, 0.05]),
            "stability": (("neuron", "layer"), np.full((N, 2), 0.4)),
        },
        coords={"layer": LAYERS, "neuron": [f"n{k}" for k in range(N)]},
        attrs={"network": "net", "null": null, "n_permutations": 19, "n_neurons": N, "n_stimuli": 100},
    )
    return result.assign(r_corrected=result["r_mean"] / 0.8) if corrected else result


def encoding(r: float) -> xr.Dataset:
    values = r + 0.05 * np.random.default_rng(1).normal(size=(2, N))
    coords = {"layer": LAYERS, "neuron": [f"n{k}" for k in range(N)]}
    attrs = {"model": "ridge", "n_neurons": N, "n_stimuli": 100, "splitting": "2-fold"}
    return xr.Dataset({"r": (("layer", "neuron"), values)}, coords=coords, attrs=attrs)


def transfer(value: float, null: float, own: float = 0.8) -> xr.Dataset:
    draws = null + 0.01 * np.random.default_rng(2).normal(size=(2, 19))
    names = ("null_labels", "null_match", "null_random")
    return xr.Dataset(
        {
            "transfer": ("layer", [value, value]),
            "units": ("layer", [0.7, 0.7]),
            "neurons": ("layer", [own, own]),
            "p_labels": ("layer", [0.05, 0.05]),
            "chance": ((), 0.25),
            **dict.fromkeys(names, (("layer", "permutation"), draws)),
        },
        coords={"layer": LAYERS},
        attrs={"label": "object", "n_stimuli": 100},
    )


def controls(drop: float, ratio: float) -> dict[str, xr.Dataset]:
    """Controls whose neurons lose `drop` on average, and whose units lie at `ratio` of the null's spread."""
    rng = np.random.default_rng(3)
    coords = {"layer": LAYERS, "neuron": [f"n{k}" for k in range(N)]}
    native = 0.3 + 0.05 * rng.normal(size=(2, N))
    lost = native - drop - 0.02 * rng.normal(size=(2, N))
    rotated = np.stack([lost, lost], axis=1)
    null = 0.3 + 0.01 * rng.normal(size=(2, 19))
    p = ("layer", [0.05, 0.05])
    return {
        "rotation": xr.Dataset(
            {
                "native": (("layer", "neuron"), native),
                "rotated": (("layer", "rotation", "neuron"), rotated),
                "median_rotated": (("layer", "rotation"), np.median(rotated, axis=2)),
                "p_value": p,
            },
            coords=coords,
        ),
        "pools": xr.Dataset(
            {"median_r": (("layer", "draw"), np.array([[0.1, 0.2, 0.3]] * 2))},
            coords={"layer": LAYERS},
            attrs={"pool_size": 8},
        ),
        "shuffle": xr.Dataset(
            {
                "observed": (("layer", "neuron"), native),
                "null_mean": (("layer", "neuron"), lost),
                "null_median": (("layer", "draw"), np.zeros((2, 5))),
                "p_median": p,
            },
            coords=coords,
        ),
        "location": xr.Dataset(
            {
                "ratio": ("layer", [ratio, ratio]),
                "null_spread": (("layer", "draw"), null),
                "p_value": p,
                "ratio_mean": ((), ratio),
            },
            coords={"layer": LAYERS},
        ),
        "untrained": xr.Dataset(
            {"difference": (("layer", "neuron"), native - lost)}, coords=coords, attrs={"twin": "twin"}
        ),
    }


def evidence(**changes: object) -> Evidence:
    """A trained network that is better than all its controls, and its twin."""
    given: dict = {
        "recording": "R",
        "matches": {"twin": [match(0.1)], "net": [match(0.3, null="within_category", corrected=True), match(0.3)]},
        "encodings": {"net": encoding(0.5)},
        "transfers": {"net": transfer(0.5, 0.25)},
        "controls": {"net": controls(0.1, 0.5)},
    }
    return Evidence(**{**given, **changes})


def test_an_interval_is_that_of_a_plain_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=30)
    value, low, high = interval(np.append(values, np.nan), seed=3)
    assert value == np.median(values)
    assert (value, low, high) == interval(values, seed=3)
    rng = np.random.default_rng(9)
    drawn = [np.median(rng.choice(values, 30)) for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.08)
    assert interval(values, 3, "mean")[0] == pytest.approx(values.mean())
    assert np.isnan(interval(np.array([1.0, 2.0]), 0)[1:]).all()
    assert np.isnan(interval(np.full(4, np.nan), 0)).all()


def test_the_summary_has_a_row_for_each_quantity_and_layer() -> None:
    given = evidence()
    result = neuron_summary(given)
    assert given.networks == ["net", "twin"]
    first = given.matches["net"][0]
    unit = series(result, "net", "unit")
    assert unit["layer"].tolist() == LAYERS
    np.testing.assert_allclose(unit["value"], np.median(first["r_mean"], axis=0))
    np.testing.assert_allclose(series(result, "net", "unit_corrected")["value"], unit["value"] / 0.8)
    np.testing.assert_allclose(series(result, "net", "pools")["value"], 0.2)
    np.testing.assert_allclose(series(result, "net", "beyond within_category")["value"], 1.0)
    assert len(series(result, "net", "beyond free")) == 2
    assert len(series(result, "twin", "linear")) == 0
    share = series(result, "net", "transfer")
    np.testing.assert_allclose(share[["low", "high"]].iloc[0], [0.404, 0.596], atol=0.002)  # Wilson, 50 of 100
    table = layer_table(result)
    assert table["network"].tolist() == ["net", "net", "twin", "twin"]
    assert "same unit low" not in table
    assert result.attrs["untrained"] == ["twin"]
    with pytest.raises(InputError, match="nothing is known of 'R'"):
        neuron_summary(Evidence("R"))


def held(table: pd.DataFrame) -> dict[str, str]:
    words = {
        "category": "shared category", "chance": "more than chance", "untrained": "untrained twin", "axes": "mixtures",
        "own": "its own", "map": "in the map", "linear": "linear map", "labels": "neurons above chance",
        "match": "permuted match", "random": "random units", "part": "less well",
    }  # fmt: skip
    return {key: table.loc[table["finding"].str.contains(word), "held"].item() for key, word in words.items()}


def test_verdicts_follow_the_evidence() -> None:
    assert set(held(findings(evidence())).values()) == {"yes"}
    worse = evidence(
        matches={"net": [match(-0.1, null="within_category"), match(-0.1)]},
        encodings={"net": encoding(-0.3)},
        transfers={"net": transfer(0.1, 0.25, own=-0.0)},
        controls={"net": controls(-0.1, 1.5)},
    )
    assert set(held(findings(worse)).values()) == {"no"}
    same = evidence(
        matches={"net": [match(0.06, 0.12, "within_category"), match(0.06, 0.12)]},
        encodings={"net": encoding(0.06)},
        transfers={"net": transfer(0.2525, 0.25, own=0.26)},
        controls={"net": controls(0.0, 0.9995)},
    )
    assert set(held(findings(same)).values()) == {"undecided"}
    mixed = match(0.3).assign(r_mean=match(0.3)["r_mean"] * xr.DataArray([1.0, 0.0], dims="layer"))
    row = findings(Evidence("R", {"net": [mixed]})).iloc[0]  # what one layer alone carries is said
    assert row["measured"].startswith(".50 [")
    assert "above .10 in 1 of 2 layers" in row["measured"]
    nothing = findings(Evidence("R", {"net": [match(0.3)]}))
    assert nothing["finding"].str.contains("chance").tolist() == [True]  # no claim without a measurement


@pytest.mark.parametrize("kind", ["profile", "controls"])
def test_figures_have_captions_that_say_what_bars_are(kind: str) -> None:
    result = neuron_summary(evidence())
    assert plot(result, kind).get_size_inches()[0] == pytest.approx(6.5)
    assert plot_narrow(result, kind).get_size_inches()[0] < 4
    words = caption(result, kind)
    assert "95 %" in words
    assert "R" in words
    assert len(alt_text(result, kind)) > 40
    labels = [text.get_text() for axes in plot(result, kind).axes for text in axes.get_legend().get_texts()]
    assert len(labels) == len(set(labels)) or kind == "profile"  # r/√ρ of the unit and of the linear map


def test_networks_of_other_layers_share_relative_depth() -> None:
    other = match(0.2).assign_coords(layer=["a", "b"])
    result = neuron_summary(evidence(matches={"net": [match(0.3)], "other": [other]}, controls={}, transfers={}))
    figure = plot(result)
    assert figure.axes[-1].get_xlabel() == "Depth of the layer in its network"


def test_what_is_no_summary_is_refused() -> None:
    result = neuron_summary(Evidence("R", transfers={"net": transfer(0.5, 0.25)}))
    with pytest.raises(InputError, match="nothing was measured for kind='controls'"):
        plot(result, "controls")
    with pytest.raises(InputError, match=r"'profil'.*nearest: 'profile'"):
        plot(result, "profil")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no summary of neurons"):
        caption(xr.Dataset())
