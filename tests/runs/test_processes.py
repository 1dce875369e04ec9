"""Several processes, as on a pod's hosts, on the loopback interface: they train as one does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow as tf
import virtual_devices
from several_processes import free_address

from uem_t5x import train
from uem_t5x.commands import train as train_command
from uem_t5x.runs import checks
from uem_t5x.training.checkpoint_manager import CheckpointManager

ROOT = Path(__file__).parents[2]
MACROS = {
    "HISTORY_LENGTH": 20,
    "BATCH_SIZE": 16,
    "TRAIN_STEPS": 4,
    "DECAY_STEPS": 0,
    "EVAL_STEPS": 1,
    "EVAL_PERIOD": 2,
    "STATS_PERIOD": 1,
    "CHECKPOINT_PERIOD": 2,
    "CHECKPOINTS_KEPT": 9,
    "DROPOUT_RATE": 0.1,
    "LEARNING_RATE": 0.001,
    "network.T5Config.num_encoder_layers": 2,
    "network.T5Config.emb_dim": 16,
    "network.T5Config.mlp_dim": 16,
    "network.T5Config.num_heads": 2,
    "network.T5Config.head_dim": 8,
    "user_embedding.UserEmbeddingConfig.num_heads": 2,
    "user_embedding.UserEmbeddingConfig.head_dim": 8,
    "user_embedding.UserEmbeddingConfig.mlp_dim": 16,
}


def start(model_dir, dataset_folder, devices, arguments=(), **macros):
    """Starts `python -m uem_t5x.train` with so many devices."""
    macros = {"MODEL_DIR": model_dir, "DATA_DIR": dataset_folder.path, **MACROS, **macros}
    command = [sys.executable, "-m", "uem_t5x.train", "--gin_file=gin/uem_tiny.gin", *arguments]
    command += [f"--gin.{name}={value}" for name, value in macros.items()]
    environment = {**os.environ, "XLA_FLAGS": virtual_devices.xla_flags(devices)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors[0][-3000:]
    return errors


def run_two(model_dir, dataset_folder, **macros):
    """Runs two processes of one device each."""
    address = free_address()
    join = [f"--coordinator_address={address}", "--process_count=2"]
    return finish(
        *(
            start(model_dir, dataset_folder, 1, [*join, f"--process_index={index}"], **macros)
            for index in range(2)
        )
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory, dataset_folder):
    model_dir = tmp_path_factory.mktemp("one")
    finish(start(model_dir, dataset_folder, 2, NUM_DATA_SHARDS=2))
    return model_dir


@pytest.fixture(scope="module")
def two(tmp_path_factory, dataset_folder):
    model_dir = tmp_path_factory.mktemp("two")
    errors = run_two(model_dir, dataset_folder, LAYOUT="fsdp")
    for said in ("loading JAX", "compiling", "step 4/4", "checkpoint_4 in "):
        assert said in errors[0] and said not in errors[1]
    return model_dir


def scalars(model_dir, collection):
    """Returns what TensorBoard shows: (step, name) -> value."""
    found = {}
    for path in sorted((model_dir / collection).glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag in ("loss", "accuracy", "gradient_norm"):
                    found[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    return found


def assert_close(one, other, rtol=1e-5):
    assert one.keys() == other.keys() and one
    np.testing.assert_allclose(list(one.values()), [other[name] for name in one], rtol=rtol)


def params(model_dir, step=4):
    manager = CheckpointManager(model_dir)
    restored = manager.restore_for_inference(step)
    manager.close()
    return restored


def assert_same_params(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params(one), params(other)
    )


def test_two_processes_give_the_losses_and_parameters_of_one(one, two):
    assert_close(scalars(one, "train"), scalars(two, "train"))
    assert_same_params(one, two)


def test_two_processes_measure_what_one_does(one, two):
    """Every example once: sums and counts of the whole split, and the same answers."""
    collection = "training_eval/movielens_genres_uem_20"
    assert_close(scalars(one, collection), scalars(two, collection))
    for name in ("metrics", "000004"):
        lines = [
            (folder / f"inference_eval/movielens_genres_uem_20-{name}.jsonl").read_text()
            for folder in (one, two)
        ]
        assert [json.loads(line) for line in lines[0].splitlines()] == [
            json.loads(line) for line in lines[1].splitlines()
        ]


def test_each_process_keeps_its_own_place_in_the_data(two):
    """Where T5X has it."""
    folder = two / "checkpoint_4/dataset"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.index")} == {
        "process_0-of-2/train_ds-000-of-002.index",
        "process_1-of-2/train_ds-001-of-002.index",
    }


TOLD_EARLY = """
import os, signal, sys, time
import jax
from uem_t5x.training.preemption import PreemptionNotice

