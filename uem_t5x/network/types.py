"""Types that several rooms share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# What a public function takes: jitted code passes tracers, a notebook passes NumPy.
Array = jax.Array | np.ndarray
Batch = Mapping[str, Array]
PyTree = Any
Index = tuple[slice, ...]
# Of an axis: a number, or what `jax.export` has in its place where it may be any.
Size = Any


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint, read when it is asked for.

    Attributes:
      shape: its shape.
      read: returns a part of it as float32, one slice a dimension; opens and closes what it needs.
    """

    shape: tuple[int, ...]
    read: Callable[[Index], np.ndarray]

    def load(self) -> np.ndarray:
        """Returns the whole tensor as float32."""
        return self.read(tuple(slice(0, size) for size in self.shape))
