"""Training, evaluation by generation and checkpoints in the built-in engine.

    python -m uem_t5x.train --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...

`train` takes T5X's argument names; what T5X's script does on pods, this one does on the devices
at hand, with the same recipe.
"""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))  # the current folder comes last: a recipe may import of it
    from uem_t5x.commands import train as command

    sys.exit(command.main(sys.argv[1:]))  # imports this module, once there is no mistake

import contextlib
import dataclasses
import functools
import os
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gin
import jax
import seqio
from clu import metric_writers

from uem_t5x import engine
from uem_t5x.base import file_handles
from uem_t5x.base.errors import InputError, Preempted, check_at_least
from uem_t5x.base.progress import TrainingProgress
from uem_t5x.checkpoints import folders
from uem_t5x.inputs import batches, data_sources, vocabularies
from uem_t5x.inputs.batches import DatasetConfig
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network import parameters
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.runs import recipes
from uem_t5x.training import optimizers, training_log
from uem_t5x.training import trainer as trainer_lib
from uem_t5x.training import validation as validation_lib
from uem_t5x.training.checkpoint_manager import (
    CheckpointConfig,
    CheckpointManager,
    saved_num_shards,
)
from uem_t5x.training.divergence import DivergenceWatch
from uem_t5x.training.partitioning import Partitioner
from uem_t5x.training.preemption import PreemptionNotice
from uem_t5x.training.trainer import Trainer, TrainState, TrainStateInitializer
from uem_t5x.training.training_log import TrainingLog
from uem_t5x.training.validation import Validation


