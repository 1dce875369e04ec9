"""The exceptions that the commands print without a traceback."""


class InputError(ValueError):
    """Refused input: the message is one line that names the file, the value and the mend.

    The commands print it without a traceback and exit with code 2.
    """

    @property
    def line(self) -> str:
        """The message; gin appends lines about its own call stack, which are left out."""
        return str(self).partition("\n")[0]


class DamagedError(InputError):
    """A file that is no longer what was written."""


class DivergedError(ArithmeticError):
    """Training whose loss is no longer a finite number."""


def line_of(error: Exception) -> str | None:
    """Returns what is told, in one line, of an error that no mend of ours would help against.

    A loss that is no number, or a disk that is full or gone: the commands exit with code 1. None of
    any other error, which has a traceback.
    """
    if isinstance(error, OSError | DivergedError):
        return str(error)
    if type(error).__module__.startswith("tensorflow."):  # of its own file systems
        return str(getattr(error, "message", error)).splitlines()[0].rpartition("}} ")[2]
    return None
