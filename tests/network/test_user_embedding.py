"""The user embedding module: its size, its place in the encoder's input, its frozen table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio
from flax import traverse_util

from uem_t5x import models, network
from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder as dataset_folder_lib
from uem_t5x.inputs import data_sources
from uem_t5x.network import adapters, item_table, user_embedding
from uem_t5x.network.item_table import Channel
from uem_t5x.training import optimizers, partitioning, trainer

T5 = network.T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
UEM = user_embedding.UserEmbeddingConfig(num_layers=1, num_heads=2, head_dim=8, mlp_dim=16)
TEXT = np.array([[5, 6, 7], [5, 6, 0]], np.int32)
ANSWER = np.array([[3, 4, 1], [3, 1, 0]], np.int32)
ITEMS = np.array([[3, 9, 4, 0], [8, 0, 0, 0]], np.int32)
RATINGS = np.array([[9, 2, 7, 0], [10, 0, 0, 0]], np.int32)
HISTORY = {"history_items": ITEMS, "history_ratings": RATINGS}


@pytest.fixture(scope="module")
def personalized(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        channels = data_sources.channels()
    module = network.Transformer(
        T5, user_embedding.UserPrompt(UEM, channels=channels, prompt_length=3)
    )

    def init(key):
        return module.init(key, TEXT, ANSWER, ANSWER, HISTORY, enable_dropout=False)

    variables = jax.jit(init)(jax.random.PRNGKey(0))
    variables = item_table.fill(variables, dataset_folder.embedding)

    @jax.jit
    def logits(items, ratings):
        return module.apply(
            {name: variables[name] for name in ("params", "item_table")},
            TEXT,
            ANSWER,
            ANSWER,
            {"history_items": items, "history_ratings": ratings},
            enable_dropout=False,
        )

    return module, variables, logits


@pytest.mark.parametrize(("emb_dim", "millions"), [(768, 65.5), (1024, 66.1)])
def test_the_papers_uem_has_65_million_parameters(emb_dim, millions):
    """3 layers x (4 x 2304 x 768 + 3 x 2304 x 2048) + 2304 x e, norms and position biases."""
    module = adapters.UserEmbedding(user_embedding.UserEmbeddingConfig(), emb_dim)
    vectors, mask = jnp.zeros((1, 2, 3 * 768)), jnp.ones((1, 2), bool)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.PRNGKey(0), vectors, mask, enable_dropout=False)
    )
    kernels = 3 * (4 * 2304 * 768 + 3 * 2304 * 2048) + 2304 * emb_dim
    norms, position_biases = (2 * 3 + 1) * 2304, 12 * 32
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == kernels + norms + position_biases
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def encoded(vectors, config, embed_dim=16):
    """Returns a fresh UEM's parameters, and what its layers make of vectors."""
    module = adapters.UserEmbedding(config, embed_dim)
    mask = jnp.ones(vectors.shape[:2], bool)
    _, variables = module.init_with_output(
        jax.random.key(0),
        vectors,
        mask,
        enable_dropout=False,
        capture_intermediates=lambda module, _: module.name == "layers_2",
    )
    layers = variables["intermediates"]["encoder"]["layers_2"]["__call__"][0]
    return traverse_util.flatten_dict(variables["params"], sep="/"), layers


def test_a_fresh_layer_adds_a_tenth_of_what_one_of_t5_adds():
    """Which leaves of an item's vector what was known of it; the rest of the weights is T5's."""
    small = dataclasses.replace(UEM, num_layers=3)
    vectors = jax.random.normal(jax.random.key(1), (4, 10, 24))
    ours, layers = encoded(vectors, small)
    t5s, layers_of_t5s = encoded(vectors, dataclasses.replace(small, branch_init_scale=1.0))
    assert small.branch_init_scale == 0.1
    assert ours.keys() == t5s.keys()
    for name, values in ours.items():
        scale = 0.1 if name.endswith(("attention/out/kernel", "mlp/wo/kernel")) else 1.0
        np.testing.assert_allclose(values, scale * t5s[name], rtol=1e-6, err_msg=name)
    added, added_by_t5s = (np.std(after - vectors) for after in (layers, layers_of_t5s))
    assert added < 0.2 < 0.8 < added_by_t5s


