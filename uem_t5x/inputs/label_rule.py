"""The label rule in TensorFlow, for histories that are drawn anew in each epoch."""

import tensorflow as tf

from uem_t5x.tastes.labels import PAPER, LabelRule
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR


def label_history(
    items: tf.Tensor, half_stars: tf.Tensor, genre_matrix: tf.Tensor, rule: LabelRule = PAPER
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the label rule in TensorFlow, as `labels.label_genres` does in NumPy.

    Args:
        items: [history] rows of `genre_matrix`.
        half_stars: [history] int32 ratings, 1..10.
        genre_matrix: [rows, genres] uint8, 1 where a movie has a genre.
        rule: the numbers of the rule.

    Returns:
        The liked genres, best first, and the disliked ones, worst first: [at most `rule.most`]
        int32 indices of genres each.
    """
    occurs = tf.cast(tf.gather(genre_matrix, items), tf.int32)
    # float64 for the reason that `label_genres` gives: its quotients order like the fractions.
    counts = tf.cast(tf.reduce_sum(occurs, axis=0), tf.float64)
    sums = tf.cast(tf.reduce_sum(occurs * half_stars[:, tf.newaxis], axis=0), tf.float64)
    means = sums / tf.maximum(counts, 1)
    enough = counts >= rule.min_count
    liked = enough & (sums > HALF_STARS_PER_STAR * rule.liked_above * counts)
    disliked = enough & (sums < HALF_STARS_PER_STAR * rule.disliked_below * counts)
    by_count = tf.argsort(-counts, stable=True)

    def first(eligible: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        # A stable sort of what is sorted by count: ties of rank stay in that order.
        order = tf.gather(by_count, tf.argsort(tf.gather(rank, by_count), stable=True))
        return tf.boolean_mask(order, tf.gather(eligible, order))[: rule.most]

    return first(liked, -means), first(disliked, means)
