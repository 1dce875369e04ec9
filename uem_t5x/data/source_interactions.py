"""Reads who did what with which item, when, and what it is worth, of a source's tables."""

from collections.abc import Iterator

import polars as pl

from uem_t5x.base.errors import InputError
from uem_t5x.data import text_tables
from uem_t5x.data.sources import TIME_UNITS, Interactions
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes.rating_scale import RatingScale

_NUMBER = r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
_DATES = (  # of ISO 8601, in UTC or with an offset, and of Goodreads
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M", "%Y-%m-%d"),
    "%aT%b %d %H:%M:%S %z %Y",
)
_MICROSECONDS = 1_000_000
# Whole numbers that read as a date, as 20240131.
_DATE_NUMBERS = (19_000_101, 21_001_231)
# In microseconds. Nobody rated anything by milliseconds before the first; not even a computer.
_YEAR_1980, _YEAR_2100 = 315_532_800_000_000, 4_102_444_800_000_000


def read(
    parts: Iterator[TextTable], said: Interactions, scale: RatingScale, enough: int | None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns the interactions, their ids still texts, and what values are worth."""
    frames: list[pl.DataFrame] = []
    worth: dict[str, int] = {}
    rows = 0
    for part in parts:
        half_stars = part.frame.select(_half_stars(part, said, scale, worth)).to_series()
        frames.append(
            part.frame.select(
                userId=pl.col(said.user),
                movieId=pl.col(said.item),
                half_stars=half_stars,
                timestamp=_times(part, said, half_stars.is_not_null()),
                order=pl.int_range(rows, rows + pl.len(), dtype=pl.Int64),
            )
        )
        rows += part.frame.height
        if enough is not None and rows >= enough:
            break
    return pl.concat(frames), worth


def _half_stars(
    part: TextTable, said: Interactions, scale: RatingScale, worth: dict[str, int]
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


def _times(part: TextTable, said: Interactions, counts: pl.Series) -> pl.Series:
    """Returns microseconds since 1970; without a time zeros.

    Args:
        part: of the table.
        said: what its columns are.
        counts: whether each row counts: only of these the time must be one.
    """
    if said.time is None:
        return pl.zeros(part.frame.height, pl.Int64, eager=True)
    texts = part.frame[said.time].str.strip_chars()
    unit = _MICROSECONDS // TIME_UNITS[said.time_unit]
    numbers = text_tables.integers(texts)
    dates = texts.str.replace(r"(?:Z| ?UTC)$", "").str.replace(" ", "T", literal=True)
    times = [numbers * unit]
    if numbers.null_count() > texts.null_count():
        fractions = texts.set(~texts.str.contains(_NUMBER).fill_null(False), None)
        times.append(
            (fractions.cast(pl.Float64, strict=False) * unit).round().cast(pl.Int64, strict=False)
        )
        for form in _DATES:
            parsed = dates.str.to_datetime(form, strict=False, time_unit="us")
            times.append(parsed.dt.epoch("us"))
    found = pl.select(pl.coalesce(times)).to_series()
    ignored = ~counts
    form = f"{said.time_unit} since 1970, or a time as 2005-04-02 23:53:47"
    part.require(said.time, pl.lit(found.is_not_null() | ignored), form)
    mend = f"a time as {said.time_unit} since 1970; say another time_unit =, or write dates"
    # What is larger than any time may not become one by an overflow.
    fits = numbers.is_between(-_YEAR_2100 // unit, _YEAR_2100 // unit)
    is_one = found.is_between(-_YEAR_2100, _YEAR_2100) & (fits | numbers.is_null())
    if said.time_unit != "seconds":
        is_one &= numbers.is_null() | (found >= _YEAR_1980)
    part.require(said.time, pl.lit(is_one | ignored), mend)
    if numbers.len() and numbers.null_count() == 0:
        if numbers.is_between(*_DATE_NUMBERS).all():
            raise InputError(
                f"{part.name}: {said.time} holds dates such as {texts[0]}; write them as 2024-01-31"
            )
        _check_end(part, said.time, texts)
    return found


def _check_end(part: TextTable, column: str, numbers: pl.Series) -> None:
    """Refuses a file that ends in fewer digits than any other row has: it is cut off."""
    if part.ends_mid_line and numbers.len() > 1:
        digits = numbers.str.len_bytes()
        is_short = bool(digits.tail(1).item() < digits.head(-1).min())
        is_last = pl.int_range(pl.len()) == pl.len() - 1
        part.require(column, ~(is_last & is_short), "whole: the file is cut off")
