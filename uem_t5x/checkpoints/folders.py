"""The folders of a run's checkpoints: which there are, and whether they are still what was saved.

A checkpoint of the built-in engine holds `checksums.json`, over all of its files but the two that
Orbax writes last and nothing is read from. T5X's own has none and is taken as it is.
"""

import contextlib
import json
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from uem_t5x.base import atomic, buckets, checksums
from uem_t5x.base.errors import DamagedError
from uem_t5x.checkpoints import t5x

PREFIX = "checkpoint"
METRICS = "metrics"
# The first that there is. Whoever scores answers in another way says how good they are by the last.
BEST_METRICS = ("f1", "score")
_NO_SCORE = float("-inf")
_DAMAGED = "damaged_"
_SUMS = "checksums.json"
_MEND = "copy the checkpoint again, or choose another one"
_LEAST_SHARED = 4096  # bytes: less takes a block all the same
_NOT_SUMMED = (_SUMS, "_CHECKPOINT_METADATA", "commit_success.txt")


def find(folder: epath.PathLike) -> dict[int, epath.Path]:
    """Returns the finished checkpoints in a folder by their steps, in order."""
    paths = buckets.named(folder, f"{PREFIX}_*")
    matches = ((re.fullmatch(rf"{PREFIX}_(\d+)", path.name), path) for path in paths)
    found = ((int(match[1]), path) for match, path in matches if match)
    return dict(sorted((step, path) for step, path in found if is_finished(path)))


def is_finished(checkpoint: epath.Path) -> bool:
    """Tells whether a checkpoint was saved to its end.

    On a disk Orbax gives it its name when it is. In a bucket it has the name from the beginning,
    and `commit_success.txt` is written last. T5X's native format, which has no such file, is taken
    as it is.
    """
    return ocp.path.step.is_path_finalized(checkpoint) or t5x.is_native(checkpoint)


def seal(checkpoint: epath.Path) -> None:
    """Writes the checksums of a checkpoint that is otherwise finished.

    On a disk, a file that the checkpoint before has, too, takes no room of its own: weights that
    training leaves as they are, and the item table, where each array is in files of its own.
    """
    names = (str(file.relative_to(checkpoint)) for file in _files(checkpoint))
    sums = checksums.of_files(checkpoint, names)
    _share_with_the_one_before(checkpoint, sums)
    _write_sums(checkpoint, sums)


def _share_with_the_one_before(checkpoint: epath.Path, sums: Mapping[str, str]) -> None:
    """Has files be those of the most recent checkpoint beside, where they hold the same."""
    if buckets.is_remote(checkpoint) or not (found := find(checkpoint.parent)):
        return
    before = found[max(found)]
    if not has_checksums(before):
        return
    try:
        theirs = _read_sums(before)
    except DamagedError:
        return
    for name in (name for name, value in sums.items() if theirs.get(name) == value):
        own, other = Path(checkpoint) / name, Path(before) / name
        partial = own.with_name(f"{own.name}.partial")
        with contextlib.suppress(OSError):  # the disk knows no such thing
            if own.stat().st_size < _LEAST_SHARED or checksums.sha256(other) != sums[name]:
                continue
            partial.hardlink_to(other)
            partial.replace(own)


def add_metrics(checkpoint: epath.Path, metrics: Mapping[str, float]) -> None:
    """Writes validation metrics into a checkpoint that was saved without an F1.

    The checksums of all else stay those of when it was saved.

    Raises:
      DamagedError: if the checkpoint's checksums are damaged.
    """
    name = f"{METRICS}/{METRICS}"
    sums = {file: value for file, value in _read_sums(checkpoint).items() if file != name}
    # If the process is killed in between, the checkpoint is good and its metrics unchecked.
    _write_sums(checkpoint, sums)
    atomic.write_text(checkpoint / name, json.dumps(dict(metrics)))
    _write_sums(checkpoint, sums | checksums.of_files(checkpoint, [name]))


def has_checksums(checkpoint: epath.Path) -> bool:
    """Whether the built-in engine saved it."""
    return (checkpoint / _SUMS).is_file()


def is_measured(checkpoint: epath.Path) -> bool:
    """Whether it holds a validation score."""
    return _validation_score(checkpoint) > _NO_SCORE


