"""What stands before the text in the encoder's input, and the modules that make it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from uem_t5x.network import flops
from uem_t5x.network.types import Array

Features = Mapping[str, Array]


class SoftPrompt(NamedTuple):
    """Embeddings that stand before the text in the encoder's input, and which of them hold any."""

    embeddings: Float[Array, "batch prompt embed"]
    mask: Bool[Array, "batch prompt"]


class SoftPromptModule(nn.Module):
    """Makes a soft prompt of a batch's features: what `network.Transformer.soft_prompt` takes.

    A class of one's own needs `__call__` alone. What parameters and frozen variables it makes lie
    beside `token_embedder`, `encoder` and `decoder`, so that its submodules are named otherwise.
    """

    def __call__(
        self, features: Features, embed_dim: int, *, enable_dropout: bool = True
    ) -> SoftPrompt:
        """Returns the soft prompts of a batch.

        Args:
          features: of the batch by name, [batch, ...] each, those of the text left out.
          embed_dim: width of the language model's embeddings.
          enable_dropout: whether to drop, which needs a `dropout` random key.
        """
        raise NotImplementedError(f"{type(self).__name__}.__call__ makes the soft prompt")

    def length(self, feature_lengths: Mapping[str, int], embed_dim: int) -> int:
        """Returns how many positions it takes before the text.

        Args:
          feature_lengths: of the model's features, such as `history_items`.
          embed_dim: see `__call__`.
        """
        return jax.eval_shape(*self._traceable(feature_lengths, embed_dim)).mask.shape[1]

    def flops(self, feature_lengths: Mapping[str, int], embed_dim: int) -> int:
        """Returns the FLOPs of the matrix products for one example; see `length`."""
        return flops.products(*self._traceable(feature_lengths, embed_dim))

    def describe(self) -> dict[str, Any]:
        """Returns what another program must know, beside the tensors, to compute the same.

        Of a class that does not say more, that is its name and its settings.
        """
        fields = (field.name for field in dataclasses.fields(self))
        settings = {name: getattr(self, name) for name in fields if name not in ("parent", "name")}
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", "settings": settings}

    def _traceable(self, feature_lengths: Mapping[str, int], embed_dim: int) -> tuple[Any, ...]:
        """Returns a function, and arguments of one example, that JAX can trace."""
        module = self.clone(parent=None, name=None)

        def prompt(key: jax.Array, features: Features) -> SoftPrompt:
            made, _ = module.init_with_output(key, features, embed_dim, enable_dropout=False)
            return made

        features = {
            name: jax.ShapeDtypeStruct((1, length), jnp.int32)
            for name, length in feature_lengths.items()
        }
        return prompt, jax.eval_shape(lambda: jax.random.key(0)), features


class GivenPrompt(SoftPromptModule):
    """A soft prompt that was made before: a user is embedded once, and answered often.

    It reads `soft_prompt` [batch, prompt, embed] and `soft_prompt_mask` [batch, prompt], whatever
    module made them, and has no parameters.
    """

    def __call__(
        self, features: Features, embed_dim: int, *, enable_dropout: bool = True
    ) -> SoftPrompt:
        del embed_dim, enable_dropout
        return SoftPrompt(features["soft_prompt"], features["soft_prompt_mask"])
