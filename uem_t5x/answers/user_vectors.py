"""Vectors of users on the disk: a Parquet file or an npz of `user_id` and `vectors`.

In Parquet a row is a user: `user_id`, a text, and `vectors`, `[tokens, width]` float32 or, if they
are pooled, `[width]`. An npz holds the same as two arrays.
"""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float32
from polars.exceptions import PolarsError

from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError, first_line

_USER_ID, _VECTORS = "user_id", "vectors"
_SUFFIXES = (".parquet", ".npz")


class UserVectors(NamedTuple):
    """Users and their vectors.

    Attributes:
      ids: texts.
      vectors: every token's, or pooled.
    """

    ids: Sequence[str]
    vectors: Float32[np.ndarray, "users *tokens width"]


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuses a file whose name says neither Parquet nor npz.

    Raises:
      InputError: if it does.
    """
    if PurePosixPath(os.fspath(path)).suffix not in _SUFFIXES:
        raise InputError(f"{os.fspath(path)}: give a name that ends in {' or '.join(_SUFFIXES)}")


def write(path: str | os.PathLike[str], users: UserVectors) -> None:
    """Writes a file, whole or not at all.

    Raises:
      InputError: as in `check_name`.
    """
    check_name(path)
    file = io.BytesIO()
    if PurePosixPath(os.fspath(path)).suffix == ".npz":
        ids = np.array(users.ids, dtype=np.str_)
        np.savez(file, **{_USER_ID: ids, _VECTORS: users.vectors})
    else:
        dtype = pl.Array(pl.Float32, users.vectors.shape[1:])
        columns = [
            pl.Series(_USER_ID, users.ids, dtype=pl.String),
            pl.Series(_VECTORS, users.vectors, dtype=dtype),
        ]
        pl.DataFrame(columns).write_parquet(file)
    atomic.write_bytes(path, file.getvalue())


def read(path: str | os.PathLike[str]) -> UserVectors:
    """Reads a file that `write` wrote.

    Raises:
      InputError: if it is none.
    """
    check_name(path)
    data = io.BytesIO(epath.Path(path).read_bytes())
    try:
        if PurePosixPath(os.fspath(path)).suffix == ".npz":
            with np.load(data) as arrays:
                ids, vectors = arrays[_USER_ID].tolist(), arrays[_VECTORS]
        else:
            frame = pl.read_parquet(data)
            ids, vectors = frame[_USER_ID].to_list(), frame[_VECTORS].to_numpy()
    except (ValueError, KeyError, zipfile.BadZipFile, PolarsError) as error:
        raise InputError(
            f"{os.fspath(path)}: no vectors of users ({first_line(error)}); make them with "
            "`uem-t5x embed`"
        ) from error
    return UserVectors(ids, np.asarray(vectors, np.float32))
