"""The vocabulary of the tasks: a SentencePiece model that is chosen when it is used."""

import functools

import gin
import seqio
import tensorflow as tf

from uem_t5x import data_sources
from uem_t5x.errors import InputError

# T5 1.1's and Flan-T5's. The file itself holds the 100 sentinel tokens, so no extra ids are added
# and its 32,100 ids are those of the public checkpoints.
PUBLIC_MODEL_FILE = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"


@gin.configurable
def sentencepiece_model_file(path: str | None = None) -> str:
    """Returns the SentencePiece model that tasks tokenize with.

    Args:
      path: a file to use instead of the default, which is the one that was trained for the current
        dataset folder or, where there is none, the public one of Flan-T5 and T5 1.1.
    """
    return str(path or data_sources.dataset_folder().vocabulary_path or PUBLIC_MODEL_FILE)


class TaskVocabulary(seqio.SentencePieceVocabulary):
    """A SentencePiece vocabulary that looks for its model whenever it is used.

    Tasks are registered, and recipes parsed, before the dataset folder is known. Every instance
    stands for the same, current model, and equals a plain vocabulary of that file: T5X's
    `verify_matching_vocabs` and SeqIO's mixtures compare with `==`. It holds nothing, so it
    pickles to wherever Beam sends it.

    Using it raises `InputError` where `sentencepiece_model_file` names a local file that is not
    there.
    """

    def __init__(self) -> None:
        super().__init__(sentencepiece_model_file="")

    @property
    def sentencepiece_model_file(self) -> str:
        """The file of the current model."""
        return sentencepiece_model_file()

    def _model_context(self) -> object:
        # All that the base class does goes through here.
        return _load(self.sentencepiece_model_file)._model_context()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TaskVocabulary):
            return True
        return seqio.SentencePieceVocabulary(self.sentencepiece_model_file) == other

    __hash__ = None


@functools.lru_cache(maxsize=8)
def _load(model_file: str) -> seqio.SentencePieceVocabulary:
    is_remote = "://" in model_file
    if not is_remote and not tf.io.gfile.exists(model_file):
        raise InputError(
            f"{model_file}: no such SentencePiece model; download {PUBLIC_MODEL_FILE}, and bind "
            "vocabularies.sentencepiece_model_file.path to where it lies"
        )
    return seqio.SentencePieceVocabulary(model_file)
