"""The sentences that stand for a history item, and the question that is asked of a history.

A *template* is a sentence with names of columns in braces: `The movie {title} is listed with genres
{classes}`. Those of MovieLens are the paper's (arXiv 2401.04858).
"""

import functools
import string
from collections.abc import Mapping, Sequence

from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR, RatingScale

INSTRUCTION = "Which genres does this user like most, and which does this user not like?"
# By the names of the channels that they are encoded to.
OF_MOVIES = {
    "title_genres": "The movie {title} is listed with genres {classes}",
    "rating": "The movie is rated with {stars} stars",
    "description": "{description}",
}
# What a template of a rating names: stars, and the value on the scale of the data.
STARS, VALUE = "stars", "value"


def names(template: str) -> list[str]:
    """Returns the names in a template, in order.

    Raises:
        ValueError: if a brace is never closed or opened, or stands around no name.
    """
    return [name for _, name in _parse(template) if name is not None]


def is_of_rating(template: str) -> bool:
    """Whether a template is over ratings, and not over items."""
    return bool(found := set(names(template))) and found <= {STARS, VALUE}


def write(template: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Returns a sentence of a template; lists are joined by commas."""
    parts = []
    for text, name in _parse(template):
        value = "" if name is None else values[name]
        parts += [text, value if isinstance(value, str) else ", ".join(value)]
    return "".join(parts)


def write_rating(template: str, half_stars: int, scale: RatingScale) -> str:
    """Returns a sentence about a rating, e.g. `The movie is rated with 4.5 stars`."""
    stars = f"{half_stars / HALF_STARS_PER_STAR:g}"
    return write(template, {STARS: stars, VALUE: scale.value(half_stars) if half_stars else "0"})


@functools.lru_cache(maxsize=64)
def _parse(template: str) -> list[tuple[str, str | None]]:
    """Returns what stands before each name, and the name; None where no other one follows."""
    parts = []
    for text, name, form, conversion in string.Formatter().parse(template):
        if name is not None and (not name.strip() or form or conversion):
            raise ValueError(f"{template!r}: needs a name between its braces, as {{title}}")
        parts.append((text, name))
    return parts
