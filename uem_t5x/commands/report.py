"""`uem-t5x report`: one page from any set of runs.

    uem-t5x report runs/tiny --output runs/tiny-report

A RUN_DIR is a MODEL_DIR that holds the scores of `uem-t5x evaluate` as `metrics.json`, or a folder
of such folders.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from etils import epath

    from uem_t5x.runs.finished import Run

_DEPTH = 2  # of folders below a RUN_DIR that may be runs
_SCORE = "score each DIR with `uem-t5x evaluate --model-dir DIR --output DIR/metrics.json`"
# Why a run is left out, and what is said where all are.
_NOT_SCORED, _NOT_CURRENT = "not scored", "trained on since they were scored"
_OF_QUESTIONS = "scored by metrics of their own questions"
_REFUSED = {
    _NOT_SCORED: "no scores yet",
    _NOT_CURRENT: "no scores since it was trained on",
    _OF_QUESTIONS: "of questions of its own, whose scores `uem-t5x evaluate --against` compares",
}


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
        help="a folder that gets report.html, plots as PNGs, tables.md, runs.csv and files.json",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from uem_t5x.base import atomic
    from uem_t5x.report import page, settings

    scored, skipped = read_runs(find_runs(args.run_dirs))
    names = {why: ", ".join(folders) for why, folders in skipped.items()}
    if not scored:
        told = "; ".join(f"{of_these}: {_REFUSED[why]}" for why, of_these in names.items())
        raise InputError(f"{told}; {_SCORE}")
    if skipped:
        told = "; ".join(f"as {why}: {of_these}" for why, of_these in names.items())
        print(f"skipped, {told}; {_SCORE}", file=sys.stderr)
    comparisons = settings.compare(scored)
    with atomic.writing_folder(
        Path(args.output), "report", page.is_report, overwrite=True
    ) as folder:
        page.write(folder, comparisons, skipped)
    print(f"{len(scored)} runs: {Path(args.output) / page.PAGE}")
    return 0


def read_runs(
    folders: "Sequence[epath.Path]",
) -> "tuple[list[Run], Mapping[str, Sequence[str]]]":
    """Reads the runs whose scores are those of what they are.

    Returns:
      The runs, and the folders of all others by what is the matter with them.

    Raises:
      InputError: if one cannot be read.
    """
    from uem_t5x.runs import finished

    scored: list[finished.Run] = []
    skipped: dict[str, list[str]] = {}
    for folder in folders:
        if not (folder / finished.METRICS).is_file():
            skipped.setdefault(_NOT_SCORED, []).append(str(folder))
        elif "metrics" in finished.read_scores(folder / finished.METRICS):
            skipped.setdefault(_OF_QUESTIONS, []).append(str(folder))
        elif not (run := finished.Run.read(folder)).is_current:
            skipped.setdefault(_NOT_CURRENT, []).append(str(folder))
        else:
            scored.append(run)
    return scored, skipped


def find_runs(run_dirs: Sequence[str]) -> "list[epath.Path]":
    """Finds MODEL_DIRs: the folders themselves, or what lies one or two folders below.

    Raises:
      InputError: if there is none in one of the folders.
    """
    from etils import epath

    from uem_t5x.runs import model_dir

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
