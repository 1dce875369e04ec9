"""The label rule in TensorFlow is that of NumPy."""

import numpy as np
import tensorflow as tf

from uem_t5x.inputs import data_sources, label_rule
from uem_t5x.tastes import labels


def test_equals_the_label_rule_on_thousands_of_histories():
    rng = np.random.default_rng(0)
    genre_matrix = rng.integers(0, 2, (40, 7), dtype=np.uint8)
    # Few distinct ratings and short histories: most of these have ties in mean, many in count.
    shape = (3000, 30)
    half_stars = rng.choice([2, 6, 7, 8], shape).astype(np.int32)
    items = rng.integers(1, 40, shape, dtype=np.int32)
    items[np.arange(30) >= rng.integers(1, 31, (3000, 1))] = 0  # padding: of no genre
    genre_matrix[0] = 0
    table = tf.constant(genre_matrix)

    offsets = np.arange(0, items.size + 1, items.shape[1])
    expected = labels.label_genres(
        *labels.genre_statistics(genre_matrix, items.ravel(), half_stars.ravel(), offsets)
    )
    histories = tf.data.Dataset.from_tensor_slices((items, half_stars))
    labelled = histories.map(lambda *history: label_rule.label_history(*history, table))
    padded = labelled.padded_batch(
        len(items), padded_shapes=([labels.PAPER.most],) * 2, padding_values=labels.NO_GENRE
    )

    for got, wanted in zip(next(padded.as_numpy_iterator()), expected):
        np.testing.assert_array_equal(got, wanted)


def test_ties_go_to_the_higher_count_and_then_to_genre_order():
    # Genres 0 and 2 occur three times, genre 1 four times; all have a mean of 4 stars.
    genre_matrix = tf.constant([[0, 0, 0], [1, 1, 1], [0, 1, 0]], tf.uint8)

    liked, disliked = label_rule.label_history(
        tf.constant([1, 1, 1, 2]), tf.constant([8, 8, 8, 8]), genre_matrix
    )

    assert liked.numpy().tolist() == [1, 0, 2]
    assert disliked.numpy().tolist() == []


def test_labels_of_the_folder_come_out_again(current_folder):
    genre_matrix = tf.constant(current_folder.genre_matrix())
    genres = np.array(current_folder.genres, "S")

    for example in data_sources.DatasetFolderSource().get_dataset("train", shuffle=False):
        liked, disliked = label_rule.label_history(
            example["history_items"], example["history_ratings"], genre_matrix
        )
        np.testing.assert_array_equal(genres[liked], example["liked"])
        np.testing.assert_array_equal(genres[disliked], example["disliked"])
