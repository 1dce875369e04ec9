"""Small folders of Transformers', and what tests make of them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from uem_t5x import network
from uem_t5x.checkpoints import huggingface

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "huggingface_t5"
WEIGHTS, INDEX = huggingface.WEIGHTS, huggingface.WEIGHTS_INDEX
# The networks that are written, but for their sizes.
NETWORKS = [
    {"logits_via_embedding": False},
    {"logits_via_embedding": True},
    {"encoder_attention": "local", "local_radius": 20},
    {"encoder_attention": "transient_global", "local_radius": 5, "global_block_size": 8},
]


def load(folder):
    config, tensors = huggingface.open_checkpoint(folder)
    params = {name: tensor.load() for name, tensor in tensors.items()}
    return config, traverse_util.unflatten_dict(params, sep="/")


def logits(config, params, encoder_inputs, targets):
    decoder_inputs = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    apply = jax.jit(network.Transformer(config).apply, static_argnames="enable_dropout")
    variables = {"params": params}
    return apply(variables, encoder_inputs, decoder_inputs, targets, enable_dropout=False)


def random_params(config):
    """Draws parameters of the network's own names and shapes."""
    tokens = jnp.ones((1, 2), jnp.int32)
    rng = np.random.default_rng(0)
    module = network.Transformer(config)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), tokens, tokens, tokens, enable_dropout=False)
    )
    return jax.tree.map(
        lambda leaf: rng.normal(scale=0.4, size=leaf.shape).astype(np.float32), shapes["params"]
    )


def edit_config(folder, **fields):
    path = folder / "config.json"
    edited = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in edited.items() if value != "DELETED"}))


def edit_tensors(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)