def train(
    *,
    model: EncoderDecoderModel,
    train_dataset_cfg: DatasetConfig,
    train_eval_dataset_cfg: DatasetConfig | None,
    infer_eval_dataset_cfg: DatasetConfig | None,
    checkpoint_cfg: CheckpointConfig,
    partitioner: Partitioner,
    trainer_cls: Callable[..., Trainer],
    train_state_initializer_cls: Callable[..., TrainStateInitializer],
    model_dir: str,
    total_steps: int,
    eval_steps: int | None,
    eval_period: int,
    stats_period: int,
    random_seed: int,
    use_hardware_rng: bool = False,
    summarize_config_fn: Callable[[str, metric_writers.MetricWriter, int], None],
    inference_evaluator_cls: Callable[..., seqio.Evaluator] = seqio.Evaluator,
) -> tuple[int, TrainState]:
    """Trains a model, or goes on with the run that `model_dir` holds.

    Args:
      model: the model.
      train_dataset_cfg: what to train on.
      train_eval_dataset_cfg: what to measure the loss on, or None.
      infer_eval_dataset_cfg: what to answer and score with the task's metrics, or None.
      checkpoint_cfg: when to save, what to keep.
      partitioner: how arrays lie on the devices.
      trainer_cls: makes the trainer.
      train_state_initializer_cls: makes what makes the first state.
      model_dir: where checkpoints, metrics and the recipe go.
      total_steps: the step to stop after.
      eval_steps: batches for each measurement of the loss; None for all there are.
      eval_period: steps between evaluations; the last step is evaluated too.
      stats_period: steps between training metrics, which are means over these; 0 for as many as
        between evaluations, as in T5X, or else between checkpoints.
      random_seed: of parameters and dropout.
      use_hardware_rng: draw them with XLA's generator, which is faster to compile and run on a TPU;
        its numbers depend on the layout and the number of devices.
      summarize_config_fn: writes down the recipe.
      inference_evaluator_cls: makes the evaluator.

    Returns:
      The last step and its state.

    Raises:
      InputError: if `model_dir` holds checkpoints of another model, recipe or data, or none but
        damaged ones, or the devices cannot share a batch evenly.
      DivergedError: if the loss or its gradient is no longer finite; its last checkpoint is still
        good.
      Preempted: if the process was told to stop (SIGTERM), after saving a checkpoint.
      OSError: if `model_dir` takes no more or is gone; its last checkpoint is still good.
    """
    partitioner.check_batch_size(
        train_dataset_cfg.batch_size, num_microbatches=trainer_lib.num_microbatches(trainer_cls)
    )
    for dataset_cfg in filter(None, (train_eval_dataset_cfg, infer_eval_dataset_cfg)):
        partitioner.check_batch_size(dataset_cfg.batch_size, "EVAL_BATCH_SIZE")
    check_at_least(1, none_for="all", EVAL_STEPS=eval_steps)
    periods = _Periods(total_steps, stats_period, eval_period, checkpoint_cfg.period)
    progress = TrainingProgress(total_steps, quiet=jax.process_index() > 0)
    with PreemptionNotice() as notice, progress, contextlib.ExitStack() as stack:
        progress.doing("reading the training data")
        folders.set_aside_damaged(model_dir)
        model_dir_lib.check_is_same_run(
            model_dir, data_sources.dataset_folder(), vocabularies.sentencepiece_model_file()
        )
        impl = "unsafe_rbg" if use_hardware_rng else None
        init_rng, trainer_rng = jax.random.split(jax.random.key(random_seed, impl=impl))
        train_dataset_cfg = _as_before(train_dataset_cfg, saved_num_shards(model_dir))
        iterator = batches.TrainIterator(
            train_dataset_cfg, model.FEATURE_CONVERTER_CLS, partitioner.data_share
        )
        progress.doing("laying out the model")
        initializer = train_state_initializer_cls(
            model=model, input_shapes=iterator.batch_shapes, partitioner=partitioner
        )
        trainer = trainer_cls(
            model=model,
            rng=trainer_rng,
            partitioner=partitioner,
            state_shape=initializer.state_shape,
        )
        manager = stack.enter_context(
            CheckpointManager(
                model_dir,
                checkpoint_cfg,
                optimizers.saved_as(model.optimizer_def),
                keeps_frozen=model.trainable is not parameters.everything,
            )
        )
        if (latest := manager.latest_step()) is not None:
            progress.doing(f"restoring checkpoint_{latest}")
            state = manager.restore(latest, initializer.state_shape, iterator)
        else:
            params = initializer.state_shape.params
            vocabularies.check_rows(
                model.input_vocabulary,
                params["token_embedder"]["embedding"].shape[0],
                initializer.initial_checkpoint_path,
            )
            sizes = [leaf.size for leaf in jax.tree.leaves(params)]
            progress.doing(f"initializing {sum(sizes):,} parameters")
            state = initializer.from_scratch(init_rng)
        step = int(state.step)

        train_writer = training_log.writer(model_dir, "train")
        # What is finished stays as it was recorded.
        if latest is None or step < total_steps or not model_dir_lib.is_recorded(model_dir):
            summarize_config_fn(model_dir, train_writer, step)
        watch = DivergenceWatch(iterator, manager.latest_step)
        progress.doing("reading the validation data", step)
        validation = Validation(
            model,
            partitioner,
            trainer,
            model_dir,
            train_eval_dataset_cfg,
            infer_eval_dataset_cfg,
            eval_steps,
            inference_evaluator_cls,
        )
        measure = functools.partial(notice.interrupts, validation.measure)
        is_stopped = notice.was_received
        if latest and periods.after(latest).evaluation and manager.lacks_metrics(latest):
            # It was told to stop while it measured this step.
            progress.doing("evaluating")
            scores = measure(state, step)
            is_stopped = scores is None
            if scores:
                progress.evaluated(step, validation_lib.headline(scores))
            manager.add_metrics(step, scores or {})
        if step < total_steps and not is_stopped:
            progress.doing("compiling the training step")
        log = TrainingLog(train_writer, progress)
        while step < total_steps and not is_stopped:
            batch = partitioner.shard_local_batch(next(iterator))
            state, metrics = trainer.train_step(state, batch)
            step += 1
            log.add(metrics)
            is_stopped = notice.is_due()
            due = periods.after(step, is_stopped)
            if not any(due):
                continue
            watch.check_steps(log.unreported, step)
            if due.report:
                log.report(step)
            with log.paused():
                if (due.evaluation or due.checkpoint) and not is_stopped:
                    progress.doing("evaluating")
                    watch.check_loss(validation.loss(state, batch), step)
                scores = measure(state, step) if due.evaluation else {}
            if scores is None:
                is_stopped = True
                due = periods.after(step, is_stopped)
            elif scores:
                progress.evaluated(step, validation_lib.headline(scores))
            if due.checkpoint:
                progress.doing("saving")
                model_dir_lib.check_is_there(model_dir)
                manager.save(state, iterator, scores, partitioner.is_first_of_its_share)
        train_writer.close()
    if is_stopped:
        raise Preempted(step)
    progress.tell(_farewell(model_dir, step, total_steps, was_done=step == latest))
    return step, state


