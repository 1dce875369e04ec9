"""Training, evaluation by generation and checkpoints in the built-in engine.

    python -m uem_t5x.train --gin_file=gin/uem_tiny.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...

`train` takes T5X's argument names; what T5X's script does on pods, this one does on the devices
at hand, with the same recipe.
"""

import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin
import jax
import seqio
from absl import logging
from clu import metric_writers
from etils import epath

from uem_t5x import datasets, gin_utils, infer
from uem_t5x import model_dir as model_dir_lib
from uem_t5x.checkpoint_manager import CheckpointConfig, CheckpointManager
from uem_t5x.datasets import DatasetConfig
from uem_t5x.errors import InputError
from uem_t5x.models import EncoderDecoderModel, Metrics
from uem_t5x.partitioning import DataParallelPartitioner
from uem_t5x.progress import TrainingProgress
from uem_t5x.trainer import Trainer, TrainState, TrainStateInitializer, summarize


def train(
    *,
    model: EncoderDecoderModel,
    train_dataset_cfg: DatasetConfig,
    train_eval_dataset_cfg: DatasetConfig | None,
    infer_eval_dataset_cfg: DatasetConfig | None,
    checkpoint_cfg: CheckpointConfig,
    partitioner: DataParallelPartitioner,
    trainer_cls: Callable[..., Trainer],
    train_state_initializer_cls: Callable[..., TrainStateInitializer],
    model_dir: str,
    total_steps: int,
    eval_steps: int,
    eval_period: int,
    stats_period: int,
    random_seed: int,
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
      stats_period: steps between training metrics.
      random_seed: of parameters and dropout.
      summarize_config_fn: writes down the recipe.
      inference_evaluator_cls: makes the evaluator.

    Returns:
      The last step and its state.

    Raises:
      InputError: if `model_dir` holds checkpoints of another model or of other movies, or the
        devices cannot share a batch evenly.
    """
    partitioner.check_batch_size(train_dataset_cfg.batch_size)
    model_dir_lib.check_catalogue(model_dir)
    init_rng, trainer_rng = jax.random.split(jax.random.PRNGKey(random_seed))
    iterator = datasets.train_iterator(train_dataset_cfg, model.FEATURE_CONVERTER_CLS)
    trainer = trainer_cls(model=model, rng=trainer_rng)
    manager = CheckpointManager(model_dir, checkpoint_cfg)

    initializer = train_state_initializer_cls(
        model=model,
        input_shapes=datasets.batch_shapes(iterator.element_spec, train_dataset_cfg.batch_size),
        partitioner=partitioner,
    )
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
    with TrainingProgress(total_steps, step) as progress:
        while step < total_steps:
            batch = partitioner.shard_batch(next(iterator))
            state, metrics = trainer.train_step(state, batch)
            pending.append(metrics)
            step += 1
            is_last = step == total_steps
            if is_last or step % stats_period == 0:
                summary = summarize(pending)  # waits for the device
                summary["timing/steps_per_second"] = len(pending) / (time.monotonic() - stopwatch)
                pending.clear()
                train_writer.write_scalars(step, summary)
                progress.report(step, _status(summary))
                stopwatch = time.monotonic()
            scores = None
            if is_last or (eval_period and step % eval_period == 0):
                scores = evaluate(state, step)
                progress.report(step, " ".join(f"{k}={v:.3f}" for k, v in _headline(scores)))
                stopwatch = time.monotonic()
            if checkpoint_cfg.period and (is_last or step % checkpoint_cfg.period == 0):
                manager.save(state, iterator, scores)
    manager.close()
    train_writer.close()
    return step, state


def _make_evaluation(
    model: EncoderDecoderModel,
    partitioner: DataParallelPartitioner,
    trainer: Trainer,
    model_dir: str,
    train_eval_cfg: DatasetConfig | None,
    infer_eval_cfg: DatasetConfig | None,
    eval_steps: int,
    evaluator_cls: Callable[..., seqio.Evaluator],
) -> Callable[[TrainState, int], dict[str, float]]:
    """Returns a function that measures a state and writes down what it found.

    As in T5X: below `training_eval` the loss on given answers, below `inference_eval` the task's
    metrics on written ones.
    """
    batches: list[dict[str, Any]] = []
    if train_eval_cfg:
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
            log_dir=str(epath.Path(model_dir) / "inference_eval"),
        )
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
                compute_metrics=jax.process_index() == 0,
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
      InputError: a recipe that cannot be read, or anything that `train` refuses.
    """
    with gin_utils.main_module(sys.modules[__name__]):
        gin_utils.parse(files, bindings)
        return train(**gin.get_bindings(train, resolve_references=True))


def main(argv: Sequence[str]) -> int:
    """Runs a recipe; returns the exit code."""
    files, bindings, rest = gin_utils.split_arguments(argv)
    try:
        if rest or not files:
            problem = f"unknown argument {rest[0]}" if rest else "--gin_file is missing"
            raise InputError(
                f"{problem}; usage: python -m uem_t5x.train --gin_file=gin/uem_tiny.gin "
                "--gin.MODEL_DIR=FOLDER --gin.DATA_DIR=FOLDER"
            )
        run_recipe(files, bindings)
    except InputError as error:
        print(f"uem_t5x.train: {error.line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
