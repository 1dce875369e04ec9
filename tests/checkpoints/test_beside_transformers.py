"""The same weights in both programs, where PyTorch and Transformers are installed."""

import copy
import functools
import json

import jax
import numpy as np
import pytest
import seqio
from huggingface_case import CHECKPOINT, INDEX, NETWORKS, load, logits, random_params

from uem_t5x import models, network
from uem_t5x.checkpoints import huggingface
from uem_t5x.data.vocabulary import train_vocabulary
from uem_t5x.network import beam_search


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is no part of this project's set")


@pytest.fixture(scope="module")
def transformers(torch):
    reason = "Transformers is no part of this project's set"
    transformers = pytest.importorskip("transformers", reason=reason)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@pytest.fixture(scope="module", params=["untied", "tied", "local", "transient-global"])
def theirs(request, torch, transformers):
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


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    encoder_inputs = rng.integers(2, 96, (3, 140)).astype(np.int32)
    encoder_inputs[1, 5:] = 0
    return encoder_inputs, rng.integers(2, 96, (3, 7)).astype(np.int32)


def their_logits(torch, model, encoder_inputs, targets):
    inputs = torch.from_numpy(encoder_inputs).long()
    labels = torch.from_numpy(targets).long()
    # In float64, so that the difference is our rounding alone, on whatever processor.
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        return exact(input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels).logits


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_read(max_shard_size, theirs, batch, torch, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / INDEX).exists() == (max_shard_size == "20KB")
    config, params = load(tmp_path)
    np.testing.assert_allclose(
        logits(config, params, *batch), their_logits(torch, theirs, *batch), atol=1e-4
    )


def test_read_bfloat16(theirs, torch, tmp_path):
    half = type(theirs)(theirs.config)
    half.load_state_dict(theirs.state_dict())
    half.to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    _, params = load(tmp_path)
    name = next(name for name in half.state_dict() if ".block.1." in name and "k.weight" in name)
    stored = half.get_parameter(name)
    kernel = params["encoder"]["layers_1"]["attention"]["key"]["kernel"]
    np.testing.assert_array_equal(kernel, stored.float().detach().numpy().T)


def test_greedy_answers_are_the_same(theirs, batch, torch, tmp_path):
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


@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 1.0), (4, 1.0), (4, 0.0), (3, 2.0)])
def test_beams_find_the_same_answers(theirs, batch, torch, tmp_path, beams, length_penalty):
    """All of them, the best last; some end, some fill the length."""
    theirs = copy.deepcopy(theirs)
    with torch.no_grad():  # about one token in eight ends an answer
        theirs.lm_head.weight[1] *= 2.0
    theirs.save_pretrained(tmp_path)
    config, params = load(tmp_path)
    encoder_inputs, _ = batch
    inputs = torch.from_numpy(encoder_inputs).long()
    found = theirs.generate(
        inputs,
        attention_mask=(inputs > 0).long(),
        max_new_tokens=9,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=length_penalty,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
    model = models.EncoderDecoderModel(
        network.Transformer(config),
        vocabulary,
        vocabulary,
        optimizer_def=None,
        decode_fn=functools.partial(beam_search.beam_search, length_penalty=length_penalty),
        num_decodes=beams,
    )
    features = {
        "encoder_input_tokens": encoder_inputs,
        "decoder_target_tokens": np.zeros((3, 9), np.int32),
    }
    write = functools.partial(model.predict_batch_with_aux, return_all_decodes=True)
    ours, aux = jax.jit(write)(params, features)
    sequences = found.sequences.numpy()[:, 1:].reshape(3, beams, -1)[:, ::-1]
    sequences = np.pad(sequences, ((0, 0), (0, 0), (0, 9 - sequences.shape[2])))
    # Behind the end Transformers writes more of it, where padding is token 0.
    has_ended = np.cumsum(sequences == 1, axis=-1) - (sequences == 1) > 0
    np.testing.assert_array_equal(ours, np.where(has_ended, 0, sequences))
    scores = found.sequences_scores.numpy().reshape(3, beams)[:, ::-1]
    np.testing.assert_allclose(aux["scores"], scores, rtol=1e-4)


@pytest.mark.parametrize("max_shard_size", [10**9, 20_000])
@pytest.mark.parametrize("fields", NETWORKS)
def test_written(fields, max_shard_size, batch, torch, transformers, tmp_path):
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
    np.testing.assert_allclose(ours, their_logits(torch, model.eval(), *batch), atol=1e-4)


def test_the_vocabulary_is_loaded_too(transformers, tmp_path):
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
