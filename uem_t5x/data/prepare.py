"""Builds a dataset folder: reads, joins, labels, splits, encodes and writes, in that order."""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from uem_t5x.base import buckets, progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, joining, source_files, source_joining, sources, writing
from uem_t5x.data.channel_encoders import ChannelEncoders
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.joining import Joined
from uem_t5x.data.manifest import Manifest, Split
from uem_t5x.data.options import MIN_HISTORY, PrepareOptions
from uem_t5x.data.sources import Source
from uem_t5x.data.splits import TRAIN, split_users
from uem_t5x.tastes.telling import Telling

_UNRECORDED = ("output", "overwrite")
_OF_SOURCES = ("source", "data")  # of MovieLens they are not recorded, as they never were
_SCRATCH = "scratch"  # what does not fit into memory meanwhile


def prepare(options: PrepareOptions, start: progress.Start = progress.unseen) -> DatasetFolder:
    """Writes a dataset folder.

    Args:
        options: what to read, what to keep, where to write.
        start: is told of each step, and how far it is; by default nothing is shown.

    Returns:
        The folder, opened.

    Raises:
        InputError: if an option or an input is refused; then `options.output` is as it was.
    """
    options = check(options)
    if buckets.is_remote(options.output):
        raise InputError(
            f"--output {options.output}: write a folder here, and copy it to the bucket"
        )
    with dataset_folder.writing(options.output, options.overwrite) as folder:
        source = None if options.source is None else source_files.read_source(options.source)
        options = with_min_history(options, source)
        # The encoders first: that a model is missing should not be found out after the reading.
        encoders = ChannelEncoders(options, source)
        joined = _read(options, source, start, folder / _SCRATCH)
        telling = Telling() if source is None else source.telling

        genres = classes_of(joined.movies, telling)
        users = _split(joined, options)
        embeddings = encoders.encode(joined.movies, telling, start)
        dataset_folder.write_items(folder, joined.movies, embeddings)
        if options.vocabulary_size is not None:
            path = folder / dataset_folder.VOCABULARY
            _train_vocabulary(path, options.vocabulary_size, joined, genres, users[TRAIN], telling)
        splits, counts = writing.write(folder, joined, genres, users, telling, start)
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        manifest = manifest_of(
            options, encoders, genres, telling, splits, joined.counts | counts, joined.sha256
        )
        dataset_folder.write_manifest(folder, manifest)
    return DatasetFolder.open(options.output)


def with_min_history(options: PrepareOptions, source: Source | None) -> PrepareOptions:
    """Returns options that say how many items a history has at least."""
    if options.min_history is not None:
        return options
    has_questions = source is not None and source.telling.has_questions
    return dataclasses.replace(options, min_history=1 if has_questions else MIN_HISTORY)


def classes_of(movies: pl.DataFrame, telling: Telling) -> tuple[str, ...]:
    """Returns the class names of a folder; none where answers do not name any."""
    if telling.has_questions:
        return ()
    return tuple(sorted(movies["genres"].explode().drop_nulls().unique()))


def manifest_of(
    options: PrepareOptions,
    encoders: ChannelEncoders,
    genres: tuple[str, ...],
    telling: Telling,
    splits: Mapping[str, Split],
    counts: Mapping[str, int | float],
    inputs: Mapping[str, str],
) -> Manifest:
    """Returns the manifest of a folder that was made so; see `Manifest`."""
    recorded = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in dataclasses.asdict(options).items()
        if name not in _UNRECORDED and not (name in _OF_SOURCES and value is None)
    }
    return Manifest(
        genres=genres,
        channels=encoders.channels(telling),
        encoder=encoders.record,
        splits=splits,
        has_vocabulary=options.vocabulary_size is not None,
        counts=counts,
        options=recorded,
        inputs=inputs,
        telling=telling,
    )


def check(options: PrepareOptions) -> PrepareOptions:
    """Returns options, with MovieLens by its own name.

    Raises:
        InputError: if some do not go together.
    """
    if options.source == sources.MOVIELENS:
        if options.movielens is not None:
            raise InputError(f"--movielens {options.movielens}: --source says so, too; leave one")
        options = dataclasses.replace(
            options, source=None, data=None, movielens=options.data and Path(options.data)
        )
    if options.source is None:
        if options.movielens is None or options.descriptions is None:
            raise InputError(
                "what is to be read? Give --movielens DIR (or --source movielens --data DIR) and "
                "--descriptions CSV; or --source NAME and --data DIR"
            )
        if options.data is not None:
            raise InputError(f"--data {options.data}: of which form? Give --source NAME, too")
    elif options.data is None or options.movielens is not None or options.descriptions is not None:
        raise InputError(
            f"--source {options.source}: give --data DIR, and neither --movielens nor "
            "--descriptions"
        )
    for split in ("validation", "test"):
        share = getattr(options, f"{split}_users")
        if share < 0 or (isinstance(share, float) and not share < 1):
            raise InputError(
                f"--{split}-users {share}: must be a number of users, or a fraction below 1"
            )
    if options.min_history is not None and options.min_history < 1:
        raise InputError(f"--min-history {options.min_history}: must be at least 1")
    return options


def _read(
    options: PrepareOptions, source: Source | None, start: progress.Start, scratch: Path
) -> Joined:
    """Reads the inputs."""
    if source is not None:
        assert options.data is not None
        return source_joining.read_source(source, options.data, options.min_history, start, scratch)
    assert options.movielens is not None and options.descriptions is not None
    advance = start("reading and joining", 1)
    joined = joining.read_movielens(options.movielens, options.descriptions, options.min_history)
    advance(1)
    return joined


def _split(joined: Joined, options: PrepareOptions) -> dict[str, Int64[np.ndarray, " split"]]:
    """Returns which of the histories are in which split, in increasing order."""
    if joined.asked is not None and joined.asked["split"].count():
        splits = joined.asked["split"].fill_null(TRAIN)
        if not (splits == TRAIN).any():
            raise InputError(
                "no question is there to be learned from: [questions] split is never train"
            )
        return {name: np.flatnonzero(splits == name) for name in dataset_folder.SPLITS}
    shares = {"test": options.test_users, "validation": options.validation_users}
    users = split_users(joined.user_ids, shares, options.seed)
    if joined.asked is None:
        return users
    of_users = joined.asked["user"].to_numpy()
    return {name: np.flatnonzero(np.isin(of_users, chosen)) for name, chosen in users.items()}


def _train_vocabulary(
    path: Path,
    size: int,
    joined: Joined,
    genres: tuple[str, ...],
    users: Int64[np.ndarray, " training"],
    telling: Telling,
) -> None:
    """Trains a vocabulary on the answers of `users`, prompts and items."""
    from uem_t5x.data import vocabulary

    some_users = users[: vocabulary.TEXTS]
    if joined.asked is None:
        labels = writing.labels_of(some_users, joined, genres, telling)
        learned, spelled = vocabulary.texts_of_answers(labels, genres, telling)
    else:
        asked = joined.asked[some_users]
        learned = [*asked["question"].unique().sort(), *asked["answer"].unique().sort()]
        spelled = [*joined.asked["question"].unique(), *joined.asked["answer"].unique()]
    vocabulary.train_for_folder(path, size, joined.movies, genres, telling, learned, spelled)
