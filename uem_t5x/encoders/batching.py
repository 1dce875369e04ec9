"""Batches of texts of about the same length: a batch is padded to its longest one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32


def by_length(
    lengths: Sequence[int],
    size: int,
    width: int,
    embed: Callable[[Sequence[int]], Float32[np.ndarray, "batch width"]],
    on_progress: Callable[[int], Any] | None,
) -> Float32[np.ndarray, "texts width"]:
    """Returns the vectors of texts, in their order.

    Args:
        lengths: of the texts, by any measure.
        size: how many texts a batch has at most.
        width: of a vector.
        embed: returns the vectors of the texts of these numbers.
        on_progress: is told, batch by batch, how many more texts are done.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    vectors = np.zeros((len(lengths), width), np.float32)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        vectors[batch] = embed(batch)
        if on_progress:
            on_progress(len(batch))
    return vectors
