"""Reading T5X's checkpoints, one tensor at a time.

checkpoint_<step>/checkpoint             native: a msgpack index beside one tensorstore folder
checkpoint_<step>/target.<name>/         a parameter, as the public T5 and Flan-T5 ones are
checkpoint_<step>/state/                 Orbax: what T5X writes today, and the built-in engine
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import serialization, traverse_util

from uem_t5x.errors import InputError
from uem_t5x.types import Index, StoredTensor

_INDEX, _STATE, _TARGET = "checkpoint", "state", "target"


def is_native(folder: epath.Path) -> bool:
    """Tells whether a folder is a checkpoint in T5X's native format."""
    return (folder / _INDEX).is_file()


def is_orbax(folder: epath.Path) -> bool:
    """Tells whether a folder is a checkpoint that T5X or the built-in engine wrote with Orbax."""
    return (folder / _STATE / "_METADATA").is_file()


def open_native(folder: epath.Path) -> dict[str, StoredTensor]:
    """Returns the parameters of a native checkpoint by their "/"-joined names.

    Raises:
      InputError: if the index is damaged, or a parameter's folder is missing.
    """
    index = folder / _INDEX
    try:
        target = serialization.msgpack_restore(index.read_bytes())["optimizer"][_TARGET]
        # A leaf is an array, or where it is stored: {"driver", "kvstore", "metadata"}.
        leaves = traverse_util.flatten_dict(
            target, sep="/", is_leaf=lambda _, value: isinstance(value, dict) and "kvstore" in value
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index}: not a T5X checkpoint's index ({error}); copy the checkpoint again"
        ) from error
    there = {path.name for path in folder.iterdir()}
    tensors = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, Mapping):
            # A bucket's path in the index means nothing here: the tensors lie beside the index.
            path = leaf["kvstore"].get("path") or leaf["path"]
            place = folder / epath.Path(path).name
            if place.name not in there:
                raise InputError(f"{place}: missing from the checkpoint; copy the checkpoint again")
            spec = {"driver": leaf["driver"], "kvstore": _kvstore(place)}
            shape = tuple(leaf["metadata"]["shape"])
            tensors[name] = StoredTensor(shape, functools.partial(_read, spec, place))
        else:
            array = np.asarray(leaf)
            tensors[name] = StoredTensor(
                array.shape, lambda part, array=array: array[part].astype(np.float32)
            )
    return tensors


def open_orbax(folder: epath.Path) -> dict[str, StoredTensor]:
    """Returns the parameters of an Orbax checkpoint by their "/"-joined names.

    Raises:
      InputError: if its metadata is damaged, or it holds no parameters.
    """
    state = folder / _STATE
    try:
        metadata = ocp.PyTreeCheckpointHandler().metadata(state)
        leaves = traverse_util.flatten_dict(dict(metadata[_TARGET]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{state}: not a T5X checkpoint's state ({error}); copy the checkpoint again"
        ) from error
    in_one_store = (state / "manifest.ocdbt").is_file()
    tensors = {}
    for path, leaf in leaves.items():
        stored_as = ".".join((_TARGET, *path))
        kvstore = (
            {"driver": "ocdbt", "base": _kvstore(state), "path": f"{stored_as}/"}
            if in_one_store
            else _kvstore(state / stored_as)
        )
        spec = {"driver": "zarr3" if metadata.use_zarr3 else "zarr", "kvstore": kvstore}
        tensors["/".join(path)] = StoredTensor(
            tuple(leaf.shape), functools.partial(_read, spec, state / stored_as)
        )
    return tensors


def _kvstore(folder: epath.Path) -> dict[str, Any]:
    path = str(folder)
    if path.startswith("gs://"):
        bucket, _, path = path.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
    return {"driver": "file", "path": f"{path}/"}


def _read(spec: Mapping[str, Any], place: epath.Path, index: Index) -> np.ndarray:
    try:
        store = tensorstore.open(spec, open=True, read=True).result()
        return store[index].read().result().astype(np.float32)
    except (ValueError, OSError) as error:
        message = str(error).splitlines()[0]
        raise InputError(f"{place}: unreadable ({message}); copy the checkpoint again") from error
