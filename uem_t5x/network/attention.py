"""T5's attention and its bias by distance, with T5X's parameter names, shapes and logical axes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning
from jax import lax
from jaxtyping import Bool, Float, Int

from uem_t5x.network import layers
from uem_t5x.network.layouts import constrain
from uem_t5x.network.lora import LoRA
from uem_t5x.network.types import Array

KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
# Large enough to silence a masked position, small enough to stay finite in bfloat16.
MASKED_LOGIT = -1e10
# What `capture_intermediates` and `mutable=["intermediates"]` show of every attention.
ATTENTION_WEIGHTS = "attention_weights"


class Attention(nn.Module):
    """Multi-head attention without biases or scaling (T5 folds the scale into the initializer).

    With `decode=True` keys and values live in the `cache` collection, positions last, as the
    products of a step read them. Self-attention (`inputs_kv is None`) writes one position a call,
    at `cache_index`; cross-attention keeps the keys and values of the encoder's output, computed
    once when the cache is made.

    The weights, after the softmax, are sown as `intermediates` under `ATTENTION_WEIGHTS`.
    """

    num_heads: int
    head_dim: int
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    out_init_scale: float = 1.0
    lora: LoRA | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch length embed"],
        inputs_kv: Float[Array, "batch kv_length kv_embed"] | None = None,
        mask: Bool[Array, "#batch 1 #length kv_length"] | None = None,
        bias: Float[Array, "1 heads length kv_length"] | None = None,
        *,
        dropout_key: jax.Array | None = None,
        decode: bool = False,
        cache_index: Int[Array, ""] | None = None,
    ) -> Float[Array, "batch length embed"]:
        query = self._projection("query", dropout_key)(inputs)
        layout = "bhdk" if decode else "bkhd"
        if not decode:
            source = inputs if inputs_kv is None else inputs_kv
            key, value = (self._projection(name, dropout_key)(source) for name in ("key", "value"))
        elif inputs_kv is None:
            key, value = self._self_attention_cache(inputs, cache_index)
        else:
            key, value = self._cross_attention_cache(inputs_kv)

        logits = jnp.einsum(f"bqhd,{layout}->bhqk", query, key, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + bias
        if mask is not None:
            logits = jnp.where(mask, logits, MASKED_LOGIT)
        weights = jax.nn.softmax(logits).astype(self.dtype)
        self.sow("intermediates", ATTENTION_WEIGHTS, weights)
        weights = layers.dropout(weights, self.dropout_rate, dropout_key)
        attended = jnp.einsum(f"bhqk,{layout}->bqhd", weights, value)
        return self._output(attended, inputs.shape[-1], dropout_key)

    def _projection(
        self, name: str, dropout_key: jax.Array | None = None
    ) -> Callable[[Array], Array]:
        """Returns the projection to `query`, `key` or `value`, from [batch, length, embed].

        Its parameters are the same every time it is called.
        """
        query_init = layers.scaled(KERNEL_INIT, self.head_dim**-0.5)
        dense = layers.Dense(
            self.num_heads * self.head_dim,
            ("embed", "joined_kv"),
            kernel_init=query_init if name == "query" else KERNEL_INIT,
            dtype=self.dtype,
            lora=self.lora,
            name=name,
        )

        def project(
            inputs: Float[Array, "batch length embed"],
        ) -> Float[Array, "batch length heads head_dim"]:
            heads = dense(inputs, dropout_key=dropout_key)
            heads = heads.reshape(*inputs.shape[:2], self.num_heads, self.head_dim)
            return constrain(heads, ("batch", "length", "heads", "kv"))

        return project

    def _output(
        self,
        attended: Float[Array, "batch length heads head_dim"],
        features: int,
        dropout_key: jax.Array | None,
    ) -> Float[Array, "batch length embed"]:
        return layers.Dense(
            features,
            ("joined_kv", "embed"),
            kernel_init=layers.scaled(KERNEL_INIT, self.out_init_scale),
            dtype=self.dtype,
            lora=self.lora,
            name="out",
        )(
            attended.reshape(*attended.shape[:2], self.num_heads * self.head_dim),
            dropout_key=dropout_key,
        )

    def _self_attention_cache(
        self, inputs: Float[Array, "batch length embed"], cache_index: Int[Array, ""] | None
    ) -> tuple[Float[Array, "batch heads head_dim kv_length"], ...]:
        """Writes this position's key and value at `cache_index`; returns all of them.

        The call that makes the cache is given the full decode length and leaves it at zero.
        """
        cache_is_made = self.has_variable("cache", "cached_key")
        cached = []
        for name in ("key", "value"):
            heads = _positions_last(self._projection(name)(inputs))
            variable = self.variable("cache", f"cached_{name}", jnp.zeros_like, heads)
            if cache_is_made:
                variable.value = lax.dynamic_update_slice_in_dim(
                    variable.value, heads, cache_index, axis=-1
                )
            cached.append(variable.value)
        return tuple(cached)

    def _cross_attention_cache(
        self, encoded: Float[Array, "batch kv_length embed"]
    ) -> tuple[Float[Array, "batch heads head_dim kv_length"], ...]:
        def project(name: str) -> Array:
            return _positions_last(self._projection(name)(encoded))

        return tuple(
            self.variable("cache", f"cached_{name}", project, name).value
            for name in ("key", "value")
        )


def _positions_last(
    heads: Float[Array, "batch length heads head_dim"],
) -> Float[Array, "batch heads head_dim length"]:
    return heads.transpose(0, 2, 3, 1)


class RelativePositionBias(nn.Module):
    """T5's learned bias of attention logits by bucketed distance.

    Half of the buckets hold exact small distances, the other half grow logarithmically up to
    `max_distance` (Raffel et al. 2020, section 2.1).
    """

    num_heads: int
    bidirectional: bool
    num_buckets: int = 32
    max_distance: int = 128

    def setup(self) -> None:
        self.rel_embedding = partitioning.param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.num_heads, self.num_buckets),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )

    def __call__(
        self, length: int, query_index: Int[Array, ""] | None = None
    ) -> Float[Array, "1 heads query length"]:
        """Returns the bias of all queries, or of the one at `query_index` while decoding."""
        positions = np.arange(length)
        buckets = jnp.asarray(self._buckets(positions[:, None] - positions[None, :]))
        if query_index is not None:
            buckets = lax.dynamic_slice_in_dim(buckets, query_index, 1, axis=0)
        return jnp.take(self.rel_embedding, buckets, axis=1)[None]

    def by_distance(self, distance: Int[np.ndarray, "*shape"]) -> Float[Array, "heads *shape"]:
        """Returns the bias of any distances, query - key: positive is the past."""
        return jnp.take(self.rel_embedding, self._buckets(distance), axis=1)

    def _buckets(self, distance: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        num_buckets = self.num_buckets
        offset = 0
        if self.bidirectional:
            num_buckets //= 2
            offset = np.where(distance < 0, num_buckets, 0)
            distance = np.abs(distance)
        else:
            distance = np.maximum(distance, 0)
        exact = num_buckets // 2
        # float32, and its epsilon, so that bucket edges fall where T5's do.
        ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
        logarithmic = exact + (
            np.log(ratio) / np.log(self.max_distance / exact) * (num_buckets - exact)
        ).astype(np.int32)
        buckets = np.where(distance < exact, distance, np.minimum(logarithmic, num_buckets - 1))
        return (buckets + offset).astype(np.int32)
