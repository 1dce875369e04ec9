"""What longer histories cost: a training step's time and memory, as embeddings and as text.

An item is one position of the encoder as an embedding, and so many tokens in words; text is read
with full attention (T5) and with local attention (LongT5). Programs take turns as elsewhere. One
that needs more memory than `--memory-gib` is compiled, for its bytes, and not run.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import jax_model, sizes, timing
from benchmarks.jax_model import Training
from benchmarks.sizes import Sizes
from uem_t5x import network
from uem_t5x.network.types import Batch

_TOKENS_AN_ITEM = 320  # the paper: 50 items are about 16,000 tokens
_EMBEDDINGS, _FULL, _LOCAL = "embeddings", "text, full attention", "text, local attention"
_STYLES = {_EMBEDDINGS: "#1f77b4", _FULL: "#d62728", _LOCAL: "#ff7f0e"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    sizes.add_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--items", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--text-items", type=int, nargs="+", default=[1, 3, 10, 25])
    parser.add_argument("--tokens-per-item", type=int, default=_TOKENS_AN_ITEM)
    parser.add_argument("--longest-text", type=int, default=8192, help="tokens; more are left out")
    parser.add_argument("--memory-gib", type=float, default=10.0, help="that a program may take")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the figures there")
    parser.set_defaults(repeats=3)


@dataclasses.dataclass(frozen=True)
class _Program:
    """A compiled training step.

    Attributes:
        kind: how the history is told.
        items: of the history.
        positions: that the encoder reads.
        temporary_bytes: what the step takes beside parameters, optimizer state and batch.
        run: takes a step.
    """

    kind: str
    items: int
    positions: int
    temporary_bytes: int
    run: Callable[[], None]

    @property
    def name(self) -> str:
        return f"{self.items} items, {self.kind}"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compiles a step for every length, and lets those that fit take turns."""
    size = sizes.SIZES[arguments.size]
    told = [
        n for n in arguments.text_items if n * arguments.tokens_per_item <= arguments.longest_text
    ]
    programs = [
        *_programs(_EMBEDDINGS, arguments.items, size, arguments),
        *_programs(_FULL, told, size, arguments),
        *_programs(_LOCAL, told, size, arguments),
    ]
    limit = arguments.memory_gib * 2**30
    runnable = {p.name: p.run for p in programs if p.temporary_bytes <= limit}
    timings = timing.alternate(runnable, arguments.repeats)
    points = {
        kind: [
            {
                "items": program.items,
                "positions": program.positions,
                "temporary_mib": program.temporary_bytes / 2**20,
                **(timings[program.name].figures() if program.name in timings else {}),
            }
            for program in programs
            if program.kind == kind
        ]
        for kind in _STYLES
    }
    if arguments.plot:
        _plot(points, arguments)
    return {
        "sizes": dataclasses.asdict(size)
        | {"batch": arguments.batch_size, "tokens_an_item": arguments.tokens_per_item},
        "ours": {_EMBEDDINGS: points[_EMBEDDINGS]},
        "peers": {kind: points[kind] for kind in (_FULL, _LOCAL)},
        **_comparison(points),
    }


def _programs(
    kind: str, counts: Sequence[int], size: Sizes, arguments: argparse.Namespace
) -> list[_Program]:
    """Compiles a step for each number of items; their parameters are the same."""
    programs: list[_Program] = []
    training: Training | None = None
    for items in counts:
        if kind == _EMBEDDINGS:
            module = jax_model.personalized_transformer(size)
            told = dataclasses.replace(size, history=items)
            batch = sizes.draw_batch(told, arguments.batch_size)
            positions = told.encoder_length
        else:
            attention = network.FULL if kind == _FULL else network.LOCAL
            module = network.Transformer(jax_model.t5_config(size, encoder_attention=attention))
            positions = size.instruction + items * arguments.tokens_per_item
            told = dataclasses.replace(size, instruction=positions)
            batch = jax_model.without_history(sizes.draw_batch(told, arguments.batch_size))
        if training is None:
            training = Training.start(jax_model.model(module), batch, size)
        timing.watch(f"compiling: {items} items, {kind}")
        programs.append(_compile(kind, items, positions, training, batch))
    return programs


