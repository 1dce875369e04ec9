"""The command line of training: `python -m uem_t5x.train`, or `uem-t5x train`.

Help, and what can be told from a recipe's text and a folder's manifest, need not wait for the
seconds that JAX and TensorFlow take to be imported.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from uem_t5x.base import buckets, startup
from uem_t5x.base.errors import InputError, exit_code
from uem_t5x.data.manifest import Manifest
from uem_t5x.runs import processes, recipes


def main(argv: Sequence[str], program: str = "uem_t5x.train") -> int:
    """Runs a recipe.

    Args:
      argv: the command line, without the program's name.
      program: what error lines begin with.

    Returns:
      The exit code: 0, 1 for a loss or gradient that is not finite or a disk that takes no more, 2
      for input that is refused, 75 for a run that was told to stop (SIGTERM) and goes on when it is
      repeated, 130 for Ctrl-C.
    """

    def run() -> int:
        files, bindings, arguments = parse(argv)
        check(files, bindings, arguments)
        if processes.is_first(arguments):
            print("loading JAX and TensorFlow", file=sys.stderr, flush=True)
        startup.load("uem_t5x.train")
        import seqio

        from uem_t5x import train

        processes.join(arguments)
        startup.find_devices()
        seqio.add_global_cache_dirs(arguments.seqio_additional_cache_dirs)
        train.run_recipe(files, bindings)
        return 0

    return exit_code(program, run)


def parse(argv: Sequence[str]) -> tuple[list[str], list[str], argparse.Namespace]:
    """Reads the command line; ends the program with help, or if it is refused.

    Returns:
      Recipe files, lines of gin to bind beside them, and the flags.
    """
    files, bindings, rest = recipes.split_arguments(argv)
    parser = _parser()
    arguments = parser.parse_args(rest)
    if not files:
        parser.error("--gin_file is missing")
    return files, bindings, arguments


def check(files: Sequence[str], bindings: Sequence[str], arguments: argparse.Namespace) -> None:
    """Checks what `parse` returns, as far as that can be told without reading data.

    Raises:
      InputError: as in `gin_utils.check_bindings` and `processes.check`; a macro without value; or
        a folder of this machine that is not what its macro says.
    """
    macros = recipes.check_bindings(files, bindings)
    if unbound := recipes.unbound(macros):
        name = min(unbound)
        raise InputError(
            f"{', '.join(files)}: the macro {name} is not bound; add --gin.{name}=VALUE"
        )
    processes.check(arguments)
    check_folders(macros)


def check_folders(macros: Mapping[str, Any]) -> None:
    """Checks the folders that a run reads and writes; those in buckets, when they are reached.

    Raises:
      InputError: if a folder of this machine is not what its macro says.
    """

    def is_here(name: str) -> bool:
        path = macros.get(name)
        if not isinstance(path, str) or not path or path.startswith(("%", "@")):
            return False
        buckets.check(path)
        return not buckets.is_remote(path)

    if is_here("DATA_DIR"):
        Manifest.read(macros["DATA_DIR"])
    if is_here("MODEL_DIR"):
        buckets.check_for_arrays(macros["MODEL_DIR"], are_written=True)
    start = "INITIAL_CHECKPOINT_PATH"
    if is_here(start) and not epath.Path(macros[start]).is_dir():
        raise InputError(f"{macros[start]}: no such folder; name a checkpoint's folder")


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
