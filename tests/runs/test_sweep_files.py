"""Sweeps as they are written: the runs that they make, and what is refused."""

import pytest
from tiny_sweep import HISTORIES

from uem_t5x.base.errors import InputError
from uem_t5x.runs import sweep_files


def test_every_combination_once_and_the_first_seed_first(read_sweep):
    names = [planned.name for planned in read_sweep()]

    # 50 items are the recipe's own, so that the first two entries share a run.
    first = [
        "uem_tiny-HISTORY_LENGTH=5-seed=0",
        "uem_tiny-seed=0",
        "text_tiny-HISTORY_LENGTH=50-seed=0",
        "uem_tiny-PROMPT_LENGTH=4-seed=0",
        "uem_tiny-PROMPT_LENGTH=4-UEM_LAYERS=2-seed=0",
    ]
    assert names == [*first, *(name.replace("seed=0", "seed=1") for name in first)]


def test_a_required_macro_may_be_what_is_swept(read_sweep):
    text = '[[runs]]\nrecipes = ["uem_tiny"]\nmacros.DATA_DIR = ["runs/a", "runs/b"]'

    names = [planned.name for planned in read_sweep(text, bindings=())]

    assert names == ["uem_tiny-DATA_DIR=runs_a-seed=0", "uem_tiny-DATA_DIR=runs_b-seed=0"]


def test_recipes_and_parameters_of_ones_own(read_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'gin/uem_tiny.gin'\nUEM_LAYERS = 2\n")
    name = "network.T5Config.num_heads"
    text = f'[[runs]]\nrecipes = ["mine.gin"]\nmacros."{name}" = [2, 4]'
    runs = read_sweep(
        text, bindings=["DATA_DIR = 'd'", "user_embedding.UserEmbeddingConfig.mlp_dim = 8"]
    )
    assert [planned.name for planned in runs] == [f"mine-{name}={n}-seed=0" for n in (2, 4)]
    train, _ = runs[0].commands()
    assert "--gin_file=mine.gin" in train
    assert f"--gin.{name}=2" in train
    assert "--gin.user_embedding.UserEmbeddingConfig.mlp_dim=8" in train
    assert runs[0].macros["UEM_LAYERS"] == 2


@pytest.mark.parametrize("name", ["text_tiny", "gin/text_tiny.gin"])
def test_macros_of_a_recipe_whichever_way_it_is_named(name, read_sweep):
    text = HISTORIES.replace('"text_tiny"', f'"{name}"')
    runs = {planned.name: planned for planned in read_sweep(text)}
    assert runs["text_tiny-HISTORY_LENGTH=50-seed=0"].macros["HISTORY_ORDER"] == "most_recent_last"


def test_two_recipes_of_one_name(read_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, layers in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.gin").write_text(
            f"include 'gin/uem_tiny.gin'\nnetwork.T5Config.num_heads = {layers}\n"
        )
    with pytest.raises(
        InputError, match=r"a/mine\.gin and of b/mine\.gin would both be mine-seed=0; rename"
    ):
        read_sweep("[[runs]]\nrecipes = ['a/mine.gin', 'b/mine.gin']")
    # Other ways to write the same file are one run, and one table of macros is theirs.
    names = ["a/mine.gin", "./a/mine.gin", "b/../a/mine.gin"]
    text = f"[[runs]]\nrecipes = {names}\n[recipes.'{tmp_path}/a/mine.gin']\nTRAIN_STEPS = 7"
    (run,) = read_sweep(text)
    assert run.macros["TRAIN_STEPS"] == 7


def test_runs_that_would_share_a_folder_are_refused(read_sweep):
    text = '[[runs]]\nrecipes = ["uem_tiny"]\nmacros.DATA_DIR = ["runs/a", "runs_a"]'
    with pytest.raises(
        InputError, match=r"two runs of .* would both be uem_tiny-DATA_DIR=runs_a-s"
    ):
        read_sweep(text, bindings=())


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
def test_refused(read_sweep, text, bindings, message):
    with pytest.raises(InputError, match=message):
        read_sweep(text, bindings)


def test_seeds_that_are_no_list(read_sweep):
    with pytest.raises(InputError, match=r"seeds = 3: give a list"):
        read_sweep("seeds = 3\n[[runs]]\nrecipes = ['uem_tiny']\n")


def test_a_misspelt_macro_of_a_recipe_is_refused_before_the_first_run(
    read_sweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'gin/uem_tiny.gin'\nHISTORY_LENGHT = 5\n")
    with pytest.raises(InputError, match=r"mine\.gin, line 2: nothing refers to HISTORY_LENGHT"):
        read_sweep('[[runs]]\nrecipes = ["mine.gin"]')


def test_a_byte_order_mark(read_sweep):
    assert [run.name for run in read_sweep(f"\ufeff{HISTORIES}")] == [
        run.name for run in read_sweep()
    ]


def test_a_missing_file_names_the_folder_of_sweeps():
    with pytest.raises(InputError, match="no such sweep; see the folder gin/sweeps"):
        sweep_files.read_sweep("nowhere.toml", "out")


def test_every_sweep_of_the_project_is_sound():
    for file in ("paper.toml", "tiny.toml"):
        assert sweep_files.read_sweep(f"gin/sweeps/{file}", "out", ["DATA_DIR = 'd'"])
