"""`kill -9` at any moment of training, scoring, preparing and sweeping changes nothing in the end.

The moments are drawn anew each time; UEM_T5X_TORTURE_SEED repeats those of a run that has failed.
"""

import collections
import hashlib
import json
import os
import random
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_recipe
from torture import victims

from uem_t5x import preemption
from uem_t5x.data import synthetic
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.synthesize import SynthesizeOptions

KILLS = 25
STEPS = 40
TRAINING = [
    *tiny_recipe.BINDINGS,
    f"TRAIN_STEPS = {STEPS}",
    "EVAL_PERIOD = 8",
    "CHECKPOINT_PERIOD = 2",
]


@pytest.fixture(scope="module")
def rng():
    seed = int(os.environ.get("UEM_T5X_TORTURE_SEED", time.time_ns() % 10**6))
    print(f"UEM_T5X_TORTURE_SEED={seed}")
    return random.Random(seed)


def start_training(model_dir, dataset_folder, log):
    bindings = [*TRAINING, *tiny_recipe.places(model_dir, dataset_folder.path)]
    return victims.start(victims.train, str(log), tiny_recipe.RECIPE, bindings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset_folder):
    root = tmp_path_factory.mktemp("undisturbed")
    log = root / "log"
    victims.finish(start_training(root / "model", dataset_folder, log), log)
    return root / "model"


def final_state(model_dir):
    """Parameters, optimizer, step and item table: what each example that was seen has left."""
    folder = model_dir / f"checkpoint_{STEPS}" / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(folder.absolute())


class Moments:
    """Kinds of moments of a training run, told from outside by what lies in its folder."""

    def __init__(self, model_dir, rng):
        self._model_dir, self._rng = model_dir, rng
        self._checkpoints = self._saved()
        self._measured = self._sizes()

    def _saved(self):
        return {path.name for path in self._model_dir.glob("checkpoint_*")}

    def _sizes(self):
        files = self._model_dir.glob("training_eval/**/events.*")
        return sum(path.stat().st_size for path in files)

    def starting(self, process):
        victims.soon(self._rng, 6)
        return process.is_alive()

    def saving(self, process):
        found = victims.wait_for(
            process, lambda: any(self._model_dir.glob("checkpoint_*tmp*")), timeout=120
        )
        victims.soon(self._rng, 0.1)
        return found

    def training(self, process):
        found = victims.wait_for(process, lambda: self._saved() - self._checkpoints, timeout=120)
        victims.soon(self._rng, 0.5)
        return found

    def evaluating(self, process):
        found = victims.wait_for(process, lambda: self._sizes() > self._measured, timeout=120)
        victims.soon(self._rng, 0.2)
        return found


def test_training(undisturbed, dataset_folder, tmp_path, rng):
    log = tmp_path / "log"
    kinds = ("starting", "saving", "training", "evaluating")
    expected = final_state(undisturbed)
    killed = collections.Counter()
    for run in range(KILLS):
        model_dir = tmp_path / f"model-{run}"
        for kind in rng.sample(kinds, len(kinds)):
            process = start_training(model_dir, dataset_folder, log)
            if getattr(Moments(model_dir, rng), kind)(process):
                killed[kind] += victims.kill(process)
            process.join()
        victims.finish(start_training(model_dir, dataset_folder, log), log)
        jax.tree.map(np.testing.assert_array_equal, final_state(model_dir), expected)
        assert not list(model_dir.glob("*tmp*"))
        if killed.total() >= KILLS:
            break
    print(f"killed {dict(killed)} in {run + 1} runs")
    assert killed.total() >= KILLS
    assert set(killed) == set(kinds)


def test_being_told_to_stop_takes_less_than_the_grace_period(dataset_folder, tmp_path, rng):
    """Cloud TPU gives 30 seconds."""
    log = tmp_path / "log"
    process = start_training(tmp_path / "model", dataset_folder, log)
    assert Moments(tmp_path / "model", rng).training(process)
    start = time.monotonic()
    process.terminate()
    process.join(60)
    assert process.exitcode == preemption.EXIT_CODE
    seconds = time.monotonic() - start
    print(f"left {seconds:.1f} s after SIGTERM")
    assert seconds < 30


def test_scoring(undisturbed, tmp_path, rng):
    log = tmp_path / "log"

    def score(output):
        arguments = ["evaluate", "--model-dir", str(undisturbed), "--output", str(output)]
        return victims.start(victims.command, str(log), arguments)

    start = time.monotonic()
    victims.finish(score(tmp_path / "expected.json"), log)
    seconds = time.monotonic() - start
    output = tmp_path / "metrics.json"
    for _ in range(4):
        process = score(output)
        victims.soon(rng, seconds)
        victims.kill(process)
        if output.exists():
            json.loads(output.read_text())
    victims.finish(score(output), log)
    assert output.read_text() == (tmp_path / "expected.json").read_text()


def test_preparing(tmp_path, rng):
    log, movielens, output = (tmp_path / name for name in ("log", "movielens", "dataset"))
    synthetic.synthesize(SynthesizeOptions(movielens, users=400, movies=300, ratings=400 * 50))
    arguments = [
        *("prepare", "--movielens", str(movielens), "--overwrite", "--vocabulary-size", "256"),
        *("--descriptions", str(movielens / synthetic.DESCRIPTIONS), "--encoder-width", "16"),
    ]

    def prepare(folder):
        return victims.start(victims.command, str(log), [*arguments, "--output", str(folder)])

    start = time.monotonic()
    victims.finish(prepare(tmp_path / "expected"), log)
    seconds = time.monotonic() - start
    states = collections.Counter()
    for _ in range(KILLS):
        if rng.random() < 0.5:
            shutil.rmtree(output, ignore_errors=True)
        process = prepare(output)
        victims.soon(rng, 1.2 * seconds)
        states["killed"] += victims.kill(process)
        if output.exists():
            states["whole"] += 1
            assert sums(output) == sums(tmp_path / "expected")
            DatasetFolder.open(output)
    print(f"{dict(states)}, of {KILLS}; undisturbed {seconds:.1f} s")
    victims.finish(prepare(output), log)
    assert sums(output) == sums(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("dataset", "expected", "log", "movielens")
    ]


def sums(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_sweep(dataset_folder, tmp_path, rng):
    log, sweep = tmp_path / "log", tmp_path / "sweep.toml"
    sweep.write_text(
        "seeds = [0, 1]\n[[runs]]\nrecipes = ['uem_tiny']\n[recipes.uem_tiny]\n"
        "TRAIN_STEPS = 8\nBATCH_SIZE = 16\nCHECKPOINT_PERIOD = 2\nDECAY_STEPS = 0\n"
    )

    def run(output):
        arguments = ["sweep", str(sweep), "--output", str(output)]
        places = [f"--gin.DATA_DIR={dataset_folder.path}"]
        return victims.start(victims.command, str(log), [*arguments, *places])

    expected, output = tmp_path / "expected", tmp_path / "killed"
    victims.finish(run(expected), log)
    for event in ("*/checkpoint_*", "*seed=0/metrics.json", "*seed=1/checkpoint_*"):
        process = run(output)
        assert victims.wait_for(process, lambda event=event: any(output.glob(event)), 180)
        victims.soon(rng, 5)
        assert victims.kill(process)
    victims.finish(run(output), log)
    scores = {path.parent.name: path for path in output.glob("*/metrics.json")}
    assert len(scores) == 2
    for name, file in scores.items():
        assert file.read_text() == (expected / name / "metrics.json").read_text()
