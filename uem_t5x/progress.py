"""What a person watches while a model trains or answers."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """A live bar in a terminal, one line a report in a log; both on standard error."""

    def __init__(self, total_steps: int, first_step: int, quiet: bool = False) -> None:
        self._total, self._first = total_steps, first_step
        self._start: float | None = None
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=total_steps, completed=first_step, status="compiling"
        )

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, step: int, status: str) -> None:
        """Shows how far training is, and a few words about it."""
        now = time.monotonic()
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, status=status)
            return
        left = ""
        # The first report only starts the clock: what came before it was compilation.
        if self._start is None:
            self._start, self._first = now, step
        elif step > self._first:
            seconds = (now - self._start) / (step - self._first) * (self._total - step)
            left = f", {datetime.timedelta(seconds=round(seconds))} left"
        line = f"step {step}/{self._total}: {status}{left}"
        self._console.print(line, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows a live count in a terminal, on standard error; gives what adds to it.

    Args:
      what: is being done.
      total: what it will come to, if that is known.
    """
    console = Console(stderr=True)
    columns = (TextColumn(f"[bold]{what}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda number: progress.advance(task, number)
