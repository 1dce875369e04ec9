"""What a MODEL_DIR holds beside checkpoints and metrics, so that it predicts by itself.

MODEL_DIR/config.gin      the recipe, as it was run
MODEL_DIR/answering.gin   what it takes of it to answer
MODEL_DIR/catalogue/      the dataset folder's manifest and movies, without users, and the
                          vocabulary that was trained with, wherever it came from

What only looks at these imports neither JAX nor TensorFlow, so that commands refuse a folder that
is none before the seconds that these take.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import gin
from etils import epath

from uem_t5x.base import atomic, buckets, checksums
from uem_t5x.base.errors import InputError
from uem_t5x.data import manifest
from uem_t5x.data.dataset_folder import CATALOGUE, SPLITS, VOCABULARY, DatasetFolder, copy_catalogue
from uem_t5x.runs import answering, comparison, recipe_text, recipes

_RECIPE, _ANSWERING, _LOCK = recipe_text.TRAINING, recipe_text.ANSWERING, ".lock"
_T5X_TRAIN = "from t5x import train\n"
# A run may go on for longer than was planned, and at another rate; the last is a name in reports.
_MAY_CHANGE = ("TRAIN_STEPS", "LEARNING_RATE", "WARMUP_STEPS", "DECAY_STEPS", "LANGUAGE_MODEL")
_LOCK_PATIENCE = 60  # seconds; what a run that was told to stop may take to save


def is_model_dir(path: str | os.PathLike[str]) -> bool:
    """Tells a MODEL_DIR by its recipe."""
    return (epath.Path(path) / _RECIPE).is_file()


def is_recorded(model_dir: str | os.PathLike[str]) -> bool:
    """Tells whether a MODEL_DIR holds all that its checkpoints need to predict."""
    return is_model_dir(model_dir) and _has_catalogue(model_dir)


@contextlib.contextmanager
def lock(model_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes of this machine from training in a folder; so does its first process.

    One that is just leaving is waited for. A process that is killed holds no lock. A bucket has no
    locks.

    Raises:
      InputError: if another process goes on training there, or checkpoints cannot lie there.
      OSError: if it is in a bucket that cannot be reached.
    """
    buckets.check_for_arrays(model_dir, are_written=True)
    import jax

    if buckets.is_remote(model_dir) or jax.process_index() > 0:
        yield
        return
    path = Path(model_dir) / _LOCK
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while not _take(file):
            if time.monotonic() > deadline:
                raise InputError(
                    f"{model_dir}: another process is training there; wait for it, or choose "
                    "another MODEL_DIR"
                )
            time.sleep(0.5)
        try:
            yield
        finally:
            # A run that was refused leaves nothing.
            if is_new and path.exists() and [*path.parent.iterdir()] == [path]:
                shutil.rmtree(path.parent)


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_is_there(model_dir: str | os.PathLike[str]) -> None:
    """Keeps a run from writing a part of it anew where all of it is gone.

    Raises:
      FileNotFoundError: if it has been moved, removed or unmounted while it was written to.
    """
    if not is_model_dir(model_dir):
        raise FileNotFoundError(
            f"{model_dir}: has vanished, or its {_RECIPE}, during training; put it back, then run "
            "the same command again"
        )


def recipe(model_dir: str | os.PathLike[str]) -> epath.Path:
    """Returns where the recipe lies.

    Raises:
      InputError: if it does not, or its checkpoints cannot be read there.
      OSError: if it is in a bucket that cannot be reached.
    """
    buckets.check_for_arrays(model_dir, are_written=False)
    path = epath.Path(model_dir) / _RECIPE
    if not path.is_file():
        raise InputError(
            f"{model_dir}: no trained model here (no {_RECIPE}); give the MODEL_DIR of a training "
            "run"
        )
    return path


def catalogue(model_dir: str | os.PathLike[str]) -> DatasetFolder:
    """Opens the catalogue of movies that a model knows.

    Raises:
      InputError: if it is missing, or a part of it.
    """
    return DatasetFolder.open(epath.Path(model_dir) / CATALOGUE)


def vocabulary(model_dir: str | os.PathLike[str]) -> epath.Path:
    """Returns where the SentencePiece model of a trained model lies."""
    return epath.Path(model_dir) / CATALOGUE / VOCABULARY


