"""Where files lie: on this machine's disk, or in a bucket (`gs://...`)."""

import os
import re

from etils import epath

_REMOTE = re.compile(r"\w+:/")  # `pathlib` leaves one of two slashes


def is_remote(path: epath.PathLike) -> bool:
    """Tells a bucket's names, and other addresses, from those of the disk."""
    return _REMOTE.match(os.fspath(path)) is not None


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path as Orbax wants it; etils would look for a bucket in the current folder."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).absolute()
