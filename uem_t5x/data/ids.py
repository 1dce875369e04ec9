"""Ids of users and items: texts as they are written, or numbers where all of them are."""

import polars as pl

from uem_t5x.data import text_tables

# As Python writes them, below 10**18; or as 1.0, 2.0, ..., as pandas does where some are missing.
WHOLE = r"^(?:0|-?[1-9][0-9]{0,17})(?:\.0+)?$"
# Those that an int64 gives back as they were.
_AS_WRITTEN = r"^(?:0|-?[1-9][0-9]{0,17})$"


def are_numbers(ids: pl.Series) -> bool:
    """Whether texts are all whole numbers."""
    return bool(ids.str.contains(WHOLE).all())


def are_kept_by_numbers(ids: pl.Series) -> bool:
    """Whether texts are all whole numbers that are written in one way alone."""
    return bool(ids.str.contains(_AS_WRITTEN).all())


def with_numbers(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Returns a frame whose ids are int64 if all of them are whole numbers; else they stay text."""
    if are_numbers(frame[column]):
        return frame.with_columns(text_tables.integer(column))
    return frame


def numbers_or_none(column: str) -> pl.Expr:
    """Returns texts as int64, null where they are no whole numbers."""
    return pl.when(pl.col(column).str.contains(WHOLE)).then(text_tables.integer(column))
