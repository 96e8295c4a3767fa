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
    has_time,
    leading_dim,
    load_meadows,
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
    xr.testing.assert_identical(load(save(movie(), tmp_path / "movie.nc")), movie())


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


# --------------------------------------------------------------------------------------------------------------------
# time bins


def movie(n=5, k=3, times=4, dim="subject", seed=0, **settings):
    rng = np.random.default_rng(seed)
    return rdm_dataset(
        rng.random((k, times, n_pairs(n))),
        [f"s{i}" for i in range(k)],
        dim,
        [f"image {c}" for c in "zyxwvutsrq"[:n]],
        "correlation",
        "movie",
        time=np.linspace(-100, 200, times),
        time_units="ms",
        **settings,
    )


def test_time_stands_between_names_and_pairs():
    rdms = movie(coords={"age": ("subject", [20, 30, 40]), "good": (("subject", "time"), np.eye(3, 4))})
    assert rdms.dissimilarity.dims == ("subject", "time", "pair")
    assert rdms.time.attrs["units"] == "ms"
    assert has_time(rdms)
    assert not has_time(rdms.isel(time=0))
    whole = squares(rdms)
    assert whole.shape == (3, 4, 5, 5)
    np.testing.assert_array_equal(whole[1, 2], squareform(rdms.dissimilarity.values[1, 2]))
    again = rdm_dataset(
        whole, rdms.subject, "subject", rdms.stimulus, "correlation", "movie", time=rdms.time, coords={"age": rdms.age}
    )
    xr.testing.assert_identical(again, rdms.drop_vars("good"))
    for bin_, time in enumerate(rdms.time.values):
        one = validate_rdms(rdms.sel(time=time))
        np.testing.assert_array_equal(squares(one), whole[:, bin_])


def test_alignment_and_selection_keep_time():
    rdms = movie()
    order = np.random.default_rng(1).permutation(5)
    shuffled = select_stimuli(rdms, rdms.stimulus.values[order])
    np.testing.assert_array_equal(squares(shuffled), squares(rdms)[..., order, :][..., order])
    xr.testing.assert_identical(align_rdms(rdms, shuffled)[1], rdms)
    static = example(n=5)
    xr.testing.assert_identical(align_rdms(rdms, static)[1], static)
    both = concatenate_rdms([rdms, shuffled.assign_coords(subject=["t0", "t1", "t2"])], "subject", "both")
    np.testing.assert_array_equal(both.dissimilarity.values[3:], rdms.dissimilarity.values)
    assert both.time.attrs["units"] == "ms"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign_coords(time=[3.0, 2.0, 1.0, 0.0]), "increasing"),
        (lambda d: d.assign_coords(time=[0.0, 1.0, 1.0, 2.0]), "increasing"),
        (lambda d: d.assign_coords(time=["a", "b", "c", "d"]), "one number"),
        (lambda d: d.drop_vars("time"), "'time' is missing"),
        (lambda d: d.transpose("time", "subject", ...), "dims"),
        (lambda d: d.where(d.time < 100, np.inf), "infinite dissimilarities in 's0', 's1', 's2'"),
    ],
)
def test_time_that_does_not_fit_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        validate_rdms(change(movie()))


def test_a_movie_is_refused_where_one_rdm_is_needed():
    with pytest.raises(InputError, match=r"4 time bins.*\.sel\(time"):
        leading_dim(movie())
    assert leading_dim(movie(), time=True) == "subject"
    with pytest.raises(InputError, match="time bins cannot be joined"):
        concatenate_rdms([movie(), example(n=5).assign_coords(subject=list("abc"))], "rdm", "x")
    with pytest.raises(InputError, match=r"\(3, 4, 9\).*4 time bins|fits neither"):
        rdm_dataset(np.ones((3, 4, 9)), list("abc"), "rdm", list("vwxyz"), "cosine", "x", time=np.arange(4))
    with pytest.raises(InputError, match="3 time bins"):
        rdm_dataset(np.ones((3, 4, 10)), list("abc"), "rdm", list("vwxyz"), "cosine", "x", time=np.arange(3))


# --------------------------------------------------------------------------------------------------------------------
# lossless interchange

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)


