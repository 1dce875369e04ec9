"""`uem-t5x evaluate`: scores a checkpoint beside the baselines."""

import argparse
from collections.abc import Sequence
from typing import Any

from uem_t5x.base import atomic, buckets
from uem_t5x.base.errors import InputError
from uem_t5x.commands import model_arguments
from uem_t5x.runs.planned_runs import SCORED_SPLIT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    model_arguments.add_arguments(parser)
    parser.add_argument("--data-dir", help="a dataset folder; the one it was trained on by default")
    parser.add_argument("--split", default=SCORED_SPLIT, choices=("train", "validation", "test"))
    parser.add_argument("--batch-size", type=int, help="the recipe's by default")
    parser.add_argument("--output", help="where to write the scores as JSON")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="SCORES",
        help="what --output wrote of another model on the same users: how much better this one is",
    )
    parser.add_argument("--answers", help="where to write each user's answer, as JSON lines")
    parser.add_argument("--lamp", metavar="FILE", help="where to write answers in LaMP's own form")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from rich.console import Console

    from uem_t5x.answers import evaluate
    from uem_t5x.commands import score_tables

    named = {"--output": args.output, "--answers": args.answers, "--lamp": args.lamp}
    taken: dict[object, str] = {}  # what goes to each place
    for flag, output in named.items():
        if not output:
            continue
        atomic.check_file(output)
        place, what = buckets.absolute(output), "scores" if flag == "--output" else "answers"
        if place in taken:
            raise InputError(f"{flag} {output}: the {taken[place]} go there; give another name")
        taken[place] = what
    others = _read(args.against)
    trained = model_arguments.load(args)
    result = evaluate.evaluate(
        trained, args.split, args.data_dir, args.batch_size, args.answers, args.lamp
    )
    if others and result["methods"]:
        from uem_t5x.answers import against

        result["against"] = against.differences(result, others)
    if args.output:
        evaluate.write_metrics(result, args.output)
    console = Console(markup=False)
    if result["methods"]:
        console.print(score_tables.methods_table(result))
    else:
        console.print(f"no answer is known to the {result['examples']} questions: no scores")
    if "per_genre" in result:
        console.print(score_tables.genres_table(result))
    if "against" in result:
        console.print(score_tables.against_table(result))
    if args.output:
        console.print(f"scores written to {args.output}")
    if args.answers:
        console.print(f"{result['examples']} answers written to {args.answers}")
    if args.lamp:
        console.print(f"{result['examples']} answers written to {args.lamp}")
        if result["left_out"]:
            console.print(
                f"{result['left_out']} questions of LaMP, of all splits, have no profile, and no "
                "answer there: its scorer wants one to each of a split"
            )
    return 0


def _read(files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads the scores of other models; without any, nothing heavy is imported."""
    if not files:
        return {}
    from uem_t5x.answers import against

    return {file: against.read(file) for file in files}
