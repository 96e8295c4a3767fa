"""Recordings of neurons: checks, averages, trials and windows, each against a plain version."""

import doctest

import numpy as np
import pytest
import xarray as xr
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import actkit.recordings_neurons
import actkit.recordings_trials
from actkit.errors import DataError, InputError
from actkit.recordings_neurons import (
    average,
    bin_spike_times,
    bin_spikes,
    from_trials,
    has_repetitions,
    n_repetitions,
    pool_stimuli,
    stimulus_groups,
    validate_responses,
)


def recording(seed=0, n_stimuli=7, n_neurons=3, n_times=None):
    """Up to five presentations of each stimulus, two at least; the last neuron also misses the first stimulus."""
    rng = np.random.default_rng(seed)
    shape = (n_stimuli, 5, n_neurons) + (() if n_times is None else (n_times,))
    values = rng.poisson(3.0, shape).astype(np.float64)
    for i, n in enumerate(rng.integers(2, 6, n_stimuli)):
        values[i, n:] = np.nan
    values[0, :, -1] = np.nan
    return xr.DataArray(
        values,
        dims=("stimulus", "repetition", "neuron", "time")[: values.ndim],
        coords={
            "stimulus": [f"s{i}" for i in range(n_stimuli)],
            "neuron": [f"n{i}" for i in range(n_neurons)],
            "object": ("stimulus", ["cat", "cup"] * (n_stimuli // 2) + ["cat"] * (n_stimuli % 2)),
        },
        name="rates",
        attrs={"units": "spikes", "region": "V4"},
    )


@pytest.mark.parametrize("module", [actkit.recordings_neurons, actkit.recordings_trials])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("n_times", [None, 4])
def test_average_and_counts_equal_a_plain_version(n_times):
    given = recording(n_times=n_times)
    shuffled = given.transpose(*given.dims[::-1])
    means, counts = average(shuffled), n_repetitions(shuffled)
    assert means.dims == ("stimulus", "neuron") + (() if n_times is None else ("time",))
    assert counts.dims == ("stimulus", "neuron")
    assert counts.dtype == np.int64
    for i in range(given.sizes["stimulus"]):
        for j in range(given.sizes["neuron"]):
            there = [row for row in given.values[i, :, j] if not np.isnan(row).any()]
            assert counts.values[i, j] == len(there)
            expected = np.mean(there, axis=0) if there else np.nan
            np.testing.assert_allclose(means.values[i, j], expected, rtol=1e-15)
    assert counts.values[0, -1] == 0
    assert has_repetitions(given)
    assert not has_repetitions(means)
    xr.testing.assert_identical(n_repetitions(means).reset_coords(drop=True), counts.reset_coords(drop=True))
    assert means.attrs == given.attrs
    assert means.name == "rates"
    assert list(means["object"]) == list(given["object"])
    xr.testing.assert_identical(average(means), means)


def test_checking_orders_dims_and_leaves_the_given_one_alone():
    given = recording().astype(np.float32).transpose("neuron", "repetition", "stimulus")
    given = given.assign_coords(neuron=[3, 5, 9])
    before = given.copy(deep=True)
    checked = validate_responses(given)
    assert checked.dims == ("stimulus", "repetition", "neuron")
    assert checked.dtype == np.float64
    assert checked["neuron"].values.tolist() == ["3", "5", "9"]
    xr.testing.assert_identical(given, before)
    xr.testing.assert_identical(validate_responses(checked), checked)


def without(name):
    return lambda array: array.drop_vars(name)


def holding(value, *place):
    def change(array):
        array = array.copy(deep=True)
        array.values[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda array: array.values, InputError, "not a ndarray"),
        (lambda array: array.rename(neuron="unit"), InputError, "lacks the dim 'neuron'"),
        (lambda array: array.expand_dims("layer"), InputError, "has the dim 'layer'"),
        (without("stimulus"), InputError, "no coordinate 'stimulus'"),
        (without("neuron"), InputError, "no coordinate 'neuron'"),
        (lambda array: array.isel(stimulus=[]), InputError, "empty"),
        (lambda array: array.astype(np.complex128), InputError, "real numbers"),
        (lambda array: array.assign_coords(stimulus=["a"] * 7), DataError, "'a' occurs 7 times"),
        (lambda array: array.assign_coords(neuron=["a", "b", "b"]), DataError, "the neuron 'b' occurs 2 times"),
        (holding(np.inf, 2, 1, 0), DataError, "'stimulus': 2, 'repetition': 1, 'neuron': 0"),
        (holding(np.nan, slice(None), slice(None), 1), DataError, "the neuron 'n1' has no value"),
        (holding(np.nan, 4), DataError, "the stimulus 's4' has no value"),
        (lambda array: array.assign_coords(n_images=("stimulus", [0] * 7)), DataError, "n_images counts"),
        (lambda array: array.assign_coords(n_images=("neuron", [1] * 3)), DataError, "n_images counts"),
    ],
)
def test_what_is_no_recording_is_named(change, error, words):
    with pytest.raises(error, match=words):
        validate_responses(change(recording()))


