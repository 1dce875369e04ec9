"""Training, evaluation by generation and checkpoints in the built-in engine.

    python -m uem_t5x.train --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...

`train` takes T5X's argument names; what T5X's script does on pods, this one does on the devices
at hand, with the same recipe.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from uem_t5x import train_flags

if __name__ == "__main__":
    train_flags.parse(sys.argv[1:])  # help need not wait for the seconds that these imports take

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin
import jax
import numpy as np
import seqio
from absl import logging
from clu import metric_writers
from etils import epath

from uem_t5x import (
    checkpoint_folders,
    datasets,
    file_handles,
    gin_utils,
    infer,
)
from uem_t5x import model_dir as model_dir_lib
from uem_t5x import trainer as trainer_lib
from uem_t5x.checkpoint_manager import (
    CheckpointConfig,
    CheckpointManager,
    saved_num_shards,
)
from uem_t5x.datasets import DatasetConfig
from uem_t5x.errors import DivergedError, InputError, Preempted, exit_code
from uem_t5x.models import EncoderDecoderModel, Metrics
from uem_t5x.partitioning import Partitioner
from uem_t5x.preemption import PreemptionNotice
from uem_t5x.progress import TrainingProgress
from uem_t5x.trainer import Trainer, TrainState, TrainStateInitializer, summarize
from uem_t5x.types import Batch

_SHOWN_USERS = 200


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
    eval_steps: int,
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
      eval_steps: batches for each measurement of the loss.
      eval_period: steps between evaluations; the last step is evaluated too.
      stats_period: steps between training metrics, which are means over these; 0 for as many as
        between evaluations, as in T5X.
      random_seed: of parameters and dropout.
      use_hardware_rng: draw them with XLA's generator, which is faster to compile and run on a TPU;
        its numbers depend on the layout and the number of devices.
      summarize_config_fn: writes down the recipe.
      inference_evaluator_cls: makes the evaluator.

    Returns:
      The last step and its state.

    Raises:
      InputError: if `model_dir` holds checkpoints of another model or of other movies, or none but
        damaged ones, or the devices cannot share a batch evenly.
      DivergedError: if the loss is no longer a finite number; its last checkpoint is still good.
      Preempted: if the process was told to stop (SIGTERM), after saving a checkpoint.
      OSError: if `model_dir` takes no more or is gone; its last checkpoint is still good.
    """
    partitioner.check_batch_size(
        train_dataset_cfg.batch_size, num_microbatches=trainer_lib.num_microbatches(trainer_cls)
    )
    for dataset_cfg in filter(None, (train_eval_dataset_cfg, infer_eval_dataset_cfg)):
        partitioner.check_batch_size(dataset_cfg.batch_size, "EVAL_BATCH_SIZE")
    periods = _Periods(total_steps, stats_period, eval_period, checkpoint_cfg.period)
    with PreemptionNotice() as notice, contextlib.ExitStack() as stack:
        checkpoint_folders.set_aside_damaged(model_dir)
        model_dir_lib.check_catalogue(model_dir)
        impl = "unsafe_rbg" if use_hardware_rng else None
        init_rng, trainer_rng = jax.random.split(jax.random.key(random_seed, impl=impl))
        train_dataset_cfg = _as_before(train_dataset_cfg, saved_num_shards(model_dir))
        iterator = datasets.TrainIterator(
            train_dataset_cfg, model.FEATURE_CONVERTER_CLS, partitioner.data_share
        )
        initializer = train_state_initializer_cls(
            model=model, input_shapes=iterator.batch_shapes, partitioner=partitioner
        )
        trainer = trainer_cls(
            model=model,
            rng=trainer_rng,
            partitioner=partitioner,
            state_shape=initializer.state_shape,
        )
        manager = stack.enter_context(CheckpointManager(model_dir, checkpoint_cfg))
        if (latest := manager.latest_step()) is not None:
            logging.info("Resuming from checkpoint_%d in %s", latest, model_dir)
            state = manager.restore(latest, initializer.state_shape, iterator)
        else:
            state = initializer.from_scratch(init_rng)
        step = int(state.step)

        train_writer = _writer(model_dir, "train")
        summarize_config_fn(model_dir, train_writer, step)
        evaluation = _Evaluation(
            model,
            partitioner,
            trainer,
            model_dir,
            train_eval_dataset_cfg,
            infer_eval_dataset_cfg,
            eval_steps,
            inference_evaluator_cls,
        )
        measure = functools.partial(notice.interrupts, evaluation.measure)
        pending: list[Metrics] = []
        stopwatch = time.monotonic()
        is_stopped = notice.was_received
        with TrainingProgress(total_steps, step, jax.process_index() > 0) as progress:
            if latest and periods.evaluates(latest) and manager.lacks_metrics(latest):
                # It was told to stop while it measured this step.
                scores = measure(state, step)
                is_stopped = scores is None
                manager.add_metrics(step, scores or {})
            while step < total_steps and not is_stopped:
                batch = partitioner.shard_local_batch(next(iterator))
                state, metrics = trainer.train_step(state, batch)
                pending.append(metrics)
                step += 1
                is_stopped = notice.is_due(step)
                reports = periods.reports(step) or is_stopped
                evaluates = periods.evaluates(step) and not is_stopped
                saves = periods.saves(step, is_stopped)
                if reports or evaluates or saves:
                    _check_finite(pending, step, iterator, manager.latest_step())
                if reports:
                    summary = summarize(pending)
                    seconds = time.monotonic() - stopwatch
                    summary["timing/steps_per_second"] = len(pending) / seconds
                    pending.clear()
                    train_writer.write_scalars(step, summary)
                    progress.report(step, _status(summary))
                    stopwatch = time.monotonic()
                began = time.monotonic()
                is_kept = (evaluates or saves) and not is_stopped
                if is_kept and not evaluation.is_finite(state, batch):
                    raise _diverged("loss", step, iterator, manager.latest_step())
                scores = measure(state, step) if evaluates else None
                stopwatch += time.monotonic() - began
                if evaluates:
                    is_stopped = scores is None
                    saves = periods.saves(step, is_stopped)
                if scores:
                    headline = " ".join(f"{k}={v:.3f}" for k, v in _headline(scores))
                    progress.report(step, headline)
                if saves:
                    model_dir_lib.check_is_there(model_dir)
                    manager.save(state, iterator, scores, partitioner.is_first_of_its_share)
        train_writer.close()
    if is_stopped:
        raise Preempted(step)
    return step, state


