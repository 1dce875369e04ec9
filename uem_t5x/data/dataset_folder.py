"""The dataset folder: written whole by `uem-t5x prepare`, read by everything after it.

```
manifest.json                     see `uem_t5x.data.manifest`
items/movies.parquet              row, movieId, title, genres, description; row 0 is padding
items/embeddings.safetensors      one float32 matrix [rows, width] a channel
items/rating_counts.parquet       row, ratings: by how many users of training; older folders lack it
examples/{split}-SSSSS-of-NNNNN.tfrecord
vocabulary/sentencepiece.model    only when a vocabulary was trained for this folder
```

An example is a user: `user_id`; `history_items` (rows of the movie table) and `history_ratings`
(half-stars, 1 to 10), whole and in time order; `liked`, `disliked` (genre names, best or worst
first). 0 pads both ids.

The *catalogue* of a folder is what a trained model needs of it to predict: the manifest, the movie
table, how often they were rated, and the vocabulary.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float32, Int64, UInt8
from safetensors import safe_open
from safetensors.numpy import load, save_file

from uem_t5x.base import atomic, buckets, checksums
from uem_t5x.base.errors import InputError
from uem_t5x.data import manifest as manifest_lib
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest
from uem_t5x.tastes import sentences
from uem_t5x.tastes.rating_scale import RATING_ROWS
from uem_t5x.tastes.telling import Telling

SPLITS = ("train", "validation", "test")
MOVIES = Path("items/movies.parquet")
EMBEDDINGS = Path("items/embeddings.safetensors")
RATING_COUNTS = Path("items/rating_counts.parquet")
EXAMPLES = Path("examples")
VOCABULARY = Path("vocabulary/sentencepiece.model")
CATALOGUE = Path("catalogue")  # below a MODEL_DIR
_FILES = re.compile(
    rf"{manifest_lib.FILE_NAME}|{MOVIES}|{EMBEDDINGS}|{RATING_COUNTS}|{VOCABULARY}|"
    rf"{EXAMPLES}/({'|'.join(SPLITS)})-\d+-of-\d+\.tfrecord"
)


@dataclasses.dataclass(frozen=True)
class DatasetFolder:
    """A dataset folder, opened for reading; nothing but the manifest is read until asked for.

    It may lie in a bucket (`gs://...`).
    """

    path: epath.Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "DatasetFolder":
        """Opens a folder, or a catalogue, and checks that it is whole and as it was written.

        Raises:
            InputError: if the folder or one of its files is missing or damaged, or its format is
                of another version.
            OSError: if it is in a bucket that cannot be reached.
        """
        buckets.check_reached(path)
        path = epath.Path(path)
        manifest = Manifest.read(path)
        mend = (
            "copy the whole folder again, or make it again with `uem-t5x prepare --overwrite`. If "
            f"you have changed it yourself: `uem-t5x seal {path}`"
        )
        checksums.check_files(path, manifest.files, mend)
        return cls(path, manifest)

    def has_catalogue_of(self, other: "DatasetFolder") -> bool:
        """Whether both have the same movies, genres, channels and sentence encoder.

        Their users may be others, and so may the place that the encoder was loaded from.
        """

        def catalogue(folder: DatasetFolder) -> tuple[object, ...]:
            channels = [(c.name, c.width, c.index) for c in folder.channels]
            return folder.genres, channels, folder.manifest.files[str(MOVIES)]

        return catalogue(self) == catalogue(other) and all(
            self.encoder_of(mine).is_same(other.encoder_of(theirs))
            for mine, theirs in zip(self.channels, other.channels)
        )

    def encoder_of(self, channel: Channel) -> EncoderRecord:
        """Returns what encoded the sentences of a channel, if it was made of any."""
        return channel.encoder or self.encoder

    def has_inputs_of(self, other: "DatasetFolder") -> bool:
        """Whether `prepare` made both of the same files, whatever it did with them."""
        mine, theirs = (sorted(folder.manifest.inputs.values()) for folder in (self, other))
        return mine == theirs

    def has_split_of(self, other: "DatasetFolder", split: str) -> bool:
        """Whether a split has the same users in both, with the same histories and labels.

        Of a catalogue from before format 3, which cannot tell, that is taken for granted.
        """
        mine, theirs = (folder.manifest.splits.get(split) for folder in (self, other))
        if mine and theirs and None in (mine.sha256, theirs.sha256):
            return True
        return mine == theirs

    def fingerprint(self, split: str) -> str:
        """Returns what tells the users of a split, and what their items are, from any others.

        Raises:
            InputError: if there is no such split.
        """
        users, movies = self._split(split).sha256, self.manifest.files[str(MOVIES)]
        return hashlib.sha256(f"{users} {movies}".encode()).hexdigest()

    @property
    def is_catalogue(self) -> bool:
        """Whether it holds no users and no vectors, but what a trained model needs of it."""
        return not any((self.path / name).exists() for name in (EMBEDDINGS, EXAMPLES))

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
    def telling(self) -> Telling:
        """How its histories are told, and what is asked of them."""
        return self.manifest.telling

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

    def rating_counts(self) -> Int64[np.ndarray, " rows"]:
        """Returns how many users of training rated the movie of each row; 0 for padding.

        Raises:
            InputError: if the folder is from before they were written down.
        """
        path = self.path / RATING_COUNTS
        if not path.is_file():
            mend = "train the model anew" if self.is_catalogue else f"`uem-t5x seal {self.path}`"
            raise InputError(f"{path}: missing, as from folders of older versions; {mend}")
        return pl.read_parquet(io.BytesIO(path.read_bytes()))["ratings"].to_numpy()

    def embeddings(self) -> dict[str, Float32[np.ndarray, "rows width"]]:
        """Returns the matrix of each channel; row 0 is zero."""
        return load((self.path / EMBEDDINGS).read_bytes())

    def embedding(self, channel: str) -> Float32[np.ndarray, "rows width"]:
        """Returns the matrix of one channel, by its name; of a local folder, no other is read."""
        if buckets.is_remote(self.path):
            return self.embeddings()[channel]
        with safe_open(self.path / EMBEDDINGS, "numpy") as file:
            return file.get_tensor(channel)

    def embedding_shape(self, channel: Channel) -> tuple[int, int]:
        """Returns the rows and the width of a channel's matrix, which is not read."""
        return RATING_ROWS if channel.index == "rating" else self._item_rows, channel.width

    @functools.cached_property
    def _item_rows(self) -> int:
        return self.movies().height

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


