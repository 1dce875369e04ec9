"""A stand-in Google Cloud for a test, and what was asked of it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
STAND_IN = (Path(__file__).parent / "cloud.py").read_text()
# Not the virtual environment's: that one looks around longer before it starts.
PYTHON = getattr(sys, "_base_executable", sys.executable)

CONFIG = {
    "PROJECT": "my-project",
    "ZONE": "us-central2-b",
    "TPU_NAME": "uem",
    "ACCELERATOR_TYPE": "v4-8",
    "REPOSITORY": "https://example.com/uem.git",
    "REVISION": "c0ffee",
    "ENGINE": "builtin",
    "GIN_FILE": "gin/uem_tiny.gin",
    "DATA_DIR": "gs://bucket/data",
    "MODEL_DIR": "gs://bucket/run",
    "POLL_SECONDS": "0.02",
    "BACKOFF_SECONDS": "0",
}


class Cloud:
    """A stand-in for Google Cloud, and what was asked of it."""

    def __init__(self, root):
        self.root = root
        self.config = dict(CONFIG)
        self.hosts = 1
        for folder, names in {"bin": ["gcloud"], "vm-bin": ["git", "python3"]}.items():
            for name in names:
                path = root / folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(f"#!{PYTHON} -ISE\n{STAND_IN}")
                path.chmod(0o755)
        self.plan("exit=0")

    def plan(self, *runs):
        """Says what each start of training does; the last one, every further start."""
        (self.root / "plan").write_text("\n".join(runs))

    def set(self, kind, *states):
        (self.root / kind).write_text("\n".join(states))

    def environment(self):
        return os.environ | {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "STAND_IN": str(self.root),
            "HOSTS": str(self.hosts),
            # Nothing of it may end up in a command.
            "MODEL_DIR": "from the environment",
            "CHECKPOINT_PERIOD": "from the environment",
        }

    def write_config(self, text=None):
        path = self.root / "my config"
        lines = [f"{name}={value}" for name, value in self.config.items() if value is not None]
        path.write_text("\n".join(lines) + "\n" if text is None else text)
        return path

    def tpu(self, *arguments, code=0, config=None):
        done = subprocess.run(
            [LAUNCH / "tpu", "--config", self.write_config(config), *arguments],
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.root,
            timeout=30,
        )
        assert done.returncode == code, done.stdout + done.stderr
        done.said = self.said(done.stderr)
        return done

    def said(self, stderr):
        """What was printed, with the commands to type next as they are without --config."""
        return re.sub(r"(launch/tpu) --config .*?my\\ config", r"\1", stderr)

    def calls(self, who="gcloud"):
        path = self.root / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["who"] == who]

    def asked(self, *verbs):
        """What gcloud was asked to do, without what it was merely asked to say."""
        all_of_it = [call["argv"] for call in self.calls()]
        verbs = verbs or ("create", "delete")
        return [argv for argv in all_of_it if argv[3] in verbs]

    def trainings(self):
        """Each start of training on a host: its arguments after the script, its folder, ..."""
        return [call for call in self.calls("python") if call["argv"][:2] != ["-m", "pip"]]

    def fault(self, name, message="ERROR: connection reset by peer"):
        """Makes a verb of gcloud do nothing (`fail-VERB`), or do it and fail (`break-VERB`)."""
        (self.root / name).write_text(message)

    def forget(self):
        (self.root / "calls.jsonl").unlink(missing_ok=True)

    def up(self):
        """A TPU that is READY and set up, as far as training needs it."""
        if self.config.get("PROVISIONING", "").startswith("queued"):
            self.set("queued-resources", "ACTIVE")
        self.set("tpu-vm", "READY")
        for host in range(self.hosts):
            home = self.root / f"host-{host}"
            for folder in ("repository/.git", "t5x/.git", "uv/bin", "venv/bin"):
                (home / "uem-t5x" / folder).mkdir(parents=True)
            shutil.copy(LAUNCH / "on_vm", home / "uem-t5x-on-vm")
            shutil.copy(self.root / "vm-bin/python3", home / "uem-t5x/venv/bin/python")
            shutil.copy(self.root / "vm-bin/python3", home / "uem-t5x/uv/bin/uv")
        self.forget()

    def wait(self, text="training ended"):
        """Until the logs of all hosts say `text`."""
        logs = [self.root / f"host-{host}/uem-t5x/train.log" for host in range(self.hosts)]
        for _ in range(500):
            if all(log.exists() and text in log.read_text() for log in logs):
                return
            time.sleep(0.01)
        raise AssertionError(f"training never says {text}")


@pytest.fixture
def cloud(tmp_path):
    root = tmp_path / "a cloud's $(touch pwned)"
    root.mkdir()
    yield Cloud(root)
    for pid in root.glob("host-*/uem-t5x/train.pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)
    assert not list(tmp_path.rglob("pwned"))
