"""What differs between the two engines, so that one recipe serves both.

T5X's `train` wants its optimizer, partitioner, trainer, datasets and checkpoints in T5X's own
types. Each function here builds one of them in the types of the engine that is running, and
imports T5X only when that is T5X. Argument names are T5X's.
"""

import functools
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import flax.core
import gin
import jax
import jax.numpy as jnp
import optax
from absl import logging

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.inputs import batches
from uem_t5x.network import layouts, stacks
from uem_t5x.network.types import Array
from uem_t5x.network.user_embedding import blank_item_tables, load_item_table
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.runs import recipes
from uem_t5x.training import checkpoint_manager, learning_rates, partitioning
from uem_t5x.training import trainer as trainer_lib


def running_on_t5x() -> bool:
    """Tells whether the program that runs is one of T5X's scripts, such as `t5x/train.py`."""
    # Each of them imports `t5x.partitioning` by its last name; `t5x/main.py`, which runs any of
    # them, takes over its function. T5X being importable, or imported by a test, says nothing.
    main = vars(sys.modules["__main__"])
    names = [getattr(main.get("partitioning"), "__name__", "")]
    functions = map(main.get, ("train", "evaluate", "infer", "precompile"))
    names += [getattr(function, "__module__", "") for function in functions]
    return any(name and name.startswith("t5x.") for name in names)


def adafactor(scan_layers: bool | None = None) -> Any:
    """Returns Adafactor with the settings of T5X's fine-tuning, without its learning rate.

    Factored second moments from 128 columns on, decay 1 - t^-0.8, updates clipped to a root mean
    square of 1 and scaled by that of their parameter, no momentum (Shazeer and Stern 2018,
    algorithm 4), for each layer by itself. The trainer applies the learning rate.

    Args:
        scan_layers: says nothing any more; the recipes of older runs bind it.
    """
    del scan_layers
    if running_on_t5x():
        from t5x import adafactor as t5x_adafactor

        # No rules by logical axes: T5X ignores them for matrices.
        return t5x_adafactor.Adafactor(decay_rate=0.8, step_offset=0)
    optimizer = optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        _scale_by_param_rms(),
    )
    return stacks.over_layers(optimizer)


def _scale_by_param_rms(least: float = 1e-3) -> optax.GradientTransformation:
    """Multiplies updates by the root mean square of their parameter.

    As `optax.scale_by_param_block_rms`, but for gradients through the scale, which nobody takes:
    they have it read every parameter once more, and write a copy.
    """

    def scale(update: Array, param: Array) -> jax.Array:
        return update * jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(param))), least)

    return optax.stateless_with_tree_map(scale)


def partitioner(layout: str = "data") -> Any:
    """Returns what lays arrays out on the devices.

    Args:
      layout: see `layouts.Layout.parse`.

    Raises:
      InputError: if there is no such layout, or the devices cannot share the model so.
    """
    parsed = layouts.Layout.parse(layout)
    if not running_on_t5x():
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
    if running_on_t5x():
        from t5x import trainer as t5x_trainer

        trainer_cls = t5x_trainer.Trainer
    else:
        trainer_cls = trainer_lib.Trainer
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
    """Returns what to read; see `datasets.DatasetConfig`. T5X reads one part a process.

    Raises:
      InputError: on T5X, as in `datasets.task_of`; the other engine finds it out when it reads.
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
    if not running_on_t5x():
        return config
    from t5x import utils

    batches.task_of(config)  # T5X would read a cache of whatever data
    return utils.DatasetConfig(**settings, pack=False)


def checkpoint_config(period: int, keep: int | None = 1, keep_best: int = 1) -> Any:
    """Returns when to save and what to keep; see `checkpoint_manager.CheckpointConfig`.

    T5X keeps the most recent checkpoints only. Where a run starts is `train_state_initializer`'s.
    """
    if running_on_t5x():
        from t5x import utils

        return utils.CheckpointConfig(
            save=utils.SaveCheckpointConfig(period=period, keep=keep, save_dataset=True)
        )
    return checkpoint_manager.CheckpointConfig(period=period, keep=keep, keep_best=keep_best)


def train_state_initializer(initial_checkpoint_path: str | None = None) -> Any:
    """Returns the constructor of what makes a run's first state.

    A run that starts from a checkpoint starts at step 0, with a fresh optimizer, on both engines.

    Args:
      initial_checkpoint_path: see `checkpoints.start_from_checkpoint`.
    """
    if not running_on_t5x():
        return functools.partial(
            trainer_lib.TrainStateInitializer, initial_checkpoint_path=initial_checkpoint_path
        )
    from t5x import utils

    class TrainStateInitializer(utils.TrainStateInitializer):
        @blank_item_tables(True)
        def __init__(self, *, init_fn: Any, partitioner: Any, **arguments: Any) -> None:
            if layout := getattr(partitioner, "layout", None):
                init = functools.partial(init_fn, input_shapes=arguments["input_shapes"])
                variables = jax.eval_shape(init, jax.random.PRNGKey(0))
                layout.check_variables(variables, jax.device_count())
            super().__init__(init_fn=init_fn, partitioner=partitioner, **arguments)
            self._vocabulary = init_fn.__self__.input_vocabulary

        def from_scratch(self, init_rng: jax.Array) -> Any:
            with blank_item_tables(True):
                state = super().from_scratch(init_rng)
            params = trainer_lib.starting_params(
                flax.core.unfreeze(state.params), self._vocabulary, initial_checkpoint_path
            )
            mutables = load_item_table(flax.core.unfreeze(state.flax_mutables))
            state = state.replace_params(flax.core.freeze(params))
            return state.replace_flax_mutables(flax.core.freeze(mutables))

    return TrainStateInitializer


def summarize_config(model_dir: str, summary_writer: Any, step: int) -> None:
    """Writes the recipe and the catalogue below MODEL_DIR, and the recipe to TensorBoard."""
    if jax.process_index() == 0:
        for name, meant in recipes.unused_macros().items():
            logging.warning("Nothing refers to the macro %s; there is %s", name, meant)
        recipe = model_dir_lib.write(model_dir)
        summary_writer.write_texts(step, {"config": gin.markdown(recipe)})
