"""Users and what they rated, read from JSON lines: what `uem-t5x predict` is asked about."""

import collections
import dataclasses
import datetime
import json
import math
import re
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uem_t5x.answers.json_input import MAX_LINE_BYTES
from uem_t5x.base.errors import InputError
from uem_t5x.tastes.rating_scale import (
    HALF_STARS_PER_STAR,
    MAX_HALF_STARS,
    STARS,
    RatingScale,
)
from uem_t5x.tastes.telling import MOVIELENS, Telling

if TYPE_CHECKING:
    import polars as pl

# Python reads bare digits as a date as well; they are seconds, or milliseconds, in quotes.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A double holds every whole number up to here, and not every one beyond.
_EXACT_FLOAT = 2**53

_Time = int | float | datetime.datetime  # seconds, or a date
ItemId = int | str  # as the source of the catalogue has them


@dataclasses.dataclass(frozen=True)
class Movie:
    """A movie that the catalogue lacks, as a user's line describes it."""

    title: str
    genres: tuple[str, ...]
    description: str


@dataclasses.dataclass(frozen=True)
class User:
    """A user and what they rated, oldest first.

    Attributes:
      user_id: as given, a text or a number; None if it was not.
      items: row of the movie table, or a movie that it lacks.
      half_stars: the rating of each item, 1..10.
      question: what is asked, where each user has a question.
      unknown: how many items were dropped, as neither the catalogue nor the line tells of them.
      outdated: how many were dropped, as the user has rated the same movie again.

    Raises:
      InputError: if an item has no rating, or a rating is no number of half-stars.
    """

    user_id: Any
    items: tuple[int | Movie, ...]
    half_stars: tuple[int, ...]
    unknown: int = 0
    outdated: int = 0
    question: str = ""

    def __post_init__(self) -> None:
        items, ratings = len(self.items), len(self.half_stars)
        if items != ratings:
            raise InputError(
                f"user {self.user_id!r}: {items} items and {ratings} ratings; give each item one"
            )
        for rating in self.half_stars:
            if not 1 <= rating <= MAX_HALF_STARS:
                raise InputError(
                    f"user {self.user_id!r}: {rating} half-stars; give 1 to {MAX_HALF_STARS}"
                )


def movie_rows(movies: "pl.DataFrame") -> "dict[ItemId, int]":
    """Returns the row of each item's id in a catalogue's movie table."""
    return dict(zip(movies["movieId"].to_list()[1:], movies["row"].to_list()[1:]))


def movie_titles(movies: "pl.DataFrame") -> "dict[str, list[ItemId]]":
    """Returns the ids of each title of a catalogue's movie table, as `UserReader` takes them.

    Titles are the same if their characters are, however these are encoded (Unicode's NFC).
    """
    titles = collections.defaultdict(list)
    for movie_id, title in movies[1:].select("movieId", "title").iter_rows():
        titles[_as_compared(title)].append(movie_id)
    return dict(titles)


def _as_compared(title: str) -> str:
    return unicodedata.normalize("NFC", title).strip()


@dataclasses.dataclass(frozen=True, slots=True)
class _Rated:
    """An item of a history.

    Attributes:
      item: its row or description; None if there is neither.
      movie_id: None if it has none, which comes after all that have.
      half_stars: the rating.
      time: None if it is not given.
    """

    item: int | Movie | None
    movie_id: ItemId | None
    half_stars: int
    time: _Time | None


