"""`uem-t5x prepare`: MovieLens and descriptions in, a dataset folder out."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from uem_t5x.data.options import PrepareOptions

if TYPE_CHECKING:
    from uem_t5x.data.manifest import Manifest

_GENRES_TOLD = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments: one for each of `PrepareOptions`."""
    add = parser.add_argument
    add("--movielens", type=Path, required=True, metavar="DIR|ZIP", help="MovieLens, 1M and later")
    add(
        "--descriptions",
        type=Path,
        required=True,
        metavar="CSV",
        help="movie_title, movie_info and original_release_date; or movieId and description",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="the dataset folder to write")
    add(
        "--encoder",
        default=PrepareOptions.encoder,
        metavar="NAME[=FOLDER]",
        help="hashing, sentence-t5-base, -large or -xl; FOLDER holds a downloaded SentenceT5",
    )
    add("--encoder-width", type=int, metavar="N", help="columns of the hashing encoder")
    add(
        "--min-history",
        type=int,
        default=PrepareOptions.min_history,
        metavar="N",
        help="drop users with fewer described movies (default: %(default)s)",
    )
    for split in ("validation", "test"):
        add(
            f"--{split}-users",
            type=_share,
            default=getattr(PrepareOptions, f"{split}_users"),
            metavar="N|F",
            help=f"how many users are for {split}, or what fraction of them; those of a fraction "
            "stay when users are added, those of a number need not (default: %(default)s)",
        )
    add("--seed", type=int, default=PrepareOptions.seed, metavar="N", help="draws the splits")
    add(
        "--vocabulary-size",
        type=int,
        metavar="N",
        help="train a SentencePiece vocabulary of this size for the folder (for tiny models)",
    )
    add("--overwrite", action="store_true", help="replace a dataset folder at --output")


def run(args: argparse.Namespace) -> int:
    """Prepares the folder and prints what became of the input."""
    from uem_t5x.base import progress
    from uem_t5x.data.prepare import prepare

    names = [field.name for field in dataclasses.fields(PrepareOptions)]
    options = PrepareOptions(**{name: getattr(args, name) for name in names})
    with progress.steps() as start:
        folder = prepare(options, start)
    _print_summary(folder.path, folder.manifest)
    return 0


def _share(text: str) -> int | float:
    """Reads a number of users (`500`) or a fraction of them (`0.1`)."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a number of users (500) or a fraction of them (0.1)"
        ) from error


def _print_summary(path: os.PathLike[str], manifest: "Manifest") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    counts = manifest.counts
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(str(path))
    table.add_column("kept", justify="right")
    table.add_column("of", justify="right")
    table.add_column("dropped because")
    rows = {
        "movies": {"no description or genre": "dropped_movies"},
        "descriptions": {"of no movie in the table": "dropped_descriptions"},
        "ratings": {
            "rated again later": "dropped_duplicate_ratings",
            "unknown movie id": "dropped_unknown_movie_ratings",
            "movie without description or genre": "dropped_undescribed_ratings",
            "short history": "dropped_short_history_ratings",
        },
        "users": {"short history": "dropped_users"},
    }
    for name, reasons in rows.items():
        why = ", ".join(
            f"{counts[key]:,} {reason}" for reason, key in reasons.items() if counts[key]
        )
        table.add_row(name, f"{counts[name]:,}", f"{counts[f'{name}_read']:,}", why)
    for name, split in manifest.splits.items():
        table.add_row(f"  {name} users", f"{split.examples:,}")
    console = Console(markup=False)
    console.print(table)
    # As the table has them, so that one which is a list of several looks like none.
    some = "|".join(manifest.genres[:_GENRES_TOLD])
    others = len(manifest.genres) - _GENRES_TOLD
    more = f" and {others:,} more" if others > 0 else ""
    console.print(f"{len(manifest.genres):,} genres: {some}{more}")
    console.print(
        f"{counts['labels_per_user']:.1f} liked or disliked genres a user; "
        f"{counts['users_without_disliked']:,} users dislike none; "
        f"median history {counts['median_history']:g}"
    )
