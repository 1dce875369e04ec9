"""Which checkpoints of a run stay: the most recent one, and the best by F1."""

from unittest import mock

import jax.numpy as jnp
import pytest

from uem_t5x import checkpoint_folders, engine
from uem_t5x.checkpoint_manager import CheckpointConfig, CheckpointManager
from uem_t5x.datasets import TrainIterator
from uem_t5x.trainer import TrainState


def save(model_dir, f1s):
    """Saves a checkpoint of each F1, where there is one, after those that are there."""
    with CheckpointManager(model_dir, CheckpointConfig(keep=1, keep_best=1)) as manager:
        for step, f1 in enumerate(f1s, start=1 + (manager.latest_step() or 0)):
            params = {"dense": {"kernel": jnp.ones((2, 3))}}
            state = TrainState(jnp.int32(step), params, engine.adafactor().init(params), {})
            metrics = None if f1 is None else {"f1": f1}
            manager.save(state, mock.Mock(spec=TrainIterator), metrics)


def kept(model_dir):
    return [*checkpoint_folders.find(model_dir)]


@pytest.mark.parametrize(
    ("f1s", "steps", "best"),
    [
        pytest.param([0.9, 0.1, 0.2], [1, 3], 1, id="the first is best"),
        pytest.param([0.1, 0.9, 0.2], [2, 3], 2, id="the second is best"),
        pytest.param([0.1, 0.2, 0.9], [3], 3, id="the last is best"),
        pytest.param([0.5, 0.5, 0.1], [2, 3], 2, id="of equals the later one"),
        pytest.param([0.9, None, 0.2], [1, 3], 1, id="one is not measured"),
        pytest.param([0.0, 0.0, None], [2, 3], 2, id="the last is not measured"),
        pytest.param([None, None, None], [3], 3, id="none is measured"),
    ],
)
def test_the_best_by_f1_stays_and_is_chosen(f1s, steps, best, tmp_path):
    save(tmp_path, f1s)
    assert kept(tmp_path) == steps
    assert checkpoint_folders.choose(tmp_path) == best


def test_a_checkpoint_that_is_measured_later_stays_as_the_best(tmp_path):
    save(tmp_path, [None])
    with CheckpointManager(tmp_path, CheckpointConfig(keep=1, keep_best=1)) as manager:
        manager.add_metrics(1, {"f1": 0.9})
    save(tmp_path, [0.1, 0.2])
    assert kept(tmp_path) == [1, 3]
    assert checkpoint_folders.choose(tmp_path) == 1
