"""What `prepare` does with interactions, as an Apache Beam pipeline: for many machines at once.

Workers read a file each. A range of users, by increasing id, comes together in one of them, which
keeps, labels and splits them by the functions that one machine has for all: what is written is the
same, byte for byte.

    files -> blocks of rows -> ranges of users -> examples -> files of examples
                  |                    ^             |               ^
                  +- every 1000th id --+             +- how many ----+
"""

import collections
import dataclasses
import functools
import io
import itertools
import json
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import polars as pl
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath
from jaxtyping import Float64, Int64

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, gathering, ids, source_joining, splits
from uem_t5x.data.histories import Histories
from uem_t5x.data.source_interactions import Interactions
from uem_t5x.data.sources import Source
from uem_t5x.data.splits import TRAIN
from uem_t5x.data.writing import Tally

_SAMPLED = 1000  # rows of a block for each id that says where ranges may begin
_USERS_AT_A_TIME = 1000  # of a range, in an element of the pipeline
_FACTS, _IDS, _TALLIES = "facts", "ids", "tallies"
_REFUSED = re.compile(r"InputError: (.*?)(?: \[while running .*)?$", re.MULTILINE)

_Place: TypeAlias = tuple[int, int]  # of a range, and of a part of it


@dataclasses.dataclass(frozen=True)
class Job:
    """What workers are asked for.

    Attributes:
        source: what the tables are.
        data: the folder that they lie in, as all workers see it.
        folder: the dataset folder, likewise.
        scratch: a folder for what workers are told and tell, likewise.
        genres: the class names.
        min_history: the fewest items of a user.
        shares: of the splits, and in their order; see `splits.split_users`.
        seed: of the splits.
        rows: about how many interactions a range of users has.
    """

    source: Source
    data: str
    folder: str
    scratch: str
    genres: tuple[str, ...]
    min_history: int
    shares: Mapping[str, int | float]
    seed: int
    rows: int = gathering.ROWS

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of all splits, by their numbers."""
        return (*self.shares, TRAIN)


class Done(NamedTuple):
    """What came of it.

    Attributes:
        examples: how many each split has.
        kept: counts of interactions that were joined.
        left_out: interactions that were not, by why.
        tally: of what was written.
        rated: by how many users of training each row was rated.
        sha256: of each file of interactions.
        shown: the first ids of items in them, if none of them is listed.
    """

    examples: dict[str, int]
    kept: dict[str, int]
    left_out: dict[str, int]
    tally: Tally
    rated: Int64[np.ndarray, " rows"]
    sha256: dict[str, str]
    shown: list[str]


class _Part(NamedTuple):
    """Some users of a range, with their examples."""

    place: _Place
    positions: np.ndarray
    examples: list[bytes]
    items: np.ndarray
    bounds: np.ndarray


def run(
    job: Job,
    files: Sequence[str],
    items: pl.DataFrame,
    movies: pl.DataFrame,
    runner: str,
) -> Done:
    """Runs the pipeline.

    Args:
        job: what workers do.
        files: of the interactions.
        items: all items, in the order of their places.
        movies: the movie table, its padding row included.
        runner: its name and flags, as on a command line.

    Raises:
        InputError: if an input is refused, in whichever worker.
    """
    scratch = epath.Path(job.scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    places = source_joining.places_of(items)
    rows = movies[1:].join(places, on="movieId").select("row", movieId="place")
    matrix = dataset_folder.genre_matrix(movies, job.genres)
    (scratch / "places").write_bytes(_to_bytes(places))
    (scratch / "rows").write_bytes(_to_bytes(rows))
    (scratch / "matrix").write_bytes(_npy(matrix))
    name, *flags = shlex.split(runner)
    # Beam takes two mentions of one shape for two types.
    options = PipelineOptions(flags, runner=name, pipeline_type_check=False)
    try:
        with beam.Pipeline(options=options) as pipeline:
            _build(pipeline, job, files, movies.height)
    except Exception as error:
        # Of a worker's error runners hand on the text, with where it comes from.
        told = f"InputError: {error}" if isinstance(error, InputError) else str(error)
        if refused := _REFUSED.findall(told):
            raise InputError(refused[-1]) from error
        raise
    return _read_done(job, files)


def _build(pipeline: beam.Pipeline, job: Job, files: Sequence[str], rows: int) -> None:
    scratch = epath.Path(job.scratch)
    read = (
        pipeline
        | "files" >> beam.Create(list(enumerate(files)))
        | "one by one" >> beam.Reshuffle()
        | "read" >> beam.ParDo(_Read(job)).with_outputs(_FACTS, _IDS, main="blocks")
    )
    facts, found = pvalue.AsList(read[_FACTS]), pvalue.AsList(read[_IDS])
    start = pipeline | "once" >> beam.Create([None])
    plan = start | "plan ranges" >> beam.Map(_plan, job=job, facts=facts, found=found)
    kept = (
        read.blocks
        | "into ranges" >> beam.FlatMap(_into_ranges, pvalue.AsSingleton(plan))
        | "by range" >> beam.GroupByKey()
        | "keep and label" >> beam.ParDo(_Keep(job)).with_outputs(_TALLIES, main="parts")
    )
    if any(isinstance(share, int) and share for share in job.shares.values()):
        # So many users are those of the first positions of all.
        positions = pvalue.AsList(kept.parts | "positions" >> beam.Map(lambda part: part.positions))
        ends = start | "end splits" >> beam.Map(_ends, job=job, positions=positions)
    else:
        ends = start | "end splits" >> beam.Map(lambda _: splits.boundaries(job.shares))
    ends = pvalue.AsSingleton(ends)
    sizes = pvalue.AsList(kept.parts | "count" >> beam.Map(_sizes, ends=ends, job=job))
    offsets = pvalue.AsSingleton(start | "add up counts" >> beam.Map(_offsets, sizes=sizes))
    _ = (
        kept.parts
        | "into files" >> beam.FlatMap(_into_files, ends=ends, offsets=offsets, job=job)
        | "by file" >> beam.GroupByKey()
        | "write" >> beam.Map(_write_file, offsets=offsets, job=job)
    )
    rated = (
        kept.parts
        | "rated" >> beam.Map(_rated, ends=ends, job=job)
        | "add up rated" >> beam.CombineGlobally(_AddUp(rows))
    )
    tally = kept[_TALLIES] | "add up tallies" >> beam.CombineGlobally(_add_up_tallies)
    told = {
        "facts": read[_FACTS] | "all facts" >> beam.combiners.ToList(),
        "tally": tally,
        "rated": rated,
        "examples": start | "examples" >> beam.Map(lambda _, of: of[1].tolist(), of=offsets),
    }
    for name, collection in told.items():
        _ = collection | f"tell {name}" >> beam.Map(_tell, scratch / name)


# --- From files to ranges of users ---


class _Read(beam.DoFn):
    """Yields the blocks of a file, with items by their places; ids of users; facts."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(self, numbered: tuple[int, str]) -> Iterator[Any]:
        """Reads a file."""
        number, file = numbered
        said, scale = self._job.source.interactions, self._job.source.telling.scale
        assert said is not None
        reader = Interactions(self._job.data, said, scale)
        places, _, _ = _told(self._job.scratch)
        rows, known, are_numbers = 0, 0, True
        for block, frame in enumerate(reader.read(lambda _: None, [file])):
            placed = source_joining.place_items(frame, places)
            rows, known = rows + placed.height, known + placed["movieId"].count()
            are_numbers &= ids.are_numbers(placed["userId"])
            yield pvalue.TaggedOutput(_IDS, placed["userId"].gather_every(_SAMPLED).to_list())
            yield number, block, _to_bytes(placed)
        facts = {
            "file": number,
            "rows": rows,
            "known": known,
            "are_numbers": are_numbers,
            "counts": dict(reader.counts),
            "sha256": reader.sha256[file],
            "shown": reader.shown,
        }
        yield pvalue.TaggedOutput(_FACTS, facts)


