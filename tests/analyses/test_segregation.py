import numpy as np
import pytest
from scipy.stats import beta, norm

from actkit.analyses.segregation_bootstrap import (
    bootstrap,
    percentile_interval,
    two_level_weights,
)
from actkit.analyses.segregation_indices import (
    Outcomes,
    by_ranking,
    by_task,
    drops,
    index_at_half,
    saturated,
    segregation_index,
)
from actkit.analyses.segregation_nulls import (
    matched_sets,
    null_test,
    pseudo_tasks,
    random_sets,
    shuffle_classes,
)
from actkit.analyses.segregation_units import rank_selectivity, shared_units, top_order
from actkit.errors import InputError
from actkit.resampling import generator


def outcomes(rng, n=(60, 40), classes=(10, 5), lead=()):
    return Outcomes(
        tuple(rng.random(k) < 0.8 for k in n),
        tuple(rng.random((*lead, 2, k)) < 0.5 for k in n),
        tuple(np.arange(k) % c for k, c in zip(n, classes, strict=True)),
        (0.1, 0.2),
    )


def test_drops_relative_to_chance_and_plain():
    assert drops(0.9, 0.1, 0.1) == pytest.approx(1)
    assert drops(0.8, 0.2) == pytest.approx(0.75)
    assert drops(0.5, 0.6, 0.1) == pytest.approx(-0.25)
    assert np.isnan(drops(0.1, 0.05, 0.1))


def test_both_pairings_give_the_same_combined_index_and_other_parts():
    drop = np.random.default_rng(0).normal(size=(1000, 2, 2))
    np.testing.assert_allclose(by_ranking(drop).mean(-1), by_task(drop).mean(-1), atol=1e-15)
    np.testing.assert_allclose(segregation_index(drop), by_task(drop).mean(-1), atol=1e-15)
    assert np.abs(by_ranking(drop) - by_task(drop)).max() > 0.5


def test_index_by_hand_and_its_sign():
    assert segregation_index([[1, 0], [0, 1]]) == 1
    assert segregation_index([[0, 1], [1, 0]]) == -1
    assert segregation_index([[0.7, 0.7], [0.2, 0.2]]) == pytest.approx(0)
    with pytest.raises(InputError, match="2 rankings"):
        segregation_index(np.zeros((2, 3)))


def test_index_at_half_interpolates_each_ranking_at_its_own_fraction():
    fractions = [0.1, 0.2, 0.3]
    drop = np.zeros((2, 2, 3))
    drop[0, 0] = [0.25, 0.75, 0.9]  # half at 0.15
    drop[0, 1] = [0.0, 0.2, 0.9]  # 0.1 there
    drop[1, 1] = [1.0, 1.0, 1.0]  # half at 0.05
    drop[1, 0] = [0.6, 0.8, 0.9]  # 0.3 there
    index, at = index_at_half(drop, fractions)
    np.testing.assert_allclose(at, [0.15, 0.05])
    assert index == pytest.approx((0.4 + 0.2) / 2)
    drop[1, 1] = 0.49
    assert np.isnan(index_at_half(drop, fractions)[0])
    with pytest.raises(InputError, match="increase"):
        index_at_half(drop, [0.3, 0.2, 0.1])


def test_saturation_needs_both_tasks():
    assert saturated([[0.95, 0.91], [0.95, 0.89]]).tolist() == [True, False]


def test_order_breaks_ties_by_index_and_refuses_nan():
    assert top_order([1.0, 3.0, 3.0, 2.0]).tolist() == [1, 2, 3, 0]
    with pytest.raises(InputError, match="unit 1 has the score NaN"):
        top_order([1.0, np.nan])


def test_shared_units_chance_is_what_random_rankings_share():
    rng = np.random.default_rng(1)
    found = shared_units(rng.random(50), rng.random(50))
    shares = [shared_units(rng.random(50), rng.random(50)).share for _ in range(400)]
    assert found.chance == 0.2
    assert np.mean(shares) == pytest.approx(0.2, abs=0.015)
    assert 0.95 <= np.mean([found.low <= s <= found.high for s in shares]) <= 1
    same = rng.random(50)
    one = shared_units(same, same)
    assert one.share == 1
    assert one.p_more < 1e-9
    assert one.p_fewer == 1


