"""LongT5's attention over texts of many thousand tokens: memory grows with length, not its square.

    local               a position sees those at most `local_radius` away
    transient global    and a summary of every `global_block_size` positions: the sum of the
                        layer's inputs there, normed, with a key and a value of its own

(Guo et al. 2021, arXiv 2112.07916, section 3.1; computed as in Transformers and T5X.)
Queries lie in blocks of `local_radius + 1` positions, so that each finds what is near it in its own
block and the two beside it. A loop takes a few blocks at a time, a chunk, and the backward pass
computes a chunk's logits anew: no others are ever in memory. (Of the FLOPs, those of positions with
summaries still grow with the square.)
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int, Shaped

from uem_t5x.network import attention, layers
from uem_t5x.network.layouts import constrain
from uem_t5x.network.types import Array

# About how many queries a chunk holds: more of them take memory, fewer copy more keys.
CHUNK_QUERIES = 512

# What a backward pass may keep, so as not to run the loop once more.
ATTENDED = "attended"


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the positions of a text are cut up, after padding: chunks of blocks.

    Attributes:
      length: positions.
      local_radius: see `network.T5Config`.
      global_block_size: see `network.T5Config`; None without summaries.
    """

    length: int
    local_radius: int
    global_block_size: int | None = None

    @property
    def block(self) -> int:
        """Positions of a block."""
        return self.local_radius + 1

    @property
    def per_chunk(self) -> int:
        """Blocks of a chunk; whole global blocks, too."""
        count = -(-self.length // self.block)
        chunks = -(-count // max(1, CHUNK_QUERIES // self.block))
        size = self.global_block_size or 1
        step = size // math.gcd(self.block, size)
        return -(-count // (chunks * step)) * step

    @property
    def chunk(self) -> int:
        """Positions of a chunk."""
        return self.per_chunk * self.block

    @property
    def chunks(self) -> int:
        """Chunks of a text."""
        return -(-self.length // self.chunk)

    @property
    def summaries(self) -> int:
        """Summaries of a text; positions that are too few for one more belong to the last one."""
        return self.length // self.global_block_size if self.global_block_size else 0

    def cut(
        self, x: Shaped[Array, "batch length *rest"]
    ) -> Shaped[Array, "chunks batch blocks block *rest"]:
        """Cuts positions into the blocks of chunks."""
        x = _pad(x, 1, 0, self.chunks * self.chunk - self.length)
        x = x.reshape(x.shape[0], self.chunks, self.per_chunk, self.block, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)


class LongBias(NamedTuple):
    """The position biases that every layer adds to its logits, repeated for each example.

    Each round of the loop over chunks adds to their gradients. If examples shared them, every round
    would also have to sum these gradients over the devices.

    Attributes:
      local: for a query's position in its block, and a key's in that block and the two beside it.
      side: for distances to summaries, the largest first: that of the last chunk's last position to
        the first summary. None without summaries.
    """

    local: Float[Array, "batch heads block window"]
    side: Float[Array, "batch heads distances"] | None = None


def local_bias(
    relative_bias: attention.RelativePositionBias, blocks: Blocks, batch_size: int
) -> Float[Array, "batch heads block window"]:
    """Returns `LongBias.local`, which also masks what is farther away than the radius."""
    queries = np.arange(blocks.block, 2 * blocks.block)
    distance = queries[:, None] - np.arange(3 * blocks.block)
    is_near = np.abs(distance) <= blocks.local_radius
    bias = jnp.where(is_near, relative_bias.by_distance(distance), attention.MASKED_LOGIT)
    bias = jnp.broadcast_to(bias, (batch_size, *bias.shape))
    return constrain(bias, ("batch", "heads", None, None))


def side_bias(
    relative_bias: attention.RelativePositionBias, blocks: Blocks, batch_size: int
) -> Float[Array, "batch heads distances"]:
    """Returns `LongBias.side`: distances are counted in global blocks."""
    farthest = blocks.chunks * blocks.chunk // blocks.global_block_size - 1
    bias = relative_bias.by_distance(np.arange(farthest, -blocks.summaries - 1, -1))
    return constrain(jnp.broadcast_to(bias, (batch_size, *bias.shape)), ("batch", "heads", None))


class Side(NamedTuple):
    """The summaries of texts, as attention reads them.

    Attributes:
      key: their keys; in float32, as their gradients are sums over all chunks.
      value: their values, likewise.
      mask: which of them there are.
      count: of them in a text, up to its end.
    """

    key: Float[Array, "batch summaries heads head_dim"]
    value: Float[Array, "batch summaries heads head_dim"]
    mask: Bool[Array, "batch summaries"]
    count: Int[Array, " batch"]


class LongAttention(attention.Attention):
    """An encoder's self-attention: local, or transient global where there are summaries.

    Keys and values of positions and of summaries come from the same parameters. T5X calls the
    summaries' norm `T5LayerNorm_0`.

    Attributes:
      blocks: how the positions are cut up.
    """

    blocks: Blocks = dataclasses.field(kw_only=True)

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch length"],
        bias: LongBias,
        *,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "batch length embed"]:
        query, key, value = (
            self._projection(name, dropout_key) for name in ("query", "key", "value")
        )
        side = None
        if size := self.blocks.global_block_size:
            sums, is_there, count = summarize(inputs, mask, size)
            normed = layers.RMSNorm(dtype=self.dtype, name="T5LayerNorm_0")(sums)
            heads = [project(normed).astype(jnp.float32) for project in (key, value)]
            side = Side(*heads, is_there, count)
        attended = attend(
            query(inputs),
            key(inputs),
            value(inputs),
            mask,
            side,
            bias,
            self.blocks,
            dropout_rate=self.dropout_rate,
            rng=dropout_key if self.dropout_rate > 0 else None,
        )
        return self._output(attended, inputs.shape[-1], dropout_key)


def summarize(
    inputs: Float[Array, "batch length embed"], mask: Bool[Array, "batch length"], size: int
) -> tuple[
    Float[Array, "batch summaries embed"], Bool[Array, "batch summaries"], Int[Array, " batch"]
]:
    """Sums the inputs of every `size` positions.

    A text's last positions, if they are fewer, join those before them; a text of fewer has none.

    Returns:
      The sums, in float32; whether anything is in them; and how many there are up to a text's end.
    """
    length = inputs.shape[1]
    end = jnp.max(jnp.where(mask, jnp.arange(1, length + 1), 0), axis=1)
    count = end // size
    index = jnp.arange(length // size)
    is_whole, is_last = index < count[:, None], index == count[:, None] - 1

    def by_block(x: Float[Array, "batch length width"]) -> Float[Array, "batch summaries width"]:
        x = _pad(x, 1, 0, size - length % size)  # at least one block more
        sums = x.reshape(x.shape[0], -1, size, x.shape[2]).sum(axis=2)
        rest = jnp.where(is_last[..., None], sums[:, 1:], 0)
        return jnp.where(is_whole[..., None], sums[:, :-1], 0) + rest

    holds = mask[..., None].astype(jnp.float32)
    return by_block(inputs * holds), by_block(holds)[..., 0] > 0, count


class _Chunk(NamedTuple):
    """What a round of the loop reads, or what all rounds do, with an axis more.

    Attributes:
      query: of the chunk's blocks.
      key: of these, the block before and the one behind them; likewise `value` and `mask`.
      value: see `key`.
      mask: see `key`.
      index: the chunk's number.
      rng: for dropout, if any.
    """

    query: Float[Array, "*chunks batch blocks block heads head_dim"]
    key: Float[Array, "*chunks batch blocks_beside block heads head_dim"]
    value: Float[Array, "*chunks batch blocks_beside block heads head_dim"]
    mask: Bool[Array, "*chunks batch blocks_beside block"]
    index: Int[Array, "*chunks"]
    rng: jax.Array | None


def attend(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    mask: Bool[Array, "batch length"],
    side: Side | None,
    bias: LongBias,
    blocks: Blocks,
    *,
    dropout_rate: float = 0.0,
    rng: jax.Array | None = None,
) -> Float[Array, "batch length heads head_dim"]:
    """Returns what positions read from those near them and from the summaries.

    Args:
      query: of all positions.
      key: of all positions.
      value: of all positions.
      mask: which positions hold anything.
      side: the summaries, or None for local attention.
      bias: see `LongBias`.
      blocks: how the positions are cut up.
      dropout_rate: of the weights; a block's queries share a mask.
      rng: for dropout; None for none.
    """
    of_a_head = query.shape[-2:]

    @functools.partial(jax.checkpoint, prevent_cse=False)  # in a loop nothing would be merged
    def attend_chunk(chunk: _Chunk) -> Float[Array, "batch chunk heads head_dim"]:
        keys, values, is_key = map(_windows, (chunk.key, chunk.value, chunk.mask))
        near = _product("bnqhd,bnkhd->bhnqk", chunk.query, keys) + bias.local[:, :, None]
        near = jnp.where(is_key[:, None, :, None], near, attention.MASKED_LOGIT)
        if not blocks.summaries:
            return _read([(near, "bhnqk,bnkhd->bnqhd", values)], dropout_rate, chunk.rng)
        side_key, side_value = (x.astype(chunk.query.dtype) for x in (side.key, side.value))
        # By global blocks, in which all positions have the same bias.
        rows = chunk.query.reshape(mask.shape[0], -1, blocks.global_block_size, *of_a_head)
        far = _product("brqhd,bkhd->bhrqk", rows, side_key)
        far += _side_bias_of_chunk(bias.side, side.count, chunk.index, blocks)[:, :, :, None]
        far = jnp.where(side.mask[:, None, None, None], far, attention.MASKED_LOGIT)
        parts = [(near, "bhnqk,bnkhd->bnqhd", values), (far, "bhrqk,bkhd->brqhd", side_value)]
        return _read(parts, dropout_rate, chunk.rng)

    axes = (None, "batch", None, None, "heads", "kv")
    queries, keys, values = (constrain(blocks.cut(x), axes) for x in (query, key, value))
    chunks = _Chunk(
        queries,
        *map(_with_blocks_beside, (keys, values, blocks.cut(mask))),
        jnp.arange(blocks.chunks),
        None if rng is None else jax.random.split(rng, blocks.chunks),
    )
    attended = constrain(lax.map(attend_chunk, chunks), (None, "batch", None, "heads", "kv"))
    attended = jnp.moveaxis(attended, 0, 1).reshape(mask.shape[0], -1, *of_a_head)
    return checkpoint_name(attended[:, : blocks.length], ATTENDED)


def _read(
    parts: Sequence[tuple[Array, str, Array]], dropout_rate: float, rng: jax.Array | None
) -> Float[Array, "batch chunk heads head_dim"]:
    """Reads values by the softmax over the logits of all parts.

    It is divided by its sum at the end, where that takes least.

    Args:
      parts: logits, [batch, heads, blocks, queries, keys] in float32; how they are multiplied with
        values to give [batch, blocks, queries, heads, head_dim]; these values.
      dropout_rate: of the weights; a block's queries share a mask.
      rng: for dropout; None for none.
    """
    batch, heads = parts[0][0].shape[:2]
    top = [jnp.max(logits, axis=-1).reshape(batch, heads, -1) for logits, _, _ in parts]
    top = lax.stop_gradient(functools.reduce(jnp.maximum, top))
    rngs = [None] * len(parts) if rng is None else jax.random.split(rng, len(parts))
    dropout = nn.Dropout(dropout_rate, broadcast_dims=(-2,), deterministic=False, parent=None)
    total = attended = 0.0
    for (logits, axes, values), rng in zip(parts, rngs):
        weights = jnp.exp(logits - top.reshape(*logits.shape[:-1], 1))
        total += jnp.sum(weights, axis=-1).reshape(top.shape)
        weights = weights.astype(values.dtype)
        if rng is not None:
            weights = dropout.apply({}, weights, rngs={"dropout": rng})
        read = _product(axes, weights, values)
        attended += read.reshape(batch, -1, heads, read.shape[-1])
    return (attended / jnp.swapaxes(total, 1, 2)[..., None]).astype(values.dtype)


def _product(axes: str, one: Array, other: Array) -> Array:
    return jnp.einsum(axes, one, other, preferred_element_type=jnp.float32)


def _pad(x: Shaped[Array, "..."], axis: int, before: int, behind: int) -> Shaped[Array, "..."]:
    """Pads an axis with zeros."""
    return jnp.pad(x, [(before, behind) if axis == other else (0, 0) for other in range(x.ndim)])


def _with_blocks_beside(
    x: Shaped[Array, "chunks batch blocks block *rest"],
) -> Shaped[Array, "chunks batch blocks_beside block *rest"]:
    """Gives each chunk also the block before and the block behind it."""
    before, behind = _pad(x[:-1, :, -1:], 0, 1, 0), _pad(x[1:, :, :1], 0, 0, 1)
    return jnp.concatenate([before, x, behind], axis=2)


def _windows(
    x: Shaped[Array, "batch blocks_beside block *rest"],
) -> Shaped[Array, "batch blocks window *rest"]:
    """Gives each block of a chunk the positions of the one before, its own and the one behind."""
    return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)


def _side_bias_of_chunk(
    bias: Float[Array, "batch heads distances"],
    count: Int[Array, " batch"],
    index: Int[Array, ""],
    blocks: Blocks,
) -> Float[Array, "batch heads rows summaries"]:
    """Returns the bias of a chunk's global blocks to the summaries; see `LongBias` and `Side`."""
    summaries = blocks.summaries
    rows = blocks.chunk // blocks.global_block_size
    start = bias.shape[2] - summaries - (index + 1) * rows
    distances = lax.dynamic_slice_in_dim(bias, start, rows + summaries, axis=2)
    # A row for the global block before the chunk and for each of its own, one step farther each.
    by_row = jnp.stack(
        [distances[..., row : row + summaries] for row in range(rows, -1, -1)], axis=2
    )
    # What is behind a text's last summary is as far from all of them as that one is.
    is_rest = (index * rows + jnp.arange(rows) >= count[:, None])[:, None, :, None]
    return jnp.where(is_rest, by_row[:, :, :-1], by_row[:, :, 1:])
