"""Channels of a dataset folder: one more, one less, and what each holds.

A channel is a matrix of `items/embeddings.safetensors`, with a row for each of
`items/movies.parquet` or for each rating, and its line in the manifest. Vectors come from a file
that has them by the ids of items, or by stars, or are made of pictures of items.
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32, Shaped
from polars.exceptions import PolarsError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from uem_t5x.base import buckets, progress
from uem_t5x.base.errors import InputError, first_line
from uem_t5x.data import dataset_folder
from uem_t5x.data.dataset_folder import EMBEDDINGS, DatasetFolder
from uem_t5x.data.manifest import Channel
from uem_t5x.encoders import images
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR, RATING_ROWS

ITEM, RATING = "item", "rating"
# What a file calls the ids of its vectors, by what they are of, and the vectors.
ID_NAMES = {ITEM: "movieId", RATING: "rating"}
VECTOR, IDS, VECTORS = "vector", "ids", "vectors"
Id = int | float | str  # of an item, or stars
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Filled(NamedTuple):
    """A channel, and of how many rows it has a vector.

    Attributes:
      channel: name, width, and what it is of.
      filled: rows with a vector; others are zeros.
      rows: rows but for padding: the items, or the ratings.
      unknown: how many pictures were left out, being of items that the folder does not know.
    """

    channel: Channel
    filled: int
    rows: int
    unknown: int = 0


class _ById(NamedTuple):
    """Vectors as a file has them; `ids` are None where they are in the order of the rows."""

    ids: Shaped[np.ndarray, " vectors"] | None
    vectors: Shaped[np.ndarray, "vectors width"]


def describe(folder: DatasetFolder) -> list[Filled]:
    """Returns the channels of a folder, in order."""
    matrices = folder.embeddings()
    return [_filled(channel, matrices[channel.name]) for channel in folder.channels]


def add(
    path: str | os.PathLike[str],
    name: str,
    vectors: str | os.PathLike[str],
    index: str = ITEM,
    ids: str | os.PathLike[str] | None = None,
) -> Filled:
    """Adds a channel to a dataset folder, whose models have to be trained anew.

    Vectors are brought to unit length, as those of sentences are: a model multiplies each channel
    by the square root of its width, so that all weigh alike. What has none is all zeros.

    Args:
      path: a dataset folder, not in a bucket.
      name: of the channel: small letters, digits and `_`.
      vectors: a file of vectors. Parquet: `movieId` (or `rating`, in stars) and `vector`, a list of
        numbers; safetensors: `ids` and `vectors`; npy: a matrix, whose ids are in another file, or
        which has a row for each movie of `items/movies.parquet`, or for 0.5 to 5 stars.
      index: `item` or `rating`: what they are of.
      ids: an npy file of the ids of an npy file's vectors.

    Raises:
      InputError: if there is a channel of this name, the file cannot be read, or its vectors are of
        unknown items, of one item twice, or not finite. Then the folder is as it was.
    """
    folder = _open_for(path, name)
    rows = _rows(folder, index)
    matrix = _as_matrix(_read(Path(vectors), index, ids), rows, Path(vectors))
    return _append(folder, Channel(name, matrix.shape[1], index), matrix)


def add_pictures(
    path: str | os.PathLike[str],
    name: str,
    pictures: str | os.PathLike[str],
    image_encoder: str,
    start: progress.Start = progress.unseen,
) -> Filled:
    """Adds a channel of pictures of items to a dataset folder; see `add`.

    Pictures of items that the folder does not know are counted, and not looked at.

    Args:
      path: a dataset folder, not in a bucket.
      name: of the channel: small letters, digits and `_`.
      pictures: a folder of pictures, named by their items' ids; see `images.find_pictures`.
      image_encoder: a vision model of Transformers, by its folder or its name on the hub.
      start: starts the display of progress.

    Raises:
      InputError: if there is a channel of this name, no picture is of an item of the folder, one
        cannot be read, or the encoder cannot be loaded. Then the folder is as it was.
    """
    folder = _open_for(path, name)
    rows = _rows(folder, ITEM)
    by_id = images.find_pictures(pictures, isinstance(next(iter(rows)), int))
    known = [item for item in by_id if item in rows]
    if not known:
        raise InputError(
            f"{pictures}: none of its {len(by_id)} pictures is of an item of {folder.path}; name "
            "them by movieId"
        )
    encoder = images.ImageEncoder(image_encoder)
    advance = start("encoding pictures", len(known))
    vectors = encoder.encode([by_id[item] for item in known], advance)
    matrix = _as_matrix(_ById(np.array(known), vectors), rows, Path(pictures))
    added = _append(folder, Channel(name, matrix.shape[1], ITEM), matrix)
    return added._replace(unknown=len(by_id) - len(known))


def remove(path: str | os.PathLike[str], name: str) -> None:
    """Takes a channel out of a dataset folder.

    Args:
      path: a dataset folder, not in a bucket.
      name: of the channel.

    Raises:
      InputError: if there is none of this name, or no other. Then the folder is as it was.
    """
    _check_is_local(path)
    folder = DatasetFolder.open(path)
    left = [channel for channel in folder.channels if channel.name != name]
    names = ", ".join(channel.name for channel in folder.channels)
    if len(left) == len(folder.channels):
        raise InputError(f"{folder.path}: no channel {name!r}; it has {names}")
    if not left:
        raise InputError(f"{folder.path}: {name!r} is its only channel; add another one first")
    matrices = folder.embeddings()
    _rewrite(folder, left, {channel.name: matrices[channel.name] for channel in left})


def _open_for(path: str | os.PathLike[str], name: str) -> DatasetFolder:
    """Opens a folder that a channel of this name may be added to."""
    _check_is_local(path)
    folder = DatasetFolder.open(path)
    if not _NAME.fullmatch(name):
        raise InputError(f"--name {name!r}: use small letters, digits and _, first a letter")
    if name in {channel.name for channel in folder.channels}:
        raise InputError(f"{folder.path}: already has a channel {name!r}; give --name another one")
    if name in folder.telling.sentences:  # else it would be taken for one that is made of text
        raise InputError(f"--name {name!r}: what is told of items is called so; give another one")
    return folder


def _append(
    folder: DatasetFolder, channel: Channel, matrix: Float32[np.ndarray, "rows width"]
) -> Filled:
    matrices = folder.embeddings() | {channel.name: matrix}
    _rewrite(folder, [*folder.channels, channel], matrices)
    return _filled(channel, matrix)


def _check_is_local(path: str | os.PathLike[str]) -> None:
    if buckets.is_remote(path):
        raise InputError(f"{path}: copy it here, change its channels, and copy it to the bucket")


def _filled(channel: Channel, matrix: Float32[np.ndarray, "rows width"]) -> Filled:
    filled = int(np.any(matrix[1:], axis=1).sum())
    return Filled(channel, filled, len(matrix) - 1)


def _rows(folder: DatasetFolder, index: str) -> dict[Id, int]:
    """Returns the row of each item's id, or of each number of stars."""
    if index == RATING:
        return {row / HALF_STARS_PER_STAR: row for row in range(1, RATING_ROWS)}
    return {movie_id: row for row, movie_id in folder.movies()[1:].select("row", "movieId").rows()}