def test_presentations_are_whole_in_time():
    given = recording(n_times=3)
    with pytest.raises(DataError, match="'s3' lacks some of its time bins"):
        validate_responses(holding(np.nan, 3, 0, 0, 2)(given))


def test_averages_alone_have_no_number_of_presentations():
    means = average(recording()).drop_vars("n_repetitions")
    with pytest.raises(DataError, match="averages alone"):
        n_repetitions(means)
    known = means.assign_coords(n_repetitions=("stimulus", np.arange(2, 9)))
    counts = n_repetitions(known)
    np.testing.assert_array_equal(counts.values[:, 0], np.arange(2, 9))
    assert counts.values[0, -1] == 0  # that neuron missed the first stimulus
    with pytest.raises(DataError, match="0 or more"):
        n_repetitions(means.assign_coords(n_repetitions=("stimulus", np.arange(-1, 6))))


def test_one_presentation_of_each_is_no_repetition():
    once = recording().isel(repetition=[0])
    assert not has_repetitions(once)
    assert n_repetitions(once).values.max() == 1


def test_trials_become_a_recording():
    rng = np.random.default_rng(1)
    shown = rng.choice(["cup", "cat", "car"], 40)
    counts = rng.poisson(2.0, (40, 4, 2)).astype(float)
    counts[3, 1] = np.nan
    array = from_trials(counts, shown, neurons=list("abcd"), times=[50, 150], attrs={"units": "spikes"})
    order = list(dict.fromkeys(shown.tolist()))
    assert array["stimulus"].values.tolist() == order
    assert array["time"].values.tolist() == [50, 150]
    assert array["time"].attrs["units"] == "ms"
    assert array.sizes["repetition"] == max((shown == one).sum() for one in order)
    assert array.attrs == {"units": "spikes"}
    for one in order:
        own = counts[shown == one]
        np.testing.assert_array_equal(array.sel(stimulus=one).values[: len(own)], own)
        assert np.isnan(array.sel(stimulus=one).values[len(own) :]).all()
    some = from_trials(counts, shown, stimuli=["cat", "cup"], labels={"alive": [True, False]})
    np.testing.assert_array_equal(
        some.sel(stimulus="cup").dropna("repetition", how="all").values, counts[shown == "cup"]
    )
    assert some["alive"].values.tolist() == [True, False]
    assert "car" not in some["stimulus"]


@pytest.mark.parametrize(
    ("counts", "shown", "options", "words"),
    [
        (np.zeros((3, 2)), ["a", "b"], {}, "3 trials and 2 stimuli"),
        (np.zeros(3), ["a"] * 3, {}, r"\(trial, neuron\[, time\]\)"),
        (np.zeros((0, 2)), [], {}, "no trial"),
        (np.zeros((2, 2)), ["a", "b"], {"stimuli": ["a", "c"]}, "'c' has no trial"),
        (np.zeros((2, 2)), ["a", "b"], {"neurons": ["x"]}, "do not fit"),
    ],
)
def test_trials_that_do_not_fit_are_named(counts, shown, options, words):
    with pytest.raises(InputError, match=words):
        from_trials(counts, shown, **options)


def test_windows_equal_a_plain_sum():
    rng = np.random.default_rng(2)
    raster = (rng.random((6, 300)) < 0.1).astype(np.uint8)
    counts = bin_spikes(raster, [(-50, 0), (0, 100), (70, 71)], onset=100)
    for trial in range(6):
        assert counts[trial].tolist() == [raster[trial, 50:100].sum(), raster[trial, 100:200].sum(), raster[trial, 170]]
    half = bin_spikes(raster, [(0, 50)], onset=100, sample=0.5)
    np.testing.assert_array_equal(half[:, 0], raster[:, 100:200].sum(1))
    dense = bin_spikes(np.full((1, 400), 255, np.uint8), [(0, 400)])  # more than a byte holds
    assert dense.tolist() == [[255 * 400]]


