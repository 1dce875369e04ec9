"""Decoding within the grammar of answers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from uem_t5x.base.errors import InputError
from uem_t5x.inputs import answer_grammar, data_sources, postprocessors, preprocessors, vocabularies
from uem_t5x.network import decoding
from uem_t5x.network.grammar import Place
from uem_t5x.tasks import movielens
from uem_t5x.tastes import verbalizer
from uem_t5x.tastes.labels import PAPER

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


def test_answers_of_other_words_and_numbers(vocabulary, dataset_folder):
    wording = verbalizer.Wording("The movie fan", "is with", "is not with", "The movie fan is.")
    grammar = answer_grammar.compile_grammar(dataset_folder.genres, vocabulary, 2, wording)
    names = dataset_folder.genres

    def is_accepted(liked, disliked, words=wording):
        answer = verbalizer.write_answer(names[:liked], names[-disliked or len(names) :], words)
        return accepts(grammar, [*vocabulary.encode(answer), vocabulary.eos_id])

    assert all(is_accepted(*numbers) for numbers in itertools.product(range(3), repeat=2))
    assert not is_accepted(3, 0) and not is_accepted(0, 3)
    assert not is_accepted(1, 1, verbalizer.USUAL)


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


class Cut(seqio.PassThroughVocabulary):
    """Cuts each word, the space before it included, into what a function makes of it."""

    def __init__(self, cut):
        super().__init__(10_000, eos_id=1)
        self._cut = cut
        self._ids = {}

    def encode(self, s):
        pieces = itertools.chain.from_iterable(self._cut(f"_{word}") for word in s.split())
        return [self._ids.setdefault(piece, 2 + len(self._ids)) for piece in pieces]


def words(word):
    return [word]


def characters(word):
    return list(word)


def without_spaces(word):
    """`Folk and ina` and `Folk andina` are the same."""
    return list(word.removeprefix("_"))


def pieces(word):
    """The longest that it begins with, one after the other."""
    known = ["_Folk", "_and", "_an", "_F", "il", "ina", "_doesn't", "_l", "ik"]
    found = []
    while word:
        fits = [piece for piece in known if word.startswith(piece)]
        found.append(max(fits, key=len, default=word[0]))
        word = word.removeprefix(found[-1])
    return found


@pytest.mark.parametrize("begin_alike", [True, False])
def test_memory_grows_with_the_genres_and_not_faster(begin_alike, vocabulary):
    def size(genres):
        names = [f"{first}{second}" for first in "ABCDEFGHIJ" for second in "abcdefghijklmnop"]
        split = vocabulary if begin_alike else Cut(words)
        grammar = answer_grammar.compile_grammar(names[:genres], split)
        tables = (grammar.tokens, grammar.next_states, grammar.names, grammar.readings)
        assert grammar.groups.nbytes < 4 * genres**2  # few groups, a byte for each genre
        return sum(table.nbytes for table in tables)

    assert size(160) < 2.5 * size(80)


def written(grammar):
    """Returns all that can be written within a grammar, its end included."""

    @jax.jit
    def step(place):
        logits = jnp.zeros((len(place.state), grammar.tokens.max() + 1))
        targets, tokens = jax.vmap(lambda edge: grammar.advance(place, edge), 1, 1)(edges)
        return jnp.isfinite(grammar.candidates(logits, place)), tokens, targets

    most = 512  # at once, so that one program does for all lengths
    edges = jnp.tile(jnp.arange(grammar.tokens.shape[1]), (most, 1))
    prefixes, place, found = [()], grammar.start(most), []
    while prefixes:
        leads_on, tokens, targets = jax.tree.map(np.asarray, step(place))
        assert leads_on[: len(prefixes)].any(axis=1).all(), "a dead end"
        rows, columns = np.nonzero(leads_on[: len(prefixes)])
        longer = [(*prefixes[r], int(t)) for r, t in zip(rows, tokens[rows, columns])]
        found += [tokens for tokens in longer if tokens[-1] == 1]
        goes_on = [index for index, tokens in enumerate(longer) if tokens[-1] != 1]
        prefixes = [longer[index] for index in goes_on]
        assert len(prefixes) <= most
        kept = np.resize(goes_on, most) if goes_on else []
        place = Place(targets.state[rows, columns][kept], targets.named[rows, columns][kept])
    return found


def answers(genres):
    """Yields every sentence of up to three genres a side."""
    for liked, disliked in itertools.product(range(PAPER.most + 1), repeat=2):
        for named in itertools.permutations(genres, liked + disliked):
            yield verbalizer.write_answer(named[:liked], named[liked:])


STEMS = ["F", "Folk", "Folk an", "Folk andina", "Film", "Film animation", "Film-Noir", "ina", "a"]
STEMS += ["Folk and ina", "andina", "Sword and", "Folk, Film", "d"]


@pytest.mark.parametrize("cut", [words, characters, pieces, without_spaces])
@pytest.mark.parametrize(
    "genres",
    [
        ("Folk", "Folk andina", "Drama"),
        ("Film", "Film animation", "Film-Noir"),
        (", d", "d", "d andinaan d", "ina an"),
        *(tuple(np.random.default_rng(seed).permutation(STEMS)[:4].tolist()) for seed in range(4)),
    ],
)
def test_it_writes_all_answers_and_nothing_else(genres, cut):
    """Where a genre begins another one, or goes on as if `and` followed."""
    vocabulary = Cut(cut)
    expected = {(*vocabulary.encode(answer), 1) for answer in answers(genres)}
    found = written(answer_grammar.compile_grammar(genres, vocabulary))
    assert len(found) == len(set(found))
    assert set(found) == expected
    if len(genres) == 3 and cut is not without_spaces:
        assert len(found) == 49


@pytest.fixture
def of_task(dataset_folder, vocabulary):
    """Returns the grammar of a task of some steps and some vocabulary of targets."""
    current = vocabularies.TaskVocabulary()

    def find(*steps, targets=current):
        task = seqio.Task(
            "own",
            source=data_sources.DatasetFolderSource(),
            preprocessors=steps,
            output_features={"targets": seqio.Feature(targets)},
        )
        with data_sources.use_dataset_folder(dataset_folder):
            return answer_grammar.of_task(task)

    return find


def test_tasks_of_these_answers_have_the_grammar(of_task, dataset_folder, vocabulary):
    with data_sources.use_dataset_folder(dataset_folder):
        expected = answer_grammar.answer_grammar()
        for name in (movielens.uem_task(5), movielens.text_task(5)):
            assert answer_grammar.of_task(seqio.get_mixture_or_task(name)) is expected
    given = functools.partial(preprocessors.answer, sequence_length=None)
    assert of_task(given) is of_task(preprocessors.answer, targets=vocabulary) is expected


def test_tasks_of_other_answers_have_none(of_task):
    with pytest.raises(
        InputError, match=r"own: the grammar is not .* preprocessors.answer is none"
    ):
        of_task(preprocessors.instruction)
    with pytest.raises(InputError, match=r"own: the grammar is not .* whose vocabulary is its own"):
        of_task(preprocessors.answer, targets=seqio.ByteVocabulary())


def test_a_genre_that_no_token_writes_is_refused(vocabulary):
    with pytest.raises(InputError, match=r"genre '\\u200b': no token of the vocabulary writes it"):
        answer_grammar.compile_grammar(["Drama", "\u200b"], vocabulary)
