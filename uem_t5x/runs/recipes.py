"""Reading recipes into gin: how macros are given, what a mistake is told."""

import contextlib
import difflib
import logging
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

from uem_t5x.base.errors import InputError
from uem_t5x.runs import older_recipes, recipe_text

_PACKAGE = Path(__file__).parents[1]
_ROOMS = ("", "inputs", "network", "training")  # of whose modules recipes bind parameters
# Reports read it; no setting has to refer to it.
_ONLY_A_NAME = frozenset({"LANGUAGE_MODEL"})
_PLACES = ("_DIR", "_FILE", "_PATH")  # macros that name a folder or a file end so
_NONE_FOR_ALL = frozenset({"CHECKPOINTS_KEPT", "EVAL_STEPS"})
_UNBOUND_MACRO = re.compile(r"(\w+)/macro\.value set to `%gin\.REQUIRED`")
_MACRO_FLAG = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)
_REQUIRED = "%gin.REQUIRED"


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    r"""Separates `--gin_file=FILE`, or `--gin_file FILE`, and `--gin.NAME=VALUE` from the others.

    A value that is no gin literal is taken as a string: `--gin.MODEL_DIR=runs/a` and T5X's
    `--gin.MODEL_DIR=\"runs/a\"` mean the same.

    Returns:
      Recipe files, bindings, and the arguments that are left.
    """
    files, bindings, rest = [], [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--gin_file" and (file := next(remaining, None)) is not None:
            files.append(file)
        elif argument.startswith("--gin_file="):
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
        recipe_text.statement(f"value = {value}")
    except InputError:
        return repr(value)
    return value


def parse(files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()) -> None:
    """Reads recipes into gin, after clearing what was there.

    Raises:
      InputError: a file that is missing or does not parse, or a macro that is left unbound.
    """
    found = [os.fspath(recipe_text.find(file)) for file in files]
    with _parsing(", ".join(map(str, files))), _not_logging():  # each folder where a recipe is not
        gin.parse_config_files_and_bindings(found, list(bindings))


@contextlib.contextmanager
def gin_as_it_was() -> Iterator[None]:
    """Puts back what gin holds when the block ends, whatever is parsed within."""
    # gin has no way of its own: what it writes down imports the program that has parsed it.
    config = {key: dict(values) for key, values in gin.config._CONFIG.items()}
    imports, constants = set(gin.config._IMPORTS), gin.config._CONSTANTS.copy()
    is_locked = gin.config_is_locked()
    try:
        yield
    finally:
        gin.clear_config(clear_constants=True)
        gin.config._CONFIG.update(config)
        gin.config._IMPORTS.update(imports)
        for name, value in constants.items():
            gin.config._CONSTANTS[name] = value
        gin.config._set_config_is_locked(is_locked)


def parse_text(recipe: str, where: str) -> None:
    """Reads the text of a recipe into gin, after clearing what was there.

    Args:
      recipe: the text.
      where: where it lies, for messages.

    Raises:
      InputError: if it does not parse, or a macro is left unbound.
    """
    with _parsing(where):
        gin.parse_config(recipe)


@contextlib.contextmanager
def _parsing(where: str) -> Iterator[None]:
    """Clears gin before it reads recipes; says in one line what it cannot read."""
    gin.clear_config(clear_constants=True)
    try:
        yield
    except (
        ValueError,
        *recipe_text.NO_GIN,
        OSError,
        ImportError,
        AttributeError,
        NameError,  # of a module that the recipe does not import
        RecursionError,  # a recipe that includes itself
    ) as error:
        message = " ".join(str(error).split())
        if found := _UNBOUND_MACRO.search(message):
            message = f"the macro {found[1]} is not bound; add --gin.{found[1]}=VALUE"
        gin.clear_config(clear_constants=True)  # nothing of a recipe that is half read stays
        raise InputError(f"{where}: {message}") from error


@contextlib.contextmanager
def _not_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def check_bindings(
    recipes: Sequence[str | os.PathLike[str]], bindings: Iterable[str], where: str = ""
) -> dict[str, Any]:
    """Checks the macros of recipes, and those that are to be bound beside them.

    A macro that is misspelt, in a recipe as well as beside it, would be bound to no effect.

    Args:
      recipes: the recipes.
      bindings: lines of gin, such as `TRAIN_STEPS = 10`. Parameters (`module.function.parameter`)
        are left to gin, which knows them.
      where: what to call the recipes in messages; their own names by default.

    Returns:
      All macros by name; of a reference the text, as `read` gives it.

    Raises:
      InputError: as in `check_macros`; one is no recipe; nothing refers to a macro of a recipe, or
        to the scope of a parameter; or one names a module that it does not import.
    """
    where = where or ", ".join(map(str, recipes))
    references = recipe_text.AsText()
    for recipe in recipes:
        _check_imports(recipe)
    statements = [
        found for recipe in recipes for found in recipe_text.statements(recipe, references)
    ]
    beside = [recipe_text.statement(binding, references) for binding in bindings]
    own, given = recipe_text.macros(statements), recipe_text.macros(beside)
    check_macros(where, given, own)
    macros = own | given
    used = references.macros | _ONLY_A_NAME
    for statement in (*statements, *beside):
        if name := recipe_text.macro_name(statement):
            unused, others, kind = {name} - used, used & macros.keys(), ""
        else:
            others = references.scopes
            unused = recipe_text.scopes(statement.scope) - others
            kind = "the scope "
        if unused:
            file, line = statement.location.filename, statement.location.line_num
            raise InputError(
                f"{f'{file}, line {line}' if file else where}: nothing refers to {kind}"
                f"{min(unused)}; there is {_nearest(unused, others)}"
            )
    return macros


def unbound(macros: Mapping[str, Any]) -> set[str]:
    """Returns which macros, as `read` gives them, must still be bound."""
    return {name for name, value in macros.items() if value == _REQUIRED}


def _nearest(names: Iterable[str], others: Iterable[str]) -> str:
    """Returns for each name the one that may have been meant, or all where one has none."""
    by_case = {other.casefold(): other for other in others}
    nearest = [difflib.get_close_matches(name.casefold(), by_case, n=1) for name in sorted(names)]
    if all(nearest):
        return ", ".join(by_case[match] for (match,) in nearest)
    return ", ".join(sorted(by_case.values())) or "none"


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
            f"{where} has no macro {', '.join(sorted(unknown))}; it has {_nearest(unknown, macros)}"
        )
    for name, value in given.items():
        wanted = "a text" if name.endswith(_PLACES) else _kind(follow(macros[name], macros))
        may_be_none = value is None and (wanted == "a text" or name in _NONE_FOR_ALL)
        if wanted is None or may_be_none or _is_reference(value):
            continue
        if _kind(value) != wanted:
            raise InputError(f"{where}: {name} = {value!r}: give {wanted}")
        if isinstance(follow(macros[name], macros), int) and isinstance(value, float):
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