@pytest.mark.parametrize(
    ("windows", "options", "words"),
    [
        ([], {}, "no window"),
        ([(0, 400)], {}, "from 0 to 300 ms"),
        ([(-1, 5)], {}, "does not lie"),
        ([(5, 5)], {}, "stop comes after"),
        ([(0, 2.5)], {}, "inside a sample"),
        ([(0, 2)], {"sample": 0}, "more than 0 ms"),
    ],
)
def test_windows_outside_the_raster_are_named(windows, options, words):
    with pytest.raises(InputError, match=words):
        bin_spikes(np.zeros((2, 300)), windows, **options)


def test_groups_are_numbered_by_first_occurrence():
    given = recording()
    assert stimulus_groups(given).tolist() == list(range(7))
    grouped = given.assign_coords(group=("stimulus", [9, 4, 9, 4, 2, 2, 0]))
    assert stimulus_groups(grouped).tolist() == [0, 1, 0, 1, 2, 2, 3]
    with pytest.raises(InputError, match="group runs along stimulus"):
        stimulus_groups(given.assign_coords(group=("neuron", [0, 1, 2])))


def test_pooled_stimuli_equal_a_plain_mean():
    rng = np.random.default_rng(3)
    rows = np.array(["b", "a", "b", "c", "a", "b"])
    features = xr.DataArray(
        rng.normal(size=(4, 6, 2)).astype(np.float32),
        dims=("unit", "stimulus", "time"),
        coords={"stimulus": list("123456"), "unit": list("wxyz"), "object": ("stimulus", rows)},
    )
    features[:, 3] = np.nan  # what is missing in one row stays there
    pooled = pool_stimuli(features, rows, ids=["c", "a", "b"])
    assert pooled.dims == features.dims
    assert set(pooled.coords) == {"stimulus", "unit", "n_images"}
    assert pooled["n_images"].values.tolist() == [1, 2, 3]
    for row in "abc":
        expected = features.values[:, rows == row].astype(np.float64).mean(axis=1)
        np.testing.assert_allclose(pooled.sel(stimulus=row).values, expected, rtol=1e-12)
    assert pool_stimuli(features, rows)["stimulus"].values.tolist() == ["b", "a", "c"]
    with pytest.raises(InputError, match="row 'd'"):
        pool_stimuli(features, rows, ids=["d"])
    with pytest.raises(InputError, match="5 rows"):
        pool_stimuli(features, rows[:5])


# ------------------------------------------------------------------ spike times, and what holds of any recording


@settings(max_examples=50, deadline=None)
@drawn(
    st.integers(0, 2**31), st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]), st.floats(0, 1e5, allow_nan=False),
    st.integers(0, 40),
)  # fmt: skip
def test_spike_times_and_rasters_give_the_same_counts(seed, n_trials, sample, began, onset):
    """Spikes that lie on the edges of bins, at any hour of a recording, are counted on their own side."""
    rng = np.random.default_rng(seed)
    raster = rng.random((n_trials, 60)) < 0.2
    trials = began + np.arange(n_trials)  # one a second
    times = np.concatenate(
        [start + np.flatnonzero(row) * sample / 1000 for start, row in zip(trials, raster, strict=True)]
    )
    first, last = -onset * sample, (60 - onset) * sample
    windows = [
        (first, last),
        (first, first + sample),
        (first + 20 * sample, first + 40 * sample),
        (last - 3 * sample, last),
    ]
    counts = bin_spike_times(times, trials + onset * sample / 1000, windows)
    np.testing.assert_array_equal(counts, bin_spikes(raster, windows, onset=onset, sample=sample))


