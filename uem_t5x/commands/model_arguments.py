"""The flags of commands that answer with a trained model: which one it is, and how it answers."""

import argparse
from typing import TYPE_CHECKING, Any

from uem_t5x.base import buckets, startup

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares them."""
    parser.add_argument("--model-dir", required=True, help="the MODEL_DIR of a training run")
    parser.add_argument("--step", type=int, help="of the checkpoint; the best one by default")
    parser.add_argument(
        "--well-formed",
        action=argparse.BooleanOptionalAction,
        help="write nothing but answers that can be read back; done by default where the task's "
        "answers are those sentences, and --no-well-formed shows what the model writes by itself",
    )
    parser.add_argument("--task", help="of the mixture that the model was trained on")
    parser.add_argument(
        "--layout", default="data", help="what is split over the devices, as in training: fsdp, ..."
    )


def load(args: argparse.Namespace) -> "TrainedModel":
    """Loads the model that they name; see `TrainedModel.load`."""
    return load_model(args.model_dir, args.step, args.well_formed, args.layout, args.task)


def load_model(model_dir: str, *options: Any) -> "TrainedModel":
    """Loads a model as `TrainedModel.load` does, with its first seconds quiet.

    Raises:
      InputError: before anything heavy is imported, if a folder of this machine holds none.
    """
    from etils import epath

    from uem_t5x.data.dataset_folder import CATALOGUE
    from uem_t5x.data.manifest import Manifest
    from uem_t5x.runs import model_dir as model_dir_lib

    buckets.check(model_dir)
    if not buckets.is_remote(model_dir):
        model_dir_lib.recipe(model_dir)
        Manifest.read(epath.Path(model_dir) / CATALOGUE)
    startup.load("uem_t5x.answers.trained_model")
    startup.find_devices()
    startup.keep_programs()
    from uem_t5x.answers.trained_model import TrainedModel

    return TrainedModel.load(model_dir, *options)
