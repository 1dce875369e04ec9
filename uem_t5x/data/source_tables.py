"""Reads what a source describes into the tables that `prepare` joins."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from uem_t5x.base import progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import tables, text_tables
from uem_t5x.data.sources import TIME_UNITS, Interactions, Items, Source, Table
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes import verbalizer
from uem_t5x.tastes.rating_scale import RatingScale

# Every user and item gets a number for each class, and every answer is searched for each.
MAX_CLASSES = 1000
_MAX_CLASS_LETTERS = 100
_WHOLE = r"^(?:0|-?[1-9][0-9]{0,17})$"  # as Python writes them, below 10**18
_LIST = r"(?s)^\s*(?:\[.*\]|\{.*\})\s*$"  # as Python writes one into a CSV file
_TRUE = ("1", "1.0", "true", "True", "TRUE", "t", "yes")
_DATES = (  # of ISO 8601, and of Goodreads
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d"),
    "%aT%b %d %H:%M:%S %z %Y",
)
_YEAR_2100 = 4_102_444_800


@dataclasses.dataclass(frozen=True)
class SourceTables:
    """The tables of a source.

    Attributes:
        items: `movieId` (int64, or text), `title`, `genres` (a list) and the further columns of the
            source; null where an item has nothing there.
        interactions: `userId` and `movieId` (int64, or text), `half_stars` and `timestamp`.
        counts: rows that were left out: `repeated_movies` and `unrated_ratings`.
        worth: how many half-stars each value is that occurs.
        sha256: of each file.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    counts: Mapping[str, int]
    worth: Mapping[str, int]
    sha256: Mapping[str, str]


def read(
    source: Source,
    path: Path,
    start: progress.Start = progress.unseen,
    enough: int | None = None,
) -> SourceTables:
    """Reads the tables of a source.

    Args:
        source: what they are.
        path: the folder or zip file that they lie in.
        start: starts the display of progress.
        enough: no further interactions are read once there are so many; None reads all.

    Raises:
        InputError: if a file or a column is missing, a file is damaged, or a value is impossible.
    """
    assert source.interactions is not None
    # That one is missing should not be found out after the reading of the others.
    files = [tables.find(path, of_items.table, "[items]") for of_items in source.items]
    interaction_files = tables.find(path, source.interactions.table, "[interactions]")
    sha256: dict[str, str] = {}
    advance = start("reading items", sum(map(len, files)))
    of_tables = []
    for of_items, names in zip(source.items, files):
        frames = []
        for name in names:
            wanted = _columns_of_items(of_items)
            frames += [
                _items(part, of_items)
                for part in _parts(path, name, of_items.table, wanted, sha256)
            ]
            advance(1)
        of_tables.append(pl.concat(frames))
    items = _join(of_tables, source)
    repeated = of_tables[0].height - items.height
    advance = start("reading interactions", len(interaction_files))
    interactions, worth = _read_interactions(
        _all_parts(path, interaction_files, source.interactions, sha256, advance),
        source.interactions,
        source.telling.scale,
        enough,
    )
    unrated = interactions["half_stars"].null_count()
    interactions = interactions.drop_nulls("half_stars")
    return SourceTables(
        items=_with_numbers(items, "movieId"),
        interactions=_with_item_ids(_with_numbers(interactions, "userId"), items),
        counts={"repeated_movies": repeated, "unrated_ratings": unrated},
        worth=worth,
        sha256=sha256,
    )


def _parts(
    path: Path, file: str, table: Table, columns: Sequence[str], sha256: dict[str, str]
) -> Iterator[TextTable]:
    for part in tables.read(path, file, table, columns):
        sha256[file] = part.sha256
        yield part


def _all_parts(
    path: Path,
    files: Sequence[str],
    interactions: Interactions,
    sha256: dict[str, str],
    advance: progress.Advance,
) -> Iterator[TextTable]:
    wanted = [interactions.user, interactions.item, interactions.time, interactions.value]
    columns = [column for column in wanted if column is not None]
    for file in files:
        yield from _parts(path, file, interactions.table, columns, sha256)
        advance(1)


# --- Items ---