def _rewrite(
    folder: DatasetFolder,
    channels: Sequence[Channel],
    matrices: Mapping[str, Float32[np.ndarray, "rows width"]],
) -> None:
    """Replaces a folder by one of other channels; at every moment one or the other is there."""
    with dataset_folder.writing(folder.path, overwrite=True) as partial:
        for file in folder.manifest.files:
            if file != str(EMBEDDINGS):
                _link(Path(folder.path) / file, partial / file)
        (partial / EMBEDDINGS).parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(matrices), partial / EMBEDDINGS)
        manifest = dataclasses.replace(folder.manifest, channels=tuple(channels))
        dataset_folder.write_manifest(partial, manifest)


def _link(source: Path, target: Path) -> None:
    """Has the same file under another name, or a copy where the disk knows no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# --- Files of vectors ---


def _read(path: Path, index: str, ids: str | os.PathLike[str] | None) -> _ById:
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: give --vectors a file of {', '.join(readers)}")
    if ids is not None and path.suffix != ".npy":
        raise InputError(f"--ids {ids}: {path} holds its own; leave --ids out")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        by_id = reader(path, index)
        if ids is not None:
            by_id = by_id._replace(ids=np.load(ids))
    except (OSError, ValueError, SafetensorError, PolarsError) as error:
        reason = first_line(error)
        raise InputError(f"{path}: vectors cannot be read ({reason}); write it again") from error
    return by_id


def _read_npy(path: Path, index: str) -> _ById:
    del index
    return _ById(None, np.load(path))


def _read_safetensors(path: Path, index: str) -> _ById:
    del index
    tensors = load_file(path)
    if tensors.keys() != {IDS, VECTORS}:
        raise InputError(
            f"{path}: needs the tensors {IDS!r} and {VECTORS!r}; it has "
            f"{', '.join(tensors) or 'none'}"
        )
    return _ById(tensors[IDS], tensors[VECTORS])


def _read_parquet(path: Path, index: str) -> _ById:
    table, id_name = pl.read_parquet(path), ID_NAMES[index]
    if lacking := {id_name, VECTOR} - set(table.columns):
        raise InputError(
            f"{path}: no column {min(lacking)!r}; it has {', '.join(table.columns)}; name the ids "
            f"{id_name!r} and the lists of numbers {VECTOR!r}"
        )
    lists = table[VECTOR]
    widths = lists.list.len() if lists.dtype == pl.List else lists.arr.len()
    if lists.null_count() or widths.n_unique() != 1:
        raise InputError(f"{path}: {VECTOR!r} is not as long in every row; give each item as many")
    flat = lists.explode()
    if flat.null_count():
        raise InputError(f"{path}: {VECTOR!r} lacks numbers; give each vector all of them")
    return _ById(table[id_name].to_numpy(), flat.to_numpy().reshape(table.height, widths[0]))


def _as_matrix(
    by_id: _ById, rows: Mapping[Id, int], path: Path
) -> Float32[np.ndarray, "rows width"]:
    """Returns a matrix of unit vectors, with a row for padding and one for each of `rows`."""
    ids, vectors = by_id
    is_of_numbers = vectors.ndim == 2 and vectors.shape[1] > 0 and vectors.dtype.kind in "fiu"
    if not is_of_numbers:
        raise InputError(
            f"{path}: {vectors.dtype}{list(vectors.shape)} is no matrix of numbers, a row a vector"
        )
    if ids is None:
        if len(vectors) != len(rows):
            raise InputError(
                f"{path}: {len(vectors)} vectors, and {len(rows)} rows that could have one; give "
                "as many, in the rows' order, or say whose they are: --ids FILE.npy"
            )
        ids = np.array(list(rows))
    if ids.shape != (len(vectors),):
        raise InputError(
            f"{path}: {len(vectors)} vectors and ids of shape {list(ids.shape)}; give each one"
        )
    if any(isinstance(one, list | np.ndarray) for one in ids.tolist()):
        raise InputError(f"{path}: ids are lists; give each vector one")
    taken: dict[Id, int] = {}
    for place, one in enumerate(ids.tolist()):
        if one not in rows:
            raise InputError(
                f"{path}: vector {place} is of {one!r}, which the folder does not know"
            )
        if one in taken:
            raise InputError(f"{path}: vectors {taken[one]} and {place} are both of {one!r}")
        taken[one] = place
    vectors = np.asarray(vectors, np.float64)
    is_finite = np.isfinite(vectors).all(axis=1)
    if not is_finite.all():
        place = int(is_finite.argmin())
        raise InputError(
            f"{path}: vector {place}, of {ids[place].item()!r}, holds a value that is not finite"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix = np.zeros((len(rows) + 1, vectors.shape[1]), np.float32)
    matrix[[rows[one] for one in taken]] = vectors / np.where(lengths > 0, lengths, 1)
    return matrix
