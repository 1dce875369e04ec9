"""Sentence encoders: strings in, one float32 vector of unit length a string out.

| name | |
| --- | --- |
| `hashing` | hashed words; needs no weights |
| `sentence-t5-base`, `-large`, `-xl` | SentenceT5, the paper's: from TensorFlow Hub |
| `sentence-t5-base=FOLDER` | the same from a folder: a SavedModel, or Transformers' weights |
| `sentence-transformers:NAME` | whatever that library loads, by its name or its folder |
| `module:Class` | a class of one's own, without arguments, that is a `SentenceEncoder` |
"""

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from uem_t5x.base.errors import InputError
from uem_t5x.encoders import hashing
from uem_t5x.encoders.saved_model import HUB_HANDLES

LIBRARY = "sentence-transformers"


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


def split_name(encoder: str) -> tuple[str, str | None]:
    """Splits what `--encoder` says into a name and a source, as `make_encoder` takes them."""
    name, mark, source = re.fullmatch(r"([^=:]*)([=:]?)(.*)", encoder, re.DOTALL).groups()
    if mark == ":" and name not in (LIBRARY, hashing.NAME, *HUB_HANDLES):
        return encoder, None  # module:Class
    return name, source or None


def make_encoder(
    name: str, width: int | None = None, source: str | None = None, sha256: str | None = None
) -> SentenceEncoder:
    """Makes an encoder.

    Args:
        name: see the module.
        width: the length of its vectors. It can be chosen for `hashing`; for others it is checked.
        source: the folder of a SentenceT5, or the name or folder of a model of the library.
        sha256: what its weights must have; None for any.

    Raises:
        InputError: if there is no such encoder, it is not the one that was meant, or its model or
            packages cannot be loaded.
    """
    if name == hashing.NAME:
        if source is not None:
            raise InputError(f"--encoder hashing={source}: it needs no weights; leave {source} out")
        return hashing.HashingEncoder(hashing.DEFAULT_WIDTH if width is None else width)
    encoder = _load(name, source)
    if width not in (None, encoder.width):
        raise InputError(
            f"{source or name}: this {name} writes {encoder.width} columns, not {width}; give the "
            "model that was meant, or leave the width out"
        )
    if sha256 not in (None, encoder.sha256):
        raise InputError(
            f"{source or name}: another {name} than the one that made the embeddings; put that one "
            "there again"
        )
    return encoder


def _load(name: str, source: str | None) -> SentenceEncoder:
    if name == LIBRARY:
        from uem_t5x.encoders.library import LibraryEncoder

        if source is None:
            raise InputError(f"--encoder {name}: which model? Give --encoder {name}:NAME_OR_FOLDER")
        return LibraryEncoder(source)
    if name in HUB_HANDLES:
        from uem_t5x.encoders import sentence_t5
        from uem_t5x.encoders.saved_model import SavedModelEncoder

        if source is not None and sentence_t5.is_one(source):
            return sentence_t5.SentenceT5Encoder(source)
        return SavedModelEncoder(name, source or HUB_HANDLES[name])
    module, mark, attribute = name.partition(":")
    if not mark or source is not None:
        known = ", ".join((hashing.NAME, *HUB_HANDLES, f"{LIBRARY}:NAME"))
        raise InputError(
            f"--encoder {name}: no such sentence encoder; choose one of {known}, or module:Class"
        )
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"--encoder {name}: no encoder can be made ({error}); give a module that can be "
            "imported, and a class of it that takes no arguments"
        ) from error
    if not isinstance(made, SentenceEncoder):
        raise InputError(
            f"--encoder {name}: lacks width, source, sha256 or encode; see "
            "uem_t5x.encoders.sentences.SentenceEncoder"
        )
    return made
