"""Every region of every file flipped or cut off: found out and named, or without effect."""

import collections
import itertools
import random
import shutil

import jax
import numpy as np
import pytest
import tiny_recipe

from uem_t5x import train
from uem_t5x.base.errors import DamagedError, InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.training.checkpoint_manager import CheckpointManager

REGIONS = 24  # of a file; each is flipped at a random place
CUTS = 8
STEP = 4


@pytest.fixture(scope="module")
def rng():
    return random.Random(7)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, dataset_folder):
    folder = tmp_path_factory.mktemp("model")
    bindings = [
        *tiny_recipe.BINDINGS,
        "TRAIN_STEPS = 4",
        "CHECKPOINT_PERIOD = 2",
        "EVAL_PERIOD = 2",
    ]
    places = tiny_recipe.places(folder, dataset_folder.path)
    train.run_recipe([tiny_recipe.RECIPE], [*bindings, *places])
    return folder


def files_of(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def damages(content, rng):
    """Yields contents with one bit flipped, one for each region, and contents that are cut off."""
    bounds = np.linspace(0, len(content), min(REGIONS, len(content)) + 1).astype(int).tolist()
    for first, last in itertools.pairwise(bounds):
        flipped = bytearray(content)
        flipped[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
    for _ in range(CUTS if content else 0):
        yield content[: rng.randrange(len(content))]


def each_damage(folder, rng):
    """Damages each file below a folder in each way, mends it again; yields the file meanwhile."""
    for file in files_of(folder):
        content = file.read_bytes()
        for damaged in damages(content, rng):
            file.write_bytes(damaged)
            yield file
        file.write_bytes(content)


def test_a_dataset_folder(dataset_folder, tmp_path, rng):
    copy = shutil.copytree(dataset_folder.path, tmp_path / "dataset")
    seen = collections.Counter()
    for file in each_damage(copy, rng):
        try:
            opened = DatasetFolder.open(copy)
        except InputError as error:
            assert str(file) in str(error)
            seen["found out"] += 1
        else:
            # White space, say.
            assert file.name == "manifest.json"
            assert opened.manifest == dataset_folder.manifest
            seen["without effect"] += 1
    print(dict(seen))
    assert seen["found out"] > 100
    assert DatasetFolder.open(copy).manifest == dataset_folder.manifest


def test_a_checkpoint(model_dir, tmp_path, rng):
    copy = shutil.copytree(model_dir, tmp_path / "model")
    expected = restore(copy)
    assert folders.choose(copy) == folders.choose(model_dir)
    seen = collections.Counter()
    for file in each_damage(copy / f"checkpoint_{STEP}", rng):
        try:
            folders.check(copy / f"checkpoint_{STEP}")
        except DamagedError as error:
            assert str(file) in str(error)
            assert folders.choose(copy) == STEP - 2
            seen["found out"] += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, restore(copy), expected)
            seen["without effect"] += 1
            seen[file.name] += 1
    print(dict(seen))
    assert seen["found out"] > 400


def restore(model_dir):
    manager = CheckpointManager(model_dir)
    restored = manager.restore_for_inference(STEP)
    manager.close()
    return restored
