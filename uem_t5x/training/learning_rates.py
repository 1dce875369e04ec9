"""The learning rate at every step, for either engine."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float, Int

from uem_t5x.base.errors import check_at_least
from uem_t5x.network.types import Array

LearningRateFn = Callable[[int | Int[Array, ""]], Float[Array, ""]]


def trapezoid(
    peak: float, total_steps: int, warmup_steps: int = 0, decay_steps: int = 0
) -> LearningRateFn:
    """Returns a rate that rises linearly, stays at its peak, and falls linearly to zero.

    Without its slopes it is constant, which is how T5X fine-tunes, and the paper.

    Args:
        peak: the rate between the slopes.
        total_steps: of the run; with `decay_steps` its last one is all but zero. A run that goes
            on for more steps than it was begun with takes up the new slope where it stands.
        warmup_steps: how long it rises.
        decay_steps: how long it falls; `total_steps` for the whole of the run. Where the slopes
            cross the lower one counts, so that a short trial of a long recipe stays under the peak.

    Returns:
        A function of the steps taken so far.

    Raises:
        InputError: a slope of negative length.
    """
    check_at_least(0, WARMUP_STEPS=warmup_steps, DECAY_STEPS=decay_steps)

    def rate(step: int | Int[Array, ""]) -> Float[Array, ""]:
        share = jnp.ones((), jnp.float32)
        if warmup_steps:
            share = jnp.minimum(share, (step + 1) / warmup_steps)
        if decay_steps:
            share = jnp.minimum(share, jnp.maximum(total_steps - step, 0) / decay_steps)
        return peak * share

    return rate
