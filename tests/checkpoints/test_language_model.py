"""Pretrained language models: read by name, checked, and put under a fresh UEM."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from golden import t5x_case as case

from uem_t5x import checkpoints
from uem_t5x.base.errors import InputError

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/t5x_tiny"
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


@needs_fixture
def test_every_difference_is_counted_and_the_first_are_listed():
    _, params = checkpoints.load_language_model(FIXTURE)
    fresh = fresh_like(params)
    del fresh["decoder"]["layers_1"]["mlp"]
    with pytest.raises(
        InputError,
        match=r"decoder: 3 parameters .*: decoder/layers_1/mlp/wi_0/kernel is unexpected",
    ):
        checkpoints.start_from_checkpoint(fresh, FIXTURE)


@needs_fixture
def test_a_damaged_tensor_is_named(tmp_path):
    copy = shutil.copytree(FIXTURE / "checkpoint_0", tmp_path / "checkpoint_0")
    metadata = copy / "target.decoder.logits_dense.kernel/.zarray"
    copy.chmod(0o755)
    metadata.parent.chmod(0o755)
    metadata.unlink()
    metadata.write_text("nonsense")
    with pytest.raises(InputError, match=r"logits_dense.kernel: unreadable \("):
        checkpoints.load_language_model(copy)


@needs_fixture
def test_missing_chunks_are_not_zeros(tmp_path):
    copy = shutil.copytree(FIXTURE / "checkpoint_0", tmp_path / "checkpoint_0")
    for tensor in copy.glob("target.encoder*"):
        tensor.chmod(0o755)
        for chunk in tensor.iterdir():
            if chunk.name != ".zarray":
                chunk.unlink()
    with pytest.raises(InputError, match=r"target.encoder\S+: unreadable \(.*chunk.* missing"):
        checkpoints.load_language_model(copy)


@pytest.mark.parametrize("zarr3", [False, True])
def test_missing_chunks_of_an_orbax_checkpoint_are_not_zeros(zarr3, tmp_path):
    params = case.language_model_params()
    # Zeros themselves are.
    params["encoder"]["encoder_norm"]["scale"] = np.zeros(16, np.float32)
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=zarr3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", ocp.args.PyTreeSave({"target": params}))
    _, read = checkpoints.load_language_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    tensor = tmp_path / "checkpoint_1/state/target.encoder.encoder_norm.scale"
    (tensor / "c/0" if zarr3 else tensor / "0").unlink()
    with pytest.raises(InputError, match=r"encoder_norm.scale: unreadable \(.*chunk.* missing"):
        checkpoints.load_language_model(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named_with_its_checkpoint(value, tmp_path):
    params = case.language_model_params()
    params["decoder"]["layers_1"]["mlp"]["wo"]["kernel"][2, 3] = value
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", ocp.args.PyTreeSave({"target": params}))
    fresh = fresh_like(case.language_model_params())
    message = r"checkpoint_1: decoder/layers_1/mlp/wo/kernel holds a value that is not finite"
    with pytest.raises(InputError, match=message):
        checkpoints.start_from_checkpoint(fresh, tmp_path)


@pytest.fixture(scope="module")
def orbax_checkpoint(tmp_path_factory):
    """A UEM and its language model, laid out as T5X and the built-in engine save them."""
    params = {**case.language_model_params(), "task_prompt": {"embedding": np.ones((3, 16))}}
    params["user_embedding"] = {"projection": {"kernel": np.full((12, 16), 2.0)}}
    folder = tmp_path_factory.mktemp("run") / "checkpoint_7"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder / "state", ocp.args.PyTreeSave({"target": params}))
    return folder


def test_orbax_checkpoints_give_the_language_model(orbax_checkpoint):
    for folder in (orbax_checkpoint, orbax_checkpoint.parent):
        config, params = checkpoints.load_language_model(folder)
        assert config == case.transformer().config
        jax.tree.map(np.testing.assert_array_equal, params, case.language_model_params())


def test_a_checkpoint_may_be_named_from_here(orbax_checkpoint, monkeypatch):
    monkeypatch.chdir(Path(orbax_checkpoint).parent)
    named = Path(orbax_checkpoint).name
    _, params = checkpoints.load_language_model(named)
    _, again = checkpoints.load_language_model(orbax_checkpoint)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_longt5_is_known_by_its_side_bias(tmp_path):
    params = case.language_model_params()
    params["encoder"]["side_relpos_bias"] = {"rel_embedding": np.ones((2, 32), np.float32)}
    for layer in range(2):
        norm = {"scale": np.ones(16, np.float32)}
        params["encoder"][f"layers_{layer}"]["attention"]["T5LayerNorm_0"] = norm
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", ocp.args.PyTreeSave({"target": params}))
    config, read = checkpoints.load_language_model(tmp_path)
    expected = case.transformer().config
    assert config == dataclasses.replace(expected, encoder_attention="transient_global")
    jax.tree.map(np.testing.assert_array_equal, read, params)
    fresh = fresh_like(case.language_model_params())
    message = r"encoder: 3 parameters .*T5LayerNorm_0/scale is unexpected"
    with pytest.raises(InputError, match=message):
        checkpoints.start_from_checkpoint(fresh, tmp_path)


def test_a_uem_of_the_same_sizes_goes_on_and_another_one_starts_fresh(orbax_checkpoint):
    fresh = fresh_like(case.language_model_params())
    fresh["task_prompt"] = {"embedding": jnp.zeros((3, 16))}
    fresh["user_embedding"] = {"projection": {"kernel": jnp.zeros((20, 16))}}
    started = checkpoints.start_from_checkpoint(fresh, orbax_checkpoint)
    np.testing.assert_array_equal(started["task_prompt"]["embedding"], 1.0)
    np.testing.assert_array_equal(started["user_embedding"]["projection"]["kernel"], 0.0)


@pytest.mark.parametrize(
    ("adapter", "difference"),
    [
        ({"pooling": {"queries": jnp.zeros((2, 4))}}, "pooling/queries is missing"),
        ({"encoder": {"latents": jnp.zeros((2, 4))}}, "encoder/latents is missing"),
    ],
)
def test_an_adapter_of_another_kind_is_a_mistake(orbax_checkpoint, adapter, difference):
    fresh = fresh_like(case.language_model_params())
    fresh["user_embedding"] = {"projection": {"kernel": jnp.zeros((12, 16))}, **adapter}
    message = rf"another kind than this recipe's: user_embedding/{difference}; bind ADAPTER"
    with pytest.raises(InputError, match=message):
        checkpoints.start_from_checkpoint(fresh, orbax_checkpoint)


@pytest.mark.parametrize(("layers", "is_refused"), [(0, False), (3, False), (1, True)])
def test_an_adapter_of_more_layers_starts_fresh(tmp_path, layers, is_refused):
    """Of the same layers; a stack of other ones is of another kind."""

    def adapter(layers, name="mlp"):
        stack = {f"layers_{layer}": {name: jnp.ones((2, 2))} for layer in range(layers)}
        return {"encoder": {**stack, "encoder_norm": jnp.ones(2)}, "projection": jnp.ones((2, 16))}

    params = {**case.language_model_params(), "user_embedding": adapter(2)}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", ocp.args.PyTreeSave({"target": params}))
    fresh = fresh_like(case.language_model_params())
    other = adapter(layers, "attention" if is_refused else "mlp")
    fresh["user_embedding"] = fresh_like(other)
    if is_refused:
        with pytest.raises(InputError, match=r"layers/attention is missing"):
            checkpoints.start_from_checkpoint(fresh, tmp_path)
    else:
        started = checkpoints.start_from_checkpoint(fresh, tmp_path)
        np.testing.assert_array_equal(started["user_embedding"]["projection"], 0.0)


def test_parameters_lie_where_the_fresh_ones_did(orbax_checkpoint):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("model",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model"))
    fresh = fresh_like(case.language_model_params())
    fresh["token_embedder"]["embedding"] = jax.device_put(jnp.zeros((48, 16)), split)
    embedding = checkpoints.start_from_checkpoint(fresh, orbax_checkpoint)["token_embedder"]
    assert embedding["embedding"].sharding == split
    expected = case.language_model_params()["token_embedder"]["embedding"]
    np.testing.assert_array_equal(embedding["embedding"], expected)


def test_a_part_of_a_checkpoint(tmp_path, orbax_checkpoint):
    copy = shutil.copytree(orbax_checkpoint, tmp_path / "checkpoint_7")
    (copy / "state/_METADATA").write_text("nonsense")
    with pytest.raises(InputError, match=r"state: not a T5X checkpoint's state"):
        checkpoints.load_language_model(copy)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        checkpoints.load_language_model(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="T5X checkpoint's index: it seems to be a git-lfs"):
        checkpoints.load_language_model(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a T5X checkpoint's index"):
        checkpoints.load_language_model(tmp_path)
