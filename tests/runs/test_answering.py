"""What is recorded of a recipe to answer with: its model and its task, and nothing of training."""

import shutil

import gin
import jax
import numpy as np
import pytest

from uem_t5x import engine, train
from uem_t5x.answers import predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.runs import answering, model_dir, recipe_text, recipes

HEAD = """
from __gin__ import dynamic_registration

import __main__ as train_script
from uem_t5x import engine
from uem_t5x import models

"""


def recorded(*bindings, recipe="gin/uem_tiny.gin"):
    """Returns a recipe as gin writes it down when a run begins."""
    with engine.built_in(), recipes.main_module(train):
        recipes.parse([recipe], ["MODEL_DIR = 'runs/model'", "DATA_DIR = 'runs/mine'", *bindings])
        return gin.config_str()


def bound(text):
    """Returns the macros and the other settings of a text."""
    statements = recipe_text.bindings(text, recipe_text.AsText())
    return recipe_text.macros(statements), recipe_text.parameters(statements)


@pytest.mark.parametrize("recipe", ["gin/uem_tiny.gin", "gin/text_tiny.gin"])
def test_nothing_of_training_is_left(recipe):
    text = answering.of_recipe(recorded(recipe=recipe), "config.gin")
    assert "__main__" not in text and "train_script" not in text
    macros, parameters = bound(text)
    of_training = {"TRAIN_STEPS", "LEARNING_RATE", "CHECKPOINT_PERIOD", "LAYOUT"}
    assert not of_training & macros.keys()
    for name in ("learning_rates.", "engine.trainer.", "engine.partitioner.", "seqio.Evaluator."):
        assert not [parameter for parameter in parameters if parameter.startswith(name)]
    assert {
        "DATA_DIR",
        "HISTORY_LENGTH",
        "EVAL_BATCH_SIZE",
        "MIXTURE_OR_TASK_NAME",
    } <= macros.keys()
    before = bound(recorded(recipe=recipe))[1]
    assert parameters["engine.answering.model"] == before["train_script.train.model"]
    scoped = [name for name in parameters if "/" in name]
    assert scoped and all(name.startswith("infer_eval/") for name in scoped)


def test_what_nothing_refers_to_stays():
    """The steps of a task read their own settings."""
    text = recorded("preprocessors.training_stretches.probability = 0.25")
    _, parameters = bound(answering.of_recipe(text, "config.gin"))
    assert parameters["preprocessors.training_stretches.probability"] == 0.25


@pytest.mark.parametrize(
    ("configs", "asked"),
    [
        ({"infer": "@a/engine.dataset_config()", "train_": "@b/engine.dataset_config()"}, "a"),
        ({"infer": "None", "train_": "@b/engine.dataset_config()"}, "b"),
        ({"train_": "@b/engine.dataset_config()"}, "b"),
        ({"infer": "None", "train_": "None"}, "c"),
    ],
)
def test_it_is_asked_as_it_was_scored_or_else_as_it_was_measured_or_trained(configs, asked):
    names = {"infer": "infer_eval_dataset_cfg", "train_": "train_eval_dataset_cfg"}
    lines = [f"train_script.train.{names[name]} = {value}\n" for name, value in configs.items()]
    scopes = [scope for scope in "abc" if scope == "c" or f"@{scope}/" in "".join(lines)]
    splits = [f"{scope}/engine.dataset_config.split = '{scope}'\n" for scope in scopes]
    text = HEAD + "".join(splits + lines)
    text += "train_script.train.model = @models.EncoderDecoderModel()\n"
    text += "train_script.train.train_dataset_cfg = @c/engine.dataset_config()\n"
    _, parameters = bound(answering.of_recipe(text, "config.gin"))
    assert parameters == {
        f"{asked}/engine.dataset_config.split": asked,
        "engine.answering.model": "@models.EncoderDecoderModel()",
        "engine.answering.dataset_cfg": f"@{asked}/engine.dataset_config()",
    }


def test_what_training_shares_with_the_model_stays():
    text = HEAD + "SHARED = 3\nOWN = 4\n"
    text += "models.EncoderDecoderModel.num_decodes = %SHARED\n"
    text += "train_script.train.eval_steps = %SHARED\n"
    text += "train_script.train.random_seed = %OWN\n"
    text += "train_script.train.model = @models.EncoderDecoderModel()\n"
    text += "train_script.train.train_dataset_cfg = @engine.dataset_config()\n"
    macros, _ = bound(answering.of_recipe(text, "config.gin"))
    assert macros == {"SHARED": 3}


@pytest.mark.parametrize("left_out", ["model", "train_dataset_cfg"])
def test_what_is_no_training_recipe_is_refused(left_out):
    lines = {
        "model": "train_script.train.model = @models.EncoderDecoderModel()\n",
        "train_dataset_cfg": "train_script.train.train_dataset_cfg = @engine.dataset_config()\n",
    }
    del lines[left_out]
    with pytest.raises(InputError, match=r"config.gin: not the recipe of a training run"):
        answering.of_recipe(HEAD + "".join(lines.values()), "config.gin")


def test_a_text_that_is_no_recipe_is_refused():
    with pytest.raises(InputError, match=r"config.gin: not a recipe"):
        answering.of_recipe("A = [", "config.gin")


def test_the_model_that_is_built_from_it_answers(undisturbed, trained, tmp_path):
    """By what was recorded for answering, or else by what was recorded of training."""
    users = [predict.User("u", (5, 6), (9, 2)), predict.User("v", (7,), (9,))]
    expected = list(predict.predict(trained, users, batch_size=4))
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    text = (copy / "answering.gin").read_text()
    assert "__main__" not in text and "train_script" not in text
    config = (copy / "config.gin").read_text()
    (copy / "config.gin").write_text("nobody = reads this")
    built = TrainedModel.load(copy, step=6)
    jax.tree.map(np.testing.assert_array_equal, built.params, trained.params)
    assert list(predict.predict(built, users, batch_size=4)) == expected

    (copy / "config.gin").write_text(config)
    (copy / "answering.gin").unlink()
    assert model_dir.answering_recipe(copy) == text
    again = TrainedModel.load(copy, step=6)
    assert list(predict.predict(again, users, batch_size=4)) == expected


def test_what_a_step_of_the_task_shares_with_training_stays(tmp_path):
    text = recorded("preprocessors.training_stretches.probability = %LEARNING_RATE")
    macros, _ = bound(answering.of_recipe(text, "config.gin"))
    assert "LEARNING_RATE" in macros
    assert "TRAIN_STEPS" not in macros


def test_two_functions_that_train():
    text = HEAD + "train_script.train.train_dataset_cfg = @engine.dataset_config()\n"
    text += "engine.other.train_dataset_cfg = @engine.dataset_config()\n"
    with pytest.raises(InputError, match=r"config\.gin: two functions train: "):
        answering.of_recipe(text, "config.gin")
