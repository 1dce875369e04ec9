import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from uem_t5x import cli, gin_utils, sweep
from uem_t5x.errors import InputError

HISTORIES = """
seeds = [0, 1]

[[runs]]
recipes = ["uem_tiny"]
macros.HISTORY_LENGTH = [5, 50]

[[runs]]
recipes = ["uem_tiny", "text_tiny"]
macros.HISTORY_LENGTH = 50

[[runs]]
recipes = ["uem_tiny"]
macros = {UEM_LAYERS = [1, 2], PROMPT_LENGTH = 4}

[recipes.text_tiny]
HISTORY_ORDER = "most_recent_last"
"""


@pytest.fixture
def read(tmp_path):
    def read(text=HISTORIES, bindings=("DATA_DIR = 'my data'",)):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return sweep.read_sweep(str(file), f"{tmp_path}/out put", list(bindings))

    return read


def test_every_combination_once_and_the_first_seed_first(read):
    names = [planned.name for planned in read()]

    # 50 items are the recipe's own, so that the first two entries share a run.
    first = [
        "uem_tiny-HISTORY_LENGTH=5-seed=0",
        "uem_tiny-seed=0",
        "text_tiny-HISTORY_LENGTH=50-seed=0",
        "uem_tiny-PROMPT_LENGTH=4-seed=0",
        "uem_tiny-PROMPT_LENGTH=4-UEM_LAYERS=2-seed=0",
    ]
    assert names == [*first, *(name.replace("seed=0", "seed=1") for name in first)]


def test_a_required_macro_may_be_what_is_swept(read):
    text = '[[runs]]\nrecipes = ["uem_tiny"]\nmacros.DATA_DIR = ["runs/a", "runs/b"]'

    names = [planned.name for planned in read(text, bindings=())]

    assert names == ["uem_tiny-DATA_DIR=runs_a-seed=0", "uem_tiny-DATA_DIR=runs_b-seed=0"]


def test_recipes_and_parameters_of_ones_own(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'gin/uem_tiny.gin'\nUEM_LAYERS = 2\n")
    name = "network.T5Config.num_heads"
    text = f'[[runs]]\nrecipes = ["mine.gin"]\nmacros."{name}" = [2, 4]'
    runs = read(text, bindings=["DATA_DIR = 'd'", "user_embedding.UserEmbeddingConfig.mlp_dim = 8"])
    assert [planned.name for planned in runs] == [f"mine-{name}={n}-seed=0" for n in (2, 4)]
    train, _ = runs[0].commands()
    assert "--gin_file=mine.gin" in train
    assert f"--gin.{name}=2" in train
    assert "--gin.user_embedding.UserEmbeddingConfig.mlp_dim=8" in train
    assert runs[0].macros["UEM_LAYERS"] == 2


def test_runs_that_would_share_a_folder_are_refused(read):
    text = '[[runs]]\nrecipes = ["uem_tiny"]\nmacros.DATA_DIR = ["runs/a", "runs_a"]'
    with pytest.raises(
        InputError, match=r"two runs of .* would both be uem_tiny-DATA_DIR=runs_a-s"
    ):
        read(text, bindings=())


def test_a_run_binds_what_is_asked_for(read):
    runs = {planned.name: planned for planned in read()}

    text = runs["text_tiny-HISTORY_LENGTH=50-seed=1"]
    assert {name: text.macros[name] for name in ("HISTORY_ORDER", "RANDOM_SEED", "DATA_DIR")} == {
        "HISTORY_ORDER": "most_recent_last",
        "RANDOM_SEED": 1,
        "DATA_DIR": "my data",
    }
    train, score = text.commands()
    assert train[:3] == ["-m", "uem_t5x.train", "--gin_file=gin/text_tiny.gin"]
    files, bindings, rest = gin_utils.split_arguments(train[2:])
    assert (files, rest) == (["gin/text_tiny.gin"], [])
    bound = dict(binding.split(" = ", 1) for binding in bindings)
    assert bound["MODEL_DIR"] == json.dumps(text.model_dir)
    assert bound["DATA_DIR"] == '"my data"'
    assert bound["HISTORY_LENGTH"] == "50"
    assert "TRAIN_STEPS" not in bound
    assert score[-1] == f"{text.model_dir}/metrics.json"


def test_commands_survive_a_shell(read, tmp_path, capsys):
    read()
    arguments = ["--output", str(tmp_path / "it's $HOME; ls"), "--gin.DATA_DIR=my data"]
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), *arguments, "--print-commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    train, score = (shlex.split(part) for part in lines[0].split(" && "))
    folder = f"{tmp_path}/it's $HOME; ls/uem_tiny-HISTORY_LENGTH=5-seed=0"
    assert f"--gin.MODEL_DIR={json.dumps(folder)}" in train
    assert score[-1] == f"{folder}/metrics.json"


