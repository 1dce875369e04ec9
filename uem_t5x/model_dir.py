"""What a MODEL_DIR holds beside checkpoints and metrics, so that it predicts by itself.

MODEL_DIR/config.gin      the recipe, as it was run
MODEL_DIR/catalogue/      the dataset folder's manifest and movies, without users, and the
                          vocabulary that was trained with, wherever it came from
"""

import os

import gin
from etils import epath

from uem_t5x import data_sources, vocabularies
from uem_t5x.data.dataset_folder import VOCABULARY, DatasetFolder, copy_catalogue
from uem_t5x.errors import InputError

_RECIPE, _CATALOGUE = "config.gin", "catalogue"


def is_model_dir(path: str | os.PathLike[str]) -> bool:
    """Tells a MODEL_DIR by its recipe."""
    return (epath.Path(path) / _RECIPE).is_file()


def recipe(model_dir: str | os.PathLike[str]) -> epath.Path:
    """Returns where the recipe lies.

    Raises:
      InputError: if it does not.
    """
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
    return DatasetFolder.open(epath.Path(model_dir) / _CATALOGUE, catalogue_only=True)


def vocabulary(model_dir: str | os.PathLike[str]) -> epath.Path:
    """Returns where the SentencePiece model of a trained model lies."""
    return epath.Path(model_dir) / _CATALOGUE / VOCABULARY


def check_catalogue(model_dir: str | os.PathLike[str]) -> None:
    """Refuses to go on with a model whose item table is not the current dataset folder's.

    Raises:
      InputError: if `model_dir` holds another catalogue.
    """
    if not (epath.Path(model_dir) / _CATALOGUE).is_dir():
        return
    current = data_sources.dataset_folder()
    if not current.manifest.same_catalogue(catalogue(model_dir).manifest):
        raise InputError(
            f"{current.path}: not the catalogue that {model_dir} was trained on; give its own "
            "DATA_DIR, or choose another MODEL_DIR"
        )


def write(model_dir: str | os.PathLike[str]) -> str:
    """Writes the recipe that gin holds and the current catalogue; returns the recipe's text.

    Raises:
      InputError: if `model_dir` holds another catalogue.
    """
    check_catalogue(model_dir)
    folder = epath.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    copy_catalogue(data_sources.dataset_folder(), folder / _CATALOGUE)
    target = vocabulary(model_dir)
    target.parent.mkdir(exist_ok=True)
    epath.Path(vocabularies.sentencepiece_model_file()).copy(target, overwrite=True)
    text = gin.config_str()
    (folder / _RECIPE).write_text(text)
    return text
