"""What training leaves as it is takes room once, in however many checkpoints."""

import shutil

import numpy as np
import pytest
import tiny_recipe
from flax import traverse_util

from uem_t5x import train
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import DamagedError
from uem_t5x.checkpoints import folders
from uem_t5x.training import checkpoint_manager, validation

LORA = ["LORA_RANK = 2", "LORA_TARGETS = ('query',)", "network.T5Config.emb_dim = 64"]


def run(model_dir, dataset_folder, steps, *bindings):
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    of_run = [f"TRAIN_STEPS = {steps}", "CHECKPOINT_PERIOD = 1", "CHECKPOINTS_KEPT = 9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation.Validation, "measure", lambda *_: {})
        train.run_recipe(
            [tiny_recipe.RECIPE], [*tiny_recipe.BINDINGS, *LORA, *of_run, *bindings, *places]
        )
    return model_dir


@pytest.fixture(scope="module")
def model_dir(dataset_folder, tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), dataset_folder, 3)


def arrays(checkpoint):
    """Files of arrays by name, and which file of the disk each is."""
    state = checkpoint / "state"
    files = [file for file in state.rglob("*") if file.is_file() and file.stat().st_size >= 4096]
    return {str(file.relative_to(state)): file.stat().st_ino for file in files}


def test_the_base_lies_there_once(model_dir):
    first, *others = (arrays(model_dir / f"checkpoint_{step}") for step in (1, 2, 3))
    base = {name for name in first if name.startswith("target.decoder.logits_dense")}
    assert base
    for other in others:
        shared = {name for name, inode in other.items() if first.get(name) == inode}
        assert base <= shared
        assert not any("user_embedding" in name for name in shared)


def test_every_checkpoint_is_whole(model_dir, tmp_path):
    """One by itself, elsewhere, is all that it takes."""
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    for step in (1, 2):
        shutil.rmtree(copy / f"checkpoint_{step}")
    here, there = (
        traverse_util.flatten_dict(dict(TrainedModel.load(folder, 3).params), sep="/")
        for folder in (model_dir, copy)
    )
    assert here.keys() == there.keys()
    for name, values in here.items():
        np.testing.assert_array_equal(values, there[name], err_msg=name)


def test_a_run_goes_on_from_one_store_of_all_arrays(dataset_folder, tmp_path, monkeypatch):
    """As older versions saved them."""
    handler = checkpoint_manager.ocp.PyTreeCheckpointHandler

    def in_one_store(*_, **__):
        return handler(use_ocdbt=True)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_manager.ocp, "PyTreeCheckpointHandler", in_one_store)
        run(tmp_path / "run", dataset_folder, 1)
    assert (tmp_path / "run/checkpoint_1/state/manifest.ocdbt").is_file()
    run(tmp_path / "run", dataset_folder, 3)
    assert not (tmp_path / "run/checkpoint_3/state/manifest.ocdbt").exists()
    whole = run(tmp_path / "whole", dataset_folder, 3)
    one, other = (
        traverse_util.flatten_dict(dict(TrainedModel.load(folder, 3).params), sep="/")
        for folder in (tmp_path / "run", whole)
    )
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_a_damaged_file_is_no_file_to_share(dataset_folder, tmp_path):
    run(tmp_path, dataset_folder, 1)
    (file,) = (tmp_path / "checkpoint_1/state").glob("target.decoder.logits_dense.kernel/0.0")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    sound = folders.check
    with pytest.MonkeyPatch.context() as patch:
        # Damaged after the run has looked, and before the next checkpoint.
        def check_then_damage(checkpoint):
            sound(checkpoint)
            file.write_bytes(content)

        patch.setattr(folders, "check", check_then_damage)
        run(tmp_path, dataset_folder, 2)
    with pytest.raises(DamagedError, match=r"logits_dense.kernel/0.0"):
        folders.check(tmp_path / "checkpoint_1")
    first, second = (arrays(tmp_path / f"checkpoint_{step}") for step in (1, 2))
    name = "target.decoder.logits_dense.kernel/0.0"
    assert first[name] != second[name]
