"""A sweep that is run, printed, interrupted."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import types

import pytest
from tiny_sweep import write_data

from uem_t5x import cli
from uem_t5x.commands import sweep
from uem_t5x.runs.planned_runs import PlannedRun


def test_commands_survive_a_shell(read_sweep, tmp_path, capsys):
    read_sweep()
    arguments = ["--output", str(tmp_path / "it's $HOME; ls"), "--gin.DATA_DIR=my data"]
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), *arguments, "--print-commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    train, score = (shlex.split(part) for part in lines[0].split(" && "))
    folder = f"{tmp_path}/it's $HOME; ls/uem_tiny-HISTORY_LENGTH=5-seed=0"
    assert f"--gin.MODEL_DIR={json.dumps(folder)}" in train
    assert score[-1] == f"{folder}/metrics.json"


def test_commands_name_no_other_file_where_letters_cannot_be_written(
    read_sweep, tmp_path, monkeypatch, capsys
):
    read_sweep()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    arguments = ["--output", str(tmp_path / "\u00fcbung"), "--gin.DATA_DIR=my data"]
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), *arguments, "--print-commands"]) == 2
    assert "in ascii, which lacks '\u00fc'; set PYTHONIOENCODING=utf-8" in capsys.readouterr().err
    assert not sys.stdout.buffer.getvalue()


FAKE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("training", folder.name)
if "=5-" in folder.name and not (folder / "mended").exists():
    raise SystemExit("no luck")
(folder / "config.gin").write_text("TRAIN_STEPS = 16000\\n")
scores = {"methods": {"uem": {"f1": 0.25}}, "split": "test", "trained_steps": 16000}
(folder / "metrics.json").write_text(json.dumps(scores))
with (folder.parent / "order").open("a") as order:
    print(folder.name, file=order)
"""


@pytest.fixture
def fake_training(monkeypatch):
    def commands(planned):
        return [["-c", "pass"], ["-c", FAKE, planned.model_dir]]

    monkeypatch.setattr(PlannedRun, "commands", commands)


def test_a_failed_run_is_reported_and_the_others_finish(
    read_sweep, fake_training, tmp_path, capsys
):
    read_sweep()
    output = tmp_path / "out"
    data = write_data(tmp_path / "data")
    arguments = ["sweep", f"{tmp_path}/sweep.toml", "--output", f"{output}"]
    arguments += [f"--gin.DATA_DIR={data}"]

    assert cli.main(arguments) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "10 runs, 0 of them finished already" in printed
    assert "uem_tiny-HISTORY_LENGTH=5-seed=0: failed with exit code 1" in printed
    assert "2 failed; the same command runs them again" in printed
    assert printed.count("F1 0.250") == 8
    failed = output / "uem_tiny-HISTORY_LENGTH=5-seed=0"
    assert "no luck" in (failed / "sweep.log").read_text()

    for seed in (0, 1):
        (output / f"uem_tiny-HISTORY_LENGTH=5-seed={seed}" / "mended").touch()
    assert cli.main(arguments) == 0
    assert "10 runs, 8 of them finished already" in " ".join(capsys.readouterr().out.split())
    order = (output / "order").read_text().split()
    assert len(order) == len(set(order)) == 10

    assert cli.main([*arguments, "--gin.TRAIN_STEPS=7"]) == 2
    assert "holds a run with TRAIN_STEPS = 16000, and not 7" in capsys.readouterr().err


def test_a_sweep_says_how_far_it_is_and_how_long_it_takes_through_a_pipe(
    read_sweep, fake_training, tmp_path, capsys, monkeypatch
):
    clock = iter([0.0, 60.0, 60.0, 63.0, 63.0, 163.0, 163.0, 283.0, 283.0, 313.0, 313.0, 433.0])
    monkeypatch.setattr(sweep, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    read_sweep(
        "seeds = [0, 1]\n[[runs]]\nrecipes = ['uem_tiny', 'text_tiny']\n"
        "[[runs]]\nrecipes = ['uem_tiny']\nmacros.HISTORY_LENGTH = 5\n"
    )
    arguments = ["sweep", f"{tmp_path}/sweep.toml", "--output", f"{tmp_path / ('out' * 30)}"]
    arguments += [f"--gin.DATA_DIR={write_data(tmp_path / 'data')}"]
    assert cli.main(arguments) == 1
    # uem_tiny takes 60 s, then 120, and text_tiny 3. Runs of 5 items fail, which tells nothing.
    assert [line for line in capsys.readouterr().out.splitlines() if " of 6: " in line] == [
        "1 of 6: uem_tiny-seed=0",
        "2 of 6: text_tiny-seed=0, about 0:05:00 left",
        "3 of 6: uem_tiny-HISTORY_LENGTH=5-seed=0, about 0:03:03 left",
        "4 of 6: uem_tiny-seed=1, about 0:02:03 left",
        "5 of 6: text_tiny-seed=1, about 0:01:33 left",
        "6 of 6: uem_tiny-HISTORY_LENGTH=5-seed=1, about 0:01:30 left",
    ]


def test_a_folder_that_is_no_dataset_is_refused_before_the_first_run(read_sweep, tmp_path, capsys):
    read_sweep()
    arguments = ["sweep", f"{tmp_path}/sweep.toml", "--output", f"{tmp_path}/out"]
    assert cli.main([*arguments, "--gin.DATA_DIR=nowhere"]) == 2
    assert "nowhere: no such folder; make one with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_terminated_sweep_ends_its_run_and_lets_it_save(read_sweep, tmp_path):
    read_sweep()
    data = write_data(tmp_path / "data")
    saves = "import time; time.sleep(1); print('saved', flush=True); sys.exit(75)"
    run = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: exec({saves!r}))
print(os.getpid(), flush=True)
time.sleep(600)
"""
    script = f"""
from uem_t5x import cli
from uem_t5x.runs.planned_runs import PlannedRun
PlannedRun.commands = lambda planned: [["-c", {run!r}]]
cli.main(["sweep", {str(tmp_path / "sweep.toml")!r}, "--output", {str(tmp_path / "out")!r},
          "--gin.DATA_DIR={data}"])
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    log = tmp_path / "out" / "uem_tiny-HISTORY_LENGTH=5-seed=0" / "sweep.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int(log.read_text())

    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert log.read_text().splitlines() == [str(child), "saved"]
