"""What `launch/tpu` takes: its configuration file and its arguments."""

import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
REQUIRED = [
    *["PROJECT", "ZONE", "TPU_NAME", "ACCELERATOR_TYPE", "REPOSITORY", "REVISION"],
    *["ENGINE", "GIN_FILE", "DATA_DIR", "MODEL_DIR"],
]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("COLOUR=red", "COLOUR: no such setting"),
        ("ZONE=us central", "ZONE='us central': write a zone"),
        ('MODEL_DIR="gs://bucket/run"', "without quotes"),
        ("MODEL_DIR=runs/uem", "such as gs://my-bucket/folder"),
        ("ACCELERATOR_TYPE=v4", "such as v4-8"),
        ("PROVISIONING=cheap", "write on-demand, spot, queued or queued-spot"),
        ("ENGINE=torch", "write builtin or t5x"),
        ("TPU_NAME=$(touch pwned)", "TPU_NAME='$(touch pwned)': write 1 to 63 small letters"),
        ("REVISION=--upload-pack=x", "write a commit, a tag or a branch"),
        ("REPOSITORY=--upload-pack=x", "write an address"),
        ("CHECKPOINT_PERIOD=often", "write a number of steps"),
        ("MAX_RESUMES=-1", "write a whole number"),
        ("GIN_FILE=recipe", "write a recipe"),
        ("DATA_DIR=gs://bucket/data # mine", "a comment needs a line of its own"),
        ("GIN.MODEL_DIR=gs://bucket/run", "write MODEL_DIR=... instead"),
        ("touch pwned", "write NAME=value"),
        ("ZONE=a\x1b[31m", "remove the tab or control character"),
    ],
)
def test_a_mistake_is_one_line(cloud, line, named):
    name = line.partition("=")[0]
    lines = [f"{key}={value}" for key, value in cloud.config.items() if key != name]
    done = cloud.tpu("create", code=2, config="\n".join(["# Mine", "", line, *lines]))
    [message] = done.stderr.splitlines()
    assert f"{cloud.root}/my config:3: " in message
    assert named in message
    assert not cloud.calls()


def test_a_line_break_does_not_travel(cloud):
    cloud.config["DATA_DIR"] = "gs://bucket/a\ntouch pwned"
    assert "write NAME=value on one line" in cloud.tpu("train", code=2).stderr


@pytest.mark.parametrize("name", REQUIRED)
def test_a_setting_that_is_missing(cloud, name):
    cloud.config[name] = None
    [message] = cloud.tpu("create", code=2).stderr.splitlines()
    assert f"{name} is missing; see launch/config.example" in message


def test_a_setting_given_twice(cloud):
    cloud.config |= {"GIN.A": "1", "GIN.A ": "2"}
    assert "GIN.A=2: set twice" in cloud.tpu("create", code=2).stderr
    del cloud.config["GIN.A "]
    cloud.config["ZONE "] = "us-central1-a"
    assert "ZONE=us-central1-a: set twice" in cloud.tpu("create", code=2).stderr


def test_the_example_and_its_line_ends(cloud):
    example = (LAUNCH / "config.example").read_text()
    assert cloud.tpu("--dry-run", "create", config=example.replace("\n", "\r\n")).stdout
    uncommented = "\n".join(
        line.removeprefix("#") if line.startswith("#") and "=" in line and " " not in line else line
        for line in example.splitlines()
    )
    printed = cloud.tpu("--dry-run", "train", config=uncommented).stdout
    assert r"--gin.CHECKPOINT_PERIOD=500 --gin.TRAIN_STEPS=20000 --gin.LAYOUT=\"fsdp\"" in printed


def test_usage(cloud):
    for arguments, named in [
        ([], "a command is missing"),
        (["launch"], "launch: no such command"),
        (["create", "--now"], "--now: no such option"),
        (["create", "delete"], "delete: one command at a time"),
    ]:
        [message] = cloud.tpu(*arguments, code=2).stderr.splitlines()
        assert named in message and "launch/tpu help" in message
    done = subprocess.run(
        [LAUNCH / "tpu", "--config", "nowhere", "create"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "nowhere: no such file; copy launch/config.example" in done.stderr
    assert "Exit codes: 0 done" in cloud.tpu("help").stdout


def test_without_gcloud(cloud):
    (cloud.root / "bin/gcloud").unlink()
    done = subprocess.run(
        ["bash", LAUNCH / "tpu", "--config", cloud.write_config(), "create"],
        env={"PATH": str(only_what_is_needed(cloud.root))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "install the Google Cloud CLI" in done.stderr


def only_what_is_needed(root):
    """A PATH on which there is no gcloud, wherever this machine has it."""
    folder = root / "few"
    folder.mkdir()
    for name in ("bash", "dirname"):
        (folder / name).symlink_to(shutil.which(name))
    return folder
