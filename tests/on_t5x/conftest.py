"""Runs T5X's own scripts, and its library; without T5X everything here is skipped."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("t5x") is None:
        skip = pytest.mark.skip(reason="needs T5X: `make test-t5x T5X_DIR=...` (docs/t5x.md)")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def run_script():
    """Returns a function that runs `t5x/<name>.py` with gin files and macros."""
    import t5x

    scripts = Path(next(iter(t5x.__path__)))

    def run(name, files, devices=1, environment=None, **macros):
        quoted = {
            key: f'"{value}"' if isinstance(value, str | os.PathLike) else value
            for key, value in macros.items()
        }
        command = [
            sys.executable,
            str(scripts / f"{name}.py"),
            *(f"--gin_file={file}" for file in files),
            *(f"--gin.{key}={value}" for key, value in quoted.items()),
        ]
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, **(environment or {})}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stderr

    return run
