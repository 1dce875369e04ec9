"""Joins movies with their descriptions.

The description table is keyed by `movieId`, or is laid out as the public Rotten Tomatoes table:
`movie_title`, `movie_info` and `original_release_date`. The second kind is joined on the title and
the year of release, of which MovieLens writes `Matrix, The (1999)` and
`Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)`.

Each title has several *names*: the whole title, the title without its brackets, each alternative
title in brackets, and its *parts* before or after a colon or dash. Each name gives a key in four
forms: as it is written; its *text* (Unicode's normal form, without case, typography and `, The`);
its *plain* text (without accents and punctuation); and a *loose* one (without article and spaces,
as in `MouseHunt`). A movie and a description with the same key of one form may belong together if
their years differ by at most one. A loose key or a part asks for the same year, and a part must be
all of the other title (`Star Wars: Episode V - The Empire Strikes Back`). If either year is
missing, the plain text must be a whole title's and the only one of its kind on both sides.

Of several candidates, each side prefers the surer key (the text, then the plain text, the loose
key, a part), then the nearest year, then the stronger name, then the same spelling. So `+1` and `1`
are one title only where there is no other `+1` and no other `1`. A pair is kept where the two
prefer each other: remakes get their own descriptions, and no description is used twice. Of
namesakes, whose titles have the same text, the lower `movieId` and the earlier row come first
(MovieLens added the better known one first); between other titles that are equally likely nobody
guesses, and there is no pair.
"""

import dataclasses
from pathlib import Path

import polars as pl

from uem_t5x.base.errors import InputError
from uem_t5x.data import text_tables

_TITLE_COLUMNS = ["movie_title", "movie_info", "original_release_date"]
_TEXT_COLUMNS = ("description", "movie_info")  # of a table keyed by movieId
_OR_ELSE = ", or movieId, description"
_MAX_YEAR_GAP = 1

# What speaks against a pair: the form of the key, the kinds of the two names, a year between them.
# The least sum is the likeliest, and each of these weighs more than all above it together.
_WRITTEN, _WHOLE = 0, 0
_TEXT = 1
_MAIN = 2
_ALTERNATIVE = 6  # more than two main titles
_YEAR = 16
_PLAIN = 32
_LOOSE = 64
_PART = 128
_UNDATED = 256

_ARTICLES = (
    "the a an le la les l un une des el los las lo il gli i uno una der die das den dem ein eine "
    "de het een en ett et o os as um uma"
)
_ARTICLE = "(?:" + "|".join(_ARTICLES.split()) + ")"
_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "ß": "ss", "ł": "l", "đ": "d", "ð": "d", "þ": "th",
    "¢": "c", "&": " and ",
}  # fmt: skip
_TYPOGRAPHY = {
    "\u2018": "'", "\u2019": "'", "\u00b4": "'", "`": "'", "\u201c": '"', "\u201d": '"',
    "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-",
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
        table.require(
            date,
            _year_of_date(date).is_not_null() | text_tables.is_missing(pl.col(date)),
            "a date with the year in four digits, as 1991-08-01, or empty",
        )
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
        year=pl.coalesce(_year_of_date("date"), _year_of_title())
    )
    of_movies, of_rows = _keys(movies, "movieId"), _keys(descriptions, "row")
    # Of namesakes of one year all prefer the first, so that only those who prefer need be many.
    by_movie = _candidates(of_movies.drop("title"), _first_of_namesakes(of_rows, "row"))
    by_row = _candidates(_first_of_namesakes(of_movies, "movieId"), of_rows.drop("title"))
    preferred = _preferred(by_movie, "movieId", "row").join(
        _preferred(by_row, "row", "movieId"), on=["movieId", "row"], how="semi"
    )
    return preferred.join(descriptions, on="row").select("movieId", "description").sort("movieId")


def _first_of_namesakes(keys: pl.DataFrame, owner: str) -> pl.DataFrame:
    """Returns, of the titles that share a key, the one with the lowest owner.

    Args:
        keys: as of `_keys`.
        owner: the column that tells titles apart.

    Returns:
        The columns of `keys`, and `titles`: how many different ones share the key.
    """
    return keys.group_by("form", "key", "year", "kind", "owners").agg(
        pl.col(owner).min(), pl.col("title").first(), titles=pl.col("title").n_unique()
    )


def _candidates(movies: pl.DataFrame, descriptions: pl.DataFrame) -> pl.DataFrame:
    """Returns which movies and descriptions may belong together.

    Args:
        movies: keys, as of `_keys`; only the first of namesakes, or without `title`.
        descriptions: the same, the other way round.

    Returns:
        A frame of `movieId`, `row`, `cost`, and the `title` and `titles` of the namesakes.
    """
    # Joined on the year as well, for there may be a great many namesakes of other years.
    gaps = pl.select(gap=pl.int_range(-_MAX_YEAR_GAP, _MAX_YEAR_GAP + 1, dtype=pl.Int32))
    near = movies.join(gaps, how="cross").with_columns(pl.col("year") + pl.col("gap"))
    cost = pl.col("form") + pl.col("kind") + pl.col("kind_right") + _YEAR * pl.col("gap").abs()
    columns = ["movieId", "row", "title", "titles", "cost"]
    dated = (
        near.join(descriptions, on=["form", "key", "year"], suffix="_right")
        .with_columns(cost=cost)
        .filter(((pl.col("gap") == 0) | (pl.col("cost") < _LOOSE)) & (pl.col("cost") < 2 * _PART))
    )
    alone = (pl.col("form") == _PLAIN) & (pl.col("kind") <= _MAIN) & (pl.col("owners") == 1)
    undated = (
        movies.filter(alone)
        .join(descriptions.filter(alone), on="key", suffix="_right")
        .filter(pl.col("year").is_null() | pl.col("year_right").is_null())
        .with_columns(cost=pl.lit(_UNDATED, pl.Int32))
    )
    return pl.concat([dated.select(columns), undated.select(columns)])


