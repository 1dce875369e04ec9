"""Recipes that are refused in one line, and how they are found and read."""

from pathlib import Path

import pytest
from tiny_recipe import RECIPE
from tiny_run import run

from uem_t5x import train
from uem_t5x.base.errors import InputError
from uem_t5x.commands import train as train_command
from uem_t5x.runs import recipes


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["BATCH_SIZE = 17"], r"BATCH_SIZE=17 does not divide over 2 devices; use 16"),
        (["BATCH_SIZE = 0"], r"BATCH_SIZE=0: no batch; use 2"),
        (["EVAL_BATCH_SIZE = 17"], r"EVAL_BATCH_SIZE=17 does not divide over 2 devices; use 16"),
        (["NUM_MICROBATCHES = 3"], r"NUM_MICROBATCHES=3: BATCH_SIZE=16 over 2 devices .* use 2"),
        (["HISTORY_LENGTH = 0"], r"HISTORY_LENGTH=0: bind it to 1 or more"),
        (["MIXTURE_OR_TASK_NAME = 'nonsense'"], r"'nonsense': no such SeqIO task"),
        (["EVAL_PERIOD = 4", "CHECKPOINT_PERIOD = 6"], r"EVAL_PERIOD=4, CHECKPOINT_PERIOD=6: make"),
        (["SCAN_LAYERS = 'false'"], r"SCAN_LAYERS = 'false': give True or False"),
        (["BATCH_SIZE = 'all'"], r"BATCH_SIZE = 'all': give a number"),
        (["BATCH_SIZE = 16.0"], r"BATCH_SIZE = 16.0: write 16"),
        (["TRAIN_STEPS = 10.5"], r"TRAIN_STEPS = 10.5: give a whole number"),
        (["UEM_LAYERS = -1"], r"UEM_LAYERS=-1: bind it to 0 or more"),
        (["PROMPT_LENGTH = -1"], r"PROMPT_LENGTH=-1: bind it to 0 or more"),
        (["DROPOUT_RATE = 2.0"], r"DROPOUT_RATE=2.0: bind it to 0.0 or more, below 1.0"),
        (
            ["user_embedding.UserEmbeddingConfig.num_heads = 0"],
            r"num_heads=0: bind it to 1 or more",
        ),
        (["SCAN_LAYERS = None"], r"SCAN_LAYERS = None: give True or False"),
        (["RANDOM_SEED = None"], r"RANDOM_SEED = None: give a number"),
        (["EVAL_BATCH_SIZE = True"], r"EVAL_BATCH_SIZE = True: give a number"),
        (["LAYOUT = 8"], r"LAYOUT = 8: give a text"),
        (["MODEL_DIR = 2024"], r"gin/uem_tiny.gin: MODEL_DIR = 2024: give a text"),
        (["UEM_LAYER = 1"], r"gin/uem_tiny.gin has no macro UEM_LAYER; it has .*UEM_LAYERS"),
        (["CHECKPOINTS_KEPT = -1"], r"CHECKPOINTS_KEPT=-1: bind it to 1 or more, or to None"),
        (["CHECKPOINT_PERIOD = -2"], r"CHECKPOINT_PERIOD=-2: bind it to 0 or more"),
        (["EVAL_PERIOD = -1"], r"EVAL_PERIOD=-1: bind it to 0 or more"),
        (["STATS_PERIOD = -1"], r"STATS_PERIOD=-1: bind it to 0 or more"),
        (["TRAIN_STEPS = -1"], r"TRAIN_STEPS=-1: bind it to 0 or more"),
        (["EVAL_STEPS = -1"], r"EVAL_STEPS=-1: bind it to 1 or more, or to None"),
        (["NUM_DATA_SHARDS = -1"], r"NUM_DATA_SHARDS=-1: bind it to 1 or more"),
        (["NUM_MICROBATCHES = 0"], r"NUM_MICROBATCHES=0: bind it to 1 or more, or to None"),
        (["HISTORY_LENGTH = -3"], r"HISTORY_LENGTH=-3: bind it to 1 or more"),
        (
            ["ACTIVATION_DTYPE = 'float8'"],
            r"ACTIVATION_DTYPE='float8': no type to compute in; choose",
        ),
        (
            ["ACTIVATION_DTYPE = 'int32'"],
            r"ACTIVATION_DTYPE='int32': no type to compute in; choose",
        ),
        (
            ["ACTIVATION_DTYPE = 'float16'"],
            r"ACTIVATION_DTYPE='float16': no type to compute in; choose",
        ),
        (
            ["MIXTURE_OR_TASK_NAME = 'movielens_genres_text_5'"],
            r"movielens_genres_text_5: a task of inputs, targets, where the model reads",
        ),
        (["NONSENSE.x = 1"], r"gin/uem_tiny.gin: .*NONSENSE"),
        (["DATA_DIR = '/nowhere'"], r"/nowhere: no such folder"),
    ],
)
def test_refused_recipes(bindings, message, dataset_folder, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        run(tmp_path / "model", dataset_folder, *bindings)
    assert "\n" not in error.value.line
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", [b"include 'own.gin'", b"A = '\xff'", b"A = " + b"[" * 5000])
def test_a_recipe_that_is_none(content, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.gin").write_bytes(content)
    assert train_command.main(["--gin_file=own.gin"]) == 2
    assert "own.gin: " in capsys.readouterr().err
    with pytest.raises(InputError, match=r"own\.gin"):
        recipes.parse(["own.gin"])


def test_a_number_that_stands_for_all_may_be_none():
    recipes.check_bindings([RECIPE], ["CHECKPOINTS_KEPT = None", "EVAL_STEPS = None"])


def test_an_unbound_macro_is_named(capsys):
    assert train_command.main([f"--gin_file={RECIPE}", "--gin.MODEL_DIR=/tmp/x"]) == 2
    assert "the macro DATA_DIR is not bound; add --gin.DATA_DIR=VALUE" in capsys.readouterr().err


def test_arguments_are_gin_literals_or_plain_strings():
    files, bindings, rest = recipes.split_arguments(
        ["--gin_file=a.gin", "--gin.MODEL_DIR=runs/a", '--gin.DATA_DIR="b c"', "--gin.N=3", "--x"]
    )
    assert files == ["a.gin"]
    assert bindings == ["MODEL_DIR = 'runs/a'", 'DATA_DIR = "b c"', "N = 3"]
    assert rest == ["--x"]


def test_a_recipe_after_a_space():
    arguments = ["--gin_file", "my recipe.gin", "--gin.N=3", "--gin_file=b.gin", "--x"]
    assert recipes.split_arguments(arguments) == (
        ["my recipe.gin", "b.gin"],
        ["N = 3"],
        ["--x"],
    )
    assert recipes.split_arguments(["--gin_file"]) == ([], [], ["--gin_file"])


def test_a_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with recipes.main_module(train):
        recipes.parse([RECIPE], ["MODEL_DIR = 'm'", "DATA_DIR = 'd'"])
    with pytest.raises(InputError, match=r"gin/nonsense.gin: no such recipe"):
        recipes.parse(["gin/nonsense.gin"])
