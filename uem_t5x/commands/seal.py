"""`uem-t5x seal`: takes a dataset folder that was changed by hand for what it is now."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("folder", help="a dataset folder")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from uem_t5x.data.seal import seal

    folder = seal(args.folder)
    channels = ", ".join(f"{channel.name} ({channel.width})" for channel in folder.channels)
    print(f"{folder.path}: sealed {len(folder.manifest.files)} files; channels: {channels}")
    return 0
