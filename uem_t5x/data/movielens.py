"""Reads MovieLens: its CSV form (ml-latest-small, 20M, 25M, 32M) and its `::` form (1M, 10M).

Either is a folder or the zip file as GroupLens publishes it; nothing is unpacked to the disk. The
CSV form of 20M that Kaggle has, with other file names and with dates, is read as well.
"""

import dataclasses
import reprlib
from pathlib import Path, PurePosixPath

import polars as pl

from uem_t5x.base.errors import InputError
from uem_t5x.data import archives, class_names, text_tables
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes import verbalizer
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR, MAX_HALF_STARS

_COLUMNS = {
    "movies": ["movieId", "title", "genres"],
    "ratings": ["userId", "movieId", "rating", "timestamp"],
}
_NUMBERS = {"movies": ["movieId"], "ratings": ["userId", "movieId", "rating"]}
# The files of the movies and of the ratings.
_LAYOUTS = (
    ("movies.csv", "ratings.csv"),
    ("movie.csv", "rating.csv"),
    ("movies.dat", "ratings.dat"),
)

# What is no genre.
_NO_GENRES = r"(?i)^\s*\(?\s*no\s+genres\s+listed\s*\)?\s*$"

_GET = "get MovieLens from grouplens.org"
_WHOLE_NUMBER = "a whole number below 2**63"


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
    files = dict(zip(_COLUMNS, _find_files(path)))
    tables = {}
    for table, file in files.items():
        data, name = archives.read(path, file), f"{path}/{file}"
        if file.endswith(".dat"):
            tables[table] = text_tables.read_unquoted(data, name, _COLUMNS[table])
        else:
            tables[table] = text_tables.read_csv(
                data, name, _COLUMNS[table], numbers=_NUMBERS[table]
            )
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
        ratings: as in `MovieLens`; or in their order within the same time, as `order` numbers it.
        movies: as in `MovieLens`.

    Returns:
        The ratings left, by user and in time order (ties by `order`, or by `movieId`), and how many
        were dropped: `unknown_movies` and `duplicates`.
    """
    known = ratings.join(movies.select("movieId"), on="movieId", how="semi")
    # Sorted twice rather than looked up in a table of all pairs, which takes far more memory.
    tie = "order" if "order" in known.columns else "movieId"
    by_movie = known.sort("userId", "movieId", "timestamp", tie, maintain_order=True)
    pair = pl.col("userId", "movieId")
    is_newest = pl.any_horizontal(pair != pair.shift(-1)).fill_null(True)
    kept = by_movie.filter(is_newest).sort("userId", "timestamp", tie)
    dropped = {
        "unknown_movies": ratings.height - known.height,
        "duplicates": known.height - kept.height,
    }
    return kept, dropped


def _movies(table: TextTable) -> pl.DataFrame:
    table.require("movieId", text_tables.integer("movieId").is_not_null(), _WHOLE_NUMBER)
    first = text_tables.integer("movieId").is_first_distinct()  # 1 and 01 are the same movie
    table.require("movieId", first, "listed once: drop this line")
    table.require("title", pl.col("title").is_not_null(), "a title")
    cell = pl.col("genres").fill_null("")
    is_list = cell.str.contains(class_names.LIST) & ~cell.str.contains("|", literal=True)
    table.require("genres", ~is_list, "names joined by |, without brackets: Children|IMAX")
    listed = cell.str.split("|")
    short = listed.list.eval(pl.element().str.len_chars()).list.max() <= class_names.MOST_LETTERS
    table.require("genres", short, f"of names of at most {class_names.MOST_LETTERS} letters")
    name = pl.element()
    is_none = text_tables.is_missing(name) | name.str.contains(_NO_GENRES)
    names = listed.list.eval(name.filter(~is_none))
    movies = table.frame.select(text_tables.integer("movieId"), "title", genres=names)
    _check_genres(table, movies["genres"])
    if table.ends_mid_line:
        # The file may lack just its newline. It was cut off if its last word begins another genre.
        known = movies["genres"].head(-1).explode().drop_nulls().unique()
        last = movies["genres"].tail(1).explode().drop_nulls().tail(1).to_list()
        cut_off = any(name not in known and known.str.starts_with(name).any() for name in last)
        ends = pl.col("genres").is_null() | cut_off
        table.require("genres", ~(_is_last_row() & ends), "whole: the file is cut off")
    return movies


def _check_genres(table: TextTable, genres: pl.Series) -> None:
    """Refuses names that are too many, too much alike, or plainly lists of names.

    Args:
        table: of the movies.
        genres: the names that each row lists.
    """
    names = genres.explode().drop_nulls().unique(maintain_order=True).to_list()
    for separator in (",", ";", "/"):
        # A slash may join two words to one name, where names are joined by |.
        if separator == "/" and (genres.list.len() > 1).any():
            continue
        found = class_names.first_list(names, separator)
        if found is not None:
            mend = reprlib.repr("|".join(part.strip() for part in found.split(separator)))
            table.require(
                "genres",
                pl.lit(~genres.list.contains(found)),
                f"names joined by |, as {mend}: other rows have the same names",
            )
    if len(names) > class_names.MOST:
        raise InputError(
            f"{table.name}: {len(names)} genres, of which at most {class_names.MOST} are read; "
            "name broader ones"
        )
    spelled = {"": ""}
    for genre in sorted(names):
        same = spelled.setdefault(verbalizer.normalize(genre), genre)
        if same != genre:
            raise InputError(
                f"{table.name}: the genres {same!r} and {genre!r} differ in case or spacing only, "
                "or in how their characters are encoded (NFKC); write them alike"
            )


def _ratings(table: TextTable) -> pl.DataFrame:
    user_ids = _user_ids(table)
    movie_ids = text_tables.integers(table.frame["movieId"])
    table.require("movieId", pl.lit(movie_ids.is_not_null()), _WHOLE_NUMBER)
    seconds = _seconds(table.frame["timestamp"])
    table.require(
        "timestamp",
        pl.lit(seconds.is_not_null()),
        "seconds since 1970, or a time as 2005-04-02 23:53:47",
    )
    half_stars = pl.col("rating").cast(pl.Float64, strict=False) * HALF_STARS_PER_STAR
    on_grid = half_stars.is_between(1, MAX_HALF_STARS) & (half_stars == half_stars.round())
    table.require("rating", on_grid, "0.5 to 5 stars in steps of 0.5")
    if table.ends_mid_line:
        # The file may lack just its newline. It was cut off if its last number is short of digits.
        digits = pl.col("timestamp").str.len_bytes()
        short = _is_last_row() & (digits < digits.slice(0, pl.len() - 1).min()).fill_null(False)
        table.require("timestamp", ~short, "whole: the file is cut off")
    return table.frame.select(
        user_ids,
        movie_ids,
        half_stars.cast(pl.UInt8).alias("half_stars"),
        seconds,
    )


def _user_ids(table: TextTable) -> pl.Series:
    """Returns the ids: int64 where all are, else uint64, which is hashed and written alike."""
    texts = table.frame["userId"]
    signed = text_tables.integers(texts)
    if not signed.has_nulls():
        return signed
    unsigned = text_tables.integers(texts, signed=False)
    is_number = pl.lit(signed.is_not_null() | unsigned.is_not_null())
    table.require("userId", is_number, "a whole number below 2**64")
    is_unsigned = pl.lit(unsigned.is_not_null())
    table.require("userId", is_unsigned, "0 or more, since there are ids of 2**63 and more")
    return unsigned


def _seconds(timestamps: pl.Series) -> pl.Series:
    """Returns seconds since 1970 of these, as they are or of dates, which are in UTC."""
    seconds = text_tables.integers(timestamps)
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"):
        if seconds.null_count() > timestamps.null_count():
            dates = timestamps.str.to_datetime(form, strict=False)
            seconds = pl.select(pl.coalesce(seconds, dates.dt.epoch("s"))).to_series()
    return seconds


def _is_last_row() -> pl.Expr:
    return pl.int_range(pl.len()) == pl.len() - 1


def _find_files(path: Path) -> tuple[str, str]:
    """Returns where the movies and the ratings lie in a folder or zip file: in the same folder.

    Raises:
        InputError: if there are no two such files, or several times two.
    """
    # Some tools of Windows write its separator.
    files = {PurePosixPath(name.replace("\\", "/")): name for name in archives.members(path, _GET)}
    found = [
        (files[folder / movies], files[folder / ratings])
        for folder in sorted({file.parent for file in files})
        for movies, ratings in _LAYOUTS
        if {folder / movies, folder / ratings} <= files.keys()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(movies for movies, _ in found[:2])
        raise InputError(
            f"{path}: {len(found)} data sets in it, whose movies are {both}; leave one, or unpack "
            "the zip file and give the folder of one"
        )
    names = {file.name for file in files}
    if {"u.data", "u.item"} <= names:
        raise InputError(
            f"{path}: MovieLens 100K, whose layout is not read; give ml-latest-small, which is as "
            "large, or 1M and later"
        )
    # Of the layout that is there in part, if one is.
    wanted = max(_LAYOUTS, key=lambda layout: len(names.intersection(layout)))
    missing = [file for file in wanted if file not in names]
    problem = (
        f"no {missing[0]} in it" if missing else f"{' and '.join(wanted)} are in different folders"
    )
    raise InputError(
        f"{path}: {problem}; give a MovieLens folder or zip file, which holds movies.csv and "
        "ratings.csv (or movies.dat and ratings.dat) in one folder"
    )
