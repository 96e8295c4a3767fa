"""Reducers against plain numpy and against what they promise."""

import numpy as np
import pytest
import torch

from actkit.errors import InputError
from actkit.extractors.reducers import ChannelSummary, PrincipalComponents, SparseProjection, johnson_lindenstrauss

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((5, 4, 6, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("mean", lambda x: x.mean((2, 3))),
        ("max", lambda x: x.max((2, 3))),
        ("l2", lambda x: np.sqrt((x**2).sum((2, 3)))),
    ],
)
def test_channel_summaries_of_maps(kind, plain):
    reducer = ChannelSummary(kind, (4, 6, 7))
    assert reducer.shape == (4,)
    np.testing.assert_allclose(reducer(torch.from_numpy(MAPS)).numpy(), plain(MAPS), rtol=1e-5)
    assert reducer.attrs == {"reduced": kind, "original_shape": [4, 6, 7], "reduced_over": "positions"}


def test_channel_summaries_of_tokens_videos_and_vectors():
    tokens = torch.from_numpy(MAPS[:, 0])
    reducer = ChannelSummary("max", (6, 7))
    assert reducer.shape == (7,)
    assert torch.equal(reducer(tokens), tokens.amax(1))
    assert reducer.attrs["reduced_over"] == "tokens"
    video = torch.from_numpy(MAPS)[:, :, None]
    assert torch.allclose(ChannelSummary("mean", (4, 1, 6, 7))(video), video.mean((2, 3, 4)))
    vectors = torch.from_numpy(MAPS[:, :, 0, 0])
    same = ChannelSummary("l2", (4,))
    assert same(vectors) is vectors
    assert same.attrs["reduced"] == "none"


def test_johnson_lindenstrauss_bound():
    assert johnson_lindenstrauss(1000, 0.1) == 5921
    assert johnson_lindenstrauss(1000, 0.5) == np.ceil(4 * np.log(1000) / (0.125 - 0.125 / 3))
    with pytest.raises(InputError, match=r"eps is 1\.5"):
        johnson_lindenstrauss(10, 1.5)


def test_projection_is_the_matrix_it_says():
    reducer = SparseProjection("conv", (10, 20, 5), 50, seed=3, n_stimuli=30)
    dense = reducer.matrix().to_dense().numpy()
    assert dense.shape == (50, 1000)
    size = np.sqrt(np.sqrt(1000) / 50)
    np.testing.assert_allclose(np.unique(dense), [-size, 0, size], rtol=1e-6)
    x = RNG.standard_normal((7, 10, 20, 5)).astype(np.float32)
    np.testing.assert_allclose(reducer(torch.from_numpy(x)).numpy(), x.reshape(7, -1) @ dense.T, rtol=1e-4, atol=1e-4)


def test_projection_has_the_stated_density_and_balanced_signs():
    reducer = SparseProjection("conv", (40000,), 500, seed=0, n_stimuli=30)
    values = reducer.matrix().values().numpy()
    expected = 500 * np.sqrt(40000)  # binomial: standard deviation about 315
    assert abs(len(values) - expected) < 5 * np.sqrt(expected)
    assert abs((values > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(expected)
    assert reducer.attrs["projection_density"] == 1 / 200


def test_projection_depends_on_seed_and_layer_and_not_on_the_batch():
    def first(layer, seed):
        return SparseProjection(layer, (900,), 40, seed, 10).matrix().to_dense()

    assert torch.equal(first("a", 0), first("a", 0))
    assert not torch.equal(first("a", 0), first("b", 0))
    assert not torch.equal(first("a", 0), first("a", 1))
    reducer = SparseProjection("a", (900,), 40, 0, 10)
    x = torch.randn(9, 900, generator=torch.Generator().manual_seed(0))
    whole, parts = reducer(x), torch.cat([reducer(x[:4]), reducer(x[4:])])
    assert torch.allclose(whole, parts, atol=1e-5)


def test_projection_keeps_distances_within_its_bound():
    n, eps = 40, 0.5
    components = johnson_lindenstrauss(n, eps)
    x = RNG.standard_normal((n, 5000)).astype(np.float32)
    reducer = SparseProjection("a", (5000,), components, 0, n)
    y = reducer(torch.from_numpy(x)).numpy().astype(np.float64)
    pairs = np.triu_indices(n, 1)

    def distances(z):
        return ((z[pairs[0]] - z[pairs[1]]) ** 2).sum(1)

    ratio = distances(y) / distances(x.astype(np.float64))
    assert np.abs(ratio - 1).max() < eps
    assert abs(ratio.mean() - 1) < 0.05
    assert abs(reducer.attrs["projection_eps"] - eps) < 0.01


def test_a_layer_narrower_than_the_projection_is_kept():
    reducer = SparseProjection("a", (3, 2, 2), 50, 0, 10)
    x = torch.from_numpy(MAPS[:, :3, :2, :2].copy())
    assert reducer.shape == (12,)
    assert torch.equal(reducer(x), x.flatten(1))
    assert reducer.attrs["reduced"] == "none"


def test_a_wide_layer_needs_no_dense_matrix():
    reducer = SparseProjection("a", (64, 112, 112), 1000, 0, 100)
    matrix = reducer.matrix()
    nonzero = matrix.values().numel()
    assert abs(nonzero / (1000 * np.sqrt(64 * 112 * 112)) - 1) < 0.02  # 0.9 million of 803 million entries


def test_pca_agrees_with_the_singular_value_decomposition():
    x = RNG.standard_normal((12, 300)).astype(np.float32) * np.linspace(1, 3, 300, dtype=np.float32)
    new = RNG.standard_normal((4, 300)).astype(np.float32)
    reducer = PrincipalComponents("a", (300,), 5)
    reducer.fit(torch.from_numpy(x.copy()))
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(u[np.abs(u).argmax(0), np.arange(len(s))])[:5]
    np.testing.assert_allclose(reducer(torch.from_numpy(x)).numpy(), (u * s)[:, :5] * signs, atol=2e-3)
    expected = (new - x.mean(0, dtype=np.float64)) @ vt[:5].T * signs
    np.testing.assert_allclose(reducer(torch.from_numpy(new)).numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(reducer.attrs["explained_variance_ratio"], (s**2 / (s**2).sum())[:5], atol=1e-5)


def test_pca_of_a_layer_with_fewer_axes_scores_zero_on_the_rest():
    basis = RNG.standard_normal((2, 50)).astype(np.float32)
    x = RNG.standard_normal((8, 2)).astype(np.float32) @ basis
    reducer = PrincipalComponents("a", (50,), 4)
    reducer.fit(torch.from_numpy(x.copy()))
    scores = reducer(torch.from_numpy(x)).numpy()
    assert reducer.attrs["pca_rank"] == 2
    assert np.abs(scores[:, :2]).max() > 0.1
    assert np.abs(scores[:, 2:]).max() == 0
    dead = PrincipalComponents("a", (50,), 3)
    dead.fit(torch.ones(6, 50))
    assert not dead(torch.ones(6, 50)).any()


def test_pca_refuses_nan_and_use_before_fit():
    reducer = PrincipalComponents("a", (3,), 2)
    with pytest.raises(RuntimeError, match="was not fitted"):
        reducer(torch.ones(1, 3))
    with pytest.raises(InputError, match="layer 'a' has NaN"):
        reducer.fit(torch.full((4, 3), float("nan")))
