"""Reads tables of text and refuses what is wrong with them, by file, row and value.

Every column is read as text and converted by the caller: a value that is not what its column needs
can then be named, with its row, in one sentence.
"""

import csv
import dataclasses
import hashlib
import io
from pathlib import Path

import polars as pl

from uem_t5x.errors import InputError

# polars separates by single bytes; this one means just that and occurs in no text.
_UNIT_SEPARATOR = "\x1f"


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
            shown = "missing (is the file cut off?)" if value is None else repr(value)
            raise InputError(
                f"{self.name}, row {row + self.first_row}: {column} is {shown}; it must be {mend}"
            )


def integer(column: str) -> pl.Expr:
    """Returns a column of text as int64, null where it is no whole number."""
    return pl.col(column).cast(pl.Int64, strict=False)


def read_file(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        InputError: if it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path and its permissions") from error


def read_csv(data: bytes, name: str, columns: list[str]) -> TextTable:
    """Reads some columns of a CSV file with a header; others are ignored.

    Args:
        data: the content of the file.
        name: how messages call it.
        columns: what it must have.

    Raises:
        InputError: if the file is not text, is cut off, or lacks a column.
    """
    if data.count(b'"') % 2:
        raise InputError(f"{name}: a quote is never closed, so the file is cut off; get it anew")
    present = csv_header(data, name)
    for column in columns:
        if column not in present:
            raise InputError(
                f"{name}: no column {column!r} in its first line ({', '.join(present)[:80]}); "
                f"it must name {', '.join(columns)}"
            )
    frame = _parse(data, name, ",", present, has_header=True, columns=columns)
    return TextTable(frame, name, 2, not data.endswith(b"\n"), hashlib.sha256(data).hexdigest())


def csv_header(data: bytes, name: str) -> list[str]:
    """Returns the column names of a CSV file.

    Raises:
        InputError: if the file is empty or its first line is not text.
    """
    try:
        first_line = io.BytesIO(data).readline().decode("utf-8-sig")
        return next(csv.reader([first_line.strip()]))
    except (UnicodeDecodeError, StopIteration, csv.Error) as error:
        raise InputError(f"{name}, line 1: not the header of a CSV file; get it anew") from error


def read_double_colon(data: bytes, name: str, columns: list[str]) -> TextTable:
    """Reads a file whose fields are separated by `::`, with no header (MovieLens 1M and 10M).

    Args:
        data: the content of the file, UTF-8 or Latin-1.
        name: how messages call it.
        columns: the names of its fields, in order.

    Raises:
        InputError: if a line has more fields.
    """
    try:
        data.decode("utf-8")
        utf8 = data
    except UnicodeDecodeError:
        utf8 = data.decode("latin-1").encode("utf-8")
    utf8 = utf8.replace(b"::", _UNIT_SEPARATOR.encode())
    frame = _parse(utf8, name, _UNIT_SEPARATOR, columns, has_header=False, quote_char=None)
    return TextTable(frame, name, 1, not data.endswith(b"\n"), hashlib.sha256(data).hexdigest())


def _parse(
    data: bytes, name: str, separator: str, fields: list[str], **options: object
) -> pl.DataFrame:
    lines = io.BytesIO(data.rstrip(b"\r\n"))
    schema = dict.fromkeys(fields, pl.String)
    try:
        return pl.read_csv(lines, separator=separator, schema=schema, **options)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"{name}{_damage(data, separator, len(fields))}") from error


def _damage(data: bytes, separator: str, width: int) -> str:
    """Returns where and why a table that polars refuses cannot be read, and the mend."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f", line {line}: not UTF-8 text; save the file as UTF-8, or get it anew"
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    for row in rows:
        if len(row) > width:
            return (
                f", line {rows.line_num}: {len(row)} fields where there should be {width}; "
                "quote the text that holds a separator"
            )
    return ": not a readable table; get the file anew"
