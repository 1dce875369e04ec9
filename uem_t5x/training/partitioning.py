"""How arrays lie on the devices, in the built-in engine."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from flax.linen import partitioning as flax_partitioning
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uem_t5x.base.errors import InputError
from uem_t5x.network.layouts import DATA, MODEL, Layout, logical_axes
from uem_t5x.network.types import Batch, PyTree


class Partitioner:
    """Lays arrays out over a mesh of devices, in the built-in engine.

    Attributes:
      layout: what is split.
      mesh: the devices, along `data` and `model`.
      batch_sharding: of a batch's features, by example.
      replicated: of what every device holds whole.
    """

    def __init__(
        self, layout: Layout | None = None, devices: Sequence[jax.Device] | None = None
    ) -> None:
        """Takes the devices, or all there are, of all processes.

        Raises:
          InputError: if copies of the model do not come out even.
        """
        self.layout = layout or Layout()
        devices = list(devices or jax.devices())
        self.layout.check_devices(len(devices))
        shape = (len(devices) // self.layout.model, self.layout.model)
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        self.mesh = Mesh(grid, (DATA, MODEL))
        self.batch_sharding = NamedSharding(self.mesh, PartitionSpec(DATA))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())

    def jit(self, function: Callable[..., Any], **options: Any) -> Any:
        """Returns `jax.jit(function)`, in which the network's logical axes mean this mesh's."""

        @functools.wraps(function)
        def on_mesh(*arguments: Any) -> Any:
            mesh = jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)
            with mesh, flax_partitioning.axis_rules(self.layout.logical_axis_rules):
                return function(*arguments)

        return jax.jit(on_mesh, **options)

    def check_batch_size(
        self, batch_size: int, name: str = "BATCH_SIZE", num_microbatches: int = 1
    ) -> None:
        """Checks that the devices can share batches of a size evenly, and the parts of each.

        Args:
            batch_size: the size.
            name: of the macro or the option that sets it.
            num_microbatches: parts that a batch is cut into.

        Raises:
            InputError: if they cannot, or there is no batch or no part.
        """
        groups = self.mesh.shape[DATA]
        devices = f"{groups} devices" if self.layout.model == 1 else f"{groups} groups of devices"
        if batch_size < 1:
            raise InputError(f"{name}={batch_size}: no batch; use {groups} or a multiple of it")
        share, remainder = divmod(batch_size, groups)
        if remainder:
            raise InputError(
                f"{name}={batch_size} does not divide over {devices}; "
                f"use {batch_size - remainder or groups}"
            )
        if num_microbatches < 1 or share % num_microbatches:
            fitting = (n for n in range(1, min(num_microbatches, share) + 1) if share % n == 0)
            raise InputError(
                f"NUM_MICROBATCHES={num_microbatches}: {name}={batch_size} over {devices} does not "
                f"divide into so many parts; use {max(fitting, default=1)}"
            )

    # --- Batches ---

    @functools.cached_property
    def data_share(self) -> tuple[int, int]:
        """This process's part of every batch: which, and of how many.

        Processes whose devices share copies of the model are given the same part.

        Raises:
          InputError: if some processes share parts of copies only.
        """
        positions = self._data_positions
        shares = sorted(set(positions.values()))
        if sum(map(len, shares)) != self.mesh.shape[DATA] or len(set(map(len, shares))) > 1:
            raise InputError(
                f"LAYOUT='{self.layout}': copies of the model come to lie across hosts unevenly; "
                "use a number that divides a host's devices, or a multiple of it"
            )
        return shares.index(positions[jax.process_index()]), len(shares)

    @functools.cached_property
    def is_first_of_its_share(self) -> bool:
        """Whether no process before this one is given the same part of every batch."""
        mine = self._data_positions[jax.process_index()]
        return jax.process_index() == min(
            process for process, share in self._data_positions.items() if share == mine
        )

    @functools.cached_property
    def _data_positions(self) -> Mapping[int, tuple[int, ...]]:
        """Where along `data` the devices of each process lie."""
        positions: dict[int, set[int]] = {}
        for (position, _), device in np.ndenumerate(self.mesh.devices):
            positions.setdefault(device.process_index, set()).add(position)
        return {process: tuple(sorted(found)) for process, found in positions.items()}

    def shard_local_batch(self, batch: Batch) -> dict[str, jax.Array]:
        """Makes global batches of the parts that the processes hold; see `data_share`."""
        count = self.data_share[1]
        return {
            name: jax.make_array_from_process_local_data(
                self.batch_sharding, part, (len(part) * count, *part.shape[1:])
            )
            for name, part in batch.items()
        }

    def shard_batch(self, batch: Batch) -> dict[str, jax.Array]:
        """Spreads a batch that every process holds whole."""
        return {
            name: jax.make_array_from_callback(
                np.shape(array), self.batch_sharding, np.asarray(array).__getitem__
            )
            for name, array in batch.items()
        }

    # --- Variables ---

    def lay_out(self, variables: PyTree) -> PyTree:
        """Says where variables shall lie.

        Args:
          variables: shapes of what `init` returns, with its `*_axes` collections.

        Returns:
          The same, without these collections, as `jax.ShapeDtypeStruct`s with shardings.

        Raises:
          InputError: if an axis does not divide over its mesh axes.
        """
        self.layout.check_variables(variables, self.mesh.size)

        def place(collection: str) -> PyTree:
            axes = logical_axes(variables, collection)
            flat = traverse_util.flatten_dict(dict(variables[collection]))
            return traverse_util.unflatten_dict(
                {
                    path: self.place(leaf, self.layout.spec(axes.get(path, ())))
                    for path, leaf in flat.items()
                }
            )

        return {name: place(name) for name in variables if not name.endswith("_axes")}

    def lay_out_like(self, tree: PyTree, params: PyTree) -> PyTree:
        """Says where an optimizer's state shall lie, given what `lay_out` said of the parameters.

        What has its parameter's shape lies as its parameter does. The rest is small, Adafactor's
        factors among it, and whole on every device.
        """
        structure = jax.tree.structure(params)

        def is_like_params(part: PyTree) -> bool:
            return jax.tree.structure(part) == structure

        def place(leaf: Any, param: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return self.place(leaf, param.sharding.spec if leaf.shape == param.shape else None)

        return jax.tree.map(
            lambda part: (
                jax.tree.map(place, part, params) if is_like_params(part) else self.place(part)
            ),
            tree,
            is_leaf=is_like_params,
        )

    def stack(self, *layers: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        """Says where arrays that are stacked along a new first axis shall lie."""
        layer = layers[0]
        stacked = jax.ShapeDtypeStruct((len(layers), *layer.shape), layer.dtype)
        return self.place(stacked, PartitionSpec(None, *layer.sharding.spec))

    def place(self, leaf: Any, spec: PartitionSpec | None = None) -> jax.ShapeDtypeStruct:
        """Says along which axes of the mesh an array shall lie; by default whole everywhere."""
        sharding = self.replicated if spec is None else NamedSharding(self.mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def pad_batch(batch: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Fills a batch up to `size` rows with zeros: no history, no text, no loss."""
    missing = size - len(next(iter(batch.values())))
    return {
        name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for name, array in batch.items()
    }