def _plan(
    _: None, job: Job, facts: Sequence[Mapping[str, Any]], found: Sequence[list[str]]
) -> dict[str, Any]:
    """Says whether ids are numbers, and with which of them the ranges begin but for the first."""
    are_numbers = all(fact["are_numbers"] for fact in facts)
    sample = pl.Series("userId", [one for some in found for one in some], pl.String)
    if are_numbers:
        sample = ids.with_numbers(sample.to_frame(), "userId")["userId"]
    rows = sum(fact["rows"] for fact in facts)
    return {"are_numbers": are_numbers, "starts": gathering.starts(sample, rows, job.rows)}


def _into_ranges(
    block: tuple[int, int, bytes], plan: Mapping[str, Any]
) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
    number, place, data = block
    frame = _from_bytes(data)
    if plan["are_numbers"]:
        frame = frame.with_columns(ids.numbers_or_none("userId"))
    frame = frame.sort("userId", maintain_order=True)
    starts = pl.Series(plan["starts"], dtype=frame["userId"].dtype)
    cuts = [0, *frame["userId"].search_sorted(starts, side="left").to_list(), frame.height]
    for of_range, (first, last) in enumerate(itertools.pairwise(cuts)):
        if last > first:
            yield of_range, (number, place, _to_bytes(frame[first:last]))


