"""Trains the small SentencePiece vocabulary of the tiny models."""

import functools
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import sentencepiece

from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder
from uem_t5x.tastes import sentences, verbalizer
from uem_t5x.tastes.telling import Telling

TEXTS = 2000  # of each kind; more of them teach a small vocabulary nothing new

_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's space
_SPECIAL = ("<pad>", "</s>", "<unk>")
# SentencePiece ends strings with the first, and marks what is unknown with the second.
_NO_PIECES = {"\0", "\N{LOWER FIVE EIGHTHS BLOCK}"}


def train_vocabulary(
    path: Path, texts: Sequence[str], words: Sequence[str], size: int, spelled: Iterable[str] = ()
) -> None:
    """Trains a unigram vocabulary with T5's special ids: 0 pads, 1 ends, 2 is unknown.

    It has every character of the texts, of the words and of what is `spelled`, however rare: by
    default SentencePiece leaves out 1 in 2,000 letters of a text, such as the apostrophe of
    `doesn't`. (Its way around, pieces for bytes, takes 256 of them.) The same texts give the same
    file.

    Args:
        path: where the model is written; its folder is created.
        texts: what it will tokenize; its pieces are learned from these.
        words: each becomes a token of its own, with the space before it, spelled as texts are
            before they are cut into tokens. Names of several words become several: no token
            crosses a space, so that a word has the same tokens wherever it stands.
        size: the most pieces it may have; few texts give fewer.
        spelled: further texts that it can spell.

    Raises:
        InputError: if that are more characters and words than `size` has room for.
    """
    cut = [word for name in words for word in verbalizer.as_in_tokens(name).split(" ") if word]
    symbols = list(dict.fromkeys(_WORD_START + word for word in cut))
    characters: set[str] = set()
    for text in (*texts, *words, *spelled):
        characters.update(verbalizer.as_in_tokens(text))
    characters -= {" ", *_NO_PIECES}
    least = len(_SPECIAL) + len(symbols) + len(characters) + len(_WORD_START)
    if size < least:
        raise InputError(
            f"--vocabulary-size {size}: too small: the texts have {len(characters)} different "
            f"characters, and {len(symbols)} words shall be tokens; give {least} or more"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars="".join(sorted(characters)),
        user_defined_symbols=symbols,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.getvalue())


def train_for_folder(
    path: Path,
    size: int,
    movies: pl.DataFrame,
    genres: Sequence[str],
    telling: Telling,
    learned: Iterable[str],
    spelled: Iterable[str],
) -> None:
    """Trains a vocabulary on what the tasks of a dataset folder write.

    It is learned from some of the items, and can spell them all; see `train_vocabulary`.

    Args:
        path: where the model is written.
        size: the most pieces it may have.
        movies: the movie table.
        genres: the class names.
        telling: how histories are told.
        learned: questions and answers.
        spelled: more of these.
    """
    few = movies[1:].gather_every(-(-movies.height // TEXTS))
    texts, spelled = [*learned], [*spelled]
    templates = telling.sentences.values()
    for template in filter(sentences.is_of_rating, templates):
        texts += telling.rating_sentences(template)[1:]
    for template in itertools.filterfalse(sentences.is_of_rating, templates):
        texts += dataset_folder.item_sentences(few, template)
        spelled += dataset_folder.item_sentences(movies, template)
    train_vocabulary(path, texts, genres, size, spelled)


def texts_of_answers(
    tastes: Iterable[tuple[list[str], list[str]]], genres: Sequence[str], telling: Telling
) -> tuple[list[str], list[str]]:
    """Returns question and answers that a vocabulary is learned from, and further answers."""
    write = functools.partial(verbalizer.write_answer, wording=telling.wording)
    answers = {write(*taste) for taste in tastes}
    return [telling.question, *sorted(answers)], [write([], []), write(*[genres] * 2)]