def answering_recipe(model_dir: str | os.PathLike[str]) -> str:
    """Returns the text of what it takes to answer, see `answering`; of an older run, made anew.

    Raises:
      InputError: as in `recipe`, or that is no training recipe's.
    """
    whole = recipe(model_dir)
    recorded = epath.Path(model_dir) / _ANSWERING
    if recorded.is_file():
        return recipe_text.text_of(recorded)
    return answering.of_recipe(recipe_text.text_of(whole), os.fspath(whole))


def check_is_same_run(
    model_dir: str | os.PathLike[str], folder: DatasetFolder, vocabulary_file: epath.PathLike
) -> None:
    """Refuses to go on with a run of another recipe, or of other movies, users or tokens.

    Args:
      model_dir: the run's folder.
      folder: what is to be trained on.
      vocabulary_file: the SentencePiece model of its tasks.

    Raises:
      InputError: if `model_dir` holds checkpoints of a run whose macros differ in more than how
        long and at what rate it trains (parameters, `module.function.parameter`, are not compared),
        another catalogue, or a damaged one.
    """
    _check_recipe(model_dir)
    _check_catalogue(model_dir, folder, vocabulary_file)


def _check_recipe(model_dir: str | os.PathLike[str]) -> None:
    from uem_t5x.checkpoints import folders

    # Most macros leave the shapes of parameters as they are: nothing else would tell.
    checkpoints = folders.find(model_dir)
    if not (checkpoints and is_model_dir(model_dir)):
        return
    path = epath.Path(model_dir) / _RECIPE
    if others := comparison.other_macros(path, recipes.current_macros(), but=_MAY_CHANGE):
        raise InputError(
            f"{model_dir}: holds a run with {others}; give it these, or another MODEL_DIR, which "
            f"INITIAL_CHECKPOINT_PATH='{[*checkpoints.values()][-1]}' has start from its weights"
        )


def _check_catalogue(
    model_dir: str | os.PathLike[str], folder: DatasetFolder, vocabulary_file: epath.PathLike
) -> None:
    if not _has_catalogue(model_dir):
        return
    own = catalogue(model_dir)
    if others := other_data(folder, own):
        raise InputError(
            f"{folder.path}: {others} that {model_dir} was trained on; give its own DATA_DIR, or "
            "choose another MODEL_DIR"
        )
    if checksums.sha256(vocabulary_file) != own.manifest.files[str(VOCABULARY)]:
        raise InputError(
            f"{vocabulary_file}: not the vocabulary that {model_dir} was trained with; give its "
            f"own, which is {vocabulary(model_dir)}, or choose another MODEL_DIR"
        )


def other_data(folder: DatasetFolder, own: DatasetFolder) -> str | None:
    """Says in what a dataset folder is not the one that a model was trained on.

    Args:
      folder: the dataset folder.
      own: the model's catalogue.

    Returns:
      Part of a sentence, such as "its users or labels (train) are not those"; None if in nothing.
    """
    if not (folder.has_catalogue_of(own) and folder.has_inputs_of(own)):
        return "not the data"
    if others := [split for split in SPLITS if not folder.has_split_of(own, split)]:
        return f"its users or labels ({', '.join(others)}) are not those"
    return None


def write(
    model_dir: str | os.PathLike[str], folder: DatasetFolder, vocabulary_file: epath.PathLike
) -> str:
    """Writes the recipe that gin holds, what it takes to answer, and the catalogue of movies.

    Args:
      model_dir: the run's folder.
      folder: what is trained on.
      vocabulary_file: the SentencePiece model of its tasks.

    Returns:
      The recipe's text.

    Raises:
      InputError: as in `check_is_same_run`, or checkpoints cannot lie there.
    """
    buckets.check_for_arrays(model_dir, are_written=True)
    check_is_same_run(model_dir, folder, vocabulary_file)
    destination = epath.Path(model_dir)
    destination.mkdir(parents=True, exist_ok=True)
    if not _has_catalogue(model_dir):
        copy_catalogue(folder, destination / CATALOGUE, vocabulary_file)
    text = gin.config_str()
    if _T5X_TRAIN in text:  # run by `t5x/main.py`; of other scripts, `train` is their own
        text = text.replace(_T5X_TRAIN, "").replace("\ntrain.train.", "\ntrain_script.train.")
    answers = answering.of_recipe(text, os.fspath(destination / _RECIPE))
    atomic.write_text(destination / _ANSWERING, answers)
    atomic.write_text(destination / _RECIPE, text)
    return text


def _has_catalogue(model_dir: str | os.PathLike[str]) -> bool:
    # Its manifest is written last.
    return (epath.Path(model_dir) / CATALOGUE / manifest.FILE_NAME).is_file()
