"""What task prompts start as: the macro PROMPT_INIT.

`random` draws them as the network does. The others take rows of the language model's embedding, as
prompt tuning does (arXiv 2104.08691, section 2.1): `vocabulary` those of pieces drawn from the most
common ones, `text:WORDS` those of a text's pieces, over and over.
"""

import os
import zlib
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from uem_t5x import checkpoints
from uem_t5x.base.errors import InputError
from uem_t5x.network.types import PyTree

if TYPE_CHECKING:
    import seqio

RANDOM, VOCABULARY, TEXT = "random", "vocabulary", "text:"
# SentencePiece numbers its pieces by how common they are; prompt tuning draws from as many.
_COMMON_PIECES = 5000
_SPECIAL_PIECES = 3  # padding, end of sequence, unknown
_PROMPT = "task_prompt/embedding"


def check(prompt_init: str) -> None:
    """Refuses what is no PROMPT_INIT.

    Raises:
      InputError: if it is none.
    """
    is_text = isinstance(prompt_init, str) and prompt_init.startswith(TEXT)
    if is_text and not prompt_init.removeprefix(TEXT).strip():
        raise InputError(f"PROMPT_INIT={prompt_init!r}: no text; write some behind {TEXT!r}")
    if not is_text and prompt_init not in (RANDOM, VOCABULARY):
        raise InputError(
            f"PROMPT_INIT={prompt_init!r}: choose {RANDOM!r}, {VOCABULARY!r} or '{TEXT}WORDS'"
        )


def start(
    params: PyTree,
    prompt_init: str,
    vocabulary: "seqio.Vocabulary",
    rng: jax.Array,
    initial_checkpoint_path: str | os.PathLike[str] | None = None,
) -> PyTree:
    """Returns parameters whose task prompts start as PROMPT_INIT says.

    Args:
      params: nested dictionaries, the language model's as they start.
      prompt_init: see above.
      vocabulary: of the encoder's text.
      rng: random key of the initialization; a key of the prompts' own is made of it.
      initial_checkpoint_path: where the parameters come from; task prompts of the same sizes in it
        stay.

    Raises:
      InputError: if there are no task prompts, or the text is longer than they are or has words
        that the vocabulary cannot write.
    """
    check(prompt_init)
    if prompt_init == RANDOM:
        return params
    if "task_prompt" not in params:
        raise InputError(
            f"PROMPT_INIT={prompt_init!r}: there are no task prompts (PROMPT_LENGTH=0, or another "
            f"SOFT_PROMPT); bind it to {RANDOM!r}"
        )
    prompt = params["task_prompt"]["embedding"]
    if initial_checkpoint_path and _holds_prompt(initial_checkpoint_path, prompt.shape):
        return params
    table = params["token_embedder"]["embedding"]
    pieces = _pieces(prompt_init, vocabulary, len(prompt), len(table), rng)

    def take(table: jax.Array) -> jax.Array:
        return jnp.take(table, pieces, axis=0).astype(prompt.dtype)

    embedding = jax.jit(take, out_shardings=prompt.sharding)(table)
    return {**params, "task_prompt": {**params["task_prompt"], "embedding": embedding}}


def _pieces(
    prompt_init: str, vocabulary: "seqio.Vocabulary", count: int, rows: int, rng: jax.Array
) -> Int[np.ndarray, " count"]:
    """Returns the ids of the pieces whose embeddings the prompts start as."""
    if prompt_init == VOCABULARY:
        pieces = min(vocabulary.vocab_size, rows, _SPECIAL_PIECES + _COMMON_PIECES)
        rng = jax.random.fold_in(rng, zlib.crc32(_PROMPT.encode()))  # one that drew nothing yet
        drawn = jax.random.choice(
            rng, pieces - _SPECIAL_PIECES, (count,), replace=count > pieces - _SPECIAL_PIECES
        )
        return _SPECIAL_PIECES + np.asarray(drawn)
    pieces = vocabulary.encode(prompt_init.removeprefix(TEXT))
    if len(pieces) > count:
        raise InputError(
            f"PROMPT_INIT: the text has {len(pieces)} pieces, and PROMPT_LENGTH={count}; shorten "
            f"it, or bind PROMPT_LENGTH to {len(pieces)}"
        )
    if vocabulary.unk_id in pieces:
        raise InputError(
            f"PROMPT_INIT={prompt_init!r}: the vocabulary cannot write some of it; use other words"
        )
    return np.resize(np.asarray(pieces, np.int32), count)


def _holds_prompt(folder: str | os.PathLike[str], shape: tuple[int, ...]) -> bool:
    _, tensors = checkpoints.open_checkpoint(folder)
    return _PROMPT in tensors and tensors[_PROMPT].shape == shape
