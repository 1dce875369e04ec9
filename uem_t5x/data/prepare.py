"""Builds a dataset folder: reads, joins, labels, splits, encodes and writes, in that order."""

import dataclasses
import functools
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64

from uem_t5x.base import progress, startup
from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, joining, source_files, source_joining, sources
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.histories import Answers, Histories, HistoryLabels
from uem_t5x.data.joining import Joined
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split
from uem_t5x.data.options import MIN_HISTORY, PrepareOptions
from uem_t5x.data.sources import Source
from uem_t5x.data.splits import TRAIN, split_users
from uem_t5x.encoders import sentences as sentence_encoders
from uem_t5x.encoders.vector_cache import CachedEncoder
from uem_t5x.tastes import sentences, verbalizer
from uem_t5x.tastes.telling import Telling

_UNRECORDED = ("output", "overwrite")
_OF_SOURCES = ("source", "data")  # of MovieLens they are not recorded, as they never were
_SCRATCH = "scratch"  # what does not fit into memory meanwhile
_VOCABULARY_TEXTS = 2000  # of each kind; more of them teach a small vocabulary nothing new


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
    options = _check(options)
    with dataset_folder.writing(options.output, options.overwrite) as folder:
        # The encoders first: that a model is missing should not be found out after the reading.
        source = None if options.source is None else source_files.read_source(options.source)
        if options.min_history is None:
            has_questions = source is not None and source.telling.has_questions
            least = 1 if has_questions else MIN_HISTORY
            options = dataclasses.replace(options, min_history=least)
        default, of_channels = _make_encoders(options, source)
        scratch = folder / _SCRATCH
        joined = _read(options, source, start, scratch)
        telling = Telling() if source is None else source.telling

        genres: tuple[str, ...] = ()
        if not telling.has_questions:
            genres = tuple(sorted(joined.movies["genres"].explode().drop_nulls().unique()))
        users = _split(joined, options)
        embeddings = _encode(default, of_channels, joined.movies, telling, start)
        dataset_folder.write_items(folder, joined.movies, embeddings)
        if options.vocabulary_size is not None:
            path, size = folder / dataset_folder.VOCABULARY, options.vocabulary_size
            _train_vocabulary(path, size, joined, genres, users[TRAIN], telling)
        splits, counts = _write_examples(folder, joined, genres, users, telling, start)
        shutil.rmtree(scratch, ignore_errors=True)
        manifest = Manifest(
            genres=genres,
            channels=tuple(
                Channel(
                    name,
                    embeddings[name].shape[1],
                    "rating" if sentences.is_of_rating(template) else "item",
                    _record(of_channels[name]) if name in of_channels else None,
                )
                for name, template in telling.sentences.items()
            ),
            encoder=_record(default),
            splits=splits,
            has_vocabulary=options.vocabulary_size is not None,
            counts=joined.counts | counts,
            options={
                name: os.fspath(value) if isinstance(value, os.PathLike) else value
                for name, value in dataclasses.asdict(options).items()
                if name not in _UNRECORDED and not (name in _OF_SOURCES and value is None)
            },
            inputs=joined.sha256,
            telling=telling,
        )
        dataset_folder.write_manifest(folder, manifest)
    return DatasetFolder.open(options.output)


def _check(options: PrepareOptions) -> PrepareOptions:
    """Refuses options that do not go together; returns them with MovieLens by its own."""
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


def _make_encoders(
    options: PrepareOptions, source: Source | None
) -> tuple[CachedEncoder, dict[str, CachedEncoder]]:
    """Returns the encoder of all channels, and those of channels that have their own."""
    by_name: dict[str, CachedEncoder] = {}

    def make(said: str, width: int | None = None) -> CachedEncoder:
        if said not in by_name:
            name, place = sentence_encoders.split_name(said)
            by_name[said] = CachedEncoder(sentence_encoders.make_encoder(name, width, place), name)
        return by_name[said]

    default = make(options.encoder, options.encoder_width)
    of_channels = {} if source is None else source.encoders
    return default, {channel: make(said) for channel, said in of_channels.items()}


def _record(encoder: CachedEncoder) -> EncoderRecord:
    return EncoderRecord(encoder.name, encoder.width, encoder.source, encoder.sha256)


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
        return {name: np.flatnonzero(splits == name) for name in dataset_folder.SPLITS}
    shares = {"test": options.test_users, "validation": options.validation_users}
    users = split_users(joined.user_ids, shares, options.seed)
    if joined.asked is None:
        return users
    of_users = joined.asked["user"].to_numpy()
    return {name: np.flatnonzero(np.isin(of_users, chosen)) for name, chosen in users.items()}


