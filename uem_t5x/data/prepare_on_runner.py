"""Builds a dataset folder on a runner of Apache Beam: `prepare` for as many machines as needed."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
from etils import epath

from uem_t5x.base import buckets, progress, startup
from uem_t5x.base.errors import InputError
from uem_t5x.data import (
    dataset_folder,
    joining,
    seal,
    source_files,
    source_joining,
    source_tables,
    splits,
)
from uem_t5x.data import prepare as one_machine
from uem_t5x.data.channel_encoders import ChannelEncoders
from uem_t5x.data.dataset_folder import SPLITS, DatasetFolder
from uem_t5x.data.manifest import Split
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.splits import TRAIN
from uem_t5x.tastes.telling import Telling

_SCRATCH = "scratch"


def prepare(
    options: PrepareOptions, runner: str, start: progress.Start = progress.unseen
) -> DatasetFolder:
    """Writes a dataset folder, the same as `prepare.prepare` does.

    Items are read and encoded here, interactions by workers. `options.data` and `options.output`
    are where all workers see them: a bucket, or a folder that they share.

    Args:
        options: see `prepare.prepare`; of a source without questions.
        runner: its name and flags, as on a command line.
        start: see `prepare.prepare`.

    Raises:
        InputError: if an option or an input is refused.
    """
    options = one_machine.check(options)
    source = None if options.source is None else source_files.read_source(options.source)
    if source is None or source.interactions is None or source.telling.has_questions:
        raise InputError(
            f"--runner: of {options.source or 'MovieLens'} prepare is a matter of one machine; "
            "leave it out (runners take a --source of [items], [interactions] and [labels])"
        )
    options = one_machine.with_min_history(options, source)
    assert options.data is not None and options.min_history is not None
    startup.load("apache_beam")
    try:
        from uem_t5x.data import beam_pipeline
    except ImportError as error:
        raise InputError(
            f"--runner: the package {error.name} is missing; install uem-t5x[beam]"
        ) from error
    beam_pipeline.options_of(runner)  # what is wrong with it should not be found out at the end
    encoders = ChannelEncoders(options, source)
    telling = source.telling
    with _writing(options) as folder:
        tables = source_tables.read(source, options.data, start)
        kept_items = source_joining.told_items(source, tables.items)
        movies = joining.with_padding(kept_items)
        genres = one_machine.classes_of(movies, telling)
        embeddings = encoders.encode(movies, telling, start)
        with tempfile.TemporaryDirectory() as here:
            dataset_folder.write_items(Path(here), movies, embeddings)
            _copy(Path(here), folder)
        shares = {"test": options.test_users, "validation": options.validation_users}
        job = beam_pipeline.Job(
            source=source,
            data=os.fspath(buckets.absolute(options.data)),
            folder=os.fspath(folder),
            scratch=os.fspath(folder / _SCRATCH),
            genres=genres,
            min_history=options.min_history,
            shares=shares,
            seed=options.seed,
        )
        start(f"running on {runner.partition(' ')[0]}", None)
        files = tables.interactions.files
        places = source_joining.places_of(tables.items)
        done = beam_pipeline.run(job, files, places, movies, runner)
        if done.shown:
            raise source_joining.no_known_item(options.data, done.shown, places)
        counts = source_joining.all_counts(tables, kept_items, done.kept, done.left_out)
        if not sum(done.examples.values()):
            raise source_joining.nobody_is_left(
                source, options.data, tables, kept_items, counts, options.min_history
            )
        splits.check_sizes(done.examples, shares)
        records = {name: _record(folder, name, done.examples[name]) for name in SPLITS}
        dataset_folder.write_rating_counts(folder, done.rated)
        if options.vocabulary_size is not None:
            _train_vocabulary(folder, options.vocabulary_size, movies, genres, telling, records)
        (folder / _SCRATCH).rmtree()
        counts, inputs = counts | done.tally.counts(), {**tables.sha256, **done.sha256}
        manifest = one_machine.manifest_of(
            options, encoders, genres, telling, records, counts, inputs
        )
        dataset_folder.write_manifest(folder, manifest)
    return DatasetFolder.open(options.output)


@contextlib.contextmanager
def _writing(options: PrepareOptions) -> Iterator[epath.Path]:
    """Gives a folder to write into: beside a local one, or in its place in a bucket."""
    output = options.output
    if not buckets.is_remote(output):
        with dataset_folder.writing(output, options.overwrite) as folder:
            yield epath.Path(folder).absolute()
        return
    buckets.check_reached(output)
    place = epath.Path(output)
    if place.exists() and any(place.iterdir()):
        raise InputError(f"--output {output}: something is there; give a folder that is not")
    yield place  # without its manifest, which is written last, it is no dataset folder


def _copy(folder: Path, destination: epath.Path) -> None:
    """Copies the files of a folder."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            target = destination / file.relative_to(folder).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(target, overwrite=True)


def _record(folder: epath.Path, split: str, examples: int) -> Split:
    """Returns what the manifest says of a split; of one without users workers wrote no file."""
    from uem_t5x.data import beam_steps
    from uem_t5x.data.examples import num_shards

    shards = num_shards(examples)
    if not examples:
        (path,) = dataset_folder.shard_paths(folder, split, shards)
        beam_steps.write_records(path, [])
    return Split(examples=examples, shards=shards)


def _train_vocabulary(
    folder: epath.Path,
    size: int,
    movies: pl.DataFrame,
    genres: tuple[str, ...],
    telling: Telling,
    records: Mapping[str, Split],
) -> None:
    """Trains a vocabulary on the answers of the first training users, prompts and items."""
    from uem_t5x.data import vocabulary

    files = dataset_folder.shard_paths(folder, TRAIN, records[TRAIN].shards)
    sides = (
        zip(users["liked"].to_list(), users["disliked"].to_list())
        for file in files
        for users in seal.read_users(file)
    )
    tastes = (
        ([name.decode() for name in liked], [name.decode() for name in disliked])
        for liked, disliked in itertools.islice(
            itertools.chain.from_iterable(sides), vocabulary.TEXTS
        )
    )
    learned, spelled = vocabulary.texts_of_answers(tastes, genres, telling)
    with tempfile.TemporaryDirectory() as here:
        path = Path(here) / dataset_folder.VOCABULARY
        vocabulary.train_for_folder(path, size, movies, genres, telling, learned, spelled)
        _copy(Path(here), folder)
