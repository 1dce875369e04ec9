"""That every benchmark runs and gives its line; what it measures so small says nothing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = {
    "encoding": "--layers 1 --batch-size 2 --tokens 8",
    "engine_overhead": "--size tiny --batch-size 8 --stats-period 1",
    "generation": "--size tiny --batch-sizes 2",
    "growth": "--size tiny --items 2 4 8 --text-items 1 2 --tokens-per-item 8",
    "input_pipeline": "--users 200 --batch-size 8 --batches 2",
    "preparing": "--scale 0.001",
    "tuning": "--size tiny --batch-size 2 --only LoRA",
    "training_step": "--size tiny --batch-size 2 --no-compile",
}
PEERS = ("pandas", "pyarrow", "torch", "transformers")
lacking = [name for name in PEERS if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(lacking), reason=f"needs what we are compared with: {lacking}")
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name):
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--repeats", "1", *SMALL[name].split()],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = map(json.loads, ended.stdout.splitlines())
    assert line["benchmark"] == name
    assert line["bounds"]
