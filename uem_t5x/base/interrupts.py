"""Ctrl-C, for which Python raises an exception wherever it is, which is not always heard."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXIT_CODE = 128 + signal.SIGINT
_SECONDS_UNTIL_AGAIN = 0.05
_IMPORTER = "<frozen importlib._bootstrap>"
_unfinished: set[Path] = set()


def _end(*_: Any) -> None:
    for path in _unfinished:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    os._exit(EXIT_CODE)


@contextlib.contextmanager
def removing(unfinished: Path) -> Iterator[None]:
    """Removes a file or folder too if Ctrl-C ends the process at once within the block."""
    _unfinished.add(unfinished)
    try:
        yield
    finally:
        _unfinished.discard(unfinished)


@contextlib.contextmanager
def insistent() -> Iterator[threading.Event]:
    """Lets Ctrl-C raise a KeyboardInterrupt, and another one where that came to nothing.

    Python drops what is raised in a callback of its garbage collector, and JAX has one. Within an
    import the process ends at once instead: an extension module that is interrupted there makes an
    ImportError of it, which others catch, or aborts. Who was told to ignore Ctrl-C still does.

    Yields:
      What tells whether there was a Ctrl-C.
    """
    received = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield received
        return
    outer_imports = _imports(sys._getframe())

    def interrupt(_: int, frame: types.FrameType | None) -> None:
        received.set()
        if _imports(frame) > outer_imports:
            _end()
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        # To the main thread itself, which may be waiting for something.
        again = threading.Timer(
            _SECONDS_UNTIL_AGAIN,
            signal.pthread_kill,
            [threading.main_thread().ident, signal.SIGINT],
        )
        again.daemon = True
        again.start()

    handler, hook = signal.signal(signal.SIGINT, interrupt), sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, handler)


def _imports(frame: types.FrameType | None) -> int:
    """Counts the calls to Python's importer that lead to a frame."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == _IMPORTER
        frame = frame.f_back
    return count