def _columns_of_items(items: Items) -> list[str]:
    taken = [column for columns in items.columns.values() for column in columns]
    classes = [] if items.classes is None else [items.classes]
    return [items.id, *taken, *classes, *items.class_flags]


def _items(part: TextTable, items: Items) -> pl.DataFrame:
    """Returns `movieId`, the columns, and the classes as far as this table has them."""
    part.require(items.id, pl.col(items.id).is_not_null(), "an item's id")
    columns = {
        name: pl.coalesce(_text(part.frame, column, name != "title") for column in taken)
        for name, taken in items.columns.items()
    }
    classes = _classes(part, items)
    return part.frame.select(
        pl.col(items.id).alias("movieId"),
        **columns,
        **({} if classes is None else {"genres": classes}),
    )


def _text(frame: pl.DataFrame, column: str, may_be_missing: bool) -> pl.Expr:
    """Returns a column as texts with their white space evened out; null where there is none.

    A word that stands for nothing is none, unless it may be a title.
    """
    text = pl.col(column)
    if frame[column].dtype == pl.List:
        text = text.list.drop_nulls().list.join(" ")
    text = text.str.replace_all(r"\s+", " ").str.strip_chars()
    is_none = text_tables.is_missing(text) if may_be_missing else text.str.len_bytes() == 0
    return pl.when(is_none).then(None).otherwise(text)


def _classes(part: TextTable, items: Items) -> pl.Expr | None:
    """Returns the names of each item's classes, none twice; None of a table that has no classes."""
    if items.class_flags:
        flags = [
            pl.when(pl.col(name).is_in(_TRUE)).then(pl.lit(name)) for name in items.class_flags
        ]
        return pl.concat_list(flags).list.drop_nulls()
    if items.classes is None:
        return None
    column, separator = items.classes, items.class_separator
    if part.frame[column].dtype == pl.List:
        listed = pl.col(column)
        if separator is not None:
            listed = listed.list.eval(pl.element().str.split(separator).explode())
    else:
        separator = separator or "|"
        is_list = pl.col(column).fill_null("").str.contains(_LIST)
        part.require(
            column, ~is_list, f"names joined by {separator!r}, or say another class_separator ="
        )
        listed = pl.col(column).str.split(separator)
    name = pl.element().str.replace_all(r"\s+", " ").str.strip_chars()
    named = listed.list.eval(name.filter(~text_tables.is_missing(name))).fill_null([])
    short = part.frame.select(
        named.list.eval(pl.element().str.len_chars()).list.max().fill_null(0) <= _MAX_CLASS_LETTERS
    ).to_series()
    part.require(column, pl.lit(short), f"of names of at most {_MAX_CLASS_LETTERS} letters")
    return named.list.unique(maintain_order=True)


def _join(of_tables: Sequence[pl.DataFrame], source: Source) -> pl.DataFrame:
    """Returns the items of the first table, each once, with what the others say of them."""
    first, *others = (
        frame.unique("movieId", keep="first", maintain_order=True) for frame in of_tables
    )
    items = first
    for other in others:
        items = items.join(other, on="movieId", how="left", maintain_order="left")
    otherwise = {
        name: text for of_items in source.items for name, text in of_items.otherwise.items()
    }
    items = items.with_columns(
        pl.col("genres").fill_null([]),
        **{name: pl.col(name).fill_null(text) for name, text in otherwise.items()},
    )
    return items.with_columns(genres=_spelled_alike(items["genres"], source))


