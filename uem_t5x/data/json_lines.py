"""Reads files of a JSON object a line as tables of text."""

import codecs
import hashlib
import io
import json
import re
import reprlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from uem_t5x.base.errors import InputError
from uem_t5x.data import text_tables
from uem_t5x.data.csv_rows import MAX_LINE_BYTES
from uem_t5x.data.text_tables import TextTable

_BLOCK_BYTES = 2**26
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_LOOKED_AT = 1000  # records of each block, to see which names there are
_FORM = (
    "a file of a JSON object a line; of an array or of indented JSON `jq -c '.[]'` makes one, and "
    "format = tells of other files"
)


def read(
    stream: io.BufferedIOBase,
    name: str,
    encoding: str,
    columns: Sequence[str],
    lists: Collection[str],
) -> Iterator[TextTable]:
    """Yields the rows of a file, many at a time; `sha256` is of the file as far as it was read.

    Where there may be lists Python reads them, and elsewhere polars, which is faster, and leaves
    lists as JSON that cannot be told from texts.

    Args:
        stream: the file.
        name: how messages call it.
        encoding: of the file.
        columns: names of the objects' fields; others are ignored.
        lists: those that may hold lists, or objects, whose names are taken.

    Raises:
        InputError: if it is of another form, or no object has a column.
    """
    digest, row = hashlib.sha256(), 1
    known: dict[str, None] = {}
    lacking = set(columns)
    for block in _blocks(stream, name):
        digest.update(block)
        text = _in_utf8(block, name, encoding, is_first=row == 1)
        known |= dict.fromkeys(_names_of(text))
        # Of half a character polars makes another one.
        is_plain = not lists and _HALF_CHARACTER.search(text) is None
        frame = _by_polars(text, columns) if is_plain else None
        if frame is None:
            frame = _by_python(text, name, row, columns, lists)
        lacking -= {*known, *(c for c in lacking if frame[c].null_count() < frame.height)}
        yield TextTable(frame, name, row, False, digest.hexdigest())
        row += frame.height
    if row == 1:
        raise InputError(f"{name}: empty; get it anew")
    if lacking:
        text_tables.check_columns(sorted(lacking), list(known), name)


def _blocks(stream: io.BufferedIOBase, name: str) -> Iterator[bytes]:
    """Yields whole lines, many at a time."""
    rest = b""
    while chunk := stream.read(_BLOCK_BYTES):
        lines, line_end, more = (rest + chunk).rpartition(b"\n")
        if line_end and lines.strip():
            yield lines + line_end
        rest = more
        if len(rest) > MAX_LINE_BYTES:
            raise InputError(
                f"{name}: a line is longer than {MAX_LINE_BYTES >> 20} MiB: no file of a JSON "
                "object a line; get it anew"
            )
    if rest.strip():
        yield rest


def _in_utf8(block: bytes, name: str, encoding: str, is_first: bool) -> bytes:
    if is_first:
        block = block.removeprefix(codecs.BOM_UTF8)
    try:
        return block.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not {encoding} text; say another encoding =") from error


def _names_of(block: bytes) -> Iterator[str]:
    for line in block.split(b"\n", _LOOKED_AT)[:_LOOKED_AT]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # told with its line where all are read
        if isinstance(record, dict):
            yield from record


def _by_polars(block: bytes, columns: Sequence[str]) -> pl.DataFrame | None:
    """Returns the rows; None of what polars does not read, as NaN."""
    try:
        return pl.read_ndjson(io.BytesIO(block), schema=dict.fromkeys(columns, pl.String))
    except PolarsError:
        return None


def _by_python(
    block: bytes, name: str, row: int, columns: Sequence[str], lists: Collection[str]
) -> pl.DataFrame:
    cells: dict[str, list[str | list[str] | None]] = {column: [] for column in columns}
    for line in block.split(b"\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            shown = reprlib.repr(line.decode(errors="replace"))
            raise InputError(f"{name}, row {row}: {shown} is no JSON object; give {_FORM}")
        for column in columns:
            try:
                cells[column].append(_as_text(record.get(column), column in lists))
            except ValueError as error:
                raise InputError(f"{name}, row {row}: {column} {error}") from error
        row += 1
    return pl.DataFrame([_column(column, values, name, row) for column, values in cells.items()])


def _column(column: str, values: Sequence[Any], name: str, end: int) -> pl.Series:
    """Returns the values of a column, which are all texts, or all lists."""
    kinds = {type(value) for value in values if value is not None}
    if kinds != {str, list}:
        return pl.Series(column, values, pl.List(pl.String) if kinds == {list} else pl.String)
    first = next(place for place, value in enumerate(values) if isinstance(value, str))
    raise InputError(
        f"{name}, row {end - len(values) + first}: {column} is {reprlib.repr(values[first])}, and "
        "a list in other rows; give every item a list"
    )


def _as_text(value: Any, may_be_list: bool) -> str | list[str] | None:
    if isinstance(value, str):
        value.encode()  # half a character cannot be
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    if not may_be_list:
        return json.dumps(value, ensure_ascii=False)
    return _flat(value)


def _flat(value: list[Any] | dict[str, Any]) -> list[str]:
    """Returns the texts of a list, or the names of an object."""
    texts: list[str] = []
    for one in value:
        if isinstance(one, list):
            texts += _flat(one)
        elif isinstance(one, dict):
            if not isinstance(one.get("name"), str):
                raise ValueError("is a list of objects without a name")
            texts.append(one["name"])
        elif one is not None:
            texts.append(_as_text(one, False))
    return texts
