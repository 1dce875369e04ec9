"""Running a model over a whole dataset, in the built-in engine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network.grammar import Grammar
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.training.partitioning import Partitioner, pad_batch

if TYPE_CHECKING:
    import tensorflow as tf


class Predictor:
    """Answers every example of a dataset, or scores given answers, in batches of one compiled size.

    Attributes:
      predict_step: given parameters, frozen variables, a batch on the devices and a random key,
        returns token ids [batch, length] and `{"scores": log-likelihoods [batch]}`, whole on every
        device.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        partitioner: Partitioner,
        batch_size: int,
        seed: int = 0,
        grammar: Grammar | None = None,
    ) -> None:
        """Prepares to compile.

        Args:
          model: the model.
          partitioner: how arrays lie on the devices.
          batch_size: examples that are answered at once.
          seed: of a `decode_fn` that draws; greedy decoding does not.
          grammar: what is written stays within it.
        """
        self._partitioner = partitioner
        self._batch_size = batch_size
        self._rng = jax.random.PRNGKey(seed)
        decoder_params = {"grammar": grammar} if grammar else None

        def predict(
            params: PyTree, flax_mutables: PyTree, batch: Batch, rng: jax.Array
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            return model.predict_batch_with_aux(
                params, batch, rng, decoder_params, flax_mutables=flax_mutables or None
            )

        def score(params: PyTree, flax_mutables: PyTree, batch: Batch) -> jax.Array:
            return model.score_batch(params, batch, flax_mutables or None)

        # Every process is given all answers.
        self.predict_step = partitioner.jit(predict, out_shardings=partitioner.replicated)
        self._score_step = partitioner.jit(score, out_shardings=partitioner.replicated)

    def predict_batch(
        self, params: PyTree, flax_mutables: PyTree, batch: Batch, index: int = 0
    ) -> np.ndarray:
        """Answers at most the compiled number of examples.

        Args:
          params: the network's parameters.
          flax_mutables: the item table, or an empty dictionary.
          batch: the model's features.
          index: of the batch; a `decode_fn` that draws does so anew for each.

        Returns:
          Token ids [examples, length].
        """
        return self._predict(params, flax_mutables, batch, index)[0]

    def predict_dataset(
        self, params: PyTree, flax_mutables: PyTree, dataset: "tf.data.Dataset"
    ) -> list[tuple[int, np.ndarray]]:
        """Answers the enumerated dataset of a `seqio.Evaluator`; returns (index, token ids)."""
        return self.predict_dataset_with_aux(params, flax_mutables, dataset)[0]

    def predict_dataset_with_aux(
        self, params: PyTree, flax_mutables: PyTree, dataset: "tf.data.Dataset"
    ) -> tuple[list[tuple[int, np.ndarray]], dict[str, list[float]]]:
        """Answers such a dataset; returns each answer's log-likelihood besides, as `scores`."""
        answers: list[tuple[int, np.ndarray]] = []
        scores: list[float] = []
        for number, (indices, batch) in enumerate(self._batches(dataset)):
            tokens, found = self._predict(params, flax_mutables, batch, number)
            answers.extend(zip(indices.tolist(), tokens))
            scores.extend(found.tolist())
        return answers, {"scores": scores}

    def score_dataset(
        self, params: PyTree, flax_mutables: PyTree, dataset: "tf.data.Dataset"
    ) -> list[tuple[int, float]]:
        """Scores the targets of such a dataset; returns (index, log-likelihood)."""
        scores: list[tuple[int, float]] = []
        for indices, batch in self._batches(dataset):
            found = self._score_step(params, flax_mutables, self._shard(batch))
            scores.extend(zip(indices.tolist(), np.asarray(found)[: _size(batch)].tolist()))
        return scores

    def _predict(
        self, params: PyTree, flax_mutables: PyTree, batch: Batch, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = jax.random.fold_in(self._rng, index)
        tokens, aux = self.predict_step(params, flax_mutables, self._shard(batch), rng)
        size = _size(batch)
        return np.asarray(tokens)[:size], np.asarray(aux["scores"])[:size]

    def _batches(self, dataset: "tf.data.Dataset") -> Iterator[tuple[np.ndarray, Batch]]:
        return dataset.batch(self._batch_size).as_numpy_iterator()

    def _shard(self, batch: Batch) -> Batch:
        return self._partitioner.shard_batch(pad_batch(batch, self._batch_size))


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values())))
