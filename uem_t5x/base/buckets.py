"""Where files lie: on this machine's disk, or in a bucket (`gs://...`)."""

import fnmatch
import os
import re
from pathlib import Path

from etils import epath

from uem_t5x.base.errors import InputError, line_of

_ADDRESS = re.compile(r"(\w+):/")  # `pathlib` leaves one of two slashes
_BUCKET = "gs"
_PATTERN = re.compile(r"[*?\[]")


def is_remote(path: epath.PathLike) -> bool:
    """Tells a bucket's names, and other addresses, from those of the disk."""
    return _ADDRESS.match(os.fspath(path)) is not None


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path as Orbax wants it; etils would look for a bucket in the current folder."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).absolute()


def place(path: epath.PathLike) -> epath.Path | Path:
    """Returns a path as `pathlib` has it, unless it is in a bucket.

    What etils takes for a file may be a pipe, on which reading waits for ever.
    """
    return epath.Path(path) if is_remote(path) else Path(path)


def named(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
    """Returns what lies in a folder under a name that matches a pattern, sorted; nothing if none.

    Unlike `glob`, which takes the folder's own name for a part of the pattern.
    """
    folder = epath.Path(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if fnmatch.fnmatchcase(path.name, pattern))


def check(path: epath.PathLike) -> None:
    """Refuses a name that means another place than it seems to.

    Raises:
        InputError: if the name is an address that is not a bucket's, or begins with `~`.
    """
    name = os.fspath(path)
    address = _ADDRESS.match(name)
    if address and address[1] != _BUCKET:
        raise InputError(
            f"{name}: {address[1]}:// is neither read nor written; give a folder or file of this "
            f"machine by its path alone, or a bucket's ({_BUCKET}://BUCKET/NAME)"
        )
    if name.startswith("~"):
        raise InputError(
            f"{name}: no shell has replaced the ~ (behind = none does); write $HOME in its place, "
            f"or ./{name} if that is its name"
        )


def check_reached(path: epath.PathLike) -> None:
    """Makes sure, before it matters, that a place can be asked for what lies there.

    Raises:
        InputError: as in `check`.
        OSError: naming the place, if its bucket cannot be asked.
    """
    check(path)
    if is_remote(path):
        try:
            epath.Path(path).exists()
        except Exception as error:
            if (said := line_of(error)) is None:
                raise
            raise OSError(
                f"{os.fspath(path)}: cannot be reached ({said}); look at the network, the bucket's "
                "name and what this machine may do there"
            ) from error


def check_no_pattern(path: epath.PathLike, mend: str) -> None:
    """Refuses a place that is looked through by a pattern, of which its own name would be a part.

    Raises:
        InputError: if its absolute path holds `*`, `?` or `[`.
    """
    name = os.fspath(absolute(path))
    if found := _PATTERN.search(name):
        raise InputError(f"{name}: the {found[0]} in it would be taken for a pattern; {mend}")


def check_for_arrays(path: epath.PathLike, are_written: bool) -> None:
    r"""Refuses a folder where Orbax or TensorStore would lose arrays, or look for others.

    Args:
        path: the folder.
        are_written: whether arrays are written there, or only read.

    Raises:
        InputError: if its absolute path holds a backslash, which TensorStore takes for a slash; or
            `*`, `?` or `[`, by which Orbax would not find what it has written.
        OSError: as in `check_reached`.
    """
    check_reached(path)
    name = os.fspath(absolute(path))
    if "\\" in name:
        raise InputError(
            f"{name}: the backslash in it would be taken for a slash; rename the folder that has it"
        )
    if are_written:
        check_no_pattern(path, "choose a folder for checkpoints without any of * ? [")
