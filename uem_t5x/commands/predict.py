"""`uem-t5x predict`: one JSON line a user in, one JSON line with their taste out."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError
from uem_t5x.commands import model_arguments, user_input


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    model_arguments.add_arguments(parser)
    parser.add_argument(
        "--input",
        required=True,
        help="JSON lines, a user each, histories oldest first or with timestamps; - for stdin",
    )
    parser.add_argument("--output", help="where to write the answers; stdout by default")
    parser.add_argument("--batch-size", type=int, default=32)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns 2 if lines were refused, though the others are answered."""
    from uem_t5x.answers import predict

    user_input.check(args.input, args.output)
    if args.output:
        atomic.check_file(args.output)
    trained = model_arguments.load(args)
    refused = 0

    def report(error: InputError) -> None:
        nonlocal refused
        refused += 1
        print(f"uem-t5x predict: {error}", file=sys.stderr)

    with user_input.reading(args.input, trained, report) as users:
        answers = predict.predict(trained, users, args.batch_size)
        if args.output:
            _write_whole(answers, args.output)
        else:
            for answer in answers:
                print(predict.write_line(answer, sys.stdout.encoding), flush=True)
    return 2 if refused else 0


def _write_whole(answers: Iterable[dict[str, Any]], output: str) -> None:
    from uem_t5x.answers import predict
    from uem_t5x.base import progress

    with progress.counting("answering") as advance, atomic.writing_file(output) as file:
        for answer in answers:
            file.write(predict.write_line(answer) + "\n")
            advance(1)