def follow(value: Any, macros: Mapping[str, Any]) -> Any:
    """Returns what a macro that refers to another one stands for, where that is a value."""
    for _ in macros:
        if not _is_reference(value) or value[1:] not in macros:
            break
        value = macros[value[1:]]
    return value


def read(
    recipe: str | os.PathLike[str], beside: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what a recipe and the files that it includes bind, without importing what it is for.

    Of a reference such as `%NAME` or `@module.function()` the value is the text.

    Args:
      recipe: the file.
      beside: lines of gin that are bound beside it, such as `TRAIN_STEPS = 10`.

    Returns:
      Macros by name, and other settings by `scope/module.function.parameter`.

    Raises:
      InputError: if there is no such file, or it is not a recipe; or one of `beside` is not gin.
    """
    statements = [*recipe_text.statements(recipe), *map(recipe_text.statement, beside)]
    return recipe_text.macros(statements), recipe_text.parameters(statements)


def current_macros() -> dict[str, Any]:
    """Returns the macros that gin holds, by name; of a reference the text, as `read` gives it."""
    return _current_macros(recipe_text.AsText())


def unused_macros() -> dict[str, str]:
    """Returns the macros that gin holds to no effect, and for each what may have been meant.

    Where T5X's scripts have read the recipe, nobody has refused them.
    """
    references = recipe_text.AsText()
    macros = _current_macros(references)
    used = references.macros | _ONLY_A_NAME
    return {name: _nearest([name], macros.keys() & used) for name in macros.keys() - used}


def _current_macros(references: "recipe_text.AsText") -> dict[str, Any]:
    return recipe_text.macros(recipe_text.bindings(gin.config_str(), references))


def _check_imports(recipe: str | os.PathLike[str]) -> None:
    """Checks that a recipe, and each that it includes, imports the modules that it names."""
    references = recipe_text.AsText()
    imported, are_registered = {"gin"}, False
    with recipe_text.refusing(recipe):
        for statement in recipe_text.parser(recipe, references):
            if isinstance(statement, config_parser.IncludeStatement):
                _check_imports(statement.filename)
                continue
            if isinstance(statement, config_parser.ImportStatement):
                if line := older_recipes.import_line(statement.module):
                    raise InputError(
                        f"{recipe}, line {statement.location.line_num}: {statement.module} has "
                        f"moved; write '{line}'"
                    )
                are_registered |= statement.module == "__gin__.dynamic_registration"
                imported.add(statement.bound_name())
                continue
            selectors = {*references.configurables}
            references.configurables.clear()
            if isinstance(statement, config_parser.BlockDeclaration) or statement.arg_name:
                selectors.add(statement.selector)
            if gone := selectors & older_recipes.GONE.keys():
                name = min(gone)
                raise InputError(
                    f"{recipe}, line {statement.location.line_num}: {name} is gone; bind "
                    f"{older_recipes.GONE[name]}"
                )
            named = {selector.partition(".")[0] for selector in selectors}
            # Without dynamic registration gin knows what was imported anywhere.
            if are_registered and (missing := sorted(named - imported)):
                raise InputError(
                    f"{recipe}, line {statement.location.line_num}: {missing[0]} is not imported; "
                    f"add the line '{_import_line(missing[0])}' above"
                )


def _import_line(module: str) -> str:
    """Returns the line that imports a module, ours or another."""
    for room in _ROOMS:
        if (_PACKAGE / room / f"{module}.py").is_file():
            return f"from {'.'.join(filter(None, ['uem_t5x', room]))} import {module}"
    return f"import {module}"


def literal_value(literal: str) -> Any:
    """Returns what a gin literal stands for; of a reference, its text.

    Raises:
      InputError: if it is none.
    """
    return recipe_text.statement(f"value = {literal}").value


@contextlib.contextmanager
def main_module(module: types.ModuleType) -> Iterator[None]:
    """Lets recipes, which say `import __main__ as train_script`, mean `module` for a while."""
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = before
