"""The answers that can be read back, as an automaton over tokens that a decoder is kept within.

The sentences are those of `verbalizer.write_answer` with up to three genres a side, none of them
twice. They are asked of it, so that what is written and what may be written cannot drift apart.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import gin
import jax.numpy as jnp
import numpy as np
import seqio
from jaxtyping import Bool, Float, Int

from uem_t5x import checksums, data_sources, verbalizer, vocabularies
from uem_t5x.labels import MAX_LABELS
from uem_t5x.types import Array

_NO_TOKEN = -1
_SLOT = "\N{WHITE SQUARE}"  # stands for a genre


class Place(NamedTuple):
    """How far sequences have come in a grammar.

    Attributes:
      state: of the automaton; 0 is its start.
      named: the genres that each has named.
    """

    state: Int[Array, " batch"]
    named: Bool[Array, "batch genres_and_1"]


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
    """A deterministic automaton whose edges are tokens.

    Attributes:
      tokens: on the edges out of each state; -1 where there are no more.
      next_states: where they lead; to the state itself where there are none.
      may_name: the set of genres that the word an edge belongs to may turn out to be.
      names: the set of the genre that it can only be from this edge on.
      has_named: the set of the genre that stands before an edge, complete, where that shows only
        now: another one begins with it.
      genre_sets: what the three above number; there are few, however many edges. The last column
        stands for words that are no genre, or one that is known already, which may come again.
    """

    tokens: Int[np.ndarray, "states edges"]
    next_states: Int[np.ndarray, "states edges"]
    may_name: Int[np.ndarray, "states edges"]
    names: Int[np.ndarray, "states edges"]
    has_named: Int[np.ndarray, "states edges"]
    genre_sets: Bool[np.ndarray, "sets genres_and_1"]

    def start(self, batch_size: int) -> Place:
        """Returns the place of sequences of which nothing is written."""
        named = jnp.zeros((batch_size, self.genre_sets.shape[-1]), bool)
        return Place(jnp.zeros((batch_size,), jnp.int32), named)

    def candidates(
        self, logits: Float[Array, "batch vocab"], place: Place
    ) -> Float[Array, "batch edges"]:
        """Returns the logits of the edges, silenced where they lead to no answer."""
        tokens = jnp.asarray(self.tokens)[place.state]
        genre_sets = jnp.asarray(self.genre_sets)
        has_named = genre_sets[jnp.asarray(self.has_named)[place.state]]
        named_again = jnp.any(place.named[:, None, :] & has_named, axis=-1)
        named = place.named[:, None, :] | has_named
        may_name = genre_sets[jnp.asarray(self.may_name)[place.state]]
        may_name_another = jnp.any(may_name & ~named, axis=-1)
        # What stands for no token takes any logit.
        edge_logits = jnp.take_along_axis(logits, jnp.maximum(tokens, 0), axis=-1)
        leads_on = (tokens >= 0) & may_name_another & ~named_again
        return jnp.where(leads_on, edge_logits, -jnp.inf)

    def advance(
        self, place: Place, edge: Int[Array, " batch"]
    ) -> tuple[Place, Int[Array, " batch"]]:
        """Returns the place behind an edge, and its token; 0 where an answer has ended."""
        token = jnp.asarray(self.tokens)[place.state, edge]
        genre_sets = jnp.asarray(self.genre_sets)
        named = place.named
        for table in (self.has_named, self.names):
            named |= genre_sets[jnp.asarray(table)[place.state, edge]]
        state = jnp.asarray(self.next_states)[place.state, edge]
        return Place(state, named), jnp.maximum(token, 0)


@gin.configurable
def answer_grammar() -> Grammar:
    """Returns the grammar of the current dataset folder's genres in the task's vocabulary."""
    genres = data_sources.dataset_folder().genres
    model_file = vocabularies.sentencepiece_model_file()
    return _compile_once(tuple(genres), model_file, checksums.last_change(model_file))


@functools.lru_cache(maxsize=8)
def _compile_once(genres: tuple[str, ...], model_file: str, _: int | None) -> Grammar:
    return compile_grammar(genres, vocabularies.load(model_file))


class _Spelling(NamedTuple):
    """A word of a sentence, and the genre it is, if it is one."""

    genre: int | None
    tokens: tuple[int, ...]


class _Node(NamedTuple):
    """A place in one sentence.

    Attributes:
      sentence: which one.
      word: the word that is being written, or comes next.
      rest: its tokens that are not written yet; none if it comes next.
      genre: the genre that it may be, or that the word before it may have been, while another one
        could still go on alike. Genres that are known leave no trace: what follows them is shared.
    """

    sentence: int
    word: int
    rest: tuple[int, ...]
    genre: int | None


class _Step(NamedTuple):
    """A token that may follow a node, and where it leads.

    Attributes:
      token: the token.
      target: where it leads.
      may_name: the genre that its word may be.
      names: that genre, if it can be no other one from this token on.
      has_named: the genre of the word before, where that shows only now.
    """

    token: int
    target: _Node
    may_name: int | None
    names: int | None
    has_named: int | None


def compile_grammar(genres: Sequence[str], vocabulary: seqio.Vocabulary) -> Grammar:
    """Makes the automaton: that of all sentences at once, with its states told apart by tokens.

    Args:
      genres: the class names.
      vocabulary: splits text at spaces before anything else, as SentencePiece does.
    """
    sentences = list(_sentences(genres, vocabulary))
    owners = _owners(sentences)
    start = frozenset(_Node(index, 0, (), None) for index in range(len(sentences)))
    # Subset construction: a state is the set of nodes that the same tokens lead to.
    numbers: dict[frozenset[_Node], int] = {start: 0}
    edges: list[dict[int, list[_Step]]] = []
    unexplored = [start]
    for state in unexplored:
        steps = sorted(
            (step for node in state for step in _steps(sentences, owners, node)),
            key=lambda s: s.token,
        )
        edges.append({})
        for token, group in itertools.groupby(steps, key=lambda step: step.token):
            edges[-1][token] = same = list(group)
            target = frozenset(step.target for step in same)
            if target not in numbers:
                numbers[target] = len(numbers)
                unexplored.append(target)

    shape = (len(edges), max(map(len, edges)))
    tokens = np.full(shape, _NO_TOKEN, np.int32)
    next_states = np.tile(np.arange(shape[0], dtype=np.int32)[:, None], shape[1])
    no_genre = len(genres)
    numbers_of_sets: dict[frozenset[int], int] = {frozenset(): 0}
    tables = {name: np.zeros(shape, np.int32) for name in ("may_name", "names", "has_named")}
    for state, out in enumerate(edges):
        for edge, (token, same) in enumerate(out.items()):
            tokens[state, edge] = token
            next_states[state, edge] = numbers[frozenset(step.target for step in same)]
            found = {
                "may_name": {no_genre if step.may_name is None else step.may_name for step in same},
                "names": {step.names for step in same} - {None},
                "has_named": {step.has_named for step in same} - {None},
            }
            for name, genre_set in found.items():
                number = numbers_of_sets.setdefault(frozenset(genre_set), len(numbers_of_sets))
                tables[name][state, edge] = number
    genre_sets = np.zeros((len(numbers_of_sets), no_genre + 1), bool)
    for genre_set, number in numbers_of_sets.items():
        genre_sets[number, list(genre_set)] = True
    return Grammar(tokens, next_states, **tables, genre_sets=genre_sets)


def _sentences(
    genres: Sequence[str], vocabulary: seqio.Vocabulary
) -> Iterator[list[list[_Spelling]]]:
    """Yields the spellings of every word of the sentences of every number of genres."""
    encode = functools.cache(lambda text: tuple(vocabulary.encode(text)))
    for liked, disliked in itertools.product(range(MAX_LABELS + 1), repeat=2):
        if liked + disliked > len(genres):
            continue
        sentence = verbalizer.write_answer([_SLOT] * liked, [_SLOT] * disliked)
        words = [
            [
                _Spelling(index, encode(word.replace(_SLOT, verbalizer.spell(genre))))
                for index, genre in enumerate(genres)
            ]
            if _SLOT in word
            else [_Spelling(None, encode(word))]
            for word in sentence.split(" ")
        ]
        yield [*words, [_Spelling(None, (vocabulary.eos_id,))]]


def _owners(
    sentences: Sequence[list[list[_Spelling]]],
) -> Mapping[tuple[int, ...], set[int | None]]:
    """Returns the genres whose words begin with some tokens, and None for other words."""
    owners: dict[tuple[int, ...], set[int | None]] = collections.defaultdict(set)
    for genre, tokens in itertools.chain.from_iterable(itertools.chain(*sentences)):
        for end in range(1, len(tokens) + 1):
            owners[tokens[:end]].add(genre)
    return owners


def _steps(
    sentences: Sequence[list[list[_Spelling]]],
    owners: Mapping[tuple[int, ...], set[int | None]],
    node: _Node,
) -> Iterator[_Step]:
    words = sentences[node.sentence]
    if node.word == len(words):
        return
    begins_word = not node.rest
    spellings = words[node.word] if begins_word else [_Spelling(node.genre, node.rest)]
    for genre, tokens in spellings:
        is_known = genre is None
        if genre is not None:
            whole = words[node.word][genre].tokens
            is_known = owners[whole[: len(whole) - len(tokens) + 1]] == {genre}
        yield _Step(
            token=tokens[0],
            target=_Node(
                sentence=node.sentence,
                word=node.word + (len(tokens) == 1),
                rest=tokens[1:],
                genre=None if is_known else genre,
            ),
            may_name=genre,
            names=genre if is_known else None,
            has_named=node.genre if begins_word else None,
        )
