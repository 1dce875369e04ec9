"""What can be told of a run before JAX and TensorFlow are imported, which takes seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.data.manifest import Manifest
from uem_t5x.runs import recipes
from uem_t5x.runs.processes import Processes


def check(files: Sequence[str], bindings: Sequence[str], processes: Processes) -> None:
    """Checks a run, as far as that can be told without reading data.

    Args:
      files: its recipes.
      bindings: lines of gin to bind beside them.
      processes: those that run it.

    Raises:
      InputError: as in `recipes.check_bindings` and `Processes.check`; a macro without value; or
        a folder of this machine that is not what its macro says.
    """
    macros = recipes.check_bindings(files, bindings)
    if unbound := recipes.unbound(macros):
        name = min(unbound)
        raise InputError(
            f"{', '.join(files)}: the macro {name} is not bound; add --gin.{name}=VALUE"
        )
    processes.check()
    check_folders(macros)


def check_folders(macros: Mapping[str, Any]) -> None:
    """Checks the folders that a run reads and writes; those in buckets, when they are reached.

    Raises:
      InputError: if a folder of this machine is not what its macro says.
    """

    def is_here(name: str) -> bool:
        path = macros.get(name)
        if not isinstance(path, str) or not path or path.startswith(("%", "@")):
            return False
        buckets.check(path)
        return not buckets.is_remote(path)

    if is_here("DATA_DIR"):
        Manifest.read(macros["DATA_DIR"])
    if is_here("MODEL_DIR"):
        buckets.check_for_arrays(macros["MODEL_DIR"], are_written=True)
    start = "INITIAL_CHECKPOINT_PATH"
    if is_here(start) and not epath.Path(macros[start]).is_dir():
        raise InputError(f"{macros[start]}: no such folder; name a checkpoint's folder")
