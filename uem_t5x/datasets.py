"""From a SeqIO task to batches, in the built-in engine."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
import seqio
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


def _features(config: DatasetConfig) -> seqio.Mixture | seqio.Task:
    try:
        return seqio.get_mixture_or_task(config.mixture_or_task_name)
    except ValueError as error:
        raise InputError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}: no such SeqIO task; the "
            "recipe must import the module that registers it, such as uem_t5x.tasks.movielens"
        ) from error


def train_iterator(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> dataset_iterator.TfDatasetIterator:
    """Returns this process's part of an endless run of batches.

    The iterator's position can be saved and loaded again, so that a resumed run sees just the
    examples that an undisturbed one would have seen.
    """
    _features(config)
    dataset = seqio.get_dataset(
        mixture_or_task_name=config.mixture_or_task_name,
        task_feature_lengths=dict(config.task_feature_lengths),
        feature_converter=converter_cls(pack=config.pack, use_custom_packing_ops=False),
        dataset_split=config.split,
        use_cached=config.use_cached,
        shuffle=config.shuffle,
        num_epochs=None,
        shard_info=seqio.ShardInfo(jax.process_index(), jax.process_count()),
        seed=config.seed,
    )
    dataset = dataset.batch(config.batch_size // jax.process_count(), drop_remainder=True)
    return dataset_iterator.TfDatasetIterator(dataset.prefetch(2), checkpoint=True)


def eval_batches(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter], num_batches: int
) -> list[dict[str, np.ndarray]]:
    """Returns the first batches of a split, in order, the last one filled up with empty rows."""
    _features(config)
    dataset = seqio.get_dataset(
        mixture_or_task_name=config.mixture_or_task_name,
        task_feature_lengths=dict(config.task_feature_lengths),
        feature_converter=converter_cls(pack=config.pack, use_custom_packing_ops=False),
        dataset_split=config.split,
        use_cached=config.use_cached,
        shuffle=False,
        num_epochs=1,
        seed=config.seed,
    )
    batches = dataset.batch(config.batch_size).take(num_batches).as_numpy_iterator()
    return [pad_batch(batch, config.batch_size) for batch in batches]


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
