"""What a person watches while data is made, or a model trains or answers."""

import contextlib
import datetime
import functools
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

# Adds a number to what is done of a step.
Advance: TypeAlias = Callable[[int], None]
# Starts a step: what is being done, and what that will come to, if that is known.
Start: TypeAlias = Callable[[str, int | None], Advance]


class TrainingProgress:
    """A live bar in a terminal, a line for each event in a log; both on standard error."""

    def __init__(
        self, total_steps: int, quiet: bool = False, console: Console | None = None
    ) -> None:
        """Starts at step 0.

        Args:
          total_steps: the step to stop after.
          quiet: shows nothing, as the others of several processes do.
          console: where it is shown; standard error by default.
        """
        self._total = total_steps
        self._doing = ""
        self._told: set[str] = set()
        self._first_report: tuple[int, float] | None = None
        self._console = console or Console(stderr=True, quiet=quiet)
        # Where not all of them fit, the bar alone gives way.
        whole, narrower = Column(no_wrap=True), Column(no_wrap=False)
        self._bar = _TwoLines(
            SpinnerColumn(table_column=whole),
            TextColumn("{task.description}", style="bold", markup=False, table_column=whole),
            BarColumn(table_column=narrower),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[left]}", markup=False, table_column=whole),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total_steps, left="", status="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else the bar goes on saying at what it ended
            self._bar.update(self._task, description="training")
        self._bar.stop()

    def doing(self, what: str, step: int | None = None) -> None:
        """Says what is being done from now on; a log is told of each thing once.

        Args:
          what: is being done, such as `compiling`.
          step: where training stands, if that is news.
        """
        if what != self._doing:
            self._doing = what
            self._bar.update(self._task, completed=step, description=what, refresh=True)
            if not self._console.is_terminal and what not in self._told:
                self.tell(what)
                self._told.add(what)

    def report(self, step: int, status: str) -> None:
        """Shows how far training is, a few words about it, and how long it still takes."""
        left = self._left(step)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, left=left, status=status)
        else:
            self.tell(f"step {step}/{self._total}: {status}{left and f', {left}'}")

    def evaluated(self, step: int, scores: str) -> None:
        """Shows what a step was measured at, on a line that stays."""
        self.tell(f"step {step}/{self._total}: {scores}")

    def tell(self, line: str) -> None:
        """Writes a line that stays; in a terminal, above the bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _left(self, step: int) -> str:
        # The first report only starts the clock: what came before it was compilation.
        now = time.monotonic()
        self._first_report = first, since = self._first_report or (step, now)
        if step == first:
            return ""
        seconds = (now - since) / (step - first) * (self._total - step)
        return f"{datetime.timedelta(seconds=round(seconds))} left"


class _TwoLines(Progress):
    """A bar, and below it what 80 columns have no room for beside it."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yields the lines."""
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["status"]:
                yield Text(f"  {task.fields['status']}", no_wrap=True)


def unseen(what: str, total: int | None) -> Advance:
    """Shows nothing of a step."""
    return lambda number: None


@contextlib.contextmanager
def steps() -> Iterator[Start]:
    """Shows a bar for each step in a terminal, on standard error; gives what starts one."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def start(what: str, total: int | None) -> Advance:
            return functools.partial(progress.advance, progress.add_task(what, total=total))

        yield start


@contextlib.contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Advance]:
    """Shows a live count in a terminal, on standard error; gives what adds to it.

    Args:
      what: is being done.
      total: what it will come to, if that is known.
    """
    with steps() as start:
        yield start(what, total)
