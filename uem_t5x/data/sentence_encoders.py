"""Sentence encoders: strings in, one float32 vector of unit length a string out.

`sentence-t5-base`, `-large` and `-xl` are SentenceT5 (arXiv 2108.08877), the paper's encoder,
loaded from TensorFlow Hub or from a local copy. `hashing` needs no weights and no network: it is
for tests, the quickstart and small machines.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32

from uem_t5x.base import buckets, checksums
from uem_t5x.base.errors import InputError
from uem_t5x.data import stable_hash

HUB_HANDLES = {
    "sentence-t5-base": "https://tfhub.dev/google/sentence-t5/st5-base/1",
    "sentence-t5-large": "https://tfhub.dev/google/sentence-t5/st5-large/1",
    "sentence-t5-xl": "https://tfhub.dev/google/sentence-t5/st5-3b/1",
}
DEFAULT_HASHING_WIDTH = 256
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
_HASHING_BATCH = 4096
_SENTENCE_T5_BATCH = 64


@runtime_checkable
class SentenceEncoder(Protocol):
    """What `make_encoder` returns.

    Attributes:
        width: the length of a vector.
        source: where the weights came from; None if there are none.
        sha256: what tells these weights from any others, wherever they lie; None if there are none.
    """

    width: int
    source: str | None
    sha256: str | None

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """Encodes each text by itself: its vector does not depend on the others.

        Args:
            texts: any strings.
            on_progress: is told, batch by batch, how many more texts are done.
        """


def make_encoder(
    name: str, width: int | None = None, source: str | None = None, sha256: str | None = None
) -> SentenceEncoder:
    """Makes an encoder.

    Args:
        name: `hashing`, or one of `HUB_HANDLES`.
        width: the length of its vectors. It can be chosen for `hashing`; for a SentenceT5 it is
            checked.
        source: the folder or hub handle of a SentenceT5; by default that of `HUB_HANDLES`.
        sha256: what a SentenceT5 must have; None for any.

    Raises:
        InputError: if there is no such encoder, it is not the one that was meant, or its model or
            packages cannot be loaded.
    """
    if name == "hashing":
        if source is not None:
            raise InputError(f"--encoder hashing={source}: it needs no weights; leave {source} out")
        return HashingEncoder(DEFAULT_HASHING_WIDTH if width is None else width)
    if name not in HUB_HANDLES:
        known = ", ".join(("hashing", *HUB_HANDLES))
        raise InputError(f"--encoder {name}: no such sentence encoder; choose one of {known}")
    encoder = SentenceT5Encoder(name, source or HUB_HANDLES[name])
    if width not in (None, encoder.width):
        raise InputError(
            f"{encoder.source}: this {name} writes {encoder.width} columns, not {width}; "
            "give the model that was meant, or leave the width out"
        )
    if sha256 not in (None, encoder.sha256):
        raise InputError(
            f"{encoder.source}: another {name} than the one that made the embeddings; put that one "
            "there again"
        )
    return encoder


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
        """See `SentenceEncoder`; a text without words is zero."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        for start in range(0, len(texts), _HASHING_BATCH):
            batch = texts[start : start + _HASHING_BATCH]
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


class SentenceT5Encoder:
    """A SentenceT5 SavedModel: a batch of strings in, their embeddings out."""

    def __init__(self, name: str, source: str) -> None:
        self.source = source
        self._model, folder = _load_saved_model(name, source)
        self.sha256 = _sha256(epath.Path(folder))
        self.width = self._embed(["width"]).shape[1]
        logging.info("%s: %d columns, from %s", name, self.width, source)

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """See `SentenceEncoder`."""
        # A batch is padded to its longest text, so texts of about the same length go together.
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.zeros((len(texts), self.width), np.float32)
        for start in range(0, len(texts), _SENTENCE_T5_BATCH):
            batch = order[start : start + _SENTENCE_T5_BATCH]
            vectors[batch] = self._embed([texts[row] for row in batch])
            if on_progress:
                on_progress(len(batch))
        return vectors

    def _embed(self, texts: list[str]) -> Float32[np.ndarray, "texts width"]:
        import tensorflow as tf

        outputs = self._model(tf.constant(texts))
        # The hub's modules return a list of one tensor, their signatures a dictionary of one.
        if isinstance(outputs, dict):
            outputs = list(outputs.values())
        if isinstance(outputs, Iterable) and not tf.is_tensor(outputs):
            (outputs,) = outputs
        return np.asarray(outputs, np.float32)


def _sha256(saved_model: epath.Path) -> str:
    """Returns a checksum of what a SavedModel computes with: its graph, weights and assets."""
    folders = (saved_model / name for name in ("assets", "variables"))
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    names = [str(path.relative_to(saved_model)) for path in files]
    sums = checksums.of_files(saved_model, ["saved_model.pb", *names])
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _load_saved_model(name: str, source: str) -> tuple[Callable[[Any], Any], str]:
    """Returns a SavedModel, and the folder that it was loaded from."""
    mend = (
        f"download {HUB_HANDLES[name]} on a machine with a network, unpack it into a folder, and "
        f"give --encoder {name}=FOLDER"
    )
    is_remote = buckets.is_remote(source)
    if not is_remote and not (Path(source) / "saved_model.pb").is_file():
        raise InputError(f"{source}: no SavedModel of {name} (saved_model.pb) there; {mend}")
    try:
        import tensorflow as tf
        import tensorflow_hub
        import tensorflow_text  # noqa: F401  registers the operations of the tokenizer
    except ImportError as error:
        raise InputError(
            f"--encoder {name}: the package {error.name} is missing; "
            "install uem-t5x[sentence-t5], or use --encoder hashing"
        ) from error
    try:
        folder = tensorflow_hub.resolve(source)  # of a handle, where its download lies
        model = tensorflow_hub.load(folder)
    except (OSError, ValueError, RuntimeError, tarfile.TarError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"{source}: {name} cannot be loaded ({reason[:200]}); {mend}") from error
    return (model if callable(model) else model.signatures["serving_default"]), folder
