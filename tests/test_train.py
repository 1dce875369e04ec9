"""Training as a user runs it, on a tiny model: recipe in, checkpoints and metrics out."""

import concurrent.futures
import dataclasses
import io
import json
import os
import queue
import re
import shutil
import signal
import threading
from pathlib import Path
from unittest import mock

import absl.logging
import gin
import jax
import numpy as np
import optax
import pytest
import seqio
import tensorflow as tf
import tiny_recipe
from etils import epath
from tiny_recipe import BINDINGS as TINY
from tiny_recipe import RECIPE

from uem_t5x import cli, network, train
from uem_t5x.answers import evaluate, predict, user_lines
from uem_t5x.answers.trained_model import Answerer, TrainedModel
from uem_t5x.base import errors
from uem_t5x.base.errors import DamagedError, InputError
from uem_t5x.checkpoints import folders
from uem_t5x.commands import train as train_command
from uem_t5x.data import seal, synthetic
from uem_t5x.data.manifest import Channel
from uem_t5x.data.prepare import PrepareOptions, prepare
from uem_t5x.inputs import batches, data_sources, feature_converters, preprocessors, questions
from uem_t5x.inputs import users as users_lib
from uem_t5x.runs import recipes
from uem_t5x.tasks import movielens
from uem_t5x.tastes import metrics, sentences, verbalizer
from uem_t5x.training import checkpoint_manager, predictor
from uem_t5x.training.trainer import Trainer


def run(model_dir, dataset_folder, *bindings):
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    return train.run_recipe([RECIPE], [*TINY, *places, *bindings])


def assert_same_params(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, other.opt_state)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset_folder):
    """Six steps at a stretch, measured and saved every two."""
    model_dir = tmp_path_factory.mktemp("undisturbed")
    periods = ("EVAL_PERIOD = 4", "CHECKPOINT_PERIOD = 2")
    step, state = run(model_dir, dataset_folder, "TRAIN_STEPS = 6", *periods)
    assert step == 6
    return model_dir, state


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


def test_a_task_may_score_given_answers(dataset_folder, tmp_path):
    """By the model's log-likelihood of them, which is what the loss is made of."""
    given, written = [], []

    def of_given_answers(targets, scores):
        given.extend(scores)
        return {"f1": 0.5}  # without one, a checkpoint keeps no scores

    def of_written_answers(targets, predictions, aux_values):
        written.extend(zip(predictions, aux_values["scores"], strict=True))
        return {}

    task = seqio.get_mixture_or_task(movielens.uem_task(20))
    name = "movielens_scored_20"
    seqio.TaskRegistry.add(
        name,
        source=task.source,
        preprocessors=task.preprocessors,
        output_features=task.output_features,
        metric_fns=[of_given_answers, of_written_answers],
    )
    try:
        options = (f"MIXTURE_OR_TASK_NAME = '{name}'", "EVAL_STEPS = None", "TRAIN_STEPS = 1")
        run(tmp_path, dataset_folder, *options, "WELL_FORMED_ANSWERS = False")
        trained = TrainedModel.load(tmp_path)
        config = batches.DatasetConfig(name, trained.feature_lengths, "validation", 64)
        with trained.current(dataset_folder):
            (batch,) = questions.of_split(config, trained.model.FEATURE_CONVERTER_CLS)
    finally:
        seqio.TaskRegistry.remove(name)
    loss = json.loads((tmp_path / "checkpoint_1/metrics/metrics").read_text())["eval_loss"]
    tokens = (batch.features["decoder_target_tokens"] > 0).sum()
    assert sum(given) == pytest.approx(-loss * tokens)
    # Each is that of its user.
    model, users = trained.model, dataset_folder.num_examples("validation")
    variables = (trained.params, batch.features)
    scores = model.score_batch(*variables, trained.flax_mutables)
    np.testing.assert_allclose(given, scores, rtol=1e-4)
    assert len(set(np.round(scores, 3).tolist())) > users / 2
    answers, aux = model.predict_batch_with_aux(*variables, flax_mutables=trained.flax_mutables)
    assert [answer for answer, _ in written] == [
        model.output_vocabulary.decode(ids) for ids in np.asarray(answers).tolist()
    ]
    np.testing.assert_allclose([score for _, score in written], aux["scores"], rtol=1e-4)


def score_with(monkeypatch, f1s):
    """Has evaluations end with these F1s, one after the other, and nobody be answered."""
    remaining = iter(f1s)

    def evaluate(*_, **__):
        future = concurrent.futures.Future()
        future.set_result({"task": {"f1": next(remaining)}})
        return future, None

    monkeypatch.setattr(seqio.Evaluator, "evaluate", evaluate)


def test_the_best_by_f1_is_kept_and_used(dataset_folder, tmp_path, monkeypatch):
    score_with(monkeypatch, [0.9, 0.1, 0.2])
    periods = ("EVAL_PERIOD = 1", "CHECKPOINT_PERIOD = 1", "CHECKPOINTS_KEPT = 1")
    run(tmp_path, dataset_folder, "TRAIN_STEPS = 3", *periods)
    names = sorted(path.name for path in tmp_path.glob("*checkpoint_*"))
    assert names == ["checkpoint_1", "checkpoint_3"]
    assert TrainedModel.load(tmp_path).step == 1


@pytest.mark.parametrize("f1s", [(0.5, float("nan")), (float("inf"), -float("inf"))])
def test_a_mean_over_tasks_is_no_score_where_one_has_none(f1s):
    means = metrics.mean_scores([{"f1": f1, "loss": 2.0 * f1} for f1 in (0.25, 0.75)])
    assert means == {"f1": 0.5, "loss": 1.0}
    assert not folders.has_score(metrics.mean_scores([{"f1": f1} for f1 in f1s]))


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


def test_told_to_stop_while_the_last_checkpoint_is_written(dataset_folder, tmp_path, monkeypatch):
    close = checkpoint_manager.CheckpointManager.close

    def told_to_stop(manager):
        os.kill(os.getpid(), signal.SIGTERM)
        close(manager)

    monkeypatch.setattr(checkpoint_manager.CheckpointManager, "close", told_to_stop)
    step, _ = run(tmp_path, dataset_folder, "TRAIN_STEPS = 1", "EVAL_PERIOD = 0")
    assert step == 1
    folders.check(tmp_path / "checkpoint_1")


