"""The users of a split of a dataset folder, all at once."""

import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs.data_sources import DatasetFolderSource
from uem_t5x.tastes.baselines import Users

_AT_A_TIME = 1000  # examples


def read(folder: DatasetFolder, split: str) -> Users:
    """Reads a split in the order in which tasks read it.

    Args:
        folder: the dataset folder; it need not be the current one.
        split: `train`, `validation` or `test`; one that has users.

    Raises:
        InputError: if there is no such split.
    """
    source = DatasetFolderSource(folder)
    examples = list(source.get_dataset(split, shuffle=False).as_numpy_iterator())
    lengths = [len(example["history_items"]) for example in examples]
    return Users(
        ids=[example["user_id"].decode() for example in examples],
        items=np.concatenate([example["history_items"] for example in examples]),
        half_stars=np.concatenate([example["history_ratings"] for example in examples]),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        tastes=[(_decode(example["liked"]), _decode(example["disliked"])) for example in examples],
        **{
            name: _decode([example[of_each] for example in examples])
            for name, of_each in {"questions": "question", "answers": "answer"}.items()
            if folder.telling.has_questions
        },
    )


def read_texts(folder: DatasetFolder, split: str, feature: str, most: int = -1) -> list[str]:
    """Reads one text of every example of a split, and nothing else of them.

    Args:
        folder: the dataset folder, of questions.
        split: see `read`.
        feature: `user_id`, `question` or `answer`.
        most: no more of them are read; -1 reads all.

    Raises:
        InputError: if there is no such split.
    """
    files = [os.fspath(path) for path in folder.examples(split)]
    spec = {feature: tf.io.FixedLenFeature([], tf.string)}
    batches = tf.data.TFRecordDataset(files).take(most).batch(_AT_A_TIME)
    parsed = (tf.io.parse_example(records, spec)[feature].numpy() for records in batches)
    return [text.decode() for batch in parsed for text in batch.tolist()]


def _decode(names: Iterable[bytes]) -> list[str]:
    return [name.decode() for name in names]