@dataclasses.dataclass(frozen=True)
class UserReader:
    """Reads users by a catalogue.

    An item is the one of the catalogue with its `item`, an id, or else with its `title`; where the
    catalogue has neither, it is what `title`, `genres` (or `classes`) and `description` make of it,
    and without a title it is dropped. Ids that are numbers may be called `movieId` as well. Items
    stand oldest first, unless they have a `timestamp` (seconds, or a date as of ISO 8601, which is
    one of UTC if it does not tell): then they are taken as `prepare` takes ratings, in order of
    time and of their ids, and of each the last rating alone.

    Attributes:
      rows: see `movie_rows`.
      titles: see `movie_titles`; empty for a catalogue that goes by ids alone.
      why_not_described: refuses movies that are only described, in these words.
      telling: says the scale of ratings, and whether each user comes with a `question`.
      ties_by_id: whether items of the same time are taken in the order of their ids, as `prepare`
        has those of MovieLens; else as they stand.
    """

    rows: Mapping[ItemId, int]
    titles: Mapping[str, Sequence[ItemId]] = dataclasses.field(default_factory=dict)
    why_not_described: str | None = None
    telling: Telling = MOVIELENS
    ties_by_id: bool = True

    def users(
        self, lines: Iterable[bytes | None], name: str, report: Callable[[InputError], Any]
    ) -> Iterator[User | None]:
        """Yields the user of each line, and None where `lines` has it.

        Args:
          lines: `{"user_id": "u1", "history": [{"movieId": 1, "rating": 4.5}, ...]}` in UTF-8.
          name: of the file, for messages.
          report: is called with the InputError of a line that cannot be read, which is skipped.
        """
        number = 0
        for line in lines:
            if line is None:
                yield None
                continue
            number += 1
            if len(line) <= MAX_LINE_BYTES and not line.strip():
                continue
            try:
                yield self._user(line)
            except (InputError, RecursionError) as error:
                report(InputError(f"{name}: line {number}: {error}"))

    def _user(self, line: bytes) -> User:
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"longer than {MAX_LINE_BYTES >> 20} MiB; give the most recent items of the history"
            )
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise InputError(f"no JSON ({error}); write one object a line") from error
        return self.read(record)

    def read(self, record: Any) -> User:
        """Returns the user of an object, as one that stands in a line.

        Raises:
          InputError: if it cannot be read.
        """
        if not isinstance(record, dict) or not isinstance(record.get("history"), list):
            raise InputError('expected {"user_id": ..., "history": [...]}')
        user_id = record.get("user_id")
        if not isinstance(user_id, str | int | float | None) or (
            isinstance(user_id, float) and not math.isfinite(user_id)
        ):
            raise InputError(f"user_id {reprlib.repr(user_id)} is not a text or a finite number")
        question = self._question(record.get("question"))
        given = []
        for position, entry in enumerate(record["history"], start=1):
            try:
                given.append(self._rated(entry))
            except InputError as error:
                raise InputError(f"item {position} of the history: {error}") from error
        _check_times(given)
        found = [rated for rated in given if rated.item is not None]
        kept = _in_order(found, self.ties_by_id)
        return User(
            user_id,
            tuple(rated.item for rated in kept),
            tuple(rated.half_stars for rated in kept),
            unknown=len(given) - len(found),
            outdated=len(found) - len(kept),
            question=question,
        )

    def _question(self, given: Any) -> str:
        """Returns what is asked; nothing where the model has one question, which may be said."""
        if not self.telling.has_questions:
            if given not in (None, self.telling.question):
                raise InputError(
                    f"question {reprlib.repr(given)}: the model was trained on one question, "
                    f"{self.telling.question!r}; leave it out"
                )
            return ""
        if not isinstance(given, str) or not given.strip():
            raise InputError('no question; the model answers some: {"question": "...", ...}')
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise InputError("the question holds half a character; leave it out") from error
        return given

    def _rated(self, entry: Any) -> _Rated:
        if not isinstance(entry, dict):
            raise InputError('expected {"movieId": ..., "rating": ...}')
        movie_id = _read_movie_id(entry) if "item" not in entry else self._item_id(entry["item"])
        item: int | Movie | None = self.rows.get(movie_id)
        if item is None and "title" in entry:
            movie = _read_movie(entry)
            if known := self.titles.get(_as_compared(movie.title), ()):
                movie_id = _the_one(known, movie.title)
                item = self.rows[movie_id]
            elif self.why_not_described:
                raise InputError(self.why_not_described)
            else:
                item = movie
        elif movie_id is None:
            raise InputError("neither a movieId nor a title; give one of them")
        return _Rated(item, movie_id, _read_rating(entry, self.telling.scale), _read_time(entry))

    def _item_id(self, given: Any) -> ItemId:
        """Returns an id as the catalogue has them: numbers, or texts."""
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise InputError(f"item {reprlib.repr(given)} is neither a text nor a whole number")
        if isinstance(next(iter(self.rows), 0), str):
            return str(given)
        try:
            return int(given)
        except ValueError:
            return given  # of no item that is there


