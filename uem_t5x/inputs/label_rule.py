"""The label rule in TensorFlow, for histories that are drawn anew in each epoch."""

import tensorflow as tf

from uem_t5x.tastes.labels import DISLIKED_BELOW_STARS, LIKED_ABOVE_STARS, MAX_LABELS, MIN_COUNT
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR


def label_history(
    items: tf.Tensor, half_stars: tf.Tensor, genre_matrix: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the label rule in TensorFlow, as `labels.label_genres` does in NumPy.

    Args:
        items: [history] rows of `genre_matrix`.
        half_stars: [history] int32 ratings, 1..10.
        genre_matrix: [rows, genres] uint8, 1 where a movie has a genre.

    Returns:
        The liked genres, best first, and the disliked ones, worst first: [at most 3] int32 indices
        of genres each.
    """
    occurs = tf.cast(tf.gather(genre_matrix, items), tf.int32)
    # float64 for the reason that `label_genres` gives: its quotients order like the fractions.
    counts = tf.cast(tf.reduce_sum(occurs, axis=0), tf.float64)
    sums = tf.cast(tf.reduce_sum(occurs * half_stars[:, tf.newaxis], axis=0), tf.float64)
    means = sums / tf.maximum(counts, 1)
    enough = counts >= MIN_COUNT
    liked = enough & (sums > HALF_STARS_PER_STAR * LIKED_ABOVE_STARS * counts)
    disliked = enough & (sums < HALF_STARS_PER_STAR * DISLIKED_BELOW_STARS * counts)
    by_count = tf.argsort(-counts, stable=True)

    def first(eligible: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        # A stable sort of what is sorted by count: ties of rank stay in that order.
        order = tf.gather(by_count, tf.argsort(tf.gather(rank, by_count), stable=True))
        return tf.boolean_mask(order, tf.gather(eligible, order))[:MAX_LABELS]

    return first(liked, -means), first(disliked, means)
