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
