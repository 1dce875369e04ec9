"""Reads LaMP (arXiv 2304.11406): questions, each with the profile of who asks it.

`train_questions.json`, `dev_questions.json` and `test_questions.json` are arrays of `{"id",
"input", "profile"}`, where a profile is a list of texts with an `id` and whatever the task has of
each; `train_outputs.json` and `dev_outputs.json` are `{"task", "golds": [{"id", "output"}]}`. Of a
test set nobody but the benchmark knows them.

An item is a text with its class, in whosever profile: those that are alike are one, and go by the
id that one of them has.
"""

import hashlib
import io
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import polars as pl
from etils import epath

from uem_t5x.base import progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import compressed, json_arrays, source_questions, tables
from uem_t5x.data.source_interactions import IDS_SHOWN
from uem_t5x.data.source_tables import SourceTables
from uem_t5x.data.sources import Profile, Source, Table
from uem_t5x.tastes import answer_metrics
from uem_t5x.tastes.rating_scale import RatingScale
from uem_t5x.tastes.telling import Telling

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_QUESTIONS, _OUTPUTS = Table(("*_questions.json*",)), Table(("*_outputs.json*",))
_TITLE_LETTERS = 80
_ROWS_AT_A_TIME = 1_000_000
_RATED = {
    "userId": pl.String,
    "movieId": pl.String,
    "half_stars": pl.UInt8,
    "timestamp": pl.Int64,
}


def read(
    source: Source, path: epath.PathLike, start: progress.Start, enough: int | None = None
) -> SourceTables:
    """Reads the files of a task.

    Args:
        source: of `reader = "lamp"`.
        path: the folder or zip file that they lie in.
        start: starts the display of progress.
        enough: no further file is read once there are so many texts in profiles; None reads all.

    Raises:
        InputError: if there are no questions to learn from, or a file is damaged, or of another
            form.
    """
    assert source.profile is not None
    files = _by_split(path, _QUESTIONS)
    if "train" not in files:
        raise InputError(f"{path}: no train_questions.json; get all files of the task")
    outputs = _by_split(path, _OUTPUTS)
    profiles = _Profiles(source.profile, source.telling.scale)
    asked: dict[str, tuple[str, str, str, str]] = {}
    advance = start("reading profiles", len(files))
    for prefix in filter(files.__contains__, _SPLITS):
        golds = None
        if prefix in outputs:
            golds = _golds(path, outputs[prefix], source.telling, profiles.sha256)
        for record in _objects(path, files[prefix], profiles.sha256):
            where = f"{path}/{files[prefix]}"
            number, question = _text(record, "id", where), _text(record, "input", where)
            if golds is not None and number not in golds:
                raise InputError(f"{path}/{outputs[prefix]}: no output of {number!r}; get it anew")
            answer = "" if golds is None else golds[number]
            name = number if number not in asked else f"{prefix}/{number}"
            if name in asked or asked.get(number, (None,) * 4)[3] == _SPLITS[prefix]:
                raise InputError(f"{where}: {number!r} stands for two questions; get it anew")
            asked[name] = (name, question, answer, _SPLITS[prefix])
            profiles.add(name, record.get("profile"), where)
        advance(1)
        if enough is not None and profiles.height >= enough:
            break
    questions = pl.DataFrame(
        list(asked.values()), ["id", "question", "answer", "split"], orient="row"
    )
    questions = questions.with_columns(
        pl.lit(None, pl.Int64).alias("timestamp"), pl.col("id").alias("userId")
    )
    return SourceTables(
        items=profiles.items(),
        repeated=0,
        interactions=profiles,
        questions=questions.select(*source_questions.SCHEMA),
        sha256={},
    )


