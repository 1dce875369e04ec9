"""What a machine says before it is taken away: SIGTERM, and some seconds to leave in order."""

import signal
import threading
import types
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jax.experimental import multihost_utils

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class _Interrupted(BaseException):
    """Leaves whatever can be left at once; no `except Exception` on the way stops it."""


class PreemptionNotice:
    """Notes SIGTERM while it is entered.

    One process of several that is told to stop tells the others, and they agree on a step to stop
    after, for which each asks after every step. There JAX listens to the signal.
    """

    def __init__(self) -> None:
        self._received = False
        self._may_interrupt = False
        self._is_alone = jax.process_count() == 1
        self._asked = 0
        # Only a program's main thread may listen.
        self._listens = self._is_alone and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "PreemptionNotice":
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, signum: int, frame: types.FrameType | None) -> None:
        self._received = True
        if self._may_interrupt:
            # A second signal, on the way out, must not interrupt what comes after, such as saving.
            self._may_interrupt = False
            raise _Interrupted

    @property
    def was_received(self) -> bool:
        """Whether this process, if it is the only one, was told to stop."""
        return self._received

    def is_due(self) -> bool:
        """Says whether to stop now; processes that ask equally often are told the same."""
        if self._is_alone:
            return self._received
        # A number of its own, and not the step's: told to stop before it is first asked, which is
        # long before on a pod that compiles, JAX has all stop at the number 1.
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)

    def interrupts(
        self,
        work: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result | None:
        """Does what may be given up half-done, such as measuring; None if it was.

        A process of several finishes it: the others wait for its part.
        """
        try:
            try:
                self._may_interrupt = self._listens
                return None if self._received else work(*args, **kwargs)
            finally:
                self._may_interrupt = False
        except _Interrupted:
            return None
