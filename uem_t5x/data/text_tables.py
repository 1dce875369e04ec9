"""Reads tables of text and refuses what is wrong with them, by file, row and value.

Every column is read as text and converted by the caller: a value that is not what its column needs
can then be named, with its row, in one sentence.
"""

import codecs
import csv
import dataclasses
import hashlib
import io
import reprlib
from pathlib import Path
from typing import Any

import polars as pl

from uem_t5x.errors import InputError

# polars separates by single bytes; this one means just that and occurs in no text.
_UNIT_SEPARATOR = "\x1f"

# What begins with `x^` polars takes for zlib's, and unpacks it to whatever size that is. All else
# that it would unpack begins with what is no UTF-8, or with this letter.
_MAY_BE_ZLIB = b"x"

# The longest line of MovieLens and of the Rotten Tomatoes table is of some KB; what is longer than
# this is no table, and is refused before it is copied, decoded or split.
MAX_LINE_BYTES = 2**20
# Many columns that nobody asked for cost polars more than the file is long.
MAX_COLUMNS = 1000
_CHUNK_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table of text, in the order of its file.

    Attributes:
        frame: its rows; an empty field is null.
        name: how messages call the file.
        first_row: the number of the first row, counted from 1; a header is row 1 itself.
        ends_mid_line: whether the file lacks the newline at its end, as one that is cut off does.
        sha256: of the file.
    """

    frame: pl.DataFrame
    name: str
    first_row: int
    ends_mid_line: bool
    sha256: str

    def require(self, column: str, valid: pl.Expr, mend: str) -> None:
        """Checks a condition on every row; null counts as false.

        Raises:
            InputError: naming the first row that is not valid, its value in `column` and the mend.
        """
        row = self.frame.select((~valid.fill_null(False)).arg_true().first()).item()
        if row is not None:
            value = self.frame[column][row]
            shown = "missing (is the file cut off?)" if value is None else reprlib.repr(value)
            raise InputError(
                f"{self.name}, row {row + self.first_row}: {column} is {shown}; it must be {mend}"
            )


def integer(column: str) -> pl.Expr:
    """Returns a column of text as int64, null where it is no whole number."""
    return pl.col(column).cast(pl.Int64, strict=False)


def read_file(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        InputError: if it is missing or unreadable, or may have no end, as a pipe or a device.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a regular file; give a file that lies on the disk")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path and its permissions") from error


def read_csv(data: bytes, name: str, columns: list[str], or_else: str = "") -> TextTable:
    """Reads some columns of a CSV file with a header; others are ignored.

    Args:
        data: the content of the file.
        name: how messages call it.
        columns: what it must have.
        or_else: what it may have in place of these, for messages.

    Raises:
        InputError: if the file is not text, is cut off, or lacks a column or names it twice.
    """
    present = csv_header(data, name)
    if data.count(b'"') % 2:
        raise InputError(f"{name}: a quote is never closed, so the file is cut off; get it anew")
    for column in columns:
        if column not in present:
            raise InputError(
                f"{name}: no column {column!r} in its first line ({', '.join(present)[:80]!r}); "
                f"it must name {', '.join(columns)}{or_else}"
            )
    # polars looks no further than the last column that it is asked for.
    damage = len(present) > len(columns) and _damage(data, ",", len(present))
    if damage:
        raise InputError(f"{name}{damage}")
    frame = _parse(data, name, ",", present, has_header=True, columns=columns)
    return TextTable(frame, name, 2, not data.endswith(b"\n"), hashlib.sha256(data).hexdigest())


def csv_header(data: bytes, name: str) -> list[str]:
    """Returns the column names of a CSV file.

    Raises:
        InputError: if the file is empty, its first line is not text, or a line is far too long.
    """
    _check_lines(data, name)
    try:
        first_line = io.BytesIO(data).readline().decode("utf-8-sig")
        header = next(csv.reader([first_line.rstrip("\r\n")], strict=True))
    except (UnicodeDecodeError, StopIteration, csv.Error) as error:
        raise InputError(f"{name}, line 1: not the header of a CSV file; get it anew") from error
    if len(header) > MAX_COLUMNS:
        raise InputError(
            f"{name}, line 1: {len(header)} columns, of which at most {MAX_COLUMNS} are read; "
            "leave out the others"
        )
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise InputError(f"{name}, line 1: two columns {twice!r}; leave out one of them")
    return header


def read_double_colon(data: bytes, name: str, columns: list[str]) -> TextTable:
    """Reads a file whose fields are separated by `::`, with no header (MovieLens 1M and 10M).

    Args:
        data: the content of the file, UTF-8 or Latin-1.
        name: how messages call it.
        columns: the names of its fields, in order.

    Raises:
        InputError: if a line has more fields or is far too long.
    """
    _check_lines(data, name)
    utf8 = data if _is_utf8(data) else data.decode("latin-1").encode("utf-8")
    utf8 = utf8.replace(b"::", _UNIT_SEPARATOR.encode())
    frame = _parse(utf8, name, _UNIT_SEPARATOR, columns, has_header=False, quote_char=None)
    return TextTable(frame, name, 1, not data.endswith(b"\n"), hashlib.sha256(data).hexdigest())


def _check_lines(data: bytes, name: str) -> None:
    """Refuses a table with a line of over `MAX_LINE_BYTES`, without a copy of any of it."""
    start = 0
    while len(data) - start > MAX_LINE_BYTES:
        end = data.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            line = data.count(b"\n", 0, start) + 1
            raise InputError(
                f"{name}, line {line}: longer than {MAX_LINE_BYTES >> 20} MiB, so this is no "
                "table whose lines end in a newline; get the file anew"
            )
        start = end + 1


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _CHUNK_BYTES):
            decoder.decode(data[start : start + _CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _parse(
    data: bytes, name: str, separator: str, fields: list[str], **options: Any
) -> pl.DataFrame:
    # A line holds a byte for each of its separators and its end. Of empty ones, which take next to
    # nothing in a file, polars would make a field for each column.
    if data.count(b"\n") * len(options.get("columns", fields)) > len(data):
        raise InputError(f"{name}: most lines lack fields; get the file anew")
    ends_in_blank_lines = data.endswith((b"\n\n", b"\r\n\r\n", b"\r"))
    data = data.rstrip(b"\r\n") if ends_in_blank_lines else data  # else no copy
    if data.startswith(_MAY_BE_ZLIB):
        data = codecs.BOM_UTF8 + data
    lines = io.BytesIO(data)
    schema = dict.fromkeys(fields, pl.String)
    try:
        return pl.read_csv(lines, separator=separator, schema=schema, **options)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        damage = _damage(data, separator, len(fields)) or ": no readable table; get the file anew"
        raise InputError(f"{name}{damage}") from error


def _damage(data: bytes, separator: str, width: int) -> str | None:
    """Returns where and why a table cannot be read, and the mend; None if the lines are sound."""
    quoting = csv.QUOTE_NONE if separator == _UNIT_SEPARATOR else csv.QUOTE_MINIMAL
    lines = (line.decode("utf-8") for line in io.BytesIO(data))
    rows = csv.reader(lines, delimiter=separator, quoting=quoting)
    try:
        for row in rows:
            if len(row) > width:
                return (
                    f", line {rows.line_num}: {len(row)} fields where there should be {width}; "
                    "quote the text that holds a separator"
                )
    except UnicodeDecodeError:
        return f", line {rows.line_num + 1}: not UTF-8 text; save the file as UTF-8, or get it anew"
    except csv.Error as error:
        return f", line {rows.line_num}: {error}; get the file anew"
    return None
