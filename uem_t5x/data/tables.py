"""Reads the tables of a source: CSV, JSON lines or Parquet, compressed or not, in parts or whole.

Every value becomes a text, or a list of texts: what it should be is for the caller to say, who can
then name the file and the row of one that is not.
"""

import bz2
import fnmatch
import gzip
import hashlib
import io
import json
import lzma
import reprlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import polars as pl
from polars.exceptions import PolarsError

from uem_t5x.base.errors import InputError
from uem_t5x.data import archives, text_tables
from uem_t5x.data.sources import Table
from uem_t5x.data.text_tables import MAX_LINE_BYTES, TextTable

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".data", ".dat"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_TABS = (".tsv", ".tab")
_BLOCK_BYTES = 2**26
_LOOKED_AT = 1000  # records of JSON, to see which names there are
_SHOWN = 8  # names, in a message
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)


def find(path: Path, table: Table, where: str) -> list[str]:
    """Returns the files of a table, by name.

    Args:
        path: the folder or zip file of the data.
        table: says which files.
        where: how messages call the table.

    Raises:
        InputError: if there are none.
    """
    present = sorted(archives.members(path, "give --data another one", deep=True))
    names = {name: PurePosixPath(name.replace("\\", "/")) for name in present}
    found = [
        name
        for name, place in names.items()
        if any(
            fnmatch.fnmatchcase(str(place), pattern) or fnmatch.fnmatchcase(place.name, pattern)
            for pattern in table.files
        )
    ]
    if not found:
        shown = ", ".join(map(str, list(names.values())[:_SHOWN])) or "nothing"
        raise InputError(
            f"{path}: no file {' or '.join(table.files)}, which {where} asks for; it holds {shown}"
        )
    return found


def read(path: Path, file: str, table: Table, columns: Sequence[str]) -> Iterator[TextTable]:
    """Yields a file, in one part or several; the last one has its checksum.

    Args:
        path: the folder or zip file of the data.
        file: its name there.
        table: how it is read.
        columns: which of its columns are.

    Raises:
        InputError: if it is damaged, of another form, or lacks a column.
    """
    name = f"{path}/{file}"
    plain = PurePosixPath(file)
    while plain.suffix in _COMPRESSED:
        plain = plain.with_suffix("")
    form = table.format or _SUFFIXES.get(plain.suffix)
    if form is None:
        raise InputError(f"{name}: CSV, JSON lines or Parquet? Say so, by format =")
    columns = list(dict.fromkeys(columns))
    try:
        with _open(path, file) as stream:
            if form == "jsonl":
                yield from _read_json_lines(stream, name, columns)
            elif form == "parquet":
                yield _read_parquet(stream.read(), name, columns)
            else:
                yield _read_csv(stream.read(), name, plain.suffix, table, columns)
    except _damage() as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"{name}: cannot be read ({reason[:100]}); get it anew") from error


def _open(path: Path, file: str) -> io.BufferedIOBase:
    if path.is_dir():
        if not (path / file).is_file():
            raise InputError(f"{path / file}: not a regular file; give one that lies on the disk")
        stream: io.BufferedIOBase = (path / file).open("rb")
    else:
        stream = io.BytesIO(archives.read(path, file))
    suffix = PurePosixPath(file).suffix
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=stream)
    if suffix == ".bz2":
        return bz2.BZ2File(stream)
    if suffix == ".xz":
        return lzma.LZMAFile(stream)
    if suffix == ".zst":
        return _open_zstandard(stream, f"{path}/{file}")
    return stream


def _open_zstandard(stream: io.BufferedIOBase, name: str) -> io.BufferedIOBase:
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            f"{name}: the package {error.name} is missing; install uem-t5x[zstandard], or unpack it"
        ) from error
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(stream))


def _damage() -> tuple[type[Exception], ...]:
    """Returns what readers raise of damaged files, as far as any is at work."""
    zstandard = sys.modules.get("zstandard")
    return _DAMAGED if zstandard is None else (*_DAMAGED, zstandard.ZstdError)


# --- CSV ---


