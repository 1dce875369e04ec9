"""The steps of `beam_pipeline`: what a worker does with a block of rows, or a range of users."""

import collections
import dataclasses
import functools
import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import polars as pl
from apache_beam import pvalue
from etils import epath
from jaxtyping import Float64, Int64

from uem_t5x.base import buckets
from uem_t5x.data import dataset_folder, gathering, ids, source_joining, splits
from uem_t5x.data.histories import Histories
from uem_t5x.data.source_interactions import Interactions
from uem_t5x.data.sources import Source
from uem_t5x.data.splits import TRAIN
from uem_t5x.data.writing import Tally

_SAMPLED = 1000  # rows of a block for each id that says where ranges may begin
_USERS_AT_A_TIME = 1000  # of a range, in an element of the pipeline
FACTS, IDS, TALLIES = "facts", "ids", "tallies"
PLACES, ROWS, MATRIX = "places", "rows", "matrix"  # files of what workers are told

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


class Part(NamedTuple):
    """Some users of a range, with their examples."""

    place: _Place
    positions: np.ndarray
    examples: list[bytes]
    items: np.ndarray
    bounds: np.ndarray


# --- From files to ranges of users ---


class Read(beam.DoFn):
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
            yield pvalue.TaggedOutput(IDS, placed["userId"].gather_every(_SAMPLED).to_list())
            yield number, block, to_bytes(placed)
        facts = {
            "file": number,
            "rows": rows,
            "known": known,
            "are_numbers": are_numbers,
            "counts": dict(reader.counts),
            "sha256": reader.sha256[file],
            "shown": reader.shown,
        }
        yield pvalue.TaggedOutput(FACTS, facts)


def plan(
    _: None, job: Job, facts: Sequence[Mapping[str, Any]], found: Sequence[list[str]]
) -> dict[str, Any]:
    """Says whether ids are numbers, and with which of them the ranges begin but for the first."""
    are_numbers = all(fact["are_numbers"] for fact in facts)
    sample = pl.Series("userId", [one for some in found for one in some], pl.String)
    if are_numbers:
        sample = ids.with_numbers(sample.to_frame(), "userId")["userId"]
    rows = sum(fact["rows"] for fact in facts)
    return {"are_numbers": are_numbers, "starts": gathering.starts(sample, rows, job.rows)}


def into_ranges(
    block: tuple[int, int, bytes], plan: Mapping[str, Any]
) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
    """Yields those rows of a block that are of each range of users."""
    number, place, data = block
    frame = _from_bytes(data)
    if plan["are_numbers"]:
        frame = frame.with_columns(ids.numbers_or_none("userId"))
    frame = frame.sort("userId", maintain_order=True)
    starts = pl.Series(plan["starts"], dtype=frame["userId"].dtype)
    cuts = [0, *frame["userId"].search_sorted(starts, side="left").to_list(), frame.height]
    for of_range, (first, last) in enumerate(itertools.pairwise(cuts)):
        if last > first:
            yield of_range, (number, place, to_bytes(frame[first:last]))


class Keep(beam.DoFn):
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
                yield Part(
                    (number, first // _USERS_AT_A_TIME),
                    positions[first:last],
                    [example_of(user, histories, labels) for user in range(first, last)],
                    histories.items[bounds[0] : bounds[-1]],
                    bounds - bounds[0],
                )
        yield pvalue.TaggedOutput(TALLIES, (counts, tally))


# --- From users to files of examples ---


def ends(_: None, job: Job, positions: Sequence[np.ndarray]) -> Float64[np.ndarray, " shares"]:
    """Returns where splits end, of which some are a number of users."""
    return splits.boundaries(job.shares, np.concatenate([np.empty(0), *positions]))


def sizes(part: Part, ends: Float64[np.ndarray, " shares"], job: Job) -> tuple[_Place, np.ndarray]:
    """Returns how many users of a part are in each split."""
    of_users = splits.split_of(part.positions, ends)
    return part.place, np.bincount(of_users, minlength=len(job.splits))


def offsets(
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


def into_files(
    part: Part,
    ends: Float64[np.ndarray, " shares"],
    offsets: tuple[Mapping[_Place, np.ndarray], np.ndarray],
    job: Job,
) -> Iterator[tuple[tuple[str, int], tuple[int, list[bytes]]]]:
    """Yields examples of a part for each file that some belong in, and the first one's number."""
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


def write_file(
    of_file: tuple[tuple[str, int], Iterable[tuple[int, list[bytes]]]],
    offsets: tuple[Mapping[_Place, np.ndarray], np.ndarray],
    job: Job,
) -> None:
    """Writes a file of examples, in order."""
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


def rated(
    part: Part, ends: Float64[np.ndarray, " shares"], job: Job
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that users of training rated, and by how many."""
    is_training = splits.split_of(part.positions, ends) == job.splits.index(TRAIN)
    of_training = np.repeat(is_training, np.diff(part.bounds))
    return np.unique(part.items[of_training], return_counts=True)


class AddUp(beam.CombineFn):
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


def add_up_tallies(
    tallies: Iterable[tuple[Mapping[str, int], Tally]],
) -> tuple[dict[str, int], Tally]:
    """Adds up the counts of all ranges."""
    counts: collections.Counter[str] = collections.Counter()
    total = Tally()
    for some, tally in tallies:
        counts.update(some)
        total.update(tally)
    return dict(counts), total


# --- What workers are told ---


@functools.lru_cache(maxsize=1)
def _told(scratch: str) -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray]:
    """Returns the places of items, the rows of those that are kept, and the genre matrix."""
    folder = epath.Path(scratch)
    places, rows = (_from_bytes((folder / name).read_bytes()) for name in (PLACES, ROWS))
    return places, rows, np.load(io.BytesIO((folder / MATRIX).read_bytes()))


def to_bytes(frame: pl.DataFrame) -> bytes:
    """Returns a frame as it travels."""
    file = io.BytesIO()
    frame.write_ipc(file, compression="lz4")
    return file.getvalue()


def _from_bytes(data: bytes) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(data))


def npy(array: np.ndarray) -> bytes:
    """Returns an array as NumPy's file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
