"""Runs read back from their folders."""

import json

import fake_runs
import pytest

from uem_t5x.errors import InputError
from uem_t5x.runs import Run


def test_what_a_run_was(tmp_path):
    folder = fake_runs.write(
        tmp_path / "run", RANDOM_SEED=3, LANGUAGE_MODEL="Flan-T5", LANGUAGE_MODEL_SIZE="base"
    )
    run = Run.read(folder)
    assert run.kind == "uem"
    assert run.seed == 3
    assert run.language_model == "Flan-T5 base"
    assert run.scores["f1"] == 0.4
    assert run.encoder == "hashing, 96"
    assert run.manifest.splits["train"].examples == 474
    assert run.macros["HISTORY_LENGTH"] == 50
    assert run.macros["TASK_FEATURE_LENGTHS"]["history_items"] == "%HISTORY_LENGTH"
    assert run.bindings["train/engine.dataset_config.seed"] == "%RANDOM_SEED"


def test_settings_are_what_was_run_not_where_nor_with_which_seed(tmp_path):
    one = Run.read(fake_runs.write(tmp_path / "one", RANDOM_SEED=1, STATS_PERIOD=5))
    two = Run.read(fake_runs.write(tmp_path / "two", RANDOM_SEED=2, STATS_PERIOD=9))
    assert one.settings == two.settings
    assert one.settings["ENCODER"] == "hashing, 96"
    assert one.settings["SPLIT"] == ("test", 110, "u1")
    assert not {"RANDOM_SEED", "MODEL_DIR", "STATS_PERIOD"} & one.settings.keys()
    assert one.settings["preprocessors.training_stretches.max_length"] == 100


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"HISTORY_LENGTH": 5}, "HISTORY_LENGTH"),
        ({"encoder_width": 16}, "ENCODER"),
        ({"inputs": "other"}, "CATALOGUE"),
        ({"users": "other"}, "SPLIT"),
        ({"bindings": ["network.T5Config.emb_dim = 8"]}, "network.T5Config.emb_dim"),
    ],
)
def test_settings_differ_in_what_was_changed(change, name, tmp_path):
    usual = Run.read(fake_runs.write(tmp_path / "usual")).settings
    other = Run.read(fake_runs.write(tmp_path / "other", **change)).settings
    assert [key for key in usual | other if usual.get(key) != other.get(key)] == [name]


def test_text_runs(tmp_path):
    assert Run.read(fake_runs.write(tmp_path / "run", kind="text")).kind == "text"


def test_how_training_went(tmp_path):
    folder = fake_runs.write(tmp_path / "run", losses=((20, 1.5), (40, 1.0)))
    again = {"step": 40, "f1": 0.35}  # a run that was resumed scores a step twice
    with (folder / "inference_eval/task-metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    run = Run.read(folder)
    assert run.validation_scores == [{"step": 20, "f1": 0.2}, again]
    assert run.training_losses == [(20, 1.5), (40, 1.0)]


def test_a_run_that_left_no_events(tmp_path):
    folder = fake_runs.write(tmp_path / "run", curve=(), losses=())
    (folder / "inference_eval/task-metrics.jsonl").unlink()
    run = Run.read(folder)
    assert run.validation_scores == [] and run.training_losses == []


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"methods": {}}', "[]"])
def test_other_scores_are_refused(text, tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    (folder / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics.json: not the scores .* score it again"):
        Run.read(folder)


def test_no_scores_yet(tmp_path):
    folder = fake_runs.write(tmp_path / "run", scored=False)
    with pytest.raises(InputError, match=r"no scores yet; uem-t5x evaluate --model-dir"):
        Run.read(folder)


def test_no_run(tmp_path):
    with pytest.raises(InputError, match=r"no trained model here"):
        Run.read(tmp_path)
