"""A disk that is full, read-only or gone, and no file handles left: a clear end, and no damage."""

import subprocess
import sys

import pytest
import tiny_recipe
from torture import victims

from uem_t5x.checkpoints import folders
from uem_t5x.data import synthetic

TRAINING = [*tiny_recipe.BINDINGS, "CHECKPOINT_PERIOD = 2", "EVAL_PERIOD = 0"]


def arguments(model_dir, data_dir, *bindings):
    places = tiny_recipe.places(model_dir, data_dir)
    given = [f"--gin.{line.replace(' = ', '=', 1)}" for line in [*TRAINING, *places, *bindings]]
    return [f"--gin_file={tiny_recipe.RECIPE}", *given]


def run_on_a_disk(disk, script, *options):
    """Runs a script of shell in which `disk` is a file system of its own, gone when it ends."""
    mount = f"mount -t tmpfs {' '.join(options)} tmpfs {disk}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} || exit 99; {script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"needs leave to mount a file system: {done.stderr.strip()}")
    return done


def shell(arguments):
    return f"{sys.executable} -m uem_t5x.train " + " ".join(f'"{word}"' for word in arguments)


def test_a_full_disk(dataset_folder, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    endless = ("TRAIN_STEPS = 400", "CHECKPOINTS_KEPT = 400")
    train = shell(arguments(disk / "model", dataset_folder.path, *endless))
    done = run_on_a_disk(
        disk,
        # What else there is on it leaves room for one checkpoint and a half.
        f"{train.replace('STEPS=400', 'STEPS=4')} && "
        f"size=$(du -sB1 {disk}/model/checkpoint_4 | cut -f1) && "
        f"free=$(df --output=avail -B1 {disk} | tail -1) && "
        f"head -c $((free - size * 3 / 2)) /dev/zero > {disk}/others || exit 98; "
        f"{train}; code=$?; rm {disk}/others; cp -r {disk}/model {kept}; exit $code",
        "-o size=64m",
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("uem_t5x.train: ")]
    print(lines)
    assert done.returncode == 1
    assert lines[-1].startswith(f"uem_t5x.train: {disk}/model: a checkpoint cannot be saved")
    assert "checkpoint_6 is still good" in lines[-1]
    assert "Traceback" not in done.stderr
    found = folders.find(kept)
    assert list(found) == [2, 4, 6]
    for checkpoint in found.values():
        folders.check(checkpoint)
    assert folders.choose(kept) in found
    # There is room now: it goes on.
    log = tmp_path / "log"
    bindings = [*TRAINING, *tiny_recipe.places(kept, dataset_folder.path), "TRAIN_STEPS = 8"]
    victims.finish(victims.start(victims.train, str(log), tiny_recipe.RECIPE, bindings), log)


@pytest.mark.parametrize("size", ["16k", "64k"])
def test_a_full_disk_and_the_other_commands(size, dataset_folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    movielens = dataset_folder.path.parent / "movielens"
    command = (
        f"{sys.executable} -m uem_t5x.cli prepare --movielens {movielens} --descriptions "
        f"{movielens}/{synthetic.DESCRIPTIONS} --encoder-width 16 --validation-users 10 "
        f"--test-users 10 --vocabulary-size 256 --output {disk}/dataset"
    )
    done = run_on_a_disk(disk, f"{command}; code=$?; ls -A {disk}; exit $code", f"-o size={size}")
    print(done.stderr.splitlines()[-1])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("uem-t5x prepare: ")
    assert "No space left" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not done.stdout.split()  # nothing half-written


def test_a_read_only_disk(dataset_folder, tmp_path):
    train = shell(arguments(tmp_path / "disk/model", dataset_folder.path, "TRAIN_STEPS = 4"))
    (tmp_path / "disk").mkdir()
    done = run_on_a_disk(tmp_path / "disk", train, "-o ro")
    print(done.stderr.splitlines()[-1])
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_folder_that_vanishes(dataset_folder, tmp_path):
    log, model_dir, moved = (tmp_path / name for name in ("log", "model", "moved"))
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    bindings = [*TRAINING, *places, "TRAIN_STEPS = 20000"]
    process = victims.start(victims.train, str(log), tiny_recipe.RECIPE, bindings)
    assert victims.wait_for(process, lambda: any(model_dir.glob("checkpoint_??")), 120)
    model_dir.rename(moved)
    process.join(120)
    assert process.exitcode == 1
    last = log.read_text().splitlines()[-1]
    print(last)
    assert last.startswith(f"uem_t5x.train: {model_dir}: ")
    assert folders.choose(moved)


def test_too_few_file_handles(dataset_folder, tmp_path):
    train = shell(arguments(tmp_path / "model", dataset_folder.path, "TRAIN_STEPS = 4"))
    command = ["sh", "-c", f"ulimit -n 40; {train}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("uem_t5x.train: this process may open 40 files")
    assert not (tmp_path / "model").exists()
