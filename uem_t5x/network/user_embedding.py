"""The User Embedding Module: one soft-prompt token for every item of a user's history.

    U in R^{p x w}      the vectors of the p items, looked up in the frozen item table
    Pr_UEM(U)           a small Transformer over U, projected to the language model's width e
    [P_e ; Pr_UEM(U) ; X_e]     what the encoder reads, P_e being the k task prompts

(arXiv 2401.04858, section 3; w = 3s with the paper's three channels of width s.)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Bool, Float

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network import attention, flops, layers
from uem_t5x.network.config import T5Config
from uem_t5x.network.item_table import Channel, ItemTable
from uem_t5x.network.soft_prompt import Features, SoftPrompt, SoftPromptModule
from uem_t5x.network.transformer import Encoder
from uem_t5x.network.types import Array


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
      scan_layers: says nothing by itself: the UEM's layers are run as the T5's are.
      remat: see `network.T5Config`.
      branch_init_scale: how much a fresh layer adds to an item's vector, see `network.T5Config`.
        At T5's own 1 every layer begins as noise beside the vectors, which carry all that is known
        of an item, and costs accuracy (docs/results.md).
    """

    num_layers: int = 3
    num_heads: int = 12
    head_dim: int = 64
    mlp_dim: int = 2048
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"
    branch_init_scale: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(0, UEM_LAYERS=self.num_layers)
        if not self.branch_init_scale > 0:
            raise InputError(
                f"UEM_BRANCH_INIT={self.branch_init_scale}: bind it above 0; Adafactor leaves what "
                "starts at zero there"
            )

    def encoder_config(self, width: int) -> T5Config:
        """Returns the UEM's Transformer as an encoder of width `width`."""
        return T5Config(
            emb_dim=width,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim,
            num_encoder_layers=self.num_layers,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            scan_layers=self.scan_layers,
            remat=self.remat,
            branch_init_scale=self.branch_init_scale,
        )


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
        x = Encoder(self.config.encoder_config(width), name="encoder")(
            vectors, mask, enable_dropout=enable_dropout
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


class UserPrompt(SoftPromptModule):
    """The paper's soft prompt, `[P_e ; Pr_UEM(U)]`: task prompts, then one token an item.

    It reads `history_items`, rows of the item table, oldest first, 0 for padding, and
    `history_ratings`, half-stars 1..10, likewise.

    Attributes:
      config: the UEM's sizes.
      channels: the item table's channels, in the order in which they are concatenated.
      prompt_length: k, the number of task prompts.
    """

    config: UserEmbeddingConfig = UserEmbeddingConfig()
    channels: Sequence[Channel] = dataclasses.field(kw_only=True)
    prompt_length: int = 20

    def __post_init__(self) -> None:
        check_at_least(0, PROMPT_LENGTH=self.prompt_length)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, features: Features, embed_dim: int, *, enable_dropout: bool = True
    ) -> SoftPrompt:
        items, ratings = features["history_items"], features["history_ratings"]
        mask = items > 0
        vectors = ItemTable(self.channels, name="item_table")(items, ratings)
        prompt = UserEmbedding(self.config, embed_dim, name="user_embedding")(
            vectors, mask, enable_dropout=enable_dropout
        )
        if self.prompt_length:
            task_prompt = TaskPrompt(self.prompt_length, embed_dim, name="task_prompt")(len(mask))
            prompt = jnp.concatenate([task_prompt.astype(prompt.dtype), prompt], axis=1)
            task_mask = jnp.ones((len(mask), self.prompt_length), bool)
            mask = jnp.concatenate([task_mask, mask], axis=1)
        return SoftPrompt(prompt, mask)

    @property
    def width(self) -> int:
        """Columns of an item's concatenated vectors, and the UEM's width."""
        return sum(channel.width for channel in self.channels)

    def flops(self, feature_lengths: Mapping[str, int], embed_dim: int) -> int:
        """Returns the FLOPs of the matrix products for one user, counted by hand."""
        history = feature_lengths["history_items"]
        encoder = flops.encoder_flops(self.config.encoder_config(self.width), history)
        return encoder + 2 * history * self.width * embed_dim

    def describe(self) -> dict[str, Any]:
        """Returns what it takes, beside the tensors, to compute the same elsewhere."""
        if type(self) is not UserPrompt or type(self.config) is not UserEmbeddingConfig:
            return super().describe()
        encoder = self.config.encoder_config(self.width)
        return {
            # Along the encoder's positions; the history oldest first, masked where it is padding.
            "encoder_input": ["task_prompt", "history", "text"],
            "prompt_length": self.prompt_length,
            # An item's vector: of each channel in turn the row that `index` selects, times
            # `scaling`. Half-star ratings 1..10 are rows of a rating channel. Row 0 is padding.
            "channels": [
                {
                    "name": channel.name,
                    "tensor": f"item_table/{channel.name}",
                    "index": channel.index,
                    "width": channel.width,
                    "scaling": channel.width**0.5,
                }
                for channel in self.channels
            ],
            # A T5 1.1 encoder over those vectors, then `user_embedding/projection/kernel`.
            "encoder": {
                "width": self.width,
                "num_layers": encoder.num_encoder_layers,
                "num_heads": encoder.num_heads,
                "head_dim": encoder.head_dim,
                "mlp_dim": encoder.mlp_dim,
                "mlp_activations": list(encoder.mlp_activations),
                "relative_attention_num_buckets": attention.RelativePositionBias.num_buckets,
                "relative_attention_max_distance": attention.RelativePositionBias.max_distance,
                "layer_norm_epsilon": layers.RMSNorm.epsilon,
            },
            "kernel_layout": "[in, out]",
        }