class _Profiles:
    """Collects profiles: the items in them, and who has which; an `InteractionReader`."""

    def __init__(self, said: Profile, scale: RatingScale) -> None:
        self._said, self._scale = said, scale
        self._items: dict[str, dict[str, Any]] = {}
        self._id_of: dict[bytes, str] = {}
        self._rated: dict[str, list[Any]] = {name: [] for name in _RATED}
        self._frames: list[pl.DataFrame] = []
        self.files: list[str] = ["profiles"]
        self.counts: Mapping[str, int] = {"unrated": 0, "nameless": 0}
        self.worth: dict[str, int] = {}
        self.sha256: dict[str, str] = {}
        self.shown: list[str] = []
        self.users_shown: list[str] = []
        self.height = 0

    def add(self, user: str, profile: Any, where: str) -> None:
        """Adds a profile, whose texts are in time order where they have a date."""
        if not isinstance(profile, list) or not all(isinstance(entry, dict) for entry in profile):
            raise InputError(f"{where}: {user!r} has no profile of objects; get it anew")
        dated = sorted(profile, key=_date)
        for entry in dated:
            rated = (user, self._item(entry, user, where), self._half_stars(entry, user, where), 0)
            for column, value in zip(self._rated.values(), rated):
                column.append(value)
        self.height += len(profile)
        if len(self._rated["userId"]) >= _ROWS_AT_A_TIME:
            self._make_frame()

    def items(self) -> pl.DataFrame:
        """Returns `movieId`, `title`, `genres` and the columns of every item."""
        texts = dict.fromkeys(("movieId", "title", *self._said.columns), pl.String)
        schema = {**texts, "genres": pl.List(pl.String)}
        return pl.DataFrame(list(self._items.values()), schema)

    def read(self, advance: progress.Advance) -> Iterator[pl.DataFrame]:
        """Yields who has which item."""
        self._make_frame()
        self.shown = self._frames[0]["movieId"].head(IDS_SHOWN).to_list()
        yield from self._frames
        advance(1)

    def _make_frame(self) -> None:
        self._frames.append(pl.DataFrame(self._rated, _RATED))
        self._rated = {name: [] for name in _RATED}

    def _item(self, entry: Mapping[str, Any], user: str, where: str) -> str:
        texts = {
            name: " ".join(_text(entry, field, f"{where}: {user!r}", may_lack=True).split())
            for name, field in self._said.columns.items()
        }
        classes = []
        if self._said.classes is not None:
            classes = [_text(entry, self._said.classes, f"{where}: {user!r}")]
        content = hashlib.blake2b(json.dumps([*texts.values(), classes]).encode()).digest()
        if (known := self._id_of.get(content)) is not None:
            return known
        number = _text(entry, "id", f"{where}: {user!r}")
        name, place = number, 0
        while name in self._items:  # that of another profile's text, or of the same one's
            place += 1
            name = f"{user}/{number}" if place == 1 else f"{user}/{number}/{place}"
        first = next(filter(None, texts.values()), "")
        title = first if len(first) <= _TITLE_LETTERS else f"{first[:_TITLE_LETTERS]}..."
        # What is empty is nothing; an item that lacks what is told is left out, and counted.
        row = {key: text or None for key, text in ({"title": title} | texts).items()}
        self._items[name] = {"movieId": name, **row, "genres": classes}
        self._id_of[content] = name
        return name

    def _half_stars(self, entry: Mapping[str, Any], user: str, where: str) -> int:
        if self._said.value is None:
            return 10
        value = _text(entry, self._said.value, f"{where}: {user!r}")
        half_stars = self._scale.half_stars(value)
        if half_stars is None:
            raise InputError(
                f"{where}: {user!r}: {self._said.value} is {reprlib.repr(value)}; it must be 0.5 "
                "to 5 stars in steps of 0.5"
            )
        self.worth[value] = half_stars
        return half_stars


def _by_split(path: epath.PathLike, table: Table) -> dict[str, str]:
    """Returns the file of each split, by what its name begins with."""
    files: dict[str, str] = {}
    for file in tables.find(path, table, "LaMP"):
        prefix = PurePosixPath(file).name.partition("_")[0]
        if prefix in files:
            raise InputError(f"{path}: {files[prefix]} and {file} are both there; leave one")
        files[prefix] = file
    return files


def _date(entry: Mapping[str, Any]) -> list[int]:
    """Returns the numbers of a date such as 2012-1-31; none of an entry that has no date."""
    return [int(part) for part in str(entry.get("date", "")).split("-") if part.isdigit()]


def _objects(path: epath.PathLike, file: str, sha256: dict[str, str]) -> Iterator[dict[str, Any]]:
    with compressed.opened(path, file) as stream:
        hashed = compressed.Hashing(stream)
        yield from json_arrays.read(io.BufferedReader(hashed), f"{path}/{file}")
        sha256[file] = hashed.sha256.hexdigest()


def _golds(
    path: epath.PathLike, file: str, telling: Telling, sha256: dict[str, str]
) -> dict[str, str]:
    """Returns the true outputs by their questions' ids."""
    where, task, metrics = f"{path}/{file}", telling.task, telling.metrics
    with compressed.opened(path, file) as stream:
        data = stream.read()
    sha256[file] = hashlib.sha256(data).hexdigest()
    try:
        record = json.loads(data)
        golds = {
            str(gold["id"]): "" if gold["output"] is None else str(gold["output"]).strip()
            for gold in record["golds"]
        }
        found = record["task"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{where}: not of the form {{"task": ..., "golds": [{{"id": ..., "output": ...}}]}}; '
            "get it anew"
        ) from error
    if task and found != task:
        raise InputError(f"{where}: outputs of {found!r}, and not of {task!r}; give its own folder")
    known = list(filter(None, golds.values()))
    if (wrong := answer_metrics.check_answers(metrics, known)) is not None:
        number = next(number for number, output in golds.items() if output == wrong)
        raise InputError(f"{where}: the output of {number!r} is {wrong!r}; it must be a number")
    return golds


def _text(record: Mapping[str, Any], field: str, where: str, may_lack: bool = False) -> str:
    value = record.get(field)
    if value is None and may_lack:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: {field} is {reprlib.repr(value)}; it must be a text")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {field} holds half a character; leave it out") from error
    return text
