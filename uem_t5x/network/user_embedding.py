"""The User Embedding Module: soft-prompt tokens of a user's history, behind task prompts.

    U in R^{p x w}      the vectors of the p items, looked up in the frozen item table
    Pr_UEM(U)           an adapter over U, in the paper a small Transformer, projected to the
                        language model's width e: a token an item, or fewer (`adapters`)
    [P_e ; Pr_UEM(U) ; X_e]     what the encoder reads, P_e being the k task prompts

(arXiv 2401.04858, section 3; w = 3s with the paper's three channels of width s.)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Float

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network import adapters, attention, layers
from uem_t5x.network.adapters import UserEmbeddingConfig
from uem_t5x.network.item_table import Channel, ItemTable
from uem_t5x.network.soft_prompt import Features, SoftPrompt, SoftPromptModule
from uem_t5x.network.types import Array, Size


class TaskPrompt(nn.Module):
    """`P_e`: learned prompts, the same for every user."""

    length: int
    features: int

    @nn.compact
    def __call__(self, batch_size: Size) -> Float[Array, "batch prompt embed"]:
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
    """The paper's soft prompt, `[P_e ; Pr_UEM(U)]`: task prompts, then what is made of the items.

    It reads `history_items`, rows of the item table, oldest first, 0 for padding, and
    `history_ratings`, half-stars 1..10, likewise.

    Attributes:
      config: the adapter's sizes.
      channels: the item table's channels, in the order in which they are concatenated.
      prompt_length: k, the number of task prompts.
      adapter: what makes tokens of items: a name in `adapters.ADAPTERS`, or a class of one's own.
      soft_tokens: m, the number of these tokens; None for one an item.
    """

    config: UserEmbeddingConfig = UserEmbeddingConfig()
    channels: Sequence[Channel] = dataclasses.field(kw_only=True)
    prompt_length: int = 20
    adapter: Any = "transformer"
    soft_tokens: int | None = None

    def __post_init__(self) -> None:
        check_at_least(0, PROMPT_LENGTH=self.prompt_length)
        self.adapter_cls.check(self.config, self.soft_tokens)
        super().__post_init__()

    @property
    def adapter_cls(self) -> type[adapters.Adapter]:
        """The adapter's class.

        Raises:
          InputError: if there is none of this name.
        """
        if isinstance(self.adapter, str):
            if self.adapter not in adapters.ADAPTERS:
                raise InputError(
                    f"ADAPTER={self.adapter!r}: no such adapter; choose one of "
                    f"{', '.join(adapters.ADAPTERS)}, or name a class: @module.Class"
                )
            return adapters.ADAPTERS[self.adapter]
        if not (isinstance(self.adapter, type) and issubclass(self.adapter, adapters.Adapter)):
            raise InputError(
                f"ADAPTER={self.adapter!r}: not a class derived from network.Adapter; name the "
                "class itself, without (): @module.Class"
            )
        return self.adapter

    @nn.compact
    def __call__(
        self, features: Features, embed_dim: int, *, enable_dropout: bool = True
    ) -> SoftPrompt:
        items, ratings = features["history_items"], features["history_ratings"]
        if self.soft_tokens is not None and self.soft_tokens > items.shape[1]:
            raise InputError(
                f"SOFT_TOKENS={self.soft_tokens}: more than HISTORY_LENGTH={items.shape[1]} items; "
                "bind it to that or less, or to None for one token an item"
            )
        vectors = ItemTable(self.channels, name="item_table")(items, ratings)
        adapter = self.adapter_cls(self.config, embed_dim, self.soft_tokens, name="user_embedding")
        prompt, mask = adapter(vectors, items > 0, enable_dropout=enable_dropout)
        if self.prompt_length:
            task_prompt = TaskPrompt(self.prompt_length, embed_dim, name="task_prompt")(
                mask.shape[0]
            )
            prompt = jnp.concatenate([task_prompt.astype(prompt.dtype), prompt], axis=1)
            task_mask = jnp.ones((mask.shape[0], self.prompt_length), bool)
            mask = jnp.concatenate([task_mask, mask], axis=1)
        return SoftPrompt(prompt, mask)

    @property
    def width(self) -> int:
        """Columns of an item's concatenated vectors, and the adapter's width."""
        return sum(channel.width for channel in self.channels)

    def describe(self) -> dict[str, Any]:
        """Returns what it takes, beside the tensors, to compute the same elsewhere."""
        is_ours = type(self) is UserPrompt and type(self.config) is UserEmbeddingConfig
        if not is_ours or self.adapter_cls not in adapters.ADAPTERS.values():
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
            # What is made of those vectors, then `user_embedding/projection/kernel`. `transformer`:
            # a T5 1.1 encoder. `mlp`: the same without attention. `perceiver`: learned latents,
            # which attend to the normed vectors and latents, in place of the vectors. Behind the
            # first two `soft_tokens` learned queries attend to what they made, if it is a number.
            "adapter": self._adapter_name,
            "soft_tokens": self.soft_tokens,
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

    @property
    def _adapter_name(self) -> str:
        named = {cls: name for name, cls in adapters.ADAPTERS.items()}
        return named[self.adapter_cls]
