"""The command line of training: `python -m uem_t5x.train`, or `uem-t5x train`.

Help, and what can be told from a recipe's text and a folder's manifest, need not wait for the
seconds that JAX and TensorFlow take to be imported.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from uem_t5x.base import startup
from uem_t5x.base.errors import exit_code
from uem_t5x.runs import checks, recipes
from uem_t5x.runs.processes import Processes


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
        processes = told_of_processes(arguments)
        checks.check(files, bindings, processes)
        if processes.is_first:
            print("loading JAX and TensorFlow", file=sys.stderr, flush=True)
        startup.load("uem_t5x.train")
        import seqio

        from uem_t5x import train

        processes.join()
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


def told_of_processes(arguments: argparse.Namespace) -> Processes:
    """Returns what the flags say of a run's processes."""
    names = [field.name for field in dataclasses.fields(Processes)]
    return Processes(**{name: getattr(arguments, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uem_t5x.train",
        usage="%(prog)s --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=FOLDER --gin.DATA_DIR=FOLDER "
        "[--gin.NAME=VALUE ...] [--multiprocess]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--multiprocess",
        action="store_true",
        help="one of a run's processes, as Cloud TPU, Slurm, Open MPI or Kubernetes have them",
    )
    parser.add_argument("--coordinator_address", help="HOST:PORT of the first process, elsewhere")
    parser.add_argument("--process_count", type=int, help="how many there are")
    parser.add_argument("--process_index", type=int, help="which one this is, from 0")
    parser.add_argument(
        "--seqio_additional_cache_dirs",
        type=lambda folders: folders.split(","),
        default=[],
        metavar="FOLDER[,FOLDER]",
        help="where USE_CACHED_TASKS=True finds what seqio_cache_tasks wrote",
    )
    return parser
