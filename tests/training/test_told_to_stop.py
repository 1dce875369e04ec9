"""A run that is told to stop, and goes on when the same command is given again."""

import json
import os
import shutil
import signal
from unittest import mock

import pytest
from etils import epath
from tiny_run import assert_same_params, run

from uem_t5x.base import errors
from uem_t5x.checkpoints import folders
from uem_t5x.training import checkpoint_manager, predictor
from uem_t5x.training.trainer import Trainer


def test_a_run_that_is_told_to_stop_goes_on_as_if_undisturbed(
    undisturbed, dataset_folder, tmp_path, monkeypatch
):
    """Bit for bit: parameters, optimizer, dropout and the position in the data."""

    def told_to_stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("an evaluation goes on after SIGTERM")

    options = ("TRAIN_STEPS = 6", "EVAL_PERIOD = 2", "CHECKPOINT_PERIOD = 100")
    with monkeypatch.context() as patched:
        patched.setattr(predictor.Predictor, "predict_dataset", told_to_stop)
        with pytest.raises(errors.Preempted, match=r"told to stop \(SIGTERM\) at step 2"):
            run(tmp_path, dataset_folder, *options)
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_2"]
    step, resumed = run(tmp_path, dataset_folder, *options)
    assert step == 6
    assert_same_params(resumed, undisturbed[1])
    # Nor is a measurement missing.
    metrics = tmp_path / "inference_eval/movielens_genres_uem_20-metrics.jsonl"
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_told_to_stop_while_it_starts(undisturbed, dataset_folder, tmp_path, monkeypatch):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    restore = checkpoint_manager.CheckpointManager.restore

    def told_to_stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return restore(*arguments)

    monkeypatch.setattr(checkpoint_manager.CheckpointManager, "restore", told_to_stop)
    monkeypatch.setattr(Trainer, "_train_step", mock.Mock(side_effect=AssertionError))
    with pytest.raises(errors.Preempted, match=r"at step 6"):
        run(copy, dataset_folder, "TRAIN_STEPS = 8")


def test_told_to_stop_in_the_last_evaluation(dataset_folder, tmp_path, monkeypatch):
    def told_to_stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("an evaluation goes on after SIGTERM")

    monkeypatch.setattr(predictor.Predictor, "predict_dataset", told_to_stop)
    with pytest.raises(errors.Preempted, match=r"told to stop \(SIGTERM\) at step 1"):
        run(tmp_path, dataset_folder, "TRAIN_STEPS = 1")
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_1"]
    # The same command makes up for it, and does nothing more when it is given once more.
    monkeypatch.undo()
    for _ in range(2):
        run(tmp_path, dataset_folder, "TRAIN_STEPS = 1")
        folders.check(tmp_path / "checkpoint_1")
        assert folders.is_measured(epath.Path(tmp_path / "checkpoint_1"))
        metrics = tmp_path / "inference_eval/movielens_genres_uem_20-metrics.jsonl"
        assert len(metrics.read_text().splitlines()) == 1


def test_told_to_stop_while_the_last_checkpoint_is_written(dataset_folder, tmp_path, monkeypatch):
    close = checkpoint_manager.CheckpointManager.close

    def told_to_stop(manager):
        os.kill(os.getpid(), signal.SIGTERM)
        close(manager)

    monkeypatch.setattr(checkpoint_manager.CheckpointManager, "close", told_to_stop)
    step, _ = run(tmp_path, dataset_folder, "TRAIN_STEPS = 1", "EVAL_PERIOD = 0")
    assert step == 1
    folders.check(tmp_path / "checkpoint_1")
