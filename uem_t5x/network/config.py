"""The sizes of a T5 network, and how it is computed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network import long_attention
from uem_t5x.network.lora import LoRA

# What the backward pass finds kept, by the names of `T5Config.remat`; None for everything.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "minimal": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(long_attention.ATTENDED),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}

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
      branch_init_scale: multiplies the fresh weights that end a residual branch (attention's `out`,
        the feed-forward block's `wo`), so that what a fresh layer adds is so many times T5's; 1 is
        T5. It is not 0: Adafactor's updates are proportional to what they change.
      dtype: of activations, `float32` or `bfloat16`; parameters are float32, and the statistics of
        norms, the softmax and the logits are computed in it.
      scan_layers: compile one layer of each stack and run it in a loop: the model hands the network
        its parameters stacked, see `stacks.run`; generation still has them one by one.
      remat: what the backward pass computes anew instead of keeping it, which takes memory:
        `none`; `minimal`, all but the results of products with weights and of long attention;
        `full`, whole layers.
        Neither option changes names, checkpoints or results.
      lora: what is trained beside frozen weights; None for none.
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
    branch_init_scale: float = 1.0
    lora: LoRA | None = None

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

    @property
    def drops(self) -> bool:
        """Whether anything is dropped while training."""
        return self.dropout_rate > 0 or (self.lora is not None and self.lora.dropout_rate > 0)

    @property
    def remat_policy(self) -> Callable[..., bool] | None:
        """What the backward pass finds kept; None for everything."""
        return REMAT_POLICIES[self.remat]

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
    lora: LoRA | None = None,
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
      lora: see `T5Config`.

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
        lora=lora,
    )
