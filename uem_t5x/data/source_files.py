"""Reads a source, or refuses what it says with the name that is nearly right."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.data import source_words
from uem_t5x.data.sources import (
    FORMATS,
    LAMP,
    MOVIELENS,
    TIME_UNITS,
    Interactions,
    Items,
    Profile,
    Questions,
    Source,
    Table,
)
from uem_t5x.data.toml_tables import TomlFile, nearest
from uem_t5x.tastes import sentences
from uem_t5x.tastes.rating_scale import STARS, RatingScale

_READERS = (MOVIELENS, LAMP)
_TABLE_KEYS = {
    "files": (str, list),
    "format": str,
    "separator": str,
    "encoding": str,
    "header": list,
    "quoted": bool,
}
_KEYS: Mapping[str, Mapping[str, Any]] = {
    "": {
        "reader": str,
        "items": (dict, list),
        "interactions": dict,
        "channels": list,
        "labels": dict,
        "questions": dict,
        "profile": dict,
    },
    "items": {
        **_TABLE_KEYS,
        "id": str,
        "title": (str, list),
        "classes": str,
        "class_separator": str,
        "class_flags": list,
        "columns": dict,
        "otherwise": dict,
    },
    "interactions": {
        **_TABLE_KEYS,
        "user": str,
        "item": str,
        "time": str,
        "time_unit": str,
        "value": str,
        "none": list,
        "stars": (dict, int, float),
    },
    "questions": {
        **_TABLE_KEYS,
        "user": str,
        "question": str,
        "answer": str,
        "id": str,
        "time": str,
        "time_unit": str,
        "split": str,
        "metrics": (str, list),
        "task": str,
    },
    "profile": {"columns": dict, "classes": str, "value": str},
    "channels": {"name": str, "text": str, "encoder": str},
    "labels": {
        "question": str,
        "classes": int,
        "min_count": int,
        "most": int,
        "liked_above": (int, float),
        "disliked_below": (int, float),
        "user": str,
        "likes": str,
        "dislikes": str,
        "no_taste": str,
    },
}


def presets() -> list[str]:
    """Returns the names of the presets."""
    folder = resources.files("uem_t5x.data") / "presets"
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def read_source(named: str) -> Source:
    """Reads a source.

    Args:
        named: the name of a preset, or a TOML file.

    Raises:
        InputError: if there is none, or it says what cannot be understood; a name that is nearly
            right is told.
    """
    if named.endswith(".toml"):
        try:
            text = Path(named).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text in UTF-8"
            raise InputError(f"{named}: {reason}; give a TOML file, or a preset's name") from error
    elif named in presets():
        text = (resources.files("uem_t5x.data") / "presets" / f"{named}.toml").read_text("utf-8")
    else:
        raise InputError(
            f"--source {named}: no such preset; choose one of {', '.join(presets())}"
            f"{nearest(named, presets())}, or give a file whose name ends in .toml"
        )
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{named}: not a TOML file: {error}") from error
    return _Reader(named, _KEYS).source(fields)


class _Reader(TomlFile):
    """Checks the tables of a source, and reads them."""

    def source(self, fields: dict[str, Any]) -> Source:
        """Returns the source that the tables of a file make.

        Raises:
            InputError: if they make none.
        """
        self.check("", fields)
        reader = fields.get("reader")
        if reader not in (None, *_READERS):
            raise self.error(f"reader = {reader!r}: there are {', '.join(_READERS)}")
        items = fields.get("items", [])
        items = [items] if isinstance(items, dict) else items
        if reader is None and not (items and "interactions" in fields):
            raise self.error("needs the tables [items] and [interactions]")
        if reader is not None and (items or "interactions" in fields):
            raise self.error(f"reader = {reader!r} knows its files; leave out their tables")
        tables = tuple(self._items(table, index) for index, table in enumerate(items))
        interactions, questions, scale = None, None, STARS
        profile = None
        columns = {"title", "classes", "description"}  # of MovieLens
        if reader == LAMP:
            profile = self._profile(fields)
            columns = {"title", *profile.columns}
            columns |= set() if profile.classes is None else {"classes"}
            scale = STARS if profile.value else RatingScale((("all", 5.0),), rounds=True)
        elif "profile" in fields:
            raise self.error(f"[profile] is of reader = {LAMP!r}")
        if reader is None:
            interactions, scale = self._interactions(fields["interactions"])
            if "questions" in fields:
                questions = self._questions(fields["questions"])
                if questions.time is not None and interactions.time is None:
                    raise self.error(
                        '[questions] time: needs [interactions] time = "COLUMN", or nobody knows '
                        "what is from before a question"
                    )
            has_classes = self._check_columns(tables, may_lack_classes=questions is not None)
            columns = {name for table in tables for name in table.columns}
            columns |= {"classes"} if has_classes else set()
        return Source(
            name=self.name,
            reader=reader,
            items=tables,
            interactions=interactions,
            telling=source_words.read(self, fields, columns, scale),
            classes=fields.get("labels", {}).get("classes"),
            encoders=source_words.encoders(fields),
            questions=questions,
            profile=profile,
        )

    def _table(self, where: str, fields: Mapping[str, Any]) -> Table:
        if "files" not in fields:
            raise self.error(f'{where}needs files = "PATTERN"')
        if fields.get("format") not in (None, *FORMATS):
            found = fields["format"]
            raise self.error(f"{where}format = {found!r}: choose one of {', '.join(FORMATS)}")
        try:
            "".encode(fields.get("encoding", "utf-8"))
        except LookupError as error:
            raise self.error(f"{where}encoding: {error}") from error
        separator = fields.get("separator")
        if separator is not None and (not separator or set(separator) & set('"\r\n')):
            raise self.error(f"{where}separator = {separator!r}: give one that is no quote or line")
        header = self.texts(f"{where}header", fields["header"]) if "header" in fields else ()
        if len(set(header)) < len(header):
            raise self.error(f"{where}header names a column twice; give each its own name")
        return Table(
            files=self.texts(f"{where}files", fields["files"]),
            format=fields.get("format"),
            separator=separator,
            encoding=fields.get("encoding", "utf-8"),
            header=header,
            quoted=fields.get("quoted", True),
        )

    def _items(self, fields: Any, index: int) -> Items:
        self.check("items", fields)
        where = "[items] "
        if "id" not in fields:
            raise self.error(f'{where}needs id = "COLUMN"')
        columns = {
            str(name): self.texts(f"{where}columns.{name}", taken)
            for name, taken in fields.get("columns", {}).items()
        }
        if "title" in fields:
            columns = {"title": self.texts(f"{where}title", fields["title"]), **columns}
        elif index == 0:
            raise self.error(f'{where}needs title = "COLUMN"')
        for name in columns:
            if name in ("row", "movieId", "genres", "classes", sentences.STARS, sentences.VALUE):
                raise self.error(f"{where}columns.{name}: the name is taken; choose another one")
        otherwise = {
            str(name): self.texts(f"{where}otherwise.{name}", text)[0]
            for name, text in fields.get("otherwise", {}).items()
        }
        if fields.get("class_separator") == "":
            raise self.error(f"{where}class_separator = '': give what stands between classes")
        flags = fields.get("class_flags", [])
        return Items(
            table=self._table(where, fields),
            id=fields["id"],
            columns=columns,
            otherwise=otherwise,
            classes=fields.get("classes"),
            class_separator=fields.get("class_separator"),
            class_flags=self.texts(f"{where}class_flags", flags) if flags else (),
        )

    def _check_columns(self, tables: tuple[Items, ...], may_lack_classes: bool) -> bool:
        """Returns whether items have classes."""
        having = [table for table in tables if table.classes is not None or table.class_flags]
        if not (may_lack_classes and not having) and (
            len(having) != 1 or (having[0].classes is not None and having[0].class_flags)
        ):
            raise self.error('[items] needs classes = "COLUMN", or class_flags = [...], once')
        twice = [name for table in tables for name in table.columns]
        for name in twice:
            if twice.count(name) > 1:
                raise self.error(f"[items] columns.{name} stands in two tables; leave it in one")
        known = set(twice)
        for table in tables:
            for name in table.otherwise:
                if name not in known:
                    raise self.error(
                        f"[items] otherwise.{name}: no such column{nearest(name, known)}"
                    )
        return bool(having)

    def _interactions(self, fields: Any) -> tuple[Interactions, RatingScale]:
        self.check("interactions", fields)
        where = "[interactions] "
        self.require("interactions", fields, "user", "item")
        stars, value = fields.get("stars"), fields.get("value")
        if (value is None) == (not isinstance(stars, int | float)):
            raise self.error(f'{where}needs value = "COLUMN", or what each is worth: stars = 5')
        points = stars if isinstance(stars, dict) else {"all": stars} if value is None else None
        scale = STARS
        if points is not None:
            if dotted := [said for said, worth in points.items() if isinstance(worth, dict)]:
                raise self.error(
                    f"{where}stars: {dotted[0]}.? is a table in TOML; put the value in quotes, as "
                    f'"{dotted[0]}.5" = ...'
                )
            try:
                listed = tuple((str(said), float(worth)) for said, worth in points.items())
                scale = RatingScale(listed, rounds=True)
            except (TypeError, ValueError) as error:
                raise self.error(f"{where}stars: {error}") from error
        return Interactions(
            table=self._table(where, fields),
            user=fields["user"],
            item=fields["item"],
            time=fields.get("time"),
            time_unit=self._time_unit(where, fields),
            value=value,
            none=tuple(map(str, fields.get("none", []))),
            half_stars=10 if value is not None else int(2 * stars),
        ), scale

    def _questions(self, fields: Any) -> Questions:
        self.check("questions", fields)
        where = "[questions] "
        self.require("questions", fields, "user", "question", "answer")
        if "{" in fields["question"]:
            try:
                sentences.names(fields["question"])
            except ValueError as error:
                raise self.error(f"{where}question: {error}") from error
        return Questions(
            table=self._table(where, fields),
            user=fields["user"],
            question=fields["question"],
            answer=fields["answer"],
            id=fields.get("id"),
            time=fields.get("time"),
            time_unit=self._time_unit(where, fields),
            split=fields.get("split"),
        )

    def _profile(self, fields: Mapping[str, Any]) -> Profile:
        asked, said = fields.get("questions"), fields.get("profile")
        if asked is None or said is None:
            raise self.error(f"reader = {LAMP!r} needs [profile] and [questions]")
        self.check("questions", asked)
        self.check("profile", said)
        if further := set(asked) - {"metrics", "task"}:
            raise self.error(
                f"[questions] {min(further)}: reader = {LAMP!r} knows it; leave it out"
            )
        columns = {
            str(name): self.texts(f"[profile] columns.{name}", field)[0]
            for name, field in said.get("columns", {}).items()
        }
        if not columns or {"title", "row", "movieId", "genres", "classes"} & set(columns):
            raise self.error("[profile] columns: give names of texts, such as description")
        return Profile(columns, said.get("classes"), said.get("value"))

    def _time_unit(self, where: str, fields: Mapping[str, Any]) -> str:
        unit = fields.get("time_unit", "seconds")
        if unit not in TIME_UNITS:
            raise self.error(f"{where}time_unit = {unit!r}: choose one of {', '.join(TIME_UNITS)}")
        return unit
