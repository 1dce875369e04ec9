"""Coverage-guided fuzzing of all that reads what comes from outside.

FUZZ_SECONDS is the time of all targets together: 60 by default, 600 for a full run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torture import fuzz_targets

SCRIPT = Path(__file__).with_name("fuzz.py")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
# A run of a second that does less than this has looked at nothing.
LEAST_RUNS = 100


def fuzz(target, folder, *options):
    pytest.importorskip("atheris", reason="needs atheris: pip install -e '.[torture]'")
    return subprocess.run(
        [sys.executable, SCRIPT, target, folder, "-print_final_stats=1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS + 120,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )


@pytest.mark.parametrize("target", fuzz_targets.TARGETS)
def test_nothing_but_answers_and_refusals(target, tmp_path):
    seconds = max(1, round(SECONDS / len(fuzz_targets.TARGETS)))
    done = fuzz(target, tmp_path, f"-max_total_time={seconds}")
    assert done.returncode == 0, done.stdout[-5000:]
    runs = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    assert int(runs[1]) > LEAST_RUNS


def test_a_mistake_is_found(tmp_path):
    """The fuzzer finds four letters that no chance would: it sees which branches are taken."""
    done = fuzz("mistaken", tmp_path, "-max_total_time=60")
    assert done.returncode != 0
    assert "found what was hidden" in done.stdout
    assert [file.read_bytes()[:4] for file in tmp_path.glob("crash-*")] == [b"WXYZ"]
