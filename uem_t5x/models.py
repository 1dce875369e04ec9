"""The model class that both engines call: loss, evaluation, generation and scoring.

It honours T5X's model contract (`t5x.models.BaseModel` and `EncoderDecoderModel`) without
importing T5X. The frozen item table travels as T5X's `flax_mutables`: variables beside the
parameters that no gradient reaches and the optimizer does not see. Functions that are given
`flax_mutables` hand them back where T5X's trainer expects them.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.core
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from jaxtyping import Float, Int

from uem_t5x.base.errors import InputError
from uem_t5x.network import decoding, parameters, stacks
from uem_t5x.network.losses import cross_entropy
from uem_t5x.network.parameters import Trainable
from uem_t5x.network.soft_prompt import SoftPrompt, SoftPromptModule
from uem_t5x.network.transformer import Transformer
from uem_t5x.network.types import Array, Batch, PyTree

if TYPE_CHECKING:
    import seqio

Metrics = dict[str, clu_metrics.Metric]
_OF_TEXT = ("encoder_", "decoder_")  # features whose names begin so; others make the soft prompt


class EncoderDecoderModel:
    """An encoder-decoder with or without a soft prompt.

    Attributes:
      module: the network; what its soft prompt is made of, batches hold besides the text.
      optimizer_def: the running engine's optimizer.
      trainable: whether training changes the parameter of a path, such as
        `encoder/layers_0/attention/query/kernel`. Others have no gradient and no optimizer state.
    """

    def __init__(
        self,
        module: Transformer,
        input_vocabulary: "seqio.Vocabulary",
        output_vocabulary: "seqio.Vocabulary",
        optimizer_def: Any,
        feature_converter_cls: "type[seqio.FeatureConverter] | None" = None,
        decode_fn: Callable = decoding.greedy_decode,
        num_decodes: int = 1,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: float | None = None,
        freeze_language_model: bool = False,
        trainable: Trainable | None = None,
    ) -> None:
        """Makes a model; arguments are named as in T5X.

        Args:
          module: the network.
          input_vocabulary: of the encoder's text.
          output_vocabulary: of the answers.
          optimizer_def: the running engine's optimizer.
          feature_converter_cls: see `FEATURE_CONVERTER_CLS`; None for text alone.
          decode_fn: this package's `decoding` or T5X's.
          num_decodes: sequences that `decode_fn` keeps for each input (a beam's width).
          label_smoothing: probability mass spread over the other tokens.
          z_loss: weight of the squared log-partition, which keeps logits from drifting.
          loss_normalizing_factor: divides the summed loss; Adafactor does not mind its scale.
          freeze_language_model: leave it as it is and train the soft prompt alone; the paper trains
            all of it. With LoRA it is left as it is, too.
          trainable: see the attribute; it says more than `freeze_language_model`.

        Raises:
          InputError: if two of these say what is trained.
        """
        choices = {
            "FREEZE_LANGUAGE_MODEL=True": freeze_language_model and parameters.soft_prompt_alone,
            "LORA_RANK": module.config.lora and parameters.lora_and_soft_prompt,
            "models.EncoderDecoderModel.trainable": trainable,
        }
        chosen = {name: choice for name, choice in choices.items() if choice}
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)}: each says what is trained; bind one of them")
        self.trainable = next(iter(chosen.values()), parameters.everything)
        self._feature_converter_cls = feature_converter_cls
        self.module = module
        self.input_vocabulary = input_vocabulary
        self.output_vocabulary = output_vocabulary
        self.optimizer_def = optimizer_def
        self._decode_fn = decode_fn
        self._num_decodes = num_decodes
        self._label_smoothing = label_smoothing
        self._z_loss = z_loss
        self._loss_normalizing_factor = loss_normalizing_factor

    @property
    def FEATURE_CONVERTER_CLS(self) -> "type[seqio.FeatureConverter]":  # noqa: N802, as T5X asks for it
        """What turns a SeqIO task's features into this model's batches."""
        if self._feature_converter_cls is None:
            # Whoever brings arrays of their own needs no SeqIO.
            from uem_t5x.inputs import feature_converters

            return feature_converters.TextFeatureConverter
        return self._feature_converter_cls

    @property
    def takes_grammar(self) -> bool:
        """Whether its `decode_fn` can be kept within a `grammar`; those of T5X cannot."""
        return "grammar" in inspect.signature(self._decode_fn).parameters

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> flax.core.FrozenDict:
        """Returns fresh parameters, their logical axes, and the item table.

        Args:
          rng: random key.
          input_shapes: the shape of every feature of a batch.
          input_types: taken for T5X's sake; every feature that the network reads is int32.
        """
        del input_types
        batch = {name: jnp.ones(shape, jnp.int32) for name, shape in input_shapes.items()}
        return flax.core.freeze(
            self.module.init(rng, *_tokens(batch), _features(batch), enable_dropout=False)
        )

    def compute_logits(
        self,
        params: PyTree,
        batch: Batch,
        dropout_rng: jax.Array | None = None,
        flax_mutables: PyTree | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Returns the logits of every target position; dropout needs a random key."""
        return self.module.apply(
            {"params": self.as_run(params), **(flax_mutables or {})},
            *_tokens(batch),
            _features(batch),
            enable_dropout=dropout_rng is not None,
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
        )

    def loss_fn(
        self,
        params: PyTree,
        batch: Batch,
        dropout_rng: jax.Array | None,
        flax_mutables: PyTree | None = None,
    ) -> tuple[Float[Array, ""], Any]:
        """Returns the loss of the answers, and metrics.

        The loss is the weighted sum of every token's cross-entropy and z-loss, divided by the
        `loss_normalizing_factor` if there is one.

        Args:
          params: the network's parameters.
          batch: int32 features by name. `decoder_input_tokens` and `decoder_loss_weights` may be
            left out, as this package's feature converters do: then the inputs are the targets
            shifted right, and every target but padding weighs 1.
          dropout_rng: random key, or None for no dropout.
          flax_mutables: the item table, where the network has one.

        Returns:
          The loss, and `metrics` or, given `flax_mutables`, `(metrics, flax_mutables)`.
        """
        if self.trainable is not parameters.everything:
            trained, frozen = parameters.split(flax.core.unfreeze(params), self.trainable)
            params = parameters.merge(trained, jax.lax.stop_gradient(frozen))
        loss, metrics = self._loss_and_metrics(params, batch, dropout_rng, flax_mutables)
        return loss, (metrics if flax_mutables is None else (metrics, flax_mutables))

    def eval_fn(
        self, params: PyTree, batch: Batch, flax_mutables: PyTree | None = None
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss without dropout, and metrics."""
        return self._loss_and_metrics(params, batch, None, flax_mutables)

    def _loss_and_metrics(
        self,
        params: PyTree,
        batch: Batch,
        dropout_rng: jax.Array | None,
        flax_mutables: PyTree | None,
    ) -> tuple[Float[Array, ""], Metrics]:
        logits = self.compute_logits(params, batch, dropout_rng, flax_mutables)
        targets = batch["decoder_target_tokens"]
        weights = _loss_weights(batch)
        losses, z_loss = cross_entropy(logits, targets, self._label_smoothing, self._z_loss)
        normalizer = self._loss_normalizing_factor or 1.0
        loss = jnp.sum((losses + z_loss) * weights) / normalizer
        tokens = jnp.sum(weights)
        return loss, {
            "loss": clu_metrics.Average(total=jnp.sum(losses * weights), count=tokens),
            "z_loss": clu_metrics.Average(total=jnp.sum(z_loss * weights), count=tokens),
            "accuracy": clu_metrics.Accuracy.from_model_output(
                logits=logits, labels=targets, mask=weights
            ),
        }

    def score_batch(
        self, params: PyTree, batch: Batch, flax_mutables: PyTree | None = None
    ) -> Float[Array, " batch"]:
        """Returns the log-likelihood of each answer."""
        logits = self.compute_logits(params, batch, flax_mutables=flax_mutables)
        losses, _ = cross_entropy(logits, batch["decoder_target_tokens"], 0.0, 0.0)
        return -jnp.sum(losses * _loss_weights(batch), axis=-1)

    def predict_batch(
        self,
        params: PyTree,
        batch: Batch,
        rng: jax.Array | None = None,
        flax_mutables: PyTree | None = None,
    ) -> Int[Array, "batch length"]:
        """Returns the best answer of each example, as token ids."""
        return self.predict_batch_with_aux(params, batch, rng, flax_mutables=flax_mutables)[0]

    def predict_batch_with_aux(
        self,
        params: PyTree,
        batch: Batch,
        rng: jax.Array | None = None,
        decoder_params: Mapping[str, Any] | None = None,
        return_all_decodes: bool = False,
        num_decodes: int | None = None,
        flax_mutables: PyTree | None = None,
    ) -> tuple[Int[Array, "batch *decodes length"], dict[str, Float[Array, "batch *decodes"]]]:
        """Writes an answer for every example, as long as `decoder_target_tokens` at the most.

        The encoder, soft prompt included, runs once; the decoder reads its key-value cache.

        Args:
          params: the network's parameters.
          batch: as for `loss_fn`; the values of the decoder's features are not read.
          rng: random key, for a `decode_fn` that draws.
          decoder_params: further arguments of `decode_fn`.
          return_all_decodes: return every sequence, the best one last, not only the best.
          num_decodes: replaces the model's own.
          flax_mutables: the item table, where the network has one.

        Returns:
          Token ids, and `{"scores": log-likelihoods}`, those of a beam search by length.
        """
        num_decodes = num_decodes or self._num_decodes
        variables = {"params": self.as_run(params), **(flax_mutables or {})}
        encoded = self.module.apply(
            variables,
            batch["encoder_input_tokens"],
            _features(batch),
            enable_dropout=False,
            method="encode",
        )
        blank = jnp.zeros_like(batch["decoder_target_tokens"])
        decode = functools.partial(
            self.module.apply,
            enable_dropout=False,
            decode=True,
            max_decode_length=blank.shape[1],
            mutable=["cache"],
            method="decode",
        )
        # One by one: the decoder's layers each have a cache.
        variables["params"] = stacks.unstack(params)
        # The call that makes the cache fills in the keys and values of the encoder's output;
        # its logits are not used, so that the compiler leaves them out.
        _, made = decode(variables, encoded, blank, blank)
        encoded = jax.tree.map(lambda x: jnp.repeat(x, num_decodes, axis=0), encoded)

        def tokens_to_logits(state: Any) -> tuple[jax.Array, Any]:
            logits, updated = decode(
                {**variables, "cache": state.cache}, encoded, state.cur_token, state.cur_token
            )
            return logits[:, 0], updated["cache"]

        decoder_params = dict(decoder_params or {})
        if rng is not None:
            decoder_params["decode_rng"] = rng
        tokens, scores = self._decode_fn(
            inputs=blank,
            cache=made["cache"],
            tokens_to_logits=tokens_to_logits,
            eos_id=self.output_vocabulary.eos_id,
            num_decodes=num_decodes,
            **decoder_params,
        )
        if return_all_decodes:
            return tokens, {"scores": scores}
        return tokens[:, -1], {"scores": scores[:, -1]}

    def soft_prompt(
        self, params: PyTree, batch: Batch, flax_mutables: PyTree | None = None
    ) -> SoftPrompt:
        """Returns what stands before the text of each example, without dropout."""
        return self.module.apply(
            {"params": self.as_run(params), **(flax_mutables or {})},
            _features(batch),
            enable_dropout=False,
            method="prompt",
        )

    def with_soft_prompt(self, soft_prompt: SoftPromptModule) -> "EncoderDecoderModel":
        """Returns the same model with another soft prompt, and whatever parameters that has."""
        other = copy.copy(self)
        other.module = self.module.clone(soft_prompt=soft_prompt)
        return other

    def as_run(self, params: PyTree) -> PyTree:
        """Returns parameters with the layers as they are run: in a loop, or one by one.

        Of a state that holds them one by one, as T5X's does, a loop needs a copy, of the type that
        the layers compute in.
        """
        config = self.module.config
        if not config.scan_layers or stacks.is_stacked(params):
            return params

        def join(*layers: Array) -> jax.Array:
            return jnp.stack([layer.astype(config.dtype) for layer in layers])

        soft_prompt, language_model = parameters.split(
            flax.core.unfreeze(params), parameters.soft_prompt_alone
        )
        return parameters.merge(stacks.stack(soft_prompt), stacks.stack(language_model, join))


def _tokens(batch: Batch) -> tuple[Array, Array, Array]:
    targets = batch["decoder_target_tokens"]
    if (inputs := batch.get("decoder_input_tokens")) is None:
        inputs = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
    return batch["encoder_input_tokens"], inputs, targets


def _loss_weights(batch: Batch) -> Float[Array, "batch length"]:
    weights = batch.get("decoder_loss_weights", batch["decoder_target_tokens"] > 0)
    return weights.astype(jnp.float32)


def _features(batch: Batch) -> dict[str, Array]:
    return {name: array for name, array in batch.items() if not name.startswith(_OF_TEXT)}
