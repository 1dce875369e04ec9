"""One training step, and what it changes, in the built-in engine."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.core
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from jaxtyping import Array, Float

from uem_t5x import checkpoints
from uem_t5x.models import EncoderDecoderModel, Metrics
from uem_t5x.network import item_table, parameters, stacks
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.training import prompt_init as prompt_init_lib
from uem_t5x.training.learning_rates import LearningRateFn
from uem_t5x.training.partitioning import Partitioner

ItemVectors = Callable[[str], Float[np.ndarray, "rows width"]]


@flax.struct.dataclass
class TrainState:
    """What training changes, and the frozen variables that stay beside it.

    As every pytree it may also hold shapes or shardings in place of arrays. With `scan_layers`
    parameters and optimizer state are stacked; see `network.stacks`.

    Attributes:
      step: int32, steps taken so far.
      params: the network's parameters.
      opt_state: the optimizer's state, of the parameters that are trained.
      flax_mutables: the item table; empty for a network without one.
    """

    step: PyTree
    params: PyTree
    opt_state: optax.OptState
    flax_mutables: PyTree

    @classmethod
    def create(cls, model: EncoderDecoderModel, variables: PyTree) -> "TrainState":
        """Starts from a model's initial variables.

        Raises:
          InputError: if nothing is left to train.
        """
        frozen, params = flax.core.pop(flax.core.unfreeze(variables), "params")
        if model.module.config.scan_layers:
            params = stacks.stack(params)
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=model.optimizer_def.init(parameters.trained(params, model.trainable)),
            flax_mutables={
                name: value for name, value in frozen.items() if not name.endswith("_axes")
            },
        )


class TrainStateInitializer:
    """Makes the state that a run starts from.

    Attributes:
      state_shape: the state's shapes, types and places on the devices.
      initial_checkpoint_path: where parameters come from; None for random ones.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        input_shapes: Mapping[str, tuple[int, ...]],
        partitioner: Partitioner,
        initial_checkpoint_path: str | None = None,
        item_vectors: ItemVectors | None = None,
        prompt_init: str = prompt_init_lib.RANDOM,
    ) -> None:
        """Works out the shapes; nothing is made yet.

        Args:
          model: the model.
          input_shapes: the shape of every feature of a batch.
          partitioner: lays the state out on the devices.
          initial_checkpoint_path: see `checkpoints.start_from_checkpoint`; None for random
            parameters.
          item_vectors: returns the matrix of a channel of the item table, by its name; None for a
            network without one, or where only `state_shape` is asked for.
          prompt_init: what task prompts start as, see `prompt_init`.

        Raises:
          InputError: if there is no such `prompt_init`.
        """
        prompt_init_lib.check(prompt_init)
        self._prompt_init = prompt_init
        self._vocabulary = model.input_vocabulary
        self.initial_checkpoint_path = initial_checkpoint_path
        self._item_vectors = item_vectors

        def make(rng: jax.Array) -> TrainState:
            state = TrainState.create(model, model.get_initial_variables(rng, input_shapes))
            if initial_checkpoint_path:
                return state.replace(params=checkpoints.blank_language_model(state.params))
            return state

        variables = variable_shapes(model, input_shapes)
        placed = partitioner.lay_out(variables)
        params = placed.pop("params")
        if model.module.config.scan_layers:
            params = stacks.stack(params, partitioner.stack)
        shapes = jax.eval_shape(functools.partial(TrainState.create, model), variables)
        self.state_shape = TrainState(
            step=partitioner.place(shapes.step),
            params=params,
            opt_state=partitioner.lay_out_like(
                shapes.opt_state, parameters.trained(params, model.trainable)
            ),
            flax_mutables=placed,
        )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state_shape)
        self._make = partitioner.jit(make, out_shardings=shardings)

    def from_scratch(self, rng: jax.Array) -> TrainState:
        """Returns a fresh state, on the devices, with the initial checkpoint's parameters.

        Raises:
          InputError: if the checkpoint is of another model, or task prompts cannot start so.
          ValueError: if the network has an item table, and nobody has handed in its vectors.
        """
        if item_table.ITEM_TABLE in self.state_shape.flax_mutables and self._item_vectors is None:
            raise ValueError("the network has an item table: hand in its vectors as item_vectors")
        state = self._make(rng)
        if self.initial_checkpoint_path:
            params = checkpoints.start_from_checkpoint(state.params, self.initial_checkpoint_path)
            state = state.replace(params=params)
        params = prompt_init_lib.start(
            state.params, self._prompt_init, self._vocabulary, rng, self.initial_checkpoint_path
        )
        state = state.replace(params=params)
        if self._item_vectors:
            mutables = item_table.fill(state.flax_mutables, self._item_vectors)
            state = state.replace(flax_mutables=mutables)
        return state


def variable_shapes(
    model: EncoderDecoderModel, input_shapes: Mapping[str, tuple[int, ...]]
) -> PyTree:
    """Returns the shapes of what a model's `init` returns, as nested dictionaries.

    Args:
      model: the model.
      input_shapes: the shape of every feature of a batch.
    """
    shapes = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), input_shapes))
    return flax.core.unfreeze(shapes)


