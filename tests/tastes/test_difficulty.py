"""How clear labels are, and what is said of those that are alike."""

import numpy as np
import pytest

from uem_t5x.tastes import baselines, difficulty, labels
from uem_t5x.tastes.baselines import Users

GENRES = ["Action", "Comedy", "Drama", "Horror", "War", "Western"]
# Row 0 is padding; each movie has one genre.
MATRIX = np.vstack([np.zeros((1, 6), np.uint8), np.eye(6, dtype=np.uint8)])


def users_of(*ratings):
    """Makes users of their half-stars by genre, labelled by the rule."""
    items, half_stars, offsets = [], [], [0]
    for by_genre in ratings:
        for genre, values in by_genre.items():
            items += [GENRES.index(genre) + 1] * len(values)
            half_stars += values
        offsets.append(len(items))
    arrays = np.array(items, np.int32), np.array(half_stars, np.int32), np.array(offsets)
    users = Users([f"u{n}" for n in range(len(ratings))], *arrays, [([], [])] * len(ratings))
    tastes = baselines.rule(users, MATRIX, GENRES)
    return Users(users.ids, *arrays, tastes)


# Four genres above 3.5 stars, of which the last is none; one below 3.0; one too rare to count.
USER = {
    "Action": [10, 10, 10],  # 5.0
    "Comedy": [9, 9, 9],  # 4.5
    "Drama": [8, 8, 9, 9],  # 4.25
    "Horror": [8, 8, 8],  # 4.0
    "War": [4, 4, 4, 4, 4],  # 2.0
    "Western": [1, 1],
}


def test_margins_by_hand():
    users = users_of(USER)
    assert users.tastes == [(["Action", "Comedy", "Drama"], ["War"])]
    liked, disliked = (
        of_user[0] for of_user in difficulty.margins(*users.genre_statistics(MATRIX))
    )
    # Labels above the fourth; the fourth below the third; far from liked; too rare.
    assert liked[:5] == pytest.approx([1.0, 0.5, 0.25, -0.25, -2.25])
    assert np.isneginf(liked[5]) and np.isneginf(disliked[5])
    # 1.0 below the threshold; others above it.
    assert disliked[:5] == pytest.approx([-2.0, -1.5, -1.25, -1.0, 1.0])


def test_a_label_has_a_positive_margin_and_nothing_else_has():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 6, (500, 6))
    sums = np.array([[rng.integers(1, 11, n).sum() for n in row] for row in counts])
    found = labels.label_genres(counts, sums)
    for index, margins in enumerate(difficulty.margins(counts, sums)):
        is_label = np.zeros(counts.shape, bool)
        for user, genres in enumerate(found[index]):
            is_label[user, genres[genres >= 0]] = True
        assert (margins[is_label] >= 0).all()
        assert (margins[~is_label] <= 0).all()
        # Where it is zero, counts decided between equal means.
        assert 0 < (margins == 0).sum() < is_label.sum() / 2


def test_the_rule_on_whole_histories_says_what_is_beyond_zero():
    rng = np.random.default_rng(1)
    drawn = [
        {genre: rng.integers(1, 11, rng.integers(1, 8)).tolist() for genre in GENRES}
        for _ in range(200)
    ]
    users = users_of(*drawn)
    said = {"rule": users.tastes, "nothing": [None] * 200}
    groups = difficulty.by_margin(users, said, MATRIX, GENRES)
    counts, _ = users.genre_statistics(MATRIX)
    assert sum(group.genres for group in groups) == 2 * (counts >= labels.PAPER.min_count).sum()
    for group in groups:
        is_label = group.low is not None and group.low >= 0
        assert group.said == {"rule": float(is_label and group.genres > 0), "nothing": 0.0}


def test_labels_by_how_often_their_genre_occurs():
    users = users_of(USER)
    said = {"uem": [(["Drama", "Horror"], ["War"])]}
    groups = difficulty.by_count(users, said, MATRIX, GENRES)
    found = {(g.kind, g.low): (g.genres, g.said["uem"]) for g in groups if g.genres}
    # Action, Comedy and Drama occur 3, 3 and 4 times, War 5 times.
    assert found == {("liked", 3): (3, pytest.approx(1 / 3)), ("disliked", 5): (1, 1.0)}
    assert [group.high for group in groups if group.low == 40] == [None, None]
