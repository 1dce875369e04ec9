"""A training step: ours against PyTorch and Transformers, eager and compiled.

The same sizes, batch, precision and threads, with Adafactor, without dropout. `--t5x` adds T5X's
own network where `import t5x` works (docs/t5x.md): a T5 of these sizes over as many tokens as the
encoder has positions, ours and T5X's under the same trainer.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import torch

from benchmarks import jax_model, sizes, timing, torch_model
from benchmarks.jax_model import Training
from benchmarks.sizes import Sizes
from benchmarks.timing import Timing
from uem_t5x import network
from uem_t5x.network import flops as model_flops
from uem_t5x.network.types import Batch

_LEARNING_RATE = 1e-3
_OPTIMIZER_TURNS = 5
_OURS, _EAGER, _COMPILED = "ours", "torch eager", "torch.compile"
_OURS_T5, _T5X = "our T5 alone", "T5X's network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    sizes.add_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn; on a GPU some 20")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--t5x", action="store_true", help="T5X's network besides")
    parser.add_argument("--peak-tflops", type=float, help="what the device could do a second")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets ours and the peers take steps in turns."""
    size, steps = sizes.SIZES[arguments.size], arguments.steps
    batch = sizes.draw_batch(size, arguments.batch_size)
    module = jax_model.personalized_transformer(size, arguments.dtype)
    training = Training.start(jax_model.model(module), batch, size)
    candidates = {_OURS: _turn(training, batch, steps)}
    left_out, of_torch = torch_model.MISSING, {}
    if left_out is None:
        torch_peer = _TorchTraining(size, batch, arguments.dtype)
        candidates[_EAGER] = lambda: torch_peer.run(steps)
        left_out = "by --no-compile" if arguments.no_compile else torch_peer.compile()
        of_torch = {"optimizer": torch_peer.optimizer_name, "parameters": torch_peer.parameters}
    if left_out is None:
        candidates[_COMPILED] = lambda: torch_peer.run(steps, compiled=True)
    if arguments.t5x:
        candidates |= _t5x_turns(size, batch, arguments.dtype, steps)

    timings = timing.alternate(candidates, arguments.repeats, warmup=2)
    flops = steps * model_flops.training_flops(
        module, jax_model.feature_lengths(batch), arguments.batch_size
    )

    def figures(name: str) -> dict[str, float]:
        return timings[name].figures() | _achieved(timings[name], flops, arguments.peak_tflops)

    ratios = {
        n: timing.ratio(timings[_OURS], timings[n]) for n in (_EAGER, _COMPILED) if n in timings
    }
    fastest = min(ratios, key=lambda name: timings[name].median, default=None)
    return {
        "sizes": dataclasses.asdict(size) | {"batch": arguments.batch_size, "steps": steps},
        "dtype": arguments.dtype,
        "parameters": {
            "ours": jax_model.count_parameters(training.state.params),
            "torch": of_torch.get("parameters"),
        },
        "torch_threads": torch.get_num_threads(),
        "torch_optimizer": of_torch.get("optimizer"),
        "torch_compile_left_out": left_out,
        "ours": figures(_OURS),
        "peers": {name: figures(name) for name in ratios},
        "ratios": ratios,
        **_t5x_figures(timings),
        "bounds": [
            timing.bound(
                f"a step to that of {name}, medians", ratios[name]["of_medians"], at_most=1.0
            )
            for name in filter(None, [fastest])
        ],
    }


def _turn(training: Training, batch: Batch, steps: int) -> Callable[[], None]:
    on_devices = training.partitioner.shard_batch(batch)
    return lambda: training.run(on_devices, steps)


def _achieved(timed: Timing, flops: int, peak_tflops: float | None) -> dict[str, float]:
    """Returns the rate at which the model's FLOPs, counted by hand, were done."""
    tflops = flops / timed.median / 1e12
    return {"tflops": tflops} | ({"of_peak": tflops / peak_tflops} if peak_tflops else {})


class _TorchTraining:
    """The peer under training, with the fastest Adafactor that there is for it."""

    def __init__(self, size: Sizes, batch: Batch, dtype: str) -> None:
        self._device = torch_model.set_up(jax.default_backend() == "gpu")
        table = sizes.item_table(size)
        self.model = torch_model.PersonalizedT5(size, table, dtype).to(self._device).train()
        self._compiled: Callable[..., torch.Tensor] | None = None
        self._batch = torch_model.tensors(batch, self._device)
        self.parameters = self.model.count_parameters()
        self.optimizer_name, self._optimizer = self._fastest_optimizer()

    def compile(self) -> str | None:
        """Compiles; returns why that failed, if it did."""
        self._compiled = torch.compile(self.model)
        try:
            self.run(1, compiled=True)
        except RuntimeError as error:  # among others: no C++ compiler
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        return None

    def run(self, steps: int, compiled: bool = False) -> None:
        """Takes steps, and waits for them."""
        forward = self._compiled if compiled else self.model
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            forward(**self._batch).backward()
            self._optimizer.step()
        self._wait()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _fastest_optimizer(self) -> tuple[str, torch.optim.Optimizer]:
        import transformers

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizers = {
            "torch.optim.Adafactor": torch.optim.Adafactor(
                parameters, lr=_LEARNING_RATE, foreach=False
            ),
            "torch.optim.Adafactor, foreach": torch.optim.Adafactor(
                parameters, lr=_LEARNING_RATE, foreach=True
            ),
            "transformers.Adafactor": transformers.Adafactor(
                parameters, lr=_LEARNING_RATE, relative_step=False
            ),
        }
        self.model(**self._batch).backward()

        def turn(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
            def step() -> None:
                optimizer.step()
                self._wait()

            return step

        turns = {name: turn(optimizer) for name, optimizer in optimizers.items()}
        timings = timing.alternate(turns, _OPTIMIZER_TURNS)
        name = min(timings, key=lambda name: timings[name].median)
        return name, optimizers[name]


def _t5x_turns(size: Sizes, batch: Batch, dtype: str, steps: int) -> dict[str, Callable[[], None]]:
    from flax import struct
    from t5x.examples.t5 import network as t5x_network

    @struct.dataclass
    class Config(t5x_network.T5Config):
        scan_layers: bool = False  # our trainer asks

    ours = jax_model.t5_config(size, dtype)
    shared = {field.name for field in dataclasses.fields(Config)} & {
        field.name for field in dataclasses.fields(ours)
    }
    theirs = Config(**{name: getattr(ours, name) for name in shared})
    long = dataclasses.replace(size, instruction=size.encoder_length)
    text = jax_model.without_history(sizes.draw_batch(long, len(batch["history_items"])))
    modules = {_OURS_T5: network.Transformer(ours), _T5X: t5x_network.Transformer(theirs)}
    return {
        name: _turn(Training.start(jax_model.model(module), text, size), text, steps)
        for name, module in modules.items()
    }


def _t5x_figures(timings: Mapping[str, Timing]) -> dict[str, Any]:
    if _T5X not in timings:
        return {}
    ratio = timing.ratio(timings[_OURS_T5], timings[_T5X])
    figures = {name: timings[name].figures() for name in (_OURS_T5, _T5X)}
    return {"t5_without_history": figures | {"ratio": ratio}}


if __name__ == "__main__":
    timing.main("training_step", __doc__, add_arguments, measure)
