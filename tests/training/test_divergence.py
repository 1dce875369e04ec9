"""A run whose loss, or its gradient, is no longer a finite number."""

import re
import shutil

import jax
import numpy as np
import optax
from tiny_recipe import BINDINGS as TINY
from tiny_recipe import RECIPE
from tiny_run import run

from uem_t5x.commands import train as train_command


class TestDivergence:
    MESSAGE = (
        r"uem_t5x\.train: the (loss|gradient) is not a finite number at step (\d+); "
        r"its batch holds the users ([^;]*); (.*)\. Look at their histories, or lower LEARNING_RATE"
    )
    # One update of this size leads to where nothing is a number, though its own loss is one.
    RUINOUS = ("LEARNING_RATE=1e30", "WARMUP_STEPS=0", "CHECKPOINT_PERIOD=1", "EVAL_PERIOD=0")

    def stopped(self, model_dir, dataset_folder, capsys, *macros):
        places = [f"MODEL_DIR={model_dir}", f"DATA_DIR={dataset_folder.path}"]
        tiny = [line.replace(" = ", "=") for line in TINY]
        given = [f"--gin.{macro}" for macro in (*tiny, *places, *macros)]
        assert train_command.main([f"--gin_file={RECIPE}", *given]) == 1
        found = re.fullmatch(self.MESSAGE, capsys.readouterr().err.splitlines()[-1])
        assert len(found[3].split(", ")) == 16
        return found[1], int(found[2]), found[4]

    def test_what_gives_no_loss_is_not_saved(self, undisturbed, dataset_folder, tmp_path, capsys):
        copy = shutil.copytree(undisturbed[0], tmp_path / "copy")
        stopped = self.stopped(copy, dataset_folder, capsys, "TRAIN_STEPS=9", *self.RUINOUS)
        assert stopped == ("loss", 7, "checkpoint_6 is still good")
        # And so it is: training goes on from it.
        step, state = run(copy, dataset_folder, "TRAIN_STEPS = 7")
        assert step == 7
        jax.tree.map(lambda leaf: np.testing.assert_array_less(np.abs(leaf), 1e3), state.params)

    def test_a_run_that_never_was_good(self, dataset_folder, tmp_path, capsys):
        stopped = self.stopped(tmp_path, dataset_folder, capsys, *self.RUINOUS)
        assert stopped == ("loss", 1, "no checkpoint was saved")
        assert not list(tmp_path.glob("checkpoint_*"))

    def test_a_gradient_that_is_no_number(self, dataset_folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(optax, "global_norm", lambda _: jax.numpy.float32(np.inf))
        stopped = self.stopped(tmp_path, dataset_folder, capsys, "TRAIN_STEPS=2")
        assert stopped == ("gradient", 1, "no checkpoint was saved")