def _compile(kind: str, items: int, positions: int, training: Training, batch: Batch) -> _Program:
    on_devices = training.partitioner.shard_batch(batch)
    compiled = training.trainer.train_step.lower(training.state, on_devices).compile()

    def run() -> None:
        training.state, _ = compiled(training.state, on_devices)
        jax.block_until_ready(training.state)

    temporary_bytes = compiled.memory_analysis().temp_size_in_bytes
    return _Program(kind, items, positions, temporary_bytes, run)


def _comparison(points: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns fits, crossing points, and ratios where both kinds have the same number of items."""
    fits = {
        quantity: {kind: _fit(points[kind], quantity) for kind in points}
        for quantity in ("median_s", "temporary_mib")
    }
    ratios, crossings, bounds = {}, {}, []
    for kind in (_FULL, _LOCAL):
        shared = [
            (ours, peer)
            for ours in points[_EMBEDDINGS]
            for peer in points[kind]
            if ours["items"] == peer["items"]
        ]
        ratios[kind] = [
            {"items": ours["items"]}
            | {q: ours[q] / peer[q] for q in fits if q in ours and q in peer}
            for ours, peer in shared
        ]
        crossings[kind] = {
            quantity: _crossing(fit[_EMBEDDINGS], fit[kind]) for quantity, fit in fits.items()
        }
        bounds += [
            timing.bound(
                f"{quantity} at {ratio['items']} items to those of {kind}", value, at_most=1.0
            )
            for ratio in ratios[kind]
            for quantity, value in ratio.items()
            if quantity != "items"
        ]
    return {
        "ratios": ratios,
        # a + b p + c p^2 over p items
        "fits": {
            quantity: {
                kind: None if fit is None else dict(zip(("constant", "linear", "quadratic"), fit))
                for kind, fit in by_kind.items()
            }
            for quantity, by_kind in fits.items()
        },
        "text_costs_more_from_items": crossings,
        "bounds": bounds,
    }


def _fit(points: list[dict[str, float]], quantity: str) -> list[float] | None:
    """Fits a parabola, relative errors counting equally; None for fewer than three points."""
    measured = [(point["items"], point[quantity]) for point in points if quantity in point]
    if len(measured) < 3:
        return None
    items, values = np.array(measured, float).T
    return np.polynomial.polynomial.polyfit(items, values, 2, w=1 / values).tolist()


def _crossing(ours: list[float] | None, peer: list[float] | None) -> float | None:
    """Returns from how many items on `peer` is above `ours`; None if it never is."""
    if ours is None or peer is None:
        return None
    difference = np.polynomial.Polynomial(np.subtract(peer, ours))
    rising = [
        root.real
        for root in difference.roots()
        if not root.imag and root.real > 0 and difference.deriv()(root.real) > 0
    ]
    if rising:
        return float(min(rising))
    return 0.0 if difference(1) > 0 else None


def _plot(points: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = {"median_s": "seconds a training step", "temporary_mib": "memory of a step, MiB"}
    figure, panels = plt.subplots(1, len(labels), figsize=(9, 3.6), layout="constrained")
    for axes, (quantity, label) in zip(panels, labels.items()):
        for kind, color in _STYLES.items():
            measured = [point for point in points[kind] if quantity in point]
            items = [point["items"] for point in measured]
            values = [point[quantity] for point in measured]
            axes.plot(items, values, "o-", color=color, label=kind)
        axes.set(xscale="log", yscale="log", xlabel="items of the history", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    handles, kinds = panels[0].get_legend_handles_labels()
    figure.legend(handles, kinds, frameon=False, ncols=len(kinds), loc="outside lower center")
    figure.suptitle(
        f"An item is one embedding, or {arguments.tokens_per_item} tokens; "
        f"batch {arguments.batch_size}"
    )
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.plot, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    timing.main("growth", __doc__, add_arguments, measure)
