"""What `make_t5x.py` asks T5X about, and the tests ask this package: parameters and batches."""

from typing import Any

import jax
import numpy as np
import seqio
from flax import traverse_util

from uem_t5x import models, network
from uem_t5x.inputs import feature_converters
from uem_t5x.network import user_embedding
from uem_t5x.network.item_table import Channel
from uem_t5x.training import optimizers

VOCABULARY = seqio.PassThroughVocabulary(48, eos_id=1)
SIZES = {
    "vocab_size": 48,
    "emb_dim": 16,
    "num_heads": 2,
    "head_dim": 8,
    "mlp_dim": 24,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
}
LOSS_OPTIONS = {"z_loss": 0.01, "label_smoothing": 0.1, "loss_normalizing_factor": 8.0}
LEARNING_RATE = 0.05
STEPS = 3

TARGETS = np.array([[5, 9, 30, 1, 0], [7, 1, 0, 0, 0], [8, 8, 40, 3, 1], [2, 6, 1, 0, 0]], np.int32)
BATCH = {
    "encoder_input_tokens": np.array(
        [[4, 5, 6, 1], [7, 8, 1, 0], [9, 1, 0, 0], [3, 44, 2, 1]], np.int32
    ),
    "decoder_input_tokens": np.pad(TARGETS[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": TARGETS,
    "decoder_loss_weights": (TARGETS > 0).astype(np.int32),
}
HISTORY = {
    "history_items": np.array([[1, 2, 3], [4, 0, 0], [6, 5, 0], [2, 6, 1]], np.int32),
    "history_ratings": np.array([[9, 2, 7], [10, 0, 0], [1, 5, 0], [3, 3, 8]], np.int32),
}


def transformer() -> network.Transformer:
    """Returns the language model by itself."""
    return network.Transformer(network.T5Config(**SIZES))


def personalized_transformer() -> network.Transformer:
    """Returns the language model under a UEM of two channels."""
    user_prompt = user_embedding.UserPrompt(
        user_embedding.UserEmbeddingConfig(num_layers=1, num_heads=2, head_dim=4, mlp_dim=12),
        channels=(Channel("title", 7, 6, "item"), Channel("rating", 11, 6, "rating")),
        prompt_length=2,
    )
    return network.Transformer(network.T5Config(**SIZES), user_prompt)


def item_vectors(channel: str) -> np.ndarray:
    """Returns the vectors of six items, or of ten ratings; row 0 is padding."""
    rng = np.random.default_rng(2)
    table = {name: rng.standard_normal((rows, 6)) for name, rows in (("title", 7), ("rating", 11))}
    for vectors in table.values():
        vectors[0] = 0
    return table[channel].astype(np.float32)


def draw_params(shapes: dict) -> dict:
    """Draws parameters of the given shapes; they depend on the names' order alone."""
    rng = np.random.default_rng(1)
    flat = traverse_util.flatten_dict(shapes, sep="/")
    drawn = {
        name: rng.standard_normal(flat[name].shape) * 0.3 + name.endswith("scale")
        for name in sorted(flat)
    }
    return traverse_util.unflatten_dict(
        {name: value.astype(np.float32) for name, value in drawn.items()}, sep="/"
    )


def language_model_params() -> dict:
    """Returns the parameters of `transformer()`."""
    shapes = jax.eval_shape(transformer().init, jax.random.PRNGKey(0), *list(BATCH.values())[:3])
    return draw_params(shapes["params"])


def uem_model(optimizer_def: Any = None) -> models.EncoderDecoderModel:
    """Returns `personalized_transformer()` as a model, by default with the built-in Adafactor."""
    return models.EncoderDecoderModel(
        personalized_transformer(),
        VOCABULARY,
        VOCABULARY,
        optimizer_def or optimizers.adafactor(),
        feature_converter_cls=feature_converters.UserEmbeddingFeatureConverter,
    )


def uem_batch() -> dict[str, np.ndarray]:
    """Returns the batch that `uem_model()` trains on."""
    return {**BATCH, **HISTORY}
