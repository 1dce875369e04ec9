"""The network against T5X's own: parameters by name and shape, logits to 1e-5."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from uem_t5x import checkpoints, network
from uem_t5x.network import layers

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/t5x_tiny"
TINY = network.T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
needs_fixture = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="needs ../shared/fixtures/t5x_tiny, a checkpoint written by T5X"
)


STATIC = ("enable_dropout", "decode", "max_decode_length", "mutable", "method")


def init(module: nn.Module) -> dict:
    ones = jnp.ones((1, 4), jnp.int32)
    initialize = jax.jit(module.init, static_argnames="enable_dropout")
    return initialize(jax.random.PRNGKey(0), ones, ones, ones, enable_dropout=False)


@functools.cache
def _compiled(module: nn.Module) -> Any:
    return jax.jit(module.apply, static_argnames=STATIC)


def apply(module: nn.Module, variables: dict, *args: Any, **options: Any) -> Any:
    """Compiled: op by op, a network takes seconds to dispatch."""
    return _compiled(module)(variables, *args, enable_dropout=False, **options)


def tokens(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(2, TINY.vocab_size, shape, dtype=np.int32)


@pytest.fixture(scope="module")
def tiny() -> tuple[network.Transformer, dict]:
    module = network.Transformer(TINY)
    return module, init(module)


@needs_fixture
def test_logits_equal_t5x() -> None:
    config, params = checkpoints.load_language_model(FIXTURE)
    expected = np.load(FIXTURE / "expected.npz")
    logits = apply(
        network.Transformer(config),
        {"params": params},
        expected["encoder_input_tokens"],
        expected["decoder_input_tokens"],
        expected["decoder_target_tokens"],
    )
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)


@needs_fixture
def test_fresh_parameters_have_the_names_and_shapes_of_t5x() -> None:
    config, params = checkpoints.load_language_model(FIXTURE)
    fresh = init(network.Transformer(config))
    assert jax.tree.map(np.shape, fresh["params"]) == jax.tree.map(np.shape, params)


def test_every_parameter_names_its_logical_axes(tiny: tuple[network.Transformer, dict]) -> None:
    _, variables = tiny
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    axes = traverse_util.flatten_dict(variables["params_axes"], sep="/")
    assert {f"{name}_axes" for name in params} == set(axes)
    for name, value in params.items():
        assert len(axes[f"{name}_axes"].names) == value.ndim


def test_padding_of_the_text_changes_nothing(tiny: tuple[network.Transformer, dict]) -> None:
    module, variables = tiny
    rng = np.random.default_rng(0)
    text, answer = tokens(rng, 2, 5), tokens(rng, 2, 4)
    padded = np.pad(text, ((0, 0), (0, 3)))
    short = apply(module, variables, text, answer, answer)
    long = apply(module, variables, padded, answer, answer)
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_a_position_does_not_see_later_ones(tiny: tuple[network.Transformer, dict]) -> None:
    module, variables = tiny
    rng = np.random.default_rng(0)
    text, answer = tokens(rng, 1, 5), tokens(rng, 1, 6)
    changed = answer.copy()
    changed[0, 3:] = tokens(rng, 3)
    before = apply(module, variables, text, answer, answer)
    after = apply(module, variables, text, changed, changed)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


def test_cached_decoding_gives_the_logits_of_the_whole_sequence(
    tiny: tuple[network.Transformer, dict],
) -> None:
    module, variables = tiny
    rng = np.random.default_rng(0)
    text, answer = tokens(rng, 2, 5), tokens(rng, 2, 6)
    text[1, 3:] = 0
    whole = apply(module, variables, text, answer, answer)

    encoded = apply(module, variables, text, method="encode")
    options = {
        "decode": True,
        "max_decode_length": answer.shape[1],
        "mutable": ("cache",),
        "method": "decode",
    }
    _, made = apply(module, variables, encoded, answer, answer, **options)
    cache = made["cache"]
    step = functools.partial(apply, module)
    for position in range(answer.shape[1]):
        token = answer[:, position : position + 1]
        logits, updated = step({**variables, "cache": cache}, encoded, token, token, **options)
        cache = updated["cache"]
        np.testing.assert_allclose(logits[:, 0], whole[:, position], atol=1e-5)


def test_the_gradient_of_a_token_is_that_of_every_time_it_occurs() -> None:
    """Also where activations are bfloat16, in which 256 + 1 is 256."""
    embed = layers.Embed(num_embeddings=4, features=2, dtype="bfloat16")
    often = jnp.full((4, 250), 3)

    def total(variables: dict) -> jax.Array:
        return jnp.sum(embed.apply(variables, often), dtype=jnp.float32)

    variables = {"params": {"embedding": jnp.zeros((4, 2))}}
    gradient = jax.jit(jax.grad(total))(variables)["params"]["embedding"]
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 0], [0, 0], [1000, 1000]])


def test_bfloat16_activations_stay_close(tiny: tuple[network.Transformer, dict]) -> None:
    _, variables = tiny
    rng = np.random.default_rng(0)
    text, answer = tokens(rng, 2, 5), tokens(rng, 2, 4)
    exact = apply(network.Transformer(TINY), variables, text, answer, answer)
    config = network.T5Config(**{**vars(TINY), "dtype": "bfloat16"})
    rounded = apply(network.Transformer(config), variables, text, answer, answer)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1)
