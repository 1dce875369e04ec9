"""Reading recipes: where they are found, how macros are given, what a mistake is told."""

import contextlib
import difflib
import io
import logging
import os
import re
import sys
import tokenize
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from etils import epath
from gin import config_parser

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.runs import older_recipes

_PACKAGE = Path(__file__).parents[1]
_ROOMS = ("", "inputs", "network", "training")  # of whose modules recipes bind parameters
# `gin/NAME.gin` from any folder: the current one, a checkout's, an installed package's.
SEARCH_PATHS = (Path(), _PACKAGE.parent, _PACKAGE)
for _path in SEARCH_PATHS:
    gin.add_config_file_search_path(str(_path))
# A recipe as gin writes it, below MODEL_DIR: that of training, and that of answering.
RECORDED = TRAINING, ANSWERING = "config.gin", "answering.gin"
# They say where, how often to look, or how to lay a run out, not what was run.
CIRCUMSTANCES = frozenset(
    "MODEL_DIR DATA_DIR SENTENCEPIECE_MODEL_FILE USE_CACHED_TASKS LAYOUT SCAN_LAYERS REMAT_POLICY "  # noqa: SIM905
    "NUM_MICROBATCHES NUM_DATA_SHARDS USE_HARDWARE_RNG EVAL_STEPS EVAL_BATCH_SIZE EVAL_PERIOD "
    "CHECKPOINT_PERIOD CHECKPOINTS_KEPT STATS_PERIOD WELL_FORMED_ANSWERS".split()
)
# Reports read it; no setting has to refer to it.
_ONLY_A_NAME = frozenset({"LANGUAGE_MODEL"})
_PLACES = ("_DIR", "_FILE", "_PATH")  # macros that name a folder or a file end so
_NONE_FOR_ALL = frozenset({"CHECKPOINTS_KEPT", "EVAL_STEPS"})
_UNBOUND_MACRO = re.compile(r"(\w+)/macro\.value set to `%gin\.REQUIRED`")
_MACRO_FLAG = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)
_REQUIRED = "%gin.REQUIRED"
_NO_GIN = (SyntaxError, tokenize.TokenError)  # what its parser says of a text that is none


def text(recipe: epath.PathLike) -> str:
    """Returns the text of a recipe, without the byte-order mark that some editors begin it with.

    What an older version has recorded is in the names of this one.
    """
    path = epath.Path(recipe)
    found = path.read_bytes().decode("utf-8-sig")
    return older_recipes.modernized(found) if path.name in RECORDED else found


# Before gin's own reader, which takes a byte-order mark for a name, and knows no buckets.
gin.config._FILE_READERS.insert(
    0, (lambda path: io.StringIO(text(path)), lambda path: epath.Path(path).is_file())
)


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
        _statement(f"value = {value}")
    except InputError:
        return repr(value)
    return value


def parse(files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()) -> None:
    """Reads recipes into gin, after clearing what was there.

    Raises:
      InputError: a file that is missing or does not parse, or a macro that is left unbound.
    """
    found = [os.fspath(find(file)) for file in files]
    with _parsing(", ".join(map(str, files))), _not_logging():  # each folder where a recipe is not
        gin.parse_config_files_and_bindings(found, list(bindings))


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
        *_NO_GIN,
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
    references = AsText()
    for recipe in recipes:
        _check_imports(recipe)
    statements = [found for recipe in recipes for found in _statements(recipe, references)]
    beside = [_statement(binding, references) for binding in bindings]
    own, given = _macros(statements), _macros(beside)
    check_macros(where, given, own)
    macros = own | given
    used = references.macros | _ONLY_A_NAME
    for statement in (*statements, *beside):
        if name := _macro_name(statement):
            unused, others, kind = {name} - used, used & macros.keys(), ""
        else:
            unused, others = _scopes(statement.scope) - references.scopes, references.scopes
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
    statements = [*_statements(recipe), *map(_statement, beside)]
    return _macros(statements), _parameters(statements)


def current_macros() -> dict[str, Any]:
    """Returns the macros that gin holds, by name; of a reference the text, as `read` gives it."""
    return _current_macros(AsText())


def unused_macros() -> dict[str, str]:
    """Returns the macros that gin holds to no effect, and for each what may have been meant.

    Where T5X's scripts have read the recipe, nobody has refused them.
    """
    references = AsText()
    macros = _current_macros(references)
    used = references.macros | _ONLY_A_NAME
    return {name: _nearest([name], macros.keys() & used) for name in macros.keys() - used}


def _current_macros(references: "AsText") -> dict[str, Any]:
    return _macros(_bindings(gin.config_str(), references))


def _bindings(text: str, references: "AsText") -> list[config_parser.BindingStatement]:
    """Returns what a text binds that includes nothing."""
    statements = config_parser.ConfigParser(text, references)
    return [found for found in statements if isinstance(found, config_parser.BindingStatement)]


def _macros(statements: Iterable[config_parser.BindingStatement]) -> dict[str, Any]:
    """Returns the macros that statements bind, by name."""
    named = ((_macro_name(statement), statement.value) for statement in statements)
    return {name: value for name, value in named if name is not None}


def _parameters(statements: Iterable[config_parser.BindingStatement]) -> dict[str, Any]:
    """Returns what statements bind that is no macro, by `scope/module.function.parameter`."""
    return {
        "/".join(filter(None, [found.scope, f"{found.selector}.{found.arg_name}"])): found.value
        for found in statements
        if _macro_name(found) is None
    }


def _macro_name(statement: config_parser.BindingStatement) -> str | None:
    """Returns the name of the macro that a statement binds: by `NAME`, or `NAME/macro.value`."""
    scope, selector, parameter, *_ = statement
    if not parameter:
        return f"{scope}/{selector}" if scope else selector
    return scope if _is_macro(selector) and parameter == "value" else None


