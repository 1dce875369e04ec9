"""Training as a user runs it, on a tiny model: recipe in, checkpoints and metrics out."""

import json
import shutil
from pathlib import Path

import absl.logging
import jax
import numpy as np
import pytest
import tiny_data
import tiny_recipe
from tiny_recipe import BINDINGS as TINY
from tiny_run import assert_same_params, run, score_with

from uem_t5x import train
from uem_t5x.answers import evaluate
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError


def test_what_a_run_leaves_behind(undisturbed):
    model_dir, _ = undisturbed
    assert "TRAIN_STEPS = 6" in (model_dir / "config.gin").read_text()
    for collection in ("train", "training_eval/movielens_genres_uem_20"):
        assert list((model_dir / collection).glob("events.out.tfevents.*"))
    evaluation = model_dir / "inference_eval"
    metrics = (evaluation / "movielens_genres_uem_20-metrics.jsonl").read_text().splitlines()
    scores = [json.loads(line) for line in metrics]
    assert [score["step"] for score in scores] == [4, 6]
    # As little as it has learned, it writes nothing that cannot be read, and it is chosen by that.
    assert [score["unparseable"] for score in scores] == [0, 0]
    chosen = evaluate.evaluate(TrainedModel.load(model_dir, step=6), "validation")
    assert chosen["methods"]["uem"]["f1"] == pytest.approx(scores[1]["f1"])


def test_the_latest_checkpoints_are_kept(undisturbed):
    model_dir, _ = undisturbed
    steps = sorted(int(path.name.split("_")[1]) for path in model_dir.glob("checkpoint_*"))
    assert steps == [4, 6]  # the best is one of them; 2 was never measured


def test_the_best_by_f1_is_kept_and_used(dataset_folder, tmp_path, monkeypatch):
    score_with(monkeypatch, [0.9, 0.1, 0.2])
    periods = ("EVAL_PERIOD = 1", "CHECKPOINT_PERIOD = 1", "CHECKPOINTS_KEPT = 1")
    run(tmp_path, dataset_folder, "TRAIN_STEPS = 3", *periods)
    names = sorted(path.name for path in tmp_path.glob("*checkpoint_*"))
    assert names == ["checkpoint_1", "checkpoint_3"]
    assert TrainedModel.load(tmp_path).step == 1


def test_metrics_are_written_as_often_as_they_are_asked_for():
    def written(stats, evaluation, checkpoint=0):
        periods = train._Periods(9, stats, evaluation, checkpoint)
        return [step for step in range(1, 10) if periods.after(step).report]

    assert written(2, 4) == [2, 4, 6, 8, 9]
    assert written(0, 4) == [4, 8, 9]
    assert written(0, 0) == [9]
    assert written(0, 0, checkpoint=3) == [3, 6, 9]


def test_what_is_done_after_a_step():
    periods = train._Periods(10, stats=2, evaluation=4, checkpoint=4)
    assert not any(periods.after(1))
    assert periods.after(2) == (True, False, False)
    assert periods.after(4) == periods.after(10) == (True, True, True)
    # Told to stop, it saves at once and measures nothing.
    assert periods.after(3, is_stopped=True) == (True, False, True)
    assert not train._Periods(10, 2, 4, checkpoint=0).after(3, is_stopped=True).checkpoint


def test_a_finished_run_is_not_trained_again(undisturbed, dataset_folder, tmp_path):
    model_dir, state = undisturbed
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    step, again = run(copy, dataset_folder, "TRAIN_STEPS = 6")
    assert step == 6
    assert_same_params(again, state)


