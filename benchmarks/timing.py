"""What all benchmarks share: turns, ratios, bounds, the machine and the line of JSON."""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# XLA takes all cores that the process may run on; PyTorch is given as many threads.
THREADS = len(os.sched_getaffinity(0))
# What spins or settles after one candidate's turn shall not slow the next one's.
_PAUSE_SECONDS = 0.1
_SIGNIFICANT_DIGITS = 4
_PACKAGES = ("jax", "flax", "tensorflow", "seqio", "torch", "transformers", "polars", "pandas")


@dataclasses.dataclass(frozen=True)
class Timing:
    """The turns of one candidate.

    Attributes:
        wall: seconds of each.
        cpu: CPU seconds of each, of all threads.
    """

    wall: Sequence[float]
    cpu: Sequence[float]

    @property
    def median(self) -> float:
        """The median turn's seconds."""
        return statistics.median(self.wall)

    @property
    def minimum(self) -> float:
        """The fastest turn's seconds."""
        return min(self.wall)

    def figures(self) -> dict[str, float]:
        """Returns what the line of JSON tells of it."""
        return {
            "median_s": self.median,
            "minimum_s": self.minimum,
            "cpu_median_s": statistics.median(self.cpu),
            "turns": len(self.wall),
        }


class Stopwatch:
    """Collects turns, wherever they begin and end."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._turns: list[tuple[float, float]] = []

    def start(self) -> None:
        """Begins a turn."""
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Ends a turn."""
        now = time.perf_counter(), time.process_time()
        self._turns.append((now[0] - self._began[0], now[1] - self._began[1]))

    @property
    def timing(self) -> Timing:
        """The turns so far."""
        return Timing(*zip(*self._turns))


def alternate(
    candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[str, Timing]:
    """Lets candidates take turns.

    Args:
        candidates: what takes a turn, by name; it returns when its work is done.
        repeats: measured turns of each.
        warmup: turns of each before them.
    """
    for name, turn in candidates.items():
        for _ in range(warmup):
            watch(f"warming up: {name}")
            turn()
    stopwatches = {name: Stopwatch() for name in candidates}
    for repeat in range(repeats):
        for name, turn in candidates.items():
            time.sleep(_PAUSE_SECONDS)
            stopwatches[name].start()
            turn()
            stopwatches[name].stop()
        latest = (f"{name} {stopwatches[name].timing.wall[-1]:.3f} s" for name in candidates)
        watch(f"turn {repeat + 1} of {repeats}: {', '.join(latest)}")
    return {name: stopwatch.timing for name, stopwatch in stopwatches.items()}


def ratio(ours: Timing, peer: Timing) -> dict[str, float]:
    """Returns how long we take, the peer being 1."""
    return {
        "of_medians": ours.median / peer.median,
        "of_minima": ours.minimum / peer.minimum,
    }


def bound(
    what: str, value: float, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    """Holds a figure to a bound, one of the two."""
    if at_most is not None:
        return {"what": what, "value": value, "at_most": at_most, "holds": value <= at_most}
    return {"what": what, "value": value, "at_least": at_least, "holds": value >= at_least}


def watch(message: str) -> None:
    """Tells who watches how far it is."""
    print(message, file=sys.stderr, flush=True)


def main(
    module: str,
    summary: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace], dict[str, Any]],
) -> None:
    """Runs a benchmark as a command.

    Args:
        module: its name, which the line of JSON begins with.
        summary: its docstring.
        add_arguments: declares its arguments; `--repeats` is there.
        measure: returns the rest of the line; `bounds` must be in it.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (default: 5)")
    add_arguments(parser)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(arguments)
    result = {
        "benchmark": module,
        "machine": _machine(load),
        **measured,
        "holds": all(bound["holds"] for bound in measured["bounds"]),
    }
    print(json.dumps(_rounded(result)), flush=True)


def _machine(load: float) -> dict[str, Any]:
    installed = (name for name in _PACKAGES if importlib.util.find_spec(name))
    machine = {
        "cpu": _cpu_name(),
        "cores": THREADS,
        "load_before": load,
        "versions": {name: importlib.metadata.version(name) for name in installed},
    }
    if jax := sys.modules.get("jax"):
        machine["accelerator"] = jax.devices()[0].device_kind
    return machine


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
