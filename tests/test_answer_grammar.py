"""Decoding within the grammar of answers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from uem_t5x import answer_grammar, data_sources, decoding, postprocessors, verbalizer, vocabularies

LENGTH = 40


@pytest.fixture(scope="module")
def vocabulary(dataset_folder):
    return vocabularies.load(str(dataset_folder.vocabulary_path))


@pytest.fixture(scope="module")
def grammar(dataset_folder, vocabulary):
    return answer_grammar.compile_grammar(dataset_folder.genres, vocabulary)


@functools.cache
def stepper(grammar):
    @jax.jit
    def step(place, token):
        # A network that is sure of one token.
        logits = jnp.zeros((1, grammar.tokens.max() + 2)).at[0, token].set(1.0)
        place, taken = grammar.advance(place, jnp.argmax(grammar.candidates(logits, place), -1))
        return taken[0] == token, place

    return step


def accepts(grammar, tokens):
    """Says whether every token is allowed where it stands."""
    place = grammar.start(1)
    for token in tokens:
        is_allowed, place = stepper(grammar)(
            place, jnp.asarray(min(token, grammar.tokens.max() + 1))
        )
        if not is_allowed:
            return False
    return True


def write(grammar, vocabulary, seed, sequences=64, **options):
    """Returns the answers of a network that knows nothing."""

    def tokens_to_logits(state):
        rng = jax.random.fold_in(jax.random.PRNGKey(seed), state.index)
        # It stops reluctantly: every answer that may be long is.
        logits = 3.0 * jax.random.normal(rng, (sequences, vocabulary.vocab_size))
        return logits, state.cache

    tokens, scores = jax.jit(
        lambda: decoding.temperature_sample(
            jnp.zeros((sequences, LENGTH), jnp.int32),
            {},
            tokens_to_logits,
            vocabulary.eos_id,
            decode_rng=jax.random.PRNGKey(seed),
            grammar=grammar,
            **options,
        )
    )()
    assert np.isfinite(scores).all()
    return [[token for token in row if token] for row in tokens[:, 0].tolist()]


def test_every_answer_is_accepted(grammar, vocabulary, dataset_folder):
    rng = np.random.default_rng(0)
    for liked, disliked in itertools.product(range(4), repeat=2):
        for _ in range(2):
            genres = [str(g) for g in rng.permutation(dataset_folder.genres)[: liked + disliked]]
            answer = verbalizer.write_answer(genres[:liked], genres[liked:])
            tokens = vocabulary.encode(answer)
            assert accepts(grammar, [*tokens, vocabulary.eos_id]), answer
            assert not accepts(grammar, [*tokens[:-1], vocabulary.eos_id]), answer


@pytest.mark.parametrize(
    "answer",
    [
        "The user likes Drama and Drama.",
        "The user likes Drama and doesn't like Drama.",
        "The user likes Drama, War, Crime and Horror.",
        "The user likes Drama, War.",
        "The user likes.",
        "The user likes Cooking.",
    ],
)
def test_what_is_no_answer_is_not(grammar, vocabulary, answer):
    assert not accepts(grammar, [*vocabulary.encode(answer), vocabulary.eos_id])


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0}, {"topk": 5}])
def test_whatever_a_network_thinks_its_answers_can_be_read(
    grammar, vocabulary, dataset_folder, options
):
    answers = set()
    with data_sources.use_dataset_folder(dataset_folder):
        for tokens in write(grammar, vocabulary, seed=1, **options):
            assert tokens.pop() == vocabulary.eos_id
            sentence = vocabulary.decode(tokens)
            taste = postprocessors.genres(sentence)
            assert taste is not None
            assert verbalizer.write_answer(*taste) == sentence
            answers.add(sentence)
    assert len(answers) > 32


class Words(seqio.PassThroughVocabulary):
    """A token for each word, punctuation included: all genres begin differently."""

    def __init__(self):
        super().__init__(10_000, eos_id=1)
        self._ids = {}

    def encode(self, s):
        return [self._ids.setdefault(word, 2 + len(self._ids)) for word in s.split()]


@pytest.mark.parametrize("begin_alike", [True, False])
def test_memory_grows_with_the_genres_and_not_faster(begin_alike, vocabulary):
    def size(genres):
        names = [f"{first}{second}" for first in "ABCDEFGHIJ" for second in "abcdefghijklmnop"]
        split = vocabulary if begin_alike else Words()
        grammar = answer_grammar.compile_grammar(names[:genres], split)
        tables = {name: table for name, table in vars(grammar).items() if name != "genre_sets"}
        assert grammar.genre_sets.nbytes < 4 * genres**2  # few sets, a byte for each genre
        return sum(table.nbytes for table in tables.values())

    assert size(160) < 2.5 * size(80)


def test_genres_that_begin_alike():
    """`Film` is complete only where `Film-Noir` does not follow."""
    words = ["The", "user", "likes", "and", "doesn't", "like", "has", "no", "clear", "taste"]
    pieces = [*words, "Drama", "Film", "-Noir", ",", "."]

    class Pieces(seqio.PassThroughVocabulary):
        def encode(self, s):
            ids = []
            while s := s.lstrip():
                ids.append(max((p for p in pieces if s.startswith(p)), key=len))
                s = s.removeprefix(ids[-1])
            return [2 + pieces.index(piece) for piece in ids]

    vocabulary = Pieces(len(pieces) + 2, eos_id=1)
    grammar = answer_grammar.compile_grammar(("Drama", "Film", "Film-Noir"), vocabulary)
    for answer, is_right in {
        "The user likes Film and Film-Noir.": True,
        "The user likes Film-Noir and Film.": True,
        "The user likes Film-Noir and doesn't like Film.": True,
        "The user likes Film and Film.": False,
        "The user likes Film-Noir and Film-Noir.": False,
        "The user likes Film, Film-Noir and Film.": False,
        "The user likes Film, Film and Drama.": False,
        "The user likes Film and Film and doesn't like Drama.": False,
        "The user has no clear taste.": True,
    }.items():
        assert accepts(grammar, [*vocabulary.encode(answer), 1]) == is_right, answer
