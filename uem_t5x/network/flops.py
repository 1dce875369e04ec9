"""FLOPs of the model counted by hand, to hold a compiler's count against.

Matrix products only, two FLOPs for a multiplication and an addition; padding counts, as it is
computed too. A product's gradient is two products, one for each factor, where both are asked for: a
parameter that is frozen has none, nor has what no trained parameter has touched.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from uem_t5x.network.config import FULL, T5Config


class Passes(NamedTuple):
    """How often a network's products are computed: forward, and for gradients.

    Attributes:
      weights: of activations with a parameter.
      activations: of activations with each other.
    """

    weights: int
    activations: int


FORWARD = Passes(1, 1)
TRAINED = Passes(3, 3)
FROZEN = Passes(2, 3)  # it hands on the gradients of its input


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


def _low_rank(config: T5Config, positions: int, *path: str) -> int:
    """What LoRA adds to a linear map, if it is a target."""
    if config.lora is None or not config.lora.is_for(path):
        return 0
    widths = {"logits_dense": config.emb_dim + config.vocab_size}
    widths |= dict.fromkeys(("wi", "wi_0", "wi_1", "wo"), config.emb_dim + config.mlp_dim)
    width = widths.get(path[-1], config.emb_dim + _joined_heads(config))
    return 2 * positions * config.lora.rank * width


def _low_rank_attention(config: T5Config, name: str, queries: int, keys: int) -> int:
    return sum(
        _low_rank(config, keys if projection in ("key", "value") else queries, name, projection)
        for projection in ("query", "key", "value", "out")
    )


def _low_rank_mlp(config: T5Config, positions: int) -> int:
    count = len(config.mlp_activations)
    names = ["wi"] if count == 1 else [f"wi_{index}" for index in range(count)]
    return sum(_low_rank(config, positions, "mlp", name) for name in (*names, "wo"))


def _encoder_layer(config: T5Config, length: int, passes: Passes) -> int:
    projections = _projections(config, length, 4)
    summaries = 0
    if config.encoder_attention == FULL:
        attention = _attention(config, length, length)
    else:
        blocks = config.blocks(length)
        summaries = blocks.summaries
        seen = 3 * blocks.block + summaries
        projections += _projections(config, summaries, 2)
        attention = _attention(config, blocks.chunks * blocks.chunk, seen)
    weights = projections + _feed_forward(config, length)
    weights += _low_rank_attention(config, "attention", length, length + summaries)
    weights += _low_rank_mlp(config, length)
    return passes.weights * weights + passes.activations * attention


def encoder_flops(config: T5Config, length: int, passes: Passes = FORWARD) -> int:
    """Counts an encoder's FLOPs for one sequence.

    Args:
      config: the network's sizes.
      length: positions, the soft prompt's among them.
      passes: which are counted.
    """
    return config.num_encoder_layers * _encoder_layer(config, length, passes)


def decoder_flops(config: T5Config, targets: int, source: int, passes: Passes = FORWARD) -> int:
    """Counts the FLOPs of a decoder and its logits for one sequence.

    Args:
      config: the network's sizes.
      targets: positions of the answer.
      source: positions of the encoder's output.
      passes: which are counted.
    """
    own, seen = _projections(config, targets, 1), _projections(config, source, 2)
    attention = _attention(config, targets, targets)
    cross_attention = _attention(config, targets, source)
    layer = passes.weights * (4 * own + 2 * own + seen + _feed_forward(config, targets))
    layer += passes.activations * (attention + cross_attention)
    layer += passes.weights * (
        _low_rank_attention(config, "self_attention", targets, targets)
        + _low_rank_attention(config, "encoder_decoder_attention", targets, source)
        + _low_rank_mlp(config, targets)
    )
    logits = 2 * targets * config.emb_dim * config.vocab_size
    logits = passes.weights * (logits + _low_rank(config, targets, "decoder", "logits_dense"))
    flops = config.num_decoder_layers * layer + logits
    if passes == FROZEN and config.num_decoder_layers:
        # Until the first layer looks at the encoder's output, it reads frozen embeddings alone: all
        # of its self-attention and the query have no gradients, nor have the logits for the query.
        flops -= (FROZEN.weights - 1) * 5 * own
        flops -= (FROZEN.activations - 1) * attention + cross_attention // 2
    return flops


def forward_flops(module: Any, feature_lengths: Mapping[str, int], batch_size: int) -> int:
    """Counts the FLOPs of the logits of a batch.

    Also those of writing answers of full length with a key-value cache: there each token's
    self-attention reads the whole cache, filled or not.

    Args:
      module: a `network.Transformer`.
      feature_lengths: of the model's features, such as `encoder_input_tokens`.
      batch_size: examples.
    """
    return _flops(module, feature_lengths, batch_size, FORWARD, FORWARD)


def training_flops(
    module: Any,
    feature_lengths: Mapping[str, int],
    batch_size: int,
    trains_language_model: bool = True,
) -> int:
    """Counts the FLOPs of a training step but for the optimizer's; see `forward_flops`.

    With LoRA, which trains parts of what is frozen, `products` of the loss's gradient counts them.
    """
    language_model = TRAINED
    if not trains_language_model:  # without a soft prompt nothing is left to train
        language_model = FORWARD if module.soft_prompt is None else FROZEN
    return _flops(module, feature_lengths, batch_size, TRAINED, language_model)


def _flops(
    module: Any,
    feature_lengths: Mapping[str, int],
    batch_size: int,
    soft_prompt: Passes,
    language_model: Passes,
) -> int:
    source, flops = feature_lengths["encoder_input_tokens"], 0
    if module.soft_prompt is not None:
        made_of = feature_lengths, module.config.emb_dim
        source += module.soft_prompt.length(*made_of)
        flops = soft_prompt.weights * module.soft_prompt.flops(*made_of)
    flops += encoder_flops(module.config, source, language_model)
    targets = feature_lengths["decoder_target_tokens"]
    flops += decoder_flops(module.config, targets, source, language_model)
    return batch_size * flops


def products(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the FLOPs of a function's matrix products as JAX traces it.

    Loops of a known number of rounds (`scan`) count in full, others once; of branches, all do.

    Args:
      function: what JAX can trace.
      *arguments: its arguments, or their shapes.
    """
    return _of_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_program(program: Any) -> int:
    total = 0
    for step in program.eqns:
        if step.primitive.name == "dot_general":
            (contracted, _), _ = step.params["dimension_numbers"]
            shape, made = step.invars[0].aval.shape, step.outvars[0].aval.shape
            total += 2 * math.prod(made) * math.prod(shape[axis] for axis in contracted)
        rounds = step.params["length"] if step.primitive.name == "scan" else 1
        total += rounds * sum(map(_of_program, _programs_within(step.params)))
    return total


def _programs_within(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part
