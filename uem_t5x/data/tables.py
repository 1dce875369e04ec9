"""Reads the tables of a source: CSV, JSON lines or Parquet, compressed or not, in parts or whole.

Every value becomes a text, or a list of texts where there may be lists: what it should be is for
the caller to say, who can then name the file and the row of one that is not.
"""

import codecs
import dataclasses
import fnmatch
import hashlib
import io
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

import polars as pl
from etils import epath
from polars.exceptions import PolarsError

from uem_t5x.base.errors import InputError, first_line
from uem_t5x.data import archives, compressed, json_lines, text_tables
from uem_t5x.data.sources import Table
from uem_t5x.data.text_tables import Part, TextTable

_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".data", ".dat"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_TABS = (".tsv", ".tab")
_MAX_NAME = 200  # letters, of a file in a message
_SHOWN = 8  # names, in a message
_BLOCK_BYTES, _LEAST_BYTES = 2**26, 2**20
_BATCH_ROWS = 1_000_000


def find(path: epath.PathLike, table: Table, where: str) -> list[str]:
    """Returns the files of a table: by the order of the patterns, then by name, as 2 before 10.

    Hidden files, and those in hidden folders, are none.

    Args:
        path: the folder or zip file of the data.
        table: says which files.
        where: how messages call the table.

    Raises:
        InputError: if there are none, or several of one name, or one whose name cannot be shown.
    """
    present = archives.members(path, "give --data another one", deep=True)
    places = {name: PurePosixPath(name.replace("\\", "/")) for name in present}
    places = {
        name: place
        for name, place in places.items()
        if not any(part.startswith(".") for part in place.parts)
    }
    found: dict[str, None] = {}
    for pattern in table.files:
        matching = [
            name
            for name, place in places.items()
            if fnmatch.fnmatchcase(str(place), pattern) or fnmatch.fnmatchcase(place.name, pattern)
        ]
        matching.sort(key=lambda name: [*map(_as_sorted, re.split(r"(\d+)", name))])
        if len(matching) > 1 and pattern in map(str, places.values()):
            raise InputError(
                f"{path}: {matching[0]} and {matching[1]} are both {pattern!r}, which {where} asks "
                "for; give the path of one, below --data, or leave one file there"
            )
        found |= dict.fromkeys(matching)
    for name in found:
        if not name.isprintable() or len(name) > _MAX_NAME:
            raise InputError(
                f"{path}: the name {name[:_MAX_NAME]!r} holds what cannot be shown, or is longer "
                f"than {_MAX_NAME} letters; rename the file"
            )
    if not found:
        shown = ", ".join(map(str, sorted(places.values())[:_SHOWN])) or "nothing"
        raise InputError(
            f"{path}: no file {' or '.join(table.files)}, which {where} asks for; it holds {shown}"
        )
    return list(found)


