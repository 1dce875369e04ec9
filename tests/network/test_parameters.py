"""Which parameters are trained: told by their paths, apart and together again."""

import numpy as np
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.network import parameters, stacks

PARAMS = {
    "token_embedder": {"embedding": np.zeros((3, 2))},
    "encoder": {f"layers_{layer}": {"mlp": {"kernel": np.full((2,), layer)}} for layer in range(3)},
    "user_embedding": {"projection": {"kernel": np.ones((2, 2))}},
}


@pytest.mark.parametrize("stack", [False, True])
def test_apart_and_together(stack):
    params = stacks.stack(PARAMS) if stack else PARAMS
    trained, frozen = parameters.split(params, parameters.soft_prompt_alone)
    assert trained.keys() == {"user_embedding"}
    assert frozen.keys() == {"token_embedder", "encoder"}
    assert parameters.merge(trained, frozen) == params


def test_within_a_module():
    trained, frozen = parameters.split(PARAMS, lambda path: path.startswith("encoder/layers_2/"))
    assert trained == {"encoder": {"layers_2": PARAMS["encoder"]["layers_2"]}}
    assert frozen["encoder"].keys() == {"layers_0", "layers_1"}
    assert parameters.merge(trained, frozen) == PARAMS


def test_everything_and_nothing():
    assert parameters.split(PARAMS, parameters.everything) == (PARAMS, {})
    assert parameters.split(PARAMS, lambda _: False) == ({}, PARAMS)


def test_layers_of_a_loop_are_trained_alike():
    def last(path):
        return "layers_2" in path

    with pytest.raises(InputError, match=r"SCAN_LAYERS=True: encoder/layers/mlp/kernel is trained"):
        parameters.split(stacks.stack(PARAMS), last)
