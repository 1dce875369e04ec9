"""Vectors of texts that were encoded before, on the disk, for the next `prepare` to find.

A folder for each encoder, told by its weights' checksum, holds parts that are written whole and
never changed: `{"texts": the first 16 bytes of each text's sha256, "vectors": ...}`.
"""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from uem_t5x.base import kept
from uem_t5x.encoders.sentences import SentenceEncoder

_KEY_BYTES = 16
_TEXTS_A_PART = 4096  # encoded and kept at a time; an interrupted run loses no more


class CachedEncoder:
    """An encoder that encodes each text once; see `sentences.SentenceEncoder`.

    One without a checksum has no weights that would be worth it, and is asked every time.
    """

    def __init__(self, encoder: SentenceEncoder, name: str) -> None:
        self._encoder, self.name = encoder, name
        self.width, self.source, self.sha256 = encoder.width, encoder.source, encoder.sha256
        self._parts = None
        if self.sha256 is not None:
            safe = "".join(letter if letter.isalnum() else "-" for letter in name)
            self._parts = kept.folder() / "vectors" / f"{safe}-{self.sha256[:16]}-{self.width}"

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """See `sentences.SentenceEncoder`."""
        if self._parts is None:
            return self._encoder.encode(texts, on_progress)
        keys = [hashlib.sha256(text.encode()).digest()[:_KEY_BYTES] for text in texts]
        known = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts) if key not in known}
        if on_progress:
            on_progress(len(texts) - len(new))
        for start in range(0, len(new), _TEXTS_A_PART):
            part = list(new)[start : start + _TEXTS_A_PART]
            vectors = self._encoder.encode([new[key] for key in part], on_progress)
            known |= dict(zip(part, vectors))
            self._write(part, vectors)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, self.width), "f4")

    def _read(self, keys: set[bytes]) -> dict[bytes, Float32[np.ndarray, " width"]]:
        """Returns the vectors of some texts, as far as they are kept."""
        known: dict[bytes, np.ndarray] = {}
        for part in sorted(self._parts.glob("*.safetensors")):
            try:
                tensors = load_file(part)
                texts, vectors = tensors["texts"], tensors["vectors"]
            except (OSError, SafetensorError, KeyError) as error:
                logging.warning("%s: left out, it cannot be read (%s)", part, error)
                continue
            if vectors.shape == (len(texts), self.width):
                rows = zip(texts, vectors)
                known |= {key: vector for row, vector in rows if (key := row.tobytes()) in keys}
        return known

    def _write(self, keys: Sequence[bytes], vectors: Float32[np.ndarray, "texts width"]) -> None:
        texts = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES)
        partial = self._parts / f"{uuid.uuid4().hex}.partial"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(save({"texts": texts, "vectors": np.ascontiguousarray(vectors)}))
            partial.replace(partial.with_suffix(".safetensors"))
        except OSError as error:  # nothing depends on it
            logging.warning("%s: vectors are not kept (%s)", self._parts, error)
