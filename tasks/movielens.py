"""The MovieLens genre tasks: which genres a user likes and does not like, from rated movies.

`movielens_genres_uem_{p}` and `movielens_genres_text_{p}` are the tasks of `histories`, by the
names that they have in the paper's recipes.
"""

from uem_t5x.inputs import history_sampling
from uem_t5x.tasks import histories

_CALLED = "movielens_genres"


def uem_task(history_length: int, sampling: str = history_sampling.RECENT) -> str:
    """Returns the name of `movielens_genres_uem_{p}`; see `histories.uem_task`."""
    return histories.uem_task(history_length, sampling, _CALLED)


def text_task(history_length: int, sampling: str = history_sampling.RECENT) -> str:
    """Returns the name of `movielens_genres_text_{p}`; see `histories.text_task`."""
    return histories.text_task(history_length, sampling, _CALLED)


histories.register(_CALLED)
