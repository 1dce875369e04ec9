"""Whatever the library sentence-transformers loads, by its name on the hub or its folder."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from uem_t5x.base.errors import InputError, first_line
from uem_t5x.encoders import batching

_BATCH = 64


class LibraryEncoder:
    """See `sentences.SentenceEncoder`."""

    def __init__(self, source: str) -> None:
        """Loads a model.

        Raises:
          InputError: if the library is missing, or cannot load the model.
        """
        self.source = source
        try:
            import sentence_transformers
            import transformers
        except ImportError as error:
            raise InputError(
                f"--encoder sentence-transformers:{source}: the package {error.name} is missing; "
                "install uem-t5x[sentence-transformers]"
            ) from error
        transformers.logging.disable_progress_bar()
        try:
            self._model = sentence_transformers.SentenceTransformer(source)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                f"--encoder sentence-transformers:{source}: cannot be loaded "
                f"({first_line(error)}); give the name of a model on the hub, or a folder that the "
                "library has saved"
            ) from error
        self.width = int(self._model.get_sentence_embedding_dimension())
        self.sha256 = _sha256(self._model)

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """See `sentences.SentenceEncoder`; texts of about the same length go together."""

        def embed(batch: Sequence[int]) -> Float32[np.ndarray, "batch width"]:
            return self._model.encode(
                [texts[row] for row in batch],
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )

        lengths = [len(text) for text in texts]
        return batching.by_length(lengths, _BATCH, self.width, embed, on_progress)


def _sha256(model: Any) -> str:
    """Returns a checksum of a model's weights, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
