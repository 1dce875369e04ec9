"""The label rule of the paper: which genres a history says its user likes and dislikes.

A genre counts once it occurs three times. Of the genres that count, the best three with a mean
rating above 3.5 stars are liked and the worst three with a mean below 3.0 are disliked (section
"Task" of arXiv 2401.04858). A `LabelRule` has these numbers, or others.

Ratings are half-stars, integers from 1 to 10, so the thresholds are compared exactly: a genre of
mean 3.5 stars is not liked, whatever the order of the additions. The paper is silent on ties: here
genres of equal mean are ordered by their count, higher first, and then by their index, which is
alphabetical in a dataset folder.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64, Integer, UInt8
from scipy.sparse import csr_array

from uem_t5x.tastes.label_numbers import PAPER, LabelRule
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

NO_GENRE = -1


def genre_statistics(
    genre_matrix: UInt8[np.ndarray, "rows genres"],
    items: Integer[np.ndarray, " ratings"],
    half_stars: Integer[np.ndarray, " ratings"],
    offsets: Integer[np.ndarray, " users_and_1"],
) -> tuple[Int64[np.ndarray, "users genres"], Int64[np.ndarray, "users genres"]]:
    """Counts each genre of each history and adds up its ratings.

    Args:
        genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere; row 0, padding, is 0.
        items: rows of `genre_matrix`, one history after the other.
        half_stars: ratings of the items, 1 to 10.
        offsets: where each user's history starts, and last the end.

    Returns:
        How often each genre occurs, and the sum of its ratings in half-stars.
    """
    shape = (len(offsets) - 1, len(genre_matrix))
    has_genre = genre_matrix.astype(np.int64)

    def add_up(values: np.ndarray) -> Int64[np.ndarray, "users genres"]:
        # A history is a row of a sparse matrix of users by movies.
        return csr_array((values.astype(np.int32), items, offsets), shape) @ has_genre

    return add_up(np.ones_like(items)), add_up(half_stars)


def label_genres(
    counts: Int[np.ndarray, "*users genres"],
    half_star_sums: Int[np.ndarray, "*users genres"],
    rule: LabelRule = PAPER,
) -> tuple[Int32[np.ndarray, "*users labels"], Int32[np.ndarray, "*users labels"]]:
    """Applies the label rule.

    Args:
        counts: how often each genre occurs in a user's history.
        half_star_sums: the sum of the genre's ratings, in half-stars.
        rule: the numbers of the rule.

    Returns:
        The liked genres, best first, and the disliked ones, worst first: indices along the genre
        axis, `rule.most` a user, padded with `NO_GENRE`.
    """
    # Equal fractions divide to equal float64, and fractions of counts below 2**20 that differ do so
    # far above its precision: ordering by this mean is as exact as the thresholds.
    means = half_star_sums / np.maximum(counts, 1)
    enough = counts >= max(rule.min_count, 1)
    liked = enough & (half_star_sums > HALF_STARS_PER_STAR * rule.liked_above * counts)
    disliked = enough & (half_star_sums < HALF_STARS_PER_STAR * rule.disliked_below * counts)
    return _first(liked, -means, counts, rule.most), _first(disliked, means, counts, rule.most)


def names(genres: Sequence[str], labels: Iterable[int | np.integer]) -> list[str]:
    """Returns the names of labels, without the padding."""
    return [genres[label] for label in labels if label != NO_GENRE]


def _first(
    eligible: Bool[np.ndarray, "*users genres"],
    rank: Float[np.ndarray, "*users genres"],
    counts: Int[np.ndarray, "*users genres"],
    most: int,
) -> Int32[np.ndarray, "*users labels"]:
    """Returns the eligible genres of lowest rank; ties by higher count, then by genre order."""
    # The last key sorts first, and the sort is stable, which leaves full ties in genre order.
    order = np.lexsort((-counts, rank, ~eligible), axis=-1)[..., :most]
    labels = np.where(np.take_along_axis(eligible, order, axis=-1), order, NO_GENRE)
    missing = most - labels.shape[-1]
    padding = [(0, 0)] * (labels.ndim - 1) + [(0, missing)]
    return np.pad(labels, padding, constant_values=NO_GENRE).astype(np.int32)
