"""The model class: its loss worked out by hand, its generation against a plain loop."""

import jax
import numpy as np
import optax
import pytest
import seqio

from uem_t5x import models, network
from uem_t5x.base.errors import InputError
from uem_t5x.network import decoding
from uem_t5x.training.trainer import TrainState

VOCABULARY = seqio.ByteVocabulary()
CONFIG = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
TARGETS = np.array([[5, 9, 1, 0], [7, 1, 0, 0]], np.int32)
BATCH = {
    "encoder_input_tokens": np.array([[4, 5, 6], [7, 8, 0]], np.int32),
    "decoder_input_tokens": np.pad(TARGETS[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": TARGETS,
    "decoder_loss_weights": (TARGETS > 0).astype(np.int32),
}


def make_model(**options):
    return models.EncoderDecoderModel(
        network.Transformer(CONFIG), VOCABULARY, VOCABULARY, optax.identity(), **options
    )


@pytest.fixture(scope="module")
def params():
    shapes = {name: array.shape for name, array in BATCH.items()}
    return make_model().get_initial_variables(jax.random.PRNGKey(0), shapes)["params"]


def log_probabilities(params):
    logits = make_model().compute_logits(params, BATCH)
    return np.asarray(jax.nn.log_softmax(logits))


def target_log_probabilities(params):
    return np.take_along_axis(log_probabilities(params), TARGETS[..., None], -1)[..., 0]


def test_the_loss_is_the_summed_cross_entropy_of_real_tokens(params):
    loss, metrics = make_model().loss_fn(params, BATCH, None)
    expected = -target_log_probabilities(params)[TARGETS > 0]
    assert loss == pytest.approx(expected.sum(), rel=1e-5)
    assert metrics["loss"].compute() == pytest.approx(expected.mean(), rel=1e-5)
    best = log_probabilities(params).argmax(-1)
    assert metrics["accuracy"].compute() == pytest.approx(
        (best == TARGETS)[TARGETS > 0].mean(), abs=1e-6
    )


def test_z_loss_label_smoothing_and_normalizer(params):
    logits = np.asarray(make_model().compute_logits(params, BATCH), np.float64)
    real = TARGETS > 0
    log_partition = np.log(np.exp(logits).sum(-1))
    log_p = logits - log_partition[..., None]
    smoothing, vocab = 0.1, CONFIG.vocab_size
    soft = np.full(log_p.shape, smoothing / (vocab - 1))
    np.put_along_axis(soft, TARGETS[..., None], 1 - smoothing, axis=-1)
    # The cross-entropy with the smoothed target, less that target's own entropy.
    divergence = (soft * (np.log(soft) - log_p)).sum(-1)
    expected = (divergence + 0.01 * log_partition**2)[real].sum() / 8
    model = make_model(label_smoothing=smoothing, z_loss=0.01, loss_normalizing_factor=8.0)
    assert model.loss_fn(params, BATCH, None)[0] == pytest.approx(expected, rel=1e-4)


def test_flax_mutables_come_back_where_t5x_expects_them(params):
    mutables = {"item_table": {}}
    _, (metrics, returned) = make_model().loss_fn(params, BATCH, None, mutables)
    assert returned is mutables
    assert set(make_model().eval_fn(params, BATCH, mutables)[1]) == set(metrics)


def test_scores_are_the_log_likelihoods_of_the_answers(params):
    expected = (target_log_probabilities(params) * (TARGETS > 0)).sum(-1)
    np.testing.assert_allclose(make_model().score_batch(params, BATCH), expected, rtol=1e-5)


def test_what_follows_from_the_targets_may_be_left_out(params):
    follow = ("decoder_input_tokens", "decoder_loss_weights")
    less = {name: array for name, array in BATCH.items() if name not in follow}
    model = make_model()

    assert model.loss_fn(params, less, None)[0] == model.loss_fn(params, BATCH, None)[0]
    np.testing.assert_array_equal(model.score_batch(params, less), model.score_batch(params, BATCH))


def test_generation_equals_a_loop_without_a_cache(params):
    tokens, aux = jax.jit(make_model().predict_batch_with_aux)(params, BATCH)
    written = np.zeros_like(TARGETS)
    for position in range(TARGETS.shape[1]):
        inputs = np.pad(written[:, :-1], ((0, 0), (1, 0)))
        full = {**BATCH, "decoder_input_tokens": inputs}
        full["decoder_target_tokens"] = np.ones_like(TARGETS)
        best = np.asarray(make_model().compute_logits(params, full)).argmax(-1)[:, position]
        ended = (written == VOCABULARY.eos_id).any(-1)
        written[:, position] = np.where(ended, 0, best)
    np.testing.assert_array_equal(tokens, written)
    assert aux["scores"].shape == (2,)
    assert (aux["scores"] < 0).all()


def test_sampling_gives_several_answers(params):
    model = make_model(decode_fn=decoding.temperature_sample, num_decodes=3)
    tokens, aux = model.predict_batch_with_aux(
        params, BATCH, rng=jax.random.PRNGKey(1), return_all_decodes=True
    )
    assert tokens.shape == (2, 3, 4)
    assert (np.diff(aux["scores"], axis=1) >= 0).all()


def test_a_model_of_which_nothing_is_trained_is_refused(params):
    variables = {"params": params}
    with pytest.raises(InputError, match=r"nothing is left to train: FREEZE_LANGUAGE_MODEL=True"):
        TrainState.create(make_model(freeze_language_model=True), variables)
    with pytest.raises(InputError, match="each says what is trained"):
        make_model(freeze_language_model=True, trainable=lambda _: True)
