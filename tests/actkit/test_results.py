import json
import os
import stat

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from actkit import results
from actkit.errors import InputError
from actkit.options import Options


class ToyOptions(Options):
    method: str = "a"


def toy_result():
    return xr.Dataset(
        {"score": (("model", "subject"), np.arange(6.0).reshape(3, 2)), "ceiling": 0.5, "draws": ("draw", np.ones(4))},
        coords={"model": ["m1", "m2", "m3"], "subject": ["s1", "s2"]},
    )


def test_describe_keeps_the_question():
    described = results.describe(toy_result(), "toy", ToyOptions(), {"rdms": "abc"}, seed=3, simulated=True, note=None)
    assert described.attrs["analysis"] == "toy"
    assert json.loads(described.attrs["options"]) == {"method": "a"}
    assert json.loads(described.attrs["inputs"]) == {"rdms": "abc"}
    assert described.attrs["simulated"] == 1
    assert "note" not in described.attrs


def test_save_and_load_round_trip(tmp_path):
    described = results.describe(toy_result(), "toy", ToyOptions(), {}, seed=3, models=["m1", "m2"])
    path = results.save(described, tmp_path / "deep" / "result.nc")
    loaded = results.load(path)
    xr.testing.assert_equal(loaded, described)
    assert loaded.attrs["seed"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["result.nc"]


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(InputError, match="no result file at"):
        results.load(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_bytes(b"not netCDF")
    with pytest.raises(InputError, match="cannot be read as a netCDF result"):
        results.load(tmp_path / "bad.nc")


def test_table_has_a_row_for_each_combination_and_leaves_draws_out():
    table = results.to_table(toy_result())
    assert len(table) == 6
    assert list(table.columns) == ["model", "subject", "score", "ceiling"]
    scalar = results.to_table(xr.Dataset({"ceiling": 0.5}))
    assert scalar["ceiling"].tolist() == [0.5]


def test_atomic_write_respects_the_umask_and_leaves_nothing_behind(tmp_path):
    path = results.atomic_write(tmp_path / "a" / "file.txt", "text")
    assert path.read_text() == "text"
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_fingerprint_depends_on_content_only():
    array = np.arange(6.0).reshape(2, 3)
    assert results.fingerprint(array) == results.fingerprint(np.asfortranarray(array))
    assert results.fingerprint(array) != results.fingerprint(array.T)
    assert results.fingerprint(array) != results.fingerprint(array.astype("float32"))
    assert results.fingerprint({"a": 1, "b": 2}) == results.fingerprint({"b": 2, "a": 1})
    assert results.fingerprint(["ab", "c"]) != results.fingerprint(["a", "bc"])
    assert results.fingerprint(toy_result()) == results.fingerprint(toy_result().assign_attrs(note="x"))
    assert results.fingerprint(toy_result()) != results.fingerprint(toy_result() + 1)
    assert results.fingerprint(np.array(["a", "bb"])) == results.fingerprint(np.array(["a", "bb"], dtype=object))
    with pytest.raises(InputError, match="has no fingerprint"):
        results.fingerprint(object())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_fingerprints_are_equal_exactly_when_values_are(first, second):
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (results.fingerprint(first) == results.fingerprint(second)) == same


def test_variables_along_a_second_model_have_a_table_of_their_own():
    result = xr.Dataset(
        {
            "mean": ("model", [0.1, 0.2]),
            "difference": (("model", "other_model"), [[np.nan, -0.1], [0.1, np.nan]]),
            "draw_mean": (("draw", "model"), np.zeros((3, 2))),
        },
        coords={"model": ["a", "b"], "other_model": ["a", "b"]},
    )
    table = results.to_table(result)
    assert table.columns.tolist() == ["model", "mean"]
    assert len(table) == 2
    pairs = results.to_table(result, over="other_model")
    assert pairs.set_index(["model", "other_model"]).loc[("b", "a"), "difference"] == 0.1
    assert len(results.to_table(result, over="draw")) == 6
    with pytest.raises(InputError, match="'layer'"):
        results.to_table(result, over="layer")
