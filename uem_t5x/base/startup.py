"""Quiet first seconds: imports and devices that log in C++, before any level of theirs counts.

TensorFlow tells every machine without a GPU that it is one, and twice; the TPU's library tells one
without a TPU. `TF_CPP_MIN_LOG_LEVEL` below 3 lets all of it be heard.
"""

import contextlib
import hashlib
import importlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from uem_t5x.base import kept

_WORTH_KEEPING_S = 0.3  # of compiling
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


def keep_programs() -> None:
    """Has JAX keep what it compiles for the next start, unless it is told where by itself.

    Programs of a CPU are of its instructions, so each kind of machine has a folder of its own.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        place = kept.folder() / "programs" / _machine()
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_S)


def _machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()}-{hashlib.sha256(line.encode()).hexdigest()[:16]}"
    return f"{platform.machine()}-{platform.node()}"


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
