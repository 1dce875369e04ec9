"""`uem-t5x evaluate`: scores a checkpoint beside the baselines."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uem_t5x.metrics import Taste
    from uem_t5x.trained_model import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("--model-dir", required=True, help="the MODEL_DIR of a training run")
    parser.add_argument("--data-dir", help="a dataset folder; the one it was trained on by default")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--step", type=int, help="of the checkpoint; the best one by default")
    parser.add_argument("--batch-size", type=int, help="the recipe's by default")
    parser.add_argument("--output", help="where to write the scores as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from rich.console import Console

    from uem_t5x import report_tables
    from uem_t5x.trained_model import TrainedModel

    trained = TrainedModel.load(args.model_dir, args.step)
    result = evaluate(trained, args.split, args.data_dir, args.batch_size)
    console = Console()
    console.print(report_tables.methods_table(result))
    console.print(report_tables.genres_table(result))
    if args.output:
        write_metrics(result, args.output)
        console.print(f"scores written to {args.output}")
    return 0


def write_metrics(result: dict[str, Any], output: str | Path) -> None:
    """Writes what `evaluate` returned as JSON."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def evaluate(
    trained: "TrainedModel",
    split: str = "test",
    data_dir: str | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Scores a model and the baselines on the users of a split.

    Args:
      trained: the model.
      split: `train`, `validation` or `test`.
      data_dir: a dataset folder of the same catalogue; the one of the recipe by default.
      batch_size: users that are answered at once; it does not change the scores.

    Returns:
      `methods` (for each its scores: `uem` or `text`, `counting` over whole histories, `rule` over
      the items that the model sees), `per_genre` rows of the model, `examples`, `history_length`,
      `step`, `split` and `task`.

    Raises:
      InputError: if the dataset folder is of another catalogue than the model's.
    """
    from uem_t5x import baselines, data_sources, metrics
    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.errors import InputError

    folder = DatasetFolder.open(data_dir or trained.data_dir)
    if not folder.manifest.same_catalogue(trained.catalogue.manifest):
        raise InputError(
            f"{folder.path}: not the catalogue that the model was trained on (other movies, genres "
            "or sentence encoder); give the dataset folder of its training"
        )
    with data_sources.use_dataset_folder(folder):
        users = baselines.Users.read(split)
        predictions = {
            "uem" if trained.reads_embeddings else "text": _model_answers(
                trained, split, batch_size or trained.batch_size
            ),
            "counting": baselines.counting(users, folder),
            "rule": baselines.rule(users.most_recent(trained.history_length), folder),
        }
    model_name = next(iter(predictions))
    return {
        "methods": {
            name: metrics.score(users.tastes, predicted, folder.genres)
            for name, predicted in predictions.items()
        },
        "per_genre": [
            dataclasses.asdict(row)
            for row in metrics.per_genre(users.tastes, predictions[model_name], folder.genres)
        ],
        "examples": len(users.tastes),
        "history_length": trained.history_length,
        "step": trained.step,
        "split": split,
        "task": trained.task,
    }


def _model_answers(trained: "TrainedModel", split: str, batch_size: int) -> "list[Taste | None]":
    from uem_t5x import datasets, postprocessors

    config = datasets.DatasetConfig(
        trained.task, trained.feature_lengths, split, batch_size, seed=0
    )
    batches = datasets.eval_batches(config, trained.model.FEATURE_CONVERTER_CLS)
    return [postprocessors.genres(text) for text in trained.answerer(batch_size)(batches)]
