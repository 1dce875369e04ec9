"""Quiet first seconds: imports and devices that log in C++, before any level of theirs counts.

TensorFlow tells every machine without a GPU that it is one, and twice; the TPU's library tells one
without a TPU. `TF_CPP_MIN_LOG_LEVEL` below 3 lets all of it be heard.
"""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

LOG_LEVEL, _LEVEL = "TF_CPP_MIN_LOG_LEVEL", "3"
# As Google's C++ libraries log: `I0000 00:00:1795.63 8154 port.cc:153] oneDNN ...`.
_LOGGED = re.compile(
    rb"[IWE]\d{4} [\d:.]+\s+\d+ \S+:\d+\] |WARNING: (All log messages|Logging) before |"
    rb"To enable the following instructions: |"
    rb"Failed to find host bounds|=== Source Location Trace|learning/"
)


def load(*modules: str) -> None:
    """Imports modules by their names."""
    with _quiet():
        for module in modules:
            importlib.import_module(module)


def find_devices() -> None:
    """Has JAX look for its devices, which it does once; several processes are joined before."""
    with _quiet():
        importlib.import_module("jax").devices()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what is logged in C++; other lines are written when the block ends."""
    if os.environ.setdefault(LOG_LEVEL, _LEVEL) != _LEVEL:
        yield
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            for line in kept:
                if not _LOGGED.match(line):
                    os.write(2, line)