def test_spike_times_equal_a_plain_count():
    rng = np.random.default_rng(5)
    times, onsets = np.sort(rng.uniform(0, 100, 3000)), rng.uniform(1, 99, 20)
    windows = [(-50, 0), (30.5, 200), (0, 1000)]
    counts = bin_spike_times(times, onsets, windows)
    for i, onset in enumerate(onsets):
        for k, (start, stop) in enumerate(windows):
            assert counts[i, k] == sum(start / 1000 <= spike - onset < stop / 1000 for spike in times)
    assert bin_spike_times([], [1.0], [(0, 1)]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("times", "onsets", "windows", "words"),
    [
        ([1.0, 0.5], [0.0], [(0, 1)], "go back from 1 s to 0.5 s at spike 1"),
        ([np.nan], [0.0], [(0, 1)], "finite"),
        ([1.0], [np.nan], [(0, 1)], "finite"),
        ([1.0], [0.0], [], "no window"),
        ([1.0], [0.0], [(5, 5)], "holds no time"),
        ([1.0], [0.0], [(5, 2)], "holds no time"),
        ([1.0], [0.0], [5], "no window"),
    ],
)
def test_spike_times_that_cannot_be_counted_are_named(times, onsets, windows, words):
    with pytest.raises(InputError, match=words):
        bin_spike_times(times, onsets, windows)


@st.composite
def trials(draw):
    """Trials in any order, with unequal numbers of presentations and neurons that miss some of them."""
    n_trials, n_neurons = draw(st.integers(1, 25)), draw(st.integers(1, 3))
    shown = draw(st.lists(st.sampled_from("abcdef"), min_size=n_trials, max_size=n_trials))
    n_times = draw(st.sampled_from([None, 1, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    counts = rng.poisson(3.0, (n_trials, n_neurons) + (() if n_times is None else (n_times,))).astype(float)
    counts[rng.random((n_trials, n_neurons)) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    there = ~np.isnan(counts if n_times is None else counts[..., 0])
    for j in range(n_neurons):  # a neuron and a stimulus without any value are refused, so each keeps one
        if not there[:, j].any():
            counts[0, j] = 1.0
    for stimulus in set(shown):
        own = [i for i, name in enumerate(shown) if name == stimulus]
        if np.isnan(counts[own]).all():
            counts[own[0]] = 2.0
    return counts, shown


@settings(max_examples=40, deadline=None)
@drawn(trials())
def test_what_holds_of_any_trials(made):
    counts, shown = made
    array = from_trials(counts, shown, times=None if counts.ndim == 2 else np.arange(counts.shape[2]))
    number, means = n_repetitions(array), average(array)
    flat = counts if counts.ndim == 2 else counts[..., 0]
    assert number.sum() == (~np.isnan(flat)).sum()  # no presentation is lost and none is made up
    assert array.sizes["repetition"] == max(shown.count(stimulus) for stimulus in shown)
    for stimulus in set(shown):
        own = counts[[i for i, name in enumerate(shown) if name == stimulus]]
        np.testing.assert_array_equal(array.sel(stimulus=stimulus).values[: len(own)], own)
        for j in range(counts.shape[1]):
            there = own[:, j][~np.isnan(own[:, j].reshape(len(own), -1)[:, 0])]
            assert number.sel(stimulus=stimulus).values[j] == len(there)
            expected = there.mean(axis=0) if len(there) else np.full(counts.shape[2:], np.nan)
            np.testing.assert_allclose(means.sel(stimulus=stimulus).values[j], expected, rtol=1e-12)
    xr.testing.assert_identical(n_repetitions(means).reset_coords(drop=True), number.reset_coords(drop=True))
    # there and back: the presentations as trials again are the recording again
    rows = array.stack(trial=("stimulus", "repetition"), create_index=False).transpose("trial", "neuron", ...)
    kept = rows.values[~np.isnan(rows.values.reshape(rows.sizes["trial"], -1)).all(axis=1)]
    names = rows["stimulus"].values[~np.isnan(rows.values.reshape(rows.sizes["trial"], -1)).all(axis=1)]
    again = from_trials(kept, names, neurons=array["neuron"].values.tolist())
    np.testing.assert_allclose(average(again).values, means.values, rtol=1e-12)


def test_a_neuron_with_one_presentation_of_each_stimulus():
    """It has no noise to speak of: beside others it is kept, and its counts say 1."""
    array = recording()
    array.values[:, 1:, 1] = np.nan
    array.values[:, 0, 1] = np.arange(7.0)
    counts = n_repetitions(array)
    assert counts.values[:, 1].tolist() == [1] * 7
    assert has_repetitions(array)
    assert not has_repetitions(array.isel(neuron=[1]))
    np.testing.assert_array_equal(average(array).values[:, 1], np.arange(7.0))
