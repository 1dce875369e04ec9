"""What stands for something else for a while."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Override(Generic[T]):
    """A value that counts inside a `with`, for the thread that entered it: `with override(value):`.

    Threads that are started inside see nothing of it. So what SeqIO computes on a thread of its
    own, its evaluator's metrics, goes by what gin binds.
    """

    def __init__(self, name: str) -> None:
        """Takes a name for messages of `contextvars`."""
        self._value: contextvars.ContextVar[T | None] = contextvars.ContextVar(name, default=None)

    @property
    def value(self) -> T | None:
        """What counts now; None outside."""
        return self._value.get()

    @contextlib.contextmanager
    def __call__(self, value: T) -> Iterator[None]:
        """Makes `value` count until the block ends."""
        token = self._value.set(value)
        try:
            yield
        finally:
            self._value.reset(token)
