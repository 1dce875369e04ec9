"""The exceptions that the commands print without a traceback, and how they end."""

import numbers
import re
import sys
from collections.abc import Callable
from typing import Any

PREEMPTED_EXIT_CODE = 75  # BSD's EX_TEMPFAIL, "try again later"

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
    message = re.sub(r"\n\t\s*", " ", message)  # a sentence goes on: the file's name stands here
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
    try:
        return run()
    except InputError as error:
        line, code = error.line, 2
    except Preempted as notice:
        line, code = str(notice), PREEMPTED_EXIT_CODE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        line, code = line_of(error), 1
        if line is None:
            raise
    print(f"{program}: {line}", file=sys.stderr)
    return code