def _farewell(model_dir: str, step: int, total_steps: int, was_done: bool) -> str:
    """Returns what a run says at its end: where the model lies, and what to do with it next."""
    saved = folders.find(model_dir)
    if not saved:
        return f"{step} steps taken, and no checkpoint saved: CHECKPOINT_PERIOD=0"
    done = f"checkpoint_{max(saved)} in {model_dir}"
    if was_done:
        done = f"nothing left to do: {model_dir} has taken {step} of {total_steps} steps"
    return f"{done}; next: uem-t5x evaluate --model-dir {shlex.quote(model_dir)}"


class _Due(NamedTuple):
    """What is done after a step."""

    report: bool
    evaluation: bool
    checkpoint: bool


@dataclasses.dataclass(frozen=True)
class _Periods:
    """How often what is done, and always after the last step.

    Attributes:
      total_steps: the last step.
      stats: steps between training metrics; 0 for as many as between evaluations, or checkpoints
        where there are none.
      evaluation: steps between evaluations; 0 for the last step alone.
      checkpoint: steps between checkpoints; 0 for none.

    Raises:
      InputError: if one is negative, or neither of the last two is a multiple of the other.
    """

    total_steps: int
    stats: int
    evaluation: int
    checkpoint: int

    def __post_init__(self) -> None:
        check_at_least(
            0,
            TRAIN_STEPS=self.total_steps,
            STATS_PERIOD=self.stats,
            EVAL_PERIOD=self.evaluation,
            CHECKPOINT_PERIOD=self.checkpoint,
        )
        shorter, longer = sorted((self.evaluation, self.checkpoint))
        if shorter and longer % shorter:
            raise InputError(
                f"EVAL_PERIOD={self.evaluation}, CHECKPOINT_PERIOD={self.checkpoint}: make one a "
                "multiple of the other, or scores belong to no checkpoint"
            )

    def after(self, step: int, is_stopped: bool = False) -> _Due:
        """Returns what is due after a step, which is the last one if the run `is_stopped`."""

        def is_due(period: int) -> bool:
            return step == self.total_steps or bool(period and step % period == 0)

        return _Due(
            report=is_stopped or is_due(self.stats or self.evaluation or self.checkpoint),
            evaluation=is_due(self.evaluation) and not is_stopped,
            checkpoint=bool(self.checkpoint) and (is_due(self.checkpoint) or is_stopped),
        )


def _as_before(config: DatasetConfig, num_shards: int | None) -> DatasetConfig:
    """Returns the configuration of a run that has read its data in `num_shards` parts so far."""
    if config.num_shards and num_shards and config.num_shards != num_shards:
        raise InputError(
            f"NUM_DATA_SHARDS={config.num_shards}: this MODEL_DIR's run reads its data in "
            f"{num_shards} parts; leave it out, or choose another MODEL_DIR"
        )
    return dataclasses.replace(config, num_shards=num_shards or config.num_shards)


def run_recipe(
    files: Sequence[str | os.PathLike[str]], bindings: Sequence[str]
) -> tuple[int, TrainState]:
    """Calls `train` with the arguments that recipes give it.

    Args:
      files: recipes, such as `gin/uem_tiny.gin`.
      bindings: further lines of gin, such as `TRAIN_STEPS = 10`.

    Returns:
      The last step and its state.

    Raises:
      InputError: a recipe that cannot be read, a macro that it does not have, a MODEL_DIR that
        another process trains in, or anything that `train` refuses.
    """
    file_handles.take()
    recipes.check_bindings(files, bindings)
    with engine.built_in(), recipes.main_module(sys.modules[__name__]):
        recipes.parse(files, bindings)
        arguments = gin.get_bindings(train, resolve_references=True)
        with model_dir_lib.lock(arguments["model_dir"]):
            return train(**arguments)
