"""T5 1.1 in Flax linen, interchangeable with T5X's by parameter name and shape.

The encoder takes embeddings, not tokens: what stands before the text (task prompts, a user's
history) is injected as a `SoftPrompt` and the encoder does not know what made it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Bool, Float, Int

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network import layers, long_attention, stacks
from uem_t5x.network.layouts import constrain
from uem_t5x.network.types import Array, PyTree

REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "minimal": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(long_attention.ATTENDED),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}

# The modules of a network that are the language model; others are the UEM and the task prompts.
LANGUAGE_MODEL = ("token_embedder", "encoder", "decoder")

FULL, LOCAL, TRANSIENT_GLOBAL = "full", "local", "transient_global"
_ENCODER_ATTENTIONS = (FULL, LOCAL, TRANSIENT_GLOBAL)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes of a T5 network; the defaults are T5 1.1 small's.

    Attributes:
      vocab_size: rows of the token embedding.
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      head_dim: width of one head.
      mlp_dim: width of the feed-forward block.
      num_encoder_layers: encoder depth.
      num_decoder_layers: decoder depth.
      mlp_activations: one activation a branch; `("gelu", "linear")` is T5 1.1.
      dropout_rate: for residual branches, attention weights and feed-forward blocks.
      logits_via_embedding: reuse the token embedding as output layer (T5 1.0).
      encoder_attention: what a position of the encoder sees: `full`, everything (T5); `local`, what
        is near it; `transient_global`, that and summaries of everything (both LongT5).
      local_radius: how far it sees, unless in full.
      global_block_size: positions of a summary.
      dtype: of activations, `float32` or `bfloat16`; parameters are float32, and the statistics of
        norms, the softmax and the logits are computed in it.
      scan_layers: compile one layer of each stack and run it in a loop; generation still has them
        one by one.
      remat: what the backward pass computes anew instead of keeping it, which takes memory:
        `none`; `minimal`, all but the results of products with weights and of long attention;
        `full`, whole layers.
        Neither option changes names, checkpoints or results.
    """

    vocab_size: int = 32128
    emb_dim: int = 512
    num_heads: int = 6
    head_dim: int = 64
    mlp_dim: int = 1024
    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    mlp_activations: Sequence[str] = ("gelu", "linear")
    dropout_rate: float = 0.0
    logits_via_embedding: bool = False
    encoder_attention: str = FULL
    local_radius: int = 127
    global_block_size: int = 16
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        if self.encoder_attention not in _ENCODER_ATTENTIONS:
            raise InputError(
                f"ENCODER_ATTENTION={self.encoder_attention!r}: no such attention; choose one of "
                f"{', '.join(_ENCODER_ATTENTIONS)}"
            )
        sizes = {"LOCAL_RADIUS": self.local_radius, "GLOBAL_BLOCK_SIZE": self.global_block_size}
        widths = ("emb_dim", "num_heads", "head_dim", "mlp_dim")
        sizes |= {name: getattr(self, name) for name in widths}
        check_at_least(1, **sizes)
        if not 0 <= self.dropout_rate < 1:
            raise InputError(f"DROPOUT_RATE={self.dropout_rate}: bind it to 0.0 or more, below 1.0")
        try:
            dtype = jnp.dtype(self.dtype).name
        except TypeError:
            dtype = None
        if dtype not in ("float32", "bfloat16"):  # float16 would need its loss scaled
            raise InputError(
                f"ACTIVATION_DTYPE={self.dtype!r}: no type to compute in; choose 'float32' or "
                "'bfloat16'"
            )
        if self.remat not in REMAT_POLICIES:
            raise InputError(
                f"REMAT_POLICY={self.remat!r}: no such policy; choose one of "
                f"{', '.join(REMAT_POLICIES)}"
            )

    def blocks(self, length: int) -> long_attention.Blocks:
        """Returns how LongT5's attention cuts up a text of `length` positions."""
        is_global = self.encoder_attention == TRANSIENT_GLOBAL
        size = self.global_block_size if is_global else None
        return long_attention.Blocks(length, self.local_radius, size)


_T5_1_1_SIZES = {
    "small": {"emb_dim": 512, "num_heads": 6, "mlp_dim": 1024, "layers": 8},
    "base": {"emb_dim": 768, "num_heads": 12, "mlp_dim": 2048, "layers": 12},
    "large": {"emb_dim": 1024, "num_heads": 16, "mlp_dim": 2816, "layers": 24},
    "xl": {"emb_dim": 2048, "num_heads": 32, "mlp_dim": 5120, "layers": 24},
    "xxl": {"emb_dim": 4096, "num_heads": 64, "mlp_dim": 10240, "layers": 24},
}


