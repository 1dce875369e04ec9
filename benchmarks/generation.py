"""Writing answers: ours against Transformers' `generate`, and with a grammar against without.

Greedy, and all tokens are written whatever they are: on each side no token ends an answer, so the
number of decoding steps is the same. The grammar is that of the 19 genres of MovieLens in a
vocabulary that is trained for this.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import jax_model, sizes, timing, torch_model
from benchmarks.sizes import Sizes
from benchmarks.timing import Timing
from uem_t5x.data import fiction
from uem_t5x.data.vocabulary import train_vocabulary
from uem_t5x.inputs import vocabularies
from uem_t5x.inputs.answer_grammar import Grammar, compile_grammar
from uem_t5x.tastes import sentences, verbalizer
from uem_t5x.training.predictor import Predictor

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
            _TORCH: torch_turn(batch_size),
        }
        timings = timing.alternate(candidates, arguments.repeats)
        batches[batch_size] = _figures(timings, batch_size, size)
        bounds += _bounds(timings, batch_size)
    return {
        "sizes": dataclasses.asdict(size),
        "dtype": arguments.dtype,
        "torch_threads": torch.get_num_threads(),
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
        "peers": {name: figures[name] for name in (_TORCH, _CONSTRAINED)},
        "ratios": {
            name: timing.ratio(timings[_OURS], timings[name]) for name in (_TORCH, _CONSTRAINED)
        },
    }


def _bounds(timings: dict[str, Timing], batch_size: int) -> list[dict[str, Any]]:
    ours = timings[_OURS].median
    return [
        timing.bound(
            f"users a second to {_TORCH}'s, batch {batch_size}, medians",
            timings[_TORCH].median / ours,
            at_least=_LEAST_SPEEDUP,
        ),
        timing.bound(
            f"a step within the grammar to one without, batch {batch_size}, medians",
            timings[_CONSTRAINED].median / ours,
            at_most=_MOST_GRAMMAR_COST,
        ),
    ]


def _genre_grammar(size: Sizes) -> Grammar:
    """Returns the grammar in a vocabulary of at most the model's size."""
    movies = fiction.make_movies(size.movies, np.random.default_rng(0))
    listed = movies.select("title", "genres").iter_rows()
    texts = [
        verbalizer.write_answer(fiction.GENRES[:3], fiction.GENRES[3:6]),
        *(sentences.title_genres_sentence(title, genres.split("|")) for title, genres in listed),
        *movies["movie_info"],
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentencepiece.model"
        train_vocabulary(path, texts, fiction.GENRES, size.vocabulary)
        return compile_grammar(fiction.GENRES, vocabularies.load(str(path)))


if __name__ == "__main__":
    timing.main("generation", __doc__, add_arguments, measure)
