"""Reads tables of text and refuses what is wrong with them, by file, row and value.

Every column is read as text and converted by the caller: a value that is not what its column needs
can then be named, with its row, in one sentence.

Readers of CSV disagree on a quote that stands where none should. Here Python's `csv`, strict, says
what a row is. Where there is nothing to disagree on, as in the ratings of MovieLens, every line is
a row, and polars reads the same ones faster. Each row has as many fields as the header.
"""

import codecs
import csv
import dataclasses
import hashlib
import io
import reprlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from uem_t5x.base.errors import InputError
from uem_t5x.data import csv_rows
from uem_t5x.data.csv_rows import MAX_LINE_BYTES

# polars separates by single bytes; this one means just that and occurs in no text.
_UNIT_SEPARATOR = "\x1f"

# What begins with `x^` polars takes for zlib's, and unpacks it to whatever size that is. All else
# that it would unpack begins with what is no UTF-8, or with this letter.
_MAY_BE_ZLIB = b"x"

# Many columns that nobody asked for cost polars more than the file is long.
MAX_COLUMNS = 1000
_NAMES_SHOWN = 40  # in a message
_CHUNK_BYTES = 2**20
_BLOCK_BYTES = 2**18

# What pandas, R, databases and spreadsheets write where there is nothing, in any case.
_MISSING = [
    "", "-", "nan", "-nan", "nat", "none", "null", "nil", "na", "n/a", "#n/a", "#na", "<na>", "\\n",
]  # fmt: skip

_QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b'"\n\r'


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
            shown = "missing" if value is None else reprlib.repr(value)
            raise InputError(
                f"{self.name}, row {row + self.first_row}: {column} is {shown}; it must be {mend}"
            )


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of a file some lines are; by default all of them.

    Attributes:
        first_line: the number of the first one.
        is_last: whether the file ends with them.
        sha256: of the file as far as it was read; None for that of the lines.
    """

    first_line: int = 1
    is_last: bool = True
    sha256: str | None = None

    def checksum(self, data: bytes) -> str:
        """Returns that of the file as far as it was read, which ends with `data`."""
        return self.sha256 or hashlib.sha256(data).hexdigest()


WHOLE = Part()


def integer(column: str) -> pl.Expr:
    """Returns a column of text as int64, null where it is no whole number.

    `1.0`, as numbers are written that were floating-point ones for a while, is 1.
    """
    return pl.col(column).map_batches(integers, return_dtype=pl.Int64)


def integers(texts: pl.Series, signed: bool = True) -> pl.Series:
    """Returns texts as int64, as `integer` does, or as uint64 if not `signed`."""
    dtype = pl.Int64 if signed else pl.UInt64
    numbers = texts.cast(dtype, strict=False)
    if numbers.null_count() == texts.null_count():
        return numbers
    whole = texts.str.extract(r"^([+-]?[0-9]+)\.0+$").cast(dtype, strict=False)
    return pl.select(pl.coalesce(numbers, whole)).to_series()


def is_missing(text: pl.Expr) -> pl.Expr:
    """Returns whether there is no text, or a word that stands for none."""
    return text.str.strip_chars().str.to_lowercase().is_in(_MISSING).fill_null(True)


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


def read_csv(
    data: bytes,
    name: str,
    columns: Sequence[str],
    or_else: str = "",
    numbers: Collection[str] = (),
    separator: str = ",",
    header: Sequence[str] = (),
    part: Part = WHOLE,
) -> TextTable:
    """Reads some columns of a CSV file with a header; others are ignored.

    A quote is a letter in a field that does not begin with one. A field that does ends in a quote,
    before a separator or the line's end, and holds quotes as `""`.

    Args:
        data: the content of the file.
        name: how messages call it.
        columns: what it must have.
        or_else: what it may have in place of these, for messages.
        numbers: which of the columns hold a number in every row. By them those rows are known that
            a field swallows whose quote was not meant to open one.
        separator: between fields, of one byte.
        header: the names of the columns, where the first line is a row.
        part: which part of the file the content is, where it is not all.

    Raises:
        InputError: if the file is not text, is cut off, lacks a column or names it twice, or if a
            line is no row of as many fields.
    """
    present = list(header) or csv_header(data, name, separator)
    for column in columns:
        if column not in present:
            raise InputError(
                f"{name}: no column {column!r} in its first line ({', '.join(present)[:80]!r}); "
                f"it must name {', '.join(columns)}{or_else}"
            )
    if not is_utf8(data):
        lines = enumerate(io.BytesIO(data), part.first_line)
        line = next(n for n, line in lines if not is_utf8(line))
        raise InputError(
            f"{name}, line {line}: not UTF-8 text; save the file as UTF-8, or get it anew"
        )
    table = _without_blank_end(data) if part.is_last else data
    if is_plain(table, separator):
        # polars calls columns without a header `column_1` and so on where only some are read.
        some = {} if header else {"columns": list(columns)}
        frame = _read_plain(
            table, name, separator, present, part.first_line, has_header=not header, **some
        )
        frame = frame.select(columns)
    else:
        has_header = not header
        frame = csv_rows.read(
            table, name, present, columns, numbers, separator, has_header, part.first_line
        )
    first_row = part.first_line + (0 if header else 1)
    return TextTable(frame, name, first_row, not data.endswith(b"\n"), part.checksum(data))


def check_columns(columns: Sequence[str], present: Sequence[str], name: str) -> None:
    """Refuses a file that lacks a column."""
    for column in columns:
        if column not in present:
            shown = ", ".join(present[:_NAMES_SHOWN])
            raise InputError(f"{name}: no column {column!r}; it has {shown}")


def csv_header(data: bytes, name: str, separator: str = ",") -> list[str]:
    """Returns the column names of a CSV file.

    Raises:
        InputError: if the file is empty, its first line is not text, or a line is far too long.
    """
    _check_lines(data, name)
    try:
        first_line = io.BytesIO(data).readline().decode("utf-8-sig")
        line = first_line.rstrip("\r\n")
        header = next(csv.reader([line], strict=True, delimiter=separator))
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


def read_unquoted(
    data: bytes, name: str, columns: list[str], separator: str = "::", part: Part = WHOLE
) -> TextTable:
    """Reads a file with no header whose quotes are letters, as those of MovieLens 1M and 10M are.

    Args:
        data: the content of the file, UTF-8 or Latin-1.
        name: how messages call it.
        columns: the names of its fields, in order.
        separator: between fields, of one letter or several.
        part: see `read_csv`.

    Raises:
        InputError: if a line has more fields or fewer, or is far too long.
    """
    _check_lines(data, name)
    utf8 = data if is_utf8(data) else data.decode("latin-1").encode("utf-8")
    utf8 = _without_blank_end(utf8) if part.is_last else utf8
    utf8 = utf8.replace(separator.encode(), _UNIT_SEPARATOR.encode())
    first_line, options = part.first_line, {"has_header": False, "quote_char": None}
    frame = _read_plain(utf8, name, _UNIT_SEPARATOR, columns, first_line, **options)
    return TextTable(frame, name, first_line, not data.endswith(b"\n"), part.checksum(data))


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


def is_utf8(data: bytes) -> bool:
    """Whether it is text in UTF-8; looked at in parts, without a copy of all."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _CHUNK_BYTES):
            decoder.decode(data[start : start + _CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _without_blank_end(data: bytes) -> bytes:
    ends_in_blank_lines = data.endswith((b"\n\n", b"\r\n\r\n", b"\r"))
    return data.rstrip(b"\r\n") if ends_in_blank_lines else data  # else no copy


def _blocks(data: bytes, start: int = 0) -> Iterator[bytes]:
    """Yields whole lines, many at a time."""
    while start < len(data):
        end = data.rfind(b"\n", start, start + _BLOCK_BYTES) + 1
        end = end or data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def is_plain(data: bytes, separator: str) -> bool:
    """Whether every line is a row, and all who read CSV agree on its fields.

    Then quotes enclose whole fields, which are not empty and hold no separator, line end or quote,
    and carriage returns stand before line feeds.
    """
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    if b'"' not in data:
        return True
    for lines in _blocks(data, data.startswith(codecs.BOM_UTF8) * len(codecs.BOM_UTF8)):
        block = np.frombuffer(lines, np.uint8)
        is_quote = block == _QUOTE
        is_edge = (block == ord(separator)) | (block == _LINE_FEED) | (block == _CARRIAGE_RETURN)
        (at,) = np.nonzero(is_quote)
        if len(at) % 2:
            return False
        opening, closing = at[::2], at[1::2]
        is_edge_around = np.concatenate([[True], is_edge, [True]])
        (among_marks,) = np.nonzero(is_quote[is_quote | is_edge])
        if not (
            np.all(is_edge_around[opening])
            and np.all(is_edge_around[closing + 2])
            and np.all(closing > opening + 1)
            and np.all(among_marks[1::2] == among_marks[::2] + 1)
        ):
            return False
    return True


def _read_plain(
    data: bytes, name: str, separator: str, fields: Sequence[str], line: int, **options: Any
) -> pl.DataFrame:
    """Reads a table in which every line is a row, the first one being a file's line number so."""
    text = bytes(set(range(256)) - set(separator.encode() + b"\n"))
    row = separator.encode() * (len(fields) - 1) + b"\n"  # without its text
    for block in _blocks(data):
        marks = block.translate(None, text)
        if not block.endswith(b"\n"):
            marks += b"\n"
        count = marks.count(b"\n")
        if marks != row * count:
            widths = [len(marks_of_line) + 1 for marks_of_line in marks.split(b"\n")]
            wrong = next(n for n, width in enumerate(widths) if width != len(fields))
            raise csv_rows.wrong_width(name, line + wrong, widths[wrong], len(fields))
        line += count
    if data.startswith(_MAY_BE_ZLIB):
        data = codecs.BOM_UTF8 + data
    schema = dict.fromkeys(fields, pl.String)
    try:
        return pl.read_csv(io.BytesIO(data), separator=separator, schema=schema, **options)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{name}: no readable table; get the file anew") from error
