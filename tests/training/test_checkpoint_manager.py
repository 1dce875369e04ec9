"""Which checkpoints of a run stay, and what is said of one that cannot be saved."""

import logging
from unittest import mock

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from etils import epath
from orbax.checkpoint._src.serialization import ocdbt_utils

from uem_t5x.base.errors import DamagedError
from uem_t5x.checkpoints import folders, t5x
from uem_t5x.inputs.batches import TrainIterator
from uem_t5x.network import stacks
from uem_t5x.training import checkpoint_manager, optimizers
from uem_t5x.training.checkpoint_manager import CheckpointConfig, CheckpointManager
from uem_t5x.training.partitioning import Partitioner
from uem_t5x.training.trainer import TrainState

NAN = float("nan")


def save(model_dir, f1s):
    """Saves a checkpoint of each F1, where there is one, after those that are there."""
    with CheckpointManager(model_dir, CheckpointConfig(keep=1, keep_best=1)) as manager:
        for step, f1 in enumerate(f1s, start=1 + (manager.latest_step() or 0)):
            params = {"dense": {"kernel": jnp.ones((2, 3))}}
            state = TrainState(jnp.int32(step), params, optimizers.adafactor().init(params), {})
            metrics = None if f1 is None else {"f1": f1}
            manager.save(state, mock.Mock(spec=TrainIterator), metrics)


def kept(model_dir):
    return [*folders.find(model_dir)]


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
        pytest.param([0.9, NAN, 0.2], [1, 3], 1, id="one is not a number"),
        pytest.param([NAN, 0.9, 0.2], [2, 3], 2, id="the first is not a number"),
        pytest.param([0.9, 0.2, NAN], [1, 3], 1, id="the last is not a number"),
        pytest.param([0.9, float("inf"), 0.2], [1, 3], 1, id="one is infinite"),
        pytest.param([NAN, NAN, NAN], [3], 3, id="none is a number"),
    ],
)
def test_the_best_by_f1_stays_and_is_chosen(f1s, steps, best, tmp_path):
    save(tmp_path, f1s)
    assert kept(tmp_path) == steps
    assert folders.choose(tmp_path) == best


def test_a_checkpoint_that_is_measured_later_stays_as_the_best(tmp_path):
    save(tmp_path, [None])
    with CheckpointManager(tmp_path, CheckpointConfig(keep=1, keep_best=1)) as manager:
        manager.add_metrics(1, {"f1": 0.9})
    save(tmp_path, [0.1, 0.2])
    assert kept(tmp_path) == [1, 3]
    assert folders.choose(tmp_path) == 1


def test_metrics_that_are_added_do_not_vouch_for_what_has_been_damaged_since(tmp_path):
    save(tmp_path, [None, None])
    state = tmp_path / "checkpoint_2/state/_METADATA"
    state.write_text(state.read_text() + " ")
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        manager.add_metrics(2, {"f1": 0.9})
    with pytest.raises(DamagedError, match=r"checkpoint_2/state/_METADATA: damaged"):
        folders.check(tmp_path / "checkpoint_2")


def test_a_checkpoint_that_cannot_be_opened_again_was_not_saved(tmp_path, monkeypatch):
    """As where Orbax found nothing to merge, and said so in a warning alone."""
    save(tmp_path, [None])

    async def merge_nothing(*_, **__):
        pass

    monkeypatch.setattr(ocdbt_utils, "merge_ocdbt_per_process_files", merge_nothing)
    message = r"cannot be saved \(OSError: cannot be opened again: .*; checkpoint_1 is still"
    with pytest.raises(OSError, match=message):
        save(tmp_path, [None])
    assert kept(tmp_path) == [1]


def test_every_chunk_of_a_checkpoint_is_looked_for(tmp_path):
    save(tmp_path, [None])
    checkpoint = epath.Path(tmp_path / "checkpoint_1")
    t5x.check_orbax_is_whole(checkpoint)
    database = {"driver": "ocdbt", "base": f"file://{checkpoint}/state/"}
    store = tensorstore.KvStore.open(database).result()
    assert b"target.dense.kernel/0.0" in store.list().result()
    store.delete_range(tensorstore.KvStore.KeyRange("target.dense.kernel/0", "target.f")).result()
    with pytest.raises(OSError, match=r"target.dense.kernel: holds 0 of its 1 chunks"):
        t5x.check_orbax_is_whole(checkpoint)


