"""The `hashing` encoder: no weights, no network; for tests, the quickstart and small machines."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from uem_t5x.base import stable_hash
from uem_t5x.base.errors import InputError

NAME = "hashing"
DEFAULT_WIDTH = 256
# Function words, and those of the templates in `uem_t5x.tastes.sentences`, say next to nothing.
# (Counts over a corpus would tell, but then a vector would depend on the other texts.)
_FUNCTION_WORDS = (
    "the movie is listed with genres rated stars a an and or but of in on at to for from "
    "by as into about after before between through over under up down out off it its he "
    "she they them his her their him himself herself who whom whose which that this these "
    "those what when where while how than then so if not no be been being are was were has "
    "have had do does did will would can could must may only also all both each more most "
    "other some such very just now there here i you we my your our one two film story"
)
_BATCH = 4096


class HashingEncoder:
    """Hashed words and word pairs, projected to `width` columns.

    Each feature adds a few signed units at columns that its hash chooses: a sparse random
    projection (Kane and Nelson, arXiv 1012.1577), which keeps inner products, so two texts are as
    close as the words they share. A text's vector depends on nothing else and is the same anywhere.
    """

    source = None
    sha256 = None

    _TOKEN = re.compile(r"[^\W_]+(?:[-'.][^\W_]+)*")  # `sci-fi`, `don't` and `4.5` are one each
    _NONZEROS = 8
    _PAIR_WEIGHT = 0.5
    _FUNCTION_WORD_WEIGHT = 0.1

    def __init__(self, width: int) -> None:
        if width < 1:
            raise InputError(f"--encoder-width {width}: must be at least 1")
        self.width = width
        self._function_words = frozenset(_FUNCTION_WORDS.split())
        self._words: dict[str, tuple[int, float]] = {}

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """See `sentences.SentenceEncoder`; a text without words is zero."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            vectors[start : start + len(batch)] = self._encode_batch(batch)
            if on_progress:
                on_progress(len(batch))
        return vectors

    def _encode_batch(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        tokens = [self._TOKEN.findall(text.casefold()) for text in texts]
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        rows = np.repeat(np.arange(len(texts)), lengths)
        words = [self._look_up(word) for sentence in tokens for word in sentence]
        hashes = np.fromiter((word[0] for word in words), np.uint64, len(words))
        weights = np.fromiter((word[1] for word in words), np.float64, len(words))

        paired = rows[1:] == rows[:-1]
        pair_hashes = stable_hash.mix(hashes[:-1] * np.uint64(3) + hashes[1:])[paired]
        pair_weights = (self._PAIR_WEIGHT * weights[:-1] * weights[1:])[paired]
        features = np.concatenate([hashes, pair_hashes])
        weights = np.concatenate([weights, pair_weights])
        starts = np.concatenate([rows, rows[1:][paired]]) * self.width

        sums = np.zeros(len(texts) * self.width)
        for nonzero in range(self._NONZEROS):
            draw = stable_hash.mix(features + np.uint64(nonzero + 1))
            columns = (draw >> np.uint64(1)) % np.uint64(self.width)
            signs = 1.0 - 2.0 * (draw & np.uint64(1))
            cells = starts + columns.astype(np.int64)
            sums += np.bincount(cells, weights * signs, minlength=sums.size)
        vectors = sums.reshape(len(texts), self.width)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)

    def _look_up(self, word: str) -> tuple[int, float]:
        """Returns the hash and the weight of a word."""
        if word not in self._words:
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            weight = self._FUNCTION_WORD_WEIGHT if word in self._function_words else 1.0
            self._words[word] = int.from_bytes(digest, "little"), weight
        return self._words[word]