def test_the_language_model_begins_as_t5(personalized):
    _, variables, _ = personalized
    tokens = traverse_util.flatten_dict(variables["params"]["encoder"], sep="/")
    out, query = (tokens[f"layers_0/attention/{name}/kernel"] for name in ("out", "query"))
    assert np.std(out) == pytest.approx(1 / np.sqrt(out.shape[0]), rel=0.2)
    assert np.std(query) == pytest.approx(1 / np.sqrt(query.shape[0] * T5.head_dim), rel=0.2)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_what_starts_at_zero_would_stay_there(scale):
    with pytest.raises(InputError, match=r"^UEM_BRANCH_INIT=.*: bind it above 0"):
        dataclasses.replace(UEM, branch_init_scale=scale)


def test_the_item_table_is_no_parameter(personalized, dataset_folder):
    _, variables, _ = personalized
    table = variables["item_table"]["item_table"]
    for name, matrix in dataset_folder.embeddings().items():
        np.testing.assert_array_equal(table[name], matrix)
    names = traverse_util.flatten_dict(variables["params"], sep="/")
    assert not any("item_table" in name for name in names)


def test_a_run_reads_each_channel_once_and_only_to_fill_its_table(
    personalized, dataset_folder, monkeypatch
):
    """Vectors that an initialization looks up while it is traced are constants of its program."""
    module, _, _ = personalized
    vocabulary = seqio.PassThroughVocabulary(T5.vocab_size, 1)
    model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizers.adafactor())
    shapes = {
        "encoder_input_tokens": TEXT.shape,
        "decoder_target_tokens": ANSWER.shape,
        "history_items": ITEMS.shape,
        "history_ratings": RATINGS.shape,
    }
    read = []
    embedding = dataset_folder_lib.DatasetFolder.embedding

    def note(folder, channel):
        read.append(channel)
        return embedding(folder, channel)

    monkeypatch.setattr(dataset_folder_lib.DatasetFolder, "embedding", note)
    initializer = trainer.TrainStateInitializer(
        model, shapes, partitioning.Partitioner(), item_vectors=dataset_folder.embedding
    )
    assert not read
    state = initializer.from_scratch(jax.random.key(0))
    matrices = dataset_folder.embeddings()
    assert sorted(read) == sorted(matrices)
    table = state.flax_mutables["item_table"]["item_table"]
    assert table.keys() == matrices.keys()
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(table[name], matrix)


def test_a_table_without_vectors_is_no_start(personalized):
    """Zeros would be learned from without a word."""
    module, _, _ = personalized
    vocabulary = seqio.PassThroughVocabulary(T5.vocab_size, 1)
    model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizers.adafactor())
    shapes = {"encoder_input_tokens": TEXT.shape, "decoder_target_tokens": ANSWER.shape}
    shapes |= {name: array.shape for name, array in HISTORY.items()}
    initializer = trainer.TrainStateInitializer(model, shapes, partitioning.Partitioner())
    with pytest.raises(ValueError, match="hand in its vectors as item_vectors"):
        initializer.from_scratch(jax.random.key(0))


def test_the_encoder_reads_task_prompts_then_items_then_text(personalized):
    module, variables, _ = personalized
    variables = {name: variables[name] for name in ("params", "item_table")}
    encoded = module.apply(variables, TEXT, HISTORY, enable_dropout=False, method="encode")
    assert encoded.values.shape == (2, 3 + 4 + 3, 16)
    prompts, items = np.ones((2, 3), bool), ITEMS > 0
    np.testing.assert_array_equal(encoded.mask, np.concatenate([prompts, items, TEXT > 0], 1))

    prompt = module.apply(variables, HISTORY, enable_dropout=False, method="prompt").embeddings
    task_prompt = variables["params"]["task_prompt"]["embedding"]
    np.testing.assert_array_equal(prompt[0, :3], task_prompt)
    np.testing.assert_array_equal(prompt[1, :3], task_prompt)