def item_sentences(movies: pl.DataFrame, template: str) -> list[str]:
    """Writes a sentence about each item.

    Args:
        movies: as of `DatasetFolder.movies`.
        template: names columns of it, and `classes`, which are its `genres`.
    """
    named = movies.with_columns(pl.col("movieId").cast(pl.String), classes="genres")
    rows = named.select(set(sentences.names(template)))
    return [sentences.write(template, row) for row in rows.iter_rows(named=True)]


def genre_matrix(movies: pl.DataFrame, genres: Sequence[str]) -> UInt8[np.ndarray, "rows genres"]:
    """Returns 1 where the movie of a row has the genre, 0 elsewhere.

    Args:
        movies: a movie table, with a list of names in `genres`; its rows give the matrix's rows.
        genres: the class names, which give the matrix's columns.
    """
    if not genres:  # of a folder of questions
        return np.zeros((movies.height, 0), np.uint8)
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


def write_rating_counts(folder: epath.PathLike, counts: Int64[np.ndarray, " rows"]) -> None:
    """Writes how many users of training rated the movie of each row."""
    table = pl.DataFrame({"row": np.arange(len(counts), dtype=np.int32), "ratings": counts})
    file = io.BytesIO()
    table.write_parquet(file)
    (epath.Path(folder) / RATING_COUNTS).write_bytes(file.getvalue())


def write_manifest(folder: epath.PathLike, manifest: Manifest) -> None:
    """Writes the manifest of a folder that holds all other files, with the checksums of these.

    Raises:
        InputError: if it does not hold all that the manifest speaks of.
    """
    folder = epath.Path(folder)
    examples = {
        split: [str(path.relative_to(folder)) for path in shard_paths(folder, split, record.shards)]
        for split, record in manifest.splits.items()
    }
    files = [str(MOVIES), str(EMBEDDINGS), *itertools.chain.from_iterable(examples.values())]
    if manifest.has_vocabulary:
        files.append(str(VOCABULARY))
    files += _if_there(folder, RATING_COUNTS)
    sums = _checksums(folder, files)
    splits = {
        split: dataclasses.replace(record, sha256=_digest(sums[name] for name in examples[split]))
        for split, record in manifest.splits.items()
    }
    dataclasses.replace(manifest, splits=splits, files=sums).write(folder)


def write_catalogue_manifest(folder: epath.PathLike, manifest: Manifest) -> None:
    """Writes the manifest of a catalogue that holds its other files, with their checksums.

    Raises:
        InputError: if it does not hold them.
    """
    files = [str(MOVIES), str(VOCABULARY), *_if_there(folder, RATING_COUNTS)]
    sums = _checksums(folder, files)
    dataclasses.replace(manifest, has_vocabulary=True, files=sums).write(folder)


def _if_there(folder: epath.PathLike, file: Path) -> list[str]:
    return [str(file)] if (epath.Path(folder) / file).is_file() else []


def _checksums(folder: epath.PathLike, files: Sequence[str]) -> dict[str, str]:
    for file in files:
        if not (epath.Path(folder) / file).is_file():
            raise InputError(
                f"{folder}/{file}: missing from the folder; copy the whole folder again, or make "
                "it again with `uem-t5x prepare --overwrite`"
            )
    return checksums.of_files(folder, files)


def _digest(sums: Iterable[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def copy_catalogue(
    folder: DatasetFolder, destination: epath.PathLike, vocabulary: epath.PathLike
) -> None:
    """Copies what a model needs to predict, so that a checkpoint does so without the folder.

    `DatasetFolder.open(destination)` opens the copy. The manifest is written last: where it lies,
    the copy is whole.

    Args:
        folder: the dataset folder.
        destination: the folder of the copy.
        vocabulary: the SentencePiece model that the copy gets, whether or not it is the folder's.
    """
    destination = epath.Path(destination)
    sources = [(folder.path / MOVIES, MOVIES), (epath.Path(vocabulary), VOCABULARY)]
    sources += [(folder.path / name, name) for name in _if_there(folder.path, RATING_COUNTS)]
    for source, name in sources:
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source.copy(target, overwrite=True)
    write_catalogue_manifest(destination, folder.manifest)


def writing(
    path: str | os.PathLike[str], overwrite: bool = False
) -> contextlib.AbstractContextManager[Path]:
    """Gives a folder to write into, which becomes the dataset folder `path` when the block ends.

    Args:
        path: where the finished folder will lie; its parents are created.
        overwrite: replaces a dataset folder that is already there, of any format version.

    Raises:
        InputError: if something is there that is not a dataset folder and nothing else, or is one
            and `overwrite` is False.
    """
    return atomic.writing_folder(Path(path), "dataset folder", _is_dataset_folder, overwrite)


def _is_dataset_folder(path: Path) -> bool:
    # A damaged one too, but not the catalogue of a trained model.
    has_data = any((path / name).exists() for name in (EMBEDDINGS, EXAMPLES))
    return has_data and atomic.holds_only(path, _FILES)
