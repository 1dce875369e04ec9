import os
import runpy
import subprocess
import sys
from unittest import mock

import gin
import numpy as np
import pytest
import seqio
import tensorflow as tf
import tiny_recipe

from uem_t5x.commands import train as train_command
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import caches, data_sources
from uem_t5x.inputs.feature_converters import UserEmbeddingFeatureConverter
from uem_t5x.tasks import movielens
from uem_t5x.tastes import sentences

HISTORY_LENGTHS = {"uem": (5, 10, 20, 30, 50, 100), "text": (5, 10, 20, 50)}
UEM_LENGTHS = {"inputs": 64, "targets": 64, "history_items": 20, "history_ratings": 20}
TEXT_LENGTHS = {"inputs": 256, "targets": 64}
CONVERTERS = {"uem": UserEmbeddingFeatureConverter, "text": seqio.EncDecFeatureConverter}


@pytest.fixture
def current_folder(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        yield dataset_folder


def read(task, lengths, split="train", **arguments):
    dataset = seqio.get_mixture_or_task(task).get_dataset(lengths, split, **arguments)
    return list(dataset.as_numpy_iterator())


def by_user(examples):
    return {example["user_id"]: example for example in examples}


class TestRegistry:
    @pytest.mark.parametrize("kind", HISTORY_LENGTHS)
    def test_every_history_length_has_a_task(self, kind):
        for p in HISTORY_LENGTHS[kind]:
            assert f"movielens_genres_{kind}_{p}" in seqio.TaskRegistry.names()

    def test_importing_it_again_changes_nothing(self):
        task = seqio.TaskRegistry.get("movielens_genres_uem_5")

        runpy.run_module(movielens.__name__)

        assert seqio.TaskRegistry.get("movielens_genres_uem_5") is task

    def test_another_history_length_is_one_line(self, current_folder):
        movielens.uem_task(3)
        try:
            example = read("movielens_genres_uem_3", None)[0]
        finally:
            seqio.TaskRegistry.remove("movielens_genres_uem_3")

        assert example["history_items"].shape == (3,)

    def test_tasks_of_one_kind_mix(self, current_folder):
        tasks = [f"movielens_genres_uem_{p}" for p in (5, 10)]
        mixture = seqio.Mixture("movielens_genres_uem_mixture", tasks, default_rate=1.0)

        dataset = mixture.get_dataset(UEM_LENGTHS, "train", shuffle=False, num_epochs=1)

        lengths = {len(example["history_items"]) for example in dataset.as_numpy_iterator()}
        assert lengths == {5, 10}


class TestExamples:
    def test_uem_asks_with_the_history_as_ids(self, current_folder):
        whole = by_user(data_sources.DatasetFolderSource().get_dataset("train").as_numpy_iterator())
        vocabulary = (
            seqio.get_mixture_or_task("movielens_genres_uem_20")
            .output_features["inputs"]
            .vocabulary
        )

        for example in read("movielens_genres_uem_20", UEM_LENGTHS):
            assert example["inputs_pretokenized"].decode() == sentences.INSTRUCTION
            assert example["inputs"].tolist() == [*vocabulary.encode(sentences.INSTRUCTION), 1]
            target = example["targets_pretokenized"].decode()
            assert example["targets"].tolist() == [*vocabulary.encode(target), 1]
            history = whole[example["user_id"]]["history_items"]
            np.testing.assert_array_equal(example["history_items"], history[-20:])

    def test_text_ends_in_eos_within_its_length(self, current_folder):
        for example in read("movielens_genres_text_20", TEXT_LENGTHS):
            assert len(example["inputs"]) <= TEXT_LENGTHS["inputs"]
            assert example["inputs"][-1] == 1

    def test_training_is_shuffled_by_seed(self, current_folder):
        def users(seed):
            examples = read("movielens_genres_uem_5", None, shuffle=True, seed=seed)
            return [example["user_id"] for example in examples]

        assert users(0) == users(0)
        assert users(0) != users(1)
        assert sorted(users(0)) == sorted(users(1))


class TestIterator:
    def test_a_checkpoint_keeps_the_place_in_the_data(self, current_folder, tmp_path):
        gin.bind_parameter("uem_t5x.inputs.preprocessors.training_stretches.probability", 1.0)
        try:
            dataset = seqio.get_mixture_or_task("movielens_genres_uem_5").get_dataset(
                UEM_LENGTHS, "train", shuffle=True, seed=0, num_epochs=None
            )
        finally:
            gin.clear_config()
        undisturbed, resumed = iter(dataset), iter(dataset)
        for _ in range(100):  # well into the second epoch
            next(undisturbed)
        path = tf.train.Checkpoint(iterator=undisturbed).save(str(tmp_path / "place"))

        tf.train.Checkpoint(iterator=resumed).restore(path)

        for _ in range(50):
            for expected, got in zip(next(undisturbed).values(), next(resumed).values()):
                np.testing.assert_array_equal(expected, got)


class TestEvaluator:
    @pytest.mark.parametrize(("kind", "lengths"), [("uem", UEM_LENGTHS), ("text", TEXT_LENGTHS)])
    def test_the_truth_scores_one_and_silence_zero(
        self, dataset_folder, kind, lengths, tmp_path, monkeypatch
    ):
        # SeqIO scores on a thread of its own.
        monkeypatch.setenv(data_sources.DATA_DIR_VARIABLE, str(dataset_folder.path))
        evaluator = seqio.Evaluator(
            f"movielens_genres_{kind}_20",
            CONVERTERS[kind](pack=False),
            eval_split="test",
            sequence_length=lengths,
            logger_cls=[seqio.TensorBoardLogger, seqio.JSONLogger],
            log_dir=str(tmp_path),
        )

        def truth(dataset):
            return [(int(i), example["decoder_target_tokens"]) for i, example in dataset]

        def silence(dataset):
            return [(int(i), np.zeros_like(tokens)) for i, tokens in truth(dataset)]

        def scores(predict):
            metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict, step=1)
            return metrics.result()[f"movielens_genres_{kind}_20"]

        assert scores(truth)["f1"] == 1.0
        assert scores(truth)["unparseable"] == 0.0
        assert scores(silence)["f1"] == 0.0
        assert scores(silence)["unparseable"] == 1.0


