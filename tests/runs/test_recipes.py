"""Every recipe parses without T5X, and says what the paper says."""

from pathlib import Path

import gin
import jax
import numpy as np
import pytest

from uem_t5x import engine, train
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import data_sources, vocabularies
from uem_t5x.runs import comparison, recipes

RECIPES = sorted(path.stem for path in Path(__file__).parents[2].glob("gin/*.gin"))
PRETRAINED = [name for name in RECIPES if "t5_" in name]


def arguments_of(name, dataset_folder, *bindings):
    """Returns what a recipe gives to `train`; a pretrained one with some checkpoint."""
    places = ["MODEL_DIR = 'm'", f"DATA_DIR = {str(dataset_folder.path)!r}"]
    if name in PRETRAINED:
        places.append("INITIAL_CHECKPOINT_PATH = 'checkpoint'")
    with engine.built_in(), recipes.main_module(train):
        recipes.parse([f"gin/{name}.gin"], [*places, *bindings])
        return gin.get_bindings(train.train, resolve_references=True)


def test_the_recipes_that_there_are():
    assert {
        *(f"uem_flan_t5_{size}" for size in ("small", "base", "large", "xl")),
        *(
            f"uem_{kind}_{size}"
            for kind in ("t5_1_1", "t5_lm_adapted")
            for size in ("base", "large")
        ),
        *(f"text_flan_t5_{size}" for size in ("base", "large")),
        *(f"longtext_longt5_{size}" for size in ("base", "large")),
        "uem_tiny",
        "uem_tiny_tastes",
        "text_tiny",
        "uem_quickstart",
    } == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_needs_no_more_than_places(name, dataset_folder):
    arguments = arguments_of(name, dataset_folder)
    assert arguments["model"].module.config.emb_dim > 0
    reads_embeddings = "history_items" in arguments["train_dataset_cfg"].task_feature_lengths
    assert reads_embeddings == name.startswith("uem")


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_papers_values(name, dataset_folder):
    arguments = arguments_of(name, dataset_folder)
    assert arguments["total_steps"] == 10_000
    assert arguments["train_dataset_cfg"].batch_size == 128
    rate = arguments["trainer_cls"].keywords["learning_rate_fn"]
    expected = 5e-3 if name.startswith("uem") else 1e-2
    assert rate(0) == rate(9_999) == pytest.approx(expected)
    if name.startswith("uem"):
        prompt = arguments["model"].module.soft_prompt
        assert prompt.prompt_length == 20
        uem = prompt.config
        assert (uem.num_layers, uem.num_heads, uem.head_dim, uem.mlp_dim) == (3, 12, 64, 2048)


@pytest.mark.parametrize(("size", "depth"), [("base", 12), ("large", 24)])
def test_longt5_reads_fifty_items_in_words(size, depth, dataset_folder):
    arguments = arguments_of(f"longtext_longt5_{size}", dataset_folder)
    dataset = arguments["train_dataset_cfg"]
    assert dataset.mixture_or_task_name == "movielens_genres_text_50"
    assert dataset.task_feature_lengths["inputs"] == 16_384
    config = arguments["model"].module.config
    sizes = (config.encoder_attention, config.local_radius, config.global_block_size)
    assert sizes == ("transient_global", 127, 16)
    assert config.num_encoder_layers == depth
    local = arguments_of(f"longtext_longt5_{size}", dataset_folder, "ENCODER_ATTENTION = 'local'")
    assert local["model"].module.config.encoder_attention == "local"


@pytest.mark.parametrize(
    ("size", "language_model"), [("base", 247.6e6), ("large", 783.2e6), ("xl", 2849.8e6)]
)
def test_the_public_sizes(size, language_model, dataset_folder):
    """Parameters of the language model, as Hugging Face counts Flan-T5's."""
    model = arguments_of(f"uem_flan_t5_{size}", dataset_folder)["model"]
    shapes = {"encoder_input_tokens": (1, 4), "decoder_target_tokens": (1, 4)}
    shapes |= {"history_items": (1, 2), "history_ratings": (1, 2)}
    params = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes), jax.random.PRNGKey(0)
    )["params"]
    count = {
        name: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params[name])) for name in params
    }
    uem = count.pop("user_embedding") + count.pop("task_prompt")
    assert sum(count.values()) == pytest.approx(language_model, abs=0.05e6)
    assert uem > 0


