"""Turning logits into tokens: greedy decoding and temperature sampling with a key-value cache.

The functions take T5X's arguments for a `decode_fn`, so that a recipe may name these or T5X's own
`t5x.decoding.beam_search` and `t5x.decoding.temperature_sample`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from uem_t5x.network.grammar import Grammar, Place

Cache = Any


class DecodingState(NamedTuple):
    """The state of the decoding loop; `cur_token` and `cache` are what T5X's state calls them.

    Attributes:
      index: the position that is written next.
      tokens: what has been written, 0 where nothing has.
      cur_token: the token that the network reads next.
      scores: the log-likelihood of each sequence so far.
      finished: sequences that have written the end-of-sequence token.
      cache: the network's key-value cache.
      rng: the random key of the steps that are left.
      place: of each sequence in the grammar, where there is one.
    """

    index: Int[Array, ""]
    tokens: Int[Array, "batch length"]
    cur_token: Int[Array, "batch 1"]
    scores: Float[Array, " batch"]
    finished: Bool[Array, " batch"]
    cache: Cache
    rng: jax.Array
    place: Place | None = None


TokensToLogits = Callable[[DecodingState], tuple[jax.Array, Cache]]


def temperature_sample(
    inputs: Int[Array, "batch length"],
    cache: Cache,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    decode_rng: jax.Array | None = None,
    num_decodes: int = 1,
    temperature: float = 1.0,
    topk: int = 0,
    topp: float = 0.0,
    cache_offset: int = 0,
    grammar: Grammar | None = None,
) -> tuple[Int[Array, "batch decodes length"], Float[Array, "batch decodes"]]:
    """Samples sequences until all have ended or the length is reached.

    Args:
      inputs: only its shape is used: the batch and the number of tokens to write.
      cache: the network's key-value cache for `batch` sequences, at position 0.
      tokens_to_logits: reads `cur_token` and `cache`, returns logits [batch, vocab] and the cache.
      eos_id: the token that ends a sequence.
      decode_rng: random key; needed unless `temperature` is 0.
      num_decodes: sequences drawn for each input.
      temperature: divides the logits; 0 is greedy decoding.
      topk: draw from the k likeliest tokens; 0 for all of them.
      topp: draw from the smallest set of tokens that holds this probability; 0 for all of them.
      cache_offset: position of the cache's batch axis. T5X's own models pass it to whatever
        decodes for them, as their scanned layers have an axis before it.
      grammar: what is written stays within it; the scores remain the network's own.

    Returns:
      The sequences and the log-likelihoods of each under the network (at temperature 1), the
      likeliest sequence last, as T5X orders them.

    Raises:
      ValueError: if sampling is asked for without a random key.
    """
    if temperature and decode_rng is None:
        raise ValueError(
            f"temperature={temperature} draws at random: pass decode_rng, or temperature=0"
        )
    batch_size, length = inputs.shape
    sequences = batch_size * num_decodes
    cache = repeat_cache(cache, num_decodes, cache_offset)
    state = DecodingState(
        index=jnp.zeros((), jnp.int32),
        tokens=jnp.zeros((sequences, length), jnp.int32),
        cur_token=jnp.zeros((sequences, 1), jnp.int32),  # T5 starts from its padding token
        scores=jnp.zeros((sequences,), jnp.float32),
        finished=jnp.zeros((sequences,), bool),
        cache=cache,
        rng=jax.random.PRNGKey(0) if decode_rng is None else decode_rng,
        place=grammar.start(sequences) if grammar else None,
    )

    def write_token(state: DecodingState) -> DecodingState:
        logits, cache = tokens_to_logits(state)
        rng, step_rng = jax.random.split(state.rng)
        # Within a grammar the choice is among the few tokens that may follow.
        candidates = grammar.candidates(logits, state.place) if grammar else logits
        if temperature:
            candidates = _restrict(candidates / temperature, topk, topp)
            choice = jax.random.categorical(step_rng, candidates).astype(jnp.int32)
        else:
            choice = jnp.argmax(candidates, axis=-1).astype(jnp.int32)
        place, token = grammar.advance(state.place, choice) if grammar else (None, choice)
        score = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=-1)[:, 0]
        token = jnp.where(state.finished, 0, token)
        return DecodingState(
            index=state.index + 1,
            tokens=lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], state.index, 1),
            cur_token=token[:, None],
            scores=state.scores + jnp.where(state.finished, 0.0, score),
            finished=state.finished | (token == eos_id),
            cache=cache,
            rng=rng,
            place=place,
        )

    final = lax.while_loop(
        lambda state: (state.index < length) & ~jnp.all(state.finished), write_token, state
    )
    tokens = final.tokens.reshape(batch_size, num_decodes, length)
    scores = final.scores.reshape(batch_size, num_decodes)
    order = jnp.argsort(scores, axis=-1)
    return (
        jnp.take_along_axis(tokens, order[:, :, None], axis=1),
        jnp.take_along_axis(scores, order, axis=1),
    )


def repeat_cache(cache: Cache, times: int, cache_offset: int = 0) -> Cache:
    """Returns a key-value cache for so many sequences of each example, side by side.

    Args:
      cache: of one sequence each, at position 0.
      times: how many sequences.
      cache_offset: position of its batch axis.
    """
    if times == 1:
        return cache
    return jax.tree.map(
        lambda x: jnp.repeat(x, times, axis=cache_offset) if x.ndim > 1 else x, cache
    )


def greedy_decode(
    inputs: Int[Array, "batch length"],
    cache: Cache,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    decode_rng: jax.Array | None = None,
    num_decodes: int = 1,
    cache_offset: int = 0,
    grammar: Grammar | None = None,
) -> tuple[Int[Array, "batch decodes length"], Float[Array, "batch decodes"]]:
    """Writes the likeliest token at every step; see `temperature_sample`."""
    if num_decodes != 1:
        raise ValueError(f"num_decodes={num_decodes}: greedy decoding writes one sequence")
    return temperature_sample(
        inputs,
        cache,
        tokens_to_logits,
        eos_id,
        decode_rng,
        temperature=0.0,
        cache_offset=cache_offset,
        grammar=grammar,
    )


def _restrict(
    logits: Float[Array, "batch vocab"], topk: int, topp: float
) -> Float[Array, "batch vocab"]:
    """Silences all but the `topk` likeliest tokens and all outside the `topp` nucleus.

    Of tokens that are equally likely, those of the lowest ids are kept.
    """
    if not topk and not topp:
        return logits
    vocab = logits.shape[-1]
    descending, tokens = lax.top_k(logits, min(topk or vocab, vocab))
    if topp:
        probabilities = jax.nn.softmax(descending)
        # The token that crosses the threshold still belongs to the nucleus.
        inside = jnp.cumsum(probabilities, axis=-1) - probabilities < topp
        descending = jnp.where(inside, descending, -jnp.inf)
    silence = jnp.full_like(logits, -jnp.inf)
    return jnp.put_along_axis(silence, tokens, descending, axis=-1, inplace=False)
