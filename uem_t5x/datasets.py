"""From a SeqIO task to batches, in the built-in engine."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import numpy as np
import seqio
import tensorflow as tf
from clu.data import dataset_iterator

from uem_t5x.errors import InputError


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
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str
    batch_size: int
    shuffle: bool = False
    seed: int | None = None
    use_cached: bool = False
    pack: bool = False


def _load(
    config: DatasetConfig,
    converter_cls: type[seqio.FeatureConverter],
    num_epochs: int | None,
    shard_info: seqio.ShardInfo | None = None,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    if config.mixture_or_task_name not in {
        *seqio.TaskRegistry.names(),
        *seqio.MixtureRegistry.names(),
    }:
        raise InputError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}: no such SeqIO task; the "
            "recipe must import the module that registers it, such as uem_t5x.tasks.movielens"
        )
    return seqio.get_dataset(
        mixture_or_task_name=config.mixture_or_task_name,
        task_feature_lengths=dict(config.task_feature_lengths),
        feature_converter=converter_cls(pack=config.pack, use_custom_packing_ops=False),
        dataset_split=config.split,
        use_cached=config.use_cached,
        shuffle=config.shuffle,
        num_epochs=num_epochs,
        shard_info=shard_info,
        seed=config.seed,
        batch_size=batch_size,
    )


def train_iterator(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> dataset_iterator.TfDatasetIterator:
    """Returns this process's part of an endless run of batches.

    The iterator's position can be saved and loaded again, so that a resumed run sees just the
    examples that an undisturbed one would have seen. The pipeline is made step by step as T5X makes
    it: each engine finds the position that the other one saved.

    Raises:
      InputError: if there is no such task.
    """
    shard_info = seqio.ShardInfo(jax.process_index(), jax.process_count())
    batch_size = config.batch_size // jax.process_count()
    dataset = _load(config, converter_cls, None, shard_info, batch_size)
    return dataset_iterator.TfDatasetIterator(dataset, checkpoint=True)


def eval_batches(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each example of a split once, in batches; the last one may be smaller.

    Raises:
      InputError: if there is no such task.
    """
    dataset = _load(config, converter_cls, num_epochs=1)
    yield from dataset.batch(config.batch_size).as_numpy_iterator()


def pad_batch(batch: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Fills a batch up to `size` rows with zeros: no history, no text, no loss."""
    missing = size - len(next(iter(batch.values())))
    return {
        name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for name, array in batch.items()
    }


def batch_shapes(
    spec: Mapping[str, dataset_iterator.ArraySpec], batch_size: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every feature of a global batch."""
    return {name: (batch_size, *feature.shape[1:]) for name, feature in spec.items()}
