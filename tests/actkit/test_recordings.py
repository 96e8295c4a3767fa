"""The RDM schema: checks, alignment by id, lossless conversion."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform

from actkit.errors import InputError
from actkit.recordings import (
    align_rdms,
    category_rdms,
    concatenate_rdms,
    from_rsatoolbox,
    leading_dim,
    n_pairs,
    pair_positions,
    rdm_dataset,
    select_stimuli,
    squares,
    to_rsatoolbox,
    to_vectors,
    validate_rdms,
)
from actkit.results import load, save


def example(n=6, k=3, dim="subject", seed=0, **settings):
    rng = np.random.default_rng(seed)
    ids = [f"image {c}" for c in "zyxwvutsrq"[:n]]
    return rdm_dataset(
        rng.random((k, n_pairs(n))), [f"s{i}" for i in range(k)], dim, ids, "correlation", "example", **settings
    )


def test_order_is_scipys_squareform():
    rdms = example()
    for vector, square in zip(rdms.dissimilarity.values, squares(rdms), strict=True):
        np.testing.assert_array_equal(square, squareform(vector))
    again = rdm_dataset(squares(rdms), rdms.subject.values, "subject", rdms.stimulus.values, "correlation", "example")
    xr.testing.assert_identical(rdms, again)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 30), data=st.data())
def test_pair_positions_are_squareforms(n, data):
    i = data.draw(st.integers(0, n - 1))
    j = data.draw(st.integers(0, n - 1).filter(lambda value: value != i))
    where = squareform(np.arange(n_pairs(n)))
    assert pair_positions(n, np.array(i), np.array(j)) == where[i, j]


def test_single_rdms_and_dtypes():
    assert to_vectors(np.zeros(3, dtype=np.float32), 3).dtype == np.float32
    assert to_vectors([[0, 1, 2], [1, 0, 3], [2, 3, 0]], 3).tolist() == [[1, 2, 3]]
    # Three RDMs of three stimuli have the shape of one matrix; they are vectors unless they form an RDM.
    assert to_vectors([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 3).shape == (3, 3)


@pytest.mark.parametrize(
    ("square", "message"),
    [
        ([[0, 1, 2], [9, 0, 3], [2, 3, 0]], "not symmetric"),
        ([[1, 2, 2], [2, 1, 3], [2, 3, 1]], "diagonal"),
        ([[0, np.nan, 2], [1, 0, 3], [2, 3, 0]], "not symmetric"),
    ],
)
def test_what_is_no_rdm_is_refused(square, message):
    with pytest.raises(InputError, match=message):
        rdm_dataset([square], ["a"], "rdm", ["x", "y", "z"], "correlation", "bad")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign_coords(stimulus=["a"] * 6), "'a'"),
        (lambda d: d.assign_coords(subject=["s"] * 3), "'s'"),
        (lambda d: d.drop_vars("stimulus"), "stimulus"),
        (lambda d: d.isel(pair=slice(0, 4)), "4 pairs"),
        (lambda d: d.rename(subject="layers"), "layers"),
        (lambda d: d.rename(dissimilarity="distance"), "distance"),
        (lambda d: d.where(d.dissimilarity > 0.1, np.inf), "infinite"),
        (lambda d: d.astype(int), "dtype"),
        (lambda d: d.dissimilarity, "DataArray"),
    ],
)
def test_schema_errors_name_what_is_wrong(change, message):
    with pytest.raises(InputError, match=message):
        validate_rdms(change(example()))


def test_names_must_fit():
    with pytest.raises(InputError, match="3 RDMs and 2 names"):
        rdm_dataset(np.ones((3, 15)), ["a", "b"], "layer", list("uvwxyz"), "cosine", "x")
    with pytest.raises(InputError, match="15 pairs"):
        rdm_dataset(np.ones((3, 14)), ["a", "b", "c"], "layer", list("uvwxyz"), "cosine", "x")
    with pytest.raises(InputError, match="session"):
        example(coords={"session": [1, 2]})
    assert example(n=3, k=3, coords={"age": ("subject", [1, 2, 3])}).age.dims == ("subject",)


def test_alignment_is_by_id():
    rdms = example(coords={"category": list("aabbcc"), "age": [20, 30, 40]})
    order = np.random.default_rng(1).permutation(6)
    shuffled = select_stimuli(rdms, rdms.stimulus.values[order])
    np.testing.assert_array_equal(squares(shuffled), squares(rdms)[:, order][:, :, order])
    assert shuffled.category.values.tolist() == [list("aabbcc")[k] for k in order]
    _, back = align_rdms(rdms, shuffled)
    xr.testing.assert_identical(back, rdms)


def test_a_subset_keeps_its_pairs():
    rdms = example()
    few = select_stimuli(rdms, ["image w", "image z"])
    np.testing.assert_array_equal(few.dissimilarity.values[:, 0], squares(rdms)[:, 3, 0])
    validate_rdms(few)


def test_missing_ids_are_named():
    rdms = example()
    with pytest.raises(InputError, match="lacks the stimulus 'image y'"):
        align_rdms(rdms, select_stimuli(rdms, np.delete(rdms.stimulus.values, 1)))
    with pytest.raises(InputError, match="'image a'"):
        select_stimuli(rdms, ["image a"])
    with pytest.raises(InputError, match="twice"):
        select_stimuli(rdms, ["image z", "image z"])


def test_concatenation_aligns():
    rdms = example()
    more = select_stimuli(example(seed=1).assign_coords(subject=["t0", "t1", "t2"]), rdms.stimulus.values[::-1])
    both = concatenate_rdms([rdms, more], "rdm", "both")
    assert leading_dim(both) == "rdm"
    np.testing.assert_array_equal(both.dissimilarity.values[3:], example(seed=1).dissimilarity.values)


def test_category_models():
    rdms = category_rdms(
        {"animate": [True, True, False, False], "four": ["face", "body", "fruit", "fruit"]}, list("abcd")
    )
    np.testing.assert_array_equal(rdms.dissimilarity.values, [[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0]])
    assert leading_dim(rdms) == "model"
    assert rdms.attrs["measure"] == "category"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1], "one class"),
        (["a", "b", "c"], "another class"),
        (["a", None, "a"], "'y'"),
        ([0.0, np.nan, 1.0], "'y'"),
        (["a", "b"], "shape"),
    ],
)
def test_degenerate_labels_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        category_rdms({"label": labels}, ["x", "y", "z"])


def test_results_survive_a_file(tmp_path):
    rdms = example(coords={"category": list("aabbcc")}, citation="Someone (2000)")
    xr.testing.assert_identical(load(save(rdms, tmp_path / "rdms.nc")), rdms)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dim", ["layer", "subject", "model", "rdm"])
def test_rsatoolbox_and_back(dim):
    rdms = example(dim=dim, coords={"category": list("aabbcc"), "age": [20, 30, 40]}, citation="Someone (2000)")
    rdms["dissimilarity"].values[1, 4] = np.nan
    theirs = to_rsatoolbox(rdms)
    assert theirs.dissimilarity_measure == "correlation"
    assert list(theirs.pattern_descriptors["stimulus"]) == rdms.stimulus.values.tolist()
    np.testing.assert_array_equal(theirs.get_matrices(), squares(rdms))
    xr.testing.assert_identical(from_rsatoolbox(theirs), rdms)


@pytest.mark.filterwarnings("ignore")
def test_from_rsatoolbox_and_back(tmp_path):
    from rsatoolbox.rdm import RDMs

    values = np.random.default_rng(0).random((3, 6))
    values[0, 1] = np.nan
    theirs = RDMs(
        values,
        descriptors={"noise": None, "session": 3, "precision": np.eye(2)},
        rdm_descriptors={"subject": [1, 1, 2], "roi": ["a", "b", "a"]},
        pattern_descriptors={"conds": ["w", "x", "y", "z"], "stimulus": [1, 2, 3, 4]},
    ).subset_pattern("conds", ["x", "y", "z"])
    ours = from_rsatoolbox(theirs, stimulus="conds")
    assert ours.stimulus.values.tolist() == ["x", "y", "z"]
    back = to_rsatoolbox(load(save(ours, tmp_path / "rdms.nc")))
    np.testing.assert_array_equal(back.dissimilarities, theirs.dissimilarities)
    assert back.dissimilarity_measure is None
    for theirs_too, again in (
        (theirs.rdm_descriptors, back.rdm_descriptors),
        (theirs.pattern_descriptors, back.pattern_descriptors),
    ):
        assert set(theirs_too) == set(again)
        for key, column in theirs_too.items():
            assert list(column) == list(again[key])
    assert back.descriptors["noise"] is None
    assert back.descriptors["session"] == 3
    np.testing.assert_array_equal(back.descriptors["precision"], np.eye(2))


@pytest.mark.filterwarnings("ignore")
def test_a_bootstrap_sample_has_no_unique_ids():
    from rsatoolbox.rdm import RDMs

    theirs = RDMs(np.ones((1, 6)), pattern_descriptors={"conds": list("aabc")})
    with pytest.raises(InputError, match="more than once"):
        from_rsatoolbox(theirs)
    with pytest.raises(InputError, match="nearest: 'conds'"):
        from_rsatoolbox(theirs, stimulus="cond")
