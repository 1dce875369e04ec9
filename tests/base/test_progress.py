"""What training says: in a terminal of 80 columns, and in a log."""

import io
import json
import re
import shlex
import sys
from pathlib import Path

import jax
import pytest
import seqio
import tiny_recipe
from rich.console import Console

from uem_t5x import train
from uem_t5x.base import progress
from uem_t5x.commands import train as train_command

LOSS = "loss=12.345 accuracy=0.123 1234.5 steps/s"
SCORES = "eval_loss=1.234 f1=0.567 liked_f1=0.678 disliked_f1=0.456"
PHASES = ("restoring checkpoint_10000", "initializing 783,150,080 parameters")


def test_nothing_is_cut_in_80_columns(monkeypatch):
    shown = io.StringIO()
    console = Console(width=80, force_terminal=True, file=shown)
    # Of 9,999 steps the first takes an hour; the last one is left.
    clock = iter((0.0, 3600.0 * 9999))
    with progress.TrainingProgress(10001, console=console) as watched:
        for phase in (*PHASES, "compiling the training step", "training"):
            watched.doing(phase, 1)
        with monkeypatch.context() as patch:
            patch.setattr(progress.time, "monotonic", lambda: next(clock))
            watched.report(1, LOSS)
            watched.report(10000, LOSS)
        watched.doing("evaluating")
        watched.evaluated(10000, SCORES)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert f"step 10000/10001: {SCORES}" in [line.rstrip() for line in lines]  # stays there
    seen = "\n".join(lines)
    for whole in (*PHASES, "compiling the training step", LOSS, "10000/10001", "1:00:00 left"):
        assert whole in seen
    assert "…" not in seen and "-:--:--" not in seen


@pytest.fixture(scope="module")
def trained(dataset_folder, tmp_path_factory):
    """Two steps, with one of SeqIO's loggers alone."""
    places = tiny_recipe.places(tmp_path_factory.mktemp("a run") / "model", dataset_folder.path)
    json_alone = "seqio.Evaluator.logger_cls = [@seqio.JSONLogger]"
    bindings = [*tiny_recipe.BINDINGS, *places, "TRAIN_STEPS = 2", json_alone]

    def run(*others):
        return train.run_recipe([tiny_recipe.RECIPE], [*bindings, *others])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", io.StringIO())
        _, state = run()
        said = sys.stderr.getvalue()
    model_dir = places[0].partition(" = ")[2].strip("'")
    return run, model_dir, state, said


def test_a_log_says_what_is_done(trained):
    _, model_dir, state, said = trained
    number = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    lines = said.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line for line in lines if line not in steps] == [
        "reading the training data",
        "laying out the model",
        f"initializing {number:,} parameters",
        "reading the validation data",
        "compiling the training step",
        "training",
        "evaluating",
        "saving",
        f"checkpoint_2 in {model_dir}; next: uem-t5x evaluate --model-dir {shlex.quote(model_dir)}",
    ]
    assert [re.match(r"step 2/2: (eval_)?loss=", line) is not None for line in steps] == [True] * 2


def test_a_run_that_is_done_says_so(trained, capsys):
    run, model_dir, *_ = trained
    run()
    said = capsys.readouterr().err
    assert said.endswith(
        f"nothing left to do: {model_dir} has taken 2 of 2 steps; "
        f"next: uem-t5x evaluate --model-dir {shlex.quote(model_dir)}\n"
    )
    assert "compiling" not in said and "restoring checkpoint_2\n" in said


def test_a_logger_needs_no_other_beside_it(trained):
    _, model_dir, *_ = trained
    (written,) = Path(model_dir).glob("inference_eval/*-metrics.jsonl")
    assert json.loads(written.read_text())["step"] == 2


def test_what_a_logger_cannot_write_is_told_as_it_is(trained, monkeypatch):
    run, *_ = trained

    def is_full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(seqio.JSONLogger, "__call__", is_full)
    with pytest.raises(OSError, match=r"^no space left$"):
        run("TRAIN_STEPS = 3")


@pytest.mark.parametrize(
    "flags, is_first",
    [
        ([], True),
        (["--multiprocess"], False),  # who knows
        (["--coordinator_address=localhost:1", "--process_index=0"], True),
        (["--coordinator_address=localhost:1", "--process_index=1"], False),
    ],
)
def test_who_says_that_it_loads(flags, is_first):
    *_, arguments = train_command.parse(["--gin_file=gin/uem_tiny.gin", *flags])
    assert train_command.told_of_processes(arguments).is_first is is_first
