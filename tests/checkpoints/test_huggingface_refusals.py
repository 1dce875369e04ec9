"""Folders of Transformers' of another network, damaged, or without safetensors: refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_case import CHECKPOINT, GOLDEN, INDEX, WEIGHTS, edit_config, edit_tensors, load

from uem_t5x import network
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "umt5"}, r"config.json: model_type 'umt5' is not T5's; use T5 1.1"),
        ({"model_type": "longt5"}, r"18 tensors .*LocalSelfAttention.k.weight is missing"),
        ({"model_type": "DELETED"}, r"config.json: lacks 'model_type'"),
        ({"feed_forward_proj": "relu"}, r"config.json: T5 1.0 .*'relu'.*; use T5 1.1"),
        ({"feed_forward_proj": "DELETED"}, r"T5 1.0 "),
        ({"feed_forward_proj": "gated-silu"}, r"'gated-silu': T5 1.1's .* is 'gated-gelu'"),
        ({"relative_attention_num_buckets": 64}, r"relative_attention_num_buckets 64 is not 32"),
        ({"relative_attention_max_distance": 64}, r"max_distance 64 is not 128"),
        ({"layer_norm_epsilon": 1e-5}, r"layer_norm_epsilon 1e-05 is not 1e-06"),
        ({"decoder_start_token_id": 2}, r"decoder_start_token_id 2 is not 0"),
        ({"d_model": "DELETED"}, r"config.json: lacks 'd_model'"),
        ({"num_heads": "3"}, r"config.json: num_heads '3' is no size"),
        (
            {"d_ff": 32},
            r"12 tensors .*DenseReluDense.wi_0.weight has shape \(24, 16\), .*\(32, 16\)",
        ),
        ({"num_decoder_layers": 1}, r"14 tensors .*decoder.block.1.*is unexpected; .*; \.\.\.; "),
        ({"num_layers": 3, "num_decoder_layers": 2}, r"encoder.block.2.*is missing"),
    ],
)
def test_another_network_is_refused_by_name(folder, fields, message):
    edit_config(folder, **fields)
    with pytest.raises(InputError, match=message) as refused:
        huggingface.open_checkpoint(folder)
    assert refused.value.line == str(refused.value)
    assert str(refused.value).startswith(str(folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"encoder_attention_type": "global"},
            r"encoder_attention_type 'global' is none of LongT5's \('local', 'transient-global'\)",
        ),
        ({"local_radius": "9"}, r"config.json: local_radius '9' is no size"),
        ({"global_block_size": 0}, r"config.json: global_block_size 0 is no size"),
        ({"feed_forward_proj": "DELETED"}, r"T5 1.0 "),
        (
            {"encoder_attention_type": "DELETED"},
            r"21 tensors .*LocalSelfAttention.k.weight is missing",
        ),
        (
            {"model_type": "t5"},
            r"21 tensors .*layer.0.SelfAttention.k.weight is missing",
        ),
    ],
)
def test_another_longt5_is_refused_by_name(fields, message, tmp_path):
    folder = Path(
        shutil.copytree(GOLDEN / "huggingface_longt5_transient_global", tmp_path / "checkpoint")
    )
    edit_config(folder, **fields)
    with pytest.raises(InputError, match=message):
        huggingface.open_checkpoint(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("shared.weight"), "shared.weight is missing"),
        (
            lambda tensors: tensors.update({"adapter.weight": np.zeros(3, np.float32)}),
            "1 tensors .*: adapter.weight is unexpected; download",
        ),
        (
            lambda tensors: tensors.update({"shared.weight": np.zeros((64, 16), np.int8)}),
            "shared.weight is stored as I8, not as F32",
        ),
        (
            lambda tensors: tensors.update(
                {"encoder.embed_tokens.weight": np.zeros((65, 16), np.float32)}
            ),
            r"encoder.embed_tokens.weight has shape \(65, 16\)",
        ),
        (
            lambda tensors: tensors.update(
                {"decoder.embed_tokens.weight": np.zeros((64, 16), np.float32)}
            ),
            "decoder.embed_tokens.weight is not shared.weight, .*; download both again",
        ),
    ],
)
def test_other_tensors_are_listed(folder, edit, message):
    edit_tensors(folder, edit)
    with pytest.raises(InputError, match=rf"{WEIGHTS}: .*{message}"):
        huggingface.open_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000])
def test_a_config_that_is_not_json_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config.json: not (a )?JSON"):
        huggingface.open_checkpoint(folder)


def test_weights_without_a_config_are_refused(folder):
    (folder / "config.json").unlink()
    assert huggingface.is_huggingface(folder)
    with pytest.raises(InputError, match=r"config.json: missing"):
        huggingface.open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 5, 300, 20_000, -1])
def test_a_truncated_file_is_named(folder, kept):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"{WEIGHTS}: no safetensors: it .*; download it again"):
        huggingface.open_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "seems"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"PK\x03\x04\x00\x00", "a zip archive"),
        (b"", "it is empty"),
    ],
)
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_what_is_no_weights_is_told_by_what_it_seems_to_be(name, content, seems, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: no\S* \w+: it .*{seems[3:]}"):
        huggingface.open_checkpoint(folder)


def test_a_file_that_vanishes_after_it_was_opened_is_named(folder):
    _, tensors = huggingface.open_checkpoint(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=rf"{WEIGHTS}: missing \("):
        tensors["token_embedder/embedding"].load()


def test_missing_shards_and_a_damaged_index_are_named(tmp_path):
    config, params = load(CHECKPOINT)
    huggingface.write_language_model(tmp_path, config, params, max_shard_size=20_000)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: missing, but {INDEX} names it"):
        huggingface.open_checkpoint(tmp_path)
    for text in ("{}", '{"weight_map": {"shared.weight": 3}}'):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(InputError, match=rf"{INDEX}: lacks 'weight_map'"):
            huggingface.open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"pytorch_model.bin: pickled .* runs code .*save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", r"00002.bin: pickled"),
        ("weights.pt", r"weights.pt: pickled"),
        ("flax_model.msgpack", r"flax_model.msgpack: only safetensors .*from_flax=True"),
        ("tf_model.h5", r"tf_model.h5: only safetensors .*from_tf=True"),
        ("README.md", rf"{WEIGHTS}: missing"),
    ],
)
def test_only_safetensors_are_read(folder, name, message):
    (folder / name).write_bytes(b"")
    huggingface.open_checkpoint(folder)  # which it does not mind beside safetensors
    (folder / WEIGHTS).unlink()
    assert huggingface.is_huggingface(folder)
    with pytest.raises(InputError, match=message):
        huggingface.open_checkpoint(folder)


def test_a_bucket_is_refused():
    with pytest.raises(InputError, match="copy the folder to this machine"):
        huggingface.open_checkpoint("gs://bucket/flan-t5")


def test_an_empty_folder_is_not_transformers(tmp_path):
    assert not huggingface.is_huggingface(tmp_path)
    assert not huggingface.is_huggingface(tmp_path / "none")


def test_another_feed_forward_block_is_not_written(tmp_path):
    config = network.T5Config(mlp_activations=("relu",))
    with pytest.raises(InputError, match=r"mlp_activations = \('relu',\)"):
        huggingface.write_language_model(tmp_path / "out", config, {})
    assert not (tmp_path / "out").exists()
