"""The command line of `python -m uem_t5x.train`, which imports nothing that takes its time."""

import argparse
from collections.abc import Sequence

from uem_t5x import gin_utils


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
