"""Reads a source, or refuses what it says with the name that is nearly right."""

import dataclasses
import difflib
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.data.sources import FORMATS, MOVIELENS, TIME_UNITS, Interactions, Items, Source, Table
from uem_t5x.tastes import labels, sentences, verbalizer
from uem_t5x.tastes.labels import LabelRule
from uem_t5x.tastes.rating_scale import STARS, RatingScale
from uem_t5x.tastes.telling import Telling
from uem_t5x.tastes.verbalizer import Wording

_DEFAULT_CHANNELS = {
    "title_classes": "{title} is listed with {classes}",
    "rating": "It is rated with {stars} stars",
}
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
            f"{_nearest(named, presets())}, or give a file whose name ends in .toml"
        )
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{named}: not a TOML file: {error}") from error
    return _Reader(named).source(fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Checks the tables of a source, and reads them."""

    name: str

    def source(self, fields: dict[str, Any]) -> Source:
        self._check("", fields)
        reader = fields.get("reader")
        if reader not in (None, MOVIELENS):
            raise self._error(f"reader = {reader!r}: there is only {MOVIELENS!r}")
        told = fields.get("labels", {})
        self._check("labels", told)
        items = fields.get("items", [])
        items = [items] if isinstance(items, dict) else items
        if reader is None and not (items and "interactions" in fields):
            raise self._error("needs the tables [items] and [interactions]")
        if reader is not None and (items or "interactions" in fields):
            raise self._error(f"reader = {reader!r} knows its files; leave out their tables")
        tables = tuple(self._items(table, index) for index, table in enumerate(items))
        interactions, scale = None, STARS
        if reader is None:
            interactions, scale = self._interactions(fields["interactions"])
            self._check_classes(tables)
        telling = self._telling(fields, told, tables, scale)
        encoders = {
            channel["name"]: channel["encoder"]
            for channel in fields.get("channels", [])
            if "encoder" in channel
        }
        return Source(
            self.name, reader, tables, interactions, telling, told.get("classes"), encoders
        )

    def _error(self, problem: str) -> InputError:
        return InputError(f"{self.name}: {problem}")

    def _check(self, table: str, fields: Any) -> None:
        """Refuses keys that there are not, and values of other types."""
        known, where = _KEYS[table], f"[{table}] " if table else ""
        if not isinstance(fields, dict):
            raise self._error(f"{where}must be a table")
        for key, value in fields.items():
            if key not in known:
                raise self._error(
                    f"{where}no key {key!r}{_nearest(key, known)}; it may have {', '.join(known)}"
                )
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            # A truth value is a whole number in Python.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                words = {str: "a text", list: "a list", dict: "a table", bool: "true or false"}
                wanted = " or ".join(words.get(kind, "a number") for kind in kinds[:2])
                raise self._error(f"{where}{key} = {reprlib.repr(value)}: give {wanted}")

    def _texts(self, where: str, value: Any) -> tuple[str, ...]:
        """Returns texts of a list, or of one text."""
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise self._error(f"{where} = {reprlib.repr(value)}: give a text, or a list of texts")
        return tuple(texts)

    def _table(self, where: str, fields: Mapping[str, Any]) -> Table:
        if "files" not in fields:
            raise self._error(f'{where}needs files = "PATTERN"')
        if fields.get("format") not in (None, *FORMATS):
            found = fields["format"]
            raise self._error(f"{where}format = {found!r}: choose one of {', '.join(FORMATS)}")
        try:
            "".encode(fields.get("encoding", "utf-8"))
        except LookupError as error:
            raise self._error(f"{where}encoding: {error}") from error
        separator = fields.get("separator")
        if separator is not None and (not separator or set(separator) & set('"\r\n')):
            raise self._error(
                f"{where}separator = {separator!r}: give one that is no quote or line"
            )
        header = self._texts(f"{where}header", fields["header"]) if "header" in fields else ()
        if len(set(header)) < len(header):
            raise self._error(f"{where}header names a column twice; give each its own name")
        return Table(
            files=self._texts(f"{where}files", fields["files"]),
            format=fields.get("format"),
            separator=separator,
            encoding=fields.get("encoding", "utf-8"),
            header=header,
            quoted=fields.get("quoted", True),
        )

    def _items(self, fields: Any, index: int) -> Items:
        self._check("items", fields)
        where = "[items] "
        if "id" not in fields:
            raise self._error(f'{where}needs id = "COLUMN"')
        columns = {
            str(name): self._texts(f"{where}columns.{name}", taken)
            for name, taken in fields.get("columns", {}).items()
        }
        if "title" in fields:
            columns = {"title": self._texts(f"{where}title", fields["title"]), **columns}
        elif index == 0:
            raise self._error(f'{where}needs title = "COLUMN"')
        for name in columns:
            if name in ("row", "movieId", "genres", "classes", sentences.STARS, sentences.VALUE):
                raise self._error(f"{where}columns.{name}: the name is taken; choose another one")
        otherwise = {
            str(name): self._texts(f"{where}otherwise.{name}", text)[0]
            for name, text in fields.get("otherwise", {}).items()
        }
        if fields.get("class_separator") == "":
            raise self._error(f"{where}class_separator = '': give what stands between classes")
        flags = fields.get("class_flags", [])
        return Items(
            table=self._table(where, fields),
            id=fields["id"],
            columns=columns,
            otherwise=otherwise,
            classes=fields.get("classes"),
            class_separator=fields.get("class_separator"),
            class_flags=self._texts(f"{where}class_flags", flags) if flags else (),
        )

    def _check_classes(self, tables: tuple[Items, ...]) -> None:
        having = [table for table in tables if table.classes is not None or table.class_flags]
        if len(having) != 1 or (having[0].classes is not None and having[0].class_flags):
            raise self._error('[items] needs classes = "COLUMN", or class_flags = [...], once')
        twice = [name for table in tables for name in table.columns]
        for name in twice:
            if twice.count(name) > 1:
                raise self._error(f"[items] columns.{name} stands in two tables; leave it in one")
        known = set(twice)
        for table in tables:
            for name in table.otherwise:
                if name not in known:
                    raise self._error(
                        f"[items] otherwise.{name}: no such column{_nearest(name, known)}"
                    )

    def _interactions(self, fields: Any) -> tuple[Interactions, RatingScale]:
        self._check("interactions", fields)
        where = "[interactions] "
        for key in ("user", "item"):
            if key not in fields:
                raise self._error(f'{where}needs {key} = "COLUMN"')
        unit = fields.get("time_unit", "seconds")
        if unit not in TIME_UNITS:
            raise self._error(f"{where}time_unit = {unit!r}: choose one of {', '.join(TIME_UNITS)}")
        stars, value = fields.get("stars"), fields.get("value")
        if (value is None) == (not isinstance(stars, int | float)):
            raise self._error(f'{where}needs value = "COLUMN", or what each is worth: stars = 5')
        points = stars if isinstance(stars, dict) else {"all": stars} if value is None else None
        scale = STARS
        if points is not None:
            if dotted := [said for said, worth in points.items() if isinstance(worth, dict)]:
                raise self._error(
                    f"{where}stars: {dotted[0]}.? is a table in TOML; put the value in quotes, as "
                    f'"{dotted[0]}.5" = ...'
                )
            try:
                listed = tuple((str(said), float(worth)) for said, worth in points.items())
                scale = RatingScale(listed, rounds=True)
            except (TypeError, ValueError) as error:
                raise self._error(f"{where}stars: {error}") from error
        return Interactions(
            table=self._table(where, fields),
            user=fields["user"],
            item=fields["item"],
            time=fields.get("time"),
            time_unit=unit,
            value=value,
            none=tuple(map(str, fields.get("none", []))),
            half_stars=10 if value is not None else int(2 * stars),
        ), scale

    def _telling(
        self,
        fields: Mapping[str, Any],
        told: Mapping[str, Any],
        tables: tuple[Items, ...],
        scale: RatingScale,
    ) -> Telling:
        channels = dict(_DEFAULT_CHANNELS)
        if fields.get("reader") == MOVIELENS:
            channels = dict(sentences.OF_MOVIES)
        if "channels" in fields:
            channels = self._channels(fields["channels"])
        known = {"title", "classes", "description", sentences.STARS, sentences.VALUE}
        if tables:
            known = {"classes", sentences.STARS, sentences.VALUE}
            known |= {name for table in tables for name in table.columns}
        for name, template in channels.items():
            for named in sentences.names(template):
                if named not in known:
                    raise self._error(
                        f"[[channels]] {name}: no column {named!r}{_nearest(named, known)}; items "
                        f"have {', '.join(sorted(known))}"
                    )
        for key in ("min_count", "most", "classes"):
            if told.get(key, 1) < 1:
                raise self._error(f"[labels] {key} = {told[key]}: give at least 1")
        rule = LabelRule(
            min_count=told.get("min_count", labels.PAPER.min_count),
            most=told.get("most", labels.PAPER.most),
            liked_above=float(told.get("liked_above", labels.PAPER.liked_above)),
            disliked_below=float(told.get("disliked_below", labels.PAPER.disliked_below)),
        )
        if rule.disliked_below > rule.liked_above:
            raise self._error(
                f"[labels] disliked_below = {rule.disliked_below:g} is above liked_above = "
                f"{rule.liked_above:g}; a class may not be both"
            )
        return Telling(
            question=told.get("question", sentences.INSTRUCTION),
            sentences=channels,
            rule=rule,
            wording=self._wording(told),
            scale=scale,
        )

    def _channels(self, listed: list[Any]) -> dict[str, str]:
        channels: dict[str, str] = {}
        for fields in listed:
            self._check("channels", fields)
            for key in ("name", "text"):
                if key not in fields:
                    raise self._error(f'[[channels]] needs {key} = "..."')
            name, template = fields["name"], fields["text"]
            if not (name.isidentifier() and name.islower()) or name in channels:
                raise self._error(
                    f"[[channels]] name = {name!r}: give each one of its own, of small letters, "
                    "digits and _"
                )
            try:
                named = set(sentences.names(template))
            except ValueError as error:
                raise self._error(f"[[channels]] {name}: {error}") from error
            of_rating = named & {sentences.STARS, sentences.VALUE}
            if not named or (of_rating and named - of_rating):
                raise self._error(
                    f"[[channels]] {name}: text = {template!r} must name columns of items, or "
                    "{stars} and {value} of a rating"
                )
            channels[name] = template
        if not channels:
            raise self._error("[[channels]]: give one at least")
        return channels

    def _wording(self, told: Mapping[str, Any]) -> Wording:
        usual = verbalizer.USUAL
        words = {
            field.name: told.get(field.name, getattr(usual, field.name))
            for field in dataclasses.fields(Wording)
        }
        for name, text in words.items():
            if not verbalizer.normalize(text):
                raise self._error(f"[labels] {name} = {text!r}: give a text")
        likes, dislikes = (verbalizer.normalize(words[name]) for name in ("likes", "dislikes"))
        if likes == dislikes:
            raise self._error(f"[labels] likes and dislikes are both {words['likes']!r}")
        return Wording(**words)
