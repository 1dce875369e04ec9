"""Types that several rooms share."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# What a public function takes: jitted code passes tracers, a notebook passes NumPy.
Array = jax.Array | np.ndarray
Batch = Mapping[str, Array]
PyTree = Any
