"""NWB files: written with pynwb here, read by actkit, counted anew in plain loops; what they lack is named."""

import datetime
import warnings

import numpy as np
import pytest

from actkit.errors import DataError, InputError, MissingExtraError
from actkit.recordings_files import read_recording
from actkit.recordings_neurons import has_repetitions, n_repetitions
from actkit.recordings_nwb import nwb_contents, read_nwb

pytest.importorskip("pynwb", reason="pynwb is not installed: pip install 'actkit[nwb]'")

RNG = np.random.default_rng(0)
IMAGES = ["cup", "cat", "cup", "car", "cat", "cup", "cat"]
STARTS = 2.0 + 1.5 * np.arange(7)
SPIKES = [np.sort(RNG.uniform(0, 14, n)) for n in (400, 150, 40)]


def write(path, *, trials=True, units=True, spikes=SPIKES, observed=None, images=IMAGES, invalid=None, change=None):
    """A session of three units on two electrode groups and seven trials."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(hdmf|pynwb)(\.|$)")
        from pynwb import NWBHDF5IO, NWBFile
        from pynwb.epoch import TimeIntervals
        from pynwb.file import Subject

        began = datetime.datetime(2021, 3, 25, tzinfo=datetime.UTC)
        nwb = NWBFile(session_description="fixation", identifier="x1", session_start_time=began, session_id="210325")
        nwb.subject = Subject(subject_id="PE", species="Macaca mulatta", age="P9Y", sex="M")
        device = nwb.create_device(name="array")
        for name, location in (("a", "V4"), ("b", "IT")):
            group = nwb.create_electrode_group(name=name, description=name, location=location, device=device)
            nwb.add_electrode(location=location, group=group)
        if units:
            nwb.add_unit_column(name="quality", description="verdict")
            nwb.add_unit_column(name="group", description="verdict of a sorter")
            for i, times in enumerate(spikes):
                given = {} if observed is None else {"obs_intervals": observed[i]}
                nwb.add_unit(
                    id=10 + i, spike_times=times, quality=["good", "mua", "good"][i], group="mua",
                    electrodes=[min(i, 1)], **given,
                )  # fmt: skip
        if trials:
            nwb.add_trial_column(name="image", description="what was shown")
            nwb.add_trial_column(name="kind", description="category")
            nwb.add_trial_column(name="correct", description="choice")
            nwb.add_trial_column(name="onset", description="of the picture")
            for i, (start, image) in enumerate(zip(STARTS, images, strict=True)):
                onset = np.nan if i == 3 else start + 0.25
                kind = "thing" if image == "cup" else "other"
                nwb.add_trial(
                    start_time=start, stop_time=start + 1, image=image, kind=kind, correct=i != 5, onset=onset
                )
            table = TimeIntervals(name="flashes", description="of light")
            table.add_column(name="level", description="brightness")
            for start, level in ((3.0, 1), (5.0, 2), (7.0, 1)):
                table.add_row(start_time=start, stop_time=start + 1, level=level)
            nwb.add_time_intervals(table)
        for start, stop in invalid or []:
            nwb.add_invalid_time_interval(start_time=start, stop_time=stop)
        if change is not None:
            change(nwb)
        with NWBHDF5IO(str(path), "w") as file:
            file.write(nwb)
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return write(tmp_path_factory.mktemp("nwb") / "session.nwb")


def counted(image, unit, start, stop, times=STARTS, shown=IMAGES, spikes=SPIKES):
    """Spikes of a unit in each trial of an image, in a loop."""
    onsets = [onset for onset, name in zip(times, shown, strict=True) if name == image]
    return [sum(onset + start <= spike < onset + stop for spike in spikes[unit]) for onset in onsets]


def test_spikes_are_counted_in_each_trial(session):
    array = read_recording(session, stimulus="image", window=(50, 400), labels=["kind"])
    assert array.dims == ("stimulus", "repetition", "neuron")
    assert array["stimulus"].values.tolist() == ["cup", "cat", "car"]
    assert array["neuron"].values.tolist() == ["10", "11", "12"]
    assert n_repetitions(array).values[:, 0].tolist() == [3, 3, 1]
    assert array["kind"].values.tolist() == ["thing", "other", "other"]
    for image in ("cup", "cat", "car"):
        for unit in range(3):
            expected = counted(image, unit, 0.05, 0.4)
            got = array.sel(stimulus=image).values[:, unit]
            np.testing.assert_array_equal(got[: len(expected)], expected)
            assert np.isnan(got[len(expected) :]).all()
    assert array.values[~np.isnan(array.values)].sum() > 100
    assert array.attrs["window_start_ms"] == 50
    assert array.attrs["subject"] == "PE"
    assert array.attrs["session"] == "210325"
    assert array.attrs["source"] == "session.nwb"
    assert "not stated" in array.attrs["observed"]


def test_columns_of_units_go_with_neurons(session):
    array = read_nwb(session, stimulus="image", window=(0, 100))
    assert array["region"].values.tolist() == ["V4", "IT", "IT"]
    assert array["electrode_group"].values.tolist() == ["a", "b", "b"]
    assert array["quality"].values.tolist() == ["good", "mua", "good"]
    # a sorter's "group" must never keep stimuli together
    assert array["neuron_group"].values.tolist() == ["mua"] * 3
    assert "group" not in array.coords


def test_time_bins_have_centres_in_ms_and_add_up(session):
    array = read_nwb(session, stimulus="image", window=(-100, 300), bin_ms=50)
    assert array.dims == ("stimulus", "repetition", "neuron", "time")
    assert array["time"].values.tolist() == list(range(-75, 300, 50))
    assert array["time"].attrs["units"] == "ms"
    whole = read_nwb(session, stimulus="image", window=(-100, 300))
    np.testing.assert_array_equal(array.sum("time", skipna=False).values, whole.values)
    np.testing.assert_array_equal(array.sel(stimulus="car").values[0, 1, 3], counted("car", 1, 0.05, 0.1)[0])


def test_units_and_trials_are_chosen_by_columns(session):
    array = read_nwb(
        session, stimulus="image", window=(0, 100), where={"quality": ["good"]}, trials={"correct": [True]}
    )
    assert array["neuron"].values.tolist() == ["10", "12"]
    shown = [image for i, image in enumerate(IMAGES) if i != 5]
    times = np.delete(STARTS, 5)
    np.testing.assert_array_equal(array.sel(stimulus="cup").values[:2, 1], counted("cup", 2, 0, 0.1, times, shown))
    assert read_nwb(session, stimulus="image", window=(0, 100), where={"id": [11]})["neuron"].values.tolist() == ["11"]
    with pytest.raises(DataError, match="the neuron 'good' occurs 2 times"):
        read_nwb(session, stimulus="image", window=(0, 100), neuron="quality")


def test_another_table_and_another_event(session):
    flashes = read_nwb(session, table="flashes", stimulus="level", window=(0, 200))
    assert flashes["stimulus"].values.tolist() == ["1", "2"]
    expected = counted("1", 0, 0, 0.2, [3.0, 5.0, 7.0], ["1", "2", "1"])
    np.testing.assert_array_equal(flashes.sel(stimulus="1").values[:, 0], expected)
    later = read_nwb(session, stimulus="image", window=(0, 200), align="onset")
    assert "car" not in later["stimulus"]  # its only trial has no onset
    assert later.attrs["n_trials_left_out"] == 1
    np.testing.assert_array_equal(later.sel(stimulus="cat").values[:, 0], counted("cat", 0, 0.25, 0.45))


def test_trials_outside_the_recording_are_missing_and_not_silent(tmp_path):
    whole = [[0.0, 20.0]]
    halves = [[4.0, 6.0], [0.0, 4.0]]  # in any order, and one where they meet
    path = write(tmp_path / "x.nwb", observed=[whole, halves, [[0.0, 2.2], [9.0, 20.0]]])
    array = read_nwb(path, stimulus="image", window=(0, 500), drop_unobserved=True)
    there = ~np.isnan(array.values)
    assert there[..., 0].sum() == 7
    # trials at 2, 3.5 (over the joint at 4), 5; then nothing: those at 6.5, 8, 9.5, 11 come after 6
    assert there[0, :, 1].tolist() == [True, True, False]
    assert there[1, :, 1].tolist() == [True, False, False]
    assert there[2, :, 1].tolist() == [False, False, False]
    # the window of the trial at 2 s ends at 2.5, after 2.2
    assert there[..., 2].sum() == 2
    np.testing.assert_array_equal(array.values[0, :2, 1], counted("cup", 1, 0, 0.5)[:2])
    assert array.attrs["observed"] == "by obs_intervals"
    assert has_repetitions(array)


def test_units_and_stimuli_that_were_never_observed(tmp_path):
    whole = [[0.0, 20.0]]
    path = write(tmp_path / "unit.nwb", observed=[whole, [[0.0, 1.0]], whole])
    with pytest.raises(DataError, match=r"the unit '11' was not observed in any trial.*drop_unobserved=True"):
        read_nwb(path, stimulus="image", window=(0, 500))
    left = read_nwb(path, stimulus="image", window=(0, 500), drop_unobserved=True)
    assert left["neuron"].values.tolist() == ["10", "12"]
    assert left["quality"].values.tolist() == ["good", "good"]
    assert left.attrs["left_out"] == "unit 11"
    early = [[0.0, 6.4]]
    path = write(tmp_path / "stimulus.nwb", observed=[early] * 3)
    with pytest.raises(DataError, match="the stimulus 'car' was not observed"):
        read_nwb(path, stimulus="image", window=(0, 500))
    left = read_nwb(path, stimulus="image", window=(0, 500), labels=["kind"], drop_unobserved=True)
    assert left["stimulus"].values.tolist() == ["cup", "cat"]
    assert left["kind"].values.tolist() == ["thing", "other"]
    path = write(tmp_path / "none.nwb", observed=[[[0.0, 1.0]]] * 3)
    with pytest.raises(DataError, match="no unit was observed"):
        read_nwb(path, stimulus="image", window=(0, 500), drop_unobserved=True)


def test_invalid_times_are_missing(tmp_path):
    path = write(tmp_path / "x.nwb", invalid=[(2.3, 2.4), (9.0, 9.5)])
    array = read_nwb(path, stimulus="image", window=(0, 350))
    assert np.isnan(array.sel(stimulus="cup").values).all(axis=1).tolist() == [True, False, False]
    assert not np.isnan(read_nwb(path, stimulus="image", window=(0, 300)).sel(stimulus="cup").values).any()


def test_trials_without_a_stimulus_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "x.nwb", images=["cup", "", "cup", "cat", "", "cat", "cat"])
    array = read_nwb(path, stimulus="image", window=(0, 100))
    assert array["stimulus"].values.tolist() == ["cup", "cat"]
    assert array.attrs["n_trials_left_out"] == 2


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, InputError, r"say stimulus=.*The file holds: 3 units .*'trials' \(columns start_time, stop_time, image"),
        ({"stimulus": "image"}, InputError, "say window="),
        ({"stimulus": "picture", "window": (0, 1)}, InputError, "no column 'picture'.*'flashes'"),
        ({"stimulus": "image", "window": (100, 100)}, InputError, "holds no time"),
        ({"stimulus": "image", "window": (100, 50)}, InputError, "its stop comes after its start"),
        ({"stimulus": "image", "window": 100}, InputError, "window is 100"),
        ({"stimulus": "image", "window": (0, 100), "bin_ms": 30}, InputError, "do not fill the window"),
        ({"stimulus": "image", "window": (0, 100), "bin_ms": -10}, InputError, "do not fill the window"),
        ({"stimulus": "image", "window": (0, 1), "table": "trial"}, InputError, "no table 'trial'; nearest: 'trials'"),
        ({"stimulus": "image", "window": (0, 1), "align": "kind"}, InputError, "to align to is in seconds"),
        ({"stimulus": "image", "window": (0, 1), "labels": ["correct"]}, DataError, "several values .* 'cup'"),
        ({"stimulus": "image", "window": (0, 1), "where": {"qualty": ["x"]}}, InputError, "nearest: 'quality'"),
        ({"stimulus": "image", "window": (0, 1), "where": {"quality": ["bad"]}}, InputError, "no 'quality' is bad"),
        ({"stimulus": "image", "window": (0, 1), "neuron": "name"}, InputError, "no column 'name'"),
        ({"stimuls": "image"}, InputError, "nwb, which has no option 'stimuls'; nearest: 'stimulus'"),
    ],
)
def test_what_a_session_does_not_have_is_named(session, options, error, words):
    with pytest.raises(error, match=words):
        read_recording(session, **options)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"trials": False}, "has no trials, so nobody can say what was shown.*3 units.*no table of trials"),
        ({"units": False}, "has no units.*no units; the table 'trials'"),
        ({"images": [""] * 7}, "of 7 trials in 'trials' none is left with a value of 'image'"),
        ({"spikes": [[3.0, 2.0, 5.0], *SPIKES[1:]]}, "unit '10' go back from 3 s to 2 s.*sort=True"),
        ({"spikes": [[3.0, np.nan], *SPIKES[1:]]}, "unit '10' has a spike time that is no number"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, parts, words):
    path = write(tmp_path / "x.nwb", **parts)
    with pytest.raises(DataError, match=words):
        read_nwb(path, stimulus="image", window=(0, 100))


def test_spikes_out_of_order_are_sorted_when_asked(tmp_path):
    mixed = [RNG.permutation(times) for times in SPIKES]
    path = write(tmp_path / "x.nwb", spikes=mixed)
    array = read_nwb(path, stimulus="image", window=(0, 400), sort=True)
    np.testing.assert_array_equal(array.sel(stimulus="cat").values[:, 0], counted("cat", 0, 0, 0.4))


def test_a_unit_without_spikes_is_silent(tmp_path):
    path = write(tmp_path / "x.nwb", spikes=[SPIKES[0], [], SPIKES[2]])
    array = read_nwb(path, stimulus="image", window=(0, 400))
    assert array.sel(neuron="11").sum() == 0
    np.testing.assert_array_equal(array.sel(stimulus="cat").values[:, 2], counted("cat", 2, 0, 0.4))


def test_what_is_no_nwb_file_is_named(tmp_path):
    (tmp_path / "x.nwb").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(DataError, match="cannot be read as NWB"):
        read_nwb(tmp_path / "x.nwb")
    (tmp_path / "folder.nwb").mkdir()
    with pytest.raises(DataError, match="only a folder"):
        read_nwb(tmp_path / "folder.nwb")
    with pytest.raises(DataError, match="there is no file"):
        read_recording(tmp_path / "none.nwb")


def test_without_pynwb_the_extra_is_named(session, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pynwb" else find(name))
    with pytest.raises(MissingExtraError, match=r"actkit\[nwb\]"):
        read_nwb(session)


def test_contents_in_words(session):
    assert nwb_contents(session).startswith("The file holds: 3 units (columns quality, group")
