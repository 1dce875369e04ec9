"""`--input` of commands that read users as JSON lines, from a file or from standard input."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x.answers.json_input import read_lines
from uem_t5x.answers.user_lines import User
from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel

STDIN = "-"


def check(named: str, output: str | None) -> None:
    """Refuses a file that is not there, or that the output would replace.

    Raises:
      InputError: if it is none to be read.
    """
    if named == STDIN:
        return
    source = Path(named)
    if not source.exists() or source.is_dir():
        found = "a folder" if source.is_dir() else "no such file"
        raise InputError(f"{named}: {found}; give JSON lines, a user each")
    if output and Path(output).exists() and source.samefile(output):
        raise InputError(f"--output {output}: the histories lie there; give another name")


@contextlib.contextmanager
def reading(
    named: str, trained: "TrainedModel", report: Callable[[InputError], Any]
) -> Iterator[Iterator[User | None]]:
    """Gives the users of a file; see `UserReader.users`."""
    from uem_t5x.answers import predict

    with contextlib.ExitStack() as stack:
        is_stdin = named == STDIN
        file = sys.stdin.buffer if is_stdin else stack.enter_context(Path(named).open("rb"))
        yield predict.reader_of(trained).users(read_lines(file), named, report)
