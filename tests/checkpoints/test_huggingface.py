"""Transformers' folders: read as Transformers reads them, written so that it loads them."""

import copy
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import seqio
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from uem_t5x import models, network
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface
from uem_t5x.data.vocabulary import train_vocabulary

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "huggingface_t5"
WEIGHTS, INDEX = huggingface.WEIGHTS, huggingface.WEIGHTS_INDEX


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


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def edit_config(folder, **fields):
    path = folder / "config.json"
    edited = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in edited.items() if value != "DELETED"}))


def edit_tensors(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_logits_are_those_of_transformers():
    """The batch reaches every bucket of the relative positions, and has padding."""
    golden = np.load(GOLDEN / "huggingface_t5.npz")
    config, params = load(CHECKPOINT)
    ours = logits(config, params, golden["encoder_input_tokens"], golden["decoder_target_tokens"])
    np.testing.assert_allclose(ours, golden["logits"], atol=2e-5)


# The networks that are written, but for their sizes.
NETWORKS = [
    {"logits_via_embedding": False},
    {"logits_via_embedding": True},
    {"encoder_attention": "local", "local_radius": 20},
    {"encoder_attention": "transient_global", "local_radius": 5, "global_block_size": 8},
]


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


class TestBesideTransformers:
    """The same weights in both programs, where PyTorch and Transformers are installed."""

    @pytest.fixture(scope="class")
    def torch(self):
        return pytest.importorskip("torch", reason="PyTorch is no part of this project's set")

    @pytest.fixture(scope="class")
    def transformers(self, torch):
        reason = "Transformers is no part of this project's set"
        transformers = pytest.importorskip("transformers", reason=reason)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        return transformers

    @pytest.fixture(scope="class", params=["untied", "tied", "local", "transient-global"])
    def theirs(self, request, torch, transformers):
        torch.manual_seed(1)
        tied = request.param == "tied"
        kind, long = "T5", {}
        if request.param.endswith("al"):
            kind, long = "LongT5", {"encoder_attention_type": request.param, "local_radius": 20}
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=96,
            d_model=24,
            d_kv=6,
            d_ff=40,
            num_layers=3,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
            initializer_factor=1.5,
            **long,
        )
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(96, 24))
        return model

    @pytest.fixture(scope="class")
    def batch(self):
        rng = np.random.default_rng(0)
        encoder_inputs = rng.integers(2, 96, (3, 140)).astype(np.int32)
        encoder_inputs[1, 5:] = 0
        return encoder_inputs, rng.integers(2, 96, (3, 7)).astype(np.int32)

    def their_logits(self, torch, model, encoder_inputs, targets):
        inputs = torch.from_numpy(encoder_inputs).long()
        labels = torch.from_numpy(targets).long()
        # In float64, so that the difference is our rounding alone, on whatever processor.
        exact = copy.deepcopy(model).double()
        with torch.no_grad():
            return exact(input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels).logits

    @pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
    def test_read(self, max_shard_size, theirs, batch, torch, tmp_path):
        theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
        assert (tmp_path / INDEX).exists() == (max_shard_size == "20KB")
        config, params = load(tmp_path)
        np.testing.assert_allclose(
            logits(config, params, *batch), self.their_logits(torch, theirs, *batch), atol=1e-4
        )

    def test_read_bfloat16(self, theirs, torch, tmp_path):
        half = type(theirs)(theirs.config)
        half.load_state_dict(theirs.state_dict())
        half.to(torch.bfloat16).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
        _, params = load(tmp_path)
        name = next(
            name for name in half.state_dict() if ".block.1." in name and "k.weight" in name
        )
        stored = half.get_parameter(name)
        kernel = params["encoder"]["layers_1"]["attention"]["key"]["kernel"]
        np.testing.assert_array_equal(kernel, stored.float().detach().numpy().T)

    def test_greedy_answers_are_the_same(self, theirs, batch, torch, tmp_path):
        theirs.save_pretrained(tmp_path)
        config, params = load(tmp_path)
        encoder_inputs, _ = batch
        inputs = torch.from_numpy(encoder_inputs).long()
        mask = (inputs > 0).long()
        answers = theirs.generate(inputs, attention_mask=mask, max_new_tokens=12, do_sample=False)
        vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
        model = models.EncoderDecoderModel(
            network.Transformer(config), vocabulary, vocabulary, optimizer_def=None
        )
        ours = jax.jit(model.predict_batch)(
            params,
            {
                "encoder_input_tokens": encoder_inputs,
                "decoder_target_tokens": np.zeros((3, 12), np.int32),
            },
        )
        answers = answers.numpy()[:, 1:]  # without the start token
        answers = np.pad(answers, ((0, 0), (0, 12 - answers.shape[1])))
        np.testing.assert_array_equal(ours, answers)

    @pytest.mark.parametrize("max_shard_size", [10**9, 20_000])
    @pytest.mark.parametrize("fields", NETWORKS)
    def test_written(self, fields, max_shard_size, batch, torch, transformers, tmp_path):
        config = network.T5Config(
            vocab_size=96,
            emb_dim=24,
            num_heads=3,
            head_dim=5,
            mlp_dim=40,
            num_encoder_layers=2,
            num_decoder_layers=3,
            **fields,
        )
        params = random_params(config)
        huggingface.write_language_model(tmp_path, config, params, max_shard_size)
        model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not any(info.values())
        ours = logits(config, params, *batch)
        np.testing.assert_allclose(ours, self.their_logits(torch, model.eval(), *batch), atol=1e-4)

    def test_the_vocabulary_is_loaded_too(self, transformers, tmp_path):
        texts = ["The user likes Drama and War.", "Space ships fight a long war in space."]
        train_vocabulary(tmp_path / "vocabulary/spm.model", texts, ["Drama", "War"], size=64)
        config, params = load(CHECKPOINT)
        huggingface.write_language_model(
            tmp_path / "out", config, params, sentencepiece_model=tmp_path / "vocabulary/spm.model"
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
        ours = seqio.SentencePieceVocabulary(str(tmp_path / "vocabulary/spm.model"))
        assert len(tokenizer) == ours.vocab_size
        for text in texts:
            assert tokenizer(text).input_ids == [*ours.encode(text), ours.eos_id]
