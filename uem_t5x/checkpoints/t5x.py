"""Reading T5X's checkpoints, one tensor at a time; what is missing of one is never zeros.

checkpoint_<step>/checkpoint             native: a msgpack index beside one tensorstore folder
checkpoint_<step>/target.<name>/         a parameter, as the public T5 and Flan-T5 ones are
checkpoint_<step>/state/                 Orbax: what T5X writes today, and the built-in engine
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import serialization, traverse_util

from uem_t5x.base import file_kinds
from uem_t5x.base.errors import InputError
from uem_t5x.network.types import Index, StoredTensor

_INDEX, _STATE, _TARGET = "checkpoint", "state", "target"
_ARRAY_METADATA = (b".zarray", b"zarr.json")


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
            f"{index}: not a T5X checkpoint's index: {file_kinds.hint(index)} "
            f"({_first_line(error)}); copy the checkpoint again"
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
            spec = _spec(leaf["driver"], _kvstore(place))
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
    metadata = _metadata(state)
    spec_of = _orbax_specs(state, metadata)
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(dict(metadata.get(_TARGET, {}))).items():
        stored_as = ".".join((_TARGET, *path))
        read = functools.partial(_read, spec_of(stored_as), state / stored_as)
        tensors["/".join(path)] = StoredTensor(tuple(leaf.shape), read)
    if not tensors:
        raise InputError(f"{state}: holds no parameters (`{_TARGET}`); name another checkpoint")
    return tensors


def check_orbax_is_whole(folder: epath.Path) -> None:
    """Opens every array of a checkpoint, and looks whether all of its chunks are there.

    Args:
      folder: of the checkpoint; its arrays are not read.

    Raises:
      OSError: naming the first array that cannot be opened, or lacks a part.
    """
    state = folder / _STATE
    try:
        metadata = _metadata(state)
    except InputError as error:
        raise OSError(f"cannot be opened again: {error}") from error
    spec_of = _orbax_specs(state, metadata)
    names = [".".join(path) for path in traverse_util.flatten_dict(dict(metadata))]
    # All at once, which hides a bucket's latency.
    opened = [tensorstore.open(spec_of(stored_as)) for stored_as in names]
    for stored_as, opening in zip(names, opened):
        try:
            store = opening.result()
            keys = store.kvstore.list().result()
        except (ValueError, OSError) as error:
            reason = _first_line(error)
            raise OSError(f"{state / stored_as}: cannot be opened again ({reason})") from error
        sizes = zip(store.shape, store.chunk_layout.write_chunk.shape or ())  # none of a scalar
        wanted = math.prod(-(-size // chunk) for size, chunk in sizes)
        chunks = [key for key in keys if not key.endswith(_ARRAY_METADATA)]
        if len(chunks) != wanted:
            raise OSError(f"{state / stored_as}: holds {len(chunks)} of its {wanted} chunks")


def _metadata(state: epath.Path) -> Any:
    """Returns what Orbax says of a checkpoint's arrays, a tree of them by their names.

    Raises:
      InputError: if it is damaged.
    """
    try:
        return ocp.PyTreeCheckpointHandler().metadata(state)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{state}: not a T5X checkpoint's state ({_first_line(error)}); copy the checkpoint "
            "again"
        ) from error


def _orbax_specs(state: epath.Path, metadata: Any) -> Callable[[str], dict[str, Any]]:
    """Returns what gives the spec of an array, by the name that it is stored under."""
    in_one_store = (state / "manifest.ocdbt").is_file()
    driver = "zarr3" if metadata.use_zarr3 else "zarr"

    def spec_of(stored_as: str) -> dict[str, Any]:
        if in_one_store:
            base = _kvstore(state)
            return _spec(driver, {"driver": "ocdbt", "base": base, "path": f"{stored_as}/"})
        return _spec(driver, _kvstore(state / stored_as))

    return spec_of


def _spec(driver: str, kvstore: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what TensorStore opens an array by, for reading: a chunk that is gone is an error.

    Zeros are stored as any values are, by T5X and by Orbax, so that a missing chunk is lost.
    """
    opened = {"open": True, "fill_missing_data_reads": False}
    return {"driver": driver, "kvstore": dict(kvstore), **opened}


def _kvstore(folder: epath.Path) -> dict[str, Any]:
    path = str(folder)
    if path.startswith("gs://"):
        bucket, _, path = path.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
    return {"driver": "file", "path": f"{path}/"}


def _read(spec: Mapping[str, Any], place: epath.Path, index: Index) -> np.ndarray:
    try:
        store = tensorstore.open(spec, read=True).result()
        return store[index].read().result().astype(np.float32)
    except (ValueError, OSError) as error:
        reason = _first_line(error)
        raise InputError(f"{place}: unreadable ({reason}); copy the checkpoint again") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
