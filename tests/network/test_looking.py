"""What a user can look at: the attention of every layer, however the layers are run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from uem_t5x import network
from uem_t5x.network import stacks
from uem_t5x.network.attention import ATTENTION_WEIGHTS

CONFIG = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=3,
    num_decoder_layers=2,
    dropout_rate=0.1,
)
TEXT = np.array([[4, 5, 6, 7], [7, 8, 0, 0]], np.int32)
ANSWER = np.array([[5, 9, 1], [7, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
    tokens = (TEXT, ANSWER, ANSWER)
    module = network.Transformer(CONFIG)
    init = functools.partial(module.init, enable_dropout=False)
    return jax.jit(init)(jax.random.PRNGKey(0), *tokens)["params"]


def attention(params, dropout=False, **options):
    """Returns the attention weights of every layer, [batch, heads, queries, keys], by its name."""
    module = network.Transformer(dataclasses.replace(CONFIG, **options))
    apply = functools.partial(module.apply, enable_dropout=dropout, mutable=["intermediates"])
    rngs = {"dropout": jax.random.PRNGKey(1)} if dropout else None
    _, state = jax.jit(apply)({"params": params}, TEXT, ANSWER, ANSWER, rngs=rngs)
    sown = traverse_util.flatten_dict(stacks.unstack(state["intermediates"]), sep="/")
    return {name.removesuffix(f"/{ATTENTION_WEIGHTS}"): values for name, (values,) in sown.items()}


def test_the_attention_of_every_layer_is_seen(params):
    seen = attention(params)
    assert seen.keys() == {
        *(f"encoder/layers_{layer}/attention" for layer in range(3)),
        *(f"decoder/layers_{layer}/self_attention" for layer in range(2)),
        *(f"decoder/layers_{layer}/encoder_decoder_attention" for layer in range(2)),
    }
    weights = seen["encoder/layers_2/attention"]
    assert weights.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights[1, :, :2, 2:], 0, atol=1e-6)  # padding


@pytest.mark.parametrize(
    ("dropout", "remat", "is_stacked"),
    [
        (False, "full", False),
        (True, "minimal", False),
        (False, "none", True),
        (True, "full", True),
    ],
)
def test_it_is_the_same_however_layers_are_run(params, dropout, remat, is_stacked):
    given = stacks.stack(params) if is_stacked else params
    seen = attention(given, dropout, remat=remat, scan_layers=is_stacked)
    expected = attention(params, dropout)
    assert seen.keys() == expected.keys()
    for name, weights in expected.items():
        np.testing.assert_allclose(seen[name], weights, rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_modules_return_is_captured(params):
    module = network.Transformer(dataclasses.replace(CONFIG, scan_layers=True))
    _, state = module.apply(
        {"params": stacks.stack(params)},
        TEXT,
        ANSWER,
        ANSWER,
        enable_dropout=False,
        capture_intermediates=lambda module, _: module.name == "mlp",
        mutable=["intermediates"],
    )
    (outputs,) = state["intermediates"]["encoder"]["layers"]["mlp"]["__call__"]
    assert outputs.shape == (3, 2, 4, 16)


def test_it_is_seen_while_an_answer_is_written(params):
    module = network.Transformer(CONFIG)
    options = {"enable_dropout": False, "method": "decode", "decode": True, "max_decode_length": 3}
    encoded = module.apply({"params": params}, TEXT, enable_dropout=False, method="encode")
    blank = jnp.zeros((2, 3), jnp.int32)
    _, made = module.apply({"params": params}, encoded, blank, blank, mutable=["cache"], **options)
    token = jnp.zeros((2, 1), jnp.int32)
    _, state = module.apply(
        {"params": params, **made},
        encoded,
        token,
        token,
        mutable=["cache", "intermediates"],
        **options,
    )
    layer = state["intermediates"]["decoder"]["layers_1"]
    (own,) = layer["self_attention"][ATTENTION_WEIGHTS]
    (to_text,) = layer["encoder_decoder_attention"][ATTENTION_WEIGHTS]
    assert own.shape == (2, 2, 1, 3)
    np.testing.assert_allclose(own[..., 0], 1)  # nothing else is written yet
    assert to_text.shape == (2, 2, 1, 4)
