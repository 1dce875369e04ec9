"""Tasks and mixtures that a model is trained on and asked by."""

import json
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf
from tiny_recipe import BINDINGS as TINY
from tiny_run import run

from uem_t5x import train
from uem_t5x.answers import evaluate, predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import batches, data_sources
from uem_t5x.inputs import users as users_lib
from uem_t5x.tasks import movielens
from uem_t5x.tastes import baselines, metrics, sentences


def test_a_mixture_is_not_one_question(mixture, undisturbed):
    of_both = TrainedModel.load(undisturbed[0], task=mixture)
    message = f"{mixture}: a mixture .*: --task {movielens.uem_task(20)}, m"
    with pytest.raises(InputError, match=message):
        evaluate.evaluate(of_both, "validation")
    with pytest.raises(InputError, match=message):
        list(predict.predict(of_both, [predict.User("u", (5,), (9,))]))
    # Of its tasks the one that keeps the most items says how many it reads.
    assert of_both.history_length == 20
    of_one = TrainedModel.load(undisturbed[0], task=movielens.uem_task(5))
    assert evaluate.evaluate(of_one, "validation")["items_read"]["most"] == 5


@pytest.mark.parametrize("sampling", ["random", "long_tail"])
def test_the_rule_reads_the_items_that_the_model_does(undisturbed, dataset_folder, sampling):
    trained = TrainedModel.load(undisturbed[0], task=movielens.uem_task(8, sampling))
    assert trained.history_length == 8
    scores = evaluate.evaluate(trained, "validation")
    users = users_lib.read(dataset_folder, "validation")
    asked = trained.ask(
        [
            {"user_id": user_id.encode(), "history_items": items, "history_ratings": half_stars}
            for user_id, (items, half_stars) in zip(
                users.ids, map(users.history, range(len(users.ids)))
            )
        ]
    )
    # What the network is given, and no other items.
    given = asked.features["history_items"]
    read = users.reading(
        given[given > 0], asked.features["history_ratings"][given > 0], (given > 0).sum(axis=1)
    )
    genres = dataset_folder.genre_matrix(), dataset_folder.genres
    tastes = baselines.rule(read, *genres)
    assert tastes != baselines.rule(users.most_recent(8), *genres)
    assert scores["methods"]["rule"] == metrics.score(users.tastes, tastes, dataset_folder.genres)


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
        with data_sources.use_dataset_folder(dataset_folder):
            (batch,) = batches.eval_batches(config, trained.model.FEATURE_CONVERTER_CLS)
    finally:
        seqio.TaskRegistry.remove(name)
    loss = json.loads((tmp_path / "checkpoint_1/metrics/metrics").read_text())["eval_loss"]
    tokens = (batch["decoder_target_tokens"] > 0).sum()
    assert sum(given) == pytest.approx(-loss * tokens)
    # Each is that of its user.
    model, users = trained.model, dataset_folder.num_examples("validation")
    variables = (trained.params, batch)
    scores = model.score_batch(*variables, trained.flax_mutables)
    np.testing.assert_allclose(given, scores, rtol=1e-4)
    assert len(set(np.round(scores, 3).tolist())) > users / 2
    answers, aux = model.predict_batch_with_aux(*variables, flax_mutables=trained.flax_mutables)
    assert [answer for answer, _ in written] == [
        model.output_vocabulary.decode(ids) for ids in np.asarray(answers).tolist()
    ]
    np.testing.assert_allclose([score for _, score in written], aux["scores"], rtol=1e-4)


def test_predict_asks_as_the_task_does(trained, dataset_folder):
    """Whose users come from a file of the split, and whose from whoever asks, is the same."""
    config = batches.DatasetConfig(trained.task, trained.feature_lengths, "test", 4)
    users = users_lib.read(dataset_folder, "test")
    with data_sources.use_dataset_folder(dataset_folder):
        of_split = list(batches.eval_batches(config, trained.model.FEATURE_CONVERTER_CLS))
    instruction = trained.model.input_vocabulary.encode(sentences.INSTRUCTION)
    assert len(instruction) > trained.feature_lengths["inputs"]  # it is cut
    given = [
        {"user_id": name, "history_items": items, "history_ratings": half_stars}
        for name, (items, half_stars) in zip(users.ids, map(users.history, range(len(users.ids))))
    ]
    for start, batch in zip(range(0, len(given), 4), of_split, strict=True):
        asked = trained.ask(given[start : start + 4])
        items_read = np.count_nonzero(batch["history_items"], axis=1)
        np.testing.assert_array_equal(asked.items_read, items_read)
        assert asked.user_ids == [name.encode() for name in users.ids[start : start + 4]]
        for name in ("encoder_input_tokens", "history_items", "history_ratings"):
            np.testing.assert_array_equal(asked.features[name], batch[name])


