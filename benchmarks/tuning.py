"""What is trained, and by which adapter: the time and the memory of a step, beside training all.

Rows: all of the language model with the paper's adapter (the peer, 1 by definition); LoRA on its
queries and values; a frozen one; and all of it with items compressed into fewer soft tokens. The
state is what lies on the device between steps, temporaries are what a step takes besides, by the
compiler's account.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import jax_model, sizes, timing
from benchmarks.sizes import Sizes
from uem_t5x.network import lora, parameters
from uem_t5x.network.types import Batch
from uem_t5x.training.partitioning import Partitioner
from uem_t5x.training.trainer import TrainState, TrainStateInitializer

_ALL, _LORA, _FROZEN = "all", "LoRA", "frozen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    sizes.add_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn; on a GPU some 20")
    parser.add_argument("--rank", type=int, default=8, help="of LoRA")
    parser.add_argument("--soft-tokens", type=int, default=20, help="of the compressing adapters")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows; `all` is always one")
    parser.add_argument(
        "--scan-layers", action="store_true", help="compile one layer of each stack"
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets the ways of training take steps in turns."""
    size = sizes.SIZES[arguments.size]
    batch = sizes.draw_batch(size, arguments.batch_size)
    few = {"soft_tokens": arguments.soft_tokens}
    ways: dict[str, Mapping[str, Any]] = {
        _ALL: {},
        _LORA: {"lora": lora.LoRA(arguments.rank)},
        _FROZEN: {"freeze_language_model": True},
        "transformer, fewer tokens": {"adapter": few},
        "perceiver, fewer tokens": {"adapter": {**few, "adapter": "perceiver"}},
        "mlp, fewer tokens": {"adapter": {**few, "adapter": "mlp"}},
    }
    if arguments.only:
        ways = {name: ways[name] for name in dict.fromkeys((_ALL, *arguments.only))}
    runs = {}
    for name, options in ways.items():
        timing.watch(f"compiling: {name}")
        runs[name] = _Run(size, batch, arguments, **options)
    turns = {name: run.turn(arguments.steps) for name, run in runs.items()}
    timings = timing.alternate(turns, arguments.repeats)
    return {
        "sizes": dataclasses.asdict(size) | {"batch": arguments.batch_size},
        "dtype": arguments.dtype,
        "ways": {
            name: {
                **timings[name].figures(),
                **run.figures,
                "ratio": timing.ratio(timings[name], timings[_ALL]),
            }
            for name, run in runs.items()
        },
        "bounds": [
            timing.bound(
                f"a step of {name} to one of {_ALL}, medians",
                timing.ratio(timings[name], timings[_ALL])["of_medians"],
                at_most=1.0,
            )
            for name in (_LORA, _FROZEN)
            if name in runs
        ],
    }


class _Run:
    """One way of training, compiled.

    Attributes:
        figures: bytes of the state, of its optimizer's part and of a step's temporaries, weights in
            all and those that are trained.
    """

    def __init__(
        self,
        size: Sizes,
        batch: Batch,
        arguments: argparse.Namespace,
        freeze_language_model: bool = False,
        **options: Any,
    ) -> None:
        module = jax_model.personalized_transformer(
            size, arguments.dtype, scan_layers=arguments.scan_layers, **options
        )
        model = jax_model.model(module, freeze_language_model=freeze_language_model)
        partitioner = Partitioner()
        shapes = {name: array.shape for name, array in batch.items()}
        state_shape = TrainStateInitializer(model, shapes, partitioner).state_shape
        trainer = jax_model.make_trainer(
            model=model,
            rng=jax.random.key(1),
            partitioner=partitioner,
            state_shape=state_shape,
        )
        self._batch = partitioner.shard_batch(batch)
        self._step = trainer.train_step.lower(state_shape, self._batch).compile()
        self._state = _drawn(state_shape)
        trained = parameters.trained(state_shape.params, model.trainable)
        self.figures = {
            "state_mib": _mib(state_shape),
            "optimizer_mib": _mib(state_shape.opt_state),
            "temporaries_mib": self._step.memory_analysis().temp_size_in_bytes / 2**20,
            "parameters": jax_model.count_parameters(state_shape.params),
            "trained": jax_model.count_parameters(trained),
        }

    def turn(self, steps: int) -> Callable[[], None]:
        """Returns what takes so many steps, and waits for them."""

        def run() -> None:
            for _ in range(steps):
                self._state, _ = self._step(self._state, self._batch)
            jax.block_until_ready(self._state)

        return run


def _drawn(shapes: TrainState) -> TrainState:
    """Returns a state of small random numbers; initializing base by JAX compiles for a minute."""
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        is_integer = np.issubdtype(leaf.dtype, np.integer)
        values = 0.02 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(
            np.zeros(leaf.shape, leaf.dtype) if is_integer else values, leaf.sharding
        )

    drawn = jax.tree.map(draw, shapes)
    # Second moments are above 0.
    return drawn.replace(opt_state=jax.tree.map(abs, drawn.opt_state))


def _mib(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 2**20


if __name__ == "__main__":
    timing.main("tuning", __doc__, add_arguments, measure)