def test_shared_units_are_normalised_by_the_reliability_of_the_rankings():
    rng = np.random.default_rng(2)

    def noisy(truth):
        return truth + rng.normal(size=(60, 2, 200))

    truth = rng.normal(size=200)
    alike, apart = [], []
    for _ in range(5):
        other = rng.normal(size=200)
        alike.append(shared_units(truth, truth, halves=(noisy(truth), noisy(truth))))
        apart.append(shared_units(truth, other, halves=(noisy(truth), noisy(other))))
    assert all(0.2 < one.ceiling < 0.8 for one in alike)  # noise alone keeps equal tasks from sharing all
    assert np.mean([one.normalised for one in alike]) == pytest.approx(1, abs=0.05)
    assert np.mean([one.normalised for one in apart]) == pytest.approx(0, abs=0.25)


def test_rank_and_selectivity_correlate_negatively_when_needed_units_are_selective():
    scores = np.arange(40.0)
    rho, p, n = rank_selectivity(scores, scores**2)
    assert (rho, n) == (pytest.approx(-1), 20)
    assert p < 1e-6
    holes = np.where(scores == 39, np.nan, scores)
    assert rank_selectivity(scores, holes)[2] == 19
    with pytest.raises(InputError, match="too few"):
        rank_selectivity(np.arange(4.0), np.arange(4.0))


def test_weights_equal_a_plain_loop_over_classes_and_images():
    labels = [np.array([2, 0, 2, 2, 0, 7]), np.array([1, 1, 5])]
    drawn = two_level_weights(labels, 4, seed=3)
    for draw in range(4):
        random = generator(3, draw)
        for values, weights in zip(labels, drawn, strict=True):
            classes = [np.flatnonzero(values == c) for c in np.unique(values)]
            chosen = [classes[i] for i in random.integers(0, len(classes), size=len(classes))]
            uniform = iter(random.random(sum(map(len, chosen))))
            plain = np.zeros(len(values))
            for images in chosen:
                for _ in images:
                    plain[images[int(next(uniform) * len(images))]] += 1
            np.testing.assert_array_equal(weights[draw], plain)
    later = two_level_weights(labels, 2, seed=3, start=2)
    np.testing.assert_array_equal(later[0], drawn[0][2:])
    whole = two_level_weights(labels, 20, 0, levels="classes")[0]
    assert (whole[:, 0] == whole[:, 2]).all()
    assert (two_level_weights(labels, 20, 0, levels="images")[0][:, [1, 4]].sum(1) == 2).all()


def test_bootstrap_equals_a_plain_loop_and_pairs_intact_with_lesioned():
    some = outcomes(np.random.default_rng(4), lead=(3,))
    drawn = bootstrap(some, 5, seed=1)
    weights = two_level_weights(some.labels, 5, seed=1)
    for draw in range(5):
        expected = np.empty((3, 2, 2))
        for t in range(2):
            rows = np.repeat(np.arange(len(some.labels[t])), weights[t][draw].astype(int))
            intact = some.intact[t][rows].mean()
            for lead in range(3):
                for ranking in range(2):
                    left = some.lesioned[t][lead, ranking][rows].mean()
                    expected[lead, ranking, t] = (intact - left) / (intact - some.chance[t])
        np.testing.assert_allclose(drawn.drop[draw], expected, atol=1e-12)
        np.testing.assert_allclose(drawn.index[draw], segregation_index(expected), atol=1e-12)


def test_outcomes_refuse_what_cannot_be_an_accuracy():
    with pytest.raises(InputError, match="NaN or values outside"):
        Outcomes((np.array([1.0]),) * 2, (np.full((2, 1), np.nan),) * 2, (np.array([0]),) * 2)
    with pytest.raises(InputError, match="shape"):
        Outcomes((np.ones(2),) * 2, (np.ones((3, 2)),) * 2, (np.zeros(2),) * 2)


def simulated(rng, classes=20, images=12, spread=0.35):
    """Outcomes whose classes come from a population with known mean accuracies; images are shared by conditions."""
    intact, lesioned = (0.8, 0.7), np.array([[0.3, 0.6], [0.7, 0.25]])
    tasks = []
    for t in range(2):
        common, difficulty = rng.normal(size=classes), rng.random(classes * images)
        labels = np.repeat(np.arange(classes), images)

        def right(mean, common=common, difficulty=difficulty, labels=labels):
            level = norm.cdf(0.7 * common + np.sqrt(0.51) * rng.normal(size=classes))
            return difficulty < beta.ppf(level, mean / spread**2, (1 - mean) / spread**2)[labels]

        tasks.append((right(intact[t]), np.stack([right(lesioned[r, t]) for r in range(2)]), labels))
    truth = segregation_index(drops(np.array(intact), lesioned, 1 / 40))
    return Outcomes(*zip(*tasks, strict=True), (1 / 40, 1 / 40)), float(truth)


