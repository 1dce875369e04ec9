"""Checks the tables of a TOML file: their keys, and the types of what they hold."""

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from uem_t5x.base.errors import InputError

_WORDS = {str: "a text", list: "a list", dict: "a table", bool: "true or false"}


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the name that was meant, as the end of a message; nothing if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


@dataclasses.dataclass(frozen=True)
class TomlFile:
    """A file that refuses what it says.

    Attributes:
        name: how messages call it.
        keys: of each table, `""` for the whole, its keys, each with the type of its value or
            several.
    """

    name: str
    keys: Mapping[str, Mapping[str, Any]]

    def error(self, problem: str) -> InputError:
        """Returns the error that tells of a problem."""
        return InputError(f"{self.name}: {problem}")

    def check(self, table: str, fields: Any) -> None:
        """Refuses keys that there are not, and values of other types.

        Raises:
            InputError: if there are any.
        """
        known, where = self.keys[table], f"[{table}] " if table else ""
        if not isinstance(fields, dict):
            raise self.error(f"{where}must be a table")
        for key, value in fields.items():
            if key not in known:
                raise self.error(
                    f"{where}no key {key!r}{nearest(key, known)}; it may have {', '.join(known)}"
                )
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            # A truth value is a whole number in Python.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                wanted = " or ".join(_WORDS.get(kind, "a number") for kind in kinds[:2])
                raise self.error(f"{where}{key} = {reprlib.repr(value)}: give {wanted}")

    def require(self, table: str, fields: Mapping[str, Any], *keys: str) -> None:
        """Refuses a table that lacks one of some keys, which are names of columns.

        Raises:
            InputError: if it does.
        """
        for key in keys:
            if key not in fields:
                raise self.error(f'[{table}] needs {key} = "COLUMN"')

    def texts(self, where: str, value: Any) -> tuple[str, ...]:
        """Returns the texts of a list, or the only one.

        Raises:
            InputError: if these are none.
        """
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise self.error(f"{where} = {reprlib.repr(value)}: give a text, or a list of texts")
        return tuple(texts)
