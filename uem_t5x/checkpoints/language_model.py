"""Pretrained language models: what other programs wrote, put under a fresh or a trained UEM.

Every format gives the same thing, the network's sizes and one `StoredTensor` a parameter, by T5X's
names. So names and shapes are checked before anything is read, and reading goes tensor by tensor,
each device's part straight to that device.
"""

import concurrent.futures
import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax import traverse_util

from uem_t5x import network
from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders, huggingface, t5x
from uem_t5x.network import lora, parameters, stacks
from uem_t5x.network.types import Index, PyTree, StoredTensor

# What transient-global attention has, and neither full nor local attention does.
_SIDE_BIAS = "encoder/side_relpos_bias/rel_embedding"

_LAYER_NUMBER = re.compile(r"/layers_\d+/")

# Tensors that are read at once: hides a bucket's latency, and bounds what lies in memory twice.
_CONCURRENT_READS = 2


def open_checkpoint(
    folder: str | os.PathLike[str],
) -> tuple[network.T5Config, dict[str, StoredTensor]]:
    """Opens a checkpoint of a T5 1.1 or LongT5; see `load_language_model` for its formats.

    Returns:
      The language model's sizes, and all parameters by their "/"-joined names, unread. Reading one
      raises an InputError if it is damaged, or holds a value that is not finite.

    Raises:
      InputError: if the folder holds no supported checkpoint, or parts or a damaged one.
      OSError: if it is in a bucket that cannot be reached.
    """
    buckets.check_for_arrays(folder, are_written=False)
    folder = buckets.absolute(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a checkpoint's folder")
    checkpoint = _latest_checkpoint(folder)
    if checkpoint is None:
        if huggingface.is_huggingface(folder):
            config, tensors = huggingface.open_checkpoint(folder)
            return config, _checked(tensors, folder)
        raise InputError(
            f"{folder}: no checkpoint here: expected T5X's (a file `checkpoint`, a folder `state`, "
            "or folders `checkpoint_<step>` that hold one) or Transformers' (`config.json` and "
            "`*.safetensors`)"
        )
    if jax.process_index() == 0:
        folders.check(checkpoint)
    if t5x.is_native(checkpoint):
        tensors = t5x.open_native(checkpoint)
    else:
        tensors = t5x.open_orbax(checkpoint)
    return _config_from_shapes(tensors, checkpoint), _checked(tensors, checkpoint)


def load_language_model(folder: str | os.PathLike[str]) -> tuple[network.T5Config, PyTree]:
    """Loads a T5 1.1 or LongT5 language model.

    Supported are T5X's native format (a file `checkpoint` beside tensorstore folders, as the
    public Flan-T5 and LongT5 checkpoints are), T5X's Orbax format, which the built-in engine writes
    too, and Transformers' folders (`config.json` and safetensors).

    T5X's formats hold no sizes; they are read off the parameters' shapes. A `side_relpos_bias`
    tells of transient-global attention, taken to be of the public sizes (a radius of 127, summaries
    of 16 positions). Local attention has the parameters of full attention and is taken for it:
    `dataclasses.replace(config, encoder_attention="local")` says otherwise, as a recipe does.

    Args:
      folder: the checkpoint's folder, or one that holds `checkpoint_<step>` folders, of which the
        latest is taken.

    Returns:
      The network's sizes and its parameters, as nested dictionaries of float32 arrays.

    Raises:
      InputError: if the folder holds no supported checkpoint, or parts of one.
    """
    config, tensors = open_checkpoint(folder)
    params = {
        name: tensor.load()
        for name, tensor in tensors.items()
        if parameters.is_of_language_model(name)
    }
    return config, traverse_util.unflatten_dict(params, sep="/")


def blank_language_model(params: PyTree) -> PyTree:
    """Returns parameters with a language model of zeros, for a checkpoint to fill; LoRA's stay.

    Within a compiled initialization this spares drawing it, which takes several times its memory.
    """
    drawn, language_model = parameters.split(params, parameters.lora_and_soft_prompt)
    return parameters.merge(drawn, jax.tree.map(jnp.zeros_like, language_model))


def start_from_checkpoint(params: PyTree, folder: str | os.PathLike[str]) -> PyTree:
    """Replaces freshly made parameters by a checkpoint's, in place on their devices.

    The language model is always the checkpoint's; what LoRA adds to it is, where the checkpoint has
    any. UEM and task prompts are, where the checkpoint holds them in the same sizes, as one of this
    project's own runs may; else they stay fresh. (An adapter of another kind is taken for a
    mistake.)

    Args:
      params: nested dictionaries of `jax.Array`s, which are given up: every array is freed as it
        is replaced, so that little more memory is needed than the model takes.
      folder: see `load_language_model`.

    Returns:
      The parameters, laid out over the devices as the fresh ones were.

    Raises:
      InputError: if names or shapes of the two language models differ, which are listed, or the
        checkpoint holds another adapter.
    """
    _, tensors = open_checkpoint(folder)
    wanted = _flat(stacks.unstack(params, _layer_shape))
    if not any(map(lora.is_lora, tensors)):
        wanted = {name: leaf for name, leaf in wanted.items() if not lora.is_lora(name)}
    loaded: dict[str, StoredTensor] = {}
    for module in dict.fromkeys(map(_module, wanted)):
        names = sorted(name for name in wanted.keys() | tensors.keys() if _module(name) == module)
        differences = [line for name in names if (line := _difference(name, tensors, wanted))]
        if not differences:
            loaded |= {name: tensors[name] for name in names}
        elif parameters.is_of_language_model(module):
            shown = "; ".join(differences[:3])
            raise InputError(
                f"{folder}: {module}: {len(differences)} parameters are not this recipe's: {shown}"
                f"{'; ...' if len(differences) > 3 else ''}; choose the recipe of the checkpoint's "
                "model (LANGUAGE_MODEL), or another checkpoint"
            )
        else:
            _check_is_of_same_kind(module, names, tensors, wanted, folder)
            logging.info("%s starts fresh: %s", module, differences[0])
    logging.info("Reading %d parameters from %s", len(loaded), folder)
    if stacks.is_stacked(params):
        nested = traverse_util.unflatten_dict(loaded, sep="/")
        loaded = _flat(stacks.stack(nested, _stack_tensors))
    fresh = _flat(params)

    def read(name: str) -> jax.Array:
        sharding, shape = fresh[name].sharding, fresh[name].shape
        fresh[name].delete()
        parts: dict[str, np.ndarray] = {}

        def part(index: Index) -> np.ndarray:
            # Devices that hold the same part share one reading of it.
            key = str(index)
            if key not in parts:
                parts[key] = loaded[name].read(index)
            return parts[key]

        return jax.make_array_from_callback(shape, sharding, part)

    with concurrent.futures.ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        fresh.update(zip(loaded, pool.map(read, loaded)))
    return traverse_util.unflatten_dict(fresh, sep="/")


def _checked(tensors: Mapping[str, StoredTensor], folder: epath.Path) -> dict[str, StoredTensor]:
    """Has tensors refuse what would only show as a loss that is no number, of whatever history."""

    def read(name: str, index: Index) -> np.ndarray:
        values = tensors[name].read(index)
        if not np.isfinite(values).all():
            raise InputError(
                f"{folder}: {name} holds a value that is not finite (NaN or infinite), with which "
                "nothing can be trained; copy the checkpoint again, or choose another one"
            )
        return values

    return {
        name: dataclasses.replace(tensor, read=functools.partial(read, name))
        for name, tensor in tensors.items()
    }


def _flat(tree: PyTree) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _layer_shape(stacked: jax.Array, _: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype)


def _stack_tensors(*layers: StoredTensor) -> StoredTensor:
    """Returns the tensors of all layers as one."""

    def read(index: Index) -> np.ndarray:
        return np.stack([layer.read(index[1:]) for layer in layers[index[0]]])

    return StoredTensor((len(layers), *layers[0].shape), read)


def _difference(
    name: str, tensors: Mapping[str, StoredTensor], wanted: Mapping[str, Any]
) -> str | None:
    if name not in tensors:
        return f"{name} is missing"
    if name not in wanted:
        return f"{name} is unexpected"
    if tensors[name].shape != wanted[name].shape:
        return f"{name} has shape {tensors[name].shape}, here {wanted[name].shape}"
    return None


def _check_is_of_same_kind(
    module: str,
    names: Sequence[str],
    tensors: Mapping[str, StoredTensor],
    wanted: Mapping[str, Any],
    folder: str | os.PathLike[str],
) -> None:
    """Refuses a module of other parts than the recipe's, however many layers it has of them."""

    def parts(there: Iterable[str]) -> set[str]:
        return {_LAYER_NUMBER.sub("/layers/", name) for name in names if name in there}

    here, stored = parts(wanted), parts(tensors)
    have_layers = [any("/layers/" in part for part in some) for some in (here, stored)]
    others = {part for part in here ^ stored if all(have_layers) or "/layers/" not in part}
    if here and stored and others:
        other = min(others)
        raise InputError(
            f"{folder}: {module} is of another kind than this recipe's: {other} is "
            f"{'missing' if other in here else 'unexpected'}; bind ADAPTER and SOFT_TOKENS to what "
            "the checkpoint was trained with, or start from its language model alone, as "
            "`uem-t5x export --format huggingface` writes it"
        )


def _module(name: str) -> str:
    return name.split("/")[0]


def _is_checkpoint(folder: epath.Path) -> bool:
    return t5x.is_native(folder) or t5x.is_orbax(folder)


def _latest_checkpoint(folder: epath.Path) -> epath.Path | None:
    """Returns the folder itself, or its latest `checkpoint_<step>`, if one is a T5X checkpoint.

    Raises:
      InputError: if the folder itself is one that is not written to its end.
    """
    if _is_checkpoint(folder):
        if not folders.is_finished(folder):
            raise InputError(
                f"{folder}: was not saved to its end (no commit_success.txt); name another "
                "checkpoint, or copy this one again"
            )
        return folder
    found = folders.find(folder)
    steps = [step for step, path in found.items() if _is_checkpoint(path)]
    return found[max(steps)] if steps else None


def _config_from_shapes(
    tensors: Mapping[str, StoredTensor], folder: epath.Path
) -> network.T5Config:
    """Reads the sizes of a network off its parameters."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise InputError(
                f"{folder}: lacks {name}; not a T5 1.1 checkpoint, or a part of one: copy it again"
            )
        return tensors[name].shape

    def depth(stack: str) -> int:
        pattern = re.compile(rf"{stack}/layers_(\d+)/")
        return len({match[1] for name in tensors if (match := pattern.match(name))})

    layer = "encoder/layers_0"
    if f"{layer}/mlp/wi/kernel" in tensors:
        raise InputError(
            f"{folder}: a T5 1.0 checkpoint (its feed-forward block is one ReLU branch); use "
            "T5 1.1, its LM-adapted form, Flan-T5 or LongT5"
        )
    vocab_size, emb_dim = shape("token_embedder/embedding")
    num_heads = shape("encoder/relpos_bias/rel_embedding")[0]
    return network.T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        head_dim=shape(f"{layer}/attention/query/kernel")[1] // num_heads,
        mlp_dim=shape(f"{layer}/mlp/wi_0/kernel")[1],
        num_encoder_layers=depth("encoder"),
        num_decoder_layers=depth("decoder"),
        logits_via_embedding="decoder/logits_dense/kernel" not in tensors,
        encoder_attention=(network.TRANSIENT_GLOBAL if _SIDE_BIAS in tensors else network.FULL),
    )
