"""Soft-prompt adapters: from the vectors of a history's items to tokens of the language model.

    U in R^{p x w}      the vectors of the p items
    adapter(U)          p tokens of width e, one an item, or m where SOFT_TOKENS compresses them

`UserEmbedding` is the paper's (arXiv 2401.04858, section 3); the others are those that PERSOMA
(arXiv 2408.00960) compares it with. All are of one config's sizes and end in one projection. What a
recipe calls them stands in `ADAPTERS`; it may also name a class of one's own, see `Adapter`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Bool, Float

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network import layers, transformer
from uem_t5x.network.config import T5Config
from uem_t5x.network.soft_prompt import SoftPrompt
from uem_t5x.network.types import Array


@dataclasses.dataclass(frozen=True)
class UserEmbeddingConfig:
    """The sizes of an adapter; the defaults are the paper's.

    Attributes:
      num_layers: depth; 0 leaves the projection alone.
      num_heads: attention heads.
      head_dim: width of one head; 12 heads of 64 are the paper's 768.
      mlp_dim: width of the gated feed-forward block.
      dropout_rate: for residual branches, attention weights and feed-forward blocks.
      dtype: of activations.
      scan_layers: says nothing by itself: the adapter's layers are run as the T5's are.
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
        """Returns the sizes of the adapter's stack of layers, of width `width`."""
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


class Adapter(nn.Module):
    """Makes soft-prompt tokens of the vectors of a history's items.

    A class of one's own needs `__call__` alone, and may have further fields. A recipe names it:
    `ADAPTER = @mine.MyAdapter`.

    Attributes:
      config: its sizes.
      features: e, the width of the language model's embeddings.
      soft_tokens: m, the number of tokens; None for one an item.
    """

    config: UserEmbeddingConfig
    features: int
    soft_tokens: int | None = None

    def __call__(
        self,
        vectors: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> SoftPrompt:
        """Returns the tokens of each user, and which of them hold any.

        Args:
          vectors: of the items, oldest first, their channels concatenated.
          mask: which of them are items and no padding.
          enable_dropout: whether to drop, which needs a `dropout` random key.
        """
        raise NotImplementedError(f"{type(self).__name__}.__call__ makes the tokens")

    @classmethod
    def check(cls, config: UserEmbeddingConfig, soft_tokens: int | None) -> None:
        """Refuses sizes that make no sense.

        Raises:
          InputError: if there is no such adapter.
        """
        del config
        check_at_least(1, none_for="one token an item", SOFT_TOKENS=soft_tokens)

    def _tokens(
        self,
        x: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        enable_dropout: bool,
    ) -> SoftPrompt:
        """Pools what was made of each item where there are to be fewer tokens, and projects."""
        if self.soft_tokens is not None:
            config = self.config.encoder_config(x.shape[-1])
            pooling = AttentionPooling(config, self.soft_tokens, name="pooling")
            x = pooling(x, mask, enable_dropout=enable_dropout)
            mask = _for_whoever_has_items(mask, self.soft_tokens)
        return SoftPrompt(self._project(x), mask)

    def _project(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens embed"]:
        return layers.Dense(
            self.features, ("mlp", "embed"), dtype=self.config.dtype, name="projection"
        )(x)


class UserEmbedding(Adapter):
    """`transformer`, the paper's `Pr_UEM`: a T5 encoder over the items' vectors.

    3 (4 w 768 + 3 w 2048) + w e weights by default: 65.5 million for w = 2304 and e = 768.
    """

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> SoftPrompt:
        encoder = transformer.Encoder(self.config.encoder_config(vectors.shape[-1]), name="encoder")
        x = encoder(vectors, mask, enable_dropout=enable_dropout)
        return self._tokens(x, mask, enable_dropout)


class MLPAdapter(Adapter):
    """`mlp`: feed-forward blocks over each item by itself.

    9 w 2048 + w e weights by default: 44.2 million for w = 2304 and e = 768.
    """

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> SoftPrompt:
        encoder = FeedForwardStack(self.config.encoder_config(vectors.shape[-1]), name="encoder")
        return self._tokens(encoder(vectors, enable_dropout=enable_dropout), mask, enable_dropout)


class PerceiverAdapter(Adapter):
    """`perceiver`: m learned latents that read the items, layer by layer.

    In each layer they attend to the items and to themselves, as those of Flamingo's resampler do
    (arXiv 2204.14198, section 2.1). Like the answers, latents do not depend on the order of items.
    What a fresh layer adds is not damped: before it the latents know nothing of the user.

    3 (4 w 768 + 3 w 2048) + m w + w e weights by default: 65.6 million for 20 latents, w = 2304 and
    e = 768.
    """

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> SoftPrompt:
        config = _undamped(self.config.encoder_config(vectors.shape[-1]))
        resampler = PerceiverResampler(config, self.soft_tokens, name="encoder")
        latents = resampler(vectors, mask, enable_dropout=enable_dropout)
        return SoftPrompt(self._project(latents), _for_whoever_has_items(mask, self.soft_tokens))

    @classmethod
    def check(cls, config: UserEmbeddingConfig, soft_tokens: int | None) -> None:
        """Refuses None, too, as a latent is no item's, and latents that read nothing."""
        if soft_tokens is None:
            raise InputError(
                "SOFT_TOKENS=None: ADAPTER='perceiver' needs a number of latents; bind it to 1 or "
                "more, at most HISTORY_LENGTH"
            )
        super().check(config, soft_tokens)
        if not config.num_layers:
            raise InputError(
                "UEM_LAYERS=0: without a layer the latents of ADAPTER='perceiver' read no items; "
                "bind it to 1 or more"
            )


ADAPTERS: dict[str, type[Adapter]] = {
    "transformer": UserEmbedding,
    "mlp": MLPAdapter,
    "perceiver": PerceiverAdapter,
}


class FeedForwardLayer(nn.Module):
    """A feed-forward block, normed before and added after: a T5 layer without attention."""

    config: T5Config

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch length width"], *, dropout_key: Array | None = None
    ) -> Float[Array, "batch length width"]:
        keys = layers.split_key(dropout_key, 2)
        return transformer.add_feed_forward(self.config, inputs, keys)


class FeedForwardStack(transformer.EncoderStack):
    """A stack of feed-forward layers: of every position by itself."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch length width"], *, enable_dropout: bool
    ) -> Float[Array, "batch length width"]:
        return self.through(FeedForwardLayer, inputs, enable_dropout=enable_dropout)


class PerceiverLayer(nn.Module):
    """Attention of latents to items and latents, and a feed-forward block."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch latents width"],
        items: Float[Array, "batch history width"],
        mask: Bool[Array, "batch 1 1 keys"],
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "batch latents width"]:
        cfg = self.config
        keys = layers.split_key(dropout_key, 4)
        x = layers.RMSNorm(dtype=cfg.dtype, name="pre_attention_layer_norm")(latents)
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_attention_items_layer_norm")(items)
        y = jnp.concatenate([y, x], axis=1)
        y = transformer.attention(cfg, "attention")(x, y, mask, dropout_key=keys[0])
        x = latents + layers.dropout(y, cfg.dropout_rate, keys[1])
        return transformer.add_feed_forward(cfg, x, keys[2:])


