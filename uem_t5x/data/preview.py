"""What a source would make of its data, shown of some of them before any work is begun."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from etils import epath

from uem_t5x.data import dataset_folder, source_files, source_joining
from uem_t5x.data.histories import Histories
from uem_t5x.tastes import sentences, verbalizer

_ENOUGH = 100_000  # interactions
_ITEMS = 5  # of a history that are shown


@dataclasses.dataclass(frozen=True)
class Preview:
    """An item, a history and an example.

    Attributes:
        files: that were read.
        item: its columns.
        sentences: about the item and its rating, by channel.
        history: the last items of a user: their value, half-stars and title.
        length: of the whole history, as far as it was read.
        question: that is asked of it.
        answer: that is learned.
        classes: all that were found.
        worth: how many half-stars each value is that was found.
    """

    files: Sequence[str]
    item: Mapping[str, Any]
    sentences: Mapping[str, str]
    history: Sequence[tuple[str, int, str]]
    length: int
    question: str
    answer: str
    classes: Sequence[str]
    worth: Mapping[str, int]


def preview(named: str, path: epath.PathLike) -> Preview:
    """Reads all items and some interactions of a source.

    Args:
        named: a preset, or a TOML file.
        path: the folder or zip file that the files lie in.

    Raises:
        InputError: if the source or what was read of the data is refused.
    """
    source = source_files.read_source(named)
    telling = source.telling
    # Questions may be of users whose interactions come last.
    enough = None if source.telling.has_questions else _ENOUGH
    joined = source_joining.read_source(source, path, 1, enough=enough)
    histories = Histories.from_ratings(pl.concat(joined.ratings))
    longest = int((histories.bounds[1:] - histories.bounds[:-1]).argmax())
    history = slice(histories.bounds[longest], histories.bounds[longest + 1])
    rows, half_stars = histories.items[history], histories.half_stars[history]
    titles = joined.movies["title"]
    last = joined.movies[int(rows[-1]) : int(rows[-1]) + 1]
    classes = tuple(sorted(joined.movies["genres"].explode().drop_nulls().unique()))
    if joined.asked is None:
        matrix = dataset_folder.genre_matrix(joined.movies, classes)
        labels = histories.label(matrix, classes, telling.rule)
        question = telling.question
        answer = verbalizer.write_answer(*labels.names(longest), telling.wording)
    else:
        asked = joined.asked.row(longest, named=True)
        question, answer = asked["question"], asked["answer"]
    told = {
        name: telling.rating_sentences(template)[half_stars[-1]]
        if sentences.is_of_rating(template)
        else dataset_folder.item_sentences(last, template)[0]
        for name, template in telling.sentences.items()
    }
    shown = zip(rows[-_ITEMS:].tolist(), half_stars[-_ITEMS:].tolist())
    return Preview(
        files=list(joined.sha256),
        item=last.drop("row").rename({"movieId": "id", "genres": "classes"}).row(0, named=True),
        sentences=told,
        history=[(telling.scale.value(stars), stars, titles[row]) for row, stars in shown],
        length=len(rows),
        question=question,
        answer=answer,
        classes=classes,
        worth=joined.worth,
    )