class TestOfflineCache:
    TASK = "movielens_genres_uem_20"

    @pytest.fixture(scope="class")
    def cache(self, dataset_folder, tmp_path_factory):
        """Makes SeqIO see what its own Beam script writes, run as a user runs it."""
        directory = tmp_path_factory.mktemp("cache")
        command = [
            *(sys.executable, "-m", "seqio.scripts.cache_tasks_main"),
            "--module_import=uem_t5x.tasks.movielens",
            f"--tasks={self.TASK}",
            f"--output_cache_dir={directory}",
            "--min_shards=2",
            # `DirectRunner` would first try to download another runner, and end up with this one.
            "--pipeline_options=--runner=FnApiRunner",
        ]
        environment = {data_sources.DATA_DIR_VARIABLE: str(dataset_folder.path)}
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        seqio.set_global_cache_dirs([str(directory)])
        yield directory
        seqio.set_global_cache_dirs([])

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_gives_the_examples_of_the_folder(self, current_folder, cache, split):
        direct = by_user(read(self.TASK, UEM_LENGTHS, split))
        cached = by_user(read(self.TASK, UEM_LENGTHS, split, use_cached=True))

        statistics = seqio.get_mixture_or_task(self.TASK).get_cached_stats(split)
        assert statistics["examples"] == len(direct)
        assert direct.keys() == cached.keys()
        for user, example in direct.items():
            assert example.keys() == cached[user].keys()
            for name, value in example.items():
                np.testing.assert_array_equal(value, cached[user][name])

    @staticmethod
    def train_a_step(model_dir, dataset_folder, *flags):
        places = {"MODEL_DIR": model_dir, "DATA_DIR": dataset_folder.path}
        macros = {"TRAIN_STEPS": 1, "EVAL_PERIOD": 0, "USE_CACHED_TASKS": True}
        bindings = [*tiny_recipe.BINDINGS, *(f"{k} = {v}" for k, v in (macros | places).items())]
        arguments = ["--gin." + binding.replace(" = ", "=") for binding in bindings]
        return train_command.main([f"--gin_file={tiny_recipe.RECIPE}", *arguments, *flags])

    def test_is_trained_on(self, dataset_folder, cache, tmp_path):
        flag = f"--seqio_additional_cache_dirs={cache}"
        assert self.train_a_step(tmp_path / "run", dataset_folder, flag) == 0
        assert (tmp_path / "run/checkpoint_1").is_dir()

    def test_of_other_data(self, dataset_folder, cache, tmp_path, capsys):
        task = seqio.get_mixture_or_task(self.TASK)
        with mock.patch.object(task, "num_input_examples", return_value=7):
            assert self.train_a_step(tmp_path / "run", dataset_folder) == 2
        assert "a cache of other data, with " in capsys.readouterr().err

    def test_of_as_many_other_users(self, dataset_folder, cache, tmp_path, capsys):
        with mock.patch.object(DatasetFolder, "fingerprint", return_value="another"):
            assert self.train_a_step(tmp_path / "run", dataset_folder) == 2
        assert "a cache of other users or movies than those of" in capsys.readouterr().err

    def test_of_unknown_data_is_read_with_a_warning(self, dataset_folder, cache, tmp_path):
        with (
            mock.patch.object(caches, "_fingerprint", return_value=None),
            mock.patch.object(caches.logging, "warning") as warning,
        ):
            assert self.train_a_step(tmp_path / "run", dataset_folder) == 0
        assert any("from a cache of other data" in call.args[0] for call in warning.mock_calls)

    def test_that_is_missing(self, dataset_folder, tmp_path, capsys):
        with mock.patch.object(seqio.Task, "cache_dir", None):
            assert self.train_a_step(tmp_path / "run", dataset_folder) == 2
        assert f"{self.TASK} is in none of the folders of caches" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
