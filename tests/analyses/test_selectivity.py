import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from actkit import plotting
from actkit.analyses import selectivity_plot
from actkit.analyses.selectivity import selectivity, units_of_selectivity
from actkit.analyses.selectivity_responses import Layout, response_blocks
from actkit.analyses.selectivity_scores import ManyLabellings, score
from actkit.analyses.source import array_layer
from actkit.errors import InputError, LayerError
from actkit.results import load, save

MEASURES = ["index", "d_prime", "t", "cliff_delta"]


def planted(n=40, channels=60, side=5, n_faces=8, gain=2.0, seed=0):
    """Rectified maps; the channels 3, 4, … answer more to faces, the last ones more to objects."""
    rng = np.random.default_rng(seed)
    y = np.array(["face", "object"])[np.arange(n) % 2]
    maps = np.abs(rng.normal(size=(n, channels, side, side))).astype(np.float32)
    faces, objects = np.arange(3, 3 + n_faces), np.arange(channels - 5, channels)
    maps[np.ix_(y == "face", faces)] *= gain
    maps[np.ix_(y == "object", objects)] *= gain
    return maps, y, faces, objects


def plain(a, b, measure):
    """One unit, as a textbook would."""
    if measure == "index":
        return (a.mean() - b.mean()) / (a.mean() + b.mean())
    if measure == "d_prime":
        return (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    if measure == "t":
        return stats.ttest_ind(a, b, equal_var=False).statistic
    return np.mean(np.sign(a[:, None] - b[None, :]))


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_are_those_of_the_textbook(measure):
    rng = np.random.default_rng(1)
    a, b = rng.integers(1, 9, (7, 12)).astype(float), rng.integers(1, 9, (11, 12)).astype(float)  # with ties
    expected = [plain(a[:, k], b[:, k], measure) for k in range(12)]
    np.testing.assert_allclose(score(a, b, measure), expected, atol=1e-12)
    members = np.arange(18)[None] < 7
    both = np.concatenate([a, b])
    np.testing.assert_allclose(ManyLabellings(both, measure)(members)[0], expected, rtol=1e-9, atol=1e-12)
    shuffled = np.stack([rng.permutation(members[0]) for _ in range(5)])
    for row, found in zip(shuffled, ManyLabellings(both + 1e4, measure)(shuffled), strict=True):
        np.testing.assert_allclose(found, score(both[row] + 1e4, both[~row] + 1e4, measure), rtol=1e-6, atol=1e-12)


def test_units_without_variance_have_no_score_or_an_infinite_one():
    a, b = np.full((3, 2), 0.1), np.array([[0.1, 0.3]] * 4)
    for measure in MEASURES:
        assert np.isnan(score(a, b, measure)[0])
    assert score(a, b, "d_prime")[1] == score(a, b, "t")[1] == -np.inf
    assert score(a, b, "cliff_delta")[1] == -1


@pytest.mark.parametrize("reduce", ["l2", "mean", "max", "none"])
@pytest.mark.parametrize("memory", [300, 7000, 10**8])
def test_responses_do_not_depend_on_how_they_are_read(reduce, memory):
    maps = np.random.default_rng(2).normal(size=(6, 5, 3, 4))
    expected = {
        "l2": np.sqrt((maps**2).sum((2, 3))),
        "mean": maps.mean((2, 3)),
        "max": maps.max((2, 3)),
        "none": maps.reshape(6, -1),
    }[reduce]
    ids = [str(k) for k in range(6)]
    for array, layout in ((maps, Layout.of(maps.shape[1:])), (maps.reshape(6, -1), Layout.of(maps.shape[1:]))):
        # The second is cut anywhere within a map, as a store may be.
        read = list(response_blocks(array_layer("l", array), layout, ids, reduce, False, False, memory))
        assert [first for first, _ in read] == np.cumsum([0] + [r.shape[1] for _, r in read])[:-1].tolist()
        np.testing.assert_allclose(np.concatenate([r for _, r in read], axis=1), expected, rtol=1e-12)
        assert len(read) > 1 or memory > 300
    tokens = maps.reshape(6, 15, 4)
    layout = Layout.of((15, 4))
    if reduce != "none":
        (_, found), *_ = response_blocks(array_layer("l", tokens), layout, ids, reduce, False, False, max(memory, 1000))
        wanted = {"l2": np.sqrt((tokens**2).sum(1)), "mean": tokens.mean(1), "max": tokens.max(1)}[reduce]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_planted_units_are_found_and_named(measure):
    maps, y, faces, objects = planted()
    result = selectivity({"conv": maps}, y, measure=measure, n_permutations=500, contrast=["face", "object"])
    found = units_of_selectivity(result)
    assert set(faces.tolist()) <= set(found.channel.tolist())
    assert len(found) <= len(faces) + 3  # false discoveries
    assert (np.diff(found.score) <= 0).all()
    others = units_of_selectivity(result, "object", k=5)
    assert set(others.channel.tolist()) == set(objects.tolist())
    assert "object against face" in others.question
    top = units_of_selectivity(result, "face", fraction=0.1)
    assert len(top) == 6
    assert set(top.channel.tolist()) <= set(faces.tolist())
    assert result["reliability"].item() > 0.5
    assert result["share"].item() == pytest.approx(len(found) / 60)
    assert result["share_beyond"].item() > result["share_chance"].item()


def test_response_is_the_l2_norm_of_the_map():
    maps, y, *_ = planted()
    norms = np.sqrt((maps.astype(float) ** 2).sum((2, 3)))
    a, b = norms[y == "face"].mean(0), norms[y == "object"].mean(0)
    result = selectivity({"conv": maps}, y)
    np.testing.assert_allclose(result["score"].sel(contrast="face > object").values, (a - b) / (a + b), rtol=1e-6)
    np.testing.assert_allclose(result["score"].values[1], -result["score"].values[0])
    assert result["preferred"].values.tolist() == ["face", "object"]


def test_single_units_are_named_by_position():
    maps, y, *_ = planted(channels=4, n_faces=0, gain=1.0)
    maps[y == "face", 2, 1, 3] += 9
    result = selectivity({"conv": maps}, y, reduce="none", contrast="face", measure="d_prime")
    (unit,) = units_of_selectivity(result, k=1)
    assert unit == ("conv", 2, 1, 3)
    tokens = np.random.default_rng(0).normal(size=(40, 6, 7))
    tokens[y == "face", 4, 5] += 9
    result = selectivity({"block": tokens}, y, reduce="none", contrast="face", measure="d_prime")
    assert next(iter(units_of_selectivity(result, k=1))) == ("block", 5, 4, -1)


def test_store_and_array_give_the_same_numbers_in_bounded_memory(tmp_path):
    import torch

    import actkit

    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 12, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(9408, 9))
    module = torch.nn.Sequential(*layers)
    network = actkit.Network(module, input_shape=(3, 32, 32), name="small")
    images = np.random.default_rng(0).random((30, 3, 32, 32), dtype=np.float32)
    store = actkit.extract(network, images, store=tmp_path / "a.zarr", progress=False)
    labels = dict(zip(map(str, store.ids), np.arange(30) % 3, strict=True))
    arrays = {name: store[name] for name in store.layers}
    settings = {"measure": "d_prime", "n_permutations": 50, "n_splits": 4}
    first = selectivity(store, labels, **settings)
    again = selectivity(str(tmp_path / "a.zarr"), labels, memory="12MB", **settings)
    second = selectivity(arrays, labels, **settings)
    third = selectivity({n: np.asarray(a.values) for n, a in arrays.items()}, list(labels.values()), **settings)
    for other in (again, second, third):
        for name in first.data_vars:
            np.testing.assert_allclose(other[name].values, first[name].values, rtol=1e-9, atol=1e-12, err_msg=name)
        for name in ("channel", "y", "unit_layer"):
            np.testing.assert_array_equal(other[name].values, first[name].values)
    units = units_of_selectivity(first, "1", fraction=0.25, layers="1")
    units.check({layer.name: layer.shape for layer in network.layers()})
    assert len(units) == 3