def test_bootstrap_interval_covers_the_true_index():
    hits, estimates = [], []
    for number in range(80):
        some, truth = simulated(np.random.default_rng(number))
        low, high = percentile_interval(bootstrap(some, 200, seed=number).index)
        hits.append(low <= truth <= high)
        estimates.append(float(segregation_index(some.drops())))
    # Nominal .95; 80 runs of .95 give fewer than 70 once in 10,000 times.
    assert sum(hits) >= 70
    assert np.mean(estimates) == pytest.approx(truth, abs=0.02)


def test_null_test_counts_the_real_classes_as_one_shuffle():
    null = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, np.nan], [0.4, 0.1]])
    found = null_test(np.array([0.3, 0.5]), null)
    np.testing.assert_allclose(found.p_value, [3 / 5, 1 / 4])
    np.testing.assert_allclose(found.mean, [0.25, 0.1 / 3])
    np.testing.assert_allclose(found.excess, [0.05, 0.5 - 0.1 / 3])
    assert (found.p_corrected >= found.p_value - 0.06).all()
    assert found.n.tolist() == [4, 3]
    with pytest.raises(InputError, match="does not fit"):
        null_test(np.zeros(2), np.zeros((4, 3)))


def test_family_wise_p_holds_over_layers():
    rng = np.random.default_rng(5)
    corrected = [null_test(rng.normal(size=8), rng.normal(size=(39, 8))) for _ in range(400)]
    alone = np.mean([(one.p_value <= 0.05).any() for one in corrected])
    family = np.mean([(one.p_corrected <= 0.05).any() for one in corrected])
    assert alone > 0.2
    assert family == pytest.approx(0.05, abs=0.035)


@pytest.mark.parametrize("scheme", ["half_of_each", "half_of_all", "permute"])
def test_shuffles_deal_every_class_once(scheme):
    a, b = np.arange(9), np.arange(9, 16)
    for number in range(20):
        one, two = shuffle_classes(a, b, 0, number, scheme)
        assert np.array_equal(np.union1d(one, two), np.arange(16))
        assert not np.intersect1d(one, two).size
        if scheme == "half_of_each":
            assert abs(np.isin(a, one).sum() - 4.5) == 0.5
            assert len(one) == 8
        else:
            assert len(one) == (8 if scheme == "half_of_all" else 9)
    same = shuffle_classes(a, b, 0, 3, scheme)[0]
    assert np.array_equal(same, shuffle_classes(a, b, 0, 3, scheme)[0])
    assert not np.array_equal(same, shuffle_classes(a, b, 1, 3, scheme)[0])


def test_shuffles_refuse_shared_classes():
    with pytest.raises(InputError, match="column 3 belongs to both"):
        shuffle_classes(np.arange(4), np.arange(3, 8), 0, 0)


def test_pseudo_tasks_hold_all_images_of_their_classes():
    import torch

    from actkit.tasks import Task

    a = Task("a", torch.arange(8.0)[:, None], np.repeat(np.arange(4), 2), np.arange(4))
    b = Task("b", torch.arange(8.0, 14.0)[:, None], np.repeat(np.arange(4, 7), 2), np.arange(4, 7))
    one, two = pseudo_tasks(a, b, 0, 0)
    assert sorted([*one.inputs[:, 0].tolist(), *two.inputs[:, 0].tolist()]) == list(range(14))
    for task in (one, two):
        assert set(task.targets) == set(task.classes)
        assert np.array_equal(task.targets, task.inputs[:, 0].numpy().astype(int) // 2)


def test_matched_sets_resemble_the_lesioned_units_and_leave_them_out():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(100, 3))
    units = np.argsort(-(features[:, 0] + rng.normal(size=100)))[:20]
    sets, imbalance = matched_sets(features, units, 30, seed=0)
    assert all(len(set(one)) == 20 and not np.intersect1d(one, units).size for one in sets)
    plain = [features[one].mean(0) for one in random_sets(100, 20, 200, seed=0)]
    before = (features[units].mean(0) - np.mean(plain, 0))[0]
    assert before > 0.5
    assert imbalance[0] < before / 2
    assert len({tuple(one) for one in sets}) == 30
    with pytest.raises(InputError, match="too few others"):
        matched_sets(features, np.arange(51), 1, 0)
