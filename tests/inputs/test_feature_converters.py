import numpy as np
import pytest
import tensorflow as tf

from uem_t5x.base.errors import InputError
from uem_t5x.inputs.feature_converters import TextFeatureConverter, UserEmbeddingFeatureConverter

LENGTHS = {"inputs": 3, "targets": 4, "history_items": 3, "history_ratings": 3}


def convert(lengths=LENGTHS):
    example = {
        "inputs": [7, 1],
        "targets": [5, 6, 1],
        "history_items": [30, 20],
        "history_ratings": [9, 2],
        "user_id": "u1",
    }
    tensors = {
        name: tf.constant(value, tf.int32) if isinstance(value, list) else tf.constant(value)
        for name, value in example.items()
    }
    dataset = tf.data.Dataset.from_tensors(tensors)
    converted = UserEmbeddingFeatureConverter(pack=False)(dataset, lengths)
    return next(converted.as_numpy_iterator())


def test_tokens_and_the_history_travel():
    expected = {
        "encoder_input_tokens": [7, 1, 0],
        "decoder_target_tokens": [5, 6, 1, 0],
        "history_items": [30, 20, 0],
        "history_ratings": [9, 2, 0],
    }

    converted = convert()

    assert converted.keys() == expected.keys()
    for name, value in expected.items():
        assert converted[name].dtype == np.int32
        np.testing.assert_array_equal(converted[name], value)


def test_a_missing_history_length_is_named():
    with pytest.raises(ValueError, match="history_ratings"):
        convert({name: LENGTHS[name] for name in ("inputs", "targets", "history_items")})


@pytest.mark.parametrize("converter", [UserEmbeddingFeatureConverter, TextFeatureConverter])
def test_packing_is_refused_by_name(converter):
    with pytest.raises(InputError, match=r"pass pack=False, .*utils\.DatasetConfig\.pack"):
        converter(pack=True)