def test_commands_name_no_other_file_where_letters_cannot_be_written(
    read, tmp_path, monkeypatch, capsys
):
    read()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    arguments = ["--output", str(tmp_path / "\u00fcbung"), "--gin.DATA_DIR=my data"]
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), *arguments, "--print-commands"]) == 2
    assert "in ascii, which lacks '\u00fc'; set PYTHONIOENCODING=utf-8" in capsys.readouterr().err
    assert not sys.stdout.buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "bindings", "message"),
    [
        ("seeds = [", (), "not a TOML file"),
        ("seeds = [0]", (), r"needs \[\[runs\]\]"),
        ("runs = [1]", (), r"needs \[\[runs\]\]"),
        ("runs = ['recipes']", (), r"needs \[\[runs\]\]"),
        ("[[runs]]\nrecipes = 3", (), r"needs \[\[runs\]\]"),
        ("[[runs]]\nrecipes = ['uem_tiny']\nmacros = 3", (), r"needs \[\[runs\]\]"),
        ("recipes.uem_tiny = 3\n" + HISTORIES, (), r"recipes: give tables, \[recipes.NAME\]"),
        ("seeds = " + "[" * 5000, (), "not a TOML file"),
        ("[[runs]]\nrecipes = []\nmacro.A = 1", (), "unknown keys macro"),
        ("[[runs]]\nrecipes = ['uem_huge']", (), "gin/uem_huge.gin: no such recipe"),
        (HISTORIES, (), "gin/uem_tiny.gin needs DATA_DIR; add --gin.DATA_DIR=VALUE"),
        (HISTORIES, ("DATA_DIR = 'd'", "TRAIN_STEP = 3"), "has no macro TRAIN_STEP; it has"),
        ("[[runs]]\nrecipes = []", (), r"recipes = \[\]: name one"),
        (HISTORIES.replace("[0, 1]", "[]"), (), r"seeds = \[\]: give a list of numbers"),
        (HISTORIES.replace("[0, 1]", "['a']"), (), r"seeds = \['a'\]: give a list of numbers"),
        ("runs = []", (), r"needs \[\[runs\]\]"),
        (HISTORIES.replace("[5, 50]", "[]"), (), r"HISTORY_LENGTH = \[\]: give it a value"),
        (
            HISTORIES.replace("HISTORY_LENGTH", "RANDOM_SEED"),
            (),
            "RANDOM_SEED is the sweep's",
        ),
        (
            HISTORIES.replace("HISTORY_LENGTH", "MODEL_DIR"),
            (),
            "MODEL_DIR is the sweep's",
        ),
        (HISTORIES, ("RANDOM_SEED = 3",), "--gin: RANDOM_SEED is the sweep's own"),
        (HISTORIES, ("HISTORY_LENGTH = 7",), "--gin.HISTORY_LENGTH: .* has runs that set it"),
        (f"{HISTORIES}\n[recipes.uem_tin]\nA = 1", (), r"gin/uem_tin\.gin: no such recipe"),
        (
            HISTORIES.replace("PROMPT_LENGTH", "HISTORY_LENGHT"),
            ("DATA_DIR = 'd'",),
            "gin/uem_tiny.gin has no macro HISTORY_LENGHT; it has HISTORY_LENGTH$",
        ),
        (
            f"{HISTORIES}LEARNIN_RATE = 0.0",
            ("DATA_DIR = 'd'",),
            "gin/text_tiny.gin has no macro LEARNIN_RATE; it has LEARNING_RATE$",
        ),
        (
            f"{HISTORIES}\n[recipes.uem_flan_t5_base]\nTRAIN_STEPS = 1",
            ("DATA_DIR = 'd'",),
            r"\[recipes.uem_flan_t5_base\]: no run is of this recipe",
        ),
        (
            f'{HISTORIES}\n[recipes."gin/text_tiny.gin"]\nTRAIN_STEPS = 1',
            ("DATA_DIR = 'd'",),
            "gin/text_tiny.gin has two tables of macros",
        ),
    ],
)
def test_refused(read, text, bindings, message):
    with pytest.raises(InputError, match=message):
        read(text, bindings)


