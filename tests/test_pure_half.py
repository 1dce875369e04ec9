"""The half that is of JAX alone: the network, checkpoints, a training step over arrays, answers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import uem_t5x

BLOCKED = ("tensorflow", "seqio", "gin", "polars", "sentencepiece", "sklearn")
# As if they were not installed: an import fails, and whoever looks for them finds nothing.
HEAD = f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED}))\n"
A_STEP = """
import types

import jax
import numpy as np

from uem_t5x import models, network
from uem_t5x.network import flops, user_embedding
from uem_t5x.network.item_table import Channel
from uem_t5x.training import learning_rates, optimizers, partitioning, predictor, trainer

t5 = network.T5Config(
    vocab_size=32, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=24,
    num_encoder_layers=1, num_decoder_layers=1,
)
uem = user_embedding.UserEmbeddingConfig(num_layers=1, num_heads=2, head_dim=8, mlp_dim=16)
channels = (Channel("title", 7, 8, "item"), Channel("rating", 11, 8, "rating"))
module = network.Transformer(
    t5, user_embedding.UserPrompt(uem, channels=channels, prompt_length=2)
)
vocabulary = types.SimpleNamespace(vocab_size=32, eos_id=1)
model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizers.adafactor())
batch = {
    "encoder_input_tokens": np.ones((2, 4), np.int32),
    "decoder_target_tokens": np.full((2, 3), 5, np.int32),
    "history_items": np.ones((2, 6), np.int32),
    "history_ratings": np.ones((2, 6), np.int32),
}
partitioner = partitioning.Partitioner()
vectors = {"title": np.ones((7, 8), np.float32), "rating": np.ones((11, 8), np.float32)}
initializer = trainer.TrainStateInitializer(
    model,
    {name: array.shape for name, array in batch.items()},
    partitioner,
    item_vectors=vectors.__getitem__,
)
state = initializer.from_scratch(jax.random.key(0))
steps = trainer.Trainer(
    model,
    jax.random.key(1),
    partitioner,
    initializer.state_shape,
    learning_rates.trapezoid(0.01, 2),
)
before = None
for _ in range(2):
    state, metrics = steps.train_step(state, partitioner.shard_batch(batch))
    loss = float(metrics["loss"].compute())
    assert before is None or loss < before
    before = loss
answers = predictor.Predictor(model, partitioner, 2).predict_batch(
    state.params, state.flax_mutables, batch
)
assert answers.shape == (2, 3)
assert flops.training_flops(module, {name: a.shape[1] for name, a in batch.items()}, 2) > 0
print("taken")
"""


def run(program):
    return subprocess.run(
        [sys.executable, "-c", HEAD + program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},  # it is read by TensorFlow
    )


@pytest.mark.parametrize("room", ["network", "checkpoints"])
def test_every_module_of_a_pure_room_is_imported_without_the_others(room):
    folder = Path(uem_t5x.__file__).parent / room
    modules = [f"uem_t5x.{room}.{path.stem}" for path in folder.glob("*.py")]
    assert len(modules) > 4
    ran = run(f"import importlib\nfor name in {modules}: importlib.import_module(name)")
    assert not ran.returncode, ran.stderr


def test_a_step_is_taken_and_an_answer_written_without_the_others():
    ran = run(A_STEP)
    assert ran.stdout == "taken\n", ran.stderr


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch: `benchmarks`")
@pytest.mark.parametrize("name", ["training_step", "generation"])
def test_a_benchmark_runs_without_the_others(name):
    arguments = ["benchmark", "--size", "tiny", "--repeats", "1"]
    arguments += {
        "training_step": ["--batch-size", "2", "--no-compile"],
        "generation": ["--batch-sizes", "2"],
    }[name]
    ran = run(
        f"import runpy; sys.argv = {arguments}\n"
        f"runpy.run_module('benchmarks.{name}', run_name='__main__')"
    )
    assert not ran.returncode, ran.stderr
    assert json.loads(ran.stdout)["benchmark"] == name


def test_what_is_blocked_is_blocked():
    assert "ModuleNotFoundError: import of gin" in run("import uem_t5x.engine").stderr
