"""What is split over the devices, for both engines: the macro LAYOUT.

The mesh has T5X's two axes. Batches are split over `data`; over `model`, heads, feed-forward blocks
and the vocabulary are. Parameters and activations name their logical axes where they are made, and
the rules of a layout say along which axis of the mesh each of those lies.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from flax import linen as nn
from flax import traverse_util
from flax.linen import partitioning
from jax import lax
from jax.sharding import PartitionSpec

from uem_t5x.base.errors import InputError
from uem_t5x.network.types import Array, PyTree

DATA, MODEL = "data", "model"
MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is split over the devices.

    Attributes:
      model: devices that share one copy of the model; the size of the mesh axis `model`.
      fsdp: whether parameters, optimizer state and item table are also split over `data`, each
        device fetching them as it needs them (fully sharded data parallelism).
    """

    model: int = 1
    fsdp: bool = False

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """Reads `data`, `fsdp`, `model=4` or `fsdp,model=4`, the values of the macro LAYOUT.

        Raises:
          InputError: for anything else.
        """
        match = re.fullmatch(r"data|(fsdp)?(?:(?(1),)model=([1-9]\d*))?", text)
        if not match or not text:
            raise InputError(
                f"LAYOUT={text!r}: no such layout; use 'data', 'fsdp', 'model=N' or 'fsdp,model=N'"
            )
        return cls(model=int(match[2] or 1), fsdp=bool(match[1]))

    def __str__(self) -> str:
        parts = ["fsdp"] * self.fsdp + [f"model={self.model}"] * (self.model > 1)
        return ",".join(parts) or "data"

    @property
    def logical_axis_rules(self) -> tuple[tuple[str, MeshAxes], ...]:
        """The mesh axes of every logical axis, as `flax.linen` and T5X take them.

        An array's axis takes the first rule whose mesh axes are still free in it.
        """
        return (
            ("batch", DATA),
            ("vocab", MODEL),
            ("mlp", MODEL),
            ("heads", MODEL),
            ("joined_kv", MODEL),
            ("embed", DATA if self.fsdp else None),
            # By width, which divides where a catalogue's or the eleven ratings' rows do not.
            ("item_embed", (DATA, MODEL) if self.fsdp else MODEL),
            ("item_embed", MODEL),
            ("looked_up", None if self.fsdp else DATA),
            ("items", None),
            ("kv", None),
            ("length", None),
            ("prompt", None),
            ("lora", None),
            ("relpos_buckets", None),
        )

    def check_devices(self, devices: int) -> None:
        """Raises an InputError if copies of the model do not come out even."""
        if devices % self.model:
            nearest = max(n for n in _divisors(devices) if n <= self.model)
            raise InputError(
                f"LAYOUT='{self}': {devices} devices are no multiple of {self.model}; use "
                f"LAYOUT='{dataclasses.replace(self, model=nearest)}'"
            )

    def check_variables(self, variables: PyTree, devices: int) -> None:
        """Raises an InputError if an axis of a variable does not divide over its mesh axes.

        Args:
          variables: what `init` returns, or its shapes, with its `*_axes` collections.
          devices: of the mesh.
        """
        named = list(_named_axes(variables))
        problem = self._indivisible(named, devices)
        if not problem:
            return
        others = [Layout(n, fsdp) for fsdp in {self.fsdp, False} for n in _divisors(devices)]
        fitting = [other for other in others if not other._indivisible(named, devices)]
        nearest = min(
            fitting,
            key=lambda other: (other.fsdp != self.fsdp, abs(math.log(other.model / self.model))),
        )
        raise InputError(f"LAYOUT='{self}' over {devices} devices: {problem}; use '{nearest}'")

    def _indivisible(
        self, named: Sequence[tuple[str, tuple[int, ...], tuple[str, ...]]], devices: int
    ) -> str | None:
        sizes = {DATA: devices // self.model, MODEL: self.model}
        for name, shape, axes in named:
            for axis, size, mesh_axes in zip(axes, shape, self.spec(axes)):
                parts = math.prod(sizes[mesh_axis] for mesh_axis in _as_tuple(mesh_axes))
                if size % parts:
                    return f"{name} has {size} {axis}, which do not divide by {parts}"
        return None

    def spec(self, axes: Sequence[str]) -> PartitionSpec:
        """Returns the mesh axes of an array with these logical axes."""
        return nn.logical_to_mesh_axes(tuple(axes), self.logical_axis_rules)


def constrain(array: Array, axes: Sequence[str | None]) -> Array:
    """Says where an array of the network lies, by its logical axes; None for one that is not split.

    Takes the rules that either engine has set with the mesh; does nothing where there are none.
    (`flax.linen.partitioning.with_sharding_constraint` does nothing within T5X's meshes either.)
    """
    rules = partitioning.get_axis_rules()
    if not rules:
        return array
    return lax.with_sharding_constraint(array, nn.logical_to_mesh_axes(tuple(axes), rules))


def _as_tuple(mesh_axes: MeshAxes) -> tuple[str, ...]:
    if mesh_axes is None:
        return ()
    return (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _named_axes(variables: PyTree) -> Iterator[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    """Yields the path, shape and logical axes of every variable that names its axes."""
    for collection in variables:
        if collection.endswith("_axes"):
            continue
        axes = logical_axes(variables, collection)
        for path, leaf in traverse_util.flatten_dict(dict(variables[collection])).items():
            if path in axes:
                yield "/".join(path), tuple(leaf.shape), axes[path]


def logical_axes(variables: PyTree, collection: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Returns the logical axes of a collection's variables by path."""
    if f"{collection}_axes" not in variables:
        return {}
    names = partitioning.get_axis_names(variables[f"{collection}_axes"])
    return {path: tuple(axes) for path, axes in traverse_util.flatten_dict(dict(names)).items()}
