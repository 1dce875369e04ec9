"""The model against T5X itself, by golden values; `tests/on_t5x` asks T5X anew."""

from pathlib import Path

import jax
import numpy as np
import pytest
from golden import t5x_case as case

from uem_t5x import models
from uem_t5x.training import learning_rates, trainer
from uem_t5x.training.partitioning import Partitioner

GOLDEN = np.load(Path(__file__).parents[1] / "golden/t5x.npz")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def params():
    return case.language_model_params()


def language_model(**options):
    return models.EncoderDecoderModel(
        case.transformer(), case.VOCABULARY, case.VOCABULARY, None, **options
    )


def test_logits_and_loss_of_the_language_model(params):
    model = language_model(**case.LOSS_OPTIONS)
    logits = model.compute_logits(params, case.BATCH)
    np.testing.assert_allclose(logits, GOLDEN["logits"], **CLOSE)
    loss, metrics = model.loss_fn(params, case.BATCH, None)
    np.testing.assert_allclose(loss, GOLDEN["loss"], **CLOSE)
    np.testing.assert_allclose(metrics["accuracy"].compute(), GOLDEN["accuracy"], **CLOSE)


def test_scores_and_greedy_answers_of_the_language_model(params):
    model = language_model()
    np.testing.assert_allclose(model.score_batch(params, case.BATCH), GOLDEN["scores"], **CLOSE)
    np.testing.assert_array_equal(model.predict_batch(params, case.BATCH), GOLDEN["greedy"])


def test_the_built_in_trainer_takes_the_steps_of_t5x():
    model = case.uem_model()
    batch = case.uem_batch()
    partitioner = Partitioner()
    initializer = trainer.TrainStateInitializer(
        model,
        {name: array.shape for name, array in batch.items()},
        partitioner,
        item_vectors=case.item_vectors,
    )
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    state = state.replace(params=case.draw_params(state.params))
    training = trainer.Trainer(
        model,
        jax.random.PRNGKey(0),
        partitioner,
        initializer.state_shape,
        learning_rates.trapezoid(case.LEARNING_RATE, case.STEPS),
    )
    losses = []
    for _ in range(case.STEPS):
        state, metrics = training.train_step(state, batch)
        losses.append(metrics["loss"].compute())
    logits = model.compute_logits(state.params, batch, flax_mutables=state.flax_mutables)
    np.testing.assert_allclose(losses, GOLDEN["uem_losses"], **CLOSE)
    # Adafactor's first steps go by the gradient's sign, where rounding is no longer small.
    np.testing.assert_allclose(logits, GOLDEN["uem_logits"], rtol=2e-3, atol=2e-3)
