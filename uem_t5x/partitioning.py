"""How arrays lie on the devices, in the built-in engine."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uem_t5x.errors import InputError
from uem_t5x.types import Batch, PyTree


class DataParallelPartitioner:
    """Splits batches over devices and keeps the whole state on each.

    Attributes:
      mesh: the devices along one axis, `data`.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None) -> None:
        """Takes the devices, or all there are."""
        self.mesh = Mesh(np.asarray(devices or jax.devices()), ("data",))
        self._split = NamedSharding(self.mesh, PartitionSpec("data"))
        self._replicated = NamedSharding(self.mesh, PartitionSpec())

    def check_batch_size(self, batch_size: int) -> None:
        """Raises an InputError if the devices cannot share a batch of this size evenly."""
        if remainder := batch_size % self.mesh.size:
            raise InputError(
                f"BATCH_SIZE={batch_size} does not divide over {self.mesh.size} devices; "
                f"use {batch_size - remainder or self.mesh.size}"
            )

    def shard_batch(self, batch: Batch) -> dict[str, jax.Array]:
        """Puts a host's part of a batch on its devices, as part of the global batch."""
        return {
            name: jax.make_array_from_process_local_data(self._split, np.asarray(array))
            for name, array in batch.items()
        }

    def lay_out(self, shapes: PyTree) -> PyTree:
        """Says where arrays of these shapes shall lie: all of them whole on every device."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._replicated),
            shapes,
        )

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a whole tree on every device."""
        return jax.device_put(tree, self._replicated)
