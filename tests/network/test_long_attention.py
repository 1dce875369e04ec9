"""LongT5's attention: Transformers' logits, whatever is padded or cut, in linear memory."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from uem_t5x import checkpoints, network
from uem_t5x.base.errors import InputError
from uem_t5x.network import long_attention, stacks

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = ("local", "transient_global")
TINY = network.T5Config(
    vocab_size=64,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=1,
    local_radius=4,
    global_block_size=3,
)


def tiny(kind, **fields):
    return dataclasses.replace(TINY, encoder_attention=kind, **fields)


def tokens(*shape):
    return np.random.default_rng(0).integers(2, TINY.vocab_size, shape, dtype=np.int32)


@functools.cache
def variables(kind):
    one = jnp.ones((1, 4), jnp.int32)
    init = jax.jit(network.Transformer(tiny(kind)).init, static_argnames="enable_dropout")
    return init(jax.random.PRNGKey(0), one, one, one, enable_dropout=False)


def logits(config, params, text, answer):
    apply = functools.partial(network.Transformer(config).apply, enable_dropout=False)
    shifted = np.pad(answer, ((0, 0), (1, 0)))[:, :-1]
    return jax.jit(apply)({"params": params}, text, shifted, answer)


class GivenPrompt(network.SoftPromptModule):
    """The soft prompt that is among the features."""

    def __call__(self, features, embed_dim, *, enable_dropout=True):
        return network.SoftPrompt(features["embeddings"], features["mask"])


def encode(kind, text, features=None):
    module = network.Transformer(tiny(kind), GivenPrompt() if features else None)
    apply = functools.partial(module.apply, method="encode", enable_dropout=False)
    return jax.jit(apply)(variables(kind), text, features).values


@pytest.mark.parametrize("queries", [512, 24, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind, queries, monkeypatch):
    """In one chunk and in many."""
    monkeypatch.setattr(long_attention, "CHUNK_QUERIES", queries)
    config, params = checkpoints.load_language_model(GOLDEN / f"huggingface_longt5_{kind}")
    assert (config.local_radius, config.global_block_size) == (9, 4)
    assert config.encoder_attention == kind
    golden = np.load(GOLDEN / "huggingface_longt5.npz")
    for length in (3, 10, 57, 160):
        text, answer = golden[f"encoder_input_tokens_{length}"], golden["decoder_target_tokens"]
        expected = golden[f"{kind}_logits_{length}"]
        np.testing.assert_allclose(logits(config, params, text, answer), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("length", "radius", "size", "per_chunk", "chunks"),
    [
        (16_384, 127, 16, 4, 32),
        (16_384, 127, None, 4, 32),
        (640, 127, 16, 3, 2),  # five blocks: more even than four and one
        (20, 127, 16, 1, 1),
        (1_000, 84, 16, 16, 1),  # 16 blocks of 85 are the fewest that 16 divides
        (1_000, 84, None, 6, 2),
    ],
)
def test_how_a_text_is_cut(length, radius, size, per_chunk, chunks):
    blocks = long_attention.Blocks(length, radius, size)
    assert (blocks.per_chunk, blocks.chunks) == (per_chunk, chunks)
    assert blocks.chunk % (size or 1) == 0
    assert blocks.chunk * (blocks.chunks - 1) < length <= blocks.chunk * blocks.chunks


def test_the_last_positions_of_a_text_join_the_summary_before_them():
    inputs = jnp.arange(1.0, 9.0)[None, :, None] * jnp.ones((4, 1, 1))
    mask = np.asarray([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6, [1] * 3 + [0] * 3 + [1] * 2])
    sums, is_there, count = long_attention.summarize(inputs, mask > 0, size=3)
    expected = [[6, 4 + 5 + 6 + 7 + 8], [6 + 4 + 5, 0], [0, 0], [6, 7 + 8]]
    np.testing.assert_array_equal(sums[..., 0], expected)
    np.testing.assert_array_equal(is_there, np.asarray(expected) > 0)
    np.testing.assert_array_equal(count, [2, 1, 0, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_axes_are_those_of_t5x(kind):
    found = traverse_util.flatten_dict(variables(kind)["params"], sep="/")
    full = traverse_util.flatten_dict(variables("full")["params"], sep="/")
    more = {name: found[name].shape for name in found.keys() - full.keys()}
    expected = {"encoder/side_relpos_bias/rel_embedding": (2, 32)} | {
        f"encoder/layers_{layer}/attention/T5LayerNorm_0/scale": (16,) for layer in range(2)
    }
    assert more == (expected if kind == "transient_global" else {})
    assert not full.keys() - found.keys()
    axes = traverse_util.flatten_dict(variables(kind)["params_axes"], sep="/")
    assert {name: len(axes[f"{name}_axes"].names) for name in found} == {
        name: value.ndim for name, value in found.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    text = tokens(2, 17)
    text[1, 13:] = 0
    short = encode(kind, text)
    long = encode(kind, np.pad(text, ((0, 0), (0, 40))))
    np.testing.assert_allclose(short[0], long[0, :17], atol=1e-5)
    np.testing.assert_allclose(short[1, :13], long[1, :13], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_how_far_a_change_is_seen(kind):
    """Two layers see two radii far, or everything by the summaries."""
    text = tokens(1, 60)
    changed = text.copy()
    changed[0, 30] = 1
    difference = np.abs(encode(kind, text) - encode(kind, changed))[0].max(axis=-1)
    reach = 2 * TINY.local_radius
    assert difference[30 - reach] > 1e-4 and difference[30 + reach] > 1e-4
    beyond = np.delete(difference, np.arange(30 - reach, 30 + reach + 1))
    if kind == "local":
        assert beyond.max() == 0
    else:
        assert beyond.min() > 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_a_soft_prompt_is_read_where_it_holds_something(kind):
    """A short history leaves a gap before the text, of whole summaries and of parts."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2, 11, 16)).astype(np.float32)
    mask = np.arange(11) < np.asarray([[11], [2]])
    text = tokens(2, 8)
    encoded = encode(kind, text, {"embeddings": embeddings, "mask": mask})
    gap, seen = embeddings.copy(), embeddings.copy()
    gap[1, 2:] = rng.normal(size=(9, 16))
    seen[1, 1] = 0
    again = encode(kind, text, {"embeddings": gap, "mask": mask})
    is_held = np.concatenate([mask, text > 0], axis=1)
    np.testing.assert_allclose(encoded[is_held], again[is_held], atol=1e-6)
    other = encode(kind, text, {"embeddings": seen, "mask": mask})
    assert np.abs(encoded[1, 0] - other[1, 0]).max() > 1e-3
    np.testing.assert_array_equal(encoded[0], other[0])


