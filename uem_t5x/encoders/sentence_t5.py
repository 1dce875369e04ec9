"""SentenceT5 (arXiv 2108.08877) from Transformers' weights, run by our own T5 encoder in JAX.

The folder is what sentence-transformers keeps, as `sentence-transformers/sentence-t5-base` on the
hub. Its `modules.json` names the T5's folder, which holds `config.json`, safetensors and
`spiece.model`; a pooling, which must be the mean over tokens; a dense layer; and a norm.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece
from flax import traverse_util
from jaxtyping import Float32, Int32
from safetensors import SafetensorError
from safetensors.numpy import load_file

from uem_t5x import network
from uem_t5x.base import checksums
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface
from uem_t5x.encoders import batching

MODULES = "modules.json"
_VOCABULARY = "spiece.model"
_LENGTHS = {
    "sentence_bert_config.json": "max_seq_length",
    "tokenizer_config.json": "model_max_length",
}
_USUAL_LENGTH = 512
_ANY_LENGTH = 100_000  # a tokenizer without a limit has one of 10**30
_BATCH = 64
_LENGTH_STEP = 16  # texts are padded to multiples of it, so that few shapes are compiled
_EOS = 1
_IDENTITY = "torch.nn.modules.linear.Identity"


def is_one(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder is of this form, or at least of Transformers'."""
    path = Path(folder)
    return path.is_dir() and ((path / MODULES).is_file() or huggingface.is_huggingface(path))


class SentenceT5Encoder:
    """See `sentences.SentenceEncoder`."""

    def __init__(self, source: str) -> None:
        """Reads the weights.

        Raises:
          InputError: if the folder is of another model, lacks a file, or is damaged.
        """
        self.source = source
        folder = Path(source)
        modules = _modules(folder)
        of_t5 = modules["Transformer"]
        config, tensors = huggingface.open_encoder(of_t5)
        _check_pooling(modules["Pooling"] / "config.json")
        dense = _read_dense(modules["Dense"]) if "Dense" in modules else None
        self._vocabulary, self._most = _vocabulary(of_t5 / _VOCABULARY), _most_tokens(of_t5)
        params = traverse_util.unflatten_dict(
            {name: jnp.asarray(tensor.load()) for name, tensor in tensors.items()}, sep="/"
        )
        self._embed = jax.jit(functools.partial(_embed, config))
        self._weights = {"params": params, "dense": dense}
        self.width = config.emb_dim if dense is None else dense["weight"].shape[0]
        files = [file for file in folder.rglob("*") if file.suffix in (".safetensors", ".model")]
        names = sorted(str(file.relative_to(folder)) for file in files)
        sums = checksums.of_files(folder, names)
        self.sha256 = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], Any] | None = None
    ) -> Float32[np.ndarray, "texts width"]:
        """See `sentences.SentenceEncoder`; texts of about the same length go together."""
        cut = self._most - 1
        tokens = [[*ids[:cut], _EOS] for ids in self._vocabulary.encode(list(texts))]

        def embed(batch: Sequence[int]) -> Float32[np.ndarray, "batch width"]:
            padded = _pad([tokens[text] for text in batch])
            return np.asarray(self._embed(self._weights, padded))[: len(batch)]

        lengths = [len(ids) for ids in tokens]
        return batching.by_length(lengths, _BATCH, self.width, embed, on_progress)


def _pad(tokens: Sequence[Sequence[int]]) -> Int32[np.ndarray, "batch length"]:
    length = -(-max(map(len, tokens)) // _LENGTH_STEP) * _LENGTH_STEP
    padded = np.zeros((_BATCH, length), np.int32)
    for row, ids in enumerate(tokens):
        padded[row, : len(ids)] = ids
    return padded


def _embed(
    config: network.T5Config, weights: Mapping[str, Any], tokens: Int32[jax.Array, "batch length"]
) -> Float32[jax.Array, "batch width"]:
    """Returns unit vectors: the mean of the encoder's outputs, through the dense layer."""
    t5 = network.Transformer(config)
    params = {"params": weights["params"]}
    encoded = t5.apply(params, tokens, enable_dropout=False, method=t5.encode)
    counts = jnp.maximum(encoded.mask.sum(axis=1, keepdims=True), 1)
    vectors = jnp.where(encoded.mask[:, :, None], encoded.values, 0).sum(axis=1) / counts
    if (dense := weights["dense"]) is not None:
        vectors = vectors @ dense["weight"].T + dense["bias"]
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


# --- What the folder says ---


def _modules(folder: Path) -> dict[str, Path]:
    """Returns the folder of each module by its kind."""
    path = folder / MODULES
    if not path.is_file():
        raise InputError(
            f"{path}: missing, so that nothing tells how a sentence's vector is made; give the "
            "folder of sentence-transformers/sentence-t5-base, or another of that library"
        )
    try:
        listed = json.loads(path.read_bytes())
        modules = {str(one["type"]).rpartition(".")[2]: folder / one["path"] for one in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); download it again") from error
    unknown = modules.keys() - {"Transformer", "Pooling", "Dense", "Normalize"}
    if unknown or not {"Transformer", "Pooling"} <= modules.keys():
        raise InputError(
            f"{path}: {', '.join(modules)} are not a SentenceT5's modules; use it as "
            f"--encoder sentence-transformers:{folder}"
        )
    return modules


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: not a JSON object; download it again")
    return fields


def _check_pooling(path: Path) -> None:
    fields = _read_json(path)
    modes = [name for name, is_on in fields.items() if name.startswith("pooling_mode_") and is_on]
    said = fields.get("pooling_mode", "mean" if modes == ["pooling_mode_mean_tokens"] else modes)
    if said not in ("mean", ["mean"]):
        raise InputError(f"{path}: pools by {said}; SentenceT5 takes the mean of its tokens")


def _read_dense(folder: Path) -> dict[str, jax.Array]:
    fields, path = _read_json(folder / "config.json"), folder / "model.safetensors"
    activation = fields.get("activation_function", _IDENTITY)
    if activation != _IDENTITY:
        raise InputError(f"{folder}/config.json: {activation}: a SentenceT5's layer has none")
    try:
        tensors = load_file(path)
        weight = tensors["linear.weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); download it, or write the folder anew where "
            "PyTorch is: sentence_transformers.SentenceTransformer(FOLDER).save(NEW_FOLDER)"
        ) from error
    bias = tensors.get("linear.bias", np.zeros(len(weight), np.float32))
    return {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}


def _vocabulary(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error


def _most_tokens(folder: Path) -> int:
    """Returns how many tokens of a text are read, as older and newer libraries write it down."""
    for file, name in _LENGTHS.items():
        most = _read_json(folder / file).get(name) if (folder / file).is_file() else None
        if type(most) is int and 1 < most <= _ANY_LENGTH:
            return most
    return _USUAL_LENGTH
