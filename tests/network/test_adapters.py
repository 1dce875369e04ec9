"""Adapters: what they compute, by NumPy; how many weights they have; what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from uem_t5x import network
from uem_t5x.base.errors import InputError
from uem_t5x.network import adapters, user_embedding
from uem_t5x.network.item_table import Channel

CONFIG = adapters.UserEmbeddingConfig(num_layers=2, num_heads=2, head_dim=4, mlp_dim=12)
CHANNELS = (Channel("title", 9, 6, "item"), Channel("rating", 11, 6, "rating"))
WIDTH, EMBED = 12, 8
VECTORS = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)
MASK = np.array([[True] * 5, [True, True, False, False, False], [False] * 5])


# --- T5's layers by NumPy, of parameters by "/"-joined names ---


def norm(params, name, x):
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6) * params[name]


def feed_forward(params, name, x):
    def gelu(z):
        return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    hidden = gelu(x @ params[f"{name}/wi_0/kernel"]) * (x @ params[f"{name}/wi_1/kernel"])
    return hidden @ params[f"{name}/wo/kernel"]


def attend(params, name, queries, keys, mask):
    """Attention of one user, head by head, to the keys that there are."""
    made = []
    for head in range(CONFIG.num_heads):
        part = slice(head * CONFIG.head_dim, (head + 1) * CONFIG.head_dim)
        q, k, v = (
            x @ params[f"{name}/{kind}/kernel"][:, part]
            for kind, x in (("query", queries), ("key", keys[mask]), ("value", keys[mask]))
        )
        weights = np.exp(q @ k.T)
        made.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(made, axis=1) @ params[f"{name}/out/kernel"]


def mlp_by_numpy(params, vectors, mask):
    del mask
    x = vectors
    for layer in range(CONFIG.num_layers):
        name = f"encoder/layers_{layer}"
        normed = norm(params, f"{name}/pre_mlp_layer_norm/scale", x)
        x = x + feed_forward(params, f"{name}/mlp", normed)
    return norm(params, "encoder/encoder_norm/scale", x)


def perceiver_by_numpy(params, vectors, mask):
    x = params["encoder/latents"]
    mask = np.concatenate([mask, np.ones(len(x), bool)])
    for layer in range(CONFIG.num_layers):
        name = f"encoder/layers_{layer}"
        queries = norm(params, f"{name}/pre_attention_layer_norm/scale", x)
        items = norm(params, f"{name}/pre_attention_items_layer_norm/scale", vectors)
        keys = np.concatenate([items, queries])
        x = x + attend(params, f"{name}/attention", queries, keys, mask)
        normed = norm(params, f"{name}/pre_mlp_layer_norm/scale", x)
        x = x + feed_forward(params, f"{name}/mlp", normed)
    return norm(params, "encoder/encoder_norm/scale", x)


def made(cls, soft_tokens, config=CONFIG, seed=0):
    """Returns an adapter's parameters, drawn so that none is at its start, and its tokens."""
    module = cls(config, EMBED, soft_tokens)
    init = jax.jit(lambda key: module.init(key, VECTORS, MASK, enable_dropout=False))
    params = init(jax.random.key(seed))["params"]
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)
    tokens = module.apply({"params": params}, VECTORS, MASK, enable_dropout=False)
    return traverse_util.flatten_dict(jax.device_get(params), sep="/"), tokens


@pytest.mark.parametrize(
    ("cls", "by_numpy", "soft_tokens"),
    [
        (adapters.MLPAdapter, mlp_by_numpy, None),
        (adapters.MLPAdapter, mlp_by_numpy, 3),
        (adapters.PerceiverAdapter, perceiver_by_numpy, 3),
    ],
)
def test_tokens_are_what_numpy_makes_of_the_vectors(cls, by_numpy, soft_tokens):
    params, tokens = made(cls, soft_tokens)
    for user in (0, 1):
        x = by_numpy(params, VECTORS[user], MASK[user])
        if "pooling/queries" in params:
            x = attend(params, "pooling/attention", params["pooling/queries"], x, MASK[user])
        wanted = x @ params["projection/kernel"]
        there = tokens.mask[user]
        np.testing.assert_allclose(tokens.embeddings[user][there], wanted[there], atol=2e-5)


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_compressed_every_user_with_items_has_all_tokens(name):
    _, tokens = made(adapters.ADAPTERS[name], 3)
    assert tokens.embeddings.shape == (3, 3, EMBED)
    np.testing.assert_array_equal(tokens.mask, [[True] * 3, [True] * 3, [False] * 3])
    assert np.isfinite(tokens.embeddings).all()


@pytest.mark.parametrize("name", ["transformer", "mlp"])
def test_uncompressed_there_is_a_token_an_item(name):
    _, tokens = made(adapters.ADAPTERS[name], None)
    assert tokens.embeddings.shape == (3, 5, EMBED)
    np.testing.assert_array_equal(tokens.mask, MASK)


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_what_is_masked_changes_nothing(name):
    params, _ = made(adapters.ADAPTERS[name], 3)
    module = adapters.ADAPTERS[name](CONFIG, EMBED, 3)
    params = {"params": traverse_util.unflatten_dict(params, sep="/")}
    other = np.where(MASK[..., None], VECTORS, 7.0)
    padded = np.pad(other, ((0, 0), (0, 4), (0, 0)), constant_values=3.0)
    before = module.apply(params, VECTORS, MASK, enable_dropout=False)
    after = module.apply(params, padded, np.pad(MASK, ((0, 0), (0, 4))), enable_dropout=False)
    there = np.asarray(before.mask)
    np.testing.assert_allclose(before.embeddings[there], after.embeddings[there], atol=1e-5)


