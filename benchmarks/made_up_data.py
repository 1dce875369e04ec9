"""Made-up users for benchmarks: MovieLens-shaped files, and the dataset folder made of them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import timing
from uem_t5x.data import synthetic
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.prepare import PrepareOptions, prepare
from uem_t5x.data.synthetic import SynthesizeOptions


@contextlib.contextmanager
def dataset_folder(
    given: Path | None, users: int, movies: int, encoder_width: int, vocabulary_size: int
) -> Iterator[DatasetFolder]:
    """Opens the given dataset folder, or one that is made for as long as the block runs.

    Args:
        given: a folder of `uem-t5x prepare`; None makes one of the sizes that follow.
        users: made-up users.
        movies: made-up movies.
        encoder_width: of each channel.
        vocabulary_size: the most pieces of its vocabulary.
    """
    if given:
        yield DatasetFolder.open(given)
        return
    with tempfile.TemporaryDirectory() as root:
        timing.watch(f"making up {users} users and {movies} movies")
        movielens = Path(root) / "movielens"
        synthetic.synthesize(SynthesizeOptions(movielens, users=users, movies=movies))
        yield prepare(
            PrepareOptions(
                movielens=movielens,
                descriptions=movielens / synthetic.DESCRIPTIONS,
                output=Path(root) / "dataset",
                encoder_width=encoder_width,
                vocabulary_size=vocabulary_size,
            )
        )
