"""From a SeqIO task to batches, in the built-in engine."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from clu.data import dataset_iterator
from etils import epath

from uem_t5x.errors import InputError

_ITEMS_READ = "items_read"


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """What to read; fields are named as in `t5x.utils.DatasetConfig`.

    Attributes:
      mixture_or_task_name: a registered SeqIO task or mixture.
      task_feature_lengths: padded length of every feature.
      split: `train`, `validation` or `test`.
      batch_size: examples in a global batch.
      shuffle: draw in random order.
      seed: of the order, and of the stretches that training draws.
      use_cached: read what `seqio_cache_tasks` wrote.
      pack: must stay off: a packed row would mix the histories of several users.
      num_shards: parts that training reads the split in; see `TrainIterator`. None for one a
        process, or for what a run began with.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str
    batch_size: int
    shuffle: bool = False
    seed: int | None = None
    use_cached: bool = False
    pack: bool = False
    num_shards: int | None = None


def _load(
    config: DatasetConfig,
    converter_cls: type[seqio.FeatureConverter],
    num_epochs: int | None,
    shard_info: seqio.ShardInfo | None = None,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    converter = converter_cls(pack=config.pack, use_custom_packing_ops=False)
    dataset = converter(
        _task_dataset(config, num_epochs, shard_info),
        task_feature_lengths=dict(config.task_feature_lengths),
    )
    return dataset.batch(batch_size, drop_remainder=True) if batch_size else dataset


def _task_dataset(
    config: DatasetConfig, num_epochs: int | None, shard_info: seqio.ShardInfo | None = None
) -> tf.data.Dataset:
    """Returns what `_load` makes batches of, with whatever else examples hold."""
    _check_task(config)
    return seqio.get_mixture_or_task(config.mixture_or_task_name).get_dataset(
        sequence_length=dict(config.task_feature_lengths),
        split=config.split,
        use_cached=config.use_cached,
        shuffle=config.shuffle,
        num_epochs=num_epochs,
        shard_info=shard_info,
        seed=config.seed,
    )


class TrainIterator:
    """A process's part of an endless run of batches.

    The split is read in `num_shards` parts, each shuffled by itself, and a batch takes equally many
    examples of each, one part after the other. So its examples are the same on however many hosts:
    a process reads the parts that its rows belong to, its own one where there are as many parts as
    processes. Each part is the pipeline that T5X makes for one of as many processes, so that either
    engine goes on from the position that the other one saved.

    Attributes:
      batch_shapes: the shape of every feature of a global batch.
    """

    def __init__(
        self,
        config: DatasetConfig,
        converter_cls: type[seqio.FeatureConverter],
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Opens the parts.

        Args:
          config: what to read.
          converter_cls: the model's.
          share: which part of every batch is this process's, and of how many.

        Raises:
          InputError: if there is no such task, or the parts cannot share a batch evenly.
        """
        index, count = share
        num_shards = config.num_shards or count
        if config.batch_size % num_shards:
            fewer = next(n for n in range(num_shards, 0, -1) if config.batch_size % n == 0)
            raise InputError(
                f"NUM_DATA_SHARDS={num_shards} does not divide BATCH_SIZE={config.batch_size}; "
                f"use {fewer}"
            )
        shard_size = config.batch_size // num_shards
        first, last = (config.batch_size * end // count for end in (index, index + 1))
        shards = range(first // shard_size, -(-last // shard_size))
        self._rows = slice(first - shards.start * shard_size, last - shards.start * shard_size)
        self._begin_here = [shard for shard in shards if shard * shard_size >= first]
        self._config, self._num_shards = config, num_shards
        self._parts = {
            shard: dataset_iterator.TfDatasetIterator(
                _load(config, converter_cls, None, seqio.ShardInfo(shard, num_shards), shard_size),
                checkpoint=True,
            )
            for shard in shards
        }
        spec = self._parts[shards.start].element_spec
        self.batch_shapes = {
            name: (config.batch_size, *feature.shape[1:]) for name, feature in spec.items()
        }

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        parts = [next(part) for part in self._parts.values()]
        return {
            name: np.concatenate([part[name] for part in parts])[self._rows] for name in parts[0]
        }

    def user_ids(self, index: int) -> list[str]:
        """Returns the users of the global batch number `index`, counted from the run's first.

        It reads the data anew up to there: for people who ask what was in a batch. A run that has
        changed its batch size on the way has other batches.
        """
        size = self._config.batch_size // self._num_shards
        parts = [
            _task_dataset(self._config, None, seqio.ShardInfo(shard, self._num_shards))
            for shard in range(self._num_shards)
        ]
        rows = [part.skip(index * size).take(size).as_numpy_iterator() for part in parts]
        return [example["user_id"].decode() for part in rows for example in part]

    def save(self, folder: epath.Path) -> None:
        """Writes down how far the parts are that begin in this process's rows."""
        for shard in self._begin_here:
            self._parts[shard].save(self._position(folder, shard))

    def restore(self, folder: epath.Path) -> None:
        """Goes to where the parts were."""
        for shard, part in self._parts.items():
            part.restore(self._position(folder, shard))

    def _position(self, folder: epath.Path, shard: int) -> epath.Path:
        return folder / f"train_ds-{shard:03}-of-{self._num_shards:03}"


def saved_num_shards(folder: epath.Path) -> int | None:
    """Returns the number of parts whose positions lie in a folder; None if there are none."""
    matches = (re.match(r"train_ds-\d+-of-(\d+)", path.name) for path in folder.glob("train_ds-*"))
    return next((int(match[1]) for match in matches if match), None)


def eval_batches(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each example of a split once, in batches; the last one may be smaller.

    Raises:
      InputError: if there is no such task.
    """
    dataset = _load(config, converter_cls, num_epochs=1)
    yield from dataset.batch(config.batch_size).as_numpy_iterator()


def answer_batches(
    config: DatasetConfig,
    converter_cls: type[seqio.FeatureConverter],
    examples: Iterable[Mapping[str, Any]] | None = None,
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Reads users that are to be answered, each once and in order.

    Args:
      config: what to read, and in batches of how many.
      converter_cls: the model's.
      examples: other users than the split's: `user_id`, `history_items` and `history_ratings`, as
        in a dataset folder. The task's own steps are taken with them. A few are read ahead.

    Returns:
      The batches, of which the last may be smaller: the model's features, and how many items of
      each history they tell of, [batch].

    Raises:
      InputError: if there is no such task; or a mixture is to be asked about other users.
    """
    _check_task(config)
    task = seqio.get_mixture_or_task(config.mixture_or_task_name)
    if examples is not None:
        task = _with_examples(task, examples, config.split)
    dataset = task.get_dataset(
        sequence_length=dict(config.task_feature_lengths),
        split=config.split,
        use_cached=config.use_cached and examples is None,
        shuffle=False,
        seed=config.seed,
    )

    @seqio.map_over_dataset
    def count_items(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, _ITEMS_READ: tf.size(example["history_items"])[tf.newaxis]}

    converter = converter_cls(
        pack=False,
        use_custom_packing_ops=False,
        passthrough_features={_ITEMS_READ: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)},
    )
    lengths = {**config.task_feature_lengths, _ITEMS_READ: 1}
    batches = converter(count_items(dataset), lengths).batch(config.batch_size)
    return ((batch, batch.pop(_ITEMS_READ)[:, 0]) for batch in batches.as_numpy_iterator())


def _with_examples(
    task: seqio.Task | seqio.Mixture, examples: Iterable[Mapping[str, Any]], split: str
) -> seqio.Task:
    """Returns the task over other users, who have no labels."""
    if isinstance(task, seqio.Mixture):
        raise InputError(
            f"MIXTURE_OR_TASK_NAME={task.name!r}: a mixture of tasks has no one question; name one "
            "of its tasks in the recipe"
        )
    ids, text = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.string)
    names = tf.TensorSpec([None], tf.string)
    signature = {
        **{"user_id": text, "history_items": ids, "history_ratings": ids},
        **{"liked": names, "disliked": names, "split": text},
    }

    def read(split: str, shuffle_files: bool = False, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        unknown = {"liked": [], "disliked": [], "split": split}
        return tf.data.Dataset.from_generator(
            lambda: ({**example, **unknown} for example in examples), output_signature=signature
        )

    return seqio.Task(
        task.name,
        source=seqio.FunctionDataSource(read, splits=[split]),
        output_features=task.output_features,
        preprocessors=task.preprocessors,
    )


def num_examples(config: DatasetConfig) -> int | None:
    """Returns the number of examples of a split; None where the task's source does not know it.

    Raises:
      InputError: if there is no such task.
    """
    _check_task(config)
    return seqio.get_mixture_or_task(config.mixture_or_task_name).num_input_examples(config.split)


def _check_task(config: DatasetConfig) -> None:
    names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if config.mixture_or_task_name not in names:
        raise InputError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}: no such SeqIO task; the "
            "recipe must import the module that registers it, such as uem_t5x.tasks.movielens"
        )
    if config.use_cached:
        for task in seqio.get_subtasks(seqio.get_mixture_or_task(config.mixture_or_task_name)):
            if task.supports_caching:
                _check_cache(task, config.split)


def _check_cache(task: seqio.Task, split: str) -> None:
    if not task.cache_dir:
        raise InputError(
            f"USE_CACHED_TASKS=True: {task.name} is in none of the folders of caches; fill "
            "one with seqio_cache_tasks, and give it as --seqio_additional_cache_dirs=FOLDER"
        )
    cached, given = task.get_cached_stats(split)["examples"], task.num_input_examples(split)
    if given is not None and cached != given:
        raise InputError(
            f"{task.cache_dir}: a cache of other data, with {cached} users for {split} and not "
            f"{given}; fill it anew with seqio_cache_tasks"
        )


def pad_batch(batch: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Fills a batch up to `size` rows with zeros: no history, no text, no loss."""
    missing = size - len(next(iter(batch.values())))
    return {
        name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for name, array in batch.items()
    }
