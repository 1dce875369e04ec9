"""Users of a split, and what a model answered each: what scores are made of."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.tastes.baselines import Users
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

_SHOWN_USERS, _SHOWN_ITEMS = 6, 10


@dataclasses.dataclass(frozen=True)
class Answered:
    """Users and answers.

    Attributes:
      folder: the dataset folder.
      users: of a split, with their whole histories.
      as_read: the same, with no more than the model read.
      answers: of each, as it was written.
    """

    folder: DatasetFolder
    users: Users
    as_read: Users
    answers: Sequence[str]

    @property
    def items_read(self) -> Int64[np.ndarray, " users"]:
        """How many items the model read of each."""
        return np.diff(self.as_read.offsets)


def some_users(
    answered: Answered, scores: Sequence[float], facts: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Shows users, evenly from the worst answered to the best.

    Args:
      answered: all of them.
      scores: how well each is answered.
      facts: what else is shown of each.

    Returns:
      For each its `user_id`, how many `items` it has, the `recent` ones, and its facts.
    """
    order = np.argsort(scores, kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(_SHOWN_USERS, len(order))).astype(int)]
    movies = answered.folder.movies()
    rows = []
    for user in shown.tolist():
        items, half_stars = answered.users.history(user)
        recent = zip(items[-_SHOWN_ITEMS:].tolist(), half_stars[-_SHOWN_ITEMS:].tolist())
        rows.append(
            {
                "user_id": answered.users.ids[user],
                "items": len(items),
                "recent": [
                    {
                        "title": movies["title"][row],
                        "genres": movies["genres"][row].to_list(),
                        "stars": stars / HALF_STARS_PER_STAR,
                    }
                    for row, stars in recent
                ],
                **facts[user],
            }
        )
    return rows
