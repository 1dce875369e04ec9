"""Layers one by one and stacked: the same names, updates and results."""

import dataclasses

import jax
import numpy as np
import pytest

from uem_t5x import network
from uem_t5x.network import stacks
from uem_t5x.training import optimizers


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def layer():
        return {"mlp": {"kernel": rng.normal(size=(160, 130))}, "norm": rng.normal(size=(130,))}

    layers = {f"layers_{index}": layer() for index in range(11)}
    tree = {"encoder": {**layers, "norm": rng.normal(size=(3,))}, "table": rng.normal(size=(5, 4))}
    return jax.tree.map(np.float32, tree)


def test_stacked_and_back(params):
    stacked = stacks.stack(params)
    assert stacks.is_stacked(stacked) and not stacks.is_stacked(params)
    assert stacked["encoder"]["layers"]["mlp"]["kernel"].shape == (11, 160, 130)
    np.testing.assert_array_equal(
        stacked["encoder"]["layers"]["norm"][10], params["encoder"]["layers_10"]["norm"]
    )
    back = stacks.unstack(stacked)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_what_has_no_layers_stays_as_it_is(params):
    table = {"table": params["table"]}
    assert stacks.stack(table) == table == stacks.unstack(table)


@pytest.mark.parametrize("name", ["layers", "layers_0"])
def test_layers_of_another_module_are_its_own(name):
    """A soft prompt's, say."""
    own = {"blocks": {name: {"kernel": np.ones((8, 2))}}, "user_embedding": {name: np.ones(3)}}
    assert stacks.stack(own) == own == stacks.unstack(own)
    assert not stacks.is_stacked(own)
    path = f"blocks/{name}/kernel"
    assert stacks.paths_of_layers(path, own["blocks"][name]["kernel"]) == [path]
    assert stacks.name_of_stack(path) is None
    assert stacks.name_of_stack("user_embedding/encoder/layers/mlp") == "user_embedding/encoder"


def test_the_optimizer_treats_each_layer_by_itself(params):
    """Adafactor clips and scales by root mean squares that must not mix layers."""
    one_by_one = stacked = optimizers.adafactor()
    stacked_params = stacks.stack(params)
    states = one_by_one.init(params), stacked.init(stacked_params)
    rng = np.random.default_rng(1)
    for _ in range(3):
        gradients = jax.tree.map(
            lambda x: rng.normal(size=x.shape).astype(np.float32) * rng.uniform(0.01, 9), params
        )
        expected, first = jax.jit(one_by_one.update)(gradients, states[0], params)
        updates, second = jax.jit(stacked.update)(
            stacks.stack(gradients), states[1], stacked_params
        )
        states = first, second
    assert states[1][0].count == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        stacks.unstack(updates),
        expected,
    )
    for name in ("v", "v_row", "v_col"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            stacks.unstack(getattr(states[1][0], name)),
            getattr(states[0][0], name),
        )


@pytest.fixture(scope="module")
def gradients():
    """Returns a function: loss and gradients of a T5 with dropout, by how its layers are run."""
    config = network.T5Config(
        vocab_size=64,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=3,
        num_decoder_layers=3,
        dropout_rate=0.2,
    )
    tokens = np.random.default_rng(0).integers(1, 64, (3, 4, 8))
    module = network.Transformer(config)
    params = module.init(jax.random.PRNGKey(0), *tokens, enable_dropout=False)["params"]

    def compute(scan_layers, remat, stacked):
        module = network.Transformer(
            dataclasses.replace(config, scan_layers=scan_layers, remat=remat)
        )

        def loss(params):
            rngs = {"dropout": jax.random.PRNGKey(1)}
            return (module.apply({"params": params}, *tokens, rngs=rngs) ** 2).mean()

        given = stacks.stack(params) if stacked else params
        value, gradients = jax.jit(jax.value_and_grad(loss))(given)
        return value, stacks.unstack(gradients)

    return compute


@pytest.mark.parametrize("remat", ["none", "minimal", "full"])
@pytest.mark.parametrize(
    ("scan_layers", "stacked"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_how_layers_are_run_changes_nothing(gradients, scan_layers, remat, stacked):
    expected = gradients(False, "none", False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        gradients(scan_layers, remat, stacked),
        expected,
    )
