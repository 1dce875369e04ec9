"""Reads MovieLens: its CSV form (ml-latest-small, 20M, 25M, 32M) and its `::` form (1M, 10M).

Either is a folder or the zip file as GroupLens publishes it; nothing is unpacked to the disk.
"""

import dataclasses
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import polars as pl

from uem_t5x.data import text_tables
from uem_t5x.data.text_tables import TextTable
from uem_t5x.errors import InputError

NO_GENRES = "(no genres listed)"
_MOVIE_COLUMNS = ["movieId", "title", "genres"]
_RATING_COLUMNS = ["userId", "movieId", "rating", "timestamp"]
_HALF_STARS_PER_STAR = 2
_MAX_HALF_STARS = 10


@dataclasses.dataclass(frozen=True)
class MovieLens:
    """The tables of MovieLens, as its files have them.

    Attributes:
        movies: `movieId`, `title` and `genres` (a list of names, empty where none is listed).
        ratings: `userId`, `movieId`, `half_stars` (1 to 10) and `timestamp` (seconds).
        sha256: of each file, by name.
    """

    movies: pl.DataFrame
    ratings: pl.DataFrame
    sha256: dict[str, str]


def read_movielens(path: Path) -> MovieLens:
    """Reads a MovieLens folder or zip file.

    Raises:
        InputError: if a file or a column is missing, a file is damaged, or a value is impossible.
    """
    members = _members(path)
    extension = "dat" if "movies.dat" in members and "movies.csv" not in members else "csv"
    files = {table: f"{table}.{extension}" for table in ("movies", "ratings")}
    for file in files.values():
        if file not in members:
            raise InputError(
                f"{path}: no {file} in it; give a MovieLens folder or zip file, which holds "
                "movies.csv and ratings.csv (or movies.dat and ratings.dat)"
            )
    read_table = text_tables.read_csv if extension == "csv" else text_tables.read_double_colon
    tables = {
        table: read_table(_read_member(path, members[file]), f"{path}/{members[file]}", columns)
        for (table, file), columns in zip(files.items(), (_MOVIE_COLUMNS, _RATING_COLUMNS))
    }
    return MovieLens(
        movies=_movies(tables["movies"]),
        ratings=_ratings(tables["ratings"]),
        sha256={file: tables[table].sha256 for table, file in files.items()},
    )


def clean_ratings(
    ratings: pl.DataFrame, movies: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Drops ratings of movies that are not in the movie table, and keeps the newest of duplicates.

    Args:
        ratings: as in `MovieLens`.
        movies: as in `MovieLens`.

    Returns:
        The ratings left, by user and in time order (ties by `movieId`), and how many were dropped:
        `unknown_movies` and `duplicates`.
    """
    known = ratings.join(movies.select("movieId"), on="movieId", how="semi")
    in_order = known.sort("userId", "timestamp", "movieId", maintain_order=True)
    kept = in_order.unique(["userId", "movieId"], keep="last", maintain_order=True)
    dropped = {
        "unknown_movies": ratings.height - known.height,
        "duplicates": known.height - kept.height,
    }
    return kept, dropped


def _movies(table: TextTable) -> pl.DataFrame:
    table.require("movieId", text_tables.integer("movieId").is_not_null(), "a whole number")
    table.require("movieId", pl.col("movieId").is_first_distinct(), "listed once: drop this line")
    table.require("title", pl.col("title").is_not_null(), "a title")
    genres_mend = f"names joined by | or {NO_GENRES}"
    table.require("genres", pl.col("genres").is_not_null(), genres_mend)
    names = pl.element().filter(~pl.element().is_in(["", NO_GENRES]))
    genres = pl.col("genres").str.split("|").list.eval(names)
    movies = table.frame.select(text_tables.integer("movieId"), "title", genres)
    if table.ends_mid_line:
        # The file may lack just its newline. It was cut off if its last word begins another genre.
        known = movies["genres"].head(-1).explode().drop_nulls().unique()
        last = movies["genres"].tail(1).explode().drop_nulls().tail(1).to_list()
        cut_off = any(name not in known and known.str.starts_with(name).any() for name in last)
        table.require("genres", ~(_is_last_row() & cut_off), "whole: the file is cut off")
    return movies


def _ratings(table: TextTable) -> pl.DataFrame:
    for column in ("userId", "movieId", "timestamp"):
        table.require(column, text_tables.integer(column).is_not_null(), "a whole number")
    half_stars = pl.col("rating").cast(pl.Float64, strict=False) * _HALF_STARS_PER_STAR
    on_grid = half_stars.is_between(1, _MAX_HALF_STARS) & (half_stars == half_stars.round())
    table.require("rating", on_grid, "0.5 to 5 stars in steps of 0.5")
    if table.ends_mid_line:
        # The file may lack just its newline. It was cut off if its last number is short of digits.
        digits = pl.col("timestamp").str.len_bytes()
        short = _is_last_row() & (digits < digits.slice(0, pl.len() - 1).min()).fill_null(False)
        table.require("timestamp", ~short, "whole: the file is cut off")
    return table.frame.select(
        text_tables.integer("userId"),
        text_tables.integer("movieId"),
        half_stars.cast(pl.UInt8).alias("half_stars"),
        text_tables.integer("timestamp"),
    )


def _is_last_row() -> pl.Expr:
    return pl.int_range(pl.len()) == pl.len() - 1


def _members(path: Path) -> dict[str, str]:
    """Returns the files of a folder or zip file: where each name lies in it, the outermost."""
    if path.is_dir():
        return {file.name: file.name for file in path.iterdir()}
    if not path.exists():
        raise InputError(f"{path}: no such folder or zip file; get MovieLens from grouplens.org")
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist(), key=lambda name: name.count("/"), reverse=True)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path}: neither a folder nor a readable zip file; get it anew"
        ) from error
    return {PurePosixPath(name).name: name for name in names}


def _read_member(path: Path, member: str) -> bytes:
    if path.is_dir():
        return text_tables.read_file(path / member)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    # RuntimeError: it wants a password. NotImplementedError: an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: {member} is damaged ({error}); get the zip file anew") from error
