"""The sentences that stand for a history item (arXiv 2401.04858); the third is its description."""

from collections.abc import Sequence

from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

TITLE_GENRES, RATING, DESCRIPTION = OF_ITEMS = ("title_genres", "rating", "description")

INSTRUCTION = "Which genres does this user like most, and which does this user not like?"


def title_genres_sentence(title: str, genres: Sequence[str]) -> str:
    """Returns e.g. `The movie Heat (1995) is listed with genres Action, Crime`."""
    return f"The movie {title} is listed with genres {', '.join(genres)}"


def rating_sentence(half_stars: int) -> str:
    """Returns e.g. `The movie is rated with 4.5 stars` for 9 half-stars."""
    return f"The movie is rated with {half_stars / HALF_STARS_PER_STAR:g} stars"
