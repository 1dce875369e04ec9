"""`uem-t5x channel`: adds channels of vectors to a dataset folder, lists and removes them."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uem_t5x.data.channels import Filled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a channel, from a file of vectors")
    add.add_argument("folder", help="a dataset folder")
    add.add_argument("--name", required=True, help="of the channel, such as `poster`")
    add.add_argument(
        "--vectors",
        required=True,
        metavar="FILE",
        help="Parquet (`movieId` or `rating`, and `vector`), safetensors (`ids`, `vectors`) or npy",
    )
    add.add_argument(
        "--ids",
        metavar="FILE",
        help="of an npy file's vectors, npy too; else they are in row order",
    )
    add.add_argument(
        "--per",
        default="item",
        choices=("item", "rating"),
        help="what the vectors are of (default: %(default)s)",
    )
    for name, summary in {"list": "say what the channels are", "remove": "remove one"}.items():
        action = actions.add_parser(name, help=summary)
        action.add_argument("folder", help="a dataset folder")
        if name == "remove":
            action.add_argument("--name", required=True, help="of the channel")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from uem_t5x.data import channels
    from uem_t5x.data.dataset_folder import DatasetFolder

    if args.action == "add":
        added = channels.add(args.folder, args.name, args.vectors, args.per, args.ids)
        missing = added.rows - added.filled
        print(f"{args.folder}: {_said(added)}; {missing} without a vector are zeros")
    elif args.action == "remove":
        channels.remove(args.folder, args.name)
        print(f"{args.folder}: {args.name} removed")
    else:
        for channel in channels.describe(DatasetFolder.open(args.folder)):
            print(_said(channel))
    return 0


def _said(filled: "Filled") -> str:
    channel, vectors, rows = filled
    return f"{channel.name}: {channel.width} columns, {vectors} of {rows} {channel.index}s"
