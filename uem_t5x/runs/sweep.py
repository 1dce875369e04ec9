"""Runs a run of a sweep, each of its commands in a process of its own, and foretells how long.

One that fails takes nothing with it.
"""

import ctypes
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uem_t5x.runs.planned_runs import PlannedRun

_PR_SET_PDEATHSIG = 1  # of Linux' <sys/prctl.h>
# Loaded before it is needed, which is between a fork and the program it is for.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def seconds_left(
    done: Sequence[tuple[PlannedRun, float]], unfinished: Sequence[PlannedRun]
) -> float | None:
    """Returns about how long runs will take; None before there is one to go by.

    Args:
      done: other runs, and the seconds that they took.
      unfinished: the runs. Each is taken to be as long as those of its setting, or else of its
        recipe, or else as all.
    """
    if not done:
        return None

    def usual(planned: PlannedRun) -> float:
        of_setting = [seconds for run, seconds in done if run.setting == planned.setting]
        of_recipe = [seconds for run, seconds in done if run.recipe == planned.recipe]
        return statistics.mean(of_setting or of_recipe or [seconds for _, seconds in done])

    return sum(map(usual, unfinished))


def run(planned: PlannedRun, log: Path) -> int:
    """Runs the commands of a run; returns the first exit code that is not 0, or 0.

    Args:
      planned: the run.
      log: the file that gets what the commands write, after what it holds.
    """
    for command in planned.commands():
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=file, preexec_fn=_die_with_parent
            )
            with process:  # leaving waits for it
                try:
                    status = process.wait()
                except BaseException:
                    process.terminate()  # a training saves before it ends
                    raise
        if status:
            return status
    return 0


def _die_with_parent() -> None:
    """Has Linux tell this process to stop when the one that started it is killed."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
