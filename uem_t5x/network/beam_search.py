"""Beam search with a key-value cache, within a grammar as well.

It takes T5X's arguments for a `decode_fn`. What it finds is what Transformers' `generate` finds by
default with as many beams: scores are log-likelihoods divided by the number of tokens, to the
`length_penalty`, and a search ends when, as it stands, no beam can pass the worst answer found.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from uem_t5x.network import decoding
from uem_t5x.network.grammar import Grammar, Place
from uem_t5x.network.types import PyTree


class Beams(NamedTuple):
    """The state of a search; `cur_token` and `cache` are what T5X's state calls them.

    Beams that lead nowhere, as the others do at the start, score minus infinity.

    Attributes:
      index: the position that is written next.
      tokens: of the beams that go on, 0 where nothing is written.
      scores: their log-likelihoods, the best first.
      cur_token: the token that the network reads next, of all beams of all examples.
      cache: the network's key-value cache, likewise.
      place: of the beams in the grammar, likewise; None without one.
      found: answers that have ended, as far as there are any.
      found_scores: their log-likelihoods by length, the best first.
      improves: whether an example's beams may still pass its answers.
    """

    index: Int[Array, ""]
    tokens: Int[Array, "batch beams length"]
    scores: Float[Array, "batch beams"]
    cur_token: Int[Array, "sequences 1"]
    cache: PyTree
    place: Place | None
    found: Int[Array, "batch beams length"]
    found_scores: Float[Array, "batch beams"]
    improves: Bool[Array, " batch"]


def beam_search(
    inputs: Int[Array, "batch length"],
    cache: PyTree,
    tokens_to_logits: Callable[[Beams], tuple[jax.Array, PyTree]],
    eos_id: int,
    decode_rng: jax.Array | None = None,
    num_decodes: int = 4,
    length_penalty: float = 1.0,
    cache_offset: int = 0,
    grammar: Grammar | None = None,
) -> tuple[Int[Array, "batch decodes length"], Float[Array, "batch decodes"]]:
    """Searches for the likeliest sequences.

    Args:
      inputs: only its shape is used: the batch and the number of tokens to write.
      cache: the network's key-value cache for `batch` sequences, at position 0.
      tokens_to_logits: reads `cur_token` and `cache`, returns logits [batch, vocab] and the cache.
      eos_id: the token that ends a sequence.
      decode_rng: taken for T5X's sake; nothing is drawn.
      num_decodes: beams of each input, and sequences that are returned.
      length_penalty: exponent of the length that log-likelihoods are divided by; above 0 it favours
        long sequences.
      cache_offset: position of the cache's batch axis.
      grammar: what is written stays within it; the scores remain the network's own.

    Returns:
      The sequences and their scores, log-likelihoods under the network by length, the best sequence
      last, as T5X orders them; minus infinity where a grammar has fewer answers than there are
      beams.
    """
    del decode_rng
    batch_size, length = inputs.shape
    beams = num_decodes
    sequences = batch_size * beams
    nowhere = jnp.full((batch_size, beams), -jnp.inf)
    blank = jnp.zeros((batch_size, beams, length), jnp.int32)

    def take(array: jax.Array, beam: Int[Array, "batch kept"]) -> jax.Array:
        """Returns the beams of these numbers of each example, [batch, beams, ...]."""
        return jnp.take_along_axis(
            array, beam.reshape(*beam.shape, *[1] * (array.ndim - 2)), axis=1
        )

    def rows_of(beam: Int[Array, "batch kept"], of: int) -> Int[Array, " rows"]:
        """Returns where beams lie among all examples', of which each has so many."""
        return (beam + of * jnp.arange(batch_size)[:, None]).reshape(-1)

    def step(state: Beams) -> Beams:
        logits, cache = tokens_to_logits(state)
        candidates = jax.nn.log_softmax(logits)
        if grammar:
            # Of the edges out of a place; those that lead to no answer score minus infinity.
            candidates = grammar.candidates(candidates, state.place)
        choices = candidates.shape[-1]
        scores = state.scores[..., None] + candidates.reshape(batch_size, beams, choices)
        # Twice as many as there are beams, so that enough go on even if all of the best ones end.
        kept = min(2 * beams, beams * choices)
        scores, choice = lax.top_k(scores.reshape(batch_size, -1), kept)
        beam, choice = choice // choices, (choice % choices).reshape(-1)
        if grammar:
            before = jax.tree.map(lambda x: x[rows_of(beam, beams)], state.place)
            place, token = grammar.advance(before, choice)
        else:
            place, token = None, choice
        token = token.reshape(batch_size, kept).astype(jnp.int32)
        tokens = lax.dynamic_update_slice_in_dim(
            take(state.tokens, beam), token[..., None], state.index, axis=2
        )

        ends = (token == eos_id) | (state.index + 1 == length)
        is_best = jnp.arange(kept) < beams  # the others are there to go on
        by_length = (state.index + 1.0) ** length_penalty
        ended = jnp.where(ends & is_best & state.improves[:, None], scores / by_length, -jnp.inf)
        found_scores, best = lax.top_k(jnp.concatenate([state.found_scores, ended], axis=1), beams)
        found = take(jnp.concatenate([state.found, tokens], axis=1), best)

        scores, onward = lax.top_k(jnp.where(ends, -jnp.inf, scores), beams)
        rows = rows_of(take(beam, onward), beams)
        return Beams(
            index=state.index + 1,
            tokens=take(tokens, onward),
            scores=scores,
            cur_token=take(token, onward).reshape(-1, 1),
            cache=jax.tree.map(
                lambda x: jnp.take(x, rows, axis=cache_offset) if x.ndim > 1 else x, cache
            ),
            place=jax.tree.map(lambda x: x[rows_of(onward, kept)], place),
            found=found,
            found_scores=found_scores,
            improves=state.improves & (scores[:, 0] / by_length > found_scores[:, -1]),
        )

    final = lax.while_loop(
        lambda state: (state.index < length) & jnp.any(state.improves),
        step,
        Beams(
            index=jnp.zeros((), jnp.int32),
            tokens=blank,
            scores=nowhere.at[:, 0].set(0.0),  # of equal beams one is enough
            cur_token=jnp.zeros((sequences, 1), jnp.int32),  # T5 starts from its padding token
            cache=decoding.repeat_cache(cache, beams, cache_offset),
            place=grammar.start(sequences) if grammar else None,
            found=blank,
            found_scores=nowhere,
            improves=jnp.ones((batch_size,), bool),
        ),
    )
    return final.found[:, ::-1], final.found_scores[:, ::-1]
