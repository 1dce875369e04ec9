"""Transformers' folders of T5 1.1, Flan-T5, mT5 and LongT5: read tensor by tensor, and written.

    config.json                           sizes, and what Transformers computes with them
    model.safetensors                     the parameters, or
    model-0000i-of-0000n.safetensors      shards of them, beside
    model.safetensors.index.json          which tensor lies in which shard

`huggingface_names` says what parameters and sizes are called there.
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
from uem_t5x.checkpoints import huggingface_names
from uem_t5x.checkpoints.huggingface_names import ACTIVATIONS, EMBEDDING, OUTPUT, SKIPPED, Place
from uem_t5x.network.types import Index, PyTree, StoredTensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = 5 * 10**9

_PICKLED_WEIGHTS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt")
# What Transformers 4 converts, and by which argument.
_FOREIGN_WEIGHTS = {"flax_model.msgpack": "from_flax", "tf_model.h5": "from_tf"}
_DTYPES = ("F32", "F16", "BF16")
_ROWS_COMPARED = 4096
_PROBLEMS_SHOWN = 3


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
    folder = _local(folder)
    path = folder / CONFIG
    fields = _read_config(path)
    config = huggingface_names.network_config(fields, path)
    weights = _find_weights(folder)
    headers = _read_headers(weights)

    embedding = next((name for name in EMBEDDING if name in headers), EMBEDDING[0])
    # Transformers 5 writes every T5 as tied, and gives it an output layer of its own where the
    # file holds one. An untied T5 without one is a part of a checkpoint.
    tied = fields.get("tie_word_embeddings") is not False
    if fields["model_type"] == "mt5" and tied and OUTPUT not in headers:
        raise InputError(
            f"{path}: an mT5 without an output layer of its own ({OUTPUT}), whose outputs "
            "Transformers 4 scales and Transformers 5 does not; say which by model_type 't5' and "
            "scale_decoder_outputs true or false"
        )
    output = embedding if tied and OUTPUT not in headers else OUTPUT
    places = huggingface_names.places(config, embedding, output)
    used = {place.name for place in places.values()}
    copies = [
        dataclasses.replace(places["token_embedder/embedding"], name=name)
        for name in (*EMBEDDING, OUTPUT)
        if name in headers and name not in used
    ]
    _check_tensors([*places.values(), *copies], headers, weights)

    tensors = {name: _stored(place, headers) for name, place in places.items()}
    for copy in copies:
        if not _same_values(tensors["token_embedder/embedding"], _stored(copy, headers)):
            mend = (
                "set tie_word_embeddings and scale_decoder_outputs to false there if the output "
                "layer is separate"
                if copy.name == OUTPUT
                else "download both again"
            )
            raise InputError(
                f"{headers[copy.name].file}: {copy.name} is not {embedding}, of which {path} makes "
                f"it a copy; {mend}"
            )
    return config, tensors


def open_encoder(
    folder: str | os.PathLike[str],
) -> tuple[network.T5Config, dict[str, StoredTensor]]:
    """Opens the encoder of a T5 1.0 or 1.1; of a decoder there may be anything or nothing.

    Args:
      folder: what `save_pretrained` wrote, or a downloaded copy; on a local disk.

    Returns:
      The network's sizes, and the parameters of its encoder and token embedding, as those of
      `open_checkpoint`.

    Raises:
      InputError: if it is of another network, holds no safetensors, or is damaged.
    """
    folder = _local(folder)
    path = folder / CONFIG
    config = huggingface_names.network_config(_read_config(path), path, of_encoder=True)
    weights = _find_weights(folder)
    headers = _read_headers(weights)
    embedding = next((name for name in EMBEDDING if name in headers), EMBEDDING[0])
    places = {
        name: place
        for name, place in huggingface_names.places(config, embedding).items()
        if name.startswith(("encoder/", "token_embedder/"))
    }
    wanted = {place.name for place in places.values()}
    _check_tensors(
        places.values(), {name: headers[name] for name in wanted & headers.keys()}, weights
    )
    return config, {name: _stored(place, headers) for name, place in places.items()}


def _local(folder: str | os.PathLike[str]) -> epath.Path:
    if buckets.is_remote(folder):
        raise InputError(
            f"{folder}: Transformers' checkpoints are read from a local disk; copy the folder to "
            "this machine"
        )
    return epath.Path(folder)


def _stored(place: Place, headers: Mapping[str, _Header]) -> StoredTensor:
    return StoredTensor(place.shape, functools.partial(_read, place, headers[place.name].file))


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
    if tuple(config.mlp_activations) != ACTIVATIONS:
        raise InputError(
            f"network.T5Config.mlp_activations = {tuple(config.mlp_activations)}: Transformers' T5 "
            f"1.1 has {ACTIVATIONS}; models with others cannot be exported"
        )
    if problems := parameter_problems(config, params):
        raise InputError(
            f"{len(problems)} parameters of the language model are not a T5's, and Transformers "
            f"would compute something else: {shown(problems)}; merge what was added to it into "
            "T5's own parameters, and export that"
        )
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, huggingface_names.config_fields(config))
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
    places = huggingface_names.places(config)
    expected = {name: place.shape for name, place in places.items() if name.split("/")[0] in params}
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
    places: Iterable[Place], headers: Mapping[str, _Header], weights: epath.Path
) -> None:
    """Raises an InputError that lists what is missing, unexpected or of another form."""
    expected = {place.name: place for place in places}
    problems = [f"{name} is missing" for name in expected if name not in headers]
    problems += [
        f"{name} is unexpected" for name in headers if name not in expected and name != SKIPPED
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


def _read(place: Place, file: epath.Path, index: Index) -> np.ndarray:
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
    places = huggingface_names.places(config)
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


def _shards(places: Mapping[str, Place], max_shard_size: int) -> list[list[str]]:
    """Fills one shard after the other, in the order of the parameters."""
    shards, room = [[]], max_shard_size
    for name, place in places.items():
        if _size(place) > room and shards[-1]:
            shards.append([])
            room = max_shard_size
        shards[-1].append(name)
        room -= _size(place)
    return shards


def _size(place: Place) -> int:
    """Returns the bytes of a tensor in float32."""
    return math.prod(place.shape) * 4


def _write_json(path: epath.Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
