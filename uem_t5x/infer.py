"""Running a model over a whole dataset, in the built-in engine."""

from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
import tensorflow as tf

from uem_t5x import datasets
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.partitioning import DataParallelPartitioner
from uem_t5x.types import Batch, PyTree


class Predictor:
    """Writes an answer for every example of a dataset, in batches of one compiled size."""

    def __init__(
        self,
        model: EncoderDecoderModel,
        partitioner: DataParallelPartitioner,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        """Prepares to compile.

        Args:
          model: the model.
          partitioner: how arrays lie on the devices.
          batch_size: examples that are answered at once.
          seed: of a `decode_fn` that draws; greedy decoding does not.
        """
        partitioner.check_batch_size(batch_size)
        self._partitioner = partitioner
        self._batch_size = batch_size
        self._rng = jax.random.PRNGKey(seed)

        def predict(
            params: PyTree, flax_mutables: PyTree, batch: Batch, rng: jax.Array
        ) -> jax.Array:
            return model.predict_batch(params, batch, rng, flax_mutables or None)

        self._predict = jax.jit(predict)

    def predict_batches(
        self, params: PyTree, flax_mutables: PyTree, batches: Iterable[Batch]
    ) -> Iterator[np.ndarray]:
        """Yields the answers of each batch, as token ids [batch, length].

        Args:
          params: the network's parameters.
          flax_mutables: the item table, or an empty dictionary.
          batches: features of at most the compiled number of examples.
        """
        for index, batch in enumerate(batches):
            size = len(next(iter(batch.values())))
            padded = datasets.pad_batch(batch, self._batch_size)
            sharded = self._partitioner.shard_batch(padded)
            rng = jax.random.fold_in(self._rng, index)
            yield np.asarray(self._predict(params, flax_mutables, sharded, rng))[:size]

    def predict_dataset(
        self, params: PyTree, flax_mutables: PyTree, dataset: tf.data.Dataset
    ) -> Sequence[tuple[int, np.ndarray]]:
        """Answers the enumerated dataset of a `seqio.Evaluator`; returns (index, token ids)."""
        indices: list[np.ndarray] = []

        def features() -> Iterator[Batch]:
            for index, batch in dataset.batch(self._batch_size).as_numpy_iterator():
                indices.append(index)
                yield batch

        answers = list(self.predict_batches(params, flax_mutables, features()))
        if not answers:
            return []
        return list(zip(np.concatenate(indices).tolist(), np.concatenate(answers)))
