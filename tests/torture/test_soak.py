"""A long run: what it holds of the machine does not grow."""

import statistics
import time
from pathlib import Path

import tiny_recipe
from torture import victims

STEPS = 20_000


def test_a_long_run_does_not_grow(dataset_folder, tmp_path):
    log, model_dir = tmp_path / "log", tmp_path / "model"
    bindings = [
        *tiny_recipe.BINDINGS,
        *tiny_recipe.places(model_dir, dataset_folder.path),
        f"TRAIN_STEPS = {STEPS}",
        "BATCH_SIZE = 4",
        "EVAL_PERIOD = 500",
        "CHECKPOINT_PERIOD = 500",
        "STATS_PERIOD = 100",
    ]
    start = time.monotonic()
    # On one device, and optimized, which so many steps are worth.
    process = victims.start(victims.train, str(log), tiny_recipe.RECIPE, bindings, "")
    samples = []
    while process.is_alive():
        if step := latest_step(model_dir):
            samples.append((step, *held(process.pid)))
        time.sleep(0.5)
    victims.finish(process, log)
    minutes = (time.monotonic() - start) / 60

    def between(first, last):
        chosen = [sample for sample in samples if first * STEPS <= sample[0] <= last * STEPS]
        return [values for _, *values in chosen if all(values)]

    windows = between(0.2, 0.4), between(0.5, 0.7), between(0.8, 1)
    memory, threads, handles = (
        [statistics.median(row[column] for row in rows) for rows in windows] for column in range(3)
    )
    print(f"{minutes:.1f} min; MiB {memory}, threads {threads}, file handles {handles}")
    assert memory[2] <= 1.05 * memory[0]
    # A pool may come to its last thread late, once; what is left behind is left again and again.
    assert threads[1] <= threads[0] or threads[2] <= threads[1]
    assert handles[2] <= handles[0]


def latest_step(model_dir):
    names = (path.name.removeprefix("checkpoint_") for path in model_dir.glob("checkpoint_*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def held(pid):
    """Returns a process's resident memory in MiB, its threads and its open file handles."""
    process = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        handles = len(list((process / "fd").iterdir()))
        return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), handles
    except (OSError, KeyError):  # it has just ended
        return 0, 0, 0
