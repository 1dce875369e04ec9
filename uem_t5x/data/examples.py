"""Writes users as `tf.train.Example`s, the form in which SeqIO reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from uem_t5x.data.dataset_folder import shard_paths
from uem_t5x.data.histories import Histories, HistoryLabels
from uem_t5x.data.manifest import Split

USERS_PER_SHARD = 10_000  # at most


def write_examples(
    folder: Path,
    split: str,
    users: Int64[np.ndarray, " split"],
    histories: Histories,
    labels: HistoryLabels,
    on_progress: Callable[[int], Any],
) -> Split:
    """Writes the examples of a split.

    Args:
        folder: the dataset folder.
        split: its name.
        users: which of the histories it has.
        histories: of all users.
        labels: of all users.
        on_progress: is told how many more users are done.

    Returns:
        What the manifest says about the split.
    """
    shards = np.array_split(users, num_shards(len(users)))
    for path, shard in zip(shard_paths(folder, split, len(shards)), shards):
        path.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for user in shard:
                history = slice(histories.bounds[user], histories.bounds[user + 1])
                liked, disliked = labels.names(user)
                feature = {
                    "user_id": _strings([str(histories.user_ids[user])]),
                    "history_items": _ints(histories.items[history]),
                    "history_ratings": _ints(histories.half_stars[history]),
                    "liked": _strings(liked),
                    "disliked": _strings(disliked),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                # Else the order of the features is another one in each process.
                writer.write(example.SerializeToString(deterministic=True))
        on_progress(len(shard))
    return Split(examples=len(users), shards=len(shards))


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
