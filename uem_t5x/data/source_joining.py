"""Joins the tables of a source, as many interactions as there are: see `gathering`."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Shaped

from uem_t5x.base import progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import asking, ids, joining, lamp, source_questions, source_tables, times
from uem_t5x.data.gathering import GatheredByUser, StoredFrames
from uem_t5x.data.joining import Joined
from uem_t5x.data.source_interactions import IDS_SHOWN
from uem_t5x.data.source_tables import InteractionReader, SourceTables
from uem_t5x.data.sources import LAMP, Source
from uem_t5x.tastes import sentences


def read_source(
    source: Source,
    path: epath.PathLike,
    min_history: int,
    start: progress.Start = progress.unseen,
    scratch: Path | None = None,
    enough: int | None = None,
) -> Joined:
    """Reads the tables of a source and keeps the items of which all is known that is told.

    Args:
        source: what they are.
        path: the folder or zip file that they lie in.
        min_history: users with fewer items are left out; where there are questions, those about
            fewer.
        start: starts the display of progress.
        scratch: a folder for what does not fit into memory, which the caller removes; None keeps
            all there.
        enough: no further interactions are read once there are so many; None reads all.

    Raises:
        InputError: if a file is refused, or no user is left.
    """
    reader = lamp if source.reader == LAMP else source_tables
    tables = reader.read(source, path, start, enough)
    items, interactions, questions = tables.items, tables.interactions, tables.questions
    movies = told_items(source, items)
    asks_at_times = questions is not None and questions["timestamp"].count() > 0
    # Interactions are with items by their place among all items.
    places = places_of(items)
    gathered = _gather(interactions, places, path, scratch, start, asks_at_times)
    rows = rows_of(movies, places)

    ratings = StoredFrames(gathered.scratch)
    advance = start("joining", gathered.height)
    if questions is None:
        user_ids, counts = _join_users(gathered, rows, items.height, min_history, ratings, advance)
        asked = None
    else:
        asked, counts = _join_questions(gathered, rows, questions, min_history, ratings, advance)
        users = asked["userId"].rle().struct.unnest()
        user_ids = users["value"].to_numpy()
        place = np.repeat(np.arange(users.height), users["len"].to_numpy())
        asked = asked.select(pl.Series("user", place), "question", "answer", "split", userId="id")
    counts = all_counts(tables, movies, counts, interactions.counts)
    if not len(user_ids) and questions is not None:
        raise _nobody_is_asked(path, counts, questions, interactions.users_shown, min_history)
    if not len(user_ids):
        raise nobody_is_left(source, path, tables, movies, counts, min_history)
    sha256 = {**tables.sha256, **interactions.sha256}
    worth = interactions.worth
    return Joined(
        joining.with_padding(movies), ratings, user_ids, counts, sha256, worth=worth, asked=asked
    )


def told_items(source: Source, items: pl.DataFrame) -> pl.DataFrame:
    """Returns the items of which all is known that is told, in rows; see `joining.in_rows`."""
    return joining.in_rows(items.drop_nulls(_told_columns(source, items)))


def all_counts(
    tables: SourceTables,
    movies: pl.DataFrame,
    kept: Mapping[str, int],
    left_out: Mapping[str, int],
) -> dict[str, int]:
    """Returns what the manifest counts of a source.

    Args:
        tables: the items.
        movies: those that are kept.
        kept: counts of interactions that were joined.
        left_out: interactions that were not, by why.
    """
    counts = joining.counts_of_movies(tables.items, movies) | dict(kept)
    for reason, count in left_out.items():
        counts[f"dropped_{reason}_ratings"] = count
        counts["ratings_read"] += count
    counts["dropped_repeated_movies"] = tables.repeated
    counts["movies_read"] += tables.repeated
    return counts


def nobody_is_left(
    source: Source,
    path: epath.PathLike,
    tables: SourceTables,
    movies: pl.DataFrame,
    counts: Mapping[str, int],
    min_history: int,
) -> InputError:
    """Returns the error that no user has enough items."""
    told = " and a ".join(_told_columns(source, tables.items))
    return InputError(
        f"0 users are too few for the asked split: of the {tables.items.height} items of {path} "
        f"{movies.height} have a {told}; {joining.too_few(counts, min_history)}"
    )


def _nobody_is_asked(
    path: epath.PathLike,
    counts: Mapping[str, int],
    questions: pl.DataFrame,
    users: Sequence[str],
    min_history: int,
) -> InputError:
    asked = ", ".join(map(repr, questions["userId"].unique().sort().head(IDS_SHOWN)))
    return InputError(
        f"{path}: no question is left: of {counts['questions_read']} "
        f"{counts['dropped_unanswered_questions']} have no answer, "
        f"{counts['dropped_nobodys_questions']} are of users without a history (such as "
        f"{asked or 'none'}; histories are of {', '.join(map(repr, users)) or 'none'}), and "
        f"{counts['dropped_short_history_questions']} about fewer than {min_history} items from "
        "before them"
    )


def _told_columns(source: Source, items: pl.DataFrame) -> list[str]:
    """Returns the columns of items that sentences name, and `title`, in order."""
    templates = source.telling.sentences.values()
    named = [name for template in templates for name in sentences.names(template)]
    return [name for name in dict.fromkeys(["title", *named]) if name in items.columns]


def _gather(
    interactions: InteractionReader,
    places: pl.DataFrame,
    path: epath.PathLike,
    scratch: Path | None,
    start: progress.Start,
    asks_at_times: bool,
) -> GatheredByUser:
    """Returns `userId`, `movieId` (the place among all items), `half_stars` and `timestamp`.

    Raises:
        InputError: if no interaction is with any of the items; or some are of a time that is none,
            so that they would be from before every question.
    """
    gathered, is_any_known, too_early = GatheredByUser(scratch), False, 0
    advance = start("reading interactions", len(interactions.files))
    for part in interactions.read(advance):
        placed = place_items(part, places)
        is_any_known = is_any_known or placed["movieId"].count() > 0
        too_early += (placed["timestamp"] < times.YEAR_1980).sum()
        gathered.add(placed)
    if asks_at_times and too_early:
        raise InputError(
            f"{path}: {too_early:,} of {gathered.height:,} interactions are from before 1980, and "
            "so from before every question: write their times as dates, or say another time_unit ="
        )
    if gathered.height and not is_any_known:
        raise no_known_item(path, interactions.shown, places)
    return gathered


def places_of(items: pl.DataFrame) -> pl.DataFrame:
    """Returns `movieId` and `place` of all items."""
    return items.select("movieId", place=pl.int_range(pl.len(), dtype=pl.Int32))


def rows_of(movies: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Returns the `row` of each kept item, by its place, which is called `movieId`."""
    return movies.join(places, on="movieId").select("row", movieId="place")


