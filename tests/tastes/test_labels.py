import itertools

import numpy as np
import pytest

from uem_t5x.tastes import labels


def label(counts, sums, **options):
    liked, disliked = labels.label_genres(np.array(counts), np.array(sums), **options)
    return liked.tolist(), disliked.tolist()


def test_golden_values_worked_out_by_hand():
    #        mean in stars: 4.0  3.5  3.0  2.5  5.0 (but twice only)  4.5
    counts = [3, 4, 3, 4, 2, 5]
    half_star_sums = [24, 28, 18, 20, 20, 45]
    assert label(counts, half_star_sums) == ([5, 0, -1], [3, -1, -1])


def test_the_thresholds_are_strict_and_exact():
    # 1000 ratings that sum to 7000, 7001, 6000 and 5999 half-stars.
    assert label([1000] * 4, [7000, 7001, 6000, 5999]) == ([1, -1, -1], [3, -1, -1])


def test_at_most_three_best_first_and_worst_first():
    counts = [3] * 5
    assert label(counts, [24, 25, 26, 27, 28]) == ([4, 3, 2], [-1] * 3)
    assert label(counts, [17, 3, 16, 4, 15]) == ([-1] * 3, [1, 3, 4])


def test_ties_go_to_the_higher_count_and_then_to_genre_order():
    assert label([3, 6, 3, 3], [27, 54, 27, 27]) == ([1, 0, 2], [-1] * 3)


def test_a_genre_may_count_from_one_occurrence():
    assert label([1, 0], [10, 0], rule=labels.LabelRule(min_count=1)) == ([0, -1, -1], [-1] * 3)
    assert label([1, 0], [2, 0], rule=labels.LabelRule(min_count=1)) == ([-1] * 3, [0, -1, -1])


def test_batches_agree_with_the_rule_read_aloud():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (200, 19))
    sums = np.array([[rng.integers(1, 11, n).sum() for n in row] for row in counts])
    liked, disliked = labels.label_genres(counts, sums)
    for user in range(len(counts)):
        genres = [genre for genre in range(19) if counts[user, genre] >= 3]
        mean = {genre: sums[user, genre] / 2 / counts[user, genre] for genre in genres}
        best = sorted(genres, key=lambda g: (-mean[g], -counts[user, g], g))
        worst = sorted(genres, key=lambda g: (mean[g], -counts[user, g], g))
        assert [g for g in liked[user] if g >= 0] == [g for g in best if mean[g] > 3.5][:3]
        assert [g for g in disliked[user] if g >= 0] == [g for g in worst if mean[g] < 3.0][:3]


def test_statistics_ignore_padding():
    genre_matrix = np.array([[0, 0], [1, 0], [1, 1]], np.uint8)
    items = np.array([1, 2, 0, 2, 2, 2])
    half_stars = np.array([8, 3, 9, 1, 2, 10])
    counts, sums = labels.genre_statistics(genre_matrix, items, half_stars, np.array([0, 3, 6]))
    assert counts.tolist() == [[2, 1], [3, 3]]
    assert sums.tolist() == [[11, 3], [13, 13]]


def test_statistics_of_histories_of_any_length():
    genre_matrix = np.array([[0, 0], [1, 0], [1, 1]], np.uint8)
    items, half_stars = np.array([1, 2, 2, 1]), np.array([8, 3, 9, 1], np.uint8)
    counts, sums = labels.genre_statistics(genre_matrix, items, half_stars, np.array([0, 1, 1, 4]))
    assert counts.tolist() == [[1, 0], [0, 0], [3, 2]]
    assert sums.tolist() == [[8, 0], [0, 0], [13, 12]]


@pytest.mark.parametrize("genres", [1, 2])
def test_fewer_genres_than_labels(genres):
    liked, disliked = labels.label_genres(np.full((4, genres), 3), np.full((4, genres), 30))
    assert liked.shape == disliked.shape == (4, 3)
    assert list(itertools.chain(*disliked.tolist())) == [-1] * 12
