"""Times as people write them: numbers of seconds and the like since 1970, or dates."""

import polars as pl

from uem_t5x.base.errors import InputError
from uem_t5x.data import text_tables
from uem_t5x.data.sources import TIME_UNITS
from uem_t5x.data.text_tables import TextTable

_NUMBER = r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
_DATES = (  # of ISO 8601, in UTC or with an offset, and of Goodreads
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M", "%Y-%m-%d"),
    "%aT%b %d %H:%M:%S %z %Y",
)
_MICROSECONDS = 1_000_000
# Whole numbers that read as a date, as 20240131.
_DATE_NUMBERS = (19_000_101, 21_001_231)
# In microseconds. Nobody rated anything by milliseconds before the first; not even a computer.
YEAR_1980, _YEAR_2100 = 315_532_800_000_000, 4_102_444_800_000_000


def read(part: TextTable, column: str | None, time_unit: str, counts: pl.Series) -> pl.Series:
    """Returns microseconds since 1970; without a time zeros.

    Args:
        part: of the table.
        column: of the time; None if it has none.
        time_unit: of numbers.
        counts: whether each row counts: only of these the time must be one.

    Raises:
        InputError: if it is not.
    """
    if column is None:
        return pl.zeros(part.frame.height, pl.Int64, eager=True)
    texts = part.frame[column].str.strip_chars()
    unit = _MICROSECONDS // TIME_UNITS[time_unit]
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
    form = f"{time_unit} since 1970, or a time as 2005-04-02 23:53:47"
    part.require(column, pl.lit(found.is_not_null() | ignored), form)
    mend = f"a time as {time_unit} since 1970; say another time_unit =, or write dates"
    # What is larger than any time may not become one by an overflow.
    fits = numbers.is_between(-_YEAR_2100 // unit, _YEAR_2100 // unit)
    is_one = found.is_between(-_YEAR_2100, _YEAR_2100) & (fits | numbers.is_null())
    if time_unit != "seconds":
        is_one &= numbers.is_null() | (found >= YEAR_1980)
    part.require(column, pl.lit(is_one | ignored), mend)
    if numbers.len() and numbers.null_count() == 0:
        if numbers.is_between(*_DATE_NUMBERS).all():
            raise InputError(
                f"{part.name}: {column} holds dates such as {texts[0]}; write them as 2024-01-31"
            )
        _check_end(part, column, texts)
    return found


def _check_end(part: TextTable, column: str, numbers: pl.Series) -> None:
    """Refuses a file that ends in fewer digits than any other row has: it is cut off."""
    if part.ends_mid_line and numbers.len() > 1:
        digits = numbers.str.len_bytes()
        is_short = bool(digits.tail(1).item() < digits.head(-1).min())
        is_last = pl.int_range(pl.len()) == pl.len() - 1
        part.require(column, ~(is_last & is_short), "whole: the file is cut off")
