"""Trains the small SentencePiece vocabulary of the tiny models."""

import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from uem_t5x.errors import InputError

_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's space


def train_vocabulary(path: Path, texts: Iterable[str], words: Sequence[str], size: int) -> None:
    """Trains a unigram vocabulary with T5's special ids: 0 pads, 1 ends, 2 is unknown.

    The same texts give the same file.

    Args:
        path: where the model is written; its folder is created.
        texts: what it will tokenize.
        words: each becomes a token of its own, with the space before it, spelled as texts are
            before they are cut into tokens (NFKC).
        size: the most pieces it may have; few texts give fewer.

    Raises:
        InputError: if the texts have more characters than `size` has room for.
    """
    symbols = [unicodedata.normalize("NFKC", word).replace(" ", _WORD_START) for word in words]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            user_defined_symbols=[_WORD_START + symbol for symbol in symbols],
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"--vocabulary-size {size}: too small for the characters of the texts; try 1000 or more"
        ) from error
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.getvalue())