class _Keep(beam.DoFn):
    """Yields the users of a range that are kept, some at a time, and what was counted."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(self, of_range: tuple[int, Iterable[tuple[int, int, bytes]]]) -> Iterator[Any]:
        """Keeps and labels users."""
        from uem_t5x.data.examples import example_of

        number, pieces = of_range
        job, (places, rows, matrix) = self._job, _told(self._job.scratch)
        in_order = sorted(pieces, key=lambda piece: piece[:2])
        part = pl.concat(_from_bytes(data) for _, _, data in in_order)
        part = part.with_columns(order=pl.int_range(pl.len(), dtype=pl.Int64))
        kept, counts = source_joining.keep_part(part, rows, places.height, job.min_history)
        tally = Tally()
        if kept.height:
            histories = Histories.from_ratings(kept)
            labels = histories.label(matrix, job.genres, job.source.telling.rule)
            tally.add(histories, labels)
            positions = splits.positions(histories.user_ids, job.seed)
            for first in range(0, len(positions), _USERS_AT_A_TIME):
                last = min(first + _USERS_AT_A_TIME, len(positions))
                bounds = histories.bounds[first : last + 1]
                yield _Part(
                    (number, first // _USERS_AT_A_TIME),
                    positions[first:last],
                    [example_of(user, histories, labels) for user in range(first, last)],
                    histories.items[bounds[0] : bounds[-1]],
                    bounds - bounds[0],
                )
        yield pvalue.TaggedOutput(_TALLIES, (counts, tally))


# --- From users to files of examples ---


def _ends(_: None, job: Job, positions: Sequence[np.ndarray]) -> Float64[np.ndarray, " shares"]:
    return splits.boundaries(job.shares, np.concatenate([np.empty(0), *positions]))


def _sizes(
    part: _Part, ends: Float64[np.ndarray, " shares"], job: Job
) -> tuple[_Place, np.ndarray]:
    of_users = splits.split_of(part.positions, ends)
    return part.place, np.bincount(of_users, minlength=len(job.splits))


def _offsets(
    _: None, sizes: Sequence[tuple[_Place, np.ndarray]]
) -> tuple[dict[_Place, np.ndarray], np.ndarray]:
    """Returns how many examples of each split come before those of a part, and are there in all."""
    before: dict[_Place, np.ndarray] = {}
    total = np.zeros(0, np.int64)
    for place, counts in sorted(sizes, key=lambda sized: sized[0]):
        total = total if len(total) else np.zeros_like(counts)
        before[place] = total
        total = total + counts
    return before, total


def _into_files(
    part: _Part,
    ends: Float64[np.ndarray, " shares"],
    offsets: tuple[Mapping[_Place, np.ndarray], np.ndarray],
    job: Job,
) -> Iterator[tuple[tuple[str, int], tuple[int, list[bytes]]]]:
    from uem_t5x.data.examples import shard_sizes

    before, total = offsets
    of_users = splits.split_of(part.positions, ends)
    for number, name in enumerate(job.splits):
        chosen = np.flatnonzero(of_users == number)
        ranks = before[part.place][number] + np.arange(len(chosen))
        until = np.cumsum(shard_sizes(int(total[number])))
        shards = np.searchsorted(until, ranks, side="right")
        for shard in np.unique(shards).tolist():
            own = np.flatnonzero(shards == shard)
            examples = [part.examples[user] for user in chosen[own].tolist()]
            yield (name, shard), (int(ranks[own[0]]), examples)


def _write_file(
    of_file: tuple[tuple[str, int], Iterable[tuple[int, list[bytes]]]],
    offsets: tuple[Mapping[_Place, np.ndarray], np.ndarray],
    job: Job,
) -> None:
    from uem_t5x.data.examples import num_shards

    (split, shard), pieces = of_file
    total = int(offsets[1][job.splits.index(split)])
    path = dataset_folder.shard_paths(job.folder, split, num_shards(total))[shard]
    write_records(path, [example for _, some in sorted(pieces) for example in some])


def write_records(path: epath.Path, records: Iterable[bytes]) -> None:
    """Writes a file of examples, which may lie in a bucket."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as here:
        file = Path(here) / "records" if buckets.is_remote(path) else Path(path)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records:
                writer.write(record)
        if buckets.is_remote(path):
            path.write_bytes(file.read_bytes())


