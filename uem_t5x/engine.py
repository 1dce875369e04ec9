"""What differs between the two engines, so that one recipe serves both.

T5X's `train` wants its optimizer, partitioner, trainer, datasets and checkpoints in T5X's own
types. Each function here builds one of them for whoever asks: inside `with built_in():` in the
types of the built-in engine, which enters it before it reads a recipe's values; otherwise in T5X's,
whose scripts know nothing of this module. T5X is imported for these alone. Argument names are
T5X's.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.core
import gin
import jax
from absl import logging

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.base.overrides import Override
from uem_t5x.checkpoints import start_from_checkpoint
from uem_t5x.inputs import batches, data_sources, vocabularies
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network import item_table, layouts, lora, parameters
from uem_t5x.network.parameters import Trainable
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.runs import recipes
from uem_t5x.training import (
    checkpoint_manager,
    learning_rates,
    optimizers,
    partitioning,
)
from uem_t5x.training import prompt_init as prompt_init_lib
from uem_t5x.training import trainer as trainer_lib

_is_built_in: Override[bool] = Override("built-in engine")


@contextlib.contextmanager
def built_in() -> Iterator[None]:
    """Has the functions of this module build for the built-in engine, in this thread."""
    with _is_built_in(True):
        yield


def adafactor(scan_layers: bool | None = None) -> Any:
    """Returns Adafactor with the settings of T5X's fine-tuning; see `optimizers.adafactor`.

    Args:
        scan_layers: says nothing any more; the recipes of older runs bind it.
    """
    del scan_layers
    if _is_built_in.value:
        return optimizers.adafactor()
    from t5x import adafactor as t5x_adafactor

    # No rules by logical axes: T5X ignores them for matrices.
    scaled = t5x_adafactor.HParamMap(((f".*/{lora.B}", False), (".*", True)))
    return t5x_adafactor.Adafactor(
        decay_rate=0.8, step_offset=0, multiply_by_parameter_scale=scaled
    )


def partitioner(layout: str = "data") -> Any:
    """Returns what lays arrays out on the devices.

    Args:
      layout: see `layouts.Layout.parse`.

    Raises:
      InputError: if there is no such layout, or the devices cannot share the model so.
    """
    parsed = layouts.Layout.parse(layout)
    if _is_built_in.value:
        return partitioning.Partitioner(parsed)
    from t5x import partitioning as t5x_partitioning

    class Partitioner(t5x_partitioning.PjitPartitioner):
        layout = parsed

    parsed.check_devices(jax.device_count())
    try:
        t5x_partitioning.default_mesh(parsed.model)
        sharing = {"num_partitions": parsed.model}
    except (ValueError, AssertionError):  # T5X knows no TPU after v4, and not all slices of v4
        bounds = t5x_partitioning.bounds_from_last_device(jax.devices()[-1])
        sharing = {"model_parallel_submesh": compact_block(parsed, bounds)}
    return Partitioner(**sharing, logical_axis_rules=parsed.logical_axis_rules)


def compact_block(layout: layouts.Layout, bounds: Sequence[int]) -> tuple[int, ...]:
    """Returns how many devices along each axis of a slice share one copy of the model.

    Args:
      layout: how many they are.
      bounds: of the slice: x, y, z and cores.

    Raises:
      InputError: if no block of so many divides the slice.
    """
    factors = ([n for n in range(1, bound + 1) if bound % n == 0] for bound in bounds)
    blocks = [block for block in itertools.product(*factors) if math.prod(block) == layout.model]
    if not blocks:
        raise InputError(
            f"LAYOUT='{layout}': no block of {layout.model} devices divides a slice of "
            f"{'x'.join(map(str, bounds))}; use a smaller model=N"
        )
    # Hosts are flat in z: T5X gives those that share a model the data of one, and forgets the
    # position of all but the first.
    return min(blocks, key=lambda block: (max(block), block[2]))


def trainer(
    learning_rate_fn: learning_rates.LearningRateFn, num_microbatches: int | None = None
) -> Any:
    """Returns the constructor of the trainer.

    Args:
        learning_rate_fn: the learning rate after so many steps.
        num_microbatches: see `trainer.Trainer`.

    Raises:
        InputError: if there are no microbatches.
    """
    check_at_least(1, none_for="whole batches", NUM_MICROBATCHES=num_microbatches)
    if _is_built_in.value:
        trainer_cls = trainer_lib.Trainer
    else:
        from t5x import trainer as t5x_trainer

        trainer_cls = t5x_trainer.Trainer
    return functools.partial(
        trainer_cls, learning_rate_fn=learning_rate_fn, num_microbatches=num_microbatches
    )


def dataset_config(
    mixture_or_task_name: str,
    task_feature_lengths: Mapping[str, int],
    split: str,
    batch_size: int,
    shuffle: bool = False,
    seed: int | None = None,
    use_cached: bool = False,
    num_shards: int | None = None,
) -> Any:
    """Returns what to read; see `batches.DatasetConfig`. T5X reads one part a process.

    Raises:
      InputError: on T5X, as in `batches.task_of`; the other engine finds it out when it reads.
    """
    settings = {
        "mixture_or_task_name": mixture_or_task_name,
        "task_feature_lengths": task_feature_lengths,
        "split": split,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "use_cached": use_cached,
    }
    config = batches.DatasetConfig(**settings, num_shards=num_shards)
    if _is_built_in.value:
        return config
    from t5x import utils

    batches.task_of(config)  # T5X would read a cache of whatever data
    return utils.DatasetConfig(**settings, pack=False)


def checkpoint_config(period: int, keep: int | None = 1, keep_best: int = 1) -> Any:
    """Returns when to save and what to keep; see `checkpoint_manager.CheckpointConfig`.

    T5X keeps the most recent checkpoints only. Where a run starts is `train_state_initializer`'s.
    """
    if _is_built_in.value:
        return checkpoint_manager.CheckpointConfig(period=period, keep=keep, keep_best=keep_best)
    from t5x import utils

    return utils.CheckpointConfig(
        save=utils.SaveCheckpointConfig(period=period, keep=keep, save_dataset=True)
    )


def train_state_initializer(
    initial_checkpoint_path: str | None = None, prompt_init: str = prompt_init_lib.RANDOM
) -> Any:
    """Returns the constructor of what makes a run's first state.

    A run that starts from a checkpoint starts at step 0, with a fresh optimizer, on both engines.

    Args:
      initial_checkpoint_path: see `checkpoints.start_from_checkpoint`.
      prompt_init: what task prompts start as, see `training.prompt_init`.
    """
    if _is_built_in.value:
        return functools.partial(
            trainer_lib.TrainStateInitializer,
            initial_checkpoint_path=initial_checkpoint_path,
            item_vectors=data_sources.item_vectors,
            prompt_init=prompt_init,
        )
    from t5x import utils

    class TrainStateInitializer(utils.TrainStateInitializer):
        def __init__(
            self, *, optimizer_def: Any, init_fn: Any, partitioner: Any, **arguments: Any
        ) -> None:
            if layout := getattr(partitioner, "layout", None):
                init = functools.partial(init_fn, input_shapes=arguments["input_shapes"])
                variables = jax.eval_shape(init, jax.random.PRNGKey(0))
                layout.check_variables(variables, jax.device_count())
            model = init_fn.__self__
            super().__init__(
                optimizer_def=_of_trained(optimizer_def, model.trainable),
                init_fn=init_fn,
                partitioner=partitioner,
                **arguments,
            )
            self._vocabulary = model.input_vocabulary

        def from_scratch(self, init_rng: jax.Array) -> Any:
            state = super().from_scratch(init_rng)
            params = flax.core.unfreeze(state.params)
            rows = params["token_embedder"]["embedding"].shape[0]
            vocabularies.check_rows(self._vocabulary, rows, initial_checkpoint_path)
            if initial_checkpoint_path:
                params = start_from_checkpoint(params, initial_checkpoint_path)
            params = prompt_init_lib.start(
                params, prompt_init, self._vocabulary, init_rng, initial_checkpoint_path
            )
            mutables = item_table.fill(
                flax.core.unfreeze(state.flax_mutables), data_sources.item_vectors
            )
            state = state.replace_params(flax.core.freeze(params))
            return state.replace_flax_mutables(flax.core.freeze(mutables))

    return TrainStateInitializer


def _of_trained(optimizer_def: Any, trainable: Trainable) -> Any:
    """Returns one of T5X's optimizers for the parameters alone that are trained.

    (T5X's `MultiOptimizer` saves None for the others, from which T5X cannot go on.)
    """
    if optimizer_def is None or trainable is parameters.everything:
        return optimizer_def
    from t5x import optimizers as t5x_optimizers

    def trained_of(tree: Any) -> Any:
        return flax.core.freeze(parameters.trained(flax.core.unfreeze(tree), trainable))

    class OfTrained(t5x_optimizers.OptimizerDef):
        def init_state(self, params: Any) -> Any:
            return optimizer_def.init_state(trained_of(params))

        def apply_gradient(self, hyper_params: Any, params: Any, state: Any, grads: Any) -> Any:
            updated, state = optimizer_def.apply_gradient(
                hyper_params, trained_of(params), state, trained_of(grads)
            )
            updated, params = map(flax.core.unfreeze, (updated, params))
            return flax.core.freeze(parameters.merge(updated, params)), state

        def derive_logical_axes(self, optimizer: Any, param_logical_axes: Any) -> Any:
            of_trained = optimizer.replace(
                optimizer_def=optimizer_def, target=trained_of(optimizer.target)
            )
            axes = optimizer_def.derive_logical_axes(of_trained, trained_of(param_logical_axes))
            return optimizer.replace(state=axes.state, target=param_logical_axes)

    return OfTrained(optimizer_def.hyper_params)


def summarize_config(model_dir: str, summary_writer: Any, step: int) -> None:
    """Writes the recipe and the catalogue below MODEL_DIR, and the recipe to TensorBoard."""
    if jax.process_index() == 0:
        for name, meant in recipes.unused_macros().items():
            logging.warning("Nothing refers to the macro %s; there is %s", name, meant)
        recipe = model_dir_lib.write(
            model_dir, data_sources.dataset_folder(), vocabularies.sentencepiece_model_file()
        )
        summary_writer.write_texts(step, {"config": gin.markdown(recipe)})


def answering(
    model: EncoderDecoderModel, dataset_cfg: batches.DatasetConfig
) -> tuple[EncoderDecoderModel, batches.DatasetConfig]:
    """Returns what answers, as the recipe that `runs.answering` records binds it.

    Args:
      model: the run's.
      dataset_cfg: the task that it is asked by, and its lengths.
    """
    return model, dataset_cfg
