"""SentenceT5 (arXiv 2108.08877) as TensorFlow Hub has it: a SavedModel, run by TensorFlow."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32

from uem_t5x.base import buckets, checksums
from uem_t5x.base.errors import InputError, first_line
from uem_t5x.encoders import batching

HUB_HANDLES = {
    "sentence-t5-base": "https://tfhub.dev/google/sentence-t5/st5-base/1",
    "sentence-t5-large": "https://tfhub.dev/google/sentence-t5/st5-large/1",
    "sentence-t5-xl": "https://tfhub.dev/google/sentence-t5/st5-3b/1",
}
_BATCH = 64


class SavedModelEncoder:
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
        """See `sentences.SentenceEncoder`."""

        def embed(batch: Sequence[int]) -> Float32[np.ndarray, "batch width"]:
            return self._embed([texts[row] for row in batch])

        lengths = [len(text) for text in texts]
        return batching.by_length(lengths, _BATCH, self.width, embed, on_progress)

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
        reason = first_line(error)
        raise InputError(f"{source}: {name} cannot be loaded ({reason}); {mend}") from error
    return (model if callable(model) else model.signatures["serving_default"]), folder
