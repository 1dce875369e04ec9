"""Joins questions to histories: of each the items from before it was asked, and no later one."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64

_ITEMS_AT_A_TIME = 4_000_000  # of all histories; some 100 bytes each


class Asked(NamedTuple):
    """Questions about enough items.

    Attributes:
        histories: `userId`, which is the question's id, `row` and `half_stars`, oldest first.
        questions: those questions, in the same order.
        used: the places of the ratings that are in any of the histories.
        seen: those, and others of the same items, which were rated again before the question.
    """

    histories: pl.DataFrame
    questions: pl.DataFrame
    used: Int64[np.ndarray, " used"]
    seen: Int64[np.ndarray, " seen"]


def ask(ratings: pl.DataFrame, questions: pl.DataFrame, min_history: int) -> Iterator[Asked]:
    """Yields questions with their histories, some users at a time, in order.

    Of an item that was rated several times before a question the newest rating counts. What was
    rated in the moment in which a question was asked is not from before it.

    Args:
        ratings: `userId`, `row`, `half_stars` and `timestamp`, by user and in time order, each
            rating, though the item was rated again.
        questions: `userId`, `id`, `timestamp` (null: the whole history) and whatever else there is,
            by user.
        min_history: questions about fewer items are left out.
    """
    lengths = ratings.select(pl.col("userId").rle()).unnest("userId")
    bounds = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy(), dtype=np.int64)])
    users = lengths.select(userId="value", place=pl.int_range(pl.len(), dtype=pl.Int64))
    questions = questions.join(users, on="userId", maintain_order="left")
    place = questions["place"].to_numpy()
    before = _ratings_before(
        np.repeat(np.arange(users.height), np.diff(bounds)),
        ratings["timestamp"].to_numpy(),
        place,
        questions["timestamp"].fill_null(0).to_numpy(),
    )
    starts = bounds[place]
    ends = np.where(questions["timestamp"].is_null().to_numpy(), bounds[place + 1], before)
    questions = questions.drop("place")
    rows = ratings["row"].to_numpy()
    # All questions of a user come at once.
    items = np.cumsum(ends - starts) - (ends - starts)
    chunks = items[np.searchsorted(place, place)] // _ITEMS_AT_A_TIME
    for chunk in np.unique(chunks):
        first, last = np.searchsorted(chunks, [chunk, chunk + 1])
        at, question = _spread(starts[first:last], ends[first:last])
        seen = np.unique(at)
        newest = _newest(question, rows[at])
        at, question = at[newest], question[newest]
        is_asked = np.bincount(question, minlength=last - first) >= max(min_history, 1)
        at, question = at[is_asked[question]], question[is_asked[question]]
        asked = questions[int(first) : int(last)]
        histories = ratings[at].select(
            pl.Series("userId", asked["id"].gather(question)), "row", "half_stars"
        )
        yield Asked(histories, asked.filter(is_asked), np.unique(at), seen)


def _ratings_before(
    raters: Int64[np.ndarray, " ratings"],
    rated_at: Int64[np.ndarray, " ratings"],
    askers: Int64[np.ndarray, " questions"],
    asked_at: Int64[np.ndarray, " questions"],
) -> Int64[np.ndarray, " questions"]:
    """Returns how many ratings stand before each question, of users and times in order."""
    is_rating = np.repeat([False, True], [len(askers), len(raters)])
    times = np.concatenate([asked_at, rated_at])
    # A question comes before what was rated in the same moment.
    order = np.lexsort((is_rating, times, np.concatenate([askers, raters])))
    before = np.empty(len(order), np.int64)
    before[order] = np.cumsum(is_rating[order])
    return before[: len(askers)]


def _spread(
    starts: Int64[np.ndarray, " questions"], ends: Int64[np.ndarray, " questions"]
) -> tuple[Int64[np.ndarray, " items"], Int64[np.ndarray, " items"]]:
    """Returns the places of all items from `starts` to `ends`, and whose each is."""
    lengths = ends - starts
    question = np.repeat(np.arange(len(lengths)), lengths)
    firsts = np.cumsum(lengths) - lengths
    return np.arange(len(question)) + (starts - firsts)[question], question


def _newest(
    question: Int64[np.ndarray, " items"], rows: np.ndarray
) -> Int64[np.ndarray, " newest"]:
    """Returns the last place of each item of a question, in order."""
    order = np.lexsort((rows, question))  # stable
    pairs = np.stack([question[order], rows[order]])
    is_last = np.append(np.any(pairs[:, 1:] != pairs[:, :-1], axis=0), True)[: len(order)]
    return np.sort(order[is_last])
