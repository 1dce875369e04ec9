"""The User Embedding Module: one soft-prompt token for every item of a user's history.

    U in R^{p x w}      the vectors of the p items, looked up in the frozen item table
    Pr_UEM(U)           a small Transformer over U, projected to the language model's width e
    [P_e ; Pr_UEM(U) ; X_e]     what the encoder reads, P_e being the k task prompts

(arXiv 2401.04858, section 3; w = 3s with the paper's three channels of width s.)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Bool, Float, Int

from uem_t5x import network
from uem_t5x.base.errors import check_at_least
from uem_t5x.base.overrides import Override
from uem_t5x.data.manifest import Channel
from uem_t5x.inputs import data_sources
from uem_t5x.network import layers
from uem_t5x.network.layouts import constrain
from uem_t5x.network.types import Array, PyTree

# The collection of frozen variables: no gradient, no optimizer state, saved with the checkpoint.
ITEM_TABLE = "item_table"


@dataclasses.dataclass(frozen=True)
class UserEmbeddingConfig:
    """The sizes of the UEM; the defaults are the paper's.

    Attributes:
      num_layers: Transformer depth; 0 leaves the projection alone.
      num_heads: attention heads.
      head_dim: width of one head; 12 heads of 64 are the paper's 768.
      mlp_dim: width of the gated feed-forward block.
      dropout_rate: for residual branches, attention weights and feed-forward blocks.
      dtype: of activations.
      scan_layers: see `network.T5Config`.
      remat: see `network.T5Config`.
    """

    num_layers: int = 3
    num_heads: int = 12
    head_dim: int = 64
    mlp_dim: int = 2048
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        check_at_least(0, UEM_LAYERS=self.num_layers)

    def encoder_config(self, width: int) -> network.T5Config:
        """Returns the UEM's Transformer as an encoder of width `width`."""
        return network.T5Config(
            emb_dim=width,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim,
            num_encoder_layers=self.num_layers,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            scan_layers=self.scan_layers,
            remat=self.remat,
        )


def channels() -> tuple[Channel, ...]:
    """Returns the channels of the current dataset folder, in the order they are concatenated."""
    return data_sources.dataset_folder().channels


# Inside `with blank_item_tables(True):` fresh item tables are zeros, for `load_item_table` to fill:
# what a compiled initialization looks up on the disk would be a constant of the program.
blank_item_tables: Override[bool] = Override()


def _fresh_table(channel: Channel) -> Float[Array, "rows width"]:
    folder = data_sources.dataset_folder()
    if blank_item_tables.value:
        return jnp.zeros(folder.embedding_shape(channel))
    return jnp.asarray(folder.embedding(channel.name))


def load_item_table(variables: PyTree) -> PyTree:
    """Fills blank item tables with the vectors of the current dataset folder.

    Args:
      variables: nested dictionaries by collection; arrays of the collection `ITEM_TABLE` are given
        up, and those that take their place lie on the same devices.

    Returns:
      The variables.
    """

    def load(path: tuple[Any, ...], blank: jax.Array) -> jax.Array:
        if path[0].key != ITEM_TABLE:
            return blank
        vectors = data_sources.dataset_folder().embedding(path[-1].key)
        shape, sharding = blank.shape, blank.sharding
        blank.delete()
        return jax.make_array_from_callback(shape, sharding, vectors.__getitem__)

    return jax.tree_util.tree_map_with_path(load, variables)


class ItemTable(nn.Module):
    """The precomputed sentence embeddings, on the device: ids travel, vectors stay."""

    channels: Sequence[Channel]

    @nn.compact
    def __call__(
        self, items: Int[Array, "batch history"], ratings: Int[Array, "batch history"]
    ) -> Float[Array, "batch history width"]:
        """Returns the concatenated vectors; row 0 of every channel is padding, all zeros.

        Sentence embeddings have unit length: their entries are about 1/sqrt(s), and a pre-norm
        residual stream that starts so small is drowned by its first layer's output. So each
        channel is multiplied by the square root of its width, which makes its entries about 1.
        """
        rows = {"item": items, "rating": ratings}
        vectors = []
        for channel in self.channels:
            table = partitioning.variable_with_axes(
                ITEM_TABLE,
                channel.name,
                _fresh_table,
                channel,
                axes=("items", "item_embed"),
            )
            vector = jnp.take(table.value, rows[channel.index], axis=0)
            # Where the table is split by width, so is what is looked up, for all examples; then it
            # travels to the devices of its examples. The table itself never does.
            for axes in (("looked_up", "length", "item_embed"), ("batch", "length", "item_embed")):
                vector = constrain(vector, axes)
            vectors.append(vector * np.sqrt(vector.shape[-1]))
        vectors = jnp.concatenate(vectors, axis=-1)
        return constrain(vectors, ("batch", "length", "embed"))


