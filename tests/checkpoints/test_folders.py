"""Which checkpoint is used, where some are damaged."""

import json

import pytest
from etils import epath

from uem_t5x.base import checksums
from uem_t5x.base.errors import DamagedError
from uem_t5x.checkpoints import folders


@pytest.fixture
def run(tmp_path):
    """Three checkpoints, the second one of which is the best."""
    for step, f1 in ((1, 0.2), (2, 0.9), (3, 0.5)):
        checkpoint = epath.Path(tmp_path / f"checkpoint_{step}")
        (checkpoint / "state").mkdir(parents=True)
        (checkpoint / "metrics").mkdir()
        for part in "ab":
            (checkpoint / f"state/{part}").write_text(f"{part} {step}")
        (checkpoint / "metrics/metrics").write_text(json.dumps({"f1": f1}))
        folders.seal(checkpoint)
    return tmp_path


def damage(run, *steps):
    for step in steps:
        for part in "ab":
            (run / f"checkpoint_{step}/state/{part}").write_text("other")


@pytest.fixture
def read(monkeypatch):
    """The checkpoints that are read to the end."""
    checked, sha256 = set(), checksums.sha256
    monkeypatch.setattr(
        checksums, "sha256", lambda file: checked.add(file.parent.parent.name) or sha256(file)
    )
    return checked


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(folders.logging, "warning", lambda text, *words: lines.append(text % words))
    return lines


def test_only_the_checkpoint_that_is_used_is_checked(run, read, told):
    damage(run, 1)
    assert folders.choose(run) == 2
    assert read == {"checkpoint_2"}
    assert not told


def test_the_next_best_is_used_where_the_best_is_damaged(run, read, told):
    damage(run, 2)
    assert folders.choose(run) == 3
    assert read == {"checkpoint_2", "checkpoint_3"}
    (line,) = told
    assert "checkpoint_2/state/a: damaged" in line and line.endswith("Another one is used")


def test_none_that_can_be_read(run, told):
    damage(run, 1, 2, 3)
    for attempt in (folders.choose, folders.set_aside_damaged):
        with pytest.raises(DamagedError, match=r"is left .*checkpoint_3/state/a: damaged"):
            attempt(run)
    assert list(folders.find(run)) == [1, 2, 3]
    assert not told


def test_training_sets_aside_all_that_are_damaged(run, told):
    damage(run, 2)
    folders.set_aside_damaged(run)
    assert list(folders.find(run)) == [1, 3]
    assert len(told) == 1
