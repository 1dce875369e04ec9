"""`uem-t5x synthesize`: a MovieLens-shaped folder with made-up users, to start without data."""

import argparse
import dataclasses
from pathlib import Path

from uem_t5x.data.options import SynthesizeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments: one for each of `SynthesizeOptions`."""
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    for name, summary in (("users", "how many users"), ("movies", "how many movies")):
        default = getattr(SynthesizeOptions, name)
        add(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{summary} (default: {default})",
        )
    add("--ratings", type=int, metavar="N", help="about how many ratings (default: 110 a user)")
    add("--seed", type=int, default=SynthesizeOptions.seed, metavar="N", help="draws everything")
    add("--overwrite", action="store_true", help="replace a synthetic folder at --output")


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what to do with it."""
    from uem_t5x.base import progress
    from uem_t5x.data import synthetic

    names = [field.name for field in dataclasses.fields(SynthesizeOptions)]
    options = SynthesizeOptions(**{name: getattr(args, name) for name in names})
    with progress.steps() as start:
        ratings = synthetic.synthesize(options, start)
    print(
        f"{options.output}: {options.users:,} users, {options.movies:,} movies, "
        f"{ratings:,} ratings\n"
        f"next: uem-t5x prepare --movielens {options.output} "
        f"--descriptions {options.output}/{synthetic.DESCRIPTIONS} --output DATASET"
    )
    return 0