address, index = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, index)
with PreemptionNotice() as notice:
    if index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)  # as long as a run takes to restore and compile
    asked = 1
    while asked < 50 and not notice.is_due():
        time.sleep(0.1)
        asked += 1
print("told to stop when asked", asked)
"""


def told_by_two(script, *arguments):
    """Returns the last line that each of two processes prints that run a script."""
    command = [sys.executable, "-c", script, free_address()]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(index), *arguments], **options) for index in range(2)]
    return [process.communicate(timeout=300)[0].splitlines()[-1] for process in both]


def test_processes_that_are_told_to_stop_before_their_first_step():
    """Whatever step they go on from."""
    assert told_by_two(TOLD_EARLY) == ["told to stop when asked 1"] * 2


TOLD_AFTER_SAVING = """
import os, signal, sys, time
from unittest import mock
import jax, numpy as np
from uem_t5x.training.checkpoint_manager import CheckpointConfig, CheckpointManager
from uem_t5x.training.optimizers import OPTAX
from uem_t5x.training.preemption import PreemptionNotice
from uem_t5x.training.trainer import TrainState

address, index, model_dir = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, 2, index)
params = {"dense": {"kernel": np.ones((2, 3), np.float32)}}
step = 1000  # where it goes on
config = CheckpointConfig()
with PreemptionNotice() as notice, CheckpointManager(model_dir, config, OPTAX) as manager:
    while step < 1010 and not notice.is_due():
        step += 1
        if step == 1003:
            manager.save(TrainState(np.int32(step), params, (), {}), mock.Mock(), None)
            manager._manager.wait_until_finished()
            if index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3)  # until it is known everywhere
