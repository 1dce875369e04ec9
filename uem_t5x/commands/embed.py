"""`uem-t5x embed`: the soft prompts of users as vectors, in a Parquet or npz file."""

import argparse
import sys
from typing import TYPE_CHECKING

from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError
from uem_t5x.commands import model_arguments, user_input

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.answers.user_lines import User


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    model_arguments.add_arguments(parser)
    of_whom = parser.add_mutually_exclusive_group(required=True)
    of_whom.add_argument("--split", choices=("train", "validation", "test"))
    of_whom.add_argument("--input", help="JSON lines, a user each, as for predict; - for stdin")
    parser.add_argument("--data-dir", help="of --split; the dataset folder of training by default")
    parser.add_argument("--output", required=True, help="FILE.parquet or FILE.npz")
    parser.add_argument(
        "--pooled", action="store_true", help="a vector a user, and not one for every token"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns 2 if lines were refused, though the others are embedded."""
    from uem_t5x.answers import user_vectors

    user_vectors.check_name(args.output)
    atomic.check_file(args.output)
    if args.input:
        user_input.check(args.input, args.output)
    trained = model_arguments.load(args)
    from uem_t5x.answers.model import Model

    refused: list[InputError] = []
    if args.input:
        with user_input.reading(args.input, trained, refused.append) as read:
            users = [user for user in read if user is not None]
    else:
        users = _of_split(trained, args.split, args.data_dir)
    for error in refused:
        print(f"uem-t5x embed: {error}", file=sys.stderr)
    vectors = Model(trained).embed_users(users, args.pooled)
    ids = ["" if user.user_id is None else str(user.user_id) for user in users]
    user_vectors.write(args.output, user_vectors.UserVectors(ids, vectors))
    shape = " x ".join(map(str, vectors.shape[1:]))
    print(f"{len(users)} users, {shape} numbers each, written to {args.output}")
    return 2 if refused else 0


def _of_split(trained: "TrainedModel", split: str, data_dir: str | None) -> "list[User]":
    from uem_t5x.answers.evaluate import folder_of
    from uem_t5x.answers.user_lines import User
    from uem_t5x.inputs import users as users_lib

    users = users_lib.read(folder_of(trained, data_dir), split)
    questions = users.questions or [""] * len(users.ids)
    read = []
    for place, (name, question) in enumerate(zip(users.ids, questions)):
        items, half_stars = users.history(place)
        read.append(
            User(name, tuple(items.tolist()), tuple(half_stars.tolist()), question=question)
        )
    return read