def _join_users(
    gathered: GatheredByUser,
    rows: pl.DataFrame,
    items: int,
    min_history: int,
    ratings: StoredFrames,
    advance: progress.Advance,
) -> tuple[Shaped[np.ndarray, " users"], dict[str, int]]:
    """Stores the ratings that are kept; returns whose they are, and counts."""
    user_ids: list[np.ndarray] = []
    counts: collections.Counter[str] = collections.Counter()
    for part in gathered.parts():
        kept, counts_of_part = keep_part(part, rows, items, min_history)
        ratings.append(kept)
        user_ids.append(joining.users(kept))
        counts.update(counts_of_part)
        advance(part.height)
    return np.concatenate(user_ids), dict(counts)


def keep_part(
    part: pl.DataFrame, rows: pl.DataFrame, items: int, min_history: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns the ratings of users that have enough, of some users; see `joining.keep`.

    Args:
        part: `userId`, `movieId` (the place among all items), `half_stars`, `timestamp`, `order`.
        rows: `movieId` and `row` of the items that are kept.
        items: how many there are in all.
        min_history: the fewest.
    """
    listed = pl.DataFrame({"movieId": np.arange(items, dtype=np.int32)})
    if part["userId"].dtype != pl.String:
        return joining.keep(listed, rows, part, min_history)
    # Numbers are sorted faster.
    names = pl.Enum(part["userId"].unique().sort())
    part = part.with_columns(pl.col("userId").cast(names))
    kept, counts = joining.keep(listed, rows, part, min_history)
    return kept.with_columns(pl.col("userId").cast(pl.String)), counts


def place_items(part: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Returns interactions with items by their places among all, null of those that are not listed.

    Args:
        part: `userId`, `movieId` (texts), `half_stars` and `timestamp`.
        places: `movieId` and `place` of all items.
    """
    if places["movieId"].dtype == pl.Int64:
        part = part.with_columns(movieId=ids.numbers_or_none("movieId"))
    placed = part.join(places, on="movieId", how="left", maintain_order="left")
    return placed.select("userId", "half_stars", "timestamp", movieId="place")


def no_known_item(path: epath.PathLike, shown: Sequence[str], places: pl.DataFrame) -> InputError:
    """Returns the error that no interaction is with an item that is listed."""
    known = places["movieId"].head(IDS_SHOWN).to_list()
    return InputError(
        f"{path}: no interaction is with an item that is listed: ids are such as "
        f"{', '.join(map(repr, shown))} there, and {', '.join(map(repr, known))} among [items]; "
        "write them alike"
    )


def _join_questions(
    gathered: GatheredByUser,
    rows: pl.DataFrame,
    questions: pl.DataFrame,
    min_history: int,
    ratings: StoredFrames,
    advance: progress.Advance,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Stores the histories of questions; returns the questions that are kept, and counts."""
    kept: list[pl.DataFrame] = []
    counts: collections.Counter[str] = collections.Counter()
    asked_of, questions = questions.height, _answered(questions)
    of_known_users = 0
    for part in gathered.parts():
        known = part.drop_nulls("movieId")
        described = known.join(rows, on="movieId", maintain_order="left")
        described = described.sort("userId", "timestamp", "order")
        of_part = source_questions.in_type_of(questions, described["userId"])
        of_part = of_part.filter(pl.col("userId").is_in(described["userId"].unique().implode()))
        of_known_users += of_part.height
        used, seen = np.zeros(described.height, bool), np.zeros(described.height, bool)
        for asked in asking.ask(described, of_part, min_history):
            ratings.append(asked.histories)
            kept.append(asked.questions)
            used[asked.used], seen[asked.seen] = True, True
        counts.update(
            ratings_read=part.height,
            ratings=int(used.sum()),
            dropped_duplicate_ratings=int((seen & ~used).sum()),
            dropped_unknown_movie_ratings=part.height - known.height,
            dropped_undescribed_ratings=known.height - described.height,
            dropped_short_history_ratings=int((~seen).sum()),
            users_read=part["userId"].n_unique(),
        )
        advance(part.height)
    all_kept = pl.concat(kept) if kept else questions.clear()
    counts["users"] = all_kept["userId"].n_unique()
    counts["dropped_users"] = counts["users_read"] - counts["users"]
    counts["questions_read"], counts["questions"] = asked_of, all_kept.height
    counts["dropped_unanswered_questions"] = asked_of - questions.height
    counts["dropped_nobodys_questions"] = questions.height - of_known_users
    counts["dropped_short_history_questions"] = of_known_users - all_kept.height
    return all_kept, dict(counts)


def _answered(questions: pl.DataFrame) -> pl.DataFrame:
    """Returns the questions that can be learned from or scored, and those that a test set asks."""
    return questions.filter((pl.col("answer") != "") | (pl.col("split") == "test"))
