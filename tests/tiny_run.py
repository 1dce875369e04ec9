"""A tiny training run, as a user makes one."""

import concurrent.futures

import jax
import numpy as np
import seqio
import tiny_recipe

from uem_t5x import train


def run(model_dir, dataset_folder, *bindings):
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    return train.run_recipe([tiny_recipe.RECIPE], [*tiny_recipe.BINDINGS, *places, *bindings])


def assert_same_params(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, other.opt_state)


def score_with(monkeypatch, f1s):
    """Has evaluations end with these F1s, one after the other, and nobody be answered."""
    remaining = iter(f1s)

    def evaluate(*_, **__):
        future = concurrent.futures.Future()
        future.set_result({"task": {"f1": next(remaining)}})
        return future, None

    monkeypatch.setattr(seqio.Evaluator, "evaluate", evaluate)
