"""The rating histories of all users, as flat arrays."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64, Shaped, UInt8

from uem_t5x.tastes import labels

_CELLS_AT_A_TIME = 4_000_000  # of users by genres; some 100 bytes each


@dataclasses.dataclass(frozen=True)
class HistoryLabels:
    """What the label rule says of every user; see `labels.label_genres`.

    Attributes:
        genres: the class names, which the labels index.
        liked: best first, padded with `labels.NO_GENRE`.
        disliked: worst first, padded likewise.
    """

    genres: tuple[str, ...]
    liked: Int32[np.ndarray, "users labels"]
    disliked: Int32[np.ndarray, "users labels"]

    def names(self, user: int | np.integer) -> tuple[list[str], list[str]]:
        """Returns the liked and the disliked genres of one user."""
        liked, disliked = (
            labels.names(self.genres, side[user]) for side in (self.liked, self.disliked)
        )
        return liked, disliked

    def features(self, user: int | np.integer) -> dict[str, list[str]]:
        """Returns what an example has of it."""
        liked, disliked = self.names(user)
        return {"liked": liked, "disliked": disliked}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is asked about every history, and what is true.

    Attributes:
        questions: of each.
        answers: of each; empty where it is not known.
    """

    questions: Sequence[str]
    answers: Sequence[str]

    def features(self, user: int | np.integer) -> dict[str, list[str]]:
        """Returns what an example has of it."""
        return {"question": [self.questions[user]], "answer": [self.answers[user]]}


@dataclasses.dataclass(frozen=True)
class Histories:
    """Every user's history, one after the other.

    Attributes:
        user_ids: of the users, integers or texts, increasing.
        bounds: user `u`'s history is `items[bounds[u]:bounds[u + 1]]`.
        items: rows of the movie table, in time order within a user.
        half_stars: the ratings of the items, 1 to 10.
    """

    user_ids: Shaped[np.ndarray, " users"]
    bounds: Int64[np.ndarray, " bounds"]
    items: Int32[np.ndarray, " ratings"]
    half_stars: UInt8[np.ndarray, " ratings"]

    @classmethod
    def from_ratings(cls, ratings: pl.DataFrame) -> "Histories":
        """Builds histories.

        Args:
            ratings: a frame of `userId`, `row` and `half_stars`, by user and in time order.
        """
        lengths = ratings.select(pl.col("userId").rle()).unnest("userId")
        return cls(
            user_ids=lengths["value"].to_numpy(),
            bounds=np.concatenate([[0], np.cumsum(lengths["len"].to_numpy(), dtype=np.int64)]),
            items=ratings["row"].to_numpy(),
            half_stars=ratings["half_stars"].to_numpy(),
        )

    def label(
        self,
        genre_matrix: UInt8[np.ndarray, "rows genres"],
        genres: tuple[str, ...],
        rule: labels.LabelRule = labels.PAPER,
    ) -> HistoryLabels:
        """Applies the label rule to each user's whole history.

        Args:
            genre_matrix: 1 where the movie of a row has the genre, 0 elsewhere.
            genres: the names of its columns.
            rule: its numbers.
        """
        at_once = max(_CELLS_AT_A_TIME // max(len(genres), 1), 1)
        liked, disliked = [], []
        for first in range(0, max(len(self.user_ids), 1), at_once):
            bounds = self.bounds[first : first + at_once + 1]
            own = slice(bounds[0], bounds[-1])
            items, half_stars = self.items[own], self.half_stars[own]
            statistics = labels.genre_statistics(
                genre_matrix, items, half_stars, bounds - bounds[0]
            )
            of_these = labels.label_genres(*statistics, rule)
            liked.append(of_these[0])
            disliked.append(of_these[1])
        return HistoryLabels(genres, np.concatenate(liked), np.concatenate(disliked))

    def of(self, users: Int64[np.ndarray, " some"]) -> "Histories":
        """Returns the histories of some users, in increasing order."""
        is_chosen = np.zeros(len(self.user_ids), bool)
        is_chosen[users] = True
        lengths = np.diff(self.bounds)
        of_chosen = np.repeat(is_chosen, lengths)
        return Histories(
            user_ids=self.user_ids[users],
            bounds=np.concatenate([[0], np.cumsum(lengths[users], dtype=np.int64)]),
            items=self.items[of_chosen],
            half_stars=self.half_stars[of_chosen],
        )
