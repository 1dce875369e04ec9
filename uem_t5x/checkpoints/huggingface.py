"""Transformers' folders of T5 1.1, Flan-T5, mT5 and LongT5: read tensor by tensor, and written.

    config.json                           sizes, and what Transformers computes with them
    model.safetensors                     the parameters, or
    model-0000i-of-0000n.safetensors      shards of them, beside
    model.safetensors.index.json          which tensor lies in which shard

PyTorch keeps a kernel as [out, in], T5X as [in, out]; relative position biases are [buckets, heads]
there and [heads, buckets] here. All other parameters lie the same way.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

# Once imported, NumPy knows bfloat16 by name, by which safetensors asks for it.
import ml_dtypes  # noqa: F401
import numpy as np
from etils import epath
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from uem_t5x import network
from uem_t5x.base import buckets, file_kinds
from uem_t5x.base.errors import InputError
from uem_t5x.network import attention, layers
from uem_t5x.network.types import Index, PyTree, StoredTensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = 5 * 10**9

_PICKLED_WEIGHTS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt")
# What Transformers 4 converts, and by which argument.
_FOREIGN_WEIGHTS = {"flax_model.msgpack": "from_flax", "tf_model.h5": "from_tf"}
_DTYPES = ("F32", "F16", "BF16")
_ACTIVATIONS = ("gelu", "linear")

# The names of T5's one token embedding: a file holds it under the first, or any, or all.
_EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_OUTPUT = "lm_head.weight"
# Old files hold a bias of the cross-attention that T5 does not have; Transformers skips it too.
_SKIPPED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# How Transformers calls an encoder's attention: in `config.json`, and among a layer's tensors.
_ATTENTION_TYPES = {network.LOCAL: "local", network.TRANSIENT_GLOBAL: "transient-global"}
_ATTENTION_MODULES = {
    network.FULL: "SelfAttention",
    network.LOCAL: "LocalSelfAttention",
    network.TRANSIENT_GLOBAL: "TransientGlobalSelfAttention",
}

# What `layers` and the tasks compute with; another value in `config.json` is another network.
_FIXED = {
    "relative_attention_num_buckets": attention.RelativePositionBias.num_buckets,
    "relative_attention_max_distance": attention.RelativePositionBias.max_distance,
    "layer_norm_epsilon": layers.RMSNorm.epsilon,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}

_ROWS_COMPARED = 4096
_PROBLEMS_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where Transformers keeps a parameter: a tensor's name, and which way round it lies."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a safetensors file says about a tensor."""

    file: epath.Path
    shape: tuple[int, ...]
    dtype: str


