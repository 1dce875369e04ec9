"""Joins what was read: which items and ratings are kept, and which users have enough of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Shaped

from uem_t5x.base.errors import InputError
from uem_t5x.data import movielens
from uem_t5x.data.descriptions import read_descriptions
from uem_t5x.data.gathering import StoredFrames


@dataclasses.dataclass(frozen=True)
class Joined:
    """The items and ratings that are kept.

    Attributes:
        movies: the movie table of the folder, its padding row included.
        ratings: `userId`, `row` and `half_stars`, by user and in time order; several frames where
            one would not fit into memory, each of whole users.
        user_ids: of all users, increasing.
        counts: what was read, kept and dropped, for the manifest.
        sha256: of each input file; see `Manifest.inputs`.
        worth: of a source, how many half-stars each value is that occurs.
        asked: of a source with questions, what each user of `ratings` is: `userId`, the question's
            id; `user`, the place in `user_ids` of who was asked; `question`, `answer`, `split`.
    """

    movies: pl.DataFrame
    ratings: StoredFrames
    user_ids: Shaped[np.ndarray, " users"]
    counts: dict[str, int]
    sha256: dict[str, str]
    worth: Mapping[str, int] = dataclasses.field(default_factory=dict)
    asked: pl.DataFrame | None = None


def read_movielens(path: Path, descriptions_file: Path, min_history: int) -> Joined:
    """Reads MovieLens and keeps described movies and users with enough of them.

    Raises:
        InputError: if a file is refused, or no user is left.
    """
    tables = movielens.read_movielens(path)
    descriptions = read_descriptions(descriptions_file, tables.movies)
    movies = in_rows(
        tables.movies.join(descriptions.frame, on="movieId").filter(pl.col("genres").list.len() > 0)
    )
    counts = {
        "descriptions_read": descriptions.rows,
        "descriptions": descriptions.frame.height,
        "dropped_descriptions": descriptions.rows - descriptions.frame.height,
    }
    kept, kept_counts = keep(tables.movies, movies, tables.ratings, min_history)
    counts = counts_of_movies(tables.movies, movies) | counts | kept_counts
    if kept.is_empty():
        raise InputError(
            f"0 users are too few for the asked split: of the {tables.movies.height} movies of "
            f"{path} {movies.height} have a genre and a description in {descriptions_file}; "
            f"{too_few(counts, min_history)}"
        )
    sha256 = {**tables.sha256, "descriptions": descriptions.sha256}
    ratings = StoredFrames(None)
    ratings.append(kept)
    return Joined(with_padding(movies), ratings, users(kept), counts, sha256)


def in_rows(movies: pl.DataFrame) -> pl.DataFrame:
    """Numbers the rows of a movie table, from 1, by the movies' ids."""
    return movies.sort("movieId").select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("row"), pl.all()
    )


def keep(
    all_movies: pl.DataFrame, movies: pl.DataFrame, ratings: pl.DataFrame, min_history: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns the ratings of users that have enough ratings of `movies`, and counts.

    Args:
        all_movies: `movieId`.
        movies: `movieId`, and the `row` of each.
        ratings: see `movielens.clean_ratings`.
        min_history: the fewest.

    Returns:
        `userId`, `row` and `half_stars`, by user and in time order.
    """
    known, dropped = movielens.clean_ratings(ratings, all_movies)
    described = known.join(
        movies.select("movieId", "row"), on="movieId", maintain_order="left"
    ).select("userId", "row", "half_stars")
    kept = described.filter(pl.len().over("userId") >= min_history)
    counts = {
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


def users(ratings: pl.DataFrame) -> Shaped[np.ndarray, " users"]:
    """Returns whose the ratings are, which stand by user."""
    return ratings["userId"].rle().struct["value"].to_numpy()


def counts_of_movies(all_movies: pl.DataFrame, movies: pl.DataFrame) -> dict[str, int]:
    """Counts movies that are kept, and others."""
    return {
        "movies_read": all_movies.height,
        "movies": movies.height,
        "dropped_movies": all_movies.height - movies.height,
    }


def too_few(counts: Mapping[str, int], min_history: int) -> str:
    """Says why no user is left, for messages."""
    described = counts["ratings"] + counts["dropped_short_history_ratings"]
    return (
        f"{described} of its {counts['ratings_read']} ratings are of these, and no user has "
        f"--min-history {min_history} of them"
    )


def with_padding(movies: pl.DataFrame) -> pl.DataFrame:
    """Puts row 0, which is empty, before the others."""
    empty = {pl.String: "", pl.List(pl.String): []}
    padding = {name: empty.get(dtype, 0) for name, dtype in movies.schema.items()}
    return pl.concat([pl.DataFrame([padding], schema=movies.schema), movies])
