"""How Transformers calls a T5: the fields of its `config.json`, and the tensors of its weights.

PyTorch keeps a kernel as [out, in], T5X as [in, out]; relative position biases are [buckets, heads]
there and [heads, buckets] here. All other parameters lie the same way.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from uem_t5x import network
from uem_t5x.base.errors import InputError
from uem_t5x.network import layers
from uem_t5x.network.attention import RelativePositionBias

ACTIVATIONS = ("gelu", "linear")

# The names of T5's one token embedding: a file holds it under the first, or any, or all.
EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"
# Old files hold a bias of the cross-attention that T5 does not have; Transformers skips it too.
SKIPPED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# How Transformers calls an encoder's attention: in `config.json`, and among a layer's tensors.
_ATTENTION_TYPES = {network.LOCAL: "local", network.TRANSIENT_GLOBAL: "transient-global"}
_ATTENTION_MODULES = {
    network.FULL: "SelfAttention",
    network.LOCAL: "LocalSelfAttention",
    network.TRANSIENT_GLOBAL: "TransientGlobalSelfAttention",
}

# What `layers` and the tasks compute with; another value in `config.json` is another network.
_FIXED = {
    "relative_attention_num_buckets": RelativePositionBias.num_buckets,
    "relative_attention_max_distance": RelativePositionBias.max_distance,
    "layer_norm_epsilon": layers.RMSNorm.epsilon,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where Transformers keeps a parameter: a tensor's name, and which way round it lies."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False


def network_config(
    fields: Mapping[str, Any], path: epath.Path, of_encoder: bool = False
) -> network.T5Config:
    """Checks that `config.json` is a T5 1.1's, and returns its sizes.

    Where only its encoder is wanted, it may be a T5 1.0's: they differ in the feed-forward block.
    """
    model_type = fields["model_type"]
    if model_type not in ("t5", "mt5", "longt5"):
        raise InputError(
            f"{path}: model_type {model_type!r} is not T5's; use T5 1.1, Flan-T5, mT5 or LongT5 "
            "(model_type 't5', 'mt5' or 'longt5')"
        )
    # As in Transformers, a T5 that does not name its feed-forward block has T5 1.0's.
    projection = fields.get("feed_forward_proj", "gated-gelu" if model_type == "mt5" else "relu")
    is_plain = of_encoder and projection == "relu"
    if projection != "gated-gelu" and not is_plain:
        was = "T5 1.0 (feed_forward_proj 'relu')" if projection == "relu" else repr(projection)
        raise InputError(
            f"{path}: {was}: T5 1.1's feed-forward block is 'gated-gelu'; use T5 1.1, its "
            "LM-adapted form, Flan-T5 or LongT5"
        )
    for key, expected in _FIXED.items():
        if fields.get(key) not in (None, expected):
            raise InputError(
                f"{path}: {key} {fields[key]!r} is not {expected!r}, which T5 1.1 has; use another "
                "checkpoint"
            )

    def size(key: str) -> int:
        value = fields.get(key)
        if type(value) is not int or value < 1:
            problem = f"{key} {value!r} is no size" if key in fields else f"lacks {key!r}"
            raise InputError(f"{path}: {problem}; download it again")
        return value

    encoder_layers = size("num_layers")
    has_decoder_layers = fields.get("num_decoder_layers") is not None
    return network.T5Config(
        vocab_size=size("vocab_size"),
        emb_dim=size("d_model"),
        num_heads=size("num_heads"),
        head_dim=size("d_kv"),
        mlp_dim=size("d_ff"),
        num_encoder_layers=encoder_layers,
        num_decoder_layers=size("num_decoder_layers") if has_decoder_layers else encoder_layers,
        mlp_activations=("relu",) if is_plain else ACTIVATIONS,
        logits_via_embedding=_scales_outputs(fields),
        **(_long_attention(fields, path) if model_type == "longt5" else {}),
    )


def _long_attention(fields: Mapping[str, Any], path: epath.Path) -> dict[str, Any]:
    """Returns what a LongT5's `config.json` says of its encoder's attention."""
    # Transformers' own default is local attention.
    wanted = fields.get("encoder_attention_type", _ATTENTION_TYPES[network.LOCAL])
    kinds = {name: kind for kind, name in _ATTENTION_TYPES.items()}
    if wanted not in kinds:
        raise InputError(
            f"{path}: encoder_attention_type {wanted!r} is none of LongT5's "
            f"({', '.join(map(repr, kinds))}); download it again"
        )
    sizes = {}
    for name in ("local_radius", "global_block_size"):
        sizes[name] = fields.get(name, getattr(network.T5Config, name))
        if type(sizes[name]) is not int or sizes[name] < 1:
            raise InputError(f"{path}: {name} {sizes[name]!r} is no size; download it again")
    return {"encoder_attention": kinds[wanted], **sizes}


def _scales_outputs(fields: Mapping[str, Any]) -> bool:
    """Whether the embedding is the output layer, with the decoder's outputs divided by sqrt(e).

    Transformers 5 says so by `scale_decoder_outputs`, earlier ones by `tie_word_embeddings`. Its
    mT5 never scales.
    """
    if fields["model_type"] == "mt5":
        return False
    return bool(fields.get("scale_decoder_outputs", fields.get("tie_word_embeddings") is not False))


def config_fields(config: network.T5Config) -> dict[str, Any]:
    """Returns the fields of `config.json` for a network."""
    model = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    if config.encoder_attention != network.FULL:
        model = {
            "architectures": ["LongT5ForConditionalGeneration"],
            "model_type": "longt5",
            "encoder_attention_type": _ATTENTION_TYPES[config.encoder_attention],
            "local_radius": config.local_radius,
            "global_block_size": config.global_block_size,
        }
    return {
        **model,
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": config.dropout_rate,
        "tie_word_embeddings": config.logits_via_embedding,
        "eos_token_id": 1,
        "dtype": "float32",
        **_FIXED,
    }


def places(
    config: network.T5Config, embedding: str = EMBEDDING[0], output: str = OUTPUT
) -> dict[str, Place]:
    """Returns where each parameter lies, by its T5X name.

    Args:
      config: the network's sizes.
      embedding: the tensor that is the token embedding.
      output: the tensor that is the output layer, where the network has one.
    """
    embed, mlp_dim, heads = config.emb_dim, config.mlp_dim, config.num_heads
    joined = heads * config.head_dim
    buckets = RelativePositionBias.num_buckets
    places = {"token_embedder/embedding": Place(embedding, (config.vocab_size, embed))}

    def kernel(ours: str, theirs: str, inputs: int, outputs: int) -> None:
        places[f"{ours}/kernel"] = Place(f"{theirs}.weight", (inputs, outputs), transposed=True)

    def norm(ours: str, theirs: str) -> None:
        places[f"{ours}/scale"] = Place(f"{theirs}.weight", (embed,))

    def attention(ours: str, theirs: str) -> None:
        kernel(f"{ours}/query", f"{theirs}.q", embed, joined)
        kernel(f"{ours}/key", f"{theirs}.k", embed, joined)
        kernel(f"{ours}/value", f"{theirs}.v", embed, joined)
        kernel(f"{ours}/out", f"{theirs}.o", joined, embed)

    def mlp(ours: str, theirs: str) -> None:
        is_plain = len(config.mlp_activations) == 1
        for name in ("wi",) if is_plain else ("wi_0", "wi_1"):
            kernel(f"{ours}/{name}", f"{theirs}.{name}", embed, mlp_dim)
        kernel(f"{ours}/wo", f"{theirs}.wo", mlp_dim, embed)

    encoder_attention = _ATTENTION_MODULES[config.encoder_attention]
    has_summaries = config.encoder_attention == network.TRANSIENT_GLOBAL
    for index in range(config.num_encoder_layers):
        ours, theirs = f"encoder/layers_{index}", f"encoder.block.{index}.layer"
        norm(f"{ours}/pre_attention_layer_norm", f"{theirs}.0.layer_norm")
        attention(f"{ours}/attention", f"{theirs}.0.{encoder_attention}")
        if has_summaries:
            summary_norm = f"{theirs}.0.{encoder_attention}.global_input_layer_norm"
            norm(f"{ours}/attention/T5LayerNorm_0", summary_norm)
        norm(f"{ours}/pre_mlp_layer_norm", f"{theirs}.1.layer_norm")
        mlp(f"{ours}/mlp", f"{theirs}.1.DenseReluDense")
    for index in range(config.num_decoder_layers):
        ours, theirs = f"decoder/layers_{index}", f"decoder.block.{index}.layer"
        norm(f"{ours}/pre_self_attention_layer_norm", f"{theirs}.0.layer_norm")
        attention(f"{ours}/self_attention", f"{theirs}.0.SelfAttention")
        norm(f"{ours}/pre_cross_attention_layer_norm", f"{theirs}.1.layer_norm")
        attention(f"{ours}/encoder_decoder_attention", f"{theirs}.1.EncDecAttention")
        norm(f"{ours}/pre_mlp_layer_norm", f"{theirs}.2.layer_norm")
        mlp(f"{ours}/mlp", f"{theirs}.2.DenseReluDense")

    def relative_bias(ours: str, theirs: str) -> None:
        places[f"{ours}/rel_embedding"] = Place(f"{theirs}.weight", (heads, buckets), True)

    for stack, module in (("encoder", encoder_attention), ("decoder", "SelfAttention")):
        norm(f"{stack}/{stack}_norm", f"{stack}.final_layer_norm")
        # One bias a stack; Transformers keeps it in the first layer.
        first = f"{stack}.block.0.layer.0.{module}"
        relative_bias(f"{stack}/relpos_bias", f"{first}.relative_attention_bias")
    if has_summaries:
        first = f"encoder.block.0.layer.0.{encoder_attention}"
        relative_bias("encoder/side_relpos_bias", f"{first}.global_relative_attention_bias")
    if not config.logits_via_embedding:
        places["decoder/logits_dense/kernel"] = Place(output, (embed, config.vocab_size), True)
    return places
