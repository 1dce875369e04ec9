"""The layers of T5 1.1, with T5X's parameter names, shapes and logical axes.

Kernels are two-dimensional, as in T5X's checkpoints: `(embed, heads * head_dim)` for attention,
`(embed, mlp)` for the feed-forward block. Every parameter names its logical axes in the
`params_axes` collection, from which a partitioner derives its layout on a device mesh.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jax import lax
from jaxtyping import Float, Int

from uem_t5x.network import lora as lora_lib
from uem_t5x.network.layouts import constrain
from uem_t5x.network.lora import LoRA
from uem_t5x.network.types import Array

DType = Any
Initializer = Callable[..., jax.Array]

# Of LoRA's A, as Hugging Face PEFT draws it: uniform within 1 / sqrt(fan in).
LORA_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
DENSE_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def scaled(initializer: Initializer, factor: float) -> Initializer:
    """Returns an initializer whose values are multiplied by a factor."""
    if factor == 1:
        return initializer
    return lambda *args: initializer(*args) * factor


def dropout(
    inputs: Float[Array, "*batch length embed"], rate: float, key: jax.Array | None
) -> Float[Array, "*batch length embed"]:
    """Drops with one mask for all positions of a sequence, as T5 does; without a key, nothing.

    It belongs into a compact method of a module.
    """
    return nn.Dropout(rate, broadcast_dims=(-2,))(inputs, deterministic=key is None, rng=key)


def dropout_key(module: nn.Module, enable_dropout: bool) -> jax.Array | None:
    """Returns a random key of a module's dropout; None where its config drops nothing."""
    return module.make_rng("dropout") if enable_dropout and module.config.drops else None


def split_key(key: jax.Array | None, number: int) -> jax.Array | list[None]:
    """Returns so many keys of dropout; None of each where there is none."""
    return [None] * number if key is None else jax.random.split(key, number)


def gathered(weights: Array, axes: Sequence[str]) -> Array:
    """Returns weights as they are used: whole along `embed`, over which a layout may split them.

    Without it the compiler would rather gather activations, which are larger.
    """
    used = tuple(None if axis == "embed" else axis for axis in axes)
    return constrain(weights, used)


class Dense(nn.Module):
    """A linear map of the last axis, without bias, and what LoRA adds to it if it is a target."""

    features: int
    kernel_axes: tuple[str, str]
    kernel_init: Initializer = DENSE_INIT
    dtype: DType = jnp.float32
    lora: LoRA | None = None

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "*batch in"], *, dropout_key: jax.Array | None = None
    ) -> Float[Array, "*batch out"]:
        kernel = partitioning.param_with_axes(
            "kernel",
            self.kernel_init,
            (inputs.shape[-1], self.features),
            jnp.float32,
            axes=self.kernel_axes,
        )
        kernel = gathered(kernel.astype(self.dtype), self.kernel_axes)
        *batch, features = inputs.shape
        # As one matrix: for a weight's gradient XLA would transpose a batch of them, on a CPU
        # a sixth of a training step.
        rows = inputs.astype(self.dtype).reshape(-1, features)
        outputs = jnp.dot(rows, kernel)
        if self.lora is not None and self.lora.is_for((*self.path[:-1], self.name)):
            if dropout_key is not None:  # another one than that of the whole block
                dropout_key = jax.random.fold_in(dropout_key, zlib.crc32(self.name.encode()))
            dropped = nn.Dropout(self.lora.dropout_rate)(
                rows, deterministic=dropout_key is None, rng=dropout_key
            )
            outputs = outputs + self._low_rank(dropped, self.lora)
        return outputs.reshape(*batch, self.features)

    def _low_rank(self, rows: Float[Array, "rows in"], lora: LoRA) -> Float[Array, "rows out"]:
        axes = (self.kernel_axes[0], "lora"), ("lora", self.kernel_axes[1])
        shapes = (rows.shape[-1], lora.rank), (lora.rank, self.features)
        a, b = (
            gathered(
                partitioning.param_with_axes(name, init, shape, jnp.float32, axes=of_array).astype(
                    self.dtype
                ),
                of_array,
            )
            for name, init, shape, of_array in zip(
                (lora_lib.A, lora_lib.B), (LORA_INIT, nn.initializers.zeros), shapes, axes
            )
        )
        return lora.scale * jnp.dot(jnp.dot(rows, a), b)


class RMSNorm(nn.Module):
    """T5's layer norm: divides by the root mean square, then scales; no mean, no bias."""

    epsilon: float = 1e-6
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        scale = partitioning.param_with_axes(
            "scale", nn.initializers.ones, (inputs.shape[-1],), jnp.float32, axes=("embed",)
        )
        x = inputs.astype(jnp.float32)
        mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
        normed = (x * lax.rsqrt(mean_square + self.epsilon)).astype(self.dtype)
        return normed * gathered(scale.astype(self.dtype), ("embed",))


class Embed(nn.Module):
    """The token embedding, which can also turn decoder outputs into logits."""

    num_embeddings: int
    features: int
    dtype: DType = jnp.float32

    def setup(self) -> None:
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.num_embeddings, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch embed"]:
        embedding = gathered(self.embedding, ("vocab", "embed"))
        # Rounded after the lookup, whose gradient adds up one row for each time that a token
        # occurs: in bfloat16 a sum of ones ends at 256.
        return jnp.take(embedding, tokens, axis=0).astype(self.dtype)

    def attend(self, outputs: Float[Array, "*batch embed"]) -> Float[Array, "*batch vocab"]:
        """Returns logits in float32, by the transposed embedding."""
        embedding = gathered(self.embedding, ("vocab", "embed"))
        return jnp.dot(outputs.astype(jnp.float32), embedding.T)


class GatedMLP(nn.Module):
    """The feed-forward block: the product of its activations' branches, projected back.

    `("gelu", "linear")` is T5 1.1's gated GELU. One activation gives the plain block.
    """

    mlp_dim: int
    activations: Sequence[str] = ("gelu", "linear")
    dropout_rate: float = 0.0
    dtype: DType = jnp.float32
    out_init_scale: float = 1.0
    lora: LoRA | None = None

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch length embed"], *, dropout_key: jax.Array | None = None
    ) -> Float[Array, "batch length embed"]:
        hidden = None
        for index, activation in enumerate(self.activations):
            name = "wi" if len(self.activations) == 1 else f"wi_{index}"
            dense = Dense(
                self.mlp_dim, ("embed", "mlp"), dtype=self.dtype, lora=self.lora, name=name
            )
            branch = dense(inputs, dropout_key=dropout_key)
            if activation != "linear":
                branch = getattr(nn, activation)(branch)
            hidden = branch if hidden is None else hidden * branch
        hidden = dropout(hidden, self.dropout_rate, dropout_key)
        hidden = constrain(hidden, ("batch", "length", "mlp"))
        return Dense(
            inputs.shape[-1],
            ("mlp", "embed"),
            kernel_init=scaled(DENSE_INIT, self.out_init_scale),
            dtype=self.dtype,
            lora=self.lora,
            name="wo",
        )(hidden, dropout_key=dropout_key)
