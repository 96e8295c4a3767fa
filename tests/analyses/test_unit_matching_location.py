"""Units that share a place are found to; units scattered over the map are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from actkit.analyses.unit_matching import match_units
from actkit.analyses.unit_matching_location import matched_locations, spread
from actkit.errors import InputError

N, CHANNELS, SIDE = 60, 3, 6


def planted(seed: int, together: bool) -> tuple[xr.DataArray, np.ndarray]:
    """A map of independent units, and neurons that follow some of them: in one corner, or anywhere."""
    rng = np.random.default_rng(seed)
    units = rng.normal(size=(N, CHANNELS, SIDE, SIDE)).astype(np.float32)
    if together:
        places = [(c, y, x) for c in range(CHANNELS) for y in (0, 1) for x in (0, 1)][:10]
    else:
        places = [(c, y, x) for c in range(CHANNELS) for y in (0, SIDE - 1) for x in (0, SIDE - 1)][:10]
    neurons = np.stack([units[:, c, y, x] for c, y, x in places], axis=1) + 0.5 * rng.normal(size=(N, 10))
    return xr.DataArray(units, dims=("stimulus", "channel", "y", "x")), neurons


@pytest.mark.parametrize(("together", "verdict"), [(True, "small"), (False, "large")])
def test_neurons_of_one_place_are_told_from_scattered_ones(together: bool, verdict: str) -> None:
    units, neurons = planted(1, together)
    match = match_units({"map": units}, neurons, n_permutations=0, folds=3)
    result = matched_locations(match, {"map": units}, neurons, n_draws=39)
    p, ratio = float(result["p_value"][0]), float(result["ratio"][0])
    assert (p == 1 / 40) == (verdict == "small")
    assert (ratio < 0.5) if together else (ratio > 1.1)
    assert float(result["p_mean"]) == p  # one layer
    assert float(result["ratio_mean"]) == pytest.approx(ratio)


def test_the_null_is_the_match_made_anew_with_moved_stimuli() -> None:
    from actkit.analyses.unit_matching_nulls import draw_orders

    units, neurons = planted(2, True)
    labels = np.repeat(["a", "b", "c"], N // 3)
    match = match_units({"map": units}, neurons, labels=labels, n_permutations=0, folds=3, seed=5)
    result = matched_locations(match, {"map": units}, neurons, labels, n_draws=3, seed=8)
    assert result.attrs["null"] == "within_category"
    shapes = json.loads(match.attrs["shapes"])
    for draw, order in enumerate(draw_orders(N, 3, labels, None, 8)):
        assert (labels[order] == labels).all()
        again = match_units({"map": units}, neurons[order], labels=labels, n_permutations=0, folds=3, seed=5)
        assert float(result["null_spread"][0, draw]) == pytest.approx(spread(again, "map", shapes))


def test_spread_is_the_mean_distance_over_the_diagonal() -> None:
    place = {"y": [[[0], [3]], [[4], [3]], [[-1], [0]]], "x": [[[0], [1]], [[3], [1]], [[-1], [1]]]}
    match = xr.Dataset(
        {name: (("neuron", "fold", "layer"), np.array(values)) for name, values in place.items()},
        coords={"layer": ["map"]},
    )
    # Fold 0: neurons 0 and 1 are 5 apart, neuron 2 has no unit. Fold 1: 0 and 1 share a place, 2 is 3 away from both.
    assert spread(match, "map", {"map": [2, 5, 4]}) == pytest.approx((5 + 0 + 3 + 3) / 4 / np.hypot(4, 3))


def test_pure_noise_gives_uniform_p_values() -> None:
    found = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        units = xr.DataArray(rng.normal(size=(24, 2, 4, 4)), dims=("stimulus", "channel", "y", "x"))
        neurons = rng.normal(size=(24, 5))
        match = match_units({"map": units}, neurons, n_permutations=0, folds=2)
        found.append(float(matched_locations(match, {"map": units}, neurons, n_draws=9, seed=seed)["p_value"][0]))
    assert 0.3 < np.mean(found) < 0.7  # uniform on .1 … 1: mean .55, s.e. .06
    assert np.mean(np.array(found) <= 0.1) <= 0.3


def test_what_has_no_place_is_refused() -> None:
    rng = np.random.default_rng(0)
    flat, neurons = rng.normal(size=(20, 8)), rng.normal(size=(20, 3))
    match = match_units({"flat": flat}, neurons, n_permutations=0, folds=2)
    with pytest.raises(InputError, match="no layer of the match has a map"):
        matched_locations(match, {"flat": flat}, neurons)
    with pytest.raises(InputError, match="match holds no positions"):
        matched_locations(xr.Dataset(), {"flat": flat}, neurons)
    units, more = planted(0, True)
    match = match_units({"map": units}, more, n_permutations=0, folds=2)
    with pytest.raises(InputError, match="of 10 neurons and 60 stimuli"):
        matched_locations(match, {"map": units}, more[:, :4])