print("told to stop at", step)
"""


def test_processes_that_went_on_and_are_told_to_stop_after_they_saved(tmp_path):
    """They would stop at 2004, if Orbax asked with a step what is asked with a count."""
    assert told_by_two(TOLD_AFTER_SAVING, str(tmp_path)) == ["told to stop at 1003"] * 2


def stopped_at_2(model_dir, copy):
    shutil.copytree(model_dir, copy)
    shutil.rmtree(copy / "checkpoint_4")
    return copy


def test_one_process_goes_on_where_two_stopped(two, dataset_folder, tmp_path):
    """With other devices, another layout, and layers scanned."""
    model_dir = stopped_at_2(two, tmp_path / "resumed")
    finish(start(model_dir, dataset_folder, 4, LAYOUT="model=2", SCAN_LAYERS=True))
    assert_same_params(model_dir, two)


def test_two_processes_go_on_where_one_stopped(one, dataset_folder, tmp_path):
    model_dir = stopped_at_2(one, tmp_path / "resumed")
    run_two(model_dir, dataset_folder)
    assert_same_params(model_dir, one)


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        (["NUM_DATA_SHARDS = 4"], "this MODEL_DIR's run reads its data in 2 parts"),
        (["NUM_DATA_SHARDS = 3", "MODEL_DIR = 'new'"], "does not divide BATCH_SIZE=16; use 2"),
    ],
)
def test_refused_numbers_of_parts(one, dataset_folder, macros, message):
    places = [f"DATA_DIR = {str(dataset_folder.path)!r}", f"MODEL_DIR = {str(one)!r}"]
    sizes = [f"{name} = {value}" for name, value in MACROS.items()]
    with pytest.raises(train.InputError, match=message):
        train.run_recipe(["gin/uem_tiny.gin"], [*places, *sizes, *macros])


PLACES = ["--gin_file=gin/uem_tiny.gin", "--gin.MODEL_DIR=m", "--gin.DATA_DIR=gs://d"]


def test_nobody_to_join(capsys):
    arguments = ["--coordinator_address=localhost:1", "--process_count=2"]
    assert train_command.main([*PLACES, *arguments]) == 2
    said = capsys.readouterr().err
    assert "waiting up to 5 minutes until 2 processes are at localhost:1\n" in said
    assert "cannot join the other processes" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--coordinator_address=localhost", "=localhost: give HOST:PORT of the first process"),
        ("--coordinator_address=", "=: give HOST:PORT"),
        ("--coordinator_address=:1234", "=:1234: give HOST:PORT"),
        ("--coordinator_address=localhost:", "=localhost:: give HOST:PORT"),
        ("--coordinator_address=localhost:abc", "=localhost:abc: give HOST:PORT"),
        ("--coordinator_address=localhost:0", "=localhost:0: give HOST:PORT"),
        ("--coordinator_address=localhost:65536", "=localhost:65536: give HOST:PORT"),
        ("--coordinator_address=http://localhost:1234/", "1234/: give HOST:PORT"),
        ("--coordinator_address=::1:1234", "=::1:1234: give HOST:PORT"),
        ("--coordinator_address=nobody.invalid:1234", "1234: no host of that name is known here"),
        ("--coordinator_address=a..b:1234", "a..b:1234: no host of that name is known here"),
        ("--coordinator_address=[::g]:1234", "[::g]:1234: no host of that name is known here"),
        ("--coordinator_address=localhost:1 --process_count=0", "--process_count=0: give 1 or"),
        (
            "--coordinator_address=localhost:1 --process_count=2 --process_index=2",
            "--process_index=2: give 0 to 1, of --process_count=2",
        ),
        ("--multiprocess --process_index=-1", "--process_index=-1: give 0 or more"),
        ("--process_count=2", "--process_count says not where the others are: give"),
        ("--process_index=0", "--process_index says not where the others are: give"),
    ],
)
def test_processes_that_cannot_be_joined(flags, message, capsys):
    assert train_command.main([*PLACES, *flags.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_address_of_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost")
    assert train_command.main([*PLACES, "--multiprocess"]) == 2
    assert "JAX_COORDINATOR_ADDRESS=localhost: give HOST:PORT" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        flags = [f"--coordinator_address={address}", "--process_count=2", "--process_index=0"]
        assert train_command.main([*PLACES, *flags]) == 2
    assert f"{address}: the first process cannot listen at port" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_addresses_that_can_be_joined(host):
    port = free_address().rpartition(":")[2]
    for index in ("0", "1"):
        flags = [f"--coordinator_address={host}:{port}", "--process_count=2"]
        command = train_command.parse([*PLACES, *flags, f"--process_index={index}"])
        files, bindings, arguments = command
        checks.check(files, bindings, train_command.told_of_processes(arguments))


def test_a_misspelt_macro_is_refused_before_training_is_imported(tmp_path):
    """And so is what is known of the processes."""
    (tmp_path / "mine.gin").write_text("include 'gin/uem_tiny.gin'\nHISTORY_LENGHT = 5\n")
    hidden = "import sys; sys.modules['jax'] = sys.modules['tensorflow'] = None; "
    script = f"{hidden}import runpy; runpy.run_module('uem_t5x.train', run_name='__main__')"
    places = [f"--gin_file={tmp_path / 'mine.gin'}", *PLACES[1:]]
    command = [sys.executable, "-c", script, *places]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.endswith("line 2: nothing refers to HISTORY_LENGHT; there is HISTORY_LENGTH")
