"""`uem-t5x report`: one page from any set of runs.

    uem-t5x report runs/tiny --output runs/tiny-report

A RUN_DIR is a MODEL_DIR that holds the scores of `uem-t5x evaluate` as `metrics.json`, or a folder
of such folders.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uem_t5x.errors import InputError

if TYPE_CHECKING:
    from etils import epath

_DEPTH = 2  # of folders below a RUN_DIR that may be runs
_SCORE = "`uem-t5x evaluate --model-dir DIR --output DIR/metrics.json`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument(
        "run_dirs",
        nargs="+",
        metavar="RUN_DIR",
        help="a scored MODEL_DIR, or a folder that holds some, such as a sweep's",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="a folder that gets report.html, its plots as PNGs, tables.md, and runs.csv",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from uem_t5x import atomic, runs
    from uem_t5x.report import page, settings

    folders = find_runs(args.run_dirs)
    skipped = [folder for folder in folders if not (folder / runs.METRICS).is_file()]
    if skipped:
        names = ", ".join(map(str, skipped))
        if len(skipped) == len(folders):
            raise InputError(f"{names}: no scores yet; score each DIR with {_SCORE}")
        print(f"skipped, as not scored: {names}; score each DIR with {_SCORE}", file=sys.stderr)
    scored = [runs.Run.read(folder) for folder in folders if folder not in skipped]
    with atomic.writing_folder(
        Path(args.output), "report", page.is_report, overwrite=True
    ) as folder:
        page.write(folder, settings.compare(scored), [str(path) for path in skipped])
    print(f"{len(scored)} runs: {Path(args.output) / page.PAGE}")
    return 0


def find_runs(run_dirs: Sequence[str]) -> "list[epath.Path]":
    """Finds MODEL_DIRs: the folders themselves, or what lies one or two folders below.

    Raises:
      InputError: if there is none in one of the folders.
    """
    from etils import epath

    from uem_t5x import model_dir

    def search(path: epath.Path, depth: int) -> list[epath.Path]:
        if model_dir.is_model_dir(path):
            return [path]
        below = sorted(path.iterdir()) if depth and path.is_dir() else []
        return [found for folder in below for found in search(folder, depth - 1)]

    found: dict[epath.Path, epath.Path] = {}
    for run_dir in run_dirs:
        path = epath.Path(run_dir)
        model_dirs = search(path, _DEPTH)
        if not model_dirs:
            raise InputError(
                f"{run_dir}: no trained model here, nor one or two folders below; give the "
                "MODEL_DIR of a training run, or a folder of such"
            )
        # Named twice, a run is still one.
        found |= {folder.resolve(): folder for folder in model_dirs}
    return list(found.values())
