"""`uem-t5x sweep`: trains and scores a list of runs, and goes on where it was stopped.

    uem-t5x sweep gin/sweeps/paper.toml --output runs/paper --gin.DATA_DIR=runs/movielens

A sweep is a TOML file. Each `[[runs]]` names recipes and macros; a macro with a list of values
gives a run for each of them, in all combinations, for each of the seeds. A recipe of `gin/` goes by
its name, another one by its path (`my_recipe.gin`); a parameter that no macro sets is written in
quotes (`macros."network.T5Config.num_heads" = [4, 8]`):

    seeds = [0, 1, 2]

    [[runs]]
    recipes = ["uem_flan_t5_base", "uem_flan_t5_large"]
    macros.HISTORY_LENGTH = [5, 20, 50]

    [recipes.uem_flan_t5_base]  # macros of all runs of a recipe
    INITIAL_CHECKPOINT_PATH = "flan-t5-base"

What several `[[runs]]` ask for is run once. Each run is two commands of its own, so that one that
fails takes nothing with it. Folders that hold runs of other settings are refused before any is run.
"""

import argparse
import contextlib
import datetime
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.runs import checks, recipes, sweep
from uem_t5x.runs.planned_runs import FOLDER, PlannedRun
from uem_t5x.runs.sweep_files import read_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("sweep", help="a list of runs, such as gin/sweeps/paper.toml")
    parser.add_argument("--output", required=True, help="a folder that gets a MODEL_DIR a run")
    parser.add_argument(
        "--print-commands",
        action="store_true",
        help="do not run; print a line of shell for each run that is not finished",
    )
    parser.epilog = "--gin.NAME=VALUE sets a macro of all runs, such as --gin.DATA_DIR=FOLDER."
    parser.set_defaults(gin_macros=[])


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    _, bindings, _ = recipes.split_arguments(args.gin_macros)
    runs = read_sweep(args.sweep, args.output, bindings)
    unfinished = [planned for planned in runs if not planned.is_finished()]
    if args.print_commands:
        for planned in unfinished:
            print(_writable(planned.shell_line()))
        return 0
    if buckets.is_remote(args.output):
        raise InputError(f"--output {args.output}: give a local folder, or --print-commands")
    for planned in unfinished:
        checks.check_folders({**planned.macros, FOLDER: planned.model_dir})
    return _run_all(runs, unfinished, args.output)


def _writable(line: str) -> str:
    """Returns a line of shell that standard output can write letter by letter.

    Raises:
      InputError: if its encoding lacks one: an escape would name another file.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise InputError(
            f"--print-commands: standard output is written in {encoding}, which lacks {letter!r}; "
            "set PYTHONIOENCODING=utf-8"
        ) from error
    return line


def _run_all(runs: Sequence[PlannedRun], unfinished: Sequence[PlannedRun], output: str) -> int:
    """Runs what is not finished, one after the other; returns the exit code."""
    from rich.console import Console

    # Being terminated ends the run that is under way too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(markup=False, highlight=False, soft_wrap=True)
    finished = len(runs) - len(unfinished)
    console.print(f"{len(runs)} runs, {finished} of them finished already")
    failed = []
    done: list[tuple[PlannedRun, float]] = []
    for number, planned in enumerate(unfinished):
        folder = Path(planned.model_dir)
        folder.mkdir(parents=True, exist_ok=True)
        line = f"{finished + number + 1} of {len(runs)}: {planned.name}"
        if (left := sweep.seconds_left(done, unfinished[number:])) is not None:
            line += f", about {datetime.timedelta(seconds=round(left))} left"
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            if console.is_terminal:
                stack.enter_context(console.status(line))
            else:
                console.print(line)
            status = sweep.run(planned, folder / "sweep.log")
        took = time.monotonic() - start
        if status:
            failed.append(planned.name)
            result = f"failed with exit code {status}, see {folder / 'sweep.log'}"
        else:
            done.append((planned, took))
            metrics = json.loads(Path(planned.metrics_file).read_text())
            name, *_ = metrics.get("metrics", ["f1"])
            score = next(iter(metrics["methods"].values()))[name]
            result = f"{'F1' if name == 'f1' else name} {score:.3f}"
        console.print(f"{planned.name}: {result} ({took / 60:.1f} min)")
    if failed:
        console.print(f"{len(failed)} failed; the same command runs them again")
    console.print(f"uem-t5x report {shlex.quote(output)} --output {shlex.quote(output)}/report")
    return 1 if failed else 0
