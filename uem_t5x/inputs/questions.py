"""What a model is asked: an example of each user, made by the steps of a task."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError, said_by_tensorflow
from uem_t5x.inputs import batches
from uem_t5x.inputs.batches import USER_ID, DatasetConfig

_ITEMS_READ = "items_read"


class Questions(NamedTuple):
    """A batch of examples.

    Attributes:
      features: the model's, each [batch, ...].
      items_read: how many items of each history they tell of, [batch].
      user_ids: whose they are, in UTF-8; None of each where the task keeps no `user_id`.
    """

    features: dict[str, np.ndarray]
    items_read: np.ndarray
    user_ids: list[bytes | None]


def of_split(
    config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]
) -> Iterator[Questions]:
    """Reads the users of a split, each once and in order.

    Returns:
      Batches, of which the last may be smaller.

    Raises:
      InputError: if there is no such task, or it is a mixture of several.
    """
    dataset = _dataset(_one_task(config), config, converter_cls)
    return map(_questions, dataset.as_numpy_iterator())


class Questioner:
    """Asks about users that no dataset folder holds, by the task's own steps.

    Attributes:
      task: its name.
    """

    def __init__(self, config: DatasetConfig, converter_cls: type[seqio.FeatureConverter]) -> None:
        """Traces the steps, which takes half a second; asking takes milliseconds then.

        Args:
          config: the task and its lengths.
          converter_cls: the model's.

        Raises:
          InputError: if there is no such task, or it is a mixture of several.
        """
        config = dataclasses.replace(config, use_cached=False)
        task = _one_task(config)
        self.task = task.name

        def ask(
            user_ids: tf.Tensor, items: tf.Tensor, half_stars: tf.Tensor, offsets: tf.Tensor
        ) -> Mapping[str, tf.Tensor]:
            def example(user: tf.Tensor) -> dict[str, tf.Tensor]:
                unknown = tf.constant([], tf.string)
                return {
                    "user_id": user_ids[user],
                    "history_items": items[offsets[user] : offsets[user + 1]],
                    "history_ratings": half_stars[offsets[user] : offsets[user + 1]],
                    **{"liked": unknown, "disliked": unknown, "split": tf.constant(config.split)},
                }

            def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
                del split, shuffle_files, seed
                return tf.data.Dataset.range(tf.size(user_ids, tf.int64)).map(example)

            over_users = seqio.Task(
                task.name,
                source=seqio.FunctionDataSource(read, splits=[config.split]),
                output_features=task.output_features,
                preprocessors=task.preprocessors,
            )
            # One batch of them all, however many the task has made of them.
            return _dataset(over_users, config, converter_cls).get_single_element()

        ids, names = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.string))
        # The steps are TensorFlow already; AutoGraph warns of what it cannot read.
        self._ask = tf.function(ask, autograph=False).get_concrete_function(names, ids, ids, ids)

    def __call__(self, users: Sequence[Mapping[str, Any]]) -> Questions:
        """Returns what `of_split` gives of a batch.

        Args:
          users: at most a batch of them: `user_id`, `history_items` and `history_ratings`, as in
            a dataset folder.

        Raises:
          InputError: if the task does not make one example of each user, in this order.
        """
        lengths = [len(user["history_items"]) for user in users]
        items, half_stars = (
            np.fromiter(itertools.chain.from_iterable(user[name] for user in users), np.int32)
            for name in ("history_items", "history_ratings")
        )
        arguments = (
            tf.constant([user["user_id"] for user in users], tf.string),
            tf.constant(items),
            tf.constant(half_stars),
            tf.constant(np.cumsum([0, *lengths], dtype=np.int32)),
        )
        try:
            features = self._ask(*arguments)
        except tf.errors.InvalidArgumentError as error:
            # Of no examples, too, or more than a batch of them.
            raise InputError(
                f"{self.task}: its steps fail on {len(users)} users, or do not make one example of "
                f"each ({said_by_tensorflow(error)})"
            ) from error
        asked = _questions({name: array.numpy() for name, array in features.items()})
        check_one_each(self.task, arguments[0].numpy().tolist(), asked.user_ids)
        return asked


def _dataset(
    task: seqio.Task,
    config: DatasetConfig,
    converter_cls: type[seqio.FeatureConverter],
) -> tf.data.Dataset:
    """Returns batches of what `_questions` takes apart."""
    config = dataclasses.replace(config, shuffle=False)
    dataset = batches.task_dataset(task, config, num_epochs=1)

    kept = {_ITEMS_READ: tf.int32}
    if dataset.element_spec.get(USER_ID) == tf.TensorSpec([], tf.string):
        kept[USER_ID] = tf.string

    @seqio.map_over_dataset
    def add_kept(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        example = {**example, _ITEMS_READ: tf.size(example["history_items"])}
        # SeqIO takes features of one dimension.
        return {**example, **{name: example[name][tf.newaxis] for name in kept}}

    converter = converter_cls(
        pack=False,
        use_custom_packing_ops=False,
        passthrough_features={
            name: seqio.FeatureConverter.FeatureSpec(dtype=dtype) for name, dtype in kept.items()
        },
    )
    lengths = {**config.task_feature_lengths, **dict.fromkeys(kept, 1)}
    return converter(add_kept(dataset), lengths).batch(config.batch_size)


def _questions(batch: dict[str, np.ndarray]) -> Questions:
    items_read = batch.pop(_ITEMS_READ)[:, 0]
    user_ids = batch.pop(USER_ID, np.full((len(items_read), 1), None))[:, 0]
    return Questions(batch, items_read, user_ids.tolist())


def check_one_each(task: str, given: Sequence[bytes], asked: Sequence[bytes | None]) -> None:
    """Checks that answers can be told apart: that a task has made one example of each user.

    Args:
      task: its name.
      given: the users' ids, in UTF-8, in order.
      asked: those of the examples, as in `Questions`.

    Raises:
      InputError: if it has not, or gives them in another order.
    """
    if len(given) != len(asked):
        raise InputError(
            f"{task}: makes {len(asked)} examples of {len(given)} users, and nobody knows whose "
            "they are; its steps must keep every user"
        )
    for place, (expected, found) in enumerate(zip(given, asked)):
        if found not in (None, expected):
            raise InputError(
                f"{task}: its example {place} is of the user {found.decode(errors='replace')!r}, "
                f"and not of {expected.decode(errors='replace')!r}; it must keep the users, their "
                "order and their user_id"
            )


def _one_task(config: DatasetConfig) -> seqio.Task:
    task = batches.task_of(config)
    if isinstance(task, seqio.Mixture):
        raise InputError(
            f"{task.name}: a mixture of tasks has no one question; name one of its tasks: --task "
            + ", ".join(sorted(part.name for part in task.tasks))
        )
    return task
