"""Writes the examples of all splits, from histories that come part by part."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from uem_t5x.base import progress, startup
from uem_t5x.data import dataset_folder
from uem_t5x.data.histories import Answers, Histories, HistoryLabels
from uem_t5x.data.joining import Joined
from uem_t5x.data.manifest import Split
from uem_t5x.data.splits import TRAIN
from uem_t5x.tastes.telling import Telling


def write(
    folder: Path,
    joined: Joined,
    genres: tuple[str, ...],
    users: Mapping[str, Int64[np.ndarray, " split"]],
    telling: Telling,
    start: progress.Start,
) -> tuple[dict[str, Split], dict[str, float]]:
    """Writes all examples, and by how many users of training each item was rated.

    Returns:
        What the manifest says of the splits, and counts of what was written.
    """
    # TensorFlow takes seconds to import; what can be refused has been refused by now.
    startup.load("uem_t5x.data.examples")
    from uem_t5x.data.examples import ExampleWriter

    advance = start("writing users", sum(map(len, users.values())))
    writers = {
        name: ExampleWriter(folder, name, len(users[name])) for name in dataset_folder.SPLITS
    }
    rated = np.zeros(joined.movies.height, np.int64)
    matrix = dataset_folder.genre_matrix(joined.movies, genres)
    tally = Tally()
    first = 0
    for ratings in joined.ratings:
        histories = Histories.from_ratings(ratings)
        end = first + len(histories.user_ids)
        if joined.asked is None:
            targets = histories.label(matrix, genres, telling.rule)
        else:
            of_part = joined.asked[first:end]
            targets = Answers(of_part["question"].to_list(), of_part["answer"].to_list())
        tally.add(histories, targets)
        for name, writer in writers.items():
            low, high = np.searchsorted(users[name], [first, end])
            own = users[name][low:high] - first
            writer.write(own, histories, targets)
            advance(len(own))
            if name == TRAIN:
                rated += _rating_counts(histories.of(own), joined, own + first)
        first = end
    for writer in writers.values():
        writer.close()
    dataset_folder.write_rating_counts(folder, rated)
    return {name: writer.record for name, writer in writers.items()}, tally.counts()


def _rating_counts(
    histories: Histories, joined: Joined, places: Int64[np.ndarray, " some"]
) -> Int64[np.ndarray, " rows"]:
    """Returns how many users rated each item, who may have several of the histories."""
    rows = joined.movies.height
    if joined.asked is None:
        return np.bincount(histories.items, minlength=rows)
    users = joined.asked["user"].to_numpy()[places]
    pairs = np.repeat(users, np.diff(histories.bounds)) * rows + histories.items
    return np.bincount(np.unique(pairs) % rows, minlength=rows)


class Tally:
    """Counts what is written, for the manifest; several can be added up.

    Attributes:
        lengths: how many histories have so many items.
        labels: of all users.
        without_disliked: how many users dislike nothing.
        is_of_labels: whether there are any.
    """

    def __init__(self) -> None:
        self.lengths: collections.Counter[int] = collections.Counter()
        self.labels, self.without_disliked, self.is_of_labels = 0, 0, False

    def add(self, histories: Histories, targets: HistoryLabels | Answers) -> None:
        """Counts some histories."""
        values, counts = np.unique(np.diff(histories.bounds), return_counts=True)
        self.lengths.update(dict(zip(values.tolist(), counts.tolist())))
        if isinstance(targets, HistoryLabels):
            self.is_of_labels = True
            disliked = np.sum(targets.disliked >= 0, axis=1)
            self.labels += int(np.sum(targets.liked >= 0) + np.sum(disliked))
            self.without_disliked += int(np.sum(disliked == 0))

    def update(self, other: "Tally") -> None:
        """Adds another one."""
        self.lengths.update(other.lengths)
        self.labels += other.labels
        self.without_disliked += other.without_disliked
        self.is_of_labels |= other.is_of_labels

    def counts(self) -> dict[str, float]:
        """Returns the counts of all."""
        lengths = sorted(self.lengths)
        until = np.cumsum([self.lengths[length] for length in lengths])
        middle = np.searchsorted(until, [(until[-1] - 1) // 2, until[-1] // 2], side="right")
        median = float(np.mean([lengths[place] for place in middle]))
        counts: dict[str, float] = {"median_history": median}
        if self.is_of_labels:
            counts["labels_per_user"] = self.labels / int(until[-1])
            counts["users_without_disliked"] = self.without_disliked
        return counts


def labels_of(
    users: Int64[np.ndarray, " some"], joined: Joined, genres: tuple[str, ...], telling: Telling
) -> Iterator[tuple[list[str], list[str]]]:
    """Yields what some users like and dislike."""
    matrix = dataset_folder.genre_matrix(joined.movies, genres)
    first = 0
    for ratings in joined.ratings:
        histories = Histories.from_ratings(ratings)
        end = first + len(histories.user_ids)
        low, high = np.searchsorted(users, [first, end])
        some = histories.of(users[low:high] - first)
        labels = some.label(matrix, genres, telling.rule)
        yield from (labels.names(user) for user in range(high - low))
        if high == len(users):
            return
        first = end