def _check_times(items: Sequence[_Rated]) -> None:
    """Refuses a history some of whose items tell their time, or tell it in another way."""
    kinds = ["nothing" if rated.time is None else _kind(rated.time) for rated in items]
    for position, kind in enumerate(kinds, start=1):
        if kind != kinds[0]:
            raise InputError(
                f"item {position} of the history has {kind} for a timestamp, and the first one "
                f"{kinds[0]}; give every item the same kind, or none any and the oldest first"
            )


def _kind(time: _Time) -> str:
    return "a date" if isinstance(time, datetime.datetime) else "seconds"


def _in_order(items: Sequence[_Rated], ties_by_id: bool) -> Sequence[_Rated]:
    """Returns items as `prepare` takes ratings, where they tell their time; or else as given."""
    if not items or items[0].time is None:
        return items
    newest = {rated.item: rated for rated in sorted(items, key=lambda rated: rated.time)}
    if not ties_by_id:
        return sorted(newest.values(), key=lambda rated: rated.time)
    # Those without an id come last; they may not be compared with any.
    return sorted(
        newest.values(),
        key=lambda rated: (rated.time, rated.movie_id is None, rated.movie_id or 0),
    )


def _read_movie_id(entry: Mapping[str, Any]) -> int | None:
    movie_id = entry.get("movieId")
    # A column of whole numbers that lacks one is written as 1.0, 2.0, ... by pandas.
    if isinstance(movie_id, float) and movie_id.is_integer() and abs(movie_id) < _EXACT_FLOAT:
        return int(movie_id)
    if movie_id is not None and (isinstance(movie_id, bool) or not isinstance(movie_id, int)):
        raise InputError(f"movieId {reprlib.repr(movie_id)} is not a whole number")
    return movie_id


def _read_movie(entry: Mapping[str, Any]) -> Movie:
    genres = entry.get("classes", entry.get("genres", []))
    if isinstance(genres, str):
        genres = genres.split("|")
    description = entry.get("description", "")
    texts = [entry["title"], description, *(genres if isinstance(genres, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("title and description must be texts, genres a list of texts")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise InputError(f"{letter!r} in a text is half a character; leave it out") from error
    return Movie(entry["title"], tuple(genres), description)


def _the_one(movie_ids: Sequence[ItemId], title: str) -> ItemId:
    if len(movie_ids) > 1:
        raise InputError(
            f"title {reprlib.repr(title)} is that of {len(movie_ids)} movies of the catalogue; "
            f"give the movieId, {' or '.join(map(str, movie_ids[:5]))}"
        )
    return movie_ids[0]


def _read_rating(entry: Mapping[str, Any], scale: RatingScale) -> int:
    rating = entry.get("rating")
    if scale != STARS:
        return _read_value(rating, scale)
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        shown = reprlib.repr(rating)
        raise InputError(f"rating {shown} is not a number; give half-stars from 0.5 to 5")
    half_stars = rating * HALF_STARS_PER_STAR
    if not 1 <= half_stars <= MAX_HALF_STARS or half_stars != int(half_stars):
        raise InputError(f"rating {reprlib.repr(rating)} is not one of 0.5, 1, ..., 5")
    return int(half_stars)


def _read_value(value: Any, scale: RatingScale) -> int:
    """Returns the half-stars of a value of one's own; of the only one, it need not be given."""
    if value is None and len(scale.points) == 1:
        return scale.half_stars(scale.points[0][0])
    is_one = isinstance(value, str | int | float) and not isinstance(value, bool)
    half_stars = scale.half_stars(str(value)) if is_one else None
    if half_stars is None:
        known = ", ".join(point for point, _ in scale.points)
        raise InputError(f"rating {reprlib.repr(value)} is not on the scale of the data: {known}")
    return half_stars


def _read_time(entry: Mapping[str, Any]) -> _Time | None:
    time = entry.get("timestamp")
    if time is None:
        return None
    if isinstance(time, str) and _DATE.match(time):
        try:
            date = datetime.datetime.fromisoformat(time)
        except ValueError:
            pass
        else:
            return date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
    elif (isinstance(time, int) and not isinstance(time, bool)) or (
        isinstance(time, float) and math.isfinite(time)
    ):
        return time
    raise InputError(
        f"timestamp {reprlib.repr(time)} is neither a number of seconds nor a date such as "
        "2015-03-09T12:52:18"
    )
