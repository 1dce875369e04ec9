"""Reads rows of CSV that may be of several lines, as Python's own reader does, strict."""

import contextlib
import csv
import io
import itertools
import re
import reprlib
from collections.abc import Collection, Iterator, Sequence

import polars as pl

from uem_t5x.base.errors import InputError

# The longest line of MovieLens and of the Rotten Tomatoes table is of some KB; what is longer than
# this is no table, and is refused before it is copied, decoded or split. No field of several lines,
# which is quoted, may have more characters either.
MAX_LINE_BYTES = 2**20
_ROWS_AT_A_TIME = 100_000
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]+)?\s*")
_WRITTEN_TWICE = 'in a quoted field write a quote as "", not as " or \\"'
_MENDS = {  # of what Python's csv says
    "expected after": _WRITTEN_TWICE,
    "end of data": f"a quote is never closed: get the file anew if it is cut off, else "
    f"{_WRITTEN_TWICE}",
    "field limit": f"a field has at most {MAX_LINE_BYTES >> 20} MiB; or a quote is not closed: "
    f"{_WRITTEN_TWICE}",
    "new-line character": "end lines in a line feed; quote the text that holds a carriage return",
}


def read(
    data: bytes,
    name: str,
    present: list[str],
    columns: Sequence[str],
    numbers: Collection[str],
    separator: str,
    has_header: bool,
    first_line: int,
) -> pl.DataFrame:
    """Reads a table whose rows may be of several lines, as Python's csv reads it."""
    places = {column: present.index(column) for column in columns}
    numbered = sorted(places[column] for column in numbers)
    rows = _rows(data, name, len(present), numbered, separator, first_line)
    schema = dict.fromkeys(columns, pl.String)
    frames = [pl.DataFrame(schema=schema)]
    with _fields_of(MAX_LINE_BYTES):
        if has_header:
            next(rows)
        while batch := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
            texts = {c: [row[place] or None for row in batch] for c, place in places.items()}
            frames.append(pl.DataFrame(texts, schema))
    return pl.concat(frames)


@contextlib.contextmanager
def _fields_of(characters: int) -> Iterator[None]:
    """Lets Python's csv, which has one limit for all its readers, read fields of that length."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(
    data: bytes, name: str, width: int, numbers: Sequence[int], separator: str, first_line: int
) -> Iterator[list[str]]:
    """Yields the rows of a CSV file, its header too.

    Raises:
        InputError: naming the line in which the first wrong row begins.
    """
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="\n")
    rows = csv.reader(text, strict=True, delimiter=separator)
    while True:
        line = rows.line_num + first_line
        try:
            row = next(rows, None)
        except csv.Error as error:
            mend = next((mend for said, mend in _MENDS.items() if said in str(error)), str(error))
            last = rows.line_num + first_line - 1
            until = f" to {last}" if last > line else ""
            raise InputError(f"{name}, line {line}{until}: no row of a CSV file; {mend}") from error
        if row is None:
            return
        if len(row) != width:
            raise wrong_width(name, line, max(len(row), 1), width)
        last = rows.line_num + first_line - 1
        if last > line and (swallowed := _swallowed_row(row, numbers, separator)):
            raise InputError(
                f"{name}, line {line} to {last}: no row of a CSV file: a quote opens a "
                f"field in which {reprlib.repr(swallowed)} reads as a row; {_WRITTEN_TWICE}, or "
                "leave out the column"
            )
        yield row


def _swallowed_row(row: Sequence[str], numbers: Sequence[int], separator: str) -> str | None:
    """Returns a line within a field that has the fields of a row, numbers where they belong."""
    width = len(row)
    for place, field in enumerate(row):
        last = field.count("\n")
        for number_of_line, line in enumerate(field.split("\n") if last else ()):
            # The first one begins at the quote that opens the field, the last one ends at that
            # which closes it.
            start = place if number_of_line == 0 else 0
            stop = place + 1 if number_of_line == last else width
            parts = line.split(separator)
            if len(parts) == stop - start:
                known = [parts[number - start] for number in numbers if start <= number < stop]
                if known and all(map(_NUMBER.fullmatch, known)):
                    return line
    return None


def wrong_width(name: str, line: int, fields: int, width: int) -> InputError:
    """Returns the error that a line has not as many fields as the header."""
    mend = (
        "quote the text that holds a separator"
        if fields > width
        else "the file is cut off or damaged: get it anew"
    )
    noun = "field" if fields == 1 else "fields"
    return InputError(f"{name}, line {line}: {fields} {noun} where there should be {width}; {mend}")
