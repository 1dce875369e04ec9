"""The command line of `python -m uem_t5x.train`, which imports nothing that takes its time."""

import argparse
from collections.abc import Sequence

from uem_t5x import gin_utils, processes
from uem_t5x.errors import InputError


def parse(argv: Sequence[str]) -> tuple[list[str], list[str], argparse.Namespace]:
    """Reads the command line; ends the program with help, or if it is refused.

    Returns:
      Recipe files, lines of gin to bind beside them, and the flags.
    """
    files, bindings, rest = gin_utils.split_arguments(argv)
    parser = _parser()
    arguments = parser.parse_args(rest)
    if not files:
        parser.error("--gin_file is missing")
    return files, bindings, arguments


def check(files: Sequence[str], bindings: Sequence[str], arguments: argparse.Namespace) -> None:
    """Checks what `parse` returns, as far as that can be told without reading data.

    Raises:
      InputError: as in `gin_utils.check_bindings` and `processes.check`, or a macro without value.
    """
    macros = gin_utils.check_bindings(files, bindings)
    if unbound := gin_utils.unbound(macros):
        name = min(unbound)
        raise InputError(
            f"{', '.join(files)}: the macro {name} is not bound; add --gin.{name}=VALUE"
        )
    processes.check(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uem_t5x.train",
        usage="%(prog)s --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=FOLDER --gin.DATA_DIR=FOLDER "
        "[--gin.NAME=VALUE ...] [--multiprocess]",
        allow_abbrev=False,
    )
    processes.add_arguments(parser)
    parser.add_argument(
        "--seqio_additional_cache_dirs",
        type=lambda folders: folders.split(","),
        default=[],
        metavar="FOLDER[,FOLDER]",
        help="where USE_CACHED_TASKS=True finds what seqio_cache_tasks wrote",
    )
    return parser
