"""Writes users as `tf.train.Example`s, the form in which SeqIO reads them."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from uem_t5x.data.dataset_folder import EXAMPLES, shard_paths
from uem_t5x.data.histories import Answers, Histories, HistoryLabels
from uem_t5x.data.manifest import Split

USERS_PER_SHARD = 10_000  # at most


class ExampleWriter:
    """Writes the examples of a split, which come in order."""

    def __init__(self, folder: Path, split: str, examples: int) -> None:
        """Begins.

        Args:
            folder: the dataset folder.
            split: its name.
            examples: how many there will be.
        """
        sizes = shard_sizes(examples)
        self.record = Split(examples=examples, shards=len(sizes))
        self._paths = iter(shard_paths(folder, split, len(sizes)))
        self._sizes = iter(sizes)
        self._left, self._file = 0, None
        (folder / EXAMPLES).mkdir(exist_ok=True)
        self._begin_file()

    def write(
        self,
        users: Int64[np.ndarray, " some"],
        histories: Histories,
        targets: HistoryLabels | Answers,
    ) -> None:
        """Writes the next examples.

        Args:
            users: which of the histories they are.
            histories: some of all.
            targets: what is asked about these, and what is true.
        """
        for user in users:
            while not self._left:
                self._begin_file()
            self._file.write(example_of(user, histories, targets))
            self._left -= 1

    def close(self) -> None:
        """Ends the last file, and those that stay empty."""
        for _ in self._sizes:
            self._begin_file()
        self._file.close()

    def _begin_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = tf.io.TFRecordWriter(str(next(self._paths)))
        self._left = next(self._sizes)


def example_of(
    user: int | np.integer, histories: Histories, targets: HistoryLabels | Answers
) -> bytes:
    """Returns the example of one user, serialized."""
    history = slice(histories.bounds[user], histories.bounds[user + 1])
    feature = {
        "user_id": _strings([str(histories.user_ids[user])]),
        "history_items": _ints(histories.items[history]),
        "history_ratings": _ints(histories.half_stars[history]),
        **{name: _strings(texts) for name, texts in targets.features(user).items()},
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Else the order of the features is another one in each process.
    return example.SerializeToString(deterministic=True)


def shard_sizes(examples: int) -> list[int]:
    """Returns how many examples each file of a split has: as many, or one more in the first."""
    shards = num_shards(examples)
    return [examples // shards + (shard < examples % shards) for shard in range(shards)]


def num_shards(users: int) -> int:
    """Returns over how many files the users of a split are spread: a power of two.

    SeqIO gives each host whole files once there are as many of them. As many hosts as a power of
    two, which is how they commonly come, then read equally many users, or one more.
    """
    needed = max(1, -(-users // USERS_PER_SHARD))
    return 1 << (needed - 1).bit_length()


def _strings(values: list[str]) -> tf.train.Feature:
    encoded = [value.encode() for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def _ints(values: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values.tolist()))
