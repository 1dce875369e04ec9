"""Checksums, so that a file that is no longer what was written is found out and not used.

Files are summed with SHA-256. A JSON object holds the sum of what it says itself, whatever its
white space.
"""

import concurrent.futures
import functools
import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import DamagedError, InputError

OWN = "checksum"
_CHUNK = 2**20  # bytes


def sha256(path: epath.PathLike) -> str:
    """Returns the checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def last_change(path: epath.PathLike) -> int | None:
    """Returns when a local file was last written, in nanoseconds, for what is kept of it in memory.

    None if there is no such file; a bucket's is not asked, which would take too long.
    """
    try:
        return None if buckets.is_remote(path) else Path(path).stat().st_mtime_ns
    except OSError:
        return None


def of_files(folder: epath.PathLike, names: Iterable[str]) -> dict[str, str]:
    """Returns the checksums of files, by their names within a folder; several are read at once."""
    names = sorted(names)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sums = pool.map(sha256, (epath.Path(folder) / name for name in names))
        return dict(zip(names, sums))


def check_files(folder: epath.PathLike, sums: Mapping[str, str], mend: str) -> None:
    """Checks that files are what they were when they were summed; several are read at once.

    Args:
      folder: where they lie.
      sums: what `of_files` returned.
      mend: what to do about one that is not.

    Raises:
      DamagedError: naming the first one that is missing or another.
      InputError: if a name leads out of the folder.
    """
    for name in sums:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            shown = reprlib.repr(name)
            raise InputError(f"{folder}: names {shown}, which lies outside of it; {mend}")
    files = (epath.Path(folder) / name for name in sums)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(functools.partial(_check_file, mend), files, sums.values()):
            pass


def _check_file(mend: str, file: epath.Path, expected: str) -> None:
    if not file.is_file():
        raise DamagedError(f"{file}: missing; {mend}")
    if sha256(file) != expected:
        raise DamagedError(f"{file}: damaged: its checksum is another; {mend}")


def signed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a JSON object with their checksum, under `OWN`."""
    return {**fields, OWN: _sum_of_fields(fields)}


def is_signed(fields: Mapping[str, Any]) -> bool:
    """Tells whether the fields are what `signed` returned."""
    rest = {name: value for name, value in fields.items() if name != OWN}
    return fields.get(OWN) == _sum_of_fields(rest)


def _sum_of_fields(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
