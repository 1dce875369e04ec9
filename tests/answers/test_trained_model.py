"""A trained model, read back from its MODEL_DIR alone."""

import dataclasses
import shutil

import gin
import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf

from uem_t5x.answers import evaluate, predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import preprocessors
from uem_t5x.tasks import movielens


def test_no_trained_model(tmp_path):
    with pytest.raises(InputError, match=r"no trained model here \(no config.gin\)"):
        TrainedModel.load(tmp_path)


def test_what_gin_held_it_holds_again(undisturbed):
    gin.clear_config()  # and no longer locked, as a run leaves it
    gin.parse_config("MINE = 3\nuem_t5x.inputs.preprocessors.training_stretches.probability = 0.5")
    before = gin.config_str()
    TrainedModel.load(undisturbed[0])
    assert gin.config_str() == before
    assert gin.query_parameter("training_stretches.probability") == 0.5


def test_a_recipe_that_names_no_data(trained):
    with pytest.raises(InputError, match="names no DATA_DIR; give the dataset folder: --data-dir"):
        evaluate.evaluate(dataclasses.replace(trained, data_dir=None))


def test_a_step_that_is_not_there(undisturbed):
    with pytest.raises(InputError, match=r"no checkpoint of step 5; it has 4, 6"):
        TrainedModel.load(undisturbed[0], step=5)


def test_a_checkpoint_holds_the_trained_parameters_and_the_item_table(trained, undisturbed):
    state = undisturbed[1]
    jax.tree.map(np.testing.assert_array_equal, trained.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, trained.flax_mutables, state.flax_mutables)
    assert trained.history_length == 20


@pytest.mark.parametrize("layout", ["fsdp", "model=2"])
def test_answers_do_not_depend_on_the_layout(layout, trained, undisturbed):
    split = TrainedModel.load(undisturbed[0], step=6, layout=layout)
    jax.tree.map(np.testing.assert_array_equal, split.params, trained.params)
    held = [leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(split.params)]
    assert sum(held) < 0.9 * sum(leaf.nbytes for leaf in jax.tree.leaves(trained.params))
    assert evaluate.evaluate(split, "validation") == evaluate.evaluate(trained, "validation")


def test_a_model_of_other_sizes_is_not_answered_with(undisturbed, tmp_path):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    recipe = copy / "answering.gin"
    recipe.write_text(f"{recipe.read_text()}\nPROMPT_LENGTH = 3\n")
    with pytest.raises(InputError, match=r"checkpoint_6 is of another model: .*task_prompt/emb"):
        TrainedModel.load(copy, step=6)


def test_a_run_whose_optimizer_was_told_of_stacked_layers(undisturbed, tmp_path):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    (copy / "answering.gin").unlink()
    with (copy / "config.gin").open("a") as file:
        file.write("\nengine.adafactor.scan_layers = %SCAN_LAYERS\n")
    assert TrainedModel.load(copy).step == TrainedModel.load(undisturbed[0]).step


def test_it_stays_what_it_is_when_another_recipe_is_read(trained):
    scores = evaluate.evaluate(trained, "validation")
    with gin.unlock_config():
        gin.bind_parameter(
            "uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", "other.model"
        )
    assert evaluate.evaluate(trained, "validation") == scores
    user = predict.User("u", (5, 6), (9, 2), unknown=0)
    assert len(list(predict.predict(trained, [user]))) == 1


def test_reading_leaves_a_checkpoint_that_is_being_saved(undisturbed, tmp_path):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    begun = copy / "checkpoint_8.orbax-checkpoint-tmp" / "state"
    begun.mkdir(parents=True)
    TrainedModel.load(copy)
    assert begun.is_dir()


def test_answers_can_all_be_read_unless_the_model_is_let_free(trained, undisturbed):
    # After six steps it writes next to nothing by itself.
    free = TrainedModel.load(undisturbed[0], step=6, well_formed=False)
    assert evaluate.evaluate(free, "validation")["methods"]["uem"]["unparseable"] > 0
    assert evaluate.evaluate(trained, "validation")["methods"]["uem"]["unparseable"] == 0


def test_a_task_of_other_answers_has_no_grammar(undisturbed):
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


def test_it_is_compiled_once_for_a_size_of_batch(trained):
    assert trained.answerer(4).predictor is trained.answerer(4).predictor
    assert trained.answerer(4).predictor is not trained.answerer(8).predictor
