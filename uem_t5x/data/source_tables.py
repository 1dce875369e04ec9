"""The tables of a source, as far as they are read before they are joined."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import polars as pl
from etils import epath

from uem_t5x.base import progress
from uem_t5x.data import source_items, source_questions
from uem_t5x.data.source_interactions import Interactions
from uem_t5x.data.sources import Source


@runtime_checkable
class InteractionReader(Protocol):
    """What reads interactions part by part; see `source_interactions.Interactions`."""

    files: list[str]
    counts: Mapping[str, int]
    worth: Mapping[str, int]
    sha256: Mapping[str, str]
    shown: list[str]
    users_shown: list[str]

    def read(self, advance: progress.Advance) -> Iterator[pl.DataFrame]:
        """Yields `userId` and `movieId` (texts), `half_stars` and `timestamp`."""


@dataclasses.dataclass(frozen=True)
class SourceTables:
    """The tables of a source.

    Attributes:
        items: see `source_items.read`.
        repeated: how many rows of items were of ids that are listed before.
        interactions: reads them, and has counted when it has.
        questions: see `source_questions.read`; None if there are none.
        sha256: of the files that were read.
    """

    items: pl.DataFrame
    repeated: int
    interactions: InteractionReader
    questions: pl.DataFrame | None
    sha256: Mapping[str, str]


def read(
    source: Source, path: epath.PathLike, start: progress.Start, enough: int | None = None
) -> SourceTables:
    """Reads the items and questions of a source, and finds the files of its interactions.

    Args:
        source: what the tables are.
        path: the folder or zip file that they lie in.
        start: starts the display of progress.
        enough: no part of interactions is read once there are so many; None reads all.

    Raises:
        InputError: if a file is missing, or one that was read is refused.
    """
    assert source.interactions is not None
    # That one is missing should not be found out after the reading of the others.
    files = source_items.find(source, path)
    interactions = Interactions(path, source.interactions, source.telling.scale, enough)
    sha256: dict[str, str] = {}
    items, repeated = source_items.read(source, path, files, sha256, start)
    questions = source_questions.read(source, path, sha256)
    return SourceTables(items, repeated, interactions, questions, sha256)