def _is_macro(selector: str) -> bool:
    """Tells what gin makes of a `%NAME`: `@NAME/macro()`."""
    return selector in ("macro", "gin.macro")


def _scopes(scope: str) -> set[str]:
    return {name for name in scope.split("/") if name}


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


def other_parameters(
    recipe: str | os.PathLike[str],
    macros: Mapping[str, Any],
    parameters: Mapping[str, Any],
    asked_for: Collection[str],
) -> str | None:
    """Says in what parameters, which are no macros, a run differs from one that was recorded.

    Args:
      recipe: of the run that was.
      macros: of the run that is to be.
      parameters: of the run that is to be, as `read` returns them.
      asked_for: those of them that its recipe does not bind by itself. Others that the recorded
        run lacks are not compared: its recipe may be of another version.

    Returns:
      Part of a sentence, as of `other_macros`; None if in nothing.

    Raises:
      InputError: if the recipe cannot be read.
    """
    macros_before, parameters_before = read(recipe)
    before, now = _by_own_name(parameters_before), _by_own_name(parameters)

    def is_same(own_name: str) -> bool:
        if own_name not in before or own_name not in now:
            return False
        (_, old), (_, new) = before[own_name], now[own_name]
        # Where both are the same macro, the macro is what is compared.
        return _without_module(old) == _without_module(new) or (
            _without_module(follow(old, macros_before)) == _without_module(follow(new, macros))
        )

    compared = before.keys() | (now.keys() & _by_own_name(dict.fromkeys(asked_for)).keys())
    others = []
    for own_name in sorted(name for name in compared if not is_same(name)):
        name, _ = before.get(own_name) or now[own_name]
        was, is_to_be = (
            repr(bound[own_name][1]) if own_name in bound else "its default"
            for bound in (before, now)
        )
        others.append(f"{name} = {was}, and not {is_to_be}")
    return ", ".join(others) or None


def _by_own_name(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Returns names and values of parameters by `scope/function.parameter`.

    How much gin says of the module depends on the imports, and modules have moved.
    """
    by_own_name = {}
    for name, value in parameters.items():
        scope, slash, selector = name.rpartition("/")
        by_own_name[scope + slash + ".".join(selector.split(".")[-2:])] = name, value
    return by_own_name


def _without_module(value: Any) -> Any:
    """Returns a value; of a function its own name, as how much gin says depends on the imports."""
    if isinstance(value, str) and value.startswith("@"):
        scope, slash, selector = value[1:].rpartition("/")
        return f"@{scope}{slash}{selector.rpartition('.')[2]}"
    if isinstance(value, list | tuple):
        return type(value)(map(_without_module, value))
    if isinstance(value, dict):
        return {key: _without_module(part) for key, part in value.items()}
    return value


def _statements(
    recipe: str | os.PathLike[str], references: "AsText | None" = None
) -> Iterator[config_parser.BindingStatement]:
    """Yields the bindings of a recipe in the order in which gin makes them.

    Args:
      recipe: the file.
      references: gets what they refer to.
    """
    references = references or AsText()
    with refusing(recipe):
        for statement in config_parser.ConfigParser(text(find(recipe)), references):
            if isinstance(statement, config_parser.IncludeStatement):
                yield from _statements(statement.filename, references)
            elif isinstance(statement, config_parser.BindingStatement):
                location = statement.location._replace(filename=os.fspath(recipe))
                yield statement._replace(location=location)


@contextlib.contextmanager
def refusing(recipe: str | os.PathLike[str]) -> Iterator[None]:
    """Raises an InputError where the text of a file turns out to be no recipe's."""
    try:
        yield
    except (*_NO_GIN, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{recipe}: not a recipe: {' '.join(str(error).split())}") from error


def _check_imports(recipe: str | os.PathLike[str]) -> None:
    """Checks that a recipe, and each that it includes, imports the modules that it names."""
    references = AsText()
    imported, are_registered = {"gin"}, False
    with refusing(recipe):
        for statement in config_parser.ConfigParser(text(find(recipe)), references):
            if isinstance(statement, config_parser.IncludeStatement):
                _check_imports(statement.filename)
                continue
            if isinstance(statement, config_parser.ImportStatement):
                if name := older_recipes.moved(statement.module):
                    package, _, module = name.rpartition(".")
                    raise InputError(
                        f"{recipe}, line {statement.location.line_num}: {module} has moved; write "
                        f"'from {package} import {module}'"
                    )
                are_registered |= statement.module == "__gin__.dynamic_registration"
                imported.add(statement.bound_name())
                continue
            named = {selector.partition(".")[0] for selector in references.configurables}
            references.configurables.clear()
            if isinstance(statement, config_parser.BlockDeclaration) or statement.arg_name:
                named.add(statement.selector.partition(".")[0])
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


def _statement(binding: str, references: "AsText | None" = None) -> config_parser.BindingStatement:
    """Returns what a line of gin binds.

    Raises:
      InputError: if it is none.
    """
    try:
        (statement,) = config_parser.ConfigParser(binding, references or AsText())
    except (*_NO_GIN, ValueError) as error:
        raise InputError(f"{binding}: gin cannot read it") from error
    return statement


def literal_value(literal: str) -> Any:
    """Returns what a gin literal stands for; of a reference, its text.

    Raises:
      InputError: if it is none.
    """
    return _statement(f"value = {literal}").value


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
            self.scopes |= _scopes(scope)
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


@contextlib.contextmanager
def main_module(module: types.ModuleType) -> Iterator[None]:
    """Lets recipes, which say `import __main__ as train_script`, mean `module` for a while."""
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = before
