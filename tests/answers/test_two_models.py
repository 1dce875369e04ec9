"""Two models in one process, of other data, tokens and tasks, which answer each as if alone."""

import concurrent.futures
import threading

import pytest
import tiny_data
import tiny_recipe

from uem_t5x import train
from uem_t5x.answers import evaluate, predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.training import validation

USERS = [
    predict.User(f"u{n}", tuple(range(1, 3 + n)), tuple(1 + (n + i) % 10 for i in range(2 + n)))
    for n in range(6)
]


@pytest.fixture(scope="module")
def text_model_dir(tmp_path_factory):
    """A run of one step that reads text, on a folder with movies and a vocabulary of its own."""
    root = tmp_path_factory.mktemp("other")
    movielens = tiny_data.synthesized(
        root / "movielens", users=30, movies=60, ratings=30 * 40, seed=5
    )
    sizes = {"validation_users": 6, "test_users": 6, "vocabulary_size": 200}
    folder = tiny_data.prepared(movielens, root / "dataset", **sizes)
    own = ("UEM_LAYERS", "user_embedding.")
    tiny = [binding for binding in tiny_recipe.BINDINGS if not binding.startswith(own)]
    places = tiny_recipe.places(root / "model", folder.path)
    options = ["TRAIN_STEPS = 1", "HISTORY_LENGTH = 3", "HISTORY_ORDER = 'most_recent_last'"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation.Validation, "measure", lambda *_: {})
        train.run_recipe(["gin/text_tiny.gin"], [*tiny, *options, *places])
    return root / "model"


@pytest.fixture(scope="module")
def model_dirs(undisturbed, text_model_dir):
    return undisturbed[0], text_model_dir


def load(model_dir):
    """Loads a model that is let free: so early in training, it has more to say by itself."""
    return TrainedModel.load(model_dir, well_formed=False)


@pytest.fixture(scope="module")
def models(model_dirs):
    return [load(model_dir) for model_dir in model_dirs]


def answers(model):
    return list(predict.predict(model, USERS, batch_size=4))


@pytest.fixture(scope="module")
def alone(models):
    """What each answers, with no other at work."""
    return [answers(model) for model in models]


def test_two_models_are_two(models, alone):
    one, other = models
    assert one.reads_embeddings and not other.reads_embeddings
    assert [model.history_length for model in models] == [20, 3]
    assert one.model.output_vocabulary.vocab_size != other.model.output_vocabulary.vocab_size
    sentences = [{answer["answer"] for answer in told} for told in alone]
    assert sentences[0].isdisjoint(sentences[1])


def test_they_answer_at_once_as_they_do_alone(models, alone):
    both = threading.Barrier(2)

    def ask(model):
        both.wait(timeout=60)
        return [answers(model) for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, models)) == [[told] * 3 for told in alone]


def test_they_are_scored_at_once_as_they_are_alone(models):
    expected = [evaluate.evaluate(model, "validation") for model in models]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        scored = pool.map(lambda model: evaluate.evaluate(model, "validation"), models)
        assert list(scored) == expected


@pytest.mark.parametrize("loaded", [0, 1])
def test_loading_one_changes_nothing_for_the_other(loaded, models, model_dirs, alone):
    answering = 1 - loaded
    is_loaded = threading.Event()

    def ask():
        told = [answers(models[answering])]
        while not is_loaded.is_set():
            told.append(answers(models[answering]))
        return [*told, answers(models[answering])]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            model = load(model_dirs[loaded])
        finally:
            is_loaded.set()
    assert all(told == alone[answering] for told in asked.result())
    assert answers(model) == alone[loaded]


def test_both_are_loaded_at_once(model_dirs, alone):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        models = list(pool.map(load, model_dirs))
    assert [answers(model) for model in models] == alone
