"""FLOPs of the model counted by hand, to hold a compiler's count against.

Matrix products only, two FLOPs for a multiplication and an addition; padding counts, as it is
computed too. The backward pass costs twice the forward one: a product's gradient is two products.
"""

from collections.abc import Mapping
from typing import Any

from uem_t5x.network import FULL, T5Config

_TRAINING_PASSES = 3  # forward, and for each product the gradients of both factors


def _joined_heads(config: T5Config) -> int:
    return config.num_heads * config.head_dim


def _attention(config: T5Config, queries: int, keys: int) -> int:
    """Logits, and the weighted sum of values."""
    return 2 * 2 * queries * keys * _joined_heads(config)


def _projections(config: T5Config, positions: int, count: int) -> int:
    """So many of the maps to or from query, key, value and output."""
    return count * 2 * positions * config.emb_dim * _joined_heads(config)


def _feed_forward(config: T5Config, positions: int) -> int:
    return (len(config.mlp_activations) + 1) * 2 * positions * config.emb_dim * config.mlp_dim


def _encoder_attention(config: T5Config, length: int) -> int:
    """An encoder layer's self-attention, with its projections."""
    projections = _projections(config, length, 4)
    if config.encoder_attention == FULL:
        return projections + _attention(config, length, length)
    blocks = config.blocks(length)
    seen = 3 * blocks.block + blocks.summaries
    return (
        projections
        + _projections(config, blocks.summaries, 2)
        + _attention(config, blocks.chunks * blocks.chunk, seen)
    )


def encoder_flops(config: T5Config, length: int) -> int:
    """Counts an encoder's FLOPs for one sequence.

    Args:
      config: the network's sizes.
      length: positions, the soft prompt's among them.
    """
    layer = _encoder_attention(config, length) + _feed_forward(config, length)
    return config.num_encoder_layers * layer


def decoder_flops(config: T5Config, targets: int, source: int) -> int:
    """Counts the FLOPs of a decoder and its logits for one sequence.

    Args:
      config: the network's sizes.
      targets: positions of the answer.
      source: positions of the encoder's output.
    """
    self_attention = _projections(config, targets, 4) + _attention(config, targets, targets)
    cross_attention = (
        _projections(config, targets, 2)
        + _projections(config, source, 2)
        + _attention(config, targets, source)
    )
    layer = self_attention + cross_attention + _feed_forward(config, targets)
    logits = 2 * targets * config.emb_dim * config.vocab_size
    return config.num_decoder_layers * layer + logits


def user_embedding_flops(module: Any, history: int) -> int:
    """Counts the UEM's FLOPs for one user of `history` items."""
    width = sum(channel.width for channel in module.channels)
    encoder = module.user_embedding_config.encoder_config(width)
    return encoder_flops(encoder, history) + 2 * history * width * module.config.emb_dim


def forward_flops(module: Any, feature_lengths: Mapping[str, int], batch_size: int) -> int:
    """Counts the FLOPs of the logits of a batch.

    Also those of writing answers of full length with a key-value cache: there each token's
    self-attention reads the whole cache, filled or not.

    Args:
      module: `network.Transformer` or `user_embedding.PersonalizedTransformer`.
      feature_lengths: of the model's features, such as `encoder_input_tokens`.
      batch_size: examples.
    """
    source, flops = feature_lengths["encoder_input_tokens"], 0
    if history := feature_lengths.get("history_items", 0):
        source += module.prompt_length + history
        flops = user_embedding_flops(module, history)
    flops += encoder_flops(module.config, source)
    flops += decoder_flops(module.config, feature_lengths["decoder_target_tokens"], source)
    return batch_size * flops


def training_flops(module: Any, feature_lengths: Mapping[str, int], batch_size: int) -> int:
    """Counts the FLOPs of a training step but for the optimizer's; see `forward_flops`."""
    return _TRAINING_PASSES * forward_flops(module, feature_lengths, batch_size)