def _spelled_alike(genres: pl.Series, source: Source) -> pl.Series:
    """Returns lists of the classes that are kept, each spelled as it most often is."""
    names = genres.explode().drop_nulls()
    counted = collections.Counter(names.to_list())
    by_form: dict[str, list[str]] = {}
    for name in sorted(counted, key=lambda name: (-counted[name], name)):
        by_form.setdefault(verbalizer.normalize(name), []).append(name)
    by_form.pop("", None)
    totals = {same[0]: sum(counted[name] for name in same) for same in by_form.values()}
    if source.classes is None and len(totals) > MAX_CLASSES:
        raise InputError(
            f"{source.name}: {len(totals)} classes, and at most {MAX_CLASSES} can be; keep the "
            "most common ones: [labels] classes = 100"
        )
    kept = set(sorted(totals, key=lambda name: (-totals[name], name))[: source.classes])
    spelled = {name: same[0] for same in by_form.values() for name in same if same[0] in kept}
    if not spelled:
        raise InputError(f"{source.name}: no item has a class; answers would name none")
    frame = pl.DataFrame({"genres": genres}).with_row_index("row")
    listed = (
        frame.explode("genres")
        .with_columns(
            pl.col("genres").replace_strict(spelled, default=None, return_dtype=pl.String)
        )
        .drop_nulls("genres")
        .group_by("row", maintain_order=True)
        .agg(pl.col("genres").unique(maintain_order=True))
    )
    joined = frame.select("row").join(listed, on="row", how="left", maintain_order="left")
    return joined["genres"].fill_null([])


# --- Interactions ---


def _read_interactions(
    parts: Iterator[TextTable], said: Interactions, scale: RatingScale, enough: int | None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns `userId`, `movieId`, `half_stars`, `timestamp`, and what values are worth."""
    frames: list[pl.DataFrame] = []
    worth: dict[str, int] = {}
    rows = 0
    for part in parts:
        for column in (said.user, said.item):
            part.require(column, pl.col(column).is_not_null(), "an id")
        frames.append(
            part.frame.select(
                userId=pl.col(said.user),
                movieId=pl.col(said.item),
                half_stars=_half_stars(part, said, scale, worth),
                timestamp=_seconds(part, said, rows),
            )
        )
        rows += part.frame.height
        if enough is not None and rows >= enough:
            break
    return pl.concat(frames), worth


def _half_stars(
    part: TextTable, said: Interactions, scale: RatingScale, worth: dict[str, int]
) -> pl.Expr:
    if said.value is None:
        return pl.lit(said.half_stars, pl.UInt8)
    known: dict[str, int] = {}
    for value in part.frame[said.value].drop_nulls().unique().to_list():
        if value not in said.none and (half_stars := scale.half_stars(value)) is not None:
            known[value] = half_stars
    worth.update(known)
    value = pl.col(said.value)
    listed = ", ".join(f"{value} ({stars:g} stars)" for value, stars in scale.points)
    part.require(
        said.value,
        value.is_in([*known, *said.none]) | text_tables.is_missing(value),
        f"on the scale {listed}"
        if scale.rounds
        else "0.5 to 5 stars in steps of 0.5, or say what it is worth in [interactions.stars]",
    )
    return value.replace_strict(known, default=None, return_dtype=pl.UInt8)


def _seconds(part: TextTable, said: Interactions, rows_before: int) -> pl.Expr:
    """Returns seconds since 1970; without a time the number of the row."""
    if said.time is None:
        return pl.int_range(rows_before, rows_before + pl.len(), dtype=pl.Int64)
    texts = part.frame[said.time]
    numbers = text_tables.integers(texts)
    seconds = numbers // TIME_UNITS[said.time_unit]
    dates = texts.str.replace(" ", "T", literal=True)
    for form in _DATES:
        if seconds.null_count() > texts.null_count():
            parsed = dates.str.to_datetime(form, strict=False, time_unit="us")
            seconds = pl.select(pl.coalesce(seconds, parsed.dt.epoch("s"))).to_series()
    part.require(
        said.time,
        pl.lit(seconds.is_not_null()),
        f"{said.time_unit} since 1970, or a time as 2005-04-02 23:53:47",
    )
    part.require(
        said.time,
        pl.lit(seconds.is_between(-_YEAR_2100, _YEAR_2100)),
        f"a time before the year 2100, as {said.time_unit}; say another time_unit =",
    )
    return pl.lit(seconds)


# --- Ids ---


def _with_numbers(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Returns a frame whose ids are int64 if all of them are whole numbers; else they stay text."""
    if frame[column].str.contains(_WHOLE).all():
        return frame.with_columns(pl.col(column).cast(pl.Int64))
    return frame


def _with_item_ids(interactions: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Returns interactions with the ids of items as numbers, if those of items are."""
    if not items["movieId"].str.contains(_WHOLE).all():
        return interactions
    return interactions.with_columns(text_tables.integer("movieId"))