def _rated(
    part: _Part, ends: Float64[np.ndarray, " shares"], job: Job
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that users of training rated, and by how many."""
    is_training = splits.split_of(part.positions, ends) == job.splits.index(TRAIN)
    of_training = np.repeat(is_training, np.diff(part.bounds))
    return np.unique(part.items[of_training], return_counts=True)


class _AddUp(beam.CombineFn):
    """Adds up counts of rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def create_accumulator(self) -> Int64[np.ndarray, " rows"]:
        """Returns that of no counts."""
        return np.zeros(self._rows, np.int64)

    def add_input(
        self, accumulator: Int64[np.ndarray, " rows"], counted: tuple[np.ndarray, np.ndarray]
    ) -> Int64[np.ndarray, " rows"]:
        """Adds the counts of some rows."""
        rows, counts = counted
        accumulator[rows] += counts
        return accumulator

    def merge_accumulators(
        self, accumulators: Iterable[Int64[np.ndarray, " rows"]]
    ) -> Int64[np.ndarray, " rows"]:
        """Adds up."""
        return sum(accumulators, start=self.create_accumulator())

    def extract_output(self, accumulator: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        """Returns the sums."""
        return accumulator


def _add_up_tallies(
    tallies: Iterable[tuple[Mapping[str, int], Tally]],
) -> tuple[dict[str, int], Tally]:
    counts: collections.Counter[str] = collections.Counter()
    total = Tally()
    for some, tally in tallies:
        counts.update(some)
        total.update(tally)
    return dict(counts), total


# --- What workers are told, and tell ---


@functools.lru_cache(maxsize=1)
def _told(scratch: str) -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray]:
    """Returns the places of items, the rows of those that are kept, and the genre matrix."""
    folder = epath.Path(scratch)
    places, rows = (_from_bytes((folder / name).read_bytes()) for name in ("places", "rows"))
    return places, rows, np.load(io.BytesIO((folder / "matrix").read_bytes()))


def _tell(what: Any, path: epath.Path) -> None:
    if isinstance(what, np.ndarray):
        path.write_bytes(_npy(what))
        return
    if path.name == "tally":
        counts, tally = what
        what = {"counts": counts, **vars(tally)}
    path.write_text(json.dumps(what))


def _read_done(job: Job, files: Sequence[str]) -> Done:
    scratch = epath.Path(job.scratch)
    facts, told, examples = (
        json.loads((scratch / name).read_text()) for name in ("facts", "tally", "examples")
    )
    facts.sort(key=lambda fact: fact["file"])
    left_out: collections.Counter[str] = collections.Counter()
    for fact in facts:
        left_out.update(fact["counts"])
    kept = told.pop("counts")
    is_any_known = any(fact["known"] for fact in facts)
    shown = next((fact["shown"] for fact in facts if fact["shown"]), [])
    tally = Tally()
    vars(tally).update(told)
    tally.lengths = collections.Counter(
        {int(length): count for length, count in told["lengths"].items()}
    )
    return Done(
        examples=dict(zip(job.splits, examples or [0] * len(job.splits))),
        kept=kept,
        left_out=dict(left_out),
        tally=tally,
        rated=np.load(io.BytesIO((scratch / "rated").read_bytes())),
        sha256={files[fact["file"]]: fact["sha256"] for fact in facts},
        shown=[] if is_any_known else shown,
    )


def _to_bytes(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_ipc(file, compression="lz4")
    return file.getvalue()


def _from_bytes(data: bytes) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(data))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
