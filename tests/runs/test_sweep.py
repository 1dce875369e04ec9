import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.commands import sweep
from uem_t5x.data import dataset_folder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split
from uem_t5x.runs import recipes
from uem_t5x.runs.planned_runs import PlannedRun
from uem_t5x.runs.sweep_files import read_sweep

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
        return read_sweep(str(file), f"{tmp_path}/out put", list(bindings))

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
    files, bindings, rest = recipes.split_arguments(train[2:])
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
        read_sweep("nowhere.toml", "out")


FAKE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("training", folder.name)
if "=5-" in folder.name and not (folder / "mended").exists():
    raise SystemExit("no luck")
(folder / "config.gin").write_text("TRAIN_STEPS = 3000\\n")
scores = {"methods": {"uem": {"f1": 0.25}}, "split": "test", "trained_steps": 3000}
(folder / "metrics.json").write_text(json.dumps(scores))
with (folder.parent / "order").open("a") as order:
    print(folder.name, file=order)
"""


@pytest.fixture
def fake_training(monkeypatch):
    def commands(planned):
        return [["-c", "pass"], ["-c", FAKE, planned.model_dir]]

    monkeypatch.setattr(PlannedRun, "commands", commands)


def test_a_failed_run_is_reported_and_the_others_finish(read, fake_training, tmp_path, capsys):
    read()
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
    assert "holds a run with TRAIN_STEPS = 3000, and not 7" in capsys.readouterr().err


def test_a_sweep_says_how_far_it_is_and_how_long_it_takes_through_a_pipe(
    read, fake_training, tmp_path, capsys, monkeypatch
):
    clock = iter([0.0, 60.0, 60.0, 63.0, 63.0, 163.0, 163.0, 283.0, 283.0, 313.0, 313.0, 433.0])
    monkeypatch.setattr(sweep, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    read(
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


def test_a_folder_that_is_no_dataset_is_refused_before_the_first_run(read, tmp_path, capsys):
    read()
    arguments = ["sweep", f"{tmp_path}/sweep.toml", "--output", f"{tmp_path}/out"]
    assert cli.main([*arguments, "--gin.DATA_DIR=nowhere"]) == 2
    assert "nowhere: no such folder; make one with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def write_data(folder, train="users 1", ratings="ratings 1", vocabulary="pieces 1"):
    """Writes what a dataset folder, or a run's catalogue, is compared by."""
    for file, text in ((dataset_folder.MOVIES, "movies"), (dataset_folder.VOCABULARY, vocabulary)):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(text)
    splits = {"train": train, "validation": "users 2", "test": "users 3"}
    manifest = Manifest(
        genres=("Drama", "War"),
        channels=(Channel("description", 96, "item"),),
        encoder=EncoderRecord("hashing", 96),
        splits={name: Split(10, 1, users) for name, users in splits.items()},
        has_vocabulary=True,
        counts={},
        options={},
        inputs={"ratings": ratings},
    )
    dataset_folder.write_catalogue_manifest(folder, manifest)
    return folder