class UserEmbedding(nn.Module):
    """`Pr_UEM`: a Transformer over a history's item vectors, projected to `features`."""

    config: UserEmbeddingConfig
    features: int

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> Float[Array, "batch history embed"]:
        width = vectors.shape[-1]
        x = network.Encoder(self.config.encoder_config(width), name="encoder")(
            vectors, mask, deterministic=not enable_dropout
        )
        return layers.Dense(
            self.features, ("mlp", "embed"), dtype=self.config.dtype, name="projection"
        )(x)


class TaskPrompt(nn.Module):
    """`P_e`: learned prompts, the same for every user."""

    length: int
    features: int

    @nn.compact
    def __call__(self, batch_size: int) -> Float[Array, "batch prompt embed"]:
        embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.length, self.features),
            jnp.float32,
            axes=("prompt", "embed"),
        )
        embedding = layers.gathered(embedding, ("prompt", "embed"))
        return jnp.broadcast_to(embedding, (batch_size, *embedding.shape))


class PersonalizedTransformer(network.Transformer):
    """T5 that reads `[P_e ; Pr_UEM(U) ; X_e]`.

    Attributes:
      user_embedding_config: the UEM's sizes.
      channels: the item table's channels, in the order they are concatenated.
      prompt_length: k, the number of task prompts.
    """

    user_embedding_config: UserEmbeddingConfig = UserEmbeddingConfig()
    channels: Sequence[Channel] = dataclasses.field(kw_only=True)
    prompt_length: int = 20

    def setup(self) -> None:
        check_at_least(0, PROMPT_LENGTH=self.prompt_length)
        super().setup()
        emb_dim = self.config.emb_dim
        self.item_table = ItemTable(self.channels)
        self.user_embedding = UserEmbedding(self.user_embedding_config, emb_dim)
        if self.prompt_length:
            self.task_prompt = TaskPrompt(self.prompt_length, emb_dim)

    def embed_user(
        self,
        history_items: Int[Array, "batch history"],
        history_ratings: Int[Array, "batch history"],
        *,
        enable_dropout: bool = True,
    ) -> network.SoftPrompt:
        """Returns the soft prompt of each user: the task prompts, then one token an item.

        Args:
          history_items: rows of the item table, oldest first; 0 for padding.
          history_ratings: half-stars 1..10; 0 for padding.
          enable_dropout: whether to drop, which needs a `dropout` random key.
        """
        mask = history_items > 0
        vectors = self.item_table(history_items, history_ratings)
        prompt = self.user_embedding(vectors, mask, enable_dropout=enable_dropout)
        if self.prompt_length:
            task_prompt = self.task_prompt(mask.shape[0]).astype(prompt.dtype)
            prompt = jnp.concatenate([task_prompt, prompt], axis=1)
            task_mask = jnp.ones((mask.shape[0], self.prompt_length), bool)
            mask = jnp.concatenate([task_mask, mask], axis=1)
        return network.SoftPrompt(prompt, mask)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "batch text"],
        history_items: Int[Array, "batch history"],
        history_ratings: Int[Array, "batch history"],
        *,
        enable_dropout: bool = True,
    ) -> network.Encoded:
        """Encodes the user's soft prompt and the text after it.

        Args:
          encoder_input_tokens: the text; 0 pads it.
          history_items: rows of the item table, oldest first; 0 pads them on the right.
          history_ratings: half-stars 1..10, likewise.
          enable_dropout: whether to drop, which needs a `dropout` random key.

        Returns:
          Hidden states and mask over [task prompts, items, text].
        """
        soft_prompt = self.embed_user(history_items, history_ratings, enable_dropout=enable_dropout)
        return super().encode(encoder_input_tokens, soft_prompt, enable_dropout=enable_dropout)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "batch text"],
        decoder_input_tokens: Int[Array, "batch length"],
        decoder_target_tokens: Int[Array, "batch length"],
        *,
        history_items: Int[Array, "batch history"],
        history_ratings: Int[Array, "batch history"],
        enable_dropout: bool = True,
    ) -> Float[Array, "batch length vocab"]:
        """Returns the logits of every target position.

        Args:
          encoder_input_tokens: see `encode`.
          decoder_input_tokens: the targets shifted right by one.
          decoder_target_tokens: what is to be written; 0 pads it.
          history_items: see `encode`.
          history_ratings: see `encode`.
          enable_dropout: see `encode`.
        """
        encoded = self.encode(
            encoder_input_tokens, history_items, history_ratings, enable_dropout=enable_dropout
        )
        return self.decode(
            encoded, decoder_input_tokens, decoder_target_tokens, enable_dropout=enable_dropout
        )
