"""The dataset folder: written whole by `uem-t5x prepare`, read by everything after it.

```
manifest.json                     see `uem_t5x.data.manifest`
items/movies.parquet              row, movieId, title, genres, description; row 0 is padding
items/embeddings.safetensors      one float32 matrix [rows, width] a channel
examples/{split}-SSSSS-of-NNNNN.tfrecord
vocabulary/sentencepiece.model    only when a vocabulary was trained for this folder
```

An example is a user: `user_id`; `history_items` (rows of the movie table) and `history_ratings`
(half-stars, 1 to 10), whole and in time order; `liked`, `disliked` (genre names, best or worst
first). 0 pads both ids.

The *catalogue* of a folder is what a trained model needs of it to predict: the manifest, the movie
table and the vocabulary.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float32, UInt8
from safetensors.numpy import load, save_file

from uem_t5x.data import manifest as manifest_lib
from uem_t5x.data.atomic_folder import writing_folder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest
from uem_t5x.errors import InputError

FORMAT_VERSION = manifest_lib.FORMAT_VERSION
SPLITS = ("train", "validation", "test")
MOVIES = Path("items/movies.parquet")
EMBEDDINGS = Path("items/embeddings.safetensors")
EXAMPLES = Path("examples")
VOCABULARY = Path("vocabulary/sentencepiece.model")


@dataclasses.dataclass(frozen=True)
class DatasetFolder:
    """A dataset folder, opened for reading; nothing but the manifest is read until asked for.

    It may lie in a bucket (`gs://...`).
    """

    path: epath.Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], catalogue_only: bool = False) -> "DatasetFolder":
        """Opens a folder and checks that it is whole.

        Args:
            path: the folder.
            catalogue_only: asks for no more than `copy_catalogue` copies.

        Raises:
            InputError: if the folder or one of its files is missing, or its format is newer.
        """
        path = epath.Path(path)
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; make one with `uem-t5x prepare`")
        folder = cls(path, Manifest.read(path))
        for file in folder._files(catalogue_only):
            if not file.is_file():
                raise InputError(
                    f"{file}: missing from the dataset folder; copy the whole folder, or make it "
                    "again with `uem-t5x prepare --overwrite`"
                )
        return folder

    @property
    def genres(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return self.manifest.genres

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels, in the order in which an item's embedding concatenates them."""
        return self.manifest.channels

    @property
    def encoder(self) -> EncoderRecord:
        """What encoded the sentences of the channels."""
        return self.manifest.encoder

    @property
    def vocabulary_path(self) -> epath.Path | None:
        """The SentencePiece model that was trained for this folder, if one was."""
        return self.path / VOCABULARY if self.manifest.has_vocabulary else None

    def movies(self) -> pl.DataFrame:
        """Returns the movie table.

        Returns:
            A frame of `row` (int32), `movieId` (int64), `title`, `genres` (a list of names) and
            `description`. Rows are numbered from 0, which is padding.
        """
        return pl.read_parquet(io.BytesIO((self.path / MOVIES).read_bytes()))

    def embeddings(self) -> dict[str, Float32[np.ndarray, "rows width"]]:
        """Returns the matrix of each channel; row 0 is zero."""
        return load((self.path / EMBEDDINGS).read_bytes())

    def genre_matrix(self) -> UInt8[np.ndarray, "rows genres"]:
        """Returns 1 where the movie of a row has the genre, 0 elsewhere; row 0 is zero."""
        return genre_matrix(self.movies(), self.genres)

    def examples(self, split: str) -> list[epath.Path]:
        """Returns the TFRecord files of a split, sorted.

        Raises:
            InputError: if there is no such split.
        """
        return shard_paths(self.path, split, self._split(split).shards)

    def num_examples(self, split: str) -> int:
        """Returns the number of users in a split.

        Raises:
            InputError: if there is no such split.
        """
        return self._split(split).examples

    def _split(self, split: str) -> manifest_lib.Split:
        if split not in self.manifest.splits:
            known = ", ".join(self.manifest.splits)
            raise InputError(f"{self.path}: no split {split!r}; choose one of {known}")
        return self.manifest.splits[split]

    def _files(self, catalogue_only: bool) -> Iterator[epath.Path]:
        yield self.path / MOVIES
        if self.vocabulary_path:
            yield self.vocabulary_path
        if not catalogue_only:
            yield self.path / EMBEDDINGS
            for split in self.manifest.splits:
                yield from self.examples(split)


def genre_matrix(movies: pl.DataFrame, genres: Sequence[str]) -> UInt8[np.ndarray, "rows genres"]:
    """Returns 1 where the movie of a row has the genre, 0 elsewhere.

    Args:
        movies: a movie table, with a list of names in `genres`; its rows give the matrix's rows.
        genres: the class names, which give the matrix's columns.
    """
    has = pl.col("genres").list.contains
    return movies.select(has(genre).cast(pl.UInt8).alias(genre) for genre in genres).to_numpy()


def shard_paths(folder: epath.PathLike, split: str, shards: int) -> list[epath.Path]:
    """Returns where the examples of a split lie in a dataset folder."""
    names = [f"{split}-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)]
    return [epath.Path(folder) / EXAMPLES / name for name in names]


def write_items(
    folder: Path,
    movies: pl.DataFrame,
    embeddings: Mapping[str, Float32[np.ndarray, "rows width"]],
) -> None:
    """Writes the movie table and the matrix of each channel into a new dataset folder."""
    (folder / MOVIES).parent.mkdir(exist_ok=True)
    movies.write_parquet(folder / MOVIES)
    save_file(dict(embeddings), folder / EMBEDDINGS)


def copy_catalogue(folder: DatasetFolder, destination: str | os.PathLike[str]) -> None:
    """Copies what a model needs to predict, so that a checkpoint does so without the folder.

    `DatasetFolder.open(destination, catalogue_only=True)` opens the copy.
    """
    destination = epath.Path(destination)
    files = [folder.path / manifest_lib.FILE_NAME, *folder._files(catalogue_only=True)]
    for file in files:
        target = destination / file.relative_to(folder.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.copy(target, overwrite=True)


def writing(
    path: str | os.PathLike[str], overwrite: bool = False
) -> contextlib.AbstractContextManager[Path]:
    """Gives a folder to write into, which becomes the dataset folder `path` when the block ends.

    Args:
        path: where the finished folder will lie; its parents are created.
        overwrite: replaces a dataset folder that is already there, of any format version.

    Raises:
        InputError: if something is there that is not a dataset folder, or is one and `overwrite`
            is False.
    """
    return writing_folder(Path(path), "dataset folder", _has_manifest, overwrite)


def _has_manifest(path: Path) -> bool:
    return (path / manifest_lib.FILE_NAME).is_file()
