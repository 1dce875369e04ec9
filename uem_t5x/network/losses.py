"""The loss of answers, token by token."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from uem_t5x.network.types import Array


def cross_entropy(
    logits: Float[Array, "batch length vocab"],
    targets: Int[Array, "batch length"],
    label_smoothing: float,
    z_loss: float,
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Returns the cross-entropy and the z-loss of every position.

    As T5X's: `label_smoothing` spreads its mass over the other tokens, and the entropy of the
    smoothed target is subtracted, so that a perfect prediction costs nothing.
    """
    log_partition = jax.nn.logsumexp(logits, axis=-1)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = log_partition - target_logit
    if label_smoothing:
        confidence = 1.0 - label_smoothing
        low = label_smoothing / (logits.shape[-1] - 1)
        others = logits.shape[-1] * log_partition - jnp.sum(logits, axis=-1) - loss
        entropy = -(
            confidence * jnp.log(confidence) + (logits.shape[-1] - 1) * low * jnp.log(low + 1e-20)
        )
        loss = confidence * loss + low * others - entropy
    return loss, z_loss * jnp.square(log_partition)