def test_one_macro_each(dataset_folder):
    arguments = arguments_of(
        "uem_flan_t5_base",
        dataset_folder,
        "LANGUAGE_MODEL_SIZE = 'small'",
        "UEM_LAYERS = 2",
        "HISTORY_LENGTH = 100",
        "PROMPT_LENGTH = 7",
        "LEARNING_RATE = 0.001",
    )
    module = arguments["model"].module
    assert module.config.emb_dim == 512
    assert module.soft_prompt.config.num_layers == 2
    assert module.soft_prompt.prompt_length == 7
    assert arguments["trainer_cls"].keywords["learning_rate_fn"](0) == pytest.approx(0.001)
    assert arguments["train_dataset_cfg"].task_feature_lengths["history_items"] == 100
    assert arguments["train_dataset_cfg"].mixture_or_task_name == "movielens_genres_uem_100"


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["LANGUAGE_MODEL_SIZE = 'huge'"], r"LANGUAGE_MODEL_SIZE='huge': no such size; .*base"),
        (
            ["LAYOUT = 'model=3'"],
            r"LAYOUT='model=3': 2 devices are no multiple of 3; use .*model=2",
        ),
        (["LAYOUT = 'all'"], r"LAYOUT='all': no such layout; use 'data'"),
        (["REMAT_POLICY = 'some'"], r"REMAT_POLICY='some': .* choose one of none, minimal, full"),
    ],
)
def test_refused_macros(bindings, message, dataset_folder):
    with pytest.raises(InputError, match=message):
        arguments_of("uem_flan_t5_base", dataset_folder, *bindings)


def test_a_pretrained_recipe_asks_for_its_checkpoint():
    with (
        recipes.main_module(train),
        pytest.raises(InputError, match=r"INITIAL_CHECKPOINT_PATH is not bound"),
    ):
        recipes.parse(["gin/uem_flan_t5_base.gin"], ["MODEL_DIR = 'm'", "DATA_DIR = 'd'"])


def test_a_vocabulary_larger_than_the_embedding_is_refused(dataset_folder):
    arguments = arguments_of("uem_tiny", dataset_folder, "VOCAB_SIZE = 200")
    model = arguments["model"]
    with (
        data_sources.use_dataset_folder(dataset_folder),
        pytest.raises(InputError, match=r"256 tokens, but VOCAB_SIZE=200; set VOCAB_SIZE to 256"),
    ):
        vocabularies.check_rows(model.input_vocabulary, model.module.config.vocab_size)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HISTORY_LENGHT = 5", "mine.gin, line 2: .* HISTORY_LENGHT; there is HISTORY_LENGTH$"),
        ("LEARNIN_RATE = 0.0", "mine.gin, line 2: .* LEARNIN_RATE; there is LEARNING_RATE$"),
        ("learning_rate = 0.0", "nothing refers to learning_rate; there is LEARNING_RATE$"),
        ("LANGUAGE_MODLE = 'mine'", "LANGUAGE_MODLE; there is LANGUAGE_MODEL$"),
        ("LEARNIN_RATE/macro.value = 0.0", "LEARNIN_RATE; there is LEARNING_RATE$"),
        ("trian/LEARNING_RATE = 0.0", "nothing refers to trian/LEARNING_RATE"),
        ("LANGUAGE_MODEL_SIZE = 'large'", "nothing refers to LANGUAGE_MODEL_SIZE"),
        ("XYZ = 1", "nothing refers to XYZ; there is ACTIVATION_DTYPE, ADAPTER, .*Z_LOSS"),
        ("A = 1\nB = %A", "line 3: nothing refers to B"),
        ("trian/engine.dataset_config.seed = 1", "nothing refers to the scope trian; .* train$"),
        ("trian/engine.dataset_config:\n  seed = 1", "nothing refers to the scope trian"),
        ("include 'other.gin'", "other.gin, line 1: nothing refers to STEPS"),
    ],
)
def test_what_nothing_refers_to_is_refused(text, message, tmp_path, monkeypatch):
    """A recipe would be trained without it, in silence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.gin").write_text("STEPS = 3\n")
    (tmp_path / "mine.gin").write_text(f"include 'gin/uem_tiny.gin'\n{text}\n")
    with pytest.raises(InputError, match=message):
        recipes.check_bindings(["mine.gin"], [])
    assert recipes.read("mine.gin")  # one that was recorded is still read


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("A = 1\nB = %A\nTRAIN_STEPS = %B", []),
        ("A = 1\nTRAIN_STEPS = @A/macro()", []),
        ("A = 1\nTASK_FEATURE_LENGTHS = {'inputs': [%A]}", []),
        ("LANGUAGE_MODEL = 'mine'", []),
        ("", ["train/engine.dataset_config.seed = 1", "LEARNING_RATE = 0.0"]),
        ("A = 0.1", ["learning_rates.trapezoid.peak = %A"]),
        ("learning_rates.trapezoid.peak = 0.1", []),  # LEARNING_RATE, of the file below
    ],
)
def test_what_something_refers_to_is_accepted(text, bindings, tmp_path):
    recipe = tmp_path / "mine.gin"
    recipe.write_text(f"include 'gin/uem_tiny.gin'\n{text}\n")
    macros = recipes.check_bindings([recipe], bindings)
    assert recipes.unbound(macros) == {"MODEL_DIR", "DATA_DIR"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_refers_to_what_it_binds(name):
    recipes.check_bindings([f"gin/{name}.gin"], ["MODEL_DIR = 'm'"])


def test_a_byte_order_mark(tmp_path):
    """Windows' editors write one, in a recipe and in those that it includes."""
    mine, other = tmp_path / "mine.gin", tmp_path / "other.gin"
    mine.write_text(f"TRAIN_STEPS = 7\ninclude '{other}'\n", encoding="utf-8-sig")
    other.write_text("BATCH_SIZE = 3\n", encoding="utf-8-sig")
    expected = {"TRAIN_STEPS": 7, "BATCH_SIZE": 3}
    assert recipes.read(mine) == (expected, {})
    recipes.parse([mine])
    assert recipes.current_macros() == expected


