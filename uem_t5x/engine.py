"""What differs between the two engines, so that one recipe serves both.

T5X's `train` wants its optimizer, partitioner, trainer, datasets and checkpoints in T5X's own
types. Each function here builds one of them in the types of the engine that is running, and
imports T5X only when that is T5X. Argument names are T5X's.
"""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gin
import optax

from uem_t5x import checkpoint_manager, datasets, partitioning
from uem_t5x import trainer as trainer_lib


def running_on_t5x() -> bool:
    """Tells whether T5X's own scripts are running; they import it before they parse a recipe."""
    return "t5x.partitioning" in sys.modules


def adafactor() -> Any:
    """Returns Adafactor as T5X fine-tunes with it, without its learning rate.

    Factored second moments from 128 columns on, decay 1 - t^-0.8, updates clipped to a root mean
    square of 1 and scaled by that of their parameter, no momentum (Shazeer and Stern 2018,
    algorithm 4). The trainer applies the learning rate.
    """
    if running_on_t5x():
        from t5x import adafactor as t5x_adafactor

        rules = {
            **t5x_adafactor.standard_logical_factor_rules(),
            "prompt": t5x_adafactor.FactorDim.NONE,
        }
        return t5x_adafactor.Adafactor(decay_rate=0.8, step_offset=0, logical_factor_rules=rules)
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    )


def partitioner(num_partitions: int = 1) -> Any:
    """Returns what lays arrays out on the devices.

    Args:
      num_partitions: devices that share one copy of the model (T5X only).
    """
    if running_on_t5x():
        from t5x import partitioning as t5x_partitioning

        rules = [
            *t5x_partitioning.standard_logical_axis_rules(),
            ("prompt", None),
            ("items", "model"),
            ("item_embed", None),
        ]
        return t5x_partitioning.PjitPartitioner(
            num_partitions=num_partitions, logical_axis_rules=rules
        )
    return partitioning.DataParallelPartitioner()


def trainer(learning_rate: float, num_microbatches: int | None = None) -> Any:
    """Returns the constructor of the trainer, with a constant learning rate."""
    if running_on_t5x():
        from t5x import trainer as t5x_trainer
        from t5x import utils

        return functools.partial(
            t5x_trainer.Trainer,
            num_microbatches=num_microbatches,
            learning_rate_fn=utils.create_learning_rate_scheduler(
                factors="constant", base_learning_rate=learning_rate
            ),
        )
    return functools.partial(
        trainer_lib.Trainer, learning_rate=learning_rate, num_microbatches=num_microbatches
    )


def dataset_config(
    mixture_or_task_name: str,
    task_feature_lengths: Mapping[str, int],
    split: str,
    batch_size: int,
    shuffle: bool = False,
    seed: int | None = None,
    use_cached: bool = False,
) -> Any:
    """Returns what to read; see `datasets.DatasetConfig`."""
    if running_on_t5x():
        from t5x import utils

        config_cls = utils.DatasetConfig
    else:
        config_cls = datasets.DatasetConfig
    return config_cls(
        mixture_or_task_name=mixture_or_task_name,
        task_feature_lengths=task_feature_lengths,
        split=split,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        use_cached=use_cached,
        pack=False,
    )


def checkpoint_config(
    period: int,
    keep: int = 1,
    keep_best: int = 1,
    initial_checkpoint_path: str | None = None,
) -> Any:
    """Returns when to save and where to start; see `checkpoint_manager.CheckpointConfig`."""
    if running_on_t5x():
        from t5x import utils

        restore = initial_checkpoint_path and utils.RestoreCheckpointConfig(
            path=initial_checkpoint_path, mode="specific", strict=False, fallback_to_scratch=True
        )
        return utils.CheckpointConfig(
            restore=restore or None,
            save=utils.SaveCheckpointConfig(period=period, keep=keep, save_dataset=True),
        )
    return checkpoint_manager.CheckpointConfig(
        period=period,
        keep=keep,
        keep_best=keep_best,
        initial_checkpoint_path=initial_checkpoint_path,
    )


def summarize_config(model_dir: str, summary_writer: Any, step: int) -> None:
    """Writes the recipe as it was run to `MODEL_DIR/config.gin` and to TensorBoard."""
    text = gin.config_str()
    summary_writer.write_texts(step, {"config": gin.markdown(text)})
    Path(model_dir, "config.gin").write_text(text, encoding="utf-8")
