"""Reads who did what with which item, when, and what it is worth, of a source's tables."""

import collections
from collections.abc import Iterator, Sequence

import polars as pl
from etils import epath

from uem_t5x.base import progress
from uem_t5x.data import sources, tables, text_tables, times
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes.rating_scale import RatingScale

IDS_SHOWN = 2  # in a message


class Interactions:
    """The interactions of a source, read part by part, and what was found in them so far.

    Attributes:
        counts: rows that were left out: `unrated`, and those without a user or an item, `nameless`.
        worth: how many half-stars each value is that occurs.
        sha256: of each file.
        shown: the first ids of items.
        users_shown: of users.
    """

    def __init__(
        self,
        path: epath.PathLike,
        said: sources.Interactions,
        scale: RatingScale,
        enough: int | None = None,
    ) -> None:
        """Finds the files.

        Args:
            path: the folder or zip file that they lie in.
            said: what their columns are.
            scale: of the values.
            enough: no part is read once there are so many rows; None reads all.

        Raises:
            InputError: if there are no files.
        """
        self._path, self._said, self._scale, self._enough = path, said, scale, enough
        self.files = tables.find(path, said.table, "[interactions]")
        self.counts = collections.Counter(unrated=0, nameless=0)
        self.worth: dict[str, int] = {}
        self.sha256: dict[str, str] = {}
        self.shown: list[str] = []
        self.users_shown: list[str] = []

    def read(
        self, advance: progress.Advance, files: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yields `userId` and `movieId` (texts), `half_stars` and `timestamp` (microseconds).

        Args:
            advance: is told of each file that was read.
            files: only these.

        Raises:
            InputError: if a file is damaged, lacks a column or holds an impossible value.
        """
        said, rows = self._said, 0
        wanted = [said.user, said.item, said.time, said.value]
        columns = [column for column in wanted if column is not None]
        for file in self.files if files is None else files:
            for part in tables.read(self._path, file, said.table, columns):
                self.sha256[file] = part.sha256
                rows += part.frame.height
                yield self._kept(part)
                if self._enough is not None and rows >= self._enough:
                    return
            advance(1)

    def _kept(self, part: TextTable) -> pl.DataFrame:
        said = self._said
        half_stars = part.frame.select(
            _half_stars(part, said, self._scale, self.worth).alias("half_stars")
        ).to_series()
        counts = half_stars.is_not_null()
        frame = part.frame.select(
            userId=pl.col(said.user),
            movieId=pl.col(said.item),
            half_stars=half_stars,
            timestamp=times.read(part, said.time, said.time_unit, counts),
        )
        if not counts.all():
            frame = frame.filter(counts)
        rated = frame.height
        is_named = [~text_tables.is_missing(pl.col(name)) for name in ("userId", "movieId")]
        frame = frame.filter(*is_named)
        self.counts.update(unrated=part.frame.height - rated, nameless=rated - frame.height)
        self.shown = self.shown or frame["movieId"].head(IDS_SHOWN).to_list()
        self.users_shown = self.users_shown or frame["userId"].head(IDS_SHOWN).to_list()
        return frame


def _half_stars(
    part: TextTable, said: sources.Interactions, scale: RatingScale, worth: dict[str, int]
) -> pl.Expr:
    if said.value is None:
        return pl.repeat(said.half_stars, pl.len(), dtype=pl.UInt8)
    known: dict[str, int] = {}
    none = set(said.none)
    for value in part.frame[said.value].drop_nulls().unique().to_list():
        if value in none or any(_are_equal(value, one) for one in said.none):
            none.add(value)
        elif (half_stars := scale.half_stars(value)) is not None:
            known[value] = half_stars
    worth.update(known)
    value = pl.col(said.value)
    listed = ", ".join(f"{value} ({stars:g} stars)" for value, stars in scale.points)
    part.require(
        said.value,
        value.is_in([*known, *none]) | text_tables.is_missing(value),
        f"on the scale {listed}"
        if scale.rounds
        else "0.5 to 5 stars in steps of 0.5, or say what it is worth in [interactions.stars]",
    )
    return value.replace_strict(known, default=None, return_dtype=pl.UInt8)


def _are_equal(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False
