"""Recipes of older versions: what they recorded is read, what a user wrote is told its mend."""

import shutil
from pathlib import Path

import gin
import jax
import numpy as np
import pytest
import tiny_recipe
from tiny_run import run

from uem_t5x import engine, train
from uem_t5x.answers import predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.runs import older_recipes, recipe_text, recipes

# As the version before modules moved into rooms wrote them down.
RECORDED = Path(__file__).parent / "recorded"
PLACES = ["MODEL_DIR = 'runs/model'", "DATA_DIR = 'runs/mine'"]


def recorded(name):
    return (RECORDED / f"{name}.gin").read_text()


def bound(text):
    """Returns the macros and the other settings of a text."""
    statements = recipe_text.bindings(text, recipe_text.AsText())
    return recipe_text.macros(statements), recipe_text.parameters(statements)


def references(values):
    """Returns those that are macros, functions or classes."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str) and value.startswith(("%", "@"))
    }


def current(name):
    """Returns what this version writes down of the same recipe."""
    with engine.built_in(), recipes.main_module(train):
        recipes.parse([f"gin/{name}.gin"], PLACES)
        return gin.config_str()


@pytest.mark.parametrize("name", ["uem_tiny", "text_tiny"])
def test_what_was_recorded_is_put_together_as_the_recipe_of_this_version(name):
    """By names and references: figures are the run's own, and recipes have learned since."""
    macros, parameters = bound(older_recipes.modernized(recorded(name)))
    macros_now, parameters_now = bound(current(name))
    soft_prompt = macros_now.pop("SOFT_PROMPT", None)
    if soft_prompt:
        assert parameters.pop("network.Transformer.soft_prompt") == soft_prompt
        assert parameters_now.pop("network.Transformer.soft_prompt") == "%SOFT_PROMPT"
    for then, now in ((macros, macros_now), (parameters, parameters_now)):
        assert not then.keys() - now.keys()
        assert references(then) == {name: now[name] for name in references(then)}


@pytest.mark.parametrize("name", ["uem_tiny", "text_tiny"])
def test_a_recipe_of_this_version_stays_as_it_is(name):
    text = current(name)
    assert older_recipes.modernized(text) == text


def test_a_run_of_an_older_version_answers_and_is_gone_on_with(
    undisturbed, trained, dataset_folder, tmp_path
):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    (copy / "answering.gin").unlink()
    given = [*tiny_recipe.BINDINGS, *tiny_recipe.places(copy, dataset_folder.path)]
    given += ["TRAIN_STEPS = 6", "EVAL_PERIOD = 4", "CHECKPOINT_PERIOD = 2"]
    given += ["PROMPT_LENGTH = 24"]  # as the recipe has it that trained this one
    older = [recorded("uem_tiny"), *(f"{line}\n" for line in given)]
    (copy / "config.gin").write_text("".join(older))
    model = TrainedModel.load(copy, step=6)
    jax.tree.map(np.testing.assert_array_equal, model.params, trained.params)
    users = [predict.User("u", (5, 6), (9, 2)), predict.User("v", (7,), (9,))]
    expected = list(predict.predict(trained, users, batch_size=4))
    assert list(predict.predict(model, users, batch_size=4)) == expected

    assert run(copy, dataset_folder, "TRAIN_STEPS = 7", "EVAL_PERIOD = 0")[0] == 7
    assert "PersonalizedTransformer" not in (copy / "config.gin").read_text()
    assert "TRAIN_STEPS = 7" in (copy / "config.gin").read_text()


@pytest.mark.parametrize("module", sorted(older_recipes._MODULES))
def test_modules_have_moved_to_where_they_are(module):
    namespace = {}
    exec(older_recipes.import_line(f"uem_t5x.{module}"), namespace)
    assert namespace[module].__name__ == f"uem_t5x.{older_recipes._MODULES[module]}"


def test_modules_that_have_not_moved():
    for module in ("uem_t5x.models", "uem_t5x.engine", "preprocessors", "other.preprocessors"):
        assert older_recipes.import_line(module) is None


OWN = """from __gin__ import dynamic_registration
from uem_t5x import preprocessors
include 'gin/uem_tiny.gin'
preprocessors.training_stretches.probability = 0.0
"""


def test_a_recipe_of_ones_own_is_told_where_a_module_has_moved(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text(OWN)
    with pytest.raises(InputError) as error:
        recipes.check_bindings([own], PLACES)
    mend = "write 'from uem_t5x.inputs import preprocessors'"
    assert error.value.line.endswith(f"{own}, line 2: uem_t5x.preprocessors has moved; {mend}")
    own.write_text(OWN.replace("uem_t5x import", "uem_t5x.inputs import"))
    recipes.check_bindings([own], PLACES)


def test_a_name_that_was_given_to_a_module_is_kept():
    text = "from uem_t5x import metrics as scores\nfrom uem_t5x import metrics_of_mine\n"
    assert older_recipes.modernized(text) == (
        "from uem_t5x.inputs import metrics as scores\nfrom uem_t5x import metrics_of_mine\n"
    )
    assert older_recipes.modernized("from uem_t5x import datasets\n") == (
        "from uem_t5x.inputs import batches as datasets\n"
    )


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("user_embedding.PersonalizedTransformer.prompt_length = 4", "user_embedding.UserPrompt"),
        ("user_embedding.PersonalizedTransformer:\n  prompt_length = 4", "user_embedding.UserPro"),
        ("MINE = @user_embedding.channels()", "data_sources.channels, of uem_t5x.inputs"),
    ],
)
def test_a_recipe_of_ones_own_is_told_what_is_gone(line, mend, tmp_path):
    own = tmp_path / "own.gin"
    head = "from __gin__ import dynamic_registration\nfrom uem_t5x.network import user_embedding\n"
    own.write_text(f"{head}include 'gin/uem_tiny.gin'\n{line}\n")
    with pytest.raises(InputError, match=rf"own.gin, line 4: .* is gone; bind {mend}"):
        recipes.check_bindings([own], PLACES)
