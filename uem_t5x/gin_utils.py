"""Reading recipes: where they are found, how macros are given, what a mistake is told."""

import ast
import contextlib
import os
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import gin

from uem_t5x.errors import InputError

_PACKAGE = Path(__file__).parent
# `gin/NAME.gin` from any folder: the current one, a checkout's, an installed package's.
SEARCH_PATHS = (Path(), _PACKAGE.parent, _PACKAGE)
_UNBOUND_MACRO = re.compile(r"(\w+)/macro\.value set to `%gin\.REQUIRED`")
_MACRO_FLAG = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)


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
    for path in SEARCH_PATHS:
        gin.add_config_file_search_path(str(path))
    for file in files:
        if not any((path / file).is_file() for path in SEARCH_PATHS):
            raise InputError(f"{file}: no such recipe; see the folder gin/ for those there are")
    try:
        gin.parse_config_files_and_bindings([str(file) for file in files], list(bindings))
    except (ValueError, SyntaxError, OSError, ImportError, AttributeError) as error:
        message = " ".join(str(error).split())
        if unbound := _UNBOUND_MACRO.search(message):
            message = f"the macro {unbound[1]} is not bound; add --gin.{unbound[1]}=VALUE"
        gin.clear_config(clear_constants=True)  # nothing of a recipe that is half read stays
        raise InputError(f"{', '.join(map(str, files))}: {message}") from error


@contextlib.contextmanager
def main_module(module: types.ModuleType) -> Iterator[None]:
    """Lets recipes, which say `import __main__ as train_script`, mean `module` for a while."""
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = before
