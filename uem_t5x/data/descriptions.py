"""Joins movies with their descriptions.

The description table is keyed by `movieId`, or is laid out as the public Rotten Tomatoes table:
`movie_title`, `movie_info` and `original_release_date`. The second kind is joined on the title and
the year of release, of which MovieLens writes `Matrix, The (1999)` and
`Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)`.

Each title gives several *keys*: of the whole title, of the title without its brackets, and of each
alternative title in brackets; a key knows no case, accents, punctuation or `, The`. A movie and a
description with a key in common may belong together if their years differ by at most one. If either
year is missing, the key must be a main title's and the only one of its kind on both sides.

Two weaker keys ask for the same year: a *loose* key, without article and spaces (`MouseHunt`), and
that of a *part* of the title before or after a colon or dash, which must be all of the other title
(`Star Wars: Episode V - The Empire Strikes Back`).

Of several candidates, each side prefers the nearest year, then the stronger key, then the lower
`movieId` and the earlier row (MovieLens added the better known of two namesakes first). A pair is
kept where the two prefer each other: remakes get their own descriptions, and no description is used
twice.
"""

import dataclasses
from pathlib import Path

import polars as pl

from uem_t5x.data import text_tables
from uem_t5x.errors import InputError

_TITLE_COLUMNS = ["movie_title", "movie_info", "original_release_date"]
_TEXT_COLUMNS = ("description", "movie_info")  # of a table keyed by movieId
_OR_ELSE = ", or movieId, description"
_MAX_YEAR_GAP = 1

# Ranks of a key: the smaller, the surer. The rank of a pair is the sum of its two sides', each of
# which may be of an alternative or a part, and loose besides.
_MAIN_TITLE = 0
_ALTERNATIVE_TITLE = 1
_LOOSE = 4
_PART = 16

_ARTICLES = (
    "the a an le la les l un une des el los las lo il gli i uno una der die das den dem ein eine "
    "de het een en ett et o os as um uma"
)
_ARTICLE = "(?:" + "|".join(_ARTICLES.split()) + ")"
_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "ß": "ss", "ł": "l", "đ": "d", "ð": "d", "þ": "th",
    "¢": "c", "&": " and ", "\u2018": "'", "\u2019": "'", "\u00b4": "'", "`": "'",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Descriptions:
    """The description of each movie that has one.

    Attributes:
        frame: `movieId` and `description`.
        rows: how many descriptions the table holds.
        sha256: of the table's file.
    """

    frame: pl.DataFrame
    rows: int
    sha256: str


def read_descriptions(path: Path, movies: pl.DataFrame) -> Descriptions:
    """Reads a description table and finds the movie of each description.

    Args:
        path: of the CSV file.
        movies: a frame of `movieId` and `title`.

    Raises:
        InputError: if the table is missing or damaged, or belongs to none of the movies.
    """
    data = text_tables.read_file(path)
    header = text_tables.csv_header(data, str(path))
    if "movieId" in header:
        text_column = next((name for name in _TEXT_COLUMNS if name in header), _TEXT_COLUMNS[0])
        table = text_tables.read_csv(data, str(path), ["movieId", text_column])
        table.require("movieId", text_tables.integer("movieId").is_not_null(), "a whole number")
        rows = _with_text(
            table.frame.select(text_tables.integer("movieId"), description=text_column)
        )
        frame = rows.unique("movieId", keep="first", maintain_order=True).join(
            movies.select("movieId"), on="movieId", how="semi"
        )
    else:
        table = text_tables.read_csv(data, str(path), _TITLE_COLUMNS, _OR_ELSE)
        title, text, date = _TITLE_COLUMNS
        rows = _with_text(table.frame.select(title=title, description=text, date=date))
        frame = join_by_title(movies, rows)
    if frame.is_empty():
        by = "movieId" if "movieId" in header else "movie_title and original_release_date"
        raise InputError(
            f"{path}: none of its {rows.height} descriptions belongs to one of the "
            f"{movies.height} movies; check {by}: a table has the columns "
            f"{', '.join(_TITLE_COLUMNS)}{_OR_ELSE}"
        )
    return Descriptions(frame, rows.height, table.sha256)


def join_by_title(movies: pl.DataFrame, descriptions: pl.DataFrame) -> pl.DataFrame:
    """Finds the movie of each description by title and year, as the module describes.

    Args:
        movies: a frame of `movieId` and `title`, as MovieLens writes titles.
        descriptions: a frame of `title`, `description` and `date`, which holds a year.

    Returns:
        A frame of `movieId` and `description`, by `movieId`.
    """
    movies = movies.select("movieId", "title", year=_year_of_title())
    descriptions = descriptions.with_row_index("row").with_columns(
        year=pl.col("date").str.extract(r"([0-9]{4})").cast(pl.Int32)
    )
    of_movies, of_rows = _keys(movies, "movieId"), _keys(descriptions, "row")
    # Of namesakes of one year all prefer the first, so that only those who prefer need be many.
    by_movie = _candidates(of_movies, _first_of_namesakes(of_rows, "row"))
    by_row = _candidates(_first_of_namesakes(of_movies, "movieId"), of_rows)
    preferred = by_movie.unique("movieId", keep="first", maintain_order=True).join(
        by_row.unique("row", keep="first", maintain_order=True), on=["movieId", "row"], how="semi"
    )
    return preferred.join(descriptions, on="row").select("movieId", "description").sort("movieId")


