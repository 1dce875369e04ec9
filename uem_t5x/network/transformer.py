"""T5 1.1 in Flax linen, interchangeable with T5X's by parameter name and shape.

The encoder takes embeddings, not tokens: what stands before the text (task prompts, a user's
history) is made by a module that is injected, and the T5 does not know what made it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from uem_t5x.network import layers, long_attention, stacks
from uem_t5x.network.attention import Attention, RelativePositionBias
from uem_t5x.network.config import FULL, TRANSIENT_GLOBAL, T5Config
from uem_t5x.network.layouts import constrain
from uem_t5x.network.soft_prompt import Features, SoftPrompt, SoftPromptModule
from uem_t5x.network.types import Array, PyTree


class Encoded(NamedTuple):
    """The encoder's output, and which of its positions hold anything."""

    values: Float[Array, "batch source embed"]
    mask: Bool[Array, "batch source"]


def attention(config: T5Config, name: str) -> Attention:
    """Returns attention to everything, of a config's sizes."""
    return Attention(
        config.num_heads,
        config.head_dim,
        config.dropout_rate,
        config.dtype,
        config.branch_init_scale,
        config.lora,
        name=name,
    )


def _encoder_attention(config: T5Config, length: int, name: str) -> Attention:
    if config.encoder_attention == FULL:
        return attention(config, name)
    return long_attention.LongAttention(
        config.num_heads,
        config.head_dim,
        config.dropout_rate,
        config.dtype,
        config.branch_init_scale,
        config.lora,
        blocks=config.blocks(length),
        name=name,
    )


def add_feed_forward(
    config: T5Config, x: Float[Array, "batch length embed"], keys: jax.Array | list[None]
) -> Float[Array, "batch length embed"]:
    """Ends a layer: adds what a feed-forward block makes of the normed stream.

    It belongs into a compact method of a module.

    Args:
      config: the sizes.
      x: the stream.
      keys: two random keys, of the block's dropout and the branch's.
    """
    block = layers.GatedMLP(
        config.mlp_dim,
        config.mlp_activations,
        config.dropout_rate,
        config.dtype,
        config.branch_init_scale,
        config.lora,
        name="mlp",
    )
    y = layers.RMSNorm(dtype=config.dtype, name="pre_mlp_layer_norm")(x)
    y = block(y, dropout_key=keys[0])
    return x + layers.dropout(y, config.dropout_rate, keys[1])


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each normed before and added after."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch 1 length length"] | Bool[Array, "batch length"],
        bias: Float[Array, "1 heads length length"] | long_attention.LongBias,
        *,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "batch length embed"]:
        cfg = self.config
        keys = layers.split_key(dropout_key, 4)
        x = constrain(inputs, ("batch", "length", "embed"))
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_attention_layer_norm")(x)
        attend = _encoder_attention(cfg, inputs.shape[1], "attention")
        y = attend(y, mask=mask, bias=bias, dropout_key=keys[0])
        x = x + layers.dropout(y, cfg.dropout_rate, keys[1])
        return add_feed_forward(cfg, x, keys[2:])


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, and a feed-forward block."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch length embed"],
        encoded: Float[Array, "batch source embed"],
        mask: Bool[Array, "#batch 1 length _"],
        cross_mask: Bool[Array, "batch 1 #length source"],
        bias: Float[Array, "1 heads length _"],
        *,
        dropout_key: jax.Array | None = None,
        decode: bool = False,
        cache_index: Int[Array, ""] | None = None,
    ) -> Float[Array, "batch length embed"]:
        cfg = self.config
        keys = layers.split_key(dropout_key, 6)
        x = constrain(inputs, ("batch", "length", "embed"))
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_self_attention_layer_norm")(x)
        y = attention(cfg, "self_attention")(
            y,
            mask=mask,
            bias=bias,
            dropout_key=keys[0],
            decode=decode,
            cache_index=cache_index,
        )
        x = x + layers.dropout(y, cfg.dropout_rate, keys[1])
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_cross_attention_layer_norm")(x)
        y = attention(cfg, "encoder_decoder_attention")(
            y, encoded, cross_mask, dropout_key=keys[2], decode=decode
        )
        x = x + layers.dropout(y, cfg.dropout_rate, keys[3])
        return add_feed_forward(cfg, x, keys[4:])


