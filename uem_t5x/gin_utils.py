"""Reading recipes: where they are found, how macros are given, what a mistake is told."""

import ast
import contextlib
import logging
import os
import re
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from etils import epath
from gin import config_parser

from uem_t5x import buckets
from uem_t5x.errors import InputError

_PACKAGE = Path(__file__).parent
# `gin/NAME.gin` from any folder: the current one, a checkout's, an installed package's.
SEARCH_PATHS = (Path(), _PACKAGE.parent, _PACKAGE)
for _path in SEARCH_PATHS:
    gin.add_config_file_search_path(str(_path))
# They say where, how often to look, or how to lay a run out, not what was run.
CIRCUMSTANCES = frozenset(
    "MODEL_DIR DATA_DIR SENTENCEPIECE_MODEL_FILE USE_CACHED_TASKS LAYOUT SCAN_LAYERS REMAT_POLICY "  # noqa: SIM905
    "NUM_MICROBATCHES NUM_DATA_SHARDS USE_HARDWARE_RNG EVAL_STEPS EVAL_BATCH_SIZE EVAL_PERIOD "
    "CHECKPOINT_PERIOD CHECKPOINTS_KEPT STATS_PERIOD".split()
)
_PLACES = ("_DIR", "_FILE", "_PATH")  # macros that name a folder or a file end so
_NONE_FOR_ALL = frozenset({"CHECKPOINTS_KEPT", "EVAL_STEPS"})
_UNBOUND_MACRO = re.compile(r"(\w+)/macro\.value set to `%gin\.REQUIRED`")
_MACRO_FLAG = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)

# For a trained model's recipe in a bucket, which gin's own reader of files cannot open.
gin.config.register_file_reader(
    lambda path: epath.Path(path).open(),
    lambda path: buckets.is_remote(path) and epath.Path(path).is_file(),
)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    r"""Separates `--gin_file=FILE` and `--gin.NAME=VALUE` from other arguments.

    A value that is no gin literal is taken as a string: `--gin.MODEL_DIR=runs/a` and T5X's
    `--gin.MODEL_DIR=\"runs/a\"` mean the same.

    Returns:
      Recipe files, bindings, and the arguments that are left.
    """
    files, bindings, rest = [], [], []
    for argument in arguments:
        if argument.startswith("--gin_file="):
            files.append(argument.removeprefix("--gin_file="))
        elif match := _MACRO_FLAG.fullmatch(argument):
            bindings.append(f"{match[1]} = {_literal(match[2])}")
        else:
            rest.append(argument)
    return files, bindings, rest


def _literal(value: str) -> str:
    if value.startswith(("@", "%")):
        return value
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return repr(value)
    return value


def parse(files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()) -> None:
    """Reads recipes into gin, after clearing what was there.

    Raises:
      InputError: a file that is missing or does not parse, or a macro that is left unbound.
    """
    gin.clear_config(clear_constants=True)
    found = [os.fspath(_find(file)) for file in files]
    try:
        with _not_logging():  # each folder where a recipe is not
            gin.parse_config_files_and_bindings(found, list(bindings))
    except (
        ValueError,
        SyntaxError,
        OSError,
        ImportError,
        AttributeError,
        RecursionError,  # a recipe that includes itself
    ) as error:
        message = " ".join(str(error).split())
        if unbound := _UNBOUND_MACRO.search(message):
            message = f"the macro {unbound[1]} is not bound; add --gin.{unbound[1]}=VALUE"
        gin.clear_config(clear_constants=True)  # nothing of a recipe that is half read stays
        raise InputError(f"{', '.join(map(str, files))}: {message}") from error


@contextlib.contextmanager
def _not_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def use_settings(settings: str) -> None:
    """Makes gin's configuration what `gin.config_str()` said when it returned `settings`."""
    gin.clear_config(clear_constants=True)
    gin.parse_config(settings)


def check_bindings(recipes: Sequence[str | os.PathLike[str]], bindings: Iterable[str]) -> None:
    """Checks the macros that are to be bound beside recipes.

    Args:
      recipes: the recipes.
      bindings: lines of gin, such as `TRAIN_STEPS = 10`. Parameters (`module.function.parameter`)
        are left to gin, which knows them.

    Raises:
      InputError: as in `check_macros`, or one is no recipe.
    """
    given = {}
    for binding in bindings:
        name, _, literal = (part.strip() for part in binding.partition("="))
        if name.isidentifier():
            given[name] = literal_value(literal)
    macros = {}
    for recipe in recipes:
        macros |= read(recipe)[0]
    check_macros(", ".join(map(str, recipes)), given, macros)


def check_macros(where: str, given: Mapping[str, Any], macros: Mapping[str, Any]) -> None:
    """Checks the macros that are to be bound beside a recipe: gin takes any name and any value.

    Args:
      where: the recipe, for messages.
      given: the new values by name; of a reference the text, as `read` gives it.
      macros: the recipe's own.

    Raises:
      InputError: if the recipe has no such macro, or its value is of another kind: a truth value, a
        number or a text. A macro without a value of its own takes any, but for a folder or a file.
    """
    if unknown := given.keys() - macros.keys():
        raise InputError(
            f"{where} has no macro {', '.join(sorted(unknown))}; it has {', '.join(sorted(macros))}"
        )
    for name, value in given.items():
        wanted = "a text" if name.endswith(_PLACES) else _kind(_follow(macros[name], macros))
        may_be_none = value is None and (wanted == "a text" or name in _NONE_FOR_ALL)
        if wanted is None or may_be_none or _is_reference(value):
            continue
        if _kind(value) != wanted:
            raise InputError(f"{where}: {name} = {value!r}: give {wanted}")
        if isinstance(_follow(macros[name], macros), int) and isinstance(value, float):
            mend = f"write {int(value)}" if value.is_integer() else "give a whole number"
            raise InputError(f"{where}: {name} = {value!r}: {mend}")


