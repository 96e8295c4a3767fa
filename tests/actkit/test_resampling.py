"""Draws are weights, and depend on (seed, number) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.errors import InputError
from actkit.resampling import Stream, bootstrap_weights, distinct, generator, pair_weights, permutations

counts = st.integers(1, 40)
seeds = st.integers(0, 2**64 - 1)


@settings(max_examples=60, deadline=None)
@given(n=counts, n_draws=st.integers(1, 12), seed=seeds)
def test_each_draw_takes_as_many_as_there_are(n, n_draws, seed):
    weights = bootstrap_weights(n, n_draws, seed)
    assert weights.shape == (n_draws, n)
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) == n).all()
    assert ((distinct(weights) >= 1) & (distinct(weights) <= n)).all()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 30), seed=seeds, cut=st.integers(0, 9))
def test_blocks_do_not_change_draws(n, seed, cut):
    whole = bootstrap_weights(n, 9, seed)
    parts = np.concatenate([bootstrap_weights(n, cut, seed), bootstrap_weights(n, 9 - cut, seed, start=cut)])
    np.testing.assert_array_equal(whole, parts)
    shuffles = permutations(n, 9, seed)
    parts = np.concatenate([permutations(n, cut, seed), permutations(n, 9 - cut, seed, start=cut)])
    np.testing.assert_array_equal(shuffles, parts)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), seed=seeds)
def test_permutations_start_with_the_identity(n, seed):
    rows = permutations(n, 5, seed)
    np.testing.assert_array_equal(rows[0], np.arange(n))
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(n), (5, 1)))


def test_streams_differ_by_seed_number_and_purpose():
    opened = [
        generator(1, 0),
        generator(2, 0),
        generator(1, 1),
        generator(1, 0, Stream.SUBJECTS),
        generator(1, 0, Stream.PERMUTATIONS),
    ]
    first = [tuple(stream.integers(0, 2**63, 4)) for stream in opened]
    assert len(set(first)) == len(first)
    assert tuple(generator(1, 0).integers(0, 2**63, 4)) == first[0]


def test_draws_are_uniform():
    weights = bootstrap_weights(10, 4000, seed=3)
    # Each stimulus is drawn once a sample on average, with variance 1 - 1/n: four standard errors.
    assert np.abs(weights.mean(axis=0) - 1).max() < 4 * np.sqrt(0.9 / 4000)
    assert np.abs(weights.var(axis=0) - 0.9).max() < 0.12


def test_pair_weights_count_pairs_of_distinct_stimuli():
    weights = np.array([[2, 1, 0], [1, 1, 1]])
    row, column = np.triu_indices(3, 1)
    np.testing.assert_array_equal(pair_weights(weights, row, column), [[2, 1], [0, 1], [0, 1]])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(InputError, match=str(seed)):
        generator(seed, 0)


def test_nothing_to_draw_from():
    with pytest.raises(InputError, match="out of 0"):
        bootstrap_weights(0, 3, 0)