@dataclasses.dataclass(frozen=True)
class _Periods:
    """What is due after which step, and after the last one.

    Attributes:
      total_steps: the last step.
      stats: steps between training metrics; 0 for as many as between evaluations.
      evaluation: steps between evaluations; 0 for the last step alone.
      checkpoint: steps between checkpoints; 0 for none.

    Raises:
      InputError: if neither of the last two is a multiple of the other.
    """

    total_steps: int
    stats: int
    evaluation: int
    checkpoint: int

    def __post_init__(self) -> None:
        shorter, longer = sorted((self.evaluation, self.checkpoint))
        if shorter and longer % shorter:
            raise InputError(
                f"EVAL_PERIOD={self.evaluation}, CHECKPOINT_PERIOD={self.checkpoint}: make one a "
                "multiple of the other, or scores belong to no checkpoint"
            )

    def reports(self, step: int) -> bool:
        """Whether training metrics are written."""
        return self._is_due(self.stats or self.evaluation, step)

    def evaluates(self, step: int) -> bool:
        """Whether the model is measured."""
        return self._is_due(self.evaluation, step)

    def saves(self, step: int, is_stopped: bool) -> bool:
        """Whether a checkpoint is saved, where it is the last one if the run `is_stopped`."""
        return bool(self.checkpoint) and (is_stopped or self._is_due(self.checkpoint, step))

    def _is_due(self, period: int, step: int) -> bool:
        return step == self.total_steps or bool(period and step % period == 0)


