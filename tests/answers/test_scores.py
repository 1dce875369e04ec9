"""The scores of a checkpoint: what they tell, and of which users."""

import dataclasses
import json
import shutil
from pathlib import Path

import other_folders
import pytest
from tiny_run import run

from uem_t5x.answers import evaluate, predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data import seal
from uem_t5x.data.prepare import PrepareOptions, prepare
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import metrics, verbalizer


def test_scores_do_not_depend_on_the_batch_size(trained):
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


def test_scores_tell_of_which_state_of_the_run_they_are(undisturbed):
    best = folders.best(undisturbed[0])
    assert best == folders.choose(undisturbed[0])
    for step, well_formed in ((4, False), (6, True)):
        trained = TrainedModel.load(undisturbed[0], step, well_formed)
        told = evaluate.evaluate(trained, "validation")
        names = ("step", "trained_steps", "is_best", "well_formed")
        assert [told[name] for name in names] == [step, 6, step == best, well_formed]


def test_every_answer_is_written_with_the_truth(trained, dataset_folder, tmp_path):
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


def test_each_user_is_given_their_own_answer(undisturbed, sharded_folder, dataset_folder, tmp_path):
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


def test_training_users_are_scored_as_they_are(trained):
    scores = evaluate.evaluate(trained, "train")
    # Histories of 50 items of which the 20 most recent are read, not stretches of 10 to 100.
    assert scores["items_read"]["least"] == scores["items_read"]["most"] == 20


def test_another_catalogue_is_refused(trained, undisturbed, dataset_folder, tmp_path):
    other = other_folders.resealed(dataset_folder, tmp_path, encoder={"name": "other", "width": 16})
    with pytest.raises(InputError, match="not the catalogue"):
        evaluate.evaluate(trained, data_dir=str(other.path))
    with pytest.raises(InputError, match=r"not the data .* choose another MODEL_DIR"):
        run(undisturbed[0], other, "TRAIN_STEPS = 8")


def test_other_users_of_the_catalogue_are_scored_and_not_trained_on(
    trained, undisturbed, dataset_folder, tmp_path
):
    other = other_folders.resealed(dataset_folder, tmp_path, inputs={"ratings": "0" * 64})
    scores = evaluate.evaluate(trained, "validation", data_dir=str(other.path))
    assert scores == evaluate.evaluate(trained, "validation")
    with pytest.raises(InputError, match=r"not the data .* choose another MODEL_DIR"):
        run(undisturbed[0], other, "TRAIN_STEPS = 8")


def test_users_that_are_split_otherwise_are_not_mixed_with_its_own(
    trained, undisturbed, dataset_folder, tmp_path
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
    trained, undisturbed, dataset_folder, tmp_path
):
    other = shutil.copytree(dataset_folder.path, tmp_path / "other")
    other_folders.swap(other, "validation", "test")
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


def test_a_split_without_users_has_no_scores(trained, dataset_folder, tmp_path):
    splits = dict(json.loads((dataset_folder.path / "manifest.json").read_text())["splits"])
    splits["test"] = {"examples": 0, "shards": 0}
    other = other_folders.resealed(dataset_folder, tmp_path, splits=splits)
    with pytest.raises(InputError, match="the split 'test' has no users"):
        evaluate.evaluate(trained, data_dir=str(other.path))


def test_a_recipe_whose_data_lie_elsewhere(trained, tmp_path):
    moved = dataclasses.replace(trained, data_dir=str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"gone: no such folder; .* give .* as --data-dir"):
        evaluate.evaluate(moved)
