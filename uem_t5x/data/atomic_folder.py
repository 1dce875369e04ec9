"""Writes a folder whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from uem_t5x.errors import InputError


@contextlib.contextmanager
def writing_folder(
    path: Path, kind: str, is_of_kind: Callable[[Path], bool], overwrite: bool
) -> Iterator[Path]:
    """Gives a folder to write into, which becomes `path` when the block ends well.

    The folder lies beside `path` and is renamed at the end: whatever goes wrong, there is never a
    half-written folder under `path`.

    Args:
        path: where the finished folder will lie; its parents are created.
        kind: what it is, for messages.
        is_of_kind: tells whether a folder that is already there may be replaced.
        overwrite: whether it shall be.

    Raises:
        InputError: if something else is there, or if it is of this kind and `overwrite` is False.
    """
    path = path.absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not is_of_kind(path):
            raise InputError(f"{path}: exists and is not a {kind}; give --output another name")
        if not overwrite:
            raise InputError(
                f"{path}: already a {kind}; replace it with --overwrite, or give --output another "
                "name"
            )
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give --output another name"
        ) from error
    try:
        yield partial
        _share(partial)
        _rename_over(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _share(folder: Path) -> None:
    """Gives files the permissions that new ones get here: safetensors writes for the owner only."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


def _rename_over(partial: Path, path: Path) -> None:
    if not path.exists():
        partial.rename(path)
        return
    replaced = partial.with_name(f"{partial.name}-replaced")
    path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced)
