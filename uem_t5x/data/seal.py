"""`uem-t5x seal`: takes a dataset folder that was changed by hand for what it is now.

A fourth channel, say, is a matrix in `items/embeddings.safetensors` and a line in the manifest.
"""

import argparse
import os
from typing import TYPE_CHECKING

from uem_t5x.errors import InputError

if TYPE_CHECKING:
    from uem_t5x.data.dataset_folder import DatasetFolder

_RATING_ROWS = 11  # padding, and half-stars 1..10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("folder", help="a dataset folder")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    folder = seal(args.folder)
    channels = ", ".join(f"{channel.name} ({channel.width})" for channel in folder.channels)
    print(f"{folder.path}: sealed {len(folder.manifest.files)} files; channels: {channels}")
    return 0


def seal(path: str | os.PathLike[str]) -> "DatasetFolder":
    """Writes the checksums of a folder anew, in the current format.

    Args:
        path: a dataset folder, or a catalogue, of this format or an older one.

    Returns:
        The folder, opened.

    Raises:
        InputError: if a file is missing, or the matrices are not those of the manifest's channels.
    """
    from etils import epath
    from polars.exceptions import PolarsError
    from safetensors import SafetensorError

    from uem_t5x.data import dataset_folder
    from uem_t5x.data.manifest import Manifest

    folder = dataset_folder.DatasetFolder(epath.Path(path), Manifest.read(path, edited=True))
    if folder.is_catalogue:
        dataset_folder.write_catalogue_manifest(folder.path, folder.manifest)
        return dataset_folder.DatasetFolder.open(path)
    try:
        _check_channels(folder)
    except (OSError, SafetensorError, PolarsError) as error:
        raise InputError(
            f"{folder.path}: movies or matrices cannot be read ({error}); mend them, or copy the "
            "folder again"
        ) from error
    dataset_folder.write_manifest(folder.path, folder.manifest)
    return dataset_folder.DatasetFolder.open(path)


def _check_channels(folder: "DatasetFolder") -> None:
    matrices = folder.embeddings()
    rows = {"item": folder.movies().height, "rating": _RATING_ROWS}
    for channel in folder.channels:
        matrix = matrices.get(channel.name)
        wanted = (rows.get(channel.index), channel.width)
        if matrix is None or matrix.shape != wanted or matrix.dtype != "float32":
            found = "none" if matrix is None else f"{matrix.dtype}{list(matrix.shape)}"
            raise InputError(
                f"{folder.path}: the channel {channel.name!r} needs a matrix float32{list(wanted)}"
                f", there is {found}; mend items/embeddings.safetensors or manifest.json"
            )
