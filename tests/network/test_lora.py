"""LoRA: what it adds, what it trains, what it refuses; `answers/test_export_peft.py` asks PEFT."""

import dataclasses

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio
from flax import traverse_util

from uem_t5x import models, network
from uem_t5x.base.errors import InputError
from uem_t5x.network import flops, layers, lora, parameters, stacks
from uem_t5x.training import learning_rates, optimizers, partitioning, trainer

T5 = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
QV = lora.LoRA(rank=3, alpha=6.0)
VOCABULARY = seqio.PassThroughVocabulary(T5.vocab_size, 1)
BATCH = {
    "encoder_input_tokens": np.array([[4, 5, 6, 7], [7, 8, 0, 0]], np.int32),
    "decoder_target_tokens": np.array([[3, 4, 1], [3, 1, 0]], np.int32),
}
SHAPES = {name: array.shape for name, array in BATCH.items()}


def model_of(of_lora, **options):
    config = dataclasses.replace(T5, lora=of_lora, **options)
    module = network.Transformer(config)
    return models.EncoderDecoderModel(module, VOCABULARY, VOCABULARY, optimizers.adafactor())


def drawn(model, seed=0):
    """Returns parameters none of which is zero, B neither."""
    fresh = flax.core.unfreeze(model.get_initial_variables(jax.random.key(seed), SHAPES)["params"])
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), fresh)


def names(model):
    shapes = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), SHAPES))
    return set(traverse_util.flatten_dict(flax.core.unfreeze(shapes["params"]), sep="/"))


def test_a_target_adds_two_thin_products():
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    dense = layers.Dense(4, ("embed", "mlp"), lora=QV, name="query")
    params = dense.init(jax.random.key(0), x)["params"]
    assert not np.any(params["lora_b"])
    assert 0.2 < np.abs(params["lora_a"]).max() <= 1 / np.sqrt(6)
    np.testing.assert_allclose(dense.apply({"params": params}, x), x @ params["kernel"], atol=1e-6)
    params = {**params, "lora_b": np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)}
    by_hand = x @ params["kernel"] + 6.0 / 3 * (x @ params["lora_a"] @ params["lora_b"])
    np.testing.assert_allclose(dense.apply({"params": params}, x), by_hand, atol=1e-5)


def test_dropout_is_of_what_a_reads_alone():
    x = np.ones((2, 5, 400), np.float32)
    dense = layers.Dense(4, ("embed", "mlp"), lora=lora.LoRA(2, dropout_rate=0.5), name="query")
    params = dense.init(jax.random.key(0), x)["params"]
    params["lora_b"] = jnp.ones((2, 4))
    dropped = dense.apply({"params": params}, x, dropout_key=jax.random.key(1))
    added = (dropped - x @ params["kernel"])[..., 0]
    whole = (x @ params["lora_a"]).sum(-1)
    assert np.std(added) > 0.1  # each position has a mask of its own
    np.testing.assert_allclose(added.mean(), whole.mean(), atol=1.0)


@pytest.mark.parametrize(
    ("targets", "matrices"),
    [
        (("query", "value"), 2 * (2 + 2 + 2)),  # of two layers: own, own and cross attention
        (("encoder_decoder_attention/out",), 2),
        (("wi_0", "wo"), 2 * (2 + 2)),
        (("logits_dense",), 1),
    ],
)
def test_targets_are_layers_by_their_names(targets, matrices):
    added = names(model_of(lora.LoRA(2, targets=targets))) - names(model_of(None))
    assert len(added) == 2 * matrices
    assert all(name.rsplit("/", 1)[0].endswith(targets) for name in added)
    assert {name.rsplit("/", 1)[1] for name in added} == {"lora_a", "lora_b"}


def test_merged_it_is_a_plain_language_model():
    model = model_of(QV)
    params = drawn(model)
    merged = lora.merge(params, QV)
    assert set(traverse_util.flatten_dict(merged, sep="/")) == names(model_of(None))
    np.testing.assert_allclose(
        model.compute_logits(params, BATCH), model_of(None).compute_logits(merged, BATCH), atol=1e-4
    )
    stacked = lora.merge(stacks.stack(params), QV)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
        stacks.unstack(stacked),
        merged,
    )


@pytest.mark.parametrize("options", [{}, {"scan_layers": True}, {"remat": "full"}])
def test_layers_in_a_loop_give_the_same(options):
    params = drawn(model_of(QV))
    np.testing.assert_allclose(
        model_of(QV, **options).compute_logits(params, BATCH),
        model_of(QV).compute_logits(params, BATCH),
        atol=1e-5,
    )