class EncoderStack(nn.Module):
    """What encoders share, whatever their layers: dropout, a stack, and the norm behind it.

    Subclasses call `through` in their compact method.
    """

    config: T5Config

    def through(
        self,
        layer_cls: type[nn.Module],
        x: Float[Array, "batch length embed"],
        *context: PyTree,
        enable_dropout: bool,
    ) -> Float[Array, "batch length embed"]:
        """Runs the stack's layers, see `stacks.run`, and norms what comes out."""
        cfg = self.config
        keys = layers.split_key(layers.dropout_key(self, enable_dropout), 3)
        x = layers.dropout(x, cfg.dropout_rate, keys[0]).astype(cfg.dtype)
        x = stacks.run(
            self,
            layer_cls,
            cfg.num_encoder_layers,
            x,
            *context,
            dropout_key=keys[1],
            remat_policy=cfg.remat_policy,
        )
        x = layers.RMSNorm(dtype=cfg.dtype, name="encoder_norm")(x)
        return nn.Dropout(cfg.dropout_rate)(x, deterministic=keys[2] is None, rng=keys[2])


class Encoder(EncoderStack):
    """A stack of encoder layers over embeddings, whatever made them."""

    @nn.compact
    def __call__(
        self,
        embeddings: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch length"],
        *,
        enable_dropout: bool = True,
    ) -> Float[Array, "batch length embed"]:
        context = self._context(mask)
        return self.through(EncoderLayer, embeddings, *context, enable_dropout=enable_dropout)

    def _context(self, mask: Bool[Array, "batch length"]) -> tuple[PyTree, PyTree]:
        """Returns mask and bias as the layers' attention takes them."""
        cfg = self.config
        batch_size, length = mask.shape

        def relative_bias(name: str) -> RelativePositionBias:
            return RelativePositionBias(cfg.num_heads, bidirectional=True, name=name)

        near = relative_bias("relpos_bias")
        if cfg.encoder_attention == FULL:
            return mask[:, None, :, None] & mask[:, None, None, :], near(length)
        blocks = cfg.blocks(length)
        local, side = long_attention.local_bias(near, blocks, batch_size), None
        if cfg.encoder_attention == TRANSIENT_GLOBAL:
            far = relative_bias("side_relpos_bias")
            side = long_attention.side_bias(far, blocks, batch_size)
        return mask, long_attention.LongBias(local, side)


class Decoder(nn.Module):
    """A stack of decoder layers, with the output layer unless the embedding serves as one.

    With `decode=True` it reads one position a call and keeps its place in `cache_index`, after a
    first call, at full length, that makes the cache.
    """

    config: T5Config

    @nn.compact
    def __call__(
        self,
        embeddings: Float[Array, "batch length embed"],
        encoded: Encoded,
        target_mask: Bool[Array, "batch length"],
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
    ) -> Float[Array, "batch length _"]:
        cfg = self.config
        length = embeddings.shape[1]
        relative_bias = RelativePositionBias(cfg.num_heads, bidirectional=False, name="relpos_bias")
        cache_index = None
        cross_mask = encoded.mask[:, None, None, :]
        if decode and self.has_variable("cache", "cache_index"):
            index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
            cache_index = index.value
            index.value = cache_index + 1
            mask = (jnp.arange(max_decode_length) <= cache_index)[None, None, None, :]
            bias = relative_bias(max_decode_length, cache_index)
        else:
            if decode:
                self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
            causal = jnp.tril(jnp.ones((length, length), bool))
            mask = causal & target_mask[:, None, :, None] & target_mask[:, None, None, :]
            cross_mask = cross_mask & target_mask[:, None, :, None]
            bias = relative_bias(length)

        keys = layers.split_key(layers.dropout_key(self, enable_dropout), 3)
        x = layers.dropout(embeddings, cfg.dropout_rate, keys[0]).astype(cfg.dtype)
        x = stacks.run(
            self,
            DecoderLayer,
            cfg.num_decoder_layers,
            x,
            encoded.values,
            mask,
            cross_mask,
            bias,
            dropout_key=keys[1],
            remat_policy=cfg.remat_policy,
            **({"decode": True, "cache_index": cache_index} if decode else {}),
        )
        x = layers.RMSNorm(dtype=cfg.dtype, name="decoder_norm")(x)
        x = layers.dropout(x, cfg.dropout_rate, keys[2])
        if cfg.logits_via_embedding:
            return x
        # Logits in float32, for the softmax's sake.
        dense = layers.Dense(cfg.vocab_size, ("embed", "vocab"), lora=cfg.lora, name="logits_dense")
        return dense(x, dropout_key=keys[2])


