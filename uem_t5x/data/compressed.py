"""Opens files of a folder or of a zip file, unpacked as they are read."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.data import archives

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
_CHUNK_BYTES = 2**20


def plain_name(file: str) -> PurePosixPath:
    """Returns the name that a file has when it is unpacked."""
    name = PurePosixPath(file)
    while name.suffix in SUFFIXES:
        name = name.with_suffix("")
    return name


@contextlib.contextmanager
def opened(path: epath.PathLike, file: str) -> Iterator[io.BufferedIOBase]:
    """Opens a file; what its damage raises while it is read becomes one error.

    Args:
        path: the folder or zip file that it lies in.
        file: its name there.

    Raises:
        InputError: if it is damaged, or cannot be opened.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(_open(path, file, stack))
    except _damage() as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"{path}/{file}: cannot be read ({reason[:100]}); get it anew") from error


class Hashing(io.RawIOBase):
    """A stream that hashes what is read of it.

    Attributes:
        sha256: of that.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream, self.sha256 = stream, hashlib.sha256()

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads as much as is there, and hashes it; returns how much that is."""
        count = self._stream.readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        return count


def _open(path: epath.PathLike, file: str, stack: contextlib.ExitStack) -> io.BufferedIOBase:
    place = buckets.place(path)
    if not isinstance(place, Path):
        in_bucket = _InBucket(stack.enter_context((place / file).open("rb")))
        stream: io.BufferedIOBase = io.BufferedReader(in_bucket, _CHUNK_BYTES)
    elif place.is_dir():
        if not (place / file).is_file():
            raise InputError(f"{place / file}: not a regular file; give one that lies on the disk")
        stream = (place / file).open("rb")
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
        return io.BufferedReader(_Zstandard(stream, f"{path}/{file}"), _CHUNK_BYTES)
    return stream


class _InBucket(io.RawIOBase):
    """An object of a bucket, as Python's own readers take it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Zstandard(io.RawIOBase):
    """The content of a .zst file, of one frame or several; an end within a frame is an error."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise InputError(
                f"{name}: the package {error.name} is missing; install uem-t5x[zstandard], or "
                "unpack the file"
            ) from error
        self._stream, self._make = stream, zstandard.ZstdDecompressor().decompressobj
        self._frame, self._is_begun, self._ready = self._make(), False, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            unread = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._is_begun = self._make(), False
            chunk = unread or self._stream.read(_CHUNK_BYTES)
            if not chunk:
                if self._is_begun:
                    raise EOFError("it ends within a frame of zstd")
                return 0
            self._is_begun = True
            self._ready = self._frame.decompress(chunk)
        length = min(len(buffer), len(self._ready))
        buffer[:length], self._ready = self._ready[:length], self._ready[length:]
        return length


def _damage() -> tuple[type[Exception], ...]:
    """Returns what readers raise of damaged files, as far as any is at work."""
    zstandard = sys.modules.get("zstandard")
    return _DAMAGED if zstandard is None else (*_DAMAGED, zstandard.ZstdError)
