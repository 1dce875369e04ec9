"""Caches of tasks, as `seqio_cache_tasks` writes them."""

import os

import seqio
import tensorflow as tf
from absl import logging
from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import data_sources


def check(task: seqio.Task, split: str) -> None:
    """Checks that a task's cache holds a split of the current dataset folder.

    Raises:
      InputError: if it is missing, lies where SeqIO cannot find it, or is of other data.
    """
    if not task.cache_dir:
        raise InputError(
            f"USE_CACHED_TASKS=True: {task.name} is in none of the folders of caches; fill "
            "one with seqio_cache_tasks, and give it as --seqio_additional_cache_dirs=FOLDER"
        )
    buckets.check_no_pattern(task.cache_dir, "SeqIO finds nothing there: rename the folder")
    try:
        cached = task.get_cached_stats(split)["examples"]
    except ValueError as error:
        raise InputError(
            f"{task.cache_dir}: holds no {split} users; fill it anew with seqio_cache_tasks"
        ) from error
    given = task.num_input_examples(split)
    if given is not None and cached != given:
        raise InputError(
            f"{task.cache_dir}: a cache of other data, with {cached} users for {split} and not "
            f"{given}; fill it anew with seqio_cache_tasks"
        )
    if not (cached and isinstance(task.source, data_sources.DatasetFolderSource)):
        return
    folder, fingerprint = data_sources.dataset_folder(), _fingerprint(task, split)
    if fingerprint is None:  # an older cache, or one whose first steps dropped it
        logging.warning("%s: cannot be told from a cache of other data", task.cache_dir)
    elif fingerprint != folder.fingerprint(split):
        raise InputError(
            f"{task.cache_dir}: a cache of other users or movies than those of {folder.path}; "
            "fill it anew with seqio_cache_tasks"
        )


def _fingerprint(task: seqio.Task, split: str) -> str | None:
    """Returns the fingerprint of a cache's first example; None if it has none."""
    prefix = epath.Path(seqio.get_cached_tfrecord_prefix(task.cache_dir, split))
    files = [os.fspath(path) for path in buckets.named(prefix.parent, f"{prefix.name}-*")]
    record = next(tf.data.TFRecordDataset(files).as_numpy_iterator())
    features = tf.train.Example.FromString(record).features.feature
    values = features[data_sources.FINGERPRINT].bytes_list.value
    return values[0].decode() if values else None