def test_a_score_that_was_saved_and_is_not_a_number_is_not_the_best(tmp_path):
    """Of a run that an earlier version began."""
    save(tmp_path, [0.9])
    checkpoint = epath.Path(tmp_path / "checkpoint_1")
    folders.add_metrics(checkpoint, {"f1": NAN})
    assert not folders.is_measured(checkpoint)
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        assert manager.lacks_metrics(1)
    save(tmp_path, [0.3, 0.2])
    assert kept(tmp_path) == [2, 3]
    assert folders.choose(tmp_path) == 2


def test_what_is_measured_later_and_is_not_a_number_is_no_score(tmp_path):
    save(tmp_path, [None])
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        manager.add_metrics(1, {"f1": NAN})
        assert manager.lacks_metrics(1)


@pytest.mark.parametrize("is_stacked", [False, True])
def test_a_state_is_never_there_twice(is_stacked, tmp_path, monkeypatch):
    """One that fills half of a device's memory must be restored, too."""
    kernels = np.arange(8 * 64 * 64, dtype=np.float32).reshape(8, 64, 64)
    layers = {f"layers_{index}": {"kernel": jnp.array(k)} for index, k in enumerate(kernels)}
    params = {"encoder": layers, "dense": {"kernel": jnp.ones((2, 3))}}
    if is_stacked:
        params = stacks.stack(params)
    state = TrainState(jnp.int32(0), params, optimizers.adafactor().init(params), {})
    iterator = mock.Mock(spec=TrainIterator)
    state_size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        manager.save(state, iterator, None)
    everywhere = Partitioner().replicated
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state
    )
    wanted = jax.tree.map(np.asarray, state)
    del params, layers, state
    own, live = checkpoint_manager._own, []

    def watched(*arguments):
        owned = own(*arguments)
        live.append(sum(array.nbytes for array in jax.live_arrays()))
        return owned

    monkeypatch.setattr(checkpoint_manager, "_own", watched)
    before = sum(array.nbytes for array in jax.live_arrays())
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        restored = manager.restore(0, template, iterator)
    assert max(live) < before + 1.2 * state_size
    jax.tree.map(np.testing.assert_array_equal, restored, wanted)


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path, CheckpointConfig()) as manager:
        yield manager


def closing_raises(monkeypatch, manager, error):
    def close():
        raise error

    monkeypatch.setattr(manager._manager, "close", close)


def test_what_a_disk_does_not_take_is_told_in_a_line(manager, monkeypatch, tmp_path):
    (tmp_path / "checkpoint_3").mkdir()
    with monkeypatch.context() as patched:
        closing_raises(patched, manager, ValueError('RESOURCE_EXHAUSTED: Error writing "f"\nhere'))
        message = r"saved \(ValueError: RESOURCE_EXHAUSTED: .* \"f\"\); checkpoint_3 is still good"
        with pytest.raises(OSError, match=message):
            manager.close()


def test_a_mistake_of_ours_is_none_of_the_disks(manager, monkeypatch):
    with monkeypatch.context() as patched:
        closing_raises(patched, manager, KeyError("none"))
        with pytest.raises(KeyError):
            manager.close()


def test_orbax_tracebacks_are_kept_back_while_a_manager_is_open(tmp_path):
    logger = absl.logging.get_absl_logger()
    place = ("absl", logging.ERROR, "orbax/checkpoint/x.py", 1, "failed", (), (None, None, None))
    record = logging.LogRecord(*place)
    before = list(logger.filters)
    assert logger.filter(record)
    with CheckpointManager(tmp_path, CheckpointConfig()), CheckpointManager(tmp_path) as other:
        assert not logger.filter(record)
        other.close()
        assert not logger.filter(record)
    assert logger.filters == before
