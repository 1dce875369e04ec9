"""From task features to model features, for histories as embeddings and as text."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError

FeatureSpecs = Mapping[str, seqio.FeatureConverter.FeatureSpec]

HISTORY_FEATURES: FeatureSpecs = {
    "history_items": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    "history_ratings": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
}


class TextFeatureConverter(seqio.EncDecFeatureConverter):
    """An encoder-decoder's tokens, one example a sequence.

    Of SeqIO's features it leaves out what the model makes of the targets by itself: the decoder's
    inputs and the weights of the loss, two thirds of what an answer would take to the devices.
    """

    MODEL_FEATURES: ClassVar[FeatureSpecs] = {
        name: seqio.EncDecFeatureConverter.MODEL_FEATURES[name]
        for name in ("encoder_input_tokens", "decoder_target_tokens")
    }

    def __init__(self, pack: bool = False, **kwargs: Any) -> None:
        """Takes the arguments of `seqio.FeatureConverter`.

        Raises:
            InputError: `pack` is set. The soft prompt of a history stands before all tokens of its
                sequence, so two users cannot share one.
        """
        if pack:
            raise InputError(
                "pack = True: users cannot be packed into one sequence, as each may have a soft "
                "prompt of its own; pass pack=False, or bind T5X's utils.DatasetConfig.pack to it"
            )
        super().__init__(pack=pack, **kwargs)

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        return _select(super()._convert_example(features), self._text_features())

    def get_model_feature_lengths(
        self, task_feature_lengths: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Returns the length of each model feature."""
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return _select(lengths, self._text_features())

    def _text_features(self) -> list[str]:
        return [*TextFeatureConverter.MODEL_FEATURES, *self._passthrough_features]


class UserEmbeddingFeatureConverter(TextFeatureConverter):
    """Its features, and the history as ids, padded with 0 to its task length.

    The history stays ids until the model looks them up on the device: a batch of 128 users of 100
    items is 100 KB so, and 118 MB as vectors.
    """

    TASK_FEATURES: ClassVar[FeatureSpecs] = {
        **TextFeatureConverter.TASK_FEATURES,
        **HISTORY_FEATURES,
    }
    MODEL_FEATURES: ClassVar[FeatureSpecs] = {
        **TextFeatureConverter.MODEL_FEATURES,
        **HISTORY_FEATURES,
    }

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        history = _select(features, HISTORY_FEATURES)
        return {**super()._convert_example(features), **history}

    def get_model_feature_lengths(
        self, task_feature_lengths: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Returns the length of each model feature; those of the history stay as they are."""
        history = _select(task_feature_lengths, HISTORY_FEATURES)
        return {**super().get_model_feature_lengths(task_feature_lengths), **history}


def _select(features: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: features[name] for name in names}
