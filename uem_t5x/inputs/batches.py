"""From a SeqIO task to batches, in the built-in engine."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import seqio
import tensorflow as tf
from clu.data import dataset_iterator
from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.inputs import caches
from uem_t5x.inputs.feature_converters import HISTORY_FEATURES

USER_ID = "user_id"


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """What to read; fields are named as in `t5x.utils.DatasetConfig`.

    Attributes:
      mixture_or_task_name: a registered SeqIO task or mixture.
      task_feature_lengths: padded length of every feature.
      split: `train`, `validation` or `test`.
      batch_size: examples in a global batch.
      shuffle: draw in random order.
      seed: of the order, and of the stretches and tastes that training draws.
      use_cached: read what `seqio_cache_tasks` wrote.
      num_shards: parts that training reads the split in; see `TrainIterator`. None for one per
        process, or for the number that the run which is resumed has saved.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str
    batch_size: int
    shuffle: bool = False
    seed: int | None = None
    use_cached: bool = False
    num_shards: int | None = None


def _load(
    config: DatasetConfig,
    converter_cls: type[seqio.FeatureConverter],
    num_epochs: int | None,
    shard_info: seqio.ShardInfo | None = None,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    converter = converter_cls(pack=False, use_custom_packing_ops=False)
    dataset = converter(
        task_dataset(task_of(config), config, num_epochs, shard_info),
        task_feature_lengths=dict(config.task_feature_lengths),
    )
    return dataset.batch(batch_size, drop_remainder=True) if batch_size else dataset


def task_dataset(
    task: seqio.Task | seqio.Mixture,
    config: DatasetConfig,
    num_epochs: int | None,
    shard_info: seqio.ShardInfo | None = None,
    **options: Any,
) -> tf.data.Dataset:
    """Returns what `_load` makes batches of, with whatever else a task's examples hold."""
    return task.get_dataset(
        sequence_length=dict(config.task_feature_lengths),
        split=config.split,
        use_cached=config.use_cached,
        shuffle=config.shuffle,
        num_epochs=num_epochs,
        shard_info=shard_info,
        seed=config.seed,
        **options,
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
          InputError: if there is no such task, the parts cannot share a batch evenly, or there are
            more of them than users.
        """
        index, count = share
        num_shards = count if config.num_shards is None else config.num_shards
        check_at_least(1, NUM_DATA_SHARDS=num_shards)
        users = num_examples(config)
        if users is not None and users < num_shards:
            raise InputError(
                f"NUM_DATA_SHARDS={num_shards} (by default, one a host): the split "
                f"{config.split!r} has {users} users, which leaves parts empty; use fewer"
            )
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
        self._config, self._num_shards, self._num_shares = config, num_shards, count
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

        It reads the data anew up to there: for people who ask what was in a batch.
        """
        size = self._config.batch_size // self._num_shards
        task = task_of(self._config)
        # A mixture leaves out what none of its tasks' models reads.
        kept = {"passthrough_features": [USER_ID]} if isinstance(task, seqio.Mixture) else {}
        parts = [
            task_dataset(task, self._config, None, seqio.ShardInfo(shard, self._num_shards), **kept)
            for shard in range(self._num_shards)
        ]
        rows = [part.skip(index * size).take(size).as_numpy_iterator() for part in parts]
        return [example[USER_ID].decode() for part in rows for example in part]

    def save(self, folder: epath.Path) -> None:
        """Writes down how far the parts are that begin in this process's rows.

        They lie where T5X looks for them: of several processes each has a folder; of several parts
        that fewer or more processes read, each has that of a process of as many as there are parts.
        """
        processes = jax.process_count()
        for shard in self._begin_here:
            place = folder
            if processes > 1 and self._num_shards == self._num_shares:
                place = folder / f"process_{jax.process_index()}-of-{processes}"
            elif self._num_shards > 1:
                place = folder / f"process_{shard}-of-{self._num_shards}"
            place.mkdir(exist_ok=True)
            self._parts[shard].save(place / self._name(shard))

    def restore(self, folder: epath.Path) -> None:
        """Goes to where the parts were, however many processes wrote that down."""
        places = _places(folder)
        for shard, part in self._parts.items():
            name = self._name(shard)
            place = next((at for at in places if (at / f"{name}.index").exists()), folder)
            part.restore(place / name)

    def _name(self, shard: int) -> str:
        return f"train_ds-{shard:03}-of-{self._num_shards:03}"


def saved_num_shards(folder: epath.Path) -> int | None:
    """Returns the number of parts whose positions lie in a folder; None if there are none."""
    names = (path.name for place in _places(folder) for path in buckets.named(place, "train_ds-*"))
    matches = (re.match(r"train_ds-\d+-of-(\d+)", name) for name in names)
    return next((int(match[1]) for match in matches if match), None)


def _places(folder: epath.Path) -> list[epath.Path]:
    """Returns where positions may lie: in a folder, or in those of several processes in it."""
    return [folder, *buckets.named(folder, "process_*-of-*")]


def eval_batches(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each example of a split once, in batches; the last one may be smaller.

    Raises:
      InputError: if there is no such task.
    """
    dataset = _load(config, converter_cls, num_epochs=1)
    yield from dataset.batch(config.batch_size).as_numpy_iterator()


def num_examples(config: DatasetConfig) -> int | None:
    """Returns the number of examples of a split; None where the task's source does not know it.

    Raises:
      InputError: if there is no such task.
    """
    return task_of(config).num_input_examples(config.split)


def task_of(config: DatasetConfig) -> seqio.Task | seqio.Mixture:
    """Returns the registered task, whose cache is checked if it is to be read.

    Raises:
      InputError: if there is none, it has a history and the model reads none, or the other way, or
        its cache is missing or of other data.
    """
    names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if config.mixture_or_task_name not in names:
        raise InputError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}: no such SeqIO task; the "
            "recipe must import the module that registers it, such as uem_t5x.tasks.movielens"
        )
    task = seqio.get_mixture_or_task(config.mixture_or_task_name)
    given, read = task.output_features, config.task_feature_lengths
    if (given.keys() ^ read.keys()) & {"inputs", "targets", *HISTORY_FEATURES}:
        given, read = map(", ".join, (given, read))
        raise InputError(
            f"{task.name}: a task of {given}, where the model reads {read}; name one of these"
        )
    if config.use_cached:
        for part in seqio.get_subtasks(task):
            if part.supports_caching:
                caches.check(part, config.split)
    return task