def test_memory_stays_within_bounds():
    import tracemalloc

    rng = np.random.default_rng(0)
    x = xr.DataArray(rng.random((20, 100_000), dtype=np.float32), dims=("stimulus", "unit"))
    y = np.arange(20) % 2
    selectivity(x[:, :100], y, n_splits=1, n_permutations=10)
    tracemalloc.start()
    selectivity(x, y, contrast="1", n_splits=2, n_permutations=20, memory="8MB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The result has eleven numbers a unit, in two copies; 20 scores a unit at once would take 16 MB more.
    assert peak < 11 * 2 * 8e5 + 8e6


def test_p_values_are_calibrated_under_the_null():
    rng = np.random.default_rng(3)
    for measure, x in (
        ("index", rng.gamma(2, size=(18, 4000))),
        ("d_prime", rng.standard_t(3, size=(18, 4000))),
        ("cliff_delta", rng.integers(0, 4, (18, 4000)).astype(float)),
    ):
        y = np.array(["a"] * 5 + ["b"] * 13)
        result = selectivity(x, y, contrast="a", measure=measure, n_permutations=200, n_splits=0, seed=1)
        p = result["p_value"].values[0]
        for level in (0.05, 0.2):
            # Permutations are shared by the units: beside the binomial error, that of 200 draws of the tail.
            error = np.sqrt(level * (1 - level) * (1 / 4000 + 1 / 200))
            assert np.mean(p <= level) < level + 2 * error
            assert measure == "cliff_delta" or np.mean(p <= level) > level - 3 * error
        assert result["share"].item() + result["share_opposite"].item() <= 0.002


def test_studentised_scores_hold_their_level_under_unequal_variances():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(scale=3, size=(10, 3000)), rng.normal(size=(30, 3000))])
    y = np.array(["a"] * 10 + ["b"] * 30)
    rates = {
        measure: float(
            (selectivity(x, y, contrast="a", measure=measure, n_permutations=300, n_splits=0)["p_value"] <= 0.05).mean()
        )
        for measure in ("t", "d_prime")
    }
    assert 0.02 < rates["t"] < 0.085
    assert rates["d_prime"] > 0.12  # which is why the documentation recommends t there


