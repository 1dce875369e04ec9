"""Joins what was read: which items and ratings are kept, and which users have enough of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from uem_t5x.base import progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import movielens, source_tables
from uem_t5x.data.descriptions import read_descriptions
from uem_t5x.data.sources import Source
from uem_t5x.tastes import sentences


@dataclasses.dataclass(frozen=True)
class Joined:
    """The movies and ratings that are kept.

    Attributes:
        movies: the movie table of the folder, its padding row included.
        ratings: `userId`, `row` and `half_stars`, by user and in time order.
        counts: what was read, kept and dropped, for the manifest.
        sha256: of each input file; see `Manifest.inputs`.
        worth: of a source, how many half-stars each value is that occurs.
    """

    movies: pl.DataFrame
    ratings: pl.DataFrame
    counts: dict[str, int]
    sha256: dict[str, str]
    worth: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read_movielens(path: Path, descriptions_file: Path, min_history: int) -> Joined:
    """Reads MovieLens and keeps described movies and users with enough of them.

    Raises:
        InputError: if a file is refused, or no user is left.
    """
    tables = movielens.read_movielens(path)
    descriptions = read_descriptions(descriptions_file, tables.movies)
    movies = _in_rows(
        tables.movies.join(descriptions.frame, on="movieId").filter(pl.col("genres").list.len() > 0)
    )
    counts = {
        "descriptions_read": descriptions.rows,
        "descriptions": descriptions.frame.height,
        "dropped_descriptions": descriptions.rows - descriptions.frame.height,
    }
    kept, kept_counts = _keep(tables.movies, movies, tables.ratings, min_history)
    if kept.is_empty():
        raise InputError(
            f"0 users are too few for the asked split: of the {tables.movies.height} movies of "
            f"{path} {movies.height} have a genre and a description in {descriptions_file}; "
            f"{_too_few(kept_counts, min_history)}"
        )
    sha256 = {**tables.sha256, "descriptions": descriptions.sha256}
    # In the order in which they have always stood.
    names = ("movies_read", "movies", "dropped_movies")
    counts = {name: kept_counts[name] for name in names} | counts | kept_counts
    return Joined(_with_padding(movies), kept, counts, sha256)


def read_source(
    source: Source,
    path: Path,
    min_history: int,
    start: progress.Start = progress.unseen,
    enough: int | None = None,
) -> Joined:
    """Reads the tables of a source and keeps the items of which all is known that is told.

    Args:
        source: what they are.
        path: the folder or zip file that they lie in.
        min_history: users with fewer items are left out.
        start: starts the display of progress.
        enough: see `source_tables.read`.

    Raises:
        InputError: if a file is refused, or no user is left.
    """
    tables = source_tables.read(source, path, start, enough)
    told = _told_columns(source)
    movies = _in_rows(tables.items.drop_nulls(told))
    kept, counts = _keep(tables.items, movies, tables.interactions, min_history)
    if kept.is_empty():
        raise InputError(
            f"0 users are too few for the asked split: of the {tables.items.height} items of "
            f"{path} {movies.height} have a {' and a '.join(told)}; {_too_few(counts, min_history)}"
        )
    for reason, count in tables.counts.items():
        counts[f"dropped_{reason}"] = count
        counts["movies_read" if reason.endswith("_movies") else "ratings_read"] += count
    return Joined(_with_padding(movies), kept, counts, dict(tables.sha256), tables.worth)


def _told_columns(source: Source) -> list[str]:
    """Returns the columns of items that sentences name, and `title`, in order."""
    templates = source.telling.sentences.values()
    named = [name for template in templates for name in sentences.names(template)]
    known = {name for items in source.items for name in items.columns}
    return [name for name in dict.fromkeys(["title", *named]) if name in known]


def _in_rows(movies: pl.DataFrame) -> pl.DataFrame:
    return movies.sort("movieId").select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("row"), pl.all()
    )


def _keep(
    all_movies: pl.DataFrame, movies: pl.DataFrame, ratings: pl.DataFrame, min_history: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns the ratings of users that have enough ratings of `movies`, and counts."""
    known, dropped = movielens.clean_ratings(ratings, all_movies)
    described = known.join(
        movies.select("movieId", "row"), on="movieId", maintain_order="left"
    ).select("userId", "row", "half_stars")
    kept = described.filter(pl.len().over("userId") >= min_history)
    counts = {
        "movies_read": all_movies.height,
        "movies": movies.height,
        "dropped_movies": all_movies.height - movies.height,
        "ratings_read": ratings.height,
        "ratings": kept.height,
        "dropped_duplicate_ratings": dropped["duplicates"],
        "dropped_unknown_movie_ratings": dropped["unknown_movies"],
        "dropped_undescribed_ratings": known.height - described.height,
        "dropped_short_history_ratings": described.height - kept.height,
        "users_read": ratings["userId"].n_unique(),
        "users": kept["userId"].n_unique(),
    }
    counts["dropped_users"] = counts["users_read"] - counts["users"]
    return kept, counts


def _too_few(counts: Mapping[str, int], min_history: int) -> str:
    described = counts["ratings"] + counts["dropped_short_history_ratings"]
    return (
        f"{described} of its {counts['ratings_read']} ratings are of these, and no user has "
        f"--min-history {min_history} of them"
    )


def _with_padding(movies: pl.DataFrame) -> pl.DataFrame:
    empty = {pl.String: "", pl.List(pl.String): []}
    padding = {name: empty.get(dtype, 0) for name, dtype in movies.schema.items()}
    return pl.concat([pl.DataFrame([padding], schema=movies.schema), movies])
