"""Writing answers: ours against Transformers' `generate`, and with a grammar against without.

Greedy, and all tokens are written whatever they are: on each side no token ends an answer, so the
number of decoding steps is the same. The grammar is that of the 19 genres of MovieLens in a
vocabulary that is trained for this.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import jax_model, sizes, timing, torch_model
from benchmarks.sizes import Sizes
from benchmarks.timing import Timing
from uem_t5x.network.grammar import Grammar, Sentence, Spelling, compile_grammar
from uem_t5x.training.predictor import Predictor

_GENRES, _END = 19, 1  # as MovieLens has them; the token that ends a sequence
_OURS, _CONSTRAINED, _TORCH = "ours", "ours within the grammar", "torch generate"
_LEAST_SPEEDUP, _MOST_GRAMMAR_COST = 2.0, 1.10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    sizes.add_arguments(parser)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets ours, ours within the grammar and the peer answer in turns."""
    size = sizes.SIZES[arguments.size]
    grammar = _genre_grammar(size)
    model = jax_model.model(jax_model.personalized_transformer(size, arguments.dtype))
    training = jax_model.Training.start(model, sizes.draw_batch(size, 1), size)
    state, partitioner = training.state, training.partitioner
    device = torch_model.set_up(jax.default_backend() == "gpu")
    peer = None
    if torch_model.MISSING is None:
        peer = torch_model.PersonalizedT5(size, sizes.item_table(size), arguments.dtype)
        peer = peer.to(device).eval()

    def turn(batch_size: int, grammar: Grammar | None = None) -> Callable[[], object]:
        predictor = Predictor(model, partitioner, batch_size, grammar=grammar)
        batch = sizes.draw_batch(size, batch_size)
        return lambda: predictor.predict_batch(state.params, state.flax_mutables, batch)

    def torch_turn(batch_size: int) -> Callable[[], object]:
        tensors = torch_model.tensors(sizes.draw_batch(size, batch_size), device)
        return lambda: peer.generate(**tensors)

    batches, bounds = {}, []
    for batch_size in arguments.batch_sizes:
        timing.watch(f"batch {batch_size}")
        candidates = {
            _OURS: turn(batch_size),
            # The model's own end of sequence is `jax_model.NEVER`, so the loop runs to the full
            # length here too. The grammar knows the vocabulary's: an answer that has reached it
            # goes on with padding, each of whose steps takes what any other does.
            _CONSTRAINED: turn(batch_size, grammar),
        }
        if peer is not None:
            candidates[_TORCH] = torch_turn(batch_size)
        timings = timing.alternate(candidates, arguments.repeats)
        batches[batch_size] = _figures(timings, batch_size, size)
        bounds += _bounds(timings, batch_size)
    return {
        "sizes": dataclasses.asdict(size),
        "dtype": arguments.dtype,
        "torch_threads": torch.get_num_threads(),
        "torch_left_out": torch_model.MISSING,
        "grammar": {"states": grammar.tokens.shape[0], "edges": grammar.tokens.shape[1]},
        "batches": batches,
        "bounds": bounds,
    }


def _figures(timings: dict[str, Timing], batch_size: int, size: Sizes) -> dict[str, Any]:
    figures = {
        name: timed.figures()
        | {
            "users_a_second": batch_size / timed.median,
            "ms_a_step": 1e3 * timed.median / size.targets,
        }
        for name, timed in timings.items()
    }
    return {
        "ours": figures[_OURS],
        "peers": {name: figures[name] for name in timings if name != _OURS},
        "ratios": {
            name: timing.ratio(timings[_OURS], timings[name]) for name in timings if name != _OURS
        },
    }


def _bounds(timings: dict[str, Timing], batch_size: int) -> list[dict[str, Any]]:
    ours = timings[_OURS].median
    bounds = []
    if _TORCH in timings:
        bounds.append(
            timing.bound(
                f"users a second to {_TORCH}'s, batch {batch_size}, medians",
                timings[_TORCH].median / ours,
                at_least=_LEAST_SPEEDUP,
            )
        )
    return [
        *bounds,
        timing.bound(
            f"a step within the grammar to one without, batch {batch_size}, medians",
            timings[_CONSTRAINED].median / ours,
            at_most=_MOST_GRAMMAR_COST,
        ),
    ]


def _genre_grammar(size: Sizes) -> Grammar:
    """Returns the grammar of up to three liked and three disliked genres, of made-up tokens."""
    rng = np.random.default_rng(0)

    def word(tokens: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, size.vocabulary, tokens).tolist())

    genres, comma, full_stop, both = [word(3) for _ in range(_GENRES)], word(1), word(1), word(1)
    sides = [word(2), word(4)]

    def sentence(*numbers: int) -> Sentence:
        words = [[Spelling(None, word_of_all)]]
        for side, number in zip(sides, numbers):
            words += [[Spelling(None, side)]] if number else []
            for place in range(number):
                behind = comma if place < number - 1 else both
                words.append([Spelling(g, tokens + behind) for g, tokens in enumerate(genres)])
        return [*words, [Spelling(None, full_stop)], [Spelling(None, (_END,))]]

    word_of_all = word(2)
    numbers = itertools.product(range(4), repeat=2)
    return compile_grammar([sentence(*of_sides) for of_sides in numbers], _GENRES)


if __name__ == "__main__":
    timing.main("generation", __doc__, add_arguments, measure)
