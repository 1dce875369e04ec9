"""Transformers' folders: read as Transformers reads them, written so that it loads them."""

import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_case import (
    CHECKPOINT,
    GOLDEN,
    NETWORKS,
    WEIGHTS,
    edit_config,
    edit_tensors,
    load,
    logits,
    random_params,
)
from safetensors.numpy import load_file, save_file

from uem_t5x import network
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface


def test_logits_are_those_of_transformers():
    """The batch reaches every bucket of the relative positions, and has padding."""
    golden = np.load(GOLDEN / "huggingface_t5.npz")
    config, params = load(CHECKPOINT)
    ours = logits(config, params, golden["encoder_input_tokens"], golden["decoder_target_tokens"])
    np.testing.assert_allclose(ours, golden["logits"], atol=2e-5)


@pytest.mark.parametrize("fields", NETWORKS)
def test_what_is_written_is_read_back_whole_or_in_shards(fields, tmp_path):
    config = network.T5Config(
        vocab_size=48,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=10,
        num_encoder_layers=1,
        num_decoder_layers=2,
        **fields,
    )
    params = random_params(config)
    huggingface.write_language_model(tmp_path / "whole", config, params)
    huggingface.write_language_model(tmp_path / "shards", config, params, max_shard_size=2_000)
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 3
    assert not (tmp_path / "shards" / WEIGHTS).exists()
    assert all(sum(map(np.size, load_file(shard).values())) * 4 <= 2_000 for shard in shards)
    for form in ("whole", "shards"):
        assert huggingface.is_huggingface(tmp_path / form)
        read_config, read_params = load(tmp_path / form)
        assert read_config == config
        # Names and shapes are the network's own, one for one.
        jax.tree.map(np.testing.assert_array_equal, read_params, params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_float32(dtype, folder):
    _, params = load(folder)

    def to_half(tensors):
        tensors.update({name: array.astype(dtype) for name, array in tensors.items()})

    edit_tensors(folder, to_half)
    _, half = load(folder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype)), half, params)
    assert all(array.dtype == np.float32 for array in jax.tree.leaves(half))


def test_a_part_of_a_tensor_is_that_part():
    _, tensors = huggingface.open_checkpoint(CHECKPOINT)
    for name in ("encoder/layers_0/mlp/wi_0/kernel", "token_embedder/embedding"):
        part = (slice(2, 7), slice(None))
        np.testing.assert_array_equal(tensors[name].read(part), tensors[name].load()[part])
    norm = tensors["encoder/encoder_norm/scale"]
    np.testing.assert_array_equal(norm.read((slice(3, 9),)), norm.load()[3:9])


def test_an_embedding_under_any_of_its_names_and_an_old_bias_are_fine(folder):
    _, params = load(folder)

    def rename(tensors):
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
        tensors["decoder.embed_tokens.weight"] = tensors["encoder.embed_tokens.weight"]
        name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[name] = np.zeros((32, 3), np.float32)

    edit_tensors(folder, rename)
    jax.tree.map(np.testing.assert_array_equal, load(folder)[1], params)


def test_a_tied_output_layer_is_the_embedding(folder):
    edit_config(folder, scale_decoder_outputs=True)
    with pytest.raises(InputError, match=r"lm_head.weight is not shared.weight, .* a copy; set"):
        load(folder)
    edit_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors["shared.weight"]})
    )
    config, params = load(folder)
    assert config.logits_via_embedding
    assert "logits_dense" not in params["decoder"]
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    jax.tree.map(np.testing.assert_array_equal, load(folder)[1], params)


def test_transformers_5_ties_without_scaling_where_an_output_layer_is_absent(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    config, params = load(folder)
    assert not config.logits_via_embedding
    embedding = params["token_embedder"]["embedding"]
    np.testing.assert_array_equal(params["decoder"]["logits_dense"]["kernel"], embedding.T)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"1 tensors .* lm_head.weight is missing"):
        load(folder)


def test_mt5_and_configurations_of_transformers_4_are_read(folder):
    config, _ = load(folder)
    edit_config(folder, model_type="mt5", tie_word_embeddings=False)
    assert load(folder)[0] == config
    edit_config(
        folder,
        model_type="t5",
        scale_decoder_outputs="DELETED",
        relative_attention_max_distance="DELETED",
        num_decoder_layers="DELETED",
        dense_act_fn="DELETED",
    )
    assert load(folder)[0] == config


def test_of_a_tied_mt5_the_versions_of_transformers_disagree(folder):
    edit_config(folder, model_type="mt5")
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(InputError, match=r"config.json: an mT5 without .* scale_decoder_outputs"):
        load(folder)
    for scales in (True, False):
        edit_config(folder, model_type="t5", scale_decoder_outputs=scales)
        assert load(folder)[0].logits_via_embedding == scales


def test_the_index_decides_which_shard_a_tensor_is_of(tmp_path):
    config, params = load(CHECKPOINT)
    huggingface.write_language_model(tmp_path, config, params, max_shard_size=2_000)
    first, *_, last = sorted(tmp_path.glob("model-*.safetensors"))
    tensors = load_file(first)
    stale = {name: array + 1 for name, array in tensors.items()}
    save_file(load_file(last) | stale, last)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[1], params)