class PerceiverResampler(transformer.EncoderStack):
    """A stack of Perceiver layers over learned latents."""

    num_latents: int

    @nn.compact
    def __call__(
        self,
        items: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> Float[Array, "batch latents width"]:
        latents = _learned(self, "latents", self.num_latents, items)
        mask = jnp.concatenate([mask, jnp.ones(latents.shape[:2], bool)], axis=1)
        context = items.astype(self.config.dtype), mask[:, None, None, :]
        return self.through(PerceiverLayer, latents, *context, enable_dropout=enable_dropout)


class AttentionPooling(nn.Module):
    """Learned queries, each of which takes a weighted mean of what there is of the items."""

    config: T5Config
    num_tokens: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch history width"],
        mask: Bool[Array, "batch history"],
        *,
        enable_dropout: bool,
    ) -> Float[Array, "batch tokens width"]:
        queries = _learned(self, "queries", self.num_tokens, x)
        key = layers.dropout_key(self, enable_dropout)
        attend = transformer.attention(_undamped(self.config), "attention")
        return attend(queries, x, mask[:, None, None, :], dropout_key=key)


def _learned(
    module: nn.Module, name: str, count: int, like: Float[Array, "batch length width"]
) -> Float[Array, "batch count width"]:
    """Returns so many learned vectors, the same for every user."""
    vectors = partitioning.param_with_axes(
        name,
        nn.initializers.normal(stddev=1.0),
        (count, like.shape[-1]),
        jnp.float32,
        axes=("prompt", "embed"),
        module=module,
    )
    vectors = layers.gathered(vectors, ("prompt", "embed"))
    return jnp.broadcast_to(vectors, (like.shape[0], *vectors.shape))


def _undamped(config: T5Config) -> T5Config:
    return dataclasses.replace(config, branch_init_scale=1.0)


def _for_whoever_has_items(
    mask: Bool[Array, "batch history"], count: int
) -> Bool[Array, "batch count"]:
    """Returns the mask of tokens that are made of all items: a user without any has none."""
    return jnp.broadcast_to(mask.any(axis=1, keepdims=True), (mask.shape[0], count))
