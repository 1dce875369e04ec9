"""The precomputed vectors of the items, on the device: ids travel, vectors stay."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Float, Int

from uem_t5x.network.layouts import constrain
from uem_t5x.network.types import Array, PyTree

# The collection of frozen variables: no gradient, no optimizer state, saved with the checkpoint.
ITEM_TABLE = "item_table"


@dataclasses.dataclass(frozen=True)
class Channel:
    """One matrix of vectors.

    Attributes:
      name: of its variable.
      rows: of the matrix; row 0 is padding, all zeros.
      width: its columns.
      index: what selects a row: the `item` of a history or its `rating`.
    """

    name: str
    rows: int
    width: int
    index: Literal["item", "rating"]


class ItemTable(nn.Module):
    """Looks up the vectors of a history's items, which are handed in; fresh ones are zeros."""

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
                jnp.zeros,
                (channel.rows, channel.width),
                jnp.float32,
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


def fill(variables: PyTree, vectors: Callable[[str], Float[np.ndarray, "rows width"]]) -> PyTree:
    """Puts vectors into item tables.

    Args:
      variables: nested dictionaries by collection; arrays of the collection `ITEM_TABLE` are given
        up, and those that take their place lie on the same devices.
      vectors: returns the matrix of a channel, by its name.

    Returns:
      The variables.
    """

    def put(path: tuple[Any, ...], blank: jax.Array) -> jax.Array:
        if path[0].key != ITEM_TABLE:
            return blank
        matrix = vectors(path[-1].key)
        shape, sharding = blank.shape, blank.sharding
        blank.delete()
        return jax.make_array_from_callback(shape, sharding, matrix.__getitem__)

    return jax.tree_util.tree_map_with_path(put, variables)
