"""What the training loop costs: `uem_t5x.train.train` against its own compiled step.

The loop reads a dataset folder and logs every STATS_PERIOD steps; evaluations and checkpoints are
off. The bare step runs on a batch that stays on the device. They take turns within one run: before
each period the trainer, which is the loop's only way to the device, runs as many bare steps.
"""

import argparse
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import jax_model, made_up_data, sizes, timing
from benchmarks.timing import Stopwatch
from uem_t5x import train
from uem_t5x.inputs import batches, data_sources, vocabularies
from uem_t5x.inputs.feature_converters import UserEmbeddingFeatureConverter
from uem_t5x.models import EncoderDecoderModel, Metrics
from uem_t5x.network.types import Batch
from uem_t5x.tasks import movielens
from uem_t5x.training.checkpoint_manager import CheckpointConfig
from uem_t5x.training.partitioning import Partitioner
from uem_t5x.training.trainer import Trainer, TrainState, TrainStateInitializer

_MOST_OVERHEAD = 1.05
_USERS = 2000
_WARMUP_STEPS = 10
# Unmeasured steps at the begin of each turn, so that the input pipeline's buffers, which fill up
# while the bare step runs, favour neither.
_SETTLING_STEPS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    sizes.add_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--stats-period", type=int, default=100, help="steps of a turn, the last of which is logged"
    )
    parser.add_argument("--data-dir", type=Path, help="a dataset folder with a vocabulary")


class _TakesTurns:
    """The loop's trainer; before every `period` steps of the loop it takes as many bare ones.

    Attributes:
        loop: turns of the loop.
        bare: turns of the bare step.
    """

    def __init__(self, trainer: Trainer, turns: int, period: int) -> None:
        self.loop, self.bare = Stopwatch(), Stopwatch()
        self._turns_left = turns
        self.eval_step = trainer.eval_step
        self._step, self._period = trainer.train_step, period
        self._calls = -_WARMUP_STEPS

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Takes the loop's step."""
        place = self._calls % (_SETTLING_STEPS + self._period) if self._calls >= 0 else None
        if place == 0:
            jax.block_until_ready(state)
            if self._calls:
                self.loop.stop()
                self._watch()
            if self._turns_left:
                self._take_bare_steps(jax.tree.map(jnp.copy, state), batch)
                self._turns_left -= 1
        elif place == _SETTLING_STEPS:
            jax.block_until_ready(state)
            self.loop.start()
        self._calls += 1
        return self._step(state, batch)

    def _take_bare_steps(self, state: TrainState, batch: Batch) -> None:
        for step in range(_SETTLING_STEPS + self._period):
            if step == _SETTLING_STEPS:
                jax.block_until_ready(state)
                self.bare.start()
            state, _ = self._step(state, batch)
        jax.block_until_ready(state)
        self.bare.stop()

    def _watch(self) -> None:
        loop, bare = self.loop.timing.wall, self.bare.timing.wall
        timing.watch(f"turn {len(loop)}: loop {loop[-1]:.3f} s, bare {bare[-1]:.3f} s")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains, and takes bare steps in between."""
    size = sizes.SIZES[arguments.size]
    with (
        made_up_data.dataset_folder(
            arguments.data_dir, _USERS, size.movies, size.channel, size.vocabulary
        ) as folder,
        data_sources.use_dataset_folder(folder),
        tempfile.TemporaryDirectory() as model_dir,
    ):
        module = jax_model.personalized_transformer(size, arguments.dtype, data_sources.channels())
        vocabulary = vocabularies.TaskVocabulary()
        model = jax_model.model(
            module,
            input_vocabulary=vocabulary,
            output_vocabulary=vocabulary,
            feature_converter_cls=UserEmbeddingFeatureConverter,
        )
        takes_turns = _train(model, size, arguments, model_dir)
        loop, bare = takes_turns.loop.timing, takes_turns.bare.timing
    ratio = timing.ratio(loop, bare)
    return {
        "sizes": dataclasses.asdict(size)
        | {"batch": arguments.batch_size, "stats_period": arguments.stats_period},
        "dtype": arguments.dtype,
        "ours": loop.figures() | {"ms_a_step": 1e3 * loop.median / arguments.stats_period},
        "peers": {
            "the bare step": bare.figures()
            | {"ms_a_step": 1e3 * bare.median / arguments.stats_period}
        },
        "ratios": {"the bare step": ratio},
        "bounds": [
            timing.bound(
                "the loop to its bare step, medians", ratio["of_medians"], at_most=_MOST_OVERHEAD
            )
        ],
    }


def _train(
    model: EncoderDecoderModel, size: sizes.Sizes, arguments: argparse.Namespace, model_dir: str
) -> _TakesTurns:
    trainers: list[_TakesTurns] = []

    def make_trainer(**options: Any) -> _TakesTurns:
        trainer = jax_model.make_trainer(**options)
        trainers.append(_TakesTurns(trainer, arguments.repeats, arguments.stats_period))
        return trainers[0]

    lengths = {
        "inputs": size.instruction,
        "targets": size.targets,
        "history_items": size.history,
        "history_ratings": size.history,
    }
    train.train(
        model=model,
        train_dataset_cfg=batches.DatasetConfig(
            mixture_or_task_name=movielens.uem_task(size.history),
            task_feature_lengths=lengths,
            split="train",
            batch_size=arguments.batch_size,
            shuffle=True,
            seed=0,
        ),
        train_eval_dataset_cfg=None,
        infer_eval_dataset_cfg=None,
        checkpoint_cfg=CheckpointConfig(period=0),
        partitioner=Partitioner(),
        trainer_cls=make_trainer,
        train_state_initializer_cls=functools.partial(
            TrainStateInitializer, item_vectors=data_sources.item_vectors
        ),
        model_dir=model_dir,
        # The last call ends the last turn.
        total_steps=_WARMUP_STEPS
        + arguments.repeats * (_SETTLING_STEPS + arguments.stats_period)
        + 1,
        eval_steps=None,
        eval_period=0,
        stats_period=arguments.stats_period,
        random_seed=0,
        summarize_config_fn=lambda *_: None,
    )
    return trainers[0]


if __name__ == "__main__":
    timing.main("engine_overhead", __doc__, add_arguments, measure)
