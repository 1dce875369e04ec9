"""What `training/test_partitioning.py` runs on eight virtual devices: a line of JSON a layout.

    python tests/eight_devices.py

Each layout takes the same 20 steps, with Adafactor, of the same small UEM and T5.
"""

import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("PJRT_NPROC", "64")  # devices that wait for each other need a thread each
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
from unittest import mock

import jax
import numpy as np
import seqio

from uem_t5x import models, network
from uem_t5x.network import long_attention, lora, user_embedding
from uem_t5x.network.item_table import Channel
from uem_t5x.network.layouts import Layout
from uem_t5x.training import learning_rates, optimizers, partitioning, trainer

ROWS, WIDTH, VOCAB_SIZE, BATCH = {"title": 51, "rating": 11}, 16, 64, 32
RUNS = [
    ("data", 1, False),
    ("data", 8, False),
    ("fsdp", 8, False),
    ("model=4", 8, False),
    ("fsdp,model=2", 8, False),
    ("fsdp,model=2", 8, True),
    ("data", 1, False, "transient_global"),
    ("fsdp,model=2", 8, True, "transient_global"),
    ("data", 1, False, "perceiver"),
    ("data", 8, True, "perceiver"),
    ("fsdp", 8, False, "perceiver"),
    ("model=2", 8, False, "perceiver"),
    ("data", 1, False, "lora"),
    ("data", 8, True, "lora"),
    ("fsdp", 8, False, "lora"),
    ("model=2", 8, False, "lora"),
]
OF_LORA = lora.LoRA(4, targets=("query", "value", "out", "wi_0", "wo", "logits_dense"))


def model(scan_layers, kind):
    sizes = {"num_heads": 4, "head_dim": 8, "mlp_dim": 64, "scan_layers": scan_layers}
    config = network.T5Config(
        vocab_size=VOCAB_SIZE,
        emb_dim=32,
        num_encoder_layers=2,
        num_decoder_layers=2,
        encoder_attention=kind if kind == "transient_global" else "full",
        lora=OF_LORA if kind == "lora" else None,
        local_radius=3,
        global_block_size=2,
        **sizes,
    )
    user_prompt = user_embedding.UserPrompt(
        user_embedding.UserEmbeddingConfig(num_layers=2, **sizes),
        channels=(
            Channel("title", ROWS["title"], WIDTH, "item"),
            Channel("rating", ROWS["rating"], WIDTH, "rating"),
        ),
        prompt_length=4,
        **({"adapter": "perceiver", "soft_tokens": 5} if kind == "perceiver" else {}),
    )
    module = network.Transformer(config, user_prompt)
    vocabulary = seqio.PassThroughVocabulary(VOCAB_SIZE, eos_id=1)
    return models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizers.adafactor())


def item_vectors(channel):
    vectors = np.random.default_rng(len(channel)).normal(size=(ROWS[channel], WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return vectors.astype(np.float32)


def batch():
    rng = np.random.default_rng(0)

    def draw(high, length):
        return rng.integers(1, high, (BATCH, length)).astype(np.int32)

    targets = draw(VOCAB_SIZE, 8)
    return {
        "encoder_input_tokens": draw(VOCAB_SIZE, 6),
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_loss_weights": np.ones_like(targets),
        "history_items": draw(ROWS["title"], 10),
        "history_ratings": draw(ROWS["rating"], 10),
    }


def run(layout, devices, scan_layers, kind="full"):
    """Returns the losses, what a device holds of the state, and how often the step compiled."""
    partitioner = partitioning.Partitioner(Layout.parse(layout), jax.devices()[:devices])
    examples = batch()
    initializer = trainer.TrainStateInitializer(
        model(scan_layers, kind),
        {name: array.shape for name, array in examples.items()},
        partitioner,
        item_vectors=item_vectors,
    )
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    training = trainer.Trainer(
        model(scan_layers, kind),
        jax.random.PRNGKey(0),
        partitioner,
        initializer.state_shape,
        # At others rounding alone, a batch in another order, moves losses by 1e-5; here by 1e-6.
        learning_rates.trapezoid(0.003 if kind == "lora" else 0.008, total_steps=20),
    )
    sharded = partitioner.shard_batch(examples)
    losses = []
    for _ in range(20):
        state, metrics = training.train_step(state, sharded)
        losses.append(float(metrics["loss"].compute()))
    arrays = jax.tree.leaves(dataclasses.asdict(state))
    return {
        "losses": losses,
        "part": sum(array.addressable_data(0).nbytes for array in arrays)
        / sum(array.nbytes for array in arrays),
        "programs": training.train_step._cache_size(),
    }


if __name__ == "__main__":
    with mock.patch.object(long_attention, "CHUNK_QUERIES", 8):
        for arguments in RUNS:
            print(json.dumps([arguments, run(*arguments)]), flush=True)
