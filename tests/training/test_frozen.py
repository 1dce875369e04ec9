"""What training leaves as it is."""

import jax
import numpy as np
import tiny_recipe
from tiny_recipe import BINDINGS as TINY
from tiny_run import run

from uem_t5x import network, train
from uem_t5x.answers.trained_model import TrainedModel


def test_a_frozen_language_model_stays_as_it_is(dataset_folder, tmp_path):
    options = ("EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 1", "CHECKPOINTS_KEPT = None")
    run(tmp_path, dataset_folder, "TRAIN_STEPS = 3", "FREEZE_LANGUAGE_MODEL = True", *options)
    first, last = (TrainedModel.load(tmp_path, step).params for step in (1, 3))
    for module in first:
        same = jax.tree.map(np.array_equal, first[module], last[module])
        assert all(jax.tree.leaves(same)) == (module in network.LANGUAGE_MODEL)


def test_a_frozen_language_model_does_not_decay(dataset_folder, tmp_path):
    recipe = tmp_path / "decay.gin"
    recipe.write_text(OTHER_OPTIMIZER.replace("scale_by_adam", "add_decayed_weights"))
    places = tiny_recipe.places(tmp_path / "run", dataset_folder.path)
    decay = ["optax.add_decayed_weights.weight_decay = 0.1", "FREEZE_LANGUAGE_MODEL = True"]
    steps = ["TRAIN_STEPS = 2", "EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 1"]
    train.run_recipe([str(recipe)], [*TINY, *decay, *steps, *places])
    first, last = (TrainedModel.load(tmp_path / "run", step).params for step in (1, 2))
    for module in first:
        same = jax.tree.map(np.array_equal, first[module], last[module])
        assert all(jax.tree.leaves(same)) == (module in network.LANGUAGE_MODEL)
