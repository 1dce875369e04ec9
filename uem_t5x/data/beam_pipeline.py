"""What `prepare` does with interactions, as an Apache Beam pipeline: for many machines at once.

Workers read a file each. A range of users, by increasing id, comes together in one of them, which
keeps, labels and splits them by the functions that one machine has for all: what is written is the
same, byte for byte.

    files -> blocks of rows -> ranges of users -> examples -> files of examples
                  |                    ^             |               ^
                  +- every 1000th id --+             +- how many ----+
"""

import argparse
import collections
import io
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import apache_beam as beam
import numpy as np
import polars as pl
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath
from jaxtyping import Int64

from uem_t5x.base.errors import InputError, first_line
from uem_t5x.data import beam_steps as steps
from uem_t5x.data import dataset_folder, source_joining, splits
from uem_t5x.data.beam_steps import Job
from uem_t5x.data.writing import Tally

_REFUSED = re.compile(r"InputError: (.*?)(?: \[while running .*)?$", re.MULTILINE)


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


def run(
    job: Job,
    files: Sequence[str],
    places: pl.DataFrame,
    movies: pl.DataFrame,
    runner: str,
) -> Done:
    """Runs the pipeline.

    Args:
        job: what workers do.
        files: of the interactions.
        places: see `source_joining.places_of`.
        movies: the movie table, its padding row included.
        runner: its name and flags, as on a command line.

    Raises:
        InputError: if an input is refused, in whichever worker.
    """
    scratch = epath.Path(job.scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    rows = source_joining.rows_of(movies[1:], places)
    matrix = dataset_folder.genre_matrix(movies, job.genres)
    (scratch / steps.PLACES).write_bytes(steps.to_bytes(places))
    (scratch / steps.ROWS).write_bytes(steps.to_bytes(rows))
    (scratch / steps.MATRIX).write_bytes(steps.npy(matrix))
    options = options_of(runner)
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


def options_of(runner: str) -> PipelineOptions:
    """Returns what Beam is told of a runner.

    Args:
        runner: its name and flags, as on a command line.

    Raises:
        InputError: if there is no such runner, or none of its flags.
    """
    parser = _Parser(add_help=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    try:
        name, *flags = shlex.split(runner)
        beam.runners.create_runner(name)
        _, unknown = parser.parse_known_args(flags)
    except (ImportError, ValueError) as error:
        raise InputError(f"--runner {runner!r}: {first_line(error)}") from error
    if unknown:
        raise InputError(f"--runner {runner!r}: Beam knows no {unknown[0]}")
    # Beam takes two mentions of one shape for two types.
    return PipelineOptions(flags, runner=name, pipeline_type_check=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _build(pipeline: beam.Pipeline, job: Job, files: Sequence[str], rows: int) -> None:
    scratch = epath.Path(job.scratch)
    read = (
        pipeline
        | "files" >> beam.Create(list(enumerate(files)))
        | "one by one" >> beam.Reshuffle()
        | "read" >> beam.ParDo(steps.Read(job)).with_outputs(steps.FACTS, steps.IDS, main="blocks")
    )
    facts, found = pvalue.AsList(read[steps.FACTS]), pvalue.AsList(read[steps.IDS])
    start = pipeline | "once" >> beam.Create([None])
    plan = start | "plan ranges" >> beam.Map(steps.plan, job=job, facts=facts, found=found)
    kept = (
        read.blocks
        | "into ranges" >> beam.FlatMap(steps.into_ranges, pvalue.AsSingleton(plan))
        | "by range" >> beam.GroupByKey()
        | "keep and label" >> beam.ParDo(steps.Keep(job)).with_outputs(steps.TALLIES, main="parts")
    )
    if any(isinstance(share, int) and share for share in job.shares.values()):
        # So many users are those of the first positions of all.
        positions = pvalue.AsList(kept.parts | "positions" >> beam.Map(lambda part: part.positions))
        ends = start | "end splits" >> beam.Map(steps.ends, job=job, positions=positions)
    else:
        ends = start | "end splits" >> beam.Map(lambda _: splits.boundaries(job.shares))
    ends = pvalue.AsSingleton(ends)
    sizes = pvalue.AsList(kept.parts | "count" >> beam.Map(steps.sizes, ends=ends, job=job))
    offsets = pvalue.AsSingleton(start | "add up counts" >> beam.Map(steps.offsets, sizes=sizes))
    _ = (
        kept.parts
        | "into files" >> beam.FlatMap(steps.into_files, ends=ends, offsets=offsets, job=job)
        | "by file" >> beam.GroupByKey()
        | "write" >> beam.Map(steps.write_file, offsets=offsets, job=job)
    )
    rated = (
        kept.parts
        | "rated" >> beam.Map(steps.rated, ends=ends, job=job)
        | "add up rated" >> beam.CombineGlobally(steps.AddUp(rows))
    )
    tally = kept[steps.TALLIES] | "add up tallies" >> beam.CombineGlobally(steps.add_up_tallies)
    told = {
        "facts": read[steps.FACTS] | "all facts" >> beam.combiners.ToList(),
        "tally": tally,
        "rated": rated,
        "examples": start | "examples" >> beam.Map(lambda _, of: of[1].tolist(), of=offsets),
    }
    for name, collection in told.items():
        _ = collection | f"tell {name}" >> beam.Map(_tell, scratch / name)


def _tell(what: Any, path: epath.Path) -> None:
    if isinstance(what, np.ndarray):
        path.write_bytes(steps.npy(what))
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
