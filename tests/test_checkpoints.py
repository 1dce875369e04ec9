"""Pretrained language models: read by name, checked, and put under a fresh UEM."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uem_t5x import checkpoints
from uem_t5x.errors import InputError

FIXTURE = Path(__file__).parents[2] / "shared/fixtures/t5x_tiny"
needs_fixture = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="needs ../shared/fixtures/t5x_tiny, a checkpoint written by T5X"
)


def fresh_like(params):
    return jax.tree.map(lambda array: jnp.zeros(array.shape), params)


@needs_fixture
def test_the_sizes_are_read_off_the_shapes():
    config, _ = checkpoints.load_language_model(FIXTURE)
    assert (config.vocab_size, config.emb_dim, config.mlp_dim) == (128, 32, 64)
    assert (config.num_heads, config.head_dim) == (4, 8)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)
    assert not config.logits_via_embedding


@needs_fixture
def test_the_language_model_is_restored_and_the_uem_stays_fresh():
    _, params = checkpoints.load_language_model(FIXTURE / "checkpoint_0")
    fresh = {**fresh_like(params), "task_prompt": {"embedding": jnp.full((3, 32), 7.0)}}
    started = checkpoints.start_from_checkpoint(fresh, FIXTURE)
    np.testing.assert_array_equal(started.pop("task_prompt")["embedding"], 7.0)
    jax.tree.map(np.testing.assert_array_equal, started, params)


@needs_fixture
def test_a_model_of_other_sizes_is_refused_by_name():
    _, params = checkpoints.load_language_model(FIXTURE)
    fresh = fresh_like(params)
    fresh["token_embedder"]["embedding"] = jnp.zeros((256, 32))
    with pytest.raises(
        InputError, match=r"token_embedder/embedding has shape \(128, 32\), here \(256, 32\)"
    ):
        checkpoints.start_from_checkpoint(fresh, FIXTURE)
    deeper = fresh_like(params)
    deeper["encoder"]["layers_2"] = deeper["encoder"]["layers_1"]
    with pytest.raises(
        InputError, match=r"encoder: 9 parameters .* encoder/layers_2/\S+ is missing"
    ):
        checkpoints.start_from_checkpoint(deeper, FIXTURE)


@needs_fixture
def test_a_missing_tensor_is_named(tmp_path):
    copy = shutil.copytree(FIXTURE / "checkpoint_0", tmp_path / "checkpoint_0")
    copy.chmod(0o755)
    missing = copy / "target.decoder.logits_dense.kernel"
    missing.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"logits_dense.kernel: missing from the checkpoint"):
        checkpoints.load_language_model(copy)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        checkpoints.load_language_model(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a T5X checkpoint's index"):
        checkpoints.load_language_model(tmp_path)
