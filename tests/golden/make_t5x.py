"""Asks T5X itself for `t5x.npz`; run with T5X importable, from the repository root:

PYTHONPATH=tests:${T5X_DIR} python tests/golden/make_t5x.py
"""

from pathlib import Path

import flax.core
import jax
import numpy as np
from golden import t5x_case as case
from t5x import adafactor, decoding, models, utils
from t5x.examples.t5 import network

from uem_t5x import engine
from uem_t5x.network import item_table
from uem_t5x.training import learning_rates

GOLDEN = Path(__file__).with_name("t5x.npz")


def t5x_model(**options):
    """Returns T5X's own model, with T5X's own network."""
    config = network.T5Config(**case.SIZES, mlp_activations=("gelu", "linear"), dtype="float32")
    return models.EncoderDecoderModel(
        network.Transformer(config),
        case.VOCABULARY,
        case.VOCABULARY,
        adafactor.Adafactor(),
        **options,
    )


def language_model() -> dict[str, np.ndarray]:
    """Returns what T5X's model gives for the language model by itself."""
    params, batch = case.language_model_params(), case.BATCH
    model = t5x_model(**case.LOSS_OPTIONS)
    loss, metrics = model.loss_fn(params, batch, None)
    greedy = t5x_model(decode_fn=decoding.temperature_sample).predict_batch_with_aux(
        params, batch, decoder_params={"temperature": 0.0, "decode_rng": jax.random.PRNGKey(0)}
    )
    return {
        "logits": model._compute_logits(params, batch),
        "loss": loss,
        "accuracy": metrics["accuracy"].compute(),
        "scores": model.score_batch(params, batch),
        "greedy": greedy[0],
    }


def uem_training() -> dict[str, np.ndarray]:
    """Returns the loss of each step that T5X's trainer takes with this package's model."""
    model = case.uem_model(engine.adafactor())
    batch = case.uem_batch()
    partitioner = engine.partitioner()
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes={name: array.shape for name, array in batch.items()},
        partitioner=partitioner,
    )
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    params = case.draw_params(flax.core.unfreeze(state.params))
    mutables = item_table.fill(flax.core.unfreeze(state.flax_mutables), case.item_vectors)
    training = engine.trainer(learning_rates.trapezoid(case.LEARNING_RATE, case.STEPS))(
        model=model,
        train_state=state.replace_params(flax.core.freeze(params)).replace_flax_mutables(
            flax.core.freeze(mutables)
        ),
        partitioner=partitioner,
        train_state_axes=initializer.train_state_axes,
        eval_names=[],
        summary_dir=None,
        rng=jax.random.PRNGKey(0),
    )
    losses = []
    for _ in range(case.STEPS):
        metrics = training.train(iter([batch]), num_steps=1).result()
        losses.append(metrics["loss"].value)
    logits = model.compute_logits(
        training.train_state.params, batch, flax_mutables=training.train_state.flax_mutables
    )
    return {"uem_losses": losses, "uem_logits": logits}


def compute() -> dict[str, np.ndarray]:
    """Returns all golden values by name."""
    values = {**language_model(), **uem_training()}
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **compute())
