"""Training, evaluation by generation and checkpoints in the built-in engine.

    python -m uem_t5x.train --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...

`train` takes T5X's argument names; what T5X's script does on pods, this one does on the devices
at hand, with the same recipe.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin
import jax
import numpy as np
import seqio
import tensorflow as tf
from absl import logging
from clu import metric_writers
from etils import epath

from uem_t5x import checkpoint_folders, datasets, gin_utils, infer, preemption
from uem_t5x import model_dir as model_dir_lib
from uem_t5x.checkpoint_manager import (
    CheckpointConfig,
    CheckpointManager,
    saved_num_shards,
)
from uem_t5x.datasets import DatasetConfig
from uem_t5x.errors import DivergedError, InputError
from uem_t5x.models import EncoderDecoderModel, Metrics
from uem_t5x.partitioning import Partitioner
from uem_t5x.preemption import Preempted, PreemptionNotice
from uem_t5x.progress import TrainingProgress
from uem_t5x.trainer import Trainer, TrainState, TrainStateInitializer, summarize

_SHOWN_USERS = 200
_FILE_HANDLES = 256  # several times what a run has been seen to hold


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
      checkpoint_cfg: when to save, what to keep, where to start.
      partitioner: how arrays lie on the devices.
      trainer_cls: makes the trainer.
      train_state_initializer_cls: makes what makes the first state.
      model_dir: where checkpoints, metrics and the recipe go.
      total_steps: the step to stop after.
      eval_steps: batches for each measurement of the loss.
      eval_period: steps between evaluations; the last step is evaluated too.
      stats_period: steps between training metrics; 0 for those of the last step alone.
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
      DivergedError: if the loss is no longer a finite number.
      Preempted: if the process was told to stop (SIGTERM), after saving a checkpoint.
      OSError: if `model_dir` takes no more or is gone; its last checkpoint is still good.
    """
    partitioner.check_batch_size(train_dataset_cfg.batch_size)
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
    manager = CheckpointManager(model_dir, checkpoint_cfg)
    if (latest := manager.latest_step()) is not None:
        logging.info("Resuming from checkpoint_%d in %s", latest, model_dir)
        state = manager.restore(latest, initializer.state_shape, iterator)
    else:
        state = initializer.from_scratch(init_rng)
    step = int(state.step)

    train_writer = _writer(model_dir, "train")
    summarize_config_fn(model_dir, train_writer, step)
    evaluate = _make_evaluation(
        model,
        partitioner,
        trainer,
        model_dir,
        train_eval_dataset_cfg,
        infer_eval_dataset_cfg,
        eval_steps,
        inference_evaluator_cls,
    )
    pending: list[Metrics] = []
    stopwatch = time.monotonic()
    is_preempted = False
    with (
        manager,
        TrainingProgress(total_steps, step, quiet=jax.process_index() > 0) as progress,
        PreemptionNotice() as notice,
    ):
        if latest == total_steps and not manager.is_measured(latest):
            # It was told to stop while it measured its last step.
            scores = notice.interrupts(functools.partial(evaluate, state, step))
            is_preempted = scores is None
            manager.add_metrics(step, scores or {})
        while step < total_steps and not is_preempted:
            batch = partitioner.shard_local_batch(next(iterator))
            state, metrics = trainer.train_step(state, batch)
            pending.append(metrics)
            step += 1
            is_preempted = notice.is_due(step)
            is_last = step == total_steps or is_preempted
            evaluates = is_last or (eval_period and step % eval_period == 0)
            saves = checkpoint_cfg.period and (is_last or step % checkpoint_cfg.period == 0)
            reports = is_last or (stats_period and step % stats_period == 0)
            if reports or evaluates or saves:
                _check_finite(pending, step, iterator, manager.latest_step())
            if reports:
                summary = summarize(pending)
                summary["timing/steps_per_second"] = len(pending) / (time.monotonic() - stopwatch)
                pending.clear()
                train_writer.write_scalars(step, summary)
                progress.report(step, _status(summary))
                stopwatch = time.monotonic()
            scores = None
            if evaluates and not is_preempted:
                began = time.monotonic()
                scores = notice.interrupts(functools.partial(evaluate, state, step))
                is_preempted = is_last and scores is None  # or else it is after the next step
                if scores:
                    progress.report(step, " ".join(f"{k}={v:.3f}" for k, v in _headline(scores)))
                stopwatch += time.monotonic() - began
            if saves:
                model_dir_lib.check_is_there(model_dir)
                manager.save(state, iterator, scores, partitioner.is_first_of_its_share)
    train_writer.close()
    if is_preempted:
        raise Preempted(step)
    return step, state


