"""UnitSet: an algebra of units, choices by score, random controls, and forms that survive a file."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.errors import InputError, LayerError
from actkit.results import load, save
from actkit.units import Unit, UnitSet, channel_count, round_half_up

SHAPES = {"conv1": (5, 3, 2), "tokens": (4, 6), "fc": (7,)}


@st.composite
def unit_sets(draw, scored=None):
    """Units of three kinds of layers: channels and positions of maps and of token sequences."""
    pool = [Unit(name, c) for name, shape in SHAPES.items() for c in range(channel_count(shape))]
    pool += [Unit("conv1", c, y, x) for c in range(5) for y in range(3) for x in range(2)]
    pool += [Unit("tokens", c, y) for c in range(6) for y in range(4)]
    pool += [Unit(name, -1) for name in SHAPES]
    chosen = draw(st.lists(st.sampled_from(pool), unique=True, max_size=12))
    numbers = st.floats(-1e6, 1e6) if scored else st.one_of(st.just(math.nan), st.floats(-1e6, 1e6))
    scores = [draw(numbers) for _ in chosen]
    return made(chosen, scores, draw(st.sampled_from(["", "which ones?", "größer: 0"])))


def made(units, scores=None, question=""):
    columns = {name: np.array([getattr(u, name) for u in units], dtype=int) for name in ("channel", "y", "x")}
    scores = np.full(len(units), np.nan) if scores is None else np.array(scores, dtype=float)
    layer = np.array([u.layer for u in units], dtype=str)
    return UnitSet(layer=layer, **columns, score=scores, question=question, shapes=SHAPES)


def same_rows(a, b):
    return list(a) == list(b) and np.array_equal(a.score, b.score, equal_nan=True)


# -- algebra -----------------------------------------------------------------------------------------


@given(unit_sets(), unit_sets(), unit_sets())
@settings(max_examples=60, deadline=None)
def test_the_algebra_is_that_of_sets(a, b, c):
    sa, sb = set(a), set(b)
    assert set(a | b) == sa | sb
    assert set(a & b) == sa & sb
    assert set(a - b) == sa - sb
    assert set(a ^ b) == sa ^ sb
    assert len(a | b) + len(a & b) == len(a) + len(b)
    assert (a | b) & c == (a & c) | (b & c)
    assert a - (b | c) == (a - b) & (a - c)
    assert (a == b) == (sa == sb)
    assert (a | b) == (b | a)
    assert hash(a | b) == hash(b | a)
    assert (a | b).fingerprint == (b | a).fingerprint
    assert all(unit in a for unit in a)


@given(unit_sets(), unit_sets())
@settings(max_examples=40, deadline=None)
def test_scores_of_the_left_set_win(a, b):
    left, right = (dict(zip(s, s.score, strict=True)) for s in (a, b))
    for unit, score in zip(a | b, (a | b).score, strict=True):
        assert np.array_equal(score, left.get(unit, right.get(unit)), equal_nan=True)
    for unit, score in zip(a & b, (a & b).score, strict=True):
        assert np.array_equal(score, left[unit], equal_nan=True)


def test_a_fingerprint_is_of_the_units_alone():
    a = UnitSet.of("fc", [1, 2], scores=[3, 4], question="x")
    assert a.fingerprint == UnitSet.of("fc", [2, 1]).fingerprint
    assert a.fingerprint != UnitSet.of("fc", [1, 3]).fingerprint
    assert a.fingerprint != UnitSet.of("fc2", [1, 2]).fingerprint
    assert UnitSet.of("a", [0]).fingerprint != UnitSet.whole("a").fingerprint


def test_membership_takes_layer_and_channel():
    units = UnitSet.of("conv1", [0, 3])
    assert ("conv1", 0) in units  # channel 0 is a channel like any other
    assert ("conv1", 1) not in units
    assert ("conv1", 0, 1, 1) not in units
    assert "conv1" not in units
    assert units != [("conv1", 0), ("conv1", 3)]


def test_the_question_says_how_sets_were_joined():
    a, b = UnitSet.of("fc", [1], question="faces"), UnitSet.of("fc", [2], question="cars")
    assert (a | b).question == "(faces) or (cars)"
    assert (a - b).question == "(faces) and not (cars)"


def test_sets_of_different_networks_are_not_joined():
    with pytest.raises(InputError, match=r"'fc' has shape \(7,\) in one set and \(8,\)"):
        UnitSet.of("fc", [1], shape=(7,)) | UnitSet.of("fc", [2], shape=(8,))


# -- choosing ----------------------------------------------------------------------------------------


@given(unit_sets(scored=True), st.data())
@settings(max_examples=40, deadline=None)
def test_top_is_the_head_of_the_sorted_units(units, data):
    k = data.draw(st.integers(0, len(units)))
    order = {name: i for i, name in enumerate(units.layers)}
    rows = sorted(zip(units, units.score, strict=True), key=lambda r: (-r[1], order[r[0].layer], *r[0][1:]))
    assert list(units.top(k=k)) == [unit for unit, _ in rows[:k]]


def test_ties_go_to_the_lower_index():
    units = UnitSet.of("fc", [5, 2, 4, 1], scores=[1, 1, 1, 2], shape=(7,))
    assert units.top(k=3).channel.tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    ("n", "fraction", "k"), [(10, 0.35, 4), (10, 0.25, 3), (5, 0.5, 3), (512, 0.2, 102), (7, 0, 0)]
)
def test_a_fraction_is_of_the_layers_channels_rounded_half_up(n, fraction, k):
    a = UnitSet.of("a", range(n), scores=np.arange(n), shape=(n, 4, 4))
    b = UnitSet.of("b", range(2 * n), scores=-np.arange(2 * n), shape=(2 * n,))
    top = (a | b).top(fraction=fraction)
    assert top.in_layer("a").channel.tolist() == list(range(n))[::-1][:k]
    assert top.in_layer("b").channel.tolist() == list(range(round_half_up(fraction * 2 * n)))


def test_a_fraction_beyond_the_ranked_units_is_refused():
    half = UnitSet.of("fc", range(4), scores=range(4), shape=(10,))
    assert len(half.top(fraction=0.4)) == 4
    with pytest.raises(InputError, match=r"0\.5 of layer 'fc' are 5 units, and only 4"):
        half.top(fraction=0.5)


def test_nan_has_no_place_in_an_order():
    units = UnitSet.of("fc", [0, 3], scores=[1, math.nan])
    with pytest.raises(InputError, match=r"channel 3 of 'fc' has no score \(NaN\), so 1 of 2"):
        units.top(k=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either k or fraction"),
        ({"k": 1, "fraction": 0.5}, "give either k or fraction"),
        ({"k": 3}, "top 3 of 2"),
        ({"k": -1}, "top -1 of 2"),
        ({"fraction": 1.5}, "not a share"),
        ({"fraction": 0.5}, "shape of layer 'fc' is not known"),
    ],
)
def test_what_top_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        UnitSet.of("fc", [0, 1], scores=[1, 2]).top(**arguments)


# -- random controls ---------------------------------------------------------------------------------


@given(unit_sets(), st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_controls_match_in_number_layer_and_kind(units, seed, number):
    units = units - made([Unit(name, -1) for name in SHAPES])
    drawn = units.random_like(seed, number)
    assert same_rows(drawn, units.random_like(seed, number))
    for name in units.layers:
        for positions in (False, True):
            mine, theirs = (s.in_layer(name) for s in (units, drawn))
            assert ((mine.y >= 0) == positions).sum() == ((theirs.y >= 0) == positions).sum()


def test_seed_0_and_channel_0_count_and_every_draw_differs():
    units = UnitSet.of("fc", range(10), shape=(100,))
    draws = [frozenset(units.random_like(seed, number)) for seed in (0, 1) for number in range(20)]
    assert len(set(draws)) == 40
    many = [units.random_like(0, number) for number in range(400)]
    counts = np.bincount(np.concatenate([m.channel for m in many]), minlength=100)
    assert counts.min() > 15  # 40 expected of every channel (standard deviation 6), number 0 included
    assert counts.max() < 70


def test_controls_can_avoid_units_and_stay_among_others():
    units = UnitSet.of("fc", [0, 1, 2], shape=(7,))
    for number in range(20):
        assert not set(units.random_like(3, number, exclude=units)) & set(units)
        drawn = units.random_like(3, number, among=UnitSet.of("fc", [1, 3, 5, 6]))
        assert set(drawn.channel) <= {1, 3, 5, 6}
    with pytest.raises(InputError, match="'fc' offers 2 units for a random control of 3"):
        units.random_like(3, exclude=UnitSet.of("fc", range(5)))
    with pytest.raises(InputError, match="as a whole, which has no random control"):
        UnitSet.whole("fc", shape=(7,)).random_like(0)


# -- masks, shapes, indices --------------------------------------------------------------------------


@given(unit_sets())
@settings(max_examples=40, deadline=None)
def test_masks_mark_what_the_set_names(units):
    for name in units.layers:
        mine, shape = units.in_layer(name), SHAPES[name]
        expected = np.zeros((6, 4) if name == "tokens" else shape, dtype=bool)
        for unit in mine:
            place = [slice(None) if i < 0 else i for i in unit[1:]][: expected.ndim]
            expected[tuple(place)] = True
        mask = units.mask(name)
        if (mine.y >= 0).any():
            assert mask.shape == shape
            assert np.array_equal(mask, expected.T if name == "tokens" else expected)
        else:
            assert np.array_equal(mask, expected.reshape(len(expected), -1).all(1))


def test_a_boolean_mask_makes_a_set():
    assert UnitSet.of("fc", np.array([True, False, True])) == UnitSet.of("fc", [0, 2])
    with pytest.raises(InputError, match="3 values for the 7 channels"):
        UnitSet.of("fc", np.array([True, False, True]), shape=(7,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": [0, 5]}, r"channel 5 of 'conv1' does not exist: .* \(5, 3, 2\).* 5 channels on a map of 3 x 2"),
        ({"channels": [0], "y": 3, "x": 0}, "channel 0, y 3, x 0 of 'conv1' does not exist"),
        ({"channels": [0], "y": 1}, "a position needs both y and x"),
        ({"channels": [0], "x": 1}, "position without what it is a position of"),
        ({"channels": [-2]}, "holds -2; indices start at 0"),
        ({"channels": [0.5]}, "indices are whole numbers"),
        ({"channels": [1, 1]}, "channel 1 of 'conv1' stands twice"),
        ({"channels": [1, 2], "scores": [1]}, r"score has shape \(1,\) for 2 units"),
    ],
)
def test_bad_units_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        UnitSet.of("conv1", shape=(5, 3, 2), **arguments)


def test_a_set_is_checked_against_a_networks_layers():
    units = UnitSet.of("conv1", [0, 4])
    units.check({"conv1": (5, 3, 2)})
    with pytest.raises(InputError, match="channel 4 of 'conv1' does not exist"):
        units.check({"conv1": (4, 3, 2)})
    with pytest.raises(LayerError, match=r"no layer 'conv1'.*nearest: 'conv2'"):
        units.check({"conv2": (5, 3, 2)})


def test_columns_cannot_be_written():
    units = UnitSet.of("fc", [0, 1])
    with pytest.raises(ValueError, match="read-only"):
        units.channel[0] = 5


# -- round trips -------------------------------------------------------------------------------------


@given(unit_sets())
@settings(max_examples=40, deadline=None)
def test_dicts_survive_yaml(units):
    back = UnitSet.from_dict(yaml.safe_load(yaml.safe_dump(units.to_dict(), allow_unicode=True)))
    assert same_rows(back, units)
    assert (back.question, back.shapes) == (units.question, units.shapes)


@given(unit_sets())
@settings(max_examples=10, deadline=None)
def test_datasets_survive_netcdf(tmp_path_factory, units):
    path = tmp_path_factory.mktemp("units") / "units.nc"
    back = UnitSet.from_dataset(load(save(units.to_dataset(), path)))
    assert same_rows(back, units)
    assert (back.question, back.shapes) == (units.question, units.shapes)
    assert load(path).attrs["analysis"] == "units"


def test_other_results_and_mistyped_entries_are_refused():
    import xarray as xr

    with pytest.raises(InputError, match="result of 'rsa'"):
        UnitSet.from_dataset(xr.Dataset(attrs={"analysis": "rsa"}))
    with pytest.raises(InputError, match="no entry 'chanel'; nearest: 'channel'"):
        UnitSet.from_dict({"units": [{"layer": "fc", "chanel": [1]}]})
    with pytest.raises(InputError, match="needs both 'layer' and 'channel'"):
        UnitSet.from_dict({"units": [{"layer": "fc"}]})
