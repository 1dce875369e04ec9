"""What is computed of users beside their answers, compiled when it is first needed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.network.item_table import ItemTable
from uem_t5x.network.types import Batch, PyTree


class Programs:
    """Functions of parameters, item table and a batch on the devices, each compiled by itself."""

    def __init__(self, trained: TrainedModel) -> None:
        """Compiles nothing yet."""
        self._trained = trained

    @functools.cached_property
    def gradient(self) -> Any:
        """Takes the derivative of answers' log-likelihood by a factor of each item's vector.

        At a factor of 1 that is the gradient by the vector, times the vector, summed.
        """

        def likelihood(
            factors: jax.Array, params: PyTree, table: PyTree, batch: Batch
        ) -> jax.Array:
            looked_up = []

            def multiply(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                made = call(*args, **kwargs)
                if not isinstance(context.module, ItemTable):
                    return made
                looked_up.append(context.module)
                return made * factors[..., jnp.newaxis]

            with nn.intercept_methods(multiply):
                scores = self._trained.model.score_batch(params, batch, table or None)
            if not looked_up:
                raise InputError(
                    "the model's soft prompt looks no items up in the item table: its answers "
                    "cannot be explained by them"
                )
            return jnp.sum(scores)

        def gradient(params: PyTree, table: PyTree, batch: Batch) -> jax.Array:
            factors = jnp.ones(batch["history_items"].shape, jnp.float32)
            return jax.grad(likelihood)(factors, params, table, batch)

        return self._jit(gradient)

    @functools.cached_property
    def prompt(self) -> Any:
        """Makes the soft prompts of a batch."""

        def prompt(params: PyTree, table: PyTree, batch: Batch) -> Any:
            return self._trained.model.soft_prompt(params, batch, table)

        return self._jit(prompt)

    @functools.cached_property
    def attention(self) -> Any:
        """Encodes a batch, and returns what its attention sows besides."""

        def look(params: PyTree, table: PyTree, batch: Batch) -> Any:
            variables = {"params": self._trained.model.as_run(params), **(table or {})}
            return self._trained.model.module.apply(
                variables,
                batch["encoder_input_tokens"],
                batch,
                enable_dropout=False,
                mutable=["intermediates"],
                method="encode",
            )

        return self._jit(look)

    def _jit(self, function: Any) -> Any:
        partitioner = self._trained.partitioner
        return partitioner.jit(function, out_shardings=partitioner.replicated)
