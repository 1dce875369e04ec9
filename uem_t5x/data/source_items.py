"""Reads the items of a source's tables: their ids, texts and classes."""

import collections
from collections.abc import Sequence

import polars as pl
from etils import epath

from uem_t5x.base import progress
from uem_t5x.base.errors import InputError
from uem_t5x.data import class_names, ids, tables, text_tables
from uem_t5x.data.sources import Items, Source
from uem_t5x.data.text_tables import TextTable
from uem_t5x.tastes import verbalizer

_FLAGS = {"1": True, "true": True, "t": True, "yes": True, "y": True, "x": True}
_FLAGS |= {"0": False, "false": False, "f": False, "no": False, "n": False, "": False}


def find(source: Source, path: epath.PathLike) -> list[list[str]]:
    """Returns the files of each table of items; see `tables.find`."""
    return [tables.find(path, of_items.table, "[items]") for of_items in source.items]


def read(
    source: Source,
    path: epath.PathLike,
    files: Sequence[Sequence[str]],
    sha256: dict[str, str],
    start: progress.Start = progress.unseen,
) -> tuple[pl.DataFrame, int]:
    """Reads the items of a source.

    Args:
        source: what its tables are.
        path: the folder or zip file that they lie in.
        files: of each table.
        sha256: gets that of each file.
        start: starts the display of progress.

    Returns:
        A frame of `movieId` (int64, or text), `title`, `genres` (a list) and the further columns of
        the source, null where an item has nothing there; and how many rows were of ids that are
        listed before.

    Raises:
        InputError: if a column is missing, a file is damaged, or a value is impossible.
    """
    advance = start("reading items", sum(map(len, files)))
    of_tables = []
    for of_items, names in zip(source.items, files):
        wanted = _columns(of_items)
        lists = [c for c in wanted if c != of_items.id and c not in of_items.class_flags]
        frames = []
        for name in names:
            for part in tables.read(path, name, of_items.table, wanted, lists):
                sha256[name] = part.sha256
                frames.append(_items(part, of_items))
            advance(1)
        of_tables.append(pl.concat(frames))
    items = join([ids.with_numbers(frame, "movieId") for frame in of_tables], source)
    return items, of_tables[0].height - items.height


def _columns(items: Items) -> list[str]:
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
        flags = []
        for name in items.class_flags:
            flag = pl.col(name).fill_null("").str.strip_chars().str.to_lowercase()
            flag = flag.str.replace(r"\.0+$", "")
            part.require(name, flag.is_in(list(_FLAGS)), "1 of an item of the class, and else 0")
            flags.append(pl.when(flag.replace_strict(_FLAGS, default=None)).then(pl.lit(name)))
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
        is_list = pl.col(column).fill_null("").str.contains(class_names.LIST)
        part.require(
            column, ~is_list, f"names joined by {separator!r}, or say another class_separator ="
        )
        listed = pl.col(column).str.split(separator)
    name = pl.element().str.replace_all(r"\s+", " ").str.strip_chars()
    named = listed.list.eval(name.filter(~text_tables.is_missing(name))).fill_null([])
    longest = named.list.eval(pl.element().str.len_chars()).list.max().fill_null(0)
    short = part.frame.select(longest <= class_names.MOST_LETTERS).to_series()
    part.require(column, pl.lit(short), f"of names of at most {class_names.MOST_LETTERS} letters")
    return named.list.unique(maintain_order=True)


def join(of_tables: Sequence[pl.DataFrame], source: Source) -> pl.DataFrame:
    """Returns the items of the first table, each once, with what the others say of them."""
    first, *others = (
        frame.unique("movieId", keep="first", maintain_order=True) for frame in of_tables
    )
    items = first
    for other in others:
        if other["movieId"].dtype != items["movieId"].dtype:
            shown = ", ".join(repr(frame["movieId"][0]) for frame in (items, other))
            raise InputError(
                f"{source.name}: the ids of two tables of [[items]] are written in different ways, "
                f"such as {shown}; write them alike"
            )
        items = items.join(other, on="movieId", how="left", maintain_order="left")
    otherwise = {
        name: text for of_items in source.items for name, text in of_items.otherwise.items()
    }
    if "genres" not in items.columns:  # only where questions are asked of one's own
        items = items.with_columns(genres=pl.lit([], pl.List(pl.String)))
    items = items.with_columns(
        pl.col("genres").fill_null([]),
        **{name: pl.col(name).fill_null(text) for name, text in otherwise.items()},
    )
    if source.questions is not None:  # they are told, and no answer is read by them
        return items
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
    if source.classes is None and len(totals) > class_names.MOST:
        raise InputError(
            f"{source.name}: {len(totals)} classes, and at most {class_names.MOST} can be; keep "
            "the most common ones: [labels] classes = 100"
        )
    kept = set(sorted(totals, key=lambda name: (-totals[name], name))[: source.classes])
    spelled = {name: same[0] for same in by_form.values() for name in same if same[0] in kept}
    if all(table.class_separator is None for table in source.items):
        for separator in (",", ";"):
            if (joined := class_names.first_list(list(totals), separator)) is not None:
                raise InputError(
                    f"{source.name}: {joined!r} reads as several classes, for others have the same "
                    f"names; say [items] class_separator = {separator!r}"
                )
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