def _first_of_namesakes(keys: pl.DataFrame, owner: str) -> pl.DataFrame:
    """Returns, of the titles that share key, year and rank, the one with the lowest owner."""
    return keys.group_by("key", "year", "rank", "owners").agg(pl.col(owner).min())


def _candidates(movies: pl.DataFrame, descriptions: pl.DataFrame) -> pl.DataFrame:
    """Returns which movies and descriptions may belong together, the likeliest first.

    Args:
        movies: keys, as of `_keys`.
        descriptions: the same.

    Returns:
        A frame of `movieId`, `row`, `gap` and `rank`.
    """
    # Joined on the year as well, for there may be a great many namesakes of other years.
    gaps = pl.select(gap=pl.int_range(-_MAX_YEAR_GAP, _MAX_YEAR_GAP + 1, dtype=pl.Int32))
    near = movies.join(gaps, how="cross").with_columns(pl.col("year") + pl.col("gap"))
    dated = near.join(descriptions, on=["key", "year"], suffix="_right").select(
        "movieId",
        "row",
        gap=pl.col("gap").abs(),
        rank=pl.col("rank") + pl.col("rank_right"),
    )
    loose = (pl.col("gap") == 0) & (pl.col("rank") < 2 * _PART)
    sure = dated.filter((pl.col("rank") < _LOOSE) | loose)
    alone = (pl.col("owners") == 1) & (pl.col("rank") == _MAIN_TITLE)
    undated = (
        movies.filter(alone)
        .join(descriptions.filter(alone), on="key", suffix="_right")
        .filter(pl.col("year").is_null() | pl.col("year_right").is_null())
        .select("movieId", "row", "rank", gap=pl.lit(None, pl.Int32))
    )
    return pl.concat([sure, undated.select(sure.columns)]).sort(
        "gap", "rank", "movieId", "row", nulls_last=True
    )


def _with_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows that have a description, with its white space evened out."""
    text = pl.col("description").str.replace_all(r"\s+", " ").str.strip_chars()
    return rows.with_columns(text).filter(pl.col("description").str.len_bytes() > 0)


_YEAR_IN_BRACKETS = r"\s*\(([0-9]{4})(?:[-\u2013][0-9]{0,4})?\)\s*$"
_BRACKETS = r"\([^()]*\)"
_PARTS = (r"^(.+?)(?::| -) ", r"^(.+)(?::| -) ", r"^.+?(?::| -) (.+)", r"^.+(?::| -) (.+)")


def _year_of_title() -> pl.Expr:
    return pl.col("title").str.extract(_YEAR_IN_BRACKETS).cast(pl.Int32)


def _keys(titles: pl.DataFrame, owner: str) -> pl.DataFrame:
    """Returns the keys of each title.

    Args:
        titles: a frame of `owner`, `title` and `year`.
        owner: the column that tells titles apart.

    Returns:
        A frame of `owner`, `year`, `key`, `rank`, and `owners`: how many titles have that key.
    """
    whole = pl.col("title").str.replace(_YEAR_IN_BRACKETS, "")
    main = whole.str.replace_all(rf"\s*{_BRACKETS}", "")
    in_brackets = whole.str.extract_all(_BRACKETS).list.eval(
        pl.element().str.strip_chars("()").str.replace(r"(?i)^\s*a\.?k\.?a\.?:?\s", "")
    )
    sources = {
        _MAIN_TITLE: pl.concat_list(whole, main),
        _ALTERNATIVE_TITLE: in_brackets,
        _PART: pl.concat_list(main.str.extract(pattern) for pattern in _PARTS),
    }
    names = pl.concat(
        titles.select(owner, "year", name=source, rank=pl.lit(rank)).explode("name")
        for rank, source in sources.items()
    ).with_columns(key=_key(pl.col("name")))
    loose = names.with_columns(key=_loose(pl.col("key")), rank=pl.col("rank") + _LOOSE)
    return (
        pl.concat([names, loose])
        .filter(pl.col("key").str.len_bytes() > 0)
        .group_by(owner, "year", "key")
        .agg(pl.col("rank").min())
        .with_columns(owners=pl.len().over("key"))
    )


def _key(name: pl.Expr) -> pl.Expr:
    """Returns the name without case, accents and punctuation, and with its article in front."""
    plain = (
        name.str.replace_all(r"[¼-¾⅐-⅞]", " $0")  # 2½ is `2 1/2`, not `21/2`
        .str.normalize("NFKD")
        .str.to_lowercase()
        .str.replace_all(r"\p{M}", "")
        .str.replace_many(_LETTERS)
    )
    words = (
        plain.str.replace(rf"^(.*), ({_ARTICLE}'?)\s*$", "$2 $1")
        .str.replace_all(r"\bl'\s*", "l ")  # L'Appartement is `Appartement, L'`
        .str.replace_all("'", "", literal=True)
    )
    return words.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()


def _loose(key: pl.Expr) -> pl.Expr:
    """Returns the key without a leading article and without spaces."""
    return key.str.replace(rf"^{_ARTICLE} ", "").str.replace_all(" ", "", literal=True)