def _preferred(candidates: pl.DataFrame, owner: str, other: str) -> pl.DataFrame:
    """Returns the likeliest `other` of each `owner`, where no different title is as likely."""
    return (
        candidates.filter(pl.col("cost") == pl.col("cost").min().over(owner))
        .group_by(owner)
        .agg(
            pl.col(other).min(),
            clear=(pl.col("titles").max() == 1) & (pl.col("title").n_unique() == 1),
        )
        .filter("clear")
    )


def _with_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows that have a description, with its white space evened out."""
    text = pl.col("description").str.replace_all(r"\s+", " ").str.strip_chars()
    return rows.filter(~text_tables.is_missing(pl.col("description"))).with_columns(text)


_YEAR_IN_BRACKETS = r"\s*\(([0-9]{4})(?:[-\u2013][0-9]{0,4})?\)\s*$"
# By itself or as 19910801: not four of the digits of a spreadsheet's or a clock's count of days.
_YEAR_IN_DATE = r"(?:^|[^0-9])((?:18|19|20|21)[0-9]{2})(?:(?:0[1-9]|1[0-2])[0-3][0-9])?(?:[^0-9]|$)"
_BRACKETS = r"\([^()]*\)"
_PARTS = (r"^(.+?)(?::| -) ", r"^(.+)(?::| -) ", r"^.+?(?::| -) (.+)", r"^.+(?::| -) (.+)")


def _year_of_title() -> pl.Expr:
    return pl.col("title").str.extract(_YEAR_IN_BRACKETS).cast(pl.Int32)


def _year_of_date(column: str) -> pl.Expr:
    return pl.col(column).str.extract(_YEAR_IN_DATE).cast(pl.Int32)


def _keys(titles: pl.DataFrame, owner: str) -> pl.DataFrame:
    """Returns the keys of each title.

    Args:
        titles: a frame of `owner`, `title` and `year`.
        owner: the column that tells titles apart.

    Returns:
        A frame of `owner`, `year`, `title` (its text, by which namesakes are known), `form`, `key`,
        `kind` (of the name), and `owners`: how many titles have that key.
    """
    whole = pl.col("title").str.replace(_YEAR_IN_BRACKETS, "")
    main = whole.str.replace_all(rf"\s*{_BRACKETS}", "")
    in_brackets = whole.str.extract_all(_BRACKETS).list.eval(
        pl.element().str.strip_chars("()").str.replace(r"(?i)^\s*a\.?k\.?a\.?:?\s", "")
    )
    kinds = {
        _WHOLE: pl.concat_list(whole),
        _MAIN: pl.concat_list(main),
        _ALTERNATIVE: in_brackets,
        _PART: pl.concat_list(main.str.extract(pattern) for pattern in _PARTS),
    }
    names = (
        pl.concat(
            titles.select(owner, "year", title=_text(whole), name=name, kind=pl.lit(kind, pl.Int32))
            for kind, name in kinds.items()
        )
        .explode("name")
        .with_columns(pl.col("name").str.strip_chars(), text=_text(pl.col("name")))
        .with_columns(plain=_plain(pl.col("text")))
        .with_columns(loose=_loose(pl.col("plain")))
    )
    forms = {_WRITTEN: "name", _TEXT: "text", _PLAIN: "plain", _LOOSE: "loose"}
    return (
        pl.concat(
            names.select(owner, "year", "title", "kind", form=pl.lit(form, pl.Int32), key=key)
            for form, key in forms.items()
        )
        .filter(pl.col("key").str.len_bytes() > 0)
        .group_by(owner, "year", "title", "form", "key")
        .agg(pl.col("kind").min())
        .with_columns(owners=pl.col(owner).n_unique().over("key"))
    )


def _text(name: pl.Expr) -> pl.Expr:
    """Returns the name without case and typography, and with its article in front."""
    return (
        name.str.replace_all(r"[¼-¾⅐-⅞]", " $0")  # 2½ is `2 1/2`, not `21/2`
        .str.replace_many(_TYPOGRAPHY)
        .str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
        .str.replace(rf"^(.*), ({_ARTICLE}'?)$", "$2 $1")
        .str.replace(r"^l' ", "l'")  # L'Appartement is `Appartement, L'`
    )


def _plain(text: pl.Expr) -> pl.Expr:
    """Returns the text without accents and punctuation.

    Marks are accents on Latin, Greek and Cyrillic letters only: of other scripts they are sounds.
    """
    return (
        text.str.normalize("NFKD")
        .str.replace_all(r"([\p{Latin}\p{Greek}\p{Cyrillic}])\p{M}+", "$1")
        .str.replace_many(_LETTERS)
        .str.replace_all(r"\bl'", "l ")
        .str.replace_all("'", "", literal=True)
        .str.replace_all(r"(?:[^\p{L}\p{M}\p{N}]\p{M}*)+", " ")
        .str.strip_chars()
    )


def _loose(plain: pl.Expr) -> pl.Expr:
    """Returns the plain text without a leading article and without spaces."""
    return plain.str.replace(rf"^{_ARTICLE} ", "").str.replace_all(" ", "", literal=True)
