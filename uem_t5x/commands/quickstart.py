"""`uem-t5x quickstart`: the whole way on made-up users, in a few minutes on a laptop.

Synthesizes users with a known taste, prepares them, trains a tiny UEM and T5 from scratch, scores
it beside the baselines and answers for one user in plain words.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x.base import startup
from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

RECIPE = "gin/uem_quickstart.gin"
USERS, TEST_USERS, MOVIES = 700, 150, 800


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="DIR",
        help="the folder to write; what an older quickstart wrote there is replaced (default: "
        "%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs every stage."""
    from rich.console import Console
    from rich.text import Text

    from uem_t5x.data import synthetic

    output, console = args.output, Console(markup=False)

    started = time.monotonic()
    movielens, dataset, model_dir = (output / name for name in ("movielens", "dataset", "model"))

    # A fresh start: users are made anew, so an older run cannot be gone on with.
    if model_dir.exists():
        if not synthetic.is_synthetic(movielens):
            raise InputError(
                f"{model_dir}: exists and is no quickstart's; give --output another folder"
            )
        shutil.rmtree(model_dir)
    console.rule("1. Users with a known taste")
    _make_data(movielens, dataset, console)

    console.rule("2. Training a user embedding module and a T5 from scratch")
    _train(model_dir, dataset)

    console.rule("3. Scores on users that were never seen")
    from uem_t5x.answers import evaluate
    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.commands import one_user, score_tables
    from uem_t5x.data.dataset_folder import DatasetFolder

    trained = TrainedModel.load(model_dir)
    result = evaluate.evaluate(trained)
    evaluate.write_metrics(result, output / "metrics.json")
    _plot(result, output / "f1_by_method.png")
    console.print(score_tables.methods_table(result))

    console.rule("4. One of them, answered middling well")
    one_user.tell(trained, DatasetFolder.open(dataset), "test", console)

    console.rule()
    console.print(f"{time.monotonic() - started:.0f} seconds. Everything lies in {output}/:")
    for name, what in {
        "movielens/": "the made-up ratings and descriptions, as MovieLens files",
        "dataset/": "what `uem-t5x prepare` made of them",
        "model/checkpoint_*": "the trained model",
        "model/train, training_eval, inference_eval": "events for `tensorboard --logdir`",
        "metrics.json": "the scores above",
        "f1_by_method.png": "the scores as a picture",
    }.items():
        console.print(Text.assemble("  ", (name, "bold"), f"  {what}"))
    return 0


def _make_data(movielens: Path, dataset: Path, console: "Console") -> None:
    from uem_t5x.data import synthetic
    from uem_t5x.data.prepare import PrepareOptions, prepare
    from uem_t5x.data.synthetic import SynthesizeOptions

    synthetic.synthesize(SynthesizeOptions(movielens, users=USERS, movies=MOVIES, overwrite=True))
    folder = prepare(
        PrepareOptions(
            movielens=movielens,
            descriptions=movielens / synthetic.DESCRIPTIONS,
            output=dataset,
            encoder_width=96,
            test_users=TEST_USERS,
            vocabulary_size=512,
            overwrite=True,
        )
    )
    splits = folder.manifest.splits
    console.print(
        f"{splits['train'].examples} users to learn from, {splits['validation'].examples} to "
        f"watch, {splits['test'].examples} to be scored on"
    )


def _train(model_dir: Path, dataset: Path) -> None:
    print("loading JAX and TensorFlow", file=sys.stderr, flush=True)
    startup.load("uem_t5x.train")
    startup.find_devices()
    from uem_t5x import train

    train.run_recipe([RECIPE], [f"MODEL_DIR = {str(model_dir)!r}", f"DATA_DIR = {str(dataset)!r}"])


def _plot(result: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from uem_t5x.commands.score_tables import method_label

    methods = sorted(result["methods"].items(), key=lambda method: method[1]["f1"])
    labels = [method_label(name, result["history_length"]) for name, _ in methods]
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    bars = axes.barh(
        labels,
        [scores["f1"] for _, scores in methods],
        color=["#1f77b4" if name == "uem" else "#b0b0b0" for name, _ in methods],
    )
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.set(xlim=(0, 1), xlabel="weighted F1, liked and disliked genres together")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
