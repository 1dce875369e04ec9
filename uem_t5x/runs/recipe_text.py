"""Where recipes lie, and what their text says, without importing what it is for."""

import contextlib
import io
import os
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gin
from etils import epath
from gin import config_parser

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.runs import older_recipes

_PACKAGE = Path(__file__).parents[1]
# `gin/NAME.gin` from any folder: the current one, a checkout's, an installed package's.
SEARCH_PATHS = (Path(), _PACKAGE.parent, _PACKAGE)
for _path in SEARCH_PATHS:
    gin.add_config_file_search_path(str(_path))
# A recipe as gin writes it, below MODEL_DIR: that of training, and that of answering.
RECORDED = TRAINING, ANSWERING = "config.gin", "answering.gin"
NO_GIN = (SyntaxError, tokenize.TokenError)  # what its parser says of a text that is none


def text_of(recipe: epath.PathLike) -> str:
    """Returns the text of a recipe, without the byte-order mark that some editors begin it with.

    What an older version has recorded is in the names of this one.
    """
    path = epath.Path(recipe)
    found = path.read_bytes().decode("utf-8-sig")
    return older_recipes.modernized(found) if path.name in RECORDED else found


# Before gin's own reader, which takes a byte-order mark for a name, and knows no buckets.
gin.config._FILE_READERS.insert(
    0, (lambda path: io.StringIO(text_of(path)), lambda path: epath.Path(path).is_file())
)


def find(recipe: str | os.PathLike[str]) -> epath.Path:
    """Returns where a recipe lies; gin itself finds what it includes.

    Raises:
      InputError: if there is no such file.
    """
    candidates = (
        [recipe] if buckets.is_remote(recipe) else [folder / recipe for folder in SEARCH_PATHS]
    )
    for path in map(epath.Path, candidates):
        if path.is_file():
            return path
    raise InputError(f"{recipe}: no such recipe; see the folder gin/ for those there are")


@contextlib.contextmanager
def refusing(recipe: str | os.PathLike[str]) -> Iterator[None]:
    """Raises an InputError where the text of a file turns out to be no recipe's."""
    try:
        yield
    except (*NO_GIN, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{recipe}: not a recipe: {' '.join(str(error).split())}") from error


def parser(recipe: str | os.PathLike[str], references: "AsText") -> config_parser.ConfigParser:
    """Returns what yields a recipe's own statements, and its inclusions and imports as such."""
    return config_parser.ConfigParser(text_of(find(recipe)), references)


def statements(
    recipe: str | os.PathLike[str], references: "AsText | None" = None
) -> Iterator[config_parser.BindingStatement]:
    """Yields the bindings of a recipe in the order in which gin makes them.

    Args:
      recipe: the file.
      references: gets what they refer to.
    """
    references = references or AsText()
    with refusing(recipe):
        for statement in parser(recipe, references):
            if isinstance(statement, config_parser.IncludeStatement):
                yield from statements(statement.filename, references)
            elif isinstance(statement, config_parser.BindingStatement):
                location = statement.location._replace(filename=os.fspath(recipe))
                yield statement._replace(location=location)


def statement(binding: str, references: "AsText | None" = None) -> config_parser.BindingStatement:
    """Returns what a line of gin binds.

    Raises:
      InputError: if it is none.
    """
    try:
        (statement,) = config_parser.ConfigParser(binding, references or AsText())
    except (*NO_GIN, ValueError) as error:
        raise InputError(f"{binding}: gin cannot read it") from error
    return statement


def bindings(text: str, references: "AsText") -> list[config_parser.BindingStatement]:
    """Returns what a text binds that includes nothing."""
    statements = config_parser.ConfigParser(text, references)
    return [found for found in statements if isinstance(found, config_parser.BindingStatement)]


def macros(statements: Iterable[config_parser.BindingStatement]) -> dict[str, Any]:
    """Returns the macros that statements bind, by name."""
    named = ((macro_name(statement), statement.value) for statement in statements)
    return {name: value for name, value in named if name is not None}


def parameters(statements: Iterable[config_parser.BindingStatement]) -> dict[str, Any]:
    """Returns what statements bind that is no macro, by `scope/module.function.parameter`."""
    return {
        "/".join(filter(None, [found.scope, f"{found.selector}.{found.arg_name}"])): found.value
        for found in statements
        if macro_name(found) is None
    }


def macro_name(statement: config_parser.BindingStatement) -> str | None:
    """Returns the name of the macro that a statement binds: by `NAME`, or `NAME/macro.value`."""
    scope, selector, parameter, *_ = statement
    if not parameter:
        return f"{scope}/{selector}" if scope else selector
    return scope if _is_macro(selector) and parameter == "value" else None


def _is_macro(selector: str) -> bool:
    """Tells what gin makes of a `%NAME`: `@NAME/macro()`."""
    return selector in ("macro", "gin.macro")


def scopes(scope: str) -> set[str]:
    """Returns the names in `scope/scope`."""
    return {name for name in scope.split("/") if name}


class AsText(config_parser.ParserDelegate):
    """Leaves references of a recipe as they are written, and remembers them.

    Attributes:
      configurables: the names of functions and classes that are referred to.
      macros: those of macros.
      scopes: those of scopes.
    """

    def __init__(self) -> None:
        self.configurables: set[str] = set()
        self.macros: set[str] = set()
        self.scopes: set[str] = set()

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        """Returns the text of `@scope/name()`."""
        scope, _, selector = scoped_configurable_name.rpartition("/")
        if _is_macro(selector):
            self.macros.add(scope)
        else:
            self.configurables.add(selector)
            self.scopes |= scopes(scope)
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> str:
        """Returns the text of `%NAME`."""
        self.macros.add(macro_name)
        return f"%{macro_name}"

    def take(self) -> frozenset[str]:
        """Returns what was referred to, macros as `%NAME` and scopes as `NAME/`; forgets it."""
        macros, scopes = (f"%{name}" for name in self.macros), (f"{name}/" for name in self.scopes)
        taken = frozenset([*macros, *scopes, *self.configurables])
        for names in (self.macros, self.scopes, self.configurables):
            names.clear()
        return taken
