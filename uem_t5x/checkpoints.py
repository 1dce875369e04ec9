"""Checkpoints in and out: what other programs wrote, and what the built-in engine keeps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from absl import logging
from flax import serialization, traverse_util

from uem_t5x import network
from uem_t5x.errors import InputError

Params = dict[str, Any]


def load_language_model(folder: str | Path) -> tuple[network.T5Config, Params]:
    """Loads a T5 1.1 language model that another program wrote.

    Supported: T5X's native format (a msgpack file `checkpoint` beside one tensorstore folder a
    parameter). The sizes are read off the parameters' shapes.

    Args:
      folder: the checkpoint's folder, or one that holds `checkpoint_<step>` folders, of which the
        latest is taken.

    Returns:
      The network's sizes and its parameters, as nested dictionaries of float32 arrays.

    Raises:
      InputError: if the folder holds no supported checkpoint, or parts of one.
    """
    folder = _latest_checkpoint(Path(folder))
    params = _load_t5x(folder)
    return _config_from_shapes(params, folder), params


def start_from_language_model(params: Params, folder: str | Path) -> Params:
    """Replaces the language model within freshly made parameters by a pretrained one.

    Args:
      params: parameters of a network; what the pretrained model lacks (UEM, prompts) stays fresh.
      folder: see `load_language_model`.

    Returns:
      The parameters, those of the language model loaded.

    Raises:
      InputError: if names or shapes of the two language models differ; the first is named.
    """
    _, loaded = load_language_model(folder)
    fresh = traverse_util.flatten_dict(params, sep="/")
    pretrained = traverse_util.flatten_dict(loaded, sep="/")
    for name, value in pretrained.items():
        shape = fresh[name].shape if name in fresh else "none"
        if shape != value.shape:
            raise InputError(
                f"{folder}: {name} has shape {value.shape} there, {shape} in this recipe; choose "
                "the recipe of the checkpoint's model"
            )
    if missing := sorted(
        name for name in fresh if name.split("/")[0] in loaded and name not in pretrained
    ):
        raise InputError(
            f"{folder}: lacks {missing[0]} ({len(missing)} parameters); choose the recipe of the "
            "checkpoint's model"
        )
    return traverse_util.unflatten_dict(fresh | pretrained, sep="/")


def _latest_checkpoint(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a checkpoint's folder")
    if (folder / "checkpoint").is_file():
        return folder
    steps = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := re.fullmatch(r"checkpoint_(\d+)", path.name))
        and (path / "checkpoint").is_file()
    }
    if not steps:
        raise InputError(
            f"{folder}: no T5X checkpoint here: expected a file `checkpoint` or folders "
            "`checkpoint_<step>` that hold one"
        )
    return steps[max(steps)]


def _load_t5x(folder: Path) -> Params:
    index = folder / "checkpoint"
    try:
        target = serialization.msgpack_restore(index.read_bytes())["optimizer"]["target"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{index}: not a T5X checkpoint's index ({error}); copy the checkpoint again"
        ) from error
    # A leaf is an array, or where it is stored: {"driver", "kvstore", "metadata"}.
    leaves = traverse_util.flatten_dict(
        target, is_leaf=lambda _, value: isinstance(value, dict) and "kvstore" in value
    )
    logging.info("Reading %d parameters from %s", len(leaves), folder)
    reads = {
        name: _open_tensor(leaf, folder).read() if isinstance(leaf, dict) else leaf
        for name, leaf in leaves.items()
    }
    params = {
        name: np.asarray(read.result() if hasattr(read, "result") else read, np.float32)
        for name, read in reads.items()
    }
    return traverse_util.unflatten_dict(params)


def _open_tensor(spec: dict[str, Any], folder: Path) -> tensorstore.TensorStore:
    kvstore = spec["kvstore"]
    path = folder / Path(kvstore["path"]).name
    if not path.is_dir():
        raise InputError(f"{path}: missing from the checkpoint; copy the checkpoint again")
    # A bucket's path in the index means nothing here: the tensors lie beside the index.
    located = {"driver": spec["driver"], "kvstore": {"driver": "file", "path": f"{path}/"}}
    try:
        return tensorstore.open(located, open=True, read=True).result()
    except ValueError as error:
        raise InputError(f"{path}: unreadable ({error}); copy the checkpoint again") from error


def _config_from_shapes(params: Params, folder: Path) -> network.T5Config:
    """Reads the sizes of a network off its parameters."""
    encoder, decoder = params["encoder"], params["decoder"]
    vocab_size, emb_dim = params["token_embedder"]["embedding"].shape
    num_heads = encoder["relpos_bias"]["rel_embedding"].shape[0]
    layer = encoder["layers_0"]
    branches = sorted(name for name in layer["mlp"] if name.startswith("wi"))
    if branches != ["wi_0", "wi_1"]:
        raise InputError(
            f"{folder}: a T5 1.0 checkpoint (one ReLU branch, {branches}); use T5 1.1, its "
            "LM-adapted form or Flan-T5"
        )
    return network.T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        head_dim=layer["attention"]["query"]["kernel"].shape[1] // num_heads,
        mlp_dim=layer["mlp"]["wi_0"]["kernel"].shape[1],
        num_encoder_layers=sum(name.startswith("layers_") for name in encoder),
        num_decoder_layers=sum(name.startswith("layers_") for name in decoder),
        logits_via_embedding="logits_dense" not in decoder,
    )
