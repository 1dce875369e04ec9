"""Reads MovieLens: its CSV form (ml-latest-small, 20M, 25M, 32M) and its `::` form (1M, 10M).

Either is a folder or the zip file as GroupLens publishes it; nothing is unpacked to the disk.
"""

import dataclasses
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import polars as pl

from uem_t5x import verbalizer
from uem_t5x.data import text_tables
from uem_t5x.data.text_tables import TextTable
from uem_t5x.errors import InputError
from uem_t5x.rating_scale import HALF_STARS_PER_STAR, MAX_HALF_STARS

NO_GENRES = "(no genres listed)"
_MOVIE_COLUMNS = ["movieId", "title", "genres"]
_RATING_COLUMNS = ["userId", "movieId", "rating", "timestamp"]

# MovieLens has 19 genres. Every user and movie gets a number for each, and every answer is searched
# for each, letter by letter.
_MAX_GENRES = 1000
_MAX_GENRE_LETTERS = 100

# MovieLens is compressed to a third or a quarter, zeros to a thousandth. A smaller table than the
# second figure is no danger, however well it is compressed.
_MAX_COMPRESSION = 30
_HARMLESS_BYTES = 2**26
# Python's other decompressors do not stop at the size that a zip file declares.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# RuntimeError: it wants a password, or is of an unknown kind. ValueError: a name that is no text,
# or an offset before the file.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)


@dataclasses.dataclass(frozen=True)
class MovieLens:
    """The tables of MovieLens, as its files have them.

    Attributes:
        movies: `movieId`, `title` and `genres` (a list of names, empty where none is listed).
        ratings: `userId`, `movieId`, `half_stars` (1 to 10) and `timestamp` (seconds).
        sha256: of each file, by its table: `movies` and `ratings`.
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
    if {"u.data", "u.item"} <= members.keys():
        raise InputError(
            f"{path}: MovieLens 100K, whose layout is not read; give ml-latest-small, which is as "
            "large, or 1M and later"
        )
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
        sha256={name: table.sha256 for name, table in tables.items()},
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
    # Sorted twice rather than looked up in a table of all pairs, which takes far more memory.
    by_movie = known.sort("userId", "movieId", "timestamp", maintain_order=True)
    pair = pl.col("userId", "movieId")
    is_newest = pl.any_horizontal(pair != pair.shift(-1)).fill_null(True)
    kept = by_movie.filter(is_newest).sort("userId", "timestamp", "movieId")
    dropped = {
        "unknown_movies": ratings.height - known.height,
        "duplicates": known.height - kept.height,
    }
    return kept, dropped


def _movies(table: TextTable) -> pl.DataFrame:
    table.require("movieId", text_tables.integer("movieId").is_not_null(), "a whole number")
    first = text_tables.integer("movieId").is_first_distinct()  # 1 and 01 are the same movie
    table.require("movieId", first, "listed once: drop this line")
    table.require("title", pl.col("title").is_not_null(), "a title")
    genres_mend = f"names joined by | or {NO_GENRES}"
    table.require("genres", pl.col("genres").is_not_null(), genres_mend)
    listed = pl.col("genres").str.split("|")
    short = listed.list.eval(pl.element().str.len_chars()).list.max() <= _MAX_GENRE_LETTERS
    table.require("genres", short, f"of names of at most {_MAX_GENRE_LETTERS} letters")
    names = pl.element().filter(~pl.element().is_in(["", NO_GENRES]))
    movies = table.frame.select(text_tables.integer("movieId"), "title", listed.list.eval(names))
    _check_genres(table.name, movies["genres"].explode().drop_nulls().unique().to_list())
    if table.ends_mid_line:
        # The file may lack just its newline. It was cut off if its last word begins another genre.
        known = movies["genres"].head(-1).explode().drop_nulls().unique()
        last = movies["genres"].tail(1).explode().drop_nulls().tail(1).to_list()
        cut_off = any(name not in known and known.str.starts_with(name).any() for name in last)
        table.require("genres", ~(_is_last_row() & cut_off), "whole: the file is cut off")
    return movies


def _check_genres(name: str, genres: list[str]) -> None:
    if len(genres) > _MAX_GENRES:
        raise InputError(
            f"{name}: {len(genres)} genres, of which at most {_MAX_GENRES} are read; "
            "name broader ones"
        )
    spelled = {"": ""}
    for genre in sorted(genres):
        same = spelled.setdefault(verbalizer.normalize(genre), genre)
        if same != genre:
            raise InputError(
                f"{name}: the genres {same!r} and {genre!r} differ in case or spacing only, or in "
                "how their characters are encoded (NFKC); write them alike"
            )


def _ratings(table: TextTable) -> pl.DataFrame:
    for column in ("userId", "movieId", "timestamp"):
        table.require(column, text_tables.integer(column).is_not_null(), "a whole number")
    half_stars = pl.col("rating").cast(pl.Float64, strict=False) * HALF_STARS_PER_STAR
    on_grid = half_stars.is_between(1, MAX_HALF_STARS) & (half_stars == half_stars.round())
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
    try:
        if path.is_dir():
            return {file.name: file.name for file in path.iterdir()}
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                names = sorted(archive.namelist(), key=lambda name: name.count("/"), reverse=True)
            # A name that would break the line of a message is none that GroupLens gave.
            return {PurePosixPath(name).name: name for name in names if name.isprintable()}
    except _ZIP_ERRORS as error:
        raise InputError(
            f"{path}: neither a folder nor a readable zip file; get it anew"
        ) from error
    raise InputError(f"{path}: no such folder or zip file; get MovieLens from grouplens.org")


def _read_member(path: Path, member: str) -> bytes:
    if path.is_dir():
        return text_tables.read_file(path / member)
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
            danger = _danger(info, path.stat().st_size)
            if danger is None:
                with archive.open(info) as file:
                    return file.read(info.file_size)  # and no more, whatever it unpacks to
    except _ZIP_ERRORS as error:
        raise InputError(f"{path}: {member} is damaged ({error}); get the zip file anew") from error
    raise InputError(
        f"{path}: {member} {danger}; get the zip file anew, or unpack it and give the folder"
    )


def _danger(member: zipfile.ZipInfo, archive_size: int) -> str | None:
    """Returns why unpacking may take more memory than any MovieLens would; None if it cannot."""
    if member.compress_type not in _COMPRESSIONS:
        return "is not compressed by deflate, so that nothing bounds its size"
    compressed = min(member.compress_size, archive_size)
    if member.file_size > max(_HARMLESS_BYTES, _MAX_COMPRESSION * compressed):
        return f"has {member.file_size} bytes, but only {compressed} when compressed"
    return None