def is_huggingface(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder is one of Transformers', with weights of whatever kind."""
    names = (CONFIG, WEIGHTS, WEIGHTS_INDEX, "pytorch_model.bin", *_FOREIGN_WEIGHTS)
    return any((epath.Path(folder) / name).is_file() for name in names)


def open_checkpoint(
    folder: str | os.PathLike[str],
) -> tuple[network.T5Config, dict[str, StoredTensor]]:
    """Opens a T5 1.1 or LongT5 checkpoint, and checks by names and shapes that it is whole.

    Args:
      folder: what `save_pretrained` wrote, or a downloaded copy; on a local disk.

    Returns:
      The network's sizes (dropout is left at 0), and its parameters by T5X's "/"-joined names,
      unread. They may be stored as float16, bfloat16 or float32.

    Raises:
      InputError: if it is of another network, holds no safetensors, or is damaged.
    """
    if buckets.is_remote(folder):
        raise InputError(
            f"{folder}: Transformers' checkpoints are read from a local disk; copy the folder to "
            "this machine"
        )
    folder = epath.Path(folder)
    path = folder / CONFIG
    fields = _read_config(path)
    config = _network_config(fields, path)
    weights = _find_weights(folder)
    headers = _read_headers(weights)

    embedding = next((name for name in _EMBEDDING if name in headers), _EMBEDDING[0])
    # Transformers 5 writes every T5 as tied, and gives it an output layer of its own where the
    # file holds one. An untied T5 without one is a part of a checkpoint.
    tied = fields.get("tie_word_embeddings") is not False
    if fields["model_type"] == "mt5" and tied and _OUTPUT not in headers:
        raise InputError(
            f"{path}: an mT5 without an output layer of its own ({_OUTPUT}), whose outputs "
            "Transformers 4 scales and Transformers 5 does not; say which by model_type 't5' and "
            "scale_decoder_outputs true or false"
        )
    output = embedding if tied and _OUTPUT not in headers else _OUTPUT
    places = _places(config, embedding, output)
    used = {place.name for place in places.values()}
    copies = [
        dataclasses.replace(places["token_embedder/embedding"], name=name)
        for name in (*_EMBEDDING, _OUTPUT)
        if name in headers and name not in used
    ]
    _check_tensors([*places.values(), *copies], headers, weights)

    def stored(place: _Place) -> StoredTensor:
        return StoredTensor(place.shape, functools.partial(_read, place, headers[place.name].file))

    tensors = {name: stored(place) for name, place in places.items()}
    for copy in copies:
        if not _same_values(tensors["token_embedder/embedding"], stored(copy)):
            mend = (
                "set tie_word_embeddings and scale_decoder_outputs to false there if the output "
                "layer is separate"
                if copy.name == _OUTPUT
                else "download both again"
            )
            raise InputError(
                f"{headers[copy.name].file}: {copy.name} is not {embedding}, of which {path} makes "
                f"it a copy; {mend}"
            )
    return config, tensors


def write_language_model(
    folder: str | os.PathLike[str],
    config: network.T5Config,
    params: PyTree,
    max_shard_size: int = MAX_SHARD_SIZE,
    sentencepiece_model: str | os.PathLike[str] | None = None,
    extra_ids: int = 0,
    max_new_tokens: int | None = None,
) -> None:
    """Writes a folder that `transformers.AutoModelForSeq2SeqLM.from_pretrained` loads.

    Args:
      folder: where to write; it is created.
      config: the network's sizes.
      params: the network's parameters, as nested dictionaries; written as float32.
      max_shard_size: bytes; larger models are split into files of no more, one of which is in
        memory at a time. A tensor is never split.
      sentencepiece_model: the vocabulary's file, copied so that `T5Tokenizer` loads as well.
      extra_ids: sentinel tokens that the vocabulary has behind the pieces of that file.
      max_new_tokens: the longest answer that `generate` writes; Transformers' default is 20.

    Raises:
      InputError: if the network is neither a T5 1.1 nor a LongT5, or the parameters are not its own
        to the last one.
    """
    if tuple(config.mlp_activations) != _ACTIVATIONS:
        raise InputError(
            f"network.T5Config.mlp_activations = {tuple(config.mlp_activations)}: Transformers' T5 "
            f"1.1 has {_ACTIVATIONS}; models with others cannot be exported"
        )
    if problems := parameter_problems(config, params):
        raise InputError(
            f"{len(problems)} parameters of the language model are not a T5's, and Transformers "
            f"would compute something else: {shown(problems)}; merge what was added to it into "
            "T5's own parameters, and export that"
        )
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, _config_fields(config))
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    if max_new_tokens is not None:
        generation["max_new_tokens"] = max_new_tokens
    _write_json(folder / "generation_config.json", generation)
    _write_weights(folder, config, params, max_shard_size)
    if sentencepiece_model is not None:
        epath.Path(sentencepiece_model).copy(folder / "spiece.model", overwrite=True)
        # By default T5Tokenizer adds 100 sentinels to whatever the file holds.
        _write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "T5Tokenizer", "extra_ids": extra_ids},
        )