def test_latents_do_not_mind_the_order_of_items():
    params, before = made(adapters.PerceiverAdapter, 3)
    module = adapters.PerceiverAdapter(CONFIG, EMBED, 3)
    params = {"params": traverse_util.unflatten_dict(params, sep="/")}
    after = module.apply(params, VECTORS[:, ::-1], MASK[:, ::-1], enable_dropout=False)
    np.testing.assert_allclose(before.embeddings[:2], after.embeddings[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "soft_tokens", "weights"),
    [
        # Three layers of 12 heads of 64 over vectors of 2304 columns, feed-forward blocks of 2048.
        ("transformer", None, 3 * (4 * 2304 * 768 + 3 * 2304 * 2048) + 12 * 32 + 7 * 2304),
        ("mlp", None, 3 * 3 * 2304 * 2048 + 4 * 2304),
        ("perceiver", 20, 3 * (4 * 2304 * 768 + 3 * 2304 * 2048) + 20 * 2304 + 10 * 2304),
        # 20 queries and one attention.
        ("mlp", 20, 3 * 3 * 2304 * 2048 + 4 * 2304 + 20 * 2304 + 4 * 2304 * 768),
    ],
)
def test_weights_of_the_default_sizes(name, soft_tokens, weights):
    module = adapters.ADAPTERS[name](adapters.UserEmbeddingConfig(), 768, soft_tokens)
    vectors, mask = jnp.zeros((1, 20, 2304)), jnp.ones((1, 20), bool)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), vectors, mask, enable_dropout=False)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == weights + 2304 * 768


@pytest.mark.parametrize(("name", "scale"), [("perceiver", 1.0), ("transformer", 0.1)])
def test_what_latents_read_at_the_start_is_not_damped(name, scale):
    config = dataclasses.replace(CONFIG, num_heads=20, mlp_dim=400)
    module = adapters.ADAPTERS[name](config, EMBED, 3)
    fresh = module.init(jax.random.key(0), VECTORS, MASK, enable_dropout=False)["params"]
    layer = fresh["encoder"]["layers_0"]
    ends = {400: layer["mlp"]["wo"], 80: layer["attention"]["out"]}
    for rows, end in ends.items():
        assert np.std(end["kernel"]) == pytest.approx(scale / np.sqrt(rows), rel=0.1)


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_dropout_drops_in_every_adapter(name):
    module = adapters.ADAPTERS[name](dataclasses.replace(CONFIG, dropout_rate=0.5), EMBED, 3)
    params = module.init(jax.random.key(0), VECTORS, MASK, enable_dropout=False)

    def tokens(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(params, VECTORS, MASK, enable_dropout=True, rngs=rngs).embeddings

    assert np.abs(tokens(1) - tokens(2)).max() > 1e-2
    np.testing.assert_array_equal(tokens(1), tokens(1))


# --- As a recipe chooses them ---


class FirstItems(network.Adapter):
    """Of one's own: the vectors of the first items, projected."""

    scale: float = 1.0

    @nn.compact
    def __call__(self, vectors, mask, *, enable_dropout):
        count = self.soft_tokens
        tokens = self.scale * nn.Dense(self.features)(vectors[:, :count])
        return network.SoftPrompt(tokens, mask[:, :count])


def prompt_of(adapter, soft_tokens=None, history=5, **options):
    prompt = user_embedding.UserPrompt(
        options.pop("config", CONFIG),
        channels=CHANNELS,
        prompt_length=2,
        adapter=adapter,
        soft_tokens=soft_tokens,
    )
    lengths = {"history_items": history, "history_ratings": history}
    return prompt.length(lengths, EMBED), prompt


@pytest.mark.parametrize(
    ("adapter", "soft_tokens", "positions"),
    [
        ("transformer", None, 2 + 5),
        ("transformer", 3, 2 + 3),
        ("mlp", None, 2 + 5),
        ("perceiver", 5, 2 + 5),
        (FirstItems, 2, 2 + 2),
    ],
)
def test_positions_before_the_text(adapter, soft_tokens, positions):
    assert prompt_of(adapter, soft_tokens)[0] == positions


@pytest.mark.parametrize("adapter", [*adapters.ADAPTERS, FirstItems])
def test_description_names_the_adapter(adapter):
    _, prompt = prompt_of(adapter, 3)
    described = prompt.describe()
    if adapter is FirstItems:
        assert described["settings"]["adapter"] is FirstItems
    else:
        assert (described["adapter"], described["soft_tokens"]) == (adapter, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": "mpl"}, r"^ADAPTER='mpl': no such adapter; choose one of transformer, mlp,"),
        ({"adapter": FirstItems(CONFIG, 8)}, r"name the class itself, without \(\)"),
        ({"adapter": dict}, r"not a class derived from network\.Adapter"),
        ({"adapter": "perceiver"}, "^SOFT_TOKENS=None: ADAPTER='perceiver' needs a number"),
        ({"adapter": "mlp", "soft_tokens": 0}, "^SOFT_TOKENS=0: bind it to 1 or more, or to None"),
        ({"adapter": "mlp", "soft_tokens": 6}, "^SOFT_TOKENS=6: more than HISTORY_LENGTH=5 items"),
        (
            {
                "adapter": "perceiver",
                "soft_tokens": 2,
                "config": dataclasses.replace(CONFIG, num_layers=0),
            },
            "^UEM_LAYERS=0: without a layer the latents",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        prompt_of(**options)
