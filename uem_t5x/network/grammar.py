"""Answers as an automaton over tokens that a decoder is kept within: every one names a class once.

What the sentences are is handed in; the classes that they name are called genres here.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from uem_t5x.network.types import Array, Size

_NO_TOKEN = -1


class Place(NamedTuple):
    """How far sequences have come in a grammar.

    Attributes:
      state: of the automaton; 0 is its start.
      named: the sets of genres, by their numbers, of which each has named one or more.
    """

    state: Int[Array, " batch"]
    named: Bool[Array, "batch sets"]


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
    """A deterministic automaton whose edges are tokens.

    The same tokens may be read in several ways: `Folk and` goes on with another genre, or is the
    beginning of `Folk andina`. A genre is *named* once all readings have it. What single readings
    have besides is in the state: each has a set of genres, the empty one too, and goes on as long
    as none of these was named before.

    Attributes:
      tokens: on the edges out of each state; -1 where there are no more.
      next_states: where they lead; to the state itself where there are none.
      names: the group of the sets that share a genre with what an edge names.
      readings: the group of the sets that the readings behind an edge have besides.
      groups: of sets; there are few, however many edges. The first sets are single genres.
      genres: how many genres there are.
    """

    tokens: Int[np.ndarray, "states edges"]
    next_states: Int[np.ndarray, "states edges"]
    names: Int[np.ndarray, "states edges"]
    readings: Int[np.ndarray, "states edges"]
    groups: Bool[np.ndarray, "groups sets"]
    genres: int

    def start(self, batch_size: Size) -> Place:
        """Returns the place of sequences of which nothing is written."""
        named = jnp.zeros((batch_size, self.groups.shape[-1]), bool)
        return Place(jnp.zeros((batch_size,), jnp.int32), named)

    def candidates(
        self, logits: Float[Array, "batch vocab"], place: Place
    ) -> Float[Array, "batch edges"]:
        """Returns the logits of the edges, silenced where they lead to no answer."""
        tokens = jnp.asarray(self.tokens)[place.state]
        groups = jnp.asarray(self.groups)
        named = place.named[:, None, :]
        names = groups[jnp.asarray(self.names)[place.state]]
        named_again = jnp.any((named & names)[..., : self.genres], axis=-1)
        goes_on = jnp.any(~named & groups[jnp.asarray(self.readings)[place.state]], axis=-1)
        # What stands for no token takes any logit.
        edge_logits = jnp.take_along_axis(logits, jnp.maximum(tokens, 0), axis=-1)
        return jnp.where((tokens >= 0) & goes_on & ~named_again, edge_logits, -jnp.inf)

    def advance(
        self, place: Place, edge: Int[Array, " batch"]
    ) -> tuple[Place, Int[Array, " batch"]]:
        """Returns the place behind an edge, and its token; 0 where an answer has ended."""
        token = jnp.asarray(self.tokens)[place.state, edge]
        names = jnp.asarray(self.groups)[jnp.asarray(self.names)[place.state, edge]]
        state = jnp.asarray(self.next_states)[place.state, edge]
        return Place(state, place.named | names), jnp.maximum(token, 0)


class Spelling(NamedTuple):
    """A word of a sentence, and the genre it is, if it is one."""

    genre: int | None
    tokens: tuple[int, ...]


# A word has one spelling, or one for each genre that may stand there.
Sentence: TypeAlias = list[list[Spelling]]


class _Reading(NamedTuple):
    """A place in one sentence, as some tokens may be read.

    Attributes:
      sentence: which one.
      word: the word that is being written, or comes next.
      rest: its tokens that are not written yet; none if it comes next.
      genres: those that it has and other readings of the same tokens have not. What all have leaves
        no trace: what follows is the same, and shared.
    """

    sentence: int
    word: int
    rest: tuple[int, ...]
    genres: frozenset[int]


class _Edge(NamedTuple):
    """Where a token leads.

    Attributes:
      state: the readings of all tokens up to this one.
      names: the genres that all of them have since this token.
    """

    state: frozenset[_Reading]
    names: frozenset[int]


def compile_grammar(sentences: Sequence[Sentence], classes: int) -> Grammar:
    """Makes the automaton: that of all sentences at once, with its states told apart by tokens.

    Args:
      sentences: each a list of words, each word a list of the ways in which it is spelled.
      classes: how many classes there are to name.
    """
    start = frozenset(_Reading(index, 0, (), frozenset()) for index in range(len(sentences)))
    # Subset construction: a state is the set of readings that the same tokens have.
    states = {start: 0}
    edges: list[dict[int, _Edge]] = []
    unexplored = [start]
    for state in unexplored:
        edges.append(_edges(sentences, state))
        for edge in edges[-1].values():
            if edge.state not in states:
                states[edge.state] = len(states)
                unexplored.append(edge.state)

    in_doubt = {reading.genres for state in states for reading in state}
    singles = [frozenset([genre]) for genre in range(classes)]
    sets = [*singles, *sorted(in_doubt.difference(singles), key=sorted)]
    groups: dict[frozenset[frozenset[int]], int] = {}

    @functools.cache
    def that_share(names: frozenset[int]) -> frozenset[frozenset[int]]:
        return frozenset(each for each in sets if not each.isdisjoint(names))

    def number(group: frozenset[frozenset[int]]) -> int:
        return groups.setdefault(group, len(groups))

    shape = (len(edges), max(map(len, edges)))
    tokens = np.full(shape, _NO_TOKEN, np.int32)
    next_states = np.tile(np.arange(shape[0], dtype=np.int32)[:, None], shape[1])
    names, readings = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for state, out in enumerate(edges):
        for column, (token, edge) in enumerate(out.items()):
            tokens[state, column] = token
            next_states[state, column] = states[edge.state]
            names[state, column] = number(that_share(edge.names))
            readings[state, column] = number(frozenset(r.genres for r in edge.state))
    columns = {each: column for column, each in enumerate(sets)}
    table = np.zeros((len(groups), len(sets)), bool)
    for group, row in groups.items():
        table[row, [columns[each] for each in group]] = True
    return Grammar(tokens, next_states, names, readings, table, classes)


def _edges(sentences: Sequence[Sentence], state: frozenset[_Reading]) -> dict[int, _Edge]:
    """Returns where each token leads that may follow."""
    targets: dict[int, list[_Reading]] = collections.defaultdict(list)
    for reading in state:
        for token, target in _steps(sentences, reading):
            targets[token].append(target)
    edges = {}
    for token, found in sorted(targets.items()):
        names = frozenset.intersection(*(target.genres for target in found))
        left = frozenset(target._replace(genres=target.genres - names) for target in found)
        edges[token] = _Edge(left, names)
    return edges


def _steps(sentences: Sequence[Sentence], reading: _Reading) -> Iterator[tuple[int, _Reading]]:
    """Yields the tokens that may follow in a sentence, and the reading with each."""
    sentence, word, rest, genres = reading
    words = sentences[sentence]
    if word == len(words):
        return
    spellings = [Spelling(None, rest)] if rest else words[word]
    for genre, tokens in spellings:
        if genre not in genres:
            besides = genres if genre is None else genres | {genre}
            yield tokens[0], _Reading(sentence, word + (len(tokens) == 1), tokens[1:], besides)