def test_a_recipe_that_ends_too_early(tmp_path):
    recipe = tmp_path / "mine.gin"
    recipe.write_text("A = [1,\n")
    for read in (recipes.read, lambda path: recipes.parse([path])):
        with pytest.raises(InputError, match=r"mine\.gin"):
            read(recipe)


def test_macros_that_a_run_was_recorded_with(tmp_path):
    recipe = tmp_path / "config.gin"
    recipe.write_text("A = 1\nTASK = @movielens.uem_task()\nMODEL_DIR = 'here'\nOLD = 2\n")
    same = {"A": 1, "TASK": "@uem_t5x.tasks.movielens.uem_task()", "MODEL_DIR": "there", "NEW": 3}
    assert comparison.other_macros(recipe, same) is None
    for name, value, shown in (
        ("A", 2, "A = 1, and not 2"),
        ("TASK", "mine", "TASK = '@movielens.uem_task()', and not 'mine'"),
        ("TASK", "@movielens.text_task()", "and not '@movielens.text_task()'"),
    ):
        assert comparison.other_macros(recipe, {**same, name: value}).endswith(shown)
    assert comparison.other_macros(recipe, {**same, "A": 2}, but=("A",)) is None


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_run_is_recorded_with_is_what_its_recipe_says(name, dataset_folder, tmp_path):
    beside = ["trapezoid.peak = 0.5", "seqio.Evaluator.num_examples = 2"]
    arguments_of(name, dataset_folder, *beside)
    recorded = tmp_path / "config.gin"
    recorded.write_text(gin.config_str())
    planned = recipes.read(f"gin/{name}.gin", beside)
    asked_for = ["trapezoid.peak", "seqio.Evaluator.num_examples"]
    assert comparison.other_parameters(recorded, *planned, asked_for) is None
    assert comparison.other_parameters(recorded, *recipes.read(f"gin/{name}.gin"), ()) == (
        "seqio.Evaluator.num_examples = 2, and not None, "
        "learning_rates.trapezoid.peak = 0.5, and not '%LEARNING_RATE'"
    )


@pytest.mark.parametrize(
    "line",
    [
        "preprocessors.training_stretches.probability = 0.5",
        "preprocessors.training_stretches:\n  probability = 0.5",
        "HISTORY_LENGTH = @preprocessors.training_stretches",
        "engine.partitioner.layout = [%LAYOUT, @preprocessors.training_stretches()]",
    ],
)
def test_a_module_that_is_not_imported(line, tmp_path, monkeypatch):
    """It is told from the text; gin's own reading ends in a line as well."""
    monkeypatch.chdir(tmp_path)
    head = "from __gin__ import dynamic_registration\nfrom uem_t5x import engine\n"
    Path("mine.gin").write_text(f"{head}include 'gin/uem_tiny.gin'\n{line}\n")
    Path("outer.gin").write_text("include 'mine.gin'\n")
    message = (
        "mine.gin, line 4: preprocessors is not imported; add the line "
        "'from uem_t5x.inputs import preprocessors' above"
    )
    for recipe in ("mine.gin", "outer.gin"):
        with pytest.raises(InputError, match=message):
            recipes.check_bindings([recipe], [])
    expected = pytest.raises(InputError, match="'preprocessors' was not provided by an import")
    with recipes.main_module(train), expected:
        recipes.parse(["mine.gin"], ["MODEL_DIR = 'm'", "DATA_DIR = 'd'"])


def test_references_within_a_flag():
    """A list of them is no text: SeqIO would try to call it."""
    flag = "--gin.seqio.Evaluator.logger_cls=[@seqio.JSONLogger]"
    _, bindings, _ = recipes.split_arguments([flag, "--gin.MODEL_DIR=runs/[a]"])
    assert bindings == [
        "seqio.Evaluator.logger_cls = [@seqio.JSONLogger]",
        "MODEL_DIR = 'runs/[a]'",
    ]
