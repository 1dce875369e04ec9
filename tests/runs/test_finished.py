"""Runs read back from their folders."""

import json

import fake_runs
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.runs.finished import Run


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
        ({"trained_on": 40}, "TRAINING_USERS"),
        ({"channels": ("description", "poster")}, "CHANNELS"),
        ({"vocabulary": "v2"}, "VOCABULARY"),
        ({"asked": {"task": "movielens_genres_uem_20"}}, "TASK"),
        ({"asked": {"task": "other_task_50"}}, "TASK"),
        ({"asked": {"well_formed": True}}, "ANSWERS"),
        ({"asked": {"is_best": False, "step": 20}}, "CHECKPOINT"),
        ({"asked": {"trained_steps": 20}}, "TRAINED"),
    ],
)
def test_settings_differ_in_what_was_changed(change, name, tmp_path):
    usual = Run.read(fake_runs.write(tmp_path / "usual")).settings
    other = Run.read(fake_runs.write(tmp_path / "other", **change)).settings
    assert [key for key in usual | other if usual.get(key) != other.get(key)] == [name]


def test_what_older_versions_did_not_write_is_unknown(tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    assert Run.read(folder).not_recorded == []
    fake_runs.forget(folder, "trained_steps", "is_best", "well_formed", "task")
    run = Run.read(folder)
    names = ["TASK", "TRAINED", "CHECKPOINT", "ANSWERS"]
    assert run.not_recorded == names
    assert {run.settings[name] for name in names} == {"unknown"}
    assert run.is_current


BETTER, WORSE = {20: 0.2, 40: 0.3}, {20: 0.3, 40: 0.2}


@pytest.mark.parametrize(
    ("is_older", "step", "checkpoints", "is_current"),
    [
        (False, 20, {20: 0.2}, True),
        (False, 20, {}, True),  # those are gone
        (False, 20, BETTER, False),
        (False, 20, WORSE, False),  # another run of training may have been better
        (True, 20, BETTER, False),
        (True, 20, WORSE, True),  # it is what would be scored now
        (True, 20, {}, True),
    ],
)
def test_scores_of_before_a_run_was_trained_on_are_not_its_own(
    is_older, step, checkpoints, is_current, tmp_path
):
    asked = {"step": step, "trained_steps": step}
    folder = fake_runs.write(tmp_path / "run", asked=asked, checkpoints=checkpoints)
    if is_older:
        fake_runs.forget(folder, "trained_steps", "is_best")
    assert Run.read(folder).is_current == is_current


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


def test_the_validation_scores_of_a_mixture_are_the_means_of_its_tasks(tmp_path):
    folder = fake_runs.write(tmp_path / "run", curve=((20, 0.25), (40, 0.75)))
    rows = [
        {"step": 20, "f1": 0.75, "rouge": 3, "said": "Drama"},
        {"step": 40, "f1": 0.0},
        {"step": 40, "f1": 0.25},  # of a run that was resumed
    ]
    (folder / "inference_eval/a-metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert Run.read(folder).validation_scores == [
        {"step": 20, "f1": 0.5, "rouge": 3},
        {"step": 40, "f1": 0.5},
    ]


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
