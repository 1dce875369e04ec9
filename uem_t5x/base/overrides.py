"""What stands for something else for a while."""

import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Override(Generic[T]):
    """A value that counts inside a `with`: `with override(value):`.

    It is no context variable: SeqIO computes its metrics on a thread of its own, which must see the
    same value. So one thread of a program may enter it at a time.

    Attributes:
      value: what counts now; None outside.
    """

    def __init__(self) -> None:
        self.value: T | None = None

    @contextlib.contextmanager
    def __call__(self, value: T) -> Iterator[None]:
        """Makes `value` count until the block ends."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before
