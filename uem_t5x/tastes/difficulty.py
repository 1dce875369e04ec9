"""Where a model and the label rule part: by how clear a label is, and how often its genre occurs.

The *margin* of a genre, in stars, is how far its mean rating lies within the liked genres of a
user, or the disliked ones: above 3.5 (below 3.0), and above (below) whatever would take its place
among the three. It is positive for a label, about how much the mean may change before the label is
lost; negative for a genre that is none, about how much it lacks.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, UInt8

from uem_t5x.tastes import metrics
from uem_t5x.tastes.baselines import Users
from uem_t5x.tastes.labels import PAPER, LabelRule
from uem_t5x.tastes.metrics import KINDS, Taste
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

_INFINITE = float("inf")
MARGINS = (-_INFINITE, -1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, _INFINITE)
_COUNTS = (5, 10, 20, 40, _INFINITE)


@dataclasses.dataclass(frozen=True)
class Group:
    """Genres of users that are alike, as far as it matters for an answer.

    Attributes:
        kind: `liked` or `disliked`.
        low: the least margin in stars, or the least number of occurrences; None without an end.
        high: all lie below it; None without an end.
        genres: how many they are.
        said: by the name of a method, the share of them that it says are of this kind.
    """

    kind: str
    low: int | float | None
    high: int | float | None
    genres: int
    said: Mapping[str, float]


def by_margin(
    users: Users,
    predictions: Mapping[str, Sequence[Taste | None]],
    genre_matrix: UInt8[np.ndarray, "rows genres"],
    genres: Sequence[str],
    rule: LabelRule = PAPER,
) -> list[Group]:
    """Groups all genres that count, labels or not, by their margin in whole histories.

    A method without errors says all of positive margin, and none of negative.

    Args:
        users: with their whole histories.
        predictions: of each method; None where an answer could not be read.
        genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere; row 0 is 0.
        genres: the names of its columns.
        rule: what the labels were made by.

    Returns:
        A row for each kind and interval of `MARGINS`.
    """
    counts, sums = users.genre_statistics(genre_matrix)
    truth, said = metrics.by_kind(users.tastes, genres), _said(predictions, genres)
    groups = []
    for index, (kind, kind_margins) in enumerate(zip(KINDS, margins(counts, sums, rule))):
        # A rank that equal means share is decided by counts, and its margin is 0: the label's.
        tied = (kind_margins == 0) & ~truth[:, index]
        values = np.where(tied, np.nextafter(0, -1), kind_margins)
        groups += _groups(kind, values, MARGINS, counts >= rule.min_count, said, index)
    return groups


def by_count(
    users: Users,
    predictions: Mapping[str, Sequence[Taste | None]],
    genre_matrix: UInt8[np.ndarray, "rows genres"],
    genres: Sequence[str],
    rule: LabelRule = PAPER,
) -> list[Group]:
    """Groups true labels by how often their genre occurs in whole histories; see `by_margin`."""
    counts, _ = users.genre_statistics(genre_matrix)
    truth, said = metrics.by_kind(users.tastes, genres), _said(predictions, genres)
    edges = (rule.min_count, *(count for count in _COUNTS if count > rule.min_count))
    return [
        group
        for index, kind in enumerate(KINDS)
        for group in _groups(kind, counts, edges, truth[:, index], said, index)
    ]


def margins(
    counts: Int[np.ndarray, "users genres"],
    half_star_sums: Int[np.ndarray, "users genres"],
    rule: LabelRule = PAPER,
) -> tuple[Float64[np.ndarray, "users genres"], Float64[np.ndarray, "users genres"]]:
    """Returns the margin of every genre as liked, and as disliked.

    Args:
        counts: how often each genre occurs in a user's history.
        half_star_sums: the sum of the genre's ratings, in half-stars.
        rule: what the labels were made by.

    Returns:
        In stars; minus infinity where a genre does not count.
    """
    means = half_star_sums / np.maximum(counts, 1) / HALF_STARS_PER_STAR
    enough = counts >= rule.min_count
    return (
        _above(np.where(enough, means, -_INFINITE), rule.liked_above, rule.most),
        _above(np.where(enough, -means, -_INFINITE), -rule.disliked_below, rule.most),
    )


def _above(
    scores: Float64[np.ndarray, "users genres"], threshold: float, most: int
) -> Float64[np.ndarray, "users genres"]:
    """Returns how far scores are above what they must beat to be among the first ones."""
    ranked = -np.sort(-scores, axis=1)
    beyond = np.full((len(scores), most + 1), -_INFINITE)
    ranked = np.concatenate([ranked, beyond], axis=1)
    last, next_one = ranked[:, most - 1, None], ranked[:, most, None]
    # What is among the first must beat the next one; what is not, the last of them.
    to_beat = np.where(scores >= last, next_one, last)
    return scores - np.maximum(to_beat, threshold)


def _said(
    predictions: Mapping[str, Sequence[Taste | None]], genres: Sequence[str]
) -> dict[str, Bool[np.ndarray, "users kinds genres"]]:
    return {name: metrics.by_kind(tastes, genres) for name, tastes in predictions.items()}


def _groups(
    kind: str,
    values: Float[np.ndarray, "users genres"] | Int[np.ndarray, "users genres"],
    edges: Sequence[int | float],
    chosen: Bool[np.ndarray, "users genres"],
    said: Mapping[str, Bool[np.ndarray, "users kinds genres"]],
    index: int,
) -> list[Group]:
    groups = []
    for low, high in itertools.pairwise(edges):
        within = chosen & (values >= low) & (values < high)
        number = int(within.sum())
        shares = {
            name: float(of[:, index][within].sum() / max(number, 1)) for name, of in said.items()
        }
        ends = (None if np.isinf(end) else end for end in (low, high))
        groups.append(Group(kind, *ends, number, shares))
    return groups