def train(model, steps=30, parts=None):
    partitioner = partitioning.Partitioner()
    batch = {name: np.repeat(array, 4, axis=0) for name, array in BATCH.items()}
    shapes = {name: array.shape for name, array in batch.items()}
    initializer = trainer.TrainStateInitializer(model, shapes, partitioner)
    before = initializer.from_scratch(jax.random.key(0))
    start = jax.device_get(before.params)
    rate = learning_rates.trapezoid(0.02, total_steps=steps)
    steps_of = trainer.Trainer(
        model, jax.random.key(1), partitioner, initializer.state_shape, rate, num_microbatches=parts
    )
    state, losses = before, []
    for _ in range(steps):
        state, metrics = steps_of.train_step(state, partitioner.shard_batch(batch))
        losses.append(float(metrics["loss"].compute()))
    return start, state, losses


@pytest.mark.parametrize("options", [{}, {"scan_layers": True}])
def test_training_changes_what_is_added_alone(options):
    start, state, losses = train(model_of(QV, **options))
    start, end = (
        traverse_util.flatten_dict(stacks.unstack(tree), sep="/")
        for tree in (start, jax.device_get(state.params))
    )
    for name, values in start.items():
        assert np.array_equal(values, end[name]) != lora.is_lora(name), name
    slots = traverse_util.flatten_dict(stacks.unstack(state.opt_state[0].v), sep="/")
    assert set(slots) == {name for name in start if lora.is_lora(name)}
    assert losses[-1] < 0.8 * losses[0]


def test_microbatches_add_up_to_the_batch():
    whole, parts = train(model_of(QV), 5)[2], train(model_of(QV), 5, parts=2)[2]
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


def test_b_is_not_scaled_by_its_own_size():
    """By which Adafactor would take hundreds of steps to leave zero."""
    params = {"encoder": {"layers_0": {"query": {"lora_a": jnp.ones((4, 2)), "lora_b": 0.0}}}}
    params["encoder"]["layers_0"]["query"]["lora_b"] = jnp.zeros((2, 4))
    gradients = jax.tree.map(jnp.ones_like, params)
    optimizer = optimizers.adafactor()
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    made = updates["encoder"]["layers_0"]["query"]
    np.testing.assert_allclose(made["lora_b"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(made["lora_a"], 1.0, rtol=1e-5)  # of ones: scaled by 1
    small = jax.tree.map(lambda x: 0.1 * x, params)
    updates, _ = optimizer.update(gradients, optimizer.init(small), small)
    np.testing.assert_allclose(updates["encoder"]["layers_0"]["query"]["lora_a"], 0.1, rtol=1e-5)


def test_flops_of_what_is_added_are_counted():
    model = model_of(lora.LoRA(2, targets=("query", "wo", "logits_dense")))

    def logits(params, batch):
        return model.compute_logits(params, batch)

    shapes = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), SHAPES))
    traced = flops.products(logits, shapes["params"], BATCH)
    lengths = {name: array.shape[1] for name, array in BATCH.items()}
    assert flops.forward_flops(model.module, lengths, batch_size=2) == traced


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        ({"rank": 0}, "^LORA_RANK=0: bind it to 1 or more, or to None for no LoRA"),
        ({"rank": 0, "alpha": 8.0}, "^LORA_RANK=0: bind it to 1 or more"),
        ({"alpha": 8.0}, r"^LORA_ALPHA=8.0: there is no LoRA \(LORA_RANK=None\)"),
        ({"dropout_rate": 0.1}, r"^LORA_DROPOUT=0.1: there is no LoRA"),
        ({"rank": 4, "alpha": 0.0}, "^LORA_ALPHA=0.0: bind it above 0"),
        ({"rank": 4, "alpha": float("nan")}, "^LORA_ALPHA=nan: bind it above 0"),
        ({"rank": 4, "dropout_rate": 1.0}, "^LORA_DROPOUT=1.0: bind it to 0.0 or more, below 1.0"),
        ({"rank": 4, "targets": ("q", "v")}, "^LORA_TARGETS: 'q' names no layer; choose among q"),
        ({"rank": 4, "targets": "query"}, "^LORA_TARGETS='query': bind it to names of layers"),
        ({"rank": 4, "targets": ()}, r"^LORA_TARGETS=\(\): bind it to names of layers"),
    ],
)
def test_what_makes_no_sense_is_refused(macros, message):
    with pytest.raises(InputError, match=message):
        lora.of_macros(**macros)


def test_no_rank_is_no_lora():
    assert lora.of_macros() is None
    assert lora.of_macros(rank=4, targets=["query"]).targets == ("query",)
    assert (lora.LoRA(4).scale, lora.LoRA(4, 8).scale) == (1.0, 2.0)


@pytest.mark.parametrize(
    "other", [{"freeze_language_model": True}, {"trainable": parameters.everything}]
)
def test_what_is_trained_is_said_once(other):
    module = network.Transformer(dataclasses.replace(T5, lora=QV))
    with pytest.raises(InputError, match=r"LORA_RANK.*each says what is trained; bind one of them"):
        models.EncoderDecoderModel(module, VOCABULARY, VOCABULARY, optax.identity(), **other)