class TestFoldersThatAreThere:
    """What a folder holds decides whether its run is finished, to be gone on with, or refused."""

    NUM_HEADS = "user_embedding.UserEmbeddingConfig.num_heads"  # bound by the recipe
    KERNEL = "network.T5Config.long_attention"  # and one that is not

    @pytest.fixture
    def plan(self, read, tmp_path):
        def plan(*bindings, data=None):
            data = data or tmp_path / "data"
            (run,) = read(
                "[[runs]]\nrecipes = ['uem_tiny']", [f"DATA_DIR = {str(data)!r}", *bindings]
            )
            return run

        write_data(tmp_path / "data")
        return plan

    @pytest.fixture
    def record(self, plan):
        """Writes the folder of a run, as `train` and `evaluate` leave it."""

        def record(*bindings, checkpoints=(3000,), data=(), without=(), **scores):
            run = plan(*bindings)
            folder = Path(run.model_dir)
            write_data(folder / "catalogue", **dict(data))
            bound = "".join(f"{name} = {literal}\n" for name, literal in run.bound.items())
            (folder / "config.gin").write_text(f"include '{run.recipe}'\n{bound}")
            for step in checkpoints:
                (folder / f"checkpoint_{step}").mkdir()
            scores = {
                "methods": {"uem": {"f1": 0.25}},
                "split": "test",
                "split_sha256": "users 3",
                "step": 2000,
                "trained_steps": 3000,
                "is_best": True,
                **scores,
            }
            scores = {name: value for name, value in scores.items() if name not in without}
            (folder / "metrics.json").write_text(json.dumps(scores))
            return folder

        return record

    def test_a_run_that_is_scored_at_its_end_is_finished(self, plan, record):
        assert not plan().is_finished()
        record()
        assert plan().is_finished()
        assert plan("EVAL_PERIOD = 250").is_finished()

    @pytest.mark.parametrize(
        ("scored", "is_finished"),
        [
            ({"trained_steps": 1500, "step": 1500, "checkpoints": (1500,)}, False),
            ({"trained_steps": 1500, "step": 1500}, False),  # trained to its end after that
            # Of an older version: it is scored again, where that takes no training.
            ({"without": ("trained_steps", "is_best", "split_sha256")}, False),
            ({"without": ("trained_steps", "is_best"), "checkpoints": ()}, True),
        ],
    )
    def test_scores_of_an_interrupted_run(self, scored, is_finished, plan, record):
        record(**scored)
        assert plan().is_finished() == is_finished

    def test_the_last_step_need_not_be_a_macro(self, plan, record):
        steps = "train_script.train.total_steps = 20"
        record(steps, trained_steps=20)
        assert plan(steps).is_finished()
        record_file = Path(plan().model_dir) / "metrics.json"
        record_file.write_text(record_file.read_text().replace(": 20,", ": 19,"))
        assert not plan(steps).is_finished()

    @pytest.mark.parametrize(
        ("recorded", "asked", "says"),
        [
            ((f"{NUM_HEADS} = 8",), (), f"{NUM_HEADS} = 8, and not 4"),
            ((), ("UserEmbeddingConfig.num_heads = 8",), f"{NUM_HEADS} = 4, and not 8"),
            ((f"{KERNEL} = 7",), (), f"{KERNEL} = 7, and not its default"),
            ((), (f"{KERNEL} = 7",), f"{KERNEL} = its default, and not 7"),
            (("UEM_LAYERS = 2",), (), "UEM_LAYERS = 2, and not 1"),
        ],
    )
    def test_a_run_of_other_settings(self, recorded, asked, says, plan, record):
        folder = record(*recorded)
        with pytest.raises(InputError) as refused:
            plan(*asked).is_finished()
        message = f"{folder}: holds a run with {says}; give another --output, or delete it"
        assert str(refused.value) == message
        (folder / "metrics.json").unlink()  # nor is it gone on with
        with pytest.raises(InputError):
            plan(*asked).is_finished()

    def test_a_parameter_that_says_the_same_in_other_words(self, plan, record):
        record("user_embedding.UserEmbeddingConfig.num_layers = 1", f"{self.NUM_HEADS} = 4")
        assert plan().is_finished()

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ({"ratings": "ratings 9"}, "(not the data of its training)"),
            ({"train": "users 9"}, "(its users or labels (train) are not those of its training)"),
            ({"vocabulary": "pieces 9"}, "another vocabulary than"),
        ],
    )
    def test_a_run_of_other_data(self, data, says, plan, record):
        record(data=data)
        with pytest.raises(InputError) as refused:
            plan().is_finished()
        assert says in str(refused.value)

    def test_data_that_are_not_here_go_by_their_name(self, plan, record, tmp_path):
        record()
        (tmp_path / "data").rename(tmp_path / "moved")
        assert plan().is_finished()
        assert plan(data=tmp_path / "moved").is_finished()
        with pytest.raises(InputError, match=r"holds a run with DATA_DIR = .*data', and not 'no'"):
            plan(data="no").is_finished()

    @pytest.mark.parametrize(
        ("scores", "says"),
        [
            ({"split": "validation"}, "scores with split = 'validation', and not 'test'"),
            ({"split_sha256": "u"}, "scores with split_sha256 = 'u', and not 'users 3'"),
            ({"is_best": False}, "scores with is_best = False, and not True"),
            ({"without": ["split"]}, "not the scores of `uem-t5x evaluate`"),
        ],
    )
    def test_scores_that_the_sweep_would_not_write(self, scores, says, plan, record):
        file = record(**scores) / "metrics.json"
        with pytest.raises(InputError) as refused:
            plan().is_finished()
        assert f"{file}: {says}" in str(refused.value)
        assert "move the file away, and the same command" in str(refused.value)
        file.unlink()
        assert not plan().is_finished()


def test_two_recipes_of_one_name(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, layers in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.gin").write_text(
            f"include 'gin/uem_tiny.gin'\nnetwork.T5Config.num_heads = {layers}\n"
        )
    with pytest.raises(
        InputError, match=r"a/mine\.gin and of b/mine\.gin would both be mine-seed=0; rename"
    ):
        read("[[runs]]\nrecipes = ['a/mine.gin', 'b/mine.gin']")
    # Other ways to write the same file are one run, and one table of macros is theirs.
    names = ["a/mine.gin", "./a/mine.gin", "b/../a/mine.gin"]
    text = f"[[runs]]\nrecipes = {names}\n[recipes.'{tmp_path}/a/mine.gin']\nTRAIN_STEPS = 7"
    (run,) = read(text)
    assert run.macros["TRAIN_STEPS"] == 7


def test_a_terminated_sweep_ends_its_run_and_lets_it_save(read, tmp_path):
    read()
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


def test_every_sweep_of_the_project_is_sound():
    for file in ("paper.toml", "tiny.toml"):
        assert read_sweep(f"gin/sweeps/{file}", "out", ["DATA_DIR = 'd'"])


def test_seeds_that_are_no_list(read):
    with pytest.raises(InputError, match=r"seeds = 3: give a list"):
        read("seeds = 3\n[[runs]]\nrecipes = ['uem_tiny']\n")