def parameter_problems(config: network.T5Config, params: PyTree) -> list[str]:
    """Says what is missing, unexpected or of another shape among a network's parameters.

    Args:
      config: the network's sizes.
      params: its parameters, or those of its encoder alone, as nested dictionaries.
    """
    found = traverse_util.flatten_dict(params, sep="/")
    expected = {
        name: place.shape for name, place in _places(config).items() if name.split("/")[0] in params
    }
    problems = [f"{name} is unexpected" for name in found if name not in expected]
    problems += [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, and not {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    return problems


def shown(problems: list[str]) -> str:
    """Returns the first few of a list of problems, for a message."""
    return "; ".join(problems[:_PROBLEMS_SHOWN]) + "; ..." * (len(problems) > _PROBLEMS_SHOWN)


def _read_config(path: epath.Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: missing; copy it from where the checkpoint comes from")
    fields = _read_json(path)
    if "model_type" not in fields:
        raise InputError(f"{path}: lacks 'model_type'; give the folder of a T5 1.1 or Flan-T5")
    return fields


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        found = file_kinds.hint(path) if path.is_file() else type(error).__name__
        raise InputError(f"{path}: not JSON: {found}; download it again") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: not a JSON object; download it again")
    return fields


def _network_config(fields: Mapping[str, Any], path: epath.Path) -> network.T5Config:
    """Checks that `config.json` is a T5 1.1's, and returns its sizes."""
    model_type = fields["model_type"]
    if model_type not in ("t5", "mt5", "longt5"):
        raise InputError(
            f"{path}: model_type {model_type!r} is not T5's; use T5 1.1, Flan-T5, mT5 or LongT5 "
            "(model_type 't5', 'mt5' or 'longt5')"
        )
    # As in Transformers, a T5 that does not name its feed-forward block has T5 1.0's.
    projection = fields.get("feed_forward_proj", "gated-gelu" if model_type == "mt5" else "relu")
    if projection != "gated-gelu":
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
        mlp_activations=_ACTIVATIONS,
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


def _config_fields(config: network.T5Config) -> dict[str, Any]:
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


def _places(
    config: network.T5Config, embedding: str = _EMBEDDING[0], output: str = _OUTPUT
) -> dict[str, _Place]:
    """Returns where each parameter lies, by its T5X name.

    Args:
      config: the network's sizes.
      embedding: the tensor that is the token embedding.
      output: the tensor that is the output layer, where the network has one.
    """
    embed, mlp_dim, heads = config.emb_dim, config.mlp_dim, config.num_heads
    joined = heads * config.head_dim
    buckets = attention.RelativePositionBias.num_buckets
    places = {"token_embedder/embedding": _Place(embedding, (config.vocab_size, embed))}

    def kernel(ours: str, theirs: str, inputs: int, outputs: int) -> None:
        places[f"{ours}/kernel"] = _Place(f"{theirs}.weight", (inputs, outputs), transposed=True)

    def norm(ours: str, theirs: str) -> None:
        places[f"{ours}/scale"] = _Place(f"{theirs}.weight", (embed,))

    def attention(ours: str, theirs: str) -> None:
        kernel(f"{ours}/query", f"{theirs}.q", embed, joined)
        kernel(f"{ours}/key", f"{theirs}.k", embed, joined)
        kernel(f"{ours}/value", f"{theirs}.v", embed, joined)
        kernel(f"{ours}/out", f"{theirs}.o", joined, embed)

    def mlp(ours: str, theirs: str) -> None:
        kernel(f"{ours}/wi_0", f"{theirs}.wi_0", embed, mlp_dim)
        kernel(f"{ours}/wi_1", f"{theirs}.wi_1", embed, mlp_dim)
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
        places[f"{ours}/rel_embedding"] = _Place(f"{theirs}.weight", (heads, buckets), True)

    for stack, module in (("encoder", encoder_attention), ("decoder", "SelfAttention")):
        norm(f"{stack}/{stack}_norm", f"{stack}.final_layer_norm")
        # One bias a stack; Transformers keeps it in the first layer.
        first = f"{stack}.block.0.layer.0.{module}"
        relative_bias(f"{stack}/relpos_bias", f"{first}.relative_attention_bias")
    if has_summaries:
        first = f"encoder.block.0.layer.0.{encoder_attention}"
        relative_bias("encoder/side_relpos_bias", f"{first}.global_relative_attention_bias")
    if not config.logits_via_embedding:
        places["decoder/logits_dense/kernel"] = _Place(output, (embed, config.vocab_size), True)
    return places


def _find_weights(folder: epath.Path) -> epath.Path:
    """Returns the file that holds the weights or names their shards."""
    for name in (WEIGHTS, WEIGHTS_INDEX):
        if (folder / name).is_file():
            return folder / name
    pickled = [path for pattern in _PICKLED_WEIGHTS for path in buckets.named(folder, pattern)]
    if pickled:
        raise InputError(
            f"{pickled[0]}: pickled weights are refused, as unpickling runs code that the file "
            f"brings; download {WEIGHTS} instead, or convert them where PyTorch is installed: "
            "transformers.AutoModelForSeq2SeqLM.from_pretrained(FOLDER)"
            ".save_pretrained(NEW_FOLDER)"
        )
    for name, argument in _FOREIGN_WEIGHTS.items():
        if (folder / name).is_file():
            raise InputError(
                f"{folder / name}: only safetensors are read; download {WEIGHTS} instead, or "
                "convert it with Transformers 4 and PyTorch: transformers.AutoModelForSeq2SeqLM"
                f".from_pretrained(FOLDER, {argument}=True).save_pretrained(NEW_FOLDER)"
            )
    raise InputError(f"{folder / WEIGHTS}: missing; copy it from where the checkpoint comes from")


def _read_headers(weights: epath.Path) -> dict[str, _Header]:
    """Returns what the file, or all shards of an index, say about their tensors."""
    if weights.name == WEIGHTS:
        return _read_header(weights)
    shards = _read_json(weights).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(
            f"{weights}: lacks 'weight_map', a shard for each tensor; download it again"
        )
    headers = {}
    for name in sorted(set(shards.values())):
        # A shard lies beside its index: what else a name says is not followed.
        shard = weights.parent / epath.Path(name).name
        if not shard.is_file():
            raise InputError(
                f"{shard}: missing, but {WEIGHTS_INDEX} names it; copy it from where the "
                "checkpoint comes from"
            )
        # Another shard may hold a tensor of the same name: the index decides.
        headers |= {
            tensor: header
            for tensor, header in _read_header(shard).items()
            if shards.get(tensor, name) == name
        }
    return headers


def _read_header(file: epath.Path) -> dict[str, _Header]:
    try:
        with safe_open(os.fspath(file), framework="numpy") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: _Header(file, tuple(part.get_shape()), part.get_dtype())
                for name, part in parts.items()
            }
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error


def _check_tensors(
    places: Iterable[_Place], headers: Mapping[str, _Header], weights: epath.Path
) -> None:
    """Raises an InputError that lists what is missing, unexpected or of another form."""
    expected = {place.name: place for place in places}
    problems = [f"{name} is missing" for name in expected if name not in headers]
    problems += [
        f"{name} is unexpected" for name in headers if name not in expected and name != _SKIPPED
    ]
    for name in expected.keys() & headers.keys():
        place, header = expected[name], headers[name]
        shape = place.shape[::-1] if place.transposed else place.shape
        if header.shape != shape:
            problems.append(f"{name} has shape {header.shape}, in {CONFIG} {shape}")
        elif header.dtype not in _DTYPES:
            problems.append(f"{name} is stored as {header.dtype}, not as {', '.join(_DTYPES)}")
    if problems:
        shown = "; ".join(sorted(problems)[:_PROBLEMS_SHOWN])
        raise InputError(
            f"{weights}: {len(problems)} tensors are not those of the network that {CONFIG} tells "
            f"of: {shown}{'; ...' if len(problems) > _PROBLEMS_SHOWN else ''}; download both again"
        )


def _read(place: _Place, file: epath.Path, index: Index) -> np.ndarray:
    part = index[::-1] if place.transposed else index
    try:
        with safe_open(os.fspath(file), framework="numpy") as opened:
            values = opened.get_slice(place.name)[part].astype(np.float32)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    return values.T if place.transposed else values


def _same_values(one: StoredTensor, other: StoredTensor) -> bool:
    rows, columns = one.shape
    blocks = [
        (slice(start, min(start + _ROWS_COMPARED, rows)), slice(0, columns))
        for start in range(0, rows, _ROWS_COMPARED)
    ]
    return all(np.array_equal(one.read(block), other.read(block)) for block in blocks)


def _damaged(file: epath.Path, error: Exception) -> InputError:
    message = str(error).partition("\n")[0]
    found = "missing"
    if file.is_file():
        found = f"no safetensors: {file_kinds.hint(file, file_kinds.SAFETENSORS)}"
    return InputError(f"{file}: {found} ({message}); download it again")


def _write_weights(
    folder: epath.Path, config: network.T5Config, params: PyTree, max_shard_size: int
) -> None:
    places = _places(config)
    arrays = traverse_util.flatten_dict(params, sep="/")
    shards = _shards(places, max_shard_size)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in shard:
            place = places[name]
            array = np.asarray(arrays[name], np.float32)
            # safetensors writes memory as it lies, so that a transposed view must be laid out anew.
            tensors[place.name] = np.ascontiguousarray(array.T if place.transposed else array)
            weight_map[place.name] = file
        # Transformers asks for the format that the tensors were saved in.
        save_file(tensors, os.fspath(folder / file), metadata={"format": "pt"})
    if len(shards) > 1:
        total_size = sum(map(_size, places.values()))
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        _write_json(folder / WEIGHTS_INDEX, index)


def _shards(places: Mapping[str, _Place], max_shard_size: int) -> list[list[str]]:
    """Fills one shard after the other, in the order of the parameters."""
    shards, room = [[]], max_shard_size
    for name, place in places.items():
        if _size(place) > room and shards[-1]:
            shards.append([])
            room = max_shard_size
        shards[-1].append(name)
        room -= _size(place)
    return shards


def _size(place: _Place) -> int:
    """Returns the bytes of a tensor in float32."""
    return math.prod(place.shape) * 4


def _write_json(path: epath.Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