def num_microbatches(trainer_cls: Callable[..., "Trainer"]) -> int:
    """Returns into how many parts a constructor from `engine.trainer` cuts batches; 1 for whole."""
    return getattr(trainer_cls, "keywords", {}).get("num_microbatches") or 1


class Trainer:
    """Takes training steps.

    Attributes:
      train_step: given a state, which is overwritten in place and must not be used again, and a
        batch on the devices, returns the next state and the step's metrics: the loss and accuracy
        of the parameters before it, the gradient's norm and the learning rate.
      eval_step: given a state and a batch on the devices, returns the metrics without dropout.
      learning_rate_fn: the learning rate after so many steps.
      num_microbatches: parts of a batch whose gradients are added up before the one update, so
        that a batch may be larger than what fits; `None` for the whole batch at once.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        rng: jax.Array,
        partitioner: Partitioner,
        state_shape: TrainState,
        learning_rate_fn: LearningRateFn,
        num_microbatches: int | None = None,
    ) -> None:
        """Prepares to compile.

        Args:
          model: the model.
          rng: random key of dropout; each step folds its number in.
          partitioner: how arrays lie on the devices.
          state_shape: see `TrainStateInitializer`.
          learning_rate_fn: the learning rate after so many steps.
          num_microbatches: see above; it must divide the batch that each group of devices has.
        """
        self.learning_rate_fn = learning_rate_fn
        self.num_microbatches = num_microbatches
        self._model = model
        # As NumPy's, that the compiled step holds it wherever the devices are.
        self._key_data = np.asarray(jax.random.key_data(rng))
        self._key_impl = jax.random.key_impl(rng)
        everywhere = partitioner.replicated
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state_shape)
        self._shardings_of_trained = jax.tree.map(
            lambda leaf: leaf.sharding, parameters.trained(state_shape.params, model.trainable)
        )
        # The state is overwritten in place.
        self.train_step = partitioner.jit(
            self._train_step, donate_argnums=0, out_shardings=(shardings, everywhere)
        )
        self.eval_step = partitioner.jit(self._eval_step, out_shardings=everywhere)

    def _train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.wrap_key_data(self._key_data, impl=self._key_impl)
        dropout_rng = jax.random.fold_in(rng, state.step)
        # What is frozen has no gradient, and no update without one either, such as weight decay.
        trained, frozen = parameters.split(state.params, self._model.trainable)
        gradients, metrics = self._gradients(trained, frozen, state, batch, dropout_rng)
        # They come to lie as their parameters do before they are added up over layers.
        gradients = jax.lax.with_sharding_constraint(gradients, self._shardings_of_trained)
        metrics["gradient_norm"] = _average(optax.global_norm(gradients))
        updates, opt_state = self._model.optimizer_def.update(gradients, state.opt_state, trained)
        learning_rate = self.learning_rate_fn(state.step)
        metrics["learning_rate"] = _average(learning_rate)
        trained = jax.tree.map(lambda x, update: x - learning_rate * update, trained, updates)
        params = parameters.merge(trained, frozen)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    def _gradients(
        self,
        trained: PyTree,
        frozen: PyTree,
        state: TrainState,
        batch: Batch,
        dropout_rng: jax.Array,
    ) -> tuple[PyTree, Metrics]:
        mutables = state.flax_mutables or None

        @functools.partial(jax.grad, has_aux=True)
        def gradients_and_metrics(trained: PyTree, batch: Batch, rng: jax.Array) -> tuple[Any, Any]:
            params = parameters.merge(trained, frozen)
            loss, aux = self._model.loss_fn(params, batch, rng, mutables)
            return loss, (aux if mutables is None else aux[0])

        parts = self.num_microbatches or 1
        if parts == 1:
            return gradients_and_metrics(trained, batch, dropout_rng)

        # Every part takes each `parts`-th example, so that it lies on all devices as the batch did.
        microbatches = {
            name: jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)
            for name, array in batch.items()
        }

        def add_part(total: PyTree, part: tuple[Batch, jax.Array]) -> tuple[PyTree, Metrics]:
            gradients, metrics = gradients_and_metrics(trained, *part)
            return jax.tree.map(jnp.add, total, gradients), metrics

        zeros = jax.tree.map(jnp.zeros_like, trained)
        rngs = jax.random.split(dropout_rng, parts)
        gradients, metrics = jax.lax.scan(add_part, zeros, (microbatches, rngs))
        # The scan stacked the parts' metrics; totals and counts simply add up.
        return gradients, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    def _eval_step(self, state: TrainState, batch: Batch) -> Metrics:
        return self._model.eval_fn(state.params, batch, state.flax_mutables or None)[1]


def _average(value: Float[Array, ""]) -> Any:
    return clu_metrics.Average(total=value, count=jnp.ones(()))


def summarize(steps: list[Metrics]) -> dict[str, float]:
    """Merges the metrics of several steps into one number each."""
    merged = functools.reduce(
        lambda total, metrics: {name: total[name].merge(metrics[name]) for name in total},
        jax.device_get(steps),
    )
    return {name: float(metric.compute()) for name, metric in merged.items()}
