"""The sizes that models are compared at, and made-up batches for them."""

import argparse
import dataclasses

import numpy as np

from uem_t5x.network.item_table import Channel
from uem_t5x.network.types import Batch

HEAD_DIM = 64
_RATINGS = 11  # half-stars 1 to 10, and padding


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A UEM, a T5 1.1 and what they read and write; the heads of both are 64 wide.

    Attributes:
        vocabulary: rows of the token embedding.
        width: of the T5.
        heads: of the T5's attention.
        mlp: width of the T5's gated feed-forward block.
        layers: of the T5's encoder, and of its decoder.
        channel: width of each of an item's three vectors.
        movies: rows of the item table but padding.
        uem_layers: the UEM's depth.
        uem_heads: of the UEM's attention.
        uem_mlp: width of the UEM's gated feed-forward block.
        history: items of a user.
        prompts: task prompts.
        instruction: tokens that the encoder reads besides.
        targets: tokens of an answer.
    """

    vocabulary: int = 2048
    width: int = 256
    heads: int = 4
    mlp: int = 1024
    layers: int = 4
    channel: int = 256
    movies: int = 5000
    uem_layers: int = 3
    uem_heads: int = 12
    uem_mlp: int = 2048
    history: int = 50
    prompts: int = 20
    instruction: int = 16
    targets: int = 24

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the item table, as in a dataset folder."""
        rows = {"item": self.movies + 1, "rating": _RATINGS}
        kinds = {"title_genres": "item", "rating": "rating", "description": "item"}
        return tuple(Channel(name, rows[kind], self.channel, kind) for name, kind in kinds.items())

    @property
    def item_width(self) -> int:
        """The width of an item's vectors together, at which the UEM runs."""
        return len(self.channels) * self.channel

    @property
    def encoder_length(self) -> int:
        """Positions that the T5's encoder reads."""
        return self.prompts + self.history + self.instruction


SIZES = {
    "tiny": Sizes(
        vocabulary=512,
        width=64,
        heads=1,
        mlp=128,
        layers=1,
        channel=64,
        movies=500,
        uem_layers=1,
        uem_heads=3,
        uem_mlp=128,
    ),
    "small": Sizes(),
    "base": Sizes(
        vocabulary=32128, width=768, heads=12, mlp=2048, layers=12, channel=768, movies=8200
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--size`."""
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="tiny: to see that it runs; small: 30M parameters, for a CPU (default); base: Flan-T5 "
        "base under the paper's UEM, for a GPU",
    )


def item_table(sizes: Sizes) -> dict[str, np.ndarray]:
    """Draws the vectors of each channel, of unit length; row 0 is padding."""
    rng = np.random.default_rng(0)
    table = {}
    for channel in sizes.channels:
        vectors = rng.standard_normal((channel.rows, channel.width), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[0] = 0
        table[channel.name] = vectors
    return table


def draw_batch(sizes: Sizes, batch_size: int) -> Batch:
    """Draws users whose histories, instructions and answers have full length."""
    rng = np.random.default_rng(1)

    def draw(low: int, high: int, length: int) -> np.ndarray:
        return rng.integers(low, high, (batch_size, length), np.int32)

    # Token 0 pads, 1 ends a sequence.
    targets = draw(2, sizes.vocabulary, sizes.targets)
    return {
        "encoder_input_tokens": draw(2, sizes.vocabulary, sizes.instruction),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
        "history_items": draw(1, sizes.movies + 1, sizes.history),
        "history_ratings": draw(1, _RATINGS, sizes.history),
    }