class TestDivergence:
    MESSAGE = (
        r"uem_t5x\.train: the (loss|gradient) is not a finite number at step (\d+); "
        r"its batch holds the users ([^;]*); (.*)\. Look at their histories, or lower LEARNING_RATE"
    )
    # One update of this size leads to where nothing is a number, though its own loss is one.
    RUINOUS = ("LEARNING_RATE=1e30", "WARMUP_STEPS=0", "CHECKPOINT_PERIOD=1", "EVAL_PERIOD=0")

    def stopped(self, model_dir, dataset_folder, capsys, *macros):
        places = [f"MODEL_DIR={model_dir}", f"DATA_DIR={dataset_folder.path}"]
        tiny = [line.replace(" = ", "=") for line in TINY]
        given = [f"--gin.{macro}" for macro in (*tiny, *places, *macros)]
        assert train_command.main([f"--gin_file={RECIPE}", *given]) == 1
        found = re.fullmatch(self.MESSAGE, capsys.readouterr().err.splitlines()[-1])
        assert len(found[3].split(", ")) == 16
        return found[1], int(found[2]), found[4]

    def test_what_gives_no_loss_is_not_saved(self, undisturbed, dataset_folder, tmp_path, capsys):
        copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
        stopped = self.stopped(copy, dataset_folder, capsys, "TRAIN_STEPS=9", *self.RUINOUS)
        assert stopped == ("loss", 7, "checkpoint_6 is still good")
        # And so it is: training goes on from it.
        step, state = run(copy, dataset_folder, "TRAIN_STEPS = 7")
        assert step == 7
        jax.tree.map(lambda leaf: np.testing.assert_array_less(np.abs(leaf), 1e3), state.params)

    def test_a_run_that_never_was_good(self, dataset_folder, tmp_path, capsys):
        stopped = self.stopped(tmp_path, dataset_folder, capsys, *self.RUINOUS)
        assert stopped == ("loss", 1, "no checkpoint was saved")
        assert not list(tmp_path.glob("checkpoint_*"))

    def test_a_gradient_that_is_no_number(self, dataset_folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(optax, "global_norm", lambda _: jax.numpy.float32(np.inf))
        stopped = self.stopped(tmp_path, dataset_folder, capsys, "TRAIN_STEPS=2")
        assert stopped == ("gradient", 1, "no checkpoint was saved")


@pytest.fixture
def mixture():
    """A mixture of two tasks."""
    name = "movielens_uem_twice"
    seqio.MixtureRegistry.add(name, [movielens.uem_task(20), movielens.uem_task(5)], 1.0)
    yield name
    seqio.MixtureRegistry.remove(name)


@pytest.mark.parametrize("is_mixture", [False, True])
def test_the_users_of_a_batch(is_mixture, mixture, dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        config = batches.DatasetConfig(
            mixture if is_mixture else movielens.uem_task(20),
            {"inputs": 8, "targets": 8, "history_items": 20, "history_ratings": 20},
            "train",
            batch_size=16,
            shuffle=True,
            seed=3,
            num_shards=2,
        )
        iterator = batches.TrainIterator(config, feature_converters.UserEmbeddingFeatureConverter)
        users = users_lib.read(dataset_folder, "train").most_recent(20)
        histories = {user: users.history(index)[0] for index, user in enumerate(users.ids)}
        for index, batch in zip(range(5), iterator):  # more than an epoch
            told = [histories[user] for user in iterator.user_ids(index)]
            for items, expected in zip(batch["history_items"], told, strict=True):
                items = items[items > 0]
                np.testing.assert_array_equal(items, expected[len(expected) - len(items) :])
                assert len(items) in (
                    {len(expected), min(5, len(expected))} if is_mixture else {len(expected)}
                )


def test_a_mixture_is_not_one_question(mixture, dataset_folder):
    lengths = {"inputs": 8, "targets": 8, "history_items": 20, "history_ratings": 20}
    config = batches.DatasetConfig(mixture, lengths, "test", batch_size=4)
    converter = feature_converters.UserEmbeddingFeatureConverter
    with data_sources.use_dataset_folder(dataset_folder):
        for ask in (questions.of_split, questions.Questioner):
            with pytest.raises(
                InputError, match=f"{mixture}: a mixture .*: --task {movielens.uem_task(20)}, m"
            ):
                ask(config, converter)


def test_a_mixture_is_scored_by_the_mean_of_its_tasks():
    one, other = {"f1": 0.5, "liked_f1": 0.25}, {"f1": 0.25, "rouge": 1}
    assert metrics.mean_scores([one]) == one
    assert metrics.mean_scores([one, other]) == {"f1": 0.375, "liked_f1": 0.25, "rouge": 1.0}


def test_more_parts_of_the_data_than_users(dataset_folder):
    lengths = {"inputs": 8, "targets": 8, "history_items": 20, "history_ratings": 20}
    with data_sources.use_dataset_folder(dataset_folder):
        config = batches.DatasetConfig(
            movielens.uem_task(20), lengths, "test", batch_size=64, shuffle=True, num_shards=64
        )
        with pytest.raises(InputError, match=r"SHARDS=64 .* 'test' has \d+ users"):
            batches.TrainIterator(config, feature_converters.UserEmbeddingFeatureConverter)


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


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def largest_file(folder):
    return max(folder.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def test_a_damaged_checkpoint_is_set_aside(undisturbed, dataset_folder, tmp_path):
    model_dir, state = undisturbed
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    damage(largest_file(copy / "checkpoint_6"))
    with pytest.raises(DamagedError, match=r"checkpoint_6/.*: damaged: its checksum is another"):
        TrainedModel.load(copy, step=6)
    assert TrainedModel.load(copy).step == 4
    # Training goes on from the one before, and comes to the same end.
    step, again = run(copy, dataset_folder, "TRAIN_STEPS = 6")
    assert step == 6
    assert_same_params(again, state)
    names = sorted(path.name for path in copy.glob("*checkpoint_*"))
    assert names == ["checkpoint_4", "checkpoint_6", "damaged_checkpoint_6"]

    # And so it does when the disk damages the same step again.
    damage(largest_file(copy / "checkpoint_6"))
    _, again = run(copy, dataset_folder, "TRAIN_STEPS = 6")
    assert_same_params(again, state)


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


def test_a_run_without_validation_users_is_not_scored(dataset_folder, tmp_path):
    movielens = dataset_folder.path.parent / "movielens"
    folder = prepare(
        PrepareOptions(
            movielens=Path(movielens),
            descriptions=Path(movielens / synthetic.DESCRIPTIONS),
            output=tmp_path / "dataset",
            encoder_width=16,
            validation_users=0,
            test_users=10,
            vocabulary_size=256,
        )
    )
    step, _ = run(tmp_path / "model", folder, "TRAIN_STEPS = 1", "STATS_PERIOD = 0")
    assert step == 1
    assert (tmp_path / "model/checkpoint_1").is_dir()
    assert not list((tmp_path / "model/inference_eval").glob("*"))


def test_a_run_without_a_good_checkpoint_is_refused(undisturbed, dataset_folder, tmp_path):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    for name in ("state/_METADATA", "metrics/metrics"):
        damage(copy / "checkpoint_4" / name)
    (copy / "checkpoint_6/checksums.json").write_text('{"files"')
    for attempt in (lambda: run(copy, dataset_folder), lambda: TrainedModel.load(copy)):
        with pytest.raises(DamagedError, match=r"checkpoint_6/checksums.json: unreadable"):
            attempt()
    assert len(list(copy.glob("checkpoint_*"))) == 2


class TestTrained:
    @pytest.fixture(scope="class")
    def trained(self, undisturbed):
        return TrainedModel.load(undisturbed[0], step=6)

    def test_a_checkpoint_holds_the_trained_parameters_and_the_item_table(
        self, trained, undisturbed
    ):
        state = undisturbed[1]
        jax.tree.map(np.testing.assert_array_equal, trained.params, state.params)
        jax.tree.map(np.testing.assert_array_equal, trained.flax_mutables, state.flax_mutables)
        assert trained.history_length == 20

    def test_scores_do_not_depend_on_the_batch_size(self, trained):
        first = evaluate.evaluate(trained, "validation", batch_size=4)
        second = evaluate.evaluate(trained, "validation", batch_size=8)
        assert first == second
        assert first["examples"] == 10
        assert first["step"] == 6
        assert first["history_length"] == 20
        assert list(first["methods"]) == ["uem", "counting", "rule"]
        assert first["methods"]["rule"]["f1"] > first["methods"]["counting"]["f1"]
        assert sum(sum(row.values()) for row in first["confusion"].values()) == 10 * len(
            trained.catalogue.genres
        )
        assert 1 <= first["items_read"]["least"] <= first["items_read"]["most"] <= 20
        f1s = [user["f1"] for user in first["users"]]
        assert len(f1s) == 6 and f1s == sorted(f1s)
        assert first["users"][0]["truth"].startswith("The user")

    def test_scores_tell_of_which_state_of_the_run_they_are(self, undisturbed):
        best = folders.best(undisturbed[0])
        assert best == folders.choose(undisturbed[0])
        for step, well_formed in ((4, False), (6, True)):
            trained = TrainedModel.load(undisturbed[0], step, well_formed)
            told = evaluate.evaluate(trained, "validation")
            names = ("step", "trained_steps", "is_best", "well_formed")
            assert [told[name] for name in names] == [step, 6, step == best, well_formed]

    @pytest.mark.parametrize("layout", ["fsdp", "model=2"])
    def test_answers_do_not_depend_on_the_layout(self, layout, trained, undisturbed):
        split = TrainedModel.load(undisturbed[0], step=6, layout=layout)
        jax.tree.map(np.testing.assert_array_equal, split.params, trained.params)
        held = [leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(split.params)]
        assert sum(held) < 0.9 * sum(leaf.nbytes for leaf in jax.tree.leaves(trained.params))
        assert evaluate.evaluate(split, "validation") == evaluate.evaluate(trained, "validation")

    def test_a_model_of_other_sizes_is_not_answered_with(self, undisturbed, tmp_path):
        copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
        recipe = copy / "config.gin"
        recipe.write_text(f"{recipe.read_text()}\nPROMPT_LENGTH = 3\n")
        with pytest.raises(
            InputError, match=r"checkpoint_6 is of another model: .*task_prompt/emb"
        ):
            TrainedModel.load(copy, step=6)

    def test_answers_can_all_be_read_unless_the_model_is_let_free(self, trained, undisturbed):
        # After six steps it writes next to nothing by itself.
        free = TrainedModel.load(undisturbed[0], step=6, well_formed=False)
        assert evaluate.evaluate(free, "validation")["methods"]["uem"]["unparseable"] > 0
        assert evaluate.evaluate(trained, "validation")["methods"]["uem"]["unparseable"] == 0

    def test_a_task_of_other_answers_has_no_grammar(self, undisturbed):
        """Whoever asks for one is told; else it is answered freely, and its scores say so."""

        @seqio.map_over_dataset
        def count(example):
            return {**example, "targets": tf.strings.as_string(tf.size(example["liked"]))}

        genres = seqio.get_mixture_or_task(movielens.uem_task(20))
        name = "movielens_counted_20"
        seqio.TaskRegistry.add(
            name,
            source=genres.source,
            preprocessors=[
                count if step is preprocessors.answer else step for step in genres.preprocessors
            ],
            output_features=genres.output_features,
        )
        try:
            asked = {"step": 6, "task": name}
            with pytest.raises(InputError, match=f"{name}: the grammar is not that of its answers"):
                TrainedModel.load(undisturbed[0], well_formed=True, **asked)
            free = TrainedModel.load(undisturbed[0], **asked)
            assert not evaluate.evaluate(free, "validation")["well_formed"]
        finally:
            seqio.TaskRegistry.remove(name)

    def test_every_answer_is_written_with_the_truth(self, trained, dataset_folder, tmp_path):
        file = tmp_path / "answers.jsonl"
        scores = evaluate.evaluate(trained, "validation", answers_file=file)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        users = users_lib.read(dataset_folder, "validation")
        assert [row["user_id"] for row in rows] == users.ids
        assert [(row["true_liked"], row["true_disliked"]) for row in rows] == users.tastes
        # What a user of these files would compute is what was scored.
        predicted = [(row["liked"], row["disliked"]) for row in rows]
        again = metrics.score(users.tastes, predicted, dataset_folder.genres)
        assert again == scores["methods"]["uem"]
        assert [row["answer"] for row in rows] == [verbalizer.write_answer(*p) for p in predicted]
        assert {row["items"] for row in rows} == {20}

    def test_each_user_is_given_their_own_answer(
        self, undisturbed, sharded_folder, dataset_folder, tmp_path
    ):
        """With users in several files, whose histories and labels are read apart from batches."""
        # By itself it has more to say, if little sense.
        trained = TrainedModel.load(undisturbed[0], step=6, well_formed=False)
        file = tmp_path / "answers.jsonl"
        sharded = str(sharded_folder.path)
        evaluate.evaluate(trained, "train", sharded, batch_size=8, answers_file=file)
        rows = {row["user_id"]: row for row in map(json.loads, file.read_text().splitlines())}
        users = users_lib.read(dataset_folder, "train")  # in one file
        histories = [[tuple(part.tolist()) for part in users.history(n)] for n in range(len(rows))]
        asked = [predict.User(user, *own, unknown=0) for user, own in zip(users.ids, histories)]
        answers = predict.predict(trained, asked, batch_size=8)
        expected = {answer["user_id"]: answer["answer"] for answer in answers}
        assert len(set(expected.values())) > 5
        assert {user: row["answer"] for user, row in rows.items()} == expected
        tastes = {user: (row["true_liked"], row["true_disliked"]) for user, row in rows.items()}
        assert tastes == dict(zip(users.ids, users.tastes))

    def test_training_users_are_scored_as_they_are(self, trained):
        scores = evaluate.evaluate(trained, "train")
        # Histories of 50 items of which the 20 most recent are read, not stretches of 10 to 100.
        assert scores["items_read"]["least"] == scores["items_read"]["most"] == 20

    def test_another_catalogue_is_refused(self, trained, undisturbed, dataset_folder, tmp_path):
        other = self.resealed(dataset_folder, tmp_path, encoder={"name": "other", "width": 16})
        with pytest.raises(InputError, match="not the catalogue"):
            evaluate.evaluate(trained, data_dir=str(other.path))
        with pytest.raises(InputError, match=r"not the data .* choose another MODEL_DIR"):
            run(undisturbed[0], other, "TRAIN_STEPS = 8")

    def test_other_users_of_the_catalogue_are_scored_and_not_trained_on(
        self, trained, undisturbed, dataset_folder, tmp_path
    ):
        other = self.resealed(dataset_folder, tmp_path, inputs={"ratings": "0" * 64})
        scores = evaluate.evaluate(trained, "validation", data_dir=str(other.path))
        assert scores == evaluate.evaluate(trained, "validation")
        with pytest.raises(InputError, match=r"not the data .* choose another MODEL_DIR"):
            run(undisturbed[0], other, "TRAIN_STEPS = 8")

    def test_users_that_are_split_otherwise_are_not_mixed_with_its_own(
        self, trained, undisturbed, dataset_folder, tmp_path
    ):
        options = dict(dataset_folder.manifest.options, output=tmp_path / "other", seed=1)
        for name in ("movielens", "descriptions"):
            options[name] = Path(options[name])
        other = prepare(PrepareOptions(**options))
        with pytest.raises(InputError, match=r"that it may know users of .test.; give"):
            evaluate.evaluate(trained, data_dir=str(other.path))
        with pytest.raises(InputError, match=r"users or labels \(train, validation, test\) are"):
            run(undisturbed[0], other, "TRAIN_STEPS = 8")

    def test_another_split_for_test_is_scored_and_not_trained_on(
        self, trained, undisturbed, dataset_folder, tmp_path
    ):
        other = shutil.copytree(dataset_folder.path, tmp_path / "other")
        self.swap(other, "validation", "test")
        sealed = seal.seal(other)
        scores = evaluate.evaluate(trained, data_dir=str(other))
        of_validation = evaluate.evaluate(trained, "validation")
        assert scores.pop("split") == "test" and of_validation.pop("split") == "validation"
        assert scores == of_validation
        assert scores["split_sha256"] == sealed.manifest.splits["test"].sha256
        changed = r"users or labels \(validation, test\) are not"
        with pytest.raises(InputError, match=changed) as error:
            run(undisturbed[0], sealed, "TRAIN_STEPS = 8")
        assert "\n" not in error.value.line and str(other) in error.value.line

    @staticmethod
    def swap(folder, *splits):
        """Gives each of two splits the users of the other."""
        one, other = (folder / f"examples/{split}-00000-of-00001.tfrecord" for split in splits)
        users = one.read_bytes()
        other.rename(one)
        other.write_bytes(users)

    def test_a_split_without_users_has_no_scores(self, trained, dataset_folder, tmp_path):
        splits = dict(json.loads((dataset_folder.path / "manifest.json").read_text())["splits"])
        splits["test"] = {"examples": 0, "shards": 0}
        other = self.resealed(dataset_folder, tmp_path, splits=splits)
        with pytest.raises(InputError, match="the split 'test' has no users"):
            evaluate.evaluate(trained, data_dir=str(other.path))

    @staticmethod
    def resealed(dataset_folder, tmp_path, **fields):
        other = shutil.copytree(dataset_folder.path, tmp_path / "other")
        manifest = json.loads((other / "manifest.json").read_text())
        (other / "manifest.json").write_text(json.dumps({**manifest, **fields}))
        return seal.seal(other)

    def test_predict_asks_as_the_task_does(self, trained, dataset_folder):
        config = batches.DatasetConfig(trained.task, trained.feature_lengths, "test", 4)
        with trained.current(dataset_folder):
            users = users_lib.read(dataset_folder, "test")
            asked = questions.of_split(config, trained.model.FEATURE_CONVERTER_CLS)
            instruction = trained.model.input_vocabulary.encode(sentences.INSTRUCTION)
        assert len(instruction) > trained.feature_lengths["inputs"]  # it is cut
        given = [
            {"user_id": "u", "history_items": items.tolist(), "history_ratings": stars.tolist()}
            for items, stars in map(users.history, range(len(users.ids)))
        ]
        with trained.current():
            ask = questions.Questioner(config, trained.model.FEATURE_CONVERTER_CLS)
        features = ("encoder_input_tokens", "history_items", "history_ratings")
        for start, batch in zip(range(0, len(given), 4), asked, strict=True):
            again = ask(given[start : start + 4])
            np.testing.assert_array_equal(batch.items_read, again.items_read)
            assert batch.user_ids == [id_.encode() for id_ in users.ids[start : start + 4]]
            for name in features:
                np.testing.assert_array_equal(batch.features[name], again.features[name])

    def test_a_task_that_leaves_users_out_is_not_answered(self, trained, dataset_folder):
        task = seqio.get_mixture_or_task(trained.task)

        def some(dataset):
            return dataset.filter(lambda example: tf.size(example["history_items"]) > 1)

        seqio.TaskRegistry.add(
            "not_everyone_20",
            source=task.source,
            preprocessors=[some, *task.preprocessors],
            output_features=task.output_features,
        )
        other = dataclasses.replace(trained, task="not_everyone_20")
        users = [predict.User("one", (5,), (9,), 0), predict.User("two", (5, 6), (9, 2), 0)]
        try:
            assert len(list(predict.predict(other, users[1:], batch_size=4))) == 1
            with pytest.raises(InputError, match="not_everyone_20: makes 1 examples of 2 users"):
                list(predict.predict(other, users, batch_size=4))
            with pytest.raises(
                InputError,
                match=r"not_everyone_20: .*fail on 1 users, or .*\(Dataset was empty\.\)",
            ):
                list(predict.predict(other, users[:1], batch_size=4))
        finally:
            seqio.TaskRegistry.remove("not_everyone_20")

    def test_a_task_that_gives_users_in_another_order_is_not_answered(
        self, trained, dataset_folder
    ):
        task = seqio.get_mixture_or_task(trained.task)

        def rotate(dataset):
            return dataset.skip(1).concatenate(dataset.take(1))

        def forget(dataset):
            return dataset.map(lambda x: {k: v for k, v in x.items() if k != "user_id"})

        for name, steps in {"rotated_20": [rotate], "nameless_20": [forget]}.items():
            seqio.TaskRegistry.add(
                name,
                source=task.source,
                preprocessors=[*steps, *task.preprocessors],
                output_features=task.output_features,
            )
        rotated = dataclasses.replace(trained, task="rotated_20")
        users = [predict.User("one", (5,), (9,), 0), predict.User("two", (5, 6), (9, 2), 0)]
        first, second = users_lib.read(dataset_folder, "test").ids[:2]
        try:
            with pytest.raises(
                InputError,
                match=rf"rotated_20: its example 0 is of .*'{second}', .*'{first}'; it must keep",
            ):
                evaluate.evaluate(rotated, "test")
            with pytest.raises(InputError, match=r"rotated_20: .* 'two', and not of 'one'"):
                list(predict.predict(rotated, users, batch_size=4))
            nameless = dataclasses.replace(trained, task="nameless_20")
            scores = evaluate.evaluate(nameless, "test")
            assert scores["methods"] == evaluate.evaluate(trained, "test")["methods"]
        finally:
            seqio.TaskRegistry.remove("rotated_20")
            seqio.TaskRegistry.remove("nameless_20")

    def test_users_are_asked_for_a_batch_at_a_time(self, trained):
        read = []

        def users():
            for number in range(9):
                read.append(number)
                yield predict.User(number, (5, 6), (9, 2), 0)

        answers = predict.predict(trained, users(), batch_size=4)
        assert next(answers)["user_id"] == 0
        assert read == [0, 1, 2, 3]

    def test_a_run_whose_optimizer_was_told_of_stacked_layers(self, undisturbed, tmp_path):
        copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
        with (copy / "config.gin").open("a") as file:
            file.write("\nengine.adafactor.scan_layers = %SCAN_LAYERS\n")
        assert TrainedModel.load(copy).step == TrainedModel.load(undisturbed[0]).step

    def test_it_stays_what_it_is_when_another_recipe_is_read(self, trained):
        scores = evaluate.evaluate(trained, "validation")
        with gin.unlock_config():
            gin.bind_parameter(
                "uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", "other.model"
            )
        assert evaluate.evaluate(trained, "validation") == scores
        user = predict.User("u", (5, 6), (9, 2), unknown=0)
        assert len(list(predict.predict(trained, [user]))) == 1

    @pytest.mark.parametrize("size", ["0", "-1", "3"])
    def test_batches_that_devices_cannot_share(self, size, undisturbed, tmp_path, capsys):
        histories, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        histories.write_text('{"user_id": "a", "history": []}\n')
        output.write_text("as it was")
        for command in (
            ["predict", "--input", str(histories), "--output", str(output)],
            ["evaluate", "--split", "validation"],
        ):
            arguments = ["--model-dir", str(undisturbed[0]), f"--batch-size={size}"]
            assert cli.main([*command, *arguments]) == 2
            assert f"--batch-size={size}" in capsys.readouterr().err
        assert output.read_text() == "as it was"

    def test_reading_leaves_a_checkpoint_that_is_being_saved(self, undisturbed, tmp_path):
        copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
        begun = copy / "checkpoint_8.orbax-checkpoint-tmp" / "state"
        begun.mkdir(parents=True)
        TrainedModel.load(copy)
        assert begun.is_dir()

    def test_predict_answers_in_order_whatever_the_batch(self, trained):
        users = [
            predict.User(f"u{n}", tuple(range(1, 2 + n)), tuple([9] * (1 + n)), unknown=0)
            for n in range(6)
        ]
        one_by_one = list(predict.predict(trained, users, batch_size=4))
        together = list(predict.predict(trained, users, batch_size=8))
        assert one_by_one == together
        assert [answer["user_id"] for answer in together] == [user.user_id for user in users]

    @pytest.mark.parametrize("row", [0, -1, 9999])
    def test_rows_that_no_movie_has(self, row, trained):
        users = [predict.User("good", (5,), (9,)), predict.User("bad", (5, row), (9, 2))]
        with pytest.raises(InputError, match=rf"user 'bad': {row} is no row of the catalogue's"):
            list(predict.predict(trained, users))

    def test_a_task_of_other_features_is_not_asked(self, undisturbed, tmp_path, capsys):
        histories = tmp_path / "in.jsonl"
        histories.write_text('{"user_id": "a", "history": []}\n')
        task = ["--model-dir", str(undisturbed[0]), "--task", "movielens_genres_text_5"]
        for command in (["predict", "--input", str(histories)], ["evaluate"]):
            assert cli.main([*command, *task]) == 2
            told = capsys.readouterr().err
            assert "movielens_genres_text_5: a task of inputs, targets, where the model" in told

    def test_histories_are_not_overwritten(self, undisturbed, tmp_path, capsys):
        histories = tmp_path / "in.jsonl"
        histories.write_text('{"user_id": "a", "history": []}\n')
        before = histories.read_bytes()
        model = ["--model-dir", str(undisturbed[0]), "--input", str(histories)]
        assert cli.main(["predict", *model, "--output", f"{tmp_path}/../{tmp_path.name}/in.jsonl"])
        assert "the histories lie there" in capsys.readouterr().err
        assert histories.read_bytes() == before

    def test_histories_may_come_from_a_pipe(self, undisturbed, tmp_path, capsys):
        os.mkfifo(tmp_path / "pipe")
        line = '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}\n'
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit((tmp_path / "pipe").write_text, line)
            arguments = ["--model-dir", str(undisturbed[0]), "--input", str(tmp_path / "pipe")]
            assert cli.main(["predict", *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["items"] == 1
        assert cli.main(["predict", "--model-dir", "m", "--input", str(tmp_path)]) == 2
        assert f"{tmp_path}: a folder; give JSON lines" in capsys.readouterr().err

    def test_a_recipe_whose_data_lie_elsewhere(self, trained, tmp_path):
        moved = dataclasses.replace(trained, data_dir=str(tmp_path / "gone"))
        with pytest.raises(InputError, match=r"gone: no such folder; .* give .* as --data-dir"):
            evaluate.evaluate(moved)

    def test_a_movie_outside_the_catalogue_counts_as_its_twin_inside(self, trained):
        movies = trained.catalogue.movies().row(5, named=True)
        twin = predict.Movie(movies["title"], tuple(movies["genres"]), movies["description"])
        inside = predict.User("u", (5, 6), (9, 2), unknown=0)
        outside = predict.User("u", (twin, 6), (9, 2), unknown=0)
        expected, answered = predict.predict(trained, [inside, outside], batch_size=4)
        assert (expected["known"], expected["described"]) == (2, 0)
        assert answered == {**expected, "known": 1, "described": 1}

    @pytest.mark.parametrize(
        "channel", [Channel("poster", 16, "item"), Channel("description", 8, "item")]
    )
    def test_a_channel_that_is_not_the_encoders_has_no_movies_outside(self, trained, channel):
        manifest = trained.catalogue.manifest
        changed = dataclasses.replace(manifest, channels=(*manifest.channels[:1], channel))
        catalogue = dataclasses.replace(trained.catalogue, manifest=changed)
        other = dataclasses.replace(trained, catalogue=catalogue)
        user = predict.User("u", (predict.Movie("Space War", (), ""),), (9,), unknown=0)
        with pytest.raises(InputError, match=f"channel '{channel.name}' is not made of text"):
            list(predict.predict(other, [user], batch_size=4))

    @pytest.fixture
    def asked(self, monkeypatch):
        """How many users the model was asked about, each time."""
        answer, sizes = Answerer.__call__, []

        def count(self, batch, *arguments):
            sizes.append(len(batch["history_items"]))
            return answer(self, batch, *arguments)

        monkeypatch.setattr(Answerer, "__call__", count)
        return sizes

    def test_a_user_of_whom_nothing_is_known_is_given_no_taste(self, trained, asked):
        empty = predict.User("empty", (), ())
        known = predict.User("known", (5, 6), (9, 2))
        unknown = predict.User("unknown", (), (), unknown=3)
        (expected,) = predict.predict(trained, [known], batch_size=4)
        first, second, last = predict.predict(trained, [empty, known, unknown], batch_size=4)
        assert second == expected
        nothing = {"answer": "Nothing is known of this user's taste.", "liked": [], "disliked": []}
        nothing |= {"items": 0, "known": 0, "described": 0}
        assert first == {"user_id": "empty", **nothing, "dropped": 0}
        assert last == {"user_id": "unknown", **nothing, "dropped": 3, "unknown_items": 3}
        assert not [*predict.predict(trained, [], batch_size=4)]
        ((alone,), counts) = (predict.predict(trained, [empty], batch_size=4), [*asked])
        assert (alone, counts) == (first, [1, 1])

    def test_a_history_that_the_model_cannot_read_tells_no_taste(self, trained, monkeypatch):
        """As one in words whose most recent item is longer than the text."""
        ask = questions.Questioner.__call__

        def read_nothing(self, users):
            return ask(self, users)._replace(items_read=np.zeros(len(users), np.int32))

        monkeypatch.setattr(questions.Questioner, "__call__", read_nothing)
        (answer,) = predict.predict(trained, [predict.User("u", (5,), (9,))], batch_size=4)
        assert (answer["answer"], answer["liked"]) == (predict.NOTHING_KNOWN, [])
        assert (answer["items"], answer["known"]) == (0, 1)

    def test_lines_are_answered_as_they_come(self, trained, asked):
        """Each by itself where they come slowly, as many as may be where there are many."""
        rows = user_lines.movie_rows(trained.catalogue.movies())
        line = json.dumps({"history": [{"movieId": next(iter(rows)), "rating": 4}]}) + "\n"
        source, sink = os.pipe()
        answers = queue.Queue()

        def answer(file):
            users = user_lines.read_users(user_lines.read_lines(file), "-", rows, pytest.fail)
            for answered in predict.predict(trained, users, batch_size=4):
                answers.put(answered)

        with open(source, "rb") as file, open(sink, "w") as writer:  # noqa: PTH123
            thread = threading.Thread(target=answer, args=[file], daemon=True)
            thread.start()
            for lines in (1, 1, 6):
                writer.write(line * lines)
                writer.flush()
                for _ in range(lines):
                    assert answers.get(timeout=60)["items"] == 1
            writer.write(line.rstrip())
            writer.close()
            thread.join(timeout=60)
        assert answers.get_nowait()["items"] == 1
        assert asked == [1, 1, 4, 2, 1]

    def test_the_predict_command_reports_bad_lines_and_answers_the_others(
        self, undisturbed, tmp_path, capsys
    ):
        lines = [
            '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}',
            "nonsense",
            '{"user_id": "b", "history": []}',
        ]
        histories, answers = tmp_path / "in.jsonl", tmp_path / "out/answers.jsonl"
        histories.write_text("\n".join(lines))
        arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", str(histories)]
        assert cli.main([*arguments, "--output", str(answers)]) == 2
        error = capsys.readouterr().err
        assert f"{histories}: line 2: no JSON" in error
        answered = [json.loads(line) for line in answers.read_text().splitlines()]
        assert [answer["user_id"] for answer in answered] == ["a", "b"]
        assert [answer["items"] for answer in answered] == [1, 0]

    def test_the_predict_command_reads_stdin_and_writes_stdout(
        self, undisturbed, capsys, monkeypatch
    ):
        lines = [
            '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}',
            '{"user_id": "b", "history": []}',
        ]
        stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
        assert cli.main([*arguments, "--step", "4"]) == 0
        answered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(answer["user_id"], answer["items"]) for answer in answered] == [("a", 1), ("b", 0)]
        # After four steps it writes no such sentence by itself.
        sentence = verbalizer.write_answer(answered[0]["liked"], answered[0]["disliked"])
        assert answered[0]["answer"] == sentence
        assert answered[1]["answer"] == predict.NOTHING_KNOWN

    def test_the_predict_command_knows_titles_and_times(
        self, undisturbed, trained, capsys, monkeypatch
    ):
        movies = trained.catalogue.movies().rows(named=True)[1:9]
        rated = [{"rating": 1 + at % 5, "timestamp": at} for at, _ in enumerate(movies)]
        known = [{**item, "movieId": movie["movieId"]} for item, movie in zip(rated, movies)]
        titled = [{**item, "title": movie["title"]} for item, movie in zip(rated, movies)]
        others = [
            {"movieId": 10**6, "rating": 3, "timestamp": 1},
            {"title": "Space War", "rating": 3, "timestamp": 2},
        ]
        histories = [known, known[::-1], titled[::-1], [*known, {**known[0], "rating": 2}, *others]]
        lines = [json.dumps({"user_id": 2**63, "history": history}) for history in histories]
        stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
        assert cli.main(arguments) == 0
        *same, other = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert same == [same[0]] * 3
        counts = ("items", "known", "described", "dropped", "unknown_items")
        assert [same[0].get(count) for count in counts] == [8, 8, 0, 0, None]
        assert [other.get(count) for count in counts] == [9, 8, 1, 2, 1]
        assert other["user_id"] == 2**63

    def test_the_predict_command_writes_json_to_a_terminal_of_ascii(self, undisturbed, monkeypatch):
        user = {"user_id": "Zo\u00eb \U0001f600", "history": []}
        stdin = io.TextIOWrapper(io.BytesIO(json.dumps(user).encode()))
        stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
        assert cli.main(arguments) == 0
        assert json.loads(stdout.buffer.getvalue().decode("ascii"))["user_id"] == user["user_id"]

    def test_the_predict_command_takes_the_asked_step(self, undisturbed, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
        arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-", "--step", "5"]
        assert cli.main(arguments) == 2
        assert "no checkpoint of step 5; it has 4, 6" in capsys.readouterr().err

    def test_the_evaluate_command_writes_the_scores(self, undisturbed, dataset_folder, tmp_path):
        output = tmp_path / "scores/metrics.json"
        arguments = ["evaluate", "--model-dir", str(undisturbed[0]), "--batch-size", "8"]
        assert cli.main([*arguments, "--output", str(output)]) == 0
        scores = json.loads(output.read_text())
        assert set(scores["methods"]["uem"]) >= {"f1", "precision", "recall", "liked_f1"}
        assert len(scores["per_genre"]) == 2 * len(dataset_folder.genres)

    def test_the_evaluate_command_scores_what_it_is_asked_for(
        self, undisturbed, dataset_folder, tmp_path
    ):
        """The users of another folder, an earlier step, and answers that can be read back."""
        other = shutil.copytree(dataset_folder.path, tmp_path / "other")
        self.swap(other, "validation", "test")
        seal.seal(other)
        output, answers = tmp_path / "metrics.json", tmp_path / "answers.jsonl"
        arguments = ["evaluate", "--model-dir", str(undisturbed[0]), "--split", "validation"]
        arguments += ["--data-dir", str(other), "--step", "4", "--batch-size=8"]
        assert cli.main([*arguments, "--output", str(output), "--answers", str(answers)]) == 0
        scores = json.loads(output.read_text())
        assert (scores["step"], scores["split"]) == (4, "validation")
        assert scores["methods"]["uem"]["unparseable"] == 0
        rows = [json.loads(line) for line in answers.read_text().splitlines()]
        assert [row["user_id"] for row in rows] == users_lib.read(dataset_folder, "test").ids
        for row in rows:
            assert row["answer"] == verbalizer.write_answer(row["liked"], row["disliked"])

    def test_a_model_of_other_sizes_is_not_gone_on_with(self, undisturbed, dataset_folder):
        with pytest.raises(InputError, match=r"another model: .* has shape .*MODEL_DIR") as error:
            run(undisturbed[0], dataset_folder, "network.T5Config.mlp_dim = 24")
        assert "\n" not in error.value.line
        assert not absl.logging.get_absl_logger().filters  # the manager was closed

    def test_a_step_that_is_not_there(self, undisturbed):
        with pytest.raises(InputError, match=r"no checkpoint of step 5; it has 4, 6"):
            TrainedModel.load(undisturbed[0], step=5)


def test_no_trained_model(tmp_path):
    with pytest.raises(InputError, match=r"no trained model here \(no config.gin\)"):
        TrainedModel.load(tmp_path)


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


def test_text_histories_train_and_score_alike(dataset_folder, tmp_path):
    options = ("TRAIN_STEPS = 1", "EVAL_PERIOD = 0", "HISTORY_LENGTH = 5")
    places = [f"MODEL_DIR = {str(tmp_path)!r}", f"DATA_DIR = {str(dataset_folder.path)!r}"]
    tiny = [line for line in TINY if not line.startswith(("UEM_LAYERS", "user_embedding."))]
    train.run_recipe(["gin/text_tiny.gin"], [*tiny, *places, *options])
    trained = TrainedModel.load(tmp_path)
    assert not trained.flax_mutables
    answers = tmp_path / "answers.jsonl"
    result = evaluate.evaluate(trained, "validation", answers_file=answers)
    assert list(result["methods"]) == ["text", "counting", "rule"]
    assert result["history_length"] == 5

    users = users_lib.read(dataset_folder, "validation")
    histories = [users.history(user) for user in range(len(users.ids))]
    asked = [
        predict.User(name, tuple(items.tolist()), tuple(half_stars.tolist()), unknown=0)
        for name, (items, half_stars) in zip(users.ids, histories)
    ]
    expected = [json.loads(line) for line in answers.read_text().splitlines()]
    given = [(row["user_id"], row["items"], row["answer"]) for row in expected]
    predicted = list(predict.predict(trained, asked, batch_size=4))
    assert [(row["user_id"], row["items"], row["answer"]) for row in predicted] == given

    described = predict.User("u", (predict.Movie("Space War", (), ""),), (9,), unknown=0)
    with pytest.raises(InputError, match="movies of its catalogue as text, and no others"):
        list(predict.predict(trained, [described]))

    # Each model asks as its own recipe says, whichever was loaded last.
    copy = shutil.copytree(tmp_path, tmp_path / "copy")
    recipe = copy / "config.gin"
    recipe.write_text(f"{recipe.read_text()}\nHISTORY_ORDER = 'most_recent_last'\n")
    other = TrainedModel.load(copy)
    asked = []
    for model in (trained, other, trained):
        config = batches.DatasetConfig(model.task, model.feature_lengths, "validation", 16)
        with model.current(dataset_folder):
            (batch,) = questions.of_split(config, model.model.FEATURE_CONVERTER_CLS)
        asked.append(batch.features["encoder_input_tokens"])
    assert not np.array_equal(asked[0], asked[1])
    np.testing.assert_array_equal(asked[0], asked[2])


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["BATCH_SIZE = 17"], r"BATCH_SIZE=17 does not divide over 2 devices; use 16"),
        (["BATCH_SIZE = 0"], r"BATCH_SIZE=0: no batch; use 2"),
        (["EVAL_BATCH_SIZE = 17"], r"EVAL_BATCH_SIZE=17 does not divide over 2 devices; use 16"),
        (["NUM_MICROBATCHES = 3"], r"NUM_MICROBATCHES=3: BATCH_SIZE=16 over 2 devices .* use 2"),
        (["HISTORY_LENGTH = 0"], r"HISTORY_LENGTH=0: bind it to 1 or more"),
        (["MIXTURE_OR_TASK_NAME = 'nonsense'"], r"'nonsense': no such SeqIO task"),
        (["EVAL_PERIOD = 4", "CHECKPOINT_PERIOD = 6"], r"EVAL_PERIOD=4, CHECKPOINT_PERIOD=6: make"),
        (["SCAN_LAYERS = 'false'"], r"SCAN_LAYERS = 'false': give True or False"),
        (["BATCH_SIZE = 'all'"], r"BATCH_SIZE = 'all': give a number"),
        (["BATCH_SIZE = 16.0"], r"BATCH_SIZE = 16.0: write 16"),
        (["TRAIN_STEPS = 10.5"], r"TRAIN_STEPS = 10.5: give a whole number"),
        (["UEM_LAYERS = -1"], r"UEM_LAYERS=-1: bind it to 0 or more"),
        (["PROMPT_LENGTH = -1"], r"PROMPT_LENGTH=-1: bind it to 0 or more"),
        (["DROPOUT_RATE = 2.0"], r"DROPOUT_RATE=2.0: bind it to 0.0 or more, below 1.0"),
        (
            ["user_embedding.UserEmbeddingConfig.num_heads = 0"],
            r"num_heads=0: bind it to 1 or more",
        ),
        (["SCAN_LAYERS = None"], r"SCAN_LAYERS = None: give True or False"),
        (["RANDOM_SEED = None"], r"RANDOM_SEED = None: give a number"),
        (["EVAL_BATCH_SIZE = True"], r"EVAL_BATCH_SIZE = True: give a number"),
        (["LAYOUT = 8"], r"LAYOUT = 8: give a text"),
        (["MODEL_DIR = 2024"], r"gin/uem_tiny.gin: MODEL_DIR = 2024: give a text"),
        (["UEM_LAYER = 1"], r"gin/uem_tiny.gin has no macro UEM_LAYER; it has .*UEM_LAYERS"),
        (["CHECKPOINTS_KEPT = -1"], r"CHECKPOINTS_KEPT=-1: bind it to 1 or more, or to None"),
        (["CHECKPOINT_PERIOD = -2"], r"CHECKPOINT_PERIOD=-2: bind it to 0 or more"),
        (["EVAL_PERIOD = -1"], r"EVAL_PERIOD=-1: bind it to 0 or more"),
        (["STATS_PERIOD = -1"], r"STATS_PERIOD=-1: bind it to 0 or more"),
        (["TRAIN_STEPS = -1"], r"TRAIN_STEPS=-1: bind it to 0 or more"),
        (["EVAL_STEPS = -1"], r"EVAL_STEPS=-1: bind it to 1 or more, or to None"),
        (["NUM_DATA_SHARDS = -1"], r"NUM_DATA_SHARDS=-1: bind it to 1 or more"),
        (["NUM_MICROBATCHES = 0"], r"NUM_MICROBATCHES=0: bind it to 1 or more, or to None"),
        (["HISTORY_LENGTH = -3"], r"HISTORY_LENGTH=-3: bind it to 1 or more"),
        (
            ["ACTIVATION_DTYPE = 'float8'"],
            r"ACTIVATION_DTYPE='float8': no type to compute in; choose",
        ),
        (
            ["ACTIVATION_DTYPE = 'int32'"],
            r"ACTIVATION_DTYPE='int32': no type to compute in; choose",
        ),
        (
            ["ACTIVATION_DTYPE = 'float16'"],
            r"ACTIVATION_DTYPE='float16': no type to compute in; choose",
        ),
        (
            ["MIXTURE_OR_TASK_NAME = 'movielens_genres_text_5'"],
            r"movielens_genres_text_5: a task of inputs, targets, where the model reads",
        ),
        (["NONSENSE.x = 1"], r"gin/uem_tiny.gin: .*NONSENSE"),
        (["DATA_DIR = '/nowhere'"], r"/nowhere: no such folder"),
    ],
)
def test_refused_recipes(bindings, message, dataset_folder, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        run(tmp_path / "model", dataset_folder, *bindings)
    assert "\n" not in error.value.line
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", [b"include 'own.gin'", b"A = '\xff'", b"A = " + b"[" * 5000])
def test_a_recipe_that_is_none(content, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.gin").write_bytes(content)
    assert train_command.main(["--gin_file=own.gin"]) == 2
    assert "own.gin: " in capsys.readouterr().err
    with pytest.raises(InputError, match=r"own\.gin"):
        recipes.parse(["own.gin"])


def test_a_number_that_stands_for_all_may_be_none():
    recipes.check_bindings([RECIPE], ["CHECKPOINTS_KEPT = None", "EVAL_STEPS = None"])


def test_an_unbound_macro_is_named(capsys):
    assert train_command.main([f"--gin_file={RECIPE}", "--gin.MODEL_DIR=/tmp/x"]) == 2
    assert "the macro DATA_DIR is not bound; add --gin.DATA_DIR=VALUE" in capsys.readouterr().err


def test_arguments_are_gin_literals_or_plain_strings():
    files, bindings, rest = recipes.split_arguments(
        ["--gin_file=a.gin", "--gin.MODEL_DIR=runs/a", '--gin.DATA_DIR="b c"', "--gin.N=3", "--x"]
    )
    assert files == ["a.gin"]
    assert bindings == ["MODEL_DIR = 'runs/a'", 'DATA_DIR = "b c"', "N = 3"]
    assert rest == ["--x"]


def test_a_recipe_after_a_space():
    arguments = ["--gin_file", "my recipe.gin", "--gin.N=3", "--gin_file=b.gin", "--x"]
    assert recipes.split_arguments(arguments) == (
        ["my recipe.gin", "b.gin"],
        ["N = 3"],
        ["--x"],
    )
    assert recipes.split_arguments(["--gin_file"]) == ([], [], ["--gin_file"])


def test_a_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with recipes.main_module(train):
        recipes.parse([RECIPE], ["MODEL_DIR = 'm'", "DATA_DIR = 'd'"])
    with pytest.raises(InputError, match=r"gin/nonsense.gin: no such recipe"):
        recipes.parse(["gin/nonsense.gin"])