def encoder_loss(config, mask):
    """Returns a function of an encoder's parameters, with dropout."""
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(*mask.shape, 16)), jnp.float32)

    def loss(params):
        rngs = {"dropout": jax.random.PRNGKey(1)}
        encoder = network.Encoder(config)
        y = encoder.apply({"params": params}, embeddings, mask, rngs=rngs)
        return (y * mask[..., None]).sum() ** 2

    return loss


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_the_same_however_layers_are_run(kind, monkeypatch):
    """Of texts of several chunks, even and not, and of one that holds nothing."""
    monkeypatch.setattr(long_attention, "CHUNK_QUERIES", 15)
    mask = np.arange(38) < np.asarray([[38], [20], [0]])
    params = stacks.stack(variables(kind)["params"]["encoder"])
    one_by_one = tiny(kind, dropout_rate=0.2)
    looped = dataclasses.replace(one_by_one, scan_layers=True, remat="minimal")
    expected, found = (
        jax.jit(jax.grad(encoder_loss(config, mask)))(params) for config in (one_by_one, looped)
    )
    for leaf in jax.tree.leaves(expected):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


def test_a_radius_beyond_the_text_is_full_attention():
    """The same outputs' gradients, by the loop of blocks and by one softmax over everything."""
    mask = np.arange(38) < np.asarray([[38], [20]])
    params = variables("local")["params"]["encoder"]
    local, full = (
        jax.jit(jax.grad(encoder_loss(tiny(kind, local_radius=40), mask)))(params)
        for kind in ("local", "full")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), local, full)


def test_dropout_draws_anew_for_each_block(monkeypatch):
    monkeypatch.setattr(long_attention, "CHUNK_QUERIES", 5)
    blocks = long_attention.Blocks(10, 4)
    heads = jnp.ones((1, 10, 1, 1))
    attended = long_attention.attend(
        heads,
        heads,
        heads,
        np.ones((1, 10), bool),
        None,
        long_attention.LongBias(jnp.zeros((1, 1, 5, 15))),
        blocks,
        dropout_rate=0.5,
        rng=jax.random.PRNGKey(0),
    )
    first, second = attended[0, :5, 0, 0], attended[0, 5:, 0, 0]
    assert blocks.chunks == 2
    assert len(set(first.tolist())) == 1  # one mask for all queries of a block
    assert first[0] != second[0]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_activations_stay_close(kind):
    text, answer = tokens(2, 40), tokens(2, 4)
    params = variables(kind)["params"]
    exact = logits(tiny(kind), params, text, answer)
    rounded = logits(tiny(kind, dtype="bfloat16"), params, text, answer)
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def long_gradients(kind, length, **fields):
    config = tiny(kind, local_radius=127, global_block_size=16, num_encoder_layers=1, **fields)
    return jax.jit(jax.grad(encoder_loss(config, np.ones((1, length), bool))))


def largest_array(jaxpr):
    """Returns the most elements of any array, those within loops included."""
    inner = [
        getattr(leaf, "jaxpr", leaf)
        for equation in jaxpr.eqns
        for leaf in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns"))
        if hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
    ]
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    return max([0, *sizes, *map(largest_array, inner)])


@pytest.mark.parametrize("remat", ["none", "minimal", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_array_grows_faster_than_the_text(kind, remat):
    params = variables(kind)["params"]["encoder"]
    sizes = [
        largest_array(
            long_gradients(kind, length, remat=remat, dropout_rate=0.1).trace(params).jaxpr.jaxpr
        )
        for length in (4096, 8192, 16_384)
    ]
    assert sizes[0] < 4096**2 / 2
    assert sizes[1] <= 2 * sizes[0] and sizes[2] <= 2 * sizes[1]


def test_memory_grows_no_faster_than_the_text():
    """What the gradients take besides their arguments, as XLA plans it for 1K and 4K tokens."""
    params = variables("transient_global")["params"]["encoder"]
    one, four = (
        long_gradients("transient_global", length).lower(params).compile().memory_analysis()
        for length in (1024, 4096)
    )
    assert four.temp_size_in_bytes < 4 * one.temp_size_in_bytes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"encoder_attention": "globl"},
            r"ENCODER_ATTENTION='globl': no such .*full, local, transient_global",
        ),
        ({"local_radius": 0}, r"LOCAL_RADIUS=0: bind it to 1 or more"),
        ({"global_block_size": -16}, r"GLOBAL_BLOCK_SIZE=-16: bind it to 1 or more"),
    ],
)
def test_refused_sizes(fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TINY, **{"encoder_attention": "local", **fields})


def test_how_a_text_is_cut_up_has_to_be_said():
    with pytest.raises(TypeError, match="blocks"):
        long_attention.LongAttention(num_heads=2, head_dim=8)