def t5_1_1(
    size: str,
    vocab_size: int = 32128,
    dropout_rate: float = 0.0,
    encoder_attention: str = FULL,
    local_radius: int = 127,
    global_block_size: int = 16,
    dtype: Any = jnp.float32,
    scan_layers: bool = False,
    remat: str = "none",
) -> T5Config:
    """Returns the sizes of T5 1.1, which its LM-adapted form, Flan-T5 and LongT5 share.

    Args:
      size: `small`, `base`, `large`, `xl` or `xxl`.
      vocab_size: see `T5Config`, as are the others.
      dropout_rate: see `T5Config`.
      encoder_attention: see `T5Config`.
      local_radius: see `T5Config`.
      global_block_size: see `T5Config`.
      dtype: see `T5Config`.
      scan_layers: see `T5Config`.
      remat: see `T5Config`.

    Raises:
      InputError: if there is no such size.
    """
    if size not in _T5_1_1_SIZES:
        raise InputError(
            f"LANGUAGE_MODEL_SIZE={size!r}: no such size; choose one of {', '.join(_T5_1_1_SIZES)}"
        )
    sizes = dict(_T5_1_1_SIZES[size])
    depth = sizes.pop("layers")
    return T5Config(
        **sizes,
        num_encoder_layers=depth,
        num_decoder_layers=depth,
        vocab_size=vocab_size,
        dropout_rate=dropout_rate,
        encoder_attention=encoder_attention,
        local_radius=local_radius,
        global_block_size=global_block_size,
        dtype=dtype,
        scan_layers=scan_layers,
        remat=remat,
    )


class SoftPrompt(NamedTuple):
    """Embeddings that stand before the text in the encoder's input."""

    embeddings: Float[Array, "batch prompt embed"]
    mask: Bool[Array, "batch prompt"]


class Encoded(NamedTuple):
    """The encoder's output, and which of its positions hold anything."""

    values: Float[Array, "batch source embed"]
    mask: Bool[Array, "batch source"]


def _attention(config: T5Config, name: str) -> layers.Attention:
    return layers.Attention(
        config.num_heads, config.head_dim, config.dropout_rate, config.dtype, name=name
    )


def _encoder_attention(config: T5Config, length: int, name: str) -> layers.Attention:
    if config.encoder_attention == FULL:
        return _attention(config, name)
    return long_attention.LongAttention(
        config.num_heads,
        config.head_dim,
        config.dropout_rate,
        config.dtype,
        blocks=config.blocks(length),
        name=name,
    )


def _mlp(config: T5Config) -> layers.GatedMLP:
    return layers.GatedMLP(
        config.mlp_dim, config.mlp_activations, config.dropout_rate, config.dtype, name="mlp"
    )


def _dropout(config: T5Config) -> nn.Dropout:
    # One mask for all positions of a sequence, as T5 does it.
    return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


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
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        cfg = self.config
        x = constrain(inputs, ("batch", "length", "embed"))
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_attention_layer_norm")(x)
        attention = _encoder_attention(cfg, inputs.shape[1], "attention")
        y = attention(y, mask=mask, bias=bias, deterministic=deterministic)
        x = x + _dropout(cfg)(y, deterministic=deterministic)
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_mlp_layer_norm")(x)
        y = _mlp(cfg)(y, deterministic=deterministic)
        return x + _dropout(cfg)(y, deterministic=deterministic)


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
        deterministic: bool,
        decode: bool = False,
        cache_index: Int[Array, ""] | None = None,
    ) -> Float[Array, "batch length embed"]:
        cfg = self.config
        x = constrain(inputs, ("batch", "length", "embed"))
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_self_attention_layer_norm")(x)
        y = _attention(cfg, "self_attention")(
            y,
            mask=mask,
            bias=bias,
            deterministic=deterministic,
            decode=decode,
            cache_index=cache_index,
        )
        x = x + _dropout(cfg)(y, deterministic=deterministic)
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_cross_attention_layer_norm")(x)
        y = _attention(cfg, "encoder_decoder_attention")(
            y, encoded, cross_mask, deterministic=deterministic, decode=decode
        )
        x = x + _dropout(cfg)(y, deterministic=deterministic)
        y = layers.RMSNorm(dtype=cfg.dtype, name="pre_mlp_layer_norm")(x)
        y = _mlp(cfg)(y, deterministic=deterministic)
        return x + _dropout(cfg)(y, deterministic=deterministic)


