"""`kill -9` at any moment of preparing and sweeping changes nothing in the end."""

import collections
import hashlib
import shutil
import time

from torture import victims

from uem_t5x.data import synthetic
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.synthetic import SynthesizeOptions


def test_preparing(tmp_path, rng):
    log, movielens, output = (tmp_path / name for name in ("log", "movielens", "dataset"))
    synthetic.synthesize(SynthesizeOptions(movielens, users=400, movies=300, ratings=400 * 50))
    arguments = [
        *("prepare", "--movielens", str(movielens), "--overwrite", "--vocabulary-size", "256"),
        *("--descriptions", str(movielens / synthetic.DESCRIPTIONS), "--encoder-width", "16"),
    ]

    def prepare(folder):
        return victims.start(victims.command, str(log), [*arguments, "--output", str(folder)])

    expected = tmp_path / "expected"
    process = prepare(expected)
    start = time.monotonic()  # by now it runs; starting the first victim takes long
    victims.finish(process, log)
    seconds = time.monotonic() - start
    states = collections.Counter()
    for _ in range(3 * victims.KILLS):
        states["runs"] += 1
        if rng.random() < 0.5:
            shutil.rmtree(output, ignore_errors=True)
        elif not output.exists():
            shutil.copytree(expected, output)
        states["replaced"] += output.exists()
        process = prepare(output)
        victims.soon(rng, seconds)
        states["killed"] += victims.kill(process)
        if output.exists():
            states["whole"] += 1
            assert sums(output) == sums(expected)
            DatasetFolder.open(output)
        if states["killed"] == victims.KILLS:
            break
    print(f"{dict(states)}; undisturbed {seconds:.1f} s")
    assert states["killed"] == victims.KILLS
    victims.finish(prepare(output), log)
    assert sums(output) == sums(expected)
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
        "HISTORY_LENGTH = 20\nUEM_LAYERS = 1\n"
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