@st.composite
def datasets(draw):
    """RDM datasets with every kind of coordinate, variable and attribute, with NaNs, with and without time."""
    n, k = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    times = draw(st.none() | st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (k, n_pairs(n)) if times is None else (k, times, n_pairs(n))
    values = rng.normal(size=shape).astype(draw(st.sampled_from([np.float32, np.float64])))
    values[rng.random(shape) < 0.2] = np.nan
    dim = draw(st.sampled_from(["layer", "subject", "model", "rdm"]))
    names = draw(st.lists(WORDS, min_size=k, max_size=k, unique=True))
    ids = draw(st.lists(WORDS, min_size=n, max_size=n, unique=True))
    rdms = rdm_dataset(
        values,
        names,
        dim,
        ids,
        draw(WORDS),
        draw(WORDS),
        time=None if times is None else np.cumsum(rng.random(times)),
        time_units="s",
        citation=draw(WORDS),
        number=draw(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.integers(), max_size=2)),
    )
    rdms = rdms.assign_coords(
        session=(dim, rng.integers(0, 3, k), {"units": "1"}),
        index=(dim, np.arange(k)),
        category=("stimulus", rng.choice(["a", "b"], n)),
        flag=("stimulus", rng.random(n) < 0.5),
        place=7.5,
    )
    rdms["n_units"] = (dim, rng.integers(1, 9, k), {"long_name": "units"})
    if times is not None:
        rdms["constant"] = (("time", dim), rng.integers(0, 3, (times, k)), {"units": "1"})
        rdms = rdms.assign_coords(phase=("time", rng.choice(["on", "off"], times)))
    return rdms


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(rdms=datasets())
def test_every_dataset_survives_rsatoolbox(rdms):
    theirs = to_rsatoolbox(rdms)
    assert theirs.n_rdm == rdms.dissimilarity.values.reshape(-1, rdms.sizes["pair"]).shape[0]
    back = from_rsatoolbox(theirs)
    xr.testing.assert_identical(back, rdms)
    assert back.dissimilarity.dtype == rdms.dissimilarity.dtype


DESCRIPTOR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.lists(st.integers(), max_size=3)
)


