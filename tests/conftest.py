"""Checks every annotated tensor shape while the tests run, and builds what several tests share."""

import dataclasses
import os
import shutil
from pathlib import Path

import virtual_devices

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Several devices, so that everything that trains does so data-parallel.
os.environ.setdefault("XLA_FLAGS", virtual_devices.xla_flags(2))
# Virtual devices that wait for each other need a thread each, also on a machine with few cores.
os.environ.setdefault("PJRT_NPROC", "64")
# The same small programs are compiled again and again, by several processes at once.
CACHE = Path(__file__).parents[1] / ".pytest_cache/jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# AutoGraph warns about every function that the import hook below has wrapped.
os.environ.setdefault("AUTOGRAPH_VERBOSITY", "0")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("uem_t5x", "beartype.beartype")

import gin  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def gin_is_clear():
    """What one test's recipe binds, no other test reads."""
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """A small dataset folder with its own vocabulary: 60 made-up users, 10 of them for test."""
    import tiny_data

    root = tmp_path_factory.mktemp("data")
    movielens = tiny_data.synthesized(root / "movielens", users=60, movies=120, ratings=60 * 50)
    return tiny_data.prepared(movielens, root / "dataset")


@pytest.fixture(scope="session")
def sharded_folder(dataset_folder, tmp_path_factory):
    """The same users, with those of `train` spread over three files."""
    import tensorflow as tf

    from uem_t5x.data import dataset_folder as dataset_folder_lib
    from uem_t5x.data.manifest import Split

    path = tmp_path_factory.mktemp("sharded") / "folder"
    shutil.copytree(dataset_folder.path, path)
    files = [str(file) for file in dataset_folder.examples("train")]
    for index, file in enumerate(dataset_folder_lib.shard_paths(path, "train", 3)):
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in tf.data.TFRecordDataset(files).shard(3, index).as_numpy_iterator():
                writer.write(record)
    manifest = dataset_folder.manifest
    train = Split(manifest.splits["train"].examples, shards=3)
    dataclasses.replace(manifest, splits={**manifest.splits, "train": train}).write(path)
    return dataset_folder_lib.DatasetFolder.open(path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, dataset_folder):
    """A run of six steps at a stretch, measured every four, saved every two: folder and state.

    Whoever changes the folder, or goes on with the run, takes a copy.
    """
    import tiny_run

    model_dir = tmp_path_factory.mktemp("undisturbed")
    periods = ("EVAL_PERIOD = 4", "CHECKPOINT_PERIOD = 2")
    step, state = tiny_run.run(model_dir, dataset_folder, "TRAIN_STEPS = 6", *periods)
    assert step == 6
    return model_dir, state


@pytest.fixture(scope="session")
def trained(undisturbed):
    """The model of that run's last step."""
    from uem_t5x.answers.trained_model import TrainedModel

    return TrainedModel.load(undisturbed[0], step=6)


@pytest.fixture
def mixture():
    """The name of a mixture of two tasks."""
    import seqio

    from uem_t5x.tasks import movielens

    name = "movielens_uem_twice"
    seqio.MixtureRegistry.add(name, [movielens.uem_task(20), movielens.uem_task(5)], 1.0)
    yield name
    seqio.MixtureRegistry.remove(name)
