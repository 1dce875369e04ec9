"""What Ctrl-C does: the exit code is 130, nothing is printed, nothing half-written stays."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from uem_t5x.base import errors

# What stands in for JAX: the first of the heavy imports.
IN_AN_IMPORT = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(20)"
# As an extension module does it that is interrupted while it starts.
AS_AN_IMPORT_ERROR = f"""
try:
    {IN_AN_IMPORT}
except KeyboardInterrupt:
    raise ImportError("initialization failed")
"""
# As in JAX's callback of the garbage collector, which drops it.
IN_A_CALLBACK = f"""
import gc, time
def callback(*_):
    gc.callbacks.clear()
    {IN_AN_IMPORT}
gc.callbacks.append(callback)
gc.collect()
time.sleep(20)
"""
# Of a bucket, of which nothing is known before the imports.
PLACES = ["--gin.MODEL_DIR=gs://b/m", "--gin.DATA_DIR=gs://b/d"]
TRAIN = ["-m", "uem_t5x.train", "--gin_file=gin/uem_tiny.gin", *PLACES]
EVALUATE = ["-m", "uem_t5x.cli", "evaluate", "--model-dir", "gs://b/m"]
WRITE = [
    "-c",
    "import sys; from pathlib import Path; from uem_t5x.base import atomic, errors\n"
    "def write():\n"
    "    folder = atomic.writing_folder(Path('folder'), 'kind', bool, False)\n"
    "    with folder as partial, atomic.writing_file('file'):\n"
    "        (partial / 'half').touch()\n"
    "        import jax\n"
    "sys.exit(errors.exit_code('test', write))",
]


@pytest.mark.parametrize("program", [TRAIN, EVALUATE, WRITE], ids=["train", "evaluate", "write"])
@pytest.mark.parametrize(
    "how", [IN_AN_IMPORT, AS_AN_IMPORT_ERROR, IN_A_CALLBACK], ids=["plain", "as error", "dropped"]
)
def test_ctrl_c_within_an_import(program, how, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/jax.py").write_text(how)
    here = tmp_path / "here"
    here.mkdir()
    path = os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *program],
        cwd=here,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stderr in ("", "loading JAX and TensorFlow\n")
    assert not list(here.iterdir())


def interrupted() -> int:
    signal.raise_signal(signal.SIGINT)
    return 0


def interrupted_in_a_callback() -> int:
    def callback(*_):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(20)
    return 0


def interrupted_and_wrapped() -> int:
    try:
        return interrupted()
    except KeyboardInterrupt as error:
        raise RuntimeError("of a library") from error


@pytest.mark.parametrize("run", [interrupted, interrupted_in_a_callback, interrupted_and_wrapped])
def test_ctrl_c_at_work(run, capsys):
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    start = time.monotonic()
    assert errors.exit_code("test", run) == 130
    assert time.monotonic() - start < 10
    assert capsys.readouterr() == ("", "")
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_who_was_told_to_ignore_it_does(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert errors.exit_code("test", interrupted) == 0
    finally:
        signal.signal(signal.SIGINT, before)