def _kind(value: Any) -> str | None:
    """Says what a value is in a message; None for what macros are seldom."""
    if _is_reference(value):
        return None
    kinds = {bool: "True or False", int: "a number", float: "a number", str: "a text"}
    return kinds.get(type(value))


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("@", "%"))


def _follow(value: Any, macros: Mapping[str, Any]) -> Any:
    """Returns what a macro that refers to another one stands for, where that is a value."""
    for _ in macros:
        if not _is_reference(value) or value[1:] not in macros:
            break
        value = macros[value[1:]]
    return value


def _find(recipe: str | os.PathLike[str]) -> epath.Path:
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


def read(recipe: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what a recipe and the files that it includes bind, without importing what it is for.

    Of a reference such as `%NAME` or `@module.function()` the value is the text.

    Returns:
      Macros by name, and other settings by `scope/module.function.parameter`.

    Raises:
      InputError: if there is no such file, or it is not a recipe.
    """
    macros, bindings = {}, {}
    for statement in _statements(recipe):
        if statement.arg_name:
            scope = f"{statement.scope}/" if statement.scope else ""
            bindings[f"{scope}{statement.selector}.{statement.arg_name}"] = statement.value
        else:
            macros[statement.selector] = statement.value
    return macros, bindings


def current_macros() -> dict[str, Any]:
    """Returns the macros that gin holds, by name; of a reference the text, as `read` gives it."""
    statements = config_parser.ConfigParser(gin.config_str(), _AsText())
    return {
        statement.selector: statement.value
        for statement in statements
        if isinstance(statement, config_parser.BindingStatement) and not statement.arg_name
    }


def settings_bound(text: str) -> dict[str, Any]:
    """Returns all that a text as of `gin.config_str()` binds, but for folders and files.

    Args:
      text: the settings.

    Returns:
      Values of macros by name and of other settings by `scope/module.function.parameter`; of a
      reference the text, as `read` gives it.
    """
    bound = {}
    for statement in config_parser.ConfigParser(text, _AsText()):
        if not isinstance(statement, config_parser.BindingStatement):
            continue
        scope = f"{statement.scope}/" if statement.scope else ""
        parameter = f".{statement.arg_name}" if statement.arg_name else ""
        name = f"{scope}{statement.selector}{parameter}"
        if not name.endswith(_PLACES):
            bound[name] = statement.value
    return bound


def other_macros(
    recipe: str | os.PathLike[str], macros: Mapping[str, Any], but: Collection[str] = ()
) -> str | None:
    """Says in what a run differs from one that was recorded.

    Args:
      recipe: of the run that was.
      macros: of the run that is to be. Those that one of the two does not have are not compared:
        they may be of another version.
      but: names that may differ besides `CIRCUMSTANCES`.

    Returns:
      Part of a sentence, such as `A = 1, and not 2, B = 'x', and not 'y'`; None if in nothing.

    Raises:
      InputError: if the recipe cannot be read.
    """
    before, _ = read(recipe)
    compared = sorted(before.keys() & macros.keys() - CIRCUMSTANCES - set(but))
    others = (
        f"{name} = {before[name]!r}, and not {macros[name]!r}"
        for name in compared
        if _without_module(before[name]) != _without_module(macros[name])
    )
    return ", ".join(others) or None


def _without_module(value: Any) -> Any:
    """Returns a value; of a function its own name, as how much gin says depends on the imports."""
    if isinstance(value, str) and value.startswith("@"):
        return "@" + value[1:].rpartition(".")[2]
    return value


def _statements(
    recipe: str | os.PathLike[str],
) -> Iterator[config_parser.BindingStatement]:
    """Yields the bindings of a recipe in the order in which gin makes them."""
    path = _find(recipe)
    try:
        for statement in config_parser.ConfigParser(path.read_text(), _AsText()):
            if isinstance(statement, config_parser.IncludeStatement):
                yield from _statements(statement.filename)
            elif isinstance(statement, config_parser.BindingStatement):
                yield statement
    except (SyntaxError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{recipe}: not a recipe: {' '.join(str(error).split())}") from error


def literal_value(literal: str) -> Any:
    """Returns what a gin literal stands for; of a reference, its text.

    Raises:
      InputError: if it is none.
    """
    try:
        (statement,) = config_parser.ConfigParser(f"value = {literal}", _AsText())
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{literal}: not a value that gin can read") from error
    return statement.value


class _AsText(config_parser.ParserDelegate):
    """Leaves references of a recipe as they are written."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        """Returns the text of `@scope/name()`."""
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> str:
        """Returns the text of `%NAME`."""
        return f"%{macro_name}"


@contextlib.contextmanager
def main_module(module: types.ModuleType) -> Iterator[None]:
    """Lets recipes, which say `import __main__ as train_script`, mean `module` for a while."""
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = before
