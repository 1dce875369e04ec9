"""What names of classes, such as genres, may be, and when they are plainly lists of names."""

import collections
import itertools
from collections.abc import Collection

from uem_t5x.tastes import verbalizer

# MovieLens has 19 genres. Every user and item gets a number for each, and every answer is searched
# for each, letter by letter.
MOST = 1000
MOST_LETTERS = 100
# A list as Python or JSON writes it.
LIST = r"(?s)^\s*(?:\[.*\]|\{.*\})\s*$"


def first_list(names: Collection[str], separator: str) -> str | None:
    """Returns the first name whose parts all occur in other names, too; None if there is none."""
    parts = {
        name: {verbalizer.normalize(part) for part in name.split(separator)} - {""}
        for name in names
    }
    occurrences = collections.Counter(itertools.chain.from_iterable(parts.values()))
    return next(
        (
            name
            for name, its in parts.items()
            if len(its) > 1 and all(occurrences[part] > 1 for part in its)
        ),
        None,
    )