def test_items_and_ratings_reach_the_answer(personalized):
    *_, logits = personalized
    before = logits(ITEMS, RATINGS)
    other_item, other_rating = ITEMS.copy(), RATINGS.copy()
    other_item[0, 1] = 11
    other_rating[0, 1] = 10
    for after in (logits(other_item, RATINGS), logits(ITEMS, other_rating)):
        assert np.abs(before[0] - after[0]).max() > 1e-3
        np.testing.assert_allclose(before[1], after[1], atol=1e-6)  # another user


def test_padding_of_the_history_changes_nothing_but_positions_of_the_text(personalized):
    """Padding stands between items and text, and T5 knows positions only by distance."""
    module, variables, _ = personalized
    variables = {name: variables[name] for name in ("params", "item_table")}
    embed = jax.jit(
        lambda items, ratings: module.apply(
            variables,
            {"history_items": items, "history_ratings": ratings},
            enable_dropout=False,
            method="prompt",
        )
    )
    short = embed(ITEMS[:, :3], RATINGS[:, :3])
    long = embed(ITEMS, RATINGS)
    kept = np.asarray(short.mask)
    np.testing.assert_allclose(short.embeddings[kept], long.embeddings[:, :6][kept], atol=1e-5)


def loss_and_gradients(personalized, dtype="float32", **features):
    module, variables, _ = personalized
    t5, uem = (dataclasses.replace(config, dtype=jnp.dtype(dtype)) for config in (T5, UEM))
    module = module.clone(config=t5, soft_prompt=module.soft_prompt.clone(config=uem))
    vocabulary = seqio.PassThroughVocabulary(T5.vocab_size)
    model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optax.identity())
    batch = {
        "encoder_input_tokens": TEXT,
        "decoder_input_tokens": ANSWER,
        "decoder_target_tokens": ANSWER,
        "history_items": ITEMS,
        "history_ratings": RATINGS,
    } | features
    batch["decoder_loss_weights"] = (batch["decoder_target_tokens"] > 0).astype(np.int32)
    mutables = {"item_table": variables["item_table"]}
    value_and_grad = jax.value_and_grad(model.loss_fn, has_aux=True)
    (loss, _), gradients = jax.jit(value_and_grad)(variables["params"], batch, None, mutables)
    return float(loss), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])


@pytest.mark.parametrize(
    "features",
    [
        {"history_items": 0 * ITEMS, "history_ratings": 0 * RATINGS},
        {"history_items": ITEMS[:, :1], "history_ratings": RATINGS[:, :1]},
        {"history_ratings": 0 * RATINGS},
        {"encoder_input_tokens": 0 * TEXT},
        {"decoder_input_tokens": 0 * ANSWER, "decoder_target_tokens": 0 * ANSWER},
    ],
    ids=["no history", "one item", "no ratings", "no text", "no answer"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_users_of_whom_little_is_known_give_finite_gradients(personalized, features, dtype):
    loss, gradients = loss_and_gradients(personalized, dtype, **features)
    assert np.isfinite(loss)
    assert np.isfinite(gradients).all()


def test_bfloat16_gives_the_loss_to_one_percent_and_the_direction_of_its_gradient(personalized):
    exact, exact_gradients = loss_and_gradients(personalized)
    loss, gradients = loss_and_gradients(personalized, "bfloat16")
    assert loss == pytest.approx(exact, rel=0.01)
    lengths = np.linalg.norm(gradients) * np.linalg.norm(exact_gradients)
    assert gradients @ exact_gradients / lengths > 0.999


def test_a_fourth_channel_widens_the_uem(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        channels = (*data_sources.channels(), Channel("poster", 20, 8, "item"))
    table = {name: jnp.asarray(matrix) for name, matrix in dataset_folder.embeddings().items()}
    table["poster"] = jnp.ones((len(table["description"]), 8))

    vectors = item_table.ItemTable(channels).apply({item_table.ITEM_TABLE: table}, ITEMS, RATINGS)
    assert vectors.shape == (2, 4, 3 * 16 + 8)
    np.testing.assert_allclose(vectors[0, 0, -8:], np.sqrt(8))


def test_channels_have_to_be_said():
    with pytest.raises(TypeError, match="channels"):
        user_embedding.UserPrompt()