def _write_examples(
    folder: Path,
    joined: Joined,
    genres: tuple[str, ...],
    users: Mapping[str, Int64[np.ndarray, " split"]],
    telling: Telling,
    start: progress.Start,
) -> tuple[dict[str, Split], dict[str, float]]:
    """Writes all examples, and by how many users of training each item was rated.

    Returns:
        What the manifest says of the splits, and counts of what was written.
    """
    # TensorFlow takes seconds to import; what can be refused has been refused by now.
    startup.load("uem_t5x.data.examples")
    from uem_t5x.data.examples import ExampleWriter

    advance = start("writing users", sum(map(len, users.values())))
    writers = {
        name: ExampleWriter(folder, name, len(users[name])) for name in dataset_folder.SPLITS
    }
    rated = np.zeros(joined.movies.height, np.int64)
    matrix = dataset_folder.genre_matrix(joined.movies, genres)
    tally = _Tally()
    first = 0
    for ratings in joined.ratings:
        histories = Histories.from_ratings(ratings)
        end = first + len(histories.user_ids)
        if joined.asked is None:
            targets = histories.label(matrix, genres, telling.rule)
        else:
            of_part = joined.asked[first:end]
            targets = Answers(of_part["question"].to_list(), of_part["answer"].to_list())
        tally.add(histories, targets)
        for name, writer in writers.items():
            low, high = np.searchsorted(users[name], [first, end])
            own = users[name][low:high] - first
            writer.write(own, histories, targets)
            advance(len(own))
            if name == TRAIN:
                rated += _rating_counts(histories.of(own), joined, own + first)
        first = end
    for writer in writers.values():
        writer.close()
    dataset_folder.write_rating_counts(folder, rated)
    return {name: writer.record for name, writer in writers.items()}, tally.counts()


def _rating_counts(
    histories: Histories, joined: Joined, places: Int64[np.ndarray, " some"]
) -> Int64[np.ndarray, " rows"]:
    """Returns how many users rated each item, who may have several of the histories."""
    rows = joined.movies.height
    if joined.asked is None:
        return np.bincount(histories.items, minlength=rows)
    users = joined.asked["user"].to_numpy()[places]
    pairs = np.repeat(users, np.diff(histories.bounds)) * rows + histories.items
    return np.bincount(np.unique(pairs) % rows, minlength=rows)


class _Tally:
    """Counts what is written, for the manifest."""

    def __init__(self) -> None:
        self._lengths: list[np.ndarray] = []
        self._labels, self._without_disliked = 0, 0
        self._is_of_labels = False

    def add(self, histories: Histories, targets: HistoryLabels | Answers) -> None:
        """Counts some histories."""
        self._lengths.append(np.diff(histories.bounds))
        if isinstance(targets, HistoryLabels):
            self._is_of_labels = True
            disliked = np.sum(targets.disliked >= 0, axis=1)
            self._labels += int(np.sum(targets.liked >= 0) + np.sum(disliked))
            self._without_disliked += int(np.sum(disliked == 0))

    def counts(self) -> dict[str, float]:
        """Returns the counts of all."""
        lengths = np.concatenate(self._lengths)
        counts: dict[str, float] = {"median_history": float(np.median(lengths))}
        if self._is_of_labels:
            counts["labels_per_user"] = self._labels / len(lengths)
            counts["users_without_disliked"] = self._without_disliked
        return counts


def _encode(
    default: CachedEncoder,
    of_channels: Mapping[str, CachedEncoder],
    movies: pl.DataFrame,
    telling: Telling,
    start: progress.Start,
) -> dict[str, Float32[np.ndarray, "rows width"]]:
    """Encodes the sentences about every item and every rating; row 0 of each is zero."""
    texts = {
        name: telling.rating_sentences(template)
        if sentences.is_of_rating(template)
        else dataset_folder.item_sentences(movies, template)
        for name, template in telling.sentences.items()
    }
    advance = start("encoding sentences", sum(map(len, texts.values())))
    matrices = {}
    for channel, rows in texts.items():
        matrices[channel] = of_channels.get(channel, default).encode(rows, advance)
        matrices[channel][0] = 0
    return matrices


def _train_vocabulary(
    path: Path,
    size: int,
    joined: Joined,
    genres: tuple[str, ...],
    users: Int64[np.ndarray, " training"],
    telling: Telling,
) -> None:
    """Trains a vocabulary on what the tasks write: the answers of `users`, prompts and items.

    It is learned from some of them, and can spell them all.
    """
    from uem_t5x.data.vocabulary import train_vocabulary

    movies, some_users = joined.movies, users[:_VOCABULARY_TEXTS]
    few = movies[1:].gather_every(-(-movies.height // _VOCABULARY_TEXTS))
    if joined.asked is None:
        write = functools.partial(verbalizer.write_answer, wording=telling.wording)
        answers = {write(*labels) for labels in _labels_of(some_users, joined, genres, telling)}
        texts = [telling.question, *sorted(answers)]
        spelled = [write([], []), write(*[genres] * 2)]
    else:
        asked = joined.asked[some_users]
        texts = [*asked["question"].unique().sort(), *asked["answer"].unique().sort()]
        spelled = [*joined.asked["question"].unique(), *joined.asked["answer"].unique()]
    templates = telling.sentences.values()
    for template in filter(sentences.is_of_rating, templates):
        texts += telling.rating_sentences(template)[1:]
    for template in itertools.filterfalse(sentences.is_of_rating, templates):
        texts += dataset_folder.item_sentences(few, template)
        spelled += dataset_folder.item_sentences(movies, template)
    train_vocabulary(path, texts, genres, size, spelled)


def _labels_of(
    users: Int64[np.ndarray, " some"], joined: Joined, genres: tuple[str, ...], telling: Telling
) -> Iterator[tuple[list[str], list[str]]]:
    """Yields what some users like and dislike."""
    matrix = dataset_folder.genre_matrix(joined.movies, genres)
    first = 0
    for ratings in joined.ratings:
        histories = Histories.from_ratings(ratings)
        end = first + len(histories.user_ids)
        low, high = np.searchsorted(users, [first, end])
        some = histories.of(users[low:high] - first)
        labels = some.label(matrix, genres, telling.rule)
        yield from (labels.names(user) for user in range(high - low))
        if high == len(users):
            return
        first = end
