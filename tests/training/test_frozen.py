"""What training leaves as it is: no gradient, no decay, no state of the optimizer."""

import shutil
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import tiny_recipe
from etils import epath
from tiny_recipe import BINDINGS as TINY
from tiny_run import run

from uem_t5x import network, train
from uem_t5x.answers.trained_model import TrainedModel

SOFT_PROMPT = {"task_prompt", "user_embedding"}


def slots(checkpoint):
    """Returns the top-level modules whose parameters have optimizer state in a checkpoint."""
    saved = ocp.PyTreeCheckpointHandler().metadata(epath.Path(checkpoint / "state"))
    return set(getattr(saved, "tree", saved)["state"]["param_states"])


def changed_modules(first, last):
    """Returns the top-level modules that have a parameter which is not what it was."""
    same = {name: jax.tree.map(np.array_equal, first[name], last[name]) for name in first}
    return {name for name, equal in same.items() if not all(jax.tree.leaves(equal))}


def test_a_frozen_language_model_stays_as_it_is(dataset_folder, tmp_path):
    options = ("EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 1", "CHECKPOINTS_KEPT = None")
    run(tmp_path, dataset_folder, "TRAIN_STEPS = 3", "FREEZE_LANGUAGE_MODEL = True", *options)
    first, last = (TrainedModel.load(tmp_path, step).params for step in (1, 3))
    assert first.keys() == SOFT_PROMPT | set(network.LANGUAGE_MODEL)
    assert changed_modules(first, last) == SOFT_PROMPT
    assert slots(tmp_path / "checkpoint_3") == SOFT_PROMPT


DECAY = """
from __gin__ import dynamic_registration
import optax
from uem_t5x import models
include 'gin/uem_tiny.gin'
models.EncoderDecoderModel.optimizer_def = @optax.add_decayed_weights()
optax.add_decayed_weights.weight_decay = 0.1
"""


def test_a_frozen_language_model_does_not_decay(dataset_folder, tmp_path):
    recipe = tmp_path / "decay.gin"
    recipe.write_text(DECAY)
    places = tiny_recipe.places(tmp_path / "run", dataset_folder.path)
    options = ["TRAIN_STEPS = 2", "EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 1"]
    train.run_recipe([recipe], [*TINY, *options, "FREEZE_LANGUAGE_MODEL = True", *places])
    first, last = (TrainedModel.load(tmp_path / "run", step).params for step in (1, 2))
    assert changed_modules(first, last) == SOFT_PROMPT


OWN_CHOICE = """
def decoder_alone(path):
    return path.startswith("decoder/")
"""
OWN_CHOICE_RECIPE = """
from __gin__ import dynamic_registration
import my_choice
from uem_t5x import models
include 'gin/uem_tiny.gin'
models.EncoderDecoderModel.trainable = @my_choice.decoder_alone
"""


def test_a_choice_of_ones_own_trains_that_alone(dataset_folder, tmp_path, monkeypatch):
    (tmp_path / "my_choice.py").write_text(OWN_CHOICE)
    (tmp_path / "own.gin").write_text(OWN_CHOICE_RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    places = tiny_recipe.places(tmp_path / "run", dataset_folder.path)
    options = ["TRAIN_STEPS = 2", "EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 1"]
    try:
        train.run_recipe([tmp_path / "own.gin"], [*TINY, *options, *places])
        params = [TrainedModel.load(tmp_path / "run", step).params for step in (1, 2)]
    finally:
        sys.modules.pop("my_choice", None)
    assert changed_modules(*params) == {"decoder"}
    assert slots(tmp_path / "run/checkpoint_2") == {"decoder"}


def test_a_run_that_saved_slots_of_what_is_frozen_is_gone_on_with(
    undisturbed, dataset_folder, tmp_path
):
    """As runs of older versions did."""
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    recipe = copy / "config.gin"
    text = recipe.read_text()
    assert text.count("FREEZE_LANGUAGE_MODEL = False") == 1
    recipe.write_text(text.replace("FREEZE_LANGUAGE_MODEL = False", "FREEZE_LANGUAGE_MODEL = True"))
    assert network.LANGUAGE_MODEL[0] in slots(copy / "checkpoint_6")
    before = TrainedModel.load(copy, step=6).params
    options = ("TRAIN_STEPS = 8", "CHECKPOINT_PERIOD = 2", "EVAL_PERIOD = 0")
    step, state = run(copy, dataset_folder, "FREEZE_LANGUAGE_MODEL = True", *options)
    assert step == 8
    assert changed_modules(before, state.params) == SOFT_PROMPT
    assert slots(copy / "checkpoint_8") == SOFT_PROMPT
    # Adafactor's second moments went on from where they were.
    assert int(state.opt_state[0].count) == 8