def _as_sorted(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isascii() and part.isdigit() else (-1, part)


def read(
    path: epath.PathLike,
    file: str,
    table: Table,
    columns: Sequence[str],
    lists: Collection[str] = (),
) -> Iterator[TextTable]:
    """Yields a file, in one part or several; the last one has its checksum.

    Args:
        path: the folder or zip file of the data.
        file: its name there.
        table: how it is read.
        columns: which of its columns are.
        lists: those that may hold lists, or objects, whose names are taken.

    Raises:
        InputError: if it is damaged, of another form, lacks a column, or has a list elsewhere.
    """
    name = f"{path}/{file}"
    plain = compressed.plain_name(file)
    form = table.format or _SUFFIXES.get(plain.suffix)
    if form is None:
        raise InputError(f"{name}: CSV, JSON lines or Parquet? Say so, by format =")
    columns = list(dict.fromkeys(columns))
    with compressed.opened(path, file) as stream:
        if form == "jsonl":
            yield from json_lines.read(stream, name, table.encoding, columns, lists)
        elif form == "parquet":
            yield from _read_parquet(stream, name, columns, lists)
        else:
            yield from _read_csv(stream, name, plain.suffix, table, columns)


# --- CSV ---


def _read_csv(
    stream: io.BufferedIOBase, name: str, suffix: str, table: Table, columns: Sequence[str]
) -> Iterator[TextTable]:
    separator = table.separator or ("\t" if suffix in _TABS else ",")
    is_quoted = table.quoted and len(separator.encode()) == 1
    header: list[str] = []
    digest, line = hashlib.sha256(), 1
    for data, is_last in _blocks(stream, separator if is_quoted else None, table.encoding):
        digest.update(data)
        part = Part(line, is_last, digest.hexdigest())
        data = _in_utf8(data, table.encoding, name, line)
        has_header = line == 1 and not table.header
        if line == 1:
            in_file = _header(data, name, separator, is_quoted)
            header = list(table.header) or in_file
            _check_header(table, in_file, name)
            text_tables.check_columns(columns, header, name)
        given = [] if has_header else header
        if is_quoted:
            yield text_tables.read_csv(
                data, name, columns, separator=separator, header=given, part=part
            )
        else:
            data = data.removeprefix(codecs.BOM_UTF8)
            if has_header:
                _, _, data = data.partition(b"\n")
                part = dataclasses.replace(part, first_line=2)
            read = text_tables.read_unquoted(data, name, header, separator, part)
            yield dataclasses.replace(read, frame=read.frame.select(columns))
        line += data.count(b"\n") + (has_header and not is_quoted)


def _blocks(
    stream: io.BufferedIOBase, separator: str | None, encoding: str
) -> Iterator[tuple[bytes, bool]]:
    """Yields whole rows, many at a time, and whether the file ends with them.

    A file of another encoding than UTF-8 comes at once, and so does the rest of one as soon as a
    field may be of several lines.

    Args:
        stream: the file.
        separator: between fields that quotes may enclose; None if they enclose none.
        encoding: of the file.
    """
    if codecs.lookup(encoding).name != "utf-8":
        yield stream.read(), True
        return
    data = stream.read(_BLOCK_BYTES)
    while True:
        # The last part holds several rows: what it ends in is compared with others.
        following = stream.read(_BLOCK_BYTES)
        if len(following) < _LEAST_BYTES:
            yield data + following, True
            return
        end = data.rfind(b"\n") + 1
        if not end or (separator and not text_tables.is_plain(data[:end], separator)):
            yield data + following + stream.read(), True
            return
        yield data[:end], False
        data = data[end:] + following


def _header(data: bytes, name: str, separator: str, is_quoted: bool) -> list[str]:
    if is_quoted:
        return text_tables.csv_header(data, name, separator)
    first, _, _ = data.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    return first.decode().rstrip("\r").split(separator)


def _in_utf8(data: bytes, encoding: str, name: str, first_line: int) -> bytes:
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    if is_utf8 and text_tables.is_utf8(data):
        return data  # without a copy
    try:
        return data.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + first_line
        raise InputError(
            f"{name}, line {line}: not {encoding} text; say another encoding ="
        ) from error


def _check_header(table: Table, in_file: Sequence[str], name: str) -> None:
    if table.header and {one.strip() for one in in_file} <= set(table.header):
        raise InputError(f"{name}: its first line names the columns itself; leave header = out")


# --- Parquet ---


def _read_parquet(
    stream: io.BufferedIOBase, name: str, columns: Sequence[str], lists: Collection[str]
) -> Iterator[TextTable]:
    # From the disk it comes part by part; what is unpacked, at once.
    is_on_disk = isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)
    if is_on_disk:
        digest, source = hashlib.file_digest(stream, "sha256"), Path(stream.name)
    else:
        data = stream.read()
        digest, source = hashlib.sha256(data), io.BytesIO(data)
    try:
        text_tables.check_columns(columns, list(pl.read_parquet_schema(source)), name)
        table = pl.scan_parquet(source).select(columns)
        frames = table.collect_batches(chunk_size=_BATCH_ROWS)
        row = 1
        # An empty file is a table, too.
        for frame in itertools.chain(frames, [table.head(0).collect()]):
            texts = [_as_text(frame[column], name, column in lists) for column in columns]
            yield TextTable(pl.DataFrame(texts), name, row, False, digest.hexdigest())
            row += frame.height
    except PolarsError as error:
        reason = first_line(error)
        raise InputError(f"{name}: cannot be read as Parquet ({reason}); get it anew") from error


def _as_text(column: pl.Series, name: str, may_be_list: bool) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array) and may_be_list:
        column = column.cast(pl.List(dtype.inner))
        if isinstance(dtype.inner, pl.Struct):
            if "name" not in {field.name for field in dtype.inner.fields}:
                raise InputError(f"{name}: {column.name} is of objects without a name")
            column = column.list.eval(pl.element().struct.field("name"))
        elif dtype.inner.is_nested():
            raise InputError(f"{name}: {column.name} is of lists of lists; give one list an item")
        return column.cast(pl.List(pl.String))
    if dtype.is_nested():
        raise InputError(f"{name}: {column.name} is of type {dtype}; give a text or a number a row")
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return column.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
    if dtype == pl.Boolean:
        return column.replace_strict({True: "true", False: "false"}, return_dtype=pl.String)
    text = column.cast(pl.String)
    # A column of whole numbers that lacks one is made one of 1.0, 2.0, ... by pandas.
    return text.str.replace(r"^(-?[0-9]+)\.0+$", "$1") if dtype.is_numeric() else text
