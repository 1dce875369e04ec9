"""Measuring a model on validation users while it trains."""

import contextlib
import functools
import itertools
import logging as logging_lib
from collections.abc import Callable, Iterator, Mapping

import gin
import jax
import seqio
from absl import logging
from etils import epath

from uem_t5x.inputs import answer_grammar, batches
from uem_t5x.inputs.batches import DatasetConfig
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network.types import Batch
from uem_t5x.tastes import answer_metrics, metrics
from uem_t5x.training import training_log
from uem_t5x.training.partitioning import Partitioner, pad_batch
from uem_t5x.training.predictor import Predictor
from uem_t5x.training.trainer import Trainer, TrainState, summarize


@gin.configurable
class Validation:
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
        eval_steps: int | None,
        evaluator_cls: Callable[..., seqio.Evaluator],
        well_formed: bool = True,
    ) -> None:
        """Loads what is measured.

        Args:
          model: the model.
          partitioner: how arrays lie on the devices.
          trainer: computes the loss.
          model_dir: where metrics go.
          train_eval_cfg: what to measure the loss on, or None.
          infer_eval_cfg: what to answer and score with the task's metrics, or None.
          eval_steps: batches of the loss; None for all there are.
          evaluator_cls: makes the evaluator.
          well_formed: keeps answers within a grammar, where the task has one; see
            `answer_grammar.where_there_is_one`. A recipe binds it here: T5X's evaluation has none.

        Raises:
          InputError: if there is no such task.
          OSError: if `model_dir` takes no folder.
        """
        self._partitioner = partitioner
        self._trainer = trainer
        is_first = jax.process_index() == 0
        if infer_eval_cfg and batches.num_examples(infer_eval_cfg) == 0:
            logging.warning("No users in %s: no scores are measured", infer_eval_cfg.split)
            infer_eval_cfg = None
        self._batches: list[Batch] = []
        if train_eval_cfg:
            some = itertools.islice(
                batches.eval_batches(train_eval_cfg, model.FEATURE_CONVERTER_CLS), eval_steps
            )
            # Rows that fill up the last batch carry no loss.
            self._batches = [pad_batch(batch, train_eval_cfg.batch_size) for batch in some]
            self._loss_writer = training_log.writer(
                model_dir, f"training_eval/{train_eval_cfg.mixture_or_task_name}"
            )
        self._evaluator: seqio.Evaluator | None = None
        if infer_eval_cfg:
            log_dir = epath.Path(model_dir) / "inference_eval"
            if is_first:  # SeqIO's TensorBoardLogger makes it, and its other loggers do not
                log_dir.mkdir(parents=True, exist_ok=True)
            with _without_advice():
                self._evaluator = evaluator_cls(
                    mixture_or_task_name=infer_eval_cfg.mixture_or_task_name,
                    feature_converter=model.FEATURE_CONVERTER_CLS(pack=False),
                    eval_split=infer_eval_cfg.split,
                    use_cached=infer_eval_cfg.use_cached,
                    seed=infer_eval_cfg.seed,
                    sequence_length=dict(infer_eval_cfg.task_feature_lengths),
                    log_dir=str(log_dir) if is_first else None,
                    **({} if is_first else {"logger_cls": ()}),
                )
            task = seqio.get_mixture_or_task(infer_eval_cfg.mixture_or_task_name)
            grammar = None
            if well_formed:
                grammar = answer_grammar.where_there_is_one(model.takes_grammar, task)
            self._predictor = Predictor(
                model, partitioner, infer_eval_cfg.batch_size, grammar=grammar
            )

    def loss(self, state: TrainState, training_batch: Batch) -> float:
        """Returns the summed loss of one batch: whether it is finite tells whether parameters are.

        A step's own loss is that of the parameters before it.

        Args:
          state: the state after a step.
          training_batch: used where there are no validation batches; lies on the devices already.
        """
        batch = training_batch
        if self._batches:  # their shape is compiled anyway
            batch = self._partitioner.shard_batch(self._batches[0])
        return float(jax.device_get(self._trainer.eval_step(state, batch)["loss"].total))

    def measure(self, state: TrainState, step: int) -> dict[str, float]:
        """Returns the scores of the state after a step, by name, and writes them down.

        Raises:
          Exception: what the task's metrics or the evaluator's loggers raise.
        """
        scores: dict[str, float] = {}
        if self._batches:
            sharded = map(self._partitioner.shard_batch, self._batches)
            losses = summarize([self._trainer.eval_step(state, batch) for batch in sharded])
            self._loss_writer.write_scalars(step, losses)
            self._loss_writer.flush()
            scores |= {f"eval_{name}": value for name, value in losses.items()}
        if self._evaluator:
            variables, predictor = (state.params, state.flax_mutables), self._predictor
            future, _ = self._evaluator.evaluate(
                compute_metrics=True,
                step=step,
                predict_fn=functools.partial(predictor.predict_dataset, *variables),
                predict_with_aux_fn=functools.partial(
                    predictor.predict_dataset_with_aux, *variables
                ),
                score_fn=functools.partial(predictor.score_dataset, *variables),
            )
            if error := future.exception():
                # SeqIO's own says neither that a disk is full nor that an input is refused.
                raise error.__cause__ or error
            scores |= metrics.mean_scores((future.result() or {}).values())
        return scores


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps SeqIO from advising lengths that just fit a split: all batches have one shape here."""
    logger = logging.get_absl_logger()

    def is_none(record: logging_lib.LogRecord) -> bool:
        return not str(record.msg).startswith("Given sequence lengths")

    logger.addFilter(is_none)
    try:
        yield
    finally:
        logger.removeFilter(is_none)


def headline(scores: Mapping[str, float]) -> str:
    """Returns the most telling ones of the scores, as a line."""
    names = ("eval_loss", "f1", "liked_f1", "disliked_f1", *answer_metrics.METRICS)
    return " ".join(f"{name}={scores[name]:.3f}" for name in names if name in scores)
