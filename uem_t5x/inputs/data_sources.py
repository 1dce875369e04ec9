"""Where SeqIO tasks read their users from: the current dataset folder, found when it is used.

A task is registered when its module is imported, long before a recipe or a command has said where
the data lies. So nothing here looks at the disk until a dataset, a count or a shard is asked for.
"""

import functools
import os
from collections.abc import Mapping, Sequence

import gin
import numpy as np
import seqio
import tensorflow as tf
from jaxtyping import Float32

from uem_t5x.base import checksums
from uem_t5x.base.errors import InputError
from uem_t5x.base.overrides import Override
from uem_t5x.data import manifest
from uem_t5x.data.dataset_folder import EXAMPLES, SPLITS, DatasetFolder
from uem_t5x.network.item_table import Channel

DATA_DIR_VARIABLE = "UEM_T5X_DATA_DIR"
FINGERPRINT = "fingerprint"

# An example as `uem-t5x prepare` writes it: one user, or one question.
_OF_QUESTIONS = ("question", "answer")
_FEATURES = {
    "user_id": tf.io.FixedLenFeature([], tf.string),
    "history_items": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "history_ratings": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "liked": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
    "disliked": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
    **{name: tf.io.FixedLenFeature([], tf.string, "") for name in _OF_QUESTIONS},
}

# Makes a folder the current one inside a `with`, whatever gin and the environment say.
use_dataset_folder: Override[DatasetFolder] = Override("dataset folder")

# Stands for the channels of the current dataset folder, for a program that reads none.
use_channels: Override[Sequence[Channel]] = Override("channels")


@gin.configurable
def dataset_folder(path: str | os.PathLike[str] | None = None) -> DatasetFolder:
    """Opens the dataset folder that tasks, vocabularies and metrics currently read.

    The first of these that is set names it: `use_dataset_folder`; `path`, which a recipe binds
    with `data_sources.dataset_folder.path = %DATA_DIR`; the environment variable
    `UEM_T5X_DATA_DIR`, for programs that read no gin (`seqio_cache_tasks`, its Beam workers).

    Args:
      path: a folder that `uem-t5x prepare` wrote.

    Raises:
      InputError: nothing names a folder, or the one that is named is not a dataset folder.
    """
    if use_dataset_folder.value:
        return use_dataset_folder.value
    named = path or os.environ.get(DATA_DIR_VARIABLE)
    if not named:
        raise InputError(
            "no dataset folder is set: pass --gin.DATA_DIR=\"'FOLDER'\" to a recipe, or set the "
            f"environment variable {DATA_DIR_VARIABLE}=FOLDER, with a folder that `uem-t5x "
            "prepare` wrote"
        )
    # It is asked for with every answer that is read back.
    named = os.fspath(named)
    return _open(named, checksums.last_change(f"{named}/{manifest.FILE_NAME}"))


@functools.lru_cache(maxsize=8)
def _open(path: str, _: int | None) -> DatasetFolder:
    return DatasetFolder.open(path)


def channels() -> tuple[Channel, ...]:
    """Returns the channels of the current dataset folder, in the order they are concatenated."""
    if use_channels.value:
        return tuple(use_channels.value)
    folder = dataset_folder()
    shapes = [(channel, folder.embedding_shape(channel)) for channel in folder.channels]
    return tuple(
        Channel(channel.name, rows, width, channel.index) for channel, (rows, width) in shapes
    )


def item_vectors(channel: str) -> Float32[np.ndarray, "rows width"]:
    """Returns the matrix of a channel of the current dataset folder, by its name."""
    return dataset_folder().embedding(channel)


class DatasetFolderSource(seqio.TFExampleDataSource):
    """Users of a dataset folder, one example each.

    Features: `user_id` (string), `history_items` (int32 rows of the item table) and
    `history_ratings` (int32 half-stars 1..10), whole and oldest first; `liked` and `disliked`
    (genre names, best or worst first), or where the folder has questions `question` and `answer`;
    `split`, the name of the split, for preprocessors that may touch training examples only; and
    `fingerprint`, by which a cache is told from one of other data.
    """

    def __init__(self, folder: DatasetFolder | None = None) -> None:
        """Makes a source, without looking at the disk.

        Args:
          folder: the dataset folder; by default, what is the current one whenever it is read.
        """
        self._folder = folder
        super().__init__(
            # Only its keys and its wording in messages matter: `list_shards` finds the files.
            split_to_filepattern={split: f"{EXAMPLES}/{split}-*.tfrecord" for split in SPLITS},
            feature_description=_FEATURES,
        )

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the paths of a split's files, in the order of their names."""
        return [os.fspath(path) for path in self._current().examples(split)]

    def num_input_examples(self, split: str) -> int:
        """Returns the number of users in a split, as the manifest counts them."""
        return self._current().num_examples(split)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: object,
    ) -> tf.data.Dataset:
        """Reads a split; `seqio.TFExampleDataSource` shards it and shuffles its files."""
        dataset = super().get_dataset(split, shuffle, seed, shard_info, **unused)
        folder = self._current()
        fingerprint = folder.fingerprint(split)
        left_out = () if folder.telling.has_questions else _OF_QUESTIONS

        def finish(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                **{name: value for name, value in example.items() if name not in left_out},
                "history_items": tf.cast(example["history_items"], tf.int32),
                "history_ratings": tf.cast(example["history_ratings"], tf.int32),
                "split": tf.constant(split),
                FINGERPRINT: tf.constant(fingerprint),
            }

        # SeqIO's steps are small functions of one example, and calling them takes longer than they
        # do: fused, a task makes batches in two thirds of the time. Options hold for all that is
        # made of a dataset.
        options = tf.data.Options()
        options.experimental_optimization.map_fusion = True
        return dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE).with_options(options)

    def _current(self) -> DatasetFolder:
        return self._folder or dataset_folder()
