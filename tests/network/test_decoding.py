"""Decoding, over a hand-made chain of tokens whose likeliest path is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uem_t5x.network import decoding

EOS = 1
# Row: the token read; column: the probability of the token written.
CHAIN = np.array(
    [
        [0.0, 0.0, 0.6, 0.4, 0.0],  # start: 2 is likelier than 3
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.3, 0.0, 0.0, 0.7],  # 2: 4, or the end
        [0.0, 1.0, 0.0, 0.0, 0.0],  # 3: the end
        [0.0, 0.9, 0.1, 0.0, 0.0],  # 4: the end, or 2 again
    ],
    np.float32,
)


def tokens_to_logits(state):
    return jnp.log(jnp.asarray(CHAIN))[state.cur_token[:, 0]], state.cache


def decode(function, batch=1, length=4, **options):
    blank = jnp.zeros((batch, length), jnp.int32)
    cache = {"cached_key": jnp.zeros((batch, length, 1, 1)), "cache_index": jnp.zeros(())}
    run = jax.jit(
        lambda key: function(blank, cache, tokens_to_logits, EOS, decode_rng=key, **options)
    )
    return run(options.pop("key", jax.random.PRNGKey(0)))


def test_greedy_takes_the_likeliest_token_and_stops_at_the_end():
    tokens, scores = decode(decoding.greedy_decode)
    np.testing.assert_array_equal(tokens, [[[2, 4, EOS, 0]]])
    np.testing.assert_allclose(scores, [[np.log(0.6 * 0.7 * 0.9)]], rtol=1e-5)


def test_greedy_fills_the_length_where_nothing_ends():
    tokens, _ = decode(decoding.greedy_decode, length=2)
    np.testing.assert_array_equal(tokens, [[[2, 4]]])


def test_samples_follow_the_probabilities_and_carry_their_likelihood():
    tokens, scores = decode(decoding.temperature_sample, batch=4000)
    first = np.asarray(tokens)[:, 0, 0]
    assert np.mean(first == 2) == pytest.approx(0.6, abs=0.03)
    went_by_3 = first == 3
    np.testing.assert_allclose(scores[went_by_3], np.log(0.4), rtol=1e-5)


def test_a_low_temperature_or_one_candidate_is_greedy():
    for options in ({"temperature": 0.01}, {"topk": 1}, {"topp": 0.01}):
        tokens, _ = decode(decoding.temperature_sample, batch=50, **options)
        np.testing.assert_array_equal(tokens[:, 0], np.tile([2, 4, EOS, 0], (50, 1)))


def test_the_nucleus_keeps_the_token_that_crosses_its_threshold():
    tokens, _ = decode(decoding.temperature_sample, batch=500, length=1, topp=0.61)
    assert set(np.asarray(tokens).ravel().tolist()) == {2, 3}


@pytest.mark.parametrize("options", [{"topk": 2}, {"topp": 0.6}, {"topk": 2, "topp": 0.9}])
def test_of_equally_likely_tokens_no_more_are_kept_than_were_asked_for(options):
    """Of four, each of a probability of 0.25; the nucleus of 0.6 takes three."""
    logits = jnp.log(jnp.asarray([[0.0, 0.25, 0.25, 0.25, 0.25]]))
    kept = np.isfinite(decoding._restrict(logits, **{"topk": 0, "topp": 0.0, **options}))
    expected = [1, 2, 3] if options == {"topp": 0.6} else [1, 2]
    assert np.flatnonzero(kept[0]).tolist() == expected


def test_several_samples_come_with_the_likeliest_last():
    tokens, scores = decode(decoding.temperature_sample, batch=3, num_decodes=8)
    assert tokens.shape == (3, 8, 4)
    assert (np.diff(scores, axis=1) >= 0).all()


def test_sampling_needs_a_key_and_greedy_decoding_one_sequence():
    blank = jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="decode_rng"):
        decoding.temperature_sample(blank, {}, tokens_to_logits, EOS)
    with pytest.raises(ValueError, match="num_decodes=2"):
        decoding.greedy_decode(blank, {}, tokens_to_logits, EOS, num_decodes=2)