def _check_finite(
    pending: Sequence[Metrics], step: int, iterator: datasets.TrainIterator, saved: int | None
) -> None:
    """Stops a run whose loss is no number, before that is saved or measured.

    Args:
      pending: the metrics of the steps up to `step`; this waits for them.
      step: the last of them.
      iterator: the training data.
      saved: the step of the last checkpoint.

    Raises:
      DivergedError: if it is.
    """
    losses = [metrics["loss"].total for metrics in pending]
    diverged = np.flatnonzero(~np.isfinite(jax.device_get(losses)))
    if not len(diverged):
        return
    bad = step - len(pending) + 1 + int(diverged[0])
    users = iterator.user_ids(bad - 1)
    shown = ", ".join(users[:_SHOWN_USERS]) + (", ..." if len(users) > _SHOWN_USERS else "")
    last_good = "no checkpoint was saved" if saved is None else f"checkpoint_{saved} is still good"
    raise DivergedError(
        f"the loss is not a finite number at step {bad}; its batch holds the users {shown}; "
        f"{last_good}. Look at their histories, or lower LEARNING_RATE"
    )


def _as_before(config: DatasetConfig, num_shards: int | None) -> DatasetConfig:
    """Returns what a run goes on with that has read its data in `num_shards` parts."""
    if config.num_shards and num_shards and config.num_shards != num_shards:
        raise InputError(
            f"NUM_DATA_SHARDS={config.num_shards}: this MODEL_DIR's run reads its data in "
            f"{num_shards} parts; leave it out, or choose another MODEL_DIR"
        )
    return dataclasses.replace(config, num_shards=num_shards or config.num_shards)


def _make_evaluation(
    model: EncoderDecoderModel,
    partitioner: Partitioner,
    trainer: Trainer,
    model_dir: str,
    train_eval_cfg: DatasetConfig | None,
    infer_eval_cfg: DatasetConfig | None,
    eval_steps: int,
    evaluator_cls: Callable[..., seqio.Evaluator],
) -> Callable[[TrainState, int], dict[str, float]]:
    """Returns a function that measures a state and writes down what it found.

    As in T5X: below `training_eval` the loss on given answers, below `inference_eval` the task's
    metrics on written ones. Every process reads the whole split, runs its devices' part of each
    batch, and is given all answers; the first one writes.
    """
    is_first = jax.process_index() == 0
    if infer_eval_cfg and datasets.num_examples(infer_eval_cfg) == 0:
        logging.warning("No users in %s: no scores are measured", infer_eval_cfg.split)
        infer_eval_cfg = None
    batches: list[dict[str, Any]] = []
    if train_eval_cfg:
        partitioner.check_batch_size(train_eval_cfg.batch_size, "EVAL_BATCH_SIZE")
        some = itertools.islice(
            datasets.eval_batches(train_eval_cfg, model.FEATURE_CONVERTER_CLS), eval_steps
        )
        # Rows that fill up the last batch carry no loss.
        batches = [datasets.pad_batch(batch, train_eval_cfg.batch_size) for batch in some]
        loss_writer = _writer(model_dir, f"training_eval/{train_eval_cfg.mixture_or_task_name}")
    if infer_eval_cfg:
        evaluator = evaluator_cls(
            mixture_or_task_name=infer_eval_cfg.mixture_or_task_name,
            feature_converter=model.FEATURE_CONVERTER_CLS(pack=False),
            eval_split=infer_eval_cfg.split,
            use_cached=infer_eval_cfg.use_cached,
            seed=infer_eval_cfg.seed,
            sequence_length=dict(infer_eval_cfg.task_feature_lengths),
            log_dir=str(epath.Path(model_dir) / "inference_eval") if is_first else None,
            **({} if is_first else {"logger_cls": ()}),
        )
        partitioner.check_batch_size(infer_eval_cfg.batch_size, "EVAL_BATCH_SIZE")
        predictor = infer.Predictor(model, partitioner, infer_eval_cfg.batch_size)

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        scores: dict[str, float] = {}
        if batches:
            sharded = map(partitioner.shard_batch, batches)
            losses = summarize([trainer.eval_step(state, batch) for batch in sharded])
            loss_writer.write_scalars(step, losses)
            scores |= {f"eval_{name}": value for name, value in losses.items()}
        if infer_eval_cfg:
            future, _ = evaluator.evaluate(
                compute_metrics=True,
                step=step,
                predict_fn=functools.partial(
                    predictor.predict_dataset, state.params, state.flax_mutables
                ),
            )
            for metrics in (future.result() or {}).values():
                scores |= {name: float(value) for name, value in metrics.items()}
        return scores

    return evaluate


