"""Reads what is asked of users, and what is true, of a source's tables."""

import polars as pl
from etils import epath

from uem_t5x.base.errors import InputError
from uem_t5x.data import ids, tables, text_tables, times
from uem_t5x.data.sources import Questions, Source
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes import answer_metrics, sentences

SPLITS = {"train": "train", "training": "train", "test": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
# Of questions, as `joining` takes them.
SCHEMA = {
    "userId": pl.String,
    "id": pl.String,
    "question": pl.String,
    "answer": pl.String,
    "timestamp": pl.Int64,
    "split": pl.String,
}


def read(source: Source, path: epath.PathLike, sha256: dict[str, str]) -> pl.DataFrame | None:
    """Returns the questions of a source, as in `SCHEMA`; None if it has none.

    An answer that is not known is empty. Without a time `timestamp`, in microseconds, is null; and
    `split` is where users are split by their ids.

    Args:
        source: what its tables are.
        path: the folder or zip file that the files lie in.
        sha256: gets that of each file.

    Raises:
        InputError: if a file is damaged, lacks a column or holds an impossible value, or an id
            stands for two questions.
    """
    said, metrics = source.questions, source.telling.metrics
    if said is None:
        return None
    template = said.question if "{" in said.question else f"{{{said.question}}}"
    taken = [said.user, *sentences.names(template), said.answer, said.id, said.time, said.split]
    columns = [column for column in taken if column is not None]
    frames = []
    for file in tables.find(path, said.table, "[questions]"):
        for part in tables.read(path, file, said.table, columns):
            sha256[file] = part.sha256
            frames.append(_questions(part, said, template, metrics))
    questions = pl.concat(frames)
    if said.id is None:
        number = pl.int_range(1, pl.len() + 1).over("userId").cast(pl.String)
        questions = questions.with_columns(id=pl.col("userId") + "/" + number)
    if (twice := questions["id"].is_duplicated()).any():
        first = questions["id"].filter(twice)[0]
        raise InputError(
            f"{path}: {said.id or said.user} of [questions]: {first!r} stands for two questions; "
            "give each an id of its own"
        )
    return questions.select(*SCHEMA)


def _questions(
    part: TextTable, said: Questions, template: str, metrics: tuple[str, ...]
) -> pl.DataFrame:
    for column in [said.user, *([] if said.id is None else [said.id])]:
        part.require(column, ~text_tables.is_missing(pl.col(column)), "an id")
    named = sentences.names(template)
    for column in named:
        part.require(column, ~text_tables.is_missing(pl.col(column)), "of the question")
    # White space as a vocabulary leaves it, so that an answer that was learned is the true one.
    answer = pl.col(said.answer).str.replace_all(r"\s+", " ").str.strip_chars()
    answer = pl.when(text_tables.is_missing(answer)).then(pl.lit("")).otherwise(answer)
    answers = part.frame.select(answer).to_series()
    known = answers.filter(answers != "")
    if (wrong := answer_metrics.check_answers(metrics, known.to_list())) is not None:
        is_known = (answer != wrong) | (answer == "")
        needs = next(name for name in metrics if answer_metrics.METRICS[name].of_numbers)
        part.require(said.answer, is_known, f"a number, of which {needs} is taken")
    rows = part.frame.select(said.user, *(set(named) - {said.user})).iter_rows(named=True)
    split = pl.lit(None, pl.String)
    if said.split is not None:
        split = pl.col(said.split).str.strip_chars().str.to_lowercase()
        part.require(said.split, split.is_in(list(SPLITS)), "train, validation or test")
        split = split.replace_strict(SPLITS, default=None, return_dtype=pl.String)
    asked_at = pl.lit(None, pl.Int64)
    if said.time is not None:
        every = pl.repeat(True, part.frame.height, eager=True)
        asked_at = pl.lit(times.read(part, said.time, said.time_unit, every))
    return part.frame.select(
        userId=said.user,
        id=pl.lit(None, pl.String) if said.id is None else pl.col(said.id),
        question=pl.Series([sentences.write(template, row) for row in rows], dtype=pl.String),
        answer=answers,
        timestamp=asked_at,
        split=split,
    )


def in_type_of(questions: pl.DataFrame, user_ids: pl.Series) -> pl.DataFrame:
    """Returns questions by user, with ids of the type that those of interactions have."""
    if user_ids.dtype == pl.Int64:
        questions = questions.with_columns(userId=ids.numbers_or_none("userId"))
    return questions.sort("userId", maintain_order=True)
