"""Builds a dataset folder: reads, joins, labels, splits, encodes and writes, in that order."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32

from uem_t5x.base import progress, startup
from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, joining, source_files, sources
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.histories import Histories, HistoryLabels
from uem_t5x.data.joining import Joined
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.sources import Source
from uem_t5x.data.splits import TRAIN, split_users
from uem_t5x.encoders import sentences as sentence_encoders
from uem_t5x.encoders.vector_cache import CachedEncoder
from uem_t5x.tastes import sentences, verbalizer
from uem_t5x.tastes.telling import Telling

_UNRECORDED = ("output", "overwrite")
_OF_SOURCES = ("source", "data")  # of MovieLens they are not recorded, as they never were
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
        default, of_channels = _make_encoders(options, source)
        joined = _read(options, source, start)
        telling = Telling() if source is None else source.telling

        genres = tuple(sorted(joined.movies["genres"].explode().drop_nulls().unique()))
        histories = Histories.from_ratings(joined.ratings)
        shares = {"test": options.test_users, "validation": options.validation_users}
        users = split_users(histories.user_ids, shares, options.seed)
        labels = histories.label(
            dataset_folder.genre_matrix(joined.movies, genres), genres, telling.rule
        )

        embeddings = _encode(default, of_channels, joined.movies, telling, start)
        dataset_folder.write_items(folder, joined.movies, embeddings)
        rated = histories.rating_counts(users[TRAIN], joined.movies.height)
        dataset_folder.write_rating_counts(folder, rated)
        if options.vocabulary_size is not None:
            path = folder / dataset_folder.VOCABULARY
            size = options.vocabulary_size
            _train_vocabulary(path, size, joined.movies, labels, users[TRAIN], telling)

        # TensorFlow takes seconds to import; what can be refused has been refused by now.
        startup.load("uem_t5x.data.examples")
        from uem_t5x.data.examples import write_examples

        advance = start("writing users", len(histories.user_ids))
        written = {
            split: write_examples(folder, split, users[split], histories, labels, advance)
            for split in dataset_folder.SPLITS
        }
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
            splits=written,
            has_vocabulary=options.vocabulary_size is not None,
            counts=joined.counts | _label_counts(histories, labels),
            options={
                name: str(value) if isinstance(value, Path) else value
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
        options = dataclasses.replace(options, source=None, data=None, movielens=options.data)
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
    if options.min_history < 1:
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


def _read(options: PrepareOptions, source: Source | None, start: progress.Start) -> Joined:
    """Reads the inputs."""
    if source is not None:
        assert options.data is not None
        return joining.read_source(source, options.data, options.min_history, start)
    assert options.movielens is not None and options.descriptions is not None
    advance = start("reading and joining", 1)
    joined = joining.read_movielens(options.movielens, options.descriptions, options.min_history)
    advance(1)
    return joined


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
    movies: pl.DataFrame,
    labels: HistoryLabels,
    users: np.ndarray,
    telling: Telling,
) -> None:
    """Trains a vocabulary on what the tasks write: the answers of `users`, prompts and items.

    It is learned from some of them, and can spell them all.
    """
    from uem_t5x.data.vocabulary import train_vocabulary

    few = movies[1:].gather_every(-(-movies.height // _VOCABULARY_TEXTS))
    write = functools.partial(verbalizer.write_answer, wording=telling.wording)
    answers = {write(*labels.names(user)) for user in users[:_VOCABULARY_TEXTS]}
    texts = [telling.question, *sorted(answers)]
    spelled = [write([], []), write(*[labels.genres] * 2)]
    templates = telling.sentences.values()
    for template in filter(sentences.is_of_rating, templates):
        texts += telling.rating_sentences(template)[1:]
    for template in itertools.filterfalse(sentences.is_of_rating, templates):
        texts += dataset_folder.item_sentences(few, template)
        spelled += dataset_folder.item_sentences(movies, template)
    train_vocabulary(path, texts, labels.genres, size, spelled)


def _label_counts(histories: Histories, labels: HistoryLabels) -> dict[str, float]:
    liked, disliked = (np.sum(side >= 0, axis=1) for side in (labels.liked, labels.disliked))
    return {
        "median_history": float(np.median(np.diff(histories.bounds))),
        "labels_per_user": float(np.mean(liked + disliked)),
        "users_without_disliked": int(np.sum(disliked == 0)),
    }