def test_a_run_of_another_recipe_is_not_gone_on_with(undisturbed, dataset_folder, tmp_path):
    """Nothing in the shapes of parameters would tell."""
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    recipe = (copy / "config.gin").read_text()
    others = r"holds a run with HISTORY_LENGTH = 20, and not 10, RANDOM_SEED = 0, and not 7; "
    with pytest.raises(InputError, match=others + r".*INITIAL_CHECKPOINT_PATH='.*checkpoint_6'"):
        run(copy, dataset_folder, "TRAIN_STEPS = 8", "RANDOM_SEED = 7", "HISTORY_LENGTH = 10")
    # Of a finished run nothing is trained, and nothing is recorded.
    run(copy, dataset_folder, "TRAIN_STEPS = 6", "LEARNING_RATE = 0.5")
    assert (copy / "config.gin").read_text() == recipe
    # But what its checkpoints need is made up for.
    shutil.rmtree(copy / "catalogue")
    run(copy, dataset_folder, "TRAIN_STEPS = 6")
    TrainedModel.load(copy)
    assert run(copy, dataset_folder, "TRAIN_STEPS = 7", "LEARNING_RATE = 0.5")[0] == 7
    assert "LEARNING_RATE = 0.5" in (copy / "config.gin").read_text()


def test_a_model_of_other_sizes_is_not_gone_on_with(undisturbed, dataset_folder):
    with pytest.raises(InputError, match=r"another model: .* has shape .*MODEL_DIR") as error:
        run(undisturbed[0], dataset_folder, "network.T5Config.mlp_dim = 24")
    assert "\n" not in error.value.line
    assert not absl.logging.get_absl_logger().filters  # the manager was closed


def test_a_run_without_validation_users_is_not_scored(dataset_folder, tmp_path):
    movielens = Path(dataset_folder.path.parent / "movielens")
    folder = tiny_data.prepared(movielens, tmp_path / "dataset", validation_users=0)
    step, _ = run(tmp_path / "model", folder, "TRAIN_STEPS = 1", "STATS_PERIOD = 0")
    assert step == 1
    assert (tmp_path / "model/checkpoint_1").is_dir()
    assert not list((tmp_path / "model/inference_eval").glob("*"))


def test_microbatches_give_the_gradients_of_the_whole_batch(dataset_folder, tmp_path):
    options = ("TRAIN_STEPS = 2", "EVAL_PERIOD = 0", "CHECKPOINT_PERIOD = 0", "DROPOUT_RATE = 0.0")
    _, whole = run(tmp_path / "whole", dataset_folder, *options)
    _, parts = run(tmp_path / "parts", dataset_folder, *options, "NUM_MICROBATCHES = 2")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), whole.params, parts.params
    )


OTHER_OPTIMIZER = """
from __gin__ import dynamic_registration
import optax
from uem_t5x import models
include 'gin/uem_tiny.gin'
models.EncoderDecoderModel.optimizer_def = @optax.scale_by_adam()
"""


def test_another_optimizer_is_saved_and_gone_on_with(dataset_folder, tmp_path):
    recipe = tmp_path / "adam.gin"
    recipe.write_text(OTHER_OPTIMIZER)

    def train_to(step, folder, *more):
        places = tiny_recipe.places(tmp_path / folder, dataset_folder.path)
        options = [f"TRAIN_STEPS = {step}", "EVAL_PERIOD = 0", "LEARNING_RATE = 0.001"]
        return train.run_recipe([recipe], [*TINY, *options, *more, *places])[1]

    whole = train_to(3, "whole")
    train_to(2, "parts")
    parts = train_to(3, "parts")
    assert int(parts.opt_state.count) == 3
    jax.tree.map(np.testing.assert_array_equal, parts.opt_state, whole.opt_state)
    assert_same_params(parts, whole)
    assert TrainedModel.load(tmp_path / "parts").step == 3
    with pytest.raises(InputError, match=r"of another optimizer, or SCAN_LAYERS: state/optimizer"):
        train_to(4, "parts", "SCAN_LAYERS = True")


def test_the_hardware_generator_draws_other_numbers(
    undisturbed, dataset_folder, tmp_path, monkeypatch
):
    score_with(monkeypatch, [0.1])
    step, state = run(tmp_path, dataset_folder, "TRAIN_STEPS = 1", "USE_HARDWARE_RNG = True")
    assert step == 1
    kernels = [s.params["decoder"]["logits_dense"]["kernel"] for s in (undisturbed[1], state)]
    assert np.isfinite(kernels).all()
    # So few steps, at so low a rate, leave nearly all of what was drawn.
    assert abs(np.corrcoef(np.ravel(kernels[0]), np.ravel(kernels[1]))[0, 1]) < 0.5
