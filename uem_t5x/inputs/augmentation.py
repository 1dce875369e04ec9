"""What the steps share that change training examples: chance, other histories, new labels."""

from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf
from absl import logging

from uem_t5x.base.errors import InputError
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import data_sources, label_rule

Example = Mapping[str, tf.Tensor]


def check_share(step: str, name: str, share: float) -> None:
    """Refuses a share or a probability that is none."""
    if not 0 <= share <= 1:
        raise InputError(f"preprocessors.{step}.{name} = {share}: bind it to 0..1")


def may_relabel(step: str, probability: float, folder: DatasetFolder) -> bool:
    """Returns whether a step is to give histories of other tastes their labels.

    Where questions are asked of one's own, the answer belongs to the history, and no rule knows
    another one: the step leaves all as it is, and says so.
    """
    if probability and folder.telling.has_questions:
        logging.log_first_n(
            logging.WARNING, "%s: left out, as answers to questions have no rule", 1, step
        )
        return False
    return probability > 0


def relabeller() -> Callable[[Example, tf.Tensor, tf.Tensor], Example]:
    """Returns what gives an example another history, and the labels that belong to it.

    The answer to a question of one's own stays as it is.
    """
    folder = data_sources.dataset_folder()
    if folder.telling.has_questions:
        return lambda example, items, half_stars: {
            **example,
            "history_items": items,
            "history_ratings": half_stars,
        }
    genre_matrix = tf.constant(folder.genre_matrix())
    genre_names = tf.constant(folder.genres)
    rule = folder.telling.rule

    def relabel(example: Example, items: tf.Tensor, half_stars: tf.Tensor) -> Example:
        liked, disliked = label_rule.label_history(items, half_stars, genre_matrix, rule)
        return {
            **example,
            "history_items": items,
            "history_ratings": half_stars,
            "liked": tf.gather(genre_names, liked),
            "disliked": tf.gather(genre_names, disliked),
        }

    return relabel


def user_number(example: Example) -> tf.Tensor:
    """Returns a number, int64, that a user has everywhere and for ever."""
    return tf.strings.to_hash_bucket_fast(example["user_id"], 2**31 - 1)


def seed_of_user(example: Example, seed: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Returns a seed of SeqIO's that differs from user to user.

    SeqIO numbers the seeds anew in every part of the data, so the parts' are the same ones.
    """
    return tf.random.experimental.stateless_fold_in(seed, user_number(example))


def change_training_examples(
    dataset: tf.data.Dataset,
    probability: float,
    change: Callable[[Example, tf.Tensor], Example],
) -> tf.data.Dataset:
    """Changes a share of the training examples, each with a seed of its own."""

    @seqio.map_over_dataset(num_seeds=1)
    def maybe_change(example: Example, seed: tuple[tf.Tensor, tf.Tensor]) -> Example:
        seed = seed_of_user(example, seed)
        coin, own_seed = tf.unstack(tf.random.experimental.stateless_split(seed, num=2))
        return tf.cond(
            (example["split"] == "train") & (tf.random.stateless_uniform([], coin) < probability),
            lambda: change(example, own_seed),
            lambda: dict(example),
        )

    return maybe_change(dataset)


def draw_length(
    size: tf.Tensor, min_length: int, max_length: int | None, log_uniform: bool, seed: tf.Tensor
) -> tf.Tensor:
    """Draws how many of `size` items to take."""
    longest = size if max_length is None else tf.minimum(size, max_length)
    # Of an empty history, too: 0 has no logarithm.
    low = tf.cast(tf.maximum(tf.minimum(min_length, longest), 1), tf.float32)
    high = tf.cast(longest + 1, tf.float32)
    share = tf.random.stateless_uniform([], seed)
    drawn = low * (high / low) ** share if log_uniform else low + (high - low) * share
    # Rounding can reach `high` itself, as does an empty history.
    return tf.minimum(tf.cast(drawn, tf.int32), longest)


def consecutive_items(size: tf.Tensor, length: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws which `length` items of `size` to take, one after the other."""
    start = tf.random.stateless_uniform([], seed, maxval=size - length + 1, dtype=tf.int32)
    return tf.range(start, start + length)


def any_items(size: tf.Tensor, length: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws, in order, which `length` items of `size` to take."""
    lottery = tf.random.stateless_uniform([size], seed)
    return tf.sort(tf.math.top_k(lottery, k=length).indices)


def thin_out(size: tf.Tensor, kept: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws, in order, which of `size` items to keep: about a share of them, at least one."""
    lottery = tf.random.stateless_uniform([size], seed)
    return tf.where((lottery < kept) | (lottery == tf.reduce_min(lottery)))[:, 0]