def score(metrics: Mapping[str, Any]) -> float:
    """Returns that of validation metrics by which checkpoints are compared, most often F1.

    Less than any where there is none; one that is not a finite number, as a task of one's own may
    return, is none: it would compare with no other.
    """
    best = next((metrics[name] for name in BEST_METRICS if name in metrics), None)
    return float(best) if isinstance(best, numbers.Real) and math.isfinite(best) else _NO_SCORE


def has_score(metrics: Mapping[str, Any]) -> bool:
    """Whether there is one among validation metrics; see `score`."""
    return score(metrics) > _NO_SCORE


def check(checkpoint: epath.PathLike) -> None:
    """Checks that a checkpoint is what was saved.

    Raises:
      DamagedError: naming the file that is not.
    """
    checkpoint = epath.Path(checkpoint)
    if has_checksums(checkpoint):
        checksums.check_files(checkpoint, _read_sums(checkpoint), _MEND)


def set_aside_damaged(model_dir: str | os.PathLike[str]) -> None:
    """Renames the damaged checkpoints of a run to `damaged_checkpoint_<step>`, and says so.

    The first process does it, before any opens the run; the others wait. All are checked: a damaged
    one that was the best would be kept in place of one that can be read.

    Raises:
      DamagedError: if there are none but damaged ones; then they stay as they are.
    """
    if jax.process_index() == 0:
        found = find(model_dir)
        damage = {step: error for step, path in found.items() if (error := _damage(path))}
        if damage and len(damage) == len(found):
            raise _none_left(damage)
        for step, error in damage.items():
            path = found[step]
            aside = path.with_name(f"{_DAMAGED}{path.name}")
            if aside.exists():  # the same step, damaged before
                aside.rmtree()
            path.rename(aside)
            logging.warning("%s. It now lies in %s, and is not used", error, aside)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")


def choose(model_dir: str | os.PathLike[str]) -> int | None:
    """Returns the step of the best checkpoint by validation F1, or else the most recent one.

    They are checked from the best one down, until one is good; damaged ones are passed over, and
    that is said. None if there are none.

    Raises:
      DamagedError: if there are none but damaged ones.
    """
    found = find(model_dir)
    damage: dict[int, DamagedError] = {}
    for step in _best_first(found):
        if (error := _damage(found[step])) is None:
            for told in damage.values():
                logging.warning("%s. Another one is used", told)
            return step
        damage[step] = error
    if damage:
        raise _none_left(damage)
    return None


def best(model_dir: str | os.PathLike[str]) -> int | None:
    """Returns what `choose` does where no checkpoint is damaged, without reading them whole."""
    return next(iter(_best_first(find(model_dir))), None)


def _best_first(found: Mapping[int, epath.Path]) -> list[int]:
    """Returns steps by validation F1; of equals, and of those without one, later steps first."""
    return sorted(found, key=lambda step: (_validation_score(found[step]), step), reverse=True)


def _read_sums(checkpoint: epath.Path) -> dict[str, str]:
    path = checkpoint / _SUMS
    try:
        fields = json.loads(path.read_bytes())
        is_signed = checksums.is_signed(fields)
    except (ValueError, RecursionError, AttributeError) as error:
        raise DamagedError(f"{path}: unreadable ({type(error).__name__}); {_MEND}") from error
    if not is_signed:
        raise DamagedError(f"{path}: damaged: its checksum is another; {_MEND}")
    return fields["files"]


def _write_sums(checkpoint: epath.Path, sums: Mapping[str, str]) -> None:
    fields = checksums.signed({"files": dict(sorted(sums.items()))})
    atomic.write_text(checkpoint / _SUMS, json.dumps(fields, indent=1))


def _damage(checkpoint: epath.Path) -> DamagedError | None:
    """Returns what is wrong with a checkpoint, or None."""
    try:
        check(checkpoint)
    except DamagedError as error:
        return error
    return None


def _none_left(damage: Mapping[int, DamagedError]) -> DamagedError:
    return DamagedError(f"no checkpoint is left that can be read: {damage[max(damage)]}")


def _validation_score(checkpoint: epath.Path) -> float:
    """Returns the F1 that was measured when it was saved, less than any where none was."""
    try:
        return score(json.loads((checkpoint / METRICS / METRICS).read_bytes()))
    except (OSError, ValueError, AttributeError):
        return _NO_SCORE


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        elif path.name not in _NOT_SUMMED:
            yield path
