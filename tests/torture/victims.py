"""What is run to be killed: in processes that start at once, as forks of one that has imported all.

Nothing here may start a thread, JAX's backends least of all, before the fork.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 25  # of training, at least, and of `prepare`

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["uem_t5x.cli", "uem_t5x.train", "uem_t5x.answers.trained_model"])


def train(
    log: str,
    recipe: str,
    bindings: list[str],
    xla_flags: str | None = None,
    measurements: str | None = None,
) -> None:
    """Trains, and ends with the exit code of the command.

    Args:
      log: a file for what it prints.
      recipe: a gin file.
      bindings: lines of gin.
      xla_flags: in place of the tests' own.
      measurements: a file that gets a letter whenever the model begins to answer validation users.
    """
    from uem_t5x.commands import train as train_command
    from uem_t5x.training import predictor

    _write_to(log)
    if measurements is not None:
        answer = predictor.Predictor.predict_dataset

        def noted(*arguments: object) -> object:
            with Path(measurements).open("a") as file:
                file.write("m")
            return answer(*arguments)

        predictor.Predictor.predict_dataset = noted
    if xla_flags is not None:
        os.environ["XLA_FLAGS"] = xla_flags
    gin_bindings = [f"--gin.{binding.replace(' = ', '=', 1)}" for binding in bindings]
    sys.exit(train_command.main([f"--gin_file={recipe}", *gin_bindings]))


def command(log: str, arguments: list[str]) -> None:
    """Runs a subcommand of `uem-t5x`."""
    from uem_t5x import cli

    _write_to(log)
    sys.exit(cli.main(arguments))


def _write_to(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def start(target: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    """Starts a victim."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def finish(process: multiprocessing.Process, log: Path, timeout: float = 300) -> None:
    """Waits for a victim that is spared.

    Raises:
      AssertionError: if it does not end well.
    """
    process.join(timeout)
    if process.exitcode != 0:
        process.kill()
        raise AssertionError(f"exit code {process.exitcode}: ...{log.read_text()[-2000:]}")


def kill(process: multiprocessing.Process) -> bool:
    """Kills a victim with SIGKILL; False if it had ended by itself."""
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def wait_for(
    process: multiprocessing.Process, event: Callable[[], bool], timeout: float = 60
) -> bool:
    """Waits until something has happened; False if the victim ended, or time ran out, before."""
    deadline = time.monotonic() + timeout
    while process.is_alive() and time.monotonic() < deadline:
        if event():
            return True
        time.sleep(0.002)
    return False


def soon(rng: random.Random, seconds: float) -> None:
    """Waits for a random time below `seconds`."""
    time.sleep(rng.random() * seconds)