def _check_finite(
    pending: Sequence[Metrics], step: int, iterator: datasets.TrainIterator, saved: int | None
) -> None:
    """Stops a run whose loss or gradient is not finite, before it is saved or measured.

    Args:
      pending: the metrics of the steps up to `step`; this waits for them.
      step: the last of them.
      iterator: the training data.
      saved: the step of the last checkpoint.

    Raises:
      DivergedError: if one is.
    """
    figures = [(metrics["loss"].total, metrics["gradient_norm"].total) for metrics in pending]
    for bad, (loss, norm) in enumerate(jax.device_get(figures), start=step - len(pending) + 1):
        if not np.isfinite(loss):
            raise _diverged("loss", bad, iterator, saved)
        if not np.isfinite(norm):
            raise _diverged("gradient", bad, iterator, saved)


def _diverged(
    what: str, step: int, iterator: datasets.TrainIterator, saved: int | None
) -> DivergedError:
    """Returns the error for a step whose loss or gradient, or the loss after it, is not finite."""
    last_good = "no checkpoint was saved" if saved is None else f"checkpoint_{saved} is still good"
    message = f"the {what} is not a finite number at step {step}"
    # Finding the users again reads the data from its beginning.
    logging.error("%s; %s. Looking for the users of its batch", message, last_good)
    users = iterator.user_ids(step - 1)
    shown = ", ".join(users[:_SHOWN_USERS]) + (", ..." if len(users) > _SHOWN_USERS else "")
    return DivergedError(
        f"{message}; its batch holds the users {shown}; {last_good}. Look at their histories, or "
        "lower LEARNING_RATE"
    )


def _as_before(config: DatasetConfig, num_shards: int | None) -> DatasetConfig:
    """Returns the configuration of a run that has read its data in `num_shards` parts so far."""
    if config.num_shards and num_shards and config.num_shards != num_shards:
        raise InputError(
            f"NUM_DATA_SHARDS={config.num_shards}: this MODEL_DIR's run reads its data in "
            f"{num_shards} parts; leave it out, or choose another MODEL_DIR"
        )
    return dataclasses.replace(config, num_shards=num_shards or config.num_shards)


