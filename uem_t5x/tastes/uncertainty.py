"""How far a weighted F1 is to be trusted, given the users that it was measured on.

The bootstrap (Efron and Tibshirani 1993, chapters 6 and 13): as many users are drawn again and
again, with replacement, from those that were scored, and each draw is scored. The middle 95 % of
these scores are the interval. It tells how much the score owes to these users; what it owes to the
seed of the training, runs with other seeds tell.

Draws are the same for the same number of users. So the scores of two models on the same users are
paired, draw by draw: their differences vary much less than either score does.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, Shaped

from uem_t5x.base.errors import InputError
from uem_t5x.tastes import metrics
from uem_t5x.tastes.metrics import KINDS, Taste

# The scores that have an interval, by the classes that they are over.
F1S = ("f1", *(f"{kind}_f1" for kind in KINDS))
_RESAMPLES = 2000
_AT_ONCE = 100  # a draw has a number for every user
_OUTSIDE_PERCENT = 2.5  # on either side
_LIKED, _DISLIKED, _BOTH, _NEITHER = "+-*."

# The F1 of every draw, by its name.
Resampled: TypeAlias = Mapping[str, Float64[np.ndarray, " resamples"]]


class Interval(NamedTuple):
    """Where 95 % of the draws lie."""

    low: float
    high: float


class Marks(NamedTuple):
    """What was said of every user, and what is true, as it is written to `metrics.json`.

    Attributes:
        genres: the class names.
        true: for each user a text of one character a genre: `+` liked, `-` disliked, `.` neither.
        said: the same of the model's answers; `*` is both, None an answer that cannot be read.
    """

    genres: Sequence[str]
    true: Sequence[str]
    said: Sequence[str | None]

    @classmethod
    def of(
        cls, targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
    ) -> "Marks":
        """Writes down tastes."""
        true, said = ([_marks(taste, genres) for taste in them] for them in (targets, predictions))
        return cls(list(genres), true, said)

    def tastes(self) -> tuple[list[Taste], list[Taste | None]]:
        """Returns the true tastes, and what was said.

        Raises:
            ValueError: if the marks are not those of as many users, or of as many genres.
        """
        pairs = zip(self.true, self.said, strict=True)
        read = [tuple(_taste(marks, self.genres) for marks in pair) for pair in pairs]
        return [true for true, _ in read], [said for _, said in read]

    def resampled(self) -> Resampled:
        """Returns the F1s of every draw of these users."""
        return resample(*self.tastes(), self.genres)


def _marks(taste: Taste | None, genres: Sequence[str]) -> str | None:
    if taste is None:
        return None
    liked, disliked = taste
    marks = {
        (True, False): _LIKED,
        (False, True): _DISLIKED,
        (True, True): _BOTH,
        (False, False): _NEITHER,
    }
    return "".join(marks[genre in liked, genre in disliked] for genre in genres)


def _taste(marks: str | None, genres: Sequence[str]) -> Taste | None:
    if marks is None:
        return None
    marked = list(zip(genres, marks, strict=True))
    liked, disliked = (
        [genre for genre, mark in marked if mark in (side, _BOTH)] for side in (_LIKED, _DISLIKED)
    )
    return liked, disliked


def resample(
    targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
) -> Resampled:
    """Returns the F1s of every draw of the users.

    Args:
        targets: the true taste of each user.
        predictions: the predicted one; None where an answer could not be read.
        genres: the class names.
    """
    truth, said = (metrics.indicators(tastes, genres) for tastes in (targets, predictions))
    counted = np.concatenate([truth & said, truth, said], axis=1)
    right, true, stated = np.split(sums_of_draws(counted), 3, axis=1)
    f1 = 2 * right / np.maximum(true + stated, 1)
    half = len(genres)
    columns = dict(zip(F1S, (slice(None), slice(half), slice(half, None))))
    return {name: _weighted(f1[:, own], true[:, own]) for name, own in columns.items()}


def sums_of_draws(
    counted: Shaped[np.ndarray, "users sums"],
) -> Float64[np.ndarray, "resamples sums"]:
    """Returns, for every draw of the users, the sums of what is counted of each.

    Args:
        counted: numbers or truth values, of each user.
    """
    # In float32, whose whole numbers are exact up to 2**24 users, products of matrices are fast.
    dtype = np.float32 if counted.dtype == bool else np.float64
    users, rng = len(counted), np.random.default_rng(0)
    shares, counted = np.full(users, 1 / users), counted.astype(dtype)
    parts = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        times = rng.multinomial(users, shares, size=_AT_ONCE).astype(dtype)
        parts.append((times @ counted).astype(np.float64))
    return np.concatenate(parts)


def _weighted(
    f1: Float[np.ndarray, "resamples classes"], support: Float[np.ndarray, "resamples classes"]
) -> Float64[np.ndarray, " resamples"]:
    return np.sum(f1 * support, axis=1) / np.maximum(np.sum(support, axis=1), 1)


def interval(draws: Float64[np.ndarray, " resamples"]) -> Interval:
    """Returns where 95 % of the draws of a score, or of a difference of two, lie."""
    outside = _OUTSIDE_PERCENT
    return Interval(*np.percentile(draws, [outside, 100 - outside]).tolist())


def intervals(
    targets: Sequence[Taste], predictions: Sequence[Taste | None], genres: Sequence[str]
) -> dict[str, Interval]:
    """Returns the interval of each of `F1S`; see `resample`."""
    drawn = resample(targets, predictions, genres)
    return {name: interval(draws) for name, draws in drawn.items()}


def check_same_users(ours: Marks, theirs: Marks, where: str) -> None:
    """Refuses to compare models on different users.

    Args:
        ours: of one model.
        theirs: of the other.
        where: the file that holds the other's scores.

    Raises:
        InputError: if genres or true tastes differ.
    """
    if list(ours.genres) != list(theirs.genres) or list(ours.true) != list(theirs.true):
        raise InputError(
            f"{where}: scores on other users, or other labels, so that nothing can be paired; "
            "score both models on the same split of the same dataset folder"
        )
