"""What a model is measured against: two ways to answer without one.

`counting` is the paper's baseline. `rule` applies the label rule to what the model sees: with the
p most recent items it is the information limit at p, and a model's score misleads without it.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from uem_t5x.tastes import labels
from uem_t5x.tastes.labels import NO_GENRE, PAPER, LabelRule
from uem_t5x.tastes.metrics import Taste


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of a split: their histories end to end, and their labels.

    Attributes:
        ids: their `user_id`.
        items: rows of the movie table, each user's oldest first.
        half_stars: the ratings of the items, 1..10.
        offsets: where each user's history starts, and last the end.
        tastes: the liked and the disliked genres of each user, from the whole history; empty where
            questions are asked.
        questions: what is asked of each, if anything of its own.
        answers: what is true; an empty text where that is not known.
    """

    ids: list[str]
    items: Int32[np.ndarray, " ratings"]
    half_stars: Int32[np.ndarray, " ratings"]
    offsets: Int64[np.ndarray, " users_and_1"]
    tastes: list[Taste]
    questions: Sequence[str] = ()
    answers: Sequence[str] = ()

    def most_recent(self, items_read: int | Int64[np.ndarray, " users"]) -> "Users":
        """Returns the same users with only the most recent items of each.

        Args:
            items_read: how many; one number for all, or one for each.
        """
        lengths = np.diff(self.offsets)
        kept_lengths = np.minimum(lengths, items_read)
        from_end = np.repeat(self.offsets[1:], lengths) - np.arange(len(self.items))
        kept = from_end <= np.repeat(kept_lengths, lengths)
        return dataclasses.replace(
            self,
            items=self.items[kept],
            half_stars=self.half_stars[kept],
            offsets=np.cumsum([0, *kept_lengths], dtype=np.int64),
        )

    def reading(
        self,
        items: Int32[np.ndarray, " items"],
        half_stars: Int32[np.ndarray, " items"],
        items_read: Int64[np.ndarray, " users"],
    ) -> "Users":
        """Returns the same users with other histories, such as the parts that a model read.

        Args:
            items: of all users, end to end.
            half_stars: their ratings.
            items_read: how many of them each user has.
        """
        offsets = np.cumsum([0, *items_read], dtype=np.int64)
        return dataclasses.replace(self, items=items, half_stars=half_stars, offsets=offsets)

    def history(self, user: int) -> tuple[Int32[np.ndarray, " items"], Int32[np.ndarray, " items"]]:
        """Returns the items and half-stars of a user, oldest first."""
        own = slice(self.offsets[user], self.offsets[user + 1])
        return self.items[own], self.half_stars[own]

    def genre_statistics(
        self, genre_matrix: UInt8[np.ndarray, "rows genres"]
    ) -> tuple[Int64[np.ndarray, "users genres"], Int64[np.ndarray, "users genres"]]:
        """Returns how often each genre occurs in a history, and its sum of half-stars.

        Args:
            genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere; row 0 is 0.
        """
        return labels.genre_statistics(genre_matrix, self.items, self.half_stars, self.offsets)


def counting(
    users: Users,
    genre_matrix: UInt8[np.ndarray, "rows genres"],
    genres: Sequence[str],
    most: int = PAPER.most,
) -> list[Taste]:
    """Predicts that a user likes the few genres that occur most, and dislikes none.

    Args:
        users: with the histories to count in: whole in the paper.
        genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere; row 0 is 0.
        genres: the names of its columns.
        most: how many.

    Returns:
        A taste for each user; genres that occur equally often in genre order.
    """
    counts, _ = users.genre_statistics(genre_matrix)
    first = np.argsort(-counts, axis=-1, kind="stable")[:, :most]
    liked = np.where(np.take_along_axis(counts, first, axis=-1) > 0, first, NO_GENRE)
    return _tastes(genres, liked, np.full_like(liked, NO_GENRE))


def rule(
    users: Users,
    genre_matrix: UInt8[np.ndarray, "rows genres"],
    genres: Sequence[str],
    numbers: LabelRule = PAPER,
) -> list[Taste]:
    """Predicts what the label rule says.

    Args:
        users: with the histories to label: `users.most_recent(p)` for the limit at p, or what a
            model read of them.
        genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere; row 0 is 0.
        genres: the names of its columns.
        numbers: of the rule.

    Returns:
        A taste for each user.
    """
    return _tastes(genres, *labels.label_genres(*users.genre_statistics(genre_matrix), numbers))


def _tastes(
    genres: Sequence[str],
    liked: Int64[np.ndarray, "users labels"] | Int32[np.ndarray, "users labels"],
    disliked: Int64[np.ndarray, "users labels"] | Int32[np.ndarray, "users labels"],
) -> list[Taste]:
    names = functools.partial(labels.names, genres)
    return [(names(likes), names(dislikes)) for likes, dislikes in zip(liked, disliked)]
