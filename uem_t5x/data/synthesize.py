"""`uem-t5x synthesize`: a MovieLens-shaped folder with made-up users, to start without data."""

import argparse
import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class SynthesizeOptions:
    """What `synthetic.synthesize` is asked for.

    Attributes:
        output: the folder to write.
        users: how many users.
        movies: how many movies; each has a description.
        ratings: about how many ratings; None gives 110 a user, as in the paper.
        seed: the same options and seed give the same bytes.
        overwrite: replaces a synthetic folder at `output`.
    """

    output: Path
    users: int = 600
    movies: int = 1500
    ratings: int | None = None
    seed: int = 0
    overwrite: bool = False


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
    from rich.console import Console
    from rich.progress import Progress

    from uem_t5x.data import synthetic

    names = [field.name for field in dataclasses.fields(SynthesizeOptions)]
    options = SynthesizeOptions(**{name: getattr(args, name) for name in names})
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        ratings = synthetic.synthesize(options, progress)
    print(
        f"{options.output}: {options.users:,} users, {options.movies:,} movies, "
        f"{ratings:,} ratings\n"
        f"next: uem-t5x prepare --movielens {options.output} "
        f"--descriptions {options.output}/{synthetic.DESCRIPTIONS} --output DATASET"
    )
    return 0
