"""The files of a folder or of a zip file, which is not unpacked to the disk."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.data import text_tables

_MAX_NAME = 200  # the letters of a member, for messages
_MACOS = "__MACOSX/"  # where macOS keeps what other systems do not know, a file for each

# Tables of text are compressed to a third or a quarter, zeros to a thousandth. A smaller one than
# the second figure is no danger, however well it is compressed.
_MAX_COMPRESSION = 30
_HARMLESS_BYTES = 2**26
# Python's other decompressors do not stop at the size that a zip file declares.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# RuntimeError: it wants a password, or is of an unknown kind. ValueError: a name that is no text,
# or an offset before the file.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)


def members(path: epath.PathLike, mend: str, deep: bool = False) -> list[str]:
    """Returns the names of the files of a folder or zip file.

    Args:
        path: of the folder or zip file.
        mend: what to do if there is none.
        deep: whether files in folders of the folder are meant, too, as of a zip file they always
            are, and files of any name.

    Raises:
        InputError: if it is neither.
    """
    place = buckets.place(path)
    try:
        if place.is_dir():
            files = _below(place) if deep else place.iterdir()
            names = [file.relative_to(place).as_posix() for file in files]
        elif not place.is_file():
            names = None
        else:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
    except _ZIP_ERRORS as error:
        raise InputError(
            f"{path}: neither a folder nor a readable zip file; get it anew"
        ) from error
    if names is None:
        raise InputError(f"{path}: no such folder or zip file; {mend}")
    names = [
        name for name in names if not name.startswith(_MACOS) and not name.endswith(("/", "\\"))
    ]
    if deep:
        return names
    # A name that would break the line of a message is none that anybody published.
    return [name for name in names if name.isprintable() and len(name) <= _MAX_NAME]


def _below(path: epath.Path | Path) -> Iterator[epath.Path | Path]:
    if isinstance(path, Path):
        yield from (file for file in path.rglob("*") if file.is_file())
        return
    for entry in path.iterdir():
        if entry.is_dir():
            yield from _below(entry)
        else:
            yield entry


def read(path: epath.PathLike, member: str) -> bytes:
    """Returns the content of a file of a folder or zip file.

    Raises:
        InputError: if it is damaged, or would take more memory than a table of its size does.
    """
    path = Path(path)
    if path.is_dir():
        return text_tables.read_file(path / member)
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
            danger = _danger(info, path.stat().st_size)
            if danger is None:
                with archive.open(info) as file:
                    return file.read(info.file_size)  # and no more, whatever it unpacks to
    except _ZIP_ERRORS as error:
        raise InputError(f"{path}: {member} is damaged ({error}); get the zip file anew") from error
    raise InputError(
        f"{path}: {member} {danger}; get the zip file anew, or unpack it and give the folder"
    )


def _danger(member: zipfile.ZipInfo, archive_size: int) -> str | None:
    """Returns why unpacking may take more memory than any table would; None if it cannot."""
    if member.compress_type not in _COMPRESSIONS:
        return "is not compressed by deflate, so that nothing bounds its size"
    compressed = min(member.compress_size, archive_size)
    if member.file_size > max(_HARMLESS_BYTES, _MAX_COMPRESSION * compressed):
        return f"has {member.file_size} bytes, but only {compressed} when compressed"
    return None
