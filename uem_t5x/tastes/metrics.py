"""Weighted precision, recall and F1 over the genre classes (arXiv 2401.04858, section "Task").

Liked and disliked genres are two multi-label problems over the same classes. *Both together* sets
them side by side, as twice as many classes: liking a genre and disliking it are different answers.
A class weighs as much as users have it as their label.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int64
from sklearn.metrics import precision_recall_fscore_support

# The liked and the disliked genres of a user.
Taste: TypeAlias = tuple[Sequence[str], Sequence[str]]

KINDS = ("liked", "disliked")
_STANCES = (*KINDS, "neither")


@dataclasses.dataclass(frozen=True)
class GenreScore:
    """How one genre is predicted, as liked or as disliked.

    Attributes:
        genre: its name.
        kind: `liked` or `disliked`.
        precision: right predictions over predictions; 0 without any.
        recall: right predictions over users who have the label; 0 without any.
        f1: harmonic mean of the two.
        support: number of users who have the label.
    """

    genre: str
    kind: str
    precision: float
    recall: float
    f1: float
    support: int


def score(
    targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
) -> dict[str, float]:
    """Scores predicted tastes.

    Args:
        targets: the true taste of each user.
        predictions: the predicted one; None where an answer could not be read, which counts as no
            genre at all.
        genres: the class names.

    Returns:
        `f1`, `precision` and `recall` of both kinds together, the same with `liked_` and
        `disliked_` before it, each in 0..1 and weighted by class support, and `unparseable`, the
        share of answers that could not be read.
    """
    truth = indicators(targets, genres)
    predicted = indicators(predictions, genres)
    columns = range(len(KINDS) * len(genres))
    kinds = {"": columns, "liked_": columns[: len(genres)], "disliked_": columns[len(genres) :]}
    scores = {}
    for prefix, classes in kinds.items():
        # Not as columns cut out: a single one would be scored for True and for False.
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, labels=list(classes), average="weighted", zero_division=0
        )
        scores |= {f"{prefix}f1": f1, f"{prefix}precision": precision, f"{prefix}recall": recall}
    scores["unparseable"] = sum(taste is None for taste in predictions) / max(len(predictions), 1)
    return {name: float(value) for name, value in scores.items()}


def per_genre(
    targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
) -> list[GenreScore]:
    """Scores each genre by itself: a row for each as liked, then one for each as disliked."""
    columns = precision_recall_fscore_support(
        indicators(targets, genres),
        indicators(predictions, genres),
        average=None,
        zero_division=0,
    )
    names = [(genre, kind) for kind in KINDS for genre in genres]
    return [
        GenreScore(genre, kind, float(precision), float(recall), float(f1), int(support))
        for (genre, kind), precision, recall, f1, support in zip(names, *columns)
    ]


def confusion(
    targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Counts, over all users and genres, what a genre is to a user and what it was said to be.

    An answer that could not be read has said of no genre that it is liked or disliked.

    Returns:
        Counts by truth and then by prediction, each `liked`, `disliked` or `neither`.
    """
    truth, predicted = (_stances(tastes, genres) for tastes in (targets, predictions))
    counts = np.zeros((len(_STANCES), len(_STANCES)), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return {name: dict(zip(_STANCES, row.tolist())) for name, row in zip(_STANCES, counts)}


def _stances(
    tastes: Sequence[Taste | None], genres: Sequence[str]
) -> Int64[np.ndarray, "users genres"]:
    """Returns for each genre an index of `_STANCES`."""
    marked = by_kind(tastes, genres)
    return np.where(marked.any(axis=1), marked.argmax(axis=1), _STANCES.index("neither"))


def user_f1(target: Taste, prediction: Taste | None) -> float:
    """Returns the F1 of one user's genres, both kinds together.

    It is 1 where there is nothing to say and the answer says so, and 0 for an answer that could not
    be read (None), whatever there is to say.
    """
    if prediction is None:
        return 0.0
    said, true = (
        {(kind, genre) for kind, names in zip(KINDS, taste) for genre in names}
        for taste in (prediction, target)
    )
    return 2 * len(said & true) / (len(said) + len(true)) if said or true else 1.0


def mean_scores(of_tasks: Iterable[Mapping[str, int | float]]) -> dict[str, float]:
    """Returns each score's mean over the tasks of a mixture that have it; most often one task.

    Where that of one task is not a number, neither is the mean: that of the others would compare
    with no other step's.

    Args:
        of_tasks: the scores of each task, by name.
    """
    by_name: dict[str, list[float]] = {}
    for scores in of_tasks:
        for name, value in scores.items():
            by_name.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in by_name.items()}


def indicators(
    tastes: Sequence[Taste | None], genres: Sequence[str]
) -> Bool[np.ndarray, "users classes"]:
    """Returns which genres are liked and, right of these columns, which are disliked."""
    return by_kind(tastes, genres).reshape(len(tastes), len(KINDS) * len(genres))


def by_kind(
    tastes: Sequence[Taste | None], genres: Sequence[str]
) -> Bool[np.ndarray, "users kinds genres"]:
    """Returns which genres are liked, and which are disliked.

    An answer that could not be read (None) says neither of any genre.
    """
    index = {genre: column for column, genre in enumerate(genres)}
    marked = np.zeros((len(tastes), len(KINDS), len(genres)), bool)
    for user, taste in enumerate(tastes):
        for kind, names in enumerate(taste or ()):
            marked[user, kind, [index[name] for name in names]] = True
    return marked
