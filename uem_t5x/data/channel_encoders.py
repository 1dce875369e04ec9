"""The encoders of a folder's channels, as `prepare` is asked for them."""

import numpy as np
import polars as pl
from jaxtyping import Float32

from uem_t5x.base import progress
from uem_t5x.data import dataset_folder
from uem_t5x.data.manifest import Channel, EncoderRecord
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.sources import Source
from uem_t5x.encoders import sentences as sentence_encoders
from uem_t5x.encoders.vector_cache import CachedEncoder
from uem_t5x.tastes import sentences
from uem_t5x.tastes.telling import Telling


class ChannelEncoders:
    """Encodes the sentences of every channel.

    Attributes:
        record: of the encoder of all channels that have none of their own.
    """

    def __init__(self, options: PrepareOptions, source: Source | None) -> None:
        """Loads them.

        Raises:
            InputError: if one cannot be.
        """
        self._by_name: dict[str, CachedEncoder] = {}
        self._default = self._make(options.encoder, options.encoder_width)
        of_channels = {} if source is None else source.encoders
        self._of_channels = {channel: self._make(said) for channel, said in of_channels.items()}
        self.record = _record(self._default)

    def _make(self, said: str, width: int | None = None) -> CachedEncoder:
        if said not in self._by_name:
            name, place = sentence_encoders.split_name(said)
            encoder = sentence_encoders.make_encoder(name, width, place)
            self._by_name[said] = CachedEncoder(encoder, name)
        return self._by_name[said]

    def encode(
        self, movies: pl.DataFrame, telling: Telling, start: progress.Start
    ) -> dict[str, Float32[np.ndarray, "rows width"]]:
        """Encodes the sentences about every item and every rating; row 0 of each is zero."""
        texts = {
            name: telling.rating_sentences(template)
            if sentences.is_of_rating(template)
            else dataset_folder.item_sentences(movies, template)
            for name, template in telling.sentences.items()
        }
        advance = start("encoding sentences", sum(map(len, texts.values())))
        matrices = {}
        for channel, rows in texts.items():
            matrices[channel] = self._of(channel).encode(rows, advance)
            matrices[channel][0] = 0
        return matrices

    def channels(self, telling: Telling) -> tuple[Channel, ...]:
        """Returns what the manifest says of the channels."""
        return tuple(
            Channel(
                name,
                self._of(name).width,
                "rating" if sentences.is_of_rating(template) else "item",
                _record(self._of_channels[name]) if name in self._of_channels else None,
            )
            for name, template in telling.sentences.items()
        )

    def _of(self, channel: str) -> CachedEncoder:
        return self._of_channels.get(channel, self._default)


def _record(encoder: CachedEncoder) -> EncoderRecord:
    return EncoderRecord(encoder.name, encoder.width, encoder.source, encoder.sha256)