def test_a_task_that_leaves_users_out_is_not_answered(trained, undisturbed):
    task = seqio.get_mixture_or_task(trained.task)

    def some(dataset):
        return dataset.filter(lambda example: tf.size(example["history_items"]) > 1)

    seqio.TaskRegistry.add(
        "not_everyone_20",
        source=task.source,
        preprocessors=[some, *task.preprocessors],
        output_features=task.output_features,
    )
    users = [predict.User("one", (5,), (9,), 0), predict.User("two", (5, 6), (9, 2), 0)]
    try:
        other = TrainedModel.load(undisturbed[0], task="not_everyone_20")
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


def test_a_task_that_needs_more_of_users_than_they_have(trained, undisturbed):
    """It can be loaded, as `export` does, and not asked."""
    task = seqio.get_mixture_or_task(trained.task)

    @seqio.map_over_dataset
    def needs_more(example):
        return {**example, "years": example["age"]}

    seqio.TaskRegistry.add(
        "of_age_20",
        source=task.source,
        preprocessors=[needs_more, *task.preprocessors],
        output_features=task.output_features,
    )
    try:
        other = TrainedModel.load(undisturbed[0], task="of_age_20")
    finally:
        seqio.TaskRegistry.remove("of_age_20")
    with pytest.raises(InputError, match=r"of_age_20: its steps cannot be asked .*KeyError: 'age'"):
        list(predict.predict(other, [predict.User("one", (5,), (9,), 0)], batch_size=4))


def test_a_task_that_gives_users_in_another_order_is_not_answered(
    trained, undisturbed, dataset_folder
):
    task = seqio.get_mixture_or_task(trained.task)

    def rotate(dataset):
        return dataset.skip(1).concatenate(dataset.take(1))

    def forget(dataset):
        return dataset.map(lambda x: {k: v for k, v in x.items() if k != "user_id"})

    steps = task.preprocessors
    for name, changed in {"rotated_20": (rotate, *steps), "nameless_20": (*steps, forget)}.items():
        seqio.TaskRegistry.add(
            name,
            source=task.source,
            preprocessors=changed,
            output_features=task.output_features,
        )
    users = [predict.User("one", (5,), (9,), 0), predict.User("two", (5, 6), (9, 2), 0)]
    first, second = users_lib.read(dataset_folder, "test").ids[:2]
    try:
        rotated = TrainedModel.load(undisturbed[0], step=6, task="rotated_20")
        with pytest.raises(
            InputError,
            match=rf"rotated_20: its example 0 is of .*'{second}', .*'{first}'; it must keep",
        ):
            evaluate.evaluate(rotated, "test")
        with pytest.raises(InputError, match=r"rotated_20: .* 'two', and not of 'one'"):
            list(predict.predict(rotated, users, batch_size=4))
        nameless = TrainedModel.load(undisturbed[0], step=6, task="nameless_20")
        scores = evaluate.evaluate(nameless, "test")
        assert scores["methods"] == evaluate.evaluate(trained, "test")["methods"]
    finally:
        seqio.TaskRegistry.remove("rotated_20")
        seqio.TaskRegistry.remove("nameless_20")


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
    recipe = copy / "answering.gin"
    recipe.write_text(f"{recipe.read_text()}\nHISTORY_ORDER = 'most_recent_last'\n")
    other = TrainedModel.load(copy)
    given = [
        {"user_id": name, "history_items": items, "history_ratings": half_stars}
        for name, (items, half_stars) in zip(users.ids, histories)
    ]
    asked = [
        model.ask(given).features["encoder_input_tokens"] for model in (trained, other, trained)
    ]
    assert not np.array_equal(asked[0], asked[1])
    np.testing.assert_array_equal(asked[0], asked[2])
