"""Writes a folder or a file whole or not at all, whenever the process is killed."""

import contextlib
import glob
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from etils import epath

from uem_t5x.base import buckets, interrupts
from uem_t5x.base.errors import InputError

_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors has no OSError


@contextlib.contextmanager
def writing_folder(
    path: Path, kind: str, is_of_kind: Callable[[Path], bool], overwrite: bool
) -> Iterator[Path]:
    """Gives a folder to write into, which becomes `path` when the block ends well.

    The folder lies beside `path` and is renamed at the end: whatever goes wrong, there is never a
    half-written folder under `path`, and nothing that has appeared there meanwhile is lost. What a
    process that was killed has left beside it is removed by the next one.

    Args:
        path: where the finished folder will lie; its parents are created.
        kind: what it is, for messages.
        is_of_kind: tells whether a folder that is already there holds this and nothing else, so
            that it may be replaced.
        overwrite: whether it shall be.

    Raises:
        InputError: if something else is there, before or after; if it is of this kind and
            `overwrite` is False; if it cannot be made; or if it is in a bucket, which cannot rename
            a folder.
        OSError: naming it, if the disk does not take it.
    """
    buckets.check(path)
    if buckets.is_remote(path):
        raise InputError(f"{path}: give --output a local folder, and copy it to the bucket")
    path = path.resolve()  # a link stays one
    _clear_up(path)

    def check() -> None:
        if (path.is_dir() and not any(path.iterdir())) or not os.path.lexists(path):
            return
        if not (path.is_dir() and is_of_kind(path)):
            raise InputError(f"{path}: exists and is not just a {kind}; give --output another name")
        if not overwrite:
            raise InputError(
                f"{path}: already a {kind}; replace it with --overwrite, or give --output another "
                "name"
            )

    check()
    partial = path.with_name(_partial_name(path, os.getpid()))
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give --output another name"
        ) from error
    try:
        with _naming(path), interrupts.removing(partial):
            yield partial
        _share(partial)
        check()  # it may have taken hours
        _rename_over(partial, path, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def holds_only(folder: Path, names: re.Pattern[str]) -> bool:
    """Tells whether all files in a folder, however deep, are named so, relative to it."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return all(names.fullmatch(file.relative_to(folder).as_posix()) for file in files)


@contextlib.contextmanager
def writing_file(path: epath.PathLike, is_text: bool = True) -> Iterator[IO[Any]]:
    """Gives a file to write, which becomes `path` when the block ends well.

    Args:
        path: the file, here or in a bucket; its parents are created. A link stays one: the file
            that it leads to is written.
        is_text: whether it takes text, which becomes UTF-8, and not bytes.

    Raises:
        InputError: if it is a folder, a pipe or a device.
        OSError: naming it, if the disk does not take it.
    """
    check_file(path)
    is_remote = buckets.is_remote(path)
    file_path = epath.Path(path if is_remote else os.path.realpath(path))
    file_path.parent.mkdir(parents=True, exist_ok=True)
    if not is_remote:
        _clear_up(Path(file_path))
    partial = file_path.with_name(_partial_name(file_path, os.getpid()))
    try:
        with (
            _naming(path),
            interrupts.removing(Path(partial)),
            partial.open("w", encoding="utf-8") if is_text else partial.open("wb") as file,
        ):
            yield file
        partial.replace(file_path)
    finally:
        partial.unlink(missing_ok=True)


def check_file(path: epath.PathLike) -> None:
    """Raises an InputError if a file cannot take this name: a folder, pipe or device has it."""
    buckets.check(path)
    if epath.Path(path).is_dir():
        raise InputError(f"{path}: a folder; give the name of a file")
    # etils takes all that is no folder for a file.
    if not buckets.is_remote(path) and Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: not a regular file; give the name of one")


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a file of UTF-8 text."""
    with writing_file(path) as file:
        file.write(text)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file."""
    with writing_file(path, is_text=False) as file:
        file.write(data)


@contextlib.contextmanager
def _naming(path: epath.PathLike) -> Iterator[None]:
    """Adds the file's name to errors of the operating system without one, such as a full disk's."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    except InputError:
        raise
    except Exception as error:
        if found := _RUST_ERROR.search(str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), os.fspath(path)) from error
        raise


def _partial_name(path: epath.PathLike, process: int | str) -> str:
    """Names what lies beside `path` by the process that writes it, and the machine that runs it."""
    return f".{epath.Path(path).name}.partial-{platform.node()}-{process}"


def _clear_up(path: Path) -> None:
    """Removes what killed processes of this machine have left, after ending what they had begun."""
    start = _partial_name(path, "")
    # What was replaced comes after what should have replaced it.
    for left in sorted(path.parent.glob(f"{glob.escape(start)}*")):
        process, _, rest = left.name.removeprefix(start).partition("-")
        # In a container that starts again, this process may have the number of one that was killed.
        if not process.isdecimal() or (int(process) != os.getpid() and _is_alive(int(process))):
            continue
        if rest and not path.exists():  # killed between the first renames of `_rename_over`
            left.rename(path)
        elif rest:
            left = left.rename(left.with_name(f"{start}{process}"))
            shutil.rmtree(left)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _share(folder: Path) -> None:
    """Gives files the permissions that new ones get here: safetensors writes for the owner only."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


def _rename_over(partial: Path, path: Path, overwrite: bool) -> None:
    """Renames a folder to `path`; with `overwrite`, what lies there goes."""
    if not (overwrite and path.exists()):
        partial.rename(path)  # over an empty folder too, and over nothing else
        return
    replaced = partial.with_name(f"{partial.name}-replaced")
    path.rename(replaced)
    partial.rename(path)
    # Under a name that is never brought back: half of it may be left.
    replaced.rename(partial)
    shutil.rmtree(partial)