class Transformer(nn.Module):
    """A T5 1.1 encoder-decoder; called as T5X's, with T5X's parameters.

    Attributes:
      config: its sizes.
      soft_prompt: makes what stands before the text of a batch's features; None for text alone. Its
        parameters lie beside those of the language model, under names of their own.
    """

    config: T5Config
    soft_prompt: SoftPromptModule | None = None

    def setup(self) -> None:
        cfg = self.config
        self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        if self.soft_prompt is not None:
            nn.share_scope(self, self.soft_prompt)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "batch text"],
        features: Features | None = None,
        *,
        enable_dropout: bool = True,
    ) -> Encoded:
        """Encodes the text, after the soft prompt where there is one.

        Args:
          encoder_input_tokens: token ids, 0 for padding.
          features: what the soft prompt is made of, by name, such as `history_items`; others may be
            among them.
          enable_dropout: whether to drop, which needs a `dropout` random key.

        Returns:
          The encoder's output at `prompt + text` positions.
        """
        embeddings = self.token_embedder(encoder_input_tokens)
        mask = encoder_input_tokens > 0
        if self.soft_prompt is not None:
            prompt = self.prompt(features or {}, enable_dropout=enable_dropout)
            embeddings = jnp.concatenate(
                [prompt.embeddings.astype(embeddings.dtype), embeddings], axis=1
            )
            mask = jnp.concatenate([prompt.mask, mask], axis=1)
        return Encoded(self.encoder(embeddings, mask, enable_dropout=enable_dropout), mask)

    def prompt(self, features: Features, *, enable_dropout: bool = True) -> SoftPrompt:
        """Returns the soft prompt alone; see `encode`."""
        return self.soft_prompt(features, self.config.emb_dim, enable_dropout=enable_dropout)

    def decode(
        self,
        encoded: Encoded,
        decoder_input_tokens: Int[Array, "batch length"],
        decoder_target_tokens: Int[Array, "batch length"],
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Returns the logits of every target position.

        Args:
          encoded: what `encode` returned.
          decoder_input_tokens: targets shifted right.
          decoder_target_tokens: targets; their padding (0) is masked.
          enable_dropout: whether to drop, which needs a `dropout` random key.
          decode: read from and write to the `cache` collection, one position a call.
          max_decode_length: the cache's length; needed with `decode`.
        """
        outputs = self.decoder(
            self.token_embedder(decoder_input_tokens),
            encoded,
            decoder_target_tokens > 0,
            enable_dropout=enable_dropout,
            decode=decode,
            max_decode_length=max_decode_length,
        )
        if not self.config.logits_via_embedding:
            return outputs
        return self.token_embedder.attend(outputs) / jnp.sqrt(outputs.shape[-1])

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "batch text"],
        decoder_input_tokens: Int[Array, "batch length"],
        decoder_target_tokens: Int[Array, "batch length"],
        features: Features | None = None,
        *,
        enable_dropout: bool = True,
    ) -> Float[Array, "batch length vocab"]:
        """Returns the logits of every target position; see `encode` and `decode`."""
        encoded = self.encode(encoder_input_tokens, features, enable_dropout=enable_dropout)
        return self.decode(
            encoded, decoder_input_tokens, decoder_target_tokens, enable_dropout=enable_dropout
        )
