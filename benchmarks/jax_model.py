"""This package's model at a benchmark's sizes."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import sizes as sizes_lib
from benchmarks.sizes import Sizes
from uem_t5x import network
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network import user_embedding
from uem_t5x.network.item_table import Channel
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.training import learning_rates, optimizers
from uem_t5x.training.partitioning import Partitioner
from uem_t5x.training.trainer import Trainer, TrainState, TrainStateInitializer

# As the end-of-sequence token: no answer ends, so that all are written in full.
NEVER = -1
_LEARNING_RATE = 1e-3


def t5_config(sizes: Sizes, dtype: str = "float32", **options: Any) -> network.T5Config:
    """Returns the T5's sizes; `options` are further ones of `network.T5Config`."""
    return network.T5Config(
        vocab_size=sizes.vocabulary,
        emb_dim=sizes.width,
        num_heads=sizes.heads,
        head_dim=sizes_lib.HEAD_DIM,
        mlp_dim=sizes.mlp,
        num_encoder_layers=sizes.layers,
        num_decoder_layers=sizes.layers,
        dtype=jnp.dtype(dtype),
        **options,
    )


def personalized_transformer(
    sizes: Sizes,
    dtype: str = "float32",
    channels: Sequence[Channel] | None = None,
    adapter: Mapping[str, Any] | None = None,
    **options: Any,
) -> network.Transformer:
    """Returns the network.

    Args:
        sizes: of the T5 and the UEM.
        dtype: of activations.
        channels: replace those of the sizes.
        adapter: `adapter` and `soft_tokens` of the soft prompt.
        **options: further ones of `network.T5Config`.
    """
    user_prompt = user_embedding.UserPrompt(
        user_embedding.UserEmbeddingConfig(
            num_layers=sizes.uem_layers,
            num_heads=sizes.uem_heads,
            head_dim=sizes_lib.HEAD_DIM,
            mlp_dim=sizes.uem_mlp,
            dtype=jnp.dtype(dtype),
        ),
        channels=channels or sizes.channels,
        prompt_length=sizes.prompts,
        **(adapter or {}),
    )
    return network.Transformer(t5_config(sizes, dtype, **options), user_prompt)


def model(module: network.Transformer, **options: Any) -> EncoderDecoderModel:
    """Returns a network as a model, by default over a vocabulary without an end of sequence.

    Args:
        module: the network.
        **options: further arguments of `EncoderDecoderModel`.
    """
    vocabulary = types.SimpleNamespace(vocab_size=module.config.vocab_size, eos_id=NEVER)
    vocabularies = {"input_vocabulary": vocabulary, "output_vocabulary": vocabulary}
    given = {**vocabularies, "optimizer_def": optimizers.adafactor(), **options}
    return EncoderDecoderModel(module, **given)


@dataclasses.dataclass
class Training:
    """A model under training.

    Attributes:
        trainer: takes the steps.
        state: after the latest one.
        partitioner: puts batches on the devices.
    """

    trainer: Trainer
    state: TrainState
    partitioner: Partitioner

    @classmethod
    def start(cls, model: EncoderDecoderModel, batch: Batch, sizes: Sizes) -> "Training":
        """Draws parameters, and the item table of the sizes."""
        partitioner = Partitioner()
        shapes = {name: array.shape for name, array in batch.items()}
        vectors = sizes_lib.item_table(sizes).__getitem__
        initializer = TrainStateInitializer(model, shapes, partitioner, item_vectors=vectors)
        state = initializer.from_scratch(jax.random.key(0))
        trainer = make_trainer(
            model=model,
            rng=jax.random.key(1),
            partitioner=partitioner,
            state_shape=initializer.state_shape,
        )
        return cls(trainer, state, partitioner)

    def run(self, batch: Batch, steps: int = 1) -> None:
        """Takes steps on a batch that lies on the devices, and waits for them."""
        for _ in range(steps):
            self.state, _ = self.trainer.train_step(self.state, batch)
        jax.block_until_ready(self.state)


def make_trainer(**arguments: Any) -> Trainer:
    """Returns a trainer at a constant learning rate; the arguments are its own."""
    return Trainer(**arguments, learning_rate_fn=learning_rates.trapezoid(_LEARNING_RATE, 1))


def count_parameters(params: PyTree) -> int:
    """Counts the weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def feature_lengths(batch: Batch) -> dict[str, int]:
    """Returns the length of each feature, as `network.flops` asks for them."""
    return {name: array.shape[1] for name, array in batch.items()}


def without_history(batch: Batch) -> Batch:
    """Returns what a T5 reads that is told no history."""
    return {name: array for name, array in batch.items() if not name.startswith("history_")}