def _run_layers(
    stack: nn.Module,
    layer_cls: type[nn.Module],
    depth: int,
    x: Float[Array, "batch length embed"],
    *context: PyTree,
    deterministic: bool,
) -> Float[Array, "batch length embed"]:
    """Runs a stack's layers, whose parameters are there already.

    They are applied as functions of their parameters, one by one or in a loop over all of them;
    what they compute, and drop, is the same.

    Args:
      stack: the module that the layers belong to; its parameters hold them one by one or stacked.
      layer_cls: their class.
      depth: how many they are.
      x: what the first one reads.
      *context: what every one reads besides.
      deterministic: whether not to drop.
    """
    if not depth:
        return x
    cfg: T5Config = stack.config
    drops = cfg.dropout_rate > 0 and not deterministic
    rngs = jax.random.split(stack.make_rng("dropout"), depth) if drops else None

    def run(x: jax.Array, layer: tuple[PyTree, jax.Array | None]) -> tuple[jax.Array, None]:
        params, rng = layer
        rngs = None if rng is None else {"dropout": rng}
        y = layer_cls(cfg, parent=None).apply(
            {"params": params}, x, *context, deterministic=deterministic, rngs=rngs
        )
        return y, None

    if cfg.remat != "none":
        # A loop keeps the compiler from undoing it by itself.
        policy = REMAT_POLICIES[cfg.remat]
        run = jax.checkpoint(run, policy=policy, prevent_cse=not cfg.scan_layers)
    params = stack.variables["params"]
    if cfg.scan_layers:
        # Where they must be copied to stack them, as the layers use them.
        params = stacks.stack(
            params, lambda *layers: jnp.stack([layer.astype(cfg.dtype) for layer in layers])
        )
        return lax.scan(run, x, (params[stacks.LAYERS], rngs))[0]
    params = stacks.unstack(params)
    for index in range(depth):
        x, _ = run(x, (params[f"layers_{index}"], rngs[index] if drops else None))
    return x


class Encoder(nn.Module):
    """A stack of encoder layers over embeddings, whatever made them."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        embeddings: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch length"],
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        cfg = self.config
        context = self._context(mask)
        x = _dropout(cfg)(embeddings, deterministic=deterministic).astype(cfg.dtype)
        if self.is_initializing():
            for index in range(cfg.num_encoder_layers):
                x = EncoderLayer(cfg, name=f"layers_{index}")(
                    x, *context, deterministic=deterministic
                )
        else:
            x = _run_layers(
                self, EncoderLayer, cfg.num_encoder_layers, x, *context, deterministic=deterministic
            )
        x = layers.RMSNorm(dtype=cfg.dtype, name="encoder_norm")(x)
        return nn.Dropout(cfg.dropout_rate)(x, deterministic=deterministic)

    def _context(self, mask: Bool[Array, "batch length"]) -> tuple[PyTree, PyTree]:
        """Returns mask and bias as the layers' attention takes them."""
        cfg = self.config
        batch_size, length = mask.shape

        def relative_bias(name: str) -> layers.RelativePositionBias:
            return layers.RelativePositionBias(cfg.num_heads, bidirectional=True, name=name)

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
        deterministic: bool,
        decode: bool = False,
        max_decode_length: int | None = None,
    ) -> Float[Array, "batch length _"]:
        cfg = self.config
        length = embeddings.shape[1]
        relative_bias = layers.RelativePositionBias(
            cfg.num_heads, bidirectional=False, name="relpos_bias"
        )
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

        x = _dropout(cfg)(embeddings, deterministic=deterministic).astype(cfg.dtype)
        context = (encoded.values, mask, cross_mask, bias)
        if decode or self.is_initializing():
            for layer in range(cfg.num_decoder_layers):
                x = DecoderLayer(cfg, name=f"layers_{layer}")(
                    x,
                    *context,
                    deterministic=deterministic,
                    decode=decode,
                    cache_index=cache_index,
                )
        else:
            x = _run_layers(
                self, DecoderLayer, cfg.num_decoder_layers, x, *context, deterministic=deterministic
            )
        x = layers.RMSNorm(dtype=cfg.dtype, name="decoder_norm")(x)
        x = _dropout(cfg)(x, deterministic=deterministic)
        if cfg.logits_via_embedding:
            return x
        # Logits in float32, for the softmax's sake.
        return layers.Dense(cfg.vocab_size, ("embed", "vocab"), name="logits_dense")(x)


class Transformer(nn.Module):
    """A T5 1.1 encoder-decoder; called as T5X's, with T5X's parameters."""

    config: T5Config

    def setup(self) -> None:
        cfg = self.config
        self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "batch text"],
        soft_prompt: SoftPrompt | None = None,
        *,
        enable_dropout: bool = True,
    ) -> Encoded:
        """Encodes the text, after the soft prompt where there is one.

        Args:
          encoder_input_tokens: token ids, 0 for padding.
          soft_prompt: embeddings that stand before the text.
          enable_dropout: whether to drop, which needs a `dropout` random key.

        Returns:
          The encoder's output at `prompt + text` positions.
        """
        embeddings = self.token_embedder(encoder_input_tokens)
        mask = encoder_input_tokens > 0
        if soft_prompt is not None:
            embeddings = jnp.concatenate(
                [soft_prompt.embeddings.astype(embeddings.dtype), embeddings], axis=1
            )
            mask = jnp.concatenate([soft_prompt.mask, mask], axis=1)
        return Encoded(self.encoder(embeddings, mask, deterministic=not enable_dropout), mask)

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
            deterministic=not enable_dropout,
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
        *,
        enable_dropout: bool = True,
    ) -> Float[Array, "batch length vocab"]:
        encoded = self.encode(encoder_input_tokens, enable_dropout=enable_dropout)
        return self.decode(
            encoded, decoder_input_tokens, decoder_target_tokens, enable_dropout=enable_dropout
        )