def test_a_misspelt_macro_of_a_recipe_is_refused_before_the_first_run(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'gin/uem_tiny.gin'\nHISTORY_LENGHT = 5\n")
    with pytest.raises(InputError, match=r"mine\.gin, line 2: nothing refers to HISTORY_LENGHT"):
        read('[[runs]]\nrecipes = ["mine.gin"]')


@pytest.mark.parametrize("name", ["text_tiny", "gin/text_tiny.gin"])
def test_macros_of_a_recipe_whichever_way_it_is_named(name, read):
    text = HISTORIES.replace('"text_tiny"', f'"{name}"')
    runs = {planned.name: planned for planned in read(text)}
    assert runs["text_tiny-HISTORY_LENGTH=50-seed=0"].macros["HISTORY_ORDER"] == "most_recent_last"


def test_a_byte_order_mark(read):
    assert [run.name for run in read(f"\ufeff{HISTORIES}")] == [run.name for run in read()]


def test_a_missing_file_names_the_folder_of_sweeps():
    with pytest.raises(InputError, match="no such sweep; see the folder gin/sweeps"):
        sweep.read_sweep("nowhere.toml", "out")


FAKE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("training", folder.name)
if "=5-" in folder.name and not (folder / "mended").exists():
    raise SystemExit("no luck")
(folder / "config.gin").write_text("TRAIN_STEPS = 3000\\n")
(folder / "metrics.json").write_text(json.dumps({"methods": {"uem": {"f1": 0.25}}}))
with (folder.parent / "order").open("a") as order:
    print(folder.name, file=order)
"""


@pytest.fixture
def fake_training(monkeypatch):
    def commands(planned):
        return [["-c", "pass"], ["-c", FAKE, planned.model_dir]]

    monkeypatch.setattr(sweep.PlannedRun, "commands", commands)


def test_a_failed_run_is_reported_and_the_others_finish(read, fake_training, tmp_path, capsys):
    read()
    output = tmp_path / "out"
    arguments = ["sweep", str(tmp_path / "sweep.toml"), "--output", str(output), "--gin.DATA_DIR=d"]

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
    assert "holds a run with TRAIN_STEPS = 3000, and not 7" in capsys.readouterr().err


def test_a_terminated_sweep_ends_its_run_and_lets_it_save(read, tmp_path):
    read()
    saves = "import time; time.sleep(1); print('saved', flush=True); sys.exit(75)"
    run = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: exec({saves!r}))
print(os.getpid(), flush=True)
time.sleep(600)
"""
    script = f"""
from uem_t5x import cli, sweep
sweep.PlannedRun.commands = lambda planned: [["-c", {run!r}]]
cli.main(["sweep", {str(tmp_path / "sweep.toml")!r}, "--output", {str(tmp_path / "out")!r},
          "--gin.DATA_DIR=d"])
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


def test_every_sweep_of_the_project_is_sound():
    for file in ("paper.toml", "tiny.toml"):
        assert sweep.read_sweep(f"gin/sweeps/{file}", "out", ["DATA_DIR = 'd'"])


def test_seeds_that_are_no_list(read):
    with pytest.raises(InputError, match=r"seeds = 3: give a list"):
        read("seeds = 3\n[[runs]]\nrecipes = ['uem_tiny']\n")
