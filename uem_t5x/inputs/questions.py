"""What a model is asked: an example of each user, made by the steps of a task."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError, said_by_tensorflow
from uem_t5x.inputs import data_sources, history_sampling
from uem_t5x.inputs.batches import USER_ID
from uem_t5x.inputs.data_sources import FINGERPRINT

_ITEMS_READ = "items_read"
_HISTORY = ("history_items", "history_ratings")
_READ = {name: f"{name}_read" for name in _HISTORY}
# Of users who are asked about: no step takes them for those of training.
_SPLIT = "asked"
_ALL = 2**31 - 1


class Questions(NamedTuple):
    """Examples of users.

    Attributes:
      features: the model's, each [batch, ...].
      items_read: how many items of each history they tell of, [batch].
      items: which ones, all users' end to end.
      half_stars: their ratings, likewise.
      user_ids: whose they are, in UTF-8; None of each where the task keeps no `user_id`.
    """

    features: dict[str, np.ndarray]
    items_read: np.ndarray
    items: np.ndarray
    half_stars: np.ndarray
    user_ids: list[bytes | None]


class Questioner:
    """Asks about users by a task's own steps, wherever the users come from.

    The steps are traced once, with the dataset folder, vocabulary and settings that are the current
    ones then; asking needs none of them, and may go on in any thread. (A step that calls Python
    anew for every example, by `tf.py_function`, finds none of them then.) Users have no labels when
    they are asked about: `liked` and `disliked` are empty, as is the `answer` to a question.

    Attributes:
      task: its name.
      history_length: the number of items that its steps keep, the paper's p; None if they keep
        all.
      has_questions: whether each user comes with a question.
    """

    def __init__(
        self,
        task: seqio.Task,
        lengths: Mapping[str, int],
        converter_cls: type[seqio.FeatureConverter],
    ) -> None:
        """Traces the steps, which takes half a second; asking takes milliseconds then.

        Args:
          task: whose steps they are.
          lengths: the padded length of every feature of the task.
          converter_cls: the model's.
        """
        self.task = task.name
        self.history_length = _history_length(task, lengths)
        self.has_questions = data_sources.dataset_folder().telling.has_questions

        def ask(
            user_ids: tf.Tensor,
            asked: tf.Tensor,
            items: tf.Tensor,
            half_stars: tf.Tensor,
            offsets: tf.Tensor,
        ) -> Mapping[str, tf.Tensor]:
            def example(user: tf.Tensor) -> dict[str, tf.Tensor]:
                unknown = tf.constant([], tf.string)
                own = {"question": asked[user], "answer": tf.constant("")}
                return {
                    "user_id": user_ids[user],
                    "history_items": items[offsets[user] : offsets[user + 1]],
                    "history_ratings": half_stars[offsets[user] : offsets[user + 1]],
                    **{"liked": unknown, "disliked": unknown, "split": tf.constant(_SPLIT)},
                    FINGERPRINT: tf.constant(""),
                    **(own if self.has_questions else {}),
                }

            def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
                del split, shuffle_files, seed
                return tf.data.Dataset.range(tf.size(user_ids, tf.int64)).map(example)

            over_users = seqio.Task(
                task.name,
                source=seqio.FunctionDataSource(read, splits=[_SPLIT]),
                output_features=task.output_features,
                preprocessors=task.preprocessors,
            )
            return _asked(over_users, lengths, converter_cls)

        ids, names = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.string))
        # The steps are TensorFlow already; AutoGraph warns of what it cannot read.
        trace = tf.function(ask, autograph=False).get_concrete_function
        self._ask, self._problem = None, None
        try:
            self._ask = trace(names, names, ids, ids, ids)
        except (KeyError, TypeError, ValueError) as error:
            # Whoever only exports a model asks nothing.
            self._problem = (
                f"{self.task}: its steps cannot be asked about users: they have user_id, "
                "history_items, history_ratings, empty liked and disliked, split and fingerprint, "
                f"and no more ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
            )

    def __call__(self, users: Sequence[Mapping[str, Any]]) -> Questions:
        """Returns an example of each user.

        Args:
          users: `user_id`, `history_items` and `history_ratings` of each, as in a dataset folder,
            and `question` where it has any.

        Raises:
          InputError: if the task does not make one example of each user, in this order, or its
            steps need what users do not have.
        """
        if self._problem:
            raise InputError(self._problem)
        lengths = [len(user["history_items"]) for user in users]
        items, half_stars = (
            np.fromiter(itertools.chain.from_iterable(user[name] for user in users), np.int32)
            for name in ("history_items", "history_ratings")
        )
        arguments = (
            tf.constant([user["user_id"] for user in users], tf.string),
            tf.constant([user.get("question", "") for user in users], tf.string),
            tf.constant(items),
            tf.constant(half_stars),
            tf.constant(np.cumsum([0, *lengths], dtype=np.int32)),
        )
        try:
            features = self._ask(*arguments)
        except tf.errors.InvalidArgumentError as error:
            # Of no examples, too.
            raise InputError(
                f"{self.task}: its steps fail on {len(users)} users, or do not make one example of "
                f"each ({said_by_tensorflow(error)})"
            ) from error
        asked = _questions({name: array.numpy() for name, array in features.items()})
        check_one_each(self.task, arguments[0].numpy().tolist(), asked.user_ids)
        return asked


def _history_length(task: seqio.Task, lengths: Mapping[str, int]) -> int | None:
    """Returns how many items of a history a task's steps, and the lengths of features, leave."""
    steps = (step for step in task.preprocessors if isinstance(step, functools.partial))
    kept = [
        step.keywords["history_length"]
        for step in steps
        if step.func in history_sampling.SAMPLINGS.values() and "history_length" in step.keywords
    ]
    return min([*kept, *filter(None, [lengths.get("history_items")])], default=None)


def _asked(
    task: seqio.Task, lengths: Mapping[str, int], converter_cls: type[seqio.FeatureConverter]
) -> dict[str, tf.Tensor]:
    """Returns what `_questions` takes apart: one batch, however many a task has made of users."""
    dataset = task.get_dataset(dict(lengths), _SPLIT, shuffle=False, num_epochs=1)

    kept = {}
    if dataset.element_spec.get(USER_ID) == tf.TensorSpec([], tf.string):
        kept[USER_ID] = tf.string

    @seqio.map_over_dataset
    def add_kept(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # SeqIO takes features of one dimension.
        return {**example, **{name: example[name][tf.newaxis] for name in kept}}

    converter = converter_cls(
        pack=False,
        use_custom_packing_ops=False,
        passthrough_features={
            name: seqio.FeatureConverter.FeatureSpec(dtype=dtype) for name, dtype in kept.items()
        },
    )
    features = converter(add_kept(dataset), {**lengths, **dict.fromkeys(kept, 1)})
    # Beside what is padded, which is all that converters hand on, the histories as they were read.
    read = dataset.map(lambda example: {name: example[name] for name in _HISTORY})
    features = features.batch(_ALL).get_single_element()
    histories = read.ragged_batch(_ALL).get_single_element()
    of_history = {_READ[name]: histories[name].flat_values for name in _HISTORY}
    return {**features, **of_history, _ITEMS_READ: histories[_HISTORY[0]].row_lengths()}


def _questions(batch: dict[str, np.ndarray]) -> Questions:
    items_read = batch.pop(_ITEMS_READ)
    items, half_stars = (batch.pop(_READ[name]) for name in _HISTORY)
    user_ids = batch.pop(USER_ID, np.full((len(items_read), 1), None))[:, 0]
    return Questions(batch, items_read, items, half_stars, user_ids.tolist())


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
