"""Runs T5X's own scripts, and its library; without T5X everything here is skipped."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from several_processes import free_address

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("t5x") is None:
        skip = pytest.mark.skip(reason="needs T5X: `make test-t5x T5X_DIR=...` (docs/t5x.md)")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def start_script():
    """Returns a function that starts `t5x/<name>.py` with gin files and macros."""
    import t5x

    scripts = Path(next(iter(t5x.__path__)))

    def start(name, files, devices=1, environment=None, flags=(), **macros):
        quoted = {
            key: f'"{value}"' if isinstance(value, str | os.PathLike) else value
            for key, value in macros.items()
        }
        command = [
            sys.executable,
            str(scripts / f"{name}.py"),
            *(f"--gin_file={file}" for file in files),
            *(f"--gin.{key}={value}" for key, value in quoted.items()),
            *flags,
        ]
        xla_flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": xla_flags, **(environment or {})}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def run_script(start_script):
    """Returns a function that runs `t5x/<name>.py` with gin files and macros."""

    def run(name, files, *arguments, **options):
        return finish(start_script(name, files, *arguments, **options))[0]

    return run


@pytest.fixture(scope="session")
def run_on_two_hosts(start_script):
    """Returns a function that does so in two processes, which make up a run as two hosts do."""

    def run(name, files, **options):
        address = f"--coordinator_address={free_address()}"
        join = ["--multiprocess_gpu", address, "--process_count=2"]
        hosts = (
            start_script(name, files, flags=[*join, f"--process_index={index}"], **options)
            for index in range(2)
        )
        return finish(*hosts)

    return run


def finish(*processes):
    """Waits for processes that must end well; returns what they said."""
    told = [process.communicate(timeout=900)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert not any(codes), told[codes.index(max(codes, key=abs))][-4000:]
    return told
