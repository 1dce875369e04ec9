"""`kill -9` at any moment of training and scoring changes nothing in the end."""

import collections
import contextlib
import json
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_recipe
from torture import victims

from uem_t5x.base import errors
from uem_t5x.checkpoints import folders

STEPS = 24
KILLS_A_RUN = 7  # so many that four runs are enough
SCORINGS = 4  # that are killed; tests/base/test_atomic.py kills one while it writes its scores
TRAINING = [
    *tiny_recipe.BINDINGS,
    f"TRAIN_STEPS = {STEPS}",
    "EVAL_PERIOD = 8",
    "CHECKPOINT_PERIOD = 2",
]


def start_training(model_dir, dataset_folder, log, measurements=None):
    bindings = [*TRAINING, *tiny_recipe.places(model_dir, dataset_folder.path)]
    arguments = (str(log), tiny_recipe.RECIPE, bindings, None, measurements and str(measurements))
    return victims.start(victims.train, *arguments)


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

    def __init__(self, model_dir, rng, measurements=None):
        self._model_dir, self._rng, self._measurements = model_dir, rng, measurements
        self._start = time.time()
        self._steps = self.saved()

    def saved(self):
        return set(folders.find(self._model_dir))

    def _begun(self):
        """Whether this process, and not one before it, has begun to write a checkpoint."""
        for path in self._model_dir.glob("checkpoint_*tmp*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ctime > self._start:
                    return True
        return False

    def starting(self, process):
        victims.soon(self._rng, 6)
        return process.is_alive()

    def saving(self, process):
        found = victims.wait_for(process, self._begun, timeout=120)
        victims.soon(self._rng, 0.1)
        return found

    def training(self, process):
        some = self._rng.randint(1, 3)
        found = victims.wait_for(process, lambda: len(self.saved() - self._steps) >= some, 120)
        victims.soon(self._rng, 0.5)
        return found

    def evaluating(self, process):
        some = self._rng.randint(1, 2)
        file = self._measurements
        found = victims.wait_for(
            process, lambda: file.exists() and file.stat().st_size >= some, timeout=120
        )
        victims.soon(self._rng, 0.2)
        return found


def test_training(undisturbed, dataset_folder, tmp_path, rng):
    log, measurements = tmp_path / "log", tmp_path / "measurements"
    kinds = ("starting", "saving", "training", "evaluating")
    expected = final_state(undisturbed)
    killed, reached = collections.Counter(), []
    for run in range(victims.KILLS):
        model_dir = tmp_path / f"model-{run}"
        for kind in rng.sample(2 * kinds, KILLS_A_RUN):
            measurements.unlink(missing_ok=True)
            process = start_training(model_dir, dataset_folder, log, measurements)
            moments = Moments(model_dir, rng, measurements)
            if getattr(moments, kind)(process) and victims.kill(process):
                killed[kind] += 1
                reached.append(max(moments.saved(), default=0))
            process.join()
        victims.finish(start_training(model_dir, dataset_folder, log), log)
        jax.tree.map(np.testing.assert_array_equal, final_state(model_dir), expected)
        assert not list(model_dir.glob("*tmp*"))
        if killed.total() >= victims.KILLS:
            break
    print(
        f"killed {dict(killed)} in {run + 1} runs, with checkpoints of the steps {sorted(reached)}"
    )
    assert killed.total() >= victims.KILLS
    assert set(killed) == set(kinds)
    assert max(reached) > STEPS / 2


def test_being_told_to_stop_takes_less_than_the_grace_period(dataset_folder, tmp_path, rng):
    """Cloud TPU gives 30 seconds."""
    log = tmp_path / "log"
    process = start_training(tmp_path / "model", dataset_folder, log)
    assert Moments(tmp_path / "model", rng).training(process)
    start = time.monotonic()
    process.terminate()
    process.join(60)
    assert process.exitcode == errors.PREEMPTED_EXIT_CODE
    seconds = time.monotonic() - start
    print(f"left {seconds:.1f} s after SIGTERM")
    assert seconds < 30


def test_scoring(undisturbed, tmp_path, rng):
    log = tmp_path / "log"

    def score(output):
        arguments = ["evaluate", "--model-dir", str(undisturbed), "--output", str(output)]
        return victims.start(victims.command, str(log), arguments)

    expected, output = tmp_path / "expected.json", tmp_path / "metrics.json"
    process = score(expected)
    start = time.monotonic()
    victims.finish(process, log)
    seconds = time.monotonic() - start
    killed = 0
    for _ in range(3 * SCORINGS):
        process = score(output)
        victims.soon(rng, seconds)
        killed += victims.kill(process)
        if output.exists():
            json.loads(output.read_text())
        if killed == SCORINGS:
            break
    assert killed == SCORINGS
    victims.finish(score(output), log)
    assert output.read_text() == expected.read_text()