def _read_csv(
    data: bytes, name: str, suffix: str, table: Table, columns: Sequence[str]
) -> TextTable:
    digest = hashlib.sha256(data).hexdigest()
    if table.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        try:
            data = data.decode(table.encoding).encode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: byte {error.start} is not {table.encoding}; say another encoding ="
            ) from error
    separator = table.separator or ("\t" if suffix in _TABS else ",")
    header = list(table.header)
    if not header:
        is_short = len(separator.encode()) == 1 and table.quoted
        header = (
            text_tables.csv_header(data, name, separator)
            if is_short
            else data[:MAX_LINE_BYTES].split(b"\n")[0].decode("utf-8-sig").strip().split(separator)
        )
    _check_columns(columns, header, name)
    if table.quoted and len(separator.encode()) == 1:
        if table.header:
            data = separator.join(header).encode() + b"\n" + data
        read = text_tables.read_csv(data, name, columns, separator=separator)
        frame, first_row = read.frame, 1 if table.header else 2
    else:
        rows = data if table.header else data.partition(b"\n")[2]
        read = text_tables.read_unquoted(rows, name, header, separator)
        frame, first_row = read.frame.select(columns), 1 if table.header else 2
    return TextTable(frame, name, first_row, read.ends_mid_line, digest)


def _check_columns(columns: Sequence[str], present: Sequence[str], name: str) -> None:
    for column in columns:
        if column not in present:
            shown = ", ".join(present[:40])
            raise InputError(f"{name}: no column {column!r}; it has {shown}")


# --- JSON lines ---


def _read_json_lines(
    stream: io.BufferedIOBase, name: str, columns: Sequence[str]
) -> Iterator[TextTable]:
    digest, row, seen = hashlib.sha256(), 1, False
    for block in _blocks(stream, name):
        digest.update(block)
        if not seen:
            _check_columns(columns, _names_of(block, name), name)
            seen = True
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=dict.fromkeys(columns, pl.String))
        except PolarsError as error:
            raise _not_json(block, name, row) from error
        frame = pl.DataFrame([_lists(texts) for texts in frame])
        yield TextTable(frame, name, row, False, digest.hexdigest())
        row += block.count(b"\n")
    if not seen:
        raise InputError(f"{name}: empty; get it anew")


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
                f"{name}: a line is longer than {MAX_LINE_BYTES >> 20} MiB, so this is no file of "
                "a JSON object a line; get it anew"
            )
    if rest.strip():
        yield rest


def _names_of(block: bytes, name: str) -> list[str]:
    """Returns the names of the first objects, in order."""
    names: dict[str, None] = {}
    for line in block.split(b"\n", _LOOKED_AT)[:_LOOKED_AT]:
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # told with its line, when all are read
            if not isinstance(record, dict):
                raise InputError(f"{name}: no file of a JSON object a line; say format =")
            names |= dict.fromkeys(record)
    return list(names)


def _not_json(block: bytes, name: str, row: int) -> InputError:
    for number, line in enumerate(block.split(b"\n"), row):
        if line.strip():
            try:
                is_object = isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            if not is_object:
                shown = reprlib.repr(line.decode(errors="replace"))
                return InputError(f"{name}, line {number}: {shown} is no JSON object; get it anew")
    return InputError(f"{name}: no file of a JSON object a line; get it anew")


def _lists(texts: pl.Series) -> pl.Series:
    """Returns a column with its lists and objects, which polars leaves as JSON, as lists of texts.

    Of an object these are its names. A column of both texts and lists has lists of one.
    """
    is_list = texts.str.contains(r"(?s)^(?:\[.*\]|\{.*\})$").fill_null(False)
    if not is_list.any():
        return texts

    def listed(text: str | None) -> list[str] | None:
        if text is None:
            return None
        if text[:1] not in ("[", "{"):
            return [text]
        try:
            values = json.loads(text)
        except ValueError:
            return [text]  # a text in brackets
        return [value if isinstance(value, str) else json.dumps(value) for value in values if value]

    return pl.Series(texts.name, [listed(text) for text in texts], pl.List(pl.String))


# --- Parquet ---


def _read_parquet(data: bytes, name: str, columns: Sequence[str]) -> TextTable:
    try:
        _check_columns(columns, list(pl.read_parquet_schema(io.BytesIO(data))), name)
        frame = pl.read_parquet(io.BytesIO(data), columns=list(columns))
        texts = frame.select(_as_text(frame[column]) for column in columns)
    except PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name}: cannot be read as Parquet ({reason}); get it anew") from error
    return TextTable(texts, name, 1, False, hashlib.sha256(data).hexdigest())


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.List, pl.Array):
        return column.cast(pl.List(pl.String))
    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
    if column.dtype == pl.Boolean:
        return column.cast(pl.UInt8).cast(pl.String)
    return column.cast(pl.String)