def test_groups_are_moved_whole():
    rng = np.random.default_rng(5)
    person = np.repeat(np.arange(16), 4)
    y = np.where(person < 8, "a", "b")
    x = rng.normal(size=(16, 2000))[person] + 0.2 * rng.normal(size=(64, 2000))  # differs between persons only
    settings = {"contrast": "a", "measure": "d_prime", "n_permutations": 200, "n_splits": 0}
    alone = (selectivity(x, y, **settings)["p_value"] <= 0.05).mean()
    whole = (selectivity(x, y, groups=person, **settings)["p_value"] <= 0.05).mean()
    assert alone > 0.25
    assert whole < 0.09


def test_what_cannot_be_asked_is_refused_with_a_cure():
    maps, y, *_ = planted(n=12)
    with pytest.raises(InputError, match=r"negative activations.*rectify"):
        selectivity(maps - 1, y)
    assert selectivity(maps - 1, y, rectify=True)["score"].notnull().any()
    with pytest.raises(InputError, match=r"no label 'faces'.*'face'"):
        selectivity(maps, y, contrast=["faces", "object"])
    with pytest.raises(InputError, match="both sides"):
        selectivity(maps, y, contrast=["face", "face+object"])
    with pytest.raises(InputError, match="two classes"):
        selectivity(maps, np.full(12, "face"))
    with pytest.raises(InputError, match="1 stimuli, and d_prime needs 2"):
        selectivity(maps, ["one", *y[1:]], measure="d_prime")
    bad = maps.copy()
    bad[1, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"layer 'activation' holds NaN.*'1'"):
        selectivity(bad, y)
    with pytest.raises(InputError, match="changes nothing"):
        # Two groups of one class each: half of the seeds draw the observed labelling again.
        selectivity(maps, y, groups=y, contrast="face", n_permutations=2, seed=_seed_without_change())
    result = selectivity(maps, y)
    with pytest.raises(InputError, match="2 contrasts; say which"):
        units_of_selectivity(result)
    with pytest.raises(InputError, match="prefers 'dog'"):
        units_of_selectivity(result, "dog")
    with pytest.raises(InputError, match="give one of them"):
        units_of_selectivity(result, "face", k=1, threshold=0.2)
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        units_of_selectivity(result, "face", layers="conv9")


def _seed_without_change():
    from actkit.resampling import Stream, generator

    return next(s for s in range(99) if (generator(s, 1, Stream.PERMUTATIONS).permutation(2) == [0, 1]).all())


def test_unlabelled_stimuli_are_left_out():
    maps, y, *_ = planted(n=20)
    some = np.where(np.arange(20) < 4, "", y)
    result = selectivity(maps, some)
    np.testing.assert_allclose(result["score"], selectivity(maps[4:], y[4:])["score"])
    assert result.attrs["n_stimuli"] == 16


def test_results_survive_saving_and_are_drawn(tmp_path):
    maps, y, *_ = planted(channels=20, side=2)
    y = np.where(np.arange(40) % 3 == 0, "tool", y)
    layers = {"conv1": maps, "conv2": maps[:, ::-1]}
    for options in ({}, {"contrast": ["face", "object+tool"], "measure": "d_prime", "n_permutations": 100}):
        result = selectivity(layers, y, **options)
        save(result, tmp_path / "r.nc")
        back = load(tmp_path / "r.nc")
        assert units_of_selectivity(back, "face", k=3) == units_of_selectivity(result, "face", k=3)
        figure = selectivity_plot.plot(back)
        assert len(figure.axes) == (2 if options else 4)
        assert plotting.png_bytes(figure, dpi=40)[:4] == b"\x89PNG"
        words = selectivity_plot.caption(back)
        assert "face (13 stimuli)" in words
        assert ("permutation test" in words) == bool(options)
        assert "face" in selectivity_plot.alt_text(back)
        share = 100 * result["share"].values[0].max()
        assert f"{share:.0f} %" in words
    with pytest.raises(InputError, match="not a selectivity result"):
        selectivity_plot.plot(xr.Dataset())
    with pytest.raises(InputError, match="no contrast 'dog'"):
        selectivity_plot.plot(back, contrasts="dog")
    assert json.loads(back.attrs["options"])["contrast"] == ["face", "object+tool"]