@st.composite
def foreign(draw):
    """RDMs as others make them: columns of any kind, mixed ones among them, perhaps a movie in any order of rows."""
    from rsatoolbox.rdm import RDMs

    n, k, times = draw(st.integers(2, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rows = k * max(times, 1)
    values = rng.normal(size=(rows, n_pairs(n)))
    values[rng.random(values.shape) < 0.2] = np.nan
    order = rng.permutation(rows)

    def column(size):
        return draw(st.lists(DESCRIPTOR, min_size=size, max_size=size) | st.lists(WORDS, min_size=size, max_size=size))

    columns = {"free": column(rows), "session": rng.integers(0, 2, rows), "pair": column(rows)}
    if times:
        columns |= {"subject": np.repeat(np.arange(k), times)[order], "time": np.tile(0.1 * np.arange(times), k)[order]}
    return RDMs(
        values,
        dissimilarity_measure=draw(st.none() | WORDS),
        descriptors={"noise": rng.normal(size=(2, 2)), "some": draw(DESCRIPTOR), "pair": (1, "a", None)},
        rdm_descriptors=columns,
        pattern_descriptors={
            "conds": [f"c{i}" for i in rng.permutation(n)],
            "stimulus": rng.permutation(n),
            "place": [[i, 0.5] for i in range(n)],
            "free": column(n),
        },
    )


def same(a, b):
    """Equality that also tells 1 from True and from 1.0, and knows arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    return type(a) is type(b) and a == b


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(theirs=foreign())
def test_all_rdms_of_rsatoolbox_survive(theirs):
    ours = from_rsatoolbox(theirs, dim="subject", stimulus="conds")
    movie_of = "time" in theirs.rdm_descriptors and len(set(theirs.rdm_descriptors["time"])) > 1
    assert has_time(ours) == movie_of
    back = to_rsatoolbox(ours)
    np.testing.assert_array_equal(back.dissimilarities, theirs.dissimilarities)
    assert back.dissimilarity_measure == theirs.dissimilarity_measure
    assert set(back.descriptors) == set(theirs.descriptors)
    assert all(same(back.descriptors[key], value) for key, value in theirs.descriptors.items())
    for mine, their in (
        (back.rdm_descriptors, theirs.rdm_descriptors),
        (back.pattern_descriptors, theirs.pattern_descriptors),
    ):
        assert set(mine) == set(their)
        for key, column in their.items():
            assert all(same(a, b) for a, b in zip(mine[key], column, strict=True)), key


@pytest.mark.filterwarnings("ignore")
def test_a_movie_of_rsatoolbox_has_time():
    from rsatoolbox.data import TemporalDataset
    from rsatoolbox.rdm import calc_rdm_movie

    rng = np.random.default_rng(0)
    sets = [
        TemporalDataset(
            rng.normal(size=(4, 6, 3)),
            descriptors={"subject": subject},
            obs_descriptors={"conds": list("dcba")},
            time_descriptors={"time": np.array([-0.1, 0.0, 0.1])},
        )
        for subject in ("s1", "s2")
    ]
    one = from_rsatoolbox(calc_rdm_movie(sets[0], method="correlation", descriptor="conds"))
    assert one.dissimilarity.shape == (1, 3, 6)
    both = from_rsatoolbox(calc_rdm_movie(sets, method="correlation", descriptor="conds"), dim="subject")
    assert both.subject.values.tolist() == ["s1", "s2"]
    assert both.time.values.tolist() == [-0.1, 0.0, 0.1]
    assert both.stimulus.values.tolist() == list("abcd")
    for s, single in enumerate(sets):
        for t in range(3):
            plain = 1 - np.corrcoef(single.measurements[::-1, :, t])
            np.testing.assert_allclose(squares(both)[s, t], plain, atol=1e-12)
    flat = from_rsatoolbox(calc_rdm_movie(sets, method="correlation", descriptor="conds"), time=False)
    assert flat.dissimilarity.shape == (6, 6)


@pytest.mark.filterwarnings("ignore")
def test_a_selected_movie_comes_back_as_a_smaller_one():
    rdms = movie()
    theirs = to_rsatoolbox(rdms)
    few = from_rsatoolbox(theirs.subset("subject", ["s0", "s2"]))
    xr.testing.assert_identical(few, rdms.sel(subject=["s0", "s2"]))
    with pytest.raises(InputError, match="without some time bins"):
        from_rsatoolbox(theirs[[0, 1, 5]])


@pytest.mark.filterwarnings("ignore")
def test_what_rsatoolbox_cannot_carry_is_named():
    rdms = example()
    rdms["weights"] = ("pair", np.ones(15))
    with pytest.raises(InputError, match=r"drop_vars\('weights'\)"):
        to_rsatoolbox(rdms)
    theirs = to_rsatoolbox(example())
    del theirs.descriptors["actkit"]
    theirs.descriptors["dates"] = object()
    with pytest.raises(InputError, match="of type object"):
        from_rsatoolbox(theirs)
    theirs.descriptors.clear()
    with pytest.raises(InputError, match="no time axis"):
        from_rsatoolbox(theirs, time="subject")


# --------------------------------------------------------------------------------------------------------------------
# Meadows


def meadows_file(folder, stimuli, participants):
    """A .mat file as the platform writes it: one vector and one list of stimuli for each participant."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    vectors = {who: rng.random((1, n_pairs(len(stimuli[0])))) for who in participants}
    content = {f"rdmutv_{who.replace('-', '_')}": vector for who, vector in vectors.items()}
    content |= {
        f"stimuli_{who.replace('-', '_')}": np.array(names) for who, names in zip(participants, stimuli, strict=True)
    }
    path = folder / "Meadows_myExp_v_v1_arrangement_1D.mat"
    savemat(path, content)
    return path, vectors


@pytest.mark.filterwarnings("ignore")
def test_meadows_files_load(tmp_path):
    names = ["stim118.png", "stim117.png", "stim2.png", "cat.png"]
    path, vectors = meadows_file(tmp_path, [names] * 2, ["able-fly", "clean-koi"])
    rdms = load_meadows(path)
    assert rdms.subject.values.tolist() == ["able-fly", "clean-koi"]
    assert rdms.stimulus.values.tolist() == ["cat", "stim117", "stim118", "stim2"]
    assert rdms.attrs["name"] == "myExp"
    original = [name.split(".")[0] for name in names]
    back = select_stimuli(rdms, original)
    np.testing.assert_array_equal(back.dissimilarity.values, np.concatenate(list(vectors.values())))


@pytest.mark.filterwarnings("ignore")
def test_meadows_trees_load(tmp_path):
    import json

    def task(name, words, rdm):
        meta = {"task_type": "multiarrange", "name": name}
        return {"task": meta, "stimuli": [{"name": w} for w in words], "rdm": rdm}

    path = tmp_path / "Meadows_myExp_v_v1_cuddly-bunny_tree.json"
    first, second = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    tasks = [task("shape", "abc", first), {"task": {"task_type": "info"}}, task("colour", "abc", second)]
    path.write_text(json.dumps({"tasks": tasks}))
    rdms = load_meadows(path)
    assert rdms.rdm.values.tolist() == ["cuddly-bunny/shape", "cuddly-bunny/colour"]
    np.testing.assert_array_equal(rdms.dissimilarity.values, [first, second])
    assert "note" not in rdms.attrs
    path.write_text(json.dumps({"tasks": [*tasks, task("other", "abd", first)]}))
    more = load_meadows(path, name="judges")
    assert len(more.rdm) == 2
    assert "left out" in more.attrs["note"]


@pytest.mark.filterwarnings("ignore")
def test_meadows_files_that_cannot_be_trusted_are_refused(tmp_path):
    names = ["b.png", "a.png", "c.png"]
    path, _ = meadows_file(tmp_path, [names, names[::-1]], ["able-fly", "clean-koi"])
    with pytest.raises(InputError, match="mislabelled"):
        load_meadows(path)
    path, _ = meadows_file(tmp_path, [["a.1.png", "a.2.png", "c.png"]], ["able-fly"])
    with pytest.raises(InputError, match="'a' up to their first dot"):
        load_meadows(path)
    renamed = path.rename(tmp_path / "judgements.mat")
    with pytest.raises(InputError, match="keep the name"):
        load_meadows(renamed)
    with pytest.raises(InputError, match="no Meadows file"):
        load_meadows(tmp_path / "Meadows_x_v_v1_y_1D.mat")
