"""What is wrong with a recording, handed to every analysis of neurons: a clear error, or a result that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from actkit.analyses.decoding_neurons import decode_neurons
from actkit.analyses.encoding import encode
from actkit.analyses.matched_transfer import transfer
from actkit.analyses.neuron_reliability import neuron_reliability
from actkit.analyses.unit_matching import match_units
from actkit.errors import DataError, InputError, StimulusError

N = 60


def units(n: int = N) -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((n, 12))
    return xr.DataArray(values, dims=("stimulus", "unit"), coords={"stimulus": [f"s{i}" for i in range(n)]})


def trials(n: int = N, repetitions: int = 6) -> xr.DataArray:
    """Neurons n0 to n4 that copy the first units, six presentations of each stimulus."""
    noise = np.random.default_rng(1).standard_normal((n, repetitions, 5))
    return xr.DataArray(
        units(n).values[:, None, :5] + noise,
        dims=("stimulus", "repetition", "neuron"),
        coords={
            "stimulus": units(n)["stimulus"].values,
            "neuron": [f"n{j}" for j in range(5)],
            "kind": ("stimulus", np.array(list("abc"))[np.arange(n) % 3]),
        },
    )


def match(recording: xr.DataArray, source: Any = None, **options: Any) -> xr.Dataset:
    return match_units(units() if source is None else source, recording, **({"n_permutations": 0} | options))


def fit(recording: xr.DataArray, source: Any = None, **options: Any) -> xr.Dataset:
    return encode(units() if source is None else source, recording, **({"penalties": [0.1]} | options))


def over_stimuli(recording: xr.DataArray, **options: Any) -> xr.Dataset:
    return decode_neurons(recording, "kind", hold_out="stimulus", n_draws=1, **options)


def over_trials(recording: xr.DataArray, **options: Any) -> xr.Dataset:
    return decode_neurons(recording, "kind", n_draws=1, **options)


def carry(recording: xr.DataArray) -> xr.Dataset:
    """Transfer with a match of the whole recording."""
    return transfer(match(trials()), units(), recording, "kind", n_permutations=1)


EVERY: dict[str, Callable[[xr.DataArray], xr.Dataset]] = {
    "reliability": neuron_reliability,
    "match": match,
    "encode": fit,
    "decode stimuli": over_stimuli,
    "decode trials": over_trials,
    "transfer": carry,
}


@pytest.fixture(params=list(EVERY))
def analyse(request: pytest.FixtureRequest) -> Callable[[xr.DataArray], xr.Dataset]:
    return EVERY[request.param]


def test_all_take_the_recording_as_it_is(analyse: Callable[[xr.DataArray], xr.Dataset]) -> None:
    assert isinstance(analyse(trials()), xr.Dataset)


# A neuron with one repetition


def once() -> xr.DataArray:
    recording = trials()
    recording.values[:, 1:, 2] = np.nan
    return recording


def test_a_neuron_with_one_repetition_has_a_match_and_no_ceiling() -> None:
    reliable = neuron_reliability(once(), n_draws=0)
    assert np.isnan(reliable["reliability"].values).tolist() == [False, False, True, False, False]
    assert reliable.attrs["n_below_floor"] == 1
    matched = match(once(), reliability=reliable)
    encoded = fit(once(), reliability=reliable)
    for r, corrected in ((matched["r_mean"], matched["r_corrected"]), (encoded["r"], encoded["r_corrected"])):
        assert np.isfinite(r).all()
        assert np.isnan(corrected).sum() == 1
        assert np.isnan(corrected.sel(neuron="n2")).all()
    assert encoded.attrs["n_below_floor"] == 1
    assert np.isfinite(over_stimuli(once())["within"]).all()
    assert np.isfinite(carry(once())["transfer"]).all()
    with pytest.raises(InputError, match=r"'s0' has 1 usable presentations \(neuron 'n2'\), fewer than the 5 folds"):
        over_trials(once())


def test_a_recording_with_one_repetition_throughout_has_no_ceiling() -> None:
    single = trials(repetitions=1)
    with pytest.raises(InputError, match="shows every stimulus once"):
        neuron_reliability(single)
    for analyse in (match, fit, over_stimuli, carry):
        assert isinstance(analyse(single), xr.Dataset)  # these need no ceiling
    with pytest.raises(InputError, match="no presentation can be held out"):
        over_trials(single)


# A neuron without any response


def test_a_neuron_without_responses_is_named(analyse: Callable[[xr.DataArray], xr.Dataset]) -> None:
    recording = trials()
    recording.values[:, :, 3] = np.nan
    with pytest.raises(DataError, match=r"neuron 'n3' has no value at all.*leave it out"):
        analyse(recording)


def test_a_stimulus_without_responses_is_named(analyse: Callable[[xr.DataArray], xr.Dataset]) -> None:
    recording = trials()
    recording.values[7] = np.nan
    with pytest.raises(DataError, match=r"stimulus 's7' has no value at all.*leave it out"):
        analyse(recording)


# Stimuli missing on one side


@pytest.mark.parametrize("name", ["match", "encode", "decode stimuli", "decode trials", "transfer"])
def test_a_neuron_that_missed_a_stimulus_is_named_with_it(name: str) -> None:
    recording = trials()
    recording.values[4, :, 1] = np.nan
    words = {
        "decode trials": r"'s4' has 0 usable presentations \(neuron 'n1'\)",
        "decode stimuli": r"neuron 'n1' has no response to the stimulus 's4'",
    }.get(name, r"neuron 'n1' has no response to stimulus 's4'")
    with pytest.raises((InputError, DataError), match=words):
        EVERY[name](recording)


def test_reliability_counts_the_stimuli_that_a_neuron_has() -> None:
    recording = trials()
    recording.values[4:9, :, 1] = np.nan
    result = neuron_reliability(recording, n_draws=0)
    assert result["n_stimuli"].values.tolist() == [60, 55, 60, 60, 60]
    alone = neuron_reliability(recording.isel(stimulus=np.r_[:4, 9:60])[:, :, 1:2], n_draws=0)
    assert float(result["reliability"][1]) == pytest.approx(float(alone["reliability"][0]), abs=1e-12)


def test_recorded_stimuli_that_the_source_lacks_are_counted_and_named() -> None:
    for analyse in (match, fit):
        with pytest.raises((StimulusError, InputError), match=r"(?s)3 .*recorded stimuli.*'s5[789]'"):
            analyse(trials(), units()[:57])
    with pytest.raises((StimulusError, InputError), match=r"(?s)3 .*recorded stimuli.*'s5[789]'"):
        transfer(match(trials()), units()[:57], trials(), "kind", n_permutations=1)


def test_stimuli_that_were_not_recorded_are_left_out() -> None:
    few = trials().isel(stimulus=slice(0, 40))
    matched, encoded = match(few), fit(few)
    assert matched.attrs["n_stimuli"] == encoded.attrs["n_stimuli"] == 40
    assert matched["stimulus"].values.tolist() == few["stimulus"].values.tolist()
    np.testing.assert_allclose(matched["r"], match(few, units()[:40])["r"], atol=1e-9)
    np.testing.assert_allclose(encoded["r"], fit(few, units()[:40])["r"], atol=1e-9)
    with pytest.raises(InputError, match="lack 20 stimuli of the match"):
        carry(few)


def test_a_stimulus_without_a_label_is_named() -> None:
    kind = {f"s{i}": "ab"[i % 2] for i in range(59)}
    for call in (
        lambda: decode_neurons(trials(), kind, n_draws=1),
        lambda: transfer(match(trials()), units(), trials(), kind, n_permutations=1),
        lambda: match(trials(), labels=kind),
    ):
        with pytest.raises(InputError, match="s59"):
            call()


# Fewer stimuli than folds


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_stimuli_than_folds_are_refused(n: int) -> None:
    few, source = trials(n), units(n)
    with pytest.raises(InputError, match=rf"{n} stimuli cannot fill 5 folds"):
        match(few, source)
    with pytest.raises(InputError, match=rf"{n} stimuli leave 0 in one of 5 folds"):
        fit(few, source)
    if n < 3:
        with pytest.raises(InputError, match=rf"has {n} stimuli"):
            neuron_reliability(few)
    one = few.assign_coords(kind=("stimulus", np.array(list("abab"))[:n]))
    with pytest.raises(InputError, match=r"fewer than the 5 folds|nothing to decode"):
        over_stimuli(one)


def test_fewer_presentations_than_folds_are_refused() -> None:
    with pytest.raises(InputError, match=r"has 4 usable presentations .*fewer than the 5 folds"):
        over_trials(trials(repetitions=4))
    assert isinstance(over_trials(trials(repetitions=4), folds=4), xr.Dataset)


def test_fewer_groups_than_folds_are_refused() -> None:
    grouped = trials().assign_coords(group=("stimulus", np.arange(N) % 4))
    with pytest.raises(InputError, match="4 groups of stimuli cannot fill 5 folds"):
        match(grouped)
    with pytest.raises(InputError, match="in 4 groups leave 0 in one of 5 folds"):
        fit(grouped)
    with pytest.raises(InputError, match="4 groups, fewer than the 5 folds"):
        over_stimuli(grouped, groups="group")
    assert np.isfinite(match(grouped, folds=4)["r"]).all()


def test_a_class_that_one_fold_holds_cannot_be_transferred() -> None:
    matched = match(trials())
    fold = matched["fold_of_stimulus"].values
    with pytest.raises(InputError, match="'rare' is in fold 2 alone"):
        transfer(matched, units(), trials(), np.where(fold == 2, "rare", trials()["kind"]), n_permutations=1)


# Values that are no responses


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_an_infinite_response_is_refused(analyse: Callable[[xr.DataArray], xr.Dataset], bad: float) -> None:
    recording = trials()
    recording.values[3, 1, 0] = bad
    with pytest.raises(DataError, match="infinite value"):
        analyse(recording)


def test_two_neurons_of_one_name_are_refused(analyse: Callable[[xr.DataArray], xr.Dataset]) -> None:
    with pytest.raises(DataError, match="neuron 'n0' occurs 2 times"):
        analyse(trials().assign_coords(neuron=["n0", "n1", "n0", "n3", "n4"]))
