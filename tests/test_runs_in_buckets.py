"""A run in a bucket, by the clients that it has on a TPU: TensorFlow's, TensorStore's, Google's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import published_forms
import pytest
import tiny_recipe
from fake_bucket import FakeBuckets
from same_folders import assert_same_folder

from uem_t5x import train
from uem_t5x.answers.trained_model import TrainedModel

ROOT = Path(__file__).parents[1]
RUN = "bucket/runs/one"
PERIODS = ["EVAL_PERIOD = 2", "CHECKPOINT_PERIOD = 2"]


@pytest.fixture(scope="module")
def buckets(tmp_path_factory, dataset_folder):
    buckets = FakeBuckets(tmp_path_factory.mktemp("authority"))
    buckets.upload(Path(dataset_folder.path), "bucket/data")
    return buckets


def command(buckets, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **buckets.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(folder.iterdir())  # nothing is taken for a name of the disk
    return done


def train_for(steps, buckets, folder):
    places = tiny_recipe.places(f"gs://{RUN}", "gs://bucket/data")
    bindings = [*tiny_recipe.BINDINGS, *PERIODS, *places, f"TRAIN_STEPS = {steps}"]
    flags = ["--gin." + binding.replace(" = ", "=") for binding in bindings]
    return command(buckets, folder, "uem_t5x.train", f"--gin_file={tiny_recipe.RECIPE}", *flags)


def test_it_is_trained_gone_on_with_and_scored(buckets, dataset_folder, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    train_for(4, buckets, away)
    files = {name.removeprefix(f"{RUN}/") for name in buckets.objects if name.startswith(RUN)}
    assert {"config.gin", "catalogue/manifest.json", "checkpoint_4/checksums.json"} <= files
    assert {"checkpoint_2/commit_success.txt", "checkpoint_4/commit_success.txt"} <= files

    # As a kill leaves it in the middle of saving.
    del buckets.objects[f"{RUN}/checkpoint_4/commit_success.txt"]
    train_for(6, buckets, away)

    metrics = f"gs://{RUN}/metrics.json"
    command(
        buckets, away, "uem_t5x.cli", "evaluate", "--model-dir", f"gs://{RUN}", "--output", metrics
    )
    scores = json.loads(buckets.objects[metrics.removeprefix("gs://")])
    assert (scores["step"], scores["examples"]) == (6, 10)

    here = tmp_path / "here"
    places = tiny_recipe.places(here, dataset_folder.path)
    train.run_recipe(
        [tiny_recipe.RECIPE], [*tiny_recipe.BINDINGS, *PERIODS, *places, "TRAIN_STEPS = 6"]
    )
    buckets.download(RUN, tmp_path / "copy")
    one, other = (TrainedModel.load(folder, step=6) for folder in (here, tmp_path / "copy"))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_tables_of_a_bucket_are_prepared(buckets, tmp_path):
    """On one machine, and by a runner's workers into the bucket; both are the same folder."""
    pytest.importorskip("apache_beam", reason="needs uem-t5x[beam]")
    data = published_forms.write("amazon-reviews-2023", tmp_path / "data")
    buckets.upload(data, "bucket/tables")
    away = tmp_path / "away"
    away.mkdir()
    source = ["--source", "amazon-reviews-2023", "--data", "gs://bucket/tables"]
    prepare = ["uem_t5x.cli", "prepare", *source, "--encoder-width", "16"]
    prepare += ["--vocabulary-size", "700"]
    command(buckets, away, *prepare, "--output", str(tmp_path / "here"))
    output = ["--output", "gs://bucket/prepared", "--runner", "DirectRunner"]
    command(buckets, away, *prepare, *output)
    there = tmp_path / "there"
    buckets.download("bucket/prepared", there)
    assert_same_folder(tmp_path / "here", there)
