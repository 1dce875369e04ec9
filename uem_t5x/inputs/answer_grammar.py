"""The answers that can be read back, as an automaton over tokens that a decoder is kept within.

The sentences are those of `verbalizer.write_answer` with a few genres a side, none of them
twice. They are asked of it, so that what is written and what may be written cannot drift apart.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import gin
import seqio
from absl import logging

from uem_t5x.base import checksums
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import data_sources, preprocessors, vocabularies
from uem_t5x.network import grammar
from uem_t5x.network.grammar import Grammar, Sentence, Spelling
from uem_t5x.tastes import labels, verbalizer
from uem_t5x.tastes.verbalizer import USUAL, Wording

_SLOT = "\N{WHITE SQUARE}"  # stands for a genre


@gin.configurable
def answer_grammar() -> Grammar:
    """Returns the grammar of the current dataset folder's genres in the task's vocabulary."""
    folder = data_sources.dataset_folder()
    model_file = vocabularies.sentencepiece_model_file()
    last_change = checksums.last_change(model_file)
    rule, wording = folder.telling.rule, folder.telling.wording
    return _compile_once(tuple(folder.genres), rule.most, wording, model_file, last_change)


def of_task(task: seqio.Task | seqio.Mixture) -> Grammar:
    """Returns the grammar of the answers that a task teaches; of a mixture, that of all its tasks.

    Raises:
      InputError: if they are others than `preprocessors.answer` writes, or written in other tokens
        than those of the current vocabulary, or this has none for one of the genres.
    """
    if data_sources.dataset_folder().telling.has_questions:
        raise InputError(f"{task.name}: answers to questions are in words of their own")
    for part in seqio.get_subtasks(task):
        # Arguments may have been given to a step already.
        if preprocessors.answer not in [getattr(step, "func", step) for step in part.preprocessors]:
            raise InputError(
                f"{part.name}: the grammar is not that of its answers, which are its own: "
                "preprocessors.answer is none of its steps"
            )
        if vocabularies.TaskVocabulary() != part.output_features["targets"].vocabulary:
            raise InputError(
                f"{part.name}: the grammar is not that of its answers, whose vocabulary is its own"
            )
    return answer_grammar()


def where_there_is_one(
    takes_grammar: bool, task: seqio.Task | seqio.Mixture, required: bool = False
) -> Grammar | None:
    """Returns what keeps a model's answers to a task to sentences that can be read back.

    Args:
      takes_grammar: whether the model's `decode_fn` takes one.
      task: what it is asked.
      required: whether there must be one.

    Returns:
      None where there is none, which is logged: answers of another kind are written freely.

    Raises:
      InputError: if there is none, but must be; see `of_task`.
    """
    try:
        if not takes_grammar:
            raise InputError(f"{task.name}: the model's decode_fn takes no grammar")
        return of_task(task)
    except InputError as error:
        if required:
            raise
        logging.warning("Answers are written freely. %s", error)
    return None


@functools.lru_cache(maxsize=8)
def _compile_once(
    genres: tuple[str, ...], most: int, wording: Wording, model_file: str, _: int | None
) -> Grammar:
    return compile_grammar(genres, vocabularies.load(model_file), most, wording)


def compile_grammar(
    genres: Sequence[str],
    vocabulary: seqio.Vocabulary,
    most: int = labels.PAPER.most,
    wording: Wording = USUAL,
) -> Grammar:
    """Returns the automaton of the answers about some genres.

    Args:
      genres: the class names.
      vocabulary: splits text at spaces before anything else, as SentencePiece does.
      most: how many of them an answer may have a side.
      wording: of the answers.

    Raises:
      InputError: if it makes nothing of the name of a class.
    """
    for genre in genres:
        if not vocabulary.encode(genre):
            raise InputError(f"genre {genre!r}: no token of the vocabulary writes it; rename it")
    sentences = list(_sentences(genres, vocabulary, most, wording))
    return grammar.compile_grammar(sentences, len(genres))


def _sentences(
    genres: Sequence[str], vocabulary: seqio.Vocabulary, most: int, wording: Wording
) -> Iterator[Sentence]:
    """Yields the spellings of every word of the sentences of every number of genres."""
    encode = functools.cache(lambda text: tuple(vocabulary.encode(text)))
    for liked, disliked in itertools.product(range(most + 1), repeat=2):
        if liked + disliked > len(genres):
            continue
        sentence = verbalizer.write_answer([_SLOT] * liked, [_SLOT] * disliked, wording)
        words = [
            [
                Spelling(index, encode(word.replace(_SLOT, verbalizer.spell(genre, wording))))
                for index, genre in enumerate(genres)
            ]
            if _SLOT in word
            else [Spelling(None, encode(word))]
            for word in sentence.split(" ")
        ]
        yield [*words, [Spelling(None, (vocabulary.eos_id,))]]
