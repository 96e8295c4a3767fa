"""Time courses under random onsets: planted delays come back, with the numbers of stimuli behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from actkit.analyses.specialization_dynamics import specialization_dynamics
from actkit.analyses.specialization_heads import HeadSettings, fit_heads
from actkit.errors import InputError

FAST = {"epochs": 30, "learning_rate": 1e-2, "batch": 64}
PARTS = {"a": np.arange(8), "b": np.arange(8, 16)}
STEPS, DELAY, CLASSES = 5, 1, 4
CODES = np.random.default_rng(50).normal(size=(2, 2, CLASSES, 8))  # part, sub-task, class, unit


def planted(begins, seed=0, gain=1.0):
    """A module carries its own digit from its onset on, and the other's from a delay after that digit's onset on."""
    rng = np.random.default_rng(seed)
    n = len(begins)
    digits = rng.integers(CLASSES, size=(n, 2))
    states = 0.05 * rng.normal(size=(n, STEPS, 16))
    for part in range(2):
        for task in range(2):
            late = 0 if task == part else DELAY
            there = np.arange(STEPS)[None] >= begins[:, [task]] + late
            strength = 1.0 if task == part else gain
            states[:, :, PARTS["ab"[part]]] += (
                strength * there[:, :, None] * CODES[part, task][digits[:, task]][:, None]
            )
    return states, {"first": digits[:, 0], "second": digits[:, 1]}, digits


@pytest.fixture(scope="module")
def courses():
    begins = np.random.default_rng(1).integers(1, 4, size=(2400, 2))
    still, labels, _ = planted(np.zeros((500, 2), dtype=int))
    moving, answers, _ = planted(begins, seed=2)
    return specialization_dynamics(still, labels, moving, answers, begins, PARTS, **FAST), begins


def test_time_courses_are_as_planted(courses) -> None:
    one = courses[0].isel(network=0)
    for part in ("a", "b"):
        for lag in range(-2, 3):
            at = one.sel(part=part, lag=lag)
            for since in one["since"].values:
                cell = at.sel(since=since)
                if not cell["n"]:
                    assert np.isnan(cell["own"])
                    assert np.isnan(cell["index"])
                    continue
                # The other onset lies `lag` steps before the own one.
                own, other = since >= 0, since + lag >= DELAY
                assert (cell["own"] > 0.8) == own, (part, lag, since)
                assert (cell["other"] > 0.8) == other, (part, lag, since)
                if own == other:
                    # Guesses scatter: before both onsets the index is 0 within four standard errors.
                    assert abs(float(cell["index"])) < (0.15 if own else 0.32)
                else:
                    assert float(cell["index"]) * (1 if own else -1) > 0.35
                if own and not other:
                    assert float(cell["index_known"]) > 0.7
                if not own and not other:
                    assert float(cell["own_known"]) < 0.2


def test_late_module_first_represents_the_other_digit(courses) -> None:
    late = courses[0].isel(network=0).sel(lag=2)
    assert (late["index"].sel(since=-1) < -0.4).all()
    assert (late["index_known"].sel(since=-1) < -0.7).all()
    assert (abs(late["index"].sel(since=1)) < 0.2).all()
    early = courses[0].isel(network=0).sel(lag=-2)
    assert (early["index"].sel(since=0) > 0.4).all()


def test_nothing_is_known_before_any_onset(courses) -> None:
    result = courses[0].isel(network=0)
    np.testing.assert_allclose(result["accuracy"].isel(time=0), 0.25, atol=0.17)
    for lag in range(-2, 3):
        at = result.sel(lag=lag, since=min(-1, -1 - lag))
        assert (at["n"] > 0).all()
        assert not (abs(at["index"]) > 0.3).any()
        # Corrected for chance there is no index but where guesses were lucky, one in a hundred.
    known = result["index_known"].sel(lag=0).sel(since=[-3, -2, -1])
    assert np.isnan(known).mean() > 0.6


def test_counts_and_pairs_are_plain_sums(courses) -> None:
    result, begins = courses
    one = result.isel(network=0)
    for i in (1, 2, 3):
        for j in (1, 2, 3):
            here = int(((begins[:, 0] == i) & (begins[:, 1] == j)).sum())
            assert int(one["n_pair"].sel(part="a", onset_own=i, onset_other=j)) == here
            assert int(one["n_pair"].sel(part="b", onset_own=j, onset_other=i)) == here
    assert int(one["n_lag"].sel(part="a").sum()) == len(begins)
    assert int(one["n"].sel(part="a", lag=0, since=0)) == int((begins[:, 0] == begins[:, 1]).sum())
    # Step since = -3 needs an onset of 3.
    assert int(one["n"].sel(part="b", lag=1, since=-3)) == int(((begins[:, 1] == 3) & (begins[:, 0] == 2)).sum())
    # An aligned accuracy is the mean over its onset pairs, weighted by their stimuli.
    total = weight = 0.0
    for own in (2, 3):
        at = {"part": "b", "onset_own": own, "onset_other": own - 1, "time": own - 1}
        n = float(one["n_pair"].sel(part="b", onset_own=own, onset_other=own - 1))
        total += n * float(one["accuracy"].sel(at | {"task": "other"}))
        weight += n
    assert float(one["other"].sel(part="b", lag=1, since=-1)) == pytest.approx(total / weight)
    assert (one["joint_own"] > 0.8).all()
    assert (abs(one["joint"]) < 0.1).all()


def test_read_outs_are_those_of_the_still_states_unchanged() -> None:
    begins = np.random.default_rng(3).integers(1, 4, size=(200, 2))
    still, labels, digits = planted(np.zeros((128, 2), dtype=int))
    moving, answers, shown = planted(begins, seed=4)
    result = specialization_dynamics(
        still, labels, moving, answers, begins, PARTS, hidden=5, epochs=2, batch=32, seed=3
    )
    views = torch.zeros(3, 16)
    views[0, :8] = views[1, 8:] = views[2] = 1
    heads = fit_heads(
        torch.from_numpy(still[None].astype(np.float32)), torch.from_numpy(digits[None]), [CLASSES] * 2, views,
        HeadSettings(hidden=5, epochs=2, batch=32, seed=3),
    )  # fmt: skip
    here = (begins[:, 0] == 2) & (begins[:, 1] == 1)
    expected = heads.accuracy(
        torch.from_numpy(moving[None, here].astype(np.float32)), torch.from_numpy(shown[None, here])
    )[0]
    # The first module's own image is the late one, the second module's the early one.
    a = result["accuracy"].isel(network=0).sel(part="a", onset_own=2, onset_other=1)
    b = result["accuracy"].isel(network=0).sel(part="b", onset_own=1, onset_other=2)
    np.testing.assert_allclose(a, expected[0], atol=1e-12)
    np.testing.assert_allclose(b, expected[1, ::-1], atol=1e-12)
    both = result["accuracy_all"].isel(network=0).sel(part="b", onset_own=1, onset_other=2)
    np.testing.assert_allclose(both, expected[2, ::-1], atol=1e-12)


def test_networks_keep_their_names_and_numbers() -> None:
    begins = np.random.default_rng(3).integers(1, 4, size=(2, 90, 2))
    still, labels, _ = planted(np.zeros((64, 2), dtype=int))
    pairs = [planted(one, seed=5, gain=gain) for one, gain in zip(begins, (1.0, 0.0), strict=True)]
    dims = ("network", "stimulus", "time", "unit")
    where = {"network": ["p", "q"], "units": ("network", [8, 8])}
    result = specialization_dynamics(
        xr.DataArray(np.stack([still, planted(np.zeros((64, 2), dtype=int), gain=0.0)[0]]), dims=dims, coords=where),
        labels,
        xr.DataArray(np.stack([one[0] for one in pairs]), dims=dims, coords=where),
        {name: np.stack([one[1][name] for one in pairs]) for name in labels},
        begins,
        PARTS,
        epochs=60,
        learning_rate=1e-2,
        batch=64,
    )
    assert result["units"].values.tolist() == [8, 8]
    last = result["index"].sel(since=1, lag=0)
    assert (last.sel(network="q") > 0.3).all()
    assert (last.sel(network="p") < last.sel(network="q")).all()


def test_bad_input_is_refused() -> None:
    begins = np.ones((64, 2), dtype=int)
    still, labels, _ = planted(begins)
    call = (still, labels, still, labels)
    with pytest.raises(InputError, match="3 parts and 2 sub-tasks"):
        specialization_dynamics(*call, begins, PARTS | {"c": [0]})
    with pytest.raises(InputError, match=r"onsets have shape \(63, 2\)"):
        specialization_dynamics(*call, begins[1:], PARTS)
    with pytest.raises(InputError, match="onsets go from 1 to 5, and steps from 0 to 4"):
        specialization_dynamics(*call, begins + 4 * (np.arange(64) == 3)[:, None], PARTS)
    with pytest.raises(InputError, match="moving_labels are of"):
        specialization_dynamics(still, labels, still, {"a": labels["first"], "b": labels["second"]}, begins, PARTS)
    with pytest.raises(InputError, match="the label '9' of sub-task 'first'"):
        specialization_dynamics(still, labels, still, labels | {"first": np.full(64, 9)}, begins, PARTS)
    asked = labels | {"first": labels["first"].astype(float)}
    lacking = labels | {"first": np.where(np.arange(64) < 60, labels["first"], np.nan)}
    with pytest.raises(InputError, match="lack an answer"):
        specialization_dynamics(still, asked, still, lacking, begins, PARTS)
    with pytest.raises(InputError, match="all 64 stimuli are left out"):
        specialization_dynamics(*call, begins, PARTS, test=np.ones(64, dtype=bool))
