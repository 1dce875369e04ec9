"""The vocabulary of the tasks: a SentencePiece model that is chosen when it is used."""

import functools
import itertools

import gin
import seqio
import tensorflow as tf
from etils import epath
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from uem_t5x.base import buckets, checksums, file_kinds
from uem_t5x.base.errors import InputError, said_by_tensorflow
from uem_t5x.base.overrides import Override
from uem_t5x.data.dataset_folder import CATALOGUE, VOCABULARY
from uem_t5x.inputs import data_sources

# T5 1.1's and Flan-T5's. The file itself holds the 100 sentinel tokens: its 32,100 ids are those
# of the public checkpoints, whose embeddings are padded to 32,128 rows.
PUBLIC_MODEL_FILE = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"

# The same vocabulary as Transformers' folders hold it (`spiece.model`) lacks the sentinels; T5 adds
# them behind the pieces.
_T5_PIECES, _T5_SENTINELS = 32_000, 100

# Embeddings have at most this many rows more than their vocabulary has tokens: T5 fills up to a
# multiple of 128.
_ROW_PADDING = 128


# Makes a file the current model inside a `with`, whatever gin says.
use_model_file: Override[str] = Override("SentencePiece model")


@gin.configurable
def sentencepiece_model_file(path: str | None = None) -> str:
    """Returns the SentencePiece model that tasks tokenize with.

    The first of these that is set names it: `use_model_file`; `path`; the one that was trained for
    the current dataset folder; the public one of Flan-T5 and T5 1.1.

    Args:
      path: a file, which a recipe binds with
        `vocabularies.sentencepiece_model_file.path = %SENTENCEPIECE_MODEL_FILE`.
    """
    if use_model_file.value:
        return use_model_file.value
    return str(path or data_sources.dataset_folder().vocabulary_path or PUBLIC_MODEL_FILE)


class TaskVocabulary(seqio.SentencePieceVocabulary):
    """A SentencePiece vocabulary that looks for its model whenever it is used.

    Tasks are registered, and recipes parsed, before the dataset folder is known. Every instance
    stands for the same, current model, and equals a plain vocabulary of that file: T5X's
    `verify_matching_vocabs` and SeqIO's mixtures compare with `==`. It holds nothing, so it
    pickles to wherever Beam sends it.

    T5's 100 sentinel tokens (`extra_ids`) are added to T5's own 32,000 pieces where the file lacks
    them, so that both public forms of the vocabulary give 32,100 ids.

    Using it raises `InputError` where `sentencepiece_model_file` names a local file that is not
    there.
    """

    def __init__(self) -> None:
        super().__init__(sentencepiece_model_file="")

    @property
    def sentencepiece_model_file(self) -> str:
        """The file of the current model."""
        return sentencepiece_model_file()

    @property
    def extra_ids(self) -> int:
        """Sentinel tokens behind the pieces of the file."""
        return load(self.sentencepiece_model_file).extra_ids

    def _model_context(self) -> object:
        # All that the base class does goes through here.
        return load(self.sentencepiece_model_file)._model_context()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TaskVocabulary):
            return True
        return load(self.sentencepiece_model_file) == other

    __hash__ = None


def load(model_file: str) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary of a file, with T5's sentinel tokens where it is T5's without them.

    Raises:
      InputError: if there is no such file, or its bucket cannot be read, or if it is no
        SentencePiece model or not the whole of one.
    """
    return _load(model_file, checksums.last_change(model_file))


@functools.lru_cache(maxsize=8)
def _load(model_file: str, _: int | None) -> seqio.SentencePieceVocabulary:
    # SeqIO keeps what it has read, whatever becomes of the file.
    seqio.vocabularies._load_model_internal.cache_clear()
    mend = (
        f"download {PUBLIC_MODEL_FILE}, and give its place as --gin.SENTENCEPIECE_MODEL_FILE=FILE; "
        "for a small model from scratch, `uem-t5x prepare --vocabulary-size N` trains one"
    )
    if not buckets.is_remote(model_file) and not tf.io.gfile.exists(model_file):
        raise InputError(f"{model_file}: no such SentencePiece model; {mend}")
    vocabulary = seqio.SentencePieceVocabulary(model_file)
    try:
        size = vocabulary.vocab_size  # which reads the file
        model = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.sp_model)
        # A file that ends between two pieces would be read as a smaller vocabulary. The normalizer
        # is written behind them.
        is_whole = model.HasField("normalizer_spec")
    except tf.errors.OpError as error:
        raise InputError(
            f"{model_file}: cannot be read ({said_by_tensorflow(error)}); {mend}"
        ) from error
    except (DecodeError, RuntimeError):  # of its form; of what it says
        is_whole = False
    if not is_whole:
        kind = file_kinds.hint(model_file)
        raise InputError(f"{model_file}: not a SentencePiece model: {kind}; {mend}")
    if size == _T5_PIECES:
        vocabulary = seqio.SentencePieceVocabulary(model_file, extra_ids=_T5_SENTINELS)
    return vocabulary


def check_rows(vocabulary: seqio.Vocabulary, rows: int, checkpoint: str | None = None) -> None:
    """Checks that a vocabulary is the one that an embedding was made for.

    Args:
      vocabulary: of the task.
      rows: of the token embedding.
      checkpoint: the folder of a pretrained model, or None for random parameters. Where it, or the
        run that it belongs to, holds its vocabulary, the pieces are compared.

    Raises:
      InputError: more tokens than rows; or, with a checkpoint, many fewer, or other pieces.
    """
    size = vocabulary.vocab_size
    file = getattr(vocabulary, "sentencepiece_model_file", "the vocabulary")
    if checkpoint is None and size > rows:
        raise InputError(
            f"{file}: {size} tokens, but VOCAB_SIZE={rows}; set VOCAB_SIZE to {size} or more"
        )
    if checkpoint is None:
        return
    mend = "give the checkpoint's own vocabulary as --gin.SENTENCEPIECE_MODEL_FILE=FILE"
    folder = epath.Path(checkpoint)
    of_a_run = CATALOGUE / VOCABULARY
    places = (folder / "spiece.model", folder / of_a_run, folder.parent / of_a_run)
    own = next((place for place in places if place.is_file()), None)
    # Without its vocabulary the numbers must do; a run of this project may have had any.
    if not (0 if own else rows - _ROW_PADDING) < size <= rows:
        raise InputError(
            f"{file}: {size} tokens, but the embedding in {checkpoint} has {rows} rows; {mend}"
        )
    if own and (token := _first_difference(vocabulary, load(str(own)))) is not None:
        raise InputError(f"{file}: token {token} is another one in {own}; {mend}")


def _first_difference(
    one: seqio.SentencePieceVocabulary, other: seqio.SentencePieceVocabulary
) -> int | None:
    """Returns the first id that stands for different pieces; sentinels are spelled variously."""
    pieces = [[v.tokenizer.id_to_piece(i) for i in range(len(v.tokenizer))] for v in (one, other)]
    pairs = enumerate(itertools.zip_longest(*pieces, fillvalue=""))
    return next((i for i, (a, b) in pairs if a != b and "<extra_id_" not in a + b), None)