def _writer(model_dir: str, collection: str) -> metric_writers.MetricWriter:
    return metric_writers.create_default_writer(
        model_dir, just_logging=jax.process_index() > 0, collection=collection
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
      InputError: a recipe that cannot be read, a MODEL_DIR that another process trains in, or
        anything that `train` refuses.
    """
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


def _take_file_handles() -> None:
    """Takes as many as training may need; without them tf.data would wait for one for ever.

    Raises:
      InputError: if the system gives fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FILE_HANDLES:
        return
    if hard != resource.RLIM_INFINITY and hard < _FILE_HANDLES:
        raise InputError(
            f"this process may open {hard} files, training needs up to {_FILE_HANDLES}; raise the "
            f"limit (ulimit -n {_FILE_HANDLES})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILE_HANDLES, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uem_t5x.train",
        usage="%(prog)s --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=FOLDER --gin.DATA_DIR=FOLDER "
        "[--gin.NAME=VALUE ...] [--multiprocess]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--multiprocess",
        action="store_true",
        help="one of a run's processes, as Cloud TPU, Slurm, Open MPI or Kubernetes have them",
    )
    parser.add_argument("--coordinator_address", help="HOST:PORT of the first process, elsewhere")
    parser.add_argument("--process_count", type=int, help="how many there are")
    parser.add_argument("--process_index", type=int, help="which one this is, from 0")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs a recipe.

    Returns:
      The exit code: 0, 1 for a loss that is no number or a disk that takes no more, 2 for input
      that is refused, 75 for a run that was told to stop (SIGTERM) and goes on when it is repeated.
    """
    files, bindings, rest = gin_utils.split_arguments(argv)
    parser = _parser()
    arguments = parser.parse_args(rest)
    if not files:
        parser.error("--gin_file is missing")
    try:
        _take_file_handles()
        _join_processes(arguments)
        run_recipe(files, bindings)
    except InputError as error:
        print(f"uem_t5x.train: {error.line}", file=sys.stderr)
        return 2
    except (DivergedError, OSError) as error:
        print(f"uem_t5x.train: {error}", file=sys.stderr)
        return 1
    except tf.errors.OpError as error:  # TensorFlow writes what TensorBoard reads
        reason = error.message.splitlines()[0].rpartition("}} ")[2]
        print(f"uem_t5x.train: {reason}", file=sys.stderr)
        return 1
    except Preempted as notice:
        print(f"uem_t5x.train: {notice}", file=sys.stderr)
        return preemption.EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
