"""Checkpoints that a disk has damaged, and runs whose loss is no number."""

import shutil

import pytest
from tiny_run import assert_same_params, run

from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import DamagedError


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def largest_file(folder):
    return max(folder.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def test_a_damaged_checkpoint_is_set_aside(undisturbed, dataset_folder, tmp_path):
    model_dir, state = undisturbed
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    damage(largest_file(copy / "checkpoint_6"))
    with pytest.raises(DamagedError, match=r"checkpoint_6/.*: damaged: its checksum is another"):
        TrainedModel.load(copy, step=6)
    assert TrainedModel.load(copy).step == 4
    # Training goes on from the one before, and comes to the same end.
    step, again = run(copy, dataset_folder, "TRAIN_STEPS = 6")
    assert step == 6
    assert_same_params(again, state)
    names = sorted(path.name for path in copy.glob("*checkpoint_*"))
    assert names == ["checkpoint_4", "checkpoint_6", "damaged_checkpoint_6"]

    # And so it does when the disk damages the same step again.
    damage(largest_file(copy / "checkpoint_6"))
    _, again = run(copy, dataset_folder, "TRAIN_STEPS = 6")
    assert_same_params(again, state)


def test_a_run_without_a_good_checkpoint_is_refused(undisturbed, dataset_folder, tmp_path):
    copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
    for name in ("state/_METADATA", "metrics/metrics"):
        damage(copy / "checkpoint_4" / name)
    (copy / "checkpoint_6/checksums.json").write_text('{"files"')
    for attempt in (lambda: run(copy, dataset_folder), lambda: TrainedModel.load(copy)):
        with pytest.raises(DamagedError, match=r"checkpoint_6/checksums.json: unreadable"):
            attempt()
    assert len(list(copy.glob("checkpoint_*"))) == 2
