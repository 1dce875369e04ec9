"""`uem-t5x prepare`: tables of items and of histories in, a dataset folder out."""

import argparse
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from uem_t5x.data.options import MIN_HISTORY, PrepareOptions

if TYPE_CHECKING:
    from uem_t5x.data.manifest import Manifest

_GENRES_TOLD = 6
_TOLD = 20

_SHORT = {"short history": "dropped_users"}
_OF_MOVIELENS = {
    "movies": ("movies", {"no description or genre": "dropped_movies"}),
    "descriptions": ("descriptions", {"of no movie in the table": "dropped_descriptions"}),
    "ratings": (
        "ratings",
        {
            "rated again later": "dropped_duplicate_ratings",
            "unknown movie id": "dropped_unknown_movie_ratings",
            "movie without description or genre": "dropped_undescribed_ratings",
            "short history": "dropped_short_history_ratings",
        },
    ),
    "users": ("users", _SHORT),
}
_OF_SOURCES = {
    "movies": (
        "items",
        {"listed again": "dropped_repeated_movies", "lack what is told": "dropped_movies"},
    ),
    "ratings": (
        "interactions",
        {
            "no value": "dropped_unrated_ratings",
            "no user or item": "dropped_nameless_ratings",
            "again later": "dropped_duplicate_ratings",
            "of unknown items": "dropped_unknown_movie_ratings",
            "of items that lack what is told": "dropped_undescribed_ratings",
            "short history": "dropped_short_history_ratings",
        },
    ),
    "users": ("users", _SHORT),
}
_OF_QUESTIONS = {
    **_OF_SOURCES,
    "ratings": (
        "interactions",
        {
            **{
                reason: key
                for reason, key in _OF_SOURCES["ratings"][1].items()
                if key != "dropped_short_history_ratings"
            },
            "before no question": "dropped_short_history_ratings",
        },
    ),
    "users": ("users", {"without a question": "dropped_users"}),
    "questions": (
        "questions",
        {
            "without an answer": "dropped_unanswered_questions",
            "of nobody with a history": "dropped_nobodys_questions",
            "about too few items": "dropped_short_history_questions",
        },
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments: one for each of `PrepareOptions`."""
    add = parser.add_argument
    add("--movielens", type=Path, metavar="DIR|ZIP", help="MovieLens, 1M and later")
    add(
        "--descriptions",
        type=Path,
        metavar="CSV",
        help="of movies: movie_title, movie_info, original_release_date; or movieId, description",
    )
    add(
        "--source",
        metavar="NAME|FILE.toml",
        help="other data: a preset, or a file that says what they are (docs/your_data.md)",
    )
    add("--data", type=_place, metavar="DIR|ZIP", help="where the files of --source lie")
    add("--output", type=_place, metavar="DIR", help="the dataset folder to write")
    add(
        "--encoder",
        default=PrepareOptions.encoder,
        metavar="NAME[=FOLDER]",
        help="hashing; sentence-t5-base, -large or -xl, FOLDER holds a downloaded one; "
        "sentence-transformers:NAME; module:Class (default: %(default)s)",
    )
    add("--encoder-width", type=int, metavar="N", help="columns of the hashing encoder")
    add(
        "--min-history",
        type=int,
        metavar="N",
        help=f"drop users with fewer described movies (default: {MIN_HISTORY}), or questions about "
        "fewer items (default: 1)",
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
    add(
        "--runner",
        metavar="RUNNER",
        help="of --source: an Apache Beam runner with its flags, in quotes, for more than one "
        'machine: "DataflowRunner --project=..." (docs/your_data.md)',
    )
    add("--overwrite", action="store_true", help="replace a dataset folder at --output")
    add(
        "--check",
        action="store_true",
        help="of --source: write nothing, but show an item, a history and an example",
    )


def run(args: argparse.Namespace) -> int:
    """Prepares the folder and prints what became of the input."""
    from uem_t5x.base import progress
    from uem_t5x.base.errors import InputError

    if args.check:
        _check(args)
        return 0
    if args.output is None:
        raise InputError("--output DIR is missing: where shall the dataset folder be written?")
    from uem_t5x.data.prepare import prepare

    names = [field.name for field in dataclasses.fields(PrepareOptions)]
    options = PrepareOptions(**{name: getattr(args, name) for name in names})
    with progress.steps() as start:
        if args.runner:
            from uem_t5x.data import prepare_on_runner

            folder = prepare_on_runner.prepare(options, args.runner, start)
        else:
            folder = prepare(options, start)
    _print_summary(folder.path, folder.manifest)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Shows what the source makes of some of its data."""
    from rich.console import Console
    from rich.table import Table

    from uem_t5x.base.errors import InputError
    from uem_t5x.data import preview, sources

    if args.source in (None, sources.MOVIELENS) or args.data is None:
        raise InputError("--check shows what --source NAME makes of --data DIR; give both")
    found = preview.preview(args.source, args.data)
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column()

    def add(name: str, lines: Iterable[str]) -> None:
        table.add_row(name, "\n".join(lines))

    add("read", [_some(found.files)])
    add("an item", (f"{name}: {_cell(value)}" for name, value in found.item.items()))
    add("is told as", (f"{name}: {text}" for name, text in found.sentences.items()))
    add(
        f"the last of {found.length} items of a user",
        (f"{value} ({stars / 2:g} stars)  {title}" for value, stars, title in found.history),
    )
    add("an example", [found.question, found.answer])
    worth = sorted(found.worth.items(), key=lambda pair: (pair[1], pair[0]))
    add("values in stars", [_some(f"{value} = {stars / 2:g}" for value, stars in worth)])
    add("classes", [f"{len(found.classes)}: {_some(found.classes)}"])
    Console(markup=False).print(table)


def _cell(value: object) -> str:
    return "|".join(value) if isinstance(value, list) else str(value)


def _some(texts: Iterable[str]) -> str:
    """Names the first few."""
    all_texts = list(texts)
    more = len(all_texts) - _TOLD
    return ", ".join(all_texts[:_TOLD]) + (f" and {more:,} more" if more > 0 else "")


def _place(text: str) -> os.PathLike[str]:
    from uem_t5x.base import buckets

    return buckets.place(text)


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
    # By what is counted: what it is called, and what is left out of it, why.
    rows = _OF_SOURCES if manifest.source else _OF_MOVIELENS
    examples = "users"
    if manifest.telling.has_questions:
        rows, examples = _OF_QUESTIONS, "questions"
    for name, (called, reasons) in rows.items():
        why = ", ".join(
            f"{counts[key]:,} {reason}" for reason, key in reasons.items() if counts[key]
        )
        table.add_row(called, f"{counts[name]:,}", f"{counts[f'{name}_read']:,}", why)
    for name, split in manifest.splits.items():
        table.add_row(f"  {name} {examples}", f"{split.examples:,}")
    console = Console(markup=False)
    console.print(table)
    if manifest.telling.has_questions:
        metrics = ", ".join(manifest.telling.metrics)
        console.print(
            f"scored by {metrics}; median history {counts['median_history']:g}, of what came "
            "before the question"
        )
        return
    # As the table has them, so that one which is a list of several looks like none.
    of_what = "classes" if manifest.source else "genres"
    some = "|".join(manifest.genres[:_GENRES_TOLD])
    others = len(manifest.genres) - _GENRES_TOLD
    more = f" and {others:,} more" if others > 0 else ""
    console.print(f"{len(manifest.genres):,} {of_what}: {some}{more}")
    console.print(
        f"{counts['labels_per_user']:.1f} liked or disliked {of_what} a user; "
        f"{counts['users_without_disliked']:,} users dislike none; "
        f"median history {counts['median_history']:g}"
    )
