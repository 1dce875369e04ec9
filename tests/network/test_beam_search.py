"""Beam search beside all sequences that there are; `checkpoints/` has it beside Transformers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.network import beam_search, decode_fns, decoding
from uem_t5x.network.grammar import Spelling, compile_grammar

EOS, VOCAB = 1, 7


def network(batch, seed=0):
    """Returns a chain of tokens for each example, and what reads it; the cache tells which one."""
    chains = np.random.default_rng(seed).normal(size=(batch, VOCAB, VOCAB)).astype(np.float32)
    chains[:, :, 0] = -1e9  # padding is never written
    log_probs = jax.nn.log_softmax(jnp.asarray(2 * chains))

    def tokens_to_logits(state):
        example = state.cache["example"][:, 0]
        return log_probs[example, state.cur_token[:, 0]], state.cache

    return np.asarray(log_probs), tokens_to_logits


def search(batch, length, beams, seed=0, **options):
    log_probs, tokens_to_logits = network(batch, seed)
    blank = jnp.zeros((batch, length), jnp.int32)
    cache = {"example": jnp.arange(batch)[:, None], "cache_index": jnp.zeros((), jnp.int32)}
    tokens, scores = jax.jit(
        lambda: beam_search.beam_search(
            blank, cache, tokens_to_logits, EOS, num_decodes=beams, **options
        )
    )()
    return log_probs, np.asarray(tokens), np.asarray(scores)


def log_likelihood(log_probs, tokens):
    before = (0, *tokens[:-1])
    return sum(log_probs[one, other] for one, other in zip(before, tokens))


def whole_answers(length):
    """All sequences that end, or fill the length."""
    others = range(2, VOCAB)
    for size in range(length):
        for tokens in itertools.product(others, repeat=size):
            yield (*tokens, EOS)
    yield from itertools.product(others, repeat=length)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_with_enough_beams_it_finds_the_best_of_all(length_penalty):
    """No answer can be passed once as many are found as there are: the search sees them all."""
    length = 3
    answers = list(whole_answers(length))
    log_probs, tokens, scores = search(4, length, len(answers), length_penalty=length_penalty)
    for example in range(4):
        ranked = sorted(
            answers,
            key=lambda tokens: (
                log_likelihood(log_probs[example], tokens) / len(tokens) ** length_penalty
            ),
        )
        best = np.zeros(length, np.int32)
        best[: len(ranked[-1])] = ranked[-1]
        np.testing.assert_array_equal(tokens[example, -1], best)
        wanted = log_likelihood(log_probs[example], ranked[-1])
        wanted /= len(ranked[-1]) ** length_penalty
        np.testing.assert_allclose(scores[example, -1], wanted, rtol=1e-5)


def test_scores_are_by_length_and_no_answer_is_found_twice():
    log_probs, tokens, scores = search(5, 6, 4)
    for example in range(5):
        answers = [tuple(int(token) for token in row if token) for row in tokens[example]]
        assert len(set(answers)) == 4
        wanted = [log_likelihood(log_probs[example], answer) / len(answer) for answer in answers]
        np.testing.assert_allclose(scores[example], wanted, rtol=1e-5)
        assert wanted == sorted(wanted)


def test_examples_do_not_mix():
    """Alone an example is answered as it is among others, though their searches end apart."""
    _, tokens_to_logits = network(3)
    _, tokens, scores = search(3, 6, 3)
    for example in range(3):
        cache = {"example": jnp.full((1, 1), example)}
        alone, score = beam_search.beam_search(
            jnp.zeros((1, 6), jnp.int32), cache, tokens_to_logits, EOS, num_decodes=3
        )
        np.testing.assert_array_equal(alone[0], tokens[example])
        np.testing.assert_allclose(score[0], scores[example], rtol=1e-6)


# A, B or C, once each, one or two of them: tokens 2, 3, and 4 5; 6 stands between.
NAMES = [Spelling(0, (2,)), Spelling(1, (3,)), Spelling(2, (4, 5))]
END = [Spelling(None, (EOS,))]
GRAMMAR = compile_grammar([[NAMES, END], [NAMES, [Spelling(None, (6,))], NAMES, END]], 3)
OF_GRAMMAR = [
    (*one.tokens, *((6, *other.tokens) if other else ()), EOS)
    for one in NAMES
    for other in [None, *NAMES]
    if other is not one
]


def test_within_a_grammar_it_finds_the_best_of_its_answers():
    log_probs, tokens, scores = search(6, 7, len(OF_GRAMMAR), grammar=GRAMMAR, length_penalty=0.0)
    for example in range(6):
        ranked = sorted(OF_GRAMMAR, key=lambda answer: log_likelihood(log_probs[example], answer))
        found = [tuple(int(token) for token in row if token) for row in tokens[example]]
        assert found[-1] == ranked[-1]
        assert set(found) <= set(OF_GRAMMAR)
        wanted = [log_likelihood(log_probs[example], answer) for answer in found]
        np.testing.assert_allclose(scores[example], wanted, rtol=1e-5)


def test_beams_beyond_what_a_grammar_says_are_told_by_their_scores():
    grammar = compile_grammar([[NAMES[:2], END]], 2)
    _, tokens, scores = search(2, 4, 4, grammar=grammar)
    np.testing.assert_array_equal(np.isfinite(scores), [[False, False, True, True]] * 2)
    assert not tokens[:, :2].any()
    assert {tuple(row) for row in tokens[:, 2:].reshape(-1, 4)} == {(2, 1, 0, 0), (3, 1, 0, 0)}


def test_decoding_by_name():
    assert decode_fns.choose() is decoding.greedy_decode
    assert decode_fns.choose("beam", 4) is beam_search.beam_search
    assert decode_fns.choose("sample") is decoding.temperature_sample


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        (("beams", 4), "^DECODING='beams': choose one of 'greedy', 'beam', 'sample'"),
        (("beam", 1), "^NUM_BEAMS=1: one beam is greedy; bind it to 2 or more"),
        (("greedy", 4), "^NUM_BEAMS=4: DECODING='greedy' has no beams; bind it to 'beam'"),
        (("beam", 0), "^NUM_BEAMS=0: bind it to 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(macros, message):
    with pytest.raises(InputError, match=message):
        decode_fns.choose(*macros)