class _Evaluation:
    """Measures a state.

    As in T5X, the loss on given answers is written below `training_eval`, and the task's metrics on
    generated ones below `inference_eval`. Every process reads the whole split, computes the part of
    each batch that is its devices', and receives all answers; the first one writes the results.
    Unlike T5X, which repeats a split until all batches are full, this counts every example once.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        partitioner: Partitioner,
        trainer: Trainer,
        model_dir: str,
        train_eval_cfg: DatasetConfig | None,
        infer_eval_cfg: DatasetConfig | None,
        eval_steps: int,
        evaluator_cls: Callable[..., seqio.Evaluator],
    ) -> None:
        self._partitioner = partitioner
        self._trainer = trainer
        is_first = jax.process_index() == 0
        if infer_eval_cfg and datasets.num_examples(infer_eval_cfg) == 0:
            logging.warning("No users in %s: no scores are measured", infer_eval_cfg.split)
            infer_eval_cfg = None
        self._batches: list[Batch] = []
        if train_eval_cfg:
            some = itertools.islice(
                datasets.eval_batches(train_eval_cfg, model.FEATURE_CONVERTER_CLS), eval_steps
            )
            # Rows that fill up the last batch carry no loss.
            self._batches = [datasets.pad_batch(batch, train_eval_cfg.batch_size) for batch in some]
            self._loss_writer = _writer(
                model_dir, f"training_eval/{train_eval_cfg.mixture_or_task_name}"
            )
        self._evaluator: seqio.Evaluator | None = None
        if infer_eval_cfg:
            self._evaluator = evaluator_cls(
                mixture_or_task_name=infer_eval_cfg.mixture_or_task_name,
                feature_converter=model.FEATURE_CONVERTER_CLS(pack=False),
                eval_split=infer_eval_cfg.split,
                use_cached=infer_eval_cfg.use_cached,
                seed=infer_eval_cfg.seed,
                sequence_length=dict(infer_eval_cfg.task_feature_lengths),
                log_dir=str(epath.Path(model_dir) / "inference_eval") if is_first else None,
                **({} if is_first else {"logger_cls": ()}),
            )
            self._predictor = infer.Predictor(model, partitioner, infer_eval_cfg.batch_size)

    def is_finite(self, state: TrainState, training_batch: Batch) -> bool:
        """Tells whether the parameters still give a finite loss.

        A step's own loss is that of the parameters before it.

        Args:
          state: the state after a step.
          training_batch: used where there are no evaluation batches; lies on the devices already.
        """
        batch = training_batch
        if self._batches:  # their shape is compiled anyway
            batch = self._partitioner.shard_batch(self._batches[0])
        loss = self._trainer.eval_step(state, batch)["loss"].total
        return bool(np.isfinite(jax.device_get(loss)))

    def measure(self, state: TrainState, step: int) -> dict[str, float]:
        """Returns the scores of the state after a step, by name, and writes them down."""
        scores: dict[str, float] = {}
        if self._batches:
            sharded = map(self._partitioner.shard_batch, self._batches)
            losses = summarize([self._trainer.eval_step(state, batch) for batch in sharded])
            self._loss_writer.write_scalars(step, losses)
            self._loss_writer.flush()
            scores |= {f"eval_{name}": value for name, value in losses.items()}
        if self._evaluator:
            future, _ = self._evaluator.evaluate(
                compute_metrics=True,
                step=step,
                predict_fn=functools.partial(
                    self._predictor.predict_dataset, state.params, state.flax_mutables
                ),
            )
            for metrics in (future.result() or {}).values():
                scores |= {name: float(value) for name, value in metrics.items()}
        return scores


def _writer(model_dir: str, collection: str) -> metric_writers.MetricWriter:
    # Not asynchronous: a disk that takes no more is told where it is written to.
    return metric_writers.create_default_writer(
        model_dir,
        just_logging=jax.process_index() > 0,
        asynchronous=False,
        collection=collection,
    )


def _status(summary: Mapping[str, float]) -> str:
    return (
        f"loss={summary['loss']:.3f} accuracy={summary['accuracy']:.3f} "
        f"{summary['timing/steps_per_second']:.1f} steps/s"
    )


def _headline(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    names = ("eval_loss", "f1", "liked_f1", "disliked_f1")
    return [(name, scores[name]) for name in names if name in scores]


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
    gin_utils.check_bindings(files, bindings)
    with gin_utils.main_module(sys.modules[__name__]):
        gin_utils.parse(files, bindings)
        arguments = gin.get_bindings(train, resolve_references=True)
        with model_dir_lib.lock(arguments["model_dir"]):
            return train(**arguments)


def _join_processes(arguments: argparse.Namespace) -> None:
    """Joins the other processes of a run, before JAX looks at the devices.

    Raises:
      InputError: if there is nobody to join.
    """
    addressed = arguments.coordinator_address is not None
    if not addressed and not arguments.multiprocess:
        return
    try:
        jax.distributed.initialize(
            arguments.coordinator_address, arguments.process_count, arguments.process_index
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot join the other processes: {error}; give --coordinator_address=HOST:PORT "
            "--process_count=N --process_index=I"
        ) from error


def main(argv: Sequence[str]) -> int:
    """Runs a recipe.

    Returns:
      The exit code: 0, 1 for a loss that is no number or a disk that takes no more, 2 for input
      that is refused, 75 for a run that was told to stop (SIGTERM) and goes on when it is repeated,
      130 for Ctrl-C.
    """
    files, bindings, arguments = train_flags.parse(argv)

    def run() -> int:
        _join_processes(arguments)
        seqio.add_global_cache_dirs(arguments.seqio_additional_cache_dirs)
        run_recipe(files, bindings)
        return 0

    return exit_code("uem_t5x.train", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
