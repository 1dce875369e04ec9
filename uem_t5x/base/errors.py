"""The exceptions that the commands print without a traceback, and how they end."""

import codecs
import contextlib
import io
import numbers
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from uem_t5x.base import interrupts

PREEMPTED_EXIT_CODE = 75  # BSD's EX_TEMPFAIL, "try again later"
_ESCAPED = "uem_t5x.escaped"

# TensorFlow has classes of its own for what a file system does not let it do, and for mistakes.
_MISTAKES = ("InvalidArgumentError", "InternalError", "OutOfRangeError", "UnimplementedError")
# TensorStore has ValueErrors for both.
_OF_STORAGE = re.compile(
    r"(NOT_FOUND|PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAUTHENTICATED|UNAVAILABLE): |"
    r".*\[os_error_code=",
    re.DOTALL,
)


class InputError(ValueError):
    """Refused input: the message is one line that names the file, the value and the mend.

    The commands print it without a traceback and exit with code 2.
    """

    @property
    def line(self) -> str:
        """The message; gin appends lines about its own call stack, which are left out."""
        return str(self).partition("\n")[0]


def check_at_least(least: int, *, none_for: str | None = None, **values: Any) -> None:
    """Checks whole numbers that a recipe binds, by the names of their macros or parameters.

    Args:
      least: what each must be at least.
      none_for: what None stands for, such as `all`, where they may be None besides.
      **values: what they are.

    Raises:
      InputError: naming the first one that is less, or not a whole number.
    """
    for name, value in values.items():
        if value is None and none_for:
            continue
        is_whole = isinstance(value, numbers.Integral)
        if not is_whole or value < least:
            kind = "" if is_whole else "a whole number, "
            or_none = f", or to None for {none_for}" if none_for else ""
            raise InputError(f"{name}={value!r}: bind it to {kind}{least} or more{or_none}")


class DamagedError(InputError):
    """A file that is no longer what was written."""


class DivergedError(ArithmeticError):
    """Training whose loss is no longer a finite number."""


class Preempted(Exception):  # noqa: N818  no error
    """A run was told to stop and did so in order; the same command goes on with it."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"told to stop (SIGTERM) at step {step}; the same command goes on from the last "
            "checkpoint"
        )


def first_line(error: Exception, letters: int = 200) -> str:
    """Returns the first line of what an error says, for a message of our own; else what it is."""
    return (str(error).strip().splitlines() or [repr(error)])[0][:letters]


def line_of(error: Exception) -> str | None:
    """Returns the one line that is printed of an error of the machine, or of the training itself.

    These are a disk or a bucket that is full, closed or gone, and a loss that is not a number: the
    commands print the line and exit with code 1.

    Args:
      error: what was raised.

    Returns:
      The line; None for any other error, whose traceback is needed.
    """
    if isinstance(error, OSError | DivergedError):
        return str(error)
    kind = type(error)
    if kind.__module__.startswith("tensorflow.") and kind.__name__ not in _MISTAKES:
        return said_by_tensorflow(error)
    if isinstance(error, ValueError) and _OF_STORAGE.match(str(error)):
        return str(error).splitlines()[0]
    return None


def said_by_tensorflow(error: Exception) -> str:
    """Returns what an error of TensorFlow says, without where in its graph that was."""
    message = str(getattr(error, "message", error))
    message = re.sub(
        r"\n\t\s*(?![\s\[])", " ", message
    )  # a sentence goes on: the file's name stands here
    lines = [line for line in message.splitlines() if line.strip() and line.lstrip()[:2] != "[["]
    # Of a graph it begins with where each operation was made.
    return lines[-1 if message.startswith("Graph execution error") else 0].rpartition("}} ")[2]


def exit_code(program: str, run: Callable[[], int]) -> int:
    """Runs a command, and prints the line of an error that needs no traceback.

    Args:
      program: what the line begins with.
      run: the command; returns its exit code.

    Returns:
      The exit code: the command's own, 2 for input that is refused, 1 for a disk that takes no more
      or a loss or gradient that is not finite, 75 for a run that was told to stop (SIGTERM) and is
      resumed when it is repeated, 130 for Ctrl-C.
    """
    with _printing_anything(), interrupts.insistent() as interrupt:
        try:
            return run()
        except KeyboardInterrupt:
            return interrupts.EXIT_CODE
        except InputError as error:
            line, code = error.line, 2
        except Preempted as notice:
            line, code = str(notice), PREEMPTED_EXIT_CODE
        except Exception as error:
            if interrupt.is_set():  # it became this on its way here
                return interrupts.EXIT_CODE
            line, code = line_of(error), 1
            if line is None:
                raise
        print(f"{program}: {line}", file=sys.stderr)
        return code


@contextlib.contextmanager
def _printing_anything() -> Iterator[None]:
    """Lets standard output show what its encoding lacks as an escape, as standard error does.

    Titles, genres and file names may hold anything, and a terminal may know ASCII alone.
    """
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):  # a notebook's
        yield
        return
    errors = stdout.errors
    stdout.reconfigure(errors=_ESCAPED)
    try:
        yield
    finally:
        stdout.reconfigure(errors=errors)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Returns what stands for a letter, and where the next one is; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, end = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":  # a byte of a file's name, which Python could not read
        return bytes([ord(letter) - 0xDC00]), end
    return letter.encode("ascii", "backslashreplace"), end


codecs.register_error(_ESCAPED, _escape)
