"""`uem-t5x channel`: adds channels of vectors to a dataset folder, lists and removes them."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uem_t5x.data.channels import Filled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a channel, from a file of vectors or from pictures")
    add.add_argument("folder", help="a dataset folder")
    add.add_argument("--name", required=True, help="of the channel, such as `poster`")
    origin = add.add_mutually_exclusive_group(required=True)
    origin.add_argument(
        "--vectors",
        metavar="FILE",
        help="Parquet (`movieId` or `rating`, and `vector`), safetensors (`ids`, `vectors`) or npy",
    )
    origin.add_argument(
        "--images",
        metavar="FOLDER",
        help="pictures of items, named by their ids, as 12.jpg (needs `--image-encoder`)",
    )
    add.add_argument(
        "--image-encoder",
        metavar="MODEL",
        help="a CLIP or SigLIP, as Transformers keeps it: a folder, or its name on the hub",
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
        added = _add(args)
        missing = added.rows - added.filled
        print(f"{args.folder}: {_said(added)}; {missing} without a vector are zeros")
        if added.unknown:
            print(f"{args.images}: {added.unknown} pictures of items that are not there, left out")
    elif args.action == "remove":
        channels.remove(args.folder, args.name)
        print(f"{args.folder}: {args.name} removed")
    else:
        for channel in channels.describe(DatasetFolder.open(args.folder)):
            print(_said(channel))
    return 0


def _add(args: argparse.Namespace) -> "Filled":
    from uem_t5x.base import progress
    from uem_t5x.base.errors import InputError
    from uem_t5x.data import channels

    if (args.images is None) != (args.image_encoder is None):
        raise InputError("--images and --image-encoder go together; give both, or --vectors")
    if args.images is None:
        return channels.add(args.folder, args.name, args.vectors, args.per, args.ids)
    if args.ids is not None or args.per != channels.ITEM:
        raise InputError("--images are of items, by their names; leave --ids and --per out")
    with progress.steps() as start:
        return channels.add_pictures(args.folder, args.name, args.images, args.image_encoder, start)


def _said(filled: "Filled") -> str:
    channel, vectors, rows, _ = filled
    return f"{channel.name}: {channel.width} columns, {vectors} of {rows} {channel.index}s"
